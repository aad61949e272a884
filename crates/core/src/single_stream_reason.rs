//! Why an export is read as one stream instead of being cut into shards: a name for the ledger, words for the user.

/// What stands against cutting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SingleStreamReason {
    /// One worker has it done before the others have begun.
    Small,
    /// There is no unique order of the rows that an index follows.
    NoKey,
    /// A column of the key has a type whose text does not stand for exactly one value.
    KeyType,
    /// Keys in both directions: no index range is such an order.
    MixedDirections,
    /// zstd over the whole file is one frame, which one writer has to write.
    Zstd,
    /// Only the first rows are wanted.
    RowLimit,
    /// A filter compares with a time that is another one in each shard's transaction, `yesterday` for instance.
    RelativeTime,
    /// By the server's own estimate, reading range by range would cost it several times what one scan does.
    Costly,
    /// The sample shows too few different keys.
    FewKeys,
    /// Shards came out smaller than the object store takes, twice.
    Uneven,
}

impl SingleStreamReason {
    pub const ALL: [Self; 10] = [
        Self::Small,
        Self::NoKey,
        Self::KeyType,
        Self::MixedDirections,
        Self::Zstd,
        Self::RowLimit,
        Self::RelativeTime,
        Self::Costly,
        Self::FewKeys,
        Self::Uneven,
    ];

    /// The stable name in the ledger and in the status document.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::NoKey => "no_key",
            Self::KeyType => "key_type",
            Self::MixedDirections => "mixed_directions",
            Self::Zstd => "zstd",
            Self::RowLimit => "row_limit",
            Self::RelativeTime => "relative_time",
            Self::Costly => "costly",
            Self::FewKeys => "few_keys",
            Self::Uneven => "uneven",
        }
    }

    /// The reason of that name, or `None`.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// In words for the user.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Small => "The result is small enough for one worker.",
            Self::NoKey => "The rows have no order that a unique index without NULLs follows.",
            Self::KeyType => "A column of the key has a type along which the rows cannot be cut.",
            Self::MixedDirections => "The order goes up in one key column and down in another.",
            Self::Zstd => "A zstd file is one frame, which one worker has to write.",
            Self::RowLimit => "Only the first rows were asked for.",
            Self::RelativeTime => {
                "A filter compares with a time relative to now, which is to be the same for every row."
            }
            Self::Costly => {
                "By the database's own estimate, reading in ranges would cost it far more than reading once."
            }
            Self::FewKeys => "The rows have too few different keys to be cut along them.",
            Self::Uneven => "The rows are spread too unevenly: pieces came out smaller than the object store takes.",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_by_its_code() {
        for reason in SingleStreamReason::ALL {
            assert_eq!(SingleStreamReason::from_code(reason.code()), Some(reason));
        }
        assert_eq!(SingleStreamReason::from_code("other"), None);
    }
}
