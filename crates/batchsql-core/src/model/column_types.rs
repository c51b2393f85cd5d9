//! Owns the list of column types: the name of each, and how a column stores its values.
//! Must not know values, columns or batches: they make what they need from this list.

/// Calls a macro with the list, after the tokens in the parentheses.
///
/// A `fixed` type has a Rust type, and a placeholder value for `NULL`. Values of a `text` or `bytes` type are stored
/// end to end.
macro_rules! for_each_column_type {
    ($call:ident!($($first:tt)*)) => {
        $call! { ($($first)*)
            Bool "bool" [fixed bool = false];
            I16 "i16" [fixed i16 = 0];
            I32 "i32" [fixed i32 = 0];
            I64 "i64" [fixed i64 = 0];
            U64 "u64" [fixed u64 = 0];
            F32 "f32" [fixed f32 = 0.0];
            F64 "f64" [fixed f64 = 0.0];
            Decimal "decimal" [text];
            Text "text" [text];
            Bytes "bytes" [bytes];
            Uuid "uuid" [fixed [u8; 16] = [0; 16]];
            Json "json" [text];
            Date "date" [fixed Date = Date::MIN];
            Time "time" [fixed Time = Time::MIN];
            Timestamp "timestamp" [fixed Timestamp = Timestamp::MIN];
            TimestampTz "timestamptz" [fixed TimestampTz = TimestampTz::MIN];
        }
    };
}

/// The borrowed value of a column type.
macro_rules! value_of {
    ($life:lifetime [fixed $rust:ty = $null:expr]) => { $rust };
    ($life:lifetime [text]) => { &$life str };
    ($life:lifetime [bytes]) => { &$life [u8] };
}

/// The borrowed values of a column.
macro_rules! values_of {
    ($life:lifetime [fixed $rust:ty = $null:expr]) => { &$life [$rust] };
    ($life:lifetime [text]) => { TextValues<$life> };
    ($life:lifetime [bytes]) => { BytesValues<$life> };
}

pub(crate) use {for_each_column_type, value_of, values_of};
