//! Owns what a value has to keep to, so that its column stores it as it is.
//! Must not know how a value is checked.

/// What a value has to keep to, so that its column stores it as it is.
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
    /// A time with so many decimal digits of a second.
    Fraction { digits: u32 },
    /// A text of so many characters.
    Characters { most: usize },
    /// Text or JSON from which the server reads numbers of `numeric(precision, scale)`.
    NumericElements { precision: i32, scale: i32 },
    /// Text from which the server reads times: it keeps six digits of a second.
    TextFraction,
}

impl ValueLimit {
    /// Without what the server would round or cut off; what it refuses stays.
    pub(crate) fn lossy(self) -> Self {
        match self {
            Self::None | Self::Integer { .. } | Self::AnyNumeric => self,
            Self::Numeric { .. } => Self::AnyNumeric,
            Self::Fraction { .. } | Self::Characters { .. } | Self::NumericElements { .. } | Self::TextFraction => {
                Self::None
            }
        }
    }
}
