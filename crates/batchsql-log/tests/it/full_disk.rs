//! A disk that is full, wherever the log meets it: what is settled gives way to new rows, and nothing is lost.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use batchsql_log::{Block, SyncPolicy};

use crate::{
    complaints::{Opened, open},
    model::{folder, options, payload},
    sim::{Fault, Sim},
};

const HOUR: Duration = Duration::from_secs(3_600);
/// Only a safety net.
const LIMIT: Duration = Duration::from_secs(60);

/// What happens to the log before the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Closed,
    Killed,
    PowerLost,
}

/// Stores a row of 1,000 bytes. Each try that fails, and each sync, may remove a file.
fn store(opened: &Opened, id: u64) -> u64 {
    let begin = Instant::now();
    while begin.elapsed() < LIMIT {
        match opened.log.append(opened.block(id, 1_000)).map(|ticket| ticket.wait()) {
            Ok(Ok(appended)) => return appended.first,
            Ok(Err(error)) => assert!(error.is_full(), "{error}"),
            Err(refused) => assert!(refused.error.is_full(), "{refused}"),
        }
        let _ = opened.log.sync().wait();
    }
    panic!("nothing gives way to row {id}: {:?}", opened.log.stats());
}

/// A disk becomes full when the log has used so many bytes more, and then rows are stored.
fn meet_full_disk(before: Before, policy: SyncPolicy, keep_for: Duration, left: u64) {
    let sim = Sim::new(left + 1);
    let of_test = || options(&sim).sync_policy(policy);
    let mut opened = open(of_test().keep_for(HOUR));
    opened.append_many(1..=80, 1_000);
    opened.settle(1, 60);
    opened.log.sync().wait().expect("synced");
    // Later records say that this was synced.
    opened.append_many(81..=83, 10);
    opened.log.sync().wait().expect("synced");
    opened.append(84, 10);
    match before {
        Before::Nothing => {}
        Before::Closed => {
            opened.log.close().wait().expect("closed");
        }
        Before::Killed | Before::PowerLost => sim.stop(),
    }
    if before != Before::Nothing {
        drop(opened);
        match before {
            Before::PowerLost => sim.lose_power(),
            _ => sim.kill(),
        }
        sim.set_capacity(Some(sim.bytes() + left));
        opened = open(of_test().keep_for(keep_for));
    }
    sim.set_capacity(Some(sim.bytes() + left));
    let trimmed = opened.log.stats().trimmed;
    let end = opened.log.stats().unsettled_rows + 60;
    // Not on disk, and it cannot be written: these rows do not give way.
    opened.settle(61, 70);
    let mut last = end;
    for id in 1..=20 {
        last += 1;
        assert_eq!(store(&opened, id), last, "sequences have no hole");
    }
    assert!(before != Before::Nothing || opened.log.stats().trimmed > trimmed);
    let _ = opened.log.sync().wait();
    sim.stop();
    drop(opened);
    sim.lose_power();
    sim.set_capacity(None);
    // It fails if rows are missing that were not settled, or the state of those that were is lost.
    let opened = open(of_test());
    let unsettled = opened.unsettled();
    // What is not synced may be lost with the power.
    let (acknowledged, last) = if policy == SyncPolicy::Always { (71..=last, last) } else { (71..=end, end) };
    assert!(acknowledged.clone().all(|row| unsettled.contains(&row)), "{acknowledged:?} of {unsettled:?}");
    assert!(unsettled.iter().all(|row| *row > 60), "rows up to 60 have ended: {unsettled:?}");
    assert!(store(&opened, 1) > last);
}

#[test]
fn settled_rows_give_way_wherever_the_disk_is_full() {
    for left in (0..9_000).step_by(600).chain([1, 32, 64, 100]) {
        for before in [Before::Nothing, Before::Closed, Before::Killed, Before::PowerLost] {
            let keeps = if before == Before::Nothing { &[HOUR][..] } else { &[HOUR, Duration::ZERO] };
            for keep_for in keeps {
                for policy in [SyncPolicy::Always, SyncPolicy::Os] {
                    eprintln!("{before:?}, {policy:?}, kept for {keep_for:?}, {left} bytes are left");
                    meet_full_disk(before, policy, *keep_for, left);
                }
            }
        }
    }
}

