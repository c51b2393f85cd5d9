//! Owns what is decided once per schema: the checked table, the form of each column, the way of writing.
//! Must not know rows.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use batchsql_core::{Column, Conflict, ErrorClass, Schema, SinkError};
use batchsql_sql::{Shapes, rows_per_statement};
use sqlx::{Executor, PgConnection};
use tokio::time::Instant;

use crate::catalog::{Lookup, Table, TableColumn, read_table};
use crate::classify::{LinkLost, is_refusal, sink_error};
use crate::commit_stage::CommitStage;
use crate::conn::PostgresConn;
use crate::field::Field;
use crate::outcome_source::OutcomeSource;
use crate::settings::{LossyValues, Settings, Strategy};
use crate::statements::{self, Insert, Staging};
use crate::types::{Echo, form};

/// Values that one statement can bind, by the protocol.
const MAX_BINDS: usize = 65_535;

/// Rows per multi-row `VALUES`.
const VALUES_ROWS: usize = 500;

/// How batches of one schema are written.
#[derive(Debug)]
pub struct PostgresPlan {
    pub(crate) schema: Schema,
    pub(crate) fields: Box<[Field]>,
    pub(crate) outcome_source: OutcomeSource,
    pub(crate) named: bool,
    pub(crate) has_row_security: bool,
    pub(crate) unnest: Insert,
    pub(crate) copy: Box<str>,
    pub(crate) staging: Staging,
    pub(crate) values: Option<Values>,
    choice: Choice,
    settings: Settings,
    /// The table as it was read, and when.
    table: Table,
    made: Instant,
    checked_after_ms: AtomicU64,
    /// The table is not what it was: another plan is needed.
    outdated: AtomicBool,
}

/// The state of the table of a plan.
#[derive(Debug)]
pub(crate) enum TableState {
    Same,
    /// It can be written, by another plan.
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

/// One way of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Values,
    Unnest,
    Copy,
    Staging,
}

/// Which ways there are.
#[derive(Debug, Clone, Copy)]
enum Choice {
    Always(Way),
    /// By the number of rows: the way for larger batches, from how many on.
    From {
        rows: usize,
        larger: Way,
    },
}

impl Choice {
    fn way(self, rows: usize) -> Way {
        match self {
            Self::Always(way) => way,
            Self::From { rows: from, larger } if rows >= from => larger,
            Self::From { .. } => Way::Unnest,
        }
    }
}

impl PostgresPlan {
    /// The way of a batch.
    pub(crate) fn way(&self, rows: usize) -> Way {
        self.choice.way(rows)
    }

    /// Whether a row's key may be twice in a batch, because the pipeline keeps every version of it.
    pub(crate) fn keeps_versions(&self) -> bool {
        let (key, update) = (self.schema.key_columns().len(), self.schema.update_columns().len());
        update > 0 && key + update < self.schema.columns().len()
    }

    /// Reads the table and makes the statements.
    pub(crate) async fn make(conn: &mut PostgresConn, schema: &Schema, settings: Settings) -> Result<Self, SinkError> {
        let link = conn.begin()?;
        let table = read_in_transaction(link, schema, settings.prepared_statements).await;
        if table.as_ref().err().is_none_or(is_refusal) {
            conn.end();
        }
        Self::of(schema, table?, settings).map_err(|Problem { class, text }| SinkError::new(class, text))
    }

