//! Handler of the requests to the embedded S3: the file-backed implementation of s3s-fs, and the parts that it lacks and the
//! clients here need.
//!
//! Added here: ranges as S3 does them (`s3_range`), the `response-*` parameters of a presigned URL, reads in large pieces (it reads 4 KiB at a time),
//! `ListMultipartUploads` (it answers 501), and the removal of an object's side files together with the object.

use std::fs;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
    CopyObjectInput, CopyObjectOutput, CreateBucketInput, CreateBucketOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteBucketInput, DeleteBucketOutput, DeleteObjectInput, DeleteObjectOutput,
    DeleteObjectsInput, DeleteObjectsOutput, GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput,
    GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListBucketsInput,
    ListBucketsOutput, ListMultipartUploadsInput, ListMultipartUploadsOutput, ListObjectsInput, ListObjectsOutput,
    ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput, MultipartUpload, PutObjectInput,
    PutObjectOutput, Range, StreamingBlob, UploadPartCopyInput, UploadPartCopyOutput, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use crate::s3_range;

const READ_PIECE: usize = 256 * 1024;

/// s3s-fs over the folder `root`, completed.
#[derive(Debug)]
pub(crate) struct S3Handler {
    files: FileSystem,
    root: PathBuf,
}

impl S3Handler {
    pub(crate) fn new(files: FileSystem, root: PathBuf) -> Self {
        Self { files, root }
    }

    /// The bytes that s3s-fs would send. It has checked the key and the range, which `output` has.
    async fn body(&self, bucket: &str, key: &str, output: &GetObjectOutput) -> io::Result<StreamingBlob> {
        let start = output
            .content_range
            .as_deref()
            .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok())
            .unwrap_or(0);
        let length = output.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        let mut file = File::open(self.root.join(bucket).join(key)).await?;
        file.seek(SeekFrom::Start(start)).await?;
        Ok(StreamingBlob::wrap(ReaderStream::with_capacity(file.take(length), READ_PIECE)))
    }

    /// The range to send, `None` for the whole object.
    async fn range(&self, range: Range, request: &S3Request<GetObjectInput>) -> S3Result<Option<Range>> {
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        let head = HeadObjectInput { bucket, key, ..HeadObjectInput::default() };
        let object = self.files.head_object(request_like(request, head)).await?.output;
        if !s3_range::is_current(&request.headers, object.e_tag.as_ref()) {
            return Ok(None);
        }
        let size = object.content_length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        Ok(Some(s3_range::from_start(range, size)))
    }

    /// Removes the files beside the bucket in which s3s-fs keeps headers and checksums. It does not remove them itself.
    fn remove_side_files(&self, bucket: &str, key: &str) {
        let stem = side_file_stem(bucket, key);
        for end in ["metadata.json", "internal.json"] {
            // Missing for an object that was never written.
            let _ = fs::remove_file(self.root.join(format!("{stem}.{end}")));
        }
    }

    /// The uploads of `bucket` that were neither completed nor aborted: each has a side file whose name contains its key.
    fn open_uploads(&self, bucket: &str, prefix: &str) -> io::Result<Vec<MultipartUpload>> {
        let stem = format!(".bucket-{}.object-", URL_SAFE_NO_PAD.encode(bucket));
        let mut uploads = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(upload) = name.to_str().and_then(|name| {
                let (key, upload) = name.strip_prefix(&stem)?.strip_suffix(".metadata.json")?.split_once(".upload-")?;
                let key = String::from_utf8(URL_SAFE_NO_PAD.decode(key).ok()?).ok()?;
                Some(MultipartUpload {
                    key: Some(key),
                    upload_id: Some(upload.to_owned()),
                    ..MultipartUpload::default()
                })
            }) else {
                continue;
            };
            let is_open = upload.upload_id.as_ref().is_some_and(|id| self.is_open(id));
            if is_open && upload.key.as_ref().is_some_and(|key| key.starts_with(prefix)) {
                let initiated = entry.metadata()?.modified()?.into();
                uploads.push(MultipartUpload { initiated: Some(initiated), ..upload });
            }
        }
        uploads.sort_by(|a, b| (&a.key, &a.upload_id).cmp(&(&b.key, &b.upload_id)));
        Ok(uploads)
    }

    fn is_open(&self, upload_id: &str) -> bool {
        Path::new(&self.root).join(format!(".upload-{upload_id}.json")).exists()
    }
}

