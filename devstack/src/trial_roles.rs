//! The roles of a trial's private PostgreSQL: one for the ledger and one that may only read. `seed/roles.sql`, which psql can
//! run as well, defines their rights.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Executor};

use crate::error::{Error, Result};

const SQL: &str = include_str!("../seed/roles.sql");

/// Owns the schema of the ledger, and nothing else.
pub const LEDGER_ROLE: &str = "polyglot_ledger";
/// May read the tables in `public`, and do nothing else.
pub const READER_ROLE: &str = "polyglot_reader";

/// The passwords of the two roles.
#[derive(Clone, Debug)]
pub struct TrialPasswords {
    pub ledger: String,
    pub reader: String,
}

/// Creates the roles in the database at `admin_url`, a superuser's, and gives each its rights. What earlier versions have
/// made, with a single role, goes on with these.
pub async fn set_up(admin_url: &str, passwords: &TrialPasswords) -> Result<()> {
    let action = "set up the roles polyglot_ledger and polyglot_reader in the private PostgreSQL";
    let options: PgConnectOptions = admin_url.parse().map_err(Error::sql("read the database's URL"))?;
    let settings = [("trial.ledger_password", &passwords.ledger), ("trial.reader_password", &passwords.reader)];
    let mut connection = PgConnection::connect_with(&options.options(settings)).await.map_err(Error::sql(action))?;
    connection.execute(SQL).await.map_err(Error::sql(action))?;
    let _ = connection.close().await;
    Ok(())
}
