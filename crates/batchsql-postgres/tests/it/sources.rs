//! The source of connections: several servers, passwords that change, an unavailable server, a shared pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use batchsql_core::{
    Action, Attempt, BatchSql, Claim, Claimed, ColumnType, Conflict, ErrorClass, PartitionKey, Password,
    PipelineConfig, Schema, SessionEnd, Sink,
};
use batchsql_postgres::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_postgres::{PostgresOptions, PostgresSink, Settings, Strategy, TargetSession};
use batchsql_testserver::{Kind, Server, unique};
use tokio::net::TcpListener;

use crate::proxy::Silenced;
use crate::support::{
    HOUR, at_end, batch_of, execute, fresh, fresh_dsn, outcomes, pipeline, prepared_dsn, read, row, schema,
    user_until_end, with_parameter, write,
};

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, note text)";

/// A port without a listener: it was just free.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn a_lazy_sink_starts_while_the_server_is_unreachable_and_writes_when_it_comes() {
    let mut server = Server::start(Kind::Postgres, &[]);
    let dsn = prepared_dsn(server.dsn(), TABLE).await;
    server.stop();
    assert!(PostgresSink::connect(&with_parameter(&dsn, "connect_timeout=1")).await.is_err());
    let sink = PostgresSink::connect_lazy(&with_parameter(&dsn, "connect_timeout=0.2")).unwrap();
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let receipt = db.submit_tracked(&row(&schema(Conflict::replace(["id"])), 1, "a")).await.unwrap();
    server.start_again();
    assert!(receipt.await.is_written());
    // Through a sink that waits longer for a connection.
    assert_eq!(read(&PostgresSink::connect(&dsn).await.unwrap(), "SELECT * FROM t").await, ["1|a"]);
    // Options that are invalid in any case are an error at once.
    assert!(PostgresSink::connect_lazy("postgres://h/d?nonsense=1").is_err());
}

#[tokio::test]
async fn a_provider_is_asked_again_when_its_password_is_refused() {
    let user = unique("user");
    let _user = user_until_end(&user);
    let admin = fresh(&format!("{TABLE}; CREATE USER {user} PASSWORD 'token-0'; GRANT ALL ON t TO {user}")).await;
    let grant = format!("DO $$ BEGIN EXECUTE format('GRANT USAGE ON SCHEMA %I TO {user}', current_schema); END $$");
    execute(admin.pg_pool(), &grant).await;
    let asked = Arc::new(AtomicU32::new(0));
    let provider = {
        let asked = Arc::clone(&asked);
        move || {
            let token = format!("token-{}", asked.fetch_add(1, Ordering::SeqCst));
            async move { Ok(Password::new(token)) }
        }
    };
    let options = (*admin.pg_pool().connect_options()).clone().username(&user).password("wrong");
    let options = PostgresOptions::from_connect_options(options).password_provider(provider).max_connections(1);
    let shown = format!("{options:?}");
    assert!(!shown.contains("token"), "{shown}");
    let sink = PostgresSink::with_options(&options).await.unwrap();
    let schema = schema(Conflict::replace(["id"]));
    assert_eq!(write(&sink, [row(&schema, 1, "a")]).await, ["written"]);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // The next token is in use, and the connection is gone.
    let end = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{user}'");
    execute(admin.pg_pool(), &format!("ALTER USER {user} PASSWORD 'token-1'; {end}")).await;
    let db = BatchSql::builder(sink.clone()).start().unwrap();
    let receipt = db.submit_tracked(&row(&schema, 2, "b")).await.unwrap();
    db.flush().await.unwrap();
    assert!(receipt.await.is_written());
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    // A provider without a password is a connection error, with its reason.
    let none = || async { Err("the service is unreachable".into()) };
    let options = PostgresOptions::from_connect_options((*admin.pg_pool().connect_options()).clone());
    let error = PostgresSink::with_options(&options.password_provider(none)).await.unwrap_err().to_string();
    assert!(error.contains("gave no password: the service is unreachable"), "{error}");
}

