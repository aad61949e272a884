//! A dataset resolved to its relation, as clients may see it: without the columns that the operator does not expose.

use crate::dataset_config::Dataset;
use polyglot_core::column::Column;
use polyglot_core::format::FormatName;
use polyglot_core::mask::Mask;
use polyglot_core::order::Order;
use polyglot_core::relation::Relation;
use polyglot_core::request::{ColumnMapping, ExportRequest};
use polyglot_core::selection::OrderKey;

use crate::problem::RouteError;

/// A configured dataset and the relation in the source database that it names.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedDataset {
    pub(crate) dataset: Dataset,
    /// With all columns, also those that are not exposed.
    pub(crate) relation: Relation,
}

impl ResolvedDataset {
    /// Checks the configuration against the relation. An exposed column that does not exist is logged.
    ///
    /// # Errors
    /// If the configured order, row filter or mask names a column that does not exist.
    pub(crate) fn new(dataset: Dataset, relation: Relation) -> Result<Self, RouteError> {
        let missing = |column: &&String| relation.column(column).is_none();
        for column in dataset.columns.iter().flatten().filter(missing) {
            tracing::warn!(dataset = dataset.name, column, "DATASETS exposes a column that the relation does not have");
        }
        if let Some(column) = dataset.order_by.iter().map(|key| &key.column).find(missing) {
            let problem = format!("order_by names {column:?}, and {} has no such column", dataset.relation);
            return Err(RouteError::DatasetUnavailable { dataset: dataset.name, source: problem.into() });
        }
        if let Some((field, column)) = dataset.policy.columns().find(|(_, column)| missing(column)) {
            let problem = format!("{field} names {column:?}, and {} has no such column", dataset.relation);
            return Err(RouteError::DatasetUnavailable { dataset: dataset.name, source: problem.into() });
        }
        Ok(Self { dataset, relation })
    }

    /// The exposed columns, in the order of the relation.
    pub(crate) fn columns(&self) -> impl Iterator<Item = &Column> {
        self.relation.columns.iter().filter(|column| self.dataset.exposes(&column.name))
    }

    /// The column with this name, if it is exposed.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.relation.column(name).filter(|_| self.dataset.exposes(name))
    }

    /// What callers get in place of the column's values; `None`: the values.
    pub(crate) fn mask(&self, column: &str) -> Option<Mask> {
        self.dataset.policy.masks().get(column).copied()
    }

    /// The primary key; empty if there is none, or if not all of its columns are exposed.
    pub(crate) fn primary_key(&self) -> &[String] {
        let whole = self.relation.primary_key.iter().all(|column| self.dataset.exposes(column));
        if whole { &self.relation.primary_key } else { &[] }
    }

    /// The order of an export that asks for none, up to the first key that is not exposed, and whether the complete order
    /// is total.
    pub(crate) fn default_order(&self) -> (Vec<OrderKey>, bool) {
        let request = self.request("csv", Vec::new());
        let order = Order::of(&request, &self.relation);
        (order.shown(&request), order.total)
    }

    /// A request for `columns`, with every choice left to the dataset.
    pub(crate) fn request(&self, format: impl Into<FormatName>, columns: Vec<ColumnMapping>) -> ExportRequest {
        ExportRequest {
            grant: self.dataset.policy.grant(self.dataset.columns.clone()),
            order_by: self.dataset.order_by.clone(),
            ..ExportRequest::new(&self.dataset.name, self.dataset.relation.clone(), format, columns)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use polyglot_core::column::{TypeNames, WireType};
    use polyglot_core::relation::RelationKind;
    use polyglot_core::relation::RelationName;

    use super::*;

    /// A nullable column that is no array.
    pub(crate) fn column(name: &str, sql_type: &str, wire: WireType) -> Column {
        let (name, sql_type, type_names) = (name.to_owned(), sql_type.to_owned(), TypeNames::built_in(sql_type));
        Column { name, sql_type, type_names, wire, array: None, nullable: true, wide: false, is_non_text: false }
    }

    pub(crate) fn relation(columns: Vec<Column>, primary_key: &[&str]) -> Relation {
        Relation {
            name: RelationName::records(),
            kind: RelationKind::Table,
            columns,
            primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
            estimated_rows: Some(1000),
            stored_bytes: 0,
            toast_bytes: None,
            locked: false,
            runs_foreign_code: false,
        }
    }

    /// The dataset `records` over text columns.
    pub(crate) fn records(columns: &[&str]) -> ResolvedDataset {
        let columns = columns.iter().map(|name| column(name, "text", WireType::Text)).collect();
        ResolvedDataset::new(Dataset::whole("public", "records"), relation(columns, &["id"])).unwrap()
    }

    fn exposing(columns: &[&str], order_by: &[&str]) -> Dataset {
        Dataset {
            columns: Some(columns.iter().map(|name| (*name).to_owned()).collect()),
            order_by: order_by.iter().map(|name| OrderKey::ascending(*name)).collect(),
            ..Dataset::whole("public", "records")
        }
    }

    #[test]
    fn what_is_kept_back_is_nowhere() {
        let whole = records(&["id", "a", "secret", "b"]).relation;
        let keyed = Relation { primary_key: vec!["a".to_owned(), "secret".to_owned()], ..whole };
        let resolved = ResolvedDataset::new(exposing(&["b", "a", "gone"], &["b"]), keyed).unwrap();
        let names: Vec<_> = resolved.columns().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(resolved.column("a").is_some() && resolved.column("secret").is_none());
        assert!(resolved.primary_key().is_empty());
        let keys = [OrderKey::ascending("b"), OrderKey::ascending("a")];
        assert_eq!(resolved.default_order(), (keys.to_vec(), true));
        let request = resolved.request("csv", Vec::new());
        assert!(!request.grant.exposes("secret"));
        assert_eq!(request.order_by, [OrderKey::ascending("b")]);
    }

    #[test]
    fn an_order_by_what_is_not_there_is_the_operator_s_problem() {
        let whole = records(&["id"]).relation;
        let error = ResolvedDataset::new(exposing(&["id"], &["gone"]), whole).unwrap_err();
        assert!(matches!(error, RouteError::DatasetUnavailable { .. }), "{error}");
        assert!(polyglot_core::failure::chain(&error).contains("order_by names \"gone\""));
    }
}
