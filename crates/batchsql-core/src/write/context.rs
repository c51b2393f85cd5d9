//! Owns what every part of one pipeline shares: the ledger, the observer, the batches that have not ended.
//! Must not know who uses it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::guarded_reporter::GuardedReporter;
use crate::outcome::ledger::Ledger;
use crate::write::health::HealthState;
use crate::write::outstanding::Outstanding;

/// Shared by the handles, the dispatcher and the batches of one pipeline.
pub(crate) struct PipelineContext {
    pub(crate) ledger: Ledger,
    pub(crate) reporter: GuardedReporter,
    pub(crate) outstanding: Outstanding,
    pub(crate) health: HealthState,
    /// The dispatcher has ended, normally or not: no batch is sealed any more.
    is_over: AtomicBool,
}

impl PipelineContext {
    pub(crate) fn new(ledger: Ledger, reporter: GuardedReporter) -> Self {
        Self {
            ledger,
            reporter,
            outstanding: Outstanding::default(),
            health: HealthState::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// A batch has ended, and each of its rows has its outcome.
    pub(crate) fn batch_ended(&self, number: u64) {
        self.outstanding.end(number);
        self.end_channels_when_over();
    }

    /// No batch is sealed any more.
    pub(crate) fn dispatcher_ended(&self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.end_channels_when_over();
    }

    /// The last batch after the dispatcher ends the channels of dead letters: also when the runtime was shut down, so
    /// that no consumer waits forever. Then the batches and the dispatcher may be dropped in any order.
    fn end_channels_when_over(&self) {
        if self.is_over.load(Ordering::SeqCst) && self.outstanding.is_empty() {
            self.ledger.end_channels();
        }
    }
}
