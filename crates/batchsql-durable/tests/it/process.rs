//! Owns child processes: this test binary, started again to run one of its ignored tests as a program.
//! Must not know what the programs do.
//!
//! A program is a test with `#[ignore]` that begins with `let Some(..) = process::arguments() else { return }`:
//! `cargo test` and `cargo nextest` leave it alone, and no other binary has to be built or found.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const ARGUMENTS: &str = "BATCHSQL_TEST_PROGRAM";
/// The prefix of the lines of a program, which the output of the test harness does not have.
const MARK: &str = "#";
const PATIENCE: Duration = Duration::from_secs(60);

/// The arguments, when this process was started as a program.
pub(crate) fn arguments() -> Option<Vec<String>> {
    let arguments = std::env::var(ARGUMENTS).ok()?;
    // The harness may have started a line.
    println!();
    Some(arguments.split('\n').map(str::to_owned).collect())
}

/// Prints a line for the parent. If the parent is gone, the program ends.
pub(crate) fn tell(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
}

/// How to start `program`, a test by its path such as `kill::writer`.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", program, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(ARGUMENTS, arguments.join("\n"));
    command
}

/// A program that runs. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (send, lines) = channel();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = String::new();
            // A line without an end was cut off by a kill and does not count.
            while stdout.read_line(&mut line).is_ok() && line.ends_with('\n') {
                if let Some(told) = line.strip_prefix(MARK) {
                    let _ = send.send(told.trim_end().to_owned());
                }
                line.clear();
            }
        });
        Ok(Self { stdin: child.stdin.take(), child, lines })
    }

    /// The next line.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program says more")
    }

    /// Lets a waiting program continue.
    pub(crate) fn go(&mut self) {
        drop(self.stdin.take());
    }

    /// Lets the program run to its end, which must be successful; returns its remaining lines.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.go();
        let lines = self.rest();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "the program ended with {status}");
        lines
    }

    /// Kills the program with SIGKILL, before it ends by itself; returns its remaining lines.
    #[track_caller]
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "the program ended by itself with {status}");
        self.rest()
    }

    /// Lines until the program closes its output.
    #[track_caller]
    fn rest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(line),
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return lines,
                Err(error) => panic!("the program says nothing and does not end: {error}"),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
