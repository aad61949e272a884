//! Query parameters, parsed strictly: an unknown or repeated parameter is an error that names it. Otherwise a filter with a
//! typing mistake would be ignored.

use axum::extract::Query;
use axum::http::Uri;

use crate::problem::{FieldError, RouteError, listed, quoted};

/// The parameters of a request, each of them known and given once.
#[derive(Debug)]
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(crate) fn read(uri: &Uri, known: &[&str]) -> Result<Self, RouteError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| RouteError::invalid("query", "cannot be read as name=value pairs"))?;
        let mut errors = Vec::new();
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let field = name.chars().take(80).collect::<String>();
                errors.push(FieldError::new(field, format!("unknown parameter; there is {}", listed(known))));
            } else if pairs[..at].iter().any(|(earlier, _)| earlier == name) {
                errors.push(FieldError::new(name, "may be given only once"));
            }
        }
        if errors.is_empty() { Ok(Self(pairs)) } else { Err(RouteError::Invalid(errors)) }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A whole number in `range`.
    pub(crate) fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, RouteError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        match text.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let (start, end) = (range.start(), range.end());
                let message = format!("expected a whole number from {start} to {end}, but it is {}", quoted(text));
                Err(RouteError::invalid(name, message))
            }
        }
    }
}
