//! Owns the test by which the server itself refuses a text that its column would change.
//! Must not know columns or rows.
//!
//! Where the server reads the text, only it knows what becomes of it: `interval day` drops the hours. So it reads the
//! text twice, with the precision of the column and without, and compares.

use crate::real_type::RealType;

/// The code of an error that a statement of ours raises; nothing else of a write has a reason to.
pub(crate) const RAISED: &str = "2201G";

/// An expression of an integer that raises it. A volatile function, so that the planner does not raise it ahead.
pub(crate) const RAISE: &str = "pg_catalog.width_bucket(pg_catalog.random(),0,0,1)";

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The value with the declared precision, and without.
    Precision { narrow: String, wide: String },
    /// A number, and what `money` makes of it. Another spelling has to be the one that the server writes: what signs and
    /// brackets mean depends on `lc_monetary`.
    Money,
}

impl Guard {
    /// The test of text for a type, where the server would change some.
    pub(crate) fn of(real: &RealType) -> Option<Self> {
        let spelled = real.spelled.as_ref()?;
        let is_array = real.category == 'A';
        let precision = |narrow: &str, wide: &str| Some(Self::Precision { narrow: narrow.into(), wide: wide.into() });
        match &*spelled.base {
            "money" if is_array => precision("pg_catalog.money[]", "pg_catalog.numeric[]"),
            "money" => Some(Self::Money),
            "numeric" | "time" | "timetz" | "timestamp" | "timestamptz" | "interval" | "varchar" | "bpchar"
                if real.modifier >= 0 =>
            {
                precision(&spelled.narrow, &spelled.wide)
            }
            _ => None,
        }
    }

    /// `converted` where the text `value` keeps its meaning, else an error with the code [`RAISED`].
    pub(crate) fn expression(&self, value: &str, converted: &str, to: &str) -> String {
        let is_kept = match self {
            Self::Precision { narrow, wide } => {
                format!("({value})::{wide} IS NOT DISTINCT FROM ({value})::{narrow}::{wide}")
            }
            Self::Money => {
                let number = r"^\s*[-+]?[0-9]+(\.[0-9]+)?\s*$";
                format!(
                    "CASE WHEN {value} OPERATOR(pg_catalog.~) '{number}' THEN \
                     ({value})::pg_catalog.numeric OPERATOR(pg_catalog.=) \
                     ({value})::pg_catalog.money::pg_catalog.numeric \
                     ELSE {value} OPERATOR(pg_catalog.=) ({value})::pg_catalog.money::pg_catalog.text END"
                )
            }
        };
        format!("CASE WHEN {is_kept} THEN {converted} ELSE {RAISE}::pg_catalog.text::{to} END")
    }
}
