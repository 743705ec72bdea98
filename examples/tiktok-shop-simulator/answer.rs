//! Answers, honest and otherwise, as bytes.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use chrono::Utc;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use serde_json::{Map, Value, json};

use super::connection::{Receipt, Wire};
use super::errors;
use super::faults::{Action, Lie, RetryAfter, TruncatedLength};
use super::settings::RetryAfterStyle;
use super::witness::Millis;

/// The piece size of a streamed answer.
const PIECE: usize = 64 * 1024;
/// What a padded answer begins with.
const PADDING_HEAD: &[u8] = b"{\"padding\":\"";

/// How the body leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    AtOnce,
    Drip { bytes: usize, every: Duration },
}

/// An answer, ready to be sent.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub http_status: u16,
    /// The code in the envelope, if it is one.
    pub code: Option<i64>,
    /// Whether all tokens of the new pair stand in it.
    pub tells_pair: bool,
    headers: Vec<(String, String)>,
    body: Bytes,
    // So many pieces of blanks in a first field, before the body proper: not kept in memory.
    padding_pieces: u64,
    claimed_length: Option<u64>,
    chunked: bool,
    pace: Pace,
    cut_at_half: bool,
}

impl Answer {
    fn new(http_status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self {
            http_status,
            code: None,
            tells_pair: false,
            headers: vec![("content-type".into(), content_type.into())],
            body: body.into(),
            padding_pieces: 0,
            claimed_length: None,
            chunked: false,
            pace: Pace::AtOnce,
            cut_at_half: false,
        }
    }

    /// Plain text, as the front of the real host answers.
    pub fn plain(http_status: u16, text: &'static str) -> Self {
        Self::new(http_status, "text/plain; charset=utf-8", text)
    }

    /// An envelope.
    pub fn envelope(http_status: u16, envelope: &Value) -> Self {
        let mut answer = Self::new(http_status, "application/json", envelope.to_string());
        answer.code = envelope["code"].as_i64();
        answer
    }

    /// An error as the API answers it: HTTP 200 and a code.
    pub fn error(code: i64, message: &str) -> Self {
        Self::envelope(200, &error(code, message))
    }

    /// HTTP 429 without an envelope.
    pub fn too_many_requests() -> Self {
        Self::plain(429, "Too Many Requests\n")
    }

    /// The answer with a `Retry-After` header.
    pub fn with_retry_after(mut self, seconds: u32, style: RetryAfterStyle, now: Millis) -> Self {
        let value = match style {
            RetryAfterStyle::Seconds => seconds.to_string(),
            RetryAfterStyle::HttpDate => chrono::DateTime::<Utc>::from_timestamp(now.seconds() + i64::from(seconds), 0)
                .unwrap_or(chrono::DateTime::<Utc>::MAX_UTC)
                .format("%a, %d %b %Y %H:%M:%S GMT")
                .to_string(),
        };
        self.headers.push(("retry-after".into(), value));
        self
    }

    /// The answer, knowing whether it holds these tokens: whatever a fault made of the honest one,
    /// the witness says whether a client can have learnt the pair from it.
    pub fn checked_for(mut self, tokens: &[String]) -> Self {
        let body = String::from_utf8_lossy(&self.body);
        self.tells_pair = !tokens.is_empty() && tokens.iter().all(|token| body.contains(token));
        self
    }

    /// The answer cut in the middle of its body.
    pub fn cut_at_half(mut self) -> Self {
        self.cut_at_half = true;
        self
    }

