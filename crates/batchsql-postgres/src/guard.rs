//! Owns the SQL test with which the server itself rejects a text that its column would change.
//! Must not know columns or rows.
//!
//! If the server parses the text, only the server knows the result: `interval day` drops the hours. So it parses the
//! text twice, with the precision of the column and without, and compares.

use crate::real_type::RealType;

/// The code of an error that our own statements raise; no other part of a write is expected to raise it.
pub(crate) const RAISED: &str = "2201G";

/// What it means for a row.
pub(crate) const MEANING: &str = "a column keeps less than a value has (digits, spaces, fields of an interval); round it, \
                                  or let the database convert values (lossy_values=convert)";

/// An integer expression that raises it. It uses a volatile function so that the planner does not evaluate it
/// early.
pub(crate) const RAISE: &str = "pg_catalog.width_bucket(pg_catalog.random(),0,0,1)";

/// The comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Guard {
    /// The value with the declared precision, and without.
    Precision { narrow: String, wide: String },
    /// A number, and its value as `money`. Any other spelling must equal the server's output: the meaning of signs
    /// and brackets depends on `lc_monetary`.
    Money,
}

impl Guard {
    /// The test of text for a type, if the server would change some values.
    pub(crate) fn of(real: &RealType) -> Option<Self> {
        let spelled = real.spelled.as_ref()?;
        let is_array = real.category == 'A';
        let precision = |narrow: &str, wide: &str| Some(Self::Precision { narrow: narrow.into(), wide: wide.into() });
        match &*spelled.base {
            "money" if is_array => precision("pg_catalog.money[]", "pg_catalog.numeric[]"),
            "money" => Some(Self::Money),
            // As text a float has the fewest digits that name it: every shorter number is kept.
            "float4" if is_array => precision("pg_catalog.float4[]::pg_catalog.text[]", "pg_catalog.numeric[]"),
            "float8" if is_array => precision("pg_catalog.float8[]::pg_catalog.text[]", "pg_catalog.numeric[]"),
            // The server takes the rest of a division by 2^32.
            base @ ("oid" | "xid" | "cid") => {
                let list = if is_array { "[]" } else { "" };
                let narrow = format!("pg_catalog.{base}{list}::pg_catalog.text{list}");
                precision(&narrow, &format!("pg_catalog.numeric{list}"))
            }
            // The server compares `char(n)` without the spaces at the end.
            "bpchar" => {
                let list = if is_array { "[]" } else { "" };
                let narrow = |characters| format!("pg_catalog.varchar({characters}){list}");
                real.characters().and_then(|most| precision(&narrow(most), &format!("pg_catalog.varchar{list}")))
            }
            "numeric" | "time" | "timetz" | "timestamp" | "timestamptz" | "interval" | "varchar"
                if real.modifier >= 0 =>
            {
                precision(&spelled.narrow, &spelled.wide)
            }
            _ => None,
        }
    }

    /// `converted` if the text `value` keeps its meaning, otherwise an error with the code [`RAISED`].
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
