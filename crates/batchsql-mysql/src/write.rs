//! Owns the writing of one batch: values are checked, then the way of the plan is taken.
//! Must not know statements, keys or pools.
//!
//! One statement is a transaction of its own. Several are `START TRANSACTION … COMMIT`, and after an error nothing
//! of them is left. A batch that is given up before its last step, whichever it is, is known not to be written.

use batchsql_core::{ErrorClass, Rows, SinkError, Written};

use crate::classify::Failed;
use crate::insert::insert_all;
use crate::link::Link;
use crate::plan::{MySqlPlan, Way};
use crate::write_ignore::write_ignore;

/// Writes the rows in one transaction. After an error nothing of them is durable, unless its class says that this
/// is unknown.
pub(crate) async fn write_rows(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<Written, Failed> {
    check_values(plan, rows)?;
    match plan.way {
        Way::Direct(_) => {
            insert_all(link, plan, rows).await?;
            Ok(Written::default())
        }
        Way::Ignore(ignore_with) => write_ignore(link, plan, rows, ignore_with).await,
    }
}

/// Refuses values that the server would change without an error, before anything is sent.
fn check_values(plan: &MySqlPlan, rows: Rows<'_>) -> Result<(), Failed> {
    for (index, storage) in plan.storage.iter().enumerate() {
        if storage.guard.first_refused(&rows.column(index), rows.len()).is_some() {
            let column = rows.schema().columns()[index].name();
            let text = format!("a value of column {column:?} {}", storage.guard.reason());
            return Err(Failed::unsent(SinkError::new(ErrorClass::Row, text)));
        }
    }
    Ok(())
}
