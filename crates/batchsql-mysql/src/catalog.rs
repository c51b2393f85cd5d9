//! Owns the queries for the properties of the server, of a session and of a table.
//! Must not know what the results are used for.

use batchsql_core::TableName;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Decode, Executor, MySql, Row};

/// Settings of the session that affect values.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) sql_mode: String,
    pub(crate) time_zone: String,
    /// The zone that applies if `time_zone` is `SYSTEM`.
    pub(crate) system_time_zone: String,
    pub(crate) character_set: String,
    pub(crate) autocommit: bool,
    /// Size of the largest packet that the server accepts, in bytes.
    pub(crate) max_allowed_packet: usize,
    /// If false, NULL in a NOT NULL TIMESTAMP column becomes the current time.
    pub(crate) explicit_timestamps: bool,
    /// Whether the isolation level is READ UNCOMMITTED.
    pub(crate) reads_uncommitted: bool,
    pub(crate) is_mariadb: bool,
    /// The default database, for table names without a database.
    pub(crate) database: Option<String>,
}

/// A table as the server reports it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: FoundName,
    /// `BASE TABLE`, `VIEW` and so on.
    pub(crate) kind: String,
    pub(crate) engine: String,
    /// Whether the engine supports savepoints.
    pub(crate) has_savepoints: bool,
    pub(crate) columns: Vec<TableColumn>,
    pub(crate) unique_indexes: Vec<UniqueIndex>,
    /// Names of keys, foreign keys and checks.
    pub(crate) constraints: Vec<String>,
}

/// A table name in the server's spelling.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FoundName {
    pub(crate) database: String,
    pub(crate) name: String,
}

/// A column as the server reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TableColumn {
    pub(crate) name: String,
    /// The bare type in lower case, for example `bigint`.
    pub(crate) data_type: String,
    /// The full type, for example `bigint(20) unsigned`.
    pub(crate) full_type: String,
    pub(crate) nullable: bool,
    pub(crate) has_default: bool,
    pub(crate) generated: bool,
    pub(crate) auto_increment: bool,
    /// The end of the row's validity in a MariaDB system-versioned table. This column is part of every key, but
    /// written rows never carry it.
    pub(crate) row_end: bool,
    /// Maximum length in characters; in bytes for a binary column.
    pub(crate) max_chars: u64,
    pub(crate) max_octets: u64,
    /// Fraction digits of a DECIMAL, or of a FLOAT(M,D).
    pub(crate) scale: Option<u64>,
    /// Fraction digits of the seconds.
    pub(crate) fraction: u64,
}

/// A unique index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UniqueIndex {
    pub(crate) name: String,
    /// `None` for a part that is not a whole column: a prefix or an expression.
    pub(crate) columns: Vec<Option<String>>,
}

/// Decodes without checking the declared type, because servers and versions declare their catalog columns
/// differently.
fn get<'r, T: Decode<'r, MySql>>(row: &'r MySqlRow, column: &str) -> sqlx::Result<T> {
    row.try_get_unchecked(column)
}

impl Session {
    pub(crate) async fn read(connection: &mut MySqlConnection) -> sqlx::Result<Self> {
        let names = [
            "sql_mode",
            "time_zone",
            "system_time_zone",
            "character_set_client",
            // The character set to which the server converts the text of a statement.
            "character_set_connection",
            "autocommit",
            "max_allowed_packet",
            "explicit_defaults_for_timestamp",
            // The name in MariaDB, then the name in MySQL.
            "tx_isolation",
            "transaction_isolation",
            "version",
        ];
        let found = variables(connection, &names).await?;
        let value = |name: &str| found.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str());
        let row = sqlx::query("SELECT CAST(DATABASE() AS CHAR) AS current_database").persistent(false);
        Ok(Self {
            reads_uncommitted: found.iter().any(|(_, value)| value == "READ-UNCOMMITTED"),
            sql_mode: value("sql_mode").to_owned(),
            time_zone: value("time_zone").to_owned(),
            system_time_zone: value("system_time_zone").to_owned(),
            character_set: ["character_set_client", "character_set_connection"]
                .into_iter()
                .map(value)
                .find(|set| *set != "utf8mb4")
                .unwrap_or("utf8mb4")
                .to_owned(),
            autocommit: value("autocommit") == "ON",
            max_allowed_packet: packet(value("max_allowed_packet")),
            explicit_timestamps: value("explicit_defaults_for_timestamp") == "ON",
            is_mariadb: value("version").to_lowercase().contains("mariadb"),
            database: get(&row.fetch_one(connection).await?, "current_database")?,
        })
    }
}

/// Size of the largest packet on this connection, in bytes. A later change of the variable applies only to later
/// connections. The statement stays prepared, which marks the connection as queried.
pub(crate) async fn max_allowed_packet(connection: &mut MySqlConnection) -> sqlx::Result<usize> {
    let row = sqlx::query("SHOW SESSION VARIABLES LIKE 'max_allowed_packet'").fetch_optional(connection).await?;
    let value: Option<String> = row.map(|row| row.try_get_unchecked(1)).transpose()?;
    Ok(packet(&value.unwrap_or_default()))
}

fn packet(value: &str) -> usize {
    value.parse().unwrap_or(1024)
}

/// Variables of the session. Uses SHOW because a proxy that shares sessions may pin a session to a client that
/// reads variables with `@@`.
async fn variables(connection: &mut MySqlConnection, names: &[&str]) -> sqlx::Result<Vec<(String, String)>> {
    let sql = format!("SHOW SESSION VARIABLES WHERE Variable_name IN ('{}')", names.join("','"));
    let rows = connection.fetch_all(&*sql).await?;
    let variable = |row: &MySqlRow| Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?));
    rows.iter().map(variable).collect()
}

