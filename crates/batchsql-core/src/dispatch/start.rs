//! Owns how batches start and end: connections, pulls, and what follows from each result.
//! Must not know rows or databases.
//!
//! A permit means one connection: the connection is acquired first, then a batch is pulled for it. So no pulled batch
//! waits for a connection, and rows join their batch until it is sent.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{Id, JoinError};
use tokio::time::Instant;

use crate::config_table::TableSettings;
use crate::dispatch::connect_gate::ConnectGate;
use crate::dispatch::dispatcher::Dispatcher;
use crate::dispatch::fences::Verdict;
use crate::dispatch::parked::Parked;
use crate::dispatch::schedule::{Next, Start};
use crate::dispatch::state::{State, TaskEnd};
use crate::error::{ErrorClass, SinkError};
use crate::intake::lane::{Pull, PullLimit};
use crate::intake::table::Table;
use crate::outcome::outcomes::FailureKind;
use crate::pipeline_events::BatchInfo;
use crate::write::ended::{Connection, Ended, ParkReason};
use crate::write::flight::{AbandonedWrite, Flight};
use crate::write::ids::LaneId;
use crate::write::job::Job;
use crate::write::sample::SAMPLES;
use crate::write::session::SessionEnd;
use crate::write::sink::Sink;

/// The longest delay between retries while the pipeline drains.
const DRAINING_DELAY: Duration = Duration::from_millis(20);

impl<S: Sink> Dispatcher<S> {
    /// Starts batches while there are connections, gets connections while there are permits, and ends sessions.
    pub(crate) fn start_ready(&self, state: &mut State<S::Conn>, now: Instant) {
        // A request for a connection may be one more than there are permits.
        while !state.connections.is_empty() && state.schedule.running() < self.concurrency {
            match state.schedule.next(now) {
                None => break,
                Some(Next::Held(job)) => match self.groups.table(job.lane.table) {
                    Some(table) => self.start_held(state, &table, job, now),
                    None => unreachable!("a table is kept while it has batches"),
                },
                Some(Next::Pull(table, lane)) => self.pull(state, &table, lane, now),
            }
        }
        self.connect(state, now);
        if let Some(session) = state.fences.next(now) {
            let ending = Arc::clone(&self.executor).end_session(session);
            let task = state.tasks.spawn(async move { TaskEnd::SessionEnded(ending.await) });
            state.fencing = Some(task.id());
        }
    }

    /// Gets as many connections as there are permits and batches for them.
    fn connect(&self, state: &mut State<S::Conn>, now: Instant) {
        self.connect_normally(state, now);
        // Rows whose time is over end after a request that began later. It must not wait for the end of an earlier
        // request, which may hang. One is enough for all of them, and one more than the permits allow.
        let taken = state.schedule.running() + state.connecting.len();
        let most = if state.gate.is_some() { 2 } else { self.concurrency + 1 };
        let may = state.schedule.running() < self.concurrency && taken <= self.concurrency;
        if may
            && state.connecting.len() < most
            && let Some(last_try) = self.first_last_try(state, now).filter(|at| *at <= now)
            && state.connecting.values().all(|started| *started < last_try)
            && state.gate.as_ref().is_none_or(|gate| gate.tried_at() < last_try)
        {
            self.request_connection(state, now);
        }
    }

    /// When rows that wait for a connection should have their last try.
    pub(crate) fn first_last_try(&self, state: &State<S::Conn>, now: Instant) -> Option<Instant> {
        let gate = state.gate.as_ref().and_then(|gate| gate.next_last_try(&self.limits));
        let gate = gate.filter(|_| state.schedule.startable(1, now).0 > 0);
        state.schedule.first_last_try(now).into_iter().chain(gate).min()
    }

    fn request_connection(&self, state: &mut State<S::Conn>, now: Instant) {
        let connecting = Arc::clone(&self.executor).acquire();
        let task = state.tasks.spawn(async move { TaskEnd::Connected(connecting.await) });
        state.connecting.insert(task.id(), now);
    }

    fn connect_normally(&self, state: &mut State<S::Conn>, now: Instant) {
        let taken = state.schedule.running() + state.connecting.len() + state.connections.len();
        let free = self.concurrency.saturating_sub(taken);
        state.is_capped = false;
        if free == 0 {
            return;
        }
        let (wanted, is_capped) = state.schedule.startable(free + state.connecting.len(), now);
        state.is_capped = is_capped;
        let mut more = wanted.saturating_sub(state.connecting.len());
        if let Some(gate) = &state.gate {
            // One attempt at a time.
            let may = state.connecting.is_empty() && gate.next_try() <= now;
            more = more.min(usize::from(may));
        }
        for _ in 0..more.min(free) {
            self.request_connection(state, now);
        }
    }

