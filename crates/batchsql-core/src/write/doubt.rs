//! Owns what a batch knows of an error that the table or one row may have caused, and when such a row is rejected.
//! Must not know rows, databases or how rows are written: callers pass numbers of writes.
//!
//! A code about the table or a permission, or an unknown code, may come from one value: from an input function or a
//! trigger. The code of a bad row may come from the table if more rows are refused than a search may try, and a source has the
//! rows still (`Executor::is_past_budget`). Rules (not for an error of `prepare`, which is always the table's):
//!
//! - A row is rejected when it is refused alone, and another write of its group began after the error and was
//!   committed. One commit allows [`SAMPLES`] rejections in a batch: the table may break during the search for bad
//!   rows.
//! - Without such a commit up to [`SAMPLES`] rows are tried alone, none before an earlier row with its key. If one is
//!   committed, the rest is searched as for an error of a row. If all are refused, the batch waits once, so that
//!   batches of other lanes can be committed; then its table is parked, and probed with single rows.

use crate::write::sample::SAMPLES;

/// An error of a batch that the table may have caused.
#[derive(Debug)]
pub(crate) struct Doubt {
    /// The commit that gave the credit; at first the last write that had begun when the error was seen.
    pub(crate) credited_for: u64,
    /// Rows that may be rejected before another commit.
    pub(crate) credit: usize,
    /// Whether rows were refused since the last commit of the batch.
    pub(crate) is_open: bool,
    /// Whether the batch has waited for other batches since.
    pub(crate) has_waited: bool,
    /// How often rows were tried alone without success.
    pub(crate) probes: usize,
    /// Whether it is given up if the next rows are refused, because the pipeline drains.
    pub(crate) is_last_try: bool,
    /// The same, because the time of its rows is over.
    pub(crate) is_over: bool,
}

impl Doubt {
    pub(crate) fn new(begun: u64) -> Self {
        let (has_waited, is_last_try) = (false, false);
        Self { credited_for: begun, credit: 0, is_open: true, has_waited, probes: 0, is_last_try, is_over: false }
    }

    /// Other rows are tried from now on: what was decided without them does not count.
    pub(crate) fn begins_anew(&mut self) {
        (self.has_waited, self.is_last_try) = (false, false);
    }

    /// Whether the rows are at fault if they are refused; `committed` was the last commit before they were sent.
    pub(crate) fn is_proven(&mut self, committed: u64) -> bool {
        if committed > self.credited_for {
            (self.credited_for, self.credit) = (committed, SAMPLES);
            self.has_waited = false;
        }
        self.credit > 0
    }
}
