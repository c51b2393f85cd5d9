//! Owns one attempt to write rows: whether it has begun, and whether it was given up.
//! Must not know sinks or batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::write::position::Step;

/// One attempt to write rows, seen by the pipeline and by the driver. Clones are the same attempt.
///
/// When the pipeline gives an attempt up (a timeout, the deadline of `close`), its rows end as `Unknown`
/// if they may have been sent. A driver that keeps writes in a queue of its own calls
/// [`defer`](Self::defer) first and [`begin`](Self::begin) when their turn has come: then rows that
/// were only waiting are known not to be written. Without these calls a write has begun when it is
/// called.
#[derive(Debug, Clone)]
pub struct Attempt(Arc<AttemptState>);

#[derive(Debug)]
struct AttemptState {
    stage: AtomicU8,
    atomic: bool,
    step: Option<Step>,
}

const BEGUN: u8 = 0;
const DEFERRED: u8 = 1;
const ABANDONED: u8 = 2;

impl Attempt {
    /// An attempt, for tests of drivers and for sinks that wrap another sink.
    pub fn new(atomic: bool) -> Self {
        Self(Arc::new(AttemptState { stage: AtomicU8::new(BEGUN), atomic, step: None }))
    }

    /// An attempt whose transaction also moves a position. It is atomic.
    pub fn of_step(step: Step) -> Self {
        Self(Arc::new(AttemptState { stage: AtomicU8::new(BEGUN), atomic: true, step: Some(step) }))
    }

    /// The position that the transaction of this attempt moves, if any. Only sinks that
    /// [keep positions](crate::Sink::keeps_positions) get one.
    pub fn step(&self) -> Option<&Step> {
        self.0.step.as_ref()
    }

    /// Whether one refused row must refuse all of them ([`Isolation::AtomicBatch`]): then
    /// [`Written::rejected`](crate::Written::rejected) and [`Written::unfinished`](crate::Written::unfinished) must
    /// stay empty.
    ///
    /// [`Isolation::AtomicBatch`]: crate::Isolation::AtomicBatch
    pub fn is_atomic(&self) -> bool {
        self.0.atomic
    }

    /// Says that nothing has been sent, and nothing will be before [`begin`](Self::begin).
    pub fn defer(&self) {
        // An attempt that was given up meanwhile stays so.
        let _ = self.0.stage.compare_exchange(BEGUN, DEFERRED, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Says that the rows are about to be sent. `false`: the pipeline has given the attempt up, and
    /// nothing of it may be written.
    #[must_use = "an attempt that was given up must not be written"]
    pub fn begin(&self) -> bool {
        match self.0.stage.compare_exchange(DEFERRED, BEGUN, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(stage) => stage == BEGUN,
        }
    }

    /// Gives the attempt up; true when nothing was sent and nothing will be.
    pub(crate) fn abandon(&self) -> bool {
        self.0.stage.swap(ABANDONED, Ordering::AcqRel) == DEFERRED
    }
}
