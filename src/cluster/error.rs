//! Failures of API requests, sorted by what the sender may conclude.

use http::StatusCode;
use kube::core::Status;

/// Longest text taken over from the API server into a message, in bytes.
const LONGEST_TEXT: usize = 400;

/// Why an API request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// 409: the object is at another version than the one named, or has another UID. Nothing was written.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// 404. Nothing was written.
    #[error("not found")]
    NotFound,
    /// 401 or 403. Nothing was written.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The request was refused for what it asks: invalid, immutable, turned away by admission. Nothing was written.
    #[error("refused by the API server: {0}")]
    Refused(String),
    /// 429: the server is busy. Nothing was written.
    #[error("the API server is busy")]
    Busy,
    /// Everything else: no answer, half an answer, a 5xx. A write may have been applied or not.
    #[error("{0}")]
    Lost(String),
}

impl ApiError {
    /// A failure after which nobody knows whether a write was applied.
    #[must_use]
    pub fn lost(why: &str) -> Self {
        Self::Lost(cut(why))
    }

    pub(super) fn from_kube(error: &kube::Error) -> Self {
        // The chain names the cause (connection refused, certificate not trusted); it holds the
        // server's address and never a body.
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::lost(&format!("the API server is not reachable: {text}"))
    }

    pub(super) fn from_answer(status: StatusCode, body: &[u8]) -> Self {
        let parsed = serde_json::from_slice::<Status>(body).ok();
        let message = parsed.map_or_else(|| format!("HTTP {status}"), |status| cut(&status.message));
        match status.as_u16() {
            404 | 410 => Self::NotFound,
            409 => Self::Conflict,
            // The API server begins some of these texts with the very word.
            401 | 403 => Self::Forbidden(message.strip_prefix("forbidden: ").unwrap_or(&message).to_owned()),
            429 => Self::Busy,
            400..=499 => Self::Refused(message),
            _ => Self::lost(&format!("the API server answered {}: {message}", status.as_u16())),
        }
    }

    /// May the write have been applied although it failed?
    #[must_use]
    pub const fn may_be_applied(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Does it say nothing about the object, only about the server?
    #[must_use]
    pub const fn is_server_away(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::Busy)
    }
}

/// Words of this length are no names. An admission policy may quote the object that it refuses, and
/// with it a token that this process has not even read.
const LONGEST_WORD: usize = 40;

/// One line of bounded length, with nothing in it that could be a token.
fn cut(text: &str) -> String {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || "+/=_-".contains(c);
    let mut line = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c| !is_of_token(c)).unwrap_or(rest.len());
        if word > LONGEST_WORD {
            line.push_str("[redacted]");
        } else {
            line.push_str(&rest[..word]);
        }
        rest = &rest[word..];
        if word == 0 {
            line.push(if first.is_control() { ' ' } else { first });
            rest = &rest[first.len_utf8()..];
        }
    }
    line[..line.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_sorted_by_what_may_be_concluded() {
        for (status, expected) in [
            (404, ApiError::NotFound),
            (409, ApiError::Conflict),
            (403, ApiError::Forbidden("no".into())),
            (401, ApiError::Forbidden("no".into())),
            (422, ApiError::Refused("no".into())),
            (400, ApiError::Refused("no".into())),
            (429, ApiError::Busy),
        ] {
            let body =
                format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no","code":{status}}}"#);
            assert_eq!(ApiError::from_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes()), expected);
        }
    }

    #[test]
    fn after_a_server_error_a_write_may_have_been_applied() {
        for status in [500, 502, 503, 504] {
            assert!(ApiError::from_answer(StatusCode::from_u16(status).unwrap(), b"<html>").may_be_applied());
        }
    }

    #[test]
    fn a_token_that_a_policy_quotes_is_not_passed_on() {
        let token = "VFRQX3NpbV9hdF9kdWVfMl82ZTRlZTFmMTI2OGNmZGMyKzhhLzJiPTU4";
        let quoted = format!("denied: data.access_token={token} of secrets \"shop-1-tokens\" is refused");
        let ApiError::Lost(text) = ApiError::lost(&quoted) else { panic!() };
        assert!(!text.contains(&token[..20]), "{text}");
        assert!(text.contains("secrets \"shop-1-tokens\" is refused"), "{text}");
    }

    #[test]
    fn a_long_message_is_cut_and_stays_on_one_line() {
        let ApiError::Lost(text) = ApiError::lost(&"đ\n".repeat(1000)) else { panic!() };
        assert!(text.len() <= LONGEST_TEXT && !text.contains('\n'));
    }
}
