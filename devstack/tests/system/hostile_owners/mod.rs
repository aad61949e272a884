//! What those who own objects in the source database can do to the service: nothing. The attacker may only create objects in a
//! schema, the service's role may only read. Whatever an object's code tries, it gets no right that the role has not been given,
//! the export is right or fails, and no session that others use afterwards is changed.

mod code;
mod names;
mod role;
mod time_limits;

use polyglot_devstack::seed;
use polyglot_devstack::wait::wait_until;
use polyglot_test_kit::{System, export_request, scratch_database};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection as _};

/// The word that nobody but a superuser may read.
const SECRET: &str = "swordfish";

/// The key of the advisory lock that hostile code takes for its session: a session that holds it has run such code.
/// Only of this database: other tests have hostile code as well.
const MARK: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";

/// A system over a source with an attacker.
struct Trial {
    system: System,
    /// A superuser's connections to the source.
    admin: PgPool,
    /// The attacker's session in the source.
    attacker: PgConnection,
    attacker_name: String,
    reader: String,
}

async fn run(connection: &mut PgConnection, sql: &str) {
    let ran = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await;
    ran.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

impl Trial {
    /// The api and one worker, ready, over 100 rows in `public.records`. The ledger is in a database of its own, as it should be.
    async fn start() -> Self {
        let mut trial = Self::prepare(&[]).await;
        trial.system.start_api();
        trial.system.wait_until_ready().await;
        trial.system.add_worker();
        trial
    }

    /// The same without processes. `env` is for those that are started.
    async fn prepare(env: &[(&str, &str)]) -> Self {
        let (ledger, source) = (scratch_database().await, scratch_database().await);
        seed::fill(source.url(), 100).await.unwrap();
        let name = format!("hostile_{}", uuid::Uuid::new_v4().simple());
        let (reader, attacker_name) = (format!("{name}_reader"), format!("{name}_attacker"));
        let admin = PgPool::connect(source.url()).await.unwrap();
        let sql = format!(
            "CREATE ROLE {reader} LOGIN PASSWORD 'x'; CREATE ROLE {attacker_name} LOGIN PASSWORD 'x';
             REVOKE CREATE ON SCHEMA public FROM PUBLIC;
             CREATE TABLE public.secret (word text); INSERT INTO public.secret VALUES ('{SECRET}');
             GRANT SELECT ON public.records TO {reader};
             GRANT CREATE, USAGE ON SCHEMA public TO {attacker_name};
             -- A session's settings, as an export or a preview finds them.
             CREATE VIEW public.settings AS SELECT name, setting FROM pg_catalog.pg_settings
                 WHERE name IN ('search_path', 'TimeZone', 'DateStyle', 'statement_timeout', 'default_transaction_read_only',
                                'extra_float_digits', 'bytea_output', 'role', 'session_authorization');
             GRANT SELECT ON public.settings TO {reader};
             -- The worst that an operator may have set.
             ALTER ROLE {reader} SET search_path TO public, pg_catalog"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&admin).await.unwrap();
        let user = source.url().parse::<PgConnectOptions>().unwrap().get_username().to_owned();
        let reader_url = source.url().replacen(&format!("//{user}"), &format!("//{reader}"), 1);
        let options: PgConnectOptions = source.url().parse().unwrap();
        let options = options.username(&attacker_name).password("x");
        let mut attacker = PgConnection::connect_with(&options).await.unwrap();
        run(
            &mut attacker,
            &format!("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}; {}", payload(&attacker_name)),
        )
        .await;
        let datasets = std::env::temp_dir().join(format!("{name}.toml"));
        std::fs::write(&datasets, "[[dataset]]\nrelation = \"public.*\"\n").unwrap();
        let usual = [
            ("DATASETS", datasets.to_str().unwrap()),
            ("SOURCE_DATABASE_URL", &reader_url),
            ("SOURCE_ALLOW_PRIVILEGED", "off"),
            ("WORKER_SLOTS", "1"),
            ("AMQP_URL", ""),
        ];
        let env = usual.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let system = System::prepare(&name, ledger.url(), env).await;
        Self { system, admin, attacker, attacker_name, reader }
    }

    /// One value from the source, as its administrator.
    async fn ask<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(query).fetch_one(&self.admin).await.unwrap()
    }

    /// Has the attacker create something.
    async fn attack(&mut self, sql: &str) {
        run(&mut self.attacker, sql).await;
    }

    async fn preview(&self, body: &Value) -> (u16, Value) {
        let answer = self.system.request(Method::POST, "/exports/preview").json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Previews and exports `body`, and checks what must hold whatever it is. Returns the file if there is one, and the answer
    /// otherwise.
    async fn survives(&self, name: &str, body: &Value) -> Result<String, String> {
        let result = self.outcome(name, body).await;
        self.nothing_was_gained(name).await;
        result
    }

    /// The same without the check of what comes after it.
    async fn outcome(&self, name: &str, body: &Value) -> Result<String, String> {
        let (_, preview) = self.preview(body).await;
        assert!(!preview.to_string().contains(SECRET), "{name}: {preview}");
        let answer = self.system.post(body).await;
        let status = answer.status().as_u16();
        let document: Value = answer.json().await.unwrap();
        let result = if status == 201 {
            let id = document["exportId"].as_str().unwrap();
            let state = self.system.wait_until_ended(id).await;
            if state["status"] == "completed" {
                Ok(String::from_utf8(self.system.download(id).await).unwrap())
            } else {
                Err(state.to_string())
            }
        } else {
            Err(document.to_string())
        };
        let (Ok(text) | Err(text)) = &result;
        assert!(!text.contains(SECRET), "{name}: {text}");
        println!("{name}: {}", text.replace('\n', " | ").chars().take(200).collect::<String>());
        result
    }

    /// Checks that the attacker has no more rights than before, and that others' exports are what they were.
    async fn nothing_was_gained(&self, name: &str) {
        let gained: bool = sqlx::query_scalar(
            "SELECT bool_or(rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR pg_has_role(oid, 'pg_monitor', 'MEMBER')
                            OR has_table_privilege(oid, 'public.secret', 'SELECT'))
                    OR to_regclass('public.mark') IS NOT NULL
             FROM pg_roles WHERE rolname = ANY ($1)",
        )
        .bind([&self.attacker_name, &self.reader])
        .fetch_one(&self.admin)
        .await
        .unwrap();
        assert!(!gained, "{name}: the attacker has gained rights");
        wait_until(&format!("{name}: every session that ran hostile code has ended"), async || {
            match sqlx::query_scalar::<_, i64>(MARK).fetch_one(&self.admin).await.unwrap() {
                0 => Ok(()),
                count => Err(format!("There are {count}.")),
            }
        })
        .await;
        let (_, state, file) = self
            .system
            .export(&json!({
                "format": "csv", "columns": [{"source": "id", "target": "id"}],
                "filters": [{"column": "name", "op": "!=", "value": "nobody"}],
            }))
            .await;
        assert_eq!(file.split(|byte| *byte == b'\n').count(), 102, "{name}: {state:#}");
        let settings = self.settings().await;
        for line in [
            "TimeZone,UTC",
            "\"DateStyle\",\"ISO, YMD\"",
            "statement_timeout,0",
            "default_transaction_read_only,on",
            "extra_float_digits,1",
            "bytea_output,hex",
            "search_path,\"pg_catalog, pg_temp\"",
        ] {
            let line = line.replace("\"DateStyle\"", "DateStyle");
            assert!(settings.contains(&line), "{name}: {line} is not in\n{settings}");
        }
    }

    /// The settings of the session that the next export is read in.
    async fn settings(&self) -> String {
        let mut body = export_request("csv", None, ["name", "setting"]);
        body["dataset"] = "settings".into();
        String::from_utf8(self.system.export(&body).await.2).unwrap()
    }

    /// Removes the roles, which belong to the whole server.
    async fn end(self) {
        let Self { mut system, admin, attacker, attacker_name, reader } = self;
        system.workers.clear();
        system.api = None;
        attacker.close().await.unwrap();
        let drop = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('{reader}', '{attacker_name}');
             DROP OWNED BY {attacker_name} CASCADE; DROP OWNED BY {reader} CASCADE"
        );
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&admin).await.unwrap();
    }
}

