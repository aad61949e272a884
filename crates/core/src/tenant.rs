//! The names of tenants. A tenant owns exports: nobody else sees them, and the ledger takes turns between tenants.

/// Tenant of keys that name none, and of every client while authentication is off.
pub const DEFAULT_TENANT: &str = "default";

/// Tenant of the benchmark's exports. It has a space, which no tenant of a client has, so that no submission is coalesced with
/// an export that is about to be deleted.
pub const BENCHMARK_TENANT: &str = "polyglot benchmark";

/// Greatest length of a tenant's name in bytes.
pub const MAX_BYTES: usize = 64;

/// Whether a client's tenant may have this name: 1 to 64 of `A-Z a-z 0-9 . _ -`, the first a letter or a digit. The name is
/// part of keys in the object store and of log lines, which is why it is not any text.
#[must_use]
pub fn is_valid(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_BYTES).contains(&name.len()) && name.bytes().all(is_plain) && name.as_bytes()[0].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_short() {
        let long = "t".repeat(MAX_BYTES);
        for good in ["default", "a", "7", "ACME-Corp_2", "acme.example", &long] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", ".", "..", "-a", "a/b", "a:b", "a b", "a\n", "é", "a%2f", BENCHMARK_TENANT, &format!("{long}t")]
        {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
