//! The size of a request in the ledger. Every export keeps its request for as long as the ledger knows it, so what a client may
//! store is less than what it may send.

use polyglot_core::request::ExportRequest;
use serde::Serialize;

use super::limits::STORED_BYTES;
use crate::problem::FieldError;

/// Returns an error if the request is too large to be stored. It names the part that takes most.
pub(super) fn check(request: &ExportRequest) -> Option<FieldError> {
    // What DATASETS grants and its row filter are the operator's, and no client could shorten them.
    let own = request.own_filters();
    let policy = json_bytes(&request.filters) - json_bytes(&own);
    let grant = if request.grant.is_default() { 0 } else { json_bytes(&request.grant) };
    let total = json_bytes(request) - grant - policy;
    if total <= STORED_BYTES {
        return None;
    }
    let filters: Vec<usize> = own.iter().map(json_bytes).collect();
    let (field, remedy) = if json_bytes(&request.columns) >= filters.iter().sum() {
        ("columns".to_owned(), "name fewer columns, or give them shorter targets")
    } else {
        let largest = (0..filters.len()).max_by_key(|index| filters[*index]).unwrap_or_default();
        let filter = &own[largest];
        if json_bytes(&filter.path) > json_bytes(&filter.values) {
            (format!("filters[{largest}].path"), "give fewer filters, or shorter paths")
        } else {
            (format!("filters[{largest}].value"), "give fewer or shorter values")
        }
    };
    let message = format!(
        "is too long: the request would take {total} bytes of JSON in the ledger, which stores at most {STORED_BYTES}; {remedy}"
    );
    Some(FieldError::new(field, message))
}

/// Length of a value as JSON.
fn json_bytes(value: &impl Serialize) -> usize {
    struct Length(usize);
    impl std::io::Write for Length {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut length = Length(0);
    serde_json::to_writer(&mut length, value).expect("a request is serializable, and a count takes everything");
    length.0
}

#[cfg(test)]
mod tests {
    use polyglot_core::grant::Grant;
    use polyglot_core::relation::RelationName;
    use polyglot_core::request::ColumnMapping;
    use polyglot_core::selection::{Filter, FilterOp};

    use super::*;

    fn request(columns: usize, filters: &[usize]) -> ExportRequest {
        let columns =
            (0..columns).map(|n| ColumnMapping { source: format!("c{n}"), target: format!("c{n}") }).collect();
        let filter = |bytes: &usize| Filter {
            column: "c0".to_owned(),
            path: Vec::new(),
            op: FilterOp::Equal,
            values: vec!["x".repeat(*bytes)],
        };
        let filters = filters.iter().map(filter).collect();
        ExportRequest { filters, ..ExportRequest::new("records", RelationName::records(), "csv", columns) }
    }

    #[test]
    fn every_column_of_the_widest_table_fits() {
        assert_eq!(check(&request(1600, &[])), None);
    }

    #[test]
    fn the_border_is_a_byte_and_the_largest_part_is_named() {
        let empty = json_bytes(&request(1, &[0]));
        assert_eq!(check(&request(1, &[STORED_BYTES - empty])), None);
        let error = check(&request(1, &[STORED_BYTES - empty + 1])).unwrap();
        assert_eq!(error.field, "filters[0].value");
        assert!(error.message.contains("65537 bytes") && error.message.contains("at most 65536"), "{}", error.message);
        assert_eq!(check(&request(1, &[30_000, 40_000, 10])).unwrap().field, "filters[1].value");
        assert_eq!(check(&request(1600, &[20_000])).unwrap().field, "columns");
    }

    #[test]
    fn what_the_operator_exposes_does_not_count() {
        let grant = Grant { columns: Some((0..1600).map(|n| format!("{n:050}")).collect()), ..Grant::default() };
        assert_eq!(check(&ExportRequest { grant, ..request(1600, &[]) }), None);
    }
}
