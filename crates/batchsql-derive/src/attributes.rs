//! Owns the `#[row(...)]` attributes: their values and the combinations that are valid.
//! Must not know the code that is generated.

use syn::meta::ParseNestedMeta;
use syn::punctuated::Punctuated;
use syn::{Attribute, DeriveInput, Error, Field, Ident, LitStr, Path, Result, Token, parenthesized};

/// The attributes of the struct.
pub(crate) struct Container {
    pub(crate) table: LitStr,
    pub(crate) namespace: Option<LitStr>,
    pub(crate) conflict: ConflictRule,
    pub(crate) key: Vec<LitStr>,
    pub(crate) update: Option<Vec<LitStr>>,
    pub(crate) api: Path,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConflictRule {
    None,
    Ignore,
    Replace,
    Update,
}

/// One field that becomes a column.
pub(crate) struct Column<'a> {
    pub(crate) field: &'a Ident,
    pub(crate) ty: &'a syn::Type,
    pub(crate) name: LitStr,
}

fn row_attributes(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("row"))
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

/// Sets an attribute once.
fn set<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("this attribute is given twice")),
    }
}

impl Container {
    pub(crate) fn parse(input: &DeriveInput) -> Result<Self> {
        let (mut table, mut namespace, mut rule, mut key, mut update, mut api) = (None, None, None, None, None, None);
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
                } else if is("crate") {
                    set(&mut api, meta.value()?.parse::<LitStr>()?.parse::<Path>()?, &meta)
                } else {
                    Err(meta.error("unknown attribute; expected table, schema, on_conflict, key, update or crate"))
                }
            })?;
        }
        let table: LitStr = table.ok_or_else(|| {
            Error::new_spanned(&input.ident, "the table is missing; add #[row(table = \"name\")] to the struct")
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
        let api = api.unwrap_or_else(|| syn::parse_quote!(::batchsql));
        Ok(Self { table, namespace, conflict, key, update, api })
    }

    /// Checks that key and update columns are declared columns.
    pub(crate) fn check(&self, columns: &[Column<'_>]) -> Result<()> {
        for name in self.key.iter().chain(self.update.iter().flatten()) {
            if !columns.iter().any(|column| column.name.value() == name.value()) {
                let known: Vec<String> = columns.iter().map(|column| column.name.value()).collect();
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
        Ok(())
    }
}

impl<'a> Column<'a> {
    /// The column of a field; `None` when the field is skipped.
    pub(crate) fn parse(field: &'a Field) -> Result<Option<Self>> {
        let ident = field.ident.as_ref().expect("only structs with named fields get here");
        let (mut rename, mut skip) = (None, None);
        for attribute in row_attributes(&field.attrs) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("rename") {
                    set(&mut rename, meta.value()?.parse::<LitStr>()?, &meta)
                } else if meta.path.is_ident("skip") {
                    set(&mut skip, (), &meta)
                } else {
                    Err(meta.error("unknown attribute; expected rename or skip"))
                }
            })?;
        }
        if skip.is_some() {
            return Ok(None);
        }
        let name = rename.unwrap_or_else(|| {
            let name = ident.to_string();
            LitStr::new(name.strip_prefix("r#").unwrap_or(&name), ident.span())
        });
        if name.value().is_empty() {
            return Err(Error::new(name.span(), "the column name is empty"));
        }
        Ok(Some(Self { field: ident, ty: &field.ty, name }))
    }
}
