//! Owns a source in memory, and what the tests share.
//! Must not know a single test.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use batchsql_core::{
    BatchSql, BatchSqlBuilder, Claim, ClaimFrom, ColumnType, Conflict, DynRow, PipelineConfig, Row, RowBuffer, Schema,
    ValueRef, ValueRules,
};
use batchsql_feed::key::OrderedTables;
use batchsql_feed::{
    Begin, FeedOptions, Feeds, Letters, Next, NotClaimed, PartitionState, Refusal, Schemas, Source, SourceBlock,
    SourceError, SourceGap, block, without_ends,
};
use batchsql_testkit::ScriptedSink;
use tokio::sync::Notify;

/// The table of all tests, as a source names it.
pub(crate) const TABLE: &str = "\"t\"";

/// One partition, and what was asked of it. Clones are the same partition.
#[derive(Clone, Default)]
pub(crate) struct Memory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Default)]
pub(crate) struct State {
    next: VecDeque<Result<Next, SourceError>>,
    pub(crate) settled: Vec<RangeInclusive<u64>>,
    pub(crate) claims: VecDeque<Result<Claim, Refusal>>,
    pub(crate) begins: VecDeque<Result<Begin, Refusal>>,
    /// Positions that it was told, and claims that were refused.
    pub(crate) told: Vec<u64>,
    pub(crate) refused: Vec<NotClaimed>,
    pub(crate) aside: Vec<bool>,
    /// It does not get to settle anything, and how often it was to.
    pub(crate) is_stuck: bool,
    pub(crate) stuck: usize,
    /// Blocks that were returned, and whether a claim that was refused returns them again.
    returned: Vec<SourceBlock>,
    pub(crate) begins_anew: bool,
}

impl Memory {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// How many blocks it has returned.
    pub(crate) fn returned(&self) -> usize {
        self.state().returned.len()
    }

    pub(crate) fn push(&self, next: Result<Next, SourceError>) {
        self.state().next.push_back(next);
        self.0.more.notify_one();
    }

    /// Rows with these numbers, from a sequence on.
    pub(crate) fn block(&self, first: u64, ids: impl IntoIterator<Item = i64>) {
        self.block_of(first, &ids.into_iter().map(row).collect::<Vec<_>>());
    }

    /// These rows of one schema, from a sequence on.
    pub(crate) fn block_of(&self, first: u64, all: &[DynRow]) {
        let schema = all[0].schema();
        let mut rows = RowBuffer::new(schema, ValueRules::default());
        all.iter().for_each(|row| rows.push(row).unwrap());
        let (count, record) = (rows.len() as u32, block::encode_schema(schema));
        let bytes = block::encode(rows.into_rows().rows());
        self.push(Ok(Next::Block(SourceBlock::new(first, count, Some(record.into()), bytes, SystemTime::now()))));
    }

    pub(crate) fn gap(&self, first: u64, last: u64, rows: u64) {
        self.push(Ok(Next::Gap(SourceGap::new(first, last, rows, "look for the rows"))));
    }
}

impl Source for Memory {
    async fn next(&mut self) -> Result<Next, SourceError> {
        let mut state = self.state();
        let next = state.next.pop_front().unwrap_or(Ok(Next::Nothing));
        if let Ok(Next::Block(block)) = &next {
            state.returned.push(block.clone());
        }
        next
    }

    async fn ready(&mut self) {
        self.0.more.notified().await;
    }

