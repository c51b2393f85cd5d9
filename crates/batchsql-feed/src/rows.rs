//! Owns how a stored block becomes rows of the program's schema.
//! Must not know the pipeline.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use batchsql_core::{
    Column, ColumnBuilder, ColumnType, ErrorClass, RowError, SharedRows, SinkError, StopReason, ValueRef,
};

use crate::block::rows::read;
use crate::block::schema_record::LoggedSchema;
use crate::block::{Unreadable, schema_record};
use crate::key::{KeyOrder, OrderedTables};
use crate::misfits::Misfit;
use crate::options::Misfits;
use crate::schemas::{Resolved, Schemas, Unresolved};
use crate::source::SourceBlock;

/// The rows of a block, as columns.
#[derive(Debug)]
pub(crate) struct StoredRows {
    /// The sequence of the first row.
    pub(crate) first: u64,
    pub(crate) rows: SharedRows,
    /// Which of them keep their order.
    pub(crate) order: KeyOrder,
    /// Why each of them cannot be written; empty if they can.
    pub(crate) refusals: Vec<SinkError>,
    /// Those that have ended before, by their sequences.
    pub(crate) ended: Vec<RangeInclusive<u64>>,
}

impl StoredRows {
    pub(crate) fn len(&self) -> usize {
        self.rows.rows().len()
    }

    /// The sequence of the last row.
    pub(crate) fn last(&self) -> u64 {
        self.first + self.len() as u64 - 1
    }

    /// The rows from this number on that have not ended, and those that have, as ranges.
    pub(crate) fn split_ended(&self, from: usize) -> (Vec<u32>, Vec<Range<usize>>) {
        let number = |sequence: u64| {
            usize::try_from(sequence.saturating_sub(self.first)).map_or(self.len(), |n| n.min(self.len()))
        };
        let ended = self.ended.iter().filter(|rows| *rows.end() >= self.first);
        let ended = ended.map(|rows| number(*rows.start()).max(from)..number(*rows.end() + 1));
        let ended: Vec<Range<usize>> = ended.filter(|rows| !rows.is_empty()).collect();
        let (mut left, mut next) = (Vec::new(), from);
        for rows in ended.iter().cloned().chain(std::iter::once(self.len()..self.len())) {
            left.extend((next..rows.start).map(|row| u32::try_from(row).expect("a block has at most MAX_ROWS rows")));
            next = rows.end;
        }
        (left, ended)
    }

    pub(crate) fn is_refused(&self) -> bool {
        !self.refusals.is_empty()
    }

    /// The row with this number, which cannot be written.
    pub(crate) fn misfit(&self, row: usize, error: SinkError) -> Misfit {
        Misfit { block: self.first, rows: self.rows.clone(), row, error }
    }

    /// The rows from this number on, if they are refused.
    pub(crate) fn misfits_from(&self, from: usize) -> impl Iterator<Item = Misfit> {
        let refusals = self.refusals.iter().enumerate().skip(from);
        refusals.map(|(row, error)| self.misfit(row, error.clone()))
    }
}

/// Why a block does not become rows.
#[derive(Debug, Clone)]
pub(crate) enum NoRows {
    /// Another schema may help.
    Unresolved(Unresolved),
    /// Nothing in this process helps.
    Unusable(StopReason, String),
}

/// Why a value of a block is not in its rows.
enum NoValue {
    Unreadable(Unreadable),
    Row(usize, RowError),
}

impl From<Unreadable> for NoValue {
    fn from(error: Unreadable) -> Self {
        Self::Unreadable(error)
    }
}

/// The rows of a block, in pieces that are written or refused as a whole: usually one.
pub(crate) fn rows_of(
    block: &SourceBlock,
    schemas: &Schemas,
    ordered: &OrderedTables,
    misfits: Misfits,
) -> Result<Vec<StoredRows>, NoRows> {
    if let Some(rows) = &block.rows
        && !rows.rows().is_empty()
    {
        let order = KeyOrder::of(rows.rows().schema(), ordered);
        let (refusals, ended) = (Vec::new(), block.ended.clone());
        return Ok(vec![StoredRows { first: block.first, rows: rows.clone(), order, refusals, ended }]);
    }
    let bytes = block.schema.as_deref().ok_or(NoRows::Unresolved(Unresolved::Lost))?;
    if block.count == 0 {
        let text = format!("the block at {} has no rows, which is a defect of its source", block.first);
        return Err(NoRows::Unusable(StopReason::Unreadable, text));
    }
    let resolved = match (schemas.resolve(bytes), misfits) {
        (Ok(resolved), _) => resolved,
        (Err(error @ Unresolved::NoColumn { .. }), Misfits::Reject) => {
            let stored = Stored::new(block, bytes)?;
            let refusals = vec![refusal(&error); stored.count()];
            return stored.pieces(None, vec![(0..stored.count(), refusals)], ordered);
        }
        (Err(error), _) => return Err(NoRows::Unresolved(error)),
    };
    let stored = Stored::new(block, bytes)?;
    let pieces = match stored.first_null(&resolved)? {
        None => vec![(0..stored.count(), Vec::new())],
        Some((row, error)) if misfits == Misfits::Stop => {
            let sequence = block.first + row as u64;
            let text = format!("row {sequence} does not fit the schema of the program: {error}; correct the schema");
            return Err(NoRows::Unusable(StopReason::Schema, text));
        }
        Some(_) => stored.split_at_nulls(&resolved)?,
    };
    stored.pieces(Some(&resolved), pieces, ordered)
}

