//! What callers see: readers, settled rows, tables that are set aside, full disks, locks, and the real file system.

use std::{
    future::Future,
    io::{BufRead, BufReader},
    path::PathBuf,
    pin::pin,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use batchsql_log::{Block, From, Log, LogErrorKind, Next, Options, SyncPolicy, tools};

use crate::{
    complaints::{Opened, open},
    model::{folder, options, payload},
    sim::{Call, Fault, Sim},
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread, which sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn tickets_space_and_readers_are_futures() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let mut reader = opened.log.reader(opened.table, 0, From::Unsettled).expect("a reader");
    assert_eq!(reader.next().expect("works"), Next::End);
    let ready = reader.ready();
    block_on(opened.log.space(10)).expect("there is space");
    let ticket = opened.log.append(opened.block(1, 10)).expect("space");
    assert_eq!(block_on(ticket).expect("stored").first, 1);
    block_on(ready);
    assert!(matches!(reader.next().expect("works"), Next::Block(block) if block.first == 1));
    block_on(opened.log.close()).expect("closed");
    let refused = opened.log.append(opened.block(2, 10)).expect_err("closed");
    assert_eq!(refused.error.kind(), LogErrorKind::Closed);
    assert_eq!(block_on(opened.log.space(10)).expect_err("closed").kind(), LogErrorKind::Closed);
    assert_eq!(block_on(opened.log.sync()).expect_err("closed").kind(), LogErrorKind::Closed);
}

#[test]
fn a_reader_starts_where_it_is_told() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).keep_for(Duration::from_secs(60)));
    opened.append_many(1..=20, 1_000);
    opened.settle(1, 7);
    opened.settle(10, 11);
    assert_eq!(opened.unsettled(), [8, 9].into_iter().chain(12..=20).collect::<Vec<_>>());
    let mut reader = opened.log.reader(opened.table, 0, From::Sequence(5)).expect("a reader");
    assert!(matches!(reader.next().expect("works"), Next::Block(block) if block.first == 5));
    assert!(opened.log.reader(opened.table, 0, From::Sequence(0)).is_err());
    for (first, last) in [(0, 1), (5, 4), (20, 21)] {
        assert_eq!(
            opened.log.settle(opened.table, 0, first..=last).expect_err("refused").kind(),
            LogErrorKind::Invalid
        );
    }
}

#[test]
fn blocks_that_cannot_be_stored_are_given_back() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let block = opened.block(1, 10);
    let check = |block: Block, word: &str| {
        let refused = opened.log.append(block.clone()).expect_err(word);
        assert_eq!((refused.block, refused.error.kind()), (block, LogErrorKind::Invalid));
        assert!(refused.error.to_string().contains(word), "{}", refused.error);
    };
    check(Block { count: 0, ..block.clone() }, "no rows");
    check(Block { partition: 8, ..block.clone() }, "partition_of");
    check(opened.block(1, 9_000), "split it");
    assert!(opened.log.table("").is_err() && opened.log.schema(&[0; 9_000]).is_err());
}

#[test]
fn settled_rows_stay_for_as_long_as_they_are_kept() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).keep_for(Duration::from_secs(60)));
    opened.append_many(1..=20, 1_000);
    opened.settle(1, 20);
    opened.log.sync().wait().expect("synced");
    let segments = opened.log.stats().segments;
    assert!(segments > 2 && opened.log.stats().trimmed == 0);
    sim.pass(61_000);
    opened.log.sync().wait().expect("synced");
    let stats = opened.log.stats();
    assert_eq!(
        (stats.segments, stats.trimmed, stats.unsettled_rows, stats.oldest_unsettled),
        (1, segments - 1, 0, None)
    );
}

