//! Owns the sink that a test controls, and the record of what it applied.
//! Must not know the internals of the pipeline: it sees only what a driver sees.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_core::{
    Attempt, Claim, Claimed, DynRow, ErrorClass, PartitionKey, PoolState, Position, Removed, Row, Rows, Schema,
    Session, SessionEnd, Sink, SinkError, Step as PositionStep, StoredPosition, Value, Written,
};
use tokio::sync::Semaphore;

use crate::model::{Effect, Model};
use crate::positions::Positions;

/// A defect on purpose.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "only for tests of tests")]
pub enum Sabotage {
    /// Steps of an earlier epoch are accepted.
    NoEpochTest,
    /// A position moves in a transaction of its own, before that of its rows.
    PositionAlone,
}

/// What the sink does with one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Applies the rows.
    Apply,
    /// Waits, then applies the rows.
    Delay(Duration),
    /// Applies nothing and fails with this class.
    Fail(ErrorClass),
    /// Refuses the row with this number (the first is 0) and applies the others, like databases that report the outcome
    /// row by row.
    RejectRow(usize),
    /// Leaves the row with this number without an outcome, for a reason of this class, and the later ones with its key;
    /// applies the others, like databases without transactions. In an atomic batch nothing is applied.
    LeaveRow(usize, ErrorClass),
    /// Applies the rows, but reports the row with this number, and the later ones with its key, as
    /// [`ErrorClass::Unknown`]: their replies were lost. An atomic batch fails as a whole with this class.
    LoseRow(usize),
    /// Applies the rows, then fails with [`ErrorClass::Unknown`], as when the connection breaks after the commit.
    LoseReply,
    /// Fails at once with [`ErrorClass::Unknown`], and applies the rows only when [`ScriptedSink::deliver`] is called,
    /// unless the session was ended before: an abandoned write that reaches the database late.
    Late,
    /// The same without a reply: the write hangs until the pipeline gives it up.
    LateAndSilent,
    /// Applies nothing and panics.
    Panic,
    /// Waits until [`ScriptedSink::release`], then applies the rows.
    Hang,
    /// Waits in a queue of the sink until [`ScriptedSink::release`], then applies the rows: while it
    /// waits, nothing has been sent.
    HangInQueue,
}

/// A sink for tests. Clones share everything.
///
/// Each write takes the next step of the script; when there is none, it applies the rows. A write that contains a
/// poisoned row fails as a whole with [`ErrorClass::Row`], as on PostgreSQL, and applies nothing. What is applied
/// follows the conflict rules ([`Model`]): rows that the rule ignores are reported as ignored.
#[derive(Clone)]
pub struct ScriptedSink(Arc<Shared>);

type Poison = Box<dyn Fn(&DynRow) -> bool + Send + Sync>;
type Identity = Box<dyn Fn(&DynRow) -> String + Send + Sync>;
type Returns = Box<dyn Fn(&DynRow, &str) -> Value + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    released: Semaphore,
}

#[derive(Default)]
struct State {
    script: VecDeque<Step>,
    acquire_script: VecDeque<Step>,
    prepare_script: VecDeque<Step>,
    poison: Option<(ErrorClass, Poison)>,
    reports_rows: bool,
    identity: Option<Identity>,
    returns: Option<Returns>,
    broken: BTreeMap<String, ErrorClass>,
    broken_writes: BTreeMap<String, ErrorClass>,
    slow: BTreeMap<String, Duration>,
    batches: Vec<Vec<DynRow>>,
    model: Model,
    writes: usize,
    prepares: usize,
    max_concurrency: Option<usize>,
    sorts_by_key: bool,
    grows_batches: bool,
    is_not_atomic: bool,
    pool: Option<PoolState>,
    sessions: u64,
    has_no_sessions: bool,
    end_script: VecDeque<Result<SessionEnd, ErrorClass>>,
    ended: HashSet<u64>,
    late: Vec<(u64, Option<PositionStep>, Vec<DynRow>)>,
    keeps_positions: bool,
    positions: Positions,
    /// A defect on purpose: a position moves although its rows are refused.
    moves_positions_alone: bool,
    claim_script: VecDeque<Step>,
    late_write_limit: Option<Duration>,
    is_working: Option<bool>,
    knows_sessions: bool,
    looks: usize,
}

