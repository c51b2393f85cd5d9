//! Owns what the server says of a table: its kind, columns with their real types, unique indexes, rights, triggers.
//! Must not know what is done with it.

use std::fmt::Write;

use batchsql_core::{ErrorClass, SinkError, TableName};
use batchsql_sql::quote_table;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::classify::{LinkLost, sink_error};
use crate::types::RealType;

/// A table as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// `pg_class.relkind`.
    pub(crate) kind: char,
    /// Row security holds for this user: a right that is missing may be that of a row.
    pub(crate) has_row_security: bool,
    /// A trigger may drop or change rows before they are inserted.
    pub(crate) has_row_triggers: bool,
    /// A rule makes INSERT something else, or something more.
    pub(crate) has_insert_rule: bool,
    /// Temporary tables may be made.
    pub(crate) may_stage: bool,
    pub(crate) columns: Vec<TableColumn>,
    /// The columns of each unique index that a conflict rule can use, by number, ascending.
    pub(crate) unique: Vec<Vec<i16>>,
}

/// A column as the server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) number: i16,
    pub(crate) name: String,
    /// As in its declaration, for errors.
    pub(crate) declared: String,
    pub(crate) real: RealType,
    pub(crate) must_be_given: bool,
    pub(crate) is_generated: bool,
    pub(crate) is_always_identity: bool,
    pub(crate) may_insert: bool,
    pub(crate) may_update: bool,
    pub(crate) may_select: bool,
}

/// The relation, found as INSERT finds it. Triggers: BEFORE (2) each ROW (1), on INSERT (4) or UPDATE (16); those of
/// partitions count, because rows reach them.
const RELATION: &str = "\
SELECT c.oid::pg_catalog.int8, c.relkind::pg_catalog.text, pg_catalog.row_security_active(c.oid),
       EXISTS (SELECT FROM pg_catalog.pg_trigger t
               WHERE t.tgtype & 3 = 3 AND t.tgtype & 20 <> 0 AND t.tgenabled IN ('O', 'A')
                 AND (t.tgrelid = c.oid OR t.tgrelid IN (
                     SELECT p.relid FROM pg_catalog.pg_partition_tree(c.oid::pg_catalog.regclass) p))),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r
               WHERE r.ev_class = c.oid AND r.ev_type = '3' AND r.ev_enabled <> 'D'),
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP')
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";

/// The columns. A domain is followed to the type that it is based on; its modifier is the domain's.
const COLUMNS: &str = "\
WITH RECURSIVE types AS (
    SELECT a.attnum, t.oid, t.typtype, t.typbasetype, t.typtypmod, a.atttypmod AS modifier,
           t.typnotnull AS not_null, t.typdefault IS NOT NULL AS has_default
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = $1::pg_catalog.oid AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT d.attnum, t.oid, t.typtype, t.typbasetype, t.typtypmod, d.typtypmod,
           d.not_null OR t.typnotnull, d.has_default OR t.typdefault IS NOT NULL
    FROM types d JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype WHERE d.typtype = 'd')
SELECT a.attnum, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod),
       n.nspname::pg_catalog.text, t.typname::pg_catalog.text, t.typtype::pg_catalog.text,
       t.typcategory::pg_catalog.text, p.proname::pg_catalog.text, b.modifier, o.proname::pg_catalog.text,
       (a.attnotnull OR b.not_null) AND NOT (a.atthasdef OR b.has_default OR a.attidentity <> ''),
       a.attgenerated <> '', a.attidentity = 'a',
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT'),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE'),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT')
FROM types b
JOIN pg_catalog.pg_attribute a ON a.attrelid = $1::pg_catalog.oid AND a.attnum = b.attnum
JOIN pg_catalog.pg_type t ON t.oid = b.oid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.typreceive
LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
LEFT JOIN pg_catalog.pg_proc o ON o.oid = e.typoutput
WHERE b.typtype <> 'd'
ORDER BY a.attnum";

/// The unique indexes that `ON CONFLICT (columns)` can use: valid, checked at once, of all rows, of plain columns.
const UNIQUE: &str = "\
SELECT ARRAY(SELECT k FROM pg_catalog.unnest(i.indkey[0:i.indnkeyatts - 1]) k ORDER BY k)::pg_catalog._int2
FROM pg_catalog.pg_index i
WHERE i.indrelid = $1::pg_catalog.oid AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indexrelid";

/// Asks for a table; `None` when there is none. `named` as in [`crate::settings::Settings`]: without named
/// statements the caller has begun a transaction.
pub(crate) async fn read_table(
    conn: &mut PgConnection,
    name: &TableName,
    named: bool,
) -> Result<Option<Table>, SinkError> {
    let found = sqlx::query(RELATION).bind(quote_table(name)).persistent(named).fetch_optional(&mut *conn).await;
    let Some(relation) = found.map_err(failed)? else { return Ok(None) };
    let oid: i64 = get(&relation, 0)?;
    let columns = sqlx::query(COLUMNS).bind(oid).persistent(named).fetch_all(&mut *conn).await.map_err(failed)?;
    let unique = sqlx::query(UNIQUE).bind(oid).persistent(named).fetch_all(&mut *conn).await.map_err(failed)?;
    Ok(Some(Table {
        kind: letter(&relation, 1)?,
        has_row_security: get(&relation, 2)?,
        has_row_triggers: get(&relation, 3)?,
        has_insert_rule: get(&relation, 4)?,
        may_stage: get(&relation, 5)?,
        columns: columns.iter().map(column).collect::<Result<_, _>>()?,
        unique: unique.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?,
    }))
}

fn column(row: &PgRow) -> Result<TableColumn, SinkError> {
    Ok(TableColumn {
        number: get(row, 0)?,
        name: get(row, 1)?,
        declared: get(row, 2)?,
        real: RealType {
            namespace: get(row, 3)?,
            name: get(row, 4)?,
            kind: letter(row, 5)?,
            category: letter(row, 6)?,
            receive: get::<Option<String>>(row, 7)?.unwrap_or_default(),
            modifier: get(row, 8)?,
            element: get::<Option<String>>(row, 9)?.unwrap_or_default(),
        },
        must_be_given: get(row, 10)?,
        is_generated: get(row, 11)?,
        is_always_identity: get(row, 12)?,
        may_insert: get(row, 13)?,
        may_update: get(row, 14)?,
        may_select: get(row, 15)?,
    })
}

fn get<'r, T>(row: &'r PgRow, index: usize) -> Result<T, SinkError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(index).map_err(|error| {
        let mut text = "the server's catalogue is not as expected".to_owned();
        // Names and types of the catalogue, no rows.
        write!(text, ": {error}").expect("writing to a String cannot fail");
        SinkError::new(ErrorClass::Internal, text)
    })
}

fn letter(row: &PgRow, index: usize) -> Result<char, SinkError> {
    get::<String>(row, index).map(|text| text.chars().next().unwrap_or(' '))
}

fn failed(error: sqlx::Error) -> SinkError {
    sink_error(error, LinkLost::BeforeCommit)
}
