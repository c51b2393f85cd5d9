//! A publisher and a worker as programs: rows go from a log on local disk to a stream, and from the stream to a database,
//! each exactly once.
//!
//! ```sh
//! nats-server -js &
//! sqlite3 target.db 'CREATE TABLE readings (id INTEGER, note TEXT)'
//! cargo run -p batchsql-nats --example nats_rows -- publish nats://127.0.0.1 readings intake 0 100000
//! cargo run -p batchsql-nats --example nats_rows -- work nats://127.0.0.1 readings sqlite:target.db dead-letters.ndjson
//! ```
//!
//! Start `work` as often as you like, on any machine that reaches the server and a PostgreSQL or MySQL database; the workers share
//! the partitions. Kill any of them: no row is lost or doubled. Redis keeps no positions: no row is lost, and some may be doubled.
//! Start `publish` again after a kill, with the same folder.

use std::io::{self, Read};
use std::process::ExitCode;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use batchsql_core::{BatchSql, BatchSqlBuilder, ColumnType, PipelineConfig, Schema, Sink};
use batchsql_durable::{DurableExt, DurableOptions};
use batchsql_mysql::MySqlSink;
use batchsql_nats::{NatsSink, StreamOptions, Worker, WorkerOptions};
use batchsql_postgres::PostgresSink;
use batchsql_redis::{Command, Key, RedisOptions, RedisSink};
use batchsql_sqlite::SqliteSink;

const USAGE: &str = "usage: nats_rows publish NATS_URL STREAM FOLDER FROM TO   rows FROM up to TO, which is not one of them
       nats_rows work NATS_URL STREAM DATABASE DEAD_LETTERS   until the input ends

Both make the stream, with 8 partitions, if it is missing. DATABASE is sqlite:FILE, postgres://..., mysql://... or redis://...
The table is `readings (id, note)`.";

type AnyError = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["publish", url, stream, folder, from, to] => match (from.parse(), to.parse()) {
            (Ok(from), Ok(to)) => publish(url, stream, folder, from, to).await,
            _ => Err("FROM and TO are numbers".into()),
        },
        ["work", url, stream, database, letters] => work(url, stream, database, letters).await,
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for a server that is unreachable, now and later.
async fn connect(url: &str) -> Result<Context, AnyError> {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    let options = options.reconnect_delay_callback(|tries| Duration::from_millis(50 << tries.min(6)));
    Ok(jetstream::new(options.connect(url).await?))
}

/// The stream, which is made if it is missing. Waits for a server that is unreachable.
async fn stream(context: &Context, name: &str) -> Result<StreamOptions, AnyError> {
    let options = StreamOptions::new(name).prefix(name);
    loop {
        match options.create(context).await {
            Ok(_) => return Ok(options),
            Err(error) if error.is_away() => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => return Err(error.into()),
        }
    }
}

async fn publish(url: &str, stream: &str, folder: &str, from: i64, to: i64) -> Result<(), AnyError> {
    let context = connect(url).await?;
    let options = self::stream(&context, stream).await?;
    let sink = NatsSink::new(context, &options).await?;
    // As many partitions as the stream has.
    let log = DurableOptions::new(folder).partitions(8).exactly_once(format!("{stream} of {folder}"));
    let db = BatchSql::builder(sink).config(quick()).durable(log).start().await?;
    let readings =
        Schema::builder("readings").column("id", ColumnType::I64).nullable("note", ColumnType::Text).build()?;
    for id in from..to {
        db.submit(&readings.row().set("id", id)?.set("note", format!("reading {id}"))?.finish()?).await?;
        // The row is on disk here, whatever happens next.
        println!("accepted {id}");
    }
    db.flush().await?;
    println!("published");
    db.close(Duration::from_secs(30)).await;
    Ok(())
}

async fn work(url: &str, stream: &str, database: &str, letters: &str) -> Result<(), AnyError> {
    let context = connect(url).await?;
    let stream = self::stream(&context, stream).await?;
    let at_least_once = WorkerOptions::new(stream, letters).ack_wait(Duration::from_secs(5));
    let exactly_once = at_least_once.clone().exactly_once().lease(Duration::from_secs(5));
    let worker = match database.split(':').next() {
        Some("postgres" | "postgresql") => {
            start(context, BatchSql::builder(PostgresSink::connect(database).await?), exactly_once).await?
        }
        Some("mysql") => start(context, BatchSql::builder(MySqlSink::connect(database).await?), exactly_once).await?,
        Some("redis") => {
            // Rows without a key are entries of a stream of Redis.
            let readings = Command::xadd(Key::constant("readings"));
            let options = database.parse::<RedisOptions>()?.command("readings", readings);
            start(context, BatchSql::builder(RedisSink::with_options(&options).await?), at_least_once).await?
        }
        _ => start(context, BatchSql::builder(SqliteSink::open(database)?), exactly_once).await?,
    };
    println!("working");
    let mut end = tokio::task::spawn_blocking(|| io::stdin().read_to_end(&mut Vec::new()));
    loop {
        tokio::select! {
            _ = &mut end => break,
            () = tokio::time::sleep(Duration::from_secs(5)) => {
                let stats = worker.stats();
                eprintln!("{} partitions, {} messages wait", stats.partitions.len(), stats.pending());
                stats.stopped.iter().for_each(|stopped| eprintln!("{stopped}"));
            }
        }
    }
    worker.close(Duration::from_secs(30)).await;
    Ok(())
}

async fn start<S: Sink>(
    context: Context,
    builder: BatchSqlBuilder<S>,
    options: WorkerOptions,
) -> Result<Worker, AnyError> {
    // Shorter than the lease, less a renewal.
    let config = quick().statement_timeout(Duration::from_secs(3));
    Ok(Worker::start(context, builder.config(config), options).await?)
}

fn quick() -> PipelineConfig {
    PipelineConfig::default().flush_interval(Duration::from_millis(20))
}
