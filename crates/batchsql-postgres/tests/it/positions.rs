//! Positions in the transaction of rows: every way to write, holders that do not go away, settings that lose commits.

use std::time::Duration;

use batchsql_core::{
    BatchSql, Claim, ClaimFrom, Claimed, ColumnType, Conflict, ErrorClass, Expr, OutcomeKind, PartitionKey,
    PipelineConfig, Position, RowBuffer, Schema, Step, ValueRules,
};
use batchsql_postgres::sqlx::{Connection, Executor, PgConnection};
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use batchsql_testkit::{check_moved, check_positions};
use batchsql_testserver::process::{self, Process};
use batchsql_testserver::{Frozen, unique};

use crate::support::{coalescing, execute, fresh, fresh_dsn, pipeline, read, with_parameter, with_strategy};

pub(crate) async fn numbers(sink: &PostgresSink, sql: &str) -> Vec<i64> {
    read(sink, sql).await.iter().map(|id| id.parse().unwrap()).collect()
}

pub(crate) fn one_column(rule: Conflict) -> Schema {
    Schema::builder("t").column("id", ColumnType::I64).on_conflict(rule).build().unwrap()
}

#[tokio::test]
async fn positions_move_with_their_rows_whatever_the_way() {
    let strategies = [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Copy, Strategy::Staging];
    let rules =
        [(Conflict::none(), ""), (Conflict::ignore(["id"]), "PRIMARY KEY"), (Conflict::update(["id"]), "PRIMARY KEY")];
    for (rule, key) in rules {
        for strategy in strategies {
            if strategy == Strategy::Copy && rule != Conflict::none() {
                continue;
            }
            for size in [1, 1_500] {
                let sql = format!("CREATE TABLE t (id bigint NOT NULL {key} CHECK (id >= 0))");
                let sink = with_strategy(&fresh_dsn(&sql).await, strategy).await;
                let ids = async || numbers(&sink, "SELECT id FROM t ORDER BY id").await;
                check_positions(&pipeline(&sink), &one_column(rule.clone()), "s", size, ids).await;
            }
        }
    }
}

#[tokio::test]
async fn a_position_that_somebody_has_moved_ahead_is_known() {
    let sink = fresh("").await;
    check_moved(&pipeline(&sink), async |sql: String| execute(sink.pg_pool(), &sql).await).await;
}

/// Rows that a trigger may drop are written in parts, with savepoints.
#[tokio::test]
async fn positions_move_with_rows_that_triggers_drop() {
    let sql = "CREATE TABLE t (id bigint NOT NULL CHECK (id >= 0));
        CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF new.id % 2 = 1 THEN RETURN NULL; END IF; RETURN new; END';
        CREATE TRIGGER odd BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION odd()";
    let sink = fresh(sql).await;
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let rows = rows(&one_column(Conflict::none()), (0..100).map(|id| (id, 0)));
    let counts = db.write_step(rows.rows(), &Step::new(position, 100)).await.unwrap();
    assert_eq!((counts.get(OutcomeKind::Written), counts.get(OutcomeKind::Ignored)), (50, 50));
    assert_eq!((numbers(&sink, "SELECT count(*) FROM t").await, sequence(&sink).await), (vec![50], 100));
    let counts = db.write_step(rows.rows(), &Step::new(position, 100)).await.unwrap_err();
    assert!(counts.error.is_fenced());
    assert_eq!(numbers(&sink, "SELECT count(*) FROM t").await, [50]);
}

pub(crate) fn key() -> PartitionKey {
    PartitionKey::new("s", "i", "t", 0)
}

pub(crate) fn anyone(owner: &str) -> Claim {
    Claim::of(owner).from(ClaimFrom::Anyone)
}

pub(crate) async fn claim(db: &BatchSql) -> Position {
    db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap().position().unwrap()
}

pub(crate) async fn sequence(sink: &PostgresSink) -> i64 {
    numbers(sink, "SELECT sequence FROM batchsql_positions").await[0]
}

pub(crate) fn rows(schema: &Schema, rows: impl IntoIterator<Item = (i64, i64)>) -> batchsql_core::SharedRows {
    let mut buffer = RowBuffer::new(schema, ValueRules::default());
    for (id, n) in rows {
        let row = schema.row().set("id", id).unwrap();
        let row = if schema.columns().len() > 1 { row.set("n", n).unwrap() } else { row };
        buffer.push(&row.finish().unwrap()).unwrap();
    }
    buffer.into_rows()
}

