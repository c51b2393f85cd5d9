//! The outcomes of the rows of a batch if the server rejects some of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchSql, ColumnType, Conflict, ErrorClass, Isolation, PipelineConfig, Rows, Schema, Sink, SinkError,
    Value, Written,
};
use batchsql_redis::{Command, Key, RedisConn, RedisOptions, RedisPlan, RedisSink, Ttl};
use batchsql_testserver::{Kind, Server, dsn};

use crate::support::{HOUR, ask, ask_at, config, name, outcomes, pipeline, row, sink, sink_at, unique, write};
use batchsql_testkit::{outcomes_of, receipts_of};

fn pairs(table: &str, conflict: Conflict) -> Schema {
    let schema = Schema::builder(table).column("k", ColumnType::Text).column("v", ColumnType::Text);
    schema.on_conflict(conflict).build().unwrap()
}

#[tokio::test]
async fn bad_commands_among_good_ones_are_told_one_by_one() {
    let t = unique("mixed");
    let sink = sink(&t, Command::rpush(Key::prefixed(t.as_str(), ["k"]), "v")).await;
    let schema = pairs(&t, Conflict::none());
    ask::<()>(&["SET", &format!("{t}:bad"), "a string"]).await;
    let bad = [0, 1, 250, 498, 499];
    let rows = (0..500).map(|n| {
        let key = if bad.contains(&n) { "bad" } else { "good" };
        row(&schema, [key.into(), format!("secret {n}").into()])
    });
    for (n, outcome) in (0..).zip(outcomes(&sink, rows).await) {
        assert_eq!(name(&outcome), if bad.contains(&n) { "rejected WRONGTYPE" } else { "written" }, "row {n}");
        if let Some(failed) = outcome.failure() {
            assert_eq!(failed.class(), Some(ErrorClass::Row));
            assert!(!format!("{failed:?} {}", failed.error().unwrap()).contains("secret"), "{failed:?}");
        }
    }
    let list: Vec<String> = ask(&["LRANGE", &format!("{t}:good"), "0", "-1"]).await;
    assert_eq!(list, (0..500).filter(|n| !bad.contains(n)).map(|n| format!("secret {n}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_hash_row_with_null_is_written_whole_or_not_at_all() {
    let t = unique("whole");
    let schema = Schema::builder(t.as_str())
        .column("k", ColumnType::Text)
        .nullable("a", ColumnType::Text)
        .nullable("b", ColumnType::Text)
        .on_conflict(Conflict::replace(["k"]))
        .build()
        .unwrap();
    let sink = sink(&t, Command::hash()).await;
    ask::<()>(&["SET", &format!("{t}:bad"), "a string"]).await;
    let rows = ["x", "bad", "y"].map(|k| row(&schema, [k.into(), "1".into(), None::<String>.into()]));
    assert_eq!(write(&sink, rows).await, ["written", "rejected WRONGTYPE", "written"]);
    assert_eq!(ask::<String>(&["GET", &format!("{t}:bad")]).await, "a string");
    assert_eq!(ask::<String>(&["HGET", &format!("{t}:y"), "a"]).await, "1");
}

#[tokio::test]
async fn rows_that_found_no_memory_are_written_when_there_is_some() {
    let server = Server::start(Kind::Redis, &["--maxmemory", "4mb", "--maxmemory-policy", "noeviction"]);
    let sink = sink_at(server.dsn(), "t", Command::set("k", "v")).await;
    let schema = pairs("t", Conflict::none());
    let config = config().retry_for(Duration::from_secs(30));
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    // Ten of them exceed the available memory.
    let rows = (0..10).map(|n| row(&schema, [format!("k{n}").into(), "x".repeat(500_000).into()]));
    let receipts = receipts_of(&db, rows).await;
    let flush = tokio::spawn({
        let db = db.clone();
        async move { db.flush().await }
    });
    let mut there: i64 = 0;
    while there == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        there = ask_at(server.dsn(), &["DBSIZE"]).await;
    }
    assert!((1..10).contains(&there), "{there} rows are there: the batch was written in part");
    ask_at::<()>(server.dsn(), &["CONFIG", "SET", "maxmemory", "100mb"]).await;
    flush.await.unwrap().unwrap();
    assert!(outcomes_of(receipts).await.iter().all(batchsql_core::Outcome::is_written));
    assert_eq!(ask_at::<i64>(server.dsn(), &["DBSIZE"]).await, 10);
}

/// The buffer for the large value counts as used memory, so the rows around it are refused too.
#[tokio::test]
async fn one_value_that_finds_no_memory_takes_no_row_along() {
    for large in [0, 4, 19] {
        let server = Server::start(Kind::Redis, &["--maxmemory-policy", "noeviction"]);
        let sink = sink_at(server.dsn(), "t", Command::set("k", "v")).await;
        let schema = pairs("t", Conflict::none());
        let mut conn = crate::support::looker(server.dsn()).await;
        let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut conn).await.unwrap();
        let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        let limit = used.trim().parse::<u64>().unwrap() + 2_500_000;
        redis::cmd("CONFIG").arg(&["SET", "maxmemory"]).arg(limit).exec_async(&mut conn).await.unwrap();
        let length = |n| if n == large { 3_000_000 } else { 100 };
        let rows = (0..20).map(|n| row(&schema, [format!("k{n}").into(), "x".repeat(length(n)).into()]));
        let config = config().retry_for(Duration::from_millis(500));
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let receipts = receipts_of(&db, rows).await;
        db.close(HOUR).await;
        let names: Vec<String> = outcomes_of(receipts).await.iter().map(name).collect();
        let expected: Vec<&str> = (0..20).map(|n| if n == large { "expired OOM" } else { "written" }).collect();
        assert_eq!(names, expected);
        assert_eq!(ask_at::<i64>(server.dsn(), &["DBSIZE"]).await, 19);
    }
}

#[tokio::test]
async fn a_row_is_not_written_over_a_later_one_with_its_key() {
    let server = Server::start(Kind::Redis, &["--maxmemory-policy", "noeviction"]);
    // Deleting needs no memory and frees some: later rows are written.
    let sink = sink_at(server.dsn(), "t", Command::raw_from_row()).await;
    let schema = Schema::builder("t")
        .column("word", ColumnType::Text)
        .column("k", ColumnType::Text)
        .nullable("v", ColumnType::Text)
        .build()
        .unwrap();
    let mut conn = crate::support::looker(server.dsn()).await;
    for n in 0..4 {
        redis::cmd("SET").arg(format!("fill{n}")).arg("x".repeat(1_000_000)).exec_async(&mut conn).await.unwrap();
    }
    let memory: String = redis::cmd("INFO").arg("memory").query_async(&mut conn).await.unwrap();
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let limit = used.trim().parse::<u64>().unwrap() - 1_000_000;
    redis::cmd("CONFIG").arg(&["SET", "maxmemory"]).arg(limit).exec_async(&mut conn).await.unwrap();
    let line = |word: &str, k: &str, v: Option<String>| row(&schema, [word.into(), k.into(), v.into()]);
    let rows = [
        line("SET", "k", Some("older".into())),
        line("SET", "other", Some("other".into())),
        line("DEL", "fill0", None),
        line("DEL", "fill1", None),
        line("SET", "k", Some("newer".into())),
    ];
    let config = config().retry_for(Duration::from_secs(30));
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let receipts = receipts_of(&db, rows).await;
    db.close(HOUR).await;
    let names: Vec<String> = outcomes_of(receipts).await.iter().map(name).collect();
    assert_eq!(names, ["rejected OOM", "written", "written", "written", "written"]);
    assert_eq!(ask_at::<String>(server.dsn(), &["GET", "k"]).await, "newer");
}

/// A sink that remembers the class of the error of each write.
struct Told(RedisSink, Arc<Mutex<Vec<Option<ErrorClass>>>>);

impl Sink for Told {
    type Conn = RedisConn;
    type Plan = RedisPlan;

    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn acquire(&self) -> Result<RedisConn, SinkError> {
        self.0.acquire().await
    }

    async fn prepare(&self, conn: &mut RedisConn, schema: &Schema) -> Result<RedisPlan, SinkError> {
        self.0.prepare(conn, schema).await
    }

    async fn write(
        &self,
        conn: &mut RedisConn,
        plan: &RedisPlan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> Result<Written, SinkError> {
        let result = self.0.write(conn, plan, rows, attempt).await;
        self.1.lock().unwrap().push(result.as_ref().err().map(SinkError::class));
        result
    }
}

#[tokio::test]
async fn atomic_batches_are_refused_before_anything_is_sent() {
    let t = unique("atomic");
    let sink = sink(&t, Command::set(Key::prefixed(t.as_str(), ["k"]), "v")).await;
    let atomic = config().isolation(Isolation::AtomicBatch);
    let error = BatchSql::builder(sink.clone()).config(atomic.clone()).start().unwrap_err().to_string();
    assert!(error.contains("redis cannot undo"), "{error}");
    // One row is atomic by itself.
    let atomic = atomic.flush_size(1);
    let db = BatchSql::builder(sink).config(atomic.clone()).start().unwrap();
    let schema = pairs(&t, Conflict::none());
    let receipts = receipts_of(&db, [row(&schema, ["a".into(), "v".into()])]).await;
    db.close(HOUR).await;
    assert!(outcomes_of(receipts).await.iter().all(batchsql_core::Outcome::is_written));
    // Also if it is rejected: that is an error, and nothing was written.
    ask::<i64>(&["DEL", &format!("{t}:a")]).await;
    ask::<i64>(&["RPUSH", &format!("{t}:a"), "list"]).await;
    let alone = Told(sink_at(&dsn(Kind::Redis), &t, Command::raw("APPEND")).await, Arc::default());
    let told = Arc::clone(&alone.1);
    let db = BatchSql::builder(alone).config(atomic).start().unwrap();
    let receipts = receipts_of(&db, [row(&schema, [format!("{t}:a").into(), "v".into()])]).await;
    db.close(HOUR).await;
    assert_eq!(*told.lock().unwrap(), [Some(ErrorClass::Row)]);
    assert_eq!(name(&outcomes_of(receipts).await[0]), "rejected WRONGTYPE");
}

#[tokio::test]
async fn what_may_be_repeated_depends_on_the_command() {
    let t = unique("repeat");
    for keyed in [false, true] {
        let conflict = if keyed { Conflict::replace(["k"]) } else { Conflict::none() };
        let schema = pairs(&t, conflict);
        let check = async |command: Command, expected| {
            let sink = sink(&t, command.clone()).await;
            assert_eq!(sink.is_repeatable(&schema), expected, "{command:?}");
        };
        // Overwriting commands are retried only if a declared key ensures that nothing newer was written in
        // the meantime.
        check(Command::set("k", "v").into(), keyed).await;
        check(Command::hash().key("k").into(), keyed).await;
        check(Command::document().key("k").into(), keyed).await;
        check(Command::sadd("k", "v").into(), true).await;
        check(Command::lpush("k", "v").into(), false).await;
        check(Command::xadd("k").into(), false).await;
        check(Command::publish("k", "v").into(), false).await;
        check(Command::raw("SET").into(), false).await;
    }
}

fn with_null(table: &str) -> Schema {
    let schema = Schema::builder(table).column("k", ColumnType::Text).nullable("a", ColumnType::Text);
    schema.nullable("b", ColumnType::Text).on_conflict(Conflict::replace(["k"])).build().unwrap()
}

#[tokio::test]
async fn hashes_with_null_need_transactions() {
    let t = unique("notx");
    let dsn = dsn(Kind::Redis).replace("redis://", &format!("redis://{t}:pw@"));
    let schema = with_null(&t);
    let rows = || {
        let second = |b: Option<&str>| b.map_or(batchsql_core::Value::Null, Into::into);
        [("x", Some("2")), ("y", None)].map(|(k, b)| row(&schema, [k.into(), "1".into(), second(b)]))
    };
    for right in ["-multi", "-exec"] {
        ask::<()>(&["ACL", "SETUSER", &t, "reset", "on", ">pw", "~*", "+@all", right]).await;
        let sink = sink_at(&dsn, &t, Command::hash()).await;
        let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Permission, "{right}: {error}");
        assert!(error.to_string().contains("may not run MULTI and EXEC"), "{error}");
        // The transaction of the check does not continue in the next batch.
        let plain = Schema::builder(t.as_str()).column("k", ColumnType::Text).column("a", ColumnType::Text);
        let plain = plain.on_conflict(Conflict::replace(["k"])).build().unwrap();
        assert_eq!(write(&sink, [row(&plain, ["z".into(), right.into()])]).await, ["written"]);
        assert_eq!(ask::<String>(&["HGET", &format!("{t}:z"), "a"]).await, right);
    }
    for word in ["MULTI", "EXEC"] {
        let server = Server::start(Kind::Redis, &["--rename-command", word, "HIDDEN"]);
        let sink = sink_at(server.dsn(), &t, Command::hash()).await;
        let error = pipeline(&sink).prepare(&schema).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (ErrorClass::Schema, Some("ERR")), "{error}");
        assert_eq!(sink.pool().unwrap().idle, 0, "it may be in the middle of a transaction");
    }

    // … and unwritten rows are not blamed.
    ask::<()>(&["ACL", "SETUSER", &t, "reset", "on", ">pw", "~*", "+@all"]).await;
    let sink = sink_at(&dsn, &t, Command::hash()).await;
    let db = pipeline(&sink);
    db.prepare(&schema).await.unwrap();
    ask::<()>(&["ACL", "SETUSER", &t, "-multi"]).await;
    let receipts = receipts_of(&db, rows()).await;
    db.flush().await.unwrap();
    assert!(outcomes_of(receipts).await.iter().all(batchsql_core::Outcome::is_written));
    assert_eq!(ask::<Vec<String>>(&["HGETALL", &format!("{t}:y")]).await, ["a", "1"]);
    // … and unwritten rows are not blamed.
    ask::<()>(&["ACL", "SETUSER", &t, "+multi", "-exec"]).await;
    ask::<i64>(&["DEL", &format!("{t}:y")]).await;
    let receipts = receipts_of(&db, rows().into_iter().skip(1)).await;
    db.flush().await.unwrap();
    let outcome = outcomes_of(receipts).await.remove(0);
    assert_eq!(
        (name(&outcome).as_str(), outcome.failure().unwrap().class()),
        ("rejected NOPERM", Some(ErrorClass::Permission))
    );
    assert_eq!(ask::<i64>(&["EXISTS", &format!("{t}:y")]).await, 0);
}

