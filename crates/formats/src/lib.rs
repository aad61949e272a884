//! The file formats: rows of binary `COPY` in, bytes of a file out. One file or folder a format; the registry knows them
//! all. Nothing here needs a server or a runtime.

mod columnar;
pub mod compress;
pub mod copy;
mod definition;
mod encode;
mod encode_buffer;
mod expected_size;
mod nesting;
mod object;
mod option;
mod output_column;
mod output_type;
mod registry;
pub mod standalone;
#[cfg(test)]
mod test_sink;
mod text;
mod unrepresentable_policy;

pub use definition::{Footer, FooterError, FormatDefinition, Incompressible, RowSize, ShardSize};
pub use encode::{Encode, EncodeError};
pub use encode_buffer::{ByteSink, EncodeBuffer, FLUSH_BYTES, Stopped};
pub use expected_size::expected_size;
pub use option::{Choice, OptionDefinition, OptionError, OptionForm, OptionValue};
pub use output_column::OutputColumn;
pub use registry::{Format, UnknownFormat};
pub use text::write_readable;
pub use unrepresentable_policy::Replacement;
