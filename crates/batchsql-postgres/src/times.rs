//! Owns the plain spellings of dates and times in text that the server parses: which of them a column
//! stores completely.
//! Must not know columns, or what happens to a rejected value.
//!
//! The server accepts many spellings, and silently drops parts that a type cannot store: the zone of a `timestamp`,
//! the time of day of a `date`. So only spellings in which each word is known are accepted. The server itself rejects
//! text that is no date at all.

/// The parts that a date or time type stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// `date`
    Date,
    /// `timestamp`
    DateAndTime,
    /// `time`
    Time,
    /// `timetz`
    TimeAndZone,
}

/// Whether each date or time of a value, of an array or of a range has only parts that are stored.
pub(crate) fn is_kept_whole(text: &str, keeps: Keeps) -> bool {
    elements(text).is_some_and(|elements| elements.into_iter().all(|element| is_element_kept(element, keeps)))
}

/// The texts in quotes, or between brackets and commas. `None` for other spellings: an escape, or a partly quoted
/// value.
fn elements(text: &str) -> Option<Vec<&str>> {
    const BEFORE: [char; 4] = ['[', '(', '{', ','];
    const AFTER: [char; 4] = [']', ')', '}', ','];
    // The bounds of an array: `[0:1]={…}`.
    let text = match text.split_once("]=") {
        Some((bounds, rest)) if bounds.starts_with('[') => rest,
        _ => text,
    };
    if text.contains('\\') {
        return None;
    }
    let parts: Vec<&str> = text.split('"').collect();
    // Every quote is closed.
    if parts.len().is_multiple_of(2) {
        return None;
    }
    let last = parts.len() - 1;
    let mut found = Vec::new();
    for (index, part) in parts.into_iter().enumerate() {
        if index % 2 == 1 {
            found.push(part);
            continue;
        }
        let part = part.trim();
        let is_apart = (index == 0 || part.starts_with(AFTER)) && (index == last || part.ends_with(BEFORE));
        if last > 0 && !is_apart {
            return None;
        }
        let pieces = part.split(['[', ']', '(', ')', '{', '}', ',']).map(str::trim);
        found.extend(pieces.filter(|piece| !piece.is_empty()));
    }
    Some(found)
}

/// A word of a date or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// Year, month and day.
    Date,
    /// A date and a time of day in one word: `2026-01-31T12:00`.
    DateTime,
    /// `12:00`
    Time,
    /// The same with a zone: `12:00+02`.
    ZonedTime,
    /// Digits: a day, a year, `20260131`, `120000`.
    Number(usize),
    Month,
    /// A day of the week, which the server ignores.
    Weekday,
    /// `AD` or `BC`.
    Era,
    /// `AM` or `PM`.
    Half,
    /// A day: `epoch`, `today`, `infinity`; or `empty`, a range.
    Day,
    /// `now`
    Now,
    Null,
    /// Possibly a zone.
    Unknown,
}

/// Whether one date or time has only parts that are stored.
pub(crate) fn is_element_kept(element: &str, keeps: Keeps) -> bool {
    // A comma in quotes has no meaning: `Jan 31, 2026`.
    let words: Vec<Word> = element.split([' ', ',']).filter(|text| !text.is_empty()).map(word).collect();
    let is_of = |allowed: fn(Word) -> bool| words.iter().all(|word| *word == Word::Null || allowed(*word));
    match keeps {
        Keeps::DateAndTime => {
            use Word::{Date, DateTime, Day, Era, Half, Month, Now, Number, Time, Weekday};
            is_of(|word| matches!(word, Date | DateTime | Time | Number(_) | Month | Weekday | Era | Half | Day | Now))
        }
        // A fourth number would be a time of day.
        Keeps::Date => {
            use Word::{Date, Day, Era, Month, Number, Weekday};
            let parts = |word: &Word| match word {
                Date | Number(5..) => 3,
                Month | Number(_) => 1,
                _ => 0,
            };
            is_of(|word| matches!(word, Date | Number(1..=4 | 8) | Month | Weekday | Era | Day))
                && words.iter().map(parts).sum::<u32>() <= 3
        }
        Keeps::Time => is_of(|word| matches!(word, Word::Time | Word::Number(_) | Word::Half)),
        Keeps::TimeAndZone => {
            use Word::{Half, Null, Number, Time, Unknown, ZonedTime};
            // A zone follows the time. Numbers after it would be those of a date.
            let is_time = |word| matches!(word, Time | ZonedTime | Number(4 | 6) | Null);
            words.first().is_none_or(|first| is_time(*first))
                && words.iter().skip(1).all(|word| matches!(word, Half | Unknown))
                && element.split_whitespace().skip(1).all(|zone| zone.matches('-').count() < 2)
        }
    }
}

