//! The list of formats. A format is found here by its name; what it is stands in its own file.

mod arrow;
mod csv;
mod json;
mod parquet;
mod xml;

use std::fmt;
use std::ops::Deref;

use polyglot_core::format::FormatName;
use polyglot_core::request::ExportRequest;

use crate::definition::FormatDefinition;

/// Every format, in the order in which lists show them.
const FORMATS: &[&FormatDefinition] =
    &[&csv::CSV, &json::JSON, &json::JSON_LINES, &xml::XML, &parquet::PARQUET, &arrow::ARROW];

/// A format of the registry. It dereferences to its definition.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Format(usize);

/// No format has the name: it was accepted by another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown format {0:?}")]
pub struct UnknownFormat(pub String);

impl Format {
    /// The number of formats.
    pub const COUNT: usize = FORMATS.len();

    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..FORMATS.len()).map(Self)
    }

    /// The format of that exact name, or `None`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().find(|format| format.name == name)
    }

    /// The format that a request asks for.
    pub fn of(request: &ExportRequest) -> Result<Self, UnknownFormat> {
        Self::named(&request.format)
    }

    /// The format of that name in a stored request.
    pub fn named(name: &FormatName) -> Result<Self, UnknownFormat> {
        Self::by_name(name.as_str()).ok_or_else(|| UnknownFormat(name.as_str().to_owned()))
    }

    /// Its place among all formats, below [`Format::COUNT`].
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }
}

impl Deref for Format {
    type Target = FormatDefinition;

    fn deref(&self) -> &'static FormatDefinition {
        FORMATS[self.0]
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl From<Format> for FormatName {
    fn from(format: Format) -> Self {
        format.name.into()
    }
}
