//! Owns the result and the memory figures of a test run.
//! Must not know metric names or recorders.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The result of one test, for [`Metrics::record_test_result`](crate::Metrics::record_test_result)
/// and for reports.
///
/// ```
/// use batchsql_metrics::TestResult;
/// let result = TestResult { total_records: 100, actual_records: 100, success: true, ..Default::default() };
/// assert_eq!(serde_json::to_value(&result)?["total_records"], 100);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TestResult {
    /// The database, as in the metric label, for example `mysql`.
    pub database: String,
    /// The test case.
    pub test_name: String,
    /// Duration of the test; serialised as seconds.
    #[serde(with = "seconds")]
    pub duration: Duration,
    /// Rows submitted.
    pub total_records: u64,
    /// Rows found in the database.
    pub actual_records: u64,
    /// Share of the expected rows that are in the database, in percent from 0 to 100.
    pub data_integrity_rate: f64,
    /// Rows per second over the whole test.
    pub records_per_second: f64,
    /// Whether `records_per_second` is meaningful; false if the data is incorrect.
    pub rps_valid: bool,
    /// Why it is not, or a remark about it.
    pub rps_note: Option<String>,
    /// Tasks that submitted rows at the same time.
    pub concurrent_workers: usize,
    /// Error messages.
    pub errors: Vec<String>,
    /// Whether the test passed.
    pub success: bool,
}

/// Memory of the process at one moment. `None` means that the figure was not measured; it gets no
/// series.
///
/// ```
/// use batchsql_metrics::MemoryUsage;
/// let usage = MemoryUsage { current: Some(64 << 20), ..Default::default() };
/// # let _ = usage;
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryUsage {
    /// Bytes allocated and not freed.
    pub alloc: Option<u64>,
    /// Bytes allocated since the start, freed or not.
    pub total_alloc: Option<u64>,
    /// Bytes that the allocator holds from the operating system.
    pub sys: Option<u64>,
    /// Bytes of the process in physical memory.
    pub current: Option<u64>,
    /// Purge sweeps of the allocator since the start; Rust has no garbage collector.
    pub gc_count: Option<u64>,
}

impl MemoryUsage {
    /// The known sizes in bytes, with their name in the `type` label.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sizes =
            [("alloc", self.alloc), ("total_alloc", self.total_alloc), ("sys", self.sys), ("current", self.current)];
        sizes.into_iter().filter_map(|(name, bytes)| Some((name, bytes?)))
    }
}

/// A duration as a number of seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_json() {
        let result = TestResult {
            database: "mysql".to_owned(),
            test_name: "soak".to_owned(),
            duration: Duration::from_millis(1_500),
            total_records: 10,
            actual_records: 9,
            data_integrity_rate: 90.0,
            rps_note: Some("rows are missing".to_owned()),
            concurrent_workers: 4,
            errors: vec!["one row is missing".to_owned()],
            ..Default::default()
        };
        let json = serde_json::to_value(&result).unwrap();
        assert_eq!(json["duration"], 1.5);
        assert_eq!(json["rps_valid"], false);
        assert_eq!(serde_json::from_value::<TestResult>(json).unwrap(), result);
    }

    #[test]
    fn a_negative_duration_is_refused() {
        let error = serde_json::from_str::<TestResult>(r#"{"duration": -1.0}"#).unwrap_err();
        assert!(error.to_string().contains("negative"), "{error}");
    }
}