    fn of(schema: &Schema, lookup: Lookup, settings: Settings) -> Result<Self, Problem> {
        let problem =
            |class, text: String| Problem { class, text: format!("table {}: {text}", schema.table_display()) };
        let unfit = |text: String| problem(ErrorClass::Schema, text);
        let table = match lookup {
            Lookup::Found(table) => *table,
            lookup => return Err(unfit(missing(schema, &lookup))),
        };
        check_kind(&table).map_err(unfit)?;
        let fields = fields(schema, &table, settings.lossy_values).map_err(unfit)?;
        check_given(schema, &table).map_err(unfit)?;
        check_key(schema, &table).map_err(unfit)?;
        check_rights(schema, &table).map_err(|text| problem(ErrorClass::Permission, text))?;

        let ignores = *schema.conflict() != Conflict::None && schema.update_columns().is_empty();
        let is_known_by_key = schema.key_columns().iter().all(|column| fields[*column].form.echo != Echo::Changed);
        let outcome_source = match ignores {
            _ if table.has_row_triggers => OutcomeSource::Parts,
            false => OutcomeSource::Total,
            true if is_known_by_key => OutcomeSource::Keys,
            true => OutcomeSource::Parts,
        };
        let choice = choose(schema, &table, &fields, settings.strategy).map_err(unfit)?;
        let values = match settings.strategy {
            Strategy::MultiValues => {
                let full = rows_per_statement(fields.len(), MAX_BINDS, VALUES_ROWS)
                    .ok_or_else(|| unfit("it has more columns than a statement binds values".into()))?;
                let shapes = Shapes::new(full);
                let statements =
                    shapes.sizes().map(|rows| (rows, statements::values(schema, &fields, rows, outcome_source)));
                Some(Values { shapes, statements: statements.collect() })
            }
            _ => None,
        };
        Ok(Self {
            unnest: statements::unnest(schema, &fields, outcome_source),
            copy: statements::copy(schema).into(),
            staging: statements::staging(schema, &fields, outcome_source),
            schema: schema.clone(),
            outcome_source,
            named: settings.prepared_statements,
            has_row_security: table.has_row_security,
            values,
            choice,
            fields,
            settings,
            table,
            made: Instant::now(),
            checked_after_ms: AtomicU64::new(0),
            outdated: AtomicBool::new(false),
        })
    }

    /// Reads the table again and compares it with that of the plan.
    pub(crate) async fn recheck_table(&self, link: &mut PgConnection) -> Result<TableState, SinkError> {
        let lookup = read_in_transaction(link, &self.schema, self.named).await?;
        if matches!(&lookup, Lookup::Found(table) if **table == self.table) {
            return Ok(TableState::Same);
        }
        self.outdated.store(true, Ordering::Relaxed);
        Ok(Self::of(&self.schema, lookup, self.settings).err().map_or(TableState::Changed, TableState::Unfit))
    }

    /// Whether the table must be checked again; true for one caller per interval.
    pub(crate) fn is_due(&self) -> bool {
        let (now, checked) = (self.made.elapsed(), self.checked_after_ms.load(Ordering::Relaxed));
        let is_due = now.saturating_sub(Duration::from_millis(checked)) >= self.settings.table_check_interval;
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        is_due && self.checked_after_ms.compare_exchange(checked, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether the table is known not to be what it was.
    pub(crate) fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::Relaxed)
    }

