//! What observers see of a file of lines.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use batchsql_core::{BatchSql, FeedGauges, FeedProgress, MetricsReporter, PipelineConfig, StopReason};
use batchsql_feed::file::FileFeed;
use batchsql_testkit::Step;

use crate::file_support::{LONG, Made, id, lines};

/// Keeps what it is told of the feed.
#[derive(Clone, Default)]
struct Observer(Arc<Mutex<(Vec<FeedGauges>, Vec<FeedProgress>)>>);

impl MetricsReporter for Observer {
    fn feed_gauges(&self, gauges: &FeedGauges) {
        self.0.lock().unwrap().0.push(gauges.clone());
    }

    fn feed_progress(&self, progress: &FeedProgress) {
        self.0.lock().unwrap().1.push(progress.clone());
    }
}

impl Observer {
    fn last(&self) -> FeedGauges {
        self.0.lock().unwrap().0.last().cloned().unwrap_or_default()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&FeedGauges) -> bool) -> FeedGauges {
        let found = async {
            loop {
                let last = self.last();
                if is_so(&last) {
                    return last;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, found).await.unwrap_or_else(|_| panic!("{what}: {:?}", self.last()))
    }
}

/// A line that is no row has no time of its own, and needs no write.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_no_row_is_no_old_row() {
    let made = Made::new(&lines(0..3));
    let observer = Observer::default();
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
    let builder = BatchSql::builder(made.sink.clone()).config(config).metrics_reporter(observer.clone());
    let feed = FileFeed::start(builder, made.exactly()).await.unwrap();
    feed.flush().await.unwrap();
    // The position cannot be moved behind the next line.
    made.sink.set_position("t", 0, Some(7));
    made.append("{\"other\": 1}\n");
    let stopped = observer.until("it has stopped", |gauges| !gauges.tables[0].stopped_partitions.is_empty()).await;
    let table = &stopped.tables[0];
    assert_eq!((table.unsettled_messages, table.oldest_unsettled), (1, None));
    feed.close(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_are_told_how_far_a_file_is_written() {
    let made = Made::new(&(lines(0..10) + "{\"other\": 1}\n" + &lines([11, 12])));
    made.sink.poison(|row| id(row) == 12);
    // The connection that the rows wait for.
    made.sink.script_acquire([Step::Hang]);
    let observer = Observer::default();
    let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
    let builder = BatchSql::builder(made.sink.clone()).config(config).metrics_reporter(observer.clone());
    let feed = FileFeed::start(builder, made.options()).await.unwrap();
    let lag = |gauges: &FeedGauges| gauges.tables.first().map(|table| table.unsettled_messages);
    let waits = observer.until("the lag is told", |gauges| lag(gauges) == Some(13)).await;
    let table = &waits.tables[0];
    assert_eq!((&*table.table, waits.source_up), ("t", Some(true)));
    assert!(table.oldest_unsettled.is_some(), "{table:?}");
    assert_eq!((table.wanted_partitions, table.held_partitions, table.stopped_partitions.len()), (1, 1, 0));
    made.sink.release(1);
    feed.flush().await.unwrap();
    observer.until("there is no lag", |gauges| lag(gauges) == Some(0)).await;
    // The file is another one: a person must look.
    fs::write(made.path(), lines(100..101)).unwrap();
    let stopped = observer.until("it has stopped", |gauges| !gauges.tables[0].stopped_partitions.is_empty()).await;
    assert_eq!(stopped.tables[0].stopped_partitions.get(&StopReason::OtherSource), Some(&1));
    fs::remove_file(made.path()).unwrap();
    observer.until("the file is gone", |gauges| gauges.source_up == Some(false)).await;
    feed.close(LONG).await;
    let told = observer.0.lock().unwrap();
    let sum = |of: fn(&FeedProgress) -> u64| told.1.iter().map(of).sum::<u64>();
    assert_eq!(told.0.last().unwrap().tables[0].oldest_unsettled, None);
    let sums = [sum(|p| p.read_rows), sum(|p| p.written_rows), sum(|p| p.dead_letters), sum(|p| p.foreign_messages)];
    assert_eq!(sums, [12, 11, 1, 1]);
}
