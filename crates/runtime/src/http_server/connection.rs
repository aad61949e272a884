//! The life of one connection: its requests, its time limits, and how it is closed.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use polyglot_core::failure::chain;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::activity::{ConnectionActivity, Expired};
use super::client_stream::ClientStream;
use super::limits::{RefusedBy, Shared, count_refused};
use super::refusal::Refusal;
use super::service::{HttpService, LimitedService};
use super::transport::{HandshakeError, Transport};
use crate::quota::Peer;

/// Largest head of a request, and most bytes that a connection buffers in either direction.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Time for which a connection is read, after its last answer, from a client that is still sending. Bytes that arrive at a
/// closed socket make the client's system throw away an answer that it has not read yet.
const LINGER: Duration = Duration::from_secs(1);

/// Time in which a client that is refused is expected to have sent its request. Some clients take an answer before their
/// request for an error of the protocol.
const REQUEST_WAIT: Duration = Duration::from_secs(1);

/// What a connection needs, apart from the service.
pub(super) struct Client {
    pub(super) socket: TcpStream,
    /// With TLS, unless the listener is without.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) peer: Peer,
    pub(super) shared: Arc<Shared>,
    pub(super) stopping: CancellationToken,
    pub(super) force_close: CancellationToken,
}

impl Client {
    /// Answers requests until the client leaves, a time limit has passed or the process stops.
    pub(super) async fn serve(self, service: impl HttpService) {
        let Self { socket, tls, peer, shared, stopping, force_close } = self;
        // Answers are written whole, so merging small packets only delays them. A socket that refuses the option is just slower.
        let _ = socket.set_nodelay(true);
        let activity = Arc::new(ConnectionActivity::new(shared.limits.timeouts()));
        let stream = ClientStream::new(socket, Arc::clone(&activity));
        let transport = match tls {
            None => Transport::Plain(stream),
            Some(config) => {
                let accepted = tokio::select! {
                    accepted = Transport::accept(stream, config, shared.limits.handshake_timeout) => accepted,
                    // There is no request to answer yet.
                    () = stopping.cancelled() => return,
                };
                match accepted {
                    Ok(transport) => transport,
                    Err(error) => return report_handshake(&error),
                }
            }
        };
        // The client has its time for the first head after the handshake.
        activity.head_begins();
        let service = LimitedService { service, peer, shared, activity: Arc::clone(&activity) };
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // The activity has a limit for the head, which an idle connection does not count against.
            .header_read_timeout(None)
            .max_buf_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(transport), service);
        let mut is_stopping = false;
        let ended = {
            let mut timer = pin!(sleep_until(Instant::now()));
            let mut stopping = pin!(stopping.cancelled());
            let ended = poll_fn(|cx| {
                if !is_stopping && stopping.as_mut().poll(cx).is_ready() {
                    is_stopping = true;
                    Pin::new(&mut connection).graceful_shutdown();
                }
                if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
                    return Poll::Ready(Ok(ended));
                }
                let Some((deadline, expired)) = activity.deadline() else { return Poll::Pending };
                if timer.deadline() != deadline {
                    timer.as_mut().reset(deadline);
                }
                timer.as_mut().poll(cx).map(|()| Err(expired))
            });
            tokio::select! {
                ended = ended => ended,
                () = force_close.cancelled() => return,
            }
        };
        let transport = connection.into_parts().io.into_inner();
        let close = close(transport, ended, &activity, is_stopping);
        tokio::select! {
            () = close => {}
            () = force_close.cancelled() => {}
        }
    }
}

/// Closes a connection so that its client gets the last answer, unless it does not read.
async fn close(
    mut transport: Transport,
    ended: Result<hyper::Result<()>, Expired>,
    activity: &ConnectionActivity,
    is_stopping: bool,
) {
    match ended {
        Ok(Ok(())) | Err(Expired::Idle) => {}
        Ok(Err(error)) => {
            // The client has disconnected, or has sent something that is not HTTP, which hyper has answered.
            tracing::debug!(error = chain(&error), "connection ended");
            if error.is_parse_too_large() {
                count_refused(RefusedBy::HeadSize);
            }
        }
        Err(Expired::Head) => {
            count_refused(RefusedBy::HeadTimeout);
            // Nothing else is being sent, so the socket takes so few bytes at once. A client that has left takes none.
            let _ = timeout(LINGER, transport.write_all(&Refusal::HeadTooSlow.bytes())).await;
        }
        Err(Expired::Write) => {
            count_refused(RefusedBy::UnreadAnswer);
            tracing::debug!("a connection is closed because its client does not read");
            // Otherwise the kernel would hold the bytes for minutes.
            let _ = transport.socket().set_zero_linger();
            return;
        }
    }
    if !activity.has_ended() && !is_stopping {
        linger(&mut transport).await;
    }
}

fn report_handshake(error: &HandshakeError) {
    count_refused(RefusedBy::TlsHandshake);
    // Anybody can cause it, by a request without TLS for instance.
    tracing::debug!(error = chain(error), "a connection is closed without TLS");
}

/// Tells the client that nothing more comes, and reads what it is sending, for a moment.
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let mut discarded = [0; 4096];
    let drained = async {
        stream.shutdown().await?;
        while stream.read(&mut discarded).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    // A client that goes on sending or has disconnected has had its time to read the answer.
    let _ = timeout(LINGER, drained).await;
}

/// Answers a connection that is over a limit, without hyper and its buffers.
pub(super) async fn refuse(mut socket: TcpStream, refusal: Refusal) {
    let _ = timeout(REQUEST_WAIT, socket.readable()).await;
    if socket.write_all(&refusal.bytes()).await.is_ok() {
        linger(&mut socket).await;
    }
}
