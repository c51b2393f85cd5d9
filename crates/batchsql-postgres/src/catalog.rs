//! Owns the definition of a table as the server reports it: its kind, columns with their real types, unique
//! indexes, rights, triggers.
//! Must not know what the definition is used for.

use std::collections::{HashMap, HashSet};

use batchsql_core::{Action, ErrorClass, Schema, SinkError, TableName};
use batchsql_sql::quote_table;
use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection};

use crate::catalog_row::{get, letter, named};
use crate::classify::{LinkLost, sink_error};
use crate::part::{CatalogTypes, Part, Unchecked, parts};
use crate::real_type::{RealType, Spelled};
use crate::user_types;

/// A table as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    /// The schema in which its name was found.
    pub(crate) namespace: String,
    /// `pg_class.relkind`.
    pub(crate) kind: char,
    /// It ends with the session.
    pub(crate) is_temporary: bool,
    /// A crash of the server empties it, or one of its partitions.
    pub(crate) is_unlogged: bool,
    /// One of its partitions is on another server.
    pub(crate) has_foreign_part: bool,
    /// Other tables inherit from it, so a key may have rows in several of them. Partitions do not count.
    pub(crate) has_children: bool,
    /// Functions of the user run when rows are inserted, and may change the settings of the session.
    pub(crate) runs_on_insert: bool,
    /// The same for updated rows.
    pub(crate) runs_on_update: bool,
    /// The same for deleted rows.
    pub(crate) runs_on_delete: bool,
    /// Row security applies to this user: a missing right may concern a single row.
    pub(crate) has_row_security: bool,
    /// A trigger may drop or change rows before they are inserted.
    pub(crate) has_insert_triggers: bool,
    /// The same for updated rows.
    pub(crate) has_update_triggers: bool,
    /// A rule replaces INSERT or adds to it.
    pub(crate) has_insert_rule: bool,
    /// The same for UPDATE.
    pub(crate) has_update_rule: bool,
    /// The same for DELETE.
    pub(crate) has_delete_rule: bool,
    pub(crate) may_delete: bool,
    /// The user may create temporary tables.
    pub(crate) may_stage: bool,
    pub(crate) columns: Vec<TableColumn>,
    /// The unique indexes that a conflict rule can use. That of the primary key is the first.
    pub(crate) unique: Vec<Unique>,
}

/// A unique index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unique {
    /// Its key columns by number, ascending.
    pub(crate) columns: Vec<i16>,
    /// The constraint that it belongs to.
    pub(crate) constraint: Option<String>,
    /// It has a condition.
    pub(crate) is_partial: bool,
    /// It belongs to a key WITHOUT OVERLAPS, which `ON CONFLICT` does not find by its columns, and with which it updates nothing.
    pub(crate) is_exclusion: bool,
}

impl Table {
    /// Whether a trigger may drop rows of a schema before they are written.
    pub(crate) fn may_drop_rows(&self, schema: &Schema) -> bool {
        let updates = self.has_update_triggers && !schema.assignments().is_empty();
        match schema.action() {
            Action::Insert | Action::Ignore | Action::Replace | Action::Update => self.has_insert_triggers || updates,
            Action::UpdateOnly => updates,
            // The keys of deleted rows are returned, so dropped ones are known.
            Action::Delete => false,
        }
    }

    /// Whether functions of the user run when rows of a schema are written.
    pub(crate) fn runs_triggers(&self, schema: &Schema) -> bool {
        let updates = self.runs_on_update && !schema.assignments().is_empty();
        // An update may move a row to another partition, which deletes and inserts it.
        let moves = self.kind == 'p' && (self.runs_on_insert || self.runs_on_delete);
        match schema.action() {
            Action::Insert | Action::Ignore | Action::Replace | Action::Update => self.runs_on_insert || updates,
            Action::UpdateOnly => self.runs_on_update || moves,
            Action::Delete => self.runs_on_delete,
        }
    }
}

