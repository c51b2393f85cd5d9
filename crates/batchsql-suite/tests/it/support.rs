//! Owns how tests run the program and read its output and files.
//! Must not know the expectations of tests.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

use batchsql::sqlite::rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

/// Every case, in the order they run.
pub(crate) const CASES: [&str; 10] = [
    "high_throughput",
    "concurrent_workers",
    "large_batch",
    "memory_pressure",
    "long_duration",
    "duplicate_key_upsert",
    "mixed_tables",
    "real_dataset",
    "concurrent_upserts",
    "schema_change",
];

/// Every variable that the program reads.
pub(crate) const VARIABLES: [&str; 13] = [
    "TEST_DURATION",
    "CONCURRENT_WORKERS",
    "RECORDS_PER_WORKER",
    "BATCH_SIZE",
    "BUFFER_SIZE",
    "FLUSH_INTERVAL",
    "PROMETHEUS_PORT",
    "METRICS_BIND",
    "LINGER",
    "SQLITE_DSN",
    "POSTGRES_DSN",
    "MYSQL_DSN",
    "REDIS_DSN",
];

/// The fewest rows with which every case is meaningful.
pub(crate) const SMALL: [&str; 4] = ["--workers", "2", "--records-per-worker", "500"];

/// Longer than any run of these tests takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Interval between two checks of a condition.
const LOOK: Duration = Duration::from_millis(10);

/// A run before its start: its own folder, an environment without the suite's variables.
pub(crate) struct Suite {
    command: Command,
    scratch: TempDir,
}

impl Suite {
    /// A run that serves its metrics on a free port.
    pub(crate) fn new(args: &[&str]) -> Self {
        Self::with_default_port(args).args(&["--metrics-port", "0"])
    }

    /// A run that serves its metrics on the port of `PROMETHEUS_PORT` or the default.
    pub(crate) fn with_default_port(args: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let temporary = scratch.path().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql-suite"));
        for name in VARIABLES {
            command.env_remove(name);
        }
        command.env_remove("RUST_LOG").env("TMPDIR", temporary).current_dir(scratch.path());
        Self { command, scratch }.args(args).args(&["--report-dir", "report"])
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The folder in which the program runs.
    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    pub(crate) fn start(mut self) -> Running {
        let stdio = self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = stdio.spawn().unwrap();
        let (announce, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let stderr = spawn(move || {
            let mut said = String::new();
            for line in stderr.lines() {
                let line = line.unwrap();
                // Most tests drop the receiver.
                let _ = announce.send(line.clone());
                said += &line;
                said.push('\n');
            }
            said
        });
        let mut stdout = child.stdout.take().unwrap();
        let stdout = spawn(move || {
            let mut said = String::new();
            stdout.read_to_string(&mut said).unwrap();
            said
        });
        Running { child, output: Some((stdout, stderr)), lines, scratch: Some(self.scratch) }
    }

    /// Runs to the end with a closed stderr; returns the exit code.
    pub(crate) fn run_unheard(mut self) -> Option<i32> {
        let stdio = self.command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = stdio.spawn().unwrap();
        drop(child.stderr.take());
        eventually("the end of the program", || child.try_wait().unwrap()).code()
    }

    /// Runs to the end.
    pub(crate) fn run(self) -> Finished {
        self.start().wait()
    }
}

/// A running program. Dropping it ends it.
pub(crate) struct Running {
    child: Child,
    output: Option<(JoinHandle<String>, JoinHandle<String>)>,
    lines: Receiver<String>,
    scratch: Option<TempDir>,
}

impl Running {
    /// The address of the metrics, after the program has printed it.
    pub(crate) fn address(&self) -> SocketAddr {
        let url = self.hear("live metrics: http://");
        url.strip_suffix("/metrics").unwrap().parse().unwrap()
    }

    /// The rest of the next line of stderr with this prefix.
    pub(crate) fn hear(&self, begin: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{begin:?} is on stderr"));
            if let Some(rest) = line.strip_prefix(begin) {
                return rest.to_owned();
            }
        }
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends SIGINT, as Ctrl-C does.
    #[cfg(unix)]
    pub(crate) fn interrupt(&self) {
        self.signal("-INT");
    }

    /// Sends SIGTERM, as supervisors do.
    #[cfg(unix)]
    pub(crate) fn terminate(&self) {
        self.signal("-TERM");
    }

    #[cfg(unix)]
    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "the program has already ended");
    }

