//! Owns positions as a database keeps them, in memory.
//! Must not know rows.

use batchsql_core::{Claim, Claimed, PartitionKey, Position, SinkError, Step};

/// The positions of all partitions.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    entries: Vec<Entry>,
    /// A defect on purpose: steps of an earlier epoch are accepted.
    pub(crate) is_without_epochs: bool,
}

#[derive(Debug)]
struct Entry {
    key: PartitionKey,
    owner: Option<String>,
    position: Position,
}

impl Positions {
    pub(crate) fn claim(&mut self, key: &PartitionKey, claim: &Claim) -> Claimed {
        let known = self.entries.iter().position(|entry| entry.key == *key);
        let index = match (known, claim.begin_at) {
            (Some(index), _) => index,
            (None, Some(sequence)) => {
                let id = i64::try_from(self.entries.len()).expect("a test has fewer partitions");
                let position = Position { id, epoch: 0, sequence };
                self.entries.push(Entry { key: key.clone(), owner: None, position });
                self.entries.len() - 1
            }
            (None, None) => return Claimed::Missing,
        };
        let entry = &mut self.entries[index];
        if !claim.takes_from(entry.owner.as_deref()) {
            return Claimed::Other;
        }
        entry.owner = Some(claim.owner.clone());
        entry.position.epoch += 1;
        Claimed::Position(entry.position)
    }

    /// Whether a step can be made now.
    pub(crate) fn check(&self, step: &Step) -> Result<(), SinkError> {
        let is_before = |position: &Position| {
            let is_of_epoch = self.is_without_epochs || position.epoch == step.epoch;
            position.id == step.id && position.sequence == step.from && is_of_epoch
        };
        let is_there = self.entries.iter().any(|entry| is_before(&entry.position));
        if is_there { Ok(()) } else { Err(SinkError::fenced()) }
    }

    pub(crate) fn advance(&mut self, step: &Step) -> Result<(), SinkError> {
        self.check(step)?;
        let entry = self.entries.iter_mut().find(|entry| entry.position.id == step.id);
        entry.ok_or_else(SinkError::fenced)?.position.sequence = step.to;
        Ok(())
    }

    pub(crate) fn of(&self, table: &str, partition: u32) -> Option<Position> {
        self.entries.iter().find(|entry| is_of(entry, table, partition)).map(|entry| entry.position)
    }

    pub(crate) fn set(&mut self, table: &str, partition: u32, sequence: Option<i64>) {
        match sequence {
            None => self.entries.retain(|entry| !is_of(entry, table, partition)),
            Some(sequence) => {
                let of_table = self.entries.iter_mut().filter(|entry| is_of(entry, table, partition));
                of_table.for_each(|entry| entry.position.sequence = sequence);
            }
        }
    }
}

/// Sources quote the names of tables.
fn is_of(entry: &Entry, table: &str, partition: u32) -> bool {
    entry.key.table.trim_matches('"') == table && entry.key.partition == partition
}
