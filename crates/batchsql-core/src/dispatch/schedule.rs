//! Owns the waiting work of a pipeline: which lane may start, what backs off, what is parked, what is due when.
//! Must not write, wait or look at a clock: callers pass the time.
//!
//! Lanes take turns, by the weights of their tables (`turns`). A lane with an order has one batch in flight. While that batch backs off, is parked, or may still
//! take effect after it was abandoned, the lane waits. Example with one permit and a lane with an order: batch 1 has row
//! 1, and batch 2, which is sealed while batch 1 is written, has rows 2 and 3.
//!
//! ```text
//! batch 1 starts              the lane is busy; batch 2 waits for batch 1
//! batch 1 fails               batch 1 backs off 5 ms; the permit is free for other lanes, but not for batch 2
//! 5 ms later                  batch 1 is held: it starts before batch 2
//! batch 1 is committed        batch 2 starts
//! ```
//!
//! In a lane without an order, batch 2 starts as soon as a permit is free, also while batch 1 backs off.
//!
//! A lane is in one of the lists `ready`, `capped`, `blocked` exactly when it has work and no batch in flight that must
//! come first.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::Id;
use tokio::time::Instant;

use crate::dispatch::lane_state::LaneState;
use crate::dispatch::park::{Park, Probe, Resumed, Resumption};
use crate::dispatch::turns::{Turn, Turns};
use crate::intake::lane::LaneStatus;
use crate::intake::table::Table;
use crate::write::ids::{GroupId, LaneId};
use crate::write::job::Job;

/// How long a table counts as active after its last batch has started: meanwhile other tables leave it a permit.
pub(super) const ACTIVE_FOR: Duration = Duration::from_secs(30);

pub(crate) struct Schedule {
    pub(super) concurrency: usize,
    pub(super) park_for: Duration,
    pub(super) lanes: HashMap<LaneId, LaneState>,
    /// Returned batches in all lanes.
    pub(super) held: usize,
    /// Lanes that may start work.
    pub(super) ready: Turns,
    /// Lanes of tables that have all the permits they may have.
    pub(super) capped: Vec<LaneId>,
    /// Lanes whose next work is of a parked group.
    pub(super) blocked: Vec<LaneId>,
    /// Lanes by the deadline of their oldest open batch.
    pub(super) deadlines: BTreeSet<(Instant, LaneId)>,
    /// Batches that back off, by the time of their next try.
    pub(super) resting: BTreeMap<(Instant, u64), Box<Job>>,
    pub(super) parks: HashMap<GroupId, Park>,
    pub(super) resumed: Vec<Resumed>,
    pub(super) running: HashMap<Id, Start>,
    /// The two tables whose batches started last, the newest first, and when.
    pub(super) active: Vec<(usize, Instant)>,
}

/// A batch that was started.
pub(crate) struct Start {
    pub(crate) table: Arc<Table>,
    pub(crate) lane: LaneId,
    pub(crate) at: Instant,
    pub(super) group: GroupId,
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// What may start next.
pub(crate) enum Next {
    /// A returned batch.
    Held(Box<Job>),
    /// The next batch of the lane.
    Pull(Arc<Table>, LaneId),
}

impl Schedule {
    pub(crate) fn new(concurrency: usize, park_for: Duration) -> Self {
        Self {
            concurrency,
            park_for,
            lanes: HashMap::new(),
            held: 0,
            ready: Turns::default(),
            capped: Vec::new(),
            blocked: Vec::new(),
            deadlines: BTreeSet::new(),
            resting: BTreeMap::new(),
            parks: HashMap::new(),
            resumed: Vec::new(),
            running: HashMap::new(),
            active: Vec::new(),
        }
    }

