//! Which rows, in which order: filters and order keys, and the SQL they become. The one place where client text gets
//! near SQL: column names only as quoted identifiers that were found in the catalog, values only as quoted literals.

use serde::{Deserialize, Serialize};

use crate::relation::Relation;
use crate::request::ExportRequest;

/// A condition on one column. A row for which it is not true, NULL included, is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    pub column: String,
    pub op: FilterOp,
    /// One value; none for `is_null` and `is_not_null`; any number for `in`. As text, which the server reads as the
    /// column's type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterOp {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    GreaterOrEqual,
    #[serde(rename = "in")]
    In,
    #[serde(rename = "is_null")]
    IsNull,
    #[serde(rename = "is_not_null")]
    IsNotNull,
    #[serde(rename = "like")]
    Like,
}

impl FilterOp {
    pub const ALL: [Self; 10] = [
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::In,
        Self::IsNull,
        Self::IsNotNull,
        Self::Like,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::IsNull => "is_null",
            Self::IsNotNull => "is_not_null",
            Self::Like => "like",
        }
    }

    /// The operator of that exact name, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// One column of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderKey {
    pub column: String,
    #[serde(default)]
    pub direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Asc,
    Desc,
}

impl OrderKey {
    #[must_use]
    pub fn ascending(column: impl Into<String>) -> Self {
        Self { column: column.into(), direction: Direction::Asc }
    }
}

/// The order of an export's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub keys: Vec<OrderKey>,
    /// Whether the keys tell any two rows apart, so that the order is the same each time.
    pub total: bool,
}

impl Order {
    /// What the request asks for, with the primary key behind it to break ties; the primary key alone where it asks
    /// for nothing.
    #[must_use]
    pub fn of(request: &ExportRequest, relation: &Relation) -> Self {
        let mut keys = request.order_by.clone();
        for column in &relation.primary_key {
            if !keys.iter().any(|key| key.column == *column) {
                keys.push(OrderKey::ascending(column));
            }
        }
        Self { keys, total: !relation.primary_key.is_empty() }
    }

    /// What clients are told of it: up to the first key that they may not know of, which is an order that the rows have.
    #[must_use]
    pub fn shown(&self, request: &ExportRequest) -> Vec<OrderKey> {
        self.keys.iter().take_while(|key| request.exposes(&key.column)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relation::RelationName;

    #[test]
    fn an_order_is_shown_up_to_the_first_hidden_key() {
        let keyed = Relation::for_test(&["id", "a", "b"], &["id", "b"]);
        let mut request = ExportRequest::new("d", RelationName::records(), "csv", Vec::new());
        request.order_by =
            vec![OrderKey { column: "id".to_owned(), direction: Direction::Desc }, OrderKey::ascending("a")];
        request.exposed = Some(vec!["id".to_owned(), "b".to_owned()]);
        let shown = Order::of(&request, &keyed).shown(&request);
        assert_eq!(shown, [OrderKey { column: "id".to_owned(), direction: Direction::Desc }]);
    }

    #[test]
    fn operators_have_the_names_they_are_stored_under() {
        for op in FilterOp::ALL {
            assert_eq!(serde_json::to_value(op).unwrap(), op.name());
            assert_eq!(FilterOp::from_name(op.name()), Some(op));
        }
    }
}
