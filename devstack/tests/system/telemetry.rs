//! Telemetry of the processes: metrics that Prometheus accepts, one trace from a request to its file, and log lines that
//! name their export.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use polyglot_core::status::Status;
use polyglot_devstack::free_port;
use polyglot_runtime::telemetry::METRIC_DEFINITIONS;
use polyglot_test_kit::{Setup, System, binary, export_request, first_rows, wait_until};
use polyglot_test_servers::needs_servers;
use prost::Message;
use reqwest::{Method, StatusCode};
use rustix::process::Signal;
use serde_json::Value;
use sqlx::AssertSqlSafe;

/// Rows of the table here: 64 MiB of CSV, four shards.
const ROWS: i64 = 200_000;

/// The api, over a table that is exported in shards.
async fn api(env: &[(&str, &str)]) -> System {
    let system = System::without_worker(Setup::new(10, env)).await;
    let sql = format!(
        "DROP TABLE public.records CASCADE;
         CREATE TABLE public.records (id bigint PRIMARY KEY, payload text);
         INSERT INTO public.records SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, {ROWS}) n;
         ANALYZE public.records"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&system.pool).await.unwrap();
    system.wait_until_ready().await;
    system
}

fn body(format: &str) -> Value {
    export_request(format, None, ["id", "payload"])
}

/// Submits with these headers, and returns the export's id.
async fn submit(system: &System, body: &Value, headers: &[(&str, &str)]) -> String {
    let mut request = system.request(Method::POST, "/exports").json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    answer.json::<Value>().await.unwrap()["exportId"].as_str().unwrap().to_owned()
}

/// A metric's name, some of its labels, and the sum of the samples that have them.
type Sample = (&'static str, &'static [(&'static str, &'static str)], f64);

/// The sum of a metric's samples that have these labels; `None` if there is none.
fn value(scrape: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let samples = scrape.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (found, of) = series.split_once('{').unwrap_or((series, ""));
        let fits = found == name && labels.iter().all(|(label, value)| of.contains(&format!("{label}=\"{value}\"")));
        fits.then(|| value.parse::<f64>().unwrap())
    });
    let samples: Vec<f64> = samples.collect();
    (!samples.is_empty()).then(|| samples.iter().sum())
}

fn promtool(scrape: &str) {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool is there (devstack/install --tests installs it)");
    child.stdin.take().unwrap().write_all(scrape.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && report.is_empty(), "{report}\n{scrape}");
}

async fn scraped(url: &str) -> String {
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    answer.text().await.unwrap()
}

