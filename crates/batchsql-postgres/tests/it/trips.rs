//! Round trips of a batch, counted by a proxy.

use std::time::Duration;

use batchsql_core::{Attempt, ColumnType, Conflict, ErrorClass, Schema, SharedRows, Sink, Written};
use batchsql_postgres::sqlx::postgres::PgSslMode;
use batchsql_postgres::{PostgresConn, PostgresOptions, PostgresPlan, PostgresSink, Strategy};
use batchsql_testserver::CountingProxy;

use crate::support::{TestSink, batch_of, execute, fresh, fresh_dsn, read, row, schema, values, with_parameter, write};

/// A sink whose round trips are counted, with its connection.
pub(crate) struct Counted {
    sink: PostgresSink,
    conn: PostgresConn,
    proxy: CountingProxy,
    pub(crate) direct: TestSink,
}

impl Counted {
    pub(crate) async fn start(sql: &str, change: impl FnOnce(PostgresOptions) -> PostgresOptions) -> Self {
        let direct = fresh(sql).await;
        let options = (*direct.pg_pool().connect_options()).clone();
        let proxy = CountingProxy::start(&format!("{}:{}", options.get_host(), options.get_port()));
        let options = options.host("127.0.0.1").port(proxy.port()).ssl_mode(PgSslMode::Disable);
        let options = change(PostgresOptions::from_connect_options(options)).max_connections(1);
        let sink = PostgresSink::with_options(&options).await.unwrap();
        let conn = sink.acquire().await.unwrap();
        Self { sink, conn, proxy, direct }
    }

    pub(crate) async fn prepare(&mut self, schema: &Schema) -> (PostgresPlan, usize) {
        let before = self.proxy.trips();
        let plan = self.sink.prepare(&mut self.conn, schema).await.unwrap();
        (plan, self.proxy.trips() - before)
    }

    pub(crate) async fn write(&mut self, plan: &PostgresPlan, batch: &SharedRows) -> (Written, usize) {
        let before = self.proxy.trips();
        let written = self.sink.write(&mut self.conn, plan, batch.rows(), &Attempt::new(false)).await.unwrap();
        (written, self.proxy.trips() - before)
    }

    /// Round trips of the second batch, when statements are prepared.
    pub(crate) async fn second(&mut self, schema: &Schema, first: &SharedRows, second: &SharedRows) -> usize {
        let (plan, _) = self.prepare(schema).await;
        self.write(&plan, first).await;
        self.write(&plan, second).await.1
    }
}

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY, note text)";

#[tokio::test]
async fn a_batch_takes_one_round_trip_or_the_two_of_copy() {
    for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let mut counted = Counted::start(TABLE, |options| options).await;
        let schema = schema(conflict.clone());
        let (first, second) = (batch_of(&schema, 0..10).await, batch_of(&schema, 10..20).await);
        assert_eq!(counted.second(&schema, &first, &second).await, 1, "{conflict:?}");
        // Without named statements: BEGIN, two for the statement, COMMIT. COPY takes fewer round trips for a single
        // row.
        let mut counted = Counted::start(TABLE, |options| options.prepared_statements(false)).await;
        let expected = if conflict == Conflict::none() { 2 } else { 4 };
        assert_eq!(counted.second(&schema, &first, &second).await, expected, "{conflict:?}");
    }
}

#[tokio::test]
async fn a_table_is_read_in_one_round_trip() {
    for named in [true, false] {
        let mut counted = Counted::start(TABLE, |options| options.prepared_statements(named)).await;
        let first = Schema::builder("t").column("id", ColumnType::I64).build().unwrap();
        counted.prepare(&first).await;
        // What the sink measures and learns of its server is known now.
        execute(counted.direct.pg_pool(), "CREATE TABLE other (id bigint)").await;
        let other = Schema::builder("other").column("id", ColumnType::I64).build().unwrap();
        let (plan, trips) = counted.prepare(&other).await;
        // The check that the connection has no open transaction, and the read.
        assert!(trips <= 2, "{trips} with named statements {named}");
        drop(plan);
        let missing = Schema::builder("o'ther \\").column("id", ColumnType::I64).build().unwrap();
        let error = counted.sink.prepare(&mut counted.conn, &missing).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Schema, "{error}");
    }
}

