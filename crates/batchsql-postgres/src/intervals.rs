//! Owns the check whether an interval in text is stored to the last digit.
//! Must not know columns, or what happens to a rejected value.

/// Whether an interval with so many digits of a second, at most 6, is stored to the last digit; or whole months, if years have a
/// fraction.
pub(crate) fn is_interval_kept(text: &str, digits: u32) -> bool {
    let step = 10_i128.pow(6_u32.saturating_sub(digits));
    // Whole numbers of these may be less than a step.
    let is_small = |word: &str| {
        let word = word.to_ascii_lowercase();
        ["us", "ms", "micros", "millis", "msec"].iter().any(|unit| word.starts_with(unit))
    };
    if step > 1 && text.split(|c: char| !c.is_ascii_alphabetic()).any(is_small) {
        return false;
    }
    // What a negative exponent of ISO 8601 leaves is not computed here: `PT1e-7S`.
    let is_negative = |text| matches!(exponent(text), Some((Exponent::Negative, _)));
    if text.match_indices(|c: char| c.is_ascii_digit()).any(|(digit, _)| is_negative(&text[digit + 1..])) {
        return false;
    }
    let mut rest = text;
    while let Some(point) = rest.find('.') {
        rest = &rest[point + 1..];
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[..end].trim_end_matches('0');
        // The exponent makes the first digits whole ones.
        let (digits, unit) = match exponent(&rest[end..]) {
            None => (digits, &rest[end..]),
            Some((Exponent::Positive(whole), unit)) => (&digits[whole.min(digits.len())..], unit),
            Some((Exponent::Negative, _)) => return false,
        };
        let unit = unit.trim_start();
        // A number of this length or longer is not stored exactly.
        if digits.len() > 18 {
            return false;
        }
        let fraction: i128 = if digits.is_empty() { 0 } else { digits.parse().unwrap_or(1) };
        let parts = smallest_parts(unit);
        let are_months = matches!(parts, 12 | 120 | 1_200 | 12_000);
        let step = if are_months { 1 } else { step };
        if fraction * parts % (10_i128.pow(digits.len() as u32) * step) != 0 {
            return false;
        }
    }
    true
}

/// The power of ten after a number.
enum Exponent {
    Positive(usize),
    Negative,
}

/// The exponent at the start of a text, and the text after it.
fn exponent(text: &str) -> Option<(Exponent, &str)> {
    let after = text.strip_prefix(['e', 'E'])?;
    let digits = after.strip_prefix(['+', '-']).unwrap_or(after);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let exponent = match after.starts_with('-') {
        true => Exponent::Negative,
        // What is beyond is out of range.
        false => Exponent::Positive(digits[..end].parse().unwrap_or(usize::MAX)),
    };
    Some((exponent, &digits[end..]))
}

/// The number of the smallest stored parts in the unit at the start of a text: microseconds, or months for units
/// longer than a month. Without a unit: seconds.
fn smallest_parts(text: &str) -> i128 {
    const SECOND: i128 = 1_000_000;
    const DAY: i128 = 86_400 * SECOND;
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    match &*text[..end].to_ascii_lowercase() {
        "us" | "usec" | "usecs" | "usecond" | "useconds" | "microsecon" | "microsecond" | "microseconds" => 1,
        "ms" | "msec" | "msecs" | "msecond" | "mseconds" | "millisecon" | "millisecond" | "milliseconds" => 1_000,
        // In the form of ISO 8601 `M` is a month before the `T`; a minute is the stricter choice.
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * SECOND,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600 * SECOND,
        // `1.5DT2H`
        "d" | "day" | "days" | "dt" => DAY,
        "w" | "week" | "weeks" | "wt" => 7 * DAY,
        "mon" | "mons" | "month" | "months" => 30 * DAY,
        "y" | "yr" | "yrs" | "year" | "years" | "yt" => 12,
        "dec" | "decs" | "decade" | "decades" => 120,
        "c" | "cent" | "century" | "centuries" => 1_200,
        "mil" | "mils" | "millennium" | "millennia" => 12_000,
        _ => SECOND,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fraction_of_an_interval_counts_in_its_unit() {
        for text in [
            "1.1234567 days",
            "1.5 years",
            "00:00:01.1234560",
            "P1.5DT2.123456S",
            "1.0000001h",
            "{1.5 weeks}",
            "1e3 s",
            "PT1e3S",
            "PT1.1234567E+1S",
        ] {
            assert!(is_interval_kept(text, 6), "{text}");
        }
        for text in [
            "0.1234567 seconds",
            "00:00:00.1234567",
            "1.05 years",
            "1.0000001 ms",
            "1.1e-7 s",
            "PT0.1234567S",
            "PT1e-7S",
            "PT1.1e-7S",
            "PT1.e-7S",
            "PT1.12345678e1S",
        ] {
            assert!(!is_interval_kept(text, 6), "{text}");
        }
    }

    #[test]
    fn an_interval_keeps_fewer_digits() {
        let kept = [
            "1.5 days",
            "1.5 years",
            "00:00:01.123",
            "P1.5DT2.120S",
            "1.005 secs",
            "0.001 min",
            "12 mins",
            "1 millennium",
        ];
        let cut = [
            "00:00:01.1234",
            "1.0001 secs",
            "1.000001 min",
            "1500 us",
            "3 ms",
            "7 microseconds",
            "1e-4 s",
            "1.05 years",
        ];
        for text in kept {
            assert!(is_interval_kept(text, 3), "{text}");
        }
        for text in cut {
            assert!(!is_interval_kept(text, 3), "{text}");
        }
        assert!(is_interval_kept("1 day 00:00:02", 0) && !is_interval_kept("00:00:02.5", 0));
    }
}
