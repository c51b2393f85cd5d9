//! The data of a report: what was run, where, and the results, with units in names or docs.
//! Must not know any output format, and never holds a DSN, a password or a row value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::number::nan_when_null;
use batchsql::metrics::TestResult;

/// One run of the suite.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// When the report was made, RFC 3339 in UTC.
    pub generated_at: String,
    /// The settings of the run.
    pub config: RunConfig,
    /// Where it ran.
    pub environment: Environment,
    /// The run in a few figures; see [`Summary::of`].
    pub summary: Summary,
    /// One entry per case and database, in the order they ran.
    pub results: Vec<CaseResult>,
}

/// The settings of the run. Never a DSN, which may hold a password.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunConfig {
    /// Databases by name.
    pub databases: Vec<String>,
    /// Cases by name.
    pub cases: Vec<String>,
    /// Time limit for the writes of a case, in seconds.
    pub duration_seconds: f64,
    /// Tasks that submit at the same time.
    pub workers: usize,
    /// Rows that one worker submits in a counted case.
    pub records_per_worker: usize,
    /// Rows that make a batch due.
    pub batch_size: usize,
    /// Rows that may wait in the pipeline before `submit` waits.
    pub buffer_size: usize,
    /// Age that makes a batch due, in milliseconds.
    pub flush_interval_ms: f64,
    /// Port on which the metrics were served.
    pub metrics_port: u16,
}

/// Where the run took place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// Version of BatchSQL under test.
    pub batchsql_version: String,
    /// Compiler that built the suite, if known.
    pub rust_version: Option<String>,
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
    /// Processors that the process may use.
    pub cpus: usize,
    /// Memory of the machine, in bytes, if known.
    pub memory_total_bytes: Option<u64>,
    /// Databases that were reached.
    pub databases: Vec<DatabaseInfo>,
}

/// A database that was reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseInfo {
    /// Its name as in [`RunConfig::databases`].
    pub name: String,
    /// Its version, as the database reports it.
    pub version: String,
    /// Kind of location ("in memory", "file", "server"); never a path or a DSN.
    pub location: String,
}

/// The run in a few figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Cases in the report.
    pub total: usize,
    /// Cases that met their expectations.
    pub passed: usize,
    /// Cases that did not.
    pub failed: usize,
    /// Cases that did not run.
    pub skipped: usize,
    /// Rows submitted by all cases.
    pub records: u64,
    /// Wall-clock time of the run, in seconds.
    pub duration_seconds: f64,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
    /// Whether the run counts as passed.
    pub success: bool,
}

impl Summary {
    /// Counts `results`. A run succeeds if at least one case passed, none failed and it was not
    /// interrupted. A run in which every case was skipped does not succeed.
    pub fn of(results: &[CaseResult], duration_seconds: f64, interrupted: bool) -> Self {
        let with = |status| results.iter().filter(|case| case.status() == status).count();
        let (passed, failed, skipped) = (with(Status::Passed), with(Status::Failed), with(Status::Skipped));
        Self {
            total: results.len(),
            passed,
            failed,
            skipped,
            records: results.iter().map(|case| case.result.total_records).sum(),
            duration_seconds,
            interrupted,
            success: passed > 0 && failed == 0 && !interrupted,
        }
    }
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It met its expectations.
    Passed,
    /// It did not.
    Failed,
    /// It did not run.
    Skipped,
}

