//! TikTok's answers to a refresh and to an exchange, over a real socket through the whole client. The input is the HTTP
//! answer without the `HTTP/1.1 ` at its start. `{{secret}}` and `{{token}}` in it become the app secret and the refresh
//! token or code that the call sent; `{{secret:url}}`, `{{secret:json}}`, `{{secret:base64}}`, `{{secret:base64url}}`
//! (and the same of `token`) their other forms; `{{secret:basic}}` is the base64 of a text in which it stands, as in
//! HTTP's basic authentication.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD as BASE64_URL};
use chrono::DateTime;
use serde_json::Value;
use tiktok_shop_operator::tiktok::{Endpoint, Failure, Grant, RequestForm, Spent, TokenClient};
use tiktok_shop_operator::tokens::{LATEST, SecretText};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::Instant;

const APP_SECRET: &str = "7e0b1c/ 9d4f\"a2+6=c3&58%é01f2b7d";
/// The refresh token that is presented, and the code.
const CREDENTIAL: &str = "ROW_c2VjcmV0+LXJlZnJl/c2gtdG9r\\ZW4=?&Zm9y'dGhlIHNpbQ";

/// When the answers come, in Unix seconds.
const NOW: i64 = 1_720_000_000;

/// The longest message of a failure, in bytes.
const MESSAGE_LIMIT: usize = 500;
/// The longest request id, in bytes.
const REQUEST_ID_LIMIT: usize = 128;
/// The longest text about a seller, in bytes.
const SELLER_LIMIT: usize = 256;
/// The longest wait that an answer can ask for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_hours(1);

/// Shorter values of an answer would be found by accident.
const SHORTEST_FOUND: usize = 16;

const NO_MORE_CALLS: i64 = 36_009_002;

thread_local! {
    static WIRE: Wire = Wire::new();
}

/// No answer is too odd to be sorted, none shows a secret, and the tokens in it are taken as they stand there or not
/// at all.
pub fn check(input: &[u8]) {
    let mut answer = b"HTTP/1.1 ".to_vec();
    answer.extend_from_slice(&planted(input));
    for spends in [Spends::Token, Spends::Code] {
        let result = WIRE.with(|wire| wire.call(spends, &answer));
        let said = Said::read(&answer);
        match &result {
            Ok(grant) => {
                is_a_grant(grant);
                assert!(spends == Spends::Token || grant.refresh_token.is_some(), "no token is left that could stay");
                if let Some(said) = &said {
                    said.is_what_was_granted(grant);
                }
            }
            Err(failure) => {
                is_a_failure(failure);
                if let Some(said) = said {
                    said.granted_nothing(spends, failure);
                }
            }
        }
        shows_no_secret(&format!("{result:?}"));
    }
}

/// What a call presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spends {
    Token,
    Code,
}

fn is_a_grant(grant: &Grant) {
    for token in [Some(&grant.access_token), grant.refresh_token.as_ref()].into_iter().flatten() {
        let token = token.expose();
        assert!(!token.is_empty() && token.trim() == token, "no token: {token:?}");
    }
    for expiry in [grant.access_expires_at, grant.refresh_expires_at].into_iter().flatten() {
        assert!((1..=LATEST).contains(&expiry), "no date: {expiry}");
    }
    let seller = &grant.seller;
    for text in [&seller.open_id, &seller.name, &seller.base_region].into_iter().flatten() {
        super::assert_is_a_plain_line(text, SELLER_LIMIT);
        shows_no_secret(text);
    }
    if let Some(id) = &grant.request_id {
        super::assert_is_a_plain_line(id, REQUEST_ID_LIMIT);
        shows_no_secret(id);
    }
}

fn is_a_failure(failure: &Failure) {
    assert!(!failure.message.is_empty());
    super::assert_is_a_plain_line(&failure.message, MESSAGE_LIMIT);
    shows_no_secret(&failure.to_string());
    if let Some(id) = &failure.request_id {
        super::assert_is_a_plain_line(id, REQUEST_ID_LIMIT);
        shows_no_secret(id);
    }
    assert!(failure.retry_after.is_none_or(|wait| wait <= LONGEST_RETRY_AFTER));
    match failure.spent {
        Spent::Unspent => {
            let is_refusal = matches!(failure.http_status, Some(404 | 405 | 429 | 501));
            assert!(is_refusal || failure.code == Some(NO_MORE_CALLS), "who says that it is unspent? {failure:?}");
        }
        Spent::Answered => {
            assert!(failure.code.is_some_and(|code| code != 0), "nobody has answered: {failure:?}");
            assert!(failure.http_status.is_some_and(|status| status < 500), "a server that failed: {failure:?}");
        }
        Spent::Unknown => {}
    }
}

