//! Owns processes that are stopped where they are (`SIGSTOP`), and go on later (`SIGCONT`).
//! Must not know what they do.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the threads of a process may take to stop.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// A process that stands still. It goes on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    process: u32,
}

impl Frozen {
    /// Stops a process, and waits until all of its threads stand still; `None` if it has ended.
    ///
    /// A signal stops the threads one after the other, each when the system gets to it. One that still runs could read the reply
    /// of its statement, and send the next one.
    ///
    /// # Panics
    /// This user may not stop it, or a thread does not stop within a minute.
    pub fn stop(process: u32) -> Option<Self> {
        let begin = Instant::now();
        let is_sent = signal(process, "-STOP");
        let frozen = Self { process };
        loop {
            let states = states(process)?;
            // Of a process that has ended, until its parent has heard of it.
            if states.iter().all(|state| matches!(state, 'Z' | 'X')) {
                return None;
            }
            assert!(is_sent, "this user may not stop the process {process}");
            if states.iter().all(|state| matches!(state, 'T' | 't')) {
                return Some(frozen);
            }
            assert!(begin.elapsed() < PATIENCE, "the process {process} does not stop: {states:?}");
            std::thread::sleep(LOOK);
        }
    }

    /// Whether the process was told to end (`SIGTERM`), which it learns when it goes on. Known on Linux only.
    pub fn is_told_to_end(&self) -> bool {
        const TERM: u64 = 1 << 14;
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap_or_default();
        let pending = status.lines().filter_map(|line| line.strip_prefix("ShdPnd:").or(line.strip_prefix("SigPnd:")));
        pending.filter_map(|bits| u64::from_str_radix(bits.trim(), 16).ok()).any(|bits| bits & TERM != 0)
    }

    /// Lets it go on.
    pub fn resume(self) {
        drop(self);
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.process, "-CONT");
    }
}

/// Whether it was sent.
fn signal(process: u32, signal: &str) -> bool {
    let mut kill = Command::new("kill");
    let sent = kill.args([signal, &process.to_string()]).stderr(Stdio::null()).status();
    sent.expect("there is a program kill").success()
}

/// The states of the threads of a process, as `ps` shows them; `None` if there is no such process.
fn states(process: u32) -> Option<Vec<char>> {
    if Path::new("/proc/self/task").exists() {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let stats = threads.filter_map(|thread| std::fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        // The state comes behind the name, which ends with the last parenthesis.
        let state = |stat: String| stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        let states: Vec<char> = stats.filter_map(state).collect();
        return (!states.is_empty()).then_some(states);
    }
    let shown = Command::new("ps").args(["-o", "state=", "-p", &process.to_string()]).output();
    let shown = String::from_utf8(shown.expect("there is a program ps").stdout).unwrap_or_default();
    shown.trim().chars().next().map(|state| vec![state])
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};

    use super::*;

    #[test]
    fn a_process_stands_still_until_it_goes_on() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut echo = |text: &str| {
            writeln!(input, "{text}").unwrap();
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line.trim(), text);
        };
        echo("before");
        let frozen = Frozen::stop(child.id()).expect("it runs");
        assert_eq!(states(child.id()), Some(vec!['T']));
        assert!(!frozen.is_told_to_end());
        frozen.resume();
        echo("after");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Frozen::stop(child.id()).is_none(), "it has ended");
    }
}
