//! The last stage: parts into one object. A file of one part is one `PutObject`; a longer one is a multipart
//! upload with a bounded number of parts in flight. Nothing is visible before [`Upload::publish`], and
//! [`Upload::discard`] leaves nothing behind.

mod discard;
mod error;
mod outage;
mod publish;
mod send;

pub(crate) use error::UploadError;
pub(crate) use outage::Interruption;

use std::time::Duration;

use polyglot_core::request::{Layout, ObjectHeaders};
use polyglot_formats::Format;
use polyglot_ledger::{Claim, Ledger, ShardedAttempt, retry_while_unavailable};
use polyglot_storage::{CompletedPart, MultipartUpload, Storage};

use crate::part::Part;

/// Where the bytes of an attempt are before they become visible.
#[derive(Debug)]
pub(crate) enum StagedObject {
    /// In memory: the only part, to be put.
    Single(Part),
    /// In the store, as parts of a multipart upload.
    Multipart(Vec<CompletedPart>),
    /// In the store, as objects of their own.
    Several,
}

/// The servers that an upload talks to.
#[derive(Clone, Copy)]
pub(crate) struct Target<'a> {
    pub storage: &'a Storage,
    pub ledger: &'a Ledger,
    /// Time for which calls to an unavailable ledger are repeated.
    pub ledger_timeout: Duration,
}

/// The object, or objects, of one attempt.
pub(crate) struct Upload<'a> {
    target: Target<'a>,
    claim: &'a Claim,
    format: Format,
    /// The object's key or, ending in a slash, the prefix of the keys of its objects.
    object_key: String,
    /// The key of the object that this attempt writes as one stream.
    key: String,
    /// Whether the ledger may have the attempt's object key.
    may_be_recorded: bool,
    /// Whether the store may have anything of the attempt.
    may_be_stored: bool,
    /// The multipart upload, once there is one.
    multipart: Option<MultipartUpload>,
}

impl<'a> Upload<'a> {
    pub(crate) fn new(target: Target<'a>, claim: &'a Claim, format: Format) -> Self {
        let file_name = format.file_name(claim.export_id);
        let object_key =
            target.storage.object_key(&claim.tenant, claim.export_id, claim.attempt, &claim.request, &file_name);
        Self::with_key(target, claim, format, object_key)
    }

    fn with_key(target: Target<'a>, claim: &'a Claim, format: Format, object_key: String) -> Self {
        let key = match claim.request.layout {
            Layout::File => object_key.clone(),
            Layout::Files => format!("{object_key}{}", format.part_name(1, claim.request.compression)),
        };
        let (may_be_recorded, may_be_stored) = (false, false);
        Self { target, claim, format, object_key, key, may_be_recorded, may_be_stored, multipart: None }
    }

    /// The upload that the attempt's start began, for the claim of a shard or of the finish.
    pub(crate) fn continue_attempt(
        target: Target<'a>,
        claim: &'a Claim,
        format: Format,
        sharded: &ShardedAttempt,
    ) -> Self {
        // As it was recorded: a worker of another version may have made it in another form.
        let upload = Self::with_key(target, claim, format, sharded.object_key.clone());
        let id = sharded.upload_id.clone();
        let multipart = id.map(|id| MultipartUpload { key: upload.key.clone(), id });
        Self { may_be_recorded: true, may_be_stored: true, multipart, ..upload }
    }

    /// What becomes the export's: the object's key, or the prefix of the keys of its objects.
    pub(crate) fn object_key(&self) -> &str {
        &self.object_key
    }

    /// Records the key in the ledger before the store gets a request, so that a crash leaves nothing unknown.
    pub(crate) async fn begin(&mut self) -> Result<(), UploadError> {
        // Once the call is made it may have got through, whatever comes back.
        self.may_be_recorded = true;
        let Target { ledger, ledger_timeout, .. } = self.target;
        retry_while_unavailable(ledger_timeout, || ledger.begin_upload(self.claim, &self.object_key)).await?;
        Ok(())
    }

    /// Creates the multipart upload and records it in the ledger.
    pub(crate) async fn create(&mut self) -> Result<(), UploadError> {
        let Target { storage, ledger, ledger_timeout } = self.target;
        self.may_be_stored = true;
        let headers = self.headers(&self.key);
        let upload = outage::call(storage, None, || storage.create_upload(&self.key, &headers)).await??;
        let upload = self.multipart.insert(upload);
        retry_while_unavailable(ledger_timeout, || ledger.record_upload(self.claim, &upload.key, &upload.id)).await?;
        Ok(())
    }

    fn multipart(&self) -> Result<&MultipartUpload, UploadError> {
        self.multipart.as_ref().ok_or(UploadError::LeaseLost)
    }

    fn headers(&self, key: &str) -> ObjectHeaders {
        let (Claim { export_id, request, .. }, format) = (self.claim, self.format);
        match request.layout {
            Layout::File => format.file_headers(*export_id, request.compression, request.options.encoding),
            Layout::Files => {
                let name = key.rsplit('/').next().unwrap_or(key);
                format.object_headers(request.compression, request.layout, name)
            }
        }
    }
}

/// The number of the part that a shard is sent as.
pub(crate) fn part_number(shard: i32) -> u32 {
    u32::try_from(shard).unwrap_or(u32::MAX)
}
