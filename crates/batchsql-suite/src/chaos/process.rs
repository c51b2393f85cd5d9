//! Owns the process of a writer: started, watched by its samples, stopped or killed.
//! Must not know what it writes.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::namespace::Namespace;
use super::sample::Sample;
use super::writer::STOP;

/// How long a writer may take to write its first rows, and the first ones after a fault.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);
/// Interval of checks.
const LOOK: Duration = Duration::from_millis(20);
/// A soak counts the bytes that are in use. jemalloc counts those that each thread keeps for reuse as well, unless threads keep
/// none. Without it nothing reads the variable.
const ALLOCATOR: (&str, &str) = ("_RJEM_MALLOC_CONF", "tcache:false");

/// A writer that runs. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct WriterProcess {
    child: Child,
    commands: Option<ChildStdin>,
    samples: Arc<Mutex<Vec<Sample>>>,
}

impl WriterProcess {
    /// Starts this program as a writer; what it says goes to the file `log`.
    pub(super) fn start(job: &Path, log: &Path) -> Result<Self> {
        Self::start_in(None, job, log)
    }

    /// The same in a network namespace.
    pub(super) fn start_in(namespace: Option<&Namespace>, job: &Path, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log).context("cannot create the log of the writer")?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = namespace
            .map_or_else(|| Command::new(&program), |namespace| namespace.command(&program))
            .arg("writer")
            .arg(job)
            .env(ALLOCATOR.0, ALLOCATOR.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start the writer")?;
        let commands = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("the output of the writer was piped")?);
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let shared = Arc::clone(&samples);
        // It ends with the output, which ends with the writer.
        thread::spawn(move || {
            let lines = output.lines().map_while(Result::ok);
            lines.filter_map(|line| Sample::parse(&line)).for_each(|sample| lock(&shared).push(sample));
        });
        Ok(Self { child, commands, samples })
    }

    /// Its samples until now.
    pub(super) fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Waits until its samples are as expected; false if that takes longer than `limit`.
    ///
    /// # Errors
    /// It has ended.
    pub(super) async fn wait_for(&mut self, limit: Duration, is_so: impl Fn(&[Sample]) -> bool) -> Result<bool> {
        let begin = Instant::now();
        while !is_so(&lock(&self.samples)) {
            self.is_running()?;
            if begin.elapsed() > limit {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
        Ok(true)
    }

    /// Sends it a command.
    pub(super) fn tell(&mut self, command: &str) -> Result<()> {
        let commands = self.commands.as_mut().context("the writer has no input")?;
        writeln!(commands, "{command}").and_then(|()| commands.flush()).context("the writer has ended")
    }

    /// `kill -9`.
    pub(super) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill the writer")?;
        self.child.wait().context("cannot wait for the writer").map(drop)
    }

    /// Sends it a signal, for example `STOP`.
    pub(super) fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        anyhow::ensure!(status.context("cannot run kill")?.success(), "kill -{name} has failed");
        Ok(())
    }

    /// # Errors
    /// It has ended.
    pub(super) fn is_running(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot ask for the writer")? {
            Some(status) => anyhow::bail!("the writer has ended with {status}"),
            None => Ok(()),
        }
    }

    /// Lets it end its rows; false if it does not end within `limit`.
    ///
    /// # Errors
    /// It ends with an error.
    pub(super) async fn stop(&mut self, limit: Duration) -> Result<bool> {
        self.tell(STOP)?;
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot ask for the writer")? {
                anyhow::ensure!(status.success(), "the writer has ended with {status}");
                return Ok(true);
            }
            if begin.elapsed() > limit {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(samples: &Mutex<Vec<Sample>>) -> std::sync::MutexGuard<'_, Vec<Sample>> {
    samples.lock().unwrap_or_else(PoisonError::into_inner)
}
