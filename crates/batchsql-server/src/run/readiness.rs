//! Owns when `/ready` says yes: in memory while the database can be reached, with a durable intake while rows are accepted, and
//! without an intake while every stream can be read; never while all partitions of streams have stopped. It names the sources of
//! streams in any case.
//! Must not know HTTP.

use std::time::Duration;

use batchsql::prometheus::PrometheusMetrics;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::intake::Intake;
use crate::sources::loaders::Loaders;
use crate::sources::state::State;

const PERIOD: Duration = Duration::from_millis(500);
/// A log that is full is said again after this time.
const SAY_AGAIN: Duration = Duration::from_secs(300);
/// When no rows come, nothing else finds out that the database is back.
const CHECK_PERIOD: Duration = Duration::from_secs(5);

/// What it depends on.
pub(crate) struct Watched {
    /// `None` if all rows come from streams.
    pub(crate) intake: Option<Intake>,
    pub(crate) loaders: Loaders,
    /// Of streams, by their ids.
    pub(crate) sources: Vec<(String, watch::Receiver<State>)>,
    pub(crate) metrics: PrometheusMetrics,
}

impl Watched {
    /// Looks until it is dropped.
    pub(crate) async fn watch(self) {
        tokio::join!(self.report(), self.check());
    }

    async fn report(&self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut full_said: Option<Instant> = None;
        loop {
            ticks.tick().await;
            self.tell();
            if self.intake.as_ref().is_some_and(Intake::log_is_full)
                && full_said.is_none_or(|said| said.elapsed() >= SAY_AGAIN)
            {
                full_said = Some(Instant::now());
                tracing::warn!(
                    "the log of [durable] takes no rows now: it has all of `disk`, its disk has less than `min_free`, or the disk fails; rows \
                     are accepted again when there is space"
                );
            }
        }
    }

    /// Says it once.
    pub(crate) fn tell(&self) {
        let states: Vec<(&str, State)> = self.sources.iter().map(|(id, state)| (&**id, *state.borrow())).collect();
        let lines: Vec<String> = states.iter().map(|(id, state)| format!("source {id}: {state}")).collect();
        self.metrics.set_ready_detail(lines.join("\n"));
        self.metrics.set_ready(match &self.intake {
            // Requests are accepted, whatever streams do, unless nothing of these goes on without a person.
            Some(intake) => self.can_write(intake) && !have_all_stopped(&states),
            None => states.iter().all(|(_, state)| state.is_ready()),
        });
    }

    /// A durable intake takes rows also without the database.
    fn can_write(&self, intake: &Intake) -> bool {
        intake.is_ready() && (intake.is_durable() || self.loaders.are_ready())
    }

    /// Connects again while the database cannot be reached. A durable intake does so by itself, as its rows wait.
    async fn check(&self) {
        let Some(intake @ Intake::Memory(db, _)) = &self.intake else { return };
        let mut ticks = interval(CHECK_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if !intake.is_ready()
                && let Err(error) = db.check_connection().await
            {
                tracing::debug!(%error, "the database cannot be reached");
            }
            self.loaders.check().await;
        }
    }
}

/// Whether there are streams, and every partition of them that this process has is stopped.
fn have_all_stopped(states: &[(&str, State)]) -> bool {
    !states.is_empty() && states.iter().all(|(_, state)| matches!(state, State::AllStopped(..)))
}

#[cfg(test)]
mod tests {
    use batchsql::{BatchSql, DynSink, ErrorClass, StopReason};
    use batchsql_testkit::{ScriptedSink, Step};

    use std::sync::Arc;

    use super::*;
    use crate::failed_log::FailedLog;

    /// No row comes any more: the load balancer sends them elsewhere.
    #[tokio::test(start_paused = true)]
    async fn a_database_that_is_back_is_found_without_rows() {
        let sink = ScriptedSink::new();
        sink.script_acquire([Step::Fail(ErrorClass::Transient), Step::Fail(ErrorClass::Transient)]);
        let db = BatchSql::builder(DynSink::new(sink)).start().unwrap();
        db.check_connection().await.unwrap_err();
        let intake = Intake::Memory(db, Arc::new(FailedLog::new(None)));
        assert!(!intake.is_ready());
        let metrics = PrometheusMetrics::new().unwrap();
        let loaders = Loaders::default();
        tokio::spawn(Watched { intake: Some(intake.clone()), loaders, sources: Vec::new(), metrics }.watch());
        tokio::time::sleep(CHECK_PERIOD / 2).await;
        assert!(!intake.is_ready());
        tokio::time::sleep(CHECK_PERIOD).await;
        assert!(intake.is_ready());
    }

    #[test]
    fn requests_are_not_taken_while_all_partitions_have_stopped() {
        let reading = State::Reading { partitions: 4, messages: 0 };
        let (some, all) = (State::Stopped(3, StopReason::Schema), State::AllStopped(4, StopReason::Schema));
        let check = |states: &[State], expected: bool| {
            let states: Vec<(&str, State)> = states.iter().map(|state| ("id", *state)).collect();
            assert_eq!(have_all_stopped(&states), expected, "{states:?}");
        };
        check(&[], false);
        check(&[some], false);
        check(&[all, reading], false);
        check(&[all, State::Trouble], false);
        check(&[all, all], true);
    }
}
