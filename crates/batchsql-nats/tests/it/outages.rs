//! The database or the server is unreachable for a while, and what a worker does meanwhile.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server};

use crate::support::{LIMIT, Target, context, plain, publish, stream, until};
use crate::visible::Observer;

/// Nobody else writes the database until it is dropped, so no lease can be renewed.
pub(crate) fn lock(target: &Target) -> batchsql_sqlite::rusqlite::Connection {
    let conn = batchsql_sqlite::rusqlite::Connection::open(target.path("target.db")).unwrap();
    conn.busy_timeout(LIMIT).unwrap();
    conn.execute_batch("BEGIN EXCLUSIVE").unwrap();
    conn
}

/// The stream was not asked while the database was unreachable, and then does not answer once.
#[tokio::test(flavor = "multi_thread")]
async fn an_outage_of_the_database_gives_no_partition_away() {
    let server = Server::start(Kind::Nats, &[]);
    let address = server.dsn().trim_start_matches("nats://").to_owned();
    let proxy = NetworkProxy::start(&address, Conditions::default(), 1).unwrap();
    let (options, target) = (stream(2), Target::new().await);
    let direct = crate::support::connect(server.dsn()).await;
    options.create(&direct).await.unwrap();
    publish(&direct, &options, &plain("plain"), 0..20).await;
    let client = crate::support::connect(&format!("nats://{}", proxy.address())).await.client();
    let mut context = jetstream::new(client);
    // A look without an answer is over soon, long before `release_after`, which is long enough for a slow machine.
    context.set_timeout(Duration::from_millis(200));
    let release_after = LIMIT / 2;
    let own = target.options(&options).exactly_once().source("s").release_after(release_after);
    let worker = target.worker(&context, own).await;
    target.has("plain", &(0..20).collect::<Vec<_>>()).await;
    let trouble = async || worker.stats().trouble.unwrap_or_default();
    until("it has both", async || worker.stats().partitions.iter().filter(|of| of.is_held).count() == 2).await;

    let locked = lock(&target);
    let begin = Instant::now();
    until("the database is unreachable", async || !trouble().await.is_empty()).await;
    until("for long", async || begin.elapsed() > release_after + Duration::from_secs(3)).await;
    proxy.set(Conditions::default().silent());
    drop(locked);
    let mut text = String::new();
    until("the stream is unreachable", async || {
        text = trouble().await;
        text.contains("NATS")
    })
    .await;
    assert!(!text.contains("given"), "{text}");
    assert_eq!(worker.stats().partitions.len(), 2, "it keeps its partitions");
    // It gives them away when the stream was unreachable for long.
    until("it gives them away", async || trouble().await.contains("given to other workers")).await;
    assert_eq!(worker.stats().partitions.len(), 0);
    proxy.set(Conditions::default());
    publish(&direct, &options, &plain("plain"), 20..40).await;
    target.has("plain", &(0..40).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
}

/// While the database cannot be asked, nobody knows which partitions have no worker.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_without_a_worker_are_not_shown_from_an_old_look() {
    let (context, options, target, seen) = (context().await, stream(2), Target::new().await, Observer::default());
    options.create(&context).await.unwrap();
    let own = target.options(&options).exactly_once().source("s");
    let worker = seen.worker(&target, &context, own).await;
    until("it has a seat", async || !worker.pipeline().positions("s").await.unwrap().is_empty()).await;
    // Claims fail, so its partitions have nobody.
    let refuse = "CREATE TRIGGER no BEFORE INSERT ON batchsql_positions WHEN NEW.table_name = '\"plain\"' \
                  BEGIN SELECT RAISE(ABORT, 'no'); END";
    target.execute(refuse).await;
    publish(&context, &options, &plain("plain"), 0..20).await;
    until("they have nobody", async || seen.table().unheld_partitions == 2).await;
    let locked = lock(&target);
    until("nobody knows it", async || seen.table().unheld_partitions == 0).await;
    until("it is in trouble", async || worker.stats().trouble.is_some()).await;
    drop(locked);
    until("they have nobody again", async || seen.table().unheld_partitions == 2).await;
    // It has lost its seat, and cannot take another one.
    let refuse = "CREATE TRIGGER no_seat BEFORE INSERT ON batchsql_positions BEGIN SELECT RAISE(ABORT, 'no'); END";
    target.execute(refuse).await;
    target.execute("DELETE FROM batchsql_positions").await;
    until("nobody knows it without a seat", async || seen.table().unheld_partitions == 0).await;
    target.execute("DROP TRIGGER no_seat").await;
    until("they have nobody once more", async || seen.table().unheld_partitions == 2).await;
    target.execute("DROP TRIGGER no").await;
    target.has("plain", &(0..20).collect::<Vec<_>>()).await;
    until("it has them", async || seen.table().unheld_partitions == 0 && seen.table().held_partitions == 2).await;
    worker.close(LIMIT).await;
}

/// `close` that has no time ends everything before it returns.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_worker_is_left_when_it_was_closed() {
    for round in 0..10 {
        let (context, options, target) = (context().await, stream(2), Target::new().await);
        options.create(&context).await.unwrap();
        publish(&context, &options, &plain("plain"), 0..20).await;
        let own = target.options(&options);
        let worker = target.worker(&context, if round % 2 == 0 { own.exactly_once() } else { own }).await;
        until("it works", async || worker.stats().counts.read > 0).await;
        let pipeline = worker.pipeline().downgrade();
        worker.close(Duration::ZERO).await;
        drop(worker);
        assert!(pipeline.upgrade().is_none(), "a task of the worker still runs");
    }
}
