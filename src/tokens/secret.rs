//! Secret in, Secret out: from the `data` of a Kubernetes Secret to parsed tokens, and back.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, de};
use zeroize::Zeroizing;

use super::{NotUtf8, SecretText};

/// Keys of an app Secret's data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AppKeyNames {
    /// Key of the app key.
    pub app_key: Box<str>,
    /// Key of the app secret.
    pub app_secret: Box<str>,
}

/// Keys of a token Secret's data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct TokenKeyNames {
    /// Key of the access token.
    pub access_token: Box<str>,
    /// Key of the access token's expiry.
    pub access_token_expire_in: Box<str>,
    /// Key of the refresh token.
    pub refresh_token: Box<str>,
    /// Key of the refresh token's expiry.
    pub refresh_token_expire_in: Box<str>,
    /// Key of an authorization code.
    pub auth_code: Box<str>,
}

impl TokenKeyNames {
    /// Is the code's key one of its own? The schema sees to it, but not for a spec that is older than that key.
    fn has_code_apart(&self) -> bool {
        ![&self.access_token, &self.access_token_expire_in, &self.refresh_token, &self.refresh_token_expire_in]
            .contains(&&self.auth_code)
    }
}

/// The `data` of a Secret, decoded; each value is wiped when dropped.
#[derive(Default)]
pub struct SecretData(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl SecretData {
    /// The value under a key, where there is one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(|value| value.as_slice())
    }

    /// The keys, which are no secret.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    fn text(&self, key: &str) -> Result<Option<SecretText>, NotUtf8> {
        self.get(key).map_or(Ok(None), SecretText::from_bytes)
    }
}

impl fmt::Debug for SecretData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for SecretData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = SecretData;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of base64 values")
            }

            fn visit_unit<E: de::Error>(self) -> Result<SecretData, E> {
                Ok(SecretData::default())
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<SecretData, A::Error> {
                let mut data = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    let value = map.next_value::<Base64Value>()?;
                    data.insert(key, value.0);
                }
                Ok(SecretData(data))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One value of `data`: decoded straight from the text it stands in, with no copy of it left.
struct Base64Value(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Base64Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Base64Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a base64 value")
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Base64Value, E> {
                // Decoding in one buffer of the final size: a growing one would leave copies behind.
                let mut bytes = Zeroizing::new(vec![0; base64::decoded_len_estimate(value.len())]);
                let length =
                    BASE64.decode_slice(value, &mut bytes).map_err(|_| E::custom("a value that is not base64"))?;
                bytes.truncate(length);
                Ok(Base64Value(bytes))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

/// Encodes a value for the `data` of a Secret.
#[must_use]
pub fn encode(value: &str) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(value.len().div_ceil(3) * 4));
    BASE64.encode_string(value, &mut text);
    text
}

/// The credentials of an app at TikTok Shop.
#[derive(Debug)]
pub struct AppCredentials {
    /// Names the app; no secret, but of no use in a log either.
    pub app_key: String,
    /// The app's secret.
    pub app_secret: SecretText,
}

impl AppCredentials {
    /// Reads the credentials from a Secret's data.
    ///
    /// # Errors
    /// Names the keys that are missing, empty or not UTF-8.
    pub fn parse(data: &SecretData, keys: &AppKeyNames) -> Result<Self, MissingKeys> {
        let mut missing = MissingKeys::default();
        let app_key = missing.take(data, &keys.app_key);
        let app_secret = missing.take(data, &keys.app_secret);
        match (app_key, app_secret) {
            (Some(app_key), Some(app_secret)) => Ok(Self { app_key: app_key.expose().to_owned(), app_secret }),
            _ => Err(missing),
        }
    }
}

/// Keys of a Secret under which no usable value stands, and why, in words for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MissingKeys(Vec<String>);

impl MissingKeys {
    fn take(&mut self, data: &SecretData, key: &str) -> Option<SecretText> {
        let why = match data.text(key) {
            Ok(Some(value)) => return Some(value),
            Ok(None) if data.get(key).is_some() => "is empty",
            Ok(None) => "is missing",
            Err(NotUtf8) => "is not UTF-8 text",
        };
        self.0.push(format!("{key} {why}"));
        None
    }
}

impl fmt::Display for MissingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// A pair of tokens with their expiries, in Unix seconds; `None` is an unknown one.
#[derive(Debug)]
pub struct TokenValues {
    /// The access token.
    pub access: SecretText,
    /// When the access token expires.
    pub access_expires_at: Option<i64>,
    /// The refresh token.
    pub refresh: SecretText,
    /// When the refresh token expires.
    pub refresh_expires_at: Option<i64>,
}

/// What stands in a token Secret.
#[derive(Debug)]
pub struct ParsedTokens {
    /// The access token, where there is one.
    pub access: Option<SecretText>,
    /// When the access token expires, in Unix seconds, where that is known.
    pub access_expires_at: Option<i64>,
    /// The refresh token, where there is one.
    pub refresh: Option<SecretText>,
    /// When the refresh token expires, in Unix seconds, where that is known.
    pub refresh_expires_at: Option<i64>,
    /// An authorization code, where there is one.
    pub code: Option<SecretText>,
    /// Keys without a usable token.
    pub missing: MissingKeys,
    /// Other values that are there and can't be read.
    pub problems: Vec<ValueProblem>,
}

/// A value that can't be used, by the key that it stands under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueProblem {
    /// An expiry that is no plausible instant; it counts as unknown.
    #[error("{0} is not a time in Unix seconds, so the expiry counts as unknown")]
    Expiry(String),
    /// An authorization code that is no text; it counts as absent.
    #[error("{0} is not UTF-8 text, so there is no authorization code in it")]
    Code(String),
}

