//! Owns the metrics that a test records about itself, and the test case that batches belong to.
//! Must not know pipelines or recorders.

use std::time::SystemTime;

use metrics::SharedString;

use crate::catalogue::Metric;
use crate::facade::Metrics;
use crate::test_result::{MemoryUsage, TestResult};
use crate::unix_time::unix_seconds;

/// Bytes in the unit of `batchsql_memory_usage_mb`.
const MIB: f64 = 1_048_576.0;

/// With the feature `test-metrics`.
impl Metrics {
    /// Sets the `test_case` label of every batch sealed from now on; an empty name clears it.
    /// Tests that run at the same time use [`Reporter::test_case`](crate::Reporter::test_case) instead.
    pub fn set_current_test_case(&self, test_case: &str) {
        self.current.set(Some(test_case).filter(|case| !case.is_empty()));
    }

    /// Removes the `test_case` label from batches sealed from now on.
    pub fn clear_current_test_case(&self) {
        self.current.set(None);
    }

    /// Records how a test ended. Its rate is recorded only if `rps_valid` is true; otherwise the last
    /// live rate stays.
    ///
    /// Each test case adds series that stay until the process ends, so names must come from a limited
    /// set.
    pub fn record_test_result(&self, database: &str, test_case: &str, result: &TestResult) {
        let set = |metric, value: f64| self.emitter.gauge(metric, labels(database, test_case)).set(value);
        set(Metric::TestDuration, result.duration.as_secs_f64());
        if result.rps_valid {
            set(Metric::TestRps, result.records_per_second);
        }
        set(Metric::TestSuccess, f64::from(u8::from(result.success)));
        set(Metric::TestDataIntegrityRate, result.data_integrity_rate);
        self.typed(Metric::TestRecords, database, test_case, "submitted", result.total_records as f64);
        self.typed(Metric::TestRecords, database, test_case, "actual", result.actual_records as f64);
        set(Metric::TestLastCompletion, unix_seconds(SystemTime::now()));
    }

    /// Records the rate in rows per second and the memory in MiB of a running test.
    pub fn record_real_time_metrics(&self, database: &str, test_case: &str, rps: f64, memory_mb: f64) {
        self.emitter.gauge(Metric::TestRps, labels(database, test_case)).set(rps);
        self.typed(Metric::MemoryUsageMb, database, test_case, "current", memory_mb);
    }

    /// Records the memory of the process during a test, in MiB and in bytes. `None` records nothing.
    pub fn record_memory(&self, database: &str, test_case: &str, usage: &MemoryUsage) {
        for (kind, bytes) in usage.sizes() {
            self.typed(Metric::MemoryUsageMb, database, test_case, kind, bytes as f64 / MIB);
            self.typed(Metric::MemoryUsageBytes, database, test_case, kind, bytes as f64);
        }
        if let Some(sweeps) = usage.gc_count {
            self.emitter.gauge(Metric::GcCount, labels(database, test_case)).set(sweeps as f64);
        }
    }

    fn typed(&self, metric: Metric, database: &str, test_case: &str, kind: &'static str, value: f64) {
        let [database, test_case] = labels(database, test_case);
        self.emitter.gauge(metric, [database, test_case, Some(SharedString::const_str(kind))]).set(value);
    }
}

fn labels(database: &str, test_case: &str) -> [Option<SharedString>; 2] {
    [database, test_case].map(|value| Some(value.to_owned().into()))
}
