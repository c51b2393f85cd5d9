//! Owns the measurement of the durable intake: against the pipeline that keeps rows in memory, and what a position costs.
//! Must not know other workloads.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use batchsql::durable::{DurableBatchSql, DurableExt, DurableOptions, SyncPolicy};
use batchsql::{
    Attempt, BatchSql, Claim, ColumnType, Conflict, DynRow, PartitionKey, PipelineConfig, Position, RowBuffer, Schema,
    SharedRows, Sink, Step, ValueRules,
};
use tokio::task::JoinSet;

use super::figures::{Figure, Measurement, Plan, summarise};
use crate::database::{Database, DatabaseName, TableSpec};

const TABLE: &str = "batchsql_suite_durable";
/// Tasks that submit rows.
const PRODUCERS: usize = 64;
/// Rows of one call.
const CALL: usize = 50;
/// Partitions of the measurement of positions, and batches in flight.
const PARTITIONS: u32 = 4;
/// Rows of one batch there.
const BATCH: usize = 500;
const LONG: Duration = Duration::from_secs(300);

fn schema() -> Result<Schema> {
    let schema = Schema::builder(TABLE).column("id", ColumnType::I64).column("name", ColumnType::Text);
    Ok(schema.column("amount", ColumnType::I64).on_conflict(Conflict::none()).build()?)
}

fn row(schema: &Schema, id: usize) -> Result<DynRow> {
    Ok(schema.row().set("id", id as i64)?.set("name", "a name of usual length")?.set("amount", id as i64)?.finish()?)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Memory,
    Durable(SyncPolicy),
    ExactlyOnce,
}

const CONTENDERS: [(Contender, &str); 4] = [
    (Contender::Memory, "memory (baseline)"),
    (Contender::Durable(SyncPolicy::Always), "durable, fsync always"),
    (Contender::Durable(SyncPolicy::Os), "durable, fsync in the background"),
    (Contender::ExactlyOnce, "exactly once, fsync always"),
];

/// Measures the durable intake on a database, and what a position costs where the database keeps them.
///
/// # Errors
/// The database fails, or rows are missing.
pub async fn durable(plan: Plan, name: DatabaseName, database: &dyn Database) -> Result<Vec<Figure>> {
    let keeps_positions = database.sink().keeps_positions();
    let contenders: Vec<_> = CONTENDERS
        .into_iter()
        .filter(|(contender, _)| keeps_positions || *contender != Contender::ExactlyOnce)
        .collect();
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let mut measured = Vec::new();
        for (contender, text) in &contenders {
            eprintln!("durable on {}, {text}, round {} of {}", name.name(), round + 1, plan.rounds);
            let rate = intake(*contender, plan.rows, database).await?;
            measured.push(Measurement { rate, allocations: None });
        }
        rounds.push(measured);
    }
    let names: Vec<&str> = contenders.iter().map(|(_, name)| *name).collect();
    let mut figures = summarise(&format!("durable, {}", name.name()), &names, &rounds);
    if keeps_positions {
        figures.extend(positions(plan, name, database).await?);
    }
    Ok(figures)
}

/// Rows per second, from the first submit to the last commit.
async fn intake(contender: Contender, rows: usize, database: &dyn Database) -> Result<f64> {
    let schema = schema()?;
    database.create(&TableSpec::new(schema.clone(), &["id"])).await?;
    let builder = BatchSql::builder(database.sink()).config(PipelineConfig::default());
    let parts: Vec<Vec<DynRow>> = (0..PRODUCERS)
        .map(|part| (part..rows).step_by(PRODUCERS).map(|id| row(&schema, id)).collect())
        .collect::<Result<_>>()?;
    let folder = tempfile::tempdir().context("no temporary folder for the log")?;
    let options = DurableOptions::new(folder.path());
    let options = match contender {
        Contender::Memory => None,
        Contender::Durable(policy) => Some(options.sync_policy(policy)),
        // A new folder has new positions.
        Contender::ExactlyOnce => Some(options.exactly_once("bench")),
    };
    let intake = match options {
        None => {
            let db = builder.start()?;
            db.prepare(&schema).await?;
            Intake::Memory(db)
        }
        Some(options) => {
            let db = builder.durable(options).start().await?;
            db.pipeline().prepare(&schema).await?;
            Intake::Durable(db)
        }
    };
    let mut producers = JoinSet::new();
    let begin = Instant::now();
    for part in parts {
        let intake = intake.clone();
        producers.spawn(async move {
            for rows in part.chunks(CALL) {
                intake.submit_all(rows).await?;
            }
            anyhow::Ok(())
        });
    }
    finish(producers).await?;
    let (balance, took) = match intake {
        Intake::Memory(db) => (db.close(LONG).await.balance, begin.elapsed()),
        Intake::Durable(db) => {
            let balance = tokio::select! {
                balance = db.flush() => balance?,
                why = stopped(&db) => anyhow::bail!("rows are not written: {why}"),
            };
            let took = begin.elapsed();
            ensure!(db.close(LONG).await.is_drained(), "rows are left in the log");
            (balance, took)
        }
    };
    ensure!(balance.written() == rows as u64, "rows were lost: {balance}");
    Ok(rows as f64 / took.as_secs_f64())
}

