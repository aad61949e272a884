//! Who may see a dataset, which of its rows, and which of its values: what an entry of the `DATASETS` file says about it, and the
//! filters that follow for one caller. All of it becomes part of the request, so that a worker applies it.

use std::collections::BTreeMap;

use polyglot_core::grant::Grant;
use polyglot_core::mask::Mask;
use polyglot_core::selection::{Filter, FilterOp};
use polyglot_core::tenant;
use serde::Deserialize;

use crate::identity::Identity;

/// The policy of a dataset. The default lets everybody see everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatasetPolicy {
    /// The tenants for which the dataset exists; `None`: all.
    tenants: Option<Vec<String>>,
    /// Conditions that hold for every row that a caller gets.
    row_filter: Vec<RowFilter>,
    /// What callers get in place of the values of a column.
    masks: BTreeMap<String, Mask>,
    /// The role of the source that reads the rows.
    role: Option<String>,
    max_rows: Option<u64>,
    max_bytes: Option<u64>,
}

/// What an entry of the file says of its policy.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct PolicyEntry {
    pub(crate) tenants: Option<Vec<String>>,
    pub(crate) row_filter: Vec<RowFilterEntry>,
    pub(crate) masks: BTreeMap<String, Mask>,
    pub(crate) role: Option<String>,
    pub(crate) max_rows: Option<u64>,
    pub(crate) max_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct RowFilter {
    column: String,
    op: FilterOp,
    value: FilterValue,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum FilterValue {
    /// What the caller's identity says under this name.
    Claim(String),
    Constants(Vec<String>),
}

/// A condition of the file.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RowFilterEntry {
    column: String,
    op: String,
    claim: Option<String>,
    value: Option<toml::Value>,
}

/// The row filter needs something that the caller's identity does not say.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the row filter on {column:?} needs the claim {claim:?}, of which the caller has {found} values")]
pub(crate) struct ClaimMissing {
    column: String,
    claim: String,
    found: usize,
}

impl DatasetPolicy {
    /// Reads what an entry of the file says. The error is the field and what is wrong with it.
    pub(crate) fn read(entry: PolicyEntry) -> Result<Self, (&'static str, String)> {
        let PolicyEntry { tenants, row_filter, masks, role, max_rows, max_bytes } = entry;
        if let Some(wrong) = tenants.iter().flatten().find(|name| !tenant::is_valid(name)) {
            return Err(("tenants", format!("{wrong:?} cannot be a tenant: 1 to 64 of A-Z a-z 0-9 . _ -")));
        }
        if tenants.as_ref().is_some_and(Vec::is_empty) {
            return Err(("tenants", "expected at least one; leave it out for all of them".to_owned()));
        }
        // `SET ROLE "none"` means the service's own role, and there can be no other of this name.
        if role.as_ref().is_some_and(|role| role.is_empty() || role == "none" || role.contains('\0')) {
            return Err(("role", "expected the name of a role; leave it out for the service's own".to_owned()));
        }
        for (field, limit) in [("max_rows", max_rows), ("max_bytes", max_bytes)] {
            if limit == Some(0) {
                return Err((field, "expected at least 1; leave it out for any number".to_owned()));
            }
        }
        let row_filter: Result<Vec<RowFilter>, String> = row_filter.into_iter().map(RowFilterEntry::read).collect();
        let row_filter = row_filter.map_err(|problem| ("row_filter", problem))?;
        Ok(Self { tenants, row_filter, masks, role, max_rows, max_bytes })
    }

    /// Whether it says anything.
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the dataset exists for this tenant.
    pub(crate) fn admits(&self, tenant: &str) -> bool {
        self.tenants.as_ref().is_none_or(|tenants| tenants.iter().any(|name| name == tenant))
    }

