//! Digests that tell two token values apart without telling what they are.

use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

use super::SecretText;
use crate::hex;

/// Bytes kept of the HMAC: enough that two values never meet by chance, and short to read.
const LENGTH: usize = 16;

/// A truncated HMAC-SHA256 of a token value, keyed by an integration's UID.
///
/// It may be shown: without the value nobody can compute it, and tokens are far too long to guess.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digest([u8; LENGTH]);

impl Digest {
    /// Reads the form that [`fmt::Display`] writes: 32 hexadecimal digits in lower case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != LENGTH * 2 {
            return None;
        }
        let mut bytes = [0; LENGTH];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = hex::byte([pair[0], pair[1]])?;
        }
        Some(Self(bytes))
    }

    /// A number fixed by (integration, value) and spread evenly: the seed of jitter.
    #[must_use]
    pub const fn seed(self) -> u64 {
        let b = self.0;
        u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
    }

    /// A digest of given bytes, for models and tests of code that only compares digests.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; LENGTH]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; LENGTH * 2];
        for (digits, byte) in text.chunks_exact_mut(2).zip(self.0) {
            digits.copy_from_slice(&hex::digits(byte));
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key of an integration's digests: its UID, so that equal tokens of two integrations do not
/// show as equal.
pub struct DigestKey(hmac::Key);

impl DigestKey {
    /// The key of the integration with this UID.
    #[must_use]
    pub fn new(integration_uid: &str) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, integration_uid.as_bytes()))
    }

    /// The digest of one token.
    #[must_use]
    pub fn token(&self, token: &SecretText) -> Digest {
        self.sign(&[token.expose()])
    }

    /// The digest of an access and a refresh token together.
    #[must_use]
    pub fn pair(&self, access: Option<&SecretText>, refresh: Option<&SecretText>) -> Digest {
        // NUL stands in no token, so that no two pairs run together into one text.
        self.sign(&[access.map_or("", SecretText::expose), "\0", refresh.map_or("", SecretText::expose)])
    }

    fn sign(&self, parts: &[&str]) -> Digest {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        let mut bytes = [0; LENGTH];
        bytes.copy_from_slice(&tag.as_ref()[..LENGTH]);
        Digest(bytes)
    }
}

/// How many spent tokens are remembered.
const MOST_SPENT: usize = 24;

/// Digests of refresh tokens and authorization codes that were spent, newest first: one of them is never taken for a
/// new one.
///
/// A GitOps tool puts back the file that it has, which may be many rotations old. So the very first is kept, too, when
/// others are forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SpentTokens(Vec<Digest>);

impl SpentTokens {
    /// Reads the annotation; what is no digest is left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.split(',').filter_map(Digest::parse).take(MOST_SPENT).collect())
    }

    /// Is this one of them?
    #[must_use]
    pub fn contains(&self, refresh: Digest) -> bool {
        self.0.contains(&refresh)
    }

    /// These and one more, spent after them.
    #[must_use]
    pub fn with(&self, refresh: Digest) -> Self {
        let others = self.0.iter().copied().filter(|digest| *digest != refresh);
        let mut digests: Vec<Digest> = std::iter::once(refresh).chain(others).collect();
        if digests.len() > MOST_SPENT {
            digests.remove(MOST_SPENT - 1);
        }
        Self(digests)
    }

    /// These and those, these being the newer ones.
    #[must_use]
    pub fn and(&self, older: &Self) -> Self {
        let new = older.0.iter().filter(|digest| !self.contains(**digest)).copied();
        let mut digests: Vec<Digest> = self.0.iter().copied().chain(new).collect();
        let very_first = digests.last().copied();
        if let Some(very_first) = very_first.filter(|_| digests.len() > MOST_SPENT) {
            digests.truncate(MOST_SPENT - 1);
            digests.push(very_first);
        }
        Self(digests)
    }

    /// All but this one.
    #[must_use]
    pub fn without(&self, refresh: Digest) -> Self {
        Self(self.0.iter().copied().filter(|digest| *digest != refresh).collect())
    }
}

impl fmt::Display for SpentTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, digest) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            write!(f, "{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> SecretText {
        SecretText::new(value.to_owned()).unwrap()
    }

    #[test]
    fn a_digest_is_read_back_from_what_it_prints() {
        let digest = DigestKey::new("uid").token(&text("token"));
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
    }

    #[test]
    fn what_is_no_digest_is_not_read_as_one() {
        for wrong in ["", "abc", &"A".repeat(32), &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(Digest::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn equal_tokens_of_two_integrations_do_not_show_as_equal() {
        assert_ne!(DigestKey::new("a").token(&text("t")), DigestKey::new("b").token(&text("t")));
    }

    #[test]
    fn a_pair_is_more_than_its_tokens_run_together() {
        let key = DigestKey::new("uid");
        let (ab, c) = (text("ab"), text("c"));
        let (a, bc) = (text("a"), text("bc"));
        assert_ne!(key.pair(Some(&ab), Some(&c)), key.pair(Some(&a), Some(&bc)));
        assert_ne!(key.pair(Some(&a), None), key.pair(None, Some(&a)));
    }

    #[test]
    fn of_many_spent_tokens_the_newest_and_the_very_first_are_remembered() {
        let digest = |n: u8| Digest::from_bytes([n; 16]);
        let spent = (1..=60).fold(SpentTokens::default(), |spent, n| spent.with(digest(n)));
        assert_eq!(spent.0.len(), MOST_SPENT);
        assert!(spent.contains(digest(60)) && spent.contains(digest(40)) && spent.contains(digest(1)));
        assert!(!spent.contains(digest(2)) && !spent.contains(digest(61)));
        assert_eq!(SpentTokens::parse(&spent.to_string()), spent);
        assert_eq!(spent.with(digest(1)).0.len(), MOST_SPENT, "one that is known takes no more room");
        assert!(!spent.without(digest(60)).contains(digest(60)));
        let two = SpentTokens::default().with(digest(60)).with(digest(99));
        let all = two.and(&spent);
        assert!(all.contains(digest(99)) && all.contains(digest(59)) && all.contains(digest(1)));
        assert_eq!(all.0.len(), MOST_SPENT);
        assert_eq!(spent.and(&two.without(digest(99))), spent);
        assert_eq!(SpentTokens::parse("").to_string(), "");
    }
}
