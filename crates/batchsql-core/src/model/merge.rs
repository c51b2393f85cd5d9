//! Owns how rows of one key become one row, if the rule of their table adds them up or chooses among their values.
//! Must not know which rows are merged, or when.
//!
//! The merged row has the effect of its rows one after the other, whether the key is in the table or not, except for
//! `Expr::now`: of several rows of a new key, the second one would be an update and set the time. The merged row is only
//! inserted, so the column has its default, or the submitted value if it is declared.
//!
//! ```text
//! rule: hits adds, first_seen is kept, note is overwritten
//! rows           (k, hits 1, first_seen 10, note a)   (k, hits 2, first_seen 12, note b)
//! merged         (k, hits 3, first_seen 10, note b)
//! ```

use std::cmp::Ordering;
use std::sync::Arc;

use crate::model::batch::{Batch, Rows};
use crate::model::column::Column;
use crate::model::columns::ColumnBuffer;
use crate::model::exhaustive::Set;
use crate::model::value::{Value, ValueRef};
use crate::model::value_order::{add, compare};

/// The values of the row that replaces some rows of one key, given from the last to the first. `None` if a sum is not
/// exact, or too large for its type.
pub(crate) fn values(rows: Rows<'_>, chain: &[u32]) -> Option<Vec<Value>> {
    let schema = rows.schema();
    let column = |index: usize| {
        let view = rows.column(index);
        let mut values = chain.iter().rev().map(|row| view.get(*row as usize));
        let first = values.next()?;
        let is_present = |value: &ValueRef<'_>| *value != ValueRef::Null;
        let choose = |wanted: Ordering| {
            move |kept: ValueRef<'_>, next: ValueRef<'_>| {
                if kept == ValueRef::Null || (next != ValueRef::Null && compare(next, kept) == wanted) {
                    next.to_value()
                } else {
                    kept.to_value()
                }
            }
        };
        let fold = |choose: &dyn Fn(ValueRef<'_>, ValueRef<'_>) -> Value,
                    values: &mut dyn Iterator<Item = ValueRef<'_>>| {
            values.fold(first.to_value(), |kept, next| choose(kept.as_ref(), next))
        };
        let assignment = schema.assignments().iter().find(|assignment| assignment.column == Some(index));
        match assignment.map(|assignment| &assignment.set) {
            // Only the row that is inserted sets it.
            None => Some(first.to_value()),
            Some(Set::Overwrite | Set::Now) => Some(values.next_back().unwrap_or(first).to_value()),
            Some(Set::Keep) => Some(Some(first).into_iter().chain(values).find(is_present).unwrap_or(first).to_value()),
            Some(Set::UnlessNull) => {
                Some(Some(first).into_iter().chain(values).rfind(is_present).unwrap_or(first).to_value())
            }
            Some(Set::Greatest) => Some(fold(&choose(Ordering::Greater), &mut values)),
            Some(Set::Least) => Some(fold(&choose(Ordering::Less), &mut values)),
            Some(Set::Add) => values.try_fold(first.to_value(), |sum, next| add(sum.as_ref(), next)),
            Some(Set::Raw(_)) => None,
        }
    };
    (0..schema.columns().len()).map(column).collect()
}