    fn pull(&self, state: &mut State<S::Conn>, table: &Arc<Table>, lane: LaneId, now: Instant) {
        let limit = self.pull_limit(state, table, lane);
        let (pull, status) = {
            let schedule = &state.schedule;
            table.pull(lane, limit, &|group| schedule.may_write(group))
        };
        match pull {
            Pull::Batch(pulled) => {
                self.start(state, table, pulled.job, pulled.others, now);
                state.schedule.note(table, lane, status);
            }
            Pull::Blocked => {
                state.schedule.note(table, lane, status);
                state.schedule.block(lane);
            }
            Pull::Empty => state.schedule.note(table, lane, status),
        }
    }

    /// Starts a returned batch. If its own rows do not show whether the table or one row causes its error, it takes
    /// over the next batches of its lane. That ends, because its rows then have the time of the newest batch.
    ///
    /// Rows of a source wait until a row is accepted, however many are refused before it: nothing else ends their wait. So such a
    /// batch grows with each probe, also after some of its rows have ended. It passes batches that were returned if its lane has no order.
    fn start_held(&self, state: &mut State<S::Conn>, table: &Arc<Table>, mut job: Box<Job>, now: Instant) {
        job.note_last_probe(state.schedule.is_over(&job, now));
        let (lane, has_source) = (job.lane, self.executor.has_source());
        let is_young = now.duration_since(job.first_opened_at) < self.limits.park_for;
        let passes_others = has_source && !table.is_serial();
        let may = job.may_take_over() && is_young && (has_source || job.is_untouched());
        if !may || (state.schedule.holds(lane) && !passes_others) {
            return self.start(state, table, job, Vec::new(), now);
        }
        let mut limit = self.pull_limit(state, table, lane);
        // Rows are tried alone, or in parts of the size that the table allows.
        limit.rows = limit.rows.max(2 * SAMPLES).max(2 * table.settings().flush_size);
        let more = job.rows_to_take_over();
        if has_source && more > 0 {
            limit.rows = limit.rows.max(job.batch.len().saturating_add(more.max(table.settings().flush_size)));
            limit.bytes = limit.bytes.saturating_add(job.batch.bytes());
        }
        let (others, status) = table.pull_more(lane, &job, limit);
        self.start(state, table, job, others, now);
        state.schedule.note(table, lane, status);
    }

    /// How much one pull may take: the table's rows are divided among all permits, and rows that are being written
    /// count. Otherwise writes that end one after another would each find few free permits: the first pull would take
    /// nearly all waiting rows, and the later ones would find none. A batch that is larger than the others also delays
    /// other tables.
    ///
    /// Example: 8 permits, each writing 500 rows, and 36,000 rows wait. The first write ends, and its permit pulls
    /// `(36,000 + 7 * 500) / 8 = 4,938` rows. The next one pulls `(31,062 + 4,938 + 6 * 500) / 8 = 4,875`.
    fn pull_limit(&self, state: &State<S::Conn>, table: &Table, lane: LaneId) -> PullLimit {
        let TableSettings { flush_size, max_batch_rows, .. } = *table.settings();
        let limit = table.batch_limit();
        let most = limit.rows().min(max_batch_rows);
        let rows = if state.schedule.others_are_ready(table.number()) {
            limit.rows_for(lane.lane, flush_size.min(most))
        } else if table.is_serial() {
            // No other permit can write the batches of this lane.
            limit.rows_for(lane.lane, most)
        } else {
            let rows = table.waiting_rows(lane) + state.schedule.running_rows(table.number());
            rows.div_ceil(self.concurrency).max(flush_size).min(limit.rows_for(lane.lane, most))
        };
        PullLimit { rows, bytes: self.intake.flush_bytes }
    }

