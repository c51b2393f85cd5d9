//! Owns what the tests share: a database per test, and helpers to write and read it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, ColumnType, Conflict, DynRow, Ordering, Outcome, PipelineConfig, Schema, Sink, SinkError, Value,
    Written,
};
use batchsql_mysql::sqlx::mysql::{MySqlConnection, MySqlPool};
use batchsql_mysql::sqlx::{Connection, Executor, Row, raw_sql};
use batchsql_mysql::{MySqlOptions, MySqlSink};
use batchsql_testkit::{batch_of, outcomes_of, receipts_of};
use batchsql_testserver::{Kind, dsn, unique};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// A database that only one test uses; it is dropped with this value.
pub(crate) struct Database {
    pub(crate) name: String,
    /// The DSN of this database.
    pub(crate) dsn: String,
    pub(crate) sink: MySqlSink,
    left: Left,
}

/// The objects that a test leaves at the server; they are dropped with this value, even after a failure.
struct Left {
    /// The DSN of the server, as it was given.
    server: String,
    database: String,
    users: Mutex<Vec<String>>,
}

/// A DSN with another path.
pub(crate) fn with_path(dsn: &str, path: &str) -> String {
    let (address, query) = dsn.split_once('?').unwrap_or((dsn, ""));
    let host = address.split_once("://").map_or(address, |(_, rest)| rest.split('/').next().unwrap_or_default());
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("mysql://{host}/{path}{query}")
}

/// A DSN with further parameters.
pub(crate) fn with_parameters(dsn: &str, parameters: &str) -> String {
    format!("{dsn}{}{parameters}", if dsn.contains('?') { '&' } else { '?' })
}

/// `host:port` of a DSN.
pub(crate) fn host_of(dsn: &str) -> &str {
    dsn.split_once('@').unwrap().1.split('/').next().unwrap()
}

/// `user:password@host:port` of a DSN with another user.
pub(crate) fn with_user(dsn: &str, user: &str, password: &str) -> String {
    let (_, rest) = dsn.split_once("://").unwrap();
    let (_, address) = rest.split_once('@').unwrap();
    format!("mysql://{user}:{password}@{address}")
}

impl Database {
    /// A database of the shared server after running `sql`.
    pub(crate) async fn new(sql: &str) -> Self {
        Self::on(&dsn(Kind::MySql), sql, "").await
    }

    /// A database of the shared server, and a sink with further parameters in its DSN.
    pub(crate) async fn with(sql: &str, parameters: &str) -> Self {
        Self::on(&dsn(Kind::MySql), sql, parameters).await
    }

