//! Owns the case in which producers are faster than the database and rows are wide.
//! Must not know databases.

use anyhow::Result;
use async_trait::async_trait;

use super::throughput::insert_events;
use super::{Case, Expected, Load, MemoryBound, Settings};
use crate::database::{Database, TableSpec};
use crate::rows::Event;

/// Bytes added to the payload of each row.
const PADDING: usize = 4096;
const BUFFER_BYTES: usize = 8 << 20;
const FLUSH_BYTES: usize = 1 << 20;
/// Memory that does not depend on the load: page cache and statements of the database client, stacks,
/// and memory that the allocator keeps.
const FIXED: u64 = 32 << 20;

pub(super) struct MemoryPressure;

#[async_trait]
impl Case for MemoryPressure {
    fn description(&self) -> &'static str {
        "Rows of 4 KiB with a byte budget of 8 MiB, submitted faster than they can be written. The memory of the \
         process must stay below its bound, however many rows there are."
    }

    fn tables(&self) -> Vec<TableSpec> {
        vec![Event::table()]
    }

    fn adjust(&self, settings: &mut Settings) {
        settings.rows_per_worker = (settings.rows_per_worker / 10).max(1);
        settings.pipeline.buffer_bytes = BUFFER_BYTES;
        settings.pipeline.flush_bytes = FLUSH_BYTES;
        // Buffers grow by doubling, so a batch may hold twice its bytes; a batch that is being written
        // is still within the budget.
        settings.memory_bound = Some(MemoryBound {
            bytes: 2 * BUFFER_BYTES as u64 + FIXED,
            note: format!(
                "2 x the byte budget of {} MiB, because buffers grow by doubling, and {} MiB for the database client, \
                 stacks and the allocator",
                BUFFER_BYTES >> 20,
                FIXED >> 20
            ),
        });
        settings.note("records_per_worker", settings.rows_per_worker);
        settings.note("buffer_bytes", BUFFER_BYTES);
        settings.note("flush_bytes", FLUSH_BYTES);
        settings.note("row_bytes", PADDING);
    }

    async fn drive(&self, load: &Load, _: &dyn Database) -> Result<Expected> {
        insert_events(load, PADDING).await
    }
}
