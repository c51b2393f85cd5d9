//! Damage on disk: found, kept, counted and reported; never a panic, an endless loop, or a loss in silence.

use std::path::{Path, PathBuf};

use batchsql_log::{Block, From, Gap, Log, LogErrorKind, Next, Options, Recovery, TableId, tools};
use proptest::prelude::*;

use crate::{
    model::{config, folder, options, payload},
    sim::Sim,
};

const BLOCKS: u64 = 12;

fn segment(number: u64) -> PathBuf {
    folder().join(format!("{number:020}.seg"))
}

/// Two rows per block and one block per group, over several segments.
fn write(sim: &Sim, closes: bool) -> TableId {
    let (log, _) = Log::open(options(sim)).expect("a new log");
    let (table, schema) = (log.table("events").expect("a name"), log.schema(b"s").expect("a schema"));
    for id in 1..=BLOCKS {
        let block = Block { table, partition: 0, schema, count: 2, bytes: payload(id, 1_500) };
        let appended = log.append(block).expect("space").wait().expect("stored");
        assert_eq!(appended.first, id * 2 - 1);
    }
    if closes {
        log.close().wait().expect("closed");
    }
    sim.stop();
    drop(log);
    sim.kill();
    table
}

/// Numbers of the blocks and the gaps, in the order in which a reader has them.
fn read_all(log: &Log, table: TableId) -> (Vec<u64>, Vec<Gap>) {
    let mut reader = log.reader(table, 0, From::Unsettled).expect("a reader");
    let (mut blocks, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match reader.next().expect("the disk works") {
            Next::Block(block) => {
                let id = u64::from_le_bytes(block.bytes[..8].try_into().expect("a number"));
                assert_eq!((block.first, &block.bytes), (id * 2 - 1, &payload(id, 1_500)));
                blocks.push(id);
            }
            Next::Gap(gap) => gaps.push(gap),
            Next::End => return (blocks, gaps),
            other => panic!("{other:?}"),
        }
    }
}

/// Where the bytes of a block are.
fn find(sim: &Sim, id: u64) -> (PathBuf, usize) {
    let bytes = payload(id, 1_500);
    let at = |path: &PathBuf| {
        let content = sim.content(path)?;
        content.windows(bytes.len()).position(|window| window == bytes).map(|at| (path.clone(), at))
    };
    sim.files().iter().find_map(at).expect("the block is in a segment")
}

fn flip(sim: &Sim, path: &Path, at: usize) {
    let mut content = sim.content(path).expect("a file");
    content[at] ^= 0x40;
    sim.set_content(path, content);
}

#[test]
fn damage_below_the_last_sync_is_kept_counted_and_reported() {
    // In the payload, where the numbers of the rows are still known; and in the header, where they are not.
    for (into_block, knows_rows) in [(100_i64, true), (-40, false)] {
        let sim = Sim::new(1);
        let table = write(&sim, false);
        let (path, at) = find(&sim, 3);
        let content = sim.content(&path).expect("a file");
        flip(&sim, &path, (at as i64 + into_block) as usize);
        let (log, recovery) = Log::open(options(&sim)).expect("damage is no reason not to start");
        let [damage] = recovery.damages.as_slice() else { panic!("one damage, not {:?}", recovery.damages) };
        let gap = recovery.gaps[0];
        assert_eq!((gap.first, gap.last, recovery.gaps.len()), (5, 6, 1));
        assert_eq!((damage.rows, damage.was_known), (knows_rows.then_some(gap), false));
        let kept = sim.content(damage.kept_in.as_ref().expect("it was kept")).expect("the copy");
        let mut damaged = content[damage.offset as usize..(damage.offset + damage.length) as usize].to_vec();
        damaged[(at as i64 + into_block) as usize - damage.offset as usize] ^= 0x40;
        assert_eq!(kept, damaged);
        let (blocks, gaps) = read_all(&log, table);
        assert_eq!(gaps, [gap]);
        assert_eq!(blocks, (1..=BLOCKS).filter(|id| *id != 3).collect::<Vec<_>>());
        assert!(log.stats().quarantined >= 1 && log.stats().quarantined_bytes > 0);

        // The next start says so again, but knows it; and the log goes on.
        let schema = log.schema(b"s").expect("a schema");
        let block = Block { table, partition: 0, schema, count: 2, bytes: payload(BLOCKS + 1, 1_500) };
        assert_eq!(log.append(block).expect("space").wait().expect("stored").first, BLOCKS * 2 + 1);
        drop(log);
        sim.kill();
        let (log, recovery) = Log::open(options(&sim)).expect("opens again");
        assert!(recovery.is_clean, "{recovery:?}");
        assert_eq!(recovery.gaps, [gap], "the gap stays until a person accepts it");

        // Accepting it ends it.
        log.settle(table, 0, gap.first..=gap.last).expect("the rows are known");
        assert_eq!(read_all(&log, table).1, []);
    }
}

