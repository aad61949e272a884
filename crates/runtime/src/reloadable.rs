//! A setting that may be replaced while the process runs, such as a password that comes from a file.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

/// A value that all clones share, and that may be replaced. It is not shown, because it may be a secret.
pub struct Reloadable<T>(Arc<RwLock<Arc<T>>>);

impl<T> Reloadable<T> {
    /// The present value.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        // Nothing panics while it is locked.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn replace(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

impl<T> From<T> for Reloadable<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(value))))
    }
}

impl<T> Clone for Reloadable<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Reloadable<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Reloadable(…)")
    }
}
