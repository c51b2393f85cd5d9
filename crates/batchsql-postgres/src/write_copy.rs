//! Owns the writing of rows by COPY BINARY, into the table or into a temporary one.
//! Must not know transactions: the caller has started one, or needs none.

use batchsql_core::exhaustive::Value;
use batchsql_core::{ColumnView, ErrorClass, Rows, SinkError};
use sqlx::{Executor, PgConnection};
use tokio::time::Instant;

use crate::classify::{LinkLost, sink_error};
use crate::commit_stage::CommitStage;
use crate::copy_form::CopyForm;
use crate::encode::write_field;
use crate::field::Field;
use crate::plan::PostgresPlan;
use crate::write_insert::{expect_all, insert};

/// Bytes that are sent at once. Smaller pieces cost one system call each; larger ones are not faster.
const CHUNK: usize = 64 * 1024;

/// Signature, flags and the length of an extension, see
/// <https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.55.9.4>.
const HEADER: &[u8; 19] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// One COPY into the table; no row is ignored.
pub(crate) async fn by_copy(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
    stage: CommitStage<'_>,
) -> Result<Vec<u32>, SinkError> {
    let total = copy(link, plan, &plan.copy, Target::Table, rows, stage).await?;
    expect_all(plan, total, rows.len(), stage)
}

/// COPY into the temporary table of the transaction, then one INSERT from there; the rows that were ignored.
pub(crate) async fn by_staging(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    rows: Rows<'_>,
) -> Result<Vec<u32>, SinkError> {
    copy(link, plan, &plan.staging.copy, Target::Stage, rows, CommitStage::Within).await?;
    let merge = &plan.staging.merge;
    if plan.named || merge.with_keys.is_some() {
        return insert(link, plan, merge, rows, Default::default(), &[], CommitStage::Within).await;
    }
    // A statement without a name would take two round trips. It has no values.
    let merged = link.execute(&*merge.plain).await.map_err(|error| sink_error(error, LinkLost::BeforeCommit))?;
    expect_all(plan, merged.rows_affected(), rows.len(), CommitStage::Within)
}

/// The target of COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Table,
    /// Its columns have the types in which values are sent.
    Stage,
}

/// Whether COPY into the table can write every value; see [`crate::copy_form`].
pub(crate) fn can_copy(rows: Rows<'_>, fields: &[Field]) -> bool {
    let mut memory = Vec::new();
    fields.iter().enumerate().filter_map(|(index, field)| Some((index, field.form.parsed?))).all(|(index, parsed)| {
        let column = rows.column(index);
        (0..rows.len()).all(|row| match column.get(row).exhaustive() {
            Value::Text(text) | Value::Json(text) => parsed.reads(text, &mut memory),
            _ => true,
        })
    })
}

/// Writes a value with a length prefix.
fn write_parsed(out: &mut Vec<u8>, parsed: CopyForm, text: &str) -> Option<()> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    parsed.write(text, out)?;
    let len = i32::try_from(out.len() - start - 4).ok()?;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    Some(())
}

/// Sends the rows and returns how many were stored. Their values are known to fit (`fit`), because a COPY cannot be
/// aborted safely: if the server has already rejected an earlier row, the client (`PgCopyIn::abort`) loses track of
/// the replies and assigns every later one to the wrong statement.
async fn copy(
    link: &mut PgConnection,
    plan: &PostgresPlan,
    sql: &str,
    into: Target,
    rows: Rows<'_>,
    stage: CommitStage<'_>,
) -> Result<u64, SinkError> {
    // Nothing is stored before the end of the data is sent.
    let failed = |error| sink_error(error, LinkLost::BeforeCommit);
    let fields = &plan.fields;
    let columns: Vec<ColumnView<'_>> = (0..fields.len()).map(|index| rows.column(index)).collect();
    let count = i16::try_from(fields.len()).expect("a table has at most 1600 columns").to_be_bytes();
    let begin = Instant::now();
    let mut stream = link.copy_in_raw(sql).await.map_err(failed)?;
    plan.observe_exchange(begin.elapsed());
    let fixed = rows.schema().fixed_row_len() + 4 * fields.len();
    let mut chunk = Vec::with_capacity((HEADER.len() + 2 * fixed * rows.len()).min(2 * CHUNK));
    chunk.extend_from_slice(HEADER);
    for row in 0..rows.len() {
        chunk.extend_from_slice(&count);
        for (column, field) in columns.iter().zip(fields.iter()) {
            let value = column.get(row);
            let done = match (field.form.parsed.filter(|_| into == Target::Table), value.exhaustive()) {
                (Some(parsed), Value::Text(text) | Value::Json(text)) => write_parsed(&mut chunk, parsed, text),
                _ => write_field(&mut chunk, value, field.form.wire).ok(),
            };
            // Without a code: the connection is closed.
            done.ok_or_else(|| SinkError::new(ErrorClass::Internal, "a value was checked to fit but does not"))?;
        }
        if chunk.len() >= CHUNK {
            stream.send(&*chunk).await.map_err(failed)?;
            chunk.clear();
        }
    }
    chunk.extend_from_slice(&TRAILER);
    stream.send(&*chunk).await.map_err(failed)?;
    let lost = stage.begin()?;
    stream.finish().await.map_err(|error| sink_error(error, lost))
}