/// Otherwise rows would be read with the columns of another table.
#[test]
fn the_number_of_a_lost_schema_is_not_given_again() {
    let sim = Sim::new(1);
    let (log, _) = Log::open(options(&sim)).expect("a new log");
    let (table, schema) = (log.table("events").expect("a name"), log.schema(b"columns of before").expect("a schema"));
    for id in 1..=BLOCKS {
        let block = Block { table, partition: 0, schema, count: 1, bytes: payload(id, 1_500) };
        log.append(block).expect("space").wait().expect("stored");
    }
    sim.stop();
    drop(log);
    sim.kill();
    for path in sim.files() {
        let content = sim.content(&path).expect("a file");
        let lost = b"columns of before";
        let at = content.windows(lost.len()).enumerate().filter(|(_, window)| window == lost).map(|(at, _)| at);
        at.for_each(|at| flip(&sim, &path, at));
    }
    let (log, recovery) = Log::open(options(&sim)).expect("damage is no reason not to start");
    assert!(!recovery.damages.is_empty());
    assert_ne!(log.schema(b"columns of now").expect("a schema"), schema);
    let Next::Block(block) = log.reader(table, 0, From::Unsettled).expect("a reader").next().expect("the disk works")
    else {
        panic!("the blocks are there");
    };
    assert_eq!((block.schema, block.schema_bytes), (schema, None));
}

#[test]
fn a_torn_tail_is_cut_and_not_reported_as_damage() {
    let sim = Sim::new(1);
    let table = write(&sim, false);
    let (path, at) = find(&sim, BLOCKS);
    let mut content = sim.content(&path).expect("a file");
    content.truncate(at + 700);
    sim.set_content(&path, content);
    let (log, recovery) = Log::open(options(&sim)).expect("opens");
    assert!(recovery.damages.is_empty() && recovery.gaps.is_empty() && recovery.torn_bytes > 700, "{recovery:?}");
    assert_eq!(read_all(&log, table), ((1..BLOCKS).collect(), vec![]));
}

#[test]
fn damage_after_a_clean_close_is_found_by_the_reader() {
    let sim = Sim::new(1);
    let table = write(&sim, true);
    let (path, at) = find(&sim, 4);
    flip(&sim, &path, at + 5);
    let (log, recovery) = Log::open(options(&sim)).expect("opens");
    assert!(recovery.is_clean && recovery.damages.is_empty(), "a clean close replays nothing");
    let (blocks, gaps) = read_all(&log, table);
    assert_eq!((blocks.len(), gaps.len(), gaps[0].first), (BLOCKS as usize - 1, 1, 7));
    assert_eq!(log.stats().quarantined, 1);
    assert_eq!(read_all(&log, table).1.len(), 1);
    assert_eq!(log.stats().quarantined, 1, "the same damage is counted once");
}

#[test]
fn after_a_clean_close_the_last_block_is_covered_too() {
    let sim = Sim::new(1);
    write(&sim, true);
    let (path, at) = find(&sim, BLOCKS);
    flip(&sim, &path, at + 5);
    let recovery = tools::verify(&options(&sim)).expect("can be read");
    assert_eq!((recovery.damages.len(), recovery.gaps.len()), (1, 1), "{recovery:?}");
}

#[test]
fn a_lost_segment_is_a_gap() {
    let sim = Sim::new(1);
    let table = write(&sim, false);
    sim.delete(&segment(1));
    let (log, recovery) = Log::open(options(&sim)).expect("opens");
    let lost = recovery.gaps[0];
    assert_eq!((lost.first, recovery.gaps.len()), (1, 1));
    let (blocks, gaps) = read_all(&log, table);
    assert_eq!((gaps, blocks[0] * 2 - 1), (vec![lost], lost.last + 1));
}

#[test]
fn a_segment_that_was_overwritten_is_kept() {
    let sim = Sim::new(1);
    let table = write(&sim, false);
    let length = sim.content(&segment(2)).expect("a file").len();
    sim.set_content(&segment(2), vec![0xee; length]);
    let (log, recovery) = Log::open(options(&sim)).expect("opens");
    assert!(!recovery.damages.is_empty() && recovery.gaps.len() == 1, "{recovery:?}");
    assert_eq!(read_all(&log, table).1, recovery.gaps);
}

