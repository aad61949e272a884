//! Readers of single fields of a submission. A mistake is added to the list of errors under the field's name, and reading
//! goes on.

use std::fmt::Display;
use std::ops::RangeInclusive;

use polyglot_core::column::Column;
use serde_json::{Map, Value};

use crate::problem::{FieldError, listed, quoted};
use crate::resolved_dataset::ResolvedDataset;

/// Errors in one answer. The answer should not be larger than the request.
pub(super) const MAX_ERRORS: usize = 100;

/// The member of an object, unless it is null: `null` where a field may be left out is the same as to leave it out.
pub(super) fn given<'v>(object: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    object.get(name).filter(|value| !value.is_null())
}

/// Reads a string that is not empty.
pub(super) fn text<'v>(value: Option<&'v Value>, field: &str, errors: &mut Vec<FieldError>) -> Option<&'v str> {
    let problem = match value {
        None => "is required".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "may not be empty".to_owned(),
        Some(Value::String(text)) => return Some(text),
        Some(other) => format!("expected a string, not {}", kind(other)),
    };
    errors.push(FieldError::new(field, problem));
    None
}

/// Reads a string for which `find` knows the value. `what` (in the singular) and `choices` are for the message.
pub(super) fn choice<T>(
    value: Option<&Value>,
    field: &str,
    what: &str,
    find: impl Fn(&str) -> Option<T>,
    choices: impl FnOnce() -> String,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    let name = text(value, field, errors)?;
    let found = find(name);
    if found.is_none() {
        errors.push(FieldError::new(field, format!("unknown {what} {}; there is {}", quoted(name), choices())));
    }
    found
}

/// Reads a boolean; absent is false.
pub(super) fn flag(value: Option<&Value>, field: &str, errors: &mut Vec<FieldError>) -> bool {
    match value {
        None => false,
        Some(Value::Bool(flag)) => *flag,
        Some(other) => {
            errors.push(FieldError::new(field, format!("expected true or false, not {}", kind(other))));
            false
        }
    }
}

/// Reads a whole number in `range`. The error is the message for the client; `unit` is for the message.
pub(super) fn whole_number<T>(value: &Value, range: &RangeInclusive<T>, unit: &str) -> Result<T, String>
where
    T: TryFrom<u64> + PartialOrd + Display,
{
    let number = value.as_u64().and_then(|number| T::try_from(number).ok()).filter(|number| range.contains(number));
    number.ok_or_else(|| not_a_whole_number(value, range, unit))
}

/// What is wrong with a number that is not a whole one in `range`.
pub(super) fn not_a_whole_number<T: Display>(value: &Value, range: &RangeInclusive<T>, unit: &str) -> String {
    let given = if value.is_number() { value.to_string() } else { kind(value).to_owned() };
    format!("expected a whole number from {} to {} ({unit}), not {given}", range.start(), range.end())
}

/// Reads the items of an array of at most `max` columns; empty if there is a mistake. `shape` is the form of an item, for the
/// message.
pub(super) fn items<'v>(
    value: &'v Value,
    field: &str,
    max: usize,
    shape: &str,
    errors: &mut Vec<FieldError>,
) -> &'v [Value] {
    let problem = match value {
        Value::Array(items) if items.len() > max => format!("expected at most {max} columns, not {}", items.len()),
        Value::Array(items) => return items,
        other => format!("expected an array of {shape}, not {}", kind(other)),
    };
    errors.push(FieldError::new(field, problem));
    &[]
}

/// Refuses keys that are not `known`. `path` is the field of the object, with the dot that follows.
pub(super) fn unknown_keys(object: &Map<String, Value>, known: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
        errors.push(FieldError::new(member(path, key), format!("unknown field; there is {}", listed(known))));
    }
}

/// The path of an object's member. The key is a client's text and is cut at 80 characters.
pub(super) fn member(path: &str, key: &str) -> String {
    format!("{path}{}", key.chars().take(80).collect::<String>())
}

/// Looks an exposed column up. The message for an unknown name lists the columns of the dataset, so it is not made for more
/// errors than are answered.
pub(super) fn known_column<'d>(
    name: &str,
    field: &str,
    resolved: &'d ResolvedDataset,
    errors: &mut Vec<FieldError>,
) -> Option<&'d Column> {
    const SHOWN: usize = 50;
    let column = resolved.column(name);
    if column.is_none() && errors.len() < MAX_ERRORS {
        let more = resolved.columns().count().saturating_sub(SHOWN);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let names = listed(resolved.columns().take(SHOWN).map(|column| &column.name));
        errors.push(FieldError::new(field, format!("there is no column {}; there is {names}{more}", quoted(name))));
    }
    column
}

/// As [`known_column`], for a column by whose values rows are chosen or sorted. Which rows are found, or where they lie, would tell
/// of values that are masked.
pub(super) fn comparable_column<'d>(
    name: &str,
    field: &str,
    resolved: &'d ResolvedDataset,
    errors: &mut Vec<FieldError>,
) -> Option<&'d Column> {
    let column = known_column(name, field, resolved, errors)?;
    if resolved.mask(name).is_some() {
        let message =
            format!("the values of {} are masked, so rows can neither be filtered nor sorted by it", quoted(name));
        errors.push(FieldError::new(field, message));
        return None;
    }
    Some(column)
}

/// The type of a JSON value, for messages.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