impl ParsedTokens {
    /// Reads what a token Secret's data holds. Never fails: what is missing or wrong is said.
    #[must_use]
    pub fn parse(data: &SecretData, keys: &TokenKeyNames) -> Self {
        let mut missing = MissingKeys::default();
        let mut problems = Vec::new();
        Self {
            access: missing.take(data, &keys.access_token),
            access_expires_at: expiry(data, &keys.access_token_expire_in, &mut problems),
            refresh: missing.take(data, &keys.refresh_token),
            refresh_expires_at: expiry(data, &keys.refresh_token_expire_in, &mut problems),
            code: code(data, keys, &mut problems),
            missing,
            problems,
        }
    }

    /// The pair, where both tokens are there.
    #[must_use]
    pub fn into_values(self) -> Option<TokenValues> {
        Some(TokenValues {
            access: self.access?,
            access_expires_at: self.access_expires_at,
            refresh: self.refresh?,
            refresh_expires_at: self.refresh_expires_at,
        })
    }
}

/// The last second that RFC 3339 can write with a year of four digits: 9999-12-31T23:59:59Z.
pub const LATEST: i64 = 253_402_300_799;

/// Below this (2001), a number in a Secret is no instant at which a token could expire.
const EARLIEST: i64 = 1_000_000_000;

fn code(data: &SecretData, keys: &TokenKeyNames, problems: &mut Vec<ValueProblem>) -> Option<SecretText> {
    if !keys.has_code_apart() {
        return None;
    }
    data.text(&keys.auth_code).unwrap_or_else(|NotUtf8| {
        problems.push(ValueProblem::Code(keys.auth_code.to_string()));
        None
    })
}

fn expiry(data: &SecretData, key: &str, problems: &mut Vec<ValueProblem>) -> Option<i64> {
    let bytes = data.get(key)?;
    let expiry = std::str::from_utf8(bytes).ok().and_then(|text| read_stored_expiry(text.trim()));
    if expiry.is_none() {
        problems.push(ValueProblem::Expiry(key.to_owned()));
    }
    expiry
}

