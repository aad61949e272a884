//! Tests of sharding and of shared snapshots, against a real PostgreSQL: tables of every shape are divided into ranges
//! that contain every row once and in order, and that have the intended size.

use std::sync::atomic::{AtomicU32, Ordering};

use polyglot_core::compression::Compression;
use polyglot_core::relation::RelationName;
use polyglot_core::request::{ColumnMapping, ExportRequest, Layout};
use polyglot_core::selection::{Direction, Filter, FilterOp, OrderKey};
use polyglot_core::single_stream_reason::SingleStreamReason;
use polyglot_source::ConnectionLimit;
use polyglot_test_servers::needs_database;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::sync::mpsc;

use polyglot_formats::copy::FieldIndex;

use super::range::Range;
use super::read_plan::{Plan, read_plan};
use super::sample::fits_one_shard;
use super::shard_plan::{ShardPlan, shard_plan};
use super::shard_target::ShardTarget;
use crate::read::{Connected, ConnectionCache, FromSource, JoinError, Source};
use polyglot_formats::compress::Compressor;
use polyglot_formats::{ByteSink, Encode, EncodeBuffer, Stopped};

const MAX_ROW: u64 = 8 << 20;

/// Returns the size in MiB, rounded to a tenth.
#[expect(clippy::cast_precision_loss, reason = "a size to print")]
fn mib(bytes: usize) -> f64 {
    (bytes as f64 / f64::from(1 << 20) * 10.0).round() / 10.0
}

/// A schema for one test, in the tests' database server.
struct Database {
    url: String,
    connection: PgConnection,
    schema: String,
}

/// Connects without sharing a limit with other tests.
async fn connected(url: &str) -> Connected {
    let permit = ConnectionLimit::new(2, 1).acquire().await;
    Connected::to(permit, url, "polyglot shapes").await.unwrap()
}

