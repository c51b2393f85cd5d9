//! Owns what is decided once per schema: the checked table, the form of each column, the way to write, the statements.
//! Must not know rows.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use batchsql_core::{Column, Conflict, ErrorClass, Schema, SinkError};
use batchsql_sql::mysql::{OnDuplicate, insert, insert_values};
use batchsql_sql::rows_per_statement;
use sqlx::Executor;
use sqlx::mysql::MySqlConnection;

use crate::bind::PACKET_HEADER;
use crate::catalog::{Session, Table, TableColumn, same_name};
use crate::classify::Failed;
use crate::keys::KeySearch;
use crate::options::{IgnoreWith, ReplaceWith};
use crate::statements::{PREFERRED_ROWS, Statement, Statements};
use crate::types::{Storage, storage};

/// Characters of a name of a database, table or column.
const MAX_NAME: usize = 64;
/// Placeholders of one statement: the protocol counts them in two bytes.
pub(crate) const MAX_BINDS: usize = 65_535;
/// A statement is at most this large, also where the server takes more: a larger one gains nothing and only makes
/// the server hold more memory.
const PREFERRED_BYTES: usize = 16 << 20;

/// How rows meet those that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One statement says it all: a plain insert, an update, a replace.
    Direct(OnDuplicate),
    /// Rows whose key is there are left out; the outcome says which.
    Ignore(IgnoreWith),
}

/// How batches of one schema are written.
pub struct MySqlPlan {
    schema: Schema,
    /// Where the table was found, its definition, and when that was last checked.
    database: String,
    table: Table,
    checked_at: Mutex<Instant>,
    pub(crate) storage: Box<[Storage]>,
    pub(crate) way: Way,
    /// Rows of a statement, at most.
    pub(crate) max_rows: usize,
    /// Bytes of the rows of a statement, at most.
    pub(crate) max_bytes: usize,
    /// The server's own word, for errors.
    pub(crate) max_allowed_packet: usize,
    /// `None` where keys cannot be looked up.
    pub(crate) keys: Option<KeySearch>,
    /// Whether the last batch had rows whose key was there, so that the next one asks first.
    expects_duplicates: AtomicBool,
    statements: Statements,
}

impl fmt::Debug for MySqlPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlPlan")
            .field("table", &self.schema.table())
            .field("way", &self.way)
            .field("max_rows", &self.max_rows)
            .finish_non_exhaustive()
    }
}

impl MySqlPlan {
    pub(crate) fn insert(&self, rows: usize) -> Statement {
        let on_duplicate = match self.way {
            Way::Direct(on_duplicate) => on_duplicate,
            Way::Ignore(IgnoreWith::InsertIgnore) => OnDuplicate::Ignore,
            Way::Ignore(IgnoreWith::Exact) => OnDuplicate::Fail,
        };
        self.statements.get(rows, || {
            let values: Vec<&str> = self.storage.iter().map(|storage| storage.form.expression()).collect();
            insert_values(&self.schema, rows, on_duplicate, &values)
        })
    }