impl Status {
    /// The word for output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

/// The result of one case on one database, with everything needed to understand it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CaseResult {
    /// The required fields; in JSON they are on the same level as the others.
    #[serde(flatten)]
    pub result: TestResult,
    /// What the case does and expects, in one or two sentences.
    pub description: String,
    /// The comparison of submitted and found rows.
    pub integrity: Integrity,
    /// Time of one batch write; `None` if no batch was written.
    pub batch_latency: Option<Latency>,
    /// Time from submit to outcome of a tracked sample of rows; `None` if no row was tracked.
    pub row_latency: Option<Latency>,
    /// Memory of the process during the case.
    pub memory: MemorySummary,
    /// Rows by outcome (`accepted`, `written`, `ignored`, ...).
    pub balance: BTreeMap<String, u64>,
    /// Batches written.
    pub batches: u64,
    /// Figures over time, oldest first.
    pub series: Vec<Sample>,
    /// Whether the case did not run; `errors` then says why.
    pub skipped: bool,
    /// Settings of this case that are not in [`RunConfig`] or differ from it.
    pub parameters: BTreeMap<String, String>,
}

impl CaseResult {
    /// How the case ended. `skipped` takes precedence over `success`.
    pub fn status(&self) -> Status {
        match (self.skipped, self.result.success) {
            (true, _) => Status::Skipped,
            (false, true) => Status::Passed,
            (false, false) => Status::Failed,
        }
    }
}

/// The comparison of submitted and found rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Integrity {
    /// Rows that should be in the database.
    pub expected_rows: u64,
    /// Rows that are.
    pub actual_rows: u64,
    /// Checksum over the rows that should be there; empty when the case has none.
    pub expected_checksum: String,
    /// Checksum over the rows that are.
    pub actual_checksum: String,
    /// Whether both agree.
    pub matches: bool,
}

/// A distribution of times, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 90th percentile, in milliseconds.
    pub p90_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
    /// 99.9th percentile, in milliseconds.
    pub p999_ms: f64,
    /// Longest, in milliseconds.
    pub max_ms: f64,
    /// Times measured.
    pub samples: u64,
}

/// Memory of the process during a case, in megabytes (10^6 bytes).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MemorySummary {
    /// Before the first row, in MB.
    pub start_mb: f64,
    /// Highest, in MB.
    pub peak_mb: f64,
    /// After the last row, in MB.
    pub end_mb: f64,
    /// Upper bound of the peak, in MB; `None` if the case does not check it.
    pub bound_mb: Option<f64>,
    /// How the bound is computed.
    pub bound_note: Option<String>,
}

/// One moment of a case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Time since the case began, in seconds.
    pub at_seconds: f64,
    /// Rows written per second since the previous sample.
    #[serde(deserialize_with = "nan_when_null")]
    pub records_per_second: f64,
    /// Median batch write since the previous sample, in milliseconds; `None` without a batch.
    pub batch_latency_p50_ms: Option<f64>,
    /// 99th percentile of the same, in milliseconds.
    pub batch_latency_p99_ms: Option<f64>,
    /// Memory of the process, in MB.
    pub memory_mb: f64,
    /// Rows waiting in the pipeline.
    pub buffer_records: u64,
    /// Capacity of the buffer in rows.
    pub buffer_limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(success: bool, skipped: bool) -> CaseResult {
        CaseResult {
            result: TestResult { success, total_records: 10, ..Default::default() },
            skipped,
            ..Default::default()
        }
    }

    #[test]
    fn a_summary_counts_and_judges() {
        let (pass, fail, skip) = (case(true, false), case(false, false), case(true, true));
        for (results, interrupted, counts, success) in [
            (vec![pass.clone(), pass.clone()], false, (2, 0, 0), true),
            (vec![pass.clone(), fail.clone()], false, (1, 1, 0), false),
            (vec![pass.clone(), skip.clone()], false, (1, 0, 1), true),
            (vec![pass.clone()], true, (1, 0, 0), false),
            (vec![skip.clone()], false, (0, 0, 1), false),
            (vec![], false, (0, 0, 0), false),
        ] {
            let summary = Summary::of(&results, 1.0, interrupted);
            assert_eq!((summary.passed, summary.failed, summary.skipped), counts);
            assert_eq!(summary.total, results.len());
            assert_eq!(summary.records, 10 * results.len() as u64);
            assert_eq!(summary.success, success, "{counts:?} interrupted: {interrupted}");
        }
    }
}
