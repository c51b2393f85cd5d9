//! What runs, as a file in `target/monitor`: for the other verbs, and for the suite. A lock says whether it is true: the
//! system gives it back however its holder ends.
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

/// Where everything about the stack of this checkout is.
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
    /// Who stops it at a signal. None: it goes on by itself, in containers.
    pub(crate) pid: Option<u32>,
    /// Whether everything answers.
    pub(crate) ready: bool,
    /// Whether it stays when the terminal goes.
    pub(crate) detached: bool,
    /// `http://127.0.0.1:PORT`.
    pub(crate) prometheus: String,
    /// Its page of targets, which older ones have elsewhere.
    pub(crate) targets: String,
    pub(crate) grafana: Option<String>,
    pub(crate) metrics_port: u16,
    pub(crate) app_port: u16,
    /// Where a suite must listen so that Prometheus reaches it.
    pub(crate) bind: Vec<IpAddr>,
    /// Log files by component. Containers have none.
    pub(crate) logs: BTreeMap<String, PathBuf>,
    /// Where history is kept.
    pub(crate) data: Option<PathBuf>,
}

impl State {
    /// Makes it known, as a whole or not at all.
    pub(super) fn save(&self) -> anyhow::Result<()> {
        let (file, new) = (folder().join("state.json"), folder().join("state.json.new"));
        let text = serde_json::to_string_pretty(self).context("cannot write down the state")?;
        fs::write(&new, text + "\n").and_then(|()| fs::rename(&new, &file)).with_context(|| {
            format!(
                "cannot write {}; is the folder another user's? BATCHSQL_MONITOR_STATE names another",
                file.display()
            )
        })
    }

    fn load() -> Option<Self> {
        let text = fs::read_to_string(folder().join("state.json")).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// From now on nothing is known to run.
    pub(super) fn forget() {
        let _ = fs::remove_file(folder().join("state.json"));
    }
}

/// Held by the one process that starts, runs and stops the stack.
///
/// Its file has the number of the process, which can therefore be stopped when the state is lost.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// None when another process holds it. One that only looks holds it for a moment.
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

    /// Whether its file is still where others look for it: `cargo clean` removes the folder under our hands, and then
    /// another process may hold another lock.
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
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = path();
    // Never removed: two processes could hold the locks of two files with one name.
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
    format!("{path} belongs to another user, whose monitor does not run any more; remove it or `chown` it, {another}")
}

/// The stack that runs or is being started. What a process left that was killed is removed.
///
/// # Errors
/// Containers may run, and Docker does not answer.
pub(crate) fn running() -> anyhow::Result<Option<State>> {
    let Some(state) = State::load() else { return Ok(None) };
    let alive = Lock::is_held() || state.pid.is_none() && compose::has_containers()?;
    if !alive {
        // Unless somebody started another one in this moment.
        if State::load().as_ref() == Some(&state) && !Lock::is_held() {
            State::forget();
        }
        return Ok(None);
    }
    Ok(Some(state))
}

/// The same for who holds the lock: only containers can run by themselves.
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
