//! Settings of single tables: they take the place of the pipeline's for their table, and for no other.

use std::time::{Duration, SystemTime};

use batchsql_core::{
    BatchSql, ColumnType, Conflict, DynRow, ErrorClass, Isolation, Ordering, OutcomeKind, PipelineConfig, Row, Schema,
    TableConfig, TableName,
};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::expiry::down;
use crate::support::{HOUR, Recorder, config, id, pipeline, receipts, row, settle, table};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn rows_of<'a>(applied: &'a [DynRow], name: &str) -> Vec<&'a DynRow> {
    applied.iter().filter(|row| row.schema().table_display() == name).collect()
}

#[tokio::test(start_paused = true)]
async fn each_table_is_ready_at_its_own_number_of_rows() {
    let sink = ScriptedSink::new();
    let builder = BatchSql::builder(sink.clone()).table("urgent", TableConfig::default().flush_size(2));
    // The order of the calls does not matter.
    let config = config().table("bulk", TableConfig::default().flush_size(25));
    let db = builder.config(config).table("never used", TableConfig::default().flush_size(1)).start().unwrap();
    for (name, flush_size) in [("urgent", 2), ("bulk", 25), ("other", 10)] {
        let schema = table(name, Conflict::none());
        for id in 0..flush_size - 1 {
            db.submit(&row(&schema, id)).await.unwrap();
        }
        settle().await;
        assert_eq!(rows_of(&sink.applied(), name).len(), 0, "{name} has less than {flush_size} rows");
        db.submit(&row(&schema, flush_size)).await.unwrap();
        settle().await;
        assert_eq!(rows_of(&sink.applied(), name).len() as i64, flush_size, "{name}");
    }
    assert_eq!(db.config().tables.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_grows_from_the_size_of_its_table() {
    // Without large batches, flush_size is also the most rows of one batch.
    let (db, sink) =
        pipeline(config().buffer_size(1000).max_concurrency(1).table("bulk", TableConfig::default().flush_size(50)));
    sink.script([Step::Delay(SECOND)]);
    for name in ["first", "bulk", "other"] {
        let schema = table(name, Conflict::none());
        for id in 0..if name == "first" { 10 } else { 100 } {
            db.submit(&row(&schema, id)).await.unwrap();
        }
    }
    db.flush().await.unwrap();
    let sizes = |name: &str| {
        let batches = sink.batches().into_iter().filter(|batch| batch[0].schema().table_display() == name);
        batches.map(|batch| batch.len()).collect::<Vec<_>>()
    };
    assert_eq!(sizes("bulk"), [50, 50]);
    assert_eq!(sizes("other"), [10; 10]);
}

#[tokio::test(start_paused = true)]
async fn each_table_is_written_at_its_own_age() {
    let urgent = TableConfig::default().flush_interval(Duration::from_millis(5));
    let bulk = TableConfig::default().flush_interval(10 * SECOND);
    let eager = TableConfig::default().flush_interval(Duration::ZERO);
    let config = config().flush_interval(SECOND).table("a.urgent", urgent).table("bulk", bulk).table("eager", eager);
    let (db, _) = pipeline(config);
    let begin = Instant::now();
    let urgent = Schema::builder(TableName::qualified("a", "urgent")).column("id", ColumnType::I64).build().unwrap();
    let bulk = db.submit_tracked(&row(&table("bulk", Conflict::none()), 1)).await.unwrap();
    let urgent = db.submit_tracked(&urgent.row().set("id", 1_i64).unwrap().finish().unwrap()).await.unwrap();
    let eager = db.submit_tracked(&row(&table("eager", Conflict::none()), 1)).await.unwrap();
    let other = db.submit_tracked(&row(&table("urgent", Conflict::none()), 1)).await.unwrap();
    for (receipt, millis) in [(eager, 0), (urgent, 5), (other, 1000), (bulk, 10_000)] {
        assert!(receipt.await.is_written());
        let elapsed = begin.elapsed();
        let expected = Duration::from_millis(millis);
        assert!((expected..expected + Duration::from_millis(3)).contains(&elapsed), "{elapsed:?}, not {expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_oldest_row_may_be_in_the_table_with_the_latest_deadline() {
    let recorder = Recorder::default();
    let config = config().flush_interval(10 * SECOND).table("bulk", TableConfig::default().flush_interval(HOUR));
    let db = BatchSql::builder(ScriptedSink::new()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    db.submit(&row(&table("bulk", Conflict::none()), 1)).await.unwrap();
    tokio::time::sleep(MINUTE).await;
    db.submit(&row(&table("other", Conflict::none()), 1)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    let oldest = recorder.0.lock().unwrap().gauges.unwrap().oldest_row.unwrap();
    let age = SystemTime::now().duration_since(oldest).unwrap();
    assert!(age >= MINUTE - SECOND, "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn each_table_has_its_own_order() {
    for (of_pipeline, of_table, is_kept) in [
        (Ordering::Auto, None, false),
        (Ordering::Auto, Some(Ordering::PerTable), true),
        (Ordering::PerTable, None, true),
        (Ordering::PerTable, Some(Ordering::None), false),
        (Ordering::PerTable, Some(Ordering::Auto), false),
    ] {
        let mut own = TableConfig::default();
        own.ordering = of_table;
        let (db, sink) = pipeline(config().ordering(of_pipeline).table("t", own));
        // The first batch of the table is retried after the second one, unless the second one must wait.
        sink.script([Step::Fail(ErrorClass::Resource)]);
        for id in 0..40 {
            db.submit(&row(&table("t", Conflict::none()), id)).await.unwrap();
        }
        db.flush().await.unwrap();
        let ids: Vec<i64> = sink.applied().iter().map(id).collect();
        assert_eq!(ids.is_sorted(), is_kept, "{of_pipeline:?}, {of_table:?}: {ids:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_are_sorted_by_key_only_in_tables_that_need_not_keep_their_order() {
    let sink = ScriptedSink::new();
    sink.sort_by_key();
    let ordered = TableConfig::default().ordering(Ordering::PerTable);
    let db = BatchSql::builder(sink.clone()).config(config()).table("ordered", ordered).start().unwrap();
    let given = [3, 1, 2, 9, 7];
    for name in ["ordered", "free"] {
        let schema = table(name, Conflict::update(["id"]));
        for id in given {
            db.submit(&row(&schema, id)).await.unwrap();
        }
    }
    db.flush().await.unwrap();
    let written = |name: &str| rows_of(&sink.applied(), name).into_iter().map(id).collect::<Vec<_>>();
    assert_eq!(written("ordered"), given);
    assert_eq!(written("free"), [1, 2, 3, 7, 9]);
}

#[tokio::test(start_paused = true)]
async fn two_keys_of_a_table_that_is_in_order_are_one_table() {
    let (db, sink) = pipeline(config().table("t", TableConfig::default().ordering(Ordering::PerTable)));
    sink.script([Step::Fail(ErrorClass::Transient)]);
    let schema = |key| {
        let schema = Schema::builder("t").column("id", ColumnType::I64).column("other", ColumnType::I64);
        schema.on_conflict(Conflict::update([key])).build().unwrap()
    };
    let schemas = [schema("id"), schema("other")];
    for number in 0..40 {
        let row = schemas[number as usize % 2].row().set("id", number).unwrap().set("other", number).unwrap();
        db.submit(&row.finish().unwrap()).await.unwrap();
    }
    db.flush().await.unwrap();
    assert_eq!(sink.applied().iter().map(id).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
}

/// How long the rows of three tables wait for their outcome, with `retry_for` of 10 s, a minute and an hour.
async fn expire_each_in_its_time(db: BatchSql) {
    let begin = Instant::now();
    let names = [("short", 10), ("other", 60), ("long", 3600)];
    let mut all = Vec::new();
    for (name, seconds) in names {
        // Several lanes, and one with several batches.
        let keyed = receipts(&db, &table(name, Conflict::update(["id"])), 0..20).await;
        let plain = receipts(&db, &table(&format!("{name} plain"), Conflict::none()), 0..10).await;
        all.push((name, seconds, keyed.into_iter().chain(plain)));
    }
    for (name, seconds, receipts) in all {
        for receipt in receipts {
            assert_eq!(receipt.await.kind(), OutcomeKind::Expired, "{name}");
            let elapsed = begin.elapsed().as_secs();
            assert!((seconds..=seconds + 2).contains(&elapsed), "{name}: {elapsed} s");
        }
    }
}

fn with_retry_times() -> PipelineConfig {
    let short = TableConfig::default().retry_for(10 * SECOND);
    let long = TableConfig::default().retry_for(HOUR);
    let config = config().buffer_size(1000).retry_for(MINUTE);
    let config = config.table("short", short.clone()).table("short plain", short);
    config.table("long", long.clone()).table("long plain", long)
}

#[tokio::test(start_paused = true)]
async fn each_table_is_retried_for_its_own_time() {
    let (db, sink) = pipeline(with_retry_times());
    for name in ["short", "other", "long"] {
        sink.break_table(name, ErrorClass::Transient);
        sink.break_table(format!("{name} plain"), ErrorClass::Transient);
    }
    expire_each_in_its_time(db).await;
}

#[tokio::test(start_paused = true)]
async fn each_table_waits_for_a_connection_for_its_own_time() {
    let (db, _) = down(with_retry_times());
    expire_each_in_its_time(db).await;
}

#[tokio::test(start_paused = true)]
async fn invalid_settings_are_refused_with_the_table_and_the_setting() {
    let start = |config: PipelineConfig, table: TableConfig| {
        let sink = ScriptedSink::new();
        sink.never_undo();
        BatchSql::builder(sink).config(config).table("a.b", table).start().map(drop).unwrap_err()
    };
    let error = start(config(), TableConfig::default().flush_size(0)).to_string();
    assert!(error.starts_with("table a.b: flush_size is 0"), "{error}");
    let error = start(config().isolation(Isolation::AtomicBatch).flush_size(1), TableConfig::default().flush_size(5));
    assert!(error.to_string().contains("set flush_size to 1, also that of each table"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_table_has_as_many_turns_as_its_weight_says() {
    for (weight, expected) in [(1, 5), (4, 8), (9, 9)] {
        let config = config().buffer_size(1000).max_concurrency(1).table("u", TableConfig::default().weight(weight));
        let (db, sink) = pipeline(config);
        sink.script(std::iter::repeat_n(Step::Delay(SECOND), 11));
        // While the first batch is written, both tables get ten batches.
        let (first, bulk, urgent) =
            (table("first", Conflict::none()), table("bulk", Conflict::none()), table("u", Conflict::none()));
        for (schema, rows) in [(&first, 10), (&bulk, 100), (&urgent, 100)] {
            for id in 0..rows {
                db.submit(&row(schema, id)).await.unwrap();
            }
            settle().await;
        }
        db.flush().await.unwrap();
        let of_urgent = sink.batches()[1..11].iter().filter(|batch| batch[0].schema() == &urgent).count();
        assert_eq!(of_urgent, expected, "weight {weight}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_with_a_large_weight_leaves_a_permit_to_an_active_table() {
    let heavy = TableConfig::default().weight(100);
    let (db, sink) = pipeline(config().buffer_size(2000).max_concurrency(4).table("heavy", heavy));
    sink.slow_table("heavy", SECOND);
    for receipt in receipts(&db, &table("light", Conflict::none()), 0..10).await {
        assert!(receipt.await.is_written());
    }
    for id in 0..1000 {
        db.submit(&row(&table("heavy", Conflict::none()), id)).await.unwrap();
    }
    settle().await;
    let all = receipts(&db, &table("light", Conflict::none()), 10..20).await;
    let begin = Instant::now();
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    assert!(begin.elapsed() < SECOND / 100, "{:?}", begin.elapsed());
}