/// Two tables, one of which is never settled; returns the bytes on disk before the crashes.
fn with_a_stuck_table(is_aside: bool) -> (u64, Opened) {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let stuck = opened.log.table("stuck").expect("a name");
    opened.log.set_aside(stuck, 3, is_aside);
    for id in 1..=100 {
        if id % 10 == 1 {
            let block = Block { table: stuck, partition: 3, schema: opened.schema, count: 1, bytes: payload(id, 50) };
            opened.log.append(block).expect("space").wait().expect("stored");
        }
        opened.append(id, 1_000);
        opened.settle(1, id);
    }
    opened.log.sync().wait().expect("synced");
    let read = |log: &Log| {
        let mut reader = log.reader(stuck, 3, From::Unsettled).expect("a reader");
        let mut ids = Vec::new();
        while let Next::Block(block) = reader.next().expect("works") {
            assert_eq!(block.schema_bytes.as_deref(), Some(&b"s"[..]));
            ids.push(u64::from_le_bytes(block.bytes[..8].try_into().expect("a number")));
        }
        ids
    };
    let expected: Vec<u64> = (0..10).map(|n| n * 10 + 1).collect();
    assert_eq!(read(&opened.log), expected);
    let bytes = sim.bytes();
    let identity = sim.content(&folder().join("IDENTITY")).expect("an identity").len() as u64;
    assert_eq!(opened.log.stats().bytes + identity, bytes);
    assert_eq!(opened.log.stats().side_segments >= 5, is_aside);
    // Also after a crash, and after a clean close.
    sim.stop();
    drop(opened);
    sim.lose_power();
    let opened = open(options(&sim));
    assert_eq!(read(&opened.log), expected);
    opened.log.close().wait().expect("closed");
    drop(opened);
    let opened = open(options(&sim));
    assert_eq!(read(&opened.log), expected);
    (bytes, opened)
}

#[test]
fn a_table_that_is_set_aside_does_not_keep_the_log() {
    let (pinned, _) = with_a_stuck_table(false);
    let (bytes, opened) = with_a_stuck_table(true);
    assert!(pinned > 70_000 && bytes < 30_000, "{pinned} and {bytes}");
    // Its rows are settled in the end, and the side segments go.
    let stuck = opened.log.table("stuck").expect("a name");
    opened.append(200, 10);
    opened.log.settle(stuck, 3, 1..=10).expect("rows that exist");
    opened.log.sync().wait().expect("synced");
    assert_eq!(opened.log.stats().side_segments, 0);
}

/// A reader that once read from a file, and has had all rows in memory since then.
#[test]
fn a_reader_that_passes_rows_leaves_no_removed_file_open() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let mut reader = opened.log.reader(opened.table, 0, From::Unsettled).expect("a reader");
    opened.append(1, 1_000);
    assert!(matches!(reader.next().expect("the disk works"), Next::Block(_)));
    let first = sim.files();
    for id in 2..=50 {
        opened.append(id, 1_000);
        assert!(reader.pass(id, id, 1_000));
        opened.settle(1, id);
    }
    opened.log.sync().wait().expect("synced");
    assert!(first.iter().any(|path| sim.content(path).is_none()), "its segment was removed: {:?}", sim.files());
    assert_eq!(sim.removed_and_open(), 0);
}

/// A reader that has read everything, and whose partition gets no more rows.
#[test]
fn an_idle_reader_leaves_no_removed_file_open() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let mut idle = opened.log.reader(opened.table, 3, From::Unsettled).expect("a reader");
    let block =
        || Block { table: opened.table, partition: 3, schema: opened.schema, count: 1, bytes: payload(1, 1_000) };
    opened.log.append(block()).expect("space").wait().expect("stored");
    assert!(matches!(idle.next().expect("the disk works"), Next::Block(_)));
    assert_eq!(idle.next().expect("the disk works"), Next::End);
    opened.log.settle(opened.table, 3, 1..=1).expect("a row that exists");
    let first = sim.files();
    for id in 1..=50 {
        opened.append(id, 1_000);
        opened.settle(1, id);
    }
    opened.log.sync().wait().expect("synced");
    assert!(first.iter().any(|path| sim.content(path).is_none()), "its segment was removed: {:?}", sim.files());
    assert_eq!(sim.removed_and_open(), 0);
    // It goes on where it stopped, whether its file is there or not.
    opened.log.append(block()).expect("space").wait().expect("stored");
    assert!(matches!(idle.next().expect("the disk works"), Next::Block(block) if block.first == 2));
}

