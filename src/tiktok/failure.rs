//! Failed calls, sorted by what to do about them.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use http::StatusCode;
use http::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::Url;

use super::envelope::Envelope;
use super::request::Credential;
use super::scrub::{Scrubber, cut};

/// The longest message, in bytes.
const MESSAGE_LIMIT: usize = 500;
/// The longest that somebody else's words get within a message, in bytes.
const QUOTE_LIMIT: usize = 300;
/// The longest wait that a `Retry-After` can ask for: it must not stop the refreshes of a whole token's life.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Why a call granted no tokens.
///
/// No secret stands in it: its texts are scrubbed of the values that were sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The category, for conditions, events and metrics.
    pub reason: FailureReason,
    /// Whether the refresh token, or the authorization code, may have been spent.
    pub spent: Spent,
    /// One line of at most 500 bytes that says what to do where a person must act. Of a new authorization, whoever
    /// knows the integration's name says how.
    pub message: String,
    /// `TikTok`'s error code, where it sent one.
    pub code: Option<i64>,
    /// `TikTok`'s name for this call, for its support; at most 128 bytes.
    pub request_id: Option<String>,
    /// The status of the HTTP answer, where there was one.
    pub http_status: Option<u16>,
    /// How long `TikTok` asks to wait before the next call; at most an hour.
    pub retry_after: Option<Duration>,
}

/// What a failed call means for the refresh token, or the authorization code, that it presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spent {
    /// `TikTok` answered with a definite error.
    Answered,
    /// It cannot have been spent: no connection came up, `TikTok` refused to take the call (429, 36009002), or nothing
    /// there serves it (404, 405 or 501 without an envelope).
    Unspent,
    /// Nobody knows.
    Unknown,
}

/// The category of a failure, by the names that conditions and metrics use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureReason {
    /// The refresh token is unknown, spent or withdrawn: the seller must authorize the app again.
    RefreshTokenRejected,
    /// The authorization code is unknown, used or expired: the seller must authorize the app again.
    AuthorizationCodeRejected,
    /// The app key or the app secret is wrong.
    AppCredentialsRejected,
    /// The cluster's egress address is not in the app's IP allow list.
    IpNotAllowed,
    /// Too many calls.
    RateLimited,
    /// The deadline passed.
    Timeout,
    /// No connection came up, or it broke.
    NetworkError,
    /// Any other error that `TikTok`, or a server before it, answered with.
    ApiError,
    /// An answer that is neither tokens nor an error in `TikTok`'s form.
    InvalidResponse,
}

impl FailureReason {
    /// The name, as it stands in conditions.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RefreshTokenRejected => "RefreshTokenRejected",
            Self::AuthorizationCodeRejected => "AuthorizationCodeRejected",
            Self::AppCredentialsRejected => "AppCredentialsRejected",
            Self::IpNotAllowed => "IpNotAllowed",
            Self::RateLimited => "RateLimited",
            Self::Timeout => "Timeout",
            Self::NetworkError => "NetworkError",
            Self::ApiError => "ApiError",
            Self::InvalidResponse => "InvalidResponse",
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Failure {
    /// A failure without an answer.
    pub(super) fn new(reason: FailureReason, spent: Spent, mut message: String) -> Self {
        cut(&mut message, MESSAGE_LIMIT);
        Self { reason, spent, message, code: None, request_id: None, http_status: None, retry_after: None }
    }

    /// A failure after an HTTP answer began.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { http_status: Some(status.as_u16()), ..self }
    }

    /// Too little time was left to begin a call.
    pub(super) fn too_late(credential: Credential) -> Self {
        let message = format!("too little time was left for a call to tiktok: the {credential} was not sent");
        Self::new(FailureReason::Timeout, Spent::Unspent, message)
    }

    /// The deadline passed after the request was possibly sent.
    pub(super) fn no_answer_in_time(credential: Credential, host: &str) -> Self {
        let message = format!("{host} did not answer in time: whether the {credential} was spent is not known");
        Self::new(FailureReason::Timeout, Spent::Unknown, message)
    }

