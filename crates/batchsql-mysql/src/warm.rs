//! Owns the connections that were used a moment ago, so that the next batch takes one without asking anyone.
//! Must not know statements.
//!
//! A pool of `sqlx` pings each connection that is given back; meanwhile the next batch opens another one, and prepares
//! its statements there. Under load, that is a fifth of the rate (measured). So a connection that has just carried a
//! batch stays here for a moment, and goes back to the pool when no batch wants it: others may use the pool too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::mysql::MySql;
use sqlx::pool::PoolConnection;
use tokio::runtime::Handle;

/// How long a connection waits for the next batch, at least; at most twice as long.
const STAY: Duration = Duration::from_millis(50);

/// Connections that were used a moment ago, the latest last.
#[derive(Default)]
pub(crate) struct Warm(Mutex<State>);

#[derive(Default)]
struct State {
    connections: Vec<(PoolConnection<MySql>, Instant)>,
    /// Whether a task gives back what stays too long. It ends when there is nothing left, or with the sink.
    is_swept: bool,
}

impl Warm {
    pub(crate) fn take(&self) -> Option<PoolConnection<MySql>> {
        self.state().connections.pop().map(|(connection, _)| connection)
    }

    pub(crate) fn len(&self) -> usize {
        self.state().connections.len()
    }

    /// Keeps a connection for the next batch.
    pub(crate) fn keep(self: &Arc<Self>, connection: PoolConnection<MySql>) {
        // Without a runtime there is no next batch, and nobody who could give the connection back.
        let Ok(runtime) = Handle::try_current() else { return close(connection) };
        let mut state = self.state();
        state.connections.push((connection, Instant::now()));
        if !std::mem::replace(&mut state.is_swept, true) {
            runtime.spawn(sweep(Arc::downgrade(self)));
        }
    }

    /// Takes out what stays too long; false when nothing is left.
    fn cool_down(&self) -> (Vec<PoolConnection<MySql>>, bool) {
        let mut state = self.state();
        let old = state.connections.iter().take_while(|(_, since)| since.elapsed() >= STAY).count();
        let cold = state.connections.drain(..old).map(|(connection, _)| connection).collect();
        state.is_swept = !state.connections.is_empty();
        (cold, state.is_swept)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep(warm: Weak<Warm>) {
    loop {
        tokio::time::sleep(STAY).await;
        let Some(warm) = warm.upgrade() else { return };
        // Dropped after the lock was given back: each goes to its pool.
        let (_cold, goes_on) = warm.cool_down();
        if !goes_on {
            return;
        }
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        if Handle::try_current().is_err() {
            self.state().connections.drain(..).for_each(|(connection, _)| close(connection));
        }
    }
}

/// Closes a connection where no runtime is left to give it back.
fn close(connection: PoolConnection<MySql>) {
    drop(connection.detach());
}