#[tokio::test]
async fn the_text_of_a_script_is_not_its_key() {
    let server = Server::start(Kind::Redis, &["--maxmemory-policy", "noeviction"]);
    let sink = sink_at(server.dsn(), "t", Command::raw("EVAL")).await;
    let schema = Schema::builder("t")
        .column("script", ColumnType::Text)
        .column("keys", ColumnType::I64)
        .column("key", ColumnType::Text)
        .column("word", ColumnType::Text)
        .nullable("value", ColumnType::Text)
        .build()
        .unwrap();
    ask_at::<()>(server.dsn(), &["SET", "fill", &"x".repeat(100_000)]).await;
    ask_at::<()>(server.dsn(), &["CONFIG", "SET", "maxmemory", "1mb"]).await;
    let script = "return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))";
    let line = |key: &str, word: &str, value: Option<&str>| {
        let value = value.map_or(batchsql_core::Value::Null, Into::into);
        row(&schema, [script.into(), 1_i64.into(), key.into(), word.into(), value])
    };
    let rows = [line("k", "SET", Some("v")), line("fill", "DEL", None)];
    assert_eq!(write(&sink, rows).await, ["expired OOM", "written"], "the first is tried again, not rejected");
}

#[tokio::test]
async fn without_the_right_to_delete_fields_only_rows_with_null_are_refused() {
    let t = unique("nohdel");
    let dsn = dsn(Kind::Redis).replace("redis://", &format!("redis://{t}:pw@"));
    ask::<()>(&["ACL", "SETUSER", &t, "reset", "on", ">pw", "~*", "+@all", "-hdel"]).await;
    let (sink, schema) = (sink_at(&dsn, &t, Command::hash()).await, with_null(&t));
    let line = |k: &str, b: batchsql_core::Value| row(&schema, [k.into(), "1".into(), b]);
    let null = || line("y", batchsql_core::Value::Null);
    let ends = write(&sink, [line("x", "1".into()), null(), line("z", "1".into())]).await;
    assert_eq!(ends, ["written", "rejected NOPERM", "written"]);
    // Also alone: the table is not at fault.
    let end = outcomes(&sink, [null()]).await.remove(0);
    let failed = end.failure().unwrap();
    assert_eq!((failed.class(), failed.attempts()), (Some(ErrorClass::Row), 1), "{failed}");
    assert!(failed.to_string().contains("may not run HDEL"), "{failed}");
    // Also if all of its fields are NULL, and it is only the deletion.
    let empty = row(&schema, ["y".into(), batchsql_core::Value::Null, batchsql_core::Value::Null]);
    let end = outcomes(&sink, [empty]).await.remove(0);
    let failed = end.failure().unwrap();
    assert_eq!((failed.class(), failed.attempts()), (Some(ErrorClass::Row), 1), "{failed}");
    assert_eq!(ask::<i64>(&["EXISTS", &format!("{t}:y")]).await, 0);
}

