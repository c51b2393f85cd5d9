//! Owns how blocks are accepted: one by one, or as groups that are stored all or none, with keys.
//! Must not know how bytes are written.

use std::{
    fmt,
    time::{Duration, Instant, UNIX_EPOCH},
};

use crate::{
    active::keys_size,
    completion::{self, Ticket},
    error::{LogError, LogErrorKind},
    format::{
        keys::{self, KeyRecord},
        record,
    },
    log::Log,
    model::{Block, Key, StoredKey},
    options::Options,
    shared::Queued,
};

/// The longest key, and the longest value of a key, in bytes.
const LONGEST_KEY: usize = 1 << 10;

/// A block that was not accepted, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct Refused {
    /// The block, unchanged.
    pub block: Block,
    /// Why.
    pub error: LogError,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Refused {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

/// A group that was not accepted, and why. Nothing of it is stored.
#[derive(Debug)]
#[non_exhaustive]
pub struct RefusedGroup {
    /// The blocks, unchanged.
    pub blocks: Vec<Block>,
    /// The keys, unchanged.
    pub keys: Vec<Key>,
    /// Why.
    pub error: LogError,
}

impl fmt::Display for RefusedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for RefusedGroup {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl Log {
    /// Hands a block to the writer thread. Blocks of a partition are stored in the order of the calls.
    ///
    /// If the ticket fails with an error that [is undetermined](LogError::is_undetermined), or is dropped, the rows may be
    /// in the log or not.
    ///
    /// # Errors
    ///
    /// If there is no space ([`LogError::is_full`]; [`space`](Self::space) waits for it), the log is closed, or the block
    /// cannot be stored: no rows, an unknown partition, or more bytes than a segment. Nothing was stored.
    pub fn append(&self, block: Block) -> Result<Ticket, Refused> {
        let (mut tickets, refused) = self.append_all(vec![block]);
        match (tickets.pop(), refused) {
            (Some(ticket), None) => Ok(ticket),
            (_, Some((mut blocks, error))) => match blocks.pop() {
                Some(block) => Err(Refused { block, error }),
                None => unreachable!("a block that has no ticket is given back"),
            },
            (None, None) => unreachable!("a block has a ticket or is given back"),
        }
    }

    /// Hands blocks to the writer thread together, so that they need not wait for one another. Returns the tickets of those
    /// that were accepted, and from the first one that was not, the blocks with the error of [`append`](Self::append).
    pub fn append_all(&self, blocks: Vec<Block>) -> (Vec<Ticket>, Option<(Vec<Block>, LogError)>) {
        let mut tickets = Vec::with_capacity(blocks.len());
        let mut refused = None;
        let mut blocks = blocks.into_iter();
        let since = Instant::now();
        let mut intake = self.shared.intake();
        while let Some(block) = blocks.next() {
            let bytes = record::size(block.bytes.len());
            let accepted = self.check(&block).and_then(|()| self.shared.check_space(&intake, bytes));
            if let Err(error) = accepted {
                intake.wants_space |= error.is_full();
                intake.refused = error.is_full().then_some(bytes);
                refused = Some((std::iter::once(block).chain(blocks).collect(), error));
                break;
            }
            let (sender, ticket) = completion::pair(lost);
            intake.bytes += bytes;
            intake.refused = None;
            intake.blocks.push_back(Queued { block, rest: 0, keys: Vec::new(), ticket: sender, since });
            tickets.push(ticket);
        }
        drop(intake);
        self.shared.work.notify_one();
        (tickets, refused)
    }

    /// Hands blocks to the writer thread that are stored all or none, and with them keys, in the order of the calls: also after
    /// a crash, and after a failure of the disk, either every block is in the log or none. The blocks may be of several tables
    /// and partitions; their tickets have one outcome. A key is known when the tickets are complete, to [`key`](Self::key).
    ///
    /// A group is in one segment: blocks and keys together have at most [`Options::segment_bytes`], with 72 bytes for each
    /// and 16 bytes for each key. Damage on the disk to rows that had been stored is a loss of the damaged blocks alone, as
    /// for other blocks; it is reported.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// use batchsql_log::{Block, Key, Log, Options};
    ///
    /// let (log, _) = Log::open(Options::new(folder.path().join("log")).min_free_bytes(0))?;
    /// let (table, schema) = (log.table("events")?, log.schema(b"id, note")?);
    /// let block = |partition| Block { table, partition, schema, count: 1, bytes: b"a row".to_vec() };
    /// let key = Key { key: b"request 7".to_vec(), value: b"2 rows".to_vec() };
    /// for ticket in log.append_group(vec![block(0), block(1)], vec![key])? {
    ///     ticket.wait()?;
    /// }
    /// assert_eq!(log.key(b"request 7").map(|key| key.value), Some(b"2 rows".to_vec()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append), for all blocks together. Without a block, and with a key that is empty or too long, it is
    /// refused too. Nothing was stored.
    pub fn append_group(&self, blocks: Vec<Block>, keys: Vec<Key>) -> Result<Vec<Ticket>, RefusedGroup> {
        let bytes = match self.check_group(&blocks, &keys) {
            Ok(bytes) => bytes,
            Err(error) => return Err(RefusedGroup { blocks, keys, error }),
        };
        let mut tickets = Vec::with_capacity(blocks.len());
        let since = Instant::now();
        let mut intake = self.shared.intake();
        if let Err(error) = self.shared.check_space(&intake, bytes) {
            intake.wants_space |= error.is_full();
            intake.refused = error.is_full().then_some(bytes);
            drop(intake);
            self.shared.work.notify_one();
            return Err(RefusedGroup { blocks, keys, error });
        }
        intake.bytes += bytes;
        intake.refused = None;
        let mut keys: Vec<KeyRecord> = keys
            .into_iter()
            .map(|Key { key, value }| KeyRecord { key: key.into(), value: value.into(), time: 0 })
            .collect();
        let numbered = blocks.into_iter().rev().zip(0..).collect::<Vec<_>>();
        for (block, rest) in numbered.into_iter().rev() {
            let (sender, ticket) = completion::pair(lost);
            intake.blocks.push_back(Queued { block, rest, keys: std::mem::take(&mut keys), ticket: sender, since });
            tickets.push(ticket);
        }
        drop(intake);
        self.shared.work.notify_one();
        Ok(tickets)
    }

    /// The bytes of a group.
    fn check_group(&self, blocks: &[Block], of_group: &[Key]) -> Result<u64, LogError> {
        let invalid = |message: String| Err(LogError::new(LogErrorKind::Invalid, message));
        if blocks.is_empty() {
            return invalid("a group has no blocks; give it at least one".to_owned());
        }
        if let Some(key) = of_group
            .iter()
            .find(|key| key.key.is_empty() || key.key.len() > LONGEST_KEY || key.value.len() > LONGEST_KEY)
        {
            let (bytes, value) = (key.key.len(), key.value.len());
            return invalid(format!(
                "a key has {bytes} bytes and a value of {value}; use 1 to {LONGEST_KEY}, and a value of at most {LONGEST_KEY}"
            ));
        }
        blocks.iter().try_for_each(|block| self.check(block))?;
        let bytes = blocks.iter().map(|block| record::size(block.bytes.len())).sum::<u64>()
            + keys_size(of_group.iter().map(|key| keys::size(&key.key, &key.value)));
        let limit = self.shared.options.segment_bytes;
        if bytes > limit || u32::try_from(blocks.len()).is_err() {
            return invalid(format!(
                "a group has {bytes} bytes; a group is in one segment, which has {limit}; split it"
            ));
        }
        Ok(bytes)
    }

    /// The key of a group that was stored, as long as [`Options::keys`] says, also after a restart. It is known as soon as a
    /// ticket of the group is complete.
    pub fn key(&self, key: &[u8]) -> Option<StoredKey> {
        let now = self.shared.options.file_system.now();
        let keys = self.shared.keys();
        let known = keys.get(key, now)?;
        Some(StoredKey { value: known.value.to_vec(), time: UNIX_EPOCH + Duration::from_millis(known.time) })
    }

    fn check(&self, block: &Block) -> Result<(), LogError> {
        let invalid = |message: String| Err(LogError::new(LogErrorKind::Invalid, message));
        let Options { partitions, segment_bytes, .. } = self.shared.options;
        if block.count == 0 {
            return invalid("a block has no rows; give it at least one".to_owned());
        }
        if block.partition >= partitions {
            return invalid(format!("partition {} is not below {partitions}; see partition_of", block.partition));
        }
        if record::size(block.bytes.len()) > segment_bytes {
            let bytes = block.bytes.len();
            return invalid(format!("a block has {bytes} bytes; split it, a segment has {segment_bytes}"));
        }
        Ok(())
    }
}

/// What a ticket reports whose block was lost on the way.
fn lost() -> LogError {
    let message = "the writer thread of the log has ended; it is not known whether the rows are stored";
    LogError::new(LogErrorKind::Undetermined, message)
}
