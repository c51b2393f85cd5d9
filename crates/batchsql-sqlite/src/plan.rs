//! Owns the decisions made once per schema: the checked table, the form of each column, the statements.
//! Must not know rows.

use std::collections::BTreeSet;

use batchsql_core::exhaustive::Set;
use batchsql_core::{Action, Column, ColumnType, ErrorClass, Schema, SinkError, TableName, Target};
use batchsql_sql::{Shapes, TableProblems, insert, missing_columns, quote, quote_table, rows_per_statement};
use rusqlite::Connection;
use rusqlite::limits::Limit;

use crate::classify::statement_error;
use crate::journal::check_journal;
use crate::table::{Table, TableColumn, TableId, TableKind, Versions};
use crate::types::{Form, form};

/// Rows per statement; more are not faster (measured, see the project's performance notes).
const PREFERRED_ROWS: usize = 100;

/// How batches of one schema are written.
#[derive(Debug)]
pub(crate) struct SqlitePlan {
    schema: Schema,
    /// The versions that the plan was made from. The plan is valid while they are unchanged.
    versions: Versions,
    pub(crate) table: TableId,
    /// The schema with the database in which the table was found: a temporary table must not receive the rows.
    pub(crate) located: Schema,
    pub(crate) forms: Box<[Form]>,
    pub(crate) shapes: Shapes,
    /// Statement text by number of rows.
    statements: Vec<(usize, Box<str>)>,
}

impl SqlitePlan {
    pub(crate) fn statement(&self, rows: usize) -> &str {
        let known = self.statements.iter().find(|(size, _)| *size == rows);
        &known.expect("a plan has a statement for each of its shapes").1
    }

    /// The columns whose values are returned.
    pub(crate) fn returning(&self) -> &[Column] {
        self.schema.returning()
    }

    /// A plan for the current table, if any table of the database has changed since this one was made.
    pub(crate) fn renewed(&self, conn: &Connection) -> Result<Option<Self>, SinkError> {
        match self.versions.are_current(conn).map_err(statement_error)? {
            true => Ok(None),
            false => Self::make(conn, &self.schema).map(Some),
        }
    }

    /// Checks the table and creates the statements.
    pub(crate) fn make(conn: &Connection, schema: &Schema) -> Result<Self, SinkError> {
        let problem =
            |text: String| SinkError::new(ErrorClass::Schema, format!("table {}: {text}", schema.table_display()));
        if let Some(text) = reserved(schema.table()) {
            return Err(problem(text));
        }
        let Some(table) = Table::find(conn, schema.table()).map_err(statement_error)? else {
            return Err(problem(not_there(conn, schema.table()).map_err(statement_error)?));
        };
        if let Some(text) = table.temporary(schema.table()) {
            return Err(problem(text));
        }
        check_journal(conn, &table.id.database)?;
        let columns = &table.columns;
        match table.kind {
            TableKind::Table | TableKind::Virtual => {}
            // The triggers of a view decide what happens to a row, and SQLite does not report it.
            TableKind::View => return Err(problem("it is a view; write to the table behind it".into())),
            TableKind::Shadow => {
                return Err(problem("it is a part of a virtual table; write to the virtual table".into()));
            }
        }
        let located = schema.in_namespace(&table.id.database);
        let mut problems = TableProblems::default();
        check_twice(schema, &mut problems);
        let forms = forms(schema, columns, &mut problems);
        check_rule(schema, &mut problems);
        let inserts = !matches!(schema.action(), Action::UpdateOnly | Action::Delete);
        if inserts {
            check_given(schema, columns, &mut problems);
        }
        let binds = max_binds(conn);
        let full = rows_per_statement(schema.columns().len(), binds, PREFERRED_ROWS).ok_or_else(|| {
            format!("{} columns are more than the {binds} values of a statement", schema.columns().len())
        });
        let full = problems.check(full);
        if !problems.is_empty() && has_key(schema, columns) && lacks_index(conn, &located) {
            problems.add(missing_index(schema));
        }
        let (forms, full) = problems.finish(forms.zip(full)).map_err(|(_, text)| problem(text))?;
        // Returned rows have no defined order, so each row has a statement of its own.
        let shapes = Shapes::new(if schema.returning().is_empty() { full } else { 1 });
        let statements: Vec<(usize, Box<str>)> =
            shapes.sizes().map(|rows| (rows, insert(&located, rows).into())).collect();
        let (schema, versions) = (schema.clone(), table.versions);
        let plan = Self { schema, versions, table: table.id, located, forms, shapes, statements };
        // Finds errors that the check of the columns cannot, for example a key without a unique index.
        conn.prepare(plan.statement(1)).map_err(|error| unpreparable(error, &plan.schema))?;
        if !inserts {
            conn.prepare(&key_check(&plan.located)).map_err(|error| unpreparable(error, &plan.schema))?;
        }
        Ok(plan)
    }
}

