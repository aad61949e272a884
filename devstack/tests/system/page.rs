//! The web page in a real browser: what people do with it from choosing to the file, and what it shows when things go
//! wrong. What is done and looked at is in `page.py`; here is the service behind it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use polyglot_devstack::scratch_dir::ScratchDir;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{PATIENCE, Service, Setup, System};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Enough for a dozen shards, so that a bar has something to show.
const MANY_ROWS: u64 = 800_000;
const FEW_ROWS: u64 = 110_000;

/// Two apis and a worker over `records`, a dataset whose rows fail, and one that takes ten seconds and more.
struct Stage {
    system: System,
    other: Service,
    other_url: String,
    _folder: ScratchDir,
}

async fn stage(rows: u64) -> Stage {
    let folder = ScratchDir::new("page-test").unwrap();
    let datasets = folder.path().join("datasets.toml");
    let each = ["records", "failing", "slow"].map(|name| format!("[[dataset]]\nrelation = \"public.{name}\"\n"));
    std::fs::write(&datasets, each.concat()).unwrap();
    let env = vec![("DATASETS".to_owned(), datasets.to_str().unwrap().to_owned())];
    let mut system = System::without_worker(Setup { rows, env }).await;
    for statement in [
        "CREATE VIEW public.failing AS SELECT id, name, 1 / (id - 5000) AS quotient FROM public.records",
        "CREATE VIEW public.slow AS SELECT id, created_at, name, value, metadata FROM public.records
         WHERE id <= 100000 AND (id % 100 <> 0 OR pg_sleep(0.01) IS NOT NULL)",
    ] {
        sqlx::query(statement).execute(&system.pool).await.unwrap();
    }
    system.wait_until_ready().await;
    system.add_worker();
    let (other, other_url) = system.another_api().await;
    Stage { system, other, other_url, _folder: folder }
}

impl Stage {
    fn script(&self, scenarios: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(format!("{ROOT}/.tools/venv/bin/python"));
        command.arg(format!("{ROOT}/devstack/tests/page/page.py")).args(scenarios);
        command.env("API_URL", self.system.url("")).env("OTHER_API_URL", &self.other_url);
        command.env("FAIL_DATASET", "failing").envs(env.iter().copied());
        // Screenshots stay, to be looked at.
        command.env("SHOTS", format!("{ROOT}/target/page"));
        command
    }

    async fn plays(&self, scenarios: &[&str], env: &[(&str, &str)]) {
        let mut command = self.script(scenarios, env);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn people_get_their_files_and_see_what_happens() {
    let stage = stage(MANY_ROWS).await;
    stage.plays(&["way", "failing", "two", "polling", "order", "commands"], &[]).await;
    stage.plays(&["cancel"], &[("DATASET", "slow")]).await;
}

#[tokio::test]
async fn everybody_can_use_it_at_every_size() {
    let stage = stage(FEW_ROWS).await;
    stage.plays(&["access", "screens"], &[]).await;
}

#[tokio::test]
async fn hundreds_of_exports_are_shown() {
    let stage = stage(FEW_ROWS).await;
    for _ in 0..200 {
        let body = json!({
            "format": "csv", "columns": [{"source": "id", "target": "id"}],
            "filters": [{"column": "id", "op": "<=", "value": 10}],
        });
        assert_eq!(stage.system.post(&body).await.status(), 201);
    }
    // Those that are under way are told by events and are in the list before their page is loaded.
    let deadline = Instant::now() + PATIENCE;
    while stage.system.count("SELECT count(*) FROM polyglot.exports WHERE state <> 'completed'").await > 0 {
        assert!(Instant::now() < deadline, "the exports are never all completed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Other tests run beside it, so this is no measurement: it tells a page that hangs from one that does not.
    stage.plays(&["many"], &[("ANSWER_MS", "2000")]).await;
}

#[tokio::test]
async fn the_page_goes_on_when_its_api_dies() {
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
                        // Either side may go away whenever it likes.
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                        return;
                    }
                }
            });
        }
    });
    let mut command = stage.script(&["failover"], &[("DATASET", "slow"), ("PROXY_URL", &address)]);
    let first = stage.system.api.take().unwrap();
    // The script asks the api as well, so that has to be the one that lives.
    command.env("API_URL", &stage.other_url).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let played = tokio::task::spawn_blocking(move || {
        let mut script = command.spawn().unwrap();
        let mut first = Some(first);
        let mut told = String::new();
        for line in BufReader::new(script.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if line == "KILL" {
                // Dropped is killed.
                first = None;
                script.stdin.as_ref().unwrap().write_all(b"dead\n").unwrap();
            }
            told.push_str(&line);
            told.push('\n');
        }
        let output = script.wait_with_output().unwrap();
        assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stderr));
        assert!(first.is_none(), "the script did not ask for a death: {told}");
    });
    played.await.unwrap();
    front.abort();
    assert!(stage.other.child.try_wait().unwrap().is_none(), "the other api has ended");
}