/// Returns when the database refuses positions, and why: the rows would wait for a person.
async fn stopped(db: &DurableBatchSql) -> String {
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let health = db.health();
        if let Some(partition) = health.stopped.iter().chain(&health.waiting).next() {
            return partition.reason.clone();
        }
    }
}

#[derive(Clone)]
enum Intake {
    Memory(BatchSql),
    Durable(DurableBatchSql),
}

impl Intake {
    async fn submit_all(&self, rows: &[DynRow]) -> Result<()> {
        match self {
            Self::Memory(db) => db.submit_all(rows).await.map(drop)?,
            Self::Durable(db) => db.submit_all(rows).await.map(drop)?,
        }
        Ok(())
    }
}

async fn finish(mut producers: JoinSet<Result<()>>) -> Result<()> {
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    Ok(())
}

/// Batches of equal size on a few connections: alone, and with a position.
async fn positions(plan: Plan, name: DatabaseName, database: &dyn Database) -> Result<Vec<Figure>> {
    let names = ["batches of 500, 4 in flight (baseline)", "the same with positions"];
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("positions on {}, round {} of {}", name.name(), round + 1, plan.rounds);
        let mut measured = Vec::new();
        for with_position in [false, true] {
            let rate = batches(with_position, plan.rows, database).await?;
            measured.push(Measurement { rate, allocations: None });
        }
        rounds.push(measured);
    }
    Ok(summarise(&format!("positions, {}", name.name()), &names, &rounds))
}

async fn batches(with_position: bool, rows: usize, database: &dyn Database) -> Result<f64> {
    let schema = schema()?;
    database.create(&TableSpec::new(schema.clone(), &["id"])).await?;
    let (sink, count) = (database.sink(), rows.div_ceil(BATCH * PARTITIONS as usize).max(1));
    let db = BatchSql::builder(sink.clone()).start()?;
    db.prepare(&schema).await?;
    let batch = |number: usize| {
        let mut buffer = RowBuffer::new(&schema, ValueRules::default());
        (number * BATCH..(number + 1) * BATCH).try_for_each(|id| anyhow::Ok(buffer.push(&row(&schema, id)?)?))?;
        anyhow::Ok(buffer.into_rows())
    };
    let mut parts: Vec<Vec<SharedRows>> = Vec::new();
    for part in 0..PARTITIONS as usize {
        parts.push((0..count).map(|number| batch(part * count + number)).collect::<Result<_>>()?);
    }
    let run = format!("bench {:?}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos());
    let mut claimed = Vec::new();
    let begin = Claim::of("bench").or_begin_at(0);
    for partition in 0..PARTITIONS {
        let key = PartitionKey::new(&*run, "bench", TABLE, partition);
        claimed.push(db.claim(&key, &begin).await?.position().context("a new position is claimed")?);
    }
    let sink = Arc::new(sink);
    let mut tasks = JoinSet::new();
    let begin = Instant::now();
    for (part, position) in parts.into_iter().zip(claimed) {
        match with_position {
            true => tasks.spawn(steps(db.clone(), part, position)),
            false => tasks.spawn(plain(Arc::clone(&sink), schema.clone(), part)),
        };
    }
    finish(tasks).await?;
    let took = begin.elapsed();
    db.close(LONG).await;
    Ok((count * BATCH * PARTITIONS as usize) as f64 / took.as_secs_f64())
}

async fn steps(db: BatchSql, batches: Vec<SharedRows>, mut position: Position) -> Result<()> {
    for batch in batches {
        let to = position.sequence + batch.rows().len() as i64;
        db.write_step(batch.rows(), &Step::new(position, to)).await?;
        position.sequence = to;
    }
    Ok(())
}

async fn plain(sink: Arc<batchsql::DynSink>, schema: Schema, batches: Vec<SharedRows>) -> Result<()> {
    let mut conn = sink.acquire().await?;
    let prepared = sink.prepare(&mut conn, &schema).await?;
    for batch in batches {
        sink.write(&mut conn, &prepared, batch.rows(), &Attempt::new(true)).await?;
    }
    Ok(())
}
