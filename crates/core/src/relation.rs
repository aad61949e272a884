//! A relation: its name, its kind, its columns, its key and its size, as PostgreSQL's catalog describes it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::column::{Column, TypeNames, WireType};

/// A schema-qualified relation name, as the catalog spells it (not quoted).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RelationName {
    pub schema: String,
    pub name: String,
}

impl RelationName {
    /// `public.records`, the relation of the default dataset.
    #[must_use]
    pub fn records() -> Self {
        Self { schema: "public".to_owned(), name: "records".to_owned() }
    }
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The kind of a relation, by `pg_class.relkind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    View,
    MaterializedView,
    ForeignTable,
}

impl RelationKind {
    /// Whether the rows are stored in this database. The size of others is not known.
    #[must_use]
    pub fn is_stored(self) -> bool {
        matches!(self, Self::Table | Self::PartitionedTable | Self::MaterializedView)
    }

    /// Whether a relation of this kind can be sharded: its rows stay the same under a snapshot, it can have an index, and it has
    /// pages to sample. A materialized view has all but the first, because every snapshot sees its new rows.
    #[must_use]
    pub fn can_be_sharded(self) -> bool {
        matches!(self, Self::Table | Self::PartitionedTable)
    }

    /// The name in SQL.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::PartitionedTable => "partitioned table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::ForeignTable => "foreign table",
        }
    }
}

/// A relation as the catalog describes it.
#[derive(Debug, Clone)]
pub struct Relation {
    pub name: RelationName,
    pub kind: RelationKind,
    /// In the order of the table, dropped ones left out.
    pub columns: Vec<Column>,
    /// Names of the primary key's columns in key order; empty where there is none.
    pub primary_key: Vec<String>,
    /// `None` until the relation was analyzed.
    pub estimated_rows: Option<u64>,
    /// Heap and TOAST with all partitions, without indexes.
    pub stored_bytes: u64,
    /// TOAST alone, where values that do not fit a page are; `None` where that is not known, as of a view.
    pub toast_bytes: Option<u64>,
    /// Whether another session holds or waits for a lock that keeps everybody from reading. The sizes are not known then.
    pub locked: bool,
    /// Whether planning or reading it may run code that is not PostgreSQL's own. A session in which such code may have run is not
    /// used for anything else.
    pub runs_foreign_code: bool,
}

impl Relation {
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Relation {
    /// A table of nullable text columns that was never analyzed: what tests start from.
    #[must_use]
    pub fn for_test(columns: &[&str], primary_key: &[&str]) -> Self {
        let column = |name: &&str| Column {
            name: (*name).to_owned(),
            sql_type: "text".to_owned(),
            type_names: TypeNames::built_in("text"),
            wire: WireType::Text,
            array: None,
            nullable: true,
            wide: true,
            is_non_text: false,
        };
        Self {
            name: RelationName::records(),
            kind: RelationKind::Table,
            columns: columns.iter().map(column).collect(),
            primary_key: primary_key.iter().map(|name| (*name).to_owned()).collect(),
            estimated_rows: None,
            stored_bytes: 0,
            toast_bytes: None,
            locked: false,
            runs_foreign_code: false,
        }
    }
}
