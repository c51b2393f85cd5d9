//! Owns the rows that wait for the next group: open blocks per partition, and the bound of their bytes.
//! Must not know the log, or when a group is written.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use batchsql_core::{RowBuffer, Schema};
use batchsql_feed::block::MAX_ROWS;
use batchsql_feed::key::KeyOrder;
use batchsql_log::{LogError, SchemaId, TableId};
use tokio::sync::{Notify, watch};

use crate::feed::recent::block_bytes;
use crate::intake::in_flight::{KeyInFlight, key_bytes};

/// A block is full with this many bytes: some blocks fit into the window of a reader.
const BLOCK_BYTES: usize = 256 << 10;

/// Bytes of rows that wait for the next group, with what their blocks take in memory; as many are being written. The queue of the
/// log takes several groups.
pub(crate) const GROUP_BYTES: usize = 4 << 20;

/// What a block takes in the log beside the bytes of its rows, at most.
const BLOCK_OVERHEAD: usize = 128;

/// What rows that are stored all or none take in the log, at most: their bytes, their blocks, and the bytes of their keys.
pub(crate) fn bytes_together(rows: usize, blocks: usize, keys: usize) -> usize {
    // The keys have a record of their own.
    rows + BLOCK_OVERHEAD * (blocks + 1) + keys
}

/// What the log has said about a block.
pub(crate) type Stored = Option<Result<(), NotStored>>;

/// Why a block is not in the log, or perhaps not.
#[derive(Debug, Clone)]
pub(crate) struct NotStored {
    pub(crate) error: LogError,
    /// Of the block, or of all that is stored with it. Whoever waits for space waits for this much: with less, the next block
    /// would be refused again.
    pub(crate) bytes: usize,
}

/// A schema, as the log knows it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Keeps its id.
    pub(crate) schema: Schema,
    pub(crate) table: TableId,
    pub(crate) schema_id: SchemaId,
    pub(crate) order: KeyOrder,
    /// Has no rows.
    pub(crate) empty: RowBuffer,
}

/// A row that is ready for the log, or rows of one call without a key: they are stored together, or not.
#[derive(Debug)]
pub(crate) struct Encoded {
    pub(crate) entry: Arc<Entry>,
    pub(crate) rows: RowBuffer,
    /// That of the key; `None`: any.
    pub(crate) partition: Option<u32>,
}

/// Rows of one schema and partition.
#[derive(Debug)]
pub(crate) struct OpenBlock {
    pub(crate) entry: Arc<Entry>,
    pub(crate) partition: u32,
    pub(crate) rows: RowBuffer,
    pub(crate) stored: watch::Sender<Stored>,
}

/// Whether rows that are gathered together are stored all or none.
#[derive(Debug)]
pub(crate) enum Unit {
    /// Some of them may be stored without the others.
    Rows,
    /// All or none, perhaps with a key.
    Together(Option<KeyInFlight>),
}

/// Rows of a call that are stored all or none.
#[derive(Debug)]
pub(crate) struct Together {
    /// Is stored with them.
    pub(crate) key: Option<KeyInFlight>,
    /// Which rows of which blocks they are.
    pub(crate) rows: Vec<(usize, Range<usize>)>,
    pub(crate) stored: watch::Sender<Stored>,
}

/// Why rows cannot be gathered now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotGathered {
    Full,
    Closed,
}

/// Where rows of a call are.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) blocks: Vec<watch::Receiver<Stored>>,
    /// For each row the number of its block.
    pub(crate) of_row: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Gather {
    pub(crate) partitions: u32,
    block_bytes: usize,
    group_bytes: usize,
    /// Of rows that are stored all or none.
    together_bytes: usize,
    state: Mutex<State>,
    /// There are rows, or the end.
    pub(crate) work: Notify,
    /// Changes when rows were taken.
    pub(crate) space: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    blocks: Vec<OpenBlock>,
    /// The last block of each partition: its rows come before all that follow.
    last: HashMap<(TableId, u32), usize>,
    /// Of rows.
    bytes: usize,
    /// What the blocks take in memory beside their rows: more than the rows, when neighbours have other columns.
    block_bytes: usize,
    /// The calls whose rows are stored all or none. If there is one, the log stores the whole group or nothing of it.
    together: Vec<Together>,
    /// Of their keys.
    key_bytes: usize,
    /// Rows without a key of one group are in one partition, of the next group in the next one.
    group: u32,
    is_closed: bool,
}