    /// The answer as a response that settles `receipt`.
    pub fn into_response(self, wire: Wire, receipt: Box<dyn Receipt>) -> Response {
        let padding = match self.padding_pieces {
            0 => 0,
            pieces => PADDING_HEAD.len() as u64 + pieces * PIECE as u64,
        };
        let whole = padding + self.body.len() as u64;
        let (body, claimed_length) = if self.cut_at_half {
            (self.body.slice(..self.body.len() / 2), Some(whole))
        } else {
            (self.body, self.claimed_length)
        };
        let sent = padding + body.len() as u64;
        let pieces: BoxStream<'static, Bytes> = match (self.padding_pieces, self.pace) {
            (0, Pace::AtOnce) => stream::iter([body]).boxed(),
            (0, Pace::Drip { bytes, every }) => drip(body, bytes, every),
            (times, _) => {
                let piece = Bytes::from(vec![b' '; PIECE]);
                stream::iter([Bytes::from_static(PADDING_HEAD)])
                    .chain(stream::iter(0..times).map(move |_| piece.clone()))
                    .chain(stream::iter([body]))
                    .boxed()
            }
        };
        // Of a body that is too short for its header the server would drop what it has not written
        // yet, so the connection is cut here instead.
        let cut_at_end = claimed_length.is_some_and(|claimed| claimed > sent);
        let tracked = Tracked { pieces, left: sent, cut_at_end, wire, receipt: Some(receipt) };
        let mut response = Response::new(Body::from_stream(tracked));
        // Faults with a status that HTTP does not know are refused when they are made.
        *response.status_mut() = StatusCode::from_u16(self.http_status).unwrap_or(StatusCode::IM_A_TEAPOT);
        let headers = response.headers_mut();
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
        if !self.chunked {
            let length = claimed_length.unwrap_or(sent);
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}

/// Makes the answer that a fault wants of the honest envelope. `old` is `data` as it was before
/// the refresh, where there was one.
///
/// Faults that are about time or about the connection do not change the answer.
pub fn bend(action: &Action, honest: Value, old: Option<Map<String, Value>>, now: Millis) -> Answer {
    match action {
        Action::Error { code, message, http_status, retry_after, .. } => {
            let message = message.as_deref().unwrap_or_else(|| errors::message(*code));
            let answer = Answer::envelope(*http_status, &error(*code, message));
            with_optional(answer, *retry_after, now)
        }
        Action::Raw { http_status, headers, body, content_length, retry_after, .. } => {
            let mut answer = Answer::new(*http_status, "text/plain; charset=utf-8", body.clone());
            if headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
                answer.headers.clear();
            }
            answer.headers.extend(headers.iter().map(|(n, v)| (n.clone(), v.clone())));
            answer.claimed_length = *content_length;
            with_optional(answer, *retry_after, now)
        }
        Action::Flood { mebibytes, content_length } => {
            let text = honest.to_string();
            // The padding stands inside a string at the head of the object: whatever part of it a
            // client reads, it must read on to learn anything.
            let rest = text.strip_prefix('{').unwrap_or(&text);
            let mut answer = Answer::new(200, "application/json", format!("\",{rest}"));
            answer.code = honest["code"].as_i64();
            answer.padding_pieces = u64::from(*mebibytes) * (1024 * 1024 / PIECE as u64);
            answer.chunked = !content_length;
            answer
        }
        Action::Truncated { content_length } => {
            let mut answer = Answer::envelope(200, &honest);
            match content_length {
                TruncatedLength::Sent => {
                    answer.body = answer.body.slice(..answer.body.len() / 2);
                    answer
                }
                TruncatedLength::Whole => answer.cut_at_half(),
            }
        }
        Action::Drip { bytes, every_ms } => {
            let mut answer = Answer::envelope(200, &honest);
            answer.pace = Pace::Drip { bytes: *bytes as usize, every: Duration::from_millis(*every_ms) };
            answer
        }
        Action::Lie { kind, .. } if honest["code"] == 0 => Answer::envelope(200, &lie(*kind, honest, old, now)),
        Action::Patch { merge, .. } => {
            let mut envelope = honest;
            apply_merge_patch(&mut envelope, merge);
            Answer::envelope(200, &envelope)
        }
        _ => Answer::envelope(200, &honest),
    }
}

fn with_optional(answer: Answer, retry_after: Option<RetryAfter>, now: Millis) -> Answer {
    match retry_after {
        Some(after) => answer.with_retry_after(after.seconds, after.style, now),
        None => answer,
    }
}

/// The envelope of a success.
pub fn success(data: &Map<String, Value>) -> Value {
    json!({"code": 0, "message": "success", "request_id": request_id(), "data": data})
}

/// The envelope of an error.
pub fn error(code: i64, message: &str) -> Value {
    json!({"code": code, "message": message, "request_id": request_id(), "data": null})
}

/// The tokens in an envelope, as they are written in JSON.
pub fn tokens_in(envelope: &Value) -> Vec<String> {
    ["access_token", "refresh_token"]
        .into_iter()
        .filter_map(|name| envelope["data"].get(name))
        .map(|token| token.to_string().trim_matches('"').to_owned())
        .collect()
}

/// As long and as dull as the real ones, and never the same.
fn request_id() -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    format!("{}SIM{number:013}", Utc::now().format("%Y%m%d%H%M%S"))
}

