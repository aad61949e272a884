//! The division of an export into shards: half-open ranges of the order's key, each of which any worker may read, and
//! each a part of the file. The bounds depend on the data alone, by a repeatable sample, so that every planner finds
//! the same ones.

use polyglot_core::column::WireType;
use polyglot_core::compression::Compression;
use polyglot_core::expected_size::ExpectedSize;
use polyglot_core::failure::Failure;
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_formats::expected_size;
use sqlx::{AssertSqlSafe, Row as _};

use super::key::key_columns;
use super::range::Range;
use super::read_plan::Plan;
use super::sample::{self, Bound, Sampling};
use super::shard_target::ShardTarget;
use crate::read::{Source, failed};

/// Minimum stored bytes of a table that is sharded.
const MIN_STORED_BYTES: u64 = 1 << 20;
/// Minimum number of rows, by the server's estimate, of an export that is sampled. It is a number of rows, not of
/// bytes: the server knows the average width of a row, and a filter may select the wide ones. Where the estimate is too
/// low, one worker reads what several could have.
const MIN_ROWS: f64 = 200.0;
/// Limits of rows and of cost, by the server's estimate, below which all rows are measured instead of a sample. That
/// takes a few milliseconds, and a sample of pages that have few of the rows would take a hundred.
const MAX_MEASURED_ROWS: f64 = 20_000.0;
const MAX_MEASURED_COST: f64 = 4096.0;
/// Number of size steps before the export is read as one stream.
const SIZE_STEPS: u8 = 2;
/// Maximum cost of reading all ranges, as a multiple of the cost of one scan, by the server's estimate.
const MAX_COST_FACTOR: f64 = 6.0;
/// Maximum number of ranges that the server is asked to estimate.
const MAX_ESTIMATED_RANGES: usize = 5;

/// The result of planning the shards of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShardPlan {
    /// At least two ranges, which together contain every row once, in the order of the export.
    Sharded(Vec<Range>),
    /// One stream, and the reason.
    SingleStream(SingleStreamReason),
}

/// Returns the reason to read one stream that is known without reading any row.
fn single_stream_reason(plan: &Plan, request: &ExportRequest, size_step: u8) -> Option<SingleStreamReason> {
    if request.row_limit.is_some() {
        Some(SingleStreamReason::RowLimit)
    } else if request.layout == Layout::File && request.compression == Some(Compression::Zstd) {
        Some(SingleStreamReason::Zstd)
    } else if has_relative_time(plan, request) {
        Some(SingleStreamReason::RelativeTime)
    } else if size_step >= SIZE_STEPS {
        Some(SingleStreamReason::Uneven)
    } else if !plan.relation.kind.can_be_sharded() {
        // Checked before the size, which is unknown for a view.
        Some(SingleStreamReason::NoKey)
    } else if plan.relation.stored_bytes < MIN_STORED_BYTES {
        Some(SingleStreamReason::Small)
    } else {
        None
    }
}

/// Returns whether the export is so large that it will be sharded, as far as can be told without reading any row. Shards that
/// have been made larger are left out.
pub(crate) fn expects_shards(plan: &Plan, request: &ExportRequest, size_step: u8) -> bool {
    size_step == 0
        && single_stream_reason(plan, request, size_step).is_none()
        && expected_size(&plan.format, request, &plan.relation, None) == ExpectedSize::Large
}

/// Returns whether a filter's value may be a word that the server reads as a time by its clock. Each transaction would
/// read it as another time.
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

/// Returns the bounds without those that would leave a shard smaller than `min_size`: one row before a bound may be
/// larger than the rest of the shard after it.
fn merge_small_shards(bounds: Vec<Bound>, min_size: f64, total: f64) -> Vec<Vec<String>> {
    let mut kept: Vec<Bound> = Vec::with_capacity(bounds.len());
    for bound in bounds {
        if bound.before - kept.last().map_or(0.0, |last| last.before) >= min_size {
            kept.push(bound);
        }
    }
    while kept.last().is_some_and(|last| total - last.before < min_size) {
        kept.pop();
    }
    kept.into_iter().map(|bound| bound.key).collect()
}

/// The server's estimate for a query.
struct Estimate {
    cost: f64,
    rows: f64,
}

