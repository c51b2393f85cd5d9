//! Owns the end of an intake, and the wait until the rows in the log have ended.
//! Must not know who asks for it.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use batchsql_core::CloseReport;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::feed::stream::Stream;
use crate::health::DurableCloseReport;
use crate::shared::Shared;

/// Longer than any process runs.
const FAR: Duration = Duration::from_secs(10 * 365 * 86_400);

/// How often open batches are written while a flush waits.
const NUDGE: Duration = Duration::from_millis(5);

/// Begins to close, once. The earliest deadline of all calls holds.
pub(crate) fn begin(shared: &Arc<Shared>, deadline: Duration) -> watch::Receiver<Option<DurableCloseReport>> {
    end_by(shared, Instant::now() + deadline.min(FAR));
    let begin = || {
        let (report, closing) = watch::channel(None);
        let theirs = Arc::clone(shared);
        shared.gather.close();
        shared.runtime.spawn(async move {
            let closed = run(&theirs).await;
            report.send_replace(Some(closed));
        });
        closing
    };
    shared.closing.get_or_init(begin).clone()
}

/// Closing ends by then, unless it ends earlier.
pub(crate) fn end_by(shared: &Shared, at: Instant) {
    shared.close_at.send_if_modified(|earliest| {
        let is_earlier = earliest.is_none_or(|earliest| at < earliest);
        if is_earlier {
            *earliest = Some(at);
        }
        is_earlier
    });
}

/// Closes all parts, by the time of [`end_by`]. It may be called again after a call that was cancelled.
pub(crate) async fn run(shared: &Shared) -> DurableCloseReport {
    let begin = Instant::now();
    let mut close_at = shared.close_at.subscribe();
    let appender = shared.appender.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(appender) = appender {
        // What was gathered is appended or refused: the log does not wait for space. A panic of it has been printed.
        let _ = appender.await;
    }
    tokio::select! {
        biased;
        _ = drained(shared) => {}
        () = over(&mut close_at) => {}
    }
    let pipeline = close_pipeline(shared, &mut close_at).await;
    shared.partitions.feeds.end().await;
    let left_in_log = shared.log.stats().unsettled_rows;
    let log_error = shared.log.close().await.err().map(|error| error.to_string());
    let monitoring = shared.monitoring.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(monitoring) = monitoring {
        monitoring.abort();
        // It was aborted, or has ended because there are no observers.
        let _ = monitoring.await;
    }
    // The last one, when nothing changes any more.
    shared.monitor.report();
    DurableCloseReport { pipeline, left_in_log, log_error, took: begin.elapsed() }
}

/// Returns at the deadline, which may become earlier meanwhile.
async fn over(close_at: &mut watch::Receiver<Option<Instant>>) {
    loop {
        let at = close_at.borrow_and_update().unwrap_or_else(Instant::now);
        tokio::select! {
            () = sleep_until(at) => return,
            Ok(()) = close_at.changed() => {}
        }
    }
}

async fn close_pipeline(shared: &Shared, close_at: &mut watch::Receiver<Option<Instant>>) -> CloseReport {
    loop {
        let at = close_at.borrow_and_update().unwrap_or_else(Instant::now);
        tokio::select! {
            report = shared.pipeline.close(at.saturating_duration_since(Instant::now())) => return report,
            Ok(()) = close_at.changed() => {}
        }
    }
}

/// Waits until the rows that are in the log now have ended. False if they will not: a partition has stopped, or the intake is
/// closed.
pub(crate) async fn drained(shared: &Shared) -> bool {
    let mut progress = shared.partitions.feeds.progress();
    let mut is_ending = shared.partitions.feeds.ending();
    let mut left: Vec<(Arc<Stream>, u64)> =
        shared.partitions.all().into_iter().map(|stream| (Arc::clone(&stream), *stream.appended.borrow())).collect();
    loop {
        progress.mark_unchanged();
        left.retain(|(stream, target)| stream.state.settled() < *target);
        if left.is_empty() {
            return true;
        }
        let is_over = *is_ending.borrow_and_update();
        if is_over || left.iter().all(|(stream, _)| stream.state.stopped().is_some()) {
            return false;
        }
        // The last batches would wait for `flush_interval`. Rows that are read later are in later batches.
        tokio::select! {
            _ = async {
                tokio::time::sleep(NUDGE).await;
                let _ = shared.pipeline.flush().await;
            } => {}
            _ = progress.changed() => {}
            _ = is_ending.changed() => {}
        }
    }
}
