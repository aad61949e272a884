//! Tests of `validate`: every kind of bad submission with the fields that the answer must name, and the requests that good
//! submissions become.

use std::sync::Mutex;

use polyglot_core::column::WireType;
use polyglot_core::format_options::CsvOptions;
use polyglot_core::mask::Mask;
use polyglot_core::selection::{Direction, Filter, FilterOp, OrderKey};
use serde_json::json;

use super::super::limits;
use super::*;
use crate::dataset_config::Datasets;
use crate::resolved_dataset::tests::records;
use crate::source_statements::Refused;

/// The operator's limit.
const MAX_PARALLELISM: u16 = 16;

/// A catalog with scripted answers. It records the ages that were allowed and the statements that were to be planned.
struct Fake<F> {
    answer: F,
    /// Statements with one of these words are refused with the code beside it.
    refuses: &'static [(&'static str, &'static str)],
    asked: Mutex<Vec<Duration>>,
    planned: Mutex<Vec<String>>,
}

fn fake<F: Fn(Duration) -> Result<ResolvedDataset, RouteError>>(answer: F) -> Fake<F> {
    Fake { answer, refuses: &[], asked: Mutex::default(), planned: Mutex::default() }
}

impl<F: Fn(Duration) -> Result<ResolvedDataset, RouteError> + Sync> Catalog for Fake<F> {
    async fn resolve(&self, name: &str, age: Duration) -> Result<Option<Arc<ResolvedDataset>>, RouteError> {
        self.asked.lock().unwrap().push(age);
        if name == DEFAULT_DATASET { (self.answer)(age).map(|resolved| Some(Arc::new(resolved))) } else { Ok(None) }
    }

    fn is_hidden(&self, _: &str, tenant: &str) -> bool {
        tenant == "hidden from"
    }
}

impl<F: Sync> Planner for Fake<F> {
    async fn plan(&self, _: &ResolvedDataset, statements: &str) -> Result<Result<Estimate, Refused>, RouteError> {
        self.planned.lock().unwrap().push(statements.to_owned());
        let refused = self.refuses.iter().find(|(word, _)| statements.contains(word));
        Ok(refused.map_or(Ok(Estimate { rows: Some(7), cost: None }), |(_, code)| {
            Err(Refused { sql_state: (*code).to_owned() })
        }))
    }
}

fn body(json: &Value) -> Body {
    Body::parse(json.to_string().into_bytes()).unwrap()
}

async fn check_with(body: &Body, catalog: &(impl Catalog + Sync)) -> Result<ExportRequest, Vec<FieldError>> {
    match validate(body, catalog, MAX_PARALLELISM, &Identity::anonymous()).await {
        Ok(valid) => Ok(valid.request),
        Err(RouteError::Invalid(errors)) => Err(errors),
        Err(other) => panic!("{other}"),
    }
}

async fn check(json: &Value) -> Result<ExportRequest, Vec<FieldError>> {
    let catalog = fake(|_| Ok(records(&["id", "created_at", "name", "value", "metadata"])));
    check_with(&body(json), &catalog).await
}

/// A good submission with something added.
fn with(field: &str, value: Value) -> Value {
    let mut submission = json!({"format": "csv", "columns": [{"source": "id", "target": "a"}]});
    submission[field] = value;
    submission
}

fn fields(errors: &[FieldError]) -> Vec<&str> {
    errors.iter().map(|error| error.field.as_str()).collect()
}

#[tokio::test]
async fn the_expected_size_is_that_of_the_rows_that_a_filter_selects() {
    let large = || {
        let mut resolved = records(&["id", "value"]);
        resolved.relation.stored_bytes = 1 << 30;
        Ok(resolved)
    };
    let size = async |json: Value| {
        validate(&body(&json), &fake(|_| large()), MAX_PARALLELISM, &Identity::anonymous()).await.unwrap().expected_size
    };
    let mut json = json!({"format": "csv", "columns": [{"source": "id", "target": "id"}]});
    assert_eq!(size(json.clone()).await, ExpectedSize::Large);
    // Seven of the thousand rows.
    json["filters"] = json!([{"column": "value", "op": "=", "value": "a"}]);
    assert_eq!(size(json).await, ExpectedSize::Medium);
}

