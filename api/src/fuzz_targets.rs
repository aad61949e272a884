//! The parsers of what strangers, clients and operators send, as functions of bytes, for the fuzz targets (`fuzz/`). Each returns
//! whether the bytes were accepted, and panics where a parser, or what is built from its result, is wrong.

use crate::dataset_config::{Datasets, Exposed};
use crate::identity::Identity;

pub use crate::exports::fuzz_target::{cursor, submission};
pub use crate::identity::fuzz_target::{key_set, token};

/// The text of a `DATASETS` file. What is accepted gives each caller a filter for each condition, or none at all and an error.
///
/// # Panics
/// If a condition of a row filter is left out.
#[must_use]
pub fn datasets(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(datasets) = Datasets::parse(text) else { return false };
    let caller = Identity::anonymous();
    for exposed in datasets.entries() {
        let Exposed::One(dataset) = exposed else { continue };
        assert_eq!(datasets.named(&dataset.name), Some(dataset), "an entry has its name");
        if let Ok(filters) = dataset.policy.filters(&caller) {
            let conditions = dataset.policy.columns().filter(|(field, _)| *field == "row_filter").count();
            assert_eq!(filters.len(), conditions, "{text}");
        }
    }
    true
}
