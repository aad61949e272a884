//! One suite that every format of the registry passes, without servers: the same bytes each time and in any number of
//! shards, every row and NULL read back by a reader that is not ours, errors that name the column.

use std::io::Cursor;

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use polyglot_core::column::{ArrayType, Column, TypeNames, WireType};
use polyglot_core::format_options::{FormatOptions, OnUnrepresentable};
use polyglot_formats::copy::{FieldIndex, Found, HEADER, RowScanner, TRAILER};
use polyglot_formats::standalone::encode;
use polyglot_formats::{ByteSink, EncodeBuffer, Format, OutputColumn, Stopped};

fn column(name: &str, wire: WireType) -> OutputColumn {
    OutputColumn { name: name.to_owned(), wire, array: None, is_non_text: false }
}

fn columns() -> Vec<OutputColumn> {
    vec![
        column("id", WireType::Int8),
        column("name", WireType::Text),
        column("paid", WireType::Bool),
        column("at", WireType::TimestampTz),
        column("key", WireType::Uuid),
    ]
}

type Field = Option<Vec<u8>>;

/// The rows as binary `COPY` sends them.
fn copy(rows: &[Vec<Field>]) -> Vec<u8> {
    let mut copy = HEADER.to_vec();
    for row in rows {
        copy.extend(i16::try_from(row.len()).unwrap().to_be_bytes());
        for field in row {
            match field {
                Some(bytes) => {
                    copy.extend(i32::try_from(bytes.len()).unwrap().to_be_bytes());
                    copy.extend(bytes);
                }
                None => copy.extend((-1_i32).to_be_bytes()),
            }
        }
    }
    copy.extend(TRAILER);
    copy
}

/// Rows with NULL, empty text, quotes, line breaks, letters outside of ASCII, extremes, and one long text.
fn rows(count: i64) -> Vec<Vec<Field>> {
    let texts = ["", "plain", "a \"quoted\", one", "two\nlines", "Zürich 😀", "<&>'"];
    (0..count)
        .map(|n| {
            let text = texts[usize::try_from(n).unwrap() % texts.len()];
            let text = if n == 3 { text.repeat(100_000) } else { text.to_owned() };
            vec![
                Some(if n == 0 { i64::MIN } else { n }.to_be_bytes().to_vec()),
                (n % 5 != 4).then(|| text.into_bytes()),
                (n % 7 != 6).then(|| vec![u8::from(n % 2 == 0)]),
                (n % 4 != 3).then(|| (n * 1_000_000_007).to_be_bytes().to_vec()),
                (n % 6 != 5).then(|| vec![u8::try_from(n % 251).unwrap(); 16]),
            ]
        })
        .collect()
}

#[derive(Default)]
struct File {
    bytes: Vec<u8>,
    largest: usize,
}

impl ByteSink for File {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.largest = self.largest.max(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// Writes the rows by encoders of their own, so many rows each, as workers that share an export do.
fn in_shards(format: Format, rows: &[Vec<Field>], rows_per_shard: usize) -> File {
    let (columns, options) = (columns(), FormatOptions::default());
    let shards = rows.len().div_ceil(rows_per_shard);
    let (mut file, mut descriptions) = (File::default(), Vec::new());
    for (number, rows) in rows.chunks(rows_per_shard).enumerate() {
        let mut encoder = format.encoder(&options, &columns, shards);
        let (begins_at, mut scratch) = (file.bytes.len(), Vec::new());
        if number == 0 {
            encoder.begin(&mut EncodeBuffer::new(&mut scratch, &mut file)).unwrap();
        } else {
            encoder.continue_shard();
        }
        let copy = copy(rows);
        let (mut scanner, mut index, mut rest) = (RowScanner::default(), FieldIndex::default(), &copy[..]);
        loop {
            match scanner.next(rest).unwrap() {
                Found::Skip(length) => rest = &rest[length..],
                Found::Row(length) => {
                    let (row, _) = index.read(rest, columns.len()).unwrap();
                    encoder.row(row, &mut EncodeBuffer::new(&mut scratch, &mut file)).unwrap();
                    rest = &rest[length..];
                }
                Found::Incomplete => break,
            }
        }
        if number + 1 == shards && format.footer.is_none() {
            encoder.end(&mut EncodeBuffer::new(&mut scratch, &mut file)).unwrap();
        } else if let Some(description) = encoder.finish_shard().unwrap() {
            descriptions.push((u64::try_from(begins_at).unwrap(), description));
        }
        EncodeBuffer::new(&mut scratch, &mut file).empty().unwrap();
        while let Some(piece) = encoder.finished() {
            file.bytes.extend_from_slice(&piece);
        }
    }
    if let Some(footer) = &format.footer {
        file.bytes.extend(footer.assemble(descriptions.into_iter()).unwrap());
    }
    file
}

fn sum(all: impl Iterator<Item = (usize, usize)>) -> (usize, usize) {
    all.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
}

fn of_object(row: &serde_json::Value) -> (usize, usize) {
    (1, row.as_object().unwrap().values().filter(|value| value.is_null()).count())
}

fn of_batch(batch: &arrow_array::RecordBatch) -> (usize, usize) {
    use arrow_array::Array;
    (batch.num_rows(), batch.columns().iter().map(Array::null_count).sum())
}

/// The number of rows and of NULLs that a reader of the format finds. A new format needs an arm here.
fn read_back(format: Format, file: &[u8]) -> (usize, usize) {
    match format.name {
        // The csv crate does not tell NULL from an empty text: both are an empty field here.
        "csv" => {
            let mut reader = csv::Reader::from_reader(file);
            let empty = |row: csv::StringRecord| row.iter().filter(|field| field.is_empty()).count();
            sum(reader.records().map(|row| (1, empty(row.unwrap()))))
        }
        "json" => {
            let rows: Vec<serde_json::Value> = serde_json::from_slice(file).unwrap();
            sum(rows.iter().map(of_object))
        }
        "jsonl" => {
            let rows = serde_json::Deserializer::from_slice(file).into_iter::<serde_json::Value>();
            sum(rows.map(|row| of_object(&row.unwrap())))
        }
        "xml" => {
            use quick_xml::events::Event;
            let mut reader = quick_xml::Reader::from_str(std::str::from_utf8(file).unwrap());
            let (mut rows, mut nulls) = (0, 0);
            loop {
                match reader.read_event().unwrap() {
                    Event::Eof => return (rows, nulls),
                    Event::Start(tag) if tag.name().as_ref() == "record" => rows += 1,
                    Event::Empty(tag) if tag.attributes().count() == 1 => nulls += 1,
                    _ => {}
                }
            }
        }
        "parquet" => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::copy_from_slice(file)).unwrap();
            sum(reader.build().unwrap().map(|batch| of_batch(&batch.unwrap())))
        }
        "arrow" => {
            let reader = arrow_ipc::reader::StreamReader::try_new(Cursor::new(file), None).unwrap();
            sum(reader.map(|batch| of_batch(&batch.unwrap())))
        }
        other => panic!("the suite has no reader of {other}"),
    }
}

