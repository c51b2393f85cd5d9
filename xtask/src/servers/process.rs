//! A server program with its keeper: started on a free port until it is ready.
//! Must not know which program it is.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::{keeper::Keeper, port::Port};
use crate::interrupt;

/// Timeout until a server accepts connections.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);
/// Number of consecutive successful checks.
const ANSWERS: u32 = 3;

/// Whether the server of a folder accepts connections on a port.
pub(crate) type Ready = fn(&Path, u16) -> bool;

/// A server that can be stopped and started again, on the same port and with the same data.
#[derive(Debug)]
pub(crate) struct Process {
    keeper: Keeper,
    port: Port,
    /// `None` if the keeper itself waits.
    ready: Option<Ready>,
}

impl Process {
    /// Starts a program with the arguments for a port, and waits until it accepts connections. If another program takes
    /// the port meanwhile, another port is tried.
    pub(crate) fn start(
        mut keeper: Keeper,
        program: &Path,
        arguments: impl Fn(&mut Keeper, u16) -> anyhow::Result<Vec<String>>,
        ready: Ready,
    ) -> anyhow::Result<Self> {
        let mut tries = 5;
        loop {
            let port = Port::claim()?;
            let arguments = arguments(&mut keeper, port.number())?;
            keeper.set_program(program, &arguments)?;
            keeper.tell("launch")?;
            let mut process = Self { keeper, port, ready: Some(ready) };
            match process.wait() {
                Ok(()) => return Ok(process),
                Err(error) => {
                    tries -= 1;
                    if tries == 0 || !process.keeper.has_ended() || process.port.is_free() {
                        return Err(error);
                    }
                    keeper = process.keeper;
                }
            }
        }
    }

    /// The same on one port, for programs that need up to `patience` until they accept connections.
    pub(crate) fn start_on(
        port: Port,
        mut keeper: Keeper,
        program: &Path,
        arguments: &[String],
        ready: Ready,
        patience: Duration,
    ) -> anyhow::Result<Self> {
        keeper.set_program(program, arguments)?;
        keeper.tell("launch")?;
        let mut process = Self { keeper, port, ready: Some(ready) };
        process.wait_within(patience)?;
        Ok(process)
    }

    /// Whether it has ended unexpectedly.
    pub(crate) fn has_ended(&self) -> bool {
        self.keeper.has_ended()
    }

    /// The keeper of its folder.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// A server whose keeper waits for it (`wait`).
    pub(crate) fn kept(keeper: Keeper, port: Port) -> Self {
        Self { keeper, port, ready: None }
    }

    /// Sets the check for readiness.
    pub(crate) fn set_ready(&mut self, ready: Ready) {
        self.ready = Some(ready);
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// The keeper of its folder.
    pub(crate) fn keeper_mut(&mut self) -> &mut Keeper {
        &mut self.keeper
    }

    /// Stops it gracefully.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.keeper.tell("stop")
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.keeper.tell("kill")
    }

    /// Starts it without waiting.
    pub(crate) fn launch(&mut self) -> anyhow::Result<()> {
        self.keeper.tell("launch")
    }

    /// Waits until it accepts connections.
    pub(crate) fn wait(&mut self) -> anyhow::Result<()> {
        self.wait_within(PATIENCE)
    }

    fn wait_within(&mut self, patience: Duration) -> anyhow::Result<()> {
        let Some(ready) = self.ready else { return self.keeper.tell("wait") };
        let start = Instant::now();
        let mut answers = 0;
        loop {
            interrupt::check()?;
            answers = if ready(self.keeper.folder(), self.port()) { answers + 1 } else { 0 };
            // Checked after `ready`: if another program took the port first, that program responds and this server ends
            // soon.
            let trouble = if self.keeper.has_ended() {
                "it ended".to_owned()
            } else if answers == ANSWERS {
                return Ok(());
            } else if start.elapsed() > patience {
                format!("it accepted no connections for {} s", patience.as_secs())
            } else {
                thread::sleep(POLL);
                continue;
            };
            anyhow::bail!("the server did not start: {trouble}; the end of its log:\n{}", self.keeper.log());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::servers::account::Account;

    fn start(script: &str, ready: Ready) -> anyhow::Result<Process> {
        let keeper = Keeper::new("test", Account::Caller, "TERM")?;
        let arguments = ["-c".to_owned(), script.to_owned()];
        Process::start(keeper, Path::new("/bin/sh"), |_, _| Ok(arguments.to_vec()), ready)
    }

    /// Waits until the server of this folder has ended.
    fn end_of(folder: &Path) {
        let start = Instant::now();
        while !folder.join("ended").exists() {
            assert!(start.elapsed() < PATIENCE, "the server does not end");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn the_answer_of_another_server_is_not_taken() {
        const END: &str = "echo the port is taken; exit 1";
        // The other server responds immediately. This one finds its port taken before the first check is counted ...
        let before_the_first: Ready = |folder, _| {
            end_of(folder);
            true
        };
        // ... or after all checks except the last one.
        let before_the_last: Ready = |folder, _| {
            let count = fs::read_to_string(folder.join("answers")).unwrap_or_default().len() + 1;
            fs::write(folder.join("answers"), "x".repeat(count)).unwrap();
            match u32::try_from(count).unwrap() {
                ANSWERS => end_of(folder),
                count if count == ANSWERS - 1 => fs::write(folder.join("go"), "").unwrap(),
                _ => {}
            }
            true
        };
        let wait = format!("until [ -e go ]; do sleep 0.01; done; {END}");
        for (script, ready) in [(END, before_the_first), (wait.as_str(), before_the_last)] {
            let error = start(script, ready).unwrap_err().to_string();
            assert!(error.contains("it ended") && error.contains("the port is taken"), "{error}");
        }
        start("exec sleep 60", |_, _| true).unwrap();
    }
}
