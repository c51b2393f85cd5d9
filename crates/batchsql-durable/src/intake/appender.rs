//! Owns the task that appends groups of blocks to the log, one after the other, and reports what the log says.
//! Must not know how rows are gathered.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use batchsql_core::SharedRows;
use batchsql_feed::block::encode;
use batchsql_log::{Block, Key, Log, LogError, Ticket};
use tokio::sync::watch;

use crate::feed::partitions::Partitions;
use crate::feed::recent::RecentBlock;
use crate::intake::gather::{
    Entry, GROUP_BYTES, Gather, Group, NotStored, OpenBlock, Stored, Together, bytes_together,
};
use crate::intake::in_flight::{KeyInFlight, key_bytes};

/// A block that is being appended, or a part of one.
#[derive(Clone)]
struct Appending {
    entry: Arc<Entry>,
    partition: u32,
    rows: SharedRows,
}

/// A block, and who waits for it.
struct Pending {
    rows: Appending,
    stored: watch::Sender<Stored>,
}

/// However the task ends, no caller waits for it indefinitely.
struct ClosedAtEnd(Arc<Gather>);

impl Drop for ClosedAtEnd {
    fn drop(&mut self) {
        self.0.close();
        // What is dropped here reports that it is not known whether its rows are stored.
        drop(self.0.take());
    }
}

/// Runs until the intake is closed and everything has been appended or refused.
pub(crate) async fn run(gather: Arc<Gather>, log: Log, partitions: Arc<Partitions>, acknowledged: Arc<AtomicU64>) {
    let _closed = ClosedAtEnd(Arc::clone(&gather));
    loop {
        gather.work.notified().await;
        loop {
            gathered(&gather).await;
            let group = gather.take();
            if group.blocks.is_empty() {
                if group.is_last {
                    return;
                }
                break;
            }
            append(group, To { log: &log, partitions: &partitions, acknowledged: &acknowledged }).await;
        }
    }
}

/// How often the tasks that the last group has woken may run before the next group is taken, at most.
const TURNS: usize = 64;

/// Lets tasks run that are about to submit, as long as rows come: otherwise the first one that the last group has woken would
/// get a group, and a sync, of its own. A lone submitter waits for one turn.
async fn gathered(gather: &Gather) {
    let mut before = gather.bytes();
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
        let bytes = gather.bytes();
        if bytes == before || bytes > GROUP_BYTES / 2 {
            return;
        }
        before = bytes;
    }
}

/// Where rows go.
#[derive(Clone, Copy)]
struct To<'a> {
    log: &'a Log,
    partitions: &'a Partitions,
    acknowledged: &'a AtomicU64,
}

/// Appends a group, and reports each of its blocks and calls.
async fn append(group: Group, to: To<'_>) {
    let pending = group.blocks.into_iter().map(|OpenBlock { entry, partition, rows, stored }| Pending {
        rows: Appending { entry, partition, rows: rows.into_rows() },
        stored,
    });
    let pending: VecDeque<Pending> = pending.collect();
    if group.together.is_empty() {
        append_rows(pending, to).await;
    } else {
        append_together(pending, group.together, to).await;
    }
}

/// Some may be stored without the others.
async fn append_rows(pending: VecDeque<Pending>, to: To<'_>) {
    let mut encoded: Vec<Block> = pending.iter().map(|pending| pending.rows.block()).collect();
    let bytes = encoded.iter().map(|block| block.bytes.len());
    let mut pending: VecDeque<(Pending, usize)> = pending.into_iter().zip(bytes).collect();
    let mut tickets = Vec::new();
    while !encoded.is_empty() {
        let (accepted, refused) = to.log.append_all(encoded);
        tickets.extend(pending.drain(..accepted.len()).zip(accepted));
        encoded = match refused {
            None => Vec::new(),
            Some((blocks, error)) => refuse(&mut pending, blocks, error),
        };
    }
    for ((Pending { rows, stored }, bytes), ticket) in tickets {
        let result = rows.appended(ticket, bytes, to).await;
        // Nobody waits if all calls were cancelled.
        stored.send_replace(Some(result));
    }
}

/// All blocks or none. If there is no space for all of them, there may be for some calls.
async fn append_together(pending: VecDeque<Pending>, calls: Vec<Together>, to: To<'_>) {
    let blocks: Vec<Block> = pending.iter().map(|pending| pending.rows.block()).collect();
    let keys: Vec<Key> = calls.iter().filter_map(|call| call.key.as_ref()).map(stored_key).collect();
    let bytes = space_for(&blocks, &keys);
    let results = match to.log.append_group(blocks, keys) {
        Ok(tickets) => {
            let mut results = Vec::with_capacity(tickets.len());
            for (pending, ticket) in pending.iter().zip(tickets) {
                results.push(pending.rows.clone().appended(ticket, bytes, to).await);
            }
            results
        }
        Err(refused) => {
            let rows = |pending: &Pending| pending.rows.rows.rows().len();
            let of_calls = calls.iter().flat_map(|call| &call.rows).map(|(_, rows)| rows.len()).sum::<usize>();
            if refused.error.is_full() && (calls.len() > 1 || of_calls < pending.iter().map(rows).sum()) {
                return append_one_by_one(pending, calls, to).await;
            }
            vec![Err(NotStored { error: refused.error, bytes }); pending.len()]
        }
    };
    for Together { key, rows, stored } in calls {
        // The log knows it now, or it was not stored: whoever is told may use it again.
        drop(key);
        let result = rows.iter().map(|(block, _)| &results[*block]).find(|result| result.is_err());
        stored.send_replace(Some(result.map_or(Ok(()), Clone::clone)));
    }
    for (pending, result) in pending.into_iter().zip(results) {
        pending.stored.send_replace(Some(result));
    }
}

