//! Owns the cases that insert plain rows into one table.
//! Must not know databases.

use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use batchsql::TypedRow;
use tokio::time::{MissedTickBehavior, interval};

use super::{Case, Expected, Load, Settings};
use crate::database::{Database, TableSpec};
use crate::digest::Digest;
use crate::rows::{Event, Texts};

/// Key range of one worker; ranges of different workers do not overlap.
pub(super) const KEYS_PER_WORKER: i64 = 1_000_000_000;

/// Rows per second of the steady case, over all workers.
const STEADY_RATE: usize = 10_000;

fn events(digests: Vec<Digest>) -> Expected {
    let mut all = Digest::default();
    digests.into_iter().for_each(|digest| all.merge(digest));
    Expected { tables: vec![(Event::type_schema().clone(), all)], ..Expected::default() }
}

/// One row after the other, from every worker.
pub(super) async fn insert_events(load: &Load, padding: usize) -> Result<Expected> {
    let digests = load.workers(|load, worker| async move {
        let (mut texts, mut digest) = (Texts::default(), Digest::default());
        for n in 0..load.settings.rows_per_worker as i64 {
            if load.is_over() {
                break;
            }
            let event = texts.event(worker * KEYS_PER_WORKER + n, padding);
            load.submit(&event).await?;
            digest.add_values(event.values());
        }
        Ok(digest)
    });
    Ok(events(digests.await?))
}

pub(super) struct HighThroughput;

#[async_trait]
impl Case for HighThroughput {
    fn description(&self) -> &'static str {
        "Every worker submits plain rows one by one, as fast as the pipeline takes them. Every row must be in the table."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Event::table()]
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        insert_events(load, 0).await
    }
}

pub(super) struct ConcurrentWorkers;

#[async_trait]
impl Case for ConcurrentWorkers {
    fn description(&self) -> &'static str {
        "Ten times as many workers share one pipeline and use every way to submit: waiting, not waiting, with a \
         timeout, tracked, and many rows at once. Every row must be in the table once."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Event::table()]
    }

    fn adjust(&self, settings: &mut Settings) {
        let rows = settings.rows();
        settings.workers = settings.workers.saturating_mul(10);
        settings.rows_per_worker = rows.div_ceil(settings.workers);
        settings.note("workers", settings.workers);
        settings.note("records_per_worker", settings.rows_per_worker);
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        let digests = load.workers(|load, worker| async move {
            let mut digest = Digest::default();
            let mut all: [Texts; 8] = Default::default();
            let mut n = 0;
            while n < load.settings.rows_per_worker as i64 && !load.is_over() {
                let id = worker * KEYS_PER_WORKER + n;
                let event = all[0].event(id, 0);
                match n % 5 {
                    0 => load.submit(&event).await?,
                    1 => match load.db.try_submit(&event) {
                        Ok(()) => drop(load.count(1)),
                        Err(full) if full.is_full() => load.submit(&event).await?,
                        Err(error) => return Err(error.into()),
                    },
                    2 => {
                        load.db
                            .submit_timeout(&event, Duration::from_secs(60))
                            .await
                            .context("a row was not accepted")?;
                        load.count(1);
                    }
                    3 => {
                        let receipt = load.db.submit_tracked(&event).await.context("a row was not accepted")?;
                        load.count(1);
                        // Waiting for each outcome would make the worker as slow as one row per flush.
                        if n % 50 == 3 {
                            let outcome = receipt.await;
                            anyhow::ensure!(outcome.is_written(), "a tracked row ended as {:?}", outcome.kind());
                        }
                    }
                    _ => {
                        let events: Vec<Event<'_>> =
                            all.iter_mut().zip(id..).map(|(texts, id)| texts.event(id, 0)).collect();
                        let left = load.settings.rows_per_worker as i64 - n;
                        let events = &events[..events.len().min(left as usize)];
                        load.db.submit_all(events).await.context("rows were not accepted")?;
                        load.count(events.len() as u64);
                        events.iter().for_each(|event| digest.add_values(event.values()));
                        n += events.len() as i64;
                        continue;
                    }
                }
                digest.add_values(event.values());
                n += 1;
            }
            Ok(digest)
        });
        Ok(events(digests.await?))
    }
}

pub(super) struct LargeBatch;

#[async_trait]
impl Case for LargeBatch {
    fn description(&self) -> &'static str {
        "Batches ten times as large, of rows that are 500 bytes wider, submitted a thousand at a time."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Event::table()]
    }

    fn adjust(&self, settings: &mut Settings) {
        let pipeline = &mut settings.pipeline;
        pipeline.flush_size = pipeline.flush_size.saturating_mul(10);
        pipeline.flush_bytes *= 2;
        pipeline.buffer_size = pipeline.buffer_size.max(pipeline.flush_size.saturating_mul(4));
        let (batch, buffer) = (pipeline.flush_size, pipeline.buffer_size);
        settings.note("batch_size", batch);
        settings.note("buffer_size", buffer);
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        let digests = load.workers(|load, worker| async move {
            let mut digest = Digest::default();
            let mut all: Vec<Texts> = std::iter::repeat_with(Texts::default).take(1000).collect();
            let rows = load.settings.rows_per_worker as i64;
            let mut n = 0;
            while n < rows && !load.is_over() {
                let ids = worker * KEYS_PER_WORKER + n..worker * KEYS_PER_WORKER + rows;
                let events: Vec<Event<'_>> = all.iter_mut().zip(ids).map(|(texts, id)| texts.event(id, 500)).collect();
                load.db.submit_all(&events).await.context("rows were not accepted")?;
                load.count(events.len() as u64);
                events.iter().for_each(|event| digest.add_values(event.values()));
                n += events.len() as i64;
            }
            Ok(digest)
        });
        Ok(events(digests.await?))
    }
}

pub(super) struct LongDuration;

#[async_trait]
impl Case for LongDuration {
    fn description(&self) -> &'static str {
        "A steady 10,000 rows per second for as long as the rows last (20 s with the defaults). Memory and latency must \
         stay level; every row must be in the table."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Event::table()]
    }

    fn adjust(&self, settings: &mut Settings) {
        settings.note("rate", format!("{STEADY_RATE} rows/s"));
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        let digests = load.workers(|load, worker| async move {
            let (mut texts, mut digest) = (Texts::default(), Digest::default());
            // A hundred turns per second; the remainder of the division goes into later turns.
            let (turns, workers) = (100, load.settings.workers);
            let mut turn = interval(Duration::from_secs(1) / turns);
            turn.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let rows = load.settings.rows_per_worker;
            let (mut n, mut turns_done) = (0, 0);
            while n < rows && !load.is_over() {
                turn.tick().await;
                turns_done += 1;
                let due = (STEADY_RATE * turns_done / (turns as usize * workers)).min(rows);
                while n < due {
                    let event = texts.event(worker * KEYS_PER_WORKER + n as i64, 0);
                    load.submit(&event).await?;
                    digest.add_values(event.values());
                    n += 1;
                }
            }
            Ok(digest)
        });
        Ok(events(digests.await?))
    }
}
