//! One secret value: a token, an app secret, an authorization code.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A secret value that has no printable form and is wiped from memory when dropped.
///
/// White space at both ends is trimmed when it is made: people `echo` tokens into Secrets, and a
/// trailing newline would make a good token a wrong one. It is never empty.
pub struct SecretText(SecretString);

impl SecretText {
    /// Takes a value from text; `None` where nothing but white space is left.
    #[must_use]
    pub fn new(mut value: String) -> Option<Self> {
        let trimmed = value.trim();
        let secret = (!trimmed.is_empty()).then(|| Self(SecretString::from(trimmed)));
        zeroize::Zeroize::zeroize(&mut value);
        secret
    }

    /// Takes a value from bytes as a Secret holds them; `None` where it is empty.
    ///
    /// # Errors
    /// Where the bytes are not UTF-8. The error shows none of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Option<Self>, NotUtf8> {
        let trimmed = std::str::from_utf8(bytes).map_err(|_| NotUtf8)?.trim();
        Ok((!trimmed.is_empty()).then(|| Self(SecretString::from(trimmed))))
    }

    /// The value itself, for the one place that sends or stores it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// A second copy, wiped on its own. Not `Clone`, so that copies are seen in a review.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(SecretString::from(self.expose()))
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for SecretText {
    fn eq(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.expose().as_bytes(), other.expose().as_bytes()).is_ok()
    }
}

impl Eq for SecretText {}

/// A value that is not UTF-8, and so no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("value is not UTF-8 text")]
pub struct NotUtf8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailing_newline_is_no_part_of_a_token() {
        let token = SecretText::from_bytes(b" TTP_abc\r\n").unwrap().unwrap();
        assert_eq!(token.expose(), "TTP_abc");
    }

    #[test]
    fn white_space_alone_is_no_token() {
        assert!(SecretText::new(" \n".to_owned()).is_none());
        assert_eq!(SecretText::from_bytes(b"\t"), Ok(None));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_without_showing_them() {
        let error = SecretText::from_bytes(b"se\xffcret").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("se"), "shows a part of the value");
    }

    #[test]
    fn debug_output_does_not_show_the_value() {
        let token = SecretText::new("TTP_abc".to_owned()).unwrap();
        assert_eq!(format!("{token:?}"), "[redacted]");
    }
}
