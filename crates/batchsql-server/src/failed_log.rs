//! Owns the warnings about rows that were not written: one of each kind, then how many more there were.
//! Must not know where rows come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use batchsql::Outcome;

/// Rows of a kind are counted this long before a line has their number.
const WINDOW: Duration = Duration::from_secs(10);
/// Kinds that are counted on their own; the rows of further ones are counted together.
const MOST_KINDS: usize = 100;

/// Table, outcome, and code of the error.
type Kind = (String, &'static str, String);

/// Says which rows were not written, without a line for each of 40,000 that fail for one reason.
#[derive(Debug)]
pub(crate) struct FailedLog {
    counts: Mutex<Counts>,
    /// The file that has the rows.
    letters: Option<PathBuf>,
}

/// Which of the rows are in the file of dead letters, at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All of them, or the rest comes in a later run, or there is no such file.
    All,
    /// All but so many rows.
    AllBut(u64),
    /// The file was not waited for.
    Unknown,
}

impl FailedLog {
    /// `letters` is the file that has the rows.
    pub(crate) fn new(letters: Option<&Path>) -> Self {
        Self { counts: Mutex::default(), letters: letters.map(Path::to_owned) }
    }

    /// A row was refused. Others that a source still has are no failures: they are read again.
    pub(crate) fn add_rejected(&self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Rejected(_)) {
            self.add(outcome);
        }
    }

    /// A row was not written.
    pub(crate) fn add(&self, outcome: &Outcome) {
        let Some(failed) = outcome.failure() else { return };
        let code = failed.code().unwrap_or("-").to_owned();
        let kind = (failed.table().to_string(), outcome.kind().name(), code);
        let noted = self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(kind, Instant::now());
        match noted {
            Noted::First => tracing::warn!(%outcome, "a row was not written; more of this kind are counted"),
            Noted::Counted => {}
            Noted::Due(kind, rows) => self.say(&kind, rows, Kept::All),
        }
    }

    /// Says how many rows were not written since the last line.
    pub(crate) fn end(&self, kept: Kept) {
        let rest = self.counts.lock().unwrap_or_else(PoisonError::into_inner).take();
        rest.iter().for_each(|(kind, rows)| self.say(kind, *rows, kept));
    }

    fn say(&self, (table, outcome, code): &Kind, rows: u64, kept: Kept) {
        tracing::warn!(rows, table, outcome, code, "more rows were not written; {}", self.place(kept));
    }

    /// Where the rows are.
    fn place(&self, kept: Kept) -> String {
        let Some(path) = &self.letters else { return "they are lost, as there is no [dead_letters] file".to_owned() };
        let place = format!("they go to {}; write them again with `batchsql dead-letters replay`", path.display());
        match kept {
            Kept::All => place,
            Kept::AllBut(missing) => {
                format!(
                    "{place}; but {missing} of all rows that were not written are not in it, as it could not be written"
                )
            }
            Kept::Unknown => format!("{place}; but some may be missing in it, as its disk did not answer"),
        }
    }
}

/// What follows from one more row.
#[derive(Debug, PartialEq, Eq)]
enum Noted {
    /// It is the first of its kind.
    First,
    Counted,
    /// So many rows of this kind, with this one, were not said yet.
    Due(Kind, u64),
}

#[derive(Debug, Default)]
struct Counts(BTreeMap<Kind, Count>);

#[derive(Debug)]
struct Count {
    /// That no line has told.
    rows: u64,
    since: Instant,
}

impl Counts {
    fn add(&mut self, kind: Kind, now: Instant) -> Noted {
        let kind = if self.0.len() < MOST_KINDS || self.0.contains_key(&kind) {
            kind
        } else {
            ("others".to_owned(), "failed", "-".to_owned())
        };
        let Some(count) = self.0.get_mut(&kind) else {
            self.0.insert(kind, Count { rows: 0, since: now });
            return Noted::First;
        };
        count.rows += 1;
        if now.duration_since(count.since) < WINDOW {
            return Noted::Counted;
        }
        count.since = now;
        Noted::Due(kind, std::mem::take(&mut count.rows))
    }

    /// Those that no line has told.
    fn take(&mut self) -> Vec<(Kind, u64)> {
        let counted = std::mem::take(&mut self.0).into_iter().map(|(kind, count)| (kind, count.rows));
        counted.filter(|(_, rows)| *rows > 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_kind_are_counted() {
        let kind = |table: &str| (table.to_owned(), "purged", "-".to_owned());
        let (mut counts, begin) = (Counts::default(), Instant::now());
        assert_eq!(counts.add(kind("a"), begin), Noted::First);
        for _ in 0..40_000 {
            assert_eq!(counts.add(kind("a"), begin), Noted::Counted);
        }
        assert_eq!(counts.add(kind("b"), begin), Noted::First);
        assert_eq!(counts.add(kind("a"), begin + WINDOW), Noted::Due(kind("a"), 40_001));
        assert_eq!(counts.add(kind("a"), begin + WINDOW), Noted::Counted);
        assert_eq!(counts.take(), [(kind("a"), 1)]);
        assert_eq!(counts.take(), []);
    }

    #[test]
    fn rows_that_are_not_in_the_file_are_said_at_the_end() {
        let log = FailedLog::new(Some(Path::new("d.nd")));
        let all = log.place(Kept::All);
        assert_eq!(all, "they go to d.nd; write them again with `batchsql dead-letters replay`");
        let missing = log.place(Kept::AllBut(160));
        assert!(missing.starts_with(&all) && missing.contains("but 160 of all rows"), "{missing}");
        assert!(log.place(Kept::Unknown).contains("some may be missing"));
        for kept in [Kept::All, Kept::Unknown] {
            assert_eq!(FailedLog::new(None).place(kept), "they are lost, as there is no [dead_letters] file");
        }
    }

    #[test]
    fn kinds_are_bounded() {
        let (mut counts, now) = (Counts::default(), Instant::now());
        for number in 0..1000 {
            counts.add((format!("t{number}"), "rejected", "-".to_owned()), now);
        }
        assert_eq!(counts.0.len(), MOST_KINDS + 1);
        let rest = (("others".to_owned(), "failed", "-".to_owned()), 1000 - MOST_KINDS as u64 - 1);
        assert_eq!(counts.take(), [rest]);
    }
}
