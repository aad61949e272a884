//! The servers that some tests need, as `devstack with-servers` announces them in `TEST_…` variables. A test that runs
//! without them is skipped with a line that says so. Starting servers is the devstack's part; this crate has no dependency,
//! so that the unit tests of every crate can use it.

use std::io::Write;

/// Set to [`REQUIRED_VALUE`] where servers are a must: a test that misses one then fails and is not skipped.
pub const REQUIRED_VARIABLE: &str = "TEST_SERVERS";
/// See [`REQUIRED_VARIABLE`].
pub const REQUIRED_VALUE: &str = "required";

const DATABASE_URL: &str = "TEST_DATABASE_URL";
const AMQP_URL: &str = "TEST_AMQP_URL";
const S3_ENDPOINT: &str = "TEST_S3_ENDPOINT";
const S3_EMBEDDED_ENDPOINT: &str = "TEST_S3_EMBEDDED_ENDPOINT";
const S3_ACCESS_KEY: &str = "TEST_S3_ACCESS_KEY";
const S3_SECRET_KEY: &str = "TEST_S3_SECRET_KEY";
const BIN_DIR: &str = "TEST_BIN_DIR";

/// Addresses and keys of all servers, and where the binaries under test are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestServers {
    /// A PostgreSQL user that may create databases.
    pub database_url: String,
    /// A RabbitMQ broker.
    pub amqp_url: String,
    /// An object store that follows S3 strictly (SeaweedFS).
    pub s3_endpoint: String,
    /// The embedded object store of `devstack run`. It takes the same keys.
    pub s3_embedded_endpoint: String,
    pub s3_access_key: String,
    pub s3_secret_key: String,
    /// The folder of `polyglot-api` and `polyglot-worker`.
    pub bin_dir: String,
}

impl TestServers {
    /// Reads the variables; an error names the first one that is not set.
    pub fn from_environment() -> Result<Self, String> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = |name: &str| lookup(name).ok_or_else(|| missing(name));
        Ok(Self {
            database_url: value(DATABASE_URL)?,
            amqp_url: value(AMQP_URL)?,
            s3_endpoint: value(S3_ENDPOINT)?,
            s3_embedded_endpoint: value(S3_EMBEDDED_ENDPOINT)?,
            s3_access_key: value(S3_ACCESS_KEY)?,
            s3_secret_key: value(S3_SECRET_KEY)?,
            bin_dir: value(BIN_DIR)?,
        })
    }

    /// The variables for a command whose tests use these servers, and none of whose tests may be skipped for want of one.
    pub fn variables(&self) -> [(&'static str, &str); 8] {
        [
            (DATABASE_URL, &self.database_url),
            (AMQP_URL, &self.amqp_url),
            (S3_ENDPOINT, &self.s3_endpoint),
            (S3_EMBEDDED_ENDPOINT, &self.s3_embedded_endpoint),
            (S3_ACCESS_KEY, &self.s3_access_key),
            (S3_SECRET_KEY, &self.s3_secret_key),
            (BIN_DIR, &self.bin_dir),
            (REQUIRED_VARIABLE, REQUIRED_VALUE),
        ]
    }
}

fn missing(name: &str) -> String {
    format!("{name} is not set")
}

/// The servers, or `None` after a line that says that the test is skipped. For [`needs_servers!`].
///
/// # Panics
///
/// Where servers are required and one is missing.
pub fn servers_or_skip() -> Option<TestServers> {
    found_or_skip(TestServers::from_environment())
}

/// As [`servers_or_skip`], for tests that need PostgreSQL alone: its URL. For [`needs_database!`].
pub fn database_url_or_skip() -> Option<String> {
    found_or_skip(std::env::var(DATABASE_URL).map_err(|_| missing(DATABASE_URL)))
}

/// As [`servers_or_skip`], for tests that run a program which `devstack/install --tests` installs. For [`needs_program!`].
pub fn program_or_skip(name: &str) -> Option<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join(name).is_file());
    found_or_skip(if is_there { Ok(()) } else { Err(format!("the program {name} is not installed")) })
}

fn found_or_skip<T>(found: Result<T, String>) -> Option<T> {
    let required = std::env::var(REQUIRED_VARIABLE).is_ok_and(|value| value == REQUIRED_VALUE);
    match decide(found, required) {
        Ok(found) => Some(found),
        Err(line) => {
            // The test harness shows what a passing test prints only on request, so this goes past it.
            let thread = std::thread::current();
            let _ = writeln!(std::io::stderr(), "{}: {line}", thread.name().unwrap_or("test"));
            None
        }
    }
}

/// What was found, or the line that says why the test is skipped.
fn decide<T>(found: Result<T, String>, required: bool) -> Result<T, String> {
    match found {
        Err(problem) if required => {
            panic!("{problem}, and {REQUIRED_VARIABLE}={REQUIRED_VALUE} allows no test to be skipped")
        }
        found => found.map_err(|problem| format!("skipped: needs servers; run `make test` ({problem})")),
    }
}

/// The [`TestServers`]. Where there are none it returns from the test, which then counts as passed.
///
/// The first line of every test that needs servers.
#[macro_export]
macro_rules! needs_servers {
    () => {
        match $crate::servers_or_skip() {
            Some(servers) => servers,
            None => return,
        }
    };
}

/// The URL of a PostgreSQL server. Where there is none it returns from the test, which then counts as passed.
#[macro_export]
macro_rules! needs_database {
    () => {
        match $crate::database_url_or_skip() {
            Some(url) => url,
            None => return,
        }
    };
}

/// Returns from the test, which then counts as passed, where the program is not on the `PATH`.
#[macro_export]
macro_rules! needs_program {
    ($name:expr) => {
        if $crate::program_or_skip($name).is_none() {
            return;
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> TestServers {
        let value = |name: &str| format!("value of {name}");
        TestServers {
            database_url: value("database"),
            amqp_url: value("broker"),
            s3_endpoint: value("store"),
            s3_embedded_endpoint: value("embedded store"),
            s3_access_key: value("access key"),
            s3_secret_key: value("secret key"),
            bin_dir: value("binaries"),
        }
    }

    #[test]
    fn the_variables_that_are_set_are_those_that_are_read() {
        let servers = servers();
        let set = servers.variables();
        let lookup = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        assert_eq!(TestServers::from_lookup(lookup), Ok(servers.clone()));
        for (left_out, _) in set.iter().filter(|(name, _)| *name != REQUIRED_VARIABLE) {
            let found = TestServers::from_lookup(|name| lookup(name).filter(|_| name != *left_out));
            assert_eq!(found, Err(format!("{left_out} is not set")));
        }
    }

    /// What `devstack with-servers` sets, so `make test` skips nothing.
    #[test]
    fn commands_with_servers_require_them() {
        assert!(servers().variables().contains(&(REQUIRED_VARIABLE, REQUIRED_VALUE)));
    }

    #[test]
    fn without_servers_a_test_is_skipped_with_the_reason() {
        let line = decide::<()>(Err("TEST_AMQP_URL is not set".to_owned()), false).unwrap_err();
        assert_eq!(line, "skipped: needs servers; run `make test` (TEST_AMQP_URL is not set)");
        assert_eq!(decide(Ok(7), false), Ok(7));
    }

    #[test]
    #[should_panic(expected = "allows no test to be skipped")]
    fn where_servers_are_required_nothing_is_skipped() {
        let _ = decide::<()>(Err("TEST_AMQP_URL is not set".to_owned()), true);
    }
}
