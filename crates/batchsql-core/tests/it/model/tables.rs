//! The tables of a schedule.

use batchsql_core::{Action, ColumnType, Conflict, DynRow, Row, Schema, ValueRef};

use crate::support::{FAR, id};

/// The tables of a schedule; see [`table`].
pub(super) const TABLES: usize = 9;

/// The tables of which every row is tracked, so that their content can be predicted.
pub(super) const TRACKED: [usize; 6] = [1, 2, 3, 4, VERSIONED, DELETED];

/// The table whose rows have versions: only a newer one changes anything.
pub(super) const VERSIONED: usize = 7;

/// The table from which rows are deleted.
pub(super) const DELETED: usize = 8;

/// Plain inserts, and one table for each kind of conflict rule.
pub(super) fn table(number: usize) -> Schema {
    let conflict = match number {
        0 => Conflict::none(),
        1 | 5 => Conflict::update(["key"]),
        2 => Conflict::replace(["key"]),
        3 => Conflict::ignore(["key"]),
        // The same table as number 1, under another rule.
        6 => Conflict::update_columns(["key"], ["b", "id"]),
        VERSIONED => Conflict::update(["key"]).only_if_newer("version"),
        DELETED => Conflict::update(["key"]),
        _ => Conflict::update_columns(["key"], ["a", "id"]),
    };
    let schema = Schema::builder(name(number))
        .column("id", ColumnType::I64)
        .column("key", ColumnType::I64)
        .nullable("a", ColumnType::I64)
        .nullable("b", ColumnType::I64)
        .on_conflict(conflict);
    let schema = if number == VERSIONED { schema.column("version", ColumnType::I64) } else { schema };
    schema.build().unwrap()
}

/// The serial number of a row. A delete has only a key, and each key is deleted at most once: it has the number.
pub(super) fn number_of(row: &DynRow) -> i64 {
    if row.schema().action() == Action::Delete { key(row) / FAR } else { id(row) }
}

pub(super) fn name(table: usize) -> &'static str {
    let names = ["plain", "updated", "replaced", "ignored", "partly updated", "untracked", "updated"];
    names.get(table).copied().unwrap_or(if table == VERSIONED { "versioned" } else { "deleted" })
}

pub(super) fn key(row: &DynRow) -> i64 {
    match row.get("key") {
        Some(ValueRef::I64(key)) => key,
        other => panic!("no key: {other:?}"),
    }
}
