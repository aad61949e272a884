//! The plan of what is read: the columns of the file and how each arrives, the fields that name a row in a message, the
//! guard against rows that do not fit in memory, and the statements that read all rows or a range.

use std::sync::Arc;

use polyglot_core::column::{Column, WireType};
use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::mask::Mask;
use polyglot_core::order::Order;
use polyglot_core::relation::Relation;
use polyglot_core::request::ExportRequest;
use polyglot_source::catalog::{self, CatalogError};
use polyglot_source::mask::masked_value;
use polyglot_source::sql::{self, fetched, order_sql, quote_relation};

use super::range::Range;
use super::sql::{ALIAS, qualified};
use crate::read::{Source, failed, relation_missing};
use crate::work_error::internal;
use polyglot_formats::copy::{Row, Value};
use polyglot_formats::write_readable;
use polyglot_formats::{Format, OutputColumn};

/// Factor by which the text of a value can be longer than its stored, compressed form: at most 255 times by
/// decompression, six times by escapes, rounded up.
const EXPANSION: u64 = 2048;

/// Maximum number of characters of a key that a message shows.
const SHOWN_CHARACTERS: usize = 100;

/// A column of the primary key, and the field of a row that has it.
#[derive(Debug, Clone)]
struct KeyField {
    name: String,
    field: usize,
    wire: WireType,
}

/// The plan of what is read.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub format: Format,
    pub columns: Vec<OutputColumn>,
    /// The same columns as the statement fetches them: those of the relation, or masked.
    pub sources: Vec<Column>,
    /// The columns whose fields are digests, which become hashes under the key of the masks.
    pub digests: Vec<usize>,
    pub order: Order,
    pub estimated_rows: Option<u64>,
    /// Bytes that the chosen rows take in the source, roughly what they take as text.
    pub estimated_bytes: Option<u64>,
    /// The relation as it was when the plan was made.
    pub relation: Arc<Relation>,
    /// The selected expressions, one for each field of a row.
    expressions: String,
    /// The join that computes the size of a row; empty if sizes are not checked.
    size_join: String,
    /// The conditions of the filters.
    pub(super) conditions: Vec<String>,
    /// The clauses after the conditions: order and limit.
    tail: String,
    /// The fields that name a row in a message.
    pub names: RowNames,
    /// The largest row that is fetched, in bytes.
    max_row_bytes: u64,
    /// True if the last field of a row is the size of a row that was too large to be fetched, or NULL.
    guarded: bool,
}

/// The fields of a row that name it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RowNames(Vec<KeyField>);

impl RowNames {
    /// Returns `Row 17 of the export (id 42)`, or just the number where no key may be shown; `rows_of` is what the
    /// number refers to.
    pub(crate) fn name(&self, number: i64, rows_of: &str, row: Row<'_>) -> String {
        match self.key(row) {
            None => format!("Row {number} of {rows_of}"),
            Some(key) => format!("Row {number} of {rows_of} ({key})"),
        }
    }

