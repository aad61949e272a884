//! Where the rows of an export are cut into shards: half-open ranges of the order's key, each read by whoever is free and
//! each a part of the file. The places come from the data alone, by a sample, so that whoever plans comes to the same.

use polyglot_core::column::WireType;
use polyglot_core::compression::Compression;
use polyglot_core::failure::Failure;
use polyglot_core::request::{ExportRequest, Layout};
use polyglot_core::single_stream_reason::SingleStreamReason;
use sqlx::{AssertSqlSafe, Row as _};

use super::key::{has_key, key_columns};
use super::range::Range;
use super::read_plan::Plan;
use super::sample::{self, Bound, Sampling};
use super::shard_target::ShardTarget;
use crate::read::{Source, failed};

/// A table that stores less than this is not worth a look.
const LEAST_STORED_BYTES: u64 = 1 << 20;
/// Rows that the server says are fewer than this are not looked at. By number, not by size: it knows the width of an average
/// row, and a filter may choose the wide ones. Where it is wrong, one worker does what several could have.
const SURELY_FEW: f64 = 200.0;
/// Up to so many rows, which the server says cost no more than so many pages in order, are all weighed: that takes a few
/// milliseconds, and a sample of pages that hold few of them would take a hundred.
const QUICK_ROWS: f64 = 20_000.0;
const QUICK_COST: f64 = 4096.0;
/// Number of size steps before the export is read as one stream.
const SIZE_STEPS: u8 = 2;
/// How many times more than one scan the ranges together may cost, by the server's own estimate.
const MOST_TIMES_THE_COST: f64 = 6.0;
/// Ranges of which the server is asked for an estimate.
const EXPLAINED: usize = 5;

/// What became of an export's rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ShardPlan {
    /// At least two, that together hold every row once, in the order of the export.
    Sharded(Vec<Range>),
    /// One stream, and why.
    SingleStream(SingleStreamReason),
}

/// What stands against cutting, whatever the rows are.
fn against(plan: &Plan, request: &ExportRequest, size_step: u8) -> Option<SingleStreamReason> {
    if request.row_limit.is_some() {
        Some(SingleStreamReason::RowLimit)
    } else if request.layout == Layout::File && request.compression == Some(Compression::Zstd) {
        Some(SingleStreamReason::Zstd)
    } else if has_relative_time(plan, request) {
        Some(SingleStreamReason::RelativeTime)
    } else if size_step >= SIZE_STEPS {
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
fn merge_small_shards(bounds: Vec<Bound>, least: f64, total: f64) -> Vec<Vec<String>> {
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

/// Cuts the export into shards of about the size that fits the object store, or says why it is one stream. Each step
/// of `size_step` makes them four times as large, for when they came out too small.
pub(crate) async fn shard_plan(
    source: &mut Source,
    plan: &Plan,
    request: &ExportRequest,
    size_step: u8,
) -> Result<ShardPlan, Failure> {
    if let Some(uncut) = against(plan, request, size_step) {
        return Ok(ShardPlan::SingleStream(uncut));
    }
    // A look at the catalog, and a sample of pages, cost more than a handful of rows that an index finds.
    let whole = explained(source, &plan.select(&Range::default())).await?;
    if whole.rows < SURELY_FEW {
        return Ok(ShardPlan::SingleStream(SingleStreamReason::Small));
    }
    let columns = match key_columns(&mut source.connection, &plan.relation, &plan.order).await? {
        Ok(columns) => columns,
        Err(uncut) => return Ok(ShardPlan::SingleStream(uncut)),
    };
    let target = ShardTarget::new(plan, request, size_step);
    let mut too_small = if size_step == 0 { SingleStreamReason::Small } else { SingleStreamReason::Uneven };
    if whole.rows < QUICK_ROWS
        && whole.cost < QUICK_COST
        && sample::are_few(source, plan, request, target, 2.0 * QUICK_ROWS).await?
    {
        return Ok(ShardPlan::SingleStream(too_small));
    }
    let Some(sampling) = Sampling::of(source, plan, request, target).await? else {
        return Ok(ShardPlan::SingleStream(too_small));
    };
    for step in size_step..SIZE_STEPS {
        let target = ShardTarget::new(plan, request, step);
        let (shards, total, bounds) = sampling.bounds(source, plan, columns, target).await?;
        if shards < 2.0 {
            return Ok(ShardPlan::SingleStream(too_small));
        }
        let bounds = merge_small_shards(bounds, total / shards * target.least_share(), total);
        if bounds.is_empty() {
            return Ok(ShardPlan::SingleStream(SingleStreamReason::FewKeys));
        }
        let ranges = Range::between(&bounds);
        if is_cheap(source, plan, &ranges, whole.cost, sampling.toast_pages()).await? {
            return Ok(ShardPlan::Sharded(ranges));
        }
        too_small = SingleStreamReason::Costly;
    }
    Ok(ShardPlan::SingleStream(SingleStreamReason::Costly))
}

/// Whether reading all ranges costs the server not much more than reading `everything` once: it may have a better way
/// to the rows than along the key, and would go that way once for each range. Its estimate leaves out what it takes to
/// fetch values from the TOAST table, which is the same either way.
#[expect(clippy::cast_precision_loss, reason = "an estimate, of some thousand ranges")]
async fn is_cheap(
    source: &mut Source,
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
        sum += explained(source, &plan.select(&ranges[(2 * place + 1) * ranges.len() / (2 * chosen)])).await?.cost;
    }
    let together = toast_pages + sum * ranges.len() as f64 / chosen as f64;
    tracing::debug!(whole, together, ranges = ranges.len(), "cost of reading in ranges");
    Ok(together <= MOST_TIMES_THE_COST * whole)
}

/// The server's estimate for a query.
async fn explained(source: &mut Source, query: &str) -> Result<Explained, Failure> {
    let explain = AssertSqlSafe(format!("EXPLAIN (FORMAT JSON) {query}"));
    let row = sqlx::query(explain).persistent(false).fetch_one(&mut source.connection).await.map_err(failed)?;
    // On the wire json is its text.
    let text: String = row.try_get_unchecked(0).map_err(failed)?;
    let explained: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let number = |name: &str| explained[0]["Plan"][name].as_f64();
    Ok(Explained {
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
    fn what_would_be_small_is_added_to_its_neighbour() {
        let bound = |before: f64| Bound { key: texts(&[&before.to_string()]), before };
        let merged =
            |bounds: &[f64]| merge_small_shards(bounds.iter().copied().map(bound).collect(), 6.0, 50.0).concat();
        assert_eq!(merged(&[10.0, 20.0, 30.0, 40.0]), texts(&["10", "20", "30", "40"]));
        // A row that reaches far over its end leaves little to the next one.
        assert_eq!(merged(&[18.0, 20.0, 33.0, 47.0]), texts(&["18", "33"]));
        assert_eq!(merged(&[2.0, 48.0]), Vec::<String>::new());
    }
}
