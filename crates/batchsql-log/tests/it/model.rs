//! What must be true of a log: a list of actions is run on the simulated disk, and compared with what was acknowledged.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use batchsql_log::{Block, From, Key, Log, Next, Options, Recovery, SchemaId, SyncPolicy, TableId};
use proptest::test_runner::Config;

use crate::sim::{Fault, Sim};

pub(crate) const STREAMS: usize = 3;

/// `PROPTEST_CASES` sets the number of cases; `cargo xtask fuzz` runs many more.
pub(crate) fn config() -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(300);
    Config { cases, ..Config::default() }
}

#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Blocks of one group: stream, rows, bytes.
    Append(Vec<(usize, u32, usize)>),
    /// Blocks that are stored all or none, with a key: stream, rows, bytes.
    Group(Vec<(usize, u32, usize)>),
    /// What a client does that does not know whether its group was stored: the same key, in other streams.
    GroupAgain(Vec<(usize, u32, usize)>),
    /// So many more blocks of a stream, from the first one that is not settled.
    Settle(usize, usize),
    /// One later block, so that there is a hole.
    SettleLater(usize, usize),
    SetAside(usize, bool),
    Sync,
    Fault(usize, Fault),
    /// The disk has so many bytes left; `None`: enough.
    Left(Option<u64>),
    LosePower,
    Kill,
    Close,
}

#[derive(Debug, Default)]
struct StreamModel {
    /// Acknowledged blocks by their first sequence: rows, and the number in the bytes.
    stored: BTreeMap<u64, (u32, u64)>,
    /// First sequences of blocks that were settled in this life, and in any.
    settled: BTreeSet<u64>,
}

/// A group that was handed to the log.
#[derive(Debug)]
struct GroupModel {
    key: u64,
    ids: BTreeSet<u64>,
    state: GroupState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupState {
    Stored,
    Undetermined,
    /// A start has not found it.
    Gone,
}

/// The log with the streams of the model.
type Opened = (Log, Vec<(TableId, u32)>, SchemaId);

pub(crate) struct Model {
    pub(crate) sim: Sim,
    options: Options,
    log: Option<Opened>,
    streams: Vec<StreamModel>,
    /// Blocks that may be in the log: stream, rows.
    undetermined: BTreeMap<u64, (usize, u32)>,
    groups: Vec<GroupModel>,
    next_id: u64,
    pub(crate) acknowledged: usize,
    pub(crate) lives: usize,
}

pub(crate) fn options(sim: &Sim) -> Options {
    Options::new(folder())
        .file_system(Arc::new(sim.clone()))
        .segment_bytes(8 << 10)
        .disk_bytes(4 << 20)
        .min_free_bytes(0)
        .window_bytes(u64::MAX)
        .settle_delay(Duration::from_secs(3_600))
}

pub(crate) fn folder() -> PathBuf {
    PathBuf::from("/log")
}

/// Bytes that name their block.
pub(crate) fn payload(id: u64, length: usize) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend((0..length).map(|index| (id as usize * 31 + index) as u8));
    bytes
}

/// Runs the actions; an error says what was not true.
pub(crate) fn run(sim: &Sim, policy: SyncPolicy, actions: &[Action]) -> Result<Model, String> {
    run_with(sim, options(sim).sync_policy(policy), actions)
}

/// The same with other options.
pub(crate) fn run_with(sim: &Sim, options: Options, actions: &[Action]) -> Result<Model, String> {
    let mut model = Model {
        sim: sim.clone(),
        options,
        log: None,
        streams: (0..STREAMS).map(|_| StreamModel::default()).collect(),
        undetermined: BTreeMap::new(),
        groups: Vec::new(),
        next_id: 1,
        acknowledged: 0,
        lives: 0,
    };
    for action in actions {
        model.step(action).map_err(|problem| format!("{action:?}: {problem}"))?;
    }
    model.end_life(true)?;
    sim.clear_faults();
    sim.set_capacity(None);
    model.open().map_err(|problem| format!("at the end: {problem}"))?;
    model.end_life(false)?;
    Ok(model)
}

