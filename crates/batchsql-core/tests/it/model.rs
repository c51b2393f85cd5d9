//! Random schedules of submits, cancellations, faults, flushes and a close, checked against what the sink applied and
//! against a model of the tables.
//!
//! `PROPTEST_CASES` sets the number of schedules; `cargo xtask fuzz` runs many more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use batchsql_core::{
    BatchSql, BeyondBudget, Coalesce, ColumnType, Conflict, DeadLetters, Delivery, DynRow, ErrorClass, Isolation,
    Ordering, OutcomeKind, PipelineConfig, Receipt, Row, Schema, ValueRef, WhenFull,
};
use batchsql_testkit::{Model, ScriptedSink, Step};
use proptest::prelude::*;

use crate::support::{FAR, HOUR, Recorder, id};

/// The tables of a schedule; see [`table`].
const TABLES: usize = 7;

/// The tables of which every row is tracked, so that their content can be predicted.
const TRACKED: std::ops::Range<usize> = 1..5;

/// Numbers of rows that are submitted in place of failed ones, and while the pipeline closes.
const MENDED: i64 = 1_000_000;
const RACING: i64 = 2_000_000;

#[derive(Debug, Clone)]
enum Action {
    /// Submits rows one after the other; every row has a serial number of its own.
    Submit { rows: usize, table: usize },
    /// Submits to all tables in turn.
    SubmitAround { rows: usize },
    /// Submits rows in one call.
    SubmitAll { rows: usize, tables: usize },
    /// Submits plain rows without waiting.
    TrySubmit { rows: usize },
    /// Gives a submit up after some milliseconds.
    Cancelled { millis: u64, table: usize },
    /// Lets time pass.
    Wait(u64),
    /// Flushes without waiting for it.
    Flush,
    /// Flushes, and cancels the call before its end.
    CancelledFlush,
    /// What the sink does with its next writes.
    Script(Vec<Step>),
    /// What the sink does with its next connections and checks of tables.
    ScriptBefore(Vec<Step>),
    /// Breaks a table for a while.
    Break { table: usize, permission: bool, millis: u64 },
    /// Several tasks submit at once, each with a key of its own.
    Together { tasks: usize, rows: usize },
    /// Lets late writes reach the database.
    Deliver,
    /// Makes a table slow for good.
    Slow { table: usize, millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Apply),
        2 => (1u64..300).prop_map(|ms| Step::Delay(Duration::from_millis(ms))),
        1 => Just(Step::Delay(Duration::from_secs(4))),
        3 => Just(Step::Fail(ErrorClass::Transient)),
        1 => Just(Step::Fail(ErrorClass::Resource)),
        1 => Just(Step::Fail(ErrorClass::Row)),
        1 => Just(Step::Fail(ErrorClass::Size)),
        1 => Just(Step::Fail(ErrorClass::Duplicate)),
        1 => Just(Step::Fail(ErrorClass::Schema)),
        1 => Just(Step::Fail(ErrorClass::Internal)),
        1 => Just(Step::Fail(ErrorClass::Unknown)),
        2 => Just(Step::LoseReply),
        1 => (0usize..12).prop_map(Step::RejectRow),
        1 => (0usize..12).prop_map(|row| Step::LeaveRow(row, ErrorClass::Transient)),
        1 => (0usize..12).prop_map(|row| Step::LeaveRow(row, ErrorClass::Unknown)),
        1 => (0usize..12).prop_map(Step::LoseRow),
        2 => Just(Step::Late),
        1 => Just(Step::LateAndSilent),
        1 => Just(Step::Panic),
        1 => Just(Step::Hang),
        1 => Just(Step::HangInQueue),
    ]
}

