//! Owns the log line about rows of a batch that were not written: how many, with which outcomes, for which reasons.
//! Must not know how rows end.

use std::fmt;

use crate::error::SinkError;
use crate::outcome::outcomes::{OutcomeCounts, OutcomeKind};

/// The most different reasons in one line.
const MAX_REASONS: usize = 3;

/// The most further codes in one line.
const MAX_CODES: usize = 10;

/// The reasons for which rows of a batch failed.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    reasons: Vec<SinkError>,
    /// The codes of other errors, or their classes.
    others: Vec<String>,
    is_told: bool,
}

impl FailureLog {
    /// A row failed for this reason.
    pub(crate) fn note(&mut self, error: &SinkError) {
        let is_same = |other: &SinkError| other.class() == error.class() && other.code() == error.code();
        if self.reasons.iter().any(is_same) {
            return;
        }
        match self.reasons.len() < MAX_REASONS {
            true => self.reasons.push(error.clone()),
            false => {
                let code = error.code().map_or_else(|| error.class().to_string(), str::to_owned);
                if self.others.len() < MAX_CODES && !self.others.contains(&code) {
                    self.others.push(code);
                }
            }
        }
    }

    /// The rows are logged elsewhere, together with others.
    pub(crate) fn suppress(&mut self) {
        self.is_told = true;
    }

    /// Writes the line for rows of `table`.
    pub(crate) fn write(&self, table: &str, counts: &OutcomeCounts) {
        if self.is_told || counts.failed() == 0 {
            return;
        }
        let (rows, batch_rows) = (counts.failed(), counts.total());
        let outcomes = Failed(counts);
        match self.reasons.is_empty() {
            true => tracing::error!(table, rows, batch_rows, %outcomes, "rows were not written"),
            false => {
                tracing::error!(table, rows, batch_rows, %outcomes, errors = %Reasons(self), "rows were not written")
            }
        }
    }
}

/// The outcomes of failed rows, for example `2 rejected, 1 unknown`.
struct Failed<'a>(&'a OutcomeCounts);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use OutcomeKind::{Expired, Purged, Rejected, Unknown};
        let kinds = [Rejected, Expired, Purged, Unknown].into_iter().filter(|kind| self.0.get(*kind) > 0);
        for (place, kind) in kinds.enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            write!(f, "{separator}{} {kind}", self.0.get(kind))?;
        }
        Ok(())
    }
}

struct Reasons<'a>(&'a FailureLog);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, error) in self.0.reasons.iter().enumerate() {
            let separator = if place == 0 { "" } else { "; " };
            write!(f, "{separator}{error}")?;
        }
        if !self.0.others.is_empty() {
            write!(f, "; and codes {}", self.0.others.join(", "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;

    #[test]
    fn each_reason_is_named_once() {
        let mut log = FailureLog::default();
        for code in [1, 2, 1, 3, 4, 5, 4] {
            log.note(&SinkError::with_code(ErrorClass::Row, code, format!("bad {code}")));
        }
        let text = Reasons(&log).to_string();
        assert_eq!(
            text,
            "bad 1 (row error, code 1); bad 2 (row error, code 2); bad 3 (row error, code 3); and codes 4, 5"
        );
    }

    #[test]
    fn only_failed_rows_are_counted() {
        let mut counts = OutcomeCounts::default();
        counts.add(OutcomeKind::Written, 65);
        counts.add(OutcomeKind::Unknown, 1);
        counts.add(OutcomeKind::Rejected, 2);
        assert_eq!(Failed(&counts).to_string(), "2 rejected, 1 unknown");
    }
}
