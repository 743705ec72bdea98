//! The signed call that asks which shops an access token is good for: it spends nothing, so that whatever goes wrong may
//! simply be tried again later.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use chrono::{DateTime, Utc};
use http::StatusCode;
use reqwest::header::HeaderValue;
use reqwest::{Method, Request, Response};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::envelope::{Envelope, Secret, Text};
use super::failure::{causes, retry_after};
use super::request::push_encoded;
use super::scrub::{Scrubber, cut};
use super::{Body, ClientBuildError, Endpoint, OnRequest, connect_timeout, http_client, in_time, read_body};
use crate::hex;
use crate::tokens::SecretText;

/// Carries the access token.
const ACCESS_TOKEN_HEADER: &str = "x-tts-access-token";

/// The longest that a text of a shop gets, in bytes.
const TEXT_LIMIT: usize = 256;
/// The longest message, in bytes.
const MESSAGE_LIMIT: usize = 500;
/// The longest that somebody else's words get within a message, in bytes.
const QUOTE_LIMIT: usize = 300;

/// A shop that an access token is good for. Texts are of one line and at most 256 bytes.
#[derive(Debug)]
pub struct Shop {
    /// `TikTok`'s id of the shop.
    pub id: String,
    /// Its name.
    pub name: Option<String>,
    /// Where it sells, a country code such as `VN`.
    pub region: Option<String>,
    /// Its code, which sellers see.
    pub code: Option<String>,
    /// `CROSS_BORDER` or `LOCAL`, as SDKs have it.
    pub seller_type: Option<String>,
    /// What later calls name the shop by. It counts as a secret.
    pub cipher: Option<SecretText>,
}

/// Why a check told nothing of shops. No secret stands in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ShopsFailure {
    /// What to do about it.
    pub kind: ShopsFailureKind,
    /// One line of at most 500 bytes.
    pub message: String,
    /// `TikTok`'s error code, where it sent one.
    pub code: Option<i64>,
    /// `TikTok`'s name for this call.
    pub request_id: Option<String>,
    /// How long `TikTok` asks to wait before the next call; at most an hour.
    pub retry_after: Option<Duration>,
}

/// What a failed check means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShopsFailureKind {
    /// The access token is dead, whatever its expiry says.
    Refused,
    /// The access token works, and lacks the scope that this one call needs.
    MissingScope,
    /// Too many calls.
    RateLimited,
    /// Anything else: it says nothing about the token.
    Other,
}

/// Asks for shops at one endpoint.
pub struct ShopsClient {
    http: reqwest::Client,
    endpoint: Endpoint,
    connect_timeout: Duration,
    on_request: OnRequest,
}

impl ShopsClient {
    /// A client of this endpoint; all else is as with [`super::TokenClient::new`].
    ///
    /// # Errors
    /// Where no certificate could be trusted, `extra_roots_pem` is unusable, or `user_agent` is no header value.
    pub fn new(
        endpoint: Endpoint,
        extra_roots_pem: Option<&[u8]>,
        user_agent: &str,
        request_timeout: Duration,
    ) -> Result<Self, ClientBuildError> {
        let connect_timeout = connect_timeout(request_timeout);
        let http = http_client(&endpoint, extra_roots_pem, user_agent, connect_timeout)?;
        Ok(Self { http, endpoint, connect_timeout, on_request: Box::new(|_, _| {}) })
    }

    /// Has somebody told of each request that is sent.
    #[must_use]
    pub fn telling(self, on_request: OnRequest) -> Self {
        Self { on_request, ..self }
    }

