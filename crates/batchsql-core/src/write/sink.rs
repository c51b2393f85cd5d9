//! Owns the contract between the pipeline and a database driver.
//! Must not know any driver.

use std::future::Future;
use std::time::Duration;

use crate::config::EFFICIENT_BATCH_ROWS;
use crate::error::{ErrorClass, SinkError};
use crate::model::batch::Rows;
use crate::model::schema::Schema;
use crate::model::table_name::TableName;
use crate::model::table_schema::TableSchema;
use crate::model::value::Value;
use crate::pipeline_events::PoolState;
use crate::row::writer::ValueRules;
use crate::write::attempt::Attempt;
use crate::write::position::{Claim, Claimed, PartitionKey, Position, Removed, Step, StoredPosition};
use crate::write::session::{Session, SessionEnd};

/// The limits of a sink. `usize::MAX` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Columns that one row may have, because a statement can bind no more values.
    pub max_columns: usize,
    /// Values refused at admission.
    pub values: ValueRules,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_columns: usize::MAX, values: ValueRules::default() }
    }
}

impl Limits {
    /// Sets the number of columns that one row may have.
    #[must_use]
    pub fn with_max_columns(mut self, columns: usize) -> Self {
        self.max_columns = columns;
        self
    }

    /// Sets the values refused at admission.
    #[must_use]
    pub fn with_values(mut self, values: ValueRules) -> Self {
        self.values = values;
        self
    }
}

/// What a successful write did, where rows differ from "written".
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Written {
    /// Rows, by index within the view, that the rule ignored ([`Schema::may_ignore`]), or a trigger. Ascending.
    pub ignored: Vec<u32>,
    /// Rows that the database refused on their own, with the reason; every row that is not listed is durable.
    /// Ascending by index.
    pub rejected: Vec<(u32, SinkError)>,
    /// Rows without an outcome, with the reason, for databases without transactions. The class decides what happens to
    /// them: `Transient` and `Resource` mean that the row was not written, and it is retried, in its order among the
    /// other unfinished rows; `Unknown` means that it may be written, and it is retried if a repeat is harmless. Any
    /// other class rejects the row. Ascending by index.
    ///
    /// A row must not be listed here with a later row of the same key written: the repeat would overwrite the newer row
    /// with the older one.
    pub unfinished: Vec<(u32, SinkError)>,
    /// The values of [`Schema::returning`] of written rows, by index within the view. Ascending. A row that is not
    /// listed has none.
    pub returned: Vec<(u32, Vec<Value>)>,
    /// The time in the database, if the driver knows it better than its caller, for example because the batch waited in
    /// a queue of the driver. It is what the metrics show.
    pub took: Option<Duration>,
}

impl Written {
    /// Whether the rows listed are rows of the write, each once.
    pub(crate) fn is_sound(&self, rows: usize) -> bool {
        let failed = self.rejected.iter().chain(&self.unfinished).map(|(row, _)| *row);
        let mut listed: Vec<u32> = self.ignored.iter().copied().chain(failed).collect();
        listed.sort_unstable();
        self.unfinished.is_sorted_by_key(|(row, _)| *row)
            && listed.windows(2).all(|pair| pair[0] != pair[1])
            && listed.last().is_none_or(|last| (*last as usize) < rows)
            && self.returned.iter().all(|(row, _)| (*row as usize) < rows)
    }
}

