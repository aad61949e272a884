//! What the operator lets clients have of a relation, as a request carries it to the worker: which columns, which of these
//! masked, and how much in one file. Which rows, the request's first filters say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mask::Mask;

/// What clients may have of a relation. The default is all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Grant {
    /// The columns that clients may know of; `None`: all. Messages about a row show no others.
    pub columns: Option<Vec<String>>,
    /// The columns whose values clients may not have, with what they get instead.
    pub masks: BTreeMap<String, Mask>,
    /// The role of the source that reads it, whose row security decides which rows there are; `None`: the service's own.
    pub role: Option<String>,
    /// The most rows and the most bytes of a file; `None`: any number.
    pub max_rows: Option<u64>,
    pub max_bytes: Option<u64>,
}

impl Grant {
    /// Whether it keeps nothing back.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether clients may know of the column.
    #[must_use]
    pub fn exposes(&self, column: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.iter().any(|name| name == column))
    }

    /// What clients get in place of the column's values; `None`: the values.
    #[must_use]
    pub fn mask(&self, column: &str) -> Option<Mask> {
        self.masks.get(column).copied()
    }

    /// Whether clients may see values of the column.
    #[must_use]
    pub fn shows(&self, column: &str) -> bool {
        self.exposes(column) && self.mask(column).is_none()
    }

    /// Whether files lack rows or values that the relation has.
    #[must_use]
    pub fn has_policy(&self) -> bool {
        !self.masks.is_empty() || self.role.is_some()
    }

    /// Whether a file may be too large for it.
    #[must_use]
    pub fn has_limits(&self) -> bool {
        self.max_rows.is_some() || self.max_bytes.is_some()
    }
}

/// A grant in the ledger. Earlier versions knew a list of columns alone. What they do not know is stored as an object in its place,
/// which they refuse to read, so that none of them exports a column without its mask.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Columns(Option<Vec<String>>),
    Terms(Terms),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Terms {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    masks: BTreeMap<String, Mask>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_rows: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
}

impl From<Grant> for Stored {
    fn from(grant: Grant) -> Self {
        if !grant.has_policy() && !grant.has_limits() {
            return Self::Columns(grant.columns);
        }
        let Grant { columns, masks, role, max_rows, max_bytes } = grant;
        Self::Terms(Terms { columns, masks, role, max_rows, max_bytes })
    }
}

impl From<Stored> for Grant {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Columns(columns) => Self { columns, ..Self::default() },
            Stored::Terms(Terms { columns, masks, role, max_rows, max_bytes }) => {
                Self { columns, masks, role, max_rows, max_bytes }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_stored_as_before_or_as_what_earlier_versions_refuse() {
        let columns = || Some(vec!["id".to_owned(), "email".to_owned()]);
        let masks = || BTreeMap::from([("email".to_owned(), Mask::Hash)]);
        for (grant, stored) in [
            (Grant { columns: columns(), ..Grant::default() }, r#"["id","email"]"#),
            (
                Grant { columns: columns(), masks: masks(), ..Grant::default() },
                r#"{"columns":["id","email"],"masks":{"email":"hash"}}"#,
            ),
            (Grant { masks: masks(), ..Grant::default() }, r#"{"masks":{"email":"hash"}}"#),
            (Grant { role: Some("a".to_owned()), ..Grant::default() }, r#"{"role":"a"}"#),
            (Grant { max_rows: Some(7), max_bytes: Some(8), ..Grant::default() }, r#"{"maxRows":7,"maxBytes":8}"#),
        ] {
            assert_eq!(serde_json::to_string(&grant).unwrap(), stored);
            assert_eq!(serde_json::from_str::<Grant>(stored).unwrap(), grant);
            let by_earlier_version = serde_json::from_str::<Option<Vec<String>>>(stored);
            assert_eq!(by_earlier_version.is_ok(), stored.starts_with('['), "{stored}");
        }
        // What this version does not know is not left out either.
        for unknown in [r#"{"masks":{"email":"tokenize"}}"#, r#"{"masks":{},"sample":1}"#] {
            assert!(serde_json::from_str::<Grant>(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn a_masked_column_is_known_and_its_values_are_not_shown() {
        let grant = Grant {
            columns: Some(vec!["id".to_owned(), "email".to_owned()]),
            masks: BTreeMap::from([("email".to_owned(), Mask::Last4)]),
            ..Grant::default()
        };
        assert!(grant.exposes("email") && !grant.shows("email") && grant.shows("id") && !grant.shows("secret"));
        assert!(Grant::default().shows("secret"));
    }
}
