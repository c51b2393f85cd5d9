//! Owns the checks of the example service by itself: scraped and probed from outside, ended by a signal.
//! Must not know Prometheus.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::{Duration, Instant};

use batchsql::sqlite::rusqlite::Connection;
use batchsql_testserver::sum;

use super::program::{secrets, service};

const PATIENCE: Duration = Duration::from_secs(60);

/// The service with these settings.
fn command(settings: &[(&str, &str)]) -> Command {
    let mut command = service();
    command.envs(settings.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

struct Service {
    child: Child,
    log: BufReader<ChildStderr>,
    address: SocketAddr,
}

impl Service {
    /// Waits until it listens and is ready.
    fn start(settings: &[(&str, &str)]) -> Self {
        let mut child = command(settings).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let metrics = line_with(&mut log, "metrics: http");
        line_with(&mut log, "ready: ");
        let address = metrics.trim_end().trim_end_matches("/metrics").rsplit("//").next().unwrap().parse().unwrap();
        Self { child, log, address }
    }

    fn get(&self, path: &str, header: &str) -> String {
        self.try_get(path, header).unwrap()
    }

    /// The answer, unless the service has ended.
    fn try_get(&self, path: &str, header: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{header}\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Rows of all tables, `received` or with an `outcome`.
    fn total(&self, what: &str) -> f64 {
        metric(&self.get("/metrics", ""), &format!("batchsql_records_{what}_total"), &[])
    }

    /// The health check of a container: the same program again.
    fn health_check(&self, settings: &[(&str, &str)]) -> Output {
        let port = self.address.port().to_string();
        command(settings).env("PROMETHEUS_PORT", port).arg("--health-check").output().unwrap()
    }

    fn ask_to_end(&self) {
        let pid = self.child.id().to_string();
        // Twice, as some supervisors do; it counts as once.
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
    }

    /// Sends SIGTERM and waits for the end: the exit status, and what was printed.
    fn end(self) -> (Option<i32>, String) {
        self.ask_to_end();
        self.wait()
    }

    fn wait(mut self) -> (Option<i32>, String) {
        let (mut printed, mut told) = (String::new(), String::new());
        if let Some(mut stdout) = self.child.stdout.take() {
            stdout.read_to_string(&mut printed).unwrap();
        }
        self.log.read_to_string(&mut told).unwrap();
        let status = self.child.wait().unwrap();
        assert!(TcpStream::connect(self.address).is_err(), "the port is closed");
        (status.code(), printed + &told)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line_with(log: &mut impl BufRead, part: &str) -> String {
    let mut all = String::new();
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended without {part:?}:\n{all}");
        if line.contains(part) {
            return line;
        }
        all += &line;
    }
}

/// The sum of the series of a counter with these labels in an answer; 0 without any.
fn metric(answer: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let (_, page) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no body: {answer}"));
    sum(page, name, labels).unwrap_or_default()
}

/// A figure of the balance that was printed.
fn count(said: &str, kind: &str) -> f64 {
    let balance = said.lines().next().unwrap();
    let part = balance.split(", ").find(|part| part.ends_with(kind)).unwrap_or_else(|| panic!("{kind}: {said}"));
    part.split(' ').next().unwrap().parse().unwrap()
}

/// Asks until the answer is as wanted.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn it_writes_can_be_watched_and_drains_when_it_is_asked_to_end() {
    let service = Service::start(&[("ROWS_PER_SECOND", "4000")]);
    let outcome = |page: &str, labels: &[_]| metric(page, "batchsql_records_outcome_total", labels);
    let of_table = |page: &str, table, kind| outcome(page, &[("table", table), ("outcome", kind)]);
    eventually("every kind of outcome", || {
        let page = service.get("/metrics", "");
        of_table(&page, "app_orders", "written") > 0.0
            && of_table(&page, "app_orders", "superseded") > 0.0
            && of_table(&page, "app_events", "written") > 0.0
            && of_table(&page, "app_events", "ignored") > 0.0
    });
    assert!(service.get("/ready", "").starts_with("HTTP/1.1 200"));
    assert!(service.health_check(&[]).status.success());
    let written = outcome(&service.get("/metrics", ""), &[("outcome", "written")]);

    let (status, said) = service.end();
    assert_eq!(status, Some(0), "{said}");
    assert_eq!(
        count(&said, "accepted"),
        ["written", "ignored", "superseded"].map(|kind| count(&said, kind)).iter().sum::<f64>()
    );
    assert!(count(&said, "written") >= written, "{said}");
}

#[test]
fn rows_that_were_accepted_are_written_also_after_the_table_was_missing_and_while_another_holds_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("app.db");
    let mut service =
        Service::start(&[("DATABASE_URL", &format!("sqlite:{}", file.display())), ("ROWS_PER_SECOND", "500")]);
    eventually("the first row", || service.total("outcome") > 0.0);
    let other = Connection::open(&file).unwrap();
    other.busy_timeout(PATIENCE).unwrap();
    other.execute_batch("ALTER TABLE app_events RENAME TO away").unwrap();
    // The task that keeps the file small does not find the table either, and that ends no other task.
    line_with(&mut service.log, "old events were not deleted");
    other.execute_batch("ALTER TABLE away RENAME TO app_events").unwrap();
    assert!(service.get("/ready", "").starts_with("HTTP/1.1 200"));

    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let ended = service.total("outcome");
    eventually("rows that wait", || service.total("received") > ended + 100.0);
    service.ask_to_end();
    eventually("the end of readiness", || service.get("/ready", "").starts_with("HTTP/1.1 503"));
    other.execute_batch("COMMIT").unwrap();
    let (status, said) = service.wait();
    assert_eq!(status, Some(0), "{said}");
    let written = ["written", "ignored", "superseded"].map(|kind| count(&said, kind));
    assert_eq!(count(&said, "accepted"), written.iter().sum::<f64>(), "{said}");
}

#[test]
fn a_prometheus_that_watches_gets_the_last_values() {
    let mut service = Service::start(&[("ROWS_PER_SECOND", "4000")]);
    // A header that Prometheus sends and other clients do not.
    let scrape = |service: &Service| service.try_get("/metrics", "X-Prometheus-Scrape-Timeout-Seconds: 5\r\n");
    scrape(&service).unwrap();
    service.ask_to_end();
    let mut printed = BufReader::new(service.child.stdout.take().unwrap());
    let balance = line_with(&mut printed, "accepted");
    let page = scrape(&service).unwrap();
    assert_eq!(metric(&page, "batchsql_records_outcome_total", &[]), count(&balance, "accepted"));
    // Until it ends: a scrape may come between the balance and the wait for scrapes, and then it does not count.
    while service.child.try_wait().unwrap().is_none() {
        let _ = scrape(&service);
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, said) = service.wait();
    assert_eq!(status, Some(0), "{said}");
    assert!(!said.contains("Prometheus may lack the last values"), "{said}");
}

#[test]
fn the_pace_is_the_one_that_was_asked_for() {
    let service = Service::start(&[("ROWS_PER_SECOND", "200")]);
    eventually("the first row", || service.total("received") > 0.0);
    let (begin, before) = (Instant::now(), service.total("received"));
    eventually("rows of two seconds", || service.total("received") >= before + 400.0);
    // Received rows are counted when a batch is sealed, so some of them are older; a busy machine is slower, never
    // faster.
    assert!(begin.elapsed() > Duration::from_millis(1_300), "400 rows took {:?}", begin.elapsed());
    service.end();
}

#[test]
fn a_token_and_tls_from_files_protect_it_and_the_health_check_knows_how_to_ask() {
    let folder = secrets();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let token = std::fs::read_to_string(file("metrics_token")).unwrap();

    let service = Service::start(&[("METRICS_TOKEN_FILE", &file("metrics_token"))]);
    assert!(service.get("/metrics", "").starts_with("HTTP/1.1 401"));
    let answer = service.get("/metrics", &format!("Authorization: Bearer {token}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("batchsql_build_info"), "{answer}");
    let (_, said) = service.end();
    assert!(!said.contains(&token), "{said}");

    let (certificate, key, authority) = (file("app.pem"), file("app.key"), file("ca.pem"));
    let tls: [(&str, &str); 3] =
        [("METRICS_TLS_CERT_FILE", &certificate), ("METRICS_TLS_KEY_FILE", &key), ("METRICS_TLS_CA_FILE", &authority)];
    let service = Service::start(&tls);
    let check = service.health_check(&tls);
    assert!(check.status.success(), "{check:?}");
    // Without TLS it gets no answer, and with the certificate of another authority it does not ask.
    assert_eq!(service.health_check(&[]).status.code(), Some(2));
    let other = secrets();
    let wrong = other.path().join("ca.pem").display().to_string();
    assert_eq!(service.health_check(&[tls[0], tls[1], (tls[2].0, &wrong)]).status.code(), Some(2));
    assert_eq!(service.end().0, Some(0));
}

#[test]
fn a_health_check_of_nobody_fails() {
    let output = command(&[("PROMETHEUS_PORT", "1")]).arg("--health-check").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("127.0.0.1:1"), "{output:?}");
}

#[test]
#[cfg(feature = "postgres")]
fn a_database_that_is_down_ends_it_with_a_word_to_its_operator() {
    let output = command(&[("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/db")]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("127.0.0.1") && !said.contains("ready: ") && !said.contains("hunter2"), "{said}");
}

#[test]
fn mistakes_are_told_before_anything_starts() {
    let check = |settings: &[(&str, &str)], part: &str| {
        let output = command(settings).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said:?} does not contain {part:?}");
        assert!(!said.contains("hunter2"), "{said}");
    };
    check(&[("ROWS_PER_SECOND", "many")], "not a number of rows");
    check(&[("ROWS_PER_SECOND", "-1")], "between 0 and 1000000");
    check(&[("PROMETHEUS_PORT", "70000")], "a port from 0 to 65535");
    check(&[("METRICS_BIND", "localhost")], "no IP address");
    check(&[("METRICS_TOKEN_FILE", "/no/such/token")], "METRICS_TOKEN_FILE: cannot read /no/such/token");
    check(&[("METRICS_TLS_CERT_FILE", "/app.pem")], "belong together");
    check(&[("DATABASE_URL", "sqlite::memory:"), ("DATABASE_URL_FILE", "/url")], "not both");
    check(&[("DATABASE_URL", "oracle://u:hunter2@h/db")], "no driver for the scheme");
}
