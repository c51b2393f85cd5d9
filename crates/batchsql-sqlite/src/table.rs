//! Owns the definition of a table in the database: its location, its kind, its columns, and whether these are
//! unchanged.
//! Must not know schemas, types of values or statements that write.

use batchsql_core::TableName;
use batchsql_sql::quote;
use rusqlite::{Connection, OptionalExtension};

use crate::types::{Affinity, Kind, Takes};

/// The identity of a table: the database of the connection, and its name as it was created.
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
    /// A table in which a virtual table stores its data.
    Shadow,
}

/// A column as the database reports it.
#[derive(Debug)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    pub(crate) declared: String,
    pub(crate) affinity: Affinity,
    pub(crate) takes: Takes,
    pub(crate) must_be_given: bool,
    pub(crate) generated: bool,
}

/// The databases of the connection, and the schema versions of those in which the table is searched. SQLite
/// increments these with every change of a table, by any connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Versions {
    /// Their names and files, in the order in which they are searched.
    databases: Vec<(String, Option<String>)>,
    /// Queries and their results.
    versions: Vec<(String, i64)>,
}

/// The current definition of a table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) id: TableId,
    pub(crate) kind: TableKind,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) versions: Versions,
}

impl Versions {
    fn read(conn: &Connection, watched: &[&str]) -> rusqlite::Result<Self> {
        let question = |database: &&str| format!("PRAGMA {}.schema_version", quote(database));
        let versions = watched.iter().map(question);
        let versions = versions.map(|question| version(conn, &question).map(|version| (question, version)));
        Ok(Self { databases: databases(conn)?, versions: versions.collect::<Result<_, _>>()? })
    }

    pub(crate) fn are_current(&self, conn: &Connection) -> rusqlite::Result<bool> {
        for (question, known) in &self.versions {
            if version(conn, question)? != *known {
                return Ok(false);
            }
        }
        // Another database attached under the same name may have the same version.
        Ok(databases(conn)? == self.databases)
    }
}

/// The databases of a connection and their files. The temp database appears and disappears without a change
/// of tables.
fn databases(conn: &Connection) -> rusqlite::Result<Vec<(String, Option<String>)>> {
    let mut statement = conn.prepare_cached("PRAGMA database_list")?;
    let rows = statement.query_map([], |row| Ok((row.get("name")?, row.get("file")?)))?;
    rows.filter(|row| !row.as_ref().is_ok_and(|(name, _): &(String, _)| name == "temp")).collect()
}

fn version(conn: &Connection, question: &str) -> rusqlite::Result<i64> {
    conn.prepare_cached(question)?.query_row([], |row| row.get(0))
}

impl Table {
    /// Why rows are not written to it under this name.
    pub(crate) fn temporary(&self, name: &TableName) -> Option<String> {
        let is_temporary = name.namespace().is_none() && self.id.database == "temp";
        is_temporary.then(|| {
            format!(
                "it is temporary: only one connection has it, and its rows end with the connection; write to a table that lasts, or \
                 name it TableName::qualified(\"temp\", {:?})",
                name.name()
            )
        })
    }

    /// Returns `None` if there is no such table.
    pub(crate) fn find(conn: &Connection, name: &TableName) -> rusqlite::Result<Option<Self>> {
        let Some(database) = database_of(conn, name)? else { return Ok(None) };
        // A table with the same name may be created in a database that is searched earlier.
        let listed = databases(conn)?;
        let mut watched: Vec<&str> = vec![&database];
        if name.namespace().is_none() {
            watched.extend(listed.iter().map(|(name, _)| &**name).take_while(|name| *name != database));
            watched.sort_unstable();
            watched.dedup();
        }
        // Read before the rest, so that a change in between is detected.
        let versions = Versions::read(conn, &watched)?;
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
        let is_r_tree = kind == TableKind::Virtual && is_r_tree(conn, &database, &name)?;
        let mut columns = columns(conn, &database, &name, is_strict, is_r_tree)?;
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

/// The database of the table: main, then the attached ones in order. SQLite itself searches temp first, whose rows end with the
/// connection: it does not count, unless no other database has the table.
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
    let (temp, others): (Vec<String>, Vec<String>) = with_it.into_iter().partition(|database| database == "temp");
    Ok(known.into_iter().find(|database| others.contains(database)).or_else(|| temp.into_iter().next()))
}

/// The columns, each with a flag whether it is in the primary key.
fn columns(
    conn: &Connection,
    database: &str,
    table: &str,
    is_strict: bool,
    is_r_tree: bool,
) -> rusqlite::Result<Vec<(TableColumn, bool)>> {
    let mut statement = conn.prepare(&format!("PRAGMA {}.table_xinfo({})", quote(database), quote(table)))?;
    let columns = statement.query_map([], |row| {
        let declared: String = row.get("type")?;
        let (not_null, key, number): (bool, i64, i64) = (row.get("notnull")?, row.get("pk")?, row.get("cid")?);
        let default: Option<String> = row.get("dflt_value")?;
        let hidden: i64 = row.get("hidden")?;
        let takes = match &*declared {
            _ if is_r_tree && number == 0 => Takes::RowId,
            // Coordinates have one of these types; auxiliary columns have none.
            "REAL" if is_r_tree => Takes::Float32,
            "INT" if is_r_tree => Takes::Integer32,
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

/// Whether a virtual table is an r-tree. Its CREATE statement has many spellings; the tables in which it stores its
/// data have fixed names.
fn is_r_tree(conn: &Connection, database: &str, table: &str) -> rusqlite::Result<bool> {
    let shadows = ["node", "rowid", "parent"].map(|part| format!("{table}_{part}"));
    let question = "SELECT count(*) FROM pragma_table_list WHERE type = 'shadow' AND schema = ?1 COLLATE NOCASE
                    AND name COLLATE NOCASE IN (?2, ?3, ?4)";
    let [node, rowid, parent] = &shadows;
    let found: i64 = conn.query_row(question, [database, node, rowid, parent], |row| row.get(0))?;
    Ok(found == 3)
}
