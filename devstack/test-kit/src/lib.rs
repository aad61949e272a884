//! The kit of the tests that run the whole system: start a system of api and workers, call its api, wait for a condition.
//! Assertions about the product are in the tests.

mod api_client;
mod bucket;
mod process;
mod python;
mod requests;
mod system;

pub use api_client::ApiClient;
pub use bucket::Bucket;
pub use polyglot_devstack::wait::{DEADLINE, wait_until, wait_until_within};
pub use process::{Process, binary};
pub use python::{python_command, python_output};
pub use requests::{SAMPLE_COLUMNS, columns, export_request, first_rows, sample_request};
pub use system::{Setup, System, scratch_database};