    /// The shops that an access token is good for. All of the call ends at `deadline`; `now` is the wall time.
    ///
    /// # Errors
    /// Where `TikTok` named no shops; [`ShopsFailure::kind`] says what that means for the token.
    pub async fn shops(
        &self,
        app_key: &str,
        app_secret: &SecretText,
        access_token: &SecretText,
        deadline: Instant,
        now: DateTime<Utc>,
    ) -> Result<Vec<Shop>, ShopsFailure> {
        let scrubber = Scrubber::new(&[app_secret, access_token]);
        if deadline.saturating_duration_since(Instant::now()) <= self.connect_timeout {
            return Err(other("too little time was left for a call to TikTok".to_owned()));
        }
        let request = self.request(app_key, app_secret, access_token, now)?;
        let host = self.endpoint.authority();
        let failed = |error: reqwest::Error| {
            let causes = scrubber.quote(&causes(&error.without_url()), QUOTE_LIMIT);
            other(format!("{host} could not be asked ({causes})"))
        };
        let late = || other(format!("{host} did not answer in time"));
        let response = in_time(deadline, self.http.execute(request)).await;
        let mut response = match response {
            Some(Ok(response)) => response,
            Some(Err(error)) => {
                (self.on_request)(None, None);
                return Err(failed(error));
            }
            None => {
                (self.on_request)(None, None);
                return Err(late());
            }
        };
        let status = response.status();
        let body = match in_time(deadline, read_body(&mut response)).await {
            Some(Ok(Body::Whole(body))) => Ok(body),
            Some(Ok(Body::TooLarge)) => Err(other(format!("{host} answered with more than 1 MiB"))),
            Some(Err(error)) => Err(failed(error)),
            None => Err(late()),
        };
        let result = match body {
            Ok(body) => self.judge(&response, &body, &scrubber, now),
            Err(failure) if status == StatusCode::TOO_MANY_REQUESTS => {
                Err(ShopsFailure { kind: ShopsFailureKind::RateLimited, ..failure })
            }
            Err(failure) => Err(failure),
        };
        let code = match &result {
            Ok(_) => Some(0),
            Err(failure) => failure.code,
        };
        (self.on_request)(Some(status.as_u16()), code);
        result
    }

    fn request(
        &self,
        app_key: &str,
        app_secret: &SecretText,
        access_token: &SecretText,
        now: DateTime<Utc>,
    ) -> Result<Request, ShopsFailure> {
        let timestamp = now.timestamp().to_string();
        let parameters = BTreeMap::from([("app_key", app_key), ("timestamp", timestamp.as_str())]);
        let url = self.endpoint.url();
        let sign = sign(url.path(), &parameters, app_secret);
        let mut query = String::new();
        for (name, value) in parameters.into_iter().chain([("sign", sign.as_str())]) {
            let parted = if query.is_empty() { "" } else { "&" };
            query.push_str(parted);
            query.push_str(name);
            query.push('=');
            push_encoded(&mut query, value);
        }
        let mut token = HeaderValue::from_bytes(access_token.expose().as_bytes())
            .map_err(|_| other("the access token holds characters that an HTTP header cannot carry".to_owned()))?;
        token.set_sensitive(true);
        let mut request = Request::new(Method::GET, self.endpoint.with_query(&query));
        request.headers_mut().insert(ACCESS_TOKEN_HEADER, token);
        Ok(request)
    }

    fn judge(
        &self,
        response: &Response,
        body: &[u8],
        scrubber: &Scrubber,
        now: DateTime<Utc>,
    ) -> Result<Vec<Shop>, ShopsFailure> {
        let (host, status) = (self.endpoint.authority(), response.status());
        let envelope = Envelope::parse(body).filter(|envelope| !envelope.repeats(status));
        let retry_after = retry_after(response.headers(), now);
        let Some(envelope) = envelope else {
            let is_limited = status == StatusCode::TOO_MANY_REQUESTS;
            let kind = if is_limited { ShopsFailureKind::RateLimited } else { ShopsFailureKind::Other };
            let message = format!(
                "{host} answered HTTP {} with a body that is not in TikTok's form: check --shops-endpoint",
                status.as_u16()
            );
            return Err(ShopsFailure { kind, retry_after, ..other(message) });
        };
        if envelope.code == 0 && status.is_success() {
            return read_shops(body, scrubber)
                .ok_or_else(|| other(format!("{host} answered with success but without a list of shops")));
        }
        let said = envelope.quote(&envelope.message, scrubber, QUOTE_LIMIT);
        let quoted = format!("code {}: {said}", envelope.code);
        let kind = kind_of(status, envelope.code, &envelope.message);
        let mut message = match kind {
            ShopsFailureKind::Refused => format!("TikTok refused the access token ({quoted})"),
            ShopsFailureKind::MissingScope => format!(
                "TikTok accepted the access token, which lacks the scope seller.authorization.info ({quoted}): give it to the app in Partner Center and have the seller authorize the app again, or set spec.checkShops to false"
            ),
            ShopsFailureKind::RateLimited => format!("TikTok takes no more calls for now ({quoted})"),
            ShopsFailureKind::Other => format!("TikTok answered with an error ({quoted})"),
        };
        cut(&mut message, MESSAGE_LIMIT);
        let request_id = envelope.request_id(scrubber);
        Err(ShopsFailure { kind, message, code: Some(envelope.code), request_id, retry_after })
    }
}