#[tokio::test]
async fn bad_submissions_name_every_bad_field() {
    let id = json!([{"source": "id", "target": "a"}]);
    let column =
        |source: &str, target: &str| json!({"format": "csv", "columns": [{"source": source, "target": target}]});
    let many = vec![json!({"source": "id", "target": "a"}); limits::COLUMNS + 1];
    for (body, fields) in [
        (json!({}), &["columns", "format"][..]),
        (json!({"format": "yaml", "columns": id}), &["format"]),
        (json!({"format": "CSV", "columns": id}), &["format"]),
        (json!({"format": 7, "columns": id}), &["format"]),
        (json!({"format": null, "columns": id}), &["format"]),
        (json!({"format": "csv"}), &["columns"]),
        (json!({"format": "csv", "columns": null}), &["columns"]),
        (json!({"format": "csv", "columns": []}), &["columns"]),
        (json!({"format": "csv", "columns": {"source": "id", "target": "a"}}), &["columns"]),
        (json!({"format": "csv", "columns": many}), &["columns"]),
        (json!({"format": "csv", "columns": ["id"]}), &["columns[0]"]),
        (json!({"format": "csv", "columns": [null, 7]}), &["columns[0]", "columns[1]"]),
        (json!({"format": "csv", "columns": [{}]}), &["columns[0].source", "columns[0].target"]),
        (json!({"format": "csv", "columns": [{"source": "id"}]}), &["columns[0].target"]),
        (json!({"format": "csv", "columns": [{"target": "a"}]}), &["columns[0].source"]),
        (
            json!({"format": "csv", "columns": [{"source": 1, "target": true}]}),
            &["columns[0].source", "columns[0].target"],
        ),
        (column("", "a"), &["columns[0].source"]),
        (column(" \t", "a"), &["columns[0].source"]),
        (column("id", ""), &["columns[0].target"]),
        (column("id", "\u{2003}"), &["columns[0].target"]),
        (column("id", "a\u{0}b"), &["columns[0].target"]),
        (column("id", "a\nb"), &["columns[0].target"]),
        (column("id", &"x".repeat(256)), &["columns[0].target"]),
        (column("nope", "a"), &["columns[0].source"]),
        (column("ID", "a"), &["columns[0].source"]),
        (column(" id", "a"), &["columns[0].source"]),
        (column("id\"; DROP TABLE records; --", "a"), &["columns[0].source"]),
        (column("xmin", "a"), &["columns[0].source"]),
        (
            json!({"format": "csv", "columns": [
                {"source": "id", "target": "a"}, {"source": "name", "target": "b"}, {"source": "value", "target": "a"}]}),
            &["columns[2].target"],
        ),
        (json!({"format": "csv", "columns": [{"source": "id", "target": "a", "type": "int"}]}), &["columns[0].type"]),
        (json!({"format": "csv", "columns": id, "compression": "zip"}), &["compression"]),
        (json!({"format": "csv", "columns": id, "compression": ""}), &["compression"]),
        (json!({"format": "csv", "columns": id, "compression": true}), &["compression"]),
        (json!({"format": "parquet", "columns": id, "compression": "gzip"}), &["compression"]),
        (json!({"format": "csv", "columns": id, "dataset": "users"}), &["dataset"]),
        (json!({"format": "csv", "columns": id, "dataset": 7}), &["dataset"]),
        (json!({"format": "csv", "columns": id, "colums": id}), &["colums"]),
        (json!({"format": "csv", "columns": id, "rowLimit": 5}), &["rowLimit"]),
        (json!({"format": "csv", "columns": id, "compression": "ZSTD"}), &["compression"]),
        (json!({"format": "parquet", "columns": id, "compression": "zstd"}), &["compression"]),
        (json!({"dataset": "users"}), &["columns", "format", "dataset"]),
        (
            json!({"format": "xls", "columns": [{"source": "nope", "target": ""}], "filters": [{"column": "no"}],
                "orderBy": ["no"], "options": {"x": 1}, "x": 1}),
            &[
                "columns[0].target",
                "format",
                "filters[0].op",
                "options.x",
                "x",
                "columns[0].source",
                "filters[0].column",
                "orderBy[0].column",
            ],
        ),
    ] {
        let errors = check(&body).await.expect_err(&body.to_string());
        let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, fields, "{body}: {errors:?}");
    }
}

