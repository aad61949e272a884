//! The last stage: parts into one object. A file of one part is one `PutObject`; a longer one is a multipart
//! upload with a bounded number of parts in flight. Nothing is visible before [`Upload::publish`], and
//! [`Upload::discard`] leaves nothing behind.

mod retries;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use polyglot_core::failure::{Failure, FailureKind, chain};
use polyglot_core::manifest::Manifest;
use polyglot_core::request::Layout;
use polyglot_formats::{Format, ObjectHeaders};
use polyglot_ledger::{Claim, Cut, Ledger, LedgerError, Leftover, persist};
use polyglot_storage::{OrphanedObject, Storage, StorageError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::Instrument;

use self::retries::CountRetries;
use crate::metrics::{self, Stage};
use crate::part::{FromEncoder, Part, PartBody};
use crate::work_error::{WorkError, internal};

/// Parts that are on the wire at a time.
const IN_FLIGHT: usize = 2;
/// A store may work for minutes on a Complete of many parts.
const COMPLETE_TIMEOUT: Duration = Duration::from_mins(10);
/// How long cleaning up may take before it is left to the sweeper.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Every byte is in the store (or in `Single`), and nothing is visible yet.
#[derive(Debug)]
pub(crate) enum Staged {
    Single(Part),
    Multipart(Vec<CompletedPart>),
    /// Objects of their own, which are there.
    Several,
}

/// Why an upload did not go on.
#[derive(Debug)]
pub(crate) enum UploadError {
    Failed(Failure),
    /// The store does not know the multipart upload, or not its parts: nothing of it can be used any more.
    Gone(Failure),
    /// The claim no longer holds; the ledger's word is final.
    Lost,
    /// The ledger cannot be asked.
    Ledger(LedgerError),
    /// The encoder went away without an end: it has the error that matters.
    CutOff,
}

impl From<StorageError> for UploadError {
    fn from(error: StorageError) -> Self {
        let (kind, message) = if error.transient {
            (FailureKind::StorageUnavailable, "The object store could not be reached or kept failing.")
        } else {
            (FailureKind::StorageRefused, "The object store refused to take the file.")
        };
        let failure = Failure::caused(kind, message, &error);
        match error.code.as_deref() {
            Some("NoSuchUpload" | "InvalidPart") => Self::Gone(failure),
            _ => Self::Failed(failure),
        }
    }
}

impl From<LedgerError> for UploadError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::LeaseLost => Self::Lost,
            other => Self::Ledger(other),
        }
    }
}

impl From<UploadError> for WorkError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Failed(failure) => Self::Failed(failure),
            UploadError::Gone(failure) => Self::FailedAttempt(failure),
            UploadError::Ledger(error) => error.into(),
            UploadError::Lost | UploadError::CutOff => Self::Lost,
        }
    }
}

/// What every request of the worker's to the store needs.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub storage: &'a Storage,
    pub ledger: &'a Ledger,
    /// How long a ledger that is away is waited for.
    pub patience: Duration,
}

/// The object of one attempt.
pub(crate) struct Upload<'a> {
    storage: &'a Storage,
    ledger: &'a Ledger,
    /// How long a ledger that is away is waited for.
    patience: Duration,
    claim: &'a Claim,
    format: Format,
    owned: String,
    key: String,
    /// The ledger knows of it.
    begun: bool,
    /// The store may know of it.
    sent: bool,
    /// Of the multipart upload, once there is one.
    id: Option<String>,
}

fn checksum(crc32: u32) -> String {
    STANDARD.encode(crc32.to_be_bytes())
}

impl<'a> Upload<'a> {
    pub(crate) fn new(target: Target<'a>, claim: &'a Claim, format: Format) -> Self {
        let Target { storage, ledger, patience } = target;
        let owned =
            storage.object_key(claim.export_id, claim.attempt, &claim.request, &format.file_name(claim.export_id));
        let key = match claim.request.layout {
            Layout::File => owned.clone(),
            Layout::Files => format!("{owned}{}", format.part_name(1, claim.request.compression)),
        };
        Self { storage, ledger, patience, claim, format, owned, key, begun: false, sent: false, id: None }
    }

