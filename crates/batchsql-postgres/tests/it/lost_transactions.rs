//! Transactions that a proxy or the server ends without an error, and begins no other one: what is sent behind that commits for
//! itself, and no row is told as written.

use batchsql_core::{
    Action, Attempt, BatchSql, Claim, ColumnType, Conflict, ErrorClass, Expr, Schema, SharedRows, Sink, SinkError,
    Step, Written,
};
use batchsql_postgres::sqlx::postgres::PgSslMode;
use batchsql_postgres::{PostgresOptions, PostgresSink, Strategy};
use batchsql_testserver::AlteringProxy;

use crate::positions::{claim, key, one_column, rows, sequence};
use crate::support::{TestSink, fresh, pipeline, read};

/// The key of a row, by whose bytes the proxy knows a statement with values.
pub(crate) const MARKED: i64 = i64::from_be_bytes(*b"row_mark");

/// Of the command that ends a transaction.
pub(crate) const COMMIT: &str = "batchsql_open; COMMIT";

/// A request of the protocol.
fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).unwrap();
    [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), &[0]].concat()
}

/// A pipeline behind a proxy.
async fn behind(proxy: &AlteringProxy, direct: &TestSink, strategy: Strategy) -> BatchSql {
    pipeline(&sink_behind(proxy, direct, |options| options.strategy(strategy)).await)
}

async fn sink_behind(
    proxy: &AlteringProxy,
    direct: &TestSink,
    change: impl FnOnce(PostgresOptions) -> PostgresOptions,
) -> PostgresSink {
    let (host, port) = proxy.address().rsplit_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).unwrap();
    let options = (*direct.pg_pool().connect_options()).clone().host(&host).port(port.parse().unwrap());
    let options = change(PostgresOptions::from_connect_options(options.ssl_mode(PgSslMode::Disable)));
    PostgresSink::with_options(&options).await.unwrap()
}

/// Writes rows without a position and without a pipeline, which would repeat them. The transaction is lost before the mark.
async fn written(
    sink: &PostgresSink,
    given: &SharedRows,
    (proxy, mark): (&AlteringProxy, &str),
) -> Result<Written, SinkError> {
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, given.rows().schema()).await.unwrap();
    proxy.send_before(mark, &query("ROLLBACK"));
    let written = sink.write(&mut conn, &plan, given.rows(), &Attempt::new(false)).await;
    assert!(proxy.has_changed(), "before {mark}");
    written
}

fn proxy_of(direct: &TestSink) -> AlteringProxy {
    let options = direct.pg_pool().connect_options();
    AlteringProxy::start(&format!("{}:{}", options.get_host(), options.get_port()))
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY CHECK (id >= 0)); INSERT INTO t VALUES (7)";

/// Rows that a trigger may drop are numbered.
const DROPS: &str = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";

async fn table(sink: &TestSink) -> Vec<String> {
    read(sink, &format!("SELECT CASE id WHEN {MARKED} THEN 'M' ELSE id::text END FROM t ORDER BY id")).await
}

#[tokio::test]
async fn a_step_whose_transaction_is_lost_is_not_told_as_written() {
    let replace = || Conflict::replace(["id"]);
    let cases = [
        ("", Conflict::none(), Strategy::Copy, "COPY \""),
        ("", replace(), Strategy::MultiValues, "row_mark"),
        ("", Conflict::ignore(["id"]), Strategy::MultiValues, "row_mark"),
        ("", replace(), Strategy::Staging, "ON COMMIT DROP"),
        ("", Conflict::ignore(["id"]), Strategy::Staging, COMMIT),
        (DROPS, replace(), Strategy::Unnest, "row_mark"),
    ];
    for (more, rule, strategy, mark) in cases {
        for mark in [mark, COMMIT] {
            let about = format!("{rule:?} {strategy:?} {more} before {mark}");
            let direct = fresh(&format!("{TABLE}; {more}")).await;
            let proxy = proxy_of(&direct);
            let db = behind(&proxy, &direct, strategy).await;
            let step = Step::new(claim(&db).await, 2);
            let other = if rule == Conflict::none() { 8 } else { 7 };
            let given = rows(&one_column(rule.clone()), [(MARKED, 0), (other, 0)]);
            proxy.send_before(mark, &query("ROLLBACK"));
            let refused = db.write_step(given.rows(), &step).await.unwrap_err();
            assert!(proxy.has_changed(), "{about}");
            let told = (refused.error.class(), refused.error.code());
            assert_eq!(told, (ErrorClass::Unknown, Some("25P01")), "{about}: {refused}");
            assert_eq!(sequence(&direct).await, 0, "{about}");
            let is_undone = mark == COMMIT;
            if is_undone {
                assert_eq!(table(&direct).await, ["7"], "{about}");
            }
            // As a feed goes on after an unknown end.
            let position = db.claim(&key(), &Claim::of("a")).await.unwrap().position().unwrap();
            assert_eq!(position.sequence, 0, "{about}");
            if is_undone || rule != Conflict::none() {
                db.write_step(given.rows(), &Step::new(position, 2)).await.unwrap();
                assert_eq!(sequence(&direct).await, 2, "{about}");
                let expected = if other == 8 { vec!["7", "8", "M"] } else { vec!["7", "M"] };
                assert_eq!(table(&direct).await, expected, "{about}");
            }
        }
    }
}

