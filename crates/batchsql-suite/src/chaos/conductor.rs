//! Owns one run: a writer under load, its faults at their times, the wait for its recovery, and the comparison of what it noted
//! with what is in the tables. Must not know which runs there are.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};

use super::check::{Checked, Promises, Violation, Wrong, check};
use super::disk::SmallDisk;
use super::fault::{Fault, Layer};
use super::job::{Job, Mode, Names, PRODUCERS, Pool};
use super::job_file;
use super::ledger::Ledger;
use super::letters;
use super::moments::{Moment, Moments};
use super::namespace::Namespace;
use super::plan::Plan;
use super::process::{PATIENCE, WriterProcess};
use super::sample::{Sample, first_written_after, now};
use super::stage::{self, Begun, Servant, Stage, is_put_off};
use super::writer::{HOLD, RELEASE};
use crate::database::DatabaseName;
use crate::tell::tell;

/// Lines of the log of a writer that are shown, and characters of each.
const LINES: usize = 10;
const WIDTH: usize = 240;
/// How long a writer may take to end, which includes its own limits.
const END: Duration = Duration::from_secs(150);
/// Load after the recovery.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// Interval of checks.
const LOOK: Duration = Duration::from_millis(100);
/// Time for what the network still holds when the writer has ended.
const SETTLE: Duration = Duration::from_millis(300);

/// What a run has found.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) checked: Checked,
    /// From the end of the last fault to the first row that was written after it.
    pub(super) recovery: Option<Duration>,
    /// Samples of each writer.
    pub(super) samples: Vec<Vec<Sample>>,
    /// Begin and end of each fault, in milliseconds since 1970.
    pub(super) faults: Vec<(Fault, u64, u64)>,
}

/// The writers of a run, one after the other.
struct Writers<'a> {
    folder: &'a Path,
    namespace: Option<Arc<Namespace>>,
    job: Job,
    current: WriterProcess,
    is_alive: bool,
    samples: Vec<Vec<Sample>>,
    /// The ledger and the dead letters of each.
    notes: Vec<(PathBuf, PathBuf)>,
}

impl<'a> Writers<'a> {
    fn start(folder: &'a Path, namespace: Option<Arc<Namespace>>, mut job: Job) -> Result<Self> {
        let current = Self::process(folder, namespace.as_deref(), &mut job)?;
        let notes = vec![(job.ledger.clone(), job.letters.clone())];
        Ok(Self { folder, namespace, job, current, is_alive: true, samples: Vec::new(), notes })
    }

    fn process(folder: &Path, namespace: Option<&Namespace>, job: &mut Job) -> Result<WriterProcess> {
        job.ledger = folder.join(format!("ledger-{}", job.generation));
        job.letters = match &job.mode {
            Mode::Receipts => folder.join(format!("letters-{}", job.generation)),
            Mode::Durable(_) => folder.join("letters"),
        };
        let file = folder.join("job.json");
        job_file::write(&*job, &file)?;
        // Read when the writer starts, which the first sample shows; the file is replaced only after that.
        WriterProcess::start_in(namespace, &file, &folder.join("writer.log"))
    }

    fn kill(&mut self) -> Result<()> {
        self.current.kill()?;
        self.is_alive = false;
        self.samples.push(self.current.samples());
        Ok(())
    }

    /// Starts the next one, and waits until it has read its job.
    async fn next(&mut self) -> Result<()> {
        self.job.generation += 1;
        self.current = Self::process(self.folder, self.namespace.as_deref(), &mut self.job)?;
        self.is_alive = true;
        self.notes.push((self.job.ledger.clone(), self.job.letters.clone()));
        self.has_begun().await
    }

    async fn has_begun(&mut self) -> Result<()> {
        let begun = self.current.wait_for(PATIENCE, |samples| !samples.is_empty()).await?;
        anyhow::ensure!(begun, "the writer did not start within {} s", PATIENCE.as_secs());
        Ok(())
    }