/// Versions of one key are written in waves or as one row, and sums are added once.
#[tokio::test]
async fn every_rule_moves_its_position() {
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, n bigint)";
    let two = |rule| {
        Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64).on_conflict(rule).build()
    };
    let cases = [
        (Conflict::replace(["id"]), "1 9|2 4", [2, 0, 1]),
        (Conflict::ignore(["id"]), "1 3|2 5", [1, 2, 0]),
        (Conflict::update(["id"]).only_if_newer("n"), "1 9|2 5", [1, 1, 1]),
        (Conflict::update(["id"]).set("n", Expr::add()), "1 12|2 9", [3, 0, 0]),
        (Conflict::update(["id"]).set("n", Expr::raw("{old} + {new}")), "1 12|2 9", [3, 0, 0]),
        // Of two rows that find nothing, neither replaces the other.
        (Conflict::update_only(["id"]), "2 4", [1, 2, 0]),
        (Conflict::delete(["id"]), "", [1, 2, 0]),
    ];
    for (rule, expected, counts) in cases {
        let sink = fresh(sql).await;
        execute(sink.pg_pool(), "INSERT INTO t VALUES (2, 5)").await;
        let db = coalescing(&sink);
        let position = claim(&db).await;
        let schema = match rule.action() {
            batchsql_core::Action::Delete => one_column(rule.clone()),
            _ => two(rule.clone()).unwrap(),
        };
        let rows = rows(&schema, [(1, 3), (2, 4), (1, 9)]);
        let counted = db.write_step(rows.rows(), &Step::new(position, 3)).await.unwrap();
        let kinds = [OutcomeKind::Written, OutcomeKind::Ignored, OutcomeKind::Superseded];
        let table = read(&sink, "SELECT concat(id, ' ', n) FROM t ORDER BY id").await.join("|");
        assert_eq!(kinds.map(|kind| counted.get(kind)), counts, "{rule:?}");
        assert_eq!((&*table, sequence(&sink).await), (expected, 3), "{rule:?}");
        let again = db.write_step(rows.rows(), &Step::new(position, 3)).await.unwrap_err();
        assert!(again.error.is_fenced(), "{rule:?}");
        assert_eq!(read(&sink, "SELECT concat(id, ' ', n) FROM t ORDER BY id").await.join("|"), expected, "{rule:?}");
    }
}

/// Tables of the user, whatever their names are: also in the one statement that moves the position.
#[tokio::test]
async fn raw_sql_of_a_rule_reads_tables() {
    let sink = fresh(
        "CREATE TABLE t (id bigint PRIMARY KEY, n bigint);
        CREATE TABLE p AS SELECT generate_series(1, 30); INSERT INTO t VALUES (2, 5)",
    )
    .await;
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let rule = Conflict::update(["id"]).set("n", Expr::raw("{old} + {new} + (SELECT count(*) FROM p)"));
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64).on_conflict(rule);
    let rows = rows(&schema.build().unwrap(), (0..50).map(|id| (id, 4)));
    db.write_step(rows.rows(), &Step::new(position, 50)).await.unwrap();
    assert_eq!(numbers(&sink, "SELECT n FROM t WHERE id = 2").await, [39]);
}

/// What a statement was, and what it did, as its triggers see it.
#[tokio::test]
async fn a_step_is_one_statement_that_does_nothing_when_it_is_fenced() {
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY); CREATE TABLE seen (query text);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN INSERT INTO seen VALUES (current_query()); RETURN NULL; END';
        CREATE TRIGGER see AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION see()";
    for rule in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let sink = fresh(sql).await;
        let db = pipeline(&sink);
        let position = claim(&db).await;
        let rows = rows(&one_column(rule.clone()), (0..50).map(|id| (id, 0)));
        db.write_step(rows.rows(), &Step::new(position, 50)).await.unwrap();
        let seen = async || read(&sink, "SELECT query FROM seen").await;
        let query = seen().await.join("|");
        assert!(query.starts_with("WITH batchsql_p AS (UPDATE batchsql_positions"), "{rule:?}: {query}");
        assert!(db.write_step(rows.rows(), &Step::new(position, 50)).await.unwrap_err().error.is_fenced());
        assert_eq!(seen().await.len(), 1, "{rule:?}: a step that is fenced runs no trigger");
    }
}

