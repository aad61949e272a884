//! The size of an export as it is expected before any row is read.

/// Decides what an export waits for, until a worker has planned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExpectedSize {
    /// One stream that ends soon.
    Small,
    /// Not known, or between the others.
    #[default]
    Medium,
    /// The export will be sharded.
    Large,
}