/// Rows before a refused one, or those of a trial, may be committed.
#[tokio::test]
async fn a_refused_step_and_a_trial_whose_transaction_is_lost_are_unknown() {
    let (two_statements, one) = (1..699, 1..3);
    for (is_trial, ids, last) in [(false, two_statements, -1), (true, one, 3)] {
        let direct = fresh("CREATE TABLE t (id bigint CHECK (id >= 0))").await;
        let proxy = proxy_of(&direct);
        let db = behind(&proxy, &direct, Strategy::MultiValues).await;
        let step = Step::new(claim(&db).await, 700);
        let step = if is_trial { step.rolled_back() } else { step };
        let schema = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        let given = rows(&schema, std::iter::once(MARKED).chain(ids).chain([last]).map(|id| (id, 0)));
        proxy.send_before("row_mark", &query("ROLLBACK"));
        let refused = db.write_step(given.rows(), &step).await.unwrap_err();
        assert!(proxy.has_changed());
        let told = (refused.error.class(), refused.error.code());
        assert_eq!(told, (ErrorClass::Unknown, Some("25P01")), "{is_trial}: {refused}");
        assert_eq!(sequence(&direct).await, 0);
    }
}

/// A batch without a position, of several statements or of one between BEGIN and COMMIT.
#[tokio::test]
async fn a_batch_whose_transaction_is_lost_is_not_told_as_written() {
    const END: &str = "COMMIT\0";
    let few = || vec![MARKED, 8];
    let in_pieces = || (1..700).chain([MARKED]).collect::<Vec<i64>>();
    let twice = || vec![MARKED, 8, MARKED];
    let (none, replace) = (Conflict::none, || Conflict::replace(["id"]));
    let sum = || Conflict::update(["id"]).set("n", Expr::raw("{old} + {new}"));
    let cases = [
        // The first statement is gone, and the last one has committed for itself.
        (none(), Strategy::MultiValues, true, in_pieces(), "row_mark"),
        (none(), Strategy::MultiValues, true, in_pieces(), END),
        (replace(), Strategy::Staging, true, few(), END),
        // In waves: each row of a key counts.
        (sum(), Strategy::Unnest, true, twice(), END),
        (none(), Strategy::Unnest, false, few(), END),
    ];
    for (rule, strategy, named, ids, mark) in cases {
        let about = format!("{rule:?} {strategy:?} {named} before {mark}");
        let direct = fresh("CREATE TABLE t (id bigint PRIMARY KEY, n bigint)").await;
        let proxy = proxy_of(&direct);
        let schema = Schema::builder("t").column("id", ColumnType::I64);
        let schema = if rule.action() == Action::Update { schema.column("n", ColumnType::I64) } else { schema };
        let schema = schema.on_conflict(rule).build().unwrap();
        let change = |options: PostgresOptions| options.strategy(strategy).prepared_statements(named);
        let sink = sink_behind(&proxy, &direct, change).await;
        let given = rows(&schema, ids.into_iter().map(|id| (id, 0)));
        let refused = written(&sink, &given, (&proxy, mark)).await.unwrap_err();
        assert_eq!((refused.class(), refused.code()), (ErrorClass::Unknown, Some("25P01")), "{about}: {refused}");
        let is_there = table(&direct).await;
        assert!(
            if mark == END { is_there.is_empty() } else { is_there.last().unwrap() == "M" },
            "{about}: {is_there:?}"
        );
    }
}

/// Rows before a refused one may be committed, and rows whose values are returned are.
#[tokio::test]
async fn a_refused_batch_and_one_with_returned_values_whose_transaction_is_lost_are_unknown() {
    let direct = fresh("CREATE TABLE t (id bigint CHECK (id >= 0))").await;
    let proxy = proxy_of(&direct);
    let schema = one_column(Conflict::none());
    let returning =
        Schema::builder("t").column("id", ColumnType::I64).returning("id", ColumnType::I64).build().unwrap();
    let refused = rows(&schema, std::iter::once(MARKED).chain(1..699).chain([-1]).map(|id| (id, 0)));
    let (few, fails) = (rows(&returning, [(1, 0), (MARKED, 0)]), rows(&returning, [(MARKED, 0), (-1, 0)]));
    for (given, mark) in [(refused, "row_mark"), (few, "COMMIT\0"), (fails, "INSERT INTO")] {
        let is_named = given.rows().schema().returning().is_empty();
        let change = |options: PostgresOptions| options.strategy(Strategy::MultiValues).prepared_statements(is_named);
        let sink = sink_behind(&proxy, &direct, change).await;
        let refused = written(&sink, &given, (&proxy, mark)).await.unwrap_err();
        let told = (refused.class(), refused.code());
        assert_eq!(told, (ErrorClass::Unknown, Some("25P01")), "{is_named} {mark}: {refused}");
    }
}
