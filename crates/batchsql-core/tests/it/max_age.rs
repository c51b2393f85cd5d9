//! Rows that are older than `max_age`: they end as `Expired` whatever delayed them, and never without a last try.

use std::time::Duration;

use batchsql_core::{
    BatchSql, Conflict, Delivery, ErrorClass, Isolation, OutcomeKind, PipelineConfig, Receipt, SessionEnd, TableConfig,
};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::expiry::down;
use crate::support::{HOUR, config, pipeline, receipts, row, settle, table};

const SECOND: Duration = Duration::from_secs(1);
const MAX_AGE: Duration = Duration::from_secs(32);

/// Rows have an age limit, and no other limit that matters.
fn aged() -> PipelineConfig {
    config().buffer_size(2000).flush_interval(SECOND).retry_for(2 * HOUR).park_for(2 * HOUR).max_age(MAX_AGE)
}

/// Every row ends as `kind`, from `from` to `until` after `begin`.
async fn end(all: Vec<Receipt>, kind: OutcomeKind, begin: Instant, from: Duration, until: Duration) {
    for receipt in all {
        let outcome = tokio::time::timeout(20 * HOUR, receipt).await.expect("a row has no outcome");
        assert_eq!(outcome.kind(), kind, "{outcome:?}");
        let elapsed = begin.elapsed();
        assert!((from..=until).contains(&elapsed), "after {elapsed:?}, not {from:?} to {until:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_too_old_expire_whatever_the_error_is() {
    for class in [ErrorClass::Transient, ErrorClass::Resource, ErrorClass::Schema, ErrorClass::Permission] {
        for conflict in [Conflict::none(), Conflict::update(["id"])] {
            let (db, sink) = pipeline(aged());
            sink.break_table("t", class);
            let begin = Instant::now();
            // Many batches: those of a lane end together. The last one is not full.
            let all = receipts(&db, &table("t", conflict), 0..205).await;
            // A parked table is probed every few seconds.
            let until = MAX_AGE + if class == ErrorClass::Transient { SECOND } else { 6 * SECOND };
            end(all, OutcomeKind::Expired, begin, MAX_AGE, until).await;
            assert_eq!(db.health().parked.len(), 0);
            assert_eq!(db.close(SECOND).await.balance.expired(), 205);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_too_old_expire_when_no_connection_can_be_had() {
    for class in [ErrorClass::Transient, ErrorClass::Resource, ErrorClass::Permission] {
        let (db, sink) = down(aged());
        sink.because(class);
        let begin = Instant::now();
        let mut all = receipts(&db, &table("t", Conflict::none()), 0..25).await;
        all.extend(receipts(&db, &table("u", Conflict::update(["id"])), 0..25).await);
        tokio::time::sleep(10 * SECOND).await;
        let later = receipts(&db, &table("t", Conflict::none()), 0..25).await;
        end(all, OutcomeKind::Expired, begin, MAX_AGE, MAX_AGE + 6 * SECOND).await;
        end(later, OutcomeKind::Expired, begin, MAX_AGE + 10 * SECOND, MAX_AGE + 16 * SECOND).await;
        assert!(sink.attempts() < 100, "{} attempts", sink.attempts());
    }
}

#[tokio::test(start_paused = true)]
async fn only_tables_with_a_limit_have_one() {
    for (pipeline_has_one, limited) in [(true, "a"), (false, "b")] {
        let mut config = aged();
        let own = if pipeline_has_one { Duration::MAX } else { MAX_AGE };
        config.max_age = pipeline_has_one.then_some(MAX_AGE);
        let (db, sink) = pipeline(config.table("b", TableConfig::default().max_age(own)));
        for name in ["a", "b"] {
            let begin = Instant::now();
            sink.break_table(name, ErrorClass::Transient);
            let all = receipts(&db, &table(name, Conflict::none()), 0..20).await;
            if name == limited {
                end(all, OutcomeKind::Expired, begin, MAX_AGE, MAX_AGE + 2 * SECOND).await;
            }
        }
        tokio::time::sleep(HOUR).await;
        assert_eq!(db.balance().expired(), 20, "{limited}");
        // A pipeline that is dropped would go on trying.
        db.close(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_row_expires_before_a_try_that_began_when_it_was_too_old() {
    // The table is repaired just before the limit.
    let (db, sink) = pipeline(aged());
    sink.break_table("t", ErrorClass::Transient);
    let all = receipts(&db, &table("t", Conflict::update(["id"])), 0..10).await;
    tokio::time::sleep(MAX_AGE - Duration::from_millis(1)).await;
    sink.mend_table("t");
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    // The try that began before the limit and failed after it is not the last one.
    let (db, sink) = pipeline(aged().statement_timeout(MAX_AGE + SECOND));
    sink.script([Step::HangInQueue]);
    for receipt in receipts(&db, &table("t", Conflict::none()), 0..10).await {
        assert!(receipt.await.is_written());
    }
    // With the same errors again it is.
    let (db, sink) = pipeline(aged().statement_timeout(MAX_AGE + SECOND));
    sink.script([Step::HangInQueue]);
    // The half, and all parts of it in which a bad row is searched for.
    sink.script([Step::Fail(ErrorClass::Transient); 9]);
    let begin = Instant::now();
    let all = receipts(&db, &table("t", Conflict::none()), 0..10).await;
    // It timed out, so it is written in halves.
    let mut kinds = Vec::new();
    for receipt in all {
        kinds.push(receipt.await.kind());
    }
    assert_eq!(kinds[..5], [OutcomeKind::Expired; 5]);
    assert_eq!(kinds[5..], [OutcomeKind::Written; 5]);
    assert!(begin.elapsed() < MAX_AGE + 2 * SECOND, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn rows_that_only_wait_for_their_turn_are_written() {
    let (db, sink) = pipeline(aged().max_concurrency(1));
    sink.slow_table("t", 10 * SECOND);
    let all = receipts(&db, &table("t", Conflict::none()), 0..200).await;
    let begin = Instant::now();
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    assert!(begin.elapsed() > 2 * MAX_AGE);
}

#[tokio::test(start_paused = true)]
async fn a_backlog_does_not_expire_because_one_batch_is_refused() {
    // No bad row is searched for.
    let config = aged().max_concurrency(1).statement_timeout(10 * MAX_AGE).isolation(Isolation::AtomicBatch);
    let (db, sink) = pipeline(config);
    sink.slow_table("t", 10 * SECOND);
    // The seventh batch has its first try when all are too old.
    sink.script([Step::Apply; 6]);
    sink.script([Step::Fail(ErrorClass::Transient)]);
    let all = receipts(&db, &table("t", Conflict::none()), 0..200).await;
    let mut expired = Vec::new();
    for (number, receipt) in all.into_iter().enumerate() {
        if !receipt.await.is_written() {
            expired.push(number);
        }
    }
    assert_eq!(expired, (60..70).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_row_that_may_be_in_the_database_is_unknown() {
    let (db, sink) = pipeline(aged().delivery(Delivery::AtLeastOnce));
    sink.script([Step::LoseReply]);
    let begin = Instant::now();
    let all = receipts(&db, &table("t", Conflict::none()), 0..10).await;
    settle().await;
    sink.break_table("t", ErrorClass::Transient);
    end(all, OutcomeKind::Unknown, begin, MAX_AGE, MAX_AGE + SECOND).await;
    assert_eq!(sink.applied().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn rows_behind_an_abandoned_write_expire_in_their_time() {
    for is_timed in [true, false] {
        let sink = ScriptedSink::new();
        sink.set_late_write_limit(10 * HOUR);
        sink.script([Step::Late]);
        if is_timed {
            sink.hide_sessions();
        } else {
            sink.script_end_session([Ok(SessionEnd::Pending); 10_000]);
        }
        let db = BatchSql::builder(sink).config(aged()).start().unwrap();
        let schema = table("t", Conflict::update(["id"]));
        let begin = Instant::now();
        let sent = receipts(&db, &schema, 0..10).await;
        settle().await;
        let behind = receipts(&db, &schema, 0..10).await;
        let sent = tokio::spawn(end(sent, OutcomeKind::Unknown, begin, MAX_AGE, MAX_AGE + 2 * SECOND));
        end(behind, OutcomeKind::Expired, begin, MAX_AGE, MAX_AGE + 2 * SECOND).await;
        sent.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_written_together_are_of_about_the_same_age() {
    for (max_age, batches) in [(None, 1), (Some(MAX_AGE), 2)] {
        let sink = ScriptedSink::new();
        sink.grow_batches();
        let mut config = aged().max_concurrency(1);
        config.max_age = max_age;
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        // It shows that the table may have larger batches.
        receipts(&db, &table("t", Conflict::none()), 0..10).await;
        db.flush().await.unwrap();
        sink.script([Step::Delay(20 * SECOND)]);
        receipts(&db, &table("first", Conflict::none()), 0..10).await;
        settle().await;
        for wait in [0, 5, 10] {
            tokio::time::sleep(wait * SECOND).await;
            receipts(&db, &table("t", Conflict::none()), 0..10).await;
        }
        db.flush().await.unwrap();
        assert_eq!(sink.batches().len(), 2 + batches, "{max_age:?}");
        assert_eq!(sink.batches()[2].len(), if batches == 1 { 30 } else { 20 }, "{max_age:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_row_has_its_whole_time_also_in_a_batch_with_older_rows() {
    let (db, _) = down(aged().max_concurrency(1));
    let schema = table("t", Conflict::none());
    let old = receipts(&db, &schema, 0..5).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    let begin = Instant::now();
    let new = db.submit_tracked(&row(&schema, 6)).await.unwrap();
    end(old, OutcomeKind::Expired, begin, MAX_AGE, MAX_AGE + 6 * SECOND).await;
    end(vec![new], OutcomeKind::Expired, begin, MAX_AGE, MAX_AGE + 6 * SECOND).await;
}
