//! Owns the decisions made once per schema: the checked table, the form of each column, the write strategy.
//! Must not know rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use batchsql_core::exhaustive::{Assignment, Set};
use batchsql_core::{Action, ErrorClass, Schema, SinkError, TableName, Target};
use batchsql_sql::{Shapes, TableProblems, rows_per_statement};
use sqlx::{Connection, Executor, PgConnection};
use tokio::time::Instant;

use crate::catalog::{Lookup, TableColumn, read_table};
use crate::choice::{Choice, Way, choose};
use crate::classify::{LinkLost, is_refusal, sink_error};
use crate::commit_stage::CommitStage;
use crate::conn::PostgresConn;
use crate::field::Field;
use crate::outcome_source::OutcomeSource;
use crate::params::array_types;
use crate::returned_fit::{Floats, check_returned};
use crate::round_trip::RoundTrip;
use crate::settings::{Settings, Strategy};
use crate::statements::{self, Insert, Staging};
use crate::table_fit::{
    check_decimals, check_given, check_key, check_kind, check_rights, check_rules, fields, missing,
};
use crate::tables::{Reading, Reason, Tables};
use crate::types::Echo;

/// Protocol limit of bound values per statement.
const MAX_BINDS: usize = 65_535;

/// Rows per multi-row `VALUES`.
const VALUES_ROWS: usize = 500;

/// How batches of one schema are written.
#[derive(Debug)]
pub struct PostgresPlan {
    pub(crate) schema: Schema,
    /// The name of the table with the namespace in which it was found.
    pub(crate) table: TableName,
    pub(crate) fields: Box<[Field]>,
    pub(crate) outcome_source: OutcomeSource,
    pub(crate) named: bool,
    pub(crate) has_row_security: bool,
    pub(crate) unnest: Insert,
    /// The statement that returns the numbers of rows.
    pub(crate) numbered: Box<str>,
    /// The rows and the position of a step.
    pub(crate) step: Box<str>,
    /// The statement whose rows return values, if any do.
    pub(crate) returning: Option<Box<str>>,
    /// The same with the numbers of rows, if rows are inserted.
    pub(crate) returning_numbered: Option<Box<str>>,
    pub(crate) copy: Box<str>,
    pub(crate) staging: Staging,
    pub(crate) values: Option<Values>,
    choice: Choice,
    settings: Settings,
    known: Arc<ServerKnowledge>,
    /// The table as it was read, and the time.
    reading: Reading,
    checked_after_ms: AtomicU64,
    /// The table has changed: a new plan is needed.
    outdated: AtomicBool,
    /// Number of statements sent, up to [`OFTEN`].
    sent: AtomicU32,
}

/// State that the plans of a sink share.
#[derive(Debug, Default)]
pub(crate) struct ServerKnowledge {
    pub(crate) tables: Tables,
    pub(crate) round_trip: RoundTrip,
}

/// Whether a reading for another schema may be reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// One from the last second may be reused, once per schema.
    Recent,
    /// One from the last second may be reused if it was made for the same reason: values do not fit.
    Values,
    /// The table is always read again.
    Now,
}

/// Prepared statements kept per connection. A schema has one statement with `UNNEST`, and at most ten with
/// multi-row `VALUES`.
pub(crate) const CACHED_STATEMENTS: usize = 256;

/// After this many statements a plan counts as frequently used.
const OFTEN: u32 = 16;

/// The state of the table of a plan.
#[derive(Debug)]
pub(crate) enum TableState {
    Same,
    /// It can be written with a new plan.
    Changed,
    /// It cannot be written, and why.
    Unfit(Problem),
}

/// Why a table cannot be written.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) class: ErrorClass,
    pub(crate) text: String,
}

/// The statements of multi-row `VALUES`.
#[derive(Debug)]
pub(crate) struct Values {
    pub(crate) shapes: Shapes,
    statements: Vec<(usize, Insert)>,
}