/// The first of three is unavailable, and the second rejects the login.
#[tokio::test]
async fn of_several_servers_the_first_that_can_be_used_is_written() {
    let (mut second, mut third) = (Server::start(Kind::Postgres, &[]), Server::start(Kind::Postgres, &[]));
    let unreachable = free_port().await;
    let dsn = prepared_dsn(third.dsn(), TABLE).await;
    let port = |server: &Server| server.dsn().rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    let hosts = format!("127.0.0.1:{unreachable},127.0.0.1:{},127.0.0.1:{}", port(&second), port(&third));
    let several = dsn.replacen(&format!("127.0.0.1:{}", port(&third)), &hosts, 1);
    let sink = PostgresSink::connect(&several).await.unwrap();
    let schema = schema(Conflict::replace(["id"]));
    assert_eq!(write(&sink, [row(&schema, 1, "a")]).await, ["written"]);
    let lazy = PostgresSink::connect_lazy(&several).unwrap();
    assert_eq!(write(&lazy, [row(&schema, 2, "a")]).await, ["written"]);
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["2"]);
    // None is left.
    third.stop();
    second.stop();
    let error = PostgresSink::connect(&several).await.unwrap_err().to_string();
    assert!(error.contains(&port(&third)) && error.contains("the connection was refused"), "{error}");
}

