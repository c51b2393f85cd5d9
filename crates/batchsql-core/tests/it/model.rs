//! Random schedules of submits, cancellations, faults, flushes and a close, checked against what the
//! sink really applied.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use batchsql_core::{
    BatchSql, BeyondBudget, ColumnType, Conflict, DynRow, ErrorClass, Isolation, OutcomeKind, PipelineConfig, Receipt,
    Schema, ValueRef,
};
use batchsql_testkit::{ScriptedSink, Step};
use proptest::prelude::*;

use crate::support::{HOUR, Recorder, id};

#[derive(Debug, Clone)]
enum Action {
    /// Submits rows one after the other; every row has a serial number of its own.
    Submit { rows: usize, keyed: bool },
    /// Submits without waiting.
    TrySubmit { rows: usize, keyed: bool },
    /// Gives a submit up after a millisecond.
    Cancelled,
    /// Lets time pass.
    Wait(u64),
    /// Flushes without waiting for it.
    Flush,
    /// What the sink does with its next writes.
    Script(Vec<Step>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Apply),
        2 => (1u64..300).prop_map(|ms| Step::Delay(Duration::from_millis(ms))),
        3 => Just(Step::Fail(ErrorClass::Transient)),
        1 => Just(Step::Fail(ErrorClass::Resource)),
        1 => Just(Step::Fail(ErrorClass::Row)),
        1 => Just(Step::Fail(ErrorClass::Size)),
        1 => Just(Step::Fail(ErrorClass::Schema)),
        1 => Just(Step::Fail(ErrorClass::Unknown)),
        1 => Just(Step::LoseReply),
        1 => Just(Step::Panic),
        1 => Just(Step::Hang),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (1usize..40, any::<bool>()).prop_map(|(rows, keyed)| Action::Submit { rows, keyed }),
        2 => (1usize..40, any::<bool>()).prop_map(|(rows, keyed)| Action::TrySubmit { rows, keyed }),
        1 => Just(Action::Cancelled),
        2 => (0u64..500).prop_map(Action::Wait),
        1 => Just(Action::Flush),
        3 => proptest::collection::vec(step(), 1..6).prop_map(Action::Script),
    ]
}

fn config() -> impl Strategy<Value = PipelineConfig> {
    (1usize..12, 0usize..60, 1usize..5, 0u64..200, 1usize..40, any::<bool>()).prop_map(
        |(flush_size, more, max_concurrency, interval, isolation_budget, tight)| PipelineConfig {
            flush_size,
            buffer_size: flush_size + more,
            // Sometimes bytes are what is short.
            buffer_bytes: if tight { 600 } else { 1 << 20 },
            flush_bytes: if tight { 200 } else { 1 << 20 },
            max_concurrency,
            flush_interval: Duration::from_millis(interval),
            isolation: Isolation::Bisect { max_statements: isolation_budget, beyond: BeyondBudget::Reject },
            retry_for: Duration::from_secs(2),
            statement_timeout: Duration::from_secs(3),
            ..PipelineConfig::default()
        },
    )
}

fn table(keyed: bool) -> Schema {
    let conflict = if keyed { Conflict::update(["key"]) } else { Conflict::None };
    Schema::builder(if keyed { "keyed" } else { "plain" })
        .column("id", ColumnType::I64)
        .column("key", ColumnType::I64)
        .on_conflict(conflict)
        .build()
        .unwrap()
}

fn key(row: &DynRow) -> i64 {
    match row.get("key") {
        Some(ValueRef::I64(key)) => key,
        other => panic!("no key: {other:?}"),
    }
}

/// One run of a schedule.
struct Run {
    db: BatchSql,
    sink: ScriptedSink,
    tables: [Schema; 2],
    buffer_size: u64,
    next: i64,
    receipts: BTreeMap<i64, Receipt>,
}