/// Nothing else has its rows, so a start that finds it without a header and without a record must say so, and a look must say the same.
#[test]
fn a_newest_segment_without_a_header_is_said() {
    let look = |change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let sim = Sim::new(1);
        write(&sim, false);
        let newest = newest(&sim);
        let content = change(sim.content(&newest).expect("it is there"));
        sim.set_content(&newest, content.clone());
        let seen = tools::inspect(&options(&sim)).expect("a look").recovery;
        assert_eq!(sim.content(&newest), Some(content.clone()), "a look changes nothing");
        let (_, recovery) = Log::open(options(&sim)).expect("it is kept");
        let name = newest.file_name().expect("a name").to_string_lossy().into_owned();
        let is_kept = sim.files().iter().any(|path| path.ends_with(Path::new("quarantine").join(&name)));
        let said = |recovery: &Recovery| {
            let damaged = recovery.damages.iter().filter(|damage| damage.file == name).count();
            let unfinished = recovery.unfinished_segments.iter().map(|segment| (segment.file.clone(), segment.length));
            let unfinished: Vec<_> = unfinished.collect();
            let is_unfinished = unfinished == [(name.clone(), content.len() as u64)];
            assert_eq!(is_unfinished, !unfinished.is_empty());
            (damaged, is_unfinished)
        };
        assert_eq!(said(&seen), said(&recovery));
        let (damaged, is_unfinished) = said(&recovery);
        (is_kept, damaged, is_unfinished)
    };
    let cut = |length| move |content: Vec<u8>| content[..length].to_vec();
    assert_eq!(look(&|_| vec![7; 300]), (true, 1, false));
    assert_eq!(look(&|_| b"\0\0\x01".to_vec()), (true, 1, false));
    assert_eq!(look(&cut(10)), (true, 0, true));
    assert_eq!(look(&cut(50)), (true, 0, true));
    assert_eq!(look(&cut(63)), (true, 0, true));
    assert_eq!(look(&|_| vec![0; 300]), (true, 0, true));
    assert_eq!(look(&cut(0)), (false, 0, true));
    // The first bytes are those of the header, and the rest was overwritten: no crash leaves it so.
    assert_eq!(look(&|content| [&content[..40], &[7; 300]].concat()), (true, 1, false));
    assert_eq!(look(&|content| [&content[..40], &[0; 300]].concat()), (true, 1, false));
    assert_eq!(look(&|content| [&content[..62], &[7; 300]].concat()), (true, 1, false));
    // Also cut behind it.
    assert_eq!(look(&|content| [&content[..40], &[7; 15]].concat()), (true, 1, false));
}

/// The newest segment.
fn newest(sim: &Sim) -> PathBuf {
    let segments = sim.files().into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "seg"));
    segments.max().expect("there are segments")
}