    /// Records what a lane has to write. Call it whenever that may have changed.
    pub(crate) fn note(&mut self, table: &Arc<Table>, lane: LaneId, status: LaneStatus) {
        let state = self.lanes.entry(lane).or_insert_with(|| LaneState {
            table: Arc::clone(table),
            held: VecDeque::new(),
            ready: 0,
            deadline: None,
            busy: 0,
            fences: 0,
            fails_since: None,
            has_expired: false,
            is_listed: false,
        });
        let has_changed = status.ready != state.ready;
        state.ready = status.ready;
        let deadline = status.opened_at.map(|at| at + table.settings().flush_interval);
        let before = std::mem::replace(&mut state.deadline, deadline);
        if before != deadline {
            before.map(|before| self.deadlines.remove(&(before, lane)));
            deadline.map(|deadline| self.deadlines.insert((deadline, lane)));
        }
        // The new batch may be of a group that is not parked.
        if has_changed {
            self.unblock_lane(lane);
        }
        self.list(lane);
        self.forget_if_idle(lane);
    }

    /// A lane that has an open batch whose deadline has passed. It must be noted again.
    pub(crate) fn due(&self, now: Instant) -> Option<(Arc<Table>, LaneId)> {
        let (_, lane) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)?;
        let state = self.lanes.get(&lane).expect("every deadline has its lane");
        Some((Arc::clone(&state.table), lane))
    }

    /// Whether batches of a group may be written: it is not parked, or its probe is due.
    pub(crate) fn may_write(&self, group: GroupId) -> bool {
        self.parks.get(&group).is_none_or(|park| park.probe == Probe::Due)
    }

