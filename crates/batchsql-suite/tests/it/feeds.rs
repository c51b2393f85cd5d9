//! Owns the check that the panels of feeds have data: a real Prometheus scrapes a real worker on a real stream.
//! Must not know the queries of panels.

use std::time::Duration;

use batchsql::prometheus::PrometheusMetrics;
use batchsql::sqlite::SqliteSink;
use batchsql::{BatchSql, ColumnType, Schema};
use batchsql_monitoring::{Choice, panels};
use batchsql_nats::{NatsSink, StreamOptions, Worker, WorkerOptions};
use batchsql_testserver::{Kind, Server};

use crate::panels::{DASHBOARD, shows_only};

/// Longer than anything takes.
const LIMIT: Duration = Duration::from_secs(60);

/// The dashboard with the panels of feeds. No test is recorded here, so the variable for them has no values.
fn dashboard() -> String {
    let mut dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    dashboard["templating"]["list"].as_array_mut().unwrap().retain(|variable| variable["name"] != "test_case");
    let panels = dashboard["panels"].as_array_mut().unwrap();
    panels.retain(|panel| shows_only(panel, "batchsql_feed_"));
    assert!(panels.len() > 5);
    dashboard.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_of_feeds_has_data() {
    let (nats, folder) = (Server::start(Kind::Nats, &[]), tempfile::tempdir().unwrap());
    let context = async_nats::jetstream::new(async_nats::connect(nats.dsn()).await.unwrap());
    let stream = StreamOptions::new("rows").partitions(2);
    stream.create(&context).await.unwrap();
    let publisher = BatchSql::builder(NatsSink::new(context.clone(), &stream).await.unwrap()).start().unwrap();
    let schema = Schema::builder("orders").column("id", ColumnType::I64).build().unwrap();
    for id in 0..100_i64 {
        publisher.submit(&schema.row().set("id", id).unwrap().finish().unwrap()).await.unwrap();
    }
    assert!(publisher.close(LIMIT).await.is_complete());

    let metrics = PrometheusMetrics::new().unwrap();
    let target = format!("target={}", metrics.start_server(0).await.unwrap());
    let prometheus = Server::start(Kind::Prometheus, &[&target, "interval=1s"]);
    let sink = SqliteSink::open(&format!("sqlite:{}", folder.path().join("target.db").display())).unwrap();
    sink.call(|conn| conn.execute("CREATE TABLE orders (id INTEGER)", [])).await.unwrap();
    let builder = BatchSql::builder(sink).metrics_reporter(metrics.reporter("sqlite"));
    let options = WorkerOptions::new(stream, folder.path().join("letters.ndjson")).exactly_once();
    let worker = Worker::start(context, builder, options).await.unwrap();

    let url = prometheus.dsn().to_owned();
    let asked = tokio::task::spawn_blocking(move || {
        let choice = Choice { rate_interval: Duration::from_secs(4), ..Choice::default() };
        panels(&url, &dashboard(), &choice, LIMIT).unwrap()
    });
    let panels = asked.await.unwrap();
    println!("{panels}");
    let missing: Vec<_> = panels.missing().collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let empty = panels.answers.iter().filter(|answer| answer.series > 0 && answer.with_numbers == 0).count();
    assert_eq!(empty, 0, "{panels}");
    worker.close(LIMIT).await;
    metrics.stop_server().await.unwrap();
}