    /// The HTTP client's error. The caller has taken the URL out of it.
    pub(super) fn transport(error: &reqwest::Error, credential: Credential, host: &str, scrubber: &Scrubber) -> Self {
        let causes = scrubber.quote(&causes(error), QUOTE_LIMIT - 100);
        // Builder errors come before anything is sent; connect errors before a connection is there to send over:
        // names, TCP, a proxy's tunnel, TLS.
        if error.is_builder() {
            let message = format!("the request could not be made ({causes}): the {credential} was not sent");
            return Self::new(FailureReason::NetworkError, Spent::Unspent, message);
        }
        let reason = if error.is_timeout() { FailureReason::Timeout } else { FailureReason::NetworkError };
        if !error.is_connect() {
            let message =
                format!("the connection to {host} broke ({causes}): whether the {credential} was spent is not known");
            return Self::new(reason, Spent::Unknown, message);
        }
        let hint = if error.is_timeout() {
            "check network policies and HTTPS_PROXY"
        } else if causes.contains("UnknownIssuer") {
            "a private certificate authority's roots are given with --ca-file"
        } else if causes.contains("CaUsedAsEndEntity") {
            // As 'openssl req -x509' makes them.
            "it shows the certificate of an authority as its own: give it one that the authority signed"
        } else if causes.contains("invalid peer certificate") {
            "mend the certificate that it shows, or see who answers in its place"
        } else {
            "check DNS, network policies and HTTPS_PROXY"
        };
        Self::new(reason, Spent::Unspent, format!("no connection to {host} came up ({causes}): {hint}"))
    }
}

/// An error's text and those of what caused it, each once.
pub(super) fn causes(error: &reqwest::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    // The outermost text, "error sending request", says nothing where there is another.
    let outermost: &dyn std::error::Error = error;
    let mut next = outermost.source().or(Some(outermost));
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|seen| seen.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

/// A body as it came, for messages about what is no envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Empty,
    Html,
    TooLarge,
    /// It broke off, or was late.
    Incomplete,
    Other,
}

impl Shape {
    pub(super) fn of(body: &[u8]) -> Self {
        match body.trim_ascii_start() {
            [] => Self::Empty,
            [b'<', ..] => Self::Html,
            _ => Self::Other,
        }
    }

    const fn describe(self) -> &'static str {
        match self {
            Self::Empty => "an empty body",
            Self::Html => "a web page",
            Self::TooLarge => "more than 1 MiB",
            Self::Incomplete => "an incomplete body",
            Self::Other => "a body that is not whole JSON in TikTok's form",
        }
    }
}

/// An HTTP answer that granted no tokens.
pub(super) struct Answer<'a> {
    /// What was presented.
    pub(super) credential: Credential,
    pub(super) status: StatusCode,
    pub(super) headers: &'a HeaderMap,
    pub(super) envelope: Option<&'a Envelope>,
    /// What the body is, where it is no envelope.
    pub(super) shape: Shape,
    /// The host that answered, for messages.
    pub(super) host: &'a str,
    /// When it answered.
    pub(super) now: DateTime<Utc>,
}

