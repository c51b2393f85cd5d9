//! Each error that can be provoked, through the pipeline: its class, its code and its message.

use std::time::Duration;

use batchsql_core::{
    BatchSql, ColumnType, Conflict, DynRow, ErrorClass, Ordering, Outcome, PipelineConfig, Schema, Value,
};
use batchsql_mysql::sqlx::mysql::{MySqlConnection, MySqlPoolOptions};
use batchsql_mysql::sqlx::{Connection, Executor};
use batchsql_mysql::{MySqlOptions, MySqlSink};
use batchsql_testserver::{Kind, Server};

use crate::support::{Database, HOUR, outcomes, pipeline, row, schema, submitted, with_parameters, with_user};

#[tokio::test]
async fn bad_rows_are_rejected_alone_with_the_servers_code_and_without_their_values() {
    let db = Database::new(
        "CREATE TABLE parents (id BIGINT PRIMARY KEY); INSERT INTO parents VALUES (1);
         CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(20) NOT NULL, small TINYINT, parent BIGINT NOT NULL,
                         code VARCHAR(9) CHARACTER SET latin1, day TIMESTAMP(6) NULL,
                         CONSTRAINT no_bad CHECK (note <> 'bad'), FOREIGN KEY (parent) REFERENCES parents (id));
         INSERT INTO t VALUES (-1, 'old', 0, 1, '', NULL);
         CREATE TRIGGER no BEFORE INSERT ON t FOR EACH ROW
             IF NEW.note = 'raised' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no secret here'; END IF",
    )
    .await;
    let schema = Schema::builder("t")
        .column("id", ColumnType::I64)
        .nullable("note", ColumnType::Text)
        .column("small", ColumnType::I64)
        .column("parent", ColumnType::I64)
        .column("code", ColumnType::Text)
        .column("day", ColumnType::TimestampTz)
        .build()
        .unwrap();
    let day = batchsql_core::TimestampTz::from_micros_since_epoch(1_700_000_000_000_000).unwrap();
    let check = if db.read("SELECT VERSION()").await[0].contains("MariaDB") { "4025" } else { "3819" };
    // Place in the batch and the server's code: at both ends, side by side and alone.
    let bad = [
        (0, "1062"),
        (1, "1048"),
        (77, "1452"),
        (78, check),
        (150, "1406"),
        (200, "1264"),
        (201, "1366"),
        (298, "1644"),
        (299, "1292"),
    ];
    let code = |n: i64| bad.iter().find(|(place, _)| *place == n).map(|(_, code)| *code);
    let rows = (0..300_i64).map(|n| {
        let is = |other: &str| code(n) == Some(other);
        let note = match code(n) {
            Some("1048") => Value::Null,
            Some("1406") => "secret".repeat(9).into(),
            Some("1644") => "raised".into(),
            Some(code) if code == check => "bad".into(),
            _ => "good".into(),
        };
        let values = [
            Value::I64(if is("1062") { -1 } else { n }),
            note,
            Value::I64(if is("1264") { 1_000 } else { 1 }),
            Value::I64(if is("1452") { 4_711 } else { 1 }),
            if is("1366") { "日本".into() } else { "a".into() },
            if is("1292") { batchsql_core::TimestampTz::MIN.into() } else { day.into() },
        ];
        schema.row().set_all(values).unwrap().finish().unwrap()
    });
    for (n, outcome) in (0..).zip(outcomes(&db.sink, rows).await) {
        match (outcome, code(n)) {
            (Outcome::Written, None) => {}
            (Outcome::Rejected(failed), Some(code)) => {
                assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Row), Some(code)), "row {n}: {failed:?}");
                let error = failed.error().unwrap();
                let shown =
                    format!("{error} {error:?} {:?}", std::error::Error::source(error).map(ToString::to_string));
                for value in ["secret", "4711", "日本", "'-1'", "raised", "0001-01-01"] {
                    assert!(!shown.contains(value), "{shown}");
                }
            }
            (other, expected) => panic!("row {n}: {other:?}, not {expected:?}"),
        }
    }
    assert_eq!(db.read("SELECT COUNT(*), SUM(note = 'good') FROM t WHERE id >= 0").await, ["291|291"]);
}

/// A pipeline that neither retries nor parks, so that the first error is the outcome.
fn impatient(sink: &MySqlSink) -> BatchSql {
    let config = PipelineConfig::default()
        .retry_for(Duration::ZERO)
        .park_for(Duration::ZERO)
        .flush_interval(HOUR)
        .ordering(Ordering::PerTable);
    BatchSql::builder(sink.clone()).config(config).start().unwrap()
}

