//! Mistakes of those who publish to a stream, and of those who read it: what the log, `check`, `/ready` and the exit code say.

use async_nats::jetstream::Context;
use base64::Engine as _;
use batchsql_testserver::{Kind, dsn};

use crate::client::send;
use crate::program::{Running, until};
use crate::stream_json::{letters, worker};
use crate::streams::{Cluster, ROWS, metrics_address, put, readiness, runtime};

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
    runtime.block_on(async {
        for _ in 0..5 {
            publish(&context, &cluster, "orders.1", "{\"orderId\": \"secret\"}\n{\"orderId\": \"secret\"}").await;
        }
    });
    let items = || std::fs::read_to_string(cluster.place.path("letters.foreign")).unwrap().lines().count();
    until(|| items() == 11, || format!("{} items", items()));
    let (code, log) = program.stop();
    assert_eq!(code, 1, "{log}");
    assert!(!log.contains("secret"), "no values: {log}");
    assert_eq!(log.matches("items of a message are no rows").count(), 1, "{log}");
    let more = log.lines().filter(|line| line.contains("more items are no rows"));
    let count = |line: &str| line.split("count=").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    assert_eq!(more.filter_map(count).sum::<u64>(), 10, "{log}");
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

/// Both answer: it is the file that cannot be written.
#[test]
fn a_partition_that_waits_does_not_blame_nats_or_the_database() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    std::fs::create_dir(cluster.place.path("letters.foreign")).unwrap();
    let mut program = cluster.start("a.toml", &worker(&cluster, ""));
    let metrics = metrics_address(&mut program);
    let context = runtime.block_on(cluster.context());
    runtime.block_on(publish(&context, &cluster, "orders.1", "no row"));
    let waits = "source orders: 1 partitions cannot be written now, and are tried again; see the log";
    until(
        || readiness(metrics).0 == 503 && readiness(metrics).1.contains(waits),
        || format!("{:?}", readiness(metrics)),
    );
    std::fs::remove_dir(cluster.place.path("letters.foreign")).unwrap();
    until(|| readiness(metrics).0 == 200, || format!("{:?}", readiness(metrics)));
    assert_eq!(program.stop().0, 1);
}

/// The client of NATS logs what it receives, if it is asked for everything.
#[test]
fn no_message_is_in_the_log_whatever_its_level_is() {
    for variable in ["", "trace", "info,async_nats=trace"] {
        let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
        cluster.place.write("a.toml", format!("[log]\nlevel = \"trace\"\n{}", worker(&cluster, "")));
        let mut command = cluster.place.command(&["run", "a.toml"]);
        command.env("RUST_LOG", variable);
        let mut program = Running::spawn(command);
        program.wait_for(" ready");
        let context = runtime.block_on(cluster.context());
        runtime.block_on(publish(&context, &cluster, "orders.1", "{\"orderId\":1,\"note\":\"CANARY\"}"));
        until(|| cluster.ids() == [1], || format!("{:?}", cluster.ids()));
        let (code, log) = program.stop();
        assert_eq!(code, 0, "{log}");
        let canary: Vec<&str> = log.lines().filter(|line| line.contains("CANARY")).collect();
        assert!(canary.is_empty(), "{variable}: {canary:?}");
        // What a server stores is in its answers, in Base64.
        assert!(!log.contains("JetStream request response"), "{variable}: {log}");
    }
}

/// One message has them all, behind each other.
#[test]
fn each_reason_of_bad_lines_is_in_the_log() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let program = cluster
        .start("a.toml", &worker(&cluster, "").replace("unknown_fields = \"ignore\"", "unknown_fields = \"refuse\""));
    let context = runtime.block_on(cluster.context());
    let lines = "{\"orderId\":1}\n{\"orderId\":\"x\"}\n[1]\n{\"orderId\":2,\"colour\":3}\n[2]";
    runtime.block_on(publish(&context, &cluster, "orders.1", lines));
    runtime.block_on(publish(&context, &cluster, "orders.1", lines));
    until(|| letters(&cluster).len() == 8, || format!("{:?}", letters(&cluster)));
    let (_, log) = program.stop();
    let said = |text: &str| log.lines().filter(|line| line.contains(text)).collect::<Vec<_>>();
    let (first, more) = (said("items of a message are no rows"), said("more items are no rows"));
    assert_eq!((first.len(), more.len()), (3, 3), "{log}");
    let parts = [
        ("expects i64", "line=2 count=1", " count=1 "),
        ("not a JSON object", "line=3 count=2", " count=2 "),
        ("colour", "line=4 count=1", " count=1 "),
    ];
    for (index, (reason, place, count)) in parts.into_iter().enumerate() {
        assert!(first[index].contains(reason) && first[index].contains(place), "{reason}: {log}");
        assert!(more.iter().any(|line| line.contains(reason) && line.contains(count)), "{reason}: {log}");
    }
}

