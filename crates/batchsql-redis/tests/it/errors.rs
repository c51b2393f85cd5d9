//! Every class of error, provoked on a real server.

use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, ErrorClass, Schema, Sink, Value};
use batchsql_redis::{Command, Key, RedisSink};
use batchsql_testserver::{Kind, Server, dsn};

use crate::support::{HOUR, ask, ask_at, config, name, outcomes, row, sink, sink_at, unique, write};

fn pairs(table: &str) -> Schema {
    Schema::builder(table).column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap()
}

/// Writes one row to a server and returns its outcome, class and code.
async fn fate(sink: &RedisSink) -> (String, Option<ErrorClass>) {
    let schema = pairs("t");
    let outcome = outcomes(sink, [row(&schema, ["key".into(), "secret".into()])]).await.remove(0);
    let failed = outcome.failure();
    let error = failed.and_then(|failed| failed.error()).map(ToString::to_string).unwrap_or_default();
    assert!(!error.contains("secret"), "{error}");
    (name(&outcome), failed.and_then(batchsql_core::FailedRow::class))
}

fn set() -> batchsql_redis::Set {
    Command::set("k", "v")
}

#[tokio::test]
async fn values_that_do_not_fit_are_rejected_with_words() {
    let t = unique("fit");
    let schema = pairs(&t);
    let check = async |command: &str, before: &[&str], expected: &str| {
        ask::<redis::Value>(before).await;
        let sink = sink(&t, Command::raw(command)).await;
        let outcome = outcomes(&sink, [row(&schema, [t.as_str().into(), "secret".into()])]).await.remove(0);
        let failed = outcome.failure().unwrap();
        assert_eq!(failed.class(), Some(ErrorClass::Row), "{command}");
        let error = failed.error().unwrap().to_string();
        assert!(error.contains(expected) && !error.contains("secret"), "{command}: {error}");
    };
    let del: &[&str] = &["DEL", &t];
    check("INCRBY", del, "not an integer").await;
    check("INCRBYFLOAT", del, "not a valid float").await;
    check("EXPIRE", del, "not an integer").await;
    check("APPEND", &["RPUSH", &t, "x"], "WRONGTYPE").await;
    check("LPOP", del, "an argument does not fit it").await;
}

/// Errors and states quote arguments unescaped, and cut them at any byte.
#[tokio::test]
async fn words_of_the_server_that_are_no_utf_8_concern_only_their_row() {
    let t = unique("bytes");
    let schema = Schema::builder(t.as_str())
        .column("word", ColumnType::Text)
        .column("a", ColumnType::Text)
        .column("b", ColumnType::Text)
        .column("c", ColumnType::Bytes)
        .build()
        .unwrap();
    for parameter in ["?protocol=2", "?protocol=3"] {
        let sink = sink_at(&format!("{}{parameter}", dsn(Kind::Redis)), &t, Command::raw_from_row()).await;
        let push = |value: &str| ["RPUSH".into(), t.as_str().into(), "x".into(), value.as_bytes().to_vec().into()];
        let eval = |script: &str| ["EVAL".into(), script.into(), "0".into(), b"secret\xff\xc3".to_vec().into()];
        // One of them is cut within a character.
        let unknown = |first: &str| {
            ["NOSUCHCMD".into(), "x".into(), "x".into(), format!("{first}{}", "\u{e9}".repeat(100)).into_bytes().into()]
        };
        let rows = [
            push("before"),
            unknown(""),
            unknown("a"),
            eval("return redis.error_reply(ARGV[1])"),
            eval("return {ok=ARGV[1]}"),
            eval("return {1, {ok=ARGV[1]}, {err=ARGV[1]}}"),
            push("after"),
        ];
        let outcomes = outcomes(&sink, rows.map(|values: [Value; 4]| row(&schema, values))).await;
        assert!(!format!("{outcomes:?}").contains("secret"), "{outcomes:?}");
        let kinds: Vec<_> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
        assert_eq!(
            kinds,
            ["written", "rejected", "rejected", "rejected", "written", "written", "written"],
            "{parameter}"
        );
        assert_eq!(ask::<i64>(&["LLEN", &t]).await, 4, "{parameter}");
        ask::<i64>(&["DEL", &t]).await;
    }
}