impl Model {
    fn step(&mut self, action: &Action) -> Result<(), String> {
        if self.sim.is_stopped() {
            self.end_life(true)?;
        }
        if self.log.is_none() && !self.open()? {
            return Ok(());
        }
        let Some((log, streams, schema)) = &self.log else { return Ok(()) };
        let (streams, schema) = (streams.clone(), *schema);
        match action {
            Action::Append(blocks) => {
                let mut ids = Vec::new();
                let mut given = Vec::new();
                for (stream, count, length) in blocks {
                    let (table, partition) = streams[*stream];
                    let bytes = payload(self.next_id, *length);
                    given.push(Block { table, partition, schema, count: *count, bytes });
                    ids.push((self.next_id, *stream, *count));
                    self.next_id += 1;
                }
                let (tickets, refused) = log.append_all(given);
                if let Some((_, error)) = refused {
                    check(error.is_full() || self.sim.is_stopped(), || format!("refused: {error}"))?;
                }
                for ((id, stream, count), ticket) in ids.into_iter().zip(tickets) {
                    match ticket.wait() {
                        Ok(appended) => {
                            let known = self.streams[stream].stored.insert(appended.first, (count, id));
                            check(known.is_none(), || format!("sequence {} was given twice", appended.first))?;
                            self.acknowledged += 1;
                        }
                        Err(error) if error.is_full() => {}
                        Err(_) => drop(self.undetermined.insert(id, (stream, count))),
                    }
                }
            }
            Action::Group(blocks) => {
                let key = self.groups.len() as u64;
                self.append_group(key, blocks)?;
            }
            Action::GroupAgain(blocks) => {
                let last = self.groups.last();
                if let Some(key) = last.filter(|group| group.state != GroupState::Stored).map(|group| group.key)
                    && !self.is_stored(key)
                {
                    self.append_group(key, blocks)?;
                }
            }
            Action::Settle(stream, blocks) => {
                let model = &mut self.streams[*stream];
                let open: Vec<u64> =
                    model.stored.keys().copied().filter(|first| !model.settled.contains(first)).collect();
                for first in open.into_iter().take(*blocks) {
                    settle(log, streams[*stream], model, first)?;
                }
            }
            Action::SettleLater(stream, index) => {
                let model = &mut self.streams[*stream];
                if let Some(first) = model.stored.keys().copied().nth(*index) {
                    settle(log, streams[*stream], model, first)?;
                }
            }
            Action::SetAside(stream, is_aside) => log.set_aside(streams[*stream].0, streams[*stream].1, *is_aside),
            Action::Sync => drop(log.sync().wait()),
            Action::Fault(after, fault) => self.sim.fail_after(*after, *fault),
            Action::Left(left) => self.sim.set_capacity(left.map(|left| self.sim.bytes() + left)),
            Action::LosePower => self.end_life(true)?,
            Action::Kill => self.end_life(false)?,
            Action::Close => {
                let outcome = log.close().wait();
                self.log = None;
                if outcome.is_ok() && !self.sim.is_stopped() {
                    let had_faults = self.sim.hits() > 0;
                    let recovery = self.reopen()?;
                    if let Some(recovery) = recovery {
                        check(recovery.is_clean || had_faults, || "a clean close was replayed".to_owned())?;
                    }
                }
            }
        }
        Ok(())
    }

    fn is_stored(&self, key: u64) -> bool {
        self.groups.iter().any(|group| group.key == key && group.state == GroupState::Stored)
    }

