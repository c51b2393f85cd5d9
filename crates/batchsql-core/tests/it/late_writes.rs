//! Abandoned writes that take effect late: no row that was reported as written is overwritten by an older one.

use std::time::Duration;

use batchsql_core::{
    BatchSql, Conflict, DynRow, ErrorClass, OutcomeKind, PipelineConfig, Position, Schema, SessionEnd, Value, ValueRef,
};
use batchsql_testkit::{ScriptedSink, Step};
use tokio::time::Instant;

use crate::support::{FAR, HOUR, config, pipeline, settle, table};

fn keyed() -> Schema {
    table("t", Conflict::update(["id"]))
}

async fn submit(db: &BatchSql, id: i64, version: &str) -> batchsql_core::Receipt {
    let row = keyed().row().set("id", id).unwrap().set("note", version).unwrap().finish().unwrap();
    db.submit_tracked(&row).await.unwrap()
}

fn version(sink: &ScriptedSink, id: i64) -> Option<String> {
    let rows = sink.tables();
    let row = rows.rows("t").iter().find(|row| row["id"] == Value::from(id))?;
    match row["note"].as_ref() {
        ValueRef::Text(text) => Some(text.to_owned()),
        _ => None,
    }
}

/// A pipeline whose sink states after which time a late write has no effect.
fn limited(config: PipelineConfig, limit: Duration) -> (BatchSql, ScriptedSink) {
    let sink = ScriptedSink::new();
    sink.set_late_write_limit(limit);
    (BatchSql::builder(sink.clone()).config(config).start().unwrap(), sink)
}

fn eager() -> PipelineConfig {
    config().flush_interval(Duration::ZERO).retry_for(HOUR)
}