fn step_before() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Apply),
        1 => (1u64..300).prop_map(|ms| Step::Delay(Duration::from_millis(ms))),
        2 => Just(Step::Fail(ErrorClass::Transient)),
        1 => Just(Step::Fail(ErrorClass::Schema)),
        1 => Just(Step::Panic),
        1 => Just(Step::Hang),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let table = 0..TABLES;
    prop_oneof![
        5 => (1usize..40, table.clone()).prop_map(|(rows, table)| Action::Submit { rows, table }),
        2 => (1usize..40).prop_map(|rows| Action::SubmitAround { rows }),
        1 => (1usize..90, 1usize..3).prop_map(|(rows, tables)| Action::SubmitAll { rows, tables }),
        2 => (1usize..40).prop_map(|rows| Action::TrySubmit { rows }),
        1 => (0u64..3, table.clone()).prop_map(|(millis, table)| Action::Cancelled { millis, table }),
        2 => (0u64..500).prop_map(Action::Wait),
        1 => Just(Action::Flush),
        1 => Just(Action::CancelledFlush),
        3 => proptest::collection::vec(step(), 1..6).prop_map(Action::Script),
        1 => proptest::collection::vec(step_before(), 1..4).prop_map(Action::ScriptBefore),
        1 => (table.clone(), any::<bool>(), 1u64..8000)
            .prop_map(|(table, permission, millis)| Action::Break { table, permission, millis }),
        2 => (1usize..5, 1usize..20).prop_map(|(tasks, rows)| Action::Together { tasks, rows }),
        1 => Just(Action::Deliver),
        1 => (table, 50u64..400).prop_map(|(table, millis)| Action::Slow { table, millis }),
    ]
}

fn config() -> impl Strategy<Value = PipelineConfig> {
    let sizes = (1usize..12, 0usize..60, 1usize..5, 0u64..200, any::<bool>());
    let policies = (
        prop_oneof![
            6 => Just(WhenFull::Wait),
            1 => Just(WhenFull::WaitAtMost(Duration::from_millis(200))),
            1 => Just(WhenFull::Reject),
            2 => Just(WhenFull::DropOldest),
        ],
        prop_oneof![3 => Just(Coalesce::LastPerKey), 1 => Just(Coalesce::Off)],
        prop_oneof![
            4 => prop_oneof![1usize..4, 1usize..40].prop_map(|most| bisect((most, BeyondBudget::Reject))),
            1 => (1usize..10).prop_map(|max_statements| (max_statements, BeyondBudget::Park)).prop_map(bisect),
            1 => Just(Isolation::AtomicBatch),
        ],
        prop_oneof![
            4 => Just(Ordering::Auto),
            1 => Just(Ordering::PerKey),
            1 => Just(Ordering::PerTable),
            1 => Just(Ordering::None),
        ],
        prop_oneof![1 => Just(0u64), 3 => 1u64..5000],
        prop_oneof![
            3 => Just(Delivery::AtMostOnce),
            1 => Just(Delivery::AtLeastOnce),
            1 => Just(Delivery::NeverRepeat),
        ],
    );
    (sizes, policies).prop_map(|((flush_size, more, max_concurrency, interval, tight), policies)| {
        let (when_full, coalesce, isolation, ordering, park_for, delivery) = policies;
        PipelineConfig::default()
            .flush_size(flush_size)
            .buffer_size(flush_size + more)
            // Sometimes bytes are the limit.
            .buffer_bytes(if tight { 800 } else { 1 << 20 })
            .flush_bytes(if tight { 200 } else { 1 << 20 })
            .max_concurrency(max_concurrency)
            .flush_interval(Duration::from_millis(interval))
            .when_full(when_full)
            .coalesce(coalesce)
            .isolation(isolation)
            .ordering(ordering)
            .park_for(Duration::from_millis(park_for))
            .delivery(delivery)
            .retry_for(Duration::from_secs(2))
            .statement_timeout(Duration::from_secs(3))
    })
}

fn bisect((max_statements, beyond): (usize, BeyondBudget)) -> Isolation {
    Isolation::Bisect { max_statements, beyond }
}

