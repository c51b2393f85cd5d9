//! `#[derive(Row)]`: a struct becomes a typed row. Use it through the facade crate `batchsql`, where
//! its attributes are documented.

mod attributes;
mod expand;

use proc_macro::TokenStream;

/// Makes a struct a row of one table.
///
/// On the struct, `#[row(...)]` takes
///
/// | attribute | meaning | default |
/// |---|---|---|
/// | `table = "orders"` | the table, taken literally | required |
/// | `schema = "audit"` | the namespace of the table | none |
/// | `on_conflict = "update"` | `none`, `ignore`, `replace` or `update` | `none` |
/// | `key = "id"` or `key("a", "b")` | the columns of a unique index; needed unless `none` | |
/// | `update("a", "b")` | with `update`: the columns to overwrite | every non-key column |
/// | `crate = "path"` | where the BatchSQL API is found | `::batchsql` |
///
/// On a field, `#[row(rename = "column")]` names the column, and `#[row(skip)]` leaves the field out.
/// Key and update columns are named as in the database.
///
/// Field types implement `Encode`; an `Option` is a nullable column, and `None` writes NULL: to leave a column out (the
/// table's default, or untouched by an update), use a dynamic row. Lifetime parameters are possible (rows may borrow
/// their strings), type parameters are not.
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::row(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