/// What another reader makes of an answer. It reads less than the client does, and what it reads it reads strictly.
struct Said {
    body: Value,
    /// Is no field there twice, under whatever spelling?
    is_unambiguous: bool,
}

impl Said {
    /// `None` where the framing decides what the body is, or it is no JSON object.
    fn read(answer: &[u8]) -> Option<Self> {
        let (head, body) = head_and_body(answer)?;
        let head = String::from_utf8_lossy(head).to_lowercase();
        let status: u16 = head.get(9..12)?.parse().ok()?;
        let is_framed = ["content-length", "transfer-encoding"].iter().any(|name| head.contains(name));
        if is_framed || !(200..=599).contains(&status) || matches!(status, 204 | 304) {
            return None;
        }
        let value: Value = serde_json::from_slice(body).ok().filter(Value::is_object)?;
        let text = String::from_utf8_lossy(body);
        let names =
            ["code", "message", "request_id", "data", "open_id", "seller_name", "seller_base_region", "user_type"];
        let tokens = ["access_token", "access_token_expire_in", "refresh_token", "refresh_token_expire_in"];
        let is_once = |name: &&str| text.matches(&format!("\"{name}\"")).count() <= 1;
        let is_unambiguous = !text.contains("\\u") && names.iter().chain(&tokens).all(is_once);
        Some(Self { body: value, is_unambiguous })
    }

    fn token(&self, name: &str) -> Option<&str> {
        self.body["data"][name].as_str().map(str::trim).filter(|token| !token.is_empty())
    }

    fn shows_no_token(&self, text: &str) {
        let tokens = ["access_token", "refresh_token"].into_iter().filter_map(|name| self.token(name));
        for token in tokens.filter(|token| token.len() >= SHORTEST_FOUND) {
            assert!(!text.contains(token), "a token of the answer is shown: {text}");
        }
    }

    fn is_what_was_granted(&self, grant: &Grant) {
        let code = &self.body["code"];
        let is_zero = match code {
            Value::String(text) => text.trim().parse() == Ok(0.0),
            code => code.as_f64() == Some(0.0),
        };
        assert!(is_zero, "tokens are taken from an answer of code {code}");
        assert_eq!(Some(grant.access_token.expose()), self.token("access_token"));
        assert_eq!(grant.refresh_token.as_ref().map(SecretText::expose), self.token("refresh_token"));
        self.shows_no_token(&format!("{grant:?}"));
    }

    fn granted_nothing(&self, spends: Spends, failure: &Failure) {
        self.shows_no_token(&format!("{failure:?}"));
        // A head that the HTTP client does not take has no status, and its body is never seen.
        if failure.http_status.is_none() || !self.is_unambiguous {
            return;
        }
        let is_success = self.body["code"].as_i64() == Some(0) && self.body["data"].is_object();
        // Of an exchange, both or none: the code can't stay in the place of a refresh token.
        let is_whole = spends == Spends::Token || self.token("refresh_token").is_some();
        let is_grant = is_success && is_whole && self.token("access_token").is_some();
        assert!(!is_grant, "a token is thrown away: {failure:?}");
        let code = self.body["code"].as_i64();
        assert!(code.is_none() || failure.code == code, "it said code {code:?}: {failure:?}");
    }
}

/// Parts an answer at its first empty line.
fn head_and_body(answer: &[u8]) -> Option<(&[u8], &[u8])> {
    let ends = answer.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    for end in ends {
        match &answer[end + 1..] {
            [b'\n', body @ ..] | [b'\r', b'\n', body @ ..] => return Some((&answer[..end], body)),
            _ => {}
        }
    }
    None
}

/// The input with the secrets that were sent in the places for them.
fn planted(input: &[u8]) -> Vec<u8> {
    let mut answer = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some((first, after)) = rest.split_first() {
        let found = rest.starts_with(b"{{").then(|| placeholders().find(|(name, _)| rest.starts_with(name.as_bytes())));
        if let Some((name, form)) = found.flatten() {
            answer.extend_from_slice(form.as_bytes());
            rest = &rest[name.len()..];
        } else {
            answer.push(*first);
            rest = after;
        }
    }
    answer
}

