//! The life of the process: connections and background tasks, in which order they start, and how long each part may take
//! to stop.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use polyglot_core::failure::chain;
use polyglot_ledger::Sweeper;
use polyglot_ledger::queue::{Broker, Relay, run_relay};
use polyglot_ledger::{Ledger, LedgerError, register_reload_counter, send_notifications, with_timeout};
use polyglot_runtime::http_server::HttpServer;
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::telemetry::{InstallError, Recorder};
use polyglot_source::{RoleCheck, SharedSessions, find_shared_sessions, session};
use polyglot_storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::client_limits::{self, ClientLimits};
use crate::config::{AccessConfig, Config};
use crate::events::feed::Feed;
use crate::exports::body_budget::BodyBudget;
use crate::identity::{AuthMode, Authenticator, Verifier};
use crate::ledger_stats::LedgerStats;
use crate::readiness::ReadinessProbe;
use crate::refusal_budget::RefusalBudget;
use crate::router::{MetricsRoute, metrics_router, router};
use crate::security_headers::HasTls;
use crate::source::Source;
use crate::source_monitor::SourceMonitor;
use crate::state::AppState;
use crate::tenant_limits::{self, TenantGate};

/// Time that the ledger's database may take to become available at start.
const LEDGER_START_TIMEOUT: Duration = Duration::from_mins(1);

/// Size of the ledger's connection pool. The relay holds one connection while it publishes, the sweeper another, and the
/// event feed one as long as it listens.
const LEDGER_CONNECTIONS: u32 = 12;

/// Time that responses may go on after the signal to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that background tasks may take to end after that.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(5);