/// Plain inserts, and one table for each kind of conflict rule.
fn table(number: usize) -> Schema {
    let conflict = match number {
        0 => Conflict::None,
        1 | 5 => Conflict::update(["key"]),
        2 => Conflict::replace(["key"]),
        3 => Conflict::ignore(["key"]),
        // The same table as number 1, under another rule.
        6 => Conflict::update_columns(["key"], ["b", "id"]),
        _ => Conflict::update_columns(["key"], ["a", "id"]),
    };
    Schema::builder(name(number))
        .column("id", ColumnType::I64)
        .column("key", ColumnType::I64)
        .nullable("a", ColumnType::I64)
        .nullable("b", ColumnType::I64)
        .on_conflict(conflict)
        .build()
        .unwrap()
}

fn name(table: usize) -> &'static str {
    ["plain", "updated", "replaced", "ignored", "partly updated", "untracked", "updated"][table]
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
    schemas: [Schema; TABLES],
    buffer_size: u64,
    when_full: WhenFull,
    next: i64,
    /// Rows that were accepted and are tracked, in the order of their submission.
    receipts: BTreeMap<i64, (DynRow, Receipt)>,
}

impl Run {
    fn row(&mut self, table: usize) -> DynRow {
        self.row_with(table, (self.next + 1) * 3 % 5 * FAR)
    }

    fn row_with(&mut self, table: usize, key: i64) -> DynRow {
        self.next += 1;
        let row = self.schemas[table].row().set("id", self.next).unwrap().set("key", key).unwrap();
        // Rows leave out different columns.
        let row = if self.next % 3 == 0 { row } else { row.set("a", self.next).unwrap() };
        let row = if self.next % 4 == 0 { row } else { row.set("b", -self.next).unwrap() };
        row.finish().unwrap()
    }

    async fn submit(&mut self, table: usize) {
        let row = self.row(table);
        let submitted = tokio::time::timeout(HOUR, self.db.submit_tracked(&row)).await.expect("a submit hangs");
        match submitted {
            Ok(receipt) => drop(self.receipts.insert(id(&row), (row, receipt))),
            Err(error) => {
                assert!(error.is_full(), "{error}");
                assert!(!matches!(self.when_full, WhenFull::Wait | WhenFull::DropOldest), "{:?}", self.when_full);
            }
        }
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Submit { rows, table } => {
                for _ in 0..rows {
                    self.submit(table).await;
                }
            }
            Action::SubmitAround { rows } => {
                for row in 0..rows {
                    self.submit(row % TABLES).await;
                }
            }
            Action::SubmitAll { rows, tables } => {
                // Untracked, hence only tables of which the content is not compared.
                let rows: Vec<DynRow> = (0..rows).map(|row| self.row(if row % tables == 0 { 0 } else { 5 })).collect();
                let submitted = tokio::time::timeout(HOUR, self.db.submit_all(&rows)).await;
                let _ = submitted.expect("submit_all hangs");
            }
            Action::TrySubmit { rows } => {
                for _ in 0..rows {
                    let row = self.row(0);
                    if let Err(error) = self.db.try_submit(&row) {
                        assert!(error.is_full(), "{error}");
                    }
                }
            }
            Action::Cancelled { millis, table } => {
                let row = self.row(table);
                let submit = self.db.submit_tracked(&row);
                if let Ok(Ok(receipt)) = tokio::time::timeout(Duration::from_millis(millis), submit).await {
                    self.receipts.insert(id(&row), (row, receipt));
                }
            }
            Action::Together { tasks, rows } => {
                let mut submitting = tokio::task::JoinSet::new();
                for task in 0..tasks {
                    let key = (10 + task as i64) * FAR;
                    let rows: Vec<DynRow> = (0..rows).map(|_| self.row_with(1 + task % 2, key)).collect();
                    let db = self.db.clone();
                    submitting.spawn(async move {
                        let mut accepted = Vec::new();
                        for row in rows {
                            let submitted = tokio::time::timeout(HOUR, db.submit_tracked(&row)).await;
                            match submitted.expect("a submit hangs") {
                                Ok(receipt) => accepted.push((row, receipt)),
                                Err(error) => assert!(error.is_full(), "{error}"),
                            }
                        }
                        accepted
                    });
                }
                while let Some(accepted) = submitting.join_next().await {
                    self.receipts
                        .extend(accepted.unwrap().into_iter().map(|(row, receipt)| (id(&row), (row, receipt))));
                }
            }
            Action::Deliver => drop(self.sink.deliver()),
            Action::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Action::Flush => {
                let db = self.db.clone();
                tokio::spawn(async move { db.flush().await });
            }
            Action::CancelledFlush => {
                let _ = tokio::time::timeout(Duration::from_millis(1), self.db.flush()).await;
            }
            Action::Script(steps) => {
                self.release_later(&steps);
                self.sink.script(steps);
            }
            Action::ScriptBefore(steps) => {
                self.release_later(&steps);
                let (acquire, prepare) = steps.split_at(steps.len() / 2);
                self.sink.script_acquire(acquire.to_vec());
                self.sink.script_prepare(prepare.to_vec());
            }
            Action::Break { table, permission, millis } => {
                let class = if permission { ErrorClass::Permission } else { ErrorClass::Schema };
                match permission {
                    true => self.sink.break_writes(name(table), class),
                    false => self.sink.break_table(name(table), class),
                }
                let sink = self.sink.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    sink.mend_table(name(table));
                });
            }
            Action::Slow { table, millis } => self.sink.slow_table(name(table), Duration::from_millis(millis)),
        }
        let in_flight = self.db.balance().in_flight();
        assert!(in_flight <= self.buffer_size, "{in_flight} rows in a buffer of {}", self.buffer_size);
    }

    /// Releases hanging calls after a while, as the statement timeout would do.
    fn release_later(&self, steps: &[Step]) {
        let hangs = steps.iter().filter(|step| matches!(step, Step::Hang | Step::HangInQueue)).count();
        let sink = self.sink.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            sink.release(hangs);
        });
    }
}

