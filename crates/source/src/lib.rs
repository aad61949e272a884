//! PostgreSQL as the source of rows: its catalog, sessions with fixed settings, and SQL text from requests. Reading rows is
//! the worker's.

pub mod catalog;
mod config;
pub mod session;
pub mod sql;

pub use config::{database_url, source_database_url};
