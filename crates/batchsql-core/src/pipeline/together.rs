//! Owns how rows are accepted together: all of them, or none.
//! Must not know how batches are written.
//!
//! The rows are first written into columns of their own, with every check, so that the copy into the open batches can no
//! longer fail. Then the capacity of all of them is taken, and only then is the first one accepted. The copy never exceeds
//! the buffer: the first row beyond it ends the call.

use std::collections::HashMap;
use std::sync::atomic::Ordering as Atomic;
use std::sync::{Arc, PoisonError};

use crate::budget::guards::Reservation;
use crate::intake::groups::Known;
use crate::model::columns::ColumnBuffer;
use crate::model::schema::{Schema, SchemaId};
use crate::outcome::tracking::Tracking;
use crate::pipeline::error::{SubmitError, TrySubmitAllError};
use crate::pipeline::handle::BatchSql;
use crate::pipeline::validate::{empty_columns, write_checked};
use crate::row::error::RowError;
use crate::row::traits::Row;
use crate::row::writer::RowWriter;

/// Rows that are checked and not yet accepted.
#[derive(Default)]
struct Staged {
    groups: Vec<StagedGroup>,
    by_schema: HashMap<SchemaId, usize>,
    rows: Vec<Position>,
    bytes: usize,
}

/// The staged rows of one schema.
struct StagedGroup {
    known: Arc<Known>,
    columns: Vec<ColumnBuffer>,
    rows: usize,
    bytes: usize,
}

/// Where a staged row is, and what the table needs to know of it.
struct Position {
    group: usize,
    row: usize,
    bytes: usize,
    key_hash: u64,
}

/// One staged row.
struct StagedRow<'a> {
    group: &'a StagedGroup,
    position: &'a Position,
}

impl Row for StagedRow<'_> {
    fn schema(&self) -> &Schema {
        &self.group.known.group.schema
    }

    fn variable_len(&self) -> usize {
        self.position.bytes - self.schema().fixed_row_len()
    }

    fn key_hash(&self) -> u64 {
        self.position.key_hash
    }

    fn write(&self, writer: &mut RowWriter<'_>) -> Result<(), RowError> {
        let row = self.position.row;
        self.group.columns.iter().try_for_each(|column| writer.value(column.view(row..row + 1).get(0)))
    }
}

impl BatchSql {
    /// Accepts all of these rows if there is capacity for all of them now, and otherwise none; returns how many. The rows
    /// may be of several tables. They are accepted together, and written like other rows: a batch may end between two
    /// of them, and each has an outcome of its own.
    ///
    /// # Errors
    /// As [`try_submit`](Self::try_submit): one of the rows does not fit its table, whose index
    /// [`row`](TrySubmitAllError::row) returns, or the pipeline is closed, or there is no capacity for all of them now
    /// ([`is_full`](SubmitError::is_full)), or never ([`is_too_many`](SubmitError::is_too_many)): then the rows after the
    /// first one that exceeds the buffer are not checked. No row was accepted.
    pub fn try_submit_all<I>(&self, rows: I) -> Result<usize, TrySubmitAllError>
    where
        I: IntoIterator<Item: Row>,
    {
        let mut staged = Staged::default();
        for (index, row) in rows.into_iter().enumerate() {
            if let Err(source) = self.stage(&mut staged, &row) {
                self.report_refused(&row, &source);
                if source.is_too_many() {
                    self.report_staged(&staged, &source);
                    return Err(TrySubmitAllError { row: None, source });
                }
                return Err(TrySubmitAllError { row: Some(index), source });
            }
        }
        self.accept_staged(&staged).map_err(|source| {
            self.report_staged(&staged, &source);
            TrySubmitAllError { row: None, source }
        })?;
        Ok(staged.rows.len())
    }

    /// Reports all staged rows as refused.
    fn report_staged(&self, staged: &Staged, error: &SubmitError) {
        for position in &staged.rows {
            self.report_refused(&StagedRow { group: &staged.groups[position.group], position }, error);
        }
    }

    fn stage<R: Row>(&self, staged: &mut Staged, row: &R) -> Result<(), SubmitError> {
        let (known, bytes) = self.admit(row)?;
        let Staged { groups, by_schema, rows, bytes: total } = staged;
        let (rows_in_all, bytes_in_all) = (rows.len() + 1, total.saturating_add(bytes));
        if rows_in_all > self.0.config.buffer_size || bytes_in_all > self.0.config.buffer_bytes {
            return Err(SubmitError::too_many(rows_in_all, bytes_in_all));
        }
        let group = *by_schema.entry(row.schema().id()).or_insert_with(|| {
            let columns = empty_columns(row.schema());
            groups.push(StagedGroup { known: known.into_arc(), columns, rows: 0, bytes: 0 });
            groups.len() - 1
        });
        let StagedGroup { known, columns, rows: rows_of_group, bytes: bytes_of_group } = &mut groups[group];
        write_checked(row, bytes, columns, known.group.limits.values)?;
        // Asked only if equal keys matter, as for every other row.
        let key_hash = if known.table.is_serial() { row.key_hash() } else { 0 };
        rows.push(Position { group, row: *rows_of_group, bytes, key_hash });
        *rows_of_group += 1;
        *bytes_of_group += bytes;
        *total += bytes;
        Ok(())
    }

    fn accept_staged(&self, staged: &Staged) -> Result<(), SubmitError> {
        // Each table takes capacity of its own share. All of it is given back if one of them gets none.
        let reserve = |group: &StagedGroup| self.try_reserve(&group.known.table, group.rows, group.bytes);
        let mut reservations: Vec<Reservation<'_>> = staged.groups.iter().map(reserve).collect::<Result<_, _>>()?;
        // From here on the pipeline cannot close before the last row is accepted.
        let _together = self.0.together.read().unwrap_or_else(PoisonError::into_inner);
        if self.0.intake.closed.load(Atomic::SeqCst) {
            return Err(SubmitError::closed());
        }
        for position in &staged.rows {
            let group = &staged.groups[position.group];
            let row = StagedRow { group, position };
            let reservation = &mut reservations[position.group];
            // It fails only if the runtime of the pipeline has just ended. Then no row of the pipeline is written.
            self.push(&group.known, &row, position.bytes, &Tracking::Untracked, reservation)?;
        }
        Ok(())
    }
}
