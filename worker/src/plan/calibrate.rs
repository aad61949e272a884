//! How many bytes of the file a sample of the rows becomes: it goes through the encoder and the compressor, and only the
//! count is kept.

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

/// Behind so much nothing is learned any more; what still comes of the statement is dropped.
const ENOUGH_BYTES: f64 = (8 << 20) as f64;
const BATCH_ROWS: usize = 1000;

/// Bytes of the file for each unit of the weight that `statement` has in its last field; 1 where it has no rows.
pub(super) async fn ratio(
    source: &mut Source,
    plan: &Plan,
    request: &ExportRequest,
    statement: &str,
) -> Result<f64, Failure> {
    let (to, from) = mpsc::channel(2);
    let mut calibration = Calibration::new(plan, request)?;
    let encoding = tokio::task::spawn_blocking(move || {
        calibration.run(from);
        calibration.ratio()
    });
    source.read_rows(statement, BATCH_ROWS, &to).await?;
    drop(to);
    encoding.await.map_err(|panicked| internal(&panicked))
}

struct Calibration {
    encoder: Box<dyn Encode>,
    format: Format,
    /// Fields of a row, the weight among them.
    fields: usize,
    output: Count,
    weight: f64,
}

/// Takes the bytes of the file, and forgets them.
struct Count {
    compressor: Option<Compressor>,
    compressed: Vec<u8>,
    bytes: usize,
    /// The last bytes of all.
    last: Vec<u8>,
}

impl ByteSink for Count {
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
        // A value that the format cannot hold is for the export itself to tell.
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
            output: Count { compressor, compressed, bytes: 0, last: Vec::new() },
            weight: 0.0,
        })
    }

    fn run(&mut self, mut batches: mpsc::Receiver<FromSource>) {
        let mut scratch = Vec::with_capacity(FLUSH_BYTES * 2);
        let mut goes_on = self.encoder.begin(&mut EncodeBuffer::new(&mut scratch, &mut self.output)).is_ok();
        while let Some(FromSource::Batch(batch)) = batches.blocking_recv() {
            // Received to the end in any case: the connection is needed again.
            goes_on = goes_on && self.weight < ENOUGH_BYTES && self.encode(&batch, &mut scratch).is_some();
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
            let Ok(Value::Float8(weight)) = Value::read(WireType::Float8, row.fields().last()??) else { return None };
            self.encoder.row(row, &mut EncodeBuffer::new(scratch, &mut self.output)).ok()?;
            self.weight += weight;
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
            // Of the whole file there is one footer, and it is no shard's.
            bytes = bytes.saturating_sub(footer.length(&self.output.last));
        }
        if self.weight > 0.0 && bytes > 0 { bytes as f64 / self.weight } else { 1.0 }
    }
}
