//! Bodies and checksums in the form that S3 and the SDK want.

use std::os::fd::AsRawFd;

use aws_sdk_s3::primitives;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt, stream};

use crate::error::StorageError;
use crate::object_store::{ByteStream, ObjectBody, Result};

/// The body of a request. It borrows nothing, but `body` has to outlive the request: a file is opened by its number.
pub(super) async fn request_body(operation: &'static str, body: &ObjectBody) -> Result<primitives::ByteStream> {
    match body {
        // Shares the buffer.
        ObjectBody::Memory(bytes) => Ok(primitives::ByteStream::from(bytes.clone())),
        // The file has no name, but a process finds its own descriptors by number, and opens each anew.
        ObjectBody::File { file, .. } => {
            let path = format!("/proc/self/fd/{}", file.as_raw_fd());
            let opened = primitives::ByteStream::from_path(path).await;
            opened.map_err(|error| StorageError::interrupted(operation, error))
        }
    }
}

/// The body of an answer.
pub(super) fn answer_body(operation: &'static str, body: primitives::ByteStream) -> ByteStream {
    stream::unfold(body, move |mut body| async move {
        let bytes = body.next().await?;
        Some((bytes.map_err(|error| StorageError::interrupted(operation, error)), body))
    })
    .boxed()
}

/// A CRC-32 as S3 writes it.
pub(super) fn checksum_text(crc32: u32) -> String {
    STANDARD.encode(crc32.to_be_bytes())
}

/// The CRC-32 that a store answered with.
pub(super) fn read_checksum(operation: &'static str, text: &str) -> Result<u32> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let unreadable = || StorageError::interrupted(operation, format!("the CRC-32 {text:?} cannot be read"));
    Ok(u32::from_be_bytes(bytes.ok_or_else(unreadable)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_written_and_read() {
        assert_eq!(checksum_text(0xcbf4_3926), "y/Q5Jg==");
        assert_eq!(read_checksum("HeadObject", "y/Q5Jg==").unwrap(), 0xcbf4_3926);
        for text in ["", "y/Q5Jg", "y/Q5", "y/Q5JgAAAAA="] {
            assert!(read_checksum("HeadObject", text).unwrap_err().transient, "{text:?}");
        }
    }
}
