//! A cluster of three nodes: keys in all slots, moving slots, unavailable nodes.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Outcome, Schema, Sink};
use batchsql_redis::{Command, Key};
use batchsql_testserver::{Kind, Server};

use crate::support::{HOUR, ask_at, config, name, outcomes, pipeline, row, sink_at, write};
use batchsql_testkit::{outcomes_of, receipts_of};

fn pairs() -> Schema {
    Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap()
}

/// The nodes, as DSNs, with the first slot and the id of each.
async fn nodes(server: &Server) -> Vec<(String, i64, String)> {
    type Range = (i64, i64, (String, u16, String, redis::Value));
    let ranges: Vec<Range> = ask_at(seed(server), &["CLUSTER", "SLOTS"]).await;
    ranges.into_iter().map(|(first, _, (host, port, id, _))| (format!("redis://{host}:{port}"), first, id)).collect()
}

fn seed(server: &Server) -> &str {
    server.dsn().split('?').next().unwrap()
}

async fn size(server: &Server) -> i64 {
    let mut size = 0;
    for (node, ..) in nodes(server).await {
        size += ask_at::<i64>(&node, &["DBSIZE"]).await;
    }
    size
}

#[tokio::test]
async fn keys_of_all_slots_find_their_nodes_and_have_their_own_outcomes() {
    let server = Server::start(Kind::RedisCluster, &[]);
    let sink = sink_at(server.dsn(), "t", Command::rpush("k", "v")).await;
    let schema = pairs();
    let keys: Vec<String> = (0..2_000).map(|n| format!("key{n}")).collect();
    let rows = keys.iter().map(|k| row(&schema, [k.as_str().into(), "v".into()]));
    assert!(write(&sink, rows).await.iter().all(|outcome| outcome == "written"));
    assert_eq!(size(&server).await, 2_000);
    for (node, ..) in nodes(&server).await {
        assert!(ask_at::<i64>(&node, &["DBSIZE"]).await > 500, "{node} has its share");
    }
    // Two of three rows are rejected on any node, and the order in a list is that of the batch.
    let set = sink_at(server.dsn(), "t", Command::raw_from_row()).await;
    let words =
        Schema::builder("t").column("w", ColumnType::Text).column("k", ColumnType::Text).column("v", ColumnType::I64);
    let words = words.build().unwrap();
    let rows = (0..600_i64).map(|n| {
        let word = if n % 3 == 0 { "RPUSH" } else { "SADD" };
        row(&words, [word.into(), keys[(n % 30) as usize].as_str().into(), n.into()])
    });
    for (n, outcome) in (0..).zip(outcomes(&set, rows).await) {
        assert_eq!(name(&outcome), if n % 3 == 0 { "written" } else { "rejected WRONGTYPE" }, "row {n}");
    }
    let list = sink_at(server.dsn(), "t", Command::rpush(Key::constant("{one}:list"), "v")).await;
    let numbers = Schema::builder("t").column("v", ColumnType::I64).build().unwrap();
    assert!(write(&list, (0..100_i64).map(|n| row(&numbers, [n.into()]))).await.iter().all(|o| o == "written"));
    let mut conn = redis::Client::open(node_of(&server, "{one}:list").await).unwrap().get_connection().unwrap();
    let found: Vec<i64> = redis::cmd("LRANGE").arg(&["{one}:list", "0", "-1"]).query(&mut conn).unwrap();
    assert_eq!(found, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn commands_find_their_key_also_raw_ones_and_those_without() {
    let server = Server::start(Kind::RedisCluster, &[]);
    let schema = pairs();
    let rows = || (0..50).map(|n| row(&schema, [format!("key{n}").into(), "1".into()]));
    for command in
        [Command::from(Command::raw("INCRBY")), Command::publish("k", "v").into(), Command::raw("XGROUP").into()]
    {
        let expected = if command == Command::raw("XGROUP").into() { "rejected ERR" } else { "written" };
        let sink = sink_at(server.dsn(), "t", command).await;
        assert!(write(&sink, rows()).await.iter().all(|outcome| outcome == expected));
    }
    assert_eq!(size(&server).await, 50);
    let moving = sink_at(server.dsn(), "t", Command::raw("EVAL")).await;
    let three = Schema::builder("t").column("s", ColumnType::Text).column("n", ColumnType::I64).build().unwrap();
    let error = pipeline(&moving).prepare(&three).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("depends on its arguments"), "{error}");
}

/// The node that serves the slot of a key.
async fn node_of(server: &Server, key: &str) -> String {
    let slot: i64 = ask_at(seed(server), &["CLUSTER", "KEYSLOT", key]).await;
    let mut nodes = nodes(server).await;
    nodes.sort_by_key(|(_, first, _)| *first);
    nodes.into_iter().rev().find(|(_, first, _)| *first <= slot).unwrap().0
}

#[tokio::test]
async fn rows_follow_a_slot_that_moves() {
    let server = Server::start(Kind::RedisCluster, &[]);
    let sink = sink_at(server.dsn(), "t", Command::rpush("k", "v")).await;
    let schema = pairs();
    let (key, other) = ("{tag}:a", "{tag}:b");
    let slot: i64 = ask_at(seed(&server), &["CLUSTER", "KEYSLOT", key]).await;
    let slot = slot.to_string();
    let from = node_of(&server, key).await;
    let all = nodes(&server).await;
    let id_of = |dsn: &str| all.iter().find(|(node, ..)| node == dsn).unwrap().2.clone();
    let to = all.iter().map(|(node, ..)| node.clone()).find(|node| *node != from).unwrap();
    let values = async |node: &str, key: &str| -> Vec<String> {
        let mut conn = redis::Client::open(node).unwrap().get_connection().unwrap();
        redis::cmd("LRANGE").arg(&[key, "0", "-1"]).query(&mut conn).unwrap()
    };
    let mix = |value: &str| {
        // The moving slot between others.
        let keys = ["x", key, "y", other, "z", key];
        keys.map(|k| row(&schema, [k.into(), value.into()]))
    };
    assert!(write(&sink, mix("1")).await.iter().all(|outcome| outcome == "written"));

    // During the move: existing keys stay, new keys are redirected to the other node (ASK).
    ask_at::<()>(&to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id_of(&from)]).await;
    ask_at::<()>(&from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id_of(&to)]).await;
    let (host, port) = to.trim_start_matches("redis://").split_once(':').unwrap();
    ask_at::<redis::Value>(&from, &["MIGRATE", host, port, key, "0", "5000"]).await;
    assert!(write(&sink, mix("2")).await.iter().all(|outcome| outcome == "written"));
    assert_eq!(values(&from, other).await, ["1", "2"]);

    // After the move (MOVED).
    ask_at::<redis::Value>(&from, &["MIGRATE", host, port, other, "0", "5000"]).await;
    for node in [&to, &from] {
        ask_at::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &id_of(&to)]).await;
    }
    assert!(write(&sink, mix("3")).await.iter().all(|outcome| outcome == "written"));
    assert!(write(&sink, mix("4")).await.iter().all(|outcome| outcome == "written"));
    assert_eq!(values(&to, key).await, ["1", "1", "2", "2", "3", "3", "4", "4"]);
    assert_eq!(values(&to, other).await, ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn a_slot_that_nobody_serves_holds_up_only_its_rows() {
    let server = Server::start(Kind::RedisCluster, &["--cluster-require-full-coverage", "no"]);
    let sink = sink_at(server.dsn(), "t", Command::set("k", "v")).await;
    let schema = pairs();
    let slot: i64 = ask_at(seed(&server), &["CLUSTER", "KEYSLOT", "gone"]).await;
    let slot = slot.to_string();
    let owner = node_of(&server, "gone").await;
    for (node, ..) in nodes(&server).await {
        ask_at::<()>(&node, &["CLUSTER", "DELSLOTS", &slot]).await;
    }
    let rows = ["a", "gone", "b", "c", "d"].map(|k| row(&schema, [k.into(), "v".into()]));
    let expected = ["written", "expired CLUSTERDOWN", "written", "written", "written"];
    assert_eq!(write(&sink, rows.clone()).await, expected);

    let config = config().retry_for(Duration::from_secs(60));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let receipts = receipts_of(&db, rows).await;
    let close = tokio::spawn(async move { db.close(HOUR).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    ask_at::<()>(&owner, &["CLUSTER", "ADDSLOTS", &slot]).await;
    close.await.unwrap();
    assert!(outcomes_of(receipts).await.iter().all(Outcome::is_written));
}

#[tokio::test]
async fn a_node_that_dies_takes_only_its_rows_and_only_until_it_is_back() {
    let mut server = Server::start(Kind::RedisCluster, &["--cluster-require-full-coverage", "no"]);
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::replace(["k"])).build().unwrap();
    let sink = sink_at(server.dsn(), "t", Command::set("k", "v")).await;
    let rows = |value: &'static str| (0..300).map(move |n| (format!("key{n}"), value));
    let row_of = |(k, v): (String, &str)| row(&schema, [k.into(), v.into()]);
    assert!(write(&sink, rows("1").map(row_of)).await.iter().all(|outcome| outcome == "written"));

    let victim = nodes(&server).await.into_iter().find(|(node, ..)| node != seed(&server)).unwrap().0;
    let mut conn = crate::support::looker(&victim).await;
    let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").query_async::<redis::Value>(&mut conn).await;
    while tokio::net::TcpStream::connect(victim.trim_start_matches("redis://")).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Whether the client detects the end of an idle connection before it uses it depends on timing. Afterwards it is
    // known.
    let _ = outcomes(&sink, rows("dead connections").map(row_of)).await;
    let told = outcomes(&sink, rows("2").map(row_of)).await;
    let (written, failed): (Vec<_>, Vec<_>) = told.iter().partition(|outcome| outcome.is_written());
    assert!(written.len() > 150 && failed.len() > 50, "{} written, {} failed", written.len(), failed.len());
    for outcome in failed {
        let class = outcome.failure().unwrap().class();
        assert!(matches!(class, Some(ErrorClass::Transient)), "{outcome:?}");
    }

    let config = config().retry_for(Duration::from_secs(60));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let receipts = receipts_of(&db, rows("3").map(row_of)).await;
    let close = tokio::spawn(async move { db.close(HOUR).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.stop();
    server.start_again();
    close.await.unwrap();
    assert!(outcomes_of(receipts).await.iter().all(Outcome::is_written));
}

#[tokio::test]
async fn what_nobody_serves_is_never_told_as_written() {
    // A cluster that has no slots yet.
    let server = Server::start(Kind::Redis, &["--cluster-enabled", "yes"]);
    let schema = pairs();
    for command in [Command::raw("PUBLISH").into(), Command::from(Command::publish("k", "v"))] {
        let sink = sink_at(&format!("{}?cluster=true", server.dsn()), "t", command).await;
        let rows = ["a", "b"].map(|k| row(&schema, [k.into(), "v".into()]));
        assert_eq!(write(&sink, rows).await, ["expired CLUSTERDOWN"; 2]);
    }
}

#[tokio::test]
async fn a_node_that_stalls_makes_only_its_rows_unknown() {
    let server = Server::start(Kind::RedisCluster, &[]);
    let schema = pairs();
    let sink = sink_at(&format!("{}&node_timeout=5", server.dsn()), "t", Command::rpush("k", "v")).await;
    let rows = || (0..300).map(|n| row(&schema, [format!("key{n}").into(), "v".into()]));
    assert!(write(&sink, rows()).await.iter().all(|outcome| outcome == "written"));
    let state = sink.pool().unwrap();
    assert_eq!((state.in_use, state.idle, state.max), (0, 3, 12), "four to each node");
    let stalled = nodes(&server).await.remove(0).0;
    ask_at::<()>(&stalled, &["CLIENT", "PAUSE", "600000", "WRITE"]).await;
    let begin = std::time::Instant::now();
    let told = outcomes(&sink, rows()).await;
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    let (written, unknown): (Vec<_>, Vec<_>) = told.iter().partition(|outcome| outcome.is_written());
    assert!(written.len() > 150 && unknown.len() > 50, "{} written, {} unknown", written.len(), unknown.len());
    assert!(unknown.iter().all(|outcome| matches!(outcome, Outcome::Unknown(_))));
    let state = sink.pool().unwrap();
    assert_eq!((state.in_use, state.idle), (0, 2), "what is late on the link does not meet the next batch");
}

#[tokio::test]
async fn hashes_with_null_follow_a_slot_when_it_has_arrived() {
    let server = Server::start(Kind::RedisCluster, &[]);
    let schema = Schema::builder("t").column("k", ColumnType::Text).nullable("a", ColumnType::Text);
    let schema = schema.nullable("b", ColumnType::Text).on_conflict(Conflict::replace(["k"])).build().unwrap();
    let sink = sink_at(server.dsn(), "t", Command::hash().key("k")).await;
    let rows = |a: &'static str| {
        ["x", "{tag}:a", "y", "{tag}:b"].map(|k| row(&schema, [k.into(), a.into(), batchsql_core::Value::Null]))
    };
    assert_eq!(write(&sink, rows("1")).await, ["written"; 4]);
    let slot = ask_at::<i64>(seed(&server), &["CLUSTER", "KEYSLOT", "{tag}:a"]).await.to_string();
    let from = node_of(&server, "{tag}:a").await;
    let all = nodes(&server).await;
    let id_of = |dsn: &str| all.iter().find(|(node, ..)| node == dsn).unwrap().2.clone();
    let to = all.iter().map(|(node, ..)| node.clone()).find(|node| *node != from).unwrap();
    let (host, port) = to.trim_start_matches("redis://").split_once(':').unwrap();
    ask_at::<()>(&to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id_of(&from)]).await;
    ask_at::<()>(&from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id_of(&to)]).await;
    ask_at::<redis::Value>(&from, &["MIGRATE", host, port, "{tag}:a", "0", "5000"]).await;
    // ASKING is for one command, not for a transaction: the row waits until the slot has moved.
    let db = BatchSql::builder(sink.clone()).config(config().retry_for(Duration::from_secs(30))).start().unwrap();
    let receipts = receipts_of(&db, rows("2")).await;
    let flush = tokio::spawn(async move { db.flush().await });
    let hash = async |node: &str, key: &str| ask_at::<Vec<String>>(node, &["HGETALL", key]).await;
    let written = async {
        while hash(&from, "{tag}:b").await != ["a", "2"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), written).await.unwrap();
    ask_at::<redis::Value>(&from, &["MIGRATE", host, port, "{tag}:b", "0", "5000"]).await;
    for node in [&to, &from] {
        ask_at::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &id_of(&to)]).await;
    }
    flush.await.unwrap().unwrap();
    assert!(outcomes_of(receipts).await.iter().all(Outcome::is_written));
    // MOVED, for a client with the old topology.
    assert_eq!(hash(&to, "{tag}:a").await, ["a", "2"]);
    assert_eq!(write(&sink, rows("3")).await, ["written"; 4]);
    assert_eq!(
        (hash(&to, "{tag}:a").await, hash(&to, "{tag}:b").await),
        (vec!["a".to_owned(), "3".into()], vec!["a".to_owned(), "3".into()])
    );
}

