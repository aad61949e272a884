//! Event streams: `handlers` takes the requests, `stream` writes the events of one client, and `feed` reads what is new in
//! the ledger, once for all clients of this process.

pub(crate) mod feed;
pub(crate) mod handlers;
mod stream;
