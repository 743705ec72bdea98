//! The claim: an annotation on the token Secret that says a refresh, or an exchange, is under way.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::tokens::Digest;

/// The call starts at most this long after its claim was sent, else the claim is made anew.
pub const CLAIM_LIMIT: Duration = Duration::from_secs(5);

/// How much longer than the call a claim is respected: time to store the answer.
pub const MARGIN: Duration = Duration::from_secs(15);

/// A claim that can't be read is taken for a live one for this long.
pub const UNREADABLE_CLAIM_LIFE: Duration = Duration::from_mins(10);

/// How long a claim is respected by others at most, whatever it says.
const LONGEST_LIFE: Duration = Duration::from_hours(1);

/// Longest text read as a claim, in bytes.
pub(super) const LONGEST_TEXT: usize = 4_096;

/// What is known of the call that a claim was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClaimOutcome {
    /// Nobody knows whether it spent the token.
    Unknown,
}

/// The value of the annotation `tiktokshop.dev/refresh-attempt`. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Tells this claim from every other: random, with a count of the claims of one transaction.
    pub id: String,
    /// Pod UID and process id, parted by a slash.
    pub holder: String,
    /// Namespace and name of the integration, parted by a slash.
    pub integration: String,
    /// Its UID, which the digest is keyed by. Absent in claims of 0.1 before it was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration_uid: Option<String>,
    /// When it was made, by the clock of the one who made it; for people to read.
    pub at: String,
    /// For how long others respect it, counted on their own clocks from first seeing it.
    pub ttl_seconds: u64,
    /// Digest of the refresh token, or the authorization code, to be spent.
    pub from: String,
    /// The request annotation's value that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How often that has been presented, this time included.
    pub presented: u32,
    /// What is known of the call; absent while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ClaimOutcome>,
    /// Where a refresh token and an authorization code stand in one Secret, what is not known of the other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
}

/// The other credential in a Secret: it was presented, and nobody knows with what outcome. Its own claim gave way to one
/// for the first, and must not be forgotten with that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Beside {
    /// Its digest.
    pub from: String,
    /// How often it has been presented.
    pub presented: u32,
}

impl Beside {
    /// Is it about this credential?
    #[must_use]
    pub fn is_about(&self, credential: Digest) -> bool {
        Digest::parse(&self.from) == Some(credential)
    }
}

impl Claim {
    /// Reads a claim; `None` where it can't be read.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST_TEXT {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// The claim as the annotation's value.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// For how long it is respected.
    #[must_use]
    pub fn life(&self) -> Duration {
        Duration::from_secs(self.ttl_seconds).min(LONGEST_LIFE)
    }

    /// The process id in `holder`.
    #[must_use]
    pub fn process(&self) -> &str {
        self.holder.rsplit('/').next().unwrap_or_default()
    }

    /// The claim that stays when this one, of an attempt on `from`, is settled: what it says of the other credential,
    /// as an unknown outcome of its own. `at` is the time now.
    #[must_use]
    pub fn remainder(self, from: Digest, at: String) -> Option<Self> {
        if self.from_digest() != Some(from) {
            // It is that already.
            return Some(self);
        }
        let Beside { from, presented } = self.beside?;
        Some(Self { from, presented, at, outcome: Some(ClaimOutcome::Unknown), request: None, beside: None, ..self })
    }

    /// Digest of the refresh token, or the authorization code, to be spent.
    #[must_use]
    pub fn from_digest(&self) -> Option<Digest> {
        Digest::parse(&self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim {
            id: "a.1".into(),
            holder: "pod/process".into(),
            integration: "shops/shop-1".into(),
            integration_uid: Some("u".into()),
            at: "2026-01-01T00:00:00Z".into(),
            ttl_seconds: 45,
            from: "00".repeat(16),
            request: None,
            presented: 1,
            outcome: None,
            beside: None,
        }
    }

    #[test]
    fn a_claim_is_read_back_from_what_is_written() {
        assert_eq!(Claim::parse(&claim().to_text()), Some(claim()));
    }

    #[test]
    fn what_is_left_of_a_settled_claim_is_what_it_says_of_the_other_credential() {
        let (own, other) = (Digest::from_bytes([0; 16]), Digest::from_bytes([1; 16]));
        assert_eq!(claim().remainder(own, String::new()), None);
        let beside = Beside { from: other.to_string(), presented: 3 };
        assert!(beside.is_about(other) && !beside.is_about(own));
        let left = Claim { beside: Some(beside), ..claim() }.remainder(own, "now".into()).unwrap();
        assert_eq!((left.from_digest(), left.presented, left.outcome), (Some(other), 3, Some(ClaimOutcome::Unknown)));
        assert_eq!(left.clone().remainder(own, "later".into()), Some(left), "once it is left, it stays");
    }

    #[test]
    fn the_process_is_the_last_part_of_the_holder() {
        assert_eq!(claim().process(), "process");
    }

    #[test]
    fn a_claim_that_asks_for_ever_is_respected_for_an_hour() {
        assert_eq!(Claim { ttl_seconds: u64::MAX, ..claim() }.life(), Duration::from_hours(1));
    }

    #[test]
    fn what_is_no_claim_is_not_read_as_one() {
        for text in ["", "{}", "true", &"x".repeat(5_000)] {
            assert_eq!(Claim::parse(text), None);
        }
    }
}
