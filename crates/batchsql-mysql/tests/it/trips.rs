//! Round trips, counted by a proxy.

use batchsql_core::{Action, Attempt, ColumnType, Conflict, Date, Schema, Sink, Time, Timestamp, Value};
use batchsql_mysql::{MySqlConn, MySqlPlan, MySqlSink};
use batchsql_testserver::CountingProxy;

use crate::support::{Database, row, schema, with_parameters};
use batchsql_testkit::batch_of;

const TABLE: &str = "CREATE TABLE t (id BIGINT PRIMARY KEY, note LONGTEXT)";

/// A sink whose round trips are counted.
struct Counted {
    sink: MySqlSink,
    proxy: CountingProxy,
    db: Database,
}

impl Counted {
    async fn start(parameters: &str) -> Self {
        Self::with_table(TABLE, parameters).await
    }

    async fn with_table(table: &str, parameters: &str) -> Self {
        let db = Database::new(table).await;
        let (user, rest) = db.dsn.split_once('@').unwrap();
        let (server, path) = rest.split_once('/').unwrap();
        let proxy = CountingProxy::start(server);
        let dsn = format!("{user}@127.0.0.1:{}/{path}", proxy.port());
        let dsn = with_parameters(&dsn, &format!("ssl-mode=DISABLED&max_connections=1{parameters}"));
        let sink = MySqlSink::connect(&dsn).await.unwrap();
        Self { sink, proxy, db }
    }

    async fn prepare(&self, conn: &mut MySqlConn, schema: &Schema) -> (MySqlPlan, usize) {
        let before = self.proxy.trips();
        let plan = self.sink.prepare(conn, schema).await.unwrap();
        (plan, self.proxy.trips() - before)
    }

    async fn write(&self, conn: &mut MySqlConn, plan: &MySqlPlan, schema: &Schema, ids: std::ops::Range<i64>) -> usize {
        let batch = batch_of(ids.map(|id| row(schema, id, "a"))).await;
        let before = self.proxy.trips();
        self.sink.write(conn, plan, batch.rows(), &Attempt::new(false)).await.unwrap();
        self.proxy.trips() - before
    }
}

#[tokio::test]
async fn a_plan_takes_three_round_trips_and_the_next_of_its_table_one() {
    for (conflict, expected) in [(Conflict::none(), 3), (Conflict::replace(["id"]), 3), (Conflict::ignore(["id"]), 4)] {
        let counted = Counted::start("").await;
        let mut conn = counted.sink.acquire().await.unwrap();
        // The variables of the session, the definition of the table, and the check of each statement.
        let (_plan, trips) = counted.prepare(&mut conn, &schema(conflict.clone())).await;
        assert_eq!(trips, expected, "{conflict:?}");
        let other = Schema::builder("t").column("id", batchsql_core::ColumnType::I64).build().unwrap();
        assert_eq!(counted.prepare(&mut conn, &other).await.1, 1, "{conflict:?}");
    }
}

#[tokio::test]
async fn a_batch_of_any_size_takes_one_round_trip_with_its_values_in_the_text() {
    let counted = Counted::start("&values_in_text=always").await;
    let schema = schema(Conflict::none());
    let mut conn = counted.sink.acquire().await.unwrap();
    let (plan, _) = counted.prepare(&mut conn, &schema).await;
    for ids in [0..1, 1..500, 500..3_000] {
        assert_eq!(counted.write(&mut conn, &plan, &schema, ids.clone()).await, 1, "{ids:?}");
    }
    assert_eq!(counted.db.read("SELECT COUNT(*) FROM t").await, ["3000"]);
}

/// `sqlx` sends a ping when a connection goes back to its pool. The check for an open transaction is a second trip.
#[tokio::test]
async fn a_connection_that_only_the_sink_used_is_not_checked_when_it_goes_back() {
    let counted = Counted::start("").await;
    let trips = async || {
        let conn = counted.sink.acquire().await.unwrap();
        let before = counted.proxy.trips();
        drop(conn);
        // The only connection: it can be acquired when it has gone back.
        drop(counted.sink.acquire().await.unwrap());
        counted.proxy.trips() - before
    };
    // The pool pings a connection that was idle for 100 ms, which a busy machine may take to hand it over.
    let mut least = usize::MAX;
    for _ in 0..100 {
        least = least.min(trips().await);
        if least == 1 {
            break;
        }
    }
    // `pools` tests that it is checked once the application has the pool.
    assert_eq!(least, 1);
}

