//! Every command, written with dynamic and typed rows and read back.

use std::collections::BTreeMap;
use std::time::Duration;

use batchsql_core::{ColumnType, Conflict, ErrorClass, Json, Schema, SchemaBuilder, Value};
use batchsql_derive::Row;
use batchsql_redis::{Command, Key, RedisSink, Ttl};
use batchsql_testserver::{Kind, dsn};

use crate::support::{ask, looker, outcomes, pipeline, row, sink, unique, write};

/// A key and a value.
fn pairs(table: &str) -> SchemaBuilder {
    Schema::builder(table).column("k", ColumnType::Text).column("v", ColumnType::Text)
}

#[tokio::test]
async fn strings_with_every_time_to_live() {
    let t = unique("ttl");
    let key = |suffix: &str| format!("{t}:{suffix}");
    let written = async |command: batchsql_redis::Set, suffix: &str| {
        let sink = sink(&t, command).await;
        let schema = pairs(&t).build().unwrap();
        assert_eq!(write(&sink, [row(&schema, [key(suffix).into(), "v".into()])]).await, ["written"]);
        assert_eq!(ask::<String>(&["GET", &key(suffix)]).await, "v");
        ask::<i64>(&["PTTL", &key(suffix)]).await
    };
    let set = || Command::set("k", "v");
    assert_eq!(written(set(), "ever").await, -1);
    let after = written(set().ttl(Duration::from_secs(100)), "seconds").await;
    assert!((90_000..=100_000).contains(&after), "{after}");
    let after = written(set().ttl(Duration::from_millis(90_500)), "millis").await;
    assert!((80_000..=90_500).contains(&after), "{after}");
    // An existing time to live is kept, or removed.
    let kept = written(set().ttl(Ttl::keep()), "seconds").await;
    assert!((80_000..=100_000).contains(&kept), "{kept}");
    assert_eq!(written(set(), "seconds").await, -1);
}

#[tokio::test]
async fn a_time_to_live_of_its_own_for_each_row() {
    let t = unique("ttlcol");
    let sink = sink(&t, Command::set(Key::prefixed(t.clone(), ["k"]), "v").ttl(Ttl::column("s"))).await;
    let schema = pairs(&t).nullable("s", ColumnType::I32).build().unwrap();
    let rows = [("a", Value::I32(50)), ("b", Value::Null), ("c", Value::I32(0)), ("d", Value::I32(-1))];
    let rows = rows.map(|(k, s)| row(&schema, [k.into(), "v".into(), s]));
    assert_eq!(write(&sink, rows).await, ["written", "written", "rejected ERR", "rejected ERR"]);
    let ttl = async |k: &str| ask::<i64>(&["TTL", &format!("{t}:{k}")]).await;
    assert!((40..=50).contains(&ttl("a").await));
    assert_eq!((ttl("b").await, ttl("c").await), (-1, -2));
}

#[tokio::test]
async fn ignore_is_nx() {
    let t = unique("nx");
    let schema = pairs(&t).on_conflict(Conflict::ignore(["k"])).build().unwrap();
    for command in [
        Command::set("k", "v"),
        Command::set("k", "v").ttl(Duration::from_secs(100)),
        Command::set("k", "v").ttl(Duration::from_millis(100_001)),
    ] {
        ask::<i64>(&["DEL", &t]).await;
        let sink = sink(&t, command.clone()).await;
        let rows = ["first", "second"].map(|v| row(&schema, [t.as_str().into(), v.into()]));
        assert_eq!(write(&sink, rows).await, ["written", "ignored"]);
        assert_eq!(ask::<String>(&["GET", &t]).await, "first");
        assert_eq!(ask::<i64>(&["TTL", &t]).await > 0, command != Command::set("k", "v"), "{command:?}");
    }
}

