//! Owns the checks of the metrics that a pipeline's events produce.
//! Must not know how tests record their results.

use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, DynRow, ErrorClass, OutcomeKind, PipelineConfig, PoolState, Schema, ValueRef,
};
use batchsql_metrics::{Metric, Metrics, MetricsOptions};
use batchsql_testkit::{NullSink, ScriptedSink, Step};
use metrics_util::debugging::DebuggingRecorder;

use crate::snapshot::{Seen, recorded};

const MINUTE: Duration = Duration::from_secs(60);

fn table(name: &str) -> Schema {
    Schema::builder(name).column("id", ColumnType::I64).build().unwrap()
}

fn row(schema: &Schema, id: i64) -> DynRow {
    schema.row().set("id", id).unwrap().finish().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_parked_table_is_shown_and_so_is_its_end() {
    let (metrics, snapshotter) = recorded();
    let sink = ScriptedSink::new();
    sink.break_table("events", ErrorClass::Permission);
    let db = BatchSql::builder(sink.clone()).metrics_reporter(metrics.reporter("scripted")).start().unwrap();
    db.submit(&row(&table("events"), 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.sum(Metric::ParkedTables, &[("database", "scripted")]), 1.0);
    assert_eq!(seen.sum(Metric::TableParks, &[("table", "events"), ("reason", "permission")]), 1.0);
    assert!(seen.sum(Metric::TableParkedSince, &[("database", "scripted"), ("table", "events")]) > 1.7e9);
    sink.mend_table("events");
    assert_eq!(db.close(MINUTE).await.balance.written(), 1);
    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.sum(Metric::ParkedTables, &[]), 0.0);
    assert_eq!(seen.sum(Metric::TableParkedSince, &[]), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_database_that_cannot_be_reached_is_shown() {
    let (metrics, snapshotter) = recorded();
    let sink = ScriptedSink::new();
    sink.script_acquire([Step::Fail(ErrorClass::Transient); 30]);
    let db = BatchSql::builder(sink.clone()).metrics_reporter(metrics.reporter("scripted")).start().unwrap();
    assert!(!Seen::by(&snapshotter).has(Metric::DatabaseUp), "not known yet");
    db.submit(&row(&table("events"), 1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(Seen::by(&snapshotter).has(Metric::DatabaseUp));
    assert_eq!(Seen::by(&snapshotter).sum(Metric::DatabaseUp, &[("database", "scripted")]), 0.0);
    db.flush().await.unwrap();
    db.close(MINUTE).await;
    assert_eq!(Seen::by(&snapshotter).sum(Metric::DatabaseUp, &[("database", "scripted")]), 1.0);
}

#[tokio::test(start_paused = true)]
async fn the_connections_of_a_pool_are_shown_where_there_is_one() {
    let run = async |pool: Option<PoolState>| {
        let (metrics, snapshotter) = recorded();
        let sink = ScriptedSink::new();
        pool.into_iter().for_each(|state| sink.set_pool(state));
        let db = BatchSql::builder(sink).metrics_reporter(metrics.reporter("scripted")).start().unwrap();
        db.submit(&row(&table("events"), 1)).await.unwrap();
        db.close(MINUTE).await;
        let seen = Seen::by(&snapshotter);
        let of = |state| seen.sum(Metric::PoolConnections, &[("state", state)]);
        seen.has(Metric::PoolConnections).then(|| ["in_use", "idle", "max"].map(of))
    };
    assert_eq!(run(Some(PoolState { in_use: 3, idle: 2, max: 8 })).await, Some([3.0, 2.0, 8.0]));
    assert_eq!(run(None).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_run_with_every_kind_of_trouble_adds_up() {
    let (metrics, snapshotter) = recorded();
    metrics.set_current_test_case("trouble");
    let sink = ScriptedSink::new();
    sink.script([Step::Fail(ErrorClass::Transient)]);
    sink.poison(|row| row.get("id") == Some(ValueRef::I64(7)));
    let config = PipelineConfig::default().flush_size(10).buffer_size(20).max_concurrency(1);
    let reporter = metrics.reporter("scripted");
    let db = BatchSql::builder(sink).config(config).metrics_reporter(reporter).start().unwrap();
    let events = table("events");
    for id in 0..95 {
        db.submit(&row(&events, id)).await.unwrap();
    }
    let balance = db.close(MINUTE).await.balance;
    assert!(db.submit(&row(&events, 0)).await.unwrap_err().is_closed());

    let seen = Seen::by(&snapshotter);
    let database = ("database", "scripted");
    let received = seen.sum(Metric::RecordsReceived, &[database, ("table", "events")]);
    assert_eq!((received, balance.accepted), (95.0, 95));
    for kind in OutcomeKind::ALL {
        let outcome = seen.sum(Metric::RecordsOutcome, &[database, ("outcome", kind.name())]);
        assert_eq!(outcome, balance.outcomes.get(kind) as f64, "{kind:?}");
    }
    assert_eq!(seen.sum(Metric::RecordsOutcome, &[]), received);
    assert_eq!(seen.sum(Metric::RecordsProcessed, &[database, ("test_case", "trouble")]), 94.0);
    assert_eq!(seen.sum(Metric::SubmitRefused, &[database, ("reason", "closed")]), 1.0);

    assert_eq!(seen.sum(Metric::Flushes, &[("reason", "rows")]), 9.0);
    assert_eq!(seen.sum(Metric::Flushes, &[("reason", "drain")]), 1.0);
    assert_eq!(seen.sum(Metric::Flushes, &[]), 10.0);
    let mut sizes = seen.observed(Metric::BatchSize, &[("test_case", "trouble")]);
    sizes.sort_by(f64::total_cmp);
    assert_eq!(sizes, [&[5.0][..], &[10.0; 9]].concat());

    assert_eq!(seen.sum(Metric::Retries, &[("reason", "transient")]), 1.0);
    assert_eq!(seen.sum(Metric::Isolations, &[("table", "events")]), 1.0);
    assert_eq!(seen.sum(Metric::Errors, &[("error_type", "transient"), ("test_case", "trouble")]), 1.0);
    let failures = seen.sum(Metric::BatchExecution, &[("status", "failure")]);
    assert_eq!(seen.sum(Metric::Errors, &[]), failures, "each failed attempt is one error");
    let durations = seen.observed(Metric::BatchExecutionDuration, &[("status", "failure")]);
    assert_eq!(durations.len() as f64, failures);
    assert!(seen.sum(Metric::BatchExecution, &[("status", "success")]) >= 9.0);

    assert_eq!(seen.observed(Metric::QueueWait, &[("table", "events")]).len(), 10);
    assert_eq!(seen.observed(Metric::BatchAssemble, &[("table", "events")]).len(), 10);
    assert!(!seen.observed(Metric::EnqueueWait, &[database]).is_empty(), "with a capacity of 20 rows, 95 rows wait");

    assert_eq!(seen.sum(Metric::BufferRecords, &[database]), 0.0);
    assert_eq!(seen.sum(Metric::BufferRecordsLimit, &[database]), 20.0);
    assert_eq!(seen.sum(Metric::BufferBytes, &[database]), 0.0);
    assert_eq!(seen.sum(Metric::BufferBytesLimit, &[database]), f64::from(32 << 20));
    assert_eq!(seen.sum(Metric::InflightBatches, &[database]), 0.0);
    assert_eq!(seen.sum(Metric::ConcurrencyLimit, &[database]), 1.0);
    assert_eq!(seen.sum(Metric::OldestBufferedRecord, &[database]), 0.0);
    assert!(seen.sum(Metric::LastSuccess, &[database]) > 1.7e9, "seconds since 1970");
}

#[tokio::test]
async fn counters_start_at_0_with_exactly_the_labels_of_the_catalogue() {
    let (metrics, snapshotter) = recorded();
    metrics.set_current_test_case("first");
    let db = BatchSql::builder(NullSink).metrics_reporter(metrics.reporter("null")).start().unwrap();
    db.submit(&row(&table("events"), 1)).await.unwrap();
    db.flush().await.unwrap();

    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.sum(Metric::BatchExecution, &[("status", "success")]), 1.0);
    assert_eq!(seen.sum(Metric::BatchExecution, &[("status", "failure")]), 0.0);
    for class in ErrorClass::ALL {
        assert_eq!(seen.sum(Metric::Errors, &[("error_type", class.name())]), 0.0);
        assert_eq!(seen.sum(Metric::Retries, &[("reason", class.name())]), 0.0);
    }
    for kind in OutcomeKind::ALL {
        let expected = if kind == OutcomeKind::Written { 1.0 } else { 0.0 };
        assert_eq!(seen.sum(Metric::RecordsOutcome, &[("outcome", kind.name())]), expected);
    }
    for metric in Metric::ALL {
        let mut expected = metric.labels().to_vec();
        expected.sort_unstable();
        for labels in seen.label_names(*metric) {
            assert_eq!(labels, expected, "{metric:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_test_case_is_the_one_at_the_time_of_sealing() {
    let (metrics, snapshotter) = recorded();
    let sink = ScriptedSink::new();
    sink.script([Step::Delay(Duration::from_secs(1))]);
    let db = BatchSql::builder(sink).metrics_reporter(metrics.reporter("scripted")).start().unwrap();
    let fixed = metrics.reporter("fixed").test_case("own");
    let other = BatchSql::builder(NullSink).metrics_reporter(fixed).start().unwrap();
    let events = table("events");

    metrics.set_current_test_case("first");
    db.submit(&row(&events, 1)).await.unwrap();
    other.submit(&row(&events, 1)).await.unwrap();
    // Sealed after 100 ms, written a second later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    metrics.set_current_test_case("second");
    db.flush().await.unwrap();
    db.submit_all([row(&events, 2), row(&events, 3)]).await.unwrap();
    db.flush().await.unwrap();
    metrics.clear_current_test_case();
    db.submit_all([4, 5, 6].map(|id| row(&events, id))).await.unwrap();
    db.flush().await.unwrap();

    let seen = Seen::by(&snapshotter);
    let database = ("database", "scripted");
    assert_eq!(seen.sum(Metric::RecordsProcessed, &[database, ("test_case", "first")]), 1.0);
    assert_eq!(seen.sum(Metric::RecordsProcessed, &[database, ("test_case", "second")]), 2.0);
    assert_eq!(seen.sum(Metric::RecordsProcessed, &[database]), 6.0, "3 of them without a test case");
    assert_eq!(seen.count(Metric::RecordsProcessed, &[database]), 3);
    let without =
        seen.label_names(Metric::RecordsProcessed).into_iter().filter(|labels| !labels.contains(&"test_case"));
    assert_eq!(without.count(), 1, "the label is absent, not empty");
    assert_eq!(seen.sum(Metric::RecordsProcessed, &[("database", "fixed"), ("test_case", "own")]), 1.0);
    assert_eq!(seen.count(Metric::RecordsProcessed, &[("database", "fixed")]), 1);
}

#[tokio::test]
async fn labels_from_outside_are_bounded() {
    let (metrics, snapshotter) = recorded();
    let metrics = metrics.options(MetricsOptions { max_tables: 2, max_test_cases: 1 });
    let db = BatchSql::builder(NullSink).metrics_reporter(metrics.reporter("null")).start().unwrap();
    for (case, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        metrics.set_current_test_case(&format!("case-{case}"));
        db.submit(&row(&table(name), 1)).await.unwrap();
        db.flush().await.unwrap();
        db.submit(&row(&table("a"), 1)).await.unwrap();
        db.flush().await.unwrap();
    }
    let seen = Seen::by(&snapshotter);
    assert_eq!(seen.count(Metric::RecordsReceived, &[]), 3);
    assert_eq!(seen.sum(Metric::RecordsReceived, &[("table", "a")]), 5.0);
    assert_eq!(seen.sum(Metric::RecordsReceived, &[("table", "other")]), 2.0);
    assert_eq!(seen.sum(Metric::RecordsProcessed, &[("table", "a"), ("test_case", "case-0")]), 2.0);
    assert_eq!(seen.sum(Metric::RecordsProcessed, &[("table", "a"), ("test_case", "other")]), 3.0);
}

#[test]
fn without_an_injected_recorder_the_default_one_is_used() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    // The global recorder can be set only once, so the default recorder of this thread takes its place.
    let _guard = metrics::set_default_local_recorder(&recorder);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let db = BatchSql::builder(NullSink).metrics_reporter(Metrics::new().reporter("null")).start().unwrap();
        db.submit(&row(&table("events"), 1)).await.unwrap();
        db.flush().await.unwrap();
    });
    assert_eq!(Seen::by(&snapshotter).sum(Metric::RecordsProcessed, &[("database", "null")]), 1.0);
}

#[tokio::test(start_paused = true)]
async fn an_announced_table_has_every_series_at_nought_before_its_first_row() {
    let (metrics, snapshotter) = recorded();
    metrics.reporter("scripted").test_case("soak").announce("events");
    // The log of a durable intake and the feeds of a stream have their own tables.
    let of_batches =
        |metric: &Metric| !["batchsql_durable_", "batchsql_feed_"].iter().any(|of| metric.name().starts_with(of));
    let of_tables =
        || Metric::ALL.iter().copied().filter(|metric| metric.labels().contains(&"table") && of_batches(metric));
    let case = [("database", "scripted"), ("test_case", "soak")];
    let count = |seen: &Seen, metric: Metric| seen.count(metric, &[("database", "scripted"), ("table", "events")]);
    let announced = Seen::by(&snapshotter);
    for metric in of_tables() {
        assert!(count(&announced, metric) > 0, "{metric:?}");
    }
    for metric in [Metric::RecordsProcessed, Metric::BatchExecution, Metric::Errors] {
        assert_eq!(announced.sum(metric, &case), 0.0, "{metric:?}");
    }

    let reporter = metrics.reporter("scripted").test_case("soak");
    let db = BatchSql::builder(NullSink).metrics_reporter(reporter).start().unwrap();
    db.submit(&row(&table("events"), 1)).await.unwrap();
    db.close(MINUTE).await;
    metrics.reporter("scripted").test_case("soak").announce("events");
    let after = Seen::by(&snapshotter);
    for metric in of_tables() {
        assert_eq!(count(&after, metric), count(&announced, metric), "{metric:?} was created later");
    }
    assert_eq!(after.sum(Metric::RecordsProcessed, &case), 1.0, "announced again, and still counted");
}
