//! A stack of local programs that keeps running when the terminal closes: this program again, in its own session.
//! Must not know what it starts.

use std::{
    env, fs,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;

use super::{
    compose::Reach,
    links,
    options::Options,
    state::{self, State, Way},
    way::{self, Choice},
};
use crate::{cargo, interrupt, say, servers::docker};

const POLL: Duration = Duration::from_millis(50);

/// The log of the background process.
pub(super) fn log() -> PathBuf {
    state::folder().join("log")
}

/// The log and the program of one start, because two may start at the same time.
fn own(name: &str) -> PathBuf {
    state::folder().join(format!("{name}-{}", std::process::id()))
}

/// In the process that holds the lock: its log becomes the log of the stack.
pub(super) fn keep_log(own: &Path) -> anyhow::Result<()> {
    fs::rename(own, log()).with_context(|| format!("cannot rename {}", own.display()))
}

/// Containers run without this program; local programs need a background process.
pub(super) fn is_needed(options: &Options) -> anyhow::Result<Option<Choice>> {
    if state::running()?.is_some() {
        return Ok(None);
    }
    let choice = way::choose(options.forced()?, docker::engine, Reach::find)?;
    Ok(Some(choice).filter(|choice| choice.way == Way::Local))
}

/// In the started process: detaches it from the terminal.
pub(super) fn leave_the_terminal() -> anyhow::Result<()> {
    rustix::process::setsid().context("cannot leave the terminal")?;
    Ok(())
}

/// Starts it, shows its output until it is ready, and returns.
pub(super) fn start(options: &Options, choice: &Choice) -> anyhow::Result<ExitCode> {
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    fs::create_dir_all(state::folder()).context("cannot create the folder for the state of the monitor")?;
    let (said, copy) = (own("log"), own("xtask"));
    let outcome = start_copy(options, choice, &said, &copy)
        .and_then(|(mut child, log)| follow(&mut child, log).inspect_err(|_| ask_to_end(&child)));
    // The running process does not need the file; it has renamed the log if it holds the lock.
    let _ = fs::remove_file(copy);
    let _ = fs::remove_file(said);
    match outcome? {
        Outcome::Ready(state) => {
            say!("\n{}\n{}", links::tell(&state), links::next(&state));
            say!("it runs in the background; its log: {}", log().display());
            Ok(ExitCode::SUCCESS)
        }
        // The process has printed the reason.
        Outcome::Ended(status) => Ok(cargo::exit_code(status)),
    }
}

fn start_copy(options: &Options, choice: &Choice, said: &Path, copy: &Path) -> anyhow::Result<(Child, fs::File)> {
    let log = fs::File::create(said).with_context(|| format!("cannot write {}", said.display()))?;
    // Opened before the process renames it.
    let read = fs::File::open(said).context("cannot read the log of the monitor")?;
    // A copy, because cargo replaces the program when it is rebuilt.
    let this = env::current_exe().context("cannot find this program")?;
    fs::copy(&this, copy).with_context(|| format!("cannot copy {}", this.display()))?;
    let mut again = Command::new(copy);
    again
        .args(options.arguments())
        .arg("--local")
        .arg("--in-background")
        .arg(said)
        .arg(format!("--because={}", choice.why));
    again.stdin(Stdio::null()).stdout(log.try_clone().context("cannot write the log")?).stderr(log);
    Ok((again.spawn().context("cannot start this program again")?, read))
}

enum Outcome {
    Ready(State),
    Ended(ExitStatus),
}

/// Shows the log until the stack is ready, or the process has ended.
fn follow(child: &mut Child, mut log: fs::File) -> anyhow::Result<Outcome> {
    let mut asked = false;
    loop {
        let ended = child.try_wait().context("cannot wait for the process in the background")?.map(Outcome::Ended);
        let its = |state: &State| state.ready && state.pid == Some(child.id());
        let outcome = match ended {
            Some(ended) => Some(ended),
            None => state::running()?.filter(its).map(Outcome::Ready),
        };
        let mut text = Vec::new();
        log.read_to_end(&mut text).context("cannot read the log of the monitor")?;
        say::bytes(&text);
        if let Some(outcome) = outcome {
            return Ok(outcome);
        }
        if interrupt::caught() && !asked {
            asked = true;
            ask_to_end(child);
        }
        thread::sleep(POLL);
    }
}

fn ask_to_end(child: &Child) {
    // The process may have ended just now.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::TERM);
}

/// Whether the last one ended neither by `down` nor by a signal.
pub(super) fn has_failed() -> bool {
    tail(&log(), 1).is_ok_and(|(last, _)| !last.starts_with("stopped; "))
}

/// The last lines of a file.
pub(super) fn tail(path: &Path, lines: usize) -> io::Result<(String, u64)> {
    const LONGEST: u64 = 1 << 20;

    let mut file = fs::File::open(path)?;
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<_> = text.lines().collect();
    Ok((all[all.len().saturating_sub(lines)..].join("\n"), length))
}
