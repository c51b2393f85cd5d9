//! Positions in the transaction of rows: every way to write, and locks that others hold.

use std::time::Duration;

use batchsql_core::{
    Action, BatchSql, Claim, ClaimFrom, Claimed, ColumnType, Conflict, ErrorClass, Expr, OutcomeKind, PartitionKey,
    Position, RowBuffer, Schema, SharedRows, Step, ValueRules,
};
use batchsql_mysql::MySqlOptions;
use batchsql_mysql::sqlx::{Connection, Executor, MySqlConnection};
use batchsql_testkit::{check_moved, check_positions};
use batchsql_testserver::{Frozen, Kind, LateProxy, Server};

use crate::support::{Database, host_of, pipeline, with_parameters, with_user};

/// The shared server is faster than durable.
pub(crate) fn durable_server() -> Server {
    Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1"])
}

pub(crate) async fn numbers(database: &Database, sql: &str) -> Vec<i64> {
    database.read(sql).await.iter().map(|id| id.parse().unwrap()).collect()
}

pub(crate) fn one_column(rule: Conflict) -> Schema {
    Schema::builder("t").column("id", ColumnType::I64).on_conflict(rule).build().unwrap()
}

pub(crate) fn two_columns(rule: Conflict) -> Schema {
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
    schema.on_conflict(rule).build().unwrap()
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

pub(crate) fn rows(schema: &Schema, rows: impl IntoIterator<Item = (i64, i64)>) -> SharedRows {
    let mut buffer = RowBuffer::new(schema, ValueRules::default());
    for (id, n) in rows {
        let row = schema.row().set("id", id).unwrap();
        let row = if schema.columns().len() > 1 { row.set("n", n).unwrap() } else { row };
        buffer.push(&row.finish().unwrap()).unwrap();
    }
    buffer.into_rows()
}

#[tokio::test]
async fn positions_move_with_their_rows_whatever_the_way() {
    let rules =
        [(Conflict::none(), ""), (Conflict::ignore(["id"]), "PRIMARY KEY"), (Conflict::update(["id"]), "PRIMARY KEY")];
    let server = durable_server();
    for (rule, key) in rules {
        for parameters in ["", "values_in_text=always"] {
            for size in [1, 1_500] {
                let sql = format!("CREATE TABLE t (id BIGINT NOT NULL {key}, CHECK (id >= 0))");
                let database = Database::on(server.dsn(), &sql, parameters).await;
                let ids = async || numbers(&database, "SELECT id FROM t ORDER BY id").await;
                check_positions(&pipeline(&database.sink), &one_column(rule.clone()), "s", size, ids).await;
            }
        }
    }
}

#[tokio::test]
async fn every_rule_moves_its_position() {
    let cases = [
        (Conflict::replace(["id"]), "1 9|2 4"),
        (Conflict::ignore(["id"]), "1 3|2 5"),
        (Conflict::update(["id"]).only_if_newer("n"), "1 9|2 5"),
        (Conflict::update(["id"]).set("n", Expr::add()), "1 12|2 9"),
        (Conflict::update_only(["id"]), "2 4"),
        (Conflict::delete(["id"]), ""),
    ];
    let server = durable_server();
    for (rule, expected) in cases {
        let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT); INSERT INTO t VALUES (2, 5)";
        let database = Database::on(server.dsn(), sql, "").await;
        let db = pipeline(&database.sink);
        let position = claim(&db).await;
        let schema = match rule.action() {
            Action::Delete => one_column(rule.clone()),
            _ => two_columns(rule.clone()),
        };
        let rows = rows(&schema, [(1, 3), (2, 4), (1, 9)]);
        let counted = db.write_step(rows.rows(), &Step::new(position, 3)).await.unwrap();
        assert_eq!(counted.total(), 3, "{rule:?}");
        let table = async || database.read("SELECT concat(id, ' ', n) FROM t ORDER BY id").await.join("|");
        assert_eq!(table().await, expected, "{rule:?}");
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [3], "{rule:?}");
        let again = db.write_step(rows.rows(), &Step::new(position, 3)).await.unwrap_err();
        assert!(again.error.is_fenced(), "{rule:?}");
        assert_eq!(table().await, expected, "{rule:?}");
    }
}

