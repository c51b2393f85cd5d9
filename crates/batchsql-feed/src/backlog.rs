//! Owns what the task of a partition has read and not passed, and which rows of it the next step has.
//! Must not know positions, or how rows are written.

use batchsql_core::{BatchSql, ErrorClass, Queue, RowError, Schema, SharedRows, SinkError};

use crate::context::Context;
use crate::misfits::Misfit;
use crate::partition::Found;
use crate::rows::StoredRows;

/// So many rows more than a step takes are read while the table accepts none, or only [`LARGE_ROWS`] in all if they have the bytes of
/// two steps: the first rows may all be bad, however large they are.
const ROWS_BEHIND: usize = 4_096;
const LARGE_ROWS: usize = 64;

/// What was read, in its order.
pub(crate) struct Backlog {
    waiting: Queue<Waiting>,
    /// Rows up to this one need not be written: the next step passes them.
    passed: u64,
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
    pub(crate) fn new() -> Self {
        Self { waiting: Queue::new(), passed: 0 }
    }

    /// Forgets all: the source begins anew.
    pub(crate) fn clear(&mut self) {
        self.waiting.clear();
        self.passed = 0;
    }

    /// Adds what was read.
    pub(crate) fn take(&mut self, found: Found) {
        match found {
            Found::Rows(pieces) => self.waiting.extend(pieces.into_iter().map(|stored| Waiting::Rows(stored, 0))),
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

    /// Whether there are as many rows, or bytes, as a step may have. While the table accepts none, more are read: the rows of one
    /// step may all be bad, and others show whether the table accepts any.
    pub(crate) fn is_enough(&self, context: &Context, is_table_blamed: bool) -> bool {
        let enough = self.waiting.front().map_or(1, |front| match front {
            Waiting::Rows(stored, _) => context.pipeline.max_step_rows(stored.rows.rows().schema()),
            Waiting::Skipped(_) => 1,
        });
        let (rows, bytes, most) = (self.rows_waiting(), self.bytes_waiting(), context.step_bytes());
        if is_table_blamed {
            return rows >= enough.saturating_add(ROWS_BEHIND) || (rows >= LARGE_ROWS && bytes >= 2 * most);
        }
        rows >= enough || bytes >= most
    }

    /// How many bytes the blocks have that wait, also of the rows of theirs that are passed.
    fn bytes_waiting(&self) -> usize {
        let bytes = |waiting: &Waiting| match waiting {
            Waiting::Rows(stored, _) => stored.rows.rows().bytes(),
            Waiting::Skipped(_) => 0,
        };
        self.waiting.iter().map(bytes).sum()
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
            match front {
                Waiting::Skipped(last) => self.passed = self.passed.max(*last),
                Waiting::Rows(stored, _) if stored.last() <= self.passed => {}
                Waiting::Rows(stored, from) => {
                    let passed = (self.passed + 1).saturating_sub(stored.first);
                    *from = usize::try_from(passed).map_or(*from, |passed| passed.max(*from));
                    break;
                }
            }
            self.waiting.pop_front();
        }
    }

    /// The rows of one schema at the front.
    pub(crate) fn front(&self, context: &Context) -> Front {
        let pipeline = &context.pipeline;
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
        let (most, most_bytes) = (pipeline.max_step_rows(schema), context.step_bytes());
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

/// The row is refused before it is sent.
fn row_refused(error: &RowError) -> SinkError {
    SinkError::new(ErrorClass::Row, error.to_string())
}
