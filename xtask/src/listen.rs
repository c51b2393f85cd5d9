//! Runs a `cargo test` and reads the standard error of cargo, which is passed on unchanged.
//! Must not know the meaning of the lines.

use std::{
    fs, io,
    io::{IsTerminal, Read, Write},
    path::Path,
    process::{ChildStderr, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{cargo, interrupt, timings::Timings};

/// Limit for the last lines after the end of cargo. A program that outlives it may hold the pipe open.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Runs cargo to its end; times count from `start`.
pub(crate) fn status(command: &mut Command, start: Instant) -> (io::Result<ExitStatus>, Timings) {
    status_to(io::stderr(), command, start)
}

fn status_to(
    to: impl Write + Send + 'static,
    command: &mut Command,
    start: Instant,
) -> (io::Result<ExitStatus>, Timings) {
    if io::stderr().is_terminal() {
        // Cargo would disable colours because of the pipe.
        command.env("CARGO_TERM_COLOR", "always");
    }
    let (send, lines) = mpsc::channel();
    let status = interrupt::status_of(command.stderr(Stdio::piped()), |child| {
        if let Some(stderr) = child.stderr.take() {
            thread::spawn(move || pass_on(stderr, to, &send, start));
        }
    });
    let end = start.elapsed();
    let mut timings = Timings::default();
    let deadline = Instant::now() + LAST_LINES;
    while let Ok((line, at)) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        timings.line(&line, at, |path: &Path| fs::read_to_string(cargo::workspace_root().join(path)).ok());
    }
    timings.end(end);
    (status, timings)
}

/// Passes output on immediately, and sends each line with its time.
fn pass_on(mut from: ChildStderr, mut to: impl Write, lines: &mpsc::Sender<(String, Duration)>, start: Instant) {
    let (mut buffer, mut line) = (vec![0; 8 << 10], Vec::new());
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let at = start.elapsed();
        // The lines are also read if writing fails.
        let _ = to.write_all(&buffer[..length]).and_then(|()| to.flush());
        for byte in &buffer[..length] {
            if *byte == b'\n' {
                let _ = lines.send((String::from_utf8_lossy(&line).into_owned(), at));
                line.clear();
            } else {
                line.push(*byte);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_with_their_times() {
        let script = "echo '   Running tests/a.rs (a-1)' >&2; sleep 0.05; echo '   Doc-tests b' >&2; exit 3";
        let (said, heard) = io::pipe().unwrap();
        let (status, timings) = status_to(heard, Command::new("sh").args(["-c", script]), Instant::now());
        assert_eq!(status.unwrap().code(), Some(3));
        let said = io::read_to_string(said).unwrap();
        assert_eq!(said, "   Running tests/a.rs (a-1)\n   Doc-tests b\n");
        let names: Vec<_> = timings.programs.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a-1", "doctests of b"]);
        assert!(timings.programs[0].1 >= Duration::from_millis(40), "{timings:?}");
    }

    #[test]
    fn who_keeps_the_other_end_is_not_waited_for() {
        // A process that runs as long as the file exists.
        let file = std::env::temp_dir().join(format!("batchsql-listen-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        let script = "while [ -e \"$0\" ]; do sleep 0.05; done >/dev/null &";
        let (status, timings) = status(Command::new("sh").args(["-c", script]).arg(&file), Instant::now());
        fs::remove_file(&file).unwrap();
        assert!(status.unwrap().success() && timings.programs.is_empty());
    }
}
