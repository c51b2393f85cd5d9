//! Does the table or one row cause an error: an error about the table or a permission, or an unknown one, may come from
//! one row.

use std::collections::BTreeSet;
use std::time::Duration;

use batchsql_core::{
    Coalesce, ColumnType, Conflict, ErrorClass, Expr, Isolation, KeptBy, Ordering, OutcomeKind, PipelineConfig, Schema,
    ValueRef,
};
use batchsql_testkit::{ScriptedSink, Step};

use crate::support::{HOUR, config, id, ids, pipeline, plain, receipts, row, table};

const CLASSES: [ErrorClass; 3] = [ErrorClass::Schema, ErrorClass::Permission, ErrorClass::Internal];

async fn kinds(receipts: Vec<batchsql_core::Receipt>) -> Vec<OutcomeKind> {
    let mut kinds = Vec::new();
    for receipt in receipts {
        kinds.push(receipt.await.kind());
    }
    kinds
}

/// Writes rows 0 to 599 with one row in 120 bad, and returns the ids that were rejected.
async fn rejected(config: PipelineConfig, conflict: Conflict, class: ErrorClass) -> (BTreeSet<i64>, ScriptedSink) {
    let (db, sink) = pipeline(config);
    sink.poison_as(class, |row| id(row) % 120 == 57);
    let receipts = receipts(&db, &table("t", conflict), 0..600).await;
    db.flush().await.unwrap();
    let mut rejected = BTreeSet::new();
    for (id, receipt) in (0..).zip(receipts) {
        let outcome = receipt.await;
        if outcome.kind() == OutcomeKind::Rejected {
            assert_eq!(outcome.failure().unwrap().code(), Some("poison"));
            rejected.insert(id);
        } else {
            assert!(outcome.is_written(), "{id}: {outcome:?}");
        }
    }
    (rejected, sink)
}