#[tokio::test]
async fn bad_filters_name_the_part_that_is_bad() {
    let one = |column: &str, op: &str, value: Value| json!([{"column": column, "op": op, "value": value}]);
    let name = |op: &str, value: Value| one("name", op, value);
    let bare = |op: &str| json!([{"column": "name", "op": op}]);
    let path =
        |path: Value, op: &str, value: Value| json!([{"column": "name", "path": path, "op": op, "value": value}]);
    for (filters, wrong) in [
        (json!({"column": "name", "op": "=", "value": 1}), &["filters"][..]),
        (json!("name = 1"), &["filters"]),
        (json!(vec![json!({"column": "name", "op": "=", "value": 1}); 101]), &["filters"]),
        (json!(["name = 1", 7]), &["filters[0]", "filters[1]"]),
        (json!([{}]), &["filters[0].column", "filters[0].op"]),
        (json!([{"column": "name", "op": "=", "value": 1, "not": true}]), &["filters[0].not"]),
        (one("", "=", json!(1)), &["filters[0].column"]),
        (one("nope", "=", json!(1)), &["filters[0].column"]),
        (one("name\" = name --", "=", json!(1)), &["filters[0].column"]),
        (name("==", json!(1)), &["filters[0].op"]),
        (name("= 1 OR name =", json!(1)), &["filters[0].op"]),
        (name("LIKE", json!("a")), &["filters[0].op"]),
        (json!([{"column": "name", "op": 7, "value": 1}]), &["filters[0].op"]),
        (bare("="), &["filters[0].value"]),
        (bare("in"), &["filters[0].value"]),
        (name("=", json!(null)), &["filters[0].value"]),
        (name("<", json!([1])), &["filters[0].value"]),
        (name("=", json!({"a": 1})), &["filters[0].value"]),
        (name("=", json!("a\u{0}b")), &["filters[0].value"]),
        (name("in", json!("a")), &["filters[0].value"]),
        (name("in", json!(null)), &["filters[0].value"]),
        (name("in", json!([])), &["filters[0].value"]),
        (name("in", json!(vec!["x"; 1001])), &["filters[0].value"]),
        (
            name("in", json!(["a", null, "b", ["c"], "\u{0}"])),
            &["filters[0].value[1]", "filters[0].value[3]", "filters[0].value[4]"],
        ),
        (name("is_null", json!(true)), &["filters[0].value"]),
        (name("is_not_null", json!([])), &["filters[0].value"]),
        (name("like", json!("a%\\")), &["filters[0].value"]),
        (name("like", json!("\\\\\\")), &["filters[0].value"]),
        (name("ilike", json!("a%\\")), &["filters[0].value"]),
        (path(json!("id"), "=", json!(1)), &["filters[0].path"]),
        (path(json!([]), "=", json!(1)), &["filters[0].path"]),
        (path(json!(vec!["a"; 17]), "=", json!(1)), &["filters[0].path"]),
        (path(json!(["a", 0]), "=", json!(1)), &["filters[0].path[1]"]),
        (path(json!(["a\u{0}"]), "=", json!(1)), &["filters[0].path[0]"]),
        (path(json!(["k".repeat(257)]), "=", json!(1)), &["filters[0].path[0]"]),
        (path(json!(["a"]), "=", json!(null)), &["filters[0].value", "filters[0].path"]),
        (path(json!(["a"]), "=", json!({"a": 1})), &["filters[0].value", "filters[0].path"]),
        (path(json!(["a"]), "like", json!(1)), &["filters[0].value", "filters[0].path"]),
        (path(json!(["a"]), "<", json!(true)), &["filters[0].value", "filters[0].path"]),
        (path(json!(["a"]), "is_null", json!(1)), &["filters[0].value", "filters[0].path"]),
        // A text column has no path, which is beside the other mistakes above.
        (path(json!(["a"]), "=", json!(1)), &["filters[0].path"]),
    ] {
        let errors = check(&with("filters", filters.clone())).await.expect_err(&filters.to_string());
        assert_eq!(fields(&errors), wrong, "{filters}: {errors:?}");
    }
    let errors = check(&with("filters", name("=", json!(null)))).await.unwrap_err();
    assert!(errors[0].message.contains("is_null"), "{errors:?}");
}

