//! No error contains a value of a row or a password, whatever the server's message is.

use std::error::Error;

use batchsql_core::{BatchSql, ColumnType, Conflict, PipelineConfig, Schema, SinkError, Value};
use batchsql_redis::{Command, Key, RedisOptions, RedisSink};
use batchsql_testserver::{Kind, Server};

use crate::scripted::node;
use crate::support::{HOUR, ask_at, config, row, sink_at};
use batchsql_testkit::receipts_of;

const CANARY: &str = "canary-8157";

/// The full text of an error with its sources.
fn shown(error: &SinkError) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {:?}", error.code());
    let mut source = error.source();
    while let Some(inner) = source {
        text += &format!(" {inner} {inner:?}");
        source = inner.source();
    }
    text
}

/// Writes rows that must fail, and checks all of their messages.
async fn check<const N: usize>(sink: &RedisSink, schema: &Schema, values: [Value; N], what: &str) {
    let db = BatchSql::builder(sink.clone()).config(config()).start().unwrap();
    let receipts = receipts_of(&db, [row(schema, values.clone()), row(schema, values)]).await;
    let report = db.close(HOUR).await;
    let mut texts = format!("{report:?} {sink:?}");
    let mut failures = 0;
    for receipt in receipts {
        let outcome = receipt.await;
        texts += &format!(" {outcome:?}");
        if let Some(failed) = outcome.failure() {
            failures += 1;
            texts += &format!(" {failed:?} {}", failed.error().map(shown).unwrap_or_default());
        }
    }
    assert!(failures > 0, "{what}: every row is written");
    assert!(!texts.contains(CANARY) && !texts.contains("hunter2"), "{what}: {texts}");
}

fn pair() -> Schema {
    Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text).build().unwrap()
}

#[tokio::test]
async fn no_error_shows_a_value_of_a_row() {
    let server = Server::start(Kind::Redis, &["--proto-max-bulk-len", "1mb", "--maxmemory-policy", "noeviction"]);
    let at = server.dsn();
    ask_at::<()>(at, &["ACL", "SETUSER", "app", "on", ">hunter2", "~allowed:*", "+@all", "-publish"]).await;
    let app = at.replace("redis://", "redis://app:hunter2@");
    ask_at::<i64>(at, &["RPUSH", "list", "x"]).await;
    let canary = || [Value::from(CANARY), Value::from(CANARY)];
    let on_list = || [Value::from("list"), Value::from(CANARY)];
    for (dsn, word, values) in [
        (at, "SET list", canary()),
        (at, "APPEND", on_list()),
        (at, "INCRBY", canary()),
        (at, "INCRBYFLOAT", canary()),
        (at, "EXPIRE", canary()),
        (at, "ZADD zset", canary()),
        (at, "XADD stream", canary()),
        (at, "GETEX", canary()),
        (at, "OBJECT ENCODING", canary()),
        (at, "EVAL", [format!("error('{CANARY}')").into(), "0".into()]),
        (at, "EVAL", [format!("return redis.error_reply('MYERR {CANARY}')").into(), "0".into()]),
        (at, "EVAL", [format!("return redis.error_reply('{CANARY}')").into(), "0".into()]),
        (at, "EVAL", [format!("return redis.call('{CANARY}')").into(), "0".into()]),
        (at, "EVAL", [format!("syntax {CANARY}").into(), "0".into()]),
        (at, "EVALSHA", [CANARY.into(), "0".into()]),
        (at, "FCALL", [CANARY.into(), "0".into()]),
        (at, "SET big", [CANARY.into(), CANARY.repeat(200_000).into()]),
        (&app, "SET", canary()),
        (&app, "PUBLISH", canary()),
    ] {
        let sink = sink_at(dsn, "t", Command::raw(word)).await;
        check(&sink, &pair(), values, word).await;
    }
    let sink = sink_at(at, "t", Command::raw_from_row()).await;
    check(&sink, &pair(), canary(), "a word of the row").await;
    check(&sink, &pair(), ["SUBSCRIBE".into(), CANARY.into()], "a forbidden word").await;
    let sink = sink_at(at, "t", Command::set(Key::prefixed("p", ["k"]), "v")).await;
    check(&sink, &pair(), [CANARY.into(), CANARY.repeat(200_000).into()], "a large value").await;
    ask_at::<()>(at, &["CONFIG", "SET", "maxmemory", "1"]).await;
    check(&sink, &pair(), canary(), "no memory").await;
}

#[tokio::test]
async fn no_words_of_a_server_are_repeated() {
    for answer in [
        "-ERR canary-8157\r\n",
        "-canary-8157 is bad\r\n",
        "-ERR handle response canary-8157\r\n",
        "-WRONGTYPE canary-8157\r\n",
        "-NOPERM no access to canary-8157\r\n",
        "-MOVED canary-8157\r\n",
        "!17\r\nERR x canary-8157\r\n",
        "?canary-8157\r\n",
        ":canary-8157\r\n",
        "$-7\r\ncanary-8157\r\n",
    ] {
        let port = node(move |words| if words[0] == "SET" { answer.to_owned() } else { "+OK\r\n".to_owned() }).await;
        let dsn = format!("redis://127.0.0.1:{port}?protocol=2&abandoned_writes=wait");
        let sink = sink_at(&dsn, "t", Command::set("k", "v")).await;
        check(&sink, &pair(), [CANARY.into(), CANARY.into()], answer).await;
    }
}

#[tokio::test]
async fn no_words_of_a_server_are_repeated_when_it_is_connected_to() {
    for answer in [
        "-ERR canary-8157\r\n",
        "-canary-8157\r\n",
        "-WRONGPASS canary-8157\r\n",
        "canary-8157\r\n",
        "*1\r\n-canary-8157\r\n",
    ] {
        let port = node(move |_| answer.to_owned()).await;
        for query in ["", "?protocol=2", "?protocol=3", "?cluster=true"] {
            let dsn = format!("redis://user:{CANARY}@127.0.0.1:{port}/0{query}");
            let options: RedisOptions = dsn.parse().unwrap();
            if let Err(error) = RedisSink::with_options(&options).await {
                let text = format!("{error} {error:?} {:?} {options:?}", error.source());
                assert!(!text.contains(CANARY), "{answer} {query}: {text}");
            }
        }
    }
    // A transaction, and the rejection of a schema.
    let port =
        node(|words| if words[0] == "EXEC" { "-canary-8157 x\r\n".to_owned() } else { "+OK\r\n".to_owned() }).await;
    let sink =
        sink_at(&format!("redis://127.0.0.1:{port}?protocol=2&abandoned_writes=wait"), "t", Command::hash()).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).nullable("v", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::replace(["k"])).build().unwrap();
    let db = BatchSql::builder(sink).config(PipelineConfig::default()).start().unwrap();
    if let Err(error) = db.prepare(&schema).await {
        let text = format!("{error} {error:?} {:?}", error.source());
        assert!(!text.contains(CANARY), "{text}");
    }
}