/// No crash does it. Rows whose end is known only from what was cut are not missing, and no sequence is given again.
#[test]
fn what_was_cut_since_a_clean_close_is_said() {
    let closed = Sim::new(1);
    let (log, _) = Log::open(options(&closed)).expect("a new log");
    let (table, schema) = (log.table("events").expect("a name"), log.schema(b"s").expect("a schema"));
    for id in 1..=BLOCKS {
        let block = Block { table, partition: 0, schema, count: 2, bytes: payload(id, 1_500) };
        log.append(block).expect("space").wait().expect("stored");
    }
    log.settle(table, 0, 21..=22).expect("rows that exist");
    log.close().wait().expect("closed");
    closed.stop();
    drop(log);
    closed.kill();
    let length = closed.content(&newest(&closed)).expect("a file").len();
    let of_newest = |id: &u64| find(&closed, *id);
    let last: Vec<(u64, usize)> = (1..=BLOCKS)
        .map(|id| (id, of_newest(&id)))
        .filter(|(_, (path, _))| *path == newest(&closed))
        .map(|(id, (_, at))| (id, at))
        .collect();
    assert!(last.len() >= 2 && !last.iter().any(|(id, _)| *id == 1), "{last:?}");
    let cuts = [0, 1, 63, 64, 100, 136, last[0].1, last[1].1, last[1].1 + 1_512, length / 2, length - 8, length];
    for cut in cuts.into_iter().map(Some).chain([None]) {
        let sim = closed.fork();
        let path = newest(&sim);
        match cut {
            Some(cut) => sim.set_content(&path, sim.content(&path).expect("a file")[..cut].to_vec()),
            None => sim.delete(&path),
        }
        let cut = cut.unwrap_or_default();
        let lost = last.iter().filter(|(id, at)| at + 1_512 > cut && *id != 11);
        let expected: Vec<u64> = lost.flat_map(|(id, _)| [id * 2 - 1, id * 2]).collect();
        let looked = tools::verify(&options(&sim)).expect("can be read");
        let (log, recovery) = Log::open(options(&sim)).expect("opens");
        for recovery in [looked, recovery] {
            let missing: Vec<u64> = recovery.gaps.iter().flat_map(|gap| gap.first..=gap.last).collect();
            assert_eq!(missing, expected, "cut at {cut} of {length}: {recovery:?}");
            assert_eq!(recovery.damages.is_empty(), cut >= length - 8, "cut at {cut}: {recovery:?}");
        }
        let schema = log.schema(b"s").expect("a schema");
        let block = Block { table, partition: 0, schema, count: 1, bytes: payload(99, 10) };
        let first = log.append(block).expect("space").wait().expect("stored").first;
        assert_eq!(first, BLOCKS * 2 + 1, "cut at {cut}");
        sim.stop();
        drop(log);
        sim.lose_power();
        let (_, recovery) = Log::open(options(&sim)).expect("opens");
        let missing: u64 = recovery.gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
        assert_eq!(missing, expected.len() as u64, "they stay missing until somebody accepts it");
    }
}

/// Nothing says that its only group was on disk. What was overwritten is no torn tail: no crash leaves it so.
#[test]
fn a_newest_segment_with_one_group_that_was_overwritten_is_damaged() {
    let look = |change: &dyn Fn(&mut Vec<u8>)| {
        let sim = Sim::new(1);
        let (log, _) = Log::open(options(&sim)).expect("a new log");
        let (table, schema) = (log.table("events").expect("a name"), log.schema(b"s").expect("a schema"));
        let block = Block { table, partition: 0, schema, count: 2, bytes: payload(1, 1_500) };
        log.append(block).expect("space").wait().expect("stored");
        sim.stop();
        drop(log);
        sim.kill();
        let mut content = sim.content(&newest(&sim)).expect("it is there");
        change(&mut content);
        let length = content.len();
        sim.set_content(&newest(&sim), content);
        let seen = tools::verify(&options(&sim)).expect("a look");
        let (log, recovery) = Log::open(options(&sim)).expect("it is kept");
        let spans = |recovery: &Recovery| -> Vec<_> {
            recovery.damages.iter().map(|damage| (damage.offset, damage.length)).collect()
        };
        assert_eq!((spans(&seen), seen.torn_bytes), (spans(&recovery), recovery.torn_bytes));
        assert!(recovery.damages.iter().all(|damage| damage.kept_in.is_some()), "{recovery:?}");
        let blocks = read_all(&log, table).0;
        // The next start finds what was read.
        drop(log);
        sim.kill();
        let (log, _) = Log::open(options(&sim)).expect("opens again");
        assert_eq!(read_all(&log, table).0, blocks);
        (spans(&recovery), recovery.torn_bytes, blocks.len(), length as u64)
    };
    let (damages, torn, blocks, _) = look(&|content| content[..64].fill(7));
    assert_eq!((&*damages, torn, blocks), (&[(0, 64)][..], 0, 1), "its row is there still");
    let (damages, torn, blocks, length) = look(&|content| content[64..].fill(7));
    assert_eq!((&*damages, torn, blocks), (&[(64, length - 64)][..], 0, 0));
    // What a crash may leave: the first sector, or the others, are not on disk.
    let (damages, torn, blocks, length) = look(&|content| content[..512].fill(0));
    assert_eq!((&*damages, torn, blocks), (&[][..], length, 0));
    let (damages, torn, blocks, _) = look(&|content| content[512..].fill(0));
    assert!(damages.is_empty() && torn > 0 && blocks == 0, "{damages:?} {torn} {blocks}");
    let (damages, torn, blocks, _) = look(&|content| content.truncate(100));
    assert_eq!((&*damages, torn, blocks), (&[][..], 36, 0));
}

