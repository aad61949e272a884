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
    /// Both are one line. A field may be a key of a client, and a message may list columns of whoever owns a relation, so control
    /// characters, which a terminal or a log would obey, are escaped.
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: without_control(field.into()), message: without_control(message.into()) }
    }
}

fn without_control(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    let escaped = |character: char| match character {
        control if control.is_control() => control.escape_default().to_string(),
        other => other.to_string(),
    };
    text.chars().map(escaped).collect()
}

/// The first few errors in one line.
pub(super) fn summary(errors: &[FieldError]) -> String {
    const SHOWN: usize = 5;
    let shown = errors.iter().take(SHOWN).map(|error| format!("{}: {}", error.field, error.message));
    let more = (errors.len() > SHOWN).then(|| format!("and {} more", errors.len() - SHOWN));
    shown.chain(more).collect::<Vec<_>>().join("; ")
}
