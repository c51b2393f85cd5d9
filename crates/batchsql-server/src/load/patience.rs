//! Owns how long rows of a run are tried that get a transient error, and when they are searched for the one that causes it. Pure:
//! no clock, no I/O.
//! Must not know databases.
//!
//! Rows are tried for `retry_for`, counted from the last ones that were accepted. If the database still answers then, one of them
//! may cause the error, so halves are tried, each once. A row alone is tried for `retry_for` by itself, because it may be locked; as
//! long as no row is accepted or rejected, only the first one. So each row that is rejected was tried for so long. Each row that is
//! accepted allows so many refusals as it takes to find some bad rows; a database that accepts none costs no more than these.

use std::ops::Range;
use std::time::Duration;

use tokio::time::Instant;

pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A row alone is tried so often at least.
const LEAST_TRIES: usize = 3;
/// Bad rows beside each other that are found.
const NEIGHBORS: usize = 8;

/// What becomes of rows that got a transient error.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Patient {
    /// They are tried again after a pause.
    Tries(Duration),
    /// They count as refused.
    Searches,
    GivesUp,
}

/// Of one run.
#[derive(Debug)]
pub(super) struct Patience {
    retry_for: Duration,
    since: Option<Instant>,
    pause: Duration,
    is_searching: bool,
    /// Refusals of the search that are left without an accepted row.
    credit: usize,
    all_credit: usize,
    /// The row that is tried alone, since when, and how often.
    alone: Option<(usize, Instant, usize)>,
    /// A row alone has had its time since one was accepted or rejected.
    has_waited: bool,
}

impl Patience {
    pub(super) fn new(retry_for: Duration, rows: usize) -> Self {
        let of_one_row = rows.next_power_of_two().trailing_zeros() as usize + 1;
        let credit = 2 * of_one_row + NEIGHBORS;
        Self {
            retry_for,
            since: None,
            pause: FIRST_PAUSE,
            is_searching: false,
            credit,
            all_credit: credit,
            alone: None,
            has_waited: false,
        }
    }

    /// Rows were accepted.
    pub(super) fn accepted(&mut self) {
        (self.since, self.pause, self.credit) = (None, FIRST_PAUSE, self.all_credit);
        (self.alone, self.has_waited) = (None, false);
    }

    /// A row was rejected: the next one has a time of its own.
    pub(super) fn rejected(&mut self) {
        (self.alone, self.has_waited) = (None, false);
    }

    /// The rows got a transient error. `may_be_of_row`: one of them may cause it, as the database has answered, and does not lack a
    /// resource.
    pub(super) fn after(&mut self, rows: &Range<usize>, may_be_of_row: bool, now: Instant) -> Patient {
        let since = *self.since.get_or_insert(now);
        if !self.is_searching || !may_be_of_row {
            if now + self.pause <= since + self.retry_for {
                return self.pauses();
            }
            if !may_be_of_row {
                return Patient::GivesUp;
            }
            self.is_searching = true;
        }
        if rows.len() == 1 && !self.has_waited {
            let (row, begin, tries) = self.alone.filter(|(row, ..)| *row == rows.start).unwrap_or((rows.start, now, 0));
            if tries + 1 < LEAST_TRIES || now < begin + self.retry_for {
                self.alone = Some((row, begin, tries + 1));
                return self.pauses();
            }
            self.has_waited = true;
        }
        if self.credit == 0 {
            return Patient::GivesUp;
        }
        self.credit -= 1;
        Patient::Searches
    }

    fn pauses(&mut self) -> Patient {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        Patient::Tries(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// What becomes of these rows at the given second.
    fn after(patience: &mut Patience, begin: Instant, second: u64, rows: Range<usize>) -> Patient {
        patience.after(&rows, true, begin + Duration::from_secs(second))
    }

    #[test]
    fn rows_are_searched_when_their_time_is_over() {
        let (mut patience, begin) = (Patience::new(MINUTE, 100), Instant::now());
        assert_eq!(after(&mut patience, begin, 0, 0..100), Patient::Tries(FIRST_PAUSE));
        assert!(matches!(after(&mut patience, begin, 59, 0..100), Patient::Tries(_)));
        assert_eq!(after(&mut patience, begin, 61, 0..100), Patient::Searches);
        assert_eq!(after(&mut patience, begin, 61, 0..50), Patient::Searches);
        // Alone it has as long once more, and three tries.
        for second in [61, 62, 120] {
            assert!(matches!(after(&mut patience, begin, second, 7..8), Patient::Tries(_)), "{second}");
        }
        assert_eq!(after(&mut patience, begin, 121, 7..8), Patient::Searches);
        assert_eq!(after(&mut patience, begin, 121, 8..9), Patient::Searches, "nothing was accepted since");
        patience.accepted();
        // Both are tried again: each has a time of its own before it is rejected.
        for (row, first) in [(7, 200), (8, 300)] {
            for second in [first, first + 1, first + 59] {
                assert!(matches!(after(&mut patience, begin, second, row..row + 1), Patient::Tries(_)), "{second}");
            }
            assert_eq!(after(&mut patience, begin, first + 60, row..row + 1), Patient::Searches);
            patience.rejected();
        }
    }

    #[test]
    fn a_database_that_does_not_answer_or_is_full_is_given_up() {
        let (mut patience, begin) = (Patience::new(MINUTE, 100), Instant::now());
        assert_eq!(patience.after(&(0..100), false, begin), Patient::Tries(FIRST_PAUSE));
        assert_eq!(patience.after(&(0..100), false, begin + 2 * MINUTE), Patient::GivesUp);
        // Also in the middle of a search.
        assert_eq!(patience.after(&(0..100), true, begin + 2 * MINUTE), Patient::Searches);
        patience.accepted();
        assert!(matches!(patience.after(&(0..50), false, begin + 3 * MINUTE), Patient::Tries(_)));
        assert_eq!(patience.after(&(0..50), false, begin + 5 * MINUTE), Patient::GivesUp);
    }

    #[test]
    fn a_table_that_accepts_nothing_is_given_up() {
        let (mut patience, begin) = (Patience::new(Duration::ZERO, 100), Instant::now());
        let tries = (0..1000).take_while(|_| after(&mut patience, begin, 1, 0..2) != Patient::GivesUp).count();
        assert!(tries < 40, "{tries}");
    }
}