/// What shows a segment of the middle that was removed by hand, or emptied, are its rows that wait: later segments know their sequences.
#[test]
fn a_lost_segment_of_the_middle_is_a_gap() {
    for closes in [false, true] {
        let look = |change: &dyn Fn(&Sim)| {
            let sim = Sim::new(1);
            let table = write(&sim, closes);
            change(&sim);
            let seen = tools::verify(&options(&sim)).expect("a look");
            let (log, recovery) = Log::open(options(&sim)).expect("opens");
            assert!(!recovery.is_clean || seen.gaps.is_empty(), "a clean close does not describe these files");
            let (blocks, gaps) = read_all(&log, table);
            assert_eq!((&seen.gaps, &recovery.gaps), (&gaps, &gaps));
            (gaps.len(), blocks.len() as u64)
        };
        let sim = Sim::new(1);
        write(&sim, closes);
        let middle = tools::inspect(&options(&sim)).expect("a look").files.remove(1);
        assert!(segment(2).ends_with(&middle.name), "{middle:?}");
        assert_eq!(look(&|_| {}), (0, BLOCKS));
        assert_eq!(look(&|sim| sim.delete(&segment(2))), (1, BLOCKS - middle.blocks));
        assert_eq!(look(&|sim| sim.set_content(&segment(2), Vec::new())), (1, BLOCKS - middle.blocks));
    }
}

/// A hole in the numbers of segments is no damage: a segment is removed when its rows are settled, also if an older one has rows
/// that wait.
#[test]
fn a_settled_segment_behind_one_that_waits_leaves_a_hole_that_is_no_damage() {
    let sim = Sim::new(1);
    let (log, _) = Log::open(options(&sim)).expect("a new log");
    let (waits, schema) = (log.table("waits").expect("a name"), log.schema(b"s").expect("a schema"));
    let table = log.table("events").expect("a name");
    let append = |table, id| {
        let block = Block { table, partition: 0, schema, count: 2, bytes: payload(id, 1_500) };
        log.append(block).expect("space").wait().expect("stored").last
    };
    append(waits, 1);
    let last = (1..=BLOCKS).map(|id| append(table, id)).max().expect("there are blocks");
    log.settle(table, 0, 1..=last).expect("the rows are known");
    log.sync().wait().expect("synced");
    sim.stop();
    drop(log);
    sim.kill();
    assert!(sim.content(&segment(1)).is_some() && sim.content(&segment(2)).is_none(), "{:?}", sim.files());
    let (log, recovery) = Log::open(options(&sim)).expect("opens");
    assert!(recovery.damages.is_empty() && recovery.gaps.is_empty(), "{recovery:?}");
    assert_eq!(read_all(&log, waits), (vec![1], vec![]));
}

#[test]
fn foreign_segments_and_folders_are_refused_and_nothing_is_lost() {
    let other = Sim::new(2);
    write(&other, false);
    let check = |spoil: &dyn Fn(&Sim), kind: LogErrorKind, word: &str| {
        let sim = Sim::new(1);
        write(&sim, false);
        spoil(&sim);
        let before: Vec<_> = sim.files().iter().map(|path| sim.content(path)).collect();
        let error = Log::open(options(&sim)).expect_err(word);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert_eq!(sim.files().iter().map(|path| sim.content(path)).collect::<Vec<_>>(), before, "{word}");
    };
    let foreign = other.content(&segment(2)).expect("a segment");
    check(&|sim| sim.set_content(&segment(2), foreign.clone()), LogErrorKind::Foreign, "belongs to the log");
    check(
        &|sim| sim.set_content(&segment(9), sim.content(&segment(1)).expect("a file")),
        LogErrorKind::Foreign,
        "renamed",
    );
    check(&|sim| sim.delete(&folder().join("IDENTITY")), LogErrorKind::Foreign, "restore it");
    check(&|sim| flip(sim, &folder().join("IDENTITY"), 20), LogErrorKind::Foreign, "damaged");
    let newer = |sim: &Sim| {
        let mut content = sim.content(&segment(3)).expect("a file");
        content[8] = 3;
        let checksum = crc32fast::hash(&content[..60]);
        content[60..64].copy_from_slice(&checksum.to_le_bytes());
        sim.set_content(&segment(3), content);
    };
    check(&newer, LogErrorKind::NewerFormat, "newer program");
    let newer_identity = |sim: &Sim| {
        let body = "batchsql-log 7\nanything\n";
        let text = format!("{body}crc {:08x}\n", crc32fast::hash(body.as_bytes()));
        sim.set_content(&folder().join("IDENTITY"), text.into_bytes());
    };
    check(&newer_identity, LogErrorKind::NewerFormat, "version 7");

    let sim = Sim::new(1);
    sim.set_content(&folder().join("photo.jpg"), vec![1]);
    let error = Log::open(options(&sim)).expect_err("a folder of something else");
    assert!(error.kind() == LogErrorKind::Foreign && error.to_string().contains("photo.jpg"), "{error}");
}

