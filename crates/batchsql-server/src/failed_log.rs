//! Owns the warnings about rows that were not written: one of each kind, then how many more there were.
//! Must not know where rows come from.

use std::path::{Path, PathBuf};

use batchsql::{Counted, Outcome, WarningCounts};

/// Table, outcome, and code of the error.
type Kind = (String, &'static str, String);

/// Says which rows were not written, without a line for each of 40,000 that fail for one reason.
#[derive(Debug)]
pub(crate) struct FailedLog {
    counts: WarningCounts<Kind>,
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
        let others = ("others".to_owned(), "failed", "-".to_owned());
        Self { counts: WarningCounts::new(others), letters: letters.map(Path::to_owned) }
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
        match self.counts.add(kind, 1) {
            Counted::First => tracing::warn!(%outcome, "a row was not written; more of this kind are counted"),
            Counted::Later => {}
            Counted::Due(kind, rows) => self.say(&kind, rows, Kept::All),
        }
    }

    /// Says how many rows were not written since the last line.
    pub(crate) fn end(&self, kept: Kept) {
        self.counts.take().iter().for_each(|(kind, rows)| self.say(kind, *rows, kept));
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
