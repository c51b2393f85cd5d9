//! Owns when `/ready` says yes: in memory while the database can be reached, with a durable intake while rows are accepted.
//! Must not know HTTP.

use std::time::Duration;

use batchsql::prometheus::PrometheusMetrics;
use tokio::time::{MissedTickBehavior, interval};

use crate::intake::Intake;

const PERIOD: Duration = Duration::from_millis(500);
/// When no rows come, nothing else finds out that the database is back.
const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// Looks at the intake until it is dropped.
pub(crate) async fn watch(intake: Intake, metrics: PrometheusMetrics) {
    tokio::join!(report(&intake, &metrics), check(&intake));
}

async fn report(intake: &Intake, metrics: &PrometheusMetrics) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        metrics.set_ready(intake.is_ready());
    }
}

/// Connects again while the database cannot be reached. A durable intake does so by itself, as its rows wait.
async fn check(intake: &Intake) {
    let Intake::Memory(db) = intake else { return };
    let mut ticks = interval(CHECK_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !intake.is_ready()
            && let Err(error) = db.check_connection().await
        {
            tracing::debug!(%error, "the database cannot be reached");
        }
    }
}

#[cfg(test)]
mod tests {
    use batchsql::{BatchSql, DynSink, ErrorClass};
    use batchsql_testkit::{ScriptedSink, Step};

    use super::*;

    /// No row comes any more: the load balancer sends them elsewhere.
    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_back_is_found_without_rows() {
        let sink = ScriptedSink::new();
        sink.script_acquire([Step::Fail(ErrorClass::Transient), Step::Fail(ErrorClass::Transient)]);
        let db = BatchSql::builder(DynSink::new(sink)).start().unwrap();
        db.check_connection().await.unwrap_err();
        let intake = Intake::Memory(db);
        assert!(!intake.is_ready());
        tokio::spawn(watch(intake.clone(), PrometheusMetrics::new().unwrap()));
        tokio::time::sleep(CHECK_PERIOD / 2).await;
        assert!(!intake.is_ready());
        tokio::time::sleep(CHECK_PERIOD).await;
        assert!(intake.is_ready());
    }
}