fn word(text: &str) -> Word {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_digits(text) {
        return Word::Number(text.len());
    }
    if is_clock(text) {
        return Word::Time;
    }
    if let Some((date, time)) = text.split_once(['T', 't'])
        && (is_date(date) || (date.len() == 8 && is_digits(date)))
        && (is_clock(time) || is_compact_clock(time))
    {
        return Word::DateTime;
    }
    if is_date(text) {
        return Word::Date;
    }
    if let Some(end) = text.find(['+', '-', 'Z', 'z'])
        && (is_clock(&text[..end]) || is_compact_clock(&text[..end]))
    {
        let zone = &text[end + 1..];
        let is_offset = zone.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
        return if is_offset { Word::ZonedTime } else { Word::Unknown };
    }
    let lower = text.to_ascii_lowercase();
    match &*lower {
        "ad" | "bc" => Word::Era,
        "am" | "pm" => Word::Half,
        "empty" | "epoch" | "infinity" | "-infinity" | "+infinity" | "today" | "tomorrow" | "yesterday" => Word::Day,
        "now" => Word::Now,
        "null" => Word::Null,
        lower if is_month(lower) => Word::Month,
        lower if is_weekday(lower) => Word::Weekday,
        _ => Word::Unknown,
    }
}

/// `2026-01-31`, `1/31/2026`, `31.01.2026`, `31-Jan-2026`.
fn is_date(text: &str) -> bool {
    ['-', '/', '.'].into_iter().any(|separator| {
        let parts: Vec<&str> = text.split(separator).collect();
        let is_part = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        parts.len() == 3 && parts.iter().all(|part| is_part(part) || is_month(&part.to_ascii_lowercase()))
    })
}

/// `12:00`, `12:00:00`, `12:00:00.5`.
fn is_clock(text: &str) -> bool {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let parts: Vec<&str> = clock.split(':').collect();
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let is_part =
        |(index, part): (usize, &&str)| are_digits(part) && (part.len() == 2 || (index == 0 && part.len() == 1));
    matches!(parts.len(), 2 | 3) && parts.iter().enumerate().all(is_part) && are_digits(fraction)
}

/// `1200`, `120000`, `120000.5`.
fn is_compact_clock(text: &str) -> bool {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    matches!(clock.len(), 4 | 6) && [clock, fraction].iter().all(|part| part.bytes().all(|b| b.is_ascii_digit()))
}

fn is_month(lower: &str) -> bool {
    const MONTHS: [&str; 12] = [
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ];
    lower == "sept" || MONTHS.iter().any(|month| *month == lower || month[..3] == *lower)
}

fn is_weekday(lower: &str) -> bool {
    const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    ["tues", "weds", "thur", "thurs"].contains(&lower) || DAYS.iter().any(|day| *day == lower || day[..3] == *lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(keeps: Keeps, kept: &[&str], cut: &[&str]) {
        for text in kept {
            assert!(is_kept_whole(text, keeps), "{text}");
        }
        for text in cut {
            assert!(!is_kept_whole(text, keeps), "{text}");
        }
    }

    #[test]
    fn a_timestamp_keeps_no_zone() {
        check(
            Keeps::DateAndTime,
            &[
                "{2026-01-31 12:00,\"2026-01-31T12:00:00.5\",infinity,0044-03-15 12:00 BC,12:00 PM,NULL}",
                "{\"Sat Jan 31 12:00:00 2026\"}",
                "{\"January 31, 2026 12:00\"}",
                "[\"2026-01-31 12:00:00\",)",
                "{[2026-01-31 12:00,2026-02-01),(,2026-01-01]}",
                "[0:1]={2026-01-31,20260131T120000}",
                r#"["2026-01-31 12:00", null]"#,
                "empty",
                "{}",
            ],
            &[
                "{2026-01-31T12:00:00Z}",
                "{20260131T120000Z}",
                "{2026-01-31 UTC}",
                "[2026-01-31 12:00+02,)",
                "{2026-01-31 -05}",
                "{2026-01-31-05}",
                "{\"2026-01-31 12:00:00 Europe/Berlin\"}",
                "{\"Sat Jan 31 12:00:00 2026 CET\"}",
                "[2026-01-31 12:00\"Z\",)",
                r#"["2026-01-31T12:00:00\u005a"]"#,
            ],
        );
    }

    #[test]
    fn a_date_keeps_no_time_of_day() {
        check(
            Keeps::Date,
            &[
                "[2026-01-31,)",
                "{20260131,\"31 Jan 2026\"}",
                "{294277-01-01}",
                "{\"Jan 31, 2026\",0044-03-15 BC}",
                "{}",
            ],
            &[
                "[2026-01-31 12:00,)",
                "[20260131T120000,)",
                "{2026-01-31 1200}",
                "{20260131 120000}",
                "{\"31 Jan 2026 1200\"}",
                "{\"Jan 31, 2026 1200\"}",
                "{2026-01-31 UTC}",
                "{now}",
                "[2026-01-31\" 12:00\",)",
            ],
        );
    }

    #[test]
    fn a_time_keeps_no_date() {
        check(
            Keeps::Time,
            &["{12:00:00,9:30 PM,120000,NULL}", "{}"],
            &["{12:00:00+02}", "{12:00 UTC}", "{2026-01-31 12:00}", "{12:00Z}", "{now}"],
        );
        check(
            Keeps::TimeAndZone,
            &["12:00:00+02", "23:59:59.5-03:30", "12:00 UTC", "{12:00:00Z,\"12:00 PM EST\"}", "120000+02"],
            &["2026-01-31 12:00+02", "12:00+02 2026-01-31", "20260131T120000Z", "Jan 31 2026 12:00+02"],
        );
    }
}
