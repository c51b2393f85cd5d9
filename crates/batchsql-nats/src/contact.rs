//! Owns whether the stream answers, and for how long a worker keeps its partitions while it does not.
//! Must not know the stream or the partitions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Whether the stream has answered the last look. What keeps the worker from looking, for example the database, does not count.
#[derive(Debug)]
pub(crate) struct Contact {
    /// How long a worker keeps its partitions without an answer. `None`: without a limit.
    limit: Option<Duration>,
    /// Looks without an answer with more time between them do not count as one outage.
    longest_gap: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` before the first look.
    is_up: Option<bool>,
    /// When the last look ended.
    looked: Option<Instant>,
    /// When the first look began that had no answer, if none had one since, and looks went on all the time.
    unreachable_since: Option<Instant>,
    /// The worker has given its partitions away, or is about to.
    is_gone: bool,
}

impl Contact {
    /// Before the first look.
    pub(crate) fn new(limit: Option<Duration>, longest_gap: Duration) -> Self {
        let state = State { is_up: None, looked: None, unreachable_since: None, is_gone: false };
        Self { limit, longest_gap, state: Mutex::new(state) }
    }

    pub(crate) fn answers(&self) {
        *self.state() =
            State { is_up: Some(true), looked: Some(Instant::now()), unreachable_since: None, is_gone: false };
    }

    /// The stream did not answer a look that began then. Returns whether the worker must give its partitions away.
    pub(crate) fn is_unreachable(&self, began: Instant) -> bool {
        let mut state = self.state();
        state.is_up = Some(false);
        let looked = state.looked.replace(Instant::now());
        if looked.is_some_and(|looked| began.saturating_duration_since(looked) > self.longest_gap) {
            // The database was unreachable meanwhile, and perhaps the stream was not.
            state.unreachable_since = None;
        }
        let since = *state.unreachable_since.get_or_insert(began);
        state.is_gone |= self.limit.is_some_and(|limit| since.elapsed() >= limit);
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
    async fn a_worker_goes_when_the_stream_was_unreachable_for_long_and_comes_back() {
        let contact = Contact::new(Some(Duration::from_secs(10)), Duration::from_secs(20));
        assert_eq!(contact.is_up(), None);
        let seconds = Duration::from_secs;
        assert!(!contact.is_unreachable(Instant::now()));
        tokio::time::advance(seconds(6)).await;
        assert!(!contact.is_unreachable(Instant::now()));
        assert_eq!(contact.is_up(), Some(false));
        contact.answers();
        assert_eq!(contact.is_up(), Some(true));
        // The database was unreachable meanwhile, so there was no look.
        tokio::time::advance(seconds(100)).await;
        assert!(!contact.is_unreachable(Instant::now()), "one look without an answer");
        tokio::time::advance(seconds(6)).await;
        assert!(!contact.is_unreachable(Instant::now()), "since 6 seconds");
        tokio::time::advance(seconds(4)).await;
        assert!(!contact.is_gone() && contact.is_unreachable(Instant::now()) && contact.is_gone());
        contact.answers();
        assert!(!contact.is_gone());
        assert!(contact.is_unreachable(Instant::now() - seconds(10)), "a look that has waited for so long");

        let gap = Contact::new(Some(seconds(10)), seconds(20));
        assert!(!gap.is_unreachable(Instant::now()));
        tokio::time::advance(seconds(21)).await;
        assert!(!gap.is_unreachable(Instant::now()), "nobody has looked for 21 seconds");
        tokio::time::advance(seconds(9)).await;
        assert!(!gap.is_unreachable(Instant::now()), "since 9 seconds");
        tokio::time::advance(seconds(1)).await;
        assert!(gap.is_unreachable(Instant::now()));
        tokio::time::advance(seconds(21)).await;
        assert!(gap.is_unreachable(Instant::now()), "it has given its partitions away until an answer");

        let forever = Contact::new(None, seconds(20));
        assert!(!forever.is_unreachable(Instant::now()));
        tokio::time::advance(seconds(100_000)).await;
        assert!(!forever.is_unreachable(Instant::now()));
    }
}
