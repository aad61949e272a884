//! A sample of an export's rows: how large they are in the file, and at which keys pieces of one size begin. The same
//! pages are looked at each time, so that a table that does not change is always cut at the same places.

use polyglot_core::failure::Failure;
use polyglot_core::request::ExportRequest;
use polyglot_core::selection::Direction;
use polyglot_source::sql;
use sqlx::{AssertSqlSafe, Row as _};

use super::calibrate;
use super::read_plan::{Plan, text_form};
use super::row_size_estimate::row_size_expression;
use super::shard_target::ShardTarget;
use super::sql::{ALIAS, qualified};
use crate::read::{Source, failed};

const PAGE_BYTES: f64 = 8192.0;
/// Sampled pages that a shard is to have. Its true size then varies by a sixth, and is never a third of what was meant.
const PAGES_A_SHARD: f64 = 40.0;
/// Pages that are looked at first, and again more of them where a filter leaves rows on few.
const PILOT_PAGES: [f64; 3] = [512.0, 4096.0, MOST_PAGES];
const ENOUGH_PAGES: u32 = 32;
/// 256 MiB: what may be read before anything is known, in a second or so.
const MOST_PAGES: f64 = 32_768.0;
/// Of the relation in any sample of the places.
const LEAST_PAGES: f64 = 128.0;
/// Of what is encoded for trial.
const CALIBRATION_BYTES: f64 = (4 << 20) as f64;
const CALIBRATION_PAGES: f64 = 8.0;
const MOST_CALIBRATION_PAGES: f64 = 8192.0;
const CALIBRATION_ROWS: f64 = 50_000.0;
/// Rows that weigh more have parts of them in the TOAST table, and may lie together on a handful of pages that no small
/// sample of pages finds. Where there may be many, they are looked for on more pages than the others.
const HEAVY: f64 = 8192.0;
const TOAST_WORTH_A_LOOK: u64 = 2 << 20;
/// Until the rows were encoded for trial: no format makes more of a row's weight than this.
const MOST_RATIO: f64 = 3.0;

/// Each look is at other pages: what was unusual in one is not repeated in the next.
const PILOT_SEED: u8 = 1;
const CALIBRATION_SEED: u8 = 2;
const LIGHT_SEED: u8 = 3;
const HEAVY_SEED: u8 = 4;

// Sizes as the files have them now, not as the statistics had them once.
const HEAP_BYTES: &str = "
    SELECT sum(pg_relation_size(leaf.oid))::int8
    FROM (SELECT to_regclass(format('%I.%I', $1::text, $2::text))::oid AS oid
          UNION SELECT relid FROM pg_partition_tree(to_regclass(format('%I.%I', $1::text, $2::text)))) AS leaf";

/// Where a piece begins.
pub(super) struct Bound {
    pub key: Vec<String>,
    /// The weight of all rows before it.
    pub before: f64,
}

/// Rows of one kind, as the first look has found them, for the whole relation.
#[derive(Debug, Clone, Copy)]
struct Stratum {
    weight: f64,
    /// Pages, if each had as much as the others: a few pages with most of the weight count as few.
    pages: f64,
}

impl Stratum {
    /// The share of all pages that gives every shard enough of those that matter.
    fn fraction(self, bytes_a_shard: f64) -> f64 {
        if self.pages > 0.0 { PAGES_A_SHARD * self.weight / bytes_a_shard / self.pages } else { 0.0 }
    }
}

/// How the rows are looked at, and what was learned of their size.
#[derive(Debug)]
pub(super) struct Sampling {
    weight: String,
    heap_pages: f64,
    /// Bytes of the file for each unit of weight.
    ratio: f64,
    light: Stratum,
    /// Where there may be any.
    heavy: Option<Stratum>,
}

fn tablesample(fraction: f64, seed: u8) -> String {
    // The argument is a float of four bytes, in percent.
    format!(" TABLESAMPLE SYSTEM ({:.7}) REPEATABLE ({seed})", fraction.clamp(0.0, 1.0) * 100.0)
}

