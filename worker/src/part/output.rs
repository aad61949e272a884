//! The encoder's bytes through compression to where they are stored, on the encoding thread: what was written, and where.

use std::time::Duration;

use polyglot_core::compression::Compression;
use polyglot_core::failure::{Failure, FailureKind};

use super::part_sink::{OutputStop, Sink, Written};
use crate::work_error::internal;
use polyglot_formats::compress::Compressor;
use polyglot_formats::{ByteSink, Encode, EncodeError, FLUSH_BYTES, Stopped};

/// Encoded bytes into a sink.
pub(crate) struct Output<S> {
    sink: S,
    compressor: Option<Compressor>,
    /// Rows that end in what is written next, or before; to be set first.
    pub rows: i64,
    /// Rows that have been written.
    rows_written: i64,
    raw_bytes: i64,
    /// Why writing stopped, if it did in the middle of a row.
    stop: Option<OutputStop>,
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
        EncodeError::Writer { .. } | EncodeError::Stopped(_) => return internal(error),
    };
    Failure::new(kind, format!("{name}: {error}."), polyglot_core::failure::chain(error))
}

impl<S: Sink> Output<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { sink, compressor: None, rows: 0, rows_written: 0, raw_bytes: 0, stop: None }
    }

    pub(crate) fn start(&mut self, compression: Option<Compression>) -> Result<(), OutputStop> {
        if let Some(compression) = compression {
            let compressor = Compressor::start(compression, self.sink.room(0)?).map_err(|error| internal(&error))?;
            self.compressor = Some(compressor);
        }
        Ok(())
    }

    /// Goes on behind what somebody else has started.
    pub(crate) fn continue_shard(&mut self, compression: Option<Compression>) {
        self.compressor = compression.map(|_| Compressor::continue_gzip());
    }

    /// How long what is behind has kept the encoder waiting, since this was asked last.
    pub(crate) fn waited(&mut self) -> Duration {
        self.sink.waited()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputStop> {
        self.raw_bytes += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        // A step is well below the slack, which has to take what the compressor gives out for it.
        for step in bytes.chunks(FLUSH_BYTES * 2) {
            let room = self.sink.room(self.rows_written)?;
            match &mut self.compressor {
                Some(compressor) => compressor.write(step, room).map_err(|error| internal(&error))?,
                None => room.extend_from_slice(step),
            }
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

    /// Ends the file.
    pub(crate) fn finish(mut self, rows: i64) -> Result<Written<S::Written>, OutputStop> {
        if let Some(compressor) = self.compressor.take() {
            compressor.finish(self.sink.room(self.rows_written)?).map_err(|error| internal(&error))?;
        }
        self.written(rows, None)
    }

    /// Ends where somebody else goes on.
    pub(crate) fn finish_shard(mut self, rows: i64) -> Result<Written<S::Written>, OutputStop> {
        let raw_crc32 = match self.compressor.take() {
            Some(compressor) => {
                let room = self.sink.room(self.rows_written)?;
                Some(compressor.finish_shard(room).map_err(|error| internal(&error))?)
            }
            None => None,
        };
        self.written(rows, raw_crc32)
    }

    fn written(self, rows: i64, raw_crc32: Option<u32>) -> Result<Written<S::Written>, OutputStop> {
        Ok(Written { rows, raw_bytes: self.raw_bytes, raw_crc32, stored: self.sink.finish(rows)? })
    }
}

impl<S: Sink> ByteSink for Output<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.write(bytes).map_err(|stop| {
            self.stop = Some(stop);
            Stopped
        })
    }
}
