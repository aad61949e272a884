//! A database of one's own on a server of the tests, and what the tests' environment says about the servers.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::error::{Error, Result};

/// The value of a variable that `devstack with-servers` sets, or an error that says how to get it.
pub fn test_variable(name: &'static str) -> Result<String> {
    std::env::var(name).map_err(|_| {
        Error::config(name, "is not set: run `make test`, or `devstack with-servers -- cargo test …`, which starts the servers that this test needs")
    })
}

/// An empty database with a name of its own. [`ScratchDatabase::remove`] drops it; one that is not removed goes with the server.
#[derive(Clone, Debug)]
pub struct ScratchDatabase {
    maintenance_url: String,
    name: String,
    url: String,
}

impl ScratchDatabase {
    /// Makes one on the server at `maintenance_url`, whose user may create databases.
    pub async fn create(maintenance_url: &str) -> Result<Self> {
        let name = format!("scratch_{}", uuid::Uuid::new_v4().simple());
        run(maintenance_url, format!("CREATE DATABASE {name}")).await?;
        Ok(Self { url: with_database(maintenance_url, &name), maintenance_url: maintenance_url.to_owned(), name })
    }

    /// Makes one on the server of the tests (`TEST_DATABASE_URL`).
    pub async fn for_test() -> Result<Self> {
        Self::create(&test_variable("TEST_DATABASE_URL")?).await
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops it, and cuts the sessions that are still in it.
    pub async fn remove(self) -> Result<()> {
        run(&self.maintenance_url, format!("DROP DATABASE {} WITH (FORCE)", self.name)).await
    }
}

async fn run(url: &str, statement: String) -> Result<()> {
    let action = format!("run {statement}");
    let mut connection = PgConnection::connect(url).await.map_err(Error::sql(&action))?;
    connection.execute(AssertSqlSafe(statement)).await.map_err(Error::sql(&action))?;
    let _ = connection.close().await;
    Ok(())
}

/// `url` with another database; its parameters stay.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) =
        url.split_once('?').map_or((url, None), |(address, parameters)| (address, Some(parameters)));
    let after_scheme = address.find("://").map_or(0, |at| at + 3);
    let host_end = address[after_scheme..].find('/').map_or(address.len(), |at| after_scheme + at);
    let parameters = parameters.map(|parameters| format!("?{parameters}")).unwrap_or_default();
    format!("{}/{name}{parameters}", &address[..host_end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_is_replaced() {
        assert_eq!(with_database("postgres://u:p@h:1/postgres?a=b", "x"), "postgres://u:p@h:1/x?a=b");
        assert_eq!(with_database("postgres://h", "x"), "postgres://h/x");
    }
}
