//! Owns which partition the records of a file belong to, and which of them are done.
//! Must not know databases or rows.
//!
//! Blocks of records take turns: with 4 partitions, partition 0 has the blocks 0, 4, 8, partition 1 the blocks 1, 5, 9. Each
//! partition has a position of its own, the last record that it has passed. Worked example with blocks of 10 records and two
//! partitions, positions 8 and 40:
//!
//! ```text
//! records    1-10    11-20   21-30   31-40
//! partition  0       1       0       1
//! done       1-8     all     none    all       front: 8
//! ```
//!
//! A later run has to find the same partitions: their number and the size of a block must not change.

/// Records of a block. A stripe never has records of two blocks.
pub(super) const BLOCK: u64 = 20_000;
/// Partitions of a file whose records need no order.
pub(super) const PARTITIONS: usize = 4;
/// A smaller file has one partition.
pub(super) const LEAST_BYTES: u64 = 1 << 20;

/// The records that an earlier run has written or rejected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// The last record of each partition that is done.
    reached: Vec<u64>,
    /// Records behind these that are done too.
    behind: Ranges,
}

/// Records from the first one to the last one, in ascending order.
pub(super) type Ranges = Vec<(u64, u64)>;

impl Done {
    /// At least one partition.
    pub(super) fn new(reached: Vec<u64>) -> Self {
        assert!(!reached.is_empty(), "a file has a partition");
        Self { reached, behind: Ranges::new() }
    }

    /// Of a file with one partition.
    pub(super) fn with_behind(reached: u64, behind: Ranges) -> Self {
        Self { reached: vec![reached], behind }
    }

    /// How many records are done that are not reached.
    pub(super) fn records_behind(&self) -> u64 {
        self.behind.iter().map(|(first, last)| last.saturating_sub(*first).saturating_add(1)).sum()
    }

    pub(super) fn partition(&self, record: u64) -> usize {
        (record.saturating_sub(1) / BLOCK % self.reached.len() as u64) as usize
    }

    /// The last record that is done in the partition of this record.
    pub(super) fn reached(&self, record: u64) -> u64 {
        self.reached[self.partition(record)]
    }

    pub(super) fn has(&self, record: u64) -> bool {
        record <= self.reached(record) || is_in(&self.behind, record)
    }

    /// All records up to this one are done.
    pub(super) fn front(&self) -> u64 {
        let partitions = self.reached.len() as u64;
        let missing = |(partition, reached): (u64, &u64)| {
            // The first record behind `reached` in a block of this partition.
            let block = reached / BLOCK;
            let turn = (partition + partitions - block % partitions) % partitions;
            if turn == 0 { reached + 1 } else { (block + turn) * BLOCK + 1 }
        };
        (0..).zip(&self.reached).map(missing).min().unwrap_or(1) - 1
    }
}

/// Whether a record is in the ranges.
pub(super) fn is_in(ranges: &[(u64, u64)], record: u64) -> bool {
    let later = ranges.partition_point(|(first, _)| *first <= record);
    later > 0 && record <= ranges[later - 1].1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_take_turns() {
        let done = Done::new(vec![0; 4]);
        for (record, partition) in
            [(1, 0), (BLOCK, 0), (BLOCK + 1, 1), (4 * BLOCK, 3), (4 * BLOCK + 1, 0), (5 * BLOCK + 1, 1)]
        {
            assert_eq!(done.partition(record), partition, "record {record}");
        }
        assert!((1..1_000_000).all(|record| Done::new(vec![0]).partition(record) == 0));
    }

    /// The front is what counting the records one by one finds.
    #[test]
    fn everything_up_to_the_front_is_done() {
        let some = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK - 1, 3 * BLOCK, 5 * BLOCK + 7];
        for a in some {
            for b in some {
                for c in some {
                    let done = Done::new(vec![a, b, c]);
                    let front = done.front();
                    assert!(!done.has(front + 1), "{a} {b} {c}: {front}");
                    let mut ends = (1..=front).step_by(BLOCK as usize).chain((1..=front / BLOCK).map(|n| n * BLOCK));
                    assert!(ends.all(|record| done.has(record)) && (front == 0 || done.has(front)), "{a} {b} {c}");
                }
            }
        }
        assert_eq!(Done::new(vec![123]).front(), 123);
    }
}
