//! The service behind the server, with what the server adds to it: the peer of each request, and the limit of the memory for
//! answers.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};

use super::activity::ConnectionActivity;
use super::limits::{RefusedBy, Shared, count_refused};
use super::refusal::Refusal;
use super::response_body::{RequestGuard, ResponseBody, UNCOUNTED};
use crate::quota::Peer;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What answers requests. Every [`Service`] with these bounds is one.
pub trait HttpService:
    Service<
        Request<Incoming>,
        Response = Response<Self::Answer>,
        Error = Self::Failure,
        Future: Future<Output = Result<Response<Self::Answer>, Self::Failure>> + Send,
    > + Clone
    + Send
    + 'static
{
    type Answer: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
    type Failure: Into<BoxError>;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type Answer = B;
    type Failure = S::Error;
}

/// The service for the requests of one connection.
pub(super) struct LimitedService<S> {
    pub(super) service: S,
    pub(super) peer: Peer,
    pub(super) shared: Arc<Shared>,
    pub(super) activity: Arc<ConnectionActivity>,
}

impl<S: HttpService> Service<Request<Incoming>> for LimitedService<S> {
    type Response = Response<ResponseBody<S::Answer>>;
    type Error = S::Failure;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.activity.request_began();
        let guard = RequestGuard(Arc::clone(&self.activity));
        let (peer, shared) = (self.peer, Arc::clone(&self.shared));
        request.extensions_mut().insert(peer);
        let answer = self.service.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let bytes = response.body().size_hint().exact().filter(|bytes| *bytes > UNCOUNTED).unwrap_or(0);
            match shared.response_bytes.try_acquire(peer, usize::try_from(bytes).unwrap_or(usize::MAX)) {
                Ok(permit) => Ok(response.map(|body| ResponseBody::of_service(body, Some(permit), guard))),
                Err(exceeded) => {
                    drop(response);
                    count_refused(RefusedBy::AnswerMemory);
                    Ok(Refusal::UnreadAnswers(exceeded).response().map(|body| ResponseBody::of_server(body, guard)))
                }
            }
        })
    }
}
