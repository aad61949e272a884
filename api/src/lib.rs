//! The HTTP side: says what may be exported (`datasets`), takes exports in (`exports`), hands finished files out
//! (`download`), tells of what changes (`events`), describes itself (`openapi`), shows a page to people (`page`), says how it is
//! (`health`, `metrics`). It writes to the ledger and wakes the relay; rows are read and files are written by workers.

mod config;
mod dataset_config;
mod datasets;
mod described;
mod download;
mod events;
mod exports;
mod health;
mod metrics;
mod openapi;
mod page;
mod patience;
mod problem;
mod query;
mod request_id;
mod run;
mod server;
mod source;

pub use config::{Config, Delivery, DownloadConfig};
pub use run::{RunError, run};
