//! An HTTP proxy before an S3 endpoint that knows the operations: it holds one of them before the store hears of it or
//! before its client hears of the outcome, and answers in the store's place. For tests.
//!
//! Requests go on with every header as it came, `Host` too, because the signature covers them; bodies are streamed.
//! Refusing and cutting connections is for a [`Proxy`](crate::Proxy) before it.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::http_listener;
use crate::s3_operation::{Operation, part_number};

type Body = BoxBody<Bytes, hyper::Error>;
/// Ends the client's connection without an answer.
type Cut = Box<dyn std::error::Error + Send + Sync>;

/// On which side of the store a [`Gate`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request is here as a whole, and the store has heard nothing of it.
    Request,
    /// The store has done it and answered, and the client has heard nothing of that.
    Answer,
}

/// What is answered in the store's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 500 `InternalError`.
    InternalError,
    /// 503 `SlowDown`.
    SlowDown,
    /// 501 `NotImplemented`: what a store says that does not have the operation.
    NotImplemented,
    /// 200 with an error in its body, as S3 may answer a Complete that failed after its head was sent.
    ErrorWithin200,
}

/// Whether the store gets a request that is answered in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    No,
    /// The store does what is asked; only its answer is replaced.
    First,
}

/// The proxy. Dropping it closes its port and cuts its connections.
#[derive(Debug)]
pub struct S3Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    target: String,
    rules: Mutex<Rules>,
}

#[derive(Debug, Default)]
struct Rules {
    gates: Vec<Waiting>,
    substitutes: Vec<Substitute>,
    seen: Vec<Operation>,
}

/// A gate that nothing has reached.
#[derive(Debug)]
struct Waiting {
    operation: Operation,
    part: Option<u32>,
    side: Side,
    state: watch::Sender<GateState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GateState {
    Waiting,
    Reached,
    Open,
}

#[derive(Debug)]
struct Substitute {
    /// `None`: every operation.
    operation: Option<Operation>,
    answer: Answer,
    forward: Forward,
    /// How often it is still given; `None`: until it is lifted.
    left: Option<u32>,
}

/// Holds the first request that fits, and no other one. Dropping it opens it.
#[derive(Debug)]
pub struct Gate {
    state: watch::Sender<GateState>,
}

impl Gate {
    /// Waits until a request is held here.
    pub async fn reached(&self) {
        // The sender is `self.state`, so it is there.
        let _ = self.state.subscribe().wait_for(|state| *state >= GateState::Reached).await;
    }

    /// Lets go of what is held: the request reaches the store, whether or not its client is still there, or the answer
    /// its client. A gate that nothing has reached holds nothing any more.
    pub fn open(&self) {
        self.state.send_replace(GateState::Open);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.open();
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        // No code that holds it can panic halfway through a change.
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the gate that this request is the first to reach.
    fn gate(&self, operation: Operation, part: Option<u32>, side: Side) -> Option<watch::Sender<GateState>> {
        let mut rules = self.rules();
        let gates = &mut rules.gates;
        gates.retain(|gate| *gate.state.borrow() == GateState::Waiting);
        let fits = |gate: &Waiting| {
            gate.operation == operation && gate.side == side && (gate.part.is_none() || gate.part == part)
        };
        let at = gates.iter().position(fits)?;
        Some(gates.remove(at).state)
    }

    fn substitute(&self, operation: Operation, forward: Forward) -> Option<Answer> {
        let mut rules = self.rules();
        let found = rules.substitutes.iter_mut().find(|it| {
            it.forward == forward && it.left != Some(0) && it.operation.is_none_or(|wanted| wanted == operation)
        })?;
        found.left = found.left.map(|left| left - 1);
        Some(found.answer)
    }
}

impl S3Faults {
    /// Starts to forward to the store at `endpoint` (`http://host:port`).
    pub async fn start(endpoint: &str) -> Result<Self> {
        let target = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::io("listen for the S3 faults"))?;
        let address = listener.local_addr().map_err(Error::io("see the address of the S3 faults"))?;
        let shared = Arc::new(Shared { target, rules: Mutex::default() });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, server })
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a client has in the store's place.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Will hold the next request of this operation.
    pub fn gate(&self, operation: Operation, side: Side) -> Gate {
        self.add_gate(operation, None, side)
    }