#[test]
fn a_failed_sync_is_not_repeated_on_its_file() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append(1, 100);
    let before = sim.calls().len();
    sim.fail_after(1, Fault::Io);
    assert_eq!(opened.append(2, 100), 2, "the same sequence, in another segment");
    let expected = [Call::Write, Call::Sync, Call::Create, Call::Write, Call::Sync, Call::SyncFolder];
    assert_eq!(&sim.calls()[before..before + 6], &expected);
    assert_eq!(opened.unsettled(), [1, 2]);
    assert_eq!(opened.log.stats().failures, 1);
}

/// The operating system has them no longer for certain, but the log has.
#[test]
fn rows_that_wait_to_be_written_again_are_not_missing() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).sync_policy(SyncPolicy::Os));
    opened.append_many(1..=2, 100);
    opened.log.sync().wait().expect("synced");
    opened.append_many(3..=4, 100);
    let mut reader = opened.log.reader(opened.table, 0, From::Unsettled).expect("a reader");
    let mut next = || reader.next().expect("the disk works");
    for _ in 1..=3 {
        assert!(matches!(next(), Next::Block(_)));
    }
    (0..1_000).for_each(|after| sim.fail_after(after, Fault::Io));
    opened.log.sync().wait().expect_err("the disk fails");
    let found = next();
    assert!(matches!(found, Next::End), "{found:?}");
    sim.clear_faults();
    opened.log.space(100).wait().expect("it is tried again");
    let found = next();
    assert!(matches!(&found, Next::Block(block) if block.first == 4), "{found:?}");
}

#[test]
fn a_disk_that_always_fails_gives_blocks_back_as_undetermined_and_recovers() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append(1, 100);
    // Write, sync; then create, write, sync twice.
    [1, 4, 7].iter().for_each(|after| sim.fail_after(*after, Fault::Io));
    let error = opened.log.append(opened.block(2, 100)).expect("space").wait().expect_err("three segments have failed");
    assert!(error.is_undetermined(), "{error}");
    opened.log.space(100).wait().expect("it is tried again");
    assert_eq!(opened.append(4, 100), 2);
    sim.stop();
    drop(opened);
    sim.lose_power();
    assert_eq!(open(options(&sim)).unsettled(), [1, 2]);
}

#[test]
fn a_full_disk_refuses_for_certain_and_goes_on_when_there_is_space() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let stored = opened.append(1, 100);
    sim.set_capacity(Some(sim.bytes() + 500));
    let error = opened.log.append(opened.block(2, 1_000)).expect("the budget has space").wait().expect_err("no space");
    assert!(error.is_full() && error.to_string().contains("free some space"), "{error}");
    sim.set_capacity(None);
    opened.log.space(1_000).wait().expect("there is space again");
    assert_eq!(opened.append(3, 1_000), stored + 1);
    // At the start too: the error says so, and nothing is lost.
    sim.stop();
    drop(opened);
    sim.kill();
    sim.set_capacity(Some(sim.bytes()));
    let error = Log::open(options(&sim)).expect_err("what may not be synced cannot be written again");
    assert!(error.is_full() && error.to_string().contains("nothing of the log is lost"), "{error}");
    sim.set_capacity(None);
    assert_eq!(open(options(&sim)).unsettled(), [1, 2]);
}

