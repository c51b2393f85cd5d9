//! Owns the rows that writers submit: a function of table, producer and sequence, so that the checker knows them without the
//! library. Must not know databases.

use super::job::{Job, Mode};

/// Sequences of one writer. No writer lives long enough to use them up.
const GENERATION: u64 = 1_000_000;
/// Keys of each producer in the keyed table.
const KEYS: u64 = 4;
/// Every row with this remainder of its sequence is refused by the database.
const BAD: (u64, u64) = (97, 96);
/// Every row of this remainder in the table with a key whose first row stays has the key of the row before.
const REPEATED: (u64, u64) = (10, 9);

/// A table of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Table {
    /// Without a key: a row that is written twice is there twice.
    Plain,
    /// The last row of a key stays.
    Keyed,
    /// The first row of a key stays.
    Once,
}

impl Table {
    /// Every table.
    pub(super) const ALL: [Self; 3] = [Self::Plain, Self::Keyed, Self::Once];

    /// Its letter in a ledger.
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Plain => "p",
            Self::Keyed => "k",
            Self::Once => "o",
        }
    }

    pub(super) fn of_letter(letter: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.letter() == letter)
    }

    /// Its name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Keyed => "keyed",
            Self::Once => "once",
        }
    }
}

/// A row: which producer submitted it as its how-manieth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RowId {
    /// The producer.
    pub(super) producer: u32,
    /// Its sequence, which rises.
    pub(super) sequence: u64,
}

impl RowId {
    /// Its key.
    pub(super) fn key(self, table: Table) -> i64 {
        let Self { producer, sequence } = self;
        let key = match table {
            Table::Plain => 0,
            Table::Keyed => u64::from(producer) * KEYS + sequence % KEYS,
            Table::Once if self.repeats_key() => (u64::from(producer) << 32) | (sequence - 1),
            Table::Once => (u64::from(producer) << 32) | sequence,
        };
        key as i64
    }

    /// Whether it has the key of the row before, in the table whose first rows stay.
    pub(super) fn repeats_key(self) -> bool {
        self.sequence % REPEATED.0 == REPEATED.1
    }

    /// The row that its producer submits after it.
    pub(super) fn next(self) -> Self {
        Self { sequence: self.sequence + 1, ..self }
    }

    /// Whether the database refuses it, if its tables can.
    pub(super) fn is_bad(self) -> bool {
        self.sequence % BAD.0 == BAD.1
    }
}

/// The producers of a writer, and the first sequence of each.
///
/// Rows of the durable intake keep their order across writers, so the next writer continues with the same producers. In
/// memory, a write of a killed writer may arrive late, so the next one has other producers, and with them other keys.
pub(super) fn producers(job: &Job) -> (std::ops::Range<u32>, u64) {
    match job.mode {
        Mode::Receipts => (job.generation * job.producers..(job.generation + 1) * job.producers, 0),
        Mode::Durable(_) => (0..job.producers, u64::from(job.generation) * GENERATION),
    }
}
