//! Our encoders against the libraries' writers: rows of the sample table, from the bytes of a binary `COPY` to the bytes
//! of a file, decoded by the same code on both sides.

use std::time::Duration;

use polyglot_export::catalog::WireType;
use polyglot_export::format::Format;
use polyglot_export::format_options::FormatOptions;
use polyglot_worker::workbench::{OutputColumn, by_library, encode};

use crate::interleaved;

const ROUNDS: usize = 7;
const ROWS: i64 = 200_000;

pub(crate) const NAMES: [&str; 5] = ["id", "created_at", "name", "value", "metadata"];

/// The rows as the server would send them.
pub(crate) fn copy() -> Vec<u8> {
    let mut copy = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
    let field = |bytes: &[u8], copy: &mut Vec<u8>| {
        copy.extend(i32::try_from(bytes.len()).expect("short").to_be_bytes());
        copy.extend_from_slice(bytes);
    };
    for n in 0..ROWS {
        // One name in four holds something to escape, as in the sample table.
        let name = match n % 8 {
            0 => format!("Haas, Ida & Sons {n}"),
            1 => format!("the \"Klein\"\t{n}"),
            _ => format!("Eva Bauer {n}"),
        };
        let metadata = format!(
            "{{\"city\": \"Zürich\", \"zip\": \"{}\", \"tags\": [\"new\", \"sale\"], \"active\": true, \"amount\": {}.25}}",
            10_000 + n % 90_000,
            n % 4096,
        );
        copy.extend(5_i16.to_be_bytes());
        field(&n.to_be_bytes(), &mut copy);
        field(&(n * 1_000_001).to_be_bytes(), &mut copy);
        field(name.as_bytes(), &mut copy);
        // n.5000 in digits to the base of 10,000.
        let digits = [n / 10_000, n % 10_000, 5000].map(|digit| u16::try_from(digit).expect("below 10,000"));
        let numeric: Vec<u8> = [3, 1, 0, 4].iter().chain(&digits).flat_map(|word| word.to_be_bytes()).collect();
        field(&numeric, &mut copy);
        field(metadata.as_bytes(), &mut copy);
    }
    copy.extend([0xff, 0xff]);
    copy
}

pub(crate) fn columns() -> Vec<OutputColumn> {
    let wires =
        [WireType::Int8, WireType::TimestampTz, WireType::Text, WireType::Numeric(Some((18, 4))), WireType::Json];
    let column =
        |(name, wire): (&&str, WireType)| OutputColumn { name: (*name).to_owned(), wire, array: None, measured: false };
    NAMES.iter().zip(wires).map(column).collect()
}

/// Runs each pair and prints the figures.
pub(crate) fn compare() {
    let copy = copy();
    let mut columns = columns();
    let options = FormatOptions::default();
    println!("{ROWS} rows of the sample table, median of {ROUNDS}, interleaved");
    for (name, format) in [("csv", Format::Csv), ("serde_json", Format::Jsonl), ("quick-xml", Format::Xml)] {
        // Elements out of JSON no library makes, so it is text in XML, on both sides.
        columns[4].wire = if format == Format::Xml { WireType::Text } else { WireType::Json };
        let (mut ours, mut theirs) = (0, 0);
        let [our_time, their_time]: [Duration; 2] = interleaved(
            ROUNDS,
            [&mut || ours = encode(&copy, &columns, format, &options).expect("the rows are good").len(), &mut || {
                let file = by_library::encode(&copy, &columns, format).expect("there is a library");
                theirs = file.expect("the rows are good").len();
            }],
        );
        println!(
            "  {format:<6} ours {:6.3} s  {ours} bytes;  {name} {:6.3} s  {theirs} bytes;  ratio {:5.2}",
            our_time.as_secs_f64(),
            their_time.as_secs_f64(),
            their_time.as_secs_f64() / our_time.as_secs_f64(),
        );
    }
}
