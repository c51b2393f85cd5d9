//! Owns the generated code of `#[derive(Row)]` and `#[derive(RowColumns)]`.
//! Must not know how attributes are written.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Ident, Path, Result};

use crate::attributes::{Common, Container, Returned};
use crate::expression::Expression;
use crate::field::{Absent, Field, FieldKind};
use crate::rule::{Action, Rule};

/// The columns of a struct that is a part of rows.
pub(crate) fn row_columns(input: &DeriveInput) -> Result<TokenStream> {
    let common = Common::parse(input)?;
    let fields = Field::all(input, common.rename_all)?;
    Ok(columns_impl(input, &common.api, &fields))
}

/// A row, and its columns.
pub(crate) fn row(input: &DeriveInput) -> Result<TokenStream> {
    let (container, fields) = Container::parse(input)?;
    let Container { table, namespace, rule, .. } = &container;
    let (key, api) = (&rule.key, &container.common.api);
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let columns = columns_impl(input, api, &fields);
    let table_name = match namespace {
        Some(namespace) => quote!(#api::TableName::qualified(#namespace, #table)),
        None => quote!(#api::TableName::new(#table)),
    };
    let conflict = conflict(api, rule);
    let returning = container
        .returning
        .iter()
        .map(|Returned { name, ty }| quote_spanned!(ty.span() => list.returning::<#ty>(#name);));
    let overriding = container.overrides_identity.then(|| quote!(list.overriding_system_value();));
    let hashed = key.iter().map(|key| {
        match fields.iter().find(|field| field.column_name() == Some(key.value())) {
            Some(field) => {
                let value = value(api, field);
                quote!(#api::Encode::hash_key(&#value, &mut hasher);)
            }
            // A column of a flattened field.
            None => quote!(#api::RowColumns::hash_column(self, #key, &mut hasher);),
        }
    });
    // One function, so that all schemas of a type are under one address.
    let shapes = quote! {
        static SHAPES: #api::Shapes = #api::Shapes::new();
        let declare: fn() -> #api::Declared = || {
            let mut list = <#api::Declarations as ::std::default::Default>::default();
            <Self as #api::RowColumns>::declare_columns(&mut list);
            #overriding
            #(#returning)*
            list.build(#table_name, #conflict)
        };
    };
    Ok(quote! {
        #columns

        #[automatically_derived]
        impl #impl_generics #name #type_generics #where_clause {
            /// The schema of rows that leave out these optional columns.
            #[doc(hidden)]
            #[inline]
            fn __schema_without(absent: u64) -> &'static #api::Schema {
                #shapes
                SHAPES.without(declare, absent)
            }
        }

        #[automatically_derived]
        impl #impl_generics #api::TypedRow for #name #type_generics #where_clause {
            #[inline]
            fn type_schema() -> &'static #api::Schema {
                Self::__schema_without(0)
            }
        }

        #[automatically_derived]
        impl #impl_generics #api::Row for #name #type_generics #where_clause {
            #[inline]
            fn schema(&self) -> &#api::Schema {
                Self::__schema_without(#api::RowColumns::absent_columns(self))
            }

            #[inline]
            fn variable_len(&self) -> usize {
                #api::RowColumns::columns_variable_len(self)
            }

            fn key_hash(&self) -> u64 {
                #[allow(unused_mut)]
                let mut hasher = <#api::KeyHasher as ::std::default::Default>::default();
                #(#hashed)*
                hasher.finish()
            }

            #[inline]
            fn write(&self, writer: &mut #api::RowWriter<'_>) -> ::std::result::Result<(), #api::RowError> {
                #api::RowColumns::write_columns(self, writer)
            }
        }
    })
}

/// The rule, without the expressions of fields.
fn conflict(api: &Path, rule: &Rule) -> TokenStream {
    let key = &rule.key;
    let action = match (rule.action, &rule.update) {
        (Action::None, _) => quote!(none()),
        (Action::Ignore, _) => quote!(ignore([#(#key),*])),
        (Action::Replace, _) => quote!(replace([#(#key),*])),
        (Action::Update, None) => quote!(update([#(#key),*])),
        (Action::Update, Some(update)) => {
            quote!(update_columns([#(#key),*], <[&str]>::iter(&[#(#update),*]).copied()))
        }
        (Action::UpdateOnly, _) => quote!(update_only([#(#key),*])),
        (Action::Delete, _) => quote!(delete([#(#key),*])),
    };
    let newer = rule.newer.iter().map(|name| quote!(.only_if_newer(#name)));
    let constraint = rule.constraint.iter().map(|name| quote!(.on_constraint(#name)));
    let partial = rule.partial_index.iter().map(|condition| quote!(.on_partial_index(#condition)));
    let now = rule.now.iter().map(|name| quote!(.set(#name, #api::Expr::now())));
    let twice = rule.may_add_twice.then(|| quote!(.may_add_twice()));
    quote!(#api::Conflict::#action #(#newer)* #(#constraint)* #(#partial)* #(#now)* #twice)
}

fn columns_impl(input: &DeriveInput, api: &Path, fields: &[Field<'_>]) -> TokenStream {
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let inlined: Vec<_> = fields.iter().filter(|field| field.name().is_none()).collect();
    let inlined_types: Vec<_> = inlined.iter().map(|field| field.ty).collect();
    let (own, optional) = (
        fields.len() - inlined.len(),
        u32::try_from(fields.iter().filter(|field| field.absent.is_some()).count()).expect("a struct has fewer fields"),
    );
    let declare = fields.iter().map(|field| declare(api, field));
    let checks: Vec<_> = fields.iter().filter_map(|field| check(api, field)).collect();
    // A constant item cannot name parameters, and one in a function is computed only where the function is used.
    let (items, inner) = if input.generics.params.is_empty() {
        (quote!(#(const _: () = #checks;)*), TokenStream::new())
    } else {
        (TokenStream::new(), quote!(#(const { #checks })*))
    };
    let absent = fields.iter().filter_map(|field| {
        let ident = field.ident;
        match (&field.kind, field.absent) {
            (FieldKind::Flatten, _) => {
                let ty = field.ty;
                Some(quote_spanned! { ty.span() =>
                    absent |= #api::RowColumns::absent_columns(&self.#ident) << next;
                    next += <#ty as #api::RowColumns>::OPTIONAL;
                })
            }
            (_, Some(rule)) => {
                let is_absent = is_absent(field, rule);
                Some(quote! {
                    absent |= ::core::primitive::u64::from(#is_absent) << next;
                    next += 1;
                })
            }
            (_, None) => None,
        }
    });
    let lengths = fields.iter().map(|field| {
        let value = value(api, field);
        match (&field.kind, field.absent) {
            (FieldKind::Flatten, _) => quote!(length += #api::RowColumns::columns_variable_len(&#value);),
            (_, None) => quote!(length += #api::Encode::variable_len(&#value);),
            (_, Some(rule)) => {
                let is_absent = is_absent(field, rule);
                quote!(if !#is_absent { length += #api::Encode::variable_len(&#value); })
            }
        }
    });
    let writes = fields.iter().map(|field| {
        let value = value(api, field);
        match (&field.kind, field.absent) {
            (FieldKind::Flatten, _) => quote!(#api::RowColumns::write_columns(&#value, writer)?;),
            (_, None) => quote!(#api::Encode::encode(&#value, writer)?;),
            (_, Some(rule)) => {
                let is_absent = is_absent(field, rule);
                quote!(if !#is_absent { #api::Encode::encode(&#value, writer)?; })
            }
        }
    });
    let hashes = fields.iter().filter_map(|field| {
        let (name, value) = (field.name()?, value(api, field));
        Some(quote!(#name => #api::Encode::hash_key(&#value, hasher),))
    });
    let inlined_hashes = inlined.iter().map(|field| {
        let ident = field.ident;
        quote!(|| #api::RowColumns::hash_column(&self.#ident, name, hasher))
    });
    quote! {
        #items

        #[automatically_derived]
        impl #impl_generics #api::RowColumns for #name #type_generics #where_clause {
            const COLUMNS: usize = #own #(+ <#inlined_types as #api::RowColumns>::COLUMNS)*;
            const OPTIONAL: u32 = {
                let optional = #optional #(+ <#inlined_types as #api::RowColumns>::OPTIONAL)*;
                assert!(optional < 64, "at most 63 columns of a row can be left out");
                optional
            };

            fn declare_columns(list: &mut #api::Declarations) {
                #inner
                #(#declare)*
            }

            #[inline]
            #[allow(unused_mut, unused_variables, unused_assignments)]
            fn absent_columns(&self) -> u64 {
                let (mut absent, mut next) = (0_u64, 0_u32);
                #(#absent)*
                absent
            }

            #[inline]
            fn columns_variable_len(&self) -> usize {
                let mut length = 0;
                #(#lengths)*
                length
            }

            #[allow(unused_variables, unreachable_code)]
            fn hash_column(&self, name: &str, hasher: &mut #api::KeyHasher) -> bool {
                match name {
                    #(#hashes)*
                    _ => return false #(#inlined_hashes)*,
                }
                true
            }

            #[inline]
            fn write_columns(&self, writer: &mut #api::RowWriter<'_>) -> ::std::result::Result<(), #api::RowError> {
                #(#writes)*
                ::std::result::Result::Ok(())
            }
        }
    }
}

/// Declares the columns of a field.
fn declare(api: &Path, field: &Field<'_>) -> TokenStream {
    let ty = field.ty;
    let declared = match &field.kind {
        FieldKind::Plain(name) => quote_spanned!(ty.span() => list.column::<#ty>(#name);),
        FieldKind::With(name, path) => quote_spanned!(path.span() => list.column_with::<#ty, _, _>(#name, #path);),
        FieldKind::Json(name) => match field.option() {
            Some(inner) => quote_spanned! { ty.span() =>
                list.column::<::core::option::Option<#api::AsJson<&#inner>>>(#name);
            },
            None => quote_spanned!(ty.span() => list.column::<#api::AsJson<&#ty>>(#name);),
        },
        FieldKind::Flatten => {
            quote_spanned!(ty.span() => <#ty as #api::RowColumns>::declare_columns(list);)
        }
    };
    let optional = field.absent.map(|_| quote!(list.optional();));
    let expression = field.expression.as_ref().map(|(_, expression)| {
        let expression = match expression {
            Expression::Add => quote!(add()),
            Expression::Keep => quote!(keep()),
            Expression::UnlessNull => quote!(unless_null()),
            Expression::Greatest => quote!(greatest()),
            Expression::Least => quote!(least()),
            Expression::Now => quote!(now()),
            Expression::Raw(sql) => quote!(raw(#sql)),
        };
        quote!(list.set(#api::Expr::#expression);)
    });
    quote!(#declared #optional #expression)
}

/// A constant whose computation fails if the expression of a field does not fit its type.
fn check(api: &Path, field: &Field<'_>) -> Option<TokenStream> {
    let (_, expression) = field.expression.as_ref()?;
    let (plain, with) = match expression {
        Expression::Add => ("added", "added_with"),
        Expression::Greatest | Expression::Least => ("compared", "compared_with"),
        Expression::Keep | Expression::UnlessNull | Expression::Now | Expression::Raw(_) => return None,
    };
    let ty = field.ty;
    let (plain, with) = (Ident::new(plain, ty.span()), Ident::new(with, ty.span()));
    // The alias has the place of the field, so that the error shows the field.
    Some(match &field.kind {
        FieldKind::Plain(_) => quote_spanned! { ty.span() =>
            { type Check = #api::Declarations; Check::#plain::<#ty>() }
        },
        FieldKind::With(_, path) => quote_spanned! { path.span() =>
            { type Check = #api::Declarations; Check::#with::<#ty, _, _>(&#path) }
        },
        FieldKind::Json(_) => quote_spanned! { ty.span() =>
            { type Check = #api::Declarations; Check::#plain::<#api::AsJson<&#ty>>() }
        },
        FieldKind::Flatten => return None,
    })
}

/// The value of a field: an expression that `&` borrows.
fn value(api: &Path, field: &Field<'_>) -> TokenStream {
    let (ident, ty) = (field.ident, field.ty);
    match &field.kind {
        FieldKind::Plain(_) | FieldKind::Flatten => quote_spanned!(ty.span() => self.#ident),
        FieldKind::With(_, path) => quote_spanned!(path.span() => #path(&self.#ident)),
        FieldKind::Json(_) if field.option().is_some() => {
            quote_spanned!(ty.span() => self.#ident.as_ref().map(#api::AsJson))
        }
        FieldKind::Json(_) => quote_spanned!(ty.span() => #api::AsJson(&self.#ident)),
    }
}

/// Whether the column is left out.
fn is_absent(field: &Field<'_>, rule: Absent) -> TokenStream {
    let (ident, ty) = (field.ident, field.ty);
    match rule {
        Absent::IfNone => quote!(self.#ident.is_none()),
        Absent::IfDefault => {
            quote_spanned! { ty.span() =>
                ::core::cmp::PartialEq::eq(&self.#ident, &<#ty as ::core::default::Default>::default())
            }
        }
    }
}
