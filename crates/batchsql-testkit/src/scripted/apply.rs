//! Owns how rows are applied: which of them are refused, ignored, left, or come late.
//! Must not know the script.

use std::collections::HashSet;

use batchsql_core::{Attempt, DynRow, ErrorClass, Row, Rows, SinkError, ValueRef, Written};

use super::sink::ScriptedSink;
use super::step::scripted;
use crate::model::Effect;

impl ScriptedSink {
    /// Applies the rows of late writes ([`Late`](crate::Step::Late), [`LateAndSilent`](crate::Step::LateAndSilent)) whose
    /// sessions were not ended; returns the number of rows. A write with a poisoned row is refused, as it would have been in time.
    pub fn deliver(&self) -> usize {
        let mut state = self.lock();
        let late = std::mem::take(&mut state.late);
        let mut rows = 0;
        for (session, step, batch) in late {
            let is_bad = |row: &DynRow| state.poison.as_ref().is_some_and(|(_, is_bad)| is_bad(row));
            let is_trial = step.is_some_and(|step| !step.commits);
            if is_trial || state.ended.contains(&session) || batch.iter().any(is_bad) {
                continue;
            }
            if step.is_some_and(|step| state.positions.advance(&step).is_err()) {
                continue;
            }
            rows += batch.len();
            for row in &batch {
                state.model.apply(row);
            }
            state.batches.push(batch);
        }
        rows
    }

    /// Applies the rows that are not refused.
    pub(super) fn apply(
        &self,
        rows: Rows<'_>,
        attempt: &Attempt,
        rejected: Option<usize>,
    ) -> Result<Written, SinkError> {
        let owned: Vec<DynRow> = (0..rows.len()).map(|row| rows.to_row(row)).collect();
        let mut state = self.lock();
        if let Some(identity) = &state.identity {
            let mut seen = HashSet::new();
            if !owned.iter().all(|row| seen.insert(identity(row))) {
                let text = "the statement has two rows with the same key";
                return Err(SinkError::with_code(ErrorClass::Duplicate, "duplicate", text));
            }
        }
        let was_applied = |row: &DynRow| state.batches.iter().flatten().any(|applied| applied == row);
        let is_bad = |(number, row): (usize, &DynRow)| {
            (rejected == Some(number) && !(state.accepts_again && was_applied(row)))
                || state.poison.as_ref().is_some_and(|(_, is_bad)| is_bad(row))
        };
        let bad: Vec<usize> = owned.iter().enumerate().filter(|row| is_bad(*row)).map(|(number, _)| number).collect();
        let class = match (rejected, &state.poison) {
            (None, Some((class, _))) => *class,
            _ => ErrorClass::Row,
        };
        let refusal = || SinkError::with_code(class, "poison", "a row is poisoned");
        if let Some(step) = attempt.step().filter(|step| step.commits && state.moves_positions_alone) {
            state.positions.advance(step)?;
        }
        if !bad.is_empty() && (attempt.is_atomic() || rejected.is_none() && !state.reports_rows) {
            return Err(refusal());
        }
        if let Some(reference) = &state.reference {
            let has = |row: &DynRow, id: i64| matches!(row.get("id"), Some(ValueRef::I64(own)) if own == id);
            let is_there = |id| owned.iter().chain(state.batches.iter().flatten()).any(|row| has(row, id));
            if !owned.iter().filter_map(reference).all(is_there) {
                let text = "a row refers to a row that is not there";
                return Err(SinkError::with_code(ErrorClass::Row, "reference", text).of_foreign_key());
            }
        }
        if let Some(step) = attempt.step() {
            if !step.commits {
                return state.positions.check(step).map(|()| Written::default());
            }
            if !state.moves_positions_alone {
                state.positions.advance(step)?;
            }
        }
        let mut written = Written::default();
        let mut applied = Vec::with_capacity(owned.len());
        for (number, row) in owned.into_iter().enumerate() {
            let index = u32::try_from(number).expect("a batch has fewer rows");
            if bad.contains(&number) {
                written.rejected.push((index, refusal()));
                continue;
            }
            if state.model.apply(&row) == Effect::Ignored {
                written.ignored.push(index);
                continue;
            }
            let columns = row.schema().returning();
            if let (Some(value), false) = (&state.returns, columns.is_empty()) {
                written.returned.push((index, columns.iter().map(|column| value(&row, column.name())).collect()));
            }
            applied.push(row);
        }
        state.batches.push(applied);
        Ok(written)
    }

    /// Applies the rows but one and the later ones with its key.
    pub(super) fn leave(
        &self,
        rows: Rows<'_>,
        attempt: &Attempt,
        row: usize,
        class: ErrorClass,
    ) -> Result<Written, SinkError> {
        if row >= rows.len() {
            return self.apply(rows, attempt, None);
        }
        if attempt.is_atomic() {
            return Err(scripted(class));
        }
        let (left, applied) = part_from(rows, row);
        let reported = self.apply(rows.gather(&applied).rows(), attempt, None)?;
        let mut written = Written::default();
        written.ignored = reported.ignored.iter().map(|index| applied[*index as usize]).collect();
        written.rejected =
            reported.rejected.into_iter().map(|(index, error)| (applied[index as usize], error)).collect();
        written.returned =
            reported.returned.into_iter().map(|(index, values)| (applied[index as usize], values)).collect();
        written.unfinished = left.into_iter().map(|row| (row, scripted(class))).collect();
        Ok(written)
    }

    /// Applies the rows, and reports no outcome of one row and of the later ones with its key.
    pub(super) fn lose(&self, rows: Rows<'_>, attempt: &Attempt, row: usize) -> Result<Written, SinkError> {
        let mut written = self.apply(rows, attempt, None)?;
        if row >= rows.len() {
            return Ok(written);
        }
        if attempt.is_atomic() {
            return Err(scripted(ErrorClass::Unknown));
        }
        let (left, _) = part_from(rows, row);
        written.ignored.retain(|row| !left.contains(row));
        written.rejected.retain(|(row, _)| !left.contains(row));
        written.returned.retain(|(row, _)| !left.contains(row));
        written.unfinished = left.into_iter().map(|row| (row, scripted(ErrorClass::Unknown))).collect();
        Ok(written)
    }
}

/// A row and the later ones with its key, and the others.
fn part_from(rows: Rows<'_>, row: usize) -> (Vec<u32>, Vec<u32>) {
    let key = |row: usize| {
        let values = rows.schema().key_columns().iter().map(|column| rows.column(*column).get(row).to_value());
        values.collect::<Vec<_>>()
    };
    let is_left = |number: usize| number == row || number > row && !key(row).is_empty() && key(number) == key(row);
    let number = |row: usize| u32::try_from(row).expect("a batch has fewer rows");
    (0..rows.len()).map(number).partition(|number| is_left(*number as usize))
}
