//! Errors whose code is about a table or a right, but whose reason is the value of one row.

use std::time::Duration;

use batchsql_core::{Attempt, BatchSql, ColumnType, Conflict, ErrorClass, Outcome, PipelineConfig, Schema, Sink};
use batchsql_postgres::Strategy;
use batchsql_postgres::sqlx::postgres::PgConnectOptions;
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_testkit::{outcomes_of, receipts_of};
use batchsql_testserver::{Kind, dsn, unique};

use crate::support::{HOUR, at_end, fresh_dsn, outcomes, read, row, schema, values, with_strategy};

const ALL: [Strategy; 5] = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging];

/// A trigger that does something with each note.
fn triggered(body: &str) -> String {
    format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, note text);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.note <> 'good' THEN {body} END IF; RETURN new; END $$;
         CREATE TRIGGER f AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();"
    )
}

/// The table is unchanged, so no error says that it does not exist or has changed. The class is one that the pipeline
/// investigates, and the same for a single row.
#[tokio::test]
async fn a_code_of_the_table_that_a_trigger_raises_does_not_accuse_the_table() {
    let cases = [
        ("EXECUTE 'INSERT INTO nowhere VALUES (1)';", "42P01", ErrorClass::Schema),
        ("EXECUTE 'SELECT no_such_column FROM t';", "42703", ErrorClass::Schema),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = '42P01', TABLE = 't';", "42P01", ErrorClass::Schema),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = '42601';", "42601", ErrorClass::Schema),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = '42501';", "42501", ErrorClass::Permission),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = '55000';", "55000", ErrorClass::Schema),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = '3D000';", "3D000", ErrorClass::Schema),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = '0A000';", "0A000", ErrorClass::Schema),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = 'PT400';", "PT400", ErrorClass::Internal),
        ("RAISE EXCEPTION 'secret' USING ERRCODE = 'P0001';", "P0001", ErrorClass::Row),
    ];
    for (body, code, class) in cases {
        for strategy in ALL {
            let sink = with_strategy(&fresh_dsn(&triggered(body)).await, strategy).await;
            let schema = schema(Conflict::none());
            for bad in [5..6, 0..40] {
                let rows = bad.map(|id| row(&schema, id, if id == 5 { "bad" } else { "good" }));
                let batch = batchsql_testkit::batch_of(rows).await;
                let mut conn = sink.acquire().await.unwrap();
                let plan = sink.prepare(&mut conn, &schema).await.unwrap();
                let error = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err();
                assert_eq!((error.class(), error.code()), (class, Some(code)), "{body}: {error}, {strategy:?}");
                let text = error.to_string();
                for wrong in ["does not exist", "has changed", "secret", "grant it", "check its name"] {
                    assert!(!text.contains(wrong), "{body}: {text}, {strategy:?}");
                }
                // The connection and the plan are still usable.
                let good = batchsql_testkit::batch_of([row(&schema, 1_000, "good")]).await;
                sink.write(&mut conn, &plan, good.rows(), &Attempt::new(false)).await.unwrap();
                drop(conn);
                assert_eq!(read(&sink, "SELECT id FROM t").await, ["1000"], "{body}, {strategy:?}");
                read(&sink, "TRUNCATE t").await;
            }
        }
    }
}

/// Types whose input function returns a code of the table: a syntax error, or a name that does not exist.
const ACCUSING: [(&str, &str, &str, &str); 5] = [
    ("public.ltree", "a.b", "a..b", "42601"),
    ("tsquery", "a & b", "a &", "42601"),
    ("jsonpath", "$.a", "$.a[", "42601"),
    ("regclass", "pg_class", "nowhere", "42P01"),
    ("regtype", "text", "nowhere", "42704"),
];

#[tokio::test]
async fn an_input_function_with_a_code_of_the_table_does_not_accuse_the_table() {
    let strategies = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging];
    for ((ty, good, bad, code), strategy) in ACCUSING.into_iter().flat_map(|case| strategies.map(|way| (case, way))) {
        let table = format!(
            "CREATE EXTENSION IF NOT EXISTS ltree SCHEMA public; CREATE TABLE poison (id bigint PRIMARY KEY, path {ty})"
        );
        let sink = with_strategy(&fresh_dsn(&table).await, strategy).await;
        let schema = Schema::builder("poison").column("id", ColumnType::I64).column("path", ColumnType::Text);
        let schema = schema.build().unwrap();
        let path = |id: i64| values(&schema, [id.into(), if id == 3 { bad } else { good }.into()]);
        for rows in [3..4, 0..40] {
            let batch = batchsql_testkit::batch_of(rows.map(path)).await;
            let mut conn = sink.acquire().await.unwrap();
            let plan = sink.prepare(&mut conn, &schema).await.unwrap();
            let error = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err();
            assert_eq!((error.class(), error.code()), (ErrorClass::Schema, Some(code)), "{ty}: {error}, {strategy:?}");
            let text = error.to_string();
            assert!(text.contains("a value, a trigger or a function of the table"), "{ty}: {text}");
            assert!(!text.contains("does not exist") && !text.contains(bad), "{ty}: {text}");
            let good = batchsql_testkit::batch_of((100..140).map(path)).await;
            sink.write(&mut conn, &plan, good.rows(), &Attempt::new(false)).await.unwrap();
            drop(conn);
            assert_eq!(read(&sink, "SELECT count(*) FROM poison").await, ["40"], "{ty} {strategy:?}");
            read(&sink, "TRUNCATE poison").await;
        }
    }
}