#[tokio::test]
async fn good_filters_are_taken_as_they_are() {
    let filters = json!([
        {"column": "name", "op": "=", "value": "x'; DROP TABLE records; --"},
        {"column": "id", "op": "in", "value": [1, "2", true]},
        {"column": "name", "op": "is_null"},
        {"column": "name", "op": "is_not_null", "value": null},
        {"column": "name", "op": "like", "value": "50\\%\\\\"},
        {"column": "name", "op": "!=", "value": ""},
    ]);
    let filter = |column: &str, op, values: &[&str]| Filter {
        column: column.to_owned(),
        path: Vec::new(),
        op,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let expected = [
        filter("name", FilterOp::Equal, &["x'; DROP TABLE records; --"]),
        filter("id", FilterOp::In, &["1", "2", "true"]),
        filter("name", FilterOp::IsNull, &[]),
        filter("name", FilterOp::IsNotNull, &[]),
        filter("name", FilterOp::Like, &["50\\%\\\\"]),
        filter("name", FilterOp::NotEqual, &[""]),
    ];
    assert_eq!(check(&with("filters", filters)).await.unwrap().filters, expected);
    assert!(check(&with("filters", json!([]))).await.unwrap().filters.is_empty());
}

#[tokio::test]
async fn what_is_compared_at_a_path_keeps_its_json_type() {
    let text = r#"{"format": "csv", "columns": [{"source": "id", "target": "a"}], "filters": [
        {"column": "metadata", "path": ["customer", "id"], "op": "=", "value": 12345678901234567890.10},
        {"column": "metadata", "path": ["tags", "0"], "op": "in", "value": ["a\"b", 1, true]},
        {"column": "metadata", "path": [""], "op": "ilike", "value": "A%"},
        {"column": "metadata", "path": ["customer"], "op": "is_null"}]}"#;
    let catalog = fake(|_| {
        let mut resolved = records(&["id", "metadata"]);
        resolved.relation.columns[1].wire = WireType::Jsonb;
        Ok(resolved)
    });
    let request = check_with(&Body::parse(text.into()).unwrap(), &catalog).await.unwrap();
    let filter = |path: &[&str], op, values: &[&str]| Filter {
        column: "metadata".to_owned(),
        path: path.iter().map(|step| (*step).to_owned()).collect(),
        op,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let expected = [
        filter(&["customer", "id"], FilterOp::Equal, &["12345678901234567890.10"]),
        filter(&["tags", "0"], FilterOp::In, &[r#""a\"b""#, "1", "true"]),
        filter(&[""], FilterOp::Ilike, &["\"A%\""]),
        filter(&["customer"], FilterOp::IsNull, &[]),
    ];
    assert_eq!(request.filters, expected);
}

#[tokio::test]
async fn a_number_keeps_every_digit() {
    // The member comes after another one that looks like it, and its name is written with an escape.
    let text = r#"{"format": "csv", "columns": [{"source": "id", "target": "filters"}], "\u0066ilters": [
        {"op": "=", "value": 0.1000000000000000055, "column": "id"},
        {"op": "<", "value": 12345678901234567890123, "column": "id"},
        {"op": ">", "value": -1.50E+3, "column": "id"},
        {"op": "in", "value": [ 1.0 , 2, "3.00", 99999999999999999999 ], "column": "id"}]}"#;
    let catalog = fake(|_| Ok(records(&["id"])));
    let request = check_with(&Body::parse(text.into()).unwrap(), &catalog).await.unwrap();
    let values: Vec<_> = request.filters.iter().flat_map(|filter| filter.values.iter().map(String::as_str)).collect();
    let expected =
        ["0.1000000000000000055", "12345678901234567890123", "-1.50E+3", "1.0", "2", "3.00", "99999999999999999999"];
    assert_eq!(values, expected);
}

