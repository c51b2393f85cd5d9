//! Owns one soak: the warm-up with every fault once, then faults in turn until the time is over.
//! Must not know what is a trend.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::check::check;
use super::job::{Job, Mode, Totals};
use super::reading::Reading;
use super::tables::Tables;
use super::turns;
use crate::chaos::fault::Fault;
use crate::chaos::job::{Names, PRODUCERS, Pool};
use crate::chaos::job_file;
use crate::chaos::process::{PATIENCE, WriterProcess};
use crate::chaos::sample::{Sample, first_written_after, now};
use crate::chaos::stage::{Servant, Stage};
use crate::chaos::writer::{HOLD, RELEASE};
use crate::database::DatabaseName;
use crate::tell::tell;

/// A debug build on a busy machine can do this for four databases at the same time.
const ROWS_PER_SECOND: u32 = 600;
/// Decides which answers are lost.
const SEED: u64 = 7;
/// Time without a fault before each of them.
const CALM: Duration = Duration::from_secs(8);
const CALM_OF_WARM_UP: Duration = Duration::from_millis(1_500);
/// How long it may take after that until few rows wait.
const DRAIN: Duration = Duration::from_secs(30);
/// Rows that wait without a fault.
const FEW: u64 = 300;
/// How long a writer may take to end, which includes its own limits.
const END: Duration = Duration::from_secs(200);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wishes {
    pub(super) duration: Duration,
    pub(super) mode: Mode,
    pub(super) pool: Pool,
    pub(super) leak: usize,
}

/// A fault, and the time until the writer was as before: in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Disturbance {
    pub(super) fault: Fault,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// What a soak has found.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) readings: Vec<Reading>,
    pub(super) disturbances: Vec<Disturbance>,
    /// The end of the warm-up and of the run, in milliseconds since 1970.
    pub(super) measured: (u64, u64),
    /// The longest time from the end of a fault to the first row that was written after it.
    pub(super) recovery: Duration,
    pub(super) totals: Totals,
    /// What is wrong besides trends.
    pub(super) wrong: Vec<String>,
}

/// A soak that runs.
struct Soak {
    database: DatabaseName,
    pool: Pool,
    stage: Stage,
    tables: Tables,
    writer: WriterProcess,
    /// Tables that were taken away.
    gone: u32,
    outcome: Outcome,
}

/// Carries a soak out.
///
/// # Errors
/// It could not be carried out: a fault could not be caused, or a program did not do what it must.
pub(super) async fn run(database: DatabaseName, wishes: Wishes) -> Result<Outcome> {
    let folder = TempDir::new().context("cannot create a folder")?;
    let carried_out = carry_out(database, wishes, folder.path()).await;
    carried_out.with_context(|| {
        let log = fs::read_to_string(log(folder.path())).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        format!("the writer said:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"))
    })
}

fn log(folder: &Path) -> PathBuf {
    folder.join("writer.log")
}

async fn carry_out(database: DatabaseName, wishes: Wishes, folder: &Path) -> Result<Outcome> {
    let servant = Servant::start(database, None, wishes.mode == Mode::ExactlyOnce).await?;
    let prefix = format!("soak_{:x}", now() & 0xffff_ffff);
    let (names, counter) = (Names::new(&prefix), format!("{prefix}_counter"));
    let stage = Stage::set(None, database, servant.clone(), None, folder, names.clone(), SEED).await?;
    let dsn = stage.writer_dsn()?;
    let place = servant.as_ref().map_or_else(|| dsn.trim_start_matches("sqlite:"), Servant::dsn);
    let tables = Tables::new(database, place, &names, &counter);
    tables.create(wishes.mode).await.context("cannot create the table of counters")?;
    let job = Job {
        database,
        dsn,
        tables: names,
        counter,
        pool: wishes.pool,
        mode: wishes.mode,
        producers: PRODUCERS,
        rows_per_second: ROWS_PER_SECOND,
        folder: folder.to_path_buf(),
        leak: wishes.leak,
    };
    let file = folder.join("job.json");
    job_file::write(&job, &file)?;
    let writer = WriterProcess::start(&file, &log(folder))?;
    let mut soak = Soak { database, pool: wishes.pool, stage, tables, writer, gone: 0, outcome: Outcome::default() };
    soak.cause_faults(wishes.duration).await?;
    soak.finish(&job).await
}