    /// Whether callers of one tenant may get different rows.
    pub(crate) fn is_by_person(&self) -> bool {
        let by_person = |filter: &RowFilter| matches!(&filter.value, FilterValue::Claim(claim) if claim != "tenant");
        self.row_filter.iter().any(by_person)
    }

    /// Whether callers may get less than all rows. How many there are is not told then.
    pub(crate) fn limits_rows(&self) -> bool {
        !self.row_filter.is_empty() || self.role.is_some()
    }

    /// The role of the source that reads the rows; `None`: the service's own.
    pub(crate) fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// The columns that it names, each with the field that does.
    pub(crate) fn columns(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let of_rows = self.row_filter.iter().map(|filter| ("row_filter", &filter.column));
        of_rows.chain(self.masks.keys().map(|column| ("mask", column)))
    }

    /// What callers may have of the relation, of whose columns they know these.
    pub(crate) fn grant(&self, columns: Option<Vec<String>>) -> Grant {
        Grant {
            columns,
            masks: self.masks.clone(),
            role: self.role.clone(),
            max_rows: self.max_rows,
            max_bytes: self.max_bytes,
        }
    }

    /// The masked columns.
    pub(crate) fn masks(&self) -> &BTreeMap<String, Mask> {
        &self.masks
    }

    /// Whether it takes a key to apply it.
    pub(crate) fn needs_mask_key(&self) -> bool {
        self.masks.values().any(|mask| *mask == Mask::Hash)
    }

    /// The conditions on the rows of this caller.
    ///
    /// # Errors
    /// When the caller's identity does not say what a condition needs. There is no filter then that could be left out.
    pub(crate) fn filters(&self, caller: &Identity) -> Result<Vec<Filter>, ClaimMissing> {
        self.row_filter.iter().map(|filter| filter.of(caller)).collect()
    }
}

impl RowFilter {
    fn of(&self, caller: &Identity) -> Result<Filter, ClaimMissing> {
        let values = match &self.value {
            FilterValue::Constants(values) => values.clone(),
            FilterValue::Claim(claim) => {
                let values = caller.claim(claim);
                if values.is_empty() || (values.len() > 1 && self.op != FilterOp::In) {
                    let (column, claim) = (self.column.clone(), claim.clone());
                    return Err(ClaimMissing { column, claim, found: values.len() });
                }
                values
            }
        };
        Ok(Filter { column: self.column.clone(), path: Vec::new(), op: self.op, values })
    }
}

impl RowFilterEntry {
    fn read(self) -> Result<RowFilter, String> {
        let Self { column, op: name, claim, value } = self;
        let op = FilterOp::from_name(&name).ok_or_else(|| format!("there is no operator {name:?}"))?;
        let value = match (op, claim, value) {
            (FilterOp::IsNull | FilterOp::IsNotNull, None, None) => FilterValue::Constants(Vec::new()),
            (FilterOp::IsNull | FilterOp::IsNotNull, _, _) => {
                return Err(format!("{name} takes neither claim nor value"));
            }
            (FilterOp::Like | FilterOp::Ilike, Some(_), _) => {
                return Err(format!("{name} takes no claim: what a caller is called would be a pattern"));
            }
            (_, Some(claim), None) if !claim.is_empty() => FilterValue::Claim(claim),
            (_, None, Some(value)) => FilterValue::Constants(constants(op, &value)?),
            _ => return Err(format!("the condition on {column:?} needs either a claim or a value")),
        };
        Ok(RowFilter { column, op, value })
    }
}

