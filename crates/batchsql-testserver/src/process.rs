//! Child processes of a test: its own test binary, started again to run one of its ignored tests as a program.
//!
//! A program is a test with `#[ignore]` that begins with `let Some(..) = process::arguments() else { return }`:
//! `cargo test` and `cargo nextest` leave it alone, and no other binary has to be built or found.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const ARGUMENTS: &str = "BATCHSQL_TEST_PROGRAM";
/// The prefix of the lines of a program, which the output of the test harness does not have.
const MARK: &str = "#";
const PATIENCE: Duration = Duration::from_secs(60);

/// The arguments, when this process was started as a program.
pub fn arguments() -> Option<Vec<String>> {
    let arguments = std::env::var(ARGUMENTS).ok()?;
    // The harness may have started a line.
    println!();
    Some(arguments.split('\n').map(str::to_owned).collect())
}

/// Prints a line for the parent. If the parent is gone, the program ends.
pub fn tell(line: impl std::fmt::Display) {
    println!("{MARK}{line}");
}

/// Prints a line, through the parent if this is a program.
pub fn say(line: &str) {
    if std::env::var_os(ARGUMENTS).is_some() { tell(line) } else { println!("{line}") }
}

/// Waits until the parent calls [`go`](Process::go), or is gone.
pub fn wait_for_go() {
    let _ = std::io::stdin().read(&mut [0]);
}

/// Prints why a test, or a part of it, cannot run here; shown even if the test passes.
pub fn skip(reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// How to start `program`, a test by its path such as `kill::writer`.
///
/// # Panics
/// The path of this process is not known.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    command_through(&[], &std::env::current_exe().expect("the path of this process is known"), program, arguments)
}

/// The same through other commands, such as `sh -c`, and from another file.
pub fn command_through(wrapper: &[&str], file: &Path, program: &str, arguments: &[&str]) -> Command {
    let mut command = match wrapper {
        [] => Command::new(file),
        [first, rest @ ..] => {
            let mut command = Command::new(first);
            command.args(rest).arg(file);
            command
        }
    };
    command.args(["--exact", program, "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(ARGUMENTS, arguments.join("\n"));
    command
}

/// A program that runs. It is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (send, lines) = channel();
        let mut stdout = BufReader::new(child.stdout.take().expect("its output is piped"));
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
    ///
    /// # Panics
    /// It says nothing for a minute.
    #[track_caller]
    pub fn line(&mut self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program says more")
    }

    /// The number of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets a waiting program continue.
    pub fn go(&mut self) {
        drop(self.stdin.take());
    }

    /// Lets the program run to its end, which must be successful; returns its remaining lines.
    ///
    /// # Panics
    /// It ends with an error, or says nothing for a minute.
    #[track_caller]
    pub fn finish(mut self) -> Vec<String> {
        self.go();
        let lines = self.rest();
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "the program ended with {status}");
        lines
    }

    /// Lets the program run to its end and prints its lines, the last of which must be "done".
    ///
    /// # Panics
    /// It ends otherwise.
    #[track_caller]
    pub fn finish_aloud(self) {
        let lines = self.finish();
        lines.iter().for_each(|line| println!("{line}"));
        assert_eq!(lines.last().map(String::as_str), Some("done"), "the program ran to its end");
    }

    /// Kills the program with SIGKILL, before it ends by itself; returns its remaining lines.
    ///
    /// # Panics
    /// It has ended by itself.
    #[track_caller]
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("a child can be killed");
        let status = self.child.wait().expect("a child can be waited for");
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
