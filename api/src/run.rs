//! A process from its configuration to serving, and from a signal to its end: what is connected, in which
//! order, and how long each part may take to stop.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::service::TowerToHyperService;
use polyglot_core::failure::chain;
use polyglot_ledger::Sweeper;
use polyglot_ledger::queue::{Broker, Relay, run_relay};
use polyglot_ledger::{Ledger, LedgerError, tell_changes};
use polyglot_runtime::http_server;
use polyglot_runtime::lifecycle::Lifecycle;
use polyglot_runtime::telemetry::{InstallError, Recorder};
use polyglot_source::session;
use polyglot_storage::Storage;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::Metrics;
use crate::server::{self, App};
use crate::source::Source;

/// How long the database may take to come up beside us.
const LEDGER_PATIENCE: Duration = Duration::from_mins(1);

/// The relay holds one of them while it publishes, the sweeper another, and the feed of events one as long as it listens.
const LEDGER_CONNECTIONS: u32 = 12;

/// How long answers that are being sent may go on after the signal.
const DRAIN: Duration = Duration::from_secs(20);

/// How long the clean-up that follows may take.
const CLEAN_UP: Duration = Duration::from_secs(5);

/// Why the api cannot start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("a database URL cannot be used")]
    Database(#[from] sqlx::Error),
    #[error("the ledger cannot be made ready")]
    Ledger(#[from] LedgerError),
    #[error("PORT: {port} cannot be listened on")]
    Listen { port: u16, source: std::io::Error },
    #[error("metrics cannot be counted")]
    Metrics(#[from] InstallError),
}

/// Serves until `lifecycle.stopping`, then ends within half a minute, or at once on `lifecycle.aborting`.
///
/// # Errors
/// When the ledger or the port cannot be had. The broker and the object store may come up later.
pub async fn run(config: Config, lifecycle: Lifecycle) -> Result<(), RunError> {
    let connections = &config.connections;
    let recorder = Recorder::install()?;
    let ledger = Ledger::new(&connections.database_url, LEDGER_CONNECTIONS, "polyglot-api")?;
    tokio::select! {
        migrated = ledger.migrate_when_up(LEDGER_PATIENCE) => migrated?,
        () = lifecycle.stopping.cancelled() => return Ok(()),
    }
    let broker = Broker::of(connections, format!("polyglot-api {}", std::process::id()));
    let storage = Storage::new(&connections.storage).await;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, config.port))
        .await
        .map_err(|source| RunError::Listen { port: config.port, source })?;

    lifecycle.tasks.spawn(make_bucket(storage.clone(), lifecycle.stopping.clone()));
    // It outlives the listener: an export that is accepted while we drain is still announced.
    let relay = Relay::default();
    let relaying = CancellationToken::new();
    lifecycle.tasks.spawn(run_relay(ledger.clone(), broker.clone(), relay.clone(), relaying.clone()));
    let sweeper = Sweeper {
        ledger: ledger.clone(),
        storage: storage.clone(),
        source_database_url: connections.source_database_url.clone(),
        relay: relay.clone(),
    };
    lifecycle.tasks.spawn(sweeper.run(relaying.clone()));
    lifecycle.tasks.spawn(recorder.clone().keep_small(relaying.clone()));

    let source = Source::new(
        config.datasets,
        session::pool(&connections.source_database_url)?,
        connections.source_database_url.clone(),
    );
    let app = App {
        ledger,
        relay,
        broker,
        storage,
        source,
        feed: Arc::default(),
        download: config.download,
        max_parallelism: config.max_parallelism,
        lifecycle: lifecycle.clone(),
        readiness: tokio::sync::Mutex::default(),
        metrics: Metrics::new(recorder),
    };
    let app = Arc::new(app);
    lifecycle.tasks.spawn(tell_changes(app.ledger.clone(), relaying.clone()));
    let feed = Arc::clone(&app.feed);
    lifecycle.tasks.spawn(feed.run(app.ledger.clone(), lifecycle.stopping.clone()));
    tracing::info!(port = config.port, "listening");
    http_server::serve(listener, TowerToHyperService::new(server::router(app)), &lifecycle, DRAIN).await;

    relaying.cancel();
    lifecycle.tasks.close();
    tokio::select! {
        ended = tokio::time::timeout(CLEAN_UP, lifecycle.tasks.wait()) => if ended.is_err() {
            tracing::warn!("stopping without the end of every task");
        },
        () = lifecycle.aborting.cancelled() => {}
    }
    tracing::info!("stopped");
    Ok(())
}

/// Makes the bucket as soon as the store is there. Nothing waits for it: readiness says whether it exists.
async fn make_bucket(storage: Storage, stopping: CancellationToken) {
    let mut pause = Duration::from_secs(1);
    loop {
        let made = tokio::select! {
            made = storage.ensure_bucket() => made,
            () = stopping.cancelled() => return,
        };
        match made {
            Ok(()) => return tracing::debug!(bucket = storage.bucket, "the bucket is there"),
            Err(error) if error.transient => {
                tracing::warn!(error = chain(&error), bucket = storage.bucket, "no bucket yet, trying again");
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
