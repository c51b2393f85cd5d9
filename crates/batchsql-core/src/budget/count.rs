//! Owns the count of rows and bytes in use, its bound, and how much of it one table may hold.
//! Must not know who waits or what is counted.

use crate::budget::share::Share;
use crate::budget::sync::{AtomicBool, AtomicU64, Ordering};

/// A table may hold this many times the free capacity in sealed batches.
const SHARE: usize = 8;

/// Rows and bytes in use, and their limits.
pub(crate) struct Count {
    /// Rows in the upper half, bytes in the lower half, so that one operation takes both or none.
    used: AtomicU64,
    /// Rows and bytes in use by rows that already have an outcome.
    held: AtomicU64,
    /// Whether there are several tables, so that shares matter.
    shared: AtomicBool,
    rows_limit: u32,
    bytes_limit: u32,
}

impl Count {
    pub(crate) fn new(rows: usize, bytes: usize) -> Self {
        Self {
            used: AtomicU64::new(0),
            held: AtomicU64::new(0),
            shared: AtomicBool::new(false),
            rows_limit: number(rows),
            bytes_limit: number(bytes),
        }
    }

    pub(crate) fn rows_limit(&self) -> usize {
        self.rows_limit as usize
    }

    pub(crate) fn bytes_limit(&self) -> usize {
        self.bytes_limit as usize
    }

    /// Rows and bytes in use.
    pub(crate) fn used(&self) -> (usize, usize) {
        let (rows, bytes) = unpack(self.used.load(Ordering::SeqCst));
        (rows as usize, bytes as usize)
    }

    /// Rows and bytes of rows that have an outcome.
    pub(crate) fn held(&self) -> (usize, usize) {
        let (rows, bytes) = unpack(self.held.load(Ordering::SeqCst));
        (rows as usize, bytes as usize)
    }

    /// Enables the shares: there are several tables now.
    pub(crate) fn share_fairly(&self) {
        self.shared.store(true, Ordering::Relaxed);
    }

    /// Whether a table holds more than its share. Then free capacity is for other tables.
    #[inline]
    pub(crate) fn is_over(&self, share: &Share) -> bool {
        if !self.shared.load(Ordering::Relaxed) {
            return false;
        }
        let (rows, bytes) = self.used();
        let is_over = |held: usize, free: usize| held > free.saturating_mul(SHARE);
        is_over(share.rows(), self.rows_limit().saturating_sub(rows))
            || is_over(share.bytes(), self.bytes_limit().saturating_sub(bytes))
    }

    /// Takes rows and bytes if there is enough of both.
    #[inline]
    pub(crate) fn take(&self, rows: u32, bytes: u32) -> bool {
        let mut used = self.used.load(Ordering::SeqCst);
        loop {
            let (used_rows, used_bytes) = unpack(used);
            // Failed rows may hold more bytes than the limit, see `take_regardless`.
            let fits = rows <= self.rows_limit.saturating_sub(used_rows)
                && bytes <= self.bytes_limit.saturating_sub(used_bytes);
            if !fits {
                return false;
            }
            let more = used + pack(rows, bytes);
            match self.used.compare_exchange_weak(used, more, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return true,
                Err(now) => used = now,
            }
        }
    }

    /// Counts rows and bytes whether they fit the limit or not. Returns how many it counted: fewer only if the count itself
    /// would overflow.
    pub(crate) fn take_regardless(&self, rows: u32, bytes: usize) -> (u32, u32) {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut used = self.used.load(Ordering::SeqCst);
        loop {
            let (used_rows, used_bytes) = unpack(used);
            let more = (rows.min(u32::MAX - used_rows), wanted.min(u32::MAX - used_bytes));
            let now_used = used + pack(more.0, more.1);
            match self.used.compare_exchange_weak(used, now_used, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return more,
                Err(now) => used = now,
            }
        }
    }

    /// Returns what was taken.
    pub(crate) fn put_back(&self, rows: u32, bytes: u32) {
        self.used.fetch_sub(pack(rows, bytes), Ordering::SeqCst);
    }

    /// Counts a row that is in use and now has an outcome.
    pub(crate) fn hold(&self, rows: u32, bytes: u32) {
        self.held.fetch_add(pack(rows, bytes), Ordering::SeqCst);
    }

    /// The opposite of [`hold`](Self::hold).
    pub(crate) fn hold_no_more(&self, rows: u32, bytes: u32) {
        self.held.fetch_sub(pack(rows, bytes), Ordering::SeqCst);
    }
}

fn pack(rows: u32, bytes: u32) -> u64 {
    u64::from(rows) << 32 | u64::from(bytes)
}

fn unpack(used: u64) -> (u32, u32) {
    ((used >> 32) as u32, used as u32)
}

/// A number of rows or bytes within the limits.
pub(crate) fn number(rows_or_bytes: usize) -> u32 {
    u32::try_from(rows_or_bytes).expect("callers stay within the limits, which fit u32")
}
