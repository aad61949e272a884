//! The encoding task: a thread that encodes the rows of a range into the bytes of a file or of one shard, while another
//! task reads them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::manifest::Replaced;
use polyglot_core::request::ExportRequest;
use polyglot_source::mask::MaskKey;
use tokio::sync::mpsc;

use crate::dataset_limit;
use crate::mask_hashes::MaskHashes;
use crate::metrics::{self, Stage};
use crate::part::{Output, OutputError, PartSink, Written};
use crate::plan::{Plan, Range};
use crate::progress::Progress;
use crate::read::{FromSource, LivenessProbe, Source};
use crate::work_error::{WorkError, internal};
use polyglot_formats::copy::FieldIndex;
use polyglot_formats::{Encode, EncodeBuffer, FLUSH_BYTES, Replacement};

/// The extent of a file that one task writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The whole file.
    Whole,
    /// Shard `number` of `of`. The first one writes what comes before the rows, the last one what comes after them,
    /// unless that describes the rows of all shards, as a Parquet footer does.
    Shard { number: i32, of: i32 },
}

/// The input of the encoding thread.
pub(crate) struct EncodeTask<S> {
    pub plan: Plan,
    pub request: ExportRequest,
    pub extent: Extent,
    /// The set that row numbers in messages refer to, for example `the export`.
    pub rows_of: String,
    pub output: Output<S>,
    /// The key of masks that hash; `None`: this worker has none.
    pub mask_key: Option<MaskKey>,
    pub progress: Arc<Progress>,
}

/// The result of the encoding thread.
pub(crate) struct Encoded<W> {
    pub written: Written<W>,
    pub replacements: Vec<Replacement>,
    /// Description of the shard's row groups, which the end of a Parquet file needs.
    pub row_groups: Option<Vec<u8>>,
}

impl<S: PartSink> EncodeTask<S> {
    /// Encodes the batches until the source has sent its last one.
    pub(crate) fn run(mut self, mut batches: mpsc::Receiver<FromSource>) -> Result<Encoded<S::Written>, OutputError> {
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
            begun.map_err(|error| output.error_of(&error, || "The file's frame".to_owned()))?;
        } else {
            output.continue_shard(self.request.compression);
            encoder.continue_shard();
        }
        let mut hashes = MaskHashes::of(plan, self.mask_key.take())?;
        let (mut index, mut rows) = (FieldIndex::default(), 0_i64);
        loop {
            let asked = Instant::now();
            let received = batches.blocking_recv();
            let began = Instant::now();
            metrics::time(Stage::Source, format, began - asked);
            let batch = match received {
                Some(FromSource::Batch(batch)) => batch,
                Some(FromSource::End) => break,
                None => return Err(OutputError::ReceiverClosed),
            };
            let batch = hashes.put_on(batch)?;
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
                // A long value is written in the middle of its row, which is not complete then.
                output.rows = rows - 1;
                let encoded = encoder.row(row, &mut EncodeBuffer::new(&mut scratch, output));
                encoded.map_err(|error| output.error_of(&error, || plan.names.name(rows, rows_of, row)))?;
                if scratch.len() >= FLUSH_BYTES {
                    output.rows = rows;
                    output.write_scratch(&mut scratch)?;
                }
            }
            output.write_finished(&mut *encoder)?;
            self.progress.rows.store(rows, Ordering::Relaxed);
            dataset_limit::check(&self.request.grant, rows, self.progress.bytes.load(Ordering::Relaxed))?;
            metrics::time(Stage::Encode, format, began.elapsed().saturating_sub(output.waited()));
        }
        self.end(encoder, scratch, rows)
    }

    fn end(
        mut self,
        mut encoder: Box<dyn Encode>,
        mut scratch: Vec<u8>,
        rows: i64,
    ) -> Result<Encoded<S::Written>, OutputError> {
        let (output, began) = (&mut self.output, Instant::now());
        let ended = match self.extent {
            // A footer describes the rows of all shards.
            Extent::Shard { number, of } if number < of || self.plan.format.footer.is_some() => encoder.finish_shard(),
            Extent::Whole | Extent::Shard { .. } => {
                encoder.end(&mut EncodeBuffer::new(&mut scratch, output)).map(|()| None)
            }
        };
        let row_groups = ended.map_err(|error| output.error_of(&error, || "The end of the file".to_owned()))?;
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

/// Reads a range and encodes it at the same time.
pub(crate) async fn encode<S: PartSink + 'static>(
    task: EncodeTask<S>,
    source: &mut Source,
    range: &Range,
    max_batch_rows: usize,
    probe: &LivenessProbe<'_>,
) -> Result<Encoded<S::Written>, WorkError> {
    let (statement, progress) = (task.plan.copy_statement(range), Arc::clone(&task.progress));
    let (rows_of, names, fields) = (task.rows_of.clone(), task.plan.names.clone(), task.plan.fields());
    let (to_encoder, from_source) = mpsc::channel(2);
    // The log lines of the thread belong to the same span.
    let span = tracing::Span::current();
    let encoding = tokio::task::spawn_blocking(move || span.in_scope(|| task.run(from_source)));
    let reading = async {
        let key = |row: &[u8]| names.key(FieldIndex::default().read(row, fields).ok()?.0);
        let reading = source.read(&statement, &rows_of, &key, max_batch_rows, to_encoder);
        probe.run_while_alive(&progress, reading).await.map_err(WorkError::from)
    };
    let encoding = async {
        match encoding.await {
            Ok(Ok(encoded)) => Ok(encoded),
            Ok(Err(OutputError::Failed(failure))) => Err(WorkError::Failed(failure)),
            Ok(Err(OutputError::ReceiverClosed)) => std::future::pending().await,
            Err(panicked) => Err(WorkError::Failed(internal(&panicked))),
        }
    };
    let ((), encoded) = tokio::try_join!(reading, encoding)?;
    Ok(encoded)
}

/// Returns the values that were replaced, under the column names that clients know.
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
