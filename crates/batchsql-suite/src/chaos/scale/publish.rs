//! Owns the publisher: rows go from a durable intake to the stream, each exactly once, whatever happens to the broker.
//! Must not know workers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::durable::{DurableBatchSql, DurableExt, DurableOptions};
use batchsql::{BatchSql, DynRow, PipelineConfig, Schema};
use batchsql_nats::NatsSink;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::job::Stream;
use super::worker::connect;
use crate::chaos::ledger::{Fate, Ledger};
use crate::chaos::load::{RowId, Table};
use crate::chaos::writer::values;

/// Rows of a message.
pub(super) const BLOCK: usize = 500;
/// Rows of one call, and tasks that make them.
const CALL: usize = 500;
const TASKS: u32 = 8;
const END: Duration = Duration::from_secs(30);

/// A publisher that runs.
pub(super) struct Publisher {
    db: DurableBatchSql,
}

impl Publisher {
    /// Makes the stream, and a log in the folder.
    pub(super) async fn start(nats: &str, stream: &Stream, folder: &Path) -> Result<Self> {
        let context = connect(nats).await?;
        stream.options().create(&context).await.context("cannot create the stream")?;
        let sink = NatsSink::new(context, &stream.options()).await?;
        let log =
            DurableOptions::new(folder.join("publisher")).partitions(stream.partitions).exactly_once(&*stream.name);
        let config = PipelineConfig::default().flush_size(BLOCK).max_batch_rows(BLOCK);
        Ok(Self { db: BatchSql::builder(sink).config(config).durable(log).start().await? })
    }

    /// Publishes rows of one table as fast as it can, until they are in the stream.
    pub(super) async fn fill(&self, schema: &Schema, table: Table, rows: u32) -> Result<()> {
        let mut tasks = JoinSet::new();
        for producer in 0..TASKS {
            let (db, schema) = (self.db.clone(), schema.clone());
            let count = u64::from(rows / TASKS + u32::from(producer < rows % TASKS));
            tasks.spawn(async move {
                let sequences: Vec<u64> = (0..)
                    .filter(|sequence| !RowId { producer, sequence: *sequence }.is_bad())
                    .take(count as usize)
                    .collect();
                for part in sequences.chunks(CALL) {
                    let row = |sequence: &u64| values(&schema, table, RowId { producer, sequence: *sequence });
                    let rows = part.iter().map(row).collect::<Result<Vec<DynRow>, _>>()?;
                    db.submit_all(&rows).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(task) = tasks.join_next().await {
            task.context("a panic")??;
        }
        self.db.flush().await.context("rows were not published").map(drop)
    }

    /// Publishes rows of all tables at a rate, until `is_over` is true and they are in the stream. Which rows these are.
    pub(super) async fn publish_at(
        &self,
        schemas: Arc<[Schema; 3]>,
        rows_per_second: u32,
        is_over: watch::Receiver<bool>,
    ) -> Result<Ledger> {
        let step = Duration::from_secs(1) * TASKS * Table::ALL.len() as u32 / rows_per_second;
        let mut tasks = JoinSet::new();
        for producer in 0..TASKS {
            tasks.spawn(produce(self.db.clone(), Arc::clone(&schemas), producer, step, is_over.clone()));
        }
        let mut ledger = Ledger::default();
        while let Some(task) = tasks.join_next().await {
            ledger.rows.extend(task.context("a panic")??);
        }
        // A server that did not start again would keep it waiting.
        let flushed = tokio::time::timeout(PATIENCE, self.db.flush()).await;
        flushed.context("rows were not published in time")?.context("rows were not published")?;
        Ok(ledger)
    }

    pub(super) async fn close(self) {
        self.db.close(END).await;
    }
}

/// How long the last rows may take to be published.
const PATIENCE: Duration = Duration::from_secs(120);

type Fates = Vec<((Table, RowId), Fate)>;

async fn produce(
    db: DurableBatchSql,
    schemas: Arc<[Schema; 3]>,
    producer: u32,
    step: Duration,
    mut is_over: watch::Receiver<bool>,
) -> Result<Fates> {
    let (mut fates, mut steps) = (Vec::new(), interval(step));
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for sequence in 0.. {
        tokio::select! {
            _ = steps.tick() => {}
            _ = is_over.wait_for(|is_over| *is_over) => break,
        }
        let row = RowId { producer, sequence };
        for (table, schema) in Table::ALL.into_iter().zip(schemas.iter()) {
            db.submit(&values(schema, table, row)?).await?;
            fates.push(((table, row), Fate { accepted: true, ..Fate::default() }));
        }
    }
    Ok(fates)
}