/// Every damage either is reported or loses nothing.
///
/// `is_cut`: the newest segment was cut, perhaps between two records. Nothing in the folder can tell that from a crash before
/// they were written.
fn after_damage(sim: &Sim, table: TableId, is_cut: bool) -> Result<(), TestCaseError> {
    let look: Result<Recovery, _> = tools::verify(&options(sim));
    let mut exported = 0;
    let _ = tools::export(&options(sim), |_| {
        exported += 1;
        Ok(())
    });
    let Ok((log, recovery)) = Log::open(options(sim)) else { return Ok(()) };
    prop_assert!(look.is_ok(), "a start reads what a look cannot: {:?}", look);
    let (blocks, gaps) = read_all(&log, table);
    prop_assert!(blocks.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", blocks);
    prop_assert!(exported >= blocks.len());
    let end = blocks.last().copied().unwrap_or(0);
    let missing: Vec<u64> = (1..=end).filter(|id| !blocks.contains(id)).collect();
    let in_gap = |id: &u64| gaps.iter().any(|gap| gap.first < id * 2 && gap.last >= id * 2);
    prop_assert!(missing.iter().all(in_gap), "{:?} missing, gaps {:?}", missing, gaps);
    if end < BLOCKS && !is_cut {
        let is_said = recovery.torn_bytes > 0 || !recovery.damages.is_empty() || !gaps.is_empty();
        prop_assert!(is_said, "the end is missing in silence: {:?}", recovery);
    }
    Ok(())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_damage_is_survived(
        closes in any::<bool>(),
        spots in prop::collection::vec((1_u64..4, any::<prop::sample::Index>(), any::<u8>(), 1_usize..300), 1..6),
    ) {
        let sim = Sim::new(1);
        let table = write(&sim, closes);
        for (number, index, byte, length) in spots {
            let Some(mut content) = sim.content(&segment(number)) else { continue };
            let at = index.index(content.len());
            let end = (at + length).min(content.len());
            content[at..end].fill(byte);
            sim.set_content(&segment(number), content);
        }
        after_damage(&sim, table, false)?;
    }

    #[test]
    fn random_lengths_are_survived(closes in any::<bool>(), number in 1_u64..4, index in any::<prop::sample::Index>()) {
        let sim = Sim::new(1);
        let table = write(&sim, closes);
        if let Some(mut content) = sim.content(&segment(number)) {
            content.truncate(index.index(content.len()));
            sim.set_content(&segment(number), content);
        }
        after_damage(&sim, table, number == 3)?;
    }
}

#[test]
fn a_hostile_length_allocates_nothing() {
    let sim = Sim::new(1);
    let table = write(&sim, false);
    let (path, at) = find(&sim, 2);
    let mut content = sim.content(&path).expect("a file");
    // The length of the payload, with a checksum of the header that is right.
    let record = at - 72;
    content[record + 8..record + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    let identity = String::from_utf8(sim.content(&folder().join("IDENTITY")).expect("an identity")).expect("text");
    let id = identity.lines().find_map(|line| line.strip_prefix("id ")).expect("an id");
    let id: Vec<u8> = (0..16).map(|byte| u8::from_str_radix(&id[byte * 2..byte * 2 + 2], 16).expect("hex")).collect();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id);
    hasher.update(&1_u64.to_le_bytes());
    hasher.update(&(record as u64).to_le_bytes());
    hasher.update(&content[record + 8..record + 72]);
    content[record + 4..record + 8].copy_from_slice(&hasher.finalize().to_le_bytes());
    sim.set_content(&path, content);
    let (log, recovery) = Log::open(options(&sim)).expect("opens");
    assert_eq!(recovery.damages.len(), 1, "{recovery:?}");
    let (blocks, gaps) = read_all(&log, table);
    assert_eq!((blocks[0], gaps[0].first), (1, 3));
}

#[test]
fn options_of_the_reader_of_a_folder_without_a_log() {
    let sim = Sim::new(1);
    let error = tools::inspect(&Options::new(folder()).file_system(std::sync::Arc::new(sim))).expect_err("no log");
    assert!(error.to_string().contains("no log"), "{error}");
}
