//! Owns the writing of one batch: its rounds, and the verdict on each of its rows.
//! Must not know how batches are filled, in which order they come, or how long they wait.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::Instrument;

use crate::config::{FAR, PipelineConfig};
use crate::config_policies::{BeyondBudget, Coalesce, Delivery, Isolation, KeptBy};
use crate::error::{ErrorClass, SinkError};
use crate::model::keys::Coalescing;
use crate::model::schema::Schema;
use crate::outcome::outcomes::FailureKind;
use crate::pipeline_events::{BatchStarted, PoolState};
use crate::write::context::PipelineContext;
use crate::write::doubt_search::Overtaken;
use crate::write::ended::{Connection, Ended, ParkReason, Pause, Stop};
use crate::write::flight::Flight;
use crate::write::held::Held;
use crate::write::isolate::{Next, Verdict};
use crate::write::job::{Job, Progress};
use crate::write::plans::Plans;
use crate::write::retry::RetrySchedule;
use crate::write::sink::{Sink, Written};
use crate::write::spans;

/// Writes batches to one sink.
pub(crate) struct Executor<S: Sink> {
    pub(super) sink: S,
    pub(super) pipeline: Arc<PipelineContext>,
    late_write_limit: Option<Duration>,
    pub(super) statement_timeout: Duration,
    pub(super) isolation: Isolation,
    pub(super) coalesces: bool,
    /// Whether the sink asks for rows that are sorted by key.
    pub(super) sorts: bool,
    delivery: Delivery,
    pub(super) parks: bool,
    rows_kept_by: KeptBy,
    pub(super) plans: Plans<S::Plan>,
    /// Connections between steps of positions.
    pub(super) steps: Held<S::Conn>,
}

/// How long batches reuse a connection. Pools check and renew the connections that are returned to them.
const HOLD: Duration = Duration::from_secs(1);

/// The bounds of the time that a batch waits for other batches before its table is parked.
const MIN_DOUBT_DELAY: Duration = Duration::from_millis(50);
const MAX_DOUBT_DELAY: Duration = Duration::from_secs(1);

/// A connection; `None` if it must be acquired.
pub(crate) type Conn<S> = Option<Connection<<S as Sink>::Conn>>;

