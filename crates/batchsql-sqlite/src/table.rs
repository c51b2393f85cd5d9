//! Owns what the database says of a table: where it is, its kind, its columns, and whether that is still so.
//! Must not know schemas, types of values or statements that write.

use batchsql_core::TableName;
use batchsql_sql::quote;
use rusqlite::{Connection, OptionalExtension};

use crate::types::{Affinity, Kind, Takes};

/// Where a table is: the database of the connection, and its name as it was created.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct TableId {
    pub(crate) database: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableKind {
    Table,
    View,
    Virtual,
    /// A table that a virtual table keeps its data in.
    Shadow,
}

/// A column as the database has it.
#[derive(Debug)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) declared: String,
    pub(crate) affinity: Affinity,
    pub(crate) takes: Takes,
    pub(crate) must_be_given: bool,
    pub(crate) generated: bool,
}

/// The schema versions of the databases in which the table was looked for. SQLite raises them with every change of a
/// table, by any connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versions(Vec<(String, i64)>);

/// A table as it is.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) kind: TableKind,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) versions: Versions,
}

impl Versions {
    fn read(conn: &Connection, databases: &[&str]) -> rusqlite::Result<Self> {
        let question = |database: &&str| format!("PRAGMA {}.schema_version", quote(database));
        let questions = databases.iter().map(question);
        questions
            .map(|question| version(conn, &question).map(|version| (question, version)))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn are_current(&self, conn: &Connection) -> rusqlite::Result<bool> {
        for (question, known) in &self.0 {
            if version(conn, question)? != *known {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn version(conn: &Connection, question: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(question)?.query_row([], |row| row.get(0))
}

impl Table {
    /// `None`: there is no such table.
    pub(crate) fn find(conn: &Connection, name: &TableName) -> rusqlite::Result<Option<Self>> {
        let Some(database) = database_of(conn, name)? else { return Ok(None) };
        // A table of the same name in temp would come first.
        let databases: &[&str] =
            if name.namespace().is_none() && database != "temp" { &[&database, "temp"] } else { &[&database] };
        // Before the rest is read, so that a change in between is seen as one.
        let versions = Versions::read(conn, databases)?;
        let question = format!("PRAGMA {}.table_list({})", quote(&database), quote(name.name()));
        let described = conn
            .prepare(&question)?
            .query_row([], |row| {
                let kind = match row.get::<_, String>("type")?.as_str() {
                    "view" => TableKind::View,
                    "virtual" => TableKind::Virtual,
                    "shadow" => TableKind::Shadow,
                    _ => TableKind::Table,
                };
                Ok((row.get::<_, String>("name")?, kind, row.get::<_, bool>("strict")?, row.get::<_, bool>("wr")?))
            })
            .optional()?;
        let Some((name, kind, is_strict, is_without_row_id)) = described else { return Ok(None) };
        let coordinate = if kind == TableKind::Virtual { coordinate(conn, &database, &name)? } else { None };
        let mut columns = columns(conn, &database, &name, is_strict, coordinate)?;
        let mut keys = columns.iter_mut().filter(|(_, is_key)| *is_key).map(|(column, _)| column);
        if let (Some(key), None) = (keys.next(), keys.next())
            && key.declared.eq_ignore_ascii_case("INTEGER")
            && !is_without_row_id
        {
            // A lone INTEGER PRIMARY KEY is the row id, which SQLite fills in.
            key.must_be_given = false;
            key.takes = Takes::RowId;
        }
        let columns = columns.into_iter().map(|(column, _)| column).collect();
        Ok(Some(Self { id: TableId { database, name }, kind, columns, versions }))
    }
}

/// The database in which SQLite finds the table: temp, main, then the attached ones in their order.
fn database_of(conn: &Connection, name: &TableName) -> rusqlite::Result<Option<String>> {
    let known: Vec<String> =
        conn.prepare("PRAGMA database_list")?.query_map([], |row| row.get("name"))?.collect::<Result<_, _>>()?;
    if let Some(namespace) = name.namespace() {
        let is_temp = namespace.eq_ignore_ascii_case("temp");
        let found = known.into_iter().find(|database| database.eq_ignore_ascii_case(namespace));
        return Ok(found.or_else(|| is_temp.then(|| "temp".to_owned())));
    }
    let question = format!("PRAGMA table_list({})", quote(name.name()));
    let with_it: Vec<String> =
        conn.prepare(&question)?.query_map([], |row| row.get("schema"))?.collect::<Result<_, _>>()?;
    let temp = with_it.iter().find(|database| *database == "temp").cloned();
    Ok(temp.or_else(|| known.into_iter().find(|database| with_it.contains(database))))
}

/// The columns, each with whether it is in the primary key.
fn columns(
    conn: &Connection,
    database: &str,
    table: &str,
    is_strict: bool,
    coordinate: Option<Takes>,
) -> rusqlite::Result<Vec<(TableColumn, bool)>> {
    let mut statement = conn.prepare(&format!("PRAGMA {}.table_xinfo({})", quote(database), quote(table)))?;
    let columns = statement.query_map([], |row| {
        let declared: String = row.get("type")?;
        let (not_null, key, number): (bool, i64, i64) = (row.get("notnull")?, row.get("pk")?, row.get("cid")?);
        let default: Option<String> = row.get("dflt_value")?;
        let hidden: i64 = row.get("hidden")?;
        let takes = match coordinate {
            Some(_) if number == 0 => Takes::RowId,
            // Columns beside the coordinates have no type.
            Some(takes) if !declared.is_empty() => takes,
            _ if is_strict => Kind::of_strict(&declared).map_or(Takes::Any, Takes::Only),
            _ => Takes::Any,
        };
        let column = TableColumn {
            name: row.get("name")?,
            affinity: Affinity::of(&declared, is_strict),
            takes,
            must_be_given: not_null && default.is_none() && hidden == 0,
            generated: hidden == 2 || hidden == 3,
            declared,
        };
        Ok((column, key > 0))
    })?;
    columns.collect()
}

/// What the coordinates of an r-tree take; `None` for other tables.
fn coordinate(conn: &Connection, database: &str, table: &str) -> rusqlite::Result<Option<Takes>> {
    let question = format!("SELECT sql FROM {}.sqlite_schema WHERE name = ?", quote(database));
    let sql: Option<String> = conn.query_row(&question, [table], |row| row.get(0)).optional()?.flatten();
    let sql = sql.unwrap_or_default().to_ascii_lowercase();
    // The name of the table may contain the word.
    let module = sql.rsplit_once(" using ").map(|(_, rest)| rest.trim_start());
    Ok(module.and_then(|module| match module.split(|c: char| !c.is_alphanumeric() && c != '_').next() {
        Some("rtree") => Some(Takes::Float32),
        Some("rtree_i32") => Some(Takes::Integer32),
        _ => None,
    }))
}
