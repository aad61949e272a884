//! Where the rows of an export are cut into shards: half-open ranges of the order's key, each read by whoever is free and
//! each a part of the file. The places come from the data alone, by a sample, so that whoever plans comes to the same.

use polyglot_core::column::WireType;
use polyglot_core::compression::Compression;
use polyglot_core::failure::Failure;
use polyglot_core::format::Format;
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::selection::{Direction, Order};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_source::sql::quote_literal;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Row as _};

use super::key::{has_key, key_columns};
use super::sample::{self, Bound, Sampling};
use super::{Plan, Source, failed, qualified};

/// What a shard is to hold of the file, as it is stored. A part has to have 5 MiB, and a sample is not exact.
const SHARD_BYTES: u64 = 16 << 20;
/// Less of a Parquet file: beside the shard, a row group of it is in memory as well.
const PARQUET_SHARD_BYTES: u64 = 12 << 20;
/// The same where each shard is a file of its own.
const FILE_BYTES: u64 = 128 << 20;
/// Of the object store's 10,000 parts one is the file's end, and an estimate may be wrong.
const MOST_SHARDS: u64 = 6000;
/// A Parquet footer is in memory until it is written, and has about a kilobyte for each column of each row group, of which a
/// shard has a few.
const MOST_COLUMN_CHUNKS: u64 = 16_384;
/// A table that stores less than this is not worth a look.
const LEAST_STORED_BYTES: u64 = 1 << 20;
/// Rows that the server says are fewer than this are not looked at. By number, not by size: it knows the width of an average
/// row, and a filter may choose the wide ones. Where it is wrong, one worker does what several could have.
const SURELY_FEW: f64 = 200.0;
/// Up to so many rows, which the server says cost no more than so many pages in order, are all weighed: that takes a few
/// milliseconds, and a sample of pages that hold few of them would take a hundred.
const QUICK_ROWS: f64 = 20_000.0;
const QUICK_COST: f64 = 4096.0;
/// A shard that the sample says is smaller than this share of the others is added to the one before it.
const LEAST_SHARE: f64 = 0.6;
/// And in any case one that is to have less than this: by as much as a sample may be wrong, more than a part has to have.
const LEAST_SHARD_BYTES: f64 = (9 << 20) as f64;
/// Each step makes shards so many times larger, and there are so many steps.
const COARSER: u64 = 4;
const STEPS: u8 = 2;
/// How many times more than one scan the ranges together may cost, by the server's own estimate.
const MOST_TIMES_THE_COST: f64 = 6.0;
/// Ranges of which the server is asked for an estimate.
const EXPLAINED: usize = 5;

/// A half-open part of the order, in the texts of its first columns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Range {
    /// The first row's key, or that of a row before it; `None`: the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<Vec<String>>,
    /// The key of the first row behind; `None`: the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Vec<String>>,
}

/// What became of an export's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cut {
    /// At least two, that together hold every row once, in the order of the export.
    Ranges(Vec<Range>),
    /// One stream, and why.
    One(SingleStreamReason),
}

impl Range {
    /// The conditions of its rows. The literals have no type of their own: the server reads each as its column's.
    pub(super) fn conditions(&self, order: &Order) -> Vec<String> {
        let descending = order.keys.first().is_some_and(|key| key.direction == Direction::Desc);
        let (from, to) = if descending { ("<=", ">") } else { (">=", "<") };
        let compare = |operator: &str, bound: &Vec<String>| {
            let columns: Vec<String> = order.keys.iter().take(bound.len()).map(|key| qualified(&key.column)).collect();
            let bound: Vec<String> = bound.iter().map(|text| quote_literal(text)).collect();
            format!("(({}) {operator} ({}))", columns.join(", "), bound.join(", "))
        };
        let from = self.from.as_ref().map(|bound| compare(from, bound));
        from.into_iter().chain(self.to.as_ref().map(|bound| compare(to, bound))).collect()
    }

    /// The ranges between these bounds, and before and behind them.
    fn between(bounds: &[Vec<String>]) -> Vec<Self> {
        let from = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
        let to = bounds.iter().cloned().map(Some).chain([None]);
        from.zip(to).map(|(from, to)| Self { from, to }).collect()
    }
}

