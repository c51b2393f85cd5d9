//! Owns the observers of a pipeline, and what happens when one of them panics.
//! Must not know events.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::reporter::MetricsReporter;

/// The reporters of a pipeline. Their panics are caught, so that they never affect rows or each other.
#[derive(Clone)]
pub(crate) struct GuardedReporter(Arc<[Arc<dyn MetricsReporter>]>);

/// What a reporter returns.
pub(crate) trait Answer: Default {
    /// Whether it is an answer, so that the other reporters need not be asked.
    fn is_given(&self) -> bool;
}

impl Answer for () {
    fn is_given(&self) -> bool {
        false
    }
}

impl<T> Answer for Option<T> {
    fn is_given(&self) -> bool {
        self.is_some()
    }
}

impl GuardedReporter {
    pub(crate) fn new(reporters: Vec<Arc<dyn MetricsReporter>>) -> Self {
        Self(reporters.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Calls every reporter, up to the first that gives an answer.
    pub(crate) fn call<T: Answer>(&self, event: impl Fn(&dyn MetricsReporter) -> T) -> T {
        for reporter in &*self.0 {
            match catch_unwind(AssertUnwindSafe(|| event(&**reporter))) {
                Ok(answer) if answer.is_given() => return answer,
                Ok(_) => {}
                Err(_) => {
                    tracing::error!("a metrics reporter panicked; it lost the event, rows are not affected");
                }
            }
        }
        T::default()
    }
}