#[tokio::test]
async fn what_a_server_never_takes_is_not_tried_again() {
    let t = unique("never");
    let [other, damaged] = ["other", "damaged"].map(|key| format!("{t}:{key}"));
    let schema = Schema::builder(t.as_str())
        .column("word", ColumnType::Text)
        .column("k", ColumnType::Text)
        .column("a", ColumnType::Text)
        .column("b", ColumnType::Text)
        .column("c", ColumnType::Text)
        .build()
        .unwrap();
    let five = |words: [&str; 5]| row(&schema, words.map(Value::from));
    ask::<String>(&["XADD", &t, "18446744073709551615-18446744073709551615", "f", "v"]).await;
    ask::<i64>(&["PFADD", &damaged, "a", "b", "c"]).await;
    ask::<i64>(&["APPEND", &damaged, "hello"]).await;
    let rows = [
        (five(["XADD", &t, "*", "f", "v"]), "ERR"),
        (five(["XSETID", &t, "1-1", "ENTRIESADDED", "1"]), "ERR"),
        (five(["RESTORE", &format!("{t}:new"), "0", "no dump", "REPLACE"]), "ERR"),
        (five(["BITFIELD", &other, "SET", "x", "1"]), "ERR"),
        (five(["SET", &other, "v", "NX", "XX"]), "ERR"),
        (five(["GEOADD", &other, "x", "1", "m"]), "ERR"),
        (five(["PFCOUNT", &damaged, &other, &other, &other]), "INVALIDOBJ"),
    ];
    for (row, code) in rows {
        let sink = sink_at(&dsn(Kind::Redis), &t, Command::raw_from_row()).await;
        let shown = format!("{row:?}");
        assert_eq!(write(&sink, [row]).await, [format!("rejected {code}")], "{shown}");
    }
    let pairs = pairs(&t);
    for (word, value, before) in [("DECRBY", "-9223372036854775808", "1"), ("INCRBY", "1", "9223372036854775807")] {
        ask::<()>(&["SET", &other, before]).await;
        let sink = sink(&t, Command::raw(word)).await;
        let outcome = write(&sink, [row(&pairs, [other.as_str().into(), value.into()])]).await;
        assert_eq!(outcome, ["rejected ERR"], "{word}");
    }
}

#[tokio::test]
async fn memory_is_a_resource() {
    let server = Server::start(Kind::Redis, &["--maxmemory", "1mb", "--maxmemory-policy", "noeviction"]);
    let sink = sink_at(server.dsn(), "t", set()).await;
    ask_at::<redis::Value>(server.dsn(), &["CONFIG", "SET", "maxmemory", "100kb"]).await;
    assert_eq!(fate(&sink).await, ("expired OOM".into(), Some(ErrorClass::Resource)));
}

