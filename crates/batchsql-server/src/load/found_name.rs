//! Owns the name of a table in marks of loads: as its database has it, so that all spellings of one table have one mark.
//! Must not know where marks are kept.

use batchsql::{DynSink, ErrorClass, Sink as _, TableName};

use crate::exit::Failure;

/// Asks the database for the table.
///
/// # Errors
/// The database cannot be asked, or there is no such table.
pub(super) async fn found_name(sink: &DynSink, table: &TableName) -> Result<String, Failure> {
    let found = sink.find_table(table).await.map_err(|error| match error.class() {
        ErrorClass::Schema | ErrorClass::Permission => Failure::of_table(error),
        _ => Failure::unavailable(error),
    })?;
    Ok(text(&found))
}

/// Two tables have two texts, whatever is in their names.
fn text(table: &TableName) -> String {
    let part = |part: &str| {
        if part.contains(['.', '"']) { format!("\"{}\"", part.replace('"', "\"\"")) } else { part.to_owned() }
    };
    let name = part(table.name());
    table.namespace().map_or_else(|| name.clone(), |namespace| format!("{}.{name}", part(namespace)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tables_have_two_texts() {
        let check = |table: TableName, expected: &str| assert_eq!(text(&table), expected);
        check(TableName::new("orders"), "orders");
        check(TableName::qualified("public", "orders"), "public.orders");
        check(TableName::new("public.orders"), "\"public.orders\"");
        check(TableName::qualified("a", "b.c"), "a.\"b.c\"");
        check(TableName::qualified("a.b", "c"), "\"a.b\".c");
        check(TableName::qualified("a\".b", "c"), "\"a\"\".b\".c");
    }
}
