//! What the operator lets clients have of a relation, as a request carries it to the worker: which columns, and which of these
//! masked. The rows are the request's first filters.

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

    /// Whether it has more than a list of columns.
    #[must_use]
    pub fn has_policy(&self) -> bool {
        !self.masks.is_empty()
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
}

impl From<Grant> for Stored {
    fn from(grant: Grant) -> Self {
        if !grant.has_policy() {
            return Self::Columns(grant.columns);
        }
        let Grant { columns, masks } = grant;
        Self::Terms(Terms { columns, masks })
    }
}

impl From<Stored> for Grant {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Columns(columns) => Self { columns, ..Self::default() },
            Stored::Terms(Terms { columns, masks }) => Self { columns, masks },
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
            (Grant { columns: columns(), masks: masks() }, r#"{"columns":["id","email"],"masks":{"email":"hash"}}"#),
            (Grant { masks: masks(), ..Grant::default() }, r#"{"masks":{"email":"hash"}}"#),
        ] {
            assert_eq!(serde_json::to_string(&grant).unwrap(), stored);
            assert_eq!(serde_json::from_str::<Grant>(stored).unwrap(), grant);
            let by_earlier_version = serde_json::from_str::<Option<Vec<String>>>(stored);
            assert_eq!(by_earlier_version.is_ok(), grant.masks.is_empty(), "{stored}");
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
        };
        assert!(grant.exposes("email") && !grant.shows("email") && grant.shows("id") && !grant.shows("secret"));
        assert!(Grant::default().shows("secret"));
    }
}
