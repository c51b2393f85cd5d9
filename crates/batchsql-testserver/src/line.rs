//! Owns the bytes that are in transit in one direction of a connection of [`NetworkProxy`](crate::NetworkProxy).
//! Must not know sockets.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that may wait; at this limit reading stops.
const LIMIT: usize = 64 << 20;
/// A wait of this length is a sleep, which is exact. A longer one can be ended.
const SLEEP: Duration = Duration::from_millis(100);

/// A lock, also after a panic of another thread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes in transit in one direction.
#[derive(Debug, Default)]
pub(crate) struct Line {
    state: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    chunks: VecDeque<(Instant, Box<[u8]>)>,
    /// When the last chunk is due: a shorter delay lets no byte overtake another.
    last: Option<Instant>,
    bytes: usize,
    closed: bool,
}

impl Line {
    /// Waits while the queue is full; false if the line was closed. Empty bytes mark the end of the stream.
    pub(crate) fn push(&self, due: Instant, bytes: Box<[u8]>) -> bool {
        let mut state = lock(&self.state);
        while state.bytes >= LIMIT && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let due = state.last.map_or(due, |last| last.max(due));
        state.last = Some(due);
        state.bytes += bytes.len();
        state.chunks.push_back((due, bytes));
        let taken = !state.closed;
        drop(state);
        self.changed.notify_all();
        taken
    }

    /// Waits until the next bytes are due. False if the line was closed.
    pub(crate) fn wait_until_due(&self) -> bool {
        let mut state = lock(&self.state);
        while !state.closed {
            let wait = state.chunks.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
            state = match wait {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return true,
                Some(time) if time <= SLEEP => {
                    // Bytes pushed meanwhile are due later, so no notification is needed.
                    drop(state);
                    thread::sleep(time);
                    lock(&self.state)
                }
                Some(time) => self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        false
    }

    /// Takes the next bytes; `None` if the line was closed or has none.
    pub(crate) fn pop(&self) -> Option<Box<[u8]>> {
        let mut state = lock(&self.state);
        if state.closed {
            return None;
        }
        let (_, bytes) = state.chunks.pop_front()?;
        state.bytes -= bytes.len();
        drop(state);
        self.changed.notify_all();
        Some(bytes)
    }

    /// Drops what is in transit and ends both sides.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.chunks.clear();
        drop(state);
        self.changed.notify_all();
    }
}
