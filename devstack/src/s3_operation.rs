//! The S3 operation of a request, by its method, path and query. Body and signature are not read.

use hyper::{Method, Uri};

/// The operations that tests distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    CreateMultipartUpload,
    UploadPart,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListMultipartUploads,
    PutObject,
    GetObject,
    HeadObject,
    DeleteObject,
    /// Any operation on a bucket as a whole, and any that the service does not use.
    Other,
}

impl Operation {
    /// The operation of a request in path style (`/bucket/key`).
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let has = |name: &str| parameters(query).any(|(key, _)| key == name);
        let names_an_object =
            uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
        match method.as_str() {
            "GET" if !names_an_object && has("uploads") => Self::ListMultipartUploads,
            _ if !names_an_object => Self::Other,
            "POST" if has("uploads") => Self::CreateMultipartUpload,
            "POST" if has("uploadId") => Self::CompleteMultipartUpload,
            "PUT" if has("partNumber") && has("uploadId") => Self::UploadPart,
            "PUT" => Self::PutObject,
            "DELETE" if has("uploadId") => Self::AbortMultipartUpload,
            "DELETE" => Self::DeleteObject,
            // With an upload's id it is ListParts.
            "GET" if !has("uploadId") => Self::GetObject,
            "HEAD" => Self::HeadObject,
            _ => Self::Other,
        }
    }
}

/// The number of the part that a request carries.
pub fn part_number(uri: &Uri) -> Option<u32> {
    parameters(uri.query()?).find(|(key, _)| *key == "partNumber")?.1.parse().ok()
}

fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operation_is_known() {
        for (method, uri, wanted) in [
            (Method::POST, "/b/k/x.csv?uploads", Operation::CreateMultipartUpload),
            (Method::POST, "/b/k?uploads=&x-id=CreateMultipartUpload", Operation::CreateMultipartUpload),
            (Method::PUT, "/b/k?x-id=UploadPart&partNumber=12&uploadId=u", Operation::UploadPart),
            (Method::POST, "/b/k?uploadId=u", Operation::CompleteMultipartUpload),
            (Method::DELETE, "/b/k?uploadId=u", Operation::AbortMultipartUpload),
            (Method::GET, "/b?uploads&prefix=p%2F", Operation::ListMultipartUploads),
            (Method::GET, "/b/?uploads", Operation::ListMultipartUploads),
            (Method::PUT, "/b/k?x-id=PutObject", Operation::PutObject),
            (Method::PUT, "/b", Operation::Other),
            (Method::HEAD, "/b", Operation::Other),
            (Method::HEAD, "/b/k", Operation::HeadObject),
            (Method::GET, "/b/k", Operation::GetObject),
            (Method::GET, "/b/k?uploadId=u", Operation::Other),
            (Method::GET, "/b?list-type=2&prefix=uploads", Operation::Other),
            (Method::DELETE, "/b/k", Operation::DeleteObject),
        ] {
            assert_eq!(Operation::of(&method, &uri.parse().unwrap()), wanted, "{method} {uri}");
        }
        assert_eq!(part_number(&"/b/k?partNumber=12&uploadId=u".parse().unwrap()), Some(12));
        assert_eq!(part_number(&"/b/k".parse().unwrap()), None);
    }
}
