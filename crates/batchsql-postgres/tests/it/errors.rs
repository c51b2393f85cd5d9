//! Every error of a server, provoked, and the outcomes of the rows.

use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, ErrorClass, Isolation, Outcome, PipelineConfig, Schema, Sink, SinkError, Value,
};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};

use crate::support::{
    HOUR, at_end, batch_of, execute, fresh, fresh_dsn, outcomes, outcomes_by, read, row, schema, user_until_end,
    values, with_parameter, with_strategy,
};

const ALL: [Strategy; 5] = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging];

#[tokio::test]
async fn each_kind_of_constraint_rejects_exactly_its_rows_with_its_code() {
    let table = "CREATE TABLE parents (id bigint PRIMARY KEY); INSERT INTO parents VALUES (1);
         CREATE TABLE t (id bigint PRIMARY KEY, note text NOT NULL CHECK (note <> 'secret check'), u bigint UNIQUE,
                         parent bigint NOT NULL REFERENCES parents, span int4range,
                         EXCLUDE USING gist (span WITH &&));
         INSERT INTO t VALUES (-1, 'old', -7, 1, '[0,2)');
         CREATE FUNCTION raises() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.note = 'secret raise' THEN
                 RAISE EXCEPTION 'secret of %', new USING ERRCODE = '23505', CONSTRAINT = new.note, DETAIL = new.note;
             END IF; RETURN new; END $$;
         CREATE TRIGGER raises AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION raises();";
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .column("u", ColumnType::I64)
        .column("parent", ColumnType::I64)
        .nullable("span", ColumnType::Text)
        .build()
        .unwrap();
    // At both ends of the batch, alone and side by side.
    let bad = |n: i64| match n {
        0 | 150 => Some(("23502", "column \"note\"")),
        1 | 149 => Some(("23514", "constraint \"t_note_check\"")),
        2 | 198 => Some(("23505", "constraint \"t_u_key\"")),
        99 => Some(("23503", "constraint \"t_parent_fkey\"")),
        100 => Some(("23505", "a unique key is violated")),
        70 | 199 => Some(("23505", "constraint \"t_pkey\"")),
        71 => Some(("23P01", "constraint \"t_span_excl\"")),
        72 => Some(("22P02", "not valid for the type of its column, column \"span\"")),
        _ => None,
    };
    for strategy in [Strategy::Auto, Strategy::MultiValues, Strategy::Staging] {
        let sink = with_strategy(&fresh_dsn(table).await, strategy).await;
        let rows = (0..200_i64).map(|n| {
            let note = match n {
                0 | 150 => Value::Null,
                1 | 149 => "secret check".into(),
                100 => "secret raise".into(),
                _ => "good".into(),
            };
            // A key of the same batch, or the one that existed before.
            let id = if n == 70 {
                -1
            } else if n == 199 {
                10
            } else {
                n
            };
            let u = if n == 2 {
                -7
            } else if n == 198 {
                20
            } else {
                n
            };
            let parent = if n == 99 { 2_i64 } else { 1 };
            let span = match n {
                71 => "[1,2)".into(),
                72 => "secret span".into(),
                _ => Value::Null,
            };
            values(&schema, [id.into(), note, u.into(), parent.into(), span])
        });
        for (n, outcome) in (0..).zip(outcomes(&sink, rows).await) {
            match (outcome, bad(n)) {
                (Outcome::Written, None) => {}
                (Outcome::Rejected(failed), Some((code, part))) => {
                    let told = (failed.class(), failed.code());
                    assert_eq!(told, (Some(ErrorClass::Row), Some(code)), "{n} {strategy:?}");
                    let error = failed.error().unwrap();
                    assert!(error.to_string().contains(part), "{error} does not contain {part}");
                    assert!(!shown(error).contains("secret"), "{}", shown(error));
                }
                (other, expected) => panic!("row {n}: {other:?}, not {expected:?}, {strategy:?}"),
            }
        }
        let good = read(&sink, "SELECT count(*) FROM t WHERE note = 'good' AND id = u AND parent = 1").await;
        assert_eq!((&*good[0], &*read(&sink, "SELECT count(*) FROM t").await[0]), ("188", "189"), "{strategy:?}");
    }
}

/// Everything that an error shows, and its sources.
fn shown(error: &SinkError) -> String {
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text += &format!(" {error} {error:?}");
        source = error.source();
    }
    text
}

