//! Owns one lane of a table: its open batches, and its sealed batches in the order in which they leave.
//! Must not know how a row finds its lane, or who writes a batch.
//!
//! A lane has one open batch per group. In a lane with an order, the open batches hold different keys, so they may be
//! written in any order. A row whose key is in the open batch of another group seals that batch.
//!
//! Example of a lane with an order. Rows are written as key and version; rows of group H carry more columns than rows of
//! group G:
//!
//! ```text
//! row a1 of group G                 open G: a1          sealed: -
//! row b1 of group G                 open G: a1 b1       sealed: -
//! row a2 of group H                 open H: a2          sealed: [G: a1 b1]    a2 must be written after a1
//! a pull                            open H: a2          batch 1 is written: a1 b1
//! flush_interval of a2 is over      open -              sealed: [H: a2]
//! the next pull                     open -              batch 2 is written: a2
//! ```

use std::sync::Arc;

use tokio::time::Instant;

use crate::intake::group::Group;
use crate::intake::open_batch::{OpenBatch, SealedBy};
use crate::pipeline_events::FlushReason;
use crate::queue::Queue;
use crate::write::ids::GroupId;
use crate::write::job::Job;

/// What is kept in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Nothing,
    /// Rows with equal keys; they are in one lane.
    Key,
    /// All rows; there is one lane.
    Table,
}

impl Order {
    /// Whether a lane may have only one batch in flight.
    pub(crate) fn is_serial(self) -> bool {
        self != Self::Nothing
    }
}

/// The batches that wait in one lane.
///
/// Lanes are adjacent in memory: without the alignment, submitters in different lanes would share cache lines.
#[derive(Default)]
#[repr(align(128))]
pub(crate) struct Lane {
    pub(crate) open: Vec<OpenBatch>,
    sealed: Queue<Job>,
    pub(crate) accepted: u64,
}

/// What a lane has to write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LaneStatus {
    /// Sealed batches.
    pub(crate) ready: usize,
    /// When the oldest open batch was opened.
    pub(crate) opened_at: Option<Instant>,
}

/// Batches to be written as one.
pub(crate) struct Pulled {
    pub(crate) job: Box<Job>,
    pub(crate) others: Vec<Job>,
}

/// The result of a pull.
pub(crate) enum Pull {
    Batch(Pulled),
    /// All batches belong to groups that may not be written now.
    Blocked,
    Empty,
}

