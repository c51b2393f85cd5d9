//! Owns calendar values: dates, times and timestamps with microsecond resolution.
//! Must not know their text, columns, rows or databases.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Days from 0001-01-01 to 1970-01-01, negated.
const MIN_DAYS: i32 = -719_162;
/// Days from 1970-01-01 to 9999-12-31.
const MAX_DAYS: i32 = 2_932_896;

/// A calendar date without a time zone, stored as days since 1970-01-01. Its text is `YYYY-MM-DD`.
///
/// The range is 0001-01-01 to 9999-12-31, which every supported database can hold as ISO text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date(i32);

/// A time of day without a zone, stored as microseconds since midnight. Its text is `HH:MM:SS[.fraction]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(i64);

/// A date and time **without** a zone, stored as microseconds since 1970-01-01T00:00:00. Its text is that of the date and
/// of the time, with a space or `T` between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// An instant: microseconds since 1970-01-01T00:00:00 **UTC**. Its text is RFC 3339.
///
/// ```
/// use batchsql_core::TimestampTz;
/// let noon: TimestampTz = "2026-01-31T12:00:00+02:00".parse()?;
/// // RFC 3339 with a space, which is how it is stored in text columns, or with `T` and `Z`.
/// assert_eq!(noon.to_string(), "2026-01-31 10:00:00.000000+00:00");
/// assert_eq!(format!("{noon:#}"), "2026-01-31T10:00:00.000000Z");
/// # Ok::<(), batchsql_core::InvalidCalendarText>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampTz(i64);

impl Date {
    /// 0001-01-01.
    pub const MIN: Self = Self(MIN_DAYS);
    /// 9999-12-31.
    pub const MAX: Self = Self(MAX_DAYS);

    /// A date from days since 1970-01-01; `None` outside 0001-01-01 to 9999-12-31.
    pub fn from_days_since_epoch(days: i32) -> Option<Self> {
        (MIN_DAYS..=MAX_DAYS).contains(&days).then_some(Self(days))
    }

    /// A date from year (1 to 9999), month (1 to 12) and day; `None` when there is no such day.
    pub fn from_ymd(year: i32, month: u32, day: u32) -> Option<Self> {
        if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
            return None;
        }
        let date = Self(days_from_civil(year, month, day));
        (date.ymd() == (year, month, day)).then_some(date)
    }

    /// Days since 1970-01-01; negative before it.
    pub fn days_since_epoch(self) -> i32 {
        self.0
    }

    /// Year, month (1 to 12) and day of the month (1 to 31).
    pub fn ymd(self) -> (i32, u32, u32) {
        civil_from_days(self.0)
    }
}

impl Time {
    /// Midnight.
    pub const MIN: Self = Self(0);
    /// 23:59:59.999999.
    pub const MAX: Self = Self(MICROS_PER_DAY - 1);

    /// A time from microseconds since midnight; `None` from 24:00 on.
    pub fn from_micros_since_midnight(micros: i64) -> Option<Self> {
        (0..MICROS_PER_DAY).contains(&micros).then_some(Self(micros))
    }

    /// A time from hour, minute, second and microsecond; `None` when one is out of range.
    pub fn from_hms_micro(hour: u32, minute: u32, second: u32, micro: u32) -> Option<Self> {
        let valid = hour < 24 && minute < 60 && second < 60 && micro < 1_000_000;
        let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
        valid.then_some(Self(seconds * MICROS_PER_SECOND + i64::from(micro)))
    }

    /// Microseconds since midnight.
    pub fn micros_since_midnight(self) -> i64 {
        self.0
    }
}

/// What `Timestamp` and `TimestampTz` share; they differ only in what the number means.
macro_rules! timestamp {
    ($name:ident) => {
        impl $name {
            /// 0001-01-01 00:00:00.
            pub const MIN: Self = Self(MIN_DAYS as i64 * MICROS_PER_DAY);
            /// 9999-12-31 23:59:59.999999.
            pub const MAX: Self = Self((MAX_DAYS as i64 + 1) * MICROS_PER_DAY - 1);

            /// From microseconds since 1970-01-01 00:00:00; `None` outside the years 1 to 9999.
            pub fn from_micros_since_epoch(micros: i64) -> Option<Self> {
                (Self::MIN.0..=Self::MAX.0).contains(&micros).then_some(Self(micros))
            }

            /// From a date and a time of day.
            pub fn from_parts(date: Date, time: Time) -> Self {
                Self(i64::from(date.0) * MICROS_PER_DAY + time.0)
            }

            /// Microseconds since 1970-01-01 00:00:00; negative before it.
            pub fn micros_since_epoch(self) -> i64 {
                self.0
            }

            /// The calendar date and the time of day.
            pub fn parts(self) -> (Date, Time) {
                let days = self.0.div_euclid(MICROS_PER_DAY);
                let days = i32::try_from(days).expect("the range check bounds the days");
                (Date(days), Time(self.0.rem_euclid(MICROS_PER_DAY)))
            }
        }
    };
}

