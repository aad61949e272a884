//! Check of the filters and the order of a submission by the source database. The server alone knows which texts are values
//! of a type and which operators a type has, so it plans the query (`EXPLAIN`), which reads no rows.

use polyglot_core::column::WireType;
use polyglot_core::order::Order;
use polyglot_core::selection::{Filter, FilterOp, OrderKey};
use polyglot_source::sql::{order_sql, where_sql};
use polyglot_source::sql::{quote_identifier, quote_relation};

use super::filters::DraftFilter;
use super::order::DraftKey;
use crate::problem::{FieldError, RouteError, quoted};
use crate::resolved_dataset::ResolvedDataset;
use crate::source::Source;
use crate::source_statements::{Estimate, Refused};
use crate::timeout;

/// The source database, as far as this check needs it. Tests have one of their own.
pub(super) trait Planner {
    /// As `Source::plan`.
    fn plan(
        &self,
        resolved: &ResolvedDataset,
        statements: &str,
    ) -> impl Future<Output = Result<Result<Estimate, Refused>, RouteError>> + Send;
}

impl Planner for Source {
    fn plan(
        &self,
        resolved: &ResolvedDataset,
        statements: &str,
    ) -> impl Future<Output = Result<Result<Estimate, Refused>, RouteError>> + Send {
        self.plan(resolved, statements)
    }
}

/// The filters and the order to check. Their columns are known to exist.
pub(super) struct PlanCheck<'a> {
    pub(super) resolved: &'a ResolvedDataset,
    pub(super) filters: Vec<(&'a DraftFilter, Filter)>,
    /// What the operator's policy adds. It is part of every statement.
    pub(super) policy: &'a [Filter],
    pub(super) order_by: &'a [DraftKey],
}

/// The result of a check.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// An error for each filter and sort key that the server refuses.
    pub(super) errors: Vec<FieldError>,
    pub(super) estimate: Estimate,
}