#[tokio::test]
async fn an_order_is_read_in_both_forms() {
    let order = json!([{"column": "name", "direction": "desc"}, "id", {"column": "value"}]);
    let request = check(&with("orderBy", order)).await.unwrap();
    let name = OrderKey { column: "name".to_owned(), direction: Direction::Desc };
    assert_eq!(request.order_by, [name, OrderKey::ascending("id"), OrderKey::ascending("value")]);
    assert!(check(&with("orderBy", json!([]))).await.unwrap().order_by.is_empty());
    for (order, wrong) in [
        (json!("id"), &["orderBy"][..]),
        (json!({"column": "id"}), &["orderBy"]),
        (json!(vec!["id"; 33]), &["orderBy"]),
        (json!([7, null]), &["orderBy[0]", "orderBy[1]"]),
        (json!([{}]), &["orderBy[0].column"]),
        (json!([""]), &["orderBy[0].column"]),
        (json!(["id DESC"]), &["orderBy[0].column"]),
        (json!(["id", {"column": "nope"}]), &["orderBy[1].column"]),
        (json!([{"column": "id", "direction": "DESC"}]), &["orderBy[0].direction"]),
        (json!([{"column": null}]), &["orderBy[0].column"]),
        (json!([{"column": "id", "nulls": "first"}]), &["orderBy[0].nulls"]),
        (json!(["id", "name", {"column": "id", "direction": "desc"}]), &["orderBy[2].column"]),
    ] {
        let errors = check(&with("orderBy", order.clone())).await.expect_err(&order.to_string());
        assert_eq!(fields(&errors), wrong, "{order}: {errors:?}");
    }
}

#[tokio::test]
async fn columns_that_are_kept_back_are_unknown_everywhere() {
    let catalog = fake(|_| {
        let mut resolved = records(&["id", "name", "secret"]);
        resolved.dataset.columns = Some(vec!["id".to_owned(), "name".to_owned()]);
        resolved.dataset.order_by = vec![OrderKey::ascending("secret")];
        Ok(resolved)
    });
    let submission = json!({"format": "csv", "columns": [{"source": "secret", "target": "a"}],
        "filters": [{"column": "secret", "op": "is_null"}], "orderBy": ["secret"]});
    let errors = check_with(&body(&submission), &catalog).await.unwrap_err();
    assert_eq!(fields(&errors), ["columns[0].source", "filters[0].column", "orderBy[0].column"]);
    for error in errors {
        assert_eq!(error.message, "there is no column \"secret\"; there is id, name");
    }
    // The dataset's own order may use what clients cannot.
    let request = check_with(&body(&with("compression", json!("zstd"))), &catalog).await.unwrap();
    assert_eq!(request.order_by, [OrderKey::ascending("secret")]);
    assert_eq!(request.grant.columns, Some(vec!["id".to_owned(), "name".to_owned()]));
    assert_eq!(request.compression, Some(Compression::Zstd));
}