/// Divides the export into shards of about the size that fits the object store, or returns the reason to read one
/// stream. Each step of `size_step` makes the shards four times as large, for when they came out too small.
pub(crate) async fn shard_plan(
    source: &mut Source,
    plan: &Plan,
    request: &ExportRequest,
    size_step: u8,
) -> Result<ShardPlan, Failure> {
    if let Some(reason) = single_stream_reason(plan, request, size_step) {
        return Ok(ShardPlan::SingleStream(reason));
    }
    // Reading the catalog and sampling pages costs more than reading a handful of rows through an index.
    let whole = estimate(source, &plan.select(&Range::default())).await?;
    if whole.rows < MIN_ROWS {
        return Ok(ShardPlan::SingleStream(SingleStreamReason::Small));
    }
    let columns = match key_columns(source.secured().await?, &plan.relation, &plan.order).await? {
        Ok(columns) => columns,
        Err(reason) => return Ok(ShardPlan::SingleStream(reason)),
    };
    let target = ShardTarget::new(plan, request, size_step);
    let mut small_reason = if size_step == 0 { SingleStreamReason::Small } else { SingleStreamReason::Uneven };
    if whole.rows < MAX_MEASURED_ROWS
        && whole.cost < MAX_MEASURED_COST
        && sample::fits_one_shard(source, plan, request, target, 2.0 * MAX_MEASURED_ROWS).await?
    {
        return Ok(ShardPlan::SingleStream(small_reason));
    }
    let Some(sampling) = Sampling::of(source, plan, request, target).await? else {
        return Ok(ShardPlan::SingleStream(small_reason));
    };
    for step in size_step..SIZE_STEPS {
        let target = ShardTarget::new(plan, request, step);
        let (shards, total, bounds) = sampling.bounds(source, plan, columns, target).await?;
        if shards < 2.0 {
            return Ok(ShardPlan::SingleStream(small_reason));
        }
        let bounds = merge_small_shards(bounds, total / shards * target.min_share(), total);
        if bounds.is_empty() {
            return Ok(ShardPlan::SingleStream(SingleStreamReason::FewKeys));
        }
        let ranges = Range::between(&bounds);
        if is_cheap(source, plan, &ranges, whole.cost, sampling.toast_pages()).await? {
            return Ok(ShardPlan::Sharded(ranges));
        }
        small_reason = SingleStreamReason::Costly;
    }
    Ok(ShardPlan::SingleStream(SingleStreamReason::Costly))
}

/// Returns whether reading all ranges costs the server not much more than reading all rows once, which costs
/// `scan_cost`. The server may have a better way to the rows than along the key, and would use it once for each range.
/// Its estimate leaves out the reads from the TOAST table, which are the same either way.
#[expect(clippy::cast_precision_loss, reason = "an estimate, of some thousand ranges")]
async fn is_cheap(
    source: &mut Source,
    plan: &Plan,
    ranges: &[Range],
    scan_cost: f64,
    toast_pages: f64,
) -> Result<bool, Failure> {
    let whole = toast_pages + scan_cost;
    let chosen = ranges.len().min(MAX_ESTIMATED_RANGES);
    let mut sum = 0.0;
    for place in 0..chosen {
        // The ranges in the middle of equal stretches of the list.
        sum += estimate(source, &plan.select(&ranges[(2 * place + 1) * ranges.len() / (2 * chosen)])).await?.cost;
    }
    let ranges_cost = toast_pages + sum * ranges.len() as f64 / chosen as f64;
    tracing::debug!(whole, together = ranges_cost, ranges = ranges.len(), "cost of reading in ranges");
    Ok(ranges_cost <= MAX_COST_FACTOR * whole)
}

/// Asks the server for its estimate for a query.
async fn estimate(source: &mut Source, query: &str) -> Result<Estimate, Failure> {
    let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) {query}"));
    let row = sqlx::query(explain).persistent(false).fetch_one(source.secured().await?).await.map_err(failed)?;
    // On the wire a value of type json is its text.
    let text: String = row.try_get_unchecked(0).map_err(failed)?;
    let explained: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let number = |name: &str| explained[0]["Plan"][name].as_f64();
    Ok(Estimate {
        cost: number("Total Cost").unwrap_or(f64::INFINITY),
        rows: number("Plan Rows").unwrap_or(f64::INFINITY),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn a_small_shard_is_merged_with_its_neighbour() {
        let bound = |before: f64| Bound { key: texts(&[&before.to_string()]), before };
        let merged =
            |bounds: &[f64]| merge_small_shards(bounds.iter().copied().map(bound).collect(), 6.0, 50.0).concat();
        assert_eq!(merged(&[10.0, 20.0, 30.0, 40.0]), texts(&["10", "20", "30", "40"]));
        // A row that reaches far beyond the end of its shard leaves little to the next one.
        assert_eq!(merged(&[18.0, 20.0, 33.0, 47.0]), texts(&["18", "33"]));
        assert_eq!(merged(&[2.0, 48.0]), Vec::<String>::new());
    }
}