/// As of one server: the node counts the buffer for the large value as used memory.
#[tokio::test]
async fn one_value_that_finds_no_memory_at_its_node_takes_no_row_along() {
    let server = Server::start(Kind::RedisCluster, &["--maxmemory-policy", "noeviction"]);
    let sink = sink_at(server.dsn(), "t", Command::set("k", "v")).await;
    let node = node_of(&server, "{a}").await;
    let memory: String = ask_at(&node, &["INFO", "memory"]).await;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let limit = used.trim().parse::<u64>().unwrap() + 2_500_000;
    ask_at::<()>(&node, &["CONFIG", "SET", "maxmemory", &limit.to_string()]).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap();
    let length = |n| if n == 4 { 3_000_000 } else { 100 };
    let rows = (0..20).map(|n| row(&schema, [format!("{{a}}{n}").into(), "x".repeat(length(n)).into()]));
    let db = BatchSql::builder(sink).config(config().retry_for(Duration::from_millis(500))).start().unwrap();
    let receipts = receipts_of(&db, rows).await;
    db.close(HOUR).await;
    let names: Vec<&str> = outcomes_of(receipts).await.iter().map(|outcome| outcome.kind().name()).collect();
    let expected: Vec<&str> = (0..20).map(|n| if n == 4 { "expired" } else { "written" }).collect();
    assert_eq!(names, expected);
}
