//! Owns the question which rows a table has exactly as they are: after a lost reply.
//! Must not know how rows are written.

use batchsql_core::{Rows, SinkError, Target};
use batchsql_sql::{quote, quote_table};
use sqlx::{Executor, PgConnection, Row};

use crate::catalog::TableColumn;
use crate::classify::{LinkLost, is_refusal, sink_error};
use crate::conn::PostgresConn;
use crate::field::Field;
use crate::fit::unfit_rows;
use crate::params::arrays;
use crate::plan::PostgresPlan;

/// The rows whose key is stored with their values in every column that the rule writes.
pub(crate) async fn find_written(
    conn: &mut PostgresConn,
    plan: &PostgresPlan,
    rows: Rows<'_>,
) -> Result<Vec<u32>, SinkError> {
    // A row outside the partial index may have the same key and values.
    if matches!(plan.schema.target(), Target::Partial(_)) {
        return Ok(Vec::new());
    }
    // A row that does not fit its column is not written.
    let unfit = unfit_rows(rows, &plan.fields);
    let is_fit = |row: &u32| unfit.binary_search_by_key(row, |(row, _)| *row).is_err();
    let fit: Vec<u32> = (0_u32..).take(rows.len()).filter(is_fit).collect();
    let Some(sql) = statement(plan).filter(|_| !fit.is_empty()) else { return Ok(Vec::new()) };
    conn.check_idle().await?;
    let link = conn.begin()?;
    let found = ask(link, plan, &sql, rows.gather(&fit).rows()).await;
    if found.as_ref().err().is_none_or(is_refusal) {
        conn.end();
    }
    Ok(found?.into_iter().filter_map(|row| fit.get(row).copied()).collect())
}

async fn ask(link: &mut PgConnection, plan: &PostgresPlan, sql: &str, rows: Rows<'_>) -> Result<Vec<usize>, SinkError> {
    let lost = |error| sink_error(error, LinkLost::BeforeCommit);
    let arguments = arrays(rows, &plan.fields)?;
    // A pooler may pass the two messages of a statement without a name to two sessions.
    if !plan.named {
        link.execute("BEGIN READ ONLY").await.map_err(lost)?;
    }
    let found = sqlx::query_with(sql, arguments).persistent(false).fetch_all(&mut *link).await.map_err(lost);
    if !plan.named && found.as_ref().err().is_none_or(is_refusal) {
        link.execute("ROLLBACK").await.map_err(lost)?;
    }
    let number = |row: &sqlx::postgres::PgRow| row.try_get::<i64, _>(0).ok().and_then(|n| usize::try_from(n - 1).ok());
    Ok(found?.iter().filter_map(number).collect())
}

/// The statement. Each value is converted as its column would store it, and the images in memory are compared: every type
/// has one, also those without an operator, and `=` may ignore case, scale or the sign of zero.
fn statement(plan: &PostgresPlan) -> Option<String> {
    let (schema, fields) = (&plan.schema, &plan.fields);
    let names: Vec<String> = (0..fields.len()).map(|column| format!("c{column}")).collect();
    let arrays = fields.iter().zip(1..).map(|(field, number)| format!("${number}::{}[]", field.form.wire.sql()));
    let arrays: Vec<String> = arrays.collect();
    let sent = |column: &usize| fields[*column].form.expression(&format!("u.c{column}"));
    let equal = |column: &usize| {
        let Field { name, ty, .. } = &fields[*column];
        // Other operators may be found first in the search path.
        let equals = if ty.starts_with("\"pg_catalog\".") { "OPERATOR(pg_catalog.=)" } else { "=" };
        format!("t.{} {equals} ({})::{ty}", quote(name), sent(column))
    };
    let key: Vec<String> = schema.key_columns().iter().map(equal).collect();
    let compared = || schema.key_columns().iter().chain(schema.update_columns());
    let stored: Vec<String> = compared().map(|column| format!("t.{}", quote(&fields[*column].name))).collect();
    let converted = |column: &usize| {
        let TableColumn { declared, .. } = plan.column(&fields[*column].name)?;
        Some(format!("({})::{declared}", sent(column)))
    };
    let converted: Vec<String> = compared().map(converted).collect::<Option<_>>()?;
    Some(format!(
        "SELECT u.n FROM unnest({}) WITH ORDINALITY AS u({},n) JOIN {} AS t ON {} \
         WHERE ROW({})::record OPERATOR(pg_catalog.*=) ROW({})::record ORDER BY u.n",
        arrays.join(","),
        names.join(","),
        quote_table(&plan.table),
        key.join(" AND "),
        stored.join(","),
        converted.join(",")
    ))
}
