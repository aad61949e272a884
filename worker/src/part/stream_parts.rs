//! The stored bytes of a whole file, divided into parts by size alone. Each part is sent to the upload as soon as it is
//! full.

use std::time::{Duration, Instant};

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::{ManifestPart, crc_text};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::part::{FromEncoder, MAX_PARTS, PART_SLACK, Part, PartBudget, PartBuffer, PartSizes};
use super::part_sink::{OutputError, PartSink};

/// A sink that divides a file into parts.
pub(crate) struct Parts {
    to: mpsc::Sender<FromEncoder>,
    handle: Handle,
    budget: PartBudget,
    sizes: PartSizes,
    /// The part that is being filled.
    buffer: Option<PartBuffer>,
    number: u32,
    /// Number of rows in the parts that were sent.
    rows_sent: i64,
    crc: crc32fast::Hasher,
    bytes: i64,
    full: Vec<ManifestPart>,
    /// Time waited for the budget and for the upload to take a part, since it was last reported.
    waited: Duration,
}

/// A finished file in parts.
#[derive(Debug, Default)]
pub(crate) struct WrittenParts {
    pub bytes: i64,
    /// CRC-32 of the whole file, as text.
    pub crc32: String,
    pub parts: Vec<ManifestPart>,
}

impl Parts {
    pub(crate) fn new(
        to: mpsc::Sender<FromEncoder>,
        handle: Handle,
        part_budget: usize,
        estimated_bytes: Option<u64>,
    ) -> Self {
        Self {
            to,
            handle,
            budget: PartBudget::new(part_budget),
            sizes: PartSizes::new(estimated_bytes, part_budget),
            buffer: None,
            number: 0,
            rows_sent: 0,
            crc: crc32fast::Hasher::new(),
            bytes: 0,
            full: Vec::new(),
            waited: Duration::ZERO,
        }
    }

    /// Returns a buffer for the next part; waits while the budget is used up.
    fn next_buffer(&mut self) -> PartBuffer {
        self.number += 1;
        let size = self.sizes.of(self.number) + PART_SLACK;
        let began = Instant::now();
        let buffer = self.handle.block_on(self.budget.reserve(size));
        self.waited += began.elapsed();
        buffer
    }

    fn send(&mut self, buffer: PartBuffer, rows: i64) -> Result<(), OutputError> {
        if self.number > MAX_PARTS {
            let capacity = self.sizes.capacity() >> 30;
            let message = format!(
                "The file would be larger than {capacity} GiB, the most that {MAX_PARTS} parts hold with this worker's memory budget."
            );
            let detail = format!("more than {MAX_PARTS} parts; raise MEMORY_BUDGET_MB");
            return Err(Failure::new(FailureKind::TooLarge, message, detail).into());
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&buffer.bytes);
        self.crc.combine(&crc);
        let crc32 = crc.finalize();
        let bytes = i64::try_from(buffer.bytes.len()).unwrap_or(i64::MAX);
        self.full.push(ManifestPart {
            number: self.number,
            offset: self.bytes,
            bytes,
            rows: rows - self.rows_sent,
            crc32: crc_text(crc32),
        });
        self.rows_sent = rows;
        self.bytes += bytes;
        let part = Part::new(self.number, buffer, crc32);
        let began = Instant::now();
        let taken = self.to.blocking_send(FromEncoder::Part(part));
        self.waited += began.elapsed();
        taken.map_err(|_| OutputError::ReceiverClosed)
    }
}

impl PartSink for Parts {
    type Written = WrittenParts;

    /// Sends the part first if it is full. Only calls end a part, so that a part ends where a row ends, except with
    /// very long values and with compression.
    fn buffer(&mut self, rows_written: i64) -> Result<&mut Vec<u8>, OutputError> {
        if self.buffer.as_ref().is_some_and(|buffer| buffer.bytes.len() >= self.sizes.of(self.number))
            && let Some(full) = self.buffer.take()
        {
            self.send(full, rows_written)?;
        }
        let buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => self.next_buffer(),
        };
        Ok(&mut self.buffer.insert(buffer).bytes)
    }

    fn waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    fn finish(mut self, rows: i64) -> Result<WrittenParts, OutputError> {
        let buffer = match self.buffer.take() {
            Some(buffer) => buffer,
            None => self.next_buffer(),
        };
        // An empty file is one empty part. After other parts an empty one is left out.
        if !buffer.bytes.is_empty() || self.number == 1 {
            self.send(buffer, rows)?;
        }
        self.to.blocking_send(FromEncoder::End).map_err(|_| OutputError::ReceiverClosed)?;
        Ok(WrittenParts { bytes: self.bytes, crc32: crc_text(self.crc.finalize()), parts: self.full })
    }
}
