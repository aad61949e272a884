//! Which relations may be exported, under which name: what the operator's `DATASETS` file says. What columns a
//! relation has is the catalog's.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::dataset_policy::{DatasetPolicy, PolicyEntry, RowFilterEntry};
use polyglot_core::mask::Mask;
use polyglot_core::relation::RelationName;
use polyglot_core::selection::OrderKey;
use polyglot_runtime::config::{ConfigError, Environment};

/// A relation that the operator exposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pub name: String,
    pub relation: RelationName,
    /// The columns that exist for clients; `None`: all of the relation's.
    pub columns: Option<Vec<String>>,
    /// Where a request does not ask for an order. Empty: the primary key.
    pub order_by: Vec<OrderKey>,
    /// Who may see it, and which of its rows.
    pub policy: DatasetPolicy,
}

/// One entry of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "there are as many as the file has entries")]
pub enum Exposed {
    One(Dataset),
    /// Every relation of the schema, each under its own name.
    Schema(String),
}

/// Every dataset there is. A name outside of it does not exist for clients.
#[derive(Debug, Clone)]
pub struct Datasets(Vec<Exposed>);

/// The dataset of a request that names none.
pub(crate) const DEFAULT_DATASET: &str = "records";

impl Default for Datasets {
    /// `records` = `public.records`.
    fn default() -> Self {
        Self(vec![Exposed::One(Dataset {
            name: DEFAULT_DATASET.to_owned(),
            relation: RelationName::records(),
            columns: None,
            order_by: Vec::new(),
            policy: DatasetPolicy::default(),
        })])
    }
}

/// Why a `DATASETS` file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatasetsError {
    #[error("{0}")]
    Syntax(String),
    #[error("dataset[{index}].{field}: {problem}")]
    Entry { index: usize, field: &'static str, problem: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    dataset: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    relation: String,
    columns: Option<Vec<String>>,
    #[serde(default)]
    order_by: Vec<EntryOrderKey>,
    tenants: Option<Vec<String>>,
    #[serde(default)]
    row_filter: Vec<RowFilterEntry>,
    #[serde(default)]
    mask: BTreeMap<String, Mask>,
    role: Option<String>,
    max_rows: Option<u64>,
    max_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EntryOrderKey {
    Ascending(String),
    Key(OrderKey),
}

impl Datasets {
    /// What the file in `DATASETS` says, or the one default dataset.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        const NAME: &str = "DATASETS";
        let Some(path) = env.optional(NAME)? else { return Ok(Self::default()) };
        let problem = |problem: String| ConfigError::Problem { name: NAME.to_owned(), problem };
        let text = std::fs::read_to_string(&path).map_err(|error| problem(format!("cannot read {path:?}: {error}")))?;
        Self::parse(&text).map_err(|error| problem(format!("{path:?}: {error}")))
    }

    /// Reads the text of a `DATASETS` file.
    pub fn parse(text: &str) -> Result<Self, DatasetsError> {
        let file: File = toml::from_str(text).map_err(|error| DatasetsError::Syntax(error.to_string()))?;
        if file.dataset.is_empty() {
            return Err(DatasetsError::Syntax("there is no [[dataset]] in it".to_owned()));
        }
        let mut exposed: Vec<Exposed> = Vec::with_capacity(file.dataset.len());
        for (index, entry) in file.dataset.into_iter().enumerate() {
            let next = entry.read(index)?;
            let taken = |it: &Exposed| match (it, &next) {
                (Exposed::One(earlier), Exposed::One(dataset)) => earlier.name == dataset.name,
                _ => *it == next,
            };
            if exposed.iter().any(taken) {
                let problem = "is there already; give one of them another name".to_owned();
                return Err(DatasetsError::Entry { index, field: "name", problem });
            }
            exposed.push(next);
        }
        Ok(Self(exposed))
    }

    /// Every entry, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[Exposed] {
        &self.0
    }

    /// The relations for which an entry has a policy. A pattern exposes neither them nor what shares rows with them: that would
    /// go around the policy.
    pub fn relations_with_policy(&self) -> impl Iterator<Item = &RelationName> {
        self.0.iter().filter_map(|exposed| match exposed {
            Exposed::One(dataset) => Some(&dataset.relation).filter(|_| !dataset.policy.is_default()),
            Exposed::Schema(_) => None,
        })
    }

    /// The first dataset whose policy takes a key.
    #[must_use]
    pub fn first_that_needs_mask_key(&self) -> Option<&str> {
        self.0.iter().find_map(|exposed| match exposed {
            Exposed::One(dataset) => Some(dataset.name.as_str()).filter(|_| dataset.policy.needs_mask_key()),
            Exposed::Schema(_) => None,
        })
    }

    /// Whether the file names this dataset, and not only a pattern that it falls under.
    #[must_use]
    pub fn is_entry(&self, dataset: &Dataset) -> bool {
        self.0.iter().any(|exposed| matches!(exposed, Exposed::One(entry) if entry == dataset))
    }

    /// Whether the entry of this name is for other tenants than this one. Nothing tells it then from a name that nobody has.
    #[must_use]
    pub fn is_hidden(&self, name: &str, tenant: &str) -> bool {
        let mut named = self.0.iter().filter_map(|exposed| match exposed {
            Exposed::One(dataset) => Some(dataset).filter(|dataset| dataset.name == name),
            Exposed::Schema(_) => None,
        });
        named.any(|dataset| !dataset.policy.admits(tenant))
    }

    /// The entry of that name, if there is one.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Dataset> {
        self.0.iter().find_map(|exposed| match exposed {
            Exposed::One(dataset) if dataset.name == name => Some(dataset),
            _ => None,
        })
    }

    /// What the name may stand for, best first: the entry of that name alone, or else the relation of that name in each exposed
    /// schema. The first one whose relation exists is meant. An entry keeps its name while its relation is away: otherwise whoever
    /// may create a relation in an exposed schema could put one in its place.
    #[must_use]
    pub fn candidates(&self, name: &str) -> Vec<Dataset> {
        if let Some(dataset) = self.named(name) {
            return vec![dataset.clone()];
        }
        let in_schema = self.0.iter().filter_map(|exposed| match exposed {
            Exposed::Schema(schema) => Some(Dataset::whole(schema, name)),
            Exposed::One(_) => None,
        });
        in_schema.collect()
    }
}

