//! The rows of one shard, as a half-open range of the order's key.

use polyglot_core::order::Order;
use polyglot_core::selection::Direction;
use polyglot_source::sql::quote_literal;
use serde::{Deserialize, Serialize};

use super::sql::qualified;

/// A half-open range of the rows in the export's order. Its bounds are the values of the first key columns as text.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// Start, inclusive: the key of the first row or of a row before it. `None`: the first row of the export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Vec<String>>,
    /// End, exclusive: the key of the first row after the range. `None`: the end of the export.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Vec<String>>,
}

impl Range {
    /// Returns the SQL conditions that select the range. The literals have no type of their own: the server reads each
    /// as the type of its column.
    pub(super) fn conditions(&self, order: &Order) -> Vec<String> {
        let descending = order.keys.first().is_some_and(|key| key.direction == Direction::Desc);
        let (from, to) = if descending { ("<=", ">") } else { (">=", "<") };
        // Bounds are of types that PostgreSQL has built in, of enums and of domains over these: all have its own operators.
        let compare = |operator: &str, bound: &Vec<String>| {
            let columns: Vec<String> = order.keys.iter().take(bound.len()).map(|key| qualified(&key.column)).collect();
            let bound: Vec<String> = bound.iter().map(|text| quote_literal(text)).collect();
            format!("(({}) OPERATOR(pg_catalog.{operator}) ({}))", columns.join(", "), bound.join(", "))
        };
        let from = self.from.as_ref().map(|bound| compare(from, bound));
        from.into_iter().chain(self.to.as_ref().map(|bound| compare(to, bound))).collect()
    }

    /// Returns the ranges that the bounds separate, including those before the first bound and after the last one.
    pub(super) fn between(bounds: &[Vec<String>]) -> Vec<Self> {
        let from = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let to = bounds.iter().cloned().map(Some).chain([None]);
        from.zip(to).map(|(from, to)| Self { from, to }).collect()
    }
}

#[cfg(test)]
mod tests {
    use polyglot_core::selection::OrderKey;

    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_range_is_conditions_on_the_first_columns_and_the_same_when_it_was_stored() {
        let keys = |direction| ["a", "b", "id"].map(|column| OrderKey { column: column.to_owned(), direction }).into();
        let ranges = Range::between(&[texts(&["it's", "1"]), texts(&["x", "2"])]);
        let stored = serde_json::to_string(&ranges).unwrap();
        let expected = r#"[{"to":["it's","1"]},{"from":["it's","1"],"to":["x","2"]},{"from":["x","2"]}]"#;
        assert_eq!(stored, expected);
        assert_eq!(serde_json::from_str::<Vec<Range>>(&stored).unwrap(), ranges);
        let order = Order { keys: keys(Direction::Asc), total: true };
        assert_eq!(
            ranges[1].conditions(&order),
            [
                r#"((r."a", r."b") OPERATOR(pg_catalog.>=) ('it''s', '1'))"#,
                r#"((r."a", r."b") OPERATOR(pg_catalog.<) ('x', '2'))"#
            ]
        );
        let order = Order { keys: keys(Direction::Desc), total: true };
        assert_eq!(ranges[2].conditions(&order), [r#"((r."a", r."b") OPERATOR(pg_catalog.<=) ('x', '2'))"#]);
        assert!(Range::default().conditions(&order).is_empty());
    }
}
