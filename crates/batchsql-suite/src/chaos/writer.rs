//! Owns the writer: a program that submits rows at a fixed rate, and notes on disk what it does. It may be killed at any time.
//! Must not know faults.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use batchsql::durable::{self, DurableBatchSql, DurableExt, DurableOptions};
use batchsql::prometheus::PrometheusMetrics;
use batchsql::{
    Balance, BatchSql, ColumnType, Conflict, DeadLetters, Delivery, DynRow, OutcomeKind, PipelineConfig, Receipt,
    Schema,
};
use batchsql_testserver::sum;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::job::{Job, Mode, Names, Sabotage};
use super::job_file;
use super::ledger::{LedgerWriter, Lines};
use super::load::{self, RowId, Table};
use super::sabotaged;
use super::sample::Sample;
use super::sinks::{self, UserPool};

/// The commands of a writer: take all connections of the program's pool, give them back, end.
pub(super) const HOLD: &str = "hold";
pub(super) const RELEASE: &str = "release";
pub(super) const STOP: &str = "stop";

/// Time between two samples.
const SAMPLE: Duration = Duration::from_millis(50);
/// How long a writer may take to end its rows. Longer than any of the limits of its settings.
const END: Duration = Duration::from_secs(90);
/// Bytes of the text of a row, so that a bandwidth limit matters.
const PAD: usize = 80;

/// The settings of a job.
fn config(job: &Job) -> PipelineConfig {
    let repeats = job.at_least_once || job.sabotage == Some(Sabotage::Repeat);
    limits().delivery(if repeats { Delivery::AtLeastOnce } else { Delivery::default() })
}

/// Limits that are short enough for faults of some seconds, and a buffer that an outage fills.
pub(super) fn limits() -> PipelineConfig {
    PipelineConfig::default()
        .flush_size(100)
        .flush_interval(Duration::from_millis(20))
        .buffer_size(3_000)
        .max_concurrency(4)
        .retry_for(Duration::from_secs(20))
        .park_for(Duration::from_secs(20))
        .statement_timeout(Duration::from_secs(4))
}

/// The pipeline of a writer.
#[derive(Clone)]
enum Intake {
    Receipts(BatchSql),
    Durable(DurableBatchSql),
}

impl Intake {
    async fn start(job: &Job, pool: Option<&UserPool>, metrics: &PrometheusMetrics) -> Result<Self> {
        let sink = sinks::open(job, pool)?;
        let sink = match job.sabotage {
            Some(Sabotage::PositionAlone) => sabotaged::position_alone(sink),
            _ => sink,
        };
        let builder = BatchSql::builder(sink).config(config(job));
        let builder = builder.metrics_reporter(metrics.reporter("chaos"));
        let letters = || DeadLetters::file(&job.letters).context("cannot open the file of dead letters");
        Ok(match &job.mode {
            Mode::Receipts => Self::Receipts(builder.dead_letters(letters()?).start()?),
            Mode::Durable(folder) => {
                let options = match job.exactly_once {
                    true => DurableOptions::new(folder).exactly_once("chaos"),
                    false => DurableOptions::new(folder),
                };
                let options = options.dead_letters(&job.letters);
                let options = match job.sabotage {
                    Some(Sabotage::AcknowledgeEarly) => options.sabotage(durable::Sabotage::AcknowledgeEarly),
                    Some(Sabotage::SettleEarly) => options.sabotage(durable::Sabotage::SettleEarly),
                    Some(Sabotage::Repeat | Sabotage::PositionAlone) | None => options,
                };
                Self::Durable(builder.durable(options).start().await?)
            }
        })
    }

    fn balance(&self) -> Balance {
        match self {
            Self::Receipts(db) => db.balance(),
            Self::Durable(db) => db.stats().balance,
        }
    }

    fn sample(&self) -> Sample {
        Sample::of(&self.balance())
    }
}

/// What the tasks of a writer share.
struct Writer {
    intake: Intake,
    ledger: LedgerWriter,
    schemas: [Schema; 3],
    is_ending: watch::Sender<bool>,
}

/// Does the job of a file, until the input says `stop` or ends.
///
/// # Errors
/// The job cannot be read, or the pipeline cannot be started.
pub(super) async fn run(file: &Path) -> Result<()> {
    let job: Job = job_file::read(file)?;
    let metrics = PrometheusMetrics::new()?;
    let pool = sinks::user_pool(&job)?;
    let writer = Arc::new(Writer {
        intake: Intake::start(&job, pool.as_ref(), &metrics).await?,
        ledger: LedgerWriter::create(&job.ledger)?,
        schemas: schemas_of(&job.tables)?,
        is_ending: watch::Sender::new(false),
    });
    let mut producers = JoinSet::new();
    if job.rows_per_second > 0 {
        let (numbers, first) = load::producers(&job);
        // Each step submits a row to each table.
        let step = Duration::from_secs(1) * job.producers * Table::ALL.len() as u32 / job.rows_per_second;
        for producer in numbers {
            producers.spawn(Arc::clone(&writer).produce(producer, first, step));
        }
    }
    let sampling = tokio::spawn(sample(writer.intake.clone()));
    obey(pool).await?;
    writer.is_ending.send_replace(true);
    let mut lines = Lines::default();
    match &writer.intake {
        Intake::Receipts(db) => drop(db.close(END).await),
        Intake::Durable(db) => {
            // Rows that are being submitted are refused by `close`, so that those before end first.
            producers.join_all().await;
            producers = JoinSet::new();
            let flushed = tokio::time::timeout(END, db.flush()).await;
            if let Ok(Err(error)) = flushed {
                eprintln!("{error}");
            }
            lines.left(db.close(Duration::from_secs(5)).await.left_in_log);
        }
    }
    producers.join_all().await;
    sampling.abort();
    tell(writer.intake.sample());
    let balance = writer.intake.balance();
    lines.balance("accepted", balance.accepted);
    OutcomeKind::ALL.iter().for_each(|kind| lines.balance(kind.name(), balance.outcomes.get(*kind)));
    outcomes(&metrics.render()).for_each(|(outcome, rows)| lines.metric(outcome, rows));
    lines.end();
    writer.ledger.append(&lines)
}

