//! Owns what drivers remember of an idle connection that did not answer: the others of its pool may be dead too.
//! Must not know pools.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the idle connections of a pool are doubted. Clones share it.
///
/// A network can lose all connections of a pool without a sign. Each of them is then only found by a check that gets no answer
/// in time. After the first one the driver closes all that are idle, and opens new ones.
#[doc(hidden)]
#[derive(Debug, Clone, Default)]
pub struct IdleDoubt(Arc<AtomicBool>);

/// A check of one connection. Unless it has passed, the idle connections are doubted.
#[doc(hidden)]
#[derive(Debug)]
#[must_use = "a check that is dropped has failed"]
pub struct IdleCheck {
    doubt: IdleDoubt,
    has_passed: bool,
}

impl IdleDoubt {
    /// Whether a check has failed since the last call.
    pub fn take(&self) -> bool {
        // Without a doubt, which is the rule, nothing is written.
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }

    /// Begins to check a connection.
    pub fn check(&self) -> IdleCheck {
        IdleCheck { doubt: self.clone(), has_passed: false }
    }
}

impl IdleCheck {
    /// The connection has answered.
    pub fn passed(mut self) {
        self.has_passed = true;
    }
}

/// Also when the check is given up, because the time for a connection is over.
impl Drop for IdleCheck {
    fn drop(&mut self) {
        if !self.has_passed {
            self.doubt.0.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_did_not_pass_is_told_once() {
        let doubt = IdleDoubt::default();
        doubt.check().passed();
        assert!(!doubt.take(), "nothing has failed");
        drop(doubt.clone().check());
        assert!(doubt.take());
        assert!(!doubt.take());
    }
}
