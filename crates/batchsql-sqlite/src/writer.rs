//! Owns the thread that has the one writer connection, and the queue of work for it.
//! Must not know rows or SQL.
//!
//! A thread of its own, with the next batch already in its queue, so that the database never waits for
//! tasks to be woken: with 2 ms per batch, a few thread switches in between cost a tenth of the rate.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::{Connection, InterruptHandle};
use tokio::sync::oneshot;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

const QUEUED: u8 = 0;
const RUNNING: u8 = 1;
const DONE: u8 = 2;
const ABANDONED: u8 = 3;

/// Why there is no result.
pub(crate) enum Failed {
    /// The work panicked.
    Panicked(Box<dyn Any + Send>),
    /// The thread is gone.
    Gone,
}

/// Runs work on the connection, one after the other. Dropping it waits for the work that was begun and
/// closes the connection.
pub(crate) struct Writer {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Work>>,
    thread: Option<JoinHandle<()>>,
    interrupt: InterruptHandle,
}

/// Takes work back that nobody waits for any more: what has not begun never does, what runs is
/// interrupted, so that the connection is soon free and its transaction rolled back.
struct Ticket<'a> {
    state: Arc<AtomicU8>,
    interrupt: &'a InterruptHandle,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.state.swap(ABANDONED, Ordering::SeqCst) == RUNNING {
            self.interrupt.interrupt();
        }
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

    /// Runs `work` when its turn comes. When the returned future is dropped, the work is abandoned.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T, Failed> {
        let ticket = Ticket { state: Arc::new(AtomicU8::new(QUEUED)), interrupt: &self.interrupt };
        let state = Arc::clone(&ticket.state);
        let result = self
            .queue(move |connection, reply| {
                if state.compare_exchange(QUEUED, RUNNING, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                    let result = catch_unwind(AssertUnwindSafe(|| work(connection)));
                    state.store(DONE, Ordering::SeqCst);
                    // Nobody waits any more: then nobody wants the result.
                    let _ = reply.send(result);
                }
            })
            .await;
        ticket.state.store(DONE, Ordering::SeqCst);
        result
    }

    /// Runs `work` when its turn comes, to its end, also when the returned future is dropped.
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
        if let Some(thread) = self.thread.take() {
            // Panics of work are caught; one of the thread itself has been printed by then.
            let _ = thread.join();
        }
    }
}