impl Default for ScriptedSink {
    fn default() -> Self {
        Self::new()
    }
}

impl ScriptedSink {
    /// A sink that applies everything.
    pub fn new() -> Self {
        Self(Arc::new(Shared { state: Mutex::default(), released: Semaphore::new(0) }))
    }

    /// Appends steps for the next writes.
    pub fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.lock().script.extend(steps);
    }

    /// Appends steps for the next connections. Steps about rows do nothing here.
    pub fn script_acquire(&self, steps: impl IntoIterator<Item = Step>) {
        self.lock().acquire_script.extend(steps);
    }

    /// Appends steps for the next checks of a table. Steps about rows do nothing here.
    pub fn script_prepare(&self, steps: impl IntoIterator<Item = Step>) {
        self.lock().prepare_script.extend(steps);
    }

    /// Refuses every write that contains a row for which `is_bad` is true. The last call applies, so `poison(|_|
    /// false)` ends it.
    pub fn poison(&self, is_bad: impl Fn(&DynRow) -> bool + Send + Sync + 'static) {
        self.poison_as(ErrorClass::Row, is_bad);
    }

    /// The same with errors of another class, like those of a trigger that names a table.
    pub fn poison_as(&self, class: ErrorClass, is_bad: impl Fn(&DynRow) -> bool + Send + Sync + 'static) {
        self.lock().poison = Some((class, Box::new(is_bad)));
    }

    /// From now on poisoned rows are refused one by one and the others are applied, as on SQLite, unless
    /// the batch is to be atomic.
    pub fn report_rows(&self) {
        self.lock().reports_rows = true;
    }

    /// Refuses, with [`ErrorClass::Duplicate`], every write of two rows that have the same `identity`, as
    /// PostgreSQL does when its collation sees two keys as one.
    pub fn refuse_equal(&self, identity: impl Fn(&DynRow) -> String + Send + Sync + 'static) {
        self.lock().identity = Some(Box::new(identity));
    }

    /// Returns this value of a column for each row that is written, if the schema asks for it
    /// ([`SchemaBuilder::returning`](batchsql_core::SchemaBuilder::returning)): as a database returns a key that it has
    /// generated. Without this call, rows have no returned values.
    pub fn return_values(&self, value: impl Fn(&DynRow, &str) -> Value + Send + Sync + 'static) {
        self.lock().returns = Some(Box::new(value));
    }

    /// Fails every write to `table` with `class`, and every check of it, until [`mend_table`](Self::mend_table).
    pub fn break_table(&self, table: impl Into<String>, class: ErrorClass) {
        self.lock().broken.insert(table.into(), class);
    }

    /// Fails every write to `table` with `class`, but no check of it, like a trigger that reads a missing table.
    pub fn break_writes(&self, table: impl Into<String>, class: ErrorClass) {
        self.lock().broken_writes.insert(table.into(), class);
    }

    /// Lets writes to `table` succeed again.
    pub fn mend_table(&self, table: &str) {
        let mut state = self.lock();
        state.broken.remove(table);
        state.broken_writes.remove(table);
    }

    /// Makes every write to `table` take this long.
    pub fn slow_table(&self, table: impl Into<String>, time: Duration) {
        self.lock().slow.insert(table.into(), time);
    }

    /// Sets how many batches the sink takes at once; it must be set before the pipeline starts.
    pub fn set_max_concurrency(&self, batches: usize) {
        self.lock().max_concurrency = Some(batches);
    }

    /// Asks for rows sorted by key, like a sink whose database locks rows. Call it before the pipeline starts.
    pub fn sort_by_key(&self) {
        self.lock().sorts_by_key = true;
    }

    /// Lets batches that wait grow beyond `flush_size` by default, like the PostgreSQL sink. Call it before the
    /// pipeline starts. Without it they have at most `flush_size` rows, unless `max_batch_rows` is set.
    pub fn grow_batches(&self) {
        self.lock().grows_batches = true;
    }

    /// Sessions have no names, as behind a pooler.
    pub fn hide_sessions(&self) {
        self.lock().has_no_sessions = true;
    }

    /// Sets how long a late write may take effect ([`Sink::late_write_limit`]); by default it is not known. Set it
    /// before the pipeline starts.
    pub fn set_late_write_limit(&self, limit: Duration) {
        self.lock().late_write_limit = Some(limit);
    }

    /// Appends the results of the next calls that end a session; when there is none, the session has ended.
    pub fn script_end_session(&self, ends: impl IntoIterator<Item = Result<SessionEnd, ErrorClass>>) {
        self.lock().end_script.extend(ends);
    }

    /// Applies the rows of late writes ([`Step::Late`], [`Step::LateAndSilent`]) whose sessions were not ended; returns
    /// the number of rows. A write with a poisoned row is refused, as it would have been in time.
    pub fn deliver(&self) -> usize {
        let mut state = self.lock();
        let late = std::mem::take(&mut state.late);
        let mut rows = 0;
        for (session, step, batch) in late {
            let is_bad = |row: &DynRow| state.poison.as_ref().is_some_and(|(_, is_bad)| is_bad(row));
            let is_trial = step.is_some_and(|step| !step.commits);
            if is_trial || state.ended.contains(&session) || batch.iter().any(is_bad) {
                continue;
            }
            if step.is_some_and(|step| state.positions.advance(&step).is_err()) {
                continue;
            }
            rows += batch.len();
            for row in &batch {
                state.model.apply(row);
            }
            state.batches.push(batch);
        }
        rows
    }

    /// Knows its sessions without being asked ([`Sink::known_session`]).
    pub fn know_sessions(&self) {
        self.lock().knows_sessions = true;
    }

    /// Sets what the sink reports of its sessions while a write takes long ([`Sink::is_working`]); by default it is not
    /// known.
    pub fn set_working(&self, is_working: bool) {
        self.lock().is_working = Some(is_working);
    }

    /// How often it was asked for that.
    pub fn looks(&self) -> usize {
        self.lock().looks
    }

    /// How many sessions were ended.
    pub fn ended_sessions(&self) -> usize {
        self.lock().ended.len()
    }

    /// Makes the sink unable to undo a part of a batch, like Redis. Call it before the pipeline starts.
    pub fn never_undo(&self) {
        self.lock().is_not_atomic = true;
    }

    /// Keeps positions, so that rows can be written exactly once. Call it before the pipeline starts.
    pub fn keep_positions(&self) {
        self.lock().keeps_positions = true;
    }

    /// A defect on purpose, which a test must find.
    #[doc(hidden)]
    pub fn sabotage(&self, sabotage: Sabotage) {
        match sabotage {
            Sabotage::NoEpochTest => self.lock().positions.is_without_epochs = true,
            Sabotage::PositionAlone => self.lock().moves_positions_alone = true,
        }
    }

    /// Appends steps for the next claims of a partition. [`Step::LoseReply`] claims it and fails; other steps about rows do
    /// nothing here.
    pub fn script_claim(&self, steps: impl IntoIterator<Item = Step>) {
        self.lock().claim_script.extend(steps);
    }

    /// The position of a partition of a table, whatever its source is; `None` if it was never claimed.
    pub fn position(&self, table: &str, partition: u32) -> Option<i64> {
        self.lock().positions.of(table, partition).map(|position| position.sequence)
    }

    /// Sets a position, as a backup that is restored would. `None` removes it.
    pub fn set_position(&self, table: &str, partition: u32, sequence: Option<i64>) {
        self.lock().positions.set(table, partition, sequence);
    }

    /// Pretends to have a connection pool in this state.
    pub fn set_pool(&self, state: PoolState) {
        self.lock().pool = Some(state);
    }

    /// Lets `calls` hanging calls continue, now or when they start to hang.
    pub fn release(&self, calls: usize) {
        self.0.released.add_permits(calls);
    }

    /// Every row that was applied, in the order of application.
    pub fn applied(&self) -> Vec<DynRow> {
        self.lock().batches.concat()
    }

    /// The rows that were applied, one entry per write.
    pub fn batches(&self) -> Vec<Vec<DynRow>> {
        self.lock().batches.clone()
    }

    /// What is in the tables now.
    pub fn tables(&self) -> Model {
        self.lock().model.clone()
    }

    /// How many writes were tried.
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    /// How many times a table was checked.
    pub fn prepares(&self) -> usize {
        self.lock().prepares
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies the rows that are not refused.
    fn apply(&self, rows: Rows<'_>, attempt: &Attempt, rejected: Option<usize>) -> Result<Written, SinkError> {
        let owned: Vec<DynRow> = (0..rows.len()).map(|row| rows.to_row(row)).collect();
        let mut state = self.lock();
        if let Some(identity) = &state.identity {
            let mut seen = HashSet::new();
            if !owned.iter().all(|row| seen.insert(identity(row))) {
                let text = "the statement has two rows with the same key";
                return Err(SinkError::with_code(ErrorClass::Duplicate, "duplicate", text));
            }
        }
        let is_bad = |(number, row): (usize, &DynRow)| {
            rejected == Some(number) || state.poison.as_ref().is_some_and(|(_, is_bad)| is_bad(row))
        };
        let bad: Vec<usize> = owned.iter().enumerate().filter(|row| is_bad(*row)).map(|(number, _)| number).collect();
        let class = match (rejected, &state.poison) {
            (None, Some((class, _))) => *class,
            _ => ErrorClass::Row,
        };
        let refusal = || SinkError::with_code(class, "poison", "a row is poisoned");
        if let Some(step) = attempt.step().filter(|step| step.commits && state.moves_positions_alone) {
            state.positions.advance(step)?;
        }
        if !bad.is_empty() && (attempt.is_atomic() || rejected.is_none() && !state.reports_rows) {
            return Err(refusal());
        }
        if let Some(step) = attempt.step() {
            if !step.commits {
                return state.positions.check(step).map(|()| Written::default());
            }
            if !state.moves_positions_alone {
                state.positions.advance(step)?;
            }
        }
        let mut written = Written::default();
        let mut applied = Vec::with_capacity(owned.len());
        for (number, row) in owned.into_iter().enumerate() {
            let index = u32::try_from(number).expect("a batch has fewer rows");
            if bad.contains(&number) {
                written.rejected.push((index, refusal()));
                continue;
            }
            if state.model.apply(&row) == Effect::Ignored {
                written.ignored.push(index);
                continue;
            }
            let columns = row.schema().returning();
            if let (Some(value), false) = (&state.returns, columns.is_empty()) {
                written.returned.push((index, columns.iter().map(|column| value(&row, column.name())).collect()));
            }
            applied.push(row);
        }
        state.batches.push(applied);
        Ok(written)
    }

    /// Applies the rows but one and the later ones with its key.
    fn leave(&self, rows: Rows<'_>, attempt: &Attempt, row: usize, class: ErrorClass) -> Result<Written, SinkError> {
        if row >= rows.len() {
            return self.apply(rows, attempt, None);
        }
        if attempt.is_atomic() {
            return Err(scripted(class));
        }
        let (left, applied) = part_from(rows, row);
        let reported = self.apply(rows.gather(&applied).rows(), attempt, None)?;
        let mut written = Written::default();
        written.ignored = reported.ignored.iter().map(|index| applied[*index as usize]).collect();
        written.rejected =
            reported.rejected.into_iter().map(|(index, error)| (applied[index as usize], error)).collect();
        written.returned =
            reported.returned.into_iter().map(|(index, values)| (applied[index as usize], values)).collect();
        written.unfinished = left.into_iter().map(|row| (row, scripted(class))).collect();
        Ok(written)
    }

    /// Applies the rows, and reports no outcome of one row and of the later ones with its key.
    fn lose(&self, rows: Rows<'_>, attempt: &Attempt, row: usize) -> Result<Written, SinkError> {
        let mut written = self.apply(rows, attempt, None)?;
        if row >= rows.len() {
            return Ok(written);
        }
        if attempt.is_atomic() {
            return Err(scripted(ErrorClass::Unknown));
        }
        let (left, _) = part_from(rows, row);
        written.ignored.retain(|row| !left.contains(row));
        written.rejected.retain(|(row, _)| !left.contains(row));
        written.returned.retain(|(row, _)| !left.contains(row));
        written.unfinished = left.into_iter().map(|row| (row, scripted(ErrorClass::Unknown))).collect();
        Ok(written)
    }

    async fn released(&self) -> Result<(), SinkError> {
        let released = self.0.released.acquire().await;
        released.map_err(|_| SinkError::new(ErrorClass::Internal, "never released"))?.forget();
        Ok(())
    }

    /// Does a step that has nothing to do with rows.
    async fn go(&self, step: Option<Step>) -> Result<(), SinkError> {
        match step.unwrap_or(Step::Apply) {
            Step::Apply
            | Step::RejectRow(_)
            | Step::LeaveRow(..)
            | Step::LoseRow(_)
            | Step::LoseReply
            | Step::Late
            | Step::LateAndSilent => Ok(()),
            Step::Delay(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            Step::Fail(class) => Err(scripted(class)),
            Step::Panic => panic!("the script says so"),
            Step::Hang | Step::HangInQueue => self.released().await,
        }
    }
}

/// A row and the later ones with its key, and the others.
fn part_from(rows: Rows<'_>, row: usize) -> (Vec<u32>, Vec<u32>) {
    let key = |row: usize| {
        let values = rows.schema().key_columns().iter().map(|column| rows.column(*column).get(row).to_value());
        values.collect::<Vec<_>>()
    };
    let is_left = |number: usize| number == row || number > row && !key(row).is_empty() && key(number) == key(row);
    let number = |row: usize| u32::try_from(row).expect("a batch has fewer rows");
    (0..rows.len()).map(number).partition(|number| is_left(*number as usize))
}

fn broken_table(class: ErrorClass) -> SinkError {
    SinkError::with_code(class, "broken", "the table is broken")
}

fn scripted(class: ErrorClass) -> SinkError {
    SinkError::with_code(class, "scripted", "the script says so")
}

impl fmt::Debug for ScriptedSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("ScriptedSink")
            .field("script", &state.script)
            .field("writes", &state.writes)
            .finish_non_exhaustive()
    }
}

