//! Sequences with holes, gaps, and what a source has dealt with itself.

use batchsql_core::StopReason;
use batchsql_feed::{FeedOptions, Next, SourceError};

use crate::source::{Fed, Memory, written};

/// As JetStream numbers them: the message, and the row in it.
const fn sequence(message: u64, row: u64) -> u64 {
    message << 20 | row
}

fn exactly_once(options: FeedOptions) -> FeedOptions {
    options.exactly_once("test")
}

fn at_least_once(options: FeedOptions) -> FeedOptions {
    options
}

const BOTH: [fn(FeedOptions) -> FeedOptions; 2] = [at_least_once, exactly_once];

#[tokio::test(start_paused = true)]
async fn holes_are_no_gaps() {
    for options in BOTH {
        let (fed, source) = (Fed::new(options), Memory::default());
        source.block(sequence(1, 0), 0..3);
        source.block(sequence(4, 0), 3..5);
        let state = fed.start(0, 0, &source);
        fed.until("two blocks are settled", || state.settled() == sequence(4, 1)).await;
        source.block(sequence(9, 0), 5..6);
        fed.until("the third block is settled", || state.settled() == sequence(9, 0)).await;
        assert_eq!((written(&fed.sink), state.read()), ((0..6).collect(), sequence(9, 0)));
        assert_eq!(fed.feeds.counts().missing, 0);
        let settled = source.state().settled.clone();
        assert!(settled.is_sorted_by(|a, b| a.end() < b.start()), "ranges rise: {settled:?}");
        assert_eq!(settled.last().map(|rows| *rows.end()), Some(sequence(9, 0)));
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_block_may_be_settled_in_part() {
    for options in BOTH {
        let (fed, source) = (Fed::new(options), Memory::default());
        source.state().begins.push_back(Ok(batchsql_feed::Begin::behind(sequence(1, 1), 0)));
        source.block(sequence(1, 0), 0..4);
        let state = fed.start(0, sequence(1, 1), &source);
        fed.until("the block is settled", || state.settled() == sequence(1, 3)).await;
        assert_eq!(written(&fed.sink), [2, 3]);
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_stops_its_partition_alone() {
    for options in BOTH {
        let (fed, source, other) = (Fed::new(options), Memory::default(), Memory::default());
        source.block(1, 0..2);
        source.gap(3, sequence(1, 0), 7);
        source.block(sequence(2, 0), 2..3);
        let (state, next) = (fed.start(0, 0, &source), fed.start(1, 0, &other));
        fed.until("it has stopped and settled", || state.stopped().is_some() && state.settled() == 2).await;
        other.block(1, 10..11);
        fed.until("the other one goes on", || next.settled() == 1).await;
        let stopped = fed.feeds.stopped();
        assert_eq!((stopped.len(), &*stopped[0].reason), (1, "look for the rows"));
        assert_eq!(stopped[0].kind, Some(StopReason::Gap));
        assert_eq!(written(&fed.sink), [0, 1, 10]);
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gap_can_be_accepted_and_its_rows_are_counted() {
    for options in BOTH {
        let (fed, source) = (Fed::new(|given| options(given).accept_gaps(true)), Memory::default());
        source.block(1, 0..2);
        source.gap(3, sequence(1, 0), 7);
        source.block(sequence(2, 0), 2..3);
        let state = fed.start(0, 0, &source);
        fed.until("all is settled", || state.settled() == sequence(2, 0)).await;
        assert_eq!((fed.feeds.counts().missing, written(&fed.sink)), (7, vec![0, 1, 2]));
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_source_has_dealt_with_is_settled_in_its_turn() {
    for options in BOTH {
        let (fed, source) = (Fed::new(options), Memory::default());
        source.push(Ok(Next::Skip(1..=4)));
        source.block(5, 0..1);
        source.push(Ok(Next::Skip(6..=sequence(1, 0))));
        let state = fed.start(0, 0, &source);
        fed.until("all is settled", || state.settled() == sequence(1, 0)).await;
        assert_eq!((written(&fed.sink), fed.feeds.counts().missing), (vec![0], 0));
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
#[allow(clippy::reversed_empty_ranges, reason = "that is the defect of the source")]
async fn an_empty_range_of_a_source_counts_as_nothing() {
    for options in BOTH {
        let (fed, source) = (Fed::new(options), Memory::default());
        source.block(1, 0..1);
        source.push(Ok(Next::Skip(2..=1)));
        source.gap(2, 1, 0);
        let state = fed.start(0, 0, &source);
        fed.until("the block is settled", || state.settled() == 1).await;
        source.block(2, 1..2);
        fed.until("it goes on", || state.settled() == 2).await;
        assert_eq!((written(&fed.sink), state.stopped(), fed.feeds.counts().missing), (vec![0, 1], None, 0));
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_read_is_asked_again_or_stops() {
    for options in BOTH {
        let (fed, source) = (Fed::new(options), Memory::default());
        source.push(Err(SourceError::again("not now")));
        source.block(1, 0..1);
        let state = fed.start(0, 0, &source);
        fed.until("it was asked again", || state.settled() == 1).await;
        source.push(Err(SourceError::stop(StopReason::OtherSource, "make it anew")));
        fed.until("it has stopped", || state.stopped().is_some()).await;
        let stopped = state.stopped().unwrap();
        assert_eq!((stopped.kind, &*stopped.reason), (Some(StopReason::OtherSource), "make it anew"));
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rejected_row_is_in_the_letters_under_its_sequence() {
    for options in BOTH {
        let (fed, source) = (Fed::new(options), Memory::default());
        fed.sink.poison(|row| *row == crate::source::row(1));
        source.block(sequence(3, 0), 0..3);
        let state = fed.start(7, 0, &source);
        fed.until("the block is settled", || state.settled() == sequence(3, 2)).await;
        let id = format!("made-1:\\\"t\\\":7:{}", sequence(3, 1));
        let letters = fed.letters();
        assert!(letters.lines().count() == 1 && letters.contains(&id), "{letters}");
        let counts = fed.feeds.counts();
        assert_eq!((written(&fed.sink), counts.dead_letters), (vec![0, 2], 1));
        assert_eq!((counts.read, counts.written, state.is_held()), (3, 2, true));
        assert_eq!(fed.feeds.table_counts(), [(state.table().to_owned(), counts)]);
        fed.end().await;
    }
}