    /// What another claim of the attempt has begun.
    pub(crate) fn resume(target: Target<'a>, claim: &'a Claim, format: Format, cut: &Cut) -> Self {
        let id = cut.upload_id.clone();
        Self { begun: true, sent: true, id, ..Self::new(target, claim, format) }
    }

    /// What becomes the export's: the object's key, or what the keys of its objects begin with.
    pub(crate) fn owned(&self) -> &str {
        &self.owned
    }

    fn headers(&self, key: &str) -> ObjectHeaders {
        let (Claim { export_id, request, .. }, format) = (self.claim, self.format);
        match request.layout {
            Layout::File => format.object_headers(request, &format.file_name(*export_id)),
            Layout::Files => format.object_headers(request, key.rsplit('/').next().unwrap_or(key)),
        }
    }

    /// Puts the key into the ledger, before the store hears of it: a crash leaves nothing unknown.
    pub(crate) async fn begin(&mut self) -> Result<(), UploadError> {
        // Once the call is made it may have got through, whatever comes back.
        self.begun = true;
        persist(self.patience, || self.ledger.begin_upload(self.claim, &self.owned)).await?;
        Ok(())
    }

    /// Takes every part. The first is held until it is known whether there is a second.
    pub(crate) async fn stage(
        &mut self,
        mut parts: mpsc::Receiver<FromEncoder>,
        uploaded: &AtomicI64,
    ) -> Result<Staged, UploadError> {
        let first = match parts.recv().await {
            Some(FromEncoder::Part(part)) => part,
            Some(FromEncoder::End) | None => return Err(UploadError::CutOff),
        };
        let second = match parts.recv().await {
            Some(FromEncoder::Part(part)) => part,
            Some(FromEncoder::End) => return Ok(Staged::Single(first)),
            None => return Err(UploadError::CutOff),
        };
        let upload_id = self.create().await?;
        let mut running = JoinSet::new();
        let mut completed = Vec::new();
        let mut waiting = [first, second].into_iter();
        let mut ended = false;
        loop {
            if running.len() >= IN_FLIGHT || (ended && !running.is_empty()) {
                completed.push(joined(running.join_next().await, uploaded)?);
                continue;
            }
            if ended {
                break;
            }
            let next = if let Some(part) = waiting.next() {
                part
            } else {
                tokio::select! {
                    // A failed part must not wait for the next one to be full.
                    done = running.join_next(), if !running.is_empty() => {
                        completed.push(joined(done, uploaded)?);
                        continue;
                    }
                    message = parts.recv() => match message {
                        Some(FromEncoder::Part(part)) => part,
                        Some(FromEncoder::End) => {
                            ended = true;
                            continue;
                        }
                        None => return Err(UploadError::CutOff),
                    },
                }
            };
            let Part { number, bytes, crc32 } = next;
            let (storage, key, upload_id) = (self.storage.clone(), self.key.clone(), upload_id.clone());
            let format = self.format;
            let sending = async move {
                upload_part(&storage, &key, &upload_id, number, PartBody::from(bytes), crc32, format).await
            };
            running.spawn(sending.in_current_span());
        }
        completed.sort_unstable_by_key(|part| part.part_number);
        Ok(Staged::Multipart(completed))
    }

    /// Begins the multipart upload.
    pub(crate) async fn create(&mut self) -> Result<String, UploadError> {
        let headers = self.headers(&self.key);
        self.sent = true;
        let created = self
            .storage
            .client
            .create_multipart_upload()
            .bucket(&self.storage.bucket)
            .key(&self.key)
            .content_type(headers.content_type)
            .content_disposition(headers.content_disposition)
            .set_content_encoding(headers.content_encoding.map(str::to_owned))
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            // One that knows it checks the whole object; one that does not checks the parts.
            .checksum_type(ChecksumType::FullObject)
            .send()
            .await
            .map_err(|error| StorageError::new("CreateMultipartUpload", error))?;
        let upload_id = created.upload_id.ok_or_else(|| {
            UploadError::Failed(Failure::new(
                FailureKind::StorageRefused,
                "The object store refused to take the file.",
                "CreateMultipartUpload answered without an upload id",
            ))
        })?;
        self.id = Some(upload_id.clone());
        persist(self.patience, || self.ledger.record_upload(self.claim, &self.key, &upload_id)).await?;
        Ok(upload_id)
    }

