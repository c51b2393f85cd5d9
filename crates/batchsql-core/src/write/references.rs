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
//! Databases that check each row when they insert it (MySQL) refuse rows that come before those to which they refer. So when all rows of
//! a round are refused together, they are tried in reverse order first: that is right for rows that were submitted children first. If that is
//! refused too, the search goes on in the order of submission.
//!
//! If nothing was committed or rejected in such a round, parts are halved in the next one, and only rows that were refused alone wait. They are
//! rejected when a round has ended in which nothing else was committed or rejected. So two rows in different parts that refer to each other
//! are rejected if their batch cannot be written whole.

use crate::error::SinkError;

#[derive(Debug, Default)]
pub(crate) struct References {
    /// Rows of the batch that were refused alone and wait.
    alone: Vec<(usize, SinkError)>,
    /// Parts of several rows wait in this round.
    has_parts: bool,
    /// Rows were committed or rejected in this round.
    has_progress: bool,
    /// Only rows that were refused alone wait.
    halves_parts: bool,
    /// What was tried since a row was committed or rejected.
    order: Order,
}

/// The orders in which all rows that are left were tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Order {
    #[default]
    Submitted,
    Reversed,
    Both,
}

/// What a part does that a foreign key refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It waits for the next round.
    Waits,
    /// All rows are tried once more, in the opposite order.
    IsReversed,
    /// It is halved, or rejected if it has one row.
    AsEver,
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
        if rows == all && rows > 1 && self.order != Order::Both {
            // The second time they get their order back.
            self.order = if self.order == Order::Submitted { Order::Reversed } else { Order::Both };
            return Refused::IsReversed;
        }
        if rows == all || (rows > 1 && self.halves_parts) {
            return Refused::AsEver;
        }
        self.has_parts |= rows > 1;
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

    /// Rows were committed, or a row was rejected.
    pub(crate) fn progressed(&mut self) {
        self.has_progress = true;
    }

    /// Parts wait no longer, until a round has brought progress. Whether any did.
    pub(crate) fn end_parts(&mut self) -> bool {
        let had = std::mem::take(&mut self.has_parts);
        self.halves_parts |= had;
        had
    }

    /// Whether rows wait for the next round.
    pub(crate) fn has_waiting(&self) -> bool {
        self.has_parts || !self.alone.is_empty()
    }

    /// The round has ended.
    pub(crate) fn end_round(&mut self) -> Waited {
        let Self { alone, has_parts, has_progress, halves_parts, order } = std::mem::take(self);
        self.halves_parts = !has_progress && (halves_parts || has_parts);
        // Rows that are reversed stay so when some of them were committed, and are not turned again.
        self.order = if has_progress && order == Order::Both { Order::Submitted } else { order };
        if has_progress || has_parts { Waited::TriedAgain(alone) } else { Waited::Rejected(alone) }
    }
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
            [5, 5, 5, 2, 1].map(|rows| references.refused(rows, 5)),
            [Refused::IsReversed, Refused::IsReversed, Refused::AsEver, Refused::Waits, Refused::Waits]
        );
        assert_eq!(references.refused(1, 1), Refused::AsEver);
    }

    #[test]
    fn rows_that_wait_are_rejected_when_nothing_has_changed() {
        let mut references = References::default();
        let wait = |references: &mut References| {
            assert_eq!(references.refused(1, 5), Refused::Waits);
            references.wait(7, error());
        };
        wait(&mut references);
        references.progressed();
        assert!(matches!(references.end_round(), Waited::TriedAgain(rows) if rows.len() == 1 && rows[0].0 == 7));
        // A part that waits was not tried row by row, so the next round does that.
        assert_eq!(references.refused(2, 5), Refused::Waits);
        wait(&mut references);
        assert!(matches!(references.end_round(), Waited::TriedAgain(rows) if rows.len() == 1));
        assert_eq!(references.refused(2, 5), Refused::AsEver);
        wait(&mut references);
        assert!(matches!(references.end_round(), Waited::Rejected(rows) if rows.len() == 1));
    }
}