/// A function `payload()` that tries everything, and one that PostgreSQL believes to be immutable, so that the planner runs it.
/// What it has stolen is its result.
fn payload(attacker: &str) -> String {
    let attempts = [
        format!("ALTER ROLE {attacker} SUPERUSER"),
        format!("GRANT pg_monitor TO {attacker}"),
        format!("GRANT SELECT ON public.secret TO {attacker}"),
        "SET ROLE postgres".to_owned(),
        "SET SESSION AUTHORIZATION postgres".to_owned(),
        "SET TRANSACTION READ WRITE".to_owned(),
        "CREATE TABLE public.mark ()".to_owned(),
        "CREATE TEMP TABLE pg_class (oid oid)".to_owned(),
        "INSERT INTO public.records SELECT * FROM public.records".to_owned(),
        "COPY (SELECT 1) TO PROGRAM 'true'".to_owned(),
        "COPY (SELECT 1) TO '/tmp/mark'".to_owned(),
        "DEALLOCATE ALL".to_owned(),
        "PREPARE sqlx_s_1 AS SELECT 1".to_owned(),
        "LISTEN mark".to_owned(),
    ];
    let attempts: Vec<String> = attempts
        .iter()
        .map(|sql| format!("BEGIN EXECUTE $e${sql}$e$; EXCEPTION WHEN OTHERS THEN NULL; END;"))
        .collect();
    format!(
        "CREATE FUNCTION public.payload() RETURNS text LANGUAGE plpgsql VOLATILE AS $f$
         DECLARE stolen text := 'nothing';
         BEGIN
             -- The attacker's own rights prove nothing.
             IF SESSION_USER = '{attacker}' THEN RETURN 'own'; END IF;
             -- Shared, so that two sessions of one export do not wait for each other.
             PERFORM pg_catalog.pg_advisory_lock_shared(4711);
             PERFORM pg_catalog.set_config(name, value, false)
             FROM (VALUES ('search_path', 'public, pg_catalog'), ('TimeZone', 'Asia/Tokyo'), ('DateStyle', 'German'),
                          ('statement_timeout', '30s'), ('default_transaction_read_only', 'off'), ('extra_float_digits', '-15'),
                          ('bytea_output', 'escape')) AS evil(name, value);
             {}
             BEGIN SELECT word INTO stolen FROM public.secret; EXCEPTION WHEN OTHERS THEN NULL; END;
             BEGIN stolen := pg_catalog.pg_read_file('PG_VERSION') || '{SECRET}'; EXCEPTION WHEN OTHERS THEN NULL; END;
             RETURN stolen;
         END $f$;
         CREATE FUNCTION public.immutable_payload() RETURNS text LANGUAGE plpgsql IMMUTABLE AS
         $f$ BEGIN RETURN public.payload(); END $f$",
        attempts.join("\n")
    )
}

/// The body of a submission that filters on `column`.
fn body(dataset: &str, columns: &[&str], filter: (&str, &str, &str)) -> Value {
    let columns: Vec<Value> = columns.iter().map(|column| json!({"source": column, "target": column})).collect();
    let (column, op, value) = filter;
    json!({
        "format": "csv", "dataset": dataset, "columns": columns,
        "filters": [{"column": column, "op": op, "value": if op == "in" { json!([value, value]) } else { json!(value) }}],
    })
}
