//! The first stage: rows out of PostgreSQL. One read-only transaction with one snapshot, one binary `COPY`, cut
//! into batches of whole rows. What the bytes mean is in the files beside this one; nothing is formatted here.

mod numeric;
mod row;
mod value;

pub(crate) use numeric::Numeric;
pub(crate) use row::{FieldIndex, Row};
pub(crate) use value::{Value, ValueError};

use bytes::Bytes;
use futures_util::TryStreamExt;
use polyglot_export::catalog::{self, CatalogError, Relation, WireType, is_unavailable, quote_identifier};
use polyglot_export::dataset::Dataset;
use polyglot_export::failure::{Failure, FailureKind};
use polyglot_export::request::ExportRequest;
use row::{Found, RowScanner};
use sqlx::postgres::PgConnection;
use tokio::sync::mpsc;

/// A batch is also cut at so many bytes, so that wide rows do not pile up between the stages.
const BATCH_BYTES: usize = 1 << 20;

/// A column of the file: its name there, and how it arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputColumn {
    pub name: String,
    pub wire: WireType,
    pub nullable: bool,
}

/// Whole rows, one after the other as they came.
#[derive(Debug)]
pub(crate) struct Batch {
    pub bytes: Bytes,
    pub rows: usize,
}

/// What the source sends down the pipeline. A channel that closes without `End` was cut off.
#[derive(Debug)]
pub(crate) enum FromSource {
    Batch(Batch),
    End,
}

/// What is going to be read.
#[derive(Debug)]
pub(crate) struct Plan {
    pub columns: Vec<OutputColumn>,
    pub estimated_rows: Option<u64>,
    /// Bytes the chosen rows take in the source, roughly what they take as text.
    pub estimated_bytes: Option<u64>,
    sql: String,
}

/// An open transaction on the source, holding its snapshot.
pub(crate) struct Source {
    connection: PgConnection,
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err takes")]
fn failed(error: sqlx::Error) -> Failure {
    let (kind, message) = if is_unavailable(&error) {
        (FailureKind::SourceUnavailable, "The source database could not be reached or dropped the connection.")
    } else {
        (FailureKind::SourceRefused, "The source database refused to read the dataset.")
    };
    Failure::caused(kind, message, &error)
}

impl Source {
    /// Connects and takes the snapshot.
    pub(crate) async fn open(url: &str) -> Result<Self, Failure> {
        let mut connection = catalog::connect_source(url, "polyglot-worker").await.map_err(failed)?;
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut connection)
            .await
            .map_err(failed)?;
        Ok(Self { connection })
    }

    /// Looks the dataset up under the snapshot and decides what to read.
    pub(crate) async fn plan(&mut self, dataset: &Dataset, request: &ExportRequest) -> Result<Plan, Failure> {
        let relation =
            catalog::describe(&mut self.connection, &dataset.relation).await.map_err(|error| match error {
                CatalogError::NoSuchRelation(name) => Failure::new(
                    FailureKind::DatasetChanged,
                    format!("The dataset {} is not there any more.", dataset.name),
                    format!("no relation {name}"),
                ),
                CatalogError::Database(error) => failed(error),
            })?;
        plan(&relation, request)
    }

