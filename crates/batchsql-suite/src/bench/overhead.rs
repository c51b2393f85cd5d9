//! Owns the measurement of the pipeline alone: a sink that does nothing, ten producers, seven columns.
//! Must not know databases.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use batchsql::prometheus::PrometheusMetrics;
use batchsql::{BatchSql, BatchSqlBuilder, DynRow, Receipt, Row, TypedRow, Value};
use batchsql_testkit::NullSink;
use tokio::task::JoinSet;

use super::figures::{Figure, Measurement, Plan, summarise};
use crate::memory;
use crate::rows::{Event, Texts};

const PRODUCERS: usize = 10;
/// Rows that each producer builds before the clock starts and submits repeatedly.
const PREPARED: usize = 1000;

/// Receipts that a producer holds before it awaits the oldest.
const UNTOLD: usize = 2000;

/// The kind of rows and the way to submit them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    Typed,
    TypedMany,
    TypedWithMetrics,
    TypedTracked,
    DynamicPrepared,
    DynamicBuilt,
}

const CONTENDERS: [(Contender, &str); 6] = [
    (Contender::Typed, "typed rows, submit"),
    (Contender::TypedMany, "typed rows, submit_all"),
    (Contender::TypedWithMetrics, "typed rows, submit, metrics on"),
    (Contender::TypedTracked, "typed rows, submit_tracked, all receipts awaited"),
    (Contender::DynamicPrepared, "dynamic rows built before, submit"),
    (Contender::DynamicBuilt, "dynamic rows built and submitted"),
];

/// Measures the pipeline with a sink that does nothing.
///
/// # Errors
/// The pipeline rejects a row, which is a defect.
pub async fn overhead(plan: Plan) -> Result<Vec<Figure>> {
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        let mut measurements = Vec::new();
        for (contender, name) in CONTENDERS {
            eprintln!("overhead, round {} of {}: {name}", round + 1, plan.rounds);
            measurements.push(measure(contender, plan.rows).await?);
        }
        rounds.push(measurements);
    }
    Ok(summarise("pipeline alone", &CONTENDERS.map(|(_, name)| name), &rounds))
}

fn builder() -> BatchSqlBuilder<NullSink> {
    BatchSql::builder(NullSink)
}

async fn measure(contender: Contender, rows: usize) -> Result<Measurement> {
    let metrics = PrometheusMetrics::new()?;
    let builder = match contender {
        Contender::TypedWithMetrics => builder().metrics_reporter(metrics.reporter("null")),
        _ => builder(),
    };
    let db = builder.start()?;
    let per_producer = rows / PRODUCERS;
    let mut producers = JoinSet::new();
    let ready = Arc::new(tokio::sync::Barrier::new(PRODUCERS + 1));
    for producer in 0..PRODUCERS {
        let (db, ready) = (db.clone(), Arc::clone(&ready));
        producers.spawn(async move {
            let mut texts: Vec<Texts> = std::iter::repeat_with(Texts::default).take(PREPARED).collect();
            let first = (producer * per_producer) as i64;
            let events: Vec<Event<'_>> = texts.iter_mut().zip(first..).map(|(t, id)| t.event(id, 0)).collect();
            let dynamic: Vec<DynRow> = events.iter().map(dynamic).collect::<Result<_, _>>()?;
            ready.wait().await;
            produce(contender, &db, &events, &dynamic, per_producer).await
        });
    }
    ready.wait().await;
    let (before, begin) = (memory::allocations(), Instant::now());
    while let Some(produced) = producers.join_next().await {
        produced??;
    }
    let report = db.close(Duration::from_secs(60)).await;
    let took = begin.elapsed();
    let allocations = memory::allocations().zip(before).map(|(after, before)| (after - before) as f64);
    anyhow::ensure!(report.is_complete(), "rows were lost: {:?}", report.balance);
    let written = report.balance.written() as f64;
    Ok(Measurement { rate: written / took.as_secs_f64(), allocations: allocations.map(|count| count / written) })
}

fn dynamic(event: &Event<'_>) -> Result<DynRow, batchsql::RowError> {
    let values = event.values().map(|value| value.to_value());
    Event::type_schema().row().set_all(values)?.finish()
}

async fn produce(
    contender: Contender,
    db: &BatchSql,
    events: &[Event<'_>],
    dynamic: &[DynRow],
    rows: usize,
) -> Result<()> {
    match contender {
        Contender::Typed | Contender::TypedWithMetrics => submit(db, events, rows).await,
        Contender::DynamicPrepared => submit(db, dynamic, rows).await,
        Contender::TypedMany => {
            for _ in 0..rows / events.len() {
                db.submit_all(events).await?;
            }
            Ok(())
        }
        Contender::TypedTracked => {
            // The oldest receipts are awaited when there are more than the capacity of the buffer, so that no
            // producer waits for a batch that only further rows can fill.
            let mut receipts = VecDeque::with_capacity(UNTOLD);
            for event in events.iter().cycle().take(rows) {
                if receipts.len() == UNTOLD {
                    await_one(&mut receipts).await?;
                }
                receipts.push_back(db.submit_tracked(event).await?);
            }
            db.flush().await?;
            while !receipts.is_empty() {
                await_one(&mut receipts).await?;
            }
            Ok(())
        }
        Contender::DynamicBuilt => {
            let schema = Event::type_schema();
            for event in events.iter().cycle().take(rows) {
                let row = schema
                    .row()
                    .set("id", event.id)?
                    .set("name", event.name)?
                    .set("email", event.email)?
                    .set("payload", event.payload)?
                    .set("amount", event.amount)?
                    .set("active", Value::Bool(event.active))?
                    .set("created_at", event.created_at)?
                    .finish()?;
                db.submit(&row).await?;
            }
            Ok(())
        }
    }
}

async fn await_one(receipts: &mut VecDeque<Receipt>) -> Result<()> {
    if let Some(receipt) = receipts.pop_front() {
        anyhow::ensure!(receipt.await.is_written(), "a row was not written");
    }
    Ok(())
}

async fn submit<R: Row>(db: &BatchSql, prepared: &[R], rows: usize) -> Result<()> {
    for row in prepared.iter().cycle().take(rows) {
        db.submit(row).await?;
    }
    Ok(())
}
