//! Owns the memory that the rows of all requests take that are held until their bodies end.
//! Must not know rows.
//!
//! A request that holds memory and waits for more keeps the others waiting. So one of them is refused as soon as all that hold
//! memory wait: nobody would give anything back. Which one, and who comes first, is in `held_line`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::http::client::Client;
use crate::http::held_line::HeldLine;
use crate::http::held_order::Ticket;

/// What is reserved at once, so that a small request reserves once.
const UNIT: usize = 16 << 10;

/// The bytes that all requests may hold.
#[derive(Debug, Clone)]
pub(crate) struct HeldBytes(Arc<Mutex<Line>>);

/// A request is woken when its sender is dropped.
type Line = HeldLine<oneshot::Sender<()>>;

/// Bytes that a request has reserved, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    all: HeldBytes,
    client: Client,
    units: usize,
}

impl HeldBytes {
    /// `own` is what one request may have; beyond it a client leaves some to others.
    pub(crate) fn new(bytes: u64, own: u64) -> Self {
        // Rounded as what is reserved: one request may have all of it.
        let units = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT).max(1);
        Self(Arc::new(Mutex::new(HeldLine::new(units(bytes), units(own)))))
    }

    /// Of a request that holds nothing yet.
    pub(crate) fn none(&self, client: Client) -> Reserved {
        Reserved { all: self.clone(), client, units: 0 }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits. What it is granted and does not take is given back.
struct Waits<'a> {
    own: &'a Reserved,
    more: usize,
    ticket: Option<Ticket>,
}

impl Waits<'_> {
    /// It waits no longer; whether it has got what it wanted.
    fn end(mut self) -> bool {
        self.ticket.take().is_some_and(|ticket| self.own.all.line().leave(ticket))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let mut line = self.own.all.line();
        if line.leave(ticket) {
            line.give_back(&self.own.client, self.more);
        }
    }
}

impl Reserved {
    /// Reserves so many bytes in all, and waits at most `limit` for other requests. False: the time is over, or every request
    /// that holds memory waits for more.
    ///
    /// # Cancel safety
    /// Nothing more is reserved.
    pub(crate) async fn grow(&mut self, bytes: usize, limit: Duration) -> bool {
        let more = bytes.div_ceil(UNIT).saturating_sub(self.units);
        if more == 0 {
            return true;
        }
        let (wake, woken) = oneshot::channel();
        let ticket = self.all.line().enter(self.client.clone(), self.units, more, wake);
        let waits = Waits { own: self, more, ticket: Some(ticket) };
        // Nothing is ever sent. After the time, the answer may still have come.
        let _ = timeout(limit, woken).await;
        let is_granted = waits.end();
        self.units += if is_granted { more } else { 0 };
        is_granted
    }

    /// Gives all of it back.
    pub(crate) fn release(&mut self) {
        let given = std::mem::take(&mut self.units);
        if given > 0 {
            self.all.line().give_back(&self.client, given);
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> Client {
        Client::new(String::new(), [127, 0, 0, 1].into())
    }

    fn all_for_one(bytes: usize) -> HeldBytes {
        HeldBytes::new(bytes as u64, bytes as u64)
    }

    /// Units that are free, and that moving requests hold.
    fn state(all: &HeldBytes) -> (usize, usize) {
        all.line().state()
    }

    #[tokio::test(start_paused = true)]
    async fn requests_share_the_bytes() {
        let all = all_for_one(3 * UNIT);
        let (mut one, mut two) = (all.none(client()), all.none(client()));
        let second = Duration::from_secs(1);
        assert!(one.grow(1, second).await && one.grow(UNIT, second).await, "one unit");
        assert!(two.grow(2 * UNIT, second).await);
        assert!(!one.grow(UNIT + 1, second).await, "nobody gives anything back");
        two.release();
        assert!(one.grow(UNIT + 1, second).await);
        drop(one);
        assert!(two.grow(3 * UNIT, second).await);
        let bytes = 2 * UNIT + 1;
        assert!(all_for_one(bytes).none(client()).grow(bytes, second).await, "one request may have all");
    }

    /// All hold memory, and all want more: one is refused without a wait, and the others go on.
    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_for_each_other_are_refused_one_after_the_other() {
        let all = all_for_one(16 * UNIT);
        let begin = tokio::time::Instant::now();
        let requests: Vec<_> = (0..16)
            .map(|_| {
                let mut own = all.none(client());
                tokio::spawn(async move {
                    for bytes in 1..=4 {
                        // The other requests get their first bytes too.
                        tokio::task::yield_now().await;
                        if !own.grow(bytes * UNIT, Duration::from_secs(60)).await {
                            return false;
                        }
                    }
                    true
                })
            })
            .collect();
        let mut stored = 0;
        for request in requests {
            stored += usize::from(request.await.unwrap());
        }
        assert!((1..16).contains(&stored), "{stored} were stored");
        assert_eq!(begin.elapsed(), Duration::ZERO, "nobody waits for what nobody gives back");
        assert_eq!(state(&all), (16, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_another_that_goes_on() {
        let all = all_for_one(2 * UNIT);
        let (mut one, mut two) = (all.none(client()), all.none(client()));
        assert!(one.grow(UNIT, Duration::ZERO).await && two.grow(UNIT, Duration::ZERO).await);
        let second = Duration::from_secs(1);
        let (got, ()) = tokio::join!(one.grow(2 * UNIT, second), async {
            tokio::time::sleep(second / 2).await;
            two.release();
        });
        assert!(got);
        let waiting = two.grow(UNIT, second);
        assert!(!waiting.await, "the other one keeps it for longer");
        drop(one);
        assert!(two.grow(2 * UNIT, second).await);
        // Given up while it waits.
        let mut three = all.none(client());
        assert!(timeout(second / 2, three.grow(UNIT, second)).await.is_err());
        drop((two, three));
        assert_eq!(state(&all), (2, 0));
    }
}
