//! Owns the writing of rows by INSERT statements, from arrays or from values.
//! Must not know transactions: the caller has started one, or needs none.

use batchsql_core::{Attempt, Rows, SinkError, Step};
use sqlx::postgres::{PgArguments, PgTypeInfo};
use sqlx::{Executor, PgConnection, Row};
use tokio::time::Instant;

use crate::classify::{LinkLost, sink_error};
use crate::commit_stage::CommitStage;
use crate::outcome_source::OutcomeSource;
use crate::params::{array_types, arrays, step_types, value_types, values, with_step};
use crate::plan::PostgresPlan;
use crate::returned_keys::ignored_rows;
use crate::statements::Insert;

/// One statement with an array per column; returns the ignored rows.
pub(crate) async fn by_unnest(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    stage: CommitStage<'_>,
) -> Result<Vec<u32>, SinkError> {
    let arguments = arrays(rows, &plan.fields)?;
    insert(link, plan, &plan.unnest, rows, arguments, &array_types(&plan.fields), stage).await
}

/// One statement that returns the numbers of the rows that were written; returns the ignored ones. If the server cannot tell
/// them, it is rolled back, with an error with the code [`crate::guard::RAISED`] or 42704.
pub(crate) async fn by_numbers(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    stage: CommitStage<'_>,
) -> Result<Vec<u32>, SinkError> {
    let sql = &plan.numbered;
    let arguments = arrays(rows, &plan.fields)?;
    let named = prepare(link, plan, sql, &array_types(&plan.fields), stage).await?;
    let lost = stage.begin()?;
    let query = sqlx::query_with(sql, arguments).persistent(named);
    let answer = query.fetch_one(link).await.map_err(|error| sink_error(error, lost))?;
    let inserted = answer.try_get::<i64, _>(0).ok().zip(answer.try_get::<Option<Vec<i64>>, _>(1).ok());
    let ignored = inserted.and_then(|(count, numbers)| left_out(rows.len(), count, numbers.as_deref()));
    let text = "the server returned other numbers of rows than were sent";
    ignored.ok_or_else(|| plan.unexpected_result(stage, text.into()))
}

/// The rows that were not written, by number, ascending. `numbers` are those of the written ones, from 1; `None` if all were,
/// or none.
fn left_out(rows: usize, count: i64, numbers: Option<&[i64]>) -> Option<Vec<u32>> {
    let mut is_left_out = vec![usize::try_from(count).ok()? < rows; rows];
    for number in numbers.unwrap_or_default() {
        let row = is_left_out.get_mut(usize::try_from(number.checked_sub(1)?).ok()?)?;
        *row = false;
    }
    let left_out: Vec<u32> =
        (0..).zip(is_left_out).filter(|(_, is_left_out)| *is_left_out).map(|(row, _)| row).collect();
    (left_out.len() as u64 + count as u64 == rows as u64).then_some(left_out)
}

/// One statement that moves a position and writes the rows; returns the ignored ones. Any other result is rolled back, with an
/// error with the code [`crate::guard::RAISED`].
pub(crate) async fn with_position(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    step: &Step,
    attempt: &Attempt,
) -> Result<Vec<u32>, SinkError> {
    let stage = CommitStage::Commits(attempt);
    let arguments = with_step(arrays(rows, &plan.fields)?, step)?;
    let named = prepare(link, plan, &plan.step, &step_types(&plan.fields), stage).await?;
    let lost = stage.begin()?;
    let query = sqlx::query_with(&plan.step, arguments).persistent(named);
    let begin = Instant::now();
    let answer = query.fetch_one(link).await.map_err(|error| sink_error(error, lost))?;
    plan.observe_exchange(begin.elapsed());
    // Without keys it is known that all were written.
    let ignored = match plan.outcome_source {
        OutcomeSource::Keys => ignored_rows(rows, &plan.fields, &answer),
        OutcomeSource::Total | OutcomeSource::Numbers => Some(Vec::new()),
    };
    ignored.ok_or_else(|| plan.unexpected_result(stage, OTHER_KEYS.into()))
}

const OTHER_KEYS: &str = "the server returned other keys than were sent; check the triggers of the table";

