//! PgBouncer in front of the source: in session mode it works like the server itself, in transaction mode it is refused.

use std::path::PathBuf;
use std::process::Command;

use polyglot_devstack::free_port;
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_kit::{Process, Setup, System, binary, sample_request, scratch_database, wait_until};
use polyglot_test_servers::{needs_program, needs_servers};

/// A running PgBouncer; its connections to the server are the superuser's, whoever asks.
struct PgBouncer {
    url: String,
    _process: Process,
    _files: ScratchDir,
}

impl PgBouncer {
    async fn start(database_url: &str, mode: &str) -> Self {
        let files = ScratchDir::new("pgbouncer").unwrap();
        let (server, database) = database_url.split_once('@').unwrap().1.split_once('/').unwrap();
        let (host, server_port) = server.split_once(':').unwrap();
        let port = free_port().unwrap();
        let settings = format!(
            "[databases]\n* = host={host} port={server_port} user=postgres\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = 40\n"
        );
        let path: PathBuf = files.path().join("pgbouncer.ini");
        std::fs::write(&path, settings).unwrap();
        let mut command = Command::new("pgbouncer");
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "postgres"]);
        }
        command.arg(&path);
        let process = Process::start("pgbouncer", command, &[], files.path());
        wait_until("PgBouncer listens", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
        Self { url: format!("postgres://postgres@127.0.0.1:{port}/{database}"), _process: process, _files: files }
    }
}

#[tokio::test]
async fn a_pooler_in_session_mode_is_like_the_server_itself() {
    needs_servers!();
    needs_program!("pgbouncer");
    let database = scratch_database().await;
    polyglot_devstack::seed::fill(database.url(), 250_000).await.unwrap();
    let pooler = PgBouncer::start(database.url(), "session").await;
    let direct = System::start(Setup::new(0, &[("SOURCE_DATABASE_URL", database.url())])).await;
    let mut pooled = System::start(Setup::new(0, &[("SOURCE_DATABASE_URL", &pooler.url)])).await;
    pooled.add_worker();
    for (format, compression) in [("json", None), ("parquet", None), ("csv", Some("zstd"))] {
        let request = sample_request(format, compression);
        let (_, state, file) = pooled.export(&request).await;
        assert_eq!((&state["attempt"], &state["progress"]["rows"]), (&1.into(), &250_000.into()), "{state:#}");
        let (_, expected, same) = direct.export(&request).await;
        assert_eq!(state["progress"]["shards"], expected["progress"]["shards"]);
        assert!(file == same, "{format}: {} and {} bytes", file.len(), same.len());
    }
    let preview = sample_request("csv", None);
    let answer = pooled.request(reqwest::Method::POST, "/exports/preview").json(&preview).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_refused_with_the_remedy() {
    needs_servers!();
    needs_program!("pgbouncer");
    let database = scratch_database().await;
    polyglot_devstack::seed::fill(database.url(), 100).await.unwrap();
    for mode in ["transaction", "statement"] {
        let pooler = PgBouncer::start(database.url(), mode).await;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let env = vec![("SOURCE_DATABASE_URL".to_owned(), pooler.url.clone())];
        let system = System::prepare(&name, database.url(), env).await;
        for (program, arguments) in [("polyglot-api", &["check"][..]), ("polyglot-api", &[]), ("polyglot-worker", &[])]
        {
            let mut command = Command::new(binary(program));
            system.environment(&mut command).args(arguments);
            let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
            let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(1), "{program} {arguments:?} in {mode} mode: {text}");
            for part in ["SOURCE_DATABASE_URL: a pooler answers", "set pool_mode = session"] {
                assert!(text.contains(part), "{program} {arguments:?} in {mode} mode: {text}");
            }
        }
    }
}
