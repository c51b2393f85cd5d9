//! Owns the pipelines of the sources that load files: their rejected records are in the files of rejected records, so they are not
//! in the dead letters, and do not count at the end.
//! Must not know how a file is loaded.

use std::collections::BTreeMap;
use std::time::Duration;

use batchsql::prometheus::PrometheusMetrics;
use batchsql::{BatchSql, DynSink, Sink as _};
use futures_util::future::join_all;

use crate::config::settings::{Settings, SourceKind};
use crate::exit::Failure;

/// What is being written when the service ends is written again by the next start otherwise.
const LAST_ROWS: Duration = Duration::from_secs(1);

/// One for each source, by its id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loaders(BTreeMap<String, BatchSql>);

impl Loaders {
    /// # Errors
    /// The settings contradict each other.
    pub(crate) fn start(settings: &Settings, sink: &DynSink, metrics: &PrometheusMetrics) -> Result<Self, Failure> {
        let files = settings.sources.iter().filter(|source| matches!(source.kind, SourceKind::Files(_)));
        let start = |id: &str| {
            // Pipelines that run at the same time need different names.
            let label = format!("{}/{id}", sink.name());
            let builder = BatchSql::builder(sink.clone()).config(settings.pipeline.clone());
            builder.metrics_reporter(metrics.reporter(label)).start().map_err(Failure::mistake)
        };
        files.map(|source| Ok((source.id.clone(), start(&source.id)?))).collect::<Result<_, _>>().map(Self)
    }

    pub(crate) fn of(&self, id: &str) -> &BatchSql {
        &self.0[id]
    }

    /// Whether the database can be reached, as far as they know.
    pub(crate) fn are_ready(&self) -> bool {
        self.0.values().all(|db| db.health().is_reachable())
    }

    /// Connects again where the database cannot be reached.
    pub(crate) async fn check(&self) {
        for db in self.0.values().filter(|db| !db.health().is_reachable()) {
            if let Err(error) = db.check_connection().await {
                tracing::debug!(%error, "the database cannot be reached");
            }
        }
    }

    /// Ends them at the same time, when nothing is loaded any more.
    pub(crate) async fn close(&self) {
        join_all(self.0.values().map(|db| db.close(LAST_ROWS))).await;
    }
}

#[cfg(test)]
mod tests {
    use batchsql::FieldRules;
    use batchsql_testkit::{ScriptedSink, Step};
    use tokio::time::Instant;

    use super::*;
    use crate::table::record::tests::orders;

    /// Each waits for its rows: one after the other would take as long as all of them.
    #[tokio::test(start_paused = true)]
    async fn all_of_them_end_at_the_same_time() {
        let mut times = Vec::new();
        for ids in [&["a"][..], &["a", "b", "c", "d"]] {
            let mut loaders = BTreeMap::new();
            for id in ids {
                let sink = ScriptedSink::new();
                sink.script([Step::Hang]);
                let db = BatchSql::builder(DynSink::new(sink)).start().unwrap();
                let row = orders(FieldRules::default()).row_of_json(br#"{"id":1}"#).unwrap();
                db.submit_all([row]).await.unwrap();
                loaders.insert((*id).to_owned(), db);
            }
            let begin = Instant::now();
            Loaders(loaders).close().await;
            times.push(begin.elapsed());
        }
        assert!(times[0] >= LAST_ROWS && times[1] < 2 * times[0], "{times:?}");
    }
}