/// COPY takes one more round trip, so it must save at least that time.
#[tokio::test]
async fn how_far_the_server_is_decides_between_copy_and_unnest() {
    let mut counted = Counted::start(TABLE, |options| options).await;
    counted.proxy.delay_answers(50);
    let schema = schema(Conflict::none());
    let (first, second) = (batch_of(&schema, 0..500).await, batch_of(&schema, 500..1_000).await);
    assert_eq!(counted.second(&schema, &first, &second).await, 1);
    assert_eq!(read(&counted.direct, "SELECT count(*) FROM t").await, ["1000"]);
}

const DROPS: &str = "CREATE TABLE t (id bigint PRIMARY KEY, note text);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN IF new.note = ''drop'' THEN RETURN NULL; END IF; RETURN new; END';
    CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";

#[tokio::test]
async fn a_trigger_that_drops_nothing_costs_no_round_trip() {
    for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let mut counted = Counted::start(DROPS, |options| options).await;
        let schema = schema(conflict.clone());
        let (first, second) = (batch_of(&schema, 0..500).await, batch_of(&schema, 500..1_000).await);
        assert_eq!(counted.second(&schema, &first, &second).await, 1, "{conflict:?}");
        // Nor does one that drops everything, or a batch that is ignored as a whole.
        let (plan, _) = counted.prepare(&schema).await;
        let dropped = batchsql_testkit::batch_of((2_000..2_100).map(|id| row(&schema, id, "drop"))).await;
        let (written, trips) = counted.write(&plan, &dropped).await;
        assert_eq!((written.ignored.len(), trips), (100, 1), "{conflict:?}");
        if conflict == Conflict::ignore(["id"]) {
            let (written, trips) = counted.write(&plan, &first).await;
            assert_eq!((written.ignored.len(), trips), (500, 1));
        }
        // Nor do rows that are dropped between others.
        let some = |from: i64| (from..from + 100).map(|id| row(&schema, id, if id % 50 == 7 { "drop" } else { "a" }));
        let schema_rows =
            [batchsql_testkit::batch_of(some(3_000)).await, batchsql_testkit::batch_of(some(4_000)).await];
        for batch in schema_rows {
            let (written, trips) = counted.write(&plan, &batch).await;
            assert_eq!((written.ignored, trips), (vec![7, 57], 1), "{conflict:?}");
        }
        assert_eq!(read(&counted.direct, "SELECT count(*) FROM t").await, ["1196"], "{conflict:?}");
    }
}

/// Which rows were written is not known from their keys: the trigger changes them.
#[tokio::test]
async fn rows_between_those_that_a_trigger_drops_or_changes_have_their_own_outcomes() {
    let sql = "CREATE TABLE log (note text);
        CREATE TABLE t (id bigint PRIMARY KEY, note text) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (50);
        CREATE TABLE high PARTITION OF t FOR VALUES FROM (50) TO (1000);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS '
            BEGIN
                BEGIN
                    INSERT INTO log SELECT n || new.note FROM generate_series(1, 2) AS n;
                    IF new.id % 7 = 0 THEN RAISE EXCEPTION ''inner''; END IF;
                EXCEPTION WHEN OTHERS THEN RAISE NOTICE ''%'', new.note;
                END;
                IF new.id % 3 = 0 THEN RETURN NULL; END IF;
                -- The key of the row that was dropped before.
                IF new.id % 3 = 1 THEN new.id := new.id - 1; END IF;
                RETURN new;
            END';
        CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()";
    for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let mut counted = Counted::start(sql, |options| options).await;
        execute(counted.direct.pg_pool(), "INSERT INTO high VALUES (83, 'old')").await;
        let schema = schema(conflict.clone());
        let (plan, _) = counted.prepare(&schema).await;
        let batch = batchsql_testkit::batch_of((0..100).filter(|id| *id != 83).map(|id| row(&schema, id, "a"))).await;
        let attempt = Attempt::new(false);
        let written = counted.sink.write(&mut counted.conn, &plan, batch.rows(), &attempt).await.unwrap();
        let dropped: Vec<u32> = (0..99).filter(|row| (row + u32::from(*row >= 83)) % 3 == 0).collect();
        assert_eq!(written.ignored, dropped, "{conflict:?}");
        let stored = read(&counted.direct, "SELECT count(*), sum(id) FROM t WHERE note = 'a'").await;
        let ids = (0..100).filter(|id| id % 3 != 0 && *id != 83).map(|id| if id % 3 == 1 { id - 1 } else { id });
        assert_eq!(stored, [format!("{}|{}", ids.clone().count(), ids.sum::<i64>())], "{conflict:?}");
    }
}