    /// A database of a server.
    pub(crate) async fn on(server: &str, sql: &str, parameters: &str) -> Self {
        let name = unique("mysql");
        let left = Left { server: server.to_owned(), database: name.clone(), users: Mutex::default() };
        let mut connection = MySqlConnection::connect(server).await.unwrap();
        connection.execute(&*format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await.unwrap();
        connection.close().await.unwrap();
        let dsn = with_path(server, &name);
        let options = if parameters.is_empty() { dsn.clone() } else { with_parameters(&dsn, parameters) };
        let sink = MySqlSink::with_options(&options.parse::<MySqlOptions>().unwrap()).await.unwrap();
        let database = Self { name, dsn, sink, left };
        if !sql.is_empty() {
            database.run(sql).await;
        }
        database
    }

    pub(crate) fn pool(&self) -> &MySqlPool {
        self.sink.mysql_pool()
    }

    /// A user with a password, and further clauses of `CREATE USER`.
    pub(crate) async fn user(&self, password: &str, more: &str) -> String {
        let user = unique("user");
        self.left.users.lock().unwrap().push(user.clone());
        self.run(&format!("CREATE USER '{user}'@'%' IDENTIFIED BY '{password}' {more}")).await;
        user
    }

    /// Runs statements, separated by `;`.
    pub(crate) async fn run(&self, sql: &str) {
        raw_sql(sql).execute(self.pool()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Every row of a query, its columns joined by `|`.
    pub(crate) async fn read(&self, sql: &str) -> Vec<String> {
        let rows = raw_sql(sql).fetch_all(self.pool()).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let text = |row: &batchsql_mysql::sqlx::mysql::MySqlRow| {
            let value = |place| match row.try_get_unchecked::<Option<&[u8]>, _>(place).unwrap() {
                Some(value) => String::from_utf8_lossy(value).into_owned(),
                None => "NULL".to_owned(),
            };
            (0..row.len()).map(value).collect::<Vec<_>>().join("|")
        };
        rows.iter().map(text).collect()
    }

    /// Waits until a statement in this database waits for a lock.
    pub(crate) async fn wait_for_a_lock_wait(&self) {
        let waiting = format!(
            "SELECT COUNT(*) FROM information_schema.INNODB_TRX JOIN information_schema.PROCESSLIST
             ON trx_mysql_thread_id = ID WHERE trx_state = 'LOCK WAIT' AND DB = '{}'",
            self.name
        );
        while self.read(&waiting).await == ["0"] {
            // The server refreshes the list only after 100 ms without a query.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    }

    /// A separate connection.
    pub(crate) async fn connection(&self) -> MySqlConnection {
        MySqlConnection::connect(&self.dsn).await.unwrap()
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let users = std::mem::take(&mut *self.users.lock().unwrap_or_else(PoisonError::into_inner));
        let mut drops: Vec<String> = users.iter().map(|user| format!("DROP USER IF EXISTS '{user}'@'%'")).collect();
        drops.push(format!("DROP DATABASE IF EXISTS {}", self.database));
        let server = self.server.clone();
        // On a thread, because dropping cannot wait. The test's own server may be gone.
        let _ = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let patience = Duration::from_secs(5);
                let _ = tokio::time::timeout(patience, async {
                    let mut connection = MySqlConnection::connect(&server).await.ok()?;
                    connection.execute("SET lock_wait_timeout = 3").await.ok()?;
                    for sql in &drops {
                        connection.execute(&**sql).await.ok()?;
                    }
                    Some(())
                })
                .await;
            });
        })
        .join();
    }
}

/// A pipeline whose batches are written in order, so that outcomes are deterministic.
pub(crate) fn pipeline(sink: &MySqlSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).ordering(Ordering::PerTable);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// A pipeline that sends one row of each key of a batch, if the rule allows it, and one batch at a time.
pub(crate) fn coalescing(sink: &MySqlSink) -> BatchSql {
    let config = PipelineConfig::default().flush_interval(HOUR).max_concurrency(1);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// `id` and `note` of table `t`.
pub(crate) fn schema(conflict: Conflict) -> Schema {
    Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .on_conflict(conflict)
        .build()
        .unwrap()
}

pub(crate) fn row(schema: &Schema, id: i64, note: impl Into<Value>) -> DynRow {
    schema.row().set("id", id).unwrap().set("note", note).unwrap().finish().unwrap()
}

/// Writes the rows in one batch; their outcomes by name.
pub(crate) async fn write(sink: &MySqlSink, rows: impl IntoIterator<Item = DynRow>) -> Vec<&'static str> {
    outcomes(sink, rows).await.iter().map(|outcome| outcome.kind().name()).collect()
}

/// Writes the rows in one batch.
pub(crate) async fn outcomes(sink: &MySqlSink, rows: impl IntoIterator<Item = DynRow>) -> Vec<Outcome> {
    let db = pipeline(sink);
    let outcomes = submitted(&db, rows).await;
    db.close(HOUR).await;
    outcomes
}

/// Submits the rows to a pipeline that stays open, and waits for their outcomes.
pub(crate) async fn submitted(db: &BatchSql, rows: impl IntoIterator<Item = DynRow>) -> Vec<Outcome> {
    let receipts = receipts_of(db, rows).await;
    db.flush().await.unwrap();
    outcomes_of(receipts).await
}

/// Writes a batch directly through the sink, without a pipeline that searches or retries.
pub(crate) async fn written(
    sink: &MySqlSink,
    rows: impl IntoIterator<Item = DynRow>,
    is_atomic: bool,
) -> Result<Written, SinkError> {
    let batch = batch_of(rows).await;
    let mut conn = sink.acquire().await?;
    let plan = sink.prepare(&mut conn, batch.rows().schema()).await?;
    sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(is_atomic)).await
}
