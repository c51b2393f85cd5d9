//! Owns the set of sessions that the connections of a sink use now: two connections on one session indicate a
//! pooler.
//! Must not know how a session is named or ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::session::SessionId;

/// The sessions that connections of the sink use now.
#[derive(Default)]
pub(crate) struct LiveSessions(Mutex<HashSet<SessionId>>);

/// A session that is in use. If another connection has the same one, sessions are shared.
pub(crate) struct LiveSession {
    all: Arc<LiveSessions>,
    pub(crate) id: SessionId,
}

impl Drop for LiveSession {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

impl LiveSessions {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `None` if another connection has the same session.
    pub(crate) fn add(self: &Arc<Self>, id: SessionId) -> Option<LiveSession> {
        self.lock().insert(id).then(|| LiveSession { all: Arc::clone(self), id })
    }
}