    /// Sends every row, then `End`. Returns early, without `End`, when the receiver is gone: it then has the
    /// error that matters.
    pub(crate) async fn read(
        mut self,
        plan: &Plan,
        max_rows: usize,
        to: mpsc::Sender<FromSource>,
    ) -> Result<(), Failure> {
        let malformed = |error: row::Malformed| {
            Failure::caused(FailureKind::Undecodable, "The source database sent data that cannot be read.", &error)
        };
        let mut scanner = RowScanner::default();
        let mut batch = BatchBuilder::new(max_rows);
        {
            let mut stream = self.connection.copy_out_raw(&plan.sql).await.map_err(failed)?;
            while let Some(message) = stream.try_next().await.map_err(failed)? {
                batch.bytes.extend_from_slice(&message);
                while let Some(full) = batch.scan(&mut scanner).map_err(malformed)? {
                    if to.send(FromSource::Batch(full)).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        if !scanner.is_complete() || batch.scanned < batch.bytes.len() {
            return Err(malformed(row::Malformed("it ended in the middle")));
        }
        if batch.rows > 0 && to.send(FromSource::Batch(batch.cut())).await.is_err() {
            return Ok(());
        }
        sqlx::raw_sql("COMMIT").execute(&mut self.connection).await.map_err(failed)?;
        // A receiver that is gone has the error that matters.
        to.send(FromSource::End).await.ok();
        Ok(())
    }
}

/// Bytes from the stream: whole rows up to `scanned`, and behind that what is not a whole row yet.
struct BatchBuilder {
    bytes: Vec<u8>,
    scanned: usize,
    rows: usize,
    max_rows: usize,
}

impl BatchBuilder {
    fn new(max_rows: usize) -> Self {
        Self { bytes: Vec::with_capacity(BATCH_BYTES + 64 * 1024), scanned: 0, rows: 0, max_rows }
    }

    /// Scans on, up to a full batch if there is one.
    fn scan(&mut self, scanner: &mut RowScanner) -> Result<Option<Batch>, row::Malformed> {
        loop {
            match scanner.next(&self.bytes[self.scanned..])? {
                Found::Row(length) => {
                    self.scanned += length;
                    self.rows += 1;
                    if self.rows >= self.max_rows || self.scanned >= BATCH_BYTES {
                        return Ok(Some(self.cut()));
                    }
                }
                // Header and trailer come first and last, so there is no row of this batch before the one and
                // none behind the other: cutting them out moves next to nothing.
                Found::Skip(length) => {
                    self.bytes.drain(self.scanned..self.scanned + length);
                }
                Found::Incomplete => return Ok(None),
            }
        }
    }

    fn cut(&mut self) -> Batch {
        let mut next = Vec::with_capacity(BATCH_BYTES + 64 * 1024);
        next.extend_from_slice(&self.bytes[self.scanned..]);
        let mut bytes = std::mem::replace(&mut self.bytes, next);
        bytes.truncate(self.scanned);
        self.scanned = 0;
        Batch { bytes: Bytes::from(bytes), rows: std::mem::take(&mut self.rows) }
    }
}

/// The text that PostgreSQL itself prints, by the type's output function. A cast is not the same: `inet` adds its
/// mask, and a type may have a cast of its own. `IS NOT DISTINCT FROM`, because a composite of NULLs `IS NULL`.
fn text_form(name: &str) -> String {
    format!("CASE WHEN {name} IS NOT DISTINCT FROM NULL THEN NULL ELSE format('%s', {name}) END")
}

fn plan(relation: &Relation, request: &ExportRequest) -> Result<Plan, Failure> {
    let mut columns = Vec::with_capacity(request.columns.len());
    let mut expressions = Vec::with_capacity(request.columns.len());
    for mapping in &request.columns {
        let column = relation.column(&mapping.source).ok_or_else(|| {
            Failure::new(
                FailureKind::DatasetChanged,
                format!("The dataset has no column {:?} any more.", mapping.source),
                format!("{} has no column {:?}", relation.name, mapping.source),
            )
        })?;
        let name = quote_identifier(&column.name);
        expressions.push(if column.wire == WireType::TextForm { text_form(&name) } else { name });
        columns.push(OutputColumn { name: mapping.target.clone(), wire: column.wire, nullable: column.nullable });
    }
    let order = relation.primary_key.iter().map(|name| quote_identifier(name)).collect::<Vec<_>>().join(", ");
    let order = if order.is_empty() { order } else { format!(" ORDER BY {order}") };
    let limit = request.row_limit.map(|rows| format!(" LIMIT {rows}")).unwrap_or_default();
    let sql = format!(
        "COPY (SELECT {} FROM {}{order}{limit}) TO STDOUT (FORMAT binary)",
        expressions.join(", "),
        catalog::quote_relation(&relation.name),
    );
    let estimated_rows = match (relation.estimated_rows, request.row_limit) {
        (Some(rows), Some(limit)) => Some(rows.min(limit)),
        (rows, _) => rows,
    };
    // As wide as the stored row: a request for few columns is estimated too large, which only makes parts larger.
    let estimated_bytes = match (estimated_rows, relation.estimated_rows) {
        (Some(rows), Some(all)) if all > 0 => Some(
            u64::try_from(u128::from(relation.stored_bytes) * u128::from(rows) / u128::from(all)).unwrap_or(u64::MAX),
        ),
        _ => Some(relation.stored_bytes).filter(|bytes| *bytes > 0),
    };
    Ok(Plan { columns, estimated_rows, estimated_bytes, sql })
}

#[cfg(test)]
mod tests {
    use polyglot_export::catalog::Column;
    use polyglot_export::dataset::RelationName;
    use polyglot_export::format::Format;
    use polyglot_export::request::ColumnMapping;

    use super::*;

    fn relation() -> Relation {
        let column = |name: &str, wire| Column { name: name.into(), sql_type: "x".into(), wire, nullable: false };
        Relation {
            name: RelationName { schema: "My Schema".into(), name: "a\"b".into() },
            columns: vec![column("id", WireType::Int8), column("Range", WireType::TextForm)],
            primary_key: vec!["id".into(), "Range".into()],
            estimated_rows: Some(100),
            stored_bytes: 5000,
        }
    }

    fn request(sources: &[&str], row_limit: Option<u64>) -> ExportRequest {
        ExportRequest {
            dataset: "d".into(),
            format: Format::Csv,
            columns: sources.iter().map(|s| ColumnMapping { source: (*s).into(), target: (*s).into() }).collect(),
            compression: None,
            row_limit,
        }
    }

    #[test]
    fn names_are_quoted_and_the_order_is_the_key() {
        let plan = plan(&relation(), &request(&["Range", "id"], Some(10))).unwrap();
        assert_eq!(
            plan.sql,
            r#"COPY (SELECT CASE WHEN "Range" IS NOT DISTINCT FROM NULL THEN NULL ELSE format('%s', "Range") END, "id" FROM "My Schema"."a""b" ORDER BY "id", "Range" LIMIT 10) TO STDOUT (FORMAT binary)"#
        );
        assert_eq!((plan.estimated_rows, plan.estimated_bytes), (Some(10), Some(500)));
    }

    #[test]
    fn a_column_that_is_gone_is_named() {
        let failure = plan(&relation(), &request(&["gone"], None)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::DatasetChanged);
        assert!(failure.message.contains("gone"));
    }

    #[test]
    fn batches_are_whole_rows_and_no_larger_than_asked() {
        let row = |n: u8| [0, 1, 0, 0, 0, 1, n];
        let mut stream = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec();
        (0..7).for_each(|n| stream.extend(row(n)));
        stream.extend([0xff, 0xff]);
        for piece in [1, 5, 1000] {
            let (mut scanner, mut builder, mut batches) = (RowScanner::default(), BatchBuilder::new(3), Vec::new());
            for chunk in stream.chunks(piece) {
                builder.bytes.extend_from_slice(chunk);
                while let Some(batch) = builder.scan(&mut scanner).unwrap() {
                    batches.push(batch);
                }
            }
            assert!(scanner.is_complete() && builder.scanned == builder.bytes.len());
            batches.push(builder.cut());
            assert_eq!(batches.iter().map(|batch| batch.rows).collect::<Vec<_>>(), [3, 3, 1]);
            let all: Vec<u8> = batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect();
            assert_eq!(all, (0..7).flat_map(row).collect::<Vec<_>>());
        }
    }
}
