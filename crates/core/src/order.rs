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
    /// for nothing. The place of a row would tell of a masked value, so no masked column is among the keys.
    #[must_use]
    pub fn of(request: &ExportRequest, relation: &Relation) -> Self {
        let is_masked = |column: &String| request.grant.mask(column).is_some();
        let mut keys = request.order_by.clone();
        for column in relation.primary_key.iter().filter(|column| !is_masked(column)) {
            if !keys.iter().any(|key| key.column == *column) {
                keys.push(OrderKey::ascending(column));
            }
        }
        let total = !relation.primary_key.is_empty() && !relation.primary_key.iter().any(is_masked);
        Self { keys, total }
    }

    /// What clients are told of it: up to the first key that they may not know of, which is an order that the rows have.
    #[must_use]
    pub fn shown(&self, request: &ExportRequest) -> Vec<OrderKey> {
        self.keys.iter().take_while(|key| request.grant.exposes(&key.column)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::Mask;
    use crate::relation::RelationName;
    use crate::selection::Direction;

    #[test]
    fn a_masked_column_is_no_key() {
        let keyed = Relation::for_test(&["id", "email"], &["email", "id"]);
        let mut request = ExportRequest::new("d", RelationName::records(), "csv", Vec::new());
        request.grant.masks = [("email".to_owned(), Mask::Hash)].into();
        assert_eq!(Order::of(&request, &keyed), Order { keys: vec![OrderKey::ascending("id")], total: false });
    }

    #[test]
    fn an_order_is_shown_up_to_the_first_hidden_key() {
        let keyed = Relation::for_test(&["id", "a", "b"], &["id", "b"]);
        let mut request = ExportRequest::new("d", RelationName::records(), "csv", Vec::new());
        request.order_by =
            vec![OrderKey { column: "id".to_owned(), direction: Direction::Desc }, OrderKey::ascending("a")];
        request.grant.columns = Some(vec!["id".to_owned(), "b".to_owned()]);
        let shown = Order::of(&request, &keyed).shown(&request);
        assert_eq!(shown, [OrderKey { column: "id".to_owned(), direction: Direction::Desc }]);
    }
}
