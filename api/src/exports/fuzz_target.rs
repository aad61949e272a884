//! Submissions and cursors as functions of bytes, for the fuzz targets.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polyglot_core::column::{ArrayType, Column, TypeNames, WireType};
use polyglot_core::relation::{Relation, RelationKind, RelationName};
use polyglot_core::request::ExportRequest;
use tokio::runtime::Runtime;

use super::body::Body;
use super::cursor;
use super::plan_check::Planner;
use super::validate::{Catalog, validate};
use crate::dataset_config::{DEFAULT_DATASET, Dataset};
use crate::identity::Identity;
use crate::problem::RouteError;
use crate::resolved_dataset::ResolvedDataset;
use crate::source_statements::{Estimate, Refused};

/// Every word that a statement may have outside of quotes. The names of clients and their values are in quotes.
const VOCABULARY: &[&str] = &[
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "BY",
    "CASE",
    "DESC",
    "DISTINCT",
    "E",
    "ELSE",
    "END",
    "EXPLAIN",
    "FROM",
    "GROUP",
    "IS",
    "NOT",
    "NULL",
    "OPERATOR",
    "OR",
    "ORDER",
    "SELECT",
    "THEN",
    "TRUE",
    "WHEN",
    "WHERE",
    "bool",
    "boolean",
    "coalesce",
    "false",
    "format",
    "json",
    "json_typeof",
    "jsonb_typeof",
    "numeric",
    "octet_length",
    "pg_catalog",
    "r",
    "regexp_replace",
    "text",
    "true",
    "1000",
];

thread_local! {
    /// Validation sets timers.
    static RUNTIME: RefCell<Runtime> =
        RefCell::new(tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime starts"));
}

/// The body of `POST /exports`. An accepted one becomes a request that is read back as it was stored, and its statements hold
/// nothing of the client's outside of quotes.
///
/// # Panics
/// If that is not so.
#[must_use]
pub fn submission(data: &[u8]) -> bool {
    let Ok(body) = Body::parse(data.to_vec()) else { return false };
    let source = FixedSource::default();
    let result = RUNTIME.with_borrow(|runtime| runtime.block_on(validate(&body, &source, 16, &Identity::anonymous())));
    for statement in source.planned.lock().expect("nobody panics with the lock").iter() {
        assert_quoted(statement);
    }
    let Ok(valid) = result else { return false };
    let stored = serde_json::to_string(&valid.request).expect("a request is JSON");
    let read: ExportRequest = serde_json::from_str(&stored).expect("a stored request can be read");
    assert_eq!(read, valid.request, "{stored}");
    true
}

/// The cursor of a list. An accepted one is the only text of its position.
///
/// # Panics
/// If that is not so.
#[must_use]
pub fn cursor(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Some(id) = cursor::decode(text) else { return false };
    assert_eq!(cursor::encode(id), text);
    true
}

/// A source with one table of a few types, which plans every statement.
#[derive(Default)]
struct FixedSource {
    planned: Mutex<Vec<String>>,
}

impl Catalog for FixedSource {
    async fn resolve(&self, name: &str, _: Duration) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        if name != DEFAULT_DATASET {
            return Ok(None);
        }
        let column = |name: &str, sql_type: &str, wire, array| Column {
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
            type_names: TypeNames::built_in(sql_type),
            wire,
            array,
            nullable: true,
            wide: false,
            is_non_text: false,
        };
        let relation = Relation {
            name: RelationName::records(),
            kind: RelationKind::Table,
            columns: vec![
                column("id", "int8", WireType::Int8, None),
                column("na\"me", "text", WireType::Text, None),
                column("json", "json", WireType::Json, None),
                column("jsonb", "jsonb", WireType::Jsonb, None),
                column("tags", "text", WireType::Text, Some(ArrayType { dimensions: 1, delimiter: b',' })),
            ],
            primary_key: vec!["id".to_owned()],
            estimated_rows: Some(1000),
            stored_bytes: 0,
            toast_bytes: None,
            locked: false,
            runs_foreign_code: false,
        };
        ResolvedDataset::new(Dataset::whole("public", name), relation).map(|resolved| Some(Arc::new(resolved)))
    }

    fn is_hidden(&self, _: &str, _: &str) -> bool {
        false
    }
}

impl Planner for FixedSource {
    async fn plan(&self, _: &ResolvedDataset, statements: &str) -> Result<Result<Estimate, Refused>, RouteError> {
        self.planned.lock().expect("nobody panics with the lock").push(statements.to_owned());
        Ok(Ok(Estimate { rows: Some(7), ..Estimate::default() }))
    }
}

/// # Panics
/// If the statement has a word, a comment or a dollar quote outside of quotes that is not ours, or ends within quotes.
fn assert_quoted(statement: &str) {
    let bare = outside_of_quotes(statement).unwrap_or_else(|| panic!("quotes stay open: {statement}"));
    for word in
        bare.split(|character: char| !character.is_alphanumeric() && character != '_').filter(|it| !it.is_empty())
    {
        assert!(VOCABULARY.contains(&word), "{word:?} in {statement}");
    }
    for forbidden in ["--", "/*", "$", "\\", "\0"] {
        assert!(!bare.contains(forbidden), "{forbidden:?} in {statement}");
    }
    assert!(bare.split(';').all(|one| one.trim_start().starts_with("EXPLAIN SELECT FROM")), "{statement}");
}

/// The statement without what is in quotes, by PostgreSQL's rules with `standard_conforming_strings`; `None` if it ends in quotes.
fn outside_of_quotes(statement: &str) -> Option<String> {
    let mut bare = String::new();
    let mut characters = statement.chars().peekable();
    while let Some(character) = characters.next() {
        if !matches!(character, '\'' | '"') {
            bare.push(character);
            continue;
        }
        let has_escapes = character == '\'' && bare.ends_with('E');
        loop {
            match characters.next()? {
                '\\' if has_escapes => drop(characters.next()?),
                end if end == character && characters.next_if_eq(&character).is_none() => break,
                _ => {}
            }
        }
        bare.push(' ');
    }
    Some(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_of_quotes_is_found() {
        assert_eq!(outside_of_quotes(r#"a 'b''c' "d""e" E'\'f' g"#).unwrap(), "a     E  g");
        for open in ["'", "'a''", "\"a", r"E'\'"] {
            assert_eq!(outside_of_quotes(open), None, "{open}");
        }
        assert_quoted("EXPLAIN SELECT FROM \"x\".\"y; DROP\" AS r; EXPLAIN SELECT FROM \"x\"");
        for hostile in
            ["DROP", "EXPLAIN SELECT FROM \"a\"; SELECT", "EXPLAIN SELECT FROM \"a\" -- b", "EXPLAIN SELECT FROM a"]
        {
            assert!(std::panic::catch_unwind(|| assert_quoted(hostile)).is_err(), "{hostile}");
        }
    }
}
