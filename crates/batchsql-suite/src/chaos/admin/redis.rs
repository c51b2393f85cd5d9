//! Owns the administrator of Redis.
//! Must not know when a fault is caused.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue};
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::interface::{CALL, PATIENCE, PAUSE};
use super::tables;
use super::{Admin, Held, Scene};
use crate::chaos::check::{Found, FoundRow};
use crate::chaos::fault::Fault;
use crate::chaos::load::Table;

/// The user of the writer.
const WRITER: &str = "chaos_writer";
const PASSWORD: &str = "chaos";

/// The administrator of one server.
#[derive(Debug)]
pub(in crate::chaos) struct Redis {
    dsn: Url,
}

impl Redis {
    pub(in crate::chaos) fn new(dsn: &str) -> Result<Self> {
        Ok(Self { dsn: Url::parse(dsn).context("the DSN of the server")? })
    }

    /// The arguments of the server: rows survive its kill, and so does the user of the writer.
    pub(in crate::chaos) fn arguments() -> Vec<String> {
        let password = format!(">{PASSWORD}");
        let durable = ["--appendonly", "yes", "--appendfsync", "always"];
        let user = ["--user", WRITER, "on", &password, "~*", "&*", "+@all"];
        durable.into_iter().chain(user).map(str::to_owned).collect()
    }

    /// A connection. A server that is being started is waited for.
    async fn connect(&self) -> Result<MultiplexedConnection> {
        let client = Client::open(self.dsn.as_str())?;
        let begin = Instant::now();
        loop {
            let link = async {
                let mut link = client.get_multiplexed_async_connection().await?;
                link.set_response_timeout(CALL);
                redis::cmd("PING").query_async::<()>(&mut link).await?;
                redis::RedisResult::Ok(link)
            };
            match timeout(CALL, link).await.context("the server did not answer").and_then(|link| Ok(link?)) {
                Ok(link) => return Ok(link),
                Err(error) if begin.elapsed() > PATIENCE => return Err(error.context("cannot reach the server")),
                Err(_) => sleep(PAUSE).await,
            }
        }
    }
}

/// Sends a command, given as words.
async fn ask<T: FromRedisValue>(link: &mut MultiplexedConnection, words: &[&str]) -> Result<T> {
    let mut command = redis::Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.query_async(link).await.with_context(|| words.join(" "))
}

async fn run(link: &mut MultiplexedConnection, commands: &[&[&str]]) -> Result<()> {
    for words in commands {
        ask::<redis::Value>(link, words).await?;
    }
    Ok(())
}

const END_SESSIONS: &[&str] = &["CLIENT", "KILL", "USER", WRITER];

#[async_trait]
impl Admin for Redis {
    fn server(&self) -> Option<String> {
        Some(format!("{}:{}", self.dsn.host_str()?, self.dsn.port()?))
    }

    fn writer_dsn(&self, address: Option<SocketAddr>) -> Result<String> {
        let address = address.context("the writer needs the address of the server")?;
        Ok(format!("redis://{WRITER}:{PASSWORD}@{address}"))
    }

    /// Keys come with their rows.
    async fn create(&self, _: &Scene) -> Result<()> {
        self.connect().await.map(drop)
    }

    async fn begin(&self, fault: Fault, _: &mut Scene) -> Result<Held> {
        let mut link = self.connect().await?;
        let commands: &[&[&str]] = match fault {
            Fault::SessionsTerminated => &[END_SESSIONS],
            Fault::PoolExhausted => {
                run(&mut link, &[&["CONFIG", "SET", "maxclients", "1"], END_SESSIONS]).await?;
                // No other one could be opened to end the fault.
                return Ok(Some(Box::new(link)));
            }
            Fault::PasswordWrong => &[&["ACL", "SETUSER", WRITER, "resetpass", ">another"], END_SESSIONS],
            // There is no server at this port: it keeps its data, and refuses writes.
            Fault::ReadOnly => &[&["REPLICAOF", "127.0.0.1", "1"]],
            Fault::RightRevoked => &[&["ACL", "SETUSER", WRITER, "-@write"]],
            other => bail!("{} is not a fault inside of Redis", other.name()),
        };
        run(&mut link, commands).await?;
        Ok(None)
    }

    async fn end(&self, fault: Fault, _: &mut Scene, held: Held) -> Result<()> {
        let held = held.and_then(|held| held.downcast::<MultiplexedConnection>().ok());
        let mut link = match held {
            Some(held) => *held,
            None => self.connect().await?,
        };
        let password = format!(">{PASSWORD}");
        let restore = ["ACL", "SETUSER", WRITER, "resetpass", &password];
        let commands: &[&[&str]] = match fault {
            Fault::SessionsTerminated => &[END_SESSIONS],
            Fault::PoolExhausted => &[&["CONFIG", "SET", "maxclients", "1000"]],
            Fault::PasswordWrong => &[&restore],
            Fault::ReadOnly => &[&["REPLICAOF", "NO", "ONE"]],
            Fault::RightRevoked => &[&["ACL", "SETUSER", WRITER, "+@all"]],
            _ => &[],
        };
        run(&mut link, commands).await
    }

    async fn read(&self, scene: &Scene) -> Result<Found> {
        let mut link = self.connect().await?;
        let entries: Vec<(String, HashMap<String, String>)> =
            ask(&mut link, &["XRANGE", &scene.names.plain, "-", "+"]).await?;
        let plain: Result<Vec<FoundRow>> = entries.iter().map(|(_, fields)| of_fields(fields)).collect();
        let (mut keyed, mut once) = (Vec::new(), Vec::new());
        for key in keys(&mut link, &scene.names.keyed).await? {
            keyed.push(of_fields(&ask(&mut link, &["HGETALL", &key]).await?).map(|row| of_key(row, &key))??);
        }
        for key in keys(&mut link, &scene.names.once).await? {
            let text: String = ask(&mut link, &["GET", &key]).await?;
            let document: serde_json::Value =
                serde_json::from_str(&text).with_context(|| format!("the value of {key}"))?;
            let number = |name: &str| document[name].as_i64().with_context(|| format!("{name} of {key}"));
            once.push(of_key(tables::found(0, number("producer")?, number("seq")?)?, &key)?);
        }
        let tables = [(Table::Plain, vec![plain?]), (Table::Keyed, vec![keyed]), (Table::Once, vec![once])];
        Ok(Found { tables: tables.into(), history: None })
    }

    fn refuses_bad_rows(&self) -> bool {
        false
    }
}

/// The keys of a table, each once.
async fn keys(link: &mut MultiplexedConnection, table: &str) -> Result<HashSet<String>> {
    let (mut found, mut cursor) = (HashSet::new(), "0".to_owned());
    loop {
        let pattern = format!("{table}:*");
        let (next, keys): (String, Vec<String>) =
            ask(link, &["SCAN", &cursor, "MATCH", &pattern, "COUNT", "1000"]).await?;
        found.extend(keys);
        if next == "0" {
            return Ok(found);
        }
        cursor = next;
    }
}

fn of_fields(fields: &HashMap<String, String>) -> Result<FoundRow> {
    let number = |name: &str| fields.get(name).and_then(|text| text.parse().ok()).with_context(|| format!("no {name}"));
    tables::found(0, number("producer")?, number("seq")?)
}

/// The row with the key in its name, `table:key`.
fn of_key(row: FoundRow, key: &str) -> Result<FoundRow> {
    let number = key.rsplit(':').next().and_then(|key| key.parse().ok());
    Ok(FoundRow { key: number.with_context(|| format!("{key} has no number"))?, ..row })
}
