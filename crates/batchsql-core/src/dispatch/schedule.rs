//! Owns the waiting work of a pipeline: what may start next, what rests, what is parked, what is due when.
//! Must not write, wait or look at a clock: it is told the time.
//!
//! Lanes take turns; a table with keys has as many lanes as there are permits. A lane with an order has one batch on its way, and while it rests the lane waits.
//! Groups that cannot be written are parked: their batches wait in their lanes, and one of them at a
//! time is tried as a probe.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::Id;
use tokio::time::Instant;

use crate::dispatch::dispatcher::{Taken, Work};
use crate::error::{ErrorClass, SinkError};
use crate::intake::table::{DueBatch, LaneId, OpenId, Table};
use crate::write::job::Job;
use crate::write::retry::RetrySchedule;

/// A batch that takes longer makes its table a slow one.
const SLOW: Duration = Duration::from_millis(100);
/// How long a permit is kept for tables that are not slow, after the last of their batches.
const KEPT_FOR_FAST: Duration = Duration::from_secs(30);

pub(crate) struct Schedule {
    concurrency: usize,
    park_for: Duration,
    lanes: HashMap<LaneId, LaneState>,
    /// Lanes that may start work, each once.
    ready: VecDeque<LaneId>,
    /// Lanes of slow tables that wait until a batch ends.
    held_back: VecDeque<LaneId>,
    /// Lanes whose next work is of a parked group.
    blocked: Vec<LaneId>,
    /// Open batches by deadline.
    deadlines: BTreeSet<(Instant, OpenId)>,
    opened: HashMap<OpenId, Opened>,
    /// Batches that are tried again at a time.
    resting: BTreeMap<(Instant, u64), (LaneId, Box<Job>)>,
    /// By number of the group.
    parks: HashMap<usize, Park>,
    resumed: Vec<(Arc<Table>, Duration)>,
    /// Work that is queued, resting or running, with the age of its oldest row.
    outstanding: BTreeMap<u64, Instant>,
    next_number: u64,
    running: HashMap<Id, (Start, Instant)>,
    /// The two tables that last ended a batch and are not slow, the newest first, and when.
    last_fast: Vec<(usize, Instant)>,
}

struct LaneState {
    table: Arc<Table>,
    work: VecDeque<(u64, Work)>,
    /// Batches that are running or resting.
    busy: usize,
    /// Whether it is in `ready`, `held_back` or `blocked`, once.
    is_listed: bool,
}

impl LaneState {
    /// Whether there is work, and nothing on its way that must come first.
    fn may_start(&self) -> bool {
        !(self.work.is_empty() || self.table.is_serial() && self.busy > 0)
    }
}

struct Opened {
    table: Arc<Table>,
    deadline: Instant,
    generation: u64,
}

/// A group that cannot be written for now.
struct Park {
    table: Arc<Table>,
    since: Instant,
    error: SinkError,
    delays: RetrySchedule,
    next_probe: Instant,
    /// Where the next probe stands.
    probe: Probe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// Its time has not come.
    Waits,
    /// The next batch of the group that can start is the probe.
    Due,
    Running,
}

/// A batch that was started.
pub(crate) struct Start {
    pub(crate) table: Arc<Table>,
    lane: LaneId,
    group: usize,
    number: u64,
    taken: Arc<Taken>,
}

impl Work {
    fn group(&self) -> usize {
        match self {
            Self::Sealed(job) => job.group.number,
            Self::Due { batch, .. } => batch.id.group,
        }
    }
}

impl Schedule {
    pub(crate) fn new(concurrency: usize, park_for: Duration) -> Self {
        Self {
            concurrency,
            park_for,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            held_back: VecDeque::new(),
            blocked: Vec::new(),
            deadlines: BTreeSet::new(),
            opened: HashMap::new(),
            resting: BTreeMap::new(),
            parks: HashMap::new(),
            resumed: Vec::new(),
            outstanding: BTreeMap::new(),
            next_number: 0,
            running: HashMap::new(),
            last_fast: Vec::new(),
        }
    }

