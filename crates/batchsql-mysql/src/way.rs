//! Owns the choice of the statement for a conflict rule.
//! Must not know tables or connections.

use batchsql_core::{Conflict, Schema};
use batchsql_sql::mysql::OnDuplicate;

use crate::settings::{IgnoreWith, ReplaceWith};

/// How rows with existing keys are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One statement is enough: a plain insert, an update, a replace.
    Direct(OnDuplicate),
    /// Rows with an existing key are left out; the outcome says which.
    Ignore(IgnoreWith),
}

/// The way of a schema.
pub(crate) fn way(schema: &Schema, ignore_with: IgnoreWith, replace_with: ReplaceWith) -> Way {
    match (schema.conflict(), replace_with) {
        (Conflict::None, _) => Way::Direct(OnDuplicate::Fail),
        (Conflict::Replace { .. }, ReplaceWith::ReplaceInto) => Way::Direct(OnDuplicate::Replace),
        // Ignore, or an update of a table whose columns are all part of the key.
        _ if schema.update_columns().is_empty() => Way::Ignore(ignore_with),
        _ => Way::Direct(OnDuplicate::Update),
    }
}