/// A database driver.
///
/// The pipeline calls [`acquire`](Sink::acquire), then [`prepare`](Sink::prepare) once per schema,
/// then [`write`](Sink::write). It may drop any of these futures (timeout, shutdown): a driver must
/// then leave no transaction open. A connection is given back by dropping it.
///
/// A write that is abandoned after it has begun may still be executed, or may reach the server later. In a table whose
/// rows keep an order, the next write of that lane waits until [`end_session`](Sink::end_session) reports that it can
/// no longer take effect.
pub trait Sink: Send + Sync + 'static {
    /// A connection, held for one batch, or for batches that follow each other without a pause (at most a second).
    type Conn: Send;
    /// What is prepared once per schema: SQL text, column types, the chosen strategy.
    type Plan: Send + Sync + 'static;

    /// The database's name in metrics and logs, for example `sqlite`.
    fn name(&self) -> &'static str;

    /// The limits for rows of this schema.
    fn limits(&self, schema: &Schema) -> Limits {
        let _ = schema;
        Limits::default()
    }

    /// How many batches can be written at once, usually the size of the connection pool; `None`
    /// when the sink has no limit of its own.
    fn max_concurrency(&self) -> Option<usize> {
        None
    }

    /// Whether writing the same rows again leaves the same rows, so that a batch may be repeated if the reply to its
    /// COMMIT is lost. The default: [`Schema::is_repeatable`].
    fn is_repeatable(&self, schema: &Schema) -> bool {
        schema.is_repeatable()
    }

    /// Whether rows are to be sorted by key inside a batch, so that several writers lock the rows of a table in one
    /// order and cannot deadlock. Rows with equal keys keep their order. Default: no.
    fn sorts_by_key(&self) -> bool {
        false
    }

    /// The number of rows above which a larger batch is not written faster per row. Batches that wait for a connection
    /// grow up to it, because the database is another process, perhaps far away; see
    /// [`PipelineConfig::max_batch_rows`](crate::PipelineConfig::max_batch_rows). If it is less than `flush_size`, 0 for example,
    /// batches do not grow. Asked once, when the pipeline starts. Default: 10,000.
    fn efficient_batch_rows(&self) -> usize {
        EFFICIENT_BATCH_ROWS
    }

    /// Whether a batch can be undone as a whole, so that [`Isolation::AtomicBatch`](crate::Isolation::AtomicBatch) can
    /// be guaranteed. A pipeline with this setting does not start otherwise, unless its batches have one row. Default:
    /// yes.
    fn is_atomic(&self) -> bool {
        true
    }

    /// The connections of the sink's pool at this moment, for the metrics; `None` where there is no pool.
    fn pool(&self) -> Option<PoolState> {
        None
    }

    /// How long an abandoned write may still take effect if its session cannot be ended: the time for which the
    /// operating system resends unacknowledged data, and the longest time that the server lets a statement run. A lane
    /// with an order waits this long before its next write. `Some(Duration::ZERO)`: an abandoned write ends before a
    /// later one begins. `None` (default): not known; then the lane continues at once, and the order of rows after such
    /// a write is not guaranteed.
    fn late_write_limit(&self) -> Option<Duration> {
        None
    }

    /// Names the session of a connection, so that it can be ended from another one. Called once per
    /// [`acquire`](Self::acquire), before the first write, for tables whose rows keep an order. `Ok(None)` (default):
    /// it has no name, or it is shared with others, as behind a transaction pooler.
    ///
    /// # Errors
    /// The connection cannot be used; nothing was written.
    fn session(&self, conn: &mut Self::Conn) -> impl Future<Output = Result<Option<Session>, SinkError>> + Send {
        let _ = conn;
        async { Ok(None) }
    }

    /// The name of the session of a connection that the driver knows without asking, for [`is_working`](Self::is_working): so
    /// writes of tables without an order, whose sessions are not asked for, are checked too. No session is ended by this name.
    /// `None` (default): it is not known.
    fn known_session(&self, conn: &Self::Conn) -> Option<Session> {
        let _ = conn;
        None
    }

    /// Ends a session on which a write was abandoned, from another connection, and checks whether it has ended. It is
    /// called again while the answer is `Pending` or an error, with growing delays, one session at a time.
    ///
    /// `Ok(SessionEnd::Ended)` is a guarantee: nothing that was sent on the session takes effect from now on, including
    /// data that the network delivers later. A session that is not found has not necessarily ended: the server must be
    /// the same one, and not another that was started in its place.
    ///
    /// # Errors
    /// The server cannot be asked now. It is asked again.
    fn end_session(&self, session: &Session) -> impl Future<Output = Result<SessionEnd, SinkError>> + Send {
        let _ = session;
        async { Ok(SessionEnd::Impossible) }
    }

    /// Whether the server executes something that was sent on a session, asked from another connection while a write
    /// takes long, so that a silently lost connection is detected before `statement_timeout`. `Ok(Some(false))`: the
    /// session is idle, or no longer exists. `Ok(None)` (default): not known. A session whose statement waits for more
    /// data of its client counts as working.
    ///
    /// # Errors
    /// The server cannot be asked now. The write continues.
    fn is_working(&self, session: &Session) -> impl Future<Output = Result<Option<bool>, SinkError>> + Send {
        let _ = session;
        async { Ok(None) }
    }

    /// Reads the columns, their types and the key of a table from the database, so that a schema need not be declared.
    /// Default: refused, for databases without a catalogue of tables.
    ///
    /// # Errors
    /// The database cannot be asked, or there is no such table, or it is not one that rows can be inserted into.
    fn read_schema(&self, table: &TableName) -> impl Future<Output = Result<TableSchema, SinkError>> + Send {
        let name = self.name();
        let text = format!("table {table}: {name} has no catalogue of columns; declare them with Schema::builder");
        async { Err(SinkError::new(ErrorClass::Schema, text)) }
    }

    /// Asks under which name the database has a table: with the schema or database in which it is found, in the spelling of its
    /// catalogue. So all names of one table have one, and tables in two schemas have two. Default: the name as it is given.
    ///
    /// # Errors
    /// The database cannot be asked, or there is no such table.
    fn find_table(&self, table: &TableName) -> impl Future<Output = Result<TableName, SinkError>> + Send {
        let table = table.clone();
        async { Ok(table) }
    }

    /// Asks which setting of the database may lose what it has confirmed in a crash of the server, and returns it with what to do.
    /// `None`: there is none, or nothing is known. A feed calls it at its start. A driver may change settings of its own session
    /// first: SQLite sets `synchronous` to `FULL`; PostgreSQL, MySQL, MariaDB and Redis only ask. Default: `None`, without a
    /// connection.
    ///
    /// # Errors
    /// The database cannot be asked.
    fn make_durable(&self) -> impl Future<Output = Result<Option<String>, SinkError>> + Send {
        async { Ok(None) }
    }

    /// Whether [`write`](Self::write) moves the position of an attempt with a step, so that each row of a source is written
    /// exactly once. Default: no.
    fn keeps_positions(&self) -> bool {
        false
    }

    /// Claims a partition: raises its epoch and commits that. When it returns, no step of an earlier epoch can be committed
    /// any more, and those that were committed are in the position. It creates the table of positions if it is missing. Who
    /// has claimed it last, and whether the lease is over, is compared in the same transaction ([`Claim::refused_by`]). A position
    /// that is further than steps have moved it is told as such ([`Claimed::at`]).
    ///
    /// # Errors
    /// The table cannot be created or written, or a setting of the database does not keep what was committed; or the
    /// database cannot be asked now. The position is unchanged, or claimed by a call whose reply was lost: claim it again.
    fn claim(
        &self,
        conn: &mut Self::Conn,
        key: &PartitionKey,
        claim: &Claim,
    ) -> impl Future<Output = Result<Claimed, SinkError>> + Send {
        let _ = (conn, key, claim);
        let text = format!("{} keeps no positions", self.name());
        async { Err(SinkError::new(ErrorClass::Schema, text)) }
    }

    /// Moves a position without rows.
    ///
    /// # Errors
    /// As those of a write with this step.
    fn advance(&self, conn: &mut Self::Conn, step: &Step) -> impl Future<Output = Result<(), SinkError>> + Send {
        let _ = (conn, step);
        let text = format!("{} keeps no positions", self.name());
        async { Err(SinkError::new(ErrorClass::Schema, text)) }
    }

    /// All positions of a source, of every incarnation, with the seats of its workers. None if there is no table of
    /// positions.
    ///
    /// # Errors
    /// The database cannot be asked.
    fn positions(
        &self,
        conn: &mut Self::Conn,
        source: &str,
    ) -> impl Future<Output = Result<Vec<StoredPosition>, SinkError>> + Send {
        let _ = (conn, source);
        let text = format!("{} keeps no leases of positions", self.name());
        async { Err(SinkError::new(ErrorClass::Schema, text)) }
    }

    /// Renews the leases of an owner: all partitions of the source that it has claimed last with a lease, whether it is over
    /// or not. They end this time from now, by the clock of the database. Returns what the owner has now. A partition whose
    /// step is under way is waited for, a second at most; then the other leases are renewed without it.
    ///
    /// # Errors
    /// The database cannot be asked. The leases are renewed or not.
    fn renew(
        &self,
        conn: &mut Self::Conn,
        source: &str,
        owner: &str,
        lease: Duration,
    ) -> impl Future<Output = Result<Vec<StoredPosition>, SinkError>> + Send {
        let _ = (conn, source, owner, lease);
        let text = format!("{} keeps no leases of positions", self.name());
        async { Err(SinkError::new(ErrorClass::Schema, text)) }
    }

    /// Gives a partition away: it has no owner and no lease from now on. `false`: another one has claimed it.
    ///
    /// # Errors
    /// The database cannot be asked. It is given away or not.
    fn release(
        &self,
        conn: &mut Self::Conn,
        position: &Position,
    ) -> impl Future<Output = Result<bool, SinkError>> + Send {
        let _ = (conn, position);
        let text = format!("{} keeps no leases of positions", self.name());
        async { Err(SinkError::new(ErrorClass::Schema, text)) }
    }

    /// Removes all positions of an incarnation of a source in one transaction, unless one has an owner that is not in
    /// `ended_owners` ([`Removed::refused_by`]). None are removed if there is no table of positions. Locks are waited for a
    /// second at most.
    ///
    /// # Errors
    /// The database cannot be asked, or a position is locked. They are removed or not.
    fn remove_positions(
        &self,
        conn: &mut Self::Conn,
        source: &str,
        incarnation: &str,
        ended_owners: &[String],
    ) -> impl Future<Output = Result<Removed, SinkError>> + Send {
        let _ = (conn, source, incarnation, ended_owners);
        let text = format!("{} keeps no positions", self.name());
        async { Err(SinkError::new(ErrorClass::Schema, text)) }
    }

    /// Gets a connection.
    fn acquire(&self) -> impl Future<Output = Result<Self::Conn, SinkError>> + Send;

    /// Prepares the writing of one schema: checks table and columns, chooses the statement.
    ///
    /// # Errors
    /// An error here is an error of the table, whatever its class. An error of `write` may come from one row, even if
    /// its code is about a table or a permission, and is examined, see
    /// [`ErrorClass::Schema`](crate::ErrorClass::Schema).
    fn prepare(
        &self,
        conn: &mut Self::Conn,
        schema: &Schema,
    ) -> impl Future<Output = Result<Self::Plan, SinkError>> + Send;

    /// Writes the rows in one transaction, in their order. Without transactions, each row has its own outcome.
    ///
    /// `Ok`: the transaction is committed; every row that is not listed in the result is durable.
    /// `Err`: no row is durable, unless the class is [`Unknown`](crate::ErrorClass::Unknown).
    /// `attempt` says whether single rows may be refused, and takes part in the decision whether a
    /// write that is given up has begun.
    fn write(
        &self,
        conn: &mut Self::Conn,
        plan: &Self::Plan,
        rows: Rows<'_>,
        attempt: &Attempt,
    ) -> impl Future<Output = Result<Written, SinkError>> + Send;

    /// Which rows the table has exactly as this write would leave them: a row has their values in the key and in every
    /// column that the rule writes. Indexes within the view, ascending. A row must not be listed if its values cannot be
    /// compared exactly. Default: none.
    ///
    /// It is asked only after a lost reply, before the rows are written again, and only under
    /// [`Conflict::only_if_newer`](crate::Conflict::only_if_newer) without expressions. The write ignores a row whose version
    /// is in the table; if the row is listed here, it ends as written, because the attempt without a reply has probably
    /// written it.
    ///
    /// # Errors
    /// The database cannot be asked. If the error is [retryable](SinkError::is_retryable), the rows are tried again later;
    /// after another error they are written as if none was listed.
    fn find_written(
        &self,
        conn: &mut Self::Conn,
        plan: &Self::Plan,
        rows: Rows<'_>,
    ) -> impl Future<Output = Result<Vec<u32>, SinkError>> + Send {
        let _ = (conn, plan, rows);
        async { Ok(Vec::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_may_list_each_row_of_a_write_once() {
        let check = |ignored: &[u32], rejected: &[u32], unfinished: &[u32], sound| {
            let error = SinkError::new(ErrorClass::Row, "bad");
            let failed = |rows: &[u32]| rows.iter().map(|row| (*row, error.clone())).collect();
            let written = Written {
                ignored: ignored.to_vec(),
                rejected: failed(rejected),
                unfinished: failed(unfinished),
                ..Written::default()
            };
            assert_eq!(written.is_sound(3), sound, "{ignored:?} {rejected:?} {unfinished:?}");
        };
        check(&[], &[], &[], true);
        check(&[0], &[1], &[2], true);
        check(&[3], &[], &[], false);
        check(&[], &[3], &[], false);
        check(&[], &[], &[3], false);
        check(&[1, 1], &[], &[], false);
        check(&[1], &[1], &[], false);
        check(&[], &[1], &[1], false);
        check(&[], &[], &[2, 1], false);
    }
}
