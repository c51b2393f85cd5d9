//! Owns how rows are accepted: encoded on the caller's task, handed to the next group, acknowledged by the log.
//! Must not know how groups are written.

use std::time::Duration;

use batchsql_core::{Row, WhenFull};
use batchsql_feed::block::MAX_ROWS;
use batchsql_feed::key::{self, KeyOrder};
use batchsql_log::partition_of;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::error::{DurableSubmitAllError, DurableSubmitError};
use crate::handle::DurableBatchSql;
use crate::intake::gather::{Encoded, NotGathered, NotStored, Stored, Unit};
use crate::shared::Shared;

/// Rows and bytes of one call that are stored together, at most.
const CHUNK_ROWS: usize = 4096;
const CHUNK_BYTES: usize = 1 << 20;

/// Longer than any process runs.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

impl DurableBatchSql {
    /// Stores a row, and returns when it is on disk (or as [`sync_policy`](crate::DurableOptions::sync_policy) says). It is
    /// written to the database from there, now or after the next start. When the log is full,
    /// [`PipelineConfig::when_full`](batchsql_core::PipelineConfig::when_full) applies: by default it waits for space.
    ///
    /// # Errors
    /// The row does not fit its table, its rule counts repeats, the intake is closed, or there is no space and `when_full`
    /// does not wait. The row was not stored then. After an error that
    /// [is undetermined](DurableSubmitError::is_undetermined) it may be stored.
    ///
    /// # Cancel safety
    /// If the call is cancelled, the row may be stored or not. If it is submitted again, it may be written twice.
    pub async fn submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), DurableSubmitError> {
        let shared = self.shared();
        let row = shared.encode(row)?;
        shared.store_one(row, Wait::of(shared.when_full)).await
    }

    /// Stores a row, and does not wait for space. It does wait until the row is on disk.
    ///
    /// # Errors
    /// As [`submit`](Self::submit), and [`is_full`](DurableSubmitError::is_full) when there is no space now.
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit).
    pub async fn try_submit<R: Row + ?Sized>(&self, row: &R) -> Result<(), DurableSubmitError> {
        let shared = self.shared();
        let row = shared.encode(row)?;
        shared.store_one(row, Wait::Never).await
    }

    /// Stores many rows in their order, up to 4,096 at once with one sync; returns how many.
    ///
    /// # Errors
    /// The first row that is not accepted ends the call; the error says how many rows before it are stored.
    ///
    /// # Cancel safety
    /// As [`submit`](Self::submit); rows before those that were being stored stay stored.
    pub fn submit_all<I>(&self, rows: I) -> impl Future<Output = Result<usize, DurableSubmitAllError>> + Send
    where
        I: IntoIterator<IntoIter: Send, Item: Row + Send>,
    {
        let rows = rows.into_iter();
        async move {
            let shared = self.shared();
            let wait = Wait::of(shared.when_full);
            let (mut chunk, mut count, mut bytes, mut accepted) = (Vec::new(), 0, 0, 0);
            for row in rows {
                match shared.encode_into(&mut chunk, &row) {
                    Ok(row_bytes) => {
                        bytes += row_bytes;
                        count += 1;
                    }
                    Err(source) => {
                        shared.store_chunk(&mut chunk, &mut accepted, wait).await?;
                        return Err(DurableSubmitAllError { accepted, stored_behind: Vec::new(), source });
                    }
                }
                if count >= CHUNK_ROWS || bytes >= CHUNK_BYTES {
                    shared.store_chunk(&mut chunk, &mut accepted, wait).await?;
                    (count, bytes) = (0, 0);
                }
            }
            shared.store_chunk(&mut chunk, &mut accepted, wait).await?;
            Ok(accepted)
        }
    }
}

/// How long a call waits for space.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    Never,
    Until(Instant),
}

impl Wait {
    pub(crate) fn of(when_full: WhenFull) -> Self {
        match when_full {
            WhenFull::Reject => Self::Never,
            WhenFull::WaitAtMost(limit) => Self::Until(Instant::now() + limit.min(FAR)),
            _ => Self::Until(Instant::now() + FAR),
        }
    }
}

