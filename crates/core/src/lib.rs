//! The vocabulary of an export: request, dataset columns, status, failure, manifest. Plain data and its rules; nothing here
//! reads, writes or waits.

pub mod column;
pub mod compression;
pub mod expected_size;
pub mod failure;
pub mod format;
pub mod format_options;
pub mod grant;
pub mod manifest;
pub mod mask;
pub mod order;
pub mod relation;
pub mod request;
pub mod scope;
pub mod selection;
pub mod single_stream_reason;
pub mod status;
pub mod tenant;
pub mod tenant_limits;