    /// The sizes of inserts that stay prepared and together hold `rows` rows. A number of rows that comes again is one
    /// insert; one that comes once is cut, rather than prepared for one use.
    pub(crate) fn split(&self, rows: usize) -> Vec<usize> {
        self.statements.split(rows)
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    pub(crate) fn expects_duplicates(&self) -> bool {
        self.expects_duplicates.load(Ordering::Relaxed)
    }

    pub(crate) fn set_expects_duplicates(&self, expects: bool) {
        self.expects_duplicates.store(expects, Ordering::Relaxed);
    }

    /// Whether the last check of the table is this long ago; then the caller checks it.
    pub(crate) fn is_due(&self, after: Duration) -> bool {
        let mut checked_at = self.checked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = checked_at.elapsed() >= after;
        if is_due {
            *checked_at = Instant::now();
        }
        is_due
    }

    /// Reads the table again; an error of the schema when it is not what the plan was made for.
    pub(crate) async fn check_again(&self, connection: &mut MySqlConnection) -> Result<(), Failed> {
        let now = Table::read(connection, &self.database, self.schema.table()).await.map_err(Failed::asked)?;
        if now.as_ref() == Some(&self.table) { Ok(()) } else { Err(outdated("it was changed")) }
    }

    /// Reads the session and the table, and has the server check statement and rights. No packet is larger than
    /// `packet`.
    pub(crate) async fn make(
        connection: &mut MySqlConnection,
        schema: &Schema,
        (ignore_with, replace_with): (IgnoreWith, ReplaceWith),
        packet: &AtomicUsize,
    ) -> Result<Self, Failed> {
        let problem = |text: String| {
            let text = format!("table {}: {text}", schema.table_display());
            Failed::unsent(SinkError::new(ErrorClass::Schema, text))
        };
        let open = Failed::asked;
        let session = Session::read(connection).await.map_err(open)?;
        check_session(&session).map_err(problem)?;
        let Some(database) = schema.table().namespace().or(session.database.as_deref()) else {
            return Err(problem("no database is chosen; name one in the dsn, or qualify the table".into()));
        };
        let way = way(schema, ignore_with, replace_with);
        check_names(schema).map_err(problem)?;
        let Some(table) = Table::read(connection, database, schema.table()).await.map_err(open)? else {
            check_dots(schema).map_err(problem)?;
            // The server knows whether there is none or it is not for this user.
            try_statement(connection, &insert(schema, 1, OnDuplicate::Fail)).await?;
            return Err(problem("it does not exist; create it before rows are submitted".into()));
        };
        check_case(schema, &table).map_err(problem)?;
        check_kind(&table).map_err(problem)?;
        let storage = schema
            .columns()
            .iter()
            .map(|column| column_storage(column, &table.columns, &session).map_err(problem))
            .collect::<Result<Box<[Storage]>, Failed>>()?;
        check_left_out(schema, &table.columns).map_err(problem)?;
        check_key(schema, &table).map_err(problem)?;
        warn_of_further_indexes(schema, &table, way);
        let columns = storage.iter().map(|storage| storage.form.placeholders()).sum();
        packet.fetch_min(session.max_allowed_packet, Ordering::Relaxed);
        let packet = packet.load(Ordering::Relaxed);
        let text_of_rows = |rows| insert(schema, rows, OnDuplicate::Fail).len();
        // The text of a statement is a packet too: an expression and a comma per value, two bytes per row.
        let text_of_row: usize = storage.iter().map(|storage| storage.form.expression().len() + 1).sum();
        let preparable = (packet.saturating_sub(text_of_rows(1) * 2) / (text_of_row + 2)).clamp(1, PREFERRED_ROWS);
        let max_rows = rows_per_statement(columns, MAX_BINDS, preparable)
            .ok_or_else(|| problem(format!("{columns} columns are more than the {MAX_BINDS} values of a statement")))?;
        let plan = Self {
            storage,
            way,
            max_rows,
            max_bytes: packet.min(PREFERRED_BYTES).saturating_sub(PACKET_HEADER),
            max_allowed_packet: packet,
            // A key that is read before it is committed may be undone: then only the insert knows.
            keys: KeySearch::new(schema, &table.columns).filter(|_| !session.reads_uncommitted),
            expects_duplicates: AtomicBool::new(false),
            statements: Statements::default(),
            schema: schema.clone(),
            database: database.to_owned(),
            table,
            checked_at: Mutex::new(Instant::now()),
        };
        // Checks the rights, and what the catalog does not show.
        try_statement(connection, &plan.insert(1).sql).await?;
        if let (Way::Ignore(IgnoreWith::Exact), Some(keys)) = (way, &plan.keys) {
            try_statement(connection, &keys.select(1).sql).await?;
        }
        Ok(plan)
    }
}

/// Has the pipeline make another plan.
pub(crate) fn outdated(why: &str) -> Failed {
    Failed::unsent(SinkError::new(ErrorClass::Schema, format!("the table must be read again: {why}")))
}

fn way(schema: &Schema, ignore_with: IgnoreWith, replace_with: ReplaceWith) -> Way {
    match (schema.conflict(), replace_with) {
        (Conflict::None, _) => Way::Direct(OnDuplicate::Fail),
        (Conflict::Replace { .. }, ReplaceWith::ReplaceInto) => Way::Direct(OnDuplicate::Replace),
        // Ignore, or an update of a table whose columns are all part of the key.
        _ if schema.update_columns().is_empty() => Way::Ignore(ignore_with),
        _ => Way::Direct(OnDuplicate::Update),
    }
}

/// Has the server parse the statement and check the rights of the user; nothing is executed, and nothing stays prepared:
/// a statement that this connection has prepared before would not be sent again.
async fn try_statement(connection: &mut MySqlConnection, sql: &str) -> Result<(), Failed> {
    connection.describe(sql).await.map(drop).map_err(Failed::asked)
}

/// Names that the server would refuse without saying what is wrong about them.
fn check_names(schema: &Schema) -> Result<(), String> {
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
            return Err(format!("columns {same:?} and {name:?} are one to the server; remove one from the schema"));
        }
    }
    Ok(())
}

