//! The connection settings of ledger, source, broker and object store, and how long the ledger remembers.

use std::time::Duration;

use polyglot_core::failure::chain;
use polyglot_runtime::config::{ConfigError, Environment};
use polyglot_runtime::reloadable::Reloadable;
use polyglot_runtime::telemetry::SECRET_RELOADS;
use polyglot_source::{DatabaseUrl, allows_privileged_role, database_url, source_database_url};
use polyglot_storage::StorageConfig;

use crate::broker_address::BrokerAddress;
use crate::migration::MigrationMode;

/// Outcomes of a reload in the metric.
const DONE: &str = "done";
const REFUSED: &str = "refused";

/// The servers to which both processes connect. Clones share what [`Self::reload`] replaces.
#[derive(Debug, Clone)]
pub struct Connections {
    pub database_url: DatabaseUrl,
    pub migration_mode: MigrationMode,
    pub source_database_url: DatabaseUrl,
    /// Whether the source's role may do more than read.
    pub source_allow_privileged: bool,
    /// `None`: there is no broker, and workers find their work by polling the ledger.
    pub broker: Option<Reloadable<BrokerAddress>>,
    pub amqp_queue: String,
    pub storage: StorageConfig,
}

impl Connections {
    /// Reads the variables, with their defaults.
    ///
    /// # Errors
    /// Names the variable whose value cannot be used.
    pub fn from_environment(env: &Environment) -> Result<Self, ConfigError> {
        let amqp_queue = env.text("AMQP_QUEUE", "polyglot.exports")?;
        if amqp_queue.len() > 200 || amqp_queue.starts_with("amq.") {
            return Err(ConfigError::Value {
                name: "AMQP_QUEUE".to_owned(),
                value: amqp_queue,
                expected: "expected a queue name of at most 200 bytes that does not begin with amq.".to_owned(),
            });
        }
        Ok(Self {
            database_url: database_url(env)?,
            migration_mode: env.choice(
                "MIGRATE",
                MigrationMode::AtStart,
                &[("on", MigrationMode::AtStart), ("off", MigrationMode::ByCommand)],
            )?,
            source_database_url: source_database_url(env)?,
            source_allow_privileged: allows_privileged_role(env)?,
            broker: BrokerAddress::from_environment(env)?.map(Reloadable::from),
            amqp_queue,
            storage: StorageConfig::from_environment(env)?,
        })
    }
}

/// Registers the counter of [`Connections::reload`] with the value 0, so that its first event shows as an increase.
pub fn register_reload_counter() {
    for outcome in [DONE, REFUSED] {
        metrics::counter!(SECRET_RELOADS, "outcome" => outcome).increment(0);
    }
}

impl Connections {
    /// Reads the files of secrets again and has new connections use what is in them; says in the log and in a metric whether
    /// that was possible. If one of them cannot be used, all stay as they were.
    pub fn reload(&self, env: &Environment) {
        let outcome = match self.try_reload(env) {
            Ok(()) => {
                tracing::info!("the secrets in files were read again");
                DONE
            }
            Err(error) => {
                tracing::error!(error = chain(&error), "the secrets in files cannot be used; those before stay in use");
                REFUSED
            }
        };
        metrics::counter!(SECRET_RELOADS, "outcome" => outcome).increment(1);
    }

    fn try_reload(&self, env: &Environment) -> Result<(), ConfigError> {
        let new = Self::from_environment(env)?;
        let needs_restart = |name: &str| ConfigError::Problem {
            name: name.to_owned(),
            problem: "it leads to another server or database now, which takes a restart of every process".to_owned(),
        };
        let databases = [
            ("DATABASE_URL", &self.database_url, &new.database_url),
            ("SOURCE_DATABASE_URL", &self.source_database_url, &new.source_database_url),
        ];
        for (name, old, new) in databases {
            if old.place().ok() != new.place().ok() {
                return Err(needs_restart(name));
            }
        }
        let places = |broker: &Option<Reloadable<BrokerAddress>>| broker.as_ref().map(|broker| broker.get().places());
        if places(&self.broker) != places(&new.broker) {
            return Err(needs_restart("AMQP_URL"));
        }
        for (name, old, new) in databases {
            old.replace(new)
                .map_err(|_| ConfigError::Problem { name: name.to_owned(), problem: "not a usable URL".to_owned() })?;
        }
        if let (Some(old), Some(new)) = (&self.broker, &new.broker) {
            old.replace(new.get());
        }
        if let (Some(old), Some(new)) = (&self.storage.static_credentials, &new.storage.static_credentials) {
            old.replace(new.get());
        }
        Ok(())
    }
}

