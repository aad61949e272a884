//! An estimate of a row's size in the file, as far as the server can compute it without reading long values or printing
//! any. Only proportions matter: `calibrate` finds the scale by encoding a few rows.

use polyglot_core::column::{Column, WireType};
use polyglot_core::mask::Mask;
use polyglot_core::request::ExportRequest;
use polyglot_source::mask::MaskKey;

use polyglot_formats::{Format, OutputColumn};

use super::read_plan::Plan;
use super::sql::qualified;

/// Factor by which compression shrinks names and delimiters, which repeat in every row.
const REPETITION_FACTOR: usize = 8;

/// Returns the bytes of a row around its values.
fn row_overhead(columns: &[OutputColumn], format: Format, request: &ExportRequest) -> usize {
    let names: usize = columns.iter().map(|column| column.name.len()).sum();
    let bytes = (format.row_size.frame)(names, columns.len());
    if request.compression.is_some() { bytes.div_ceil(REPETITION_FACTOR) } else { bytes }
}

/// Returns the expression that estimates the size of a column's value.
fn column_size_estimate(column: &Column, format: Format, request: &ExportRequest) -> String {
    let name = qualified(&column.name);
    match request.grant.mask(&column.name) {
        Some(Mask::Null) => return "0".to_owned(),
        Some(Mask::Hash) => return MaskKey::DIGITS.to_string(),
        // The relation's column need not be text.
        Some(Mask::Last4) => return format!("coalesce(pg_catalog.pg_column_size({name}), 0)"),
        None => {}
    }
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
        // Not for an enum, which arrives the same way but has no length.
        WireType::Text if column.array.is_none() && column.wide => format!("pg_catalog.octet_length({name})"),
        WireType::Bytea if column.array.is_none() => {
            let digits = format.row_size.bytea_factor;
            format!("pg_catalog.octet_length({name}) * {digits}::float8")
        }
        _ => format!("pg_catalog.pg_column_size({name})"),
    };
    if column.nullable { format!("coalesce({length}, 0)") } else { length }
}

/// Returns the expression that estimates the size of a row: of type `float8`, never 0.
pub(super) fn row_size_expression(plan: &Plan, request: &ExportRequest) -> String {
    let mut terms = vec![format!("{}::float8", row_overhead(&plan.columns, plan.format, request) + 1)];
    terms.extend(plan.sources.iter().map(|column| column_size_estimate(column, plan.format, request)));
    terms.join(" + ")
}
