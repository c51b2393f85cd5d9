//! Owns the task that passes messages and results to the schedule, and handles deadlines, flushes and the end.
//! Must not know rows or databases; `execute` does the writing.
//!
//! Its other methods are in `start.rs` (connections, pulls, how tasks end), `expire.rs` (rows that have waited long
//! enough) and `pressure.rs` (submitters that wait for capacity).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::config_policies::WhenFull;
use crate::dispatch::connect_gate::WaitLimits;
use crate::dispatch::log_limit::LogLimit;
use crate::dispatch::park::{Park, Resumed, Resumption};
use crate::dispatch::schedule::Schedule;
use crate::dispatch::state::{Activity, State};
use crate::intake::groups::Groups;
use crate::intake::message::Message;
use crate::intake::table::{Intake, Table};
use crate::pipeline_events::{FlushReason, PipelineGauges, PoolState};
use crate::write::context::PipelineContext;
use crate::write::execute::Executor;
use crate::write::ids::LaneId;
use crate::write::sink::Sink;

/// How often a busy pipeline reports its state.
const GAUGE_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) struct Dispatcher<S: Sink> {
    pub(crate) executor: Arc<Executor<S>>,
    pub(crate) messages: mpsc::UnboundedReceiver<Message>,
    /// When the rest is given up; it may become earlier. `None`: `close` was not called.
    pub(crate) close_at: watch::Receiver<Option<Instant>>,
    pub(crate) pipeline: Arc<PipelineContext>,
    pub(crate) intake: Arc<Intake>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) concurrency: usize,
    pub(crate) limits: WaitLimits,
    pub(crate) when_full: WhenFull,
    pub(crate) warned: Warned,
}

/// The state of log messages that are written once or at a limited rate.
#[derive(Debug, Default)]
pub(crate) struct Warned {
    /// Batches are retried.
    pub(crate) of_retries: LogLimit,
    /// The oldest batches were dropped.
    pub(crate) of_dropping: bool,
    /// Dead letters that no consumer receives fill the buffer.
    pub(crate) of_letters: bool,
    /// Order is not guaranteed after an abandoned write.
    pub(crate) of_order: bool,
    /// The sink panicked in `pool`.
    pub(crate) of_pool: bool,
}

impl<S: Sink> Dispatcher<S> {
    /// Runs until the pipeline is closed or every handle is dropped, and every row has an outcome.
    pub(crate) async fn run(mut self) {
        let mut state = State::new(Schedule::new(self.concurrency, self.limits.park_for));
        let mut next_report = Instant::now();
        let mut was_busy = false;
        loop {
            // The time is checked in every turn, so that many messages cannot delay deadlines.
            let now = Instant::now();
            self.fall_due(&mut state, now);
            self.start_ready(&mut state, now);
            let pressure_wake = self.flush_under_pressure(&mut state, now);
            state.connections.clear();
            // A step is reported within a second, although no row is in the buffer.
            let waits = self.has_rows(&state) || state.has_stepped;
            // The change to idle is reported at once: otherwise the last values would look like a stall.
            if now >= next_report || was_busy && !waits {
                self.report(&state);
                // Connections that are kept between steps are looked at until they are given back.
                state.has_stepped = self.executor.sweep_steps();
                next_report = now + GAUGE_INTERVAL;
            }
            was_busy = waits;
            let wake = self.next_time(&state, now).into_iter().chain(pressure_wake).fold(next_report, Instant::min);
            tokio::select! {
                biased;
                Some(ended) = state.tasks.join_next_with_id() => self.task_ended(&mut state, ended),
                message = self.messages.recv() => match message {
                    // `None`: every handle was dropped.
                    Some(Message::Close) | None => break,
                    Some(message) => self.take(&mut state, message),
                },
                () = sleep_until(wake), if waits || pressure_wake.is_some() => {}
            }
        }
        self.drain(state).await;
    }

