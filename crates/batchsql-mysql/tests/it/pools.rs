//! Connections of a pool: with an open transaction, of a read-only server, of a stopped server; passwords that
//! change; and whether a session is working.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use batchsql_core::{
    Action, Attempt, ColumnType, Conflict, ErrorClass, Password, Schema, SessionEnd, Sink, TimestampTz, Value,
};
use batchsql_mysql::sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use batchsql_mysql::sqlx::{Connection, Executor};
use batchsql_mysql::{MySqlOptions, MySqlSink};
use batchsql_testserver::{Kind, Server, Warnings};

use crate::support::{Database, pipeline, row, schema, submitted, with_parameters, with_user, write, written};
use batchsql_testkit::batch_of;

const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(50))";

/// A pool of the user's own, of one connection.
async fn users_pool(db: &Database) -> MySqlSink {
    users_pool_of(db, 1).await
}

async fn users_pool_of(db: &Database, connections: u32) -> MySqlSink {
    let pool = MySqlPoolOptions::new().max_connections(connections).after_connect(|connection, _| {
        Box::pin(async move { connection.execute("SET sql_mode = 'STRICT_ALL_TABLES'").await.map(drop) })
    });
    let options: MySqlConnectOptions = db.dsn.parse().unwrap();
    MySqlSink::new(pool.connect_with(options).await.unwrap())
}

#[tokio::test]
async fn rows_never_join_a_transaction_that_somebody_left_open() {
    let db = Database::with(TABLE, "max_connections=1").await;
    let warnings = Warnings::of("batchsql_mysql");
    let _guard = batchsql_testserver::subscribe(warnings.clone());
    for sink in [users_pool(&db).await, db.sink.clone()] {
        let schema = schema(Conflict::none());
        let mut told = Vec::new();
        for left in [
            "BEGIN; INSERT INTO t VALUES (-1, 'theirs')",
            "SET autocommit = 0",
            "SET autocommit = 0; INSERT INTO t VALUES (-1, 'theirs')",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
        ] {
            let mut connection = sink.mysql_pool().acquire().await.unwrap();
            for statement in left.split("; ") {
                connection.execute(statement).await.unwrap();
            }
            drop(connection);
            assert_eq!(write(&sink, [row(&schema, 1, "ours")]).await, ["written"], "{left}");
            told.extend(warnings.taken());
            // It is committed: another session sees it, and the open transaction is rolled back.
            let mut other = db.connection().await;
            assert_eq!(other.execute("DELETE FROM t WHERE id = 1").await.unwrap().rows_affected(), 1, "{left}");
            assert_eq!(other.execute("DELETE FROM t").await.unwrap().rows_affected(), 0, "{left}");
        }
        // One warning for each sink.
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("a connection came from the pool with a transaction open"), "{told:?}");
    }
}

#[tokio::test]
async fn a_connection_with_another_character_set_takes_no_row_in() {
    let db = Database::with(TABLE, "max_connections=1").await;
    for sink in [users_pool(&db).await, db.sink.clone()] {
        let schema = schema(Conflict::none());
        db.run("DELETE FROM t").await;
        assert_eq!(write(&sink, [row(&schema, 0, "é")]).await, ["written"]);
        for left in ["SET NAMES latin1", "SET character_set_connection = latin1", "SET NAMES utf8mb4"] {
            let mut connection = sink.mysql_pool().acquire().await.unwrap();
            connection.execute(left).await.unwrap();
            drop(connection);
            assert_eq!(write(&sink, [row(&schema, 1, "é")]).await, ["written"], "{left}");
            let stored = db.read("SELECT COUNT(*), COUNT(DISTINCT HEX(note)), MIN(HEX(note)) FROM t").await;
            assert_eq!(stored, ["2|1|C3A9"], "{left}");
            db.run("DELETE FROM t WHERE id = 1").await;
        }
    }
}