#[tokio::test]
async fn deferred_constraints_that_fail_at_the_commit_are_isolated() {
    let table = "CREATE TABLE parents (id bigint PRIMARY KEY); INSERT INTO parents VALUES (1);
                 CREATE TABLE t (id bigint PRIMARY KEY,
                                 parent bigint REFERENCES parents DEFERRABLE INITIALLY DEFERRED)";
    for strategy in ALL {
        let sink = with_strategy(&fresh_dsn(table).await, strategy).await;
        let schema = Schema::builder("t").column("id", ColumnType::I64).column("parent", ColumnType::I64);
        let schema = schema.build().unwrap();
        let rows = (0..30_i64).map(|id| values(&schema, [id.into(), if id == 7 { 2_i64 } else { 1 }.into()]));
        for (id, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
            let code = outcome.failure().and_then(|failed| failed.code());
            assert_eq!(code, (id == 7).then_some("23503"), "row {id}, {strategy:?}");
        }
        assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["29"], "{strategy:?}");
    }
}

#[tokio::test]
async fn text_that_the_database_cannot_encode_rejects_its_row() {
    let name = batchsql_testserver::unique("latin");
    let _database = at_end([format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")]);
    let admin = fresh("").await;
    let create = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    execute(admin.pg_pool(), &create).await;
    for strategy in ALL {
        let options = (*admin.pg_pool().connect_options()).clone().database(&name).options([("search_path", "public")]);
        let sink = PostgresSink::with_options(&PostgresOptions::from_connect_options(options).strategy(strategy)).await;
        let sink = sink.unwrap();
        execute(sink.pg_pool(), "CREATE TABLE t (id bigint, note text)").await;
        let schema = schema(Conflict::none());
        let rows = (0..30).map(|id| row(&schema, id, if id == 9 { "事件" } else { "é" }));
        for (id, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
            let failed = outcome.failure().map(|failed| (failed.class(), failed.code()));
            assert_eq!(failed, (id == 9).then_some((Some(ErrorClass::Row), Some("22P05"))), "row {id}, {strategy:?}");
        }
        assert_eq!(read(&sink, "SELECT count(*), min(note) FROM t").await, ["29|é"], "{strategy:?}");
        execute(sink.pg_pool(), "DROP TABLE t").await;
        sink.pg_pool().close().await;
    }
}

#[tokio::test]
async fn an_index_entry_that_is_too_large_rejects_its_row() {
    let sink = fresh("CREATE TABLE t (id bigint, note text); CREATE INDEX ON t (note)").await;
    let schema = schema(Conflict::none());
    // Not compressible to the 2704 bytes that an entry may have.
    let mut seed = 1_u64;
    let noise: String = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (seed >> 58) as u8)
    })
    .take(20_000)
    .collect();
    let rows = (0..60).map(|id| row(&schema, id, if id == 31 { noise.as_str() } else { "short" }));
    for (id, outcome) in outcomes(&sink, rows).await.iter().enumerate() {
        let failed = outcome.failure().map(|failed| (failed.class(), failed.code()));
        assert_eq!(failed, (id == 31).then_some((Some(ErrorClass::Size), Some("54000"))), "row {id}");
    }
    assert_eq!(read(&sink, "SELECT count(*) FROM t").await, ["59"]);
}

/// A separate connection that holds a lock.
async fn other(sink: &PostgresSink, sql: &str) -> PgConnection {
    let options = (*sink.pg_pool().connect_options()).clone();
    let mut conn = PgConnection::connect_with(&options).await.unwrap();
    conn.execute(sql).await.unwrap();
    conn
}

/// Writes directly through the sink, without a pipeline that retries.
async fn error_of_write(sink: &PostgresSink, schema: &Schema, ids: std::ops::Range<i64>) -> SinkError {
    let batch = batch_of(schema, ids).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, schema).await.unwrap();
    let attempt = batchsql_core::Attempt::new(false);
    let error = sink.write(&mut conn, &plan, batch.rows(), &attempt).await.unwrap_err();
    // The connection is still usable: no transaction is open on it.
    drop(conn);
    assert_eq!(read(sink, "SELECT now() = statement_timestamp()").await, ["t"]);
    error
}

