//! Stored bytes of a whole file, cut into parts by their size alone and handed on as they are full.

use std::time::{Duration, Instant};

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::{ManifestPart, crc_text};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::part::{FromEncoder, MAX_PARTS, PART_SLACK, Part, PartBudget, PartSizes, Room};
use super::part_sink::{OutputStop, Sink};

pub(crate) struct Parts {
    to: mpsc::Sender<FromEncoder>,
    handle: Handle,
    budget: PartBudget,
    sizes: PartSizes,
    /// The part that is being filled.
    room: Option<Room>,
    number: u32,
    /// Rows in parts that are full.
    rows_sent: i64,
    crc: crc32fast::Hasher,
    bytes: i64,
    full: Vec<ManifestPart>,
    /// For room, and for the upload to take a part.
    waited: Duration,
}

/// A file in parts.
#[derive(Debug, Default)]
pub(crate) struct WrittenParts {
    pub bytes: i64,
    /// Of all parts together.
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
            room: None,
            number: 0,
            rows_sent: 0,
            crc: crc32fast::Hasher::new(),
            bytes: 0,
            full: Vec::new(),
            waited: Duration::ZERO,
        }
    }

    /// Makes room for another part; waits while the budget is used up.
    fn next_room(&mut self) -> Room {
        self.number += 1;
        let size = self.sizes.of(self.number) + PART_SLACK;
        let began = Instant::now();
        let room = self.handle.block_on(self.budget.reserve(size));
        self.waited += began.elapsed();
        room
    }

    fn send(&mut self, room: Room, rows: i64) -> Result<(), OutputStop> {
        if self.number > MAX_PARTS {
            let capacity = self.sizes.capacity() >> 30;
            let message = format!(
                "The file would be larger than {capacity} GiB, the most that {MAX_PARTS} parts hold with this worker's memory budget."
            );
            let detail = format!("more than {MAX_PARTS} parts; raise MEMORY_BUDGET_MB");
            return Err(Failure::new(FailureKind::TooLarge, message, detail).into());
        }
        let mut crc = crc32fast::Hasher::new();
        crc.update(&room.buffer);
        self.crc.combine(&crc);
        let crc32 = crc.finalize();
        let bytes = i64::try_from(room.buffer.len()).unwrap_or(i64::MAX);
        self.full.push(ManifestPart {
            number: self.number,
            offset: self.bytes,
            bytes,
            rows: rows - self.rows_sent,
            crc32: crc_text(crc32),
        });
        self.rows_sent = rows;
        self.bytes += bytes;
        let part = Part::new(self.number, room, crc32);
        let began = Instant::now();
        let taken = self.to.blocking_send(FromEncoder::Part(part));
        self.waited += began.elapsed();
        taken.map_err(|_| OutputStop::CutOff)
    }
}

impl Sink for Parts {
    type Written = WrittenParts;

    /// A part is full between two calls, not within one: so that, but for very long values and for compression, it ends
    /// where a row ends.
    fn room(&mut self, rows_written: i64) -> Result<&mut Vec<u8>, OutputStop> {
        if self.room.as_ref().is_some_and(|room| room.buffer.len() >= self.sizes.of(self.number))
            && let Some(full) = self.room.take()
        {
            self.send(full, rows_written)?;
        }
        let room = match self.room.take() {
            Some(room) => room,
            None => self.next_room(),
        };
        Ok(&mut self.room.insert(room).buffer)
    }

    fn waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    fn finish(mut self, rows: i64) -> Result<WrittenParts, OutputStop> {
        let room = match self.room.take() {
            Some(room) => room,
            None => self.next_room(),
        };
        // An empty file is one empty part; behind other parts an empty one is left out.
        if !room.buffer.is_empty() || self.number == 1 {
            self.send(room, rows)?;
        }
        self.to.blocking_send(FromEncoder::End).map_err(|_| OutputStop::CutOff)?;
        Ok(WrittenParts { bytes: self.bytes, crc32: crc_text(self.crc.finalize()), parts: self.full })
    }
}