impl PlanCheck<'_> {
    /// Takes one round trip if nothing is refused, and none if nothing depends on a type.
    pub(super) async fn run(&self, server: &(impl Planner + Sync)) -> Result<Checked, RouteError> {
        let has_values = self.filters.iter().any(|(_, filter)| !filter.values.is_empty());
        if !has_values && self.order_by.is_empty() && self.policy.is_empty() {
            return Ok(Checked::default());
        }
        timeout::source(async {
            match self.plan(server, &self.all_statements()).await? {
                Ok(estimate) => Ok::<_, RouteError>(Checked { errors: Vec::new(), estimate }),
                Err(refused) => {
                    Ok(Checked { errors: self.find_errors(server, &refused).await?, estimate: Estimate::default() })
                }
            }
        })
        .await
    }

    async fn plan(&self, server: &impl Planner, statements: &str) -> Result<Result<Estimate, Refused>, RouteError> {
        server.plan(self.resolved, statements).await
    }

    /// Whether the server plans a read of the relation.
    async fn is_planned(&self, server: &impl Planner) -> Result<bool, RouteError> {
        Ok(self.plan(server, &self.explain(&[], "")).await?.is_ok())
    }

    /// The sort keys of the export, without the primary key that follows them, whose type always has an order.
    fn sort_keys(&self) -> Vec<OrderKey> {
        if self.order_by.is_empty() {
            self.resolved.dataset.order_by.clone()
        } else {
            self.order_by.iter().map(|draft| draft.key.clone()).collect()
        }
    }

    /// The complete query, and for each filter the probe of its operator.
    fn all_statements(&self) -> String {
        let filters: Vec<Filter> = self.filters.iter().map(|(_, filter)| filter.clone()).collect();
        let mut statements = self.explain(&filters, &order_clause(self.sort_keys()));
        for (_, filter) in &self.filters {
            let probe = self.operator_probe(filter);
            if !probe.is_empty() {
                statements.push_str("; ");
                statements.push_str(&self.explain(&[], &probe));
            }
        }
        statements
    }

    fn explain(&self, filters: &[Filter], clauses: &str) -> String {
        let relation = &self.resolved.relation;
        let filters: Vec<Filter> = self.policy.iter().chain(filters).cloned().collect();
        let conditions = where_sql(&filters, relation, "r").expect("the columns of the filters were looked up");
        format!("EXPLAIN SELECT FROM {} AS r{conditions}{clauses}", quote_relation(&relation.name))
    }

    /// A clause that the server plans only if the items of an array have the operator. The array itself has every operator, which
    /// fails at the first row if its items have none.
    fn operator_probe(&self, filter: &Filter) -> String {
        let is_array = self.resolved.column(&filter.column).is_some_and(|column| column.array.is_some());
        let clause = match filter.op {
            FilterOp::Equal | FilterOp::NotEqual | FilterOp::In => "GROUP BY",
            FilterOp::Less | FilterOp::LessOrEqual | FilterOp::Greater | FilterOp::GreaterOrEqual => "ORDER BY",
            FilterOp::IsNull | FilterOp::IsNotNull | FilterOp::Like | FilterOp::Ilike => return String::new(),
        };
        if is_array { format!(" {clause} r.{}", quote_identifier(&filter.column)) } else { String::new() }
    }

    /// Has the server plan the filters and sort keys one by one, to find out what it has `refused` together.
    async fn find_errors(&self, server: &impl Planner, refused: &Refused) -> Result<Vec<FieldError>, RouteError> {
        let unusable = |problem: &str, refused: &Refused| RouteError::DatasetUnavailable {
            dataset: self.resolved.dataset.name.clone(),
            source: format!("{problem} (SQLSTATE {})", refused.sql_state).into(),
        };
        // A view may fail by its own conditions.
        if let Err(refused) = self.plan(server, &self.explain(&[], "")).await? {
            let without_policy = PlanCheck { policy: &[], filters: Vec::new(), ..*self };
            if !self.policy.is_empty() && without_policy.is_planned(server).await? {
                let problem = format!(
                    "the server refuses the row filter with the caller's values (SQLSTATE {})",
                    refused.sql_state
                );
                let dataset = self.resolved.dataset.name.clone();
                return Err(RouteError::PolicyNotApplicable { dataset, source: problem.into() });
            }
            return Err(unusable("the server refuses to plan a read of the relation", &refused));
        }
        let mut errors = Vec::new();
        for (draft, filter) in &self.filters {
            let statements = format!(
                "{}; {}",
                self.explain(std::slice::from_ref(filter), ""),
                self.explain(&[], &self.operator_probe(filter))
            );
            if let Err(refused) = self.plan(server, &statements).await? {
                errors.push(self.filter_error(server, draft, filter, &refused).await?);
            }
        }
        for draft in self.order_by {
            if self.plan(server, &self.explain(&[], &order_clause(vec![draft.key.clone()]))).await?.is_err() {
                let message = format!("rows have no order by type {}", self.type_of(&draft.key.column));
                errors.push(FieldError::new(draft.column_field(), message));
            }
        }
        if self.order_by.is_empty()
            && !self.sort_keys().is_empty()
            && let Err(refused) = self.plan(server, &self.explain(&[], &order_clause(self.sort_keys()))).await?
        {
            return Err(unusable("rows cannot be sorted by the order_by of DATASETS", &refused));
        }
        if errors.is_empty() {
            let problem = format!("SQLSTATE {} for a query whose parts are accepted one by one", refused.sql_state);
            return Err(RouteError::Internal(problem.into()));
        }
        Ok(errors)
    }

    /// The error of one filter that the server has refused.
    async fn filter_error(
        &self,
        server: &impl Planner,
        draft: &DraftFilter,
        filter: &Filter,
        refused: &Refused,
    ) -> Result<FieldError, RouteError> {
        let sql_type = self.type_of(&filter.column);
        // Class 22 is bad data; class 23 is a violated check of a domain.
        if !["22", "23"].iter().any(|class| refused.sql_state.starts_with(class)) {
            let message = format!("there is no operator {} for type {sql_type}", filter.op.name());
            return Ok(FieldError::new(draft.op_field(), message));
        }
        let mut at = 0;
        let mut field = draft.value_field();
        if filter.op == FilterOp::In {
            at = self.first_invalid_value(server, filter).await?;
            field = format!("{field}[{at}]");
        }
        let text = filter.values.get(at).map_or("", String::as_str);
        let wire = self.resolved.column(&filter.column).map(|column| column.wire);
        let problem = match (refused.sql_state.as_str(), wire) {
            // The server has one code for a date that is none in any calendar, for one that it would read by another DateStyle, and for
            // one that the type does not reach. Its messages are in the language of the server.
            ("22008", Some(WireType::Date | WireType::Timestamp | WireType::TimestampTz)) if !is_far_date(text) => {
                "is not a value of"
            }
            ("22008", Some(WireType::Time)) => "is not a value of",
            ("22003" | "22008" | "22015", _) => "is out of the range of",
            _ => "is not a value of",
        };
        let is_date = matches!(wire, Some(WireType::Date | WireType::Timestamp | WireType::TimestampTz));
        // What is compared at a path is a number or text, of which the server may refuse a number.
        let sql_type = if filter.path.is_empty() { sql_type } else { "numeric" };
        let remedy = if is_date && problem == "is not a value of" { "; dates have the form 2024-12-31" } else { "" };
        Ok(FieldError::new(field, format!("{} {problem} type {sql_type}{remedy}", quoted(text))))
    }

    /// Index of the first value that the server refuses, by binary search: at most ten statements for 1000 values.
    async fn first_invalid_value(&self, server: &impl Planner, filter: &Filter) -> Result<usize, RouteError> {
        let (mut start, mut end) = (0, filter.values.len());
        while end - start > 1 {
            let middle = usize::midpoint(start, end);
            let half = Filter { values: filter.values[start..middle].to_vec(), ..filter.clone() };
            if self.plan(server, &self.explain(&[half], "")).await?.is_ok() {
                start = middle;
            } else {
                end = middle;
            }
        }
        Ok(start)
    }

    fn type_of(&self, column: &str) -> &str {
        self.resolved.column(column).map_or("", |column| &column.sql_type)
    }
}

