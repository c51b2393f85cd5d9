//! Rules whose index is partial: rows outside of it never conflict, also not with each other.

use batchsql_core::{ColumnType, Conflict, Expr, Schema};
use batchsql_postgres::Strategy;
use batchsql_testkit::partial_index::{self, Cells, INSIDE, STORED, batches, expected, rules};

use crate::proxy::{Cut, through_proxy};
use crate::support::{FOR_EVERY_RULE, execute, fresh_dsn, outcomes, pipeline, read, values, with_strategy};

const TABLE: &str = "CREATE TABLE t (id bigint, gone bigint, n bigint, v bigint);
                     CREATE UNIQUE INDEX ON t (id) WHERE gone = 0";

fn schema(rule: Conflict, returned: Option<&str>) -> Schema {
    let schema = partial_index::schema().on_conflict(rule.on_partial_index(INSIDE));
    let schema = returned.iter().fold(schema, |schema, name| schema.returning(*name, ColumnType::I64));
    schema.build().unwrap()
}

/// The same with keys of its own.
fn moved(rows: &[Cells], by: i64) -> Vec<Cells> {
    rows.iter().map(|[id, rest @ ..]| [id + by, rest[0], rest[1], rest[2]]).collect()
}

/// Stored rows and a batch, each with keys of its own.
fn cases() -> Vec<(Vec<Cells>, Vec<Cells>)> {
    let all = batches().flat_map(|batch| STORED.map(|before| (before.to_vec(), batch.clone())));
    all.zip(0..).map(|((before, batch), number)| (moved(&before, 10 * number), moved(&batch, 10 * number))).collect()
}

#[tokio::test]
async fn rows_outside_of_a_partial_index_stay_rows_of_their_own() {
    let dsn = fresh_dsn(TABLE).await;
    let alone = cases();
    let together = alone.iter().fold((Vec::new(), Vec::new()), |all, case| {
        ([all.0, case.0.clone()].concat(), [all.1, case.1.clone()].concat())
    });
    let together = vec![together];
    // Rows that return values are written in one way.
    let ways = FOR_EVERY_RULE.map(|strategy| (strategy, None)).into_iter().chain([(Strategy::Unnest, Some("n"))]);
    for ((strategy, returned), rule) in ways.flat_map(|way| rules().map(|rule| (way, rule))) {
        let sink = with_strategy(&dsn, strategy).await;
        let (db, schema) = (pipeline(&sink), schema(rule.clone(), returned));
        for cases in [&alone, &together].into_iter().skip(usize::from(strategy != Strategy::Unnest)) {
            execute(sink.pg_pool(), "TRUNCATE t").await;
            let mut content = Vec::new();
            for (before, batch) in cases {
                let stored: Vec<String> =
                    before.iter().map(|[id, gone, n, v]| format!("({id},{gone},{n},{v})")).collect();
                if !stored.is_empty() {
                    execute(sink.pg_pool(), &format!("INSERT INTO t VALUES {}", stored.join(","))).await;
                }
                let mut receipts = Vec::new();
                for row in batch {
                    receipts.push(db.submit_tracked(&values(&schema, row.map(Into::into))).await.unwrap());
                }
                db.flush().await.unwrap();
                let mut found = Vec::new();
                for receipt in receipts {
                    found.push(receipt.await.kind().name());
                }
                let (left, expected) = expected(&rule, before, batch);
                assert_eq!(found, expected, "{strategy:?} {rule:?} {returned:?}: {batch:?} into {before:?}");
                content.extend(left);
            }
            content.sort_unstable();
            let content: Vec<String> = content.iter().map(|[id, gone, n, v]| format!("{id}|{gone}|{n}|{v}")).collect();
            let found = read(&sink, "SELECT id, gone, n, v FROM t ORDER BY 1, 2, 3, 4").await;
            assert_eq!(found, content, "{strategy:?} {rule:?} {returned:?}");
        }
    }
}

/// Whatever else the statement has: values that are returned, and expressions of the stored row.
#[tokio::test]
async fn the_condition_may_name_the_table() {
    let dsn = fresh_dsn("CREATE TABLE t (id bigint, n bigint, gone boolean NOT NULL DEFAULT false); CREATE UNIQUE INDEX ON t (id) WHERE NOT gone").await;
    let rules = [Conflict::ignore(["id"]), Conflict::update(["id"]), Conflict::update(["id"]).only_if_newer("n")];
    for rule in rules.into_iter().chain([Conflict::update(["id"]).set("n", Expr::add())]) {
        for returned in [None, Some("gone")] {
            let sink = with_strategy(&dsn, Strategy::Auto).await;
            execute(sink.pg_pool(), "TRUNCATE t; INSERT INTO t VALUES (1, 10, true), (2, 20, false)").await;
            let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
            let schema = returned.iter().fold(schema, |schema, name| schema.returning(*name, ColumnType::Bool));
            let schema = schema.on_conflict(rule.clone().on_partial_index("NOT t.gone")).build().unwrap();
            let rows = [1_i64, 2].map(|id| values(&schema, [id.into(), 30_i64.into()]));
            let second = if rule == Conflict::ignore(["id"]) { "ignored" } else { "written" };
            let kinds: Vec<&str> = outcomes(&sink, rows).await.iter().map(|outcome| outcome.kind().name()).collect();
            assert_eq!(kinds, ["written", second], "{rule:?} {returned:?}");
        }
    }
}

#[tokio::test]
async fn rows_that_a_repeat_would_insert_again_are_unknown_after_a_lost_reply() {
    const NOTE: &str = "the reply to this is lost";
    let (sink, proxy, direct) = through_proxy(Cut::After(NOTE.as_bytes()), Strategy::Unnest).await;
    execute(direct.pg_pool(), "CREATE UNIQUE INDEX ON t (id) WHERE version = 0").await;
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("note", ColumnType::Text);
    let schema = schema.column("version", ColumnType::I32);
    let schema = schema.on_conflict(Conflict::update(["id"]).on_partial_index("version = 0")).build().unwrap();
    batchsql_core::Sink::prepare(&sink, &mut batchsql_core::Sink::acquire(&sink).await.unwrap(), &schema)
        .await
        .unwrap();
    proxy.arm();
    let row = |id: i64, outside: i32| values(&schema, [id.into(), NOTE.into(), outside.into()]);
    let outcomes = outcomes(&sink, [row(1, 0), row(2, 0)]).await;
    assert!(proxy.has_cut());
    let kinds: Vec<&str> = outcomes.iter().map(|outcome| outcome.kind().name()).collect();
    assert_eq!(kinds, ["unknown"; 2]);
}