    /// Makes the object visible and checks that the store has all of it. Returns its `ETag`.
    pub(crate) async fn publish(&mut self, staged: Staged, manifest: &Manifest) -> Result<Option<String>, UploadError> {
        self.sent = true;
        let (bytes, crc32) = (manifest.bytes, u32::from_str_radix(&manifest.crc32, 16).ok().map(checksum));
        let published = match staged {
            Staged::Several => return Ok(None),
            Staged::Single(part) => self.put(&self.key, PartBody::from(part.bytes), part.crc32).await,
            Staged::Multipart(parts) => self.complete(parts, crc32.clone()).await,
        };
        let head = self.storage.client.head_object().bucket(&self.storage.bucket).key(&self.key);
        let head = head.checksum_mode(ChecksumMode::Enabled);
        let head = head.send().await.map_err(|error| StorageError::new("HeadObject", error));
        let (etag, head) = match (published, head) {
            (Ok(etag), head) => (etag, head?),
            // The answer was lost on its way, or the SDK repeated a Complete that had got through: the key is this
            // attempt's alone, so an object of the right size is the file.
            (Err(error), Ok(head)) if head.content_length == Some(bytes) => {
                tracing::warn!(error = chain(&error), "published all the same");
                (None, head)
            }
            (Err(error), _) => return Err(error.into()),
        };
        let other = |problem| {
            let message = "The object store did not keep all of the file.";
            Err(UploadError::Failed(Failure::new(FailureKind::StorageUnavailable, message, problem)))
        };
        if head.content_length != Some(bytes) {
            return other(format!("the object has {:?} bytes instead of {bytes}", head.content_length));
        }
        let is_whole = head.checksum_type == Some(ChecksumType::FullObject);
        if is_whole && head.checksum_crc32.is_some() && head.checksum_crc32 != crc32 {
            return other(format!("the object has the CRC-32 {:?} instead of {crc32:?}", head.checksum_crc32));
        }
        Ok(head.e_tag.or(etag))
    }

    /// Sends one part of the attempt's multipart upload.
    pub(crate) async fn send(&self, number: i32, body: PartBody, crc32: u32) -> Result<CompletedPart, UploadError> {
        let upload_id = self.id.as_deref().ok_or(UploadError::Lost)?;
        let number = u32::try_from(number).map_err(|_| UploadError::Lost)?;
        let format = self.format;
        Ok(upload_part(self.storage, &self.key, upload_id, number, body, crc32, format).await?.0)
    }

    /// Writes one object among several.
    pub(crate) async fn put_part(
        &self,
        number: i32,
        body: PartBody,
        crc32: u32,
    ) -> Result<Option<String>, UploadError> {
        let name = self.format.part_name(number, self.claim.request.compression);
        Ok(self.put(&format!("{}{name}", self.owned), body, crc32).await?)
    }

    async fn put(&self, key: &str, body: PartBody, crc32: u32) -> Result<Option<String>, StorageError> {
        let headers = self.headers(key);
        let put = self
            .storage
            .client
            .put_object()
            .bucket(&self.storage.bucket)
            .key(key)
            .content_type(headers.content_type)
            .content_disposition(headers.content_disposition)
            .set_content_encoding(headers.content_encoding.map(str::to_owned))
            .checksum_crc32(checksum(crc32))
            .body(body.stream().await?)
            .customize()
            .interceptor(CountRetries::default())
            .config_override(timeouts(body.patience()));
        let stored = storing(self.format, put.send()).await;
        Ok(stored.map_err(|error| StorageError::new("PutObject", error))?.e_tag)
    }