#[tokio::test]
async fn what_passes_is_transient_and_leaves_no_transaction() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'old')").await;
    let schema = schema(Conflict::replace(["id"]));
    for strategy in [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging] {
        let check = async |setting: &str, code: &str| {
            let dsn = with_parameter(&dsn, setting);
            let sink = with_strategy(&dsn, strategy).await;
            let _lock = other(&sink, "BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE").await;
            let error = error_of_write(&sink, &schema, 0..10).await;
            assert_eq!((error.class(), error.code()), (ErrorClass::Transient, Some(code)), "{error}, {strategy:?}");
        };
        check("options[lock_timeout]=50ms", "55P03").await;
        check("options[statement_timeout]=100ms", "57014").await;
    }
    let sink = with_strategy(&dsn, Strategy::Auto).await;
    assert_eq!(read(&sink, "SELECT * FROM t").await, ["1|old"]);
}

/// Waits until a session with this name waits for a lock of this type.
async fn until_it_waits(admin: &PostgresSink, name: &str, lock: &str) {
    let waits = format!(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
         WHERE application_name = '{name}' AND locktype = '{lock}' AND NOT granted"
    );
    while read(admin, &waits).await != ["1"] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The batch holds row 0 and waits at a gate before row 1. It checks for a deadlock once, so the other session
/// must wait for row 0 before the gate opens.
#[tokio::test]
async fn a_deadlock_is_transient_and_both_batches_are_written_in_the_end() {
    let (ours, others) = (batchsql_testserver::unique("ours"), batchsql_testserver::unique("others"));
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, note text);
         CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF new.id = 1 THEN PERFORM pg_advisory_xact_lock_shared(tg_relid::bigint); END IF; RETURN new; END';
         CREATE TRIGGER gate BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION gate()";
    let dsn = fresh_dsn(table).await;
    let admin = with_strategy(&dsn, Strategy::Auto).await;
    let sink = with_parameter(&dsn, &format!("application_name={ours}&options[deadlock_timeout]=50ms"));
    let sink = with_strategy(&sink, Strategy::Auto).await;
    let schema = schema(Conflict::replace(["id"]));
    assert!(outcomes(&sink, (0..2).map(|id| row(&schema, id, "a"))).await.iter().all(Outcome::is_written));
    let mut gate = other(&admin, "BEGIN; SELECT pg_advisory_xact_lock('t'::regclass::bigint)").await;
    // The other one locks them in the other order, and waits longer before it checks for a deadlock.
    let begin = format!("SET deadlock_timeout = '1h'; SET application_name = {others}; BEGIN;");
    let mut conn = other(&admin, &format!("{begin} UPDATE t SET note = 'b' WHERE id = 1")).await;
    let write = tokio::spawn({
        let (sink, schema) = (sink.clone(), schema.clone());
        async move { error_of_write(&sink, &schema, 0..2).await }
    });
    until_it_waits(&admin, &ours, "advisory").await;
    let update =
        tokio::spawn(async move { conn.execute("UPDATE t SET note = 'b' WHERE id = 0; COMMIT").await.map(drop) });
    until_it_waits(&admin, &others, "transactionid").await;
    gate.execute("COMMIT").await.unwrap();
    let error = write.await.unwrap();
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, Some("40P01")), "{error}");
    update.await.unwrap().unwrap();
    assert!(outcomes(&sink, (0..2).map(|id| row(&schema, id, "c"))).await.iter().all(Outcome::is_written));
}

#[tokio::test]
async fn a_serialization_failure_is_transient() {
    let name = batchsql_testserver::unique("serialized");
    let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (1, 'old')").await;
    let admin = with_strategy(&dsn, Strategy::Auto).await;
    let ours = with_parameter(&dsn, &format!("application_name={name}"));
    let ours = with_parameter(&ours, "options[default_transaction_isolation]=repeatable%5C%20read");
    let sink = with_strategy(&ours, Strategy::Unnest).await;
    let schema = schema(Conflict::replace(["id"]));
    let mut conn = other(&admin, "BEGIN; UPDATE t SET note = 'b' WHERE id = 1").await;
    let write = tokio::spawn({
        let (sink, schema) = (sink.clone(), schema.clone());
        async move { error_of_write(&sink, &schema, 0..2).await }
    });
    until_it_waits(&admin, &name, "transactionid").await;
    conn.execute("COMMIT").await.unwrap();
    let error = write.await.unwrap();
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, Some("40001")), "{error}");
}

#[tokio::test]
async fn a_read_only_server_is_a_resource_that_comes_back() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY, note text)").await;
    for strategy in ALL {
        let sink = with_strategy(&with_parameter(&dsn, "options[default_transaction_read_only]=on"), strategy).await;
        let error = error_of_write(&sink, &schema(Conflict::none()), 0..30).await;
        assert_eq!((error.class(), error.code()), (ErrorClass::Resource, Some("25006")), "{error}, {strategy:?}");
    }
}

