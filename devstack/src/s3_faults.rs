//! An HTTP proxy in front of an S3 endpoint that knows the operations: it holds a request before the store gets it, or a
//! response before the client gets it, and answers with errors in place of the store. For tests.
//!
//! Requests are forwarded with every header unchanged, `Host` too, because the signature covers them; bodies are streamed.
//! A [`Proxy`](crate::Proxy) in front of it refuses and resets connections.

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
/// Ends the client's connection without a response.
type Disconnect = Box<dyn std::error::Error + Send + Sync>;

/// The side of the store on which a [`Gate`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The whole request is held; the store has received nothing of it.
    Request,
    /// The store has done the operation; its response is held, and the client has received nothing of it.
    Response,
}

/// A response in place of the store's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorResponse {
    /// 500 `InternalError`.
    InternalError,
    /// 503 `SlowDown`.
    SlowDown,
    /// 501 `NotImplemented`: the response of a store without the operation.
    NotImplemented,
    /// 200 with an error in its body, as S3 may answer a Complete that failed after its head was sent.
    ErrorWithin200,
}

/// Whether the store gets a request whose response is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    No,
    /// The store does the operation; only its response is replaced.
    Yes,
}

/// The proxy. Dropping it closes its port and its connections.
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

/// A gate that no request has reached.
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
    response: ErrorResponse,
    forward: Forward,
    /// Remaining uses; `None`: until it is removed.
    left: Option<u32>,
}

/// Holds the first matching request, and no other one. Dropping it opens it.
#[derive(Debug)]
pub struct Gate {
    state: watch::Sender<GateState>,
}

impl Gate {
    /// Waits until a request is held here.
    pub async fn reached(&self) {
        // The sender is `self.state`, so it exists.
        let _ = self.state.subscribe().wait_for(|state| *state >= GateState::Reached).await;
    }

    /// Releases what is held: the request reaches the store, whether or not its client is still connected, or the response
    /// reaches its client. A gate that was never reached holds nothing any more.
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
        // No code that holds the lock can panic in the middle of a change.
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

    fn substitute(&self, operation: Operation, forward: Forward) -> Option<ErrorResponse> {
        let mut rules = self.rules();
        let found = rules.substitutes.iter_mut().find(|it| {
            it.forward == forward && it.left != Some(0) && it.operation.is_none_or(|wanted| wanted == operation)
        })?;
        found.left = found.left.map(|left| left - 1);
        Some(found.response)
    }
}

impl S3Faults {
    /// Starts to forward to the store at `endpoint` (`http://host:port`).
    pub async fn start(endpoint: &str) -> Result<Self> {
        let target = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::io("listen for the S3 faults"))?;
        let address = listener.local_addr().map_err(Error::io("find the address of the S3 faults"))?;
        let shared = Arc::new(Shared { target, rules: Mutex::default() });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(Self { address, shared, server })
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint for clients.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a gate for the next request of this operation.
    pub fn gate(&self, operation: Operation, side: Side) -> Gate {
        self.add_gate(operation, None, side)
    }

    /// Adds a gate for the next `UploadPart` of this number.
    pub fn gate_part(&self, number: u32, side: Side) -> Gate {
        self.add_gate(Operation::UploadPart, Some(number), side)
    }

    fn add_gate(&self, operation: Operation, part: Option<u32>, side: Side) -> Gate {
        let (state, _) = watch::channel(GateState::Waiting);
        self.shared.rules().gates.push(Waiting { operation, part, side, state: state.clone() });
        Gate { state }
    }

    /// Responds to requests of `operation` (`None`: all) in place of the store, `times` or until [`S3Faults::restore`].
    pub fn respond(&self, operation: Option<Operation>, response: ErrorResponse, forward: Forward, times: Option<u32>) {
        self.shared.rules().substitutes.push(Substitute { operation, response, forward, left: times });
    }

    /// Removes every replaced response. Gates stay.
    pub fn restore(&self) {
        self.shared.rules().substitutes.clear();
    }

    /// Number of requests of this operation so far.
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
    let service = service_fn(move |request| handle(Arc::clone(&shared), request));
    http_listener::serve(listener, service).await;
}

/// Handles a request in a task of its own, so that a request in flight arrives even if its client has disconnected.
async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Disconnect> {
    match tokio::spawn(forward_or_substitute(shared, request)).await {
        Ok(response) => response,
        // The runtime is shut down, or the task panicked.
        Err(error) => Err(error.into()),
    }
}

async fn forward_or_substitute(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Disconnect> {
    let (operation, part) = (Operation::of(request.method(), request.uri()), part_number(request.uri()));
    let uri = request.uri().clone();
    shared.rules().seen.push(operation);
    let request = if let Some(gate) = shared.gate(operation, part, Side::Request) {
        let (head, body) = request.into_parts();
        // The whole body, so that the request no longer depends on its client.
        let body = body.collect().await?.to_bytes();
        hold(&gate).await;
        Request::from_parts(head, full_body(body))
    } else {
        request.map(BodyExt::boxed)
    };
    if let Some(substitute) = shared.substitute(operation, Forward::No) {
        // Read to its end, as a store does that fails afterwards. Otherwise the client would see a broken connection.
        request.into_body().collect().await?;
        return Ok(error_response(substitute, &uri));
    }
    let response = forward(&shared.target, request).await?;
    let response = if let Some(gate) = shared.gate(operation, part, Side::Response) {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        hold(&gate).await;
        if let Some(substitute) = shared.substitute(operation, Forward::No) {
            return Ok(error_response(substitute, &uri));
        }
        Response::from_parts(head, full_body(body))
    } else {
        response.map(BodyExt::boxed)
    };
    if let Some(substitute) = shared.substitute(operation, Forward::Yes) {
        // The operation is done only when the whole response has arrived.
        response.into_body().collect().await?;
        return Ok(error_response(substitute, &uri));
    }
    Ok(response)
}

async fn hold(gate: &watch::Sender<GateState>) {
    gate.send_if_modified(|state| {
        let first = *state == GateState::Waiting;
        if first {
            *state = GateState::Reached;
        }
        first
    });
    // The sender is borrowed, so it exists.
    let _ = gate.subscribe().wait_for(|state| *state == GateState::Open).await;
}

/// Sends the request over a connection of its own, so that the store's limits on idle connections do not affect a test.
async fn forward(target: &str, request: Request<Body>) -> Result<Response<Incoming>, Disconnect> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

fn full_body(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never: Infallible| match never {}).boxed()
}

fn error_response(response: ErrorResponse, uri: &Uri) -> Response<Body> {
    let (status, code, message) = match response {
        ErrorResponse::InternalError => (500, "InternalError", "We encountered an internal error. Please try again."),
        ErrorResponse::SlowDown => (503, "SlowDown", "Please reduce your request rate."),
        ErrorResponse::NotImplemented => (501, "NotImplemented", "This operation is not implemented."),
        ErrorResponse::ErrorWithin200 => (200, "InternalError", "We encountered an internal error. Please try again."),
    };
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message>\
         <Resource>{}</Resource><RequestId>fault</RequestId></Error>",
        uri.path()
    );
    let mut response = Response::new(full_body(text.into()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}
