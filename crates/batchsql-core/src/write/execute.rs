//! Owns the writing of one batch: connection, plan, attempts, and the verdict on each of its rows.
//! Must not know how batches are filled, in which order they come, or how long they wait.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::config::{BeyondBudget, Coalesce, Delivery, FAR, Isolation, Ordering, PipelineConfig};
use crate::error::{ErrorClass, SinkError};
use crate::model::schema::{Schema, SchemaId};
use crate::outcome::outcomes::FailureKind;
use crate::reporter::{BatchExecuted, BatchStarted, PoolState};
use crate::write::attempt::Attempt;
use crate::write::context::PipelineContext;
use crate::write::flight::Flight;
use crate::write::isolate::{Next, Verdict};
use crate::write::job::{Job, Progress};
use crate::write::plans::Plans;
use crate::write::retry::RetrySchedule;
use crate::write::session::{Session, SessionEnd};
use crate::write::sink::{Limits, Sink, Written};
use crate::write::spans;
use crate::write::watch::{PATIENCE, watch};

/// What the handle needs from a sink, without its type.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    fn limits(&self, schema: &Schema) -> Limits;
    async fn prepare(&self, schema: &Schema) -> Result<(), SinkError>;
    /// Gets a connection and gives it back.
    async fn check_connection(&self) -> Result<(), SinkError>;
    /// Forgets what was prepared for schemas that are no longer used.
    fn forget(&self, schemas: &[SchemaId]);
}

/// Writes batches to one sink.
pub(crate) struct Executor<S: Sink> {
    sink: S,
    pipeline: Arc<PipelineContext>,
    flush_size: usize,
    late_write_limit: Option<Duration>,
    retry_for: Duration,
    statement_timeout: Duration,
    isolation: Isolation,
    /// Whether all rows of a table keep their order.
    in_order: bool,
    /// How long a batch waits for other batches before its table is parked for an error that one row may have caused.
    doubt_delay: Duration,
    coalesces: bool,
    sorts: bool,
    delivery: Delivery,
    parks: bool,
    plans: Plans<S::Plan>,
}

/// Why a range of rows was not written.
enum Stop {
    /// At least one of the rows is at fault.
    Bad(SinkError),
    /// The rows cannot be written by one statement.
    Inseparable(SinkError),
    /// They were refused, and some of them may already be in the database.
    MaybeWritten(SinkError),
    /// They were refused with an error that the table or one row may have caused; with the last commit before.
    Doubtful(SinkError, u64),
    /// No further retry is possible.
    Failed(FailureKind, SinkError),
    /// The batch must wait.
    Pause(Pause),
}

/// Why a table is parked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParkReason {
    /// The check of the table failed: it does not exist, or may not be written.
    Table,
    /// Rows that were tried alone were refused, and none was committed.
    Rows,
    /// The search for bad rows has used its statements. The next try continues it, so it ends.
    Search,
}

/// Why a batch must wait.
enum Pause {
    /// It is retried.
    BackOff(Duration, SinkError),
    /// It is not known whether the table or its rows are at fault: other batches may show it meanwhile.
    Wait(Duration, SinkError),
    /// The table cannot be written.
    Park(ParkReason, SinkError),
}

/// A connection that the next batch can use again.
pub(crate) struct Connection<C> {
    conn: C,
    /// When it was acquired.
    since: Instant,
    /// Its session, once it was asked for.
    session: Option<Option<Session>>,
}

/// How long batches reuse a connection. Pools check and renew the connections that are returned to them.
const HOLD: Duration = Duration::from_secs(1);

/// How long one call of `end_session` may take. Then it is called again.
const END_SESSION: Duration = Duration::from_secs(5);

/// The bounds of the time that a batch waits for other batches before its table is parked.
const MIN_DOUBT_DELAY: Duration = Duration::from_millis(50);
const MAX_DOUBT_DELAY: Duration = Duration::from_secs(1);

/// How the writing of a batch ended.
pub(crate) enum Ended<C> {
    /// Every row has its outcome.
    Done {
        /// Whether rows were written.
        has_written: bool,
        /// The error with which rows were given up because `retry_for` was over.
        expired: Option<SinkError>,
        /// Its connection, if the next batch may use it.
        connection: Option<Connection<C>>,
    },
    /// It is tried again after a delay, and has not failed.
    Waits { job: Box<Job>, delay: Duration, error: SinkError },
    /// It failed and is retried after a delay.
    BackOff { job: Box<Job>, delay: Duration, error: SinkError },
    /// Its table cannot be written for now.
    Parked { job: Box<Job>, error: SinkError, has_written: bool, reason: ParkReason },
}

