//! The names of types in formats whose values are text.

use polyglot_core::column::WireType;

/// The type of a value that is written as text.
pub(crate) fn text_type(wire: WireType) -> &'static str {
    match wire {
        WireType::Bool => "boolean",
        WireType::Int2 | WireType::Int4 | WireType::Int8 => "integer",
        WireType::Float4 | WireType::Float8 | WireType::Numeric(_) => "number",
        WireType::Text | WireType::TextForm => "text",
        WireType::Bytea => "hex",
        WireType::Date => "date",
        WireType::Time => "time",
        WireType::Timestamp => "date-time without zone",
        WireType::TimestampTz => "date-time",
        WireType::Uuid => "uuid",
        WireType::Json | WireType::Jsonb => "JSON",
    }
}
