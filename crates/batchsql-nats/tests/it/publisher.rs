//! What a pipeline with a `NatsSink` stores.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::Context;
use batchsql_core::{Claim, ClaimFrom, ErrorClass, Outcome, PartitionKey, Step, Value};
use batchsql_feed::block::{decode, decode_schema};
use batchsql_testserver::{Conditions, Kind, NetworkProxy, Server};

use crate::support::{LIMIT, connect, context, keyed, last, plain, publisher, row, stream, until};

/// A message as anybody can read it.
#[derive(Debug)]
struct Stored {
    subject: String,
    sequence: u64,
    after: u64,
    rows: Vec<Vec<Value>>,
}

/// All messages of a stream.
async fn stored(context: &Context, stream: &str) -> Vec<Stored> {
    let handle = context.get_stream(stream).await.unwrap();
    let last = handle.cached_info().state.last_sequence;
    let mut all = Vec::new();
    for sequence in 1..=last {
        let Ok(message) = handle.get_raw_message(sequence).await else { continue };
        let text = |name: &str| message.headers.get(name).unwrap().as_str().to_owned();
        assert_eq!(text("BatchSQL-Format"), "1");
        let count: u32 = text("BatchSQL-Rows").parse().unwrap();
        let mut rows = Vec::new();
        if count > 0 {
            let (length, rest) = message.payload.split_first_chunk::<4>().unwrap();
            let (schema, bytes) = rest.split_at(u32::from_le_bytes(*length) as usize);
            let schema = decode_schema(schema).unwrap();
            let columns: Vec<_> = schema.columns.iter().map(|column| (column.ty, column.is_nullable)).collect();
            rows = decode(&columns, count, bytes).unwrap();
        }
        let (subject, after) = (message.subject.to_string(), text("BatchSQL-After").parse().unwrap());
        all.push(Stored { subject, sequence, after, rows });
    }
    all
}

fn ids(messages: &[Stored]) -> Vec<i64> {
    let ids = messages.iter().flat_map(|message| &message.rows).map(|row| match row[0] {
        Value::I64(id) => id,
        _ => panic!("not an id: {row:?}"),
    });
    ids.collect()
}

fn sorted(mut ids: Vec<i64>) -> Vec<i64> {
    ids.sort_unstable();
    ids
}

