//! Owns what a batch knows of a transient error that it gets again and again, and whether the batch is searched for the
//! rows that cause it.
//! Must not know rows or databases, or look at a clock: callers pass numbers of writes and times.
//!
//! A trigger may raise the code of a deadlock or of a full disk for one row, whatever the state of the server. Such a
//! batch is retried for `retry_for`, as for any transient error. Then it is written in halves, so that only the rows
//! expire that are refused alone. The rows behind such a row, with its key, were not sent: they have their turn, and
//! merged rows are sent one by one.
//!
//! Each commit allows as many refusals as it takes to find one row, so a server that fails costs a few attempts, and not
//! one for each row. The search takes at most as long as the retries did, and a quarter of that while nothing shows that the
//! table can be written: neither a part that was committed, nor another write of its group that began between two refusals
//! with the same code and was committed.

use std::time::Duration;

use tokio::time::Instant;

/// A transient error that a batch got more than once.
#[derive(Debug)]
pub(crate) struct Repeated {
    code: Box<str>,
    /// Writes that had begun when it was last seen.
    begun: u64,
    /// When it was last seen although another write had begun and was committed since it was seen before.
    shown_at: Option<Instant>,
    search: Option<Limits>,
}

/// How long the search goes on.
#[derive(Debug)]
struct Limits {
    since: Instant,
    /// Whether a commit has shown that the table can be written.
    is_shown: bool,
    /// The commit that gave the credit.
    credited_for: u64,
    /// Refusals that are left before another commit.
    credit: usize,
}

impl Repeated {
    /// The error is seen for the first time; `begun` writes have begun so far.
    pub(crate) fn new(code: &str, begun: u64) -> Self {
        Self { code: code.into(), begun, shown_at: None, search: None }
    }

    /// The batch was refused with `code`; `committed` was the last commit before it was sent.
    pub(crate) fn seen(&mut self, code: &str, begun: u64, committed: u64, now: Instant) {
        if *self.code != *code {
            self.code = code.into();
            self.shown_at = None;
        } else if committed > self.begun {
            self.shown_at = Some(now);
        }
        self.begun = begun;
    }

    /// Whether `rows` rows that were refused together when their time was over are searched. They are rows of the round,
    /// or those that a single row of the round stands for.
    pub(crate) fn may_search(&mut self, rows: usize, committed: u64, now: Instant, retry_for: Duration) -> bool {
        let is_shown = self.shown_at.is_some_and(|at| now.duration_since(at) <= retry_for / 4);
        let credit = refusals_of_one_row(rows);
        let limits = self.search.get_or_insert(Limits { since: now, is_shown, credited_for: committed, credit });
        if committed > limits.credited_for {
            (limits.credited_for, limits.credit) = (committed, limits.credit.max(credit));
            limits.is_shown = true;
        }
        let longest = if limits.is_shown { retry_for } else { retry_for / 4 };
        let is_allowed = now < limits.since + longest && limits.credit > 0;
        limits.credit = limits.credit.saturating_sub(1);
        is_allowed
    }

    /// Whether the batch is being searched.
    pub(crate) fn is_searching(&self) -> bool {
        self.search.is_some()
    }
}

/// How often rows are refused while one of them is searched for, if it is always in the half that is tried first.
fn refusals_of_one_row(rows: usize) -> usize {
    rows.next_power_of_two().trailing_zeros() as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// For how long a batch is searched that was refused so, in quarters of `retry_for`.
    fn quarters(seen: &[(&str, u64, u64)], ago: Duration) -> u32 {
        let now = Instant::now();
        let may_search = |quarters: u32| {
            let mut repeated = Repeated::new("40001", 5);
            seen.iter().for_each(|(code, begun, committed)| repeated.seen(code, *begun, *committed, now));
            let begin = now + ago;
            assert!(repeated.may_search(1000, 9, begin, MINUTE), "{seen:?}");
            repeated.may_search(1000, 9, begin + MINUTE / 4 * quarters, MINUTE)
        };
        (1..=5).find(|quarters| !may_search(*quarters)).unwrap()
    }

    #[test]
    fn a_batch_is_searched_for_longer_if_another_write_was_committed_between_two_refusals() {
        let check = |seen: &[(&str, u64, u64)], is_shown: bool| {
            assert_eq!(quarters(seen, Duration::ZERO), if is_shown { 4 } else { 1 }, "{seen:?}");
        };
        check(&[], false);
        check(&[("40001", 7, 5)], false);
        check(&[("40001", 7, 6)], true);
        check(&[("40001", 7, 6), ("40001", 8, 7)], true);
        check(&[("40P01", 7, 6)], false);
        check(&[("40001", 7, 6), ("40P01", 9, 8)], false);
        check(&[("40P01", 7, 6), ("40P01", 9, 8)], true);
    }

    #[test]
    fn a_commit_that_was_long_ago_shows_nothing() {
        assert_eq!(quarters(&[("40001", 7, 6)], Duration::from_secs(16)), 1);
        assert_eq!(quarters(&[("40001", 7, 6)], Duration::from_secs(15)), 4);
    }

    #[test]
    fn a_part_that_was_committed_shows_that_the_table_can_be_written() {
        let now = Instant::now();
        let mut repeated = Repeated::new("40001", 5);
        assert!(repeated.may_search(1000, 6, now, MINUTE));
        assert!(repeated.may_search(500, 7, now + MINUTE / 2, MINUTE));
        assert!(!repeated.may_search(500, 8, now + MINUTE, MINUTE));
    }

    #[test]
    fn the_search_ends_without_commits_and_when_its_time_is_over() {
        let now = Instant::now();
        let begin = || {
            let mut repeated = Repeated::new("40001", 5);
            repeated.seen("40001", 7, 6, now);
            repeated
        };
        let mut repeated = begin();
        let halved = (0..50).take_while(|_| repeated.may_search(1000, 6, now, MINUTE)).count();
        assert_eq!(halved, 11, "enough to find one row of 1,000");
        assert!(repeated.may_search(1000, 8, now, MINUTE), "another write was committed");
        let mut repeated = begin();
        repeated.seen("40001", 7, 6, now);
        assert!(repeated.may_search(1000, 6, now, MINUTE) && repeated.is_searching());
        repeated.seen("40001", 9, 8, now + MINUTE);
        assert!(!repeated.may_search(1000, 8, now + MINUTE, MINUTE));
    }
}