/// The maximum number of bound values per statement in this build of the library.
pub(crate) fn max_binds(conn: &Connection) -> usize {
    let limit = conn.limit(Limit::SQLITE_LIMIT_VARIABLE_NUMBER).known();
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(999)
}

/// What `Connection::limit` returns: an `i32` in older versions of rusqlite, a `Result` in newer ones.
trait LimitValue {
    fn known(self) -> Option<i32>;
}

impl LimitValue for i32 {
    fn known(self) -> Option<i32> {
        Some(self)
    }
}

impl LimitValue for rusqlite::Result<i32> {
    fn known(self) -> Option<i32> {
        self.ok()
    }
}

/// The form of each column; `None` if the table lacks a column, or a column does not accept values of its type.
fn forms(schema: &Schema, table: &[TableColumn], problems: &mut TableProblems) -> Option<Box<[Form]>> {
    let mut forms = Vec::with_capacity(schema.columns().len());
    let mut missing = Vec::new();
    for column in schema.columns() {
        match find(table, column.name()) {
            Some(found) => forms.extend(problems.check(column_form(column, found))),
            None => missing.push(column.name()),
        }
    }
    problems.extend(missing_columns(&missing, table.iter().map(|found| &*found.name)));
    (forms.len() == schema.columns().len()).then(|| forms.into())
}

/// SQLite compares column names without case.
fn find<'a>(table: &'a [TableColumn], name: &str) -> Option<&'a TableColumn> {
    table.iter().find(|found| found.name.eq_ignore_ascii_case(name))
}

fn column_form(column: &Column, found: &TableColumn) -> Result<Form, String> {
    if found.generated {
        return Err(format!("its column {:?} is generated; remove it from the schema", column.name()));
    }
    form(column.column_type(), found.affinity, found.takes).map_err(|why| {
        format!(
            "its column {:?} is declared {:?}: {} values {why}",
            column.name(),
            found.declared,
            column.column_type()
        )
    })
}

/// Adds the columns that need a value, and for which the rows have none.
fn check_given(schema: &Schema, table: &[TableColumn], problems: &mut TableProblems) {
    let declared = |name: &str| schema.columns().iter().any(|column| column.name().eq_ignore_ascii_case(name));
    let missing = table.iter().filter(|column| column.must_be_given && !declared(&column.name));
    problems.extend(missing.map(|missing| {
        format!(
            "its column {:?} is NOT NULL without a default, but the rows have no value for it; add it to the row type or the schema, or give it a default",
            missing.name
        )
    }));
}

/// Why rows are never written to a table with this name.
pub(crate) fn reserved(table: &TableName) -> Option<String> {
    let is_reserved = table.name().get(..7).is_some_and(|start| start.eq_ignore_ascii_case("sqlite_"));
    is_reserved.then(|| "names that begin with sqlite_ are reserved; rows there would change how sqlite works".into())
}

/// The advice for a table that does not exist.
pub(crate) fn not_there(conn: &Connection, table: &TableName) -> rusqlite::Result<String> {
    if let (None, Some((namespace, name))) = (table.namespace(), table.name().split_once('.'))
        && Table::find(conn, &TableName::qualified(namespace, name))?.is_some()
    {
        return Ok(format!(
            "it does not exist, because the dot is part of its name; for the table {name:?} of {namespace:?} use \
             TableName::qualified({namespace:?}, {name:?})"
        ));
    }
    Ok("it does not exist; create it before rows are submitted".into())
}