#[tokio::test]
async fn rows_of_one_batch_keep_their_own_errors() {
    let t = unique("errors");
    let sink = sink(&t, Command::raw("EVAL")).await;
    let schema = Schema::builder(t.as_str())
        .column("script", ColumnType::Text)
        .column("keys", ColumnType::I64)
        .column("key", ColumnType::Text)
        .build()
        .unwrap();
    let line = |code: &str| {
        let script = format!("return redis.error_reply('{code} x')");
        row(&schema, [script.as_str().into(), 1_i64.into(), format!("{t}:k").into()])
    };
    let codes = ["OOM", "LOADING", "MISCONF", "BUSY"];
    let expected = codes.map(|code| format!("expired {code}"));
    assert_eq!(write(&sink, codes.map(line)).await, expected);
    // Also if another row of the batch is written.
    let good = row(&schema, ["return 1".into(), 1_i64.into(), format!("{t}:k").into()]);
    let ends = write(&sink, codes.map(line).into_iter().chain([good])).await;
    assert_eq!(ends[..4], expected);
    assert_eq!(ends[4], "written");
}

#[tokio::test]
async fn each_table_has_its_command_and_the_others_the_default() {
    let (a, b) = (unique("a"), unique("b"));
    let options: RedisOptions = dsn(Kind::Redis).parse().unwrap();
    let options = options.command(a.as_str(), Command::rpush("k", "v")).default_command(Command::set("k", "v"));
    let sink = RedisSink::with_options(&options).await.unwrap();
    let db = pipeline(&sink);
    for table in [&a, &b] {
        db.submit(&row(&pairs(table, Conflict::none()), [table.as_str().into(), "v".into()])).await.unwrap();
    }
    assert!(db.close(HOUR).await.is_complete());
    assert_eq!(ask::<String>(&["TYPE", &a]).await, "list");
    assert_eq!(ask::<String>(&["TYPE", &b]).await, "string");
}