/// `LEDGER_TTL_DAYS`: time after its end for which an export is remembered; `None`: for ever. Every process sweeps, so the
/// smallest one of all processes counts.
///
/// # Errors
/// Names the variable if its value cannot be used.
pub fn ledger_ttl(env: &Environment) -> Result<Option<Duration>, ConfigError> {
    days(env, "LEDGER_TTL_DAYS", 30)
}

/// `AUDIT_TTL_DAYS`: time for which the audit is kept; `None`: for ever. Every process sweeps, so the smallest one counts.
///
/// # Errors
/// Names the variable if its value cannot be used.
pub fn audit_ttl(env: &Environment) -> Result<Option<Duration>, ConfigError> {
    days(env, "AUDIT_TTL_DAYS", 365)
}

fn days(env: &Environment, name: &str, default: u64) -> Result<Option<Duration>, ConfigError> {
    let days = env.number(name, default, 0..=36_500, "days")?;
    Ok((days > 0).then(|| Duration::from_hours(days * 24)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_remembers_for_thirty_days_unless_told() {
        let ttl = |variables: &[(&str, &str)]| ledger_ttl(&Environment::fixed(variables));
        assert_eq!(ttl(&[]).unwrap(), Some(Duration::from_hours(720)));
        assert_eq!(ttl(&[("LEDGER_TTL_DAYS", "1")]).unwrap(), Some(Duration::from_hours(24)));
        assert_eq!(ttl(&[("LEDGER_TTL_DAYS", "0")]).unwrap(), None);
        assert_eq!(audit_ttl(&Environment::fixed(&[])).unwrap(), Some(Duration::from_hours(365 * 24)));
        for bad in ["-1", "1.5", "off", "36501"] {
            let error = ttl(&[("LEDGER_TTL_DAYS", bad)]).unwrap_err().to_string();
            assert!(error.starts_with("LEDGER_TTL_DAYS: "), "{error}");
        }
    }

    #[test]
    fn defaults_are_usable() {
        assert!(Connections::from_environment(&Environment::fixed(&[])).unwrap().broker.is_some());
    }

    #[tokio::test]
    async fn secrets_in_files_are_read_again_and_a_bad_one_changes_nothing() {
        let folder = std::env::temp_dir().join(format!("polyglot-reload-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&folder).unwrap();
        let paths = ["db", "amqp", "id", "secret"].map(|name| folder.join(name).to_str().unwrap().to_owned());
        let [db, amqp, id, secret] = &paths;
        let write = |password: &str| {
            std::fs::write(db, format!("postgres://u:{password}@localhost/x")).unwrap();
            std::fs::write(amqp, format!("amqp://u:{password}@localhost")).unwrap();
            std::fs::write(id, format!("id-{password}")).unwrap();
            std::fs::write(secret, format!("secret-{password}")).unwrap();
        };
        write("hunter1");
        let env = Environment::fixed(&[
            ("DATABASE_URL_FILE", db),
            ("AMQP_URL_FILE", amqp),
            ("AWS_ACCESS_KEY_ID_FILE", id),
            ("AWS_SECRET_ACCESS_KEY_FILE", secret),
        ]);
        let connections = Connections::from_environment(&env).unwrap();
        let shared = connections.clone();
        let pool = connections.database_url.pool(sqlx::postgres::PgPoolOptions::new(), |it| it).unwrap();
        let has = |password: &str| {
            let pair = shared.storage.static_credentials.as_ref().unwrap().get();
            let broker =
                shared.broker.as_ref().unwrap().get().parts().unwrap().0[0].authority.userinfo.password.clone();
            let url = |url: &DatabaseUrl| sqlx::ConnectOptions::to_url_lossy(&url.options().unwrap());
            let pool = sqlx::ConnectOptions::to_url_lossy(&*pool.connect_options());
            [url(&shared.database_url), url(&shared.source_database_url), pool]
                .iter()
                .all(|url| url.password() == Some(password))
                && broker == password
                && *pair == (format!("id-{password}"), format!("secret-{password}"))
        };
        assert!(has("hunter1"));
        write("hunter2");
        connections.reload(&env);
        assert!(has("hunter2"));
        // One that cannot be read, one of another server, one that would be plain: nothing is taken.
        for (path, bad) in
            [(secret, None), (db, Some("postgres://u:p@localhost/other")), (amqp, Some("amqp://u:p@broker"))]
        {
            write("hunter3");
            match bad {
                Some(text) => std::fs::write(path, text).unwrap(),
                None => std::fs::remove_file(path).unwrap(),
            }
            let error = connections.try_reload(&env).unwrap_err().to_string();
            assert!(!error.contains("hunter"), "{error}");
            connections.reload(&env);
            assert!(has("hunter2"), "{error}");
        }
        let shown = format!("{connections:?} {env:?}");
        assert!(!shown.contains("hunter"), "{shown}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
