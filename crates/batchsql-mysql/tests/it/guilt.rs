//! Attribution of errors: an error that one row causes is an error of that row, and no message contains its
//! values.

use std::error::Error as _;
use std::time::Duration;

use batchsql_core::{BatchSql, ColumnType, Conflict, DynRow, ErrorClass, Outcome, Schema, SinkError, Value};

use batchsql_mysql::MySqlSink;
use batchsql_testkit::{outcomes_of, receipts_of};
use batchsql_testserver::{Kind, Server};

use crate::support::{Database, outcomes, pipeline, row, schema, submitted, write, written};

const TRIGGER: &str = "CREATE TABLE parents (id BIGINT PRIMARY KEY);
    CREATE TABLE audit (id BIGINT PRIMARY KEY);
    INSERT INTO audit VALUES (1), (2);
    CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(60));
    CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW BEGIN
        DECLARE found BIGINT;
        CASE NEW.note
            WHEN 'many' THEN SET found = (SELECT id FROM audit);
            WHEN 'many into' THEN SELECT id INTO found FROM audit;
            WHEN 'no case' THEN CASE NEW.id WHEN -1 THEN SET found = 1; END CASE;
            WHEN 'overflow' THEN SET found = EXP(10000);
            WHEN 'no data' THEN BEGIN
                DECLARE none CURSOR FOR SELECT id FROM audit WHERE id < 0;
                OPEN none; FETCH none INTO found;
            END;
            WHEN 'raised' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'canary', MYSQL_ERRNO = 1146;
            WHEN 'raised transient' THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1213;
            WHEN 'raised duplicate' THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 1062;
            WHEN 'raised lost' THEN SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 2013;
            WHEN 'audited' THEN INSERT INTO audit VALUES (1);
            WHEN 'missing' THEN INSERT INTO missing VALUES (1);
            ELSE SET found = 0;
        END CASE;
    END";

#[tokio::test]
async fn what_a_trigger_makes_of_one_row_is_an_error_of_that_row() {
    let db = Database::new(TRIGGER).await;
    let bad = [
        (3, "many", "1242"),
        (10, "many into", "1172"),
        (11, "no case", "1339"),
        (20, "overflow", "1690"),
        (30, "no data", "1329"),
        (40, "raised", "1146"),
        (41, "raised transient", "1213"),
        (42, "raised duplicate", "1062"),
        (59, "raised lost", "2013"),
    ];
    for conflict in [Conflict::none(), Conflict::update(["id"]), Conflict::ignore(["id"])] {
        let schema = schema(conflict);
        let note = |n: i64| bad.iter().find(|bad| bad.0 == n).map_or("good", |bad| bad.1);
        let outcomes = outcomes(&db.sink, (0..60).map(|n| row(&schema, n, note(n)))).await;
        for (n, outcome) in (0..).zip(outcomes) {
            match (outcome, bad.iter().find(|bad| bad.0 == n)) {
                (Outcome::Written, None) => {}
                (Outcome::Rejected(failed), Some((_, _, code))) => {
                    assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Row), Some(*code)), "{failed:?}");
                }
                (outcome, bad) => panic!("row {n}: {outcome:?}, not {bad:?}"),
            }
        }
        assert_eq!(db.read("SELECT COUNT(*) FROM t").await, ["51"]);
        db.run("DELETE FROM t").await;
    }
}

#[tokio::test]
async fn a_duplicate_in_a_table_of_a_trigger_is_no_reason_to_ignore_a_row() {
    let db = Database::new(TRIGGER).await;
    let schema = schema(Conflict::ignore(["id"]));
    // Row 5 has a duplicate in the table of the trigger, row 7 in the key, and row 9 in the further index.
    let note = |n: i64| match n {
        5 => "audited".to_owned(),
        9 => "there".to_owned(),
        n => format!("good {n}"),
    };
    for further in
        ["", "ALTER TABLE t ADD UNIQUE (note)", "ALTER TABLE audit DROP PRIMARY KEY, ADD UNIQUE only_here (id)"]
    {
        db.run(&format!("TRUNCATE t; INSERT INTO t VALUES (7, 'there'); {further}")).await;
        let has_index = !further.is_empty();
        let sink = MySqlSink::connect(&db.dsn).await.unwrap();
        for (n, outcome) in (0..).zip(outcomes(&sink, (0..20).map(|n| row(&schema, n, note(n)))).await) {
            match (n, outcome) {
                (5, Outcome::Rejected(failed)) => assert_eq!(failed.code(), Some("1062"), "{failed:?}"),
                (7, Outcome::Ignored) => {}
                (9, Outcome::Ignored) if has_index => {}
                (n, outcome) => {
                    let is_written = n != 5 && n != 7 && (n != 9 || !has_index) && outcome.is_written();
                    assert!(is_written, "row {n}: {outcome:?}, {further}");
                }
            }
        }
        assert_eq!(db.read("SELECT COUNT(*) FROM t").await, [if has_index { "18" } else { "19" }]);
    }
}

