//! Compression of a whole file, with the names and media types clients see. How it is done lives in the crate `formats`.

use serde::{Deserialize, Serialize};

/// Compression of the whole file, stated to clients as `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    Gzip,
    Zstd,
}

impl Compression {
    pub const ALL: [Self; 2] = [Self::Gzip, Self::Zstd];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    /// The compression of that exact name, or `None`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }

    /// What the name of a file ends in that is kept compressed.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// The `Content-Type` of a file that is kept compressed.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Gzip => "application/gzip",
            Self::Zstd => "application/zstd",
        }
    }

    /// The `Content-Encoding` of a file that is unpacked on its way.
    #[must_use]
    pub fn content_encoding(self) -> &'static str {
        self.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_in_json() {
        for compression in Compression::ALL {
            assert_eq!(serde_json::to_value(compression).unwrap(), compression.name());
        }
    }
}
