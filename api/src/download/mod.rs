//! `GET /exports/{id}/download`: waits until the export has ended, then says where the file is (`redirect`) or sends it
//! (`proxy`). Both give the file the same headers. Of a result of several files the manifest has the links.

mod content_coding;
mod etag;
pub(crate) mod handler;
pub(crate) mod presigned;
mod proxy;
mod range;
mod redirect;
mod stored_file;
mod wait;
