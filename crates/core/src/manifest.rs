//! The manifest: the content of a finished file in numbers that can be checked against it. The worker writes it when the export
//! completes, the ledger stores it, and the api answers it unchanged.

use serde::{Deserialize, Serialize};

use crate::selection::OrderKey;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub rows: i64,
    /// Of the file as it is stored, compressed; of all files together, where there are several.
    pub bytes: i64,
    /// Before compression.
    pub uncompressed_bytes: i64,
    /// CRC-32 (IEEE) of the file as it is stored, eight hexadecimal digits. Of several files: of all, one after the other.
    pub crc32: String,
    pub columns: Vec<ManifestColumn>,
    pub order: ManifestOrder,
    pub snapshot: SnapshotPoint,
    /// Of the one object; empty where the result is several files.
    pub parts: Vec<ManifestPart>,
    /// In the order of the export's rows. Empty where the result is one object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "openapi", schema(required = false))]
    pub files: Vec<ManifestFile>,
    /// Values that are not what the table holds, because the request allowed it. Empty: every value is exact.
    pub replaced: Vec<Replaced>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ManifestColumn {
    /// In the file.
    pub name: String,
    /// In the dataset.
    pub source: String,
    pub source_type: String,
    pub output_type: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ManifestOrder {
    pub by: Vec<OrderKey>,
    /// Whether the keys tell any two rows apart. Otherwise rows that they do not tell apart, or all rows if there are
    /// none, are in the order in which the server gave them.
    pub promised: bool,
}

/// The moment of the one snapshot that every row is of, as far as `promised` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPoint {
    /// When it was taken, by the source's clock, RFC 3339, UTC.
    pub time: String,
    /// The end of the write-ahead log (on a replica: of what was replayed) when the snapshot was taken, give or take
    /// what was written in the same instant.
    pub wal_position: Option<String>,
    /// Whether all that was read is surely of that moment. It is not where the dataset is a view that calls functions which are
    /// neither built in nor immutable, or reads a foreign table: what these read is not locked before the snapshot is taken, so
    /// rows of a table that a TRUNCATE of another session empties and fills again may be missing, and another server has a moment
    /// of its own.
    #[serde(default = "promised")]
    pub promised: bool,
}

/// What manifests without the field have said.
fn promised() -> bool {
    true
}

impl Default for SnapshotPoint {
    fn default() -> Self {
        Self { time: String::new(), wal_position: None, promised: true }
    }
}

/// A CRC-32 in the form that manifests have.
#[must_use]
pub fn crc_text(crc: u32) -> String {
    format!("{crc:08x}")
}

/// A piece of the file as it was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ManifestPart {
    pub number: u32,
    /// Its first byte in the file.
    pub offset: i64,
    pub bytes: i64,
    /// Rows that had been written (with compression: gone into it) when the part was full, since the part before. Of
    /// Parquet: the rows of the row groups that begin in it.
    pub rows: i64,
    pub crc32: String,
}

/// One of the files that the result is in, each a whole file of the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ManifestFile {
    /// `part-00001.csv`. Its object's key is the export's, which ends in `/`, and this name.
    pub name: String,
    pub rows: i64,
    /// Of the file as it is stored, compressed.
    pub bytes: i64,
    /// Before compression.
    pub uncompressed_bytes: i64,
    pub crc32: String,
}

/// Values of one column that were written as something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Replaced {
    /// Its name in the file.
    pub column: String,
    pub count: i64,
    /// What the format could not hold, or what was asked to be changed.
    pub problem: String,
    /// What stands there instead.
    pub with: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_of_one_object_is_read_and_written_without_files() {
        let stored = serde_json::to_value(Manifest::default()).unwrap();
        assert_eq!(stored.get("files"), None);
        assert_eq!(serde_json::from_value::<Manifest>(stored).unwrap(), Manifest::default());
    }

    #[test]
    fn a_snapshot_of_a_version_that_knew_no_exceptions_is_promised() {
        let stored = serde_json::json!({"time": "2026-01-02T03:04:05Z", "walPosition": null});
        assert!(serde_json::from_value::<SnapshotPoint>(stored).unwrap().promised);
    }

    #[test]
    fn files_are_kept_in_their_order() {
        let file = |name: &str| ManifestFile {
            name: name.to_owned(),
            rows: 1,
            bytes: 2,
            uncompressed_bytes: 3,
            crc32: "0000abcd".to_owned(),
        };
        let manifest = Manifest { files: vec![file("part-00001.csv"), file("part-00002.csv")], ..Manifest::default() };
        let stored = serde_json::to_value(&manifest).unwrap();
        assert_eq!(stored["files"][1]["uncompressedBytes"], 3);
        assert_eq!(serde_json::from_value::<Manifest>(stored).unwrap(), manifest);
    }
}
