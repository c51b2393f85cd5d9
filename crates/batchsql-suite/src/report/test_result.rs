//! The result of one case as the metrics reporter takes it: the fields required by the specification.
//! Must not know the rest of the report; stands in for `batchsql_metrics::TestResult`.

use serde::{Deserialize, Serialize};

use super::number::nan_when_null;

/// What one case on one database came to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// The database, as named on the command line (`sqlite`, `postgres`).
    pub database: String,
    /// The case, in snake case (`high_throughput`).
    pub test_name: String,
    /// How long the case wrote, in seconds, without its setup and checks.
    pub duration: f64,
    /// Rows submitted.
    pub total_records: u64,
    /// Rows found in the database afterwards.
    pub actual_records: u64,
    /// Share of the expected rows found intact, in percent: 0 to 100.
    #[serde(deserialize_with = "nan_when_null")]
    pub data_integrity_rate: f64,
    /// Rows written per second over `duration`.
    #[serde(deserialize_with = "nan_when_null")]
    pub records_per_second: f64,
    /// Whether `records_per_second` may be compared with other runs.
    pub rps_valid: bool,
    /// Why the rate may not be compared.
    pub rps_note: Option<String>,
    /// Tasks that submitted at the same time.
    pub concurrent_workers: usize,
    /// What went wrong, one message each. No row values, no passwords.
    pub errors: Vec<String>,
    /// Whether the case met all its expectations.
    pub success: bool,
}
