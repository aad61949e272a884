//! State that all handlers share. The routes are in `router`; connections are made in `run`.

use std::sync::Arc;

use polyglot_ledger::Ledger;
use polyglot_ledger::queue::Relay;
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::telemetry::Recorder;
use polyglot_source::mask::MaskKey;
use polyglot_storage::Storage;

use crate::client_limits::ClientLimits;
use crate::config::{AccessConfig, DownloadConfig};
use crate::events::feed::Feed;
use crate::exports::body_budget::BodyBudget;
use crate::identity::Authenticator;
use crate::ledger_stats::LedgerStats;
use crate::readiness::ReadinessProbe;
use crate::refusal_budget::RefusalBudget;
use crate::security_headers::HasTls;
use crate::source::Source;
use crate::tenant_limits::TenantGate;

/// The clients, caches and settings of this process.
pub(crate) struct AppState {
    pub(crate) ledger: Ledger,
    /// Woken by each submission, so that its message is published at once.
    pub(crate) relay: Relay,
    pub(crate) storage: Storage,
    pub(crate) source: Source,
    /// Updates of exports for event streams.
    pub(crate) feed: Arc<Feed>,
    pub(crate) access: AccessConfig,
    pub(crate) authenticator: Authenticator,
    pub(crate) recorded_refusals: RefusalBudget,
    pub(crate) has_tls: HasTls,
    pub(crate) client_limits: ClientLimits,
    pub(crate) tenant_gate: TenantGate,
    pub(crate) download: DownloadConfig,
    /// Memory for request bodies.
    pub(crate) bodies: BodyBudget,
    /// The key of masks that hash; present where the policy of a dataset has one.
    pub(crate) mask_key: Option<MaskKey>,
    /// Largest `parallelism` that a submission may ask for.
    pub(crate) max_parallelism: u16,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) readiness: ReadinessProbe,
    pub(crate) ledger_stats: Arc<LedgerStats>,
    /// Metrics that this process has counted.
    pub(crate) recorder: Recorder,
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::dataset_config::Datasets;
    use polyglot_ledger::Connections;
    use polyglot_ledger::queue::Broker;
    use polyglot_runtime::config::Environment;
    use polyglot_source::{RoleCheck, session};

    use super::*;
    use crate::config::Config;
    use crate::source_monitor::SourceMonitor;

    /// The state of an api whose servers are all unreachable: nothing listens on port 1.
    pub(crate) async fn app_without_backends() -> AppState {
        app_with(&[]).await
    }

    /// The same with variables of its own.
    pub(crate) async fn app_with(variables: &[(&str, &str)]) -> AppState {
        let unreachable = [
            ("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none"),
            ("AMQP_URL", "amqp://127.0.0.1:1/%2f"),
            ("S3_ENDPOINT", "http://127.0.0.1:1"),
            ("AUTH", "off-on-any-address"),
        ];
        let env = Environment::fixed(&[&unreachable[..], variables].concat());
        let connections = Connections::from_environment(&env).unwrap();
        let broker = Broker::of(&connections, "test");
        let Connections { database_url, mut storage, .. } = connections;
        storage.static_credentials = Some(("id".to_owned(), "secret".to_owned()).into());
        let config = Config::from_environment(&env).unwrap();
        let ledger = Ledger::new(&database_url, 2, "test").unwrap();
        let storage = Storage::new(&storage).await;
        let lifecycle = Lifecycle::default();
        let limit = Source::limit();
        let role_check = RoleCheck::new(database_url.clone(), limit.clone(), true);
        AppState {
            readiness: ReadinessProbe::new(
                ledger.clone(),
                broker,
                storage.clone(),
                SourceMonitor::new(database_url.clone(), limit.clone(), role_check.clone()),
            ),
            recorded_refusals: RefusalBudget::default(),
            authenticator: Authenticator::new(config.access.auth, config.access.secure_cookies, ledger.clone(), None),
            ledger_stats: LedgerStats::new(ledger.clone(), lifecycle.tasks.clone()),
            ledger,
            relay: Relay::default(),
            storage,
            source: Source::new(
                Datasets::default(),
                session::pool(&database_url).unwrap(),
                database_url,
                limit,
                role_check,
            ),
            feed: Arc::default(),
            access: config.access,
            has_tls: HasTls(config.tls.is_some()),
            client_limits: ClientLimits::new(config.max_connections),
            tenant_gate: TenantGate::new(config.tenant_limits),
            download: config.download,
            bodies: BodyBudget::default(),
            mask_key: config.mask_key,
            max_parallelism: config.max_parallelism,
            lifecycle,
            recorder: Recorder::for_test().unwrap(),
        }
    }
}
