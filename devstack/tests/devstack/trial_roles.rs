//! The two roles of a trial: what each may do, and what it may not, in a new database and in one of an earlier version.

use polyglot_devstack::free_port;
use polyglot_devstack::postgres::{Postgres, PostgresSettings};
use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_devstack::trial_roles::{LEDGER_ROLE, READER_ROLE, TrialPasswords, set_up};
use polyglot_ledger::Ledger;
use polyglot_source::{ConnectionLimit, SourceConnection, role_rights};
use polyglot_test_servers::needs_servers;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

const DATABASE: &str = "polyglot";

struct Trial {
    server: Postgres,
    passwords: TrialPasswords,
    _dir: ScratchDir,
}

impl Trial {
    /// A private PostgreSQL without the roles.
    async fn start() -> Self {
        let dir = ScratchDir::new("trial-roles").unwrap();
        let (path, port) = (dir.path().canonicalize().unwrap(), free_port().unwrap());
        let password = Some("admin0".to_owned());
        let settings = PostgresSettings { port, durable: false, password, max_connections: 20, options: &[] };
        let started = Postgres::start(&path, &path.join("postgres.log"), settings).await;
        let server = started.unwrap_or_else(|error| panic!("{}", error.with_causes()));
        server.ensure_database(DATABASE).await.unwrap();
        let passwords = TrialPasswords { ledger: "ledger0".to_owned(), reader: "reader0".to_owned() };
        Self { server, passwords, _dir: dir }
    }

    async fn set_up(&self) {
        let done = set_up(&self.admin(), &self.passwords).await;
        done.unwrap_or_else(|error| panic!("{}", error.with_causes()));
    }

    fn admin(&self) -> String {
        self.server.url(DATABASE)
    }

    fn reader(&self) -> String {
        self.server.url_for(READER_ROLE, &self.passwords.reader, DATABASE)
    }

    fn ledger(&self) -> String {
        self.server.url_for(LEDGER_ROLE, &self.passwords.ledger, DATABASE)
    }
}

async fn run(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let ran = connection.execute(AssertSqlSafe(statement.to_owned())).await.map(drop);
    connection.close().await.unwrap();
    ran
}

async fn assert_refused(url: &str, statement: &str) {
    let error = run(url, statement).await.expect_err(statement);
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    // insufficient_privilege
    assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
}

async fn assert_roles_are_right(trial: &Trial) {
    let (admin, reader, ledger) = (trial.admin(), trial.reader(), trial.ledger());
    run(&admin, "CREATE TABLE made_later AS SELECT 1 AS id; CREATE VIEW seen_later AS SELECT * FROM made_later")
        .await
        .unwrap();
    for relation in ["made_before", "made_later", "seen_later"] {
        run(&reader, &format!("SELECT id FROM {relation}")).await.unwrap();
        assert_refused(&ledger, &format!("SELECT id FROM {relation}")).await;
    }
    for statement in [
        "INSERT INTO made_before VALUES (2)",
        "UPDATE made_later SET id = 3",
        "DELETE FROM made_before",
        "TRUNCATE made_later",
        "CREATE TABLE public.mine (id int)",
        "CREATE SCHEMA mine",
        "CREATE TEMPORARY TABLE mine (id int)",
        "SELECT FROM polyglot.exports",
    ] {
        assert_refused(&reader, statement).await;
    }
    for statement in ["CREATE SCHEMA mine", "CREATE TABLE public.mine (id int)", "INSERT INTO made_before VALUES (2)"] {
        assert_refused(&ledger, statement).await;
    }
    let limit = ConnectionLimit::new(2, 1);
    let mut source = SourceConnection::open(limit.acquire().await, &reader, "polyglot test").await.unwrap();
    let rights = role_rights(&mut source).await.unwrap();
    source.close();
    assert!(rights.role == READER_ROLE && rights.excess.is_empty(), "{rights}");
}

#[tokio::test]
async fn one_role_owns_the_ledger_and_the_other_may_only_read() {
    needs_servers!();
    let trial = Trial::start().await;
    run(&trial.admin(), "CREATE TABLE made_before AS SELECT 1 AS id").await.unwrap();
    trial.set_up().await;
    let ledger = Ledger::new(trial.ledger(), 2, "test").unwrap();
    let state = ledger.schema_state().await.unwrap();
    assert!(state.exists && state.may_create && state.pending > 0 && state.damaged == 0, "{state:?}");
    ledger.migrate().await.unwrap();
    let state = ledger.schema_state().await.unwrap();
    assert!(state.pending == 0 && state.not_writable == 0 && state.owned_by_others == 0, "{state:?}");
    assert_roles_are_right(&trial).await;
    // Another start changes nothing, and finds everything as it is.
    trial.set_up().await;
    ledger.migrate().await.unwrap();
    run(&trial.reader(), "SELECT FROM made_later").await.unwrap();
}

#[tokio::test]
async fn what_an_earlier_version_has_made_with_one_role_goes_on() {
    needs_servers!();
    let trial = Trial::start().await;
    run(&trial.admin(), "CREATE TABLE made_before AS SELECT 1 AS id").await.unwrap();
    Ledger::new(trial.admin(), 2, "test").unwrap().migrate().await.unwrap();
    run(&trial.admin(), "CREATE SCHEMA other; CREATE TABLE other.kept (id int)").await.unwrap();
    trial.set_up().await;
    let ledger = Ledger::new(trial.ledger(), 2, "test").unwrap();
    let state = ledger.schema_state().await.unwrap();
    assert!(state.pending == 0 && state.not_writable == 0 && state.owned_by_others == 0, "{state:?}");
    ledger.migrate().await.unwrap();
    ledger.ping().await.unwrap();
    // A migration may have to change each of them.
    for statement in [
        "ALTER TABLE polyglot.exports ADD COLUMN added int",
        "ALTER FUNCTION polyglot.ledger_now() STABLE",
        "DELETE FROM polyglot.exports",
    ] {
        run(&trial.ledger(), statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_refused(&trial.ledger(), "SELECT FROM other.kept").await;
    assert_roles_are_right(&trial).await;
}
