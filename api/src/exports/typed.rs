//! Whether the server would run the filters and the order of a submission. It is the server that knows what text is a
//! value of a type and which operators a type has, so it is asked to plan the query, which it does without reading rows.

use polyglot_export::catalog::{quote_identifier, quote_relation};
use polyglot_export::selection::{Filter, FilterOp, Order, OrderKey, where_sql};

use super::filters::DraftFilter;
use super::order::DraftKey;
use crate::described::Described;
use crate::patience;
use crate::problem::{FieldError, RouteError, quoted};
use crate::source::{Refused, Source};

/// Who plans statements.
pub(super) trait Planner {
    /// As `Source::plan`.
    fn plan(
        &self,
        dataset: &str,
        statements: &str,
    ) -> impl Future<Output = Result<Result<(), Refused>, RouteError>> + Send;
}

impl Planner for Source {
    fn plan(
        &self,
        dataset: &str,
        statements: &str,
    ) -> impl Future<Output = Result<Result<(), Refused>, RouteError>> + Send {
        self.plan(dataset, statements)
    }
}

/// What is to be checked. The columns of both are known to exist.
pub(super) struct Selection<'a> {
    pub(super) described: &'a Described,
    pub(super) filters: Vec<(&'a DraftFilter, Filter)>,
    pub(super) order_by: &'a [DraftKey],
}

impl Selection<'_> {
    /// What the server does not take, each under its field. One round trip where it takes everything, and none where
    /// nothing depends on a type.
    pub(super) async fn check(&self, server: &(impl Planner + Sync)) -> Result<Vec<FieldError>, RouteError> {
        let typed = self.filters.iter().any(|(_, filter)| !filter.values.is_empty());
        if !typed && self.order_by.is_empty() {
            return Ok(Vec::new());
        }
        patience::source(async {
            match self.plan(server, &self.everything()).await? {
                Ok(()) => Ok(Vec::new()),
                Err(refused) => self.find(server, &refused).await,
            }
        })
        .await
    }

    async fn plan(&self, server: &impl Planner, statements: &str) -> Result<Result<(), Refused>, RouteError> {
        server.plan(&self.described.dataset.name, statements).await
    }

    /// The order that the export will have, without the key behind it, which has an order for certain.
    fn keys(&self) -> Vec<OrderKey> {
        if self.order_by.is_empty() {
            self.described.dataset.order_by.clone()
        } else {
            self.order_by.iter().map(|draft| draft.key.clone()).collect()
        }
    }

    /// The whole query, and what planning it does not find out.
    fn everything(&self) -> String {
        let filters: Vec<Filter> = self.filters.iter().map(|(_, filter)| filter.clone()).collect();
        let mut statements = self.explain(&filters, &order(self.keys()));
        for (_, filter) in &self.filters {
            let needs = self.needs(filter);
            if !needs.is_empty() {
                statements.push_str("; ");
                statements.push_str(&self.explain(&[], &needs));
            }
        }
        statements
    }

    fn explain(&self, filters: &[Filter], behind: &str) -> String {
        let relation = &self.described.relation;
        let conditions = where_sql(filters, relation, "r").expect("the columns of the filters were looked up");
        format!("EXPLAIN SELECT FROM {} AS r{conditions}{behind}", quote_relation(&relation.name))
    }

    /// Every array has the operators, but they fail at the first row if the items have none. Grouping and sorting are
    /// not planned without.
    fn needs(&self, filter: &Filter) -> String {
        let is_array = self.described.column(&filter.column).is_some_and(|column| column.array.is_some());
        let clause = match filter.op {
            FilterOp::Equal | FilterOp::NotEqual | FilterOp::In => "GROUP BY",
            FilterOp::Less | FilterOp::LessOrEqual | FilterOp::Greater | FilterOp::GreaterOrEqual => "ORDER BY",
            FilterOp::IsNull | FilterOp::IsNotNull | FilterOp::Like => return String::new(),
        };
        if is_array { format!(" {clause} r.{}", quote_identifier(&filter.column)) } else { String::new() }
    }

    /// Asks one by one what it was that the server `refused`.
    async fn find(&self, server: &impl Planner, refused: &Refused) -> Result<Vec<FieldError>, RouteError> {
        let unusable = |problem: &str, refused: &Refused| RouteError::DatasetUnavailable {
            dataset: self.described.dataset.name.clone(),
            source: format!("{problem} (SQLSTATE {})", refused.sql_state).into(),
        };
        // A view may have conditions of its own.
        if let Err(refused) = self.plan(server, &self.explain(&[], "")).await? {
            return Err(unusable("the server does not plan a plain read of the relation", &refused));
        }
        let mut errors = Vec::new();
        for (draft, filter) in &self.filters {
            let statements = format!(
                "{}; {}",
                self.explain(std::slice::from_ref(filter), ""),
                self.explain(&[], &self.needs(filter))
            );
            if let Err(refused) = self.plan(server, &statements).await? {
                errors.push(self.refusal(server, draft, filter, &refused).await?);
            }
        }
        for draft in self.order_by {
            if self.plan(server, &self.explain(&[], &order(vec![draft.key.clone()]))).await?.is_err() {
                let message = format!("rows have no order by type {}", self.type_of(&draft.key.column));
                errors.push(FieldError::new(draft.column_field(), message));
            }
        }
        if self.order_by.is_empty()
            && let Err(refused) = self.plan(server, &self.explain(&[], &order(self.keys()))).await?
        {
            return Err(unusable("rows cannot be sorted by the order_by of DATASETS", &refused));
        }
        if errors.is_empty() {
            let problem = format!("SQLSTATE {} for all that is fine one by one", refused.sql_state);
            return Err(RouteError::Internal(problem.into()));
        }
        Ok(errors)
    }

    async fn refusal(
        &self,
        server: &impl Planner,
        draft: &DraftFilter,
        filter: &Filter,
        refused: &Refused,
    ) -> Result<FieldError, RouteError> {
        let sql_type = self.type_of(&filter.column);
        // Class 22 is bad data; 23 is what a domain's check answers.
        if !["22", "23"].iter().any(|class| refused.sql_state.starts_with(class)) {
            let message = format!("there is no operator {} for type {sql_type}", filter.op.name());
            return Ok(FieldError::new(draft.op_field(), message));
        }
        let mut at = 0;
        let mut field = draft.value_field();
        if filter.op == FilterOp::In {
            at = self.first_bad(server, filter).await?;
            field = format!("{field}[{at}]");
        }
        let value = quoted(filter.values.get(at).map_or("", String::as_str));
        let problem = match refused.sql_state.as_str() {
            "22003" | "22008" => "is out of the range of",
            _ => "is not a value of",
        };
        Ok(FieldError::new(field, format!("{value} {problem} type {sql_type}")))
    }

    /// The place of the first value that the server refuses: halving, it is found in ten questions at most.
    async fn first_bad(&self, server: &impl Planner, filter: &Filter) -> Result<usize, RouteError> {
        let (mut good, mut bad) = (0, filter.values.len());
        while bad - good > 1 {
            let middle = usize::midpoint(good, bad);
            let half = Filter { values: filter.values[good..middle].to_vec(), ..filter.clone() };
            if self.plan(server, &self.explain(&[half], "")).await?.is_ok() {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Ok(good)
    }

    fn type_of(&self, column: &str) -> &str {
        self.described.column(column).map_or("", |column| &column.sql_type)
    }
}

fn order(keys: Vec<OrderKey>) -> String {
    Order { keys, total: false }.sql("r")
}