/// Whether long values may be stored apart, and compressed: then a row's weight says less of its size.
fn is_toasted(plan: &Plan) -> bool {
    plan.relation.toast_bytes.is_none_or(|bytes| bytes > TOAST_WORTH_A_LOOK)
}

/// Whether all rows together are surely too few to be cut. Not if there are more than `most` of them: the rest is not looked
/// at.
pub(super) async fn are_few(
    source: &mut Source,
    plan: &Plan,
    request: &ExportRequest,
    target: ShardTarget,
    most: f64,
) -> Result<bool, Failure> {
    if is_toasted(plan) {
        return Ok(false);
    }
    let query = format!(
        "SELECT count(*)::float8 AS rows, coalesce(sum(weight), 0)::float8 AS weight
         FROM (SELECT {} AS weight FROM {}{} LIMIT {most}) AS row",
        row_size_expression(plan, request),
        plan.relation(""),
        sql::all_of(&plan.conditions),
    );
    let row =
        sqlx::query(AssertSqlSafe(query)).persistent(false).fetch_one(&mut source.connection).await.map_err(failed)?;
    let number = |name: &str| row.try_get::<f64, _>(name).map_err(failed);
    Ok(number("rows")? < most && fits_one(number("weight")?, target))
}

/// Whether a weight is surely less than two shards.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn fits_one(weight: f64, target: ShardTarget) -> bool {
    weight * MOST_RATIO < 2.0 * target.bytes as f64
}

impl Sampling {
    /// Looks at the rows, or sees that they are too few to be cut.
    pub(super) async fn of(
        source: &mut Source,
        plan: &Plan,
        request: &ExportRequest,
        target: ShardTarget,
    ) -> Result<Option<Self>, Failure> {
        let heap_bytes: Option<i64> = sqlx::query_scalar(HEAP_BYTES)
            .bind(&plan.relation.name.schema)
            .bind(&plan.relation.name.name)
            .fetch_one(&mut source.connection)
            .await
            .map_err(failed)?;
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let heap_bytes = heap_bytes.unwrap_or(0) as f64;
        let heap_pages = (heap_bytes / PAGE_BYTES).max(1.0);
        let toasted = is_toasted(plan);
        let mut sampling = Self {
            weight: row_size_expression(plan, request),
            heap_pages,
            ratio: 1.0,
            light: Stratum { weight: 0.0, pages: 0.0 },
            heavy: toasted.then_some(Stratum { weight: 0.0, pages: 0.0 }),
        };
        let rows = sampling.pilot(source, plan).await?;
        let weight = sampling.light.weight + sampling.heavy.map_or(0.0, |heavy| heavy.weight);
        if !toasted && fits_one(weight, target) {
            return Ok(None);
        }
        if weight > 0.0 {
            // Some pages in any case, even if they hold far more than that.
            let pages = sampling.light.pages + sampling.heavy.map_or(0.0, |heavy| heavy.pages);
            let fraction = (CALIBRATION_BYTES / weight).max(CALIBRATION_PAGES / pages);
            let fraction = fraction.min(MOST_CALIBRATION_PAGES / heap_pages);
            let rows = (2.0 * CALIBRATION_BYTES * rows / weight).clamp(8.0, CALIBRATION_ROWS);
            let sample = tablesample(fraction, CALIBRATION_SEED);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two constants")]
            let statement = plan.copy_sample(&sample, &format!("({})", sampling.weight), rows as u64);
            sampling.ratio = calibrate::ratio(source, plan, request, &statement).await?;
        }
        tracing::debug!(?sampling, "sampled");
        Ok(Some(sampling))
    }

