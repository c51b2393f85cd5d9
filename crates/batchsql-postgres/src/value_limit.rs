//! Owns the limits within which a column stores a value unchanged.
//! Must not know how a value is checked.

use batchsql_core::ColumnType;
use batchsql_core::exhaustive::Type;

use crate::geometry::Shape;
use crate::real_type::RealType;
use crate::times::Keeps;
use crate::wire::Wire;

/// The limit within which a column stores a value unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueLimit {
    /// Every value of its type fits.
    None,
    /// An integer within these bounds.
    Integer { min: i64, max: i64 },
    /// A number that `numeric` without a precision holds.
    AnyNumeric,
    /// A number of `numeric(precision, scale)`.
    Numeric { precision: i32, scale: i32 },
    /// A time with this many decimal digits of a second.
    Fraction { digits: u32 },
    /// A text of this many characters.
    Characters { most: usize },
    /// Text or JSON from which the server parses numbers of `numeric(precision, scale)`.
    NumericElements { precision: i32, scale: i32 },
    /// Text or JSON from which the server parses numbers of `real`.
    RealElements,
    /// Text from which the server parses geometric values of doubles.
    Geometry(Shape),
    /// Text from which the server parses instants; it stores six digits of a second.
    TextFraction,
    /// Text from which the server parses dates or times of a type that does not store every part.
    Times(Keeps),
    /// Text from which the server parses intervals.
    Interval,
}

impl ValueLimit {
    /// Without the limits beyond which the server rounds or cuts off; the limits beyond which it rejects
    /// stay.
    pub(crate) fn lossy(self) -> Self {
        match self {
            Self::None | Self::Integer { .. } | Self::AnyNumeric => self,
            Self::Numeric { .. } => Self::AnyNumeric,
            Self::Fraction { .. }
            | Self::Characters { .. }
            | Self::NumericElements { .. }
            | Self::RealElements
            | Self::Geometry(_)
            | Self::TextFraction
            | Self::Times(_)
            | Self::Interval => Self::None,
        }
    }
}

/// The limit of a column for values of a type.
pub(crate) fn limit(ty: ColumnType, real: &RealType, wire: Wire) -> ValueLimit {
    let integer = |min, max| ValueLimit::Integer { min, max };
    match (ty.exhaustive(), wire) {
        (Type::I32 | Type::I64 | Type::U64, Wire::Int2) => integer(i16::MIN.into(), i16::MAX.into()),
        (Type::I64 | Type::U64, Wire::Int4) => integer(i32::MIN.into(), i32::MAX.into()),
        (Type::U64, Wire::Int8) => integer(i64::MIN, i64::MAX),
        (_, Wire::Numeric) => match real.numeric() {
            // Every integer has at most 20 digits.
            Some((precision, scale)) if ty != ColumnType::Decimal && scale >= 0 && precision - scale >= 20 => {
                ValueLimit::None
            }
            Some((precision, scale)) => ValueLimit::Numeric { precision, scale },
            None if ty == ColumnType::Decimal => ValueLimit::AnyNumeric,
            None => ValueLimit::None,
        },
        (_, Wire::Time | Wire::Timestamp | Wire::TimestampTz) => {
            real.fraction().map_or(ValueLimit::None, |digits| ValueLimit::Fraction { digits })
        }
        (_, Wire::Text) if real.is_of_extension("vector") => ValueLimit::RealElements,
        // Also of arrays, whose texts have the numbers of all elements.
        (_, Wire::Text | Wire::Json | Wire::Jsonb | Wire::FlatJsonb | Wire::FlatJson)
            if real.namespace != "pg_catalog" && real.kind == 'b' =>
        {
            Shape::of_extension(real.name.trim_start_matches('_'))
                .map_or_else(|| text_limit(real), ValueLimit::Geometry)
        }
        (_, Wire::Text | Wire::Json | Wire::Jsonb | Wire::FlatJsonb | Wire::FlatJson) => text_limit(real),
        _ => ValueLimit::None,
    }
}

/// The limit of text, also of text that the server parses.
fn text_limit(real: &RealType) -> ValueLimit {
    if matches!(&*real.receive, "varcharrecv" | "bpcharrecv") {
        return real.characters().map_or(ValueLimit::None, |most| ValueLimit::Characters { most });
    }
    let Some(spelled) = &real.spelled else { return ValueLimit::None };
    match (&*spelled.base, real.numeric()) {
        ("numeric", Some((precision, scale))) => ValueLimit::NumericElements { precision, scale },
        ("timestamp" | "tsrange" | "tsmultirange", _) => ValueLimit::Times(Keeps::DateAndTime),
        ("date" | "daterange" | "datemultirange", _) => ValueLimit::Times(Keeps::Date),
        ("time", _) => ValueLimit::Times(Keeps::Time),
        ("timetz", _) => ValueLimit::Times(Keeps::TimeAndZone),
        ("interval", _) => ValueLimit::Interval,
        ("timestamptz" | "tstzrange" | "tstzmultirange", _) => ValueLimit::TextFraction,
        (name, _) => Shape::of(name).map_or(ValueLimit::None, ValueLimit::Geometry),
    }
}
