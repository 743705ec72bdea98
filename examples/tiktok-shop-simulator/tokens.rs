//! Token values: never the same one twice, easy to find in a log, hard to guess.
//!
//! A value is a function of (this process's seed, kind, shop, serial number), so the simulator does
//! not have to keep millions of strings to recognise every one that it ever gave out.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};

/// What a value is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What API calls carry.
    Access,
    /// What buys the next pair.
    Refresh,
    /// What a seller's authorization gives, and what buys the first pair.
    Code,
    /// What later calls name a shop by.
    Cipher,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "TTP_sim_at_",
            Self::Refresh => "TTP_sim_rt_",
            Self::Code => "TTP_sim_ac_",
            Self::Cipher => "TTP_sim_sc_",
        }
    }
}

/// Makes the values of one simulator process.
pub struct Mint {
    // The standard library seeds this at random: two simulators never agree on a value.
    seed: RandomState,
}

impl Mint {
    /// A mint with a seed of its own.
    pub fn new() -> Self {
        Self { seed: RandomState::new() }
    }

    /// The value with that serial number: `TTP_sim_rt_<shop>_<n>_<random hex><tail>`.
    ///
    /// The tail holds each of `chars` followed by two hex digits: a client that forgets to encode
    /// `%`, `+` or `&` sends another token than it was given, and is refused.
    pub fn token(&self, kind: Kind, shop: &str, serial: u32, chars: &str) -> String {
        let random = self.seed.hash_one((kind, shop, serial));
        let prefix = kind.prefix();
        let tail = self.tail(&(kind, shop, serial, "tail"), chars);
        format!("{prefix}{shop}_{serial}_{random:016x}{tail}")
    }

    /// An app secret: as recognisable, and with the same awkward characters.
    pub fn app_secret(&self, app_key: &str, chars: &str) -> String {
        let random = self.seed.hash_one(("app secret", app_key));
        let tail = self.tail(&("app secret tail", app_key), chars);
        format!("sim_secret_{app_key}_{random:016x}{tail}")
    }

    fn tail(&self, of: &impl std::hash::Hash, chars: &str) -> String {
        let digits = self.seed.hash_one(of).to_be_bytes();
        let mut tail = String::new();
        for (special, digit) in chars.chars().zip(digits.iter().cycle()) {
            // Writing to a String cannot fail.
            let _ = write!(tail, "{special}{digit:02x}");
        }
        tail
    }
}

/// The shop id and serial number that a value of this kind claims. The caller must still compare it
/// with the real one.
pub fn claimed_by(kind: Kind, value: &str) -> Option<(&str, u32)> {
    let rest = value.strip_prefix(kind.prefix())?;
    // From the right: shop ids may contain underscores, the rest cannot.
    let mut parts = rest.rsplitn(3, '_');
    let _random = parts.next()?;
    let serial = parts.next()?.parse().ok()?;
    Some((parts.next()?, serial))
}

/// Whether these characters may stand in a token.
///
/// # Errors
/// Says what is wrong with them.
pub fn check_chars(chars: &str) -> Result<(), String> {
    // White space would be trimmed by whoever reads the token from a Secret, and the underscore
    // separates the parts of a value.
    match chars.chars().find(|c| !c.is_ascii_punctuation() || *c == '_') {
        None => Ok(()),
        Some(bad) => Err(format!(
            "token characters must be ASCII punctuation other than '_', for example '+/=&%', and {bad:?} is not"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_shop_and_serial_number_even_with_underscores_in_the_id() {
        let mint = Mint::new();
        for kind in [Kind::Refresh, Kind::Code] {
            let value = mint.token(kind, "my_shop_1", 42, "+/=&%");
            assert_eq!(claimed_by(kind, &value), Some(("my_shop_1", 42)), "{value}");
        }
    }

    #[test]
    fn values_differ_by_kind_shop_serial_number_and_process() {
        let mint = Mint::new();
        let values = [
            mint.token(Kind::Access, "a", 1, ""),
            mint.token(Kind::Refresh, "a", 1, ""),
            mint.token(Kind::Refresh, "b", 1, ""),
            mint.token(Kind::Refresh, "a", 2, ""),
            Mint::new().token(Kind::Refresh, "a", 1, ""),
        ];
        for (i, value) in values.iter().enumerate() {
            assert!(!values[i + 1..].contains(value), "{value} was made twice");
        }
    }

    #[test]
    fn every_special_character_asked_for_is_in_the_value() {
        let value = Mint::new().token(Kind::Access, "a", 1, "+/=&%");
        assert!("+/=&%".chars().all(|c| value.contains(c)), "{value}");
        assert!(check_chars("+ ").is_err() && check_chars("_").is_err());
        assert!(check_chars("+/=&%").is_ok());
    }

    #[test]
    fn what_is_not_a_refresh_token_claims_nothing() {
        for junk in ["", "TTP_sim_rt_", "TTP_sim_at_a_1_00", "TTP_sim_ac_a_1_00", "TTP_sim_rt_a_x_00"] {
            assert_eq!(claimed_by(Kind::Refresh, junk), None, "{junk}");
        }
    }
}
