//! Counting what is sent again: the store's client does so by itself, and tells nobody.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

use crate::metrics;

/// Goes with one call, however often it is tried.
#[derive(Debug, Default)]
pub(super) struct CountRetries {
    sent: AtomicBool,
}

impl Intercept for CountRetries {
    fn name(&self) -> &'static str {
        "CountRetries"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if self.sent.swap(true, Ordering::Relaxed) {
            metrics::part_sent_again();
        }
        Ok(())
    }
}
