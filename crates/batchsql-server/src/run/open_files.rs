//! Owns the limit of open files of this process.
//! Must not know what is opened.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are open besides connections of clients: those of the database, of logs and of sources.
const BESIDES: u64 = 256;

/// Raises the limit as far as this process may, and warns if it is too low for so many connections. Many systems start
/// programs with 1,024, because old ones use `select`, and allow far more.
pub(super) fn raise(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let current = if raised.is_ok() { limit.maximum } else { limit.current };
    if current.is_some_and(|current| current < connections as u64 + BESIDES) {
        tracing::warn!(
            limit = current,
            connections,
            "the limit of open files is too low for http.limits.connections; raise it (ulimit -n, LimitNOFILE) or lower the option"
        );
    }
}
