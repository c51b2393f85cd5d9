//! What users of other disk buffers complain about (Vector, Telegraf, Fluent Bit): each complaint is a test.

use std::time::Duration;

use batchsql_log::{Block, From, Log, Next, Options, SchemaId, SyncPolicy, TableId};

use crate::{
    model::{folder, options, payload},
    sim::{Call, Sim},
};

pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) table: TableId,
    pub(crate) schema: SchemaId,
}

pub(crate) fn open(options: Options) -> Opened {
    let (log, recovery) = Log::open(options).expect("opens");
    assert!(recovery.damages.is_empty() && recovery.gaps.is_empty(), "{recovery:?}");
    let (table, schema) = (log.table("events").expect("a name"), log.schema(b"s").expect("a schema"));
    Opened { log, table, schema }
}

impl Opened {
    /// One row of `length` bytes.
    pub(crate) fn block(&self, id: u64, length: usize) -> Block {
        Block { table: self.table, partition: 0, schema: self.schema, count: 1, bytes: payload(id, length) }
    }

    pub(crate) fn append(&self, id: u64, length: usize) -> u64 {
        self.log.append(self.block(id, length)).expect("space").wait().expect("stored").first
    }

    /// One group after the other.
    pub(crate) fn append_many(&self, ids: std::ops::RangeInclusive<u64>, length: usize) {
        for id in ids {
            self.append(id, length);
        }
    }

    /// First sequences of all that is not settled.
    pub(crate) fn unsettled(&self) -> Vec<u64> {
        let mut reader = self.log.reader(self.table, 0, From::Unsettled).expect("a reader");
        let mut found = Vec::new();
        loop {
            match reader.next().expect("the disk works") {
                Next::Block(block) => found.push(block.first),
                Next::End => return found,
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn settle(&self, first: u64, last: u64) {
        self.log.settle(self.table, 0, first..=last).expect("rows that exist");
    }
}

/// vectordotdev/vector#22489: acknowledged before fsync. And #25779: the folder was never synced.
#[test]
fn an_acknowledged_block_is_synced_and_so_is_the_folder_of_its_segment() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    for (id, expected) in
        [(1, &[Call::Create, Call::Write, Call::Sync, Call::SyncFolder][..]), (2, &[Call::Write, Call::Sync])]
    {
        let before = sim.calls().len();
        opened.append(id, 100);
        assert_eq!(&sim.calls()[before..], expected);
    }
}

/// vectordotdev/vector#17644: an endless loop after corruption. #18336, #19759: only deleting the buffer helped.
#[test]
fn after_damage_in_every_segment_the_log_goes_on() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append_many(1..=30, 1_500);
    drop(opened);
    sim.kill();
    for path in sim.files().into_iter().filter(|path| path.extension().is_some_and(|end| end == "seg")) {
        let mut content = sim.content(&path).expect("a file");
        let middle = content.len() / 2;
        content[middle..middle + 400].fill(0);
        sim.set_content(&path, content);
    }
    let (log, recovery) = Log::open(options(&sim)).expect("opens");
    let (table, schema) = (log.table("events").expect("a name"), log.schema(b"s").expect("a schema"));
    let appended = log.append(Block { table, partition: 0, schema, count: 1, bytes: payload(99, 10) });
    let last = appended.expect("space").wait().expect("stored").first;
    let mut reader = log.reader(table, 0, From::Unsettled).expect("a reader");
    let mut rows = Vec::new();
    let mut gaps = 0;
    loop {
        match reader.next().expect("the disk works") {
            Next::Block(block) => rows.push(block.first),
            Next::Gap(_) => gaps += 1,
            Next::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rows.last(), Some(&last));
    assert!(gaps > 2 && rows.len() > 15, "{gaps} gaps, {rows:?}, {recovery:?}");
}

/// vectordotdev/vector#25768, #25570: the ledger and the files disagree after a crash. There is no ledger: a close that does
/// not describe the files is not believed.
#[test]
fn a_clean_close_is_believed_only_for_the_files_that_it_describes() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append_many(1..=30, 1_500);
    opened.log.close().wait().expect("closed");
    drop(opened);
    let first = folder().join(format!("{:020}.seg", 1));
    let mut content = sim.content(&first).expect("a file");
    content.truncate(content.len() - 8);
    sim.set_content(&first, content);
    let (_, recovery) = Log::open(options(&sim)).expect("opens");
    assert!(!recovery.is_clean && recovery.gaps.len() == 1, "{recovery:?}");
}

/// influxdata/telegraf#18085: one fsync per event.
#[test]
fn what_waits_together_shares_one_sync() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).segment_bytes(1 << 20));
    opened.append(1, 10);
    let before = sim.calls().len();
    let (tickets, refused) = opened.log.append_all((2..=200).map(|id| opened.block(id, 10)).collect());
    assert!(refused.is_none());
    for ticket in tickets {
        ticket.wait().expect("stored");
    }
    assert_eq!(&sim.calls()[before..], &[Call::Write, Call::Sync]);
}

