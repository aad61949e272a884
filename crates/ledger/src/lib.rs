//! The ledger: the PostgreSQL tables that hold the state of every export, and the queue that wakes workers. `client` has the
//! calls for clients, `identity` those for who they are, `tenant_limits` those for what a tenant may have, `work` those for workers, `maintenance` the periodic ones of every
//! process.
//!
//! Three columns of the tables have older names than the code: `uncut` is the reason for a single stream, `coarser` the step of
//! the shard size, and `token_due_at` the time after which a lost message is sent again.

mod audit;
mod broker_address;
mod client;
mod config;
mod database;
mod identity;
mod maintenance;
mod migration;
mod notifications;
mod outbox;
mod pending_notifications;
pub mod queue;
mod schema_state;
mod tenant_limits;
mod work;

pub use audit::{AuditAction, AuditEntry, AuditEvent, AuditOrigin};
pub use broker_address::BrokerAddress;
pub use client::{
    Accepted, BenchmarkLock, Deletion, Export, ListFilter, Reservation, ReservedKey, Submission, TenantView,
    WaitReason, Waiting,
};
pub use config::{Connections, audit_ttl, ledger_ttl, register_reload_counter};
pub use database::{Ledger, LedgerError, retry_while_unavailable, with_timeout};
pub use identity::{ApiKey, NewApiKey, Rotated, SecretHash, StoredApiKey};
pub use maintenance::{BacklogStats, FinishedCounts, Sweeper, Swept, TenantBacklog};
pub use migration::MigrationMode;
pub use notifications::{Change, Listener, send_notifications};
pub use outbox::OutboxMessage;
pub use schema_state::SchemaState;
pub use tenant_limits::{RequestBlock, StreamSlot, TenantUsage};
pub use work::{
    Attempt, Claim, Claimed, Committed, Finished, JobKind, OrphanedUpload, PlaceRequest, Planned, Renewal, RetryPolicy,
    ShardWork, ShardedAttempt, SnapshotHolder, StoredShard, Terms, Turn, deadline_failure, snapshot_age_failure,
};
