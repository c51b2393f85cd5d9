//! What a pipeline knows of its database, and what it logs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use batchsql_core::{BatchSql, Conflict, DatabaseState, ErrorClass, MetricsReporter, PipelineGauges};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{FAR, HOUR, config, id, pipeline, plain, receipts, row, settle, table};

#[tokio::test(start_paused = true)]
async fn a_database_that_cannot_be_reached_is_known() {
    let (db, sink) = pipeline(config());
    assert!(matches!(db.health().database, DatabaseState::NotTried));
    assert!(db.health().is_reachable() && !db.health().is_ready(), "not known yet");
    sink.script_acquire([Step::Fail(ErrorClass::Transient)]);
    let error = db.check_connection().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient);
    let DatabaseState::Unreachable { error, .. } = db.health().database else { panic!("{:?}", db.health()) };
    assert_eq!(error.class(), ErrorClass::Transient);
    assert!(!db.health().is_reachable() && !db.health().is_ready());
    db.check_connection().await.unwrap();
    assert!(matches!(db.health().database, DatabaseState::Reachable) && db.health().is_ready());
    sink.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Resource), 10));
    drop(receipts(&db, &plain(), 0..10).await);
    settle().await;
    assert!(!db.health().is_reachable());
    db.flush().await.unwrap();
    assert!(db.health().is_reachable());
}

#[tokio::test(start_paused = true)]
async fn parked_tables_are_known_with_their_reason() {
    let (db, sink) = pipeline(config().park_for(HOUR));
    sink.break_table("b", ErrorClass::Permission);
    sink.break_writes("a", ErrorClass::Schema);
    for name in ["b", "a", "sound"] {
        drop(receipts(&db, &table(name, Conflict::none()), 0..10).await);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let health = db.health();
    let parked: Vec<_> = health.parked.iter().map(|table| (&*table.table, table.error.class())).collect();
    assert_eq!(parked, [("a", ErrorClass::Schema), ("b", ErrorClass::Permission)]);
    assert!(health.is_reachable() && !health.is_ready());
    // The time since then grows by that of the paused clock, except since the last attempt, and by that of the test.
    let ages = || {
        let health = db.health();
        [0, 1].map(|table| SystemTime::now().duration_since(health.parked[table].since).unwrap())
    };
    let before = ages();
    tokio::time::sleep(Duration::from_secs(200)).await;
    for (before, after) in before.into_iter().zip(ages()) {
        assert!(before < Duration::from_secs(10 + 60), "{before:?}");
        assert!((100..=210 + 60).contains(&after.as_secs()), "{before:?} {after:?}");
    }
    sink.mend_table("b");
    sink.mend_table("a");
    db.flush().await.unwrap();
    assert!(db.health().is_ready());
}

#[derive(Clone, Default)]
struct Up(Arc<Mutex<Vec<Option<bool>>>>);

impl MetricsReporter for Up {
    fn gauges(&self, gauges: &PipelineGauges) {
        self.0.lock().unwrap().push(gauges.database_up);
    }
}

#[tokio::test(start_paused = true)]
async fn the_metrics_say_whether_the_database_can_be_reached() {
    let (sink, up) = (ScriptedSink::new(), Up::default());
    let db = BatchSql::builder(sink.clone()).config(config()).metrics_reporter(up.clone()).start().unwrap();
    sink.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 20));
    drop(receipts(&db, &plain(), 0..10).await);
    db.flush().await.unwrap();
    db.close(HOUR).await;
    let mut told = up.0.lock().unwrap().clone();
    told.dedup();
    assert!(told.ends_with(&[Some(false), Some(true)]), "{told:?}");
}

