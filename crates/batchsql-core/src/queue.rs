//! Owns the budget of rows and bytes that may wait or be on their way: the only thing that makes a
//! submitter wait. Must not know rows, batches or databases.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};

/// A hard bound over everything that was accepted and has no outcome yet. First come, first served.
#[derive(Debug)]
pub(crate) struct Budget {
    rows: Semaphore,
    bytes: Semaphore,
    rows_limit: usize,
    bytes_limit: usize,
    waiting: AtomicUsize,
}

/// Why there is no reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
}

/// Room for rows that are about to be accepted. What is not kept goes back when it is dropped, so a
/// cancelled submit leaks nothing.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reservation<'a> {
    rows: SemaphorePermit<'a>,
    bytes: SemaphorePermit<'a>,
}

impl Reservation<'_> {
    /// Hands room for one row of `bytes` over to the batch that carries it.
    pub(crate) fn keep_row(&mut self, bytes: usize) {
        for (permit, count) in [(&mut self.rows, 1), (&mut self.bytes, bytes)] {
            permit.split(count).expect("the reservation covers every row it was made for").forget();
        }
    }
}

/// Counts a waiting submitter for as long as it waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Budget {
    /// Both limits are at most `u32::MAX`, which the configuration checks.
    pub(crate) fn new(rows: usize, bytes: usize) -> Self {
        Self {
            rows: Semaphore::new(rows),
            bytes: Semaphore::new(bytes),
            rows_limit: rows,
            bytes_limit: bytes,
            waiting: AtomicUsize::new(0),
        }
    }

    pub(crate) fn rows_limit(&self) -> usize {
        self.rows_limit
    }

    pub(crate) fn bytes_limit(&self) -> usize {
        self.bytes_limit
    }

    /// Rows and bytes in use.
    pub(crate) fn used(&self) -> (usize, usize) {
        let rows = self.rows_limit.saturating_sub(self.rows.available_permits());
        (rows, self.bytes_limit.saturating_sub(self.bytes.available_permits()))
    }

    /// Whether nothing at all is left of rows or of bytes.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.rows.available_permits() == 0 || self.bytes.available_permits() == 0
    }

    /// How many submitters wait for room, or have got it and were not woken yet.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Room without waiting.
    #[inline]
    pub(crate) fn try_reserve(&self, rows: usize, bytes: usize) -> Result<Reservation<'_>, Refusal> {
        let refusal = |error| match error {
            TryAcquireError::NoPermits => Refusal::Full,
            TryAcquireError::Closed => Refusal::Closed,
        };
        let rows = self.rows.try_acquire_many(count(rows)).map_err(refusal)?;
        let bytes = self.bytes.try_acquire_many(count(bytes)).map_err(refusal)?;
        Ok(Reservation { rows, bytes })
    }

    /// Waits for room; `on_wait` is called once the submitter counts as waiting.
    ///
    /// Rows come before bytes for everyone, so two submitters can never wait for each other.
    pub(crate) async fn reserve(
        &self,
        rows: usize,
        bytes: usize,
        on_wait: impl FnOnce(),
    ) -> Result<Reservation<'_>, Refusal> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let _waiting = Waiting(&self.waiting);
        on_wait();
        let rows = self.rows.acquire_many(count(rows)).await.map_err(|_| Refusal::Closed)?;
        let bytes = self.bytes.acquire_many(count(bytes)).await.map_err(|_| Refusal::Closed)?;
        Ok(Reservation { rows, bytes })
    }

    /// Gives back the room of rows that have their outcome.
    pub(crate) fn release(&self, rows: usize, bytes: usize) {
        self.bytes.add_permits(bytes);
        self.rows.add_permits(rows);
    }

    /// Refuses everyone who waits and everyone who comes.
    pub(crate) fn close(&self) {
        self.rows.close();
        self.bytes.close();
    }
}

fn count(permits: usize) -> u32 {
    u32::try_from(permits).expect("callers stay within the limits, which fit u32")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_is_not_kept_goes_back() {
        let budget = Budget::new(10, 1000);
        let mut reservation = budget.try_reserve(3, 300).unwrap();
        reservation.keep_row(100);
        drop(reservation);
        assert_eq!(budget.used(), (1, 100));
        budget.release(1, 100);
        assert_eq!(budget.used(), (0, 0));
    }

    #[test]
    fn bytes_alone_can_be_full_and_then_no_row_is_held() {
        let budget = Budget::new(10, 100);
        let first = budget.try_reserve(1, 90).unwrap();
        assert_eq!(budget.try_reserve(1, 20).unwrap_err(), Refusal::Full);
        assert_eq!(budget.used(), (1, 90));
        drop(first);
    }

    #[tokio::test]
    async fn a_cancelled_wait_leaks_nothing() {
        let budget = Arc::new(Budget::new(2, 100));
        let held = budget.try_reserve(1, 100).unwrap();
        let waiter = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.reserve(1, 50, || ()).await.map(drop) }
        });
        while budget.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        waiter.abort();
        assert!(waiter.await.unwrap_err().is_cancelled());
        assert_eq!((budget.waiting(), budget.used()), (0, (1, 100)));
        drop(held);
        assert_eq!(budget.used(), (0, 0));
    }

    #[tokio::test]
    async fn closing_refuses_those_who_wait() {
        let budget = Arc::new(Budget::new(1, 100));
        let held = budget.try_reserve(1, 1).unwrap();
        let waiter = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.reserve(1, 1, || ()).await.map(drop) }
        });
        while budget.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        budget.close();
        assert_eq!(waiter.await.unwrap(), Err(Refusal::Closed));
        assert_eq!(budget.try_reserve(1, 1).unwrap_err(), Refusal::Closed);
        drop(held);
    }
}