#[test]
fn blocks_that_wait_do_not_overtake_one_that_a_full_disk_refuses() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let stored = opened.append(1, 100);
    sim.set_capacity(Some(sim.bytes() + 500));
    // A group has half a segment: the second one, which is small enough, is in the next.
    let (tickets, refused) = opened.log.append_all(vec![opened.block(2, 5_000), opened.block(3, 10)]);
    assert!(refused.is_none(), "the budget has space");
    for ticket in tickets {
        let error = ticket.wait().expect_err("no space");
        assert!(error.is_full(), "{error}");
    }
    sim.set_capacity(None);
    opened.log.space(5_000).wait().expect("there is space again, also in the queue");
    assert_eq!(opened.append(2, 5_000), stored + 1);
    assert_eq!(opened.append(3, 10), stored + 2);
}

#[test]
fn every_close_has_the_outcome_of_the_first() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append(1, 10);
    sim.stop();
    let error = opened.log.close().wait().expect_err("the disk fails");
    let again = opened.log.close().wait().expect_err("it has not been closed well");
    assert_eq!(again.to_string(), error.to_string());
}

/// Whoever writes an error to a log with `{:?}` writes no row.
#[test]
fn bytes_of_callers_are_not_shown() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let block = || Block { bytes: b"SECRET".repeat(10), ..opened.block(1, 10) };
    let key = || batchsql_log::Key { key: b"SECRET".to_vec(), value: b"SECRET".to_vec() };
    for ticket in opened.log.append_group(vec![block()], vec![key()]).expect("space") {
        ticket.wait().expect("stored");
    }
    let read = opened.log.reader(opened.table, 0, From::Unsettled).expect("a reader").next().expect("works");
    let stored = opened.log.key(b"SECRET").expect("it is known");
    opened.log.close().wait().expect("closed");
    let refused = opened.log.append(block()).expect_err("closed");
    let group = opened.log.append_group(vec![block()], vec![key()]).expect_err("closed");
    let text = format!("{read:?} {stored:?} {refused:?} {group:?}");
    assert!(text.contains("bytes: 60 bytes") && text.contains("value: 6 bytes"), "{text}");
    assert!(!text.contains("83, 69, 67, 82") && !text.contains("SECRET"), "{text}");
}

#[test]
fn too_little_free_space_refuses_blocks() {
    let sim = Sim::new(1);
    sim.set_free(Some(1_000));
    let opened = open(options(&sim).min_free_bytes(2_000));
    // It is known with the first look of the writer.
    opened.log.sync().wait().expect("synced");
    let refused = opened.log.append(opened.block(1, 10)).expect_err("too little space");
    assert!(refused.error.is_full() && refused.error.to_string().contains("min_free_bytes"), "{refused}");
    sim.set_free(Some(3_000));
    opened.log.space(10).wait().expect("there is space again");
    opened.append(1, 10);
}

#[test]
fn partitions_change_only_while_everything_is_settled() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append(1, 10);
    drop(opened);
    let error = Log::open(options(&sim).partitions(16)).expect_err("a row is not settled");
    assert_eq!(error.kind(), LogErrorKind::Partitions);
    let opened = open(options(&sim));
    opened.settle(1, 1);
    drop(opened);
    drop(open(options(&sim).partitions(16)));
    assert_eq!(tools::inspect(&options(&sim)).expect("a log").partitions, 16);
    open(options(&sim));
}

#[test]
fn a_log_goes_on_above_a_position_that_is_higher() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append(1, 10);
    let refused = opened.log.resume_above(opened.table, 0, 41).expect_err("row 1 would be taken for another one");
    assert!(refused.to_string().contains("since the log was opened"), "{refused}");
    drop(opened);
    let opened = open(options(&sim));
    opened.log.resume_above(opened.table, 0, 41).expect("a position");
    assert_eq!(opened.append(2, 10), 42);
    sim.stop();
    drop(opened);
    sim.lose_power();
    let opened = open(options(&sim));
    assert_eq!((opened.unsettled(), opened.append(3, 10)), (vec![42], 43));
    opened.log.resume_above(opened.table, 0, 7).expect("a position");
    assert_eq!(opened.append(4, 10), 44, "a lower position changes nothing");
}

