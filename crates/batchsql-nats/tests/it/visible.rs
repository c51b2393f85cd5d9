//! What the observers of a pipeline see of a worker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_nats::jetstream::Context;
use batchsql_core::{
    BatchSqlBuilder, Claim, ClaimFrom, FeedGauges, FeedProgress, FeedTable, MetricsReporter, PartitionKey, Sink,
    StopReason,
};
use batchsql_nats::{Worker, WorkerOptions};
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server};

use crate::support::{LIMIT, Target, connect, context, last, plain, publish, stream, until};

/// The last state, and the sum of all counts.
#[derive(Clone, Default)]
pub(crate) struct Observer(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    gauges: FeedGauges,
    sums: BTreeMap<String, FeedProgress>,
}

impl MetricsReporter for Observer {
    fn feed_gauges(&self, gauges: &FeedGauges) {
        self.0.lock().unwrap().gauges = gauges.clone();
    }

    fn feed_progress(&self, progress: &FeedProgress) {
        let mut seen = self.0.lock().unwrap();
        let sum = seen.sums.entry(progress.table.clone()).or_default();
        sum.read_rows += progress.read_rows;
        sum.written_rows += progress.written_rows;
        sum.missing_rows += progress.missing_rows;
        sum.dead_letters += progress.dead_letters;
        sum.takeovers += progress.takeovers;
        sum.fences += progress.fences;
        sum.redelivered_messages += progress.redelivered_messages;
        sum.foreign_messages += progress.foreign_messages;
    }
}

impl Observer {
    pub(crate) async fn worker(&self, target: &Target, context: &Context, options: WorkerOptions) -> Worker {
        self.start(target.builder(), context, options).await
    }

    /// A worker with this builder, which this observer sees.
    pub(crate) async fn start<S: Sink>(
        &self,
        builder: BatchSqlBuilder<S>,
        context: &Context,
        options: WorkerOptions,
    ) -> Worker {
        let builder = builder.metrics_reporter(self.clone());
        Worker::start(context.clone(), builder, options).await.unwrap()
    }

    fn source_up(&self) -> Option<bool> {
        self.0.lock().unwrap().gauges.source_up
    }

    /// The state of the table `plain`.
    pub(crate) fn table(&self) -> FeedTable {
        let seen = self.0.lock().unwrap();
        seen.gauges.tables.iter().find(|table| table.table == "plain").cloned().unwrap_or_default()
    }