/// The one statement cannot tell these apart: the position, the table, a trigger or a value is at fault.
#[tokio::test]
async fn what_is_at_fault_is_told_as_without_a_position() {
    let raises = |code: &str| {
        format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, n text);
             CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF EXISTS (SELECT FROM t WHERE id = 3) THEN
                 RAISE EXCEPTION ''no'' USING ERRCODE = ''{code}''; END IF; RETURN NULL; END';
             CREATE TRIGGER no AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION no()"
        )
    };
    let columns = |ty: &str| format!("CREATE TABLE t (id bigint PRIMARY KEY, n {ty})");
    let cases = [
        (columns("interval day"), "1 day 3 hours", ErrorClass::Row, Some("22000")),
        (columns("text CHECK (n <> 'bad')"), "bad", ErrorClass::Row, Some("23514")),
        (raises("42P01"), "x", ErrorClass::Schema, Some("42P01")),
        (raises("42501"), "x", ErrorClass::Permission, Some("42501")),
        (raises("2201G"), "x", ErrorClass::Row, Some("2201G")),
        (raises("XX999"), "x", ErrorClass::Internal, Some("XX999")),
    ];
    for (sql, text, class, code) in cases {
        let sink = fresh(&sql).await;
        let db = pipeline(&sink);
        let position = claim(&db).await;
        let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::Text).build().unwrap();
        let mut buffer = RowBuffer::new(&schema, ValueRules::default());
        buffer.push(&schema.row().set("id", 3).unwrap().set("n", text).unwrap().finish().unwrap()).unwrap();
        let rows = buffer.into_rows();
        let refused = db.write_step(rows.rows(), &Step::new(position, 1)).await.unwrap_err();
        assert_eq!((refused.error.class(), refused.error.code()), (class, code), "{sql}: {refused}");
        assert!(refused.was_sent);
        assert_eq!((sequence(&sink).await, numbers(&sink, "SELECT count(*) FROM t").await), (0, vec![0]), "{sql}");
    }
}

/// The check comes with COMMIT, behind the statements.
#[tokio::test]
async fn a_deferred_constraint_refuses_the_step() {
    let sql = "CREATE TABLE parent (id bigint PRIMARY KEY); INSERT INTO parent VALUES (1);
        CREATE TABLE t (id bigint REFERENCES parent DEFERRABLE INITIALLY DEFERRED)";
    let sink = fresh(sql).await;
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let schema = one_column(Conflict::none());
    for step in [Step::new(position, 2), Step::new(position, 2).rolled_back()] {
        let refused = db.write_step(rows(&schema, [(1, 0), (2, 0)]).rows(), &step).await.unwrap_err();
        assert!(refused.was_sent && refused.error.class() == ErrorClass::Row, "{refused}");
    }
    assert_eq!((sequence(&sink).await, numbers(&sink, "SELECT count(*) FROM t").await), (0, vec![0]));
    db.write_step(rows(&schema, [(1, 0)]).rows(), &Step::new(position, 1)).await.unwrap();
}

/// A worker that is frozen between the position and its commit, or whose connection is lost without a word.
#[tokio::test]
async fn a_session_that_holds_the_position_is_ended() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint)").await;
    let sink = PostgresSink::connect(&dsn).await.unwrap();
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let mut frozen = PgConnection::connect(&dsn).await.unwrap();
    let step = format!(
        "BEGIN; UPDATE batchsql_positions SET sequence = 1, moved_to = 1 WHERE id = {}; INSERT INTO t VALUES (1)",
        position.id
    );
    frozen.execute(&*step).await.unwrap();
    let claimed = db.claim(&key(), &anyone("b")).await.unwrap().position().unwrap();
    assert_eq!((claimed.sequence, claimed.epoch), (0, position.epoch + 1));
    assert!(frozen.execute("COMMIT").await.is_err(), "its session has ended");
    assert_eq!(numbers(&sink, "SELECT count(*) FROM t").await, [0]);
}