timestamp!(Timestamp);
timestamp!(TimestampTz);

impl TimestampTz {
    /// The current instant.
    pub fn now() -> Self {
        Self::try_from(SystemTime::now()).unwrap_or(Self::MAX)
    }
}

/// The instant is outside the years 1 to 9999.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the instant is outside the years 1 to 9999")]
pub struct OutOfCalendar;

impl TryFrom<SystemTime> for TimestampTz {
    type Error = OutOfCalendar;

    /// Digits below a microsecond are cut off.
    fn try_from(time: SystemTime) -> Result<Self, OutOfCalendar> {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => micros(after),
            Err(before) => micros(before.duration()).map(|m| -m),
        };
        micros.and_then(Self::from_micros_since_epoch).ok_or(OutOfCalendar)
    }
}

fn micros(duration: Duration) -> Option<i64> {
    i64::try_from(duration.as_micros()).ok()
}

// The two conversions are the well-known ones by Howard Hinnant ("chrono-compatible low-level date
// algorithms"): years start in March, so that the leap day is the last day of a year.

fn days_from_civil(year: i32, month: u32, day: u32) -> i32 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = month as i32;
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day as i32 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i32) -> (i32, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i32::from(month <= 2);
    (year, month as u32, day as u32)
}

#[cfg(feature = "chrono")]
mod from_chrono {
    use super::{Date, OutOfCalendar, Time, Timestamp, TimestampTz};
    use chrono::{Datelike, Timelike};

    impl TryFrom<chrono::NaiveDate> for Date {
        type Error = OutOfCalendar;

        fn try_from(date: chrono::NaiveDate) -> Result<Self, OutOfCalendar> {
            Self::from_ymd(date.year(), date.month(), date.day()).ok_or(OutOfCalendar)
        }
    }

    impl From<chrono::NaiveTime> for Time {
        /// Digits below a microsecond are cut off; a leap second counts as the last microsecond.
        fn from(time: chrono::NaiveTime) -> Self {
            let micro = (time.nanosecond() / 1000).min(999_999);
            Self::from_hms_micro(time.hour(), time.minute(), time.second(), micro).unwrap_or(Self::MAX)
        }
    }

    impl TryFrom<chrono::NaiveDateTime> for Timestamp {
        type Error = OutOfCalendar;

        fn try_from(time: chrono::NaiveDateTime) -> Result<Self, OutOfCalendar> {
            Ok(Self::from_parts(time.date().try_into()?, time.time().into()))
        }
    }

    impl<Tz: chrono::TimeZone> TryFrom<chrono::DateTime<Tz>> for TimestampTz {
        type Error = OutOfCalendar;

        fn try_from(time: chrono::DateTime<Tz>) -> Result<Self, OutOfCalendar> {
            Self::from_micros_since_epoch(time.timestamp_micros()).ok_or(OutOfCalendar)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{Datelike, NaiveDate};

    #[test]
    fn every_day_of_the_calendar_agrees_with_chrono() {
        let first = NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        for (days, expected) in (MIN_DAYS..=MAX_DAYS).zip(first.iter_days()) {
            let date = Date::from_days_since_epoch(days).unwrap();
            let ymd = (expected.year(), expected.month(), expected.day());
            assert_eq!(date.ymd(), ymd);
            assert_eq!(Date::from_ymd(ymd.0, ymd.1, ymd.2), Some(date));
        }
        assert_eq!(Date::MIN.to_string(), "0001-01-01");
        assert_eq!(Date::MAX.to_string(), "9999-12-31");
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for (year, month, day) in [(2026, 2, 29), (2026, 13, 1), (2026, 0, 1), (2026, 1, 0), (0, 1, 1), (10_000, 1, 1)]
        {
            assert_eq!(Date::from_ymd(year, month, day), None, "{year}-{month}-{day}");
        }
        assert_eq!(Date::from_days_since_epoch(MAX_DAYS + 1), None);
        assert_eq!(Time::from_hms_micro(24, 0, 0, 0), None);
        assert_eq!(Timestamp::from_micros_since_epoch(Timestamp::MAX.micros_since_epoch() + 1), None);
    }

    #[test]
    fn timestamps_before_the_epoch_keep_their_parts() {
        let minus_one = Timestamp::from_micros_since_epoch(-1).unwrap();
        assert_eq!(minus_one.to_string(), "1969-12-31 23:59:59.999999");
        assert_eq!(TimestampTz::MIN.to_string(), "0001-01-01 00:00:00.000000+00:00");
        let before = UNIX_EPOCH - Duration::from_micros(1_500_000);
        assert_eq!(TimestampTz::try_from(before).unwrap().micros_since_epoch(), -1_500_000);
        let (date, time) = TimestampTz::MAX.parts();
        assert_eq!(TimestampTz::from_parts(date, time), TimestampTz::MAX);
    }
}
