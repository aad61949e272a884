//! The URL of a database, whose password may be replaced while the process runs: connections that are made afterwards use the
//! new one, those of pools too. Open ones stay.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use polyglot_runtime::reloadable::Reloadable;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

type Configure = Box<dyn Fn(PgConnectOptions) -> PgConnectOptions + Send + Sync>;

/// A URL that all clones share. It is not shown, because it may hold a password.
#[derive(Clone)]
pub struct DatabaseUrl {
    url: Reloadable<String>,
    pools: Arc<Mutex<Vec<(PgPool, Configure)>>>,
}

/// What must stay the same while the process runs: leases, snapshots and sessions are those of one database.
#[derive(PartialEq, Eq)]
pub struct DatabasePlace {
    host: String,
    port: u16,
    database: Option<String>,
}

impl DatabaseUrl {
    /// What a connection that is made now takes.
    ///
    /// # Errors
    /// When it is not a URL of PostgreSQL.
    pub fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        self.url.get().parse()
    }

    /// A pool that connects on first use, always with the present URL.
    ///
    /// # Errors
    /// As [`Self::options`].
    pub fn pool(
        &self,
        pool: PgPoolOptions,
        configure: impl Fn(PgConnectOptions) -> PgConnectOptions + Send + Sync + 'static,
    ) -> Result<PgPool, sqlx::Error> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let pool = pool.connect_lazy_with(configure(self.options()?));
        pools.push((pool.clone(), Box::new(configure)));
        Ok(pool)
    }

    /// Where the database is.
    ///
    /// # Errors
    /// As [`Self::options`].
    pub fn place(&self) -> Result<DatabasePlace, sqlx::Error> {
        let options = self.options()?;
        let socket = options.get_socket().map(|socket| socket.to_string_lossy().into_owned());
        Ok(DatabasePlace {
            host: socket.unwrap_or_else(|| options.get_host().to_owned()),
            port: options.get_port(),
            database: options.get_database().map(str::to_owned),
        })
    }

    /// Takes the place of this URL in everything that has it.
    ///
    /// # Errors
    /// When `new` is not a URL of PostgreSQL; nothing has changed then.
    pub fn replace(&self, new: &Self) -> Result<(), sqlx::Error> {
        let options = new.options()?;
        let pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        self.url.replace(new.url.get());
        for (pool, configure) in pools.iter() {
            pool.set_connect_options(configure(options.clone()));
        }
        Ok(())
    }

    pub(crate) fn text(&self) -> Arc<String> {
        self.url.get()
    }
}

impl From<String> for DatabaseUrl {
    fn from(url: String) -> Self {
        Self { url: url.into(), pools: Arc::default() }
    }
}

impl From<&str> for DatabaseUrl {
    fn from(url: &str) -> Self {
        url.to_owned().into()
    }
}

impl From<&String> for DatabaseUrl {
    fn from(url: &String) -> Self {
        url.clone().into()
    }
}

impl From<&Self> for DatabaseUrl {
    fn from(url: &Self) -> Self {
        url.clone()
    }
}

impl PartialEq for DatabaseUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("DatabaseUrl(…)")
    }
}
