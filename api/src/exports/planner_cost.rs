//! The limit of a submission's cost: what PostgreSQL expects to spend on its query, which it plans and does not run.

use polyglot_core::order::Order;
use polyglot_core::relation::Relation;
use polyglot_core::request::ExportRequest;
use polyglot_source::sql::{order_sql, quote_identifier, quote_relation, where_sql};

use crate::problem::RouteError;
use crate::source::{CACHE_MAX_AGE, Source};
use crate::timeout;

/// Refuses a request whose query is expected to cost more than `max`. One of which the server tells no cost passes.
pub(super) async fn check(source: &Source, request: &ExportRequest, max: f64) -> Result<(), RouteError> {
    let resolved = source.resolve_readable(&request.dataset, CACHE_MAX_AGE).await?;
    // The dataset existed during the validation.
    let resolved = resolved.ok_or_else(|| RouteError::UnknownDataset(request.dataset.clone()))?;
    let explain = explain(request, &resolved.relation)?;
    // What the server refuses now, the validation has found planned: another session has changed the relation since.
    let estimate = timeout::source(source.plan(&resolved, &explain)).await?.unwrap_or_default();
    match estimate.cost {
        Some(cost) if cost > max => {
            // The planner's statistics are of all rows, also those of others.
            let cost = (!resolved.dataset.policy.limits_rows()).then_some(cost);
            Err(RouteError::QueryTooCostly { cost, max })
        }
        _ => Ok(()),
    }
}

/// The columns are part of it: those of a view may be what costs.
fn explain(request: &ExportRequest, relation: &Relation) -> Result<String, RouteError> {
    let columns: Vec<_> = request.columns.iter().map(|it| format!("r.{}", quote_identifier(&it.source))).collect();
    let conditions = where_sql(&request.filters, relation, "r")
        .map_err(|column| RouteError::Internal(format!("a filter of {column:?}, which was found before").into()))?;
    let order = order_sql(&Order::of(request, relation), "r");
    Ok(format!("EXPLAIN SELECT {} FROM {} AS r{conditions}{order}", columns.join(", "), quote_relation(&relation.name)))
}

#[cfg(test)]
mod tests {
    use polyglot_core::request::ColumnMapping;
    use polyglot_core::selection::OrderKey;

    use super::*;
    use crate::resolved_dataset::tests::records;

    #[test]
    fn the_whole_query_is_planned() {
        let resolved = records(&["id", "na\"me"]);
        let columns = vec![ColumnMapping { source: "na\"me".to_owned(), target: "'; DROP".to_owned() }];
        let request = ExportRequest { order_by: vec![OrderKey::ascending("id")], ..resolved.request("csv", columns) };
        assert_eq!(
            explain(&request, &resolved.relation).unwrap(),
            "EXPLAIN SELECT r.\"na\"\"me\" FROM \"public\".\"records\" AS r ORDER BY r.\"id\""
        );
    }
}
