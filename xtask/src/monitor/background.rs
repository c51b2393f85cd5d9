//! A stack of this machine's programs that stays when the terminal goes: this program again, in a session of its own.
//! Must not know what it starts.

use std::{
    env, fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context;

use super::{
    compose::Reach,
    options::Options,
    state::{self, Way},
    way,
};
use crate::{interrupt, servers::docker};

const POLL: Duration = Duration::from_millis(50);

/// What the process in the background says.
pub(super) fn log() -> PathBuf {
    state::folder().join("log")
}

fn copy() -> PathBuf {
    state::folder().join("xtask")
}

/// Containers stay by themselves; programs need somebody who stays with them.
pub(super) fn is_needed(options: &Options) -> anyhow::Result<bool> {
    let running = state::running();
    Ok(running.is_none() && way::choose(options.forced()?, docker::engine, Reach::find)?.way == Way::Local)
}

/// In the process that was started: no terminal reaches it any more.
pub(super) fn leave_the_terminal() -> anyhow::Result<()> {
    rustix::process::setsid().context("cannot leave the terminal")?;
    Ok(())
}

/// Starts it, shows what it says until it is ready, and leaves it.
pub(super) fn start(options: &Options) -> anyhow::Result<ExitCode> {
    interrupt::watch(|_| ()).context("cannot watch for Ctrl-C")?;
    fs::create_dir_all(state::folder()).context("cannot make the folder for the state of the monitor")?;
    let said = fs::File::create(log()).with_context(|| format!("cannot write {}", log().display()))?;
    // Cargo replaces the program when it changes.
    let this = env::current_exe().context("cannot find this program")?;
    let _ = fs::remove_file(copy());
    fs::copy(&this, copy()).with_context(|| format!("cannot copy {}", this.display()))?;
    let mut child = Command::new(copy())
        .args(options.arguments())
        .args(["--in-background", "--local"])
        .stdin(Stdio::null())
        .stdout(said.try_clone().context("cannot write the log")?)
        .stderr(said)
        .spawn()
        .context("cannot start this program again")?;
    let ended = follow(&mut child)?;
    if ended {
        remove_copy();
        // It has said why.
        return Ok(ExitCode::FAILURE);
    }
    println!("it stays in the background; its log: {}", log().display());
    Ok(ExitCode::SUCCESS)
}

/// After it has ended.
pub(super) fn remove_copy() {
    let _ = fs::remove_file(copy());
}

/// Shows the log until the stack is ready; whether it ended instead.
fn follow(child: &mut Child) -> anyhow::Result<bool> {
    let mut log = fs::File::open(log()).context("cannot read the log of the monitor")?;
    let mut asked = false;
    loop {
        let ended = child.try_wait().context("cannot wait for the process in the background")?.is_some();
        let ready = !ended && state::running().is_some_and(|state| state.ready && state.pid == Some(child.id()));
        if ready {
            // What it says last comes after that.
            thread::sleep(POLL);
        }
        let mut text = String::new();
        log.read_to_string(&mut text).context("cannot read the log of the monitor")?;
        print!("{text}");
        io::stdout().flush().context("cannot print")?;
        if ended || ready {
            return Ok(ended);
        }
        if interrupt::caught() && !asked {
            asked = true;
            let pid = rustix::process::Pid::from_child(child);
            // It may have ended in this moment.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        thread::sleep(POLL);
    }
}

/// The last lines of a file.
pub(super) fn tail(path: &std::path::Path, lines: usize) -> io::Result<(String, u64)> {
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
