//! Owns the tools that load a file: which database they are for, and how they are called.
//! Must not know what is measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use batchsql::sqlite::rusqlite;
use sqlx::{Executor, MySqlPool, PgPool};
use url::Url;

use super::load_files::{COLUMNS, Files, python};

const TABLE: &str = "batchsql_suite_load";

/// Loads a Parquet file with the bulk ingestion of ADBC.
const ADBC: &str = "\
import os, sys, time, pyarrow.parquet as parquet, adbc_driver_postgresql.dbapi as dbapi
with dbapi.connect(os.environ['DSN']) as connection:
    begin = time.monotonic()
    with connection.cursor() as cursor:
        cursor.adbc_ingest(sys.argv[2], parquet.read_table(sys.argv[1]), mode='append')
    connection.commit()
    print('took', time.monotonic() - begin)
";

/// Loads a Parquet file with `copy_records_to_table` of asyncpg.
const ASYNCPG: &str = "\
import asyncio, os, sys, time, pyarrow.parquet as parquet, asyncpg
async def main():
    connection = await asyncpg.connect(os.environ['DSN'])
    begin = time.monotonic()
    async with connection.transaction():
        for batch in parquet.ParquetFile(sys.argv[1]).iter_batches(200_000):
            columns = [column.to_pylist() for column in batch.columns]
            await connection.copy_records_to_table(sys.argv[2], records=zip(*columns), columns=batch.schema.names)
    print('took', time.monotonic() - begin)
asyncio.run(main())
";

/// A database with the table.
pub enum Place {
    /// PostgreSQL: its DSN and connections.
    Postgres(String, PgPool),
    /// MySQL or MariaDB: its DSN and connections.
    MySql(String, MySqlPool),
    /// A file of SQLite, in a folder that is removed at the end.
    Sqlite(tempfile::TempDir),
}

impl Place {
    /// Connects to PostgreSQL.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn postgres(dsn: &str) -> Result<Self> {
        Ok(Self::Postgres(dsn.to_owned(), PgPool::connect(dsn).await.context("cannot connect to PostgreSQL")?))
    }

    /// Connects to MySQL or MariaDB.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn mysql(dsn: &str) -> Result<Self> {
        let pool = MySqlPool::connect(dsn).await.context("cannot connect to MySQL")?;
        // mysqlimport sends the file, which MySQL 8 does not take unless it is told.
        let _ = pool.execute("SET GLOBAL local_infile = 1").await;
        // Exactly once needs a server that keeps what it has committed; the servers of xtask do not.
        let _ = pool.execute("SET GLOBAL innodb_flush_log_at_trx_commit = 1").await;
        Ok(Self::MySql(dsn.to_owned(), pool))
    }

    /// A new SQLite file.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn sqlite() -> Result<Self> {
        Ok(Self::Sqlite(tempfile::Builder::new().prefix("batchsql-load-").tempdir()?))
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Postgres(..) => "postgres",
            Self::MySql(..) => "mysql",
            Self::Sqlite(_) => "sqlite",
        }
    }

    /// Makes the table anew.
    pub(super) async fn make_table(&self) -> Result<()> {
        let (drop, create) = (format!("DROP TABLE IF EXISTS {TABLE}"), format!("CREATE TABLE {TABLE} ({COLUMNS})"));
        match self {
            Self::Postgres(_, pool) => {
                pool.execute(&*drop).await?;
                pool.execute(&*create).await?;
            }
            Self::MySql(_, pool) => {
                pool.execute(&*drop).await?;
                pool.execute(&*create).await?;
            }
            Self::Sqlite(folder) => {
                for ending in ["", "-wal", "-shm", "-journal"] {
                    let _ = std::fs::remove_file(folder.path().join(format!("a.db{ending}")));
                }
                let db = rusqlite::Connection::open(folder.path().join("a.db"))?;
                db.execute_batch(&create)?;
            }
        }
        Ok(())
    }

    pub(super) async fn count(&self) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {TABLE}");
        let count: i64 = match self {
            Self::Postgres(_, pool) => sqlx::query_scalar(&sql).fetch_one(pool).await?,
            Self::MySql(_, pool) => sqlx::query_scalar(&sql).fetch_one(pool).await?,
            Self::Sqlite(folder) => {
                rusqlite::Connection::open(folder.path().join("a.db"))?.query_row(&sql, [], |row| row.get(0))?
            }
        };
        Ok(u64::try_from(count)?)
    }

    /// Removes the table.
    pub(super) async fn clear(&self) -> Result<()> {
        let drop = format!("DROP TABLE IF EXISTS {TABLE}");
        match self {
            Self::Postgres(_, pool) => drop_with(pool.execute(&*drop).await),
            Self::MySql(_, pool) => drop_with(pool.execute(&*drop).await),
            Self::Sqlite(_) => Ok(()),
        }
    }

    fn dsn(&self) -> String {
        match self {
            Self::Postgres(dsn, _) | Self::MySql(dsn, _) => dsn.clone(),
            Self::Sqlite(folder) => format!("sqlite:{}", folder.path().join("a.db").display()),
        }
    }
}

fn drop_with<T>(result: sqlx::Result<T>) -> Result<()> {
    result.map(drop).context("cannot remove the table")
}

/// A way to load a file.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// What has to succeed if the tool is on this machine, and what to do if not.
    needs: Option<(Command, &'static str)>,
    call: Box<dyn Fn(usize) -> Command + Send + Sync>,
}

