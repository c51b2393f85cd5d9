//! Ctrl-C and other termination signals while this program must clean up before it ends: running child processes get
//! the signal, and the verb continues to its end.
//! Must not know what is cleaned up.

use std::{
    io,
    process::{Child, Command, ExitCode, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Limit for child processes of a program to end after a signal: a server of a test stops, and its files are
/// removed.
const AFTERWARDS: Duration = Duration::from_secs(60);

/// Shared by the signal thread and the verb.
static WATCH: Mutex<Watch> = Mutex::new(Watch { watching: false, caught: None, children: Vec::new() });

#[derive(Debug)]
struct Watch {
    watching: bool,
    caught: Option<i32>,
    /// Each is the leader of a process group, so that a terminal does not deliver a signal twice.
    children: Vec<u32>,
}

/// Catches SIGINT, SIGTERM and SIGHUP, so that they do not end this program. `tell` is called with each of them. Later
/// calls have no effect.
pub(crate) fn watch(tell: impl Fn(i32) + Send + 'static) -> io::Result<()> {
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM},
        iterator::Signals,
    };

    let mut watch = shared();
    if watch.watching {
        return Ok(());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    watch.watching = true;
    drop(watch);
    thread::spawn(move || {
        for signal in signals.forever() {
            let mut watch = shared();
            watch.caught.get_or_insert(signal);
            watch.children.iter().for_each(|child| forward(signal, *child));
            drop(watch);
            tell(signal);
        }
    });
    Ok(())
}

/// The process id of a program with whose end this one ends, if it is the parent: `.ci/run` sets it to its own. Without it
/// a killed `.ci/run` leaves the tests and their servers running. It is not done for every parent, because a shell
/// that starts this program in the background may end before it.
const END_WITH: &str = "BATCHSQL_END_WITH";

/// Gets SIGTERM when the parent ends, in whatever way, if the parent asks for it (Linux).
pub(crate) fn end_with_parent() {
    let parent = std::env::var(END_WITH).ok().and_then(|parent| parent.parse().ok());
    if parent.is_some_and(|parent: u32| parent == std::os::unix::process::parent_id()) {
        #[cfg(target_os = "linux")]
        {
            let signal = Some(rustix::process::Signal::TERM);
            if let Err(error) = rustix::process::set_parent_process_death_signal(signal) {
                eprintln!("this program may outlive its parent: {error}");
            }
            // The parent may have ended before.
            if parent != Some(std::os::unix::process::parent_id()) {
                let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
            }
        }
    }
}

/// An error if a termination signal was received.
pub(crate) fn check() -> anyhow::Result<()> {
    anyhow::ensure!(!caught(), "interrupted");
    Ok(())
}

/// Forgets the signal, if it did not interrupt the task of this program.
pub(crate) fn forget() {
    shared().caught = None;
}

/// Forgets a Ctrl-C that came after the child program had done its work and ended successfully.
pub(crate) fn forget_ctrl_c() {
    let mut watch = shared();
    watch.caught = watch.caught.filter(|signal| *signal != signal_hook::consts::SIGINT);
}

/// Whether a termination signal was received.
pub(crate) fn caught() -> bool {
    shared().caught.is_some()
}

/// 128 plus the number of the signal, as in shells, if there was one.
pub(crate) fn exit_code() -> Option<ExitCode> {
    let signal = shared().caught?;
    Some(u8::try_from(128 + signal).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Runs a program to its end. While signals are watched, it gets each of them, and no input: a terminal stops programs
/// that read from it outside its foreground group. After a signal this also waits for the program's children.
pub(crate) fn status(command: &mut Command) -> io::Result<ExitStatus> {
    status_of(command, |_| ())
}

/// The same; `started` gets the running program, for example to read its output.
pub(crate) fn status_of(command: &mut Command, started: impl FnOnce(&mut Child)) -> io::Result<ExitStatus> {
    use std::{os::unix::process::CommandExt, process::Stdio};

    if !shared().watching {
        let mut child = command.spawn()?;
        started(&mut child);
        return child.wait();
    }
    let mut child = command.process_group(0).stdin(Stdio::null()).spawn()?;
    started(&mut child);
    let mut watch = shared();
    watch.children.push(child.id());
    // A signal that arrived before the child was started.
    if let Some(signal) = watch.caught {
        forward(signal, child.id());
    }
    drop(watch);
    wait_without_reaping(child.id());
    // Before its process id can be reused.
    shared().children.retain(|other| *other != child.id());
    let status = child.wait();
    if caught() && !is_empty_within(child.id(), AFTERWARDS) {
        eprintln!("a program that {} started still runs", command.get_program().display());
    }
    status
}

/// Whether the last process of a group ends within a limit. Its leader has been waited for; the system does not reuse
/// the group id before the last process has ended.
fn is_empty_within(group: u32, limit: Duration) -> bool {
    use rustix::process::test_kill_process_group;

    let start = Instant::now();
    while process_id(group).is_some_and(|group| test_kill_process_group(group).is_ok()) {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

fn wait_without_reaping(pid: u32) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};

    while let Some(pid) = process_id(pid) {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

fn forward(signal: i32, group: u32) {
    let signal = rustix::process::Signal::from_named_raw(signal);
    if let (Some(signal), Some(group)) = (signal, process_id(group)) {
        // The group may have ended just now.
        let _ = rustix::process::kill_process_group(group, signal);
    }
}

fn process_id(pid: u32) -> Option<rustix::process::Pid> {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
}

fn shared() -> MutexGuard<'static, Watch> {
    WATCH.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::CommandExt, process::Stdio};

    use super::*;

    #[test]
    fn waiting_for_a_group_has_an_end() {
        // The leader leaves a process behind that lives until its input ends.
        let mut leader = Command::new("sh");
        leader.args(["-c", "exec 3<&0; cat <&3 &"]).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
        let mut leader = leader.spawn().unwrap();
        let input = leader.stdin.take();
        leader.wait().unwrap();
        assert!(!is_empty_within(leader.id(), Duration::from_millis(50)));
        drop(input);
        assert!(is_empty_within(leader.id(), Duration::from_secs(60)));
    }
}
