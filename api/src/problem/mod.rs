//! Problems: the reasons for which a request is refused or fails, and the `application/problem+json` documents (RFC 9457)
//! that clients get.
//!
//! `RouteError` is the error type of every handler. `answer` is the table with everything that HTTP says about each of its
//! variants; responses, documents, log lines and the description of the API are made from it.

mod answer;
mod document;
mod field_error;
mod message;
mod route_error;

pub(crate) use document::Problem;
pub(crate) use field_error::FieldError;
pub(crate) use message::{listed, quoted};
pub(crate) use route_error::{Dependency, RouteError};
#[cfg(test)]
mod dump {
    use crate::problem::RouteError;
    use crate::problem::{Dependency, FieldError};
    use axum::response::IntoResponse;
    use polyglot_core::status::Status;
    use uuid::Uuid;
    #[test]
    fn dump_problems() {
        let Ok(path) = std::env::var("DUMP_PROBLEMS") else { return };
        use RouteError as E;
        let id = Uuid::nil();
        let many: Vec<FieldError> = (0..8).map(|at| FieldError::new(format!("f[{at}]"), "is bad")).collect();
        let all = vec![
            E::Invalid(many.clone()),
            E::Invalid(many[..2].to_vec()),
            E::KeyReused,
            E::KeyInProgress,
            E::NoSuchRoute,
            E::MethodNotAllowed,
            E::BodyTooSlow,
            E::BodyTooLarge { limit: 7 },
            E::UnknownExport(id),
            E::UnknownDataset("a\"b".repeat(50)),
            E::ExportNotFinished { status: Status::Running, retry_after: 9 },
            E::NoManifest(id),
            E::ExportFailed { code: Some("x".into()), message: Some("y".into()) },
            E::ExportFailed { code: None, message: None },
            E::ExportGone(Status::Cancelled),
            E::ExportGone(Status::Expired),
            E::SeveralFiles(id),
            E::RangeOutside { size: 17 },
            E::FileMissing { id },
            E::DatasetUnavailable { dataset: "d\"".into(), source: "s".into() },
            E::Unavailable { what: Dependency::Ledger, source: "s".into() },
            E::Unavailable { what: Dependency::Source, source: "s".into() },
            E::Unavailable { what: Dependency::Store, source: "s".into() },
            E::BenchmarkRunning,
            E::BenchmarkFailed { format: "csv".to_owned(), message: "m".into() },
            E::NoWorker,
            E::Stopping,
            E::PreviewTooSlow,
            E::PreviewFailed { sql_state: "22012".into() },
            E::TooManyStreams,
            E::Internal("s".into()),
            E::Panicked,
        ];
        let mut out = String::new();
        for error in all {
            let name = format!("{error:?}");
            let document = error.answer().document("/i", "r").to_string();
            let document = document.into_bytes();
            let response = error.into_response();
            out += &format!(
                "{name}\n{} {:?}\n{}\n",
                response.status(),
                response.headers(),
                String::from_utf8_lossy(&document)
            );
        }
        std::fs::write(path, out).unwrap();
    }
}
