//! Owns the segment that is being written, and how entries become its bytes.
//! Must not know syncs, failures and who waits.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use crate::{
    catalog::Catalog,
    completion::Sender,
    format::{
        keys::{self, KeyRecord},
        record::{self, Context, Header, Kind},
        segment::{self, SegmentHeader},
        snapshot::{Moved, Settled, Snapshot, encode_settled},
    },
    fs::File,
    model::{Appended, Block, FileKey},
};

/// What is to be written, in the order of its serials.
#[derive(Debug)]
pub(crate) enum Entry {
    Block(PendingBlock),
    Settled(Settled),
    Moved(Moved),
}

#[derive(Debug)]
pub(crate) struct PendingBlock {
    pub(crate) block: Block,
    pub(crate) first: u64,
    pub(crate) time: u64,
    /// Blocks of its group behind it, which are the next entries.
    pub(crate) rest: u32,
    /// Those of the group, with its first block.
    pub(crate) keys: Vec<KeyRecord>,
    /// The caller that waits; `None` once the block was acknowledged.
    pub(crate) ticket: Option<Sender<Appended>>,
    /// Where it was written.
    pub(crate) offset: u64,
}

impl PendingBlock {
    /// The block of an entry, if it is one.
    pub(crate) fn of(entry: &Entry) -> Option<&Self> {
        if let Entry::Block(block) = entry { Some(block) } else { None }
    }

    pub(crate) fn of_mut(entry: &mut Entry) -> Option<&mut Self> {
        if let Entry::Block(block) = entry { Some(block) } else { None }
    }

    pub(crate) fn appended(&self) -> Appended {
        let last = self.first + u64::from(self.block.count) - 1;
        Appended { first: self.first, last, time: UNIX_EPOCH + Duration::from_millis(self.time) }
    }

    pub(crate) fn size(&self) -> u64 {
        record::size(self.block.bytes.len())
    }

    /// With the record of its keys.
    pub(crate) fn size_with_keys(&self) -> u64 {
        self.size() + keys_size(self.keys.iter().map(KeyRecord::size))
    }
}

impl Entry {
    /// About how many bytes it needs, so that a segment ends in time.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Entry::Block(block) => block.size_with_keys(),
            Entry::Settled(_) | Entry::Moved(_) => record::HEADER as u64,
        }
    }
}

/// The bytes of a record of keys that have these sizes; none without keys.
pub(crate) fn keys_size(sizes: impl Iterator<Item = usize>) -> u64 {
    let bytes: usize = sizes.sum();
    if bytes == 0 { 0 } else { record::size(4 + bytes) }
}

/// What a segment starts with: the state as it is on disk.
#[derive(Debug)]
pub(crate) struct Beginning {
    pub(crate) snapshot: Snapshot,
    pub(crate) keys: Vec<KeyRecord>,
}

#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) key: FileKey,
    pub(crate) file: Box<dyn File>,
    /// Bytes that were written as a whole.
    pub(crate) length: u64,
    pub(crate) synced: u64,
    pub(crate) is_folder_synced: bool,
    pub(crate) has_blocks: bool,
    known: Known,
}

/// Tables and schemas that the segment has records of.
#[derive(Debug, Clone, Default)]
struct Known {
    tables: BTreeSet<u32>,
    schemas: BTreeSet<u32>,
}

/// Serials and time for a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Serials {
    pub(crate) next: u64,
    pub(crate) synced: u64,
    pub(crate) now: u64,
}

/// A group as bytes. The segment knows its tables and schemas only after `Active::wrote`.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) next_serial: u64,
    /// Of each entry.
    pub(crate) offsets: Vec<u64>,
    known: Known,
}

impl Active {
    pub(crate) fn new(key: FileKey, file: Box<dyn File>) -> Self {
        Active { key, file, length: 0, synced: 0, is_folder_synced: false, has_blocks: false, known: Known::default() }
    }

    /// The bytes that follow those of the segment. A new segment starts with its header and `beginning`.
    pub(crate) fn encode(
        &self,
        context: Context,
        entries: &[Entry],
        catalog: &Catalog,
        beginning: Option<&Beginning>,
        serials: Serials,
    ) -> Encoded {
        let mut group = Group { context, start: self.length, serials, bytes: Vec::new(), known: self.known.clone() };
        if let Some(Beginning { snapshot, keys }) = beginning {
            let Context { incarnation, tag } = context;
            let header = SegmentHeader { version: segment::VERSION, incarnation, tag, base: serials.next };
            group.bytes.extend(header.encode());
            group.known.tables.extend(snapshot.tables.iter().map(|(id, _)| *id));
            group.record(Kind::Snapshot, &snapshot.encode(), |_| {});
            if !keys.is_empty() {
                group.record(Kind::Keys, &keys::encode(keys), |_| {});
            }
        }
        let offsets = entries.iter().map(|entry| group.entry(entry, catalog)).collect();
        Encoded { bytes: group.bytes, next_serial: group.serials.next, offsets, known: group.known }
    }

    pub(crate) fn wrote(&mut self, encoded: Encoded, has_blocks: bool) {
        self.length += encoded.bytes.len() as u64;
        self.known = encoded.known;
        self.has_blocks |= has_blocks;
    }
}

struct Group {
    context: Context,
    start: u64,
    serials: Serials,
    bytes: Vec<u8>,
    known: Known,
}

impl Group {
    fn entry(&mut self, entry: &Entry, catalog: &Catalog) -> u64 {
        match entry {
            Entry::Block(PendingBlock { block, first, time, rest, keys, .. }) => {
                if !keys.is_empty() {
                    self.record(Kind::Keys, &keys::encode(keys), |header| header.rest = *rest + 1);
                }
                self.table(block.table.0, catalog);
                let schema = block.schema.0;
                if let (true, Some(bytes)) = (self.known.schemas.insert(schema), catalog.schemas.get(schema)) {
                    self.record(Kind::Schema, bytes, |header| header.schema = schema);
                }
                self.record(Kind::Block, &block.bytes, |header| {
                    header.table = block.table.0;
                    header.partition = block.partition;
                    header.schema = schema;
                    header.first = *first;
                    header.count = block.count;
                    header.rest = *rest;
                    header.time = *time;
                })
            }
            Entry::Settled(settled) => {
                settled.keys().for_each(|stream| self.table(stream.table, catalog));
                self.record(Kind::Settled, &encode_settled(settled), |_| {})
            }
            Entry::Moved(moved) => self.record(Kind::Moved, &moved.encode(), |_| {}),
        }
    }

    fn table(&mut self, id: u32, catalog: &Catalog) {
        if let (true, Some(name)) = (self.known.tables.insert(id), catalog.tables.get(id)) {
            let name = Arc::clone(name);
            self.record(Kind::Table, name.as_bytes(), |header| header.table = id);
        }
    }

    fn record(&mut self, kind: Kind, payload: &[u8], fill: impl FnOnce(&mut Header)) -> u64 {
        let offset = self.start + self.bytes.len() as u64;
        let mut header = Header::new(kind, self.serials.next, self.serials.synced, self.serials.now);
        fill(&mut header);
        record::append(&mut self.bytes, &self.context, offset, &header, payload);
        self.serials.next += 1;
        offset
    }
}
