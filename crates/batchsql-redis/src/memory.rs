//! Owns which rows that found no memory are sent once more without the largest of them.
//! Must not know connections.
//!
//! A server counts the buffer of a connection as used memory, and keeps it for a while after a large value. So a value above `maxmemory`
//! is refused together with the small rows around it, in each batch that has it.
//!
//! ```text
//! rows of 100 B, 3 MB, 100 B     the second and the third are refused
//! on a new connection            the third is written
//! in the next attempt            the second alone
//! ```

use batchsql_core::SinkError;

use crate::encode::Encoder;
use crate::limits::CommandSize;
use crate::plan::RedisPlan;
use crate::replies::RowResults;

/// Smaller values are read into a buffer that each connection has.
const LARGE: usize = 32 << 10;

/// The tries of one batch. Each is without the larger half by size, so there are few.
pub(crate) struct WithoutLargest {
    /// Rows of this size and more have no further try in this batch.
    limit: usize,
}

impl WithoutLargest {
    pub(crate) fn new() -> Self {
        Self { limit: usize::MAX }
    }

    /// The rows for the next try, in order. They are no longer recorded as failed. None if size is not the cause, or if a later row has
    /// overwritten what they would write.
    pub(crate) fn next(
        &mut self,
        results: &mut RowResults,
        plan: &RedisPlan,
        rows: u32,
        encoder: &mut Encoder<'_>,
    ) -> Vec<u32> {
        let is_refused = |error: &SinkError| error.code() == Some("OOM") && error.is_retryable();
        let mut refused = Vec::new();
        for (row, _) in results.failed.iter().filter(|(_, error)| is_refused(error)) {
            let Ok(encoded) = encoder.row(*row as usize) else { continue };
            refused.push((*row, CommandSize::of(&encoded).total));
            encoder.recycle(encoded);
        }
        refused.retain(|(_, size)| *size < self.limit);
        let largest = refused.iter().map(|(_, size)| *size).max().unwrap_or(0);
        if largest < LARGE {
            return Vec::new();
        }
        self.limit = largest / 2;
        refused.retain(|(_, size)| *size < self.limit);
        if refused.is_empty() {
            return Vec::new();
        }
        let undone = results.undone(&[], plan, rows, |row| encoder.overwrite_key(row as usize));
        let mut smaller: Vec<u32> = refused.into_iter().map(|(row, _)| row).collect();
        smaller.retain(|row| !undone.contains(row));
        smaller.sort_unstable();
        results.failed.retain(|(row, _)| smaller.binary_search(row).is_err());
        smaller
    }
}
