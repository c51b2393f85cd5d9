//! What a worker finds in a stream that should not be there, or should.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_nats::HeaderMap;
use batchsql_core::TableName;
use batchsql_nats::{StreamOptions, Worker, WorkerOptions};
use batchsql_sqlite::SqliteSink;
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server, unique};

use crate::support::{LIMIT, Target, connect, context, last, lines, plain, publish, stream, until};

async fn stopped(worker: &Worker) -> String {
    until("a partition stops", async || !worker.stats().stopped.is_empty()).await;
    worker.stats().stopped[0].reason.clone()
}

/// Those that publishers of any kind may set.
fn own_headers(all: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in all.iter().filter(|(name, _)| name.to_string().starts_with("BatchSQL-")) {
        headers.insert(name.clone(), values[0].clone());
    }
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_messages_stop_a_partition_until_they_are_accepted() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    let own = || target.options(&options).exactly_once();
    publish(&context, &options, &plain("plain"), 0..10).await;
    let worker = target.worker(&context, own()).await;
    target.has("plain", &(0..10).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    // Somebody removes a message that was not written.
    publish(&context, &options, &plain("plain"), 10..20).await;
    let lost = last(&context, &options).await;
    publish(&context, &options, &plain("plain"), 20..30).await;
    let handle = context.get_stream(options.name()).await.unwrap();
    handle.delete_message(lost).await.unwrap();

    let worker = target.worker(&context, own()).await;
    let reason = stopped(&worker).await;
    assert!(reason.contains("missing") && reason.contains("accept_gaps"), "{reason}");
    worker.close(LIMIT).await;
    assert!(target.ids("plain").await.len() < 20);

    let worker = target.worker(&context, own().accept_gaps(true)).await;
    until("the others are written", async || target.ids("plain").await.contains(&29)).await;
    assert!(worker.stats().counts.missing > 0);
    let ids = target.ids("plain").await;
    assert!(ids.iter().filter(|id| (20..30).contains(*id)).count() == 10, "{ids:?}");
    worker.close(LIMIT).await;
}

/// A database that was made anew, after messages were removed.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_database_behind_a_trimmed_stream_is_noticed() {
    let (context, options) = (context().await, stream(1));
    options.create(&context).await.unwrap();
    let target = Target::new().await;
    publish(&context, &options, &plain("plain"), 0..100).await;
    let worker = target.worker(&context, target.options(&options).exactly_once()).await;
    target.has("plain", &(0..100).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
    let other = Target::new().await;
    let worker = other.worker(&context, other.options(&options).exactly_once()).await;
    let reason = stopped(&worker).await;
    assert!(reason.contains("missing"), "{reason}");
    worker.close(LIMIT).await;
}

/// With `keep_for` everything is still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_keeps_its_messages_is_written_again_to_a_new_database() {
    let (context, options) = (context().await, stream(2));
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..50).await;
    for _ in 0..2 {
        let target = Target::new().await;
        let own = target.options(&options).exactly_once().keep_for(Some(Duration::from_secs(3600)));
        let worker = target.worker(&context, own).await;
        target.has("plain", &(0..50).collect::<Vec<_>>()).await;
        worker.close(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_messages_are_kept_aside_and_do_not_stop_the_others() {
    for is_exact in [false, true] {
        let (context, options, target) = (context().await, stream(1), Target::new().await);
        options.create(&context).await.unwrap();
        let subject = format!("{}.plain.0", options.name());
        publish(&context, &options, &plain("plain"), 0..10).await;
        context.publish(subject.clone(), "{\"id\": 1}".into()).await.unwrap().await.unwrap();
        let mut headers = HeaderMap::new();
        for (name, value) in [("Format", "1"), ("Rows", "3"), ("Publisher", "p"), ("Number", "1"), ("After", "2")] {
            headers.insert(format!("BatchSQL-{name}").as_str(), value);
        }
        let after = last(&context, &options).await;
        headers.insert("BatchSQL-After", after.to_string());
        context.publish_with_headers(subject.clone(), headers, "short".into()).await.unwrap().await.unwrap();
        // One of ours that was cut off.
        let handle = context.get_stream(options.name()).await.unwrap();
        let message = handle.get_raw_message(1).await.unwrap();
        let mut headers = own_headers(&message.headers);
        headers.insert("BatchSQL-After", last(&context, &options).await.to_string());
        let torn = message.payload.slice(..message.payload.len() - 1);
        context.publish_with_headers(subject, headers, torn).await.unwrap().await.unwrap();
        publish(&context, &options, &plain("plain"), 10..20).await;
        let own = target.options(&options);
        let worker = target.worker(&context, if is_exact { own.exactly_once() } else { own }).await;
        target.has("plain", &(0..20).collect::<Vec<_>>()).await;
        worker.close(LIMIT).await;
        let letters = lines(&target.path("dead-letters.ndjson.foreign"));
        assert_eq!(letters.len(), 3, "{letters:?}");
        assert!(letters[0].contains("WorkerOptions::format") && letters[0].contains("over HTTP"), "it says what to do");
        for (letter, reason) in letters.iter().zip(["no headers", "payload", "block of rows"]) {
            assert!(letter.contains(reason), "{letter}");
        }
    }
}

/// Rows of another table than that of the subject.
#[tokio::test(flavor = "multi_thread")]
async fn rows_in_the_subject_of_another_table_are_kept_aside() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("other"), 0..10).await;
    let tables = options.tables(&context).await.unwrap();
    assert_eq!(tables, [TableName::new("other")]);
    let handle = context.get_stream(options.name()).await.unwrap();
    let message = handle.get_raw_message(1).await.unwrap();
    let headers = own_headers(&message.headers);
    let subject = format!("{}.plain.0", options.name());
    context.publish_with_headers(subject, headers, message.payload).await.unwrap().await.unwrap();
    let worker = target.worker(&context, target.options(&options).exactly_once().tables(["plain"])).await;
    until("it is kept", async || lines(&target.path("dead-letters.ndjson.foreign")).len() == 1).await;
    assert!(lines(&target.path("dead-letters.ndjson.foreign"))[0].contains("rows of table other"));
    worker.close(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_noticed() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..10).await;
    let worker = target.worker(&context, target.options(&options).exactly_once()).await;
    target.has("plain", &(0..10).collect::<Vec<_>>()).await;
    context.delete_stream(options.name()).await.unwrap();
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 10..20).await;
    let reason = stopped(&worker).await;
    assert!(reason.contains("made anew"), "{reason}");
    worker.close(LIMIT).await;
    // Its positions are those of another stream.
    let worker = target.worker(&context, target.options(&options).exactly_once()).await;
    target.has("plain", &(0..20).collect::<Vec<_>>()).await;
    worker.close(LIMIT).await;
}