/// Reads an expiry as it stands in a Secret: Unix seconds, or milliseconds where it is far too
/// large for seconds. Zero, negative numbers and durations are no instant: a Secret does not say
/// from when a duration would count.
fn read_stored_expiry(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    let seconds = if number > 1_000_000_000_000 { number / 1000 } else { number };
    (seconds >= EARLIEST).then(|| seconds.min(LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(pairs: &[(&str, &[u8])]) -> SecretData {
        let json: serde_json::Map<_, _> =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), BASE64.encode(value).into())).collect();
        serde_json::from_str(&serde_json::Value::Object(json).to_string()).unwrap()
    }

    fn keys() -> TokenKeyNames {
        TokenKeyNames {
            access_token: "access_token".into(),
            access_token_expire_in: "access_token_expire_in".into(),
            refresh_token: "refresh_token".into(),
            refresh_token_expire_in: "refresh_token_expire_in".into(),
            auth_code: "auth_code".into(),
        }
    }

    #[test]
    fn an_authorization_code_is_read_beside_tokens_or_alone() {
        let code = |pairs: &[(&str, &[u8])]| {
            let parsed = ParsedTokens::parse(&data(pairs), &keys());
            (parsed.code.map(|code| code.expose().to_owned()), parsed.problems.len())
        };
        assert_eq!(code(&[("auth_code", b" ROW_c\n")]), (Some("ROW_c".to_owned()), 0));
        assert_eq!(code(&[("auth_code", b"ROW_c"), ("access_token", b"a")]), (Some("ROW_c".to_owned()), 0));
        assert_eq!(code(&[("auth_code", b" ")]), (None, 0));
        assert_eq!(code(&[("auth_code", b"\xff")]), (None, 1));
    }

    #[test]
    fn a_token_under_the_codes_key_is_no_code() {
        let keys = TokenKeyNames { access_token: "auth_code".into(), ..keys() };
        let parsed = ParsedTokens::parse(&data(&[("auth_code", b"TTP_a")]), &keys);
        assert!(parsed.code.is_none() && parsed.access.is_some());
    }

    #[test]
    fn the_data_of_a_tiktok_answer_is_read_as_it_was_pasted() {
        let parsed = ParsedTokens::parse(
            &data(&[
                ("access_token", b"TTP_a\n"),
                ("access_token_expire_in", b"1737000000"),
                ("refresh_token", b"TTP_r"),
                ("refresh_token_expire_in", b"4830000000"),
                ("seller_name", b"shop"),
            ]),
            &keys(),
        );
        let values = parsed.into_values().unwrap();
        assert_eq!(values.access.expose(), "TTP_a");
        assert_eq!(values.access_expires_at, Some(1_737_000_000));
        assert_eq!(values.refresh.expose(), "TTP_r");
        assert_eq!(values.refresh_expires_at, Some(4_830_000_000), "a year past 2106 does not fit 32 bits");
    }

    #[test]
    fn an_expiry_is_read_or_counts_as_unknown() {
        for (text, expected) in [
            ("1737000000", Some(1_737_000_000)),
            (" 1737000000\n", Some(1_737_000_000)),
            ("1737000000123", Some(1_737_000_000)),
            ("4828435200", Some(4_828_435_200)),
            ("9223372036854775807", Some(LATEST)),
            ("0", None),
            ("-1", None),
            ("604800", None),
            ("tomorrow", None),
            ("1.7e9", None),
            ("99999999999999999999", None),
            ("", None),
        ] {
            let parsed = ParsedTokens::parse(&data(&[("access_token_expire_in", text.as_bytes())]), &keys());
            assert_eq!(parsed.access_expires_at, expected, "{text:?}");
            assert_eq!(parsed.problems.len(), usize::from(expected.is_none()), "{text:?} is warned of if unknown");
        }
    }

    #[test]
    fn an_absent_expiry_is_unknown_without_a_warning() {
        assert!(ParsedTokens::parse(&data(&[]), &keys()).problems.is_empty());
    }

    #[test]
    fn what_is_missing_is_named_with_the_reason() {
        let parsed = ParsedTokens::parse(&data(&[("access_token", b" "), ("refresh_token", b"\xff")]), &keys());
        assert_eq!(parsed.missing.to_string(), "access_token is empty, refresh_token is not UTF-8 text");
    }

    #[test]
    fn no_value_is_in_an_error_for_bad_base64() {
        let error = serde_json::from_str::<SecretData>(r#"{"a":"hunter2!"}"#).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn debug_shows_keys_and_no_values() {
        assert_eq!(format!("{:?}", data(&[("k", b"value")])), r#"{"k"}"#);
    }

    #[test]
    fn a_value_is_encoded_as_the_api_server_expects() {
        assert_eq!(*encode("TTP_a?>"), BASE64.encode("TTP_a?>"));
    }
}
