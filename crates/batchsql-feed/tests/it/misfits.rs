//! Rows that do not fit the schema of the program: how many of them are rejected, and when.

use std::time::Duration;

use batchsql_core::{
    Claim, ClaimFrom, ColumnType, Conflict, DynRow, Isolation, PartitionKey, PipelineConfig, Schema, SchemaBuilder,
    StopReason,
};
use batchsql_feed::{FeedOptions, Misfits};
use batchsql_testkit::Step;

use crate::source::{Fed, Memory, TABLE, schema, written};

const LONG: Duration = Duration::from_secs(60);
/// How many rows may be rejected without one that is accepted.
const BUDGET: usize = 5;

fn noted(note: impl FnOnce(SchemaBuilder) -> SchemaBuilder) -> Schema {
    let schema = note(Schema::builder("t").column("id", ColumnType::I64));
    schema.on_conflict(Conflict::ignore(["id"])).build().unwrap()
}

/// A row with a column that may be `NULL` where it was stored.
fn note(id: i64, note: Option<&str>) -> DynRow {
    let schema = noted(|schema| schema.nullable("note", ColumnType::Text));
    schema.row().set("id", id).unwrap().set("note", note).unwrap().finish().unwrap()
}

/// Feeds with this schema of the table, which reject what does not fit it.
fn fed(declared: Schema, is_exact: bool, config: impl FnOnce(PipelineConfig) -> PipelineConfig) -> Fed {
    let options = |options: FeedOptions| {
        let options = options.misfits(Misfits::Reject);
        if is_exact { options.exactly_once("test") } else { options }
    };
    Fed::declared(vec![declared], options, |builder| {
        let mut settings = builder.settings();
        if let Isolation::Bisect { max_statements, .. } = &mut settings.isolation {
            *max_statements = BUDGET;
        }
        builder.config(config(settings))
    })
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_misfits_is_kept_past_the_budget() {
    for (is_exact, in_a_block) in [(false, 1), (false, 3), (false, 40), (true, 1), (true, 3), (true, 40)] {
        // A column was added to the table after the program had started.
        let (fed, source) = (fed(schema(), is_exact, |config| config), Memory::default());
        source.block(1, 0..3);
        for first in (0..40).step_by(in_a_block) {
            let rows: Vec<_> = (first..first + in_a_block).map(|id| note(10 + id as i64, Some("x"))).collect();
            source.block_of(4 + first as u64, &rows);
        }
        let state = fed.start(0, 0, &source);
        fed.until("it has stopped", || state.stopped().is_some()).await;
        fed.until("those that ended are settled", || state.settled() == 3 + BUDGET as u64).await;
        let stopped = state.stopped().unwrap();
        assert_eq!(stopped.kind, Some(StopReason::Schema));
        let advice =
            ["the schema of table", "has no column \"note\"", "start the program again", "5 rows that can never"];
        assert!(advice.iter().all(|part| stopped.reason.contains(part)), "{}", stopped.reason);
        tokio::time::sleep(LONG).await;
        assert_eq!((written(&fed.sink), fed.letters().lines().count()), (vec![0, 1, 2], BUDGET));
        assert_eq!(state.settled(), 3 + BUDGET as u64);
        fed.end().await;
        if is_exact {
            assert_eq!(fed.sink.position("t", 0), Some(3 + BUDGET as i64));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn misfits_between_rows_that_are_accepted_stop_nothing() {
    for (is_exact, is_one_block) in [(false, false), (false, true), (true, false), (true, true)] {
        let declared = noted(|schema| schema.column("note", ColumnType::Text));
        let (fed, source) = (fed(declared, is_exact, |config| config), Memory::default());
        let rows: Vec<_> = (0..40).map(|id| note(id, (id % 2 == 0).then_some("x"))).collect();
        let blocks = if is_one_block { rows.chunks(40) } else { rows.chunks(1) };
        let mut first = 1;
        for block in blocks {
            source.block_of(first, block);
            first += block.len() as u64;
        }
        let state = fed.start(0, 0, &source);
        fed.until("all is settled, or it has stopped", || state.settled() == 40 || state.stopped().is_some()).await;
        assert_eq!(state.stopped(), None);
        assert_eq!(written(&fed.sink), (0..40).step_by(2).collect::<Vec<_>>());
        assert_eq!(fed.letters().lines().count(), 20);
        fed.end().await;
    }
}

/// A process that was frozen, so that another one has its partition.
#[tokio::test(start_paused = true)]
async fn a_process_without_the_partition_rejects_nothing() {
    let (fed, source) = (fed(schema(), true, |config| config), Memory::default());
    source.state().begins_anew = true;
    source.block(1, 0..3);
    let state = fed.start(0, 0, &source);
    fed.until("its rows are written", || state.settled() == 3).await;
    let key = PartitionKey::new("test", "made-1", TABLE, 0);
    let other = Claim::of("other").from(ClaimFrom::Anyone).lease(Duration::from_secs(600));
    let claimed = fed.pipeline.claim(&key, &other).await.unwrap();
    source.block_of(4, &[note(10, Some("x")), note(11, Some("x"))]);
    fed.until("it has read them", || state.read() == 5).await;
    fed.until("it knows the other one", || !state.is_held() || !fed.letters().is_empty()).await;
    assert_eq!(fed.letters(), "");
    assert!(fed.pipeline.release(&claimed.position().unwrap()).await.unwrap());
    fed.until("the partition is back", || state.settled() == 5).await;
    assert_eq!((fed.letters().lines().count(), written(&fed.sink)), (2, vec![0, 1, 2]));
    fed.end().await;
}

/// A row that is large waits for the buffer until the feed ends. A small one behind it, in the same block, may have its key.
#[tokio::test(start_paused = true)]
async fn rows_behind_one_that_was_not_accepted_are_not_submitted() {
    let declared = noted(|schema| schema.column("note", ColumnType::Text));
    let small_buffer = |config: PipelineConfig| config.buffer_bytes(64 << 10).flush_bytes(32 << 10);
    let (fed, source) = (fed(declared, false, small_buffer), Memory::default());
    let large = "x".repeat(40 << 10);
    fed.sink.script([Step::Hang]);
    source.block_of(1, &[note(0, Some(&large))]);
    let state = fed.start(0, 0, &source);
    fed.until("the first one is sent", || fed.sink.writes() == 1).await;
    source.block_of(2, &[note(1, Some(&large)), note(2, None), note(3, Some("x"))]);
    fed.until("the others are read", || state.read() == 4).await;
    let stopping = async { assert!(fed.feeds.stop(TABLE, 0, LONG).await.is_some()) };
    let going_on = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        fed.sink.release(1);
    };
    tokio::join!(stopping, going_on);
    assert_eq!((state.settled(), written(&fed.sink)), (1, vec![0]));
    fed.end().await;
}