/// A session that becomes read-only makes the sink search for another server.
#[tokio::test]
async fn after_a_failover_the_other_server_is_found() {
    let name = unique("failover");
    let _database = at_end([format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")]);
    let mut other = Server::start(Kind::Postgres, &[]);
    let admin = fresh("").await;
    execute(admin.pg_pool(), &format!("CREATE DATABASE {name}")).await;
    // Both servers know one user, and have one database.
    let here = (*admin.pg_pool().connect_options()).clone().options([("search_path", "public")]);
    let mut there = PgConnection::connect(other.dsn()).await.unwrap();
    let user = unique("user");
    let _user = at_end([format!("DROP USER IF EXISTS {user}")]);
    let create = format!("CREATE USER {user} PASSWORD 'x' SUPERUSER");
    execute(admin.pg_pool(), &create).await;
    there.execute(&*create).await.unwrap();
    there.execute(&*format!("CREATE DATABASE {name}")).await.unwrap();
    let port: u16 = other.dsn().rsplit(':').next().unwrap().split('/').next().unwrap().parse().unwrap();
    let options = PostgresOptions::from_connect_options(here.clone().username(&user).password("x").database(&name))
        .servers([("127.0.0.1", here.get_port()), ("127.0.0.1", port)], TargetSession::ReadWrite);
    let sink = PostgresSink::with_options(&options.connect_timeout(Duration::from_secs(2))).await.unwrap();
    let of = |port| here.clone().username(&user).password("x").database(&name).port(port);
    for port in [here.get_port(), port] {
        PgConnection::connect_with(&of(port)).await.unwrap().execute(TABLE).await.unwrap();
    }
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::replace(["id"]));
    assert!(db.submit_tracked(&row(&schema, 1, "a")).await.unwrap().await.is_written());
    // The first one becomes a standby: its sessions and new ones are read-only.
    let read_only = format!(
        "ALTER DATABASE {name} SET default_transaction_read_only = on;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    );
    execute(admin.pg_pool(), &read_only).await;
    assert!(db.submit_tracked(&row(&schema, 2, "a")).await.unwrap().await.is_written());
    db.close(HOUR).await;
    let mut there = PgConnection::connect_with(&of(port)).await.unwrap();
    let ids: Vec<i64> = batchsql_postgres::sqlx::query_scalar("SELECT id FROM t").fetch_all(&mut there).await.unwrap();
    assert_eq!(ids, [2]);
    // The other one is written to until it is stopped.
    other.stop();
}

#[tokio::test]
async fn a_transaction_that_was_left_open_takes_no_row_in() {
    let dsn = fresh_dsn(TABLE).await;
    for (conflict, begin) in
        [(Conflict::none(), "BEGIN"), (Conflict::replace(["id"]), "BEGIN"), (Conflict::none(), "BEGIN; SELECT 1")]
    {
        let pool = PgPoolOptions::new().max_connections(1).connect(&dsn).await.unwrap();
        let sink = PostgresSink::new(pool.clone());
        execute(&pool, "TRUNCATE t").await;
        pool.acquire().await.unwrap().execute(begin).await.unwrap();
        assert_eq!(write(&sink, (0..30).map(|id| row(&schema(conflict.clone()), id, "a"))).await, ["written"; 30]);
        // Seen from another session: they are committed.
        let other = PostgresSink::connect(&dsn).await.unwrap();
        assert_eq!(read(&other, "SELECT count(*) FROM t").await, ["30"], "{conflict:?}");
    }
    // Directly: the error, also after a failed statement. Then the connection is a new one.
    let pool = PgPoolOptions::new().max_connections(1).connect(&dsn).await.unwrap();
    let sink = PostgresSink::new(pool.clone());
    let schema = schema(Conflict::replace(["id"]));
    let batch = batch_of(&schema, 100..110).await;
    for sql in ["BEGIN", "BEGIN; SAVEPOINT s", "BEGIN; SELECT 1/0"] {
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, &schema).await.unwrap();
        drop(conn);
        // It is not an error of the table either.
        let _ = pool.acquire().await.unwrap().execute(sql).await;
        let mut conn = sink.acquire().await.unwrap();
        let error = sink.prepare(&mut conn, &schema).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{sql}: {error}");
        assert!(error.to_string().contains("end every transaction"), "{error}");
        drop(conn);
        let _ = pool.acquire().await.unwrap().execute(sql).await;
        let mut conn = sink.acquire().await.unwrap();
        let error = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Transient, "{error}");
        assert!(error.to_string().contains("end every transaction before its connection is given back"), "{error}");
        drop(conn);
        let _ = pool.acquire().await.unwrap().execute(sql).await;
        let mut conn = sink.acquire().await.unwrap();
        let error = sink.session(&mut conn).await.unwrap_err();
        assert!(error.to_string().contains("end every transaction"), "{error}");
        drop(conn);
        let mut conn = sink.acquire().await.unwrap();
        sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_with_another_encoding_takes_no_row_in() {
    let dsn = fresh_dsn(TABLE).await;
    let pool = PgPoolOptions::new().max_connections(1).connect(&dsn).await.unwrap();
    let sink = PostgresSink::new(pool.clone());
    for (id, encoding) in (0..).zip(["LATIN1", "WIN1252", "SQL_ASCII", "UTF8", "utf-8", "UNICODE"]) {
        execute(&pool, &format!("SET client_encoding = '{encoding}'")).await;
        assert_eq!(write(&sink, [row(&schema(Conflict::replace(["id"])), id, "é")]).await, ["written"]);
    }
    assert_eq!(read(&sink, "SELECT DISTINCT note FROM t").await, ["é"]);
    // Each way to the server.
    let schema = schema(Conflict::none());
    let batch = batch_of(&schema, 100..110).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &schema).await.unwrap();
    drop(conn);
    for way in ["prepare", "write", "session"] {
        execute(&pool, "SET client_encoding = 'LATIN1'").await;
        let mut conn = sink.acquire().await.unwrap();
        let error = match way {
            "prepare" => sink.prepare(&mut conn, &schema).await.unwrap_err(),
            "write" => sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err(),
            _ => sink.session(&mut conn).await.unwrap_err(),
        };
        assert_eq!(error.class(), ErrorClass::Transient, "{way}: {error}");
        assert!(error.to_string().contains("another client_encoding than UTF8"), "{way}: {error}");
    }
}

/// Between two batches of a connection that is not given back to the pool.
#[tokio::test]
async fn an_encoding_that_a_trigger_changes_changes_no_text_of_later_batches() {
    let sql = format!(
        "{TABLE}; CREATE TABLE plain (LIKE t INCLUDING ALL);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM set_config('client_encoding', 'LATIN1', false); RETURN new; END $$;
         CREATE TRIGGER f AFTER INSERT OR UPDATE ON t FOR EACH ROW WHEN (new.id % 50 = 5) EXECUTE FUNCTION f()"
    );
    let dsn = fresh_dsn(&sql).await;
    let rules = [Conflict::none(), Conflict::replace(["id"]), Conflict::ignore(["id"]), Conflict::update_only(["id"])];
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    let named = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging];
    let ways = named.map(|strategy| (strategy, true, false)).into_iter();
    for (strategy, named, returns) in ways.chain([(Strategy::Auto, false, false), (Strategy::Auto, true, true)]) {
        // The second table, and whether the connection is given back before.
        let seconds = [("t", false), ("plain", false), ("plain", true)];
        let seconds = if named && strategy == Strategy::Auto { seconds.as_slice() } else { &seconds[..1] };
        for (rule, second) in rules.iter().flat_map(|rule| seconds.iter().map(move |second| (rule, *second))) {
            let is_plain = rule.action() == Action::Insert;
            let may_copy = matches!(strategy, Strategy::Auto | Strategy::Copy);
            // Without names a COPY is not checked.
            // An update that returns values takes a statement for each row, and what changes between them refuses the batch.
            let is_row_by_row = returns && rule.action() == Action::UpdateOnly;
            if (strategy == Strategy::Copy && !is_plain) || (may_copy && is_plain && !named) || is_row_by_row {
                continue;
            }
            let options: PostgresOptions = dsn.parse().unwrap();
            let options = options.strategy(strategy).prepared_statements(named).max_connections(1);
            let fill = "TRUNCATE t, plain; INSERT INTO t SELECT n, 'old' FROM generate_series(0, 79) AS n; INSERT INTO plain SELECT * FROM t; SET client_encoding TO 'UTF8'";
            if rule.action() == Action::UpdateOnly {
                execute(admin.pg_pool(), fill).await;
            } else {
                execute(admin.pg_pool(), "TRUNCATE t, plain").await;
            }
            // Not the pool that other code uses.
            let sink = PostgresSink::with_options(&options).await.unwrap();
            let mut conn = sink.acquire().await.unwrap();
            // Plans are made before, because the sink also checks a connection before it reads a table.
            let mut plans = Vec::new();
            for (table, ids) in [("t", 0..40), (second.0, 40..80)] {
                let schema = Schema::builder(table).column("id", ColumnType::I64).column("note", ColumnType::Text);
                let schema = schema.on_conflict(rule.clone());
                let schema = if returns { schema.returning("id", ColumnType::I64) } else { schema };
                let schema = schema.build().unwrap();
                let plan = sink.prepare(&mut conn, &schema).await.unwrap();
                plans.push((plan, batchsql_testkit::batch_of(ids.map(|id| row(&schema, id, "é"))).await));
            }
            for (number, (plan, batch)) in plans.iter().enumerate() {
                if second.1 && number > 0 {
                    drop(conn);
                    conn = sink.acquire().await.unwrap();
                }
                let mut result = sink.write(&mut conn, plan, batch.rows(), &Attempt::new(false)).await;
                if let Err(error) = &result {
                    assert_eq!(error.class(), ErrorClass::Transient, "{error}");
                    assert!(error.to_string().contains("another client_encoding than UTF8"), "{error}");
                    drop(conn);
                    conn = sink.acquire().await.unwrap();
                    result = sink.write(&mut conn, plan, batch.rows(), &Attempt::new(false)).await;
                }
                assert!(result.unwrap().ignored.is_empty());
            }
            let stored = "SELECT note, count(*) FROM (SELECT * FROM t UNION ALL SELECT * FROM plain) AS a WHERE note <> 'old' GROUP BY 1";
            assert_eq!(read(&admin, stored).await, ["é|80"], "{strategy:?} {named} {returns} {rule:?} {second:?}");
        }
    }
}