/// Another database has a table of the same name.
#[tokio::test]
async fn a_session_with_another_database_or_other_settings_takes_no_row_in() {
    const TABLES: &str = "CREATE TABLE p (id BIGINT PRIMARY KEY);
        CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(5) NOT NULL, at TIMESTAMP(6) NULL, parent BIGINT NULL, CHECK (id >= 0),
        FOREIGN KEY (parent) REFERENCES p (id))";
    let db = Database::with(TABLES, "max_connections=3").await;
    let other = Database::with(TABLES, "").await;
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .column("note", ColumnType::Text)
        .nullable("at", ColumnType::TimestampTz)
        .nullable("parent", ColumnType::I64)
        .build()
        .unwrap();
    let at = TimestampTz::from_micros_since_epoch(86_400_000_000).unwrap();
    let row = |id: i64, note: &str, parent: Option<i64>| {
        let row = schema.row().set("id", id).unwrap().set("note", note).unwrap().set("at", at).unwrap();
        row.set("parent", parent.map_or(Value::Null, Value::I64)).unwrap().finish().unwrap()
    };
    // A good one, and one for each thing that the server checks.
    let rows = || [row(1, "é", None), row(2, "too long", None), row(-3, "c", None), row(4, "d", Some(9))];
    let mut changes = vec![
        format!("USE {}", other.name),
        "SET sql_mode = ''".to_owned(),
        "SET time_zone = '+05:00'".to_owned(),
        "SET foreign_key_checks = 0".to_owned(),
        "SET sql_mode = '', sql_select_limit = 0".to_owned(),
        "SET character_set_results = latin1".to_owned(),
    ];
    if db.read("SELECT VERSION()").await[0].contains("MariaDB") {
        changes.push("SET check_constraint_checks = 0".to_owned());
        changes.push("SET sql_mode = CONCAT(@@sql_mode, ',EMPTY_STRING_IS_NULL')".to_owned());
    }
    for sink in
        [users_pool_of(&db, 3).await, MySqlSink::connect(&with_parameters(&db.dsn, "max_connections=3")).await.unwrap()]
    {
        assert_eq!(write(&sink, rows()).await, ["written", "rejected", "rejected", "rejected"]);
        for change in &changes {
            db.run("DELETE FROM t").await;
            // All of them.
            let mut held = Vec::new();
            for _ in 0..3 {
                held.push(sink.mysql_pool().acquire().await.unwrap());
            }
            for mut connection in held {
                connection.execute(&**change).await.unwrap();
            }
            assert_eq!(write(&sink, rows()).await, ["written", "rejected", "rejected", "rejected"], "{change}");
            let stored = db.read("SELECT id, note, UNIX_TIMESTAMP(at) FROM t").await;
            assert_eq!(stored, ["1|é|86400.000000"], "{change}");
        }
        assert_eq!(other.read("SELECT COUNT(*) FROM t").await, ["0"]);
        db.run("DELETE FROM t").await;
    }
}

/// Locks of a session are no setting: the server refuses the rows, and the next connection has none.
#[tokio::test]
async fn rows_under_lock_tables_are_written_on_another_connection() {
    let db = Database::with(&format!("{TABLE}; CREATE TABLE u (id BIGINT)"), "max_connections=1").await;
    for sink in [users_pool(&db).await, db.sink.clone()] {
        for (id, lock) in [(1, "LOCK TABLES t READ"), (2, "LOCK TABLES u WRITE")] {
            // The pipeline has its connection and its plan.
            let pipeline = pipeline(&sink);
            let mut connection = sink.mysql_pool().acquire().await.unwrap();
            connection.execute(lock).await.unwrap();
            drop(connection);
            let rows = [row(&schema(Conflict::none()), id, "a"), row(&schema(Conflict::none()), id + 10, "b")];
            let ended = submitted(&pipeline, rows).await;
            assert!(ended.iter().all(batchsql_core::Outcome::is_written), "{lock}: {ended:?}");
            pipeline.close(crate::support::HOUR).await;
        }
        assert_eq!(db.read("SELECT COUNT(*) FROM t").await, ["4"]);
        db.run("DELETE FROM t").await;
    }
}