fn constants(op: FilterOp, value: &toml::Value) -> Result<Vec<String>, String> {
    let one = |value: &toml::Value| match value {
        toml::Value::String(text) if text.contains('\0') => Err("a value may not hold U+0000".to_owned()),
        toml::Value::String(text) => Ok(text.clone()),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(truth) => Ok(truth.to_string()),
        toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => {
            Err("expected a value that is a string, a whole number or a boolean; write others as a string".to_owned())
        }
    };
    match (op, value) {
        (FilterOp::In, toml::Value::Array(values)) if !values.is_empty() => values.iter().map(one).collect(),
        (FilterOp::In, _) => Err("the operator in needs an array of values".to_owned()),
        (_, value) => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entry: &str) -> Result<DatasetPolicy, String> {
        let entry: RowFilterEntry = toml::from_str(entry).map_err(|error| error.to_string())?;
        DatasetPolicy::read(PolicyEntry { row_filter: vec![entry], ..PolicyEntry::default() })
            .map_err(|(_, problem)| problem)
    }

    #[test]
    fn the_caller_s_own_rows_are_asked_for() {
        let policy = read("column = 'tenant_id'\nop = '='\nclaim = 'tenant'").unwrap();
        let caller = Identity::for_test("acme", r#"{"regions": ["north", 7], "level": 3, "boss": true, "nested": {}}"#);
        let filter = |column: &str, op, values: &[&str]| Filter {
            column: column.to_owned(),
            path: Vec::new(),
            op,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        assert_eq!(policy.filters(&caller), Ok(vec![filter("tenant_id", FilterOp::Equal, &["acme"])]));
        let regions = read("column = 'region'\nop = 'in'\nclaim = 'regions'").unwrap();
        assert_eq!(regions.filters(&caller), Ok(vec![filter("region", FilterOp::In, &["north", "7"])]));
        let level = read("column = 'level'\nop = '<='\nclaim = 'level'").unwrap();
        assert_eq!(level.filters(&caller), Ok(vec![filter("level", FilterOp::LessOrEqual, &["3"])]));
        let fixed = read("column = 'deleted'\nop = '='\nvalue = false").unwrap();
        assert_eq!(fixed.filters(&caller), Ok(vec![filter("deleted", FilterOp::Equal, &["false"])]));
        // No filter is left out because nothing is known: there is no answer then.
        for (op, claim) in [("=", "missing"), ("=", "regions"), ("in", "nested"), ("in", "missing")] {
            let policy = read(&format!("column = 'a'\nop = '{op}'\nclaim = '{claim}'")).unwrap();
            assert!(policy.filters(&caller).is_err(), "{op} {claim}");
        }
    }

    #[test]
    fn what_cannot_be_applied_is_refused_when_it_is_read() {
        for (entry, words) in [
            ("column = 'a'\nop = '='", "either a claim or a value"),
            ("column = 'a'\nop = '='\nclaim = 'b'\nvalue = 1", "either a claim or a value"),
            ("column = 'a'\nop = '='\nclaim = ''", "either a claim or a value"),
            ("column = 'a'\nop = '~'\nvalue = 1", "no operator"),
            ("column = 'a'\nop = 'in'\nvalue = 1", "array"),
            ("column = 'a'\nop = 'in'\nvalue = []", "array"),
            ("column = 'a'\nop = '='\nvalue = 1.5", "string"),
            ("column = 'a'\nop = 'is_null'\nvalue = 1", "neither"),
            ("column = 'a'\nop = 'like'\nclaim = 'tenant'", "pattern"),
            ("column = 'a'\nop = '='\nvalue = 1\npath = ['b']", "path"),
        ] {
            let problem = read(entry).unwrap_err();
            assert!(problem.contains(words), "{entry}: {problem}");
        }
        let for_tenants = |tenants: &[&str]| {
            let tenants = Some(tenants.iter().map(|tenant| (*tenant).to_owned()).collect());
            DatasetPolicy::read(PolicyEntry { tenants, ..PolicyEntry::default() })
        };
        let (field, _) = for_tenants(&["a/b"]).unwrap_err();
        assert_eq!(field, "tenants");
        assert!(for_tenants(&[]).is_err());
        let policy = for_tenants(&["acme"]).unwrap();
        assert!(policy.admits("acme") && !policy.admits("other") && !policy.is_default());
        assert!(DatasetPolicy::default().admits("other"));
    }
}