fn nature() -> impl Strategy<Value = Nature> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let loses = proptest::option::weighted(0.2, 1usize..6);
    let class = prop_oneof![
        3 => Just(ErrorClass::Row),
        1 => Just(ErrorClass::Schema),
        1 => Just(ErrorClass::Internal),
    ];
    ((3i64..60, class), flags, loses, proptest::option::weighted(0.3, 0u64..20)).prop_map(
        |(
            (poison, class),
            (tells_rows, sorts_by_key, refuses_equal, resubmits, races),
            loses_replies,
            takes_letters,
        )| Nature {
            poison,
            class,
            resubmits,
            races,
            tells_rows,
            sorts_by_key,
            refuses_equal,
            loses_replies,
            takes_letters,
        },
    )
}

/// How the sink of a schedule behaves in general.
#[derive(Debug, Clone)]
struct Nature {
    poison: i64,
    /// What the error of such a row says.
    class: ErrorClass,
    tells_rows: bool,
    sorts_by_key: bool,
    /// Two rows of a key in one statement are an error, as on PostgreSQL.
    refuses_equal: bool,
    /// At first, each of so many writes loses the reply of a row, as on Redis: also while bad rows are searched.
    loses_replies: Option<usize>,
    /// Failed rows are taken from a channel, each after so many milliseconds.
    takes_letters: Option<u64>,
    /// Some of them are corrected and submitted again.
    resubmits: bool,
    /// A task keeps submitting while the pipeline closes.
    races: bool,
}

