//! Owns the writing of one batch: connection, plan, attempts, and the verdict over each of its rows.
//! Must not know how batches are filled or in which order they come.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::dispatch::{Work, Writer};
use crate::error::{ErrorClass, SinkError};
use crate::isolate::{Bisection, Verdict};
use crate::job::Job;
use crate::ledger::Ledger;
use crate::receipt::FailureKind;
use crate::reporter::{BatchExecuted, BatchStarted};
use crate::retry::RetrySchedule;
use crate::schema::{Schema, SchemaId};
use crate::sink::{Limits, Sink, Written};

/// While draining, retries come at least this fast.
const DRAINING_DELAY: Duration = Duration::from_millis(20);

/// What the handle needs of a sink, without its type.
#[async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    fn limits(&self, schema: &Schema) -> Limits;
    async fn prepare(&self, schema: &Schema) -> Result<(), SinkError>;
}

/// Plans by schema.
type Plans<P> = HashMap<SchemaId, (Schema, Arc<P>)>;

/// Writes batches to one sink.
pub(crate) struct Executor<S: Sink> {
    pub(crate) sink: S,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) retry_for: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) isolation_budget: usize,
    /// With the schema, because a schema that is gone gives its id to another one.
    pub(crate) plans: RwLock<Plans<S::Plan>>,
}

/// Why rows could not be written, after every retry that made sense.
struct Refused {
    /// `None`: at least one of the rows is at fault, so look closer.
    kind: Option<FailureKind>,
    error: SinkError,
}

/// A plan, and whether it was made just now.
struct Prepared<P> {
    plan: Arc<P>,
    fresh: bool,
}

impl<S: Sink> Writer for Executor<S> {
    async fn write(self: Arc<Self>, work: Work) {
        // The connection comes first: a due batch keeps filling while it waits for one.
        let mut conn = Some(self.acquire().await);
        let job = match work {
            Work::Sealed(job) => Some(*job),
            Work::Due { table, lane, generation } => table.take_open(lane, generation, &self.ledger),
        };
        if let Some(mut job) = job {
            self.run(&mut job, &mut conn).await;
        }
    }
}

#[async_trait]
impl<S: Sink> Engine for Executor<S> {
    fn limits(&self, schema: &Schema) -> Limits {
        self.sink.limits(schema)
    }

    async fn prepare(&self, schema: &Schema) -> Result<(), SinkError> {
        let mut conn = self.acquire().await?;
        self.plan(&mut conn, schema).await.map(drop)
    }
}

impl<S: Sink> Executor<S> {
    /// Brings every row of the job to its outcome. The rows of a job that is dropped on the way have
    /// theirs from its `Drop`.
    async fn run(&self, job: &mut Job, conn: &mut Option<Result<S::Conn, SinkError>>) {
        let queue_wait = job.opened_at.elapsed();
        let started = BatchStarted { queue_wait, assemble: Duration::ZERO };
        self.ledger.reporter.call(|reporter| reporter.batch_started(&job.info(), &started));
        let all = 0..job.batch.len();
        match self.write_range(job, all.clone(), conn).await {
            Ok(written) => job.written(all, &written),
            Err(Refused { kind: None, error }) if all.len() > 1 => self.isolate(job, error, conn).await,
            Err(Refused { kind, error }) => self.give_up(job, all, kind.unwrap_or(FailureKind::Rejected), &error),
        }
        // Others may use the connection while the outcomes are told.
        drop(conn.take());
    }

    /// Finds the rows that make the database refuse the batch, and writes the others.
    async fn isolate(&self, job: &mut Job, refusal: SinkError, conn: &mut Option<Result<S::Conn, SinkError>>) {
        self.ledger.reporter.call(|reporter| reporter.batch_isolated(&job.info()));
        let mut search = Bisection::of_refused(0..job.batch.len(), self.isolation_budget);
        while let Some(range) = search.next() {
            match self.write_range(job, range.clone(), conn).await {
                Ok(written) => {
                    job.written(range.clone(), &written);
                    search.judge(range, Verdict::Good);
                }
                Err(Refused { kind: None, error }) => {
                    if search.judge(range.clone(), Verdict::Bad) {
                        self.give_up(job, range, FailureKind::Rejected, &error);
                    }
                }
                Err(Refused { kind: Some(kind), error }) => self.give_up(job, range, kind, &error),
            }
        }
        for undecided in search.rest() {
            self.give_up(job, undecided, FailureKind::Rejected, &refusal);
        }
    }

    fn give_up(&self, job: &mut Job, range: Range<usize>, kind: FailureKind, error: &SinkError) {
        tracing::error!(
            sink = self.sink.name(),
            table = job.batch.schema().table_display(),
            rows = range.len(),
            outcome = ?kind,
            %error,
            "rows were not written"
        );
        job.failed(range, kind, Some(error));
    }

