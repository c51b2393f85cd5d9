//! Owns the future that the writer thread completes, which may also be waited for without a runtime.
//! Must not know what it is completed with.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{error::LogError, model::Appended};

type Outcome<T> = Result<T, LogError>;

#[derive(Debug)]
struct Slot<T> {
    state: Mutex<State<T>>,
    done: Condvar,
}

#[derive(Debug)]
struct State<T> {
    outcome: Option<Outcome<T>>,
    waker: Option<Waker>,
}

impl<T> Slot<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end that the writer has. If it is dropped, the other end gets the error that it was made with.
#[derive(Debug)]
pub(crate) struct Sender<T> {
    slot: Arc<Slot<T>>,
    if_dropped: fn() -> LogError,
    is_sent: bool,
}

impl<T> Sender<T> {
    pub(crate) fn send(mut self, outcome: Outcome<T>) {
        self.complete(outcome);
    }

    fn complete(&mut self, outcome: Outcome<T>) {
        self.is_sent = true;
        let mut state = self.slot.lock();
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        self.slot.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        if !self.is_sent {
            let error = (self.if_dropped)();
            self.complete(Err(error));
        }
    }
}

/// The end of the caller: a future, or [`wait`](Self::wait) on a thread.
///
/// # Cancel safety
///
/// Dropping it does not undo what was asked for: the rows of a dropped [`Ticket`] may be in the log.
#[derive(Debug)]
#[must_use = "what was asked for is done only when this is complete"]
pub struct Completion<T> {
    slot: Arc<Slot<T>>,
}

/// Completes when the block is stored as the policy says, with the sequences of its rows.
pub type Ticket = Completion<Appended>;

impl<T> Completion<T> {
    /// Blocks the thread until it is complete.
    ///
    /// # Errors
    ///
    /// Those of the call that returned it.
    pub fn wait(self) -> Result<T, LogError> {
        let mut state = self.slot.lock();
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome;
            }
            state = self.slot.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Future for Completion<T> {
    type Output = Result<T, LogError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.slot.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Both ends.
pub(crate) fn pair<T>(if_dropped: fn() -> LogError) -> (Sender<T>, Completion<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(State { outcome: None, waker: None }), done: Condvar::new() });
    (Sender { slot: Arc::clone(&slot), if_dropped, is_sent: false }, Completion { slot })
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
        thread,
    };

    use super::*;

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn the_last_waker_is_woken_once() {
        let (sender, mut completion) = pair::<u32>(LogError::closed);
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut completion).poll(&mut context).is_pending());
        assert!(Pin::new(&mut completion).poll(&mut context).is_pending());
        sender.send(Ok(7));
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(matches!(Pin::new(&mut completion).poll(&mut context), Poll::Ready(Ok(7))));
    }

    #[test]
    fn a_thread_may_wait_and_a_lost_sender_is_an_error() {
        let (sender, completion) = pair::<u32>(LogError::closed);
        let waiting = thread::spawn(move || completion.wait());
        drop(sender);
        assert!(waiting.join().expect("no panic").is_err());
    }
}
