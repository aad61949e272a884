//! The `columns` of a submission: the columns of the file, and their names in it.

use std::collections::HashMap;

use polyglot_core::request::ColumnMapping;
use serde_json::Value;

use super::field::{given, items, kind, text, unknown_keys};
use super::limits::{COLUMNS, TARGET_BYTES};
use crate::problem::{FieldError, quoted};

/// A column of a submission, as far as it could be read.
#[derive(Debug)]
pub(super) struct DraftColumn {
    /// Position in the request.
    index: usize,
    pub(super) source: Option<String>,
    target: Option<String>,
}

impl DraftColumn {
    pub(super) fn source_field(&self) -> String {
        format!("columns[{}].source", self.index)
    }

    /// The column, if nothing of it was refused.
    pub(super) fn complete(self) -> Option<ColumnMapping> {
        Some(ColumnMapping { source: self.source?, target: self.target? })
    }
}

pub(super) fn read(value: Option<&Value>, errors: &mut Vec<FieldError>) -> Vec<DraftColumn> {
    let problem = match value {
        None => "is required",
        Some(Value::Array(items)) if items.is_empty() => "expected at least one column",
        Some(value) => {
            return read_each(items(value, "columns", COLUMNS, "{\"source\", \"target\"}", errors), errors);
        }
    };
    errors.push(FieldError::new("columns", problem));
    Vec::new()
}

fn read_each(items: &[Value], errors: &mut Vec<FieldError>) -> Vec<DraftColumn> {
    let mut columns = Vec::with_capacity(items.len());
    let mut first_with: HashMap<&str, usize> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let field = format!("columns[{index}]");
        let Value::Object(item) = item else {
            let message = format!("expected an object with source and target, not {}", kind(item));
            errors.push(FieldError::new(field, message));
            continue;
        };
        let source = text(given(item, "source"), &format!("{field}.source"), errors);
        let target_field = format!("{field}.target");
        let target = text(given(item, "target"), &target_field, errors);
        if let Some(target) = target {
            // PostgreSQL allows a name of blanks, but a header without visible names is a mistake.
            if target.trim().is_empty() {
                errors.push(FieldError::new(&target_field, "may not be blank"));
            } else if target.len() > TARGET_BYTES {
                let message = format!("expected at most {TARGET_BYTES} bytes, not {}", target.len());
                errors.push(FieldError::new(&target_field, message));
            } else if target.contains(char::is_control) {
                errors.push(FieldError::new(&target_field, "may not hold control characters"));
            }
            let first = *first_with.entry(target).or_insert(index);
            if first != index {
                let message = format!("{} is the target of columns[{first}] already", quoted(target));
                errors.push(FieldError::new(&target_field, message));
            }
        }
        unknown_keys(item, &["source", "target"], &format!("{field}."), errors);
        columns.push(DraftColumn { index, source: source.map(str::to_owned), target: target.map(str::to_owned) });
    }
    columns
}
