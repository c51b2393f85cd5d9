//! A master that is known by its name, and what happens when another server becomes the master.

use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, PipelineConfig, Schema};
use batchsql_redis::{Command, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, Server};

use crate::support::{HOUR, ask_at, config, ended, name, row, submit, write};

/// `redis-server --sentinel`, gone when it is dropped.
struct Sentinel {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Sentinel {
    fn start(master: &str, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (host, master_port) = master.trim_start_matches("redis://").split_once(':').unwrap();
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop {host} {master_port} 1\n\
             sentinel down-after-milliseconds shop 500\nsentinel failover-timeout shop 10000\n{more}\n",
            dir.path().display()
        );
        std::fs::write(&file, text).unwrap();
        let process = Process::new("redis-server").arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn();
        Self { process: process.expect("redis-server is installed"), port, _dir: dir }
    }

    async fn until<T: redis::FromRedisValue>(&self, user: &str, words: &[&str], holds: impl Fn(&T) -> bool) {
        let waiting = async {
            loop {
                let client = redis::Client::open(format!("redis://{user}127.0.0.1:{}", self.port)).unwrap();
                if let Ok(mut conn) = client.get_multiplexed_async_connection().await
                    && let Ok(answer) = redis::Cmd::new().arg(words).query_async::<T>(&mut conn).await
                    && holds(&answer)
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("the sentinel says so");
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn schema() -> Schema {
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
    schema.on_conflict(Conflict::replace(["k"])).build().unwrap()
}

fn port_of(dsn: &str) -> &str {
    dsn.rsplit_once(':').unwrap().1
}

#[tokio::test]
async fn rows_follow_the_master_to_another_server() {
    let mut old = Server::start(Kind::Redis, &[]);
    let new = Server::start(Kind::Redis, &["--replicaof", "127.0.0.1", port_of(old.dsn())]);
    let sentinel = Sentinel::start(old.dsn(), "");
    // The first sentinel is not there.
    let dsn = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/shop", sentinel.port);
    let options = dsn.parse::<RedisOptions>().unwrap().command("t", Command::set("k", "v"));
    let sink = RedisSink::with_options(&options).await.unwrap();
    assert_eq!(write(&sink, [row(&schema(), ["before".into(), "v".into()])]).await, ["written"]);
    assert_eq!(ask_at::<String>(old.dsn(), &["GET", "before"]).await, "v");
    // The replica has it, so that the sentinel may choose it.
    let replicated = async {
        while ask_at::<Option<String>>(new.dsn(), &["GET", "before"]).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), replicated).await.unwrap();
    sentinel.until("", &["SENTINEL", "REPLICAS", "shop"], |list: &Vec<redis::Value>| list.len() == 1).await;
    old.kill();
    let config = PipelineConfig { retry_for: HOUR, ..config() };
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let receipts = submit(&db, [row(&schema(), ["after".into(), "v".into()])]).await;
    db.close(HOUR).await;
    assert_eq!(ended(receipts).await.iter().map(name).collect::<Vec<_>>(), ["written"]);
    assert_eq!(ask_at::<String>(new.dsn(), &["GET", "after"]).await, "v");
    assert_eq!(ask_at::<String>(new.dsn(), &["GET", "before"]).await, "v");
}

#[tokio::test]
async fn mistakes_about_sentinels_say_what_to_do() {
    let server = Server::start(Kind::Redis, &["--requirepass", "hunter2"]);
    let sentinel = Sentinel::start(server.dsn(), "requirepass hunter3\nsentinel auth-pass shop hunter2");
    sentinel.until(":hunter3@", &["SENTINEL", "MASTERS"], |list: &Vec<redis::Value>| list.len() == 1).await;
    let port = sentinel.port;
    let right = format!("redis+sentinel://:hunter2@127.0.0.1:{port}/shop/1?sentinel_password=hunter3");
    RedisSink::connect(&right).await.unwrap();
    let refused = async |dsn: String, part: &str| {
        let error = match RedisSink::connect(&dsn).await {
            Ok(_) => panic!("{dsn} connects"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(part) && !error.contains("hunter"), "{dsn}: {error:?} does not contain {part:?}");
    };
    refused(
        format!("redis+sentinel://:hunter2@127.0.0.1:{port}/other?sentinel_password=hunter3"),
        "no master \"other\"",
    )
    .await;
    refused(format!("redis+sentinel://:hunter2@127.0.0.1:{port}/shop"), "sentinel 127.0.0.1").await;
    refused(format!("redis+sentinel://:hunter3@127.0.0.1:{port}/shop?sentinel_password=hunter3"), "password").await;
    let other = Server::start(Kind::Redis, &[]);
    refused(format!("redis+sentinel://127.0.0.1:{}/shop", port_of(other.dsn())), "is no sentinel").await;
    refused(format!("redis+sentinel://127.0.0.1:{port}"), "name of the master is missing").await;
    refused(format!("redis+sentinel://127.0.0.1:{port}/shop?cluster=true"), "unknown parameter \"cluster\"").await;
}
