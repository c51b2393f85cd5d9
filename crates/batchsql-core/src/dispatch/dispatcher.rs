//! Owns the order of writing: which sealed or due batch goes next, how many at once, flush and drain.
//! Must not know rows or databases; `execute` does the writing.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::budget::count::Wanted;
use crate::config::WhenFull;
use crate::dispatch::schedule::Schedule;
use crate::error::{ErrorClass, SinkError};
use crate::intake::groups::Groups;
use crate::intake::table::{DueBatch, LaneId, OpenId, Table};
use crate::outcome::ledger::Ledger;
use crate::outcome::outcomes::FailureKind;
use crate::reporter::PoolState;
use crate::reporter::{FlushReason, PipelineGauges};
use crate::write::job::Job;

/// How often the state of a busy pipeline is told to the reporter.
const GAUGE_INTERVAL: Duration = Duration::from_millis(250);

/// How long a submitter that got its room may take to wake up.
const WAKING_UP: Duration = Duration::from_millis(1);

/// While draining, retries come at least this fast.
const DRAINING_DELAY: Duration = Duration::from_millis(20);

/// What the dispatcher is told.
pub(crate) enum Message {
    /// A lane got its first row of a group.
    Opened { table: Arc<Table>, batch: OpenId, generation: u64, at: Instant },
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
    Due { table: Arc<Table>, batch: DueBatch, taken: Arc<Taken> },
}

impl Work {
    /// The batch, sealed now if it was still open; `None` when it is no longer there.
    pub(crate) fn into_job(
        self,
        ledger: &Arc<Ledger>,
        messages: &mpsc::WeakUnboundedSender<Message>,
    ) -> Option<Box<Job>> {
        match self {
            Self::Sealed(job) => Some(job),
            Self::Due { table, batch, taken } => {
                let job = table.take_due(batch, ledger, messages)?;
                taken.note(job.batch.len(), job.batch.bytes());
                Some(Box::new(job))
            }
        }
    }
}

/// Rows and bytes of a batch that is being written, once they are known.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    rows: AtomicUsize,
    bytes: AtomicUsize,
}

