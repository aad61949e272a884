//! The output of the encoding thread: it compresses the encoder's bytes, appends them to a sink, and counts rows and
//! bytes.

use std::time::Duration;

use polyglot_core::compression::Compression;
use polyglot_core::failure::{Failure, FailureKind};

use super::part_sink::{OutputError, PartSink, Written};
use crate::work_error::internal;
use polyglot_formats::compress::Compressor;
use polyglot_formats::{ByteSink, Encode, EncodeError, FLUSH_BYTES, Stopped};

/// Compresses encoded bytes and appends them to a sink.
pub(crate) struct Output<S> {
    sink: S,
    compressor: Option<Compressor>,
    /// Number of rows that are complete after the next write. Set it before each write.
    pub rows: i64,
    /// Number of rows that were complete after the last write.
    rows_written: i64,
    uncompressed_bytes: i64,
    /// The error that ended a write in the middle of a row.
    error: Option<OutputError>,
}

/// Returns the failure of something that could not be encoded; `name` says what it is, usually a row.
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

impl<S: PartSink> Output<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { sink, compressor: None, rows: 0, rows_written: 0, uncompressed_bytes: 0, error: None }
    }

    /// Starts a file.
    pub(crate) fn start(&mut self, compression: Option<Compression>) -> Result<(), OutputError> {
        if let Some(compression) = compression {
            let compressor = Compressor::start(compression, self.sink.buffer(0)?).map_err(|error| internal(&error))?;
            self.compressor = Some(compressor);
        }
        Ok(())
    }

    /// Continues a file that another shard has started.
    pub(crate) fn continue_shard(&mut self, compression: Option<Compression>) {
        self.compressor = compression.map(|_| Compressor::continue_gzip());
    }

    /// Returns the time that the sink has kept the encoder waiting since the last call.
    pub(crate) fn waited(&mut self) -> Duration {
        self.sink.waited()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.uncompressed_bytes += i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        // A step is well below `PART_SLACK`, which has to hold what the compressor returns for the step.
        for step in bytes.chunks(FLUSH_BYTES * 2) {
            let buffer = self.sink.buffer(self.rows_written)?;
            match &mut self.compressor {
                Some(compressor) => compressor.write(step, buffer).map_err(|error| internal(&error))?,
                None => buffer.extend_from_slice(step),
            }
        }
        self.rows_written = self.rows;
        Ok(())
    }

    /// Writes the bytes that the encoder has gathered and empties the buffer.
    pub(crate) fn write_scratch(&mut self, scratch: &mut Vec<u8>) -> Result<(), OutputError> {
        self.write(scratch)?;
        scratch.clear();
        Ok(())
    }

    /// Writes the pieces that the encoder has finished.
    pub(crate) fn write_finished(&mut self, encoder: &mut dyn Encode) -> Result<(), OutputError> {
        while let Some(piece) = encoder.finished() {
            self.rows = encoder.rows_finished().unwrap_or(self.rows);
            self.write(&piece)?;
        }
        Ok(())
    }

    /// Returns the error to report for an error of the encoder; `name` says what was being encoded.
    pub(crate) fn error_of(&mut self, error: &EncodeError, name: impl FnOnce() -> String) -> OutputError {
        match (error, self.error.take()) {
            (EncodeError::Stopped(_), Some(output_error)) => output_error,
            _ => OutputError::Failed(encode_failure(error, &name())),
        }
    }

    /// Ends the file.
    pub(crate) fn finish(mut self, rows: i64) -> Result<Written<S::Written>, OutputError> {
        if let Some(compressor) = self.compressor.take() {
            compressor.finish(self.sink.buffer(self.rows_written)?).map_err(|error| internal(&error))?;
        }
        self.written(rows, None)
    }

    /// Ends a shard where the next shard or the finish continues the file.
    pub(crate) fn finish_shard(mut self, rows: i64) -> Result<Written<S::Written>, OutputError> {
        let uncompressed_crc32 = match self.compressor.take() {
            Some(compressor) => {
                let buffer = self.sink.buffer(self.rows_written)?;
                Some(compressor.finish_shard(buffer).map_err(|error| internal(&error))?)
            }
            None => None,
        };
        self.written(rows, uncompressed_crc32)
    }

    fn written(self, rows: i64, uncompressed_crc32: Option<u32>) -> Result<Written<S::Written>, OutputError> {
        Ok(Written {
            rows,
            uncompressed_bytes: self.uncompressed_bytes,
            uncompressed_crc32,
            stored: self.sink.finish(rows)?,
        })
    }
}

impl<S: PartSink> ByteSink for Output<S> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        self.write(bytes).map_err(|error| {
            self.error = Some(error);
            Stopped
        })
    }
}
