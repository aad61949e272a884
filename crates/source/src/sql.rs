//! SQL text from requests: quoting, conditions and orders. This is the only place where client text enters SQL: column names only as
//! quoted identifiers that exist in the catalog, values only as quoted literals.

use polyglot_core::column::Column;
use polyglot_core::order::Order;
use polyglot_core::relation::{Relation, RelationName};
use polyglot_core::selection::{Direction, Filter, FilterOp, OrderKey};

/// A name as a quoted SQL identifier.
#[must_use]
pub fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A schema-qualified, quoted relation name.
#[must_use]
pub fn quote_relation(name: &RelationName) -> String {
    format!("{}.{}", quote_identifier(&name.schema), quote_identifier(&name.name))
}

/// ` ORDER BY …` over the relation as `alias`, or nothing. The alias keeps a key from meaning an output column of the
/// same name.
#[must_use]
pub fn order_sql(order: &Order, alias: &str) -> String {
    if order.keys.is_empty() {
        return String::new();
    }
    let key = |key: &OrderKey| {
        let direction = if key.direction == Direction::Desc { " DESC" } else { "" };
        format!("{alias}.{}{direction}", quote_identifier(&key.column))
    };
    format!(" ORDER BY {}", order.keys.iter().map(key).collect::<Vec<_>>().join(", "))
}

/// The condition over the relation as `alias`. The literals have no type of their own, so the server reads each
/// as the column's type, or refuses it.
#[must_use]
pub fn filter_sql(filter: &Filter, column: &Column, alias: &str) -> String {
    let name = format!("{alias}.{}", quote_identifier(&column.name));
    let value = || filter.values.first().map_or_else(|| "NULL".to_owned(), |value| quote_literal(value));
    match filter.op {
        // `IS NULL` of a composite asks for its fields; this asks for the value itself.
        FilterOp::IsNull => format!("{name} IS NOT DISTINCT FROM NULL"),
        FilterOp::IsNotNull => format!("{name} IS DISTINCT FROM NULL"),
        FilterOp::In => {
            let values: Vec<String> = filter.values.iter().map(|value| quote_literal(value)).collect();
            format!("{name} IN ({})", values.join(", "))
        }
        FilterOp::Like => format!("{name} LIKE {}", value()),
        FilterOp::NotEqual => format!("{name} <> {}", value()),
        FilterOp::Equal | FilterOp::Less | FilterOp::LessOrEqual | FilterOp::Greater | FilterOp::GreaterOrEqual => {
            format!("{name} {} {}", filter.op.name(), value())
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
        conditions.push(format!("({})", filter_sql(filter, column, alias)));
    }
    Ok(conditions)
}

/// ` WHERE …` for these conditions, or nothing.
#[must_use]
pub fn all_of(conditions: &[String]) -> String {
    if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) }
}

/// Text as an SQL literal that is valid whatever `standard_conforming_strings` is. The text must not contain U+0000, which
/// PostgreSQL does not accept.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!(" E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use polyglot_core::request::ExportRequest;

    fn request(order_by: &[(&str, Direction)]) -> ExportRequest {
        let mut request = ExportRequest::new("d", RelationName::records(), "csv", Vec::new());
        request.order_by = order_by
            .iter()
            .map(|(name, direction)| OrderKey { column: (*name).into(), direction: *direction })
            .collect();
        request
    }

    #[test]
    fn the_key_breaks_ties() {
        let keyed = Relation::for_test(&["id", "a", "b"], &["id", "b"]);
        for (asked, sql) in [
            (&[][..], r#" ORDER BY r."id", r."b""#),
            (&[("a", Direction::Desc)][..], r#" ORDER BY r."a" DESC, r."id", r."b""#),
            (&[("b", Direction::Desc), ("a", Direction::Asc)][..], r#" ORDER BY r."b" DESC, r."a", r."id""#),
        ] {
            let order = Order::of(&request(asked), &keyed);
            assert_eq!((order_sql(&order, "r").as_str(), order.total), (sql, true));
        }
        let keyless = Relation::for_test(&["a"], &[]);
        let order = Order::of(&request(&[]), &keyless);
        assert_eq!((order_sql(&order, "r").as_str(), order.total), ("", false));
        assert!(!Order::of(&request(&[("a", Direction::Asc)]), &keyless).total);
    }

    #[test]
    fn values_are_literals_and_names_identifiers() {
        let relation = Relation::for_test(&["id", "a\"b"], &[]);
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
    fn identifiers_are_quoted() {
        assert_eq!(quote_identifier(r#"id"; DROP TABLE records; --"#), r#""id""; DROP TABLE records; --""#);
    }
}
