//! Owns the measurement of an outage: the log is filled while the database is unreachable, and drained when it is back.
//! Must not know how a database becomes unreachable.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use batchsql::durable::{DurableBatchSql, DurableExt, DurableOptions};
use batchsql::{BatchSql, ColumnType, Conflict, DynRow, PipelineConfig, Schema, WhenFull};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::results::{MEMORY_LIMIT, Outage};
use super::scratch::Scratch;
use super::target::{Counted, TABLE, Target};
use crate::database::DatabaseName;
use crate::memory;

/// Tasks that submit rows, and rows of one call.
const PRODUCERS: usize = 16;
const CALL: u64 = 50;
/// Bytes of the text of a row.
const TEXT: usize = 1_000;
/// How long a submit may wait for the log: longer than its writer needs.
const SUBMIT: Duration = Duration::from_secs(60);
/// Time between two lines of progress.
const TELL: Duration = Duration::from_secs(5);
/// No row is written for so long: it will not end.
const STUCK: Duration = Duration::from_secs(300);
const CLOSE: Duration = Duration::from_secs(60);

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub struct OutagePlan {
    /// The database that is unreachable.
    pub database: DatabaseName,
    /// Bytes that the log has when the database comes back.
    pub bytes: u64,
    /// Whether rows are written exactly once.
    pub exactly_once: bool,
}

/// Measures an outage. The process should have done nothing before: its memory is a figure.
///
/// # Errors
/// The database or the disk fails, rows are missing, or no row is written for five minutes.
pub async fn outage(plan: OutagePlan) -> Result<Outage> {
    let scratch = Scratch::new()?;
    let mut target = Target::start(plan.database, scratch.path()).await?;
    let sink = target.sink()?;
    target.go_away().await?;
    eprintln!("{} is unreachable; rows are submitted until the log has {} MiB", plan.database.name(), plan.bytes >> 20);
    let options = DurableOptions::new(scratch.path().join("intake")).disk_bytes(plan.bytes * 2 + (1 << 30));
    let options = if plan.exactly_once { options.exactly_once("outage") } else { options };
    // A disk that is full ends the measurement.
    let config = PipelineConfig::default().when_full(WhenFull::WaitAtMost(SUBMIT));
    let begin = phase();
    let db = BatchSql::builder(sink).config(config).durable(options).start().await?;
    let rows = fill(&db, plan.bytes).await?;
    let (fill, memory_of_fill) = (begin.elapsed(), memory::peak());
    let stats = db.stats();
    ensure!(stats.balance.written() == 0, "the database was reachable: {}", stats.balance);
    ensure!(stats.log.unsettled_rows == rows, "the log has {} rows of {rows}", stats.log.unsettled_rows);
    eprintln!("{rows} rows are in the log; {} comes back", plan.database.name());
    target.come_back().await?;
    let begin = phase();
    drain(&db).await?;
    let (drain, memory_of_drain) = (begin.elapsed(), memory::peak());
    let balance = db.stats().balance;
    let report = db.close(CLOSE).await;
    ensure!(report.is_drained(), "rows are left in the log: {report}");
    let Counted { rows: found, distinct, lowest, highest } = target.count().await?;
    let expected = (rows, 0, rows.cast_signed() - 1);
    ensure!(
        (distinct, lowest, highest) == expected && balance.written() >= rows,
        "the table has {distinct} different rows, {lowest} to {highest}, of {rows}; {balance}"
    );
    Ok(Outage {
        database: plan.database,
        exactly_once: plan.exactly_once,
        log_bytes: stats.log.bytes,
        rows,
        doubled: found - distinct,
        fill_s: fill.as_secs_f64(),
        drain_s: drain.as_secs_f64(),
        memory: [memory_of_fill, memory_of_drain],
        memory_limit: MEMORY_LIMIT,
    })
}

/// A part of the measurement begins.
fn phase() -> Instant {
    memory::reset_peak();
    Instant::now()
}

/// Submits rows, with ids from 0 on, until the log has its bytes; returns how many.
async fn fill(db: &DurableBatchSql, bytes: u64) -> Result<u64> {
    let next = Arc::new(AtomicU64::new(0));
    let mut producers = JoinSet::new();
    for _ in 0..PRODUCERS {
        let (db, next) = (db.clone(), Arc::clone(&next));
        producers.spawn(async move {
            let schema = Schema::builder(TABLE).column("id", ColumnType::I64).column("note", ColumnType::Text);
            let schema = schema.on_conflict(Conflict::none()).build()?;
            while db.stats().log.bytes < bytes {
                let first = next.fetch_add(CALL, Ordering::Relaxed);
                let rows: Vec<DynRow> = (first..first + CALL).map(|id| row(&schema, id)).collect::<Result<_>>()?;
                db.submit_all(rows).await.context("a row was not accepted; is the disk full?")?;
            }
            anyhow::Ok(())
        });
    }
    let mut ticks = ticks();
    loop {
        tokio::select! {
            ended = producers.join_next() => match ended {
                Some(ended) => ended.context("a panic")??,
                None => return Ok(next.load(Ordering::Relaxed)),
            },
            _ = ticks.tick() => eprintln!("{} MiB", db.stats().log.bytes >> 20),
        }
    }
}

fn row(schema: &Schema, id: u64) -> Result<DynRow> {
    let mut note = format!("{id:016x} ").repeat(TEXT / 17 + 1);
    note.truncate(TEXT);
    Ok(schema.row().set("id", id.cast_signed())?.set("note", note)?.finish()?)
}

/// Waits until every row has its outcome.
async fn drain(db: &DurableBatchSql) -> Result<()> {
    let flushed = db.flush();
    tokio::pin!(flushed);
    let mut ticks = ticks();
    let (mut least, mut since) = (u64::MAX, Instant::now());
    loop {
        tokio::select! {
            flushed = &mut flushed => return flushed.map(drop).context("rows are not written"),
            _ = ticks.tick() => {
                let left = db.stats().log.unsettled_rows;
                if left < least {
                    (least, since) = (left, Instant::now());
                }
                eprintln!("{left} rows are left");
                if since.elapsed() > STUCK {
                    let health = db.health();
                    let reason = health.stopped.iter().chain(&health.waiting).next().map(|partition| &partition.reason);
                    bail!("no row was written for {} s: {reason:?}, {:?}", STUCK.as_secs(), health.pipeline.database);
                }
            }
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(TELL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}