/// A deadlock or a lock that is not given ends the transaction or leaves it open: no later statement commits without the
/// position.
#[tokio::test]
async fn a_lock_that_is_not_given_leaves_nothing() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT PRIMARY KEY)", "").await;
    let options: MySqlOptions = database.dsn.parse().unwrap();
    let sink = batchsql_mysql::MySqlSink::with_options(&options.max_connections(1)).await.unwrap();
    sink.mysql_pool().execute("SET SESSION innodb_lock_wait_timeout = 1").await.unwrap();
    let db = pipeline(&sink);
    let position = claim(&db).await;
    let mut other = MySqlConnection::connect(&database.dsn).await.unwrap();
    other.execute("START TRANSACTION").await.unwrap();
    other.execute("INSERT INTO t VALUES (2)").await.unwrap();
    let schema = one_column(Conflict::update(["id"]));
    let given = rows(&schema, [(1, 0), (2, 0)]);
    let locked = db.write_step(given.rows(), &Step::new(position, 2)).await.unwrap_err();
    assert_eq!(locked.error.class(), ErrorClass::Transient, "{locked}");
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [0]);
    assert_eq!(numbers(&database, "SELECT id FROM t").await, [] as [i64; 0]);
    let counted = db.write_step(given.rows(), &Step::new(position, 2)).await.unwrap();
    assert_eq!(counted.get(OutcomeKind::Written), 2);
}

/// Neither a claim of somebody else nor the renewal of the others is held up by a step that takes long, and a renewal does not
/// wait for the steps of others.
#[tokio::test]
async fn leases_do_not_wait_for_a_step_that_takes_long() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let options: MySqlOptions = database.dsn.parse().unwrap();
    let sink = batchsql_mysql::MySqlSink::with_options(&options.max_connections(1)).await.unwrap();
    sink.mysql_pool().execute("SET SESSION innodb_lock_wait_timeout = 60").await.unwrap();
    let db = pipeline(&sink);
    let minute = Duration::from_secs(60);
    let mine = anyone("a").or_begin_at(0).lease(minute);
    let position = db.claim(&key(), &mine).await.unwrap().position().unwrap();
    db.claim(&PartitionKey::new("s", "i", "t", 1), &mine).await.unwrap().position().unwrap();
    let other = anyone("b").or_begin_at(0).lease(minute);
    db.claim(&PartitionKey::new("s", "i", "t", 2), &other).await.unwrap().position().unwrap();
    let mut writing = MySqlConnection::connect(&database.dsn).await.unwrap();
    writing.execute("START TRANSACTION").await.unwrap();
    writing
        .execute(&*format!("UPDATE batchsql_positions SET sequence = 1, moved_to = 1 WHERE id = {}", position.id))
        .await
        .unwrap();
    let refused = db.claim(&key(), &anyone("b")).await.unwrap();
    assert!(matches!(&refused, Claimed::Leased { owner, .. } if owner == "a"), "{refused:?}");
    let renewed = db.renew("s", "b", 10 * minute).await.unwrap();
    assert!(renewed.len() == 1 && renewed[0].lease.unwrap() > minute, "{renewed:?}");
    let renewed = db.renew("s", "a", 10 * minute).await.unwrap();
    let is_renewed: Vec<_> = renewed.iter().map(|own| own.lease.unwrap() > minute).collect();
    assert_eq!(is_renewed, [false, true], "{renewed:?}");
    // What is held is neither given away nor claimed again, and that is known soon: not after statement_timeout.
    let held = db.release(&position).await.unwrap_err();
    assert_eq!(held.code(), Some("1205"), "{held}");
    let held = db.claim(&key(), &Claim::of("a")).await.unwrap_err();
    assert_eq!(held.code(), Some("1205"), "{held}");
    drop(db);
    let wait: u64 = batchsql_mysql::sqlx::query_scalar("SELECT @@innodb_lock_wait_timeout")
        .fetch_one(sink.mysql_pool())
        .await
        .unwrap();
    assert_eq!(wait, 60, "the setting of the session is as before");
    writing.execute("COMMIT").await.unwrap();
    assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions ORDER BY id").await, [1, 0, 0]);
}

