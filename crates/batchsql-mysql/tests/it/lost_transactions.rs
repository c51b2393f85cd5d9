//! Transactions that a proxy or the server ends without an error, and begins no other one: what is sent behind that commits for
//! itself, and no row is told as written.

use batchsql_core::{
    Action, Attempt, Claim, Conflict, ErrorClass, Expr, OutcomeKind, SharedRows, Sink, SinkError, Step, Written,
};
use batchsql_mysql::sqlx::mysql::MySqlConnection;
use batchsql_mysql::sqlx::{Connection, Executor};
use batchsql_mysql::{MySqlConn, MySqlPlan, MySqlSink};
use batchsql_testserver::{AlteringProxy, Kind, Server};

use crate::positions::{claim, claim_when_idle, durable_server, numbers, one_column, rows, two_columns};
use crate::support::{Database, host_of, pipeline, with_parameters};

/// A savepoint is gone (1305) only together with its transaction. What was sent since then may be committed for itself, so it is
/// not known what became of the step; repeated, it writes what is missing.
#[tokio::test]
async fn a_savepoint_that_is_gone_ends_the_step() {
    let server = durable_server();
    for (sent, instead, left) in [
        ("ROLLBACK TO SAVEPOINT batchsql", "ROLLBACK TO SAVEPOINT vanished", vec![3]),
        ("SAVEPOINT batchsql", "ROLLBACK          ", vec![1, 2, 3, 4, 5]),
    ] {
        let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY); INSERT INTO t VALUES (3)";
        let database = Database::on(server.dsn(), sql, "").await;
        let proxy = AlteringProxy::start(host_of(&database.dsn));
        let through = database.dsn.replace(host_of(&database.dsn), &proxy.address());
        let through = with_parameters(&through, "ssl-mode=DISABLED&ignore_with=insert_ignore");
        let db = pipeline(&batchsql_mysql::MySqlSink::connect(&through).await.unwrap());
        let step = Step::new(claim(&db).await, 5);
        let given = rows(&one_column(Conflict::ignore(["id"])), (1..=5).map(|id| (id, 0)));
        proxy.replace(sent, instead);
        let refused = db.write_step(given.rows(), &step).await.unwrap_err();
        assert!(proxy.has_changed());
        assert_eq!((refused.error.class(), refused.error.code()), (ErrorClass::Unknown, Some("1305")), "{instead}");
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [0], "{instead}");
        assert_eq!(numbers(&database, "SELECT id FROM t ORDER BY id").await, left, "{instead}");
        // As a feed goes on after an unknown end.
        let position = claim_when_idle(&db, &Claim::of("a")).await;
        assert_eq!(position.sequence, 0);
        let counts = db.write_step(given.rows(), &Step::new(position, 5)).await.unwrap();
        assert_eq!(counts.get(OutcomeKind::Ignored), left.len() as u64, "{instead}");
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [5], "{instead}");
        assert_eq!(numbers(&database, "SELECT id FROM t ORDER BY id").await, [1, 2, 3, 4, 5], "{instead}");
    }
}

/// The key of a row, by whose bytes the proxy knows a statement with values, and by its digits a text.
pub(crate) const MARKED: i64 = i64::from_le_bytes(*b"row_mark");

/// Of the statement that ends the step.
pub(crate) const COMMIT: &str = "COMMIT AND NO CHAIN";

/// A request of the protocol.
fn query(sql: &str) -> Vec<u8> {
    let length = u8::try_from(sql.len() + 1).unwrap();
    [&[length, 0, 0, 0, 3], sql.as_bytes()].concat()
}

struct Case {
    rule: Conflict,
    parameters: &'static str,
    /// Whether the rows may be written again.
    is_repeatable: bool,
    expected: &'static str,
}

impl Case {
    /// Whether two rows without a position need no transaction.
    fn is_one_statement(&self) -> bool {
        match self.rule.action() {
            Action::Insert | Action::Replace => true,
            Action::Update => self.rule.version().is_none(),
            _ => false,
        }
    }

    /// Two rows, one of which meets a stored one, unless that is refused.
    fn rows(&self) -> SharedRows {
        let schema = match self.rule.action() {
            Action::Delete => one_column(self.rule.clone()),
            _ => two_columns(self.rule.clone()),
        };
        let other = if self.rule.action() == Action::Insert { 8 } else { 7 };
        rows(&schema, [(MARKED, 1), (other, 6)])
    }
}

