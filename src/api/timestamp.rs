//! Times as status stores them: RFC 3339, UTC, whole seconds, such as `2025-01-15T14:30:25Z`.
//!
//! [`DateTime`] knows more than that: fractions, leap seconds, years of five digits. The API server refuses the last
//! two (Go's RFC 3339 has neither), and a refused status write would repeat without end. So all of them go through
//! [`whole_seconds`], when written and when read.

use chrono::{DateTime, SecondsFormat, Utc};
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

/// The text of a time in status, such as `2025-01-15T14:30:25Z`.
#[must_use]
pub fn format(time: DateTime<Utc>) -> String {
    whole_seconds(time).to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// For `#[serde(with = …)]` on a `DateTime<Utc>`.
pub(super) mod required {
    use super::{DateTime, Deserialize, Deserializer, Serializer, Utc, de, format, whole_seconds};

    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*time))
    }

    /// Takes fractions and offsets too: other hands may write status.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(de::Error::custom)?;
        Ok(whole_seconds(time.to_utc()))
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

    #[test]
    fn what_is_no_time_is_an_error() {
        for text in ["", "tomorrow", "2025-01-15", "1736951425"] {
            assert!(read(text).is_err(), "{text:?} was read as a time");
        }
    }
}
