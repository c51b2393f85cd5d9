//! Owns the thread with the only writer connection, and the queue of work for it.
//! Must not know rows or SQL.
//!
//! It uses a separate thread, with the next batch already in its queue, so that the database never waits for
//! a task wake-up: with 2 ms per batch, a few thread switches in between reduce the rate by a tenth.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// The progress of a work item. It changes under a lock, so that an interrupt stops the intended work and
/// never the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkState {
    Queued,
    Running,
    Over,
}

/// Why there is no result.
pub(crate) enum Failed {
    /// The work panicked.
    Panicked(Box<dyn Any + Send>),
    /// The thread has ended.
    Gone,
}

/// Runs work on the connection, one after the other. Dropping it waits for the running work and closes the
/// connection.
pub(crate) struct Writer {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    interrupt: InterruptHandle,
}

/// Cancels work whose result is no longer needed: queued work never starts, and the running statement is
/// interrupted, so that the connection is free sooner.
struct CancelOnDrop<'a> {
    state: Arc<Mutex<WorkState>>,
    interrupt: &'a InterruptHandle,
}

fn lock(state: &Mutex<WorkState>) -> MutexGuard<'_, WorkState> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for CancelOnDrop<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if *state == WorkState::Running {
            self.interrupt.interrupt();
        }
        *state = WorkState::Over;
    }
}

impl Writer {
    pub(crate) fn start(mut connection: Connection) -> std::io::Result<Self> {
        let interrupt = connection.get_interrupt_handle();
        let (queue, work) = mpsc::channel::<Work>();
        let thread = std::thread::Builder::new().name("batchsql-sqlite".to_owned()).spawn(move || {
            work.into_iter().for_each(|work| work(&mut connection));
        })?;
        Ok(Self { queue: Some(queue), thread: Some(thread), interrupt })
    }

    /// Runs `work` after the work before it in the queue. If the returned future is dropped, the work is
    /// cancelled.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let cancel_on_drop =
            CancelOnDrop { state: Arc::new(Mutex::new(WorkState::Queued)), interrupt: &self.interrupt };
        let state = Arc::clone(&cancel_on_drop.state);
        self.queue(move |connection, reply| {
            {
                let mut state = lock(&state);
                if *state == WorkState::Over {
                    return;
                }
                *state = WorkState::Running;
            }
            let result = catch_unwind(AssertUnwindSafe(|| work(connection)));
            *lock(&state) = WorkState::Over;
            // The receiver may be dropped; then the result is not needed.
            let _ = reply.send(result);
        })
        .await
    }

    /// Runs `work` after the work before it in the queue, to its end, even if the returned future is dropped.
    pub(crate) async fn run_to_end<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        self.queue(move |connection, reply| {
            let _ = reply.send(catch_unwind(AssertUnwindSafe(|| work(connection))));
        })
        .await
    }

    async fn queue<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, oneshot::Sender<std::thread::Result<T>>) + Send + 'static,
    ) -> Result<T, Failed> {
        let (reply, result) = oneshot::channel();
        let queue = self.queue.as_ref().ok_or(Failed::Gone)?;
        queue.send(Box::new(move |connection| work(connection, reply))).map_err(|_| Failed::Gone)?;
        result.await.map_err(|_| Failed::Gone)?.map_err(Failed::Panicked)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.take());
        // If the work owned the last handle, it is dropped on the thread itself, which cannot join itself.
        let elsewhere = |thread: &JoinHandle<()>| thread.thread().id() != std::thread::current().id();
        if let Some(thread) = self.thread.take().filter(elsewhere) {
            // Panics of work are caught; one of the thread itself has been printed by then.
            let _ = thread.join();
        }
    }
}