/// What commits while a claim waits is in the position that the claim returns.
#[tokio::test]
async fn a_claim_waits_for_what_is_being_committed() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let db = pipeline(&database.sink);
    let position = claim(&db).await;
    let mut other = MySqlConnection::connect(&database.dsn).await.unwrap();
    other.execute("START TRANSACTION").await.unwrap();
    other
        .execute(&*format!("UPDATE batchsql_positions SET sequence = 1, moved_to = 1 WHERE id = {}", position.id))
        .await
        .unwrap();
    let claiming = tokio::spawn({
        let db = db.clone();
        async move {
            loop {
                // A slow machine may take longer than a claim waits.
                match db.claim(&key(), &Claim::of("a")).await {
                    Err(error) if error.class() == ErrorClass::Transient => {}
                    claimed => return claimed,
                }
            }
        }
    });
    database.wait_for_a_lock_wait().await;
    other.execute("COMMIT").await.unwrap();
    assert_eq!(claiming.await.unwrap().unwrap().position().unwrap().sequence, 1);
}

/// A session with the position of an open transaction, whose next statement does not come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_holds_the_position_and_stands_still_is_ended() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (note TEXT)", "").await;
    // The rights to write are enough.
    let user = database.user("p", "").await;
    database.run(&format!("GRANT CREATE, SELECT, INSERT, UPDATE ON {}.* TO '{user}'@'%'", database.name)).await;
    let dsn = with_user(&database.dsn, &user, "p");
    let proxy = LateProxy::start(host_of(&dsn));
    let through = with_parameters(&dsn.replace(host_of(&dsn), &proxy.address()), "ssl-mode=DISABLED");
    let schema = Schema::builder("t").column("note", ColumnType::Text).build().unwrap();
    run_for_some_seconds(&database).await;
    for round in 0..2 {
        let db = pipeline(&batchsql_mysql::MySqlSink::connect(&through).await.unwrap());
        let taken = db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap().position().unwrap();
        let row = |note: &str| {
            let mut rows = RowBuffer::new(&schema, ValueRules::default());
            rows.push(&schema.row().set("note", note).unwrap().finish().unwrap()).unwrap();
            rows.into_rows()
        };
        // Committed by the same session.
        db.write_step(row("kept").rows(), &Step::new(taken, taken.sequence + 1)).await.unwrap();
        let taken = Position { sequence: taken.sequence + 1, ..taken };
        proxy.hold("held-back");
        let step = Step::new(taken, taken.sequence + 1);
        let held_back = row("held-back");
        let frozen = tokio::spawn(async move { db.write_step(held_back.rows(), &step).await });
        let moved = "SELECT COUNT(*) FROM information_schema.INNODB_TRX WHERE trx_rows_modified > 0";
        while database.read(moved).await == ["0"] {
            // The server refreshes the list only after 100 ms without a query.
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        let other = pipeline(&batchsql_mysql::MySqlSink::connect(&dsn).await.unwrap());
        let claimed = claim_when_idle(&other, &anyone("b")).await;
        assert_eq!((claimed.sequence, claimed.epoch), (taken.sequence, taken.epoch + 1), "round {round}");
        tokio::task::block_in_place(|| proxy.deliver());
        assert!(frozen.await.unwrap().is_err(), "its session has ended");
        assert_eq!(numbers(&database, "SELECT COUNT(*) FROM t").await, [round + 1]);
        assert!(other.release(&claimed).await.unwrap());
    }
}

