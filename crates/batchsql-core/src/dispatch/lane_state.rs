//! Owns what the schedule knows of one lane.
//! Must not know other lanes or permits.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::intake::table::Table;
use crate::write::job::Job;

/// One lane.
pub(crate) struct LaneState {
    pub(crate) table: Arc<Table>,
    /// Returned batches, the oldest first. They are written before the batches that are still in the lane.
    pub(crate) held: VecDeque<Box<Job>>,
    /// Sealed batches in the lane.
    pub(crate) ready: usize,
    pub(crate) deadline: Option<Instant>,
    /// Batches that are running or backing off.
    pub(crate) busy: usize,
    /// Abandoned writes that may still take effect.
    pub(crate) fences: usize,
    /// Since when batches of the lane are tried without success.
    pub(crate) fails_since: Option<Instant>,
    /// Whether rows were given up since batches of the lane were last written.
    pub(crate) has_expired: bool,
    /// Whether it is in one of the lists.
    pub(crate) is_listed: bool,
}

impl LaneState {
    /// Whether there is work, and no batch in flight that must come first.
    pub(crate) fn may_start(&self) -> bool {
        let has_work = !self.held.is_empty() || self.ready > 0;
        has_work && !(self.table.is_serial() && (self.busy > 0 || self.fences > 0))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.busy == 0
            && self.fences == 0
            && self.held.is_empty()
            && self.ready == 0
            && self.deadline.is_none()
            && !self.is_listed
    }

    pub(crate) fn hold(&mut self, job: Box<Job>) {
        let place = self.held.partition_point(|held| held.number < job.number);
        self.held.insert(place, job);
    }
}
