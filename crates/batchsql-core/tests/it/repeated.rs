//! A transient error that one row causes, whatever the state of the server: only that row expires.

use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, ErrorClass, Isolation, OutcomeKind, PipelineConfig, Receipt};
use batchsql_testkit::ScriptedSink;

use crate::support::{FAR, Recorder, config, id, pipeline, receipts, table};

const MINUTE: Duration = Duration::from_secs(60);

/// The outcomes of rows in their order, by the first letter of the kind.
async fn outcomes(receipts: Vec<Receipt>) -> String {
    let mut kinds = String::new();
    for receipt in receipts {
        kinds.push(match receipt.await.kind() {
            OutcomeKind::Written => 'w',
            OutcomeKind::Expired => 'e',
            kind => panic!("{kind:?}"),
        });
    }
    kinds
}

/// Submits a batch of other rows each second, until the time of the first batch is over.
async fn others(db: &BatchSql, conflict: &Conflict) {
    for batch in 1..=65 {
        drop(receipts(db, &table("t", conflict.clone()), batch * FAR..batch * FAR + 10).await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn minutes() -> PipelineConfig {
    config().buffer_size(2_000).retry_for(MINUTE)
}

#[tokio::test(start_paused = true)]
async fn only_the_rows_that_cause_a_transient_error_expire() {
    let check = async |class, conflict: Conflict, bad: &'static [i64], expected: &str| {
        let (db, sink) = pipeline(minutes());
        sink.poison_as(class, move |row| bad.contains(&id(row)));
        let first = receipts(&db, &table("t", conflict.clone()), 0..10).await;
        others(&db, &conflict).await;
        assert_eq!(outcomes(first).await, expected, "{class:?} {conflict:?} {bad:?}");
        let report = db.close(MINUTE).await;
        assert_eq!(report.balance.written(), 660 - bad.len() as u64);
    };
    for class in [ErrorClass::Transient, ErrorClass::Resource] {
        check(class, Conflict::none(), &[3], "wwwewwwwww").await;
        check(class, Conflict::update(["id"]), &[3], "wwwewwwwww").await;
        check(class, Conflict::none(), &[0, 4, 9], "ewwwewwwwe").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_not_halved_where_nothing_shows_that_the_table_can_be_written() {
    let recorder = Recorder::default();
    let sink = ScriptedSink::new();
    let builder = BatchSql::builder(sink.clone()).config(minutes()).metrics_reporter(recorder.clone());
    let db = builder.start().unwrap();
    sink.poison_as(ErrorClass::Transient, |row| id(row) == 3);
    let first = receipts(&db, &table("t", Conflict::none()), 0..10).await;
    assert_eq!(outcomes(first).await, "eeeeeeeeee");
    assert!(recorder.0.lock().unwrap().executed.iter().all(|(rows, _)| *rows == 10), "no part was tried");
}

#[tokio::test(start_paused = true)]
async fn an_atomic_batch_expires_as_a_whole() {
    let (db, sink) = pipeline(minutes().isolation(Isolation::AtomicBatch));
    sink.poison_as(ErrorClass::Transient, |row| id(row) == 3);
    let first = receipts(&db, &table("t", Conflict::none()), 0..10).await;
    others(&db, &Conflict::none()).await;
    assert_eq!(outcomes(first).await, "eeeeeeeeee");
    assert!(sink.batches().iter().all(|batch| batch.len() == 10));
}

#[tokio::test(start_paused = true)]
async fn a_batch_of_which_every_row_is_refused_takes_a_few_tries_and_not_one_for_each_row() {
    let recorder = Recorder::default();
    let sink = ScriptedSink::new();
    let config = minutes().flush_size(1_000).flush_interval(Duration::from_millis(10));
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    sink.poison_as(ErrorClass::Transient, |row| id(row) < 1_000);
    let first = receipts(&db, &table("t", Conflict::none()), 0..1_000).await;
    others(&db, &Conflict::none()).await;
    assert_eq!(outcomes(first).await, "e".repeat(1_000));
    let executed = recorder.0.lock().unwrap().executed.clone();
    let parts = executed.iter().filter(|(rows, is_written)| *rows < 1_000 && !is_written).count();
    assert!((1..=20).contains(&parts), "{parts} tries of a part of 1,000 rows");
}

/// The server fails while the bad row is searched for: what was not tried expires at once.
#[tokio::test(start_paused = true)]
async fn the_search_ends_when_the_connection_is_lost() {
    use batchsql_core::{Attempt, Rows, Schema, Sink, SinkError, Written};
    use std::sync::{Arc, Mutex};

    /// Refuses the batch with row 3 with a code; loses the connection when a part of it is sent.
    #[derive(Clone, Default)]
    struct Failing(Arc<Mutex<usize>>);

    impl Sink for Failing {
        type Conn = ();
        type Plan = ();

        fn name(&self) -> &'static str {
            "failing"
        }

        async fn acquire(&self) -> Result<(), SinkError> {
            Ok(())
        }

        async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
            Ok(())
        }

        async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
            let is_first = (0..rows.len()).any(|row| id(&rows.to_row(row)) < 10);
            match rows.len() {
                _ if !is_first => Ok(Written::default()),
                10 => Err(SinkError::with_code(ErrorClass::Transient, "40001", "raised by a trigger")),
                _ => {
                    *self.0.lock().unwrap() += 1;
                    Err(SinkError::new(ErrorClass::Transient, "the connection was lost"))
                }
            }
        }
    }

    let sink = Failing::default();
    let db = BatchSql::builder(sink.clone()).config(minutes()).start().unwrap();
    let first = receipts(&db, &table("t", Conflict::none()), 0..10).await;
    others(&db, &Conflict::none()).await;
    assert_eq!(outcomes(first).await, "eeeeeeeeee");
    assert_eq!(*sink.0.lock().unwrap(), 1);
}
