//! Accepting HTTP connections within limits, so that no client can use up the memory of the process, whatever it sends, keeps
//! open or leaves unread; and closing them: idle ones at once when the process is stopping, busy ones after their answer, and
//! all of them when the drain has lasted long enough.

mod activity;
mod client_stream;
mod connection;
mod limits;
mod refusal;
mod response_body;
mod service;
mod transport;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use polyglot_core::failure::chain;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::connection::{Client, refuse};
pub use self::limits::HttpLimits;
use self::limits::{RefusedBy, Shared, count_refused, register_counters};
use self::refusal::Refusal;
pub use self::service::HttpService;
use crate::lifecycle::Lifecycle;
use crate::open_files::allow_open_files;
use crate::quota::{Peer, QuotaExceeded, QuotaPermit};
use crate::telemetry::HTTP_CONNECTIONS;
use crate::tls::TlsCertificate;

/// Pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that the system accepts before the process does.
const BACKLOG: u32 = 4096;

/// Buffers of each socket in the kernel. Its own choice grows to megabytes for a client that does not read, and a thousand
/// of those are more memory than the process has. The kernel doubles the number and uses half of it for its own data.
const SOCKET_BUFFER: u32 = 16 << 10;

/// Files of the process that are not connections of clients: refused ones, those to other servers, and what it reads.
const OTHER_FILES: u64 = 1024;

/// An HTTP/1.1 server with limits.
pub struct HttpServer {
    shared: Arc<Shared>,
    tls: Option<Arc<TlsCertificate>>,
}

impl Default for HttpServer {
    fn default() -> Self {
        Self::new(HttpLimits::default())
    }
}

impl HttpServer {
    #[must_use]
    pub fn new(limits: HttpLimits) -> Self {
        Self { shared: Arc::new(Shared::new(limits)), tls: None }
    }

    /// The same with TLS alone, if there is a certificate.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<TlsCertificate>>) -> Self {
        Self { tls, ..self }
    }

    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A process that is started again can have the port while connections of the one before are being closed.
        socket.set_reuseaddr(true)?;
        // Sockets that are accepted have the options of the one that listens.
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    }

    /// Serves `service` until `lifecycle.stopping`, then drains for at most `drain`.
    pub async fn serve(self, listener: TcpListener, service: impl HttpService, lifecycle: &Lifecycle, drain: Duration) {
        let Self { shared, tls } = self;
        allow_open_files(
            u64::try_from(shared.limits.connections.total).unwrap_or(u64::MAX).saturating_add(OTHER_FILES),
        );
        register_counters();
        let tasks = TaskTracker::new();
        let force_close = CancellationToken::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = lifecycle.stopping.cancelled() => break,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let peer = Peer::of(address.ip());
            match shared.connections.try_acquire(peer, 1) {
                Ok(permit) => {
                    let open = OpenConnection::new(permit);
                    let (stopping, force_close) = (lifecycle.stopping.clone(), force_close.clone());
                    let tls = tls.as_ref().map(|certificate| certificate.config());
                    let client = Client { socket, tls, peer, shared: Arc::clone(&shared), stopping, force_close };
                    let service = service.clone();
                    tasks.spawn(async move {
                        client.serve(service).await;
                        drop(open);
                    });
                }
                // An answer would need a handshake, which is more work than the request.
                Err(_) if tls.is_some() => count_refused(RefusedBy::Connections),
                Err(exceeded) => refuse_connection(&shared, &tasks, socket, exceeded),
            }
        }
        // Closed before the drain, so that new clients are refused and go to another instance.
        drop(listener);
        tasks.close();
        tracing::info!(connections = tasks.len(), "draining");
        tokio::select! {
            drained = tokio::time::timeout(drain, tasks.wait()) => if drained.is_err() {
                tracing::warn!(connections = tasks.len(), "connections are closed by force: draining took too long");
            },
            () = lifecycle.aborting.cancelled() => {}
        }
        force_close.cancel();
    }
}

/// Answers a connection over the limit: after its request if there are few of them, else at once.
fn refuse_connection(shared: &Shared, tasks: &TaskTracker, socket: TcpStream, exceeded: QuotaExceeded) {
    count_refused(RefusedBy::Connections);
    let refusal = Refusal::Connections(exceeded);
    match Arc::clone(&shared.refusals).try_acquire_owned() {
        Ok(permit) => {
            tasks.spawn(async move {
                refuse(socket, refusal).await;
                drop(permit);
            });
        }
        Err(_) => {
            // An empty socket takes so few bytes; one that does not belongs to a client that has left.
            let _ = socket.try_write(&refusal.bytes());
        }
    }
}

/// An open connection in its quota and in the metric.
struct OpenConnection(#[expect(dead_code, reason = "given back when it is dropped")] QuotaPermit);

impl OpenConnection {
    fn new(permit: QuotaPermit) -> Self {
        metrics::gauge!(HTTP_CONNECTIONS).increment(1.0);
        Self(permit)
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        metrics::gauge!(HTTP_CONNECTIONS).decrement(1.0);
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tls_tests;