/// The rows of each outcome in a scrape: `batchsql_records_outcome_total{…,outcome="written",…} 12`.
fn outcomes(scrape: &str) -> impl Iterator<Item = (&'static str, u64)> {
    OutcomeKind::ALL.into_iter().map(move |kind| {
        let rows = sum(scrape, "batchsql_records_outcome_total", &[("outcome", kind.name())]);
        (kind.name(), rows.unwrap_or_default() as u64)
    })
}

/// Prints a sample for the conductor, which may be gone: then the input ends too.
fn tell(sample: Sample) {
    let _ = writeln!(std::io::stdout(), "{sample}");
}

async fn sample(intake: Intake) {
    let mut ticks = interval(SAMPLE);
    loop {
        ticks.tick().await;
        tell(intake.sample());
    }
}

/// Does what the input says, until it says `stop`.
pub(super) async fn obey(pool: Option<UserPool>) -> Result<()> {
    let mut holding = None;
    loop {
        let command = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await.context("a panic")?;
        match command.transpose().context("cannot read the commands")?.as_deref() {
            Some(HOLD) => holding = pool.clone().map(|pool| AbortOnDrop(tokio::spawn(pool.hold_all()))),
            Some(RELEASE) => drop(holding.take()),
            Some(STOP) => return Ok(()),
            Some(other) => anyhow::bail!("unknown command {other}"),
            // Without a conductor the ledger is not read.
            None => anyhow::bail!("the conductor is gone"),
        }
    }
}

/// A task that ends with its handle.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The schemas of all tables.
pub(super) fn schemas_of(names: &Names) -> Result<[Schema; 3]> {
    let [plain, keyed, once] = Table::ALL.map(|table| schema_of(names, table));
    Ok([plain?, keyed?, once?])
}

/// The schema of a table.
pub(super) fn schema_of(names: &Names, table: Table) -> Result<Schema> {
    let (name, rule) = match table {
        Table::Plain => (&names.plain, Conflict::none()),
        Table::Keyed => (&names.keyed, Conflict::update(["id"])),
        Table::Once => (&names.once, Conflict::ignore(["id"])),
    };
    let columns = Schema::builder(name.as_str())
        .column("id", ColumnType::I64)
        .column("producer", ColumnType::I64)
        .column("seq", ColumnType::I64)
        .column("quality", ColumnType::I32)
        .column("pad", ColumnType::Text);
    Ok(columns.on_conflict(rule).build()?)
}

impl Writer {
    async fn produce(self: Arc<Self>, producer: u32, first: u64, step: Duration) {
        let mut receipts = JoinSet::new();
        let mut steps = interval(step);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_ending = self.is_ending.subscribe();
        for sequence in first.. {
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
    async fn submit(self: &Arc<Self>, row: RowId, receipts: &mut JoinSet<()>) {
        let mut lines = Lines::default();
        Table::ALL.into_iter().for_each(|table| lines.intend(table, row));
        self.note(&lines);
        for (table, schema) in Table::ALL.into_iter().zip(&self.schemas) {
            let values = values(schema, table, row).expect("the schemas have these columns");
            let mut lines = Lines::default();
            match &self.intake {
                Intake::Receipts(db) => match db.submit_tracked(&values).await {
                    Ok(receipt) => {
                        lines.accepted(table, row);
                        self.note(&lines);
                        receipts.spawn(Arc::clone(self).follow(table, row, receipt));
                        continue;
                    }
                    Err(_) => lines.refused(table, row),
                },
                Intake::Durable(db) => match db.submit(&values).await {
                    Ok(()) => lines.accepted(table, row),
                    // The log may have it.
                    Err(error) if error.is_undetermined() => {}
                    Err(_) => lines.refused(table, row),
                },
            }
            self.note(&lines);
        }
    }

    async fn follow(self: Arc<Self>, table: Table, row: RowId, receipt: Receipt) {
        let mut lines = Lines::default();
        lines.ended(table, row, receipt.await.kind());
        self.note(&lines);
    }

    /// Writes the ledger. A writer whose ledger is wrong proves nothing, so it ends.
    fn note(&self, lines: &Lines) {
        if let Err(error) = self.ledger.append(lines) {
            eprintln!("{error:#}");
            std::process::exit(1);
        }
    }
}

/// A row of a table.
pub(super) fn values(schema: &Schema, table: Table, row: RowId) -> Result<DynRow, batchsql::RowError> {
    schema
        .row()
        .set("id", row.key(table))?
        .set("producer", i64::from(row.producer))?
        .set("seq", row.sequence as i64)?
        .set("quality", if row.is_bad() { -1_i32 } else { 1 })?
        .set("pad", "x".repeat(PAD))?
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcomes_of_a_scrape_are_summed_over_tables() {
        let scrape = "# HELP x\nbatchsql_records_outcome_total{outcome=\"written\",table=\"a\"} 2\n\
                      batchsql_records_outcome_total{table=\"b\",outcome=\"written\"} 3\n\
                      batchsql_records_outcome_total{table=\"b\",outcome=\"unknown\"} 1\n";
        let found: Vec<_> = outcomes(scrape).filter(|(_, rows)| *rows > 0).collect();
        assert_eq!(found, [("written", 5), ("unknown", 1)]);
    }
}