#[tokio::test]
async fn many_producers_and_connections_lose_nothing() {
    let t = unique("many");
    let sink = sink(&t, Command::sadd(Key::constant(t.as_str()), "v")).await;
    let schema = Schema::builder(t.as_str()).column("v", ColumnType::I64).build().unwrap();
    let config = PipelineConfig::default().flush_size(100);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let producers: Vec<_> = (0..8_i64)
        .map(|producer| {
            let (db, schema) = (db.clone(), schema.clone());
            tokio::spawn(async move {
                for n in 0..2_000 {
                    db.submit(&row(&schema, [(producer * 2_000 + n).into()])).await.unwrap();
                }
            })
        })
        .collect();
    for producer in producers {
        producer.await.unwrap();
    }
    assert_eq!(db.close(HOUR).await.balance.written(), 16_000);
    assert_eq!(ask::<i64>(&["SCARD", &t]).await, 16_000);
    let state = sink.pool().unwrap();
    assert_eq!((state.in_use, state.max), (0, 4));
    assert!((1..=4).contains(&state.idle), "{state:?}");
}

#[tokio::test]
async fn a_row_without_a_field_is_refused_when_it_is_submitted() {
    let t = unique("fieldless");
    let schema = Schema::builder(t.as_str()).column("k", ColumnType::Text).nullable("v", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::replace(["k"])).build().unwrap();
    let server = sink(&t, Command::hash()).await;
    let db = pipeline(&server);
    let alone = schema.row().set("k", "a").unwrap().finish().unwrap();
    let full = |k: &str| row(&schema, [k.into(), "v".into()]);
    let receipts = receipts_of(&db, [full("b")]).await;
    let error = db.submit(&alone).await.unwrap_err().to_string();
    assert!(error.contains("needs a field") && error.contains("NULL"), "{error}");
    // Its neighbours do not wait for it.
    let receipts: Vec<_> = receipts.into_iter().chain(receipts_of(&db, [full("c")]).await).collect();
    db.flush().await.unwrap();
    assert!(outcomes_of(receipts).await.iter().all(batchsql_core::Outcome::is_written));
    // With a NULL it is a row that deletes the field.
    let nulls = receipts_of(&db, [row(&schema, ["b".into(), Value::Null])]).await;
    db.close(HOUR).await;
    assert!(outcomes_of(nulls).await[0].is_written());
    assert!(!ask::<bool>(&["EXISTS", &format!("{t}:b")]).await);
}

#[tokio::test]
async fn a_row_without_its_time_to_live_or_id_is_refused_when_it_is_submitted() {
    let t = unique("leaves");
    let check = async |command: Command, part: &str| {
        let schema = Schema::builder(t.as_str()).column("k", ColumnType::Text).column("v", ColumnType::Text);
        let schema = schema.nullable("n", ColumnType::I64).build().unwrap();
        let db = pipeline(&sink(&t, command).await);
        let row = schema.row().set("k", "a").unwrap().set("v", "b").unwrap().finish().unwrap();
        let error = db.submit(&row).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    check(Command::set("k", "v").ttl(Ttl::column("n")).into(), "NULL for no expiry").await;
    check(Command::xadd("k").id("n").into(), "NULL for an id of the server").await;
}