/// The same if others have taken all of the disk, which the log notices by `min_free_bytes` too.
#[test]
fn settled_rows_give_way_although_not_even_a_segment_can_be_started() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).keep_for(HOUR));
    opened.append_many(1..=40, 1_000);
    opened.settle(1, 40);
    opened.log.close().wait().expect("closed");
    drop(opened);
    // Less than it has: also what is cut from a file is taken by others.
    sim.set_capacity(Some(0));
    sim.set_free(Some(0));
    let opened = open(options(&sim).keep_for(HOUR).min_free_bytes(1 << 20));
    let begin = Instant::now();
    // One file for each look; the last one says what is settled, until there is another one.
    while opened.log.stats().trimmed < 3 {
        assert!(begin.elapsed() < LIMIT, "{:?}", opened.log.stats());
        let _ = opened.log.sync().wait();
    }
    assert!(opened.log.append(opened.block(1, 10)).is_err(), "it is for others");
    sim.set_free(None);
    sim.set_capacity(None);
    assert_eq!(store(&opened, 41), 41);
}

/// A start does not know whether the last segment is on disk, which has nothing but what is settled. It must not be cut before
/// another one has that too.
#[test]
fn what_is_settled_survives_a_start_that_can_write_nothing() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).keep_for(HOUR));
    opened.append_many(1..=3, 100);
    opened.settle(1, 3);
    opened.log.close().wait().expect("closed");
    drop(opened);
    let opened = open(options(&sim));
    opened.log.sync().wait().expect("synced");
    assert_eq!(opened.log.stats().trimmed, 1);
    sim.stop();
    drop(opened);
    sim.kill();
    sim.set_capacity(Some(0));
    let opened = open(options(&sim));
    let _ = opened.log.sync().wait();
    opened.log.close().wait().expect_err("there is no space");
    drop(opened);
    sim.lose_power();
    sim.set_capacity(None);
    assert_eq!(open(options(&sim)).append(4, 100), 4, "rows 1 to 3 were given out before");
}

/// Some file systems notice at a sync that there is no space.
#[test]
fn a_disk_that_is_full_at_each_sync_makes_settled_rows_give_way() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).keep_for(HOUR));
    opened.append_many(1..=40, 1_000);
    opened.settle(1, 40);
    opened.log.sync().wait().expect("synced");
    // Write, sync; then twice: create, write, sync, remove.
    [1, 4, 8].into_iter().for_each(|call| sim.fail_after(call, Fault::NoSpace));
    let error = opened.log.append(opened.block(1, 10)).expect("it is not known yet").wait().expect_err("no sync");
    assert!(error.is_undetermined(), "{error}");
    assert_eq!(sim.hits(), 3);
    opened.log.sync().wait().expect("there is space again");
    assert_eq!(opened.log.stats().trimmed, 1, "a file gave way");
    assert_eq!(store(&opened, 41), 41);
}

fn incomplete(sim: &Sim) -> Vec<std::path::PathBuf> {
    sim.files().into_iter().filter(|file| file.extension().is_some_and(|end| end == "tmp")).collect()
}

