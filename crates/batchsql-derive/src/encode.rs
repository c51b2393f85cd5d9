//! Owns `#[derive(Encode)]`: a type around one value, or an enum without fields, becomes a column.
//! Must not know rows.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DataStruct, DeriveInput, Error, Fields, GenericParam, LitStr, Path, Result, parse_quote};

use crate::attributes::Common;
use crate::case::Case;
use crate::meta::{row_attributes, set};

pub(crate) fn encode(input: &DeriveInput) -> Result<TokenStream> {
    let common = Common::parse(input)?;
    match &input.data {
        Data::Struct(data) => {
            if let Some(attribute) = row_attributes(&input.attrs).next()
                && common.rename_all.is_some()
            {
                return Err(Error::new_spanned(
                    attribute,
                    "rename_all is for enums: a struct has the value of its field",
                ));
            }
            newtype(input, data, &common.api)
        }
        Data::Enum(data) => text(input, data, &common.api, common.rename_all),
        Data::Union(_) => Err(Error::new_spanned(&input.ident, "a union cannot be a column")),
    }
}

/// A struct with one field: its column.
fn newtype(input: &DeriveInput, data: &DataStruct, api: &Path) -> Result<TokenStream> {
    let mut fields = data.fields.iter().enumerate();
    let (Some((_, field)), None) = (fields.next(), fields.next()) else {
        let message = "a struct with one field can be a column; for several columns derive RowColumns and use \
                       #[row(flatten)], for JSON use #[row(json)]";
        return Err(Error::new_spanned(&input.ident, message));
    };
    if let Some(attribute) = row_attributes(&field.attrs).next() {
        return Err(Error::new_spanned(attribute, "the field of a column has no attributes"));
    }
    let member = match &data.fields {
        Fields::Named(_) => {
            let ident = &field.ident;
            quote!(#ident)
        }
        _ => quote!(0),
    };
    let (name, ty) = (&input.ident, &field.ty);
    let mut generics = input.generics.clone();
    if generics.params.iter().any(|parameter| matches!(parameter, GenericParam::Type(_))) {
        generics.make_where_clause().predicates.push(parse_quote!(#ty: #api::Encode));
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    let inner = quote_spanned!(ty.span() => <#ty as #api::Encode>);
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #api::Encode for #name #type_generics #where_clause {
            const TYPE: #api::ColumnType = #inner::TYPE;
            const NULLABLE: bool = #inner::NULLABLE;

            #[inline]
            fn variable_len(&self) -> usize {
                #inner::variable_len(&self.#member)
            }

            fn hash_key(&self, hasher: &mut #api::KeyHasher) {
                #inner::hash_key(&self.#member, hasher);
            }

            #[inline]
            fn encode(&self, writer: &mut #api::RowWriter<'_>) -> ::std::result::Result<(), #api::RowError> {
                #inner::encode(&self.#member, writer)
            }
        }
    })
}

/// An enum without fields: the names of its variants as text.
fn text(input: &DeriveInput, data: &DataEnum, api: &Path, rename_all: Option<Case>) -> Result<TokenStream> {
    let (mut variants, mut texts): (Vec<_>, Vec<LitStr>) = (Vec::new(), Vec::new());
    for variant in &data.variants {
        if !variant.fields.is_empty() {
            let message =
                "a variant with fields cannot be text; use #[row(json)] or #[row(with = function)] on the field";
            return Err(Error::new_spanned(variant, message));
        }
        let mut rename = None;
        for attribute in row_attributes(&variant.attrs) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("rename") {
                    set(&mut rename, meta.value()?.parse::<LitStr>()?, &meta)
                } else {
                    Err(meta.error("unknown attribute; expected rename"))
                }
            })?;
        }
        let text = rename.unwrap_or_else(|| {
            let name = variant.ident.to_string();
            let name = name.strip_prefix("r#").unwrap_or(&name);
            LitStr::new(&rename_all.map_or_else(|| name.to_owned(), |case| case.apply(name)), variant.ident.span())
        });
        if texts.iter().any(|earlier| earlier.value() == text.value()) {
            return Err(Error::new(text.span(), "two variants have this text"));
        }
        variants.push(&variant.ident);
        texts.push(text);
    }
    if variants.is_empty() {
        return Err(Error::new_spanned(&input.ident, "an enum without variants has no values"));
    }
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let text = quote!(match self { #(Self::#variants => #texts,)* });
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #api::Encode for #name #type_generics #where_clause {
            const TYPE: #api::ColumnType = #api::ColumnType::Text;

            #[inline]
            fn variable_len(&self) -> usize {
                let text: &str = #text;
                text.len()
            }

            fn hash_key(&self, hasher: &mut #api::KeyHasher) {
                hasher.add(#api::ValueRef::Text(#text));
            }

            #[inline]
            fn encode(&self, writer: &mut #api::RowWriter<'_>) -> ::std::result::Result<(), #api::RowError> {
                writer.text(#text)
            }
        }
    })
}