impl Soak {
    async fn cause_faults(&mut self, duration: Duration) -> Result<()> {
        let name = self.database.name();
        let begun = |samples: &[Sample]| samples.last().is_some_and(|last| last.written > 0);
        let written = self.writer.wait_for(PATIENCE, begun).await?;
        anyhow::ensure!(written, "the writer wrote no row within {} s", PATIENCE.as_secs());
        let faults = turns::faults(self.database);
        let begin = Instant::now();
        for fault in &faults {
            sleep(CALM_OF_WARM_UP).await;
            self.turn(*fault).await?;
        }
        tell(format_args!("{name}: warmed up with {} faults in {} s", faults.len(), begin.elapsed().as_secs()));
        let (begin, mut turns) = (Instant::now(), 0);
        self.outcome.measured.0 = now();
        for fault in faults.iter().cycle() {
            sleep(CALM).await;
            if begin.elapsed() >= duration {
                break;
            }
            self.turn(*fault).await?;
            turns += 1;
            if turns % faults.len() == 0 {
                let written = self.writer.samples().last().map_or(0, |last| last.written);
                let seconds = begin.elapsed().as_secs();
                tell(format_args!("{name}: {seconds} s, {turns} faults, {written} rows written"));
            }
        }
        self.outcome.measured.1 = now();
        Ok(())
    }

    /// A fault, the recovery from it, and the removal of old rows.
    async fn turn(&mut self, fault: Fault) -> Result<()> {
        let begin = now();
        if self.is_inside_writer(fault) {
            self.writer.tell(HOLD)?;
            sleep(fault.lasts()).await;
            self.writer.tell(RELEASE)?;
        } else {
            let begun =
                self.stage.begin_alone(fault).await.with_context(|| format!("cannot cause {}", fault.name()))?;
            sleep(fault.lasts()).await;
            self.stage.end_alone(begun).await.with_context(|| format!("cannot end {}", fault.name()))?;
        }
        let end = now();
        self.gone += u32::from(fault == Fault::TableRecreated);
        let recovered = |samples: &[Sample]| first_written_after(samples, end).is_some();
        if !self.writer.wait_for(PATIENCE, recovered).await? {
            let seconds = PATIENCE.as_secs();
            self.outcome.wrong.push(format!("no row was written within {seconds} s after {}", fault.name()));
        }
        if let Some(at) = first_written_after(&self.writer.samples(), end) {
            self.outcome.recovery = self.outcome.recovery.max(Duration::from_millis(at - end));
        }
        let waiting = |last: &Sample| last.accepted.saturating_sub(last.written + last.failed);
        // If more wait all the time, memory shows it.
        self.writer.wait_for(DRAIN, |samples| samples.last().is_some_and(|last| waiting(last) < FEW)).await?;
        self.tables.trim(self.gone).await.context("cannot remove old rows")?;
        self.outcome.disturbances.push(Disturbance { fault, begin, end: now() });
        Ok(())
    }

    /// Whether the writer itself causes a fault: the program uses up its own pool.
    fn is_inside_writer(&self, fault: Fault) -> bool {
        let has_pool = matches!(self.database, DatabaseName::Postgres | DatabaseName::Mysql) && self.pool == Pool::User;
        fault == Fault::PoolExhausted && has_pool
    }

    async fn finish(mut self, job: &Job) -> Result<Outcome> {
        anyhow::ensure!(self.writer.stop(END).await?, "the writer did not end within {} s", END.as_secs());
        let readings = fs::read_to_string(job.readings()).context("cannot read the readings")?;
        let read = readings.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        self.outcome.readings = read.context("the readings have something else")?;
        self.outcome.totals = job_file::read(&job.totals())?;
        let found = self.tables.count().await.context("cannot count the rows")?;
        self.outcome.wrong.extend(check(job.mode, &self.outcome.totals, found));
        Ok(self.outcome)
    }
}
