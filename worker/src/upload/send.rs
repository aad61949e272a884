//! Sending bytes to the store: the parts of a multipart upload, several at a time, and whole objects.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use futures_util::{StreamExt, TryStreamExt, stream};
use polyglot_storage::{CompletedPart, ObjectBody, StorageError};
use tokio::sync::mpsc;

use super::{Interruption, StagedObject, Upload, UploadError, outage};
use crate::metrics::{self, Stage};
use crate::part::{FromEncoder, Part};

/// Parts that are sent at a time.
const CONCURRENT_PARTS: usize = 2;

impl Upload<'_> {
    /// Sends every part. The first is held until there is a second: a single part needs no multipart upload.
    pub(crate) async fn send_parts(
        &mut self,
        mut parts: mpsc::Receiver<FromEncoder>,
        uploaded: &AtomicI64,
    ) -> Result<StagedObject, UploadError> {
        let Some(first) = next_part(&mut parts).await? else { return Err(UploadError::PipelineClosed) };
        let Some(second) = next_part(&mut parts).await? else { return Ok(StagedObject::Single(first)) };
        self.create().await?;
        let upload = &*self;
        let first_two = stream::iter([first, second]).map(Ok::<_, UploadError>);
        let others = stream::try_unfold(parts, |mut parts| async move {
            let part = next_part(&mut parts).await?;
            Ok(part.map(|part| (part, parts)))
        });
        // A part that fails ends this at once: it does not wait for the next part to be full.
        let mut completed: Vec<_> = first_two
            .chain(others)
            .map_ok(|part| upload.send_and_count(part, uploaded))
            .try_buffer_unordered(CONCURRENT_PARTS)
            // Without the box the compiler cannot show that the job's future is Send.
            .boxed()
            .try_collect()
            .await?;
        completed.sort_unstable_by_key(|part: &CompletedPart| part.number);
        Ok(StagedObject::Multipart(completed))
    }

    async fn send_and_count(&self, part: Part, uploaded: &AtomicI64) -> Result<CompletedPart, UploadError> {
        let body = ObjectBody::from(part.bytes);
        let size = i64::try_from(body.size()).unwrap_or(i64::MAX);
        let sent = self.send_part(part.number, &body, part.crc32).await?;
        uploaded.fetch_add(size, Ordering::Relaxed);
        Ok(sent)
    }

    /// Sends one part of the attempt's multipart upload.
    pub(crate) async fn send_part(
        &self,
        number: u32,
        body: &ObjectBody,
        crc32: u32,
    ) -> Result<CompletedPart, UploadError> {
        let (storage, upload) = (self.target.storage, self.multipart()?);
        let request = || self.measured(storage.upload_part(upload, number, body, crc32));
        Ok(outage::call(storage, None, request).await??)
    }

    /// Writes one object among several and returns its `ETag`.
    pub(crate) async fn put_file(
        &self,
        number: i32,
        body: &ObjectBody,
        crc32: u32,
    ) -> Result<Option<String>, UploadError> {
        let name = self.format.part_name(number, self.claim.request.compression);
        Ok(self.put(&format!("{}{name}", self.object_key), body, crc32, None).await??)
    }

    pub(super) async fn put(
        &self,
        key: &str,
        body: &ObjectBody,
        crc32: u32,
        interruption: Option<&Interruption<'_>>,
    ) -> Result<Result<Option<String>, StorageError>, UploadError> {
        let (storage, headers) = (self.target.storage, self.headers(key));
        outage::call(storage, interruption, || self.measured(storage.put(key, &headers, body, crc32))).await
    }

    /// A request that stores a part or an object, with its time and its success in the metrics.
    async fn measured<T>(&self, request: impl Future<Output = Result<T, StorageError>>) -> Result<T, StorageError> {
        let began = Instant::now();
        let answer = request.await;
        metrics::time(Stage::Upload, self.format, began.elapsed());
        if answer.is_ok() {
            metrics::part_stored();
        }
        answer
    }
}

/// The encoder's next part; `None` behind the last one.
async fn next_part(parts: &mut mpsc::Receiver<FromEncoder>) -> Result<Option<Part>, UploadError> {
    match parts.recv().await {
        Some(FromEncoder::Part(part)) => Ok(Some(part)),
        Some(FromEncoder::End) => Ok(None),
        None => Err(UploadError::PipelineClosed),
    }
}
