//! Owns which rows of a batch wait because they may refer to other rows of it: a foreign key refuses them.
//! Must not know how rows are written or how they end: callers pass numbers of rows.
//!
//! Rows that are written together may refer to each other in any order. If one of them is bad, they are tried in parts, and a row can be in
//! another part than the row that it refers to. So a part that a foreign key refuses waits for the next round:
//!
//! ```text
//! rows 0, 1 and 2 refer to the next one; row 4 breaks a CHECK
//! try 0..5     refused: the CHECK
//! try 0..2     refused: row 1 refers to row 2. It waits
//! try 2..5     refused: the CHECK; 2..3 waits, 3..4 is committed, 4..5 is rejected
//! round 2      0..3 is committed
//! ```
//!
//! Databases that check each row when they insert it (MySQL) refuse rows that come before those to which they refer, and also elsewhere a
//! search in parts is short only if it begins with the rows to which others refer. So rounds are in the order of submission or in the
//! opposite one:
//!
//! - The first time that all rows are refused together, they are tried in the opposite order.
//! - A round in which nothing was committed or rejected, or less than it took tries, is followed by one in the opposite order. So an order in
//!   which rows are committed is kept, and both are used where each suits some of the rows.
//!
//! If two rounds have brought nothing, parts are halved in the next ones, and only rows that were refused alone wait. Such a round is cut short
//! when more parts in a row are refused than it takes to find one row, so that the wrong order costs little; if the other order does no
//! better, more of them are allowed. Rows that wait are rejected when a round that was not cut short has ended in which nothing else was
//! committed or rejected. So two rows in different parts that refer to each other are rejected if their batch cannot be written whole.

use crate::error::SinkError;

#[derive(Debug, Default)]
pub(crate) struct References {
    /// Rows of the batch that were refused alone and wait.
    alone: Vec<(usize, SinkError)>,
    round: Counts,
    /// All rows were refused together before.
    was_refused_whole: bool,
    /// Rounds since one in which rows were committed or rejected.
    rounds_without_progress: u32,
    /// How often rounds in both orders were cut short since then.
    cuts: u32,
}

/// What has happened in the round.
#[derive(Debug, Default)]
struct Counts {
    /// Parts of several rows wait.
    has_parts: bool,
    /// It was cut short.
    is_cut: bool,
    /// Tries that were refused by a foreign key.
    refused: usize,
    /// Those since a row was committed or rejected.
    refused_in_a_row: usize,
    /// Tries that were committed.
    committed: usize,
    /// Rows that were committed or rejected.
    rows: usize,
}

/// Rounds without progress before parts are halved: one in each order.
const WHOLE_ROUNDS: u32 = 2;

/// What a part does that a foreign key refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It waits for the next round.
    Waits,
    /// All rows are tried once more, in the opposite order.
    IsReversed,
    /// It waits, and the round ends.
    EndsRound,
    /// It is halved, or rejected if it has one row.
    AsEver,
}

/// What follows when a round has ended.
#[derive(Debug)]
pub(crate) struct NextRound {
    /// It is in the opposite order.
    pub(crate) is_reversed: bool,
    pub(crate) alone: Waited,
}

/// What becomes of the rows that were refused alone, when a round has ended.
#[derive(Debug)]
pub(crate) enum Waited {
    TriedAgain(Vec<(usize, SinkError)>),
    Rejected(Vec<(usize, SinkError)>),
}

impl References {
    /// `rows` of the `all` rows of the round were refused by a foreign key.
    pub(crate) fn refused(&mut self, rows: usize, all: usize) -> Refused {
        self.round.refused += 1;
        self.round.refused_in_a_row += 1;
        if rows == all && rows > 1 && !std::mem::replace(&mut self.was_refused_whole, true) {
            return Refused::IsReversed;
        }
        let halves_parts = self.rounds_without_progress >= WHOLE_ROUNDS && rows > 1;
        if halves_parts && self.round.refused_in_a_row > refused_in_a_row_at_most(all, self.cuts) {
            (self.round.has_parts, self.round.is_cut) = (true, true);
            return Refused::EndsRound;
        }
        if rows == all || halves_parts {
            return Refused::AsEver;
        }
        self.round.has_parts |= rows > 1;
        Refused::Waits
    }

    /// A row waits that was refused alone.
    pub(crate) fn wait(&mut self, row: usize, error: SinkError) {
        self.alone.push((row, error));
    }

    /// The rows that were refused alone wait no longer.
    pub(crate) fn take_alone(&mut self) -> Vec<(usize, SinkError)> {
        std::mem::take(&mut self.alone)
    }

    /// A try of so many rows was committed.
    pub(crate) fn committed(&mut self, rows: usize) {
        self.round.committed += 1;
        self.progressed(rows);
    }

