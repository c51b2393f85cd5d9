//! Owns the checks of a durable intake in a scrape: each figure is the one that its handle shows.
//! Must not know how the intake works.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use batchsql_core::{BatchSql, ColumnType, Conflict, DynRow, PipelineConfig, Schema};
use batchsql_durable::{DurableBatchSql, DurableExt, DurableOptions};
use batchsql_prometheus::PrometheusMetrics;
use batchsql_sqlite::rusqlite::Connection;
use batchsql_sqlite::{SqliteOptions, SqliteSink, Synchronous};
use batchsql_testserver::{Sample, samples};

use crate::http::get;

/// More than any test takes. Only a failing test waits for it.
const LONG: Duration = Duration::from_secs(60);
/// A value that is found in the files of the log.
const MARK: i64 = 0x1122_3344_5566_7788;

/// A database with the table `orders`, which refuses negative numbers. There is no table `later`.
fn database(folder: &Path) {
    let sql = "PRAGMA journal_mode=WAL; CREATE TABLE orders (id INTEGER PRIMARY KEY CHECK (id >= 0))";
    Connection::open(folder.join("app.db")).unwrap().execute_batch(sql).unwrap();
}

async fn start(folder: &Path, metrics: &PrometheusMetrics, database: &str) -> DurableBatchSql {
    start_with(folder, metrics, database, |options| options).await
}

async fn start_with(
    folder: &Path,
    metrics: &PrometheusMetrics,
    database: &str,
    with: impl FnOnce(DurableOptions) -> DurableOptions,
) -> DurableBatchSql {
    let sink = SqliteOptions::file(folder.join("app.db")).synchronous(Synchronous::Full);
    let options = DurableOptions::new(folder.join("intake")).min_free_bytes(0).disk_bytes(1 << 29).partitions(2);
    BatchSql::builder(SqliteSink::with_options(&sink).unwrap())
        .config(PipelineConfig::default().flush_size(50).flush_interval(Duration::from_millis(1)))
        .metrics_reporter(metrics.reporter(database))
        .durable(with(options))
        .start()
        .await
        .unwrap()
}

fn row(table: &str, id: i64) -> DynRow {
    let schema = Schema::builder(table).column("id", ColumnType::I64).on_conflict(Conflict::ignore(["id"]));
    schema.build().unwrap().row().set("id", id).unwrap().finish().unwrap()
}

/// The figures of one database: by name, and with the table where there is one.
fn scraped(address: SocketAddr, database: &str) -> BTreeMap<String, f64> {
    let is_ours = |sample: &Sample| {
        sample.name.starts_with("batchsql_durable_")
            && !sample.name.ends_with("_bucket")
            && sample.labels.get("database").is_some_and(|of| of == database)
    };
    let named = |sample: Sample| {
        let name = sample.name.trim_start_matches("batchsql_durable_").to_owned();
        let table = sample.labels.get("table").map(|table| format!(" {table}")).unwrap_or_default();
        (name + &table, sample.value)
    };
    samples(&get(address, "/metrics").body).into_iter().filter(is_ours).map(named).collect()
}

