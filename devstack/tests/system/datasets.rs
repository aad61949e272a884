//! Datasets and what a request selects from them: the `DATASETS` file, unusual names, every kind of relation, filters,
//! order, hidden columns, and the manifest. The rows of the files are compared with those of a few small tables.

use polyglot_devstack::scratch_dir::ScratchDir;
use polyglot_test_kit::{Setup, System, export_request};
use polyglot_test_servers::needs_servers;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

/// 63 bytes, the most that PostgreSQL keeps of a name.
const LONGEST: &str = "ein_sehr_langer_name_mit_umlauten_äöü_und_noch_mehr_zeicheny";

const FILE: &str = r#"
[[dataset]]
name = "sales"
relation = "shop.orders"
columns = ["total", "id", "placed", "not_there"]
order_by = [{ column = "total", direction = "desc" }]

[[dataset]]
name = "hidden key"
relation = "shop.orders"
columns = ["total", "note"]

[[dataset]]
name = "gone"
relation = "shop.no_such_table"

[[dataset]]
name = "misordered"
relation = "shop.orders"
order_by = ["no_such_column"]

[[dataset]]
name = "unsortable"
relation = "shop.typed"
order_by = ["j"]

[[dataset]]
relation = "shop.*"

[[dataset]]
relation = '"Odd Schema"."a""b.c"'
name = "odd"
"#;

const TABLES: &[&str] = &[
    "CREATE SCHEMA shop",
    "CREATE SCHEMA private",
    "CREATE TABLE private.secrets (id int)",
    "CREATE TABLE shop.orders (id int PRIMARY KEY, total numeric(10,2), placed date, note text)",
    "INSERT INTO shop.orders VALUES (1, 5, '2026-01-01', 'a'), (2, 20, '2026-02-01', 'b'), (3, 5, '2026-03-01', 'c')",
    "ANALYZE shop.orders",
    "CREATE VIEW shop.cheap AS SELECT id, total FROM shop.orders WHERE total < 10",
    "CREATE MATERIALIZED VIEW shop.totals AS SELECT placed, sum(total) AS sum FROM shop.orders GROUP BY placed",
    "CREATE TABLE shop.events (id int, region text, PRIMARY KEY (region, id)) PARTITION BY LIST (region)",
    "CREATE TABLE shop.events_eu PARTITION OF shop.events FOR VALUES IN ('eu')",
    "CREATE TABLE shop.events_us PARTITION OF shop.events FOR VALUES IN ('us')",
    "INSERT INTO shop.events VALUES (2, 'us'), (1, 'us'), (7, 'eu')",
    "CREATE TABLE shop.keyless (a int, b text)",
    "INSERT INTO shop.keyless VALUES (3, 'x'), (1, 'y'), (2, NULL)",
    "CREATE TYPE shop.mood AS ENUM ('sad', 'ok', 'happy')",
    "CREATE DOMAIN shop.positive AS int CHECK (VALUE > 0)",
    "CREATE TYPE shop.pair AS (x int, y text)",
    "CREATE TABLE shop.typed (id int PRIMARY KEY, i8 bigint, n numeric, f8 float8, b boolean, t text, c char(5),
         \"by\" bytea, d date, ts timestamp, tz timestamptz, tm time, iv interval, u uuid, jb jsonb, j json,
         e shop.mood, a int[], ja json[], r int4range, ip inet, dm shop.positive, pt point, pr shop.pair)",
    "INSERT INTO shop.typed VALUES
         (1, 9007199254740993, 0.1000000000000000055, 0.5, true, 'it''s 50%', 'ab', '\\x00ff', '2026-01-02',
          '2026-01-02 03:04:05.5', '2026-01-02 03:04:05+02', '03:04', '1 day 2 hours',
          '00000000-0000-0000-0000-000000000001', '{\"a\": [1]}', '{}', 'sad', '{1,NULL}', '{}', '[1,5)', '10.0.0.1', 1,
          '(1,2)', '(1,a)'),
         (2, 9007199254740992, 12345678901234567890123, 'NaN', false, 'back\\slash', 'cd', '\\x', '0044-03-15 BC',
          'infinity', '2026-01-02 01:04:05.000001Z', '24:00', '-3 mons', '00000000-0000-0000-0000-000000000002', 'null',
          '[]', 'happy', '{}', '{\"{}\"}', 'empty', '::1', 2, '(0,0)', '(,)')",
    "INSERT INTO shop.typed (id) VALUES (3)",
    "CREATE SCHEMA \"Odd Schema\"",
    "CREATE TABLE \"Odd Schema\".\"a\"\"b.c\" (\"select\" int PRIMARY KEY, \"Mixed Case\" text, \"üñí😀\" text,
         \"a\"\"b\" text, \"a'b\" text, \" \" text, \"ein_sehr_langer_name_mit_umlauten_äöü_und_noch_mehr_zeicheny\" text)",
    "INSERT INTO \"Odd Schema\".\"a\"\"b.c\" VALUES (2, 'm2', 'u2', 'q2', 's2', 'b2', 'l2'), (1, 'm1', 'u1', 'q1', 's1', 'b1', 'l1')",
    "CREATE TABLE shop.\"Ünïcode/Slash 1\" (\"order\" int PRIMARY KEY)",
    "INSERT INTO shop.\"Ünïcode/Slash 1\" VALUES (1)",
    "CREATE TABLE shop.\"..\" (id int PRIMARY KEY)",
    "CREATE TABLE shop.documents (id int PRIMARY KEY, jb jsonb, j json)",
    // The same document in both types; a json keeps what a jsonb refuses.
    "INSERT INTO shop.documents SELECT n, d::jsonb, d::json FROM (VALUES
         (1, '{\"customer\": {\"id\": 17, \"name\": \"Anna\", \"vip\": true}, \"tags\": [\"a\", \"b\"]}'),
         (2, '{\"customer\": {\"id\": \"17\", \"name\": \"anton\", \"vip\": \"true\"}, \"tags\": []}'),
         (3, '{\"customer\": {\"id\": 17.50, \"name\": \"O''Brien \\\\ \\\"x\\\"\", \"vip\": false}, \"tags\": [1]}'),
         (4, '{\"customer\": {\"id\": null, \"name\": 5, \"vip\": null}}'),
         (5, '{\"customer\": [17]}'), (6, '\"no object\"'), (7, 'null'), (8, NULL),
         (9, '{\"customer\": {\"id\": 12345678901234567890.5, \"name\": \"\", \"\": {\"it''s\": 1}}}')) AS rows (n, d)",
    r#"INSERT INTO shop.documents (id, j) VALUES
         (10, '{"customer": {"id": 17, "name": "nul \u0000", "half": "\ud83d", "low": "\ude00", "pair": "\ud83d\ude00"}}'),
         (11, '{"customer": {"id": 1e999999, "name": "\\u0000"}}')"#,
];

