//! Owns the `#[row(...)]` attributes of structs: their values and the combinations that are valid.
//! Must not know the code that is generated.

use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{DeriveInput, Error, LitStr, Path, Result, Token, parenthesized};

use crate::case::Case;
use crate::field::{Field, FieldKind};
use crate::meta::{row_attributes, set};

/// The attributes that every struct and enum may have.
pub(crate) struct Common {
    pub(crate) rename_all: Option<Case>,
    pub(crate) api: Path,
}

/// The attributes of a row.
pub(crate) struct Container {
    pub(crate) table: LitStr,
    pub(crate) namespace: Option<LitStr>,
    pub(crate) conflict: ConflictRule,
    pub(crate) key: Vec<LitStr>,
    pub(crate) update: Option<Vec<LitStr>>,
    pub(crate) common: Common,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConflictRule {
    None,
    Ignore,
    Replace,
    Update,
}

/// `name = "a"` or `name("a", "b")`.
fn names(meta: &ParseNestedMeta<'_>) -> Result<Vec<LitStr>> {
    if meta.input.peek(Token![=]) {
        return Ok(vec![meta.value()?.parse()?]);
    }
    let content;
    parenthesized!(content in meta.input);
    Ok(Punctuated::<LitStr, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}

/// The common attributes while they are parsed.
#[derive(Default)]
struct CommonParser {
    rename_all: Option<Case>,
    api: Option<Path>,
}

impl CommonParser {
    /// Whether the attribute is one of these.
    fn parse(&mut self, meta: &ParseNestedMeta<'_>) -> Result<bool> {
        if meta.path.is_ident("rename_all") {
            let name = meta.value()?.parse::<LitStr>()?;
            let case = Case::parse(&name.value())
                .ok_or_else(|| Error::new(name.span(), format!("expected one of {}", Case::names())))?;
            set(&mut self.rename_all, case, meta)?;
        } else if meta.path.is_ident("crate") {
            set(&mut self.api, meta.value()?.parse::<LitStr>()?.parse::<Path>()?, meta)?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn finish(self) -> Common {
        Common { rename_all: self.rename_all, api: self.api.unwrap_or_else(|| syn::parse_quote!(::batchsql)) }
    }
}

impl Common {
    /// The attributes of a struct or an enum that is no row of its own.
    pub(crate) fn parse(input: &DeriveInput) -> Result<Self> {
        let mut common = CommonParser::default();
        for attribute in row_attributes(&input.attrs) {
            attribute.parse_nested_meta(|meta| {
                if common.parse(&meta)? {
                    Ok(())
                } else {
                    Err(meta.error("unknown attribute; expected rename_all or crate"))
                }
            })?;
        }
        Ok(common.finish())
    }
}

impl Container {
    pub(crate) fn parse(input: &DeriveInput) -> Result<Self> {
        let (mut table, mut namespace, mut rule, mut key, mut update) = (None, None, None, None, None);
        let mut common = CommonParser::default();
        for attribute in row_attributes(&input.attrs) {
            attribute.parse_nested_meta(|meta| {
                let is = |name| meta.path.is_ident(name);
                if is("table") {
                    set(&mut table, meta.value()?.parse::<LitStr>()?, &meta)
                } else if is("schema") {
                    set(&mut namespace, meta.value()?.parse::<LitStr>()?, &meta)
                } else if is("on_conflict") {
                    set(&mut rule, meta.value()?.parse::<LitStr>()?, &meta)
                } else if is("key") {
                    set(&mut key, names(&meta)?, &meta)
                } else if is("update") {
                    set(&mut update, names(&meta)?, &meta)
                } else if common.parse(&meta)? {
                    Ok(())
                } else {
                    let message =
                        "unknown attribute; expected table, schema, on_conflict, key, update, rename_all or crate";
                    Err(meta.error(message))
                }
            })?;
        }
        let table: LitStr = table.ok_or_else(|| {
            let message = "the table is missing; add #[row(table = \"name\")] to the struct, or derive RowColumns instead if \
                           it is only a part of rows";
            Error::new_spanned(&input.ident, message)
        })?;
        if table.value().is_empty() {
            return Err(Error::new(table.span(), "the table name is empty"));
        }
        let conflict = match &rule {
            None => ConflictRule::None,
            Some(rule) => match rule.value().as_str() {
                "none" => ConflictRule::None,
                "ignore" => ConflictRule::Ignore,
                "replace" => ConflictRule::Replace,
                "update" => ConflictRule::Update,
                _ => return Err(Error::new(rule.span(), "expected none, ignore, replace or update")),
            },
        };
        let key: Vec<LitStr> = key.unwrap_or_default();
        match (conflict, key.first()) {
            (ConflictRule::None, Some(key)) => {
                return Err(Error::new(key.span(), "a key needs on_conflict = \"ignore\", \"replace\" or \"update\""));
            }
            (ConflictRule::None, None) | (_, Some(_)) => {}
            (_, None) => {
                let span = rule.map_or_else(|| input.ident.span(), |rule| rule.span());
                return Err(Error::new(span, "a conflict rule needs the key: add key = \"column\""));
            }
        }
        if let (Some(first), true) = (update.iter().flatten().next(), conflict != ConflictRule::Update) {
            return Err(Error::new(first.span(), "update columns need on_conflict = \"update\""));
        }
        Ok(Self { table, namespace, conflict, key, update, common: common.finish() })
    }

    /// Checks that key and update columns are declared columns, and that a key is always written. Columns of flattened
    /// fields are not known here: the schema checks them.
    pub(crate) fn check(&self, fields: &[Field<'_>]) -> Result<()> {
        let column = |name: &LitStr| fields.iter().find(|field| field.column_name() == Some(name.value()));
        let has_flattened = fields.iter().any(|field| matches!(field.kind, FieldKind::Flatten));
        for name in self.key.iter().chain(self.update.iter().flatten()) {
            if column(name).is_none() && !has_flattened {
                let known: Vec<String> = fields.iter().filter_map(Field::column_name).collect();
                let message = format!("no such column; the columns are {}", known.join(", "));
                return Err(Error::new(name.span(), message));
            }
        }
        for (index, name) in self.key.iter().enumerate() {
            if self.key[..index].iter().any(|earlier| earlier.value() == name.value()) {
                return Err(Error::new(name.span(), "this column is named twice"));
            }
        }
        for (index, name) in self.update.iter().flatten().enumerate() {
            if self.update.iter().flatten().take(index).any(|earlier| earlier.value() == name.value()) {
                return Err(Error::new(name.span(), "this column is named twice"));
            }
            if self.key.iter().any(|key| key.value() == name.value()) {
                return Err(Error::new(name.span(), "both a key and an update column"));
            }
        }
        for field in self.key.iter().filter_map(column) {
            if field.absent.is_some() {
                return Err(Error::new_spanned(
                    field.ty,
                    "a key column cannot be left out: remove default or skip_none",
                ));
            }
            if !matches!(field.kind, FieldKind::With(..)) && field.option().is_some() {
                let message = "a key column cannot be an Option: NULL keys never conflict";
                return Err(Error::new_spanned(field.ty, message));
            }
        }
        if fields.iter().all(|field| field.absent.is_some()) {
            let message = "at least one column must always be written: a row without any value is no row";
            return Err(Error::new_spanned(fields[0].ty, message));
        }
        Ok(())
    }
}
