//! Writes that are abandoned after they have started: they must not take effect after later writes.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicUsize};
use std::time::Duration;

use batchsql_core::{
    Attempt, BatchInfo, BatchSql, ColumnType, Conflict, ErrorClass, MetricsReporter, Ordering, OutcomeKind,
    PipelineConfig, Schema, Session, SessionEnd, Sink,
};
use batchsql_postgres::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_postgres::{PostgresOptions, PostgresSink, Settings, Strategy};
use batchsql_testserver::process::skip;
use batchsql_testserver::{Frozen, Kind, Server, Warnings, unique};

use crate::proxy::{Cut, commits, through_proxy};
use crate::support::{
    HOUR, at_end, batch_of, execute, fresh, fresh_dsn, prepared_dsn, read, row, schema, user_until_end, with_parameter,
};

/// Much longer than any operation here.
const HANGS: Duration = Duration::from_secs(60);

async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(HANGS, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Waits until a query returns this.
async fn until(sink: &PostgresSink, sql: &str, expected: &str) {
    in_time(&format!("{sql} is {expected}"), async {
        while read(sink, sql).await != [expected] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// A pipeline with a short statement timeout.
fn impatient(sink: &PostgresSink, retry_for: Duration) -> BatchSql {
    let config = PipelineConfig::default()
        .flush_interval(HOUR)
        .statement_timeout(Duration::from_millis(400))
        .ordering(Ordering::PerTable)
        .retry_for(retry_for);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// Failed writes are retried once at most, in halves.
const ONCE: Duration = Duration::from_millis(1);

/// Submits rows as one batch; the kinds of their outcomes.
async fn submit(db: &BatchSql, rows: impl IntoIterator<Item = batchsql_core::DynRow>) -> Vec<OutcomeKind> {
    let mut receipts = Vec::new();
    for row in rows {
        receipts.push(db.submit_tracked(&row).await.unwrap());
    }
    in_time("a flush", db.flush()).await.unwrap();
    let mut kinds = Vec::new();
    for receipt in receipts {
        kinds.push(in_time("an outcome", receipt).await.kind());
    }
    kinds
}

/// A connection that holds a lock.
async fn locker(options: &PgConnectOptions, sql: &str) -> PgConnection {
    let mut conn = PgConnection::connect_with(&options.clone().application_name("locker")).await.unwrap();
    conn.execute(&*format!("BEGIN; {sql}")).await.unwrap();
    conn
}

/// A user's pool: without the settings of the sink's own pool.
async fn users_pool(options: &PgConnectOptions, connections: u32) -> PostgresSink {
    let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(5));
    PostgresSink::from_pool(pool.connect_with(options.clone()).await.unwrap(), Settings::default())
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'v0'), (2, 'v0')";

/// Active sessions with a name.
fn active(name: &str) -> String {
    format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}' AND state = 'active'")
}

/// Sessions with a name that wait for a lock.
fn waiting(name: &str) -> String {
    format!("{} AND wait_event_type = 'Lock'", active(name))
}

/// A statement waits for the lock of its first row. If it still existed when the lock is released, it would overwrite
/// the newer value of its second row.
#[tokio::test]
async fn a_statement_that_waited_for_a_lock_does_not_overwrite_newer_rows() {
    let schema = schema(Conflict::replace(["id"]));
    for round in 0..6 {
        let name = unique("locked");
        let dsn = fresh_dsn(TABLE).await;
        let admin = PostgresSink::connect(&dsn).await.unwrap();
        let options = (*admin.pg_pool().connect_options()).clone();
        // With the sink's own pool the server itself detects after a second that the client is gone.
        let sink = if round % 2 == 0 {
            users_pool(&options.clone().application_name(&name), 2).await
        } else {
            PostgresSink::connect(&with_parameter(&dsn, &format!("application_name={name}"))).await.unwrap()
        };
        let mut locker = locker(&options, "UPDATE t SET note = 'locked' WHERE id = 1").await;
        let db = impatient(&sink, ONCE);
        let old = submit(&db, [row(&schema, 1, "v1"), row(&schema, 2, "v1")]).await;
        assert_eq!(old[0], OutcomeKind::Unknown, "{round}");
        assert_eq!(submit(&db, [row(&schema, 2, "v2")]).await, [OutcomeKind::Written], "{round}");
        locker.execute("ROLLBACK").await.unwrap();
        until(&admin, &active(&name), "0").await;
        assert_eq!(read(&admin, "SELECT note FROM t ORDER BY id").await, ["v0", "v2"], "{round}");
        db.close(HOUR).await;
    }
}

/// The rows of an abandoned batch are retried, and only after its session has ended.
#[tokio::test]
async fn what_the_network_delivers_late_does_not_overwrite_newer_rows() {
    let schema = schema(Conflict::replace(["id"]));
    for strategy in [Strategy::Unnest, Strategy::MultiValues, Strategy::Staging] {
        for of_user in [false, true] {
            let (sink, proxy, direct) = through_proxy(Cut::Hold(commits(strategy)), strategy).await;
            let sink = if of_user {
                let pool =
                    PgPoolOptions::new().connect_with((*sink.pg_pool().connect_options()).clone()).await.unwrap();
                PostgresSink::from_pool(pool, Settings::default().strategy(strategy))
            } else {
                sink
            };
            let db = impatient(&sink, HOUR);
            assert_eq!(submit(&db, [row(&schema, 1, "v0")]).await, [OutcomeKind::Written]);
            proxy.arm();
            // The write is held back, abandoned, and retried.
            assert_eq!(submit(&db, [row(&schema, 1, "v1")]).await, [OutcomeKind::Written], "{strategy:?}");
            assert!(proxy.has_cut(), "{strategy:?}");
            assert_eq!(submit(&db, [row(&schema, 1, "v2")]).await, [OutcomeKind::Written], "{strategy:?}");
            in_time("the end of the link", proxy.deliver()).await;
            assert_eq!(read(&direct, "SELECT note FROM t").await, ["v2"], "{strategy:?} {of_user}");
            db.close(HOUR).await;
        }
    }
}

/// Counts the batches that were given up and are tried again.
#[derive(Debug, Clone, Default)]
struct GivenUp(Arc<AtomicUsize>);

impl MetricsReporter for GivenUp {
    fn batch_retried(&self, _: &BatchInfo<'_>, _: ErrorClass) {
        self.0.fetch_add(1, atomic::Ordering::SeqCst);
    }
}

/// The process of a session that waits for a lock is stopped (`SIGSTOP`), so that it can neither answer nor be ended, and goes
/// on after its batch was given up. Until then no newer row is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_stands_still_in_a_batch_does_not_overwrite_newer_rows() {
    let server = Server::start(Kind::Postgres, &[]);
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, note text);
        CREATE TABLE versions (number bigserial, id bigint, note text);
        CREATE FUNCTION add_version() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO versions (id, note) VALUES (NEW.id, NEW.note); RETURN NULL; END';
        CREATE TRIGGER versions AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION add_version()";
    let dsn = prepared_dsn(server.dsn(), sql).await;
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    let folder = read(&admin, "SHOW data_directory").await.remove(0);
    if !Path::new(&folder).join("postmaster.pid").exists() || !cfg!(target_os = "linux") {
        return skip("a session that stands still: the server is not a process of this machine, or this is not Linux");
    }
    let options = (*admin.pg_pool().connect_options()).clone();
    let schema = schema(Conflict::update(["id"]));
    for round in 0..2 {
        execute(admin.pg_pool(), "TRUNCATE t; INSERT INTO t VALUES (1, 'v0'); TRUNCATE versions").await;
        let name = unique("frozen");
        let sink = if round == 0 {
            users_pool(&options.clone().application_name(&name), 2).await
        } else {
            PostgresSink::connect(&with_parameter(&dsn, &format!("application_name={name}"))).await.unwrap()
        };
        // The first row of the batch, so that its session has locked no row.
        let mut locker = locker(&options, "UPDATE t SET note = 'locked' WHERE id = 1").await;
        let config = PipelineConfig::default()
            .flush_interval(HOUR)
            .statement_timeout(Duration::from_secs(3))
            .ordering(Ordering::PerTable)
            .retry_for(HOUR);
        let given_up = GivenUp::default();
        let db = BatchSql::builder(sink).config(config).metrics_reporter(given_up.clone()).start().unwrap();
        let submit_all = async |note: &str| {
            let db = db.clone();
            let mut receipts = Vec::new();
            for id in 1..=50 {
                receipts.push(db.submit_tracked(&row(&schema, id, note)).await.unwrap());
            }
            (receipts, tokio::spawn(async move { db.flush().await.unwrap() }))
        };
        let (old, flushed_old) = submit_all("v1").await;
        // A batch that is given up before its session stands still has another session then.
        let waits =
            format!("SELECT pid FROM pg_stat_activity WHERE application_name = '{name}' AND wait_event_type = 'Lock'");
        let frozen = in_time("a session that waits", async {
            loop {
                let found = read(&admin, &waits).await.first().and_then(|pid| Frozen::stop(pid.parse().unwrap()));
                match found {
                    Some(frozen) => return frozen,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        })
        .await;
        let before = given_up.0.load(atomic::Ordering::SeqCst);
        locker.execute("ROLLBACK").await.unwrap();
        let (new, flushed_new) = submit_all("v2").await;
        in_time("the batch is given up, and its session is to end", async {
            while given_up.0.load(atomic::Ordering::SeqCst) == before || !frozen.is_told_to_end() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(db.balance().written(), 0, "nothing is known to be written");
        assert_eq!(read(&admin, "SELECT id, note FROM t").await, ["1|v0"]);
        frozen.resume();
        in_time("the flushes", async { (flushed_old.await.unwrap(), flushed_new.await.unwrap()) }).await;
        for receipt in old {
            let kind = receipt.await.kind();
            assert!(matches!(kind, OutcomeKind::Written | OutcomeKind::Superseded), "{kind:?}");
        }
        for receipt in new {
            assert_eq!(receipt.await.kind(), OutcomeKind::Written);
        }
        db.close(HOUR).await;
        assert_eq!(read(&admin, "SELECT DISTINCT note, count(*) FROM t GROUP BY note").await, ["v2|50"]);
        let late = "SELECT count(*) FROM versions a JOIN versions b USING (id)
            WHERE a.number < b.number AND a.note = 'v2' AND b.note = 'v1'";
        assert_eq!(read(&admin, late).await, ["0"], "a version never goes back");
    }
}

/// Starts a write and abandons it when it waits for a lock; returns its session.
async fn give_up(sink: &PostgresSink, admin: &PostgresSink, name: &str) -> Option<Session> {
    let schema = schema(Conflict::replace(["id"]));
    let batch = batch_of(&schema, 1..3).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, &schema).await.unwrap();
    let session = sink.session(&mut conn).await.unwrap();
    let (attempt, waits) = (Attempt::new(false), waiting(name));
    tokio::select! {
        done = sink.write(&mut conn, &plan, batch.rows(), &attempt) => panic!("{done:?}"),
        () = until(admin, &waits, "1") => {}
    }
    session
}

/// Ends a session as the pipeline does.
async fn end(sink: &PostgresSink, session: &Session) -> SessionEnd {
    in_time("the end of a session", async {
        loop {
            match sink.end_session(session).await {
                Ok(SessionEnd::Pending) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(end) => return end,
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_that_was_restarted_has_ended_its_sessions() {
    let mut server = Server::start(Kind::Postgres, &[]);
    let dsn = prepared_dsn(server.dsn(), TABLE).await;
    let sink = PostgresSink::connect(&dsn).await.unwrap();
    for crash in [false, true] {
        let mut conn = sink.acquire().await.unwrap();
        let session = sink.session(&mut conn).await.unwrap().unwrap();
        drop(conn);
        if crash {
            server.kill()
        } else {
            server.stop()
        }
        assert!(sink.end_session(&session).await.is_err(), "the state of an unavailable server is not known");
        server.start_again();
        assert_eq!(end(&sink, &session).await, SessionEnd::Ended, "{crash}");
        // A session name of an earlier run is not valid in the next run.
        let mut conn = in_time("a connection", async {
            loop {
                // The pool may return dead connections.
                let mut conn = sink.acquire().await.unwrap();
                match sink.session(&mut conn).await {
                    Ok(_) => return conn,
                    Err(_) => drop(conn),
                }
            }
        })
        .await;
        assert_eq!(end(&sink, &session).await, SessionEnd::Ended, "{crash}");
        assert!(sink.session(&mut conn).await.unwrap().is_some(), "{crash}");
    }
}

#[tokio::test]
async fn a_session_of_another_server_is_not_ended() {
    let server = Server::start(Kind::Postgres, &[]);
    let elsewhere = PostgresSink::connect(server.dsn()).await.unwrap();
    let sink = fresh("").await;
    let mut conn = sink.acquire().await.unwrap();
    let session = sink.session(&mut conn).await.unwrap().unwrap();
    // There is no such session there, which proves nothing.
    assert_eq!(elsewhere.end_session(&session).await.unwrap(), SessionEnd::Impossible);
    assert!(sink.session(&mut conn).await.unwrap().is_some());
    drop(conn);
    assert_eq!(sink.end_session(&Session::new("not ours")).await.unwrap(), SessionEnd::Impossible);
}

/// Abandoned sessions hold every connection of the server.
#[tokio::test]
async fn a_server_without_a_free_connection_ends_what_was_given_up() {
    let server = Server::start(Kind::Postgres, &["-c", "max_connections=8", "-c", "superuser_reserved_connections=0"]);
    let tables = format!("{TABLE}; CREATE TABLE u AS TABLE t; ALTER TABLE u ADD PRIMARY KEY (id)");
    let dsn = prepared_dsn(server.dsn(), &tables).await;
    let options: PostgresOptions = dsn.parse().unwrap();
    let options = (*PostgresSink::with_options(&options).await.unwrap().pg_pool().connect_options()).clone();
    let sink = users_pool(&options, 2).await;
    let db = impatient(&sink, ONCE);
    let t = schema(Conflict::replace(["id"]));
    let u = Schema::builder("u").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
    let u = u.on_conflict(Conflict::replace(["id"])).build().unwrap();
    // Both connections, and the one that ends sessions.
    let (mut one, two) = (sink.acquire().await.unwrap(), sink.acquire().await.unwrap());
    assert!(sink.session(&mut one).await.unwrap().is_some());
    drop((one, two));
    let lock = "UPDATE t SET note = 'locked' WHERE id = 1; UPDATE u SET note = 'locked' WHERE id = 1";
    let mut locker = locker(&options, lock).await;
    let mut others = Vec::new();
    in_time("a full server", async {
        loop {
            match PgConnection::connect_with(&options).await {
                Ok(conn) => others.push(conn),
                Err(error) if error.as_database_error().is_some_and(|e| e.code() == Some("53300".into())) => break,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let (of_t, of_u) = tokio::join!(
        submit(&db, [row(&t, 1, "v1"), row(&t, 2, "v1")]),
        submit(&db, [row(&u, 1, "v1"), row(&u, 2, "v1")])
    );
    assert_eq!((of_t[0], of_u[0]), (OutcomeKind::Unknown, OutcomeKind::Unknown));
    // The locks are still held.
    let db = db.clone();
    let (of_t, of_u) = tokio::join!(submit(&db, [row(&t, 2, "v2")]), submit(&db, [row(&u, 2, "v2")]));
    assert_eq!((of_t, of_u), (vec![OutcomeKind::Written], vec![OutcomeKind::Written]));
    locker.execute("ROLLBACK").await.unwrap();
    drop(others);
    db.close(HOUR).await;
    assert_eq!(
        read(&sink, "SELECT note FROM t UNION ALL SELECT note FROM u ORDER BY 1").await,
        ["v0", "v0", "v2", "v2"]
    );
}

/// No connection can be opened, and the kept one is gone: one of the pool is used.
#[tokio::test]
async fn a_connection_of_the_pool_ends_sessions_when_no_other_can_be_opened() {
    pool_ends_sessions(false).await;
}

/// Inside a transaction the server always returns the first snapshot of its sessions.
#[tokio::test]
async fn a_connection_with_an_open_transaction_does_not_look_at_sessions() {
    pool_ends_sessions(true).await;
}

async fn pool_ends_sessions(is_in_transaction: bool) {
    let server = Server::start(Kind::Postgres, &["-c", "max_connections=8", "-c", "superuser_reserved_connections=0"]);
    let dsn = prepared_dsn(server.dsn(), TABLE).await;
    let admin = PostgresSink::with_options(&dsn.parse::<PostgresOptions>().unwrap().max_connections(1)).await.unwrap();
    let options = (*admin.pg_pool().connect_options()).clone();
    let sink = users_pool(&options.clone().application_name("ours"), 2).await;
    let mut locker = locker(&options, "UPDATE t SET note = 'locked' WHERE id = 1").await;
    let mut idle = sink.pg_pool().acquire().await.unwrap();
    if is_in_transaction {
        // The session of the abandoned write does not exist yet.
        idle.execute("BEGIN; SELECT count(*) FROM pg_stat_activity").await.unwrap();
    }
    let session = give_up(&sink, &admin, "ours").await.unwrap();
    drop(idle);
    until(&admin, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ours'", "3").await;
    let kept = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ours'
                ORDER BY query LIKE '%pg_control_system%' DESC, backend_start DESC LIMIT 1";
    assert_eq!(read(&admin, kept).await, ["t"]);
    until(&admin, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ours'", "2").await;
    let mut others = Vec::new();
    while let Ok(conn) = PgConnection::connect_with(&options).await {
        others.push(conn);
    }
    assert_eq!(end(&sink, &session).await, SessionEnd::Ended);
    assert_eq!(read(&admin, &waiting("ours")).await, ["0"]);
    locker.execute("ROLLBACK").await.unwrap();
    assert_eq!(read(&admin, "SELECT note FROM t ORDER BY id").await, ["v0", "v0"]);
}

/// A database of a user that has no right to end sessions.
async fn without_rights(name: &str) -> (PostgresSink, PostgresSink) {
    let admin = fresh(&format!("CREATE USER {name} PASSWORD 'x'")).await;
    execute(admin.pg_pool(), &format!("CREATE DATABASE {name} OWNER {name}")).await;
    let options = (*admin.pg_pool().connect_options()).clone().database(name).options([("search_path", "public")]);
    let admin = PostgresSink::with_options(&PostgresOptions::from_connect_options(options.clone())).await.unwrap();
    let refuse = "DO $$ DECLARE f text; BEGIN
            FOR f IN SELECT oid::regprocedure FROM pg_proc WHERE proname = 'pg_terminate_backend' LOOP
                EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || f || ' FROM PUBLIC';
            END LOOP; END $$";
    execute(admin.pg_pool(), &format!("{TABLE}; ALTER TABLE t OWNER TO {name}; {refuse}")).await;
    (users_pool(&options.username(name).password("x").application_name(name), 2).await, admin)
}

#[tokio::test]
async fn without_the_right_to_end_sessions_they_are_only_looked_at() {
    let name = unique("rights");
    let _user = user_until_end(&name);
    let _database = at_end([format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")]);
    let (sink, admin) = without_rights(&name).await;
    let mut locker = locker(&admin.pg_pool().connect_options(), "UPDATE t SET note = 'locked' WHERE id = 1").await;
    let warnings = Warnings::of("batchsql_postgres");
    let guard = batchsql_testserver::subscribe(warnings.clone());
    let session = give_up(&sink, &admin, &name).await.unwrap();
    for _ in 0..2 {
        assert_eq!(end(&sink, &session).await, SessionEnd::Impossible);
    }
    drop(guard);
    let warnings = warnings.taken();
    assert!(warnings.len() == 1 && warnings[0].contains("grant EXECUTE on pg_terminate_backend"), "{warnings:?}");
    assert_eq!(read(&admin, &waiting(&name)).await, ["1"]);
    // It ends by itself, and this is detected.
    locker.execute("ROLLBACK").await.unwrap();
    until(&admin, &active(&name), "0").await;
    assert_eq!(end(&sink, &session).await, SessionEnd::Ended);
}

#[tokio::test]
async fn a_session_that_is_hidden_from_its_user_has_no_name() {
    let (user, other) = (unique("user"), unique("other"));
    let _user = user_until_end(&user);
    let _other = user_until_end(&other);
    let admin = fresh(&format!("CREATE USER {other}; CREATE USER {user} PASSWORD 'x' IN ROLE {other}")).await;
    let options = (*admin.pg_pool().connect_options()).clone().username(&user).password("x");
    let as_other = format!("SET ROLE {other}");
    let pool = PgPoolOptions::new().after_connect(move |conn, _| {
        let as_other = as_other.clone();
        Box::pin(async move { conn.execute(&*as_other).await.map(drop) })
    });
    let sink = PostgresSink::new(pool.connect_with(options).await.unwrap());
    let mut conn = sink.acquire().await.unwrap();
    let warnings = Warnings::of("batchsql_postgres");
    let _guard = batchsql_testserver::subscribe(warnings.clone());
    for _ in 0..2 {
        assert!(sink.session(&mut conn).await.unwrap().is_none());
    }
    let warnings = warnings.taken();
    assert!(warnings.len() == 1 && warnings[0].contains("pg_stat_activity"), "{warnings:?}");
    drop(conn);
    sink.pg_pool().close().await;
}

#[tokio::test]
async fn a_pooler_that_was_not_declared_is_found_out_before_anything_is_ended() {
    for settings in [&["default_pool_size=2"][..], &["default_pool_size=4", "server_round_robin=1"]] {
        let server = Server::start(Kind::PgBouncer, settings);
        let options: PgConnectOptions = server.dsn().parse().unwrap();
        // Without the startup parameter that it rejects, and without a hint that it is a pooler.
        let sink = users_pool(&options.extra_float_digits(None), 2).await;
        let warnings = Warnings::of("batchsql_postgres");
        let _guard = batchsql_testserver::subscribe(warnings.clone());
        let (mut one, mut two) = (sink.acquire().await.unwrap(), sink.acquire().await.unwrap());
        let _ = sink.session(&mut one).await;
        let _ = sink.session(&mut two).await;
        assert!(sink.session(&mut one).await.unwrap().is_none(), "{settings:?}");
        let warnings = warnings.taken();
        assert!(warnings.len() == 1 && warnings[0].contains("prepared_statements(false)"), "{warnings:?}");
    }
}

/// A commit that waits for a lock when row 1 is written: the only part of a transaction that can take effect late.
const SLOW_COMMIT: &str = "CREATE TABLE t (id bigint PRIMARY KEY, note text);
    CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF new.id = 1 THEN PERFORM pg_advisory_xact_lock_shared(tg_relid::bigint); END IF; RETURN new; END';
    CREATE CONSTRAINT TRIGGER waits AFTER INSERT OR UPDATE ON t DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION waits()";
const LOCK_COMMIT: &str = "SELECT pg_advisory_xact_lock('t'::regclass::bigint)";

#[tokio::test]
async fn behind_a_pooler_nothing_is_ended_and_the_lane_goes_on() {
    let server = Server::start(Kind::PgBouncer, &[]);
    let options: PostgresOptions = server.dsn().parse().unwrap();
    let sink = PostgresSink::with_options(&options.prepared_statements(false)).await.unwrap();
    execute(sink.pg_pool(), SLOW_COMMIT).await;
    let mut locker = locker(&sink.pg_pool().connect_options(), LOCK_COMMIT).await;
    let db = impatient(&sink, ONCE);
    let schema = schema(Conflict::replace(["id"]));
    assert_eq!(submit(&db, [row(&schema, 1, "v1")]).await, [OutcomeKind::Unknown]);
    assert_eq!(submit(&db, [row(&schema, 2, "v2")]).await, [OutcomeKind::Written]);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Lock'";
    assert_ne!(read(&sink, waiting).await, ["0"]);
    locker.execute("ROLLBACK").await.unwrap();
    db.close(HOUR).await;
}

/// A lane waits for the configured time.
#[tokio::test]
async fn where_no_session_can_be_ended_the_lane_waits_for_the_stated_time() {
    let dsn = fresh_dsn(SLOW_COMMIT).await;
    let admin = PostgresSink::connect(&dsn).await.unwrap();
    let options: PostgresOptions = dsn.parse().unwrap();
    let options = options.prepared_statements(false).late_write_limit(HOUR);
    let sink = PostgresSink::with_options(&options).await.unwrap();
    assert_eq!(sink.late_write_limit(), Some(HOUR));
    let mut locker = locker(&admin.pg_pool().connect_options(), LOCK_COMMIT).await;
    let db = impatient(&sink, ONCE);
    let schema = schema(Conflict::replace(["id"]));
    db.submit(&row(&schema, 1, "v1")).await.unwrap();
    let flushing = tokio::spawn({
        let db = db.clone();
        async move { db.flush().await }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
                 AND objid::bigint = 't'::regclass::bigint";
    until(&admin, waits, "1").await;
    let newer = db.submit_tracked(&row(&schema, 2, "v2")).await.unwrap();
    // Five times as long as an attempt may take. Only the deadline ends it.
    let report = db.close(Duration::from_secs(2)).await;
    let _ = flushing.await;
    assert!(!report.is_complete() && !in_time("an outcome", newer).await.is_written());
    assert_eq!(read(&admin, "SELECT count(*) FROM t WHERE id = 2").await, ["0"]);
    locker.execute("ROLLBACK").await.unwrap();
}
