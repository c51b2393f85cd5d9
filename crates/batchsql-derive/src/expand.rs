//! Owns the generated code of `#[derive(Row)]`.
//! Must not know how attributes are written.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, GenericParam, Result, Type};

use crate::attributes::{Column, ConflictRule, Container};

pub(crate) fn row(input: &DeriveInput) -> Result<TokenStream> {
    let container = Container::parse(input)?;
    let columns = columns(input)?;
    container.check(&columns)?;
    if let Some(parameter) = input.generics.params.iter().find(|p| !matches!(p, GenericParam::Lifetime(_))) {
        let message = "a row type has one schema, so it cannot have type or const parameters; lifetimes are allowed";
        return Err(Error::new_spanned(parameter, message));
    }
    let Container { table, namespace, key, .. } = &container;
    let api = &container.api;
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let table_name = match namespace {
        Some(namespace) => quote!(#api::TableName::qualified(#namespace, #table)),
        None => quote!(#api::TableName::new(#table)),
    };
    let conflict = match container.conflict {
        ConflictRule::None => quote!(#api::Conflict::none()),
        ConflictRule::Ignore => quote!(#api::Conflict::ignore([#(#key),*])),
        ConflictRule::Replace => quote!(#api::Conflict::replace([#(#key),*])),
        ConflictRule::Update => match &container.update {
            None => quote!(#api::Conflict::update([#(#key),*])),
            Some(update) => {
                quote!(#api::Conflict::update_columns([#(#key),*], <[&str]>::iter(&[#(#update),*]).copied()))
            }
        },
    };
    let declare = columns.iter().map(|Column { ty, name, .. }| {
        quote_spanned! { ty.span() =>
            let builder = if <#ty as #api::Encode>::NULLABLE {
                builder.nullable(#name, <#ty as #api::Encode>::TYPE)
            } else {
                builder.column(#name, <#ty as #api::Encode>::TYPE)
            };
        }
    });
    let lengths = columns.iter().map(|Column { field, .. }| quote!(+ #api::Encode::variable_len(&self.#field)));
    let writes = columns.iter().map(|Column { field, .. }| quote!(#api::Encode::encode(&self.#field, writer)?;));
    let hashed = key.iter().map(|key| {
        let column = columns.iter().find(|column| column.name.value() == key.value());
        let field = column.expect("check() found every key column").field;
        quote!(#api::Encode::hash_key(&self.#field, &mut hasher);)
    });
    let key_types = key.iter().filter_map(|key| columns.iter().find(|column| column.name.value() == key.value()));
    if let Some(column) = key_types.into_iter().find(|column| is_option(column.ty)) {
        return Err(Error::new_spanned(column.ty, "a key column cannot be an Option: NULL keys never conflict"));
    }
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics #api::TypedRow for #name #type_generics #where_clause {
            fn type_schema() -> &'static #api::Schema {
                static SCHEMA: ::std::sync::OnceLock<#api::Schema> = ::std::sync::OnceLock::new();
                SCHEMA.get_or_init(|| {
                    let builder = #api::Schema::builder(#table_name);
                    #(#declare)*
                    builder.on_conflict(#conflict).build().unwrap_or_else(|error| panic!("{error}"))
                })
            }
        }

        #[automatically_derived]
        impl #impl_generics #api::Row for #name #type_generics #where_clause {
            #[inline]
            fn schema(&self) -> &#api::Schema {
                <Self as #api::TypedRow>::type_schema()
            }

            #[inline]
            fn variable_len(&self) -> usize {
                0 #(#lengths)*
            }

            fn key_hash(&self) -> u64 {
                #[allow(unused_mut)]
                let mut hasher = <#api::KeyHasher as ::std::default::Default>::default();
                #(#hashed)*
                hasher.finish()
            }

            #[inline]
            fn write(&self, writer: &mut #api::RowWriter<'_>) -> ::std::result::Result<(), #api::RowError> {
                #(#writes)*
                ::std::result::Result::Ok(())
            }
        }
    })
}

/// Whether a type is written as an `Option`. An alias of one is found when the schema is built.
fn is_option(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Option"))
}

fn columns(input: &DeriveInput) -> Result<Vec<Column<'_>>> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "a row must be a struct with named fields"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new_spanned(&input.ident, "a row must be a struct with named fields"));
    };
    let mut columns: Vec<Column<'_>> = Vec::new();
    for field in &fields.named {
        let Some(column) = Column::parse(field)? else { continue };
        if columns.iter().any(|earlier| earlier.name.value() == column.name.value()) {
            return Err(Error::new(column.name.span(), "two fields have this column name"));
        }
        columns.push(column);
    }
    if columns.is_empty() {
        return Err(Error::new_spanned(&input.ident, "a row needs at least one column"));
    }
    Ok(columns)
}