impl Taken {
    pub(crate) fn note(&self, rows: usize, bytes: usize) {
        self.rows.store(rows, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn room(&self) -> (usize, usize) {
        (self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

/// How the writing of a batch ended.
pub(crate) enum Ended<C> {
    /// Every row has its outcome, or there was nothing to write.
    Done {
        /// How long the last write took, and whether rows were written; `None` when there was nothing.
        wrote: Option<(Duration, bool)>,
        /// Its connection, when the next batch may go on with it.
        conn: Option<C>,
    },
    /// It is to be tried again after a while.
    Resting { job: Box<Job>, delay: Duration, error: SinkError },
    /// Its table cannot be written for now.
    Parked { job: Box<Job>, error: SinkError },
}

/// Writes one batch. It must come to an end by itself.
pub(crate) trait Writer: Send + Sync + 'static {
    /// A connection that goes from batch to batch.
    type Conn: Send + 'static;

    /// The connections of the sink's pool.
    fn pool(&self) -> Option<PoolState>;

    /// Writes with the connection of the batch before, or with one of its own.
    fn write(
        self: Arc<Self>,
        work: Work,
        conn: Option<Self::Conn>,
    ) -> impl Future<Output = Ended<Self::Conn>> + Send + 'static;
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
    pub(crate) own_messages: mpsc::WeakUnboundedSender<Message>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) activity: Arc<Activity>,
    /// Set when no more rows are accepted.
    pub(crate) closed: Arc<AtomicBool>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) concurrency: usize,
    pub(crate) flush_interval: Duration,
    pub(crate) park_for: Duration,
    pub(crate) when_full: WhenFull,
    /// Whether rows of the oldest batches were given up before, so that the warning comes once.
    pub(crate) has_dropped: bool,
    /// The same for dead letters that nobody takes.
    pub(crate) has_warned_of_letters: bool,
}

/// What the dispatcher keeps for itself.
struct State<C> {
    schedule: Schedule,
    running: JoinSet<Ended<C>>,
    /// Connections of batches that have just ended, for those that start at once. Nothing else is kept: others
    /// may use the pool, too.
    handed_on: Vec<C>,
    /// Since when submitters wait although nothing is on its way.
    waited_for_since: Option<Instant>,
    /// Flush calls that wait for all work below a number.
    flushes: Vec<(u64, oneshot::Sender<()>)>,
    draining: bool,
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
        let mut state = State {
            schedule: Schedule::new(self.concurrency, self.park_for),
            running: JoinSet::new(),
            handed_on: Vec::new(),
            waited_for_since: None,
            flushes: Vec::new(),
            draining: false,
        };
        let mut next_report = Instant::now();
        let mut was_busy = false;
        let ending = loop {
            // Time is looked at every turn, so that a flood of messages cannot hold deadlines up.
            let now = Instant::now();
            self.fall_due(&mut state, now);
            self.start_ready(&mut state, now);
            let relief = self.relieve(&mut state, now);
            state.handed_on.clear();
            let waits = state.schedule.has_rows();
            // The change to idle is told at once: what it leaves behind would look like a stall.
            if now >= next_report || was_busy && !waits {
                self.report(&state);
                next_report = now + GAUGE_INTERVAL;
            }
            was_busy = waits;
            let wake = state.schedule.next_time().into_iter().chain(relief).fold(next_report, Instant::min);
            tokio::select! {
                biased;
                Some(ended) = state.running.join_next_with_id() => self.ended(&mut state, ended),
                message = self.messages.recv() => match message {
                    Some(Message::Close { deadline }) => break Ending::Deadline(deadline),
                    Some(message) => self.take(&mut state, message),
                    None => break Ending::Abandoned,
                },
                () = sleep_until(wake), if waits || relief.is_some() => {}
            }
        };
        self.drain(state, ending).await;
    }

    fn take(&self, state: &mut State<W::Conn>, message: Message) {
        match message {
            Message::Opened { table, batch, generation, at } => {
                state.schedule.open_until(&table, batch, at + self.flush_interval, generation);
            }
            Message::Sealed { table, lane } => {
                self.take_sealed(state, &table, lane);
            }
            Message::Flush(done) => {
                self.seal_all(state, FlushReason::Explicit);
                state.flushes.retain(|(_, done)| !done.is_closed());
                state.flushes.push((state.schedule.next_number(), done));
                state.answer_flushes();
            }
            // `relieve` looks at every turn; the message only wakes the dispatcher.
            Message::Pressure | Message::Close { .. } => {}
        }
    }

    /// Queues the sealed batches of a lane, and says how many it has sealed so far.
    ///
    /// In a lane with an order, batches that are due and still open may have newer rows than anything that
    /// is sealed: nothing comes behind them. So they are sealed, too, when something does.
    fn take_sealed(&self, state: &mut State<W::Conn>, table: &Arc<Table>, lane: LaneId) -> u64 {
        if table.is_serial() {
            for batch in state.schedule.take_due(lane) {
                table.seal_due(batch, &self.ledger);
            }
        }
        let (jobs, seals) = table.take_sealed(lane.lane);
        state.enqueue(table, jobs);
        seals
    }

    /// What is to happen at this time.
    fn fall_due(&self, state: &mut State<W::Conn>, now: Instant) {
        // Open batches whose deadline has passed become work. They keep filling until they start.
        while let Some((table, batch, deadline, generation)) = state.schedule.pop_deadline(now) {
            let since = deadline - self.flush_interval;
            let seals = self.take_sealed(state, &table, batch.lane);
            let due = DueBatch { id: batch, generation, seals };
            let work = Work::Due { table: Arc::clone(&table), batch: due, taken: Arc::default() };
            state.schedule.enqueue(&table, batch.lane, since, work);
        }
        state.schedule.wake(now);
        for (table, error, work) in state.schedule.take_expired(now) {
            self.reject(&table, &error, work);
        }
        self.tell_resumed(state);
        state.answer_flushes();
    }

    /// Ends work of a parked table whose time is over.
    fn reject(&self, table: &Table, error: &SinkError, work: Work) {
        if let Some(mut job) = work.into_job(&self.ledger, &self.own_messages) {
            tracing::error!(table = table.name(), rows = job.batch.len(), %error, "rows of a parked table were rejected");
            job.failed_rest(FailureKind::Rejected, Some(error));
        }
    }

    /// Seals every open batch.
    fn seal_all(&self, state: &mut State<W::Conn>, reason: FlushReason) {
        state.schedule.forget_deadlines();
        // Every table there is, also one whose first message has not come, or never will.
        for table in self.groups.tables() {
            self.seal_table(state, &table, reason);
        }
    }

    fn seal_table(&self, state: &mut State<W::Conn>, table: &Arc<Table>, reason: FlushReason) {
        for lane in 0..table.lane_count() {
            state.enqueue(table, table.take_all(lane, reason, &self.ledger));
        }
    }

    /// When submitters wait and nothing is on its way that would give room, the open batches hold it.
    /// Returns when to look again.
    fn relieve(&mut self, state: &mut State<W::Conn>, now: Instant) -> Option<Instant> {
        if self.when_full == WhenFull::DropOldest {
            self.make_room(state);
        }
        self.warn_of_untaken_letters();
        // Order matters: say "idle" first, then look for waiters. A waiter counts itself first, then
        // looks whether the pipeline is busy. So one of the two sees the other.
        self.activity.busy.store(!state.is_idle(), Ordering::SeqCst);
        let idle = state.is_idle() && self.messages.is_empty();
        let is_wanted = || matches!(self.ledger.budget.wanted(), Some(Wanted::Room { .. }));
        if !(idle && is_wanted()) {
            state.waited_for_since = None;
            return None;
        }
        // Those who have got room and are not awake yet are about to fill a batch.
        let since = *state.waited_for_since.get_or_insert(now);
        if self.ledger.budget.is_waking() && now < since + WAKING_UP {
            return Some(since + WAKING_UP);
        }
        state.waited_for_since = None;
        self.seal_all(state, FlushReason::Pressure);
        self.start_ready(state, now);
        self.activity.busy.store(!state.is_idle(), Ordering::SeqCst);
        None
    }

    /// Says once that submitters wait for a consumer of dead letters, and not for the database.
    fn warn_of_untaken_letters(&mut self) {
        if self.has_warned_of_letters {
            return;
        }
        let budget = &self.ledger.budget;
        let ((used, _), (held, _)) = (budget.used(), budget.held());
        if held > 0 && held == used && budget.wanted().is_some() {
            self.has_warned_of_letters = true;
            tracing::warn!(rows = held, "the buffer is full of failed rows that no dead-letter consumer has taken");
        }
    }

    /// Gives up the oldest batches that are not being written, as far as that makes room for those who
    /// wait.
    fn make_room(&mut self, state: &mut State<W::Conn>) {
        while let Some(wanted) = self.ledger.budget.wanted() {
            // Rows whose consumers have not taken them give their room by themselves.
            let (held_rows, held_bytes) = self.ledger.budget.held();
            let (only, rows, bytes) = match wanted {
                Wanted::Room { rows, bytes } => {
                    (None, rows.saturating_sub(held_rows), bytes.saturating_sub(held_bytes))
                }
                Wanted::Share { table } => (Some(table), 1, 1),
            };
            if (rows == 0 && bytes == 0) || !self.can_drop(state, rows, bytes) {
                break;
            }
            if !self.drop_oldest(state, only) {
                break;
            }
        }
        state.answer_flushes();
    }

    /// Whether rows that are not being written hold so much room.
    fn can_drop(&self, state: &State<W::Conn>, rows: usize, bytes: usize) -> bool {
        let (used_rows, used_bytes) = self.ledger.budget.used();
        let (held_rows, held_bytes) = self.ledger.budget.held();
        let (running_rows, running_bytes) = state.schedule.running_room();
        used_rows.saturating_sub(held_rows + running_rows) >= rows
            && used_bytes.saturating_sub(held_bytes + running_bytes) >= bytes
    }

    /// Gives up one batch; false when all that is left is being written.
    fn drop_oldest(&mut self, state: &mut State<W::Conn>, only: Option<usize>) -> bool {
        let (table, work) = match state.schedule.take_oldest(only) {
            Some(taken) => taken,
            None => {
                // What is left is open, or being written.
                let next_number = state.schedule.next_number();
                let tables = self.groups.tables().into_iter().filter(|table| only.is_none_or(|n| n == table.number()));
                tables.for_each(|table| self.seal_table(state, &table, FlushReason::Pressure));
                return state.schedule.next_number() > next_number;
            }
        };
        let Some(mut job) = work.into_job(&self.ledger, &self.own_messages) else { return true };
        if !std::mem::replace(&mut self.has_dropped, true) {
            tracing::warn!(table = table.name(), "the buffer is full: the oldest batches are given up, as configured");
        }
        let why = "the buffer was full and its oldest batch had to make room (WhenFull::DropOldest)";
        job.progress.makes_room = true;
        job.progress.last_error = Some(SinkError::new(ErrorClass::Transient, why));
        true
    }

    fn start_ready(&self, state: &mut State<W::Conn>, now: Instant) {
        while let Some((start, work)) = state.schedule.next_start(now) {
            let task = state.running.spawn(Arc::clone(&self.writer).write(work, state.handed_on.pop()));
            state.schedule.started(task.id(), start, now);
        }
    }

    fn ended(&self, state: &mut State<W::Conn>, ended: Result<(Id, Ended<W::Conn>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error.is_panic())),
        };
        let now = Instant::now();
        let start = state.schedule.finished(id);
        match result {
            Ok(Ended::Done { wrote, conn }) => {
                state.handed_on.extend(conn);
                if let Some((time, _)) = wrote {
                    state.schedule.took(&start.table, time, now);
                }
                state.schedule.done(&start, wrote.is_some_and(|(_, has_written)| has_written), now);
            }
            Ok(Ended::Resting { job, delay, error }) => {
                self.rest(&job, delay, &error, state.draining);
                let delay = if state.draining { delay.min(DRAINING_DELAY) } else { delay };
                state.schedule.rest(start, job, now + delay);
            }
            // The last chance of a table is the one that it has while the pipeline drains.
            Ok(Ended::Parked { job, error }) if state.draining => {
                self.reject(&start.table, &error, Work::Sealed(job));
                state.schedule.done(&start, false, now);
            }
            Ok(Ended::Parked { job, error }) => {
                let (table, class) = (Arc::clone(&start.table), error.class());
                if state.schedule.park(start, job, error.clone(), now) {
                    tracing::error!(table = table.name(), %error, "the table cannot be written; its rows wait");
                    self.ledger.reporter.call(|reporter| reporter.table_parked(table.name(), class));
                }
            }
            Err(panicked) => {
                if panicked {
                    tracing::error!(table = start.table.name(), "the sink panicked while writing a batch");
                    // It may have panicked before it took the open batch that was due, whose deadline is gone.
                    self.seal_table(state, &start.table, FlushReason::Interval);
                }
                state.schedule.done(&start, false, now);
            }
        }
        self.tell_resumed(state);
        state.answer_flushes();
    }

    fn rest(&self, job: &Job, delay: Duration, error: &SinkError, draining: bool) {
        let table = job.batch.schema().table_display();
        // The first time, and when it begins to take long: not with every attempt.
        if !draining && (job.progress.attempts <= 1 || delay > Duration::from_secs(1)) {
            tracing::warn!(table, %error, ?delay, "trying again");
        } else {
            tracing::debug!(table, %error, ?delay, "trying again");
        }
        self.ledger.reporter.call(|reporter| reporter.batch_retried(&job.info(), error.class()));
    }

    fn tell_resumed(&self, state: &mut State<W::Conn>) {
        for (table, parked_for) in state.schedule.take_resumed() {
            tracing::info!(table = table.name(), ?parked_for, "the table is no longer parked");
            self.ledger.reporter.call(|reporter| reporter.table_resumed(table.name(), parked_for));
        }
    }

    /// Writes what is left. New rows are refused by now.
    async fn drain(mut self, mut state: State<W::Conn>, ending: Ending) {
        // After this every `Opened` is either received below or refused to its submitter.
        self.messages.close();
        while let Some(message) = self.messages.recv().await {
            self.take(&mut state, message);
        }
        self.seal_all(&mut state, FlushReason::Drain);
        state.draining = true;
        state.schedule.hurry(Instant::now());
        let deadline = match ending {
            Ending::Deadline(deadline) => Some(deadline),
            Ending::Abandoned => {
                if state.schedule.has_rows() {
                    tracing::warn!("the last handle was dropped before close(); draining in the background");
                }
                None
            }
        };
        loop {
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                break;
            }
            self.fall_due(&mut state, now);
            self.start_ready(&mut state, now);
            state.handed_on.clear();
            if !state.schedule.has_rows() && state.running.is_empty() {
                break;
            }
            let wake = state.schedule.next_time().into_iter().chain(deadline).min();
            tokio::select! {
                biased;
                Some(ended) = state.running.join_next_with_id() => self.ended(&mut state, ended),
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
        // Past the deadline: dropping queued work purges it, aborting running work ends it.
        state.schedule.clear();
        state.running.shutdown().await;
        self.tell_resumed(&mut state);
        state.answer_flushes();
        self.report(&state);
    }

    fn report(&self, state: &State<W::Conn>) {
        let (buffer_rows, buffer_bytes) = self.ledger.budget.used();
        let oldest_row = state.schedule.oldest_row(self.flush_interval).map(|at| SystemTime::now() - at.elapsed());
        let gauges = PipelineGauges {
            buffer_rows,
            buffer_rows_limit: self.ledger.budget.rows_limit(),
            buffer_bytes,
            buffer_bytes_limit: self.ledger.budget.bytes_limit(),
            inflight_batches: state.running.len(),
            concurrency_limit: self.concurrency,
            parked_tables: state.schedule.parked_tables(),
            oldest_row: oldest_row.filter(|_| buffer_rows > 0),
            last_success: self.ledger.last_success(),
            pool: self.writer.pool(),
        };
        self.ledger.reporter.call(|reporter| reporter.gauges(&gauges));
    }
}

/// If the dispatcher ends, nobody may wait for room any more, and no row for its outcome: also when its
/// runtime was shut down, or by a defect.
impl<W> Drop for Dispatcher<W> {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.ledger.budget.close();
        for table in self.groups.tables() {
            for lane in 0..table.lane_count() {
                drop(table.take_all(lane, FlushReason::Drain, &self.ledger));
            }
        }
    }
}

impl<C> State<C> {
    /// Whether nothing is on its way. What rests or is parked gives no room by itself.
    fn is_idle(&self) -> bool {
        self.running.is_empty()
    }

    /// Queues sealed batches of a table.
    fn enqueue(&mut self, table: &Arc<Table>, jobs: impl IntoIterator<Item = Job>) {
        for job in jobs {
            self.schedule.forget_deadline(job.open_id(), job.generation);
            self.schedule.enqueue(table, job.lane, job.opened_at, Work::Sealed(Box::new(job)));
        }
    }

    fn answer_flushes(&mut self) {
        let oldest = self.schedule.oldest_number();
        for (_, done) in self.flushes.extract_if(.., |(below, _)| oldest >= *below) {
            // A flush call that was cancelled needs no answer.
            let _ = done.send(());
        }
    }
}