    /// A row was rejected.
    pub(crate) fn rejected(&mut self) {
        self.progressed(1);
    }

    fn progressed(&mut self, rows: usize) {
        self.round.rows += rows;
        self.round.refused_in_a_row = 0;
    }

    /// Parts wait no longer, until a round has brought progress. Whether any did.
    pub(crate) fn end_parts(&mut self) -> bool {
        let had = std::mem::take(&mut self.round.has_parts);
        if had {
            self.rounds_without_progress = self.rounds_without_progress.max(WHOLE_ROUNDS);
        }
        had
    }

    /// Whether rows wait for the next round.
    pub(crate) fn has_waiting(&self) -> bool {
        self.round.has_parts || !self.alone.is_empty()
    }

    /// The round has ended.
    pub(crate) fn end_round(&mut self) -> NextRound {
        let Counts { has_parts, is_cut, refused, committed, rows, .. } = std::mem::take(&mut self.round);
        let alone = self.take_alone();
        if rows > 0 {
            (self.rounds_without_progress, self.cuts) = (0, 0);
            let is_slow = refused > 0 && rows < refused + committed;
            return NextRound { is_reversed: is_slow, alone: Waited::TriedAgain(alone) };
        }
        if !has_parts {
            return NextRound { is_reversed: false, alone: Waited::Rejected(alone) };
        }
        self.rounds_without_progress += 1;
        self.cuts += u32::from(is_cut && self.rounds_without_progress.is_multiple_of(2));
        NextRound { is_reversed: true, alone: Waited::TriedAgain(alone) }
    }
}

/// How many parts of a round of `rows` rows may be refused one after the other: a few more than it takes to find one row.
fn refused_in_a_row_at_most(rows: usize, cuts: u32) -> usize {
    let levels = rows.next_power_of_two().trailing_zeros() as usize;
    (levels + 2).saturating_mul(8_usize.saturating_pow(cuts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    fn error() -> SinkError {
        SinkError::new(ErrorClass::Row, "no").of_foreign_key()
    }

    #[test]
    fn parts_wait_unless_they_are_the_whole_round() {
        let mut references = References::default();
        assert_eq!(
            [5, 5, 2, 1].map(|rows| references.refused(rows, 5)),
            [Refused::IsReversed, Refused::AsEver, Refused::Waits, Refused::Waits]
        );
        assert_eq!(references.refused(1, 1), Refused::AsEver);
    }

    /// Ends the round: whether the next one is in the opposite order, and whether rows are rejected.
    fn end(references: &mut References) -> (bool, bool) {
        let NextRound { is_reversed, alone } = references.end_round();
        (is_reversed, matches!(alone, Waited::Rejected(_)))
    }

    #[test]
    fn rows_that_wait_are_rejected_when_nothing_has_changed() {
        let mut references = References::default();
        assert_eq!(references.refused(1, 5), Refused::Waits);
        references.wait(7, error());
        references.rejected();
        let NextRound { is_reversed: false, alone: Waited::TriedAgain(rows) } = references.end_round() else {
            panic!()
        };
        assert!(rows.len() == 1 && rows[0].0 == 7);
        // A part that waits was not tried row by row: after a round in each order the next one does that.
        for _ in 0..2 {
            assert_eq!(references.refused(2, 5), Refused::Waits);
            assert_eq!(end(&mut references), (true, false));
        }
        assert_eq!(references.refused(2, 5), Refused::AsEver);
        references.wait(7, error());
        assert!(matches!(references.end_round().alone, Waited::Rejected(rows) if rows.len() == 1));
    }

    #[test]
    fn an_order_in_which_few_rows_are_committed_is_turned() {
        let mut references = References::default();
        let mut round = |rows: usize| {
            assert_eq!(references.refused(2, 5), Refused::Waits);
            references.committed(rows);
            end(&mut references)
        };
        assert_eq!(round(2), (false, false));
        assert_eq!(round(1), (true, false));
        // Without a foreign key the order is not the cause.
        references.committed(0);
        references.rejected();
        assert_eq!(end(&mut references), (false, false));
    }

    #[test]
    fn a_round_is_cut_short_unless_rows_are_committed() {
        let mut references =
            References { rounds_without_progress: 2, was_refused_whole: true, ..References::default() };
        let mut tries = |commits_at: Option<usize>| {
            let refused = |number: &usize| {
                if commits_at == Some(*number) {
                    references.committed(9);
                }
                references.refused(8, 1000) == Refused::AsEver
            };
            let tries = (0..1000).take_while(refused).count();
            (tries, end(&mut references))
        };
        let turned = (true, false);
        assert_eq!([None, None, None, None, None].map(&mut tries), [12, 12, 96, 96, 768].map(|tries| (tries, turned)));
        assert_eq!(tries(Some(700)).0, 1000);
    }
}