/// What was written in the first seconds of a server may be of the run before, so its session is left alone.
pub(crate) async fn run_for_some_seconds(database: &Database) {
    let uptime = async || {
        let shown = database.read("SHOW GLOBAL STATUS LIKE 'Uptime'").await;
        shown[0].rsplit('|').next().unwrap().parse::<u64>().unwrap()
    };
    while uptime().await < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A claim leaves a session alone that has begun a statement within the last second, by the clock of the process list.
pub(crate) async fn claim_when_idle(db: &BatchSql, claim: &Claim) -> Position {
    let claiming = async {
        loop {
            match db.claim(&key(), claim).await {
                Err(error) if error.code() == Some("1205") => {}
                claimed => return claimed.unwrap().position().unwrap(),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), claiming).await.expect("its holder is not ended")
}

/// The variable with the DSN for the process that is frozen.
const FROZEN: &str = "BATCHSQL_TEST_FROZEN";

/// A process is stopped between the position and the commit (`SIGSTOP`), another one takes its partition, and the first one
/// goes on.
#[tokio::test]
async fn a_process_that_is_frozen_in_a_step_does_not_keep_its_partition() {
    let schema = one_column(Conflict::update(["id"]));
    if let Ok(dsn) = std::env::var(FROZEN) {
        let db = pipeline(&batchsql_mysql::MySqlSink::connect(&dsn).await.unwrap());
        let position = claim(&db).await;
        let written = db.write_step(rows(&schema, [(1, 0)]).rows(), &Step::new(position, 1)).await;
        assert!(written.is_err(), "it was frozen");
        let again = db.claim(&key(), &Claim::of("a")).await.unwrap();
        assert_eq!(again, Claimed::Other);
        return;
    }
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT PRIMARY KEY)", "").await;
    let db = pipeline(&database.sink);
    run_for_some_seconds(&database).await;
    let mut locking = database.connection().await;
    locking.execute("START TRANSACTION").await.unwrap();
    locking.execute("INSERT INTO t VALUES (1)").await.unwrap();
    let name = "positions::a_process_that_is_frozen_in_a_step_does_not_keep_its_partition";
    let mut process = std::process::Command::new(std::env::current_exe().unwrap());
    let mut process = process.args([name, "--exact"]).env(FROZEN, &database.dsn).spawn().unwrap();
    // It is in its step.
    database.wait_for_a_lock_wait().await;
    let frozen = Frozen::stop(process.id()).expect("it runs");
    // The server goes on with its statement, and waits for the next one.
    locking.execute("ROLLBACK").await.unwrap();
    let claimed = claim_when_idle(&db, &anyone("b")).await;
    assert_eq!((claimed.sequence, claimed.epoch), (0, 2));
    assert_eq!(numbers(&database, "SELECT id FROM t").await, [] as [i64; 0]);
    frozen.resume();
    let ended = tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
    db.write_step(rows(&schema, [(2, 0)]).rows(), &Step::new(claimed, 1)).await.unwrap();
    assert_eq!(numbers(&database, "SELECT id FROM t").await, [2]);
}

/// A process that must not have the partition does not end the session of the one that has it, and a session that the row does
/// not name is not ended.
#[tokio::test]
async fn only_the_session_that_holds_the_position_is_ended() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let db = pipeline(&database.sink);
    let position = claim(&db).await;
    db.write_step(rows(&one_column(Conflict::none()), [(1, 0)]).rows(), &Step::new(position, 1)).await.unwrap();
    // Somebody has changed the position by hand, and the row names the session of the step.
    let mut person = database.connection().await;
    person.execute("START TRANSACTION").await.unwrap();
    person.execute("UPDATE batchsql_positions SET sequence = 7").await.unwrap();
    let before = numbers(&database, "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID()").await;
    for _ in 0..3 {
        let held = db.claim(&key(), &anyone("b")).await.unwrap_err();
        assert_eq!(held.code(), Some("1205"), "{held}");
    }
    let not_named = Claim::of("b").from(ClaimFrom::Owners(vec!["c".into()]));
    assert_eq!(db.claim(&key(), &not_named).await.unwrap(), Claimed::Other);
    let after = numbers(&database, "SELECT ID FROM information_schema.PROCESSLIST").await;
    assert!(before.iter().all(|id| after.contains(id)), "{before:?} {after:?}");
    person.execute("ROLLBACK").await.unwrap();
    assert_eq!(db.claim(&key(), &anyone("b")).await.unwrap().position().unwrap().sequence, 1);
}

