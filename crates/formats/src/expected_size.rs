//! What can be told about the size of an export without reading a row: by the size of the relation, and by the number of rows
//! that the server estimates.

use polyglot_core::compression::Compression;
use polyglot_core::expected_size::ExpectedSize;
use polyglot_core::relation::Relation;
use polyglot_core::request::{ExportRequest, Layout};

use crate::definition::FormatDefinition;

/// Size of the rows in the source, in intended shards, above which an export is expected to be sharded. The rows may take
/// several times as much in the source as in the file, or the other way round.
const LARGE_IN_SHARDS: u64 = 4;
/// Fraction of an intended shard up to which an export is small.
const SMALL_PART: u64 = 8;
/// Number of rows up to which an export of a relation whose size is not known is small.
const SMALL_ROWS: u64 = 1000;

/// Returns the expected size of an export. `rows` is the server's estimate for the query, unless there is none.
#[must_use]
pub fn expected_size(
    format: &FormatDefinition,
    request: &ExportRequest,
    relation: &Relation,
    rows: Option<u64>,
) -> ExpectedSize {
    let rows = rows.or(relation.estimated_rows.filter(|_| request.filters.is_empty()));
    let rows = match request.row_limit {
        Some(limit) => Some(rows.map_or(limit, |rows| rows.min(limit))),
        None => rows,
    };
    if !relation.kind.is_stored() {
        // Its rows are computed or come from elsewhere, so only their number is known.
        let is_small = rows.is_some_and(|rows| rows <= SMALL_ROWS);
        return if is_small { ExpectedSize::Small } else { ExpectedSize::Medium };
    }
    let (bytes, is_known) = match (rows, relation.estimated_rows) {
        (Some(rows), Some(all)) if all > 0 => (share(relation.stored_bytes, rows, all), true),
        // It is at most all of the relation.
        _ => (relation.stored_bytes, request.filters.is_empty()),
    };
    let target = format.shard_size.target_bytes(request.layout);
    if bytes <= target / SMALL_PART {
        ExpectedSize::Small
    } else if is_known && bytes / LARGE_IN_SHARDS > target && can_be_sharded(request, relation) {
        ExpectedSize::Large
    } else {
        ExpectedSize::Medium
    }
}

fn can_be_sharded(request: &ExportRequest, relation: &Relation) -> bool {
    let is_one_frame = request.layout == Layout::File && request.compression == Some(Compression::Zstd);
    relation.kind.can_be_sharded() && request.row_limit.is_none() && !is_one_frame
}

/// The bytes of so many rows of all.
fn share(bytes: u64, rows: u64, all: u64) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(rows.min(all)) / u128::from(all)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use polyglot_core::relation::RelationKind;
    use polyglot_core::request::ColumnMapping;
    use polyglot_core::selection::{Filter, FilterOp};

    use super::*;
    use crate::Format;

    const MIB: u64 = 1 << 20;

    /// A table of so many MiB in 1,000,000 rows.
    fn table(mib: u64) -> Relation {
        Relation {
            estimated_rows: Some(1_000_000),
            stored_bytes: mib * MIB,
            ..Relation::for_test(&["id", "payload"], &["id"])
        }
    }

    fn request(has_filter: bool) -> ExportRequest {
        let column = ColumnMapping { source: "id".to_owned(), target: "id".to_owned() };
        let filter =
            Filter { column: "id".to_owned(), path: Vec::new(), op: FilterOp::Less, values: vec!["5".to_owned()] };
        ExportRequest {
            filters: if has_filter { vec![filter] } else { Vec::new() },
            ..ExportRequest::new("records", polyglot_core::relation::RelationName::records(), "csv", vec![column])
        }
    }

    fn size(request: &ExportRequest, relation: &Relation, rows: Option<u64>) -> ExpectedSize {
        expected_size(&Format::of(request).unwrap(), request, relation, rows)
    }

    #[test]
    fn a_whole_table_is_as_large_as_it_is_stored() {
        let of = |mib| size(&request(false), &table(mib), None);
        assert_eq!(
            [2, 3, 64, 68].map(of),
            [ExpectedSize::Small, ExpectedSize::Medium, ExpectedSize::Medium, ExpectedSize::Large]
        );
        let never_analyzed = Relation { estimated_rows: None, ..table(68) };
        assert_eq!(size(&request(false), &never_analyzed, None), ExpectedSize::Large);
    }

    #[test]
    fn a_filter_selects_the_share_that_the_server_estimates() {
        let of = |rows| size(&request(true), &table(1000), rows);
        assert_eq!(
            [Some(10), Some(2000), Some(3000), Some(70_000), None].map(of),
            [ExpectedSize::Small, ExpectedSize::Small, ExpectedSize::Medium, ExpectedSize::Large, ExpectedSize::Medium]
        );
        // Without the number of all rows the share is not known.
        let never_analyzed = Relation { estimated_rows: None, ..table(1000) };
        assert_eq!(size(&request(true), &never_analyzed, Some(10)), ExpectedSize::Medium);
        assert_eq!(size(&request(true), &table(2), None), ExpectedSize::Small, "the whole table is small");
    }

    #[test]
    fn what_is_never_sharded_is_not_large() {
        let limited = |rows| ExportRequest { row_limit: Some(rows), ..request(false) };
        assert_eq!(size(&limited(900_000), &table(1000), None), ExpectedSize::Medium);
        assert_eq!(size(&limited(1000), &table(1000), None), ExpectedSize::Small);
        let zstd = ExportRequest { compression: Some(Compression::Zstd), ..request(false) };
        assert_eq!(size(&zstd, &table(1000), None), ExpectedSize::Medium);
        let materialized = Relation { kind: RelationKind::MaterializedView, ..table(1000) };
        assert_eq!(size(&request(false), &materialized, None), ExpectedSize::Medium);
    }

    #[test]
    fn of_a_view_only_the_number_of_rows_is_known() {
        let view = Relation { kind: RelationKind::View, estimated_rows: None, stored_bytes: 0, ..table(0) };
        let of = |rows| size(&request(true), &view, rows);
        assert_eq!(
            [Some(1000), Some(1001), None].map(of),
            [ExpectedSize::Small, ExpectedSize::Medium, ExpectedSize::Medium]
        );
    }
}