/// What became of the rows of one group.
enum Attempt {
    Stored,
    /// The rows with these numbers were not stored, because there is no space for a block of so many bytes.
    Full {
        rows: Vec<usize>,
        bytes: usize,
        error: DurableSubmitError,
    },
    /// The rows with these numbers were not stored, or it is not known.
    Failed(Vec<usize>, DurableSubmitError),
}

impl Shared {
    /// Checks a row as the pipeline does.
    pub(crate) fn encode<R: Row + ?Sized>(&self, row: &R) -> Result<Encoded, DurableSubmitError> {
        let entry = self.entry(row.schema())?;
        let mut rows = entry.empty.another();
        rows.push(row)?;
        // The encoded row is not larger than this, apart from the header of its block.
        if rows.bytes() as u64 > self.segment_bytes / 2 {
            return Err(DurableSubmitError::refused(format!(
                "a row of table {:?} with {} bytes does not fit into half a segment of the log; raise segment_bytes",
                entry.schema.table_display(),
                rows.bytes()
            )));
        }
        let key = key::of_row(&rows, 0, &entry.order);
        let partition = key.map(|key| partition_of(&key, self.gather.partitions));
        Ok(Encoded { entry, rows, partition })
    }

    /// Checks a row as the pipeline does, and adds it to rows of one call; returns its bytes. Neighbours without a key go to one
    /// block in any case, so they share a buffer.
    fn encode_into<R: Row + ?Sized>(&self, chunk: &mut Vec<Encoded>, row: &R) -> Result<usize, DurableSubmitError> {
        let schema = row.schema();
        let bytes = schema.fixed_row_len() + row.variable_len();
        let shares = |last: &&mut Encoded| {
            last.entry.order == KeyOrder::None
                && last.entry.schema == *schema
                && last.rows.bytes() + bytes <= self.gather.shared_bytes()
                && last.rows.len() < MAX_ROWS
        };
        match chunk.last_mut().filter(shares) {
            Some(last) => last.rows.push(row)?,
            None => chunk.push(self.encode(row)?),
        }
        Ok(bytes)
    }

    async fn store_one(&self, row: Encoded, wait: Wait) -> Result<(), DurableSubmitError> {
        self.store(&[row], wait).await.map_err(|(_, error)| error)
    }

    async fn store_chunk(
        &self,
        chunk: &mut Vec<Encoded>,
        accepted: &mut usize,
        wait: Wait,
    ) -> Result<(), DurableSubmitAllError> {
        let encoded = std::mem::take(chunk);
        let rows = |encoded: &[Encoded]| encoded.iter().map(|encoded| encoded.rows.len()).sum::<usize>();
        match self.store(&encoded, wait).await {
            Ok(()) => {
                *accepted += rows(&encoded);
                Ok(())
            }
            Err((left, source)) => {
                let first = left[0];
                let mut row = *accepted + rows(&encoded[..first]);
                let mut error = DurableSubmitAllError { accepted: row, stored_behind: Vec::new(), source };
                for (number, encoded) in encoded.iter().enumerate().skip(first) {
                    let next = row + encoded.rows.len();
                    if left.binary_search(&number).is_err() {
                        error.stored_behind.extend(row..next);
                    }
                    row = next;
                }
                Err(error)
            }
        }
    }

    /// Stores rows in their order. The error has the numbers of those that are not stored, at least one, in their order.
    async fn store(&self, rows: &[Encoded], wait: Wait) -> Result<(), (Vec<usize>, DurableSubmitError)> {
        let mut left: Vec<usize> = (0..rows.len()).collect();
        while !left.is_empty() {
            let (full, bytes, space) = match self.attempt(rows, &left).await {
                Ok(Attempt::Stored) => {
                    self.note_stored();
                    return Ok(());
                }
                Ok(Attempt::Failed(rows, error)) => return Err((rows, error)),
                Ok(Attempt::Full { rows, bytes, error }) => {
                    left = rows;
                    (error, bytes, None)
                }
                Err(space) => (DurableSubmitError::busy(), 0, Some(space)),
            };
            if let Err(error) = self.wait_for_space(wait, full, bytes, space).await {
                return Err((left, error));
            }
        }
        Ok(())
    }

