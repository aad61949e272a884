//! The error of a field whose bytes make no sense for its type.

/// Why a field cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("has {0} bytes where its type has another length")]
    Length(usize),
    #[error("is not valid UTF-8")]
    Utf8,
    #[error("has a jsonb version that is not known")]
    JsonbVersion,
    #[error("is not a well-formed numeric")]
    Numeric,
    #[error("is out of its type's range")]
    Range,
    #[error("is not JSON")]
    Json,
    #[error("is not a well-formed array")]
    Array,
}
