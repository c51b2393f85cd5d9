//! Owns the sources of a service together: their start, and their end.
//! Must not know how a source is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use batchsql::DynSink;
#[cfg(feature = "nats")]
use batchsql::Sink as _;
use batchsql::prometheus::PrometheusMetrics;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::timeout;

use crate::config::settings::{Settings, SourceKind};
use crate::database_id;
use crate::exit::{Exit, Failure};
#[cfg(feature = "nats")]
use crate::failed_log::FailedLog;
use crate::intake::Intake;
use crate::load::stop::Stopper;
use crate::nats::publisher::Opening;
use crate::sources::loaders::Loaders;
use crate::sources::state::State;
use crate::sources::{files, stdin};
use crate::table::target::Target;

/// What sources write to.
pub(crate) struct Supply<'a> {
    pub(crate) settings: &'a Settings,
    /// `None` if no source needs it.
    pub(crate) intake: Option<&'a Intake>,
    /// The pipelines of sources that load files.
    pub(crate) loaders: &'a Loaders,
    pub(crate) sink: &'a DynSink,
    pub(crate) tables: &'a BTreeMap<String, Arc<Target>>,
    pub(crate) metrics: &'a PrometheusMetrics,
    /// The ids of sources whose missing messages are accepted.
    pub(crate) accept_gaps: &'a [String],
}

type Tasks = JoinSet<Result<Exit, Failure>>;

/// The sources that run. Dropping it ends them at once.
pub(crate) struct Sources {
    /// Those that go on with the next start, wherever they were.
    readers: Tasks,
    /// Of those that end at once, wherever they are.
    at_once: Vec<AbortHandle>,
    /// Of those that load files.
    loads: Stopper,
    /// Those of streams.
    workers: Tasks,
    /// Becomes the time in which workers have to end.
    ending: watch::Sender<Option<Duration>>,
    states: Vec<(String, watch::Receiver<State>)>,
    /// Lines of standard input were no rows.
    has_refused: Arc<AtomicBool>,
    exit: Exit,
}

impl Sources {
    /// Starts the sources. A task ends when its source has no more rows, or cannot be read any more; files and messages may
    /// always come.
    pub(crate) fn start(supply: &Supply<'_>) -> Self {
        let (readers, workers, states) = (JoinSet::new(), JoinSet::new(), Vec::new());
        let (ending, has_refused) = (watch::Sender::new(None), Arc::default());
        let (at_once, loads, exit) = (Vec::new(), Stopper::new(), Exit::Done);
        let mut sources = Self { readers, at_once, loads, workers, ending, states, has_refused, exit };
        for source in &supply.settings.sources {
            let id = source.id.clone();
            match (&source.kind, supply.intake) {
                (SourceKind::JetStream(stream), _) => sources.work(supply, id, stream),
                (SourceKind::Stdin { table }, Some(intake)) => {
                    let (intake, target) = (intake.clone(), Arc::clone(&supply.tables[table]));
                    let has_refused = Arc::clone(&sources.has_refused);
                    let reading = async move { Ok(stdin::run(&id, &intake, &target, &has_refused).await) };
                    sources.at_once.push(sources.readers.spawn(reading));
                }
                (SourceKind::Files(files), _) => {
                    let (db, target) = (supply.loaders.of(&id).clone(), Arc::clone(&supply.tables[&files.table]));
                    let (files, sink) = (files.clone(), supply.sink.clone());
                    let database = database_id::of_destination(&supply.settings.destination);
                    let stop = sources.loads.watched();
                    let loading =
                        async move { Ok(files::run(&id, &files, (&db, &sink), &target, &database, stop).await) };
                    sources.readers.spawn(loading);
                }
                (SourceKind::Stdin { .. }, None) => unreachable!("this source has an intake"),
            }
        }
        sources
    }

    /// One reader, for tests of how a service ends.
    #[cfg(test)]
    pub(crate) fn reading(reader: impl Future<Output = Result<Exit, Failure>> + Send + 'static) -> Self {
        let (mut readers, workers, states) = (JoinSet::new(), JoinSet::new(), Vec::new());
        readers.spawn(reader);
        let (ending, has_refused) = (watch::Sender::new(None), Arc::default());
        let (at_once, loads, exit) = (Vec::new(), Stopper::new(), Exit::Done);
        Self { readers, at_once, loads, workers, ending, states, has_refused, exit }
    }

