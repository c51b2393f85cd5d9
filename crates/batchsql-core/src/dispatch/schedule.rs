//! Owns the waiting work of a pipeline: which lane may start, what backs off, what is parked, what is due when.
//! Must not write, wait or look at a clock: callers pass the time.
//!
//! Lanes take turns. A lane with an order has one batch in flight. While that batch backs off, is parked, or may still
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

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::Id;
use tokio::time::Instant;

use crate::dispatch::park::{Park, Probe};
use crate::error::SinkError;
use crate::intake::lane::LaneStatus;
use crate::intake::table::Table;
use crate::write::ids::{GroupId, LaneId};
use crate::write::job::Job;

/// How long a table counts as active after its last batch has started: meanwhile other tables leave it a permit.
const ACTIVE_FOR: Duration = Duration::from_secs(30);

pub(crate) struct Schedule {
    concurrency: usize,
    park_for: Duration,
    lanes: HashMap<LaneId, LaneState>,
    /// Returned batches in all lanes.
    held: usize,
    /// Lanes that may start work.
    ready: VecDeque<LaneId>,
    /// Lanes of tables that have all the permits they may have.
    capped: VecDeque<LaneId>,
    /// Lanes whose next work is of a parked group.
    blocked: Vec<LaneId>,
    /// Lanes by the deadline of their oldest open batch.
    deadlines: BTreeSet<(Instant, LaneId)>,
    /// Batches that back off, by the time of their next try.
    resting: BTreeMap<(Instant, u64), Box<Job>>,
    parks: HashMap<GroupId, Park>,
    resumed: Vec<(Arc<Table>, Duration)>,
    running: HashMap<Id, Start>,
    /// The two tables whose batches started last, the newest first, and when.
    active: Vec<(usize, Instant)>,
}

struct LaneState {
    table: Arc<Table>,
    /// Returned batches, the oldest first. They are written before the batches that are still in the lane.
    held: VecDeque<Box<Job>>,
    /// Sealed batches in the lane.
    ready: usize,
    deadline: Option<Instant>,
    /// Batches that are running or backing off.
    busy: usize,
    /// Abandoned writes that may still take effect.
    fences: usize,
    /// Since when batches of the lane are tried without success.
    fails_since: Option<Instant>,
    /// Whether it is in one of the lists.
    is_listed: bool,
}

impl LaneState {
    /// Whether there is work, and no batch in flight that must come first.
    fn may_start(&self) -> bool {
        let has_work = !self.held.is_empty() || self.ready > 0;
        has_work && !(self.table.is_serial() && (self.busy > 0 || self.fences > 0))
    }

    fn is_idle(&self) -> bool {
        self.busy == 0
            && self.fences == 0
            && self.held.is_empty()
            && self.ready == 0
            && self.deadline.is_none()
            && !self.is_listed
    }

    fn hold(&mut self, job: Box<Job>) {
        let place = self.held.partition_point(|held| held.number < job.number);
        self.held.insert(place, job);
    }
}

/// A batch that was started.
pub(crate) struct Start {
    pub(crate) table: Arc<Table>,
    pub(crate) lane: LaneId,
    pub(crate) at: Instant,
    group: GroupId,
    rows: usize,
    bytes: usize,
}

