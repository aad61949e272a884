//! The web page: the files of `web/`, built into the program. What they do is written in them; here are their addresses
//! and the policy under which a browser runs them.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::problem::RouteError;

/// Nothing but the page's own files is loaded, and no text becomes code or markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal: $media_type:literal,)*) => {
        &[$(File { name: $name, media_type: $media_type, text: include_str!(concat!("../web/", $name)) }),*]
    };
}

const FILES: &[File] = files! {
    "index.html": "text/html; charset=utf-8",
    "announcements.js": "text/javascript; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "bar-chart.js": "text/javascript; charset=utf-8",
    "benchmark.js": "text/javascript; charset=utf-8",
    "columns.js": "text/javascript; charset=utf-8",
    "confirmed-removal.js": "text/javascript; charset=utf-8",
    "curl.js": "text/javascript; charset=utf-8",
    "element.js": "text/javascript; charset=utf-8",
    "export-list.js": "text/javascript; charset=utf-8",
    "export-row.js": "text/javascript; charset=utf-8",
    "field-errors.js": "text/javascript; charset=utf-8",
    "filters.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "known-exports.js": "text/javascript; charset=utf-8",
    "live.js": "text/javascript; charset=utf-8",
    "manifest-files.js": "text/javascript; charset=utf-8",
    "new-export.js": "text/javascript; charset=utf-8",
    "options.js": "text/javascript; charset=utf-8",
    "order.js": "text/javascript; charset=utf-8",
    "pace.js": "text/javascript; charset=utf-8",
    "preview.js": "text/javascript; charset=utf-8",
    "service.js": "text/javascript; charset=utf-8",
    "shards.js": "text/javascript; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "words.js": "text/javascript; charset=utf-8",
};

pub(crate) async fn page(headers: HeaderMap) -> Response {
    serve(&FILES[0], &headers)
}

/// Those that the page loads.
pub(crate) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, RouteError> {
    let file = FILES[1..].iter().find(|file| file.name == name).ok_or(RouteError::NoSuchRoute)?;
    Ok(serve(file, &headers))
}

fn serve(file: &File, request: &HeaderMap) -> Response {
    let etag = format!("\"{:08x}\"", crc32fast::hash(file.text.as_bytes()));
    let etag = HeaderValue::try_from(etag).expect("digits in quotes are a header value");
    let known = request.get(header::IF_NONE_MATCH).is_some_and(|tag| *tag == etag);
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.media_type)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        // Asked for each time, and sent only when the program is another one.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, etag),
    ];
    if known { (StatusCode::NOT_MODIFIED, headers).into_response() } else { (headers, file.text).into_response() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/web")).unwrap();
        let there: BTreeSet<String> = folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(there, FILES.iter().map(|file| file.name.to_owned()).collect());
    }
}
