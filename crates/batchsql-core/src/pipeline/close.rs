//! Owns the calls that wait for the end of work: flush and close.
//! Must not know how batches are written.

use std::sync::PoisonError;
use std::sync::atomic::Ordering as Atomic;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::config::FAR;
use crate::intake::message::Message;
use crate::outcome::ledger::Balance;
use crate::pipeline::error::FlushError;
use crate::pipeline::handle::BatchSql;
use crate::pipeline::report::CloseReport;

impl BatchSql {
    /// Writes everything that was accepted before this call, and returns the balance once all of it
    /// has an outcome. There is no other limit than those of the rows: with a missing table it takes `park_for`, without a
    /// database `retry_for`; [`health`](BatchSql::health) says what it waits for. Put it in `tokio::time::timeout` to wait for less.
    ///
    /// # Errors
    /// Only after a defect of the pipeline itself; failed rows are in the balance.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the writing.
    pub async fn flush(&self) -> Result<Balance, FlushError> {
        let (done, flushed) = oneshot::channel();
        if self.0.messages.send(Message::Flush(done)).is_ok() && flushed.await.is_ok() {
            return Ok(self.balance());
        }
        // The pipeline is closing or closed: wait for its end, which is also the end of all batches.
        if self.ended().await { Ok(self.balance()) } else { Err(FlushError(())) }
    }

    /// Refuses new rows, writes everything that was accepted, and reports. After `deadline` what was
    /// not yet sent ends as `Purged`, what is being written as `Unknown`; both are in the report.
    ///
    /// Every call, from any clone, gets the same report; the earliest deadline of all calls holds: a second call can
    /// shorten the first one, for example after a second signal, and never extends it. When it returns, every
    /// row counted as written is in the database. A [dead-letter file](crate::DeadLetters::file) that cannot be written
    /// delays it by 5 seconds at most.
    ///
    /// # Cancel safety
    /// Cancelling stops the wait, not the closing.
    pub async fn close(&self, deadline: Duration) -> CloseReport {
        {
            // A call of `try_submit_all` that has begun accepts all of its rows.
            let _no_rows_together = self.0.together.write().unwrap_or_else(PoisonError::into_inner);
            self.0.intake.closed.store(true, Atomic::SeqCst);
        }
        let called = Instant::now();
        let at = called + deadline.min(FAR);
        // Before the message: the dispatcher reads it when it has the message.
        self.0.close_at.send_if_modified(|earliest| {
            let is_earlier = earliest.is_none_or(|earliest| at < earliest);
            if is_earlier {
                *earliest = Some(at);
            }
            is_earlier
        });
        let begin = *self.0.closing_since.get_or_init(|| {
            self.0.pipeline.ledger.begin_closing();
            self.0.pipeline.ledger.budget.close();
            // `send` fails only when the dispatcher has already ended.
            let _ = self.0.messages.send(Message::Close);
            called
        });
        self.ended().await;
        let mut report = self.0.report.lock().unwrap_or_else(PoisonError::into_inner);
        report
            .get_or_insert_with(|| CloseReport {
                balance: self.balance(),
                unwritten: self.0.pipeline.ledger.take_unwritten(),
                lost_letters: self.0.pipeline.ledger.lost_letters(),
                took: begin.elapsed(),
            })
            .clone()
    }

    /// Waits for `signal` and then [closes](Self::close) the pipeline: for a task that waits for a signal of the system or for
    /// a cancellation. If the pipeline is closed by another call before, it returns at once when that call does.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use batchsql_core::BatchSql;
    /// # async fn run(db: BatchSql, mut stop: tokio::sync::watch::Receiver<bool>) {
    /// let report = db.close_on(stop.wait_for(|stop| *stop), Duration::from_secs(10)).await;
    /// println!("{}", report.balance);
    /// # }
    /// ```
    ///
    /// # Cancel safety
    /// Before the signal, dropping it closes nothing. Afterwards as [`close`](Self::close).
    pub async fn close_on(&self, signal: impl Future, deadline: Duration) -> CloseReport {
        tokio::select! {
            _ = signal => {}
            _ = self.ended() => {}
        }
        self.close(deadline).await
    }

    /// True once the dispatcher has ended normally.
    async fn ended(&self) -> bool {
        self.0.ended.clone().wait_for(|ended| *ended).await.is_ok()
    }
}
