//! Owns the connection that finds and ends other sessions.
//! Must not know rows, plans or batches.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_core::{ErrorClass, SessionEnd, SinkError};
use sqlx::mysql::{MySql, MySqlConnection};
use sqlx::pool::PoolConnection;
use sqlx::{ConnectOptions, Executor, MySqlPool};
use tokio::time::{sleep, timeout};

use crate::classify::{Failed, number};
use crate::session::{SessionName, Sessions, SharedName, has_restarted, is_of, text, user_of};

/// Connections that are opened to find the server of a session, if one address leads to several servers.
const MAX_SERVERS: usize = 4;

/// The time limit for opening a connection, so that some time is left to use it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest wait for a connection of the pool, if no other one can be opened.
const POOL_TIMEOUT: Duration = Duration::from_secs(1);

/// Pauses between checks for a killed session, in milliseconds.
pub(crate) const LOOKS: [u64; 7] = [5, 20, 50, 100, 200, 400, 400];

/// A statement above this size, in bytes, may be in transit for a long time while the server shows the
/// session as idle.
const MAX_SENT_AT_ONCE: usize = 1 << 20;

/// Finds sessions and ends them.
#[derive(Default)]
pub(crate) struct Watcher {
    /// Opened on first use, and taken out during use, so that a cancelled use closes it.
    own: Mutex<Option<MySqlConnection>>,
}

/// The connection that searches for a session.
enum From {
    Own(MySqlConnection),
    /// No further connection could be opened.
    Pooled(Borrowed),
}

/// A connection of the pool that is closed if it is dropped during use.
struct Borrowed(Option<PoolConnection<MySql>>);

/// The result of a search for a session.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    AnotherServer,
    Gone,
    /// The session exists, and executes a command or not.
    There {
        is_working: bool,
    },
    /// The state cannot be determined, and why.
    Hidden(&'static str),
    /// The user has no right to end it.
    Refused,
}

/// What to do with a session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Look,
    End,
}

impl Watcher {
    /// Ends the session of a connection with an abandoned write.
    ///
    /// # Errors
    /// The server cannot be queried now.
    ///
    /// # Cancel safety
    /// The connection that it uses is closed.
    pub(crate) async fn end(
        &self,
        pool: &MySqlPool,
        sessions: &Sessions,
        name: &SharedName,
    ) -> Result<SessionEnd, SinkError> {
        let Some(name) = name.get() else { return Ok(SessionEnd::Impossible) };
        let why = match self.find(pool, sessions, &name, Task::End).await? {
            Found::Gone => return Ok(SessionEnd::Ended),
            Found::There { .. } => return Ok(SessionEnd::Pending),
            Found::AnotherServer => "its server was not found at the address of the pool",
            Found::Hidden(why) => why,
            Found::Refused => "the user may not KILL its own sessions",
        };
        sessions.warn(why);
        Ok(SessionEnd::Impossible)
    }

    /// Whether the server is executing a command of the session; `None` if that is not known.
    ///
    /// # Errors
    /// The server cannot be queried now.
    ///
    /// # Cancel safety
    /// The connection that it uses is closed.
    pub(crate) async fn is_working(
        &self,
        pool: &MySqlPool,
        sessions: &Sessions,
        shared: &SharedName,
    ) -> Result<Option<bool>, SinkError> {
        let Some(name) = shared.get() else { return Ok(None) };
        Ok(match self.find(pool, sessions, &name, Task::Look).await? {
            Found::Gone => Some(false),
            Found::There { is_working: false } if shared.bytes_sent() > MAX_SENT_AT_ONCE => None,
            Found::There { is_working } => Some(is_working),
            Found::AnotherServer | Found::Hidden(_) | Found::Refused => None,
        })
    }

    async fn find(
        &self,
        pool: &MySqlPool,
        sessions: &Sessions,
        name: &SessionName,
        task: Task,
    ) -> Result<Found, SinkError> {
        for _ in 0..MAX_SERVERS {
            let kept = self.own().take();
            let is_kept = kept.is_some();
            let mut from = match kept {
                Some(kept) => From::Own(kept),
                None => open(pool).await?,
            };
            match find_from(from.connection(), sessions, name, task).await {
                // The address may lead to several servers.
                Ok(Found::AnotherServer) => {}
                Ok(found) => {
                    self.keep(from);
                    return Ok(found);
                }
                // The server may have closed it in the meantime.
                Err(_) if is_kept => {}
                Err(error) => return Err(Failed::asked(error).error),
            }
        }
        Ok(Found::AnotherServer)
    }