/// Into how many shards an export may be cut, and how large each is to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub bytes: u64,
    pub most: u64,
}

impl Target {
    fn of(plan: &Plan, request: &ExportRequest, coarser: u8) -> Self {
        let bytes = match (request.layout, request.format) {
            (Layout::File, Format::Parquet) => PARQUET_SHARD_BYTES,
            (Layout::File, _) => SHARD_BYTES,
            (Layout::Files, _) => FILE_BYTES,
        };
        let columns = u64::try_from(plan.columns.len()).unwrap_or(u64::MAX).max(1);
        let chunks = match (request.layout, request.format) {
            (Layout::File, Format::Parquet) => MOST_COLUMN_CHUNKS / columns,
            _ => MOST_SHARDS,
        };
        Self { bytes: bytes * COARSER.pow(coarser.into()), most: chunks.min(MOST_SHARDS) }
    }
}

impl Target {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    fn least_share(self) -> f64 {
        LEAST_SHARE.max(LEAST_SHARD_BYTES / self.bytes as f64)
    }
}

/// What stands against cutting, whatever the rows are.
fn against(plan: &Plan, request: &ExportRequest, coarser: u8) -> Option<SingleStreamReason> {
    if request.row_limit.is_some() {
        Some(SingleStreamReason::RowLimit)
    } else if request.layout == Layout::File && request.compression == Some(Compression::Zstd) {
        Some(SingleStreamReason::Zstd)
    } else if has_relative_time(plan, request) {
        Some(SingleStreamReason::RelativeTime)
    } else if coarser >= STEPS {
        Some(SingleStreamReason::Uneven)
    } else if !has_key(&plan.relation) {
        // Before its size, which is not known of a view.
        Some(SingleStreamReason::NoKey)
    } else if plan.relation.stored_bytes < LEAST_STORED_BYTES {
        Some(SingleStreamReason::Small)
    } else {
        None
    }
}

/// Whether a filter's value may be a word that the server reads as a time by its clock: it would in each transaction anew.
fn has_relative_time(plan: &Plan, request: &ExportRequest) -> bool {
    const WORDS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];
    let is_time = |name: &str| {
        plan.relation.column(name).is_some_and(|column| {
            use WireType::{Date, TextForm, Time, Timestamp, TimestampTz};
            matches!(column.wire, Date | Time | Timestamp | TimestampTz | TextForm)
        })
    };
    request.filters.iter().filter(|filter| is_time(&filter.column)).flat_map(|filter| &filter.values).any(|value| {
        let value = value.to_ascii_lowercase();
        WORDS.iter().any(|word| value.contains(word))
    })
}

/// The bounds without those behind which a shard would be small: the last row of the one before may be larger than all
/// that is left.
fn spread(bounds: Vec<Bound>, least: f64, total: f64) -> Vec<Vec<String>> {
    let mut kept: Vec<Bound> = Vec::with_capacity(bounds.len());
    for bound in bounds {
        if bound.before - kept.last().map_or(0.0, |last| last.before) >= least {
            kept.push(bound);
        }
    }
    while kept.last().is_some_and(|last| total - last.before < least) {
        kept.pop();
    }
    kept.into_iter().map(|bound| bound.key).collect()
}

/// What the server expects of a query.
struct Explained {
    cost: f64,
    rows: f64,
}