impl Run {
    fn row(&mut self, keyed: bool) -> DynRow {
        self.next += 1;
        let row = self.tables[usize::from(keyed)].row();
        row.set("id", self.next).unwrap().set("key", self.next % 5).unwrap().finish().unwrap()
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Submit { rows, keyed } => {
                for _ in 0..rows {
                    let row = self.row(keyed);
                    let receipt = tokio::time::timeout(HOUR, self.db.submit_tracked(&row)).await;
                    let receipt = receipt.expect("a submit hangs").unwrap();
                    self.receipts.insert(id(&row), receipt);
                }
            }
            Action::TrySubmit { rows, keyed } => {
                for _ in 0..rows {
                    let row = self.row(keyed);
                    if let Err(error) = self.db.try_submit(&row) {
                        assert!(error.is_full(), "{error}");
                    }
                }
            }
            Action::Cancelled => {
                let row = self.row(false);
                let submit = self.db.submit_tracked(&row);
                if let Ok(receipt) = tokio::time::timeout(Duration::from_millis(1), submit).await {
                    self.receipts.insert(id(&row), receipt.unwrap());
                }
            }
            Action::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Action::Flush => {
                let db = self.db.clone();
                tokio::spawn(async move { db.flush().await });
            }
            Action::Script(steps) => {
                // What hangs is let go after a while, as the statement timeout would do.
                let hangs = steps.iter().filter(|step| **step == Step::Hang).count();
                self.sink.script(steps);
                let sink = self.sink.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    sink.release(hangs);
                });
            }
        }
        let in_flight = self.db.balance().in_flight();
        assert!(in_flight <= self.buffer_size, "{in_flight} rows in a buffer of {}", self.buffer_size);
    }
}

async fn check(config: PipelineConfig, actions: Vec<Action>, poison: i64, deadline: Duration) {
    let sink = ScriptedSink::new();
    sink.poison(move |row| id(row) % poison == 0);
    let recorder = Recorder::default();
    let buffer_size = config.buffer_size as u64;
    let builder = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone());
    let db = builder.start().unwrap();
    let tables = [table(false), table(true)];
    let mut run = Run { db, sink, tables, buffer_size, next: 0, receipts: BTreeMap::new() };
    for action in actions {
        run.act(action).await;
    }
    let begin = tokio::time::Instant::now();
    let report = tokio::time::timeout(HOUR, run.db.close(deadline)).await.expect("close hangs");
    assert!(begin.elapsed() <= deadline + Duration::from_millis(1), "close took {:?}", begin.elapsed());

    // The balance, and the same in the metrics.
    let balance = report.balance;
    assert_eq!(balance.in_flight(), 0, "{balance:?}");
    {
        let recorded = recorder.0.lock().unwrap();
        assert_eq!(recorded.received as u64, balance.accepted);
        assert_eq!(recorded.resolved, balance.accepted);
        assert_eq!(recorded.gauges.unwrap().buffer_rows, 0, "room was not given back");
    }

    // Each receipt tells what the sink saw.
    let applied = run.sink.applied();
    let ids: BTreeSet<i64> = applied.iter().map(id).collect();
    let mut unknown = 0;
    for (number, receipt) in run.receipts {
        let outcome = receipt.try_outcome().expect("after close every receipt is resolved");
        match outcome.kind() {
            OutcomeKind::Written => assert!(ids.contains(&number), "row {number} was not applied"),
            OutcomeKind::Unknown => unknown += 1,
            kind => assert!(!ids.contains(&number), "row {number} is {kind:?} but was applied"),
        }
        if let Some(failed) = outcome.failure() {
            assert_eq!(id(failed.row()), number, "another row came back");
        }
        assert!(number % poison != 0 || !outcome.is_written(), "a poisoned row was written");
    }
    let unknown_in_all = balance.outcomes.get(OutcomeKind::Unknown);
    assert!(unknown <= unknown_in_all);
    let most = balance.written() + unknown_in_all;
    assert!((balance.written()..=most).contains(&(ids.len() as u64)), "{} applied, {balance:?}", ids.len());

    // Rows with one key were applied in the order of their submission; a repeat comes at once.
    for wanted in 0..5 {
        let keyed =
            applied.iter().filter(|row| batchsql_core::Row::schema(*row) == &run.tables[1] && key(row) == wanted);
        let mut last_seen = 0;
        let mut highest = BTreeMap::new();
        for (place, number) in keyed.map(id).enumerate() {
            highest.insert(number, place);
            last_seen = last_seen.max(number);
        }
        let order: Vec<i64> = {
            let mut by_last_place: Vec<(usize, i64)> =
                highest.into_iter().map(|(number, place)| (place, number)).collect();
            by_last_place.sort_unstable();
            by_last_place.into_iter().map(|(_, number)| number).collect()
        };
        assert!(order.is_sorted(), "key {wanted}: {order:?}");
        assert!(order.last().is_none_or(|last| *last == last_seen), "the last version did not win");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_row_ends_once_and_as_it_is_told(
        config in config(),
        actions in proptest::collection::vec(action(), 1..25),
        poison in 3i64..60,
        patient in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let deadline = if patient { Duration::from_secs(3000) } else { Duration::from_millis(700) };
        runtime.block_on(check(config, actions, poison, deadline));
    }
}
