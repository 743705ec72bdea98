//! What an expiry in an answer means.

use chrono::{DateTime, Utc};

/// The last second of the year 9999, the last that RFC 3339 can write.
const LATEST: i64 = 253_402_300_799;
/// Below it a value is a duration: as a time it would lie before September 2001.
const DURATIONS_END: i64 = 1_000_000_000;
/// Above it a value is in milliseconds: as seconds it would lie in the year 33658.
const MILLISECONDS_BEGIN: i64 = 1_000_000_000_000;

/// Reads an expiry as the answers hold it, in Unix seconds; `None` where it is not known.
///
/// `TikTok`'s `*_expire_in` are absolute Unix seconds despite their name (seen live in several samples; seller refresh
/// tokens run into the years 2122 to 2125, beyond 32 bits). Durations and milliseconds have not been seen; they are
/// told apart by size, since to read one for another would let a token die or refresh it without end.
#[must_use]
pub fn read_expiry(value: Option<i64>, now: DateTime<Utc>) -> Option<i64> {
    let value = value.filter(|value| *value > 0)?;
    let seconds = if value > MILLISECONDS_BEGIN {
        value / 1000
    } else if value < DURATIONS_END {
        now.timestamp().saturating_add(value)
    } else {
        value
    };
    (seconds > 0).then(|| seconds.min(LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn an_expiry_is_read_by_its_size() {
        let now = 1_720_000_000;
        for (sentence, value, expected) in [
            ("an absent expiry is unknown", None, None),
            ("zero is unknown", Some(0), None),
            ("a negative one is unknown", Some(-1), None),
            ("the least one is unknown", Some(i64::MIN), None),
            ("seven days are counted from now", Some(604_800), Some(now + 604_800)),
            ("the longest duration", Some(999_999_999), Some(now + 999_999_999)),
            ("the first absolute second", Some(1_000_000_000), Some(1_000_000_000)),
            ("what is seen live", Some(1_720_604_800), Some(1_720_604_800)),
            ("a seller's refresh token, beyond 32 bits", Some(4_900_000_000), Some(4_900_000_000)),
            ("the last absolute second is clamped", Some(1_000_000_000_000), Some(LATEST)),
            ("milliseconds", Some(1_720_604_800_999), Some(1_720_604_800)),
            ("the greatest one is clamped", Some(i64::MAX), Some(LATEST)),
        ] {
            assert_eq!(read_expiry(value, at(now)), expected, "{sentence}");
        }
    }

    proptest! {
        #[test]
        fn an_expiry_can_always_be_written_as_a_date(value: Option<i64>, now in 0..=LATEST) {
            if let Some(seconds) = read_expiry(value, at(now)) {
                prop_assert!((1..=LATEST).contains(&seconds));
            }
        }

        #[test]
        fn seconds_of_this_century_and_the_next_are_taken_as_they_are(value in 1_000_000_000..=7_258_118_400_i64) {
            prop_assert_eq!(read_expiry(Some(value), at(0)), Some(value));
            prop_assert_eq!(read_expiry(Some(value * 1000 + 1), at(0)), Some(value));
        }
    }
}