impl fmt::Debug for ShopsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShopsClient").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn other(mut message: String) -> ShopsFailure {
    cut(&mut message, MESSAGE_LIMIT);
    ShopsFailure { kind: ShopsFailureKind::Other, message, code: None, request_id: None, retry_after: None }
}

/// What a code says of the token. 105005 is a missing scope, and no dead token: not every 105xxx is.
fn kind_of(status: StatusCode, code: i64, message: &str) -> ShopsFailureKind {
    match code {
        36_009_002 => ShopsFailureKind::RateLimited,
        _ if status == StatusCode::TOO_MANY_REQUESTS => ShopsFailureKind::RateLimited,
        // What fails inside may say anything.
        _ if status.is_server_error() => ShopsFailureKind::Other,
        105_005 => ShopsFailureKind::MissingScope,
        105_001 | 105_002 => ShopsFailureKind::Refused,
        _ => {
            let words = message.to_lowercase().replace('_', " ");
            let is_dead = ["expired", "invalid", "revoked"].iter().any(|word| words.contains(word));
            // The tables are incomplete: words may say it, too.
            if words.contains("access token") && is_dead { ShopsFailureKind::Refused } else { ShopsFailureKind::Other }
        }
    }
}

/// The signature of a `GET`, as `TikTok`'s SDKs make it: lower-case hex of the HMAC-SHA256, keyed by the app secret, of
/// [`string_to_sign`].
fn sign(path: &str, parameters: &BTreeMap<&str, &str>, app_secret: &SecretText) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, app_secret.expose().as_bytes());
    let tag = hmac::sign(&key, string_to_sign(path, parameters, app_secret).as_bytes());
    hex::text(tag.as_ref())
}

/// The path and all parameters, sorted by name and unencoded, between the app secret on both ends.
fn string_to_sign(path: &str, parameters: &BTreeMap<&str, &str>, app_secret: &SecretText) -> Zeroizing<String> {
    let secret = app_secret.expose();
    let signed = parameters.iter().filter(|(name, _)| !["sign", "access_token"].contains(name));
    let length: usize = parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
    // Room for all of it, so that the buffer never moves and leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(secret.len() * 2 + path.len() + length));
    text.push_str(secret);
    text.push_str(path);
    for (name, value) in signed {
        text.push_str(name);
        text.push_str(value);
    }
    text.push_str(secret);
    text
}

#[derive(serde::Deserialize)]
struct Wire {
    data: WireData,
}

