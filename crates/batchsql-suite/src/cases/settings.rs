//! Owns the settings with which a case runs.
//! Must not know cases or the command line.

use std::collections::BTreeMap;

use batchsql::PipelineConfig;

/// How a case runs with the given options.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The pipeline's settings.
    pub pipeline: PipelineConfig,
    /// Tasks that submit at the same time.
    pub workers: usize,
    /// Rows that each of them submits.
    pub rows_per_worker: usize,
    /// The bound of the process's memory, where the case checks one.
    pub memory_bound: Option<MemoryBound>,
    /// Parameters for the report in addition to the options.
    pub parameters: BTreeMap<String, String>,
}

/// How much memory a case may use beyond what the process had at its start.
#[derive(Debug, Clone)]
pub struct MemoryBound {
    /// Bytes.
    pub bytes: u64,
    /// How the bound is computed.
    pub note: String,
}

impl Settings {
    /// Rows over all workers.
    pub fn rows(&self) -> usize {
        self.workers.saturating_mul(self.rows_per_worker)
    }

    pub(super) fn note(&mut self, name: &str, value: impl ToString) {
        self.parameters.insert(name.to_owned(), value.to_string());
    }
}