fn refusal(error: &dyn std::fmt::Display) -> SinkError {
    SinkError::new(ErrorClass::Row, error.to_string())
}

/// Rows of a block, and why each of them cannot be written; empty if they can.
type Piece = (Range<usize>, Vec<SinkError>);

/// A block with its schema as it was stored.
struct Stored<'a> {
    block: &'a SourceBlock,
    logged: LoggedSchema,
    columns: Vec<(ColumnType, bool)>,
}

impl<'a> Stored<'a> {
    fn new(block: &'a SourceBlock, schema: &[u8]) -> Result<Self, NoRows> {
        let logged = schema_record::decode(schema).map_err(|error| NoRows::Unresolved(error.into()))?;
        let columns = logged.columns.iter().map(|column| (column.ty, column.is_nullable)).collect();
        Ok(Self { block, logged, columns })
    }

    fn count(&self) -> usize {
        self.block.count as usize
    }

    /// Gives each value to `put`, with the numbers of its stored column and of its row.
    fn read(&self, put: impl FnMut(usize, usize, ValueRef<'_>) -> Result<(), NoValue>) -> Result<(), NoRows> {
        let SourceBlock { first, count, bytes, .. } = self.block;
        read(&self.columns, *count, bytes, put).map_err(|error| match error {
            NoValue::Unreadable(error) => {
                let text = format!("the block of rows {first} to {} cannot be read: {error}", self.block.last());
                NoRows::Unusable(StopReason::Unreadable, text)
            }
            NoValue::Row(row, error) => self.misfit(row, &error),
        })
    }

    fn misfit(&self, row: usize, error: &RowError) -> NoRows {
        let sequence = self.block.first + row as u64;
        let text = format!("row {sequence} does not fit the schema of the program: {error}; correct the schema");
        NoRows::Unusable(StopReason::Schema, text)
    }

    /// Gives `put` the row of each `NULL` in a column that allows none.
    fn nulls(
        &self,
        Resolved { schema, places }: &Resolved,
        mut put: impl FnMut(usize, RowError),
    ) -> Result<(), NoRows> {
        let columns = places.iter().copied().zip(schema.columns());
        let strict: Vec<(usize, &Column)> =
            columns.filter(|(at, column)| self.columns[*at].1 && !column.is_nullable()).collect();
        if strict.is_empty() {
            return Ok(());
        }
        self.read(|column, row, value| {
            if value.column_type().is_none()
                && let Some((_, column)) = strict.iter().find(|(at, _)| *at == column)
            {
                put(row, RowError::null(schema, column.name()));
            }
            Ok(())
        })
    }

    fn first_null(&self, resolved: &Resolved) -> Result<Option<(usize, RowError)>, NoRows> {
        let mut first: Option<(usize, RowError)> = None;
        self.nulls(resolved, |row, error| {
            if first.as_ref().is_none_or(|(first, _)| row < *first) {
                first = Some((row, error));
            }
        })?;
        Ok(first)
    }

    fn split_at_nulls(&self, resolved: &Resolved) -> Result<Vec<Piece>, NoRows> {
        let mut refused = BTreeMap::new();
        self.nulls(resolved, |row, error| {
            refused.entry(row).or_insert(error);
        })?;
        let (mut pieces, mut next) = (Vec::<Piece>::new(), 0);
        for (row, error) in refused {
            let is_neighbor = next == row && !pieces.is_empty();
            pieces.extend((next < row).then_some((next..row, Vec::new())));
            next = row + 1;
            match pieces.last_mut() {
                Some((rows, refusals)) if is_neighbor => {
                    rows.end = next;
                    refusals.push(refusal(&error));
                }
                _ => pieces.push((row..next, vec![refusal(&error)])),
            }
        }
        pieces.extend((next < self.count()).then_some((next..self.count(), Vec::new())));
        Ok(pieces)
    }

    /// Reads the block once, into the rows of each piece. Refused rows keep the schema that they were stored with.
    fn pieces(
        &self,
        resolved: Option<&Resolved>,
        pieces: Vec<Piece>,
        ordered: &OrderedTables,
    ) -> Result<Vec<StoredRows>, NoRows> {
        let as_stored = match pieces.iter().any(|(_, refusals)| !refusals.is_empty()) {
            true => Some(self.logged.to_schema().map_err(|error| {
                let text = format!("rows do not fit the schema of the program, and cannot be rejected: {error}");
                NoRows::Unusable(StopReason::Schema, text)
            })?),
            false => None,
        };
        // The numbers of the columns, by those of the stored ones.
        let mut numbers: Vec<usize> = (0..self.columns.len()).collect();
        let places = resolved.iter().flat_map(|resolved| resolved.places.iter().enumerate());
        places.for_each(|(number, place)| numbers[*place] = number);
        let mut builders = Vec::with_capacity(pieces.len());
        for (rows, refusals) in &pieces {
            let schema = match refusals.is_empty() {
                false => as_stored.as_ref(),
                true => resolved.map(|resolved| &resolved.schema),
            };
            let schema = schema.expect("rows that are not refused have a schema, as have those that are");
            builders.push((rows.clone(), ColumnBuilder::new(schema, rows.len()), KeyOrder::of(schema, ordered)));
        }
        // Columns are read one after the other, each from the first row to the last.
        let mut at = 0;
        self.read(|column, row, value| {
            if row == 0 {
                at = 0;
            }
            while row >= builders[at].0.end {
                at += 1;
            }
            let number = if pieces[at].1.is_empty() { numbers[column] } else { column };
            builders[at].1.push(number, value).map_err(|error| NoValue::Row(row, error))
        })?;
        let built = builders.into_iter().zip(pieces).map(|((range, rows, order), (_, refusals))| {
            let rows = rows.finish().map_err(|error| self.misfit(range.start, &error))?;
            let ended = self.block.ended.clone();
            Ok(StoredRows { first: self.block.first + range.start as u64, rows, order, refusals, ended })
        });
        built.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use batchsql_core::{PipelineConfig, RowBuffer, Schema, ValueRules};

    use super::*;

    /// Rows with `NULL` in these places, as pieces: their numbers, and whether they are refused.
    fn pieces(nulls: &[usize]) -> Vec<(Range<usize>, bool)> {
        let id = || Schema::builder("t").column("id", ColumnType::I64);
        let stored = id().nullable("note", ColumnType::Text).nullable("more", ColumnType::Text).build().unwrap();
        let declared = id().column("note", ColumnType::Text).column("more", ColumnType::Text).build().unwrap();
        let mut rows = RowBuffer::new(&stored, ValueRules::default());
        for row in 0..10 {
            let value = (!nulls.contains(&row)).then_some("x");
            let row = stored.row().set("id", row as i64).unwrap().set("note", value).unwrap().set("more", value);
            rows.push(&row.unwrap().finish().unwrap()).unwrap();
        }
        let (record, bytes) = (schema_record::encode(&stored), crate::block::encode(rows.into_rows().rows()));
        let block = SourceBlock::new(5, 10, Some(record.into()), bytes, SystemTime::now());
        let schemas = Schemas::new(vec![declared], "declare");
        let ordered = OrderedTables::of(&PipelineConfig::default());
        let found = rows_of(&block, &schemas, &ordered, Misfits::Reject).unwrap();
        let piece = |rows: StoredRows| {
            let (first, len) = ((rows.first - 5) as usize, rows.len());
            assert!(!rows.is_refused() || rows.refusals.len() == len, "each row has its reason");
            (first..first + len, rows.is_refused())
        };
        found.into_iter().map(piece).collect()
    }

    #[test]
    fn neighbors_that_are_refused_are_one_piece() {
        assert_eq!(pieces(&[]), [(0..10, false)]);
        assert_eq!(pieces(&[3, 4, 5, 8]), [(0..3, false), (3..6, true), (6..8, false), (8..9, true), (9..10, false)]);
        assert_eq!(pieces(&[0, 1, 9]), [(0..2, true), (2..9, false), (9..10, true)]);
        assert_eq!(pieces(&(0..10).collect::<Vec<_>>()), [(0..10, true)]);
    }
}
