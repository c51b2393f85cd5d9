//! Owns the session that holds a position: it is in the row, and is ended if it stands still and another one claims the row.
//! Must not know claims, steps or leases.
//!
//! Whoever changes a position also writes the name of its session into the row, with the position. Until it commits, that name is seen only by a
//! dirty read (READ UNCOMMITTED). So if a dirty read shows another position than a read of what is committed, the session in
//! the dirty row holds the lock of the row. This needs no rights on the tables of locks.
//!
//! ```text
//! session 7    START TRANSACTION; UPDATE ... SET sequence = 150, holder = '7 1785283200 4 150 app@10.0.0.7'    its process is frozen
//! session 9    SELECT ... FOR UPDATE                 error 1205 after a second
//!              dirty read: sequence 150, session 7; committed: sequence 100. So session 7 holds the row
//!              process list: 7 is of app@10.0.0.7 and has done nothing for a second. KILL 7
//!              SELECT ... FOR UPDATE                 sequence 100
//! ```
//!
//! A session is ended only if it is provably the one that wrote the row: its number counts from the start of the server, so the
//! row must be younger than the server, and the process list must show the user and the host of the row.

use std::time::Duration;

use batchsql_core::PartitionKey;
use batchsql_sql::position_of;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};
use tokio::time::sleep;

use crate::classify::number;
use crate::session::{Sessions, is_of, text, user_of};
use crate::watcher::{LOOKS, NO_SUCH_SESSION};

/// The name of the session that changes a position to this one: its number, the time, the position, its user and host.
pub(crate) fn of_this_session(epoch: i64, sequence: i64) -> String {
    format!("CONCAT(CONNECTION_ID(), ' ', UNIX_TIMESTAMP(), ' {epoch} {sequence} ', USER())")
}

/// Seconds: the server computes its uptime with the same clock, and both are rounded.
const CLOCK_TOLERANCE: i64 = 1;

/// What became of the session that holds a position.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// It has ended, and with it its transaction.
    Ended,
    /// No session is known to hold it, or the one that does is at work.
    LeftAlone,
    /// It holds the position and cannot be ended: why.
    Kept(&'static str),
}

/// A session as a position names it.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    id: u64,
    /// Seconds since 1970, by the clock of the server.
    since: i64,
    /// The epoch and the sequence that it has written.
    place: (i64, i64),
    /// `user@host` as the server sees it.
    user: String,
}

impl Holder {
    fn parse(name: &str) -> Option<Self> {
        let mut words = name.splitn(5, ' ');
        let (id, since) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let place = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { id, since, place, user: words.next()?.to_owned() })
    }

    /// Whether the server was started before the row was changed, so that the number is one of its sessions.
    fn is_of_server(&self, now: i64, uptime: u64) -> bool {
        let started = now.saturating_sub(i64::try_from(uptime).unwrap_or(i64::MAX));
        self.since >= started.saturating_add(CLOCK_TOLERANCE)
    }
}

/// Ends the session whose open transaction has moved the position, if it has done nothing for a second.
pub(crate) async fn end_holder(
    connection: &mut MySqlConnection,
    sessions: &Sessions,
    key: &PartitionKey,
) -> sqlx::Result<Holding> {
    let dirty = read(connection, "READ UNCOMMITTED", key).await?;
    // After the dirty read: what is not committed now was not committed then.
    let committed = read(connection, "READ COMMITTED", key).await?;
    let (Some(dirty), Some(committed)) = (dirty, committed) else { return Ok(Holding::LeftAlone) };
    if dirty.place == committed.place {
        return Ok(Holding::LeftAlone);
    }
    let holder = dirty.holder.as_deref().and_then(Holder::parse);
    // Otherwise somebody else has changed the position, who left the name of another session in the row.
    let Some(holder) = holder.filter(|holder| holder.place == dirty.place) else { return Ok(Holding::LeftAlone) };
    end(connection, sessions, &holder).await
}

/// A position in its row.
struct Seen {
    /// Epoch and sequence.
    place: (i64, i64),
    holder: Option<String>,
}