/// Makes one step, and then claims its partition again.
#[tokio::test]
#[ignore = "a program, started by other tests"]
async fn step_of_a_process() {
    let Some(arguments) = process::arguments() else { return };
    let [dsn, way] = &arguments[..] else { panic!("DSN and way") };
    let (strategy, rule) = way_of(way);
    let options: PostgresOptions = dsn.parse().unwrap();
    let sink = PostgresSink::with_options(&options.strategy(strategy)).await.unwrap();
    let hour = Duration::from_secs(3600);
    let config = PipelineConfig::default().flush_interval(hour).statement_timeout(hour);
    let db = BatchSql::builder(sink).config(config).start().unwrap();
    let position = claim(&db).await;
    let written = db.write_step(rows(&one_column(rule), [(1, 0)]).rows(), &Step::new(position, 1)).await;
    process::tell(written.map_or_else(|no| no.error.class().name().to_owned(), |_| "written".to_owned()));
    process::tell(format!("{:?}", db.claim(&key(), &Claim::of("a")).await.unwrap()));
}

/// One statement, which the server commits without its client, and a transaction, which waits for it.
fn way_of(way: &str) -> (Strategy, Conflict) {
    match way {
        "copy" => (Strategy::Copy, Conflict::none()),
        _ => (Strategy::Auto, Conflict::update(["id"])),
    }
}

/// A process is stopped in a step (`SIGSTOP`), another one takes its partition, and the first one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_frozen_in_a_step_does_not_keep_its_partition() {
    for way in ["statement", "copy"] {
        let dsn = fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY)").await;
        let sink = PostgresSink::connect(&dsn).await.unwrap();
        let db = pipeline(&sink);
        let mut locking = PgConnection::connect(&dsn).await.unwrap();
        locking.execute("BEGIN; INSERT INTO t VALUES (1)").await.unwrap();
        let name = unique("frozen");
        let theirs = with_parameter(&dsn, &format!("application_name={name}"));
        let mut process =
            Process::start(&mut process::command("positions::step_of_a_process", &[&theirs, way])).unwrap();
        let until = async |sql: &str, expected: i64| {
            let begin = std::time::Instant::now();
            while numbers(&sink, sql).await != [expected] {
                assert!(begin.elapsed() < Duration::from_secs(60), "{way}: {sql}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'");
        until(&format!("{sessions} AND wait_event_type = 'Lock'"), 1).await;
        let frozen = Frozen::stop(process.id()).expect("it runs");
        locking.execute("ROLLBACK").await.unwrap();
        let reached = match way {
            "copy" => {
                // The server goes on with its statement, and waits for the next one.
                until(&format!("{sessions} AND state = 'idle in transaction'"), 1).await;
                0
            }
            _ => {
                until("SELECT sequence FROM batchsql_positions", 1).await;
                1
            }
        };
        let claimed = db.claim(&key(), &anyone("b")).await.unwrap().position().unwrap();
        assert_eq!((claimed.sequence, claimed.epoch), (reached, 2), "{way}");
        assert_eq!(numbers(&sink, "SELECT count(*) FROM t").await, [reached], "{way}");
        frozen.resume();
        let (ended, again) = tokio::task::block_in_place(|| (process.line(), process.line()));
        // The reply came while it was stopped; it may take the time that has passed for a lost one.
        let is_true = if way == "copy" { ended != "written" } else { ended == "written" || ended == "unknown" };
        assert!(is_true, "{way}: {ended}");
        assert_eq!(again, "Other", "{way}");
        process.finish();
        let step = Step::new(claimed, claimed.sequence + 1);
        db.write_step(rows(&one_column(Conflict::update(["id"])), [(2, 0)]).rows(), &step).await.unwrap();
        let ids = if way == "copy" { vec![2] } else { vec![1, 2] };
        assert_eq!(numbers(&sink, "SELECT id FROM t ORDER BY id").await, ids, "{way}");
    }
}

/// A process that must not have the partition does not disturb the one that has it.
#[tokio::test]
async fn a_session_of_another_owner_is_left_alone() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint)").await;
    let sink = PostgresSink::connect(&dsn).await.unwrap();
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let mut writing = PgConnection::connect(&dsn).await.unwrap();
    let step = format!("BEGIN; UPDATE batchsql_positions SET sequence = 1, moved_to = 1 WHERE id = {}", position.id);
    writing.execute(&*step).await.unwrap();
    let claimed = db.claim(&key(), &Claim::of("b").from(ClaimFrom::Owners(vec!["c".into()]))).await.unwrap();
    assert_eq!(claimed, Claimed::Other);
    writing.execute("COMMIT").await.unwrap();
    assert_eq!(sequence(&sink).await, 1);
}

