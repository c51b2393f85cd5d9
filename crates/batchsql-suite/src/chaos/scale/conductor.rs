//! Owns one run with faults: rows are published while workers, NATS and the database are killed, then the tables are compared
//! with what was published. Must not know which runs there are.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::faults::{Fault, Timed};
use super::job::{Job, Sabotage, Stream, exactly_once};
use super::measure::PARTITIONS;
use super::publish::Publisher;
use super::servers::{Servers, Tables};
use super::workers::Workers;
use crate::chaos::check::{Checked, Promises, Wrong, check};
use crate::chaos::fault;
use crate::chaos::ledger::Ledger;
use crate::chaos::letters::{self, Letters};
use crate::chaos::sample::now;
use crate::chaos::stage::Stage;
use crate::chaos::writer::schemas_of;

/// Rows per second of the publisher, over all tables.
const ROWS_PER_SECOND: u32 = 1_500;
/// How long workers may take to write what is in the stream.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time between two looks at the tables.
const LOOK: Duration = Duration::from_secs(1);

/// What a run has found.
pub(super) struct Done {
    pub(super) checked: Checked,
    /// Partitions that were taken over; `None` where workers have no leases.
    pub(super) takeovers: Option<u64>,
}

/// Carries a run out.
///
/// # Errors
/// It could not be carried out: a fault could not be caused, or a program did not do what it must.
pub(super) async fn run(
    servers: &Servers,
    count: u32,
    (faults, seed): (&[Timed], u64),
    sabotage: Option<Sabotage>,
) -> Result<Done> {
    let folder = TempDir::new().context("cannot create a folder")?;
    let Tables { names, mut stage } = servers.tables(folder.path(), seed).await?;
    let schemas = Arc::new(schemas_of(&names)?);
    let stream = Stream { name: format!("scale{:x}", now()), partitions: PARTITIONS };
    let publisher = Publisher::start(servers.nats(), &stream, folder.path()).await?;
    let job = Job {
        database: servers.database,
        dsn: servers.dsn().to_owned(),
        nats: servers.nats().to_owned(),
        stream,
        tables: names.clone(),
        owner: String::new(),
        letters: PathBuf::new(),
        sabotage,
    };
    let mut workers = Workers::start(folder.path(), job, count).await?;
    let (over, is_over) = watch::channel(false);
    let publishing = async {
        let ledger = publisher.publish_at(schemas, ROWS_PER_SECOND, is_over).await?;
        publisher.close().await;
        anyhow::Ok(ledger)
    };
    let causing = async {
        let caused = cause(servers, &mut stage, &mut workers, faults).await;
        over.send_replace(true);
        caused
    };
    let (ledger, caused) = tokio::join!(publishing, causing);
    caused.with_context(|| workers.log())?;
    let mut ledger = ledger?;
    let promises = Promises {
        is_durable: true,
        exactly_once: exactly_once(servers.database),
        at_least_once: false,
        refuses_bad_rows: stage.refuses_bad_rows(),
    };
    let begin = Instant::now();
    loop {
        ledger.letters = letters_of(&workers, &names)?;
        // Rows that are still in the stream look lost, or as if an older one had overwritten them.
        let checked = compare(&ledger, &stage, promises).await?;
        // A row that is there twice stays so. Without a defect on purpose the other rows are waited for nevertheless.
        let is_found = sabotage.is_some() && checked.of(Wrong::Doubled) > 0;
        if checked.count == 0 || is_found || begin.elapsed() > PATIENCE {
            break;
        }
        sleep(LOOK).await;
    }
    let stopped = workers.stop().await;
    // With a defect on purpose, partitions may stop.
    if sabotage.is_none() {
        stopped?;
    }
    ledger.letters = letters_of(&workers, &names)?;
    let takeovers = exactly_once(servers.database).then(|| workers.takeovers());
    Ok(Done { checked: compare(&ledger, &stage, promises).await?, takeovers })
}

async fn compare(ledger: &Ledger, stage: &Stage, promises: Promises) -> Result<Checked> {
    let found = stage.read().await?;
    Ok(check(std::slice::from_ref(ledger), &found, promises))
}

/// The dead letters of all workers.
fn letters_of(workers: &Workers, names: &crate::chaos::job::Names) -> Result<Letters> {
    let mut all = Letters::default();
    for file in workers.letters() {
        for (row, count) in letters::read(file, names)? {
            *all.entry(row).or_default() += count;
        }
    }
    Ok(all)
}

/// Causes the faults one after the other.
async fn cause(servers: &Servers, stage: &mut Stage, workers: &mut Workers, faults: &[Timed]) -> Result<()> {
    for Timed { fault, pause, lasts, choice } in faults {
        sleep(*pause).await;
        let at = workers.chosen(*choice);
        let of_fault = || format!("cannot cause {}", fault.name());
        match fault {
            Fault::WorkerKilled => {
                workers.kill(at).with_context(of_fault)?;
                sleep(*lasts).await;
                workers.replace(at).with_context(of_fault)?;
            }
            Fault::WorkerPaused => {
                workers.pause(at).with_context(of_fault)?;
                sleep(*lasts).await;
                workers.resume(at).with_context(of_fault)?;
            }
            Fault::NatsKilled => {
                servers.kill_nats().await.with_context(of_fault)?;
                sleep(*lasts).await;
                servers.start_nats().await.with_context(of_fault)?;
            }
            Fault::DatabaseKilled => {
                let begun = stage.begin_alone(fault::Fault::ServerKilled).await.with_context(of_fault)?;
                sleep(*lasts).await;
                stage.end_alone(begun).await.with_context(of_fault)?;
            }
        }
    }
    Ok(())
}
