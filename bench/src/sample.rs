//! Rows like those of the sample table, in the format of a binary `COPY`.

use polyglot_core::column::WireType;
use polyglot_formats::OutputColumn;
use polyglot_formats::copy::{HEADER, TRAILER};

pub(crate) const ROWS: i64 = 200_000;

pub(crate) const NAMES: [&str; 5] = ["id", "created_at", "name", "value", "metadata"];

/// Returns the rows as the server would send them.
pub(crate) fn copy() -> Vec<u8> {
    let mut copy = HEADER.to_vec();
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
            "{{\"tags\": [\"new\", \"sale\"], \"active\": true, \"amount\": {}.25, \"region\": \"eu-1\", \"address\": {{\"geo\": {{\"lat\": \
             -12.37, \"lon\": 103.01}}, \"zip\": \"{}\", \"city\": \"Zürich\", \"street\": \"{} High St\"}}, \"category\": \"garden\"}}",
            n % 4096,
            10_000 + n % 90_000,
            n % 128,
        );
        copy.extend(5_i16.to_be_bytes());
        field(&n.to_be_bytes(), &mut copy);
        field(&(n * 1_000_001).to_be_bytes(), &mut copy);
        field(name.as_bytes(), &mut copy);
        // The number n.5000, as digits to the base of 10,000.
        let digits = [n / 10_000, n % 10_000, 5000].map(|digit| u16::try_from(digit).expect("below 10,000"));
        let numeric: Vec<u8> = [3, 1, 0, 4].iter().chain(&digits).flat_map(|word| word.to_be_bytes()).collect();
        field(&numeric, &mut copy);
        field(metadata.as_bytes(), &mut copy);
    }
    copy.extend(TRAILER);
    copy
}

pub(crate) fn columns() -> Vec<OutputColumn> {
    let wires =
        [WireType::Int8, WireType::TimestampTz, WireType::Text, WireType::Numeric(Some((18, 4))), WireType::Json];
    let column = |(name, wire): (&&str, WireType)| OutputColumn {
        name: (*name).to_owned(),
        wire,
        array: None,
        is_non_text: false,
    };
    NAMES.iter().zip(wires).map(column).collect()
}