#[tokio::test]
async fn metrics_count_what_happened_and_prometheus_accepts_them() {
    needs_servers!();
    let mut system = api(&[]).await;
    let port = free_port().unwrap().to_string();
    system.set("METRICS_PORT", &port);
    system.add_worker();
    let sharded = submit(&system, &body("csv"), &[]).await;
    let shards = system.wait_until_completed(&sharded).await["progress"]["shards"].as_f64().unwrap();
    assert!(shards > 1.0);
    let whole = submit(&system, &export_request("json", Some("zstd"), ["id", "payload"]), &[]).await;
    system.wait_until_completed(&whole).await;
    assert_eq!(system.get("/nowhere/at/all").await.status(), StatusCode::NOT_FOUND);
    assert_eq!(system.get(&format!("/exports/{sharded}")).await.status(), StatusCode::OK);

    // What the api reads from the ledger is up to five seconds old.
    let api = wait_until("both exports are counted", async || {
        let api = scraped(&system.url("/metrics")).await;
        if value(&api, "polyglot_exports", &[("state", "completed")]) == Some(2.0) { Ok(api) } else { Err(api) }
    })
    .await;
    let worker = scraped(&format!("http://127.0.0.1:{port}/metrics")).await;
    promtool(&api);
    promtool(&worker);

    // Nor is it older after a pause without scrapes.
    let deleted = system.request(Method::DELETE, &format!("/exports/{whole}")).send().await.unwrap();
    assert!(deleted.status().is_success(), "{deleted:?}");
    tokio::time::sleep(Duration::from_millis(5500)).await;
    let later = scraped(&system.url("/metrics")).await;
    assert_eq!(value(&later, "polyglot_exports", &[("state", "completed")]), Some(1.0), "{later}");

    // Both together have every metric that is described, and no other.
    let exposed = |text: &str| -> BTreeSet<String> {
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        types.map(str::to_owned).collect()
    };
    let described: BTreeSet<String> = METRIC_DEFINITIONS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(exposed(&api).union(&exposed(&worker)).cloned().collect::<BTreeSet<_>>(), described);

    for status in Status::ALL {
        let count = value(&api, "polyglot_exports", &[("state", status.name())]);
        assert_eq!(count, Some(if status == Status::Completed { 2.0 } else { 0.0 }), "{status}");
    }
    let expected_of_api: &[Sample] = &[
        ("polyglot_http_requests_total", &[("route", "/exports"), ("method", "POST"), ("status", "201")], 2.0),
        ("polyglot_http_requests_total", &[("route", "unmatched"), ("status", "404")], 1.0),
        ("polyglot_up", &[("dependency", "ledger")], 1.0),
        ("polyglot_up", &[("dependency", "broker")], 1.0),
        ("polyglot_up", &[("dependency", "bucket")], 1.0),
        ("polyglot_queue_messages", &[("queue", "tokens")], 0.0),
        ("polyglot_queue_messages", &[("queue", "dead")], 0.0),
        ("polyglot_outbox_messages", &[], 0.0),
        ("polyglot_tenant_exports", &[("tenant", "default"), ("state", "pending")], 0.0),
        ("polyglot_ready_exports", &[], 0.0),
        ("polyglot_ready_oldest_seconds", &[], 0.0),
    ];
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand rows")]
    let rows = ROWS as f64;
    let expected_of_worker: &[Sample] = &[
        ("polyglot_rows_total", &[("format", "csv")], rows),
        ("polyglot_rows_total", &[("format", "json")], rows),
        ("polyglot_tenant_rows_total", &[("tenant", "default")], 2.0 * rows),
        ("polyglot_work_total", &[("kind", "shard"), ("outcome", "done")], shards),
        ("polyglot_work_total", &[("kind", "start"), ("outcome", "done")], 2.0),
        ("polyglot_work_total", &[("kind", "finish"), ("outcome", "done")], 1.0),
        ("polyglot_work_total", &[("outcome", "failed")], 0.0),
        ("polyglot_work_seconds_count", &[("kind", "shard"), ("format", "csv")], shards),
        ("polyglot_part_retries_total", &[], 0.0),
        ("polyglot_lease_losses_total", &[], 0.0),
        ("polyglot_slots", &[], 2.0),
        ("polyglot_slots", &[("state", "used")], 0.0),
        ("polyglot_memory_budget_bytes", &[], f64::from(64 << 20)),
    ];
    for (scrape, expected) in [(&api, expected_of_api), (&worker, expected_of_worker)] {
        for (name, labels, wanted) in expected {
            assert_eq!(value(scrape, name, labels), Some(*wanted), "{name} {labels:?}\n{scrape}");
        }
    }
    let stored = value(&worker, "polyglot_stored_bytes_total", &[("format", "csv")]).unwrap();
    assert!(stored > rows * 320.0, "{stored}");
    assert!(value(&worker, "polyglot_parts_total", &[]).unwrap() >= shards);
    for stage in ["source", "encode", "upload"] {
        for format in ["csv", "json"] {
            let labels = [("stage", stage), ("format", format)];
            let seconds = value(&worker, "polyglot_stage_seconds_total", &labels).unwrap();
            assert!(seconds > 0.0 && seconds < 300.0, "{labels:?} {seconds}");
        }
    }
    for (scrape, least, most) in [(&api, 5e6, 256e6), (&worker, 10e6, 256e6)] {
        let resident = value(scrape, "process_resident_memory_bytes", &[]).unwrap();
        assert!(resident > least && resident < most, "{resident}");
    }

    // The worker's own health check.
    let mut command = Command::new(binary("polyglot-worker"));
    let health = system.environment(&mut command).arg("health").output().unwrap();
    assert!(health.status.success(), "{health:?}");
    system.workers[0].signal(Signal::TERM);
    assert!(system.workers[0].wait_for_exit().await.success());
    let health = system.environment(&mut command).output().unwrap();
    assert_eq!(health.status.code(), Some(1), "{health:?}");
}

/// Time between two batches of spans that a process sends.
const BATCH_DELAY: Duration = Duration::from_millis(200);

/// A collector of traces.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone)]
struct Seen {
    service: String,
    span: Span,
}

