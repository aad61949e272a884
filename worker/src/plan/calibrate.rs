//! The scale of the size estimate: a sample of the rows goes through the encoder and the compressor, and only the
//! number of bytes is kept.

use polyglot_core::column::WireType;
use polyglot_core::failure::Failure;
use polyglot_core::format_options::OnUnrepresentable;
use polyglot_core::request::ExportRequest;
use tokio::sync::mpsc;

use super::read_plan::Plan;
use crate::read::{Batch, FromSource, Source};
use crate::work_error::internal;
use polyglot_formats::compress::Compressor;
use polyglot_formats::copy::{FieldIndex, Value};
use polyglot_formats::{ByteSink, Encode, EncodeBuffer, FLUSH_BYTES, Footer, Format, Stopped};

/// Sum of size estimates after which no more rows are encoded; the rest of the statement's rows is dropped.
const MAX_SIZE_ESTIMATE: f64 = (8 << 20) as f64;
const BATCH_ROWS: usize = 1000;

/// Returns the bytes of the file for each unit of the size estimate, which is the last field of `statement`; 1 where
/// the statement has no rows.
pub(super) async fn ratio(
    source: &mut Source,
    plan: &Plan,
    request: &ExportRequest,
    statement: &str,
) -> Result<f64, Failure> {
    let (to, from) = mpsc::channel(2);
    let mut calibration = Calibration::new(plan, request)?;
    let ratio = tokio::task::spawn_blocking(move || {
        calibration.run(from);
        calibration.ratio()
    });
    source.read_rows(statement, "a sample", &|_| None, BATCH_ROWS, &to).await?;
    drop(to);
    ratio.await.map_err(|panicked| internal(&panicked))
}

struct Calibration {
    encoder: Box<dyn Encode>,
    format: Format,
    /// Number of fields of a row, including the size estimate.
    fields: usize,
    output: ByteCounter,
    size_estimate: f64,
}

/// A sink that counts the bytes of the file and drops them.
struct ByteCounter {
    compressor: Option<Compressor>,
    compressed: Vec<u8>,
    bytes: usize,
    /// The last bytes of the file, without compression.
    last: Vec<u8>,
}

impl ByteSink for ByteCounter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        if let Some(compressor) = &mut self.compressor {
            for step in bytes.chunks(FLUSH_BYTES) {
                compressor.write(step, &mut self.compressed).map_err(|_| Stopped)?;
                self.bytes += self.compressed.len();
                self.compressed.clear();
            }
        } else {
            self.bytes += bytes.len();
            self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(Footer::TAIL)..]);
            self.last.drain(..self.last.len().saturating_sub(Footer::TAIL));
        }
        Ok(())
    }
}

impl Calibration {
    fn new(plan: &Plan, request: &ExportRequest) -> Result<Self, Failure> {
        // A value that the format cannot represent is reported by the export itself.
        let mut options = request.options.clone();
        options.on_unrepresentable = OnUnrepresentable::Replace;
        let encoder = plan.format.encoder(&options, &plan.columns, 1);
        let mut compressed = Vec::new();
        let compressor = request.compression.map(|compression| Compressor::start(compression, &mut compressed));
        let compressor = compressor.transpose().map_err(|error| internal(&error))?;
        Ok(Self {
            encoder,
            format: plan.format,
            fields: plan.fields() + 1,
            output: ByteCounter { compressor, compressed, bytes: 0, last: Vec::new() },
            size_estimate: 0.0,
        })
    }

    fn run(&mut self, mut batches: mpsc::Receiver<FromSource>) {
        let mut scratch = Vec::with_capacity(FLUSH_BYTES * 2);
        let mut is_encoding = self.encoder.begin(&mut EncodeBuffer::new(&mut scratch, &mut self.output)).is_ok();
        while let Some(FromSource::Batch(batch)) = batches.blocking_recv() {
            // Receives to the end in any case, because the connection is used again.
            is_encoding =
                is_encoding && self.size_estimate < MAX_SIZE_ESTIMATE && self.encode(&batch, &mut scratch).is_some();
        }
        // Rows before one that cannot be encoded still count.
        self.encoder.end(&mut EncodeBuffer::new(&mut scratch, &mut self.output)).ok();
        self.output.write(&scratch).ok();
        self.take_finished();
        if let Some(compressor) = self.output.compressor.take() {
            compressor.finish(&mut self.output.compressed).ok();
            self.output.bytes += self.output.compressed.len();
        }
    }

    fn encode(&mut self, batch: &Batch, scratch: &mut Vec<u8>) -> Option<()> {
        let mut index = FieldIndex::default();
        let mut rest = &batch.bytes[..];
        for _ in 0..batch.rows {
            let (row, length) = index.read(rest, self.fields).ok()?;
            rest = &rest[length..];
            let Ok(Value::Float8(size_estimate)) = Value::read(WireType::Float8, row.fields().last()??) else {
                return None;
            };
            self.encoder.row(row, &mut EncodeBuffer::new(scratch, &mut self.output)).ok()?;
            self.size_estimate += size_estimate;
            if scratch.len() >= FLUSH_BYTES {
                self.output.write(scratch).ok()?;
                scratch.clear();
            }
        }
        self.take_finished();
        Some(())
    }

    fn take_finished(&mut self) {
        while let Some(piece) = self.encoder.finished() {
            self.output.write(&piece).ok();
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn ratio(&self) -> f64 {
        let mut bytes = self.output.bytes;
        if let Some(footer) = &self.format.footer {
            // The file has one footer, which belongs to no shard.
            bytes = bytes.saturating_sub(footer.length(&self.output.last));
        }
        if self.size_estimate > 0.0 && bytes > 0 { bytes as f64 / self.size_estimate } else { 1.0 }
    }
}
