//! Tables at the limits of a worker with 256 MB: very wide rows, very large cells. Each is exported, or refused with the
//! limit named. The kernel enforces the memory limit, swap included.

use polyglot_devstack::memory_limit::{MemoryLimit, PeakMemory};
use polyglot_test_kit::{Setup, System, binary, export_request, sample_request};
use polyglot_test_servers::needs_servers;
use serde_json::json;
use sqlx::AssertSqlSafe;

const LIMIT: u64 = 256 << 20;

const FORMATS: [&str; 5] = ["csv", "json", "jsonl", "xml", "parquet"];

/// A system whose worker runs under the limit, over a table of the test.
struct Limited {
    system: System,
    limit: MemoryLimit,
    peak: PeakMemory,
}

impl Limited {
    async fn start(statements: &[String]) -> Self {
        let limit =
            MemoryLimit::new(LIMIT).unwrap_or_else(|error| panic!("this test needs root and a cgroup: {error}"));
        let mut system = System::without_worker(Setup::default()).await;
        for statement in ["DROP TABLE public.records"].into_iter().chain(statements.iter().map(String::as_str)) {
            sqlx::query(AssertSqlSafe(statement.to_owned())).execute(&system.pool).await.unwrap();
        }
        system.wait_until_ready().await;
        let pid = system.add_worker_as(limit.command(binary("polyglot-worker"))).child.id();
        Self { system, limit, peak: PeakMemory::watch(pid) }
    }

    async fn submit(&self, format: &str, columns: &[String], compression: Option<&str>) -> String {
        self.system.submit_request(&export_request(format, compression, columns)).await
    }

