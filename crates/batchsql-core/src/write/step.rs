//! Owns one try of the rows of a step: which of them are sent, and what became of each.
//! Must not know where the rows come from, or what follows an error.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::error::{ErrorClass, SinkError};
use crate::model::batch::{Rows, SharedRows};
use crate::model::keys::{self, Arranged, Coalescing};
use crate::model::merge;
use crate::outcome::outcomes::{OutcomeCounts, OutcomeKind};
use crate::pipeline_events::{BatchExecuted, BatchInfo};
use crate::write::attempt::Attempt;
use crate::write::ended::timed_out;
use crate::write::execute::Executor;
use crate::write::held::Taken;
use crate::write::position::{Claim, Claimed, PartitionKey, Position, Removed, Step, StoredPosition};
use crate::write::range::{is_usable_after, may_be_of_table};
use crate::write::sink::{Sink, Written};
use crate::write::watch::{PATIENCE, dead, known_session, watch};

/// Why a step did not happen.
#[derive(Debug, Clone)]
pub(crate) struct NoStep {
    pub(crate) error: SinkError,
    /// Whether rows were sent, so that one of them may be the cause.
    pub(crate) was_sent: bool,
}

impl<S: Sink> Executor<S> {
    /// Writes the rows of a step in one transaction with its position. `is_in_order`: all rows of the table keep their order.
    pub(crate) async fn write_step(
        &self,
        rows: Rows<'_>,
        step: &Step,
        is_in_order: bool,
    ) -> Result<OutcomeCounts, NoStep> {
        let coalescing = self.coalescing(rows.schema(), is_in_order);
        let arranged = keys::arrange(rows, coalescing, self.sorts && !is_in_order);
        let sent = arranged.as_ref().map(|arranged| chosen(rows, arranged));
        let sent = sent.as_ref().map_or(rows, SharedRows::rows);
        let mut is_checked = false;
        let mut written = loop {
            let tried = self.try_step(sent, step, &mut is_checked).await;
            match tried {
                Ok(Some(written)) => break written,
                Ok(None) => {}
                Err(no) => return Err(no),
            }
        };
        if !written.is_sound(sent.len()) || !written.rejected.is_empty() || !written.unfinished.is_empty() {
            let text = "the sink reported outcomes that a transaction with a position cannot have";
            return Err(NoStep { error: SinkError::new(ErrorClass::Unknown, text), was_sent: true });
        }
        written.ignored.sort_unstable();
        Ok(outcomes(rows.len(), arranged.as_ref(), &written))
    }

    /// `Ok(None)`: once more, with the table as it is now.
    async fn try_step(&self, rows: Rows<'_>, step: &Step, is_checked: &mut bool) -> Result<Option<Written>, NoStep> {
        let info =
            BatchInfo { table: rows.schema().table_display(), context: None, rows: rows.len(), bytes: rows.bytes() };
        let not_sent = |error: SinkError| {
            self.pipeline.reporter.call(|reporter| reporter.batch_not_sent(&info, error.class()));
            NoStep { error, was_sent: false }
        };
        let mut held = self.held_or_new().await.map_err(not_sent)?;
        let prepared = self.plan(&mut held.conn, rows.schema()).await.map_err(not_sent)?;
        let attempt = Attempt::of_step(*step);
        let begin = Instant::now();
        let session = known_session(&self.sink, &held.conn, rows);
        let write = without_panic(self.sink.write(&mut held.conn, &prepared.plan, rows, &attempt));
        let write = watch(&self.sink, session.as_ref(), PATIENCE, write);
        let result = match timeout(self.statement_timeout, write).await {
            Ok(Some(Some(result))) => result,
            Ok(Some(None)) => Err(SinkError::new(ErrorClass::Unknown, "the sink panicked while it wrote rows")),
            Ok(None) => Err(dead(&attempt)),
            Err(_) => {
                let class = if attempt.abandon() { ErrorClass::Transient } else { ErrorClass::Unknown };
                Err(timed_out("the write", self.statement_timeout, class))
            }
        };
        let executed = BatchExecuted {
            rows: rows.len(),
            duration: result.as_ref().ok().and_then(|written| written.took).unwrap_or_else(|| begin.elapsed()),
            error: result.as_ref().err().map(SinkError::class),
        };
        self.pipeline.reporter.call(|reporter| reporter.batch_executed(&info, &executed));
        match result {
            Ok(written) => {
                self.steps.put(held);
                Ok(Some(written))
            }
            Err(error) => {
                if is_usable_after(&error) {
                    self.steps.put(held);
                }
                if may_be_of_table(&error) && !prepared.fresh && !std::mem::replace(is_checked, true) {
                    self.plans.forget(&[rows.schema().id()]);
                    return Ok(None);
                }
                Err(NoStep { error, was_sent: true })
            }
        }
    }

