//! A sample of an export's rows: their size in the file, and the keys at which shards of equal size begin. The sample
//! is repeatable: a table that does not change is always sharded at the same keys.

use polyglot_core::failure::Failure;
use polyglot_core::request::ExportRequest;
use polyglot_core::selection::Direction;
use polyglot_source::sql::{self, text_form};
use sqlx::{AssertSqlSafe, Row as _};

use super::calibrate;
use super::read_plan::Plan;
use super::row_size_estimate::row_size_expression;
use super::shard_target::ShardTarget;
use super::sql::{ALIAS, qualified};
use crate::read::{Source, failed};

const PAGE_BYTES: f64 = 8192.0;
/// Sampled pages for each shard. The true size of a shard then varies by a sixth, and is never a third of the intended
/// one.
const PAGES_A_SHARD: f64 = 40.0;
/// Pages of the first sample, and of the next ones where a filter leaves rows on few pages.
const PILOT_PAGES: [f64; 3] = [512.0, 4096.0, MAX_PILOT_PAGES];
/// Number of pages with rows that is enough for the first sample.
const MIN_FOUND_PAGES: u32 = 32;
/// Maximum pages of the first sample: 256 MiB, which are read in about a second.
const MAX_PILOT_PAGES: f64 = 32_768.0;
/// Minimum pages of the sample that finds the bounds.
const MIN_PAGES: f64 = 128.0;
/// Limits of the sample that is encoded to calibrate the estimate: bytes, pages and rows.
const CALIBRATION_BYTES: f64 = (4 << 20) as f64;
const CALIBRATION_PAGES: f64 = 8.0;
const MAX_CALIBRATION_PAGES: f64 = 8192.0;
const CALIBRATION_ROWS: f64 = 50_000.0;
/// Size estimate above which a row counts as heavy. Such rows have values in the TOAST table, and may lie together on a
/// handful of pages that no small sample of pages finds. Where there may be many, more pages are sampled for them than
/// for the others.
const HEAVY: f64 = 8192.0;
/// Minimum size of the TOAST table, in bytes, that needs a sample for heavy rows.
const MIN_TOAST_BYTES: u64 = 2 << 20;
/// Maximum bytes of the file for each unit of the size estimate, in any format; used until the estimate is calibrated.
const MAX_RATIO: f64 = 3.0;

/// Seeds of the samples. Each sample has other pages, so that what is unusual in one is not repeated in the next.
const PILOT_SEED: u8 = 1;
const CALIBRATION_SEED: u8 = 2;
const LIGHT_SEED: u8 = 3;
const HEAVY_SEED: u8 = 4;

// The current size of the files, not that of the last statistics.
const HEAP_BYTES: &str = "
    SELECT sum(pg_relation_size(leaf.oid))::int8
    FROM (SELECT to_regclass(format('%I.%I', $1::text, $2::text))::oid AS oid
          UNION SELECT relid FROM pg_partition_tree(to_regclass(format('%I.%I', $1::text, $2::text)))) AS leaf";

/// The beginning of a shard.
pub(super) struct Bound {
    pub key: Vec<String>,
    /// Sum of the size estimates of all rows before it.
    pub before: f64,
}

/// The rows of one kind in the whole relation, extrapolated from the first sample.
#[derive(Debug, Clone, Copy)]
struct Stratum {
    /// Sum of the size estimates of the rows.
    size_estimate: f64,
    /// Effective number of pages, as if each had an equal share: a few pages with most of the bytes count as few.
    pages: f64,
}

impl Stratum {
    /// Returns the share of all pages that gives every shard enough pages with such rows.
    fn fraction(self, estimate_a_shard: f64) -> f64 {
        if self.pages > 0.0 { PAGES_A_SHARD * self.size_estimate / estimate_a_shard / self.pages } else { 0.0 }
    }
}

/// The way to sample the rows, and what is known of their size.
#[derive(Debug)]
pub(super) struct Sampling {
    /// Expression of the size estimate of a row.
    row_size: String,
    heap_pages: f64,
    /// Bytes of the file for each unit of the size estimate.
    ratio: f64,
    light: Stratum,
    /// The heavy rows; `None` where there are none.
    heavy: Option<Stratum>,
}

fn tablesample(fraction: f64, seed: u8) -> String {
    // The argument is a percentage, as a float of four bytes.
    format!(" TABLESAMPLE SYSTEM ({:.7}) REPEATABLE ({seed})", fraction.clamp(0.0, 1.0) * 100.0)
}

/// Returns whether long values may be stored in the TOAST table, and compressed: the size estimate of a row is then
/// less exact.
fn is_toasted(plan: &Plan) -> bool {
    plan.relation.toast_bytes.is_none_or(|bytes| bytes > MIN_TOAST_BYTES)
}

