//! Rows of other programs that can never be written: they are rejected, and their partition goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_nats::jetstream::Context;
use batchsql_core::{BatchSql, ColumnType, DynRow, Outcome, Schema};
use batchsql_nats::{StreamOptions, Worker, WorkerOptions};
use batchsql_redis::RedisSink;
use batchsql_testserver::{Kind, dsn, unique};

use crate::support::{
    LIMIT, Target, context, keyed, lines, plain, publish, publisher, row, stream, until, worker_config,
};

/// Publishes rows in one message.
async fn publish_rows(context: &Context, stream: &StreamOptions, rows: &[DynRow]) {
    let db = publisher(context, stream).await;
    db.submit_all(rows).await.unwrap();
    assert!(db.close(LIMIT).await.is_complete());
}

/// The worker, and how many failed rows its callback has had.
async fn start(
    context: &Context,
    target: &Target,
    options: WorkerOptions,
    buffer_bytes: usize,
) -> (Worker, Arc<AtomicUsize>) {
    let failed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&failed);
    let count = move |outcome: &Outcome| {
        assert!(matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        counted.fetch_add(1, Ordering::SeqCst);
    };
    let builder = target
        .builder()
        .config(worker_config().buffer_bytes(buffer_bytes).flush_bytes(buffer_bytes / 2))
        .on_failed_row(count);
    (Worker::start(context.clone(), builder, options).await.unwrap(), failed)
}

/// Good rows before and behind those that cannot be written. `ids` are written of these, `letters` are rejected with a reason.
async fn check(publish_misfits: impl AsyncFn(&Context, &StreamOptions), ids: &[i64], letters: usize, reason: &str) {
    for is_exact in [false, true] {
        let (context, options, target) = (context().await, stream(1), Target::new().await);
        options.create(&context).await.unwrap();
        publish(&context, &options, &plain("plain"), 0..10).await;
        publish_misfits(&context, &options).await;
        publish(&context, &options, &plain("plain"), 30..40).await;
        let declared = Schema::builder("plain").column("id", ColumnType::I64);
        let declared = match reason {
            "NULL" => declared.column("note", ColumnType::Text),
            _ => declared.nullable("note", ColumnType::Text),
        };
        let own = target.options(&options).schema(declared.build().unwrap());
        let own = if is_exact { own.exactly_once() } else { own };
        let (worker, failed) = start(&context, &target, own, 64 << 10).await;
        let expected: Vec<i64> = (0..10).chain(ids.iter().copied()).chain(30..40).collect();
        target.has("plain", &expected).await;
        let path = target.path("dead-letters.ndjson");
        until("the letters are there", async || lines(&path).len() == letters).await;
        until("the callback has them", async || failed.load(Ordering::SeqCst) == letters).await;
        for letter in lines(&path) {
            assert!(letter.contains(reason) && letter.contains("\"outcome\":\"rejected\""), "{letter}");
        }
        let stats = worker.stats();
        assert!(stats.stopped.is_empty() && stats.counts.dead_letters == letters as u64, "{stats:?}");
        worker.close(LIMIT).await;
        // They do not come again.
        let own = target.options(&options).schema(plain("plain"));
        let (worker, _) = start(&context, &target, if is_exact { own.exactly_once() } else { own }, 64 << 10).await;
        publish(&context, &options, &plain("plain"), 40..50).await;
        target.has("plain", &expected.iter().copied().chain(40..50).collect::<Vec<_>>()).await;
        worker.close(LIMIT).await;
        assert_eq!(lines(&path).len(), letters);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_the_table_lacks_rejects_its_rows() {
    let publish = async |context: &Context, stream: &StreamOptions| {
        let schema = Schema::builder("plain").column("id", ColumnType::I64).nullable("extra", ColumnType::Text);
        let schema = schema.build().unwrap();
        let rows: Vec<_> = (10..13)
            .map(|id| schema.row().set("id", id as i64).unwrap().set("extra", "x").unwrap().finish().unwrap())
            .collect();
        publish_rows(context, stream, &rows).await;
    };
    check(publish, &[], 3, "has no column \\\"extra\\\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn null_where_the_table_allows_none_rejects_its_row_only() {
    let publish = async |context: &Context, stream: &StreamOptions| {
        let schema = plain("plain");
        let note = |id: i64| (id % 3 != 0).then_some("x");
        let rows: Vec<_> = (10..20)
            .map(|id| schema.row().set("id", id).unwrap().set("note", note(id)).unwrap().finish().unwrap())
            .collect();
        publish_rows(context, stream, &rows).await;
    };
    check(publish, &[10, 11, 13, 14, 16, 17, 19], 3, "NULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_pipeline_refuses_is_rejected_alone() {
    let publish = async |context: &Context, stream: &StreamOptions| {
        let (schema, large) = (plain("plain"), "x".repeat(80 << 10));
        let rows: Vec<_> = (10..16).map(|id| row(&schema, id, if id % 3 == 0 { &large } else { "x" })).collect();
        publish_rows(context, stream, &rows).await;
    };
    check(publish, &[10, 11, 13, 14], 2, "buffer").await;
}

/// A hash needs a field, and Redis is never asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_hash_without_a_field_is_rejected() {
    let (context, options, target) = (context().await, stream(1), Target::new().await);
    options.create(&context).await.unwrap();
    let table = unique("hashes");
    let schema = keyed(&table);
    publish(&context, &options, &schema, 0..10).await;
    let bare: Vec<_> = (10..13).map(|id| schema.row().set("id", id as i64).unwrap().finish().unwrap()).collect();
    publish_rows(&context, &options, &bare).await;
    publish(&context, &options, &schema, 13..20).await;
    let builder = BatchSql::builder(RedisSink::connect(&dsn(Kind::Redis)).await.unwrap()).config(worker_config());
    let worker = Worker::start(context.clone(), builder, target.options(&options)).await.unwrap();
    until("all have ended", async || worker.stats().counts.written == 17).await;
    let letters = lines(&target.path("dead-letters.ndjson"));
    assert!(
        letters.len() == 3 && letters.iter().all(|letter| letter.contains("a redis hash needs a field")),
        "{letters:?}"
    );
    assert!(worker.stats().stopped.is_empty(), "{:?}", worker.stats());
    worker.close(LIMIT).await;
}
