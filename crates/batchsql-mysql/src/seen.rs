//! Owns the way of the name of a session from the hooks of a pool to the code that takes the connection: the pool has no place
//! for it. Hooks run in the task that acquires.
//! Must not know how a session is named.

use std::cell::RefCell;

use sqlx::MySqlPool;
use sqlx::mysql::MySql;
use sqlx::pool::PoolConnection;

use crate::session::SessionName;

tokio::task_local! {
    static SEEN: RefCell<Option<SessionName>>;
}

/// Takes a connection out of the pool, with the name of its session if a hook has asked for it.
pub(crate) async fn acquire(pool: &MySqlPool) -> sqlx::Result<(PoolConnection<MySql>, Option<SessionName>)> {
    let acquire = async {
        let live = pool.acquire().await?;
        Ok((live, SEEN.with(RefCell::take)))
    };
    SEEN.scope(RefCell::default(), acquire).await
}

/// Called by each hook: it is the connection that is taken, unless another one follows.
pub(crate) fn set(name: Option<SessionName>) {
    // Otherwise the application takes it.
    let _ = SEEN.try_with(|seen| seen.replace(name));
}