    /// What a silence has held back is delivered.
    async fn wait_for_network(&self) -> Result<()> {
        let Some(namespace) = &self.namespace else { return Ok(()) };
        let begin = Instant::now();
        while !namespace.is_quiet()? {
            anyhow::ensure!(begin.elapsed() < END, "connections of writers do not end");
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// What they noted.
    fn ledgers(&self) -> Result<Vec<Ledger>> {
        let read = |(ledger, letters): &(PathBuf, PathBuf)| {
            Ok(Ledger { letters: letters::read(letters, &self.job.tables)?, ..Ledger::read(ledger)? })
        };
        self.notes.iter().map(read).collect()
    }

    /// What the writers said on stderr, at most the end of it.
    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.join("writer.log")).unwrap_or_default();
        let lines: Vec<String> = text.lines().map(|line| line.chars().take(WIDTH).collect()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// Carries a run out.
///
/// # Errors
/// It could not be carried out: a fault could not be caused, or a program did not do what it must.
pub(super) async fn run(
    plan: &Plan,
    rows_per_second: u32,
    servant: Option<Servant>,
    disk: Option<Arc<SmallDisk>>,
) -> Result<Outcome> {
    let folder = TempDir::new().context("cannot create a folder")?;
    let prefix = format!("chaos_{:x}_{}", now() & 0xffff_ffff, plan.number);
    let names = Names::new(&prefix);
    let namespace = plan.in_namespace.then(Namespace::new).transpose()?.map(Arc::new);
    let (within, path) = (namespace.clone(), folder.path());
    let mut stage = Stage::set(within, plan.database, servant, disk, path, names.clone(), plan.seed).await?;
    let mode = if plan.is_durable { Mode::Durable(folder.path().join("intake")) } else { Mode::Receipts };
    let job = Job {
        database: plan.database,
        dsn: stage.writer_dsn()?,
        tables: names,
        pool: plan.pool,
        mode,
        at_least_once: plan.at_least_once,
        exactly_once: plan.exactly_once,
        sabotage: plan.sabotage,
        generation: 0,
        producers: PRODUCERS,
        rows_per_second,
        ledger: PathBuf::new(),
        letters: PathBuf::new(),
    };
    let mut writers = Writers::start(folder.path(), namespace, job)?;
    let carried_out = carry_out(plan, &mut stage, &mut writers).await;
    carried_out.map_err(|error| anyhow::anyhow!("{error:#}; the last lines of the writer:\n{}", writers.log()))
}

async fn carry_out(plan: &Plan, stage: &mut Stage, writers: &mut Writers<'_>) -> Result<Outcome> {
    let written = writers.current.wait_for(PATIENCE, |samples| samples.last().is_some_and(|last| last.written > 0));
    anyhow::ensure!(written.await?, "the writer wrote no row within {} s", PATIENCE.as_secs());
    let faults = cause(plan, stage, writers).await?;
    let mut stuck = Vec::new();
    let end = faults.iter().map(|(_, _, end)| *end).max().unwrap_or(0);
    let recovered = |samples: &[Sample]| first_written_after(samples, end).is_some();
    if !writers.current.wait_for(PATIENCE, recovered).await? {
        stuck.push(format!("no row was written within {} s after the fault", PATIENCE.as_secs()));
    }
    let recovery = first_written_after(&writers.current.samples(), end).map(|at| Duration::from_millis(at - end));
    sleep(AFTERWARDS).await;
    if !writers.current.stop(END).await? {
        stuck.push(format!("the writer did not end within {} s", END.as_secs()));
        writers.current.kill()?;
    }
    writers.samples.push(writers.current.samples());
    writers.wait_for_network().await?;
    sleep(SETTLE).await;
    let found = stage.read().await?;
    let ledgers = writers.ledgers()?;
    let promises = Promises {
        is_durable: plan.is_durable,
        exactly_once: plan.exactly_once,
        at_least_once: plan.at_least_once,
        refuses_bad_rows: stage.refuses_bad_rows(),
    };
    let mut checked = check(&ledgers, &found, promises);
    checked.count += stuck.len() as u64;
    checked.violations.extend(stuck.into_iter().map(|detail| Violation { wrong: Wrong::Stuck, detail }));
    Ok(Outcome { checked, recovery, samples: std::mem::take(&mut writers.samples), faults })
}

/// Whether the writer itself causes a fault: the program uses up its own pool.
fn is_inside_writer(fault: Fault, plan: &Plan) -> bool {
    let has_pool = matches!(plan.database, DatabaseName::Postgres | DatabaseName::Mysql) && plan.pool == Pool::User;
    fault == Fault::PoolExhausted && has_pool
}

/// Causes the faults at their times; begin and end of each. A fault that waits for a lock is put off: the lock may be that of a
/// writer that was killed, or of a session that was left, which goes away when another fault ends.
async fn cause(plan: &Plan, stage: &mut Stage, writers: &mut Writers<'_>) -> Result<Vec<(Fault, u64, u64)>> {
    let mut moments = Moments::of(&plan.timeline);
    let last = plan.timeline.iter().map(|timed| timed.end).max().unwrap_or_default();
    let start = Instant::now();
    let mut under_way: Vec<Option<(Option<Begun>, u64)>> = plan.timeline.iter().map(|_| None).collect();
    let mut faults = Vec::new();
    while let Some((at, moment)) = moments.take() {
        sleep_until(start + at).await;
        let may_wait = |error: &Error| is_put_off(error) && start.elapsed() < last + stage::PATIENCE;
        match moment {
            Moment::Begin(index) => {
                let fault = plan.timeline[index].fault;
                let begun = now();
                if fault.layer() == Layer::Writer {
                    writers.kill()?;
                }
                if is_inside_writer(fault, plan) {
                    // In a mixed run it may have been killed.
                    if writers.is_alive {
                        writers.current.tell(HOLD)?;
                    }
                    under_way[index] = Some((None, begun));
                    continue;
                }
                match stage.begin(fault).await {
                    Ok(held) => under_way[index] = Some((Some(held), begun)),
                    Err(error) if may_wait(&error) => {
                        tell(format_args!("{} is put off: {error}", fault.name()));
                        moments.put_off((at, moment), start.elapsed() + stage::PAUSE);
                    }
                    Err(error) => return Err(error.context(format!("cannot cause {}", fault.name()))),
                }
            }
            Moment::End(index) => {
                let fault = plan.timeline[index].fault;
                let (held, begun) = under_way[index].take().context("the fault has not begun")?;
                match held {
                    Some(mut held) => match stage.end(&mut held).await {
                        Ok(()) => {}
                        Err(error) if may_wait(&error) => {
                            tell(format_args!("the end of {} is put off: {error}", fault.name()));
                            under_way[index] = Some((Some(held), begun));
                            moments.put_off((at, moment), start.elapsed() + stage::PAUSE);
                            continue;
                        }
                        Err(error) => return Err(error.context(format!("cannot end {}", fault.name()))),
                    },
                    None if writers.is_alive => writers.current.tell(RELEASE)?,
                    None => {}
                }
                let end = now();
                if fault.layer() == Layer::Writer {
                    writers.next().await?;
                }
                faults.push((fault, begun, end));
            }
        }
    }
    Ok(faults)
}
