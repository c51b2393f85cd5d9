//! Owns the writer of a soak: a program that submits mixed rows at a fixed rate, and notes readings of itself.
//! Must not know faults, or what is a trend.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::durable::{DurableBatchSql, DurableExt, DurableOptions};
use batchsql::prometheus::PrometheusMetrics;
use batchsql::{Balance, BatchSql, DynRow, OutcomeKind, Schema};
use batchsql_testserver::samples;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::job::{Job, Mode, Total, Totals};
use super::reading::Reader;
use super::rows;
use super::sink;
use super::table::Table;
use crate::chaos::job_file;
use crate::chaos::load::RowId;
use crate::chaos::sample::Sample;
use crate::chaos::sinks::UserPool;
use crate::chaos::writer::{limits, obey};
use crate::database::DatabaseName;

/// Time between two samples for the conductor.
const SAMPLE: Duration = Duration::from_millis(100);
/// Samples between two readings.
const READING: u32 = 5;
/// Readings between two scrapes of the metrics.
const SCRAPE: u32 = 10;
/// Time between two flushes.
const FLUSH: Duration = Duration::from_secs(3);
/// How long a writer may take to end its rows. Longer than any of the limits of its settings.
const END: Duration = Duration::from_secs(90);
/// Every row with a sequence that this divides is followed by its receipt.
const TRACKED: u64 = 5;
/// The size of a file of the log. Small, so that files are removed all the time.
const SEGMENT: u64 = 1 << 20;

#[derive(Clone)]
enum Intake {
    Memory(BatchSql),
    Durable(DurableBatchSql),
}

impl Intake {
    async fn start(job: &Job, pool: Option<&UserPool>, metrics: &PrometheusMetrics) -> Result<Self> {
        let builder = BatchSql::builder(sink::open(job, pool)?).config(limits());
        let builder = builder.metrics_reporter(metrics.reporter("soak"));
        let options = || DurableOptions::new(job.intake()).segment_bytes(SEGMENT).min_free_bytes(0);
        Ok(match job.mode {
            Mode::Memory => Self::Memory(builder.start()?),
            Mode::Durable => Self::Durable(builder.durable(options()).start().await?),
            Mode::ExactlyOnce => Self::Durable(builder.durable(options().exactly_once("soak")).start().await?),
        })
    }

    fn balance(&self) -> Balance {
        match self {
            Self::Memory(db) => db.balance(),
            Self::Durable(db) => db.stats().balance,
        }
    }

    fn sample(&self) -> Sample {
        Sample::of(&self.balance())
    }

    /// Submits a row, with a task that waits for its receipt if it is followed.
    async fn submit(&self, row: &DynRow, is_followed: bool, receipts: &mut JoinSet<()>) -> Submitted {
        match self {
            Self::Memory(db) if is_followed => match db.submit_tracked(row).await {
                Ok(receipt) => {
                    receipts.spawn(async { drop(receipt.await) });
                    Submitted::Accepted
                }
                Err(_) => Submitted::Refused,
            },
            Self::Memory(db) => db.submit(row).await.map_or(Submitted::Refused, |()| Submitted::Accepted),
            Self::Durable(db) => match db.submit(row).await {
                Ok(()) => Submitted::Accepted,
                Err(error) if error.is_undetermined() => Submitted::Undetermined,
                Err(_) => Submitted::Refused,
            },
        }
    }

    /// Waits until what was submitted has ended, or for as long as a flush may take.
    async fn flush(&self) {
        // During a fault it takes longer, or fails with it.
        match self {
            Self::Memory(db) => drop(timeout(FLUSH, db.flush()).await),
            Self::Durable(db) => drop(timeout(FLUSH, db.flush()).await),
        }
    }
}

enum Submitted {
    Accepted,
    Undetermined,
    Refused,
}

/// Rows of a table that a database does not refuse.
#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    undetermined: AtomicU64,
}

/// What the tasks of a writer share.
struct Writer {
    job: Job,
    intake: Intake,
    schemas: [Schema; 4],
    counts: [Counts; 4],
    leaked: Mutex<Vec<Vec<u8>>>,
    is_ending: watch::Sender<bool>,
}

/// Does the job of a file, until the input says `stop` or ends.
///
/// # Errors
/// The job cannot be read, or the pipeline cannot be started.
pub(super) async fn run(file: &Path) -> Result<()> {
    let job: Job = job_file::read(file)?;
    let is_file = job.database == DatabaseName::Sqlite;
    let database = is_file.then(|| PathBuf::from(job.dsn.trim_start_matches("sqlite:")));
    let log = (job.mode != Mode::Memory).then(|| job.intake().join("log"));
    let reader = Reader::new(log.as_deref(), database.as_deref());
    let readings = File::create(job.readings()).context("cannot create the file of the readings")?;
    let metrics = PrometheusMetrics::new()?;
    let pool = sink::user_pool(&job)?;
    let writer = Arc::new(Writer {
        intake: Intake::start(&job, pool.as_ref(), &metrics).await?,
        schemas: rows::schemas(&job)?,
        counts: Default::default(),
        leaked: Mutex::default(),
        is_ending: watch::Sender::new(false),
        job,
    });
    let mut tasks = JoinSet::new();
    // Each step submits a row to each table.
    let step = Duration::from_secs(1) * writer.job.producers * Table::ALL.len() as u32 / writer.job.rows_per_second;
    for producer in 0..writer.job.producers {
        tasks.spawn(Arc::clone(&writer).produce(producer, step));
    }
    tasks.spawn(Arc::clone(&writer).flush());
    let noting = tokio::spawn(note(writer.intake.clone(), metrics.clone(), reader, readings));
    obey(pool).await?;
    writer.is_ending.send_replace(true);
    let mut totals = Totals::default();
    match &writer.intake {
        Intake::Memory(db) => {
            let balance = db.close(END).await.balance;
            totals.balance = (balance.accepted, balance.outcomes.total());
        }
        Intake::Durable(db) => {
            // `close` refuses rows that are being submitted, so these end first.
            tasks.join_all().await;
            tasks = JoinSet::new();
            if let Ok(Err(error)) = timeout(END, db.flush()).await {
                eprintln!("{error}");
            }
            totals.left = db.close(Duration::from_secs(5)).await.left_in_log;
        }
    }
    tasks.join_all().await;
    noting.abort();
    totals.tables = writer.totals(&metrics.render());
    job_file::write(&totals, &writer.job.totals())
}

