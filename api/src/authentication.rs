//! The layer around the routes: finds the caller of a request, checks that it may do what it asks for, and hands it to the
//! handler.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Span;

use crate::identity::{Access, Caller, Principal};
use crate::problem::RouteError;
use crate::state::AppState;

/// A header that a form or a link of a foreign page cannot send, and that one of another origin may not send by a program
/// unless this service allows it. Requests that change something by the page's cookie have to have it.
const REQUEST_HEADER: HeaderName = HeaderName::from_static("x-polyglot-request");

/// Lets a request through to its handler if its caller may make it.
pub(crate) async fn check(State(app): State<Arc<AppState>>, mut request: Request, next: Next) -> Response {
    let matched = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let access = Access::to(request.method(), matched);
    if access == Access::Public {
        return next.run(request).await;
    }
    match authorize(&app, request.method(), request.headers(), access).await {
        Ok(caller) => {
            Span::current().record("tenant", &caller.tenant).record("caller", &caller.name);
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn authorize(app: &AppState, method: &Method, headers: &HeaderMap, access: Access) -> Result<Caller, RouteError> {
    let caller = app.authenticator.caller(headers).await?;
    let caller = caller.ok_or(RouteError::NotAuthenticated { presented: false })?;
    if let Principal::Session(_) = caller.principal {
        require_request_header(method, headers)?;
    }
    if let Access::Scopes(scopes) = access
        && let Some(missing) = scopes.iter().find(|scope| !caller.scopes.allow(**scope))
    {
        return Err(RouteError::MissingScope { scope: *missing });
    }
    Ok(caller)
}

/// Refuses a request that changes something and that a foreign page may have made the browser send.
pub(crate) fn require_request_header(method: &Method, headers: &HeaderMap) -> Result<(), RouteError> {
    if method.is_safe() || headers.contains_key(REQUEST_HEADER) { Ok(()) } else { Err(RouteError::NoRequestHeader) }
}