#[tokio::test(start_paused = true)]
async fn a_bad_row_takes_no_other_whatever_its_code_says() {
    let bad = BTreeSet::from([57, 177, 297, 417, 537]);
    for class in CLASSES {
        for flush_size in [1, 3, 50, 200] {
            for conflict in [Conflict::none(), Conflict::ignore(["id"]), Conflict::update(["id"])] {
                let large = config().buffer_size(1_000).flush_size(flush_size);
                let (found, sink) = rejected(large, conflict.clone(), class).await;
                assert_eq!(found, bad, "{class} {flush_size} {conflict:?}");
                assert_eq!(sink.tables().rows("t").len(), 595);
                assert!(sink.writes() < 600 / flush_size + 5 * 40, "{flush_size}: {} writes", sink.writes());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rows_keep_their_order_while_it_is_found_out_whose_an_error_is() {
    for (ordering, max_concurrency) in [(Ordering::PerTable, 8), (Ordering::PerKey, 1), (Ordering::PerKey, 4)] {
        for class in CLASSES {
            let coalesce = Coalesce::Off;
            let config = config()
                .buffer_size(1_000)
                .flush_size(40)
                .ordering(ordering)
                .max_concurrency(max_concurrency)
                .coalesce(coalesce);
            let (db, sink) = pipeline(config);
            sink.poison_as(class, |row| {
                matches!(row.get("note"), Some(ValueRef::Text(note)) if note.ends_with('7')) && id(row) % 5 != 2
            });
            let schema = table("t", Conflict::update(["id"]));
            let keys = 0..5_i64;
            let mut receipts = Vec::new();
            // 100 versions of each of five keys.
            for version in 0..100 {
                for key in keys.clone() {
                    let note = format!("{version:03}");
                    let row = schema.row().set("id", key).unwrap().set("note", note.as_str()).unwrap();
                    receipts.push(db.submit_tracked(&row.finish().unwrap()).await.unwrap());
                }
            }
            db.flush().await.unwrap();
            let kinds = kinds(receipts).await;
            assert_eq!(kinds.iter().filter(|kind| **kind == OutcomeKind::Rejected).count(), 40);
            let mut last = [const { String::new() }; 5];
            for row in sink.applied() {
                let Some(ValueRef::Text(note)) = row.get("note") else { panic!("{row:?}") };
                let last = &mut last[usize::try_from(id(&row)).unwrap()];
                assert!(last.as_str() < note, "{ordering:?} {last} then {note}");
                note.clone_into(last);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_is_broken_parks_and_its_rows_survive_its_repair() {
    for class in CLASSES {
        for flush_size in [1, 50] {
            for (conflict, ordering) in [
                (Conflict::none(), Ordering::Auto),
                (Conflict::update(["id"]), Ordering::Auto),
                (Conflict::none(), Ordering::PerTable),
            ] {
                let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(flush_size).ordering(ordering));
                sink.break_writes("t", class);
                let receipts = receipts(&db, &table("t", conflict), 0..100).await;
                tokio::time::sleep(Duration::from_secs(40)).await;
                assert_eq!((db.balance().failed(), db.balance().in_flight()), (0, 100), "{class} {flush_size}");
                let probes = sink.writes();
                tokio::time::sleep(Duration::from_secs(10)).await;
                // A probe is one row, sent once more after a check of the table; if rows need their order, now and then
                // several. Probes come after a random time of at most 5 s, so their number is not known exactly.
                assert!(sink.writes() - probes <= 500, "{}", sink.writes() - probes);
                sink.mend_table("t");
                db.flush().await.unwrap();
                assert!(kinds(receipts).await.iter().all(|kind| *kind == OutcomeKind::Written));
                assert_eq!(sink.tables().rows("t").len(), 100);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_bad_row_waits_for_others_to_tell_whose_the_error_is() {
    for ordering in [Ordering::Auto, Ordering::PerTable] {
        let (db, sink) = pipeline(config().buffer_size(1_000).ordering(ordering));
        sink.poison_as(ErrorClass::Schema, |row| id(row) == 0);
        let schema = table("t", Conflict::update(["id"]));
        let bad = receipts(&db, &schema, 0..1).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        // The cause is not known: no other row was written.
        assert_eq!(db.balance().in_flight(), 1);
        let good = receipts(&db, &schema, 1..20).await;
        db.flush().await.unwrap();
        assert_eq!(kinds(bad).await, [OutcomeKind::Rejected]);
        assert!(kinds(good).await.iter().all(|kind| *kind == OutcomeKind::Written), "{ordering:?}");
        assert_eq!(ids(&sink.applied()).len(), 19);
    }
}

#[tokio::test(start_paused = true)]
async fn a_table_that_breaks_while_bad_rows_are_searched_costs_few_rows() {
    let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(200));
    // The first commits prove that the table can be written; then it cannot.
    let left = std::sync::atomic::AtomicUsize::new(70);
    sink.poison_as(ErrorClass::Permission, move |row| {
        use std::sync::atomic::Ordering::SeqCst;
        id(row) == 150 || left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_err()
    });
    drop(receipts(&db, &plain(), 0..200).await);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(db.balance().rejected() <= 4, "{:?}", db.balance());
    sink.poison(|_| false);
    let report = db.close(HOUR).await;
    assert!(report.balance.rejected() <= 4 && report.balance.written() >= 196, "{:?}", report.balance);
}

#[tokio::test(start_paused = true)]
async fn an_atomic_batch_is_never_sampled() {
    let isolation = Isolation::AtomicBatch;
    for (class, expected) in
        [(ErrorClass::Schema, (0, 20)), (ErrorClass::Permission, (0, 20)), (ErrorClass::Internal, (20, 0))]
    {
        let (db, sink) = pipeline(config().buffer_size(100).flush_size(20).isolation(isolation));
        sink.poison_as(class, |row| id(row) == 7);
        for id in 0..20 {
            db.submit(&row(&plain(), id)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((db.balance().rejected(), db.balance().in_flight()), expected, "{class}");
        assert!(sink.applied().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_cannot_be_made_is_the_tables_fault() {
    for class in CLASSES {
        let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(50));
        sink.break_table("t", class);
        let receipts = receipts(&db, &plain(), 0..50).await;
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert_eq!((sink.writes(), db.balance().in_flight()), (0, 50), "{class}");
        sink.mend_table("t");
        db.flush().await.unwrap();
        assert!(kinds(receipts).await.iter().all(|kind| *kind == OutcomeKind::Written));
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_version_of_the_same_key_tells_whose_the_error_is() {
    for ordering in [Ordering::PerKey, Ordering::PerTable] {
        let coalesce = Coalesce::Off;
        let (db, sink) = pipeline(config().buffer_size(1_000).ordering(ordering).coalesce(coalesce));
        let is_bad = |row: &batchsql_core::DynRow| matches!(row.get("note"), Some(ValueRef::Text("3" | "4" | "11")));
        sink.poison_as(ErrorClass::Internal, is_bad);
        let schema = table("t", Conflict::update(["id"]));
        let mut receipts = Vec::new();
        for version in 0..30 {
            let row = schema.row().set("id", 1_i64).unwrap().set("note", version.to_string()).unwrap();
            receipts.push(db.submit_tracked(&row.finish().unwrap()).await.unwrap());
        }
        let begin = tokio::time::Instant::now();
        db.flush().await.unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
        let kinds = kinds(receipts).await;
        let rejected: Vec<usize> = (0..30).filter(|version| kinds[*version] == OutcomeKind::Rejected).collect();
        assert_eq!(rejected, [3, 4, 11], "{ordering:?}");
        assert_eq!(sink.applied().len(), 27);
    }
}

#[tokio::test(start_paused = true)]
async fn earlier_rows_of_a_key_are_written_when_the_last_one_is_bad() {
    let rules = [
        Conflict::update(["id"]),
        Conflict::update(["id"]).only_if_newer("v"),
        Conflict::update(["id"]).set("v", Expr::add()),
    ];
    for (class, keys) in CLASSES.into_iter().flat_map(|class| [1, 3, 40].map(|keys| (class, keys))) {
        for rule in rules.clone() {
            let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(500));
            let is_bad = |row: &batchsql_core::DynRow| {
                row.get("v").is_some_and(|v| matches!(v, ValueRef::I64(n) if n % 10 == 9))
            };
            sink.poison_as(class, is_bad);
            let schema = Schema::builder("t").column("id", ColumnType::I64).column("v", ColumnType::I64);
            let schema = schema.on_conflict(rule.clone()).build().unwrap();
            let mut receipts = Vec::new();
            for (key, version) in (0..keys).flat_map(|key| (0..10).map(move |version| (key, version))) {
                let row = schema
                    .row()
                    .set("id", i64::from(key))
                    .unwrap()
                    .set("v", i64::from(version * 10 + version / 9 * 9))
                    .unwrap();
                receipts.push(db.submit_tracked(&row.finish().unwrap()).await.unwrap());
            }
            db.flush().await.unwrap();
            let kinds = kinds(receipts).await;
            let failed: Vec<usize> = (0..kinds.len()).filter(|row| kinds[*row] == OutcomeKind::Rejected).collect();
            let bad: Vec<usize> = (0..kinds.len()).filter(|row| row % 10 == 9).collect();
            assert_eq!(failed, bad, "{class} {keys} {rule:?}");
            assert_eq!(sink.tables().rows("t").len(), usize::try_from(keys).unwrap());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rows_that_are_there_already_show_that_the_table_takes_rows() {
    for flush_size in [1, 100] {
        let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(flush_size));
        let schema = table("t", Conflict::ignore(["id"]));
        drop(receipts(&db, &schema, 0..100).await);
        db.flush().await.unwrap();
        sink.poison_as(ErrorClass::Schema, |row| id(row) == 57);
        let begin = tokio::time::Instant::now();
        let kinds = kinds(receipts(&db, &schema, 0..100).await).await;
        assert_eq!(kinds.iter().position(|kind| *kind == OutcomeKind::Rejected), Some(57));
        assert_eq!(kinds.iter().filter(|kind| **kind == OutcomeKind::Ignored).count(), 99);
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn what_interrupts_the_search_rejects_no_row_twice() {
    // The second row that is tried alone gets a transient error; meanwhile other rows arrive.
    for pass in [Step::Fail(ErrorClass::Transient), Step::LoseReply, Step::LeaveRow(0, ErrorClass::Transient)] {
        for ordering in [Ordering::Auto, Ordering::PerTable] {
            for before in 0..6 {
                let (db, sink) = pipeline(config().buffer_size(100).flush_size(2).ordering(ordering));
                sink.poison_as(ErrorClass::Schema, |row| id(row) == 0);
                sink.script(std::iter::repeat_n(Step::Apply, before).chain([pass]));
                let schema = table("t", Conflict::update(["id"]));
                let mut all = receipts(&db, &schema, 0..2).await;
                tokio::time::sleep(Duration::from_millis(1)).await;
                all.extend(receipts(&db, &schema, 2..8).await);
                let balance = db.flush().await.unwrap();
                assert_eq!(
                    (balance.in_flight(), balance.rejected(), balance.written()),
                    (0, 1, 7),
                    "{pass:?} {before}"
                );
                assert_eq!(kinds(all).await[0], OutcomeKind::Rejected);
            }
        }
    }
}

/// Settings of a feed.
fn of_source(mut config: PipelineConfig) -> PipelineConfig {
    config.rows_kept_by = KeptBy::Source;
    config.park_for = Duration::MAX;
    config
}

/// Writes rows 0 to 99 in order; the table is repaired right after row 0 was refused for the nth time, so that it takes the next row
/// that is tried. Returns how the rows end, and the ids in the order in which they were written.
async fn repaired_after(refusals: usize, schema: &Schema, source: bool) -> (Vec<OutcomeKind>, Vec<i64>) {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    let config = config().buffer_size(1_000).flush_size(50).ordering(Ordering::PerTable);
    let (db, sink) = pipeline(if source { of_source(config) } else { config });
    let refused = AtomicUsize::new(0);
    sink.poison_as(ErrorClass::Permission, move |row| {
        let before = if id(row) == 0 { refused.fetch_add(1, SeqCst) } else { refused.load(SeqCst) };
        before < refusals
    });
    let receipts = receipts(&db, schema, 0..100).await;
    db.flush().await.unwrap();
    (kinds(receipts).await, sink.applied().iter().map(id).collect())
}

/// No row of a source is rejected because of its table, also not the row before the first one that the table takes.
#[tokio::test(start_paused = true)]
async fn a_row_that_was_refused_just_before_the_table_was_repaired_is_tried_again() {
    let mut late = 0;
    for refusals in 1..60 {
        for conflict in [Conflict::none(), Conflict::ignore(["id"])] {
            let (kinds, mut written) = repaired_after(refusals, &table("t", conflict.clone()), true).await;
            assert!(kinds.iter().all(|kind| *kind == OutcomeKind::Written), "{refusals} {conflict:?}: {kinds:?}");
            late += usize::from(!written.is_sorted());
            written.sort_unstable();
            assert_eq!(written, (0..100).collect::<Vec<_>>(), "{refusals} {conflict:?}");
        }
        // An older version must not overwrite a newer one, perhaps of a key that only the database takes for the same.
        for source in [false, true] {
            let (kinds, written) = repaired_after(refusals, &table("t", Conflict::update(["id"])), source).await;
            assert!(written.is_sorted(), "{refusals}: {written:?}");
            assert_eq!(written.len(), kinds.iter().filter(|kind| **kind == OutcomeKind::Written).count());
        }
    }
    assert!(late > 0, "the table was never repaired between two rows that were tried alone");
}

#[tokio::test(start_paused = true)]
async fn bad_rows_at_the_head_of_a_lane_do_not_hold_up_good_ones_for_ever() {
    for (bad, flush_size) in [(9, 10), (10, 10), (11, 10), (29, 10), (30, 10), (31, 10), (10, 100), (9, 1), (30, 1)] {
        for (ordering, conflict) in [(Ordering::PerTable, Conflict::update(["id"])), (Ordering::Auto, Conflict::none())]
        {
            for class in CLASSES {
                let config = config().buffer_size(1_000).flush_size(flush_size).max_concurrency(1).ordering(ordering);
                let (db, sink) = pipeline(config);
                sink.poison_as(class, move |row| id(row) < bad);
                let all = receipts(&db, &table("t", conflict.clone()), 0..200).await;
                db.flush().await.unwrap();
                let kinds = kinds(all).await;
                let rejected = kinds.iter().filter(|kind| **kind == OutcomeKind::Rejected).count();
                assert_eq!(rejected as i64, bad, "{class} {ordering:?} {flush_size}: {kinds:?}");
                assert_eq!(sink.tables().rows("t").len() as i64, 200 - bad);
            }
        }
    }
}

/// As above, for rows of a source, which are not rejected because the time of a park is over. Rows before the bad ones may be
/// written, so that a part of a batch has ended when it is not known whose the error is.
#[tokio::test(start_paused = true)]
async fn bad_rows_of_a_source_at_the_head_of_a_lane_are_rejected_in_the_end() {
    let cases = [(9, 10), (10, 10), (11, 10), (29, 10), (30, 10), (31, 10), (9, 1), (30, 1), (10, 100), (100, 10)];
    let orders = [
        (Ordering::PerTable, Conflict::update(["id"])),
        (Ordering::PerTable, Conflict::none()),
        (Ordering::PerKey, Conflict::update(["id"])),
    ];
    for ((bad, flush_size), (ordering, conflict)) in
        cases.into_iter().flat_map(|case| orders.iter().cloned().map(move |order| (case, order)))
    {
        for (class, first) in
            [(ErrorClass::Schema, 0), (ErrorClass::Schema, 3), (ErrorClass::Row, 0), (ErrorClass::Row, 3)]
        {
            let case = format!("{bad} bad from {first} on, {flush_size} a batch, {class} {ordering:?}");
            let few = Isolation::Bisect { max_statements: 4, beyond: batchsql_core::BeyondBudget::Park };
            let config = config().buffer_size(1_000).flush_size(flush_size).ordering(ordering).isolation(few);
            let (db, sink) = pipeline(of_source(config.flush_bytes(1_000).max_concurrency(1)));
            sink.poison_as(class, move |row| (first..first + bad).contains(&id(row)));
            let all = receipts(&db, &table("t", conflict.clone()), 0..200).await;
            let is_over = tokio::time::timeout(HOUR, db.flush()).await.is_ok();
            let (rejected, written) = (db.balance().rejected() as i64, db.balance().written() as i64);
            assert_eq!((is_over, rejected, written), (true, bad, 200 - bad), "{case}");
            let mut applied = ids(&sink.applied());
            if ordering != Ordering::PerTable {
                applied.sort_unstable();
            }
            let good = (0..200).filter(|id| !(first..first + bad).contains(id));
            assert_eq!(applied, good.collect::<Vec<_>>(), "{case}");
            drop(all);
        }
    }
}

/// The rows that show whose the error is come long after their table was parked. One commit allows a few rejections only.
#[tokio::test(start_paused = true)]
async fn a_good_row_of_a_source_resumes_a_parked_table_whenever_it_comes() {
    for ordering in [Ordering::PerTable, Ordering::PerKey, Ordering::None] {
        for bad in [7, 30] {
            let config = config().buffer_size(1_000).ordering(ordering).flush_interval(Duration::from_millis(10));
            let (db, sink) = pipeline(of_source(config));
            sink.poison_as(ErrorClass::Schema, move |row| id(row) < bad);
            let schema = table("t", Conflict::update(["id"]));
            drop(receipts(&db, &schema, 0..bad).await);
            tokio::time::sleep(Duration::from_secs(600)).await;
            assert!(!db.health().parked.is_empty(), "{ordering:?} {bad}");
            for good in bad..bad + 10 {
                drop(receipts(&db, &schema, good..good + 1).await);
                tokio::time::sleep(Duration::from_secs(600)).await;
            }
            let balance = db.balance();
            assert_eq!((balance.rejected() as i64, balance.written()), (bad, 10), "{ordering:?} {bad}");
            assert!(db.health().parked.is_empty(), "{ordering:?} {bad}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bad_rows_at_regular_distances_are_found() {
    for period in [2, 5, 25] {
        let isolation = Isolation::Bisect { max_statements: 5_000, beyond: batchsql_core::BeyondBudget::Park };
        let (db, sink) = pipeline(config().buffer_size(2_000).flush_size(1_000).isolation(isolation));
        sink.poison_as(ErrorClass::Schema, move |row| id(row) % period == 0);
        drop(receipts(&db, &plain(), 0..1_000).await);
        let balance = db.flush().await.unwrap();
        assert_eq!(balance.rejected() as i64, 1_000 / period, "{balance:?}");
        assert_eq!(balance.written() as i64, 1_000 - 1_000 / period);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_park_is_not_that_of_retries() {
    let times = config().retry_for(Duration::from_secs(60)).park_for(Duration::from_secs(3_600));
    let (db, sink) = pipeline(times.max_concurrency(1));
    sink.break_writes("t", ErrorClass::Schema);
    let all = receipts(&db, &table("t", Conflict::update(["id"])), 0..30).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    sink.mend_table("t");
    sink.script([Step::Fail(ErrorClass::Transient); 3]);
    db.flush().await.unwrap();
    assert!(kinds(all).await.iter().all(|kind| *kind == OutcomeKind::Written));
}

#[tokio::test(start_paused = true)]
async fn closing_tries_several_rows_before_it_gives_a_batch_up() {
    let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(100));
    sink.break_writes("t", ErrorClass::Schema);
    drop(receipts(&db, &plain(), 0..100).await);
    tokio::time::sleep(Duration::from_secs(20)).await;
    // The table was repaired, and half of its rows are bad.
    sink.mend_table("t");
    sink.poison_as(ErrorClass::Schema, |row| id(row) % 2 == 0);
    let report = db.close(HOUR).await;
    assert_eq!((report.balance.written(), report.balance.rejected()), (50, 50));

    let (db, sink) = pipeline(config().buffer_size(1_000).flush_size(100));
    sink.break_writes("t", ErrorClass::Schema);
    let mut all = receipts(&db, &plain(), 0..100).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let before = sink.writes();
    assert_eq!(db.close(HOUR).await.balance.rejected(), 100);
    assert!(sink.writes() - before < 50, "{}", sink.writes() - before);
    let outcome = all.remove(0).await;
    let text = outcome.failure().unwrap().error().unwrap().to_string();
    assert!(text.starts_with("rows of this batch were refused, and none was written: "), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_table_that_is_refused_rejects_no_row() {
    for class in [ErrorClass::Row, ErrorClass::Size, ErrorClass::Duplicate] {
        let (db, sink) = pipeline(config());
        sink.script_prepare([Step::Fail(class); 3]);
        let all = receipts(&db, &plain(), 0..10).await;
        db.flush().await.unwrap();
        assert!(kinds(all).await.iter().all(|kind| *kind == OutcomeKind::Written), "{class}");
    }
}
