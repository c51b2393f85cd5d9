//! Formatted figures: thousands separators and only significant digits.
//! Must not know which figure it formats. The page does the same in `assets/report.js`.

use serde::{Deserialize, Deserializer};

/// The text for a figure that does not exist.
pub(super) const NONE: &str = "-";

/// `1234567` as `1,234,567`.
pub(super) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three significant digits below 100, whole numbers with separators above.
pub(super) fn measure(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    match value.abs() {
        // The cast saturates, and no figure here is near 2^64.
        size if size >= 99.95 => format!("{}{}", if value < 0.0 { "-" } else { "" }, count(size.round() as u64)),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 => format!("{value:.2}"),
        0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

/// A percentage that is rounded down: 100 only if nothing is missing.
pub(super) fn percent(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    if value == 100.0 {
        return "100".to_owned();
    }
    let cut = (value * 10_000.0).floor() / 10_000.0;
    let text = format!("{cut:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// JSON has no NaN and serde_json writes it as null; reading must take it back.
pub(super) fn nan_when_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        for (value, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn measures_have_sensible_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (0.9999, "1.00"),
            (3.456, "3.46"),
            (9.999, "10.0"),
            (45.67, "45.7"),
            (99.97, "100"),
            (123_456.7, "123,457"),
            (-1234.0, "-1,234"),
            (f64::NAN, "-"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(measure(value), text, "{value}");
        }
    }

    #[test]
    fn a_loss_is_never_rounded_to_100() {
        for (value, text) in [
            (100.0, "100"),
            (99.999_999, "99.9999"),
            (99.5, "99.5"),
            (0.0, "0"),
            (100.0004, "100.0004"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(percent(value), text, "{value}");
        }
    }
}