/// In the sink's own pool: names, and the values that are compared after a lost reply.
#[tokio::test]
async fn an_encoding_that_a_trigger_changes_hides_no_table_row_or_position() {
    let sql = format!(
        "{TABLE}; CREATE TABLE \"é\" (LIKE t INCLUDING ALL);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN PERFORM set_config('client_encoding', 'LATIN1', false); RETURN new; END $$;
         CREATE TRIGGER f AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
    );
    let dsn = fresh_dsn(&sql).await;
    let options: PostgresOptions = dsn.parse().unwrap();
    let sink = PostgresSink::with_options(&options.max_connections(1)).await.unwrap();
    let schema = schema(Conflict::ignore(["id"]));
    let other = Schema::builder("é").column("id", ColumnType::I64).build().unwrap();
    let key = PartitionKey::new("é", "i", "t", 0);
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &schema).await.unwrap();
    let claimed = sink.claim(&mut conn, &key, &Claim::of("o").or_begin_at(0).lease(HOUR)).await.unwrap();
    assert!(matches!(claimed, Claimed::Position(_)), "{claimed:?}");
    drop(conn);
    for (id, what) in (0..).zip(["find_written", "prepare", "find_table", "positions", "renew"]) {
        let batch = batchsql_testkit::batch_of([row(&schema, id, "é")]).await;
        let mut conn = sink.acquire().await.unwrap();
        sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
        let mut conn = Some(conn);
        for is_first in [true, false] {
            if what == "find_table" {
                // It takes a connection itself.
                conn = None;
            } else if conn.is_none() {
                conn = Some(sink.acquire().await.unwrap());
            }
            let found = match (what, conn.as_mut()) {
                ("find_written", Some(conn)) => {
                    sink.find_written(conn, &plan, batch.rows()).await.map(|rows| rows.len())
                }
                ("prepare", Some(conn)) => sink.prepare(conn, &other).await.map(|_| 1),
                ("positions", Some(conn)) => sink.positions(conn, "é").await.map(|stored| stored.len()),
                ("renew", Some(conn)) => sink.renew(conn, "é", "o", HOUR).await.map(|stored| stored.len()),
                _ => sink.find_table(&"é".into()).await.map(|_| 1),
            };
            match found {
                Ok(found) => assert_eq!((is_first, found), (false, 1), "{what}"),
                Err(error) => {
                    assert!(is_first && error.class() == ErrorClass::Transient, "{what}: {error}");
                    assert!(error.to_string().contains("another client_encoding than UTF8"), "{what}: {error}");
                    // It is closed.
                    conn = None;
                }
            }
        }
    }
}

