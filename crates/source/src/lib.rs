//! PostgreSQL as the source of rows: its catalog, sessions with fixed settings, and SQL text from requests. The worker
//! reads the rows.

pub mod catalog;
mod config;
pub mod session;
pub mod sql;

pub use config::{database_url, source_database_url};