/// What the first session of a pool has is right if all have it.
#[tokio::test]
async fn a_pool_whose_new_sessions_have_other_settings_has_its_tables_read_again() {
    let db = Database::with(TABLE, "").await;
    let setting = Arc::new(AtomicUsize::new(0));
    let of_pool = Arc::clone(&setting);
    let pool = MySqlPoolOptions::new().max_connections(1).after_connect(move |connection, _| {
        let set = ["SET time_zone = '+00:00'", "SET time_zone = '+05:00'"][of_pool.load(Ordering::Relaxed)];
        Box::pin(async move { connection.execute(set).await.map(drop) })
    });
    let options: MySqlConnectOptions = db.dsn.parse().unwrap();
    let sink = MySqlSink::new(pool.connect_with(options).await.unwrap());
    let ends = async |sql_mode: &str, id| {
        let mut connection = sink.mysql_pool().acquire().await.unwrap();
        connection.execute(&*format!("SET sql_mode = '{sql_mode}'")).await.unwrap();
        drop(connection);
        write(&sink, [row(&schema(Conflict::none()), id, "a")]).await
    };
    assert_eq!(ends("STRICT_ALL_TABLES", 1).await, ["written"]);
    setting.store(1, Ordering::Relaxed);
    // The connection is closed, and those that follow have another time zone.
    assert_eq!(ends("", 2).await, ["written"]);
    assert_eq!(write(&sink, [row(&schema(Conflict::none()), 3, "a")]).await, ["written"]);
    let stored = db.read("SELECT COUNT(*) FROM t").await;
    assert_eq!(stored, ["3"]);
}

/// Two servers behind one address may differ: after the first connection to each, none is closed.
#[tokio::test]
async fn connections_to_servers_with_different_settings_stay_open() {
    let db = Database::with(TABLE, "").await;
    let (setting, opened) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (of_pool, count) = (Arc::clone(&setting), Arc::clone(&opened));
    let pool = MySqlPoolOptions::new().max_connections(2).after_connect(move |connection, _| {
        count.fetch_add(1, Ordering::Relaxed);
        let set = ["SET sql_mode = 'STRICT_ALL_TABLES'", "SET sql_mode = 'STRICT_ALL_TABLES,ONLY_FULL_GROUP_BY'"]
            [of_pool.load(Ordering::Relaxed)];
        Box::pin(async move { connection.execute(set).await.map(drop) })
    });
    let options: MySqlConnectOptions = db.dsn.parse().unwrap();
    let sink = MySqlSink::new(pool.connect_with(options).await.unwrap());
    let schema = schema(Conflict::none());
    let (mut one, batch) = (sink.acquire().await.unwrap(), |id| batch_of([row(&schema, id, "a")]));
    let plan = sink.prepare(&mut one, &schema).await.unwrap();
    setting.store(1, Ordering::Relaxed);
    let mut other = sink.acquire().await.unwrap();
    let before = opened.load(Ordering::Relaxed);
    for id in 0..4 {
        for (conn, id) in [(&mut one, id), (&mut other, id + 10)] {
            let batch = batch(id).await;
            sink.write(conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
        }
        // They go through the pool.
        drop((one, other));
        (one, other) = (sink.acquire().await.unwrap(), sink.acquire().await.unwrap());
    }
    assert_eq!(opened.load(Ordering::Relaxed), before);
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, ["8"]);
}

