//! Owns the memory that the rows of all requests take that are held until their bodies end.
//! Must not know rows.
//!
//! A request that holds memory and waits for more keeps the others waiting. So one of them is refused as soon as all that hold
//! memory wait: nobody would give anything back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// What is reserved at once, so that a small request reserves once.
const UNIT: usize = 16 << 10;

/// The bytes that all requests may hold.
#[derive(Debug, Clone)]
pub(crate) struct HeldBytes(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    units: Mutex<Units>,
    given_back: Notify,
}

#[derive(Debug)]
struct Units {
    free: usize,
    /// Of requests that do not wait for more.
    moving: usize,
}

/// Bytes that a request has reserved, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    all: HeldBytes,
    units: usize,
}

impl HeldBytes {
    pub(crate) fn new(bytes: u64) -> Self {
        // Rounded as what is reserved: one request may have all of it.
        let free = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT).max(1);
        Self(Arc::new(Inner { units: Mutex::new(Units { free, moving: 0 }), given_back: Notify::new() }))
    }

    /// Of a request that holds nothing yet.
    pub(crate) fn none(&self) -> Reserved {
        Reserved { all: self.clone(), units: 0 }
    }

    fn units(&self) -> MutexGuard<'_, Units> {
        self.0.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits: what it holds does not move until this is dropped.
struct Waits<'a>(&'a HeldBytes, usize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.units().moving += self.1;
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
        let all = self.all.clone();
        let held = self.units;
        let granted = timeout(limit, async {
            loop {
                // Before the look: what is given back afterwards is noticed.
                let given_back = all.0.given_back.notified();
                tokio::pin!(given_back);
                given_back.as_mut().enable();
                let waits = {
                    let mut units = all.units();
                    if let Some(free) = units.free.checked_sub(more) {
                        units.free = free;
                        units.moving += more;
                        return true;
                    }
                    if units.moving == held {
                        return false;
                    }
                    units.moving -= held;
                    Waits(&all, held)
                };
                given_back.await;
                drop(waits);
            }
        });
        let is_granted = granted.await.unwrap_or(false);
        self.units += if is_granted { more } else { 0 };
        is_granted
    }

    /// Gives all of it back.
    pub(crate) fn release(&mut self) {
        let given = std::mem::take(&mut self.units);
        if given > 0 {
            let mut units = self.all.units();
            units.free += given;
            units.moving -= given;
            drop(units);
            self.all.0.given_back.notify_waiters();
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

    /// Units that are free, and that moving requests hold.
    fn state(all: &HeldBytes) -> (usize, usize) {
        let units = all.units();
        (units.free, units.moving)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_share_the_bytes() {
        let all = HeldBytes::new(3 * UNIT as u64);
        let (mut one, mut two) = (all.none(), all.none());
        let second = Duration::from_secs(1);
        assert!(one.grow(1, second).await && one.grow(UNIT, second).await, "one unit");
        assert!(two.grow(2 * UNIT, second).await);
        assert!(!one.grow(UNIT + 1, second).await, "nobody gives anything back");
        two.release();
        assert!(one.grow(UNIT + 1, second).await);
        drop(one);
        assert!(two.grow(3 * UNIT, second).await);
        let bytes = 2 * UNIT + 1;
        assert!(HeldBytes::new(bytes as u64).none().grow(bytes, second).await, "one request may have all");
    }

    /// All hold memory, and all want more: one is refused without a wait, and the others go on.
    #[tokio::test(start_paused = true)]
    async fn requests_that_wait_for_each_other_are_refused_one_after_the_other() {
        let all = HeldBytes::new(16 * UNIT as u64);
        let begin = tokio::time::Instant::now();
        let requests: Vec<_> = (0..16)
            .map(|_| {
                let mut own = all.none();
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
        let all = HeldBytes::new(2 * UNIT as u64);
        let (mut one, mut two) = (all.none(), all.none());
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
        let mut three = all.none();
        assert!(timeout(second / 2, three.grow(UNIT, second)).await.is_err());
        drop((two, three));
        assert_eq!(state(&all), (2, 0));
    }
}
