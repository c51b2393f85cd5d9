//! Owns the limits for labels whose values come from users.
//! Must not know metrics or pipelines.

/// Limits for the labels whose values come from you.
///
/// ```
/// use batchsql_metrics::MetricsOptions;
/// let options = MetricsOptions { max_tables: 50, ..Default::default() };
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsOptions {
    /// Tables per reporter with a `table` label of their own; default 1,000. All later tables share
    /// `table="other"`; with 0, all tables do.
    pub max_tables: usize,
    /// Test cases per table with a `test_case` label of their own in the metrics of batches; default
    /// 1,000. All later test cases share `test_case="other"`.
    pub max_test_cases: usize,
}

impl Default for MetricsOptions {
    fn default() -> Self {
        Self { max_tables: 1_000, max_test_cases: 1_000 }
    }
}
