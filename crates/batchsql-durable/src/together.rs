//! Owns how rows are accepted together: all of them are stored or none, and a request with a key once.
//! Must not know how groups are written.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use batchsql_core::Row;
use batchsql_feed::block::MAX_ROWS;
use batchsql_feed::key::KeyOrder;
use batchsql_log::{StoredKey, TableId};

use crate::error::{DurableSubmitError, DurableTrySubmitAllError};
use crate::feed::recent::block_bytes;
use crate::handle::DurableBatchSql;
use crate::intake::gather::{Encoded, NotGathered, Unit};
use crate::intake::in_flight::Taken;
use crate::request::{Once, RequestKey, StoredRequest};
use crate::shared::Shared;
use crate::submit::{Wait, stored};

/// Rows that are stored all or none, of one table or several; made by [`DurableBatchSql::group`]. They are checked when they
/// are added, and in memory as columns until they are stored.
pub struct RowGroup {
    shared: Arc<Shared>,
    rows: Vec<Encoded>,
    /// The last one of each partition: its rows come before all that follow.
    last: HashMap<(TableId, Option<u32>), usize>,
    count: usize,
    bytes: usize,
}

impl RowGroup {
    /// Adds a row. A row that is refused adds nothing.
    ///
    /// # Errors
    /// The row does not fit its table or its rule counts repeats, or the group would take more than half of a segment of the log
    /// ([`segment_bytes`](crate::DurableOptions::segment_bytes), 32 MiB by default):
    /// [`is_too_many`](DurableSubmitError::is_too_many).
    pub fn push<R: Row + ?Sized>(&mut self, row: &R) -> Result<(), DurableSubmitError> {
        let Self { shared, rows, last, .. } = self;
        let schema = row.schema();
        let entry = shared.entry(schema)?;
        let bytes = schema.fixed_row_len() + row.variable_len();
        if !shared.gather.fits_together(self.bytes + bytes, rows.len() + 1) {
            return Err(DurableSubmitError::too_many(self.count + 1, self.bytes + bytes));
        }
        let fits = |place: &Encoded| {
            place.entry.schema_id == entry.schema_id
                && place.rows.bytes() + bytes <= shared.gather.shared_bytes()
                && place.rows.len() < MAX_ROWS
        };
        let blocks = rows.len();
        if entry.order == KeyOrder::None {
            // Without a buffer of its own.
            match last.get(&(entry.table, None)).map(|last| &mut rows[*last]).filter(|place| fits(place)) {
                Some(place) => place.rows.push(row)?,
                None => {
                    rows.push(shared.encode(row)?);
                    last.insert((entry.table, None), rows.len() - 1);
                }
            }
        } else {
            let encoded = shared.encode(row)?;
            let place = (entry.table, encoded.partition);
            match last.get(&place).map(|last| &mut rows[*last]).filter(|place| fits(place)) {
                Some(place) => place.rows.append(&encoded.rows),
                None => {
                    rows.push(encoded);
                    last.insert(place, rows.len() - 1);
                }
            }
        }
        // Rows with other columns than those before have a block of their own, which takes more than a small row.
        let block = if rows.len() > blocks { block_bytes(schema) } else { 0 };
        self.count += 1;
        self.bytes += bytes + block;
        Ok(())
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that it takes in memory, about: those of the rows, as in the byte budget of a pipeline, and of each block of rows with
    /// the same columns 256, and 128 for each column.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Shows sizes, never a value.
impl fmt::Debug for RowGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RowGroup").field("rows", &self.count).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl DurableBatchSql {
    /// No rows yet, to be stored all or none with [`submit_group`](Self::submit_group).
    pub fn group(&self) -> RowGroup {
        RowGroup { shared: Arc::clone(self.shared()), rows: Vec::new(), last: HashMap::new(), count: 0, bytes: 0 }
    }

    /// Stores all of these rows or none, with one sync, also if the machine stops meanwhile; returns how many. They are written
    /// to the database as other rows are: a transaction may end between two of them, and each has an outcome of its own. Waits
    /// for space for all of them together, as `when_full` says. An empty group stores nothing.
    ///
    /// # Errors
    /// The intake is closed, or there is no space and `when_full` does not wait. No row was stored. After an error that
    /// [is undetermined](DurableSubmitError::is_undetermined) all rows may be stored, or none.
    ///
    /// # Cancel safety
    /// If the call is cancelled, all rows may be stored, or none.
    pub async fn submit_group(&self, group: &RowGroup) -> Result<usize, DurableSubmitError> {
        let shared = self.shared();
        shared.store_together(&group.rows, None, Wait::of(shared.when_full)).await?;
        Ok(group.count)
    }

    /// As [`submit_group`](Self::submit_group), once for each key: the key is stored with the rows, all or none. Called again
    /// with the same key and the same [content](RequestKey::new), now or after a restart, it stores nothing and returns
    /// [`Once::Repeated`]. So a request that got no answer can be sent again. Keys are known for as long as
    /// [`DurableOptions::keys`](crate::DurableOptions::keys) says. A group without rows stores no key.
    ///
    /// # Errors
    /// As [`submit_group`](Self::submit_group). The key was used with other content
    /// ([`is_other_content`](DurableSubmitError::is_other_content)), or another call with it has not ended
    /// ([`is_in_use`](DurableSubmitError::is_in_use)); no row was stored then.
    ///
    /// # Cancel safety
    /// If the call is cancelled, the rows and the key may be stored, or none of them: call it again with the same key.
    pub async fn submit_group_once(&self, group: &RowGroup, key: &RequestKey) -> Result<Once, DurableSubmitError> {
        key.check()?;
        let shared = self.shared();
        let wait = Wait::of(shared.when_full);
        let repeated = shared.store_together(&group.rows, Some((key, group.count)), wait).await?;
        Ok(repeated.map_or(Once::Stored(group.count), Once::Repeated))
    }

    /// Stores all of these rows or none, and does not wait for space; returns how many. It does wait until they are on disk.
    ///
    /// # Errors
    /// As [`submit_group`](Self::submit_group), and one of the rows does not fit its table, whose index
    /// [`row`](DurableTrySubmitAllError::row) returns, or there is no space for all of them now
    /// ([`is_full`](DurableSubmitError::is_full)), or never ([`is_too_many`](DurableSubmitError::is_too_many)). No row was stored,
    /// unless the error [is undetermined](DurableSubmitError::is_undetermined).
    ///
    /// # Cancel safety
    /// As [`submit_group`](Self::submit_group).
    pub fn try_submit_all<I>(&self, rows: I) -> impl Future<Output = Result<usize, DurableTrySubmitAllError>> + Send
    where
        I: IntoIterator<IntoIter: Send, Item: Row + Send>,
    {
        let rows = rows.into_iter();
        async move {
            let mut group = self.group();
            for (index, row) in rows.enumerate() {
                group.push(&row).map_err(|source| {
                    let row = Some(index).filter(|_| !source.is_too_many());
                    DurableTrySubmitAllError { row, source }
                })?;
            }
            let stored = self.shared().store_together(&group.rows, None, Wait::Never).await;
            stored.map_err(|source| DurableTrySubmitAllError { row: None, source })?;
            Ok(group.count)
        }
    }
}

impl Shared {
    /// Stores all rows or none. With a key that is known: returns how many rows were stored with it before.
    async fn store_together(
        &self,
        rows: &[Encoded],
        request: Option<(&RequestKey, usize)>,
        wait: Wait,
    ) -> Result<Option<usize>, DurableSubmitError> {
        loop {
            let space = self.gather.space.subscribe();
            let key = match request {
                None => None,
                Some((request, count)) => {
                    let known = || self.log.key(request.key());
                    match self.in_flight.take(request.key(), &request.value(count), known) {
                        Ok(key) => Some(key),
                        Err(Taken::InUse) => return Err(DurableSubmitError::in_use()),
                        Err(Taken::Known(known)) => return repeated(request, &known).map(Some),
                    }
                }
            };
            if rows.is_empty() {
                return Ok(None);
            }
            let gathered = self.gather.push(&rows.iter().collect::<Vec<_>>(), Unit::Together(key));
            let (full, bytes, space) = match gathered {
                Err(NotGathered::Closed) => return Err(DurableSubmitError::closed()),
                Err(NotGathered::Full) => (DurableSubmitError::busy(), 0, Some(space)),
                Ok(_) if self.acknowledges_early => return Ok(None),
                Ok(gathered) => {
                    let mut not_stored = None;
                    for block in gathered.blocks {
                        // They have one outcome.
                        not_stored = stored(block).await.err().or(not_stored);
                    }
                    match not_stored {
                        None => {
                            self.note_stored();
                            return Ok(None);
                        }
                        Some((error, bytes)) if error.is_full() => (error, bytes, None),
                        Some((error, _)) => return Err(error),
                    }
                }
            };
            self.wait_for_space(wait, full, bytes, space).await?;
        }
    }
}

/// What was stored with the key.
fn repeated(request: &RequestKey, known: &StoredKey) -> Result<usize, DurableSubmitError> {
    let stored = StoredRequest::read(&known.value).ok_or_else(DurableSubmitError::other_content)?;
    if stored.content != request.content() {
        return Err(DurableSubmitError::other_content());
    }
    Ok(usize::try_from(stored.rows).unwrap_or(usize::MAX))
}