#[tokio::test]
async fn a_temporary_table_takes_no_row_in() {
    let dsn = fresh_dsn(TABLE).await;
    let other = PostgresSink::connect(&dsn).await.unwrap();
    let rules = [Conflict::none(), Conflict::replace(["id"]), Conflict::update_only(["id"]), Conflict::ignore(["id"])];
    for strategy in [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging] {
        for hide in ["CREATE TEMP TABLE t (LIKE t INCLUDING ALL)", "CREATE TEMP VIEW t AS SELECT 1 AS id"] {
            let pool = PgPoolOptions::new().max_connections(1).connect(&dsn).await.unwrap();
            let sink = PostgresSink::from_pool(pool.clone(), Settings::default().strategy(strategy));
            let schema = schema(Conflict::none());
            let mut conn = sink.acquire().await.unwrap();
            let plan = sink.prepare(&mut conn, &schema).await.unwrap();
            drop(conn);
            execute(&pool, hide).await;
            // With a plan that is older, and with new ones.
            execute(other.pg_pool(), "TRUNCATE t; INSERT INTO t VALUES (0, 'old'), (1, 'old')").await;
            let mut conn = sink.acquire().await.unwrap();
            let batch = batch_of(&schema, 20..22).await;
            sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
            drop(conn);
            let mut outcomes = Vec::new();
            for rule in &rules {
                let schema = self::schema(rule.clone());
                let first = if schema.key_columns().is_empty() { 10 } else { 0 };
                outcomes.push(write(&sink, (first..first + 2).map(|id| row(&schema, id, "a"))).await[0]);
            }
            assert_eq!(outcomes, ["written", "written", "written", "ignored"], "{strategy:?} {hide}");
            let stored = read(&other, "SELECT id, note FROM t ORDER BY id").await;
            assert_eq!(stored, ["0|a", "1|a", "10|a", "11|a", "20|new", "21|new"], "{strategy:?} {hide}");
        }
    }
}

