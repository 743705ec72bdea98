//! The note on a token Secret that TikTok refused the refresh token in it.

use serde::{Deserialize, Serialize};

use super::claim::LONGEST_TEXT;
use crate::tokens::Digest;

/// The value of the annotation `tiktokshop.dev/rejected-token`. No secret is in it.
///
/// The status says the same, but is written later: who is killed between the two leaves this, and the token is not
/// presented once more in the next life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rejection {
    /// Digest of the refresh token.
    pub token: String,
    /// When it was noted, RFC 3339, by the clock of the one who did.
    pub at: String,
    /// TikTok's error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    /// TikTok's name for the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Rejection {
    /// Reads a note that is about this refresh token; `None` where it is about another one, or can't be read.
    #[must_use]
    pub fn parse(text: &str, token: Digest) -> Option<Self> {
        if text.len() > LONGEST_TEXT {
            return None;
        }
        let rejection: Self = serde_json::from_str(text).ok()?;
        (Digest::parse(&rejection.token) == Some(token)).then_some(rejection)
    }

    /// The note as the annotation's value.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_back_where_it_is_about_the_token_and_not_elsewhere() {
        let token = Digest::from_bytes([7; 16]);
        let note = Rejection {
            token: token.to_string(),
            at: "2026-01-01T00:00:00Z".into(),
            code: Some(36_004_005),
            request_id: Some("r".into()),
        };
        assert_eq!(Rejection::parse(&note.to_text(), token), Some(note.clone()));
        assert_eq!(Rejection::parse(&note.to_text(), Digest::from_bytes([8; 16])), None);
        for text in ["", "{}", "true", &"x".repeat(5_000), &format!(r#"{{"token":"{token}"}}"#)] {
            assert_eq!(Rejection::parse(text, token), None, "{text}");
        }
    }
}
