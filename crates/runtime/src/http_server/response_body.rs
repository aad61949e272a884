//! The body of an answer on its way to the client: in small pieces, and counted against the memory for answers that are not
//! sent yet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

use super::activity::ConnectionActivity;
use crate::quota::QuotaPermit;

/// Size of the pieces into which a large frame is divided. The connection takes another piece when it has sent the one before,
/// so this is what it holds of an answer that nobody reads.
const PIECE: usize = 16 << 10;

/// Bodies up to this size are not counted: so much is in the connection's own buffer as soon as the answer is made.
pub(super) const UNCOUNTED: u64 = PIECE as u64;

/// Reports the end of a request when it is dropped, which is when hyper has taken the last byte of the answer.
pub(super) struct RequestGuard(pub(super) Arc<ConnectionActivity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// The body of the service's answer, or of one that the server gives in its place.
pub(super) struct ResponseBody<B> {
    content: Content<B>,
    /// The part of a large frame that is not sent yet.
    rest: Bytes,
    _memory: Option<QuotaPermit>,
    _request: RequestGuard,
}

enum Content<B> {
    Service(B),
    Server(Full<Bytes>),
}

impl<B> ResponseBody<B> {
    /// The service's answer. `memory` is held until the last piece is taken.
    pub(super) fn of_service(body: B, memory: Option<QuotaPermit>, request: RequestGuard) -> Self {
        Self { content: Content::Service(body), rest: Bytes::new(), _memory: memory, _request: request }
    }

    /// The server's own answer, which is short.
    pub(super) fn of_server(body: Full<Bytes>, request: RequestGuard) -> Self {
        Self { content: Content::Server(body), rest: Bytes::new(), _memory: None, _request: request }
    }
}

impl<B> ResponseBody<B> {
    /// The next piece of a large frame: a copy, so that the frame itself is given back with its last piece.
    fn next_piece(&mut self) -> Option<Bytes> {
        let piece = Bytes::copy_from_slice(self.rest.get(..PIECE).unwrap_or(&self.rest));
        self.rest.advance(piece.len());
        if self.rest.is_empty() {
            self.rest = Bytes::new();
        }
        (!piece.is_empty()).then_some(piece)
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(piece) = self.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let polled = match &mut self.content {
            Content::Service(body) => Pin::new(body).poll_frame(cx),
            Content::Server(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| Ok(frame.unwrap_or_else(|never| match never {})))),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data.len() > 2 * PIECE) => {
                self.rest = frame.into_data().unwrap_or_default();
                Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece))))
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.content {
                Content::Service(body) => body.is_end_stream(),
                Content::Server(body) => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = match &self.content {
            Content::Service(body) => body.size_hint(),
            Content::Server(body) => body.size_hint(),
        };
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
