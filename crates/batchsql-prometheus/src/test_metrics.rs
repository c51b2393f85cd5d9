//! Owns what tests record about themselves, as [`Metrics`](batchsql_metrics::Metrics) does.
//! Must not know HTTP.

use batchsql_metrics::{MemoryUsage, TestResult};

use crate::metrics::PrometheusMetrics;

/// With the feature `test-metrics`.
impl PrometheusMetrics {
    /// Sets the `test_case` label of every batch sealed from now on, see
    /// [`Metrics::set_current_test_case`](batchsql_metrics::Metrics::set_current_test_case).
    pub fn set_current_test_case(&self, test_case: &str) {
        self.metrics.set_current_test_case(test_case);
    }

    /// Removes the `test_case` label from batches sealed from now on.
    pub fn clear_current_test_case(&self) {
        self.metrics.clear_current_test_case();
    }

    /// Records how a test ended, see [`Metrics::record_test_result`](batchsql_metrics::Metrics::record_test_result).
    pub fn record_test_result(&self, database: &str, test_case: &str, result: &TestResult) {
        self.metrics.record_test_result(database, test_case, result);
    }

    /// Records the rate in rows per second and the memory in MiB of a running test.
    pub fn record_real_time_metrics(&self, database: &str, test_case: &str, rps: f64, memory_mb: f64) {
        self.metrics.record_real_time_metrics(database, test_case, rps, memory_mb);
    }

    /// Records the memory of the process during a test, see
    /// [`Metrics::record_memory`](batchsql_metrics::Metrics::record_memory).
    pub fn record_memory(&self, database: &str, test_case: &str, usage: &MemoryUsage) {
        self.metrics.record_memory(database, test_case, usage);
    }
}
