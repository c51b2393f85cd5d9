//! Owns how work that blocks is run beside a task.
//! Must not know the work.

use std::io;

use tokio::task::spawn_blocking;

/// Runs what blocks. An error: the runtime ends, or it has panicked.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)
}

pub(super) fn lost_thread() -> io::Error {
    io::Error::other("the thread that read the file has failed; start the program again")
}
