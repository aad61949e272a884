//! The `{id}` of paths under `/exports`.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use uuid::Uuid;

use crate::problem::RouteError;

/// An export's id. Only the form that the api answers is accepted: 36 characters with hyphens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExportId(pub(crate) Uuid);

impl<S: Send + Sync> FromRequestParts<S> for ExportId {
    type Rejection = RouteError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RouteError> {
        let text = Path::<String>::from_request_parts(parts, state).await.ok();
        text.filter(|Path(text)| text.len() == 36)
            .and_then(|Path(text)| Uuid::try_parse(&text).ok())
            .map(Self)
            .ok_or_else(|| RouteError::invalid("id", "expected a UUID, as POST /exports answers it"))
    }
}
