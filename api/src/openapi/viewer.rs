//! `/docs`: Swagger UI, compiled into the program, so that it works without access to the internet.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa_swagger_ui::Config;

use crate::problem::RouteError;

static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/openapi.json")));

/// Content security policy: the viewer runs only its own code. It sets inline styles and has images in its style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Redirects to the viewer's page. Its files are relative to the page, so its address ends in a slash.
pub(crate) async fn redirect() -> Redirect {
    Redirect::permanent("/docs/")
}

/// Serves the viewer's page.
pub(crate) async fn page() -> Result<Response, RouteError> {
    serve("index.html")
}

/// Serves a file that the viewer's page loads.
pub(crate) async fn file(Path(name): Path<String>) -> Result<Response, RouteError> {
    serve(&name)
}

fn serve(name: &str) -> Result<Response, RouteError> {
    let served = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG))
        .map_err(|error| RouteError::Internal(format!("the viewer's file {name:?}: {error}").into()))?;
    let served = served.ok_or(RouteError::NoSuchRoute)?;
    let media_type = HeaderValue::try_from(served.content_type).map_err(|error| RouteError::Internal(error.into()))?;
    let headers =
        [(header::CONTENT_TYPE, media_type), (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))];
    Ok((headers, served.bytes.into_owned()).into_response())
}
