//! Owns what a load has done so far: rows by outcome, and records that were not written.
//! Must not know how rows are written.

use batchsql::OutcomeCounts;

use crate::exit::Failure;
use crate::load::rejects::Rejects;

/// What was done, and what may be.
pub(crate) struct Tally {
    pub(crate) rejects: Rejects,
    /// More rejected records end the load: a wrong column would reject all of them.
    pub(crate) most_rejects: u64,
    pub(crate) counts: OutcomeCounts,
}

impl Tally {
    /// Records that were not written: line, record, reason, text.
    ///
    /// # Errors
    /// The file cannot be written, or there are too many.
    pub(crate) fn reject(&mut self, records: &[(u64, u64, String, String)]) -> Result<(), Failure> {
        let failed = |error| Failure::unavailable(format!("the file of rejected records cannot be written: {error}"));
        self.rejects.add(records).map_err(failed)?;
        if self.rejects.count <= self.most_rejects {
            return Ok(());
        }
        let count = self.rejects.count;
        let last = records.last().map(|(line, _, reason, _)| format!("line {line}: {reason}")).unwrap_or_default();
        Err(Failure::failed(format!(
            "{count} records were rejected, which is more than {} (`batchsql load` has --max-rejects); the last one: {last}",
            self.most_rejects
        )))
    }
}