#[test]
fn rows_that_reach_beyond_a_position_are_not_taken_for_those_before_it() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append_many(1..=3, 10);
    drop(opened);
    let opened = open(options(&sim));
    opened.append_many(4..=60, 10);
    for sequence in [4, 41, 60, 61] {
        opened.log.resume_above(opened.table, 0, sequence).expect_err("row 4 would be taken for another one");
    }
    opened.log.resume_above(opened.table, 0, 3).expect("all of these were there before");
    assert_eq!(opened.unsettled(), (4..=60).collect::<Vec<_>>());
    // After it has been resumed, rows are above the position, and it may be told again.
    drop(opened);
    let opened = open(options(&sim));
    opened.log.resume_above(opened.table, 0, 70).expect("a position");
    assert_eq!(opened.append(71, 10), 71);
    opened.log.resume_above(opened.table, 0, 70).expect("the same position");
    opened.log.resume_above(opened.table, 0, 71).expect_err("row 71 would be taken for another one");
    assert_eq!(opened.unsettled(), [71]);
}

#[test]
fn progress_is_reported_after_an_unclean_end_only() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append_many(1..=20, 1_000);
    sim.stop();
    drop(opened);
    sim.kill();
    let calls = Arc::new(AtomicUsize::new(0));
    let last = Arc::new(Mutex::new(None));
    let watched = || {
        let (calls, last) = (Arc::clone(&calls), Arc::clone(&last));
        options(&sim).on_progress(move |progress| {
            calls.fetch_add(1, Ordering::SeqCst);
            *last.lock().expect("no panic") = Some((progress.bytes, progress.total_bytes));
        })
    };
    drop(open(watched()));
    let (bytes, total) = last.lock().expect("no panic").expect("progress");
    assert!(calls.load(Ordering::SeqCst) >= 1 && bytes == total && total > 20_000);
    calls.store(0, Ordering::SeqCst);
    drop(open(watched()));
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[test]
fn an_export_has_every_block() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append_many(1..=20, 1_000);
    opened.settle(3, 4);
    opened.log.sync().wait().expect("synced");
    let mut exported = Vec::new();
    let recovery = tools::export(&options(&sim), |block| {
        assert_eq!((block.table.as_str(), block.partition), ("events", 0));
        exported.push((block.block.first, block.is_settled));
        Ok(())
    });
    assert!(recovery.expect("a log").damages.is_empty());
    assert_eq!(exported, (1..=20).map(|id| (id, [3, 4].contains(&id))).collect::<Vec<_>>());
    let inspection = tools::inspect(&options(&sim)).expect("a log");
    assert_eq!(inspection.files.iter().map(|file| file.blocks).sum::<u64>(), 20 - inspection_tail(&inspection));
    let found = &inspection.recovery.partitions[0];
    assert_eq!((found.settled_up_to, found.unsettled, found.next), (0, 18, 21));
    assert!(sim.files().contains(&folder().join("IDENTITY")));
}

/// Blocks behind the last sync that the files know of; they are in no file for certain.
fn inspection_tail(inspection: &tools::Inspection) -> u64 {
    inspection.recovery.blocks - inspection.files.iter().map(|file| file.blocks).sum::<u64>()
}

fn real(folder: &std::path::Path) -> Options {
    Options::new(folder.join("log")).min_free_bytes(1)
}

#[test]
fn the_real_file_system_keeps_the_log_and_its_lock() {
    let temporary = tempfile::tempdir().expect("a folder");
    let opened = open(real(temporary.path()).segment_bytes(8 << 10));
    opened.append_many(1..=30, 1_000);
    opened.settle(1, 20);
    let error = Log::open(real(temporary.path())).expect_err("it is open");
    assert!(error.is_locked() && error.to_string().contains("used by another process"), "{error}");
    opened.log.close().wait().expect("closed");
    drop(opened);
    let opened = open(real(temporary.path()));
    assert_eq!(opened.unsettled(), (21..=30).collect::<Vec<_>>());
    assert!(opened.log.stats().bytes < 20_000, "settled segments are removed: {:?}", opened.log.stats());
}

