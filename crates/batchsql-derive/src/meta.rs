//! Owns how `#[row(...)]` attributes are found, and that each is given once.
//! Must not know which attributes there are.

use syn::meta::ParseNestedMeta;
use syn::{Attribute, Result};

pub(crate) fn row_attributes(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("row"))
}

/// Sets an attribute once.
pub(crate) fn set<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("this attribute is given twice")),
    }
}
