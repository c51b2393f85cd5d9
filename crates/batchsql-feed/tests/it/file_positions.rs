//! The position of a file of lines in the database: from at least once to exactly once, without the mark, after a backup.

use std::fs;
use std::time::Duration;

use batchsql_core::{Claim, ClaimFrom, ErrorClass, PartitionKey, Removed};
use batchsql_feed::file::{FileOptions, TakeOver, WhenReplaced};
use batchsql_testkit::Step;

use crate::file_support::{LONG, Made, lines, schema, until};

/// What was written at least once is not written again when it is to be exactly once from now on.
#[tokio::test]
async fn a_file_that_was_written_at_least_once_goes_on_exactly_once() {
    let made = Made::new(&lines(0..5));
    made.drain(made.options()).await;
    made.append(&lines(5..7));
    assert_eq!(made.drain(made.exactly()).await, 7);
    assert_eq!(made.written(), (0..7).collect::<Vec<_>>());
    assert_eq!(made.sink.position("t", 0), Some(7));
}

/// The position in the database does not know of the lines that were written without it.
#[tokio::test]
async fn a_file_that_was_written_at_least_once_in_between_goes_on_exactly_once() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    for end in [7, 9] {
        made.append(&lines(end - 2..end));
        made.drain(made.options()).await;
    }
    // Without new lines, and again after the position has passed the old ones.
    assert_eq!(made.drain(made.exactly()).await, 9);
    assert_eq!(made.sink.position("t", 0), Some(9));
    made.append(&lines(9..10));
    assert_eq!(made.drain(made.exactly()).await, 10);
    assert_eq!(made.written(), (0..10).collect::<Vec<_>>());
    // Now it is a database from a backup as any other.
    made.sink.set_position("t", 0, Some(8));
    assert_eq!(made.drain(made.exactly()).await, 10);
    assert_eq!(made.written(), (0..10).chain(8..10).collect::<Vec<_>>());
}

/// The process ends before the position has passed them: the next one knows of them too.
#[tokio::test]
async fn lines_without_a_position_are_known_until_the_position_has_passed_them() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    made.append(&lines(5..7));
    made.drain(made.options()).await;
    made.append(&lines(7..9));
    made.sink.break_table("t", ErrorClass::Transient);
    made.sink.script_claim([Step::Apply, Step::Fail(ErrorClass::Transient)]);
    let feed = made.start(made.exactly()).await.unwrap();
    until("it is claimed", || feed.lines() >= 5).await;
    feed.close(Duration::ZERO).await;
    made.sink.mend_table("t");
    assert_eq!(made.drain(made.exactly()).await, 9);
    assert_eq!(made.written(), (0..9).collect::<Vec<_>>());
}

/// The error of a table of that name with other columns may not name it.
#[tokio::test]
async fn a_claim_that_fails_names_the_table_of_positions() {
    let made = Made::new(&lines(0..5));
    made.sink.script_claim([Step::Fail(ErrorClass::Schema)]);
    let feed = made.start(made.exactly()).await.unwrap();
    let is_named = || feed.waiting().is_some_and(|waiting| waiting.reason.contains("batchsql_positions"));
    until("the reason names the table", is_named).await;
    feed.close(Duration::ZERO).await;
}

/// It is not known which of the lines without a position the backup has.
#[tokio::test]
async fn a_database_from_before_lines_without_a_position_stops_the_feed() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    made.append(&lines(5..7));
    made.drain(made.options()).await;
    made.sink.set_position("t", 0, Some(4));
    for _ in 0..2 {
        let feed = made.start(made.exactly()).await.unwrap();
        let error = feed.flush().await.unwrap_err();
        assert!(error.is_stopped() && error.to_string().contains("restored from a backup"), "{error}");
        feed.close(LONG).await;
    }
    assert_eq!(made.written(), (0..7).collect::<Vec<_>>());
    // As the error advises.
    fs::remove_file(made.folder.path().join("rows.ndjson.batchsql-mark")).unwrap();
    assert_eq!(made.drain(made.exactly().take_over(TakeOver::AnyoneUnchecked)).await, 7);
    assert_eq!(made.written(), (0..7).chain(4..7).collect::<Vec<_>>());
}

