//! Encryption at rest: what the client asks of the store, and what it does where the store does not confirm it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use polyglot_core::request::ObjectHeaders;
use polyglot_storage::{Encryption, ObjectBody, ObjectStore, S3Store, StorageConfig};

const ALGORITHM: &str = "x-amz-server-side-encryption";
const KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";

/// A store that takes every object and upload, keeps the headers of the requests, and says that it encrypts by `confirmed`.
async fn store(confirmed: Option<&'static str>) -> (String, Arc<Mutex<Vec<HeaderMap>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    let app = Router::new().fallback(async move |request: Request| -> Response {
        requests.lock().unwrap().push(request.headers().clone());
        let is_upload = request.uri().query().is_some_and(|query| query.contains("uploads"));
        let body = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>";
        let mut response = if is_upload { body.into_response() } else { ().into_response() };
        if let Some(confirmed) = confirmed {
            response.headers_mut().insert(ALGORITHM, HeaderValue::from_static(confirmed));
        }
        response
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (endpoint, seen)
}

/// Puts an object and begins an upload, and returns how each of them ended.
async fn write(endpoint: String, encryption: Option<Encryption>) -> [Result<(), String>; 2] {
    let config = StorageConfig {
        endpoint: Some(endpoint),
        public_endpoint: None,
        bucket: "files".to_owned(),
        prefix: String::new(),
        region: None,
        static_credentials: Some(("key".to_owned(), "secret".to_owned()).into()),
        authorities: None,
        encryption,
    };
    let client = S3Store::without_retries(&config).await;
    let headers = ObjectHeaders {
        content_type: "text/csv",
        content_encoding: None,
        content_disposition: "attachment".to_owned(),
    };
    let body = ObjectBody::from(Bytes::from_static(b"x"));
    let text = |error: polyglot_storage::StorageError| polyglot_core::failure::chain(&error);
    [
        client.put("a", &headers, &body, crc32fast::hash(b"x")).await.map(drop).map_err(text),
        client.create_upload("b", &headers).await.map(drop).map_err(text),
    ]
}

#[tokio::test]
async fn objects_and_uploads_ask_for_encryption() {
    let kms = |key_id: Option<&str>| Some(Encryption::Kms { key_id: key_id.map(str::to_owned) });
    for (encryption, algorithm, key) in [
        (None, None, None),
        (Some(Encryption::StoreKeys), Some("AES256"), None),
        (kms(None), Some("aws:kms"), None),
        (kms(Some("alias/exports")), Some("aws:kms"), Some("alias/exports")),
    ] {
        let (endpoint, seen) = store(algorithm).await;
        for ended in write(endpoint, encryption.clone()).await {
            ended.unwrap_or_else(|error| panic!("{encryption:?}: {error}"));
        }
        let seen = seen.lock().unwrap();
        assert_eq!(seen.len(), 2);
        for headers in seen.iter() {
            let value = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!((value(ALGORITHM), value(KEY)), (algorithm, key), "{encryption:?}");
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_confirm_the_encryption_is_an_error() {
    for confirmed in [None, Some("AES256")] {
        let (endpoint, _) = store(confirmed).await;
        for ended in write(endpoint, Some(Encryption::Kms { key_id: None })).await {
            let error = ended.unwrap_err();
            assert!(error.contains("does not encrypt by aws:kms (S3_SSE)"), "{error}");
        }
    }
}
