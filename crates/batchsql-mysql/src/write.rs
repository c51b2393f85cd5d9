//! Owns the writing of one batch: values are checked, then the strategy of the plan is used.
//! Must not know statements, keys or pools.
//!
//! One statement is its own transaction. Several run in `START TRANSACTION … COMMIT`, and an error rolls all of
//! them back. A batch that is abandoned before its last step is known not to be written.

use batchsql_core::exhaustive::Set;
use batchsql_core::{Action, ErrorClass, Rows, Schema, SinkError, Written};

use crate::classify::Failed;
use crate::insert::insert_all;
use crate::link::Link;
use crate::piece::too_large;
use crate::plan::MySqlPlan;
use crate::types::Null;
use crate::way::Way;
use crate::write_by_key::write_by_key;
use crate::write_ignore::write_ignore;
use crate::write_returning::write_returning;

/// Writes the rows in one transaction. After an error none of them is durable, unless its class says that this is
/// unknown. Rows that are known to be rejected are not sent; the others are still written.
pub(crate) async fn write_rows(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
    let unfit = unfit(plan, rows);
    if let Some((_, error)) = unfit.first() {
        if link.attempt.is_atomic() {
            return Err(Failed::unsent(error.clone()));
        }
        // The table may have changed since the plan was made.
        plan.check_again(link.connection).await?;
        return write_others(link, plan, rows, unfit).await;
    }
    match write_fit(link, plan, rows).await {
        Err(failed) if failed.is_unsent() && failed.error.class() == ErrorClass::Size && !link.attempt.is_atomic() => {
            let large = too_large(plan, rows);
            if large.is_empty() { Err(failed) } else { Box::pin(write_others(link, plan, rows, large)).await }
        }
        written => written,
    }
}

/// Writes the rows that are not listed; the listed ones are rejected.
async fn write_others(
    link: &mut Link<'_>,
    plan: &MySqlPlan,
    rows: Rows<'_>,
    refused: Vec<(u32, SinkError)>,
) -> Result<Written, Failed> {
    let count = u32::try_from(rows.len()).expect("buffer_size fits u32");
    let others: Vec<u32> =
        (0..count).filter(|row| refused.binary_search_by_key(row, |(refused, _)| *refused).is_err()).collect();
    let mut written = Written::default();
    if !others.is_empty() {
        let shared = rows.gather(&others);
        written = Box::pin(write_rows(link, plan, shared.rows())).await?;
        written.ignored.iter_mut().for_each(|row| *row = others[*row as usize]);
        written.rejected.iter_mut().for_each(|(row, _)| *row = others[*row as usize]);
        written.returned.iter_mut().for_each(|(row, _)| *row = others[*row as usize]);
    }
    written.rejected.extend(refused);
    written.rejected.sort_unstable_by_key(|(row, _)| *row);
    Ok(written)
}

async fn write_fit(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
    match plan.way {
        // Steps have no receipts.
        Way::Direct(_) if !plan.schema().returning().is_empty() && link.attempt.step().is_none() => {
            write_returning(link, plan, rows).await
        }
        Way::Direct(_) => {
            insert_all(link, plan, rows).await?;
            Ok(Written::default())
        }
        Way::Ignore(ignore_with) => write_ignore(link, plan, rows, ignore_with).await,
        Way::ByKey => write_by_key(link, plan, rows).await,
    }
}

/// Whether the rule writes no NULL of a row into this column.
fn keeps_stored(schema: &Schema, column: usize) -> bool {
    let is_kept = |set: &Set| !matches!(set, Set::Overwrite | Set::Raw(_));
    let mut of_column = schema.assignments().iter().filter(|assignment| assignment.column == Some(column));
    schema.action() == Action::UpdateOnly && of_column.all(|assignment| is_kept(&assignment.set))
}

const NULL_BECOMES_NOW: &str = "is NULL, which the server would replace by the current time, as the column is NOT NULL; send a value, or declare it NULL";

/// The rows with a value that the server would silently change, each once.
fn unfit(plan: &MySqlPlan, rows: Rows<'_>) -> Vec<(u32, SinkError)> {
    let mut unfit = Vec::new();
    for (index, storage) in plan.storage.iter().enumerate() {
        let (view, name) = (rows.column(index), rows.schema().columns()[index].name());
        let mut reject = |row: usize, reason: &str| {
            let error = SinkError::new(ErrorClass::Row, format!("a value of column {name:?} {reason}"));
            unfit.push((u32::try_from(row).expect("buffer_size fits u32"), error));
        };
        if storage.null == Null::Now && !keeps_stored(rows.schema(), index) {
            (0..rows.len()).filter(|row| view.is_null(*row)).for_each(|row| reject(row, NULL_BECOMES_NOW));
        }
        storage.guard.refused(&view, rows.len()).for_each(|row| reject(row, &storage.guard.reason(view.get(row))));
    }
    unfit.sort_by_key(|(row, _)| *row);
    unfit.dedup_by_key(|(row, _)| *row);
    unfit
}
