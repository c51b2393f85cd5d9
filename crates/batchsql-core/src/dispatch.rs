//! Owns the order of writing: which sealed or due batch goes next, how many at once, flush and drain.
//! Must not know rows or databases; `execute` does the writing.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::group::{LaneId, Table};
use crate::job::Job;
use crate::ledger::Ledger;
use crate::reporter::{FlushReason, PipelineGauges};
use crate::tables::Tables;

/// How often the state of a busy pipeline is told to the reporter.
const GAUGE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a submitter that got its room may take to wake up.
const WAKING_UP: Duration = Duration::from_millis(1);

/// What the dispatcher is told.
pub(crate) enum Message {
    /// A lane got its first row.
    Opened { table: Arc<Table>, lane: LaneId, generation: u64, at: Instant },
    /// A lane has a full batch.
    Sealed { table: Arc<Table>, lane: LaneId },
    /// Write everything that was accepted, then answer.
    Flush(oneshot::Sender<()>),
    /// A submitter waits for room.
    Pressure,
    /// Drain until the deadline, then end.
    Close { deadline: Instant },
}

/// A batch to be written: already sealed, or still filling until a connection is there.
pub(crate) enum Work {
    Sealed(Box<Job>),
    Due { table: Arc<Table>, lane: usize, generation: u64 },
}

/// Writes one batch. It must come to an end by itself.
pub(crate) trait Writer: Send + Sync + 'static {
    fn write(self: Arc<Self>, work: Work) -> impl Future<Output = ()> + Send + 'static;
}

/// Tells the submitters whether a batch is on its way, so that they know whether to ask for room.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    busy: AtomicBool,
}

impl Activity {
    /// Whether the end of a batch will give room without asking.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }
}

pub(crate) struct Dispatcher<W> {
    pub(crate) writer: Arc<W>,
    pub(crate) messages: mpsc::UnboundedReceiver<Message>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) tables: Arc<Tables>,
    /// Told `true` once draining begins, so that retries stop sleeping.
    pub(crate) draining: watch::Sender<bool>,
    pub(crate) concurrency: usize,
    pub(crate) flush_interval: Duration,
}

/// What the dispatcher keeps for itself.
#[derive(Default)]
struct State {
    tables: HashMap<usize, Arc<Table>>,
    lanes: HashMap<LaneId, LaneState>,
    /// Lanes that may start work, each once: taking turns keeps tables from starving each other.
    ready: VecDeque<LaneId>,
    /// Open batches by deadline; at most one entry per lane.
    deadlines: BTreeSet<(Instant, LaneId)>,
    /// The open batch of each lane: its deadline and generation.
    opened: HashMap<LaneId, (Instant, u64)>,
    /// Work that is queued or running, with the age of its oldest row.
    outstanding: BTreeMap<u64, Instant>,
    next_work: u64,
    running: HashMap<Id, (LaneId, u64)>,
    /// Since when submitters wait although nothing is on its way.
    waited_for_since: Option<Instant>,
    /// Flush calls that wait for all work below a number.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
}

#[derive(Default)]
struct LaneState {
    work: VecDeque<(u64, Work)>,
    running: usize,
    is_ready: bool,
}

/// How the dispatcher was told to end.
enum Ending {
    Deadline(Instant),
    /// Every handle was dropped.
    Abandoned,
}

impl<W: Writer> Dispatcher<W> {
    /// Runs until the pipeline is closed or every handle is dropped, and everything has an outcome.
    pub(crate) async fn run(mut self) {
        let mut state = State::default();
        let mut running = JoinSet::new();
        let mut next_report = Instant::now();
        let mut was_busy = false;
        let ending = loop {
            // Time is looked at every turn, so that a flood of messages cannot hold deadlines up.
            let now = Instant::now();
            self.fall_due(&mut state, now);
            self.start_ready(&mut state, &mut running);
            let relief = self.relieve(&mut state, &mut running, now);
            let waits = !state.outstanding.is_empty() || !state.deadlines.is_empty();
            // The change to idle is told at once: what it leaves behind would look like a stall.
            if now >= next_report || was_busy && !waits {
                self.report(&state, &running);
                next_report = now + GAUGE_INTERVAL;
            }
            was_busy = waits;
            let deadline = state.deadlines.first().map(|(deadline, _)| *deadline);
            let wake = deadline.into_iter().chain(relief).fold(next_report, Instant::min);
            tokio::select! {
                biased;
                Some(ended) = running.join_next_with_id() => self.ended(&mut state, ended),
                message = self.messages.recv() => match message {
                    Some(Message::Close { deadline }) => break Ending::Deadline(deadline),
                    Some(message) => self.take(&mut state, message),
                    None => break Ending::Abandoned,
                },
                () = sleep_until(wake), if waits || relief.is_some() => {}
            }
        };
        self.drain(state, running, ending).await;
    }