/// The lines that are logged while a future runs, on this thread.
async fn logged(work: impl Future<Output = ()>) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
    let guard = batchsql_testserver::subscribe(subscriber.finish());
    work.await;
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_were_not_written_are_logged_once_with_their_reasons() {
    let lines = logged(async {
        let (db, sink) = pipeline(config().flush_size(68));
        sink.poison(|row| matches!(id(row), 3 | 10));
        drop(receipts(&db, &plain(), 0..68).await);
        db.flush().await.unwrap();
    })
    .await;
    let errors: Vec<&String> = lines.iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    let expected = "rows were not written table=\"t\" rows=2 batch_rows=68 outcomes=2 rejected errors=a row is poisoned (row error, code poison)";
    assert!(errors[0].ends_with(expected), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn a_table_that_stays_broken_is_logged_when_it_parks_and_when_its_rows_are_rejected() {
    let lines = logged(async {
        let (db, sink) = pipeline(config().flush_size(5));
        sink.break_table("t", ErrorClass::Schema);
        drop(receipts(&db, &table("t", Conflict::update(["id"])), 0..40).await);
        db.flush().await.unwrap();
    })
    .await;
    let errors: Vec<&String> = lines.iter().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(errors[0].contains("the table cannot be written; its rows wait"), "{errors:?}");
    assert!(errors[1].contains("rows=40 batch_rows=40 outcomes=40 rejected"), "{errors:?}");
    // Nothing was repaired, so the log does not say that the table works again.
    assert!(lines.iter().any(|line| line.contains("WARN") && line.contains("no row of the parked table is left")));
    assert!(!lines.iter().any(|line| line.contains("can be written again")), "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_logged_once_a_second_at_most() {
    let begin = tokio::time::Instant::now();
    let lines = logged(async {
        let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(1));
        sink.script(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 200));
        for id in 0..200 {
            db.submit(&row(&table("t", Conflict::update(["id"])), id * FAR)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        db.flush().await.unwrap();
    })
    .await;
    let warnings: Vec<&String> = lines.iter().filter(|line| line.contains("WARN")).collect();
    // Each of the 8 lanes failed at the start.
    assert!(warnings[1].contains(" others="), "{warnings:?}");
    let most = usize::try_from(begin.elapsed().as_secs()).unwrap() + 1;
    assert!((2..=most).contains(&warnings.len()), "{} {warnings:?}", warnings.len());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_an_outage_is_logged_once() {
    let lines = logged(async {
        let (db, sink) = pipeline(config());
        sink.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 5));
        for from in [0, 100] {
            drop(receipts(&db, &plain(), from..from + 10).await);
            db.flush().await.unwrap();
        }
    })
    .await;
    let ends: Vec<usize> =
        (0..lines.len()).filter(|line| lines[*line].contains("the database can be reached again")).collect();
    assert_eq!(ends.len(), 1, "{lines:?}");
    assert!(lines[ends[0]].contains("INFO") && lines[ends[0]].contains("after="), "{lines:?}");
    let begin = lines.iter().position(|line| line.contains("no connection to the database; trying again")).unwrap();
    assert!(begin < ends[0], "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_row_counts_the_times_that_it_was_sent() {
    let (db, sink) = pipeline(config().flush_size(64));
    sink.poison(|row| id(row) == 63);
    let mut tracked = receipts(&db, &table("t", Conflict::update(["id"])), 0..64).await;
    db.flush().await.unwrap();
    let outcome = tracked.pop().unwrap().await;
    // Together with 64, 32, 16, 8, 4 and 2 rows, and alone; the halves without it do not count.
    assert_eq!(outcome.failure().unwrap().attempts(), 7);
    assert_eq!(
        outcome.failure().unwrap().to_string(),
        "row of t, tried 7 times: a row is poisoned (row error, code poison)"
    );
    let (db, sink) = pipeline(config());
    sink.script_acquire(std::iter::repeat_n(Step::Fail(ErrorClass::Transient), 10_000));
    let never = receipts(&db, &plain(), 0..1).await.remove(0);
    db.close(Duration::from_secs(1)).await;
    let text = never.await.failure().unwrap().to_string();
    assert!(text.starts_with("row of t, never tried: "), "{text}");
}