/// Neither a claim of somebody else nor the renewal of the others is held up by a step that takes long.
#[tokio::test]
async fn leases_do_not_wait_for_a_step_that_takes_long() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint)").await;
    let sink = PostgresSink::connect(&dsn).await.unwrap();
    let db = pipeline(&sink);
    let minute = Duration::from_secs(60);
    let mine = anyone("a").or_begin_at(0).lease(minute);
    let position = db.claim(&key(), &mine).await.unwrap().position().unwrap();
    db.claim(&PartitionKey::new("s", "i", "t", 1), &mine).await.unwrap().position().unwrap();
    let mut writing = PgConnection::connect(&dsn).await.unwrap();
    let step = format!("BEGIN; UPDATE batchsql_positions SET sequence = 1, moved_to = 1 WHERE id = {}", position.id);
    writing.execute(&*step).await.unwrap();
    let refused = db.claim(&key(), &anyone("b")).await.unwrap();
    assert!(matches!(&refused, Claimed::Leased { owner, .. } if owner == "a"), "{refused:?}");
    let renewed = db.renew("s", "a", 10 * minute).await.unwrap();
    let is_renewed: Vec<_> = renewed.iter().map(|own| own.lease.unwrap() > minute).collect();
    assert_eq!(is_renewed, [false, true], "{renewed:?}");
    // What is held is not given away, and that is known soon: not after statement_timeout.
    let held = db.release(&position).await.unwrap_err();
    assert_eq!(held.code(), Some("55P03"), "{held}");
    writing.execute("COMMIT").await.unwrap();
    assert_eq!(sequence(&sink).await, 1);
    let renewed = db.renew("s", "a", 10 * minute).await.unwrap();
    assert!(renewed.iter().all(|own| own.lease.unwrap() > minute), "{renewed:?}");
}

/// What commits while a claim waits is in the position that the claim returns.
#[tokio::test]
async fn a_claim_waits_for_what_is_being_committed() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint)").await;
    let sink = PostgresSink::connect(&dsn).await.unwrap();
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let mut other = PgConnection::connect(&dsn).await.unwrap();
    let step = format!("BEGIN; UPDATE batchsql_positions SET sequence = 1, moved_to = 1 WHERE id = {}", position.id);
    other.execute(&*step).await.unwrap();
    let claiming = tokio::spawn({
        let db = db.clone();
        async move { db.claim(&key(), &Claim::of("a")).await }
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'
        AND transactionid = (SELECT xmax FROM batchsql_positions)";
    while numbers(&sink, waits).await == [0] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.execute("COMMIT").await.unwrap();
    assert_eq!(claiming.await.unwrap().unwrap().position().unwrap().sequence, 1);
}

#[tokio::test]
async fn what_loses_commits_is_refused() {
    let partitioned = "CREATE TABLE t (id bigint) PARTITION BY RANGE (id);
        CREATE UNLOGGED TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (9)";
    let sink = fresh(partitioned).await;
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let refused = db.write_step(rows(&one_column(Conflict::none()), [(1, 0)]).rows(), &Step::new(position, 1)).await;
    assert!(refused.unwrap_err().error.to_string().contains("UNLOGGED"));
    let dsn = fresh_dsn("CREATE UNLOGGED TABLE t (id bigint)").await;
    let sink = PostgresSink::connect(&dsn).await.unwrap();
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let refused = db.write_step(rows(&one_column(Conflict::none()), [(1, 0)]).rows(), &Step::new(position, 1)).await;
    let refused = refused.unwrap_err().error;
    assert!(refused.class() == ErrorClass::Schema && refused.to_string().contains("UNLOGGED"), "{refused}");
    assert_eq!(sequence(&sink).await, 0);
    let off = with_parameter(&dsn, "options[synchronous_commit]=off");
    let error = pipeline(&PostgresSink::connect(&off).await.unwrap()).claim(&key(), &anyone("a")).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("synchronous_commit is off"), "{error}");
    // At least once such a setting is reported, and nothing is refused.
    for (level, is_lossy) in [("off", true), ("local", true), ("on", false), ("remote_apply", false)] {
        let dsn = with_parameter(&dsn, &format!("options[synchronous_commit]={level}"));
        let setting = pipeline(&PostgresSink::connect(&dsn).await.unwrap()).make_durable().await.unwrap();
        let text = format!("synchronous_commit is {level}");
        assert_eq!(setting.as_ref().is_some_and(|setting| setting.starts_with(&text)), is_lossy, "{setting:?}");
        assert_eq!(setting.is_some(), is_lossy, "{setting:?}");
    }
}

