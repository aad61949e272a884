//! The memory that this process has for request bodies, and the share that one body takes of it: of one budget for its text
//! while it arrives, of another for what is parsed. A body that gets no share soon is refused, so that bodies, however many
//! are sent at once and however slowly, take no more than the budgets and a small amount for each connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::RouteError;

/// Memory for the text of bodies, in KiB.
const TEXT_KIB: usize = 16 * 1024;

/// Memory for parsed bodies, in KiB. The largest body needs 6.4 MiB, an ordinary one about 10 KiB.
const PARSED_KIB: usize = 32 * 1024;

/// Bytes of text that every body has without a share, so that an ordinary request is read while others send large bodies
/// slowly.
const FREE_TEXT_BYTES: usize = 8 * 1024;

/// Time that a body waits for its share.
const WAIT: Duration = Duration::from_secs(1);

/// The two budgets. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct BodyBudget {
    text: Arc<Semaphore>,
    parsed: Arc<Semaphore>,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self::new(TEXT_KIB, PARSED_KIB)
    }
}

/// What one body has of a budget. Dropping it gives it back.
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Semaphore>,
    /// Bytes that do not count.
    free_bytes: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl BodyBudget {
    fn new(text_kib: usize, parsed_kib: usize) -> Self {
        Self { text: Arc::new(Semaphore::new(text_kib)), parsed: Arc::new(Semaphore::new(parsed_kib)) }
    }

    /// The share of a body that begins to arrive; it is to grow with the text.
    pub(super) fn text(&self) -> Share {
        Share { budget: Arc::clone(&self.text), free_bytes: FREE_TEXT_BYTES, permit: None }
    }

    /// The share of a body that is parsed, of `bytes`.
    pub(super) async fn parsed(&self, bytes: usize) -> Result<Share, RouteError> {
        let mut share = Share { budget: Arc::clone(&self.parsed), free_bytes: 0, permit: None };
        share.grow_to(bytes).await?;
        Ok(share)
    }
}

impl Share {
    /// Takes as much as is missing to `bytes` in total.
    ///
    /// # Errors
    /// `TooManyBodies` when the budget is used up for longer than a moment.
    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<(), RouteError> {
        let has = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.saturating_sub(self.free_bytes).div_ceil(1024).saturating_sub(has);
        let Some(missing) = u32::try_from(missing).ok().filter(|missing| *missing > 0) else { return Ok(()) };
        let more = tokio::time::timeout(WAIT, Arc::clone(&self.budget).acquire_many_owned(missing))
            .await
            .map_err(|_| RouteError::TooManyBodies)?
            .expect("the semaphore is never closed");
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }

    /// Gives everything back.
    pub(super) fn release(&mut self) {
        self.permit = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::BODY_BYTES;
    use super::super::strict_json;
    use super::*;

    #[tokio::test]
    async fn a_body_that_gets_no_share_is_refused_after_a_moment() {
        let budget = BodyBudget::new(8, 8);
        let mut first = budget.text();
        first.grow_to(FREE_TEXT_BYTES + 4096).await.unwrap();
        first.grow_to(FREE_TEXT_BYTES + 5000).await.unwrap();
        let mut second = budget.text();
        // The first bytes are free.
        second.grow_to(FREE_TEXT_BYTES).await.unwrap();
        second.grow_to(FREE_TEXT_BYTES + 3 * 1024).await.unwrap();
        let refused = second.grow_to(FREE_TEXT_BYTES + 3 * 1024 + 1).await;
        assert!(matches!(refused, Err(RouteError::TooManyBodies)), "{refused:?}");
        first.release();
        second.grow_to(FREE_TEXT_BYTES + 8 * 1024).await.unwrap();
        drop(second);
        assert_eq!(budget.text.available_permits(), 8);
        // What is parsed has a budget of its own, so that bodies that arrive cannot keep one that is there from its end.
        let parsed = budget.parsed(8192).await.unwrap();
        assert!(matches!(budget.parsed(1).await, Err(RouteError::TooManyBodies)));
        drop(parsed);
        budget.parsed(1).await.unwrap();
    }

    #[test]
    fn the_largest_body_fits_several_times() {
        let largest = strict_json::memory_bound(&b",".repeat(BODY_BYTES));
        assert!(4 * largest <= PARSED_KIB * 1024, "{largest}");
    }
}
