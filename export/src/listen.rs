//! Accepting connections and letting go of them: each one ends by itself, after the answer it is in the middle
//! of once the process is stopping, or with a cut when the drain has lasted long enough.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::chain;
use crate::lifecycle::Lifecycle;

/// How long a client may take over a request's head; also how long an idle connection is kept.
const HEAD_PATIENCE: Duration = Duration::from_mins(1);

/// After a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves `router` until `lifecycle.stopping`, then drains for at most `drain`.
pub async fn serve(listener: TcpListener, router: Router, lifecycle: &Lifecycle, drain: Duration) {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = lifecycle.stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, router.clone(), lifecycle.stopping.clone(), cut.clone()));
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closed before the drain, so that new clients are refused and go to another instance.
    drop(listener);
    connections.close();
    tracing::info!(connections = connections.len(), "draining");
    tokio::select! {
        drained = tokio::time::timeout(drain, connections.wait()) => if drained.is_err() {
            tracing::warn!(connections = connections.len(), "connections are cut: they took too long");
        },
        () = lifecycle.aborting.cancelled() => {}
    }
    cut.cancel();
}

async fn connection(stream: TcpStream, router: Router, stopping: CancellationToken, cut: CancellationToken) {
    // Answers are written whole; waiting to merge small ones only delays them. A socket that refuses is slower.
    let _ = stream.set_nodelay(true);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_PATIENCE)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        // The client went away or was too slow; nobody is left to tell.
        tracing::debug!(error = chain(&error), "connection ended");
    }
}