#[tokio::test]
async fn a_connection_to_a_server_that_is_read_only_is_not_used_again() {
    let server = Server::start(Kind::MySql, &[]);
    let db = Database::on(server.dsn(), TABLE, "").await;
    db.run(&format!("CREATE USER 'plain'@'%' IDENTIFIED BY 'x'; GRANT ALL ON {}.* TO 'plain'@'%'", db.name)).await;
    let dsn = with_parameters(&with_user(&db.dsn, "plain", "x"), "max_connections=1");
    let sink = MySqlSink::connect(&dsn).await.unwrap();
    let schema = schema(Conflict::none());
    assert_eq!(write(&sink, [row(&schema, 1, "a")]).await, ["written"]);
    let id = async || -> u64 {
        batchsql_mysql::sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(sink.mysql_pool()).await.unwrap()
    };
    let before = id().await;
    db.run("SET GLOBAL read_only = 1").await;
    let error = written(&sink, [row(&schema, 2, "b")], false).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Resource, Some("1290")), "{error}");
    assert_ne!(id().await, before, "it may lead to the old server for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_starts_while_its_server_is_down() {
    let mut server = Server::start(Kind::MySql, &["--max-allowed-packet=1M"]);
    let db = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)", "").await;
    server.stop();
    let sink = MySqlSink::connect_lazy(&with_parameters(&db.dsn, "connect_timeout=1")).unwrap();
    let pipeline = pipeline(&sink);
    let schema = schema(Conflict::update(["id"]));
    // The server's limit is known only when it is available: the last row is too large for it.
    let rows = [row(&schema, 1, "a"), row(&schema, 2, "b".repeat(2_000_000))];
    let (outcomes, ()) = tokio::join!(submitted(&pipeline, rows), async {
        let error = sink.acquire().await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        let text = error.to_string();
        assert!(text.contains("cannot connect to mysql server 127.0.0.1:") && !text.contains("in use"), "{text}");
        tokio::task::block_in_place(|| server.start_again());
    });
    assert!(outcomes[0].is_written(), "{outcomes:?}");
    let failed = outcomes[1].failure().unwrap();
    assert!(failed.error().unwrap().to_string().contains("max_allowed_packet = 1048576"), "{failed:?}");
    assert!(MySqlSink::connect_lazy("mysql://h/d?nonsense=1").is_err());
}

#[tokio::test]
async fn a_password_that_changes_is_asked_for() {
    let db = Database::new(TABLE).await;
    let user = db.user("first", "").await;
    db.run(&format!("GRANT ALL ON {}.* TO '{user}'@'%'", db.name)).await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let options: MySqlOptions =
        with_parameters(&with_user(&db.dsn, &user, "never"), "max_connections=4").parse().unwrap();
    let options = options.password_provider(move || {
        let number = count.fetch_add(1, Ordering::Relaxed);
        async move { Ok(Password::new(["first", "second"][number.min(1)])) }
    });
    let sink = MySqlSink::with_options(&options).await.unwrap();
    let schema = schema(Conflict::none());
    assert_eq!(write(&sink, [row(&schema, 1, "a")]).await, ["written"]);
    assert_eq!(asked.load(Ordering::Relaxed), 1, "it is asked for once for many connections");
    db.run(&format!("ALTER USER '{user}'@'%' IDENTIFIED BY 'second'")).await;
    // Further connections are refused with the first, and opened with the second.
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(sink.acquire().await.unwrap());
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    drop(held);
    assert_eq!(write(&sink, [row(&schema, 2, "b")]).await, ["written"]);
    let shown = format!("{options:?} {sink:?}");
    assert!(!shown.contains("first") && !shown.contains("second") && !shown.contains("never"), "{shown}");
}

#[tokio::test]
async fn a_provider_without_a_password_is_waited_for() {
    let db = Database::new(TABLE).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let password = db.dsn.split_once("://").unwrap().1.split(['@', ':']).nth(1).unwrap().to_owned();
    let count = Arc::clone(&calls);
    let options: MySqlOptions = db.dsn.parse().unwrap();
    let options = options.password_provider(move || {
        let (number, password) = (count.fetch_add(1, Ordering::Relaxed), password.clone());
        async move { if number < 2 { Err("the service is unreachable".into()) } else { Ok(Password::new(password)) } }
    });
    let error = MySqlSink::with_options(&options).await.unwrap_err().to_string();
    assert!(error.contains("gave no password"), "{error}");
    let sink = MySqlSink::with_options_lazy(&options).unwrap();
    let error = sink.acquire().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
    assert_eq!(write(&sink, [row(&schema(Conflict::none()), 1, "a")]).await, ["written"]);
}

