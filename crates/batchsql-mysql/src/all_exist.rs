//! Owns the writing of an update only or a delete as if every key existed, and the check that they did.
//! Must not know which keys exist, or what is done if some do not.
//!
//! A statement with several keys finds one stored row for each of them at most. So if it finds as many rows as there are
//! keys, each of them was written, and no row has to be read first. Otherwise nothing shows which ones were found: the
//! transaction is rolled back. So it is after an error of a value: the row of this value may not exist, and would then be
//! ignored.

use batchsql_core::{Action, ErrorClass, Rows};

use crate::change::change_existing;
use crate::classify::Failed;
use crate::link::{Link, begin, commit, roll_back, undo};
use crate::plan::MySqlPlan;

/// Whether rows may be written as if their keys existed.
pub(crate) fn may_all_exist(plan: &MySqlPlan, rows: Rows<'_>) -> bool {
    let schema = plan.schema();
    let is_possible = match schema.action() {
        Action::Delete => true,
        // Texts are compared one by one.
        Action::UpdateOnly => schema.version_column().is_none() && !plan.locks.has_text_key,
        _ => false,
    };
    // Of two rows with one key, the second would find the row again if it updates it, but not if it deletes it.
    is_possible && plan.keys.as_ref().is_some_and(|keys| keys.waves(rows).len() == 1)
}

/// Writes all rows and returns true, or writes none of them and returns false.
pub(crate) async fn write_as_existing(link: &mut Link<'_>, plan: &MySqlPlan, rows: Rows<'_>) -> Result<bool, Failed> {
    begin(link).await?;
    match change_existing(link, plan, rows, false).await {
        Ok(found) if found == rows.len() as u64 => commit(link).await.map(|()| true),
        Ok(_) => roll_back(link).await.map(|()| false),
        Err(failed) => match undo(link, failed).await {
            failed if failed.usable && failed.error.class() == ErrorClass::Row => Ok(false),
            failed => Err(failed),
        },
    }
}