    /// The first look; the answer is how many rows there may be.
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
                self.weight,
                plan.relation(&tablesample(fraction, PILOT_SEED)),
                sql::all_of(&plan.conditions),
            );
            let query = sqlx::query(AssertSqlSafe(query)).persistent(false);
            let row = query.fetch_one(&mut source.connection).await.map_err(failed)?;
            let number = |name: &str| row.try_get::<f64, _>(name).map_err(failed);
            let stratum = |weight: f64, squares: f64| Stratum {
                weight: weight / fraction,
                pages: if squares > 0.0 { weight * weight / squares / fraction } else { 0.0 },
            };
            self.light = stratum(number("light")?, number("light_squares")?);
            if let Some(heavy) = &mut self.heavy {
                *heavy = stratum(number("heavy")?, number("heavy_squares")?);
            }
            let found: i64 = row.try_get("pages").map_err(failed)?;
            if found >= ENOUGH_PAGES.into() || fraction >= 1.0 || pages >= MOST_PAGES {
                return Ok(number("rows")? / fraction);
            }
        }
        Ok(0.0)
    }

    /// What is fetched from the TOAST table, roughly: reading a page in order is the unit of the server's estimates.
    pub(super) fn toast_pages(&self) -> f64 {
        self.heavy.map_or(0.0, |heavy| heavy.weight / PAGE_BYTES)
    }

    /// Into how many shards the rows are to be cut, the weight of all of them, and the bounds between shards of one weight.
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
        // All in one direction.
        let descending = if keys[0].direction == Direction::Desc { " DESC" } else { "" };
        let order: Vec<String> = names("key").iter().map(|name| format!("{name}{descending}")).collect();
        let order = order.join(", ");
        let texts: Vec<String> = names("key").iter().map(|name| text_form(name)).collect();
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let weight_a_shard = target.bytes as f64 / self.ratio;
        // Sums of whole numbers are the same in whatever order they are added up.
        let stratum = |fraction: f64, seed: u8, which: &str| {
            let fraction = fraction.clamp(f64::EPSILON, 1.0);
            format!(
                "SELECT {}, round(weight * {}) AS weight
                 FROM (SELECT {}, {} AS weight FROM {}{} OFFSET 0) AS row{which}",
                names("key").join(", "),
                1.0 / fraction,
                selected.join(", "),
                self.weight,
                plan.relation(&tablesample(fraction, seed)),
                sql::all_of(&plan.conditions),
            )
        };
        let least = LEAST_PAGES / self.heap_pages;
        let light = self.light.fraction(weight_a_shard).max(least);
        let sample = match self.heavy {
            None => stratum(light, LIGHT_SEED, ""),
            Some(heavy) => {
                let heavy = heavy.fraction(weight_a_shard).max(MOST_PAGES / self.heap_pages);
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
                         FROM (SELECT *, least(floor(total / {weight_a_shard}), {most}) AS shards
                               FROM (SELECT *, sum(weight) OVER () AS total,
                                            sum(weight) OVER (ORDER BY {order} ROWS UNBOUNDED PRECEDING) - weight AS before
                                     FROM ({sample}) AS sample) AS placed) AS counted) AS cut) AS compared
             WHERE shard IS DISTINCT FROM previous
             ORDER BY {order}",
            texts = texts.join(", "),
            most = target.most,
        );
        let query = sqlx::query(AssertSqlSafe(query)).persistent(false);
        let rows = query.fetch_all(&mut source.connection).await.map_err(failed)?;
        let (mut shards, mut total, mut bounds) = (0.0, 0.0, Vec::with_capacity(rows.len()));
        for row in rows {
            shards = row.try_get("shards").map_err(failed)?;
            total = row.try_get("total").map_err(failed)?;
            bounds.push(Bound {
                key: row.try_get("key").map_err(failed)?,
                before: row.try_get("before").map_err(failed)?,
            });
        }
        // The first row is where everything begins.
        if !bounds.is_empty() {
            bounds.remove(0);
        }
        Ok((shards, total, bounds))
    }
}