/// A table that is not there, with a name that looks like two.
fn check_dots(schema: &Schema) -> Result<(), String> {
    match schema.table().name().split_once('.') {
        Some((database, table)) if schema.table().namespace().is_none() => Err(format!(
            "it does not exist; the dot is part of its name: for table {table:?} of database {database:?} give \
             TableName::qualified({database:?}, {table:?})"
        )),
        _ => Ok(()),
    }
}

/// Where the server compares names of tables without case, two spellings would be two tables to the pipeline, with an
/// order of their own.
fn check_case(schema: &Schema, table: &Table) -> Result<(), String> {
    let (given, found) = (schema.table(), &table.name);
    if given.name() != found.name {
        return Err(format!(
            "this server calls it {:?}, and does not tell upper from lower case; name it so",
            found.name
        ));
    }
    match given.namespace() {
        Some(database) if database != found.database => Err(format!(
            "this server calls its database {:?}, and does not tell upper from lower case; name it so",
            found.database
        )),
        _ => Ok(()),
    }
}

fn check_session(session: &Session) -> Result<(), String> {
    let has = |mode: &str| session.sql_mode.split(',').any(|set| set == mode);
    if !has("STRICT_ALL_TABLES") && !has("STRICT_TRANS_TABLES") {
        return Err("the session is not strict, so the server would cut values off silently; add STRICT_ALL_TABLES to sql_mode on the connections of the pool".into());
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

fn check_kind(table: &Table) -> Result<(), String> {
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

fn column_storage(column: &Column, table: &[TableColumn], session: &Session) -> Result<Storage, String> {
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
            "its column {name:?} takes no NULL, and the server would replace NULL by the current time; declare the column nullable on one side, or set explicit_defaults_for_timestamp"
        ));
    }
    storage(column.column_type(), found, session).map_err(|why| {
        format!("its column {name:?} is declared {:?}: {} values {why}", found.full_type, column.column_type())
    })
}

fn check_left_out(schema: &Schema, table: &[TableColumn]) -> Result<(), String> {
    let carried = |name: &str| schema.columns().iter().any(|column| same_name(column.name(), name));
    let must_be_given = |column: &&TableColumn| {
        !(column.nullable || column.has_default || column.generated || column.auto_increment || carried(&column.name))
    };
    match table.iter().find(must_be_given) {
        None => Ok(()),
        Some(missing) => Err(format!(
            "its column {:?} is NOT NULL without a default, but rows do not carry it; add it to the schema",
            missing.name
        )),
    }
}

fn check_key(schema: &Schema, table: &Table) -> Result<(), String> {
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

/// MySQL has no conflict target: a row that meets another one in any unique index overwrites that one.
fn warn_of_further_indexes(schema: &Schema, table: &Table, way: Way) {
    if matches!(way, Way::Direct(OnDuplicate::Update | OnDuplicate::Replace)) && table.unique_indexes.len() > 1 {
        let indexes: Vec<&str> = table.unique_indexes.iter().map(|index| index.name.as_str()).collect();
        tracing::warn!(
            table = schema.table_display(),
            indexes = indexes.join(", "),
            "mysql takes every unique index of the table for the conflict key; a row may overwrite one with another key"
        );
    }
}