/// Prints samples for the conductor, and notes readings. If either fails, the run cannot be judged, so the process ends.
async fn note(intake: Intake, metrics: PrometheusMetrics, reader: Reader, mut readings: File) {
    let mut ticks = interval(SAMPLE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u32.. {
        ticks.tick().await;
        let sample = intake.sample();
        let mut noted = writeln!(std::io::stdout(), "{sample}");
        if number % READING == 0 {
            let line = serde_json::to_string(&reader.read(sample.written)).expect("a reading is numbers");
            noted = noted.and_then(|()| writeln!(readings, "{line}"));
        }
        if number % (READING * SCRAPE) == 0 {
            drop(metrics.render());
        }
        if noted.is_err() {
            std::process::exit(1);
        }
    }
}

impl Writer {
    async fn produce(self: Arc<Self>, producer: u32, step: Duration) {
        let mut receipts = JoinSet::new();
        let mut steps = interval(step);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_ending = self.is_ending.subscribe();
        for sequence in 0.. {
            tokio::select! {
                _ = steps.tick() => {}
                _ = is_ending.wait_for(|is_ending| *is_ending) => break,
            }
            self.submit(RowId { producer, sequence }, &mut receipts).await;
            while receipts.try_join_next().is_some() {}
        }
        receipts.join_all().await;
    }

    /// Submits a row to each table.
    async fn submit(&self, id: RowId, receipts: &mut JoinSet<()>) {
        for ((table, schema), counts) in Table::ALL.into_iter().zip(&self.schemas).zip(&self.counts) {
            let row = rows::row(&self.job, schema, table, id).expect("the schemas have these columns");
            let is_good = u64::from(!rows::is_bad(self.job.database, table, id));
            match self.intake.submit(&row, id.sequence.is_multiple_of(TRACKED), receipts).await {
                Submitted::Accepted => counts.accepted.fetch_add(is_good, Ordering::Relaxed),
                Submitted::Undetermined => counts.undetermined.fetch_add(is_good, Ordering::Relaxed),
                Submitted::Refused => 0,
            };
            if self.job.leak > 0 {
                let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
                leaked.push(vec![1; self.job.leak]);
            }
        }
    }

    async fn flush(self: Arc<Self>) {
        let mut ticks = interval(FLUSH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_ending = self.is_ending.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = is_ending.wait_for(|is_ending| *is_ending) => return,
            }
            self.intake.flush().await;
        }
    }

    /// What is known of each table.
    fn totals(&self, scrape: &str) -> BTreeMap<String, Total> {
        let outcomes = outcomes(scrape);
        let of = |(table, (schema, counts)): (Table, (&Schema, &Counts))| {
            let total = Total {
                accepted: counts.accepted.load(Ordering::Relaxed),
                undetermined: counts.undetermined.load(Ordering::Relaxed),
                outcomes: outcomes.get(&schema.table().to_string()).cloned().unwrap_or_default(),
            };
            (table.name().to_owned(), total)
        };
        Table::ALL.into_iter().zip(self.schemas.iter().zip(&self.counts)).map(of).collect()
    }
}

/// The rows of each outcome of each table in a scrape.
fn outcomes(scrape: &str) -> BTreeMap<String, BTreeMap<String, u64>> {
    let mut tables: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for sample in samples(scrape).into_iter().filter(|sample| sample.name == "batchsql_records_outcome_total") {
        let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
        let known = OutcomeKind::ALL.iter().any(|kind| kind.name() == label("outcome"));
        debug_assert!(known, "{sample:?}");
        *tables.entry(label("table")).or_default().entry(label("outcome")).or_default() += sample.value as u64;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcomes_of_a_scrape_are_those_of_each_table() {
        let scrape = "# HELP x\nbatchsql_records_outcome_total{outcome=\"written\",table=\"a\"} 2\n\
                      batchsql_records_outcome_total{table=\"b\",outcome=\"written\"} 3\n\
                      batchsql_records_outcome_total{table=\"b\",outcome=\"unknown\"} 1\nother 4\n";
        let found = outcomes(scrape);
        assert_eq!(found["a"], BTreeMap::from([("written".to_owned(), 2)]));
        assert_eq!(found["b"], BTreeMap::from([("written".to_owned(), 3), ("unknown".to_owned(), 1)]));
    }
}