    /// Moves a position without rows.
    pub(crate) async fn advance_step(&self, step: &Step) -> Result<(), SinkError> {
        let mut held = self.held_or_new().await?;
        let moved =
            self.in_time("moving a position", ErrorClass::Unknown, self.sink.advance(&mut held.conn, step)).await;
        self.put_if(&moved, held);
        moved
    }

    /// Claims a partition.
    pub(crate) async fn claim_partition(&self, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        let mut held = self.held_or_new().await?;
        let claim = self.sink.claim(&mut held.conn, key, claim);
        let claimed = self.in_time("claiming a partition", ErrorClass::Transient, claim).await;
        self.put_if(&claimed, held);
        claimed
    }

    /// Reads all positions of a source.
    pub(crate) async fn read_positions(&self, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        let mut held = self.held_or_new().await?;
        let read = self.sink.positions(&mut held.conn, source);
        let positions = self.in_time("reading positions", ErrorClass::Transient, read).await;
        self.put_if(&positions, held);
        positions
    }

    /// Renews the leases of an owner.
    pub(crate) async fn renew_leases(
        &self,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        let mut held = self.held_or_new().await?;
        let renew = self.sink.renew(&mut held.conn, source, owner, lease);
        let renewed = self.in_time("renewing leases", ErrorClass::Transient, renew).await;
        self.put_if(&renewed, held);
        renewed
    }

    /// Gives a partition away.
    pub(crate) async fn release_lease(&self, position: &Position) -> Result<bool, SinkError> {
        let mut held = self.held_or_new().await?;
        let release = self.sink.release(&mut held.conn, position);
        let released = self.in_time("releasing a partition", ErrorClass::Transient, release).await;
        self.put_if(&released, held);
        released
    }

    /// Removes the positions of an incarnation.
    pub(crate) async fn remove_incarnation(
        &self,
        source: &str,
        incarnation: &str,
        ended: &[String],
    ) -> Result<Removed, SinkError> {
        let mut held = self.held_or_new().await?;
        let remove = self.sink.remove_positions(&mut held.conn, source, incarnation, ended);
        let removed = self.in_time("removing positions", ErrorClass::Transient, remove).await;
        self.put_if(&removed, held);
        removed
    }

    /// `late`: what it means if the database does not answer in time.
    async fn in_time<T>(
        &self,
        what: &str,
        late: ErrorClass,
        asked: impl Future<Output = Result<T, SinkError>>,
    ) -> Result<T, SinkError> {
        match timeout(self.statement_timeout, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(timed_out(what, self.statement_timeout, late)),
        }
    }

    fn put_if<T>(&self, answer: &Result<T, SinkError>, held: Taken<S::Conn>) {
        if answer.is_ok() {
            self.steps.put(held);
        }
    }

    /// Gives back connections that no step has used for a while. True if some are left.
    pub(crate) fn sweep_steps(&self) -> bool {
        self.steps.sweep()
    }

    /// No connection is kept from now on.
    pub(crate) fn close_steps(&self) {
        self.steps.close();
    }

    async fn held_or_new(&self) -> Result<Taken<S::Conn>, SinkError> {
        match self.steps.take() {
            Some(held) => Ok(held),
            None => self.connect().await.map(|connection| Taken { acquired: connection.since, conn: connection.conn }),
        }
    }
}

/// `None` if it panics.
async fn without_panic<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// The rows that are sent.
fn chosen(rows: Rows<'_>, arranged: &Arranged) -> SharedRows {
    if arranged.coalescing != Coalescing::Merged || arranged.previous.is_empty() {
        return rows.gather(&arranged.rows);
    }
    // Merging counts rows from the start of their batch.
    let all: Vec<u32> = (0_u32..).take(rows.len()).collect();
    let whole = rows.gather(&all);
    let merged =
        merge::gather(whole.rows().batch(), &arranged.rows, |row| keys::chain(&arranged.previous, row).collect());
    SharedRows::all(std::sync::Arc::new(merged))
}

