//! An empty database with a name of its own, on a server that exists.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor};

use crate::error::{Error, Result};

/// An empty database. [`ScratchDatabase::remove`] drops it; otherwise it lasts as long as its server.
#[derive(Clone, Debug)]
pub struct ScratchDatabase {
    maintenance_url: String,
    name: String,
    url: String,
}

impl ScratchDatabase {
    /// Creates one on the server at `maintenance_url`, whose user may create databases.
    pub async fn create(maintenance_url: &str) -> Result<Self> {
        let name = format!("scratch_{}", uuid::Uuid::new_v4().simple());
        run(maintenance_url, format!("CREATE DATABASE {name}")).await?;
        Ok(Self { url: with_database(maintenance_url, &name), maintenance_url: maintenance_url.to_owned(), name })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Drops it, and ends the sessions that are still in it.
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

/// Replaces the database of `url`; its parameters stay.
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
