//! What must be true when a schedule has ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{BatchSql, Conflict, DeadLetters, DynRow, Ordering, OutcomeKind, PipelineConfig, Row};
use batchsql_testkit::{Model, ScriptedSink, Step};

use super::run::Run;
use super::schedule::{Action, Nature};
use super::tables::{TRACKED, key, name, number_of, table};
use tokio::time::Instant;

use crate::support::{HOUR, Recorder};

/// Numbers of rows that are submitted in place of failed ones, and while the pipeline closes.
const MENDED: i64 = 1_000_000;
const RACING: i64 = 2_000_000;

pub(super) async fn check(config: PipelineConfig, actions: Vec<Action>, nature: Nature, deadline: Duration) {
    let sink = ScriptedSink::new();
    // Else a row could be refused behind an earlier one of its key, although it was written before the reply was lost.
    sink.accept_again();
    sink.grow_batches();
    let poison = nature.poison;
    sink.poison_as(nature.class, move |row| number_of(row) % poison == 0);
    if nature.tells_rows {
        sink.report_rows();
    }
    if let Some(every) = nature.loses_replies {
        let step = |write| if write % every == 0 { Step::LoseRow(write % 3) } else { Step::Apply };
        sink.script((1..60).map(step));
    }
    if nature.sorts_by_key {
        sink.sort_by_key();
    }
    if nature.refuses_equal {
        let is_plain = |row: &DynRow| *row.schema().conflict() == Conflict::none();
        sink.refuse_equal(
            move |row| if is_plain(row) { format!("id {}", number_of(row)) } else { key(row).to_string() },
        );
    }
    let recorder = Recorder::default();
    let (buffer_size, when_full) = (config.buffer_size as u64, config.when_full);
    let settings = config.clone();
    let ordering_of =
        |table: &str| settings.tables.get(table).and_then(|own| own.ordering).unwrap_or(settings.ordering);
    let ended_at = Arc::new(Mutex::new(BTreeMap::new()));
    let ends = Arc::clone(&ended_at);
    let mut builder = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone());
    builder = builder.on_failed_row(move |outcome| {
        let row = outcome.failure().expect("only failed rows are passed").row();
        ends.lock().unwrap().insert(number_of(row), Instant::now());
    });
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
                    let is_first = number_of(letter.failed_row().row()) < MENDED;
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
    let mut run = Run::new(db, sink, buffer_size, when_full);
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
    let ids: BTreeSet<i64> = applied.iter().map(number_of).collect();
    let mut unknown = 0;
    let mut expected = Model::default();
    for (number, (row, receipt, accepted_at)) in run.receipts {
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
            OutcomeKind::Expired => {
                // A row that would be retried for longer expires only because of its age.
                let own = settings.tables.get(row.schema().table_display());
                let max_age = own.and_then(|own| own.max_age).or(settings.max_age);
                let retry_for = own.and_then(|own| own.retry_for).unwrap_or(settings.retry_for);
                if retry_for > Duration::from_secs(1000) {
                    let age = ended_at.lock().unwrap()[&number].duration_since(accepted_at);
                    assert!(max_age.is_some_and(|max_age| max_age <= age), "row {number} expired after {age:?}");
                }
                assert!(!ids.contains(&number), "row {number} is expired but was applied");
                false
            }
            kind => {
                assert!(!ids.contains(&number), "row {number} is {kind:?} but was applied");
                false
            }
        };
        if let Some(failed) = outcome.failure() {
            assert_eq!(number_of(failed.row()), number, "another row came back");
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
    let tables = run.sink.tables();
    for table in TRACKED.map(name) {
        if ordering_of(table) != Ordering::None {
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
pub(super) async fn abandon(config: PipelineConfig, actions: Vec<Action>) {
    let sink = ScriptedSink::new();
    sink.grow_batches();
    let recorder = Recorder::default();
    let (buffer_size, when_full) = (config.buffer_size as u64, config.when_full);
    let db = BatchSql::builder(sink.clone()).config(config).metrics_reporter(recorder.clone()).start().unwrap();
    let mut run = Run::new(db, sink, buffer_size, when_full);
    for action in actions {
        run.act(action).await;
    }
    let Run { db, receipts, .. } = run;
    drop(db);
    for (number, (_, receipt, _)) in receipts {
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
pub(super) fn show(model: &Model, table: &str) -> Vec<Vec<(String, String)>> {
    let row = |row: &BTreeMap<String, batchsql_core::Value>| {
        row.iter().map(|(name, value)| (name.clone(), format!("{:?}", value.as_ref()))).collect()
    };
    model.rows(table).iter().map(row).collect()
}