fn lie(kind: Lie, mut envelope: Value, old: Option<Map<String, Value>>, now: Millis) -> Value {
    const TOKENS: [&str; 2] = ["access_token", "refresh_token"];
    const EXPIRIES: [&str; 2] = ["access_token_expire_in", "refresh_token_expire_in"];
    match kind {
        Lie::NullData => {
            envelope["data"] = Value::Null;
            return envelope;
        }
        Lie::MissingData => {
            if let Some(fields) = envelope.as_object_mut() {
                fields.remove("data");
            }
            return envelope;
        }
        Lie::OldPair => {
            if let Some(old) = old {
                envelope["data"] = Value::Object(old);
            }
            return envelope;
        }
        _ => {}
    }
    let Some(data) = envelope["data"].as_object_mut() else {
        return envelope;
    };
    let each = |data: &mut Map<String, Value>, names: &[&str], change: &dyn Fn(&Value) -> Value| {
        for name in names {
            if let Some(value) = data.get_mut(*name) {
                *value = change(value);
            }
        }
    };
    let seconds = |value: &Value| value.as_i64().unwrap_or_default();
    match kind {
        Lie::EmptyTokens => each(data, &TOKENS, &|_| "".into()),
        Lie::MissingTokens => data.retain(|name, _| !TOKENS.contains(&name.as_str())),
        Lie::NullTokens => each(data, &TOKENS, &|_| Value::Null),
        Lie::MissingAccessToken => data.retain(|name, _| name != "access_token"),
        Lie::MissingRefreshToken => data.retain(|name, _| name != "refresh_token"),
        Lie::NumberTokens => each(data, &TOKENS, &|_| 12_345.into()),
        Lie::PaddedTokens => {
            each(data, &TOKENS, &|token| format!(" \t{}\r\n", token.as_str().unwrap_or_default()).into());
        }
        Lie::NullFields => data
            .iter_mut()
            .filter(|(name, _)| !TOKENS.contains(&name.as_str()))
            .for_each(|(_, value)| *value = Value::Null),
        Lie::MissingFields => data.retain(|name, _| TOKENS.contains(&name.as_str())),
        Lie::EmptyData => data.clear(),
        Lie::ExtraFields => {
            data.insert("a_new_field".into(), json!({"nested": [1, null, "x"]}));
            envelope["another_new_field"] = json!(true);
        }
        Lie::ExpiryMilliseconds => each(data, &EXPIRIES, &|v| seconds(v).saturating_mul(1000).into()),
        Lie::ExpiryDuration => each(data, &EXPIRIES, &|v| (seconds(v) - now.seconds()).into()),
        Lie::ExpiryNegative => each(data, &EXPIRIES, &|v| (-seconds(v)).into()),
        Lie::ExpiryZero => each(data, &EXPIRIES, &|_| 0.into()),
        Lie::ExpiryString => each(data, &EXPIRIES, &|v| seconds(v).to_string().into()),
        Lie::ExpiryJunk => each(data, &EXPIRIES, &|_| "next week".into()),
        Lie::ExpiryFraction => {
            each(data, &EXPIRIES, &|v| serde_json::from_str(&format!("{}.5", seconds(v))).unwrap_or_default());
        }
        Lie::ExpiryHuge => each(data, &EXPIRIES, &|_| u64::MAX.into()),
        Lie::ExpiryPast => each(data, &EXPIRIES, &|_| (now.seconds() - 3600).into()),
        Lie::ExpiryNull => each(data, &EXPIRIES, &|_| Value::Null),
        Lie::ExpiryMissing => data.retain(|name, _| !EXPIRIES.contains(&name.as_str())),
        Lie::OldPair | Lie::NullData | Lie::MissingData => {}
    }
    envelope
}

