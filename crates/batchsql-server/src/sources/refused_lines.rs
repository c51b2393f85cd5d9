//! Owns the warnings about lines of standard input that are no rows: the first one for each reason, then how many more there were.
//! Must not know what a row is.

use batchsql::{Counted, WarningCounts};

/// The most characters of a reason by which it is told from others.
const LONGEST_REASON: usize = 200;

/// The number of those that were not said is said when it is dropped.
#[derive(Debug)]
pub(super) struct RefusedLines<'a> {
    source: &'a str,
    /// By their reasons.
    counts: WarningCounts<String>,
}

impl<'a> RefusedLines<'a> {
    pub(super) fn new(source: &'a str) -> Self {
        Self { source, counts: WarningCounts::new("other reasons".to_owned()) }
    }

    /// A line with this number, if it is known, was refused.
    pub(super) fn add(&self, line: Option<u64>, reason: &str) {
        match self.counts.add(reason.chars().take(LONGEST_REASON).collect(), 1) {
            Counted::First => tracing::warn!(
                source = self.source,
                line,
                reason,
                "a line is not a valid row; it is left out; more for this reason are counted"
            ),
            Counted::Later => {}
            Counted::Due(reason, lines) => self.say(&reason, lines),
        }
    }

    /// Says how many were not said yet.
    pub(super) fn end(&self) {
        self.counts.take().iter().for_each(|(reason, lines)| self.say(reason, *lines));
    }

    fn say(&self, reason: &str, lines: u64) {
        tracing::warn!(source = self.source, lines, reason, "more lines were not valid rows; they are left out");
    }
}

impl Drop for RefusedLines<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
