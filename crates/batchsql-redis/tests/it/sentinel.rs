//! A master that is known by its name, and what happens when another server becomes the master.

use std::process::{Child, Command as Process, Stdio};
use std::time::Duration;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Schema, SessionEnd, Sink};
use batchsql_redis::{Command, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, LateProxy, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::block_in_place;

use crate::scripted::node;
use crate::silence::Held;
use crate::support::{HOUR, ask_at, config, name, row, write};
use batchsql_testkit::{outcomes_of, receipts_of};

/// `redis-server --sentinel`, stopped when it is dropped.
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
    // The first sentinel does not exist.
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
    let config = config().retry_for(HOUR);
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let receipts = receipts_of(&db, [row(&schema(), ["after".into(), "v".into()])]).await;
    db.close(HOUR).await;
    assert_eq!(outcomes_of(receipts).await.iter().map(name).collect::<Vec<_>>(), ["written"]);
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

#[tokio::test]
async fn a_sentinel_that_takes_no_more_clients_is_waited_for() {
    let server = Server::start(Kind::Redis, &[]);
    let sentinel = Sentinel::start(server.dsn(), "maxclients 1");
    sentinel.until("", &["SENTINEL", "MASTERS"], |list: &Vec<redis::Value>| list.len() == 1).await;
    let only_client = async {
        loop {
            let mut client = TcpStream::connect(("127.0.0.1", sentinel.port)).await.unwrap();
            client.write_all(b"PING\r\n").await.unwrap();
            let mut first = [0];
            if client.read_exact(&mut first).await.is_ok() && first == *b"+" {
                return client;
            }
        }
    };
    let only_client = tokio::time::timeout(Duration::from_secs(60), only_client).await.unwrap();
    // A server that is no sentinel does not hide that the other may answer later.
    let (full, none) = (sentinel.port, port_of(server.dsn()));
    for hosts in [
        format!("127.0.0.1:{full}"),
        format!("127.0.0.1:{full},127.0.0.1:{none}"),
        format!("127.0.0.1:{none},127.0.0.1:{full}"),
    ] {
        let sink = RedisSink::connect_lazy(&format!("redis+sentinel://{hosts}/shop")).unwrap();
        let error = sink.acquire().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{hosts}: {error}");
        assert!(!error.to_string().contains("is no sentinel"), "{hosts}: {error}");
    }
    drop(only_client);
}

/// A sentinel that names the server of the port.
async fn sentinel_that_names(port: &Arc<AtomicU16>) -> u16 {
    let port = Arc::clone(port);
    node(move |words| match words[0].as_str() {
        "SENTINEL" => {
            let port = port.load(Ordering::SeqCst).to_string();
            format!("*2\r\n$9\r\n127.0.0.1\r\n${}\r\n{port}\r\n", port.len())
        }
        _ => "+OK\r\n".to_owned(),
    })
    .await
}

fn number_of(dsn: &str) -> u16 {
    port_of(dsn).parse().unwrap()
}

#[tokio::test]
async fn after_a_sentinel_that_named_a_replica_another_one_is_asked_first() {
    let master = Server::start(Kind::Redis, &[]);
    let replica = Server::start(Kind::Redis, &["--replicaof", "127.0.0.1", port_of(master.dsn())]);
    let wrong = sentinel_that_names(&Arc::new(AtomicU16::new(number_of(replica.dsn())))).await;
    let right = sentinel_that_names(&Arc::new(AtomicU16::new(number_of(master.dsn())))).await;
    let dsn = format!("redis+sentinel://127.0.0.1:{wrong},127.0.0.1:{right}/shop?protocol=2");
    let sink = RedisSink::connect_lazy(&dsn).unwrap();
    // A slow machine may already query the second one.
    if let Err(error) = sink.acquire().await {
        assert_eq!(error.class(), ErrorClass::Resource, "{error}");
        sink.acquire().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_alone_does_not_say_that_a_master_was_replaced() {
    for most_agree in [false, true] {
        check_successor(most_agree).await;
    }
}

async fn check_successor(most_agree: bool) {
    let mut old = Server::start(Kind::Redis, &[]);
    let new = Server::start(Kind::Redis, &["--replicaof", "127.0.0.1", port_of(old.dsn())]);
    let proxy = LateProxy::start(old.dsn().trim_start_matches("redis://"));
    let at_proxy = number_of(&proxy.address());
    let named: [Arc<AtomicU16>; 3] = std::array::from_fn(|_| Arc::new(AtomicU16::new(at_proxy)));
    let mut hosts = Vec::new();
    for port in &named {
        hosts.push(format!("127.0.0.1:{}", sentinel_that_names(port).await));
    }
    let dsn = format!("redis+sentinel://{}/shop?protocol=2", hosts.join(","));
    let options = dsn.parse::<RedisOptions>().unwrap().command("t", Command::set("k", "v"));
    let sink = RedisSink::with_options(&options).await.unwrap();
    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    let config = config().statement_timeout(Duration::from_secs(2));
    let db = BatchSql::builder(Held::new(&sink, conn)).config(config).start().unwrap();
    proxy.hold("swallowed");
    let receipts = receipts_of(&db, [row(&schema(), ["k".into(), "swallowed".into()])]).await;
    let closing = tokio::spawn(async move { db.close(HOUR).await });
    block_in_place(|| {
        proxy.wait_until_held();
        old.kill();
    });
    closing.await.unwrap();
    assert_eq!(outcomes_of(receipts).await.iter().map(name).collect::<Vec<_>>(), ["unknown"]);
    // The old master may recover and receive the held data.
    assert!(sink.end_session(&session).await.is_err());
    named[0].store(number_of(new.dsn()), Ordering::SeqCst);
    assert!(sink.end_session(&session).await.is_err(), "one sentinel of three names a replica");
    if most_agree {
        named[1].store(number_of(new.dsn()), Ordering::SeqCst);
    } else {
        // Their agreement is not needed if the server itself reports that it is the master.
        ask_at::<()>(new.dsn(), &["REPLICAOF", "NO", "ONE"]).await;
    }
    assert_eq!(sink.end_session(&session).await.unwrap(), SessionEnd::Ended);
}

/// A server and a sentinel on one lost machine: both accept connections, as a firewall may, and do not answer.
#[tokio::test]
async fn the_silent_do_not_hold_up_what_the_other_sentinels_say() {
    let is_silent = Arc::new(AtomicBool::new(false));
    let silent = Arc::clone(&is_silent);
    let info = "run_id:0f5c2a9b7d0f5c2a9b7d";
    let old = node(move |words| match words[0].as_str() {
        _ if silent.load(Ordering::SeqCst) => String::new(),
        "CLIENT" if words[1] == "ID" => ":7\r\n".to_owned(),
        "INFO" => format!("${}\r\n{info}\r\n", info.len()),
        "ROLE" => "*1\r\n$6\r\nmaster\r\n".to_owned(),
        "SET" => {
            silent.store(true, Ordering::SeqCst);
            String::new()
        }
        _ => ":1\r\n".to_owned(),
    })
    .await;
    let named: [Arc<AtomicU16>; 2] = std::array::from_fn(|_| Arc::new(AtomicU16::new(old)));
    let silent = node(|_| String::new()).await;
    let [first, second] = [sentinel_that_names(&named[0]).await, sentinel_that_names(&named[1]).await];
    let hosts = format!("127.0.0.1:{silent},127.0.0.1:{first},127.0.0.1:{second}");
    let dsn = format!("redis+sentinel://{hosts}/shop?protocol=2&connect_timeout=3600");
    let options = dsn.parse::<RedisOptions>().unwrap().command("t", Command::set("k", "v"));
    let sink = RedisSink::with_options(&options).await.unwrap();
    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    let config = config().statement_timeout(Duration::from_secs(2));
    let db = BatchSql::builder(Held::new(&sink, conn)).config(config).start().unwrap();
    let receipts = receipts_of(&db, [row(&schema(), ["k".into(), "v".into()])]).await;
    db.close(HOUR).await;
    assert_eq!(outcomes_of(receipts).await.iter().map(name).collect::<Vec<_>>(), ["unknown"]);
    // A port on which nothing listens: that the sentinels agree is enough.
    named.iter().for_each(|port| port.store(1, Ordering::SeqCst));
    let end = tokio::time::timeout(Duration::from_secs(120), sink.end_session(&session)).await;
    assert_eq!(end.expect("nobody waits for the silent").unwrap(), SessionEnd::Ended);
    assert!(is_silent.load(Ordering::SeqCst));
}
