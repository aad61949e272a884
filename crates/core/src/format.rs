//! The name of a file format, as requests and answers have it. What a name stands for, and which names there are, lives in
//! the registry of the crate `formats`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a file format in a request, `csv`. The request was accepted by a version that knew the format; the version
/// that reads it may not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FormatName(String);

impl FormatName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for FormatName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for FormatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_string_in_json() {
        let name = FormatName::from("csv");
        assert_eq!(serde_json::to_string(&name).unwrap(), r#""csv""#);
        assert_eq!(serde_json::from_str::<FormatName>(r#""csv""#).unwrap(), name);
    }
}