/// What a wrong mapping has set aside is written when it was corrected.
#[test]
fn what_was_set_aside_is_listed_shown_and_published_again() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let right = worker(&cluster, "");
    let wrong = right.replace("orderId", "orderNo");
    let program = cluster.start("a.toml", &wrong);
    let context = runtime.block_on(cluster.context());
    runtime.block_on(async {
        let lines = "{\"orderId\": 1}\n{\"orderId\": 2}\n{\"id\": 3}\n";
        publish(&context, &cluster, "orders.1", lines).await;
        publish(&context, &cluster, "orders.2", "s3cret\nno row").await;
    });
    until(|| letters(&cluster).len() == 3 && cluster.ids() == [3], || format!("{:?}", letters(&cluster)));
    let place = &cluster.place;
    let replay = |file: &str| place.run(&["dead-letters", "replay", file, "--config", "a.toml"]);
    let refused = replay("letters.foreign");
    assert!(refused.code() == 2 && refused.err().contains("rename it first"), "{}", refused.all());
    assert_eq!(program.stop().0, 1);
    std::fs::rename(place.path("letters.foreign"), place.path("1.foreign")).unwrap();
    // Partitions are read at the same time.
    let text = std::fs::read_to_string(place.path("1.foreign")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| !line.contains(".orders.1\""));
    let text = lines.join("\n") + "\n";
    // A worker that was killed writes a letter again.
    let first = text.lines().next().unwrap();
    place.write("1.foreign", format!("{{\"id\":\n{text}{first}\n"));

    let subject = |partition: u32| format!("{}.orders.{partition}", cluster.stream_name());
    let list = place.run(&["dead-letters", "list", "1.foreign"]);
    assert_eq!(list.code(), 1, "a line cannot be read: {}", list.all());
    let counts = |count: u32, partition: u32, reason: &str| {
        let (count, subject) = (format!("{count} "), subject(partition));
        let is = |line: &str| line.trim().starts_with(&count) && line.contains(&subject) && line.contains(reason);
        assert!(list.out().lines().any(is), "{}", list.all());
    };
    counts(3, 1, "column \"id\"");
    counts(1, 2, "it is no JSON");
    let show = place.run(&["dead-letters", "show", "1.foreign", "--limit", "2"]);
    assert_eq!(show.out().lines().count(), 2, "{}", show.all());
    assert!(show.out().contains(&format!("{} message 1, line 1: row of table", subject(1))), "{}", show.all());
    assert!(!show.out().contains("s3cret") && !list.out().contains("s3cret"), "values only if they are asked for");
    let values = place.run(&["dead-letters", "show", "1.foreign", "--values"]);
    assert!(values.out().contains("    {\"orderId\": 2}\n"), "{}", values.all());
    assert!(values.out().contains("    s3cret\n    no row\n"), "{}", values.all());

    let program = cluster.start("a.toml", &right);
    let replayed = replay("1.foreign");
    assert_eq!(replayed.code(), 1, "{}", replayed.all());
    for part in ["3 published (1 more are the same ones), 1 left", "byte 0: it cannot be read"] {
        assert!(replayed.out().contains(part), "{part}: {}", replayed.all());
    }
    until(|| cluster.ids() == [1, 2, 3], || format!("{:?}", cluster.ids()));
    // Which is still no row.
    until(|| letters(&cluster).len() == 1, || format!("{:?}", letters(&cluster)));
    let list = place.run(&["dead-letters", "list", "1.foreign"]);
    assert!(list.out().contains("4  of them were published again"), "{}", list.all());

    // A message whose rows are written in part would be doubled, and the rest is not tried again.
    let partly = first.replace("\"id\":\"", "\"partly_written\":true,\"id\":\"x");
    place.write("2.foreign", format!("{partly}\n"));
    let left = replay("2.foreign");
    assert!(left.code() == 1 && left.out().contains("0 published, 1 left"), "{}", left.all());
    place.write("1.foreign", text.replace("\"id\":\"", "\"id\":\"y"));
    let refused = replay("1.foreign");
    assert!(refused.code() == 3 && refused.err().contains("1.foreign.mark is the mark"), "{}", refused.all());
    let list = place.run(&["dead-letters", "list", "1.foreign"]);
    assert!(list.out().contains("1.foreign.mark is the mark"), "{}", list.all());
    std::fs::remove_file(place.path("1.foreign.mark")).unwrap();
    #[cfg(unix)]
    {
        let file = std::fs::File::open(place.path("1.foreign")).unwrap();
        file.lock().unwrap();
        let used = replay("1.foreign");
        assert!(used.code() == 3 && used.err().contains("another process replays this file"), "{}", used.all());
    }
    let other = right.replace(&format!("prefix = \"{}\"", cluster.stream_name()), "prefix = \"other\"");
    place.write("b.toml", other);
    let left = place.run(&["dead-letters", "replay", "1.foreign", "--config", "b.toml"]);
    assert!(left.code() == 1 && left.out().contains("no source of the configuration reads"), "{}", left.all());
    // A worker that was killed has begun a line.
    let text = std::fs::read_to_string(place.path("1.foreign")).unwrap();
    place.write("1.foreign", format!("{text}{{\"id\":"));
    let delete = || place.run(&["dead-letters", "replay", "1.foreign", "--config", "a.toml", "--delete"]);
    let all = delete();
    assert!(all.code() == 1 && all.out().contains("3 published, 1 left"), "{}", all.all());
    assert!(all.out().contains(&format!("byte {}: the last line is not complete", text.len())), "{}", all.all());
    place.write("1.foreign", text);
    let all = delete();
    assert!(all.code() == 0 && all.out().contains("0 published, 0 left"), "{}", all.all());
    assert!(!place.path("1.foreign").exists() && !place.path("1.foreign.mark").exists());
    until(|| cluster.ids() == [1, 1, 2, 2, 3], || format!("{:?}", cluster.ids()));
    assert_eq!(program.stop().0, 1);
}

