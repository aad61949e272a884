//! The description of the API (OpenAPI 3.1) under `/openapi.json`, and its viewer under `/docs`.

pub(crate) mod description;
pub(crate) mod problem_page;
mod problems;
mod security;
pub(crate) mod submission;
pub(crate) mod viewer;
