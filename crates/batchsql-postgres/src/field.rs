//! Owns a column of the rows together with the form in which its values are sent.
//! Must not know statements or tables.

use crate::part::Part;
use crate::types::Form;

/// A column of the rows, and how its values are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Box<str>,
    /// The type of the column, quoted, without its modifier: submitted keys are compared as this type.
    pub(crate) ty: Box<str>,
    pub(crate) form: Form,
    /// The parts of its type that must be checked one by one.
    pub(crate) parts: Option<Part>,
    /// Whether equal values of the column are sent in one form only, so that two forms are two keys. Not for `numeric`
    /// (1.5 and 1.50), `citext`, or a collation that is not deterministic.
    pub(crate) has_one_form: bool,
}
