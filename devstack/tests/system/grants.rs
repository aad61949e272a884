//! `docs/operations/grants.sql` on a real PostgreSQL: the service exports with the two roles that it makes, which may do nothing else,
//! and `polyglot-api check` says what is right, missing or too much.

use std::process::{Command, Output};

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_kit::{System, binary, export_request, scratch_database};
use polyglot_test_servers::needs_servers;
use serde_json::Value;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations/grants.sql");

const DATASETS: &str = r#"
[[dataset]]
name = "sales"
relation = "shop.orders"

[[dataset]]
name = "later"
relation = "shop.made_later"
"#;

/// A source with the schema `shop` of a role of its own, and the names of three roles that no other test has.
struct Shop {
    system: System,
    admin: String,
    owner: String,
    reader: String,
    ledger: String,
    _files: ScratchDir,
}

impl Shop {
    /// With the script's roles, and without any process.
    async fn set_up() -> Self {
        let database = scratch_database().await;
        let mark = uuid::Uuid::new_v4().simple().to_string();
        let [owner, reader, ledger] = ["owner", "reader", "ledger"].map(|name| format!("{name}_{mark}"));
        let admin = database.url().to_owned();
        run(
            &admin,
            &format!(
                "CREATE ROLE {owner} LOGIN; CREATE SCHEMA shop AUTHORIZATION {owner}; SET ROLE {owner};
                 CREATE TABLE shop.orders (id int PRIMARY KEY, note text);
                 INSERT INTO shop.orders VALUES (1, 'a'), (2, 'b')"
            ),
        )
        .await
        .unwrap();
        for _ in 0..2 {
            psql(&admin, &[("reader", &reader), ("schema", "shop"), ("owner", &owner)]);
            psql(&admin, &[("reader", &reader), ("schema", "public")]);
            psql(&admin, &[("ledger", &ledger)]);
        }
        run(&admin, &format!("SET ROLE {owner}; CREATE TABLE shop.made_later AS SELECT 7 AS id")).await.unwrap();
        let files = ScratchDir::new("grants-test").unwrap();
        let datasets = files.path().join("datasets.toml");
        std::fs::write(&datasets, DATASETS).unwrap();
        let env = [
            ("DATABASE_URL", as_role(&admin, &ledger)),
            ("SOURCE_DATABASE_URL", as_role(&admin, &reader)),
            ("DATASETS", datasets.to_str().unwrap().to_owned()),
            ("SOURCE_ALLOW_PRIVILEGED", "off".to_owned()),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let system = System::prepare(&format!("grants_{mark}"), &admin, env).await;
        Self { system, admin, owner, reader, ledger, _files: files }
    }

    /// The exit code of `polyglot-api check`, and its lines with this test's names in the place of the roles'.
    fn check(&self) -> (Option<i32>, String) {
        let mut command = Command::new(binary("polyglot-api"));
        let Output { status, stdout, stderr } = self.system.environment(&mut command).arg("check").output().unwrap();
        assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
        let text = String::from_utf8(stdout).unwrap().replace(&self.reader, "reader").replace(&self.ledger, "ledger");
        (status.code(), text)
    }
}

/// The servers of the tests ask for no password.
fn as_role(admin: &str, role: &str) -> String {
    let (_, address) = admin.split_once('@').unwrap();
    format!("postgres://{role}@{address}")
}

fn psql(url: &str, variables: &[(&str, &str)]) {
    let mut command = Command::new("psql");
    command.args([url, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", SCRIPT]);
    for (name, value) in variables {
        command.arg("-v").arg(format!("{name}={value}"));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{variables:?}: {}", String::from_utf8_lossy(&output.stderr));
}

async fn run(url: &str, statement: &str) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let ran = connection.execute(AssertSqlSafe(statement.to_owned())).await.map(drop);
    connection.close().await.unwrap();
    ran
}

/// What `check` says with all servers up and both roles as they should be.
const RIGHT: &str = r#"ok        ledger        connected to the database "…" as "ledger"
ok        ledger        the schema polyglot is up to date
ok        broker        connected; the queue
ok        object store  the bucket
ok        source        connected as "reader"
ok        source role   "reader" may only read
ok        datasets      sales: "shop"."orders" can be read
ok        datasets      later: "shop"."made_later" can be read
Everything that the service needs is there."#;

fn assert_lines(text: &str, wanted: &str) {
    let mut rest = text;
    for part in wanted.lines().flat_map(|line| line.split('…')) {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part:?} is missing or in another place:\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

#[tokio::test]
async fn the_roles_of_the_script_are_enough_and_may_do_nothing_else() {
    needs_servers!();
    let mut shop = Shop::set_up().await;
    let (code, before) = shop.check();
    assert_eq!(code, Some(0), "{before}");
    assert_lines(&before, "migrations are still to be run");
    assert_lines(&before, "is not there yet; the api makes it when it starts");

    shop.system.start_api();
    shop.system.wait_until_ready().await;
    shop.system.add_worker();
    for (dataset, columns, expected) in
        [("sales", &["id", "note"][..], "id,note\n1,a\n2,b\n"), ("later", &["id"], "id\n7\n")]
    {
        let mut request = export_request("csv", None, columns.iter().copied());
        request["dataset"] = Value::from(dataset);
        let (_, _, file) = shop.system.export(&request).await;
        assert_eq!(String::from_utf8(file).unwrap().replace("\r\n", "\n"), expected, "{dataset}");
    }
    let (code, right) = shop.check();
    assert_eq!(code, Some(0), "{right}");
    assert_lines(&right, RIGHT);
    // The object of the check is gone: there are the two files alone.
    assert_eq!(shop.system.bucket.objects().await.len(), 2);

    let (reader, ledger) = (as_role(&shop.admin, &shop.reader), as_role(&shop.admin, &shop.ledger));
    for (url, statement) in [
        (&reader, "INSERT INTO shop.orders VALUES (3, 'c')"),
        (&reader, "UPDATE shop.orders SET note = 'x'"),
        (&reader, "DELETE FROM shop.orders"),
        (&reader, "CREATE TABLE shop.mine (id int)"),
        (&reader, "CREATE TABLE public.mine (id int)"),
        (&reader, "CREATE SCHEMA mine"),
        (&reader, "SELECT FROM polyglot.exports"),
        (&ledger, "SELECT FROM shop.orders"),
        (&ledger, "CREATE SCHEMA mine"),
    ] {
        let refused = run(url, statement).await.expect_err(statement);
        let code = refused.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {refused}");
    }
}

#[tokio::test]
async fn the_check_says_what_is_missing_and_what_is_too_much() {
    needs_servers!();
    let mut shop = Shop::set_up().await;
    let reader = shop.reader.clone();
    let owner = shop.owner.clone();
    run(
        &shop.admin,
        &format!("GRANT INSERT ON shop.orders TO {reader}; REVOKE SELECT ON shop.made_later FROM {reader}"),
    )
    .await
    .unwrap();
    let (code, text) = shop.check();
    assert_eq!(code, Some(1), "{text}");
    assert_lines(&text, "TOO MUCH  source role   \"reader\" has INSERT on shop.orders (docs/operations/grants.md)");
    assert_lines(
        &text,
        "MISSING   datasets      later: GRANT SELECT ON \"shop\".\"made_later\" TO \"reader\"\n2 lines above",
    );

    shop.system.set("SOURCE_ALLOW_PRIVILEGED", "on");
    let (_, text) = shop.check();
    assert_lines(
        &text,
        "note      source role   \"reader\" has INSERT on shop.orders (docs/operations/grants.md); SOURCE_ALLOW_PRIVILEGED=on",
    );
    assert_lines(&text, "1 line above says");
    shop.system.set("SOURCE_ALLOW_PRIVILEGED", "off");

    run(&shop.admin, &format!("REVOKE USAGE ON SCHEMA shop FROM {reader}; DROP TABLE shop.made_later")).await.unwrap();
    let (_, text) = shop.check();
    assert_lines(&text, "sales: GRANT USAGE ON SCHEMA \"shop\" TO \"reader\"\n");
    assert_lines(&text, "later: there is no relation \"shop\".\"made_later\"\n");

    // A schema as a whole: what the role may not read does not exist, and that is said.
    run(&shop.admin, &format!("GRANT USAGE ON SCHEMA shop TO {reader}; REVOKE INSERT ON shop.orders FROM {reader}; SET ROLE {owner}; CREATE TABLE shop.hidden (id int); REVOKE ALL ON shop.hidden FROM {reader}")).await.unwrap();
    let datasets = shop.system.file("all.toml");
    std::fs::write(&datasets, "[[dataset]]\nrelation = \"shop.*\"\n").unwrap();
    shop.system.set("DATASETS", datasets.to_str().unwrap());
    let (code, text) = shop.check();
    assert_eq!(code, Some(0), "{text}");
    assert_lines(&text, "ok        datasets      \"shop\".*: 1 relations can be read");
    assert_lines(
        &text,
        "note      datasets      \"shop\".*: 1 relations do not exist for clients, because \"reader\" has no SELECT",
    );

    // Nothing is where the variables say.
    let away = format!("postgres://nobody@127.0.0.1:{}/nothing", polyglot_devstack::free_port().unwrap());
    for name in ["DATABASE_URL", "SOURCE_DATABASE_URL"] {
        shop.system.set(name, &away);
    }
    shop.system.set("AMQP_URL", &format!("amqp://127.0.0.1:{}/%2f", polyglot_devstack::free_port().unwrap()));
    shop.system.set("S3_ENDPOINT", &format!("http://127.0.0.1:{}", polyglot_devstack::free_port().unwrap()));
    let (code, text) = shop.check();
    assert_eq!(code, Some(1), "{text}");
    for line in [
        "MISSING   ledger        DATABASE_URL: ",
        "MISSING   broker        AMQP_URL: ",
        "MISSING   object store",
        "MISSING   source        SOURCE_DATABASE_URL: ",
    ] {
        assert_lines(&text, line);
    }
    shop.system.set("DATABASE_URL", "mysql://x");
    let mut command = Command::new(binary("polyglot-api"));
    let refused = shop.system.environment(&mut command).arg("check").output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("DATABASE_URL: "), "{refused:?}");
}
