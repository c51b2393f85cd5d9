//! Owns the measurement of latency under a given load: rows are submitted on a schedule, however fast they are written.
//! Must not know databases.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::{BatchSql, PipelineConfig, Sink};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::figures::median;
use super::workload::{PRODUCERS, Submit, Workload};
use crate::rows::Texts;

/// Approximate number of tracked rows per second; more would measure the tracking.
const TRACKED: f64 = 5_000.0;
/// Time until the first row is due, so that every producer is ready.
const LEAD: Duration = Duration::from_millis(20);

/// The latency from the time when a row was due to its outcome.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    /// Rows that were tracked.
    pub(super) samples: usize,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |part: f64| {
            let place = (times.len() as f64 * part) as usize;
            times.get(place).or(times.last()).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { p50_ms: at(0.5), p99_ms: at(0.99), samples: times.len() }
    }

    /// The median of each figure over rounds.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let of = |pick: fn(&Self) -> f64| median(rounds.iter().map(pick).collect());
        Self {
            p50_ms: of(|latency| latency.p50_ms),
            p99_ms: of(|latency| latency.p99_ms),
            samples: rounds.iter().map(|latency| latency.samples).sum(),
        }
    }
}

/// Submits rows at a rate, for that time or until there are no more. Row `n` is due at `n / rows_per_second`, and its
/// latency counts from that time, even if the producer is late because the buffer is full: time in a queue outside of
/// the pipeline also counts.
pub(super) async fn paced<S: Sink>(
    config: PipelineConfig,
    sink: S,
    workload: Workload,
    texts: &Arc<Vec<Texts>>,
    rows_per_second: f64,
    time: Duration,
) -> Result<Latency> {
    let db = BatchSql::builder(sink).config(config).start()?;
    db.prepare(workload.schema()).await?;
    let rows = ((rows_per_second * time.as_secs_f64()) as usize).clamp(1, texts.len());
    let one_in = (rows_per_second / TRACKED).ceil().max(1.0) as usize;
    let begin = Instant::now() + LEAD;
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let (db, texts) = (db.clone(), Arc::clone(texts));
        producers.spawn(async move {
            let mut receipts = JoinSet::new();
            for (nth, n) in (producer..rows).step_by(PRODUCERS).enumerate() {
                let due = begin + Duration::from_secs_f64(n as f64 / rows_per_second);
                if due > Instant::now() {
                    sleep_until(due).await;
                }
                if nth % one_in != 0 {
                    workload.submit(&db, &texts, n).await?;
                    continue;
                }
                let receipt = workload.submit_tracked(&db, &texts, n).await?;
                receipts.spawn(async move {
                    let outcome = receipt.await;
                    // A superseded row has an outcome too.
                    outcome.failure().is_none().then(|| due.elapsed())
                });
            }
            let mut times = Vec::with_capacity(receipts.len());
            while let Some(time) = receipts.join_next().await {
                times.push(time?.context("a row was not written")?);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(produced) = producers.join_next().await {
        times.extend(produced??);
    }
    let report = db.close(Duration::from_secs(60)).await;
    anyhow::ensure!(report.is_complete(), "rows were lost: {}", report.balance);
    Ok(Latency::of(times))
}

#[cfg(test)]
mod tests {
    use batchsql_testkit::NullSink;

    use super::*;

    #[tokio::test]
    async fn a_row_waits_until_its_batch_is_due() {
        let texts = Workload::Insert.texts(1_000);
        let config = PipelineConfig::default().flush_interval(Duration::from_millis(30));
        let time = Duration::from_millis(200);
        let latency = paced(config, NullSink, Workload::Insert, &texts, 1_000.0, time).await.unwrap();
        assert_eq!(latency.samples, 200);
        assert!(latency.p99_ms >= 20.0 && latency.p99_ms >= latency.p50_ms, "{latency:?}");
    }

    #[test]
    fn percentiles_of_few_samples() {
        let ms = Duration::from_millis;
        let latency = Latency::of(vec![ms(3), ms(1), ms(2)]);
        assert_eq!((latency.p50_ms, latency.p99_ms, latency.samples), (2.0, 3.0, 3));
        assert_eq!(Latency::of(Vec::new()).samples, 0);
    }
}
