//! Owns the reconnect to a database that cannot be reached: one attempt at a time, with growing delays, for all tables
//! together. Must not know lanes or clocks: callers pass the time.
//!
//! Without it, each lane would ask for its own connection: hundreds of attempts a second, which can prevent a server
//! from starting.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ErrorClass, SinkError};
use crate::outcome::outcomes::FailureKind;
use crate::write::retry::RetrySchedule;

/// How long rows wait for a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WaitLimits {
    pub(crate) retry_for: Duration,
    pub(crate) park_for: Duration,
}

/// The longest delay between attempts while the pipeline drains.
const DRAINING_DELAY: Duration = Duration::from_millis(250);

/// The state while no connection can be established.
pub(crate) struct ConnectGate {
    pub(crate) since: Instant,
    pub(crate) error: SinkError,
    delays: RetrySchedule,
    next_try: Instant,
    /// When the last failed attempt started.
    tried_at: Instant,
}

impl ConnectGate {
    pub(crate) fn new(error: SinkError, now: Instant) -> Self {
        let delays = RetrySchedule::new(Duration::MAX);
        Self { since: now, error, delays, next_try: now, tried_at: now }
    }

    /// An attempt that started at `started` failed; returns the delay before the next one.
    pub(crate) fn failed(
        &mut self,
        error: SinkError,
        started: Instant,
        now: Instant,
        limits: WaitLimits,
        is_draining: bool,
    ) -> Duration {
        let class = if error.is_retryable() { error.class() } else { ErrorClass::Resource };
        let mut delay = self.delays.next(class, Duration::ZERO).unwrap_or(Duration::ZERO);
        if is_draining {
            delay = delay.min(DRAINING_DELAY);
        }
        self.error = error;
        self.tried_at = self.tried_at.max(started);
        // The first rows get their last try as soon as their time is over, not later.
        let last = self.first_last_try(limits);
        if now < last {
            delay = delay.min(last - now);
        }
        self.next_try = now + delay;
        delay
    }

    /// The pipeline drains: the next attempt is made at once.
    pub(crate) fn try_now(&mut self, now: Instant) {
        self.next_try = now;
    }

    /// When the first rows should have their last try.
    pub(crate) fn first_last_try(&self, limits: WaitLimits) -> Instant {
        self.since + self.ending(limits).1
    }

    /// Whether the first rows had it.
    pub(crate) fn had_last_try(&self, limits: WaitLimits) -> bool {
        self.first_last_try(limits) <= self.tried_at
    }

    /// When the last failed attempt started.
    pub(crate) fn tried_at(&self) -> Instant {
        self.tried_at
    }

    pub(crate) fn next_try(&self) -> Instant {
        self.next_try
    }

    /// The outcome of rows that have waited long enough, and how long that is.
    pub(crate) fn ending(&self, limits: WaitLimits) -> (FailureKind, Duration) {
        match self.error.class() {
            ErrorClass::Transient | ErrorClass::Resource | ErrorClass::Unknown => {
                (FailureKind::Expired, limits.retry_for)
            }
            // For example a refused login.
            _ => (FailureKind::Rejected, limits.park_for),
        }
    }

    /// Whether rows have waited long enough, and were tried after that. `since` is when they began to wait, if that was
    /// before the gate closed.
    pub(crate) fn is_over(&self, opened: Instant, since: Option<Instant>, limits: WaitLimits) -> bool {
        let since = since.map_or(self.since, |since| since.min(self.since));
        since.max(opened) + self.ending(limits).1 <= self.tried_at
    }
}
