//! Reading rows from the server: one binary `COPY` for each range, divided into batches of whole rows.

use bytes::Bytes;
use futures_util::TryStreamExt;
use polyglot_core::failure::{Failure, FailureKind};
use tokio::sync::mpsc;

use super::batch::{Batch, FromSource};
use super::source_failure::failed_after;
use super::transaction::Source;
use polyglot_formats::copy::{Found, Malformed, RowScanner};

/// Bytes at which a batch is full: few enough to be still in the processor's cache when they are encoded. Four batches
/// are between the stages of each slot.
const BATCH_BYTES: usize = 256 << 10;

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn malformed(error: Malformed) -> Failure {
    Failure::caused(FailureKind::Undecodable, "The source database sent data that cannot be read.", &error)
}

/// Returns the key of a row, for people, or `None` where it has none or it may not be shown.
pub(crate) type KeyOfRow<'a> = &'a (dyn Fn(&[u8]) -> Option<String> + Sync);

impl Source {
    /// Sends every row of a `COPY` statement, then `End`. `rows_of` is what the rows belong to and `key` has the key of one, for the
    /// message of a failure. The transaction stays open for further statements. Returns early, without `End`, when the receiver is
    /// closed: the receiver then has the error to report. The connection cannot be used for anything else in that case,
    /// because it still has the rest of the rows to deliver.
    pub(crate) async fn read(
        &mut self,
        statement: &str,
        rows_of: &str,
        key: KeyOfRow<'_>,
        max_rows: usize,
        to: mpsc::Sender<FromSource>,
    ) -> Result<(), Failure> {
        if self.read_rows(statement, rows_of, key, max_rows, &to).await? {
            // A receiver that has closed has the error to report.
            to.send(FromSource::End).await.ok();
        }
        Ok(())
    }

    /// Sends the rows of one statement. Returns whether the receiver is still open.
    pub(crate) async fn read_rows(
        &mut self,
        statement: &str,
        rows_of: &str,
        key: KeyOfRow<'_>,
        max_rows: usize,
        to: &mpsc::Sender<FromSource>,
    ) -> Result<bool, Failure> {
        let mut scanner = RowScanner::default();
        let mut batch = BatchBuilder::new(max_rows);
        {
            let connection = self.secured().await?;
            let mut stream =
                connection.copy_out_raw(statement).await.map_err(|error| failed_after(&error, 0, rows_of, None))?;
            let failed = |error: &sqlx::Error, batch: &BatchBuilder| {
                failed_after(error, batch.rows_read(), rows_of, batch.last_row().and_then(key))
            };
            while let Some(message) = stream.try_next().await.map_err(|error| failed(&error, &batch))? {
                // A very wide row is passed on without a copy, which would take as much memory again.
                if message.len() > BATCH_BYTES
                    && batch.bytes.len() == batch.scanned
                    && scanner.is_one_row(&message).map_err(malformed)?
                {
                    for batch in batch.take_before_row().into_iter().chain([Batch { bytes: message, rows: 1 }]) {
                        if to.send(FromSource::Batch(batch)).await.is_err() {
                            return Ok(false);
                        }
                    }
                    continue;
                }
                batch.bytes.extend_from_slice(&message);
                drop(message);
                while let Some(full) = batch.scan(&mut scanner).map_err(malformed)? {
                    if to.send(FromSource::Batch(full)).await.is_err() {
                        return Ok(false);
                    }
                }
            }
        }
        if !scanner.is_complete() || batch.scanned < batch.bytes.len() {
            return Err(malformed(Malformed("it ended in the middle")));
        }
        Ok(batch.rows == 0 || to.send(FromSource::Batch(batch.take_batch())).await.is_ok())
    }
}

/// Bytes from the stream: whole rows up to `scanned`, and after that a row that is not complete yet.
struct BatchBuilder {
    bytes: Vec<u8>,
    scanned: usize,
    rows: usize,
    max_rows: usize,
    /// Rows of the batches before this one.
    sent: u64,
    /// Where the last row of this batch begins.
    last_row: usize,
    /// The last row of the batch before, unless it is long.
    last_sent: Vec<u8>,
}

/// A last row that is longer is not kept for the message of a failure.
const LONGEST_LAST_ROW: usize = 8 << 10;

