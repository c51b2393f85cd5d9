//! Owns the batches that wait in a schedule: which lanes have them, and which of them are taken out.
//! Must not know why they are taken.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::dispatch::schedule::Schedule;
use crate::intake::table::Table;
use crate::write::ids::LaneId;
use crate::write::job::Job;

impl Schedule {
    /// Whether a lane has returned batches that can be started.
    pub(crate) fn holds(&self, lane: LaneId) -> bool {
        self.lanes.get(&lane).is_some_and(|state| !state.held.is_empty())
    }

    /// Whether a lane has batches that wait.
    pub(crate) fn has_waiting(&self, lane: LaneId) -> bool {
        let resting = || self.resting.values().any(|job| job.lane == lane);
        self.lanes.get(&lane).is_some_and(|state| !state.held.is_empty() || state.ready > 0) || resting()
    }

    /// Takes the returned batches, of all lanes or of one, for which `is_wanted` is true.
    pub(crate) fn take_held(&mut self, only: Option<LaneId>, is_wanted: &dyn Fn(&Job) -> bool) -> Vec<Job> {
        let mut taken = Vec::new();
        let is_meant = |lane: &LaneId| only.is_none_or(|only| only == *lane);
        let lanes: Vec<LaneId> = self.lanes.keys().copied().filter(is_meant).collect();
        for lane in lanes {
            let state = self.lanes.get_mut(&lane).expect("the lane was just found");
            if state.held.iter().any(|job| is_wanted(job)) {
                let (wanted, kept): (VecDeque<_>, _) =
                    std::mem::take(&mut state.held).into_iter().partition(|job| is_wanted(job));
                state.held = kept;
                self.held -= wanted.len();
                taken.extend(wanted.into_iter().map(|job| *job));
            }
            self.forget_if_idle(lane);
        }
        if !taken.is_empty() {
            self.unblock();
        }
        taken
    }

    /// The lanes that have sealed batches, or one of them, with their tables.
    pub(crate) fn lanes_with_batches(&self, only: Option<LaneId>) -> Vec<(Arc<Table>, LaneId)> {
        let is_meant = |lane: &LaneId| only.is_none_or(|only| only == *lane);
        let lanes = self.lanes.iter().filter(|(lane, state)| state.ready > 0 && is_meant(lane));
        lanes.map(|(lane, state)| (Arc::clone(&state.table), *lane)).collect()
    }

    /// A table that has batches that wait.
    pub(crate) fn waiting_table(&self) -> Option<&Arc<Table>> {
        self.lanes.values().find(|state| state.ready > 0 || !state.held.is_empty()).map(|state| &state.table)
    }

    /// The oldest batch that was returned or backs off, of any table or of one.
    pub(crate) fn oldest(&self, only: Option<usize>) -> Option<u64> {
        let is_wanted = |job: &Job| only.is_none_or(|table| table == job.lane.table);
        let held = self.lanes.values().flat_map(|state| &state.held);
        held.chain(self.resting.values()).filter(|job| is_wanted(job)).map(|job| job.number).min()
    }

    /// Takes that batch.
    pub(crate) fn take(&mut self, number: u64) -> Option<Job> {
        if let Some(key) = self.resting.keys().find(|key| key.1 == number).copied() {
            let job = self.resting.remove(&key)?;
            self.leave(job.lane);
            return Some(*job);
        }
        self.take_held(None, &|job| job.number == number).pop()
    }
}