    /// Will hold the next `UploadPart` of this number.
    pub fn gate_part(&self, number: u32, side: Side) -> Gate {
        self.add_gate(Operation::UploadPart, Some(number), side)
    }

    fn add_gate(&self, operation: Operation, part: Option<u32>, side: Side) -> Gate {
        let (state, _) = watch::channel(GateState::Waiting);
        self.shared.rules().gates.push(Waiting { operation, part, side, state: state.clone() });
        Gate { state }
    }

    /// Answers requests of `operation` (`None`: all) in the store's place, `times` or until [`S3Faults::restore`].
    pub fn answer(&self, operation: Option<Operation>, answer: Answer, forward: Forward, times: Option<u32>) {
        self.shared.rules().substitutes.push(Substitute { operation, answer, forward, left: times });
    }

    /// Gives the store its own word back. Gates stay.
    pub fn restore(&self) {
        self.shared.rules().substitutes.clear();
    }

    /// How many requests of this operation have come so far.
    pub fn seen(&self, operation: Operation) -> usize {
        self.shared.rules().seen.iter().filter(|seen| **seen == operation).count()
    }
}

impl Drop for S3Faults {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let service = service_fn(move |request| respond(Arc::clone(&shared), request));
    http_listener::serve(listener, service).await;
}

/// A task of its own, so that a request which is on its way arrives even if its client is gone by then.
async fn respond(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    match tokio::spawn(carry(shared, request)).await {
        Ok(answer) => answer,
        // Only when the runtime goes down, or the task panicked.
        Err(error) => Err(error.into()),
    }
}

async fn carry(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Cut> {
    let (operation, part) = (Operation::of(request.method(), request.uri()), part_number(request.uri()));
    let uri = request.uri().clone();
    shared.rules().seen.push(operation);
    let request = if let Some(gate) = shared.gate(operation, part, Side::Request) {
        let (head, body) = request.into_parts();
        // All of it, so that it no longer depends on its client.
        let body = body.collect().await?.to_bytes();
        hold(&gate).await;
        Request::from_parts(head, whole(body))
    } else {
        request.map(BodyExt::boxed)
    };
    if let Some(answer) = shared.substitute(operation, Forward::No) {
        // Read to its end, as a store does that fails afterwards; else the client would see a broken connection.
        request.into_body().collect().await?;
        return Ok(in_words(answer, &uri));
    }
    let answer = forward(&shared.target, request).await?;
    let answer = if let Some(gate) = shared.gate(operation, part, Side::Answer) {
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        hold(&gate).await;
        if let Some(instead) = shared.substitute(operation, Forward::No) {
            return Ok(in_words(instead, &uri));
        }
        Response::from_parts(head, whole(body))
    } else {
        answer.map(BodyExt::boxed)
    };
    if let Some(instead) = shared.substitute(operation, Forward::First) {
        // It is done only once all of it has come.
        answer.into_body().collect().await?;
        return Ok(in_words(instead, &uri));
    }
    Ok(answer)
}

async fn hold(gate: &watch::Sender<GateState>) {
    gate.send_if_modified(|state| {
        let first = *state == GateState::Waiting;
        if first {
            *state = GateState::Reached;
        }
        first
    });
    // The sender is borrowed, so it is there.
    let _ = gate.subscribe().wait_for(|state| *state == GateState::Open).await;
}

/// One connection a request: the store's own limits on idle ones cannot get in the way of a test.
async fn forward(target: &str, request: Request<Body>) -> Result<Response<Incoming>, Cut> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn in_words(answer: Answer, uri: &Uri) -> Response<Body> {
    let (status, code, words) = match answer {
        Answer::InternalError => (500, "InternalError", "We encountered an internal error. Please try again."),
        Answer::SlowDown => (503, "SlowDown", "Please reduce your request rate."),
        Answer::NotImplemented => (501, "NotImplemented", "This operation is not implemented."),
        Answer::ErrorWithin200 => (200, "InternalError", "We encountered an internal error. Please try again."),
    };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{words}</Message>\
         <Resource>{}</Resource><RequestId>fault</RequestId></Error>",
        uri.path()
    );
    let mut response = Response::new(whole(text.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}