impl<S: Sink> Executor<S> {
    pub(crate) fn new(sink: S, pipeline: Arc<PipelineContext>, config: &PipelineConfig) -> Self {
        Self {
            sorts: sink.sorts_by_key(),
            late_write_limit: sink.late_write_limit().map(|limit| limit.min(FAR)),
            sink,
            pipeline,
            statement_timeout: config.statement_timeout,
            isolation: config.isolation,
            coalesces: config.coalesce == Coalesce::LastPerKey,
            delivery: config.delivery,
            parks: !config.park_for.is_zero(),
            rows_kept_by: config.rows_kept_by,
            plans: Plans::default(),
            steps: Held::default(),
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

    /// Whether a source has the rows still, so that none is rejected because of its table.
    pub(crate) fn has_source(&self) -> bool {
        self.rows_kept_by == KeptBy::Source
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
        let is_in_order = job.settings().is_in_order();
        job.resume_in_doubt(is_in_order);
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
        let budget = self.isolation_budget(job);
        let sorts = self.sorts && !job.settings().is_in_order();
        let coalescing = self.coalescing(job.batch.schema(), job.settings().is_in_order());
        job.begin(coalescing, sorts, budget, max_rows);
        if job.progress.attempts == 0 {
            let started = BatchStarted { queue_wait, assemble: begin.elapsed() };
            self.pipeline.reporter.call(|reporter| reporter.batch_started(&job.info(), &started));
        }
    }

    /// How rows of one key become one. If all rows of the table keep their order, each is written: a row that stands for an earlier
    /// one would move it behind the rows between them, which may refer to it, or have its key in another form.
    pub(super) fn coalescing(&self, schema: &Schema, is_in_order: bool) -> Coalescing {
        if self.coalesces && !is_in_order { Coalescing::of(schema) } else { Coalescing::Off }
    }

    fn isolation_budget(&self, job: &Job) -> usize {
        self.isolation.budget(job.batch.len(), job.settings().flush_size).unwrap_or(0)
    }

    /// Whether the table may be at fault where so many rows are refused with errors of a row: with those that were rejected since
    /// the last commit of the group, they are more than the search for bad rows may try. The bound is not exact: n
    /// lanes that reject rows at the same time may exceed it by n - 1. Only for rows of a source: they wait for a person rather
    /// than be rejected one after the other.
    pub(super) fn is_past_budget(&self, job: &mut Job, rows: usize) -> bool {
        let Isolation::Bisect { max_statements, .. } = self.isolation else { return false };
        let refused = job.commits.rejected().saturating_add(rows as u64);
        job.progress.is_past_budget |= self.has_source() && refused > max_statements as u64;
        job.progress.is_past_budget
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
                Next::Undecided if job.is_searched_for_repeated() => {
                    let error = job.progress.last_error.clone().expect("only an error makes tries count");
                    job.progress.expired = Some(error.clone());
                    expire_rest(job, &error);
                }
                Next::Undecided => {
                    let Progress { refusal, last_error, .. } = &job.progress;
                    let error = refusal.as_ref().or(last_error.as_ref()).expect("only a refusal makes tries count");
                    let error = error.clone();
                    if matches!(self.isolation, Isolation::Bisect { beyond: BeyondBudget::Park, .. }) && self.parks {
                        let budget = self.isolation_budget(job);
                        job.search().renew(budget);
                        job.progress.is_past_budget |= self.has_source();
                        return Some(Pause::Park(ParkReason::Search, error));
                    }
                    let error = error.not_looked_at_alone();
                    job.reject_waiting();
                    for undecided in job.search().take_rest() {
                        job.failed(undecided, FailureKind::Rejected, Some(&error));
                    }
                }
                Next::AllRefused if job.begin_with_waiting() => {}
                Next::AllRefused => {
                    let error = job.progress.refusal.clone().expect("the rows were refused");
                    if self.parks && job.wait_in_doubt() {
                        return Some(Pause::Wait(doubt_delay(job), error));
                    }
                    if self.parks {
                        return Some(Pause::Park(ParkReason::Rows, error));
                    }
                    job.reject_rest_of_round();
                }
                Next::Try(range) => match self.write_range(job, range.clone(), conn, flight).await {
                    Ok((written, number)) => {
                        job.progress.references.committed(range.len());
                        job.written(range.clone(), &written, self.repeats(job));
                        job.search().judge(range.clone(), Verdict::Ended);
                        job.committed(&range, &written, number, self.overtaken(job));
                        if let Some(pause) = self.back_off_unfinished(job, &written) {
                            return Some(pause);
                        }
                    }
                    Err(Stop::Bad(error)) => self.refused(job, range, Verdict::Bad, &error),
                    Err(Stop::Inseparable(error)) => self.refused(job, range, Verdict::Inseparable, &error),
                    Err(Stop::Doubtful(error, committed)) => {
                        if job.doubt(range.clone(), committed, &error, job.settings().is_in_order()) {
                            self.refused(job, range, Verdict::Bad, &error);
                        }
                    }
                    Err(Stop::MaybeWritten(error)) => {
                        job.search().judge(range.clone(), Verdict::Ended);
                        job.maybe_committed(&range, self.overtaken(job));
                        if job.fail_maybe_written(range, &error) {
                            // It may have later rows with the keys of rows that are already left.
                            job.postpone_rest();
                        }
                    }
                    Err(Stop::Repeated(error)) if range.len() == 1 => {
                        // The server refused this row alone: the lane can be written.
                        job.expire_row(range.start, &error);
                        job.search().judge(range, Verdict::Ended);
                    }
                    Err(Stop::Repeated(error)) => self.refused(job, range, Verdict::Bad, &error),
                    Err(Stop::Failed(kind, error)) => {
                        let is_expired = kind == FailureKind::Expired;
                        let is_searched = is_expired && job.is_searched_for_repeated();
                        // As above, but the rows behind it have no turn.
                        let is_of_row = is_searched && range.len() == 1 && error.code().is_some();
                        if is_expired && !is_of_row {
                            job.progress.expired = Some(error.clone());
                        }
                        if job.has_maybe_written(range.clone()) {
                            job.maybe_committed(&range, self.overtaken(job));
                        }
                        let of_another = (is_searched && range.len() > 1).then(|| error.not_tried_in_time());
                        job.failed(range.clone(), kind, Some(of_another.as_ref().unwrap_or(&error)));
                        job.search().judge(range, Verdict::Ended);
                        if is_searched && !is_of_row {
                            expire_rest(job, &error);
                        }
                    }
                    Err(Stop::Pause(pause)) => {
                        job.search().put_back(range);
                        return Some(pause);
                    }
                },
            }
        }
    }

