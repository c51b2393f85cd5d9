//! Owns what the server is asked about a partition: how many of its messages have not ended, and how old the oldest is.
//! Must not know which partitions are asked about.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use batchsql_feed::PartitionState;

use crate::link::Link;
use crate::reached::{Consumer, Reached};
use crate::source::{Guarantee, message_of};

/// What is known of a partition beside what its source has read.
#[derive(Debug, Default)]
pub(crate) struct Lag(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// All messages up to this one have ended, as of the last answer.
    floor: Option<u64>,
    /// When the first message behind it was stored.
    oldest: Option<SystemTime>,
    /// Messages of the subject, as of the last answer.
    messages: u64,
}

impl Lag {
    /// Asks the server. `messages` is the number of messages that the subject has now, also those that have ended.
    pub(crate) async fn ask(
        &self,
        link: &Link,
        subject: &str,
        guarantee: &Guarantee,
        (state, reached): (&PartitionState, &Reached),
        messages: u64,
    ) {
        let info = match reached.consumer() {
            Consumer::None => return,
            Consumer::Gone => None,
            Consumer::Open(name) => match link.consumer(&name).await {
                Ok(Some(info)) => Some(info),
                Ok(None) => {
                    reached.has_lost(&name);
                    None
                }
                // It is asked again.
                Err(()) => return,
            },
        };
        let floor = match (guarantee, info) {
            (_, None) => {
                // A stopped partition loses its consumer after a while, and no message of it is removed.
                let before = std::mem::replace(&mut self.known().messages, messages);
                reached.grows(messages.saturating_sub(before));
                match guarantee {
                    Guarantee::ExactlyOnce { .. } => message_of(state.settled()),
                    Guarantee::AtLeastOnce => return,
                }
            }
            (Guarantee::ExactlyOnce { .. }, Some(info)) => {
                reached.is_told(info.delivered.consumer_sequence, info.num_pending);
                self.known().messages = messages;
                message_of(state.settled())
            }
            (Guarantee::AtLeastOnce, Some(info)) => {
                reached.is_told_by_acks(info.num_ack_pending as u64, info.num_pending);
                self.known().messages = messages;
                info.ack_floor.stream_sequence
            }
        };
        // The oldest message is asked for only where nothing moves: otherwise the worker that has read it knows its time.
        let stands = self.known().floor.replace(floor) == Some(floor);
        if !stands || reached.waiting().unsettled == 0 {
            self.known().oldest = None;
        } else if self.known().oldest.is_none()
            && let Ok(Some((_, time))) = link.first_from(subject, floor + 1).await
        {
            self.known().oldest = Some(time);
        }
    }

    /// When the oldest message was stored that has not ended, as far as it is known.
    pub(crate) fn oldest(&self, state: &PartitionState) -> Option<SystemTime> {
        let read = (state.read() > state.settled()).then(|| state.oldest());
        read.filter(|time| *time > UNIX_EPOCH).or_else(|| self.known().oldest)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