impl PostgresPlan {
    /// Why rows of the table and a position are not in one transaction, or not durable together.
    pub(crate) fn not_durable_with_position(&self) -> Option<&'static str> {
        let table = &self.reading.table;
        if table.is_unlogged {
            return Some(
                "the table is UNLOGGED: a crash of the server empties it but not the position; make it LOGGED, or give up \
                 exactly once",
            );
        }
        self.has_foreign_part().then_some(
            "a partition of the table is a foreign table: its rows are not in the transaction of the position; write to the \
             table behind it, or give up exactly once",
        )
    }

    /// Whether rows may be on another server.
    pub(crate) fn has_foreign_part(&self) -> bool {
        self.reading.table.has_foreign_part
    }

    /// Whether one row may change several stored ones, in tables that inherit from this one.
    pub(crate) fn has_shared_keys(&self) -> bool {
        self.reading.table.has_children && matches!(self.schema.action(), Action::UpdateOnly | Action::Delete)
    }

    /// Whether functions of the user run when rows are written, also in tables that inherit from this one.
    pub(crate) fn runs_triggers(&self) -> bool {
        self.reading.table.runs_triggers(&self.schema) || self.has_shared_keys()
    }

    /// Whether the statement for a batch fails if its texts are in another encoding than that of the session.
    pub(crate) fn checks_encoding(&self, rows: usize) -> bool {
        !matches!(self.way(rows), Way::Copy | Way::Values)
    }

    /// The strategy for a batch.
    pub(crate) fn way(&self, rows: usize) -> Way {
        self.choice.way(rows, &self.known.round_trip)
    }

    /// The strategy for a batch with a position.
    pub(crate) fn way_of_step(&self, rows: usize) -> Way {
        self.choice.way_of_step(rows, &self.known.round_trip)
    }

    /// Whether the next statement is prepared under a name and kept. If there are more plans than a connection keeps
    /// statements, rarely used plans would only evict each other, at one round trip each. `commits`: the statement
    /// commits itself; then it is sent without a name only if it may be repeated, because the client sends both
    /// messages of such a statement at once.
    pub(crate) fn keeps_statement(&self, commits: bool) -> bool {
        if !self.named || (commits && !self.schema.is_repeatable()) {
            return self.named;
        }
        // Each plan holds one reference.
        let are_few = Arc::strong_count(&self.known) <= CACHED_STATEMENTS;
        are_few || self.sent.load(Ordering::Relaxed) >= OFTEN || self.sent.fetch_add(1, Ordering::Relaxed) >= OFTEN
    }

    /// Records the duration of an operation of at least one round trip.
    pub(crate) fn observe_exchange(&self, took: Duration) {
        self.known.round_trip.observe(took);
    }

    /// Whether a key may occur twice in a batch, because the pipeline keeps every version of a row. An insert with such
    /// a key is refused by the server in any case, if both rows are in its index; an update without insert would use one of
    /// its rows.
    pub(crate) fn keeps_versions(&self) -> bool {
        let (key, update) = (self.schema.key_columns().len(), self.schema.update_columns().len());
        let is_partial = key + update < self.schema.columns().len() || has_partial_index(&self.schema);
        self.schema.action() == Action::UpdateOnly || (update > 0 && is_partial)
    }

    /// Reads the table and creates the statements. If a table has many schemas, one reads it for the others.
    pub(crate) async fn make(
        conn: &mut PostgresConn,
        schema: &Schema,
        settings: Settings,
        known: &Arc<ServerKnowledge>,
    ) -> Result<Self, SinkError> {
        // A table that does not fit may have changed.
        if let Some(reading) = known.tables.get(schema.table(), schema.id())
            && let Ok(plan) = Self::of(schema, reading, settings, known)
        {
            plan.check_given_text(conn).await?;
            return Ok(plan);
        }
        let link = conn.begin()?;
        if known.round_trip.is_unknown() {
            known.round_trip.observe(exchange(link).await?);
        }
        let lookup = read_table(link, schema.table()).await;
        if lookup.as_ref().err().is_none_or(is_refusal) {
            conn.end();
        }
        let plan = reading(schema, lookup?, known, Reason::Plan)
            .and_then(|reading| Self::of(schema, reading, settings, known));
        let plan = plan.map_err(|Problem { class, text }| SinkError::new(class, text))?;
        plan.check_given_text(conn).await?;
        Ok(plan)
    }

    /// Lets the server check the parts of the statement that the caller wrote: raw expressions, the condition of an
    /// index, columns that the rows have no value for.
    async fn check_given_text(&self, conn: &mut PostgresConn) -> Result<(), SinkError> {
        let is_raw = |assignment: &Assignment| assignment.column.is_none() || matches!(assignment.set, Set::Raw(_));
        let is_given = has_partial_index(&self.schema) || self.schema.assignments().iter().any(is_raw);
        if !is_given && self.returning.is_none() {
            return Ok(());
        }
        let link = conn.begin()?;
        let sql = self.returning.as_ref().unwrap_or(&self.unnest.plain);
        let checked = link.prepare_with(sql, &array_types(&self.fields)).await;
        let checked = checked.map(drop).map_err(|error| sink_error(error, LinkLost::BeforeCommit));
        if checked.as_ref().err().is_none_or(is_refusal) {
            conn.end();
        }
        checked.map_err(|error| match error.class() {
            ErrorClass::Schema | ErrorClass::Row | ErrorClass::Internal => {
                let text = format!(
                    "table {}: the server refuses a raw expression, a column that the rows have no value for, a returned column, or the \
                     condition of the index; check them against the table",
                    self.schema.table_display()
                );
                SinkError::new(ErrorClass::Schema, text).caused_by(error)
            }
            _ => error,
        })
    }

    fn of(
        schema: &Schema,
        reading: Reading,
        settings: Settings,
        known: &Arc<ServerKnowledge>,
    ) -> Result<Self, Problem> {
        let problem = |class, text| Problem::of(schema, class, text);
        let unfit = |text: String| problem(ErrorClass::Schema, text);
        let table = &*reading.table;
        check_kind(table).map_err(unfit)?;
        let mut problems = TableProblems::default();
        problems.check(check_rules(schema.action(), table));
        let fields = fields(schema, table, settings.lossy_values, &mut problems);
        check_decimals(schema, fields.as_deref(), &mut problems);
        check_given(schema, table, &mut problems);
        problems.check(check_key(schema, table));
        check_rights(schema, table, &mut problems);
        check_returned(schema, table, &mut problems);
        let choice = fields.as_deref().and_then(|fields| problems.check(choose(schema, table, fields, settings)));
        let (fields, choice) = problems.finish(fields.zip(choice)).map_err(|(class, text)| problem(class, text))?;

        // Where rows of one stored key may be two keys to us, an update would use one of them, and the rule of a version
        // would return the stored form.
        let compares_stored = schema.version_column().is_some() || schema.action() == Action::UpdateOnly;
        let is_known = |field: &Field| field.form.echo != Echo::Changed && (field.has_one_form || !compares_stored);
        // A row outside of a partial index may have the key of another one, inside or outside.
        let is_known_by_key =
            !has_partial_index(schema) && schema.key_columns().iter().all(|column| is_known(&fields[*column]));
        let inserts = !matches!(schema.action(), Action::UpdateOnly | Action::Delete);
        let outcome_source = match schema.may_ignore() {
            // The keys that an update returns are those that were sent, whatever a trigger does.
            true if is_known_by_key && !inserts && !table.has_children => OutcomeSource::Keys,
            true if !inserts => OutcomeSource::Numbers,
            _ if table.may_drop_rows(schema) => OutcomeSource::Numbers,
            false => OutcomeSource::Total,
            true if is_known_by_key => OutcomeSource::Keys,
            true => OutcomeSource::Numbers,
        };
        // With its namespace: a temporary table of the session, or another search path, must not receive the rows.
        let located = &schema.in_namespace(&table.namespace);
        let floats = Floats::of(schema, table);
        let values = match settings.strategy {
            Strategy::MultiValues => {
                let full = rows_per_statement(fields.len(), MAX_BINDS, VALUES_ROWS)
                    .ok_or_else(|| unfit("it has more columns than a statement binds values".into()))?;
                let shapes = Shapes::new(full);
                let statements =
                    shapes.sizes().map(|rows| (rows, statements::values(located, &fields, rows, outcome_source)));
                Some(Values { shapes, statements: statements.collect() })
            }
            _ => None,
        };
        Ok(Self {
            unnest: statements::unnest(located, &fields, outcome_source),
            numbered: statements::numbered(located, &fields),
            step: statements::step(located, &fields, outcome_source),
            returning: statements::returning(located, &fields, floats),
            returning_numbered: statements::returning_numbered(located, &fields, floats).filter(|_| inserts),
            copy: statements::copy(located).into(),
            staging: statements::staging(located, &fields, outcome_source),
            table: located.table().clone(),
            schema: schema.clone(),
            outcome_source,
            named: settings.prepared_statements,
            has_row_security: table.has_row_security,
            values,
            choice,
            fields,
            settings,
            known: Arc::clone(known),
            reading,
            checked_after_ms: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
            sent: AtomicU32::new(0),
        })
    }

    /// Reads the table again and compares it with that of the plan.
    pub(crate) async fn recheck_table(
        &self,
        link: &mut PgConnection,
        freshness: Freshness,
    ) -> Result<TableState, SinkError> {
        let recent = match freshness {
            Freshness::Recent => self.known.tables.get(self.schema.table(), self.schema.id()),
            Freshness::Values => self.known.tables.for_values(self.schema.table()),
            Freshness::Now => None,
        };
        let now = match recent {
            Some(reading) => Ok(reading),
            None => {
                self.known.round_trip.renew(exchange(link).await?);
                let lookup = read_table(link, self.schema.table()).await?;
                let reason = if freshness == Freshness::Values { Reason::Values } else { Reason::Plan };
                reading(&self.schema, lookup, &self.known, reason)
            }
        };
        if now.as_ref().is_ok_and(|now| now.table == self.reading.table) {
            return Ok(TableState::Same);
        }
        self.outdated.store(true, Ordering::Relaxed);
        let plan = now.and_then(|now| Self::of(&self.schema, now, self.settings, &self.known));
        Ok(plan.err().map_or(TableState::Changed, TableState::Unfit))
    }

    /// A column of the table as it was read.
    pub(crate) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.reading.table.columns.iter().find(|column| column.name == name)
    }

    /// Whether the table must be checked again; true for one caller per interval.
    pub(crate) fn is_due(&self) -> bool {
        let (now, checked) = (self.reading.read.elapsed(), self.checked_after_ms.load(Ordering::Relaxed));
        let is_due = now.saturating_sub(Duration::from_millis(checked)) >= self.settings.table_check_interval;
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        is_due && self.checked_after_ms.compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the table is known to have changed.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// The result does not match this plan, for example because of new triggers or rules. Uncommitted rows are
    /// written again with a new plan; the outcome of the others is unknown.
    pub(crate) fn unexpected_result(&self, stage: CommitStage<'_>, text: String) -> SinkError {
        self.outdated.store(true, Ordering::Relaxed);
        SinkError::new(if stage.commits() { ErrorClass::Unknown } else { ErrorClass::Schema }, text)
    }
}

