//! Groups of blocks: all or none at every place where a crash can cut the file, their keys, and their limit.

use std::{path::PathBuf, time::Duration};

use batchsql_log::{Block, From, Key, Log, LogErrorKind, Next, Options, SchemaId, SyncPolicy, TableId};

use crate::{
    model::{folder, options, payload},
    sim::Sim,
};

struct Opened {
    log: Log,
    tables: [TableId; 2],
    schema: SchemaId,
}

/// The streams of a group: two tables, one with two partitions.
const STREAMS: [(usize, u32); 3] = [(0, 0), (0, 1), (1, 0)];

impl Opened {
    /// Nothing is damaged and nothing is missing.
    fn open(options: Options) -> Self {
        let (log, recovery) = Log::open(options).expect("opens");
        assert!(recovery.damages.is_empty() && recovery.gaps.is_empty(), "{recovery:?}");
        let tables = [log.table("one").expect("a name"), log.table("two").expect("a name")];
        let schema = log.schema(b"s").expect("a schema");
        Opened { log, tables, schema }
    }

    fn block(&self, stream: usize, id: u64, length: usize) -> Block {
        let (table, partition) = STREAMS[stream];
        Block { table: self.tables[table], partition, schema: self.schema, count: 2, bytes: payload(id, length) }
    }

    /// A block for each stream, with the numbers from `id` on.
    fn group(&self, id: u64, length: usize) -> Vec<Block> {
        (0..STREAMS.len()).map(|stream| self.block(stream, id + stream as u64, length)).collect()
    }

    fn append(&self, id: u64, length: usize) {
        let tickets = self.log.append_group(self.group(id, length), vec![key(id)]).expect("space");
        tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
    }

    /// Numbers of the blocks of all streams.
    fn found(&self) -> Vec<u64> {
        let mut found = Vec::new();
        for (table, partition) in STREAMS {
            let mut reader = self.log.reader(self.tables[table], partition, From::Unsettled).expect("a reader");
            while let Next::Block(block) = reader.next().expect("the disk works") {
                found.push(u64::from_le_bytes(block.bytes[..8].try_into().expect("a number")));
            }
        }
        found.sort_unstable();
        found
    }

    fn knows(&self, id: u64) -> bool {
        let known = self.log.key(&id.to_le_bytes());
        known.is_some_and(|known| known.value == b"the value")
    }

    fn settle_all(&self) {
        for (table, partition) in STREAMS {
            let mut reader = self.log.reader(self.tables[table], partition, From::Unsettled).expect("a reader");
            while let Next::Block(block) = reader.next().expect("the disk works") {
                self.log.settle(self.tables[table], partition, block.first..=block.last()).expect("rows that exist");
            }
        }
    }
}

fn key(id: u64) -> Key {
    Key { key: id.to_le_bytes().to_vec(), value: b"the value".to_vec() }
}

fn kill(sim: &Sim, opened: Opened) {
    sim.stop();
    drop(opened);
    sim.kill();
}

fn segment(number: u64) -> PathBuf {
    folder().join(format!("{number:020}.seg"))
}

/// The file is cut at every byte of the second group, and each part of it is missing, as sectors that were not written.
#[test]
fn a_group_is_there_or_not_wherever_the_file_ends() {
    let sim = Sim::new(1);
    let opened = Opened::open(options(&sim));
    opened.append(10, 100);
    let before = sim.content(&segment(1)).expect("the segment").len();
    opened.append(20, 150);
    let content = sim.content(&segment(1)).expect("the segment");
    kill(&sim, opened);
    let check = |content: Vec<u8>, what: &str| {
        let sim = sim.fork();
        sim.set_content(&segment(1), content);
        let opened = Opened::open(options(&sim));
        let found = opened.found();
        let is_there = found.contains(&20);
        let expected: &[u64] = if is_there { &[10, 11, 12, 20, 21, 22] } else { &[10, 11, 12] };
        assert_eq!(found, expected, "{what}");
        assert_eq!((opened.knows(10), opened.knows(20)), (true, is_there), "{what}");
        // What was cut stays away.
        opened.append(30, 10);
        kill(&sim, opened);
        let opened = Opened::open(options(&sim));
        assert_eq!(opened.found(), [expected, &[30, 31, 32]].concat(), "{what}, after another start");
        is_there
    };
    assert!(content.len() > before + 3 * (150 + 72), "the group has three blocks");
    for length in before..content.len() {
        // Only the padding of the last record may be cut.
        let is_there = check(content[..length].to_vec(), &format!("cut at {length} of {}", content.len()));
        assert!(!is_there, "cut at {length} of {}", content.len());
    }
    assert!(check(content.clone(), "whole"));
    for at in (before..content.len()).step_by(64) {
        let mut torn = content.clone();
        let end = (at + 64).min(torn.len());
        torn[at..end].fill(0);
        check(torn, &format!("without the bytes from {at} on"));
    }
}