/// Each message names the one before it in its subject.
fn assert_chained(messages: &[Stored]) {
    let mut last: BTreeMap<&str, u64> = BTreeMap::new();
    for message in messages {
        let before = last.insert(&message.subject, message.sequence).unwrap_or(0);
        assert_eq!(message.after, before, "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_stored_by_key_in_order() {
    let (context, options) = (context().await, stream(4));
    options.create(&context).await.unwrap();
    let db = publisher(&context, &options).await;
    let schema = keyed("audit.ev ents");
    let rows: Vec<_> = (0..400).map(|n| row(&schema, n % 100, &format!("v{n}"))).collect();
    for chunk in rows.chunks(50) {
        db.submit_all(chunk).await.unwrap();
    }
    let report = db.close(LIMIT).await;
    assert!(report.is_complete(), "{report:?}");

    let messages = stored(&context, options.name()).await;
    assert_chained(&messages);
    let subjects: std::collections::BTreeSet<_> = messages.iter().map(|message| message.subject.clone()).collect();
    let of = |partition| format!("{}.audit%2Eev%20ents.{partition}", options.name());
    assert_eq!(subjects, (0..4).map(of).collect());
    let mut last: BTreeMap<i64, (String, String)> = BTreeMap::new();
    for message in &messages {
        for values in &message.rows {
            let (Value::I64(id), Value::Text(note)) = (&values[0], &values[1]) else { panic!("{values:?}") };
            let before = last.insert(*id, (message.subject.clone(), note.clone()));
            assert!(before.is_none_or(|(subject, _)| subject == message.subject), "a key is in one partition");
        }
    }
    for (id, (_, note)) in last {
        assert_eq!(note, format!("v{}", 300 + id), "the last row of a key is the last one");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_batches_become_several_messages_and_a_row_that_is_too_large_is_rejected() {
    let server = Server::start(Kind::Nats, &["max_payload=32KB"]);
    let (context, options) = (connect(server.dsn()).await, stream(2));
    options.create(&context).await.unwrap();
    let db = publisher(&context, &options).await;
    let schema = plain("t");
    let mut rows: Vec<_> = (0..100).map(|id| row(&schema, id, &"x".repeat(2_000))).collect();
    rows.insert(50, row(&schema, 1_000, &"x".repeat(40_000)));
    let outcomes = db.submit_all_tracked(&rows).await.unwrap();
    let failed: Vec<_> = outcomes.failed.iter().map(|failed| failed.0).collect();
    assert_eq!(failed, [50], "{outcomes:?}");
    let messages = stored(&context, options.name()).await;
    assert_eq!(sorted(ids(&messages)), (0..100).collect::<Vec<_>>());
    assert!(messages.len() > 6, "{}", messages.len());
    assert_chained(&messages);
    db.close(LIMIT).await;
}

/// Answers are lost at random, and connections are cut: each row is stored once all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_does_not_double_a_row() {
    let server = Server::start(Kind::Nats, &[]);
    let address = server.dsn().trim_start_matches("nats://").to_owned();
    let proxy = NetworkProxy::start(&address, Conditions::default(), 1).unwrap();
    let direct = connect(server.dsn()).await;
    let options = stream(2);
    options.create(&direct).await.unwrap();
    let db = publisher(&connect(&format!("nats://{}", proxy.address())).await, &options).await;
    let schema = plain("t");
    for round in 0..10_i64 {
        let rows: Vec<_> = (0..20).map(|n| row(&schema, round * 20 + n, "x")).collect();
        proxy.set(if round % 2 == 0 { Conditions::default().one_answer_lost_in(10) } else { Conditions::default() });
        // Submitting does nothing until it is waited for, and the connection is cut while messages are under way.
        let (outcomes, ()) = tokio::join!(db.submit_all_tracked(&rows), async {
            tokio::time::sleep(Duration::from_millis(5 + round as u64)).await;
            proxy.reset_connections();
        });
        let outcomes = outcomes.unwrap();
        assert!(outcomes.is_complete(), "{outcomes:?}");
    }
    let messages = stored(&direct, options.name()).await;
    assert_eq!(sorted(ids(&messages)), (0..200).collect::<Vec<_>>());
    assert_chained(&messages);
    assert!(db.close(LIMIT).await.is_complete());
}

/// Several publishers of one subject wait for each other, and lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn publishers_follow_each_other() {
    let (context, options) = (context().await, stream(1));
    options.create(&context).await.unwrap();
    let schema = plain("t");
    let one = async |first: i64| {
        let db = publisher(&context, &options).await;
        for id in first..first + 50 {
            let outcome = db.submit_tracked(&row(&schema, id, "x")).await.unwrap().await;
            assert!(matches!(outcome, Outcome::Written), "{outcome:?}");
        }
        assert!(db.close(LIMIT).await.is_complete());
    };
    tokio::join!(one(0), one(1_000), one(2_000));
    let messages = stored(&context, options.name()).await;
    let expected: Vec<i64> = [0, 1_000, 2_000].into_iter().flat_map(|first| first..first + 50).collect();
    assert_eq!(sorted(ids(&messages)), expected);
    assert_chained(&messages);
}

/// One publisher that was stopped by a full stream, or whose answer was lost, goes on behind another one that has claimed its
/// partition meanwhile. It must not store a step again.
#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_was_overtaken_stores_nothing_more() {
    let server = Server::start(Kind::Nats, &[]);
    let address = server.dsn().trim_start_matches("nats://").to_owned();
    let direct = connect(server.dsn()).await;
    for is_lost in [false, true] {
        let proxy = NetworkProxy::start(&address, Conditions::default(), 1).unwrap();
        // What is sent again is not recognized by its id.
        let options = stream(1).duplicate_window(Duration::from_millis(100));
        options.create(&direct).await.unwrap();
        let first = publisher(&connect(&format!("nats://{}", proxy.address())).await, &options).await;
        let key = PartitionKey::new("log", "incarnation", "\"t\"", 0);
        let claim = Claim::of("first").from(ClaimFrom::Anyone).or_begin_at(0);
        let mut held = first.claim(&key, &claim).await.unwrap().position().unwrap();
        if is_lost {
            proxy.set(Conditions::default().one_answer_lost_in(1));
            let before = last(&direct, &options).await;
            let restored = async {
                until("it is stored", async || last(&direct, &options).await > before).await;
                proxy.set(Conditions::default());
            };
            let step = Step::new(held, 10);
            let (advanced, ()) = tokio::join!(first.advance(&step), restored);
            advanced.unwrap();
            held.sequence = 10;
        } else {
            let mut config = direct.get_stream(options.name()).await.unwrap().cached_info().config.clone();
            config.max_messages = 1;
            direct.update_stream(&config).await.unwrap();
            let refused = first.advance(&Step::new(held, 10)).await.unwrap_err();
            assert_eq!(refused.class(), ErrorClass::Resource, "{refused}");
            config.max_messages = -1;
            direct.update_stream(&config).await.unwrap();
        }
        let second = publisher(&direct, &options).await;
        let claim = Claim::of("second").from(ClaimFrom::Owners(vec!["first".to_owned()]));
        let taken = second.claim(&key, &claim).await.unwrap().position().unwrap();
        assert_eq!(taken.sequence, held.sequence);
        second.advance(&Step::new(taken, 20)).await.unwrap();
        let before = last(&direct, &options).await;
        let refused = first.advance(&Step::new(held, 20)).await.unwrap_err();
        assert!(refused.is_fenced(), "{refused}");
        assert_eq!(last(&direct, &options).await, before);
        first.close(LIMIT).await;
        second.close(LIMIT).await;
    }
}

/// A message of somebody else hides the position. When it is removed, the publisher goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stray_message_stops_a_claim_until_it_is_removed() {
    let (context, options) = (context().await, stream(1));
    options.create(&context).await.unwrap();
    let db = publisher(&context, &options).await;
    let key = PartitionKey::new("log", "incarnation", "\"t\"", 0);
    let held = db.claim(&key, &Claim::of("me").or_begin_at(0)).await.unwrap().position().unwrap();
    let subject = format!("{}.t.0", options.name());
    let stray = context.publish(subject.clone(), "stray".into()).await.unwrap().await.unwrap().sequence;
    let refused = db.advance(&Step::new(held, 10)).await.unwrap_err();
    assert!(refused.is_fenced(), "{refused}");
    let refused = db.claim(&key, &Claim::of("me")).await.unwrap_err();
    assert!(refused.to_string().contains(&format!("message {stray} of {subject}")), "{refused}");
    context.get_stream(options.name()).await.unwrap().delete_message(stray).await.unwrap();
    let held = db.claim(&key, &Claim::of("me")).await.unwrap().position().unwrap();
    db.advance(&Step::new(held, 10)).await.unwrap();
    db.close(LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_waits_for_a_server_that_is_unreachable() {
    let mut server = Server::start(Kind::Nats, &[]);
    let (context, options) = (connect(server.dsn()).await, stream(1));
    options.create(&context).await.unwrap();
    server.stop();
    let mut starting = Box::pin(publisher(&context, &options));
    // Longer than one request, which waits 10 seconds.
    let early = tokio::time::timeout(Duration::from_secs(12), &mut starting).await;
    assert!(early.is_err());
    server.start_again();
    let db = starting.await;
    db.submit(&row(&plain("t"), 1, "x")).await.unwrap();
    assert!(db.close(LIMIT).await.is_complete());
    assert_eq!(ids(&stored(&context, options.name()).await), [1]);
}
