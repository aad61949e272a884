//! From a JSON value to an export request, by hand, so that every mistake is reported at once and each one names
//! its field. Whether the columns exist is asked of the catalog at the end.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use polyglot_export::catalog::Relation;
use polyglot_export::dataset::{DEFAULT_DATASET, Dataset, Datasets};
use polyglot_export::format::{Compression, Format};
use polyglot_export::request::{ColumnMapping, ExportRequest};
use serde_json::{Map, Value};

use crate::problem::{FieldError, RouteError, listed, quoted};
use crate::source::{RECENT, Source};

/// As many columns as a PostgreSQL table can have.
const MOST_COLUMNS: usize = 1600;

const LONGEST_TARGET: usize = 255;

/// Enough to see the pattern; an answer is not to be larger than the question.
const MOST_ERRORS: usize = 100;

/// Fields that have a meaning to come. They are refused by name: an export that ignores a filter is wrong.
const NOT_YET: [&str; 5] = ["filters", "orderBy", "options", "parallelism", "layout"];

/// A request in which everything that can be seen without the database has been looked at.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    format: Option<Format>,
    compression: Option<Compression>,
    dataset: Option<&'a Dataset>,
    columns: Vec<DraftColumn>,
    errors: Vec<FieldError>,
}

#[derive(Debug)]
struct DraftColumn {
    /// Its place in the request.
    index: usize,
    source: Option<String>,
    target: Option<String>,
}

impl<'a> Draft<'a> {
    /// # Errors
    /// Only when `body` is no object, and there is nothing to draft from.
    pub(super) fn read(body: &Value, datasets: &'a Datasets) -> Result<Self, RouteError> {
        let Value::Object(body) = body else {
            return Err(RouteError::invalid("body", format!("expected a JSON object, not {}", kind(body))));
        };
        let mut errors = Vec::new();
        let columns = read_columns(body.get("columns"), &mut errors);
        let format = read_format(body.get("format"), &mut errors);
        let compression = read_compression(body.get("compression"), format, &mut errors);
        let dataset = read_dataset(body.get("dataset"), datasets, &mut errors);
        unknown_keys(body, &["format", "columns", "compression", "dataset"], "", &mut errors);
        Ok(Self { format, compression, dataset, columns, errors })
    }

    /// The dataset whose columns are to be looked up; none when there is nothing to look up.
    pub(super) fn dataset(&self) -> Option<&'a Dataset> {
        self.dataset.filter(|_| self.columns.iter().any(|column| column.source.is_some()))
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether every source is a column of `relation`.
    pub(super) fn fits(&self, relation: &Relation) -> bool {
        self.columns.iter().filter_map(|column| column.source.as_deref()).all(|it| relation.column(it).is_some())
    }

    /// The request, or everything that is wrong with it. `relation` is what the catalog says of `dataset()`;
    /// without it columns stay unchecked, so pass `None` only where there are errors already.
    pub(super) fn finish(mut self, relation: Option<&Relation>) -> Result<ExportRequest, RouteError> {
        if let Some(relation) = relation {
            for column in &self.columns {
                if let Some(source) = column.source.as_deref().filter(|it| relation.column(it).is_none()) {
                    let field = format!("columns[{}].source", column.index);
                    self.errors.push(FieldError::new(field, unknown_column(source, relation)));
                }
            }
        }
        let whole = self
            .columns
            .into_iter()
            .map(|column| Some(ColumnMapping { source: column.source?, target: column.target? }));
        match (self.format, self.dataset, whole.collect::<Option<Vec<_>>>()) {
            (Some(format), Some(dataset), Some(columns)) if self.errors.is_empty() => Ok(ExportRequest {
                dataset: dataset.name.clone(),
                format,
                columns,
                compression: self.compression,
                row_limit: None,
            }),
            _ => {
                self.errors.truncate(MOST_ERRORS);
                Err(RouteError::Invalid(self.errors))
            }
        }
    }
}

fn read_format(value: Option<&Value>, errors: &mut Vec<FieldError>) -> Option<Format> {
    let name = text(value, "format", errors)?;
    let format = Format::from_name(name);
    if format.is_none() {
        let message = format!("unknown format {}; there is {}", quoted(name), listed(Format::ALL));
        errors.push(FieldError::new("format", message));
    }
    format
}

fn read_compression(
    value: Option<&Value>,
    format: Option<Format>,
    errors: &mut Vec<FieldError>,
) -> Option<Compression> {
    let value = value.filter(|value| !value.is_null())?;
    let name = text(Some(value), "compression", errors)?;
    let Some(compression) = Compression::from_name(name) else {
        let names = listed(Compression::ALL.map(Compression::name));
        let message = format!("unknown compression {}; there is {names}", quoted(name));
        errors.push(FieldError::new("compression", message));
        return None;
    };
    if let Some(format) = format.filter(|format| !format.is_text()) {
        let message = format!("{format} compresses its own content and cannot be combined with {}", compression.name());
        errors.push(FieldError::new("compression", message));
    }
    Some(compression)
}

