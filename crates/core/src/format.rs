//! The file formats, with the names and media types clients see. How a format is written lives in the crate `formats`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A file format, by its name in requests and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Json,
    Jsonl,
    Xml,
    Parquet,
}

impl Format {
    pub const ALL: [Self; 5] = [Self::Csv, Self::Json, Self::Jsonl, Self::Xml, Self::Parquet];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Jsonl => "jsonl",
            Self::Xml => "xml",
            Self::Parquet => "parquet",
        }
    }

    /// The format of that exact name, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The `Content-Type` of the file, compressed or not.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::Jsonl => "application/x-ndjson",
            Self::Xml => "application/xml; charset=utf-8",
            Self::Parquet => "application/octet-stream",
        }
    }

    /// Whether the file as a whole may be compressed. Parquet compresses its own pages.
    #[must_use]
    pub fn is_text(self) -> bool {
        self != Self::Parquet
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_in_json() {
        for format in Format::ALL {
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
            assert_eq!(Format::from_name(format.name()), Some(format));
        }
        assert_eq!(Format::from_name("CSV"), None);
    }
}
