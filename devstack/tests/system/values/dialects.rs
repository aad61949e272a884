//! The options of each format: what they change, read back by others, and that nothing is lost or confused by them.

use polyglot_test_kit::{Setup, System};
use polyglot_test_servers::needs_servers;
use serde_json::{Value, json};

use crate::python::run_line;

/// Values that a dialect could confuse: text that looks like NULL, like a delimiter, like a formula, like a number.
const TRICKY: &str = r#"
    DROP TABLE public.records;
    CREATE TABLE public.records (id bigint PRIMARY KEY, t text, n numeric, m money, i interval, j jsonb, a text[]);
    INSERT INTO public.records VALUES
        (1, 'plain', 1.50, '-5', '-1 day', '-7', '{=1}'),
        (2, '', 'NaN', '7', '1 day', '"=1"', '{}'),
        (3, NULL, NULL, NULL, NULL, NULL, NULL),
        (4, 'NULL', -1, '0', '00:00', 'null', '{NULL,"NULL"}'),
        (5, '=1+cmd|''/c calc''!A0', 1e30, '1', '1 mon', '{"a": "=1"}', '{"a;b"}'),
        (6, E'-2\r\n"x";y|z\t,', 0, '1', '1 mon', '[]', '{}'),
        (7, '@sum', 7, '1', '1 mon', '[]', '{}'),
        (9223372036854775807, '\N', 0.1, '1', '1 mon', '[]', '{}')"#;

async fn tricky() -> System {
    let system = System::start(Setup::default()).await;
    sqlx::raw_sql(TRICKY).execute(&system.pool).await.unwrap();
    system
}

/// The file of `columns`, and the export's id.
async fn exported(system: &System, format: &str, columns: &[&str], options: Value) -> (String, Vec<u8>) {
    let columns: Vec<Value> = columns.iter().map(|name| json!({"source": name, "target": name})).collect();
    super::exported(system, &json!({"format": format, "columns": columns, "options": options})).await
}

#[tokio::test]
async fn every_dialect_of_csv_is_loaded_back_by_postgres() {
    needs_servers!();
    let system = tricky().await;
    for (options, copy) in [
        (json!({"delimiter": ";"}), "HEADER, DELIMITER ';'"),
        (json!({"delimiter": "\t", "header": false}), r"DELIMITER E'\t'"),
        (json!({"delimiter": "|", "null": "NULL"}), "HEADER, DELIMITER '|', NULL 'NULL'"),
        (json!({"null": "\\N", "lineEnding": "crlf"}), r"HEADER, NULL '\N'"),
        (json!({"null": "0"}), "HEADER, NULL '0'"),
        (json!({"delimiter": "'", "null": "-"}), "HEADER, DELIMITER '''', NULL '-'"),
    ] {
        let columns = ["id", "t", "n", "m", "i", "j", "a"];
        let (_, file) = exported(&system, "csv", &columns, options.clone()).await;
        let mut connection = system.pool.acquire().await.unwrap();
        sqlx::raw_sql("DROP TABLE IF EXISTS reloaded; CREATE TABLE reloaded (LIKE public.records)")
            .execute(&mut *connection)
            .await
            .unwrap();
        let statement = format!("COPY reloaded FROM STDIN (FORMAT csv, {copy})");
        let mut load = connection.copy_in_raw(&statement).await.unwrap();
        load.send(&file[..]).await.unwrap();
        load.finish().await.unwrap_or_else(|error| panic!("{options}: {error}\n{}", String::from_utf8_lossy(&file)));
        let different: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM (
                 (SELECT id, t, n::text, m, i, j, a FROM public.records EXCEPT ALL SELECT id, t, n::text, m, i, j, a FROM reloaded)
                 UNION ALL
                 (SELECT id, t, n::text, m, i, j, a FROM reloaded EXCEPT ALL SELECT id, t, n::text, m, i, j, a FROM public.records)
             ) different",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        assert_eq!(different, 0, "{options}: {}", String::from_utf8_lossy(&file));
    }
}

