//! Owns the decisions made once per schema: the checked table, the form of each column, the write strategy, the
//! statements.
//! Must not know rows.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use batchsql_core::{Action, ErrorClass, Schema, SinkError};
use batchsql_sql::mysql::{Join, OnDuplicate, delete, insert, insert_around, insert_values, quote, update};
use batchsql_sql::{TableProblems, rows_per_statement};
use sqlx::Executor;
use sqlx::mysql::MySqlConnection;

use crate::bind::PACKET_HEADER;
use crate::catalog::{Found, Session, Table};
use crate::checks::{
    can_be_asked_for, check_case, check_dots, check_engine, check_key, check_kind, check_left_out, check_names,
    check_session, storages, warn_of_further_indexes,
};
use crate::classify::{Failed, NO_TABLE};
use crate::in_use::State;
use crate::keys::KeySearch;
use crate::locks::{Locks, check_rule};
use crate::returning::{clause, explained};
use crate::settings::{IgnoreWith, ReplaceWith};
use crate::statements::{PREFERRED_ROWS, Statement, Statements};
use crate::tables::Tables;
use crate::types::Storage;
use crate::way::{Way, way};

/// Placeholders of one statement: the protocol counts them in two bytes.
pub(crate) const MAX_BINDS: usize = 65_535;
/// Maximum size of a statement, even if the server accepts more: a larger one is not faster and only takes more
/// server memory.
const PREFERRED_BYTES: usize = 16 << 20;

/// The most plans for sessions with other states.
const MAX_OTHERS: usize = 7;

/// How batches of one schema are written.
pub struct MySqlPlan {
    schema: Schema,
    /// The definition of the table, and when that was last checked.
    table: Arc<Table>,
    tables: Arc<Tables>,
    checked_at: Mutex<Instant>,
    /// The state of the session that has read the table.
    pub(crate) state: Option<State>,
    /// The plans of sessions with other states, the last one last.
    others: Mutex<Vec<Arc<MySqlPlan>>>,
    pub(crate) storage: Box<[Storage]>,
    pub(crate) way: Way,
    /// Maximum rows of a statement.
    pub(crate) max_rows: usize,
    /// Maximum bytes of the rows of a statement.
    pub(crate) max_bytes: usize,
    /// The server's own setting, for errors.
    pub(crate) max_allowed_packet: usize,
    /// `None` where keys cannot be looked up.
    pub(crate) keys: Option<KeySearch>,
    /// For rules that depend on the stored row.
    pub(crate) locks: Locks,
    /// The clause of the returned columns.
    returning: String,
    returning_statements: Statements,
    /// Whether the last batch had rows with existing keys, so that the next one queries the keys first.
    expects_duplicates: AtomicBool,
    /// Whether keys of the last batch did not exist, so that the rows of the next one are locked first.
    expects_missing: AtomicBool,
    statements: Statements,
}

impl fmt::Debug for MySqlPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlPlan")
            .field("table", &self.schema.table())
            .field("way", &self.way)
            .field("max_rows", &self.max_rows)
            .field("is_listed", &self.locks.listed.is_some())
            .finish_non_exhaustive()
    }
}

impl MySqlPlan {
    pub(crate) fn insert(&self, rows: usize) -> Statement {
        self.statements.get(rows, || self.text(rows))
    }

    /// An insert that does not stay prepared.
    pub(crate) fn insert_once(&self, rows: usize) -> Statement {
        Statement { sql: self.text(rows).into(), keep: false }
    }

    /// An insert that returns values.
    pub(crate) fn returning_insert(&self, rows: usize) -> Statement {
        self.returning_statements.get(rows, || self.text(rows) + &self.returning)
    }

    fn text(&self, rows: usize) -> String {
        let values: Vec<&str> = self.storage.iter().map(|storage| storage.form.expression()).collect();
        insert_values(&self.schema, rows, self.on_duplicate(), &values)
    }

    fn on_duplicate(&self) -> OnDuplicate {
        match self.way {
            Way::Direct(on_duplicate) => on_duplicate,
            Way::Ignore(IgnoreWith::InsertIgnore) => OnDuplicate::Ignore,
            Way::Ignore(IgnoreWith::Exact) => OnDuplicate::Fail,
            // Of rows that are known to exist, and to be older.
            Way::ByKey => OnDuplicate::Update,
        }
    }

    /// The text before and after the rows of an insert.
    pub(crate) fn around(&self) -> (String, String) {
        insert_around(&self.schema, self.on_duplicate())
    }

    /// Whether an insert of this many rows stays prepared; call it once per insert that is about to be sent.
    pub(crate) fn keeps(&self, rows: usize) -> bool {
        self.statements.keeps(rows)
    }

    /// The sizes of inserts that stay prepared and together hold `rows` rows. A row count that repeats is one insert;
    /// a new one is split, rather than prepared for one use.
    pub(crate) fn split(&self, rows: usize) -> Vec<usize> {
        self.statements.split(rows)
    }

