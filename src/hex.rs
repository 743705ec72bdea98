//! Hexadecimal digits in lower case, by hand: digests and UIDs are read and written for each integration at each look.

/// The two digits of a byte.
pub(crate) const fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// The digits of all bytes.
pub(crate) fn text(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

/// The byte that two digits stand for; capitals are none.
pub(crate) const fn byte(digits: [u8; 2]) -> Option<u8> {
    match (nibble(digits[0]), nibble(digits[1])) {
        (Some(high), Some(low)) => Some(high << 4 | low),
        _ => None,
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_read_as_it_is_written_and_nothing_else_is() {
        for number in 0..=u8::MAX {
            assert_eq!(digits(number), *format!("{number:02x}").as_bytes());
            assert_eq!(byte(digits(number)), Some(number));
        }
        for pair in [*b"A0", *b"0F", *b"g0", *b"0 ", *b"-1", *b"+1", [0xff, b'0']] {
            assert_eq!(byte(pair), None, "{pair:?}");
        }
    }
}