/// influxdata/telegraf#17414: a change of the configuration orphans the buffer.
#[test]
fn other_options_open_the_same_log() {
    let sim = Sim::new(1);
    let opened = open(options(&sim));
    opened.append_many(1..=20, 1_000);
    let incarnation = opened.log.incarnation();
    drop(opened);
    let other = options(&sim).segment_bytes(64 << 10).disk_bytes(8 << 20).sync_policy(SyncPolicy::Os);
    let opened = open(other.keep_for(Duration::from_secs(60)).queue_bytes(1));
    assert_eq!((opened.log.incarnation(), opened.unsettled()), (incarnation, (1..=20).collect()));
}

/// A queue that is full is no reason to warn: it has space in a moment.
#[test]
fn a_full_queue_is_told_apart_from_a_full_disk() {
    let sim = Sim::new(1);
    let opened = open(options(&sim).queue_bytes(1));
    // Together, so that the writer takes none of them in between.
    let (accepted, refused) = opened.log.append_all((0..2).map(|id| opened.block(id, 1_000)).collect());
    let (blocks, error) = refused.expect("the second one has no place in the queue");
    assert!(error.is_full() && !error.is_of_disk() && error.to_string().contains("queue_bytes"), "{error}");
    assert_eq!((accepted.len(), blocks.len()), (1, 1));
}

