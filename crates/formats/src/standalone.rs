//! Decoding and encoding alone, from the bytes of a binary `COPY` to the bytes of a file: for measurements, tests and the
//! fuzz target. The worker goes through its pipeline instead.

use polyglot_core::format_options::FormatOptions;

use crate::copy::{FieldIndex, Found, Row, RowScanner, Value};
use crate::encode_buffer::{ByteSink, EncodeBuffer, FLUSH_BYTES, Stopped};
use crate::output_column::OutputColumn;
use crate::registry::Format;

struct File<F>(F);

impl<F: FnMut(&[u8])> ByteSink for File<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        (self.0)(bytes);
        Ok(())
    }
}

/// The file that the rows in `copy` (everything that `COPY … TO STDOUT (FORMAT binary)` sent) become.
///
/// # Errors
/// In words: bytes that make no sense, and values that the format cannot hold. Never a panic, whatever the bytes are.
pub fn encode(
    copy: &[u8],
    columns: &[OutputColumn],
    format: Format,
    options: &FormatOptions,
) -> Result<Vec<u8>, String> {
    let mut file = Vec::new();
    encode_to(copy, columns, format, options, |bytes| file.extend_from_slice(bytes))?;
    Ok(file)
}

/// Reads every value of the rows in `copy`, and gives each to `seen`.
///
/// # Errors
/// In words.
pub fn decode(copy: &[u8], columns: &[OutputColumn], mut seen: impl FnMut(usize)) -> Result<(), String> {
    rows(copy, columns.len(), |row| {
        for (column, field) in columns.iter().zip(row.fields()) {
            if let Some(bytes) = field {
                let value = Value::read(column.wire, bytes).map_err(|error| error.to_string())?;
                seen(size_of_val(&std::hint::black_box(value)));
            }
        }
        Ok(())
    })
}

fn rows(copy: &[u8], columns: usize, mut take: impl FnMut(Row<'_>) -> Result<(), String>) -> Result<(), String> {
    let (mut scanner, mut index, mut rest) = (RowScanner::default(), FieldIndex::default(), copy);
    loop {
        match scanner.next(rest).map_err(|error| error.to_string())? {
            Found::Skip(length) => rest = &rest[length..],
            Found::Row(length) => {
                let (row, _) = index.read(rest, columns).map_err(|error| error.to_string())?;
                take(row)?;
                rest = &rest[length..];
            }
            Found::Incomplete if scanner.is_complete() => return Ok(()),
            Found::Incomplete => return Err("the data ends in the middle".to_owned()),
        }
    }
}

/// The same as [`encode`], but the file goes to `take` piece by piece.
///
/// # Errors
/// As [`encode`].
pub fn encode_to(
    copy: &[u8],
    columns: &[OutputColumn],
    format: Format,
    options: &FormatOptions,
    take: impl FnMut(&[u8]),
) -> Result<(), String> {
    let (mut file, mut scratch) = (File(take), Vec::new());
    let words = |error: &dyn std::error::Error| error.to_string();
    let mut encoder = format.encoder(options, columns, 1);
    encoder.begin(&mut EncodeBuffer::new(&mut scratch, &mut file)).map_err(|error| words(&error))?;
    rows(copy, columns.len(), |row| {
        let mut out = EncodeBuffer::new(&mut scratch, &mut file);
        encoder.row(row, &mut out).map_err(|error| words(&error))?;
        if out.len() >= FLUSH_BYTES {
            out.empty().map_err(|error| words(&error))?;
        }
        while let Some(piece) = encoder.finished() {
            (file.0)(&piece);
        }
        Ok(())
    })?;
    let mut out = EncodeBuffer::new(&mut scratch, &mut file);
    encoder.end(&mut out).map_err(|error| words(&error))?;
    out.empty().map_err(|error| words(&error))?;
    while let Some(piece) = encoder.finished() {
        (file.0)(&piece);
    }
    Ok(())
}
