//! Rows out of the server: one binary `COPY` a range, cut into batches of whole rows.

use bytes::Bytes;
use futures_util::TryStreamExt;
use polyglot_core::failure::{Failure, FailureKind};
use tokio::sync::mpsc;

use super::batch::{Batch, FromSource};
use super::source_failure::failed;
use super::transaction::Source;
use polyglot_formats::copy::{Found, Malformed, RowScanner};

/// A batch is also cut at so many bytes: few enough to be still in the processor's cache when they are encoded, and four of
/// them are between the stages of each slot.
const BATCH_BYTES: usize = 256 << 10;

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn malformed(error: Malformed) -> Failure {
    Failure::caused(FailureKind::Undecodable, "The source database sent data that cannot be read.", &error)
}

impl Source {
    /// Sends every row of a `COPY` statement, then `End`. The transaction stays open for further statements. Returns early, without
    /// `End`, when the receiver is gone: it then has the error that matters. The transaction is good for nothing else then:
    /// the rest of the rows stands before whatever is asked next.
    pub(crate) async fn read(
        &mut self,
        statement: &str,
        max_rows: usize,
        to: mpsc::Sender<FromSource>,
    ) -> Result<(), Failure> {
        if self.read_rows(statement, max_rows, &to).await? {
            // A receiver that is gone has the error that matters.
            to.send(FromSource::End).await.ok();
        }
        Ok(())
    }

    /// Sends the rows of one statement; the answer is whether the receiver is still there.
    pub(crate) async fn read_rows(
        &mut self,
        statement: &str,
        max_rows: usize,
        to: &mpsc::Sender<FromSource>,
    ) -> Result<bool, Failure> {
        let mut scanner = RowScanner::default();
        let mut batch = BatchBuilder::new(max_rows);
        {
            let mut stream = self.connection.copy_out_raw(statement).await.map_err(failed)?;
            while let Some(message) = stream.try_next().await.map_err(failed)? {
                // A very wide row goes on as it came: its copies would be what takes the memory.
                if message.len() > BATCH_BYTES
                    && batch.bytes.len() == batch.scanned
                    && scanner.is_one_row(&message).map_err(malformed)?
                {
                    let before = (batch.rows > 0).then(|| batch.cut());
                    for batch in before.into_iter().chain([Batch { bytes: message, rows: 1 }]) {
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
        Ok(batch.rows == 0 || to.send(FromSource::Batch(batch.cut())).await.is_ok())
    }
}

/// Bytes from the stream: whole rows up to `scanned`, and behind that what is not a whole row yet.
struct BatchBuilder {
    bytes: Vec<u8>,
    scanned: usize,
    rows: usize,
    max_rows: usize,
}

impl BatchBuilder {
    fn new(max_rows: usize) -> Self {
        Self { bytes: Vec::with_capacity(BATCH_BYTES + 64 * 1024), scanned: 0, rows: 0, max_rows }
    }

    /// Scans on, up to a full batch if there is one.
    fn scan(&mut self, scanner: &mut RowScanner) -> Result<Option<Batch>, Malformed> {
        loop {
            match scanner.next(&self.bytes[self.scanned..])? {
                Found::Row(length) => {
                    self.scanned += length;
                    self.rows += 1;
                    if self.rows >= self.max_rows || self.scanned >= BATCH_BYTES {
                        return Ok(Some(self.cut()));
                    }
                }
                // Header and trailer come first and last, so there is no row of this batch before the one and
                // none behind the other: cutting them out moves next to nothing.
                Found::Skip(length) => {
                    self.bytes.drain(self.scanned..self.scanned + length);
                }
                Found::Incomplete => return Ok(None),
            }
        }
    }

    fn cut(&mut self) -> Batch {
        let mut next = Vec::with_capacity(BATCH_BYTES + 64 * 1024);
        next.extend_from_slice(&self.bytes[self.scanned..]);
        let mut bytes = std::mem::replace(&mut self.bytes, next);
        bytes.truncate(self.scanned);
        self.scanned = 0;
        Batch { bytes: Bytes::from(bytes), rows: std::mem::take(&mut self.rows) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_whole_rows_and_no_larger_than_asked() {
        let row = |n: u8| [0, 1, 0, 0, 0, 1, n];
        let mut stream = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        (0..7).for_each(|n| stream.extend(row(n)));
        stream.extend([0xff, 0xff]);
        for piece in [1, 5, 1000] {
            let (mut scanner, mut builder, mut batches) = (RowScanner::default(), BatchBuilder::new(3), Vec::new());
            for chunk in stream.chunks(piece) {
                builder.bytes.extend_from_slice(chunk);
                while let Some(batch) = builder.scan(&mut scanner).unwrap() {
                    batches.push(batch);
                }
            }
            assert!(scanner.is_complete() && builder.scanned == builder.bytes.len());
            batches.push(builder.cut());
            assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [3, 3, 1]);
            let all: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
            assert_eq!(all, (0..7).flat_map(row).collect::<Vec<_>>());
        }
    }
}
