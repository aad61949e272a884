//! The web page in a real browser: what people do with it from choosing columns to the file, and what it shows when
//! something fails. `page.py` has the actions and the checks; this is the service behind them.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_kit::{Process, Setup, System, binary, export_request, first_rows, python_command, sample_request};
use polyglot_test_servers::needs_servers;
use reqwest::Method;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Enough for a dozen shards, so that there is progress to show.
const MANY_ROWS: u64 = 800_000;
const FEW_ROWS: u64 = 110_000;

/// As long as PostgreSQL takes.
const LONG: &str = "a_name_of_63_characters_which_has_no_place_where_it_might_break";

/// Two apis and a worker over `records`, a dataset whose rows fail, and one that takes ten seconds and more.
struct Stage {
    system: System,
    other: Process,
    other_url: String,
    _folder: ScratchDir,
}

async fn stage(rows: u64) -> Stage {
    let folder = ScratchDir::new("page-test").unwrap();
    let datasets = folder.path().join("datasets.toml");
    let each = ["records", "failing", "slow", LONG].map(|name| format!("[[dataset]]\nrelation = \"public.{name}\"\n"));
    std::fs::write(&datasets, each.concat()).unwrap();
    let env = [("DATASETS", datasets.to_str().unwrap()), ("BENCHMARK", "on")];
    let mut system = System::without_worker(Setup::new(rows, &env)).await;
    for statement in [
        "CREATE VIEW public.failing AS SELECT id, name, 1 / (id - 5000) AS quotient FROM public.records",
        "CREATE VIEW public.slow AS SELECT id, created_at, name, value, metadata FROM public.records
         WHERE id <= 100000 AND (id % 100 <> 0 OR pg_sleep(0.01) IS NOT NULL)",
        &format!("CREATE VIEW public.{LONG} AS SELECT id, name AS {LONG} FROM public.records WHERE id <= 10"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&system.pool).await.unwrap();
    }
    system.wait_until_ready().await;
    system.add_worker();
    let (other, other_url) = system.another_api().await;
    Stage { system, other, other_url, _folder: folder }
}

impl Stage {
    fn script(&self, scenarios: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = python_command();
        command.arg(format!("{ROOT}/devstack/tests/page/page.py")).args(scenarios);
        command.env("API_URL", self.system.url("")).env("OTHER_API_URL", &self.other_url);
        command.env("FAIL_DATASET", "failing").env("LONG_DATASET", LONG).envs(env.iter().copied());
        // Screenshots stay for people to see.
        command.env("SHOTS", format!("{ROOT}/target/page"));
        command
    }

    async fn play(&self, scenarios: &[&str], env: &[(&str, &str)]) {
        run(self.script(scenarios, env)).await;
    }
}

async fn run(mut command: Command) {
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a scenario of a script beside `page.py` that needs no other services.
async fn play(script: &str, scenario: &str, env: &[(&str, &str)]) {
    let mut command = python_command();
    command.arg(format!("{ROOT}/devstack/tests/page/{script}")).arg(scenario).envs(env.iter().copied());
    run(command).await;
}

/// A key of the tenant `shop`, called `page`.
fn new_key(system: &System) -> String {
    let arguments = ["keys", "create", "--name", "page", "--tenant", "shop"];
    let made = system.environment(&mut Command::new(binary("polyglot-api"))).args(arguments).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn people_get_their_files_and_see_what_happens() {
    needs_servers!();
    let stage = stage(MANY_ROWS).await;
    stage.play(&["way", "tabs", "failing", "two", "polling", "order", "commands"], &[]).await;
    stage.play(&["cancel"], &[("DATASET", "slow")]).await;
}

#[tokio::test]
async fn everybody_can_use_it_at_every_size() {
    needs_servers!();
    let stage = stage(FEW_ROWS).await;
    stage.play(&["access", "screens"], &[]).await;
}

#[tokio::test]
async fn what_was_chosen_is_kept_and_asked_for_again() {
    needs_servers!();
    let stage = stage(FEW_ROWS).await;
    stage.play(&["request", "filters", "address", "benchmarks", "wording"], &[]).await;
}

#[tokio::test]
async fn it_loads_without_jumps_and_follows_the_rules_of_accessibility() {
    needs_servers!();
    let stage = stage(FEW_ROWS).await;
    stage.play(&["loading", "axe", "session"], &[]).await;
}

#[tokio::test]
async fn people_sign_in_with_a_key() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(FEW_ROWS, &[("AUTH", "on")])).await;
    system.add_worker();
    let key = new_key(&system);
    let url = system.url("");
    play("page.py", "key", &[("API_URL", &url), ("API_KEY", &key)]).await;
}