#[tokio::test]
async fn an_update_only_and_a_delete_of_keys_that_exist_lock_nothing_first() {
    for conflict in [Conflict::update_only(["id"]), Conflict::delete(["id"])] {
        let is_delete = conflict.action() == Action::Delete;
        let counted = Counted::start("").await;
        let only = if is_delete {
            Schema::builder("t").column("id", batchsql_core::ColumnType::I64).on_conflict(conflict).build().unwrap()
        } else {
            schema(conflict)
        };
        let mut conn = counted.sink.acquire().await.unwrap();
        let (plan, _) = counted.prepare(&mut conn, &only).await;
        // Writes four rows, of which the last may be missing.
        let mut write = async |missing: bool| {
            counted.db.run("REPLACE INTO t VALUES (1, 'old'), (2, 'old'), (3, 'old'), (4, 'old'), (9, 'old')").await;
            let ids = [1, 2, 3, if missing { 5 } else { 4 }];
            let batch = batch_of(ids.map(|id| match is_delete {
                true => only.row().set("id", id).unwrap().finish().unwrap(),
                false => row(&only, id, "x".repeat(id as usize * 100)),
            }))
            .await;
            let before = counted.proxy.trips();
            let written = counted.sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
            assert_eq!(written.ignored, if missing { vec![3] } else { Vec::new() });
            let trips = counted.proxy.trips() - before;
            let state = counted.db.read("SELECT id, IF(note = 'old', note, LENGTH(note)) FROM t ORDER BY id").await;
            let (kept, changed) = (["4|old", "9|old"], ["1|100", "2|200", "3|300", "4|400", "9|old"]);
            match (is_delete, missing) {
                (true, true) => assert_eq!(state, kept),
                (true, false) => assert_eq!(state, kept[1..]),
                (false, true) => assert_eq!(state, [&changed[..3], &kept].concat()),
                (false, false) => assert_eq!(state, changed),
            }
            trips
        };
        // Statements are prepared by the first batches.
        write(false).await;
        assert_eq!(write(false).await, 3, "START TRANSACTION, the statement, COMMIT");
        write(true).await;
        assert_eq!(write(true).await, 5, "SET TRANSACTION, START TRANSACTION, SELECT, the statement, COMMIT");
        assert_eq!(write(false).await, 5, "keys were missing in the batch before");
        assert_eq!(write(false).await, 3);
    }
}

/// As keys that are integers: only texts are compared one by one, and values that the server rounds.
#[tokio::test]
async fn keys_of_every_exact_type_that_exist_are_updated_and_deleted_without_a_look() {
    let decimal = |digits: &str| Value::Decimal(digits.parse().unwrap());
    let timestamp = |micros| Value::from(Timestamp::from_micros_since_epoch(micros).unwrap());
    let cases: [(&str, ColumnType, [Value; 2]); 6] = [
        (
            "DATE",
            ColumnType::Date,
            [(2026, 1, 31), (1000, 1, 1)].map(|(y, m, d)| Date::from_ymd(y, m, d).unwrap().into()),
        ),
        (
            "TIME(6)",
            ColumnType::Time,
            [0, 999_999].map(|micro| Time::from_hms_micro(23, 59, 59, micro).unwrap().into()),
        ),
        ("DATETIME(6)", ColumnType::Timestamp, [timestamp(1), timestamp(-1)]),
        ("DECIMAL(20,4)", ColumnType::Decimal, [decimal("1.50"), decimal("-0.0100")]),
        ("BINARY(16)", ColumnType::Uuid, [Value::Uuid([7; 16]), Value::Uuid([0; 16])]),
        ("VARBINARY(20)", ColumnType::Bytes, [Value::Bytes(vec![0, 255]), Value::Bytes(vec![0, 255, 0])]),
    ];
    for (declared, ty, keys) in cases {
        let table = format!("CREATE TABLE t (id {declared} PRIMARY KEY, note INT)");
        for rule in [Conflict::update_only(["id"]), Conflict::delete(["id"])] {
            let counted = Counted::with_table(&table, "").await;
            let is_delete = rule.action() == Action::Delete;
            let schema = |rule: Conflict| {
                let schema = Schema::builder("t").column("id", ty);
                let schema =
                    if rule.action() == Action::Delete { schema } else { schema.column("note", ColumnType::I32) };
                schema.on_conflict(rule).build().unwrap()
            };
            let mut conn = counted.sink.acquire().await.unwrap();
            let mut write = async |rule: Conflict, note: i32| {
                let schema = schema(rule);
                let (plan, _) = counted.prepare(&mut conn, &schema).await;
                let row = |key: &Value| {
                    let row = schema.row().set("id", key.clone()).unwrap();
                    let row = if schema.columns().len() > 1 { row.set("note", note).unwrap() } else { row };
                    row.finish().unwrap()
                };
                let batch = batch_of(keys.iter().map(row)).await;
                let before = counted.proxy.trips();
                let written = counted.sink.write(&mut conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap();
                assert!(written.ignored.is_empty(), "{declared}");
                counted.proxy.trips() - before
            };
            let replace = Conflict::replace(["id"]);
            write(replace.clone(), 1).await;
            write(rule.clone(), 2).await;
            write(replace, 3).await;
            // Statements are prepared by now.
            let trips = write(rule.clone(), 4).await;
            assert_eq!(trips, 3, "{declared} {rule:?}: START TRANSACTION, the statement, COMMIT");
            let left = if is_delete { vec![] } else { vec!["4", "4"] };
            assert_eq!(counted.db.read("SELECT note FROM t").await, left, "{declared} {rule:?}");
        }
    }
}
