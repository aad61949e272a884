//! `/session`: signing in on the page with an API key, and out again. The browser keeps a token in a cookie that no program
//! on a page can read; the ledger has its hash.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use polyglot_ledger::{AuditAction, AuditEvent};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::audit;
use crate::authentication::{origin_of, require_request_header};
use crate::cross_site::is_cross_site;
use crate::identity::{
    COOKIE, COOKIE_WITH_TLS, Caller, Identity, PresentedKey, Principal, hash, new_secret, session_token,
};
use crate::problem::RouteError;
use crate::state::AppState;
use crate::timeout;
use crate::timestamp::timestamp;

/// Time after which a person has to sign in again.
const LIFETIME: Duration = Duration::from_hours(12);

/// Largest body of a sign-in, and the time in which it has to arrive.
const MAX_BODY_BYTES: usize = 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Who is signed in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionDocument {
    /// `on`, or `off` where the operator lets everybody in.
    #[schema(value_type = String)]
    auth: &'static str,
    signed_in: bool,
    /// The name of the key.
    name: Option<String>,
    /// The tenant that its exports belong to.
    tenant: Option<String>,
    scopes: Vec<String>,
    /// When the session or the key ends; null if it does not.
    expires_at: Option<String>,
}

impl SessionDocument {
    fn of(app: &AppState, caller: Option<&Identity>) -> Self {
        Self {
            auth: if app.authenticator.is_off() { "off" } else { "on" },
            signed_in: caller.is_some(),
            name: caller.map(|caller| caller.name.clone()),
            tenant: caller.map(|caller| caller.tenant.clone()),
            scopes: caller
                .map(|caller| caller.scopes.iter().map(|scope| scope.name().to_owned()).collect())
                .unwrap_or_default(),
            expires_at: caller.and_then(|caller| caller.expires_at).map(timestamp),
        }
    }
}

/// The key that a person signs in with.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the description of the API; the body is read by hand")]
pub(crate) struct SignIn {
    #[schema(example = "polyglot_…")]
    key: String,
}

/// Get who is signed in.
///
/// By the cookie of the page, or by an `Authorization` header. Credentials that are not right are as good as none here.
#[utoipa::path(
    get, path = "/session", operation_id = "inspect_session", tag = "session",
    responses((status = 200, description = "Who it is, if anybody.", body = SessionDocument)),
)]
pub(crate) async fn inspect(
    State(app): State<Arc<AppState>>,
    headers: HeaderMap,
) -> Result<Json<SessionDocument>, RouteError> {
    let caller = match app.authenticator.caller(&headers).await {
        Ok(caller) => caller,
        Err(RouteError::NotAuthenticated { .. }) => None,
        Err(error) => return Err(error),
    };
    Ok(Json(SessionDocument::of(&app, caller.as_deref())))
}

/// Sign in.
///
/// For browsers: the answer sets a cookie that stands for the key, for twelve hours at most. Programs send the key itself with
/// each request instead. Needs the header `X-Polyglot-Request`, with any value.
#[utoipa::path(
    post, path = "/session", operation_id = "sign_in", tag = "session",
    request_body(content = SignIn, content_type = "application/json"),
    responses((status = 200, description = "Who is signed in now.", body = SessionDocument,
        headers(("Set-Cookie" = String, description = "The session.")))),
)]
pub(crate) async fn sign_in(State(app): State<Arc<AppState>>, request: Request) -> Result<Response, RouteError> {
    check_origin(&request)?;
    let origin = origin_of(&app, &request);
    let key = PresentedKey::parse(&read_key(request).await?).ok_or(RouteError::NotAuthenticated { presented: true })?;
    let caller = Caller::new(app.authenticator.caller_of_key(key).await?, origin);
    let Principal::ApiKey(key_id) = caller.principal else {
        // Authentication is off: there is nothing to sign in to.
        return Ok(Json(SessionDocument::of(&app, Some(&caller))).into_response());
    };
    audit::record(&app, AuditEvent::new(AuditAction::SignIn, caller.audit_origin())).await?;
    let token = new_secret();
    let expires_at = timeout::ledger(app.ledger.create_session(hash(&token), key_id, LIFETIME)).await?;
    tracing::info!(caller = caller.name, tenant = caller.tenant, "signed in");
    let document =
        SessionDocument { expires_at: Some(timestamp(expires_at)), ..SessionDocument::of(&app, Some(&caller)) };
    let cookie = set_cookie(&app, &token, LIFETIME);
    Ok(([(header::SET_COOKIE, cookie)], Json(document)).into_response())
}

/// Sign out.
///
/// Ends the session of the cookie. Needs the header `X-Polyglot-Request`, with any value.
#[utoipa::path(
    delete, path = "/session", operation_id = "sign_out", tag = "session",
    responses((status = 204, description = "Nobody is signed in with the cookie any more.")),
)]
pub(crate) async fn sign_out(State(app): State<Arc<AppState>>, request: Request) -> Result<Response, RouteError> {
    check_origin(&request)?;
    // Only one that is known costs more than a look: everybody may ask for this.
    if let Some(token_hash) = session_token(request.headers(), app.access.secure_cookies).map(hash)
        && let Some(caller) = app.authenticator.of_session_token(token_hash).await?
    {
        let caller = Caller::new(caller, origin_of(&app, &request));
        audit::record(&app, AuditEvent::new(AuditAction::SignOut, caller.audit_origin())).await?;
        timeout::ledger(app.ledger.delete_session(token_hash)).await?;
        app.authenticator.forget_session(token_hash);
    }
    let cookie = set_cookie(&app, "", Duration::ZERO);
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

/// Refuses a request that a page of another origin may have made the browser send: it would sign a person in as somebody else.
fn check_origin(request: &Request) -> Result<(), RouteError> {
    if is_cross_site(request.uri(), request.headers()) {
        return Err(RouteError::CrossSite);
    }
    require_request_header(request.method(), request.headers())
}

/// Reads the key. The body has limits of its own, because nobody has said yet who sends it.
async fn read_key(request: Request) -> Result<String, RouteError> {
    let body = tokio::time::timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY_BYTES)).await;
    let body = body.map_err(|_| RouteError::BodyTooSlow)?;
    let body = body.map_err(|_| RouteError::BodyTooLarge { limit: MAX_BODY_BYTES })?;
    match serde_json::from_slice::<Value>(&body)
        .ok()
        .and_then(|body| Some(body.get("key")?.as_str()?.trim().to_owned()))
    {
        Some(key) => Ok(key),
        None => Err(RouteError::invalid("key", "expected a JSON object with an API key, as a string")),
    }
}

fn set_cookie(app: &AppState, token: &str, lifetime: Duration) -> HeaderValue {
    let (name, secure) = if app.access.secure_cookies { (COOKIE_WITH_TLS, "; Secure") } else { (COOKIE, "") };
    let cookie = format!("{name}={token}; Path=/; Max-Age={}; HttpOnly; SameSite=Strict{secure}", lifetime.as_secs());
    HeaderValue::try_from(cookie).expect("a token is hexadecimal, and the rest ASCII")
}
