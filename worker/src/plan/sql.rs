//! The relation and its columns inside a statement.

use polyglot_source::sql::quote_identifier;

/// The relation's name inside a statement.
pub(super) const ALIAS: &str = "r";

/// A column of the relation inside a statement.
pub(super) fn qualified(column: &str) -> String {
    format!("{ALIAS}.{}", quote_identifier(column))
}