fn placeholders() -> impl Iterator<Item = (String, String)> {
    [("secret", APP_SECRET), ("token", CREDENTIAL)].into_iter().flat_map(|(name, value)| {
        let [url, json, base64, base64url] = forms(value);
        let basic = BASE64.encode(format!("app:{value}"));
        [
            ("", value.to_owned()),
            (":url", url),
            (":json", json),
            (":base64", base64),
            (":base64url", base64url),
            (":basic", basic),
        ]
        .map(|(form, text)| (format!("{{{{{name}{form}}}}}"), text))
    })
}

/// A value as it stands in a URL, in a JSON text and in both kinds of base64.
fn forms(value: &str) -> [String; 4] {
    let url = value.bytes().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "%{byte:02X}");
        text
    });
    let json = Value::from(value).to_string();
    [url, json[1..json.len() - 1].to_owned(), BASE64.encode(value), BASE64_URL.encode(value)]
}

fn shows_no_secret(text: &str) {
    for value in [APP_SECRET, CREDENTIAL] {
        let [url, json, base64, base64url] = forms(value);
        let base64 = base64.trim_end_matches('=').to_owned();
        // The first 6 characters also hold "app:", the last ones what may follow.
        let basic = BASE64.encode(format!("app:{value}"))[6..6 + value.len()].to_owned();
        for form in [value.to_owned(), url.to_lowercase(), url, json, base64, base64url, basic] {
            assert!(!text.contains(&form), "a secret is shown as {form}: {text}");
        }
    }
}

/// The client, and the host that it calls: one connection for each answer, closed after it.
struct Wire {
    runtime: Runtime,
    listener: TcpListener,
    refreshes: TokenClient,
    exchanges: TokenClient,
    app_secret: SecretText,
    credential: SecretText,
}

impl Wire {
    fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        let listener = runtime.block_on(TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))));
        let listener = listener.expect("a loopback port is free");
        let address = listener.local_addr().expect("what listens has an address");
        let client = |path: &str, form| {
            let endpoint = Endpoint::parse(&format!("http://{address}{path}")).expect("a loopback URL");
            TokenClient::new(endpoint, form, None, "fuzz", Duration::from_secs(30))
                .expect("a client of a loopback address needs nothing")
        };
        let secret = |value: &str| SecretText::new(value.to_owned()).expect("it is not empty");
        Self {
            refreshes: client("/api/v2/token/refresh", RequestForm::Json),
            exchanges: client("/api/v2/token/get", RequestForm::Query),
            runtime,
            listener,
            app_secret: secret(APP_SECRET),
            credential: secret(CREDENTIAL),
        }
    }

    fn call(&self, spends: Spends, answer: &[u8]) -> Result<Grant, Failure> {
        let now = DateTime::from_timestamp(NOW, 0).expect("a time of our days");
        self.runtime.block_on(async {
            // For an answer that never ends: the host closes each, so that none is waited for.
            let deadline = Instant::now() + Duration::from_mins(1);
            let (secret, credential) = (&self.app_secret, &self.credential);
            let call = async {
                match spends {
                    Spends::Token => self.refreshes.refresh("app", secret, credential, deadline, now).await,
                    Spends::Code => self.exchanges.exchange("app", secret, credential, deadline, now).await,
                }
            };
            tokio::select! {
                result = call => result,
                never = self.answer_all(answer) => match never {},
            }
        })
    }

    async fn answer_all(&self, answer: &[u8]) -> std::convert::Infallible {
        loop {
            let (stream, _) = self.listener.accept().await.expect("a connection can be taken");
            // The client may close first: what it has read is what counts.
            let _ = answer_one(stream, answer).await;
        }
    }
}

async fn answer_one(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    // All of the request: what is left unread when a connection closes takes the answer with it.
    let mut request = Vec::new();
    let last_word = |request: &[u8]| {
        // Only that of an exchange has no body.
        let last: &[u8] = if request.starts_with(b"GET ") { b"\r\n\r\n" } else { br#""grant_type":"refresh_token"}"# };
        request.ends_with(last)
    };
    while !last_word(&request) {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    stream.write_all(answer).await?;
    stream.shutdown().await
}
