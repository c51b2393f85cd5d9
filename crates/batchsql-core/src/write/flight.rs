//! Owns what the dispatcher knows of a batch that is being written: which attempt may take effect late.
//! Must not know how a batch is written.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::write::session::Session;

/// An abandoned write that may still take effect.
#[derive(Debug)]
pub(crate) struct AbandonedWrite {
    /// `None` when the session has no name.
    pub(crate) session: Option<Session>,
    pub(crate) since: Instant,
}

/// Shared by the task that writes an ordered batch and the dispatcher, because the task may end by a panic.
#[derive(Debug, Default)]
pub(crate) struct Flight(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The session of the attempt that was begun and not answered.
    current: Option<Option<Session>>,
    abandoned: Vec<AbandonedWrite>,
}

impl Flight {
    /// An attempt begins.
    pub(crate) fn begins(&self, session: Option<Session>) {
        self.lock().current = Some(session);
    }

    /// The attempt has ended, and can no longer take effect.
    pub(crate) fn answered(&self) {
        self.lock().current = None;
    }

    /// The attempt was abandoned, and may take effect late.
    pub(crate) fn abandoned(&self) {
        let mut state = self.lock();
        if let Some(session) = state.current.take() {
            state.abandoned.push(AbandonedWrite { session, since: Instant::now() });
        }
    }

    /// Whether an attempt of this task was abandoned.
    pub(crate) fn has_abandoned(&self) -> bool {
        !self.lock().abandoned.is_empty()
    }

    /// What may take effect late, once the task has ended.
    pub(crate) fn take_abandoned(&self) -> Vec<AbandonedWrite> {
        // A task that panicked did not answer.
        self.abandoned();
        std::mem::take(&mut self.lock().abandoned)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
