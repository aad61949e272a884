//! Binary `COPY` on the wire: cutting the byte stream into whole rows, and a row into its fields. What a
//! field's bytes mean is `value.rs`. Total: no bytes can make this panic.
//!
//! Format: <https://www.postgresql.org/docs/current/sql-copy.html>, section "Binary Format".

use std::ops::Range;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// How the server begins a stream: signature, no flags, no header extension.
pub const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// The end of a stream: a row of -1 fields.
pub const TRAILER: &[u8] = &(-1_i16).to_be_bytes();

/// The stream does not follow the format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server's COPY data is malformed: {0}")]
pub struct Malformed(pub &'static str);

/// Finds row boundaries in a growing buffer.
#[derive(Debug, Default)]
pub struct RowScanner {
    header_done: bool,
    trailer_seen: bool,
}

/// What the scanner found at a place in the buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole row of so many bytes.
    Row(usize),
    /// So many bytes that are not a row: the header or the trailer.
    Skip(usize),
    /// More bytes are needed.
    Incomplete,
}

fn take<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

impl RowScanner {
    /// Looks at the start of `bytes`, which must follow directly on what was found before.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Found, Malformed> {
        if !self.header_done {
            return self.header(bytes);
        }
        if self.trailer_seen {
            return if bytes.is_empty() { Ok(Found::Incomplete) } else { Err(Malformed("bytes after the trailer")) };
        }
        let Some(count) = take(bytes, 0).map(i16::from_be_bytes) else { return Ok(Found::Incomplete) };
        if count == -1 {
            self.trailer_seen = true;
            return Ok(Found::Skip(2));
        }
        if count < 0 {
            return Err(Malformed("a negative number of fields"));
        }
        let mut at = 2_usize;
        for _ in 0..count {
            let Some(length) = take(bytes, at).map(i32::from_be_bytes) else { return Ok(Found::Incomplete) };
            at += 4;
            match usize::try_from(length) {
                Ok(length) => at = at.checked_add(length).ok_or(Malformed("a field length out of range"))?,
                Err(_) if length == -1 => {}
                Err(_) => return Err(Malformed("a negative field length")),
            }
            if at > bytes.len() {
                return Ok(Found::Incomplete);
            }
        }
        Ok(Found::Row(at))
    }

    /// Whether `bytes`, which must follow directly on what was found before, are one whole row and nothing else.
    pub fn is_one_row(&mut self, bytes: &[u8]) -> Result<bool, Malformed> {
        // The header comes in one message with the first row.
        if !self.header_done || self.trailer_seen || bytes.starts_with(&[0xff, 0xff]) {
            return Ok(false);
        }
        Ok(self.next(bytes)? == Found::Row(bytes.len()))
    }

    fn header(&mut self, bytes: &[u8]) -> Result<Found, Malformed> {
        let known = bytes.len().min(SIGNATURE.len());
        if bytes[..known] != SIGNATURE[..known] {
            return Err(Malformed("no COPY signature"));
        }
        let (Some(flags), Some(extension)) =
            (take(bytes, 11).map(u32::from_be_bytes), take(bytes, 15).map(u32::from_be_bytes))
        else {
            return Ok(Found::Incomplete);
        };
        if flags >> 16 != 0 {
            return Err(Malformed("a critical flag that is not known"));
        }
        let end = usize::try_from(extension).ok().and_then(|length| length.checked_add(19));
        let end = end.ok_or(Malformed("a header length out of range"))?;
        if bytes.len() < end {
            return Ok(Found::Incomplete);
        }
        self.header_done = true;
        Ok(Found::Skip(end))
    }

    /// Whether the stream has come to its proper end.
    pub fn is_complete(&self) -> bool {
        self.trailer_seen
    }
}

/// The fields of one row, borrowed from the wire. The index is kept between rows, so a row costs no allocation.
#[derive(Debug, Default)]
pub struct FieldIndex {
    fields: Vec<Option<Range<usize>>>,
}

/// A row to read fields from.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    bytes: &'a [u8],
    fields: &'a [Option<Range<usize>>],
}

impl FieldIndex {
    /// Reads the row at the start of `bytes`, which must have `columns` fields, and the length it takes.
    pub fn read<'a>(&'a mut self, bytes: &'a [u8], columns: usize) -> Result<(Row<'a>, usize), Malformed> {
        const SHORT: Malformed = Malformed("a row that ends too early");
        let count = take(bytes, 0).map(i16::from_be_bytes).ok_or(SHORT)?;
        if usize::try_from(count) != Ok(columns) {
            return Err(Malformed("a row with another number of fields than was asked for"));
        }
        self.fields.clear();
        let mut at = 2_usize;
        for _ in 0..columns {
            let length = take(bytes, at).map(i32::from_be_bytes).ok_or(SHORT)?;
            at += 4;
            if length == -1 {
                self.fields.push(None);
                continue;
            }
            let length = usize::try_from(length).map_err(|_| Malformed("a negative field length"))?;
            let end = at.checked_add(length).filter(|end| *end <= bytes.len()).ok_or(SHORT)?;
            self.fields.push(Some(at..end));
            at = end;
        }
        Ok((Row { bytes, fields: &self.fields }, at))
    }

    /// Has `change` write over some fields of the row at the start of `bytes`, each of which keeps its length; those that are NULL
    /// are left alone. Returns the length that the row takes.
    pub fn overwrite(
        &mut self,
        bytes: &mut [u8],
        columns: usize,
        fields: &[usize],
        mut change: impl FnMut(&mut [u8]) -> Result<(), Malformed>,
    ) -> Result<usize, Malformed> {
        let length = self.read(bytes, columns)?.1;
        for field in fields {
            if let Some(range) = self.fields.get(*field).and_then(Option::as_ref) {
                change(&mut bytes[range.clone()])?;
            }
        }
        Ok(length)
    }
}