impl State {
    fn memory(&self) -> usize {
        self.bytes + self.block_bytes
    }
}

/// What is written next.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) blocks: Vec<OpenBlock>,
    /// The calls whose rows are stored all or none. If there is one, all blocks are stored or none, as long as there is space.
    pub(crate) together: Vec<Together>,
    pub(crate) is_last: bool,
}

impl Gather {
    pub(crate) fn new(partitions: u32, segment_bytes: u64) -> Self {
        let segment = usize::try_from(segment_bytes).unwrap_or(usize::MAX);
        Self {
            partitions,
            block_bytes: BLOCK_BYTES.min(segment / 8),
            group_bytes: GROUP_BYTES,
            together_bytes: segment / 2,
            state: Mutex::default(),
            work: Notify::new(),
            space: watch::Sender::new(()),
        }
    }

    /// Adds rows in their order, all or none of them. One call may exceed the bound while nothing waits. Rows that are stored all
    /// or none are at most `together_bytes`, and so is what is gathered with them, and their keys: the log stores all of it or none.
    pub(crate) fn push(&self, rows: &[&Encoded], unit: Unit) -> Result<Gathered, NotGathered> {
        let bytes: usize = rows.iter().map(|row| row.rows.bytes()).sum();
        let mut state = self.lock();
        if state.is_closed {
            return Err(NotGathered::Closed);
        }
        let is_together = matches!(unit, Unit::Together(_));
        let bytes_of_key = if let Unit::Together(Some(key)) = &unit { key_bytes(&key.key, &key.value) } else { 0 };
        // A large group must not wait until nothing waits: between small ones that would never be.
        let held = state.memory() + if is_together { 0 } else { bytes };
        if state.bytes > 0 && held > self.group_bytes {
            return Err(NotGathered::Full);
        }
        if is_together || !state.together.is_empty() {
            let (blocks, keys) = (state.blocks.len() + rows.len(), state.key_bytes + bytes_of_key);
            let size = bytes_together(state.bytes + bytes, blocks, keys);
            if !state.blocks.is_empty() && size > self.together_bytes {
                return Err(NotGathered::Full);
            }
        }
        state.bytes += bytes;
        state.key_bytes += bytes_of_key;
        let mut gathered = Gathered { blocks: Vec::new(), of_row: Vec::with_capacity(rows.len()) };
        // Of the blocks that have rows of this call: these are neighbours.
        let mut places: Vec<(usize, Range<usize>)> = Vec::new();
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        for row in rows {
            let block = self.add(&mut state, row);
            let end = state.blocks[block].rows.len();
            let number = *numbers.entry(block).or_insert_with(|| {
                places.push((block, end - row.rows.len()..end));
                places.len() - 1
            });
            places[number].1.end = end;
            gathered.of_row.push(number);
        }
        match unit {
            Unit::Rows => {
                gathered.blocks.extend(places.iter().map(|(block, _)| state.blocks[*block].stored.subscribe()));
            }
            Unit::Together(key) => {
                let stored = watch::Sender::new(None);
                gathered.blocks.push(stored.subscribe());
                gathered.of_row.fill(0);
                state.together.push(Together { key, rows: places, stored });
            }
        }
        drop(state);
        self.work.notify_one();
        Ok(gathered)
    }

