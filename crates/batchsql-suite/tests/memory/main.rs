//! The memory of the pipeline in bytes of the allocator: bounded by the byte budget, even if rows cannot be written.
//! A separate binary, because the allocator is global; one test, so that nothing else allocates.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use batchsql::{BatchSql, ColumnType, Conflict, DeadLetters, PipelineConfig, Schema, WhenFull};
use batchsql_testkit::{NullSink, ScriptedSink, Step};
use tikv_jemalloc_ctl::{epoch, stats};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HOUR: Duration = Duration::from_secs(3600);
const MIB: usize = 1 << 20;

fn allocated() -> usize {
    epoch::advance().unwrap();
    stats::allocated::read().unwrap()
}

fn schema(table: &str, key: bool) -> Schema {
    let mut schema = Schema::builder(table).column("id", ColumnType::I64);
    for column in 0..5 {
        schema = schema.column(format!("text{column}"), ColumnType::Text);
    }
    let conflict = if key { Conflict::update(["id"]) } else { Conflict::none() };
    schema.on_conflict(conflict).build().unwrap()
}

fn row(schema: &Schema, id: i64, text: &str) -> batchsql::DynRow {
    let values = std::iter::once(id.into()).chain((0..5).map(|_| text.into()));
    schema.row().set_all(values).unwrap().finish().unwrap()
}

fn config() -> PipelineConfig {
    PipelineConfig::default()
        .buffer_size(1_000_000)
        .buffer_bytes(4 * MIB)
        .flush_bytes(MIB / 2)
        .flush_interval(HOUR)
        .retry_for(HOUR)
        .park_for(HOUR)
        .statement_timeout(HOUR)
        .when_full(WhenFull::Reject)
}

/// Submits until the budget is full; returns the number of rows.
async fn fill(db: &BatchSql, schema: &Schema, text: &str) -> i64 {
    let mut rows = 0;
    while db.submit(&row(schema, rows * 300, text)).await.is_ok() {
        rows += 1;
    }
    rows
}

async fn behind_a_slow_sink() {
    for text in ["some text of a usual length", &"x".repeat(5_000)] {
        let sink = ScriptedSink::new();
        sink.grow_batches();
        sink.script([Step::Hang; 64]);
        let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
        let schema = schema("slow", true);
        let before = allocated();
        let rows = fill(&db, &schema, text).await;
        let held = allocated() - before;
        // Twice the budget, because buffers double, plus half of it for copies while batches are written.
        assert!(held < 10 * MIB + 2 * MIB, "{rows} rows with texts of {} bytes hold {held} bytes", text.len());
        assert!(rows > 100, "{rows}");
    }
}

async fn with_many_tables() {
    let db = BatchSql::builder(NullSink).config(config().flush_size(25)).start().unwrap();
    let text = "x".repeat(60);
    let tables: Vec<Schema> = (0..500).map(|table| schema(&format!("t{table}"), true)).collect();
    // Each lane has written a batch, so that it can estimate the capacity of the next one.
    for table in &tables {
        for id in 0..120 {
            db.submit(&row(table, id * 300, &text)).await.unwrap();
        }
        db.flush().await.unwrap();
    }
    let before = allocated();
    for table in &tables {
        for id in 0..16 {
            db.submit(&row(table, id * 300, &text)).await.unwrap();
        }
    }
    let held = allocated() - before;
    assert!(held < 10 * MIB, "8,000 rows of 300 bytes in 2,000 open batches hold {held} bytes");
}

async fn of_failed_rows() {
    let sink = ScriptedSink::new();
    sink.poison(|_| true);
    let (dead_letters, letters) = DeadLetters::channel();
    let db = BatchSql::builder(sink).config(config()).dead_letters(dead_letters).start().unwrap();
    let mut booleans = Schema::builder("failed");
    for column in 0..10 {
        booleans = booleans.column(format!("c{column}"), ColumnType::Bool);
    }
    let booleans = booleans.build().unwrap();
    let row = || booleans.row().set_all((0..10).map(|_| true.into())).unwrap().finish().unwrap();
    let before = allocated();
    let mut rows = 0;
    while db.submit(&row()).await.is_ok() {
        rows += 1;
        if rows % 500 == 0 {
            db.flush().await.unwrap();
        }
    }
    let held = allocated() - before;
    assert!(held < 6 * MIB, "{rows} failed rows hold {held} bytes");
    drop(letters);
}

/// Runs each scenario on its own runtime, so that its memory is freed before the next one.
fn run<F: Future<Output = ()>>(scenario: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(scenario);
}

#[test]
fn memory_is_bounded_by_the_byte_budget() {
    run(behind_a_slow_sink());
    run(with_many_tables());
    run(of_failed_rows());
}
