//! Which rows, in which order: filters and order keys, and the SQL they become. The one place where client text gets
//! near SQL: column names only as quoted identifiers that were found in the catalog, values only as quoted literals.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::catalog::{Column, Relation, quote_identifier};
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderKey {
    pub column: String,
    #[serde(default)]
    pub direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
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

    /// ` ORDER BY …` over the relation as `alias`, or nothing. The alias keeps a key from meaning an output column of
    /// the same name.
    #[must_use]
    pub fn sql(&self, alias: &str) -> String {
        if self.keys.is_empty() {
            return String::new();
        }
        let key = |key: &OrderKey| {
            let direction = if key.direction == Direction::Desc { " DESC" } else { "" };
            format!("{alias}.{}{direction}", quote_identifier(&key.column))
        };
        format!(" ORDER BY {}", self.keys.iter().map(key).collect::<Vec<_>>().join(", "))
    }
}

impl Filter {
    /// The condition over the relation as `alias`. The literals have no type of their own, so the server reads each
    /// as the column's type, or refuses it.
    #[must_use]
    pub fn sql(&self, column: &Column, alias: &str) -> String {
        let name = format!("{alias}.{}", quote_identifier(&column.name));
        let value = || self.values.first().map_or_else(|| "NULL".to_owned(), |value| quote_literal(value));
        match self.op {
            // `IS NULL` of a composite asks for its fields; this asks for the value itself.
            FilterOp::IsNull => format!("{name} IS NOT DISTINCT FROM NULL"),
            FilterOp::IsNotNull => format!("{name} IS DISTINCT FROM NULL"),
            FilterOp::In => {
                let values: Vec<String> = self.values.iter().map(|value| quote_literal(value)).collect();
                format!("{name} IN ({})", values.join(", "))
            }
            FilterOp::Like => format!("{name} LIKE {}", value()),
            FilterOp::NotEqual => format!("{name} <> {}", value()),
            FilterOp::Equal | FilterOp::Less | FilterOp::LessOrEqual | FilterOp::Greater | FilterOp::GreaterOrEqual => {
                format!("{name} {} {}", self.op.name(), value())
            }
        }
    }
}

/// ` WHERE …` for all filters over the relation as `alias`, or nothing.
///
/// # Errors
/// The name of a filter's column that the relation does not have.
pub fn where_sql(filters: &[Filter], relation: &Relation, alias: &str) -> Result<String, String> {
    Ok(all_of(&conditions(filters, relation, alias)?))
}

/// Each filter as a condition in parentheses; errors as of [`where_sql`].
pub fn conditions(filters: &[Filter], relation: &Relation, alias: &str) -> Result<Vec<String>, String> {
    let mut conditions = Vec::with_capacity(filters.len());
    for filter in filters {
        let column = relation.column(&filter.column).ok_or_else(|| filter.column.clone())?;
        conditions.push(format!("({})", filter.sql(column, alias)));
    }
    Ok(conditions)
}

/// ` WHERE …` for these conditions, or nothing.
#[must_use]
pub fn all_of(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Text as an SQL literal that means the same whatever `standard_conforming_strings` is. Text with U+0000 must not
/// come here: PostgreSQL has no such text.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::tests::relation;
    use crate::dataset::RelationName;
    use crate::format::Format;

    fn request(order_by: &[(&str, Direction)]) -> ExportRequest {
        let mut request = ExportRequest::new("d", RelationName::records(), Format::Csv, Vec::new());
        request.order_by = order_by
            .iter()
            .map(|(name, direction)| OrderKey { column: (*name).into(), direction: *direction })
            .collect();
        request
    }

    #[test]
    fn the_key_breaks_ties() {
        let keyed = relation(&["id", "a", "b"], &["id", "b"]);
        for (asked, sql) in [
            (&[][..], r#" ORDER BY r."id", r."b""#),
            (&[("a", Direction::Desc)][..], r#" ORDER BY r."a" DESC, r."id", r."b""#),
            (&[("b", Direction::Desc), ("a", Direction::Asc)][..], r#" ORDER BY r."b" DESC, r."a", r."id""#),
        ] {
            let order = Order::of(&request(asked), &keyed);
            assert_eq!((order.sql("r").as_str(), order.total), (sql, true));
        }
        let mut hiding = request(&[("id", Direction::Desc), ("a", Direction::Asc)]);
        hiding.exposed = Some(vec!["id".to_owned(), "b".to_owned()]);
        let shown = Order::of(&hiding, &keyed).shown(&hiding);
        assert_eq!(shown, [OrderKey { column: "id".to_owned(), direction: Direction::Desc }]);

        let keyless = relation(&["a"], &[]);
        let order = Order::of(&request(&[]), &keyless);
        assert_eq!((order.sql("r").as_str(), order.total), ("", false));
        assert!(!Order::of(&request(&[("a", Direction::Asc)]), &keyless).total);
    }

    #[test]
    fn values_are_literals_and_names_identifiers() {
        let relation = relation(&["id", "a\"b"], &[]);
        let filter = |column: &str, op, values: &[&str]| Filter {
            column: column.into(),
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        for (filter, sql) in [
            (filter("id", FilterOp::Equal, &["x'; DROP TABLE t; --"]), r#" WHERE (r."id" = 'x''; DROP TABLE t; --')"#),
            (filter("id", FilterOp::NotEqual, &[r"\'"]), r#" WHERE (r."id" <>  E'\\''')"#),
            (filter("a\"b", FilterOp::In, &["1", "2"]), r#" WHERE (r."a""b" IN ('1', '2'))"#),
            (filter("id", FilterOp::IsNull, &[]), r#" WHERE (r."id" IS NOT DISTINCT FROM NULL)"#),
        ] {
            assert_eq!(where_sql(&[filter], &relation, "r").unwrap(), sql);
        }
        assert_eq!(where_sql(&[filter("gone", FilterOp::IsNull, &[])], &relation, "r"), Err("gone".to_owned()));
    }

    #[test]
    fn operators_have_the_names_they_are_stored_under() {
        for op in FilterOp::ALL {
            assert_eq!(serde_json::to_value(op).unwrap(), op.name());
            assert_eq!(FilterOp::from_name(op.name()), Some(op));
        }
    }
}