/// Returns whether all rows together are surely too few to be sharded: false if there are more than `max_rows` of them,
/// because no more are read.
pub(super) async fn fits_one_shard(
    source: &mut Source,
    plan: &Plan,
    request: &ExportRequest,
    target: ShardTarget,
    max_rows: f64,
) -> Result<bool, Failure> {
    if is_toasted(plan) {
        return Ok(false);
    }
    let query = format!(
        "SELECT count(*)::float8 AS rows, coalesce(sum(weight), 0)::float8 AS weight
         FROM (SELECT {} AS weight FROM {}{} LIMIT {max_rows}) AS row",
        row_size_expression(plan, request),
        plan.relation(""),
        sql::all_of(&plan.conditions),
    );
    let row =
        sqlx::query(AssertSqlSafe(query)).persistent(false).fetch_one(source.secured().await?).await.map_err(failed)?;
    let number = |name: &str| row.try_get::<f64, _>(name).map_err(failed);
    Ok(number("rows")? < max_rows && is_below_two_shards(number("weight")?, target))
}

/// Returns whether the sum of the size estimates is surely less than two shards.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn is_below_two_shards(size_estimate: f64, target: ShardTarget) -> bool {
    size_estimate * MAX_RATIO < 2.0 * target.bytes as f64
}

impl Sampling {
    /// Samples the rows; `None` if they are too few to be sharded.
    pub(super) async fn of(
        source: &mut Source,
        plan: &Plan,
        request: &ExportRequest,
        target: ShardTarget,
    ) -> Result<Option<Self>, Failure> {
        let heap_bytes: Option<i64> = sqlx::query_scalar(HEAP_BYTES)
            .bind(&plan.relation.name.schema)
            .bind(&plan.relation.name.name)
            .fetch_one(source.secured().await?)
            .await
            .map_err(failed)?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let heap_bytes = heap_bytes.unwrap_or(0) as f64;
        let heap_pages = (heap_bytes / PAGE_BYTES).max(1.0);
        let toasted = is_toasted(plan);
        let mut sampling = Self {
            row_size: row_size_expression(plan, request),
            heap_pages,
            ratio: 1.0,
            light: Stratum { size_estimate: 0.0, pages: 0.0 },
            heavy: toasted.then_some(Stratum { size_estimate: 0.0, pages: 0.0 }),
        };
        let rows = sampling.pilot(source, plan).await?;
        let size_estimate = sampling.light.size_estimate + sampling.heavy.map_or(0.0, |heavy| heavy.size_estimate);
        if !toasted && is_below_two_shards(size_estimate, target) {
            return Ok(None);
        }
        if size_estimate > 0.0 {
            // At least a few pages, even if they have far more bytes than needed.
            let pages = sampling.light.pages + sampling.heavy.map_or(0.0, |heavy| heavy.pages);
            let fraction = (CALIBRATION_BYTES / size_estimate).max(CALIBRATION_PAGES / pages);
            let fraction = fraction.min(MAX_CALIBRATION_PAGES / heap_pages);
            let rows = (2.0 * CALIBRATION_BYTES * rows / size_estimate).clamp(8.0, CALIBRATION_ROWS);
            let sample = tablesample(fraction, CALIBRATION_SEED);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two constants")]
            let statement = plan.copy_sample(&sample, &format!("({})", sampling.row_size), rows as u64);
            sampling.ratio = calibrate::ratio(source, plan, request, &statement).await?;
        }
        tracing::debug!(?sampling, "rows sampled");
        Ok(Some(sampling))
    }

    /// Takes the first sample and returns the estimated number of rows.
    async fn pilot(&mut self, source: &mut Source, plan: &Plan) -> Result<f64, Failure> {
        for pages in PILOT_PAGES {
            let fraction = (pages / self.heap_pages).min(1.0);
            let light = if self.heavy.is_some() { HEAVY } else { f64::INFINITY };
            let query = format!(
                "SELECT count(*) AS pages, coalesce(sum(rows), 0)::float8 AS rows,
                        coalesce(sum(light), 0)::float8 AS light, coalesce(sum(light ^ 2), 0)::float8 AS light_squares,
                        coalesce(sum(heavy), 0)::float8 AS heavy, coalesce(sum(heavy ^ 2), 0)::float8 AS heavy_squares
                 FROM (SELECT count(*) AS rows, coalesce(sum(weight) FILTER (WHERE weight <= '{light}'), 0) AS light,
                              coalesce(sum(weight) FILTER (WHERE weight > '{light}'), 0) AS heavy
                       FROM (SELECT {ALIAS}.tableoid AS leaf, {ALIAS}.ctid AS place, {} AS weight FROM {}{} OFFSET 0) AS row
                       GROUP BY leaf, (place::text::point)[0]) AS page",
                self.row_size,
                plan.relation(&tablesample(fraction, PILOT_SEED)),
                sql::all_of(&plan.conditions),
            );
            let query = sqlx::query(AssertSqlSafe(query)).persistent(false);
            let row = query.fetch_one(source.secured().await?).await.map_err(failed)?;
            let number = |name: &str| row.try_get::<f64, _>(name).map_err(failed);
            let stratum = |size_estimate: f64, squares: f64| Stratum {
                size_estimate: size_estimate / fraction,
                pages: if squares > 0.0 { size_estimate * size_estimate / squares / fraction } else { 0.0 },
            };
            self.light = stratum(number("light")?, number("light_squares")?);
            if let Some(heavy) = &mut self.heavy {
                *heavy = stratum(number("heavy")?, number("heavy_squares")?);
            }
            let found: i64 = row.try_get("pages").map_err(failed)?;
            if found >= MIN_FOUND_PAGES.into() || fraction >= 1.0 || pages >= MAX_PILOT_PAGES {
                return Ok(number("rows")? / fraction);
            }
        }
        Ok(0.0)
    }

