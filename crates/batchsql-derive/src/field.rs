//! Owns the `#[row(...)]` attributes of fields: which columns a field is, when it is left out, and what an update does.
//! Must not know the code that is generated.

use syn::{Data, DeriveInput, Error, Fields, GenericArgument, Ident, LitStr, Path, PathArguments, Result, Type};

use crate::case::Case;
use crate::expression::Expression;
use crate::meta::{row_attributes, set};

/// One field that is a column, or several.
pub(crate) struct Field<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) ty: &'a Type,
    pub(crate) kind: FieldKind,
    pub(crate) absent: Option<Absent>,
    /// What an update does with the column, and where that is written.
    pub(crate) expression: Option<(Ident, Expression)>,
}

pub(crate) enum FieldKind {
    /// The value of its type.
    Plain(LitStr),
    /// What a function returns for it.
    With(LitStr, Path),
    /// A JSON document.
    Json(LitStr),
    /// The columns of its type.
    Flatten,
}

/// When the column is left out.
#[derive(Clone, Copy)]
pub(crate) enum Absent {
    IfNone,
    IfDefault,
}

impl<'a> Field<'a> {
    /// `None` when the field is skipped.
    fn parse(field: &'a syn::Field, rename_all: Option<Case>) -> Result<Option<Self>> {
        let ident = field.ident.as_ref().expect("only structs with named fields get here");
        let (mut rename, mut skip, mut with, mut json, mut flatten) = (None, None, None, None, None);
        let (mut skip_none, mut default, mut expression) = (None, None, None);
        for attribute in row_attributes(&field.attrs) {
            attribute.parse_nested_meta(|meta| {
                let is = |name| meta.path.is_ident(name);
                if is("rename") {
                    set(&mut rename, meta.value()?.parse::<LitStr>()?, &meta)
                } else if is("skip") {
                    set(&mut skip, (), &meta)
                } else if is("with") {
                    set(&mut with, meta.value()?.parse::<Path>()?, &meta)
                } else if is("json") {
                    set(&mut json, (), &meta)
                } else if is("flatten") {
                    set(&mut flatten, (), &meta)
                } else if is("skip_none") {
                    set(&mut skip_none, (), &meta)
                } else if is("default") {
                    set(&mut default, (), &meta)
                } else if Expression::parse(&mut expression, &meta)? {
                    Ok(())
                } else if is("key") {
                    Err(meta.error("key is an attribute of the struct, which names the columns: key = \"id\""))
                } else {
                    let message = "unknown attribute; expected rename, skip, with, json, flatten, skip_none, default, add, keep, \
                                   unless_null, greatest, least, now or raw";
                    Err(meta.error(message))
                }
            })?;
        }
        let error = |message: &str| Err(Error::new_spanned(&field.ty, message));
        let has_others = rename.is_some()
            || with.is_some()
            || json.is_some()
            || skip_none.is_some()
            || default.is_some()
            || expression.is_some();
        if (skip.is_some() && (has_others || flatten.is_some())) || (flatten.is_some() && has_others) {
            return error("skip and flatten go with no other attribute: the field itself is not a column");
        }
        if skip.is_some() {
            return Ok(None);
        }
        if flatten.is_some() {
            if option_of(&field.ty).is_some() {
                return error(
                    "an Option cannot be flattened: a row has the same columns for None; flatten a struct whose fields \
                              are Options",
                );
            }
            return Ok(Some(Self { ident, ty: &field.ty, kind: FieldKind::Flatten, absent: None, expression: None }));
        }
        let name = rename.unwrap_or_else(|| {
            let name = ident.to_string();
            let name = name.strip_prefix("r#").unwrap_or(&name);
            LitStr::new(&rename_all.map_or_else(|| name.to_owned(), |case| case.apply(name)), ident.span())
        });
        if name.value().is_empty() {
            return Err(Error::new(name.span(), "the column name is empty"));
        }
        let absent = match (skip_none, default) {
            (None, None) => None,
            (Some(()), None) if option_of(&field.ty).is_some() => Some(Absent::IfNone),
            (Some(()), None) => return error("skip_none needs an Option; use default to leave out other values"),
            (None, Some(())) => Some(Absent::IfDefault),
            (Some(()), Some(())) => {
                return error("skip_none and default are two ways to leave the column out; keep one");
            }
        };
        let kind = match (with, json) {
            (None, None) => FieldKind::Plain(name),
            (Some(path), None) => FieldKind::With(name, path),
            (None, Some(())) => FieldKind::Json(name),
            (Some(_), Some(())) => return error("with and json are two ways to convert the field; keep one"),
        };
        Ok(Some(Self { ident, ty: &field.ty, kind, absent, expression }))
    }

    /// The fields of a struct that are columns.
    pub(crate) fn all(input: &'a DeriveInput, rename_all: Option<Case>) -> Result<Vec<Self>> {
        let fields = match &input.data {
            Data::Struct(data) => match &data.fields {
                Fields::Named(fields) => fields,
                _ => return Err(Error::new_spanned(&input.ident, "a row must be a struct with named fields")),
            },
            _ => return Err(Error::new_spanned(&input.ident, "a row must be a struct with named fields")),
        };
        let mut all: Vec<Self> = Vec::new();
        for field in &fields.named {
            let Some(field) = Self::parse(field, rename_all)? else { continue };
            if let Some(name) = field.name()
                && all.iter().any(|earlier| earlier.column_name() == Some(name.value()))
            {
                return Err(Error::new(name.span(), "two fields have this column name"));
            }
            all.push(field);
        }
        if all.is_empty() {
            return Err(Error::new_spanned(&input.ident, "a row needs at least one column"));
        }
        Ok(all)
    }

    /// The name of its column, if it is one.
    pub(crate) fn name(&self) -> Option<&LitStr> {
        match &self.kind {
            FieldKind::Plain(name) | FieldKind::With(name, _) | FieldKind::Json(name) => Some(name),
            FieldKind::Flatten => None,
        }
    }

    /// As [`name`](Self::name), as text.
    pub(crate) fn column_name(&self) -> Option<String> {
        self.name().map(LitStr::value)
    }

    /// The type in its `Option`, if it is written as one.
    pub(crate) fn option(&self) -> Option<&'a Type> {
        option_of(self.ty)
    }
}

/// The type in an `Option`. An alias of one is found when the schema is built.
fn option_of(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Type(inner) => Some(inner),
        _ => None,
    }
}
