//! Times as status stores them: RFC 3339, UTC, whole seconds, such as `2025-01-15T14:30:25Z`.
//!
//! [`DateTime`] knows more than that: fractions, leap seconds, years of five digits. The API server refuses the last
//! two (Go's RFC 3339 has neither), and a refused status write would repeat without end. So all of them go through
//! [`whole_seconds`], when written and when read.

use std::fmt;

use chrono::{DateTime, Datelike as _, NaiveDate, Timelike as _, Utc};
use serde::{Deserialize, Deserializer, Serializer, de};

/// The last second of the year 9999, the last that RFC 3339 can write, as Unix seconds.
const LAST_SECOND: i64 = 253_402_300_799;

/// The first second of the year 0, the first that RFC 3339 can write, as Unix seconds.
const FIRST_SECOND: i64 = -62_167_219_200;

/// The time as status stores it: rounded down to the second, and kept within the years 0 to 9999.
///
/// Compare a planned status to a stored one after this, or they differ for ever.
#[must_use]
pub fn whole_seconds(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp().clamp(FIRST_SECOND, LAST_SECOND), 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// Where the parts of a time stand in its text, and how many digits each has.
const PARTS: [(usize, usize); 6] = [(0, 4), (5, 2), (8, 2), (11, 2), (14, 2), (17, 2)];

/// The text of a time in status, such as `2025-01-15T14:30:25Z`.
///
/// By hand, as is [`parse`]: a start of a large fleet does little else so often, and chrono's own take ten times as long.
#[must_use]
pub fn format(time: DateTime<Utc>) -> String {
    let time = whole_seconds(time);
    let year = u32::try_from(time.year()).unwrap_or(0);
    let parts = [year, time.month(), time.day(), time.hour(), time.minute(), time.second()];
    let mut text = *b"0000-00-00T00:00:00Z";
    for ((begin, digits), mut part) in PARTS.into_iter().zip(parts) {
        for digit in text[begin..begin + digits].iter_mut().rev() {
            *digit = b"0123456789"[part as usize % 10];
            part /= 10;
        }
    }
    str::from_utf8(&text).unwrap_or_default().to_owned()
}

/// Reads a time that [`format()`] wrote; `None` where it has another form.
#[must_use]
pub fn parse(text: &str) -> Option<DateTime<Utc>> {
    let text: &[u8; 20] = text.as_bytes().try_into().ok()?;
    let mut numbers = [0; 6];
    let mut form = *text;
    for (number, (begin, digits)) in numbers.iter_mut().zip(PARTS) {
        for digit in &mut form[begin..begin + digits] {
            *number = *number * 10 + u32::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
            *digit = b'0';
        }
    }
    if form != *b"0000-00-00T00:00:00Z" {
        return None;
    }
    let [year, month, day, hour, minute, second] = numbers;
    let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?;
    Some(date.and_hms_opt(hour, minute, second)?.and_utc())
}

/// Reads any time in RFC 3339, in Unix seconds.
#[must_use]
pub fn seconds(text: &str) -> Option<i64> {
    let time = parse(text).or_else(|| DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc()))?;
    Some(time.timestamp())
}

/// For `#[serde(with = …)]` on a `DateTime<Utc>`.
pub(super) mod required {
    use super::{DateTime, Deserializer, Serializer, Utc, de, fmt, format, parse, whole_seconds};

    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*time))
    }

    /// Takes fractions and offsets too: other hands may write status.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = DateTime<Utc>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                if let Some(time) = parse(text) {
                    return Ok(time);
                }
                let time = DateTime::parse_from_rfc3339(text).map_err(de::Error::custom)?;
                Ok(whole_seconds(time.to_utc()))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// For `#[serde(with = …)]` on an `Option<DateTime<Utc>>`.
pub(super) mod optional {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc, required};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(time: &Option<DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => required::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DateTime<Utc>>, D::Error> {
        #[derive(Deserialize)]
        struct Time(#[serde(with = "required")] DateTime<Utc>);

        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DateTime<Utc>, serde_json::Error> {
        required::deserialize(&serde_json::Value::from(text))
    }

    #[test]
    fn a_time_is_written_in_whole_seconds_and_utc() {
        let time = read("2025-01-15T16:30:25.999999999+02:00").unwrap();
        assert_eq!(format(time), "2025-01-15T14:30:25Z");
    }

    #[test]
    fn a_time_before_1970_is_rounded_down_too() {
        assert_eq!(format(DateTime::from_timestamp(-2, 500_000_000).unwrap()), "1969-12-31T23:59:58Z");
    }

    #[test]
    fn a_leap_second_is_read_and_never_written_as_one() {
        assert_eq!(format(read("2016-12-31T23:59:60Z").unwrap()), "2016-12-31T23:59:59Z");
    }

    #[test]
    fn a_time_that_rfc_3339_cannot_say_is_written_as_the_nearest_that_it_can() {
        assert_eq!(format(DateTime::<Utc>::MAX_UTC), "9999-12-31T23:59:59Z");
        assert_eq!(format(DateTime::<Utc>::MIN_UTC), "0000-01-01T00:00:00Z");
    }

    /// Against chrono's own.
    #[test]
    fn times_are_written_and_read_as_rfc_3339_has_them() {
        let step = 86_399 * 367;
        let times = (FIRST_SECOND..=LAST_SECOND).step_by(step).chain([-1, 0, 951_782_400, 4_107_542_399, LAST_SECOND]);
        for seconds in times {
            let time = DateTime::from_timestamp(seconds, 0).unwrap();
            let text = time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
            assert_eq!((format(time), parse(&text)), (text.clone(), Some(time)));
        }
        for other in [
            "2025-01-15T14:30:25+00:00",
            "2025-01-15 14:30:25Z",
            "2025-01-15T14:30:25z",
            "2025-02-29T00:00:00Z",
            "2025-01-15T24:00:00Z",
            "2025-01-15T14:30:60Z",
            "2025-01-15T14:3O:25Z",
            "+025-01-15T14:30:25Z",
            "2025-01-15T14:30:2Z",
            "",
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_time_is_an_error() {
        for text in ["", "tomorrow", "2025-01-15", "1736951425"] {
            assert!(read(text).is_err(), "{text:?} was read as a time");
        }
    }
}
