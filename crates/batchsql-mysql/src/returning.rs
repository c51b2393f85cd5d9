//! Owns the clause with which an insert returns values, and what servers without it say.
//! Must not know rows or connections.

use batchsql_core::{Column, ColumnType, ErrorClass, SinkError};
use batchsql_sql::TableProblems;
use batchsql_sql::mysql::quote;

use crate::catalog::{TableColumn, same_name};
use crate::classify::Failed;
use crate::keys::shown;
use crate::way::Way;

/// The clause of the returned columns with its leading space; empty if there are none. `None` if the table lacks such a column,
/// or the way of writing returns nothing.
pub(crate) fn clause(
    returning: &[Column],
    table: &[TableColumn],
    way: Way,
    problems: &mut TableProblems,
) -> Option<String> {
    if returning.is_empty() {
        return Some(String::new());
    }
    if !matches!(way, Way::Direct(_)) {
        problems.add("values are returned for plain inserts, replace and update only");
        return None;
    }
    let expression = |column: &Column| {
        let found = table.iter().find(|found| same_name(&found.name, column.name()));
        let found = found.ok_or_else(|| format!("it has no column {:?}, which is to be returned", column.name()))?;
        if column.column_type() == ColumnType::F32 || found.data_type == "float" {
            let text = "is a FLOAT, which the server shows with fewer digits than it has; do not return it";
            return Err(format!("its column {:?} {text}", column.name()));
        }
        if !may_fit(column.column_type(), &found.data_type) {
            let ty = column.column_type();
            return Err(format!(
                "its column {:?} is declared {}, so its values cannot be returned as {ty}; return the column as the type with which \
                 it is written, or as text",
                column.name(),
                found.full_type
            ));
        }
        Ok(shown(&quote(column.name()), column.column_type(), &found.data_type))
    };
    let expressions: Vec<String> = returning.iter().filter_map(|column| problems.check(expression(column))).collect();
    (expressions.len() == returning.len()).then(|| format!(" RETURNING {}", expressions.join(",")))
}

/// Whether a date or time of a column may be one of the declared type.
fn may_fit(ty: ColumnType, stored: &str) -> bool {
    match ty {
        ColumnType::Date => !matches!(stored, "time" | "datetime" | "timestamp" | "year"),
        ColumnType::Time => !matches!(stored, "date" | "datetime" | "timestamp" | "year"),
        ColumnType::Timestamp | ColumnType::TimestampTz => !matches!(stored, "date" | "time" | "year"),
        _ => true,
    }
}

/// The error of a server without the clause.
pub(crate) fn explained(failed: Failed, returning: &[Column]) -> Failed {
    if returning.is_empty() || failed.code != 1064 {
        return failed;
    }
    let text = "this server does not return the values of inserted rows; MariaDB does, from version 10.5";
    Failed { error: SinkError::new(ErrorClass::Schema, text), ..failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_the_clause_is_named() {
        let check = |code: u16, returning: &[Column], is_explained: bool| {
            let error = SinkError::with_code(ErrorClass::Internal, code.to_string(), "the statement is refused");
            let failed = Failed { code, ..Failed::unsent(error) };
            let explained = explained(failed, returning);
            let expected = if is_explained { ErrorClass::Schema } else { ErrorClass::Internal };
            assert_eq!((explained.error.class(), explained.usable, explained.code), (expected, true, code));
            assert_eq!(explained.error.to_string().contains("MariaDB does, from version 10.5"), is_explained);
        };
        let schema = batchsql_core::Schema::builder("t").column("n", ColumnType::I64).returning("id", ColumnType::I64);
        let schema = schema.build().unwrap();
        check(1064, schema.returning(), true);
        // A syntax error has another reason if nothing is returned.
        check(1064, &[], false);
        check(1054, schema.returning(), false);
    }
}