impl Tool {
    fn new(name: &'static str, call: impl Fn(usize) -> Command + Send + Sync + 'static) -> Self {
        Self { name, needs: None, call: Box::new(call) }
    }

    fn needs(mut self, mut check: Command, advice: &'static str) -> Self {
        check.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.needs = Some((check, advice));
        self
    }

    /// Whether it can be called here.
    pub(super) fn is_there(&self) -> bool {
        let Some((check, advice)) = &self.needs else { return true };
        let mut command = Command::new(check.get_program());
        command.args(check.get_args()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let is_there = command.status().is_ok_and(|status| status.success());
        if !is_there {
            eprintln!("skipped: {}. {advice}", self.name);
        }
        is_there
    }

    pub(super) fn command(&self, round: usize) -> Command {
        let mut command = (self.call)(round);
        command.stdin(Stdio::null());
        command
    }
}

fn checked(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn imports(module: &str) -> Command {
    let mut command = python();
    command.args(["-c", &format!("import pyarrow, {module}")]);
    command
}

/// The program, and the tools of the database. The first one is the baseline.
pub(super) fn tools(place: &Place, program: &Path, files: &Files) -> Vec<Tool> {
    let ours = |name, file: PathBuf| {
        let (program, dsn) = (program.to_owned(), place.dsn());
        Tool::new(name, move |round| {
            let mut command = Command::new(&program);
            command.arg("load").arg(&file).args([
                "--table",
                TABLE,
                "--again",
                &format!("round-{round}-{}", std::process::id()),
            ]);
            command.env("BATCHSQL_DATABASE", &dsn);
            command
        })
    };
    let mut tools = vec![ours("batchsql load, CSV (baseline)", files.csv())];
    let parquet = files.parquet();
    tools.extend(parquet.clone().map(|file| ours("batchsql load, Parquet", file)));
    let csv = files.csv().display().to_string();
    match place {
        Place::Postgres(dsn, _) => {
            let url = dsn.clone();
            tools.push(
                Tool::new("psql \\copy, CSV", move |_| {
                    let copy = format!("\\copy {TABLE} FROM '{csv}' WITH (FORMAT csv, HEADER true)");
                    checked("psql", &["--no-psqlrc", "--quiet", "--dbname", &url, "--command", &copy])
                })
                .needs(checked("psql", &["--version"]), "Install the client of PostgreSQL"),
            );
            for (name, script, module) in [
                ("adbc_ingest, Parquet", ADBC, "adbc_driver_postgresql"),
                ("asyncpg copy_records, Parquet", ASYNCPG, "asyncpg"),
            ] {
                let (Some(file), dsn) = (parquet.clone(), dsn.clone()) else { continue };
                let call = move |_| {
                    let mut command = python();
                    command.args(["-c", script]).arg(&file).arg(TABLE).env("DSN", &dsn);
                    command
                };
                let advice = "It needs Python with pyarrow, adbc-driver-postgresql and asyncpg; or BATCHSQL_PYTHON";
                tools.push(Tool::new(name, call).needs(imports(module), advice));
            }
        }
        Place::MySql(dsn, _) => {
            let named = std::fs::canonicalize(&csv).ok().and_then(|csv| {
                // The name of the file is that of the table.
                let named = csv.with_file_name(format!("{TABLE}.csv"));
                std::fs::hard_link(&csv, &named).ok().or(named.exists().then_some(()))?;
                Some(named)
            });
            if let (Some(file), Ok(url)) = (named, Url::parse(dsn)) {
                let call = move |_| mysqlimport(&url, &file);
                let tool = Tool::new("mysqlimport --local, CSV", call);
                tools
                    .push(tool.needs(checked("mysqlimport", &["--version"]), "Install the client of MySQL or MariaDB"));
            }
        }
        Place::Sqlite(folder) => {
            let db = folder.path().join("a.db");
            tools.push(
                Tool::new("sqlite3 .import, CSV", move |_| {
                    let import = format!(".import --csv --skip 1 {csv} {TABLE}");
                    let mut command = Command::new("sqlite3");
                    command.arg(&db).arg(import);
                    command
                })
                .needs(checked("sqlite3", &["--version"]), "Install the program of SQLite"),
            );
        }
    }
    tools
}

fn mysqlimport(url: &Url, file: &Path) -> Command {
    let mut command = Command::new("mysqlimport");
    command.args(["--no-defaults", "--local", "--silent", "--ignore-lines=1", "--fields-terminated-by=,"]);
    command.arg(format!("--user={}", decoded(url.username())));
    let socket = url.query_pairs().find(|(key, _)| key == "socket").map(|(_, path)| path.into_owned());
    match socket {
        Some(path) => command.arg(format!("--socket={path}")),
        None => command.arg(format!("--host={}", url.host_str().unwrap_or("localhost"))).arg("--protocol=tcp"),
    };
    if let Some(port) = url.port() {
        command.arg(format!("--port={port}"));
    }
    // Not as an argument, which every user of the machine could read.
    if let Some(password) = url.password() {
        command.env("MYSQL_PWD", decoded(password));
    }
    command.arg(decoded(url.path().trim_start_matches('/'))).arg(file);
    command
}

/// Without the escapes of a URL.
fn decoded(text: &str) -> String {
    let query = format!("a={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(query.as_bytes()).next().map_or_else(String::new, |(_, text)| text.into_owned())
}
