//! Mistakes of those who publish to a stream, and of those who read it: what the log, `check`, `/ready` and the exit code say.

use async_nats::jetstream::Context;
use batchsql_testserver::{Kind, dsn};

use crate::client::send;
use crate::program::until;
use crate::stream_json::{letters, worker};
use crate::streams::{Cluster, metrics_address, readiness, runtime};

/// Publishes below the prefix, and returns when it is stored.
async fn publish(context: &Context, cluster: &Cluster, subject: &str, payload: &str) {
    let subject = format!("{}.{subject}", cluster.stream_name());
    context.publish(subject, payload.to_owned().into()).await.unwrap().await.unwrap();
}

#[test]
fn messages_of_no_partition_are_said_and_stay() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let config = worker(&cluster, "");
    let mut program = cluster.start("a.toml", &config);
    let metrics = metrics_address(&mut program);
    let context = runtime.block_on(cluster.context());
    let row = "{\"orderId\": 1}";
    runtime.block_on(async {
        for subject in ["orders.9", "orders.9", "orders.x", "nope.0", "orders.1"] {
            publish(&context, &cluster, subject, row).await;
        }
    });
    for subject in ["orders.9", "orders.x"] {
        let line = program.has_said(&format!("{}.{subject}", cluster.stream_name()));
        assert!(line.contains("of no partition: they are 0 to 3"), "{line}");
    }
    let scraped = || send(metrics, "GET", "/metrics", &[], &[]).body;
    let shown = |messages: u64| {
        let end = format!("}} {messages}");
        until(
            || scraped().lines().any(|line| line.starts_with("batchsql_feed_stray_messages{") && line.ends_with(&end)),
            scraped,
        );
    };
    shown(3);
    runtime.block_on(publish(&context, &cluster, "orders.9", row));
    shown(4);
    until(|| cluster.ids() == [1], || format!("{:?}", cluster.ids()));
    let checked = cluster.place.run(&["check", "a.toml"]);
    let said = format!(
        "4 messages are of no partition, so no worker writes them: {0}.orders.9, {0}.orders.x",
        cluster.stream_name()
    );
    assert!(checked.code() == 0 && checked.out().contains(&said), "{}", checked.all());
    // Those of a table that is not configured are not read either.
    assert!(checked.out().contains("not written here: nope"), "{}", checked.all());
    let (code, log) = program.stop();
    assert_eq!(code, 0, "{log}");
    assert_eq!(log.lines().filter(|line| line.contains("of no partition")).count(), 2, "each subject once: {log}");
    assert!(letters(&cluster).is_empty() && cluster.ids() == [1], "{log}");
    let left = runtime
        .block_on(async { context.get_stream(cluster.stream_name()).await.unwrap().cached_info().state.messages });
    // The last written message of a partition stays too.
    assert_eq!(left, 4 + 1 + 1);
}

#[test]
fn what_a_worker_does_not_write_is_in_its_log() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    cluster.place.sql("DROP TABLE orders; CREATE TABLE orders (id INTEGER NOT NULL CHECK (id < 4711), note TEXT)");
    let mut program = cluster.start("a.toml", &worker(&cluster, ""));
    let context = runtime.block_on(cluster.context());
    runtime.block_on(async {
        let rows: Vec<String> = (4_711..4_731).map(|id| format!("{{\"orderId\": {id}}}")).collect();
        publish(&context, &cluster, "orders.0", &format!("{{\"orderId\": 1}}\n{}", rows.join("\n"))).await;
        publish(&context, &cluster, "orders.1", "{\"orderId\": 2}\n{\"orderId\": \"secret\"}").await;
    });
    let first = program.has_said("a row was not written; more of this kind are counted");
    assert!(first.contains("CHECK") && first.contains("orders"), "{first}");
    let items = program.has_said("items of a message are no rows");
    let subject = format!("subject=\"{}.orders.1\"", cluster.stream_name());
    for part in [&*subject, "line=2", "field \\\"orderId\\\" (column \\\"id\\\") expects", "letters.foreign"] {
        assert!(items.contains(part), "{part}: {items}");
    }
    let kept = || std::fs::read_to_string(cluster.place.path("letters")).unwrap().lines().count();
    until(|| kept() == 20, || format!("{} rows", kept()));
    let (code, log) = program.stop();
    assert_eq!(code, 1, "{log}");
    assert!(!log.contains("secret") && !log.contains("4712"), "no values: {log}");
    let more = log.lines().find(|line| line.contains("more rows were not written")).unwrap_or_default();
    assert!(more.contains("rows=19") && more.contains("dead-letters replay"), "{log}");
}

/// A service with HTTP takes requests while some partitions have stopped, and none when nothing goes on any more.
#[test]
fn a_service_is_not_ready_when_all_its_partitions_have_stopped() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let config = format!("[http]\nlisten = \"127.0.0.1:0\"\n{}", worker(&cluster, ""));
    let mut program = cluster.start("a.toml", &config);
    let metrics = metrics_address(&mut program);
    let context = runtime.block_on(cluster.context());
    let wrong = "{\"orderId\": \"x\"}\n".repeat(300);
    let stop = |partition: u32| runtime.block_on(publish(&context, &cluster, &format!("orders.{partition}"), &wrong));
    stop(1);
    let said = |text: &str| until(|| readiness(metrics).1.contains(text), || format!("{:?}", readiness(metrics)));
    said("source orders: 1 partitions have stopped (schema); see the log");
    assert_eq!(readiness(metrics).0, 200);
    [0, 2, 3].into_iter().for_each(stop);
    said("source orders: all of its 4 partitions have stopped (schema); see the log");
    until(|| readiness(metrics).0 == 503, || format!("{:?}", readiness(metrics)));
    let health = send(metrics, "GET", "/health", &[], &[]);
    assert!(health.status == 200 && health.body.contains("all of its 4 partitions have stopped"), "{health:?}");
    assert_eq!(program.stop().0, 1);
}