fn cases() -> Vec<Case> {
    let case = |rule, parameters, is_repeatable, expected| Case { rule, parameters, is_repeatable, expected };
    let newer = Conflict::update(["id"]).only_if_newer("n");
    let add = Conflict::update(["id"]).set("n", Expr::add());
    vec![
        case(Conflict::none(), "", false, "7 5|8 6|M 1"),
        case(Conflict::none(), "&values_in_text=always", false, "7 5|8 6|M 1"),
        case(Conflict::replace(["id"]), "", true, "7 6|M 1"),
        case(Conflict::ignore(["id"]), "", true, "7 5|M 1"),
        case(Conflict::ignore(["id"]), "&ignore_with=insert_ignore", true, "7 5|M 1"),
        case(newer, "", true, "7 6|M 1"),
        case(add, "", false, "7 11|M 1"),
        case(Conflict::update_only(["id"]), "", true, "7 6"),
        case(Conflict::delete(["id"]), "", true, ""),
    ]
}

/// What is in the table.
async fn table(database: &Database) -> String {
    let sql = format!("SELECT concat(if(id = {MARKED}, 'M', id), ' ', n) FROM t ORDER BY id");
    database.read(&sql).await.join("|")
}

/// Ends the transaction of a step before the next request with the mark. The step is told as unknown.
async fn lose(server: &Server, case: &Case, mark: &str) {
    let Case { rule, parameters, is_repeatable, expected } = case;
    let about = format!("{rule:?} {parameters} before {mark}");
    let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT); INSERT INTO t VALUES (7, 5)";
    let database = Database::on(server.dsn(), sql, "").await;
    let proxy = AlteringProxy::start(host_of(&database.dsn));
    let through = database.dsn.replace(host_of(&database.dsn), &proxy.address());
    let through = with_parameters(&through, &format!("ssl-mode=DISABLED{parameters}"));
    let db = pipeline(&batchsql_mysql::MySqlSink::connect(&through).await.unwrap());
    let step = Step::new(claim(&db).await, 2);
    let given = case.rows();
    proxy.send_before(mark, &query("ROLLBACK"));
    let refused = db.write_step(given.rows(), &step).await.unwrap_err();
    assert!(proxy.has_changed(), "{about}");
    assert_eq!(
        (refused.error.class(), refused.error.code()),
        (ErrorClass::Unknown, Some("1305")),
        "{about}: {refused}"
    );
    assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [0], "{about}");
    let is_undone = mark == COMMIT;
    if is_undone {
        assert_eq!(table(&database).await, "7 5", "{about}");
    }
    // As a feed goes on after an unknown end.
    let position = claim_when_idle(&db, &Claim::of("a")).await;
    assert_eq!(position.sequence, 0, "{about}");
    if is_undone || *is_repeatable {
        db.write_step(given.rows(), &Step::new(position, 2)).await.unwrap();
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [2], "{about}");
        assert_eq!(table(&database).await, *expected, "{about}");
    }
}

#[tokio::test]
async fn a_step_whose_transaction_is_lost_is_not_told_as_written() {
    let server = durable_server();
    for case in &cases() {
        let marked = if case.parameters.contains("text") { MARKED.to_string() } else { "row_mark".to_owned() };
        lose(&server, case, &marked).await;
        lose(&server, case, COMMIT).await;
        if case.parameters.contains("insert_ignore") {
            lose(&server, case, "SAVEPOINT batchsql").await;
        }
    }
}

/// Rows before a refused one, or those of a trial, may be committed.
#[tokio::test]
async fn a_refused_step_and_a_trial_whose_transaction_is_lost_are_unknown() {
    let server = durable_server();
    for (is_trial, last) in [(false, -1), (true, 300)] {
        let sql = "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT, CHECK (id >= 0))";
        let database = Database::on(server.dsn(), sql, "").await;
        let proxy = AlteringProxy::start(host_of(&database.dsn));
        let through = database.dsn.replace(host_of(&database.dsn), &proxy.address());
        let through = with_parameters(&through, "ssl-mode=DISABLED&values_in_text=never");
        let db = pipeline(&batchsql_mysql::MySqlSink::connect(&through).await.unwrap());
        let step = Step::new(claim(&db).await, 300);
        let step = if is_trial { step.rolled_back() } else { step };
        let ids = std::iter::once(MARKED).chain(1..299).chain([last]);
        let given = rows(&two_columns(Conflict::none()), ids.map(|id| (id, 0)));
        proxy.send_before("row_mark", &query("ROLLBACK"));
        let refused = db.write_step(given.rows(), &step).await.unwrap_err();
        assert!(proxy.has_changed());
        assert_eq!((refused.error.class(), refused.error.code()), (ErrorClass::Unknown, Some("1305")), "{refused}");
        assert_eq!(numbers(&database, "SELECT sequence FROM batchsql_positions").await, [0]);
    }
}

/// A sink behind a proxy, which writes rows without a position and without a pipeline, which would repeat them.
struct Through {
    proxy: AlteringProxy,
    sink: MySqlSink,
    conn: MySqlConn,
    plan: MySqlPlan,
}