/// A column as the server reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) number: i16,
    pub(crate) name: String,
    /// The type as declared, for errors.
    pub(crate) declared: String,
    pub(crate) real: RealType,
    /// The parts of a type that a user made, if they change values; or one that cannot be checked.
    pub(crate) parts: Result<Option<Part>, Unchecked>,
    pub(crate) must_be_given: bool,
    pub(crate) is_generated: bool,
    pub(crate) is_always_identity: bool,
    /// Its collation treats texts as equal only if their bytes are equal.
    pub(crate) is_deterministic: bool,
    pub(crate) may_insert: bool,
    pub(crate) may_update: bool,
    pub(crate) may_select: bool,
}

/// The relation, resolved as INSERT resolves it. Triggers: BEFORE (2) each ROW (1), on INSERT (4), DELETE (8) and UPDATE (16);
/// those of partitions count, because rows reach them, and those that fire only with `session_replication_role = replica`,
/// because each session has its own. The functions of TimescaleDB change no settings. One trigger of it does not count at all:
/// it fires only if TimescaleDB is not loaded.
const RELATION: &str = "\
WITH enabled AS (
    SELECT t.tgtype, t.tgisinternal, t.tgname = 'ts_insert_blocker' AS is_blocker, EXISTS (
          SELECT FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
          WHERE f.oid = t.tgfoid AND n.nspname LIKE '\\_timescaledb\\_%') AS is_timescale
    FROM pg_catalog.pg_trigger t
    WHERE t.tgenabled <> 'D'
      AND (t.tgrelid = pg_catalog.to_regclass($1) OR t.tgrelid IN (
          SELECT p.relid FROM pg_catalog.pg_partition_tree(pg_catalog.to_regclass($1)) p))),
dropping AS (
    SELECT COALESCE(pg_catalog.bool_or(tgtype & 4 <> 0), false) AS on_insert,
           COALESCE(pg_catalog.bool_or(tgtype & 16 <> 0), false) AS on_update
    FROM enabled WHERE tgtype & 3 = 3 AND NOT (is_blocker AND is_timescale)),
running AS (
    SELECT COALESCE(pg_catalog.bool_or(tgtype & 4 <> 0), false) AS on_insert,
           COALESCE(pg_catalog.bool_or(tgtype & 16 <> 0), false) AS on_update,
           COALESCE(pg_catalog.bool_or(tgtype & 8 <> 0), false) AS on_delete
    FROM enabled WHERE NOT tgisinternal AND NOT is_timescale)
SELECT c.relkind::pg_catalog.text, pg_catalog.row_security_active(c.oid),
       (SELECT on_insert FROM dropping),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r
               WHERE r.ev_class = c.oid AND r.ev_type = '3' AND r.ev_enabled <> 'D'),
       pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP'),
       c.relname::pg_catalog.text,
       (SELECT n.nspname::pg_catalog.text FROM pg_catalog.pg_namespace n WHERE n.oid = c.relnamespace),
       (SELECT on_update FROM dropping),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r
               WHERE r.ev_class = c.oid AND r.ev_type = '2' AND r.ev_enabled <> 'D'),
       EXISTS (SELECT FROM pg_catalog.pg_rewrite r
               WHERE r.ev_class = c.oid AND r.ev_type = '4' AND r.ev_enabled <> 'D'),
       pg_catalog.has_table_privilege(c.oid, 'DELETE'), c.relpersistence = 'u' OR EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) l
           JOIN pg_catalog.pg_class p ON p.oid = l.relid WHERE p.relpersistence = 'u'),
       EXISTS (SELECT FROM pg_catalog.pg_partition_tree(c.oid) l
           JOIN pg_catalog.pg_class p ON p.oid = l.relid WHERE p.relkind = 'f'), c.relpersistence = 't',
       c.relkind = 'r' AND c.relhassubclass,
       (SELECT on_insert FROM running), (SELECT on_update FROM running), (SELECT on_delete FROM running),
       c.oid::pg_catalog.int8 AS of_table, 'relation'::pg_catalog.text AS part
FROM pg_catalog.pg_class c WHERE c.oid = pg_catalog.to_regclass($1)";

/// A table with a similar name: in another case, in a schema outside the search path, or with a dot in its name.
const SIMILAR: &str = "\
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND pg_catalog.lower($2) IN (
        pg_catalog.lower(c.relname::pg_catalog.text),
        CASE WHEN $1 IS NULL THEN pg_catalog.lower(n.nspname::pg_catalog.text || '.' || c.relname::pg_catalog.text) END)
    AND ($1 IS NULL OR pg_catalog.lower($1) = pg_catalog.lower(n.nspname::pg_catalog.text))
