//! Owns the `#[row(...)]` attributes of structs, those of the conflict rule aside.
//! Must not know the code that is generated.

use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream};
use syn::{DeriveInput, Error, LitStr, Path, Result, Token, Type, parenthesized};

use crate::case::Case;
use crate::expression::Expression;
use crate::field::Field;
use crate::meta::{row_attributes, set};
use crate::rule::{Rule, RuleParser};

/// The attributes that every struct and enum may have.
pub(crate) struct Common {
    pub(crate) rename_all: Option<Case>,
    pub(crate) api: Path,
}

/// The attributes of a row.
pub(crate) struct Container {
    pub(crate) table: LitStr,
    pub(crate) namespace: Option<LitStr>,
    pub(crate) rule: Rule,
    /// Whether values of identity columns are written.
    pub(crate) overrides_identity: bool,
    pub(crate) returning: Vec<Returned>,
    pub(crate) common: Common,
}

/// A column whose value the database returns: `"id": i64`.
pub(crate) struct Returned {
    pub(crate) name: LitStr,
    pub(crate) ty: Type,
}

impl Parse for Returned {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name: LitStr = input.parse()?;
        if input.parse::<Option<Token![:]>>()?.is_none() {
            return Err(Error::new(name.span(), "give the type of its values too, as in returning(\"id\": i64)"));
        }
        Ok(Self { name, ty: input.parse()? })
    }
}

impl Returned {
    /// The list of an attribute.
    fn list(meta: &ParseNestedMeta<'_>) -> Result<Vec<Self>> {
        let content;
        parenthesized!(content in meta.input);
        let list: Vec<Self> = content.parse_terminated(Self::parse, Token![,])?.into_iter().collect();
        let is_twice =
            |index: &usize| list[..*index].iter().any(|before| before.name.value() == list[*index].name.value());
        match (list.is_empty(), (0..list.len()).find(is_twice)) {
            (true, _) => Err(meta.error("name at least one column, as in returning(\"id\": i64)")),
            (_, Some(index)) => Err(Error::new(list[index].name.span(), "this column is named twice")),
            (false, None) => Ok(list),
        }
    }
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
    pub(crate) fn parse<'a>(input: &'a DeriveInput) -> Result<(Self, Vec<Field<'a>>)> {
        let (mut table, mut namespace, mut overriding, mut returning) = (None, None, None, None);
        let (mut common, mut rule) = (CommonParser::default(), RuleParser::default());
        for attribute in row_attributes(&input.attrs) {
            attribute.parse_nested_meta(|meta| {
                let is = |name| meta.path.is_ident(name);
                if is("table") {
                    set(&mut table, meta.value()?.parse::<LitStr>()?, &meta)
                } else if is("schema") {
                    set(&mut namespace, meta.value()?.parse::<LitStr>()?, &meta)
                } else if is("overriding_system_value") {
                    set(&mut overriding, (), &meta)
                } else if is("returning") {
                    set(&mut returning, Returned::list(&meta)?, &meta)
                } else if common.parse(&meta)? || rule.parse(&meta)? {
                    Ok(())
                } else if meta.path.get_ident().is_some_and(|name| Expression::NAMES.iter().any(|of| name == of)) {
                    Err(meta.error("this is an attribute of the field whose column it changes"))
                } else {
                    let message = "unknown attribute; expected table, schema, on_conflict, key, update, only_if_newer, now, \
                                   on_constraint, on_partial_index, may_add_twice, overriding_system_value, returning, rename_all or \
                                   crate";
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
        let common = common.finish();
        let fields = Field::all(input, common.rename_all)?;
        let rule = rule.finish(&input.ident, &fields)?;
        if fields.iter().all(|field| field.absent.is_some()) {
            let message = "all fields may be left out, so a row could be without any column; remove `skip_none` or `default` from one field";
            return Err(Error::new_spanned(fields[0].ty, message));
        }
        let overrides_identity = overriding.is_some();
        let returning = returning.unwrap_or_default();
        Ok((Self { table, namespace, rule, overrides_identity, returning, common }, fields))
    }
}
