//! The count of bodies that are sent again. The SDK retries by itself and reports nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use polyglot_runtime::telemetry::PART_RETRIES;

/// Counts the attempts of one call after its first.
#[derive(Debug, Default)]
pub(super) struct CountRetries {
    was_sent: AtomicBool,
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
        if self.was_sent.swap(true, Ordering::Relaxed) {
            metrics::counter!(PART_RETRIES).increment(1);
        }
        Ok(())
    }
}
