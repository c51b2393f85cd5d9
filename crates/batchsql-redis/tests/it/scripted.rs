//! Replies that real servers send rarely or never: nodes with scripted answers.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use batchsql_core::{BatchSql, ColumnType, Conflict, Schema, SessionEnd, Sink, Value};
use batchsql_redis::Command;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::silence::Held;
use crate::support::{HOUR, config, name, row, sink_at, write};
use batchsql_testkit::{outcomes_of, receipts_of};

/// Reads one command; `None` at the end of the connection.
async fn command(client: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let number = async |client: &mut BufReader<TcpStream>| -> Option<usize> {
        let mut line = String::new();
        client.read_line(&mut line).await.ok()?;
        line.trim().get(1..)?.parse().ok()
    };
    let mut words = Vec::new();
    for _ in 0..number(client).await? {
        let mut word = vec![0; number(client).await? + 2];
        client.read_exact(&mut word).await.ok()?;
        words.push(String::from_utf8(word).unwrap().trim_end().to_owned());
    }
    Some(words)
}

/// In place of an answer, the end of the connection.
pub(crate) const CLOSE: &str = "close";

/// A node that answers each command as `answer` says.
pub(crate) async fn node(answer: impl Fn(&[String]) -> String + Clone + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                while let Some(words) = command(&mut client).await {
                    let answer = answer(&words);
                    if answer == CLOSE {
                        return;
                    }
                    client.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    port
}

#[tokio::test]
async fn a_redirected_row_is_not_written_over_a_later_one_with_its_key() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let other = node(move |words| {
        seen.lock().unwrap().push(words.join(" "));
        "+OK\r\n".to_owned()
    })
    .await;
    // The slot stops moving between the first row of the key and the second: only the first is redirected.
    let own = Arc::new(Mutex::new(0));
    let port = Arc::clone(&own);
    let first = node(move |words| match (words[0].as_str(), words.last().unwrap().as_str()) {
        ("CLUSTER", _) => {
            let port = *port.lock().unwrap();
            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
        }
        (_, "old" | "elsewhere") => format!("-ASK 1 127.0.0.1:{other}\r\n"),
        _ => "+OK\r\n".to_owned(),
    })
    .await;
    *own.lock().unwrap() = first;
    let dsn = format!("redis://127.0.0.1:{first}?cluster=true&protocol=2");
    let sink = sink_at(&dsn, "t", Command::set("k", "v")).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    let rows = [("k", "old"), ("k", "new"), ("other", "elsewhere")].map(|(k, v)| row(&schema, [k.into(), v.into()]));
    assert_eq!(write(&sink, rows).await, ["rejected TRYAGAIN", "written", "written"]);
    let asked: Vec<String> = asked.lock().unwrap().iter().filter(|words| words.starts_with("SET")).cloned().collect();
    assert_eq!(asked, ["SET other elsewhere"]);
}

#[tokio::test]
async fn a_transaction_that_could_not_be_ended_does_not_take_in_the_next_batch() {
    // Like some proxies: it accepts MULTI, and EXEC once, during the sink's check for transactions.
    let ends = Arc::new(Mutex::new(0));
    let port = node(move |words| {
        let answer = match words[0].as_str() {
            "MULTI" | "PING" => "+OK\r\n",
            "EXEC" => {
                *ends.lock().unwrap() += 1;
                if *ends.lock().unwrap() == 1 { "*0\r\n" } else { "-ERR unknown command\r\n" }
            }
            _ => "+QUEUED\r\n",
        };
        answer.to_owned()
    })
    .await;
    let sink = sink_at(&format!("redis://127.0.0.1:{port}?protocol=2"), "t", Command::hash()).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).nullable("a", ColumnType::Text);
    let schema = schema.nullable("b", ColumnType::Text).on_conflict(Conflict::replace(["k"])).build().unwrap();
    let rows = [("x", Value::Null), ("y", "2".into())].map(|(k, b)| row(&schema, [k.into(), "1".into(), b]));
    // Nothing of the first was executed; the second was queued behind it, and its outcome is unknown.
    assert_eq!(write(&sink, rows).await, ["rejected ERR", "unknown"]);
    assert_eq!(sink.pool().unwrap().idle, 0);
}

#[tokio::test]
async fn replies_that_came_in_time_count_although_the_node_is_late_with_others() {
    let own = Arc::new(Mutex::new(0));
    let port = Arc::clone(&own);
    let node = node(move |words| match words[0].as_str() {
        "CLUSTER" => {
            let port = *port.lock().unwrap();
            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
        }
        "RPUSH" if words[1] == "slow" => String::new(),
        _ => ":1\r\n".to_owned(),
    });
    let node = node.await;
    *own.lock().unwrap() = node;
    let dsn = format!("redis://127.0.0.1:{node}?cluster=true&protocol=2&node_timeout=5&abandoned_writes=wait");
    let sink = sink_at(&dsn, "t", Command::rpush("k", "v")).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    let rows = ["a", "b", "slow", "slow"].map(|k| row(&schema, [k.into(), "v".into()]));
    assert_eq!(write(&sink, rows).await, ["written", "written", "unknown", "unknown"]);
}

