//! Owns the queries for the properties of the server, of a session and of a table.
//! Must not know what the results are used for.

use std::sync::Arc;

use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Executor, Row};

use crate::quoted;

/// No query of ours returns as many rows: keys of rows, or columns and indexes of a table.
const MAX_ROWS_OF_A_QUERY: u64 = 10_000;

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
    /// If false, NULL in a NOT NULL TIMESTAMP column becomes the current time. On MariaDB it always does.
    pub(crate) explicit_timestamps: bool,
    /// Whether the isolation level is READ UNCOMMITTED.
    pub(crate) reads_uncommitted: bool,
    /// Whether the session leaves rows of a query out (`sql_select_limit`): then the other settings may be missing.
    pub(crate) leaves_rows_out: bool,
    pub(crate) is_mariadb: bool,
    /// All that a session must have in common with this one, where that is checked.
    pub(crate) state: Option<Arc<str>>,
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
    /// The character set of a text column, for example `utf8mb4`.
    pub(crate) character_set: String,
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

impl Session {
    pub(crate) async fn read(connection: &mut MySqlConnection) -> sqlx::Result<Self> {
        let names = [
            "sql_mode",
            "time_zone",
            "system_time_zone",
            "character_set_client",
            // The character set to which the server converts the text of a statement.
            "character_set_connection",
            "character_set_results",
            "autocommit",
            "max_allowed_packet",
            "explicit_defaults_for_timestamp",
            // The name in MariaDB, then the name in MySQL.
            "tx_isolation",
            "transaction_isolation",
            "version",
            "sql_select_limit",
        ];
        let found = variables(connection, &names).await?;
        let value = |name: &str| found.iter().find(|(found, _)| found == name).map_or("", |(_, value)| value.as_str());
        Ok(Self {
            leaves_rows_out: found.len() < 2
                || value("sql_select_limit").parse().is_ok_and(|limit: u64| limit < MAX_ROWS_OF_A_QUERY),
            reads_uncommitted: found.iter().any(|(_, value)| value == "READ-UNCOMMITTED"),
            sql_mode: value("sql_mode").to_owned(),
            time_zone: value("time_zone").to_owned(),
            system_time_zone: value("system_time_zone").to_owned(),
            character_set: ["character_set_client", "character_set_connection", "character_set_results"]
                .into_iter()
                .map(value)
                .find(|set| *set != "utf8mb4")
                // That of results may be none.
                .map_or("utf8mb4", |set| if set.is_empty() { "NULL" } else { set })
                .to_owned(),
            autocommit: value("autocommit") == "ON",
            max_allowed_packet: packet(value("max_allowed_packet")),
            explicit_timestamps: value("explicit_defaults_for_timestamp") == "ON",
            is_mariadb: value("version").to_lowercase().contains("mariadb"),
            state: None,
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

/// 1 KiB, the smallest limit that a server can have, if it is not known.
pub(crate) fn packet(value: &str) -> usize {
    value.parse().unwrap_or(1024)
}

/// Variables of the session. Uses SHOW because a proxy that shares sessions may pin a session to a client that
/// reads variables with `@@`.
pub(crate) async fn variables(connection: &mut MySqlConnection, names: &[&str]) -> sqlx::Result<Vec<(String, String)>> {
    let sql = format!("SHOW SESSION VARIABLES WHERE Variable_name IN ('{}')", names.join("','"));
    let rows = connection.fetch_all(&*sql).await?;
    let variable = |row: &MySqlRow| Ok((row.try_get_unchecked(0)?, row.try_get_unchecked(1)?));
    rows.iter().map(variable).collect()
}

/// What the catalog says about a table name.
#[derive(Debug)]
pub(crate) enum Found {
    Table(Table),
    /// This user can see no such table.
    NoTable,
    /// The name has no database, and the session has no default database.
    NoDatabase,
}

impl Table {
    /// Looks up a table, in the default database of the session if `database` is `None`. One round trip: the parts of
    /// the definition are the rows of one statement, and the name is in its text, because a prepared statement takes
    /// two.
    pub(crate) async fn read(
        connection: &mut MySqlConnection,
        database: Option<&str>,
        table: &str,
    ) -> sqlx::Result<Found> {
        let rows = connection.fetch_all(&*definition_query(database, table)).await?;
        Definition::read(&rows).map(Definition::into_found)
    }
}

/// A query for the parts of a table's definition. Each row starts with the kind of its part and has [`FIELDS`] texts.
fn definition_query(database: Option<&str>, table: &str) -> String {
    let database = database.map_or_else(|| "DATABASE()".to_owned(), quoted::text);
    let name = quoted::text(table);
    let of_table = |prefix: &str| format!("WHERE {prefix}TABLE_SCHEMA = {database} AND {prefix}TABLE_NAME = {name}");
    let place = of_table("");
    let select = |kind: char, fields: &[&str], from: &str| {
        let fields = fields.iter().copied().chain(std::iter::repeat("NULL")).take(FIELDS);
        let fields: Vec<String> = fields.map(|field| format!("CAST({field} AS CHAR)")).collect();
        format!("SELECT '{kind}' AS part, {} {from}", fields.join(", "))
    };
    let parts = [
        select(DATABASE, &[&database], ""),
        select(
            TABLE,
            &["t.TABLE_SCHEMA", "t.TABLE_NAME", "t.TABLE_TYPE", "t.ENGINE", "e.SAVEPOINTS"],
            &format!(
                "FROM information_schema.TABLES t LEFT JOIN information_schema.ENGINES e ON e.ENGINE = t.ENGINE {}",
                of_table("t.")
            ),
        ),
        select(
            COLUMN,
            &[
                "ORDINAL_POSITION",
                "COLUMN_NAME",
                "DATA_TYPE",
                "COLUMN_TYPE",
                "IS_NULLABLE",
                "COLUMN_DEFAULT IS NOT NULL",
                "COALESCE(GENERATION_EXPRESSION, '') <> ''",
                "EXTRA LIKE '%auto_increment%'",
                "COALESCE(GENERATION_EXPRESSION, '') = 'ROW END'",
                "CHARACTER_MAXIMUM_LENGTH",
                "CHARACTER_OCTET_LENGTH",
                "NUMERIC_SCALE",
                "DATETIME_PRECISION",
                "CHARACTER_SET_NAME",
            ],
            &format!("FROM information_schema.COLUMNS {place}"),
        ),
        select(
            INDEX,
            &["INDEX_NAME", "SEQ_IN_INDEX", "COLUMN_NAME", "SUB_PART IS NOT NULL"],
            &format!("FROM information_schema.STATISTICS {place} AND NON_UNIQUE = 0"),
        ),
        select(CONSTRAINT, &["CONSTRAINT_NAME"], &format!("FROM information_schema.TABLE_CONSTRAINTS {place}")),
    ];
    parts.join(" UNION ALL ")
}

const FIELDS: usize = 14;

// The kinds of parts.
const DATABASE: char = 'd';
const TABLE: char = 't';
const COLUMN: char = 'c';
const INDEX: char = 'i';
const CONSTRAINT: char = 'n';

/// One row of the query. Decodes without checking the declared type, because servers declare the columns of a union
/// differently.
struct Part<'r>(&'r MySqlRow);

impl Part<'_> {
    fn field(&self, place: usize) -> sqlx::Result<Option<String>> {
        self.0.try_get_unchecked(place + 1)
    }

    fn text(&self, place: usize) -> sqlx::Result<String> {
        Ok(self.field(place)?.unwrap_or_default())
    }

    fn number(&self, place: usize) -> sqlx::Result<Option<u64>> {
        let parse = |text: String| text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)));
        self.field(place)?.map(parse).transpose()
    }

    fn flag(&self, place: usize) -> sqlx::Result<bool> {
        Ok(self.field(place)?.as_deref() == Some("1"))
    }
}

