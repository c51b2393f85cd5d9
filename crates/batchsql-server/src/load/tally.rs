//! Owns what a load has done so far: rows by outcome, and records that were not written.
//! Must not know how rows are written.

use std::sync::{Mutex, PoisonError};

use batchsql::{OutcomeCounts, OutcomeKind};

use crate::exit::Failure;
use crate::load::rejects::Rejects;

/// What was done, and what may be. The writers of all partitions share it.
pub(crate) struct Tally {
    /// The lock is held while rejected records are stored.
    rejects: Mutex<Rejects>,
    /// More rejected records end the load: a wrong column would reject all of them.
    most_rejects: u64,
    counts: Mutex<OutcomeCounts>,
}

impl Tally {
    pub(crate) fn new(rejects: Rejects, most_rejects: u64) -> Self {
        Self { rejects: Mutex::new(rejects), most_rejects, counts: Mutex::default() }
    }

    /// Rows of this run that have ended.
    pub(crate) fn add(&self, kind: OutcomeKind, rows: u64) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).add(kind, rows);
    }

    /// Rows of this run, by outcome.
    pub(crate) fn counts(&self) -> OutcomeCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rejected records, those of earlier runs included.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejects.lock().unwrap_or_else(PoisonError::into_inner).count
    }

    /// Looks whether records that are rejected later could be stored.
    ///
    /// # Errors
    /// They could not.
    pub(crate) fn probe(&self) -> Result<(), Failure> {
        self.rejects.lock().unwrap_or_else(PoisonError::into_inner).probe().map_err(|error| not_stored(&error))
    }

    /// Records that were not written: line, record, reason, text.
    ///
    /// # Errors
    /// The file cannot be written, or there are too many.
    pub(crate) fn reject(&self, records: &[(u64, u64, String, String)]) -> Result<(), Failure> {
        let mut rejects = self.rejects.lock().unwrap_or_else(PoisonError::into_inner);
        rejects.add(records).map_err(|error| not_stored(&error))?;
        let count = rejects.count;
        drop(rejects);
        if count <= self.most_rejects {
            return Ok(());
        }
        let last = records.last().map(|(line, _, reason, _)| format!("line {line}: {reason}")).unwrap_or_default();
        Err(Failure::failed(format!(
            "{count} records were rejected, which is more than {} (`batchsql load` has --max-rejects); the last one: {last}",
            self.most_rejects
        )))
    }
}

fn not_stored(error: &std::io::Error) -> Failure {
    Failure::of_file_beside(format!("the file of rejected records cannot be written: {error}"))
}
