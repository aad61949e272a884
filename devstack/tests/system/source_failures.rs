//! What a client is told when the source fails at the rows of an export: the SQLSTATE, what it means, and how many rows came before.
//! The server's own words stay with the operator.

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_kit::{Setup, System, export_request, wait_until};
use polyglot_test_servers::needs_servers;
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

const FILE: &str = "[[dataset]]\nrelation = \"failing.*\"\n";

/// Things that the server fails to read. `ROLE` is a role of this database, for roles belong to the whole server.
const VIEWS: &[&str] = &[
    "CREATE SCHEMA failing",
    "CREATE MATERIALIZED VIEW failing.never_refreshed AS SELECT 1 AS id, 'a' AS v WITH NO DATA",
    "CREATE VIEW failing.by_zero AS SELECT n AS id, 10 / (n - 5) AS v FROM generate_series(1, 10) AS n",
    "CREATE VIEW failing.late AS SELECT n AS id, 10 / (n - 250001) AS v FROM generate_series(1, 300000) AS n",
    "CREATE TABLE failing.numbers AS SELECT n AS id FROM generate_series(1, 300000) AS n",
    "ALTER TABLE failing.numbers ADD PRIMARY KEY (id)",
    "ANALYZE failing.numbers",
    "CREATE VIEW failing.in_order AS SELECT id, 10 / (id - 250001) AS v FROM failing.numbers",
    "CREATE VIEW failing.not_utf8 AS
         SELECT n AS id, convert_from(CASE n WHEN 2 THEN '\\xff' ELSE '\\x61' END::bytea, 'UTF8') AS v
         FROM generate_series(1, 10) AS n",
    "CREATE FUNCTION failing.secret(n int) RETURNS int LANGUAGE plpgsql AS
         $$ BEGIN RAISE EXCEPTION 'the password is swordfish'; END $$",
    "CREATE VIEW failing.raising AS SELECT n AS id, failing.secret(n) AS v FROM generate_series(1, 10) AS n",
    // What the view reads is read with the permissions of its owner, who has none on the table.
    "CREATE SCHEMA hidden",
    "CREATE TABLE hidden.private (id int, v text)",
    "CREATE ROLE ROLE",
    "GRANT USAGE ON SCHEMA hidden TO ROLE; GRANT USAGE, CREATE ON SCHEMA failing TO ROLE",
    "CREATE VIEW failing.not_permitted AS SELECT * FROM hidden.private",
    "ALTER VIEW failing.not_permitted OWNER TO ROLE",
    "CREATE EXTENSION postgres_fdw",
    "CREATE SERVER away FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1', dbname 'away')",
    "CREATE USER MAPPING FOR CURRENT_USER SERVER away OPTIONS (user 'nobody', password 'swordfish')",
    "CREATE FOREIGN TABLE failing.foreign_table (id int, v text) SERVER away",
];

async fn with_views(env: &[(&str, &str)]) -> (System, ScratchDir) {
    let files = ScratchDir::new("source-failures-test").unwrap();
    let path = files.path().join("datasets.toml");
    std::fs::write(&path, FILE).unwrap();
    let env = [&[("DATASETS", path.to_str().unwrap())], env].concat();
    let mut system = System::without_worker(Setup::new(0, &env)).await;
    let role = format!("{}_owner", system.queue);
    for statement in VIEWS {
        let statement =
            statement.replace("ROLE ROLE", &format!("ROLE {role}")).replace("TO ROLE", &format!("TO {role}"));
        let made = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&system.pool).await;
        made.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    system.wait_until_ready().await;
    system.add_worker();
    (system, files)
}

/// The state of an export of the dataset that has failed, and the detail in the ledger.
async fn failure(system: &System, dataset: &str, format: &str) -> (Value, String) {
    failure_of(system, export_request(format, None, ["id", "v"]), dataset).await
}

