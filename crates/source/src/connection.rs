//! A connection to the source with its permit. The permit is released when the server has ended the session, not when this
//! process has closed its socket: the server may notice that only a second later, in a sort for instance, and until then the
//! session counts against the server's limits.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use polyglot_core::failure::chain;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection as _};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout};
use tracing::Instrument;

use crate::connection_limit::ConnectionPermit;
use crate::database_url::DatabaseUrl;
use crate::session_settings::{apply_session_settings, reset_session_settings, with_source_options};
use crate::sql::quote_literal;

/// Longest wait for a connection to be established.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The same for the connection for control, because others wait for their turn.
const CONTROL_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after which the session of a connection that was closed while nothing ran in it has ended. The server needs
/// milliseconds.
const CLOSE_TIME: Duration = Duration::from_millis(100);
/// Longest time for telling the server that a connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time for ending a session in which a statement runs. If the server has not answered by then, it cannot be reached.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two looks whether such a session has ended.
const END_PAUSE: Duration = Duration::from_millis(10);

/// A connection to the source, with every setting that the text of a value depends on. It is used as a [`PgConnection`].
///
/// [`Self::close`] closes one in which no statement runs. Dropping it closes it as well, but has to assume that a statement
/// runs, which is then ended over another connection.
pub struct SourceConnection {
    /// `None` only while it is being closed or dropped.
    open: Option<OpenSession>,
}

struct OpenSession {
    connection: PgConnection,
    permit: ConnectionPermit,
    url: DatabaseUrl,
    /// `application_name` of the session.
    name: String,
    /// The session's process in the server; `None` until the server has answered for the first time.
    pid: Option<i32>,
}

impl SourceConnection {
    /// Connects; `name` becomes the session's `application_name`.
    ///
    /// # Errors
    /// When the server refuses, or does not answer in time.
    pub async fn open(permit: ConnectionPermit, url: impl Into<DatabaseUrl>, name: &str) -> Result<Self, sqlx::Error> {
        let limit = if permit.is_control() { CONTROL_CONNECT_TIMEOUT } else { CONNECT_TIMEOUT };
        let (url, name) = (url.into(), name.to_owned());
        let opening = async move {
            let options = with_source_options(url.options()?).application_name(&name);
            let connection = PgConnection::connect_with(&options).await?;
            let mut opened = Self { open: Some(OpenSession { connection, permit, url, name, pid: None }) };
            let session = opened.session();
            session.pid = Some(apply_session_settings(&mut session.connection).await?);
            Ok(opened)
        };
        let opening = async move { timeout(limit, opening).await.unwrap_or_else(|_| Err(silent())) };
        // In a task of its own, which goes on if the caller gives up: the session that comes of it is then ended like any other.
        tokio::spawn(opening.in_current_span()).await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
    }

    /// The session's process in the server when its settings were made.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.open.as_ref().and_then(|session| session.pid)
    }

    fn session(&mut self) -> &mut OpenSession {
        self.open.as_mut().expect("the session is taken only when the connection is gone")
    }

    /// Resets the session to the state of a new one, under another name.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn renew(&mut self, name: &str) -> Result<(), sqlx::Error> {
        let session = self.session();
        session.pid = Some(reset_session_settings(&mut session.connection, name).await?);
        name.clone_into(&mut session.name);
        Ok(())
    }

    /// Commits the transaction and renames the session.
    ///
    /// # Errors
    /// When the session has ended.
    pub async fn commit(&mut self, name: &'static str) -> Result<(), sqlx::Error> {
        let session = self.session();
        let statement = format!("COMMIT; SET application_name TO {}", quote_literal(name));
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut session.connection).await?;
        name.clone_into(&mut session.name);
        Ok(())
    }

    /// Closes a connection in which no statement runs, in the background.
    pub fn close(mut self) {
        let Some(OpenSession { connection, permit, .. }) = self.open.take() else { return };
        spawn(async move {
            // A server that does not answer has ended the session, or will when it finds the connection closed.
            let _ = timeout(CLOSE_TIMEOUT, connection.close()).await;
            sleep(CLOSE_TIME).await;
            drop(permit);
        });
    }
}

impl Deref for SourceConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.open.as_ref().expect("the session is taken only when the connection is gone").connection
    }
}

impl DerefMut for SourceConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.session().connection
    }
}

impl Drop for SourceConnection {
    fn drop(&mut self) {
        if let Some(session) = self.open.take() {
            spawn(end(session));
        }
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// Runs `closing` in the background. At the end of the process, when there is no runtime any more, its sockets are closed anyway.
fn spawn(closing: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(closing);
    }
}

/// Closes the connection, has the server end its session, and releases the permit when it has.
async fn end(session: OpenSession) {
    let OpenSession { connection, permit, url, name, pid } = session;
    drop(connection);
    let Some(pid) = pid.filter(|_| !permit.is_control()) else {
        // It has not begun to run anything, or is the connection that others would be ended with; its statements are short.
        return sleep(CLOSE_TIME).await;
    };
    let ending = async {
        let control = permit.limit().acquire_control().await;
        let mut control = SourceConnection::open(control, &url, "polyglot end").await?;
        while terminate(&mut control, pid, &name).await? {
            sleep(END_PAUSE).await;
        }
        control.close();
        Ok::<_, sqlx::Error>(())
    };
    let problem = match timeout(END_TIMEOUT, Box::pin(ending)).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => chain(&error),
        Err(_) => format!("no answer within {} s", END_TIMEOUT.as_secs()),
    };
    tracing::debug!(pid, problem, "a session of the source was closed, but the server has not confirmed its end");
}

/// Has the server end a session of this user. Returns whether there still was one.
async fn terminate(connection: &mut PgConnection, pid: i32, name: &str) -> Result<bool, sqlx::Error> {
    let found = sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE pid = $1 AND application_name = $2 AND usename = current_user",
    );
    Ok(found.bind(pid).bind(name).fetch_optional(connection).await?.is_some())
}
