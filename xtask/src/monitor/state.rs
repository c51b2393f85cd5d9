//! The state of the stack, as a file in `target/monitor`: for the other verbs, and for the suite. A lock tells whether
//! it is current: the system releases it however its holder ends.
//! Must not know how anything is started.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File, TryLockError},
    io::{ErrorKind, Write},
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::compose;
use crate::cargo;

/// The folder with the state of the stack of this checkout.
pub(super) fn folder() -> PathBuf {
    let given = env::var_os("BATCHSQL_MONITOR_STATE").filter(|folder| !folder.is_empty());
    given.map_or_else(|| cargo::workspace_root().join("target/monitor"), PathBuf::from)
}

/// How the stack runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Way {
    Docker,
    Local,
}

/// A stack that runs, or is being started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) way: Way,
    /// The process that stops it at a signal. `None`: it runs in containers without a process.
    pub(crate) pid: Option<u32>,
    /// Whether all components are ready.
    pub(crate) ready: bool,
    /// Whether it keeps running when the terminal closes.
    pub(crate) detached: bool,
    /// `http://127.0.0.1:PORT`.
    pub(crate) prometheus: String,
    /// Its targets page, which older versions have elsewhere.
    pub(crate) targets: String,
    pub(crate) grafana: Option<String>,
    pub(crate) metrics_port: u16,
    pub(crate) app_port: u16,
    /// The addresses on which a suite must listen so that Prometheus reaches it.
    pub(crate) bind: Vec<IpAddr>,
    /// Log files by component. Containers have none.
    pub(crate) logs: BTreeMap<String, PathBuf>,
    /// Where history is kept.
    pub(crate) data: Option<PathBuf>,
}

impl State {
    /// Writes the file atomically.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let (file, new) = (folder().join("state.json"), folder().join("state.json.new"));
        let text = serde_json::to_string_pretty(self).context("cannot serialise the state")?;
        fs::write(&new, text + "\n").and_then(|()| fs::rename(&new, &file)).with_context(|| {
            format!(
                "cannot write {}; if the folder is another user's, set BATCHSQL_MONITOR_STATE to another",
                file.display()
            )
        })
    }

    fn load() -> Option<Self> {
        let text = fs::read_to_string(folder().join("state.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Removes the file.
    pub(super) fn forget() {
        let _ = fs::remove_file(folder().join("state.json"));
    }
}

/// The lock of the process that starts, runs and stops the stack.
///
/// Its file has the process id, so the process can be stopped even if the state file is missing.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// `None` if another process holds it. A process that only checks holds it for a moment.
    pub(super) fn take() -> anyhow::Result<Option<Self>> {
        let start = Instant::now();
        let file = lock_file()?;
        loop {
            match file.try_lock() {
                Ok(()) => {
                    let written = file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id()));
                    written.context("cannot write into the lock of the monitor")?;
                    return Ok(Some(Self { file }));
                }
                Err(TryLockError::WouldBlock) if start.elapsed() < Duration::from_millis(300) => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error).context("cannot lock the state of the monitor"),
            }
        }
    }

    /// Whether a process holds it.
    pub(super) fn is_held() -> bool {
        let Ok(file) = File::open(path()) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    /// The process that holds it.
    pub(super) fn holder() -> Option<u32> {
        let pid = fs::read_to_string(path()).ok()?.trim().parse().ok()?;
        Self::is_held().then_some(pid)
    }

    /// Whether its file still exists: `cargo clean` may remove the folder while this process runs, and then another
    /// process may hold another lock.
    pub(super) fn is_ours(&self) -> bool {
        let identity = |data: fs::Metadata| (data.dev(), data.ino());
        match (self.file.metadata(), fs::metadata(path())) {
            (Ok(held), Ok(seen)) => identity(held) == identity(seen),
            _ => false,
        }
    }
}

fn path() -> PathBuf {
    folder().join("lock")
}

fn lock_file() -> anyhow::Result<File> {
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot create the folder {}", folder.display()))?;
    let path = path();
    // Never removed, because then two processes could hold locks on two files of the same name.
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    opened.map_err(|error| match error.kind() {
        ErrorKind::PermissionDenied => anyhow::anyhow!(of_another_user(&path, Lock::is_held())),
        _ => anyhow::Error::from(error).context(format!("cannot open {}", path.display())),
    })
}

fn of_another_user(path: &Path, held: bool) -> String {
    let path = path.display();
    let another = "or set BATCHSQL_MONITOR_STATE to another folder";
    if held {
        return format!("{path} belongs to another user, who started the monitor; let that user stop it, {another}");
    }
    format!("{path} belongs to another user, whose monitor has stopped; remove it or `chown` it, {another}")
}

/// The stack that runs or is being started. Removes the state of a killed process.
///
/// # Errors
/// Containers may run, but Docker does not respond.
pub(crate) fn running() -> anyhow::Result<Option<State>> {
    let Some(state) = State::load() else { return Ok(None) };
    let alive = Lock::is_held() || state.pid.is_none() && compose::has_containers()?;
    if !alive {
        // Unless another process has just started a stack.
        if State::load().as_ref() == Some(&state) && !Lock::is_held() {
            State::forget();
        }
        return Ok(None);
    }
    Ok(Some(state))
}

/// The same for the process that holds the lock: then only containers can run.
pub(super) fn running_besides() -> anyhow::Result<Option<State>> {
    let Some(state) = State::load() else { return Ok(None) };
    if state.pid.is_none() && compose::has_containers()? {
        return Ok(Some(state));
    }
    State::forget();
    Ok(None)
}

/// The process that holds the lock, for a message.
pub(super) fn holder() -> String {
    Lock::holder().map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_of_another_user_is_in_the_way_whether_or_not_it_is_held() {
        let told = |held| of_another_user(Path::new("/f/lock"), held);
        assert!(told(true).contains("let that user stop it, or set BATCHSQL_MONITOR_STATE"), "{}", told(true));
        assert!(told(false).contains("remove it or `chown` it, or set BATCHSQL_MONITOR_STATE"), "{}", told(false));
    }
}
