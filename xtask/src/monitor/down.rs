//! `monitor down`: stops the stack, however it was started, and waits for its end.
//! Must not know how the process that runs it stops it.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use super::{
    compose, links,
    state::{self, Lock, State, Way},
};
use crate::servers::docker;

/// The keepers of the parts have a minute each.
const PATIENCE: Duration = Duration::from_secs(150);
const POLL: Duration = Duration::from_millis(50);

pub(super) fn run(volumes: bool) -> anyhow::Result<ExitCode> {
    let state = state::running()?;
    // The lock has the process id even if the state is missing or cannot be read.
    let process = Lock::holder().or_else(|| state.as_ref().and_then(|state| state.pid));
    match (process, &state) {
        (Some(pid), _) => stop(pid)?,
        (None, Some(_)) => {
            compose::down(volumes)?;
            State::forget();
        }
        (None, None) => {}
    }
    // Volumes may exist without a stack, and after `cargo clean` a stack without its state.
    let by_docker = state.as_ref().is_some_and(|state| state.way == Way::Docker);
    let mut dropped = by_docker && volumes;
    let of_docker = if by_docker { state.as_ref().is_some_and(|state| state.pid.is_some()) && volumes } else { true };
    if of_docker && docker::engine().is_ok() && (volumes || compose::has_containers()?) {
        compose::down(volumes)?;
        dropped = volumes;
    }
    match &state {
        None if process.is_some() => say!("stopped"),
        None => say!("nothing runs"),
        Some(_) if dropped => say!("stopped; the volumes with the history are removed"),
        Some(state) => say!("stopped; {}", links::what_stays(state)),
    }
    if let (true, Some(data)) = (volumes, state.and_then(|state| state.data)) {
        say!("{} stays; remove it if you no longer need it", data.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Signals the process that runs it, and waits until it has cleaned up.
fn stop(pid: u32) -> anyhow::Result<()> {
    use rustix::process::{Pid, Signal, kill_process};

    say!("stopping process {pid}");
    // The lock was held a moment ago, so the process id is current.
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw)
        && let Err(error) = kill_process(pid, Signal::TERM)
        && Lock::is_held()
    {
        anyhow::bail!("cannot stop process {pid:?}: {error}; it may be another user's");
    }
    let start = Instant::now();
    while Lock::is_held() {
        anyhow::ensure!(
            start.elapsed() < PATIENCE,
            "process {pid} has not ended after {} s; see `cargo xtask monitor logs`",
            PATIENCE.as_secs()
        );
        thread::sleep(POLL);
    }
    Ok(())
}
