//! The `filters` of a submission: conditions of the file's rows. Whether a value is valid for its column's type is checked by
//! the server, in `plan_check`.

use polyglot_core::column::{Column, WireType};
use polyglot_core::selection::{Filter, FilterOp};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::field::{choice, given, kind, text, unknown_keys};
use super::limits::{FILTER_VALUES, FILTERS, PATH_STEP_BYTES, PATH_STEPS};
use crate::problem::{FieldError, listed};

/// A filter of a submission, as far as it could be read.
#[derive(Debug)]
pub(super) struct DraftFilter {
    /// Position in the request.
    index: usize,
    pub(super) column: Option<String>,
    /// Empty where the request has none; `None` where it could not be read.
    path: Option<Vec<String>>,
    op: Option<FilterOp>,
    values: Option<Vec<String>>,
}

impl DraftFilter {
    pub(super) fn column_field(&self) -> String {
        format!("filters[{}].column", self.index)
    }

    pub(super) fn op_field(&self) -> String {
        format!("filters[{}].op", self.index)
    }

    fn path_field(&self) -> String {
        format!("filters[{}].path", self.index)
    }

    pub(super) fn value_field(&self) -> String {
        format!("filters[{}].value", self.index)
    }

    /// The filter, if nothing of it was refused.
    pub(super) fn complete(&self) -> Option<Filter> {
        Some(Filter {
            column: self.column.clone()?,
            path: self.path.clone()?,
            op: self.op?,
            values: self.values.clone()?,
        })
    }

    /// An error of an operator that the column does not have, or of a path into what is no JSON.
    pub(super) fn type_error(&self, column: &Column) -> Option<FieldError> {
        let has_path = self.path.as_ref().is_some_and(|path| !path.is_empty());
        let sql_type = &column.sql_type;
        if has_path && path_operators(column).is_empty() {
            let message = format!("is for columns of type json and jsonb, not for type {sql_type}");
            return Some(FieldError::new(self.path_field(), message));
        }
        let offered = if has_path { path_operators(column) } else { operators(column) };
        let op = self.op.filter(|op| !offered.contains(op))?;
        let name = op.name();
        let message = if is_pattern(op) && column.wire == WireType::Bytea && column.array.is_none() {
            format!("{name} is for text, not for type {sql_type}")
        } else if is_document(column) {
            format!("there is no operator {name} for type {sql_type}; with a path it compares what is in the document")
        } else {
            format!("there is no operator {name} for type {sql_type}")
        };
        // A path that could not be read is an error of its own, and may be what the operator was for.
        self.path.as_ref().map(|_| FieldError::new(self.op_field(), message))
    }
}

const COMPARISONS: [FilterOp; 9] = [
    FilterOp::Equal,
    FilterOp::NotEqual,
    FilterOp::Less,
    FilterOp::LessOrEqual,
    FilterOp::Greater,
    FilterOp::GreaterOrEqual,
    FilterOp::In,
    FilterOp::IsNull,
    FilterOp::IsNotNull,
];

/// The operators that the column itself can be filtered with. A type that the service knows by its text alone, as those of extensions,
/// has all of them here, and so have the labels of an enum: whether the type has one is for the server to say, in `plan_check`.
pub(crate) fn operators(column: &Column) -> &'static [FilterOp] {
    match column.wire {
        WireType::Json => &[FilterOp::IsNull, FilterOp::IsNotNull],
        WireType::Text | WireType::TextForm if column.array.is_none() => &FilterOp::ALL,
        // bytea has LIKE, but its pattern is bytea too, with escapes of its own.
        WireType::Bytea
        | WireType::Text
        | WireType::TextForm
        | WireType::Bool
        | WireType::Int2
        | WireType::Int4
        | WireType::Int8
        | WireType::Float4
        | WireType::Float8
        | WireType::Numeric(_)
        | WireType::Date
        | WireType::Time
        | WireType::Timestamp
        | WireType::TimestampTz
        | WireType::Uuid
        | WireType::Jsonb => &COMPARISONS,
    }
}

/// The operators for what is in the column at a path; none where the column takes no path.
pub(crate) fn path_operators(column: &Column) -> &'static [FilterOp] {
    if is_document(column) { &FilterOp::ALL } else { &[] }
}

fn is_document(column: &Column) -> bool {
    matches!(column.wire, WireType::Json | WireType::Jsonb) && column.array.is_none()
}

