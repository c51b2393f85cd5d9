//! Rows that refer to other rows of their table: a foreign key refuses a write without the row that they refer to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{Attempt, BatchSql, ErrorClass, OutcomeKind, Rows, Schema, Sink, SinkError, Written};

use crate::support::{HOUR, config, id, ids, pipeline, plain, receipts};

/// Each row refers to the next one, so they can be written only together.
#[tokio::test(start_paused = true)]
async fn a_bad_row_takes_no_row_along_that_refers_to_the_next_one() {
    let (db, sink) = pipeline(config().flush_size(60));
    sink.poison(|row| [17, 44].contains(&id(row)));
    // 5 refers to a row that does not exist, and 4 and 45 to bad ones.
    sink.refer_to(|row| match id(row) {
        5 => Some(999),
        3 | 16 | 43 | 59 => None,
        4 => Some(17),
        45 => Some(44),
        own => Some(own + 1),
    });
    let receipts = receipts(&db, &plain(), 0..60).await;
    db.flush().await.unwrap();
    let mut refused = Vec::new();
    for (id, receipt) in (0..).zip(receipts) {
        let outcome = receipt.await;
        if let Some(failed) = outcome.failure() {
            refused.push((id, failed.code().unwrap().to_owned()));
        }
    }
    let refused: Vec<_> = refused.iter().map(|(id, code)| (*id, code.as_str())).collect();
    let [reference, poison] = ["reference", "poison"];
    assert_eq!(refused, [(4, reference), (5, reference), (17, poison), (44, poison), (45, reference)]);
    assert_eq!(sink.tables().rows("t").len(), 55);
}

/// Whatever refers to what, which rows are bad, and whether the table is broken for a while: each row ends once, as it is told.
#[tokio::test(start_paused = true)]
async fn rows_that_wait_for_others_end_once() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let flush_size = [2, 3, 20, 60][random.usize(..4)];
        let (db, sink) = pipeline(config().flush_size(flush_size).max_concurrency(1));
        let references: Vec<Option<i64>> = (0..60)
            .map(|_| match random.u8(..10) {
                0..5 => None,
                5..9 => Some(random.i64(..60)),
                _ => Some(999),
            })
            .collect();
        let bad: Vec<bool> = (0..60).map(|_| random.u8(..12) == 0).collect();
        let class = [ErrorClass::Row, ErrorClass::Schema, ErrorClass::Permission][random.usize(..3)];
        let (is_bad, refers) = (bad.clone(), references.clone());
        sink.poison_as(class, move |row| is_bad[usize::try_from(id(row)).unwrap()]);
        sink.refer_to(move |row| refers[usize::try_from(id(row)).unwrap()]);
        let is_broken = random.bool();
        if is_broken {
            sink.break_writes("t", ErrorClass::Schema);
        }
        let receipts = receipts(&db, &plain(), 0..60).await;
        tokio::time::sleep(Duration::from_secs(random.u64(..20))).await;
        sink.mend_table("t");
        let report = db.close(HOUR).await;
        assert_eq!(report.balance.in_flight(), 0, "seed {seed}");
        let applied = ids(&sink.applied());
        for (id, receipt) in (0..).zip(receipts) {
            let kind = receipt.await.kind();
            let times = applied.iter().filter(|applied| **applied == id).count();
            assert_eq!(times, usize::from(kind == OutcomeKind::Written), "seed {seed}, row {id}: {kind:?}");
            let index = usize::try_from(id).unwrap();
            if !is_broken && references[index].is_none() && !bad[index] {
                assert_eq!(kind, OutcomeKind::Written, "seed {seed}, row {id}");
            }
        }
    }
}

/// A batch whose rows do not show whether the table is broken takes over the next ones, and its rows begin anew.
#[tokio::test(start_paused = true)]
async fn a_row_that_waits_is_written_once_when_batches_merge() {
    let (db, sink) = pipeline(config().flush_size(2).max_concurrency(1));
    // Row 0 alone is refused by a foreign key, and every other one by an error about the table.
    sink.poison_as(ErrorClass::Schema, |row| id(row) != 0);
    sink.refer_to(|row| (id(row) == 0).then_some(999));
    let mut all = Vec::new();
    for number in 0..10 {
        all.extend(receipts(&db, &plain(), 2 * number..2 * number + 2).await);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    sink.poison(|_| false);
    sink.refer_to(|_| None);
    db.close(HOUR).await;
    for receipt in all {
        assert!(receipt.await.is_written());
    }
    let mut applied = ids(&sink.applied());
    applied.sort_unstable();
    assert_eq!(applied, (0..20).collect::<Vec<_>>());
}

type Reference = Box<dyn Fn(i64) -> Option<i64> + Send>;

/// Refuses rows that come before the row to which they refer, as MySQL does.
#[derive(Clone)]
struct RowByRow(Arc<Mutex<Stored>>);

struct Stored {
    reference: Reference,
    bad: Vec<i64>,
    rows: Vec<i64>,
    writes: usize,
}

impl Sink for RowByRow {
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "row_by_row"
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>, _: &Attempt) -> Result<Written, SinkError> {
        let mut stored = self.0.lock().unwrap();
        stored.writes += 1;
        let before = stored.rows.len();
        for id in (0..rows.len()).map(|row| id(&rows.to_row(row))) {
            let is_bad = stored.bad.contains(&id);
            if is_bad || (stored.reference)(id).is_some_and(|other| !stored.rows.contains(&other)) {
                stored.rows.truncate(before);
                let error = SinkError::new(ErrorClass::Row, "refused");
                return Err(if is_bad { error } else { error.of_foreign_key() });
            }
            stored.rows.push(id);
        }
        Ok(Written::default())
    }
}