    fn keep(&self, from: From) {
        match from {
            From::Own(own) => *self.own() = Some(own),
            // The connection returns to the pool.
            From::Pooled(mut borrowed) => drop(borrowed.0.take()),
        }
    }

    fn own(&self) -> MutexGuard<'_, Option<MySqlConnection>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(pool: &MySqlPool) -> Result<From, SinkError> {
    let options = pool.connect_options();
    let limit = pool.options().get_acquire_timeout().min(OPEN_TIMEOUT);
    let error = match timeout(limit, options.connect()).await {
        Ok(Ok(own)) => return Ok(From::Own(own)),
        Ok(Err(error)) => Failed::asked(error).error,
        Err(_) => SinkError::new(ErrorClass::Transient, format!("no connection to the server within {limit:?}")),
    };
    match timeout(POOL_TIMEOUT, pool.acquire()).await {
        Ok(Ok(pooled)) => Ok(From::Pooled(Borrowed(Some(pooled)))),
        _ => Err(error),
    }
}

async fn find_from(
    connection: &mut MySqlConnection,
    sessions: &Sessions,
    name: &SessionName,
    task: Task,
) -> sqlx::Result<Found> {
    let Some(own) = sessions.ask(connection).await? else { return Ok(Found::Hidden("its name cannot be read")) };
    if own.server != name.server {
        return Ok(Found::AnotherServer);
    }
    let age = (own.asked.0 - name.asked.1, own.asked.1 - name.asked.0);
    if has_restarted(name.uptime, age, own.uptime) {
        return Ok(Found::Gone);
    }
    if user_of(&own.user) != user_of(&name.user) {
        return Ok(Found::Hidden("the pool now connects as another user"));
    }
    let mut found = listed(connection, own.id, name).await?;
    if task == Task::Look || !matches!(found, Found::There { .. }) {
        return Ok(found);
    }
    // The check used this connection, so the server is the same.
    match connection.execute(&*format!("KILL {}", name.id)).await {
        Ok(_) => {}
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == NO_SUCH_SESSION => {}
        Err(sqlx::Error::Database(error)) if is_refusal(number(error.as_ref())) => return Ok(Found::Refused),
        Err(error) => return Err(error),
    }
    for pause in LOOKS {
        sleep(Duration::from_millis(pause)).await;
        found = listed(connection, own.id, name).await?;
        if !matches!(found, Found::There { .. }) {
            break;
        }
    }
    Ok(found)
}

/// The state of a session in the process list.
async fn listed(connection: &mut MySqlConnection, own: u64, name: &SessionName) -> sqlx::Result<Found> {
    let list =
        format!("SELECT ID, USER, HOST, COMMAND FROM information_schema.PROCESSLIST WHERE ID IN ({own}, {})", name.id);
    let list = connection.fetch_all(&*list).await?;
    let find = |id: u64| list.iter().find(|row| text(row, 0) == id.to_string());
    if find(own).is_none() {
        return Ok(Found::Hidden("the user cannot see its sessions in the process list"));
    }
    let Some(session) = find(name.id) else { return Ok(Found::Gone) };
    if !is_of(&name.user, &text(session, 1), &text(session, 2)) {
        return Ok(Found::Hidden("the process list shows it as another user's"));
    }
    Ok(Found::There { is_working: !text(session, 3).eq_ignore_ascii_case("sleep") })
}

impl From {
    fn connection(&mut self) -> &mut MySqlConnection {
        match self {
            Self::Own(own) => own,
            Self::Pooled(borrowed) => borrowed.0.as_mut().expect("it is taken only when it is given back"),
        }
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

/// `ER_NO_SUCH_THREAD`: it has already ended.
pub(crate) const NO_SUCH_SESSION: u16 = 1094;

/// Whether the server permanently denies this user the right to end a session.
fn is_refusal(code: u16) -> bool {
    // Not the owner, missing rights, not supported, syntax error.
    matches!(code, 1044 | 1045 | 1064 | 1095 | 1142 | 1227 | 1235 | 1370 | 1698)
}