/// Reads `value`, the member `filters` of the JSON in `body`.
pub(super) fn read(value: Option<&Value>, body: &[u8], errors: &mut Vec<FieldError>) -> Vec<DraftFilter> {
    let problem = match value {
        None => return Vec::new(),
        Some(Value::Array(items)) if items.len() > FILTERS => {
            format!("expected at most {FILTERS} filters, not {}", items.len())
        }
        Some(Value::Array(items)) => {
            let tokens = Tokens::of(body);
            let each = items.iter().enumerate();
            return each.filter_map(|(index, item)| read_one(index, item, &tokens, errors)).collect();
        }
        Some(other) => format!("expected an array of {{\"column\", \"op\", \"value\"}}, not {}", kind(other)),
    };
    errors.push(FieldError::new("filters", problem));
    Vec::new()
}

fn read_one(index: usize, item: &Value, tokens: &Tokens<'_>, errors: &mut Vec<FieldError>) -> Option<DraftFilter> {
    let field = format!("filters[{index}]");
    let Value::Object(item) = item else {
        let message = format!("expected an object with column, op and value, not {}", kind(item));
        errors.push(FieldError::new(field, message));
        return None;
    };
    let column = text(given(item, "column"), &format!("{field}.column"), errors).map(str::to_owned);
    let names = || listed(FilterOp::ALL.map(FilterOp::name));
    let op = choice(given(item, "op"), &format!("{field}.op"), "operator", FilterOp::from_name, names, errors);
    let path = read_path(given(item, "path"), &format!("{field}.path"), errors);
    let value_field = format!("{field}.value");
    // A path that could not be read is one all the same.
    let at_path = path.as_ref().is_none_or(|path| !path.is_empty());
    let values = op.and_then(|op| {
        let comparison = Comparison { op, at_path };
        read_values(comparison, item.get("value"), &value_field, |place| tokens.get(index, place), errors)
    });
    unknown_keys(item, &["column", "path", "op", "value"], &format!("{field}."), errors);
    Some(DraftFilter { index, column, path, op, values })
}

/// Reads the steps into a JSON column; absent is none.
fn read_path(value: Option<&Value>, field: &str, errors: &mut Vec<FieldError>) -> Option<Vec<String>> {
    let mut refuse = |field: String, problem: String| {
        errors.push(FieldError::new(field, problem));
        None
    };
    let steps = match value {
        None => return Some(Vec::new()),
        Some(Value::Array(steps)) if (1..=PATH_STEPS).contains(&steps.len()) => steps,
        Some(Value::Array(steps)) => {
            let problem = format!(
                "expected 1 to {PATH_STEPS} steps, not {}; leave path out to compare the column itself",
                steps.len()
            );
            return refuse(field.to_owned(), problem);
        }
        Some(other) => {
            let problem = format!("expected an array of keys, as [\"customer\", \"id\"], not {}", kind(other));
            return refuse(field.to_owned(), problem);
        }
    };
    let mut path = Vec::with_capacity(steps.len());
    for (place, step) in steps.iter().enumerate() {
        let problem = match step {
            Value::String(step) if step.contains('\0') => {
                "may not hold U+0000, which no key in PostgreSQL has".to_owned()
            }
            Value::String(step) if step.len() > PATH_STEP_BYTES => {
                format!("expected at most {PATH_STEP_BYTES} bytes, not {}", step.len())
            }
            Value::String(step) => {
                path.push(step.clone());
                continue;
            }
            other => format!("expected a string (of an array's item: its position, as \"0\"), not {}", kind(other)),
        };
        return refuse(format!("{field}[{place}]"), problem);
    }
    Some(path)
}

/// What decides how a value is read.
#[derive(Debug, Clone, Copy)]
struct Comparison {
    op: FilterOp,
    /// With what a JSON column has at a path, instead of with a column.
    at_path: bool,
}

fn is_pattern(op: FilterOp) -> bool {
    matches!(op, FilterOp::Like | FilterOp::Ilike)
}