impl Answer<'_> {
    /// Whether it says that this form of request is not served here. A POST to the host that serves the query form
    /// is answered `404 page not found` (seen live).
    pub(super) fn is_unserved(&self) -> bool {
        let unserved = [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        // An incomplete body may have been an envelope.
        self.envelope.is_none() && self.shape != Shape::Incomplete && unserved.contains(&self.status)
    }

    /// 600 and more are none that HTTP knows: what says so is not to be believed where it says that a token is unspent
    /// (RFC 9110, section 15: a client takes them for 5xx).
    fn has_failed(&self) -> bool {
        self.status.is_server_error() || (self.envelope.is_some() && self.status.as_u16() >= 600)
    }

    /// Sorts it by what to do about it. The meaning of codes is that of the published tables, which are incomplete,
    /// and of answers seen live.
    pub(super) fn sort(&self, scrubber: &Scrubber) -> Failure {
        let said = self.envelope.map(|envelope| Said::new(envelope, scrubber));
        let quoted = said.as_ref().map_or_else(|| format!("HTTP {}", self.status.as_u16()), Said::quoted);
        let (reason, spent, message) = self.judge(said.as_ref(), &quoted, scrubber);
        let mut failure = Failure::new(reason, spent, message).with_status(self.status);
        failure.code = self.envelope.map(|envelope| envelope.code);
        failure.request_id = self.envelope.and_then(|envelope| envelope.request_id(scrubber));
        if reason == FailureReason::RateLimited || self.has_failed() {
            failure.retry_after = retry_after(self.headers, self.now);
        }
        failure
    }

    fn judge(&self, said: Option<&Said>, quoted: &str, scrubber: &Scrubber) -> (FailureReason, Spent, String) {
        use FailureReason::{ApiError, InvalidResponse, RateLimited};
        let (host, credential, flag) = (self.host, self.credential, self.credential.flag());
        if self.is_unserved() {
            let form = match credential {
                Credential::RefreshToken => ", and --token-request where it is not auto",
                Credential::AuthorizationCode => "",
            };
            let message = format!("{host} does not serve the request ({quoted}): check the address in {flag}{form}");
            return (ApiError, Spent::Unspent, message);
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            return (RateLimited, Spent::Unspent, too_many(quoted));
        }
        if self.has_failed() {
            let status = self.status.as_u16();
            let message = match said {
                Some(_) => format!("TikTok failed with HTTP {status} ({quoted})"),
                None => format!("{host} failed with HTTP {status} and {}", self.shape.describe()),
            };
            return (ApiError, Spent::Unknown, format!("{message}: whether the {credential} was spent is not known"));
        }
        let Some(said) = said else {
            let message = if self.status.is_redirection() {
                format!(
                    "{host} redirects to {}, and redirects are not followed: check {flag}",
                    redirect_target(self.headers, scrubber)
                )
            } else {
                let (status, shape) = (self.status.as_u16(), self.shape.describe());
                format!("{host} answered HTTP {status} with {shape}: check {flag} and what stands before it")
            };
            return (InvalidResponse, Spent::Unknown, message);
        };
        said.judge(credential, quoted)
    }
}

/// What an envelope says.
struct Said {
    code: i64,
    /// Fit to be shown.
    message: String,
    /// In small letters, words parted by single spaces.
    words: String,
}

impl Said {
    fn new(envelope: &Envelope, scrubber: &Scrubber) -> Self {
        let words = envelope.message.to_lowercase();
        let words = words.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        Self {
            code: envelope.code,
            words: words.collect::<Vec<_>>().join(" "),
            message: envelope.quote(&envelope.message, scrubber, QUOTE_LIMIT),
        }
    }

    fn quoted(&self) -> String {
        if self.message.is_empty() {
            format!("code {}", self.code)
        } else {
            format!("code {}: {}", self.code, self.message)
        }
    }

    fn judge(&self, credential: Credential, quoted: &str) -> (FailureReason, Spent, String) {
        use FailureReason::{
            ApiError, AppCredentialsRejected, AuthorizationCodeRejected, InvalidResponse, IpNotAllowed, RateLimited,
            RefreshTokenRejected,
        };
        match self.code {
            0 => {
                let without = match credential {
                    Credential::RefreshToken => "an access token",
                    Credential::AuthorizationCode => "both tokens",
                };
                let message = format!(
                    "TikTok answered with success but without {without}: whether the {credential} was spent is not known"
                );
                (InvalidResponse, Spent::Unknown, message)
            }
            36_009_033 => (IpNotAllowed, Spent::Answered, ip_not_allowed(quoted)),
            _ if self.speaks_of_the_allow_list() => (IpNotAllowed, Spent::Answered, ip_not_allowed(quoted)),
            36_004_005 | 36_004_004 | 105_001 => {
                let reason = match credential {
                    Credential::RefreshToken => RefreshTokenRejected,
                    Credential::AuthorizationCode => AuthorizationCodeRejected,
                };
                let message =
                    format!("TikTok rejected the {credential} ({quoted}): the seller must authorize the app again");
                (reason, Spent::Answered, message)
            }
            36_009_002 => (RateLimited, Spent::Unspent, too_many(quoted)),
            36_009_003 | 33_001_002 | 36_009_007 => {
                let message =
                    format!("TikTok failed inside ({quoted}): whether the {credential} was spent is not known");
                (ApiError, Spent::Unknown, message)
            }
            code if self.speaks_of_wrong_credentials()
                || (matches!(code, 36_009_004 | 98_001_004) && self.names_no_parameter()) =>
            {
                let message = format!(
                    "TikTok rejected the app credentials ({quoted}): correct the app key and app secret in the Secret that appCredentialsSecretRef names"
                );
                (AppCredentialsRejected, Spent::Answered, message)
            }
            _ => (ApiError, Spent::Answered, format!("TikTok answered with an error ({quoted})")),
        }
    }