    /// What may start next. A batch that is taken must be `started`; after a pull the lane must be `note`d, and
    /// `block`ed when it has only batches of parked groups.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next> {
        let mut overdue = self.take_overdue(now);
        while let Some(turn) = overdue.take().or_else(|| self.ready.next()) {
            let lane = turn.lane;
            let Some(state) = self.lanes.get(&lane) else { continue };
            if !state.may_start() {
                self.unlist(lane);
                continue;
            }
            if self.permits_left(lane.table, now) == 0 {
                self.capped.push(lane);
                continue;
            }
            let may = |job: &Job| self.may_write(job.group);
            let place = match state.table.is_serial() {
                true => state.held.front().filter(|job| may(job)).map(|_| 0),
                false => state.held.iter().position(|job| may(job)),
            };
            let is_stuck = state.table.is_serial() && !state.held.is_empty() || state.ready == 0;
            let state = self.lanes.get_mut(&lane)?;
            if let Some(job) = place.and_then(|place| state.held.remove(place)) {
                state.is_listed = false;
                self.held -= 1;
                self.ready.take(turn);
                return Some(Next::Held(job));
            }
            if is_stuck {
                self.blocked.push(lane);
                continue;
            }
            state.is_listed = false;
            self.ready.take(turn);
            return Some(Next::Pull(Arc::clone(&state.table), lane));
        }
        None
    }

    /// Batches were taken out of the lane, so other batches are first now.
    pub(crate) fn note_taken(&mut self, table: &Arc<Table>, lane: LaneId, status: LaneStatus) {
        self.unblock_lane(lane);
        self.note(table, lane, status);
    }

    /// All batches of the lane are of parked groups.
    pub(crate) fn block(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if !state.may_start() {
            return;
        }
        if std::mem::replace(&mut state.is_listed, true) {
            self.ready.remove(lane);
        }
        self.blocked.push(lane);
    }

    /// A batch of the lane is about to be written.
    pub(crate) fn start(&mut self, table: &Arc<Table>, job: &mut Job, more: (usize, usize), now: Instant) -> Start {
        let lane = job.lane;
        let state = self.lanes.get_mut(&lane).expect("a lane is kept while it has work");
        state.busy += 1;
        if state.table.is_serial() {
            job.progress.fails_since = state.fails_since;
        }
        if let Some(park) = self.parks.get_mut(&job.group) {
            park.probe = Probe::Running;
        }
        self.active.retain(|(table, _)| *table != lane.table);
        self.active.insert(0, (lane.table, now));
        self.active.truncate(2);
        self.list(lane);
        let (rows, bytes) = (job.batch.len() + more.0, job.batch.bytes() + more.1);
        Start { table: Arc::clone(table), lane, at: now, group: job.group, rows, bytes }
    }

    /// Registers the task of a batch that was started.
    pub(crate) fn started(&mut self, task: Id, start: Start) {
        self.running.insert(task, start);
    }

    /// The start that belongs to a task that has ended; `None` if the task wrote no batch. One of `done`, `wait`,
    /// `back_off` and `park` must follow.
    pub(crate) fn finished(&mut self, task: Id) -> Option<Start> {
        let start = self.running.remove(&task)?;
        self.uncap();
        Some(start)
    }

    /// All rows of the batch have their outcomes. If some were written, its group can be written.
    pub(crate) fn done(&mut self, start: &Start, has_written: bool, now: Instant) {
        if has_written {
            self.resume(start.group, Resumption::Written);
            self.recovered(start.lane, now);
        } else if let Some(park) = self.parks.get_mut(&start.group).filter(|park| park.probe == Probe::Running) {
            // The probe had no result; the next batch is a probe.
            park.postpone(now);
        }
        self.leave(start.lane);
    }

    /// The batches of the lane no longer fail. If the lane still waits for the end of a session, its time starts now.
    pub(crate) fn recovered(&mut self, lane: LaneId, now: Instant) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.fails_since = (state.fences > 0).then_some(now);
            state.has_expired = false;
        }
    }

    /// The batch is tried again at `until`, and has not failed.
    pub(crate) fn wait(&mut self, start: &Start, job: Box<Job>, until: Instant) {
        if let Some(park) = self.parks.get_mut(&start.group) {
            park.postpone(until);
        }
        self.resting.insert((until, job.number), job);
    }

    /// The batch failed and is retried at `until`.
    pub(crate) fn back_off(&mut self, start: &Start, job: Box<Job>, until: Instant, now: Instant) {
        if let Some(park) = self.parks.get_mut(&start.group) {
            // The probe had no result.
            park.postpone(until);
        }
        if let Some(state) = self.lanes.get_mut(&start.lane) {
            state.fails_since.get_or_insert(now);
        }
        self.resting.insert((until, job.number), job);
    }

    /// Keeps a returned batch. It is written before the batches that are still in its lane.
    pub(super) fn hold(&mut self, job: Box<Job>) {
        let lane = job.lane;
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.hold(job);
            self.held += 1;
            self.unblock_lane(lane);
        }
    }

    /// Makes batches whose backoff is over, and probes that are due, ready to start.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry().filter(|entry| entry.key().0 <= now) {
            let job = entry.remove();
            let lane = job.lane;
            self.hold(job);
            self.leave(lane);
        }
        let mut is_any_due = false;
        for park in self.parks.values_mut() {
            if park.next_probe().is_some_and(|at| at <= now) {
                park.probe = Probe::Due;
                is_any_due = true;
            }
        }
        if is_any_due {
            self.unblock();
        }
        self.uncap();
    }

    /// A write of the lane was abandoned and may still take effect.
    pub(crate) fn fence(&mut self, lane: LaneId, now: Instant) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.fences += 1;
            state.fails_since.get_or_insert(now);
        }
    }

    /// That write can no longer take effect.
    pub(crate) fn unfence(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.fences -= 1;
        }
        self.list(lane);
        self.forget_if_idle(lane);
    }

    /// Since when the batches of a lane fail.
    pub(crate) fn fails_since(&self, lane: LaneId) -> Option<Instant> {
        self.lanes.get(&lane)?.fails_since
    }

    /// Rows of the lane were given up after a try. Returns whether the lane failed before, so that the try was one of the
    /// lane and not only of these rows.
    pub(crate) fn note_expired(&mut self, lane: LaneId) -> bool {
        let Some(state) = self.lanes.get_mut(&lane) else { return false };
        std::mem::replace(&mut state.has_expired, true) || state.fails_since.is_some()
    }

    /// When the time of the rows is over that waited in the lane when its batches began to fail.
    pub(crate) fn fails_until(&self, lane: LaneId) -> Option<Instant> {
        let state = self.lanes.get(&lane)?;
        Some(state.fails_since? + state.table.settings().retry_for)
    }

    /// The pipeline drains: backoffs end, and parked groups get a last try.
    pub(crate) fn expire_delays(&mut self, now: Instant) {
        let resting = std::mem::take(&mut self.resting);
        self.resting = resting.into_iter().map(|((_, number), job)| ((now, number), job)).collect();
        let parked: Vec<GroupId> = self.parks.keys().copied().collect();
        parked.into_iter().for_each(|group| self.resume(group, Resumption::Draining));
    }

    /// Drops everything that is not running.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        self.held = 0;
        self.resting.clear();
        self.deadlines.clear();
        self.resume_unused();
    }

    /// Whether an open batch has rows.
    pub(crate) fn has_open_rows(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// When the oldest row in an open batch was accepted.
    pub(crate) fn oldest_open_row(&self) -> Option<Instant> {
        // Tables with a long flush_interval have late deadlines and old rows.
        let opened = |state: &LaneState| Some(state.deadline? - state.table.settings().flush_interval);
        self.lanes.values().filter_map(opened).min()
    }

    /// When the next check is due. `is_capped`: a permit is free, and a lane waits because its table has all the
    /// permits it may have.
    pub(crate) fn next_time(&self, is_capped: bool, now: Instant) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let rest = self.resting.first_key_value().map(|((until, _), _)| *until);
        let probe = self.parks.values().filter_map(Park::next_probe).min();
        let ends = self.active.iter().map(|(_, at)| *at + ACTIVE_FOR).filter(|end| *end > now);
        let uncapped = ends.min().filter(|_| is_capped);
        [deadline, rest, probe, uncapped].into_iter().flatten().min()
    }

    /// When the first of the batches that could start now should have its last try: the end of its `retry_for` or
    /// `max_age`. It waits
    /// for a permit or a connection.
    pub(crate) fn first_last_try(&self, now: Instant) -> Option<Instant> {
        if self.held == 0 {
            return None;
        }
        self.ready.lanes().filter_map(|lane| self.last_try(lane, now)).min()
    }

    /// Takes a lane from those that are ready whose returned batch must have its last try now: it does not wait for the
    /// turn of its lane.
    fn take_overdue(&mut self, now: Instant) -> Option<Turn> {
        if self.held == 0 {
            return None;
        }
        let is_overdue = |lane: LaneId| self.last_try(lane, now).is_some_and(|at| at <= now);
        let lane = self.ready.lanes().find(|lane| is_overdue(*lane))?;
        self.ready.next_of(lane)
    }

    /// When the returned batch of a lane that is next should have its last try, if it can start.
    fn last_try(&self, lane: LaneId, now: Instant) -> Option<Instant> {
        let state = self.lanes.get(&lane).filter(|state| state.may_start())?;
        let only_first = if state.table.is_serial() { 1 } else { usize::MAX };
        let jobs = state.held.iter().take(only_first).filter(|job| self.may_write(job.group));
        let first = jobs.filter_map(|job| job.last_try_at()).min()?;
        (self.permits_left(lane.table, now) > 0).then_some(first)
    }

    /// One batch of the lane is no longer running or backing off.
    pub(super) fn leave(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy -= 1;
        }
        self.list(lane);
        self.forget_if_idle(lane);
    }

    pub(super) fn forget_if_idle(&mut self, lane: LaneId) {
        if self.lanes.get(&lane).is_some_and(LaneState::is_idle) {
            self.lanes.remove(&lane);
        }
    }

    /// Lists a lane as ready if it may start work.
    fn list(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if state.may_start() && !state.is_listed {
            state.is_listed = true;
            let weight = state.table.settings().weight;
            self.ready.wait(lane, weight);
        }
    }

    fn unlist(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.is_listed = false;
        }
        self.forget_if_idle(lane);
    }

    fn unblock_lane(&mut self, lane: LaneId) {
        if let Some(place) = self.blocked.iter().position(|blocked| *blocked == lane) {
            self.blocked.swap_remove(place);
            self.wait_for_turn(lane);
        }
    }

    pub(super) fn unblock(&mut self) {
        for lane in std::mem::take(&mut self.blocked) {
            self.wait_for_turn(lane);
        }
    }

    /// Tables may have more permits now.
    fn uncap(&mut self) {
        for lane in std::mem::take(&mut self.capped) {
            self.wait_for_turn(lane);
        }
    }

    fn wait_for_turn(&mut self, lane: LaneId) {
        let weight = self.lanes.get(&lane).map_or(1, |state| state.table.settings().weight);
        self.ready.wait(lane, weight);
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
