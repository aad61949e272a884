//! The error of a call to an object store.

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A failed call to the object store, and whether the same call may succeed later.
#[derive(Debug, thiserror::Error)]
#[error("the object store failed {operation}{}", code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default())]
pub struct StorageError {
    /// The S3 operation, `UploadPart`.
    pub operation: &'static str,
    /// The store's own error code, `NoSuchUpload`.
    pub code: Option<String>,
    pub transient: bool,
    /// Whether the store is away or turns everything down: nothing was learned about this call.
    outage: bool,
    /// The HTTP status of the store's answer, if there was one.
    status: Option<u16>,
    #[source]
    source: Cause,
}

impl StorageError {
    /// An error that the store answered with.
    pub(crate) fn answered(
        operation: &'static str,
        code: Option<String>,
        status: Option<u16>,
        transient: bool,
        source: impl Into<Cause>,
    ) -> Self {
        Self { operation, code, transient, outage: false, status, source: source.into() }
    }

    /// The same error, of a store that is away.
    pub(crate) fn of_outage(self) -> Self {
        Self { transient: true, outage: true, ..self }
    }

    /// A call that was refused before anything was sent; a repeat would be refused too.
    pub(crate) fn invalid(operation: &'static str, source: impl Into<Cause>) -> Self {
        Self::answered(operation, None, None, false, source)
    }

    /// A body that broke off: the request's before it was sent, or the answer's on its way.
    pub(crate) fn interrupted(operation: &'static str, source: impl Into<Cause>) -> Self {
        Self::answered(operation, None, None, true, source)
    }

    /// Whether the store could not be reached, did not answer, or answered that it serves nobody at the moment. The same call
    /// can be made again when it is back; nothing says that the call itself is at fault.
    pub fn is_outage(&self) -> bool {
        self.outage
    }

    /// Whether the store answered that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }

    /// Whether the store answered with this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.code.as_deref() == Some(code)
    }
}
