//! Messages that the server delivers again, at least once: they are counted, and those that the worker has read are dropped.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::Info;
use batchsql_core::FeedProgress;
use batchsql_nats::StreamOptions;
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server};
use futures_util::StreamExt as _;

use crate::support::{LIMIT, Target, connect, context, plain, publish, stream, until};
use crate::visible::Observer;

/// How long the server waits for a sign of life.
const ACK_WAIT: Duration = Duration::from_secs(1);

async fn again(seen: &Observer) -> FeedProgress {
    until("a message comes again", async || seen.done().redelivered_messages > 0).await;
    seen.done()
}

/// A worker that ends without a word, as by a kill, leaves its message to another one.
#[tokio::test(flavor = "multi_thread")]
async fn the_message_of_a_worker_that_was_killed_is_counted_and_written() {
    let (context, options, target, seen) = (context().await, stream(1), Target::new().await, Observer::default());
    options.create(&context).await.unwrap();
    target.execute("ALTER TABLE plain RENAME TO away").await;
    let own = || target.options(&options).ack_wait(ACK_WAIT);
    let killed = target.worker(&context, own()).await;
    publish(&context, &options, &plain("plain"), 0..10).await;
    until("it has a message", async || killed.stats().oldest().is_some()).await;
    drop(killed);
    let worker = seen.worker(&target, &context, own()).await;
    assert_eq!(again(&seen).await.written_rows, 0);
    target.execute("ALTER TABLE away RENAME TO plain").await;
    target.has("plain", &(0..10).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    assert_eq!(seen.done().read_rows, 10);
}

/// Somebody asks for it again in the name of the worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_still_held_is_counted_and_dropped() {
    let (context, options, target, seen) = (context().await, stream(1), Target::new().await, Observer::default());
    options.create(&context).await.unwrap();
    let client = context.client();
    let mut signs = client.subscribe(format!("$JS.ACK.{}.>", options.name())).await.unwrap();
    client.flush().await.unwrap();
    target.execute("ALTER TABLE plain RENAME TO away").await;
    let worker = seen.worker(&target, &context, target.options(&options).ack_wait(ACK_WAIT)).await;
    publish(&context, &options, &plain("plain"), 0..10).await;
    let sign = tokio::time::timeout(LIMIT, signs.next()).await.unwrap().unwrap();
    client.publish(sign.subject, "-NAK".into()).await.unwrap();
    again(&seen).await;
    target.execute("ALTER TABLE away RENAME TO plain").await;
    target.has("plain", &(0..10).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    // It would be there twice.
    assert_eq!((target.ids("plain").await.len(), seen.done().read_rows), (10, 10));
}

/// What the server counts of the only consumer.
async fn consumer(context: &Context, stream: &StreamOptions) -> Info {
    let handle = context.get_stream(stream.name()).await.unwrap();
    let name = handle.consumer_names().next().await.unwrap().unwrap();
    handle.consumer_info(name).await.unwrap()
}

/// The acknowledgement is on its way for longer than the server waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_acknowledgement_comes_late_is_counted_and_dropped() {
    let server = Server::start(Kind::Nats, &[]);
    let address = server.dsn().trim_start_matches("nats://").to_owned();
    let proxy = NetworkProxy::start(&address, Conditions::default(), 1).unwrap();
    let (direct, options, target, seen) =
        (connect(server.dsn()).await, stream(1), Target::new().await, Observer::default());
    options.create(&direct).await.unwrap();
    target.execute("ALTER TABLE plain RENAME TO away").await;
    let context = connect(&format!("nats://{}", proxy.address())).await;
    let worker = seen.worker(&target, &context, target.options(&options).ack_wait(ACK_WAIT)).await;
    publish(&direct, &options, &plain("plain"), 0..10).await;
    until("it has a message", async || worker.stats().oldest().is_some()).await;
    until("it asks for more", async || consumer(&direct, &options).await.num_waiting > 0).await;
    proxy.set(Conditions::default().silent());
    target.execute("ALTER TABLE away RENAME TO plain").await;
    until("it is written", async || worker.stats().counts.written > 0).await;
    until("the server delivers it again", async || consumer(&direct, &options).await.num_redelivered > 0).await;
    proxy.set(Conditions::default());
    again(&seen).await;
    target.has("plain", &(0..10).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    assert_eq!((target.ids("plain").await.len(), seen.done().read_rows), (10, 10));
}
