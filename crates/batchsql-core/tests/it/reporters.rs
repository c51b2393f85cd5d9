//! Several reporters of one pipeline, and reporters around another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use batchsql_core::{BatchInfo, BatchSealed, BatchSql, MetricsReporter, NoopReporter, OutcomeCounts, PipelineGauges};
use batchsql_testkit::ScriptedSink;

use crate::support::{HOUR, Recorder, config, plain, row};

/// Panics in every method that a written row calls.
struct Panics;

impl MetricsReporter for Panics {
    fn context(&self) -> Option<Arc<str>> {
        panic!("context")
    }

    fn batch_sealed(&self, _: &BatchInfo<'_>, _: &BatchSealed) {
        panic!("batch_sealed")
    }

    fn rows_resolved(&self, _: &BatchInfo<'_>, _: &OutcomeCounts) {
        panic!("rows_resolved")
    }

    fn gauges(&self, _: &PipelineGauges) {
        panic!("gauges")
    }
}

/// Counts the resolved rows itself and passes on everything else.
struct Around(Recorder, Arc<AtomicUsize>);

impl MetricsReporter for Around {
    fn inner(&self) -> Option<&dyn MetricsReporter> {
        Some(&self.0)
    }

    fn rows_resolved(&self, _: &BatchInfo<'_>, counts: &OutcomeCounts) {
        self.1.fetch_add(counts.total() as usize, Ordering::SeqCst);
    }
}

#[tokio::test(start_paused = true)]
async fn every_reporter_gets_every_event_also_after_one_that_panics() {
    let (first, second) = (Recorder::default(), Recorder::default());
    second.0.lock().unwrap().context = Some("second".into());
    let builder = BatchSql::builder(ScriptedSink::new()).config(config());
    let builder = builder.metrics_reporter(first.clone()).metrics_reporter(Panics).metrics_reporter(NoopReporter);
    let db = builder.metrics_reporter(second.clone()).start().unwrap();
    for id in 0..25 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    assert_eq!(db.close(HOUR).await.balance.written(), 25);
    assert!(db.try_submit(&row(&plain(), 1)).is_err());
    for recorder in [first, second] {
        let recorded = recorder.0.lock().unwrap();
        assert_eq!((recorded.received, recorded.resolved), (25, 25));
        assert_eq!((recorded.executed.len(), recorded.refused.as_slice()), (recorded.sealed.len(), &["closed"][..]));
        assert!(recorded.gauges.is_some());
        assert!(recorded.contexts.iter().all(|context| context.as_deref() == Some("second")), "the first that has one");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reporter_around_another_one_replaces_one_method_and_keeps_the_rest() {
    let (inner, resolved) = (Recorder::default(), Arc::new(AtomicUsize::new(0)));
    inner.0.lock().unwrap().context = Some("inner".into());
    let around = Around(inner.clone(), Arc::clone(&resolved));
    let db = BatchSql::builder(ScriptedSink::new()).config(config()).metrics_reporter(around).start().unwrap();
    for id in 0..10 {
        db.submit(&row(&plain(), id)).await.unwrap();
    }
    db.close(HOUR).await;
    let recorded = inner.0.lock().unwrap();
    assert_eq!((resolved.load(Ordering::SeqCst), recorded.resolved), (10, 0), "the method that was replaced");
    assert_eq!((recorded.received, recorded.executed.len()), (10, 1));
    assert!(recorded.gauges.is_some());
    assert_eq!(recorded.contexts, [Some("inner".to_owned())]);
}