fn read_values<'t>(
    comparison: Comparison,
    value: Option<&Value>,
    field: &str,
    token: impl Fn(usize) -> Option<&'t str>,
    errors: &mut Vec<FieldError>,
) -> Option<Vec<String>> {
    let op = comparison.op;
    let mut refuse = |message: String| {
        errors.push(FieldError::new(field, message));
        None
    };
    match (op, value) {
        (FilterOp::IsNull | FilterOp::IsNotNull, None | Some(Value::Null)) => Some(Vec::new()),
        (FilterOp::IsNull | FilterOp::IsNotNull, Some(_)) => refuse(format!("{} takes no value", op.name())),
        (_, None) => refuse("is required".to_owned()),
        (FilterOp::In, Some(Value::Array(items))) if items.is_empty() => {
            refuse("expected at least one value".to_owned())
        }
        (FilterOp::In, Some(Value::Array(items))) if items.len() > FILTER_VALUES => {
            refuse(format!("expected at most {FILTER_VALUES} values, not {}", items.len()))
        }
        (FilterOp::In, Some(Value::Array(items))) => {
            let each = items.iter().enumerate();
            let read: Vec<_> = each
                .map(|(place, item)| literal(comparison, item, token(place), &format!("{field}[{place}]"), errors))
                .collect();
            read.into_iter().collect()
        }
        (FilterOp::In, Some(other)) => refuse(format!("expected an array of values, not {}", kind(other))),
        (_, Some(Value::Array(_))) => refuse("expected one value; the operator in takes several".to_owned()),
        (_, Some(value)) => literal(comparison, value, token(0), field, errors).map(|value| vec![value]),
    }
}

/// The text of one value for the server, with a path its JSON. `token` is the value's JSON, as the client wrote it.
fn literal(
    comparison: Comparison,
    value: &Value,
    token: Option<&str>,
    field: &str,
    errors: &mut Vec<FieldError>,
) -> Option<String> {
    let Comparison { op, at_path } = comparison;
    let problem = match value {
        Value::Number(_) | Value::Bool(_) if at_path && is_pattern(op) => {
            format!("{} compares text: expected a string, not {}", op.name(), kind(value))
        }
        Value::Bool(_)
            if at_path
                && matches!(
                    op,
                    FilterOp::Less | FilterOp::LessOrEqual | FilterOp::Greater | FilterOp::GreaterOrEqual
                ) =>
        {
            format!("{} is for numbers and strings; true and false have =, != and in", op.name())
        }
        Value::String(text) if text.contains('\0') => {
            "may not hold U+0000, which no value in PostgreSQL has".to_owned()
        }
        // The server would fail only at the first row that matches the rest of the pattern.
        Value::String(text) if is_pattern(op) && ends_with_escape(text) => {
            "a pattern may not end in a single backslash; \\\\ stands for one".to_owned()
        }
        Value::String(_) if at_path => return Some(value.to_string()),
        Value::String(text) => return Some(text.clone()),
        Value::Bool(truth) => return Some(truth.to_string()),
        Value::Number(number) => return Some(token.map_or_else(|| number.to_string(), str::to_owned)),
        Value::Null => "may not be null; to find NULL use the operator is_null".to_owned(),
        Value::Array(_) | Value::Object(_) => {
            format!("expected a string, a number or a boolean, not {}", kind(value))
        }
    };
    errors.push(FieldError::new(field, problem));
    None
}

fn ends_with_escape(pattern: &str) -> bool {
    pattern.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

/// The values of each filter as the client wrote them. In a `Value`, a number with many digits has become a double.
#[derive(Default)]
struct Tokens<'a>(Vec<Vec<&'a str>>);

#[derive(Deserialize)]
struct RawBody<'a> {
    #[serde(borrow)]
    filters: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawFilter<'a> {
    #[serde(borrow)]
    value: &'a RawValue,
}

impl<'a> Tokens<'a> {
    /// A filter that cannot be parsed has no tokens: it has no numbers, or is refused for another mistake.
    fn of(body: &'a [u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<RawBody<'a>>(body) else { return Self::default() };
        Self(body.filters.into_iter().map(|filter| Self::of_one(filter).unwrap_or_default()).collect())
    }

    fn of_one(filter: &'a RawValue) -> Option<Vec<&'a str>> {
        let value = serde_json::from_str::<RawFilter<'a>>(filter.get()).ok()?.value.get();
        if !value.starts_with('[') {
            return Some(vec![value]);
        }
        let items: Vec<&'a RawValue> = serde_json::from_str(value).ok()?;
        Some(items.into_iter().map(RawValue::get).collect())
    }

    fn get(&self, filter: usize, place: usize) -> Option<&'a str> {
        self.0.get(filter)?.get(place).copied()
    }
}