/// How much one pull may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PullLimit {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Lane {
    pub(crate) fn status(&self) -> LaneStatus {
        let opened_at = self.open.iter().filter_map(OpenBatch::opened_at).min();
        LaneStatus { ready: self.sealed.len(), opened_at }
    }

    /// The position of a group's open batch.
    #[inline]
    pub(crate) fn open_batch_of(&mut self, group: &Arc<Group>) -> usize {
        match self.open.iter().position(|open| Arc::ptr_eq(&open.group, group)) {
            Some(place) => place,
            None => {
                self.open.push(OpenBatch::new(Arc::clone(group)));
                self.open.len() - 1
            }
        }
    }

    /// Seals what must be written before the row that was written last into the open batch at `place`;
    /// true when there was something.
    #[cold]
    pub(crate) fn make_way(&mut self, order: Order, place: usize, by: &SealedBy<'_>) -> bool {
        let hash = self.open[place].key_hash_of_last_row();
        let before = self.sealed.len();
        for (other, open) in self.open.iter_mut().enumerate().filter(|(_, open)| open.len > 0) {
            if other != place && (order == Order::Table || open.may_hold_key(hash)) {
                self.sealed.push_back(open.seal(by, FlushReason::Order));
            }
        }
        self.sealed.len() > before
    }

    /// Seals the open batch at `place`.
    pub(crate) fn seal(&mut self, place: usize, by: &SealedBy<'_>, reason: FlushReason) {
        let job = self.open[place].seal(by, reason);
        self.sealed.push_back(job);
    }

    /// Seals the open batches that have rows and were opened at `until` at the latest.
    pub(crate) fn seal_until(&mut self, until: Option<Instant>, by: &SealedBy<'_>, reason: FlushReason) {
        let is_due = |open: &OpenBatch| open.opened_at().is_some_and(|at| until.is_none_or(|until| at <= until));
        for open in self.open.iter_mut().filter(|open| is_due(open)) {
            self.sealed.push_back(open.seal(by, reason));
        }
    }

    /// Takes the oldest sealed batch that `may` be written, then the batches after it that fit and can be merged with
    /// it, and last the open batch of the same group if no sealed batch is before it.
    pub(crate) fn pull(
        &mut self,
        order: Order,
        limit: PullLimit,
        by: &SealedBy<'_>,
        may: &dyn Fn(GroupId) -> bool,
    ) -> Pull {
        let may_now = |job: &Job| may(job.group);
        let place = match order.is_serial() {
            // Later batches may have the same keys.
            true => self.sealed.front().filter(|job| may_now(job)).map(|_| 0),
            false => self.sealed.iter().position(may_now),
        };
        let Some(job) = place.and_then(|place| self.sealed.remove(place)) else {
            return if self.sealed.is_empty() { Pull::Empty } else { Pull::Blocked };
        };
        let others = self.take_like(&job, place.unwrap_or_default(), limit, by);
        Pull::Batch(Pulled { job: Box::new(job), others })
    }

    /// Takes as many batches as fit and can be merged with a returned batch. No batch in the lane comes before that
    /// one.
    pub(crate) fn pull_more(&mut self, order: Order, job: &Job, limit: PullLimit, by: &SealedBy<'_>) -> Vec<Job> {
        let place = match order.is_serial() {
            true => 0,
            false => self.sealed.iter().position(|other| job.is_like(other)).unwrap_or(self.sealed.len()),
        };
        self.take_like(job, place, limit, by)
    }

    /// Takes batches like `job` from `place` on, and last the open one.
    fn take_like(&mut self, job: &Job, place: usize, limit: PullLimit, by: &SealedBy<'_>) -> Vec<Job> {
        let (mut rows, mut bytes) = (job.batch.len(), job.batch.bytes());
        let mut fits = |other_rows: usize, other_bytes: usize| {
            let fits = rows + other_rows <= limit.rows && bytes + other_bytes <= limit.bytes;
            if fits {
                (rows, bytes) = (rows + other_rows, bytes + other_bytes);
            }
            fits
        };
        // Rows that are written together are given up together.
        let max_spread = job.settings().max_spread();
        let is_near =
            |opened: Instant| max_spread.is_none_or(|spread| opened.duration_since(job.first_opened_at) <= spread);
        let mut others = Vec::new();
        while let Some(next) = self.sealed.get(place)
            && job.is_like(next)
            && is_near(next.opened_at)
            && fits(next.batch.len(), next.batch.bytes())
        {
            others.extend(self.sealed.remove(place));
        }
        if self.sealed.len() == place
            && let Some(open) = self.open.iter_mut().find(|open| open.group.id == job.group && open.len > 0)
            && open.opened_at().is_some_and(is_near)
            && fits(open.len, open.bytes)
        {
            let newest = open.seal(by, FlushReason::Rows);
            if job.is_like(&newest) { others.push(newest) } else { self.sealed.push_back(newest) }
        }
        others
    }

    /// Takes the sealed batches for which `is_wanted` is true.
    pub(crate) fn take_sealed(&mut self, is_wanted: &dyn Fn(&Job) -> bool) -> Vec<Job> {
        let (taken, kept): (Queue<Job>, _) = std::mem::take(&mut self.sealed).into_iter().partition(is_wanted);
        self.sealed = kept;
        Vec::from(taken)
    }

    /// The sealed batches, the oldest first.
    pub(crate) fn sealed(&self) -> &Queue<Job> {
        &self.sealed
    }

    /// Rows that wait, sealed or not.
    pub(crate) fn rows(&self) -> usize {
        let sealed: usize = self.sealed.iter().map(|job| job.batch.len()).sum();
        sealed + self.open.iter().map(|open| open.len).sum::<usize>()
    }

    /// Takes the oldest sealed batch.
    pub(crate) fn take_oldest(&mut self) -> Option<Job> {
        self.sealed.pop_front()
    }
}