/// Why a group cannot be written.
pub(crate) struct Parked {
    pub(crate) error: SinkError,
    /// Whether rows were refused that may be at fault themselves.
    pub(crate) is_of_rows: bool,
    /// Whether other rows of the batch were written.
    pub(crate) has_written: bool,
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
            ready: VecDeque::new(),
            capped: VecDeque::new(),
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
    pub(crate) fn note(&mut self, table: &Arc<Table>, lane: LaneId, status: LaneStatus, flush_interval: Duration) {
        let state = self.lanes.entry(lane).or_insert_with(|| LaneState {
            table: Arc::clone(table),
            held: VecDeque::new(),
            ready: 0,
            deadline: None,
            busy: 0,
            fences: 0,
            fails_since: None,
            is_listed: false,
        });
        let has_changed = status.ready != state.ready;
        state.ready = status.ready;
        let deadline = status.opened_at.map(|at| at + flush_interval);
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

    /// Batches that are being written.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Rows and bytes of the batches that are being written.
    pub(crate) fn running_capacity(&self) -> (usize, usize) {
        self.running.values().fold((0, 0), |(rows, bytes), start| (rows + start.rows, bytes + start.bytes))
    }

    /// Rows of a table that are being written.
    pub(crate) fn running_rows(&self, table: usize) -> usize {
        self.running.values().filter(|start| start.lane.table == table).map(|start| start.rows).sum()
    }

    /// How many batches could start if there were permits for them; it stops counting at `most`. Also whether a lane
    /// was skipped because its table has all the permits it may have.
    pub(crate) fn startable(&self, most: usize, now: Instant) -> (usize, bool) {
        let (mut count, mut is_capped) = (0, false);
        // Permits that the lanes of a table may still take.
        let mut left: HashMap<usize, usize> = HashMap::new();
        for lane in &self.ready {
            if count >= most {
                break;
            }
            let Some(state) = self.lanes.get(lane).filter(|state| state.may_start()) else { continue };
            let batches = if state.table.is_serial() { 1 } else { state.held.len() + state.ready };
            let left = left.entry(lane.table).or_insert_with(|| self.permits_left(lane.table, now));
            is_capped |= *left == 0;
            let batches = batches.min(*left);
            *left -= batches;
            count += batches;
        }
        (count.min(most), is_capped)
    }

    /// Whether lanes of other tables may start, too.
    pub(crate) fn others_are_ready(&self, table: usize) -> bool {
        self.ready.iter().any(|lane| lane.table != table)
    }

    /// Whether batches of a group may be written: it is not parked, or its probe is due.
    pub(crate) fn may_write(&self, group: GroupId) -> bool {
        self.parks.get(&group).is_none_or(|park| park.probe == Probe::Due)
    }

    /// What may start next. A batch that is taken must be `started`; after a pull the lane must be `note`d, and
    /// `block`ed when it has only batches of parked groups.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next> {
        let mut overdue = self.take_overdue(now);
        while let Some(lane) = overdue.take().or_else(|| self.ready.pop_front()) {
            let Some(state) = self.lanes.get(&lane) else { continue };
            if !state.may_start() {
                self.unlist(lane);
                continue;
            }
            if self.permits_left(lane.table, now) == 0 {
                self.capped.push_back(lane);
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
                return Some(Next::Held(job));
            }
            if is_stuck {
                self.blocked.push(lane);
                continue;
            }
            state.is_listed = false;
            return Some(Next::Pull(Arc::clone(&state.table), lane));
        }
        None
    }

    /// Batches were taken out of the lane, so other batches are first now.
    pub(crate) fn note_taken(
        &mut self,
        table: &Arc<Table>,
        lane: LaneId,
        status: LaneStatus,
        flush_interval: Duration,
    ) {
        self.unblock_lane(lane);
        self.note(table, lane, status, flush_interval);
    }