#[tokio::test]
async fn a_table_that_a_trigger_misses_is_not_said_to_be_the_table_of_the_rows() {
    let db = Database::new(TRIGGER).await;
    let schema = schema(Conflict::none());
    let rows = |note: &str| [row(&schema, 1, "good"), row(&schema, 2, note)];
    // The pipeline finds the row that causes the error; the table itself is valid.
    let error = written(&db.sink, rows("missing"), false).await.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Schema, Some("1146")));
    assert!(error.to_string().contains("or one that a trigger"), "{error}");
    pipeline(&db.sink).prepare(&schema).await.unwrap();
    assert!(written(&db.sink, rows("good"), false).await.is_ok());
}

#[tokio::test]
async fn rows_that_are_known_to_be_refused_keep_no_other_row_from_being_written() {
    let db = Database::with(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, code CHAR(5), price DECIMAL(8,2)); INSERT INTO t VALUES (7, 'a', 0)",
        "max_connections=1&values_in_text=never",
    )
    .await;
    let inserts = async || -> i64 {
        let rows = db.read("SHOW SESSION STATUS LIKE 'Com_insert'").await;
        rows[0].split_once('|').unwrap().1.parse().unwrap()
    };
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("code", ColumnType::Text)
        .nullable("price", ColumnType::Decimal)
        .on_conflict(Conflict::ignore(["id"]))
        .build()
        .unwrap();
    let price = |text: &str| Value::Decimal(text.parse().unwrap());
    let rows = || -> Vec<DynRow> {
        let values = |n: i64| match n {
            0 | 9 => ["a ".into(), price("1")],
            // Both are wrong, and one error is reported.
            5 => ["a ".into(), price("1.234")],
            8 => ["a".into(), price("0.001")],
            _ => ["a".into(), price("1.50")],
        };
        let row = |n: i64| std::iter::once(Value::I64(n)).chain(values(n));
        (0..10).map(|n| schema.row().set_all(row(n)).unwrap().finish().unwrap()).collect()
    };
    let error = written(&db.sink, rows(), true).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Row, "{error}");
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, ["1"]);
    let answer = written(&db.sink, rows(), false).await.unwrap();
    assert_eq!(answer.rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), [0, 5, 8, 9]);
    assert_eq!(answer.ignored, [7]);
    assert!(answer.rejected[0].1.to_string().contains("column \"code\" ends with a space"), "{answer:?}");
    assert_eq!(db.read("SELECT GROUP_CONCAT(id ORDER BY id) FROM t").await, ["1,2,3,4,6,7"]);
    // The other rows are one statement.
    db.run("DELETE FROM t").await;
    let before = inserts().await;
    assert_eq!(write(&db.sink, rows()).await.iter().filter(|name| **name == "rejected").count(), 4);
    assert_eq!(inserts().await - before, 1);
}

/// The full text of an error with its sources.
fn shown(error: &SinkError) -> String {
    let mut shown = format!("{error} {error:?}");
    let mut source = error.source();
    while let Some(error) = source {
        shown.push_str(&format!(" {error} {error:?}"));
        source = error.source();
    }
    shown
}

#[tokio::test]
async fn no_error_shows_a_value_of_a_row() {
    check_errors("values_in_text=never").await;
    check_errors("values_in_text=always").await;
}

