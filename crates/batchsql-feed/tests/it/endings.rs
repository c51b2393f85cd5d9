//! One partition ends, or all do.

use std::sync::Arc;
use std::time::Duration;

use batchsql_core::ErrorClass;
use batchsql_feed::{NotStarted, PartitionState};
use batchsql_testkit::Step;

use crate::source::{Fed, Memory, TABLE, written};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_partition_that_is_given_away_finishes_what_is_under_way() {
    for exactly_once in [false, true] {
        let fed = Fed::new(|options| if exactly_once { options.exactly_once("test") } else { options });
        let (source, other) = (Memory::default(), Memory::default());
        fed.sink.script([Step::Hang]);
        source.block(1, 0..3);
        let state = fed.start(0, 0, &source);
        fed.until("its rows are sent", || fed.sink.writes() == 1).await;
        let stopping = async {
            let stopped = fed.feeds.stop(TABLE, 0, LONG).await;
            assert!(stopped.is_some(), "the source is returned");
            assert_eq!((state.settled(), written(&fed.sink)), (3, vec![0, 1, 2]));
        };
        let going_on = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            source.block(4, 3..4);
            fed.sink.release(1);
        };
        tokio::join!(stopping, going_on);
        assert!(fed.feeds.stop(TABLE, 0, LONG).await.is_none(), "it is not fed any more");
        let next = fed.start(1, 0, &other);
        other.block(1, 10..11);
        fed.until("the other partition goes on", || next.settled() == 1).await;
        assert_eq!(written(&fed.sink), [0, 1, 2, 10], "nothing more is read of the partition that was given away");
        // It may come back.
        let again = fed.start(0, 3, &source);
        fed.until("it goes on where it was", || again.settled() == 4).await;
        assert_eq!(written(&fed.sink), [0, 1, 2, 10, 3]);
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_does_not_wait_longer_than_the_limit() {
    for exactly_once in [false, true] {
        let fed = Fed::new(|options| if exactly_once { options.exactly_once("test") } else { options });
        let source = Memory::default();
        fed.sink.script([Step::Hang]);
        source.block(1, 0..3);
        let state = fed.start(0, 0, &source);
        fed.until("its rows are sent", || fed.sink.writes() == 1).await;
        assert!(fed.feeds.stop(TABLE, 0, Duration::from_secs(2)).await.is_none(), "the source is dropped");
        fed.sink.release(1);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!((state.settled(), source.state().settled.len()), (0, 0), "nothing is settled after the call");
        fed.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_not_started_before_its_task_has_ended() {
    for is_dropped in [false, true] {
        let (fed, source) = (Fed::new(|options| options), Memory::default());
        fed.sink.script([Step::Hang]);
        source.block(1, 0..3);
        fed.start(0, 0, &source);
        fed.until("its rows are sent", || fed.sink.writes() == 1).await;
        let state = || Arc::new(PartitionState::new(TABLE, 0, 0));
        let limit = if is_dropped { LONG } else { Duration::from_secs(2) };
        {
            let stopping = fed.feeds.stop(TABLE, 0, limit);
            tokio::pin!(stopping);
            let short = tokio::time::timeout(Duration::from_secs(1), &mut stopping).await;
            assert!(short.is_err(), "its rows are under way");
            assert_eq!(fed.feeds.start(state(), source.clone()), Err(NotStarted::Running));
            if !is_dropped {
                assert!(stopping.await.is_none());
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(fed.feeds.start(state(), source.clone()), Ok(()));
        fed.sink.release(1);
        fed.end().await;
    }
}

/// New rows come faster than a partition looks whether its table is parked.
#[tokio::test(start_paused = true)]
async fn a_parked_table_is_set_aside_under_steady_load_and_back() {
    let (fed, source) = (Fed::new(|options| options), Memory::default());
    fed.sink.break_table("t", ErrorClass::Schema);
    let state = fed.start(0, 0, &source);
    let mut next = 1;
    let mut feed_until = async |what: &str, is_so: &dyn Fn() -> bool| {
        for _ in 0..600 {
            if is_so() {
                return;
            }
            source.block(next, [next as i64]);
            next += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("it takes too long until {what}");
    };
    feed_until("it is set aside", &|| source.state().aside == [true]).await;
    fed.sink.mend_table("t");
    feed_until("it is back", &|| source.state().aside == [true, false]).await;
    fed.until("all is settled", || state.settled() == state.read()).await;
    fed.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_fed_once() {
    let (fed, source) = (Fed::new(|options| options), Memory::default());
    fed.start(0, 0, &source);
    let state = || Arc::new(PartitionState::new(TABLE, 0, 0));
    assert_eq!(fed.feeds.start(state(), source.clone()), Err(NotStarted::Running));
    fed.end().await;
    assert_eq!(fed.feeds.start(state(), source), Err(NotStarted::Ended));
}
