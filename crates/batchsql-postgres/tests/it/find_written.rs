//! Which rows a table has exactly as they were sent, and what this means after a lost reply.

use batchsql_core::{ColumnType, Conflict, DynRow, Expr, Json, Outcome, Schema, Sink, Value};
use batchsql_postgres::{PostgresSink, Strategy};

use crate::proxy::{COMMIT, Cut, through_proxy};
use crate::support::{HOUR, execute, fresh, outcomes_by, values, write};

/// `id`, a version, and a value.
fn schema(ty: ColumnType, conflict: Conflict) -> Schema {
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("v", ColumnType::I64).nullable("c", ty);
    schema.on_conflict(conflict).build().unwrap()
}

fn newer() -> Conflict {
    Conflict::update(["id"]).only_if_newer("v")
}

/// What the sink finds of these rows.
async fn found(sink: &PostgresSink, schema: &Schema, rows: &[DynRow]) -> Vec<u32> {
    let batch = batchsql_testkit::batch_of(rows.iter().cloned()).await;
    let mut conn = sink.acquire().await.unwrap();
    let plan = sink.prepare(&mut conn, schema).await.unwrap();
    let found = sink.find_written(&mut conn, &plan, batch.rows()).await.unwrap();
    assert_eq!(sink.find_written(&mut conn, &plan, batch.rows()).await.unwrap(), found, "the connection is usable");
    found
}

fn json(text: &str) -> Value {
    text.parse::<Json>().unwrap().into()
}

#[tokio::test]
async fn only_rows_that_are_stored_as_they_were_sent_are_found() {
    let text = |text: &str| Value::from(text);
    let decimal = |text: &str| Value::from(text.parse::<batchsql_core::Decimal>().unwrap());
    let uuid = |byte| Value::Uuid([byte; 16]);
    // A type, a value, and others; of these the first `same` are stored alike.
    let cases: Vec<(&str, ColumnType, Value, usize, Vec<Value>)> = vec![
        ("bigint", ColumnType::I64, 7_i64.into(), 1, vec![7_i64.into(), 8_i64.into(), Value::Null]),
        ("numeric", ColumnType::Decimal, decimal("1.5"), 1, vec![decimal("1.5"), decimal("1.50"), decimal("1.6")]),
        (
            "numeric(6,2)",
            ColumnType::Decimal,
            decimal("1.5"),
            2,
            vec![decimal("1.5"), decimal("1.50"), decimal("1.51")],
        ),
        ("double precision", ColumnType::F64, (0.0).into(), 1, vec![(0.0).into(), (-0.0).into(), 0.1.into()]),
        ("double precision", ColumnType::F64, f64::NAN.into(), 1, vec![f64::NAN.into(), 1.0.into()]),
        ("text", ColumnType::Text, text("a"), 1, vec![text("a"), text("A"), text("a "), text("")]),
        ("text COLLATE nocase", ColumnType::Text, text("a"), 1, vec![text("a"), text("A")]),
        ("varchar(3)", ColumnType::Text, text("ab"), 1, vec![text("ab"), text("abc"), text("abcd")]),
        ("char(3)", ColumnType::Text, text("ab"), 2, vec![text("ab"), text("ab "), text("abc")]),
        ("word", ColumnType::Text, text("ab"), 1, vec![text("ab"), text("abc")]),
        ("mood", ColumnType::Text, text("ok"), 1, vec![text("ok"), text("sad")]),
        ("uuid", ColumnType::Uuid, uuid(1), 1, vec![uuid(1), uuid(2)]),
        ("json", ColumnType::Json, json("{\"a\":1}"), 1, vec![json("{\"a\":1}"), json("{\"a\": 1}")]),
        (
            "jsonb",
            ColumnType::Json,
            json("{\"a\":1}"),
            2,
            vec![json("{\"a\":1}"), json("{\"a\": 1}"), json("{\"a\":2}")],
        ),
        ("xml", ColumnType::Text, text("<a/>"), 1, vec![text("<a/>"), text("<b/>")]),
        // Boxes with one area are equal to the server.
        ("box", ColumnType::Text, text("(2,2),(0,0)"), 1, vec![text("(2,2),(0,0)"), text("(4,1),(0,0)")]),
        ("inet", ColumnType::Text, text("10.0.0.1/8"), 1, vec![text("10.0.0.1/8"), text("10.0.0.1")]),
        ("interval(0)", ColumnType::Text, text("1 day"), 2, vec![text("1 day"), text("1 day 0:00"), text("24:00:00")]),
        (
            "numeric(6,2)[]",
            ColumnType::Json,
            json("[1.5,null]"),
            2,
            vec![json("[1.5,null]"), json("[1.50,null]"), json("[1.5]")],
        ),
        ("text[]", ColumnType::Text, text("{a,NULL}"), 1, vec![text("{a,NULL}"), text("{a,\"NULL\"}")]),
        ("bigint", ColumnType::I64, Value::Null, 1, vec![Value::Null, 0_i64.into()]),
    ];
    for (ty, column, stored, same, others) in cases {
        let sink = fresh(&format!(
            "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
             CREATE TYPE mood AS ENUM ('ok', 'sad'); CREATE DOMAIN word AS varchar(3) CHECK (VALUE <> 'x');
             CREATE TABLE t (id bigint PRIMARY KEY, v bigint, c {ty})"
        ))
        .await;
        let schema = schema(column, newer());
        let of = |id: i64, v: i64, c: &Value| values(&schema, [id.into(), v.into(), c.clone()]);
        let ids = 0..others.len() as i64;
        assert!(
            write(&sink, ids.clone().map(|id| of(id, 5, &stored))).await.iter().all(|outcome| *outcome == "written")
        );
        let rows: Vec<DynRow> = ids.zip(&others).map(|(id, value)| of(id, 5, value)).collect();
        let expected: Vec<u32> = (0..same as u32).collect();
        assert_eq!(found(&sink, &schema, &rows).await, expected, "{ty} {stored:?}");
        // Another version, and a key that is not there.
        assert!(
            found(&sink, &schema, &[of(0, 6, &stored), of(0, 4, &stored), of(99, 5, &stored)]).await.is_empty(),
            "{ty}"
        );
    }
}

