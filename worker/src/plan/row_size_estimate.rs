//! What a row weighs: its size in the file, as far as the server can tell without reading long values or printing any.
//! Only proportions matter, and a trial with the encoder puts a scale to them.

use polyglot_core::column::{Column, WireType};
use polyglot_core::request::ExportRequest;

use polyglot_formats::{Format, OutputColumn};

use super::read_plan::Plan;
use super::sql::qualified;

/// Names and delimiters repeat, so that hardly anything is left of them when they are compressed.
const REPEATED: usize = 8;

/// What a row has around its values.
fn frame(columns: &[OutputColumn], format: Format, request: &ExportRequest) -> usize {
    let names: usize = columns.iter().map(|column| column.name.len()).sum();
    let bytes = (format.row_size.frame)(names, columns.len());
    if request.compression.is_some() { bytes.div_ceil(REPEATED) } else { bytes }
}

/// A column's weight as an expression.
fn column_weight(column: &Column, format: Format, request: &ExportRequest) -> String {
    let name = qualified(&column.name);
    let packed = request.compression.is_some() || format.row_size.is_binary;
    let fixed = match column.wire {
        _ if column.array.is_some() => None,
        WireType::Bool => Some((5, 1)),
        WireType::Int2 => Some((4, 2)),
        WireType::Int4 => Some((7, 4)),
        WireType::Int8 => Some((10, 6)),
        WireType::Float4 => Some((9, 4)),
        WireType::Float8 => Some((17, 8)),
        WireType::Date => Some((10, 3)),
        WireType::Time => Some((12, 6)),
        WireType::Timestamp | WireType::TimestampTz => Some((27, 8)),
        WireType::Uuid => Some((36, 17)),
        _ => None,
    };
    if let Some((text, binary)) = fixed {
        let bytes = if packed { binary } else { text };
        return if column.nullable {
            format!("CASE WHEN {name} IS NULL THEN 0 ELSE {bytes} END")
        } else {
            bytes.to_string()
        };
    }
    let length = match column.wire {
        // Not of an enum, which is as narrow and has no length.
        WireType::Text if column.array.is_none() && column.wide => format!("pg_catalog.octet_length({name})"),
        WireType::Bytea if column.array.is_none() => {
            let digits = format.row_size.bytea_factor;
            format!("pg_catalog.octet_length({name}) * {digits}::float8")
        }
        _ => format!("pg_catalog.pg_column_size({name})"),
    };
    if column.nullable { format!("coalesce({length}, 0)") } else { length }
}

/// A row's weight, never 0, of type `float8`.
pub(super) fn row_size_expression(plan: &Plan, request: &ExportRequest) -> String {
    let mut terms = vec![format!("{}::float8", frame(&plan.columns, plan.format, request) + 1)];
    terms.extend(plan.sources.iter().map(|column| column_weight(column, plan.format, request)));
    terms.join(" + ")
}