/// Class and code of the error that the row ends with.
async fn error_of(pipeline: &BatchSql, row: DynRow) -> (Option<ErrorClass>, Option<String>, String) {
    let outcome = submitted(pipeline, [row]).await.remove(0);
    let failed = outcome.failure().unwrap_or_else(|| panic!("{outcome:?}"));
    let text = failed.error().map(ToString::to_string).unwrap_or_default();
    (failed.class(), failed.code().map(str::to_owned), text)
}

/// A sink whose sessions are set up like ours, and then with `sql`.
async fn sink_with_session(db: &Database, sql: &'static str) -> MySqlSink {
    sink_with_sessions(db, 2, sql).await
}

async fn sink_with_sessions(db: &Database, most: u32, sql: &'static str) -> MySqlSink {
    let pool = MySqlPoolOptions::new().max_connections(most).after_connect(move |connection, _| {
        Box::pin(async move {
            connection.execute("SET sql_mode = 'STRICT_ALL_TABLES'").await?;
            connection.execute(sql).await.map(drop)
        })
    });
    MySqlSink::new(pool.connect_with(db.dsn.parse().unwrap()).await.unwrap())
}

const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, note VARCHAR(50))";

#[tokio::test]
async fn a_lock_that_is_not_given_is_transient() {
    let db = Database::new(&format!("{TABLE}; INSERT INTO t VALUES (1, 'old')")).await;
    let sink = sink_with_session(&db, "SET innodb_lock_wait_timeout = 1").await;
    let mut other = db.connection().await;
    let mut transaction = other.begin().await.unwrap();
    transaction.execute("UPDATE t SET note = 'theirs'").await.unwrap();
    let schema = schema(Conflict::update(["id"]));
    let (class, code, _) = error_of(&impatient(&sink), row(&schema, 1, "ours")).await;
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Transient), Some("1205")));
    transaction.rollback().await.unwrap();
    assert!(outcomes(&sink, [row(&schema, 1, "ours")]).await[0].is_written());
}

#[tokio::test]
async fn the_victim_of_a_deadlock_is_written_by_a_retry() {
    let db = Database::new(&format!("{TABLE}; INSERT INTO t VALUES (1, 'old'), (2, 'old')")).await;
    let schema = schema(Conflict::update(["id"]));
    let fight = async |pipeline: &BatchSql| {
        let mut other = db.connection().await;
        let mut transaction = other.begin().await.unwrap();
        // With more changes than ours, so that ours is rolled back.
        let many: Vec<String> = (100..300).map(|id| format!("({id}, 'x')")).collect();
        transaction.execute(&*format!("INSERT INTO t VALUES {}", many.join(","))).await.unwrap();
        transaction.execute("UPDATE t SET note = 'theirs' WHERE id = 2").await.unwrap();
        let theirs = async {
            db.wait_for_a_lock_wait().await;
            transaction.execute("UPDATE t SET note = 'theirs' WHERE id = 1").await.unwrap();
            transaction.rollback().await.unwrap();
        };
        let rows = [row(&schema, 1, "ours"), row(&schema, 2, "ours")];
        tokio::join!(submitted(pipeline, rows), theirs).0
    };
    for outcome in fight(&impatient(&db.sink)).await {
        let failed = outcome.failure().unwrap_or_else(|| panic!("{outcome:?}"));
        assert_eq!((failed.class(), failed.code()), (Some(ErrorClass::Transient), Some("1213")));
    }
    assert!(fight(&pipeline(&db.sink)).await.iter().all(Outcome::is_written));
    assert_eq!(db.read("SELECT note FROM t ORDER BY id").await, ["ours", "ours"]);
}

#[tokio::test]
async fn a_table_that_was_changed_is_a_matter_of_the_schema_not_of_the_row() {
    let db = Database::new(TABLE).await;
    let pipeline = impatient(&db.sink);
    let schema = schema(Conflict::none());
    assert!(submitted(&pipeline, [row(&schema, 1, "a")]).await[0].is_written());
    // 1364 at the server; the second check gives advice.
    db.run("ALTER TABLE t ADD COLUMN must INT NOT NULL").await;
    let (class, _, text) = error_of(&pipeline, row(&schema, 2, "b")).await;
    assert_eq!(class, Some(ErrorClass::Schema));
    assert!(text.contains("\"must\" is NOT NULL without a default"), "{text}");
    // 1906 or 3105.
    db.run("ALTER TABLE t DROP COLUMN must").await;
    assert!(submitted(&pipeline, [row(&schema, 3, "c")]).await[0].is_written());
    db.run("ALTER TABLE t DROP COLUMN note, ADD COLUMN note VARCHAR(50) AS (CONCAT('n', id)) VIRTUAL").await;
    let (class, _, text) = error_of(&pipeline, row(&schema, 4, "d")).await;
    assert_eq!(class, Some(ErrorClass::Schema));
    assert!(text.contains("\"note\" is generated"), "{text}");
}

