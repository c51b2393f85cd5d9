//! Owns the processes of the workers of a run: started, killed, paused and stopped, and how many rows they have written.
//! Must not know when.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::job::Job;
use crate::chaos::job_file;
use crate::chaos::process::WriterProcess;
use crate::chaos::sample::Sample;

/// How long a worker may take to start.
const START: Duration = Duration::from_secs(60);
/// How long one may take to end, which includes its own limit.
const END: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// Lines of the log that are shown.
const LINES: usize = 12;

/// The workers of a run.
pub(super) struct Workers {
    folder: PathBuf,
    job: Job,
    processes: Vec<WriterProcess>,
    /// How many were started.
    started: usize,
    /// The dead letters of each.
    letters: Vec<PathBuf>,
    /// Takeovers of those that were killed.
    takeovers: u64,
}

impl Workers {
    /// Starts them, and waits until each has begun.
    pub(super) async fn start(folder: &Path, job: Job, count: u32) -> Result<Self> {
        let mut workers = Self {
            folder: folder.to_owned(),
            job,
            processes: Vec::new(),
            started: 0,
            letters: Vec::new(),
            takeovers: 0,
        };
        for _ in 0..count {
            let process = workers.process()?;
            workers.processes.push(process);
        }
        for at in 0..workers.processes.len() {
            workers.has_begun(at).await?;
        }
        Ok(workers)
    }

    fn process(&mut self) -> Result<WriterProcess> {
        let number = self.started;
        self.started += 1;
        self.job.owner = format!("worker {number}");
        self.job.letters = self.folder.join(format!("letters-{number}"));
        self.letters.push(self.job.letters.clone());
        let file = self.folder.join(format!("job-{number}.json"));
        job_file::write(&self.job, &file)?;
        WriterProcess::start(&file, &self.log_file())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("workers.log")
    }

    async fn has_begun(&mut self, at: usize) -> Result<()> {
        let begun = self.processes[at].wait_for(START, |samples| !samples.is_empty()).await?;
        anyhow::ensure!(begun, "a worker did not start within {} s", START.as_secs());
        Ok(())
    }

    /// One of them.
    pub(super) fn chosen(&self, choice: usize) -> usize {
        choice % self.processes.len()
    }

    /// `kill -9` of one.
    pub(super) fn kill(&mut self, at: usize) -> Result<()> {
        self.processes[at].kill()?;
        self.takeovers += takeovers(&self.processes[at].samples());
        Ok(())
    }

    /// Another process in its place.
    pub(super) fn replace(&mut self, at: usize) -> Result<()> {
        self.processes[at] = self.process()?;
        Ok(())
    }

    pub(super) fn pause(&self, at: usize) -> Result<()> {
        self.processes[at].signal("STOP")
    }

    pub(super) fn resume(&self, at: usize) -> Result<()> {
        self.processes[at].signal("CONT")
    }

    /// The files with their dead letters.
    pub(super) fn letters(&self) -> &[PathBuf] {
        &self.letters
    }

    /// Partitions that workers have taken over from others that were killed or paused. A worker tells it within a second, so one that
    /// was killed may have had more.
    pub(super) fn takeovers(&self) -> u64 {
        self.takeovers + self.samples().iter().map(|samples| takeovers(samples)).sum::<u64>()
    }

    /// The samples of those that run.
    pub(super) fn samples(&self) -> Vec<Vec<Sample>> {
        self.processes.iter().map(WriterProcess::samples).collect()
    }

    /// Waits until they have written so many rows together; false if that takes longer than `limit`.
    pub(super) async fn wait_for(&mut self, rows: u64, limit: Duration) -> Result<bool> {
        let begin = Instant::now();
        while self.samples().iter().filter_map(|samples| samples.last()).map(|last| last.written).sum::<u64>() < rows {
            for process in &mut self.processes {
                process.is_running()?;
            }
            if begin.elapsed() > limit {
                return Ok(false);
            }
            sleep(LOOK).await;
        }
        Ok(true)
    }

    /// Lets all of them end.
    pub(super) async fn stop(&mut self) -> Result<()> {
        for at in 0..self.processes.len() {
            let ended = self.processes[at].stop(END).await.with_context(|| self.log())?;
            anyhow::ensure!(ended, "a worker did not end within {} s; {}", END.as_secs(), self.log());
        }
        Ok(())
    }

    /// What they said on stderr, at most the end of it.
    pub(super) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.log_file()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("the last lines of the workers:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    }
}

fn takeovers(samples: &[Sample]) -> u64 {
    samples.last().map_or(0, |last| last.takeovers)
}