#[tokio::test]
async fn a_table_that_ends_with_its_session_is_refused() {
    let dsn = fresh_dsn("SELECT 1").await;
    let pool = PgPoolOptions::new().max_connections(1).connect(&dsn).await.unwrap();
    execute(&pool, "CREATE TEMP TABLE t (id bigint PRIMARY KEY, note text)").await;
    let sink = PostgresSink::new(pool);
    let error = pipeline(&sink).prepare(&schema(Conflict::none())).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    assert!(error.to_string().contains("it is temporary"), "{error}");
    let error = sink.read_schema(&"t".into()).await.unwrap_err();
    assert!(error.to_string().contains("it is temporary"), "{error}");
}

#[tokio::test]
async fn a_lock_is_waited_for_as_long_as_the_options_say() {
    let dsn = fresh_dsn(&format!("{TABLE}; INSERT INTO t VALUES (1, 'old')")).await;
    let sink = PostgresSink::connect(&with_parameter(&dsn, "lock_timeout=50ms")).await.unwrap();
    assert_eq!(read(&sink, "SHOW lock_timeout").await, ["50ms"]);
    let mut other = PgConnection::connect(&dsn).await.unwrap();
    other.execute("BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE").await.unwrap();
    let schema = schema(Conflict::replace(["id"]));
    let batch = batch_of(&schema, 0..3).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &schema).await.unwrap();
    let error = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, Some("55P03")), "{error}");
    let error = PostgresSink::connect(&with_parameter(&dsn, "lock_timeout=1&prepared_statements=false")).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("ALTER ROLE"), "{error}");
}

/// Without `track_activities` a working session shows no activity.
#[tokio::test]
async fn whether_a_session_works_is_not_known_where_the_server_does_not_track_it() {
    let user = unique("user");
    let _user = user_until_end(&user);
    let make = format!("CREATE USER {user} SUPERUSER PASSWORD 'x'; ALTER ROLE {user} SET track_activities = off");
    let admin = fresh(&make).await;
    let options = (*admin.pg_pool().connect_options()).clone().username(&user).password("x");
    let sink = PostgresSink::with_options(&PostgresOptions::from_connect_options(options)).await.unwrap();
    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    assert_eq!(sink.is_working(&session).await.unwrap(), None);
}

