//! Owns the search for rows with a value that a column would round, cut or reject: they are found before they are sent.
//! Must not know statements, connections or what happens to a rejected row.

use batchsql_core::{ColumnView, Rows, SinkError};

use crate::field::Field;
use crate::params::unfit;
use crate::part_fit::check_parts;
use crate::value_fit::check;
use crate::value_limit::ValueLimit;
use crate::wire::Wire;

/// The rows that cannot be stored unchanged, each with the first reason, ascending.
pub(crate) fn unfit_rows(rows: Rows<'_>, fields: &[Field]) -> Vec<(u32, SinkError)> {
    let mut found: Vec<(u32, SinkError)> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let form = &field.form;
        let column = rows.column(index);
        if !is_checked(&column, form.limit, form.wire) {
            continue;
        }
        let mut digits = String::new();
        for (row, number) in (0..rows.len()).zip(0_u32..) {
            let value = column.get(row);
            let checked = check(value, form.limit, form.wire, &mut digits);
            let checked = checked.and_then(|()| field.parts.as_ref().map_or(Ok(()), |part| check_parts(value, part)));
            if let Err(why) = checked {
                found.push((number, unfit(why, &field.name)));
            }
        }
    }
    // The sort keeps the order of the columns.
    found.sort_by_key(|(row, _)| *row);
    found.dedup_by_key(|(row, _)| *row);
    found
}

/// Whether the values of a column need a check: those with a limit, and those of variable length.
fn is_checked(column: &ColumnView<'_>, limit: ValueLimit, wire: Wire) -> bool {
    use batchsql_core::exhaustive::Values;
    let has_any_length = matches!(column.values().exhaustive(), Values::Text(_) | Values::Json(_) | Values::Bytes(_));
    limit != ValueLimit::None || wire.is_flat() || has_any_length
}