    /// The server did something else with the rows than this plan expects, as it does when triggers or rules are new.
    /// What is not committed is written again by another plan; of the rest nobody knows which rows are there.
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

/// Asks for the table. Without named statements in a transaction, so that a pooler keeps the server connection.
async fn read_in_transaction(link: &mut PgConnection, schema: &Schema, named: bool) -> Result<Lookup, SinkError> {
    let failed = |error| sink_error(error, LinkLost::BeforeCommit);
    if named {
        return read_table(link, schema.table(), true).await;
    }
    link.execute("BEGIN READ ONLY").await.map_err(failed)?;
    let table = read_table(link, schema.table(), false).await;
    link.execute("ROLLBACK").await.map_err(failed)?;
    table
}

/// Why there is no table to write to.
fn missing(schema: &Schema, lookup: &Lookup) -> String {
    let advice = match lookup {
        Lookup::CutOff => {
            return "its name is longer than the server keeps (63 bytes), and would mean another table; shorten it"
                .into();
        }
        Lookup::Missing { similar: Some(similar) } if schema.table().namespace().is_none() => {
            let namespace = similar.namespace().unwrap_or_default();
            format!(
                "there is a table {:?} in schema {namespace:?}: name it as TableName::qualified({namespace:?}, {:?}); \
                 names are taken as they are written, with their case and their dots",
                similar.name(),
                similar.name()
            )
        }
        Lookup::Missing { similar: Some(similar) } => {
            format!("there is {similar}; names are taken as they are written, with their case")
        }
        _ => "create it before rows are submitted".into(),
    };
    format!("it does not exist; {advice}")
}

fn check_kind(table: &Table) -> Result<(), String> {
    let what = match table.kind {
        'r' | 'p' if table.has_insert_rule => {
            let text = "it has a rule for INSERT, with which the server's counts are not those of the rows that were \
                        sent; drop the rule, use a trigger, or write to the table behind it";
            return Err(text.into());
        }
        'r' | 'p' => return Ok(()),
        'v' => "a view",
        'm' => "a materialized view",
        'f' => "a foreign table",
        'S' => "a sequence",
        'i' | 'I' => "an index",
        _ => "not a table",
    };
    Err(format!("it is {what}; write to the table behind it"))
}

fn fields(schema: &Schema, table: &Table, lossy: LossyValues) -> Result<Box<[Field]>, String> {
    schema.columns().iter().map(|column| field(column, table, lossy)).collect()
}

fn field(column: &Column, table: &Table, lossy: LossyValues) -> Result<Field, String> {
    let name = column.name();
    let Some(found) = find(table, name) else {
        let similar = table.columns.iter().find(|found| found.name.to_lowercase() == name.to_lowercase());
        if let Some(similar) = similar {
            return Err(format!(
                "it has no column {name:?}, but {:?}; names are taken as they are written, with their case",
                similar.name
            ));
        }
        let known: Vec<&str> = table.columns.iter().map(|found| found.name.as_str()).collect();
        return Err(format!(
            "it has no column {name:?}; add it with ALTER TABLE or remove it from the schema (the table has {})",
            known.join(", ")
        ));
    };
    if found.is_generated {
        return Err(format!("its column {name:?} is generated; remove it from the schema"));
    }
    if found.is_always_identity {
        return Err(format!(
            "its column {name:?} is GENERATED ALWAYS AS IDENTITY; remove it from the schema, or make it BY DEFAULT"
        ));
    }
    let form = form(column.column_type(), &found.real).map_err(|why| {
        format!("its column {name:?} is declared {:?}: {} values {why}", found.declared, column.column_type())
    })?;
    let form = if lossy == LossyValues::LetDatabaseConvert { form.lossy() } else { form };
    Ok(Field { name: name.into(), form })
}

fn find<'a>(table: &'a Table, name: &str) -> Option<&'a TableColumn> {
    table.columns.iter().find(|found| found.name == name)
}

fn check_given(schema: &Schema, table: &Table) -> Result<(), String> {
    let missing =
        table.columns.iter().find(|column| column.must_be_given && schema.column_index(&column.name).is_none());
    missing.map_or(Ok(()), |column| {
        Err(format!(
            "its column {:?} is NOT NULL without a default, but rows do not carry it; add it to the schema",
            column.name
        ))
    })
}

fn check_key(schema: &Schema, table: &Table) -> Result<(), String> {
    let names = || schema.key_columns().iter().map(|index| schema.columns()[*index].name());
    let mut key: Vec<i16> = names().filter_map(|name| find(table, name)).map(|column| column.number).collect();
    key.sort_unstable();
    if key.is_empty() || table.unique.contains(&key) {
        return Ok(());
    }
    Err(format!(
        "rows cannot be inserted with conflict key ({}); a PRIMARY KEY or UNIQUE index over exactly these columns must \
         exist, not deferrable, without WHERE and without expressions",
        names().collect::<Vec<_>>().join(", ")
    ))
}

fn check_rights(schema: &Schema, table: &Table) -> Result<(), String> {
    let column = |index: usize| find(table, schema.columns()[index].name());
    let lacks = |indexes: &mut dyn Iterator<Item = usize>, may: fn(&TableColumn) -> bool, right: &str| {
        let lacking = indexes.filter_map(column).find(|column| !may(column));
        lacking.map_or(Ok(()), |column| {
            Err(format!("the user may not {right} column {:?}; GRANT {right} on the table to it", column.name))
        })
    };
    lacks(&mut (0..schema.columns().len()), |column| column.may_insert, "INSERT")?;
    lacks(&mut schema.update_columns().iter().copied(), |column| column.may_update, "UPDATE")?;
    // What a conflict rule compares or reads has to be readable.
    lacks(&mut schema.key_columns().iter().copied(), |column| column.may_select, "SELECT")?;
    lacks(&mut schema.update_columns().iter().copied(), |column| column.may_select, "SELECT")
}