/// Another operation of the same client.
fn request_like<A, B>(request: &S3Request<A>, input: B) -> S3Request<B> {
    S3Request {
        input,
        method: request.method.clone(),
        uri: request.uri.clone(),
        headers: request.headers.clone(),
        extensions: request.extensions.clone(),
        credentials: request.credentials.clone(),
        region: request.region.clone(),
        service: request.service.clone(),
        trailing_headers: None,
    }
}

fn side_file_stem(bucket: &str, key: &str) -> String {
    format!(".bucket-{}.object-{}", URL_SAFE_NO_PAD.encode(bucket), URL_SAFE_NO_PAD.encode(key))
}

#[async_trait::async_trait]
impl S3 for S3Handler {
    async fn get_object(&self, mut request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        if let Some(range) = request.input.range {
            request.input.range = self.range(range, &request).await?;
        }
        let GetObjectInput { bucket, key, .. } = &request.input;
        let (bucket, key) = (bucket.clone(), key.clone());
        let wanted = GetObjectOutput {
            cache_control: request.input.response_cache_control.clone(),
            content_disposition: request.input.response_content_disposition.clone(),
            content_encoding: request.input.response_content_encoding.clone(),
            content_language: request.input.response_content_language.clone(),
            content_type: request.input.response_content_type.clone(),
            ..GetObjectOutput::default()
        };
        let mut response = self.files.get_object(request).await?;
        let output = &mut response.output;
        output.body = Some(self.body(&bucket, &key, output).await.map_err(|error| s3_error!(error, InternalError))?);
        output.cache_control = wanted.cache_control.or(output.cache_control.take());
        output.content_disposition = wanted.content_disposition.or(output.content_disposition.take());
        output.content_encoding = wanted.content_encoding.or(output.content_encoding.take());
        output.content_language = wanted.content_language.or(output.content_language.take());
        output.content_type = wanted.content_type.or(output.content_type.take());
        output.accept_ranges = Some("bytes".to_owned());
        Ok(response)
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let (bucket, key) = (request.input.bucket.clone(), request.input.key.clone());
        let response = self.files.delete_object(request).await?;
        self.remove_side_files(&bucket, &key);
        Ok(response)
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let bucket = request.input.bucket.clone();
        let keys: Vec<_> = request.input.delete.objects.iter().map(|object| object.key.clone()).collect();
        let response = self.files.delete_objects(request).await?;
        for key in keys {
            self.remove_side_files(&bucket, &key);
        }
        Ok(response)
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let ListMultipartUploadsInput { bucket, prefix, .. } = request.input;
        if !self.root.join(&bucket).is_dir() {
            return Err(s3_error!(NoSuchBucket));
        }
        let uploads = self
            .open_uploads(&bucket, prefix.as_deref().unwrap_or(""))
            .map_err(|error| s3_error!(error, InternalError))?;
        // All in one page: a development machine has few.
        Ok(S3Response::new(ListMultipartUploadsOutput {
            bucket: Some(bucket),
            prefix,
            is_truncated: Some(false),
            max_uploads: Some(1000),
            uploads: Some(uploads),
            ..ListMultipartUploadsOutput::default()
        }))
    }

    // The rest is passed to s3s-fs.

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        self.files.create_bucket(request).await
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        self.files.delete_bucket(request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        self.files.get_bucket_location(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        self.files.head_bucket(request).await
    }

    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        self.files.list_buckets(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        self.files.head_object(request).await
    }

    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        self.files.put_object(request).await
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        self.files.copy_object(request).await
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        self.files.list_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        self.files.list_objects_v2(request).await
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        self.files.create_multipart_upload(request).await
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        self.files.upload_part(request).await
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        self.files.upload_part_copy(request).await
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        self.files.list_parts(request).await
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        self.files.complete_multipart_upload(request).await
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.files.abort_multipart_upload(request).await
    }
}