async fn failure_of(system: &System, mut request: Value, dataset: &str) -> (Value, String) {
    request["dataset"] = dataset.into();
    let id = system.submit_request(&request).await;
    let state = system.wait_until_ended(&id).await;
    assert_eq!(state["status"], "failed", "{state:#}");
    let detail: String = sqlx::query_scalar("SELECT error_detail FROM polyglot.exports WHERE id = $1::uuid")
        .bind(&id)
        .fetch_one(&system.pool)
        .await
        .unwrap();
    (state, detail)
}

#[tokio::test]
async fn a_failure_of_the_source_says_what_it_was_and_where() {
    needs_servers!();
    let (system, _files) = with_views(&[]).await;
    for (dataset, meaning, code, place, server) in [
        (
            "never_refreshed",
            "a relation that is not ready to be read, as a materialized view that was never refreshed",
            "55000",
            ", before the first row of the export",
            "has not been populated",
        ),
        ("by_zero", "a division by zero", "22012", ", after 4 rows of the export", "division by zero"),
        ("late", "a division by zero", "22012", ", after 250000 rows of the export", "division by zero"),
        (
            "not_utf8",
            "bytes that are not text in the encoding of the database",
            "22021",
            ", after 1 row of the export",
            "invalid byte sequence",
        ),
        (
            "not_permitted",
            "a permission is missing on something that the dataset reads",
            "42501",
            // Already the lock, which is taken before rows are read, needs it.
            "",
            "permission denied for table private",
        ),
        (
            "raising",
            "a function of the dataset raised an error",
            "P0001",
            ", before the first row of the export",
            "the password is swordfish",
        ),
    ] {
        // A format that names rows, and one that does not.
        for format in ["csv", "parquet"] {
            let (state, detail) = failure(&system, dataset, format).await;
            assert_eq!((&state["errorCode"], &state["attempt"]), (&"source_refused".into(), &1.into()), "{state:#}");
            let expected =
                format!("The source database refused to read the dataset: {meaning} (SQLSTATE {code}){place}.");
            assert_eq!(state["error"], expected);
            assert!(detail.contains(server), "{detail}");
        }
        assert!(system.workers[0].log().contains(server), "{dataset}");
    }
}

#[tokio::test]
async fn the_row_before_the_failure_is_named_by_the_columns_that_order_the_rows() {
    needs_servers!();
    let (system, _files) = with_views(&[]).await;
    let words = |last: &str| {
        format!(
            "The source database refused to read the dataset: a division by zero (SQLSTATE 22012), after 250000 rows of the export{last}."
        )
    };
    for format in ["csv", "xml"] {
        let mut request = export_request(format, None, ["v", "id"]);
        request["orderBy"] = json!([{"column": "id"}]);
        let (state, _) = failure_of(&system, request.clone(), "in_order").await;
        assert_eq!(state["error"], words(", the last of which is id 250000"), "{state:#}");
        // What the client has not asked for is not fetched for the message.
        request["columns"] = json!([{"source": "v", "target": "id"}]);
        let (state, _) = failure_of(&system, request, "in_order").await;
        assert_eq!(state["error"], words(""), "{state:#}");
    }
}

#[tokio::test]
async fn a_foreign_server_that_is_away_is_tried_again_and_named_as_such() {
    needs_servers!();
    let (system, _files) = with_views(&[("MAX_ATTEMPTS", "2")]).await;
    let words = "The source database could not read the dataset: a server that the dataset reads from cannot be reached \
                 (SQLSTATE 08001), before the first row of the export.";
    let (ended, retried) = tokio::join!(failure(&system, "foreign_table", "csv"), async {
        let mut seen = Value::Null;
        wait_until("the export is tried again", async || {
            seen = system.get("/exports").await.json::<Value>().await.unwrap()["exports"][0]["lastFailure"].clone();
            !seen.is_null()
        })
        .await;
        seen
    });
    assert_eq!(retried, json!({"failures": 1, "errorCode": "source_unavailable", "error": words}));
    let (state, detail) = ended;
    assert_eq!(state["errorCode"], "source_unavailable", "{state:#}");
    assert_eq!(state["error"], words);
    assert!(state.get("lastFailure").is_none(), "{state:#}");
    assert_eq!(state["attempt"], 2, "{state:#}");
    assert!(detail.contains("could not connect to server"), "{detail}");
}
