//! A file of lines that is replaced, truncated or written anew.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::time::Duration;

use batchsql_core::ErrorClass;
use batchsql_feed::file::WhenReplaced;
use batchsql_testkit::Step;

use crate::file_support::{LONG, Made, both, lines, until};

#[tokio::test]
async fn a_file_that_was_replaced_or_truncated_is_found() {
    let other_second = "{\"id\":1}\n{\"id\":9}\n{\"id\":3}\n";
    for (text, why) in [
        (&*lines([8, 9]), "first line is another one"),
        (&*lines([1]), "it is shorter"),
        ("", "no complete line"),
        (other_second, "are other ones"),
    ] {
        for guarantee in 0..2 {
            let made = Made::new(&lines([1, 2]));
            let options = || both(&made)[guarantee].clone();
            made.drain(options()).await;
            fs::write(made.path(), text).unwrap();
            let error = made.start(options()).await.unwrap_err();
            assert!(error.is_replaced() && error.to_string().contains(why), "{error}");
            if text.is_empty() {
                continue;
            }
            // All lines of the new one are written, although the database has a position of a file with this first line.
            let new: Vec<i64> = text.lines().map(|line| line[6..line.len() - 1].parse().unwrap()).collect();
            assert_eq!(made.drain(options().when_replaced(WhenReplaced::BeginAnew)).await, new.len() as u64);
            assert_eq!(made.drain(options()).await, new.len() as u64);
            assert_eq!(made.written(), [vec![1, 2], new].concat(), "{why}, guarantee {guarantee}");
        }
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_stops_after_its_last_line() {
    for guarantee in 0..2 {
        for (is_moved, has_open_end) in [(true, false), (true, true), (false, false), (false, true)] {
            let made = Made::new(&lines(0..10));
            let feed = made.start(both(&made)[guarantee].clone()).await.unwrap();
            feed.flush().await.unwrap();
            let open_end = if has_open_end { "{\"id\":" } else { "" };
            if is_moved {
                made.append(&format!("{}{open_end}", lines([10])));
                fs::rename(made.path(), made.folder.path().join("old")).unwrap();
                fs::write(made.path(), lines(20..31)).unwrap();
            } else {
                made.append(open_end);
                feed.flush().await.unwrap();
                fs::write(made.path(), lines([20])).unwrap();
            }
            let stopped = loop {
                if let Some(stopped) = feed.stopped() {
                    break stopped;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            };
            assert!(stopped.reason.contains("was replaced or truncated"), "{stopped}");
            assert_eq!(stopped.reason.contains("without a line feed"), has_open_end, "{stopped}");
            assert!(feed.flush().await.unwrap_err().is_stopped());
            let report = feed.close(LONG).await;
            let old = 10 + i64::from(is_moved);
            assert_eq!((report.lines, made.written()), (old as u64, (0..old).collect()));
            let new = both(&made)[guarantee].clone().when_replaced(WhenReplaced::BeginAnew);
            made.drain(new).await;
            let all = (0..old).chain(if is_moved { 20..31 } else { 20..21 });
            assert_eq!(made.written(), all.collect::<Vec<_>>());
        }
    }
}

/// The file is written anew, longer than before, between two looks at it: no part of it is taken for new lines of the old one.
#[tokio::test]
async fn a_file_that_is_written_anew_between_two_looks_is_found() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..10));
        let options = || both(&made)[guarantee].clone().look_every(Duration::from_millis(200));
        let feed = made.start(options()).await.unwrap();
        feed.flush().await.unwrap();
        // As a whole: what is read has the new length at once.
        let mut open = OpenOptions::new().write(true).open(made.path()).unwrap();
        open.write_all(lines(50..70).as_bytes()).unwrap();
        let error = feed.flush().await.unwrap_err();
        assert!(error.is_stopped() && error.to_string().contains("was replaced or truncated"), "{error}");
        feed.close(LONG).await;
        assert!(made.start(options()).await.unwrap_err().is_replaced());
        made.drain(options().when_replaced(WhenReplaced::BeginAnew)).await;
        assert_eq!(made.written(), (0..10).chain(50..70).collect::<Vec<_>>());
    }
}

/// A shorter file has its name before the feed has looked again.
#[tokio::test]
async fn a_flush_does_not_take_another_file_for_one_that_is_written() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(0..10));
        let feed = made.start(both(&made)[guarantee].clone().look_every(Duration::from_millis(200))).await.unwrap();
        feed.flush().await.unwrap();
        fs::rename(made.path(), made.folder.path().join("old")).unwrap();
        fs::write(made.path(), lines([20])).unwrap();
        let error = tokio::time::timeout(LONG, feed.flush()).await.expect("it ends").unwrap_err();
        assert!(error.is_stopped(), "{error}");
        feed.close(LONG).await;
    }
}

/// A file is written anew while it is read up to its middle, the database is unreachable and the window is full.
#[tokio::test]
async fn a_file_that_is_written_anew_while_its_lines_wait_is_found() {
    for guarantee in 0..2 {
        let made = Made::new(&lines(1_000..4_000));
        made.sink.break_table("t", ErrorClass::Transient);
        let options = || both(&made)[guarantee].clone().window_bytes(1);
        let feed = made.start(options()).await.unwrap();
        // One read is 1,000 lines at most.
        until("some lines are read", || made.sink.prepares() + made.sink.writes() > 0).await;
        let mut open = OpenOptions::new().write(true).open(made.path()).unwrap();
        open.write_all(lines(5_000..9_000).as_bytes()).unwrap();
        made.sink.mend_table("t");
        until("it has stopped", || feed.stopped().is_some()).await;
        let stopped = feed.stopped().unwrap();
        assert!(stopped.reason.contains("was replaced or truncated"), "{stopped}");
        feed.close(LONG).await;
        let mut written = made.written();
        // At least once, batches of rows without a key have no order.
        written.sort_unstable();
        assert_eq!(written, (1_000..2_000).collect::<Vec<_>>(), "guarantee {guarantee}");
        assert!(made.start(options()).await.unwrap_err().is_replaced());
    }
}

/// The same between the start and the claim, which waits for the database.
#[tokio::test]
async fn a_file_that_is_written_anew_before_the_claim_is_found() {
    let made = Made::new(&lines(0..10));
    made.drain(made.exactly()).await;
    made.sink.script_claim([Step::Hang]);
    let feed = made.start(made.exactly()).await.unwrap();
    let mut open = OpenOptions::new().write(true).open(made.path()).unwrap();
    open.write_all(lines(50..70).as_bytes()).unwrap();
    made.sink.release(1);
    until("it has stopped", || feed.stopped().is_some()).await;
    let stopped = feed.stopped().unwrap();
    assert!(stopped.reason.contains("or other ones"), "{stopped}");
    feed.close(LONG).await;
    assert_eq!(made.written(), (0..10).collect::<Vec<_>>());
}

/// The file is truncated in place, and gets another line, before the feed has looked again: that line has not ended.
#[tokio::test]
async fn a_flush_looks_at_a_file_that_was_truncated() {
    for guarantee in 0..2 {
        for text in [lines([20]), lines(20..30), String::new()] {
            let made = Made::new(&lines(10..20));
            let feed = made.start(both(&made)[guarantee].clone().look_every(LONG * 60)).await.unwrap();
            feed.flush().await.unwrap();
            fs::write(made.path(), text).unwrap();
            let error = tokio::time::timeout(LONG, feed.flush()).await.expect("it ends").unwrap_err();
            assert!(error.is_stopped() && error.to_string().contains("was replaced or truncated"), "{error}");
            feed.close(LONG).await;
        }
    }
}
