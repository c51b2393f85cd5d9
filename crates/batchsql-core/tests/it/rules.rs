//! Rules that depend on the stored row: how rows of one key become one, what a lost reply means for them, and the order
//! of deletes among other rows.

use std::sync::{Arc, Mutex};

use batchsql_core::{
    Attempt, BatchSql, ColumnType, Conflict, Delete, Delivery, DynRow, DynSink, ErrorClass, Expr, OutcomeKind,
    PipelineConfig, Row, Rows, Schema, Sink, SinkError, Value, ValueRef, Written as Answer,
};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{config, pipeline};

use OutcomeKind::{Ignored, Rejected, Superseded, Unknown, Written};

fn schema(conflict: Conflict) -> Schema {
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("n", ColumnType::I64);
    schema.column("v", ColumnType::I64).on_conflict(conflict).build().unwrap()
}

fn row(schema: &Schema, [id, n, v]: [i64; 3]) -> DynRow {
    schema.row().set("id", id).unwrap().set("n", n).unwrap().set("v", v).unwrap().finish().unwrap()
}

fn number(row: &DynRow, column: &str) -> i64 {
    match row.get(column) {
        Some(ValueRef::I64(number)) => number,
        other => panic!("no number: {other:?}"),
    }
}

fn counter() -> Conflict {
    Conflict::update(["id"]).set("n", Expr::add())
}

fn one_lane() -> PipelineConfig {
    let mut config = config();
    config.max_concurrency = 1;
    config
}

/// Submits rows of `(id, n, v)` in one batch; the outcome of each.
async fn outcomes(
    config: PipelineConfig,
    conflict: Conflict,
    rows: &[[i64; 3]],
    prepare: impl FnOnce(&ScriptedSink),
) -> (Vec<OutcomeKind>, ScriptedSink) {
    let (db, sink) = pipeline(config);
    prepare(&sink);
    let schema = schema(conflict);
    let mut receipts = Vec::new();
    for cells in rows {
        receipts.push(db.submit_tracked(&row(&schema, *cells)).await.unwrap());
    }
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.accepted, balance.in_flight()), (rows.len() as u64, 0));
    let mut kinds = Vec::new();
    for receipt in receipts {
        kinds.push(receipt.await.kind());
    }
    (kinds, sink)
}

/// `id`, `n` and `v` of the rows of table `t`.
fn stored(sink: &ScriptedSink) -> Vec<[i64; 3]> {
    let tables = sink.tables();
    let number = |value: &Value| match value {
        Value::I64(number) => *number,
        other => panic!("no number: {other:?}"),
    };
    tables.rows("t").iter().map(|row| ["id", "n", "v"].map(|name| number(&row[name]))).collect()
}

const COUNTS: [[i64; 3]; 5] = [[1, 10, 1], [2, 5, 1], [1, 20, 2], [2, 6, 2], [1, 30, 3]];

#[tokio::test(start_paused = true)]
async fn counters_of_one_key_are_sent_as_one_row_and_all_are_written() {
    let (kinds, sink) = outcomes(one_lane(), counter(), &COUNTS, |_| {}).await;
    assert_eq!(kinds, [Written; 5]);
    assert_eq!((sink.applied().len(), stored(&sink)), (2, vec![[2, 11, 2], [1, 60, 3]]));
    let off = {
        let mut config = one_lane();
        config.coalesce = batchsql_core::Coalesce::Off;
        config
    };
    let (kinds, sink) = outcomes(off, counter(), &COUNTS, |_| {}).await;
    assert_eq!((kinds, sink.applied().len()), (vec![Written; 5], 5));
}

#[tokio::test(start_paused = true)]
async fn a_sum_that_is_refused_is_sent_row_by_row() {
    // No row above 25: the sums are refused, and of the rows the last one.
    for tells_rows in [false, true] {
        let (kinds, sink) = outcomes(one_lane(), counter(), &COUNTS, |sink| {
            sink.poison(|row| number(row, "n") > 25);
            if tells_rows {
                sink.report_rows();
            }
        })
        .await;
        assert_eq!(kinds, [Written, Written, Written, Written, Rejected], "tells rows: {tells_rows}");
        assert_eq!(stored(&sink), [[2, 11, 2], [1, 30, 2]], "tells rows: {tells_rows}");
    }
}