    /// Queues work behind everything else of its lane.
    pub(crate) fn enqueue(&mut self, table: &Arc<Table>, lane: LaneId, oldest: Instant, work: Work) {
        let number = self.next_number;
        self.next_number += 1;
        self.outstanding.insert(number, oldest);
        self.lane(table, lane).work.push_back((number, work));
        // Where there is no order, what comes need not wait for what is parked.
        if !table.is_serial()
            && let Some(place) = self.blocked.iter().position(|blocked| *blocked == lane)
        {
            self.blocked.swap_remove(place);
            self.ready.push_back(lane);
        }
        self.list(lane);
    }

    /// Notes until when an open batch may wait.
    pub(crate) fn open_until(&mut self, table: &Arc<Table>, batch: OpenId, deadline: Instant, generation: u64) {
        let opened = Opened { table: Arc::clone(table), deadline, generation };
        if let Some(earlier) = self.opened.insert(batch, opened) {
            self.deadlines.remove(&(earlier.deadline, batch));
        }
        self.deadlines.insert((deadline, batch));
    }

    /// Forgets the deadline of a batch that was sealed before.
    pub(crate) fn forget_deadline(&mut self, batch: OpenId, generation: u64) {
        if let Some(opened) = self.opened.get(&batch).filter(|opened| opened.generation == generation) {
            self.deadlines.remove(&(opened.deadline, batch));
            self.opened.remove(&batch);
        }
    }

    pub(crate) fn forget_deadlines(&mut self) {
        self.deadlines.clear();
        self.opened.clear();
    }

