//! Owns the name of a table in marks of loads: as its database has it, so that all spellings of one table have one mark.
//! Must not know where marks are kept.

use std::time::Duration;

use batchsql::{DynSink, ErrorClass, Sink as _, SinkError, TableName};
use tokio::time::timeout;

use crate::exit::Failure;
use crate::load::stop::{Stop, stopped};

/// Asks the database for the table, for as long as `limit`.
///
/// # Errors
/// The database cannot be asked, or does not answer in time, there is no such table, or the load is to end.
pub(super) async fn found_name(
    sink: &DynSink,
    table: &TableName,
    limit: Duration,
    stop: &mut Stop,
) -> Result<String, Failure> {
    Ok(text(&answer(sink.find_table(table), limit, stop).await?))
}

async fn answer(
    asking: impl Future<Output = Result<TableName, SinkError>>,
    limit: Duration,
    stop: &mut Stop,
) -> Result<TableName, Failure> {
    let answered = tokio::select! {
        biased;
        () = stop.wanted() => return Err(stopped()),
        answered = timeout(limit, asking) => answered,
    };
    let Ok(found) = answered else {
        return Err(Failure::unavailable(format!(
            "asking for the name of the table took longer than {limit:?}, which is statement_timeout"
        )));
    };
    found.map_err(|error| match error.class() {
        ErrorClass::Schema | ErrorClass::Permission => Failure::of_table(error),
        _ => Failure::unavailable(error),
    })
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
    use std::future::pending;

    use super::*;
    use crate::exit::Exit;
    use crate::load::stop::Stopper;

    /// A database that does not answer keeps neither the load nor its end waiting.
    #[tokio::test(start_paused = true)]
    async fn a_database_that_does_not_answer_is_given_up() {
        let stopper = Stopper::new();
        let mut stop = stopper.watched();
        let asked = answer(pending(), Duration::from_secs(30), &mut stop);
        let failure = timeout(Duration::from_secs(60), asked).await.expect("it has a limit").unwrap_err();
        assert!(failure.exit == Exit::Unavailable && failure.text.contains("statement_timeout"), "{failure:?}");
        stopper.stop();
        let failure = answer(pending(), Duration::from_secs(30), &mut stop).await.unwrap_err();
        assert!(failure.text.contains("it was stopped"), "{failure:?}");
    }

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