#[tokio::test]
async fn hashes_take_the_fields_that_rows_carry() {
    let t = unique("hash");
    let schema = Schema::builder(t.as_str())
        .column("id", ColumnType::I64)
        .nullable("a", ColumnType::Text)
        .nullable("b", ColumnType::I64)
        .on_conflict(Conflict::replace(["id"]))
        .build()
        .unwrap();
    // No command is configured: the schema has a key.
    let sink = RedisSink::connect(&dsn(Kind::Redis)).await.unwrap();
    let hash = async |id: i64| ask::<BTreeMap<String, String>>(&["HGETALL", &format!("{t}:{id}")]).await;
    let fields = |fields: &[(&str, &str)]| -> BTreeMap<String, String> {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let rows = [
        row(&schema, [1_i64.into(), "x".into(), 7_i64.into()]),
        row(&schema, [2_i64.into(), Value::Null, 8_i64.into()]),
        row(&schema, [3_i64.into(), Value::Null, Value::Null]),
    ];
    assert_eq!(write(&sink, rows).await, ["written"; 3]);
    assert_eq!(hash(1).await, fields(&[("a", "x"), ("b", "7")]));
    assert_eq!((hash(2).await, hash(3).await), (fields(&[("b", "8")]), fields(&[])));
    // NULL deletes its field; a column that is left out stays.
    let rows = [row(&schema, [1_i64.into(), Value::Null, 9_i64.into()])];
    assert_eq!(write(&sink, rows).await, ["written"]);
    assert_eq!(hash(1).await, fields(&[("b", "9")]));
    let partly = schema.row().set("id", 1_i64).unwrap().set("a", "y").unwrap().finish().unwrap();
    assert_eq!(write(&sink, [partly]).await, ["written"]);
    assert_eq!(hash(1).await, fields(&[("a", "y"), ("b", "9")]));
    // The last row of a batch remains.
    let rows = ["one", "two"].map(|a| row(&schema, [4_i64.into(), a.into(), Value::Null]));
    assert_eq!(write(&sink, rows).await, ["written"; 2]);
    assert_eq!(hash(4).await, fields(&[("a", "two")]));
}

#[tokio::test]
async fn documents_are_json() {
    let t = unique("doc");
    let sink = sink(&t, Command::document().ttl(Ttl::column("s"))).await;
    let schema = Schema::builder(t.as_str())
        .column("id", ColumnType::Text)
        .nullable("text \"quoted\"", ColumnType::Text)
        .column("number", ColumnType::F64)
        .column("inner", ColumnType::Json)
        .column("price", ColumnType::Decimal)
        .nullable("s", ColumnType::I64)
        .on_conflict(Conflict::ignore(["id"]))
        .build()
        .unwrap();
    let json: Json = "{\"x\":[1,null]}".parse().unwrap();
    let price: batchsql_core::Decimal = "007.50".parse().unwrap();
    let values = |text: Value, s: Value| {
        [Value::from("a:b"), text, 1.5_f64.into(), json.clone().into(), price.clone().into(), s]
    };
    let rows = [row(&schema, values("\n\"é".into(), 70_i64.into())), row(&schema, values(Value::Null, Value::Null))];
    assert_eq!(write(&sink, rows).await, ["written", "ignored"]);
    let key = format!("{t}:a%3Ab");
    let document: serde_json::Value = serde_json::from_str(&ask::<String>(&["GET", &key]).await).unwrap();
    let expected = serde_json::json!({
        "text \"quoted\"": "\n\"é", "number": 1.5, "inner": {"x": [1, null]}, "price": "007.50",
    });
    assert_eq!(document, expected);
    assert!(ask::<i64>(&["TTL", &key]).await > 60);
    let db = pipeline(&sink);
    for number in [f64::NAN, f64::INFINITY] {
        let mut values = values(Value::Null, Value::Null);
        values[2] = number.into();
        let error = db.submit(&row(&schema, values)).await.unwrap_err();
        assert!(error.row_error().is_some_and(|error| error.is_out_of_range()), "{error}");
    }
}

#[tokio::test]
async fn sorted_sets() {
    let t = unique("zset");
    let sink = sink(&t, Command::zadd(Key::constant(t.as_str()), "score", "member")).await;
    let schema = |conflict| {
        let schema = Schema::builder(t.as_str()).column("score", ColumnType::F64).column("member", ColumnType::Text);
        schema.on_conflict(conflict).build().unwrap()
    };
    let member = |schema: &Schema, score: f64, member: &str| row(schema, [score.into(), member.into()]);
    let replace = schema(Conflict::replace(["member"]));
    let rows = [member(&replace, 1.5, "a"), member(&replace, f64::INFINITY, "b"), member(&replace, 2.5, "a")];
    assert_eq!(write(&sink, rows).await, ["written"; 3]);
    let ignore = schema(Conflict::ignore(["member"]));
    assert_eq!(write(&sink, [member(&ignore, 9.0, "a"), member(&ignore, 9.0, "c")]).await, ["ignored", "written"]);
    let all: Vec<String> = ask(&["ZRANGE", &t, "0", "-1", "WITHSCORES"]).await;
    assert_eq!(all, ["a", "2.5", "c", "9", "b", "inf"]);
    let error = pipeline(&sink).submit(&member(&replace, f64::NAN, "n")).await.unwrap_err();
    assert!(error.row_error().is_some_and(|error| error.is_out_of_range()), "{error}");
}

#[tokio::test]
async fn a_score_that_a_double_cannot_hold_is_rejected_not_rounded() {
    let t = unique("score");
    let sink = sink(&t, Command::zadd(Key::constant(t.as_str()), "score", "member")).await;
    let schema = Schema::builder(t.as_str()).column("score", ColumnType::I64).column("member", ColumnType::Text);
    let schema = schema.build().unwrap();
    let rows = [1 << 53, (1 << 53) + 1, i64::MIN, i64::MAX].map(|n| row(&schema, [n.into(), n.to_string().into()]));
    assert_eq!(write(&sink, rows).await, ["written", "rejected", "written", "rejected"]);
    let all: Vec<String> = ask(&["ZRANGE", &t, "0", "-1"]).await;
    assert_eq!(all, [i64::MIN.to_string(), (1_i64 << 53).to_string()]);
    let schema = Schema::builder(t.as_str()).column("score", ColumnType::Decimal).column("member", ColumnType::Text);
    let schema = schema.build().unwrap();
    let kept = ["0.1", "-7.50", "9007199254740994", "123456789.125"];
    let changed = ["0.12345678901234567890", "9007199254740993", "16777216.00000000001"];
    let rows = kept.iter().chain(&changed).map(|score| {
        let decimal: batchsql_core::Decimal = score.parse().unwrap();
        row(&schema, [decimal.into(), (*score).into()])
    });
    assert_eq!(write(&sink, rows).await, [["written"; 4].as_slice(), &["rejected"; 3]].concat());
    for score in kept {
        let stored: f64 = ask(&["ZSCORE", &t, score]).await;
        assert_eq!(stored, score.parse::<f64>().unwrap(), "{score}");
    }
    let schema = Schema::builder(t.as_str()).column("score", ColumnType::F32).column("member", ColumnType::Text);
    let schema = schema.build().unwrap();
    assert_eq!(write(&sink, [row(&schema, [0.1_f32.into(), "f32".into()])]).await, ["written"]);
    assert_eq!(ask::<f64>(&["ZSCORE", &t, "f32"]).await, 0.1);
}

#[tokio::test]
async fn sets_tell_members_that_were_there_when_asked() {
    let t = unique("set");
    let sink = sink(&t, Command::sadd(Key::constant(t.as_str()), "member")).await;
    let schema =
        |conflict| Schema::builder(t.as_str()).column("member", ColumnType::I64).on_conflict(conflict).build().unwrap();
    let (plain, ignore) = (schema(Conflict::none()), schema(Conflict::ignore(["member"])));
    assert_eq!(write(&sink, [1_i64, 1].map(|m| row(&plain, [m.into()]))).await, ["written", "written"]);
    assert_eq!(write(&sink, [1_i64, 2].map(|m| row(&ignore, [m.into()]))).await, ["ignored", "written"]);
    assert_eq!(ask::<i64>(&["SCARD", &t]).await, 2);
}

#[tokio::test]
async fn streams() {
    let t = unique("stream");
    let stream = |key: &str| Key::constant(format!("{t}:{key}"));
    let schema = Schema::builder(t.as_str())
        .nullable("id", ColumnType::Text)
        .nullable("a", ColumnType::Text)
        .nullable("b", ColumnType::I64)
        .build()
        .unwrap();
    let with_id = sink(&t, Command::xadd(stream("ids")).id("id")).await;
    let entry = |id: Value, a: Value, b: Value| row(&schema, [id, a, b]);
    let rows = [
        entry("5-1".into(), "x".into(), Value::Null),
        entry(Value::Null, "y".into(), 2_i64.into()),
        entry("5-1".into(), "z".into(), Value::Null),
        entry("6-1".into(), Value::Null, Value::Null),
    ];
    // An id that is not above the last, and an entry without a field.
    assert_eq!(write(&with_id, rows).await, ["written", "written", "rejected ERR", "rejected"]);
    let entries: Vec<(String, Vec<String>)> = ask(&["XRANGE", &format!("{t}:ids"), "-", "+"]).await;
    assert_eq!(entries[0], ("5-1".to_owned(), vec!["a".to_owned(), "x".to_owned()]));
    assert_eq!((entries.len(), &entries[1].1), (2, &["a", "y", "b", "2"].map(str::to_owned).to_vec()));

    let short = sink(&t, Command::xadd(stream("short")).id("id").max_len(100)).await;
    let rows = (0..1_000_i64).map(|n| entry(Value::Null, Value::Null, n.into()));
    assert!(write(&short, rows).await.iter().all(|outcome| outcome == "written"));
    let length: usize = ask(&["XLEN", &format!("{t}:short")]).await;
    assert!((100..300).contains(&length), "{length}: whole nodes of about 100 entries are removed");
}

#[tokio::test]
async fn lists_keep_the_order_of_the_batch() {
    let t = unique("list");
    let schema = pairs(&t).build().unwrap();
    for (command, expected) in
        [(Command::lpush("k", "v"), ["c", "b", "a"]), (Command::rpush("k", "v"), ["a", "b", "c"])]
    {
        ask::<i64>(&["DEL", &t]).await;
        let sink = sink(&t, command).await;
        let rows = ["a", "b", "c"].map(|v| row(&schema, [t.as_str().into(), v.into()]));
        assert_eq!(write(&sink, rows).await, ["written"; 3]);
        assert_eq!(ask::<Vec<String>>(&["LRANGE", &t, "0", "-1"]).await, expected);
    }
}

#[tokio::test]
async fn messages_reach_those_who_listen() {
    let t = unique("channel");
    let (sender, mut received) = tokio::sync::mpsc::unbounded_channel();
    let config = redis::AsyncConnectionConfig::new().set_push_sender(sender);
    let client = redis::Client::open(format!("{}?protocol=3", dsn(Kind::Redis))).unwrap();
    let mut listener = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    listener.subscribe(t.as_str()).await.unwrap();
    let sink = sink(&t, Command::publish("k", "v")).await;
    let schema = pairs(&t).build().unwrap();
    assert_eq!(write(&sink, ["one", "two"].map(|v| row(&schema, [t.as_str().into(), v.into()]))).await, ["written"; 2]);
    let mut messages = Vec::new();
    while messages.len() < 2 {
        let push = tokio::time::timeout(Duration::from_secs(60), received.recv()).await.unwrap().unwrap();
        if let Some(message) = redis::Msg::from_push_info(push) {
            messages.push(message.get_payload::<String>().unwrap());
        }
    }
    assert_eq!(messages, ["one", "two"]);
}

#[tokio::test]
async fn any_command_by_the_order_of_columns() {
    let t = unique("raw");
    let schema =
        Schema::builder(t.as_str()).column("k", ColumnType::Text).column("n", ColumnType::I64).build().unwrap();
    let sink = sink(&t, Command::raw("INCRBY")).await;
    assert_eq!(write(&sink, [3_i64, 4].map(|n| row(&schema, [t.as_str().into(), n.into()]))).await, ["written"; 2]);
    assert_eq!(ask::<i64>(&["GET", &t]).await, 7);

    let words = Schema::builder(t.as_str())
        .column("word", ColumnType::Text)
        .column("k", ColumnType::Text)
        .nullable("x", ColumnType::Text)
        .nullable("y", ColumnType::I64)
        .build()
        .unwrap();
    let sink = crate::support::sink(&t, Command::raw_from_row()).await;
    let line = |word: &str, x: Value, y: Value| row(&words, [word.into(), t.as_str().into(), x, y]);
    let rows = [
        line("DEL", Value::Null, Value::Null),
        line("RPUSH", "a".into(), Value::Null),
        line("rpush", Value::Null, 2_i64.into()),
        line("MULTI", Value::Null, Value::Null),
        line("", Value::Null, Value::Null),
        line("NOSUCHTHING", Value::Null, Value::Null),
        line("RPUSH", "b".into(), 3_i64.into()),
    ];
    let expected = ["written", "written", "written", "rejected", "rejected", "rejected ERR", "written"];
    assert_eq!(write(&sink, rows).await, expected);
    assert_eq!(ask::<Vec<String>>(&["LRANGE", &t, "0", "-1"]).await, ["a", "2", "b", "3"]);
}

#[tokio::test]
async fn raw_commands_are_checked_with_the_server_before_the_first_row() {
    let t = unique("rawcheck");
    let schema = pairs(&t).build().unwrap();
    let check = async |word: &str, part: &str| {
        let sink = sink(&t, Command::raw(word)).await;
        let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
        assert!(error.to_string().contains(part), "{error} does not contain {part:?}");
    };
    check("NOSUCHCOMMAND", "is not known to the server").await;
    check("SETEX", "takes 3 arguments, but the rows have 2").await;
    check("HSET", "takes at least 3 arguments, but the rows have 2").await;
    check("BLPOP", "changes the connection").await;
    check("SUBSCRIBE", "changes the connection").await;
    let sink = sink(&t, Command::raw("SCRIPT LOAD")).await;
    assert!(pipeline(&sink).prepare(&schema).await.is_ok(), "a command in two words");
}

/// A row whose type knows its columns.
#[derive(Row)]
#[row(table = "typed_readings", on_conflict = "replace", key = "sensor", crate = "batchsql_core")]
struct Reading {
    sensor: i64,
    value: f64,
    note: Option<String>,
}

#[tokio::test]
async fn typed_rows() {
    let prefix = unique("typed");
    let sink = sink("typed_readings", Command::hash().key(Key::prefixed(prefix.as_str(), ["sensor"]))).await;
    let rows =
        [Reading { sensor: 1, value: 0.1, note: Some("n".into()) }, Reading { sensor: 2, value: -4.0, note: None }];
    assert_eq!(write(&sink, rows).await, ["written"; 2]);
    let mut conn = looker(&dsn(Kind::Redis)).await;
    let mut hash = async |id: i64| -> BTreeMap<String, String> {
        redis::cmd("HGETALL").arg(format!("{prefix}:{id}")).query_async(&mut conn).await.unwrap()
    };
    let expected = [("note", "n"), ("value", "0.1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(hash(1).await, BTreeMap::from(expected));
    assert_eq!(hash(2).await, BTreeMap::from([("value".to_owned(), "-4".to_owned())]));
}

#[tokio::test]
async fn different_rows_never_share_a_key() {
    let t = unique("keys");
    let schema = Schema::builder(t.as_str())
        .column("a", ColumnType::Text)
        .column("b", ColumnType::Text)
        .column("v", ColumnType::I64)
        .on_conflict(Conflict::replace(["a", "b"]))
        .build()
        .unwrap();
    let sink = sink(&t, Command::hash()).await;
    let keys = [("x:", "y"), ("x", ":y"), ("x%3A", "y"), ("x%", "3Ay"), ("x", "y"), ("", ""), (":", "")];
    let rows = keys.map(|(a, b)| row(&schema, [a.into(), b.into(), 1_i64.into()]));
    assert!(outcomes(&sink, rows).await.iter().all(|outcome| outcome.is_written()));
    let mut found: Vec<String> = ask(&["KEYS", &format!("{t}:*")]).await;
    found.sort();
    assert_eq!(found.len(), keys.len(), "{found:?}");
    assert!(found.contains(&format!("{t}:x%3A:y")) && found.contains(&format!("{t}:x%253A:y")));
}
