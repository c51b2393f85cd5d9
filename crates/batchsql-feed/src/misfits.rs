//! Owns stored rows that can never be written as they are, and how many of them are rejected before their partition stops.
//! Must not know sources, or how rows are rejected.

use batchsql_core::{SharedRows, SinkError};

/// A row that no write can take.
#[derive(Debug, Clone)]
pub(crate) struct Misfit {
    /// The sequence of the first row of its block, or of its piece of a block.
    pub(crate) block: u64,
    pub(crate) rows: SharedRows,
    /// Its number in `rows`.
    pub(crate) row: usize,
    pub(crate) error: SinkError,
}

impl Misfit {
    pub(crate) fn sequence(&self) -> u64 {
        self.block + self.row as u64
    }
}

/// The misfits that were rejected behind the last row that the table has accepted. If there are many, the schema of the
/// program is the likely cause, and not the rows.
#[derive(Debug, Default)]
pub(crate) struct Rejections {
    /// Their sequences. Not more than the budget.
    sequences: Vec<u64>,
    /// The last row that the table has accepted.
    accepted: u64,
}

impl Rejections {
    pub(crate) fn add(&mut self, sequence: u64) {
        // At least once, rows behind it may have been accepted first.
        if sequence > self.accepted {
            self.sequences.push(sequence);
        }
    }

    /// The table has accepted a row with this sequence. It says nothing about misfits behind it.
    pub(crate) fn accepted(&mut self, sequence: u64) {
        self.accepted = self.accepted.max(sequence);
        self.sequences.retain(|rejected| *rejected > sequence);
    }

    /// How many misfits may be rejected now.
    pub(crate) fn left(&self, budget: usize) -> usize {
        budget.saturating_sub(self.sequences.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.sequences.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_accepted_row_ends_the_count_of_those_before_it() {
        let mut rejections = Rejections::default();
        rejections.accepted(1);
        (2..6).for_each(|sequence| rejections.add(sequence));
        assert_eq!((rejections.left(4), rejections.left(5), rejections.left(2)), (0, 1, 0));
        // The outcome of a row may come after misfits behind it were rejected.
        rejections.accepted(1);
        assert_eq!(rejections.len(), 4);
        rejections.accepted(4);
        assert_eq!((rejections.len(), rejections.left(4)), (1, 3));
        rejections.accepted(9);
        rejections.add(8);
        assert_eq!(rejections.left(4), 4, "a row behind it was accepted");
    }
}
