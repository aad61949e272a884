//! `/docs`: Swagger UI, compiled into the program, so that it works without access to the internet.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{Redirect, Response};
use utoipa_swagger_ui::{Config, SwaggerFile};

use crate::problem::RouteError;
use crate::static_file::StaticFile;

/// What the library would write into its own page, in whose place is one of ours.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(Arc::default);

/// Content security policy: the viewer runs only its own code. It sets styles by script alone, and has images in its style
/// sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const PAGE: &str = "index.html";

/// The files of ours: a page that starts the library's viewer, and mends what it lacks in accessibility. Browsers revalidate
/// them each time.
const OURS: [(&str, &str, &str); 3] = [
    (PAGE, "text/html; charset=utf-8", include_str!("../../viewer/index.html")),
    ("viewer.css", "text/css; charset=utf-8", include_str!("../../viewer/viewer.css")),
    ("viewer.js", "text/javascript; charset=utf-8", include_str!("../../viewer/viewer.js")),
];

fn is_ours(name: &str) -> bool {
    OURS.iter().any(|(ours, ..)| *ours == name)
}

/// The others are the library's, and change with its version alone. Their addresses do not have the version, so browsers ask
/// again after an hour.
const LIBRARY_LIFETIME: &str = "public, max-age=3600";

/// Files that were served before. There are as many as the library has: unknown names are not kept.
static SERVED: LazyLock<Mutex<HashMap<String, Arc<StaticFile>>>> = LazyLock::new(Mutex::default);

/// Redirects to the viewer's page. Its files are relative to the page, so its address ends in a slash.
pub(crate) async fn redirect() -> Redirect {
    Redirect::permanent("/docs/")
}

/// Serves the viewer's page.
pub(crate) async fn page(headers: HeaderMap) -> Result<Response, RouteError> {
    serve(PAGE.to_owned(), headers).await
}

/// Serves a file that the viewer's page loads.
pub(crate) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, RouteError> {
    serve(name, headers).await
}

async fn serve(name: String, request: HeaderMap) -> Result<Response, RouteError> {
    let cache_control = if is_ours(&name) { "no-cache" } else { LIBRARY_LIFETIME };
    // The first request for a file compresses it, of the largest for a tenth of a second.
    let file = tokio::task::spawn_blocking(move || find(name)).await.map_err(|_| RouteError::Panicked)??;
    let headers = [
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::CACHE_CONTROL, HeaderValue::from_static(cache_control)),
    ];
    Ok(file.answer(&request, headers))
}

/// Finds a file by name, among those that were served before or in the library.
fn find(name: String) -> Result<Arc<StaticFile>, RouteError> {
    // Nothing that holds the lock panics halfway, so a poisoned map is consistent.
    let mut served = SERVED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(file) = served.get(&name) {
        return Ok(Arc::clone(file));
    }
    let file = if let Some((_, media_type, text)) = OURS.iter().find(|(ours, ..)| *ours == name) {
        StaticFile::new(media_type, text.as_bytes())
    } else {
        let found = utoipa_swagger_ui::serve(&name, Arc::clone(&CONFIG))
            .map_err(|error| RouteError::Internal(format!("the viewer's file {name:?}: {error}").into()))?;
        let SwaggerFile { bytes, content_type, .. } = found.ok_or(RouteError::NoSuchRoute)?;
        StaticFile::new(&content_type, bytes.into_owned())
    };
    let file = Arc::new(file);
    served.insert(name, Arc::clone(&file));
    Ok(file)
}