/// Numbers of the old stream say nothing about messages of the new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_made_anew_is_not_trimmed_by_old_numbers() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 0..100).await;
    let keep = Duration::from_secs(3);
    let own = target.options(&options).exactly_once().keep_for(Some(keep));
    let worker = target.worker(&context, own).await;
    target.has("plain", &(0..100).collect::<Vec<_>>()).await;
    context.delete_stream(options.name()).await.unwrap();
    options.create(&context).await.unwrap();
    publish(&context, &options, &plain("plain"), 100..300).await;
    let reason = stopped(&worker).await;
    assert!(reason.contains("made anew"), "{reason}");
    // It knows messages of the old stream that were kept for long enough.
    tokio::time::sleep(keep + Duration::from_secs(1)).await;
    let has_all = async || {
        let state = context.get_stream(options.name()).await.unwrap().cached_info().state.clone();
        assert_eq!((state.first_sequence, state.messages), (1, state.last_sequence));
    };
    has_all().await;
    until("it tells so", async || worker.stats().trouble.is_some_and(|text| text.contains("made anew"))).await;
    worker.close(LIMIT).await;
    has_all().await;
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// The folder with the streams of a server.
fn data(folder: &Path) -> PathBuf {
    let inner = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    inner.map(|path| path.join("data")).find(|path| path.exists()).unwrap()
}