    /// What was done for it.
    pub(crate) fn done(&self) -> FeedProgress {
        self.0.lock().unwrap().sums.get("plain").cloned().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_see_how_far_a_worker_is() {
    for is_exact in [false, true] {
        let (context, options, target, seen) = (context().await, stream(1), Target::new().await, Observer::default());
        options.create(&context).await.unwrap();
        publish(&context, &options, &plain("plain"), 0..30).await;
        let end = last(&context, &options).await;
        target.execute("ALTER TABLE plain RENAME TO away").await;
        let begin = SystemTime::now();
        let own = target.options(&options).ack_wait(Duration::from_secs(2));
        let worker = seen.worker(&target, &context, if is_exact { own.exactly_once() } else { own }).await;
        until("all of it waits", async || seen.table().unsettled_messages == end).await;
        // At least once, one message at a time is delivered.
        until("it is read", async || seen.table().pending_messages == if is_exact { 0 } else { end - 1 }).await;
        let table = seen.table();
        assert!(table.oldest_unsettled.is_some_and(|oldest| oldest < begin), "{table:?}");
        assert_eq!((table.wanted_partitions, table.held_partitions), (1, 1));
        until("all see that it has it", async || seen.table().unheld_partitions == 0).await;
        assert_eq!(seen.source_up(), Some(true));
        if is_exact {
            until("its table cannot be written", async || seen.table().waiting_partitions == 1).await;
        }
        // More comes, also a message that nobody can read.
        publish(&context, &options, &plain("plain"), 30..50).await;
        let subject = format!("{}.plain.0", options.name());
        context.publish(subject, "{}".into()).await.unwrap().await.unwrap();
        let end = last(&context, &options).await;
        until("the rest waits too", async || seen.table().unsettled_messages == end).await;
        assert_eq!(worker.stats().unsettled(), end);

        target
            .execute("CREATE TRIGGER no BEFORE INSERT ON away WHEN NEW.id = 13 BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        target.execute("ALTER TABLE away RENAME TO plain").await;
        let is_done = async || {
            let (table, done) = (seen.table(), seen.done());
            table.unsettled_messages == 0 && table.pending_messages == 0 && done.foreign_messages == 1
        };
        until("all has ended", is_done).await;
        worker.close(LIMIT).await;
        let (table, done) = (seen.table(), seen.done());
        assert_eq!((table.oldest_unsettled, table.waiting_partitions), (None, 0));
        assert_eq!((done.read_rows, done.written_rows, done.dead_letters), (50, 49, 1), "{done:?}");
        assert_eq!((table.wanted_partitions, table.held_partitions), (0, 0), "it has ended");
        assert_eq!((done.takeovers, done.fences, done.missing_rows), (0, 0, 0));
    }
}

/// Its consumer is forgotten by the server after a while, and its messages are counted all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_partition_is_seen_with_its_reason_and_what_waits_behind_it() {
    let (context, options, target, seen) = (context().await, stream(1), Target::new().await, Observer::default());
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..10).await;
    let own = || target.options(&options).exactly_once();
    let worker = target.worker(&context, own()).await;
    target.has("plain", &(0..10).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    let written = last(&context, &options).await;
    publish(&context, &options, &plain("plain"), 10..40).await;
    let handle = context.get_stream(options.name()).await.unwrap();
    handle.delete_message(written + 1).await.unwrap();

    let worker = seen.worker(&target, &context, own()).await;
    let stopped = |reason| seen.table().stopped_partitions.get(&reason).copied().unwrap_or_default();
    until("it has stopped", async || stopped(StopReason::Gap) == 1).await;
    assert_eq!(worker.stats().stopped[0].kind, Some(StopReason::Gap));
    let left = async || last(&context, &options).await - written - 1;
    let waiting = left().await;
    until("what is left waits", async || seen.table().unsettled_messages == waiting).await;
    until("its age is known", async || seen.table().oldest_unsettled.is_some()).await;
    // As if the server had forgotten it.
    let consumers: Vec<String> = {
        use futures_util::TryStreamExt as _;
        handle.consumer_names().try_collect().await.unwrap()
    };
    for consumer in &consumers {
        handle.delete_consumer(consumer).await.unwrap();
    }
    assert!(!consumers.is_empty());
    publish(&context, &options, &plain("plain"), 40..60).await;
    let waiting = left().await;
    until("what has come waits too", async || seen.table().unsettled_messages == waiting).await;
    assert!(seen.table().oldest_unsettled.is_some());
    // The server is not asked about it again, whenever it is looked at the stream.
    let client = context.client();
    let mut asked = client.subscribe(format!("$JS.API.CONSUMER.INFO.{}.*", options.name())).await.unwrap();
    let mut looks = client.subscribe(format!("$JS.API.STREAM.INFO.{}", options.name())).await.unwrap();
    client.flush().await.unwrap();
    for _ in 0..6 {
        use futures_util::StreamExt as _;
        tokio::time::timeout(LIMIT, looks.next()).await.unwrap().unwrap();
    }
    assert!(futures_util::FutureExt::now_or_never(futures_util::StreamExt::next(&mut asked)).is_none());
    worker.close(LIMIT).await;
    assert_eq!(stopped(StopReason::Gap), 0, "it has no partitions any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn takeovers_and_fences_are_seen() {
    let (context, options, target) = (context().await, stream(2), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..20).await;
    let own = |owner: &str| target.options(&options).exactly_once().source("s").owner(owner);
    let gone = target.worker(&context, own("gone")).await;
    target.has("plain", &(0..20).collect::<Vec<_>>()).await;
    until("it has both", async || gone.stats().partitions.iter().filter(|of| of.is_held).count() == 2).await;
    drop(gone);
    let seen = Observer::default();
    let worker = seen.worker(&target, &context, own("me")).await;
    until("it has them", async || seen.table().held_partitions == 2 && seen.table().unheld_partitions == 0).await;
    assert_eq!((seen.done().takeovers, seen.done().fences), (2, 0));
    // Somebody claims a partition that has nothing to write.
    let stored = worker.pipeline().positions("s").await.unwrap();
    let key = &stored.iter().find(|stored| stored.key.partition == 1 && !stored.key.is_seat()).unwrap().key;
    let thief = Claim::of("thief").from(ClaimFrom::Owners(vec!["me".to_owned()])).lease(Duration::from_secs(600));
    assert!(worker.pipeline().claim(key, &thief).await.unwrap().position().is_some());
    until("it is fenced", async || seen.done().fences == 1 && seen.table().held_partitions == 1).await;
    assert!(worker.stats().stopped.is_empty(), "the partition is another worker's");
    worker.close(LIMIT).await;
    assert_eq!(seen.done().fences, 1);
}

/// A worker that has a seat and takes no partitions.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_nobody_has_are_seen() {
    let (context, options, target, seen) = (context().await, stream(4), Target::new().await, Observer::default());
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..20).await;
    let worker = seen.worker(&target, &context, target.options(&options).exactly_once().source("s").owner("me")).await;
    until("it has all", async || seen.table().held_partitions == 4 && seen.table().unheld_partitions == 0).await;
    let ghost = Claim::of("ghost").from(ClaimFrom::Anyone).or_begin_at(0).lease(Duration::from_secs(600));
    let seat = worker.pipeline().claim(&PartitionKey::seat("s", 7), &ghost).await.unwrap().position().unwrap();
    until("half of them has nobody", async || seen.table().unheld_partitions == 2).await;
    assert_eq!((seen.table().held_partitions, seen.table().wanted_partitions), (2, 2));
    assert!(worker.pipeline().release(&seat).await.unwrap());
    until("it has all again", async || seen.table().held_partitions == 4 && seen.table().unheld_partitions == 0).await;
    assert_eq!(seen.done().takeovers, 0, "it had given them away");
    worker.close(LIMIT).await;
}

/// It reaches the database all the time, so it could keep its leases for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_reach_nats_gives_its_partitions_to_others() {
    let server = Server::start(Kind::Nats, &[]);
    let address = server.dsn().trim_start_matches("nats://").to_owned();
    let proxy = NetworkProxy::start(&address, Conditions::default(), 1).unwrap();
    let (direct, options, target) = (connect(server.dsn()).await, stream(4), Target::new().await);
    options.create(&direct).await.unwrap();
    publish(&direct, &options, &plain("plain"), 0..40).await;
    let (cut, whole) = (Observer::default(), Observer::default());
    // Longer than the test: no lease ends by itself.
    let own = || target.options(&options).exactly_once().lease(Duration::from_secs(600));
    let context = connect(&format!("nats://{}", proxy.address())).await;
    let one = cut.worker(&target, &context, own().release_after(Duration::from_secs(2))).await;
    until("one has all", async || cut.table().held_partitions == 4).await;
    let two = whole.worker(&target, &direct, own()).await;
    let has = |seen: &Observer| seen.table().held_partitions;
    until("each has half", async || (has(&cut), has(&whole)) == (2, 2)).await;
    target.has("plain", &(0..40).collect::<Vec<_>>()).await;

