//! What there is to know about a format: one definition a format, in the format's own file. The list of all of them is the
//! registry's.

use polyglot_core::column::Column;
use polyglot_core::format_options::FormatOptions;
use polyglot_core::request::Layout;

use crate::encode::Encode;
use crate::option::OptionDefinition;
use crate::output_column::OutputColumn;

/// Everything that the api, the worker, the description of the API and the page know about a format.
pub struct FormatDefinition {
    /// Its name in requests and answers.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// The ending of a file's name, without the dot.
    pub extension: &'static str,
    /// The `Content-Type` of the file, unless it is kept compressed.
    pub media_type: &'static str,
    /// Why the file as a whole is not compressed; `None`: it may be.
    pub incompressible: Option<Incompressible>,
    /// The options that it has, in the order in which they are listed and read.
    pub options: &'static [OptionDefinition],
    /// Whether no value makes an export fail, so that messages about single values are not needed.
    pub holds_every_value: bool,
    /// Whether an array is written as PostgreSQL's own text of it.
    pub arrays_as_text: bool,
    pub row_size: RowSize,
    pub shard_size: ShardSize,
    /// What ends a file that was written in several shards, where the encoder of the last one cannot write it.
    pub footer: Option<Footer>,
    pub(crate) output_type: fn(&Column, &FormatOptions) -> String,
    pub(crate) encoder: fn(&FormatOptions, &[OutputColumn], usize) -> Box<dyn Encode>,
}

impl FormatDefinition {
    /// What `column` becomes in a file, in words: for lists of datasets, and for manifests. The system tests compare it
    /// with what files hold.
    #[must_use]
    pub fn output_type(&self, column: &Column, options: &FormatOptions) -> String {
        (self.output_type)(column, options)
    }

    /// The encoder of a file, or of one of so many shards of it, each of which has an encoder of its own.
    #[must_use]
    pub fn encoder(&self, options: &FormatOptions, columns: &[OutputColumn], shards: usize) -> Box<dyn Encode> {
        (self.encoder)(options, columns, shards)
    }

    /// The option of that name, or `None` if the format does not have it.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&'static OptionDefinition> {
        self.options.iter().find(|option| option.name == name)
    }
}

/// Why a format's file as a whole is not compressed.
pub struct Incompressible {
    /// The predicate of a sentence about the format.
    pub reason: &'static str,
    /// A sentence for the page.
    pub hint: &'static str,
}

/// What the size of a row in the file is estimated by, before a trial puts a scale to the estimate. Only proportions
/// between rows matter.
pub struct RowSize {
    /// Bytes around the values of a row, from the length of all columns' names and the number of columns.
    pub frame: fn(usize, usize) -> usize,
    /// Bytes that a byte of `bytea` becomes.
    pub bytea_factor: f64,
    /// Whether numbers, dates and the like have their binary size, and not that of their text.
    pub is_binary: bool,
}

/// How much of a file one shard is to be.
pub struct ShardSize {
    /// Bytes of one file as it is stored.
    pub bytes: u64,
    /// The product of columns and shards at most; `None`: any.
    pub max_columns_times_shards: Option<u64>,
}

impl ShardSize {
    /// For formats that need no memory beside the shard itself.
    pub(crate) const DEFAULT: Self = Self { bytes: 16 << 20, max_columns_times_shards: None };

    /// Intended size of a shard that is a file of its own, in bytes as they are stored.
    const FILE_BYTES: u64 = 128 << 20;

    /// Intended size of a shard, in bytes as they are stored.
    #[must_use]
    pub fn target_bytes(&self, layout: Layout) -> u64 {
        match layout {
            Layout::File => self.bytes,
            Layout::Files => Self::FILE_BYTES,
        }
    }
}

/// For each shard, where in the file it begins, and the description that its encoder returned.
pub(crate) type ShardDescriptions<'a> = dyn Iterator<Item = (u64, Vec<u8>)> + 'a;

/// The end of a file that lists what is in every shard.
pub struct Footer {
    pub(crate) assemble: fn(&mut ShardDescriptions<'_>) -> Result<Vec<u8>, FooterError>,
    pub(crate) length: fn(&[u8]) -> usize,
}

impl Footer {
    /// The last bytes of a file that [`Footer::length`] needs.
    pub const TAIL: usize = 8;

    /// The end of a file that consists of these pieces: for each, where in the file it begins, and what its encoder said of
    /// it (`Encode::finish_shard`).
    ///
    /// # Errors
    /// When a description cannot be read, which is a defect, or there is none.
    pub fn assemble(&self, mut pieces: impl Iterator<Item = (u64, Vec<u8>)>) -> Result<Vec<u8>, FooterError> {
        (self.assemble)(&mut pieces)
    }

    /// The length of the footer, from the last bytes of a file.
    #[must_use]
    pub fn length(&self, tail: &[u8]) -> usize {
        (self.length)(tail)
    }
}

/// A defect: the description of a shard cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the footer cannot be put together")]
pub struct FooterError(#[source] pub(crate) Box<dyn std::error::Error + Send + Sync>);
