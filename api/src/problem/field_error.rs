//! One mistake in a request, named by its field.

use serde::Serialize;
use utoipa::ToSchema;

/// One thing that is wrong with a request, and where: `columns[1].source`, a query parameter, a header, `body`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct FieldError {
    pub(crate) field: String,
    pub(crate) message: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// The first few errors in one line.
pub(super) fn summary(errors: &[FieldError]) -> String {
    const SHOWN: usize = 5;
    let shown = errors.iter().take(SHOWN).map(|error| format!("{}: {}", error.field, error.message));
    let more = (errors.len() > SHOWN).then(|| format!("and {} more", errors.len() - SHOWN));
    shown.chain(more).collect::<Vec<_>>().join("; ")
}