/// The reason why the api cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("a database URL cannot be used")]
    Database(#[from] sqlx::Error),
    #[error("the ledger cannot be opened or migrated")]
    Ledger(#[from] LedgerError),
    #[error("{variable}: {address} cannot be listened on")]
    Listen { variable: &'static str, address: SocketAddr, source: std::io::Error },
    #[error("JWT_JWKS_URL: the system's certificates, by which the issuer is verified, cannot be read")]
    Jwt(#[source] std::io::Error),
    #[error(transparent)]
    SharedSessions(#[from] SharedSessions),
    #[error("the metrics recorder cannot be installed")]
    Metrics(#[from] InstallError),
}

/// Serves until `lifecycle.stopping`, then ends within half a minute, or at once on `lifecycle.aborting`.
///
/// # Errors
/// When the ledger or the port is not available. The broker and the object store may become available later.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), RunError> {
    let connections = &config.connections;
    let recorder = Recorder::install()?;
    register_reload_counter();
    let ledger = Ledger::new(&connections.database_url, LEDGER_CONNECTIONS, "polyglot-api")?;
    tokio::select! {
        migrated = ledger.prepare(connections.migration_mode, LEDGER_START_TIMEOUT) => migrated?,
        () = lifecycle.stopping.cancelled() => return Ok(()),
    }
    let source_limit = Source::limit();
    find_shared_sessions(&source_limit, &connections.source_database_url).await?;
    tenant_limits::store_running(&config.tenant_limits, &ledger).await?;
    warn_about_access(&config.access, &ledger).await?;
    let tokens = config.access.jwt.clone().map(Verifier::new).transpose().map_err(RunError::Jwt)?;
    let broker = Broker::of(connections, format!("polyglot-api {}", std::process::id()));
    let storage = Storage::new(&connections.storage).await;
    let listener = listen(config.listen, config.port, "PORT")?;
    let metrics_listener = match config.metrics_port {
        Some(port) => Some(listen(config.listen, port, "API_METRICS_PORT")?),
        None => None,
    };

    lifecycle.tasks.spawn(create_bucket(storage.clone(), lifecycle.stopping.clone()));
    let relay = Relay::default();
    // Background tasks stop after the listener: the message of an export that is accepted during the drain is still sent.
    let background_stop = CancellationToken::new();
    lifecycle.tasks.spawn(run_relay(ledger.clone(), broker.clone(), relay.clone(), background_stop.clone()));
    let sweeper = Sweeper {
        ledger: ledger.clone(),
        storage: storage.clone(),
        source_database_url: connections.source_database_url.clone(),
        source_connections: source_limit.clone(),
        relay: relay.clone(),
        ledger_ttl: config.ledger_ttl,
        audit_ttl: config.audit_ttl,
    };
    lifecycle.tasks.spawn(sweeper.run(background_stop.clone()));
    lifecycle.tasks.spawn(recorder.clone().run_upkeep(background_stop.clone()));

    let role_check = RoleCheck::new(
        connections.source_database_url.clone(),
        source_limit.clone(),
        connections.source_allow_privileged,
    );
    // At once, so that the log says it where a process is started. The result counts for submissions.
    lifecycle.tasks.spawn({
        let role_check = role_check.clone();
        async move { drop(role_check.refusal().await) }
    });
    let source = Source::new(
        config.datasets,
        session::pool(&connections.source_database_url)?,
        connections.source_database_url.clone(),
        source_limit.clone(),
        role_check.clone(),
    );
    let source_monitor = SourceMonitor::new(connections.source_database_url.clone(), source_limit, role_check);
    let feed = Arc::new(Feed::default());
    lifecycle.tasks.spawn(send_notifications(ledger.clone(), background_stop.clone()));
    lifecycle.tasks.spawn(Arc::clone(&feed).run(ledger.clone(), lifecycle.stopping.clone()));
    let app = AppState {
        readiness: ReadinessProbe::new(ledger.clone(), broker, storage.clone(), source_monitor),
        recorded_refusals: RefusalBudget::default(),
        authenticator: Authenticator::new(config.access.auth, config.access.secure_cookies, ledger.clone(), tokens),
        ledger_stats: LedgerStats::new(ledger.clone(), lifecycle.tasks.clone()),
        ledger,
        relay,
        storage,
        source,
        feed,
        client_limits: ClientLimits::new(config.max_connections),
        access: config.access,
        has_tls: HasTls(config.tls.is_some()),
        tenant_gate: TenantGate::new(config.tenant_limits),
        download: config.download,
        bodies: BodyBudget::default(),
        mask_key: config.mask_key,
        max_parallelism: config.max_parallelism,
        lifecycle: lifecycle.clone(),
        recorder,
    };
    let app = Arc::new(app);
    let metrics_route = if metrics_listener.is_some() { MetricsRoute::Apart } else { MetricsRoute::Here };
    let service = TowerToHyperService::new(router(Arc::clone(&app), metrics_route));
    tracing::info!(
        address = %config.listen, port = config.port, tls = config.tls.is_some(), metrics_port = config.metrics_port,
        "listening"
    );
    let serve_metrics = async {
        if let Some(listener) = metrics_listener {
            let service = TowerToHyperService::new(metrics_router(app));
            HttpServer::default().serve(listener, service, &lifecycle, DRAIN_TIMEOUT).await;
        }
    };
    if let Some(tls) = &config.tls {
        lifecycle.tasks.spawn(Arc::clone(tls).reload_on_change(lifecycle.stopping.clone()));
    }
    let server = HttpServer::new(client_limits::http_limits(config.max_connections)).with_tls(config.tls.clone());
    tokio::join!(server.serve(listener, service, &lifecycle, DRAIN_TIMEOUT), serve_metrics);

    background_stop.cancel();
    lifecycle.tasks.close();
    tokio::select! {
        ended = tokio::time::timeout(CLEANUP_TIMEOUT, lifecycle.tasks.wait()) => if ended.is_err() {
            tracing::warn!("stopped before every background task has ended");
        },
        () = lifecycle.aborting.cancelled() => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Says in the log when everybody is let in, or nobody.
async fn warn_about_access(access: &AccessConfig, ledger: &Ledger) -> Result<(), LedgerError> {
    if access.auth != AuthMode::On {
        tracing::warn!("AUTH is off: everyone who can reach the listener may export, read and delete everything");
    } else if access.jwt.is_none() && !with_timeout(ledger.has_valid_api_key()).await? {
        tracing::warn!(
            "there is no valid API key, so every request is refused; make one with `polyglot-api keys create`"
        );
    }
    Ok(())
}

/// Opens a listener; `variable` has its port.
fn listen(address: IpAddr, port: u16, variable: &'static str) -> Result<TcpListener, RunError> {
    let address = SocketAddr::new(address, port);
    HttpServer::listen(address).map_err(|source| {
        // The port is not the reason where the machine does not have the address.
        let variable = if source.kind() == ErrorKind::AddrNotAvailable { "LISTEN" } else { variable };
        RunError::Listen { variable, address, source }
    })
}

/// Creates the bucket as soon as the object store is available. Nothing waits for it: readiness says whether it exists.
async fn create_bucket(storage: Storage, stopping: CancellationToken) {
    let mut pause = Duration::from_secs(1);
    loop {
        let created = tokio::select! {
            created = storage.ensure_bucket() => created,
            () = stopping.cancelled() => return,
        };
        match created {
            Ok(()) => return tracing::debug!(bucket = storage.bucket, "the bucket exists"),
            Err(error) if error.transient => {
                tracing::warn!(
                    error = chain(&error),
                    bucket = storage.bucket,
                    "the bucket cannot be created yet, trying again"
                );
            }
            Err(error) => {
                return tracing::error!(error = chain(&error), bucket = storage.bucket, "the bucket cannot be used");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(30)),
            () = stopping.cancelled() => return,
        }
    }
}
