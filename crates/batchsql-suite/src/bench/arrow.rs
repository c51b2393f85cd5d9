//! Owns the measurement of record batches of Arrow: `submit_batch` against rows that are submitted one by one.
//! Must not know databases.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use batchsql::arrow::{Mapping, SubmitBatch};
use batchsql::{BatchSql, DynSink, FieldRules, PipelineConfig, TypedRow};
use batchsql_testkit::NullSink;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::figures::{Figure, Measurement, Plan, summarise};
use super::workload::PRODUCERS;
use crate::database::{Database, DatabaseName};
use crate::memory;
use crate::rows::{Event, Texts};

/// Rows of a record batch, as readers of files make them.
const BATCH: usize = 8_192;
/// How often the rows are submitted to the sink that does nothing, which takes no time.
const TIMES: usize = 10;
const LONG: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Submit,
    SubmitAll,
    SubmitBatch,
}

const CONTENDERS: [(Contender, &str); 3] = [
    (Contender::Submit, "typed rows, submit (baseline)"),
    (Contender::SubmitAll, "typed rows, submit_all"),
    (Contender::SubmitBatch, "record batches of 8192 rows, submit_batch"),
];

/// Measures the pipeline with a sink that does nothing; with `database`, into a table of it.
///
/// # Errors
/// The database fails, or rows are missing.
pub async fn arrow(plan: Plan, database: Option<(DatabaseName, &dyn Database)>) -> Result<Vec<Figure>> {
    let place = database.map_or("a sink that does nothing", |(name, _)| name.name());
    let times = if database.is_none() { TIMES } else { 1 };
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let mut measured = Vec::new();
        for (contender, name) in CONTENDERS {
            eprintln!("arrow into {place}, {name}, round {} of {}", round + 1, plan.rounds);
            let sink = match database {
                None => DynSink::new(NullSink),
                Some((_, database)) => {
                    database.create(&Event::table()).await?;
                    database.sink()
                }
            };
            measured.push(measure(contender, sink, plan.rows, times).await?);
        }
        rounds.push(measured);
    }
    Ok(summarise(&format!("arrow, {place}"), &CONTENDERS.map(|(_, name)| name), &rounds))
}

/// Rows per second, from the first submit to the last commit. The rows and the batches are made before.
async fn measure(contender: Contender, sink: DynSink, rows: usize, times: usize) -> Result<Measurement> {
    let db = BatchSql::builder(sink).config(PipelineConfig::default()).start()?;
    db.prepare(Event::type_schema()).await?;
    let ready = Arc::new(Barrier::new(PRODUCERS + 1));
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let own = rows * producer / PRODUCERS..rows * (producer + 1) / PRODUCERS;
        producers.spawn(produce(contender, db.clone(), own, times, Arc::clone(&ready)));
    }
    // A producer that fails ends before the others begin.
    tokio::select! {
        _ = ready.wait() => {}
        Some(ended) = producers.join_next() => ended??,
    }
    let (before, begin) = (memory::allocations(), Instant::now());
    while let Some(produced) = producers.join_next().await {
        produced??;
    }
    let report = db.close(LONG).await;
    let took = begin.elapsed();
    let allocations = memory::allocations().zip(before).map(|(after, before)| (after - before) as f64);
    let rows = rows * times;
    ensure!(report.balance.written() == rows as u64, "rows were lost: {}", report.balance);
    Ok(Measurement {
        rate: rows as f64 / took.as_secs_f64(),
        allocations: allocations.map(|count| count / rows as f64),
    })
}

async fn produce(
    contender: Contender,
    db: BatchSql,
    numbers: Range<usize>,
    times: usize,
    ready: Arc<Barrier>,
) -> Result<()> {
    let mut texts: Vec<Texts> = std::iter::repeat_with(Texts::default).take(numbers.len()).collect();
    let events: Vec<Event<'_>> = texts.iter_mut().zip(numbers).map(|(texts, id)| texts.event(id as i64, 0)).collect();
    let batches: Vec<RecordBatch> = match contender {
        Contender::SubmitBatch => events.chunks(BATCH).map(batch).collect::<Result<_>>()?,
        Contender::Submit | Contender::SubmitAll => Vec::new(),
    };
    let mapping =
        batches.first().map(|first| Mapping::new(Event::type_schema(), &first.schema(), FieldRules::default()));
    let mapping = mapping.transpose()?;
    ready.wait().await;
    for _ in 0..times {
        match contender {
            Contender::Submit => {
                for event in &events {
                    db.submit(event).await?;
                }
            }
            Contender::SubmitAll => drop(db.submit_all(&events).await?),
            Contender::SubmitBatch => {
                for batch in &batches {
                    let mapping = mapping.as_ref().context("a batch has a mapping")?;
                    db.submit_batch(mapping, batch).await?;
                }
            }
        }
    }
    Ok(())
}

fn batch(events: &[Event<'_>]) -> Result<RecordBatch> {
    fn array<T: arrow_array::Array + 'static>(array: T) -> ArrayRef {
        Arc::new(array)
    }
    let times = events.iter().map(|event| event.created_at.micros_since_epoch());
    let columns = [
        ("id", array(Int64Array::from_iter_values(events.iter().map(|event| event.id)))),
        ("name", array(StringArray::from_iter_values(events.iter().map(|event| event.name)))),
        ("email", array(StringArray::from_iter_values(events.iter().map(|event| event.email)))),
        ("payload", array(StringArray::from_iter_values(events.iter().map(|event| event.payload)))),
        ("amount", array(Float64Array::from_iter_values(events.iter().map(|event| event.amount)))),
        ("active", array(events.iter().map(|event| Some(event.active)).collect::<BooleanArray>())),
        ("created_at", array(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))),
    ];
    RecordBatch::try_from_iter(columns).context("the columns have one length")
}