    /// The plan that a session of this state has made, if it is still known.
    pub(crate) fn of_state(&self, state: &Option<State>) -> Option<Arc<Self>> {
        let others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.iter().find(|other| other.state == *state).cloned()
    }

    pub(crate) fn keep_other(&self, other: Arc<Self>) {
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.retain(|known| known.state != other.state);
        if others.len() >= MAX_OTHERS {
            others.remove(0);
        }
        others.push(other);
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The name of a column of the schema, in quotes.
    pub(crate) fn quoted(&self, column: usize) -> String {
        quote(self.schema.columns()[column].name())
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

    pub(crate) fn expects_missing(&self) -> bool {
        self.expects_missing.load(Ordering::Relaxed)
    }

    pub(crate) fn set_expects_missing(&self, expects: bool) {
        self.expects_missing.store(expects, Ordering::Relaxed);
    }

    /// Whether the last check of the table is this long ago; if so, the caller checks it.
    pub(crate) fn is_due(&self, after: Duration) -> bool {
        let mut checked_at = self.checked_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = checked_at.elapsed() >= after;
        if is_due {
            *checked_at = Instant::now();
        }
        is_due
    }

    /// Reads the table again; returns a schema error if it differs from the table that the plan was made for.
    pub(crate) async fn check_again(&self, connection: &mut MySqlConnection) -> Result<(), Failed> {
        let (database, table) = (&self.table.name.database, self.schema.table());
        let now = Table::read(connection, Some(database), table.name()).await.map_err(Failed::asked)?;
        let is_the_same = matches!(now, Found::Table(now) if now == *self.table);
        self.tables.read_again(self.schema.table(), is_the_same);
        if is_the_same { Ok(()) } else { Err(outdated("it was changed")) }
    }

    /// As [`check_again`](Self::check_again), unless another schema of the table did so in the last `max_age`.
    pub(crate) async fn check_in_time(
        &self,
        connection: &mut MySqlConnection,
        max_age: Duration,
    ) -> Result<(), Failed> {
        match self.tables.read_lately(self.schema.table(), max_age) {
            Some(table) if table == self.table => Ok(()),
            _ => self.check_again(connection).await,
        }
    }

    /// Checks the session and the table, and lets the server check statement and rights. No packet is larger than
    /// `packet`. A definition that was read for another schema of the table, by a session of this state, is reused for `max_age`,
    /// unless a check fails.
    pub(crate) async fn make(
        connection: &mut MySqlConnection,
        schema: &Schema,
        ways: (IgnoreWith, ReplaceWith),
        packet: &AtomicUsize,
        (tables, max_age): (&Arc<Tables>, Duration),
        state: Option<State>,
    ) -> Result<Self, Failed> {
        if let Some((session, table)) = tables.first_time(schema, max_age, &state) {
            let known = (tables, session, table);
            match Self::from_known(connection, schema, ways, packet, known, TableProblems::default()).await {
                Err(failed) if failed.usable => {}
                made => return made,
            }
        }
        let session = Session { state, ..Session::read(connection).await.map_err(Failed::asked)? };
        let mut problems = TableProblems::default();
        check_session(&session, &mut problems);
        let name = schema.table();
        // The server cannot be asked for such a table, or would leave a part of the answer out.
        if session.leaves_rows_out || !can_be_asked_for(name) {
            check_names(schema, &mut problems);
            return finish(schema, problems, None);
        }
        let table = match Table::read(connection, name.namespace(), name.name()).await.map_err(Failed::asked)? {
            Found::Table(table) => table,
            Found::NoDatabase => {
                problems.add("no database is chosen; name one in the dsn, or qualify the table");
                return finish(schema, problems, None);
            }
            Found::NoTable => {
                let of_session = problems.len();
                check_names(schema, &mut problems);
                problems.check(check_dots(schema));
                if problems.len() == of_session {
                    // The server knows whether the table is missing or not visible to this user.
                    match try_statement(connection, &insert(schema, 1, OnDuplicate::Fail)).await {
                        // It is one of several problems.
                        Err(failed) if of_session > 0 && failed.code == NO_TABLE => {}
                        asked => asked?,
                    }
                    problems.add("it does not exist; create it before rows are submitted");
                }
                return finish(schema, problems, None);
            }
        };
        let (session, table) = (Arc::new(session), Arc::new(table));
        if problems.is_empty() {
            tables.keep(schema, &session, &table);
        }
        Self::from_known(connection, schema, ways, packet, (tables, session, table), problems).await
    }

    /// `problems` are those of the session.
    async fn from_known(
        connection: &mut MySqlConnection,
        schema: &Schema,
        (ignore_with, replace_with): (IgnoreWith, ReplaceWith),
        packet: &AtomicUsize,
        (tables, session, table): (&Arc<Tables>, Arc<Session>, Arc<Table>),
        mut problems: TableProblems,
    ) -> Result<Self, Failed> {
        let problem = |text: String| problem(schema, &text);
        let way = way(schema, ignore_with, replace_with);
        check_names(schema, &mut problems);
        problems.check(check_case(schema, &table));
        if problems.check(check_kind(&table)).is_none() {
            // The other checks are about the table behind it.
            return finish(schema, problems, None);
        }
        problems.check(check_engine(&table));
        let storage = storages(schema, &table.columns, &session, &mut problems);
        check_rule(schema, &table.columns, &session, &mut problems);
        if !matches!(schema.action(), Action::UpdateOnly | Action::Delete) {
            check_left_out(schema, &table.columns, &mut problems);
        }
        problems.check(check_key(schema, &table));
        let returning = clause(schema.returning(), &table.columns, way, &mut problems);
        let (storage, returning) = finish(schema, problems, storage.zip(returning))?;
        warn_of_further_indexes(schema, &table, way);
        let columns = storage.iter().map(|storage| storage.form.placeholders()).sum();
        packet.fetch_min(session.max_allowed_packet, Ordering::Relaxed);
        let packet = packet.load(Ordering::Relaxed);
        let text_of_rows = |rows| insert(schema, rows, OnDuplicate::Fail).len();
        // The text of a statement is also a packet: an expression and a comma per value, two bytes per row.
        let text_of_row: usize = storage.iter().map(|storage| storage.form.expression().len() + 1).sum();
        let preparable = (packet.saturating_sub(text_of_rows(1) * 2) / (text_of_row + 2)).clamp(1, PREFERRED_ROWS);
        let max_rows = rows_per_statement(columns, MAX_BINDS, preparable)
            .ok_or_else(|| problem(format!("{columns} columns are more than the {MAX_BINDS} values of a statement")))?;
        let mut plan = Self {
            returning,
            returning_statements: Statements::default(),
            locks: Locks::new(schema, &table.columns, &storage, &session),
            storage,
            way,
            max_rows,
            max_bytes: packet.min(PREFERRED_BYTES).saturating_sub(PACKET_HEADER),
            max_allowed_packet: packet,
            // An uncommitted key may be rolled back after it is read, so only the insert is reliable.
            keys: KeySearch::new(schema, &table.columns).filter(|_| !session.reads_uncommitted),
            expects_duplicates: AtomicBool::new(false),
            expects_missing: AtomicBool::new(false),
            statements: Statements::default(),
            state: session.state.clone(),
            others: Mutex::default(),
            schema: schema.clone(),
            tables: Arc::clone(tables),
            table,
            checked_at: Mutex::new(Instant::now()),
        };
        // Checks the rights, and properties that the catalog does not show.
        let statement = match schema.action() {
            Action::Delete => delete(schema, 1, &plan.locks.values()),
            Action::UpdateOnly => update(schema, &plan.locks.values(), Join::One),
            Action::Insert | Action::Ignore | Action::Replace | Action::Update => {
                plan.returning_insert(1).sql.to_string()
            }
        };
        let values = plan.locks.values();
        let sample = plan.locks.listed.as_ref().map(|listed| listed.sample(schema, &values));
        let tried = match sample {
            Some(sample) if try_statement(connection, &sample).await.is_ok() => Ok(()),
            _ => {
                // The server does not support it, or does not accept the other form either.
                plan.locks.listed = None;
                try_statement(connection, &statement).await
            }
        };
        tried.map_err(|failed| without_overlaps(explained(failed, schema.returning()), way))?;
        if let (Way::Ignore(IgnoreWith::Exact), Some(keys)) = (way, &plan.keys) {
            try_statement(connection, &keys.select(1).sql).await?;
        }
        Ok(plan)
    }
}

/// The error of MariaDB for a table with a unique index `WITHOUT OVERLAPS`, which its catalogue does not show.
fn without_overlaps(failed: Failed, way: Way) -> Failed {
    if failed.code != 1235 || !matches!(way, Way::Direct(OnDuplicate::Update | OnDuplicate::Replace) | Way::ByKey) {
        return failed;
    }
    let text = "the server does not support the statement of this rule for the table, which it does not if a unique index is \
                WITHOUT OVERLAPS; use ignore, update_only or no rule, or drop the index";
    Failed { error: SinkError::with_code(ErrorClass::Schema, failed.code, text), ..failed }
}

/// An error of the table.
fn problem(schema: &Schema, text: &str) -> Failed {
    Failed::unsent(SinkError::new(ErrorClass::Schema, format!("table {}: {text}", schema.table_display())))
}

/// The result of all checks, or all their problems.
fn finish<T>(schema: &Schema, problems: TableProblems, checked: Option<T>) -> Result<T, Failed> {
    problems.finish(checked).map_err(|(_, text)| problem(schema, &text))
}

/// Makes the pipeline create another plan.
pub(crate) fn outdated(why: &str) -> Failed {
    Failed::unsent(SinkError::new(ErrorClass::Schema, format!("the table must be read again: {why}")))
}

/// Makes the server parse the statement and check the rights of the user. Nothing is executed, and nothing stays
/// prepared: a statement that this connection has already prepared would not be sent again.
async fn try_statement(connection: &mut MySqlConnection, sql: &str) -> Result<(), Failed> {
    connection.describe(sql).await.map(drop).map_err(Failed::asked)
}
