//! Starts the program with a configuration in a folder of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// Nothing here takes longer, unless something is broken.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A folder with a configuration and, usually, a SQLite file.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Opens `a.db`, and runs SQL.
    pub(crate) fn sql(&self, sql: &str) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.path("a.db")).unwrap();
        db.busy_timeout(LONG).unwrap();
        db.execute_batch(sql).unwrap();
        db
    }

    /// The section of the database for `a.db`.
    pub(crate) fn database(&self) -> String {
        format!("[database]\ndsn = \"sqlite:{}\"\n", self.path("a.db").display())
    }

    /// A number that a query returns.
    pub(crate) fn number(&self, query: &str) -> i64 {
        self.sql("").query_row(query, [], |row| row.get(0)).unwrap()
    }

    /// The program with these arguments, in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_batchsql"));
        command.args(arguments).current_dir(self.folder()).env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran(self.command(arguments).output().unwrap())
    }

    /// Starts `run`, and waits until it is ready.
    pub(crate) fn start(&self, config: &str) -> Running {
        self.write("b.toml", config);
        Running::start(self.command(&["run", "b.toml"]))
    }
}

/// A program that has ended.
pub(crate) struct Ran(pub(crate) Output);

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    /// Everything that it has said, for messages of tests.
    pub(crate) fn all(&self) -> String {
        format!("exit {}\n{}{}", self.code(), self.out(), self.err())
    }
}

/// A program that runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Running {
    /// Starts `run`, and waits until it is ready.
    pub(crate) fn start(command: Command) -> Self {
        let mut running = Self::spawn(command);
        running.wait_for(" ready");
        running
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines, said: Vec::new() }
    }

    /// Waits for a line of the log that has this text.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(LONG) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("it did not say {text:?}:\n{}", self.said.join("\n")),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait().unwrap();
                    panic!("it ended ({status}) before it said {text:?}:\n{}", self.said.join("\n"));
                }
            }
        }
    }

    /// A line of the log that has this text, also one from before.
    pub(crate) fn has_said(&mut self, text: &str) -> String {
        let said = self.said.iter().find(|line| line.contains(text)).cloned();
        said.unwrap_or_else(|| self.wait_for(text))
    }

    /// The address of the HTTP server.
    pub(crate) fn address(&self) -> SocketAddr {
        let line = self.said.iter().find(|line| line.contains("listening on http"));
        let line = line.unwrap_or_else(|| panic!("no server:\n{}", self.said.join("\n")));
        let address = line.split("listening on ").nth(1).unwrap().split("://").nth(1).unwrap();
        address.split_whitespace().next().unwrap().parse().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stdin(&mut self) -> &mut std::process::ChildStdin {
        self.child.stdin.as_mut().expect("the command has a pipe")
    }

    pub(crate) fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Memory that the process has had at most, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id()).unwrap()
    }

    /// Sends SIGTERM, and returns the exit code and the log.
    pub(crate) fn stop(self) -> (i32, String) {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        (status.code().unwrap_or(-1), self.said.join("\n"))
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Memory that a process has had at most, in bytes; none if it has ended.
pub(crate) fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

/// Waits for a condition; `state` is shown if it does not come.
pub(crate) fn until(mut is: impl FnMut() -> bool, state: impl Fn() -> String) {
    let begin = std::time::Instant::now();
    while !is() {
        assert!(begin.elapsed() < LONG, "it did not come:\n{}", state());
        std::thread::sleep(Duration::from_millis(10));
    }
}
