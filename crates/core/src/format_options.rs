//! What a request may choose about the file beyond its format, with every choice made: how a format writes what
//! could be written in several ways, and what happens to a value that it cannot hold. Reading them from a request,
//! and its 400s, is the api's.

use serde::{Deserialize, Serialize};

/// The choices of one export. Those of other formats than its own keep their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FormatOptions {
    pub on_unrepresentable: OnUnrepresentable,
    /// Text formats.
    #[serde(skip_serializing_if = "FileEncoding::is_default")]
    pub encoding: FileEncoding,
    pub csv: CsvOptions,
    /// JSON and JSON Lines.
    pub bigint: JsonNumber,
    /// JSON and JSON Lines.
    pub numeric: JsonNumber,
    /// Parquet; its `numeric` and `uuid` are Arrow's too.
    pub parquet: ParquetOptions,
}

/// What to do about a value that the format cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnUnrepresentable {
    /// The export fails and names the column and the row.
    #[default]
    Fail,
    /// XML: each such character becomes U+FFFD. Parquet: the value becomes NULL. The manifest counts them.
    Replace,
}

/// How a compressed file is handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileEncoding {
    /// As the text, with `Content-Encoding`: clients unpack it on its way, and its name does not show the compression.
    #[default]
    Content,
    /// As a compressed file, `.csv.gz`, which stays as it is.
    File,
}

impl FileEncoding {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde wants")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a CSV file is laid out. The default is RFC 4180 with `\n` and a header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own, or a part of a profile")]
pub struct CsvOptions {
    /// One ASCII character that cannot begin or be inside an unquoted number, date or word.
    pub delimiter: char,
    pub header: bool,
    /// What NULL is written as, unquoted. Any other value that looks the same is quoted.
    pub null: String,
    /// Whether the file begins with U+FEFF.
    pub bom: bool,
    pub line_ending: LineEnding,
    /// Whether text that a spreadsheet would take for a formula gets an apostrophe in front.
    pub defuse_formulas: bool,
    /// Whether a timestamp is written as `2026-01-02 03:04:05`, which a spreadsheet takes for a date and a time: without its fraction,
    /// and in UTC without saying so.
    pub whole_second_timestamps: bool,
    /// Between the whole part of a number and its decimals: a point or a comma, and not the delimiter.
    pub decimal: char,
}

impl Default for CsvOptions {
    fn default() -> Self {
        Self {
            delimiter: ',',
            header: true,
            null: String::new(),
            bom: false,
            line_ending: LineEnding::Lf,
            defuse_formulas: false,
            whole_second_timestamps: false,
            decimal: '.',
        }
    }
}

impl CsvOptions {
    /// The profile `spreadsheet`: what Excel and LibreOffice open by a double click, and no cell of it runs.
    #[must_use]
    pub fn spreadsheet() -> Self {
        Self {
            bom: true,
            line_ending: LineEnding::CrLf,
            defuse_formulas: true,
            whole_second_timestamps: true,
            ..Self::default()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineEnding {
    Lf,
    CrLf,
}

impl LineEnding {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
        }
    }
}

/// How a type of numbers is written in JSON: as numbers, or as strings for readers whose numbers are doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JsonNumber {
    #[default]
    Number,
    String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParquetOptions {
    pub codec: ParquetCodec,
    /// A row group is closed at about so many encoded bytes; the worker holds it in memory until then.
    pub row_group_bytes: u32,
    pub numeric: NumericPolicy,
    pub uuid: UuidPolicy,
}

impl ParquetOptions {
    pub const SMALLEST_ROW_GROUP: u32 = 1 << 20;
    pub const LARGEST_ROW_GROUP: u32 = 32 << 20;
}

impl Default for ParquetOptions {
    fn default() -> Self {
        Self {
            codec: ParquetCodec::default(),
            row_group_bytes: 6 << 20,
            numeric: NumericPolicy::default(),
            uuid: UuidPolicy::default(),
        }
    }
}

/// How Parquet's pages are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParquetCodec {
    #[default]
    Snappy,
    Zstd,
}

/// What a numeric becomes in Parquet if no DECIMAL is sure to hold it: one without precision, or with more than 38
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NumericPolicy {
    /// All its digits, as text.
    #[default]
    String,
    /// The nearest double.
    Double,
    /// DECIMAL(38, scale); a value that does not fit exactly is one that the format cannot hold.
    Decimal(u8),
}

/// What a uuid becomes in Parquet and Arrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UuidPolicy {
    /// The format's own type of 16 bytes.
    #[default]
    Uuid,
    /// Its text, for readers that do not know that type.
    String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_ledger_stores_is_what_it_gives_back() {
        let options = FormatOptions {
            on_unrepresentable: OnUnrepresentable::Replace,
            encoding: FileEncoding::File,
            csv: CsvOptions { delimiter: '\t', null: "\\N".to_owned(), decimal: ',', ..CsvOptions::spreadsheet() },
            bigint: JsonNumber::String,
            numeric: JsonNumber::String,
            parquet: ParquetOptions {
                codec: ParquetCodec::Zstd,
                row_group_bytes: 1 << 20,
                numeric: NumericPolicy::Decimal(9),
                uuid: UuidPolicy::String,
            },
        };
        let stored = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<FormatOptions>(&stored).unwrap(), options);
        // A request of a version that knew no options.
        assert_eq!(serde_json::from_str::<FormatOptions>("{}").unwrap(), FormatOptions::default());
    }
}