/// A table that refuses a row, and is repaired before it is looked at: here a sequence counts the tries, which a rollback does not
/// undo. The row is good, so it is written.
#[tokio::test]
async fn a_row_that_a_repaired_table_refused_is_written() {
    for (code, strategy) in ["22003", "23502"].into_iter().flat_map(|code| ALL.map(|strategy| (code, strategy))) {
        let tables = format!(
            "CREATE SEQUENCE tries; {}",
            triggered(&format!(
                "IF nextval('tries') % 2 = 1 THEN RAISE EXCEPTION 'broken' USING ERRCODE = '{code}'; END IF;"
            ))
        );
        let sink = with_strategy(&fresh_dsn(&tables).await, strategy).await;
        let schema = schema(Conflict::none());
        let batch = batchsql_testkit::batch_of([row(&schema, 1, "note")]).await;
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, &schema).await.unwrap();
        let written = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await;
        assert!(written.is_ok_and(|written| written.rejected.is_empty()), "{code} {strategy:?}");
        drop(conn);
        assert_eq!(read(&sink, "SELECT id, note FROM t").await, ["1|note"], "{code} {strategy:?}");
        assert_eq!(read(&sink, "SELECT last_value FROM tries").await, ["2"], "{code} {strategy:?}");
        // A row that is refused again is at fault.
        let plain = format!(
            "CREATE OR REPLACE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$"
        );
        read(&sink, &plain).await;
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, &schema).await.unwrap();
        let bad = batchsql_testkit::batch_of([row(&schema, 2, "note")]).await;
        let error = sink.write(&mut conn, &plan, bad.rows(), &Attempt::new(false)).await.unwrap_err();
        assert_eq!((error.class(), error.code()), (ErrorClass::Row, Some(code)), "{error}, {strategy:?}");
    }
}

/// Each row refers to the next one, so they can be written only together. Rows that are bad for another reason do not take them along, and
/// a row is rejected whose reference nobody writes.
#[tokio::test]
async fn rows_that_refer_to_each_other_survive_a_bad_row() {
    for (deferred, strategy) in ["", "DEFERRABLE INITIALLY DEFERRED"].into_iter().flat_map(|d| ALL.map(|way| (d, way)))
    {
        let table = format!(
            "CREATE TABLE nodes (id bigint PRIMARY KEY, next bigint REFERENCES nodes {deferred}, n bigint CHECK (n >= 0))"
        );
        let sink = with_strategy(&fresh_dsn(&table).await, strategy).await;
        let schema = Schema::builder("nodes").column("id", ColumnType::I64).nullable("next", ColumnType::I64);
        let schema = schema.column("n", ColumnType::I64).build().unwrap();
        let row = |id: i64, next: Option<i64>, n: i64| {
            values(&schema, [id.into(), next.map_or(batchsql_core::Value::Null, Into::into), n.into()])
        };
        // 300 and 301 refer to a row that does not exist; 70 and 71 are bad.
        let chain = (0..60).map(|id| row(id, (id < 59).then_some(id + 1), 1));
        let mut rows: Vec<_> = chain.collect();
        rows.insert(20, row(70, None, -1));
        rows.insert(45, row(71, None, -1));
        rows.insert(30, row(300, Some(301), 1));
        rows.insert(10, row(301, Some(999), 1));
        let config = batchsql_core::PipelineConfig::default().flush_interval(crate::support::HOUR);
        let db = batchsql_core::BatchSql::builder(sink.clone()).config(config).start().unwrap();
        let outcomes = crate::support::outcomes_by(&db, rows).await;
        let refused = outcomes.iter().filter_map(|outcome| outcome.failure()).map(|failed| failed.code());
        let mut refused: Vec<_> = refused.flatten().collect();
        refused.sort_unstable();
        assert_eq!(refused, ["23503", "23503", "23514", "23514"], "{deferred} {strategy:?}");
        assert_eq!(read(&sink, "SELECT count(*) FROM nodes WHERE id < 60").await, ["60"], "{deferred} {strategy:?}");
    }
}