impl Source {
    /// Cuts the export into shards of about the size that fits the object store, or says why it is one stream. Each step
    /// of `coarser` makes them four times as large, for when they came out too small.
    pub(crate) async fn cut(&mut self, plan: &Plan, request: &ExportRequest, coarser: u8) -> Result<Cut, Failure> {
        if let Some(uncut) = against(plan, request, coarser) {
            return Ok(Cut::One(uncut));
        }
        // A look at the catalog, and a sample of pages, cost more than a handful of rows that an index finds.
        let whole = self.explained(&plan.select(&Range::default())).await?;
        if whole.rows < SURELY_FEW {
            return Ok(Cut::One(SingleStreamReason::Small));
        }
        let columns = match key_columns(&mut self.connection, &plan.relation, &plan.order).await? {
            Ok(columns) => columns,
            Err(uncut) => return Ok(Cut::One(uncut)),
        };
        let target = Target::of(plan, request, coarser);
        let mut too_small = if coarser == 0 { SingleStreamReason::Small } else { SingleStreamReason::Uneven };
        if whole.rows < QUICK_ROWS
            && whole.cost < QUICK_COST
            && sample::are_few(self, plan, request, target, 2.0 * QUICK_ROWS).await?
        {
            return Ok(Cut::One(too_small));
        }
        let Some(sampling) = Sampling::of(self, plan, request, target).await? else {
            return Ok(Cut::One(too_small));
        };
        for step in coarser..STEPS {
            let target = Target::of(plan, request, step);
            let (shards, total, bounds) = sampling.bounds(self, plan, columns, target).await?;
            if shards < 2.0 {
                return Ok(Cut::One(too_small));
            }
            let bounds = spread(bounds, total / shards * target.least_share(), total);
            if bounds.is_empty() {
                return Ok(Cut::One(SingleStreamReason::FewKeys));
            }
            let ranges = Range::between(&bounds);
            if self.is_cheap(plan, &ranges, whole.cost, sampling.toast_pages()).await? {
                return Ok(Cut::Ranges(ranges));
            }
            too_small = SingleStreamReason::Costly;
        }
        Ok(Cut::One(SingleStreamReason::Costly))
    }

    /// Whether reading all ranges costs the server not much more than reading `everything` once: it may have a better way
    /// to the rows than along the key, and would go that way once for each range. Its estimate leaves out what it takes to
    /// fetch values from the TOAST table, which is the same either way.
    #[expect(clippy::cast_precision_loss, reason = "an estimate, of some thousand ranges")]
    async fn is_cheap(
        &mut self,
        plan: &Plan,
        ranges: &[Range],
        everything: f64,
        toast_pages: f64,
    ) -> Result<bool, Failure> {
        let whole = toast_pages + everything;
        let chosen = ranges.len().min(EXPLAINED);
        let mut sum = 0.0;
        for place in 0..chosen {
            // In the middle of as many equal stretches.
            sum += self.explained(&plan.select(&ranges[(2 * place + 1) * ranges.len() / (2 * chosen)])).await?.cost;
        }
        let together = toast_pages + sum * ranges.len() as f64 / chosen as f64;
        tracing::debug!(whole, together, ranges = ranges.len(), "cost of reading in ranges");
        Ok(together <= MOST_TIMES_THE_COST * whole)
    }

    /// The server's estimate for a query.
    async fn explained(&mut self, query: &str) -> Result<Explained, Failure> {
        let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) {query}"));
        let row = sqlx::query(explain).persistent(false).fetch_one(&mut self.connection).await.map_err(failed)?;
        // On the wire json is its text.
        let text: String = row.try_get_unchecked(0).map_err(failed)?;
        let explained: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let number = |name: &str| explained[0]["Plan"][name].as_f64();
        Ok(Explained {
            cost: number("Total Cost").unwrap_or(f64::INFINITY),
            rows: number("Plan Rows").unwrap_or(f64::INFINITY),
        })
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
            [r#"((r."a", r."b") >= ('it''s', '1'))"#, r#"((r."a", r."b") < ('x', '2'))"#]
        );
        let order = Order { keys: keys(Direction::Desc), total: true };
        assert_eq!(ranges[2].conditions(&order), [r#"((r."a", r."b") <= ('x', '2'))"#]);
        assert!(Range::default().conditions(&order).is_empty());
    }

    #[test]
    fn what_would_be_small_is_added_to_its_neighbour() {
        let bound = |before: f64| Bound { key: texts(&[&before.to_string()]), before };
        let spread = |bounds: &[f64]| spread(bounds.iter().copied().map(bound).collect(), 6.0, 50.0).concat();
        assert_eq!(spread(&[10.0, 20.0, 30.0, 40.0]), texts(&["10", "20", "30", "40"]));
        // A row that reaches far over its end leaves little to the next one.
        assert_eq!(spread(&[18.0, 20.0, 33.0, 47.0]), texts(&["18", "33"]));
        assert_eq!(spread(&[2.0, 48.0]), Vec::<String>::new());
    }
}
