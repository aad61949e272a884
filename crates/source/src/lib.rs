//! PostgreSQL as the source of rows: its catalog, sessions with fixed settings, the limit on connections to it, and SQL text from
//! requests. The worker reads the rows.

mod activity;
pub mod catalog;
mod config;
mod connection;
mod connection_limit;
mod database_url;
mod foreign_code;
mod inheritance;
pub mod mask;
mod reading_role;
mod role_check;
mod role_rights;
#[cfg(test)]
mod role_rights_tests;
pub mod session;
mod session_settings;
mod shared_sessions;
pub mod sql;
pub mod sql_state;

pub use activity::{SessionActivity, session_activity};
pub use config::{allows_privileged_role, database_url, source_database_url};
pub use connection::SourceConnection;
pub use connection_limit::{ConnectionLimit, ConnectionPermit, SnapshotPermit};
pub use database_url::{DatabasePlace, DatabaseUrl};
pub use foreign_code::foreign_code_query;
pub use inheritance::related_relations;
pub use reading_role::{reading_role_problem, set_local_role};
pub use role_check::RoleCheck;
pub use role_rights::{ExcessRight, RoleRights, role_rights};
pub use session_settings::{FIX_SEARCH_PATH, tainted_session};
pub use shared_sessions::{SharedSessions, find_shared_sessions};
