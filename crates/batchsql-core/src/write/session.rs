//! Owns the name of a server session, and the result of ending it.
//! Must not know any driver: the driver defines what a name holds.

use std::any::{Any, type_name};
use std::fmt;
use std::sync::Arc;

/// The session of a connection on its server, as its driver names it. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    name: Arc<dyn Any + Send + Sync>,
    kind: &'static str,
}

impl Session {
    /// Wraps what the driver needs to find and end the session: for example the process id of the backend, when it
    /// was started, and which server it belongs to.
    pub fn new<T: Any + Send + Sync>(name: T) -> Self {
        Self { name: Arc::new(name), kind: type_name::<T>() }
    }

    /// What [`new`](Self::new) was given; `None` when it was of another type.
    pub fn name<T: Any>(&self) -> Option<&T> {
        self.name.downcast_ref()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.kind).finish()
    }
}

/// The result of [`end_session`](crate::Sink::end_session).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// Nothing that was sent on the session takes effect from now on.
    Ended,
    /// It was asked to end and still exists. Call again.
    Pending,
    /// It cannot be ended: permissions are missing, others use it too, or its owner is not known. The lane waits for
    /// [`late_write_limit`](crate::Sink::late_write_limit).
    Impossible,
}
