//! Owns the check that a scrape gets its response while the writer keeps every worker busy.
//! Must not know how the server does that.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use batchsql_core::{BatchSql, ColumnType, PipelineConfig, Schema};
use batchsql_prometheus::PrometheusMetrics;
use batchsql_testkit::NullSink;
use batchsql_testserver::sum;
use tokio::sync::watch;

use crate::http::Connection;

/// Shorter than the time for which the runtime is stuck. The test prints how long scrapes take.
const LIMIT: Duration = Duration::from_secs(30);
const SCRAPES: usize = 100;

#[test]
fn a_scrape_is_answered_while_every_worker_is_busy() {
    let metrics = PrometheusMetrics::new().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let address = runtime.block_on(metrics.start_server(0)).unwrap();
    let (stop, stopped) = watch::channel(false);
    let config = PipelineConfig::default().flush_size(100).buffer_size(1_000);
    let builder = BatchSql::builder(NullSink).config(config).metrics_reporter(metrics.reporter("null"));
    let db = runtime.block_on(async { builder.start() }).unwrap();
    for producer in 0..8 {
        let (db, stopped) = (db.clone(), stopped.clone());
        runtime.spawn(async move {
            let table = Schema::builder(format!("table_{producer}")).column("id", ColumnType::I64).build().unwrap();
            let row = table.row().set("id", 1_i64).unwrap().finish().unwrap();
            while !*stopped.borrow() && db.submit(&row).await.is_ok() {}
        });
    }
    let begin = Instant::now();
    while written(&metrics.render()) == 0.0 {
        assert!(begin.elapsed() < Duration::from_secs(30), "nothing is written");
    }
    let before = written(&metrics.render());
    let while_writing = slowest_of(SCRAPES, address);
    let rows = written(&metrics.render()) - before;
    // Two tasks that never yield block both workers, so no other task of that runtime runs.
    for _ in 0..2 {
        let stopped = stopped.clone();
        runtime.spawn(async move {
            let begin = Instant::now();
            while !*stopped.borrow() && begin.elapsed() < LIMIT * 10 {
                std::hint::spin_loop();
            }
        });
    }
    let while_stuck = slowest_of(SCRAPES, address);
    stop.send_replace(true);
    eprintln!("slowest of {SCRAPES} scrapes: {while_writing:?} with {rows} rows written, {while_stuck:?} while stuck");
    assert!(rows > 0.0, "the writer should be busy, but wrote nothing");
    assert!(while_writing < LIMIT && while_stuck < LIMIT, "{while_writing:?}, {while_stuck:?}");
    runtime.block_on(async {
        db.close(Duration::from_secs(60)).await;
        metrics.stop_server().await.unwrap();
    });
}

fn slowest_of(scrapes: usize, address: SocketAddr) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..scrapes {
        let begin = Instant::now();
        let answer = Connection::open(address).ask("GET", "/metrics", &[("Connection", "close")]);
        slowest = slowest.max(begin.elapsed());
        assert_eq!(answer.status, 200);
        std::thread::sleep(Duration::from_millis(5));
    }
    slowest
}

fn written(page: &str) -> f64 {
    sum(page, "batchsql_records_processed_total", &[]).unwrap_or_default()
}
