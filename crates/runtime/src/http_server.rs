//! Accepting HTTP connections and closing them: idle ones at once when the process is stopping, busy ones after their answer, and
//! all of them when the drain has lasted long enough.

use std::pin::pin;
use std::time::Duration;

use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lifecycle::Lifecycle;
use polyglot_core::failure::chain;

/// Longest time for a client to send the head of a request; also the idle timeout of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Serves `service` until `lifecycle.stopping`, then drains for at most `drain`.
pub async fn serve<S, B>(listener: TcpListener, service: S, lifecycle: &Lifecycle, drain: Duration)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let connections = TaskTracker::new();
    let force_close = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = lifecycle.stopping.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, service.clone(), lifecycle.stopping.clone(), force_close.clone()));
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
            tracing::warn!(connections = connections.len(), "connections are closed by force: draining took too long");
        },
        () = lifecycle.aborting.cancelled() => {}
    }
    force_close.cancel();
}

async fn connection<S, B>(stream: TcpStream, service: S, stopping: CancellationToken, force_close: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    // Answers are written whole, so merging small packets only delays them. A socket that refuses the option is just slower.
    let _ = stream.set_nodelay(true);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = force_close.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        // The client disconnected or was too slow, so there is nobody to answer.
        tracing::debug!(error = chain(&error), "connection ended");
    }
}