    fn take(&self, state: &mut State, message: Message) {
        match message {
            Message::Opened { table, lane, generation, at } => {
                state.tables.entry(lane.table).or_insert(table);
                state.open_until(lane, at + self.flush_interval, generation);
            }
            Message::Sealed { table, lane } => {
                let jobs = table.take_sealed(lane.lane);
                state.tables.entry(lane.table).or_insert(table);
                for job in jobs {
                    state.forget_deadline(lane, job.generation);
                    state.enqueue(lane, job.opened_at, Work::Sealed(Box::new(job)));
                }
            }
            Message::Flush(done) => {
                self.seal_all(state, FlushReason::Explicit);
                state.flushes.retain(|(_, done)| !done.is_closed());
                state.flushes.push((state.next_work, done));
                state.answer_flushes();
            }
            // `relieve` looks at every turn; the message only wakes the dispatcher.
            Message::Pressure | Message::Close { .. } => {}
        }
    }

    /// Turns open batches whose deadline has passed into work. They keep filling until they start.
    fn fall_due(&self, state: &mut State, now: Instant) {
        while let Some((deadline, lane)) = state.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            state.deadlines.remove(&(deadline, lane));
            let (_, generation) = state.opened.remove(&lane).expect("every deadline has its open batch");
            let table = Arc::clone(&state.tables[&lane.table]);
            let since = deadline - self.flush_interval;
            state.enqueue(lane, since, Work::Due { table, lane: lane.lane, generation });
        }
    }

    /// Seals every open batch.
    fn seal_all(&self, state: &mut State, reason: FlushReason) {
        state.deadlines.clear();
        state.opened.clear();
        // Every table there is, also one whose first message has not come, or never will.
        for table in self.tables.all() {
            state.tables.entry(table.number()).or_insert_with(|| Arc::clone(&table));
            for lane in 0..table.lane_count() {
                for job in table.take_all(lane, reason, &self.ledger) {
                    state.enqueue(job.lane, job.opened_at, Work::Sealed(Box::new(job)));
                }
            }
        }
    }

    /// When submitters wait and nothing is on its way that would give room, the open batches hold it.
    /// Returns when to look again.
    fn relieve(&self, state: &mut State, running: &mut JoinSet<()>, now: Instant) -> Option<Instant> {
        // Order matters: say "idle" first, then look for waiters. A waiter counts itself first, then
        // looks whether the pipeline is busy. So one of the two sees the other.
        self.activity.busy.store(!state.outstanding.is_empty(), Ordering::SeqCst);
        let idle = state.outstanding.is_empty() && self.messages.is_empty();
        if !(idle && self.ledger.budget.waiting() > 0) {
            state.waited_for_since = None;
            return None;
        }
        // Where something is left, those who wait may have got their room and not be woken yet.
        let since = *state.waited_for_since.get_or_insert(now);
        if !self.ledger.budget.is_exhausted() && now < since + WAKING_UP {
            return Some(since + WAKING_UP);
        }
        state.waited_for_since = None;
        self.seal_all(state, FlushReason::Pressure);
        self.start_ready(state, running);
        self.activity.busy.store(!state.outstanding.is_empty(), Ordering::SeqCst);
        None
    }

    fn start_ready(&self, state: &mut State, running: &mut JoinSet<()>) {
        while running.len() < self.concurrency {
            let Some(lane) = state.ready.pop_front() else { break };
            let lane_state = state.lanes.get_mut(&lane).expect("a ready lane is known");
            lane_state.is_ready = false;
            let Some((number, work)) = lane_state.work.pop_front() else { continue };
            lane_state.running += 1;
            let task = running.spawn(Arc::clone(&self.writer).write(work));
            state.running.insert(task.id(), (lane, number));
            state.make_ready(lane);
        }
    }

    fn ended(&self, state: &mut State, ended: Result<(Id, ()), JoinError>) {
        let (id, panicked) = match ended {
            Ok((id, ())) => (id, false),
            Err(error) => (error.id(), error.is_panic()),
        };
        let (lane, number) = state.running.remove(&id).expect("every task was registered at its start");
        state.outstanding.remove(&number);
        if panicked {
            tracing::error!("the sink panicked while writing a batch");
            let table = Arc::clone(&state.tables[&lane.table]);
            // It may have panicked before it took the open batch that was due, whose deadline is gone.
            for job in table.take_all(lane.lane, FlushReason::Interval, &self.ledger) {
                state.enqueue(lane, job.opened_at, Work::Sealed(Box::new(job)));
            }
        }
        let lane_state = state.lanes.get_mut(&lane).expect("a running lane is known");
        lane_state.running -= 1;
        if lane_state.running == 0 && lane_state.work.is_empty() {
            state.lanes.remove(&lane);
        } else {
            state.make_ready(lane);
        }
        state.answer_flushes();
    }

    /// Writes what is left. New rows are refused by now.
    async fn drain(mut self, mut state: State, mut running: JoinSet<()>, ending: Ending) {
        // After this every `Opened` is either received below or refused to its submitter.
        self.messages.close();
        while let Some(message) = self.messages.recv().await {
            self.take(&mut state, message);
        }
        self.seal_all(&mut state, FlushReason::Drain);
        self.draining.send_replace(true);
        let deadline = match ending {
            Ending::Deadline(deadline) => Some(deadline),
            Ending::Abandoned => {
                if !state.outstanding.is_empty() {
                    tracing::warn!("the last handle was dropped before close(); draining in the background");
                }
                None
            }
        };
        loop {
            self.start_ready(&mut state, &mut running);
            if running.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                Some(ended) = running.join_next_with_id() => self.ended(&mut state, ended),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => break,
            }
        }
        // Past the deadline: dropping queued work purges it, aborting running work ends it.
        state.lanes.clear();
        running.shutdown().await;
        state.outstanding.clear();
        state.answer_flushes();
        self.report(&state, &running);
    }

    fn report(&self, state: &State, running: &JoinSet<()>) {
        let (buffer_rows, buffer_bytes) = self.ledger.budget.used();
        let open = state.deadlines.first().map(|(deadline, _)| *deadline - self.flush_interval);
        let oldest = state.outstanding.values().copied().chain(open).min();
        let oldest_row = oldest.map(|at| SystemTime::now() - at.elapsed());
        let gauges = PipelineGauges {
            buffer_rows,
            buffer_rows_limit: self.ledger.budget.rows_limit(),
            buffer_bytes,
            buffer_bytes_limit: self.ledger.budget.bytes_limit(),
            inflight_batches: running.len(),
            concurrency_limit: self.concurrency,
            oldest_row: oldest_row.filter(|_| buffer_rows > 0),
            last_success: self.ledger.last_success(),
        };
        self.ledger.reporter.call(|reporter| reporter.gauges(&gauges));
    }
}

