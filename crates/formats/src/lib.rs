//! The file formats: rows of binary `COPY` in, bytes of a file out. One file or folder a format; the registry knows them
//! all. Nothing here needs a server or a runtime.

pub mod compress;
pub mod copy;
mod csv;
mod encode;
mod encode_buffer;
mod json;
mod nesting;
mod output_column;
mod output_type;
mod parquet;
mod registry;
pub mod standalone;
mod text;
mod unrepresentable_policy;
mod xml;

pub use encode::{Encode, EncodeError};
pub use encode_buffer::{ByteSink, EncodeBuffer, FLUSH_BYTES, Stopped};
pub use output_column::OutputColumn;
pub use output_type::output_type;
pub use parquet::footer as parquet_footer;
pub use registry::encoder;
pub use text::write_readable;
pub use unrepresentable_policy::Replacement;
