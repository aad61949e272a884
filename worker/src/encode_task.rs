//! The encoding task: the rows of a range, as they come, into the bytes of a file or of one shard of it, on a thread of its
//! own beside the task that reads them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::Replaced;
use polyglot_core::request::ExportRequest;
use tokio::sync::mpsc;

use crate::metrics::{self, Stage};
use crate::part::{Output, OutputStop, Sink, Written};
use crate::plan::{Plan, Range};
use crate::progress::Progress;
use crate::read::{FromSource, LivenessProbe, Source};
use crate::work_error::{WorkError, internal};
use polyglot_formats::copy::FieldIndex;
use polyglot_formats::{Encode, EncodeBuffer, FLUSH_BYTES, Replacement};

/// How much of a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// What is before the rows, only if it is the first one; what is behind them, if it is the last one and the rows are
    /// not counted in it.
    Shard { number: i32, of: i32 },
}

/// Everything the thread needs.
pub(crate) struct Encoding<S> {
    pub plan: Plan,
    pub request: ExportRequest,
    pub extent: Extent,
    /// What the rows are counted in, for messages.
    pub rows_of: String,
    pub output: Output<S>,
    pub progress: Arc<Progress>,
}

/// What came of it.
pub(crate) struct Encoded<W> {
    pub written: Written<W>,
    pub replacements: Vec<Replacement>,
    /// What the end of the file has to say of the rows.
    pub row_groups: Option<Vec<u8>>,
}

impl<S: Sink> Encoding<S> {
    pub(crate) fn run(mut self, mut batches: mpsc::Receiver<FromSource>) -> Result<Encoded<S::Written>, OutputStop> {
        let (plan, output, extent, rows_of) = (&self.plan, &mut self.output, self.extent, &*self.rows_of);
        let (fields, format) = (plan.fields(), plan.format);
        let shards = match extent {
            Extent::Whole => 1,
            Extent::Shard { of, .. } => usize::try_from(of).unwrap_or(1),
        };
        let mut encoder = format.encoder(&self.request.options, &plan.columns, shards);
        let mut scratch = Vec::with_capacity(FLUSH_BYTES * 2);
        if matches!(extent, Extent::Whole | Extent::Shard { number: 1, .. }) {
            output.start(self.request.compression)?;
            let begun = encoder.begin(&mut EncodeBuffer::new(&mut scratch, output));
            begun.map_err(|error| output.stop_of(&error, || "The file's frame".to_owned()))?;
        } else {
            output.continue_shard(self.request.compression);
            encoder.continue_shard();
        }
        let (mut index, mut rows) = (FieldIndex::default(), 0_i64);
        loop {
            let asked = Instant::now();
            let received = batches.blocking_recv();
            let began = Instant::now();
            metrics::time(Stage::Source, format, began - asked);
            let batch = match received {
                Some(FromSource::Batch(batch)) => batch,
                Some(FromSource::End) => break,
                None => return Err(OutputStop::CutOff),
            };
            let mut rest = &batch.bytes[..];
            for _ in 0..batch.rows {
                let (row, length) = index.read(rest, fields).map_err(|error| {
                    Failure::caused(
                        FailureKind::Undecodable,
                        "The source database sent data that cannot be read.",
                        &error,
                    )
                })?;
                rest = &rest[length..];
                rows += 1;
                plan.check_size(rows, rows_of, row)?;
                // A long value goes on in the middle of its row, which is not written then.
                output.rows = rows - 1;
                let encoded = encoder.row(row, &mut EncodeBuffer::new(&mut scratch, output));
                encoded.map_err(|error| output.stop_of(&error, || plan.names.name(rows, rows_of, row)))?;
                if scratch.len() >= FLUSH_BYTES {
                    output.rows = rows;
                    output.write_scratch(&mut scratch)?;
                }
            }
            output.write_finished(&mut *encoder)?;
            self.progress.rows.store(rows, Ordering::Relaxed);
            metrics::time(Stage::Encode, format, began.elapsed().saturating_sub(output.waited()));
        }
        self.end(encoder, scratch, rows)
    }

    fn end(
        mut self,
        mut encoder: Box<dyn Encode>,
        mut scratch: Vec<u8>,
        rows: i64,
    ) -> Result<Encoded<S::Written>, OutputStop> {
        let (output, began) = (&mut self.output, Instant::now());
        let ended = match self.extent {
            // A footer is about the rows of all shards.
            Extent::Shard { number, of } if number < of || self.plan.format.footer.is_some() => encoder.finish_shard(),
            Extent::Whole | Extent::Shard { .. } => {
                encoder.end(&mut EncodeBuffer::new(&mut scratch, output)).map(|()| None)
            }
        };
        let row_groups = ended.map_err(|error| output.stop_of(&error, || "The end of the file".to_owned()))?;
        output.rows = rows;
        output.write_scratch(&mut scratch)?;
        output.write_finished(&mut *encoder)?;
        metrics::time(Stage::Encode, self.plan.format, began.elapsed().saturating_sub(output.waited()));
        let replacements = encoder.replacements().to_vec();
        let written = match self.extent {
            Extent::Whole => self.output.finish(rows)?,
            Extent::Shard { .. } => self.output.finish_shard(rows)?,
        };
        Ok(Encoded { written, replacements, row_groups })
    }
}

/// Reads a range and encodes it, side by side.
pub(crate) async fn encode<S: Sink + 'static>(
    encoding: Encoding<S>,
    source: &mut Source,
    range: &Range,
    max_batch_rows: usize,
    probe: &LivenessProbe<'_>,
) -> Result<Encoded<S::Written>, WorkError> {
    let (statement, progress) = (encoding.plan.copy(range), Arc::clone(&encoding.progress));
    let (to_encoder, from_source) = mpsc::channel(2);
    // The thread's log lines are of the same work.
    let span = tracing::Span::current();
    let encoding = tokio::task::spawn_blocking(move || span.in_scope(|| encoding.run(from_source)));
    let reading = async {
        let reading = source.read(&statement, max_batch_rows, to_encoder);
        probe.run_while_alive(&progress, reading).await.map_err(WorkError::from)
    };
    let encoding = async {
        match encoding.await {
            Ok(Ok(encoded)) => Ok(encoded),
            Ok(Err(OutputStop::Failed(failure))) => Err(WorkError::Failed(failure)),
            Ok(Err(OutputStop::CutOff)) => std::future::pending().await,
            Err(panicked) => Err(WorkError::Failed(internal(&panicked))),
        }
    };
    let ((), encoded) = tokio::try_join!(reading, encoding)?;
    Ok(encoded)
}

/// What was written as something else, by the names that clients know.
pub(crate) fn replaced(plan: &Plan, replacements: &[Replacement]) -> Vec<Replaced> {
    let name = |column: usize| plan.columns.get(column).map(|column| column.name.clone()).unwrap_or_default();
    replacements
        .iter()
        .map(|it| Replaced {
            column: name(it.column),
            count: it.count,
            problem: it.problem.to_owned(),
            with: it.with.to_owned(),
        })
        .collect()
}