async fn check(config: PipelineConfig, actions: Vec<Action>, nature: Nature, deadline: Duration) {
    let sink = ScriptedSink::new();
    sink.grow_batches();
    let poison = nature.poison;
    sink.poison_as(nature.class, move |row| id(row) % poison == 0);
    if nature.tells_rows {
        sink.tell_rows();
    }
    if let Some(every) = nature.loses_replies {
        let step = |write| if write % every == 0 { Step::LoseRow(write % 3) } else { Step::Apply };
        sink.script((1..60).map(step));
    }
    if nature.sorts_by_key {
        sink.sort_by_key();
    }
    if nature.refuses_equal {
        let is_plain = |row: &DynRow| *row.schema().conflict() == Conflict::None;
        sink.refuse_equal(move |row| if is_plain(row) { format!("id {}", id(row)) } else { key(row).to_string() });
    }
    let recorder = Recorder::default();
    let (buffer_size, when_full) = (config.buffer_size as u64, config.when_full);
    let is_ordered = config.ordering != Ordering::None;
    let mut builder = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone());
    let mut letters = None;
    if let Some(millis) = nature.takes_letters {
        recorder.0.lock().unwrap().has_letters = true;
        let (dead_letters, mut failed) = DeadLetters::channel();
        builder = builder.dead_letters(dead_letters);
        let (handle, pipeline) = tokio::sync::oneshot::channel::<batchsql_core::WeakBatchSql>();
        let mended = nature.resubmits.then(|| table(0));
        letters = Some((
            handle,
            tokio::spawn(async move {
                let (mut received, mut number) = (0, MENDED);
                let pipeline = pipeline.await.unwrap();
                while let Some(letter) = failed.recv().await {
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    received += 1;
                    // Once: a table that is broken would refuse it again and again.
                    let is_first = id(letter.failed_row().row()) < MENDED;
                    if let (Some(schema), Some(db), true) = (&mended, pipeline.upgrade(), is_first) {
                        number += if (number + 1) % poison == 0 { 2 } else { 1 };
                        let row = schema.row().set("id", number).unwrap().set("key", 0_i64).unwrap().finish().unwrap();
                        // It is refused when the pipeline closes.
                        let _ = db.resubmit(letter, &row);
                    }
                }
                received
            }),
        ));
    }
    let db = builder.start().unwrap();
    let letters = letters.map(|(handle, task)| {
        let _ = handle.send(db.downgrade());
        task
    });
    let schemas = std::array::from_fn(table);
    let mut run = Run { db, sink, schemas, buffer_size, when_full, next: 0, receipts: BTreeMap::new() };
    for action in actions {
        run.act(action).await;
    }
    let racing = nature.races.then(|| {
        let (db, schema) = (run.db.clone(), table(0));
        tokio::spawn(async move {
            let mut receipts = Vec::new();
            for number in RACING.. {
                let row = schema.row().set("id", number).unwrap().set("key", 0_i64).unwrap().finish().unwrap();
                match db.submit_tracked(&row).await {
                    Ok(receipt) => receipts.push(receipt),
                    Err(error) if error.is_full() => {}
                    Err(error) => {
                        assert!(error.is_closed(), "{error}");
                        break;
                    }
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            receipts
        })
    });
    tokio::task::yield_now().await;
    let begin = tokio::time::Instant::now();
    let report = tokio::time::timeout(HOUR, run.db.close(deadline)).await.expect("close hangs");
    assert!(begin.elapsed() <= deadline + Duration::from_millis(1), "close took {:?}", begin.elapsed());

    if let Some(racing) = racing {
        for receipt in racing.await.unwrap() {
            assert!(receipt.try_outcome().is_some(), "what was accepted while closing has an outcome");
        }
    }
    // Writes that are late now overwrite nothing either.
    run.sink.deliver();

    // The balance, and the same in the metrics.
    let balance = report.balance;
    assert_eq!(balance.in_flight(), 0, "{balance:?}");
    {
        let recorded = recorder.0.lock().unwrap();
        assert_eq!(recorded.received as u64, balance.accepted);
        assert_eq!(recorded.resolved, balance.accepted);
        let gauges = recorded.gauges.unwrap();
        if letters.is_none() {
            assert_eq!((gauges.buffer_rows, gauges.buffer_bytes), (0, 0), "capacity was not released");
        }
        assert_eq!(gauges.parked_tables, 0);
    }
    if let Some(letters) = letters {
        assert_eq!(letters.await.unwrap(), balance.failed(), "each failed row is one letter");
    }

    // Each receipt agrees with what the sink applied. The model has every row that had its effect, in the order of
    // submission, whatever the order of writing was.
    let applied = run.sink.applied();
    let ids: BTreeSet<i64> = applied.iter().map(id).collect();
    let mut unknown = 0;
    let mut expected = Model::default();
    for (number, (row, receipt)) in run.receipts {
        let outcome = receipt.try_outcome().expect("after close every receipt is resolved");
        let had_effect = match outcome.kind() {
            OutcomeKind::Written => {
                assert!(ids.contains(&number), "row {number} was not applied");
                true
            }
            // After a lost reply the row that was there may be this one.
            OutcomeKind::Ignored => true,
            OutcomeKind::Superseded => {
                assert!(!ids.contains(&number), "row {number} is superseded but was applied");
                true
            }
            OutcomeKind::Unknown => {
                unknown += 1;
                ids.contains(&number)
            }
            kind => {
                assert!(!ids.contains(&number), "row {number} is {kind:?} but was applied");
                false
            }
        };
        if let Some(failed) = outcome.failure() {
            assert_eq!(id(failed.row()), number, "another row came back");
        }
        assert!(number % poison != 0 || !outcome.is_written(), "a poisoned row was written");
        if had_effect {
            expected.apply(&row);
        }
    }
    let unknown_in_all = balance.outcomes.get(OutcomeKind::Unknown);
    assert!(unknown <= unknown_in_all);
    let most = balance.written() + balance.ignored() + unknown_in_all;
    assert!((balance.written()..=most).contains(&(ids.len() as u64)), "{} applied, {balance:?}", ids.len());
    if is_ordered {
        let tables = run.sink.tables();
        for table in TRACKED.map(name) {
            let key_of = |row: &BTreeMap<String, batchsql_core::Value>| format!("{:?}", row["key"].as_ref());
            let sorted =
                |model: &Model| model.rows(table).iter().map(|r| (key_of(r), r.clone())).collect::<BTreeMap<_, _>>();
            assert!(
                sorted(&tables) == sorted(&expected),
                "table {table}\nis {:?}\nnot {:?}",
                show(&tables, table),
                show(&expected, table)
            );
        }
    }
}

/// Every handle is dropped: the pipeline drains in the background.
async fn abandon(config: PipelineConfig, actions: Vec<Action>) {
    let sink = ScriptedSink::new();
    sink.grow_batches();
    let recorder = Recorder::default();
    let (buffer_size, when_full) = (config.buffer_size as u64, config.when_full);
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    let schemas = std::array::from_fn(table);
    let mut run = Run { db, sink, schemas, buffer_size, when_full, next: 0, receipts: BTreeMap::new() };
    for action in actions {
        run.act(action).await;
    }
    let Run { db, receipts, .. } = run;
    drop(db);
    for (number, (_, receipt)) in receipts {
        let outcome = tokio::time::timeout(HOUR, receipt).await;
        assert!(outcome.is_ok(), "row {number} has no outcome");
    }
    // Untracked rows, too: the last gauges are reported when every row has ended.
    tokio::time::sleep(HOUR).await;
    let recorded = recorder.0.lock().unwrap();
    assert_eq!(recorded.received as u64, recorded.resolved);
    assert_eq!(recorded.gauges.map(|gauges| gauges.buffer_rows), Some(0));
}

/// The rows of a table, for a message.
fn show(model: &Model, table: &str) -> Vec<Vec<(String, String)>> {
    let row = |row: &BTreeMap<String, batchsql_core::Value>| {
        row.iter().map(|(name, value)| (name.clone(), format!("{:?}", value.as_ref()))).collect()
    };
    model.rows(table).iter().map(row).collect()
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(1_500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn every_row_ends_once_and_as_it_is_told(
        config in config(),
        actions in proptest::collection::vec(action(), 1..25),
        nature in nature(),
        patient in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let deadline = if patient { Duration::from_secs(3000) } else { Duration::from_millis(700) };
        runtime.block_on(check(config, actions, nature, deadline));
    }

    #[test]
    fn a_pipeline_that_is_abandoned_ends_every_row(
        config in config(),
        actions in proptest::collection::vec(action(), 1..12),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(abandon(config, actions));
    }
}
