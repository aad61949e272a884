//! The names of the relation and its columns in a statement.

use polyglot_source::sql::quote_identifier;

/// The alias of the relation in a statement.
pub(super) const ALIAS: &str = "r";

/// Returns the qualified name of a column in a statement.
pub(super) fn qualified(column: &str) -> String {
    format!("{ALIAS}.{}", quote_identifier(column))
}
