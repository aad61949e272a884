//! The HTTP side of the service: describes datasets (`datasets`), takes exports in (`exports`), delivers finished files
//! (`download`), streams changes (`events`), knows its clients (`identity`, `session`) and what they may have (`tenant_limits`), describes itself (`openapi`), shows a web page (`page`), and reports its health
//! (`health`, `metrics`). It writes to the ledger and wakes the relay. It reads no rows and writes no files: workers do.
//!
//! Modules depend on each other in one direction: `router` on the handlers, handlers on `state`, `state` on the clients and
//! caches that it holds.

mod audit;
mod authentication;
mod check;
mod client_address;
mod client_limits;
mod command_line;
mod config;
mod cors;
mod cross_site;
mod dataset_config;
mod dataset_policy;
mod datasets;
mod download;
mod events;
mod exports;
#[doc(hidden)]
pub mod fuzz_targets;
mod health;
mod hosts;
mod identity;
mod keys;
mod ledger_stats;
mod limited_use;
mod limits;
mod metrics;
mod openapi;
mod page;
mod problem;
mod query;
mod readiness;
mod refusal_budget;
mod request_layer;
mod resolved_dataset;
mod router;
mod run;
mod security_headers;
mod session;
mod source;
mod source_monitor;
mod source_statements;
mod state;
mod static_file;
mod tenant_limits;
mod timeout;
mod timestamp;

pub use check::check;
pub use command_line::{Arguments, Command};
pub use config::{AccessConfig, Config, Delivery, DownloadConfig, health_address};
pub use identity::AuthMode;
pub use keys::{KeysCommand, KeysError, Printed, run as run_keys};
pub use run::{RunError, run};
