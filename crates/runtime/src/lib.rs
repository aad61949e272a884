//! What a process of the service runs on: configuration, start and stop, HTTP listener, logs, metrics and traces. Nothing
//! here knows the ledger, the source or the object store.

pub mod config;
pub mod http_server;
pub mod lifecycle;
pub mod logging;
pub mod telemetry;