/// What `stats` and `health` say, under the names of [`scraped`]. Rows of a table are in `tables`.
fn shown(db: &DurableBatchSql, tables: &[(&str, u64, u64)]) -> BTreeMap<String, f64> {
    let (stats, health) = (db.stats(), db.health());
    let log = &stats.log;
    let oldest = stats.oldest_unsettled.map_or(0.0, |time| time.duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
    let mut shown: BTreeMap<String, f64> = [
        ("log_bytes", log.bytes as f64),
        ("log_bytes_limit", log.bytes_limit as f64),
        ("log_full", f64::from(u8::from(health.log_is_full))),
        ("oldest_unsettled_record_timestamp_seconds", oldest),
        ("sync_seconds_count", log.syncs.count as f64),
        ("sync_seconds_sum", log.syncs.total.as_secs_f64()),
        ("acknowledged_records_total", stats.acknowledged as f64),
        ("acknowledged_blocks_total", log.appended_blocks as f64),
        ("acknowledged_bytes_total", log.appended_bytes as f64),
        ("disk_failures_total", log.failures as f64),
        ("quarantined_parts_total", log.quarantined as f64),
        ("quarantined_bytes_total", log.quarantined_bytes as f64),
        ("missing_records_total", stats.missing as f64),
        ("written_again_records_total", stats.written_again as f64),
        ("dead_letters_total", stats.dead_letters as f64),
        ("recovered_records", db.recovered().rows as f64),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (table, unsettled, read) in tables {
        let stopped = health.stopped.iter().filter(|partition| partition.table == format!("\"{table}\"")).count();
        shown.insert(format!("unsettled_records {table}"), *unsettled as f64);
        shown.insert(format!("read_records {table}"), *read as f64);
        shown.insert(format!("stopped_partitions {table}"), stopped as f64);
        let waiting = health.waiting.iter().filter(|partition| partition.table == format!("\"{table}\"")).count();
        shown.insert(format!("waiting_partitions {table}"), waiting as f64);
    }
    shown
}

/// Waits until the scrape has these figures; the intake reports each second. The figures change while it is read.
fn check(address: SocketAddr, database: &str, shown: impl Fn() -> BTreeMap<String, f64>) {
    let is_the_same = || {
        let (before, mut scrape, after) = (shown(), scraped(address, database), shown());
        let recovery = scrape.remove("recovery_seconds").unwrap_or(-1.0);
        let is_near =
            |(name, value): (&String, &f64)| before.get(name).is_some_and(|expected| (expected - value).abs() < 0.001);
        let is_same = before == after && before.len() == scrape.len() && scrape.iter().all(is_near);
        assert!(!is_same || (0.0..LONG.as_secs_f64()).contains(&recovery), "{recovery}");
        is_same
    };
    let figures = || format!("shown {:#?}, scraped {:#?}", shown(), scraped(address, database));
    until("the scrape has what is shown", is_the_same, figures);
}

/// Waits for a condition that other tasks make true.
fn until(what: &str, is_so: impl Fn() -> bool, state: impl Fn() -> String) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "it takes too long until {what}: {}", state());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrape_has_what_the_handle_shows() {
    let folder = tempfile::tempdir().unwrap();
    database(folder.path());
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    assert_eq!(scraped(address, "sqlite"), BTreeMap::new(), "no durable intake was started");

    let db = start(folder.path(), &metrics, "sqlite").await;
    check(address, "sqlite", || shown(&db, &[]));

    // Rows that are written, one that is refused, and rows that wait for their table.
    db.submit_all((0..100).map(|id| row("orders", id))).await.unwrap();
    db.submit(&row("orders", -1)).await.unwrap();
    db.submit_all((0..7).map(|id| row("later", id))).await.unwrap();
    check(address, "sqlite", || shown(&db, &[("orders", 0, 0), ("later", 7, 7)]));
    let stats = db.stats();
    assert_eq!((stats.acknowledged, stats.dead_letters, stats.log.unsettled_rows), (108, 1, 7));
    assert!(stats.oldest_unsettled.is_some() && stats.log.syncs.count > 0);

    // A close reports at its end: no scrape sees an earlier state after it.
    let report = db.close(Duration::ZERO).await;
    assert_eq!(report.left_in_log, 7);
    assert_eq!(scraped(address, "sqlite")["unsettled_records later"], 7.0);
    check(address, "sqlite", || shown(&db, &[("orders", 0, 0), ("later", 7, 7)]));
    drop(db);

    // The next start finds them, and writes them when the table is there.
    let sql = "CREATE TABLE later (id INTEGER PRIMARY KEY)";
    Connection::open(folder.path().join("app.db")).unwrap().execute_batch(sql).unwrap();
    let db = start(folder.path(), &metrics, "again").await;
    assert_eq!(db.recovered().rows, 7);
    db.flush().await.unwrap();
    check(address, "again", || shown(&db, &[("later", 0, 0)]));
    let scrape = scraped(address, "again");
    assert_eq!(scrape["recovered_records"], 7.0);
    assert_eq!(scrape["oldest_unsettled_record_timestamp_seconds"], 0.0);
    assert_eq!(scrape["acknowledged_records_total"], 0.0, "counts are those of this start");
    db.close(LONG).await;
    metrics.stop_server().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_and_stopped_partitions_are_in_the_scrape() {
    let folder = tempfile::tempdir().unwrap();
    database(folder.path());
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    // Three starts, so that the damage is not at the end. The rows of a key are in one partition.
    for id in [1, MARK, 3] {
        let db = start(folder.path(), &metrics, "before").await;
        db.submit(&row("later", id)).await.unwrap();
        db.close(Duration::ZERO).await;
    }
    let mut damaged = 0;
    for file in fs::read_dir(folder.path().join("intake/log")).unwrap().map(|file| file.unwrap().path()) {
        let Ok(mut bytes) = fs::read(&file) else { continue };
        if let Some(place) = bytes.windows(8).position(|window| window == MARK.to_le_bytes()) {
            bytes[place] ^= 1;
            fs::write(file, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let db = start(folder.path(), &metrics, "damaged").await;
    let has_stopped =
        || scraped(address, "damaged").get("stopped_partitions later").is_some_and(|stopped| *stopped > 0.0);
    let figures = || format!("{:#?}", scraped(address, "damaged"));
    until("a stopped partition is in the scrape", has_stopped, figures);
    let (scrape, stats) = (scraped(address, "damaged"), db.stats());
    assert_eq!(scrape["stopped_partitions later"], db.health().stopped.len() as f64);
    assert!(stats.log.quarantined > 0);
    assert_eq!(scrape["quarantined_parts_total"], stats.log.quarantined as f64);
    assert_eq!(scrape["quarantined_bytes_total"], stats.log.quarantined_bytes as f64);
    assert_eq!(scrape["unsettled_records later"], stats.log.unsettled_rows as f64);
    assert_eq!(scrape["missing_records_total"], 0.0, "nobody has given them up");
    db.close(Duration::ZERO).await;
    metrics.stop_server().await.unwrap();
}

/// Rows that are written with their position count like those of the buffer.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_written_exactly_once_are_in_the_scrape() {
    let folder = tempfile::tempdir().unwrap();
    database(folder.path());
    let metrics = PrometheusMetrics::new().unwrap();
    let address = metrics.start_server(0).await.unwrap();
    let db = start_with(folder.path(), &metrics, "exact", |options| options.exactly_once("scrape")).await;
    db.submit_all((0..100).map(|id| row("orders", id))).await.unwrap();
    db.submit_all((-1..10).map(|id| row("orders", id))).await.unwrap();
    let balance = db.flush().await.unwrap();
    assert_eq!((balance.written(), balance.ignored(), balance.rejected()), (100, 10, 1));
    let sum = |name: &str, label: Option<(&str, &str)>| -> f64 {
        let labels: Vec<_> = [("database", "exact")].into_iter().chain(label).collect();
        batchsql_testserver::sum(&get(address, "/metrics").body, name, &labels).unwrap_or_default()
    };
    let outcome = |outcome| sum("batchsql_records_outcome_total", Some(("outcome", outcome)));
    assert_eq!((outcome("written"), outcome("ignored"), outcome("rejected")), (100.0, 10.0, 1.0));
    assert_eq!(sum("batchsql_records_received_total", None), 111.0);
    assert!(sum("batchsql_flushes_total", Some(("reason", "step"))) > 0.0);
    let is_up = || sum("batchsql_database_up", None) == 1.0;
    until("the database is known to be up", is_up, || "database_up".to_owned());
    db.close(LONG).await;
    metrics.stop_server().await.unwrap();
}
