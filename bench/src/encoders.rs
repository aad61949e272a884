//! The comparison of our encoders with the libraries' writers: rows of the sample table, from the bytes of a binary
//! `COPY` to the bytes of a file, decoded by the same code on both sides.

use std::time::Duration;

use polyglot_core::column::WireType;
use polyglot_core::format_options::FormatOptions;
use polyglot_formats::Format;
use polyglot_formats::standalone::encode;

use crate::by_library;

use crate::interleaved;
use crate::sample::{ROWS, columns, copy};

const ROUNDS: usize = 7;

/// Runs each pair and prints the figures.
pub(crate) fn compare() {
    let copy = copy();
    let mut columns = columns();
    let options = FormatOptions::default();
    println!("{ROWS} rows of the sample table, median of {ROUNDS}, interleaved");
    for (library, name) in [("csv", "csv"), ("serde_json", "jsonl"), ("quick-xml", "xml")] {
        let format = Format::by_name(name).expect("it is a format");
        // No library makes XML elements of JSON, so JSON is text in XML on both sides.
        columns[4].wire = if name == "xml" { WireType::Text } else { WireType::Json };
        let (mut ours, mut theirs) = (0, 0);
        let [our_time, their_time]: [Duration; 2] = interleaved(
            ROUNDS,
            [&mut || ours = encode(&copy, &columns, format, &options).expect("the rows are good").len(), &mut || {
                let file = by_library::encode(&copy, &columns, format).expect("there is a library");
                theirs = file.expect("the rows are good").len();
            }],
        );
        println!(
            "  {format:<6} ours {:6.3} s  {ours} bytes;  {library} {:6.3} s  {theirs} bytes;  ratio {:5.2}",
            our_time.as_secs_f64(),
            their_time.as_secs_f64(),
            their_time.as_secs_f64() / our_time.as_secs_f64(),
        );
    }
}
