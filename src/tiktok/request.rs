//! The wire forms of a refresh, and that of an exchange.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Request};
use serde::Serializer as _;
use zeroize::Zeroizing;

use super::endpoint::Endpoint;
use crate::tokens::SecretText;

/// How a refresh is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RequestForm {
    /// JSON first, and the query where the endpoint does not serve it; what worked is remembered.
    #[default]
    Auto,
    /// `POST` with a JSON body.
    Json,
    /// `GET` with a query, as the maintained SDKs do (`EcomPHP/tiktokshop-php`, `go-tiktok-shop-api`).
    Query,
}

impl FromStr for RequestForm {
    type Err = UnknownRequestForm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "json" => Ok(Self::Json),
            "query" => Ok(Self::Query),
            _ => Err(UnknownRequestForm),
        }
    }
}

/// A form of request that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown form of request: write auto, json or query")]
pub struct UnknownRequestForm;

/// A form as it goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WireForm {
    Json,
    Query,
}

/// What buys tokens, each of them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Credential {
    RefreshToken,
    AuthorizationCode,
}

impl Credential {
    /// The parameter that carries it.
    const fn parameter(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::AuthorizationCode => "auth_code",
        }
    }

    /// `authorized_code` is TikTok's own spelling.
    const fn grant_type(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::AuthorizationCode => "authorized_code",
        }
    }

    /// The flag that says where it is presented.
    pub(super) const fn flag(self) -> &'static str {
        match self {
            Self::RefreshToken => "--token-endpoint",
            Self::AuthorizationCode => "--authorization-endpoint",
        }
    }
}

/// In words.
impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RefreshToken => "refresh token",
            Self::AuthorizationCode => "authorization code",
        })
    }
}

/// What a call sends. Borrowed, so that no copy outlives it.
pub(super) struct TokenRequest<'a> {
    pub(super) app_key: &'a str,
    pub(super) app_secret: &'a SecretText,
    pub(super) credential: Credential,
    /// The refresh token or the authorization code.
    pub(super) value: &'a SecretText,
}

impl TokenRequest<'_> {
    /// The request in one form.
    pub(super) fn request(&self, form: WireForm, endpoint: &Endpoint) -> Request {
        match form {
            WireForm::Json => {
                let mut request = Request::new(Method::POST, endpoint.url());
                request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                *request.body_mut() = Some(Body::from(Bytes::from_owner(self.json())));
                request
            }
            // The URL is copied within the HTTP client, which cannot wipe it: the price of this form.
            WireForm::Query => Request::new(Method::GET, endpoint.with_query(&self.query())),
        }
    }

    fn json(&self) -> Zeroizing<Vec<u8>> {
        // Room for every byte escaped, so that the buffer never moves and leaves a copy behind.
        let mut body = Zeroizing::new(Vec::with_capacity(self.length() * 6 + 128));
        serde_json::Serializer::new(&mut *body)
            .collect_map(self.parameters())
            .expect("a map of texts has a JSON form, and memory takes all writes");
        body
    }

    fn query(&self) -> Zeroizing<String> {
        let mut query = Zeroizing::new(String::with_capacity(self.length() * 3 + 128));
        for (place, (name, value)) in self.parameters().into_iter().enumerate() {
            if place > 0 {
                query.push('&');
            }
            query.push_str(name);
            query.push('=');
            push_encoded(&mut query, value);
        }
        query
    }

    fn parameters(&self) -> [(&'static str, &str); 4] {
        [
            ("app_key", self.app_key),
            ("app_secret", self.app_secret.expose()),
            (self.credential.parameter(), self.value.expose()),
            ("grant_type", self.credential.grant_type()),
        ]
    }

    fn length(&self) -> usize {
        self.app_key.len() + self.app_secret.expose().len() + self.value.expose().len()
    }
}

/// Adds a value to a query.
pub(super) fn push_encoded(query: &mut String, value: &str) {
    for byte in value.bytes() {
        // The unreserved characters of RFC 3986; all else is encoded, so that any server reads the same.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            write!(query, "%{byte:02X}").expect("a String takes all writes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn secret(value: &str) -> SecretText {
        SecretText::new(value.to_owned()).unwrap()
    }

    #[test]
    fn a_form_is_named_in_small_letters() {
        for (text, form) in [("auto", RequestForm::Auto), ("json", RequestForm::Json), ("query", RequestForm::Query)] {
            assert_eq!(text.parse(), Ok(form));
        }
        for wrong in ["", "JSON", "post"] {
            assert_eq!(wrong.parse::<RequestForm>(), Err(UnknownRequestForm), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn both_forms_carry_any_value_and_leave_no_copy_behind(
            key in ".{0,40}", app in "\\PC{1,40}", token in "\\PC{1,40}", is_code: bool,
        ) {
            let (Some(app), Some(token)) = (SecretText::new(app), SecretText::new(token)) else { return Ok(()) };
            let credential = if is_code { Credential::AuthorizationCode } else { Credential::RefreshToken };
            let refresh = TokenRequest { app_key: &key, app_secret: &app, credential, value: &token };
            let expected = [
                ("app_key", key.as_str()),
                ("app_secret", app.expose()),
                (if is_code { "auth_code" } else { "refresh_token" }, token.expose()),
                ("grant_type", if is_code { "authorized_code" } else { "refresh_token" }),
            ];

            let json = refresh.json();
            prop_assert!(json.len() <= refresh.length() * 6 + 128, "the buffer has grown");
            let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
            for (name, value) in expected {
                prop_assert_eq!(&json[name], value);
            }

            let endpoint = Endpoint::parse("https://host/refresh").unwrap();
            let query = refresh.query();
            prop_assert!(query.len() <= refresh.length() * 3 + 128, "the buffer has grown");
            let url = refresh.request(WireForm::Query, &endpoint).url().clone();
            prop_assert_eq!(url.query(), Some(query.as_str()));
            let pairs: Vec<_> = url.query_pairs().collect();
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_ref(), value.as_ref())).collect();
            prop_assert_eq!(pairs, expected);
        }
    }

    #[test]
    fn a_plus_in_a_token_does_not_become_a_space() {
        let (app, token) = (secret("s"), secret("a+b/c=d&e%f g"));
        let credential = Credential::RefreshToken;
        let refresh = TokenRequest { app_key: "k", app_secret: &app, credential, value: &token };
        assert_eq!(
            *refresh.query(),
            "app_key=k&app_secret=s&refresh_token=a%2Bb%2Fc%3Dd%26e%25f%20g&grant_type=refresh_token"
        );
    }
}