#[tokio::test]
async fn a_spreadsheet_runs_no_cell_and_the_manifest_counts_them() {
    needs_servers!();
    let system = tricky().await;
    let columns = ["id", "t", "n", "m", "i", "j", "a"];
    let (id, file) = exported(&system, "csv", &columns, json!({"profile": "spreadsheet"})).await;
    let text = String::from_utf8(file.clone()).unwrap();
    assert!(text.starts_with("\u{FEFF}id,t,n,m,i,j,a\r\n"), "{text}");
    let path = system.file("spreadsheet.csv");
    std::fs::write(&path, &file).unwrap();
    // What a reader finds in the cells of each column.
    let cells = "import csv, json, sys; rows = list(csv.reader(open(sys.argv[1], encoding='utf-8-sig', newline=''), strict=True)); print(json.dumps([list(c) for c in zip(*rows[1:])]))";
    let cells: Vec<Vec<String>> = serde_json::from_value(run_line(cells, &path)).unwrap();
    assert_eq!(
        cells[1],
        ["plain", "", "", "NULL", "'=1+cmd|'/c calc'!A0", "'-2\r\n\"x\";y|z\t,", "'@sum", "\\N"],
        "text that looks like a formula is text"
    );
    // Numbers stay numbers, also where they are negative.
    assert_eq!((cells[2][3].as_str(), cells[3][0].as_str()), ("-1", "-$5.00"));
    assert_eq!(cells[5][0], "-7");
    let manifest = system.manifest(&id).await;
    assert_eq!((&manifest["replaced"][0]["column"], &manifest["replaced"][0]["count"]), (&json!("t"), &json!(3)));
    assert_eq!(manifest["replaced"].as_array().unwrap().len(), 1, "{manifest:#}");
    // A choice of one's own wins over the profile.
    let (_, file) =
        exported(&system, "csv", &["id"], json!({"profile": "spreadsheet", "bom": false, "lineEnding": "lf"})).await;
    assert!(file.starts_with(b"id\n1\n"));
}

#[tokio::test]
async fn a_bigint_is_a_string_on_request() {
    needs_servers!();
    let system = tricky().await;
    let (_, file) = exported(&system, "jsonl", &["id"], json!({"bigint": "string"})).await;
    let text = String::from_utf8(file).unwrap();
    assert!(text.ends_with("{\"id\":\"9223372036854775807\"}\n"), "{text}");
    let (_, file) = exported(&system, "json", &["id"], json!({})).await;
    let text = String::from_utf8(file).unwrap();
    assert!(text.ends_with("{\"id\":9223372036854775807}\n]\n"), "{text}");
}

