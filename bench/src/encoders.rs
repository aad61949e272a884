//! Our encoders against the libraries' writers: rows of the sample table. Ours start from the bytes of a binary `COPY`
//! and do all of the decoding and formatting; the libraries are given every value as ready text, so their figure is the
//! least they could take.

use std::fmt::Write as _;
use std::time::Duration;

use polyglot_export::catalog::WireType;
use polyglot_export::format::Format;
use polyglot_export::format_options::FormatOptions;
use polyglot_worker::workbench::{OutputColumn, encode};
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::interleaved;

const ROUNDS: usize = 7;
const ROWS: i64 = 200_000;

/// A row as text.
#[derive(Serialize)]
struct Row {
    id: Box<RawValue>,
    created_at: String,
    name: String,
    value: Box<RawValue>,
    metadata: Box<RawValue>,
}

impl Row {
    fn fields(&self) -> [&str; 5] {
        [self.id.get(), &self.created_at, &self.name, self.value.get(), self.metadata.get()]
    }
}

const NAMES: [&str; 5] = ["id", "created_at", "name", "value", "metadata"];

fn raw(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("it is JSON")
}

/// The same rows as text and as the server would send them.
fn rows() -> (Vec<Row>, Vec<u8>) {
    let mut rows = Vec::new();
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
            "{{\"city\": \"Zürich\", \"zip\": \"{}\", \"tags\": [\"new\", \"sale\"], \"active\": true, \"amount\": {}.25, \"geo\": {{\"lat\": 47.37, \"lon\": 8.54}}}}",
            10_000 + n % 90_000,
            n % 4096,
        );
        copy.extend(5_i16.to_be_bytes());
        field(&n.to_be_bytes(), &mut copy);
        field(&(n * 1_000_001).to_be_bytes(), &mut copy);
        field(name.as_bytes(), &mut copy);
        // n.5000 in base-10000 digits: three words before the point at most.
        let digits: Vec<u16> =
            [n / 10_000, n % 10_000, 5000].map(|digit| u16::try_from(digit).expect("below 10,000")).to_vec();
        let numeric: Vec<u8> = [3, 1, 0, 4].iter().chain(&digits).flat_map(|word| word.to_be_bytes()).collect();
        field(&numeric, &mut copy);
        field(&[&[1], metadata.as_bytes()].concat(), &mut copy);
        let (seconds, micros) = (n * 1_000_001 / 1_000_000, n * 1_000_001 % 1_000_000);
        let mut created_at = format!(
            "2000-01-{:02}T{:02}:{:02}:{:02}",
            1 + seconds / 86_400,
            seconds / 3600 % 24,
            seconds / 60 % 60,
            seconds % 60
        );
        if micros > 0 {
            write!(created_at, ".{micros:06}").expect("a String takes everything");
        }
        created_at.push('Z');
        rows.push(Row {
            id: raw(n.to_string()),
            created_at,
            name,
            value: raw(format!("{n}.5000")),
            metadata: raw(metadata),
        });
    }
    copy.extend([0xff, 0xff]);
    (rows, copy)
}

fn columns() -> Vec<OutputColumn> {
    let wires =
        [WireType::Int8, WireType::TimestampTz, WireType::Text, WireType::Numeric(Some((18, 4))), WireType::Jsonb];
    let column = |(name, wire): (&&str, WireType)| OutputColumn {
        name: (*name).to_owned(),
        wire,
        array: None,
        nullable: false,
        measured: false,
    };
    NAMES.iter().zip(wires).map(column).collect()
}

fn by_csv(rows: &[Row]) -> usize {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(NAMES).expect("a Vec takes everything");
    for row in rows {
        writer.write_record(row.fields()).expect("a Vec takes everything");
    }
    writer.into_inner().expect("a Vec takes everything").len()
}

fn by_serde_json(rows: &[Row]) -> usize {
    let mut file = Vec::new();
    for row in rows {
        serde_json::to_writer(&mut file, row).expect("a Vec takes everything");
        file.push(b'\n');
    }
    file.len()
}

/// The metadata goes in as one text, where ours makes elements of it.
fn by_quick_xml(rows: &[Row]) -> usize {
    let mut writer = quick_xml::Writer::new(Vec::new());
    let mut write = |event: Event<'_>| writer.write_event(event).expect("a Vec takes everything");
    for row in rows {
        write(Event::Start(BytesStart::new("record")));
        for (name, text) in NAMES.iter().zip(row.fields()) {
            write(Event::Start(BytesStart::new(*name)));
            write(Event::Text(BytesText::new(text)));
            write(Event::End(BytesEnd::new(*name)));
        }
        write(Event::End(BytesEnd::new("record")));
    }
    writer.into_inner().len()
}

/// Runs each pair and prints the figures.
pub(crate) fn compare() {
    let (rows, copy) = rows();
    let columns = columns();
    let options = FormatOptions::default();
    println!("{ROWS} rows of the sample table, median of {ROUNDS}, interleaved");
    let libraries: [(&str, Format, fn(&[Row]) -> usize); 3] = [
        ("csv", Format::Csv, by_csv),
        ("serde_json", Format::Jsonl, by_serde_json),
        ("quick-xml", Format::Xml, by_quick_xml),
    ];
    for (name, format, library) in libraries {
        let (mut ours, mut theirs) = (0, 0);
        let [our_time, their_time]: [Duration; 2] = interleaved(
            ROUNDS,
            [&mut || ours = encode(&copy, &columns, format, &options).expect("the rows are good").len(), &mut || {
                theirs = library(&rows)
            }],
        );
        println!(
            "  {format:<6} ours, from the wire {:6.3} s  {ours} bytes; {name}, from ready text {:6.3} s  {theirs} bytes; ratio {:5.2}",
            our_time.as_secs_f64(),
            their_time.as_secs_f64(),
            their_time.as_secs_f64() / our_time.as_secs_f64(),
        );
    }
}