#[tokio::test]
async fn whether_a_session_works_is_seen_from_another_one() {
    let dsn = fresh_dsn(&format!("{TABLE}; INSERT INTO t VALUES (1, 'old')")).await;
    let sink = PostgresSink::connect(&dsn).await.unwrap();
    let schema = schema(Conflict::replace(["id"]));
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &schema).await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    assert_eq!(sink.is_working(&session).await.unwrap(), Some(false));
    // It waits for a lock, which counts as working.
    let mut other = PgConnection::connect(&dsn).await.unwrap();
    other.execute("BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE").await.unwrap();
    let batch = batch_of(&schema, 0..3).await;
    let write = tokio::spawn({
        let sink = sink.clone();
        async move {
            let written = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await;
            (written.is_ok(), conn)
        }
    });
    while sink.is_working(&session).await.unwrap() != Some(true) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.execute("COMMIT").await.unwrap();
    let (is_written, conn) = write.await.unwrap();
    assert!(is_written);
    assert_eq!(sink.is_working(&session).await.unwrap(), Some(false));
    // A session that is gone.
    drop(conn);
    sink.pg_pool().close().await;
    let again = PostgresSink::connect(&dsn).await.unwrap();
    assert_eq!(again.is_working(&session).await.unwrap(), Some(false));
    // The check does not disturb the termination.
    assert_eq!(outcomes(&again, [row(&schema, 7, "b")]).await.len(), 1);
}

/// The user `app` with the table on the test's own server.
async fn with_app(server: &Server) -> PgConnectOptions {
    let mut admin = PgConnection::connect(server.dsn()).await.unwrap();
    let make = format!("CREATE USER app PASSWORD 'x' SUPERUSER; {TABLE}");
    admin.execute(&*make).await.unwrap();
    server.dsn().parse::<PgConnectOptions>().unwrap().username("app").password("x")
}

/// The first server becomes unreachable without an error. A lane that waits for the end of a session acquires no
/// connection, and still finds the other server.
#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_waits_for_the_end_of_a_session_finds_the_new_primary() {
    let (first, second) = (Server::start(Kind::Postgres, &[]), Server::start(Kind::Postgres, &[]));
    let (to_first, to_second) = (with_app(&first).await, with_app(&second).await);
    let link = Silenced::start(format!("127.0.0.1:{}", to_first.get_port())).await;
    let addresses = [("127.0.0.1", link.port), ("127.0.0.1", to_second.get_port())];
    let options = PostgresOptions::from_connect_options(to_first.clone()).servers(addresses, TargetSession::ReadWrite);
    let options = options.connect_timeout(Duration::from_secs(1)).max_connections(2);
    let sink = PostgresSink::with_options(&options).await.unwrap();
    let config = PipelineConfig::default()
        .flush_interval(Duration::from_millis(1))
        .statement_timeout(Duration::from_secs(2))
        .ordering(batchsql_core::Ordering::PerTable)
        .retry_for(HOUR);
    let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
    let schema = schema(Conflict::replace(["id"]));
    assert!(db.submit_tracked(&row(&schema, 1, "a")).await.unwrap().await.is_written());
    // The write is on its way: it waits for a lock.
    let mut locker = PgConnection::connect_with(&to_first).await.unwrap();
    locker.execute("BEGIN; LOCK t").await.unwrap();
    let receipt = db.submit_tracked(&row(&schema, 2, "b")).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    while batchsql_postgres::sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut locker).await.unwrap() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    link.silence();
    let outcome = tokio::time::timeout(Duration::from_secs(120), receipt).await.expect("the other server is found");
    assert!(outcome.is_written(), "{outcome:?}");
    let mut there = PgConnection::connect_with(&to_second).await.unwrap();
    let ids: Vec<i64> = batchsql_postgres::sqlx::query_scalar("SELECT id FROM t").fetch_all(&mut there).await.unwrap();
    assert_eq!(ids, [2]);
}

/// A user with the password of the provider, and the options for it.
async fn with_provider(
    admin: &PostgresSink,
    user: &str,
    provider: impl batchsql_core::PasswordProvider,
) -> PostgresOptions {
    execute(admin.pg_pool(), &format!("CREATE USER {user} PASSWORD 'token-0' SUPERUSER")).await;
    let options = (*admin.pg_pool().connect_options()).clone().username(user).password("wrong");
    PostgresOptions::from_connect_options(options).password_provider(provider)
}