/// A line or an element that is an array is no row, also when it is published again by itself.
#[test]
fn an_array_that_was_set_aside_is_no_message_with_rows() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let program = cluster.start("a.toml", &worker(&cluster, ""));
    let context = runtime.block_on(cluster.context());
    let send = |text: &str| runtime.block_on(publish(&context, &cluster, "orders.1", text));
    send("[{\"orderId\":1},[{\"orderId\":2}],{\"orderId\":3},[\n{\"orderId\":4}\n]]");
    send(
        "[{\"orderId\":9}]\n{\"orderId\":5}\n [{\"orderId\":9}]\r\n\u{feff}[{\"orderId\":9}]\n[{\"orderId\":9}\n{\"orderId\":6}",
    );
    let written = |ids: &[i64]| until(|| cluster.ids() == ids, || format!("{:?}", cluster.ids()));
    written(&[1, 3, 5, 6]);
    assert_eq!(letters(&cluster).len(), 6, "{:?}", letters(&cluster));
    let place = &cluster.place;
    for replay in ["1.foreign", "2.foreign"] {
        std::fs::rename(place.path("letters.foreign"), place.path(replay)).unwrap();
        let replayed = place.run(&["dead-letters", "replay", replay, "--config", "a.toml"]);
        assert!(replayed.code() == 0 && replayed.out().contains("6 published, 0 left"), "{}", replayed.all());
        until(|| letters(&cluster).len() == 6, || format!("{:?}", letters(&cluster)));
    }
    send("{\"orderId\":7}");
    written(&[1, 3, 5, 6, 7]);
    assert_eq!(program.stop().0, 1);
}

