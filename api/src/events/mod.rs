//! Event streams: `handlers` takes the requests, `stream` writes the events of one client, and `feed` reads what is new in
//! the ledger, once for all clients of this process. `cursor` is how far it has come, and `update` what it broadcasts.
//! `end_waits` are the requests that wait for an export to end, which the feed wakes.

mod cursor;
mod end_waits;
pub(crate) mod feed;
pub(crate) mod handlers;
mod stream;
mod update;