/// The sessions of a pool may differ, and only the one that claims is asked.
#[tokio::test]
async fn a_step_is_durable_whatever_its_session_has() {
    let sql = "CREATE TABLE t (id bigint PRIMARY KEY, seen text);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN new.seen := current_setting(''synchronous_commit''); RETURN new; END';
        CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";
    let plain = "CREATE TABLE t (id bigint PRIMARY KEY, seen text DEFAULT current_setting('synchronous_commit'))";
    for (sql, level, used) in [
        (plain, "off", "on"),
        (plain, "local", "on"),
        (plain, "remote_write", "remote_write"),
        // In a transaction.
        (sql, "off", "on"),
        (sql, "remote_write", "remote_write"),
    ] {
        let dsn = fresh_dsn(sql).await;
        let position = claim(&pipeline(&PostgresSink::connect(&dsn).await.unwrap())).await;
        // As if by another session of one pool.
        let other = with_parameter(&dsn, &format!("options[synchronous_commit]={level}"));
        let sink = PostgresSink::connect(&other).await.unwrap();
        let db = pipeline(&sink);
        let rows = rows(&one_column(Conflict::ignore(["id"])), [(1, 0), (2, 0)]);
        db.write_step(rows.rows(), &Step::new(position, 2)).await.unwrap();
        assert_eq!(read(&sink, "SELECT DISTINCT seen FROM t").await, [used], "{level}");
        assert_eq!(read(&sink, "SELECT DISTINCT current_setting('synchronous_commit') FROM t").await, [level]);
    }
}

/// Its rows are on another server, outside of the transaction of the position.
#[tokio::test]
async fn a_foreign_table_is_refused() {
    let wrapper = unique("wrapper");
    let sql = format!(
        "CREATE FOREIGN DATA WRAPPER {wrapper}; CREATE SERVER {wrapper} FOREIGN DATA WRAPPER {wrapper};
         CREATE FOREIGN TABLE t (id bigint) SERVER {wrapper};
         CREATE TABLE p (id bigint) PARTITION BY RANGE (id);
         CREATE FOREIGN TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (9) SERVER {wrapper}"
    );
    let sink = fresh(&sql).await;
    let db = pipeline(&sink);
    let position = claim(&db).await;
    for table in ["t", "p"] {
        let schema = Schema::builder(table).column("id", ColumnType::I64).build().unwrap();
        let refused = db.write_step(rows(&schema, [(1, 0)]).rows(), &Step::new(position, 1)).await.unwrap_err();
        let text = refused.error.to_string();
        assert!(refused.error.class() == ErrorClass::Schema && text.contains("foreign table"), "{table}: {text}");
    }
    assert_eq!(sequence(&sink).await, 0);
    execute(sink.pg_pool(), &format!("DROP FOREIGN DATA WRAPPER {wrapper} CASCADE")).await;
}

/// `INSERT 0 0` is no sign that the position was not moved.
#[tokio::test]
async fn a_step_whose_rows_are_all_ignored_moves_its_position() {
    for strategy in [Strategy::Auto, Strategy::MultiValues, Strategy::Unnest, Strategy::Staging] {
        let dsn =
            fresh_dsn("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 2000)").await;
        let sink = with_strategy(&dsn, strategy).await;
        let db = pipeline(&sink);
        let mut position = claim(&db).await;
        for size in [1, 20, 2_000] {
            let given = rows(&one_column(Conflict::ignore(["id"])), (1..=size).map(|id| (id, 0)));
            let counts = db.write_step(given.rows(), &Step::new(position, position.sequence + size)).await.unwrap();
            assert_eq!(counts.get(OutcomeKind::Ignored), size as u64, "{strategy:?}");
            position.sequence += size;
            assert_eq!(sequence(&sink).await, position.sequence, "{strategy:?}");
        }
        assert_eq!(numbers(&sink, "SELECT count(*) FROM t").await, [2000]);
    }
}

/// As in a test that ends its runtime, and drops the handle afterwards.
#[test]
fn a_handle_may_be_dropped_outside_of_a_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept = runtime.block_on(async {
        let sink = fresh("CREATE TABLE t (id bigint)").await;
        let db = pipeline(&sink);
        let position = claim(&db).await;
        db.write_step(rows(&one_column(Conflict::none()), [(1, 0)]).rows(), &Step::new(position, 1)).await.unwrap();
        (db, sink)
    });
    drop(kept);
}
