//! An S3 server inside this process: files in a folder, requests over HTTP on 127.0.0.1. `s3_handler` answers them.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::error::{Error, Result};
use crate::http_listener;
use crate::private_folder;
use crate::s3_handler::S3Handler;
use crate::s3_range;

/// The pair of keys that signs requests.
#[derive(Clone, Debug)]
pub struct S3Keys {
    pub access_key: String,
    pub secret_key: String,
}

/// A running embedded S3. Dropping it closes its port and its connections.
#[derive(Debug)]
pub struct EmbeddedS3 {
    endpoint: String,
    server: AbortHandle,
}

impl EmbeddedS3 {
    /// Serves the folder `root`, which is created when missing. Port 0 stands for any free one.
    ///
    /// With keys, only requests signed with them are answered; without, any (for tests of the server itself).
    pub async fn start(root: &Path, port: u16, keys: Option<S3Keys>) -> Result<Self> {
        private_folder::create(root)?;
        let root = root.canonicalize().map_err(Error::path("resolve", root))?;
        let files = FileSystem::new(&root).map_err(|error| {
            Error::io(format!("open the object storage in {}", root.display()))(std::io::Error::other(format!(
                "{error:?}"
            )))
        })?;
        let mut builder = S3ServiceBuilder::new(S3Handler::new(files, root));
        if let Some(keys) = keys {
            builder.set_auth(SimpleAuth::from_single(keys.access_key, keys.secret_key));
        }
        let service = builder.build();

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(Error::io(format!("listen on 127.0.0.1:{port} for the object storage")))?;
        let address = listener.local_addr().map_err(Error::io("find the address of the object storage"))?;
        let service = service_fn(move |mut request: Request<Incoming>| {
            s3_range::ignore_unusable(&mut request);
            Service::call(&service, request)
        });
        let server = tokio::spawn(http_listener::serve(listener, service)).abort_handle();
        Ok(Self { endpoint: format!("http://{address}"), server })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for EmbeddedS3 {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Creates the folder that is the bucket `name` of the store in `root`.
pub fn make_bucket(root: &Path, name: &str) -> Result<()> {
    let folder = root.join(name);
    fs::create_dir_all(&folder).map_err(Error::path("create the bucket", &folder))
}

#[cfg(test)]
mod tests {
    use reqwest::{Client, header::HeaderMap};

    use super::*;
    use crate::scratch_dir::ScratchDir;

    const HEADERS: [(&str, &str); 3] = [
        ("content-type", "text/csv; charset=utf-8"),
        ("content-disposition", "attachment; filename=\"export.csv\""),
        ("content-encoding", "gzip"),
    ];

    async fn storage() -> (ScratchDir, EmbeddedS3, Client) {
        let dir = ScratchDir::new("s3").unwrap();
        make_bucket(dir.path(), "exports").unwrap();
        let s3 = EmbeddedS3::start(dir.path(), 0, None).await.unwrap();
        // Without `gzip` among its features, the client leaves the body as it is.
        (dir, s3, Client::builder().no_proxy().build().unwrap())
    }

    fn between(text: &str, start: &str, end: &str) -> String {
        text.split(start).nth(1).unwrap().split(end).next().unwrap().to_owned()
    }

    async fn begin(client: &Client, object: &str) -> String {
        let mut request = client.post(format!("{object}?uploads"));
        for (name, value) in HEADERS {
            request = request.header(name, value);
        }
        between(&request.send().await.unwrap().text().await.unwrap(), "<UploadId>", "</UploadId>")
    }

    fn assert_kept(headers: &HeaderMap) {
        for (name, value) in HEADERS {
            assert_eq!(headers[name], value, "{name}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_multipart_upload_keeps_its_headers_and_bytes() {
        let (_dir, s3, client) = storage().await;
        let object = format!("{}/exports/a/export.csv.gz", s3.endpoint());
        let upload = begin(&client, &object).await;
        let parts = [vec![b'a'; 5 * 1024 * 1024], vec![b'b'; 1000]];
        let mut list = String::new();
        for (number, part) in (1..).zip(&parts) {
            let answer = client
                .put(format!("{object}?partNumber={number}&uploadId={upload}"))
                .body(part.clone())
                .send()
                .await
                .unwrap();
            let etag = answer.headers()["etag"].to_str().unwrap().replace('"', "&quot;");
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
        }
        let complete = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let answer = client.post(format!("{object}?uploadId={upload}")).body(complete).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.text().await.unwrap();

        assert_kept(client.head(&object).send().await.unwrap().headers());
        let answer = client.get(&object).send().await.unwrap();
        assert_kept(answer.headers());
        assert_eq!(answer.bytes().await.unwrap(), parts.concat());

        let answer = client.get(&object).header("range", "bytes=5242878-5242883").send().await.unwrap();
        assert_eq!(answer.status(), 206);
        assert_eq!(answer.bytes().await.unwrap(), "aabbbb");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_url_may_name_other_headers() {
        let (_dir, s3, client) = storage().await;
        let object = format!("{}/exports/x.csv", s3.endpoint());
        client
            .put(&object)
            .header("content-type", "text/csv")
            .body("a\n")
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap();
        let url = format!(
            "{object}?response-content-disposition=attachment%3B%20filename%3Dy.csv&response-content-type=text%2Fplain"
        );
        let answer = client.get(url).send().await.unwrap();
        assert_eq!(answer.headers()["content-disposition"], "attachment; filename=y.csv");
        assert_eq!(answer.headers()["content-type"], "text/plain");
        assert_eq!(answer.bytes().await.unwrap(), "a\n");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn open_uploads_are_listed_until_they_are_aborted() {
        let (_dir, s3, client) = storage().await;
        let (first, other) = (format!("{}/exports/p/one", s3.endpoint()), format!("{}/exports/q/two", s3.endpoint()));
        let upload = begin(&client, &first).await;
        begin(&client, &other).await;
        let list = format!("{}/exports?uploads&prefix=p/", s3.endpoint());
        let text = client.get(&list).send().await.unwrap().text().await.unwrap();
        assert!(text.contains("<Key>p/one</Key>") && text.contains(&upload) && !text.contains("q/two"), "{text}");
        client.delete(format!("{first}?uploadId={upload}")).send().await.unwrap().error_for_status().unwrap();
        let text = client.get(&list).send().await.unwrap().text().await.unwrap();
        assert!(!text.contains(&upload), "{text}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_deleted_object_leaves_no_file() {
        let (dir, s3, client) = storage().await;
        let object = format!("{}/exports/x.csv", s3.endpoint());
        client.put(&object).body("a\n").send().await.unwrap().error_for_status().unwrap();
        client.delete(&object).send().await.unwrap().error_for_status().unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["exports"]);
        assert_eq!(client.get(&object).send().await.unwrap().status(), 404);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn unsigned_requests_are_refused_when_there_are_keys() {
        let dir = ScratchDir::new("s3").unwrap();
        make_bucket(dir.path(), "exports").unwrap();
        let keys = S3Keys { access_key: "key".into(), secret_key: "secret".into() };
        let s3 = EmbeddedS3::start(dir.path(), 0, Some(keys)).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        assert_eq!(client.get(format!("{}/exports?list-type=2", s3.endpoint())).send().await.unwrap().status(), 403);
    }
}