impl Through {
    async fn new(database: &Database, parameters: &str, given: &SharedRows) -> Self {
        let proxy = AlteringProxy::start(host_of(&database.dsn));
        let through = database.dsn.replace(host_of(&database.dsn), &proxy.address());
        let through = with_parameters(&through, &format!("ssl-mode=DISABLED&values_in_text=never{parameters}"));
        let sink = MySqlSink::connect(&through).await.unwrap();
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, given.rows().schema()).await.unwrap();
        Self { proxy, sink, conn, plan }
    }

    async fn write(&mut self, given: &SharedRows) -> Result<Written, SinkError> {
        self.sink.write(&mut self.conn, &self.plan, given.rows(), &Attempt::new(false)).await
    }
}

async fn written(
    database: &Database,
    parameters: &str,
    given: &SharedRows,
    change: impl FnOnce(&AlteringProxy),
) -> Result<Written, SinkError> {
    let mut through = Through::new(database, parameters, given).await;
    change(&through.proxy);
    let written = through.write(given).await;
    assert!(through.proxy.has_changed());
    written
}

const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, n BIGINT, CHECK (id >= 0)); INSERT INTO t VALUES (7, 5)";

/// Rows in two statements at least, however far the server is: one has 10,000 rows at most.
fn pieces(last: i64) -> SharedRows {
    rows(&two_columns(Conflict::none()), (1_000..11_002).chain([last]).map(|id| (id, 1)))
}

/// A batch without a position.
#[tokio::test]
async fn a_batch_whose_transaction_is_lost_is_not_told_as_written() {
    let server = durable_server();
    for case in cases().iter().filter(|case| !case.is_one_statement()) {
        let database = Database::on(server.dsn(), TABLE, "").await;
        let lose = |proxy: &AlteringProxy| proxy.send_before(COMMIT, &query("ROLLBACK"));
        let about = format!("{:?} {}", case.rule, case.parameters);
        let refused = written(&database, case.parameters, &case.rows(), lose).await.unwrap_err();
        assert_eq!((refused.class(), refused.code()), (ErrorClass::Unknown, Some("1305")), "{about}: {refused}");
        assert_eq!(table(&database).await, "7 5", "{about}");
    }
    for (given, mark) in [
        // The first statement is gone, and the last one has committed for itself.
        (pieces(MARKED), "row_mark"),
        (pieces(MARKED), COMMIT),
        // The rows before a refused one are committed.
        (pieces(-1), "INSERT INTO"),
    ] {
        let database = Database::on(server.dsn(), TABLE, "").await;
        let lose = |proxy: &AlteringProxy| proxy.send_before(mark, &query("ROLLBACK"));
        let refused = written(&database, "", &given, lose).await.unwrap_err();
        assert_eq!((refused.class(), refused.code()), (ErrorClass::Unknown, Some("1305")), "{mark}: {refused}");
        let is_there = numbers(&database, "SELECT COUNT(*) FROM t WHERE id <> 7").await[0];
        assert_eq!(is_there == 0, mark == COMMIT, "{mark}: {is_there}");
    }
}

/// The server takes back the statement that has waited for too long, not the transaction. So the savepoint shows whether it is
/// still ours: if it is not, the rows before that statement are committed, and would be there twice if they were repeated.
#[tokio::test]
async fn a_lock_that_is_not_given_in_a_lost_transaction_leaves_rows_unknown() {
    let server = Server::start(Kind::MySql, &["--innodb-lock-wait-timeout=1"]);
    for (mark, expected, left) in [
        ("no such request", (ErrorClass::Transient, Some("1205")), 0),
        ("INSERT INTO", (ErrorClass::Unknown, Some("1305")), 10_000),
    ] {
        let database = Database::on(server.dsn(), TABLE, "").await;
        let mut other = MySqlConnection::connect(&database.dsn).await.unwrap();
        other.execute("START TRANSACTION; INSERT INTO t VALUES (20000, 0)").await.unwrap();
        let given = pieces(20_000);
        let mut through = Through::new(&database, "", &given).await;
        through.proxy.send_before(mark, &query("ROLLBACK"));
        let refused = through.write(&given).await.unwrap_err();
        assert_eq!(through.proxy.has_changed(), left > 0, "{mark}");
        assert_eq!((refused.class(), refused.code()), expected, "{mark}: {refused}");
        other.execute("ROLLBACK").await.unwrap();
        assert_eq!(numbers(&database, "SELECT COUNT(*) FROM t WHERE id <> 7").await, [left], "{mark}");
    }
}

/// It writes as without the check of its transactions.
#[tokio::test]
async fn a_server_that_refuses_the_savepoint_still_writes_rows_without_a_position() {
    let server = durable_server();
    let database = Database::on(server.dsn(), TABLE, "").await;
    let refuse = |proxy: &AlteringProxy| proxy.replace("SAVEPOINT step_of_batchsql", "SAVEPOINT_step_of_batchsql");
    written(&database, "", &pieces(MARKED), refuse).await.unwrap();
    assert_eq!(numbers(&database, "SELECT COUNT(*) FROM t").await, [10_004]);
}