#[tokio::test]
async fn a_position_that_somebody_has_moved_ahead_is_known() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    check_moved(&pipeline(&database.sink), async |sql: String| database.run(&sql).await).await;
}

#[tokio::test]
async fn a_table_of_an_earlier_version_gets_its_columns() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT PRIMARY KEY)", "").await;
    let db = pipeline(&database.sink);
    claim(&db).await;
    for columns in [&["holder"][..], &["moved_to"], &["holder", "moved_to"]] {
        for column in columns {
            let drop = format!("ALTER TABLE batchsql_positions DROP COLUMN {column}");
            database.pool().execute(&*drop).await.unwrap();
        }
        // A statement that uses the table keeps it as it is.
        let mut reader = database.connection().await;
        reader.execute("START TRANSACTION").await.unwrap();
        reader.execute("SELECT * FROM batchsql_positions").await.unwrap();
        let held = db.claim(&key(), &anyone("another")).await.unwrap_err();
        assert_eq!((held.code(), held.class()), (Some("1205"), ErrorClass::Transient), "{held}");
        reader.execute("ROLLBACK").await.unwrap();
        let position = db.claim(&key(), &anyone("another")).await.unwrap().position().unwrap();
        assert_eq!(position.sequence, 0);
    }
}

#[tokio::test]
async fn a_user_who_may_not_create_the_table_is_told_what_to_do() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let user = database.user("p", "").await;
    database.run(&format!("GRANT SELECT, INSERT ON {}.t TO '{user}'@'%'", database.name)).await;
    let dsn = with_user(&database.dsn, &user, "p");
    let sink = batchsql_mysql::MySqlSink::connect(&dsn).await.unwrap();
    let error = pipeline(&sink).claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(
        error.class() == ErrorClass::Permission && error.to_string().contains("CREATE TABLE IF NOT EXISTS"),
        "{error}"
    );
}

#[tokio::test]
async fn a_user_who_may_not_change_a_table_of_an_earlier_version_is_told_what_to_do() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    claim(&pipeline(&database.sink)).await;
    let user = database.user("p", "").await;
    let rights = "SELECT, INSERT, UPDATE ON";
    database.run(&format!("GRANT {rights} {}.batchsql_positions TO '{user}'@'%'", database.name)).await;
    database.run("ALTER TABLE batchsql_positions DROP COLUMN moved_to").await;
    let sink = batchsql_mysql::MySqlSink::connect(&with_user(&database.dsn, &user, "p")).await.unwrap();
    let db = pipeline(&sink);
    let error = db.claim(&key(), &anyone("a")).await.unwrap_err();
    let advice = "ALTER TABLE batchsql_positions ADD COLUMN holder VARCHAR(400) NULL, ADD COLUMN moved_to BIGINT NULL";
    assert!(error.class() == ErrorClass::Permission && error.to_string().contains(advice), "{error}");
    database.run("ALTER TABLE batchsql_positions ADD COLUMN moved_to BIGINT NULL").await;
    db.claim(&key(), &anyone("a")).await.unwrap().position().unwrap();
}

#[tokio::test]
async fn a_server_that_may_lose_commits_is_refused() {
    let server = Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=2"]);
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let error = pipeline(&database.sink).claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema, "{error}");
    assert!(error.to_string().contains("innodb_flush_log_at_trx_commit is 2"), "{error}");
    // At least once it is reported, and nothing is refused.
    let setting = pipeline(&database.sink).make_durable().await.unwrap().unwrap();
    assert!(setting.starts_with("innodb_flush_log_at_trx_commit is 2"), "{setting}");
    // MySQL sets 2 in its place.
    database.run("SET GLOBAL innodb_flush_log_at_trx_commit = 3").await;
    let is_synced = database.read("SELECT @@innodb_flush_log_at_trx_commit").await == ["3"];
    assert_eq!(pipeline(&database.sink).make_durable().await.unwrap().is_none(), is_synced);
}