#[tokio::test]
async fn a_replica_is_a_resource_until_it_is_the_master() {
    let server = Server::start(Kind::Redis, &[]);
    let sink = sink_at(server.dsn(), "t", set()).await;
    assert_eq!(fate(&sink).await.0, "written");
    ask_at::<()>(server.dsn(), &["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(fate(&sink).await, ("expired READONLY".into(), Some(ErrorClass::Resource)));
    let config = config().retry_for(Duration::from_secs(30));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    db.submit(&row(&pairs("t"), ["k".into(), "v".into()])).await.unwrap();
    let flush = tokio::spawn(async move { db.flush().await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    ask_at::<()>(server.dsn(), &["REPLICAOF", "NO", "ONE"]).await;
    assert_eq!(flush.await.unwrap().unwrap().written(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_save_is_a_resource() {
    // The folder of the log blocks the path of the file.
    let arguments = ["--appendonly", "yes", "--appenddirname", "same", "--dbfilename", "same", "--save", "3600 1"];
    let server = Server::start(Kind::Redis, &arguments);
    let sink = sink_at(server.dsn(), "t", set()).await;
    assert_eq!(fate(&sink).await.0, "written");
    ask_at::<redis::Value>(server.dsn(), &["BGSAVE"]).await;
    for _ in 0..1_200 {
        let info: String = ask_at(server.dsn(), &["INFO", "persistence"]).await;
        if info.contains("rdb_last_bgsave_status:err") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(fate(&sink).await, ("expired MISCONF".into(), Some(ErrorClass::Resource)));
}

#[tokio::test]
async fn a_busy_server_is_waited_for() {
    let server = Server::start(Kind::Redis, &["--busy-reply-threshold", "50"]);
    let sink = sink_at(server.dsn(), "t", set()).await;
    let dsn = server.dsn().to_owned();
    let mut other = crate::support::looker(server.dsn()).await;
    let script = tokio::spawn(async move {
        let mut conn = crate::support::looker(&dsn).await;
        redis::cmd("EVAL").arg("while true do end").arg(0).query_async::<redis::Value>(&mut conn).await
    });
    // It may answer a few commands before the script runs, and reports BUSY after a while.
    let is_busy = async {
        while redis::cmd("PING").query_async::<String>(&mut other).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), is_busy).await.unwrap();
    assert_eq!(fate(&sink).await, ("expired BUSY".into(), Some(ErrorClass::Transient)));
    ask_at::<()>(server.dsn(), &["SCRIPT", "KILL"]).await;
    assert!(script.await.unwrap().is_err());
    assert_eq!(fate(&sink).await.0, "written");
}

#[tokio::test]
async fn a_loading_server_is_waited_for() {
    // While it loads it answers after this many bytes, and each key takes 0.4 ms.
    let arguments = ["--key-load-delay", "400", "--loading-process-events-interval-bytes", "1024"];
    let mut server = Server::start(Kind::Redis, &arguments);
    let sink = sink_at(server.dsn(), "t", set()).await;
    let schema = pairs("t");
    let rows = (0..5_000).map(|n| row(&schema, [format!("key{n}").into(), "v".into()]));
    assert!(write(&sink, rows).await.iter().all(|outcome| outcome == "written"));
    ask_at::<()>(server.dsn(), &["SAVE"]).await;
    server.stop();
    server.launch();
    let loading = async {
        loop {
            let fate = fate(&sink).await;
            if fate.0 == "expired LOADING" {
                return fate;
            }
            assert!(fate.0.starts_with("expired"), "{fate:?}");
        }
    };
    let fate = tokio::time::timeout(Duration::from_secs(60), loading).await.unwrap();
    assert_eq!(fate.1, Some(ErrorClass::Transient));
    let config = config().retry_for(Duration::from_secs(60));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    db.submit(&row(&schema, ["late".into(), "v".into()])).await.unwrap();
    assert_eq!(db.close(HOUR).await.balance.written(), 1);
    assert_eq!(ask_at::<i64>(server.dsn(), &["DBSIZE"]).await, 5_001);
}

#[tokio::test]
async fn rights_are_permissions_for_a_command_and_for_a_key() {
    let t = unique("acl");
    let user = unique("user");
    ask::<()>(&["ACL", "SETUSER", &user, "on", ">pw", &format!("~{t}:*"), "+@all", "-rpush"]).await;
    let dsn = dsn(Kind::Redis).replace("redis://", &format!("redis://{user}:pw@"));
    let schema = pairs(&t);
    let rows = |keys: [&str; 3]| keys.map(|k| row(&schema, [k.into(), "secret".into()]));
    // The command is denied to all rows: the table cannot be written.
    let denied = sink_at(&dsn, &t, Command::rpush(Key::prefixed(t.as_str(), ["k"]), "v")).await;
    for outcome in outcomes(&denied, rows(["a", "b", "c"])).await {
        assert_eq!(
            (name(&outcome).as_str(), outcome.failure().unwrap().class()),
            ("rejected NOPERM", Some(ErrorClass::Permission))
        );
    }
    // A key is denied to some rows: the others are written.
    let partly = sink_at(&dsn, &t, set()).await;
    let keys = [format!("{t}:a"), "elsewhere".to_owned(), format!("{t}:c")];
    let written = write(&partly, rows([&keys[0], &keys[1], &keys[2]])).await;
    assert_eq!(written, ["written", "rejected NOPERM", "written"]);
    ask::<i64>(&["ACL", "DELUSER", &user]).await;
}

#[tokio::test]
async fn a_password_that_is_asked_for_later_is_a_permission() {
    let server = Server::start(Kind::Redis, &[]);
    let sink = sink_at(server.dsn(), "t", set()).await;
    ask_at::<()>(server.dsn(), &["CONFIG", "SET", "requirepass", "new"]).await;
    // Only new connections are affected.
    let held = sink.acquire().await.unwrap();
    let error = sink.acquire().await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Permission, Some("NOAUTH")), "{error}");
    drop(held);
}

#[tokio::test]
async fn too_many_clients_are_waited_for() {
    let server = Server::start(Kind::Redis, &["--maxclients", "2"]);
    let sink = sink_at(server.dsn(), "t", set()).await;
    let held = sink.acquire().await.unwrap();
    let other = crate::support::looker(server.dsn()).await;
    let error = sink.acquire().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert!(error.to_string().contains("maxclients"), "{error}");
    drop((held, other));
    assert_eq!(fate(&sink).await.0, "written");
}

#[tokio::test]
async fn a_node_of_a_cluster_wants_to_be_named_as_such() {
    let server = Server::start(Kind::RedisCluster, &[]);
    let single = server.dsn().split('?').next().unwrap().to_owned();
    let sink = sink_at(&single, "t", set()).await;
    let schema = pairs("t");
    let rows = (0..30).map(|n| row(&schema, [format!("key{n}").into(), "v".into()]));
    let outcomes = outcomes(&sink, rows).await;
    let moved: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.failure()).collect();
    assert!(!moved.is_empty() && moved.len() < 30, "{}", moved.len());
    for failed in moved {
        assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Schema), Some("MOVED")));
        assert!(failed.error().unwrap().to_string().contains("cluster=true"));
    }
}

#[tokio::test]
async fn errors_and_debug_output_show_no_values_and_no_password() {
    let t = unique("quiet");
    let user = unique("user");
    ask::<()>(&["ACL", "SETUSER", &user, "on", ">hunter2", "~*", "+@all"]).await;
    let dsn = dsn(Kind::Redis).replace("redis://", &format!("redis://{user}:hunter2@"));
    let sink = sink_at(&dsn, &t, Command::raw_from_row()).await;
    let schema = Schema::builder(t.as_str())
        .column("word", ColumnType::Text)
        .column("k", ColumnType::Text)
        .on_conflict(Conflict::none())
        .build()
        .unwrap();
    let outcome = outcomes(&sink, [row(&schema, ["secret".into(), "secret".into()])]).await.remove(0);
    let failed = outcome.failure().unwrap();
    let conn = sink.acquire().await.unwrap();
    let shown = format!("{outcome:?} {failed:?} {:?} {} {sink:?} {conn:?}", failed.error(), failed.error().unwrap());
    assert!(!shown.contains("secret") && !shown.contains("hunter2"), "{shown}");
    assert!(std::error::Error::source(failed.error().unwrap()).is_none());
    ask::<i64>(&["ACL", "DELUSER", &user]).await;
}