#[tokio::test]
async fn a_numeric_is_a_string_in_json_on_request() {
    needs_servers!();
    let system = tricky().await;
    sqlx::raw_sql(
        "TRUNCATE public.records;
         ALTER TABLE public.records ADD ns numeric(30,10)[], ADD f float8;
         INSERT INTO public.records (id, n, ns, f) VALUES (1, 1234567890123456789.123456789, '{0.10,NULL}', 0.5), (2, 'NaN', NULL, 2)",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    let columns = ["id", "n", "ns", "f"];
    let (id, file) = exported(&system, "jsonl", &columns, json!({"numeric": "string"})).await;
    assert_eq!(
        String::from_utf8(file).unwrap(),
        concat!(
            "{\"id\":1,\"n\":\"1234567890123456789.123456789\",\"ns\":[\"0.1000000000\",null],\"f\":0.5}\n",
            "{\"id\":2,\"n\":\"NaN\",\"ns\":null,\"f\":2}\n"
        )
    );
    let manifest = system.manifest(&id).await;
    assert_eq!(manifest["options"]["numeric"], "string");
    let becomes: Vec<_> = manifest["columns"].as_array().unwrap().iter().map(|it| it["outputType"].clone()).collect();
    assert_eq!(becomes, ["integer", "string", "array of string", "number"]);
    let (_, file) = exported(&system, "json", &["n"], json!({})).await;
    assert!(String::from_utf8(file).unwrap().contains("{\"n\":1234567890123456789.123456789}"));
}

#[tokio::test]
async fn a_uuid_is_text_on_request_and_pandas_reads_an_array_of_them() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    sqlx::raw_sql(
        "DROP TABLE public.records;
         CREATE TABLE public.records (id bigint PRIMARY KEY, u uuid, us uuid[]);
         INSERT INTO public.records VALUES
             (1, '01234567-89ab-cdef-0123-456789abcdef', '{01234567-89ab-cdef-0123-456789abcdef,NULL}'), (2, NULL, '{}')",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    let text = "01234567-89ab-cdef-0123-456789abcdef";
    let readers = [
        ("parquet", "import json, sys, pyarrow.parquet as p; t = p.read_table(sys.argv[1])"),
        ("arrow", "import json, sys, pyarrow.ipc as p; t = p.open_stream(open(sys.argv[1], 'rb')).read_all()"),
    ];
    for (format, read) in readers {
        let types = "; print(json.dumps([str(t.schema.field(n).type) for n in ('u', 'us')]))";
        let values = "; print(json.dumps([t['u'].to_pylist(), t['us'].to_pylist()]))";
        for (options, expected) in [
            (json!({}), json!(["extension<arrow.uuid>", "list<element: extension<arrow.uuid>>"])),
            (json!({"uuid": "string"}), json!(["string", "list<element: string>"])),
        ] {
            let (id, file) = exported(&system, format, &["id", "u", "us"], options.clone()).await;
            let path = system.file(&format!("uuid.{format}"));
            std::fs::write(&path, file).unwrap();
            assert_eq!(run_line(&format!("{read}{types}"), &path), expected, "{format} {options}");
            let becomes = system.manifest(&id).await["columns"][1]["outputType"].clone();
            if options == json!({}) {
                assert!(["UUID", "arrow.uuid"].map(Value::from).contains(&becomes), "{becomes}");
                continue;
            }
            assert!(["STRING", "utf8"].map(Value::from).contains(&becomes), "{becomes}");
            assert_eq!(
                run_line(&format!("{read}{values}"), &path),
                json!([[text, null], [[text, null], []]]),
                "{format}"
            );
            if format == "parquet" {
                let pandas = "import json, sys, pandas; f = pandas.read_parquet(sys.argv[1]); print(json.dumps(list(f['us'][0])))";
                assert_eq!(run_line(pandas, &path), json!([text, null]));
            }
        }
    }
}

#[tokio::test]
async fn a_spreadsheet_takes_timestamps_for_such_and_the_manifest_says_what_is_cut_off() {
    needs_servers!();
    let system = System::start(Setup::default()).await;
    sqlx::raw_sql(
        "DROP TABLE public.records;
         CREATE TABLE public.records (id bigint PRIMARY KEY, tz timestamptz, ts timestamp, n numeric(10,2), f float8, d date);
         INSERT INTO public.records VALUES
             (1, '2023-08-26 09:40:53.247583+02', '2023-08-26 07:40:53', 1234.50, -0.25, '2023-08-26'),
             (2, '2023-08-26 07:40:53Z', '2023-08-26 07:40:53.9', -7, 1e300, NULL),
             (3, NULL, 'infinity', NULL, 'NaN', '2023-08-27')",
    )
    .execute(&system.pool)
    .await
    .unwrap();
    let columns = ["id", "tz", "ts", "n", "f", "d"];
    let options = json!({"profile": "spreadsheet", "delimiter": ";", "decimal": ",", "bom": false, "lineEnding": "lf"});
    let (id, file) = exported(&system, "csv", &columns, options).await;
    assert_eq!(
        String::from_utf8(file).unwrap(),
        "id;tz;ts;n;f;d\n\
         1;2023-08-26 07:40:53;2023-08-26 07:40:53;1234,50;-0,25;2023-08-26\n\
         2;2023-08-26 07:40:53;2023-08-26 07:40:53;-7,00;1e+300;\n\
         3;;infinity;;NaN;2023-08-27\n"
    );
    let manifest = system.manifest(&id).await;
    let zone = "a zone, which a spreadsheet takes for text";
    let fraction = "a fraction of a second";
    assert_eq!(
        manifest["replaced"],
        json!([
            {"column": "tz", "count": 2, "problem": zone, "with": "the date and time in UTC, without naming the zone"},
            {"column": "tz", "count": 1, "problem": fraction, "with": "whole seconds, the fraction is cut off"},
            {"column": "ts", "count": 1, "problem": fraction, "with": "whole seconds, the fraction is cut off"},
        ])
    );
    assert_eq!(manifest["columns"][1]["outputType"], "date-time in UTC, without naming the zone, in whole seconds");
    assert_eq!(manifest["options"]["decimal"], ",");
    // Without the profile nothing is cut off.
    let (id, file) = exported(&system, "csv", &["tz"], json!({})).await;
    assert!(String::from_utf8(file).unwrap().contains("\n2023-08-26T07:40:53.247583Z\n"));
    assert_eq!(system.manifest(&id).await["replaced"], json!([]));
}

/// The type and the values of column `n`, read by pyarrow.
async fn numerics(system: &System, options: Value) -> (String, Vec<Value>) {
    let (_, file) = exported(system, "parquet", &["n"], options).await;
    let path = system.file("numeric.parquet");
    std::fs::write(&path, file).unwrap();
    let read = "import json, sys, pyarrow.parquet as p; t = p.read_table(sys.argv[1]); print(json.dumps([str(t.schema.field('n').type), [None if v is None else str(v) for v in t['n'].to_pylist()]]))";
    serde_json::from_value(run_line(read, &path)).unwrap()
}

#[tokio::test]
async fn a_numeric_without_precision_is_what_was_asked_for_in_parquet() {
    needs_servers!();
    let system = tricky().await;
    let (kind, values) = numerics(&system, json!({})).await;
    assert_eq!(kind, "string");
    assert_eq!(values[..4], [json!("1.50"), json!("NaN"), Value::Null, json!("-1")]);
    assert_eq!(values[4], json!(format!("1{}", "0".repeat(30))));
    let (kind, values) = numerics(&system, json!({"numeric": "double"})).await;
    assert_eq!(kind, "double");
    assert_eq!(values[..5], [json!("1.5"), json!("nan"), Value::Null, json!("-1.0"), json!("1e+30")]);
    let options = json!({"numeric": "decimal(38,2)", "onUnrepresentable": "replace"});
    let (kind, values) = numerics(&system, options).await;
    assert_eq!(kind, "decimal128(38, 2)");
    assert_eq!(values[..4], [json!("1.50"), Value::Null, Value::Null, json!("-1.00")]);
    assert_eq!(values[4], json!(format!("1{}.00", "0".repeat(30))));
    // NaN is not the only one: a digit too many is never rounded away.
    sqlx::query("DELETE FROM public.records WHERE n = 'NaN'").execute(&system.pool).await.unwrap();
    sqlx::query("INSERT INTO public.records (id, n) VALUES (8, 0.125)").execute(&system.pool).await.unwrap();
    let columns = json!([{"source": "n", "target": "n"}]);
    let request = json!({"format": "parquet", "columns": columns, "options": {"numeric": "decimal(38,2)"}});
    let id = system.submit_request(&request).await;
    let state = system.wait_until_ended(&id).await;
    let error = state["error"].as_str().unwrap_or_else(|| panic!("{state:#}"));
    assert!(error.contains("(id 8)") && error.contains("\"n\"") && error.contains("digits"), "{error}");
}