    /// Which rows that were refused before a commit are rejected by it. The table may have been repaired in between, so a source keeps
    /// such rows where it does no harm that they are late: they overwrite no later row.
    fn overtaken(&self, job: &Job) -> Overtaken {
        let schema = job.batch.schema();
        let overwrites = !schema.assignments().is_empty() && schema.version_column().is_none();
        match job.settings().is_in_order() {
            _ if self.has_source() && !overwrites => Overtaken::None,
            true => Overtaken::All,
            false => Overtaken::OfKey,
        }
    }

    /// The backoff before the next round, if the sink left rows without an outcome and there is time for it.
    fn back_off_unfinished(&self, job: &mut Job, written: &Written) -> Option<Pause> {
        if !job.has_unfinished() {
            return None;
        }
        // It may have later rows with the keys of rows that are already left.
        job.postpone_rest();
        let errors = || written.unfinished.iter().map(|(_, error)| error);
        // Other errors are those of rejected rows.
        let mut transient = errors().filter(|error| error.is_retryable() || error.class() == ErrorClass::Unknown);
        let error = errors().find(|error| error.class() == ErrorClass::Resource).or(transient.next())?;
        job.progress.last_error = Some(error.clone());
        match next_delay(job, error.class()) {
            Some(delay) => Some(Pause::BackOff(delay, error.clone())),
            None => {
                job.progress.expired = Some(error.clone());
                job.fail_unfinished(FailureKind::Expired);
                None
            }
        }
    }

    /// Whether rows that may be in the database may be sent again.
    pub(crate) fn repeats(&self, job: &Job) -> bool {
        let schema = job.batch.schema();
        match self.delivery {
            Delivery::NeverRepeat => false,
            Delivery::AtMostOnce => self.sink.is_repeatable(schema),
            Delivery::AtLeastOnce => self.sink.is_repeatable(schema) || !schema.counts_repeats(),
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
            if error.is_of_foreign_key() && !job.settings().is_in_order() && job.wait_for_others(range.clone(), error) {
                job.search().judge(range, Verdict::Ended);
                return;
            }
        }
        let was_isolating = job.search().is_isolating();
        if job.search().judge(range.clone(), verdict) {
            job.reject_row(range.start, error);
        } else if job.search().is_isolating() && !was_isolating {
            self.pipeline.reporter.call(|reporter| reporter.batch_isolated(&job.info()));
        }
    }
}

/// How long a batch waits for other batches before its table is parked for an error that one row may have caused.
fn doubt_delay(job: &Job) -> Duration {
    job.settings().flush_interval.saturating_mul(2).clamp(MIN_DOUBT_DELAY, MAX_DOUBT_DELAY)
}

/// Ends the rest of a round that was searched for the rows of a transient error.
fn expire_rest(job: &mut Job, error: &SinkError) {
    let error = error.not_tried_in_time();
    for rest in job.search().take_rest() {
        job.failed(rest, FailureKind::Expired, Some(&error));
    }
}

/// The delay before a batch is retried; `None` when its time is over.
pub(crate) fn next_delay(job: &mut Job, class: ErrorClass) -> Option<Duration> {
    let retry_for = job.settings().retry_for;
    // Rows that waited behind failed rows do not get the whole time again.
    let since = job.progress.fails_since.map_or_else(Instant::now, |since| since.max(job.opened_at));
    let retries = job.progress.retries.get_or_insert_with(|| (RetrySchedule::new(retry_for), since));
    let delay = retries.0.next(class, retries.1.elapsed())?;
    let Some(expires_at) = job.expires_at else { return Some(delay) };
    // No row is given up without a try that began when it was too old.
    let had_last_try = job.progress.tried_at.is_some_and(|tried_at| expires_at <= tried_at);
    (!had_last_try).then(|| delay.min(expires_at.saturating_duration_since(Instant::now())))
}