/// The end of the stream is lost while a worker runs, and new messages get the numbers of messages that it has written.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_lost_its_end_is_noticed() {
    for (is_exact, new_rows) in [(true, 10), (true, 200), (false, 10)] {
        let files = tempfile::tempdir().unwrap();
        // The server may be of another user, who keeps its files.
        std::fs::set_permissions(files.path(), Permissions::from_mode(0o777)).unwrap();
        let mut server = Server::start_in(Kind::Nats, &[], Some(files.path()));
        let address = server.dsn().trim_start_matches("nats://").to_owned();
        let proxy = NetworkProxy::start(&address, Conditions::default(), 1).unwrap();
        let (direct, options, target) = (connect(server.dsn()).await, stream(1), Target::new().await);
        options.create(&direct).await.unwrap();
        publish(&direct, &options, &plain("plain"), 0..20).await;
        let own = target.options(&options).ack_wait(Duration::from_secs(1));
        let context = connect(&format!("nats://{}", proxy.address())).await;
        let worker = target.worker(&context, if is_exact { own.exactly_once() } else { own }).await;
        target.has("plain", &(0..20).collect::<Vec<_>>()).await;
        server.stop();
        let (data, backup) = (data(files.path()), files.path().join("backup"));
        copy(&data, &backup);
        server.start_again();
        publish(&direct, &options, &plain("plain"), 20..70).await;
        target.has("plain", &(0..70).collect::<Vec<_>>()).await;
        // The worker does not see the stream until it has the new messages.
        proxy.set(Conditions::default().silent());
        server.kill();
        std::fs::remove_dir_all(&data).unwrap();
        copy(&backup, &data);
        server.start_again();
        publish(&direct, &options, &plain("plain"), 1_000..1_000 + new_rows).await;
        proxy.set(Conditions::default());
        let reason = stopped(&worker).await;
        assert!(reason.contains("restored from a backup"), "{reason}");
        worker.close(LIMIT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_lose_rows_are_refused() {
    let context = context().await;
    let name = unique("rows");
    let config = async_nats::jetstream::stream::Config {
        name: name.clone(),
        subjects: vec![format!("{name}.>")],
        max_bytes: 1 << 20,
        ..Default::default()
    };
    context.create_stream(config).await.unwrap();
    let options = StreamOptions::new(&*name).prefix(&*name);
    let error = options.create(&context).await.unwrap_err();
    assert!(!error.is_away());
    for word in ["subjects", "batchsql-partitions", "discard is old"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    let missing = StreamOptions::new(unique("none")).check_existing(&context).await.unwrap_err();
    assert!(missing.is_missing() && missing.to_string().contains("there is no stream"), "{missing}");
    assert!(!error.is_missing());
    // Another number of partitions.
    let options = stream(2);
    options.create(&context).await.unwrap();
    let error = options.clone().partitions(3).create(&context).await.unwrap_err();
    assert!(error.to_string().contains("it has 2 partitions"), "{error}");
    // And a worker says so too.
    let own = WorkerOptions::new(options.partitions(3), "never-written.ndjson");
    let builder = batchsql_core::BatchSql::builder(SqliteSink::open("sqlite::memory:").unwrap());
    let error = Worker::start(context, builder, own).await.unwrap_err();
    assert!(error.to_string().contains("it has 2 partitions"), "{error}");
}

/// Each finds no stream and makes it, with settings that do not matter to the others.
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_make_a_stream_at_once_get_the_same_one() {
    let context = context().await;
    for _ in 0..20 {
        let options = stream(2);
        let makers: Vec<_> = (0..4)
            .map(|number| {
                let (context, options) = (context.clone(), options.clone().max_bytes(1 << (20 + number)));
                tokio::spawn(async move { options.create(&context).await })
            })
            .collect();
        let mut incarnations = std::collections::BTreeSet::new();
        for maker in makers {
            incarnations.insert(maker.await.unwrap().unwrap().incarnation);
        }
        assert_eq!(incarnations.len(), 1);
    }
}
