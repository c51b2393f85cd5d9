//! Owns the writing of one range of a batch: the attempt, and what its error means for the rows.
//! Must not know which ranges are tried, or in which order.

use std::ops::Range;

use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::config_policies::Isolation;
use crate::error::{ErrorClass, SinkError};
use crate::outcome::outcomes::FailureKind;
use crate::pipeline_events::BatchExecuted;
use crate::write::attempt::Attempt;
use crate::write::ended::{Connection, ParkReason, Pause, Stop, timed_out};
use crate::write::execute::{Conn, Executor, next_delay};
use crate::write::flight::Flight;
use crate::write::job::Job;
use crate::write::sink::{Sink, Written};
use crate::write::spans;
use crate::write::watch::{PATIENCE, dead, known_session, watch};

impl<S: Sink> Executor<S> {
    /// Writes a range of rows in one transaction, or returns what to do instead.
    pub(crate) async fn write_range(
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
        let mut asks = job.asks_for_written(range.clone());
        let error = loop {
            job.progress.tried_at = Some(Instant::now());
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
            let mut found = Vec::new();
            if asks {
                match self.find_written(job, range.clone(), &mut connection.conn, &prepared.plan).await {
                    Ok(written) => found = written,
                    Err(error) if error.is_retryable() => break self.not_sent(job, error),
                    Err(error) => {
                        tracing::debug!(sink = self.sink.name(), %error, "rows after a lost reply cannot be compared");
                        asks = false;
                        if is_usable_after(&error) {
                            *conn = Some(connection);
                        }
                        continue;
                    }
                }
            }
            let number = job.commits.begin();
            match self.attempt(job, range.clone(), &mut connection, &prepared.plan, flight).await {
                Ok(written) if self.is_refused_whole(job, &range, &written) => {
                    *conn = Some(connection);
                    was_sent = true;
                    break written.rejected[0].1.clone();
                }
                Ok(mut written) => {
                    *conn = Some(connection);
                    written.ignored.retain(|row| found.binary_search(row).is_err());
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
                    self.plans.forget(&[schema.id()]);
                    if is_usable_after(&error) {
                        *conn = Some(connection);
                    }
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
        let may_be_of_table =
            may_be_of_table(&error) || (error.class() == ErrorClass::Row && self.is_past_budget(job, 1));
        let is_doubtful = was_sent && may_be_of_table && self.isolation != Isolation::AtomicBatch;
        if is_doubtful && !job.has_maybe_written(range.clone()) {
            return Err(Stop::Doubtful(error, committed));
        }
        Err(self.judge(job, range, error, was_sent.then_some(committed)))
    }

    /// Whether a sink that reports bad rows one by one has refused all of them, and the table may be at fault.
    fn is_refused_whole(&self, job: &mut Job, range: &Range<usize>, written: &Written) -> bool {
        let is_whole = written.rejected.len() == range.len() && written.is_sound(range.len());
        let are_of_rows = || written.rejected.iter().all(|(_, error)| error.class() == ErrorClass::Row);
        is_whole && are_of_rows() && !job.has_maybe_written(range.clone()) && self.is_past_budget(job, range.len())
    }

    /// The rows of a range whose reply was lost and that the table has as they are.
    async fn find_written(
        &self,
        job: &mut Job,
        range: Range<usize>,
        conn: &mut S::Conn,
        plan: &S::Plan,
    ) -> Result<Vec<u32>, SinkError> {
        let (maybe, rows) = job.maybe_written_rows(range);
        let find = self.sink.find_written(conn, plan, rows.rows());
        let Ok(found) = timeout(self.statement_timeout, find).await else {
            return Err(timed_out(
                "the comparison with the stored rows",
                self.statement_timeout,
                ErrorClass::Transient,
            ));
        };
        Ok(found?.into_iter().filter_map(|row| maybe.get(row as usize).copied()).collect())
    }

    /// What to do after an error. `sent_after`: the last commit before the rows were sent; `None` if they were not sent.
    fn judge(&self, job: &mut Job, range: Range<usize>, error: SinkError, sent_after: Option<u64>) -> Stop {
        let was_sent = sent_after.is_some();
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
            job.may_have_written(range.clone(), &error);
            if !self.repeats(job) {
                return Stop::Failed(FailureKind::Unknown, error);
            }
        }
        let may_be_of_row = sent_after.is_some_and(|committed| job.note_repeated(&error, committed));
        match next_delay(job, error.class()) {
            None if may_be_of_row && !is_maybe_written && self.may_search(job, &range, sent_after) => {
                Stop::Repeated(error)
            }
            Some(delay) => Stop::Pause(Pause::BackOff(delay, error)),
            None => Stop::Failed(FailureKind::Expired, error),
        }
    }

    /// Whether rows whose time is over are searched for those that cause the error: several rows are written in halves,
    /// and a single one ends without the rows behind it.
    fn may_search(&self, job: &mut Job, range: &Range<usize>, sent_after: Option<u64>) -> bool {
        let retry_for = job.settings().retried_at_most();
        let rows = if range.len() == 1 { job.rows_behind(range.start) } else { range.len() };
        let (Some(committed), Some(repeated)) = (sent_after, &mut job.progress.repeated) else { return false };
        self.isolation != Isolation::AtomicBatch
            // Nothing more is sent because of a row that stands for itself only.
            && (rows > 1 || !repeated.is_searching())
            && repeated.may_search(rows, committed, Instant::now(), retry_for)
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
        let session = session.clone().flatten().or_else(|| known_session(&self.sink, conn, rows));
        let write = self.sink.write(conn, plan, rows, &attempt);
        let write = watch(&self.sink, session.as_ref(), patience, write);
        let mut is_dead = false;
        let (result, is_timeout) = match timeout(self.statement_timeout, write).instrument(span.clone()).await {
            Ok(Some(result)) => (result, false),
            Ok(None) => {
                is_dead = true;
                (Err(dead(&attempt)), false)
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
        // A sink that finished none of the rows has not written.
        job.progress.has_written |= result.as_ref().is_ok_and(|written| written.unfinished.len() < range.len());
        self.pipeline.reporter.call(|reporter| reporter.batch_executed(&job.info(), &executed));
        result
    }

    fn not_sent(&self, job: &Job, error: SinkError) -> SinkError {
        self.pipeline.reporter.call(|reporter| reporter.batch_not_sent(&job.info(), error.class()));
        error
    }
}

/// Whether either the table or one row may have caused an error.
pub(super) fn may_be_of_table(error: &SinkError) -> bool {
    matches!(error.class(), ErrorClass::Schema | ErrorClass::Permission | ErrorClass::Internal)
}

/// Whether the connection can take the next write after this error. A code that the driver does not know, or a defect of it,
/// may leave anything on the connection: it is given back.
pub(super) fn is_usable_after(error: &SinkError) -> bool {
    use ErrorClass::{Duplicate, Permission, Row, Schema, Size};
    matches!(error.class(), Row | Size | Duplicate | Schema | Permission)
}