    fn has_any(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.words.contains(phrase))
    }

    /// Seen live: "Access denied. Your IP address is not in the IP allow list".
    fn speaks_of_the_allow_list(&self) -> bool {
        self.has_any(&["ip allow", "ip whitelist", "ip white list"])
            || (self.has_any(&["ip address"]) && self.has_any(&["allow list", "allowlist", "whitelist", "white list"]))
    }

    /// The code for a wrong app secret is not known, so that only words can tell.
    fn speaks_of_wrong_credentials(&self) -> bool {
        self.has_any(&["app key", "appkey", "app secret", "appsecret", "client key", "clientkey", "client secret"])
            // What names both is about the token, and the app's other shops do not suffer from it.
            && !self.has_any(&["refresh token", "refreshtoken", "auth code", "authcode", "too many", "rate limit"])
    }

    /// Nothing but "invalid parameter" in one wording or another.
    fn names_no_parameter(&self) -> bool {
        self.words.split(' ').all(|word| {
            let fillers = [
                "",
                "a",
                "is",
                "are",
                "the",
                "your",
                "invalid",
                "bad",
                "wrong",
                "illegal",
                "incorrect",
                "error",
                "missing",
                "request",
                "param",
                "params",
                "parameter",
                "parameters",
            ];
            fillers.contains(&word)
        })
    }
}

fn ip_not_allowed(quoted: &str) -> String {
    format!(
        "TikTok does not take calls from this address ({quoted}): add the cluster's egress address to the app's IP allow list in Partner Center"
    )
}

fn too_many(quoted: &str) -> String {
    format!("TikTok takes no more calls for now ({quoted}): it is tried again later")
}

/// The host alone: the rest of a redirect may repeat a query that held secrets.
fn redirect_target(headers: &HeaderMap, scrubber: &Scrubber) -> String {
    let target = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    match target.map(Url::parse) {
        Some(Ok(url)) => scrubber.quote(url.host_str().unwrap_or("no host"), 100),
        Some(Err(_)) => "another path of its own".to_owned(),
        None => "nowhere".to_owned(),
    }
}

