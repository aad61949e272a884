//! The `orderBy` of a submission: the columns by which rows are sorted.

use polyglot_core::selection::{Direction, OrderKey};
use serde_json::Value;

use super::field::{choice, given, items, kind, text, unknown_keys};
use super::limits::ORDER_KEYS;
use crate::problem::{FieldError, quoted};

const DIRECTIONS: [(&str, Direction); 2] = [("asc", Direction::Asc), ("desc", Direction::Desc)];

/// A sort key of a submission.
#[derive(Debug)]
pub(super) struct DraftKey {
    /// Position in the request.
    index: usize,
    pub(super) key: OrderKey,
}

impl DraftKey {
    pub(super) fn column_field(&self) -> String {
        column_field(self.index)
    }
}

fn column_field(index: usize) -> String {
    format!("orderBy[{index}].column")
}

pub(super) fn read(value: Option<&Value>, errors: &mut Vec<FieldError>) -> Vec<DraftKey> {
    let Some(value) = value else { return Vec::new() };
    read_each(items(value, "orderBy", ORDER_KEYS, "{\"column\", \"direction\"}", errors), errors)
}

fn read_each(items: &[Value], errors: &mut Vec<FieldError>) -> Vec<DraftKey> {
    let mut keys: Vec<DraftKey> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let field = column_field(index);
        let (column, direction) = match item {
            Value::String(_) => (text(Some(item), &field, errors), None),
            Value::Object(item) => {
                let column = text(given(item, "column"), &field, errors);
                let direction = given(item, "direction").and_then(|direction| {
                    let find = |name: &str| {
                        DIRECTIONS.iter().find(|(known, _)| *known == name).map(|(_, direction)| *direction)
                    };
                    let field = format!("orderBy[{index}].direction");
                    choice(Some(direction), &field, "direction", find, || "asc, desc".to_owned(), errors)
                });
                unknown_keys(item, &["column", "direction"], &format!("orderBy[{index}]."), errors);
                (column, direction)
            }
            other => {
                let message = format!("expected a column's name or an object with column, not {}", kind(other));
                errors.push(FieldError::new(format!("orderBy[{index}]"), message));
                continue;
            }
        };
        let Some(column) = column else { continue };
        if let Some(first) = keys.iter().find(|earlier| earlier.key.column == column) {
            let message = format!("{} is the column of orderBy[{}] already", quoted(column), first.index);
            errors.push(FieldError::new(field, message));
            continue;
        }
        let key = OrderKey { column: column.to_owned(), direction: direction.unwrap_or_default() };
        keys.push(DraftKey { index, key });
    }
    keys
}