/// Whether a text names a day of a year that not every type of dates reaches: one of five digits or more, or before 4714 BC. Any other
/// day that there is, every such type has.
fn is_far_date(text: &str) -> bool {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (year, rest) = text.split_at(digits);
    let mut fields = rest.strip_prefix('-').unwrap_or("").splitn(3, ['-', ' ', 'T']);
    let mut field = || fields.next().and_then(|field| field.parse::<u32>().ok());
    let is_day = matches!((field(), field()), (Some(1..=12), Some(1..=31)));
    let year = year.parse::<u64>().unwrap_or(u64::MAX);
    let is_bc = text.to_ascii_uppercase().ends_with("BC");
    is_day && digits >= 4 && (year > 9999 || (is_bc && year >= 4714))
}

fn order_clause(keys: Vec<OrderKey>) -> String {
    order_sql(&Order { keys, total: false }, "r")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use crate::dataset_config::Dataset;
    use polyglot_core::column::{ArrayType, Column, WireType};
    use serde_json::{Value, json};

    use super::super::{filters, order};
    use super::*;
    use crate::resolved_dataset::tests::{column, relation};

    /// A server that refuses statements with certain words, and records all statements.
    struct Server {
        refuses: Vec<(&'static str, &'static str)>,
        planned: Mutex<Vec<String>>,
    }

    impl Planner for Server {
        async fn plan(&self, _: &ResolvedDataset, statements: &str) -> Result<Result<Estimate, Refused>, RouteError> {
            self.planned.lock().unwrap().push(statements.to_owned());
            let refused = self.refuses.iter().find(|(words, _)| statements.contains(words));
            Ok(refused.map_or(Ok(Estimate::default()), |(_, code)| Err(Refused { sql_state: (*code).to_owned() })))
        }
    }

    fn resolved(order_by: &[&str]) -> ResolvedDataset {
        let items = Column {
            array: Some(ArrayType { dimensions: 1, delimiter: b',' }),
            ..column("items", "json[]", WireType::Json)
        };
        let columns = vec![
            column("n", "integer", WireType::Int4),
            column("j", "json", WireType::Json),
            column("b", "bytea", WireType::Bytea),
            items,
        ];
        let order_by = order_by.iter().map(|name| OrderKey::ascending(*name)).collect();
        ResolvedDataset::new(Dataset { order_by, ..Dataset::whole("public", "records") }, relation(columns, &[]))
            .unwrap()
    }

    async fn check_on(
        resolved: &ResolvedDataset,
        server: &Server,
        filters: Value,
        order_by: Value,
    ) -> Result<Vec<(String, String)>, RouteError> {
        let body = json!({"filters": filters}).to_string();
        let mut errors = Vec::new();
        let drafts = filters::read(Some(&filters), body.as_bytes(), &mut errors);
        let order_by = order::read(Some(&order_by), &mut errors);
        assert_eq!(errors, []);
        let filters = drafts.iter().map(|draft| (draft, draft.complete().unwrap())).collect();
        let refused = PlanCheck { resolved, filters, policy: &[], order_by: &order_by }.run(server).await?;
        Ok(refused.errors.into_iter().map(|error| (error.field, error.message)).collect())
    }

    async fn check(
        refuses: &[(&'static str, &'static str)],
        filters: Value,
        order_by: Value,
    ) -> Result<Vec<(String, String)>, RouteError> {
        let server = Server { refuses: refuses.to_vec(), planned: Mutex::default() };
        check_on(&resolved(&[]), &server, filters, order_by).await
    }

    fn expected(field: &str, message: &str) -> (String, String) {
        (field.to_owned(), message.to_owned())
    }

    #[tokio::test]
    async fn each_refusal_stands_under_its_field() {
        let refuses = [
            ("'abc'", "22P02"),
            ("'99999999999'", "22003"),
            (r#"r."n" OPERATOR(pg_catalog.~~)"#, "42883"),
            (r#"ORDER BY r."j""#, "42883"),
        ];
        let filters = json!([
            {"column": "n", "op": "=", "value": "abc"},
            {"column": "n", "op": "=", "value": "5"},
            {"column": "n", "op": "<", "value": 99_999_999_999_u64},
            {"column": "n", "op": "like", "value": "1%"},
        ]);
        let refused = check(&refuses, filters, json!(["n", "j"])).await.unwrap();
        let expected = [
            expected("filters[0].value", "\"abc\" is not a value of type integer"),
            expected("filters[2].value", "\"99999999999\" is out of the range of type integer"),
            expected("filters[3].op", "there is no operator like for type integer"),
            expected("orderBy[1].column", "rows have no order by type json"),
        ];
        assert_eq!(refused, expected);
    }

    #[tokio::test]
    async fn a_date_is_refused_for_its_form_unless_its_year_is_far_away() {
        for (value, message) in [
            ("31.12.2024", "is not a value of type date; dates have the form 2024-12-31"),
            ("2024-02-30", "is not a value of type date; dates have the form 2024-12-31"),
            ("12/31/10000", "is not a value of type date; dates have the form 2024-12-31"),
            ("20240-13-01", "is not a value of type date; dates have the form 2024-12-31"),
            ("9999999-12-31", "is out of the range of type date"),
            ("4800-01-01 BC", "is out of the range of type date"),
        ] {
            let mut resolved = resolved(&[]);
            resolved.relation.columns.push(column("d", "date", WireType::Date));
            let server =
                Server { refuses: vec![("r.\"d\" OPERATOR(pg_catalog.=)", "22008")], planned: Mutex::default() };
            let filters = json!([{"column": "d", "op": "=", "value": value}]);
            let refused = check_on(&resolved, &server, filters, json!([])).await.unwrap();
            assert_eq!(refused, [expected("filters[0].value", &format!("\"{value}\" {message}"))]);
        }
    }

    #[tokio::test]
    async fn the_first_bad_one_of_many_values_is_found() {
        for (count, bad) in [(1, 0), (2, 0), (2, 1), (1000, 0), (1000, 637), (1000, 999)] {
            let values: Vec<_> =
                (0..count).map(|at| if at == bad { "bad".to_owned() } else { at.to_string() }).collect();
            let server = Server { refuses: vec![("'bad'", "22P02")], planned: Mutex::default() };
            let filters = json!([{"column": "n", "op": "in", "value": values}]);
            let refused = check_on(&resolved(&[]), &server, filters, json!([])).await.unwrap();
            let field = format!("filters[0].value[{bad}]");
            assert_eq!(refused, [expected(&field, "\"bad\" is not a value of type integer")]);
            assert!(server.planned.lock().unwrap().len() <= 13);
        }
    }

    #[tokio::test]
    async fn items_without_the_operator_are_found_out() {
        let refuses = [("GROUP BY r.\"items\"", "42883")];
        let filter = |op: &str| json!([{"column": "items", "op": op, "value": "{}"}]);
        let refused = check(&refuses, filter("!="), json!([])).await.unwrap();
        assert_eq!(refused, [expected("filters[0].op", "there is no operator != for type json[]")]);
        let refused = check(&[("ORDER BY r.\"items\"", "42883")], filter(">="), json!([])).await.unwrap();
        assert_eq!(refused, [expected("filters[0].op", "there is no operator >= for type json[]")]);
    }

    #[tokio::test]
    async fn what_is_not_the_client_s_fault_is_not_told_as_such() {
        let filters = json!([{"column": "n", "op": "=", "value": 1}]);
        let error = check(&[("EXPLAIN", "22012")], filters.clone(), json!([])).await.unwrap_err();
        assert!(matches!(error, RouteError::DatasetUnavailable { .. }), "{error}");

        let server = Server { refuses: vec![("ORDER BY", "42883")], planned: Mutex::default() };
        let error = check_on(&resolved(&["j"]), &server, filters.clone(), json!([])).await.unwrap_err();
        assert!(polyglot_core::failure::chain(&error).contains("order_by of DATASETS"), "{error}");

        let error = check(&[("AND", "54001")], json!([filters[0], filters[0]]), json!([])).await.unwrap_err();
        assert!(matches!(error, RouteError::Internal(_)), "{error}");
    }

    #[test]
    fn like_is_for_text() {
        let filters = json!([{"column": "b", "op": "like", "value": "a%"}, {"column": "b", "op": "=", "value": "a"}]);
        let body = json!({"filters": filters}).to_string();
        let drafts = filters::read(Some(&filters), body.as_bytes(), &mut Vec::new());
        let resolved = resolved(&[]);
        let bytes = resolved.column("b").unwrap();
        assert_eq!(drafts[0].type_error(bytes).unwrap().message, "like is for text, not for type bytea");
        let message = drafts[0].type_error(resolved.column("n").unwrap()).unwrap().message;
        assert_eq!(message, "there is no operator like for type integer");
        assert!(drafts[1].type_error(bytes).is_none());
        let filters = json!([
            {"column": "b", "op": "ilike", "value": "a%"},
            {"column": "n", "path": ["a"], "op": "=", "value": 1},
            {"column": "items", "path": ["a"], "op": "=", "value": 1},
            {"column": "j", "path": ["a"], "op": "=", "value": 1},
            {"column": "j", "op": "=", "value": "{}"},
            {"column": "j", "op": "is_null"},
            {"column": "items", "op": "like", "value": "a%"},
            {"column": "j", "path": "a", "op": "=", "value": 1},
        ]);
        let body = json!({"filters": filters}).to_string();
        let drafts = filters::read(Some(&filters), body.as_bytes(), &mut Vec::new());
        let error =
            |at: usize, column| drafts[at].type_error(resolved.column(column).unwrap()).map(|error| error.message);
        assert_eq!(error(0, "b").unwrap(), "ilike is for text, not for type bytea");
        assert_eq!(error(1, "n").unwrap(), "is for columns of type json and jsonb, not for type integer");
        assert_eq!(error(2, "items").unwrap(), "is for columns of type json and jsonb, not for type json[]");
        assert_eq!(error(3, "j"), None);
        let hint = "there is no operator = for type json; with a path it compares what is in the document";
        assert_eq!(error(4, "j").as_deref(), Some(hint));
        assert_eq!(error(5, "j"), None);
        assert_eq!(error(6, "items").unwrap(), "there is no operator like for type json[]");
        // The path that could not be read has its error already.
        assert_eq!(error(7, "j"), None);
    }
}
