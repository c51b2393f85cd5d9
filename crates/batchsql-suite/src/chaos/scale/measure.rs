//! Owns the measurement without faults: rows per second of a pipeline that is fed from memory, and of workers that empty a
//! stream. Must not know servers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchsql::{BatchSql, DynRow, PipelineConfig, Schema};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::job::{Job, Stream};
use super::publish::Publisher;
use super::results::Measured;
use super::servers::{Servers, Tables};
use super::workers::Workers;
use crate::chaos::job::Pool;
use crate::chaos::load::{RowId, Table};
use crate::chaos::sample::{Sample, now};
use crate::chaos::sinks::{self, Target};
use crate::chaos::writer::{schema_of, values};

/// Partitions of a stream.
pub(super) const PARTITIONS: u32 = 16;
/// Tasks that submit rows from memory, and rows of one call.
const TASKS: u32 = 10;
const CALL: usize = 500;
/// How long it may take to write all rows.
const PATIENCE: Duration = Duration::from_secs(600);
const END: Duration = Duration::from_secs(60);

/// Rows of a pipeline in one process, from the first submit to the last commit.
pub(super) async fn from_memory(servers: &Servers, rows: u32) -> Result<Measured> {
    let folder = TempDir::new().context("cannot create a folder")?;
    let Tables { names, stage } = servers.tables(folder.path(), 0).await?;
    let schema = schema_of(&names, Table::Plain)?;
    let target = Target { database: servers.database, dsn: servers.dsn(), pool: Pool::Own, tables: &names };
    let db = BatchSql::builder(sinks::open(target, None)?).config(PipelineConfig::default()).start()?;
    db.prepare(&schema).await?;
    let parts = (0..TASKS).map(|producer| part(&schema, producer, rows / TASKS)).collect::<Result<Vec<_>>>()?;
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for part in parts {
        let db = db.clone();
        tasks.spawn(async move {
            for rows in part.chunks(CALL) {
                db.submit_all(rows).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.context("a panic")??;
    }
    let balance = db.close(END).await.balance;
    let took = begin.elapsed();
    anyhow::ensure!(balance.written() == u64::from(rows / TASKS * TASKS), "rows were not written: {balance}");
    drop(stage);
    let rate = balance.written() as f64 / took.as_secs_f64();
    Ok(Measured { rows: balance.written(), lost: 0, doubled: 0, rate })
}

fn part(schema: &Schema, producer: u32, rows: u32) -> Result<Vec<DynRow>> {
    let good = (0..).map(|sequence| RowId { producer, sequence }).filter(|row| !row.is_bad());
    good.take(rows as usize).map(|row| Ok(values(schema, Table::Plain, row)?)).collect()
}

/// Rows of `count` workers on a full stream.
pub(super) async fn of_workers(servers: &Servers, count: u32, rows: u32) -> Result<Measured> {
    let folder = TempDir::new().context("cannot create a folder")?;
    let Tables { names, stage } = servers.tables(folder.path(), 0).await?;
    let schema = schema_of(&names, Table::Plain)?;
    let stream = Stream { name: format!("scale{:x}", now()), partitions: PARTITIONS };
    let publisher = Publisher::start(servers.nats(), &stream, folder.path()).await?;
    publisher.fill(&schema, Table::Plain, rows).await?;
    publisher.close().await;
    let job = Job {
        database: servers.database,
        dsn: servers.dsn().to_owned(),
        nats: servers.nats().to_owned(),
        stream,
        tables: names,
        owner: String::new(),
        letters: Default::default(),
        sabotage: None,
    };
    let mut workers = Workers::start(folder.path(), job, count).await?;
    let all = workers.wait_for(u64::from(rows), PATIENCE).await.with_context(|| workers.log())?;
    anyhow::ensure!(all, "{rows} rows were not written within {} s; {}", PATIENCE.as_secs(), workers.log());
    let rate = rate(&workers.samples(), u64::from(rows));
    workers.stop().await?;
    let found = stage.read().await?;
    let mut sequences: Vec<RowId> = found.tables[&Table::Plain].iter().flatten().map(|found| found.row).collect();
    let there = sequences.len() as u64;
    sequences.sort_unstable();
    sequences.dedup();
    let different = sequences.len() as u64;
    let rate = rate.context("all rows were written before the first sample; use more rows")?;
    Ok(Measured {
        rows: u64::from(rows),
        lost: u64::from(rows).saturating_sub(different),
        doubled: there - different,
        rate,
    })
}

/// From the first sample with a written row to the first moment when all were written. The start of the processes is not in it.
fn rate(samples: &[Vec<Sample>], rows: u64) -> Option<f64> {
    let mut moments: Vec<u64> = samples.iter().flatten().map(|sample| sample.at).collect();
    moments.sort_unstable();
    let written = |at: u64| -> u64 {
        let of = |samples: &Vec<Sample>| {
            samples.iter().take_while(|sample| sample.at <= at).last().map_or(0, |last| last.written)
        };
        samples.iter().map(of).sum()
    };
    let first = *moments.iter().find(|at| written(**at) > 0)?;
    let last = *moments.iter().find(|at| written(**at) >= rows)?;
    let seconds = last.checked_sub(first).filter(|millis| *millis > 0)? as f64 / 1_000.0;
    Some((rows - written(first)) as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(of: &[(u64, u64)]) -> Vec<Sample> {
        of.iter().map(|(at, written)| Sample { at: *at, written: *written, ..Sample::default() }).collect()
    }

    #[test]
    fn the_rate_is_that_of_all_workers_together() {
        let first = samples(&[(1_000, 0), (1_100, 100), (2_100, 600)]);
        let second = samples(&[(1_050, 0), (1_600, 400), (2_050, 400)]);
        // From 1,100 (100 rows) to 2,100 (1,000 rows).
        assert_eq!(rate(&[first.clone(), second.clone()], 1_000), Some(900.0));
        assert_eq!(rate(&[first, second], 1_001), None);
        assert_eq!(rate(&[samples(&[(10, 5)])], 5), None, "without time there is no rate");
    }
}
