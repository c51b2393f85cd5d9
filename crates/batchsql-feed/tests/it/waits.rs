//! What keeps a partition from going on for now is shown, and it goes on by itself.

use std::fs;

use batchsql_core::ErrorClass;
use batchsql_feed::SourceError;
use batchsql_testkit::{Sabotage, Step};

use crate::file_support::{LONG, Made, both, lines, until};
use crate::source::{Fed, Memory, row, written};

fn both_guarantees() -> [Fed; 2] {
    [Fed::new(|options| options), Fed::new(|options| options.exactly_once("test"))]
}

#[tokio::test(start_paused = true)]
async fn a_partition_waits_for_its_dead_letter_file() {
    for fed in both_guarantees() {
        let (source, letters) = (Memory::default(), fed.folder().join("letters"));
        fed.sink.poison(|bad| *bad == row(1));
        fs::remove_file(&letters).unwrap();
        fs::create_dir(&letters).unwrap();
        source.block(1, 0..4);
        let state = fed.start(0, 0, &source);
        fed.until("it waits", || state.waiting().is_some()).await;
        let waiting = fed.feeds.waiting();
        assert!(waiting[0].reason.contains("dead-letter file") && waiting[0].kind.is_none(), "{waiting:?}");
        assert!(waiting[0].reason.contains(&*letters.to_string_lossy()), "{waiting:?}");
        fs::remove_dir(&letters).unwrap();
        fed.until("it goes on", || state.settled() == 4).await;
        assert_eq!((state.waiting(), written(&fed.sink)), (None, vec![0, 2, 3]));
        assert_eq!(fed.letters().lines().count(), 1);
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_waits_for_a_source_that_cannot_be_read() {
    for fed in both_guarantees() {
        let source = Memory::default();
        (0..2).for_each(|_| source.push(Err(SourceError::again("the disk fails"))));
        let state = fed.start(0, 0, &source);
        fed.until("it waits", || state.waiting().is_some_and(|why| why.reason.contains("the disk fails"))).await;
        fed.until("it goes on", || state.waiting().is_none()).await;
        fed.end().await;
    }
}

/// It is read again, and its table still refuses its rows.
#[tokio::test(start_paused = true)]
async fn a_source_that_can_be_read_again_ends_no_other_wait() {
    let fed = Fed::new(|options| options.exactly_once("test"));
    let source = Memory::default();
    fed.sink.poison_as(ErrorClass::Schema, |_| true);
    source.block(1, 0..4);
    let state = fed.start(0, 0, &source);
    let waits_for_table =
        || state.waiting().is_some_and(|waiting| waiting.reason.contains("its table cannot be written"));
    fed.until("it waits", waits_for_table).await;
    // What follows the reads does not answer.
    fed.sink.script([Step::Hang]);
    source.push(Err(SourceError::again("the disk fails")));
    source.block(5, 4..8);
    fed.until("it was read again", || state.read() == 8).await;
    assert!(waits_for_table(), "{:?}", state.waiting());
    fed.sink.poison(|_| false);
    fed.sink.release(1);
    fed.until("all is written", || state.settled() == 8).await;
    assert_eq!(state.waiting(), None);
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_tried_again_and_again_are_shown() {
    for class in [ErrorClass::Transient, ErrorClass::Resource, ErrorClass::Unknown] {
        let fed = Fed::new(|options| options.exactly_once("test"));
        let source = Memory::default();
        fed.sink.script([Step::Fail(class); 8]);
        source.block(1, 0..4);
        let state = fed.start(0, 0, &source);
        fed.until("it waits", || state.waiting().is_some()).await;
        let reason = state.waiting().unwrap().reason;
        assert!(reason.contains("were not written") && reason.contains("the script says so"), "{reason}");
        fed.until("all is written", || state.settled() == 4).await;
        assert_eq!((state.waiting(), written(&fed.sink)), (None, vec![0, 1, 2, 3]));
        fed.end().await;
    }
}

/// As with a trigger that returns NULL: no other process is to blame.
#[tokio::test(start_paused = true)]
async fn a_position_that_does_not_move_is_shown() {
    for is_skipped in [false, true] {
        let fed = Fed::new(|options| options.exactly_once("test").accept_gaps(true));
        let source = Memory::default();
        fed.sink.sabotage(Sabotage::PositionStands);
        match is_skipped {
            false => source.block(1, 0..4),
            true => source.gap(1, 4, 4),
        }
        let state = fed.start(0, 0, &source);
        fed.until("it waits", || state.waiting().is_some()).await;
        let reason = state.waiting().unwrap().reason;
        assert!(reason.contains("trigger") && !reason.contains("another process has claimed"), "{reason}");
        assert_eq!((state.settled(), state.stopped()), (0, None));
        fed.end().await;
    }
}

/// Lines that are no rows are in their file before a position passes them.
#[tokio::test]
async fn a_file_waits_for_its_file_of_bad_lines() {
    for guarantee in 0..2 {
        let made = Made::new(&format!("{}[]\n{}", lines([1]), lines([2])));
        let bad = made.folder.path().join("rows.ndjson.bad-lines.ndjson");
        fs::create_dir(&bad).unwrap();
        let feed = made.start(both(&made)[guarantee].clone()).await.unwrap();
        until("it waits", || feed.waiting().is_some()).await;
        let reason = feed.waiting().unwrap().reason;
        assert!(reason.contains("file of bad lines"), "{reason}");
        fs::remove_dir(&bad).unwrap();
        assert_eq!((feed.flush().await.unwrap(), feed.waiting()), (3, None));
        feed.close(LONG).await;
        assert_eq!(made.written(), [1, 2]);
    }
}