async fn check_errors(parameters: &str) {
    const CANARY: &str = "canary4711";
    let db = Database::with(
        "CREATE TABLE parents (name VARCHAR(60) PRIMARY KEY);
         CREATE TABLE t (id BIGINT PRIMARY KEY, name VARCHAR(60) UNIQUE, fault VARCHAR(20), parent VARCHAR(60),
                         short VARCHAR(3), small TINYINT, plain VARCHAR(60) CHARACTER SET ascii,
                         at TIMESTAMP(6) NULL, doc JSON,
                         CONSTRAINT no_canary CHECK (fault <> 'check'),
                         CONSTRAINT has_parent FOREIGN KEY (parent) REFERENCES parents (name));
         INSERT INTO t (id, name, fault) VALUES (-1, 'canary4711', '0');
         CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW BEGIN
             DECLARE said VARCHAR(120) DEFAULT CONCAT('Column ''', NEW.name, ''' CONSTRAINT `', NEW.name, '` failed');
             DECLARE code INT DEFAULT 0;
             IF NEW.fault RLIKE '^[sh][0-9]' THEN SET code = SUBSTRING(NEW.fault, 2); END IF;
             IF NEW.fault LIKE 's%' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = said, MYSQL_ERRNO = code; END IF;
             IF NEW.fault LIKE 'h%' THEN SIGNAL SQLSTATE 'HY000' SET MESSAGE_TEXT = said, MYSQL_ERRNO = code; END IF;
             IF NEW.fault = 'date' THEN SET NEW.at = NEW.name; END IF;
             IF NEW.fault = 'number' THEN SET NEW.small = NEW.name; END IF;
             IF NEW.fault = 'cast' THEN SET NEW.small = 1 + CAST(NEW.name AS SIGNED); END IF;
             IF NEW.fault = 'parse' THEN SET NEW.doc = CONCAT('{', NEW.name); END IF;
             IF NEW.fault = 'range' THEN SET NEW.small = LENGTH(NEW.name) * 100; END IF;
         END",
        parameters,
    )
    .await;
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("name", ColumnType::Text)
        .nullable("fault", ColumnType::Text)
        .nullable("parent", ColumnType::Text)
        .nullable("short", ColumnType::Text)
        .nullable("plain", ColumnType::Text)
        .build()
        .unwrap();
    let fault = async |fault: &str, more: &[(&str, &str)]| -> SinkError {
        let mut row = schema.row().set("id", 1_i64).unwrap();
        for name in ["name", "fault", "parent", "short", "plain"] {
            let given = more.iter().find(|(column, _)| *column == name).map(|(_, value)| *value);
            let value = match name {
                "name" => Some(given.unwrap_or("canary4711x")),
                "fault" => Some(fault),
                _ => given,
            };
            row = row.set(name, value.map_or(Value::Null, Value::from)).unwrap();
        }
        written(&db.sink, [row.finish().unwrap()], false).await.unwrap_err()
    };
    let check = |code: &str, error: SinkError, part: &str| {
        let shown = shown(&error);
        assert_eq!(error.code(), Some(code), "{shown}");
        assert!(!shown.contains("canary4711") && shown.contains(part), "{code}: {shown}");
    };
    check("1062", fault("0", &[("name", CANARY)]).await, "index \\\"name\\\"");
    check("1406", fault("0", &[("short", CANARY)]).await, "column \\\"short\\\"");
    check("1366", fault("0", &[("plain", "canary4711é")]).await, "column \\\"plain\\\"");
    check("1452", fault("0", &[("parent", CANARY)]).await, "constraint \\\"has_parent\\\"");
    let constraint = if db.read("SELECT VERSION()").await[0].contains("MariaDB") { "4025" } else { "3819" };
    check(constraint, fault("check", &[]).await, "constraint \\\"no_canary\\\"");
    check("1292", fault("date", &[]).await, "");
    check("1366", fault("number", &[]).await, "");
    check("1264", fault("range", &[]).await, "column \\\"small\\\"");
    for kind in ["cast", "parse"] {
        let error = fault(kind, &[]).await;
        assert_eq!(error.class(), ErrorClass::Row, "{error}");
        assert!(!shown(&error).contains("canary"), "{error}");
    }
    // Every code whose message a trigger can forge, in each of the classes.
    let codes = [
        1044, 1045, 1048, 1054, 1062, 1114, 1142, 1146, 1205, 1213, 1264, 1290, 1364, 1366, 1406, 1451, 1452, 1644,
        3819, 4025,
    ];
    for code in codes {
        for kind in ["s", "h"] {
            check(&code.to_string(), fault(&format!("{kind}{code}"), &[]).await, "");
        }
    }
    // Through the pipeline, in its public errors.
    let pipeline = pipeline(&db.sink);
    let bad = schema.row().set("id", 2_i64).unwrap().set("name", CANARY).unwrap().set("fault", "s1452").unwrap();
    let outcome = submitted(&pipeline, [bad.finish().unwrap()]).await.remove(0);
    let failed = outcome.failure().unwrap();
    assert!(!shown(failed.error().unwrap()).contains("canary"), "{failed:?}");
}

/// The server looks for the row of a reference at once: a row cannot be written before the one to which it refers, although both are in one
/// batch. It is written after it; a row is rejected whose reference nobody writes.
#[tokio::test]
async fn rows_that_refer_to_later_rows_of_their_batch_are_written() {
    let table = "CREATE TABLE nodes (id BIGINT PRIMARY KEY, next BIGINT, n BIGINT CHECK (n >= 0), FOREIGN KEY (next) REFERENCES nodes (id))";
    let db = Database::new(table).await;
    let schema = Schema::builder("nodes").column("id", ColumnType::I64).nullable("next", ColumnType::I64);
    let schema = schema.column("n", ColumnType::I64).build().unwrap();
    let row = |id: i64, next: Option<i64>, n: i64| {
        schema.row().set_all([id.into(), next.map_or(Value::Null, Into::into), n.into()]).unwrap().finish().unwrap()
    };
    // In pairs: the first one refers to the second one.
    let mut rows: Vec<_> = (0..40).map(|id| row(id, (id % 2 == 0).then_some(id + 1), 1)).collect();
    rows.insert(20, row(70, None, -1));
    rows.insert(10, row(301, Some(999), 1));
    let config = batchsql_core::PipelineConfig::default().flush_interval(crate::support::HOUR);
    let pipeline = batchsql_core::BatchSql::builder(db.sink.clone()).config(config).start().unwrap();
    let outcomes = submitted(&pipeline, rows).await;
    pipeline.close(crate::support::HOUR).await;
    let refused =
        outcomes.iter().filter_map(|outcome| outcome.failure()).map(|failed| failed.code().unwrap_or_default());
    let mut refused: Vec<_> = refused.collect();
    refused.sort_unstable();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.contains(&"1452"), "{refused:?}");
    assert_eq!(db.read("SELECT count(*) FROM nodes WHERE id < 40").await, ["40"]);
}

/// Rows of a rule do not wait for each other: in order, a row finds an earlier one beside a bad row. A circle is refused.
#[tokio::test]
async fn rows_of_a_rule_find_earlier_rows_and_circles_are_refused() {
    let table = "CREATE TABLE nodes (id BIGINT PRIMARY KEY, next BIGINT, n BIGINT CHECK (n >= 0), FOREIGN KEY (next) REFERENCES nodes (id))";
    let db = Database::new(table).await;
    let schema = Schema::builder("nodes").column("id", ColumnType::I64).nullable("next", ColumnType::I64);
    let schema = schema.column("n", ColumnType::I64).on_conflict(Conflict::update(["id"])).build().unwrap();
    let row = |(id, next, n): (i64, Option<i64>, i64)| {
        schema.row().set_all([id.into(), next.map_or(Value::Null, Into::into), n.into()]).unwrap().finish().unwrap()
    };
    let check = async |rows: &[(i64, Option<i64>, i64)], written: &[bool]| {
        let outcomes = outcomes(&db.sink, rows.iter().copied().map(row)).await;
        let found: Vec<bool> = outcomes.iter().map(Outcome::is_written).collect();
        assert_eq!(found, written, "{rows:?}: {outcomes:?}");
    };
    check(&[(9, None, 1), (8, Some(9), 1), (7, None, -1), (6, Some(8), 1)], &[true, true, false, true]).await;
    check(&[(10, Some(11), 1), (11, Some(10), 1)], &[false, false]).await;
}

/// The numbers of lost connections, shutdowns, proxies, locks and limits, each with the SQLSTATE of the server and with another one.
const FOREIGN: [(u16, &str); 26] = [
    (2013, "HY000"),
    (2006, "HY000"),
    (1158, "08S01"),
    (1158, "HY000"),
    (1159, "08S01"),
    (1160, "08S01"),
    (1161, "08S01"),
    (1053, "HY000"),
    (1317, "HY000"),
    (3169, "99001"),
    (1105, "HY000"),
    (2055, "HY000"),
    (1927, "HY000"),
    (9001, "HY000"),
    (1205, "HY000"),
    (1213, "40001"),
    (1213, "HY000"),
    (1040, "08004"),
    (1203, "42000"),
    (3024, "HY000"),
    (1969, "70100"),
    (1290, "HY000"),
    (1114, "HY000"),
    (1021, "HY000"),
    (1180, "99001"),
    (8501, "HY000"),
];

/// A row of 200 is refused by a trigger with each of the numbers, in a pipeline of its own: nothing else is written.
async fn check_foreign(conflict: Conflict, parameters: &str) {
    let bad = |(code, state): (u16, &str)| format!("{code} {state}");
    let raise = |(code, state): (u16, &str)| {
        let note = bad((code, state));
        format!(
            "IF NEW.note = '{note}' THEN
                SIGNAL SQLSTATE '{state}' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'secret';
             END IF;"
        )
    };
    let table = format!(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(60));
         CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW BEGIN {} END",
        FOREIGN.map(raise).concat()
    );
    let db = Database::with(&table, parameters).await;
    let schema = schema(conflict.clone());
    let config = batchsql_core::PipelineConfig::default()
        .flush_interval(crate::support::HOUR)
        .flush_size(200)
        .retry_for(Duration::from_secs(40));
    let mut checks = Vec::new();
    for (first, error) in (0..).step_by(1_000).zip(FOREIGN) {
        let pipeline = BatchSql::builder(db.sink.clone()).config(config.clone()).start().unwrap();
        let note = bad(error);
        let rows = (0..200).map(|id| row(&schema, first + id, if id == 117 { &*note } else { "good" }));
        let receipts = receipts_of(&pipeline, rows).await;
        let flushed = tokio::spawn({
            let pipeline = pipeline.clone();
            async move { pipeline.flush().await.unwrap() }
        });
        checks.push((error, receipts, pipeline, flushed));
    }
    for ((code, state), receipts, pipeline, flushed) in checks {
        for (id, outcome) in outcomes_of(receipts).await.into_iter().enumerate() {
            let what = format!("{code} {state} {conflict:?} {parameters}, row {id}: {outcome:?}");
            if id != 117 {
                assert!(outcome.is_written(), "{what}");
                continue;
            }
            assert!(matches!(outcome, Outcome::Expired(_) | Outcome::Rejected(_)), "{what}");
            let failed = outcome.failure().unwrap();
            assert_eq!(failed.code(), Some(&*code.to_string()), "{what}");
            assert!(!failed.error().unwrap().to_string().contains("secret"), "{what}");
        }
        assert!(pipeline.health().parked.is_empty(), "{code} {state}");
        flushed.await.unwrap();
        pipeline.close(crate::support::HOUR).await;
    }
    let written = 199 * FOREIGN.len();
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, [written.to_string()], "{conflict:?} {parameters}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_of_a_lost_link_that_a_trigger_raises_takes_no_other_row() {
    tokio::join!(
        check_foreign(Conflict::none(), "values_in_text=always"),
        check_foreign(Conflict::none(), "values_in_text=never"),
        check_foreign(Conflict::update(["id"]), "values_in_text=always"),
        check_foreign(Conflict::update(["id"]), "values_in_text=never"),
    );
}

/// A server that keeps no errors cannot say that it has refused a statement.
#[tokio::test]
async fn a_session_of_a_server_that_keeps_no_errors_keeps_them() {
    let server = Server::start(Kind::MySql, &["--max-error-count=0"]);
    let table = "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(60));
         CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW BEGIN IF NEW.note = 'bad' THEN
             SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 2013, MESSAGE_TEXT = 'no';
         END IF; END";
    let db = Database::on(server.dsn(), table, "").await;
    let schema = schema(Conflict::none());
    let error = written(&db.sink, [row(&schema, 1, "bad"), row(&schema, 2, "good")], false).await;
    let error = error.unwrap_err();
    assert_eq!((error.class(), error.code()), (ErrorClass::Transient, Some("2013")), "{error}");
}
