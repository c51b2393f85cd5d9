//! Owns which sessions the connections of a sink are on now: two connections on one session show a pooler.
//! Must not know how a session is named or ended.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::session::SessionId;

/// The sessions on which connections of the sink are now.
#[derive(Default)]
pub(crate) struct LiveSessions(Mutex<HashSet<SessionId>>);

/// A session that is in use. Another connection that has the same one shows that sessions are shared.
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

    /// `None`: another connection has the same session.
    pub(crate) fn add(self: &Arc<Self>, id: SessionId) -> Option<LiveSession> {
        self.lock().insert(id).then(|| LiveSession { all: Arc::clone(self), id })
    }
}
