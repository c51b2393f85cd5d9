//! Owns the databases of tests that start processes: each has one table without a key, so a row that is written twice is there twice.
//! Must not know a single test.

use std::collections::HashMap;
use std::path::PathBuf;

use batchsql_core::DynSink;
use batchsql_mysql::MySqlSink;
use batchsql_mysql::sqlx::{self, Connection as _, MySqlConnection, PgConnection};
use batchsql_postgres::PostgresSink;
use batchsql_sqlite::SqliteSink;
use batchsql_sqlite::rusqlite::Connection;
use batchsql_testserver::{Kind, Server, dsn, unique};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    Sqlite,
    Postgres,
    MySql,
    Redis,
}

/// A database of one test, with a table `(id, note)`. On Redis the table is a stream.
pub(crate) struct Database {
    pub(crate) on: On,
    dsn: String,
    table: &'static str,
    folder: tempfile::TempDir,
    _server: Option<Server>,
}

impl Database {
    pub(crate) async fn new(on: On, table: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (dsn, server) = match on {
            On::Sqlite => (format!("sqlite:{}", folder.path().join("target.db").display()), None),
            On::Postgres => (dsn(Kind::Postgres), None),
            // The shared server does not wait for the disk, which a worker that writes exactly once refuses.
            On::MySql => own(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1"]),
            On::Redis => own(Kind::Redis, &["--appendonly", "yes"]),
        };
        let create = format!("CREATE TABLE {table} (id bigint, note text)");
        let dsn = match on {
            On::Sqlite => {
                Connection::open(folder.path().join("target.db")).unwrap().execute_batch(&create).unwrap();
                dsn
            }
            On::Postgres => {
                let (mut admin, name) = (PgConnection::connect(&dsn).await.unwrap(), unique("nats"));
                sqlx::query(&format!("CREATE DATABASE {name}")).execute(&mut admin).await.unwrap();
                let dsn = in_database(&dsn, &name);
                let mut conn = PgConnection::connect(&dsn).await.unwrap();
                sqlx::query(&create).execute(&mut conn).await.unwrap();
                dsn
            }
            On::MySql => {
                let (mut admin, name) = (MySqlConnection::connect(&dsn).await.unwrap(), unique("nats"));
                sqlx::raw_sql(&format!("CREATE DATABASE {name}")).execute(&mut admin).await.unwrap();
                let dsn = in_database(&dsn, &name);
                let mut conn = MySqlConnection::connect(&dsn).await.unwrap();
                sqlx::raw_sql(&create).execute(&mut conn).await.unwrap();
                dsn
            }
            On::Redis => dsn,
        };
        Self { on, dsn, table, folder, _server: server }
    }

    pub(crate) fn dsn(&self) -> &str {
        &self.dsn
    }

    /// A file beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The ids in the table, sorted. A row that was written twice is there twice.
    pub(crate) async fn ids(&self) -> Vec<i64> {
        let query = format!("SELECT id FROM {} ORDER BY id", self.table);
        match self.on {
            On::Sqlite => {
                let read = move |conn: &mut Connection| {
                    let mut query = conn.prepare(&query)?;
                    let ids = query.query_map([], |row| row.get(0))?;
                    ids.collect()
                };
                SqliteSink::open(&self.dsn).unwrap().call(read).await.unwrap()
            }
            On::Postgres => {
                let mut conn = PgConnection::connect(&self.dsn).await.unwrap();
                sqlx::query_scalar(&query).fetch_all(&mut conn).await.unwrap()
            }
            On::MySql => {
                let mut conn = MySqlConnection::connect(&self.dsn).await.unwrap();
                sqlx::query_scalar(&query).fetch_all(&mut conn).await.unwrap()
            }
            On::Redis => {
                let client = redis::Client::open(&*self.dsn).unwrap();
                let mut conn = client.get_multiplexed_async_connection().await.unwrap();
                let entries: Vec<(String, HashMap<String, String>)> =
                    redis::cmd("XRANGE").arg(self.table).arg("-").arg("+").query_async(&mut conn).await.unwrap();
                let mut ids: Vec<i64> = entries.iter().map(|(_, fields)| fields["id"].parse().unwrap()).collect();
                ids.sort_unstable();
                ids
            }
        }
    }
}

/// A sink of a SQL database.
pub(crate) async fn sql_sink(dsn: &str) -> DynSink {
    match dsn.split(':').next() {
        Some("sqlite") => DynSink::new(SqliteSink::open(dsn).unwrap()),
        Some("mysql") => DynSink::new(MySqlSink::connect(dsn).await.unwrap()),
        _ => DynSink::new(PostgresSink::connect(dsn).await.unwrap()),
    }
}

fn own(kind: Kind, arguments: &[&str]) -> (String, Option<Server>) {
    let server = Server::start(kind, arguments);
    (server.dsn().to_owned(), Some(server))
}

fn in_database(dsn: &str, name: &str) -> String {
    let (server, parameters) = dsn.split_at(dsn.find('?').unwrap_or(dsn.len()));
    let (server, _) = server.rsplit_once('/').unwrap();
    format!("{server}/{name}{parameters}")
}
