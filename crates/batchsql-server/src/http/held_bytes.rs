//! Owns the memory that the rows of all requests take that are held until their bodies end.
//! Must not know rows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What is reserved at once, so that a small request reserves once.
const UNIT: usize = 16 << 10;

/// The bytes that all requests may hold.
#[derive(Debug, Clone)]
pub(crate) struct HeldBytes(Arc<Semaphore>);

/// Bytes that a request has reserved, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    all: HeldBytes,
    permit: Option<OwnedSemaphorePermit>,
}

impl HeldBytes {
    pub(crate) fn new(bytes: u64) -> Self {
        // Rounded as what is reserved: one request may have all of it.
        let units = usize::try_from(bytes).unwrap_or(usize::MAX).div_ceil(UNIT);
        Self(Arc::new(Semaphore::new(units.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Of a request that holds nothing yet.
    pub(crate) fn none(&self) -> Reserved {
        Reserved { all: self.clone(), permit: None }
    }
}

impl Reserved {
    /// Reserves so many bytes in all, and waits at most `limit` for other requests. False: the time is over.
    pub(crate) async fn grow(&mut self, bytes: usize, limit: Duration) -> bool {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(UNIT).saturating_sub(held);
        if more == 0 {
            return true;
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(Ok(permit)) = timeout(limit, Arc::clone(&self.all.0).acquire_many_owned(more)).await else {
            return false;
        };
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        true
    }

    /// Gives all of it back.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