#[tokio::test(start_paused = true)]
async fn a_write_that_arrives_late_overwrites_nothing() {
    for step in [Step::Late, Step::LateAndSilent] {
        let (db, sink) = pipeline(eager());
        sink.script([step]);
        let old = submit(&db, 1, "v1").await;
        settle().await;
        let new = submit(&db, 1, "v2").await;
        assert!(old.await.is_written(), "it was repeated");
        assert!(new.await.is_written());
        assert_eq!(sink.ended_sessions(), 1, "before the repeat");
        assert_eq!(sink.deliver(), 0, "the session of the old write has ended");
        assert_eq!(version(&sink, 1).as_deref(), Some("v2"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_waits_until_its_session_has_ended_and_others_go_on() {
    let (db, sink) = pipeline(eager());
    sink.script([Step::Late]);
    sink.script_end_session([Err(ErrorClass::Transient), Ok(SessionEnd::Pending), Ok(SessionEnd::Pending)]);
    let begin = Instant::now();
    let held = submit(&db, 1, "v1").await;
    tokio::time::sleep(Duration::from_nanos(1)).await;
    let same_key = submit(&db, 1, "v2").await;
    // Another lane, as far as hashes go.
    let mut others = Vec::new();
    for id in 2..30 {
        others.push(submit(&db, id * FAR, "v1").await);
    }
    assert!(held.await.is_written());
    assert!(begin.elapsed() > Duration::from_millis(1), "after two more checks, with delays");
    assert!(same_key.await.is_written());
    for other in others {
        assert!(other.await.is_written());
    }
    assert_eq!((sink.deliver(), sink.ended_sessions()), (0, 1));
    assert_eq!(version(&sink, 1).as_deref(), Some("v2"));
}

#[tokio::test(start_paused = true)]
async fn rows_without_order_do_not_wait() {
    let (db, sink) = pipeline(eager());
    sink.script([Step::Late]);
    let plain = table("plain", Conflict::none());
    let row = |id: i64| plain.row().set("id", id).unwrap().set("note", "n").unwrap().finish().unwrap();
    assert_eq!(db.submit_tracked(&row(1)).await.unwrap().await.kind(), OutcomeKind::Unknown);
    assert!(db.submit_tracked(&row(2)).await.unwrap().await.is_written());
    assert_eq!((sink.ended_sessions(), sink.deliver()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn where_no_session_can_be_ended_the_lane_waits_for_the_time_that_the_sink_states() {
    for has_sessions in [true, false] {
        let (db, sink) = limited(eager().retry_for(2 * HOUR), HOUR);
        if has_sessions {
            sink.script_end_session([Ok(SessionEnd::Impossible)]);
        } else {
            sink.hide_sessions();
        }
        sink.script([Step::Late]);
        let begin = Instant::now();
        let held = submit(&db, 1, "v1").await;
        tokio::time::sleep(HOUR - Duration::from_secs(1)).await;
        assert!(held.try_outcome().is_none(), "it is not repeated yet");
        assert_eq!(sink.deliver(), 1, "later it has no effect");
        let new = submit(&db, 1, "v2").await;
        assert!(held.await.is_written() && new.await.is_written());
        assert!(begin.elapsed() >= HOUR && begin.elapsed() < HOUR + Duration::from_secs(2), "{:?}", begin.elapsed());
        assert_eq!(version(&sink, 1).as_deref(), Some("v2"));
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_known_the_lane_goes_on() {
    let (db, sink) = pipeline(eager());
    sink.hide_sessions();
    sink.script([Step::Late]);
    let begin = Instant::now();
    assert!(submit(&db, 1, "v1").await.await.is_written());
    assert!(begin.elapsed() < Duration::from_secs(1));
    let (db, sink) = limited(eager(), Duration::ZERO);
    sink.script([Step::Late]);
    assert!(submit(&db, 1, "v1").await.await.is_written());
    assert_eq!(sink.ended_sessions(), 0, "no late write is possible");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_fenced_when_close_gives_up_is_unknown() {
    let (db, sink) = pipeline(eager());
    sink.script([Step::Late]);
    sink.script_end_session([Ok(SessionEnd::Pending); 1000]);
    let sent = submit(&db, 1, "v1").await;
    settle().await;
    let behind = submit(&db, 1, "v2").await;
    let report = db.close(Duration::from_secs(5)).await;
    assert_eq!(sent.await.kind(), OutcomeKind::Unknown, "never Expired");
    assert_eq!(behind.await.kind(), OutcomeKind::Purged, "it was never sent");
    assert_eq!(report.unwritten.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn rows_do_not_wait_for_a_session_longer_than_they_are_retried() {
    let (db, sink) = pipeline(eager().retry_for(Duration::from_secs(20)));
    sink.script([Step::Late]);
    sink.script_end_session([Err(ErrorClass::Transient); 100_000]);
    let begin = Instant::now();
    let sent = submit(&db, 1, "v1").await;
    settle().await;
    let behind = submit(&db, 1, "v2").await;
    assert_eq!(sent.await.kind(), OutcomeKind::Unknown);
    let outcome = behind.await;
    assert_eq!(outcome.kind(), OutcomeKind::Expired);
    assert!(outcome.failure().unwrap().error().unwrap().to_string().contains("must not overtake"));
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_secs(20) && elapsed < Duration::from_secs(25), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn nor_for_the_time_after_which_a_late_write_has_no_effect() {
    let (db, sink) = limited(eager().retry_for(Duration::from_secs(20)), HOUR);
    sink.hide_sessions();
    sink.script([Step::Late]);
    let begin = Instant::now();
    let sent = submit(&db, 1, "v1").await;
    settle().await;
    let behind = submit(&db, 1, "v2").await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let later = submit(&db, 1, "v3").await;
    assert_eq!(sent.await.kind(), OutcomeKind::Unknown);
    assert_eq!(behind.await.kind(), OutcomeKind::Expired);
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_secs(20) && elapsed < Duration::from_secs(23), "{elapsed:?}");
    assert_eq!(later.await.kind(), OutcomeKind::Expired);
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_secs(30) && elapsed < Duration::from_secs(33), "{elapsed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_was_written_in_part_holds_its_lane_no_longer() {
    // The last part of a batch is abandoned, after another part was written; its session cannot be ended.
    let ordering = batchsql_core::Ordering::PerTable;
    let (db, sink) = pipeline(config().ordering(ordering).retry_for(Duration::from_secs(20)));
    sink.script([Step::Fail(ErrorClass::Size), Step::Apply, Step::Late]);
    sink.script_end_session([Err(ErrorClass::Transient); 10_000]);
    let plain = table("plain", Conflict::none());
    let begin = Instant::now();
    let parts = crate::support::receipts(&db, &plain, 0..10).await;
    settle().await;
    let behind = crate::support::receipts(&db, &plain, 10..20).await;
    for (number, receipt) in parts.into_iter().enumerate() {
        let expected = if number < 5 { OutcomeKind::Written } else { OutcomeKind::Unknown };
        assert_eq!(receipt.await.kind(), expected, "row {number}");
    }
    for receipt in behind {
        assert_eq!(receipt.await.kind(), OutcomeKind::Expired);
    }
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    // The drain of a dropped pipeline ends too.
    let last = crate::support::receipts(&db, &plain, 20..30).await;
    drop(db);
    for receipt in last {
        assert_eq!(receipt.await.kind(), OutcomeKind::Expired);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_panics_is_fenced_too() {
    let (db, sink) = pipeline(eager());
    sink.script([Step::Panic]);
    assert_eq!(submit(&db, 1, "v1").await.await.kind(), OutcomeKind::Unknown);
    assert!(submit(&db, 1, "v2").await.await.is_written());
    assert_eq!(sink.ended_sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_batch_is_fenced_from_its_abandoned_part() {
    // A plain insert is not repeated, so the other half of the batch continues after the abandoned one.
    let config = config().ordering(batchsql_core::Ordering::PerTable);
    let (db, sink) = pipeline(config);
    sink.poison(|row| row.get("id") == Some(ValueRef::I64(9)));
    sink.script([Step::Apply, Step::Late]);
    let plain = table("plain", Conflict::none());
    let mut receipts = Vec::new();
    for id in 0..10_i64 {
        let row = plain.row().set("id", id).unwrap().set("note", "n").unwrap().finish().unwrap();
        receipts.push(db.submit_tracked(&row).await.unwrap());
    }
    let mut kinds = Vec::new();
    for receipt in receipts {
        kinds.push(receipt.await.kind());
    }
    assert_eq!(kinds[..5], [OutcomeKind::Unknown; 5]);
    assert_eq!((kinds[8], kinds[9]), (OutcomeKind::Written, OutcomeKind::Rejected));
    assert_eq!((sink.ended_sessions(), sink.deliver()), (1, 0), "before the second half was sent");
}

/// Nobody asks for the sessions of a table without an order, but the sink may know them.
#[tokio::test(start_paused = true)]
async fn a_link_that_died_under_a_plain_insert_is_noticed_where_its_session_is_known() {
    // While a large message is in transit, the server shows the session as idle.
    let cases = [(true, 1, 6..8, 2), (true, 300_000, 300..310, 0), (false, 1, 300..310, 0)];
    for (knows, bytes, seconds, looks) in cases {
        let (db, sink) = pipeline(eager().statement_timeout(Duration::from_secs(300)));
        if knows {
            sink.know_sessions();
        }
        sink.set_working(false);
        sink.script([Step::LateAndSilent]);
        let begin = Instant::now();
        let row = plain_row(&"n".repeat(bytes));
        let outcome = db.submit_tracked(&row).await.unwrap().await;
        assert_eq!(outcome.kind(), OutcomeKind::Unknown, "a plain insert is not repeated");
        assert!(seconds.contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
        assert_eq!((sink.looks(), sink.ended_sessions()), (looks, 0), "no session is ended by such a name");
    }
}

/// The same for a step of a feed.
#[tokio::test(start_paused = true)]
async fn a_link_that_died_under_a_step_is_noticed() {
    let (db, sink) = pipeline(eager().statement_timeout(Duration::from_secs(300)));
    sink.know_sessions();
    sink.set_working(false);
    sink.script([Step::LateAndSilent]);
    let mut buffer = db.row_buffer(&table("plain", Conflict::none())).unwrap();
    buffer.push(&plain_row("n")).unwrap();
    let begin = Instant::now();
    let position = Position { id: 0, epoch: 1, sequence: 0 };
    let failed = db.write_step(buffer.into_rows().rows(), &batchsql_core::Step::new(position, 1)).await.unwrap_err();
    assert_eq!(failed.error.class(), ErrorClass::Unknown, "{failed}");
    assert!((6..8).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

fn plain_row(note: &str) -> DynRow {
    let plain = table("plain", Conflict::none());
    plain.row().set("id", 1_i64).unwrap().set("note", note).unwrap().finish().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_link_that_died_is_noticed_before_the_statement_timeout() {
    let config = eager().statement_timeout(Duration::from_secs(300));
    let check = async |is_working: Option<bool>, steps: usize| {
        let (db, sink) = pipeline(config.clone());
        is_working.into_iter().for_each(|is_working| sink.set_working(is_working));
        sink.script(std::iter::repeat_n(Step::LateAndSilent, steps));
        let begin = Instant::now();
        let (old, new) = (submit(&db, 1, "v1").await, submit(&db, 1, "v2").await);
        let outcomes = [old.await.kind(), new.await.kind()];
        assert!(outcomes.contains(&OutcomeKind::Written) && !outcomes.contains(&OutcomeKind::Unknown), "{outcomes:?}");
        // Its session is ended before the repeat, as after a timeout.
        assert_eq!((sink.ended_sessions(), sink.deliver()), (steps, 0));
        assert_eq!(version(&sink, 1).as_deref(), Some("v2"));
        (begin.elapsed(), sink.looks())
    };
    let (took, looks) = check(Some(false), 1).await;
    assert!((6..8).contains(&took.as_secs()), "{took:?}");
    assert_eq!(looks, 2, "one reply may be out of date");
    // A large batch on a slow connection has more time with each attempt.
    let (took, _) = check(Some(false), 3).await;
    assert!((6 + 11 + 21..45).contains(&took.as_secs()), "{took:?}");
    let (took, looks) = check(Some(true), 1).await;
    assert!((300..310).contains(&took.as_secs()) && looks > 10, "{took:?} {looks}");
    let (took, looks) = check(None, 1).await;
    assert!((300..310).contains(&took.as_secs()), "{took:?}");
    assert_eq!(looks, 1);
}
