//! Owns the counts: accepted rows, their outcomes, and what the budget still holds.
//! Must not know how batches are written.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::budget::capacity::Budget;
use crate::outcome::consumers::Consumers;
use crate::outcome::outcomes::{Outcome, OutcomeCounts, OutcomeKind};
use crate::row::dynamic::DynRow;

/// The counts of one pipeline, shared by its handles and tasks.
pub(crate) struct Ledger {
    pub(crate) budget: Arc<Budget>,
    dead_letters: Consumers,
    outcomes: [AtomicU64; 7],
    /// Rows that were accepted when they ended: those that are written with their position.
    accepted_ended: AtomicU64,
    /// Milliseconds since 1970 of the last batch that was written; 0 before the first.
    last_success: AtomicU64,
    /// Rows that ended unwritten since closing began, for the close report.
    unwritten: Mutex<Vec<Outcome>>,
    closing: AtomicBool,
    /// Lines that no dead-letter file could take.
    lost_letters: AtomicU64,
}

/// The balance of a pipeline: every accepted row is in exactly one of these numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// Rows accepted since the start.
    pub accepted: u64,
    /// Rows per outcome since the start.
    pub outcomes: OutcomeCounts,
}

impl Balance {
    /// Rows committed.
    pub fn written(&self) -> u64 {
        self.outcomes.get(OutcomeKind::Written)
    }

    /// Rows that changed nothing: a key that was already there (`ignore`), a version that is not newer, or a key that is missing (delete,
    /// `update_only`).
    pub fn ignored(&self) -> u64 {
        self.outcomes.get(OutcomeKind::Ignored)
    }

    /// Rows that were replaced by a later one.
    pub fn superseded(&self) -> u64 {
        self.outcomes.get(OutcomeKind::Superseded)
    }

    /// Rows that the database refused.
    pub fn rejected(&self) -> u64 {
        self.outcomes.get(OutcomeKind::Rejected)
    }

    /// Rows retried without success.
    pub fn expired(&self) -> u64 {
        self.outcomes.get(OutcomeKind::Expired)
    }

    /// Rows given up before they were sent.
    pub fn purged(&self) -> u64 {
        self.outcomes.get(OutcomeKind::Purged)
    }

    /// Rows that may or may not be committed.
    pub fn unknown(&self) -> u64 {
        self.outcomes.get(OutcomeKind::Unknown)
    }

    /// Rows rejected, expired, purged or unknown.
    pub fn failed(&self) -> u64 {
        self.outcomes.failed()
    }

    /// Rows without an outcome yet.
    pub fn in_flight(&self) -> u64 {
        self.accepted - self.outcomes.total()
    }
}

/// One line, for logs: what was accepted, and each outcome that occurred.
impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} accepted", self.accepted)?;
        for kind in OutcomeKind::ALL.into_iter().filter(|kind| self.outcomes.get(*kind) > 0) {
            write!(f, ", {} {kind}", self.outcomes.get(kind))?;
        }
        match self.in_flight() {
            0 => Ok(()),
            rows => write!(f, ", {rows} in flight"),
        }
    }
}

impl Ledger {
    pub(crate) fn new(budget: Arc<Budget>, dead_letters: Consumers) -> Self {
        Self {
            budget,
            dead_letters,
            outcomes: Default::default(),
            accepted_ended: AtomicU64::new(0),
            last_success: AtomicU64::new(0),
            unwritten: Mutex::default(),
            closing: AtomicBool::new(false),
            lost_letters: AtomicU64::new(0),
        }
    }

    /// Rows per outcome so far.
    pub(crate) fn outcomes(&self) -> OutcomeCounts {
        let mut counts = OutcomeCounts::default();
        for kind in OutcomeKind::ALL {
            counts.add(kind, self.outcomes[kind as usize].load(Ordering::Acquire));
        }
        counts
    }

    /// When a batch was last written.
    pub(crate) fn last_success(&self) -> Option<SystemTime> {
        match self.last_success.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(UNIX_EPOCH + std::time::Duration::from_millis(millis)),
        }
    }

    /// From now on rows that end unwritten are kept for the close report.
    pub(crate) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn take_unwritten(&self) -> Vec<Outcome> {
        std::mem::take(&mut *self.unwritten.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether failed rows have a consumer besides their receipts.
    pub(crate) fn wants_failed_rows(&self) -> bool {
        self.dead_letters.is_any() || self.closing.load(Ordering::Acquire)
    }

    /// Hands the failed rows of a batch to their consumers, before anything else of it is reported. Returns the rows
    /// and bytes of the batch's capacity that they keep. `charged` is what a row was charged when it was accepted.
    pub(crate) fn hand_over<'a>(
        &self,
        outcomes: impl Iterator<Item = &'a Outcome>,
        charged: impl Fn(&DynRow) -> usize,
    ) -> (usize, usize) {
        let failed: Vec<&Outcome> = outcomes.filter(|outcome| outcome.failure().is_some()).collect();
        if self.closing.load(Ordering::Acquire) {
            let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
            unwritten.extend(failed.iter().map(|outcome| (*outcome).clone()));
        }
        if !self.dead_letters.is_any() {
            return (0, 0);
        }
        let kept = failed.into_iter().filter_map(|outcome| self.dead_letters.send(outcome, &self.budget, &charged));
        kept.fold((0, 0), |(rows, bytes), row| (rows + 1, bytes + row))
    }

    /// Rows are accepted that have ended, and are counted next.
    pub(crate) fn accept_ended(&self, rows: u64) {
        self.accepted_ended.fetch_add(rows, Ordering::Release);
    }

    /// Rows that were accepted when they ended.
    pub(crate) fn accepted_ended(&self) -> u64 {
        self.accepted_ended.load(Ordering::Acquire)
    }

    /// Counts the outcomes of a batch.
    pub(crate) fn count(&self, counts: &OutcomeCounts) {
        if counts.get(OutcomeKind::Written) > 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_success.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        for kind in OutcomeKind::ALL {
            self.outcomes[kind as usize].fetch_add(counts.get(kind), Ordering::Release);
        }
    }

    /// No row can fail any more: channels end. Files continue until they have what was sent.
    pub(crate) fn end_channels(&self) {
        self.dead_letters.end_channels();
    }

    /// No row can fail any more.
    pub(crate) async fn finish(&self) {
        self.lost_letters.store(self.dead_letters.finish().await, Ordering::Release);
    }

    /// Lines that are not in a dead-letter file, after the end.
    pub(crate) fn lost_letters(&self) -> u64 {
        self.lost_letters.load(Ordering::Acquire)
    }
}