    /// Returns the number of its block.
    fn add(&self, state: &mut State, row: &Encoded) -> usize {
        let partition = row.partition.unwrap_or(state.group % self.partitions);
        let place = (row.entry.table, partition);
        if let Some(&last) = state.last.get(&place) {
            let block = &mut state.blocks[last];
            let fits = block.rows.bytes() + row.rows.bytes() <= self.block_bytes
                && block.rows.len() + row.rows.len() <= MAX_ROWS;
            if fits && block.entry.schema_id == row.entry.schema_id {
                block.rows.append(&row.rows);
                return last;
            }
        }
        let mut rows = row.entry.empty.another();
        rows.append(&row.rows);
        let stored = watch::Sender::new(None);
        state.block_bytes += block_bytes(&row.entry.schema);
        state.blocks.push(OpenBlock { entry: Arc::clone(&row.entry), partition, rows, stored });
        state.last.insert(place, state.blocks.len() - 1);
        state.blocks.len() - 1
    }

    /// Bytes of rows that may be stored together in any case.
    pub(crate) fn shared_bytes(&self) -> usize {
        self.block_bytes / 4
    }

    /// Whether so many rows of these bytes may be stored all or none.
    pub(crate) fn fits_together(&self, bytes: usize, blocks: usize) -> bool {
        bytes + BLOCK_OVERHEAD * blocks <= self.together_bytes
    }

    /// Bytes in memory of the rows that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.lock().memory()
    }

    /// Takes all that waits.
    pub(crate) fn take(&self) -> Group {
        let mut state = self.lock();
        let blocks = std::mem::take(&mut state.blocks);
        let together = std::mem::take(&mut state.together);
        state.last.clear();
        (state.bytes, state.block_bytes, state.key_bytes) = (0, 0, 0);
        state.group = state.group.wrapping_add(1);
        let is_last = state.is_closed;
        drop(state);
        if !blocks.is_empty() {
            self.space.send_replace(());
        }
        Group { blocks, together, is_last }
    }

    /// Accepts no more rows.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.work.notify_one();
        self.space.send_replace(());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, Value, ValueRules};
    use batchsql_log::{Log, Options};

    use super::*;

    /// Each row has other columns than the one before, and so a block of its own, which takes more than the row.
    #[test]
    fn blocks_of_few_rows_are_in_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let (log, _) = Log::open(Options::new(folder.path()).min_free_bytes(0)).unwrap();
        let full = Schema::builder("notes").column("id", ColumnType::I64);
        let full = (0..20).fold(full, |full, n| full.nullable(format!("c{n}"), ColumnType::I64)).build().unwrap();
        let encoded = |columns: Vec<&str>| {
            let schema = full.with_columns(columns).unwrap();
            let empty = RowBuffer::new(&schema, ValueRules::default());
            let mut rows = empty.another();
            let names: Vec<_> = schema.columns().iter().map(|column| column.name().to_owned()).collect();
            let row = names.iter().fold(schema.row(), |row, name| row.set(name, Value::I64(1)).unwrap());
            rows.push(&row.finish().unwrap()).unwrap();
            let schema_id = log.schema(names.concat().as_bytes()).unwrap();
            let table = log.table("notes").unwrap();
            let entry = Entry { schema, table, schema_id, order: KeyOrder::None, empty };
            Encoded { entry: Arc::new(entry), rows, partition: Some(0) }
        };
        let shapes = [encoded(vec!["id"]), encoded(vec!["id", "c3"]), encoded(vec!["id", "c3", "c7"])];
        let gather = Gather::new(1, 64 << 20);
        let pushed = shapes.iter().cycle().take_while(|row| gather.push(&[row], Unit::Rows).is_ok()).count();
        let group = gather.take();
        assert_eq!(group.blocks.len(), pushed, "each row has a block");
        let bytes = |block: &OpenBlock| block.rows.bytes() + block_bytes(&block.entry.schema);
        let bytes: usize = group.blocks.iter().map(bytes).sum();
        assert!((GROUP_BYTES / 2..=GROUP_BYTES + 1024).contains(&bytes), "{pushed} blocks take {bytes} bytes");
        // Rows with the same columns share one, as before.
        let pushed = std::iter::repeat(&shapes[0]).take_while(|row| gather.push(&[row], Unit::Rows).is_ok()).count();
        assert!(pushed > 100_000, "{pushed}");
        assert!(gather.take().blocks.len() < 100);
    }
}
