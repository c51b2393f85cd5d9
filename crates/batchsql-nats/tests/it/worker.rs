//! Workers that write what was published, alone and together.

use std::time::Duration;

use batchsql_testserver::{Kind, Server};

use crate::support::{LIMIT, Target, connect, context, keyed, lines, plain, publish, publisher, row, stream, until};

fn all(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_exactly_once_although_a_worker_is_dropped() {
    let (context, options, target) = (context().await, stream(4), Target::new().await);
    options.create(&context).await.unwrap();
    let schema = plain("plain");
    let publishing = publish(&context, &options, &schema, 0..600);
    let working = async {
        for _ in 0..3 {
            let before = target.ids("plain").await.len();
            let worker = target.worker(&context, target.options(&options).exactly_once()).await;
            until("some rows are written", async || target.ids("plain").await.len() >= (before + 50).min(500)).await;
            // Without `close`: what is under way is given up, and its leases stay.
            drop(worker);
        }
    };
    tokio::join!(publishing, working);
    let worker = target.worker(&context, target.options(&options).exactly_once()).await;
    target.has("plain", &all(0..600)).await;
    let stats = worker.stats();
    assert!(stats.stopped.is_empty(), "{stats:?}");
    let messages = async || context.get_stream(options.name()).await.unwrap().cached_info().state.messages;
    until("only the last message of each partition is left", async || messages().await <= 4).await;
    assert!(worker.close(LIMIT).await.is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_share_the_partitions_and_one_takes_over() {
    let (context, options, target) = (context().await, stream(8), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &keyed("keyed"), 0..100).await;
    let one = target.worker(&context, target.options(&options).exactly_once()).await;
    until("one has all", async || one.stats().partitions.len() == 8).await;
    let two = target.worker(&context, target.options(&options).exactly_once()).await;
    until("each has half", async || (one.stats().partitions.len(), two.stats().partitions.len()) == (4, 4)).await;
    publish(&context, &options, &keyed("keyed"), 100..300).await;
    target.has("keyed", &all(0..300)).await;
    // With `close` the other one need not wait for the leases.
    one.close(LIMIT).await;
    until("two has all", async || two.stats().partitions.len() == 8).await;
    publish(&context, &options, &keyed("keyed"), 300..400).await;
    target.has("keyed", &all(0..400)).await;
    let stats = two.stats();
    assert!(stats.stopped.is_empty() && stats.trouble.is_none(), "{stats:?}");
    two.close(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_least_once_workers_share_messages_and_one_takes_over() {
    let (context, options, target) = (context().await, stream(4), Target::new().await);
    options.create(&context).await.unwrap();
    let own = || target.options(&options).ack_wait(Duration::from_secs(1));
    let one = target.worker(&context, own()).await;
    let two = target.worker(&context, own()).await;
    publish(&context, &options, &keyed("keyed"), 0..200).await;
    drop(one);
    publish(&context, &options, &keyed("keyed"), 200..400).await;
    target.has("keyed", &all(0..400)).await;
    assert!(two.close(LIMIT).await.is_complete());
}

/// The table is locked, so a worker holds a message for longer than the server waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_takes_long_is_not_given_to_another_worker() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    target.execute("ALTER TABLE plain RENAME TO away").await;
    let own = || target.options(&options).ack_wait(Duration::from_secs(1));
    let one = target.worker(&context, own()).await;
    publish(&context, &options, &plain("plain"), 0..10).await;
    until("it is read", async || one.stats().oldest().is_some()).await;
    let two = target.worker(&context, own()).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(two.stats().oldest(), None);
    target.execute("ALTER TABLE away RENAME TO plain").await;
    target.has("plain", &all(0..10)).await;
    one.close(LIMIT).await;
    two.close(LIMIT).await;
    assert_eq!(target.ids("plain").await, all(0..10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_row_is_a_dead_letter_and_the_others_are_written() {
    for is_exact in [false, true] {
        let (context, options, target) = (context().await, stream(2), Target::new().await);
        options.create(&context).await.unwrap();
        target
            .execute("CREATE TRIGGER no BEFORE INSERT ON plain WHEN NEW.id = 13 BEGIN SELECT RAISE(ABORT, 'no'); END")
            .await;
        let own = target.options(&options);
        let worker = target.worker(&context, if is_exact { own.exactly_once() } else { own }).await;
        publish(&context, &options, &plain("plain"), 0..30).await;
        let expected: Vec<i64> = (0..30).filter(|id| *id != 13).collect();
        target.has("plain", &expected).await;
        until("the letter is there", async || lines(&target.path("dead-letters.ndjson")).len() == 1).await;
        let letters = lines(&target.path("dead-letters.ndjson"));
        assert!(letters[0].contains("\"id\":13"), "{letters:?}");
        worker.close(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_loses_nothing() {
    for is_exact in [false, true] {
        let mut server = Server::start(Kind::Nats, &[]);
        let (context, options, target) = (connect(server.dsn()).await, stream(2), Target::new().await);
        options.create(&context).await.unwrap();
        let own = target.options(&options).ack_wait(Duration::from_secs(2));
        let worker = target.worker(&context, if is_exact { own.exactly_once() } else { own }).await;
        let db = publisher(&context, &options).await;
        let schema = keyed("keyed");
        for round in 0..4_i64 {
            let rows: Vec<_> = (round * 50..(round + 1) * 50).map(|id| row(&schema, id, "x")).collect();
            let submitted = db.submit_all_tracked(&rows);
            if round % 2 == 0 {
                server.stop()
            } else {
                server.kill()
            };
            server.start_again();
            let outcomes = submitted.await.unwrap();
            assert!(outcomes.is_complete(), "{outcomes:?}");
        }
        target.has("keyed", &all(0..200)).await;
        let stats = worker.stats();
        assert!(stats.stopped.is_empty(), "{stats:?}");
        assert!(db.close(LIMIT).await.is_complete());
        worker.close(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_a_server_that_is_away() {
    let mut server = Server::start(Kind::Nats, &[]);
    let (context, options, target) = (connect(server.dsn()).await, stream(2), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..50).await;
    server.stop();
    let starting = target.worker(&context, target.options(&options).exactly_once());
    let started = tokio::join!(starting, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.start_again();
    });
    target.has("plain", &all(0..50)).await;
    started.0.close(LIMIT).await;
}
