//! Owns the writing of rows whose values the server returns.
//! Must not know other strategies.
//!
//! The server returns the rows of an insert in the order in which it has inserted them, which is that of the arrays: it
//! inserts serially. If rows may be left out, it returns their numbers too ([`crate::statements::numbered`]). Where it cannot,
//! and for updates and deletes, each row has a statement of its own, in one transaction.

use batchsql_core::{Attempt, ErrorClass, Rows, SinkError, Value, Written};
use batchsql_sql::returned_value;
use sqlx::postgres::PgRow;
use sqlx::{Executor, PgConnection, Row};

use crate::classify::{LinkLost, sink_error};
use crate::commit_stage::CommitStage;
use crate::guard;
use crate::outcome_source::OutcomeSource;
use crate::params::{array_types, arrays};
use crate::plan::PostgresPlan;
use crate::transaction::{BEGIN, commit, undo};

/// Writes the rows in one transaction.
pub(crate) async fn write_returning(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    sql: &str,
    rows: Rows<'_>,
    attempt: &Attempt,
) -> Result<Written, SinkError> {
    let is_one_statement = || plan.named && (!plan.keeps_versions() || rows.waves().len() == 1);
    if plan.outcome_source == OutcomeSource::Total && is_one_statement() {
        match at_once(link, plan, sql, rows, attempt, in_order).await {
            // The statement was rolled back: the server treats two of its rows as the same row.
            Err(error) if error.class() == ErrorClass::Duplicate && rows.len() > 1 => {}
            written => return written,
        }
    }
    let is_numbered = plan.outcome_source != OutcomeSource::Total && plan.named;
    if let Some(sql) = plan.returning_numbered.as_ref().filter(|_| is_numbered && rows.waves().len() == 1) {
        match at_once(link, plan, sql, rows, attempt, by_number).await {
            Err(error) if error.class() == ErrorClass::Duplicate && rows.len() > 1 => {}
            // The server cannot tell the numbers. A value may also be the reason.
            Err(error) if matches!(error.code(), Some(guard::RAISED | "42704")) => {}
            written => return written,
        }
    }
    attempt.defer();
    let begun = link.execute(BEGIN).await;
    begun.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
    match one_by_one(link, plan, sql, rows).await {
        Ok(written) => commit(link, attempt).await.map(|()| written),
        Err(error) => Err(undo(link, error).await),
    }
}

/// All rows by one statement, which is its own transaction. `outcomes` reads what it returned of so many rows, or says what is
/// wrong with it.
async fn at_once(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    sql: &str,
    rows: Rows<'_>,
    attempt: &Attempt,
    outcomes: fn(&PostgresPlan, &[PgRow], usize) -> Result<Written, String>,
) -> Result<Written, SinkError> {
    let stage = CommitStage::Commits(attempt);
    let arguments = arrays(rows, &plan.fields)?;
    let prepared = link.prepare_with(sql, &array_types(&plan.fields)).await;
    prepared.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
    let lost = stage.begin()?;
    let found =
        sqlx::query_with(sql, arguments).fetch_all(&mut *link).await.map_err(|error| sink_error(error, lost))?;
    outcomes(plan, &found, rows.len()).map_err(|text| plan.unexpected_result(stage, text))
}

/// The outcomes of a statement that returns each row, in order.
fn in_order(plan: &PostgresPlan, found: &[PgRow], rows: usize) -> Result<Written, String> {
    if found.len() != rows {
        return Err(format!("the server returned {} of {rows} rows; check the triggers of the table", found.len()));
    }
    let mut written = Written::default();
    let mut unread = Unread::default();
    for (row, found) in (0..).zip(found) {
        written.returned.extend(unread.values_or_none(plan, found).map(|values| (row, values)));
    }
    unread.tell(plan);
    Ok(written)
}

/// The outcomes of a statement that returns rows with their numbers: some may be left out.
fn by_number(plan: &PostgresPlan, found: &[PgRow], rows: usize) -> Result<Written, String> {
    let mut written = Written::default();
    let mut is_left_out = vec![true; rows];
    let mut unread = Unread::default();
    for found in found {
        let number: Option<i64> = found.try_get(plan.schema.returning().len()).ok();
        let row = number.and_then(|number| u32::try_from(number.checked_sub(1)?).ok());
        let Some((row, is_left_out)) = row.and_then(|row| Some((row, is_left_out.get_mut(row as usize)?))) else {
            return Err("the server returned other numbers of rows than were sent".into());
        };
        *is_left_out = false;
        written.returned.extend(unread.values_or_none(plan, found).map(|values| (row, values)));
    }
    unread.tell(plan);
    written.ignored.extend((0..).zip(is_left_out).filter(|(_, is_left_out)| *is_left_out).map(|(row, _)| row));
    Ok(written)
}

/// Each row by its own statement, inside the open transaction.
async fn one_by_one(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    sql: &str,
    rows: Rows<'_>,
) -> Result<Written, SinkError> {
    let mut written = Written::default();
    for row in 0..rows.len() {
        let arguments = arrays(rows.slice(row..row + 1), &plan.fields)?;
        let query = sqlx::query_with(sql, arguments).persistent(plan.named);
        let found = query.fetch_optional(&mut *link).await;
        let found = found.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
        let row = u32::try_from(row).expect("buffer_size fits u32");
        match found {
            Some(found) => written.returned.push((row, values(plan, &found)?)),
            None => written.ignored.push(row),
        }
    }
    Ok(written)
}

/// Rows that are committed, and have a returned value that is none of its declared type. Such a row has no values; it is written
/// all the same.
#[derive(Default)]
struct Unread {
    rows: usize,
    /// The error of the first one.
    error: Option<SinkError>,
}

impl Unread {
    fn values_or_none(&mut self, plan: &PostgresPlan, found: &PgRow) -> Option<Vec<Value>> {
        values(plan, found)
            .map_err(|error| {
                self.rows += 1;
                self.error.get_or_insert(error);
            })
            .ok()
    }

    fn tell(self, plan: &PostgresPlan) {
        if let Some(error) = self.error {
            let table = plan.schema.table_display();
            tracing::warn!(table, rows = self.rows, %error, "written rows have no returned values");
        }
    }
}

/// The returned values of one row.
fn values(plan: &PostgresPlan, found: &PgRow) -> Result<Vec<Value>, SinkError> {
    let value = |(index, column): (usize, &batchsql_core::Column)| {
        let text: Option<&str> = found.try_get(index).ok()?;
        text.map_or(Some(Value::Null), |text| returned_value(column.column_type(), text))
    };
    plan.schema
        .returning()
        .iter()
        .enumerate()
        .map(|(index, column)| {
            value((index, column)).ok_or_else(|| {
                let text = format!(
                    "the returned value of column {:?} is no {}; declare the returned column as text",
                    column.name(),
                    column.column_type()
                );
                SinkError::new(ErrorClass::Schema, text)
            })
        })
        .collect()
}
