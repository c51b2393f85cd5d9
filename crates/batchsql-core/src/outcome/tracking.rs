//! Owns whether a row is tracked, and the spans of the callers that submitted the tracked rows of a batch.
//! Must not know receipts, or how batches are written.

use tracing::span::Id;
use tracing::{Level, Span};

/// The target of the spans of this crate, for filters such as `batchsql=debug`.
pub(crate) const TARGET: &str = "batchsql";

/// Submitters that a batch is linked to, at most.
const MAX_SUBMITTERS: usize = 32;

/// Whether a row has a receipt.
pub(crate) enum Tracking {
    Untracked,
    /// With the span in which it was submitted.
    Tracked(Option<Id>),
}

impl Tracking {
    /// Of a row that is submitted now. The span is asked for only if spans of batches are collected.
    pub(crate) fn tracked() -> Self {
        let is_collected = tracing::span_enabled!(target: TARGET, Level::DEBUG);
        Self::Tracked(if is_collected { Span::current().id() } else { None })
    }
}

/// The spans in which rows of a batch were submitted: the first ones, each once. Their ids do not keep the spans open: a
/// subscriber ignores a link to a span that has ended, as the registry of `tracing-subscriber` does.
#[derive(Default)]
pub(crate) struct Submitters(Vec<Id>);

impl Submitters {
    pub(crate) fn add(&mut self, span: &Id) {
        if self.0.len() < MAX_SUBMITTERS && !self.0.contains(span) {
            self.0.push(span.clone());
        }
    }

    /// Adds those of a batch that was sealed later.
    pub(crate) fn absorb(&mut self, others: &Self) {
        others.0.iter().for_each(|span| self.add(span));
    }

    /// Links the span of the batch to them.
    pub(crate) fn link(&self, batch: &Span) {
        for span in &self.0 {
            batch.follows_from(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(submitters: &Submitters) -> Vec<u64> {
        submitters.0.iter().map(Id::into_u64).collect()
    }

    #[test]
    fn each_submitter_is_kept_once_and_not_more_than_the_limit() {
        let (mut first, mut second) = (Submitters::default(), Submitters::default());
        for id in [1, 2, 1, 2] {
            first.add(&Id::from_u64(id));
        }
        assert_eq!(ids(&first), [1, 2]);
        (2..100).for_each(|id| second.add(&Id::from_u64(id)));
        assert_eq!(ids(&second), (2..34).collect::<Vec<_>>());
        first.absorb(&second);
        assert_eq!(ids(&first), (1..33).collect::<Vec<_>>());
    }
}
