//! Making the object visible, and checking that the store has all of it.

use polyglot_core::failure::{Failure, FailureKind, chain};
use polyglot_core::manifest::Manifest;
use polyglot_storage::{ChecksumMode, ObjectBody};

use super::{Interruption, StagedObject, Upload, UploadError, outage};

impl Upload<'_> {
    /// Makes the object visible and checks that the store has all of it. Returns its `ETag`. Waits for a store that is away, until
    /// `interruption`; a call that was sent is never dropped.
    pub(crate) async fn publish(
        &mut self,
        staged: StagedObject,
        manifest: &Manifest,
        interruption: &Interruption<'_>,
    ) -> Result<Option<String>, UploadError> {
        let storage = self.target.storage;
        self.may_be_stored = true;
        let bytes = u64::try_from(manifest.bytes).ok();
        let crc32 = u32::from_str_radix(&manifest.crc32, 16).ok();
        let published = match staged {
            StagedObject::Several => return Ok(None),
            StagedObject::Single(part) => {
                let body = ObjectBody::from(part.bytes);
                self.put(&self.key, &body, part.crc32, Some(interruption)).await?
            }
            StagedObject::Multipart(parts) => {
                let upload = self.multipart()?;
                let complete = || storage.complete_upload(upload, &parts, crc32);
                outage::call(storage, Some(interruption), complete).await?
            }
        };
        let head = || storage.head(&self.key, ChecksumMode::Included);
        let head = outage::call(storage, Some(interruption), head).await?;
        let (etag, head) = match (published, head) {
            // A store that was restarted without its data right after it took the file.
            (Ok(_), Err(error)) if error.is_not_found() => {
                let message = "The object store did not keep the file.";
                let failure = Failure::caused(FailureKind::StorageUnavailable, message, &error);
                return Err(UploadError::UploadLost(failure));
            }
            (Ok(etag), head) => (etag, head?),
            // The answer was lost on its way, or the client repeated a Complete that had got through: the key is this
            // attempt's alone, so an object of the right size is the file.
            (Err(error), Ok(head)) if head.bytes == bytes => {
                tracing::warn!(error = chain(&error), "the store reported an error, but has the whole object");
                (None, head)
            }
            (Err(error), _) => return Err(error.into()),
        };
        let incomplete = |problem| {
            let message = "The object store did not keep all of the file.";
            Err(UploadError::Failed(Failure::new(FailureKind::StorageUnavailable, message, problem)))
        };
        if head.bytes != bytes {
            return incomplete(format!("the object has {:?} bytes instead of {bytes:?}", head.bytes));
        }
        if head.crc32.is_some() && head.crc32 != crc32 {
            return incomplete(format!("the object has the CRC-32 {:08x?} instead of {crc32:08x?}", head.crc32));
        }
        Ok(head.etag.or(etag))
    }
}
