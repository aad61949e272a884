//! Every kind of bad submission, with the fields that the answer must name, and what a good one becomes.

use std::sync::Mutex;

use polyglot_export::catalog::{Column, WireType};
use polyglot_export::dataset::RelationName;
use serde_json::json;

use super::*;

fn records(columns: &[&str]) -> Relation {
    Relation {
        name: RelationName { schema: "public".to_owned(), name: "records".to_owned() },
        columns: columns
            .iter()
            .map(|name| Column {
                name: (*name).to_owned(),
                sql_type: "text".to_owned(),
                wire: WireType::Text,
                nullable: true,
            })
            .collect(),
        primary_key: vec!["id".to_owned()],
        estimated_rows: None,
        stored_bytes: 0,
    }
}

/// Answers as it is told, and remembers how old an answer was allowed to be.
struct Fake<F> {
    answer: F,
    asked: Mutex<Vec<Duration>>,
}

fn fake<F: Fn(Duration) -> Result<Relation, RouteError>>(answer: F) -> Fake<F> {
    Fake { answer, asked: Mutex::default() }
}

impl<F: Fn(Duration) -> Result<Relation, RouteError> + Sync> Catalog for Fake<F> {
    async fn describe(&self, _: &Dataset, age: Duration) -> Result<Arc<Relation>, RouteError> {
        self.asked.lock().unwrap().push(age);
        (self.answer)(age).map(Arc::new)
    }
}

async fn check(body: &Value) -> Result<ExportRequest, Vec<FieldError>> {
    let catalog = fake(|_| Ok(records(&["id", "created_at", "name", "value", "metadata"])));
    match validate(body, &Datasets::default(), &catalog).await {
        Ok(request) => Ok(request),
        Err(RouteError::Invalid(errors)) => Err(errors),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn bad_submissions_name_every_bad_field() {
    let id = json!([{"source": "id", "target": "a"}]);
    let column =
        |source: &str, target: &str| json!({"format": "csv", "columns": [{"source": source, "target": target}]});
    let many = vec![json!({"source": "id", "target": "a"}); MOST_COLUMNS + 1];
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
        (json!({"format": "csv", "columns": id, "dataset": null}), &["dataset"]),
        (json!({"format": "csv", "columns": id, "colums": id}), &["colums"]),
        (json!({"format": "csv", "columns": id, "rowLimit": 5}), &["rowLimit"]),
        (
            json!({"format": "xls", "columns": [{"source": "nope", "target": ""}], "filters": [], "x": 1}),
            &["columns[0].target", "format", "filters", "x", "columns[0].source"],
        ),
    ] {
        let errors = check(&body).await.expect_err(&body.to_string());
        let named: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(named, fields, "{body}: {errors:?}");
    }
}

#[tokio::test]
async fn what_is_not_there_yet_says_so() {
    for name in NOT_YET {
        let errors = check(&json!({"format": "csv", "columns": [{"source": "id", "target": "a"}], name: []})).await;
        assert_eq!(errors.unwrap_err(), [FieldError::new(name, "is not supported yet")]);
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
    assert_eq!(errors.len(), MOST_ERRORS);
    assert!(errors[0].message.len() < 300, "{}", errors[0].message);
}

#[tokio::test]
async fn a_good_submission_keeps_names_exactly() {
    let body = json!({"format": "json", "compression": "gzip", "dataset": "records", "columns": [
        {"source": "id", "target": " Id, with \"everything\" "}, {"source": "id", "target": "again"}]});
    let request = check(&body).await.unwrap();
    assert_eq!(request.format, Format::Json);
    assert_eq!(request.compression, Some(Compression::Gzip));
    assert_eq!(request.columns[0].target, " Id, with \"everything\" ");
    assert_eq!(request.columns[1].source, "id");
    assert_eq!(request.row_limit, None);

    let body = json!({"format": "parquet", "compression": null, "columns": [{"source": "id", "target": "a"}]});
    assert_eq!(check(&body).await.unwrap().compression, None);
}

#[tokio::test]
async fn a_column_of_this_moment_is_found() {
    let body = json!({"format": "csv", "columns": [{"source": "new", "target": "a"}]});
    let catalog = fake(|age| Ok(if age.is_zero() { records(&["id", "new"]) } else { records(&["id"]) }));
    validate(&body, &Datasets::default(), &catalog).await.unwrap();
    assert_eq!(*catalog.asked.lock().unwrap(), [RECENT, Duration::ZERO]);
}

#[tokio::test]
async fn without_the_source_certain_mistakes_are_still_told() {
    let away = fake(|_| Err(RouteError::NoWorker));
    let good = json!({"format": "csv", "columns": [{"source": "id", "target": "a"}]});
    let bad = json!({"format": "xls", "columns": [{"source": "id", "target": "a"}]});
    assert!(matches!(validate(&good, &Datasets::default(), &away).await, Err(RouteError::NoWorker)));
    assert!(matches!(validate(&bad, &Datasets::default(), &away).await, Err(RouteError::Invalid(_))));
}
