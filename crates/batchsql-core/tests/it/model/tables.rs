//! The tables of a schedule.

use batchsql_core::{ColumnType, Conflict, DynRow, Schema, ValueRef};

/// The tables of a schedule; see [`table`].
pub(super) const TABLES: usize = 7;

/// The tables of which every row is tracked, so that their content can be predicted.
pub(super) const TRACKED: std::ops::Range<usize> = 1..5;

/// Plain inserts, and one table for each kind of conflict rule.
pub(super) fn table(number: usize) -> Schema {
    let conflict = match number {
        0 => Conflict::none(),
        1 | 5 => Conflict::update(["key"]),
        2 => Conflict::replace(["key"]),
        3 => Conflict::ignore(["key"]),
        // The same table as number 1, under another rule.
        6 => Conflict::update_columns(["key"], ["b", "id"]),
        _ => Conflict::update_columns(["key"], ["a", "id"]),
    };
    Schema::builder(name(number))
        .column("id", ColumnType::I64)
        .column("key", ColumnType::I64)
        .nullable("a", ColumnType::I64)
        .nullable("b", ColumnType::I64)
        .on_conflict(conflict)
        .build()
        .unwrap()
}

pub(super) fn name(table: usize) -> &'static str {
    ["plain", "updated", "replaced", "ignored", "partly updated", "untracked", "updated"][table]
}

pub(super) fn key(row: &DynRow) -> i64 {
    match row.get("key") {
        Some(ValueRef::I64(key)) => key,
        other => panic!("no key: {other:?}"),
    }
}
