//! Owns the way of the name of a session from the hooks of a pool to the code that takes the connection: the pool has no place
//! for it. Hooks run in the task that acquires.
//! Must not know what the name is for.

use std::cell::RefCell;
use std::io;

use sqlx::pool::PoolConnection;
use sqlx::{PgConnection, PgPool, Postgres};

use crate::classify::is_refusal;
use crate::session::{Named, ask_name};
use crate::session_names::SessionNames;

tokio::task_local! {
    static SEEN: RefCell<Option<Named>>;
}

/// Takes a connection out of the pool, with the name of its session if a hook has asked for it.
pub(crate) async fn acquire(pool: &PgPool) -> sqlx::Result<(PoolConnection<Postgres>, Option<Named>)> {
    let acquire = async {
        let conn = pool.acquire().await?;
        Ok((conn, SEEN.with(RefCell::take)))
    };
    SEEN.scope(RefCell::default(), acquire).await
}

/// Called by each hook first: it is the connection that is taken, unless another one follows.
pub(crate) fn none() {
    set(None);
}

/// Asks for the name, in the place of a ping.
///
/// # Errors
/// The connection is lost.
pub(crate) async fn ask(conn: &mut PgConnection, names: &SessionNames) -> sqlx::Result<()> {
    match ask_name(conn).await {
        Ok(named) => {
            let kept = names.keep(conn, named).await?;
            set(kept);
        }
        // The server has answered.
        Err(error) if is_refusal(&error) => none(),
        Err(error) => return Err(sqlx::Error::Io(io::Error::other(error.to_string()))),
    }
    Ok(())
}

/// Finds the name of a connection that was in use just before.
///
/// # Errors
/// The connection is lost.
pub(crate) async fn find(conn: &mut PgConnection, names: &SessionNames) -> sqlx::Result<()> {
    set(names.find(conn).await?);
    Ok(())
}

fn set(named: Option<Named>) {
    // Otherwise the application takes it.
    let _ = SEEN.try_with(|seen| seen.replace(named));
}
