//! The formats that there are, and the encoder of each.

use polyglot_core::format::Format;
use polyglot_core::format_options::FormatOptions;

use crate::encode::Encode;
use crate::output_column::OutputColumn;
use crate::unrepresentable_policy::UnrepresentablePolicy;
use crate::{csv, json, parquet, xml};

/// The encoder for a format; of a file that is written in so many shards, each by one of its own.
pub fn encoder(format: Format, options: &FormatOptions, columns: &[OutputColumn], shards: usize) -> Box<dyn Encode> {
    let unrepresentable_policy = UnrepresentablePolicy::new(options.on_unrepresentable);
    match format {
        Format::Csv => Box::new(csv::Csv::new(columns, &options.csv, unrepresentable_policy)),
        Format::Json => Box::new(json::Json::new(columns, json::Framing::Array, options.bigint)),
        Format::Jsonl => Box::new(json::Json::new(columns, json::Framing::Lines, options.bigint)),
        Format::Xml => Box::new(xml::Xml::new(columns, unrepresentable_policy)),
        Format::Parquet => Box::new(parquet::Parquet::new(columns, options.parquet, unrepresentable_policy, shards)),
    }
}