    fn take(&self, state: &mut State<S::Conn>, message: Message) {
        match message {
            Message::Lane(lane) => {
                // A table that was removed had no rows left.
                if let Some(table) = self.groups.table(lane.table) {
                    state.schedule.note(&table, lane, table.status(lane));
                }
            }
            Message::Flush(done) => {
                self.seal_all(state, FlushReason::Explicit);
                state.flushes.retain(|(_, done)| !done.is_closed());
                state.flushes.push((self.pipeline.outstanding.next(), done));
                self.answer_flushes(state);
            }
            Message::Stepped => state.has_stepped = true,
            // `flush_under_pressure` runs in every turn; the message only wakes the dispatcher.
            Message::Pressure | Message::Close => {}
        }
    }

    /// Handles everything that is due at this time.
    fn fall_due(&mut self, state: &mut State<S::Conn>, now: Instant) {
        // Open batches whose deadline has passed are sealed. Rows that arrive before the pull are written with them.
        while let Some((table, lane)) = state.schedule.due(now) {
            let until = now.checked_sub(table.settings().flush_interval);
            let status = match until {
                Some(_) => table.seal(lane, until, FlushReason::Interval),
                // The clock does not reach back that far, so nothing is due.
                None => table.status(lane),
            };
            state.schedule.note(&table, lane, status);
        }
        state.schedule.wake(now);
        while let Some(lane) = state.fences.pop_timed(now) {
            state.schedule.unfence(lane);
        }
        self.expire_timed(state, now);
        self.report_resumed(state);
        self.answer_flushes(state);
    }

    /// Seals every open batch.
    pub(crate) fn seal_all(&self, state: &mut State<S::Conn>, reason: FlushReason) {
        // All tables, also one whose first message has not arrived or never will.
        for table in self.groups.tables() {
            self.seal_table(state, &table, reason);
        }
    }

    pub(crate) fn seal_table(&self, state: &mut State<S::Conn>, table: &Arc<Table>, reason: FlushReason) {
        for lane in table.lanes() {
            self.seal_lane(state, table, lane, reason);
        }
    }

    fn seal_lane(&self, state: &mut State<S::Conn>, table: &Arc<Table>, lane: LaneId, reason: FlushReason) {
        let status = table.seal(lane, None, reason);
        state.schedule.note(table, lane, status);
    }

    pub(crate) fn report_resumed(&self, state: &mut State<S::Conn>) {
        let resumed = state.schedule.take_resumed();
        if resumed.is_empty() {
            return;
        }
        for Resumed { table, parked_for, why } in resumed {
            let name = table.name();
            match why {
                Resumption::Written => tracing::info!(table = name, ?parked_for, "the table can be written again"),
                Resumption::NoRowsLeft => {
                    let left = "no row of the parked table is left; whether it can be written now is not known";
                    tracing::warn!(table = name, ?parked_for, "{left}");
                }
                Resumption::Draining => {
                    tracing::info!(table = name, ?parked_for, "the rows of the parked table get a last try");
                }
            }
            self.pipeline.reporter.call(|reporter| reporter.table_resumed(table.name(), parked_for));
        }
        self.note_parked(state);
    }

    /// Publishes which tables are parked.
    pub(crate) fn note_parked(&self, state: &State<S::Conn>) {
        let since = |park: &Park| SystemTime::now() - park.since.elapsed();
        let parks = state.schedule.parks();
        self.pipeline.health.set_parked(parks.map(|(_, park)| (park.table.name(), since(park), &park.error)));
    }

    pub(crate) fn answer_flushes(&self, state: &mut State<S::Conn>) {
        let outstanding = &self.pipeline.outstanding;
        for (_, done) in state.flushes.extract_if(.., |(below, _)| outstanding.have_ended_below(*below)) {
            // A flush call that was cancelled needs no answer.
            let _ = done.send(());
        }
    }

    /// Whether any row is open, sealed, or being written.
    fn has_rows(&self, state: &State<S::Conn>) -> bool {
        !self.pipeline.outstanding.is_empty() || state.schedule.has_open_rows()
    }

    /// When the next check is due.
    fn next_time(&self, state: &State<S::Conn>, now: Instant) -> Option<Instant> {
        let gate =
            state.gate.as_ref().filter(|_| state.connecting.is_empty() && state.schedule.startable(1, now).0 > 0);
        let expiry = self.next_timed_expiry(state, now);
        let last_try = self.first_last_try(state, now).filter(|at| *at > now);
        let times = [
            last_try,
            state.schedule.next_time(state.is_capped, now),
            state.fences.next_time(),
            gate.map(|gate| gate.next_try()),
            expiry,
        ];
        times.into_iter().flatten().min()
    }