    /// Writes a range of rows in one transaction, trying again for as long as that makes sense.
    async fn write_range(
        &self,
        job: &mut Job,
        range: Range<usize>,
        conn: &mut Option<Result<S::Conn, SinkError>>,
    ) -> Result<Written, Refused> {
        job.progress.maybe_committed = false;
        let schema = job.batch.schema().clone();
        loop {
            let acquired = match conn.take() {
                Some(acquired) => acquired,
                None => self.acquire().await,
            };
            let error = match acquired {
                Err(error) => self.not_sent(job, error),
                Ok(mut connection) => match self.plan(&mut connection, &schema).await {
                    Err(error) => self.not_sent(job, error),
                    Ok(prepared) => match self.attempt(job, range.clone(), &mut connection, &prepared.plan).await {
                        Ok(written) => {
                            *conn = Some(Ok(connection));
                            return Ok(written);
                        }
                        Err(error) if error.class() == ErrorClass::Schema && !prepared.fresh => {
                            // The table may have changed since the plan was made: look again, once.
                            self.forget_plan(schema.id());
                            *conn = Some(Ok(connection));
                            continue;
                        }
                        Err(error) => {
                            if matches!(error.class(), ErrorClass::Row | ErrorClass::Size) {
                                *conn = Some(Ok(connection));
                            }
                            error
                        }
                    },
                },
            };
            job.progress.last_error = Some(error.clone());
            let refused = |kind, error| Err(Refused { kind, error });
            match error.class() {
                // All of these rows may be there already. They are not looked at more closely: writing
                // only some of them again could put an older version of a key over a newer one.
                _ if job.progress.maybe_committed && !error.is_retryable() && error.class() != ErrorClass::Unknown => {
                    return refused(Some(FailureKind::Unknown), error);
                }
                ErrorClass::Row | ErrorClass::Size => return refused(None, error),
                ErrorClass::Schema | ErrorClass::Permission | ErrorClass::Internal => {
                    return refused(Some(FailureKind::Rejected), error);
                }
                ErrorClass::Unknown => {
                    job.progress.maybe_committed = true;
                    if !self.sink.is_repeatable(&schema) {
                        return refused(Some(FailureKind::Unknown), error);
                    }
                }
                ErrorClass::Transient | ErrorClass::Resource => {}
            }
            let retries =
                job.progress.retries.get_or_insert_with(|| (RetrySchedule::new(self.retry_for), Instant::now()));
            let Some(delay) = retries.0.next(error.class(), retries.1.elapsed()) else {
                let kind = if job.progress.maybe_committed { FailureKind::Unknown } else { FailureKind::Expired };
                return refused(Some(kind), error);
            };
            tracing::warn!(sink = self.sink.name(), table = schema.table_display(), %error, ?delay, "trying again");
            self.ledger.reporter.call(|reporter| reporter.batch_retried(&job.info(), error.class()));
            self.pause(delay).await;
        }
    }

    /// One attempt, timed and reported.
    async fn attempt(
        &self,
        job: &mut Job,
        range: Range<usize>,
        conn: &mut S::Conn,
        plan: &S::Plan,
    ) -> Result<Written, SinkError> {
        job.progress.attempts += 1;
        let begin = Instant::now();
        job.progress.writing = Some((range.clone(), begin));
        let rows = job.rows().slice(range.clone());
        let result = match timeout(self.statement_timeout, self.sink.write(conn, plan, rows)).await {
            Ok(result) => result,
            Err(_) => Err(timed_out("the write", self.statement_timeout, ErrorClass::Unknown)),
        };
        let executed = BatchExecuted {
            rows: range.len(),
            duration: result.as_ref().ok().and_then(|written| written.took).unwrap_or_else(|| begin.elapsed()),
            error: result.as_ref().err().map(SinkError::class),
        };
        job.progress.writing = None;
        self.ledger.reporter.call(|reporter| reporter.batch_executed(&job.info(), &executed));
        result
    }

    fn not_sent(&self, job: &Job, error: SinkError) -> SinkError {
        self.ledger.reporter.call(|reporter| reporter.batch_not_sent(&job.info(), error.class()));
        error
    }

    async fn acquire(&self) -> Result<S::Conn, SinkError> {
        match timeout(self.statement_timeout, self.sink.acquire()).await {
            Ok(result) => result,
            Err(_) => Err(timed_out("getting a connection", self.statement_timeout, ErrorClass::Transient)),
        }
    }

    async fn plan(&self, conn: &mut S::Conn, schema: &Schema) -> Result<Prepared<S::Plan>, SinkError> {
        let known = self
            .plans
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&schema.id())
            .map(|(_, plan)| Arc::clone(plan));
        if let Some(plan) = known {
            return Ok(Prepared { plan, fresh: false });
        }
        let prepared = timeout(self.statement_timeout, self.sink.prepare(conn, schema)).await;
        let plan = match prepared {
            Ok(result) => Arc::new(result?),
            Err(_) => return Err(timed_out("looking at the table", self.statement_timeout, ErrorClass::Transient)),
        };
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        plans.insert(schema.id(), (schema.clone(), Arc::clone(&plan)));
        Ok(Prepared { plan, fresh: true })
    }

    fn forget_plan(&self, id: SchemaId) {
        self.plans.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Sleeps, but not for long once the pipeline is draining.
    async fn pause(&self, delay: Duration) {
        let mut draining = self.draining.clone();
        if *draining.borrow() {
            return sleep(delay.min(DRAINING_DELAY)).await;
        }
        tokio::select! {
            () = sleep(delay) => {}
            // The sender lives as long as the dispatcher, which owns this task.
            _ = draining.wait_for(|draining| *draining) => {}
        }
    }
}

fn timed_out(what: &str, after: Duration, class: ErrorClass) -> SinkError {
    SinkError::new(class, format!("{what} took longer than statement_timeout = {after:?}"))
}