/// Rows that are left out return nothing.
#[tokio::test]
async fn returned_values_of_some_rows_take_one_round_trip() {
    let sql = DROPS.replace("id bigint PRIMARY KEY", "id bigint PRIMARY KEY, made bigint GENERATED ALWAYS AS IDENTITY");
    for rule in [Conflict::none(), Conflict::ignore(["id"]), Conflict::replace(["id"])] {
        let mut counted = Counted::start(&sql, |options| options).await;
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
        let schema = schema.on_conflict(rule.clone()).returning("made", ColumnType::I64).build().unwrap();
        let (plan, _) = counted.prepare(&schema).await;
        let notes = |from: i64| (from..from + 100).map(|id| row(&schema, id, if id % 50 == 7 { "drop" } else { "a" }));
        counted.write(&plan, &batchsql_testkit::batch_of(notes(0)).await).await;
        let (written, trips) = counted.write(&plan, &batchsql_testkit::batch_of(notes(100)).await).await;
        assert_eq!((&*written.ignored, written.returned.len(), trips), (&[7, 57][..], 98, 1), "{rule:?}");
        for (index, values) in &written.returned {
            let stored = read(&counted.direct, &format!("SELECT made FROM t WHERE id = {}", 100 + index)).await;
            let [batchsql_core::Value::I64(made)] = &**values else { panic!("{values:?}") };
            assert_eq!(stored, [made.to_string()], "{rule:?} {index}");
        }
    }
}

/// A key that is not returned as it was sent.
#[tokio::test]
async fn new_rows_whose_keys_are_not_known_again_take_one_round_trip() {
    let mut counted = Counted::start("CREATE TABLE t (k char(8) PRIMARY KEY)", |options| options).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).on_conflict(Conflict::ignore(["k"]));
    let schema = schema.build().unwrap();
    let batch = async |keys: std::ops::Range<u32>| {
        batchsql_testkit::batch_of(keys.map(|k| values(&schema, [format!("k{k}").into()]))).await
    };
    let (first, second) = (batch(0..500).await, batch(500..1_000).await);
    assert_eq!(counted.second(&schema, &first, &second).await, 1);
    let (plan, _) = counted.prepare(&schema).await;
    let (written, trips) = counted.write(&plan, &batch(900..1_100).await).await;
    assert_eq!((written.ignored, trips), ((0..100).collect::<Vec<_>>(), 1));
}

