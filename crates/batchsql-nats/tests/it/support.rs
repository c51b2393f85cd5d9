//! Streams, schemas and tables of the tests.

use std::path::Path;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use batchsql_core::{BatchSql, BatchSqlBuilder, ColumnType, Conflict, DynRow, PipelineConfig, Schema};
use batchsql_nats::{NatsSink, StreamOptions, Worker, WorkerOptions};
use batchsql_sqlite::SqliteSink;
use batchsql_testserver::{Kind, dsn, unique};

/// Longer than anything takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A connection to the shared server.
pub(crate) async fn context() -> Context {
    connect(&dsn(Kind::Nats)).await
}

pub(crate) async fn connect(url: &str) -> Context {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    let options = options.reconnect_delay_callback(|_| std::time::Duration::from_millis(50));
    jetstream::new(options.connect(url).await.unwrap())
}

/// A stream with a name and subjects of its own.
pub(crate) fn stream(partitions: u32) -> StreamOptions {
    let name = unique("rows");
    StreamOptions::new(&*name).prefix(name).partitions(partitions)
}

/// `id` is the key, and the last row of a key wins.
pub(crate) fn keyed(table: &str) -> Schema {
    let schema = Schema::builder(table).column("id", ColumnType::I64).nullable("note", ColumnType::Text);
    schema.on_conflict(Conflict::update(["id"])).build().unwrap()
}

/// Without a key: a row that is written twice is there twice.
pub(crate) fn plain(table: &str) -> Schema {
    Schema::builder(table).column("id", ColumnType::I64).nullable("note", ColumnType::Text).build().unwrap()
}

pub(crate) fn row(schema: &Schema, id: i64, note: &str) -> DynRow {
    schema.row().set("id", id).unwrap().set("note", note).unwrap().finish().unwrap()
}

/// A pipeline that publishes.
pub(crate) async fn publisher(context: &Context, stream: &StreamOptions) -> BatchSql {
    let sink = NatsSink::new(context.clone(), stream).await.unwrap();
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(5));
    BatchSql::builder(sink).config(config).start().unwrap()
}

/// A pipeline of a worker whose leases are short, so its statements are too.
pub(crate) fn worker_config() -> PipelineConfig {
    PipelineConfig::default().flush_interval(Duration::from_millis(5)).statement_timeout(Duration::from_secs(2))
}

/// Publishes rows of one schema with these ids.
pub(crate) async fn publish(context: &Context, stream: &StreamOptions, schema: &Schema, ids: std::ops::Range<i64>) {
    let db = publisher(context, stream).await;
    for id in ids {
        // Small messages: each has its own time.
        db.submit(&row(schema, id, &format!("v{id}"))).await.unwrap();
        if id % 10 == 9 {
            db.flush().await.unwrap();
        }
    }
    assert!(db.close(LIMIT).await.is_complete());
}

/// A database in a file.
pub(crate) struct Target {
    folder: tempfile::TempDir,
}

impl Target {
    /// With the tables of `keyed` and `plain`; the names are `keyed` and `plain`.
    pub(crate) async fn new() -> Self {
        let target = Self { folder: tempfile::tempdir().unwrap() };
        target.execute("CREATE TABLE plain (id INTEGER, note TEXT)").await;
        target.execute("CREATE TABLE keyed (id INTEGER PRIMARY KEY, note TEXT)").await;
        target
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn sink(&self) -> SqliteSink {
        SqliteSink::open(&format!("sqlite:{}", self.path("target.db").display())).unwrap()
    }

    pub(crate) fn builder(&self) -> BatchSqlBuilder<SqliteSink> {
        BatchSql::builder(self.sink()).config(worker_config())
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        self.sink().call(move |conn| conn.execute(sql, [])).await.unwrap();
    }

    /// The ids in a table, sorted.
    pub(crate) async fn ids(&self, table: &str) -> Vec<i64> {
        let sql = format!("SELECT id FROM {table} ORDER BY id");
        let read = move |conn: &mut batchsql_sqlite::rusqlite::Connection| {
            let mut query = conn.prepare(&sql)?;
            let ids = query.query_map([], |row| row.get(0))?;
            ids.collect()
        };
        self.sink().call(read).await.unwrap()
    }

    pub(crate) fn options(&self, stream: &StreamOptions) -> WorkerOptions {
        WorkerOptions::new(stream.clone(), self.path("dead-letters.ndjson")).lease(Duration::from_secs(4))
    }

    pub(crate) async fn worker(&self, context: &Context, options: WorkerOptions) -> Worker {
        Worker::start(context.clone(), self.builder(), options).await.unwrap()
    }

    /// Waits until a table has these rows, and some time has shown that no more come.
    pub(crate) async fn has(&self, table: &str, ids: &[i64]) {
        let start = Instant::now();
        let mut last = Vec::new();
        while start.elapsed() < LIMIT {
            last = self.ids(table).await;
            if last.len() >= ids.len() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(last, ids);
    }
}

/// The last sequence of a stream.
pub(crate) async fn last(context: &Context, stream: &StreamOptions) -> u64 {
    context.get_stream(stream.name()).await.unwrap().cached_info().state.last_sequence
}

/// Waits until something is true.
pub(crate) async fn until(what: &str, is_so: impl AsyncFnMut() -> bool) {
    until_within(LIMIT, what, is_so).await;
}

pub(crate) async fn until_within(limit: Duration, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_so().await {
        assert!(start.elapsed() < limit, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