/// fluent/fluent-bit#5166: the backlog is read into memory at the restart.
#[test]
fn a_backlog_is_read_through_a_window() {
    let sim = Sim::new(1);
    let large = |sim: &Sim| options(sim).segment_bytes(4 << 20).disk_bytes(64 << 20).window_bytes(100_000);
    let opened = open(large(&sim));
    for _ in 0..20 {
        let (tickets, _) = opened.log.append_all((0..500).map(|id| opened.block(id, 1_000)).collect());
        for ticket in tickets {
            ticket.wait().expect("stored");
        }
    }
    sim.stop();
    drop(opened);
    sim.kill();
    assert!(sim.bytes() > 10_000_000);
    let opened = open(large(&sim));
    let mut reader = opened.log.reader(opened.table, 0, From::Unsettled).expect("a reader");
    let mut returned = 0;
    let mut settled = 0;
    while settled < 10_000 {
        match reader.next().expect("the disk works") {
            Next::Block(block) => returned = block.last(),
            Next::WindowFull => {
                assert!((returned - settled) * 1_080 <= 101_080, "{} blocks are out", returned - settled);
                settled += 10;
                opened.settle(1, settled);
            }
            Next::End => {
                settled = returned;
                opened.settle(1, settled);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(sim.largest_read() <= 256 << 10, "{} bytes were read at once", sim.largest_read());
}

/// A block whose sync is under way, or after which the writer frees space, takes its space once: the next one fits.
#[test]
fn a_block_that_is_being_stored_is_counted_once() {
    for in_sync in [true, false] {
        let sim = Sim::new(1);
        sim.set_free(Some(1 << 30));
        let opened = open(options(&sim).segment_bytes(64 << 10).disk_bytes(256 << 10).min_free_bytes(1));
        let held = if in_sync { sim.hold_sync() } else { sim.hold_free_bytes() };
        // Each has a segment.
        let (tickets, refused) = opened.log.append_all(vec![opened.block(1, 62_000), opened.block(2, 60_000)]);
        held.wait();
        let third = opened.log.append(opened.block(3, 62_000));
        let fourth = opened.log.append(opened.block(4, 62_000));
        // Before anything can fail: a log that is dropped waits for its thread.
        held.wait();
        assert!(refused.is_none());
        tickets.into_iter().for_each(|ticket| assert!(ticket.wait().is_ok()));
        assert_eq!(third.expect("there is space for three").wait().expect("stored").first, 3);
        assert!(fourth.expect_err("there is no space for four").error.is_full());
        assert!(sim.bytes() <= 256 << 10, "{} bytes", sim.bytes());
    }
}

/// fluent/fluent-bit#2878, #3355: the size limit is not kept.
#[test]
fn the_disk_budget_is_kept_and_space_is_waited_for() {
    let sim = Sim::new(1);
    let limit = 64 << 10;
    let opened = open(options(&sim).disk_bytes(limit).settle_delay(Duration::ZERO));
    let mut accepted = 0;
    for id in 0.. {
        match opened.log.append(opened.block(id, 700)) {
            Ok(ticket) => accepted = ticket.wait().expect("stored").last,
            Err(refused) => {
                assert!(refused.error.is_full() && refused.error.to_string().contains("disk_bytes"), "{refused}");
                assert!(refused.error.is_of_disk(), "{refused}");
                assert_eq!(refused.block.bytes, payload(id, 700));
                break;
            }
        }
        assert!(sim.bytes() <= limit, "{} bytes", sim.bytes());
    }
    assert!(accepted > 50 && opened.log.stats().is_full, "{accepted}");
    // Many rounds of a full log: it neither grows nor stays full.
    let mut settled = 0;
    for id in 0..300 {
        while let Err(refused) = opened.log.append(opened.block(id, 700)).map(|ticket| ticket.wait().expect("stored")) {
            assert!(refused.error.is_full());
            settled = (settled + 20).min(opened.log.stats().unsettled_rows + settled);
            opened.settle(1, settled);
            opened.log.space(708).wait().expect("space after rows were settled");
        }
        assert!(sim.bytes() <= limit, "{} bytes", sim.bytes());
    }
    assert!(opened.log.stats().trimmed > 5);
}

/// The same for rows that are kept after they were settled: they give way to new rows, the oldest first.
#[test]
fn kept_rows_give_way_to_new_ones() {
    let sim = Sim::new(1);
    let limit = 64 << 10;
    let opened = open(options(&sim).disk_bytes(limit).keep_for(Duration::from_secs(3_600)));
    let mut largest = 0;
    for id in 1..=300 {
        if opened.log.append(opened.block(id, 700)).map(|ticket| ticket.wait().expect("stored")).is_err() {
            // What was refused makes place; so does a sync, which can be waited for.
            opened.log.sync().wait().expect("synced");
            opened.log.append(opened.block(id, 700)).expect("kept rows give way").wait().expect("stored");
        }
        opened.settle(1, id);
        largest = largest.max(sim.bytes());
        assert!(sim.bytes() <= limit, "{} bytes", sim.bytes());
    }
    assert!(largest > limit / 2, "nothing was kept: {largest} bytes");
    let mut reader = opened.log.reader(opened.table, 0, From::Sequence(1)).expect("a reader");
    let Next::Gap(gap) = reader.next().expect("works") else { panic!("the oldest rows are gone") };
    assert!((100..290).contains(&gap.last), "{gap:?}");
    let mut last = gap.last;
    while let Next::Block(block) = reader.next().expect("works") {
        assert_eq!(block.first, last + 1);
        last = block.last();
    }
    assert_eq!(last, 300, "what is kept has no hole");
}