#[tokio::test]
async fn a_session_works_idles_or_is_gone() {
    let db = Database::with(&format!("{TABLE}; INSERT INTO t VALUES (1, 'old')"), "max_connections=2").await;
    let schema = schema(Conflict::update(["id"]));
    let mut conn = db.sink.acquire().await.unwrap();
    let session = db.sink.session(&mut conn).await.unwrap().unwrap();
    assert_eq!(db.sink.is_working(&session).await.unwrap(), Some(false));
    let batch = batch_of([row(&schema, 1, "new")]).await;
    let plan = db.sink.prepare(&mut conn, &schema).await.unwrap();
    let mut other = db.connection().await;
    let mut locking = other.begin().await.unwrap();
    locking.execute("UPDATE t SET note = 'theirs'").await.unwrap();
    let attempt = Attempt::new(false);
    let writing = db.sink.write(&mut conn, &plan, batch.rows(), &attempt);
    let (answer, ()) = tokio::join!(writing, async {
        db.wait_for_a_lock_wait().await;
        assert_eq!(db.sink.is_working(&session).await.unwrap(), Some(true));
        locking.rollback().await.unwrap();
    });
    answer.unwrap();
    assert_eq!(db.sink.is_working(&session).await.unwrap(), Some(false));
    // While a large statement is in transit, the server does not show it.
    let large = batch_of((1..800).map(|id| row(&schema, id, "x"))).await;
    db.run("ALTER TABLE t MODIFY note LONGTEXT").await;
    let plan = db.sink.prepare(&mut conn, &schema).await.unwrap();
    db.sink.write(&mut conn, &plan, large.rows(), &attempt).await.unwrap();
    assert_eq!(db.sink.is_working(&session).await.unwrap(), Some(false));
    let large = batch_of([row(&schema, 1, "x".repeat(3 << 20))]).await;
    db.sink.write(&mut conn, &plan, large.rows(), &attempt).await.unwrap();
    assert_eq!(db.sink.is_working(&session).await.unwrap(), None);
    drop(conn);
    db.pool().close().await;
    while db.sink.is_working(&session).await.unwrap() != Some(false) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn keys_of_ignored_rows_are_read_where_they_are_written() {
    let server = Server::start(Kind::MySql, &["--general-log=1", "--log-output=TABLE"]);
    let db =
        Database::on(server.dsn(), &format!("{TABLE}; INSERT INTO t VALUES (1, 'old')"), "max_connections=1").await;
    let schema = schema(Conflict::ignore(["id"]));
    let rows = || [row(&schema, 1, "a"), row(&schema, 2, "b"), row(&schema, 2, "c")];
    for expected in [["ignored", "written", "ignored"], ["ignored"; 3]] {
        assert_eq!(write(&db.sink, rows()).await, expected);
    }
    // A proxy routes statements inside a transaction to the primary.
    let log = "SELECT LEFT(CONVERT(argument USING utf8mb4), 17) FROM mysql.general_log
               WHERE command_type IN ('Query', 'Execute') AND (argument LIKE 'SELECT CAST(`id`%' OR argument LIKE 'START%'
               OR argument LIKE 'COMMIT%' OR argument LIKE 'ROLLBACK AND%')";
    let mut is_open = false;
    let statements = db.read(log).await;
    assert!(statements.iter().filter(|statement| statement.starts_with("SELECT")).count() >= 2, "{statements:?}");
    for statement in statements {
        match statement.as_str() {
            "START TRANSACTION" => is_open = true,
            select if select.starts_with("SELECT") => assert!(is_open, "the keys are read outside"),
            _ => is_open = false,
        }
    }
}

/// The statements of a user that read or set variables, each once. Texts in quotes are left out.
async fn statements_about_variables(db: &Database, user: &str) -> Vec<String> {
    let log = format!(
        "SELECT DISTINCT REGEXP_REPLACE(CONVERT(argument USING utf8mb4), '''[^'']*''', '…') AS text FROM mysql.general_log
         WHERE command_type IN ('Query', 'Prepare', 'Execute') AND user_host LIKE '{user}[%' HAVING text LIKE '%@%' OR text LIKE 'SET %'
         ORDER BY text"
    );
    db.read(&log).await
}

/// docs/databases.md lists these statements, because each of them may pin a connection of a proxy to this client.
#[tokio::test]
async fn no_other_statement_than_the_listed_ones_reads_or_sets_variables() {
    const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)";
    const MODES: &str = "PIPES_AS_CONCAT,NO_ENGINE_SUBSTITUTION,STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO";
    const IDENTIFIES: &str = "select @@version_comment limit 1";
    const ISOLATION: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";
    let settings = "SET sql_mode = …, innodb_lock_wait_timeout = 20, lock_wait_timeout = 20, time_zone = …";
    let (modes, zone) = (format!("--sql-mode={MODES}"), "--default-time-zone=+00:00");
    let with_settings = [modes.as_str(), zone, "--innodb-lock-wait-timeout=20", "--lock-wait-timeout=20"];
    for (more, expected) in
        [(&[][..], vec![IDENTIFIES, settings, ISOLATION]), (&with_settings, vec![IDENTIFIES, ISOLATION])]
    {
        let server = Server::start(Kind::MySql, &[&["--general-log=1", "--log-output=TABLE"], more].concat());
        let db = Database::on(server.dsn(), TABLE, "").await;
        db.run(&format!("CREATE USER 'app'@'%' IDENTIFIED BY 'x'; GRANT ALL ON {}.* TO 'app'@'%'", db.name)).await;
        let dsn = with_user(&db.dsn, "app", "x");
        let pool = MySqlPoolOptions::new().connect_with(
            dsn.parse::<MySqlConnectOptions>()
                .unwrap()
                .pipes_as_concat(false)
                .no_engine_substitution(false)
                .timezone(None)
                .set_names(false),
        );
        let own = MySqlSink::connect(&dsn).await.unwrap();
        let mut sinks = vec![own.clone()];
        if !more.is_empty() {
            // Settings that the user's pool need not send.
            sinks.push(MySqlSink::new(pool.await.unwrap()));
        }
        for sink in sinks {
            let rules = [
                Conflict::none(),
                Conflict::ignore(["id"]),
                Conflict::replace(["id"]),
                Conflict::update_only(["id"]),
                Conflict::update(["id"]).only_if_newer("v"),
                Conflict::delete(["id"]),
            ];
            for (rule, rows) in rules.into_iter().flat_map(|rule| [(rule.clone(), 1), (rule, 2)]) {
                let is_delete = rule.action() == Action::Delete;
                let schema = Schema::builder("t").column("id", ColumnType::I64).on_conflict(rule);
                let schema = if is_delete { schema } else { schema.column("v", ColumnType::I64) };
                let schema = schema.build().unwrap();
                let rows = (0..rows).map(|id: i64| {
                    let row = schema.row().set("id", id).unwrap();
                    let row = if is_delete { row } else { row.set("v", id).unwrap() };
                    row.finish().unwrap()
                });
                write(&sink, rows).await;
            }
            // The pool checks connections that the application has used; the sink looks at a session, and ends it.
            drop(sink.mysql_pool().acquire().await.unwrap());
            let mut conn = sink.acquire().await.unwrap();
            let session = sink.session(&mut conn).await.unwrap().unwrap();
            assert_eq!(sink.is_working(&session).await.unwrap(), Some(false));
            assert_eq!(sink.end_session(&session).await.unwrap(), SessionEnd::Ended);
            sink.mysql_pool().close().await;
        }
        assert_eq!(statements_about_variables(&db, "app").await, expected);
    }
}

#[tokio::test]
async fn ignore_tells_rows_that_share_a_key_from_rows_that_meet_another_index() {
    let db = Database::new(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(50) UNIQUE); INSERT INTO t VALUES (1, 'one'), (2, 'two')",
    )
    .await;
    let schema = schema(Conflict::ignore(["id"]));
    // 3 has a duplicate in another index first and is written by its second row; the others behave as usual.
    let rows = [(3, "one"), (3, "three"), (3, "four"), (1, "x"), (5, "five"), (5, "six"), (7, "five"), (8, "eight")];
    for is_first in [true, false] {
        let expected = if is_first {
            ["ignored", "written", "ignored", "ignored", "written", "ignored", "ignored", "written"]
        } else {
            ["ignored"; 8]
        };
        let outcomes = write(&db.sink, rows.map(|(id, note)| row(&schema, id, note))).await;
        assert_eq!(outcomes, expected);
    }
    assert_eq!(db.read("SELECT GROUP_CONCAT(id, note ORDER BY id) FROM t").await, ["1one,2two,3three,5five,8eight"]);
}