    proxy.set(Conditions::default().silent());
    until("the other one has all", async || (has(&cut), has(&whole)) == (0, 4)).await;
    assert_eq!((cut.source_up(), whole.source_up()), (Some(false), Some(true)));
    let trouble = async || one.stats().trouble.unwrap_or_default();
    until("it says so", async || trouble().await.contains("given to other workers")).await;
    let holders = one.pipeline().positions(options.name()).await.unwrap();
    let holders: Vec<_> = holders.iter().filter_map(|stored| stored.holder().map(str::to_owned)).collect();
    assert_eq!(holders.len(), 5, "four partitions and the seat of the other one: {holders:?}");
    publish(&direct, &options, &plain("plain"), 40..80).await;
    target.has("plain", &(0..80).collect::<Vec<_>>()).await;

    proxy.set(Conditions::default());
    until("each has half again", async || (has(&cut), has(&whole)) == (2, 2)).await;
    assert_eq!(cut.source_up(), Some(true));
    publish(&direct, &options, &plain("plain"), 80..120).await;
    target.has("plain", &(0..120).collect::<Vec<_>>()).await;
    until("it has no trouble", async || one.stats().trouble.is_none()).await;
    assert_eq!(whole.done().takeovers, 0, "they were given away");
    one.close(LIMIT).await;
    two.close(LIMIT).await;
}