    /// Returns the approximate number of pages that are read from the TOAST table: reading a page in order is the unit
    /// of the server's estimates.
    pub(super) fn toast_pages(&self) -> f64 {
        self.heavy.map_or(0.0, |heavy| heavy.size_estimate / PAGE_BYTES)
    }

    /// Returns the intended number of shards, the sum of all size estimates, and the bounds between shards of equal
    /// size.
    pub(super) async fn bounds(
        &self,
        source: &mut Source,
        plan: &Plan,
        columns: usize,
        target: ShardTarget,
    ) -> Result<(f64, f64, Vec<Bound>), Failure> {
        let keys = &plan.order.keys[..columns];
        let names = |prefix: &str| (0..columns).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
        let selected: Vec<String> =
            keys.iter().zip(names("key")).map(|(key, name)| format!("{} AS {name}", qualified(&key.column))).collect();
        // All keys have one direction.
        let descending = if keys[0].direction == Direction::Desc { " DESC" } else { "" };
        let order: Vec<String> = names("key").iter().map(|name| format!("{name}{descending}")).collect();
        let order = order.join(", ");
        let texts: Vec<String> = names("key").iter().map(|name| text_form(name)).collect();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let estimate_a_shard = target.bytes as f64 / self.ratio;
        // Whole numbers, because their sum does not depend on the order in which they are added.
        let stratum = |fraction: f64, seed: u8, which: &str| {
            let fraction = fraction.clamp(f64::EPSILON, 1.0);
            format!(
                "SELECT {}, round(weight * {}) AS weight
                 FROM (SELECT {}, {} AS weight FROM {}{} OFFSET 0) AS row{which}",
                names("key").join(", "),
                1.0 / fraction,
                selected.join(", "),
                self.row_size,
                plan.relation(&tablesample(fraction, seed)),
                sql::all_of(&plan.conditions),
            )
        };
        let min_fraction = MIN_PAGES / self.heap_pages;
        let light = self.light.fraction(estimate_a_shard).max(min_fraction);
        let sample = match self.heavy {
            None => stratum(light, LIGHT_SEED, ""),
            Some(heavy) => {
                let heavy = heavy.fraction(estimate_a_shard).max(MAX_PILOT_PAGES / self.heap_pages);
                format!(
                    "{} UNION ALL {}",
                    stratum(light, LIGHT_SEED, &format!(" WHERE weight <= {HEAVY}")),
                    stratum(heavy, HEAVY_SEED, &format!(" WHERE weight > {HEAVY}"))
                )
            }
        };
        let query = format!(
            "SELECT shards, total, before, ARRAY[{texts}] AS key
             FROM (SELECT *, lag(shard) OVER (ORDER BY {order}) AS previous
                   FROM (SELECT *, floor(before * shards / greatest(total, 1)) AS shard
                         FROM (SELECT *, least(floor(total / {estimate_a_shard}), {most}) AS shards
                               FROM (SELECT *, sum(weight) OVER () AS total,
                                            sum(weight) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) - weight AS before
                                     FROM ({sample}) AS sample) AS placed) AS counted) AS cut) AS compared
             WHERE shard IS DISTINCT FROM previous
             ORDER BY {order}",
            texts = texts.join(", "),
            most = target.max_shards,
        );
        let query = sqlx::query(AssertSqlSafe(query)).persistent(false);
        let rows = query.fetch_all(source.secured().await?).await.map_err(failed)?;
        let (mut shards, mut total, mut bounds) = (0.0, 0.0, Vec::with_capacity(rows.len()));
        for row in rows {
            shards = row.try_get("shards").map_err(failed)?;
            total = row.try_get("total").map_err(failed)?;
            bounds.push(Bound {
                key: row.try_get("key").map_err(failed)?,
                before: row.try_get("before").map_err(failed)?,
            });
        }
        // The first shard begins with the first row, which is no bound.
        if !bounds.is_empty() {
            bounds.remove(0);
        }
        Ok((shards, total, bounds))
    }
}
