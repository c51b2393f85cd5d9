//! Owns the `tracing` spans of batches and attempts: names, fields, and what is recorded when they end.
//! Must not know how a batch is written. No field has the value of a row.
//!
//! A batch has one span for each time it is written: again after a rest, without the rest itself. Its children are the
//! attempts. Where nobody collects them, both are `None` and cost nothing but a check.

use tracing::field::Empty;
use tracing::{Span, debug_span};

use crate::error::SinkError;
use crate::outcome::outcomes::OutcomeKind;
use crate::outcome::tracking::TARGET;
use crate::write::job::Job;
use crate::write::sink::Written;

/// The span of a batch that is about to be written, linked to the callers that submitted its tracked rows.
pub(crate) fn batch(database: &'static str, job: &Job) -> Span {
    let span = debug_span!(
        target: TARGET,
        parent: None,
        "batchsql.batch",
        database,
        table = job.batch.schema().table_display(),
        rows = number(job.batch.len() as u64),
        attempt = number(u64::from(job.progress.attempts) + 1),
        result = Empty,
        error = Empty,
        written = Empty,
        ignored = Empty,
        superseded = Empty,
        rejected = Empty,
        expired = Empty,
        purged = Empty,
        unknown = Empty,
    );
    if !span.is_disabled() {
        job.submitters().link(&span);
    }
    span
}

/// Records what became of the batch, and the outcomes that its rows have by now.
pub(crate) fn batch_ended(span: &Span, result: &'static str, error: Option<&SinkError>, job: &Job) {
    if span.is_disabled() {
        return;
    }
    span.record("result", result);
    if let Some(error) = error {
        span.record("error", error.class().name());
    }
    let counts = job.counts();
    for kind in OutcomeKind::ALL.into_iter().filter(|kind| counts.get(*kind) > 0) {
        span.record(kind.name(), number(counts.get(kind)));
    }
}

/// The span of one attempt to write rows, a child of that of its batch.
pub(crate) fn attempt(rows: usize, attempt: u32) -> Span {
    debug_span!(
        target: TARGET,
        "batchsql.attempt",
        rows = number(rows as u64),
        attempt = number(u64::from(attempt)),
        error = Empty,
        ignored = Empty,
        rejected = Empty,
        unfinished = Empty,
    )
}

/// Records how an attempt ended.
pub(crate) fn attempt_ended(span: &Span, result: &Result<Written, SinkError>) {
    if span.is_disabled() {
        return;
    }
    match result {
        Err(error) => drop(span.record("error", error.class().name())),
        Ok(Written { ignored, rejected, unfinished, .. }) => {
            let counts = [("ignored", ignored.len()), ("rejected", rejected.len()), ("unfinished", unfinished.len())];
            for (name, rows) in counts.into_iter().filter(|(_, rows)| *rows > 0) {
                span.record(name, number(rows as u64));
            }
        }
    }
}

/// OpenTelemetry has no unsigned numbers: they would become texts.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