#[tokio::test]
async fn a_foreign_page_gets_nothing_through_the_browser_of_who_is_signed_in() {
    needs_servers!();
    let mut system = System::without_worker(Setup::new(FEW_ROWS, &[("AUTH", "on")])).await;
    system.add_worker();
    let key = new_key(&system);
    let submit = system.request(Method::POST, "/exports").bearer_auth(&key).json(&sample_request("csv", None));
    let accepted: Value = submit.send().await.unwrap().json().await.unwrap();
    let id = accepted["exportId"].as_str().unwrap();
    let unfinished = "SELECT count(*) FROM polyglot.exports WHERE state <> 'completed'";
    system.wait_until_none("the export is completed", unfinished).await;
    let url = system.url("");
    play("foreign_pages.py", "cross_site", &[("API_URL", &url), ("API_KEY", &key), ("EXPORT_ID", id)]).await;
}

#[tokio::test]
async fn a_foreign_name_of_this_machine_gets_nothing_from_a_service_without_keys() {
    needs_servers!();
    let system = System::without_worker(Setup::new(0, &[])).await;
    system.wait_until_ready().await;
    play("foreign_pages.py", "rebinding", &[("API_URL", &system.url(""))]).await;
}

#[tokio::test]
async fn hundreds_of_exports_are_shown() {
    needs_servers!();
    let stage = stage(FEW_ROWS).await;
    for _ in 0..200 {
        stage.system.submit_request(&first_rows(export_request("csv", None, ["id"]), 10)).await;
    }
    // Active exports come by events, so they would be in the list before their page is loaded.
    let unfinished = "SELECT count(*) FROM polyglot.exports WHERE state <> 'completed'";
    stage.system.wait_until_none("all exports are completed", unfinished).await;
    // Other tests run in parallel, so this is no measurement: it only finds a page that hangs.
    stage.play(&["many"], &[("ANSWER_MS", "2000")]).await;
}

#[tokio::test]
async fn the_page_goes_on_when_its_api_dies() {
    needs_servers!();
    let mut stage = stage(FEW_ROWS).await;
    let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", front.local_addr().unwrap());
    let backends =
        [stage.system.url(""), stage.other_url.clone()].map(|url| url.trim_start_matches("http://").to_owned());
    let front = tokio::spawn(async move {
        loop {
            let (mut client, _) = front.accept().await.unwrap();
            let backends = backends.clone();
            tokio::spawn(async move {
                for backend in &backends {
                    if let Ok(mut server) = TcpStream::connect(backend).await {
                        // Either side may close its connection at any time.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                }
            });
        }
    });
    let mut command = stage.script(&["failover"], &[("DATASET", "slow"), ("PROXY_URL", &address)]);
    let first = stage.system.api.take().unwrap();
    // The script calls the api as well, so that has to be the one that is not killed.
    command.env("API_URL", &stage.other_url).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let played = tokio::task::spawn_blocking(move || {
        let mut script = command.spawn().unwrap();
        let mut first = Some(first);
        let mut report = String::new();
        for line in BufReader::new(script.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line == "KILL" {
                // Dropping it kills it.
                first = None;
                script.stdin.as_ref().unwrap().write_all(b"dead\n").unwrap();
            }
            report.push_str(&line);
            report.push('\n');
        }
        let output = script.wait_with_output().unwrap();
        assert!(output.status.success(), "{report}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(first.is_none(), "the script did not ask to kill the api: {report}");
    });
    played.await.unwrap();
    front.abort();
    assert!(stage.other.child.try_wait().unwrap().is_none(), "the other api has ended");
}
