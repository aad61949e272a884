//! The order of an export's rows: the keys of the request with the primary key behind them.

use crate::relation::Relation;
use crate::request::ExportRequest;
use crate::selection::OrderKey;

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
    use crate::selection::Direction;

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
}