/// Rows of a rule do not wait for each other: in order, a row finds an earlier one beside a bad row, and a circle needs its batch whole.
#[tokio::test]
async fn rows_of_a_rule_find_earlier_rows_and_circles_need_their_batch_whole() {
    let table = "CREATE TABLE nodes (id bigint PRIMARY KEY, next bigint REFERENCES nodes, n bigint CHECK (n >= 0))";
    let sink = with_strategy(&fresh_dsn(table).await, Strategy::Auto).await;
    let schema = Schema::builder("nodes").column("id", ColumnType::I64).nullable("next", ColumnType::I64);
    let schema = schema.column("n", ColumnType::I64).on_conflict(Conflict::update(["id"])).build().unwrap();
    let row = |(id, next, n): (i64, Option<i64>, i64)| {
        values(&schema, [id.into(), next.map_or(batchsql_core::Value::Null, Into::into), n.into()])
    };
    let check = async |rows: &[(i64, Option<i64>, i64)], expected: &[Option<&str>]| {
        let outcomes = outcomes(&sink, rows.iter().copied().map(row)).await;
        let codes: Vec<_> =
            outcomes.iter().map(|outcome| outcome.failure().map(|failed| failed.code().unwrap_or_default())).collect();
        assert_eq!(codes, expected, "{rows:?}");
    };
    check(&[(9, None, 1), (8, Some(9), 1), (7, None, -1), (6, Some(8), 1)], &[None, None, Some("23514"), None]).await;
    check(&[(10, Some(11), 1), (11, Some(10), 1)], &[None, None]).await;
    let bad = Some("23503");
    check(&[(20, Some(21), 1), (30, None, -1), (21, Some(20), 1)], &[bad, Some("23514"), bad]).await;
}

/// The codes of sessions, transactions, prepared statements, poolers, shutdowns, locks and resources.
const FOREIGN: [&str; 26] = [
    "26000", "42P05", "57P01", "57P02", "57P03", "57P04", "57014", "08000", "08003", "08006", "08007", "08P01",
    "25P01", "25P02", "25P03", "25006", "40001", "40P01", "40003", "53000", "53100", "53200", "53300", "55P03",
    "55006", "58030",
];

const RAISE: &str = "RAISE EXCEPTION 'secret' USING ERRCODE = new.note";

/// A row of 200 is refused by a trigger with each of the codes, in a pipeline of its own: nothing else is written.
async fn check_foreign(conflict: Conflict, strategy: Strategy, constraint: &str, (codes, raise): (&[&str], &str)) {
    let timing = if constraint.is_empty() { "" } else { "DEFERRABLE INITIALLY DEFERRED" };
    let table = format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, note text);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.note <> 'good' THEN {raise}; END IF; RETURN new; END $$;
         CREATE {constraint} TRIGGER f AFTER INSERT ON t {timing} FOR EACH ROW EXECUTE FUNCTION f();"
    );
    let sink = with_strategy(&fresh_dsn(&table).await, strategy).await;
    let schema = schema(conflict.clone());
    let config = PipelineConfig::default().flush_interval(HOUR).flush_size(200).retry_for(Duration::from_secs(40));
    let mut checks = Vec::new();
    for (first, code) in (0..).step_by(1_000).zip(codes) {
        let db = BatchSql::builder(sink.clone()).config(config.clone()).start().unwrap();
        let rows = (0..200).map(|id| row(&schema, first + id, if id == 117 { *code } else { "good" }));
        let receipts = receipts_of(&db, rows).await;
        let flushed = tokio::spawn({
            let db = db.clone();
            async move { db.flush().await.unwrap() }
        });
        checks.push((code, receipts, db, flushed));
    }
    for (code, receipts, db, flushed) in checks {
        let what = format!("{code} {conflict:?} {strategy:?} {constraint}");
        for (id, outcome) in outcomes_of(receipts).await.into_iter().enumerate() {
            if id != 117 {
                assert!(outcome.is_written(), "{what}, row {id}: {outcome:?}");
                continue;
            }
            assert!(matches!(outcome, Outcome::Expired(_) | Outcome::Rejected(_)), "{what}: {outcome:?}");
            let failed = outcome.failure().unwrap();
            assert_eq!(failed.code(), Some(*code), "{what}: {outcome:?}");
            let text = failed.error().unwrap().to_string();
            assert!(!text.contains("secret") && !text.contains("prepared_statements"), "{text}");
        }
        assert!(db.health().parked.is_empty(), "{what}");
        flushed.await.unwrap();
        db.close(HOUR).await;
    }
    let (written, all) = (199 * codes.len(), read(&sink, "SELECT count(*) FROM t").await);
    assert_eq!(all, [written.to_string()], "{conflict:?} {strategy:?} {constraint}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_the_session_that_a_trigger_raises_takes_no_other_row() {
    tokio::join!(
        check_foreign(Conflict::none(), Strategy::Auto, "", (&FOREIGN, RAISE)),
        check_foreign(Conflict::none(), Strategy::Staging, "CONSTRAINT", (&FOREIGN, RAISE)),
        check_foreign(Conflict::update(["id"]), Strategy::Unnest, "CONSTRAINT", (&FOREIGN, RAISE)),
        check_foreign(Conflict::update(["id"]), Strategy::MultiValues, "", (&FOREIGN, RAISE)),
    );
}