/// A copy of some rows, in the order given; a row that stands for several is merged. `chain` returns the rows that a
/// row stands for, from the last to the first.
///
/// # Panics
/// When rows cannot be merged: only those are given for which [`values`] are known.
pub(crate) fn gather(batch: &Arc<Batch>, rows: &[u32], chain: impl Fn(u32) -> Vec<u32>) -> Batch {
    let all = Rows::all(batch);
    let new = |column: &Column| ColumnBuffer::new(column.column_type(), column.is_nullable(), 0, 0);
    let mut columns: Vec<ColumnBuffer> = batch.schema().columns().iter().map(new).collect();
    // Single rows come first, then the merged ones; `places` has the place of each row among them.
    let (mut singles, mut merged, mut places) = (Vec::new(), 0, Vec::with_capacity(rows.len()));
    for row in rows {
        let chain = chain(*row);
        if chain.len() == 1 {
            places.push((false, singles.len()));
            singles.push(*row);
        } else {
            let values = values(all, &chain).expect("rows that cannot be merged are written one by one");
            columns.iter_mut().zip(&values).for_each(|(column, value)| column.push(value.as_ref()));
            places.push((true, merged));
            merged += 1;
        }
    }
    let bytes = columns.iter().map(ColumnBuffer::variable_len).sum::<usize>();
    let fixed = merged * batch.schema().fixed_row_len();
    let merged = Arc::new(Batch::new(batch.schema().clone(), columns, merged, bytes + fixed));
    let mut both = batch.gather(&singles);
    both.append(&[merged]);
    let place = |(is_merged, place): &(bool, usize)| if *is_merged { singles.len() + place } else { *place };
    let order: Vec<u32> = places.iter().map(|at| u32::try_from(place(at)).expect("buffer_size fits u32")).collect();
    if order.is_sorted() { both } else { both.gather(&order) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::conflict::Conflict;
    use crate::model::expr::Expr;
    use crate::model::schema::Schema;
    use crate::model::value::ColumnType;

    fn batch(rule: Conflict, rows: &[[ValueRef<'_>; 4]]) -> Arc<Batch> {
        let schema = Schema::builder("t").column("k", ColumnType::I64).nullable("n", ColumnType::I32);
        let schema = schema.nullable("d", ColumnType::Decimal).nullable("s", ColumnType::Text);
        let schema = schema.on_conflict(rule).build().unwrap();
        let new = |column: &Column| ColumnBuffer::new(column.column_type(), column.is_nullable(), 0, 0);
        let mut columns: Vec<ColumnBuffer> = schema.columns().iter().map(new).collect();
        for row in rows {
            columns.iter_mut().zip(row).for_each(|(column, value)| column.push(*value));
        }
        Arc::new(Batch::new(schema, columns, rows.len(), 0))
    }

    use ValueRef::{Decimal, I32, I64, Null, Text};

    const ROWS: [[ValueRef<'static>; 4]; 3] = [
        [I64(1), I32(5), Null, Text("a")],
        [I64(1), Null, Decimal("2.5"), Text("b")],
        [I64(1), I32(3), Decimal("0.25"), Null],
    ];

    #[test]
    fn each_expression_folds_the_values_of_a_key() {
        let check = |rule, expected: [ValueRef<'_>; 4]| {
            let batch = batch(rule, &ROWS);
            let values = values(Rows::all(&batch), &[2, 1, 0]).unwrap();
            assert_eq!(values.iter().map(Value::as_ref).collect::<Vec<_>>(), expected);
        };
        let rule = || Conflict::update(["k"]);
        check(rule().set("n", Expr::add()).set("d", Expr::add()), [I64(1), I32(8), Decimal("2.75"), Null]);
        check(
            rule().set("n", Expr::greatest()).set("s", Expr::unless_null()),
            [I64(1), I32(5), Decimal("0.25"), Text("b")],
        );
        check(rule().set("n", Expr::least()).set("s", Expr::keep()), [I64(1), I32(3), Decimal("0.25"), Text("a")]);
        check(rule().set("d", Expr::keep()).set("n", Expr::unless_null()), [I64(1), I32(3), Decimal("2.5"), Null]);
        // A column that is not updated keeps the value of the row that is inserted.
        check(Conflict::update_columns(["k"], ["n"]).set("n", Expr::add()), [I64(1), I32(8), Null, Text("a")]);
    }

    #[test]
    fn a_copy_has_merged_rows_in_their_places() {
        let mut rows = ROWS.to_vec();
        rows.insert(1, [I64(7), I32(1), Null, Null]);
        let batch = batch(Conflict::update(["k"]).set("n", Expr::add()), &rows);
        let chain = |row: u32| if row == 3 { vec![3, 2, 0] } else { vec![row] };
        let copy = Arc::new(gather(&batch, &[3, 1], chain));
        let rows: Vec<Vec<ValueRef<'_>>> = Rows::all(&copy).iter().map(|row| row.values().collect()).collect();
        assert_eq!(rows, [[I64(1), I32(8), Decimal("0.25"), Null], [I64(7), I32(1), Null, Null]]);
    }
}
