//! Owns the acknowledgements of messages that are held, and the signs of life for them.
//! Must not know rows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::AckKind;
use async_nats::jetstream::message::Acker;
use tokio::task::JoinHandle;

/// What acknowledges each message, by its sequence in the stream.
type Ackers = VecDeque<(u64, Arc<Acker>)>;

/// Messages that are read and not acknowledged. Without signs of life the server would give them to another worker.
pub(crate) struct Acks {
    held: Arc<Mutex<Ackers>>,
    /// Tells the server that they are worked on. It ends when this is dropped.
    signs: JoinHandle<()>,
}

impl Acks {
    /// `ack_wait`: how long the server waits for a sign of life.
    pub(crate) fn new(ack_wait: Duration) -> Self {
        let held = Arc::new(Mutex::new(Ackers::new()));
        let of_task = Arc::clone(&held);
        let signs = tokio::spawn(async move {
            loop {
                tokio::time::sleep(ack_wait / 3).await;
                let held: Vec<_> = lock(&of_task).iter().map(|(_, acker)| Arc::clone(acker)).collect();
                for acker in held {
                    // Without it the message comes again, and is recognized.
                    let _ = acker.ack_with(AckKind::Progress).await;
                }
            }
        });
        Self { held, signs }
    }

    pub(crate) fn hold(&self, message: u64, acker: Acker) {
        lock(&self.held).push_back((message, Arc::new(acker)));
    }

    /// The message was delivered again: later acknowledgements are for this delivery. If it is not held, its acknowledgement
    /// was lost, and the new one is returned.
    pub(crate) fn replace(&self, message: u64, acker: Acker) -> Option<Acker> {
        match lock(&self.held).iter_mut().find(|(held, _)| *held == message) {
            Some((_, known)) => {
                *known = Arc::new(acker);
                None
            }
            None => Some(acker),
        }
    }

    /// Acknowledges all messages below this one.
    ///
    /// # Errors
    /// The connection has ended. They come again.
    pub(crate) async fn settle(&self, below: u64) -> Result<(), async_nats::Error> {
        let ended: Vec<_> = {
            let mut held = lock(&self.held);
            let count = held.iter().take_while(|(message, _)| *message < below).count();
            held.drain(..count).collect()
        };
        for (_, acker) in ended {
            acker.ack().await?;
        }
        Ok(())
    }

    /// Lets another worker have the messages without a wait.
    pub(crate) async fn give_back(mut self) {
        self.signs.abort();
        let _ = (&mut self.signs).await;
        let held: Vec<_> = lock(&self.held).drain(..).collect();
        for (_, acker) in held {
            // Otherwise it comes again when its time is over.
            let _ = acker.ack_with(AckKind::Nak(None)).await;
        }
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        self.signs.abort();
    }
}

fn lock(held: &Mutex<Ackers>) -> MutexGuard<'_, Ackers> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