    /// Returns the row's key, for example `id 42`, or `None` where none may be shown.
    pub(crate) fn key(&self, row: Row<'_>) -> Option<String> {
        let mut parts = Vec::with_capacity(self.0.len());
        for key in &self.0 {
            let mut text = Vec::new();
            match row.fields().nth(key.field).flatten().map(|bytes| Value::read(key.wire, bytes)) {
                Some(Ok(value)) => write_readable(value, &mut text),
                Some(Err(_)) => text.extend_from_slice(b"unreadable"),
                None => text.extend_from_slice(b"NULL"),
            }
            let text = String::from_utf8_lossy(&text);
            let shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
            let more = if shown.len() < text.len() { "…" } else { "" };
            parts.push(format!("{} {shown}{more}", key.name));
        }
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// Returns the expression of an upper bound, or nearly, of the bytes that a row's wide columns take on the wire. The
/// server knows the length of text without reading it. Other types are measured only where all their stored bytes
/// together could become too much: nothing is decompressed to measure a small row.
fn size_expression(wide: &[&Column], max_row_bytes: u64) -> String {
    let (mut known, mut stored, mut measured) = (Vec::new(), Vec::new(), Vec::new());
    for column in wide {
        let name = qualified(&column.name);
        if column.array.is_none() && matches!(column.wire, WireType::Text | WireType::Bytea) {
            known.push(format!("coalesce(pg_catalog.octet_length({name}), 0)::int8"));
            continue;
        }
        stored.push(format!("coalesce(pg_catalog.pg_column_size({name}), 0)::int8"));
        let text = format!("coalesce(pg_catalog.octet_length(pg_catalog.format('%s', {name})), 0)::int8");
        // Every item is preceded by its length, and a small number is longer in binary than in text.
        let items = column.array.map(|_| format!(" + 12 * coalesce(pg_catalog.cardinality({name}), 0)::int8"));
        measured.push(format!("{text}{}", items.unwrap_or_default()));
    }
    if !stored.is_empty() {
        let small = max_row_bytes / EXPANSION;
        known.push(format!("CASE WHEN {} > {small} THEN {} ELSE 0 END", stored.join(" + "), measured.join(" + ")));
    }
    known.join(" + ")
}

impl Plan {
    /// Plans what to read of `relation` as it is now.
    pub(crate) fn of(relation: Relation, request: &ExportRequest, max_row_bytes: u64) -> Result<Self, Failure> {
        let format = Format::of(request).map_err(|unknown| internal(&unknown))?;
        let changed = |column: &str| {
            Failure::new(
                FailureKind::DatasetChanged,
                format!("The dataset has no column {column:?} any more."),
                format!("{} has no column {column:?}", relation.name),
            )
        };
        let find = |name: &str| relation.column(name).ok_or_else(|| changed(name));
        let order = Order::of(request, &relation);
        for key in &order.keys {
            find(&key.column)?;
        }
        let conditions = sql::conditions(&request.filters, &relation, ALIAS).map_err(|column| changed(&column))?;

        let in_relation: Vec<Column> =
            request.columns.iter().map(|mapping| find(&mapping.source).cloned()).collect::<Result<_, _>>()?;
        let masks: Vec<Option<Mask>> = in_relation.iter().map(|column| request.grant.mask(&column.name)).collect();
        let masked =
            |(column, mask): (&Column, &Option<Mask>)| mask.map_or_else(|| column.clone(), |mask| mask.column(column));
        let sources: Vec<Column> = in_relation.iter().zip(&masks).map(masked).collect();
        let digests = (0..masks.len()).filter(|at| masks[*at] == Some(Mask::Hash)).collect();
        // What a mask makes short is not measured.
        let wide: Vec<&Column> =
            in_relation.iter().zip(&sources).filter(|(_, source)| source.wide).map(|(column, _)| column).collect();
        // A value outside of the TOAST table is on a page, and no page holds so much.
        let guarded = !wide.is_empty() && relation.toast_bytes.is_none_or(|bytes| bytes > max_row_bytes / EXPANSION);
        let (mut columns, mut expressions) = (Vec::with_capacity(sources.len()), Vec::with_capacity(sources.len()));
        for ((mapping, source), mask) in request.columns.iter().zip(&sources).zip(&masks) {
            let (wire, array, expression) = match mask {
                None => fetched(source, &qualified(&source.name), format.arrays_as_text),
                Some(mask) => (source.wire, source.array, masked_value(&qualified(&source.name), *mask)),
            };
            // The key is small, because an index holds it, and it names the row.
            let names_row = mask.is_none() && relation.primary_key.contains(&source.name);
            expressions.push(if guarded && source.wide && !names_row {
                format!("CASE WHEN size.total > {max_row_bytes} THEN NULL ELSE {expression} END")
            } else {
                expression
            });
            columns.push(OutputColumn { name: mapping.target.clone(), wire, array, is_non_text: source.is_non_text });
        }
        // Where the format can represent every value, only a row that is too large, or the one before a failure of the server, needs
        // a name: nothing is fetched for that alone.
        let added = (guarded || !format.holds_every_value).then_some(&mut expressions);
        let names = name_fields(&relation, request, &order, format, &columns, added);
        let mut size_join = String::new();
        if guarded {
            // OFFSET keeps the planner from computing the sizes again wherever they are used.
            size_join = format!(
                " CROSS JOIN LATERAL (SELECT {} AS total OFFSET 0) AS size",
                size_expression(&wide, max_row_bytes)
            );
            expressions.push(format!("CASE WHEN size.total > {max_row_bytes} THEN size.total END"));
        }
        let limit = request.row_limit.map(|rows| format!(" LIMIT {rows}")).unwrap_or_default();
        let tail = order_sql(&order, ALIAS) + &limit;
        let (estimated_rows, estimated_bytes) = estimates(&relation, request);
        Ok(Self {
            format,
            columns,
            sources,
            digests,
            order,
            estimated_rows,
            estimated_bytes,
            relation: Arc::new(relation),
            expressions: expressions.join(", "),
            size_join,
            conditions,
            tail,
            names,
            max_row_bytes,
            guarded,
        })
    }

    /// Returns the `COPY` statement that reads a range.
    pub(crate) fn copy_statement(&self, range: &Range) -> String {
        format!("COPY ({}) TO STDOUT (FORMAT binary)", self.select(range))
    }

    /// Returns the query for the rows of a range.
    pub(super) fn select(&self, range: &Range) -> String {
        let mut conditions = self.conditions.clone();
        conditions.extend(range.conditions(&self.order));
        let Self { expressions, size_join, tail, .. } = self;
        format!("SELECT {expressions} FROM {}{size_join}{}{tail}", self.relation(""), sql::all_of(&conditions))
    }

    /// Returns the `COPY` statement that reads the first `rows` rows of a sample of the pages, with one more field
    /// after the others.
    pub(super) fn copy_sample(&self, sample: &str, field: &str, rows: u64) -> String {
        let Self { expressions, size_join, tail, .. } = self;
        format!(
            "COPY (SELECT {expressions}, {field} FROM {}{size_join}{}{tail} LIMIT {rows}) TO STDOUT (FORMAT binary)",
            self.relation(sample),
            sql::all_of(&self.conditions)
        )
    }

    /// Returns the relation, or a sample of it, under its alias.
    pub(super) fn relation(&self, sample: &str) -> String {
        format!("{} AS {ALIAS}{sample}", quote_relation(&self.relation.name))
    }

    /// Returns the estimated number of rows as the ledger stores it.
    pub(crate) fn rows_estimate(&self) -> Option<i64> {
        self.estimated_rows.and_then(|rows| i64::try_from(rows).ok())
    }

    /// Returns the number of fields of a row on the wire: the columns, and the fields added after them.
    pub(crate) fn fields(&self) -> usize {
        let hidden = self.names.0.iter().filter(|key| key.field >= self.columns.len()).count();
        self.columns.len() + hidden + usize::from(self.guarded)
    }

    /// Fails if the row was too large to be fetched.
    pub(crate) fn check_size(&self, number: i64, rows_of: &str, row: Row<'_>) -> Result<(), Failure> {
        if !self.guarded {
            return Ok(());
        }
        let Some(Some(bytes)) = row.fields().last() else { return Ok(()) };
        let size = match Value::read(WireType::Int8, bytes) {
            Ok(Value::Int(size)) => size,
            // Not NULL, so the row is too large, even if its size cannot be read.
            _ => 0,
        };
        let name = self.names.name(number, rows_of, row);
        let (limit, size_shown) = (self.max_row_bytes, in_mebibytes(size, self.max_row_bytes));
        let message = format!(
            "{name}: its values take {size_shown}, and a worker holds rows of at most {} MiB (MAX_ROW_MB).",
            limit >> 20
        );
        Err(Failure::new(FailureKind::RowTooLarge, message, format!("{size} bytes; raise MAX_ROW_MB and the memory")))
    }
}

/// The size of a row that is larger than `limit`, in the unit in which the limit is told, to a tenth.
fn in_mebibytes(bytes: i64, limit: u64) -> String {
    const MIB: u64 = 1 << 20;
    let bytes = u64::try_from(bytes).unwrap_or(0);
    let tenths = (bytes.saturating_mul(10) + MIB / 2) / MIB;
    match (tenths / 10, tenths % 10) {
        // Rounded, it would not be larger than the limit.
        (whole, 0) if whole <= limit / MIB => format!("a little more than {} MiB", limit / MIB),
        (whole, 0) => format!("about {whole} MiB"),
        (whole, tenth) => format!("about {whole}.{tenth} MiB"),
    }
}

/// Looks up the relation under the snapshot and plans what to read. Every transaction with the same snapshot makes the
/// same plan.
pub(crate) async fn read_plan(
    source: &mut Source,
    request: &ExportRequest,
    max_row_bytes: u64,
) -> Result<Plan, Failure> {
    let relation = catalog::describe(&mut source.connection, &request.relation).await.map_err(|error| match error {
        CatalogError::NoSuchRelation(_) => relation_missing(request),
        CatalogError::Database(error) => failed(error),
    })?;
    let plan = Plan::of(relation, request, max_row_bytes)?;
    source.note_relation(&plan.relation);
    if !plan.order.total {
        // In a parallel scan it would be chance which process returns its rows first.
        source.run("SET LOCAL max_parallel_workers_per_gather TO 0").await?;
    }
    Ok(plan)
}

/// Finds the fields of the primary key among the columns, or, where there is none, those of the order, and adds those of the primary
/// key that are missing to the expressions, if there are any to add to. What is not whole names no row.
fn name_fields(
    relation: &Relation,
    request: &ExportRequest,
    order: &Order,
    format: Format,
    columns: &[OutputColumn],
    mut expressions: Option<&mut Vec<String>>,
) -> RowNames {
    let mut key: Vec<&String> = relation.primary_key.iter().collect();
    if key.is_empty() {
        key = order.keys.iter().map(|key| &key.column).collect();
        expressions = None;
    }
    if !key.iter().all(|column| request.grant.shows(column)) {
        return RowNames::default();
    }
    let mut fields = Vec::new();
    for name in key {
        let chosen = request
            .columns
            .iter()
            .zip(columns)
            .position(|(mapping, column)| mapping.source == *name && column.array.is_none());
        // The relation has the key's columns: the catalog returned both at once.
        let Some(column) = relation.column(name) else { continue };
        let (field, wire) = if let Some(field) = chosen {
            (field, columns[field].wire)
        } else {
            let Some(expressions) = expressions.as_deref_mut() else { return RowNames::default() };
            let whole = Column {
                array: None,
                wire: if column.array.is_some() { WireType::TextForm } else { column.wire },
                ..column.clone()
            };
            let (wire, _, expression) = fetched(&whole, &qualified(&whole.name), format.arrays_as_text);
            expressions.push(expression);
            (expressions.len() - 1, wire)
        };
        fields.push(KeyField { name: name.clone(), field, wire });
    }
    RowNames(fields)
}

/// Estimates the number of rows and bytes. Filters are ignored for the bytes, which only makes parts larger than
/// needed.
fn estimates(relation: &Relation, request: &ExportRequest) -> (Option<u64>, Option<u64>) {
    let rows = match (relation.estimated_rows, request.row_limit) {
        (Some(rows), Some(limit)) => Some(rows.min(limit)),
        (rows, _) => rows,
    };
    // The width of the stored row: a request for few columns is estimated too large, which only makes parts larger.
    let bytes = match (rows, relation.estimated_rows) {
        (Some(rows), Some(all)) if all > 0 => Some(
            u64::try_from(u128::from(relation.stored_bytes) * u128::from(rows) / u128::from(all)).unwrap_or(u64::MAX),
        ),
        _ => Some(relation.stored_bytes).filter(|bytes| *bytes > 0),
    };
    // The share of rows that a filter selects is unknown, and so is that of the rows that a role is shown. Clients are told the number.
    (rows.filter(|_| request.filters.is_empty() && request.grant.role.is_none()), bytes)
}

#[cfg(test)]
mod tests {
    use polyglot_core::column::{ArrayType, TypeNames};
    use polyglot_core::relation::RelationKind;
    use polyglot_core::relation::RelationName;
    use polyglot_core::request::ColumnMapping;
    use polyglot_core::selection::{Filter, FilterOp, OrderKey};

    use super::*;
    use polyglot_formats::copy::FieldIndex;

    const MAX_ROW: u64 = 16 << 20;

    fn column(name: &str, wire: WireType, wide: bool) -> Column {
        let type_names = TypeNames::built_in("x");
        Column {
            name: name.into(),
            sql_type: "x".into(),
            type_names,
            wire,
            array: None,
            nullable: false,
            wide,
            is_non_text: false,
        }
    }

    fn relation() -> Relation {
        Relation {
            name: RelationName { schema: "My Schema".into(), name: "a\"b".into() },
            kind: RelationKind::Table,
            columns: vec![column("id", WireType::Int8, false), column("Range", WireType::TextForm, true)],
            primary_key: vec!["id".into(), "Range".into()],
            estimated_rows: Some(100),
            stored_bytes: 5000,
            toast_bytes: Some(0),
            locked: false,
            runs_foreign_code: false,
        }
    }

    fn request(sources: &[&str], format: &str) -> ExportRequest {
        let columns = sources.iter().map(|s| ColumnMapping { source: (*s).into(), target: (*s).into() }).collect();
        ExportRequest::new("d", RelationName::records(), format, columns)
    }

    #[test]
    fn names_are_quoted_and_the_order_is_the_key() {
        let mut request = request(&["Range", "id"], "csv");
        request.row_limit = Some(10);
        let plan = Plan::of(relation(), &request, MAX_ROW).unwrap();
        assert_eq!(
            plan.copy_statement(&Range::default()),
            r#"COPY (SELECT CASE WHEN r."Range" IS NOT DISTINCT FROM NULL THEN NULL ELSE pg_catalog.format('%s', r."Range") END, r."id" FROM "My Schema"."a""b" AS r ORDER BY r."id", r."Range" LIMIT 10) TO STDOUT (FORMAT binary)"#
        );
        assert_eq!((plan.estimated_rows, plan.estimated_bytes, plan.fields()), (Some(10), Some(500), 2));
    }

    #[test]
    fn filters_and_order_are_part_of_the_statement() {
        let mut request = request(&["id"], "csv");
        request.filters =
            vec![Filter { column: "id".into(), path: Vec::new(), op: FilterOp::Greater, values: vec!["5".into()] }];
        request.order_by = vec![OrderKey::ascending("Range")];
        let plan = Plan::of(relation(), &request, MAX_ROW).unwrap();
        assert!(
            plan.copy_statement(&Range::default())
                .contains(r#" AS r WHERE (r."id" OPERATOR(pg_catalog.>) '5') ORDER BY r."Range", r."id")"#),
            "{}",
            plan.copy_statement(&Range::default())
        );
        assert_eq!(plan.estimated_rows, None);
    }

    #[test]
    fn a_missing_column_is_named() {
        let failure = Plan::of(relation(), &request(&["gone"], "csv"), MAX_ROW).unwrap_err();
        assert_eq!(failure.kind, FailureKind::DatasetChanged);
        assert!(failure.message.contains("gone"));
    }

    /// A row of `id` as int8 and further fields as they are.
    fn row_bytes(id: i64, fields: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = i16::try_from(fields.len() + 1).unwrap().to_be_bytes().to_vec();
        for field in [Some(&id.to_be_bytes()[..])].iter().chain(fields) {
            match field {
                Some(field) => {
                    bytes.extend(i32::try_from(field.len()).unwrap().to_be_bytes());
                    bytes.extend_from_slice(field);
                }
                None => bytes.extend((-1_i32).to_be_bytes()),
            }
        }
        bytes
    }

    #[test]
    fn a_row_is_named_by_its_key_where_the_key_may_be_known() {
        let bytes = row_bytes(42, &[Some(b"[1,5)")]);
        let mut index = FieldIndex::default();
        let (row, _) = index.read(&bytes, 2).unwrap();
        // The second column of the key was not requested, and follows the others.
        let plan = Plan::of(relation(), &request(&["id"], "xml"), MAX_ROW).unwrap();
        assert_eq!(
            (plan.fields(), plan.names.name(7, "the export", row)),
            (2, "Row 7 of the export (id 42, Range [1,5))".to_owned())
        );
        let mut hidden = request(&["id"], "xml");
        hidden.grant.columns = Some(vec!["id".into()]);
        let plan = Plan::of(relation(), &hidden, MAX_ROW).unwrap();
        assert_eq!((plan.fields(), plan.names.name(7, "the export", row)), (1, "Row 7 of the export".to_owned()));
        // A format that can represent every value needs no name of a row.
        assert_eq!(Plan::of(relation(), &request(&["id"], "csv"), MAX_ROW).unwrap().fields(), 1);
    }

    #[test]
    fn rows_are_measured_where_there_may_be_large_ones() {
        let mut relation = relation();
        relation.toast_bytes = None;
        let plan = Plan::of(relation.clone(), &request(&["id", "Range"], "csv"), MAX_ROW).unwrap();
        assert!(
            plan.copy_statement(&Range::default()).contains("AS total OFFSET 0) AS size"),
            "{}",
            plan.copy_statement(&Range::default())
        );
        let mut index = FieldIndex::default();
        let size = (300_i64 << 20).to_be_bytes();
        let bytes = row_bytes(42, &[Some(b"[1,2)"), Some(&size)]);
        let failure = plan.check_size(9, "the export", index.read(&bytes, plan.fields()).unwrap().0).unwrap_err();
        assert_eq!(failure.kind, FailureKind::RowTooLarge);
        let words = "Row 9 of the export (id 42, Range [1,2)): its values take about 300 MiB, and a worker holds rows of at most 16 MiB (MAX_ROW_MB).";
        assert_eq!(failure.message, words);
        let bytes = row_bytes(42, &[Some(b"x"), None]);
        plan.check_size(9, "the export", index.read(&bytes, plan.fields()).unwrap().0).unwrap();
        // The stored bytes of all columns together decide whether they are measured, and the key is always fetched.
        relation.columns.extend([column("a", WireType::Jsonb, true), column("b", WireType::Text, true)]);
        let plan = Plan::of(relation.clone(), &request(&["Range", "a", "b"], "csv"), MAX_ROW).unwrap();
        assert!(
            plan.copy_statement(&Range::default())
                .starts_with("COPY (SELECT CASE WHEN r.\"Range\" IS NOT DISTINCT FROM NULL"),
            "{}",
            plan.copy_statement(&Range::default())
        );
        assert!(
            plan.copy_statement(&Range::default())
                .contains("CASE WHEN size.total > 16777216 THEN NULL ELSE r.\"a\" END"),
            "{}",
            plan.copy_statement(&Range::default())
        );
        let stored = r#"coalesce(pg_catalog.pg_column_size(r."Range"), 0)::int8 + coalesce(pg_catalog.pg_column_size(r."a"), 0)::int8 > 8192"#;
        assert!(plan.copy_statement(&Range::default()).contains(stored), "{}", plan.copy_statement(&Range::default()));
        assert!(
            plan.copy_statement(&Range::default())
                .contains(r#"SELECT coalesce(pg_catalog.octet_length(r."b"), 0)::int8 + CASE"#),
            "{}",
            plan.copy_statement(&Range::default())
        );
        // Columns that cannot be large are not measured.
        let plan = Plan::of(relation.clone(), &request(&["id"], "csv"), MAX_ROW).unwrap();
        assert!(!plan.copy_statement(&Range::default()).contains("size"), "{}", plan.copy_statement(&Range::default()));
    }

    #[test]
    fn a_row_that_is_too_large_is_told_in_the_unit_of_the_limit() {
        let mib = |tenths: i64| tenths * (1 << 20) / 10;
        for (size, limit, told) in [
            (mib(164), 16, "about 16.4 MiB"),
            (mib(160) + 1, 16, "a little more than 16 MiB"),
            (mib(169) + 100_000, 16, "about 17 MiB"),
            (mib(2000) + 100, 8, "about 200 MiB"),
            // A size that could not be read.
            (0, 8, "a little more than 8 MiB"),
        ] {
            assert_eq!(in_mebibytes(size, limit << 20), told, "{size}");
        }
    }

    #[test]
    fn arrays_come_as_text_for_csv_and_as_items_for_the_others() {
        let mut relation = relation();
        relation.columns[0].array = Some(ArrayType { dimensions: 1, delimiter: b',' });
        let plan = |format| Plan::of(relation.clone(), &request(&["id"], format), MAX_ROW).unwrap();
        let csv = plan("csv");
        assert_eq!((csv.columns[0].wire, csv.columns[0].array), (WireType::TextForm, None));
        let json = plan("json");
        assert_eq!((json.columns[0].wire, json.columns[0].array.is_some()), (WireType::Int8, true));
        assert!(json.copy_statement(&Range::default()).starts_with(r#"COPY (SELECT r."id" FROM"#), "{json:?}");
    }
}