/// The way of writing, or why the one that was asked for cannot be.
fn choose(schema: &Schema, table: &Table, fields: &[Field], strategy: Strategy) -> Result<Choice, String> {
    let is_plain = *schema.conflict() == Conflict::None;
    let odd = fields.iter().find(|field| !field.form.copies);
    let no_copy = if !is_plain {
        Some("it knows no conflict rule; use staging or unnest".to_owned())
    } else if table.has_row_security {
        Some("the table has row security; use unnest".to_owned())
    } else if table.has_row_triggers {
        Some("a trigger of the table may drop rows, and it does not outcome_source which; use unnest".to_owned())
    } else {
        odd.map(|field| format!("the binary form of column {:?} is not known; use unnest", field.name))
    };
    let no_staging = if !table.may_stage {
        Some("the user may not make temporary tables; GRANT TEMPORARY on the database, or use unnest")
    } else if table.has_row_triggers {
        Some("a trigger of the table may drop rows, and it does not outcome_source which; use unnest")
    } else {
        None
    };
    let refuse = |why: &str| Err(format!("strategy {} cannot write it: {why}", strategy.name()));
    match strategy {
        Strategy::MultiValues => Ok(Choice::Always(Way::Values)),
        Strategy::Unnest => Ok(Choice::Always(Way::Unnest)),
        Strategy::Copy => no_copy.map_or(Ok(Choice::Always(Way::Copy)), |why| refuse(&why)),
        Strategy::Staging => no_staging.map_or(Ok(Choice::Always(Way::Staging)), refuse),
        Strategy::Auto if is_plain && no_copy.is_none() => Ok(Choice::From { rows: COPY_FROM_ROWS, larger: Way::Copy }),
        Strategy::Auto if !is_plain && no_staging.is_none() => {
            Ok(Choice::From { rows: STAGING_FROM_ROWS, larger: Way::Staging })
        }
        Strategy::Auto => Ok(Choice::Always(Way::Unnest)),
    }
}

// Where `Strategy::Auto` changes its way. Measured with `examples/strategies.rs`: PostgreSQL 15 over TCP on the same
// machine, two cores, four connections, rows of about 110 bytes in seven columns with three indexes, medians of seven
// or nine rounds. The server's own work is most of it, so the ways are close, and 5 % are noise.
//
// | rows per batch            | 1    | 5    | 10   | 20   | 50   | 100  | 500  | 1000 | 5000 | 10000 | 20000 |
// |---------------------------|------|------|------|------|------|------|------|------|------|-------|-------|
// | COPY to UNNEST            | 0.86 | 0.94 | 1.09 | 1.10 | 1.16 | 1.12 | 1.04 | 1.02 | 1.14 |       |       |
// | staging to UNNEST, ignore |      |      |      |      |      |      |      | 0.79 | 1.01 | 1.05  | 1.11  |
// | staging to UNNEST, update |      |      |      |      |      |      |      | 0.87 | 1.02 | 1.11  | 1.06  |
//
// Multi-row VALUES were at 1.07 for one row, where the commit takes most of the time and both send one statement; that
// is within a fifth of a millisecond per batch, and they were below 1 from there on.

/// COPY takes a round trip more than UNNEST, and less of the server per row.
const COPY_FROM_ROWS: usize = 20;

/// A staging table costs four round trips and a new entry in the catalogue.
const STAGING_FROM_ROWS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_another_way_for_larger_batches() {
        let plain = Choice::From { rows: COPY_FROM_ROWS, larger: Way::Copy };
        assert_eq!([1, 19, 20, 500].map(|rows| plain.way(rows)), [Way::Unnest, Way::Unnest, Way::Copy, Way::Copy]);
        assert_eq!([1, 500].map(|rows| Choice::Always(Way::Staging).way(rows)), [Way::Staging; 2]);
    }
}
