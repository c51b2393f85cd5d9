//! Owns whether the stream answers, and for how long a worker keeps its partitions while it does not.
//! Must not know the stream or the partitions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// When the stream has answered last.
#[derive(Debug)]
pub(crate) struct Contact {
    /// How long a worker keeps its partitions without an answer. `None`: without a limit.
    limit: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` before the first look.
    is_up: Option<bool>,
    answered: Instant,
    /// The worker has given its partitions away, or is about to.
    is_gone: bool,
}

impl Contact {
    /// The stream has just answered.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        Self { limit, state: Mutex::new(State { is_up: None, answered: Instant::now(), is_gone: false }) }
    }

    pub(crate) fn answers(&self) {
        *self.state() = State { is_up: Some(true), answered: Instant::now(), is_gone: false };
    }

    /// The stream did not answer. Returns whether the worker must give its partitions away.
    pub(crate) fn is_away(&self) -> bool {
        let mut state = self.state();
        state.is_up = Some(false);
        state.is_gone |= self.limit.is_some_and(|limit| state.answered.elapsed() >= limit);
        state.is_gone
    }

    /// Whether the stream has answered the last look; `None` before the first one.
    pub(crate) fn is_up(&self) -> Option<bool> {
        self.state().is_up
    }

    /// Whether the worker is to have no partitions.
    pub(crate) fn is_gone(&self) -> bool {
        self.state().is_gone
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_goes_when_the_stream_was_away_for_long_and_comes_back() {
        let contact = Contact::new(Some(Duration::from_secs(10)));
        assert_eq!(contact.is_up(), None);
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!contact.is_away());
        assert_eq!(contact.is_up(), Some(false));
        contact.answers();
        assert_eq!(contact.is_up(), Some(true));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert!(!contact.is_away(), "it has answered meanwhile");
        tokio::time::advance(Duration::from_secs(4)).await;
        assert!(!contact.is_gone() && contact.is_away() && contact.is_gone());
        contact.answers();
        assert!(!contact.is_gone());

        let forever = Contact::new(None);
        tokio::time::advance(Duration::from_secs(100_000)).await;
        assert!(!forever.is_away());
    }
}