/// Adds columns that SQLite treats as one. It would use the first value and drop the second.
fn check_twice(schema: &Schema, problems: &mut TableProblems) {
    let names: Vec<&str> = schema.columns().iter().map(Column::name).collect();
    for (index, second) in names.iter().enumerate() {
        if let Some(first) = names[..index].iter().find(|first| first.eq_ignore_ascii_case(second)) {
            problems.add(format!(
                "its columns {first:?} and {second:?} are one to sqlite, which compares names without case; remove one"
            ));
        }
    }
}

/// Adds the parts of a rule that SQLite does not have.
fn check_rule(schema: &Schema, problems: &mut TableProblems) {
    if let Target::Constraint(name) = schema.target() {
        problems.add(format!("sqlite does not find the constraint {name:?} by name; name its columns as the key"));
    }
    let is_decimal = |column: &usize| schema.columns()[*column].column_type() == ColumnType::Decimal;
    let is_computed = |set: &Set| matches!(set, Set::Add | Set::Greatest | Set::Least);
    let computed = schema.assignments().iter().filter(|assignment| is_computed(&assignment.set));
    let computed = computed.filter_map(|assignment| assignment.column).chain(schema.version_column());
    let decimals: BTreeSet<usize> = computed.filter(is_decimal).collect();
    problems.extend(decimals.into_iter().map(|column| {
        format!(
            "sqlite stores the decimals of column {:?} as text, which it cannot add up or compare; use an integer, for \
             example cents",
            schema.columns()[column].name()
        )
    }));
}

/// Whether the rule has a key of columns that the table has, so that their index can be checked alone.
fn has_key(schema: &Schema, table: &[TableColumn]) -> bool {
    let is_there = |index: &usize| find(table, schema.columns()[*index].name()).is_some_and(|found| !found.generated);
    let key = schema.key_columns();
    *schema.target() == Target::Key && !key.is_empty() && key.iter().all(is_there)
}

/// A statement that can be prepared only if there is a unique index over the key.
fn key_check(schema: &Schema) -> String {
    let key: Vec<String> = schema.key_columns().iter().map(|index| quote(schema.columns()[*index].name())).collect();
    let (table, values, key) = (quote_table(schema.table()), vec!["NULL"; key.len()].join(","), key.join(","));
    format!("INSERT INTO {table} ({key}) VALUES ({values}) ON CONFLICT ({key}) DO NOTHING")
}

/// Whether there is no unique index over the key.
fn lacks_index(conn: &Connection, schema: &Schema) -> bool {
    let checked = conn.prepare(&key_check(schema));
    checked.is_err_and(|error| statement_error(error).class() == ErrorClass::Schema)
}

fn unpreparable(error: rusqlite::Error, schema: &Schema) -> SinkError {
    let error = statement_error(error);
    if error.class() != ErrorClass::Schema || schema.key_columns().is_empty() {
        return error;
    }
    SinkError::new(ErrorClass::Schema, format!("table {}: {}", schema.table_display(), missing_index(schema)))
        .caused_by(error)
}

/// The problem of a key without an index.
fn missing_index(schema: &Schema) -> String {
    let key: Vec<&str> = schema.key_columns().iter().map(|i| schema.columns()[*i].name()).collect();
    let is_raw = schema.assignments().iter().any(|a| a.column.is_none() || matches!(a.set, Set::Raw(_)));
    let index = match schema.target() {
        Target::Partial(_) => "a UNIQUE index over exactly these columns with the WHERE of the rule must exist",
        Target::Key | Target::Constraint(_) => "a PRIMARY KEY or UNIQUE index over exactly these columns must exist",
    };
    let raw = if is_raw { ", and the table must accept the raw expressions and columns of the rule" } else { "" };
    format!("rows cannot be written with conflict key ({}); {index}{raw}", key.join(", "))
}