/// A plan, and whether it was made just now.
struct Prepared<P> {
    plan: Arc<P>,
    fresh: bool,
}

/// A connection; `None` if it must be acquired.
type Conn<S> = Option<Connection<<S as Sink>::Conn>>;

#[async_trait]
impl<S: Sink> Engine for Executor<S> {
    fn limits(&self, schema: &Schema) -> Limits {
        self.sink.limits(schema)
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), SinkError> {
        let mut connection = self.connect().await?;
        self.plan(&mut connection.conn, schema).await.map(drop)
    }

    async fn check_connection(&self) -> Result<(), SinkError> {
        self.connect().await.map(drop)
    }

    fn forget(&self, schemas: &[SchemaId]) {
        self.plans.forget(schemas);
    }
}

impl<S: Sink> Executor<S> {
    pub(crate) fn new(sink: S, pipeline: Arc<PipelineContext>, config: &PipelineConfig) -> Self {
        Self {
            sorts: sink.sorts_by_key() && config.ordering != Ordering::PerTable,
            late_write_limit: sink.late_write_limit().map(|limit| limit.min(FAR)),
            sink,
            pipeline,
            flush_size: config.flush_size,
            retry_for: config.retry_for,
            statement_timeout: config.statement_timeout,
            isolation: config.isolation,
            in_order: config.ordering == Ordering::PerTable,
            doubt_delay: config.flush_interval.saturating_mul(2).clamp(MIN_DOUBT_DELAY, MAX_DOUBT_DELAY),
            coalesces: config.coalesce == Coalesce::LastPerKey,
            delivery: config.delivery,
            parks: !config.park_for.is_zero(),
            plans: Plans::default(),
        }
    }

