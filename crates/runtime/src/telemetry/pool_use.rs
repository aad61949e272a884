//! The connections of a pool.

/// The idle and used connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PoolUse {
    pub idle: usize,
    pub used: usize,
}