    /// Asserts that the worker ends with success on SIGTERM, and that the kernel has killed none.
    async fn assert_never_killed(mut self, what: &str) {
        self.system.workers[0].signal(rustix::process::Signal::TERM);
        let status = self.system.workers[0].wait_for_exit().await;
        assert!(status.success(), "{status}");
        assert_eq!(self.limit.oom_kills().unwrap(), 0);
        println!("{what}: peak {} MiB", self.peak.bytes() >> 20);
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn a_cell_of_200_mb_is_refused_with_row_and_limit_named() {
    needs_servers!();
    // Compressed to a hundredth, and not compressed at all; in text, in JSON, in an array.
    let limited = Limited::start(&[
        "CREATE TABLE public.records (id bigint PRIMARY KEY, t text, raw text, b bytea, j jsonb, a text[])".to_owned(),
        "ALTER TABLE public.records ALTER COLUMN raw SET STORAGE EXTERNAL".to_owned(),
        "INSERT INTO public.records (id, t) SELECT n, 'small' FROM generate_series(1, 100) n".to_owned(),
        "UPDATE public.records SET t = repeat('x', 200 << 20) WHERE id = 51".to_owned(),
        "UPDATE public.records SET raw = repeat('y', 200 << 20) WHERE id = 52".to_owned(),
        "UPDATE public.records SET b = convert_to(repeat('z', 200 << 20), 'UTF8') WHERE id = 53".to_owned(),
        "UPDATE public.records SET j = to_jsonb(repeat('j', 200 << 20)) WHERE id = 54".to_owned(),
        "UPDATE public.records SET a = ARRAY[repeat('a', 100 << 20), repeat('b', 100 << 20)] WHERE id = 55".to_owned(),
    ])
    .await;
    for (column, key) in [("t", 51), ("raw", 52), ("b", 53), ("j", 54), ("a", 55)] {
        for format in FORMATS {
            let id = limited.submit(format, &names(&["id", column]), None).await;
            let state = limited.system.wait_until_ended(&id).await;
            assert_eq!(
                (&state["status"], &state["errorCode"]),
                (&"failed".into(), &"row_too_large".into()),
                "{state:#}"
            );
            let error = state["error"].as_str().unwrap();
            let words = [format!("Row {key} of the export (id {key})"), "8 MiB (MAX_ROW_MB)".to_owned()];
            assert!(words.iter().all(|words| error.contains(words)), "{column} in {format}: {error}");
            assert!(error.contains("about 200 MiB"), "{column} in {format}: {error}");
        }
    }
    // Without the large columns, the rows are no trouble.
    let id = limited.submit("csv", &names(&["id"]), None).await;
    assert_eq!(limited.system.wait_until_completed(&id).await["progress"]["rows"], 100);
    limited.assert_never_killed("cells of 200 MB").await;
}

#[tokio::test]
async fn many_cells_that_are_small_when_compressed_are_measured_together() {
    needs_servers!();
    let columns: Vec<String> = (0..300).map(|n| format!("j{n}")).collect();
    let limited = Limited::start(&[
        format!("CREATE TABLE public.records (id text PRIMARY KEY, {} jsonb)", columns.join(" jsonb, ")),
        format!(
            "INSERT INTO public.records SELECT 'key ' || n, {} FROM generate_series(1, 3) n",
            vec!["to_jsonb(repeat('a', 300000))"; columns.len()].join(", ")
        ),
    ])
    .await;
    let id = limited.submit("parquet", &[&["id".to_owned()], &columns[..]].concat(), None).await;
    let state = limited.system.wait_until_ended(&id).await;
    let error = state["error"].as_str().unwrap_or_else(|| panic!("{state:#}"));
    assert!(error.starts_with("Row 1 of the export (id key 1): its values take about 85.8 MiB"), "{error}");
    // One of them alone is no trouble.
    let id = limited.submit("json", &columns[..1], None).await;
    limited.system.wait_until_completed(&id).await;
    limited.assert_never_killed("300 cells of 300 kB").await;
}

#[tokio::test]
async fn cells_just_below_the_limit_fit_whatever_they_become() {
    needs_servers!();
    // What grows most: control characters in JSON, quotes in CSV, ampersands in XML.
    let size = (7 << 20) / 3;
    let limited = Limited::start(&[
        "CREATE TABLE public.records (id bigint PRIMARY KEY, control text, t text, b bytea, r text, j json, n integer[])"
            .to_owned(),
        format!(
            "INSERT INTO public.records
             SELECT n, repeat(E'\\x01', {size} * 3), repeat('\"&e', {size}), decode(repeat('00ff41', {size}), 'hex'),
                    -- What no compression makes smaller.
                    (SELECT string_agg(md5((n * 1000000 + i)::text), '') FROM generate_series(1, {size} * 3 / 32) i),
                    -- One key, every character of which is escaped in an element's name.
                    json_build_object(repeat(' ', {size} * 3), n),
                    (SELECT array_agg(i) FROM generate_series(1, 250000) i)
             FROM generate_series(1, 3) n"
        ),
    ])
    .await;
    for (column, formats) in [
        ("control", &["csv", "json", "parquet"][..]),
        ("t", &FORMATS[..]),
        ("b", &FORMATS[..]),
        ("r", &FORMATS[..]),
        ("j", &FORMATS[..]),
        ("n", &FORMATS[..]),
    ] {
        for format in formats {
            let compression = (*format != "parquet").then_some("gzip");
            let columns = names(&["id", column]);
            // Two at a time, which is what the worker's slots allow.
            let first = limited.submit(format, &columns, compression).await;
            let second = limited.submit(format, &columns, None).await;
            for id in [first, second] {
                let state = limited.system.wait_until_completed(&id).await;
                assert_eq!((&state["progress"]["rows"], &state["attempt"]), (&3.into(), &1.into()), "{state:#}");
            }
            println!("{column} in {format}: peak so far {} MiB", limited.peak.bytes() >> 20);
        }
    }
    limited.assert_never_killed("cells of 7 MiB").await;
}

#[tokio::test]
async fn a_table_of_1600_columns_fits() {
    needs_servers!();
    let types = ["integer", "smallint", "real", "boolean", "date"];
    let columns: Vec<String> = (1..1600).map(|n| format!("c{n}")).collect();
    let definitions: Vec<String> =
        columns.iter().enumerate().map(|(n, name)| format!("{name} {}", types[n % types.len()])).collect();
    let values: Vec<String> = (0..columns.len())
        .map(|n| match n % types.len() {
            0 => format!("n * {n}"),
            1 => format!("(n % {}) ", n + 1),
            2 => format!("n / {}.0", n + 1),
            3 => "n % 2 = 0".to_owned(),
            _ => format!("date '2000-01-01' + (n % {})::integer", n + 1),
        })
        .collect();
    let limited = Limited::start(&[
        format!("CREATE TABLE public.records (id integer PRIMARY KEY, {})", definitions.join(", ")),
        // Half of the rows are NULL throughout.
        format!("INSERT INTO public.records SELECT n, {} FROM generate_series(1, 10000) n", values.join(", ")),
        "INSERT INTO public.records (id) SELECT n FROM generate_series(10001, 20000) n".to_owned(),
    ])
    .await;
    let all: Vec<String> = ["id".to_owned()].into_iter().chain(columns).collect();
    for format in FORMATS {
        let first = limited.submit(format, &all, None).await;
        let second = limited.submit(format, &all, None).await;
        for id in [first, second] {
            let state = limited.system.wait_until_completed(&id).await;
            assert_eq!((&state["progress"]["rows"], &state["attempt"]), (&20_000.into(), &1.into()), "{state:#}");
        }
        println!("1,600 columns in {format}: peak so far {} MiB", limited.peak.bytes() >> 20);
    }
    limited.assert_never_killed("1,600 columns").await;
}

#[tokio::test]
async fn the_largest_row_groups_fit() {
    needs_servers!();
    let limit = MemoryLimit::new(LIMIT).unwrap_or_else(|error| panic!("this test needs root and a cgroup: {error}"));
    let mut system = System::without_worker(Setup { rows: 400_000, ..Setup::default() }).await;
    system.wait_until_ready().await;
    let pid = system.add_worker_as(limit.command(binary("polyglot-worker"))).child.id();
    let limited = Limited { system, limit, peak: PeakMemory::watch(pid) };
    let mut submitted = Vec::new();
    for codec in ["snappy", "zstd"] {
        let mut request = sample_request("parquet", None);
        request["options"] = json!({"rowGroupBytes": 32 << 20, "codec": codec});
        submitted.push(limited.system.submit_request(&request).await);
    }
    for id in submitted {
        assert_eq!(limited.system.wait_until_completed(&id).await["progress"]["rows"], 400_000);
    }
    limited.assert_never_killed("two with row groups of 32 MiB").await;
}