    fn append_group(&mut self, key: u64, blocks: &[(usize, u32, usize)]) -> Result<(), String> {
        let Some((log, streams, schema)) = &self.log else { return Ok(()) };
        let mut given = Vec::new();
        let first_id = self.next_id;
        for (stream, count, length) in blocks {
            let (table, partition) = streams[*stream];
            let bytes = payload(self.next_id, *length);
            given.push(Block { table, partition, schema: *schema, count: *count, bytes });
            self.next_id += 1;
        }
        check(log.key(&key.to_le_bytes()).is_none(), || format!("the key {key} is known and its group is not"))?;
        let of_group = Key { key: key.to_le_bytes().to_vec(), value: first_id.to_le_bytes().to_vec() };
        let tickets = match log.append_group(given, vec![of_group]) {
            Ok(tickets) => tickets,
            Err(refused) => {
                return check(refused.error.is_full() || self.sim.is_stopped(), || format!("refused: {refused}"));
            }
        };
        let outcomes: Vec<_> = tickets.into_iter().map(batchsql_log::Ticket::wait).collect();
        let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        check(stored == 0 || stored == outcomes.len(), || format!("{stored} blocks of a group: {outcomes:?}"))?;
        let is_known = log.key(&key.to_le_bytes()).is_some();
        check(is_known == (stored > 0), || format!("the key of a group with {stored} blocks stored: {is_known}"))?;
        if outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(batchsql_log::LogError::is_full)) {
            return Ok(());
        }
        for (id, ((stream, count, _), outcome)) in (first_id..).zip(blocks.iter().zip(outcomes)) {
            match outcome {
                Ok(appended) => {
                    let known = self.streams[*stream].stored.insert(appended.first, (*count, id));
                    check(known.is_none(), || format!("sequence {} was given twice", appended.first))?;
                    self.acknowledged += 1;
                }
                Err(_) => drop(self.undetermined.insert(id, (*stream, *count))),
            }
        }
        let state = if stored > 0 { GroupState::Stored } else { GroupState::Undetermined };
        self.groups.push(GroupModel { key, ids: (first_id..self.next_id).collect(), state });
        Ok(())
    }

    /// Every group that may be stored is there, or nothing of it is; and its key says which.
    fn compare_groups(&mut self, log: &Log) -> Result<(), String> {
        for group in &mut self.groups {
            let missing = group.ids.iter().filter(|id| self.undetermined.contains_key(id)).count();
            match group.state {
                GroupState::Stored => {}
                GroupState::Undetermined if missing == 0 => group.state = GroupState::Stored,
                _ => {
                    check(missing == group.ids.len(), || {
                        format!(
                            "{missing} of {} blocks of a group are missing, which was {:?}",
                            group.ids.len(),
                            group.state
                        )
                    })?;
                    group.state = GroupState::Gone;
                }
            }
        }
        let keys: BTreeSet<u64> = self.groups.iter().map(|group| group.key).collect();
        for key in keys {
            let stored: Vec<&GroupModel> =
                self.groups.iter().filter(|group| group.key == key && group.state == GroupState::Stored).collect();
            check(stored.len() <= 1, || format!("the group with the key {key} is stored twice"))?;
            let value = stored.first().and_then(|group| group.ids.first()).map(|id| id.to_le_bytes().to_vec());
            let known = log.key(&key.to_le_bytes()).map(|key| key.value);
            check(known == value, || format!("the value of the key {key} is {known:?} in place of {value:?}"))?;
        }
        Ok(())
    }

    /// The machine or the process stops at once.
    fn end_life(&mut self, loses_power: bool) -> Result<(), String> {
        self.sim.stop();
        self.log = None;
        if loses_power {
            self.sim.lose_power()
        } else {
            self.sim.kill()
        }
        Ok(())
    }

    fn open(&mut self) -> Result<bool, String> {
        Ok(self.reopen()?.is_some())
    }

    /// Opens the log and compares it with the model. `None` if the disk fails.
    fn reopen(&mut self) -> Result<Option<Recovery>, String> {
        self.lives += 1;
        let hits = self.sim.hits();
        let (log, recovery) = match Log::open(self.options.clone()) {
            Ok(opened) => opened,
            Err(_) if self.sim.hits() > hits => return Ok(None),
            Err(error) if is_no_space(&error) && self.sim.is_limited() => return Ok(None),
            Err(error) => return Err(format!("cannot open: {error}")),
        };
        check(recovery.damages.is_empty(), || format!("damage was reported: {:?}", recovery.damages))?;
        check(recovery.gaps.is_empty(), || format!("gaps were reported: {:?}", recovery.gaps))?;
        let failed = |error| format!("a call failed: {error}");
        let tables = [log.table("one").map_err(failed)?, log.table("two").map_err(failed)?];
        let streams = vec![(tables[0], 0), (tables[0], 1), (tables[1], 0)];
        let schema = log.schema(b"the schema").map_err(failed)?;
        for (index, stream) in streams.iter().enumerate() {
            self.compare(&log, index, *stream)?;
        }
        self.compare_groups(&log)?;
        self.log = Some((log, streams, schema));
        Ok(Some(recovery))
    }

    fn compare(&mut self, log: &Log, index: usize, (table, partition): (TableId, u32)) -> Result<(), String> {
        let mut reader = log.reader(table, partition, From::Unsettled).map_err(|error| error.to_string())?;
        let mut found = BTreeMap::new();
        let mut before = 0;
        loop {
            match reader.next().map_err(|error| format!("cannot read: {error}"))? {
                Next::Block(block) => {
                    check(block.first > before, || format!("block {} comes after row {before}", block.first))?;
                    before = block.last();
                    check(block.schema_bytes.as_deref() == Some(b"the schema"), || "the schema is lost".to_owned())?;
                    let id = u64::from_le_bytes(block.bytes[..8].try_into().expect("each block has a number"));
                    check(block.bytes == payload(id, block.bytes.len() - 8), || format!("block {id} has other bytes"))?;
                    found.insert(block.first, (block.count, id));
                }
                Next::Gap(gap) => return Err(format!("stream {index} has a gap: {gap:?}")),
                Next::End => break,
                other => return Err(format!("unexpected {other:?}")),
            }
        }
        let model = &mut self.streams[index];
        // What was settled may be there again; what was not must be.
        for (first, stored) in &model.stored {
            match found.remove(first) {
                None if model.settled.contains(first) => {}
                None => return Err(format!("stream {index}: the acknowledged block at {first} is lost")),
                Some(block) => check(block == *stored, || format!("stream {index}: another block at {first}"))?,
            }
        }
        for (first, (count, id)) in found {
            let known = self.undetermined.remove(&id);
            check(known == Some((index, count)), || {
                format!("stream {index}: block {id} at {first} was never accepted")
            })?;
            model.stored.insert(first, (count, id));
        }
        Ok(())
    }
}

fn settle(log: &Log, (table, partition): (TableId, u32), model: &mut StreamModel, first: u64) -> Result<(), String> {
    let (count, _) = model.stored[&first];
    model.settled.insert(first);
    log.settle(table, partition, first..=first + u64::from(count) - 1)
        .map_err(|error| format!("cannot settle: {error}"))
}

fn is_no_space(error: &batchsql_log::LogError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::StorageFull)
}

fn check(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}
