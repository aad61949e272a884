//! The number of files and sockets that the process may have open.

use polyglot_core::failure::chain;
use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit of open files to `wanted`, or as far as the hard limit allows. Many systems set the soft one to 1024,
/// which is for programs with `select`, and leave it to each program to raise it.
pub(crate) fn allow_open_files(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    // A limit of `None` is no limit.
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let allowed = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    limit.current = Some(allowed);
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = chain(&error), wanted, "the limit of open files cannot be raised");
    } else if allowed < wanted {
        tracing::warn!(allowed, wanted, "the limit of open files is too small for all connections");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_high_enough_stays() {
        let before = getrlimit(Resource::Nofile);
        allow_open_files(1);
        assert_eq!(getrlimit(Resource::Nofile).current, before.current);
        // As far as the hard limit allows, which a process cannot raise.
        let wanted = before.maximum.map_or(u64::MAX, |maximum| maximum.saturating_add(1));
        allow_open_files(wanted);
        let after = getrlimit(Resource::Nofile);
        assert_eq!(after.maximum, before.maximum);
        assert!(after.current >= before.current || after.current.is_none());
    }
}