impl Values {
    pub(crate) fn statement(&self, rows: usize) -> &Insert {
        let known = self.statements.iter().find(|(size, _)| *size == rows);
        &known.expect("a plan has a statement for each of its shapes").1
    }
}

impl Problem {
    fn of(schema: &Schema, class: ErrorClass, text: String) -> Self {
        Self { class, text: format!("table {}: {text}", schema.table_display()) }
    }
}

/// Whether rows with one key may be rows of their own, because they are outside of its index.
fn has_partial_index(schema: &Schema) -> bool {
    matches!(schema.target(), Target::Partial(_))
}

/// Stores the reading for other schemas.
fn reading(schema: &Schema, lookup: Lookup, known: &ServerKnowledge, reason: Reason) -> Result<Reading, Problem> {
    match lookup {
        Lookup::Found(table) => Ok(known.tables.put(schema.table(), schema.id(), *table, reason)),
        lookup => Err(Problem::of(schema, ErrorClass::Schema, missing(schema.table(), &lookup))),
    }
}

/// Measures the cheapest exchange: the shorter one of two, because either side may have been busy.
async fn exchange(link: &mut PgConnection) -> Result<Duration, SinkError> {
    let mut shortest = Duration::MAX;
    for _ in 0..2 {
        let begin = Instant::now();
        link.ping().await.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
        shortest = shortest.min(begin.elapsed());
    }
    Ok(shortest)
}
