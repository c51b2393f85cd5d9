//! Owns how calendar values and decimals of other crates become ours.
//! Must not know columns, rows or databases.
#![cfg(any(feature = "time", feature = "jiff", feature = "bigdecimal"))]

#[cfg(any(feature = "time", feature = "jiff"))]
fn instant(nanos: i128) -> Result<crate::model::temporal::TimestampTz, crate::model::temporal::OutOfCalendar> {
    let micros = i64::try_from(nanos.div_euclid(1000)).ok();
    micros
        .and_then(crate::model::temporal::TimestampTz::from_micros_since_epoch)
        .ok_or(crate::model::temporal::OutOfCalendar)
}

#[cfg(feature = "time")]
mod from_time {
    use super::instant;
    use crate::model::temporal::{Date, OutOfCalendar, Time, Timestamp, TimestampTz};

    impl TryFrom<time::Date> for Date {
        type Error = OutOfCalendar;

        fn try_from(date: time::Date) -> Result<Self, OutOfCalendar> {
            Self::from_ymd(date.year(), u8::from(date.month()).into(), date.day().into()).ok_or(OutOfCalendar)
        }
    }

    impl From<time::Time> for Time {
        /// Digits below a microsecond are cut off.
        fn from(time: time::Time) -> Self {
            let (hour, minute, second) = time.as_hms();
            Self::from_hms_micro(hour.into(), minute.into(), second.into(), time.microsecond()).unwrap_or(Self::MAX)
        }
    }

    impl TryFrom<time::PrimitiveDateTime> for Timestamp {
        type Error = OutOfCalendar;

        fn try_from(at: time::PrimitiveDateTime) -> Result<Self, OutOfCalendar> {
            Ok(Self::from_parts(at.date().try_into()?, at.time().into()))
        }
    }

    impl TryFrom<time::OffsetDateTime> for TimestampTz {
        type Error = OutOfCalendar;

        fn try_from(at: time::OffsetDateTime) -> Result<Self, OutOfCalendar> {
            instant(at.unix_timestamp_nanos())
        }
    }

    impl TryFrom<time::UtcDateTime> for TimestampTz {
        type Error = OutOfCalendar;

        fn try_from(at: time::UtcDateTime) -> Result<Self, OutOfCalendar> {
            instant(at.unix_timestamp_nanos())
        }
    }
}

#[cfg(feature = "jiff")]
mod from_jiff {
    use super::instant;
    use crate::model::temporal::{Date, OutOfCalendar, Time, Timestamp, TimestampTz};

    /// A part of a date or a time, which is never negative in our calendar.
    fn part(number: impl TryInto<u32>) -> u32 {
        number.try_into().unwrap_or(u32::MAX)
    }

    impl TryFrom<jiff::civil::Date> for Date {
        type Error = OutOfCalendar;

        fn try_from(date: jiff::civil::Date) -> Result<Self, OutOfCalendar> {
            Self::from_ymd(date.year().into(), part(date.month()), part(date.day())).ok_or(OutOfCalendar)
        }
    }

    impl From<jiff::civil::Time> for Time {
        /// Digits below a microsecond are cut off.
        fn from(time: jiff::civil::Time) -> Self {
            let micro = part(time.subsec_nanosecond()) / 1000;
            let clock = Self::from_hms_micro(part(time.hour()), part(time.minute()), part(time.second()), micro);
            clock.unwrap_or(Self::MAX)
        }
    }

    impl TryFrom<jiff::civil::DateTime> for Timestamp {
        type Error = OutOfCalendar;

        fn try_from(at: jiff::civil::DateTime) -> Result<Self, OutOfCalendar> {
            Ok(Self::from_parts(at.date().try_into()?, at.time().into()))
        }
    }

    impl TryFrom<jiff::Timestamp> for TimestampTz {
        type Error = OutOfCalendar;

        fn try_from(at: jiff::Timestamp) -> Result<Self, OutOfCalendar> {
            instant(at.as_nanosecond())
        }
    }

    impl TryFrom<jiff::ZonedDateTime> for TimestampTz {
        type Error = OutOfCalendar;

        fn try_from(at: jiff::ZonedDateTime) -> Result<Self, OutOfCalendar> {
            at.timestamp().try_into()
        }
    }
}

#[cfg(feature = "bigdecimal")]
impl From<bigdecimal::BigDecimal> for crate::model::decimal::Decimal {
    /// All digits are written out, so a number with a large exponent takes much memory.
    fn from(number: bigdecimal::BigDecimal) -> Self {
        Self::of(&number.to_plain_string())
    }
}