#[tokio::test]
async fn what_a_trigger_changed_is_not_found() {
    for (when, expected) in [("NEW.c = 'other'", 0), ("NEW.at = now()", 1)] {
        let sink = fresh(&format!(
            "CREATE TABLE t (id bigint PRIMARY KEY, v bigint, c text, at timestamptz);
             CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN {when}; RETURN NEW; END$$;
             CREATE TRIGGER f BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()"
        ))
        .await;
        let schema = schema(ColumnType::Text, newer());
        let row = values(&schema, [1_i64.into(), 1_i64.into(), "sent".into()]);
        assert_eq!(write(&sink, [row.clone()]).await, ["written"]);
        assert_eq!(found(&sink, &schema, &[row]).await.len(), expected, "{when}");
    }
}

#[tokio::test]
async fn rows_of_a_partial_index_are_not_compared() {
    let sink = fresh(
        "CREATE TABLE t (id bigint, v bigint, c text); CREATE UNIQUE INDEX ON t (id) WHERE v > 1;
                      INSERT INTO t VALUES (1, 1, 'a')",
    )
    .await;
    let schema = schema(ColumnType::Text, newer().on_partial_index("v > 1"));
    assert!(found(&sink, &schema, &[values(&schema, [1_i64.into(), 1_i64.into(), "a".into()])]).await.is_empty());
}

#[tokio::test]
async fn after_a_lost_reply_rows_that_the_table_has_are_written() {
    let by_version = |conflict| {
        let schema = Schema::builder("t").column("id", ColumnType::I64).nullable("note", ColumnType::Text);
        schema.column("version", ColumnType::I32).on_conflict(conflict).build().unwrap()
    };
    // With an expression the stored value is not the one that was sent.
    let rules = [(newer_version(), "written"), (newer_version().set("note", Expr::keep()), "ignored")];
    for strategy in [Strategy::Unnest, Strategy::MultiValues, Strategy::Staging] {
        for (rule, expected) in rules.clone() {
            // Not at the first Execute: other queries of the sink have one too.
            let commits = if strategy == Strategy::Staging { COMMIT } else { NOTE.as_bytes() };
            let (sink, proxy, direct) = through_proxy(Cut::After(commits), strategy).await;
            execute(direct.pg_pool(), "INSERT INTO t VALUES (1, 'other', 3), (2, 'a', 4)").await;
            let config = batchsql_core::PipelineConfig::default().flush_interval(HOUR);
            let db = batchsql_core::BatchSql::builder(sink.clone()).config(config).start().unwrap();
            let schema = by_version(rule);
            db.prepare(&schema).await.unwrap();
            proxy.arm();
            let row = |id: i64| values(&schema, [id.into(), NOTE.into(), 3_i32.into()]);
            let outcomes = outcomes_by(&db, (1..65).map(row)).await;
            assert!(proxy.has_cut(), "{strategy:?}");
            let kinds: Vec<&str> = outcomes.iter().map(|outcome: &Outcome| outcome.kind().name()).collect();
            assert_eq!(kinds[..2], ["ignored"; 2], "{strategy:?}");
            assert!(kinds[2..].iter().all(|kind| *kind == expected), "{strategy:?} {kinds:?}");
        }
    }
}

/// What only the statement with the rows contains.
const NOTE: &str = "the reply to this is lost";

fn newer_version() -> Conflict {
    Conflict::update(["id"]).only_if_newer("version")
}