/// The mark is lost, as when the file is moved to another machine.
#[tokio::test]
async fn a_file_without_its_mark_is_taken_over_only_on_request() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    fs::remove_file(made.folder.path().join("rows.ndjson.batchsql-mark")).unwrap();
    made.append(&lines(5..8));
    let feed = made.start(made.exactly()).await.unwrap();
    let error = feed.flush().await.unwrap_err();
    assert!(error.is_stopped() && error.to_string().contains("TakeOver::AnyoneUnchecked"), "{error}");
    feed.close(LONG).await;
    assert_eq!(made.drain(made.exactly().take_over(TakeOver::AnyoneUnchecked)).await, 8);
    assert_eq!(made.drain(made.exactly()).await, 8);
    assert_eq!(made.written(), (0..8).collect::<Vec<_>>());
}

/// It has the same name in the database, so its first lines would be passed as if they were written.
#[tokio::test]
async fn another_file_with_the_same_first_line_is_not_taken_over_without_a_check() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    let path = made.folder.path().join("other");
    fs::write(&path, lines([0].into_iter().chain(10..20))).unwrap();
    let other = || FileOptions::new(&path, &schema()).exactly_once("file");
    for take_over in [TakeOver::Known, TakeOver::Anyone] {
        let feed = made.start(other().take_over(take_over)).await.unwrap();
        let error = feed.flush().await.unwrap_err().to_string();
        assert!(error.contains("another name with FileOptions::exactly_once"), "{take_over:?}: {error}");
        assert!(error.contains("same first line") && error.contains("TakeOver::AnyoneUnchecked"), "{error}");
        feed.close(LONG).await;
    }
    assert_eq!(made.written(), [0, 1, 2, 3, 4], "nothing of it");
    assert_eq!(made.drain(other().exactly_once("other file")).await, 11);
    assert_eq!(made.written().len(), 16);
}

/// The mark shows that the file has the lines that were written.
#[tokio::test]
async fn a_file_with_its_mark_is_taken_over_with_a_check() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    let copy = made.folder.path().join("copy");
    fs::copy(made.path(), &copy).unwrap();
    made.drain(FileOptions::new(&copy, &schema()).exactly_once("file").take_over(TakeOver::AnyoneUnchecked)).await;
    made.append(&lines(5..8));
    let feed = made.start(made.exactly()).await.unwrap();
    let error = feed.flush().await.unwrap_err().to_string();
    assert!(error.ends_with("TakeOver::Anyone"), "{error}");
    feed.close(LONG).await;
    assert_eq!(made.drain(made.exactly().take_over(TakeOver::Anyone)).await, 8);
    assert_eq!(made.written(), (0..8).collect::<Vec<_>>());
}

/// Another process with a copy of the file: the one that had the position stops.
#[tokio::test]
async fn a_copy_takes_the_position_away() {
    let made = Made::new(&lines(0..5));
    let feed = made.start(made.exactly()).await.unwrap();
    feed.flush().await.unwrap();
    let copy = FileOptions::new(made.folder.path().join("copy"), &schema()).exactly_once("file");
    fs::copy(made.path(), made.folder.path().join("copy")).unwrap();
    made.drain(copy.take_over(TakeOver::AnyoneUnchecked)).await;
    made.append(&lines(5..6));
    let error = feed.flush().await.unwrap_err();
    assert!(error.is_stopped() && error.to_string().contains("another process has claimed"), "{error}");
    feed.close(LONG).await;
    assert_eq!(made.written(), (0..5).collect::<Vec<_>>());
}

/// A database from a backup, with its positions: the lines since then are in the file, and are written again.
#[tokio::test]
async fn a_database_from_a_backup_gets_the_lines_again() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    made.sink.set_position("t", 0, Some(2));
    made.append(&lines(5..6));
    assert_eq!(made.drain(made.exactly()).await, 6);
    assert_eq!(made.written(), [0, 1, 2, 3, 4, 2, 3, 4, 5]);
    // Without its positions it is not known what it has.
    made.sink.set_position("t", 0, None);
    let feed = made.start(made.exactly()).await.unwrap();
    let error = feed.flush().await.unwrap_err();
    assert!(error.to_string().contains("has no position"), "{error}");
    feed.close(LONG).await;
}