/// If the dispatcher ends, nobody may wait for room any more.
impl<W> Drop for Dispatcher<W> {
    fn drop(&mut self) {
        self.ledger.budget.close();
    }
}

impl State {
    fn enqueue(&mut self, lane: LaneId, oldest: Instant, work: Work) {
        let number = self.next_work;
        self.next_work += 1;
        self.outstanding.insert(number, oldest);
        self.lanes.entry(lane).or_default().work.push_back((number, work));
        self.make_ready(lane);
    }

    fn open_until(&mut self, lane: LaneId, deadline: Instant, generation: u64) {
        if let Some((earlier, _)) = self.opened.insert(lane, (deadline, generation)) {
            self.deadlines.remove(&(earlier, lane));
        }
        self.deadlines.insert((deadline, lane));
    }

    fn forget_deadline(&mut self, lane: LaneId, generation: u64) {
        if let Some((deadline, _)) = self.opened.get(&lane).copied().filter(|(_, g)| *g == generation) {
            self.opened.remove(&lane);
            self.deadlines.remove(&(deadline, lane));
        }
    }

    fn make_ready(&mut self, lane: LaneId) {
        let serial = self.tables[&lane.table].is_serial();
        let state = self.lanes.get_mut(&lane).expect("the lane has work or a running task");
        let may_start = !(state.work.is_empty() || serial && state.running > 0);
        if may_start && !state.is_ready {
            state.is_ready = true;
            self.ready.push_back(lane);
        }
    }

    fn answer_flushes(&mut self) {
        let oldest = self.outstanding.first_key_value().map_or(u64::MAX, |(number, _)| *number);
        for (_, done) in self.flushes.extract_if(.., |(below, _)| oldest >= *below) {
            // A flush call that was cancelled needs no answer.
            let _ = done.send(());
        }
    }
}
