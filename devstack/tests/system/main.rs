//! The whole system, as a user meets it: the real binaries over real PostgreSQL, RabbitMQ and S3. `make test` starts
//! the servers; each test has a database, a bucket and a queue of its own, so they run side by side.

mod datasets;
mod description;
mod events;
mod formats;
mod harness;
mod ledger;
mod ledger_shards;
mod lifecycle;
mod memory;
mod messages;
mod outages;
mod page;
mod preview;
mod requests;
#[path = "../service/mod.rs"]
mod service;
mod shapes;
mod shards;
mod submissions;
mod telemetry;
mod values;