    pub(crate) fn wait(mut self) -> Finished {
        eventually("the end of the program", || self.child.try_wait().unwrap());
        let code = self.child.wait().unwrap().code();
        let (stdout, stderr) = self.output.take().unwrap();
        let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
        Finished { code, stdout, stderr, scratch: self.scratch.take().unwrap() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A finished run.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    scratch: TempDir,
}

impl Finished {
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The folder in which the program ran.
    pub(crate) fn dir(&self) -> &Path {
        self.scratch.path()
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir().join("report").join(name)).unwrap()
    }

    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.file("report.json")).unwrap()
    }

    pub(crate) fn page(&self) -> String {
        self.file("report.html")
    }

    pub(crate) fn junit(&self) -> String {
        self.file("junit.xml")
    }

    /// The output and all files of the report.
    pub(crate) fn everything(&self) -> String {
        let files = ["report.json", "report.html", "junit.xml"].map(|name| self.file(name));
        [self.stdout.clone(), self.stderr.clone()].into_iter().chain(files).collect()
    }
}

/// The results of a report by case.
pub(crate) fn results(report: &Value) -> Vec<(&str, &Value)> {
    let results = report["results"].as_array().unwrap();
    results.iter().map(|result| (result["test_name"].as_str().unwrap(), result)).collect()
}

/// The messages of a case.
pub(crate) fn errors(result: &Value) -> Vec<&str> {
    result["errors"].as_array().unwrap().iter().map(|error| error.as_str().unwrap()).collect()
}

/// The line of a case in the table on stdout.
pub(crate) fn line<'a>(stdout: &'a str, case: &str) -> &'a str {
    let mut lines = stdout.lines().filter(|line| line.split_whitespace().any(|word| word == case));
    let line = lines.next().unwrap_or_else(|| panic!("{case} is not in the table:\n{stdout}"));
    assert_eq!(lines.next(), None, "{case} is in the table twice");
    line
}

/// The element of a case in a JUnit file.
pub(crate) fn test_case<'a>(junit: &'a str, case: &str) -> &'a str {
    let (_, rest) =
        junit.split_once(&format!("<testcase name=\"{case}\"")).unwrap_or_else(|| panic!("{case}: {junit}"));
    rest.split_once("</testcase>").unwrap().0
}

/// Waits until `look` returns a value.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        sleep(LOOK);
    }
}

/// A database file for the program and a test, the test's connection to it, and the
/// DSN for the program.
pub(crate) fn database(dir: &Path) -> (PathBuf, Connection, String) {
    let path = dir.join("own-data.db");
    let conn = Connection::open(&path).unwrap();
    conn.busy_timeout(PATIENCE).unwrap();
    conn.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE users (name TEXT); INSERT INTO users VALUES ('Ada');")
        .unwrap();
    let dsn = format!("sqlite://{}", path.display());
    (path, conn, dsn)
}

/// Everything that the database has, as `type name`.
pub(crate) fn objects(conn: &Connection) -> Vec<String> {
    let mut statement = conn.prepare("SELECT type || ' ' || name FROM sqlite_master ORDER BY 1").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
}

/// A response over HTTP.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, path, "").unwrap()
}

/// Sends the same request as Prometheus.
///
/// # Errors
/// The endpoint does not respond.
pub(crate) fn scrape(address: SocketAddr) -> io::Result<String> {
    ask(address, "/metrics", "X-Prometheus-Scrape-Timeout-Seconds: 5\r\n").map(|answer| answer.body)
}

/// A minimal HTTP/1.1 client.
fn ask(address: SocketAddr, path: &str, headers: &str) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}Connection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a response has a status");
    Ok(Answer { status, head: head.to_owned(), body: body.to_owned() })
}