/// Each call gets its own answer: it must not wait for space that only the others need. The calls go first, so they may overtake
/// other rows of the group; that is allowed, because the callers of both were still waiting.
async fn append_one_by_one(pending: VecDeque<Pending>, calls: Vec<Together>, to: To<'_>) {
    let mut others: Vec<Vec<bool>> = pending.iter().map(|pending| vec![true; pending.rows.rows.rows().len()]).collect();
    for Together { key, rows, stored } in calls {
        let part = |(block, rows): (usize, Range<usize>)| {
            others[block][rows.clone()].fill(false);
            pending[block].rows.part(rows)
        };
        let parts: Vec<Appending> = rows.into_iter().map(part).collect();
        let blocks: Vec<Block> = parts.iter().map(Appending::block).collect();
        let keys: Vec<Key> = key.iter().map(stored_key).collect();
        let bytes = space_for(&blocks, &keys);
        let mut result = Ok(());
        match to.log.append_group(blocks, keys) {
            Ok(tickets) => {
                for (part, ticket) in parts.into_iter().zip(tickets) {
                    result = result.and(part.appended(ticket, bytes, to).await);
                }
            }
            Err(refused) => result = Err(NotStored { error: refused.error, bytes }),
        }
        drop(key);
        stored.send_replace(Some(result));
    }
    let rest = pending.into_iter().zip(others).filter_map(|(Pending { rows, stored }, others)| {
        let numbers: Vec<u32> = (0..).zip(others).filter_map(|(row, is_other)| is_other.then_some(row)).collect();
        // Nobody waits for a block with rows of calls only.
        let rows = (!numbers.is_empty()).then(|| rows.gathered(&numbers))?;
        Some(Pending { rows, stored })
    });
    append_rows(rest.collect(), to).await;
}

fn stored_key(key: &KeyInFlight) -> Key {
    Key { key: key.key.clone(), value: key.value.clone() }
}

/// The bytes that a group waits for if it is refused for want of space. Not less than it takes: there might be space for that at
/// once, and the group would be refused again without end.
fn space_for(blocks: &[Block], keys: &[Key]) -> usize {
    let rows = blocks.iter().map(|block| block.bytes.len()).sum();
    let keys = keys.iter().map(|Key { key, value }| key_bytes(key, value)).sum();
    bytes_together(rows, blocks.len(), keys)
}

impl Appending {
    fn block(&self) -> Block {
        let rows = self.rows.rows();
        let count = u32::try_from(rows.len()).expect("a block has at most MAX_ROWS rows");
        let (table, schema) = (self.entry.table, self.entry.schema_id);
        Block { table, partition: self.partition, schema, count, bytes: encode(rows) }
    }

    fn part(&self, rows: Range<usize>) -> Self {
        Self { rows: self.rows.rows().slice(rows).to_shared(), ..self.clone() }
    }

    fn gathered(&self, rows: &[u32]) -> Self {
        Self { rows: self.rows.rows().gather(rows), ..self.clone() }
    }

    /// Waits for the log, and gives the rows to their feed. `bytes` as in [`NotStored`].
    async fn appended(self, ticket: Ticket, bytes: usize, to: To<'_>) -> Result<(), NotStored> {
        let appended = ticket.await.map_err(|error| NotStored { error, bytes })?;
        // Before the acknowledgement, so that a flush that follows knows of these rows.
        let block = RecentBlock { first: appended.first, rows: self.rows, time: appended.time };
        to.partitions.appended(self.entry.table, self.partition, block);
        to.acknowledged.fetch_add(appended.last - appended.first + 1, Ordering::Relaxed);
        Ok(())
    }
}

/// Reports why blocks were refused. Returns those to try again: if a block cannot be stored, the others can.
fn refuse(pending: &mut VecDeque<(Pending, usize)>, blocks: Vec<Block>, error: LogError) -> Vec<Block> {
    let is_about_the_first = !error.is_full() && error.kind() == batchsql_log::LogErrorKind::Invalid;
    let count = if is_about_the_first { 1 } else { pending.len() };
    for (refused, bytes) in pending.drain(..count) {
        refused.stored.send_replace(Some(Err(NotStored { error: error.clone(), bytes })));
    }
    blocks.into_iter().skip(count).collect()
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use batchsql_log::Options;

    use super::*;

    /// If there were space for what a refused group waits for, it would be refused again at once, and so on without end.
    #[tokio::test]
    async fn a_group_that_is_refused_waits_for_space_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let options = Options::new(folder.path()).min_free_bytes(0).segment_bytes(16 << 10).disk_bytes(64 << 10);
        let (log, _) = Log::open(options).unwrap();
        let (table, schema) = (log.table("notes").unwrap(), log.schema(b"note").unwrap());
        let block = |length| Block { table, partition: 0, schema, count: 1, bytes: vec![0; length] };
        while let Ok(ticket) = log.append(block(4_000)) {
            ticket.await.unwrap();
            // Nothing is in the queue any more.
            log.sync().await.unwrap();
        }
        let mut refused = 0;
        // Until it fits: each group takes a little less than the one before.
        for length in (0..1_100).rev() {
            let keys = vec![Key { key: vec![1; 100], value: vec![2; 100] }];
            let Err(group) = log.append_group((0..4).map(|_| block(length)).collect(), keys) else { break };
            assert!(group.error.is_full(), "{group}");
            let bytes = space_for(&group.blocks, &group.keys);
            let space = pin!(log.space(bytes)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(space.is_pending(), "there is space for {bytes} bytes, and none for 4 rows of {length}");
            refused += 1;
        }
        assert!((1..1_100).contains(&refused), "{refused}");
    }
}