#[tokio::test]
async fn a_column_that_was_changed_refuses_no_row_that_fits_and_blames_no_row_that_does_not() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, note CHAR(50))").await;
    let pipeline = impatient(&db.sink);
    let schema = schema(Conflict::none());
    let (class, ..) = error_of(&pipeline, row(&schema, 1, "a ")).await;
    assert_eq!(class, Some(ErrorClass::Row));
    // A row that was rejected before anything was sent.
    db.run("ALTER TABLE t MODIFY note VARCHAR(50)").await;
    assert!(submitted(&pipeline, [row(&schema, 1, "a ")]).await[0].is_written());
    // 1366 at the server.
    db.run("DELETE FROM t; ALTER TABLE t MODIFY note INT").await;
    for outcome in submitted(&pipeline, (0..5).map(|id| row(&schema, id, "a"))).await {
        let failed = outcome.failure().unwrap_or_else(|| panic!("{outcome:?}"));
        assert_eq!(failed.class(), Some(ErrorClass::Schema), "{failed:?}");
    }
    // A row that is bad in the new table too is still a bad row.
    db.run("ALTER TABLE t MODIFY note VARCHAR(2)").await;
    let (class, code, _) = error_of(&pipeline, row(&schema, 1, "abc")).await;
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Row), Some("1406")));
}

#[tokio::test]
async fn a_change_that_the_server_has_no_error_for_is_seen_before_long() {
    let db = Database::new("CREATE TABLE t (id BIGINT PRIMARY KEY, at DATETIME(6))").await;
    let builder = Schema::builder("t").column("id", ColumnType::I64).column("at", ColumnType::Timestamp);
    let schema = builder.on_conflict(Conflict::update(["id"])).build().unwrap();
    let at = batchsql_core::Timestamp::from_micros_since_epoch(123_456).unwrap();
    let row = |id: i64| schema.row().set("id", id).unwrap().set("at", at).unwrap().finish().unwrap();
    let options: MySqlOptions = db.dsn.parse().unwrap();
    let sink = MySqlSink::with_options(&options.table_check_interval(Duration::from_millis(1))).await.unwrap();
    let pipeline = impatient(&sink);
    assert!(submitted(&pipeline, [row(1)]).await[0].is_written());
    db.run("ALTER TABLE t MODIFY at DATETIME").await;
    let (class, _, text) = error_of(&pipeline, row(2)).await;
    assert_eq!(class, Some(ErrorClass::Row), "{text}");
    assert!(text.contains("finer fractions of a second than the column"), "{text}");
    db.run("ALTER TABLE t MODIFY at DATETIME(6), DROP PRIMARY KEY").await;
    let (class, _, text) = error_of(&pipeline, row(1)).await;
    assert_eq!(class, Some(ErrorClass::Schema), "{text}");
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn a_trigger_that_no_row_can_pass_is_a_matter_of_the_schema() {
    let db = Database::new(TABLE).await;
    let pipeline = impatient(&db.sink);
    let schema = schema(Conflict::none());
    assert!(submitted(&pipeline, [row(&schema, 1, "a")]).await[0].is_written());
    for (action, code) in [("UPDATE t SET note = 'x'", "1442"), ("INSERT INTO missing VALUES (1)", "1146")] {
        db.run(&format!("DROP TRIGGER IF EXISTS tr; CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW {action}")).await;
        let (class, found, text) = error_of(&pipeline, row(&schema, 2, "b")).await;
        assert_eq!((class, found.as_deref()), (Some(ErrorClass::Schema), Some(code)), "{text}");
    }
    db.run("DROP TRIGGER tr").await;
    assert!(submitted(&pipeline, [row(&schema, 2, "b")]).await[0].is_written());
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_a_matter_of_permission() {
    let db = Database::new(TABLE).await;
    let user = db.user("x", "").await;
    db.run(&format!("GRANT INSERT ON {}.t TO '{user}'@'%'", db.name)).await;
    let sink = MySqlSink::connect(&with_user(&db.dsn, &user, "x")).await.unwrap();
    let pipeline = impatient(&sink);
    let schema = schema(Conflict::none());
    assert!(submitted(&pipeline, [row(&schema, 1, "a")]).await[0].is_written());
    db.run(&format!("REVOKE INSERT ON {}.t FROM '{user}'@'%'", db.name)).await;
    let (class, code, _) = error_of(&pipeline, row(&schema, 2, "b")).await;
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Permission), Some("1142")));
}

