//! Owns the adapter that makes the handle a `futures::Sink` of rows.
//! Must not know how rows are accepted.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use futures_sink::Sink;
use tokio::task::coop::consume_budget;

use crate::outcome::tracking::Tracking;
use crate::pipeline::error::{FlushError, SubmitError};
use crate::pipeline::handle::BatchSql;
use crate::row::traits::Row;

type Waiting<E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send>>;

/// Rows for a pipeline as a `futures::Sink`, for example for `StreamExt::forward`. Made by [`BatchSql::row_sink`].
///
/// - A row is accepted as by [`submit`](BatchSql::submit): while the buffer is full, the sink is not ready.
/// - `flush` returns when the rows are accepted. It does not write them early, because `forward` flushes whenever its stream
///   has no item: they are written by the usual rules.
/// - `close` writes what was accepted before and waits until all of it has an outcome. It does not close the pipeline,
///   which other handles may use.
///
/// After an error the row that caused it is not accepted, and the sink can take the next one.
#[must_use = "a sink does nothing until rows are sent"]
pub struct RowSink<R> {
    db: BatchSql,
    /// The row that waits for capacity.
    submit: Option<Waiting<SubmitError>>,
    flush: Option<Waiting<FlushError>>,
    rows: PhantomData<fn(R)>,
}

/// A row was not accepted by a [`RowSink`], or the pipeline ended because of a defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct RowSinkError(Kind);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Kind {
    #[error(transparent)]
    Submit(SubmitError),
    #[error(transparent)]
    Flush(FlushError),
}

impl RowSinkError {
    /// Why a row was not accepted; `None` if the pipeline ended because of a defect.
    pub fn submit_error(&self) -> Option<&SubmitError> {
        match &self.0 {
            Kind::Submit(error) => Some(error),
            Kind::Flush(_) => None,
        }
    }
}

impl BatchSql {
    /// The pipeline as a `futures::Sink` of rows. There may be several, of any types.
    ///
    /// ```
    /// # use batchsql_core::{BatchSql, Row, RowSinkError};
    /// # async fn run<R: Row + Send + 'static>(db: BatchSql, row: R) -> Result<(), RowSinkError> {
    /// # use futures_sink::Sink;
    /// let mut rows = std::pin::pin!(db.row_sink::<R>());
    /// // With `futures`: `stream.forward(db.row_sink())`.
    /// std::future::poll_fn(|cx| rows.as_mut().poll_ready(cx)).await?;
    /// rows.as_mut().start_send(row)?;
    /// std::future::poll_fn(|cx| rows.as_mut().poll_close(cx)).await
    /// # }
    /// ```
    pub fn row_sink<R: Row>(&self) -> RowSink<R> {
        RowSink { db: self.clone(), submit: None, flush: None, rows: PhantomData }
    }
}

impl<R> RowSink<R> {
    /// Waits until the row that was sent is accepted.
    fn poll_accepted(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), RowSinkError>> {
        let Some(submit) = &mut self.submit else { return Poll::Ready(Ok(())) };
        let accepted = ready!(submit.as_mut().poll(cx));
        self.submit = None;
        Poll::Ready(accepted.map_err(|error| RowSinkError(Kind::Submit(error))))
    }
}

impl<R: Row + Send + 'static> Sink<R> for RowSink<R> {
    type Error = RowSinkError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RowSinkError>> {
        let this = self.get_mut();
        ready!(this.poll_accepted(cx))?;
        // As in `submit`: a stream that never waits would block its thread for the tasks that write.
        pin!(consume_budget()).poll(cx).map(Ok)
    }

    fn start_send(self: Pin<&mut Self>, row: R) -> Result<(), RowSinkError> {
        let this = self.get_mut();
        // Without capacity the row waits as in `submit`, which applies `when_full`. Otherwise it costs no allocation.
        match this.db.try_accept(&row, &Tracking::Untracked) {
            Ok(_) => {}
            Err(error) if error.is_full() => {
                let db = this.db.clone();
                // Not `submit`: its future would be `Send` only for rows that are `Sync`.
                this.submit = Some(Box::pin(async move {
                    let accepted = db.submit_all(std::iter::once(row)).await;
                    accepted.map(drop).map_err(|error| error.submit_error().clone())
                }));
            }
            Err(error) => {
                this.db.report_refused(&row, &error);
                return Err(RowSinkError(Kind::Submit(error)));
            }
        }
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RowSinkError>> {
        self.get_mut().poll_accepted(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), RowSinkError>> {
        let this = self.get_mut();
        ready!(this.poll_accepted(cx))?;
        let db = &this.db;
        let flush = this.flush.get_or_insert_with(|| {
            let db = db.clone();
            Box::pin(async move { db.flush().await.map(drop) })
        });
        let flushed = ready!(flush.as_mut().poll(cx));
        this.flush = None;
        Poll::Ready(flushed.map_err(|error| RowSinkError(Kind::Flush(error))))
    }
}

impl<R> fmt::Debug for RowSink<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowSink").field("is_waiting", &self.submit.is_some()).finish_non_exhaustive()
    }
}