/// The commands use another connection to the server, which does not end with this one.
#[tokio::test]
async fn what_a_proxy_has_passed_on_cannot_be_ended() {
    let info = "run_id:0f5c2a9b7d0f5c2a9b7d";
    for (error, expected) in [
        ("upstream failure", SessionEnd::Impossible),
        ("ERR Connection timed out", SessionEnd::Impossible),
        // Nothing was forwarded.
        ("no upstream host", SessionEnd::Ended),
    ] {
        let port = node(move |words| match words[0].as_str() {
            "CLIENT" if words[1] == "ID" => ":7\r\n".to_owned(),
            "CLIENT" if words[1] == "LIST" => "$0\r\n\r\n".to_owned(),
            "INFO" => format!("${}\r\n{info}\r\n", info.len()),
            "RPUSH" if words[1] == "lost" => format!("-{error}\r\n"),
            _ => ":1\r\n".to_owned(),
        })
        .await;
        let sink = sink_at(&format!("redis://127.0.0.1:{port}?protocol=2"), "t", Command::rpush("k", "v")).await;
        let mut conn = sink.acquire().await.unwrap();
        let session = sink.session(&mut conn).await.unwrap().unwrap();
        let db = BatchSql::builder(Held::new(&sink, conn)).config(config()).start().unwrap();
        let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
        let receipts = receipts_of(&db, ["a", "lost", "b"].map(|k| row(&schema, [k.into(), "v".into()]))).await;
        db.close(HOUR).await;
        let outcomes = outcomes_of(receipts).await;
        let lost = if expected == SessionEnd::Ended { "expired" } else { "unknown" };
        let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
        assert_eq!(kinds, ["written", lost, "written"], "{error}: {:?}", outcomes.iter().map(name).collect::<Vec<_>>());
        assert_eq!(sink.end_session(&session).await.unwrap(), expected, "{error}");
    }
}

/// Of three masters one is lost after a batch was sent to it. Whether it was replaced is what most of the others say.
#[tokio::test]
async fn one_node_alone_does_not_say_that_a_master_was_replaced() {
    let info = "run_id:0f5c2a9b7d0f5c2a9b7d";
    let is_lost = Arc::new(AtomicBool::new(false));
    // The lost node accepts no command; the others serve no slot of the key.
    let lost = Arc::clone(&is_lost);
    let ports: [Arc<AtomicU16>; 3] = std::array::from_fn(|_| Arc::default());
    // For each of the others: which master it names for the slots of the lost one. 0: it has lost its configuration.
    let named: [Arc<AtomicU16>; 2] = std::array::from_fn(|_| Arc::default());
    let slots = |ports: &[Arc<AtomicU16>; 3], first: u16| {
        let range =
            |from: u16, to: u16, port: u16| format!("*3\r\n:{from}\r\n:{to}\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n");
        let [_, a, b] = ports.each_ref().map(|port| port.load(Ordering::SeqCst));
        match first {
            0 => "*0\r\n".to_owned(),
            _ => format!("*3\r\n{}{}{}", range(0, 16_000, first), range(16_001, 16_100, a), range(16_101, 16_383, b)),
        }
    };
    let common = move |words: &[String]| match words[0].as_str() {
        "CLIENT" if words[1] == "ID" => ":7\r\n".to_owned(),
        "INFO" => format!("${}\r\n{info}\r\n", info.len()),
        _ => ":1\r\n".to_owned(),
    };
    let own = ports.clone();
    let first = node(move |words| match words[0].as_str() {
        _ if lost.load(Ordering::SeqCst) => String::new(),
        "CLUSTER" => slots(&own, own[0].load(Ordering::SeqCst)),
        "SET" => {
            lost.store(true, Ordering::SeqCst);
            String::new()
        }
        _ => common(words),
    })
    .await;
    ports[0].store(first, Ordering::SeqCst);
    for place in 0..2 {
        let (all, named) = (ports.clone(), Arc::clone(&named[place]));
        let port = node(move |words| match words[0].as_str() {
            "CLUSTER" => slots(&all, named.load(Ordering::SeqCst)),
            _ => common(words),
        })
        .await;
        ports[place + 1].store(port, Ordering::SeqCst);
    }
    let name_as = |masters: [u16; 2]| named.iter().zip(masters).for_each(|(at, port)| at.store(port, Ordering::SeqCst));
    name_as([first, first]);
    let dsn = format!("redis://127.0.0.1:{first}?cluster=true&protocol=2&node_timeout=1s&connect_timeout=2s");
    let sink = sink_at(&dsn, "t", Command::set("k", "v")).await;
    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    let db = BatchSql::builder(Held::new(&sink, conn)).config(config()).start().unwrap();
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    let receipts = receipts_of(&db, [row(&schema, ["k".into(), "v".into()])]).await;
    db.close(HOUR).await;
    assert_eq!(outcomes_of(receipts).await.iter().map(name).collect::<Vec<_>>(), ["unknown"]);
    let new = 1;
    for (masters, is_ended) in
        [([first, first], false), ([new, first], false), ([new, 0], false), ([0, 0], false), ([new, new], true)]
    {
        name_as(masters);
        let end = sink.end_session(&session).await;
        match is_ended {
            true => assert_eq!(end.unwrap(), SessionEnd::Ended, "{masters:?}"),
            false => assert!(end.is_err(), "{masters:?}: {end:?}"),
        }
    }
}