/// Each code comes from a statement on another server.
#[tokio::test(flavor = "multi_thread")]
async fn a_code_of_the_session_that_another_server_raises_takes_no_other_row() {
    let server = dsn(Kind::Postgres);
    let mut conn = PgConnection::connect(&server).await.unwrap();
    if let Err(error) = conn.execute("CREATE EXTENSION IF NOT EXISTS dblink SCHEMA public").await {
        eprintln!("this server has no extension dblink ({error}); nothing was tested");
        return;
    }
    let raise = format!(
        "PERFORM public.dblink_exec('{server}', format('DO $x$ BEGIN RAISE EXCEPTION ''secret'' USING ERRCODE = %L; END $x$', new.note))"
    );
    let codes = ["08007", "40003", "57P01", "26000", "08006", "25P02"];
    tokio::join!(
        check_foreign(Conflict::none(), Strategy::Auto, "", (&codes, &raise)),
        check_foreign(Conflict::update(["id"]), Strategy::Unnest, "", (&codes, &raise)),
    );
}

/// A foreign partition is committed by its server, before the transaction here. A constraint there raises the code at its COMMIT.
#[tokio::test]
async fn what_the_server_of_a_partition_does_not_know_of_its_commit_is_unknown() {
    let server = dsn(Kind::Postgres);
    let mut conn = PgConnection::connect(&server).await.unwrap();
    if let Err(error) = conn.execute("CREATE EXTENSION IF NOT EXISTS postgres_fdw SCHEMA public").await {
        eprintln!("this server has no extension postgres_fdw ({error}); nothing was tested");
        return;
    }
    let options: PgConnectOptions = server.parse().unwrap();
    let login = server.split_once("://").unwrap().1.split_once('@').unwrap().0;
    let name = unique("far");
    let _dropped = at_end([format!("DROP SERVER IF EXISTS {name} CASCADE")]);
    let sql = format!(
        "CREATE SERVER {name} FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '{}', port '{}', dbname '{}');
         CREATE USER MAPPING FOR CURRENT_USER SERVER {name} OPTIONS (user '{}', password '{}');
         CREATE TABLE there (id bigint, note text);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE EXCEPTION 'secret' USING ERRCODE = new.note; END $$;
         CREATE CONSTRAINT TRIGGER f AFTER INSERT ON there DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TABLE t (id bigint, note text) PARTITION BY RANGE (id);
         CREATE TABLE near PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE FOREIGN TABLE far PARTITION OF t FOR VALUES FROM (10) TO (20) SERVER {name} OPTIONS (table_name 'there')",
        options.get_host(),
        options.get_port(),
        options.get_database().unwrap(),
        options.get_username(),
        login.split_once(':').map_or("", |(_, password)| password),
    );
    let dsn = fresh_dsn(&sql).await;
    let codes = [
        ("08007", ErrorClass::Unknown),
        ("40003", ErrorClass::Unknown),
        ("08006", ErrorClass::Unknown),
        ("40001", ErrorClass::Transient),
    ];
    for strategy in [Strategy::Unnest, Strategy::MultiValues, Strategy::Copy] {
        let sink = with_strategy(&dsn, strategy).await;
        let schema = schema(Conflict::none());
        for (code, class) in codes {
            let batch = batchsql_testkit::batch_of([row(&schema, 1, "a"), row(&schema, 11, code)]).await;
            let mut conn = sink.acquire().await.unwrap();
            let plan = sink.prepare(&mut conn, &schema).await.unwrap();
            let error = sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err();
            assert_eq!((error.class(), error.code()), (class, Some(code)), "{strategy:?} {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
        assert_eq!(read(&sink, "SELECT count(*) FROM near").await, ["0"]);
    }
}