/// RFC 7386.
fn apply_merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(object) = target.as_object_mut() else {
        return;
    };
    for (name, value) in fields {
        if value.is_null() {
            object.remove(name);
        } else {
            apply_merge_patch(object.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

fn drip(body: Bytes, bytes: usize, every: Duration) -> BoxStream<'static, Bytes> {
    stream::unfold(body, move |mut rest| async move {
        if rest.is_empty() {
            return None;
        }
        tokio::time::sleep(every).await;
        let piece = rest.split_to(bytes.min(rest.len()));
        Some((piece, rest))
    })
    .boxed()
}

/// A body that knows when it has been handed over whole.
struct Tracked {
    pieces: BoxStream<'static, Bytes>,
    left: u64,
    cut_at_end: bool,
    wire: Wire,
    receipt: Option<Box<dyn Receipt>>,
}

impl Stream for Tracked {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match std::task::ready!(self.pieces.poll_next_unpin(context)) {
            Some(piece) => {
                self.left = self.left.saturating_sub(piece.len() as u64);
                if self.left == 0
                    && !self.cut_at_end
                    && let Some(receipt) = self.receipt.take()
                {
                    self.wire.settle_at_flush(receipt);
                }
                Poll::Ready(Some(Ok(piece)))
            }
            None if self.cut_at_end => {
                // The server flushes what it has while it waits for more, and that flush cuts the
                // connection: more never comes, so nobody needs to be woken.
                self.wire.cut_after_flush();
                Poll::Pending
            }
            None => Poll::Ready(None),
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            if self.left == 0 && !self.cut_at_end {
                // An empty body is never asked for.
                self.wire.settle_at_flush(receipt);
            } else {
                receipt.settle(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Millis = Millis(1_700_000_000_000);

    fn data(n: u8) -> Map<String, Value> {
        let data = json!({
            "access_token": format!("at{n}"), "access_token_expire_in": 1_700_000_600_u64,
            "refresh_token": format!("rt{n}"), "refresh_token_expire_in": 4_833_561_600_u64,
            "seller_name": "name",
        });
        data.as_object().expect("an object").clone()
    }

    fn bent(action: Value, honest: Value) -> Value {
        let action: Action = serde_json::from_value(action).expect("an action");
        let answer = bend(&action, honest, Some(data(1)), NOW);
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    #[test]
    fn each_lie_says_what_its_name_says() {
        let told = |kind: &str| bent(json!({"type": "lie", "kind": kind}), success(&data(2)));
        for (kind, field, value) in [
            ("old_pair", "/data/refresh_token", json!("rt1")),
            ("empty_tokens", "/data/access_token", json!("")),
            ("null_tokens", "/data/refresh_token", Value::Null),
            ("number_tokens", "/data/refresh_token", json!(12_345)),
            ("padded_tokens", "/data/refresh_token", json!(" \trt2\r\n")),
            ("null_fields", "/data/access_token_expire_in", Value::Null),
            ("null_data", "/data", Value::Null),
            ("empty_data", "/data", json!({})),
            ("expiry_milliseconds", "/data/access_token_expire_in", json!(1_700_000_600_000_u64)),
            ("expiry_duration", "/data/access_token_expire_in", json!(600)),
            ("expiry_negative", "/data/access_token_expire_in", json!(-1_700_000_600)),
            ("expiry_zero", "/data/refresh_token_expire_in", json!(0)),
            ("expiry_string", "/data/access_token_expire_in", json!("1700000600")),
            ("expiry_junk", "/data/access_token_expire_in", json!("next week")),
            ("expiry_fraction", "/data/access_token_expire_in", json!(1_700_000_600.5)),
            ("expiry_huge", "/data/access_token_expire_in", json!(u64::MAX)),
            ("expiry_past", "/data/access_token_expire_in", json!(1_699_996_400)),
            ("expiry_null", "/data/refresh_token_expire_in", Value::Null),
        ] {
            let envelope = told(kind);
            assert_eq!(envelope["code"], 0, "{kind}");
            assert_eq!(envelope.pointer(field), Some(&value), "{kind}");
        }
        for (kind, field) in [
            ("missing_tokens", "/data/access_token"),
            ("missing_access_token", "/data/access_token"),
            ("missing_refresh_token", "/data/refresh_token"),
            ("missing_fields", "/data/access_token_expire_in"),
            ("missing_data", "/data"),
            ("expiry_missing", "/data/refresh_token_expire_in"),
        ] {
            assert_eq!(told(kind).pointer(field), None, "{kind}");
        }
        assert!(told("extra_fields").get("another_new_field").is_some());
    }

    #[test]
    fn a_refusal_stays_a_refusal_under_a_lie() {
        let honest = error(errors::NO_AUTH_RECORD, "no related auth record");
        let action = json!({"type": "lie", "kind": "empty_tokens"});
        assert_eq!(bent(action, honest.clone()), honest);
    }

    #[test]
    fn a_merge_patch_sets_nests_and_removes() {
        let merge = json!({"type": "patch", "merge": {"code": 7, "data": {"refresh_token": null, "x": {"y": 1}}}});
        let envelope = bent(merge, success(&data(2)));
        assert_eq!(envelope["code"], 7);
        assert_eq!(envelope["data"]["access_token"], "at2");
        assert_eq!(envelope["data"]["x"]["y"], 1);
        assert!(envelope["data"].get("refresh_token").is_none());
    }

    #[test]
    fn retry_after_is_written_in_either_style() {
        for (style, wanted) in
            [(RetryAfterStyle::Seconds, "90"), (RetryAfterStyle::HttpDate, "Tue, 14 Nov 2023 22:14:50 GMT")]
        {
            let answer = Answer::too_many_requests().with_retry_after(90, style, NOW);
            assert!(answer.headers.contains(&("retry-after".into(), wanted.into())), "{:?}", answer.headers);
        }
    }
}
