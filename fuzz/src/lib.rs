//! Fuzzing of what takes bytes from outside: the decoders and encoders, with arbitrary bytes as the source's rows, and the
//! parsers of the api. Bytes give a value or an error, never a panic, and what is made of a value has to be well-formed. Run by
//! libFuzzer (`make fuzz`) and with seeded mutations of valid input (`make test`).

pub mod mutate;

use std::collections::BTreeMap;

use polyglot_api::fuzz_targets;
use polyglot_core::column::{ArrayType, WireType};
use polyglot_core::format_options::{
    CsvOptions, FormatOptions, JsonNumber, NumericPolicy, OnUnrepresentable, ParquetOptions, UuidPolicy,
};
use polyglot_formats::copy::{HEADER, TRAILER};
use polyglot_formats::standalone::encode;
use polyglot_formats::{Format, OutputColumn};

/// A parser as a function of bytes: whether they are accepted.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("decode", decode),
    ("submission", fuzz_targets::submission),
    ("cursor", fuzz_targets::cursor),
    ("token", fuzz_targets::token),
    ("key-set", fuzz_targets::key_set),
    ("datasets", fuzz_targets::datasets),
];

/// An input: its first bytes choose columns, format and options, the rest is rows.
pub struct Case<'a> {
    pub columns: Vec<OutputColumn>,
    pub format: Format,
    pub options: FormatOptions,
    pub rows: &'a [u8],
}

impl<'a> Case<'a> {
    /// Reads a case; `None` if the input is too short.
    #[must_use]
    pub fn read(data: &'a [u8]) -> Option<Self> {
        let [format, options, count, rest @ ..] = data else { return None };
        // A request has one column at least.
        let (kinds, rows) = rest.split_at_checked(usize::from(*count % 8)).filter(|(kinds, _)| !kinds.is_empty())?;
        Some(Self {
            columns: kinds.iter().enumerate().map(|(index, kind)| column(index, *kind)).collect(),
            format: Format::all().nth(usize::from(*format) % Format::COUNT)?,
            options: choices(*options),
            rows,
        })
    }
}

/// Returns the column that a byte stands for: a type, and the number of dimensions if it is an array.
#[must_use]
pub fn column(index: usize, kind: u8) -> OutputColumn {
    let wires = u8::try_from(WireType::SAMPLES.len()).unwrap_or(u8::MAX);
    let dimensions = kind / wires % 7;
    OutputColumn {
        name: format!("column {index}"),
        wire: WireType::SAMPLES[usize::from(kind % wires)],
        array: (dimensions > 0).then_some(ArrayType { dimensions, delimiter: b',' }),
        is_non_text: false,
    }
}

fn choices(bits: u8) -> FormatOptions {
    let has = |bit: u8| bits & (1 << bit) != 0;
    FormatOptions {
        on_unrepresentable: if has(0) { OnUnrepresentable::Replace } else { OnUnrepresentable::Fail },
        csv: if has(1) { CsvOptions::spreadsheet() } else { CsvOptions::default() },
        bigint: if has(2) { JsonNumber::String } else { JsonNumber::Number },
        numeric: if has(5) { JsonNumber::String } else { JsonNumber::Number },
        parquet: ParquetOptions {
            numeric: match (has(3), has(4)) {
                (false, _) => NumericPolicy::String,
                (true, false) => NumericPolicy::Double,
                (true, true) => NumericPolicy::Decimal(10),
            },
            uuid: if has(6) { UuidPolicy::String } else { UuidPolicy::Uuid },
            ..ParquetOptions::default()
        },
        // The others have no effect on the bytes.
        ..FormatOptions::default()
    }
}

/// A row of JSON. Its values are only parsed, because a numeric may exceed every number type of Rust.
type JsonRow = BTreeMap<String, serde::de::IgnoredAny>;

/// Decodes and encodes an input, and reads the file back if there is one. Returns whether there is one.
///
/// # Panics
/// If the file is not well-formed: that is a finding.
pub fn decode(data: &[u8]) -> bool {
    let Some(case) = Case::read(data) else { return false };
    let copy = [HEADER, case.rows, TRAILER].concat();
    let Ok(file) = encode(&copy, &case.columns, case.format, &case.options) else { return false };
    // Invalid JSON is possible here, unlike from a database, and is passed on as it is.
    let unchecked = case.columns.iter().any(|it| matches!(it.wire, WireType::Json | WireType::Jsonb));
    match case.format.name {
        "json" if !unchecked => {
            let rows: Vec<JsonRow> = serde_json::from_slice(&file).expect("the file is JSON");
            assert!(rows.iter().all(|row| row.len() == case.columns.len()));
        }
        "jsonl" if !unchecked => {
            for line in file.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                serde_json::from_slice::<JsonRow>(line).expect("the line is JSON");
            }
        }
        "csv" => {
            let mut reader = csv::ReaderBuilder::new().from_reader(&file[..]);
            // A row of one NULL is an empty line, which the reader skips, so only what it finds is counted.
            assert!(reader.byte_records().all(|row| row.expect("the file is CSV").len() == case.columns.len()));
        }
        "xml" => {
            let mut reader = quick_xml::Reader::from_reader(&file[..]);
            reader.config_mut().check_end_names = true;
            let mut depth = 0_usize;
            loop {
                match reader.read_event().expect("the file is XML") {
                    quick_xml::events::Event::Start(_) => depth += 1,
                    quick_xml::events::Event::End(_) => depth -= 1,
                    quick_xml::events::Event::Eof => break,
                    _ => {}
                }
            }
            assert_eq!(depth, 0);
        }
        "parquet" => assert!(file.starts_with(b"PAR1") && file.ends_with(b"PAR1")),
        _ => {}
    }
    true
}
