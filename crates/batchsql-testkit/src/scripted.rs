//! Owns the sink that does what a test tells it to, and the record of what it applied.
//! Must not know the pipeline's inside: it sees only what a driver sees.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use batchsql_core::{DynRow, ErrorClass, Rows, Schema, Sink, SinkError, Written};
use tokio::sync::Semaphore;

/// What the sink does with one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Applies the rows.
    Apply,
    /// Waits, then applies the rows.
    Delay(Duration),
    /// Applies nothing and fails with this class.
    Fail(ErrorClass),
    /// Applies the rows, then fails with [`ErrorClass::Unknown`], as when the link breaks after the
    /// commit.
    LoseReply,
    /// Applies nothing and panics.
    Panic,
    /// Waits until [`ScriptedSink::release`], then applies the rows.
    Hang,
}

/// A sink for tests. Clones share everything.
///
/// Each write takes the next step of the script; when there is none, it applies the rows. A write that
/// contains a poisoned row fails as a whole with [`ErrorClass::Row`], as on PostgreSQL, and applies
/// nothing.
#[derive(Clone)]
pub struct ScriptedSink(Arc<Shared>);

type Poison = Box<dyn Fn(&DynRow) -> bool + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    released: Semaphore,
}

#[derive(Default)]
struct State {
    script: VecDeque<Step>,
    poison: Option<Poison>,
    batches: Vec<Vec<DynRow>>,
    writes: usize,
    max_concurrency: Option<usize>,
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

    /// Refuses every write that contains a row for which `is_bad` is true.
    pub fn poison(&self, is_bad: impl Fn(&DynRow) -> bool + Send + Sync + 'static) {
        self.lock().poison = Some(Box::new(is_bad));
    }

    /// Sets how many batches the sink takes at once; it must be set before the pipeline starts.
    pub fn set_max_concurrency(&self, batches: usize) {
        self.lock().max_concurrency = Some(batches);
    }

    /// Lets `writes` hanging writes go on, now or when they come to hang.
    pub fn release(&self, writes: usize) {
        self.0.released.add_permits(writes);
    }

    /// Every row that was applied, in the order of application.
    pub fn applied(&self) -> Vec<DynRow> {
        self.lock().batches.concat()
    }

    /// The rows that were applied, one entry per write.
    pub fn batches(&self) -> Vec<Vec<DynRow>> {
        self.lock().batches.clone()
    }

    /// How many writes were tried.
    pub fn writes(&self) -> usize {
        self.lock().writes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, rows: Rows<'_>) -> Result<Written, SinkError> {
        let owned: Vec<DynRow> = (0..rows.len()).map(|row| rows.to_row(row)).collect();
        let mut state = self.lock();
        if state.poison.as_ref().is_some_and(|is_bad| owned.iter().any(is_bad)) {
            return Err(SinkError::with_code(ErrorClass::Row, "poison", "a row of the batch is poisoned"));
        }
        state.batches.push(owned);
        Ok(Written::default())
    }
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
    type Conn = ();
    type Plan = ();

    fn name(&self) -> &'static str {
        "scripted"
    }

    fn max_concurrency(&self) -> Option<usize> {
        self.lock().max_concurrency
    }

    async fn acquire(&self) -> Result<(), SinkError> {
        Ok(())
    }

    async fn prepare(&self, (): &mut (), _: &Schema) -> Result<(), SinkError> {
        Ok(())
    }

    async fn write(&self, (): &mut (), (): &(), rows: Rows<'_>) -> Result<Written, SinkError> {
        let step = {
            let mut state = self.lock();
            state.writes += 1;
            state.script.pop_front().unwrap_or(Step::Apply)
        };
        match step {
            Step::Apply => self.apply(rows),
            Step::Delay(delay) => {
                tokio::time::sleep(delay).await;
                self.apply(rows)
            }
            Step::Fail(class) => Err(SinkError::with_code(class, "scripted", "the script says so")),
            Step::LoseReply => {
                self.apply(rows)?;
                Err(SinkError::new(ErrorClass::Unknown, "the reply was lost"))
            }
            Step::Panic => panic!("the script says so"),
            Step::Hang => {
                let released = self.0.released.acquire().await;
                released.map_err(|_| SinkError::new(ErrorClass::Internal, "never released"))?.forget();
                self.apply(rows)
            }
        }
    }
}
