//! A file of lines: what is written, what is bad, and what a restart and an appended file do.

use std::fs;
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, Expr, Schema};
use batchsql_feed::file::{FileFeed, FileOptions};
use batchsql_testkit::{ScriptedSink, Step};

use crate::file_support::{LONG, Made, both, id, lines};

#[tokio::test]
async fn lines_are_written_in_their_order_and_a_later_start_goes_on() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..2_500));
        let options = || both(&made)[guarantee].clone();
        assert_eq!(made.drain(options()).await, 2_500);
        assert_eq!(made.drain(options()).await, 2_500, "nothing is new");
        made.append(&lines(2_500..2_600));
        assert_eq!(made.drain(options()).await, 2_600);
        assert_eq!(made.written(), (0..2_600).collect::<Vec<_>>(), "guarantee {guarantee}");
    }
}

#[tokio::test]
async fn a_last_line_waits_until_it_has_an_end() {
    for guarantee in 0..2 {
        let made = Made::new("{\"id\":1}\n{\"id\"");
        let feed = made.start(both(&made)[guarantee].clone()).await.unwrap();
        assert_eq!(feed.flush().await.unwrap(), 1);
        made.append(":2}");
        assert_eq!(feed.flush().await.unwrap(), 1);
        made.append("\n");
        assert_eq!(feed.flush().await.unwrap(), 2);
        made.append(&lines([3]));
        assert_eq!(feed.flush().await.unwrap(), 3);
        feed.close(LONG).await;
        assert_eq!(made.written(), [1, 2, 3]);
    }
}

#[tokio::test]
async fn a_file_that_comes_later_is_waited_for() {
    let made = Made::new("");
    fs::remove_file(made.path()).unwrap();
    let starting = made.start(made.exactly());
    tokio::pin!(starting);
    let soon = tokio::time::timeout(Duration::from_millis(20), &mut starting).await;
    assert!(soon.is_err(), "there is no file");
    fs::write(made.path(), "{\"id\":").unwrap();
    let soon = tokio::time::timeout(Duration::from_millis(20), &mut starting).await;
    assert!(soon.is_err(), "its first line has no end");
    made.append("7}\n");
    let feed = starting.await.unwrap();
    assert_eq!(feed.flush().await.unwrap(), 1);
    feed.close(LONG).await;
    assert_eq!(made.written(), [7]);
}

#[tokio::test]
async fn lines_that_are_no_rows_are_kept_with_the_reason() {
    for guarantee in 0..2 {
        let long = format!("{{\"id\":{}}}\n", "1".repeat(200));
        let text = format!("{}{{\"id\":\"x\"}}\n\n[]\n{long}{}", lines([1]), lines([2]));
        let made = Made::new(&text);
        let options = both(&made)[guarantee].clone().max_line_bytes(100);
        let feed = made.start(options).await.unwrap();
        assert_eq!((feed.flush().await.unwrap(), feed.bad_lines()), (6, 3));
        feed.close(LONG).await;
        assert_eq!(made.written(), [1, 2]);
        let bad = made.beside(".bad-lines.ndjson");
        let bad: Vec<serde_json::Value> = bad.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let found: Vec<_> = bad.iter().map(|bad| (bad["line"].as_u64().unwrap(), bad["text"].as_str())).collect();
        assert_eq!(found, [(2, Some("{\"id\":\"x\"}")), (4, Some("[]")), (5, None)]);
        assert!(bad[0]["reason"].as_str().unwrap().contains("column \"id\""), "{bad:?}");
        assert_eq!(bad[2]["reason"], "the line is too long");
    }
}

/// The name of what it was written from, so that a second line for the row is recognized.
#[tokio::test]
async fn rows_that_are_refused_are_in_the_dead_letters() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..6));
        made.sink.poison(|row| id(row) == 3);
        assert_eq!(made.drain(both(&made)[guarantee].clone()).await, 6);
        assert_eq!(made.written(), [0, 1, 2, 4, 5]);
        let letters = made.beside(".dead-letters.ndjson");
        assert_eq!(letters.lines().count(), 1);
        assert!(letters.contains(":\\\"t\\\":0:4\""), "{letters}");
    }
}

#[tokio::test]
async fn one_process_at_a_time_feeds_a_file() {
    let made = Made::new(&lines([1]));
    let feed = made.start(made.options()).await.unwrap();
    assert!(made.start(made.exactly()).await.unwrap_err().is_locked());
    feed.close(LONG).await;
    made.drain(made.exactly()).await;
}

/// A window that has no room for a line: each part is read alone.
#[tokio::test]
async fn a_window_without_room_does_not_stop_a_feed() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..5));
        let limits = both(&made)[guarantee].clone().window_bytes(0).max_line_bytes(usize::MAX);
        assert_eq!(made.drain(limits).await, 5);
        assert_eq!(made.written(), (0..5).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    let made = Made::new(&lines([1]));
    let refused = async |options: FileOptions, part: &str| {
        let error = made.start(options).await.unwrap_err();
        assert!(error.is_invalid_settings() && error.to_string().contains(part), "{error}");
    };
    refused(made.options().exactly_once(""), "1 to 100 characters").await;
    let add = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
    let add = add.on_conflict(Conflict::update(["id"]).set("n", Expr::add())).build().unwrap();
    refused(FileOptions::new(made.path(), &add), "FileOptions::exactly_once").await;
    let sink = ScriptedSink::new();
    let error = FileFeed::start(BatchSql::builder(sink), made.exactly()).await.unwrap_err();
    assert!(error.to_string().contains("keeps no positions"), "{error}");
    fs::write(made.folder.path().join("rows.ndjson.batchsql-mark"), "batchsql file mark 2\n").unwrap();
    refused(made.options(), "version 2").await;
}

/// Rows of a step whose reply was lost are not written twice, and those behind them are not read twice.
#[tokio::test]
async fn a_lost_reply_doubles_nothing() {
    let made = Made::new(&lines(0..3_000));
    made.sink.script([Step::Late, Step::LoseReply]);
    made.drain(made.exactly()).await;
    assert_eq!(made.written(), (0..3_000).collect::<Vec<_>>());
}
