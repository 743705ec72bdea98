//! Keeps known secret values out of texts that others wrote.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::tokens::SecretText;

/// What stands where a secret stood.
const MARK: &str = "[redacted]";
/// So many bytes of a secret's beginning count as the secret: somebody may have cut the text in its middle. Short of
/// that, `TikTok`'s tokens share a beginning ("TTP_", "ROW_") that says nothing.
const TELLING: usize = 16;

/// What a character may begin with that is written in another way.
const ESCAPES: [u8; 3] = *b"%+\\";

/// Shorter pieces of base64 would be found by accident.
const SHORTEST_WITHIN: usize = 8;

/// Finds some secret values in a text: as they are, percent-encoded, form-encoded, with JSON's backslashes, in base64
/// (both alphabets), and cut off after at least 16 bytes.
pub struct Scrubber {
    needles: Vec<Zeroizing<String>>,
    /// With which bytes a secret may begin in a text, in whatever form it stands there.
    beginnings: [bool; 256],
}

impl Scrubber {
    /// A scrubber of these values. It keeps copies, which are wiped when it is dropped.
    #[must_use]
    pub fn new(secrets: &[&SecretText]) -> Self {
        let needles = secrets.iter().flat_map(|secret| {
            let value = secret.expose();
            let within = (1..=2).flat_map(|skipped| {
                [within_base64(&STANDARD_NO_PAD, value, skipped), within_base64(&URL_SAFE_NO_PAD, value, skipped)]
            });
            [
                Zeroizing::new(value.to_owned()),
                Zeroizing::new(value.chars().filter(|c| !is_unprintable(*c)).collect()),
                Zeroizing::new(STANDARD_NO_PAD.encode(value)),
                Zeroizing::new(URL_SAFE_NO_PAD.encode(value)),
            ]
            .into_iter()
            .chain(within.filter(|needle| needle.len() >= SHORTEST_WITHIN))
            .collect::<Vec<_>>()
        });
        let needles: Vec<_> = needles.filter(|needle| !needle.is_empty()).collect();
        let mut beginnings = [false; 256];
        let plain = needles.iter().filter_map(|needle| needle.bytes().next());
        for byte in plain.chain(ESCAPES) {
            beginnings[usize::from(byte)] = true;
        }
        Self { needles, beginnings }
    }

    /// The text with every secret in it replaced by `[redacted]`.
    #[must_use]
    pub fn scrub(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let found = self.at_start_of(rest);
            if found > 0 {
                clean.push_str(MARK);
                rest = &rest[found..];
            } else {
                clean.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
        clean
    }

    /// A text from outside, fit to be shown: one line, scrubbed, and only then cut to at most `limit` bytes (a secret
    /// that the cut went through could no longer be found).
    pub(super) fn quote(&self, text: &str, limit: usize) -> String {
        let mut line = String::with_capacity(text.len());
        for c in text.chars() {
            if c == '\n' {
                line.push(' ');
            } else if !is_unprintable(c) {
                line.push(c);
            }
        }
        let mut line = self.scrub(line.trim());
        cut(&mut line, limit);
        line
    }

    /// How many bytes at the start of a text are a secret.
    fn at_start_of(&self, text: &str) -> usize {
        if !text.bytes().next().is_some_and(|byte| self.beginnings[usize::from(byte)]) {
            return 0;
        }
        let longest = self
            .needles
            .iter()
            .flat_map(|needle| [plain, in_json, encoded].map(|step| common(text.as_bytes(), needle.as_bytes(), step)));
        let mut length = longest.max().unwrap_or(0);
        while !text.is_char_boundary(length) {
            length += 1;
        }
        length
    }
}

impl fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scrubber({} values)", self.needles.len())
    }
}

/// The characters of a base64 text that are the value's alone, where so many bytes (modulo 3) of something else stand
/// before it and something may follow, as in "user:password".
fn within_base64(engine: &impl Engine, value: &str, skipped: usize) -> Zeroizing<String> {
    let mut padded = Zeroizing::new(vec![0; skipped + value.len()]);
    padded[skipped..].copy_from_slice(value.as_bytes());
    let encoded = Zeroizing::new(engine.encode(&*padded));
    // Each character holds 6 bits: from the first that holds no foreign bit to the last that does not.
    Zeroizing::new(encoded[(skipped * 8).div_ceil(6)..padded.len() * 8 / 6].to_owned())
}

/// Cuts a text to at most `limit` bytes, between two characters.
pub(super) fn cut(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
}

/// Characters that do not show, or that reorder what shows. The joiners (U+200C, U+200D) are part of how Persian and
/// families of emoji are written.
fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// How many bytes of the text's start are the needle, or a telling part of its beginning; 0 where they are neither.
fn common(text: &[u8], needle: &[u8], step: fn(&[u8], u8) -> Option<usize>) -> usize {
    let (mut read, mut matched) = (0, 0);
    for byte in needle {
        let Some(width) = step(&text[read..], *byte) else { break };
        read += width;
        matched += 1;
    }
    if matched == needle.len() || matched >= TELLING { read } else { 0 }
}