/// Reads the position in a transaction of its own.
async fn read(connection: &mut MySqlConnection, isolation: &str, key: &PartitionKey) -> sqlx::Result<Option<Seen>> {
    connection.execute(&*format!("SET TRANSACTION ISOLATION LEVEL {isolation}")).await?;
    let PartitionKey { source, incarnation, table, partition, .. } = key;
    let of_key = position_of(|_| "?".to_owned());
    let sql = format!("SELECT epoch, sequence, holder FROM batchsql_positions WHERE {of_key}");
    let query = sqlx::query(&sql).bind(source).bind(incarnation).bind(table).bind(partition).persistent(false);
    let seen = |row: MySqlRow| {
        // A binary collation: the client takes the type for bytes.
        Ok(Seen { place: (row.try_get(0)?, row.try_get(1)?), holder: row.try_get_unchecked(2)? })
    };
    query.fetch_optional(connection).await?.map(seen).transpose()
}

async fn end(connection: &mut MySqlConnection, sessions: &Sessions, holder: &Holder) -> sqlx::Result<Holding> {
    let Some(own) = sessions.ask(connection).await? else {
        return Ok(Holding::Kept("this server or proxy does not end sessions as MySQL does"));
    };
    let now = connection.fetch_one("SELECT UNIX_TIMESTAMP()").await?;
    if !holder.is_of_server(text(&now, 0).parse().unwrap_or(0), own.uptime) {
        return Ok(Holding::LeftAlone);
    }
    if user_of(&own.user) != user_of(&holder.user) {
        return Ok(Holding::Kept("it is of another user"));
    }
    match listed(connection, own.id, holder).await? {
        Listed::Idle => {}
        Listed::Gone => return Ok(Holding::Ended),
        Listed::AtWork => return Ok(Holding::LeftAlone),
        Listed::Hidden => return Ok(Holding::Kept("the process list does not show it as that of this user")),
    }
    match connection.execute(&*format!("KILL {}", holder.id)).await {
        Ok(_) => {}
        Err(sqlx::Error::Database(error)) if number(error.as_ref()) == NO_SUCH_SESSION => {}
        Err(sqlx::Error::Database(_)) => return Ok(Holding::Kept("the server does not let the user KILL its session")),
        Err(error) => return Err(error),
    }
    for pause in LOOKS {
        sleep(Duration::from_millis(pause)).await;
        if listed(connection, own.id, holder).await? == Listed::Gone {
            break;
        }
    }
    // If it is still there, it is rolled back, and the next claim waits for it.
    Ok(Holding::Ended)
}

#[derive(Debug, PartialEq, Eq)]
enum Listed {
    /// It has done nothing new for a second.
    Idle,
    AtWork,
    Gone,
    /// It is not shown, or as that of somebody else.
    Hidden,
}

/// The holder in the process list. A claim has waited for a second before: a session that has begun something since then is at
/// work, and gives the position free by itself.
async fn listed(connection: &mut MySqlConnection, own: u64, holder: &Holder) -> sqlx::Result<Listed> {
    let sql =
        format!("SELECT ID, USER, HOST, TIME FROM information_schema.PROCESSLIST WHERE ID IN ({own}, {})", holder.id);
    let list = connection.fetch_all(&*sql).await?;
    let find = |id: u64| list.iter().find(|row| text(row, 0) == id.to_string());
    if find(own).is_none() {
        return Ok(Listed::Hidden);
    }
    let Some(session) = find(holder.id) else { return Ok(Listed::Gone) };
    if !is_of(&holder.user, &text(session, 1), &text(session, 2)) {
        return Ok(Listed::Hidden);
    }
    let idle_seconds: i64 = text(session, 3).parse().unwrap_or(0);
    Ok(if idle_seconds > 0 { Listed::Idle } else { Listed::AtWork })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_names_its_session() {
        let holder = Holder::parse("7 1785283200 4 150 a b@10.0.0.7").unwrap();
        let (place, user) = ((4, 150), "a b@10.0.0.7".to_owned());
        assert_eq!(holder, Holder { id: 7, since: 1_785_283_200, place, user });
        for name in ["", "7", "7 1785283200 4 150", "x 1785283200 4 150 a@b", "7 x 4 150 a@b", "7 1785283200 4 a@b c"] {
            assert_eq!(Holder::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_session_of_an_earlier_run_of_the_server_is_another_one() {
        let holder = Holder { id: 7, since: 1_000, place: (4, 150), user: String::new() };
        assert!(holder.is_of_server(1_010, 600), "it was started long before");
        assert!(holder.is_of_server(1_010, 11), "just before");
        assert!(!holder.is_of_server(1_010, 10), "too close to decide");
        assert!(!holder.is_of_server(1_010, 5), "it was started after the row was changed");
    }
}