ORDER BY pg_catalog.pg_table_is_visible(c.oid) DESC, n.nspname, c.relname LIMIT 1";

/// The schema of the table that a temporary one of the same name hides.
const HIDDEN: &str = "\
SELECT n.nspname::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = $1::pg_catalog.name AND c.relpersistence <> 't' AND n.nspname = ANY (pg_catalog.current_schemas(true))
ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(true), n.nspname) LIMIT 1";

/// The columns. A domain is resolved to its base type, an array to its elements (level 1), and these to their base
/// type; the modifier is that of the last declaration.
const COLUMNS: &str = "\
WITH RECURSIVE types AS (
    SELECT a.attnum, 0 AS level, t.oid, t.typtype, t.typcategory, t.typbasetype, t.typelem, t.typtypmod,
           a.atttypmod AS modifier, t.typnotnull AS not_null, t.typdefault IS NOT NULL AS has_default
    FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = pg_catalog.to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT d.attnum, CASE d.typtype WHEN 'd' THEN d.level ELSE 1 END, t.oid, t.typtype, t.typcategory, t.typbasetype,
           t.typelem, t.typtypmod, CASE d.typtype WHEN 'd' THEN d.typtypmod ELSE d.modifier END,
           d.not_null OR t.typnotnull, d.has_default OR t.typdefault IS NOT NULL
    FROM types d JOIN pg_catalog.pg_type t
        ON t.oid = CASE WHEN d.typtype = 'd' THEN d.typbasetype
                        WHEN d.typcategory = 'A' AND d.level = 0 THEN d.typelem END)
SELECT a.attnum, a.attname::pg_catalog.text, pg_catalog.format_type(a.atttypid, a.atttypmod),
       n.nspname::pg_catalog.text, t.typname::pg_catalog.text, t.typtype::pg_catalog.text,
       t.typcategory::pg_catalog.text, p.proname::pg_catalog.text, COALESCE(e.modifier, b.modifier),
       f.typoutput::pg_catalog.regproc::pg_catalog.text,
       (a.attnotnull OR b.not_null) AND NOT (a.atthasdef OR b.has_default OR a.attidentity <> ''),
       a.attgenerated <> '', a.attidentity = 'a',
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'INSERT'),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'UPDATE'),
       pg_catalog.has_column_privilege(a.attrelid, a.attnum, 'SELECT'),
       CASE WHEN COALESCE(f.typnamespace, t.typnamespace) = 11 THEN COALESCE(f.typname, t.typname)::pg_catalog.text END,
       pg_catalog.format_type(COALESCE(e.oid, b.oid), COALESCE(e.modifier, b.modifier)),
       pg_catalog.format_type(COALESCE(e.oid, b.oid), -1), e.oid IS NOT NULL,
       NOT EXISTS (SELECT FROM pg_catalog.pg_collation l WHERE l.oid = a.attcollation
                   AND pg_catalog.to_jsonb(l) OPERATOR(pg_catalog.->>) 'collisdeterministic' = 'false'),
       CASE WHEN e.oid = t.typelem THEN e.oid::pg_catalog.int8 END, a.atttypid::pg_catalog.int8, a.atttypmod,
       a.attrelid::pg_catalog.int8 AS of_table, 'column'::pg_catalog.text AS part
FROM types b
JOIN pg_catalog.pg_attribute a ON a.attrelid = pg_catalog.to_regclass($1) AND a.attnum = b.attnum
JOIN pg_catalog.pg_type t ON t.oid = b.oid
JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
LEFT JOIN pg_catalog.pg_proc p ON p.oid = t.typreceive
LEFT JOIN types e ON e.attnum = b.attnum AND e.level = 1 AND e.typtype <> 'd'
LEFT JOIN pg_catalog.pg_type f ON f.oid = e.oid
WHERE b.level = 0 AND b.typtype <> 'd'
ORDER BY a.attnum";

