//! Owns positions as a database keeps them, in memory.
//! Must not know rows.

use std::time::Duration;

use batchsql_core::{Claim, Claimed, PartitionKey, Position, Removed, SinkError, Step, StoredPosition};
use tokio::time::Instant;

/// The positions of all partitions.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    entries: Vec<Entry>,
    next_id: i64,
    /// A defect on purpose: steps of an earlier epoch are accepted.
    pub(crate) is_without_epochs: bool,
    /// The same: no step moves a position.
    pub(crate) stands: bool,
}

#[derive(Debug)]
struct Entry {
    key: PartitionKey,
    owner: Option<String>,
    position: Position,
    /// Where a step has left the position.
    moved_to: i64,
    lease_ends: Option<Instant>,
}

impl Entry {
    fn lease(&self) -> Option<Duration> {
        let left = self.lease_ends?.duration_since(Instant::now());
        (left > Duration::ZERO).then_some(left)
    }

    fn stored(&self) -> StoredPosition {
        StoredPosition::new(self.key.clone(), self.position).owned(self.owner.clone(), self.lease())
    }
}

impl Positions {
    pub(crate) fn claim(&mut self, key: &PartitionKey, claim: &Claim) -> Claimed {
        let known = self.entries.iter().position(|entry| entry.key == *key);
        let index = match (known, claim.begin_at) {
            (Some(index), _) => index,
            (None, Some(sequence)) => {
                let position = Position { id: self.next_id, epoch: 0, sequence };
                self.next_id += 1;
                self.entries.push(Entry {
                    key: key.clone(),
                    owner: None,
                    position,
                    moved_to: sequence,
                    lease_ends: None,
                });
                self.entries.len() - 1
            }
            (None, None) => return Claimed::Missing,
        };
        let entry = &mut self.entries[index];
        if let Some(refused) = claim.refused_by(entry.owner.as_deref(), entry.lease()) {
            return refused;
        }
        let is_same = entry.owner.as_deref() == Some(&*claim.owner);
        entry.lease_ends = match claim.lease {
            Some(lease) => Some(ends_after(lease)),
            None => entry.lease_ends.filter(|_| is_same),
        };
        entry.owner = Some(claim.owner.clone());
        entry.position.epoch += 1;
        entry.moved_to = entry.moved_to.min(entry.position.sequence);
        Claimed::at(entry.position, Some(entry.moved_to))
    }

    pub(crate) fn read(&self, source: &str) -> Vec<StoredPosition> {
        self.entries.iter().filter(|entry| entry.key.source == source).map(Entry::stored).collect()
    }

    pub(crate) fn renew(&mut self, source: &str, owner: &str, lease: Duration) -> Vec<StoredPosition> {
        let is_own = |entry: &Entry| entry.key.source == source && entry.owner.as_deref() == Some(owner);
        for entry in self.entries.iter_mut().filter(|entry| is_own(entry) && entry.lease_ends.is_some()) {
            entry.lease_ends = Some(ends_after(lease));
        }
        self.entries.iter().filter(|entry| is_own(entry)).map(Entry::stored).collect()
    }

    pub(crate) fn release(&mut self, position: &Position) -> bool {
        let is_same = |entry: &&mut Entry| (entry.position.id, entry.position.epoch) == (position.id, position.epoch);
        let Some(entry) = self.entries.iter_mut().find(is_same) else { return false };
        (entry.owner, entry.lease_ends) = (None, None);
        true
    }

    pub(crate) fn remove(&mut self, source: &str, incarnation: &str, ended_owners: &[String]) -> Removed {
        let is_meant = |entry: &Entry| entry.key.source == source && entry.key.incarnation == incarnation;
        let owners = self.entries.iter().filter(|entry| is_meant(entry)).map(|entry| entry.owner.as_deref());
        if let Some(refused) = Removed::refused_by(owners, ended_owners) {
            return refused;
        }
        let before = self.entries.len();
        self.entries.retain(|entry| !is_meant(entry));
        Removed::Positions((before - self.entries.len()) as u64)
    }

    /// Whether a step can be made now.
    pub(crate) fn check(&self, step: &Step) -> Result<(), SinkError> {
        let is_before = |position: &Position| {
            let is_of_epoch = self.is_without_epochs || position.epoch == step.epoch;
            position.id == step.id && position.sequence == step.from && is_of_epoch
        };
        let is_there = self.entries.iter().any(|entry| is_before(&entry.position));
        if is_there && !self.stands { Ok(()) } else { Err(SinkError::fenced()) }
    }

    pub(crate) fn advance(&mut self, step: &Step) -> Result<(), SinkError> {
        self.check(step)?;
        let entry = self.entries.iter_mut().find(|entry| entry.position.id == step.id);
        let entry = entry.ok_or_else(SinkError::fenced)?;
        (entry.position.sequence, entry.moved_to) = (step.to, step.to);
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

fn ends_after(lease: Duration) -> Instant {
    Instant::now() + lease.min(Duration::from_secs(365 * 24 * 60 * 60))
}

/// Sources quote the names of tables.
fn is_of(entry: &Entry, table: &str, partition: u32) -> bool {
    entry.key.table.trim_matches('"') == table && entry.key.partition == partition
}