    /// Waits until a group was taken, or the log has space for a block of so many bytes.
    ///
    /// # Errors
    /// `full` if the time is over.
    pub(crate) async fn wait_for_space(
        &self,
        wait: Wait,
        full: DurableSubmitError,
        bytes: usize,
        space: Option<watch::Receiver<()>>,
    ) -> Result<(), DurableSubmitError> {
        let Wait::Until(until) = wait else { return Err(full) };
        let waited = async {
            match space {
                Some(mut space) => {
                    // Its sender is here.
                    let _ = space.changed().await;
                    Ok(())
                }
                None => {
                    self.note_wait(&full, bytes).await;
                    self.log.space(bytes).await.map_err(DurableSubmitError::from)
                }
            }
        };
        timeout_at(until, waited).await.unwrap_or_else(|_| Err(full.clone()))
    }

    /// Says that calls wait for space on the disk, which may take long: `health` shows it, but nobody may look.
    async fn note_wait(&self, full: &DurableSubmitError, needed: usize) {
        let Some(error) = full.no_space().filter(|_| self.space_log.waits(Instant::now())) else { return };
        let log = self.log.clone();
        let free = self.runtime.spawn_blocking(move || log.free_bytes()).await.ok().flatten();
        let stats = self.log.stats();
        let (min_free, used, limit) = (self.log.min_free_bytes(), stats.bytes, stats.bytes_limit);
        tracing::warn!(%error, needed, free, min_free, used, limit, "rows are not accepted: the log has no space, and calls wait for it");
        self.space_log.said();
    }

    /// Rows were stored.
    pub(crate) fn note_stored(&self) {
        if let Some(after) = self.space_log.stored(Instant::now()) {
            tracing::info!(?after, "rows are accepted again: the log has space");
        }
    }

    /// Hands rows to the next group, and waits for the log. The error resolves when a group was taken.
    async fn attempt(&self, rows: &[Encoded], left: &[usize]) -> Result<Attempt, watch::Receiver<()>> {
        let space = self.gather.space.subscribe();
        let gathered = {
            let rows: Vec<&Encoded> = left.iter().map(|row| &rows[*row]).collect();
            match self.gather.push(&rows, Unit::Rows) {
                Ok(gathered) => gathered,
                Err(NotGathered::Full) => return Err(space),
                Err(NotGathered::Closed) => return Ok(Attempt::Failed(left.to_vec(), DurableSubmitError::closed())),
            }
        };
        if self.acknowledges_early {
            return Ok(Attempt::Stored);
        }
        let mut results = Vec::with_capacity(gathered.blocks.len());
        for block in gathered.blocks {
            results.push(stored(block).await);
        }
        let (mut refused, mut block_bytes, mut full, mut failed) = (Vec::new(), 0, None, None);
        for (row, block) in left.iter().zip(&gathered.of_row) {
            let Err((error, bytes)) = &results[*block] else { continue };
            refused.push(*row);
            block_bytes = block_bytes.max(*bytes);
            let first = if error.is_full() { &mut full } else { &mut failed };
            first.get_or_insert_with(|| error.clone());
        }
        Ok(match (failed, full) {
            // Rows before it may have been refused for want of space: they are not stored either.
            (Some(error), _) => Attempt::Failed(refused, error),
            (None, Some(error)) => Attempt::Full { rows: refused, bytes: block_bytes, error },
            (None, None) => Attempt::Stored,
        })
    }
}

/// What the log says about a block. The error has the bytes of the block.
pub(crate) async fn stored(mut block: watch::Receiver<Stored>) -> Result<(), (DurableSubmitError, usize)> {
    match block.wait_for(Option::is_some).await.map(|stored| stored.clone()) {
        Ok(Some(Err(NotStored { error, bytes }))) => Err((error.into(), bytes)),
        Ok(_) => Ok(()),
        Err(_) => Err((DurableSubmitError::lost(), 0)),
    }
}