impl Sink for ScriptedSink {
    type Conn = u64;
    type Plan = ();

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn max_concurrency(&self) -> Option<usize> {
        self.lock().max_concurrency
    }

    fn sorts_by_key(&self) -> bool {
        self.lock().sorts_by_key
    }

    fn is_atomic(&self) -> bool {
        !self.lock().is_not_atomic
    }

    fn pool(&self) -> Option<PoolState> {
        self.lock().pool
    }

    fn prefers_large_batches(&self) -> bool {
        self.lock().grows_batches
    }

    fn late_write_limit(&self) -> Option<Duration> {
        self.lock().late_write_limit
    }

    async fn session(&self, conn: &mut u64) -> Result<Option<Session>, SinkError> {
        let has_none = self.lock().has_no_sessions;
        Ok((!has_none).then(|| Session::new(*conn)))
    }

    fn known_session(&self, conn: &u64) -> Option<Session> {
        self.lock().knows_sessions.then(|| Session::new(*conn))
    }

    async fn is_working(&self, _: &Session) -> Result<Option<bool>, SinkError> {
        let mut state = self.lock();
        state.looks += 1;
        Ok(state.is_working)
    }

    async fn end_session(&self, session: &Session) -> Result<SessionEnd, SinkError> {
        let mut state = self.lock();
        let end = state.end_script.pop_front().unwrap_or(Ok(SessionEnd::Ended)).map_err(scripted)?;
        if end == SessionEnd::Ended {
            state.ended.extend(session.name::<u64>());
        }
        Ok(end)
    }

