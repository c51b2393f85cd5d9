//! Owns the measurement of a scrape: series, size and time.
//! Must not know databases or Prometheus.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use batchsql::metrics::{MemoryUsage, TestResult};
use batchsql::prometheus::PrometheusMetrics;
use batchsql::{BatchSql, ColumnType, Schema};
use batchsql_testkit::NullSink;
use comfy_table::{CellAlignment, Table, presets};

/// Numbers of tables and test cases; 0 cases as in production.
const SHAPES: [(usize, usize); 3] = [(10, 0), (100, 0), (100, 20)];
/// Rows that each case writes to each table; the number has no effect on a scrape.
const ROWS: i64 = 10;

/// The result of one shape.
struct Scraped {
    series: usize,
    plain: usize,
    gzip: usize,
    render: Duration,
    over_http: Duration,
    over_http_gzip: Duration,
}

/// Measures scrapes after runs with several numbers of tables and cases; returns a table. Times are medians of
/// `rounds` scrapes; those over HTTP end with the last byte.
///
/// # Errors
/// The endpoint does not answer, which is a defect.
pub async fn scrape(rounds: usize) -> Result<String> {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(["tables", "cases", "series", "KiB", "KiB gzip", "render ms", "HTTP ms", "HTTP gzip ms"]);
    for (tables, cases) in SHAPES {
        eprintln!("scrape: {tables} tables, {cases} cases");
        let scraped = measure(tables, cases, rounds).await?;
        let kib = |bytes: usize| format!("{:.1}", bytes as f64 / 1024.0);
        let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        table.add_row([
            tables.to_string(),
            cases.to_string(),
            scraped.series.to_string(),
            kib(scraped.plain),
            kib(scraped.gzip),
            ms(scraped.render),
            ms(scraped.over_http),
            ms(scraped.over_http_gzip),
        ]);
    }
    table.column_iter_mut().for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    Ok(format!("scrape of /metrics, medians of {rounds}\n{table}"))
}

/// Interval between two scrapes; longer than the pause of the exporter after one.
const BETWEEN: Duration = Duration::from_millis(300);

async fn measure(tables: usize, cases: usize, rounds: usize) -> Result<Scraped> {
    let metrics = PrometheusMetrics::new()?;
    run(&metrics, tables, cases).await?;
    let address = metrics.start_server(0).await?;
    let text = metrics.render();
    let series = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    let render = median(rounds, || {
        std::hint::black_box(metrics.render());
        Ok(())
    })?;
    let (mut plain, mut gzip) = (0, 0);
    let over_http = median(rounds, || {
        plain = get(address, "")?;
        Ok(())
    })?;
    let over_http_gzip = median(rounds, || {
        gzip = get(address, "Accept-Encoding: gzip\r\n")?;
        Ok(())
    })?;
    metrics.stop_server().await?;
    Ok(Scraped { series, plain, gzip, render, over_http, over_http_gzip })
}

/// Runs a pipeline that writes to each table in each case and records the result of each case.
async fn run(metrics: &PrometheusMetrics, tables: usize, cases: usize) -> Result<()> {
    let db = BatchSql::builder(NullSink).metrics_reporter(metrics.reporter("null")).start()?;
    let schema = |number| Schema::builder(format!("application_table_{number}")).column("id", ColumnType::I64).build();
    let schemas: Vec<Schema> = (0..tables).map(schema).collect::<Result<_, _>>()?;
    for case in 0..cases.max(1) {
        let name = format!("test_case_{case}");
        if cases > 0 {
            metrics.set_current_test_case(&name);
        }
        for schema in &schemas {
            for id in 0..ROWS {
                db.submit(&schema.row().set("id", id)?.finish()?).await?;
            }
        }
        db.flush().await?;
        if cases > 0 {
            let result = TestResult { success: true, rps_valid: true, ..Default::default() };
            metrics.record_test_result("null", &name, &result);
            let usage = MemoryUsage { alloc: Some(1), total_alloc: Some(1), sys: Some(1), ..Default::default() };
            metrics.record_memory("null", &name, &MemoryUsage { current: Some(1), gc_count: Some(1), ..usage });
        }
    }
    let report = db.close(Duration::from_secs(60)).await;
    anyhow::ensure!(report.is_complete(), "rows were lost: {:?}", report.balance);
    Ok(())
}

fn median(rounds: usize, mut once: impl FnMut() -> Result<()>) -> Result<Duration> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        // Real scrapes are seconds apart. One that follows immediately would wait for the pause of the exporter.
        std::thread::sleep(BETWEEN);
        let begin = Instant::now();
        once()?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    times.get(rounds / 2).copied().context("--rounds must be at least 1")
}

/// Returns the size of the body in bytes.
fn get(address: SocketAddr, headers: &str) -> Result<usize> {
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    anyhow::ensure!(answer.starts_with(b"HTTP/1.1 200 "), "the scrape was refused");
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").context("the answer has no head")?;
    Ok(answer.len() - head - 4)
}
