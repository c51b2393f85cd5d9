//! Updates without insert and deletes of which some rows find nothing, by keys that may be written in several forms; and the round
//! trips of a temporary table.

use batchsql_core::{Action, ColumnType, Conflict, Decimal, Expr, Schema, SharedRows, Value};
use batchsql_postgres::{PostgresOptions, Strategy};

use crate::support::{batch_of, execute, read, schema, values};
use crate::trips::Counted;

fn decimal(text: &str) -> Value {
    text.parse::<Decimal>().unwrap().into()
}

fn of_rule(key: ColumnType, rule: Conflict) -> Schema {
    let schema = Schema::builder("t").column("k", key);
    let schema = if rule.action() == Action::Delete { schema } else { schema.column("n", ColumnType::I64) };
    schema.on_conflict(rule).build().unwrap()
}

/// A hundred rows, without two of which the table is.
async fn hundred(schema: &Schema, key: impl Fn(i64) -> Value) -> SharedRows {
    let row = |k: i64| {
        let mut cells = vec![key(k), k.into()];
        cells.truncate(schema.columns().len());
        values(schema, cells)
    };
    batchsql_testkit::batch_of((0..100).map(row)).await
}

#[tokio::test]
async fn rows_that_find_nothing_between_others_take_one_round_trip() {
    let numeric = |k: i64| decimal(&format!("{k}.50"));
    let text = |k: i64| Value::from(format!("key {k}"));
    type Key = Box<dyn Fn(i64) -> Value>;
    let cases: [(&str, ColumnType, Key, &str); 2] = [
        ("numeric", ColumnType::Decimal, Box::new(numeric), "k + 0.5"),
        ("char(8)", ColumnType::Text, Box::new(text), "'key ' || k"),
    ];
    for (ty, column, key, stored) in &cases {
        for rule in [Conflict::update_only(["k"]), Conflict::delete(["k"])] {
            let table = format!("CREATE TABLE t (k {ty} PRIMARY KEY, n bigint)");
            let mut counted = Counted::start(&table, |options| options).await;
            let schema = of_rule(*column, rule.clone());
            let batch = hundred(&schema, key).await;
            let (plan, _) = counted.prepare(&schema).await;
            for n in 0..2 {
                let fill = format!(
                    "TRUNCATE t; INSERT INTO t SELECT {stored}, -1 FROM generate_series(0, 120) AS k WHERE k NOT IN (7, 57)"
                );
                execute(counted.direct.pg_pool(), &fill).await;
                let (written, trips) = counted.write(&plan, &batch).await;
                assert_eq!(written.ignored, [7, 57], "{ty} {rule:?}");
                // The first one prepares the statement.
                assert_eq!(trips, if n == 0 { 2 } else { 1 }, "{ty} {rule:?}");
                let left =
                    read(&counted.direct, "SELECT count(*), count(*) FILTER (WHERE n >= 0), sum(n) FROM t").await;
                let expected = if rule.action() == Action::Delete { "21|0|-21" } else { "119|98|4865" };
                assert_eq!(left, [expected], "{ty} {rule:?}");
            }
        }
    }
}

/// Two rows of a batch have one key to the server, and it would use one of them: then each has its turn, without an error.
#[tokio::test]
async fn forms_of_one_key_are_written_in_their_order() {
    let sql = "CREATE TABLE t (k numeric PRIMARY KEY, n bigint); INSERT INTO t VALUES (1.5, 0), (2, 0)";
    let mut counted = Counted::start(sql, |options| options).await;
    let rule = Conflict::update_only(["k"]).set("n", Expr::raw("{old} * 10 + {new}"));
    let schema = of_rule(ColumnType::Decimal, rule);
    let (plan, _) = counted.prepare(&schema).await;
    // Also if a key is there twice, so that its rows are written in waves.
    for (rows, ignored, left) in [
        (&[("1.5", 1), ("1.50", 2), ("3", 9)][..], 2, "1.5|12"),
        (&[("1.5", 3), ("1.50", 4), ("1.5", 5), ("3", 9)], 3, "1.5|12345"),
    ] {
        let row = |(key, n): &(&str, i64)| values(&schema, [decimal(key), (*n).into()]);
        let batch = batchsql_testkit::batch_of(rows.iter().map(row)).await;
        assert_eq!(counted.write(&plan, &batch).await.0.ignored, [ignored], "{rows:?}");
        assert_eq!(read(&counted.direct, "SELECT k, n FROM t WHERE k < 2").await, [left], "{rows:?}");
    }
}

#[tokio::test]
async fn rows_that_a_trigger_leaves_out_of_an_update_are_ignored() {
    let sql = "CREATE TABLE t (k numeric PRIMARY KEY, n bigint);
        INSERT INTO t SELECT k + 0.5, 0 FROM generate_series(0, 120) AS k WHERE k <> 9;
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN IF new.n % 40 = 3 THEN RETURN NULL; END IF; RETURN new; END';
        CREATE TRIGGER f BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()";
    let mut counted = Counted::start(sql, |options| options).await;
    let schema = of_rule(ColumnType::Decimal, Conflict::update_only(["k"]));
    let batch = hundred(&schema, |k| decimal(&format!("{k}.5"))).await;
    let (plan, _) = counted.prepare(&schema).await;
    assert_eq!(counted.write(&plan, &batch).await.0.ignored, [3, 9, 43, 83]);
    assert_eq!(read(&counted.direct, "SELECT count(*) FROM t WHERE n > 0").await, ["95"]);
}

/// `BEGIN` with the table, two for COPY, the merge, `COMMIT`; without named statements too, if the answer has no keys.
#[tokio::test]
async fn a_temporary_table_takes_five_round_trips() {
    let table = "CREATE TABLE t (id bigint PRIMARY KEY, note text)";
    for (rule, named, expected) in [
        (Conflict::none(), true, 5),
        (Conflict::replace(["id"]), true, 5),
        (Conflict::ignore(["id"]), true, 5),
        (Conflict::replace(["id"]), false, 5),
        (Conflict::ignore(["id"]), false, 6),
    ] {
        let options = |options: PostgresOptions| options.strategy(Strategy::Staging).prepared_statements(named);
        let mut counted = Counted::start(table, options).await;
        let schema = schema(rule.clone());
        let (first, second) = (batch_of(&schema, 0..10).await, batch_of(&schema, 5..15).await);
        let second = if rule == Conflict::none() { batch_of(&schema, 10..20).await } else { second };
        assert_eq!(counted.second(&schema, &first, &second).await, expected, "{rule:?} {named}");
        let count = if rule == Conflict::none() { "20" } else { "15" };
        assert_eq!(read(&counted.direct, "SELECT count(*) FROM t").await, [count], "{rule:?} {named}");
    }
}
