//! Owns the task that appends groups of blocks to the log, one after the other, and reports what the log says.
//! Must not know how rows are gathered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use batchsql_core::{Rows, SharedRows};
use batchsql_feed::block::encode;
use batchsql_log::{Block, Key, Log, LogError, RefusedGroup, Ticket};
use tokio::sync::watch;

use crate::feed::partitions::Partitions;
use crate::feed::recent::RecentBlock;
use crate::intake::gather::{Entry, GROUP_BYTES, Gather, Group, NotStored, OpenBlock, Stored, bytes_together};
use crate::intake::in_flight::{KeyInFlight, key_bytes};

/// A block that is being appended.
struct Pending {
    entry: Arc<Entry>,
    partition: u32,
    rows: SharedRows,
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
            append(group, &log, &partitions, &acknowledged).await;
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

/// Appends a group, and reports each of its blocks.
async fn append(group: Group, log: &Log, partitions: &Partitions, acknowledged: &AtomicU64) {
    let (mut pending, mut encoded) = (VecDeque::new(), Vec::new());
    for OpenBlock { entry, partition, rows, stored } in group.blocks {
        let rows = rows.into_rows();
        encoded.push(block(&entry, partition, rows.rows()));
        pending.push_back(Pending { entry, partition, rows, stored });
    }
    match group.together {
        None => {
            let mut tickets = Vec::new();
            while !encoded.is_empty() {
                let (accepted, refused) = log.append_all(encoded);
                tickets.extend(pending.drain(..accepted.len()).zip(accepted));
                encoded = match refused {
                    None => Vec::new(),
                    Some((blocks, error)) => refuse(&mut pending, blocks, error),
                };
            }
            for (pending, ticket) in tickets {
                let (stored, result) = pending.appended(ticket, partitions, acknowledged).await;
                // Nobody waits if all calls were cancelled.
                stored.send_replace(Some(result));
            }
        }
        Some(keys) => {
            let results = append_together(encoded, pending, &keys, (log, partitions, acknowledged)).await;
            // The log knows them now, or they were not stored: whoever is told may use them again.
            drop(keys);
            results.into_iter().for_each(|(stored, result)| drop(stored.send_replace(Some(result))));
        }
    }
}

type Reported = (watch::Sender<Stored>, Result<(), NotStored>);

/// All blocks or none.
async fn append_together(
    blocks: Vec<Block>,
    pending: VecDeque<Pending>,
    keys: &[KeyInFlight],
    (log, partitions, acknowledged): (&Log, &Partitions, &AtomicU64),
) -> Vec<Reported> {
    let keys = keys.iter().map(|key| Key { key: key.key.clone(), value: key.value.clone() }).collect();
    match log.append_group(blocks, keys) {
        Ok(tickets) => {
            let mut results = Vec::with_capacity(tickets.len());
            for (pending, ticket) in pending.into_iter().zip(tickets) {
                results.push(pending.appended(ticket, partitions, acknowledged).await);
            }
            results
        }
        Err(refused) => {
            let bytes = space_for(&refused);
            let error = NotStored { error: refused.error, bytes };
            pending.into_iter().map(|pending| (pending.stored, Err(error.clone()))).collect()
        }
    }
}

/// The bytes that a group waits for which was refused for want of space. Not less than it takes: there might be space for that at
/// once, and the group would be refused again without end.
fn space_for(refused: &RefusedGroup) -> usize {
    let rows = refused.blocks.iter().map(|block| block.bytes.len()).sum();
    let keys = refused.keys.iter().map(|Key { key, value }| key_bytes(key, value)).sum();
    bytes_together(rows, refused.blocks.len(), keys)
}

impl Pending {
    /// Waits for the log, and gives the rows to their feed.
    async fn appended(self, ticket: Ticket, partitions: &Partitions, acknowledged: &AtomicU64) -> Reported {
        let Pending { entry, partition, rows, stored } = self;
        let result = match ticket.await {
            Ok(appended) => {
                // Before the acknowledgement, so that a flush that follows knows of these rows.
                let block = RecentBlock { first: appended.first, rows, time: appended.time };
                partitions.appended(entry.table, partition, block);
                acknowledged.fetch_add(appended.last - appended.first + 1, Ordering::Relaxed);
                Ok(())
            }
            Err(error) => Err(NotStored { error, bytes: 0 }),
        };
        (stored, result)
    }
}

/// Reports why blocks were refused. Returns those to try again: if a block cannot be stored, the others can.
fn refuse(pending: &mut VecDeque<Pending>, blocks: Vec<Block>, error: LogError) -> Vec<Block> {
    let is_about_the_first = !error.is_full() && error.kind() == batchsql_log::LogErrorKind::Invalid;
    let count = if is_about_the_first { 1 } else { pending.len() };
    for (refused, block) in pending.drain(..count).zip(&blocks) {
        let bytes = block.bytes.len();
        refused.stored.send_replace(Some(Err(NotStored { error: error.clone(), bytes })));
    }
    blocks.into_iter().skip(count).collect()
}

fn block(entry: &Entry, partition: u32, rows: Rows<'_>) -> Block {
    let count = u32::try_from(rows.len()).expect("a block has at most MAX_ROWS rows");
    Block { table: entry.table, partition, schema: entry.schema_id, count, bytes: encode(rows) }
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
            let bytes = space_for(&group);
            let space = pin!(log.space(bytes)).poll(&mut Context::from_waker(Waker::noop()));
            assert!(space.is_pending(), "there is space for {bytes} bytes, and none for 4 rows of {length}");
            refused += 1;
        }
        assert!((1..1_100).contains(&refused), "{refused}");
    }
}