    async fn complete(&self, parts: Vec<CompletedPart>, crc32: Option<String>) -> Result<Option<String>, StorageError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let complete = self
            .storage
            .client
            .complete_multipart_upload()
            .bucket(&self.storage.bucket)
            .key(&self.key)
            .set_upload_id(self.id.clone())
            .multipart_upload(parts)
            .set_checksum_type(crc32.is_some().then_some(ChecksumType::FullObject))
            .set_checksum_crc32(crc32)
            .customize()
            .config_override(timeouts(COMPLETE_TIMEOUT));
        Ok(complete.send().await.map_err(|error| StorageError::new("CompleteMultipartUpload", error))?.e_tag)
    }

    /// Removes whatever this attempt put into the store. What cannot be removed now stays in the ledger for the
    /// sweeper.
    pub(crate) async fn discard(self) {
        if !self.begun {
            return;
        }
        let sent = self.sent;
        let leftover = Leftover {
            export_id: self.claim.export_id,
            attempt: self.claim.attempt,
            object: OrphanedObject { object_key: self.owned, upload_id: self.id, upload_key: self.key, owned: false },
            looks: 0,
        };
        let removal = async {
            // The sweeper looks again: what was on the wire when the attempt was stopped may still arrive, and a session
            // on the source may not have noticed.
            let noted = self.ledger.abandon_upload(&leftover).await;
            if sent {
                self.storage.remove_orphaned(&leftover.object).await.map_err(|error| chain(&error))?;
            }
            noted.map_err(|error| chain(&error))
        };
        let problem = match tokio::time::timeout(DISCARD_TIMEOUT, removal).await {
            Ok(Ok(())) => return,
            Ok(Err(problem)) => problem,
            Err(_) => "it took too long".to_owned(),
        };
        tracing::warn!(problem, "the attempt's upload could not be removed, the sweeper will");
    }
}

/// What the store said of a part, and the bytes it took.
type SentPart = Result<(CompletedPart, i64), StorageError>;

fn joined(
    done: Option<Result<SentPart, tokio::task::JoinError>>,
    uploaded: &AtomicI64,
) -> Result<CompletedPart, UploadError> {
    let (part, bytes) = match done {
        Some(Ok(result)) => result?,
        Some(Err(error)) => {
            return Err(UploadError::Failed(internal(&error)));
        }
        None => return Err(UploadError::CutOff),
    };
    uploaded.fetch_add(bytes, Ordering::Relaxed);
    Ok(part)
}

async fn upload_part(
    storage: &Storage,
    key: &str,
    upload_id: &str,
    number: u32,
    body: PartBody,
    crc32: u32,
    format: Format,
) -> SentPart {
    // At most 10,000, so it fits.
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let crc32 = checksum(crc32);
    let part = storage
        .client
        .upload_part()
        .bucket(&storage.bucket)
        .key(key)
        .upload_id(upload_id)
        .part_number(number)
        .checksum_crc32(&crc32)
        // The bytes, and with them their share of the budget, live until the answer.
        .body(body.stream().await?)
        .customize()
        // The checksum says whether all of it arrived; SHA-256 on top of it cost as much as the encoder.
        .disable_payload_signing()
        .interceptor(CountRetries::default())
        .config_override(timeouts(body.patience()));
    let answer = storing(format, part.send()).await.map_err(|error| StorageError::new("UploadPart", error))?;
    Ok((completed_part(number, answer.e_tag, crc32), body.len()))
}

/// A request that stores a part or an object, counted.
async fn storing<T, E>(format: Format, request: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let began = Instant::now();
    let answer = request.await;
    metrics::time(Stage::Upload, format, began.elapsed());
    if answer.is_ok() {
        metrics::part_stored();
    }
    answer
}

/// For a call that may take so long each time it is tried.
fn timeouts(attempt: Duration) -> aws_sdk_s3::config::Builder {
    aws_sdk_s3::config::Builder::new()
        .timeout_config(TimeoutConfig::builder().operation_attempt_timeout(attempt).build())
}

fn completed_part(number: i32, etag: Option<String>, crc32: String) -> CompletedPart {
    CompletedPart::builder().part_number(number).set_e_tag(etag).checksum_crc32(crc32).build()
}

/// A part that another claim has sent.
pub(crate) fn sent_part(number: i32, etag: Option<String>, crc32: u32) -> CompletedPart {
    completed_part(number, etag, checksum(crc32))
}
