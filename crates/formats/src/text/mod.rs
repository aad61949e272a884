//! Values as text, for the text formats: as PostgreSQL's output functions write them.

mod datetime;
mod float;
mod json_text;
mod scalar;

pub(crate) use datetime::{UNIX_EPOCH_DAYS, write_whole_seconds};
pub(crate) use json_text::{NoCharacter, NotJson, Token, Tokens, unescape};
pub use scalar::write_readable;
pub(crate) use scalar::{write_hex, write_plain};
