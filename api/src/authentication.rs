//! The layer around the routes: finds the caller of a request, checks that its tenant may make one more and that it may do what
//! it asks for, and hands it to the handler.

use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use polyglot_core::failure::chain;
use polyglot_ledger::{AuditAction, AuditEvent, AuditOrigin};
use polyglot_runtime::quota::Peer;
use polyglot_runtime::telemetry::TraceContext;
use tracing::Span;

use crate::identity::{Access, Caller, Origin, Principal};
use crate::problem::RouteError;
use crate::state::AppState;
use crate::{audit, tenant_limits};

/// A header that a form or a link of a foreign page cannot send, and that one of another origin may not send by a program
/// unless this service allows it. Requests that change something by the page's cookie have to have it.
const REQUEST_HEADER: HeaderName = HeaderName::from_static("x-polyglot-request");

/// Lets a request through to its handler if its caller may make it.
pub(crate) async fn check(State(app): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let access = Access::to(request.method(), matched);
    if access == Access::Public {
        return next.run(request).await;
    }
    let origin = origin_of(&app, &request);
    let refused = match app.authenticator.caller(request.headers()).await {
        Ok(Some(identity)) => {
            let caller = Caller::new(identity, origin);
            Span::current().record("tenant", &caller.tenant).record("caller", &caller.name);
            return answer_within_quota(&app, caller, request, next, access).await;
        }
        Ok(None) => RouteError::NotAuthenticated { presented: false },
        Err(error) => error,
    };
    if let RouteError::NotAuthenticated { presented: true } = refused {
        let origin = origin_of(&app, &request);
        let (address, request_id) = (Some(origin.address.as_str()), origin.request_id.as_deref());
        record_refusal(&app, AuditOrigin { address, request_id, ..AuditOrigin::default() }, &refused).await;
    }
    refused.into_response()
}

/// The answer to a request whose caller is known. Before anything else that costs, the request is counted.
async fn answer_within_quota(app: &AppState, caller: Caller, request: Request, next: Next, access: Access) -> Response {
    let Some(quota) = app.tenant_gate.count_request(&caller.tenant, &app.ledger).await else {
        return answer(app, caller, request, next, access).await;
    };
    let mut response = match quota.reached() {
        Some(reached) => tenant_limits::refused(reached).into_response(),
        None => answer(app, caller, request, next, access).await,
    };
    quota.add_to(response.headers_mut());
    response
}

/// The answer of the handler, if the caller may ask for it.
async fn answer(app: &AppState, caller: Caller, mut request: Request, next: Next, access: Access) -> Response {
    match authorize(&caller, request.method(), request.headers(), access) {
        Ok(()) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => {
            record_refusal(app, caller.audit_origin(), &error).await;
            error.into_response()
        }
    }
}

/// From where a request comes.
pub(crate) fn origin_of(app: &AppState, request: &Request) -> Origin {
    let peer = request.extensions().get::<Peer>().map_or(Ipv4Addr::UNSPECIFIED.into(), |peer| peer.address());
    Origin {
        address: app.access.trusted_proxies.client(peer, request.headers()).to_string(),
        // Set by `request_layer::track`.
        request_id: request.extensions().get::<TraceContext>().and_then(|trace| trace.request_id.clone()),
    }
}

fn authorize(caller: &Caller, method: &Method, headers: &HeaderMap, access: Access) -> Result<(), RouteError> {
    if let Principal::Session(_) = caller.principal {
        require_request_header(method, headers)?;
    }
    if let Access::Scopes(scopes) = access
        && let Some(missing) = scopes.iter().find(|scope| !caller.scopes.allow(**scope))
    {
        return Err(RouteError::MissingScope { scope: *missing });
    }
    Ok(())
}

/// Records that a request was refused, unless there are so many of them that the audit would fill with these. The request is
/// refused in any case, so a failure is only logged.
async fn record_refusal(app: &AppState, origin: AuditOrigin<'_>, error: &RouteError) {
    if !app.recorded_refusals.take() {
        return;
    }
    let reason = error.to_string();
    let event = AuditEvent { detail: Some(&reason), ..AuditEvent::new(AuditAction::Refuse, origin) };
    if let Err(error) = audit::record(app, event).await {
        tracing::warn!(error = chain(&error), "a refusal could not be recorded");
    }
}

/// Refuses a request that changes something and that a foreign page may have made the browser send.
pub(crate) fn require_request_header(method: &Method, headers: &HeaderMap) -> Result<(), RouteError> {
    if method.is_safe() || headers.contains_key(REQUEST_HEADER) { Ok(()) } else { Err(RouteError::NoRequestHeader) }
}
