//! The most rows and bytes that the operator lets one file of a dataset have. A file is never cut short: an export that would have
//! more fails.

use polyglot_core::failure::{Failure, FailureKind};
use polyglot_core::grant::Grant;

/// Fails if this is more than the dataset gives out. The numbers may be those of a part of the file.
pub(crate) fn check(grant: &Grant, rows: i64, bytes: i64) -> Result<(), Failure> {
    for (limit, number, unit) in [(grant.max_rows, rows, "rows"), (grant.max_bytes, bytes, "bytes")] {
        let Some(limit) = limit else { continue };
        if u64::try_from(number).is_ok_and(|number| number > limit) {
            let message = format!(
                "The file would have more than {limit} {unit}, which is the most that the dataset gives out in one export."
            );
            return Err(Failure::new(FailureKind::DatasetLimit, message, format!("at least {number} {unit}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_have_as_much_as_the_limit_and_no_more() {
        let grant = Grant { max_rows: Some(10), max_bytes: Some(100), ..Grant::default() };
        assert_eq!(check(&grant, 10, 100), Ok(()));
        for (rows, bytes, words) in [(11, 0, "more than 10 rows"), (0, 101, "more than 100 bytes")] {
            let failure = check(&grant, rows, bytes).unwrap_err();
            assert_eq!(failure.kind, FailureKind::DatasetLimit);
            assert!(failure.message.contains(words), "{}", failure.message);
        }
        assert_eq!(check(&Grant::default(), i64::MAX, i64::MAX), Ok(()));
    }
}
