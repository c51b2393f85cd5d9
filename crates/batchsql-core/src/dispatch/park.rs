//! Owns a group that cannot be written for now: since when, when it is tried again, and which rows have waited long
//! enough.
//! Must not know lanes or clocks: callers pass the time.
//!
//! Example with `park_for` 60 s: a write fails at 0 s because a column is missing, and is tried again after a delay.
//! Row a came before 0 s, row b at 20 s. The probe that starts at 60 s fails: a is rejected. The next one, at 64 s,
//! succeeds: b is written. No row is rejected whose last probe started before its time was over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{ErrorClass, SinkError};
use crate::intake::table::Table;
use crate::write::retry::RetrySchedule;

/// A group that cannot be written for now.
pub(crate) struct Park {
    pub(crate) table: Arc<Table>,
    /// When it was parked.
    pub(crate) since: Instant,
    /// When the time of its rows began: when it was parked, or when rows of it were last written.
    clock: Instant,
    pub(crate) error: SinkError,
    /// Whether rows were refused that may be at fault themselves: then the result of one batch does not apply to the
    /// others.
    pub(crate) is_of_rows: bool,
    pub(crate) probe: Probe,
    delays: RetrySchedule,
    next_probe: Instant,
    /// When the last failed attempt started.
    tried_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It is not due yet.
    Waits,
    /// The next batch of the group that can start is the probe.
    Due,
    Running,
}

/// Why a group is no longer parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// A row of it was written.
    Written,
    /// All its rows have ended, and none was written.
    NoRowsLeft,
    /// The pipeline drains: its rows get a last try.
    Draining,
}

/// A group that is no longer parked.
pub(crate) struct Resumed {
    pub(crate) table: Arc<Table>,
    pub(crate) parked_for: Duration,
    pub(crate) why: Resumption,
}

impl Park {
    pub(crate) fn new(table: Arc<Table>, error: SinkError, now: Instant) -> Self {
        let delays = RetrySchedule::new(Duration::MAX);
        let (clock, is_of_rows) = (now, false);
        Self {
            table,
            since: now,
            clock,
            error,
            is_of_rows,
            probe: Probe::Waits,
            delays,
            next_probe: now,
            tried_at: now,
        }
    }

    /// Rows of it were written: the time starts again for the others.
    pub(crate) fn written(&mut self, now: Instant) {
        self.clock = now;
    }

    /// An attempt that started at `started` failed.
    pub(crate) fn failed(&mut self, error: SinkError, started: Instant, now: Instant, park_for: Duration) {
        let delay = self.delays.next(ErrorClass::Resource, Duration::ZERO).unwrap_or(Duration::ZERO);
        self.next_probe = now + delay;
        // The first rows get their last try as soon as their time is over, not later.
        let last = self.clock + park_for;
        if now < last {
            self.next_probe = self.next_probe.min(last);
        }
        self.probe = Probe::Waits;
        self.error = error;
        self.tried_at = started;
    }

    /// The probe ended without a result: the next batch is a probe, at this time.
    pub(crate) fn postpone(&mut self, until: Instant) {
        self.probe = Probe::Waits;
        self.next_probe = until;
    }

    /// When the next probe is due; `None` while one is due or running.
    pub(crate) fn next_probe(&self) -> Option<Instant> {
        (self.probe == Probe::Waits).then_some(self.next_probe)
    }

    /// When the last failed attempt started.
    pub(crate) fn tried_at(&self) -> Instant {
        self.tried_at
    }

    /// Whether the time of rows that were accepted at `opened_at` is over, so that a try that starts now is the last one.
    pub(crate) fn is_over(&self, opened_at: Instant, now: Instant, park_for: Duration) -> bool {
        now.checked_sub(park_for).is_some_and(|over| self.clock.max(opened_at) <= over)
    }

    /// Rows that were accepted at this time or before have waited long enough, and were tried after that; `None` when
    /// there are none.
    pub(crate) fn over_before(&self, park_for: Duration) -> Option<Instant> {
        let over = self.tried_at.checked_sub(park_for)?;
        (self.clock <= over).then_some(over)
    }
}
