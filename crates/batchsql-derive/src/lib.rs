//! `#[derive(Row)]`: a struct becomes a typed row; `#[derive(RowColumns)]` and `#[derive(Encode)]`: its parts. Use them
//! through the facade crate `batchsql`, where their attributes are documented.

mod attributes;
mod case;
mod encode;
mod expand;
mod expression;
mod field;
mod meta;
mod rule;

use proc_macro::TokenStream;

/// Makes a struct a row of one table.
///
/// On the struct, `#[row(...)]` takes
///
/// | attribute | meaning | default |
/// |---|---|---|
/// | `table = "orders"` | the table, taken literally | required |
/// | `schema = "audit"` | the namespace of the table | none |
/// | `on_conflict = "update"` | `none`, `ignore`, `replace`, `update`, `update_only` or `delete` | `none` |
/// | `key = "id"` or `key("a", "b")` | the columns of a unique index; needed unless `none` | |
/// | `update("a", "b")` | with `update`: the columns to overwrite | every non-key column |
/// | `only_if_newer = "version"` | with `update` and `update_only`: a row changes nothing unless its version is newer | |
/// | `now = "changed_at"` or `now("a", "b")` | with `update` and `update_only`: columns that are no field, and get the time of the database | |
/// | `on_constraint = "name"` | the unique constraint whose columns are the key (PostgreSQL) | |
/// | `on_partial_index = "NOT gone"` | the condition of the partial unique index whose columns are the key (PostgreSQL, SQLite) | |
/// | `may_add_twice` | rows with `add` or `raw` may be written again after a lost reply | `Unknown` instead |
/// | `overriding_system_value` | writes identity columns that are `GENERATED ALWAYS` (PostgreSQL) | |
/// | `returning("id": i64)` | columns whose values the database returns for each written row, with their types: `Receipt::with_returned` | none |
/// | `rename_all = "camelCase"` | how field names become column names: the cases of `serde` | as they are |
/// | `crate = "path"` | where the BatchSQL API is found | `::batchsql` |
///
/// These attributes name columns as in the database. On a field, `#[row(...)]` takes
///
/// | attribute | meaning |
/// |---|---|
/// | `rename = "column"` | the name of the column |
/// | `skip` | the field is not a column |
/// | `with = path` | the column is what the function returns: `fn(&Field) -> V`, where `V` implements `Encode`. It is called twice for each row, and must return equal values |
/// | `json` | a JSON column of any `serde::Serialize` value; an `Option` is a nullable column |
/// | `flatten` | the columns of a struct that derives `RowColumns` or `Row`, in the place of the field; not of an `Option` |
/// | `skip_none` | an `Option`: for `None` the column is left out, instead of NULL |
/// | `default` | the column is left out if the field equals `Default::default()` of its type |
/// | `add`, `keep`, `unless_null`, `greatest`, `least`, `now`, `raw = "{old} * 2"` | what an update does with the column, instead of overwriting it: the functions of `Expr` |
///
/// `only_if_newer`, `now`, `add` and so on are refinements of `Conflict`, whose docs say what they do. Whether the column has
/// a type that can be added up or compared is checked when the program is compiled. Fields of
/// flattened structs may have expressions too; a row whose rule updates nothing (`none`, `ignore`) does not use them.
///
/// A column that is left out takes the database's default on insert, and is not changed by an update. Rows that leave out
/// different columns have different statements and different batches, so few combinations should be common. Key columns
/// and at least one column are always written; at most 63 columns of a struct can be left out.
///
/// Field types implement `Encode`; an `Option` is a nullable column, and `None` writes NULL. Structs may have lifetimes
/// (rows may borrow their strings), and type and const parameters with the bounds that their fields need (`T: Encode`).
/// Each type has a schema of its own.
#[proc_macro_derive(Row, attributes(row))]
pub fn derive_row(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::row(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct a part of rows: `#[row(flatten)]` on a field of a row inlines its columns. On the struct, `#[row(...)]`
/// takes `rename_all` and `crate`; on a field, the same as `#[derive(Row)]`, `flatten` included.
#[proc_macro_derive(RowColumns, attributes(row))]
pub fn derive_row_columns(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    expand::row_columns(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a type a column: a struct around one value (`struct UserId(i64)`), as that value, or an enum without fields, as
/// the text of its variant.
///
/// On the enum, `#[row(rename_all = "snake_case")]` says how the names of variants become text (the cases of `serde`); on
/// a variant, `#[row(rename = "text")]` is its text. `#[row(crate = "path")]` as for rows.
#[proc_macro_derive(Encode, attributes(row))]
pub fn derive_encode(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as syn::DeriveInput);
    encode::encode(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}
