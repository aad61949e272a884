//! Problems: the reasons for which a request is refused or fails, and the `application/problem+json` documents (RFC 9457)
//! that clients get.
//!
//! `RouteError` is the error type of every handler. `answer` is the table with everything that HTTP says about each of its
//! variants; responses, documents, log lines and the description of the API are made from it.

mod answer;
mod document;
mod field_error;
mod help;
mod message;
mod route_error;

pub(crate) use answer::Answer;
pub(crate) use document::Problem;
pub(crate) use field_error::FieldError;
pub(crate) use help::help;
pub(crate) use message::{listed, quoted};
pub(crate) use route_error::{Dependency, RouteError};