impl BatchBuilder {
    fn new(max_rows: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(BATCH_BYTES + 64 * 1024),
            scanned: 0,
            rows: 0,
            max_rows,
            sent: 0,
            last_row: 0,
            last_sent: Vec::new(),
        }
    }

    /// Scans further rows. Returns a batch as soon as one is full.
    fn scan(&mut self, scanner: &mut RowScanner) -> Result<Option<Batch>, Malformed> {
        loop {
            match scanner.next(&self.bytes[self.scanned..])? {
                Found::Row(length) => {
                    self.last_row = self.scanned;
                    self.scanned += length;
                    self.rows += 1;
                    if self.rows >= self.max_rows || self.scanned >= BATCH_BYTES {
                        return Ok(Some(self.take_batch()));
                    }
                }
                // The header comes before the first row and the trailer after the last one, so removing them moves
                // almost nothing.
                Found::Skip(length) => {
                    self.bytes.drain(self.scanned..self.scanned + length);
                }
                Found::Incomplete => return Ok(None),
            }
        }
    }

    fn take_batch(&mut self) -> Batch {
        self.last_sent.clear();
        self.last_sent.extend_from_slice(
            self.bytes.get(self.last_row..self.scanned).filter(|row| row.len() <= LONGEST_LAST_ROW).unwrap_or_default(),
        );
        let mut next = Vec::with_capacity(BATCH_BYTES + 64 * 1024);
        next.extend_from_slice(&self.bytes[self.scanned..]);
        let mut bytes = std::mem::replace(&mut self.bytes, next);
        bytes.truncate(self.scanned);
        self.scanned = 0;
        let rows = std::mem::take(&mut self.rows);
        self.sent += rows as u64;
        Batch { bytes: Bytes::from(bytes), rows }
    }

    /// The last row that the server has sent, if it is at hand.
    fn last_row(&self) -> Option<&[u8]> {
        let row = if self.rows > 0 { &self.bytes[self.last_row..self.scanned] } else { &self.last_sent[..] };
        (!row.is_empty()).then_some(row)
    }

    /// Takes the rows before one that is sent by itself, and counts that one. It is the last row then, and not at hand.
    fn take_before_row(&mut self) -> Option<Batch> {
        let before = (self.rows > 0).then(|| self.take_batch());
        self.sent += 1;
        self.last_sent.clear();
        before
    }

    /// Rows that the server has sent so far.
    fn rows_read(&self) -> u64 {
        self.sent + self.rows as u64
    }
}

#[cfg(test)]
mod tests {
    use polyglot_formats::copy::{HEADER, TRAILER};

    use super::*;

    #[test]
    fn batches_are_whole_rows_and_no_larger_than_asked() {
        let row = |n: u8| [0, 1, 0, 0, 0, 1, n];
        let mut stream = HEADER.to_vec();
        (0..7).for_each(|n| stream.extend(row(n)));
        stream.extend(TRAILER);
        for piece in [1, 5, 1000] {
            let (mut scanner, mut builder, mut batches) = (RowScanner::default(), BatchBuilder::new(3), Vec::new());
            for chunk in stream.chunks(piece) {
                builder.bytes.extend_from_slice(chunk);
                while let Some(batch) = builder.scan(&mut scanner).unwrap() {
                    batches.push(batch);
                }
            }
            assert!(scanner.is_complete() && builder.scanned == builder.bytes.len());
            batches.push(builder.take_batch());
            assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [3, 3, 1]);
            let all: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
            assert_eq!(all, (0..7).flat_map(row).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_last_row_is_at_hand_unless_it_was_sent_by_itself() {
        let row = |n: u8| [0, 1, 0, 0, 0, 1, n];
        let mut scanner = RowScanner::default();
        let mut builder = BatchBuilder::new(2);
        builder.bytes.extend([HEADER, &row(1), &row(2), &row(3)].concat());
        assert_eq!(builder.last_row(), None);
        assert_eq!(builder.scan(&mut scanner).unwrap().unwrap().rows, 2);
        assert_eq!((builder.last_row(), builder.rows_read()), (Some(&row(2)[..]), 2));
        assert!(builder.scan(&mut scanner).unwrap().is_none());
        assert_eq!((builder.last_row(), builder.rows_read()), (Some(&row(3)[..]), 3));
        assert_eq!(builder.take_before_row().unwrap().rows, 1);
        assert_eq!((builder.last_row(), builder.rows_read()), (None, 4));
        assert!(builder.take_before_row().is_none());
    }
}