#[tokio::test]
async fn triggers_that_cannot_fire_do_not_count() {
    let function = "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';";
    let check = async |sql: &str, conflict: Conflict, expected: &str| {
        let sink = fresh(&format!("{TABLE}; {function} {sql}")).await;
        let mut conn = sink.acquire().await.unwrap();
        let plan = sink.prepare(&mut conn, &schema(conflict.clone())).await.unwrap();
        // The debug output of a plan.
        let shown = format!("{plan:?}");
        assert!(shown.contains(&format!("outcome_source: {expected}")), "{sql} {conflict:?}: {shown}");
    };
    let on = |events: &str| format!("CREATE TRIGGER g {events} ON t FOR EACH ROW EXECUTE FUNCTION f()");
    check(&on("BEFORE UPDATE OR DELETE"), Conflict::none(), "Total").await;
    check(&on("BEFORE UPDATE OR DELETE"), Conflict::ignore(["id"]), "Keys").await;
    check(&on("BEFORE UPDATE"), Conflict::replace(["id"]), "Numbers").await;
    check(&on("BEFORE DELETE"), Conflict::replace(["id"]), "Total").await;
    check(&on("AFTER INSERT OR UPDATE"), Conflict::replace(["id"]), "Total").await;
    check(&on("BEFORE INSERT"), Conflict::none(), "Numbers").await;
    // As in TimescaleDB. Another trigger with this name is an ordinary one.
    let timescale = "CREATE SCHEMA IF NOT EXISTS _timescaledb_functions;
        CREATE OR REPLACE FUNCTION _timescaledb_functions.insert_blocker() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN new; END';
        CREATE TRIGGER ts_insert_blocker BEFORE INSERT ON t FOR EACH ROW
            EXECUTE FUNCTION _timescaledb_functions.insert_blocker()";
    check(timescale, Conflict::none(), "Total").await;
    check(&on("BEFORE INSERT").replace(" g ", " ts_insert_blocker "), Conflict::none(), "Numbers").await;
    // A trigger that fires may change the encoding, which only UNNEST checks: 1 round trip. COPY has 2.
    let trips = async |sql: &str| {
        let copy = |options: PostgresOptions| options.strategy(Strategy::Copy);
        let mut counted = Counted::start(&format!("{TABLE}; {function} {sql}"), copy).await;
        let schema = schema(Conflict::none());
        let first = batchsql_testkit::batch_of((0..10).map(|id| row(&schema, id, "é"))).await;
        let second = batchsql_testkit::batch_of((10..20).map(|id| row(&schema, id, "é"))).await;
        counted.second(&schema, &first, &second).await
    };
    let aggregate = "CREATE SCHEMA IF NOT EXISTS _timescaledb_functions;
        CREATE OR REPLACE FUNCTION _timescaledb_functions.continuous_agg_invalidation_trigger() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN RETURN new; END';
        CREATE TRIGGER ts_cagg_invalidation_trigger AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW
            EXECUTE FUNCTION _timescaledb_functions.continuous_agg_invalidation_trigger()";
    for sql in ["", &*on("BEFORE UPDATE OR DELETE"), &*on("AFTER DELETE"), timescale, aggregate] {
        assert_eq!(trips(sql).await, 2, "{sql}");
    }
    for sql in [on("AFTER INSERT OR DELETE"), on("AFTER INSERT").replace("ROW", "STATEMENT")] {
        assert_eq!(trips(&sql).await, 1, "{sql}");
    }
}

/// COPY does not check the encoding itself.
#[tokio::test]
async fn after_a_table_with_triggers_each_connection_is_checked_before_a_copy_to_another_one() {
    let sql = format!(
        "{TABLE}; CREATE TABLE plain (LIKE t);
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
         CREATE TRIGGER f AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"
    );
    let mut counted = Counted::start(&sql, |options| options.strategy(Strategy::Copy)).await;
    let triggered = schema(Conflict::none());
    let plain = Schema::builder("plain").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
    let plain = plain.build().unwrap();
    let ((of_triggered, _), (of_plain, _)) = (counted.prepare(&triggered).await, counted.prepare(&plain).await);
    let (first, second) = (batch_of(&triggered, 0..10).await, batch_of(&plain, 0..10).await);
    assert_eq!(counted.write(&of_plain, &second).await.1, 2);
    assert_eq!(counted.write(&of_triggered, &first).await.1, 2);
    assert_eq!(counted.write(&of_plain, &second).await.1, 3);
    assert_eq!(counted.write(&of_plain, &second).await.1, 2, "it was checked");
    let Counted { sink, conn, proxy, direct } = counted;
    drop(conn);
    let conn = sink.acquire().await.unwrap();
    let mut counted = Counted { sink, conn, proxy, direct };
    assert_eq!(counted.write(&of_plain, &second).await.1, 3, "triggers may have run on it before");
    assert_eq!(counted.write(&of_plain, &second).await.1, 2);
}