    fn start(&self, state: &mut State<S::Conn>, table: &Arc<Table>, mut job: Box<Job>, others: Vec<Job>, now: Instant) {
        let Some(connection) = state.connections.pop() else { unreachable!("a batch starts with its connection") };
        let more =
            others.iter().fold((0, 0), |(rows, bytes), other| (rows + other.batch.len(), bytes + other.batch.bytes()));
        let start = state.schedule.start(table, &mut job, more, now);
        let flight = Arc::new(Flight::default());
        let is_ordered = job.is_ordered;
        let writing = Arc::clone(&self.executor).write(job, others, connection, Arc::clone(&flight));
        let task = state.tasks.spawn(async move { TaskEnd::Written(writing.await) });
        if is_ordered {
            state.flights.insert(task.id(), flight);
        }
        state.schedule.started(task.id(), start);
    }

    /// A task has ended.
    pub(crate) fn task_ended(&mut self, state: &mut State<S::Conn>, ended: Result<(Id, TaskEnd<S::Conn>), JoinError>) {
        let (id, result) = match ended {
            Ok((id, end)) => (id, Ok(end)),
            Err(error) => (error.id(), Err(error.is_panic())),
        };
        let now = Instant::now();
        if let Some(started) = state.connecting.remove(&id) {
            match result {
                Ok(TaskEnd::Connected(connected)) => self.connected(state, connected, started, now),
                _ => {
                    let error = SinkError::new(ErrorClass::Internal, "the sink panicked while it got a connection");
                    self.connected(state, Err(error), started, now);
                }
            }
        } else if state.fencing.take_if(|fencing| *fencing == id).is_some() {
            let end = match result {
                Ok(TaskEnd::SessionEnded(Ok(end))) => Some(end),
                Ok(TaskEnd::SessionEnded(Err(error))) => {
                    tracing::debug!(%error, "the session of an abandoned write cannot be ended now; trying again");
                    None
                }
                _ => {
                    tracing::error!("the sink panicked while it ended a session; trying again");
                    None
                }
            };
            self.session_ended(state, end, now);
        } else if let Some(start) = state.schedule.finished(id) {
            let abandoned = state.flights.remove(&id).map(|flight| flight.take_abandoned()).unwrap_or_default();
            self.fence(state, start.lane, abandoned, now);
            match result {
                Ok(TaskEnd::Written(ended)) => self.written(state, &start, ended, now),
                Err(true) => {
                    tracing::error!(table = start.table.name(), "the sink panicked while writing a batch");
                    state.schedule.done(&start, false, now);
                }
                _ => state.schedule.done(&start, false, now),
            }
            state.schedule.resume_unused();
        }
        self.report_resumed(state);
        self.answer_flushes(state);
    }

    fn connected(
        &mut self,
        state: &mut State<S::Conn>,
        connected: Result<Connection<S::Conn>, SinkError>,
        started: Instant,
        now: Instant,
    ) {
        let error = match connected {
            Ok(connection) => {
                if let Some(gate) = state.gate.take() {
                    let after = now.duration_since(gate.since);
                    let database = self.executor.database();
                    tracing::info!(database, ?after, "the database can be reached again");
                }
                state.connections.push(connection);
                return;
            }
            Err(error) => error,
        };
        let gate = state.gate.get_or_insert_with(|| ConnectGate::new(error.clone(), now));
        let is_first = gate.since == now;
        let delay = gate.failed(error.clone(), started, now, &self.limits, state.is_draining);
        let database = self.executor.database();
        if is_first || delay > Duration::from_secs(1) {
            tracing::warn!(database, %error, ?delay, "no connection to the database; trying again");
        } else {
            tracing::debug!(database, %error, ?delay, "no connection to the database; trying again");
        }
        self.report_not_connected(state, &error);
        self.expire_unconnected(state);
    }

    /// Counts the failed attempt as one of a waiting batch.
    fn report_not_connected(&self, state: &State<S::Conn>, error: &SinkError) {
        let reporter = &self.pipeline.reporter;
        let context = reporter.call(|reporter| reporter.context());
        let table = state.schedule.waiting_table().map_or("", |table| table.name());
        let info = BatchInfo { table, context: context.as_ref(), rows: 0, bytes: 0 };
        reporter.call(|reporter| reporter.batch_not_sent(&info, error.class()));
        reporter.call(|reporter| reporter.batch_retried(&info, error.class()));
    }