/// Prepares a statement that commits separately from its execution: if the connection is lost here, nothing was
/// executed. Once per connection. Returns whether it has a name.
async fn prepare(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    sql: &str,
    types: &[PgTypeInfo],
    stage: CommitStage<'_>,
) -> Result<bool, SinkError> {
    let named = plan.keeps_statement(stage.commits());
    if named && stage.commits() {
        let prepared = link.prepare_with(sql, types).await;
        prepared.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
    }
    Ok(named)
}

/// Statements with a value per column and row; returns the ignored rows.
pub(crate) async fn by_values(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    stage: CommitStage<'_>,
) -> Result<Vec<u32>, SinkError> {
    let shapes = plan.values.as_ref().expect("a plan that writes by values has their statements");
    let mut ignored = Vec::new();
    let mut start = 0;
    for size in shapes.shapes.split(rows.len()) {
        let part = rows.slice(start..start + size);
        let (arguments, types) = (values(part, &plan.fields)?, value_types(size, &plan.fields));
        let of_part = insert(link, plan, shapes.statement(size), part, arguments, &types, stage).await?;
        ignored.extend(of_part.into_iter().map(|row| row + start as u32));
        start += size;
    }
    Ok(ignored)
}

/// One statement with an array per column, inside a transaction; returns how many rows were written.
pub(crate) async fn count(link: &mut PgConnection, plan: &PostgresPlan, rows: Rows<'_>) -> Result<u64, SinkError> {
    let arguments = arrays(rows, &plan.fields)?;
    total(link, &plan.unnest.plain, arguments, plan.named, CommitStage::Within).await
}

/// One statement; returns the ignored rows.
pub(crate) async fn insert(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    insert: &Insert,
    rows: Rows<'_>,
    arguments: PgArguments,
    types: &[PgTypeInfo],
    stage: CommitStage<'_>,
) -> Result<Vec<u32>, SinkError> {
    let sql = insert.with_keys.as_ref().unwrap_or(&insert.plain);
    let named = prepare(link, plan, sql, types, stage).await?;
    if insert.with_keys.is_some() {
        let lost = stage.begin()?;
        let query = sqlx::query_with(sql, arguments).persistent(named);
        let begin = Instant::now();
        let answer = query.fetch_one(link).await.map_err(|error| sink_error(error, lost))?;
        plan.observe_exchange(begin.elapsed());
        return ignored_rows(rows, &plan.fields, &answer)
            .ok_or_else(|| plan.unexpected_result(stage, OTHER_KEYS.into()));
    }
    let begin = Instant::now();
    let total = total(link, sql, arguments, named, stage).await?;
    plan.observe_exchange(begin.elapsed());
    expect_all(plan, total, rows.len(), stage)
}

/// No row was ignored, and the server confirms it.
pub(crate) fn expect_all(
    plan: &PostgresPlan,
    total: u64,
    rows: usize,
    stage: CommitStage<'_>,
) -> Result<Vec<u32>, SinkError> {
    if total == rows as u64 {
        return Ok(Vec::new());
    }
    let text =
        format!("the server wrote {total} of {rows} rows without an error; check the triggers and rules of the table");
    Err(plan.unexpected_result(stage, text))
}

async fn total(
    link: &mut PgConnection,
    sql: &str,
    arguments: PgArguments,
    named: bool,
    stage: CommitStage<'_>,
) -> Result<u64, SinkError> {
    let lost = stage.begin()?;
    let done = sqlx::query_with(sql, arguments).persistent(named).execute(link).await;
    done.map(|done| done.rows_affected()).map_err(|error| sink_error(error, lost))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_a_number_were_left_out() {
        assert_eq!(left_out(3, 3, None), Some(vec![]));
        assert_eq!(left_out(3, 0, None), Some(vec![0, 1, 2]));
        assert_eq!(left_out(3, 2, Some(&[3, 1])), Some(vec![1]));
        for wrong in [[1, 1], [0, 1], [3, 4], [-1, 2]] {
            assert_eq!(left_out(3, 2, Some(&wrong)), None, "{wrong:?}");
        }
        assert_eq!(left_out(3, 4, None), None);
        assert_eq!(left_out(3, 1, None), None);
    }
}