/// The parts of a definition, in the order of the server's answer, which is any.
#[derive(Default)]
struct Definition {
    has_database: bool,
    table: Option<Table>,
    columns: Vec<(u64, TableColumn)>,
    /// Name of the index, place of the column, column.
    index_parts: Vec<(String, u64, Option<String>)>,
    constraints: Vec<String>,
}

impl Definition {
    fn read(rows: &[MySqlRow]) -> sqlx::Result<Self> {
        let mut definition = Self::default();
        for row in rows {
            let kind: String = row.try_get_unchecked(0)?;
            definition.add(kind.chars().next().unwrap_or_default(), &Part(row))?;
        }
        Ok(definition)
    }

    fn add(&mut self, kind: char, part: &Part<'_>) -> sqlx::Result<()> {
        match kind {
            DATABASE => self.has_database = part.field(0)?.is_some(),
            TABLE => {
                self.table = Some(Table {
                    name: FoundName { database: part.text(0)?, name: part.text(1)? },
                    kind: part.text(2)?,
                    engine: part.text(3)?,
                    has_savepoints: part.text(4)?.eq_ignore_ascii_case("YES"),
                    columns: Vec::new(),
                    unique_indexes: Vec::new(),
                    constraints: Vec::new(),
                });
            }
            COLUMN => {
                let column = TableColumn {
                    name: part.text(1)?,
                    data_type: part.text(2)?.to_ascii_lowercase(),
                    full_type: part.text(3)?,
                    nullable: part.text(4)?.eq_ignore_ascii_case("YES"),
                    has_default: part.flag(5)?,
                    generated: part.flag(6)?,
                    auto_increment: part.flag(7)?,
                    row_end: part.flag(8)?,
                    max_chars: part.number(9)?.unwrap_or_default(),
                    max_octets: part.number(10)?.unwrap_or_default(),
                    scale: part.number(11)?,
                    fraction: part.number(12)?.unwrap_or_default(),
                    character_set: part.text(13)?.to_ascii_lowercase(),
                };
                self.columns.push((part.number(0)?.unwrap_or_default(), column));
            }
            INDEX => {
                let column = if part.flag(3)? { None } else { part.field(2)? };
                self.index_parts.push((part.text(0)?, part.number(1)?.unwrap_or_default(), column));
            }
            CONSTRAINT => self.constraints.push(part.text(0)?),
            _ => {}
        }
        Ok(())
    }

    fn into_found(mut self) -> Found {
        let Some(mut table) = self.table else {
            return if self.has_database { Found::NoTable } else { Found::NoDatabase };
        };
        self.columns.sort_by_key(|(place, _)| *place);
        table.columns = self.columns.into_iter().map(|(_, column)| column).collect();
        self.index_parts.sort_by_cached_key(|(name, place, _)| (name.to_lowercase(), *place));
        for parts in self.index_parts.chunk_by(|a, b| a.0 == b.0) {
            let is_row_end =
                |name: &str| table.columns.iter().any(|column| column.row_end && same_name(&column.name, name));
            let columns = parts.iter().map(|(_, _, column)| column.clone());
            let columns = columns.filter(|column| !column.as_deref().is_some_and(is_row_end)).collect();
            table.unique_indexes.push(UniqueIndex { name: parts[0].0.clone(), columns });
        }
        self.constraints.sort();
        table.constraints = self.constraints;
        Found::Table(table)
    }
}

/// Compares column names without case.
pub(crate) fn same_name(a: &str, b: &str) -> bool {
    a == b || a.to_lowercase() == b.to_lowercase()
}