/// A failed sync: the group is written again to a new segment, and the machine stops there.
#[test]
fn a_group_that_is_written_again_is_there_once() {
    let sim = Sim::new(1);
    let opened = Opened::open(options(&sim));
    opened.append(10, 100);
    let first = sim.content(&segment(1)).expect("the segment");
    opened.append(20, 150);
    let whole = sim.content(&segment(1)).expect("the segment");
    kill(&sim, opened);
    // A start writes what may not be on disk again, to segment 2, and cuts segment 1.
    let opened = Opened::open(options(&sim));
    let again = sim.content(&segment(2)).expect("the segment of the second start");
    kill(&sim, opened);
    assert!(sim.content(&segment(1)).expect("the segment").len() < whole.len());
    for length in (0..=again.len()).step_by(8) {
        // As if the machine had stopped before the cut.
        let sim = sim.fork();
        sim.set_content(&segment(1), whole.clone());
        sim.set_content(&segment(2), again[..length].to_vec());
        let opened = Opened::open(options(&sim));
        assert_eq!(opened.found(), [10, 11, 12, 20, 21, 22], "cut at {length} of {}", again.len());
        assert!(opened.knows(10) && opened.knows(20), "cut at {length}");
    }
    assert!(first.len() < whole.len());
}

#[test]
fn keys_survive_their_segments_and_every_kind_of_end() {
    for policy in [SyncPolicy::Always, SyncPolicy::Os] {
        let sim = Sim::new(1);
        let options = || options(&sim).sync_policy(policy);
        let mut opened = Opened::open(options());
        for id in [10, 20, 30, 40, 50, 60] {
            opened.append(id, 1_500);
        }
        opened.settle_all();
        opened.log.sync().wait().expect("synced");
        assert!(opened.log.stats().trimmed >= 1, "the segment of the first keys is removed");
        assert!(sim.content(&segment(1)).is_none());
        let check = |opened: &Opened| {
            assert!([10, 20, 30, 40, 50, 60].into_iter().all(|id| opened.knows(id)), "{policy:?}");
            assert_eq!((opened.found(), opened.log.stats().keys), (Vec::new(), 6), "{policy:?}");
        };
        kill(&sim, opened);
        opened = Opened::open(options());
        check(&opened);
        opened.log.close().wait().expect("closed");
        drop(opened);
        opened = Opened::open(options());
        check(&opened);
        sim.stop();
        drop(opened);
        sim.lose_power();
        opened = Opened::open(options());
        check(&opened);
    }
}

#[test]
fn keys_are_forgotten_when_their_time_is_over_or_there_are_more_of_them() {
    let sim = Sim::new(1);
    let options = || options(&sim).keys(2, Duration::from_secs(60));
    let opened = Opened::open(options());
    for id in [10, 20, 30] {
        opened.append(id, 10);
    }
    assert_eq!([10, 20, 30].map(|id| opened.knows(id)), [false, true, true]);
    sim.pass(59_000);
    kill(&sim, opened);
    let opened = Opened::open(options());
    assert_eq!([10, 20, 30].map(|id| opened.knows(id)), [false, true, true]);
    sim.pass(1_000);
    assert_eq!([10, 20, 30].map(|id| opened.knows(id)), [false; 3]);
    opened.append(20, 10);
    assert!(opened.knows(20), "a key may be used again");
    opened.log.close().wait().expect("closed");
    drop(opened);
    let opened = Opened::open(options());
    assert_eq!((opened.knows(20), opened.log.stats().keys), (true, 1));
}