impl Dataset {
    /// A relation with all its columns, under its own name.
    #[must_use]
    pub fn whole(schema: &str, name: &str) -> Self {
        let relation = RelationName { schema: schema.to_owned(), name: name.to_owned() };
        Self { name: name.to_owned(), relation, columns: None, order_by: Vec::new(), policy: DatasetPolicy::default() }
    }

    /// Whether clients may know of the column.
    #[must_use]
    pub fn exposes(&self, column: &str) -> bool {
        self.columns.as_ref().is_none_or(|columns| columns.iter().any(|name| name == column))
    }
}

impl Entry {
    fn read(self, index: usize) -> Result<Exposed, DatasetsError> {
        let wrong =
            |field: &'static str, problem: &str| DatasetsError::Entry { index, field, problem: problem.to_owned() };
        let parts = identifiers(&self.relation).ok_or_else(|| {
            wrong(
                "relation",
                "expected schema.relation or schema.*; a name with a dot, a star or a quote goes in double quotes",
            )
        })?;
        let [Identifier::Name(schema), relation] = parts.as_slice() else {
            return Err(wrong("relation", "expected a schema and a relation, schema.relation or schema.*"));
        };
        let policy = PolicyEntry {
            tenants: self.tenants,
            row_filter: self.row_filter,
            masks: self.mask,
            role: self.role,
            max_rows: self.max_rows,
            max_bytes: self.max_bytes,
        };
        let Identifier::Name(relation) = relation else {
            let has_policy = policy != PolicyEntry::default();
            if self.name.is_some() || self.columns.is_some() || !self.order_by.is_empty() || has_policy {
                let problem = "name, columns, order_by and what makes a policy are for one relation, not for schema.*";
                return Err(wrong("relation", problem));
            }
            return Ok(Exposed::Schema(schema.clone()));
        };
        let name = self.name.unwrap_or_else(|| relation.clone());
        if name.trim().is_empty() || name.contains(char::is_control) || name.contains('/') {
            return Err(wrong("name", "may not be empty, nor hold a slash or a control character"));
        }
        if self.columns.as_ref().is_some_and(Vec::is_empty) {
            return Err(wrong("columns", "expected at least one column; leave it out for all of them"));
        }
        let order_by = self.order_by.into_iter().map(|key| match key {
            EntryOrderKey::Ascending(column) => OrderKey::ascending(column),
            EntryOrderKey::Key(key) => key,
        });
        let order_by: Vec<OrderKey> = order_by.collect();
        if let Some(OrderKey { column, .. }) = order_by.iter().find(|key| policy.masks.contains_key(&key.column)) {
            let problem = format!("{column:?} is masked, and the order of the rows would tell of its values");
            return Err(wrong("order_by", &problem));
        }
        let is_left_out = |column: &&String| self.columns.as_ref().is_some_and(|columns| !columns.contains(column));
        if let Some(column) = policy.masks.keys().find(is_left_out) {
            let problem = format!("names {column:?}, which columns does not have, so that nobody gets it in any case");
            return Err(wrong("mask", &problem));
        }
        Ok(Exposed::One(Dataset {
            name,
            relation: RelationName { schema: schema.clone(), name: relation.clone() },
            columns: self.columns,
            order_by,
            policy: DatasetPolicy::read(policy).map_err(|(field, problem)| DatasetsError::Entry {
                index,
                field,
                problem,
            })?,
        }))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Identifier {
    Name(String),
    Star,
}

/// Splits `a.b`, `"A.b".c` or `a.*`. Unquoted names are taken as they are, not folded to lower case.
fn identifiers(text: &str) -> Option<Vec<Identifier>> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    loop {
        let identifier;
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut name = String::new();
            let mut characters = quoted.char_indices().peekable();
            let end = loop {
                match characters.next()? {
                    (_, '"') if characters.next_if(|(_, next)| *next == '"').is_some() => name.push('"'),
                    (at, '"') => break at + 1,
                    (_, character) => name.push(character),
                }
            };
            rest = &quoted[end..];
            identifier = Identifier::Name(name);
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let name = rest[..end].trim();
            rest = &rest[end..];
            identifier = if name == "*" { Identifier::Star } else { Identifier::Name(name.to_owned()) };
            if name != "*" && name.contains(['"', '*']) {
                return None;
            }
        }
        if identifier == Identifier::Name(String::new()) {
            return None;
        }
        found.push(identifier);
        match rest.strip_prefix('.') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Some(found),
            None => return None,
        }
    }
}

