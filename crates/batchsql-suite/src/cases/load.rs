//! Owns how cases submit rows: workers, stopping early, the tracked sample.
//! Must not know rows or tables.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use batchsql::{BatchSql, DynSink, Row};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cases::Settings;
use crate::watch::Observer;

/// One row in this many is tracked for the latency of rows.
const TRACKED: u64 = 200;

/// What a case needs to submit its rows. Clones share everything.
#[derive(Clone)]
pub struct Load {
    /// The pipeline under test.
    pub db: BatchSql,
    /// How the case runs.
    pub settings: Arc<Settings>,
    /// The sink of the pipeline.
    pub(crate) sink: DynSink,
    pub(crate) observer: Observer,
    pub(crate) deadline: Instant,
    pub(crate) interrupted: watch::Receiver<bool>,
    pub(crate) submitted: Arc<AtomicU64>,
}

impl Load {
    /// Whether the case must stop submitting: its time is up, or the run was interrupted.
    pub fn is_over(&self) -> bool {
        *self.interrupted.borrow() || Instant::now() >= self.deadline
    }

    /// Another pipeline to the same database, as in another process. The case closes it.
    ///
    /// # Errors
    /// The pipeline cannot be started.
    pub fn another_pipeline(&self) -> Result<BatchSql> {
        let builder = BatchSql::builder(self.sink.clone()).config(self.settings.pipeline.clone());
        Ok(builder.metrics_reporter(self.observer.clone()).start()?)
    }

    /// Counts rows that the case submitted without [`submit`](Self::submit).
    pub fn count(&self, rows: u64) -> u64 {
        self.submitted.fetch_add(rows, Ordering::Relaxed)
    }

    /// Submits a row; one in `TRACKED` rows is tracked.
    ///
    /// # Errors
    /// The row was not accepted.
    pub async fn submit<R: Row + ?Sized + Sync>(&self, row: &R) -> Result<()> {
        if !self.count(1).is_multiple_of(TRACKED) {
            return self.db.submit(row).await.context("a row was not accepted");
        }
        let begin = Instant::now();
        let receipt = self.db.submit_tracked(row).await.context("a row was not accepted")?;
        let observer = self.observer.clone();
        // The number of tasks is bounded by the buffer: a receipt lives as long as its row.
        tokio::spawn(async move {
            receipt.await;
            observer.row_resolved_after(begin.elapsed());
        });
        Ok(())
    }

    /// Runs one task per worker and collects what they return; the first error ends the case.
    ///
    /// # Errors
    /// What a worker returns, or its panic.
    pub async fn workers<T, F, Fut>(&self, work: F) -> Result<Vec<T>>
    where
        T: Send + 'static,
        F: Fn(Self, i64) -> Fut,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for worker in 0..self.settings.workers {
            tasks.spawn(work(self.clone(), worker as i64));
        }
        let mut results = Vec::new();
        while let Some(result) = tasks.join_next().await {
            results.push(result.context("a worker panicked")??);
        }
        Ok(results)
    }
}
