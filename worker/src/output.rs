//! The encoder's bytes through compression into parts, on the encoding thread: what was written, and where.

use polyglot_export::failure::{Failure, FailureKind};
use polyglot_export::format::Compression;
use polyglot_export::manifest::ManifestPart;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::compress::Compressor;
use crate::encode::{Encode, EncodeError, RELIEF_BYTES, Spill, Stopped};
use crate::pipeline::internal;
use crate::upload::{FromEncoder, MAX_PARTS, PART_SLACK, Part, PartBudget, PartSizes, Room};

/// Why the encoding thread ends early.
pub(crate) enum OutputStop {
    Failed(Failure),
    /// The stage behind went away: it has the error that matters.
    CutOff,
}

impl From<Failure> for OutputStop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub rows: i64,
    /// Before compression.
    pub raw_bytes: i64,
    pub bytes: i64,
    /// Of all parts together.
    pub crc32: String,
    pub parts: Vec<ManifestPart>,
}

/// Encoded bytes into parts.
pub(crate) struct Output {
    to: mpsc::Sender<FromEncoder>,
    handle: Handle,
    budget: PartBudget,
    sizes: PartSizes,
    compressor: Option<Compressor>,
    /// The part that is being filled.
    room: Option<Room>,
    number: u32,
    /// Rows that end in what is written next, or before; to be set first.
    pub rows: i64,
    /// Rows that have been written.
    rows_written: i64,
    /// Of those, the rows in parts that are full.
    rows_sent: i64,
    crc: crc32fast::Hasher,
    written: Written,
    /// Why writing stopped, if it did in the middle of a row.
    stop: Option<OutputStop>,
}

fn crc_text(crc: u32) -> String {
    format!("{crc:08x}")
}

/// A row (or something else, by its `name`) that could not be encoded, in words.
fn encode_failure(error: &EncodeError, name: &str) -> Failure {
    let kind = match error {
        EncodeError::Undecodable { .. } => FailureKind::Undecodable,
        EncodeError::Unrepresentable { .. } => FailureKind::Unrepresentable,
        EncodeError::TooManyRowGroups { .. } => {
            let message = format!(
                "The file is too large for one Parquet file of so many columns: {error}. Larger row groups \
                 (options.rowGroupBytes), fewer columns or a filter make it fit."
            );
            return Failure::new(FailureKind::TooLarge, message, error.to_string());
        }
        EncodeError::Parquet(_) | EncodeError::Stopped(_) => return internal(error),
    };
    Failure::new(kind, format!("{name}: {error}."), polyglot_export::failure::chain(error))
}

impl Output {
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
            compressor: None,
            room: None,
            number: 0,
            rows: 0,
            rows_written: 0,
            rows_sent: 0,
            crc: crc32fast::Hasher::new(),
            written: Written::default(),
            stop: None,
        }
    }

    pub(crate) fn start(&mut self, compression: Option<Compression>) -> Result<(), OutputStop> {
        let mut room = self.next_room();
        if let Some(compression) = compression {
            let compressor = Compressor::start(compression, &mut room.buffer).map_err(|error| internal(&error))?;
            self.compressor = Some(compressor);
        }
        self.room = Some(room);
        Ok(())
    }

    /// Makes room for another part; waits while the budget is used up.
    fn next_room(&mut self) -> Room {
        self.number += 1;
        let size = self.sizes.of(self.number) + PART_SLACK;
        self.handle.block_on(self.budget.reserve(size))
    }

    /// A part is full between two calls, not within one: so that, but for very long values and for compression, it ends
    /// where a row ends.
    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputStop> {
        self.written.raw_bytes += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        // A step is well below the slack, which has to take what the compressor gives out for it.
        for step in bytes.chunks(RELIEF_BYTES * 2) {
            let mut room = match self.room.take() {
                Some(room) if room.buffer.len() < self.sizes.of(self.number) => room,
                Some(full) => {
                    self.send_part(full)?;
                    self.next_room()
                }
                None => self.next_room(),
            };
            match &mut self.compressor {
                Some(compressor) => compressor.write(step, &mut room.buffer).map_err(|error| internal(&error))?,
                None => room.buffer.extend_from_slice(step),
            }
            self.room = Some(room);
        }
        self.rows_written = self.rows;
        Ok(())
    }

    /// Writes and empties what the encoder has gathered.
    pub(crate) fn write_scratch(&mut self, scratch: &mut Vec<u8>) -> Result<(), OutputStop> {
        self.write(scratch)?;
        scratch.clear();
        Ok(())
    }

    pub(crate) fn write_finished(&mut self, encoder: &mut dyn Encode) -> Result<(), OutputStop> {
        while let Some(piece) = encoder.finished() {
            self.rows = encoder.rows_finished().unwrap_or(self.rows);
            self.write(&piece)?;
        }
        Ok(())
    }

    /// What an encoder's error means; `name` says what was being encoded.
    pub(crate) fn stop_of(&mut self, error: &EncodeError, name: impl FnOnce() -> String) -> OutputStop {
        match (error, self.stop.take()) {
            (EncodeError::Stopped(_), Some(stop)) => stop,
            _ => OutputStop::Failed(encode_failure(error, &name())),
        }
    }

    fn send_part(&mut self, room: Room) -> Result<(), OutputStop> {
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
        self.written.parts.push(ManifestPart {
            number: self.number,
            offset: self.written.bytes,
            bytes,
            rows: self.rows_written - self.rows_sent,
            crc32: crc_text(crc32),
        });
        self.rows_sent = self.rows_written;
        self.written.bytes += bytes;
        let part = Part::new(self.number, room, crc32);
        self.to.blocking_send(FromEncoder::Part(part)).map_err(|_| OutputStop::CutOff)
    }

    pub(crate) fn finish(mut self, rows: i64) -> Result<Written, OutputStop> {
        self.rows_written = rows;
        let mut room = match self.room.take() {
            Some(room) => room,
            None => self.next_room(),
        };
        if let Some(compressor) = self.compressor.take() {
            compressor.finish(&mut room.buffer).map_err(|error| internal(&error))?;
        }
        // An empty file is one empty part; behind other parts an empty one is left out.
        if !room.buffer.is_empty() || self.number == 1 {
            self.send_part(room)?;
        }
        self.to.blocking_send(FromEncoder::End).map_err(|_| OutputStop::CutOff)?;
        Ok(Written { rows, crc32: crc_text(self.crc.finalize()), ..self.written })
    }
}

impl Spill for Output {
    fn spill(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.write(bytes).map_err(|stop| {
            self.stop = Some(stop);
            Stopped
        })
    }
}
