//! Owns the rules of a database for rows that are columns already, and why one of them is refused.
//! Must not know pipelines.

use crate::model::batch::Rows;
use crate::model::views::{ColumnValues, ColumnView};
use crate::row::error::RowError;
use crate::row::writer::ValueRules;

/// A row that does not fit, of rows that are columns.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("row {row}: {error}")]
#[non_exhaustive]
pub struct RefusedRow {
    /// Its number among the rows, from 0.
    pub row: usize,
    /// Why it does not fit.
    pub error: RowError,
}

impl RefusedRow {
    /// The row with this number, from 0, does not fit.
    pub fn new(row: usize, error: RowError) -> Self {
        Self { row, error }
    }
}

/// The first row that a database with these rules, or a buffer for `max_row_bytes`, cannot take.
pub(crate) fn check_columns(rows: Rows<'_>, rules: ValueRules, max_row_bytes: usize) -> Result<(), RefusedRow> {
    if rows.is_empty() {
        return Ok(());
    }
    let schema = rows.schema();
    if let Some(why) = rules.refuse_rows {
        return Err(RefusedRow { row: 0, error: RowError::refused_row(schema, why) });
    }
    let mut first: Option<RefusedRow> = None;
    let mut refuse = |row: usize, error: RowError| {
        if first.as_ref().is_none_or(|first| row < first.row) {
            first = Some(RefusedRow { row, error });
        }
    };
    for (index, column) in schema.columns().iter().enumerate() {
        let view = rows.column(index);
        if let Some((row, what)) = refused_value(view, rules) {
            refuse(row, RowError::refused_value(schema, column.name(), what));
        }
    }
    // Few sets of rows have so many bytes that one row may have too many.
    if rows.bytes() > max_row_bytes
        && let Some((row, bytes)) =
            (0..rows.len()).map(|row| (row, rows.slice(row..row + 1).bytes())).find(|(_, bytes)| *bytes > max_row_bytes)
    {
        refuse(row, RowError::too_large(schema, bytes, max_row_bytes));
    }
    first.map_or(Ok(()), Err)
}

/// The first value of a column that the database cannot hold. It is as in `RowWriter`, where a row is written.
fn refused_value(view: ColumnView<'_>, rules: ValueRules) -> Option<(usize, &'static str)> {
    let is_there = |row: &usize| !view.is_null(*row);
    match view.values() {
        ColumnValues::Text(texts) if rules.refuse_nul_in_text => {
            let has_nul = |row: &usize| texts.get(*row).as_bytes().contains(&0);
            let (_, _, all) = texts.parts();
            let row = all.as_bytes().contains(&0).then(|| (0..texts.len()).find(has_nul)).flatten()?;
            Some((row, "text with a NUL character, which this database cannot hold; remove it"))
        }
        ColumnValues::U64(numbers) if rules.refuse_u64_above_i64 => {
            let is_above = |row: &usize| i64::try_from(numbers[*row]).is_err();
            let row = (0..numbers.len()).filter(is_there).find(is_above)?;
            Some((row, "a value above i64::MAX, the largest integer of this database"))
        }
        ColumnValues::F32(numbers) => refused_float(numbers.len(), &|row| f64::from(numbers[row]), rules, &is_there),
        ColumnValues::F64(numbers) => refused_float(numbers.len(), &|row| numbers[row], rules, &is_there),
        _ => None,
    }
}

fn refused_float(
    rows: usize,
    number: &dyn Fn(usize) -> f64,
    rules: ValueRules,
    is_there: &dyn Fn(&usize) -> bool,
) -> Option<(usize, &'static str)> {
    if !rules.refuse_nan && !rules.refuse_infinity {
        return None;
    }
    let refused = |row: usize| {
        let number = number(row);
        if number.is_nan() && rules.refuse_nan {
            Some((row, "NaN, which this database cannot hold; send NULL instead"))
        } else if number.is_infinite() && rules.refuse_infinity {
            Some((row, "an infinite number, which this database cannot hold"))
        } else {
            None
        }
    };
    (0..rows).filter(is_there).find_map(refused)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::Schema;
    use crate::model::value::{ColumnType, ValueRef};
    use crate::row::column_builder::ColumnBuilder;
    use crate::row::row_buffer::RowBuffer;

    /// What is refused in columns is what is refused in rows, with the same text.
    #[test]
    fn columns_are_refused_as_rows_are() {
        let rules = ValueRules {
            refuse_nul_in_text: true,
            refuse_nan: true,
            refuse_infinity: true,
            refuse_u64_above_i64: true,
            refuse_rows: None,
        };
        let check = |ty: ColumnType, good: ValueRef<'_>, bad: ValueRef<'_>| {
            let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("v", ty).build().unwrap();
            let mut rows = ColumnBuilder::new(&schema, 4);
            for (id, value) in [good, ValueRef::Null, bad, bad].into_iter().enumerate() {
                rows.push(0, ValueRef::I64(id as i64)).unwrap();
                rows.push(1, value).unwrap();
            }
            let rows = rows.finish().unwrap();
            let refused = check_columns(rows.rows(), rules, 1 << 20).unwrap_err();
            let by_row = RowBuffer::new(&schema, rules).push(&rows.rows().row(2)).unwrap_err();
            assert_eq!(refused.row, 2, "{ty}");
            assert_eq!(refused.error.column(), by_row.column());
            assert!(refused.error.is_out_of_range() && by_row.is_out_of_range(), "{refused} / {by_row}");
            assert_eq!(check_columns(rows.rows().slice(0..2), rules, 1 << 20), Ok(()));
            assert_eq!(check_columns(rows.rows(), ValueRules::default(), 1 << 20), Ok(()));
        };
        check(ColumnType::Text, ValueRef::Text("a"), ValueRef::Text("a\0b"));
        check(ColumnType::U64, ValueRef::U64(1), ValueRef::U64(u64::MAX));
        check(ColumnType::F32, ValueRef::F32(1.0), ValueRef::F32(f32::NAN));
        check(ColumnType::F64, ValueRef::F64(1.0), ValueRef::F64(f64::NEG_INFINITY));
    }

    #[test]
    fn a_row_that_can_never_be_in_the_buffer_is_found() {
        let schema = Schema::builder("t").column("v", ColumnType::Text).build().unwrap();
        let mut rows = ColumnBuilder::new(&schema, 3);
        for length in [30, 31, 50] {
            rows.push(0, ValueRef::Text(&"x".repeat(length))).unwrap();
        }
        let rows = rows.finish().unwrap();
        let limit = schema.fixed_row_len() + 30;
        let refused = check_columns(rows.rows(), ValueRules::default(), limit).unwrap_err();
        assert!(refused.row == 1 && refused.error.is_too_large(), "{refused}");
        assert_eq!(check_columns(rows.rows(), ValueRules::default(), limit + 20), Ok(()));
    }
}