/// The rows of one stream of a group go to a side segment, where they are blocks as any other.
#[test]
fn a_group_can_be_moved_aside_in_part() {
    let sim = Sim::new(1);
    let opened = Opened::open(options(&sim));
    for id in [10, 20, 30, 40, 50, 60] {
        opened.append(id, 700);
    }
    opened.log.set_aside(opened.tables[1], 0, true);
    for partition in [0, 1] {
        opened.log.settle(opened.tables[0], partition, 1..=12).expect("rows that exist");
    }
    opened.log.sync().wait().expect("synced");
    assert!(opened.log.stats().side_segments > 0, "{:?}", sim.files());
    let expected = [12, 22, 32, 42, 52, 62];
    assert_eq!(opened.found(), expected);
    kill(&sim, opened);
    let opened = Opened::open(options(&sim));
    assert_eq!(opened.found(), expected);
}

#[test]
fn what_is_no_group_is_given_back() {
    let sim = Sim::new(1);
    let opened = Opened::open(options(&sim));
    let check = |blocks: Vec<Block>, keys: Vec<Key>, word: &str| {
        let refused = opened.log.append_group(blocks.clone(), keys.clone()).expect_err(word);
        assert_eq!((&refused.blocks, &refused.keys, refused.error.kind()), (&blocks, &keys, LogErrorKind::Invalid));
        assert!(refused.to_string().contains(word), "{refused}");
    };
    check(Vec::new(), vec![key(1)], "no blocks");
    check(opened.group(10, 10), vec![Key { key: Vec::new(), value: Vec::new() }], "a key has 0 bytes");
    check(opened.group(10, 10), vec![Key { key: vec![1; 1025], value: Vec::new() }], "a key has 1025 bytes");
    check(opened.group(10, 10), vec![Key { key: vec![1], value: vec![1; 1025] }], "a value of 1025");
    check(vec![opened.block(0, 1, 10), Block { count: 0, ..opened.block(1, 2, 10) }], Vec::new(), "no rows");
    // Each block would fit into a segment.
    check(opened.group(10, 3_000), Vec::new(), "a group is in one segment");
    assert_eq!(opened.found(), [0_u64; 0], "nothing of them is stored");
    // As large as a segment.
    let length = (8 << 10) - 2 * (72 + 8) - 8;
    let blocks = || vec![opened.block(0, 10, length - 1_000), opened.block(2, 12, 1_000)];
    for _ in 0..2 {
        let tickets = opened.log.append_group(blocks(), Vec::new()).expect("it fits");
        tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
    }
    kill(&sim, opened);
    assert_eq!(Opened::open(options(&sim)).found(), [10, 10, 12, 12]);
}

#[test]
fn a_full_log_stores_nothing_of_a_group() {
    let sim = Sim::new(1);
    let opened = Opened::open(options(&sim).disk_bytes(32 << 10));
    let mut id = 10;
    let stored = |id: u64| match opened.log.append_group(opened.group(id, 1_000), vec![key(id)]) {
        Ok(tickets) => tickets.into_iter().map(|ticket| u64::from(ticket.wait().is_ok())).sum(),
        Err(refused) => {
            assert!(refused.error.is_full(), "{refused}");
            0
        }
    };
    while stored(id) == 3 {
        id += 10;
    }
    assert!(id > 20, "some groups fit");
    assert!(!opened.knows(id) && opened.knows(id - 10));
    let groups = (id - 10) / 10;
    assert_eq!(opened.found().len() as u64, 3 * groups);
    // The space is waited for, and the group is accepted then.
    opened.settle_all();
    opened.log.space(3_500).wait().expect("there is space");
    assert_eq!(stored(id), 3);
    assert!(opened.knows(id));
}