impl Database {
    async fn new(url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let url = url.to_owned();
        let connection = PgConnection::connect(&url).await.unwrap();
        let schema = format!("shapes_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut database = Self { url, connection, schema };
        let schema = database.schema.clone();
        database.run(&format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}")).await;
        database.run(&format!("SET search_path TO {schema}")).await;
        database
    }

    async fn run(&mut self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await.unwrap();
    }

    async fn source(&self, request: &ExportRequest) -> Source {
        self.connected().await.begin(request).await.unwrap().0
    }

    async fn connected(&self) -> Connected {
        connected(&self.url).await
    }

    fn request(&self, format: &str, columns: &[&str]) -> ExportRequest {
        let relation = RelationName { schema: self.schema.clone(), name: "t".to_owned() };
        let columns =
            columns.iter().map(|name| ColumnMapping { source: (*name).into(), target: (*name).into() }).collect();
        ExportRequest::new("t", relation, format, columns)
    }

    /// Returns the shard plan, and checks that planning again gives the same one.
    async fn shard_plan(&self, request: &ExportRequest, size_step: u8) -> ShardPlan {
        let mut source = self.source(request).await;
        let plan = read_plan(&mut source, request, MAX_ROW).await.unwrap();
        let shards = shard_plan(&mut source, &plan, request, size_step).await.unwrap();
        assert_eq!(shard_plan(&mut source, &plan, request, size_step).await.unwrap(), shards);
        shards
    }

    /// Returns the sizes of the shards in MiB, and checks that together they equal one stream.
    async fn shards(&self, name: &str, request: &ExportRequest) -> Vec<f64> {
        let started = tokio::time::Instant::now();
        let mut source = self.source(request).await;
        let plan = read_plan(&mut source, request, MAX_ROW).await.unwrap();
        let shards = shard_plan(&mut source, &plan, request, 0).await.unwrap();
        let took = started.elapsed();
        let ShardPlan::Sharded(ranges) = shards else { panic!("{name}: {shards:?}") };
        let whole = read(&mut source, &plan, request, &Range::default()).await;
        let mut sum = Read::default();
        let mut sizes = Vec::new();
        for range in &ranges {
            let stored = serde_json::to_string(range).unwrap();
            let range: Range = serde_json::from_str(&stored).unwrap();
            let shard = read(&mut source, &plan, request, &range).await;
            sum.rows += shard.rows;
            sum.crc.combine(&shard.crc);
            sizes.push(mib(shard.bytes));
        }
        println!(
            "{name}, {:?} {:?}: {} rows, {} MiB, planned in {} ms as {sizes:?}",
            request.format,
            request.compression,
            whole.rows,
            mib(whole.bytes),
            took.as_millis()
        );
        assert_eq!((sum.rows, sum.crc.finalize()), (whole.rows, whole.crc.finalize()), "{name}");
        assert_eq!(shard_plan(&mut source, &plan, request, 0).await.unwrap(), ShardPlan::Sharded(ranges), "{name}");
        source.commit().await.unwrap();
        sizes
    }

    /// Plans the shards and checks that each fits the object store and a worker.
    async fn fits(&self, name: &str, request: &ExportRequest) {
        let sizes = self.shards(name, request).await;
        assert!(sizes.len() > 1 && sizes.iter().all(|size| (6.0..=40.0).contains(size)), "{name}: {sizes:?}");
    }

    async fn remove(mut self) {
        let schema = self.schema.clone();
        self.run(&format!("DROP SCHEMA {schema} CASCADE")).await;
    }
}

/// The encoded rows of a range.
#[derive(Default)]
struct Read {
    rows: usize,
    /// Checksum of the rows as they arrived.
    crc: crc32fast::Hasher,
    /// Size of the file in bytes.
    bytes: usize,
}

struct Count {
    compressor: Option<Compressor>,
    compressed: Vec<u8>,
    bytes: usize,
}

impl ByteSink for Count {
    fn write(&mut self, bytes: &[u8]) -> Result<(), Stopped> {
        match &mut self.compressor {
            Some(compressor) => compressor.write(bytes, &mut self.compressed).unwrap(),
            None => self.compressed.extend_from_slice(bytes),
        }
        self.bytes += self.compressed.len();
        self.compressed.clear();
        Ok(())
    }
}

async fn read(source: &mut Source, plan: &Plan, request: &ExportRequest, range: &Range) -> Read {
    let (to, mut from) = mpsc::channel(2);
    let mut encoder = plan.format.encoder(&request.options, &plan.columns, 1);
    let mut compressed = Vec::new();
    let compressor = request.compression.map(|compression| Compressor::start(compression, &mut compressed).unwrap());
    let mut count = Count { compressor, compressed, bytes: 0 };
    let fields = plan.fields();
    let encoding = tokio::task::spawn_blocking(move || {
        let (mut read, mut scratch, mut index) = (Read::default(), Vec::new(), FieldIndex::default());
        let finish = |encoder: &mut dyn Encode, scratch: &mut Vec<u8>, count: &mut Count| {
            count.write(scratch).unwrap();
            scratch.clear();
            while let Some(piece) = encoder.finished() {
                count.write(&piece).unwrap();
            }
        };
        loop {
            let batch = match from.blocking_recv().expect("the range ends with End") {
                FromSource::Batch(batch) => batch,
                FromSource::End => break,
            };
            read.rows += batch.rows;
            read.crc.update(&batch.bytes);
            let mut rest = &batch.bytes[..];
            for _ in 0..batch.rows {
                let (row, length) = index.read(rest, fields).unwrap();
                rest = &rest[length..];
                encoder.row(row, &mut EncodeBuffer::new(&mut scratch, &mut count)).unwrap();
            }
            finish(&mut *encoder, &mut scratch, &mut count);
        }
        encoder.end(&mut EncodeBuffer::new(&mut scratch, &mut count)).unwrap();
        finish(&mut *encoder, &mut scratch, &mut count);
        if let Some(compressor) = count.compressor.take() {
            compressor.finish(&mut count.compressed).unwrap();
        }
        read.bytes = count.bytes + count.compressed.len();
        read
    });
    source.read(&plan.copy_statement(range), "the export", &|_| None, 10_000, to).await.unwrap();
    encoding.await.unwrap()
}

fn by(column: &str, direction: Direction) -> OrderKey {
    OrderKey { column: column.to_owned(), direction }
}

/// A table: its name, the columns of its key, their values for a number `n`, and the order. Each row has some 200 bytes
/// besides the key.
type Key = (&'static str, &'static str, &'static str, &'static [(&'static str, Direction)]);
const KEYS: [Key; 15] = [
    (
        "numbers with gaps, half of them far away",
        "id bigint PRIMARY KEY",
        "CASE WHEN n <= 100000 THEN n * 3 ELSE n * 1000003::bigint END",
        &[],
    ),
    (
        "dense, then a million times sparser",
        "id numeric PRIMARY KEY",
        "CASE WHEN n < 150000 THEN n ELSE 150000 + (n - 150000)::numeric * 1000000 END",
        &[],
    ),
    (
        "two columns, the first with few values",
        "a integer, b text COLLATE \"C\", PRIMARY KEY (a, b)",
        "n / 90000, lpad(n::text, 9, '0')",
        &[],
    ),
    ("texts with quotes", "id text COLLATE \"C\" PRIMARY KEY", "'it''s \\ ' || lpad(n::text, 9, '0')", &[]),
    ("texts as people sort them", "id text PRIMARY KEY", "lpad(n::text, 9, '0') || chr(228)", &[]),
    ("descending", "id bigint PRIMARY KEY", "n", &[("id", Direction::Desc)]),
    (
        "two columns descending",
        "a integer, b integer, PRIMARY KEY (a, b)",
        "n / 1000, n % 1000",
        &[("a", Direction::Desc), ("b", Direction::Desc)],
    ),
    ("a name that needs care", "\"number DESC, x\" bigint PRIMARY KEY", "n", &[]),
    ("moments", "id timestamptz PRIMARY KEY", "'2026-01-01'::timestamptz + n * interval '1.5 s'", &[]),
    ("uuids in order", "id uuid PRIMARY KEY", "lpad(to_hex(n), 32, '0')::uuid", &[]),
    ("uuids by chance", "id uuid PRIMARY KEY", "md5(n::text)::uuid", &[]),
    (
        "a unique index of another column",
        "other integer NOT NULL UNIQUE, id bigint PRIMARY KEY",
        "n * 7, -n",
        &[("other", Direction::Asc)],
    ),
    ("a unique index without a primary key", "other integer NOT NULL UNIQUE", "n * 7", &[("other", Direction::Asc)]),
    ("by the hash of the key", "id bigint PRIMARY KEY", "n", &[]),
    ("by ranges of the key, one of them empty", "id bigint PRIMARY KEY", "n", &[]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_shape_are_sharded() {
    let mut database = Database::new(&needs_database!()).await;
    for (name, columns, values, order) in KEYS {
        let (partitioned, partitions) = match name {
            "by the hash of the key" => (
                " PARTITION BY HASH (id)",
                "CREATE TABLE p0 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 0);
                 CREATE TABLE p1 PARTITION OF t FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
            ),
            "by ranges of the key, one of them empty" => (
                " PARTITION BY RANGE (id)",
                "CREATE TABLE p0 PARTITION OF t FOR VALUES FROM (0) TO (50000);
                 CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (50000) TO (1000000);
                 CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (1000000) TO (2000000);",
            ),
            _ => ("", ""),
        };
        database
            .run(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t ({columns}, payload text, number integer){partitioned}; {partitions}
                 INSERT INTO t SELECT {values}, repeat(md5(n::text), 6), n FROM generate_series(1, 200000) n; ANALYZE t"
            ))
            .await;
        let mut request = database.request("csv", &["number", "payload"]);
        request.order_by = order.iter().map(|(column, direction)| by(column, *direction)).collect();
        database.fits(name, &request).await;
    }
    database.remove().await;
}

#[tokio::test]
async fn every_reason_for_a_single_stream_is_returned() {
    let mut database = Database::new(&needs_database!()).await;
    let rows = "SELECT n, '10.0.0.0'::inet + n, n, n, n, repeat(md5(n::text), 6) FROM generate_series(1, 200000) n";
    database
        .run(&format!(
            "CREATE TABLE empty (id bigint PRIMARY KEY);
             CREATE TABLE t (id bigint PRIMARY KEY, address inet NOT NULL UNIQUE, a integer NOT NULL, b integer NOT NULL,
                             maybe integer UNIQUE, payload text, UNIQUE (a, b));
             INSERT INTO t {rows};
             CREATE UNIQUE INDEX ON t (b) WHERE b > 0;
             CREATE TABLE late (id bigint PRIMARY KEY DEFERRABLE, payload text);
             INSERT INTO late SELECT id, payload FROM t;
             CREATE TABLE parent (id bigint PRIMARY KEY, payload text);
             CREATE TABLE child () INHERITS (parent);
             INSERT INTO parent SELECT id, payload FROM t;
             INSERT INTO child SELECT id, payload FROM t;
             CREATE VIEW seen AS SELECT id, payload FROM t; CREATE MATERIALIZED VIEW kept AS SELECT id, payload FROM t;
             CREATE UNIQUE INDEX ON kept (id);
             ANALYZE t, late, parent"
        ))
        .await;
    let plain = database.request("csv", &["id", "payload"]);
    let with = |change: &dyn Fn(&mut ExportRequest)| {
        let mut request = plain.clone();
        change(&mut request);
        request
    };
    let of = |name: &'static str| with(&move |request| request.relation.name = name.to_owned());
    let ordered = |keys: &[OrderKey]| with(&|request| request.order_by = keys.to_vec());
    let nothing = with(&|request| {
        request.filters =
            vec![Filter { column: "a".into(), path: Vec::new(), op: FilterOp::Less, values: vec!["0".into()] }];
    });
    let few = with(&|request| {
        request.filters =
            vec![Filter { column: "id".into(), path: Vec::new(), op: FilterOp::Less, values: vec!["1000".into()] }];
    });
    let empty = with(&|request| {
        request.relation.name = "empty".to_owned();
        request.columns.truncate(1);
    });
    for (request, size_step, reason) in [
        (with(&|request| request.row_limit = Some(10)), 0, SingleStreamReason::RowLimit),
        (with(&|request| request.compression = Some(Compression::Zstd)), 0, SingleStreamReason::Zstd),
        (plain.clone(), 1, SingleStreamReason::Uneven),
        (plain.clone(), 2, SingleStreamReason::Uneven),
        (empty, 0, SingleStreamReason::Small),
        (nothing, 0, SingleStreamReason::Small),
        (few, 0, SingleStreamReason::Small),
        (with(&|request| request.columns.truncate(1)), 0, SingleStreamReason::Small),
        (with(&|request| request.layout = Layout::Files), 0, SingleStreamReason::Small),
        (of("late"), 0, SingleStreamReason::NoKey),
        (of("parent"), 0, SingleStreamReason::NoKey),
        (of("seen"), 0, SingleStreamReason::NoKey),
        (of("kept"), 0, SingleStreamReason::NoKey),
        (ordered(&[by("b", Direction::Asc)]), 0, SingleStreamReason::NoKey),
        (ordered(&[by("maybe", Direction::Asc)]), 0, SingleStreamReason::NoKey),
        (ordered(&[by("address", Direction::Asc)]), 0, SingleStreamReason::KeyType),
        (ordered(&[by("a", Direction::Asc), by("b", Direction::Desc)]), 0, SingleStreamReason::MixedDirections),
    ] {
        assert_eq!(database.shard_plan(&request, size_step).await, ShardPlan::SingleStream(reason), "{request:?}");
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn narrow_and_wide_rows_fill_shards_equally() {
    let mut database = Database::new(&needs_database!()).await;
    // 200 kB of text that compresses to half, made once and rotated for each row.
    let wide = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 6250) i)";
    for (name, is_wide) in
        [("narrow, then wide", "n > 1500000"), ("wide, then narrow", "n <= 300"), ("mixed", "n % 5000 = 0")]
    {
        database
            .run(&format!(
                "DROP TABLE IF EXISTS t; CREATE TABLE t (id bigint PRIMARY KEY, payload text);
                 INSERT INTO t SELECT n, CASE WHEN {is_wide} THEN n || text ELSE left(md5(n::text), 12) END
                 FROM generate_series(1, 1500300) n, (SELECT {wide} AS text) AS wide; ANALYZE t"
            ))
            .await;
        for compression in [None, Some(Compression::Gzip)] {
            let mut request = database.request("csv", &["id", "payload"]);
            request.compression = compression;
            database.fits(name, &request).await;
        }
    }
    database.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn filters_are_a_part_of_the_sizes() {
    let mut database = Database::new(&needs_database!()).await;
    database
        .run(
            "CREATE TABLE t (id bigint PRIMARY KEY, payload text, number integer);
             INSERT INTO t SELECT n, CASE WHEN n % 1000 = 0 THEN (SELECT repeat(md5(n::text), 4000)) ELSE repeat('x', 100) END, n % 1000
             FROM generate_series(1, 600000) n; ANALYZE t",
        )
        .await;
    // One row in a thousand has 128 kB: reading these again for each range costs little compared with fetching their
    // values.
    let mut request = database.request("csv", &["id", "payload"]);
    request.filters =
        vec![Filter { column: "number".into(), path: Vec::new(), op: FilterOp::Equal, values: vec!["0".into()] }];
    database.fits("one row in a thousand", &request).await;
    database.run("CREATE INDEX ON t (number)").await;
    database.fits("one row in a thousand, by an index", &request).await;
    request.filters =
        vec![Filter { column: "number".into(), path: Vec::new(), op: FilterOp::NotEqual, values: vec!["0".into()] }];
    database.fits("all but one row in a thousand", &request).await;
    database.remove().await;
}

#[tokio::test]
async fn ranges_that_cost_much_more_than_a_scan_are_not_used() {
    let mut database = Database::new(&needs_database!()).await;
    database
        .run(
            "CREATE TABLE t (id uuid PRIMARY KEY, chosen integer NOT NULL, flag boolean NOT NULL);
             INSERT INTO t SELECT md5(n::text)::uuid, n % 60, true FROM generate_series(1, 500000) n; ANALYZE t",
        )
        .await;
    // The rows of any range of such a key are all over the table, and 8,000 rows of 130 kB in the file make many
    // ranges.
    let mut request = database.request("xml", &[]);
    request.columns = (0..1000)
        .map(|n| ColumnMapping {
            source: "flag".to_owned(),
            target: format!("a_column_with_the_longest_name_that_there_may_be_{n:010}"),
        })
        .collect();
    request.filters =
        vec![Filter { column: "chosen".into(), path: Vec::new(), op: FilterOp::Equal, values: vec!["7".into()] }];
    assert_eq!(database.shard_plan(&request, 0).await, ShardPlan::SingleStream(SingleStreamReason::Costly));
    database.remove().await;
}

/// The columns and values of the sample table, as far as sizes matter.
const RECORDS: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, created_at timestamptz NOT NULL, name varchar(255) NOT NULL,
                    value decimal(18,4) NOT NULL, metadata jsonb NOT NULL);
    INSERT INTO t SELECT n, '2023-01-01'::timestamptz + (hashint8extended(n, 1) % 94608000) * interval '1 s',
        'Ada ' || md5(n::text), (hashint8extended(n, 2) % 100000000000) * 0.0001,
        jsonb_build_object('category', (ARRAY['books','garden','music','tools'])[1 + n % 4], 'tags', ARRAY['new', 'vip'],
            'amount', hashint8extended(n, 3) % 100000, 'address', jsonb_build_object('street', n % 977 || ' Oak St',
            'city', 'Berlin', 'zip', hashint8extended(n, 4) % 65536, 'geo', jsonb_build_array(n % 4096, n % 3571)))
    FROM generate_series(1, 900000) n; ANALYZE t";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_format_has_shards_of_its_own_size() {
    let mut database = Database::new(&needs_database!()).await;
    database.run(RECORDS).await;
    for (format, compression) in [
        ("csv", None),
        ("json", None),
        ("jsonl", Some(Compression::Gzip)),
        ("csv", Some(Compression::Gzip)),
        ("xml", None),
        ("parquet", None),
    ] {
        let mut request = database.request(format, &["id", "created_at", "name", "value", "metadata"]);
        request.compression = compression;
        database.fits("records", &request).await;
    }
    database.remove().await;
}

#[tokio::test]
async fn an_export_that_is_quick_to_read_is_measured() {
    let mut database = Database::new(&needs_database!()).await;
    database
        .run(
            "CREATE TABLE t (id integer PRIMARY KEY, payload text);
             INSERT INTO t SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, 100000) n;
             CREATE TABLE long (id integer PRIMARY KEY, place integer, payload jsonb);
             -- Of 200 KB each, which take less than 4 in the table.
             INSERT INTO long SELECT n, n % 100, json_build_object('a', repeat('a', 200000)) FROM generate_series(1, 1000) n;
             CREATE INDEX ON long (place); ANALYZE t, long",
        )
        .await;
    let request = database.request("csv", &["id", "payload"]);
    let mut source = database.source(&request).await;
    let plan = read_plan(&mut source, &request, MAX_ROW).await.unwrap();
    // 32 MB in all, of which a format may make three times as much.
    for (bytes, most, few) in [(60 << 20, 200_000.0, true), (60 << 20, 100_000.0, false), (40 << 20, 200_000.0, false)]
    {
        let target = ShardTarget { bytes, max_shards: 10 };
        assert_eq!(fits_one_shard(&mut source, &plan, &request, target, most).await.unwrap(), few, "{bytes} {most}");
    }
    source.commit().await.unwrap();
    // A few rows that an index finds, and whose size is unknown before they are read.
    let mut long = database.request("csv", &["id", "payload"]);
    long.relation.name = "long".to_owned();
    long.filters =
        vec![Filter { column: "place".into(), path: Vec::new(), op: FilterOp::Less, values: vec!["50".into()] }];
    database.fits("compressed documents by an index", &long).await;
    database.remove().await;
}

#[tokio::test]
async fn a_snapshot_outlives_its_first_holder() {
    let mut database = Database::new(&needs_database!()).await;
    database.run("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)").await;
    let request = database.request("csv", &["id"]);
    let mut first = database.source(&request).await;
    let snapshot = first.export_snapshot().await.unwrap();
    let mut second = database.connected().await.join(&request, &snapshot).await.unwrap();
    let plan = read_plan(&mut first, &request, MAX_ROW).await.unwrap();
    let again = second.export_snapshot().await.unwrap();
    first.commit().await.unwrap();
    database.run("UPDATE t SET id = id + 1000 WHERE id > 50; DELETE FROM t WHERE id <= 50").await;
    database.run("VACUUM t").await;
    let mut third = database.connected().await.join(&request, &again).await.unwrap();
    third.ping().await.unwrap();
    let same = read_plan(&mut third, &request, MAX_ROW).await.unwrap();
    assert_eq!(same.copy_statement(&Range::default()), plan.copy_statement(&Range::default()));
    let seen = read(&mut third, &same, &request, &Range::default()).await;
    // The numbers 1 to 100, one on each line.
    assert_eq!((seen.rows, seen.bytes), (100, 9 * 2 + 90 * 3 + 4));
    third.commit().await.unwrap();
    // The name whose first holder has ended, a name that never existed, and the name of the holder that ended last.
    second.commit().await.unwrap();
    for name in [snapshot.as_str(), "no'snapshot", again.as_str()] {
        let joined = database.connected().await.join(&request, name).await;
        assert!(matches!(joined, Err(JoinError::SnapshotGone)), "{name}");
    }
    database.remove().await;
}

#[tokio::test]
async fn a_connection_is_reused_by_the_next_export_while_it_lives() {
    let mut database = Database::new(&needs_database!()).await;
    database
        .run(
            "CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 100) n;
             CREATE VIEW v AS SELECT id, set_config('TimeZone', 'Asia/Tokyo', false) AS zone FROM t",
        )
        .await;
    let request = database.request("csv", &["id"]);
    let cache = ConnectionCache::new(ConnectionLimit::new(3, 1), 1);
    let export = async |request: &ExportRequest| {
        let connected = cache.connect(&database.url, "polyglot shapes").await.unwrap();
        let mut source = connected.begin(request).await.unwrap().0;
        let zone = sqlx::query_scalar::<_, String>("SHOW TimeZone").fetch_one(&mut *source.connection).await.unwrap();
        assert_eq!(zone, "UTC");
        let plan = read_plan(&mut source, request, MAX_ROW).await.unwrap();
        assert_eq!(read(&mut source, &plan, request, &Range::default()).await.rows, 100);
        let pid = source.backend.pid;
        cache.keep(source.commit().await.unwrap());
        pid
    };
    let first = export(&request).await;
    assert_eq!(export(&request).await, first);
    let mut observer = PgConnection::connect(&database.url).await.unwrap();
    let name =
        sqlx::query_scalar::<_, String>("SELECT application_name FROM pg_stat_activity WHERE pid = $1").bind(first);
    assert_eq!(name.fetch_one(&mut observer).await.unwrap(), "polyglot idle");
    sqlx::query("SELECT pg_terminate_backend($1, 5000)").bind(first).execute(&mut observer).await.unwrap();
    let second = export(&request).await;
    assert_ne!(second, first);
    // A view may change the session that reads it, so the session is closed.
    let mut view = database.request("csv", &["id", "zone"]);
    view.relation.name = "v".to_owned();
    assert_eq!(export(&view).await, second);
    assert_eq!(cache.idle(), 0);
    let third = export(&request).await;
    assert_ne!(third, second);
    // An idle worker soon holds no connection.
    let started = tokio::time::Instant::now();
    let lives = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)";
    while sqlx::query_scalar::<_, bool>(lives).bind(third).fetch_one(&mut observer).await.unwrap() {
        assert!(started.elapsed() < std::time::Duration::from_secs(20));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    database.remove().await;
}

#[tokio::test]
async fn a_change_that_waits_for_the_snapshot_is_not_waited_for() {
    let mut database = Database::new(&needs_database!()).await;
    database.run("CREATE TABLE t (id integer PRIMARY KEY)").await;
    let request = database.request("csv", &["id"]);
    let mut keeper = database.source(&request).await;
    let snapshot = keeper.export_snapshot().await.unwrap();
    let schema = database.schema.clone();
    let altering = tokio::spawn(async move {
        database.run(&format!("ALTER TABLE {schema}.t ADD COLUMN more integer")).await;
        database
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let url = needs_database!();
    let joined = connected(&url).await.join(&request, &snapshot).await;
    let Err(JoinError::Locked(failure)) = joined else { panic!("joined behind a change of the table") };
    assert_eq!(failure.kind, polyglot_core::failure::FailureKind::SourceUnavailable);
    keeper.commit().await.unwrap();
    altering.await.unwrap().remove().await;
}