#[tokio::test]
async fn masked_columns_can_be_had_and_rows_not_chosen_or_sorted_by_them() {
    let catalog = fake(|_| {
        let datasets = Datasets::parse(
            "[[dataset]]\nrelation = \"public.records\"\nmask = { email = \"hash\" }
             row_filter = [{ column = \"email\", op = \"is_not_null\" }]",
        );
        let records = records(&["id", "email"]);
        ResolvedDataset::new(datasets.unwrap().named("records").unwrap().clone(), records.relation)
    });
    let submission = json!({"format": "csv", "columns": [{"source": "email", "target": "a"}],
        "filters": [{"column": "email", "op": "is_null"}], "orderBy": ["email"]});
    let errors = check_with(&body(&submission), &catalog).await.unwrap_err();
    assert_eq!(fields(&errors), ["filters[0].column", "orderBy[0].column"]);
    assert!(errors.iter().all(|error| error.message.contains("are masked")), "{errors:?}");
    let submission = json!({"format": "csv", "columns": [{"source": "email", "target": "a"}]});
    let request = check_with(&body(&submission), &catalog).await.unwrap();
    assert_eq!(request.grant.mask("email"), Some(Mask::Hash));
    // The operator's own filter is applied to the values.
    assert_eq!((request.policy_filters, request.filters[0].column.as_str()), (1, "email"));
    assert!(request.has_policy());
}

#[tokio::test]
async fn the_server_is_asked_only_what_depends_on_it() {
    for (submission, planned) in [
        (with("options", json!({"profile": "spreadsheet"})), &[][..]),
        (with("filters", json!([{"column": "name", "op": "is_null"}])), &[]),
        (
            with("filters", json!([{"column": "name", "op": "=", "value": "it's"}, {"column": "id", "op": "is_null"}])),
            &[
                r#"EXPLAIN SELECT FROM "public"."records" AS r WHERE (r."name" OPERATOR(pg_catalog.=) 'it''s') AND (r."id" IS NOT DISTINCT FROM NULL)"#,
            ],
        ),
        (
            with("orderBy", json!([{"column": "name", "direction": "desc"}])),
            &[r#"EXPLAIN SELECT FROM "public"."records" AS r ORDER BY r."name" DESC"#],
        ),
    ] {
        let catalog = fake(|_| Ok(records(&["id", "name"])));
        check_with(&body(&submission), &catalog).await.unwrap();
        assert_eq!(*catalog.planned.lock().unwrap(), planned, "{submission}");
    }
}

#[tokio::test]
async fn what_the_server_refuses_stands_beside_the_rest() {
    let catalog = Fake { refuses: &[("'abc'", "22P02")], ..fake(|_| Ok(records(&["id", "name"]))) };
    let submission = json!({"format": "xls", "columns": [{"source": "id", "target": "a"}], "filters": [
        {"column": "nope", "op": "=", "value": 1}, {"column": "id", "op": "=", "value": "abc"}]});
    let errors = check_with(&body(&submission), &catalog).await.unwrap_err();
    assert_eq!(fields(&errors), ["format", "filters[0].column", "filters[1].value"]);
    assert_eq!(errors[2].message, "\"abc\" is not a value of type text");
}

#[tokio::test]
async fn options_come_into_the_request() {
    let request = check(&with("options", json!({"profile": "spreadsheet", "delimiter": ";"}))).await.unwrap();
    assert_eq!(request.options.csv, CsvOptions { delimiter: ';', ..CsvOptions::spreadsheet() });
}

#[tokio::test]
async fn parallelism_is_from_one_to_what_the_operator_allows() {
    assert_eq!(check(&with("layout", json!("file"))).await.unwrap().parallelism, None);
    for good in [1, MAX_PARALLELISM] {
        assert_eq!(check(&with("parallelism", json!(good))).await.unwrap().parallelism, Some(good));
    }
    for (bad, given) in [
        (json!(0), "0"),
        (json!(17), "17"),
        (json!(65_537), "65537"),
        (json!(-1), "-1"),
        (json!(2.5), "2.5"),
        (json!("4"), "a string"),
        (json!([4]), "an array"),
    ] {
        let errors = check(&with("parallelism", bad)).await.unwrap_err();
        let message = format!("expected a whole number from 1 to 16 (shards at a time), not {given}");
        assert_eq!(errors, [FieldError::new("parallelism", message)]);
    }
}

#[tokio::test]
async fn a_layout_is_one_of_two() {
    assert_eq!(check(&with("parallelism", json!(1))).await.unwrap().layout, Layout::File);
    for layout in Layout::ALL {
        assert_eq!(check(&with("layout", json!(layout.name()))).await.unwrap().layout, layout);
    }
    let errors = check(&with("layout", json!("folder"))).await.unwrap_err();
    assert_eq!(errors, [FieldError::new("layout", "unknown layout \"folder\"; there is file, files")]);
    for bad in [json!("Files"), json!(""), json!(2), json!(["file"])] {
        let errors = check(&with("layout", bad.clone())).await.expect_err(&bad.to_string());
        assert_eq!(fields(&errors), ["layout"], "{bad}: {errors:?}");
    }
}

#[tokio::test]
async fn an_unknown_column_is_told_the_known_ones() {
    let errors = check(&json!({"format": "csv", "columns": [{"source": "nope", "target": "a"}]})).await.unwrap_err();
    assert_eq!(errors[0].message, "there is no column \"nope\"; there is id, created_at, name, value, metadata");
}

#[tokio::test]
async fn an_answer_is_not_larger_than_it_helps() {
    let columns: Vec<_> = (0..1000).map(|n| json!({"source": "x".repeat(500), "target": n.to_string()})).collect();
    let errors = check(&json!({"format": "csv", "columns": columns})).await.unwrap_err();
    assert_eq!(errors.len(), MAX_ERRORS);
    assert!(errors[0].message.len() < 300, "{}", errors[0].message);
}

#[tokio::test]
async fn a_good_submission_keeps_names_exactly() {
    let body = json!({"format": "json", "compression": "gzip", "dataset": "records", "columns": [
        {"source": "id", "target": " Id, with \"everything\" "}, {"source": "id", "target": "again"}]});
    let request = check(&body).await.unwrap();
    assert_eq!(request.format.as_str(), "json");
    assert_eq!(request.compression, Some(Compression::Gzip));
    assert_eq!(request.columns[0].target, " Id, with \"everything\" ");
    assert_eq!(request.columns[1].source, "id");
    assert_eq!(request.row_limit, None);

    let body = json!({"format": "parquet", "compression": null, "columns": [{"source": "id", "target": "a"}]});
    assert_eq!(check(&body).await.unwrap().compression, None);
}

#[tokio::test]
async fn a_column_of_this_moment_is_found() {
    for submission in [
        json!({"format": "csv", "columns": [{"source": "new", "target": "a"}]}),
        with("orderBy", json!(["new"])),
        with("filters", json!([{"column": "new", "op": "is_null"}])),
    ] {
        let catalog = fake(|age| Ok(if age.is_zero() { records(&["id", "new"]) } else { records(&["id"]) }));
        check_with(&body(&submission), &catalog).await.unwrap();
        assert_eq!(*catalog.asked.lock().unwrap(), [CACHE_MAX_AGE, Duration::ZERO]);
    }
}

#[tokio::test]
async fn null_is_the_same_as_to_leave_a_field_out() {
    let without = json!({"format": "csv", "columns": [{"source": "id", "target": "a"}]});
    let mut with_nulls = without.clone();
    for name in ["compression", "dataset", "filters", "orderBy", "options", "parallelism", "layout", "coalesce"] {
        with_nulls[name] = Value::Null;
    }
    assert_eq!(check(&with_nulls).await.unwrap(), check(&without).await.unwrap());
    let inside = with("orderBy", json!([{"column": "id", "direction": null}]));
    assert_eq!(check(&inside).await.unwrap().order_by, [OrderKey::ascending("id")]);
    let inside = with("filters", json!([{"column": "id", "op": "is_null", "value": null, "path": null}]));
    assert_eq!(check(&inside).await.unwrap().filters.len(), 1);
    // What has to be there, and what no field is, stays a mistake.
    let wrong = json!({"format": null, "columns": [{"source": null, "target": "a"}], "nope": null});
    assert_eq!(fields(&check(&wrong).await.unwrap_err()), ["columns[0].source", "format", "nope"]);
    assert_eq!(fields(&check(&json!({"format": "csv", "columns": null})).await.unwrap_err()), ["columns"]);
}

#[tokio::test]
async fn joining_is_asked_for_by_a_boolean() {
    let catalog = fake(|_| Ok(records(&["id"])));
    assert!(
        !validate(&body(&with("compression", json!(null))), &catalog, MAX_PARALLELISM, &Identity::anonymous())
            .await
            .unwrap()
            .coalesce
    );
    assert!(
        validate(&body(&with("coalesce", json!(true))), &catalog, MAX_PARALLELISM, &Identity::anonymous())
            .await
            .unwrap()
            .coalesce
    );
    let errors = check(&with("coalesce", json!("yes"))).await.unwrap_err();
    assert_eq!(errors, [FieldError::new("coalesce", "expected true or false, not a string")]);
}

#[tokio::test]
async fn without_the_source_certain_mistakes_are_still_told() {
    let away = fake(|_| Err(RouteError::NoWorker));
    let good = body(&with("compression", json!(null)));
    let bad = body(&json!({"format": "xls", "columns": [{"source": "id", "target": "a"}]}));
    assert!(matches!(validate(&good, &away, MAX_PARALLELISM, &Identity::anonymous()).await, Err(RouteError::NoWorker)));
    assert!(matches!(
        validate(&bad, &away, MAX_PARALLELISM, &Identity::anonymous()).await,
        Err(RouteError::Invalid(_))
    ));
    // Nothing has to be looked up to refuse this one.
    assert!(matches!(
        validate(&body(&json!({})), &away, MAX_PARALLELISM, &Identity::anonymous()).await,
        Err(RouteError::Invalid(_))
    ));
    assert_eq!(away.asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn the_operator_s_conditions_are_part_of_every_request_and_cannot_be_left_out() {
    let datasets = Datasets::parse(
        "[[dataset]]\nname = \"records\"\nrelation = \"public.records\"\ntenants = [\"acme\"]\ncolumns = [\"id\"]\n\
         row_filter = [{ column = \"name\", op = \"=\", claim = \"tenant\" }]",
    )
    .unwrap();
    let dataset = datasets.candidates("records").remove(0);
    let resolved = ResolvedDataset::new(dataset, records(&["id", "name"]).relation).unwrap();
    let catalog = fake(|_| Ok(resolved.clone()));
    let json = json!({"format": "csv", "columns": [{"source": "id", "target": "id"}],
                      "filters": [{"column": "id", "op": "=", "value": "1"}]});
    let valid = validate(&body(&json), &catalog, MAX_PARALLELISM, &Identity::for_test("acme", "{}")).await.unwrap();
    let request = valid.request;
    assert_eq!(request.filters.len(), 2);
    assert_eq!((request.filters[0].column.as_str(), request.filters[0].values[0].as_str()), ("name", "acme"));
    assert_eq!(request.own_filters(), &request.filters[1..]);
    assert!(!valid.is_private);
    assert!(catalog.planned.lock().unwrap()[0].contains("'acme'"));
    // The column is not one that clients know of, and the dataset is for one tenant.
    let other = validate(&body(&json), &catalog, MAX_PARALLELISM, &Identity::for_test("hidden from", "{}")).await;
    let Err(RouteError::Invalid(errors)) = other else { panic!("another tenant was let in") };
    assert_eq!(errors, [FieldError::new("dataset", "there is no dataset \"records\"")]);
    let refusing = Fake { refuses: &[("acme", "22P02")], ..fake(|_| Ok(resolved.clone())) };
    let refused = validate(&body(&json), &refusing, MAX_PARALLELISM, &Identity::for_test("acme", "{}")).await;
    assert!(matches!(refused, Err(RouteError::PolicyNotApplicable { .. })), "{refused:?}");
}
