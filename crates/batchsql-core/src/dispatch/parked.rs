//! Owns the parked groups of a schedule: when they are parked, probed and resumed.
//! Must not know why a group cannot be written.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use crate::dispatch::park::{Park, Resumed, Resumption};
use crate::dispatch::schedule::{Schedule, Start};
use crate::error::SinkError;
use crate::write::ids::GroupId;
use crate::write::job::Job;

/// Why a group cannot be written.
pub(crate) struct Parked {
    pub(crate) error: SinkError,
    /// Whether rows were refused that may be at fault themselves.
    pub(crate) is_of_rows: bool,
    /// Whether other rows of the batch were written.
    pub(crate) has_written: bool,
}

impl Schedule {
    /// The group of the batch cannot be written; true when that is new.
    pub(crate) fn park(&mut self, start: &Start, mut job: Box<Job>, parked: Parked, now: Instant) -> bool {
        let Parked { error, is_of_rows, has_written } = parked;
        let is_new = !self.parks.contains_key(&start.group);
        let new = || Park::new(Arc::clone(&start.table), error.clone(), now);
        let park = self.parks.entry(start.group).or_insert_with(new);
        if has_written {
            park.written(now);
        }
        park.is_of_rows = is_of_rows;
        park.failed(error, start.at, now, self.park_for);
        // The database answered: the retry time for other errors starts again.
        job.progress.retries = None;
        self.recovered(start.lane, now);
        self.hold(job);
        self.leave(start.lane);
        is_new
    }

    /// Parked groups and their parks.
    pub(crate) fn parks(&self) -> impl Iterator<Item = (GroupId, &Park)> {
        self.parks.iter().map(|(group, park)| (*group, park))
    }

    /// Whether a batch is rejected if the try that starts now fails, because the time of its parked group is over.
    pub(crate) fn is_over(&self, job: &Job, now: Instant) -> bool {
        self.parks.get(&job.group).is_some_and(|park| park.is_over(job.opened_at, now, self.park_for))
    }

    /// Makes the next batch of a parked group a probe at once.
    pub(crate) fn probe_now(&mut self, group: GroupId, now: Instant) {
        if let Some(park) = self.parks.get_mut(&group) {
            park.postpone(now);
        }
    }

    /// Resumes parked groups that have no rows left.
    pub(crate) fn resume_unused(&mut self) {
        if self.parks.is_empty() {
            return;
        }
        let held = self.lanes.values().flat_map(|state| &state.held).map(|job| job.group);
        let running = self.running.values().map(|start| start.group);
        let resting = self.resting.values().map(|job| job.group);
        let used: HashSet<GroupId> = held.chain(running).chain(resting).collect();
        let is_unused = |group: &GroupId, park: &Park| !used.contains(group) && !park.table.has_rows_of(*group);
        let unused: Vec<GroupId> = self.parks().filter(|(group, park)| is_unused(group, park)).map(|p| p.0).collect();
        unused.into_iter().for_each(|group| self.resume(group, Resumption::NoRowsLeft));
    }

    /// Groups that were resumed since the last call.
    pub(crate) fn take_resumed(&mut self) -> Vec<Resumed> {
        std::mem::take(&mut self.resumed)
    }

    /// How many tables are parked, with all their rows or with those that carry certain columns.
    pub(crate) fn parked_tables(&self) -> usize {
        self.parks.values().map(|park| park.table.number()).collect::<HashSet<_>>().len()
    }

    pub(crate) fn resume(&mut self, group: GroupId, why: Resumption) {
        if let Some(park) = self.parks.remove(&group) {
            self.resumed.push(Resumed { parked_for: park.since.elapsed(), table: park.table, why });
            self.unblock();
        }
    }
}