    #[cfg(feature = "nats")]
    fn work(&mut self, supply: &Supply<'_>, id: String, source: &crate::config::settings::JetStream) {
        use crate::sources::jetstream::{Start, run};

        let tables = source.tables.iter().map(|table| Arc::clone(&supply.tables[table])).collect();
        let accept_gaps = supply.accept_gaps.contains(&id);
        let name = supply.sink.name();
        // Pipelines that run at the same time need different names.
        let is_only_one = supply.intake.is_none() && supply.settings.sources.len() == 1;
        let label = if is_only_one { name.to_owned() } else { format!("{name}/{id}") };
        let builder = batchsql::BatchSql::builder(supply.sink.clone()).config(supply.settings.pipeline.clone());
        let failed = Arc::new(FailedLog::new(Some(&source.dead_letters)));
        let log = Arc::clone(&failed);
        let builder = builder.metrics_reporter(supply.metrics.reporter(label));
        let builder = builder.on_failed_row(move |outcome| log.add_rejected(outcome));
        let (state, states) = watch::channel(State::Starting);
        self.states.push((id.clone(), states));
        let start = Start { id, source: Box::new(source.clone()), builder, failed, tables, accept_gaps };
        self.workers.spawn(run(start, state, self.ending.subscribe()));
    }

    /// A configuration with a stream was refused.
    #[cfg(not(feature = "nats"))]
    fn work(&mut self, _: &Supply<'_>, _: String, _: &crate::config::settings::JetStream) {}

    /// Runs beside the sources: the stream that their rows are published to is opened.
    pub(crate) fn open(&mut self, opening: Opening) {
        self.at_once.push(self.readers.spawn(opening));
    }

    /// What the sources of streams do, by their ids.
    pub(crate) fn states(&self) -> Vec<(String, watch::Receiver<State>)> {
        self.states.clone()
    }

    /// Returns when the sources of streams have started.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub(crate) async fn started(states: &mut [(String, watch::Receiver<State>)]) {
        for (_, state) in states {
            // One that has ended without a start ends the service.
            if state.wait_for(|state| *state != State::Starting).await.is_err() {
                return std::future::pending().await;
            }
        }
    }

    /// Returns when no source is left, or when the service cannot go on without one: its rows would not be read for as long as
    /// it runs.
    ///
    /// # Cancel safety
    /// Dropping it is safe.
    pub(crate) async fn ended(&mut self) -> Result<(), &'static str> {
        loop {
            let ended = tokio::select! {
                Some(ended) = self.readers.join_next() => ended,
                Some(ended) = self.workers.join_next() => ended,
                else => return Ok(()),
            };
            match ended {
                Ok(Ok(exit)) => self.worsen(exit),
                Ok(Err(Failure { exit, text, .. })) => {
                    tracing::error!("{text}");
                    self.worsen(exit);
                    return Err("a stream cannot be used");
                }
                Err(error) => {
                    self.defect(&error);
                    return Err("a source has failed");
                }
            }
        }
    }

    /// Ends standard input where it is. Files have `limit` to finish what would be written again otherwise.
    ///
    /// # Cancel safety
    /// It can be called again, with a shorter limit.
    pub(crate) async fn stop_readers(&mut self, limit: Duration) {
        self.loads.stop();
        self.at_once.iter().for_each(AbortHandle::abort);
        if timeout(limit, self.readers_ended()).await.is_err() {
            self.readers.abort_all();
            self.readers_ended().await;
        }
        if self.has_refused.load(Ordering::Relaxed) {
            self.worsen(Exit::Failed);
        }
    }

    async fn readers_ended(&mut self) {
        while let Some(ended) = self.readers.join_next().await {
            // One that was aborted has not failed.
            if !matches!(&ended, Err(error) if error.is_cancelled()) {
                self.note(ended);
            }
        }
    }

    /// Ends workers: they have `limit` to write what they have, and then give their partitions to others. Returns how the sources
    /// have ended.
    ///
    /// # Cancel safety
    /// It can be called again, with a shorter limit. Workers that have not ended when the sources are dropped end then; others get
    /// their partitions when the leases are over.
    pub(crate) async fn stop_workers(&mut self, limit: Duration) -> Exit {
        self.ending.send_replace(Some(limit));
        while let Some(ended) = self.workers.join_next().await {
            self.note(ended);
        }
        self.exit
    }

    /// How those have ended that have.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    fn note(&mut self, ended: Result<Result<Exit, Failure>, JoinError>) {
        match ended {
            Ok(Ok(exit)) => self.worsen(exit),
            Ok(Err(Failure { exit, text, .. })) => {
                tracing::error!("{text}");
                self.worsen(exit);
            }
            Err(error) => self.defect(&error),
        }
    }

    fn defect(&mut self, error: &JoinError) {
        tracing::error!(%error, "a source has ended because of a defect of the program");
        self.worsen(Exit::Failed);
    }

    fn worsen(&mut self, exit: Exit) {
        self.exit = self.exit.or_worse(exit);
    }
}
