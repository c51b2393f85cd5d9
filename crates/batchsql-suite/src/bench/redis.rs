//! Owns the measurement against Redis: the pipeline, and `redis-cli --pipe` with the same SETEX commands.
//! Must not know other databases.

use std::io::Write;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use batchsql::redis::{Command, Key, RedisOptions, RedisSink};
use batchsql::{BatchSql, SubmitError};
use redis::{AsyncCommands, ConnectionAddr};

use super::figures::{Figure, Plan, summarise};
use super::workload::{BATCH, IN_FLIGHT, PRODUCERS, Submit, Workload, pipeline, rate};
use crate::rows::{Session, Texts};

/// Keys per request.
const PAGE: usize = 1_000;
/// Time to live of the keys.
const TTL: Duration = Duration::from_secs(3600);

/// Measures the pipeline against `redis-cli --pipe`, from the first row to the last reply.
///
/// # Errors
/// The server fails, or there is no `redis-cli`.
pub async fn redis(plan: Plan, dsn: &str) -> Result<Vec<Figure>> {
    let options: RedisOptions = dsn.parse().context("REDIS_DSN")?;
    let options = options.max_connections(IN_FLIGHT).command(
        "batchsql_suite_sessions",
        Command::set(Key::prefixed("batchsql_suite_sessions", ["id"]), "payload").ttl(TTL),
    );
    let sink = RedisSink::with_options(&options).await.context("cannot connect to the server of REDIS_DSN")?;
    let mut connection = redis::Client::open(dsn)?.get_multiplexed_async_connection().await?;
    let texts = Workload::Insert.texts(plan.rows);
    let commands = commands(&texts)?;
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        eprintln!("redis, SETEX, round {} of {}", round + 1, plan.rounds);
        clean_up(&mut connection, plan.rows).await?;
        let piped = rate(plan.rows, pipe(dsn, commands.path())?);
        check(&mut connection, &texts).await?;
        clean_up(&mut connection, plan.rows).await?;
        let ours = rate(plan.rows, pipeline(sink.clone(), Sessions, &texts).await?);
        check(&mut connection, &texts).await?;
        rounds.push(vec![piped, ours]);
    }
    clean_up(&mut connection, plan.rows).await?;
    let group = format!("redis, SETEX, batch {BATCH}, {IN_FLIGHT} in flight");
    Ok(summarise(&group, &["redis-cli --pipe", &format!("batchsql, {PRODUCERS} producers")], &rounds))
}

/// A key and a text for each row of a plain insert.
#[derive(Debug, Clone, Copy)]
struct Sessions;

impl Submit for Sessions {
    async fn submit(self, db: &BatchSql, texts: &[Texts], n: usize) -> Result<(), SubmitError> {
        db.submit(&session(texts, n)).await
    }
}

fn session(texts: &[Texts], n: usize) -> Session<'_> {
    let event = Workload::Insert.event(texts, n);
    Session { id: event.id, payload: event.payload }
}

fn key(n: usize) -> String {
    format!("batchsql_suite_sessions:{n}")
}

/// The commands in a file, in the wire format.
fn commands(texts: &[Texts]) -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    let mut data = Vec::new();
    for n in 0..texts.len() {
        let session = session(texts, n);
        let (key, ttl) = (key(n), TTL.as_secs().to_string());
        write!(data, "*4\r\n$5\r\nSETEX\r\n${}\r\n{key}\r\n${}\r\n{ttl}\r\n", key.len(), ttl.len())?;
        write!(data, "${}\r\n{}\r\n", session.payload.len(), session.payload)?;
    }
    file.write_all(&data)?;
    file.flush()?;
    Ok(file)
}

fn pipe(dsn: &str, commands: &std::path::Path) -> Result<Duration> {
    let client = redis::Client::open(dsn)?;
    let ConnectionAddr::Tcp(host, port) = client.get_connection_info().addr() else {
        bail!("redis-cli --pipe is measured over TCP without TLS; set REDIS_DSN to redis://host:port");
    };
    let settings = client.get_connection_info().redis_settings();
    let mut process = Process::new("redis-cli");
    process.args(["-h", host, "-p", &port.to_string(), "-n", &settings.db().to_string()]);
    if let Some(user) = settings.username() {
        process.args(["--user", user]);
    }
    // Not as an argument, which every user of the machine could read.
    process.envs(settings.password().map(|password| ("REDISCLI_AUTH", password)));
    let begin = Instant::now();
    let output = process
        .arg("--pipe")
        .stdin(std::fs::File::open(commands)?)
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start redis-cli; install the package redis-tools")?;
    let took = begin.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("errors: 0"), "redis-cli --pipe: {said}");
    Ok(took)
}

async fn check(connection: &mut redis::aio::MultiplexedConnection, texts: &[Texts]) -> Result<()> {
    for (first, page) in texts.chunks(PAGE).enumerate() {
        let keys: Vec<String> = (first * PAGE..first * PAGE + page.len()).map(key).collect();
        let found: Vec<Option<String>> = connection.mget(&keys).await?;
        for (place, found) in found.iter().enumerate() {
            let expected = session(texts, first * PAGE + place);
            ensure!(found.as_deref() == Some(expected.payload), "key {} is not what was written", keys[place]);
        }
    }
    let ttl: i64 = connection.ttl(key(0)).await?;
    ensure!(ttl > 0 && ttl <= TTL.as_secs() as i64, "the time to live is {ttl} s");
    Ok(())
}

async fn clean_up(connection: &mut redis::aio::MultiplexedConnection, rows: usize) -> Result<()> {
    for first in (0..rows).step_by(PAGE) {
        let keys: Vec<String> = (first..(first + PAGE).min(rows)).map(key).collect();
        let _: u64 = connection.del(keys).await?;
    }
    Ok(())
}