#[tokio::test]
async fn a_binary_log_that_is_not_synced_may_lose_commits() {
    let options = ["--innodb-flush-log-at-trx-commit=1", "--log-bin=binlog", "--server-id=1", "--sync-binlog=0"];
    let server = Server::start(Kind::MySql, &options);
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let db = pipeline(&database.sink);
    let error = db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("sync_binlog is 0"), "{error}");
    assert!(db.make_durable().await.unwrap().unwrap().starts_with("sync_binlog is 0"));
    database.run("SET GLOBAL sync_binlog = 1").await;
    assert_eq!(db.make_durable().await.unwrap(), None);
    claim(&db).await;
}

/// A trigger writes to a table without transactions: the server warns (1196) that this could not be undone, and the step itself
/// is all or nothing.
#[tokio::test]
async fn what_a_trigger_cannot_undo_is_no_part_of_a_step() {
    let server = durable_server();
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY); CREATE TABLE seen (id BIGINT) ENGINE=MyISAM;
        CREATE TRIGGER sees AFTER INSERT ON t FOR EACH ROW INSERT INTO seen VALUES (NEW.id); INSERT INTO t VALUES (3)";
    for parameters in ["ignore_with=exact", "ignore_with=insert_ignore"] {
        let database = Database::on(server.dsn(), sql, parameters).await;
        let db = pipeline(&database.sink);
        let step = Step::new(claim(&db).await, 5);
        let given = rows(&one_column(Conflict::ignore(["id"])), (1..=5).map(|id| (id, 0)));
        db.write_step(given.rows(), &step.rolled_back()).await.unwrap();
        assert!(numbers(&database, "SELECT count(*) FROM seen").await[0] > 1, "{parameters}: it was not undone");
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [0], "{parameters}");
        assert_eq!(numbers(&database, "SELECT id FROM t").await, [3], "{parameters}");
        let counts = db.write_step(given.rows(), &step).await.unwrap();
        assert_eq!((counts.get(OutcomeKind::Written), counts.get(OutcomeKind::Ignored)), (4, 1), "{parameters}");
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [5], "{parameters}");
        assert_eq!(numbers(&database, "SELECT id FROM t ORDER BY id").await, [1, 2, 3, 4, 5], "{parameters}");
    }
}

/// The server rolls back the whole transaction. If the step went on, its rows would be committed without their position.
#[tokio::test]
async fn a_step_whose_transaction_was_rolled_back_leaves_nothing() {
    let server = Server::start(Kind::MySql, &["--innodb-flush-log-at-trx-commit=1", "--innodb-rollback-on-timeout=ON"]);
    let rules = [Conflict::none(), Conflict::ignore(["id"]), Conflict::update(["id"])];
    for (rule, code) in rules.into_iter().flat_map(|rule| [(rule.clone(), "1205"), (rule, "1213")]) {
        let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY); CREATE TABLE heavy (id BIGINT PRIMARY KEY);
            INSERT INTO heavy VALUES (1), (2), (3), (4), (5), (6), (7), (8)";
        let database = Database::on(server.dsn(), sql, "").await;
        let options: MySqlOptions = database.dsn.parse().unwrap();
        let sink = batchsql_mysql::MySqlSink::with_options(&options.max_connections(1)).await.unwrap();
        let wait = if code == "1205" { 1 } else { 60 };
        sink.mysql_pool().execute(&*format!("SET SESSION innodb_lock_wait_timeout = {wait}")).await.unwrap();
        let db = pipeline(&sink);
        let position = claim(&db).await;
        let given = rows(&one_column(rule.clone()), (1..=200).map(|id| (id, 0)));
        let mut other = MySqlConnection::connect(&database.dsn).await.unwrap();
        // The session that has changed more is not the victim of a deadlock.
        other.execute("START TRANSACTION").await.unwrap();
        for _ in 0..100 {
            other.execute("UPDATE heavy SET id = id + 1000").await.unwrap();
        }
        other.execute("INSERT INTO t VALUES (150)").await.unwrap();
        let step = Step::new(position, 200);
        let tried = async { db.write_step(given.rows(), &step).await.unwrap_err() };
        let refused = if code == "1205" {
            tried.await
        } else {
            let crossed = async {
                // When the step waits for the row, it has the position.
                database.wait_for_a_lock_wait().await;
                other.execute("UPDATE batchsql_positions SET epoch = epoch").await.unwrap();
            };
            tokio::join!(tried, crossed).0
        };
        assert_eq!((refused.error.class(), refused.error.code()), (ErrorClass::Transient, Some(code)), "{rule:?}");
        other.execute("ROLLBACK").await.unwrap();
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [0], "{rule:?} {code}");
        assert_eq!(numbers(&database, "SELECT count(*) FROM t").await, [0], "{rule:?} {code}");
        db.write_step(given.rows(), &step).await.unwrap();
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [200], "{rule:?} {code}");
        assert_eq!(numbers(&database, "SELECT count(*) FROM t").await, [200], "{rule:?} {code}");
    }
}

