//! Owns the numbers of column types in a source. They never change.
//! Must not know how values are stored.

use batchsql_core::ColumnType;

use crate::block::bytes::Unreadable;

macro_rules! codes {
    ($($code:literal $variant:ident),* $(,)?) => {
        /// The number of a type.
        pub(crate) fn code(ty: ColumnType) -> u8 {
            use batchsql_core::exhaustive::Type;
            match ty.exhaustive() {
                $(Type::$variant => $code,)*
            }
        }

        /// The type with a number.
        pub(crate) fn of_code(code: u8) -> Result<ColumnType, Unreadable> {
            match code {
                $($code => Ok(ColumnType::$variant),)*
                _ => Err(Unreadable::Damaged("a column has an unknown type")),
            }
        }
    };
}

codes! {
    1 Bool, 2 I16, 3 I32, 4 I64, 5 U64, 6 F32, 7 F64, 8 Decimal, 9 Text, 10 Bytes, 11 Uuid, 12 Json, 13 Date, 14 Time,
    15 Timestamp, 16 TimestampTz,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_number_of_its_own() {
        for ty in ColumnType::ALL {
            assert_eq!(of_code(code(ty)), Ok(ty));
        }
        assert!(of_code(0).is_err() && of_code(17).is_err());
    }
}