#[tokio::test]
async fn tables_and_columns_that_go_are_schema_errors_and_rights_that_go_are_permission_errors() {
    let user = batchsql_testserver::unique("user");
    let _user = user_until_end(&user);
    let admin = fresh(&format!("CREATE USER {user} PASSWORD 'x'")).await;
    execute(
        admin.pg_pool(),
        &format!("DO $$ BEGIN EXECUTE format('GRANT ALL ON SCHEMA %I TO {user}', current_schema); END $$"),
    )
    .await;
    let schema = schema(Conflict::none());
    for strategy in ALL {
        let options = (*admin.pg_pool().connect_options()).clone().username(&user).password("x");
        let sink = PostgresSink::with_options(&PostgresOptions::from_connect_options(options).strategy(strategy)).await;
        let sink = sink.unwrap();
        let check = async |change: &str, class, code: &str| {
            let again =
                format!("DROP TABLE IF EXISTS t; CREATE TABLE t (id bigint, note text); GRANT ALL ON t TO {user}");
            execute(admin.pg_pool(), &again).await;
            let batch = batch_of(&schema, 0..30).await;
            let mut conn = sink.acquire().await.unwrap();
            let plan = sink.prepare(&mut conn, &schema).await.unwrap();
            execute(admin.pg_pool(), change).await;
            let attempt = batchsql_core::Attempt::new(false);
            let error = sink.write(&mut conn, &plan, batch.rows(), &attempt).await.unwrap_err();
            assert_eq!((error.class(), error.code()), (class, Some(code)), "{change}: {error}, {strategy:?}");
            // The same connection is still usable, and at least reports that a new plan is needed.
            let error = sink.write(&mut conn, &plan, batch.rows(), &attempt).await.unwrap_err();
            let classes = [class, ErrorClass::Schema];
            assert!(classes.contains(&error.class()), "{change}: {error}, {strategy:?}");
            let again = sink.prepare(&mut conn, &schema).await.map(drop);
            assert_eq!(again.unwrap_err().class(), class, "{change}, {strategy:?}");
        };
        check("DROP TABLE t", ErrorClass::Schema, "42P01").await;
        check("ALTER TABLE t DROP note", ErrorClass::Schema, "42703").await;
        check(&format!("REVOKE INSERT ON t FROM {user}"), ErrorClass::Permission, "42501").await;
        check("ALTER TABLE t ADD more bigint NOT NULL", ErrorClass::Schema, "23502").await;
        sink.pg_pool().close().await;
    }
}

#[tokio::test]
async fn an_atomic_batch_is_written_whole_or_not_at_all() {
    for strategy in ALL {
        let table = "CREATE TABLE t (id bigint PRIMARY KEY, note text); INSERT INTO t VALUES (5, 'old')";
        let sink = with_strategy(&fresh_dsn(table).await, strategy).await;
        let config = PipelineConfig::default().isolation(Isolation::AtomicBatch).flush_interval(HOUR);
        let db = BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let schema = schema(Conflict::none());
        for outcome in outcomes_by(&db, (0..10).map(|id| row(&schema, id, "new"))).await {
            assert_eq!(outcome.failure().and_then(|failed| failed.code()), Some("23505"), "{strategy:?}");
        }
        assert_eq!(read(&sink, "SELECT * FROM t").await, ["5|old"], "{strategy:?}");
    }
}

/// XX000: often a short race, or a value that an extension cannot read.
#[tokio::test]
async fn what_the_server_did_not_foresee_is_tried_again_before_a_row_is_blamed() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, note text); CREATE SEQUENCE calls;
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.id = 7 OR new.id = 100 AND nextval('calls') = 1 THEN
                 RAISE EXCEPTION 'unforeseen' USING ERRCODE = 'XX000';
             END IF; RETURN new; END $$;
         CREATE TRIGGER f AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";
    for strategy in ALL {
        let sink = with_strategy(&fresh_dsn(table).await, strategy).await;
        let schema = schema(Conflict::none());
        assert!(outcomes(&sink, [row(&schema, 100, "a")]).await[0].is_written(), "{strategy:?}");
        for (id, outcome) in outcomes(&sink, (0..30).map(|id| row(&schema, id, "a"))).await.iter().enumerate() {
            let code = outcome.failure().and_then(|failed| failed.code());
            assert_eq!(code, (id == 7).then_some("XX000"), "row {id}, {strategy:?}");
        }
    }
}
