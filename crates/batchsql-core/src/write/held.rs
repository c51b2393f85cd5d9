//! Owns the connections that are kept between steps of positions.
//! Must not know what they are used for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Connections between steps, the one that was used last on top.
pub(crate) struct Held<C>(Mutex<State<C>>);

struct State<C> {
    kept: Vec<Kept<C>>,
    is_closed: bool,
}

struct Kept<C> {
    acquired: Instant,
    used: Instant,
    conn: C,
}

/// A connection with the time when it was acquired.
pub(crate) struct Taken<C> {
    pub(crate) acquired: Instant,
    pub(crate) conn: C,
}

/// How long a connection is kept without use: then others need it more.
const IDLE: Duration = Duration::from_secs(1);

/// How long a connection is used in all. Pools check and renew the connections that are returned to them.
const AGE: Duration = Duration::from_secs(60);

impl<C> Default for Held<C> {
    fn default() -> Self {
        Self(Mutex::new(State { kept: Vec::new(), is_closed: false }))
    }
}

impl<C> Held<C> {
    pub(crate) fn take(&self) -> Option<Taken<C>> {
        self.sweep();
        self.lock().kept.pop().map(|kept| Taken { acquired: kept.acquired, conn: kept.conn })
    }

    pub(crate) fn put(&self, Taken { acquired, conn }: Taken<C>) {
        let mut state = self.lock();
        if !state.is_closed && acquired.elapsed() < AGE {
            state.kept.push(Kept { acquired, used: Instant::now(), conn });
        }
    }

    /// Gives back what was not used for a while. True if connections are left.
    pub(crate) fn sweep(&self) -> bool {
        let mut state = self.lock();
        let is_idle = |kept: &mut Kept<C>| kept.used.elapsed() >= IDLE || kept.acquired.elapsed() >= AGE;
        let idle: Vec<Kept<C>> = state.kept.extract_if(.., is_idle).collect();
        let is_left = !state.kept.is_empty();
        drop(state);
        drop(idle);
        is_left
    }

    /// Gives back all, also those that come later.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let kept = std::mem::take(&mut state.kept);
        drop(state);
        drop(kept);
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_are_given_back_when_nobody_uses_them() {
        let held = Held::default();
        let acquired = Instant::now();
        for conn in 0..3 {
            held.put(Taken { acquired, conn });
        }
        tokio::time::advance(IDLE / 2).await;
        let used = held.take().unwrap();
        assert_eq!(used.conn, 2, "the one that was used last");
        held.put(used);
        tokio::time::advance(IDLE / 2).await;
        assert!(held.sweep());
        assert_eq!(held.take().map(|taken| taken.conn), Some(2), "the others were idle");
        held.put(Taken { acquired, conn: 4 });
        tokio::time::advance(AGE).await;
        held.put(Taken { acquired, conn: 5 });
        assert!(!held.sweep(), "they are too old");
        held.put(Taken { acquired: Instant::now(), conn: 6 });
        held.close();
        held.put(Taken { acquired: Instant::now(), conn: 7 });
        assert!(held.take().is_none());
    }
}