#[derive(serde::Deserialize)]
struct WireData {
    /// Null where there is none.
    shops: Option<Vec<WireShop>>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct WireShop {
    id: Text,
    name: Text,
    region: Text,
    code: Text,
    seller_type: Text,
    cipher: Secret,
}

/// The shops of a success; one without an id is left out, as nothing could be said of it.
fn read_shops(body: &[u8], scrubber: &Scrubber) -> Option<Vec<Shop>> {
    // The parser's error is dropped: it may show a value.
    let shops = serde_json::from_slice::<Wire>(body).ok()?.data.shops.unwrap_or_default();
    let ciphers: Vec<&SecretText> = shops.iter().filter_map(|shop| shop.cipher.0.as_ref()).collect();
    let own = Scrubber::new(&ciphers);
    let quote = |text: Option<String>| {
        let text = own.quote(&scrubber.quote(&text?, usize::MAX), TEXT_LIMIT);
        Some(text).filter(|text| !text.is_empty())
    };
    let shops = shops.into_iter().filter_map(|shop| {
        Some(Shop {
            id: quote(shop.id.0)?,
            name: quote(shop.name.0),
            region: quote(shop.region.0),
            code: quote(shop.code.0),
            seller_type: quote(shop.seller_type.0),
            cipher: shop.cipher.0,
        })
    });
    Some(shops.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(value: &str) -> SecretText {
        SecretText::new(value.to_owned()).unwrap()
    }

    fn vector() -> BTreeMap<&'static str, &'static str> {
        BTreeMap::from([("app_key", "app-key"), ("timestamp", "1720000000")])
    }

    #[test]
    fn the_string_to_sign_is_that_of_the_vector() {
        let path = "/authorization/202309/shops";
        let text = string_to_sign(path, &vector(), &secret("app-secret"));
        assert_eq!(&*text, "app-secret/authorization/202309/shopsapp_keyapp-keytimestamp1720000000app-secret");
        let mut more = vector();
        more.extend([("sign", "x"), ("access_token", "y")]);
        assert_eq!(string_to_sign(path, &more, &secret("app-secret")), text, "what is not signed changes nothing");
    }

    #[test]
    fn the_signature_is_what_another_implementation_makes_of_the_vector() {
        // Made with `printf %s … | openssl dgst -sha256 -hmac app-secret`.
        let sign = sign("/authorization/202309/shops", &vector(), &secret("app-secret"));
        assert_eq!(sign, "6bedd461777debfdc421e2fa221c3de8a27d5c973eef33b07d56714d798c3374");
    }

    #[test]
    fn the_request_carries_the_token_in_a_header_alone_and_the_secret_nowhere() {
        let endpoint = Endpoint::parse("http://127.0.0.1:1/authorization/202309/shops").unwrap();
        let client = ShopsClient::new(endpoint, None, "test", Duration::from_secs(3)).unwrap();
        let now = DateTime::from_timestamp(1_720_000_000, 0).unwrap();
        let request = client.request("app-key", &secret("app-secret"), &secret("TTP_a"), now).unwrap();
        assert_eq!(
            request.url().query(),
            Some(
                "app_key=app-key&timestamp=1720000000&sign=6bedd461777debfdc421e2fa221c3de8a27d5c973eef33b07d56714d798c3374"
            )
        );
        assert_eq!(request.headers()[ACCESS_TOKEN_HEADER], "TTP_a");
        assert!(!format!("{request:?}").contains("TTP_a"), "a request that is shown shows the token");
    }

    #[test]
    fn a_code_is_a_dead_token_a_missing_scope_or_neither() {
        use ShopsFailureKind::{MissingScope, Other, RateLimited, Refused};
        for (status, code, message, kind) in [
            (200, 105_002, "access token expired", Refused),
            (200, 105_001, "access token is invalid", Refused),
            (401, 105_002, "", Refused),
            (200, 7, "The Access_Token is invalid", Refused),
            (200, 105_005, "access denied: invalid access token scope", MissingScope),
            (200, 105_004, "something else", Other),
            (200, 36_009_004, "Invalid parameter: timestamp", Other),
            (200, 36_009_002, "Too many requests", RateLimited),
            (429, 105_002, "", RateLimited),
            (503, 105_002, "access token expired", Other),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(kind_of(status, code, message), kind, "{status} {code} {message}");
        }
    }

    #[test]
    fn shops_are_read_whatever_the_type_of_a_field_and_no_text_carries_a_cipher() {
        let body = br#"{"code":0,"data":{"shops":[
            {"id":749,"name":"CIPHER-of-the-shop and\nmore","region":"VN","code":"C1","seller_type":"LOCAL","cipher":"CIPHER-of-the-shop"},
            {"name":"without an id"},
            {"id":"750","name":null,"cipher":7}]}}"#;
        let shops = read_shops(body, &Scrubber::new(&[&secret("the-app-secret")])).unwrap();
        assert_eq!(shops.iter().map(|shop| shop.id.as_str()).collect::<Vec<_>>(), ["749", "750"]);
        assert_eq!(shops[0].name.as_deref(), Some("[redacted] and more"));
        assert_eq!(shops[0].cipher.as_ref().unwrap().expose(), "CIPHER-of-the-shop");
        assert!(shops[1].name.is_none() && shops[1].cipher.is_none());
        assert!(!format!("{shops:?}").contains("CIPHER"), "Debug shows a cipher");
        assert!(read_shops(br#"{"code":0,"data":{"shops":null}}"#, &Scrubber::new(&[])).unwrap().is_empty());
        for none in [&br#"{"code":0}"#[..], br#"{"code":0,"data":{"shops":"x"}}"#] {
            assert!(read_shops(none, &Scrubber::new(&[])).is_none());
        }
    }
}
