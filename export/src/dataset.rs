//! Which relations may be exported, and under which name. What columns a relation has is the catalog's.

use std::fmt;

/// A schema-qualified relation name, as the catalog spells it (not quoted).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RelationName {
    pub schema: String,
    pub name: String,
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A relation that the operator exposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub name: String,
    pub relation: RelationName,
}

/// Every dataset there is. A name outside of it does not exist for clients.
#[derive(Debug, Clone)]
pub struct Datasets(Vec<Dataset>);

/// The dataset of a request that names none.
pub const DEFAULT_DATASET: &str = "records";

impl Default for Datasets {
    /// `records` = `public.records`.
    fn default() -> Self {
        Self(vec![Dataset {
            name: DEFAULT_DATASET.to_owned(),
            relation: RelationName { schema: "public".to_owned(), name: "records".to_owned() },
        }])
    }
}

impl Datasets {
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Dataset> {
        self.0.iter().find(|dataset| dataset.name == name)
    }
}