/// The wait that an answer asks for: seconds or an HTTP date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let time = DateTime::parse_from_rfc2822(value).ok()?;
        (time.to_utc() - now).to_std().unwrap_or_default()
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::FailureReason::*;
    use super::Spent::*;
    use super::*;
    use crate::tokens::SecretText;
    use http::HeaderValue;
    use proptest::prelude::*;

    const NOW: i64 = 1_720_000_000;

    fn sort(status: u16, headers: &[(&'static str, &str)], body: &str) -> Failure {
        sort_of(Credential::RefreshToken, status, headers, body)
    }

    fn sort_of(credential: Credential, status: u16, headers: &[(&'static str, &str)], body: &str) -> Failure {
        let status = StatusCode::from_u16(status).unwrap();
        let envelope = Envelope::parse(body.as_bytes()).filter(|envelope| !envelope.repeats(status));
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
        let answer = Answer {
            credential,
            status,
            headers: &headers.collect(),
            envelope: envelope.as_ref(),
            shape: Shape::of(body.as_bytes()),
            host: "auth.example",
            now: DateTime::from_timestamp(NOW, 0).unwrap(),
        };
        answer.sort(&Scrubber::new(&[&SecretText::new("TTP_0123456789".to_owned()).unwrap()]))
    }

    fn envelope(code: i64, message: &str) -> String {
        serde_json::json!({"code": code, "message": message, "request_id": "r1", "data": {}}).to_string()
    }

    #[test]
    fn an_error_in_tiktoks_form_is_sorted_by_code_and_words() {
        for (sentence, status, code, message, expected) in [
            ("a spent refresh token", 200, 36_004_005, "no related auth record", (RefreshTokenRejected, Answered)),
            ("an invalid auth code", 200, 36_004_004, "auth code invalid", (RefreshTokenRejected, Answered)),
            ("an expired authorization", 200, 105_001, "expired", (RefreshTokenRejected, Answered)),
            ("a spent token, with HTTP 400", 400, 36_004_005, "", (RefreshTokenRejected, Answered)),
            ("a spent token, with HTTP 404", 404, 36_004_005, "", (RefreshTokenRejected, Answered)),
            ("an address that is not allowed", 200, 36_009_033, "", (IpNotAllowed, Answered)),
            (
                "an address that is not allowed, as seen live",
                200,
                105_005,
                "Access denied. Your IP address is not in the IP allow list",
                (IpNotAllowed, Answered),
            ),
            ("in capitals", 403, 1, "NOT IN THE IP ALLOW LIST", (IpNotAllowed, Answered)),
            ("with a code of another meaning", 200, 36_004_005, "not in IP whitelist", (IpNotAllowed, Answered)),
            ("too many requests", 200, 36_009_002, "too many requests", (RateLimited, Unspent)),
            ("HTTP 429", 429, 36_009_002, "", (RateLimited, Unspent)),
            ("HTTP 429 with another code", 429, 1, "", (RateLimited, Unspent)),
            ("an internal error", 200, 36_009_003, "internal error", (ApiError, Unknown)),
            ("another internal error", 200, 33_001_002, "", (ApiError, Unknown)),
            ("a timeout inside TikTok", 200, 36_009_007, "timeout", (ApiError, Unknown)),
            ("HTTP 500 with a definite code", 500, 36_004_005, "", (ApiError, Unknown)),
            ("HTTP 503", 503, 36_009_002, "", (ApiError, Unknown)),
            ("a bad parameter, no more said", 200, 36_009_004, "", (AppCredentialsRejected, Answered)),
            ("in so many words", 200, 98_001_004, "Invalid parameters.", (AppCredentialsRejected, Answered)),
            ("a bad app key", 200, 36_009_004, "app_key is invalid", (AppCredentialsRejected, Answered)),
            ("a bad timestamp", 200, 36_009_004, "Invalid timestamp", (ApiError, Answered)),
            ("a bad grant type", 200, 98_001_004, "grant_type error", (ApiError, Answered)),
            ("a bad app secret, any code", 200, 4711, "App Secret mismatch", (AppCredentialsRejected, Answered)),
            ("a bad client key", 401, 4712, "client_key doesn't exist", (AppCredentialsRejected, Answered)),
            ("limits of an app key", 200, 4713, "too many requests, app_key denied", (ApiError, Answered)),
            ("a token of another app", 200, 4714, "refresh_token does not match app_key", (ApiError, Answered)),
            ("an unknown error", 200, 4715, "something new", (ApiError, Answered)),
            ("a negative code", 200, -1, "", (ApiError, Answered)),
            ("success without tokens", 200, 0, "success", (InvalidResponse, Unknown)),
            ("success without tokens, with HTTP 404", 404, 0, "", (InvalidResponse, Unknown)),
        ] {
            let failure = sort(status, &[], &envelope(code, message));
            assert_eq!((failure.reason, failure.spent), expected, "{sentence}: {failure}");
            assert_eq!((failure.code, failure.http_status), (Some(code), Some(status)), "{sentence}");
            assert_eq!(failure.request_id.as_deref(), Some("r1"), "{sentence}");
        }
    }

    #[test]
    fn what_is_said_of_an_exchange_is_said_of_its_code() {
        for (status, code, expected, words) in [
            (200, 36_004_004, (AuthorizationCodeRejected, Answered), "rejected the authorization code"),
            (200, 36_004_005, (AuthorizationCodeRejected, Answered), "rejected the authorization code"),
            (200, 105_001, (AuthorizationCodeRejected, Answered), "authorize the app again"),
            (200, 36_009_003, (ApiError, Unknown), "whether the authorization code was spent"),
            (500, 36_004_004, (ApiError, Unknown), "whether the authorization code was spent"),
            (200, 0, (InvalidResponse, Unknown), "without both tokens"),
            (200, 36_009_002, (RateLimited, Unspent), "tried again"),
        ] {
            let failure = sort_of(Credential::AuthorizationCode, status, &[], &envelope(code, "m"));
            assert_eq!((failure.reason, failure.spent), expected, "{code}: {failure}");
            assert!(failure.message.contains(words), "{failure}");
        }
        for status in [404, 302, 200] {
            let failure = sort_of(Credential::AuthorizationCode, status, &[], "<html>");
            assert!(failure.message.contains("--authorization-endpoint"), "{failure}");
            assert!(!failure.message.contains("--token"), "{failure}");
        }
    }

    #[test]
    fn an_answer_in_another_form_is_sorted_by_its_status() {
        for (sentence, status, expected) in [
            ("not found", 404, (ApiError, Unspent)),
            ("wrong method", 405, (ApiError, Unspent)),
            ("not implemented", 501, (ApiError, Unspent)),
            ("too many requests", 429, (RateLimited, Unspent)),
            ("an internal error", 500, (ApiError, Unknown)),
            ("a bad gateway", 502, (ApiError, Unknown)),
            ("a gateway's timeout", 504, (ApiError, Unknown)),
            ("a redirect", 302, (InvalidResponse, Unknown)),
            ("nothing new", 304, (InvalidResponse, Unknown)),
            ("a web page", 200, (InvalidResponse, Unknown)),
            ("no content", 204, (InvalidResponse, Unknown)),
            ("a bad request", 400, (InvalidResponse, Unknown)),
            ("forbidden", 403, (InvalidResponse, Unknown)),
            ("a status that nobody knows", 999, (InvalidResponse, Unknown)),
        ] {
            let of_a_gateway = format!(r#"{{"kind":"Status","message":"no","code":{status}}}"#);
            for body in ["", "<html>", "{}", "\"code\"", &of_a_gateway] {
                let failure = sort(status, &[], body);
                assert_eq!((failure.reason, failure.spent), expected, "{sentence}: {failure}");
                assert_eq!((failure.code, failure.http_status), (None, Some(status)), "{sentence}");
            }
        }
    }

    #[test]
    fn a_message_says_what_to_do_even_where_tiktok_says_a_lot() {
        let long = "app key invalid ".repeat(200);
        for (code, message, todo) in [
            (36_004_005, long.as_str(), "the seller must authorize the app again"),
            (36_009_033, &long, "IP allow list in Partner Center"),
            (1, &long, "Secret that appCredentialsSecretRef names"),
        ] {
            let failure = sort(200, &[], &envelope(code, message));
            assert!(failure.message.ends_with(todo), "{failure}");
            assert!(failure.message.len() <= MESSAGE_LIMIT);
        }
    }

    #[test]
    fn a_redirect_is_named_by_its_host_alone() {
        for (location, named) in [
            ("https://user:TTP_0123456789@login.example:8443/x?t=TTP_0123456789", "to login.example,"),
            ("/elsewhere?t=TTP_0123456789", "to another path of its own,"),
            ("mailto:a@b", "to no host,"),
        ] {
            let failure = sort(302, &[("location", location)], "");
            assert!(failure.message.contains(named), "{failure}");
        }
        assert!(sort(302, &[], "").message.contains("to nowhere,"));
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_a_date_and_is_at_most_an_hour() {
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("3601", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("Wed, 03 Jul 2024 09:56:40 GMT", Some(600)),
            ("Wed, 03 Jul 2024 09:00:00 GMT", Some(0)),
            ("Thu, 03 Jul 2025 09:47:20 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
        ] {
            for (status, body) in [(429, String::new()), (200, envelope(36_009_002, "")), (503, String::new())] {
                let found = sort(status, &[("retry-after", value)], &body).retry_after;
                assert_eq!(found, seconds.map(Duration::from_secs), "{value}");
            }
        }
        assert_eq!(sort(200, &[("retry-after", "5")], &envelope(1, "")).retry_after, None);
    }

    proptest! {
        #[test]
        fn a_message_is_one_short_line_without_what_was_sent(
            status in 200..600_u16, code: i64, before in ".{0,400}", after in ".{0,40}",
        ) {
            let failure = sort(status, &[], &envelope(code, &format!("{before}TTP_0123456789{after}")));
            prop_assert!(failure.message.len() <= MESSAGE_LIMIT);
            prop_assert!(!failure.message.contains("TTP_0123456789"));
            prop_assert!(!failure.message.chars().any(char::is_control));
        }
    }
}