struct Shop {
    system: System,
    /// Holds the file that the api was started with.
    _files: ScratchDir,
}

impl Shop {
    /// Without a worker nothing gets further than being accepted.
    async fn open(worker: bool) -> Self {
        let files = ScratchDir::new("datasets-test").unwrap();
        let path = files.path().join("datasets.toml");
        std::fs::write(&path, FILE).unwrap();
        let env = [("DATASETS", path.to_str().unwrap())];
        let mut system = System::without_worker(Setup::new(0, &env)).await;
        for statement in TABLES {
            let made = sqlx::query(AssertSqlSafe(*statement)).execute(&system.pool).await;
            made.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
        system.wait_until_ready().await;
        if worker {
            system.add_worker();
        }
        Self { system, _files: files }
    }

    async fn dataset(&self, name: &str) -> Value {
        let answer = self.system.get(&format!("/datasets/{name}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{name}: {:?}", answer.text().await);
        answer.json().await.unwrap()
    }

    /// The lines of the file, without the header.
    async fn lines(&self, request: &Value) -> Vec<String> {
        let (_, _, file) = self.system.export(request).await;
        let file = String::from_utf8(file).unwrap();
        file.lines().skip(1).map(str::to_owned).collect()
    }

    /// The ids of the rows of `shop.typed` for which the filters hold.
    async fn typed(&self, filters: Value) -> Vec<String> {
        self.lines(&request("typed", &["id"], &json!({"filters": filters}))).await
    }
}

/// Request for a CSV file of these columns, with further members.
fn request(dataset: &str, columns: &[&str], more: &Value) -> Value {
    let mut request = export_request("csv", None, columns);
    request["dataset"] = dataset.into();
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// The fields that an answer of 400 names, and its body.
async fn refused(answer: Response) -> (Vec<String>, Value) {
    let status = answer.status();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body:#}");
    let errors = body["errors"].as_array().unwrap();
    (errors.iter().map(|error| error["field"].as_str().unwrap().to_owned()).collect(), body)
}

fn columns_of(dataset: &Value) -> Vec<&str> {
    dataset["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn datasets_are_what_the_file_and_the_catalog_say() {
    needs_servers!();
    let shop = Shop::open(false).await;
    assert_eq!(LONGEST.len(), 63);
    let list: Value = shop.system.get("/datasets").await.json().await.unwrap();
    let names: Vec<_> =
        list["datasets"].as_array().unwrap().iter().map(|dataset| dataset["name"].as_str().unwrap()).collect();
    // Partitions are part of their table; what is not there or cannot be used is left out.
    assert_eq!(
        names,
        [
            "..",
            "cheap",
            "documents",
            "events",
            "hidden key",
            "keyless",
            "odd",
            "orders",
            "sales",
            "totals",
            "typed",
            "unsortable",
            "Ünïcode/Slash 1"
        ]
        .map(str::to_owned)
    );

    let sales = shop.dataset("sales").await;
    assert_eq!(sales["relation"], "shop.orders");
    assert_eq!(sales["kind"], "table");
    assert_eq!(sales["estimatedRows"], 3);
    assert_eq!(sales["locked"], false);
    assert_eq!(sales["primaryKey"], json!(["id"]));
    assert_eq!(columns_of(&sales), ["id", "total", "placed"]);
    let order = json!([{"column": "total", "direction": "desc"}, {"column": "id", "direction": "asc"}]);
    assert_eq!(sales["defaultOrder"], order);
    assert_eq!(sales["orderPromised"], true);
    let total = &sales["columns"][1];
    assert_eq!((&total["type"], &total["nullable"]), (&json!("numeric(10,2)"), &json!(true)));
    assert_eq!(total["becomes"]["parquet"], "DECIMAL(10, 2)");
    assert_eq!(sales["columns"][0]["nullable"], false);
    assert_eq!(list["datasets"].as_array().unwrap().iter().find(|it| it["name"] == "sales"), Some(&sales));

    let hidden = shop.dataset("hidden%20key").await;
    assert_eq!(hidden["links"]["self"], "/datasets/hidden%20key");
    assert_eq!((&hidden["primaryKey"], &hidden["defaultOrder"]), (&json!([]), &json!([])));
    assert_eq!(hidden["orderPromised"], true);
    assert!(!hidden.to_string().contains("placed"), "{hidden:#}");

    for (name, kind, key) in [
        ("cheap", "view", json!([])),
        ("totals", "materialized view", json!([])),
        ("events", "partitioned table", json!(["region", "id"])),
        ("keyless", "table", json!([])),
    ] {
        let dataset = shop.dataset(name).await;
        assert_eq!((&dataset["kind"], &dataset["primaryKey"]), (&json!(kind), &key));
        assert_eq!(dataset["orderPromised"], !key.as_array().unwrap().is_empty(), "{name}");
    }
    // A client would make `/` of `/datasets/..`.
    let dots = list["datasets"].as_array().unwrap().iter().find(|dataset| dataset["name"] == "..").unwrap();
    let link = dots["links"]["self"].as_str().unwrap();
    let answer = shop.system.get(link).await;
    assert_eq!(answer.status(), StatusCode::OK, "{link}");
    assert_eq!(answer.json::<Value>().await.unwrap(), *dots);

    let typed = shop.dataset("typed").await;
    let becomes = |name: &str, format: &str| {
        let column = typed["columns"].as_array().unwrap().iter().find(|column| column["name"] == name).unwrap();
        column["becomes"][format].clone()
    };
    assert_eq!(becomes("a", "parquet"), "LIST<INT32>");
    assert_eq!(becomes("n", "parquet"), "STRING");
    assert_eq!(becomes("jb", "xml"), "nested elements");
    assert_eq!(becomes("pr", "json"), "string");

    for (name, status) in [("users", 404), ("secrets", 404), ("gone", 503), ("misordered", 503), ("a%00b", 404)] {
        let answer = shop.system.get(&format!("/datasets/{name}")).await;
        assert_eq!(answer.status().as_u16(), status, "{name}");
    }
    let log = shop.system.api.as_ref().unwrap().log();
    assert!(log.contains("not_there") && log.contains("no_such_column"), "{log}");
}

#[tokio::test]
async fn names_without_a_dataset_are_refused() {
    needs_servers!();
    let shop = Shop::open(false).await;
    for dataset in
        ["users", "secrets", "private.secrets", "shop.orders", "records", "ORDERS", "a\u{0}b", "orders\"; --"]
    {
        let (fields, _) = refused(shop.system.post(&request(dataset, &["id"], &json!({}))).await).await;
        assert_eq!(fields, ["dataset"], "{dataset}");
    }
    for dataset in ["gone", "misordered"] {
        let answer = shop.system.post(&request(dataset, &["id"], &json!({}))).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{dataset}");
        assert!(!answer.text().await.unwrap().contains("no_such"), "{dataset}");
    }
    // The benchmark exports `records`, which this file does not have; HEAD does not run it.
    assert_eq!(shop.system.get("/exports/benchmark").await.status(), StatusCode::NOT_FOUND);
    let head = shop.system.request(Method::HEAD, "/exports/benchmark").send().await.unwrap();
    assert_eq!((head.status(), head.headers()["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "GET"));
    assert_eq!(shop.system.count("SELECT count(*) FROM polyglot.exports").await, 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_stops_the_api() {
    needs_servers!();
    let mut system = System::without_worker(Setup::default()).await;
    let path = system.file("bad.toml");
    std::fs::write(&path, "[[dataset]]\nrelation = \"orders\"\n").unwrap();
    system.set("DATASETS", path.to_str().unwrap());
    system.start_api();
    let api = system.api.as_mut().unwrap();
    assert!(!api.wait_for_exit().await.success());
    assert!(api.log().contains("DATASETS: ") && api.log().contains("dataset[0].relation"), "{}", api.log());
}

#[tokio::test]
async fn every_kind_of_relation_is_exported() {
    needs_servers!();
    let shop = Shop::open(true).await;
    for (dataset, columns, lines) in [
        ("orders", &["id", "note"][..], &["1,a", "2,b", "3,c"][..]),
        // By the dataset's own order, ties by the key.
        ("sales", &["id", "total"], &["2,20.00", "1,5.00", "3,5.00"]),
        ("hidden key", &["note"], &["a", "b", "c"]),
        ("events", &["id", "region"], &["7,eu", "1,us", "2,us"]),
        ("Ünïcode/Slash 1", &["order"], &["1"]),
    ] {
        assert_eq!(shop.lines(&request(dataset, columns, &json!({}))).await, lines, "{dataset}");
    }
    // Without a key the order is not promised; the rows are.
    for (dataset, columns, lines) in [
        ("cheap", &["id", "total"][..], &["1,5.00", "3,5.00"][..]),
        ("totals", &["placed", "sum"], &["2026-01-01,5.00", "2026-02-01,20.00", "2026-03-01,5.00"]),
        ("keyless", &["a", "b"], &["1,y", "2,", "3,x"]),
    ] {
        let mut found = shop.lines(&request(dataset, columns, &json!({}))).await;
        found.sort();
        assert_eq!(found, lines, "{dataset}");
    }
}

#[tokio::test]
async fn odd_identifiers_work_everywhere() {
    needs_servers!();
    let shop = Shop::open(true).await;
    let odd = ["select", "Mixed Case", "üñí😀", "a\"b", "a'b", " ", LONGEST];
    // A name of one space is a column; in a submission it counts as empty.
    let usable: Vec<&str> = odd.into_iter().filter(|name| *name != " ").collect();
    assert_eq!(columns_of(&shop.dataset("odd").await), odd);
    let lines = shop.lines(&request("odd", &usable, &json!({}))).await;
    assert_eq!(lines, ["1,m1,u1,q1,s1,l1", "2,m2,u2,q2,s2,l2"]);
    for (at, name) in usable.iter().enumerate() {
        let value = lines[1].split(',').nth(at).unwrap();
        let filters = json!([{"column": name, "op": "=", "value": value}]);
        let order = json!([{"column": name, "direction": "desc"}]);
        let found = shop.lines(&request("odd", &["select"], &json!({"filters": filters, "orderBy": order}))).await;
        assert_eq!(found, ["2"], "{name}");
        let found = shop.lines(&request("odd", &["select"], &json!({"orderBy": order}))).await;
        assert_eq!(found, ["2", "1"], "{name}");
    }
}

#[tokio::test]
async fn filters_find_the_rows_that_postgres_would() {
    needs_servers!();
    let shop = Shop::open(true).await;
    let cases: &[(&str, &str, Value, &[&str])] = &[
        ("id", "=", json!(2), &["2"]),
        ("id", "!=", json!("2"), &["1", "3"]),
        ("id", "<", json!(3), &["1", "2"]),
        ("id", "<=", json!(2), &["1", "2"]),
        ("id", ">", json!(1), &["2", "3"]),
        ("id", ">=", json!(" 3 "), &["3"]),
        ("id", "in", json!([3, "1", 99]), &["1", "3"]),
        ("t", "is_null", Value::Null, &["3"]),
        ("t", "is_not_null", Value::Null, &["1", "2"]),
        // A composite of NULLs is a value.
        ("pr", "is_null", Value::Null, &["3"]),
        ("j", "is_not_null", Value::Null, &["1", "2"]),
        ("i8", "=", json!(9_007_199_254_740_993_i64), &["1"]),
        ("n", ">=", json!("1e22"), &["2"]),
        ("n", "<", json!("NaN"), &["1", "2"]),
        ("f8", "=", json!("NaN"), &["2"]),
        ("f8", "=", json!(0.5), &["1"]),
        ("b", "=", json!(true), &["1"]),
        ("b", "=", json!("no"), &["2"]),
        ("b", "!=", json!(true), &["2"]),
        ("t", "=", json!("it's 50%"), &["1"]),
        ("t", "like", json!("%50\\%"), &["1"]),
        ("t", "like", json!("back\\\\sl%"), &["2"]),
        ("t", "like", json!("IT%"), &[]),
        ("t", "ilike", json!("IT%"), &["1"]),
        ("t", "in", json!(["it's 50%", "back\\slash"]), &["1", "2"]),
        ("c", "=", json!("ab"), &["1"]),
        ("by", "=", json!("\\x00FF"), &["1"]),
        ("d", "=", json!("2026-01-02"), &["1"]),
        ("d", "<", json!("0001-01-01"), &["2"]),
        ("ts", "=", json!("2026-01-02T03:04:05.500"), &["1"]),
        ("ts", ">", json!("294276-12-31"), &["2"]),
        ("tz", "=", json!("2026-01-02T01:04:05Z"), &["1"]),
        // Without a zone it is UTC, whatever the server's own zone.
        ("tz", "=", json!("2026-01-02 01:04:05.000001"), &["2"]),
        ("tm", "=", json!("24:00"), &["2"]),
        ("iv", "=", json!("P1DT2H"), &["1"]),
        ("u", "in", json!(["00000000-0000-0000-0000-000000000002"]), &["2"]),
        ("jb", "=", json!("{\"a\":[1]}"), &["1"]),
        ("e", "=", json!("happy"), &["2"]),
        ("e", "<", json!("ok"), &["1"]),
        ("a", "=", json!("{1,NULL}"), &["1"]),
        ("a", "in", json!(["{}"]), &["2"]),
        ("r", "=", json!("[1,4]"), &["1"]),
        ("ip", "=", json!("::1"), &["2"]),
        ("dm", ">", json!(1), &["2"]),
    ];
    for (column, op, value, ids) in cases {
        let mut filter = json!({"column": column, "op": op});
        if !value.is_null() {
            filter["value"] = value.clone();
        }
        assert_eq!(shop.typed(json!([filter])).await, *ids, "{filter}");
    }
    // All of them must hold.
    let both = json!([{"column": "id", "op": ">", "value": 1}, {"column": "b", "op": "is_not_null"}]);
    assert_eq!(shop.typed(both).await, ["2"]);

    // Digits as the client writes them, which a double does not hold.
    for (number, ids) in [("0.1000000000000000055", &["1"][..]), ("0.1", &[]), ("12345678901234567890123", &["2"])] {
        let body = format!(
            r#"{{"format": "csv", "dataset": "typed", "columns": [{{"source": "id", "target": "id"}}],
                "filters": [{{"column": "n", "op": "=", "value": {number}}}]}}"#
        );
        let send = shop.system.request(Method::POST, "/exports").header("content-type", "application/json").body(body);
        let answer: Value = send.send().await.unwrap().json().await.unwrap();
        let id = answer["exportId"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
        shop.system.wait_until_completed(id).await;
        let file = String::from_utf8(shop.system.download(id).await).unwrap();
        assert_eq!(file.lines().skip(1).collect::<Vec<_>>(), ids, "{number}");
    }
}

#[tokio::test]
async fn a_filter_looks_into_json_at_a_path_and_compares_by_type() {
    needs_servers!();
    let shop = Shop::open(true).await;
    let (id, name, vip) = (json!(["customer", "id"]), json!(["customer", "name"]), json!(["customer", "vip"]));
    // The ids of the rows, and those that only the column of type json has.
    type Case<'a> = (&'a Value, &'a str, Value, &'a [&'a str], &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&id, "=", json!(17), &["1"], &["10"]),
        (&id, "=", json!("17"), &["2"], &[]),
        (&id, "!=", json!(17), &["3", "9"], &[]),
        (&id, "!=", json!("18"), &["2"], &[]),
        (&id, ">", json!(17), &["3", "9"], &[]),
        (&id, "<=", json!(17.5), &["1", "3"], &["10"]),
        (&id, "in", json!([17, "17", 99]), &["1", "2"], &["10"]),
        (&id, "is_null", Value::Null, &["4", "5", "6", "7", "8"], &[]),
        (&id, "is_not_null", Value::Null, &["1", "2", "3", "9"], &["10", "11"]),
        (&name, "=", json!("O'Brien \\ \"x\""), &["3"], &[]),
        (&json!(["tags", "0"]), "<", json!("b"), &["1"], &[]),
        (&name, "like", json!("A%"), &["1"], &[]),
        (&name, "ilike", json!("A%"), &["1", "2"], &[]),
        (&name, "like", json!("%\\\\u0000"), &[], &["11"]),
        (&name, "=", json!("5"), &[], &[]),
        (&name, "=", json!(5), &["4"], &[]),
        (&vip, "=", json!(true), &["1"], &[]),
        (&vip, "!=", json!(true), &["3"], &[]),
        (&vip, "in", json!([true, false]), &["1", "3"], &[]),
        (&json!(["tags", "0"]), "=", json!("a"), &["1"], &[]),
        (&json!(["tags", "-1"]), "in", json!(["b", 1]), &["1", "3"], &[]),
        (&json!(["customer", "", "it's"]), "=", json!(1), &["9"], &[]),
        (&json!(["customer", "pair"]), "=", json!("😀"), &[], &["10"]),
        (&json!(["customer"]), "=", json!("a"), &[], &[]),
        (&json!(["'; DROP TABLE shop.documents; --"]), "=", json!("\\' OR true --"), &[], &[]),
    ];
    for (path, op, value, ids, json_alone) in cases {
        for column in ["jb", "j"] {
            let mut filter = json!({"column": column, "path": path, "op": op});
            if !value.is_null() {
                filter["value"] = value.clone();
            }
            // The last two rows have no value in the column of type jsonb.
            let others = if column == "jb" {
                json!({"column": "id", "op": "<", "value": 10})
            } else {
                json!({"column": "id", "op": ">", "value": 0})
            };
            let filters = json!([filter, others]);
            let found = shop.lines(&request("documents", &["id"], &json!({"filters": filters}))).await;
            let expected: Vec<&str> = ids.iter().chain(*json_alone).copied().collect();
            assert_eq!(found, if column == "j" { &expected[..] } else { ids }, "{filters}");
        }
    }
    // Digits that a double does not hold, in the request and in the manifest.
    let filters = json!({"filters": [{"column": "jb", "path": ["customer", "id"], "op": ">=", "value": 17}]});
    let (export, _, _) = shop.system.export(&request("documents", &["id"], &filters)).await;
    assert_eq!(shop.system.manifest(&export).await["filters"], filters["filters"]);
    let body = r#"{"format": "csv", "dataset": "documents", "columns": [{"source": "id", "target": "id"}],
        "filters": [{"column": "jb", "path": ["customer", "id"], "op": "=", "value": 12345678901234567890.50}]}"#;
    let send = shop.system.request(Method::POST, "/exports").header("content-type", "application/json").body(body);
    let answer: Value = send.send().await.unwrap().json().await.unwrap();
    let export = answer["exportId"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
    shop.system.wait_until_completed(export).await;
    assert_eq!(shop.system.download(export).await, b"id\n9\n");
    // A preview filters alike.
    let preview = shop.system.request(Method::POST, "/exports/preview").json(&request("documents", &["id"], &filters));
    let preview: Value = preview.send().await.unwrap().json().await.unwrap();
    assert_eq!(preview["rows"], json!([["1"], ["3"], ["9"]]), "{preview:#}");
}

#[tokio::test]
async fn a_path_is_for_json_and_its_mistakes_are_named() {
    needs_servers!();
    let shop = Shop::open(false).await;
    for (filter, field, words) in [
        (json!({"column": "id", "path": ["a"], "op": "=", "value": 1}), "path", "json and jsonb, not for type integer"),
        (json!({"column": "j", "path": [], "op": "=", "value": 1}), "path", "leave path out"),
        (json!({"column": "j", "path": ["a"], "op": "like", "value": 1}), "value", "expected a string"),
        (json!({"column": "j", "path": ["a"], "op": "<", "value": true}), "value", "for numbers and strings"),
    ] {
        let (fields, body) =
            refused(shop.system.post(&request("documents", &["id"], &json!({"filters": [filter]}))).await).await;
        assert_eq!(fields, [format!("filters[0].{field}")], "{filter}: {body:#}");
        assert!(body["errors"][0]["message"].as_str().unwrap().contains(words), "{body:#}");
    }
}

#[tokio::test]
async fn a_date_is_refused_for_its_form_or_for_its_range() {
    needs_servers!();
    let shop = Shop::open(false).await;
    for (column, value, message) in [
        ("d", "31.12.2024", "\"31.12.2024\" is not a value of type date; dates have the form 2024-12-31"),
        ("d", "2026-02-30", "\"2026-02-30\" is not a value of type date; dates have the form 2024-12-31"),
        ("d", "9999999-01-01", "\"9999999-01-01\" is out of the range of type date"),
        (
            "ts",
            "31.12.2024 10:00",
            "\"31.12.2024 10:00\" is not a value of type timestamp without time zone; dates have the form 2024-12-31",
        ),
        ("ts", "300000-01-01", "\"300000-01-01\" is out of the range of type timestamp without time zone"),
        ("tm", "25:00", "\"25:00\" is not a value of type time without time zone"),
    ] {
        let filters = json!({"filters": [{"column": column, "op": "=", "value": value}]});
        let (fields, body) = refused(shop.system.post(&request("typed", &["id"], &filters)).await).await;
        assert_eq!(fields, ["filters[0].value"]);
        assert_eq!(body["errors"][0]["message"], message);
    }
}

#[tokio::test]
async fn nulls_and_a_byte_order_mark_are_as_if_they_were_not_there() {
    needs_servers!();
    let shop = Shop::open(true).await;
    let body = "\u{FEFF}{\"format\": \"csv\", \"dataset\": \"orders\", \"columns\": [{\"source\": \"id\", \"target\": \"id\"}],
        \"compression\": null, \"parallelism\": null, \"layout\": null, \"coalesce\": null,
        \"orderBy\": [{\"column\": \"id\", \"direction\": null}], \"options\": {\"delimiter\": null, \"profile\": null},
        \"filters\": [{\"column\": \"total\", \"op\": \"=\", \"value\": 5.0, \"path\": null}]}";
    let send = shop.system.request(Method::POST, "/exports").header("content-type", "application/json").body(body);
    let answer: Value = send.send().await.unwrap().json().await.unwrap();
    let export = answer["exportId"].as_str().unwrap_or_else(|| panic!("{answer:#}"));
    shop.system.wait_until_completed(export).await;
    assert_eq!(shop.system.download(export).await, b"id\n1\n3\n");
}

#[tokio::test]
async fn the_manifest_says_where_the_moment_is_not_promised() {
    needs_servers!();
    let shop = Shop::open(true).await;
    for statement in [
        "CREATE FUNCTION private.total_of(int) RETURNS numeric LANGUAGE sql STABLE AS
             'SELECT total FROM shop.orders WHERE id = $1'",
        "CREATE FUNCTION private.doubled(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'",
        "CREATE FUNCTION private.is_known(int, int) RETURNS boolean LANGUAGE sql STABLE AS
             'SELECT EXISTS (SELECT FROM shop.orders WHERE id = $1 + $2)'",
        "CREATE OPERATOR private.=?= (LEFTARG = int, RIGHTARG = int, FUNCTION = private.is_known)",
        "CREATE VIEW shop.of_tables AS SELECT id, now() AS at, lower(note) AS note, private.doubled(total) AS d FROM shop.orders",
        "CREATE VIEW shop.of_function AS SELECT n AS id, private.total_of(n) AS total FROM generate_series(1, 3) AS n",
        "CREATE VIEW shop.of_view AS SELECT id FROM (SELECT * FROM shop.of_function) AS inner_view",
        "CREATE VIEW shop.of_operator AS SELECT n AS id FROM generate_series(1, 2) AS n WHERE n OPERATOR(private.=?=) 0",
        "CREATE MATERIALIZED VIEW shop.stored AS SELECT * FROM shop.of_function",
        "CREATE VIEW shop.of_stored AS SELECT * FROM shop.stored",
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(&shop.system.pool).await.unwrap();
    }
    for (dataset, promised) in [
        ("orders", true),
        ("events", true),
        ("of_tables", true),
        ("stored", true),
        ("of_stored", true),
        ("of_function", false),
        ("of_view", false),
        ("of_operator", false),
    ] {
        let (export, _, _) = shop.system.export(&request(dataset, &["id"], &json!({}))).await;
        assert_eq!(shop.system.manifest(&export).await["snapshot"]["promised"], promised, "{dataset}");
    }
}

/// What is listed is what PostgreSQL has: the operators of each column, and no others.
#[tokio::test]
async fn the_operators_of_a_column_are_those_that_it_can_be_filtered_with() {
    needs_servers!();
    let shop = Shop::open(false).await;
    let named = |operators: &Value, op: &str| operators.as_array().unwrap().contains(&json!(op));
    // Of these the service knows the text alone, and lists more than the server may have.
    let unknown = ["e", "iv", "r", "ip", "pt", "pr", "ja"];
    let every = ["=", "!=", "<", "<=", ">", ">=", "in", "is_null", "is_not_null", "like", "ilike"];
    for column in shop.dataset("typed").await["columns"].as_array().unwrap() {
        let (name, takes_path) =
            (column["name"].as_str().unwrap(), ["j", "jb"].contains(&column["name"].as_str().unwrap()));
        assert_eq!(
            column["pathOperators"].as_array().unwrap().len(),
            if takes_path { every.len() } else { 0 },
            "{name}"
        );
        let text = format!(r#"SELECT format('%s', "{name}") FROM shop.typed WHERE id = 1"#);
        let text: String = sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&shop.system.pool).await.unwrap();
        for op in every {
            let (value, sql) = match op {
                "is_null" => (Value::Null, format!(r#""{name}" IS NULL"#)),
                "is_not_null" => (Value::Null, format!(r#""{name}" IS NOT NULL"#)),
                "in" => (json!([text]), format!(r#""{name}" IN ('{}')"#, text.replace('\'', "''"))),
                _ => (json!(text), format!(r#""{name}" {op} '{}'"#, text.replace('\'', "''"))),
            };
            let filter = json!({"column": name, "op": op, "value": value});
            let listed = named(&column["operators"], op);
            let body = request("typed", &["id"], &json!({"filters": [filter]}));
            let answer = shop.system.request(Method::POST, "/exports/preview").json(&body).send().await.unwrap();
            let planned = sqlx::query(AssertSqlSafe(format!("EXPLAIN SELECT FROM shop.typed WHERE {sql}")))
                .execute(&shop.system.pool)
                .await;
            if !listed {
                assert_eq!(refused(answer).await.0, ["filters[0].op"], "{filter}");
                // bytea has a LIKE with patterns of its own; of arrays PostgreSQL finds out at the first row that its items have none.
                let is_known = (name == "by" && op.ends_with("like")) || name == "ja";
                assert!(planned.is_err() || is_known, "{filter} is not listed, and PostgreSQL has it");
            } else if !unknown.contains(&name) {
                assert_eq!(answer.status(), StatusCode::OK, "{filter}: {:?}", answer.text().await);
            }
        }
    }
}

#[tokio::test]
async fn a_filter_that_does_not_fit_its_column_is_refused_by_field() {
    needs_servers!();
    let shop = Shop::open(false).await;
    let many: Vec<String> = (0..1000).map(|at| if at == 777 { "x".to_owned() } else { at.to_string() }).collect();
    let cases = [
        ("id", "=", json!("abc"), "value"),
        ("id", "=", json!(1.5), "value"),
        ("id", "=", json!(""), "value"),
        ("id", "<", json!(99_999_999_999_i64), "value"),
        ("id", "in", json!([1, 2, "x", "y"]), "value[2]"),
        ("id", "in", json!(many), "value[777]"),
        ("id", "like", json!("1%"), "op"),
        ("b", "=", json!("perhaps"), "value"),
        ("d", "=", json!("2026-02-30"), "value"),
        ("d", "=", json!("yesterdayish"), "value"),
        ("ts", ">", json!("24 o'clock"), "value"),
        ("u", "=", json!("1"), "value"),
        ("jb", "=", json!("{"), "value"),
        ("e", "=", json!("HAPPY"), "value"),
        ("a", "=", json!("1,2"), "value"),
        ("r", "=", json!("[5,1]"), "value"),
        ("ip", "=", json!("10.0.0.256"), "value"),
        ("dm", "=", json!("one"), "value"),
        ("by", "=", json!("\\xZZ"), "value"),
        ("by", "like", json!("a"), "op"),
        ("d", "like", json!("2026%"), "op"),
        ("e", "like", json!("h%"), "op"),
        ("j", "=", json!("{}"), "op"),
        ("j", "in", json!(["{}"]), "op"),
        ("ja", "=", json!("{}"), "op"),
        ("ja", "<", json!("{}"), "op"),
        ("pt", "<", json!("(1,2)"), "op"),
        ("pr", "=", json!("(1,a)"), "op"),
        ("b", "=", json!(null), "value"),
        ("nope", "=", json!(1), "column"),
        ("id\" = 1 OR r.\"id", "=", json!(1), "column"),
    ];
    for (column, op, value, part) in cases {
        let filters = json!([{"column": "id", "op": ">", "value": 0}, {"column": column, "op": op, "value": value}]);
        let (fields, body) =
            refused(shop.system.post(&request("typed", &["id"], &json!({"filters": filters}))).await).await;
        assert_eq!(fields, [format!("filters[1].{part}")], "{filters}: {body:#}");
    }
    // Every mistake at once, those of the database beside the others.
    let all = request(
        "typed",
        &["id", "nope"],
        &json!({
            "format": "yaml",
            "filters": [{"column": "id", "op": "=", "value": "abc"}, {"column": "d", "op": "=", "value": "abc"}],
            "orderBy": ["id", "j", {"column": "pt"}, "ja"],
            "options": {"delimiter": "a", "colour": "red"},
        }),
    );
    let (mut fields, _) = refused(shop.system.post(&all).await).await;
    fields.sort();
    let expected = [
        "columns[1].source",
        "filters[0].value",
        "filters[1].value",
        "format",
        "options.colour",
        "options.delimiter",
        "orderBy[1].column",
        "orderBy[2].column",
        "orderBy[3].column",
    ];
    assert_eq!(fields, expected);
    // The operator's order is the operator's mistake.
    let answer = shop
        .system
        .post(&request("unsortable", &["id"], &json!({"filters": [{"column": "id", "op": "=", "value": 1}]})))
        .await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.system.count("SELECT count(*) FROM polyglot.exports").await, 0);
}

#[tokio::test]
async fn a_hostile_value_stays_a_value() {
    needs_servers!();
    let shop = Shop::open(true).await;
    let hostile = [
        "'; DROP TABLE shop.typed; --",
        "' OR '1'='1",
        "\\' OR 1=1 --",
        "\\",
        "x\\'; DROP TABLE shop.typed; --",
        "$$; DROP TABLE shop.typed; $$",
        "a\u{1}\n\r\t\u{7f}",
        "\u{2019} \u{ff07} \u{2bc}",
        "' || (SELECT string_agg(id::text, '') FROM private.secrets) || '",
        "*/ OR true /*",
        "E'\\\\'",
        "%s %n {0} :id ?1 $1",
    ];
    for value in hostile {
        sqlx::query("UPDATE shop.typed SET t = $1 WHERE id = 2").bind(value).execute(&shop.system.pool).await.unwrap();
        let filter = |op: &str, value: Value| json!([{"column": "t", "op": op, "value": value}]);
        assert_eq!(shop.typed(filter("=", json!(value))).await, ["2"], "{value}");
        assert_eq!(shop.typed(filter("in", json!([value, "other"]))).await, ["2"], "{value}");
        // As text of another type it is no value.
        let filters = json!({"filters": [{"column": "id", "op": "=", "value": value}]});
        let (fields, _) = refused(shop.system.post(&request("typed", &["id"], &filters)).await).await;
        assert_eq!(fields, ["filters[0].value"], "{value}");
    }
    let filters = json!({"filters": [{"column": "t", "op": "=", "value": "a\u{0}b"}]});
    assert_eq!(refused(shop.system.post(&request("typed", &["id"], &filters)).await).await.0, ["filters[0].value"]);
    assert_eq!(shop.system.count("SELECT count(*) FROM shop.typed").await, 3);
}

#[tokio::test]
async fn rows_come_in_the_order_that_was_asked_for() {
    needs_servers!();
    let shop = Shop::open(true).await;
    for (dataset, order, ids) in [
        ("orders", json!([]), &["1", "2", "3"][..]),
        ("orders", json!([{"column": "id", "direction": "desc"}]), &["3", "2", "1"]),
        ("orders", json!(["total"]), &["1", "3", "2"]),
        (
            "orders",
            json!([{"column": "total", "direction": "asc"}, {"column": "id", "direction": "desc"}]),
            &["3", "1", "2"],
        ),
        ("orders", json!([{"column": "total", "direction": "desc"}, "placed"]), &["2", "1", "3"]),
        ("sales", json!(["placed"]), &["1", "2", "3"]),
        // NULL is last, and first where the order is turned round, as in PostgreSQL.
        ("typed", json!(["b"]), &["2", "1", "3"]),
        ("typed", json!([{"column": "b", "direction": "desc"}]), &["3", "1", "2"]),
    ] {
        let found = shop.lines(&request(dataset, &["id"], &json!({"orderBy": order}))).await;
        assert_eq!(found, ids, "{dataset} by {order}");
    }
    let keyless =
        shop.lines(&request("keyless", &["b"], &json!({"orderBy": [{"column": "a", "direction": "desc"}]}))).await;
    assert_eq!(keyless, ["x", "", "y"]);
}

#[tokio::test]
async fn hidden_columns_do_not_exist_for_clients() {
    needs_servers!();
    let shop = Shop::open(false).await;
    for (more, field) in [
        (json!({"columns": [{"source": "note", "target": "note"}]}), "columns[0].source"),
        (json!({"filters": [{"column": "note", "op": "=", "value": "a"}]}), "filters[0].column"),
        (json!({"filters": [{"column": "note", "op": "is_null"}]}), "filters[0].column"),
        (json!({"orderBy": ["note"]}), "orderBy[0].column"),
    ] {
        let (fields, body) = refused(shop.system.post(&request("sales", &["id"], &more)).await).await;
        assert_eq!(fields, [field], "{more}");
        // The same text as for a column that does not exist.
        assert_eq!(body["errors"][0]["message"], "there is no column \"note\"; there is id, total, placed");
    }
    assert!(!shop.dataset("sales").await.to_string().contains("note"));
}

#[tokio::test]
async fn a_manifest_says_what_the_file_holds() {
    needs_servers!();
    let mut shop = Shop::open(false).await;
    let wanted = json!({
        "compression": "zstd",
        "filters": [{"column": "id", "op": "in", "value": [1, 2]}],
        "orderBy": [{"column": "note", "direction": "desc"}],
        "options": {"profile": "spreadsheet", "delimiter": ";"},
    });
    let mut wanted = request("orders", &["note"], &wanted);
    wanted["columns"][0]["target"] = json!("Note");
    let id = shop.system.submit_request(&wanted).await;
    let path = format!("/exports/{id}/manifest");
    let early = shop.system.get(&path).await;
    assert_eq!(early.status(), StatusCode::CONFLICT);
    assert!(early.headers().contains_key("retry-after"));
    let early: Value = early.json().await.unwrap();
    assert_eq!(early["type"], "urn:polyglot:problem:export-not-finished");
    assert!(shop.system.state(&id).await["links"]["manifest"].is_null());
    let cancelled = shop.system.submit_request(&wanted).await;
    shop.system.delete(&cancelled).await;
    shop.system.add_worker();
    shop.system.wait_until_ended(&cancelled).await;
    assert_eq!(shop.system.get(&format!("/exports/{cancelled}/manifest")).await.status(), StatusCode::GONE);

    let state = shop.system.wait_until_completed(&id).await;
    assert_eq!(state["links"]["manifest"], path.as_str());
    let file = shop.system.download(&id).await;
    let manifest: Value = shop.system.get(&path).await.json().await.unwrap();
    for (member, value) in [
        ("exportId", json!(id)),
        ("dataset", json!("orders")),
        ("format", json!("csv")),
        ("compression", json!("zstd")),
        ("filters", json!([{"column": "id", "op": "in", "value": ["1", "2"]}])),
        (
            "options",
            json!({"onUnrepresentable": "fail", "profile": "spreadsheet", "delimiter": ";", "decimal": ".", "header": true, "null": "",
                "bom": true, "lineEnding": "crlf"}),
        ),
        ("rows", json!(2)),
        ("bytes", json!(file.len())),
        ("replaced", json!([])),
        (
            "order",
            json!({"by": [{"column": "note", "direction": "desc"}, {"column": "id", "direction": "asc"}], "promised": true}),
        ),
    ] {
        assert_eq!(manifest[member], value, "{member} of {manifest:#}");
    }
    let column = &manifest["columns"][0];
    assert_eq!(
        (&column["name"], &column["source"], &column["sourceType"]),
        (&json!("Note"), &json!("note"), &json!("text"))
    );
    assert!(
        manifest["snapshot"]["time"].is_string() && manifest["snapshot"]["walPosition"].is_string(),
        "{manifest:#}"
    );
    let parts = manifest["parts"].as_array().unwrap();
    assert_eq!(
        parts.iter().map(|part| part["bytes"].as_i64().unwrap()).sum::<i64>(),
        i64::try_from(file.len()).unwrap()
    );

    // The key is there to break ties, but clients of this dataset do not know of it.
    let hidden = shop.system.submit_request(&request("hidden key", &["note"], &json!({}))).await;
    shop.system.wait_until_completed(&hidden).await;
    let manifest: Value = shop.system.get(&format!("/exports/{hidden}/manifest")).await.json().await.unwrap();
    assert_eq!(manifest["order"], json!({"by": [], "promised": true}));

    // The manifest outlives the file.
    shop.system.delete(&id).await;
    assert_eq!(shop.system.state(&id).await["status"], "expired");
    assert_eq!(shop.system.get(&path).await.status(), StatusCode::OK);
    // An export that was completed before there were manifests has none.
    sqlx::query("UPDATE polyglot.exports SET manifest = NULL").execute(&shop.system.pool).await.unwrap();
    let missing = shop.system.get(&path).await;
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    assert_eq!(missing.json::<Value>().await.unwrap()["type"], "urn:polyglot:problem:no-manifest");
}

/// The documents of a list by name, and how long the answer took.
async fn list(system: &System) -> (std::collections::BTreeMap<String, Value>, std::time::Duration) {
    let asked = std::time::Instant::now();
    let answer = system.get("/datasets").await;
    assert_eq!(answer.status(), StatusCode::OK, "{}", answer.text().await.unwrap());
    let list: Value = answer.json().await.unwrap();
    let datasets = list["datasets"].as_array().unwrap().iter();
    (datasets.map(|it| (it["name"].as_str().unwrap().to_owned(), it.clone())).collect(), asked.elapsed())
}

#[tokio::test]
async fn a_locked_table_hides_no_other_and_says_that_it_is_locked() {
    needs_servers!();
    let files = ScratchDir::new("locked").unwrap();
    let path = files.path().join("datasets.toml");
    std::fs::write(&path, "[[dataset]]\nrelation = \"public.*\"\n").unwrap();
    let env = [("DATASETS", path.to_str().unwrap())];
    let system = System::start(Setup::new(10, &env)).await;
    for statement in [
        "CREATE TABLE plain (id int PRIMARY KEY, t text)",
        "INSERT INTO plain VALUES (1, 'a')",
        "CREATE VIEW above AS SELECT id FROM plain",
        "CREATE TABLE parent (id int PRIMARY KEY) PARTITION BY LIST (id)",
        "CREATE TABLE child PARTITION OF parent FOR VALUES IN (1)",
    ] {
        sqlx::query(statement).execute(&system.pool).await.unwrap();
    }
    let columns = json!([{"source": "id", "target": "id"}]);
    let request = |dataset: &str| json!({"dataset": dataset, "format": "csv", "columns": columns.clone()});
    for (lock, locked) in [("plain", "plain"), ("child", "parent")] {
        let mut holder = system.pool.begin().await.unwrap();
        let statement = format!("LOCK TABLE {lock} IN ACCESS EXCLUSIVE MODE");
        sqlx::query(AssertSqlSafe(statement)).execute(&mut *holder).await.unwrap();
        let (datasets, took) = list(&system).await;
        // Not after a time limit for locks.
        assert!(took < std::time::Duration::from_millis(900), "{took:?}");
        for (name, dataset) in &datasets {
            assert_eq!(dataset["locked"], name == locked, "{dataset:#}");
            assert!(!dataset["columns"].as_array().unwrap().is_empty(), "{dataset:#}");
        }
        assert!(datasets.contains_key("records") && datasets.contains_key(locked), "{datasets:#?}");
        // Others are exported meanwhile, and this one says why it is not.
        system.export(&request("records")).await;
        let mut refused = vec![system.post(&request(locked)).await];
        if locked == "plain" {
            // The view is not locked itself; planning its query is what waits.
            let filtered = json!({"dataset": "above", "format": "csv", "columns": columns.clone(),
                                  "filters": [{"column": "id", "op": "=", "value": 1}]});
            refused.push(system.post(&filtered).await);
        }
        for answer in refused {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers().contains_key("retry-after"));
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["type"], "urn:polyglot:problem:dataset-locked", "{problem:#}");
        }
        // A lock that is held for a moment is waited for.
        let release = async {
            tokio::time::sleep(std::time::Duration::from_millis(700)).await;
            holder.rollback().await.unwrap();
        };
        let request = request(locked);
        let (answer, ()) = tokio::join!(system.post(&request), release);
        assert_eq!(answer.status(), StatusCode::CREATED, "{}", answer.text().await.unwrap());
        assert!(list(&system).await.0.values().all(|dataset| dataset["locked"] == false));
    }
    // One that is only waited for keeps new readers out as well, but not the worker that reads already.
    let mut reader = system.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM plain").execute(&mut *reader).await.unwrap();
    let pool = system.pool.clone();
    let waiting = tokio::spawn(async move { sqlx::query("TRUNCATE plain").execute(&pool).await });
    polyglot_test_kit::wait_until("the lock is waited for", async || {
        system.count("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'plain'::regclass").await == 1
    })
    .await;
    let (datasets, took) = list(&system).await;
    assert!(took < std::time::Duration::from_millis(900), "{took:?}");
    assert_eq!(datasets["plain"]["locked"], true);
    reader.rollback().await.unwrap();
    waiting.await.unwrap().unwrap();
}
