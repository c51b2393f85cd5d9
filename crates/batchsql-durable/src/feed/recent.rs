//! Owns the newest rows of a partition, which its feed takes from memory in place of reading them back from the log.
//! Must not know the log or the feed.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use batchsql_core::{Queue, Schema, SharedRows};

/// What a block takes in memory beside its values, and each of its columns: a lone submitter makes blocks of one row.
const BLOCK_BYTES: usize = 256;
const COLUMN_BYTES: usize = 128;

/// Blocks that were appended and not yet taken, the oldest first. A feed that is behind reads the log: then the oldest ones are
/// dropped, so that they take at most `limit` bytes.
#[derive(Debug)]
pub(crate) struct Recent {
    limit: usize,
    blocks: Mutex<Blocks>,
}

#[derive(Debug, Default)]
struct Blocks {
    queue: Queue<RecentBlock>,
    bytes: usize,
}

/// A block that was appended.
#[derive(Debug, Clone)]
pub(crate) struct RecentBlock {
    pub(crate) first: u64,
    pub(crate) rows: SharedRows,
    pub(crate) time: SystemTime,
}

impl RecentBlock {
    pub(crate) fn last(&self) -> u64 {
        self.first + self.rows.rows().len() as u64 - 1
    }

    /// What it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.rows.rows();
        rows.bytes() + block_bytes(rows.schema())
    }
}

/// What a block of this schema takes in memory beside its values, about.
pub(crate) fn block_bytes(schema: &Schema) -> usize {
    BLOCK_BYTES + COLUMN_BYTES * schema.columns().len()
}

impl Blocks {
    fn pop(&mut self) -> Option<RecentBlock> {
        let block = self.queue.pop_front()?;
        self.bytes -= block.bytes();
        Some(block)
    }
}

impl Recent {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, blocks: Mutex::default() }
    }

    /// Adds the next block.
    pub(crate) fn push(&self, block: RecentBlock) {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        blocks.bytes += block.bytes();
        blocks.queue.push_back(block);
        while blocks.bytes > self.limit {
            blocks.pop();
        }
    }

    /// Removes blocks that end before the row `next`, and takes the one that begins with it, unless `may_take` refuses it.
    pub(crate) fn take(&self, next: u64, may_take: impl FnOnce(&RecentBlock) -> bool) -> Option<RecentBlock> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        while blocks.queue.front().is_some_and(|block| block.last() < next) {
            blocks.pop();
        }
        let front = blocks.queue.front()?;
        if front.first != next || !may_take(front) {
            return None;
        }
        blocks.pop()
    }
}

#[cfg(test)]
mod tests {
    use batchsql_core::{ColumnType, RowBuffer, Schema, ValueRules};

    use super::*;

    fn block(first: u64, rows: i64) -> RecentBlock {
        let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        let mut buffer = RowBuffer::new(&schema, ValueRules::default());
        (0..rows).for_each(|id| buffer.push(&schema.row().set("id", id).unwrap().finish().unwrap()).unwrap());
        RecentBlock { first, rows: buffer.into_rows(), time: SystemTime::UNIX_EPOCH }
    }

    #[test]
    fn blocks_are_taken_in_order_and_the_oldest_are_dropped() {
        let bytes = block(1, 10).bytes();
        let recent = Recent::new(2 * bytes);
        let take = |next| recent.take(next, |_| true).map(|block| block.first);
        recent.push(block(1, 10));
        recent.push(block(11, 10));
        assert_eq!(recent.take(1, |_| false).map(|block| block.first), None, "it was refused, and stays");
        assert_eq!((take(5), take(1), take(11), take(21)), (None, Some(1), Some(11), None));
        for first in [21, 31, 41] {
            recent.push(block(first, 10));
        }
        assert_eq!(take(21), None, "it was dropped, because three take too much");
        assert_eq!(take(41), Some(41), "what is behind is not taken any more");
        recent.push(block(51, 1_000));
        assert_eq!(take(51), None, "a block that is larger than the limit is not kept");
    }

    #[test]
    fn small_blocks_count_with_what_they_take_beside_their_values() {
        let recent = Recent::new(100 << 10);
        (1..=10_000).for_each(|first| recent.push(block(first, 1)));
        let kept = recent.blocks.lock().unwrap().queue.len();
        assert!((100..=300).contains(&kept), "{kept} blocks of about 400 bytes are kept in 100 KiB");
        while recent.blocks.lock().unwrap().pop().is_some() {}
        assert_eq!(recent.blocks.lock().unwrap().bytes, 0);
    }
}
