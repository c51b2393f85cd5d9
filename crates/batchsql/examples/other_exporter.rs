//! The same metrics through another exporter of the `metrics` family: DogStatsD over UDP.
//!
//! ```sh
//! cargo run -p batchsql --example other_exporter --features sqlite,metrics
//! ```
//!
//! With an address as its argument it sends to that agent. Without one it plays the agent itself, and prints what it
//! received.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use batchsql::metrics::Metrics;
use batchsql::sqlite::SqliteSink;
use batchsql::{BatchSql, Row};
use metrics_exporter_dogstatsd::DogStatsDBuilder;

#[derive(Row)]
#[row(table = "events", key = "id", on_conflict = "ignore")]
struct Event {
    id: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let agent = UdpSocket::bind("127.0.0.1:0")?;
    let own_address = agent.local_addr()?.to_string();
    let other_address = std::env::args().nth(1);

    // Any recorder of the `metrics` crate. `Metrics::new()` takes the global one, if the process has installed one.
    let flush = Duration::from_millis(200);
    let recorder = DogStatsDBuilder::default()
        .with_remote_address(other_address.as_ref().unwrap_or(&own_address))?
        .with_flush_interval(flush)
        .build()?;
    let metrics = Metrics::with_recorder(Arc::new(recorder));

    let sink = SqliteSink::open("sqlite::memory:")?;
    sink.call(|connection| connection.execute_batch("CREATE TABLE events (id INTEGER PRIMARY KEY)")).await?;
    let db = BatchSql::builder(sink).metrics_reporter(metrics.reporter("sqlite")).start()?;
    db.submit_all((0..1_000).map(|id| Event { id })).await?;
    let report = db.close(Duration::from_secs(10)).await;
    println!("{}", report.balance);

    if other_address.is_none() {
        let received =
            tokio::task::spawn_blocking(move || receive(&agent, "batchsql_records_processed_total")).await??;
        println!("the agent received {received}");
    } else {
        // The exporter has a thread of its own, and sends once per interval.
        tokio::time::sleep(flush * 2).await;
    }
    Ok(())
}

/// The first line of a metric.
fn receive(agent: &UdpSocket, name: &str) -> std::io::Result<String> {
    agent.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut datagram = vec![0; 64 << 10];
    loop {
        let length = agent.recv(&mut datagram)?;
        let text = String::from_utf8_lossy(&datagram[..length]);
        if let Some(line) = text.lines().find(|line| line.starts_with(name)) {
            return Ok(line.to_owned());
        }
    }
}
