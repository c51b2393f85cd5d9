//! Owns what a test tells the sink to do.
//! Must not know how the sink does it.

use std::time::Duration;

use batchsql_core::{DynRow, ErrorClass, PoolState, SessionEnd, Value};

use super::sink::ScriptedSink;
use super::step::{Sabotage, Step};

impl ScriptedSink {
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

    /// Appends steps for the next claims of a partition. [`Step::LoseReply`] claims it and fails; other steps about rows do
    /// nothing here.
    pub fn script_claim(&self, steps: impl IntoIterator<Item = Step>) {
        self.lock().claim_script.extend(steps);
    }

    /// Appends the results of the next calls that end a session; when there is none, the session has ended.
    pub fn script_end_session(&self, ends: impl IntoIterator<Item = Result<SessionEnd, ErrorClass>>) {
        self.lock().end_script.extend(ends);
    }

    /// Lets `calls` hanging calls continue, now or when they start to hang.
    pub fn release(&self, calls: usize) {
        self.0.released.add_permits(calls);
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

    /// Refuses every write with a row that refers to an `id` which is neither in the write nor applied, as a foreign key of the table to
    /// itself does.
    pub fn refer_to(&self, reference: impl Fn(&DynRow) -> Option<i64> + Send + Sync + 'static) {
        self.lock().reference = Some(Box::new(reference));
    }

    /// From now on poisoned rows are refused one by one and the others are applied, as on SQLite, unless
    /// the batch is to be atomic.
    pub fn report_rows(&self) {
        self.lock().reports_rows = true;
    }

    /// A row that was applied before is no more refused by [`Step::RejectRow`]: what a table has taken it takes again.
    #[doc(hidden)]
    pub fn accept_again(&self) {
        self.lock().accepts_again = true;
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

    /// Makes the sink unable to undo a part of a batch, like Redis. Call it before the pipeline starts.
    pub fn never_undo(&self) {
        self.lock().is_not_atomic = true;
    }

    /// Sessions have no names, as behind a pooler.
    pub fn hide_sessions(&self) {
        self.lock().has_no_sessions = true;
    }

    /// Knows its sessions without being asked ([`known_session`](batchsql_core::Sink::known_session)).
    pub fn know_sessions(&self) {
        self.lock().knows_sessions = true;
    }

    /// Sets what the sink reports of its sessions while a write takes long
    /// ([`is_working`](batchsql_core::Sink::is_working)); by default it is not known.
    pub fn set_working(&self, is_working: bool) {
        self.lock().is_working = Some(is_working);
    }

    /// Sets how long a late write may take effect ([`late_write_limit`](batchsql_core::Sink::late_write_limit)); by default it
    /// is not known. Set it before the pipeline starts.
    pub fn set_late_write_limit(&self, limit: Duration) {
        self.lock().late_write_limit = Some(limit);
    }

    /// Pretends to have a connection pool in this state.
    pub fn set_pool(&self, state: PoolState) {
        self.lock().pool = Some(state);
    }

    /// Keeps positions, so that rows can be written exactly once. Call it before the pipeline starts.
    pub fn keep_positions(&self) {
        self.lock().keeps_positions = true;
    }

    /// Sets a position, as a backup that is restored would. `None` removes it.
    pub fn set_position(&self, table: &str, partition: u32, sequence: Option<i64>) {
        self.lock().positions.set(table, partition, sequence);
    }

    /// A defect on purpose, which a test must find.
    #[doc(hidden)]
    pub fn sabotage(&self, sabotage: Sabotage) {
        match sabotage {
            Sabotage::NoEpochTest => self.lock().positions.is_without_epochs = true,
            Sabotage::PositionAlone => self.lock().moves_positions_alone = true,
            Sabotage::PositionStands => self.lock().positions.stands = true,
        }
    }
}