/// What cannot be written to the end does not take the last bytes of the disk.
#[test]
fn copies_that_do_not_fit_are_removed() {
    // Rows of a table that is set aside.
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    let stuck = opened.log.table("stuck").expect("a name");
    for id in 1..=40 {
        if id % 10 == 1 {
            let block = Block { table: stuck, partition: 3, schema: opened.schema, count: 1, bytes: payload(id, 50) };
            opened.log.append(block).expect("space").wait().expect("stored");
        }
        opened.append(id, 1_000);
    }
    opened.settle(1, 40);
    opened.log.sync().wait().expect("synced");
    let before = opened.log.stats();
    sim.set_capacity(Some(sim.bytes() + 100));
    opened.log.set_aside(stuck, 3, true);
    opened.log.sync().wait().expect("nothing waits");
    let after = opened.log.stats();
    assert_eq!((incomplete(&sim), after.side_segments), (Vec::new(), 0));
    assert_eq!(after.failures, before.failures, "a full disk has not failed");
    sim.set_capacity(None);
    opened.log.sync().wait().expect("nothing waits");
    assert!(opened.log.stats().side_segments > 0);

    // Damaged bytes.
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append_many(1..=40, 1_000);
    opened.settle(1, 40);
    sim.stop();
    drop(opened);
    sim.kill();
    let first = sim.files().into_iter().find(|file| file.extension().is_some_and(|end| end == "seg"));
    let first = first.expect("a segment");
    let mut bytes = sim.content(&first).expect("its bytes");
    bytes[2_500..2_600].fill(7);
    sim.set_content(&first, bytes);
    // For what is written again, but not for the copy.
    let copies =
        |sim: &Sim| sim.files().into_iter().filter(|file| file.starts_with(folder().join("quarantine"))).count();
    sim.fail_after(2, Fault::NoSpace);
    let (log, recovery) = batchsql_log::Log::open(options(&sim)).expect("opens");
    assert_eq!((sim.hits(), recovery.damages.len()), (1, 1), "{recovery:?}");
    assert!(recovery.damages[0].kept_in.is_none());
    assert_eq!((incomplete(&sim), copies(&sim)), (Vec::new(), 0));
    drop(log);
}

/// A disk that is full without a limit: kept rows give way too, also to what is settled meanwhile.
#[test]
fn kept_rows_give_way_on_a_full_disk() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).keep_for(HOUR));
    opened.append_many(1..=40, 1_000);
    opened.settle(1, 40);
    opened.log.sync().wait().expect("synced");
    assert!(opened.log.stats().segments > 3);
    sim.set_capacity(Some(sim.bytes()));
    let mut stored = 40;
    for id in 0..20 {
        // The first tries fail; each removes a file.
        let ticket = loop {
            opened.log.space(1_000).wait().expect("there is space again");
            match opened.log.append(opened.block(id, 1_000)).map(|ticket| ticket.wait()) {
                Ok(Ok(appended)) => break appended,
                Ok(Err(error)) => assert!(error.is_full(), "{error}"),
                Err(refused) => assert!(refused.error.is_full(), "{refused}"),
            }
        };
        assert_eq!(ticket.first, stored + 1);
        stored = ticket.last;
        opened.settle(stored, stored);
    }
    assert!(opened.log.stats().trimmed > 0);
}

/// A disk that others fill: kept rows are removed until there is `min_free_bytes` again.
#[test]
fn kept_rows_give_way_on_a_disk_that_others_fill() {
    let sim = Sim::new(1);
    sim.set_free(Some(1 << 30));
    let opened = open(options(&sim).keep_for(HOUR).min_free_bytes(1 << 20));
    opened.append_many(1..=20, 1_000);
    opened.settle(1, 20);
    opened.log.sync().wait().expect("synced");
    let segments = opened.log.stats().segments;
    assert!(segments > 2 && opened.log.stats().trimmed == 0);
    sim.set_free(Some(1));
    // The free space is looked at after some bytes.
    let mut last = 20;
    while let Ok(ticket) = opened.log.append(opened.block(1, 3_000)) {
        last = ticket.wait().expect("stored").last;
        opened.settle(1, last);
    }
    // One file for each look: a file system may show the space later.
    for _ in 0..last / 10 {
        let before = opened.log.stats().trimmed;
        opened.log.sync().wait().expect("synced");
        assert_eq!(opened.log.stats().trimmed, before + 1);
    }
}

