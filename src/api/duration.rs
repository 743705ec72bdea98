//! Durations as Go and Kubernetes write them: `24h`, `1h30m`, `1.5h`, `250ms`.
//!
//! A parser of our own, because kube's panics on numbers that are too large, and this one reads what people write into
//! specs and flags.

use std::time::Duration;

/// The longest duration that Go can hold, in nanoseconds (292 years): no limit for anybody, and no sum below overflows.
const LIMIT: u128 = i64::MAX as u128;

/// How many digits after a point count: more than the 13 by which an hour is split into nanoseconds.
const FRACTION_DIGITS: usize = 18;

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing is written.
    #[error("is empty")]
    Empty,
    /// A sign, a space, or another character where a number should stand.
    #[error("is not a duration: a number is missing")]
    NotANumber,
    /// A number without a unit after it.
    #[error("is not a duration: a unit is missing after the number (h, m, s, ms, us or ns)")]
    MissingUnit,
    /// A unit that Go does not know, `d` for instance.
    #[error("is not a duration: the units are h, m, s, ms, us and ns")]
    UnknownUnit,
    /// Longer than 292 years.
    #[error("is too long a time")]
    TooLong,
}

/// Reads a duration in Go's form: one or more decimal numbers, each with a unit (`h`, `m`, `s`, `ms`, `us`, `µs` or
/// `ns`), or `0`. Fractions of a nanosecond are cut off.
///
/// Other than Go it takes no sign: no duration here is negative. Never panics, whatever the text.
///
/// # Errors
///
/// [`DurationError`], which says what is wrong with the text.
pub fn parse_go_duration(text: &str) -> Result<Duration, DurationError> {
    match text {
        "" => return Err(DurationError::Empty),
        "0" => return Ok(Duration::ZERO),
        _ => {}
    }
    let mut nanos = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (part, after) = one_part(rest)?;
        nanos += part;
        if nanos > LIMIT {
            return Err(DurationError::TooLong);
        }
        rest = after;
    }
    u64::try_from(nanos).map(Duration::from_nanos).map_err(|_| DurationError::TooLong)
}

/// Reads one number and its unit, in nanoseconds, and returns the text after them.
fn one_part(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::NotANumber);
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let unit = nanos_in(unit)?;
    // Each step is checked or bounded: whole < 2^64 and unit < 2^42, fraction < 10^18 < 2^60.
    let whole = number(whole)?;
    let fraction = &fraction[..fraction.len().min(FRACTION_DIGITS)];
    let scale = fraction.bytes().fold(1, |scale: u128, _| scale * 10);
    Ok((whole * unit + number(fraction)? * unit / scale, rest))
}

/// Splits the decimal digits off the start of a text.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// The value of decimal digits; of none, 0.
fn number(digits: &str) -> Result<u128, DurationError> {
    if digits.is_empty() {
        return Ok(0);
    }
    // The text holds digits alone, so all that can fail is the size.
    digits.parse::<u64>().map(u128::from).map_err(|_| DurationError::TooLong)
}

/// How many nanoseconds a unit has.
fn nanos_in(unit: &str) -> Result<u128, DurationError> {
    match unit {
        "" => Err(DurationError::MissingUnit),
        "ns" => Ok(1),
        // The micro sign and the Greek letter, as in Go.
        "us" | "µs" | "μs" => Ok(1_000),
        "ms" => Ok(1_000_000),
        "s" => Ok(1_000_000_000),
        "m" => Ok(60_000_000_000),
        "h" => Ok(3_600_000_000_000),
        _ => Err(DurationError::UnknownUnit),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_go_reads_is_read_alike() {
        let cases: &[(&str, u64)] = &[
            ("0", 0),
            ("0s", 0),
            ("24h", 86_400_000_000_000),
            ("90m", 5_400_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1h30m0s", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5m", 30_000_000_000),
            ("5.s", 5_000_000_000),
            ("30m1h", 5_400_000_000_000),
            ("250ms", 250_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("10μs", 10_000),
            ("7ns", 7),
            ("0.9ns", 0),
            ("0.0000000000002777777777777777777777777777h", 0),
            ("0.000000000000278h", 1),
            ("2562047h47m16.854775807s", 9_223_372_036_854_775_807),
        ];
        for &(text, nanos) in cases {
            assert_eq!(parse_go_duration(text), Ok(Duration::from_nanos(nanos)), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_duration_says_why() {
        use DurationError::{Empty, MissingUnit, NotANumber, TooLong, UnknownUnit};
        let cases = [
            ("", Empty),
            ("24", MissingUnit),
            ("1h30", MissingUnit),
            ("1.2.3h", MissingUnit),
            ("abc", NotANumber),
            (".", NotANumber),
            (".h", NotANumber),
            ("-5m", NotANumber),
            ("+5m", NotANumber),
            (" 5m", NotANumber),
            ("5m ", UnknownUnit),
            ("5 m", UnknownUnit),
            ("7d", UnknownUnit),
            ("24H", UnknownUnit),
            ("٣h", NotANumber),
            ("99999999999999999999h", TooLong),
            ("18446744073709551615h", TooLong),
            ("2562047h47m16.854775808s", TooLong),
        ];
        for (text, error) in cases {
            assert_eq!(parse_go_duration(text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse_go_duration(&text);
        }

        #[test]
        fn nothing_made_of_its_own_letters_makes_it_panic(
            text in "([0-9]{0,40}\\.?[0-9]{0,40}(h|m|s|ms|us|µs|ns)?){0,6}",
        ) {
            let _ = parse_go_duration(&text);
        }

        #[test]
        fn parts_add_up(h in 0..100_000_u64, m in 0..100_000_u64, s in 0..100_000_u64, ms in 0..100_000_u64) {
            let read = parse_go_duration(&format!("{h}h{m}m{s}s{ms}ms")).unwrap();
            prop_assert_eq!(read, Duration::from_millis(((h * 60 + m) * 60 + s) * 1000 + ms));
        }

        #[test]
        fn a_fraction_reads_as_its_part_of_the_unit(whole in 0..1_000_u64, nanos in 0..1_000_000_000_u64) {
            let read = parse_go_duration(&format!("{whole}.{nanos:09}s")).unwrap();
            prop_assert_eq!(read, Duration::from_nanos(whole * 1_000_000_000 + nanos));
        }
    }
}
