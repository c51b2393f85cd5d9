//! What a source says to claims and positions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{
    BatchInfo, BeyondBudget, Claim, ClaimFrom, ColumnType, DynRow, ErrorClass, Isolation, MetricsReporter,
    PartitionKey, PipelineConfig, Schema, StopReason, ValueRef,
};
use batchsql_feed::{Begin, NotClaimed, Refusal, StoppedPartition, without_ends};
use batchsql_testkit::{Sabotage, Step};

use crate::source::{Fed, Memory, TABLE, written};

fn fed() -> Fed {
    Fed::new(|options| options.exactly_once("test"))
}

fn fed_with(config: PipelineConfig) -> Fed {
    Fed::with(|options| options.exactly_once("test"), |builder| without_ends(builder, config))
}

#[tokio::test(start_paused = true)]
async fn rows_up_to_the_position_are_left_out() {
    let (fed, source) = (fed(), Memory::default());
    source.block(1, 0..5);
    let state = fed.start(0, 0, &source);
    fed.until("all is written", || state.settled() == 5).await;
    fed.feeds.stop(TABLE, 0, std::time::Duration::from_secs(1)).await.unwrap();
    // A worker that did not hear of it.
    let again = Memory::default();
    again.block(1, 0..5);
    again.block(6, 5..7);
    let state = fed.start(0, 0, &again);
    fed.until("the rest is written", || state.settled() == 7).await;
    assert_eq!((written(&fed.sink), again.state().told.clone()), ((0..7).collect(), vec![5]));
    assert_eq!(again.state().settled.first(), Some(&(1..=5)), "the source hears what the position says");
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_is_refused_is_made_again_or_stops() {
    let (fed, source) = (fed(), Memory::default());
    source.state().claims.extend([Err(Refusal::Wait("no lease yet".to_owned())), Ok(Claim::of("me"))]);
    source.state().begins.push_back(Err(Refusal::Wait("not yet".to_owned())));
    source.block(1, 0..1);
    let state = fed.start(0, 0, &source);
    fed.until("it waits", || state.waiting().is_some()).await;
    fed.until("it was written", || state.settled() == 1).await;
    assert_eq!((state.waiting(), written(&fed.sink)), (None, vec![0]));
    assert_eq!(source.state().refused, [NotClaimed::Missing]);
    assert_eq!(source.state().told, [0, 0], "it was asked again after it refused the position");
    fed.end().await;

    let (fed, source) = (self::fed(), Memory::default());
    let other = Claim::of("other").or_begin_at(0);
    let claimed = fed.pipeline.claim(&PartitionKey::new("test", "made-1", TABLE, 0), &other).await.unwrap();
    assert!(claimed.position().is_some());
    source.state().claims.push_back(Ok(Claim::of("me")));
    source.block(1, 0..1);
    let state = fed.start(0, 0, &source);
    fed.until("it was written", || state.settled() == 1).await;
    assert_eq!(source.state().refused, [NotClaimed::Other]);
    fed.end().await;

    let (fed, source) = (self::fed(), Memory::default());
    source.state().claims.push_back(Err(Refusal::Stop(StopReason::Settings, "look".to_owned())));
    let state = fed.start(0, 0, &source);
    fed.until("it has stopped", || state.stopped().is_some()).await;
    assert_eq!(fed.feeds.stopped()[0].reason, "look");
    fed.end().await;
}

/// For example a trigger that raises the code of a deadlock, or of a full memory, for one of the rows.
#[tokio::test(start_paused = true)]
async fn rows_that_are_tried_again_and_again_are_shown_to_wait() {
    for class in [ErrorClass::Transient, ErrorClass::Resource] {
        let (fed, source) = (fed(), Memory::default());
        fed.sink.script([Step::Fail(class); 20]);
        source.block(1, 0..3);
        let state = fed.start(0, 0, &source);
        fed.until("it waits", || state.waiting().is_some()).await;
        assert!(fed.sink.writes() >= 2, "once may be chance");
        let reason = state.waiting().unwrap().reason;
        assert!(reason.contains("its rows were not written"), "{reason}");
        fed.until("it was written", || state.settled() == 3).await;
        assert_eq!((state.waiting(), written(&fed.sink)), (None, vec![0, 1, 2]));
        fed.end().await;
    }
}

/// Ends a runtime when a row is rejected: on its thread, so that the task goes on to its next wait.
struct EndsRuntime(Arc<Mutex<Option<tokio::runtime::Runtime>>>);

impl MetricsReporter for EndsRuntime {
    fn rows_rejected(&self, _: &BatchInfo<'_>, _: ErrorClass, _: u64) {
        if let Some(runtime) = self.0.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

#[test]
fn a_row_whose_letter_cannot_be_kept_is_not_passed() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (handle, runtime) = (runtime.handle().clone(), Arc::new(Mutex::new(Some(runtime))));
    let fed = {
        let _entered = handle.enter();
        Fed::with(
            |options| options.exactly_once("test"),
            |builder| builder.metrics_reporter(EndsRuntime(Arc::clone(&runtime))),
        )
    };
    fed.sink.poison(|row| *row == crate::source::row(1));
    let source = Memory::default();
    source.block(1, 0..4);
    let task = fed.start(0, 0, &source);
    // The task, and with it its sender of progress, is dropped with the runtime.
    while Arc::strong_count(&task) > 2 || runtime.lock().unwrap().is_some() {
        std::thread::yield_now();
    }
    assert_eq!((written(&fed.sink), fed.letters()), (vec![0], String::new()));
    assert_eq!((fed.sink.position("t", 0), task.settled()), (Some(1), 1), "the row comes again");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_comes_back_is_read_anew() {
    let (fed, source) = (fed(), Memory::default());
    source.state().begins_anew = true;
    source.block(1, 0..3);
    // The reply is lost, and meanwhile another process has the partition.
    fed.sink.script([Step::Hang]);
    let state = fed.start(0, 0, &source);
    fed.until("its rows are sent", || fed.sink.writes() == 1).await;
    let key = PartitionKey::new("test", "made-1", TABLE, 0);
    let other = Claim::of("other").from(ClaimFrom::Anyone).lease(Duration::from_secs(600));
    assert!(fed.pipeline.claim(&key, &other).await.unwrap().position().is_some());
    source.block(4, 3..5);
    fed.sink.release(1);
    fed.until("its claim was refused", || !source.state().refused.is_empty()).await;
    let position = fed.pipeline.positions("test").await.unwrap()[0].position;
    assert!(fed.pipeline.release(&position).await.unwrap());
    fed.until("all is written", || state.settled() == 5).await;
    assert_eq!(written(&fed.sink), [0, 1, 2, 3, 4]);
    assert_eq!(fed.pipeline.balance().accepted, 5, "no row is twice in a step");
    fed.end().await;
}

/// The rows that were written, and the number of rejected ones, of four rows of which one is bad.
async fn with_a_bad_row(sabotage: Option<Sabotage>) -> (Vec<i64>, u64) {
    let (fed, source) = (fed(), Memory::default());
    sabotage.into_iter().for_each(|sabotage| fed.sink.sabotage(sabotage));
    fed.sink.poison(|row| *row == crate::source::row(1));
    source.block(1, 0..4);
    let state = fed.start(0, 0, &source);
    fed.until("all is settled, or it has stopped", || state.settled() == 4 || state.stopped().is_some()).await;
    let found = (written(&fed.sink), fed.feeds.counts().dead_letters);
    fed.end().await;
    found
}

#[tokio::test(start_paused = true)]
async fn a_position_that_moves_without_its_rows_loses_them() {
    assert_eq!(with_a_bad_row(None).await, (vec![0, 2, 3], 1));
    let found = with_a_bad_row(Some(Sabotage::PositionAlone)).await;
    assert_ne!(found, (vec![0, 2, 3], 1), "the defect is not found");
}

/// Steps whose replies were lost are written after their partition was claimed anew, while fewer rows are tried again: the rows
/// that were written, and whether the partition goes on.
async fn with_a_late_step(sabotage: Option<Sabotage>) -> (Vec<i64>, bool) {
    let (fed, source) = (fed(), Memory::default());
    sabotage.into_iter().for_each(|sabotage| fed.sink.sabotage(sabotage));
    fed.sink.script([Step::Late, Step::Late, Step::Hang]);
    source.block(1, 0..3);
    let state = fed.start(0, 0, &source);
    fed.until("the rows are tried again", || fed.sink.writes() == 3).await;
    fed.sink.deliver();
    fed.sink.release(1);
    fed.until("all is settled, or it has stopped", || state.settled() == 3 || state.stopped().is_some()).await;
    let found = (written(&fed.sink), state.stopped().is_none());
    fed.end().await;
    found
}

#[tokio::test(start_paused = true)]
async fn a_late_step_of_an_earlier_epoch_changes_nothing() {
    assert_eq!(with_a_late_step(None).await, (vec![0, 1, 2], true));
    let found = with_a_late_step(Some(Sabotage::NoEpochTest)).await;
    assert_ne!(found, (vec![0, 1, 2], true), "the defect is not found");
}

/// More bad rows than a step takes, so that none of the rows of a step shows that the table accepts rows.
#[tokio::test(start_paused = true)]
async fn good_rows_behind_steps_of_bad_ones_are_found() {
    let few = Isolation::Bisect { max_statements: 4, beyond: BeyondBudget::Park };
    for (bad, step) in [(9, 10), (10, 10), (11, 10), (29, 10), (30, 10), (31, 10), (30, 1), (100, 10)] {
        for class in [ErrorClass::Schema, ErrorClass::Row] {
            let config = PipelineConfig::default().flush_size(step).max_batch_rows(step).isolation(few);
            let (fed, source) = (fed_with(config), Memory::default());
            fed.sink.poison_as(class, move |row| (0..bad).any(|id| *row == crate::source::row(id)));
            (0..15).for_each(|block| source.block(block * 10 + 1, block as i64 * 10..block as i64 * 10 + 10));
            let state = fed.start(0, 0, &source);
            fed.until("all has ended", || state.settled() == 150).await;
            assert_eq!(written(&fed.sink), (bad..150).collect::<Vec<_>>(), "{bad} {step} {class}");
            assert_eq!(fed.letters().lines().count() as i64, bad, "{bad} {step} {class}");
            assert_eq!(state.waiting(), None, "{bad} {step} {class}");
            fed.end().await;
        }
    }
}

/// It is found once, and shows for every step before it that the table accepts rows.
#[tokio::test(start_paused = true)]
async fn one_good_row_behind_many_steps_of_bad_ones_is_enough() {
    let config = PipelineConfig::default().flush_size(10).max_batch_rows(10);
    let (fed, source) = (fed_with(config), Memory::default());
    fed.sink.poison_as(ErrorClass::Schema, |row| *row != crate::source::row(97));
    (0..15).for_each(|block| source.block(block * 10 + 1, block as i64 * 10..block as i64 * 10 + 10));
    let state = fed.start(0, 0, &source);
    fed.until("the good row was written", || state.settled() >= 98).await;
    assert_eq!(written(&fed.sink), [97]);
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_may_be_missing_are_counted() {
    let (fed, source) = (fed(), Memory::default());
    source.state().begins.push_back(Ok(Begin::behind(2, 2)));
    source.block(1, 0..4);
    let state = fed.start(0, 2, &source);
    fed.until("the rest is written", || state.settled() == 4).await;
    assert_eq!((written(&fed.sink), fed.feeds.counts().missing), (vec![2, 3], 2));
    assert_eq!(fed.sink.position("t", 0), Some(4));
    fed.end().await;
}

/// A row that takes 256 KiB of the buffer; by default a step of one of 8 connections has 2 MiB.
fn large(id: i64) -> DynRow {
    let schema = Schema::builder("t").column("id", ColumnType::I64).column("note", ColumnType::Text).build().unwrap();
    schema.row().set("id", id).unwrap().set("note", "n".repeat(256 << 10)).unwrap().finish().unwrap()
}

#[tokio::test(start_paused = true)]
async fn large_rows_wait_by_their_bytes() {
    let (fed, source) = (fed(), Memory::default());
    (0..40).for_each(|id| source.block_of(id as u64 + 1, &[large(id)]));
    // One block of more than a step.
    source.block_of(41, &(40..60).map(large).collect::<Vec<_>>());
    fed.sink.script([Step::Hang]);
    let state = fed.start(0, 0, &source);
    fed.until("a step is sent", || fed.sink.writes() == 1).await;
    assert_eq!(source.returned(), 8);
    fed.until("all is written", || state.settled() == 60).await;
    assert_eq!(written(&fed.sink), (0..60).collect::<Vec<_>>());
    // Once without an answer, five times 8 rows, and 8, 8, 4.
    assert_eq!(fed.sink.writes(), 1 + 5 + 3);
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_good_row_behind_large_bad_ones_is_found() {
    let few = Isolation::Bisect { max_statements: 4, beyond: BeyondBudget::Park };
    let config = PipelineConfig::default().isolation(few);
    let (fed, source) = (fed_with(config), Memory::default());
    (0..64).for_each(|id| source.block_of(id as u64 + 1, &[large(id)]));
    fed.sink.poison(|row| !matches!(row.get("id"), Some(ValueRef::I64(50..))));
    let state = fed.start(0, 0, &source);
    fed.until("all has ended", || state.settled() == 64).await;
    assert_eq!((written(&fed.sink), fed.letters().lines().count()), ((50..64).collect(), 50));
    fed.end().await;
}

/// What waits in one partition leaves less for the others, and none waits for another one.
#[tokio::test(start_paused = true)]
async fn all_partitions_share_the_memory() {
    let fed = fed();
    fed.sink.break_table("t", ErrorClass::Schema);
    let sources: Vec<Memory> = (0..12).map(|_| Memory::default()).collect();
    for source in &sources {
        (0..80).for_each(|id| source.block_of(id as u64 + 1, &[large(id)]));
    }
    let states: Vec<_> = sources.iter().zip(0..).map(|(source, partition)| fed.start(partition, 0, source)).collect();
    fed.until("all wait", || states.iter().all(|state| state.waiting().is_some())).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let returned: Vec<usize> = sources.iter().map(Memory::returned).collect();
    // 64 rows fill 16 MiB, half of the buffer; the others have 32 each.
    assert!(returned.iter().all(|rows| (32..=64).contains(rows)), "{returned:?}");
    assert!(returned.iter().sum::<usize>() <= 64 + 11 * 32, "{returned:?}");
    fed.sink.mend_table("t");
    fed.until("all is written", || states.iter().all(|state| state.settled() == 80)).await;
    assert_eq!(written(&fed.sink).len(), 12 * 80);
    fed.end().await;
}

/// Somebody moves the position while a step of three rows is in doubt. What was written then, and why the partition has stopped.
async fn moved_in_doubt(step: Step, sequence: i64) -> (Vec<i64>, StoppedPartition) {
    let (fed, source) = (fed(), Memory::default());
    source.block(1, 0..3);
    fed.sink.script([step]);
    let state = fed.start(0, 0, &source);
    fed.until("the step is sent", || fed.sink.writes() == 1).await;
    fed.sink.set_position("t", 0, Some(sequence));
    fed.until("it has stopped", || state.stopped().is_some()).await;
    let stopped = state.stopped().unwrap();
    assert_eq!((stopped.kind, state.settled()), (Some(StopReason::Position), 0), "{stopped}");
    fed.end().await;
    (written(&fed.sink), stopped)
}

/// To where the step would have left it.
#[tokio::test(start_paused = true)]
async fn a_position_that_was_moved_for_a_step_is_not_taken_for_its_own() {
    let (written, stopped) = moved_in_doubt(Step::Hang, 3).await;
    assert!(written.is_empty() && stopped.reason.contains("set it back to 0"), "{stopped}");
}

/// The step was committed, and the position is set back to where the step has left it.
#[tokio::test(start_paused = true)]
async fn a_position_that_was_moved_behind_a_step_is_set_back_to_the_step() {
    let (written, stopped) = moved_in_doubt(Step::HangAfter, 9).await;
    assert!(written == [0, 1, 2] && stopped.reason.contains("set it back to 3"), "{stopped}");
}

/// A table that is broken fills the memory; another one has bad rows in front of good ones.
#[tokio::test(start_paused = true)]
async fn a_broken_table_does_not_keep_another_one_from_its_good_rows() {
    let few = Isolation::Bisect { max_statements: 4, beyond: BeyondBudget::Park };
    let config = PipelineConfig::default().isolation(few);
    let fed = fed_with(config);
    fed.sink.poison_as(ErrorClass::Schema, |row| !matches!(row.get("id"), Some(ValueRef::I64(200..400))));
    let (broken, other) = (Memory::default(), Memory::default());
    (0..80).for_each(|id| broken.block_of(id as u64 + 1, &[large(id)]));
    let state = fed.start(0, 0, &broken);
    fed.until("it waits", || state.waiting().is_some()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    // Each row has a block of its own.
    (0..60).for_each(|id| other.block(id + 1, [if id < 40 { id as i64 } else { 200 + id as i64 }]));
    let state = fed.start(1, 0, &other);
    fed.until("all has ended", || state.settled() == 60).await;
    assert_eq!(written(&fed.sink), (240..260).collect::<Vec<_>>());
    fed.end().await;
}