/// A person has changed it, which the guide forbids: lines that are not written are not passed over, at no start.
#[tokio::test]
async fn a_position_that_was_moved_ahead_passes_no_line_over() {
    // Where it is moved to: beyond the next step, to its end, and into it.
    for (moved_to, new) in [(8, 1), (6, 1), (7, 4)] {
        let made = Made::new(&lines(0..5));
        let feed = made.start(made.exactly()).await.unwrap();
        feed.flush().await.unwrap();
        made.sink.set_position("t", 0, Some(moved_to));
        made.append(&lines(5..5 + new));
        let error = feed.flush().await.unwrap_err();
        assert!(error.is_stopped() && error.to_string().contains("set it back to 5"), "{error}");
        feed.close(LONG).await;
        made.append(&lines(5 + new..10));
        for _ in 0..2 {
            let feed = made.start(made.exactly()).await.unwrap();
            let error = feed.flush().await.unwrap_err();
            assert!(error.is_stopped() && error.to_string().contains("moved only to 5"), "{error}");
            feed.close(LONG).await;
        }
        made.sink.set_position("t", 0, Some(5));
        assert_eq!(made.drain(made.exactly()).await, 10);
        assert_eq!(made.written(), (0..10).collect::<Vec<_>>());
    }
}

/// The backup has the owner of an earlier start, which the mark still knows.
#[tokio::test]
async fn a_database_from_before_the_last_starts_gets_the_lines_again() {
    let made = Made::new(&lines(0..5));
    let feed = made.start(made.exactly()).await.unwrap();
    feed.flush().await.unwrap();
    let backup = feed.pipeline().positions("file").await.unwrap().remove(0);
    feed.close(LONG).await;
    for end in 6..9 {
        made.append(&lines(end - 1..end));
        made.drain(made.exactly()).await;
    }
    let feed = made.start(made.exactly()).await.unwrap();
    feed.flush().await.unwrap();
    let owner = Claim::of(backup.owner.unwrap()).from(ClaimFrom::Anyone);
    feed.pipeline().claim(&backup.key, &owner).await.unwrap().position().unwrap();
    made.sink.set_position("t", 0, Some(backup.position.sequence));
    feed.close(LONG).await;
    assert_eq!(made.drain(made.exactly()).await, 8);
    assert_eq!(made.written(), (0..8).chain(5..8).collect::<Vec<_>>());
    // The mark has a limit.
    for _ in 0..120 {
        made.drain(made.exactly()).await;
    }
    let mark = fs::read_to_string(made.folder.path().join("rows.ndjson.batchsql-mark")).unwrap();
    assert_eq!(mark.lines().filter(|line| line.starts_with("owner ")).count(), 100, "{mark}");
}

/// Positions of a file that was replaced are removed, and those of the one that is fed are not.
#[tokio::test]
async fn positions_of_old_files_are_removed() {
    let made = Made::new(&lines(0..5));
    made.drain(made.exactly()).await;
    fs::write(made.path(), lines(7..9)).unwrap();
    let feed = made.start(made.exactly().when_replaced(WhenReplaced::BeginAnew)).await.unwrap();
    feed.flush().await.unwrap();
    let db = feed.pipeline();
    let stored = db.positions("file").await.unwrap();
    assert_eq!(stored.len(), 2);
    for stored in &stored {
        let PartitionKey { source, incarnation, .. } = &stored.key;
        let kept = db.remove_positions(source, incarnation, &[]).await.unwrap();
        assert!(matches!(kept, Removed::Claimed { .. }), "{kept:?}");
    }
    let is_own = |incarnation: &str| incarnation == feed.incarnation();
    let old = stored.iter().find(|stored| !is_own(&stored.key.incarnation)).unwrap();
    let ended = [old.owner.clone().unwrap()];
    let removed = db.remove_positions("file", &old.key.incarnation, &ended).await.unwrap();
    assert_eq!(removed, Removed::Positions(1));
    made.append(&lines(9..10));
    assert_eq!(feed.flush().await.unwrap(), 3);
    feed.close(LONG).await;
    assert_eq!(made.written(), [0, 1, 2, 3, 4, 7, 8, 9]);
}