/// Sinks share a provider, and each has a pool with its own password.
#[tokio::test]
async fn each_sink_of_a_provider_gets_its_new_password() {
    let user = unique("user");
    let _user = user_until_end(&user);
    let admin = fresh(TABLE).await;
    let now = Arc::new(AtomicU32::new(0));
    let provider = {
        let now = Arc::clone(&now);
        move || {
            let token = format!("token-{}", now.load(Ordering::SeqCst));
            async move { Ok(Password::new(token)) }
        }
    };
    let options = with_provider(&admin, &user, provider).await.max_connections(2);
    let sinks = [
        PostgresSink::with_options(&options).await.unwrap(),
        PostgresSink::with_options(&options).await.unwrap(),
        PostgresSink::with_options_lazy(&options).unwrap(),
    ];
    for sink in &sinks {
        drop(sink.acquire().await.unwrap());
    }
    now.store(1, Ordering::SeqCst);
    let end = format!("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{user}'");
    execute(admin.pg_pool(), &format!("ALTER USER {user} PASSWORD 'token-1'; {end}")).await;
    for sink in &sinks {
        // Its old connections are returned and found to be dead.
        sink.pg_pool().set_connect_options((*sink.pg_pool().connect_options()).clone());
        let (mut one, mut two) = (None, None);
        while one.is_none() || two.is_none() {
            // Both are refused together.
            let (first, second) = tokio::join!(sink.acquire(), sink.acquire());
            let (mut first, mut second) = (first.unwrap(), second.unwrap());
            one = sink.session(&mut first).await.ok();
            two = sink.session(&mut second).await.ok();
        }
    }
    // A later sink gets the cached password of the provider, which may have expired.
    now.store(2, Ordering::SeqCst);
    execute(admin.pg_pool(), &format!("ALTER USER {user} PASSWORD 'token-2'")).await;
    let later = PostgresSink::with_options(&options).await.unwrap();
    assert_eq!(read(&later, "SELECT current_user").await, [user]);
}

/// Ending a session needs no password while its connection exists.
#[tokio::test]
async fn a_provider_that_is_unreachable_does_not_keep_a_session_from_being_ended() {
    let user = unique("user");
    let _user = user_until_end(&user);
    let admin = fresh(TABLE).await;
    let is_unreachable = Arc::new(AtomicBool::new(false));
    let provider = {
        let is_unreachable = Arc::clone(&is_unreachable);
        move || {
            let is_unreachable = is_unreachable.load(Ordering::SeqCst);
            async move {
                if is_unreachable {
                    return Err("the service is unreachable".into());
                }
                Ok(Password::new("token-0").valid_for(Duration::ZERO))
            }
        }
    };
    let sink = PostgresSink::with_options(&with_provider(&admin, &user, provider).await).await.unwrap();
    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    drop(conn);
    is_unreachable.store(true, Ordering::SeqCst);
    assert!(sink.acquire().await.is_err());
    assert_eq!(sink.is_working(&session).await.unwrap(), Some(false));
    let mut end = sink.end_session(&session).await.unwrap();
    while end == SessionEnd::Pending {
        end = sink.end_session(&session).await.unwrap();
    }
    assert_eq!(end, SessionEnd::Ended);
}

/// A target is checked for a single server too.
#[tokio::test]
async fn one_server_is_asked_for_its_kind_where_that_was_given() {
    let dsn = with_parameter(&fresh_dsn(TABLE).await, "options[default_transaction_read_only]=on");
    assert!(PostgresSink::connect(&dsn).await.is_ok(), "no target was set");
    let asked = with_parameter(&dsn, "target_session_attrs=read-write");
    let error = PostgresSink::connect(&asked).await.unwrap_err().to_string();
    assert!(error.contains("is read-only"), "{error}");
    let error = PostgresSink::connect_lazy(&asked).unwrap().acquire().await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Resource, "{error}");
    for target in ["any", "primary"] {
        let sink = PostgresSink::connect(&with_parameter(&dsn, &format!("target_session_attrs={target}"))).await;
        assert!(sink.is_ok(), "{target}");
    }
}
