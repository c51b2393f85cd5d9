//! Owns the exhaustive forms of the column types and their values: the drivers match on these, so that the compiler
//! reports every place that a new type affects. Must not know what a driver does with a value.
//!
//! [`ColumnType`], [`ColumnValues`] and [`ValueRef`] are `non_exhaustive`, because a new type must not break the build
//! of those who use the crate. This module is for the drivers and tools of the workspace, and not part of the public
//! interface: any release may extend it.

pub use crate::model::expr::{Assignment, Kind as ExprKind, Set, SetPart};
pub use crate::model::hex::{to_bytes as bytes_of_text, to_uuid as uuid_of_text};
pub use crate::model::value_order::compare;
pub use crate::model::value_text::value_of_text;

use crate::model::column_types::{for_each_column_type, value_of, values_of};
use crate::model::temporal::{Date, Time, Timestamp, TimestampTz};
use crate::model::value::{ColumnType, ValueRef};
use crate::model::views::{BytesValues, ColumnValues, TextValues};

macro_rules! exhaustive_forms {
    (() $($variant:ident $name:literal $kind:tt;)*) => {
        /// [`ColumnType`], exhaustive.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is that of the public type")]
        pub enum Type {
            $($variant,)*
        }

        /// [`ColumnValues`], exhaustive.
        #[derive(Debug, Clone, Copy)]
        #[allow(missing_docs, reason = "each variant is that of the public type")]
        pub enum Values<'a> {
            $($variant(values_of!('a $kind)),)*
        }

        /// [`ValueRef`], exhaustive.
        #[derive(Debug, Clone, Copy)]
        #[allow(missing_docs, reason = "each variant is that of the public type")]
        pub enum Value<'a> {
            Null,
            $($variant(value_of!('a $kind)),)*
        }

        impl ColumnType {
            /// The form to match on inside the workspace.
            #[doc(hidden)]
            #[inline(always)]
            pub const fn exhaustive(self) -> Type {
                match self {
                    $(Self::$variant => Type::$variant,)*
                }
            }
        }

        impl<'a> ColumnValues<'a> {
            /// The form to match on inside the workspace.
            #[doc(hidden)]
            #[inline(always)]
            pub const fn exhaustive(self) -> Values<'a> {
                match self {
                    $(Self::$variant(v) => Values::$variant(v),)*
                }
            }
        }

        impl<'a> ValueRef<'a> {
            /// The form to match on inside the workspace.
            #[doc(hidden)]
            #[inline(always)]
            pub const fn exhaustive(self) -> Value<'a> {
                match self {
                    Self::Null => Value::Null,
                    $(Self::$variant(v) => Value::$variant(v),)*
                }
            }
        }
    };
}

for_each_column_type!(exhaustive_forms!());