/// A step that fails, or a process that is killed, would move the position without its rows.
#[tokio::test]
async fn a_table_of_positions_without_transactions_is_refused() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let db = pipeline(&database.sink);
    let lease = anyone("a").or_begin_at(0).lease(Duration::from_secs(600));
    db.claim(&key(), &lease).await.unwrap().position().unwrap();
    let refused = async |part: &str| {
        let error = db.claim(&key(), &Claim::of("a")).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema && error.to_string().contains(part), "{error}");
        let error = db.renew("s", "a", Duration::from_secs(600)).await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    };
    for engine in ["MyISAM", "MEMORY"] {
        database.run(&format!("ALTER TABLE batchsql_positions ENGINE = {engine}")).await;
        refused(&format!("the engine {engine} ")).await;
    }
    database.run("ALTER TABLE batchsql_positions ENGINE = InnoDB").await;
    assert_eq!(db.renew("s", "a", Duration::from_secs(600)).await.unwrap().len(), 1);
    db.claim(&key(), &Claim::of("a")).await.unwrap().position().unwrap();
    database.run("RENAME TABLE batchsql_positions TO kept").await;
    database.run("CREATE VIEW batchsql_positions AS SELECT * FROM kept").await;
    refused("not a plain table").await;
}

/// Two sources would share a position, and rows of one be passed over.
#[tokio::test]
async fn a_table_of_positions_that_makes_one_source_of_two_is_refused() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE t (id BIGINT)", "").await;
    let db = pipeline(&database.sink);
    let change = async |to: &str| database.run(&format!("ALTER TABLE batchsql_positions {to}")).await;
    claim(&db).await;
    for inexact in [
        "CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        "MODIFY source VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci NOT NULL",
        "MODIFY session VARCHAR(100) CHARACTER SET latin1 COLLATE latin1_swedish_ci NULL",
    ] {
        change(inexact).await;
        let error = db.claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
        assert!(error.class() == ErrorClass::Schema, "{error}");
        assert!(error.to_string().contains("share a position"), "{inexact}: {error}");
        // As the error says.
        change("CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin").await;
        claim(&db).await;
    }
    change("MODIFY source VARBINARY(400) NOT NULL, MODIFY session VARCHAR(100) CHARACTER SET latin1 COLLATE latin1_bin NULL")
        .await;
    claim(&db).await;
}

#[tokio::test]
async fn another_table_with_the_name_is_named_with_advice() {
    let server = durable_server();
    let database = Database::on(server.dsn(), "CREATE TABLE batchsql_positions (id BIGINT)", "").await;
    let error = pipeline(&database.sink).claim(&key(), &anyone("a").or_begin_at(0)).await.unwrap_err();
    assert!(error.class() == ErrorClass::Schema && error.to_string().contains("another table"), "{error}");
    assert!(!error.to_string().contains("ADD COLUMN"), "{error}");
}