/// How many bytes of a text stand for this byte as it is.
fn plain(text: &[u8], byte: u8) -> Option<usize> {
    (text.first() == Some(&byte)).then_some(1)
}

/// The same in a JSON string.
fn in_json(text: &[u8], byte: u8) -> Option<usize> {
    match text {
        [b'\\', b'u', b'0', b'0', high, low, ..] if is_hex_of(*high, *low, byte) => Some(6),
        [b'\\', escaped, ..] if *escaped == byte => Some(2),
        _ => plain(text, byte),
    }
}

/// The same in a URL or a form, be it in a JSON string or not.
fn encoded(text: &[u8], byte: u8) -> Option<usize> {
    match text {
        [b'%', high, low, ..] if is_hex_of(*high, *low, byte) => Some(3),
        [b'+', ..] if byte == b' ' => Some(1),
        _ => in_json(text, byte),
    }
}

fn is_hex_of(high: u8, low: u8, byte: u8) -> bool {
    hex(high).zip(hex(low)) == Some((byte >> 4, byte & 15))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(value: &str) -> SecretText {
        SecretText::new(value.to_owned()).unwrap()
    }

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let value = "TTP_a+b/c=&%25 d\"é-0123456789";
        let scrubber = Scrubber::new(&[&secret(value)]);
        for (how, text) in [
            ("as it is", value.to_owned()),
            ("percent-encoded", "TTP_a%2Bb%2Fc%3D%26%2525%20d%22%C3%A9-0123456789".to_owned()),
            ("percent-encoded in small letters", "TTP_a%2bb%2fc%3d%26%2525%20d%22%c3%a9-0123456789".to_owned()),
            ("form-encoded", "TTP_a%2Bb%2Fc%3D%26%2525+d%22%C3%A9-0123456789".to_owned()),
            ("percent-encoded in part", "TTP_a+b/c=%26%2525%20d\"é-0123456789".to_owned()),
            ("in JSON", "TTP_a+b\\/c=\\u0026%25 d\\\"é-0123456789".to_owned()),
            ("in base64", STANDARD_NO_PAD.encode(value)),
            ("in URL-safe base64", URL_SAFE_NO_PAD.encode(value)),
            ("cut off", value[..16].to_owned()),
        ] {
            assert_eq!(scrubber.scrub(&format!("<{text}> <{text}>")), "<[redacted]> <[redacted]>", "{how}");
        }
    }

    #[test]
    fn a_beginning_that_all_tokens_share_is_no_secret() {
        let scrubber = Scrubber::new(&[&secret("TTP_abcdefghijklmnopqrstuvwxyz")]);
        assert_eq!(scrubber.scrub("TTP_ tokens"), "TTP_ tokens");
    }

    #[test]
    fn a_quoted_text_is_one_line_without_what_does_not_show() {
        let scrubber = Scrubber::new(&[&secret("hunter2")]);
        assert_eq!(
            scrubber.quote(" a\r\nb\u{1b}[31m \u{202e}hun\nter2 h\0unter2 ", 300),
            "a b[31m hun ter2 [redacted]"
        );
    }

    #[test]
    fn a_cut_does_not_go_through_a_character_nor_save_a_secret_from_being_found() {
        let scrubber = Scrubber::new(&[&secret("0123456789")]);
        assert_eq!(scrubber.quote("éé", 3), "é");
        assert_eq!(scrubber.quote("ab0123456789", 6), "ab[red");
    }

    #[test]
    fn debug_output_shows_no_value() {
        assert_eq!(format!("{:?}", Scrubber::new(&[&secret("hunter2")])), "Scrubber(8 values)");
    }

    proptest! {
        #[test]
        fn no_secret_stays_in_a_text(before in ".{0,20}", value in "[!-~é]{11,60}", after in ".{0,20}", limit in 0..80_usize) {
            let scrubber = Scrubber::new(&[&secret(&value)]);
            for written in [value.clone(), STANDARD_NO_PAD.encode(&value), percent(&value)] {
                let text = format!("{before}{written}{after}");
                prop_assert!(!scrubber.scrub(&text).contains(&written));
                let quoted = scrubber.quote(&text, limit);
                prop_assert!(quoted.len() <= limit && !quoted.contains(&written));
            }
        }

        #[test]
        fn a_text_without_secrets_is_left_as_it_is(text in "[a-z \u{e9}%+\\\\]{0,60}") {
            prop_assert_eq!(Scrubber::new(&[&secret("SECRET-0123")]).scrub(&text), text);
        }
    }

    fn percent(value: &str) -> String {
        value.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"))
    }
}