/// Whoever appends is answered at once while the writer asks for the free space, which may take long on a network.
#[test]
fn nobody_waits_for_the_answer_how_much_space_is_free() {
    let sim = Sim::new(1);
    sim.set_free(Some(0));
    let opened = open(options(&sim).min_free_bytes(1 << 20));
    opened.log.sync().wait().expect("synced");
    let mut answers = Vec::new();
    thread::scope(|scope| {
        let mut held = sim.hold_free_bytes();
        scope.spawn(|| opened.log.sync().wait());
        // Of two questions in a row one asks whether files give way.
        for round in 0..2 {
            held.wait();
            let (answer, answered) = channel();
            let block = opened.block(1, 10);
            let log = &opened.log;
            scope.spawn(move || {
                let _ = answer.send(log.append(block).map(drop).map_err(|refused| refused.error.is_full()));
            });
            answers.push(answered.recv_timeout(LIMIT));
            let next = (round == 0).then(|| sim.hold_free_bytes());
            held.wait();
            held = next.unwrap_or(held);
        }
    });
    assert_eq!(answers, [Ok(Err(true)), Ok(Err(true))]);
}

/// All rows are in the segment that is being written: it is given back too, also if that fails once.
#[test]
fn a_log_of_one_segment_gives_it_back_when_all_its_rows_are_settled() {
    for fails in [false, true] {
        let sim = Sim::new(1);
        sim.set_free(Some(1 << 30));
        let options = options(&sim).segment_bytes(64 << 20).disk_bytes(1 << 30).min_free_bytes(1 << 20);
        let opened = open(options.settle_delay(Duration::ZERO));
        opened.append(1, 100_000);
        sim.set_free(Some(1));
        // The free space is looked at after some bytes.
        let mut last = 1;
        while let Ok(ticket) = opened.log.append(opened.block(1, 100_000)) {
            last = ticket.wait().expect("stored").last;
        }
        let full = sim.bytes();
        assert_eq!((opened.log.stats().segments, opened.log.stats().trimmed), (1, 0));
        if fails {
            // Write, sync, then the new segment. Nobody waits for space.
            sim.fail_after(2, Fault::NoSpace);
        }
        opened.settle(1, last);
        let begin = Instant::now();
        while opened.log.stats().trimmed == 0 {
            assert!(begin.elapsed() < LIMIT, "nothing is given back: {:?}", opened.log.stats());
            thread::yield_now();
        }
        assert_eq!(sim.hits(), usize::from(fails));
        assert!(sim.bytes() < full / 100, "{} of {full} bytes", sim.bytes());
        sim.set_free(Some(1 << 30));
        assert_eq!(store(&opened, 99), last + 1);
    }
}

/// The same without a limit, as soon as there is space for the start of another segment.
#[test]
fn a_settled_segment_is_given_back_when_there_is_space_for_another_one() {
    for policy in [SyncPolicy::Always, SyncPolicy::Os] {
        let sim = Sim::new(1);
        let opened = open(options(&sim).segment_bytes(64 << 20).disk_bytes(1 << 30).sync_policy(policy));
        opened.append_many(1..=20, 10_000);
        opened.log.sync().wait().expect("synced");
        let failures = opened.log.stats().failures;
        opened.settle(1, 20);
        opened.log.sync().wait().expect("there is space");
        sim.set_capacity(Some(sim.bytes() + 50));
        let refused =
            || opened.log.append(opened.block(21, 10_000)).map(|ticket| ticket.wait().is_err()).unwrap_or(true);
        assert!(refused() && refused());
        assert_eq!((opened.log.stats().trimmed, opened.log.stats().segments), (0, 1));
        sim.set_capacity(Some(sim.bytes() + 1_000));
        assert_eq!(store(&opened, 21), 21);
        let stats = opened.log.stats();
        assert_eq!((stats.trimmed, stats.segments, stats.failures), (1, 1, failures));
        assert_eq!(opened.unsettled(), [21]);
    }
}
