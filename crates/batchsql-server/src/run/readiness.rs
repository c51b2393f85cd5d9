//! Owns when `/ready` says yes: while rows are accepted.
//! Must not know HTTP.

use std::time::Duration;

use batchsql::prometheus::PrometheusMetrics;
use tokio::time::{MissedTickBehavior, interval};

use crate::intake::Intake;

const PERIOD: Duration = Duration::from_millis(500);

/// Looks at the intake until it is dropped.
pub(crate) async fn watch(intake: Intake, metrics: PrometheusMetrics) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        metrics.set_ready(intake.is_ready());
    }
}