impl Table {
    /// Looks up a table; `None` if this user can see no such table.
    pub(crate) async fn read(
        connection: &mut MySqlConnection,
        database: &str,
        table: &TableName,
    ) -> sqlx::Result<Option<Self>> {
        let sql = "SELECT CAST(t.TABLE_SCHEMA AS CHAR) AS found_schema, CAST(t.TABLE_NAME AS CHAR) AS found_name, \
                   CAST(t.TABLE_TYPE AS CHAR) AS kind, CAST(COALESCE(t.ENGINE, '') AS CHAR) AS engine, \
                   CAST(COALESCE(e.SAVEPOINTS, '') AS CHAR) AS savepoints \
                   FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE \
                   WHERE t.TABLE_SCHEMA = ? AND t.TABLE_NAME = ?";
        let query = sqlx::query(sql).bind(database).bind(table.name()).persistent(false);
        let Some(row) = query.fetch_optional(&mut *connection).await? else { return Ok(None) };
        let columns = columns(connection, database, table).await?;
        let mut unique_indexes = unique_indexes(connection, database, table).await?;
        let is_row_end = |name: &str| columns.iter().any(|column| column.row_end && same_name(&column.name, name));
        for index in &mut unique_indexes {
            index.columns.retain(|part| !part.as_deref().is_some_and(is_row_end));
        }
        Ok(Some(Self {
            name: FoundName { database: get(&row, "found_schema")?, name: get(&row, "found_name")? },
            kind: get(&row, "kind")?,
            engine: get(&row, "engine")?,
            has_savepoints: get::<String>(&row, "savepoints")?.eq_ignore_ascii_case("YES"),
            columns,
            unique_indexes,
            constraints: constraints(connection, database, table).await?,
        }))
    }
}

async fn columns(
    connection: &mut MySqlConnection,
    database: &str,
    table: &TableName,
) -> sqlx::Result<Vec<TableColumn>> {
    let sql = "SELECT CAST(COLUMN_NAME AS CHAR) AS name, CAST(DATA_TYPE AS CHAR) AS data_type, \
               CAST(COLUMN_TYPE AS CHAR) AS full_type, IS_NULLABLE = 'YES' AS nullable, \
               COLUMN_DEFAULT IS NOT NULL AS has_default, COALESCE(GENERATION_EXPRESSION, '') <> '' AS is_generated, \
               EXTRA LIKE '%auto_increment%' AS is_auto, \
               COALESCE(GENERATION_EXPRESSION, '') = 'ROW END' AS is_row_end, \
               CAST(COALESCE(CHARACTER_MAXIMUM_LENGTH, 0) AS UNSIGNED) AS max_chars, \
               CAST(COALESCE(CHARACTER_OCTET_LENGTH, 0) AS UNSIGNED) AS max_octets, \
               CAST(NUMERIC_SCALE AS UNSIGNED) AS scale, \
               CAST(COALESCE(DATETIME_PRECISION, 0) AS UNSIGNED) AS fraction \
               FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION";
    let query = sqlx::query(sql).bind(database).bind(table.name()).persistent(false);
    let column = |row: &MySqlRow| {
        Ok(TableColumn {
            name: get(row, "name")?,
            data_type: get::<String>(row, "data_type")?.to_ascii_lowercase(),
            full_type: get(row, "full_type")?,
            nullable: get::<i64>(row, "nullable")? != 0,
            has_default: get::<i64>(row, "has_default")? != 0,
            generated: get::<i64>(row, "is_generated")? != 0,
            auto_increment: get::<i64>(row, "is_auto")? != 0,
            row_end: get::<i64>(row, "is_row_end")? != 0,
            max_chars: get(row, "max_chars")?,
            max_octets: get(row, "max_octets")?,
            scale: get(row, "scale")?,
            fraction: get(row, "fraction")?,
        })
    };
    query.fetch_all(connection).await?.iter().map(column).collect()
}

async fn unique_indexes(
    connection: &mut MySqlConnection,
    database: &str,
    table: &TableName,
) -> sqlx::Result<Vec<UniqueIndex>> {
    let sql = "SELECT CAST(INDEX_NAME AS CHAR) AS name, CAST(COLUMN_NAME AS CHAR) AS column_name, \
               SUB_PART IS NOT NULL AS is_prefix \
               FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND NON_UNIQUE = 0 \
               ORDER BY INDEX_NAME, SEQ_IN_INDEX";
    let query = sqlx::query(sql).bind(database).bind(table.name()).persistent(false);
    let mut indexes: Vec<UniqueIndex> = Vec::new();
    for row in &query.fetch_all(connection).await? {
        let name: String = get(row, "name")?;
        let column: Option<String> = get(row, "column_name")?;
        let column = if get::<i64>(row, "is_prefix")? == 0 { column } else { None };
        match indexes.last_mut() {
            Some(index) if index.name == name => index.columns.push(column),
            _ => indexes.push(UniqueIndex { name, columns: vec![column] }),
        }
    }
    Ok(indexes)
}

async fn constraints(connection: &mut MySqlConnection, database: &str, table: &TableName) -> sqlx::Result<Vec<String>> {
    let sql = "SELECT CAST(CONSTRAINT_NAME AS CHAR) AS name FROM information_schema.TABLE_CONSTRAINTS \
               WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY name";
    let query = sqlx::query(sql).bind(database).bind(table.name()).persistent(false);
    query.fetch_all(connection).await?.iter().map(|row| get(row, "name")).collect()
}

/// Compares column names without case.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}