    /// The name of the database.
    pub(crate) fn database(&self) -> &'static str {
        self.sink.name()
    }

    /// The connections of the sink's pool.
    pub(crate) fn pool(&self) -> Option<PoolState> {
        self.sink.pool()
    }

    /// How long a write may still take effect if its session cannot be ended.
    pub(crate) fn late_write_limit(&self) -> Option<Duration> {
        self.late_write_limit
    }

    /// Gets a connection.
    pub(crate) async fn acquire(self: Arc<Self>) -> Result<Connection<S::Conn>, SinkError> {
        self.connect().await
    }

    /// Ends the session of a write that was given up.
    pub(crate) async fn end_session(self: Arc<Self>, session: Session) -> Result<SessionEnd, SinkError> {
        match timeout(END_SESSION, self.sink.end_session(&session)).await {
            Ok(result) => result,
            Err(_) => Err(timed_out("ending a session", END_SESSION, ErrorClass::Transient)),
        }
    }

    /// Writes a batch and those that were sealed after it as one.
    pub(crate) async fn write(
        self: Arc<Self>,
        mut job: Box<Job>,
        mut others: Vec<Job>,
        connection: Connection<S::Conn>,
        flight: Arc<Flight>,
    ) -> Ended<S::Conn> {
        let since = connection.since;
        let mut conn = Some(connection);
        job.progress.has_written = false;
        job.progress.expired = None;
        job.progress.has_looked_again = false;
        if !others.is_empty() && job.progress.search.is_some() {
            // It was reported without them.
            others.iter_mut().for_each(Job::report_sealed);
            job.begin_anew();
        }
        if job.progress.search.is_none() {
            self.begin(&mut job, others);
        }
        job.resume_in_doubt(self.in_order);
        let span = spans::batch(self.sink.name(), &job);
        let pause = self.run(&mut job, &mut conn, &flight).instrument(span.clone()).await;
        let (result, error) = match &pause {
            None => ("done", job.progress.expired.as_ref()),
            Some(Pause::BackOff(_, error)) => ("backs_off", Some(error)),
            Some(Pause::Wait(_, error)) => ("waits", Some(error)),
            Some(Pause::Park(_, error)) => ("parked", Some(error)),
        };
        spans::batch_ended(&span, result, error, &job);
        drop(span);
        job.release_copy();
        let has_written = job.progress.has_written;
        // If rows failed, other batches may use the connection while the consumers receive the rows.
        let may_hold = pause.is_none() && !job.has_failed_rows() && since.elapsed() < HOLD;
        match pause {
            None => {
                let expired = job.progress.expired.take();
                Ended::Done { has_written, expired, connection: conn.filter(|_| may_hold) }
            }
            Some(Pause::BackOff(delay, error)) => Ended::BackOff { job, delay, error },
            Some(Pause::Wait(delay, error)) => Ended::Waits { job, delay, error },
            Some(Pause::Park(reason, error)) => Ended::Parked { job, error, has_written, reason },
        }
    }

    fn begin(&self, job: &mut Job, others: Vec<Job>) {
        let queue_wait = job.opened_at.elapsed();
        let begin = std::time::Instant::now();
        job.absorb(others);
        job.report_sealed();
        job.progress.is_atomic = self.isolation == Isolation::AtomicBatch;
        let max_rows = if self.isolation == Isolation::AtomicBatch { usize::MAX } else { job.limit.rows() };
        let budget = self.isolation_budget(job.batch.len());
        job.begin(self.coalesces, self.sorts, budget, max_rows);
        if job.progress.attempts == 0 {
            let started = BatchStarted { queue_wait, assemble: begin.elapsed() };
            self.pipeline.reporter.call(|reporter| reporter.batch_started(&job.info(), &started));
        }
    }

    /// The most tries of the search for bad rows: a larger batch may take as many for each `flush_size` rows.
    fn isolation_budget(&self, rows: usize) -> usize {
        match self.isolation {
            Isolation::Bisect { max_statements, .. } => {
                max_statements.saturating_mul(rows.div_ceil(self.flush_size).max(1))
            }
            Isolation::AtomicBatch => 0,
        }
    }

    /// Gives every row of the job its outcome, or returns why the job must wait. If the job is dropped meanwhile, its
    /// `Drop` gives the outcomes.
    async fn run(&self, job: &mut Job, conn: &mut Conn<S>, flight: &Flight) -> Option<Pause> {
        loop {
            if job.is_ordered && flight.has_abandoned() && job.has_open_rows() {
                // No batch of this lane is sent before the abandoned write can no longer take effect.
                let why = || SinkError::new(ErrorClass::Unknown, "a write of this batch was abandoned");
                let error = job.progress.last_error.clone().unwrap_or_else(why);
                return Some(Pause::BackOff(Duration::ZERO, error));
            }
            match job.search().next() {
                Next::Done if job.begin_next_round() => {}
                Next::Done => return None,
                Next::Undecided => {
                    let Progress { refusal, last_error, .. } = &job.progress;
                    let error = refusal.as_ref().or(last_error.as_ref()).expect("only a refusal makes tries count");
                    let error = error.clone();
                    if matches!(self.isolation, Isolation::Bisect { beyond: BeyondBudget::Park, .. }) && self.parks {
                        let budget = self.isolation_budget(job.batch.len());
                        job.search().renew(budget);
                        return Some(Pause::Park(ParkReason::Search, error));
                    }
                    let error = error.not_looked_at_alone();
                    for undecided in job.search().take_rest() {
                        job.failed(undecided, FailureKind::Rejected, Some(&error));
                    }
                }
                Next::AllRefused => {
                    let error = job.progress.refusal.clone().expect("the rows were refused");
                    if self.parks && job.wait_in_doubt() {
                        return Some(Pause::Wait(self.doubt_delay, error));
                    }
                    if self.parks {
                        return Some(Pause::Park(ParkReason::Rows, error));
                    }
                    job.reject_rest_of_round();
                }
                Next::Try(range) => match self.write_range(job, range.clone(), conn, flight).await {
                    Ok((written, number)) => {
                        job.written(range.clone(), &written, self.repeats(job));
                        job.search().judge(range.clone(), Verdict::Ended);
                        job.committed(&range, &written, number, self.in_order);
                        if let Some(pause) = self.back_off_unfinished(job, &written) {
                            return Some(pause);
                        }
                    }
                    Err(Stop::Bad(error)) => self.refused(job, range, Verdict::Bad, &error),
                    Err(Stop::Inseparable(error)) => self.refused(job, range, Verdict::Inseparable, &error),
                    Err(Stop::Doubtful(error, committed)) => {
                        if job.doubt(range.clone(), committed, &error, self.in_order) {
                            self.refused(job, range, Verdict::Bad, &error);
                        }
                    }
                    Err(Stop::MaybeWritten(error)) => {
                        job.search().judge(range.clone(), Verdict::Ended);
                        if job.fail_maybe_written(range, &error) {
                            postpone_rest(job);
                        }
                    }
                    Err(Stop::Failed(kind, error)) => {
                        if kind == FailureKind::Expired {
                            job.progress.expired = Some(error.clone());
                        }
                        job.failed(range.clone(), kind, Some(&error));
                        job.search().judge(range, Verdict::Ended);
                    }
                    Err(Stop::Pause(pause)) => {
                        job.search().put_back(range);
                        return Some(pause);
                    }
                },
            }
        }
    }

    /// The backoff before the next round, if the sink left rows without an outcome and there is time for it.
    fn back_off_unfinished(&self, job: &mut Job, written: &Written) -> Option<Pause> {
        if !job.has_unfinished() {
            return None;
        }
        postpone_rest(job);
        let errors = || written.unfinished.iter().map(|(_, error)| error);
        // Other errors are those of rejected rows.
        let mut transient = errors().filter(|error| error.is_retryable() || error.class() == ErrorClass::Unknown);
        let error = errors().find(|error| error.class() == ErrorClass::Resource).or(transient.next())?;
        job.progress.last_error = Some(error.clone());
        match next_delay(job, error.class(), self.retry_for) {
            Some(delay) => Some(Pause::BackOff(delay, error.clone())),
            None => {
                job.progress.expired = Some(error.clone());
                job.fail_unfinished(FailureKind::Expired, Some(error));
                None
            }
        }
    }

    /// Whether rows that may be in the database may be sent again.
    fn repeats(&self, job: &Job) -> bool {
        match self.delivery {
            Delivery::NeverRepeat => false,
            Delivery::AtMostOnce => self.sink.is_repeatable(job.batch.schema()),
            Delivery::AtLeastOnce => true,
        }
    }

    /// Handles rows that were refused together.
    fn refused(&self, job: &mut Job, range: Range<usize>, verdict: Verdict, error: &SinkError) {
        if self.isolation == Isolation::AtomicBatch {
            job.failed(range.clone(), FailureKind::Rejected, Some(error));
            job.search().judge(range, Verdict::Ended);
            return;
        }
        if verdict == Verdict::Bad {
            job.progress.refusal = Some(error.clone());
        }
        let was_isolating = job.search().is_isolating();
        if job.search().judge(range.clone(), verdict) {
            job.reject_row(range.start, error);
        } else if job.search().is_isolating() && !was_isolating {
            self.pipeline.reporter.call(|reporter| reporter.batch_isolated(&job.info()));
        }
    }

    /// Writes a range of rows in one transaction, or returns what to do instead.
    async fn write_range(
        &self,
        job: &mut Job,
        range: Range<usize>,
        conn: &mut Conn<S>,
        flight: &Flight,
    ) -> Result<(Written, u64), Stop> {
        let schema = job.batch.schema().clone();
        let committed = job.commits.committed();
        // Whether rows were sent, so that one of them may be the cause.
        let mut was_sent = false;
        let error = loop {
            let connected = match conn.take() {
                Some(connection) => Ok(connection),
                None => self.connect().await,
            };
            let mut connection = match connected {
                Ok(connection) => connection,
                Err(error) => break self.not_sent(job, error),
            };
            let prepared = match self.plan(&mut connection.conn, &schema).await {
                Ok(prepared) => prepared,
                Err(error) => break self.not_sent(job, error),
            };
            if job.is_ordered
                && connection.session.is_none()
                && let Err(error) = self.ask_session(&mut connection).await
            {
                break self.not_sent(job, error);
            }
            let number = job.commits.begin();
            match self.attempt(job, range.clone(), &mut connection, &prepared.plan, flight).await {
                Ok(written) => {
                    *conn = Some(connection);
                    return Ok((written, number));
                }
                Err(error)
                    if may_be_of_table(&error)
                        && !prepared.fresh
                        && (!job.progress.has_looked_again || job.is_rejected_next(&range, committed)) =>
                {
                    // The table may have changed since the plan was made: check it again, once, before a row is
                    // rejected.
                    job.progress.has_looked_again = true;
                    self.forget(&[schema.id()]);
                    *conn = Some(connection);
                }
                Err(error) => {
                    if is_usable_after(&error) {
                        *conn = Some(connection);
                    }
                    was_sent = true;
                    break error;
                }
            }
        };
        job.progress.last_error = Some(error.clone());
        let is_doubtful = was_sent && may_be_of_table(&error) && self.isolation != Isolation::AtomicBatch;
        if is_doubtful && !job.has_maybe_written(range.clone()) {
            return Err(Stop::Doubtful(error, committed));
        }
        Err(self.judge(job, range, error, was_sent))
    }

    /// What to do after an error.
    fn judge(&self, job: &mut Job, range: Range<usize>, error: SinkError, was_sent: bool) -> Stop {
        let is_maybe_written = job.has_maybe_written(range.clone());
        match error.class() {
            ErrorClass::Unknown | ErrorClass::Transient | ErrorClass::Resource => {}
            _ if is_maybe_written => return Stop::MaybeWritten(error),
            ErrorClass::Row if was_sent => return Stop::Bad(error),
            ErrorClass::Size | ErrorClass::Duplicate if was_sent => return Stop::Inseparable(error),
            // A batch that must be atomic is not searched: an unknown code rejects it.
            ErrorClass::Internal if was_sent => return Stop::Failed(FailureKind::Rejected, error),
            _ if self.parks => return Stop::Pause(Pause::Park(ParkReason::Table, error)),
            _ => return Stop::Failed(FailureKind::Rejected, error),
        }
        if error.class() == ErrorClass::Unknown {
            job.may_have_written(range, &error);
            if !self.repeats(job) {
                return Stop::Failed(FailureKind::Unknown, error);
            }
        }
        match next_delay(job, error.class(), self.retry_for) {
            Some(delay) => Stop::Pause(Pause::BackOff(delay, error)),
            None => Stop::Failed(FailureKind::Expired, error),
        }
    }

    /// One attempt, timed and reported.
    async fn attempt(
        &self,
        job: &mut Job,
        range: Range<usize>,
        connection: &mut Connection<S::Conn>,
        plan: &S::Plan,
        flight: &Flight,
    ) -> Result<Written, SinkError> {
        job.count_attempt(&range);
        let span = spans::attempt(range.len(), job.progress.attempts);
        let begin = Instant::now();
        let attempt = Attempt::new(self.isolation == Isolation::AtomicBatch);
        job.progress.writing = Some((range.clone(), begin, attempt.clone()));
        if job.is_ordered {
            flight.begins(connection.session.clone().flatten());
        }
        let patience = PATIENCE.saturating_mul(1 << job.progress.dead_links.min(10));
        let rows = job.rows().slice(range.clone());
        let Connection { conn, session, .. } = connection;
        let session = session.as_ref().and_then(Option::as_ref);
        let write = self.sink.write(conn, plan, rows, &attempt);
        let write = watch(&self.sink, session, patience, write);
        let mut is_dead = false;
        let (result, is_timeout) = match timeout(self.statement_timeout, write).instrument(span.clone()).await {
            Ok(Some(result)) => (result, false),
            Ok(None) => {
                is_dead = true;
                let text = "the server is not executing this write and has not replied: the connection is dead";
                let class = if attempt.abandon() { ErrorClass::Transient } else { ErrorClass::Unknown };
                (Err(SinkError::new(class, text)), false)
            }
            Err(_) if attempt.abandon() => {
                let what = "the write, of which nothing was committed,";
                (Err(timed_out(what, self.statement_timeout, ErrorClass::Transient)), true)
            }
            Err(_) => (Err(timed_out("the write", self.statement_timeout, ErrorClass::Unknown)), true),
        };
        spans::attempt_ended(&span, &result);
        let may_be_late = |written: &Written| written.unfinished.iter().any(|(_, e)| e.class() == ErrorClass::Unknown);
        match &result {
            Err(error) if error.class() == ErrorClass::Unknown => flight.abandoned(),
            Ok(written) if may_be_late(written) => flight.abandoned(),
            _ => flight.answered(),
        }
        let is_part = |written: &Written| !written.rejected.is_empty() || !written.unfinished.is_empty();
        if attempt.is_atomic() && range.len() > 1 && result.as_ref().is_ok_and(is_part) {
            // Its other rows are in the database, which must not happen.
            tracing::error!(sink = self.sink.name(), "the sink wrote a part of a batch that must be atomic");
        }
        let executed = BatchExecuted {
            rows: range.len(),
            duration: result.as_ref().ok().and_then(|written| written.took).unwrap_or_else(|| begin.elapsed()),
            error: result.as_ref().err().map(SinkError::class),
        };
        if is_timeout && range.len() > 1 {
            // A batch that was too slow is not retried as a whole: it is written in halves.
            job.limit.timed_out(range.len());
            if self.isolation != Isolation::AtomicBatch {
                job.search().limit_rows(range.len() / 2);
            }
        } else if result.is_ok() {
            job.limit.succeeded(range.len(), executed.duration);
        }
        job.progress.dead_links += u32::from(is_dead);
        job.progress.writing = None;
        job.progress.has_written |= result.is_ok();
        self.pipeline.reporter.call(|reporter| reporter.batch_executed(&job.info(), &executed));
        result
    }

    fn not_sent(&self, job: &Job, error: SinkError) -> SinkError {
        self.pipeline.reporter.call(|reporter| reporter.batch_not_sent(&job.info(), error.class()));
        error
    }

    async fn connect(&self) -> Result<Connection<S::Conn>, SinkError> {
        let begin = Instant::now();
        let connected = match timeout(self.statement_timeout, self.sink.acquire()).await {
            Ok(result) => result.map(|conn| Connection { conn, since: Instant::now(), session: None }),
            Err(_) => Err(timed_out("getting a connection", self.statement_timeout, ErrorClass::Transient)),
        };
        match &connected {
            Ok(_) => self.pipeline.health.connected(),
            Err(error) => self.pipeline.health.not_connected(error, begin),
        }
        connected
    }

    async fn ask_session(&self, connection: &mut Connection<S::Conn>) -> Result<(), SinkError> {
        match timeout(self.statement_timeout, self.sink.session(&mut connection.conn)).await {
            Ok(session) => connection.session = Some(session?),
            Err(_) => {
                let what = "asking for the session name";
                return Err(timed_out(what, self.statement_timeout, ErrorClass::Transient));
            }
        }
        Ok(())
    }

    async fn plan(&self, conn: &mut S::Conn, schema: &Schema) -> Result<Prepared<S::Plan>, SinkError> {
        if let Some(plan) = self.plans.get(schema) {
            return Ok(Prepared { plan, fresh: false });
        }
        let prepared = timeout(self.statement_timeout, self.sink.prepare(conn, schema)).await;
        let plan = match prepared {
            Ok(result) => Arc::new(result?),
            Err(_) => return Err(timed_out("checking the table", self.statement_timeout, ErrorClass::Transient)),
        };
        self.plans.insert(schema, Arc::clone(&plan));
        Ok(Prepared { plan, fresh: true })
    }
}

