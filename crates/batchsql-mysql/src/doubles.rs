//! Owns the check whether the numbers of a text are doubles: the server stores the coordinates of a geometry so.
//! Must not know columns, rows or geometries.

/// Whether a double keeps every number of a text. The shortest spelling of a double is kept: `0.1`.
pub(crate) fn are_kept(text: &str) -> bool {
    let is_of_number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    text.split(|c| !is_of_number(c)).filter(|token| is_number(token)).all(is_kept)
}

/// Not the name of a shape.
fn is_number(token: &str) -> bool {
    token.trim_start_matches(['+', '-', '.']).starts_with(|c: char| c.is_ascii_digit())
}

/// False for what is no decimal number.
fn is_kept(number: &str) -> bool {
    let Ok(double) = number.parse::<f64>() else { return false };
    double.is_finite() && significant(number) == significant(&format!("{double:e}"))
}

/// The digits of a decimal number from the first to the last that is not 0, and the power of ten of the last one.
fn significant(number: &str) -> Option<(String, i64)> {
    let unsigned = number.trim_start_matches(['+', '-']);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len() - kept.len()).ok()?;
    let power = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    let kept = kept.trim_start_matches('0').to_owned();
    Some(if kept.is_empty() { (kept, 0) } else { (kept, power) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_no_double_has_are_found() {
        for text in [
            "POINT(1 2)",
            "POINT(0.1 -2.50)",
            "point(1e3 +1.5E-3)",
            "POINT(.5 1.)",
            "LINESTRING(0 0,0.30000000000000004 5e-324)",
            "GEOMETRYCOLLECTION EMPTY",
            "POINT(00100 0e7)",
            "",
        ] {
            assert!(are_kept(text), "{text}");
        }
        for text in [
            "POINT(0.12345678901234567890 1)",
            "POINT(1 9007199254740993)",
            "LINESTRING(0 0,1 -0.1000000000000000055)",
            "POINT(1e400 1)",
            "POINT(1e-400 1)",
            "POINT(0x1p3 1)",
        ] {
            assert!(!are_kept(text), "{text}");
        }
    }
}