/// A front that publishes exactly once stops behind a message that is not its own.
#[test]
fn no_letter_is_published_where_a_front_publishes_exactly_once() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let durable = "[durable]\nfolder = \"intake\"\nmin_free = \"0B\"\nexactly_once = \"front\"\n";
    let front = cluster.start("front.toml", &cluster.front(durable));
    let program = cluster.start("a.toml", &worker(&cluster, ""));
    put(front.address(), 0..ROWS);
    let rows = |count: usize| until(|| cluster.ids().len() == count, || format!("{} rows", cluster.ids().len()));
    rows(ROWS);
    let context = runtime.block_on(cluster.context());
    let stream = runtime.block_on(async { context.get_stream(cluster.stream_name()).await.unwrap() });
    let of_front: Vec<String> = (0..4)
        .map(|partition| format!("{}.orders.{partition}", cluster.stream_name()))
        .filter(|subject| {
            runtime.block_on(async { stream.raw_message_builder().last_by_subject(subject).send().await.is_ok() })
        })
        .collect();
    assert!(!of_front.is_empty());
    let payload = base64::engine::general_purpose::STANDARD.encode("{\"orderId\": 1000000}");
    let letters = of_front.iter().enumerate().map(|(number, subject)| {
        let line =
            serde_json::json!({ "id": number.to_string(), "subject": subject, "sequence": 7, "reason": "", "payload": payload });
        format!("{line}\n")
    });
    let place = &cluster.place;
    place.write("1.foreign", letters.collect::<String>());
    let left = place.run(&["dead-letters", "replay", "1.foreign", "--config", "a.toml", "--delete"]);
    let counts = format!("0 published, {} left", of_front.len());
    assert!(left.code() == 1 && left.out().contains(&counts), "{}", left.all());
    let says = format!("a front with `exactly_once` publishes to {}, and would stop", of_front[0]);
    assert!(left.out().contains(&says), "{}", left.all());
    // To each partition.
    (1..20).for_each(|request| put(front.address(), request * ROWS..(request + 1) * ROWS));
    rows(20 * ROWS);
    assert_eq!((front.stop().0, program.stop().0), (0, 0));
}

/// A letter that NATS or its client refuses keeps no other one back, and is tried again when it was corrected.
#[test]
fn a_letter_that_cannot_be_published_is_left() {
    let (cluster, runtime) = (Cluster::of_sqlite(&dsn(Kind::Nats)), runtime());
    let program = cluster.start("a.toml", &worker(&cluster, ""));
    let context = runtime.block_on(cluster.context());
    let place = &cluster.place;
    let letter = |id: &str, partition: &str, headers: &[[&str; 2]], bytes: usize| {
        let subject = format!("{}.orders.{partition}", cluster.stream_name());
        let payload =
            base64::engine::general_purpose::STANDARD.encode(format!("{{\"orderId\":{}{bytes}}}", " ".repeat(bytes)));
        let line = serde_json::json!({
            "id": id, "subject": subject, "sequence": 7, "reason": "it is no row", "headers": headers, "payload": payload,
        });
        format!("{line}\n")
    };
    let lines = [
        letter("a", "1", &[["A", "b"], ["A", "c"]], 1),
        letter("b", "1", &[["A", "b"], ["X Y", "s3cret"]], 2),
        letter("c", "1", &[["A", "s3cret\r\nB: c"]], 3),
        letter("d", "1", &[["", "s3cret"]], 4),
        letter("e\nf", "1", &[], 5),
        letter("g", "1 x", &[], 6),
        letter("h", "1", &[], 2_000_000),
        letter("i", "1", &[], 7),
    ];
    place.write("1.foreign", lines.concat());
    let replay = || place.run(&["dead-letters", "replay", "1.foreign", "--config", "a.toml"]);
    let replayed = replay();
    assert_eq!(replayed.code(), 1, "{}", replayed.all());
    let reasons = [
        "element 2 of its `headers` cannot be published: invalid header name",
        "element 1 of its `headers` cannot be published: ",
        "element 1 of its `headers` cannot be published: it has no name",
        "its `id` cannot be a header: ",
        "its `subject` cannot be published to: ",
        "NATS takes no message that is so large",
    ];
    for (begin, reason) in (1..).map(|number| lines[..number].concat().len()).zip(reasons) {
        assert!(replayed.out().contains(&format!("byte {begin}: {reason}")), "{begin} {reason}: {}", replayed.all());
    }
    assert!(replayed.out().contains("2 published, 6 left"), "{}", replayed.all());
    assert!(!replayed.all().contains("s3cret"), "{}", replayed.all());
    until(|| cluster.ids() == [1, 7], || format!("{:?}", cluster.ids()));
    let stream = runtime.block_on(async { context.get_stream(cluster.stream_name()).await.unwrap() });
    let last = || runtime.block_on(stream.get_info()).unwrap().state.last_sequence;
    let before = last();
    let again = replay();
    assert!(again.code() == 1 && again.out().contains("0 published, 6 left"), "{}", again.all());
    assert_eq!(last(), before);
    assert_eq!(program.stop().0, 0);
}
