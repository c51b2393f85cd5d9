//! Owns what a batch knows of an error that may be its table's or one row's, and when such a row is rejected.
//! Must not know rows, databases or how rows are written: it is told numbers of writes.
//!
//! A code that speaks of the table, of a right, or that nobody knows may come from one value: of an input function, of a
//! trigger. Rules (an error of `prepare` is not meant, it is the table's):
//!
//! - A row is rejected when it is refused alone, and another write of its group began after the error and was
//!   committed. One commit allows [`SAMPLES`] rejections in a batch: the table may break while bad rows are searched.
//! - Without such a commit up to [`SAMPLES`] rows are tried alone, none before an earlier row with its key. If one is
//!   committed, the rest is searched as for an error of a row. If all are refused, the batch waits once, for batches of
//!   other lanes to be committed; then its table is parked, and probed with single rows.

use crate::write::sample::SAMPLES;

/// An error of a batch that may be its table's.
#[derive(Debug)]
pub(crate) struct Doubt {
    /// The commit that gave the credit; at first the last write that had begun when the error was seen.
    pub(crate) credited_for: u64,
    /// Rows that may be rejected before another commit.
    pub(crate) credit: usize,
    /// Whether rows were refused since the last commit of the batch.
    pub(crate) is_open: bool,
    /// Whether the batch has waited for others since.
    pub(crate) has_waited: bool,
    /// Times that rows were tried alone in vain.
    pub(crate) probes: usize,
    /// Whether it is given up if the next rows are refused.
    pub(crate) is_last_try: bool,
}

impl Doubt {
    pub(crate) fn new(begun: u64) -> Self {
        let (has_waited, is_last_try) = (false, false);
        Self { credited_for: begun, credit: 0, is_open: true, has_waited, probes: 0, is_last_try }
    }

    /// Whether the rows are at fault when they are refused, where `committed` was the last commit before they were sent.
    pub(crate) fn is_proven(&mut self, committed: u64) -> bool {
        if committed > self.credited_for {
            (self.credited_for, self.credit) = (committed, SAMPLES);
            self.has_waited = false;
        }
        self.credit > 0
    }
}
