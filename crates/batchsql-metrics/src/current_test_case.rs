//! Owns the test case that is running.
//! Must not know metrics or pipelines.

use std::sync::{Arc, PoisonError, RwLock};

/// The test case that is running, shared by a facade and its reporters.
#[derive(Default)]
pub(crate) struct CurrentTestCase(RwLock<Option<Arc<str>>>);

impl CurrentTestCase {
    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    #[cfg(feature = "test-metrics")]
    pub(crate) fn set(&self, test_case: Option<&str>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = test_case.map(Arc::from);
    }
}
