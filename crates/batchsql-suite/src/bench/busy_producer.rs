//! Owns the measurement of a producer that computes without awaiting: how long its rows wait.
//! Must not know databases.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchsql::{BatchSql, PipelineConfig, Receipt};
use batchsql_testkit::NullSink;
use serde::Serialize;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::rows::Texts;

/// The work for one row, for example to parse it.
const WORK: Duration = Duration::from_millis(1);
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
const WORKER_THREADS: usize = 2;

/// Waiting times of rows.
#[derive(Debug, Default, Serialize)]
pub(super) struct Busy {
    pub(super) flush_interval_ms: f64,
    /// Busy time of the producer in each round.
    pub(super) busy_ms: f64,
    /// The longest time from submit to outcome in each round.
    pub(super) longest_ms: Vec<f64>,
    /// The longest of all, in multiples of the flush interval.
    pub(super) intervals: f64,
}

/// Runs a producer that computes and submits without a pause, on a runtime of its own with two threads.
pub(super) async fn busy_producer(rounds: usize, time: Duration) -> Result<Busy> {
    let mut longest = Vec::new();
    for _ in 0..rounds {
        // A runtime cannot be started inside of another one.
        longest.push(tokio::task::spawn_blocking(move || one_round(time)).await??);
    }
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    let most = longest.iter().max().copied().unwrap_or_default();
    Ok(Busy {
        flush_interval_ms: ms(FLUSH_INTERVAL),
        busy_ms: ms(time),
        longest_ms: longest.into_iter().map(ms).collect(),
        intervals: most.as_secs_f64() / FLUSH_INTERVAL.as_secs_f64(),
    })
}

fn one_round(time: Duration) -> Result<Duration> {
    let (submitted, receipts) = mpsc::unbounded_channel();
    // A runtime of its own: a task beside the busy one could receive the outcome later than it was reported.
    let observer = thread::Builder::new().name("observer".to_owned()).spawn(move || observe(receipts))?;
    let runtime = Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build()?;
    runtime.block_on(async {
        let config = PipelineConfig::default().flush_interval(FLUSH_INTERVAL);
        let db = BatchSql::builder(NullSink).config(config).start()?;
        let producer = {
            let db = db.clone();
            tokio::spawn(async move {
                let mut texts = Texts::default();
                let begin = Instant::now();
                let mut id = 0;
                while begin.elapsed() < time {
                    let event = texts.event(id, 0);
                    let work = Instant::now();
                    while work.elapsed() < WORK {
                        std::hint::spin_loop();
                    }
                    let at = Instant::now();
                    submitted.send((at, db.submit_tracked(&event).await?)).ok().context("the observer has ended")?;
                    id += 1;
                }
                anyhow::Ok(())
            })
        };
        producer.await??;
        let report = db.close(Duration::from_secs(60)).await;
        anyhow::ensure!(report.is_complete(), "rows were lost: {}", report.balance);
        anyhow::Ok(())
    })?;
    observer.join().ok().context("the observer panicked")?
}

/// The longest time from submit to outcome.
fn observe(mut receipts: mpsc::UnboundedReceiver<(Instant, Receipt)>) -> Result<Duration> {
    Builder::new_current_thread().build()?.block_on(async {
        let mut waiting = JoinSet::new();
        while let Some((at, receipt)) = receipts.recv().await {
            waiting.spawn(async move {
                receipt.await;
                at.elapsed()
            });
        }
        let mut longest = Duration::ZERO;
        while let Some(time) = waiting.join_next().await {
            longest = longest.max(time?);
        }
        Ok(longest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rows_of_a_busy_producer_are_watched_to_their_outcome() {
        let busy = busy_producer(1, Duration::from_millis(50)).await.unwrap();
        assert_eq!(busy.longest_ms.len(), 1);
        assert!(busy.intervals > 0.0);
    }
}