/// What became of all rows, if these of the arranged ones were ignored.
fn outcomes(rows: usize, arranged: Option<&Arranged>, written: &Written) -> OutcomeCounts {
    let mut counts = OutcomeCounts::default();
    let Some(arranged) = arranged.filter(|arranged| !arranged.previous.is_empty()) else {
        counts.add(OutcomeKind::Ignored, written.ignored.len() as u64);
        counts.add(OutcomeKind::Written, (rows - written.ignored.len()) as u64);
        return counts;
    };
    let mut ignored = written.ignored.iter().peekable();
    for (place, row) in (0_u32..).zip(&arranged.rows) {
        let chain = keys::chain(&arranged.previous, *row).count() as u64;
        let (first, behind) = match ignored.next_if(|ignored| **ignored == place) {
            Some(_) => (OutcomeKind::Ignored, OutcomeKind::Ignored),
            None if arranged.coalescing == Coalescing::Merged => (OutcomeKind::Written, OutcomeKind::Written),
            None => (OutcomeKind::Written, OutcomeKind::Superseded),
        };
        counts.add(first, 1);
        counts.add(behind, chain - 1);
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::conflict::Conflict;
    use crate::model::expr::Expr;
    use crate::model::schema::Schema;
    use crate::model::value::{ColumnType, ValueRef};
    use crate::row::row_buffer::RowBuffer;
    use crate::row::writer::ValueRules;

    fn rows(rule: Conflict, rows: &[(i64, i64)]) -> SharedRows {
        let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
        let schema = schema.on_conflict(rule).build().unwrap();
        let mut buffer = RowBuffer::new(&schema, ValueRules::default());
        for (id, n) in rows {
            buffer.push(&schema.row().set("id", *id).unwrap().set("n", *n).unwrap().finish().unwrap()).unwrap();
        }
        buffer.into_rows()
    }

    /// The values sent, and the outcomes (written, ignored, superseded) if the rows at `ignored` were ignored.
    fn check(rule: Conflict, given: &[(i64, i64)], ignored: &[u32], sent: &[(i64, i64)], counts: [u64; 3]) {
        let given = rows(rule, given);
        // A part of a batch: the first row belongs to the step before.
        let given = given.rows().slice(1..given.rows().len());
        let arranged = keys::arrange(given, Coalescing::of(given.schema()), true);
        let chosen = arranged.as_ref().map(|arranged| chosen(given, arranged));
        let chosen = chosen.as_ref().map_or(given, SharedRows::rows);
        let value = |row: usize, column| match chosen.column(column).get(row) {
            ValueRef::I64(value) => value,
            other => panic!("{other:?}"),
        };
        let values: Vec<(i64, i64)> = (0..chosen.len()).map(|row| (value(row, 0), value(row, 1))).collect();
        assert_eq!(values, sent);
        let written = Written { ignored: ignored.to_vec(), ..Written::default() };
        let counted = outcomes(given.len(), arranged.as_ref(), &written);
        let kinds = [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded];
        assert_eq!(kinds.map(|kind| counted.get(kind)), counts);
    }

    #[test]
    fn each_row_of_a_step_has_its_outcome() {
        let given = [(9, 9), (2, 1), (1, 2), (2, 3)];
        check(Conflict::update(["id"]), &given, &[], &[(1, 2), (2, 3)], [2, 0, 1]);
        check(Conflict::ignore(["id"]), &given, &[2], &[(1, 2), (2, 1), (2, 3)], [2, 1, 0]);
        let add = || Conflict::update(["id"]).set("n", Expr::add());
        check(add(), &given, &[], &[(1, 2), (2, 4)], [3, 0, 0]);
        let newer = || Conflict::update(["id"]).only_if_newer("n");
        check(newer(), &[(9, 9), (2, 3), (2, 1)], &[], &[(2, 3)], [1, 0, 1]);
        check(newer(), &[(9, 9), (2, 3), (2, 1)], &[0], &[(2, 3)], [0, 2, 0]);
        check(Conflict::update(["id"]), &[(9, 9), (1, 1), (2, 2)], &[], &[(1, 1), (2, 2)], [2, 0, 0]);
    }
}