/// The unique indexes that `ON CONFLICT` can use: valid, immediate, without expressions. Returns the columns as text, and how many of them are the key: servers similar to PostgreSQL do not support array
/// slices.
const UNIQUE: &str = "\
SELECT i.indkey::pg_catalog.text, i.indnkeyatts::pg_catalog.int4, i.indpred IS NOT NULL,
       (SELECT c.conname::pg_catalog.text FROM pg_catalog.pg_constraint c
        WHERE c.conindid = i.indexrelid AND c.contype IN ('p', 'u') LIMIT 1),
       i.indisexclusion, i.indrelid::pg_catalog.int8 AS of_table, 'key'::pg_catalog.text AS part
FROM pg_catalog.pg_index i
WHERE i.indrelid = pg_catalog.to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indimmediate
  AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indexrelid";

/// The result of a lookup by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lookup {
    Found(Box<Table>),
    /// No such table; perhaps one with a similar name.
    Missing {
        similar: Option<TableName>,
    },
    /// The name is too long, and the server would truncate it.
    CutOff,
}

/// Looks up a table. A temporary one does not count if it hides another. One round trip, another one if there is no such
/// table, and two more if it is hidden: simple queries, with the name in their text, because an extended query takes two, and a pooler may send its parts to different servers.
pub(crate) async fn read_table(conn: &mut PgConnection, name: &TableName) -> Result<Lookup, SinkError> {
    let sql = [RELATION, &user_types::query(), COLUMNS, UNIQUE].join(";").replace("$1", &literal(&quote_table(name)));
    let rows = conn.fetch_all(&*sql).await.map_err(failed)?;
    let (mut relation, mut columns, mut indexes) = (None, Vec::new(), Vec::new());
    let (mut tables, mut types) = (HashSet::new(), HashMap::new());
    for row in &rows {
        tables.insert(named::<i64>(row, "of_table")?);
        match &*named::<String>(row, "part")? {
            "relation" => relation = Some(row),
            "type" => user_types::add(&mut types, row)?,
            // After the types.
            "column" => columns.push(column(row, &types)?),
            _ => indexes.push(unique(row)?),
        }
    }
    let Some(relation) = relation else { return similar(conn, name).await };
    if tables.len() > 1 {
        // The statements have their own snapshots.
        return Err(SinkError::new(ErrorClass::Transient, "the table was replaced while its definition was read"));
    }
    // The server truncates a longer name without an error.
    let (found_name, namespace): (String, String) = (get(relation, 5)?, get(relation, 6)?);
    if found_name != name.name() || name.namespace().is_some_and(|name| is_cut(name, &namespace)) {
        return Ok(Lookup::CutOff);
    }
    let is_temporary = get(relation, 13)?;
    if is_temporary
        && name.namespace().is_none()
        && let Some(namespace) = hidden(conn, name).await?
    {
        return Box::pin(read_table(conn, &TableName::qualified(namespace, name.name()))).await;
    }
    Ok(Lookup::Found(Box::new(Table {
        namespace,
        kind: letter(relation, 0)?,
        is_temporary,
        is_unlogged: get(relation, 11)?,
        has_foreign_part: get(relation, 12)?,
        has_children: get(relation, 14)?,
        runs_on_insert: get(relation, 15)?,
        runs_on_update: get(relation, 16)?,
        runs_on_delete: get(relation, 17)?,
        has_row_security: get(relation, 1)?,
        has_insert_triggers: get(relation, 2)?,
        has_update_triggers: get(relation, 7)?,
        has_insert_rule: get(relation, 3)?,
        may_stage: get(relation, 4)?,
        has_update_rule: get(relation, 8)?,
        has_delete_rule: get(relation, 9)?,
        may_delete: get(relation, 10)?,
        columns,
        unique: indexes,
    })))
}

/// A text in SQL, whatever `standard_conforming_strings` is.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// `pg_temp` is an alias of the session's temporary schema.
fn is_cut(name: &str, found: &str) -> bool {
    name.len() > found.len() && name.starts_with(found)
}

async fn hidden(conn: &mut PgConnection, name: &TableName) -> Result<Option<String>, SinkError> {
    let found = conn.fetch_optional(&*HIDDEN.replace("$1", &literal(name.name()))).await.map_err(failed)?;
    found.as_ref().map(|row| get(row, 0)).transpose()
}