fn read_dataset<'a>(
    value: Option<&Value>,
    datasets: &'a Datasets,
    errors: &mut Vec<FieldError>,
) -> Option<&'a Dataset> {
    let name = match value {
        None => DEFAULT_DATASET,
        Some(value) => text(Some(value), "dataset", errors)?,
    };
    let dataset = datasets.find(name);
    if dataset.is_none() {
        errors.push(FieldError::new("dataset", format!("there is no dataset {}", quoted(name))));
    }
    dataset
}

fn read_columns(value: Option<&Value>, errors: &mut Vec<FieldError>) -> Vec<DraftColumn> {
    let problem = match value {
        None => "is required".to_owned(),
        Some(Value::Array(items)) if items.is_empty() => "expected at least one column".to_owned(),
        Some(Value::Array(items)) if items.len() > MOST_COLUMNS => {
            format!("expected at most {MOST_COLUMNS} columns, not {}", items.len())
        }
        Some(Value::Array(items)) => return read_each_column(items, errors),
        Some(other) => format!("expected an array of {{\"source\", \"target\"}}, not {}", kind(other)),
    };
    errors.push(FieldError::new("columns", problem));
    Vec::new()
}

fn read_each_column(items: &[Value], errors: &mut Vec<FieldError>) -> Vec<DraftColumn> {
    let mut columns = Vec::with_capacity(items.len());
    let mut first_with: HashMap<&str, usize> = HashMap::new();
    for (index, item) in items.iter().enumerate() {
        let field = format!("columns[{index}]");
        let Value::Object(item) = item else {
            let message = format!("expected an object with source and target, not {}", kind(item));
            errors.push(FieldError::new(field, message));
            continue;
        };
        let source = text(item.get("source"), &format!("{field}.source"), errors);
        let target_field = format!("{field}.target");
        let target = text(item.get("target"), &target_field, errors);
        if let Some(target) = target {
            if target.len() > LONGEST_TARGET {
                let message = format!("expected at most {LONGEST_TARGET} bytes, not {}", target.len());
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

/// A string with something in it, exactly as it was sent.
fn text<'v>(value: Option<&'v Value>, field: &str, errors: &mut Vec<FieldError>) -> Option<&'v str> {
    let problem = match value {
        None => "is required".to_owned(),
        Some(Value::String(text)) if text.trim().is_empty() => "may not be empty".to_owned(),
        Some(Value::String(text)) => return Some(text),
        Some(other) => format!("expected a string, not {}", kind(other)),
    };
    errors.push(FieldError::new(field, problem));
    None
}

fn unknown_keys(object: &Map<String, Value>, known: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
        let field = format!("{path}{}", key.chars().take(80).collect::<String>());
        let message = if path.is_empty() && NOT_YET.contains(&key.as_str()) {
            "is not supported yet".to_owned()
        } else {
            format!("unknown field; there is {}", listed(known))
        };
        errors.push(FieldError::new(field, message));
    }
}

fn unknown_column(source: &str, relation: &Relation) -> String {
    const SHOWN: usize = 50;
    let more = relation.columns.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let names = listed(relation.columns.iter().take(SHOWN).map(|column| &column.name));
    format!("there is no column {}; there is {names}{more}", quoted(source))
}

/// What a JSON value is, in a message.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Where the columns of a dataset are looked up.
pub(super) trait Catalog {
    /// The relation behind `dataset`, as it was at most `age` ago.
    fn describe(
        &self,
        dataset: &Dataset,
        age: Duration,
    ) -> impl Future<Output = Result<Arc<Relation>, RouteError>> + Send;
}

impl Catalog for Source {
    fn describe(
        &self,
        dataset: &Dataset,
        age: Duration,
    ) -> impl Future<Output = Result<Arc<Relation>, RouteError>> + Send {
        self.describe(dataset, age)
    }
}

/// The request in `body`, checked against the datasets and what the catalog says of their columns.
pub(super) async fn validate(
    body: &Value,
    datasets: &Datasets,
    catalog: &impl Catalog,
) -> Result<ExportRequest, RouteError> {
    let draft = Draft::read(body, datasets)?;
    let Some(dataset) = draft.dataset() else { return draft.finish(None) };
    let described = match catalog.describe(dataset, RECENT).await {
        // A column that was added a moment ago exists.
        Ok(relation) if !draft.fits(&relation) => catalog.describe(dataset, Duration::ZERO).await,
        other => other,
    };
    match described {
        Ok(relation) => draft.finish(Some(&relation)),
        // What is wrong for certain is worth more than what cannot be known now.
        Err(_) if draft.has_errors() => draft.finish(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