#[test]
fn every_row_and_null_is_read_back() {
    let rows = rows(1000);
    let nulls = rows.iter().flatten().filter(|field| field.is_none()).count();
    let empty = rows.iter().flatten().filter(|field| field.as_ref().is_some_and(Vec::is_empty)).count();
    for format in Format::all() {
        let file = encode(&copy(&rows), &columns(), format, &FormatOptions::default()).unwrap();
        let expected = if format.name == "csv" { nulls + empty } else { nulls };
        assert_eq!(read_back(format, &file), (1000, expected), "{format}");
    }
}

#[test]
fn the_same_rows_are_the_same_bytes_in_any_number_of_shards() {
    let rows = rows(1000);
    for format in Format::all() {
        let whole = encode(&copy(&rows), &columns(), format, &FormatOptions::default()).unwrap();
        assert!(whole == encode(&copy(&rows), &columns(), format, &FormatOptions::default()).unwrap(), "{format}");
        let four = in_shards(format, &rows, 300);
        assert_eq!(read_back(format, &four.bytes).0, 1000, "{format}");
        assert!(four.bytes == in_shards(format, &rows, 300).bytes, "{format}");
        // Rows that are gathered into batches or groups are grouped by shard.
        if !["parquet", "arrow"].contains(&format.name) {
            assert!(four.bytes == whole, "{format}");
        }
        // A long value is handed on in pieces.
        assert!(four.largest <= 1 << 20, "{format}: {}", four.largest);
    }
}

#[test]
fn a_result_without_rows_is_a_whole_file() {
    for format in Format::all() {
        let file = encode(&copy(&[]), &columns(), format, &FormatOptions::default()).unwrap();
        assert_eq!(read_back(format, &file), (0, 0), "{format}");
    }
}

#[test]
fn bytes_that_make_no_sense_name_their_column() {
    for format in Format::all() {
        // Three bytes that are neither UTF-8 nor a value of any type but bytea.
        for wire in WireType::SAMPLES.into_iter().filter(|wire| *wire != WireType::Bytea) {
            let rows = [vec![Some(vec![0xff, 0xfe, 0xfd])]];
            let encoded = encode(&copy(&rows), &[column("odd one", wire)], format, &FormatOptions::default());
            let error = encoded.expect_err(&format!("{format} accepts such bytes as {wire:?}"));
            assert!(error.contains("odd one"), "{format} {wire:?}: {error}");
        }
    }
}

#[test]
fn a_value_that_cannot_be_held_fails_or_is_replaced() {
    let infinity = [vec![Some(i64::MAX.to_be_bytes().to_vec())]];
    let control = [vec![Some(b"a\x01b".to_vec())]];
    for format in Format::all().filter(|format| !format.holds_every_value) {
        let (wire, rows) =
            if format.name == "xml" { (WireType::Text, &control) } else { (WireType::TimestampTz, &infinity) };
        let columns = [column("odd one", wire)];
        let error = encode(&copy(rows), &columns, format, &FormatOptions::default()).unwrap_err();
        assert!(error.contains("odd one") && error.contains(format.title), "{format}: {error}");
        let options = FormatOptions { on_unrepresentable: OnUnrepresentable::Replace, ..FormatOptions::default() };
        let file = encode(&copy(rows), &columns, format, &options).unwrap();
        assert_eq!(read_back(format, &file).0, 1, "{format}");
    }
}

#[test]
fn every_format_is_described() {
    let mut names = Vec::new();
    for format in Format::all() {
        assert!(
            format.media_type.contains('/') && !format.title.is_empty() && !format.extension.is_empty(),
            "{format}"
        );
        assert_eq!(Format::by_name(format.name), Some(format));
        assert!(format.option("onUnrepresentable").is_some() && format.option("none").is_none(), "{format}");
        for wire in WireType::SAMPLES {
            for array in [None, Some(ArrayType { dimensions: 2, delimiter: b',' })] {
                let column = Column {
                    name: "c".to_owned(),
                    sql_type: "x".to_owned(),
                    type_names: TypeNames::built_in("text"),
                    wire,
                    array,
                    nullable: true,
                    wide: false,
                    is_non_text: false,
                };
                assert!(!format.output_type(&column, &FormatOptions::default()).is_empty(), "{format} {wire:?}");
            }
        }
        names.push(format.name);
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}