/// The numbers of rows are not known where a trigger drops one, so each row is counted alone.
#[tokio::test]
async fn a_row_of_tables_that_inherit_takes_one_round_trip() {
    let sql = format!(
        "{TABLE}; CREATE TABLE c () INHERITS (t); INSERT INTO t SELECT n, 'old' FROM generate_series(0, 99) AS n;
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN CASE WHEN new.id % 50 <> 3 THEN new END; END';
         CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()"
    );
    let mut counted = Counted::start(&sql, |options| options).await;
    let schema = schema(Conflict::update_only(["id"]));
    let (plan, _) = counted.prepare(&schema).await;
    let mut trips = Vec::new();
    for ids in [0..10, 0..10, 50..80] {
        let batch = batch_of(&schema, ids).await;
        let (written, taken) = counted.write(&plan, &batch).await;
        assert_eq!(written.ignored, [3]);
        trips.push(taken);
    }
    assert_eq!(trips[2] - trips[1], 20, "{trips:?}");
}

/// A pool may have sessions of both kinds.
#[tokio::test]
async fn triggers_of_replicated_changes_have_exact_outcomes() {
    let sql = format!(
        "{TABLE}; CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN RETURN CASE WHEN new.id % 2 = 0 THEN new END; END';
         CREATE TRIGGER g BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f();
         ALTER TABLE t ENABLE REPLICA TRIGGER g"
    );
    let dsn = fresh_dsn(&sql).await;
    for (role, odd) in [("origin", "written"), ("replica", "ignored")] {
        let options = batchsql_postgres::sqlx::postgres::PgPoolOptions::new().max_connections(1);
        let pool = options.connect(&with_parameter(&dsn, &format!("options[session_replication_role]={role}"))).await;
        let sink = PostgresSink::new(pool.unwrap());
        for rule in [Conflict::none(), Conflict::replace(["id"]), Conflict::ignore(["id"]), Conflict::update(["id"])] {
            execute(sink.pg_pool(), "TRUNCATE t").await;
            let schema = schema(rule.clone());
            let outcomes = write(&sink, (0..50).map(|id| row(&schema, id, "a"))).await;
            let expected: Vec<&str> = (0..50).map(|id| if id % 2 == 0 { "written" } else { odd }).collect();
            assert_eq!(outcomes, expected, "{role} {rule:?}");
        }
    }
}

/// Each shape of rows has its own schema of the same table.
#[tokio::test]
async fn the_schemas_of_a_table_read_it_once() {
    let columns = "CREATE TABLE t (id bigint PRIMARY KEY, a int, b int, c int, d int)";
    let mut counted = Counted::start(columns, |options| options).await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::replace(["id"]));
    let schema = ["a", "b", "c", "d"].into_iter().fold(schema, |schema, name| schema.nullable(name, ColumnType::I32));
    let schema = schema.build().unwrap();
    let shape = async |column: &str| {
        let row = schema.row().set("id", 1_i64).unwrap().set(column, 1_i32).unwrap().finish().unwrap();
        batchsql_testkit::batch_of([row]).await
    };
    let mut plans = Vec::new();
    let begin = tokio::time::Instant::now();
    for column in ["a", "b", "c", "d"] {
        let batch = shape(column).await;
        let (plan, trips) = counted.prepare(batch.rows().schema()).await;
        plans.push((plan, batch, trips));
    }
    assert!(plans[0].2 > 0);
    // After a second the table is read again; a unit test covers this with a paused clock.
    let shared = plans[1..].iter().filter(|(_, _, trips)| *trips == 0).count();
    assert!(shared == 3 || begin.elapsed() >= Duration::from_secs(1), "{shared}");
    // A second request reads the table, which may have changed.
    execute(counted.direct.pg_pool(), "ALTER TABLE t DROP b").await;
    let batch = shape("b").await;
    let error = counted.sink.prepare(&mut counted.conn, batch.rows().schema()).await.unwrap_err();
    assert!(error.to_string().contains("it has no column \"b\""), "{error}");
}