    /// Writes the remaining rows. New rows are already refused.
    async fn drain(mut self, mut state: State<S::Conn>) {
        // After this every message is either received below or refused to its submitter.
        self.messages.close();
        while let Some(message) = self.messages.recv().await {
            self.take(&mut state, message);
        }
        self.seal_all(&mut state, FlushReason::Drain);
        self.executor.close_steps();
        state.is_draining = true;
        let now = Instant::now();
        state.schedule.expire_delays(now);
        state.gate.iter_mut().for_each(|gate| gate.try_now(now));
        let mut close_at = self.close_at.clone();
        if close_at.borrow().is_none() && self.has_rows(&state) {
            tracing::warn!("the last handle was dropped before close(); draining in the background");
        }
        loop {
            let now = Instant::now();
            let deadline = *close_at.borrow_and_update();
            if deadline.is_some_and(|deadline| deadline <= now) {
                break;
            }
            self.fall_due(&mut state, now);
            self.start_ready(&mut state, now);
            state.connections.clear();
            if !self.has_rows(&state) && state.schedule.running() == 0 {
                break;
            }
            let wake = self.next_time(&state, now).into_iter().chain(deadline).min();
            tokio::select! {
                biased;
                Some(ended) = state.tasks.join_next_with_id() => self.task_ended(&mut state, ended),
                Ok(()) = close_at.changed() => {}
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => {}
            }
        }
        // Past the deadline: dropping the waiting batches purges their rows, aborting the running tasks ends theirs.
        state.schedule.clear();
        state.tasks.shutdown().await;
        self.drop_lanes();
        self.report_resumed(&mut state);
        self.answer_flushes(&mut state);
        self.report(&state);
    }

    /// Ends the rows that are left in the lanes.
    fn drop_lanes(&self) {
        for table in self.groups.tables() {
            for lane in table.lanes() {
                table.seal(lane, None, FlushReason::Drain);
                drop(table.take_sealed(lane, &|_| true));
            }
        }
    }

    fn report(&mut self, state: &State<S::Conn>) {
        let (buffer_rows, buffer_bytes) = self.pipeline.ledger.budget.used();
        let open = state.schedule.oldest_open_row();
        let oldest_row = self.pipeline.outstanding.oldest_row().into_iter().chain(open).min();
        let gauges = PipelineGauges {
            buffer_rows,
            buffer_rows_limit: self.pipeline.ledger.budget.rows_limit(),
            buffer_bytes,
            buffer_bytes_limit: self.pipeline.ledger.budget.bytes_limit(),
            inflight_batches: state.schedule.running(),
            concurrency_limit: self.concurrency,
            parked_tables: state.schedule.parked_tables(),
            oldest_row: oldest_row.filter(|_| buffer_rows > 0).map(|at| SystemTime::now() - at.elapsed()),
            last_success: self.pipeline.ledger.last_success(),
            database_up: self.pipeline.health.is_reachable(),
            pool: self.pool(),
        };
        self.pipeline.reporter.call(|reporter| reporter.gauges(&gauges));
    }

    /// The state of the sink's pool. If the sink panics here, only its pool metrics are missing.
    fn pool(&mut self) -> Option<PoolState> {
        let pool = catch_unwind(AssertUnwindSafe(|| self.executor.pool()));
        pool.unwrap_or_else(|_| {
            if !std::mem::replace(&mut self.warned.of_pool, true) {
                tracing::error!("the sink panicked in pool(); its pool is missing in the metrics");
            }
            None
        })
    }
}

/// When the dispatcher ends, no submitter may keep waiting for capacity, and no row for its outcome: also after a
/// shutdown of its runtime, or a defect.
impl<S: Sink> Drop for Dispatcher<S> {
    fn drop(&mut self) {
        self.intake.closed.store(true, Ordering::SeqCst);
        self.pipeline.ledger.budget.close();
        self.drop_lanes();
        self.pipeline.dispatcher_ended();
    }
}