    async fn acquire(&self) -> Result<u64, SinkError> {
        let step = self.lock().acquire_script.pop_front();
        self.go(step).await?;
        let mut state = self.lock();
        state.sessions += 1;
        Ok(state.sessions)
    }

    fn keeps_positions(&self) -> bool {
        self.lock().keeps_positions
    }

    async fn claim(&self, _: &mut u64, key: &PartitionKey, claim: &Claim) -> Result<Claimed, SinkError> {
        let step = self.lock().claim_script.pop_front();
        self.go(step).await?;
        let claimed = self.lock().positions.claim(key, claim);
        match step {
            Some(Step::LoseReply) => Err(scripted(ErrorClass::Unknown)),
            _ => Ok(claimed),
        }
    }

    async fn advance(&self, _: &mut u64, step: &PositionStep) -> Result<(), SinkError> {
        self.lock().positions.advance(step)
    }

    async fn positions(&self, _: &mut u64, source: &str) -> Result<Vec<StoredPosition>, SinkError> {
        Ok(self.lock().positions.read(source))
    }

    async fn renew(
        &self,
        _: &mut u64,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> Result<Vec<StoredPosition>, SinkError> {
        Ok(self.lock().positions.renew(source, owner, lease))
    }

    async fn release(&self, _: &mut u64, position: &Position) -> Result<bool, SinkError> {
        Ok(self.lock().positions.release(position))
    }

    async fn remove_positions(
        &self,
        _: &mut u64,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> Result<Removed, SinkError> {
        Ok(self.lock().positions.remove(source, incarnation, ended_owners))
    }

    async fn prepare(&self, _: &mut u64, schema: &Schema) -> Result<(), SinkError> {
        let (step, broken) = {
            let mut state = self.lock();
            state.prepares += 1;
            (state.prepare_script.pop_front(), state.broken.get(schema.table_display()).copied())
        };
        match broken {
            Some(class) => Err(broken_table(class)),
            None => self.go(step).await,
        }
    }

    async fn write(&self, conn: &mut u64, (): &(), rows: Rows<'_>, attempt: &Attempt) -> Result<Written, SinkError> {
        let (step, broken, slow) = {
            let mut state = self.lock();
            state.writes += 1;
            let table = rows.schema().table_display();
            let broken = state.broken.get(table).or(state.broken_writes.get(table)).copied();
            let slow = state.slow.get(table).copied();
            (state.script.pop_front().unwrap_or(Step::Apply), broken, slow)
        };
        if let Some(time) = slow {
            tokio::time::sleep(time).await;
        }
        if let Some(class) = broken {
            return Err(broken_table(class));
        }
        match step {
            Step::RejectRow(row) => self.apply(rows, attempt, Some(row)),
            Step::LeaveRow(row, class) => self.leave(rows, attempt, row, class),
            Step::LoseRow(row) => self.lose(rows, attempt, row),
            Step::LoseReply => {
                self.apply(rows, attempt, None)?;
                Err(SinkError::new(ErrorClass::Unknown, "the reply was lost"))
            }
            Step::Late | Step::LateAndSilent => {
                let owned = (0..rows.len()).map(|row| rows.to_row(row)).collect();
                self.lock().late.push((*conn, attempt.step().copied(), owned));
                if step == Step::LateAndSilent {
                    std::future::pending::<()>().await;
                }
                Err(SinkError::new(ErrorClass::Unknown, "the connection was lost; the write may arrive late"))
            }
            Step::HangInQueue => {
                attempt.defer();
                self.released().await?;
                if !attempt.begin() {
                    return Err(SinkError::new(ErrorClass::Internal, "given up while it waited"));
                }
                self.apply(rows, attempt, None)
            }
            step => {
                self.go(Some(step)).await?;
                self.apply(rows, attempt, None)
            }
        }
    }

    async fn find_written(&self, _: &mut u64, (): &(), rows: Rows<'_>) -> Result<Vec<u32>, SinkError> {
        let state = self.lock();
        let is_there = |row: &u32| state.model.has(&rows.to_row(*row as usize));
        Ok((0..u32::try_from(rows.len()).expect("a batch has fewer rows")).filter(is_there).collect())
    }
}
