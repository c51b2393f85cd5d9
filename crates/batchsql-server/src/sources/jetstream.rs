//! Owns a stream as a source: its worker from the start to the end.
//! Must not know how a worker is made, or what it writes.

use std::sync::Arc;
use std::time::Duration;

use batchsql::nats::{Worker, WorkerStats};
use batchsql::{BatchSqlBuilder, CloseReport, DynSink, StopReason};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::config::settings::JetStream;
use crate::exit::{Exit, Failure};
use crate::failed_log::{FailedLog, Kept};
use crate::nats::worker;
use crate::sources::state::State;
use crate::table::target::Target;

/// How often it is looked what the worker does.
const LOOK: Duration = Duration::from_millis(500);

/// What a worker is started with.
pub(crate) struct Start {
    pub(crate) id: String,
    pub(crate) source: Box<JetStream>,
    pub(crate) builder: BatchSqlBuilder<DynSink>,
    /// It is told the rows that are rejected.
    pub(crate) failed: Arc<FailedLog>,
    pub(crate) tables: Vec<Arc<Target>>,
    pub(crate) accept_gaps: bool,
}

/// Reads until `ending` has the time in which the worker has to end; a later one shortens it. It has failed when rows are in the
/// dead letters, or messages were set aside.
///
/// # Errors
/// The worker cannot be started.
pub(crate) async fn run(
    start: Start,
    state: watch::Sender<State>,
    mut ending: watch::Receiver<Option<Duration>>,
) -> Result<Exit, Failure> {
    let Start { id, source, builder, failed, tables, accept_gaps } = start;
    let worker = tokio::select! {
        started = worker::start(&id, &source, builder, tables, accept_gaps) => {
            started.map_err(|failure| Failure { text: format!("source {id}: {}", failure.text), ..failure })?
        }
        _ = ending.wait_for(Option::is_some) => return Ok(Exit::Done),
    };
    tracing::info!(source = id, stream = source.stream.name, "reading a stream");
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let limit = loop {
        tokio::select! {
            _ = ticks.tick() => {
                state.send_replace(state_of(&worker));
            }
            is_ending = ending.wait_for(Option::is_some) => {
                break is_ending.ok().and_then(|limit| *limit).unwrap_or_default();
            }
        }
    };
    state.send_replace(State::Ended);
    let report = close(&worker, limit, ending).await;
    failed.end(Kept::All);
    let WorkerStats { counts, foreign_messages, .. } = worker.stats();
    let dead_letters = counts.dead_letters;
    tracing::info!(source = id, dead_letters, foreign_messages, "the worker has ended: {}", report.balance);
    Ok(if dead_letters + foreign_messages > 0 { Exit::Failed } else { Exit::Done })
}

/// Ends the worker within `limit`, or the shorter one that comes meanwhile.
async fn close(worker: &Worker, limit: Duration, mut ending: watch::Receiver<Option<Duration>>) -> CloseReport {
    let shortened = async {
        match ending.changed().await {
            Ok(()) => {
                let limit = ending.borrow_and_update().unwrap_or_default();
                worker.close(limit).await
            }
            // Nobody is left who could.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        // It begins in any case.
        biased;
        report = worker.close(limit) => report,
        report = shortened => report,
    }
}

fn state_of(worker: &Worker) -> State {
    let stats = worker.stats();
    match (stats.stopped.len(), &stats.trouble, stats.waiting.len()) {
        (0, None, 0) => State::Reading { partitions: stats.partitions.len(), messages: stats.pending() },
        (0, Some(_), _) => State::Trouble,
        (0, None, waiting) => State::Waiting(waiting),
        (stopped, _, _) => {
            let kind = stats.stopped.first().and_then(|stopped| stopped.kind);
            // As the metrics have it.
            let kind = kind.unwrap_or(StopReason::Defect);
            // Those of another worker are no longer among the stopped ones.
            if stopped >= stats.partitions.len() {
                State::AllStopped(stopped, kind)
            } else {
                State::Stopped(stopped, kind)
            }
        }
    }
}