    /// An open batch whose deadline has passed.
    pub(crate) fn pop_deadline(&mut self, now: Instant) -> Option<(Arc<Table>, OpenId, Instant, u64)> {
        let (deadline, batch) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= now)?;
        self.deadlines.remove(&(deadline, batch));
        let opened = self.opened.remove(&batch).expect("every deadline has its open batch");
        Some((opened.table, batch, deadline, opened.generation))
    }

    /// Takes the batches of a lane that are due and not started: they are still open.
    pub(crate) fn take_due(&mut self, lane: LaneId) -> Vec<DueBatch> {
        let Some(state) = self.lanes.get_mut(&lane) else { return Vec::new() };
        let mut due = Vec::new();
        let outstanding = &mut self.outstanding;
        state.work.retain(|(number, work)| match work {
            Work::Due { batch, .. } => {
                outstanding.remove(number);
                due.push(*batch);
                false
            }
            Work::Sealed(_) => true,
        });
        self.forget_lane_if_idle(lane);
        due
    }

    /// The next work to start, when there is a permit for it. Must be followed by `started`.
    ///
    /// Slow tables together leave one permit to the others, while there are others.
    pub(crate) fn next_start(&mut self, now: Instant) -> Option<(Start, Work)> {
        if self.running.len() >= self.concurrency {
            return None;
        }
        let mut found = None;
        while let Some(lane) = self.ready.pop_front() {
            let Some(state) = self.lanes.get(&lane) else { continue };
            if !state.may_start() {
                self.unlist(lane);
                self.forget_lane_if_idle(lane);
                continue;
            }
            let Some(place) = self.startable(state) else {
                self.blocked.push(lane);
                continue;
            };
            if self.leaves_permit(&state.table, now) {
                self.held_back.push_back(lane);
                continue;
            }
            found = Some((lane, place));
            break;
        }
        let (lane, place) = found?;
        let state = self.lanes.get_mut(&lane)?;
        state.is_listed = false;
        state.busy += 1;
        let (number, work) = state.work.remove(place)?;
        let group = work.group();
        if let Some(park) = self.parks.get_mut(&group) {
            park.probe = Probe::Running;
        }
        let table = Arc::clone(&state.table);
        self.list(lane);
        let taken = match &work {
            Work::Sealed(job) => {
                let taken = Arc::new(Taken::default());
                taken.note(job.batch.len(), job.batch.bytes());
                taken
            }
            // It is still open.
            Work::Due { taken, .. } => Arc::clone(taken),
        };
        Some((Start { table, lane, group, number, taken }, work))
    }

    /// Registers the task of work that was started.
    pub(crate) fn started(&mut self, task: Id, start: Start, now: Instant) {
        self.running.insert(task, (start, now));
    }

    /// Rows and bytes of the batches that are being written.
    pub(crate) fn running_room(&self) -> (usize, usize) {
        let rooms = self.running.values().map(|(start, _)| start.taken.room());
        rooms.fold((0, 0), |(rows, bytes), room| (rows + room.0, bytes + room.1))
    }

    /// Takes a task back. Must be followed by `done`, `rest` or `park`.
    pub(crate) fn finished(&mut self, task: Id) -> Start {
        // Those who were held back are the oldest in line.
        while let Some(lane) = self.held_back.pop_back() {
            self.ready.push_front(lane);
        }
        self.running.remove(&task).expect("every task was registered at its start").0
    }

    /// Notes how long a write to a table took.
    pub(crate) fn took(&mut self, table: &Table, time: Duration, now: Instant) {
        table.slow.store(time > SLOW, Ordering::Relaxed);
        if time <= SLOW {
            self.last_fast.retain(|(number, _)| *number != table.number());
            self.last_fast.insert(0, (table.number(), now));
            self.last_fast.truncate(2);
        }
    }

    /// All rows of the work have their outcomes, or there were none. If some were written, its group can
    /// be written.
    pub(crate) fn done(&mut self, start: &Start, has_written: bool, now: Instant) {
        self.outstanding.remove(&start.number);
        if has_written {
            self.resume(start.group);
        } else if let Some(park) = self.parks.get_mut(&start.group).filter(|park| park.probe == Probe::Running) {
            // The probe did not answer the question; the next batch is one.
            park.probe = Probe::Waits;
            park.next_probe = now;
        }
        self.leave(start.lane);
        self.resume_unused();
    }

    /// The work is to be tried again at a time.
    pub(crate) fn rest(&mut self, start: Start, job: Box<Job>, until: Instant) {
        if let Some(park) = self.parks.get_mut(&start.group) {
            // The probe did not answer the question.
            park.probe = Probe::Waits;
            park.next_probe = until;
        }
        self.resting.insert((until, start.number), (start.lane, job));
    }

    /// The group of the work cannot be written; true when that is new.
    pub(crate) fn park(&mut self, start: Start, job: Box<Job>, error: SinkError, now: Instant) -> bool {
        let is_new = !self.parks.contains_key(&start.group);
        let park = self.parks.entry(start.group).or_insert_with(|| Park {
            table: Arc::clone(&start.table),
            since: now,
            error: error.clone(),
            delays: RetrySchedule::new(Duration::MAX),
            next_probe: now,
            probe: Probe::Waits,
        });
        let delay = park.delays.next(ErrorClass::Resource, Duration::ZERO).unwrap_or(SLOW);
        park.next_probe = now + delay;
        park.probe = Probe::Waits;
        park.error = error;
        self.lane(&start.table, start.lane).work.push_front((start.number, Work::Sealed(job)));
        self.leave(start.lane);
        is_new
    }

    /// Lets batches whose rest is over, and probes whose time has come, be started.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((_, number), (lane, job)) = entry.remove_entry();
            let table = Arc::clone(&job.group.table);
            self.lane(&table, lane).work.push_front((number, Work::Sealed(job)));
            self.leave(lane);
        }
        let mut is_any_due = false;
        for park in self.parks.values_mut().filter(|park| park.probe == Probe::Waits && park.next_probe <= now) {
            park.probe = Probe::Due;
            is_any_due = true;
        }
        if is_any_due {
            self.unblock();
        }
    }

    /// Takes the work of parked groups that has waited long enough, with the reason.
    pub(crate) fn take_expired(&mut self, now: Instant) -> Vec<(Arc<Table>, SinkError, Work)> {
        let mut expired = Vec::new();
        if self.parks.is_empty() {
            return expired;
        }
        for state in self.lanes.values_mut() {
            while let Some((place, until)) = first_parked(state, &self.parks, &self.outstanding, self.park_for)
                && until <= now
                && let Some((number, work)) = state.work.remove(place)
            {
                self.outstanding.remove(&number);
                let error = self.parks[&work.group()].error.clone();
                expired.push((Arc::clone(&state.table), error, work));
            }
        }
        if !expired.is_empty() {
            let lanes: Vec<LaneId> = self.lanes.keys().copied().collect();
            for lane in lanes {
                self.forget_lane_if_idle(lane);
                self.list(lane);
            }
            self.unblock();
            self.resume_unused();
        }
        expired
    }

    /// Takes the oldest work that is not running, of any table or of one.
    pub(crate) fn take_oldest(&mut self, only: Option<usize>) -> Option<(Arc<Table>, Work)> {
        let is_wanted = |lane: &LaneId| only.is_none_or(|table| table == lane.table);
        let queued = self.lanes.iter().filter(|(lane, _)| is_wanted(lane));
        let queued = queued.filter_map(|(lane, state)| Some((state.work.front()?.0, *lane))).min();
        let resting = self.resting.iter().filter(|(_, (lane, _))| is_wanted(lane));
        let resting = resting.map(|(key, _)| (key.1, *key)).min();
        let taken = match (queued, resting) {
            (Some((number, _)), Some((resting, key))) if resting < number => self.take_resting(key),
            (None, Some((_, key))) => self.take_resting(key),
            (Some((number, lane)), _) => {
                let state = self.lanes.get_mut(&lane)?;
                let (_, work) = state.work.pop_front()?;
                self.outstanding.remove(&number);
                let table = Arc::clone(&state.table);
                self.forget_lane_if_idle(lane);
                Some((table, work))
            }
            (None, None) => None,
        };
        // It may have stood before work that can be started.
        self.unblock();
        self.resume_unused();
        taken
    }

    fn take_resting(&mut self, key: (Instant, u64)) -> Option<(Arc<Table>, Work)> {
        let (lane, job) = self.resting.remove(&key)?;
        self.outstanding.remove(&key.1);
        self.leave(lane);
        Some((Arc::clone(&job.group.table), Work::Sealed(job)))
    }

    /// Groups that can be written again since the last call, and how long they were parked.
    pub(crate) fn take_resumed(&mut self) -> Vec<(Arc<Table>, Duration)> {
        std::mem::take(&mut self.resumed)
    }

    /// The pipeline drains: nothing rests any longer, and what is parked has a last try.
    pub(crate) fn hurry(&mut self, now: Instant) {
        let resting = std::mem::take(&mut self.resting);
        self.resting = resting.into_iter().map(|((_, number), job)| ((now, number), job)).collect();
        let parked: Vec<usize> = self.parks.keys().copied().collect();
        parked.into_iter().for_each(|group| self.resume(group));
    }

    /// Gives everything up that is not running.
    pub(crate) fn clear(&mut self) {
        self.lanes.clear();
        self.resting.clear();
        self.outstanding.clear();
        self.forget_deadlines();
        self.resume_unused();
    }

    /// The number that the next work gets.
    pub(crate) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// The lowest number of work that has not ended; above all numbers when there is none.
    pub(crate) fn oldest_number(&self) -> u64 {
        self.outstanding.first_key_value().map_or(u64::MAX, |(number, _)| *number)
    }

    /// When the oldest row that is not written was submitted.
    pub(crate) fn oldest_row(&self, flush_interval: Duration) -> Option<Instant> {
        let open = self.deadlines.first().map(|(deadline, _)| *deadline - flush_interval);
        self.outstanding.values().copied().chain(open).min()
    }

    /// Whether any row is open, queued, resting or running.
    pub(crate) fn has_rows(&self) -> bool {
        !self.outstanding.is_empty() || !self.deadlines.is_empty()
    }

    /// How many tables are parked, with all their rows or with those that carry certain columns.
    pub(crate) fn parked_tables(&self) -> usize {
        self.parks.values().map(|park| park.table.number()).collect::<HashSet<_>>().len()
    }

    /// When something is to be looked at again.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let rest = self.resting.first_key_value().map(|((until, _), _)| *until);
        let probe = self.parks.values().filter(|park| park.probe == Probe::Waits).map(|park| park.next_probe).min();
        let expiry = if self.parks.is_empty() { None } else { self.next_expiry() };
        [deadline, rest, probe, expiry].into_iter().flatten().min()
    }

    fn next_expiry(&self) -> Option<Instant> {
        let first = |state| first_parked(state, &self.parks, &self.outstanding, self.park_for);
        self.lanes.values().filter_map(first).map(|(_, until)| until).min()
    }

    fn lane(&mut self, table: &Arc<Table>, lane: LaneId) -> &mut LaneState {
        self.lanes.entry(lane).or_insert_with(|| LaneState {
            table: Arc::clone(table),
            work: VecDeque::new(),
            busy: 0,
            is_listed: false,
        })
    }

    /// One batch of the lane is no longer running or resting.
    fn leave(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.busy -= 1;
        }
        self.forget_lane_if_idle(lane);
        self.list(lane);
    }

    /// A lane in line is forgotten when its turn comes.
    fn forget_lane_if_idle(&mut self, lane: LaneId) {
        let is_idle = |state: &LaneState| state.busy == 0 && state.work.is_empty() && !state.is_listed;
        if self.lanes.get(&lane).is_some_and(is_idle) {
            self.lanes.remove(&lane);
        }
    }

    /// Puts a lane in line if it may start work.
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
    }

    fn unblock(&mut self) {
        self.ready.extend(self.blocked.drain(..));
    }

    /// The place of the work of a lane that may start: the first, or, where there is no order, the first
    /// that is not parked.
    fn startable(&self, state: &LaneState) -> Option<usize> {
        let may = |(_, work): &(u64, Work)| self.parks.get(&work.group()).is_none_or(|park| park.probe == Probe::Due);
        if state.table.is_serial() {
            return state.work.front().is_some_and(may).then_some(0);
        }
        state.work.iter().position(may)
    }

    /// Whether a table must leave the last permit to others: it is slow, so are those that run, and there
    /// are some that are not.
    fn leaves_permit(&self, table: &Table, now: Instant) -> bool {
        let is_other = |(number, at): &(usize, Instant)| *number != table.number() && now - *at <= KEPT_FOR_FAST;
        if self.concurrency == 1 || !self.last_fast.iter().any(is_other) {
            return false;
        }
        let runs_long = |since: &Instant| now - *since > SLOW;
        let is_slow = |other: &Table| {
            let runs = self.running.values().filter(|(start, _)| start.table.number() == other.number());
            other.slow.load(Ordering::Relaxed) || runs.map(|(_, since)| since).any(runs_long)
        };
        let slow = self.running.values().filter(|(start, _)| is_slow(&start.table)).count();
        slow + 1 >= self.concurrency && is_slow(table)
    }

    fn resume(&mut self, group: usize) {
        if let Some(park) = self.parks.remove(&group) {
            self.resumed.push((park.table, park.since.elapsed()));
            self.unblock();
        }
    }

    /// Nothing is parked of which nothing is left.
    fn resume_unused(&mut self) {
        if self.parks.is_empty() {
            return;
        }
        let queued = self.lanes.values().flat_map(|state| state.work.iter().map(|(_, work)| work.group()));
        let running = self.running.values().map(|(start, _)| start.group);
        let resting = self.resting.values().map(|(_, job)| job.group.number);
        let used: HashSet<usize> = queued.chain(running).chain(resting).collect();
        let unused: Vec<usize> = self.parks.keys().copied().filter(|group| !used.contains(group)).collect();
        unused.into_iter().for_each(|group| self.resume(group));
    }
}

/// The first work of a lane whose group is parked, and until when it waits.
fn first_parked(
    state: &LaneState,
    parks: &HashMap<usize, Park>,
    outstanding: &BTreeMap<u64, Instant>,
    park_for: Duration,
) -> Option<(usize, Instant)> {
    let parked = |(place, (number, work)): (usize, &(u64, Work))| {
        let park = parks.get(&work.group()).filter(|_| outstanding.contains_key(number))?;
        let since = outstanding[number].max(park.since);
        Some((place, since.checked_add(park_for).unwrap_or(since)))
    };
    state.work.iter().enumerate().find_map(parked)
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
