//! Owns the process of a worker: it writes the rows of its partitions until its input says `stop`. It may be killed at any time.
//! Must not know faults.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use batchsql::{BatchSql, FeedProgress, MetricsReporter, PipelineConfig};
use batchsql_nats::Worker;
use tokio::time::interval;

use super::job::{Job, STATEMENT, Sabotage};
use super::unfenced::unfenced;
use crate::chaos::job::Pool;
use crate::chaos::job_file;
use crate::chaos::sample::Sample;
use crate::chaos::sinks::{self, Target};
use crate::chaos::writer::obey;

/// Time between two samples.
const SAMPLE: Duration = Duration::from_millis(50);
/// How long it may take to end what is under way.
const END: Duration = Duration::from_secs(30);
/// Time between two connections to a NATS server that is unreachable.
const AGAIN: Duration = Duration::from_millis(200);

/// A connection that waits for a server that is unreachable, now and later.
pub(super) async fn connect(url: &str) -> Result<jetstream::Context> {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect().reconnect_delay_callback(|_| AGAIN);
    Ok(jetstream::new(options.connect(url).await.context("cannot connect to NATS")?))
}

/// Does the job of a file, until the input says `stop` or ends.
///
/// # Errors
/// The job cannot be read, or the worker cannot be started.
pub(super) async fn run(file: &Path) -> Result<()> {
    let job: Job = job_file::read(file)?;
    let target = Target { database: job.database, dsn: &job.dsn, pool: Pool::Own, tables: &job.tables };
    let sink = sinks::open(target, None)?;
    let sink = match job.sabotage {
        Some(Sabotage::Unfenced) => unfenced(sink),
        None => sink,
    };
    let takeovers = Takeovers::default();
    let builder = BatchSql::builder(sink).config(PipelineConfig::default().statement_timeout(STATEMENT));
    let builder = builder.metrics_reporter(takeovers.clone());
    let worker = Worker::start(connect(&job.nats).await?, builder, job.options()).await?;
    let (pipeline, counted, mut ticks) = (worker.pipeline().clone(), takeovers.clone(), interval(SAMPLE));
    let sampling = tokio::spawn(async move {
        loop {
            ticks.tick().await;
            tell(&pipeline, &counted);
        }
    });
    obey(None).await?;
    let stopped = worker.stats().stopped;
    worker.close(END).await;
    sampling.abort();
    tell(worker.pipeline(), &takeovers);
    anyhow::ensure!(stopped.is_empty(), "partitions have stopped: {stopped:?}");
    Ok(())
}

/// Counts the partitions that this worker has taken over.
#[derive(Debug, Clone, Default)]
struct Takeovers(Arc<AtomicU64>);

impl MetricsReporter for Takeovers {
    fn feed_progress(&self, progress: &FeedProgress) {
        self.0.fetch_add(progress.takeovers, Ordering::Relaxed);
    }
}

/// Prints a sample for the conductor, which may be gone: then the input ends too.
fn tell(pipeline: &BatchSql, takeovers: &Takeovers) {
    let takeovers = takeovers.0.load(Ordering::Relaxed);
    let sample = Sample { takeovers, ..Sample::of(&pipeline.balance()) };
    let _ = writeln!(std::io::stdout(), "{sample}");
}
