//! Files that are compiled into the program, as they are served: compressed once, with an entity tag by which clients
//! revalidate their copy.

use std::borrow::Cow;
use std::io::Write;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

/// A file and its gzip form.
pub(crate) struct StaticFile {
    media_type: HeaderValue,
    plain: Encoding,
    /// `None` where gzip does not make the file smaller, as of an image that is compressed already.
    gzip: Option<Encoding>,
}

/// One representation of the file. Each has an entity tag of its own, as strong tags are of bytes.
struct Encoding {
    bytes: Bytes,
    etag: HeaderValue,
}

impl StaticFile {
    pub(crate) fn new(media_type: &str, content: impl Into<Cow<'static, [u8]>>) -> Self {
        let plain = match content.into() {
            Cow::Borrowed(content) => Bytes::from_static(content),
            Cow::Owned(content) => Bytes::from(content),
        };
        let crc32 = crc32fast::hash(&plain);
        let tag = |suffix: &str| {
            HeaderValue::try_from(format!("\"{crc32:08x}{suffix}\"")).expect("digits in quotes are a header value")
        };
        let gzip = Some(gzip(&plain)).filter(|packed| packed.len() < plain.len());
        Self {
            media_type: HeaderValue::try_from(media_type).expect("a media type is a header value"),
            gzip: gzip.map(|packed| Encoding { bytes: packed.into(), etag: tag("-gzip") }),
            plain: Encoding { bytes: plain, etag: tag("") },
        }
    }

    /// The answer to a request with the headers `request`: the file in an encoding that the client accepts, or that the client
    /// has it already. `headers` are those of the page that the file belongs to.
    pub(crate) fn answer<const N: usize>(
        &self,
        request: &HeaderMap,
        headers: [(HeaderName, HeaderValue); N],
    ) -> Response {
        let gzip = self.gzip.as_ref().filter(|_| accepts_gzip(request));
        let Encoding { bytes, etag } = gzip.unwrap_or(&self.plain);
        let is_known = any_item(request, &header::IF_NONE_MATCH, |item| {
            item == "*" || item.strip_prefix("W/").unwrap_or(item).as_bytes() == etag.as_bytes()
        });
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            let mut response = bytes.clone().into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, self.media_type.clone());
            if gzip.is_some() {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        };
        let common = [(header::ETAG, etag.clone()), (header::VARY, HeaderValue::from_static("accept-encoding"))];
        response.headers_mut().extend(headers.into_iter().chain(common));
        response
    }
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

/// Whether the client accepts gzip by name. One that sends `*` accepts the plain file as well.
fn accepts_gzip(request: &HeaderMap) -> bool {
    any_item(request, &header::ACCEPT_ENCODING, |item| {
        let (coding, parameters) = item.split_once(';').unwrap_or((item, ""));
        let weight = parameters.trim().strip_prefix("q=").map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
        matches!(coding.trim(), "gzip" | "x-gzip") && weight.is_some_and(|weight| weight > 0.0)
    })
}

/// Whether an item of the lists in the headers `name` is such. The lists are of tokens and tags without commas.
fn any_item(request: &HeaderMap, name: &HeaderName, is_such: impl Fn(&str) -> bool) -> bool {
    let texts = request.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|item| is_such(item.trim()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn file() -> StaticFile {
        StaticFile::new("text/plain", "a line that repeats\n".repeat(100).into_bytes())
    }

    fn request(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    async fn body(response: Response) -> Vec<u8> {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
    }

    #[tokio::test]
    async fn clients_get_an_encoding_that_they_accept() {
        let file = file();
        for accepted in ["gzip", "deflate, gzip;q=0.5", "br, x-gzip ; q=1", "gzip, deflate, br, zstd"] {
            let response = file.answer(&request(header::ACCEPT_ENCODING, accepted), []);
            assert_eq!(response.headers()[header::CONTENT_ENCODING], "gzip", "{accepted}");
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
            let mut unpacked = Vec::new();
            flate2::read::GzDecoder::new(&body(response).await[..]).read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, &file.plain.bytes[..]);
        }
        for refused in ["", "identity", "gzip;q=0", "gzip;q=0.000", "gzip;q=x", "br"] {
            let response = file.answer(&request(header::ACCEPT_ENCODING, refused), []);
            assert_eq!(response.headers().get(header::CONTENT_ENCODING), None, "{refused}");
            assert_eq!(response.headers()[header::VARY], "accept-encoding");
            assert_eq!(body(response).await, &file.plain.bytes[..]);
        }
    }

    #[tokio::test]
    async fn a_copy_is_revalidated_by_the_tag_of_its_encoding() {
        let file = file();
        let accepted = request(header::ACCEPT_ENCODING, "gzip");
        let etag = |response: &Response| response.headers()[header::ETAG].to_str().unwrap().to_owned();
        let (plain, packed) = (etag(&file.answer(&HeaderMap::new(), [])), etag(&file.answer(&accepted, [])));
        assert_ne!(plain, packed);
        for (known, status) in [
            (packed.clone(), StatusCode::NOT_MODIFIED),
            (format!("\"other\", W/{packed}"), StatusCode::NOT_MODIFIED),
            ("*".to_owned(), StatusCode::NOT_MODIFIED),
            (plain, StatusCode::OK),
        ] {
            let mut headers = request(header::IF_NONE_MATCH, &known);
            headers.extend(accepted.clone());
            let response = file.answer(&headers, [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"))]);
            assert_eq!(response.status(), status, "{known}");
            assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
            assert_eq!(etag(&response), packed);
        }
    }

    #[test]
    fn what_gzip_makes_larger_is_served_plain() {
        assert!(StaticFile::new("image/png", &b"\x89PNG"[..]).gzip.is_none());
    }
}
