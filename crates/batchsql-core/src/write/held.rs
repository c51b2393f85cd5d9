//! Owns the connections that are kept between steps of positions.
//! Must not know what they are used for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Connections between steps, the one that was used last on top.
pub(crate) struct Held<C>(Mutex<Vec<(Instant, C)>>);

/// How long a connection is kept without use. Pools check and renew the connections that are returned to them.
const HOLD: Duration = Duration::from_secs(1);

impl<C> Default for Held<C> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<C> Held<C> {
    pub(crate) fn take(&self) -> Option<C> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|(since, _)| since.elapsed() < HOLD);
        held.pop().map(|(_, conn)| conn)
    }

    pub(crate) fn put(&self, conn: C) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), conn));
    }
}