    fn written(&mut self, state: &mut State<S::Conn>, start: &Start, ended: Ended<S::Conn>, now: Instant) {
        match ended {
            Ended::Done { has_written, expired, connection } => {
                state.connections.extend(connection);
                state.schedule.done(start, has_written, now);
                match expired {
                    Some(error) => self.expire_lane(state, start.lane, &error, start.at),
                    None => state.schedule.recovered(start.lane, now),
                }
            }
            Ended::BackOff { job, delay, error } => {
                self.report_back_off(&job, delay, &error, state.is_draining);
                let delay = if state.is_draining { delay.min(DRAINING_DELAY) } else { delay };
                state.schedule.back_off(start, job, now + delay, now);
            }
            Ended::Waits { job, delay, error } => {
                tracing::debug!(table = start.table.name(), %error, ?delay, "rows refused; waiting for other batches");
                let delay = if state.is_draining { delay.min(DRAINING_DELAY) } else { delay };
                state.schedule.wait(start, job, now + delay);
            }
            // Each search continues where the last one stopped, so it ends. If a source has the rows, no search past its budget
            // rejects any.
            Ended::Parked { job, reason: ParkReason::Search, .. }
                if state.is_draining && !self.executor.has_source() =>
            {
                state.schedule.wait(start, job, now + DRAINING_DELAY);
            }
            // The last try of a table is the one while the pipeline drains.
            Ended::Parked { mut job, error, reason, .. } if state.is_draining => {
                if reason == ParkReason::Rows && job.begin_last_try() {
                    return state.schedule.wait(start, job, now + DRAINING_DELAY);
                }
                let error = if reason == ParkReason::Rows { error.of_batch() } else { error };
                let kind = if self.executor.has_source() { FailureKind::Purged } else { FailureKind::Rejected };
                job.failed_rest(kind, Some(&error));
                drop(job);
                state.schedule.done(start, false, now);
            }
            Ended::Parked { job, error, has_written, reason } => {
                let (class, group, number) = (error.class(), job.group, job.number);
                let parked = Parked { error: error.clone(), is_of_rows: reason == ParkReason::Rows, has_written };
                if state.schedule.park(start, job, parked, now) {
                    let table = start.table.name();
                    tracing::error!(table, %error, "the table cannot be written; its rows wait");
                    self.pipeline.reporter.call(|reporter| reporter.table_parked(table, class));
                }
                self.note_parked(state);
                self.expire_parked(state, group, number, now);
            }
        }
    }

    /// Stops a lane until its abandoned writes can no longer take effect.
    fn fence(&mut self, state: &mut State<S::Conn>, lane: LaneId, writes: Vec<AbandonedWrite>, now: Instant) {
        for write in writes {
            match state.fences.add(lane, write, self.executor.late_write_limit()) {
                Verdict::Waits => state.schedule.fence(lane, now),
                Verdict::Free => {}
                Verdict::Unordered => self.warn_of_order(),
            }
        }
    }

    fn session_ended(&mut self, state: &mut State<S::Conn>, end: Option<SessionEnd>, now: Instant) {
        let Some((lane, verdict)) = state.fences.ended(end, self.executor.late_write_limit(), now) else { return };
        match verdict {
            Verdict::Waits => self.expire_fenced(state, lane, now),
            Verdict::Free => state.schedule.unfence(lane),
            Verdict::Unordered => {
                self.warn_of_order();
                state.schedule.unfence(lane);
            }
        }
    }

    fn warn_of_order(&mut self) {
        if !std::mem::replace(&mut self.warned.of_order, true) {
            tracing::warn!(
                "a write was abandoned and its session cannot be ended; it may still take effect, so the order of rows \
                 with equal keys is not guaranteed after it"
            );
        }
    }

    fn report_back_off(&mut self, job: &Job, delay: Duration, error: &SinkError, is_draining: bool) {
        let table = job.batch.schema().table_display();
        // Logged the first time and when retries take long: not for every attempt, and not for every batch of an
        // outage.
        let is_news = !is_draining && (job.progress.attempts <= 1 || delay > Duration::from_secs(1));
        let others = if is_news { self.warned.of_retries.allow(Instant::now()) } else { None };
        match others {
            Some(0) => tracing::warn!(table, %error, ?delay, "a batch was not written; trying again"),
            Some(others) => {
                let text = "a batch was not written, like others since the last such line; trying again";
                tracing::warn!(table, %error, ?delay, others, "{text}");
            }
            None => tracing::debug!(table, %error, ?delay, "a batch was not written; trying again"),
        }
        self.pipeline.reporter.call(|reporter| reporter.batch_retried(&job.info(), error.class()));
    }
}
