//! What a finished file holds, in numbers that can be checked against it: written by the worker with the export's
//! completion, stored in the ledger, and answered as it is.

use serde::{Deserialize, Serialize};

use crate::selection::OrderKey;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub rows: i64,
    /// Of the file as it is stored, compressed.
    pub bytes: i64,
    /// Before compression.
    pub uncompressed_bytes: i64,
    /// CRC-32 (IEEE) of the file as it is stored, eight hexadecimal digits.
    pub crc32: String,
    pub columns: Vec<ManifestColumn>,
    pub order: ManifestOrder,
    pub snapshot: SnapshotPoint,
    pub parts: Vec<ManifestPart>,
    /// Values that are not what the table holds, because the request allowed it. Empty: every value is exact.
    pub replaced: Vec<Replaced>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[serde(rename_all = "camelCase")]
pub struct ManifestOrder {
    pub by: Vec<OrderKey>,
    /// Whether the keys tell any two rows apart. Otherwise rows that they do not tell apart, or all rows if there are
    /// none, are in the order in which the server gave them.
    pub promised: bool,
}

/// The moment of the one snapshot that every row is of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotPoint {
    /// When it was taken, by the source's clock, RFC 3339, UTC.
    pub time: String,
    /// The end of the write-ahead log (on a replica: of what was replayed) when the snapshot was taken, give or take
    /// what was written in the same instant.
    pub wal_position: Option<String>,
}

/// A piece of the file as it was uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Values of one column that were written as something else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
