//! What the journal holds: plain types, none of which prints a token.

use std::fmt;

use crate::tokens::{Digest, SecretText, SpentTokens};

/// The integration that an entry belongs to. There is one entry an integration.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A refresh or an exchange that may be sent: recorded before the call, so that a claim without one was never sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// The integration.
    pub key: Key,
    /// Its UID: the key of the digests.
    pub integration_uid: String,
    /// Its team, if it has one.
    pub team: Option<String>,
    /// The token Secret's name.
    pub secret_name: String,
    /// The Secret's data keys: access token, its expiry, refresh token, its expiry.
    pub token_keys: [String; 4],
    /// The Secret's data key of an authorization code.
    pub auth_code_key: String,
    /// Is it the exchange of an authorization code? Else it is a refresh.
    pub exchange: bool,
    /// The claim's id.
    pub claim_id: String,
    /// The random id of the process that made the claim.
    pub process: String,
    /// Digest of the refresh token, or the authorization code, that is spent.
    pub from: Digest,
    /// Digest of the pair as it was before; of none, where there was none.
    pub access_from: Digest,
    /// What was spent before, as far as known.
    pub spent_before: SpentTokens,
    /// The refresh request that it carries.
    pub request: Option<String>,
    /// How often that has been presented, this time included.
    pub presented: u32,
    /// When it was recorded, in Unix seconds.
    pub at: i64,
}

/// Whose tokens an answer holds, as TikTok says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seller {
    /// `open_id`.
    pub open_id: Option<String>,
    /// `seller_name`.
    pub name: Option<String>,
    /// `seller_base_region`.
    pub base_region: Option<String>,
    /// `user_type`.
    pub user_type: Option<i64>,
}

/// What TikTok answered: perhaps the only copy of the only refresh token that still works.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The refresh that it answers.
    pub intent: Intent,
    /// The new access token.
    pub access_token: SecretText,
    /// Its expiry in Unix seconds, where known.
    pub access_expires_at: Option<i64>,
    /// The new refresh token; `None` where TikTok sent none and the old one stays.
    pub refresh_token: Option<SecretText>,
    /// Its expiry in Unix seconds, where known.
    pub refresh_expires_at: Option<i64>,
    /// When it came, in Unix seconds.
    pub answered_at: i64,
    /// Whose tokens they are.
    pub seller: Seller,
}

/// A stored answer, kept for a while in case something writes the spent pair back.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// The answer.
    pub answer: Answer,
    /// When it was stored in the Secret, in Unix seconds.
    pub since: i64,
    /// Was it already written back once?
    pub restored: bool,
}

/// What an earlier process left in the journal.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    /// An answer that may not be stored yet.
    Answer(Answer),
    /// A refresh that may have been sent and of which no answer is known.
    Intent(Intent),
    /// A stored answer still kept.
    Kept(Kept),
}

impl Entry {
    /// The integration that it belongs to.
    #[must_use]
    pub const fn key(&self) -> &Key {
        match self {
            Self::Answer(answer) | Self::Kept(Kept { answer, .. }) => &answer.intent.key,
            Self::Intent(intent) => &intent.key,
        }
    }
}