/// Values that do not fit may come with every batch: the table is not read for each.
#[tokio::test]
async fn a_value_that_does_not_fit_costs_no_reading_of_the_table() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, note varchar(3))";
    let mut counted = Counted::start(table, |options| options).await;
    let schema = schema(Conflict::replace(["id"]));
    let (plan, _) = counted.prepare(&schema).await;
    let batch = batchsql_testkit::batch_of([row(&schema, 1, "abc"), row(&schema, 2, "abcd")]).await;
    let begin = tokio::time::Instant::now();
    for n in 0..3 {
        let (written, trips) = counted.write(&plan, &batch).await;
        assert_eq!(written.rejected.len(), 1);
        // The first one checks whether the column has become wider.
        assert!(n == 0 || trips == 1 || begin.elapsed() >= Duration::from_secs(1), "{n}: {trips}");
    }
}

/// A batch that is rejected for a value has dropped no row: the next one is tried as a whole again.
#[tokio::test]
async fn a_refused_value_does_not_send_the_next_batches_in_parts() {
    let sql = "CREATE TABLE t (k char(8) PRIMARY KEY, v interval day)";
    let mut counted = Counted::start(sql, |options| options).await;
    let schema = Schema::builder("t").column("k", ColumnType::Text).column("v", ColumnType::Text);
    let schema = schema.on_conflict(Conflict::ignore(["k"])).build().unwrap();
    let batch = async |keys: std::ops::Range<u32>, v: &str| {
        batchsql_testkit::batch_of(keys.map(|k| values(&schema, [format!("k{k}").into(), v.into()]))).await
    };
    let (first, second) = (batch(0..500, "1 day").await, batch(500..1_000, "1 day").await);
    let refused = batch(2_000..2_001, "1 day 2 hours").await;
    let (plan, _) = counted.prepare(&schema).await;
    counted.write(&plan, &first).await;
    let attempt = Attempt::new(false);
    let error = counted.sink.write(&mut counted.conn, &plan, refused.rows(), &attempt).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Row, "{error}");
    assert_eq!(counted.write(&plan, &second).await.1, 1);
}

/// There are more shapes than kept statements: rarely used ones do not evict each other.
#[tokio::test]
async fn shapes_that_are_seldom_used_are_not_kept_at_the_server() {
    let columns: Vec<String> = (0..9).map(|n| format!("c{n} int")).collect();
    let table = format!("CREATE TABLE t (id bigint PRIMARY KEY, {})", columns.join(","));
    let mut counted = Counted::start(&table, |options| options).await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::replace(["id"]));
    let schema = (0..9).fold(schema, |schema, n| schema.nullable(format!("c{n}"), ColumnType::I32)).build().unwrap();
    let shape = |shape: i64| {
        let row = schema.row().set("id", shape).unwrap();
        let row =
            (0..9).filter(|n| shape & (1 << n) != 0).fold(row, |row, n| row.set(&format!("c{n}"), 1_i32).unwrap());
        row.finish().unwrap()
    };
    let mut plans = Vec::new();
    for n in 0..300 {
        let batch = batchsql_testkit::batch_of([shape(n)]).await;
        plans.push((counted.prepare(batch.rows().schema()).await.0, batch));
    }
    let names = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT%'";
    let (plan, batch) = &plans[200];
    for n in 0..17 {
        let (_, trips) = counted.write(plan, batch).await;
        // A frequently used one gets a name.
        assert_eq!(trips, 2, "statement {n}");
    }
    assert_eq!(counted.write(plan, batch).await.1, 1);
    for (plan, batch) in &plans {
        let (_, trips) = counted.write(plan, batch).await;
        assert!(trips <= 2, "{trips}");
    }
    drop(counted.conn);
    assert_eq!(read(&counted.sink, names).await, ["1"]);
    assert_eq!(read(&counted.direct, "SELECT count(*) FROM t").await, ["300"]);
}

