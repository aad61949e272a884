//! The libraries' encoders: rows are decoded by the same code as ours, each value becomes text in a buffer, and `csv`,
//! `serde_json` or `quick-xml` writes it. The measurements and the tests compare our encoders with them. Only scalars
//! without options, and no JSON in XML.

use polyglot_formats::copy::{FieldIndex, Found, Numeric, RowScanner, Value};
use polyglot_formats::{Format, OutputColumn, write_readable};
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};

/// A field: its bytes on the wire, or NULL.
type Field<'a> = Option<&'a [u8]>;

/// Writes rows of fields as one format.
trait Write {
    fn row(&mut self, columns: &[OutputColumn], fields: &mut dyn Iterator<Item = Field<'_>>) -> Result<(), String>;
    fn finish(self: Box<Self>) -> Result<Vec<u8>, String>;
}

fn error_text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Writes the value as text into `buffer`.
fn text<'b>(column: &OutputColumn, bytes: &[u8], buffer: &'b mut Vec<u8>) -> Result<&'b str, String> {
    buffer.clear();
    write_readable(Value::read(column.wire, bytes).map_err(error_text)?, buffer);
    std::str::from_utf8(buffer).map_err(error_text)
}

struct Csv {
    writer: csv::Writer<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Write for Csv {
    fn row(&mut self, columns: &[OutputColumn], fields: &mut dyn Iterator<Item = Field<'_>>) -> Result<(), String> {
        for (column, field) in columns.iter().zip(fields) {
            let text = field.map_or(Ok(""), |bytes| text(column, bytes, &mut self.buffer))?;
            self.writer.write_field(text).map_err(error_text)?;
        }
        self.writer.write_record(None::<&[u8]>).map_err(error_text)
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, String> {
        self.writer.into_inner().map_err(error_text)
    }
}

#[derive(Default)]
struct JsonLines {
    file: Vec<u8>,
    buffer: Vec<u8>,
}

impl Write for JsonLines {
    fn row(&mut self, columns: &[OutputColumn], fields: &mut dyn Iterator<Item = Field<'_>>) -> Result<(), String> {
        let mut separator = b'{';
        for (column, field) in columns.iter().zip(fields) {
            self.file.push(separator);
            separator = b',';
            serde_json::to_writer(&mut self.file, &column.name).map_err(error_text)?;
            self.file.push(b':');
            let Some(bytes) = field else {
                self.file.extend_from_slice(b"null");
                continue;
            };
            let bare = match Value::read(column.wire, bytes).map_err(error_text)? {
                Value::Bool(_) | Value::Int(_) | Value::Json(_) | Value::Numeric(Numeric::Finite { .. }) => true,
                Value::Float4(value) => value.is_finite(),
                Value::Float8(value) => value.is_finite(),
                _ => false,
            };
            let text = text(column, bytes, &mut self.buffer)?;
            if bare {
                self.file.extend_from_slice(text.as_bytes());
            } else {
                serde_json::to_writer(&mut self.file, text).map_err(error_text)?;
            }
        }
        self.file.extend_from_slice(b"}\n");
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, String> {
        Ok(self.file)
    }
}

struct Xml {
    writer: quick_xml::Writer<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Write for Xml {
    fn row(&mut self, columns: &[OutputColumn], fields: &mut dyn Iterator<Item = Field<'_>>) -> Result<(), String> {
        let writer = &mut self.writer;
        writer.write_event(Event::Start(BytesStart::new("record"))).map_err(error_text)?;
        for (column, field) in columns.iter().zip(fields) {
            let name = column.name.as_str();
            let Some(bytes) = field else {
                let nil = BytesStart::new(name).with_attributes([("xsi:nil", "true")]);
                writer.write_event(Event::Empty(nil)).map_err(error_text)?;
                continue;
            };
            let text = text(column, bytes, &mut self.buffer)?;
            writer.write_event(Event::Start(BytesStart::new(name))).map_err(error_text)?;
            writer.write_event(Event::Text(BytesText::new(text))).map_err(error_text)?;
            writer.write_event(Event::End(BytesEnd::new(name))).map_err(error_text)?;
        }
        writer.write_event(Event::End(BytesEnd::new("record"))).map_err(error_text)?;
        writer.get_mut().push(b'\n');
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<u8>, String> {
        Ok(self.writer.into_inner())
    }
}

/// Returns the file without what surrounds the rows (a header, brackets, the root element), or `None` where no library
/// is compared with our encoder.
///
/// # Errors
/// The error as text, for bytes that cannot be decoded.
pub(crate) fn encode(copy: &[u8], columns: &[OutputColumn], format: Format) -> Option<Result<Vec<u8>, String>> {
    let mut writer: Box<dyn Write> = match format.name {
        "csv" => Box::new(Csv { writer: csv::Writer::from_writer(Vec::new()), buffer: Vec::new() }),
        "jsonl" => Box::<JsonLines>::default(),
        "xml" => Box::new(Xml { writer: quick_xml::Writer::new(Vec::new()), buffer: Vec::new() }),
        _ => return None,
    };
    let (mut scanner, mut index, mut rest) = (RowScanner::default(), FieldIndex::default(), copy);
    Some(loop {
        match scanner.next(rest) {
            Ok(Found::Skip(length)) => rest = &rest[length..],
            Ok(Found::Row(length)) => {
                let written = index
                    .read(rest, columns.len())
                    .map_err(error_text)
                    .and_then(|(row, _)| writer.row(columns, &mut row.fields()));
                if let Err(error) = written {
                    break Err(error);
                }
                rest = &rest[length..];
            }
            Ok(Found::Incomplete) => break writer.finish(),
            Err(error) => break Err(error_text(error)),
        }
    })
}