/// Writes rows 0 to 99 in one batch; so many of them are good, and it takes so many writes at most.
async fn row_by_row(reference: fn(i64) -> Option<i64>, bad: &[i64], good: usize, most_writes: usize) {
    let writes = writes(100, Box::new(reference), bad, good).await;
    assert!(writes <= most_writes, "{bad:?}: {writes} writes");
}

/// Writes `all` rows in one batch, of which so many are good; how many writes it takes.
async fn writes(all: usize, reference: Reference, bad: &[i64], good: usize) -> usize {
    let sink = RowByRow(Arc::new(Mutex::new(Stored { reference, bad: bad.to_vec(), rows: Vec::new(), writes: 0 })));
    let db = BatchSql::builder(sink.clone()).config(config().buffer_size(all).flush_size(all)).start().unwrap();
    let all = i64::try_from(all).unwrap();
    let receipts = receipts(&db, &plain(), 0..all).await;
    db.flush().await.unwrap();
    let mut told = Vec::new();
    for (id, receipt) in (0..all).zip(receipts) {
        told.extend(receipt.await.is_written().then_some(id));
    }
    let stored = sink.0.lock().unwrap();
    let mut rows = stored.rows.clone();
    rows.sort_unstable();
    assert_eq!((told.len(), told), (good, rows), "{bad:?}");
    stored.writes
}

/// Chains of rows, from the first row of each to the last, and a row at `orphan` that refers to none.
#[derive(Clone, Copy)]
enum Chains {
    ParentsFirst,
    ChildrenFirst,
    Shuffled,
}

async fn writes_of_chains(chains: Chains, number: i64, length: i64, orphan: Option<i64>) -> usize {
    let rows = number * length;
    let mut places: Vec<i64> = (0..rows).collect();
    if matches!(chains, Chains::Shuffled) {
        fastrand::Rng::with_seed(7).shuffle(&mut places);
    }
    // The row at place n of its chain, for each row, and back.
    let mut rows_at = vec![0; places.len()];
    (0..).zip(&places).for_each(|(row, place)| rows_at[usize::try_from(*place).unwrap()] = row);
    let at = |list: &[i64], index: i64| list[usize::try_from(index).unwrap()];
    let reference = move |id: i64| {
        if orphan == Some(id) {
            return Some(-1);
        }
        let before = |row: i64| i64::from(orphan.is_some_and(|orphan| orphan <= row));
        let place = at(&places, id - i64::from(orphan.is_some_and(|orphan| orphan < id)));
        let other = match chains {
            Chains::ParentsFirst | Chains::Shuffled => (place % length > 0).then(|| place - 1),
            Chains::ChildrenFirst => (place % length < length - 1).then(|| place + 1),
        };
        other.map(|place| at(&rows_at, place)).map(|row| row + before(row))
    };
    let all = usize::try_from(rows).unwrap() + usize::from(orphan.is_some());
    writes(all, Box::new(reference), &[], usize::try_from(rows).unwrap()).await
}

/// Each row refers to the next one.
fn next(id: i64) -> Option<i64> {
    (id < 99).then_some(id + 1)
}

/// Rows of ten refer to the first of them, and row 55 to a row that does not exist.
fn head(id: i64) -> Option<i64> {
    if id == 55 { Some(999) } else { (id % 10 > 0).then_some(id / 10 * 10) }
}

#[tokio::test(start_paused = true)]
async fn rows_before_those_to_which_they_refer_cost_one_more_write() {
    row_by_row(next, &[], 100, 2).await;
    // The rows before a bad row have no row to refer to.
    row_by_row(next, &[0], 99, 30).await;
    row_by_row(next, &[29], 70, 250).await;
}

#[tokio::test(start_paused = true)]
async fn rows_behind_those_to_which_they_refer_are_searched_in_their_order() {
    row_by_row(head, &[], 99, 30).await;
    row_by_row(head, &[97], 98, 45).await;
    row_by_row(|id| if id == 55 { Some(999) } else { (id > 0).then_some(id / 4) }, &[], 99, 45).await;
}

#[tokio::test(start_paused = true)]
async fn one_orphan_among_rows_in_either_order_costs_a_short_search() {
    use Chains::{ChildrenFirst, ParentsFirst};
    for orphan in [0, 1, 30, 60, 61, 100, 119, 120] {
        for chains in [ParentsFirst, ChildrenFirst] {
            let writes = writes_of_chains(chains, 3, 40, Some(orphan)).await;
            assert!(writes <= 45, "row {orphan}: {writes} writes");
        }
    }
    for orphan in [0, 1, 500, 999] {
        for chains in [ParentsFirst, ChildrenFirst] {
            let writes = writes_of_chains(chains, 1, 1000, Some(orphan)).await;
            assert!(writes <= 55, "row {orphan}: {writes} writes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rows_in_no_order_cost_no_more_than_twice_a_search_for_each_level() {
    // 50 levels of two rows, searched row by row: 2 x 50 x 100.
    for orphan in [None, Some(50)] {
        let writes = writes_of_chains(Chains::Shuffled, 1, 100, orphan).await;
        assert!(writes <= 10_000, "{orphan:?}: {writes} writes");
    }
}