#[tokio::test]
async fn a_user_with_too_many_connections_waits() {
    let db = Database::new(TABLE).await;
    let user = db.user("x", "WITH MAX_USER_CONNECTIONS 1").await;
    db.run(&format!("GRANT ALL ON {}.* TO '{user}'@'%'", db.name)).await;
    let dsn = with_user(&db.dsn, &user, "x");
    let sink = MySqlSink::connect(&dsn).await.unwrap();
    let held = connect_when_free(&dsn).await;
    let schema = schema(Conflict::none());
    let (class, code, _) = error_of(&impatient(&sink), row(&schema, 1, "a")).await;
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Transient), Some("1226")));
    let patient = pipeline(&sink);
    let (outcomes, ()) = tokio::join!(submitted(&patient, [row(&schema, 1, "a")]), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        held.close().await.unwrap();
    });
    assert!(outcomes[0].is_written(), "{outcomes:?}");
}

/// The server counts a connection for a short time after it was closed.
async fn connect_when_free(dsn: &str) -> MySqlConnection {
    loop {
        match MySqlConnection::connect(dsn).await {
            Ok(connection) => return connection,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

#[tokio::test]
async fn a_server_that_is_full_or_read_only_is_waited_for() {
    let server = Server::start(Kind::MySql, &["--max-connections=10"]);
    let db = Database::on(server.dsn(), TABLE, "").await;
    db.run(&format!("CREATE USER 'plain'@'%' IDENTIFIED BY 'x'; GRANT ALL ON {}.* TO 'plain'@'%'", db.name)).await;
    let dsn = with_user(&db.dsn, "plain", "x");
    let sink = MySqlSink::connect(&with_parameters(&dsn, "max_connections=2&connect_timeout=1")).await.unwrap();
    let schema = schema(Conflict::none());

    // Another user is read-only, as on a replica.
    db.run("SET GLOBAL read_only = 1").await;
    let (class, code, text) = error_of(&impatient(&sink), row(&schema, 1, "a")).await;
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Resource), Some("1290")), "{text}");
    let patient = pipeline(&sink);
    let (outcomes, ()) = tokio::join!(submitted(&patient, [row(&schema, 1, "a")]), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        db.run("SET GLOBAL read_only = 0").await;
    });
    assert!(outcomes[0].is_written(), "{outcomes:?}");
    drop(patient);

    // Every connection is in use.
    sink.mysql_pool().close().await;
    let sink = MySqlSink::connect(&with_parameters(&dsn, "max_connections=2&connect_timeout=1")).await.unwrap();
    let mut held = Vec::new();
    while let Ok(connection) = MySqlConnection::connect(&dsn).await {
        held.push(connection);
    }
    let (class, code, text) = error_of(&impatient(&sink), row(&schema, 2, "b")).await;
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Transient), Some("1040")), "{text}");
    let error = MySqlSink::connect(&dsn).await.unwrap_err().to_string();
    assert!(error.contains("raise the connection limit"), "{error}");
    drop(held);
    assert!(outcomes_of(&sink, row(&schema, 2, "b")).await);
}

async fn outcomes_of(sink: &MySqlSink, row: DynRow) -> bool {
    outcomes(sink, [row]).await[0].is_written()
}

#[tokio::test]
async fn a_session_that_may_only_read_is_a_resource() {
    let db = Database::new(TABLE).await;
    let sink = sink_with_sessions(&db, 1, "SET SESSION TRANSACTION READ ONLY").await;
    let connection = async || -> u64 {
        let id = batchsql_mysql::sqlx::query_scalar("SELECT CONNECTION_ID()");
        id.fetch_one(sink.mysql_pool()).await.unwrap()
    };
    let before = connection().await;
    assert_eq!(connection().await, before, "the pool has one connection");
    let (class, code, _) = error_of(&impatient(&sink), row(&schema(Conflict::none()), 1, "a")).await;
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Resource), Some("1792")));
    // Another one may reach a server that accepts writes.
    assert_ne!(connection().await, before);
}

#[tokio::test]
async fn a_full_table_is_a_resource_and_room_lets_the_rows_in() {
    // One tablespace for everything, which cannot grow.
    let server = Server::start(
        Kind::MySql,
        &["--innodb-file-per-table=0", "--innodb-data-file-path=ibdata1:12M;full:16M", "--skip-log-bin"],
    );
    let db = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)", "").await;
    let pipeline = impatient(&db.sink);
    let schema = schema(Conflict::none());
    let mut written = 0_i64;
    let (class, code) = loop {
        let outcome = submitted(&pipeline, [row(&schema, written, "x".repeat(1_000_000))]).await.remove(0);
        match outcome.failure() {
            None => written += 1,
            Some(failed) => break (failed.class(), failed.code().map(str::to_owned)),
        }
        assert!(written < 100, "the table does not become full");
    };
    assert_eq!((class, code.as_deref()), (Some(ErrorClass::Resource), Some("1114")));
    // Nothing of the rejected row is left.
    assert_eq!(db.read("SELECT COUNT(*) FROM t").await, [written.to_string()]);
}
