//! Owns the choice of the statement for a conflict rule.
//! Must not know tables or connections.

use batchsql_core::{Action, Schema};
use batchsql_sql::mysql::OnDuplicate;

use crate::settings::{IgnoreWith, ReplaceWith};

/// How rows with existing keys are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One statement is enough: a plain insert, an update, a replace.
    Direct(OnDuplicate),
    /// Rows with an existing key are left out; the outcome says which.
    Ignore(IgnoreWith),
    /// The outcome depends on the stored row, which is locked and read first.
    ByKey,
}

/// The way of a schema.
pub(crate) fn way(schema: &Schema, ignore_with: IgnoreWith, replace_with: ReplaceWith) -> Way {
    match (schema.action(), replace_with) {
        (Action::Insert, _) => Way::Direct(OnDuplicate::Fail),
        (Action::Replace, ReplaceWith::ReplaceInto) => Way::Direct(OnDuplicate::Replace),
        (Action::UpdateOnly | Action::Delete, _) => Way::ByKey,
        _ if schema.ignores_existing() => Way::Ignore(ignore_with),
        _ if schema.version_column().is_some() => Way::ByKey,
        (Action::Ignore | Action::Replace | Action::Update, _) => Way::Direct(OnDuplicate::Update),
    }
}
