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
#[derive(Debug)]
pub(crate) struct WaitLimits {
    /// `retry_for` of all tables: each time once, the shortest first.
    pub(crate) retry_times: Box<[Duration]>,
    /// Whether any table has one.
    pub(crate) has_max_age: bool,
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
        limits: &WaitLimits,
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
        if let Some(last) = self.next_last_try(limits).filter(|last| now < *last) {
            delay = delay.min(last - now);
        }
        self.next_try = now + delay;
        delay
    }

    /// The pipeline drains: the next attempt is made at once.
    pub(crate) fn try_now(&mut self, now: Instant) {
        self.next_try = now;
    }

    /// When the first rows of the next table should have their last try; `None` if those of all tables had it.
    pub(crate) fn next_last_try(&self, limits: &WaitLimits) -> Option<Instant> {
        let park_for = std::slice::from_ref(&limits.park_for);
        let times = if self.is_retried() { &*limits.retry_times } else { park_for };
        times.iter().map(|time| self.since + *time).find(|last| *last > self.tried_at)
    }

    /// When the last failed attempt started.
    pub(crate) fn tried_at(&self) -> Instant {
        self.tried_at
    }

    pub(crate) fn next_try(&self) -> Instant {
        self.next_try
    }

    /// Whether rows wait for `retry_for`. Otherwise, for example after a refused login, they wait for `park_for`.
    fn is_retried(&self) -> bool {
        matches!(self.error.class(), ErrorClass::Transient | ErrorClass::Resource | ErrorClass::Unknown)
    }

    /// The outcome of rows that have waited long enough.
    pub(crate) fn ending(&self) -> FailureKind {
        if self.is_retried() { FailureKind::Expired } else { FailureKind::Rejected }
    }

    /// Whether rows of a table with this `retry_for` have waited long enough, and were tried after that. `since` is when
    /// they began to wait, if that was before the gate closed.
    pub(crate) fn is_over(
        &self,
        opened: Instant,
        since: Option<Instant>,
        retry_for: Duration,
        limits: &WaitLimits,
    ) -> bool {
        let since = since.map_or(self.since, |since| since.min(self.since));
        let time = if self.is_retried() { retry_for } else { limits.park_for };
        since.max(opened) + time <= self.tried_at
    }
}
