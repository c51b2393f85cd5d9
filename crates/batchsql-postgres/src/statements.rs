//! Owns the SQL text of each way of writing.
//! Must not know rows, connections or which way is chosen.

use batchsql_core::Schema;
use batchsql_sql::{Dialect, insert_from, quote, quote_table};

use crate::plan::{Field, Tell};

/// An insert in two versions.
#[derive(Debug)]
pub(crate) struct Insert {
    /// Tells how many rows were written.
    pub(crate) plain: Box<str>,
    /// Tells which ones, see [`crate::told`]; only where rows are known by their keys.
    pub(crate) telling: Option<Box<str>>,
}

/// The statements of a batch by way of a temporary table, which is gone with the transaction.
#[derive(Debug)]
pub(crate) struct Staging {
    pub(crate) create: Box<str>,
    pub(crate) copy: Box<str>,
    pub(crate) merge: Insert,
}

const STAGE: &str = "pg_temp.batchsql_stage";

/// `INSERT … SELECT … FROM unnest(…)`: one array per column.
pub(crate) fn unnest(schema: &Schema, fields: &[Field], tell: Tell) -> Insert {
    let arrays = fields.iter().zip(1..).map(|(field, number)| format!("${number}::{}[]", field.form.wire.sql()));
    let arrays: Vec<String> = arrays.collect();
    let names: Vec<String> = (0..fields.len()).map(|column| format!("c{column}")).collect();
    let from = format!("unnest({}) AS u({})", arrays.join(","), names.join(","));
    let source = format!("SELECT {} FROM {from}", expressions(fields));
    insert(schema, fields, &source, "pg_catalog.cardinality($1)", tell)
}

/// `INSERT … VALUES (…), (…)`: one value per column and row.
pub(crate) fn values(schema: &Schema, fields: &[Field], rows: usize, tell: Tell) -> Insert {
    let mut source = String::from("VALUES ");
    let mut number = 0;
    for row in 0..rows {
        source.push_str(if row == 0 { "(" } else { ",(" });
        for (column, field) in fields.iter().enumerate() {
            number += 1;
            if column > 0 {
                source.push(',');
            }
            // The text says the types: the client finds a statement again by its text, also after a column changed.
            let value = if row == 0 { format!("${number}::{}", field.form.wire.sql()) } else { format!("${number}") };
            source.push_str(&field.form.expression(&value));
        }
        source.push(')');
    }
    insert(schema, fields, &source, &rows.to_string(), tell)
}

/// `COPY` into the table.
pub(crate) fn copy(schema: &Schema) -> String {
    let columns: Vec<String> = schema.columns().iter().map(|column| quote(column.name())).collect();
    format!("COPY {} ({}) FROM STDIN (FORMAT binary)", quote_table(schema.table()), columns.join(","))
}

/// `COPY` into a temporary table, and from there into the table.
pub(crate) fn staging(schema: &Schema, fields: &[Field], tell: Tell) -> Staging {
    let columns = fields.iter().enumerate().map(|(column, field)| format!("c{column} {}", field.form.wire.sql()));
    let columns: Vec<String> = columns.collect();
    let source = format!("SELECT {} FROM {STAGE} AS u", expressions(fields));
    Staging {
        create: format!("CREATE TEMPORARY TABLE batchsql_stage ({}) ON COMMIT DROP", columns.join(",")).into(),
        copy: format!("COPY {STAGE} FROM STDIN (FORMAT binary)").into(),
        merge: insert(schema, fields, &source, &format!("(SELECT count(*) FROM {STAGE})"), tell),
    }
}

/// The columns of `u`, as their columns of the table take them.
fn expressions(fields: &[Field]) -> String {
    let expressions = fields.iter().enumerate().map(|(column, field)| field.form.expression(&format!("u.c{column}")));
    expressions.collect::<Vec<_>>().join(",")
}

/// An insert from a source of `rows` rows.
fn insert(schema: &Schema, fields: &[Field], source: &str, rows: &str, tell: Tell) -> Insert {
    let plain = insert_from(Dialect::Postgres, schema, source);
    let telling = (tell == Tell::Keys).then(|| {
        let key: Vec<String> = schema.key_columns().iter().map(|column| quote(&fields[*column].name)).collect();
        // The subqueries run only when rows were ignored. Counting alone costs 1 % of a batch of 500 rows that are
        // all new; gathering the keys in any case would cost 4 % (measured).
        let arrays = schema.key_columns().iter().zip(&key).map(|(column, name)| {
            let ty = fields[*column].form.wire.sql();
            let keys = format!("SELECT pg_catalog.array_agg({name}::{ty}) FROM i");
            format!(",CASE WHEN pg_catalog.count(*) < {rows} THEN ({keys}) END")
        });
        let arrays: String = arrays.collect();
        let returning = key.join(",");
        format!("WITH i AS ({plain} RETURNING {returning}) SELECT pg_catalog.count(*){arrays} FROM i").into()
    });
    Insert { plain: plain.into(), telling }
}
