//! Owns what became of the lines of a request so far.
//! Must not know how rows are submitted.

use batchsql::{OutcomeCounts, OutcomeKind};
use serde::Serialize;

/// A line that was not accepted, or whose row was not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Rejection {
    /// The number of the line, or of the element of an array, from 1.
    pub(crate) line: u64,
    /// `refused`: it was not accepted. Otherwise the outcome of its row.
    pub(crate) outcome: &'static str,
    /// Without values.
    pub(crate) reason: String,
}

/// The lines up to `lines`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    /// Every line up to this one was accepted, refused or empty.
    pub(crate) lines: u64,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    /// With `wait=written`: the outcomes of accepted rows.
    pub(crate) outcomes: OutcomeCounts,
    pub(crate) rejections: Vec<Rejection>,
    /// Rejections that are not in the list.
    pub(crate) left_out: u64,
}

impl Progress {
    /// The line was accepted.
    pub(crate) fn accept(&mut self, line: u64) {
        self.lines = line;
        self.accepted += 1;
    }

    /// The line is no row of the table.
    pub(crate) fn refuse(&mut self, line: u64, reason: String, most: usize) {
        self.lines = line;
        self.refused += 1;
        self.reject(Rejection { line, outcome: "refused", reason }, most);
    }

    /// The row of an accepted line has its outcome.
    pub(crate) fn end(&mut self, kind: OutcomeKind, rejection: Option<Rejection>, most: usize) {
        self.outcomes.add(kind, 1);
        if let Some(rejection) = rejection {
            self.reject(rejection, most);
        }
    }

    fn reject(&mut self, rejection: Rejection, most: usize) {
        if self.rejections.len() < most {
            self.rejections.push(rejection);
        } else {
            self.left_out += 1;
        }
    }

    /// What is kept for a repeat of the request.
    pub(crate) fn shortened(mut self, most: usize) -> Self {
        let left_out = self.rejections.len().saturating_sub(most);
        self.rejections.truncate(most);
        self.left_out += left_out as u64;
        self
    }
}