/// Whether either the table or one row may have caused an error.
fn may_be_of_table(error: &SinkError) -> bool {
    matches!(error.class(), ErrorClass::Schema | ErrorClass::Permission | ErrorClass::Internal)
}

/// Whether the connection can take the next write after this error.
fn is_usable_after(error: &SinkError) -> bool {
    use ErrorClass::{Duplicate, Permission, Row, Schema, Size};
    matches!(error.class(), Row | Size | Duplicate | Schema | Permission)
}

/// Leaves the rest of the round to the next one: it may have later rows with the keys of rows that are already left.
fn postpone_rest(job: &mut Job) {
    for left in job.search().take_rest() {
        job.postpone(left);
    }
}

/// The delay before a batch is retried; `None` when its time is over.
fn next_delay(job: &mut Job, class: ErrorClass, retry_for: Duration) -> Option<Duration> {
    // Rows that waited behind failed rows do not get the whole time again.
    let since = job.progress.fails_since.map_or_else(Instant::now, |since| since.max(job.opened_at));
    let retries = job.progress.retries.get_or_insert_with(|| (RetrySchedule::new(retry_for), since));
    retries.0.next(class, retries.1.elapsed())
}

fn timed_out(what: &str, after: Duration, class: ErrorClass) -> SinkError {
    SinkError::new(class, format!("{what} took longer than statement_timeout = {after:?}"))
}