#[cfg(test)]
#[path = "dataset_config_mutation_tests.rs"]
mod mutation_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read() {
        let datasets = Datasets::parse(
            r#"
            [[dataset]]
            name = "sales"
            relation = "shop.orders"
            columns = ["id", "total"]
            order_by = ["id", { column = "total", direction = "desc" }]

            [[dataset]]
            relation = '"My Shop"."Odd.Name""s"'

            [[dataset]]
            relation = "public.*"
            "#,
        )
        .unwrap();
        // The relation `sales` of the schema `public` never stands in for it.
        let [sales] = &datasets.candidates("sales")[..] else { panic!() };
        assert_eq!(sales.relation.to_string(), "shop.orders");
        assert!(sales.exposes("total") && !sales.exposes("secret"));
        assert_eq!(sales.order_by.len(), 2);
        let odd = &datasets.candidates("Odd.Name\"s")[0];
        assert_eq!(odd.relation, RelationName { schema: "My Shop".to_owned(), name: "Odd.Name\"s".to_owned() });
        assert_eq!(datasets.candidates("users"), [Dataset::whole("public", "users")]);
        // Without a pattern, an unknown name stands for nothing.
        assert!(Datasets::default().candidates("users").is_empty());
        assert_eq!(Datasets::default().candidates("records")[0].relation, RelationName::records());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "no [[dataset]]"),
            ("[[dataset]]\nrelation = 5", "line 2"),
            ("[[dataset]]\nrelation = \"a.b\"\ncolums = []", "colums"),
            ("[[dataset]]\nname = \"x\"", "relation"),
            ("[[dataset]]\nrelation = \"orders\"", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.b.c\"", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.\"", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"*.b\"", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.b*\"", "dataset[0].relation"),
            ("[[dataset]]\nrelation = '\"a.b'", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.b\"\n[[dataset]]\nrelation = \"c.b\"", "dataset[1].name"),
            ("[[dataset]]\nrelation = \"a.*\"\n[[dataset]]\nrelation = \"a.*\"", "dataset[1].name"),
            ("[[dataset]]\nrelation = \"a.*\"\nname = \"x\"", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.b\"\ncolumns = []", "dataset[0].columns"),
            ("[[dataset]]\nrelation = \"a.b\"\ntenants = []", "dataset[0].tenants"),
            ("[[dataset]]\nrelation = \"a.*\"\ntenants = [\"x\"]", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.b\"\nrow_filter = [{ column = \"c\", op = \"=\" }]", "dataset[0].row_filter"),
            ("[[dataset]]\nrelation = \"a.b\"\nrow_filter = [{ column = \"c\", op = \"=\", clam = \"x\" }]", "clam"),
            ("[[dataset]]\nrelation = \"a.b\"\nname = \" \"", "dataset[0].name"),
            ("[[dataset]]\nrelation = \"a.b\"\nrole = \"none\"", "dataset[0].role"),
            ("[[dataset]]\nrelation = \"a.*\"\nrole = \"r\"", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.b\"\nmax_rows = 0", "dataset[0].max_rows"),
            ("[[dataset]]\nrelation = \"a.b\"\nmax_bytes = -1", "max_bytes"),
            ("[[dataset]]\nrelation = \"a.*\"\nmax_rows = 1", "dataset[0].relation"),
            ("[[dataset]]\nrelation = \"a.*\"\nmask = { c = \"hash\" }", "dataset[0].relation"),
            (
                "[[dataset]]\nrelation = \"a.b\"\nmask = { c = \"md5\" }",
                "`md5`, expected one of `hash`, `last4`, `null`",
            ),
            ("[[dataset]]\nrelation = \"a.b\"\ncolumns = [\"d\"]\nmask = { c = \"null\" }", "dataset[0].mask"),
            ("[[dataset]]\nrelation = \"a.b\"\norder_by = [\"c\"]\nmask = { c = \"null\" }", "dataset[0].order_by"),
        ] {
            let error = Datasets::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_names_the_variable() {
        let env = Environment::fixed(&[("DATASETS", "/nowhere/datasets.toml")]);
        let error = Datasets::from_environment(&env).unwrap_err().to_string();
        assert!(error.starts_with("DATASETS: cannot read"), "{error}");
    }
}