impl Collector {
    /// Listens, and returns its address.
    async fn listen(&self) -> String {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/traces", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    fn spans(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    /// The spans of the trace that has a span of this name, once every span in it has its parent: `among` says whether a
    /// trace counts, and `parent` is the span of the client, which is not sent to this collector.
    async fn complete_trace_with(&self, name: &str, parent: &str, among: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let trace = wait_until(&format!("the trace with {name} is complete"), async || {
            let spans = self.spans();
            let Some(found) = spans.iter().find(|seen| seen.span.name == name && among(seen)) else {
                return Err(format!("{:?}", counted(&spans)));
            };
            let trace = &found.span.trace_id;
            let spans: Vec<&Seen> = spans.iter().filter(|seen| seen.span.trace_id == *trace).collect();
            let ids: BTreeSet<String> = spans.iter().map(|seen| hex(&seen.span.span_id)).collect();
            let has_parent = |seen: &&&Seen| {
                let wanted = hex(&seen.span.parent_span_id);
                wanted.is_empty() || wanted == parent || ids.contains(&wanted)
            };
            let orphans: Vec<&str> =
                spans.iter().filter(|seen| !has_parent(seen)).map(|seen| seen.span.name.as_str()).collect();
            if orphans.is_empty() { Ok(trace.clone()) } else { Err(format!("{orphans:?} have no parent yet.")) }
        })
        .await;
        // Spans that should not be there, or that have no children, would come within the next batches.
        tokio::time::sleep(4 * BATCH_DELAY).await;
        self.spans().into_iter().filter(|seen| seen.span.trace_id == trace).collect()
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) -> ([(header::HeaderName, &'static str); 1], Vec<u8>) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap_or_default().attributes;
        let service = attributes.into_iter().find(|pair| pair.key == "service.name");
        let service = format!("{:?}", service.and_then(|pair| pair.value));
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        collector.0.lock().unwrap().extend(spans.map(|span| Seen { service: service.clone(), span }));
    }
    ([(header::CONTENT_TYPE, "application/x-protobuf")], Vec::new())
}

fn counted(spans: &[Seen]) -> BTreeMap<&str, usize> {
    let mut counted = BTreeMap::new();
    for seen in spans {
        *counted.entry(seen.span.name.as_str()).or_default() += 1;
    }
    counted
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[tokio::test]
async fn one_trace_leads_from_the_request_to_its_file() {
    needs_servers!();
    let collector = Collector::default();
    let endpoint = collector.listen().await;
    let mut system = api(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", &BATCH_DELAY.as_millis().to_string()),
    ])
    .await;
    system.add_worker();
    system.add_worker();
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let place = format!("00-{trace}-{parent}-01");
    let id = submit(&system, &body("csv"), &[("traceparent", &place), ("tracestate", "vendor=1")]).await;
    let state = system.wait_until_completed(&id).await;
    let shards = usize::try_from(state["progress"]["shards"].as_u64().unwrap()).unwrap();
    assert!(shards > 1, "{state:#}");

    let spans = collector.complete_trace_with("complete", parent, |_| true).await;
    let names = counted(&spans);
    assert!(spans.iter().all(|seen| hex(&seen.span.trace_id) == trace && seen.span.trace_state == "vendor=1"));
    for (name, wanted) in
        [("POST /exports", 1), ("start", 1), ("plan", 1), ("shard", shards), ("finish", 1), ("complete", 1)]
    {
        assert_eq!(names.get(name), Some(&wanted), "{name} of {names:?}");
    }
    // Each piece of work was claimed. Each was announced, except those that a worker found in the ledger.
    assert_eq!(names.get("claim"), Some(&(shards + 2)), "{names:?}");
    assert!(names.get("publish").is_some_and(|publish| *publish >= 1), "{names:?}");
    // The parents of every span lead to the span of the client.
    let parents: BTreeMap<String, String> =
        spans.iter().map(|seen| (hex(&seen.span.span_id), hex(&seen.span.parent_span_id))).collect();
    for seen in &spans {
        let mut at = hex(&seen.span.span_id);
        for _ in 0..5 {
            if at != parent {
                at = parents
                    .get(&at)
                    .unwrap_or_else(|| panic!("{} has no known parent: {names:?}", seen.span.name))
                    .clone();
            }
        }
        assert_eq!(at, parent, "{}", seen.span.name);
    }
    let root = spans.iter().find(|seen| seen.span.name == "POST /exports").unwrap();
    assert_eq!(hex(&root.span.parent_span_id), parent);
    let of = |name: &str| spans.iter().find(|seen| seen.span.name == name).unwrap().service.clone();
    assert!(of("POST /exports").contains("polyglot-api") && of("shard").contains("polyglot-worker"));
    let numbers: BTreeSet<String> = spans
        .iter()
        .filter(|seen| seen.span.name == "shard")
        .map(|seen| format!("{:?}", seen.span.attributes.iter().find(|pair| pair.key == "shard").unwrap().value))
        .collect();
    assert_eq!(numbers.len(), shards, "{numbers:?}");

    // A request without a trace begins one of its own. Health checks are in no trace.
    let other = submit(&system, &first_rows(export_request("csv", None, ["id"]), 4), &[]).await;
    system.wait_until_completed(&other).await;
    let spans = collector.complete_trace_with("complete", parent, |seen| hex(&seen.span.trace_id) != trace).await;
    let names = counted(&spans);
    for name in ["POST /exports", "claim", "start", "plan", "complete"] {
        assert_eq!(names.get(name), Some(&1), "{names:?}");
    }
    let root = spans.iter().find(|seen| seen.span.name == "POST /exports").unwrap();
    assert!(root.span.parent_span_id.is_empty(), "{root:?}", root = root.span);
    assert!(collector.spans().iter().all(|seen| !seen.span.name.contains("/health") && seen.span.name != "probe"));
}

/// Seconds that the fastest of a few exports took.
async fn fastest_of_five(system: &System) -> f64 {
    let mut fastest = f64::MAX;
    for _ in 0..5 {
        let id = submit(system, &body("csv"), &[]).await;
        system.wait_until_completed(&id).await;
        let sql = format!(
            "SELECT extract(epoch FROM finished_at - created_at)::float8 FROM polyglot.exports WHERE id = '{id}'"
        );
        let took: f64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&system.pool).await.unwrap();
        fastest = fastest.min(took);
    }
    fastest
}

#[tokio::test]
async fn a_collector_that_does_not_answer_slows_nothing() {
    needs_servers!();
    let mut system = api(&[]).await;
    system.add_worker();
    let without = fastest_of_five(&system).await;
    drop(system);
    // Accepts connections, and never answers.
    let silent = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let silent = format!("http://{}", silent.local_addr().unwrap());
    for endpoint in ["http://127.0.0.1:1", &silent] {
        let mut system = api(&[("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
        system.add_worker();
        let with = fastest_of_five(&system).await;
        // Generous, since the machine may be busy.
        assert!(with < without * 2.0 + 1.0, "{endpoint}: {with} s instead of {without}");
        let began = Instant::now();
        system.workers[0].signal(Signal::TERM);
        assert!(system.workers[0].wait_for_exit().await.success());
        assert!(began.elapsed() < Duration::from_secs(20), "{endpoint}: {:?}", began.elapsed());
        let log = system.workers[0].log();
        assert!(log.matches("spans cannot be exported").count() <= 1, "{log}");
        if endpoint != silent {
            assert!(log.contains("spans cannot be exported"), "{log}");
        }
    }
}

#[tokio::test]
async fn every_log_line_about_work_names_its_export() {
    needs_servers!();
    let mut system = api(&[("LOG_FORMAT", "json")]).await;
    system.add_worker();
    let id = submit(&system, &body("csv"), &[("x-request-id", "the-request")]).await;
    let state = system.wait_until_completed(&id).await;
    let shards = state["progress"]["shards"].as_u64().unwrap();
    // The last line may not be written yet.
    let lines: Vec<Value> = wait_until("the worker logs the completion", async || {
        let log = system.workers[0].log();
        if !log.contains("\"export completed\"") {
            return Err(log);
        }
        Ok(log.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
    })
    .await;
    let message = |line: &Value, words: &str| line["message"] == words;
    let first = lines.iter().position(|line| message(line, "work claimed")).unwrap();
    let last = lines.iter().rposition(|line| message(line, "export completed")).unwrap();
    let mut seen = BTreeMap::new();
    for line in &lines[first..=last] {
        // Clean-up and message consumption concern all exports.
        if !line["target"].as_str().unwrap().starts_with("polyglot_worker") {
            continue;
        }
        let ids = (&line["export_id"], &line["request_id"]);
        assert_eq!(ids, (&id.as_str().into(), &"the-request".into()), "{line}");
        assert!(line["attempt"] == 1 && line["shard"].is_u64() && line["fence"].is_u64(), "{line}");
        assert!(line["format"] == "csv" && line["kind"].is_string() && line["span"].is_string(), "{line}");
        *seen.entry(line["message"].as_str().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(seen["work claimed"], shards + 2, "{seen:?}");
    assert_eq!((seen["export planned"], seen["shard committed"], seen["export completed"]), (1, shards, 1), "{seen:?}");

    // The log line of the api names the same request.
    let log = system.api.as_ref().unwrap().log();
    let accepted = log.lines().find(|line| line.contains("export accepted")).unwrap();
    let accepted: Value = serde_json::from_str(accepted).unwrap();
    assert_eq!((&accepted["export_id"], &accepted["request_id"]), (&id.as_str().into(), &"the-request".into()));
}