    /// All batches of the lane are of parked groups.
    pub(crate) fn block(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if !state.may_start() {
            return;
        }
        if std::mem::replace(&mut state.is_listed, true) {
            self.ready.retain(|listed| *listed != lane);
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
        self.ready.extend(self.capped.drain(..));
        Some(start)
    }

    /// All rows of the batch have their outcomes. If some were written, its group can be written.
    pub(crate) fn done(&mut self, start: &Start, has_written: bool, now: Instant) {
        if has_written {
            self.resume(start.group);
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

    /// Keeps a returned batch. It is written before the batches that are still in its lane.
    fn hold(&mut self, job: Box<Job>) {
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
        if !self.capped.is_empty() {
            self.ready.extend(self.capped.drain(..));
        }
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

    /// Whether a lane has returned batches that can be started.
    pub(crate) fn holds(&self, lane: LaneId) -> bool {
        self.lanes.get(&lane).is_some_and(|state| !state.held.is_empty())
    }

    /// Whether a lane has batches that wait.
    pub(crate) fn has_waiting(&self, lane: LaneId) -> bool {
        let resting = || self.resting.values().any(|job| job.lane == lane);
        self.lanes.get(&lane).is_some_and(|state| !state.held.is_empty() || state.ready > 0) || resting()
    }

    /// Since when the batches of a lane fail.
    pub(crate) fn fails_since(&self, lane: LaneId) -> Option<Instant> {
        self.lanes.get(&lane)?.fails_since
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

    /// Parked groups and their parks.
    pub(crate) fn parks(&self) -> impl Iterator<Item = (GroupId, &Park)> {
        self.parks.iter().map(|(group, park)| (*group, park))
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
        unused.into_iter().for_each(|group| self.resume(group));
    }

    /// Groups that were resumed since the last call, and how long they were parked.
    pub(crate) fn take_resumed(&mut self) -> Vec<(Arc<Table>, Duration)> {
        std::mem::take(&mut self.resumed)
    }

    /// The pipeline drains: backoffs end, and parked groups get a last try.
    pub(crate) fn expire_delays(&mut self, now: Instant) {
        let resting = std::mem::take(&mut self.resting);
        self.resting = resting.into_iter().map(|((_, number), job)| ((now, number), job)).collect();
        let parked: Vec<GroupId> = self.parks.keys().copied().collect();
        parked.into_iter().for_each(|group| self.resume(group));
    }

    /// Drops everything that is not running.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        self.held = 0;
        self.resting.clear();
        self.deadlines.clear();
        self.resume_unused();
    }

    /// When the oldest row in an open batch was accepted.
    pub(crate) fn oldest_open_row(&self, flush_interval: Duration) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline - flush_interval)
    }

    /// How many tables are parked, with all their rows or with those that carry certain columns.
    pub(crate) fn parked_tables(&self) -> usize {
        self.parks.values().map(|park| park.table.number()).collect::<HashSet<_>>().len()
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

    /// When the first of the batches that could start now should have its last try: the end of its `retry_for`. It waits
    /// for a permit or a connection.
    pub(crate) fn first_last_try(&self, now: Instant) -> Option<Instant> {
        if self.held == 0 {
            return None;
        }
        self.ready.iter().filter_map(|lane| self.last_try(*lane, now)).min()
    }

    /// Takes a lane from those that are ready whose returned batch must have its last try now: it does not wait for the
    /// turn of its lane.
    fn take_overdue(&mut self, now: Instant) -> Option<LaneId> {
        if self.held == 0 {
            return None;
        }
        let is_overdue = |lane: &LaneId| self.last_try(*lane, now).is_some_and(|at| at <= now);
        let place = self.ready.iter().position(is_overdue)?;
        self.ready.remove(place)
    }

    /// When the returned batch of a lane that is next should have its last try, if it can start.
    fn last_try(&self, lane: LaneId, now: Instant) -> Option<Instant> {
        let state = self.lanes.get(&lane).filter(|state| state.may_start())?;
        let only_first = if state.table.is_serial() { 1 } else { usize::MAX };
        let jobs = state.held.iter().take(only_first).filter(|job| self.may_write(job.group));
        let last_try = |job: &Job| {
            let (retries, since) = job.progress.retries.as_ref()?;
            since.checked_add(retries.budget())
        };
        let first = jobs.filter_map(|job| last_try(job)).min()?;
        (self.permits_left(lane.table, now) > 0).then_some(first)
    }

    /// Permits that a table may take now: all but one while another table is active.
    fn permits_left(&self, table: usize, now: Instant) -> usize {
        let is_other_active = self.active.iter().any(|(other, at)| *other != table && now - *at < ACTIVE_FOR)
            || self.running.values().any(|start| start.lane.table != table);
        let cap = if is_other_active { (self.concurrency - 1).max(1) } else { self.concurrency };
        cap.saturating_sub(self.running.values().filter(|start| start.lane.table == table).count())
    }

    /// One batch of the lane is no longer running or backing off.
    fn leave(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy -= 1;
        }
        self.list(lane);
        self.forget_if_idle(lane);
    }

    fn forget_if_idle(&mut self, lane: LaneId) {
        if self.lanes.get(&lane).is_some_and(LaneState::is_idle) {
            self.lanes.remove(&lane);
        }
    }

    /// Lists a lane as ready if it may start work.
    fn list(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(&lane) else { return };
        if state.may_start() && !state.is_listed {
            state.is_listed = true;
            self.ready.push_back(lane);
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
            self.ready.push_back(lane);
        }
    }

    fn unblock(&mut self) {
        self.ready.extend(self.blocked.drain(..));
    }

    fn resume(&mut self, group: GroupId) {
        if let Some(park) = self.parks.remove(&group) {
            self.resumed.push((park.table, park.since.elapsed()));
            self.unblock();
        }
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
