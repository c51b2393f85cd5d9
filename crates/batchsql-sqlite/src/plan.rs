//! Owns what is decided once per schema: the checked table, the form of each column, the statements.
//! Must not know rows.

use batchsql_core::{Column, ErrorClass, Schema, SinkError, TableName};
use batchsql_sql::{Shapes, insert, quote, rows_per_statement};
use rusqlite::Connection;
use rusqlite::limits::Limit;

use crate::classify::statement_error;
use crate::types::{Affinity, Form, form};

/// Rows per statement; more gain nothing (measured, see the project's performance notes).
const PREFERRED_ROWS: usize = 100;

/// How batches of one schema are written.
#[derive(Debug)]
pub struct SqlitePlan {
    pub(crate) forms: Box<[Form]>,
    pub(crate) shapes: Shapes,
    /// Statement text by number of rows.
    statements: Vec<(usize, Box<str>)>,
}

/// A column as the database has it.
struct TableColumn {
    name: String,
    declared: String,
    must_be_given: bool,
    is_key: bool,
    generated: bool,
}

impl SqlitePlan {
    pub(crate) fn statement(&self, rows: usize) -> &str {
        let known = self.statements.iter().find(|(size, _)| *size == rows);
        &known.expect("a plan has a statement for each of its shapes").1
    }

    /// Looks at the table and makes the statements.
    pub(crate) fn make(conn: &Connection, schema: &Schema) -> Result<Self, SinkError> {
        let problem =
            |text: String| SinkError::new(ErrorClass::Schema, format!("table {}: {text}", schema.table_display()));
        let (columns, kind, strict) = table_columns(conn, schema.table()).map_err(statement_error)?;
        if columns.is_empty() {
            return Err(problem("it does not exist; create it before rows are submitted".into()));
        }
        if kind == "view" {
            // Its triggers decide what becomes of a row, and SQLite does not report it.
            return Err(problem("it is a view; write to the table behind it".into()));
        }
        let forms = schema
            .columns()
            .iter()
            .map(|column| column_form(column, &columns, strict).map_err(problem))
            .collect::<Result<Box<[Form]>, SinkError>>()?;
        let declared = |name: &str| schema.columns().iter().any(|column| column.name().eq_ignore_ascii_case(name));
        if let Some(missing) = columns.iter().find(|column| column.must_be_given && !declared(&column.name)) {
            let text = format!(
                "its column {:?} is NOT NULL without a default, but rows do not carry it; add it to the schema",
                missing.name
            );
            return Err(problem(text));
        }
        let binds = max_binds(conn);
        let full = rows_per_statement(schema.columns().len(), binds, PREFERRED_ROWS).ok_or_else(|| {
            problem(format!("{} columns are more than the {binds} values of a statement", schema.columns().len()))
        })?;
        let shapes = Shapes::new(full);
        let statements: Vec<(usize, Box<str>)> =
            shapes.sizes().map(|rows| (rows, insert(schema, rows).into())).collect();
        let plan = Self { forms, shapes, statements };
        // Finds what the look at the columns cannot, for example a key without a unique index.
        conn.prepare(plan.statement(1)).map_err(|error| unpreparable(error, schema))?;
        Ok(plan)
    }
}

/// How many values one statement can bind, as this library was built.
pub(crate) fn max_binds(conn: &Connection) -> usize {
    usize::try_from(conn.limit(Limit::SQLITE_LIMIT_VARIABLE_NUMBER)).unwrap_or(999)
}

fn table_columns(conn: &Connection, table: &TableName) -> rusqlite::Result<(Vec<TableColumn>, String, bool)> {
    // Without a namespace SQLite looks in temp, main, then the attached databases; so do the pragmas.
    let schema_clause = table.namespace().map(|namespace| format!("{}.", quote(namespace))).unwrap_or_default();
    let mut statement = conn.prepare(&format!("PRAGMA {schema_clause}table_xinfo({})", quote(table.name())))?;
    let columns = statement.query_map([], |row| {
        let declared: String = row.get("type")?;
        let (not_null, key): (bool, i64) = (row.get("notnull")?, row.get("pk")?);
        let default: Option<String> = row.get("dflt_value")?;
        let hidden: i64 = row.get("hidden")?;
        Ok(TableColumn {
            name: row.get("name")?,
            must_be_given: not_null && default.is_none() && hidden == 0,
            is_key: key > 0,
            generated: hidden == 2 || hidden == 3,
            declared,
        })
    })?;
    let mut columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    let mut keys = columns.iter_mut().filter(|column| column.is_key);
    if let (Some(key), None) = (keys.next(), keys.next())
        && key.declared.eq_ignore_ascii_case("INTEGER")
    {
        // A lone INTEGER PRIMARY KEY is the row id, which SQLite fills in.
        key.must_be_given = false;
    }
    let (kind, strict) = conn
        .prepare(&format!("PRAGMA {schema_clause}table_list({})", quote(table.name())))?
        .query_map([], |row| Ok((row.get("type")?, row.get("strict")?)))?
        .next()
        .transpose()?
        .unwrap_or_default();
    Ok((columns, kind, strict))
}

fn column_form(column: &Column, table: &[TableColumn], strict: bool) -> Result<Form, String> {
    // SQLite compares column names without case.
    let Some(found) = table.iter().find(|found| found.name.eq_ignore_ascii_case(column.name())) else {
        let known: Vec<&str> = table.iter().map(|found| found.name.as_str()).collect();
        return Err(format!(
            "it has no column {:?}; add it with ALTER TABLE or remove it from the schema (the table has {})",
            column.name(),
            known.join(", ")
        ));
    };
    if found.generated {
        return Err(format!("its column {:?} is generated; remove it from the schema", column.name()));
    }
    form(column.column_type(), Affinity::of(&found.declared, strict)).map_err(|why| {
        format!(
            "its column {:?} is declared {:?}: {} values {why}",
            column.name(),
            found.declared,
            column.column_type()
        )
    })
}

fn unpreparable(error: rusqlite::Error, schema: &Schema) -> SinkError {
    let error = statement_error(error);
    if error.class() != ErrorClass::Schema || schema.key_columns().is_empty() {
        return error;
    }
    let key: Vec<&str> = schema.key_columns().iter().map(|i| schema.columns()[*i].name()).collect();
    let text = format!(
        "table {}: rows cannot be inserted with conflict key ({}); a PRIMARY KEY or UNIQUE index over exactly these columns must exist",
        schema.table_display(),
        key.join(", ")
    );
    SinkError::new(ErrorClass::Schema, text).caused_by(error)
}