/// The rows go with the folder, and nothing that is left tells a start of them.
#[cfg(unix)]
#[test]
fn a_close_without_its_folder_is_no_clean_one() {
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = temporary.path().join("log");
    let opened = open(real(temporary.path()));
    opened.append(1, 10);
    std::fs::rename(&folder, temporary.path().join("away")).expect("renamed");
    let error = opened.log.close().wait().expect_err("it has no folder");
    assert!(error.kind() == LogErrorKind::Io && error.to_string().contains("log/END, by which"), "{error}");
    drop(opened);

    // One that has nothing to write.
    std::fs::rename(temporary.path().join("away"), &folder).expect("renamed");
    open(real(temporary.path())).log.close().wait().expect("closed");
    let opened = open(real(temporary.path()));
    std::fs::remove_dir_all(&folder).expect("removed");
    let error = opened.log.close().wait().expect_err("it has no segment");
    assert!(error.kind() == LogErrorKind::Io && error.to_string().contains("was removed while"), "{error}");
}

#[test]
fn an_end_that_is_no_file_is_named_at_the_close_and_at_the_start() {
    let temporary = tempfile::tempdir().expect("a folder");
    let end = temporary.path().join("log").join("END");
    let opened = open(real(temporary.path()));
    opened.append(1, 10);
    std::fs::create_dir(&end).expect("a folder");
    std::fs::write(end.join("file"), "").expect("a file");
    let name = end.display().to_string();
    let error = opened.log.close().wait().expect_err("a folder cannot be replaced").to_string();
    assert!(error.contains(&name) && error.contains("look whether"), "{error}");
    drop(opened);
    let error = Log::open(real(temporary.path())).expect_err("it cannot be read").to_string();
    assert!(error.contains(&name) && error.contains("or move it away"), "{error}");
    std::fs::rename(&end, temporary.path().join("away")).expect("renamed");
    assert_eq!(open(real(temporary.path())).unsettled(), [1]);
}

/// The other process of the test below.
#[test]
#[ignore = "run by another test"]
fn child() {
    let folder = PathBuf::from(std::env::var_os("BATCHSQL_LOG_TEST").expect("the folder of the parent"));
    let opened = open(real(&folder).sync_policy(SyncPolicy::Os).segment_bytes(64 << 10));
    for id in 1.. {
        println!("\nstored {}", opened.append(id, 500));
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_acknowledged() {
    let temporary = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "behaviour::child", "--ignored", "--nocapture"])
        .env("BATCHSQL_LOG_TEST", temporary.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut stored = 0;
    while stored < 500 {
        let line = lines.next().expect("it goes on").expect("text");
        stored = line.strip_prefix("stored ").map_or(stored, |number| number.parse().expect("a number"));
    }
    let error = Log::open(real(temporary.path())).expect_err("another process has it");
    assert!(error.is_locked());
    child.kill().expect("it is killed");
    child.wait().expect("it has ended");
    for line in lines.map_while(Result::ok) {
        stored = line.strip_prefix("stored ").and_then(|number| number.parse().ok()).unwrap_or(stored);
    }
    let found = open(real(temporary.path())).unsettled();
    assert!(found.len() as u64 >= stored, "{} of {stored}", found.len());
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
}

#[test]
fn each_sync_is_reported_with_its_time() {
    let sim = Sim::new(1);
    let reported = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&reported);
    let opened = open(options(&sim).on_sync(move |took| theirs.lock().expect("no panic").push(took)));
    for row in 1..=3 {
        opened.log.append(opened.block(row, 10)).expect("space").wait().expect("stored");
    }
    opened.log.close().wait().expect("closed");
    let (syncs, reported) = (opened.log.stats().syncs, reported.lock().expect("no panic").clone());
    assert!(reported.len() >= 3, "{reported:?}");
    assert_eq!((syncs.count, syncs.total), (reported.len() as u64, reported.iter().sum()));
}
