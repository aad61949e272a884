//! Tests of the whole system: the real binaries over real PostgreSQL, RabbitMQ and S3. `make test` starts the servers. Each
//! test has a database, a bucket and a queue of its own, so tests run in parallel.

mod access;
mod api_memory;
mod bodies;
mod bounded;
mod datasets;
mod description;
mod document_commands;
mod events;
mod formats;
mod grants;
mod hostile_owners;
mod identity;
mod ledger;
mod ledger_shards;
mod lifecycle;
mod memory;
mod messages;
mod outages;
mod page;
mod preview;
mod python;
mod readers;
mod requests;
mod retention;
mod schedules;
mod security_headers;
mod shapes;
mod shards;
mod source_failures;
mod submissions;
mod telemetry;
mod tls;
mod transport;
mod turns;
mod values;