async fn similar(conn: &mut PgConnection, name: &TableName) -> Result<Lookup, SinkError> {
    let namespace = name.namespace().map_or_else(|| "NULL::pg_catalog.text".to_owned(), literal);
    let table = literal(name.name());
    // In this order, because a name may contain `$2`.
    let parts: Vec<String> = SIMILAR.split("$1").map(|part| part.replace("$2", &table)).collect();
    let similar = conn.fetch_optional(&*parts.join(&namespace)).await.map_err(failed)?;
    let similar =
        similar.map(|row| Ok::<_, SinkError>(TableName::qualified(get::<String>(&row, 0)?, get::<String>(&row, 1)?)));
    Ok(Lookup::Missing { similar: similar.transpose()? })
}

fn column(row: &PgRow, types: &CatalogTypes) -> Result<TableColumn, SinkError> {
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
            element_oid: get::<Option<i64>>(row, 21)?.and_then(|oid| u32::try_from(oid).ok()),
            spelled: spelled(row)?,
        },
        parts: parts(types, get(row, 22)?, get(row, 23)?),
        must_be_given: get(row, 10)?,
        is_generated: get(row, 11)?,
        is_always_identity: get(row, 12)?,
        is_deterministic: get(row, 20)?,
        may_insert: get(row, 13)?,
        may_update: get(row, 14)?,
        may_select: get(row, 15)?,
    })
}

fn unique(row: &PgRow) -> Result<Unique, SinkError> {
    let (columns, len): (String, i32) = (get(row, 0)?, get(row, 1)?);
    let columns = key_columns(&columns, usize::try_from(len).unwrap_or_default());
    Ok(Unique { columns, is_partial: get(row, 2)?, constraint: get(row, 3)?, is_exclusion: get(row, 4)? })
}

/// `1 3 2` on PostgreSQL, where the columns after the first `len` are INCLUDE columns.
fn key_columns(columns: &str, len: usize) -> Vec<i16> {
    let numbers = columns.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    let mut key: Vec<i16> = numbers.take(len).collect();
    key.sort_unstable();
    key
}

/// The SQL spelling of a built-in type; its number in the catalogue is fixed, and so is the number of its
/// namespace (11).
fn spelled(row: &PgRow) -> Result<Option<Spelled>, SinkError> {
    let Some(base) = get::<Option<String>>(row, 16)? else { return Ok(None) };
    let array = if get(row, 19)? { "[]" } else { "" };
    let spell = |index| Ok::<_, SinkError>(format!("{}{array}", get::<String>(row, index)?));
    Ok(Some(Spelled { narrow: spell(17)?, wide: spell(18)?, base }))
}

fn failed(error: sqlx::Error) -> SinkError {
    sink_error(error, LinkLost::BeforeCommit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_an_index_carries_along_are_no_key() {
        assert_eq!(key_columns("3 1 2", 2), [1, 3]);
        assert_eq!(key_columns("{3,1,2}", 3), [1, 2, 3]);
        assert_eq!(key_columns("7", 1), [7]);
    }

    #[test]
    fn no_query_has_a_slice_of_an_array() {
        let of_types = user_types::query();
        let has_slice = |sql: &str| sql.split('[').skip(1).any(|rest| rest.split(']').next().is_some_and(is_slice));
        for sql in [RELATION, SIMILAR, HIDDEN, COLUMNS, UNIQUE, &*of_types] {
            assert!(!has_slice(sql), "servers similar to PostgreSQL do not support it: {sql}");
        }
        assert!(has_slice("SELECT (i.indkey::int2[])[0:i.indnkeyatts - 1]") && has_slice("a[:2]"));
        assert!(!has_slice("SELECT a[1::int4], '{}'::text[]"));
    }

    /// Whether there is a colon that is not part of a cast.
    fn is_slice(subscript: &str) -> bool {
        subscript.replace("::", "").contains(':')
    }

    #[test]
    fn names_in_the_text_of_a_query_are_only_names() {
        assert_eq!(literal("a"), "E'a'");
        assert_eq!(literal(r"it's \'; DROP TABLE t; --"), r"E'it''s \\''; DROP TABLE t; --'");
    }
}
