//! Owns the requirements on a session, a table and its names before rows are written, and the advice for each that is
//! not met.
//! Must not know connections or statements.

use batchsql_core::{Action, Column, Schema, TableName};
use batchsql_sql::mysql::OnDuplicate;
use batchsql_sql::{TableProblems, missing_columns};

use crate::catalog::{Session, Table, TableColumn, same_name};
use crate::types::{Storage, storage};
use crate::way::Way;

/// Maximum length of a database, table or column name, in characters.
const MAX_NAME: usize = 64;

/// The last character that a name may have.
const MAX_CHARACTER: char = '\u{FFFF}';

/// Adds names for which the server's own error would not say what is wrong.
pub(crate) fn check_names(schema: &Schema, problems: &mut TableProblems) {
    let table = schema.table();
    let columns = || schema.columns().iter().map(Column::name);
    let names = table.namespace().into_iter().chain([table.name()]).chain(columns());
    problems.extend(names.filter(|name| name.chars().count() > MAX_NAME).map(|long| {
        format!("the name {long:?} has more than the {MAX_NAME} characters that a name may have; shorten it")
    }));
    let names = table.namespace().into_iter().chain([table.name()]).chain(columns());
    problems.extend(names.filter(|name| name.chars().any(|c| c > MAX_CHARACTER)).map(|name| {
        format!("the name {name:?} has a character that the server allows in no name, such as an emoji; rename it")
    }));
    for (place, name) in columns().enumerate() {
        if let Some(same) = columns().take(place).find(|other| same_name(other, name)) {
            problems.add(format!("the server sees columns {same:?} and {name:?} as one; remove one from the schema"));
        }
    }
}

/// Whether the server can look for a table with this name.
pub(crate) fn can_be_asked_for(name: &TableName) -> bool {
    name.namespace().into_iter().chain([name.name()]).all(|name| name.chars().all(|c| c <= MAX_CHARACTER))
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

pub(crate) fn check_session(session: &Session, problems: &mut TableProblems) {
    if session.leaves_rows_out {
        problems.add("the session leaves rows of queries out (sql_select_limit), so stored rows would not be found; set sql_select_limit = 18446744073709551615 on the connections of the pool");
        return;
    }
    let has = |mode: &str| session.sql_mode.split(',').any(|set| set == mode);
    if !has("STRICT_ALL_TABLES") && !has("STRICT_TRANS_TABLES") {
        problems.add("the session is not strict, so the server would cut values off silently; add STRICT_ALL_TABLES to sql_mode on the connections of the pool");
    }
    if has("EMPTY_STRING_IS_NULL") {
        problems.add("the session stores empty texts as NULL; remove EMPTY_STRING_IS_NULL from sql_mode on the connections of the pool");
    }
    if !session.autocommit {
        problems.add("the session is not in autocommit, so a statement would not be committed; set autocommit = 1 on the connections of the pool");
    }
    if session.character_set != "utf8mb4" {
        problems.add(format!(
            "the session's character set is {}, so text would be changed; use charset utf8mb4 on the connections of the pool",
            session.character_set
        ));
    }
}

/// # Errors
/// It is not a table.
pub(crate) fn check_kind(table: &Table) -> Result<(), String> {
    if matches!(table.kind.as_str(), "BASE TABLE" | "SYSTEM VERSIONED") {
        return Ok(());
    }
    Err(format!("it is a {}; write to the table behind it", table.kind.to_ascii_lowercase()))
}

pub(crate) fn check_engine(table: &Table) -> Result<(), String> {
    if table.has_savepoints {
        return Ok(());
    }
    Err(format!(
        "its engine {} has no transactions, so a batch that fails could not be undone; ALTER TABLE … ENGINE = InnoDB",
        table.engine
    ))
}

/// How each column is written; `None` if the table lacks a column, or a column does not accept values of its type.
pub(crate) fn storages(
    schema: &Schema,
    table: &[TableColumn],
    session: &Session,
    problems: &mut TableProblems,
) -> Option<Box<[Storage]>> {
    let mut storages = Vec::with_capacity(schema.columns().len());
    let mut missing = Vec::new();
    for column in schema.columns() {
        // The server compares column names without case.
        match table.iter().find(|found| same_name(&found.name, column.name())) {
            Some(found) => storages.extend(problems.check(column_storage(column, found, session))),
            None => missing.push(column.name()),
        }
    }
    problems.extend(missing_columns(&missing, table.iter().map(|found| &*found.name)));
    (storages.len() == schema.columns().len()).then(|| storages.into())
}

fn column_storage(column: &Column, found: &TableColumn, session: &Session) -> Result<Storage, String> {
    let name = column.name();
    if found.generated {
        return Err(format!("its column {name:?} is generated; remove it from the schema"));
    }
    let keeps_zero = session.sql_mode.split(',').any(|mode| mode == "NO_AUTO_VALUE_ON_ZERO");
    if found.auto_increment && !keeps_zero {
        return Err(format!(
            "its column {name:?} is AUTO_INCREMENT, where the server would replace 0 by a number of its own; add NO_AUTO_VALUE_ON_ZERO to sql_mode on the connections of the pool, or remove the column from the schema"
        ));
    }
    storage(column.column_type(), found, session).map_err(|why| {
        format!("its column {name:?} is declared {:?}: {} values {why}", found.full_type, column.column_type())
    })
}

/// Adds the columns that need a value, and for which the rows have none.
pub(crate) fn check_left_out(schema: &Schema, table: &[TableColumn], problems: &mut TableProblems) {
    let carried = |name: &str| schema.columns().iter().any(|column| same_name(column.name(), name));
    let must_be_given = |column: &&TableColumn| {
        !(column.nullable || column.has_default || column.generated || column.auto_increment || carried(&column.name))
    };
    problems.extend(table.iter().filter(must_be_given).map(|missing| {
        format!(
            "its column {:?} is NOT NULL without a default, but the rows have no value for it; add it to the row type or the schema, or give it a default",
            missing.name
        )
    }));
}

/// # Errors
/// There is no unique index over exactly the key. Not checked if the table lacks a column of the key, which is another problem.
pub(crate) fn check_key(schema: &Schema, table: &Table) -> Result<(), String> {
    let key: Vec<&str> = schema.key_columns().iter().map(|i| schema.columns()[*i].name()).collect();
    let is_key = |columns: &[Option<String>]| {
        let is_part = |column: &Option<String>| column.as_ref().is_some_and(|c| key.iter().any(|k| same_name(k, c)));
        columns.len() == key.len() && columns.iter().all(is_part)
    };
    let is_there = |name: &&str| table.columns.iter().any(|column| same_name(&column.name, name));
    if key.is_empty() || !key.iter().all(is_there) || table.unique_indexes.iter().any(|index| is_key(&index.columns)) {
        return Ok(());
    }
    Err(format!(
        "rows cannot be written with conflict key ({}); a PRIMARY KEY or UNIQUE index over exactly these columns must exist, without prefix lengths",
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
