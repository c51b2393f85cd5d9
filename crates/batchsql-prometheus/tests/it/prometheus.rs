//! Owns the proof that a real Prometheus scrapes the endpoint: plain, with a token, with a password, over TLS.
//! Must not know the meaning of the series.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use batchsql_prometheus::{Lingered, PrometheusMetrics, ServerOptions};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Connection;
use crate::tls::identity;

/// Prometheus is in the same package as promtool, so one variable requires both.
const REQUIRED: &str = "BATCHSQL_REQUIRE_PROMTOOL";
const TOKEN: &str = "t0ken-for-the-test";
/// Longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Prometheus with a folder of its own. Dropping it ends it.
struct Running {
    child: Child,
    api: SocketAddr,
    folder: TempDir,
}

impl Running {
    /// `None` if Prometheus is not installed.
    fn start(jobs: &str, files: &[(&str, &str)]) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let configuration =
            format!("global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n{jobs}");
        std::fs::write(folder.path().join("prometheus.yml"), configuration).unwrap();
        // Free a moment ago, and unlikely to be taken now.
        let api = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={api}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        match child {
            Ok(child) => Some(Self { child, api, folder }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let required = std::env::var_os(REQUIRED).is_some_and(|value| value == "1");
                assert!(!required, "prometheus is not on the PATH; install it (Debian package prometheus)");
                eprintln!("skipped: prometheus is not on the PATH; set {REQUIRED}=1 to make this an error");
                None
            }
            Err(error) => panic!("prometheus cannot be started: {error}"),
        }
    }

    /// The value of a query with exactly one series.
    fn value(&self, query: &str) -> Option<String> {
        if std::net::TcpStream::connect(self.api).is_err() {
            return None;
        }
        let path = format!("/api/v1/query?query={query}");
        let answer = Connection::open(self.api).ask("GET", &path, &[("Connection", "close")]);
        let answer: Value = serde_json::from_str(&answer.body).ok()?;
        let series = answer["data"]["result"].as_array()?;
        (series.len() == 1).then(|| series[0]["value"][1].as_str().unwrap().to_owned())
    }

    /// Waits until a query has this value.
    fn expect(&mut self, query: &str, expected: &str) {
        let begin = Instant::now();
        let mut last = None;
        while last.as_deref() != Some(expected) {
            let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(self.child.try_wait().unwrap().is_none(), "prometheus has ended:\n{}", log());
            assert!(begin.elapsed() < PATIENCE, "{query} is {last:?} and not {expected}:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
            last = self.value(query);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn job(name: &str, address: SocketAddr, more: &str) -> String {
    format!(
        "- job_name: {name}\n  metrics_path: /metrics\n  static_configs: [{{targets: ['{address}']}}]\n{}",
        more.lines().map(|line| format!("  {line}\n")).collect::<String>()
    )
}

/// One Prometheus for all variants, because its start takes a while.
#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_it_in_every_way_that_is_offered() {
    let identity = identity();
    let of_tls = || ServerOptions::new().tls_pem(&identity.certificate, &identity.key);
    let https = "scheme: https\ntls_config: {ca_file: ca.pem, server_name: localhost}\n";
    let bearer = "authorization: {type: Bearer, credentials_file: token}\n";
    let basic = "basic_auth: {username: prometheus, password: hunter2}\n";
    let ways = [
        ("plain", ServerOptions::new(), String::new(), "1"),
        ("bearer", ServerOptions::new().bearer_token(TOKEN), bearer.to_owned(), "1"),
        ("wrong", ServerOptions::new().bearer_token("another"), bearer.to_owned(), "0"),
        ("tls_bearer", of_tls().bearer_token(TOKEN), format!("{https}{bearer}"), "1"),
        ("tls_basic", of_tls().basic_auth("prometheus", "hunter2"), format!("{https}{basic}"), "1"),
        ("untrusted", of_tls(), "scheme: https\n".to_owned(), "0"),
    ];
    let mut jobs = String::new();
    let mut endpoints = Vec::new();
    for (name, options, more, up) in ways {
        let metrics = PrometheusMetrics::new().unwrap();
        let address = metrics.start_server_with(options.port(0)).await.unwrap();
        jobs += &job(name, address, &more);
        metrics.record_real_time_metrics("mysql", name, 1_234.5, 1.0);
        endpoints.push((name, metrics, up));
    }
    let files = [("ca.pem", identity.certificate.as_str()), ("token", TOKEN)];
    let Some(mut prometheus) = Running::start(&jobs, &files) else { return };
    for (name, metrics, up) in &endpoints {
        prometheus.expect(&format!("up%7Bjob=%22{name}%22%7D"), up);
        let series = format!("batchsql_test_rps%7Bjob=%22{name}%22%7D");
        if *up == "1" {
            prometheus.expect(&series, "1234.5");
            // The last value is scraped, because the end waits for it.
            metrics.record_real_time_metrics("mysql", name, 6_789.0, 1.0);
            assert_eq!(metrics.linger(PATIENCE).await, Lingered::Scraped, "{name}");
            metrics.stop_server().await.unwrap();
            let last = format!("last_over_time({series}[1m])");
            prometheus.expect(&last, "6789");
        } else {
            assert_eq!(prometheus.value(&series), None, "{name}");
            assert_eq!(metrics.linger(Duration::from_secs(5)).await, Lingered::NobodyWatches, "{name}");
            metrics.stop_server().await.unwrap();
        }
    }
}