impl<'a> Row<'a> {
    /// The fields in order; `None` is NULL.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Option<&'a [u8]>> + use<'a> {
        let bytes = self.bytes;
        self.fields.iter().map(move |field| field.as_ref().map(|range| &bytes[range.start..range.end]))
    }
}

/// A row of `COPY` from a record that PostgreSQL's `record_send` has made, which has the OID of each field's type as well.
pub fn row_of_record(record: &[u8]) -> Result<Vec<u8>, Malformed> {
    const SHORT: Malformed = Malformed("a record that ends too early");
    let count = take(record, 0).map(i32::from_be_bytes).ok_or(SHORT)?;
    let count = i16::try_from(count).map_err(|_| Malformed("a record with more fields than a row may have"))?;
    let mut row = count.to_be_bytes().to_vec();
    let mut at = 4;
    for _ in 0..count {
        let length = take(record, at + 4).map(i32::from_be_bytes).ok_or(SHORT)?;
        // Of NULL it is -1.
        let end = at + 8 + usize::try_from(length).unwrap_or(0);
        row.extend_from_slice(record.get(at + 4..end).ok_or(SHORT)?);
        at = end;
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Vec<u8> {
        [SIGNATURE, &[0; 8]].concat()
    }

    const ROW: &[u8] = &[0, 2, 0, 0, 0, 3, b'a', b'b', b'c', 0xff, 0xff, 0xff, 0xff];

    #[test]
    fn every_cut_of_the_stream_gives_the_same_rows() {
        let stream = [&header(), ROW, ROW, &[0xff, 0xff]].concat();
        for piece in 1..stream.len() {
            let (mut scanner, mut buffer, mut rows) = (RowScanner::default(), Vec::new(), 0);
            for chunk in stream.chunks(piece) {
                buffer.extend_from_slice(chunk);
                loop {
                    match scanner.next(&buffer).unwrap() {
                        Found::Row(length) => {
                            let mut index = FieldIndex::default();
                            let (row, read) = index.read(&buffer, 2).unwrap();
                            assert_eq!(read, length);
                            assert_eq!(row.fields().collect::<Vec<_>>(), [Some(&b"abc"[..]), None]);
                            rows += 1;
                            buffer.drain(..length);
                        }
                        Found::Skip(length) => {
                            buffer.drain(..length);
                        }
                        Found::Incomplete => break,
                    }
                }
            }
            assert_eq!((rows, scanner.is_complete(), buffer.len()), (2, true, 0));
        }
    }

    #[test]
    fn fields_are_written_over_in_place() {
        let mut rows = [ROW, ROW].concat();
        let mut index = FieldIndex::default();
        let length = index.overwrite(&mut rows, 2, &[0, 1], |field| {
            field.copy_from_slice(b"xyz");
            Ok(())
        });
        assert_eq!(length, Ok(ROW.len()));
        let first = index.read(&rows, 2).unwrap().0;
        assert_eq!(first.fields().collect::<Vec<_>>(), [Some(&b"xyz"[..]), None]);
        assert_eq!(&rows[ROW.len()..], ROW);
        assert!(index.overwrite(&mut rows, 3, &[0], |_| Ok(())).is_err());
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(RowScanner::default().next(b"PGCOPX").is_err());
        let critical = [SIGNATURE, &[0, 1, 0, 0, 0, 0, 0, 0]].concat();
        assert!(RowScanner::default().next(&critical).is_err());
        let mut scanner = RowScanner { header_done: true, trailer_seen: false };
        assert!(scanner.next(&[0xff, 0xfe]).is_err());
        assert!(scanner.next(&[0, 1, 0xff, 0xff, 0xff, 0xfe]).is_err());
        let mut index = FieldIndex::default();
        assert!(index.read(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 1], 1).is_err());
        assert!(index.read(ROW, 3).is_err());
        for end in 0..ROW.len() {
            assert!(index.read(&ROW[..end], 2).is_err());
        }
    }

    #[test]
    fn a_record_is_a_row_without_its_types() {
        let record = [0, 0, 0, 3, 0, 0, 0, 23, 0, 0, 0, 1, 7, 0, 0, 0, 25, 255, 255, 255, 255, 0, 0, 0, 25, 0, 0, 0, 0];
        let row = row_of_record(&record).unwrap();
        assert_eq!(row, [0, 3, 0, 0, 0, 1, 7, 255, 255, 255, 255, 0, 0, 0, 0]);
        let mut index = FieldIndex::default();
        let fields: Vec<_> = index.read(&row, 3).unwrap().0.fields().collect();
        assert_eq!(fields, [Some(&[7][..]), None, Some(&[][..])]);
        for cut in 0..record.len() {
            assert!(row_of_record(&record[..cut]).is_err(), "{cut}");
        }
    }
}
