//! The tenants of exports. The ledger takes turns between them, and none joins an export of another.

/// Tenant of what clients submit, until there are accounts.
pub(super) const CLIENTS: &str = "default";

/// Tenant of the benchmark's exports. It is not the clients' tenant, so that no submission is coalesced with an export that is
/// about to be deleted.
pub(super) const BENCHMARK: &str = "polyglot benchmark";
