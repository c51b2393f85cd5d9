//! Owns what an update does with the column of a field, as an attribute of the field gives it.
//! Must not know the code that is generated, nor other attributes.

use syn::meta::ParseNestedMeta;
use syn::{Ident, LitStr, Result};

use crate::meta::set;

/// What an update does with a column; the variants are the functions of `Expr`.
pub(crate) enum Expression {
    Add,
    Keep,
    UnlessNull,
    Greatest,
    Least,
    Now,
    Raw(LitStr),
}

impl Expression {
    /// The attributes.
    pub(crate) const NAMES: [&str; 7] = ["add", "keep", "unless_null", "greatest", "least", "now", "raw"];

    /// Whether the attribute is an expression; then it is set, with the place of its name.
    pub(crate) fn parse(slot: &mut Option<(Ident, Self)>, meta: &ParseNestedMeta<'_>) -> Result<bool> {
        let Some(name) = meta.path.get_ident() else { return Ok(false) };
        let expression = match name.to_string().as_str() {
            "add" => Self::Add,
            "keep" => Self::Keep,
            "unless_null" => Self::UnlessNull,
            "greatest" => Self::Greatest,
            "least" => Self::Least,
            "now" => Self::Now,
            "raw" => Self::Raw(meta.value()?.parse()?),
            _ => return Ok(false),
        };
        match slot {
            Some((other, _)) if *other != *name => {
                Err(meta.error(format!("{other} and {name} are two values of one column; keep one")))
            }
            _ => set(slot, (name.clone(), expression), meta).map(|()| true),
        }
    }

    /// Whether a repeat changes nothing.
    pub(crate) fn is_repeatable(&self) -> bool {
        !matches!(self, Self::Add | Self::Raw(_))
    }
}
