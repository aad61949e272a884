//! Which rows, in which order, as a request says it: filters and order keys. The SQL that they become is the crate
//! `source`'s.

use serde::{Deserialize, Serialize};

/// A condition on one column, or on what is in a JSON column at a path. A row for which it is not true, NULL included, is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    pub column: String,
    /// Keys of objects and positions in arrays from the column's document down to what is compared; empty: the column itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<String>,
    pub op: FilterOp,
    /// One value; none for `is_null` and `is_not_null`; any number for `in`. As text, which the server reads as the
    /// column's type; with a path, a string, number or boolean as JSON ([`JsonScalar`]), which is compared with values of its own
    /// type alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilterOp {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "!=")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = ">")]
    Greater,
    #[serde(rename = ">=")]
    GreaterOrEqual,
    #[serde(rename = "in")]
    In,
    #[serde(rename = "is_null")]
    IsNull,
    #[serde(rename = "is_not_null")]
    IsNotNull,
    #[serde(rename = "like")]
    Like,
    #[serde(rename = "ilike")]
    Ilike,
}

impl FilterOp {
    pub const ALL: [Self; 11] = [
        Self::Equal,
        Self::NotEqual,
        Self::Less,
        Self::LessOrEqual,
        Self::Greater,
        Self::GreaterOrEqual,
        Self::In,
        Self::IsNull,
        Self::IsNotNull,
        Self::Like,
        Self::Ilike,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::IsNull => "is_null",
            Self::IsNotNull => "is_not_null",
            Self::Like => "like",
            Self::Ilike => "ilike",
        }
    }

    /// The operator of that exact name, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|op| op.name() == name)
    }
}

/// A value of a filter with a path, out of its JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonScalar {
    String(String),
    /// Its digits, as the client wrote them.
    Number(String),
    Boolean(bool),
}

impl JsonScalar {
    /// Reads what a stored filter has; `None` for anything else.
    #[must_use]
    pub fn read(json: &str) -> Option<Self> {
        match json {
            "true" => Some(Self::Boolean(true)),
            "false" => Some(Self::Boolean(false)),
            text if text.starts_with('"') => serde_json::from_str(text).ok().map(Self::String),
            number => {
                let is_number = matches!(serde_json::from_str(number), Ok(serde_json::Value::Number(_)));
                // Digits beyond the range of a double are a number, too.
                let is_large = || serde_json::from_str::<&serde_json::value::RawValue>(number).is_ok();
                let is_digit = number.starts_with(|first: char| first == '-' || first.is_ascii_digit());
                (is_number || (is_digit && is_large())).then(|| Self::Number(number.to_owned()))
            }
        }
    }
}

/// One column of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OrderKey {
    pub column: String,
    #[serde(default)]
    pub direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    #[default]
    Asc,
    Desc,
}

impl OrderKey {
    #[must_use]
    pub fn ascending(column: impl Into<String>) -> Self {
        Self { column: column.into(), direction: Direction::Asc }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_a_path_are_read_by_their_json_type() {
        for (json, expected) in [
            ("true", Some(JsonScalar::Boolean(true))),
            ("17", Some(JsonScalar::Number("17".to_owned()))),
            ("-1.50E+3", Some(JsonScalar::Number("-1.50E+3".to_owned()))),
            ("1e999", Some(JsonScalar::Number("1e999".to_owned()))),
            (r#""17""#, Some(JsonScalar::String("17".to_owned()))),
            (r#""a \"b\"""#, Some(JsonScalar::String("a \"b\"".to_owned()))),
            ("1; DROP", None),
            ("1 OR 2", None),
            ("null", None),
            ("[1]", None),
            ("", None),
            (r#""a"b"#, None),
        ] {
            assert_eq!(JsonScalar::read(json), expected, "{json}");
        }
    }

    #[test]
    fn a_filter_without_a_path_is_stored_as_before() {
        let stored = r#"{"column":"a","op":"=","values":["1"]}"#;
        let filter: Filter = serde_json::from_str(stored).unwrap();
        assert_eq!(filter.path, [""; 0]);
        assert_eq!(serde_json::to_string(&filter).unwrap(), stored);
    }

    #[test]
    fn operators_have_the_names_they_are_stored_under() {
        for op in FilterOp::ALL {
            assert_eq!(serde_json::to_value(op).unwrap(), op.name());
            assert_eq!(FilterOp::from_name(op.name()), Some(op));
        }
    }
}