/// Types that are sent as text are copied in binary form if their spelling is plain.
#[tokio::test]
async fn plain_spellings_are_copied_and_others_are_left_to_the_server() {
    let cases = [
        ("inet", "10.1.2.3/8", "10.1.2.3/8", "10.1.2.3/255", "10.1.2/24"),
        ("inet", "::ffff:1.2.3.4", "::ffff:1.2.3.4", "nowhere", "10.1/16"),
        ("cidr", "10.0.0.0/8", "10.0.0.0/8", "10.0.0.1/8", "10/8"),
        ("macaddr", "08:00:2B:01:02:03", "08:00:2b:01:02:03", "08:00", "08002b:010203"),
        ("bit(9)", "101010101", "101010101", "1", "b111111111"),
        ("varbit", "", "", "2", "xF"),
        ("timetz", "23:59:59.5-03:30", "23:59:59.5-03:30", "25:00:00+00", "12:00+02"),
        ("interval", "1 year 2 mons 3 days 04:05:06.7", "1 year 2 mons 3 days 04:05:06.7", "1 fortnite", "P1D"),
        ("int4range", "[1,5]", "[1,6)", "[5,1]", "[ 1,5]"),
        ("int8range", "(,-9000000000)", "(,-9000000000)", "[a,b]", "[+1,2)"),
        ("int4range", "empty", "empty", "[3000000000,)", "EMPTY"),
        ("numrange", "[-1.50,2)", "[-1.50,2)", "[2,1]", "[1e3,)"),
        ("daterange", "[2026-01-31,)", "[2026-01-31,)", "[2026-02-30,)", "[20260131,)"),
        (
            "tsrange",
            "[0001-01-01 00:00:00,\"9999-12-31T23:59:59.999999\"]",
            "[\"0001-01-01 00:00:00\",\"9999-12-31 23:59:59.999999\"]",
            "[2026-02-30 00:00:00,)",
            "[2026-01-31,)",
        ),
        (
            "tstzrange",
            "(2026-01-31 12:00:00.5+02:00,infinity]",
            "(\"2026-01-31 10:00:00.5+00\",infinity]",
            "[2026-01-31 25:00:00+00,)",
            "[2026-01-31 12:00:00+02,)",
        ),
    ];
    for (ty, plain, shown, invalid, other) in cases {
        let table = format!("CREATE TABLE t (id bigint PRIMARY KEY, v {ty})");
        let copy = |options: PostgresOptions| options.strategy(Strategy::Copy);
        let mut counted = Counted::start(&table, copy).await;
        let schema =
            Schema::builder("t").column("id", ColumnType::I64).nullable("v", ColumnType::Text).build().unwrap();
        let value = |id: i64, text: &str| values(&schema, [id.into(), text.into()]);
        let null = |id: i64| values(&schema, [id.into(), batchsql_core::Value::Null]);
        let (plan, _) = counted.prepare(&schema).await;
        let batch = batchsql_testkit::batch_of([value(1, plain), null(2)]).await;
        assert_eq!(counted.write(&plan, &batch).await.1, 2, "{ty} {plain}");
        let stored = ["1", "2"].map(|id| format!("SELECT v FROM t WHERE id = {id}"));
        assert_eq!(read(&counted.direct, &stored[0]).await, [shown], "{ty}");
        assert_eq!(read(&counted.direct, &stored[1]).await, ["NULL"], "{ty}");
        // The server parses the text to the same value.
        let cast = format!("SELECT v::text = '{plain}'::{ty}::text FROM t WHERE id = 1");
        assert_eq!(read(&counted.direct, &cast).await, ["t"], "{ty}");
        for id in [3, 4] {
            let batch = batchsql_testkit::batch_of([value(id, other)]).await;
            let trips = counted.write(&plan, &batch).await.1;
            // One round trip with a prepared statement.
            assert!(id == 3 || trips == 1, "{ty} {other}: {trips}");
        }
        let batch = batchsql_testkit::batch_of([value(5, invalid)]).await;
        let error = counted.sink.write(&mut counted.conn, &plan, batch.rows(), &Attempt::new(false)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Row, "{ty} {invalid}: {error}");
    }
}