    async fn settle(&mut self, rows: RangeInclusive<u64>) -> Result<(), SourceError> {
        let is_stuck = {
            let mut state = self.state();
            state.stuck += usize::from(state.is_stuck);
            if !state.is_stuck {
                state.settled.push(rows);
            }
            state.is_stuck
        };
        if is_stuck {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn set_aside(&mut self, is_aside: bool) {
        self.state().aside.push(is_aside);
    }

    async fn claim(&mut self) -> Result<Claim, Refusal> {
        let claim = Claim::of("me").from(ClaimFrom::Anyone).or_begin_at(0);
        self.state().claims.pop_front().unwrap_or(Ok(claim))
    }

    fn not_claimed(&mut self, why: NotClaimed) -> Refusal {
        let mut state = self.state();
        state.refused.push(why);
        if state.begins_anew {
            let again: Vec<_> = state.returned.drain(..).collect();
            again.into_iter().rev().for_each(|block| state.next.push_front(Ok(Next::Block(block))));
        }
        Refusal::Wait("it may be given back".to_owned())
    }

    async fn begin_at(&mut self, position: u64) -> Result<Begin, Refusal> {
        self.state().told.push(position);
        self.state().begins.pop_front().unwrap_or(Ok(Begin::default()))
    }
}

pub(crate) fn schema() -> Schema {
    Schema::builder("t").column("id", ColumnType::I64).on_conflict(Conflict::ignore(["id"])).build().unwrap()
}

pub(crate) fn row(id: i64) -> DynRow {
    schema().row().set("id", id).unwrap().finish().unwrap()
}

/// The numbers of the rows that were written, in order.
pub(crate) fn written(sink: &ScriptedSink) -> Vec<i64> {
    let id = |row: &DynRow| match row.get("id") {
        Some(ValueRef::I64(id)) => id,
        other => panic!("{other:?}"),
    };
    sink.applied().iter().map(id).collect()
}

/// Feeds of one sink.
pub(crate) struct Fed {
    pub(crate) sink: ScriptedSink,
    pub(crate) pipeline: BatchSql,
    pub(crate) feeds: Feeds<Memory>,
    folder: Arc<tempfile::TempDir>,
}

impl Fed {
    pub(crate) fn new(options: impl FnOnce(FeedOptions) -> FeedOptions) -> Self {
        Self::with(options, |builder| builder)
    }

    pub(crate) fn with(
        options: impl FnOnce(FeedOptions) -> FeedOptions,
        builder: impl FnOnce(BatchSqlBuilder<ScriptedSink>) -> BatchSqlBuilder<ScriptedSink>,
    ) -> Self {
        Self::declared(Vec::new(), options, builder)
    }

    /// With schemas that the program declares.
    pub(crate) fn declared(
        schemas: Vec<Schema>,
        options: impl FnOnce(FeedOptions) -> FeedOptions,
        builder: impl FnOnce(BatchSqlBuilder<ScriptedSink>) -> BatchSqlBuilder<ScriptedSink>,
    ) -> Self {
        let (sink, folder) = (ScriptedSink::new(), Arc::new(tempfile::tempdir().unwrap()));
        sink.keep_positions();
        Self::of(sink, folder, schemas, options, builder)
    }

    /// As another process on the same database and files.
    pub(crate) fn again(&self, options: impl FnOnce(FeedOptions) -> FeedOptions) -> Self {
        Self::of(self.sink.clone(), Arc::clone(&self.folder), Vec::new(), options, |builder| builder)
    }

    fn of(
        sink: ScriptedSink,
        folder: Arc<tempfile::TempDir>,
        schemas: Vec<Schema>,
        options: impl FnOnce(FeedOptions) -> FeedOptions,
        builder: impl FnOnce(BatchSqlBuilder<ScriptedSink>) -> BatchSqlBuilder<ScriptedSink>,
    ) -> Self {
        let config = PipelineConfig::default().flush_interval(Duration::from_millis(1));
        let ordered = OrderedTables::of(&config);
        let pipeline = builder(without_ends(BatchSql::builder(sink.clone()), config)).start().unwrap();
        let letters = Arc::new(Letters::open(&folder.path().join("letters")).unwrap());
        let schemas = Arc::new(Schemas::new(schemas, "Schemas::new"));
        let options = options(FeedOptions::new("made-1", letters, schemas, ordered));
        let feeds = Feeds::new(pipeline.clone(), options, tokio::runtime::Handle::current());
        Self { sink, pipeline, feeds, folder }
    }

    /// Feeds a partition whose rows up to `settled` have ended.
    pub(crate) fn start(&self, partition: u32, settled: u64, source: &Memory) -> Arc<PartitionState> {
        let state = Arc::new(PartitionState::new(TABLE, partition, settled));
        self.feeds.start(Arc::clone(&state), source.clone()).unwrap();
        state
    }

    /// Where the lines of rejected rows are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The lines of rejected rows.
    pub(crate) fn letters(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("letters")).unwrap()
    }

    /// Waits until something is so, which changes with the progress of the feeds or with time.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..100_000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("it takes too long until {what}");
    }

    pub(crate) async fn end(&self) {
        self.pipeline.close(Duration::from_secs(60)).await;
        self.feeds.end().await;
    }
}
