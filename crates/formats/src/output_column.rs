//! A column of the file.

use polyglot_core::column::{ArrayType, WireType};

/// A column of the file: its name there, and how it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    pub name: String,
    /// Of the value, or of an array's items; `TextForm` where the server is asked for the text it prints.
    pub wire: WireType,
    pub array: Option<ArrayType>,
    /// Whether its text is a number or a date and the like.
    pub is_non_text: bool,
}
