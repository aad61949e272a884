//! The parts that every process of the service needs: configuration, start and stop, HTTP server and its certificate, quotas of clients, retries and timeouts, logs,
//! metrics and traces. Nothing here knows the ledger, the source or the object store.

pub mod config;
pub mod health_request;
pub mod http_server;
pub mod lifecycle;
pub mod logging;
mod open_files;
pub mod pem_files;
pub mod plaintext_hosts;
pub mod quota;
pub mod reloadable;
pub mod retry;
pub mod telemetry;
pub mod timeout;
pub mod tls;
