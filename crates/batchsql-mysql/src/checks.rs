//! Owns the requirements on a session, a table and its names before rows are written, and the advice if one is
//! not met.
//! Must not know connections or statements.

use batchsql_core::{Action, Column, Schema};
use batchsql_sql::mysql::OnDuplicate;

use crate::catalog::{Session, Table, TableColumn, same_name};
use crate::types::{Storage, storage};
use crate::way::Way;

/// Maximum length of a database, table or column name, in characters.
const MAX_NAME: usize = 64;

/// Rejects names for which the server's own error would not say what is wrong.
pub(crate) fn check_names(schema: &Schema) -> Result<(), String> {
    let table = schema.table();
    let columns = || schema.columns().iter().map(Column::name);
    let mut names = table.namespace().into_iter().chain([table.name()]).chain(columns());
    if let Some(long) = names.find(|name| name.chars().count() > MAX_NAME) {
        return Err(format!(
            "the name {long:?} has more than the {MAX_NAME} characters that a name may have; shorten it"
        ));
    }
    for (place, name) in columns().enumerate() {
        if let Some(same) = columns().take(place).find(|other| same_name(other, name)) {
            return Err(format!("the server sees columns {same:?} and {name:?} as one; remove one from the schema"));
        }
    }
    Ok(())
}

/// Explains a missing table whose name contains a dot.
pub(crate) fn check_dots(schema: &Schema) -> Result<(), String> {
    match schema.table().name().split_once('.') {
        Some((database, table)) if schema.table().namespace().is_none() => Err(format!(
            "it does not exist; the dot is part of its name: for table {table:?} of database {database:?} give \
             TableName::qualified({database:?}, {table:?})"
        )),
        _ => Ok(()),
    }
}

/// If the server compares table names without case, the pipeline would treat two spellings as two tables, each with
/// its own order.
pub(crate) fn check_case(schema: &Schema, table: &Table) -> Result<(), String> {
    let (given, found) = (schema.table(), &table.name);
    if given.name() != found.name {
        return Err(format!(
            "this server calls it {:?}, and compares names without case; use this spelling",
            found.name
        ));
    }
    match given.namespace() {
        Some(database) if database != found.database => Err(format!(
            "this server calls its database {:?}, and compares names without case; use this spelling",
            found.database
        )),
        _ => Ok(()),
    }
}

pub(crate) fn check_session(session: &Session) -> Result<(), String> {
    let has = |mode: &str| session.sql_mode.split(',').any(|set| set == mode);
    if !has("STRICT_ALL_TABLES") && !has("STRICT_TRANS_TABLES") {
        return Err("the session is not strict, so the server would cut values off silently; add STRICT_ALL_TABLES to sql_mode on the connections of the pool".into());
    }
    if has("EMPTY_STRING_IS_NULL") {
        return Err("the session stores empty texts as NULL; remove EMPTY_STRING_IS_NULL from sql_mode on the connections of the pool".into());
    }
    if !session.autocommit {
        return Err("the session is not in autocommit, so a statement would not be committed; set autocommit = 1 on the connections of the pool".into());
    }
    if session.character_set != "utf8mb4" {
        return Err(format!(
            "the session's character set is {}, so text would be changed; use charset utf8mb4 on the connections of the pool",
            session.character_set
        ));
    }
    Ok(())
}

pub(crate) fn check_kind(table: &Table) -> Result<(), String> {
    if !matches!(table.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED") {
        return Err(format!("it is a {}; write to the table behind it", table.kind.to_ascii_lowercase()));
    }
    if !table.has_savepoints {
        return Err(format!(
            "its engine {} has no transactions, so a batch that fails could not be undone; ALTER TABLE … ENGINE = InnoDB",
            table.engine
        ));
    }
    Ok(())
}

pub(crate) fn column_storage(column: &Column, table: &[TableColumn], session: &Session) -> Result<Storage, String> {
    let name = column.name();
    // The server compares column names without case.
    let Some(found) = table.iter().find(|found| same_name(&found.name, name)) else {
        let known: Vec<&str> = table.iter().map(|found| found.name.as_str()).collect();
        return Err(format!(
            "it has no column {name:?}; add it with ALTER TABLE or remove it from the schema (the table has {})",
            known.join(", ")
        ));
    };
    if found.generated {
        return Err(format!("its column {name:?} is generated; remove it from the schema"));
    }
    let keeps_zero = session.sql_mode.split(',').any(|mode| mode == "NO_AUTO_VALUE_ON_ZERO");
    if found.auto_increment && !keeps_zero {
        return Err(format!(
            "its column {name:?} is AUTO_INCREMENT, where the server would replace 0 by a number of its own; add NO_AUTO_VALUE_ON_ZERO to sql_mode on the connections of the pool, or remove the column from the schema"
        ));
    }
    if found.data_type == "timestamp" && !found.nullable && column.is_nullable() && !session.explicit_timestamps {
        return Err(format!(
            "its column {name:?} is NOT NULL, and the server would replace NULL by the current time; declare the column nullable on one side, or set explicit_defaults_for_timestamp"
        ));
    }
    storage(column.column_type(), found, session).map_err(|why| {
        format!("its column {name:?} is declared {:?}: {} values {why}", found.full_type, column.column_type())
    })
}

pub(crate) fn check_left_out(schema: &Schema, table: &[TableColumn]) -> Result<(), String> {
    let carried = |name: &str| schema.columns().iter().any(|column| same_name(column.name(), name));
    let must_be_given = |column: &&TableColumn| {
        !(column.nullable || column.has_default || column.generated || column.auto_increment || carried(&column.name))
    };
    match table.iter().find(must_be_given) {
        None => Ok(()),
        Some(missing) => Err(format!(
            "its column {:?} is NOT NULL without a default, but the rows have no value for it; add it to the row type or the schema, or give it a default",
            missing.name
        )),
    }
}

pub(crate) fn check_key(schema: &Schema, table: &Table) -> Result<(), String> {
    let key: Vec<&str> = schema.key_columns().iter().map(|i| schema.columns()[*i].name()).collect();
    let is_key = |columns: &[Option<String>]| {
        let is_part = |column: &Option<String>| column.as_ref().is_some_and(|c| key.iter().any(|k| same_name(k, c)));
        columns.len() == key.len() && columns.iter().all(is_part)
    };
    if key.is_empty() || table.unique_indexes.iter().any(|index| is_key(&index.columns)) {
        return Ok(());
    }
    Err(format!(
        "rows cannot be inserted with conflict key ({}); a PRIMARY KEY or UNIQUE index over exactly these columns must exist, without prefix lengths",
        key.join(", ")
    ))
}

/// MySQL has no conflict target: a row that has a duplicate in any unique index overwrites the existing row.
pub(crate) fn warn_of_further_indexes(schema: &Schema, table: &Table, way: Way) {
    let inserts = !matches!(schema.action(), Action::UpdateOnly | Action::Delete);
    let updates = matches!(way, Way::Direct(OnDuplicate::Update | OnDuplicate::Replace)) || way == Way::ByKey;
    if inserts && updates && table.unique_indexes.len() > 1 {
        let indexes: Vec<&str> = table.unique_indexes.iter().map(|index| index.name.as_str()).collect();
        tracing::warn!(
            table = schema.table_display(),
            indexes = indexes.join(", "),
            "mysql applies the conflict rule to every unique index; a row may overwrite one with another key"
        );
    }
}
