//! Owns what the task of a partition has read and not passed, and which rows of it the next step has.
//! Must not know positions, or how rows are written.

use std::sync::Arc;

use batchsql_core::{BatchSql, ErrorClass, Queue, RowError, Schema, SharedRows, SinkError};

use crate::context::Context;
use crate::misfits::Misfit;
use crate::partition::Found;
use crate::rows::StoredRows;

/// So many rows more than a step takes are read while the table accepts none: the first ones may all be bad. If the memory of all
/// partitions is used, only [`FEW_ROWS`] in all.
const ROWS_BEHIND: usize = 4_096;
const FEW_ROWS: usize = 32;

/// What was read, in its order.
pub(crate) struct Backlog {
    waiting: Queue<Waiting>,
    /// Rows up to this one need not be written: the next step passes them.
    passed: u64,
    context: Arc<Context>,
    /// Of the blocks that wait, also of the rows of theirs that are passed.
    bytes: usize,
}

/// A part of what was read.
enum Waiting {
    /// The rows of a block from this number on.
    Rows(StoredRows, usize),
    /// What is up to this sequence needs no write.
    Skipped(u64),
}

/// What is at the front.
pub(crate) enum Front {
    /// Rows of one schema, with their sequences.
    Rows(SharedRows, Vec<u64>),
    /// Rows of a block that no step can write.
    Refused(Vec<Misfit>),
    /// Nothing that is to be written.
    Nothing,
}

impl Backlog {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { waiting: Queue::new(), passed: 0, context, bytes: 0 }
    }

    fn set_bytes(&mut self, bytes: usize) {
        self.context.waits(self.bytes, bytes);
        self.bytes = bytes;
    }

    /// Forgets all: the source begins anew.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.passed = 0;
        self.set_bytes(0);
    }

    /// Adds what was read.
    pub(crate) fn take(&mut self, found: Found) {
        match found {
            Found::Rows(pieces) => {
                self.set_bytes(self.bytes + pieces.iter().map(bytes_of).sum::<usize>());
                self.waiting.extend(pieces.into_iter().map(|stored| Waiting::Rows(stored, 0)));
            }
            Found::Skipped(_, last) => self.waiting.push_back(Waiting::Skipped(last)),
            Found::Nothing => {}
        }
    }

    /// Rows up to this one need not be written.
    pub(crate) fn pass(&mut self, last: u64) {
        self.passed = self.passed.max(last);
    }

    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether there are as many rows, or bytes, as a step may have; if the memory of all partitions is used, fewer bytes. While the
    /// table accepts none, more are read: the rows of one step may all be bad, and others show whether the table accepts any.
    pub(crate) fn is_enough(&self, is_table_blamed: bool) -> bool {
        let enough = self.waiting.front().map_or(1, |front| match front {
            Waiting::Rows(stored, _) => self.context.pipeline.max_step_rows(stored.rows.rows().schema()),
            Waiting::Skipped(_) => 1,
        });
        let (rows, step) = (self.rows_waiting(), self.context.step_bytes());
        // What other partitions hold does not keep this one from reading its part.
        let is_full = self.bytes >= step.div_ceil(8) && self.context.is_full();
        if is_table_blamed {
            return rows >= enough.saturating_add(ROWS_BEHIND) || (rows >= FEW_ROWS && is_full);
        }
        rows >= enough || self.bytes >= step || is_full
    }

    /// How many rows wait.
    pub(crate) fn rows_waiting(&self) -> usize {
        let rows = |waiting: &Waiting| match waiting {
            Waiting::Rows(stored, from) => stored.len() - from,
            Waiting::Skipped(_) => 1,
        };
        self.waiting.iter().map(rows).sum()
    }

    /// Removes what is passed.
    pub(crate) fn drop_passed(&mut self) {
        while let Some(front) = self.waiting.front_mut() {
            let bytes = match front {
                Waiting::Skipped(last) => {
                    self.passed = self.passed.max(*last);
                    0
                }
                Waiting::Rows(stored, _) if stored.last() <= self.passed => bytes_of(stored),
                Waiting::Rows(stored, from) => {
                    let passed = (self.passed + 1).saturating_sub(stored.first);
                    *from = usize::try_from(passed).map_or(*from, |passed| passed.max(*from));
                    break;
                }
            };
            self.waiting.pop_front();
            self.set_bytes(self.bytes - bytes);
        }
    }

    /// The rows of one schema at the front.
    pub(crate) fn front(&self) -> Front {
        let pipeline = &self.context.pipeline;
        let Some(Waiting::Rows(first, from)) = self.waiting.front() else { return Front::Nothing };
        let schema = first.rows.rows().schema();
        if first.is_refused() {
            return Front::Refused(first.misfits_from(*from).collect());
        }
        let mut rows = match pipeline.row_buffer(schema) {
            Ok(rows) => rows,
            Err(error) => {
                let error = row_refused(&error);
                return Front::Refused((*from..first.len()).map(|row| first.misfit(row, error.clone())).collect());
            }
        };
        let (mut sequences, mut misfits) = (Vec::new(), Vec::new());
        let (most, most_bytes) = (pipeline.max_step_rows(schema), self.context.step_bytes());
        'blocks: for waiting in self.waiting.iter() {
            let Waiting::Rows(stored, from) = waiting else { break };
            let views = stored.rows.rows();
            if views.schema() != schema || stored.is_refused() {
                break;
            }
            for row in *from..stored.len().min(from + most - sequences.len()) {
                if !sequences.is_empty() && rows.bytes() >= most_bytes {
                    break 'blocks;
                }
                match rows.push(&views.row(row)) {
                    Ok(()) if misfits.is_empty() => sequences.push(stored.first + row as u64),
                    // Those before it end first.
                    Ok(()) => break 'blocks,
                    Err(_) if !sequences.is_empty() => break 'blocks,
                    Err(error) => misfits.push(stored.misfit(row, row_refused(&error))),
                }
            }
            if !misfits.is_empty() {
                break;
            }
        }
        if misfits.is_empty() { Front::Rows(rows.into_rows(), sequences) } else { Front::Refused(misfits) }
    }

    /// The row at this place among those behind `last` that have a wanted schema.
    pub(crate) fn row_behind(&self, last: u64, is_wanted: impl Fn(&Schema) -> bool, place: usize) -> Option<u64> {
        let wanted = self.waiting.iter().filter_map(|waiting| match waiting {
            Waiting::Rows(stored, from) if !stored.is_refused() && is_wanted(stored.rows.rows().schema()) => {
                Some((stored, *from))
            }
            _ => None,
        });
        let rows = wanted.flat_map(|(stored, from)| (from..stored.len()).map(|row| stored.first + row as u64));
        rows.filter(|sequence| *sequence > last).nth(place)
    }

    /// A row that waits, alone.
    pub(crate) fn alone(&self, sequence: u64, pipeline: &BatchSql) -> Option<SharedRows> {
        let stored = self.waiting.iter().find_map(|waiting| match waiting {
            Waiting::Rows(stored, _) if stored.first <= sequence && sequence <= stored.last() => Some(stored),
            _ => None,
        })?;
        let view = stored.rows.rows().row((sequence - stored.first) as usize);
        let mut alone = pipeline.row_buffer(view.schema()).ok()?;
        alone.push(&view).ok()?;
        Some(alone.into_rows())
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.set_bytes(0);
    }
}

fn bytes_of(stored: &StoredRows) -> usize {
    stored.rows.rows().bytes()
}

/// The row is refused before it is sent.
fn row_refused(error: &RowError) -> SinkError {
    SinkError::new(ErrorClass::Row, error.to_string())
}