#[tokio::test(start_paused = true)]
async fn counters_are_not_repeated_after_a_lost_reply_unless_that_is_accepted() {
    let check = async |delivery, conflict, expected: [OutcomeKind; 5], writes| {
        let mut config = one_lane();
        config.delivery = delivery;
        let (kinds, sink) = outcomes(config, conflict, &COUNTS, |sink| sink.script([Step::LoseReply])).await;
        assert_eq!((kinds, sink.writes()), (expected.to_vec(), writes), "{delivery:?}");
    };
    check(Delivery::AtMostOnce, counter(), [Unknown; 5], 1).await;
    check(Delivery::AtLeastOnce, counter(), [Unknown; 5], 1).await;
    check(Delivery::AtMostOnce, counter().may_add_twice(), [Written; 5], 2).await;
    let greatest = Conflict::update(["id"]).set("n", Expr::greatest());
    check(Delivery::AtMostOnce, greatest, [Written; 5], 2).await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_may_be_outside_of_a_partial_index_are_all_sent_and_not_repeated() {
    let update = || Conflict::update(["id"]);
    for rule in [update(), Conflict::replace(["id"]), counter(), counter().may_add_twice()] {
        let rule = || rule.clone().on_partial_index("n > 10");
        let (kinds, sink) = outcomes(one_lane(), rule(), &COUNTS, |_| {}).await;
        assert_eq!((kinds, sink.applied().len()), (vec![Written; 5], 5), "{:?}", rule());
        for (delivery, kind, writes) in [(Delivery::AtMostOnce, Unknown, 1), (Delivery::AtLeastOnce, Written, 2)] {
            // As before, adding twice needs more than this.
            let (kind, writes) =
                if rule() == counter().on_partial_index("n > 10") { (Unknown, 1) } else { (kind, writes) };
            let mut config = one_lane();
            config.delivery = delivery;
            let lose = |sink: &ScriptedSink| sink.script([Step::LoseReply]);
            let (kinds, sink) = outcomes(config, rule(), &[[1, 10, 1], [2, 5, 1]], lose).await;
            assert_eq!((kinds, sink.writes()), (vec![kind; 2], writes), "{delivery:?} {:?}", rule());
        }
    }
    let newer = || update().only_if_newer("v").on_partial_index("n > 10");
    let (kinds, sink) = outcomes(one_lane(), newer(), &[[1, 1, 1], [1, 2, 2]], |_| {}).await;
    assert_eq!((kinds, sink.applied().len()), (vec![Written; 2], 2));
}

#[tokio::test(start_paused = true)]
async fn merged_rows_share_the_outcome_of_a_row_that_was_not_judged() {
    let mut config = one_lane();
    config.retry_for = std::time::Duration::ZERO;
    let fail = |sink: &ScriptedSink| sink.script([Step::Fail(ErrorClass::Transient)]);
    let (kinds, sink) = outcomes(config, counter(), &COUNTS, fail).await;
    assert_eq!((kinds, sink.applied().len()), (vec![OutcomeKind::Expired; 5], 0));
}

#[tokio::test(start_paused = true)]
async fn the_newest_row_of_a_key_is_sent_whatever_the_order() {
    let newer = || Conflict::update(["id"]).only_if_newer("v");
    let rows = [[1, 10, 5], [2, 20, 9], [1, 11, 7], [1, 12, 6], [2, 21, 9]];
    let (kinds, sink) = outcomes(one_lane(), newer(), &rows, |_| {}).await;
    assert_eq!(kinds, [Superseded, Written, Written, Ignored, Ignored]);
    assert_eq!(stored(&sink), [[2, 20, 9], [1, 11, 7]]);
    // The next newest one has its turn if the newest is refused.
    let (kinds, sink) = outcomes(one_lane(), newer(), &rows, |sink| sink.poison(|row| number(row, "n") == 11)).await;
    assert_eq!(kinds, [Superseded, Written, Rejected, Written, Ignored]);
    assert_eq!(stored(&sink), [[2, 20, 9], [1, 12, 6]]);
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_reply_an_equal_version_is_written_only_if_every_column_matches() {
    let newer = || Conflict::update(["id"]).only_if_newer("v");
    let greatest = || newer().set("n", Expr::greatest());
    // The table has [1, 10, 5] and [2, 20, 9]; the reply to the second batch is lost.
    let check = async |name: &str, conflict: Conflict, step, expected: [OutcomeKind; 4]| {
        let (db, sink) = pipeline(one_lane());
        let schema = schema(conflict);
        for cells in [[1, 10, 5], [2, 20, 9]] {
            db.submit(&row(&schema, cells)).await.unwrap();
        }
        db.flush().await.unwrap();
        sink.script([step]);
        let mut receipts = Vec::new();
        // One is the same, one has another value, one is new, one is older.
        for cells in [[1, 10, 5], [2, 21, 9], [3, 30, 1], [1, 11, 4]] {
            receipts.push(db.submit_tracked(&row(&schema, cells)).await.unwrap());
        }
        db.flush().await.unwrap();
        let mut kinds = Vec::new();
        for receipt in receipts {
            kinds.push(receipt.await.kind());
        }
        assert_eq!((kinds, sink.writes()), (expected.to_vec(), 3), "{name}");
    };
    let lost = Step::Fail(ErrorClass::Unknown);
    check("applied", newer(), Step::LoseReply, [Written, Ignored, Written, Ignored]).await;
    check("not applied", newer(), lost, [Written, Ignored, Written, Ignored]).await;
    // Nothing was in doubt.
    check("refused", newer(), Step::Fail(ErrorClass::Transient), [Ignored, Ignored, Written, Ignored]).await;
    // What an expression leaves is not what was sent.
    check("expression", greatest(), Step::LoseReply, [Ignored, Ignored, Ignored, Ignored]).await;
}

/// A sink that answers the question for stored rows with errors.
#[derive(Clone)]
struct Mute {
    sink: ScriptedSink,
    errors: Arc<Mutex<Vec<ErrorClass>>>,
}

impl Sink for Mute {
    type Conn = u64;
    type Plan = ();

    fn name(&self) -> &'static str {
        "mute"
    }

    async fn acquire(&self) -> Result<u64, SinkError> {
        self.sink.acquire().await
    }

    async fn prepare(&self, conn: &mut u64, schema: &Schema) -> Result<(), SinkError> {
        self.sink.prepare(conn, schema).await
    }

    async fn write(&self, conn: &mut u64, plan: &(), rows: Rows<'_>, attempt: &Attempt) -> Result<Answer, SinkError> {
        self.sink.write(conn, plan, rows, attempt).await
    }

    async fn find_written(&self, conn: &mut u64, plan: &(), rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
        let error = self.errors.lock().unwrap().pop();
        match error {
            Some(class) => Err(SinkError::new(class, "cannot be asked")),
            None => self.sink.find_written(conn, plan, rows).await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_cannot_compare_rows_is_asked_again_or_its_rows_are_ignored() {
    let check = async |class, expected| {
        let sink = Mute { sink: ScriptedSink::new(), errors: Arc::new(Mutex::new(vec![class])) };
        sink.sink.script([Step::LoseReply]);
        let db = BatchSql::builder(DynSink::new(sink.clone())).config(one_lane()).start().unwrap();
        let schema = schema(Conflict::update(["id"]).only_if_newer("v"));
        let receipt = db.submit_tracked(&row(&schema, [1, 10, 5])).await.unwrap();
        db.flush().await.unwrap();
        assert_eq!((receipt.await.kind(), sink.sink.writes()), (expected, 2), "{class:?}");
        assert!(sink.errors.lock().unwrap().is_empty(), "{class:?}");
    };
    check(ErrorClass::Transient, Written).await;
    check(ErrorClass::Resource, Written).await;
    for class in
        [ErrorClass::Permission, ErrorClass::Schema, ErrorClass::Internal, ErrorClass::Row, ErrorClass::Unknown]
    {
        check(class, Ignored).await;
    }
}

#[tokio::test(start_paused = true)]
async fn deletes_keep_their_order_among_the_rows_of_their_key() {
    for concurrency in [1, 4] {
        let mut config = config();
        config.max_concurrency = concurrency;
        let (db, sink) = pipeline(config);
        let schema = schema(Conflict::update(["id"]));
        let mut receipts = Vec::new();
        for id in 0..20 {
            let first = row(&schema, [id, 1, 1]);
            receipts.push((Written, db.submit_tracked(&first).await.unwrap()));
            receipts.push((Written, db.submit_tracked(&Delete::of(&first).unwrap()).await.unwrap()));
            if id % 2 == 0 {
                receipts.push((Written, db.submit_tracked(&row(&schema, [id, 2, 2])).await.unwrap()));
            } else {
                let again = schema.deletion().unwrap().row().set("id", id).unwrap().finish().unwrap();
                assert_eq!(again.key_hash(), first.key_hash());
                // Of two deletes in a row one is sent.
                receipts.push((Written, db.submit_tracked(&again).await.unwrap()));
            }
        }
        db.flush().await.unwrap();
        for (place, (expected, receipt)) in receipts.into_iter().enumerate() {
            let kind = receipt.await.kind();
            let is_coalesced = kind == Superseded && place % 3 == 1;
            assert!(kind == expected || is_coalesced, "receipt {place}: {kind:?}");
        }
        let left: Vec<i64> = {
            let mut left: Vec<i64> = stored(&sink).iter().map(|row| row[0]).collect();
            left.sort_unstable();
            left
        };
        assert_eq!(left, (0..20).filter(|id| id % 2 == 0).collect::<Vec<_>>(), "{concurrency} lanes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_not_there_is_ignored() {
    let (db, sink) = pipeline(one_lane());
    let (only, update) = (schema(Conflict::update_only(["id"])), schema(Conflict::update(["id"])));
    let gone = row(&update, [2, 0, 0]);
    let kinds = async |receipts: [batchsql_core::Receipt; 2]| {
        db.flush().await.unwrap();
        let [a, b] = receipts;
        [a.await.kind(), b.await.kind()]
    };
    db.submit(&row(&update, [1, 1, 1])).await.unwrap();
    let a = db.submit_tracked(&row(&only, [1, 2, 2])).await.unwrap();
    let b = db.submit_tracked(&row(&only, [2, 2, 2])).await.unwrap();
    assert_eq!(kinds([a, b]).await, [Written, Ignored]);
    let a = db.submit_tracked(&Delete::of(&row(&update, [1, 0, 0])).unwrap()).await.unwrap();
    let b = db.submit_tracked(&Delete::of(&gone).unwrap()).await.unwrap();
    assert_eq!(kinds([a, b]).await, [Written, Ignored]);
    assert!(stored(&sink).is_empty());
}
