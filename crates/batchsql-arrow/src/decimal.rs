//! Owns the digits of decimals of Arrow: an integer and a scale.
//! Must not know arrays.

/// Writes `number` times 10 to the power of minus `scale`. `number` is the text of an integer.
pub(crate) fn write(number: &str, scale: i8, out: &mut String) {
    out.clear();
    let digits = match number.strip_prefix('-') {
        Some(digits) => {
            out.push('-');
            digits
        }
        None => number,
    };
    if scale <= 0 {
        out.push_str(digits);
        if digits != "0" {
            out.extend(std::iter::repeat_n('0', usize::from(scale.unsigned_abs())));
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    match digits.len().checked_sub(scale) {
        Some(whole) if whole > 0 => out.push_str(&digits[..whole]),
        _ => out.push('0'),
    }
    out.push('.');
    out.extend(std::iter::repeat_n('0', scale.saturating_sub(digits.len())));
    out.push_str(&digits[digits.len().saturating_sub(scale)..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_point_is_where_the_scale_says() {
        let check = |number: &str, scale, expected: &str| {
            let mut out = "old".to_owned();
            write(number, scale, &mut out);
            assert_eq!(out, expected, "{number} with scale {scale}");
            assert!(out.parse::<batchsql_core::Decimal>().is_ok());
        };
        check("12345", 2, "123.45");
        check("-12345", 2, "-123.45");
        check("12", 2, "0.12");
        check("-5", 3, "-0.005");
        check("0", 2, "0.00");
        check("7", 0, "7");
        check("-7", -2, "-700");
        check("0", -2, "0");
    }
}
