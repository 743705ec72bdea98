//! What was observed of one integration, parsed once, in plain types.

use serde::{Deserialize, Serialize};

use crate::api::{Reason, RefreshBefore};
use crate::tokens::Digest;

/// What the operator was told to do where an integration does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The expiry window of integrations that set none.
    pub refresh_before: RefreshBefore,
}

/// One integration as `decide` sees it.
#[derive(Debug, Clone)]
pub struct Observed<'a> {
    /// `spec.suspend`.
    pub suspended: bool,
    /// `spec.refreshBefore`, where it is set.
    pub refresh_before: Option<RefreshBefore>,
    /// The request annotation's value, where it is new: not yet handled, and not too long.
    pub request: Option<&'a str>,
    /// The app Secret.
    pub credentials: CredentialsState,
    /// The token Secret.
    pub secret: SecretState<'a>,
    /// An authorization code that stands in it.
    pub code: Option<CodeFacts>,
    /// Does an older integration name the same token Secret?
    pub secret_in_use: bool,
    /// Earlier tries.
    pub history: History,
    /// Fixed for each integration: from its UID.
    pub seed: u64,
    /// Does TikTok refuse the access token, whatever its expiry, and was it not refreshed for that yet?
    pub access_refused: bool,
}

impl<'a> Observed<'a> {
    /// The tokens, where the Secret holds both.
    #[must_use]
    pub const fn tokens(&self) -> Option<&'a TokenFacts> {
        match self.secret {
            SecretState::Held(facts) => Some(facts),
            _ => None,
        }
    }

    /// The authorization code, where one stands there that may still give tokens.
    #[must_use]
    pub fn open_code(&self) -> Option<CodeFacts> {
        self.code.filter(|code| !code.known_spent)
    }

    /// Does an annotation ask for a refresh that was not yet made?
    #[must_use]
    pub const fn is_requested(&self) -> bool {
        self.request.is_some()
    }
}

/// The app Secret, as far as it is known before a refresh reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsState {
    /// Nothing is known against it.
    Presumed,
    /// It is not there, not readable, or lacks a key.
    Missing {
        /// Will a watch tell of a change?
        told: bool,
    },
}

/// The token Secret.
#[derive(Debug, Clone, Copy)]
pub enum SecretState<'a> {
    /// There is none.
    NotFound,
    /// It may not be read or written.
    Forbidden,
    /// It lacks a token.
    Missing,
    /// It holds both tokens.
    Held(&'a TokenFacts),
}

/// What is known of a pair of tokens, without the tokens. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenFacts {
    /// Digest of the pair.
    pub pair: Digest,
    /// When the access token expires, where that is known.
    pub access_expires_at: Option<i64>,
    /// When the refresh token expires, where that is known.
    pub refresh_expires_at: Option<i64>,
    /// When this operator wrote this very pair; `None` for tokens put there by hand.
    pub born_at: Option<i64>,
    /// Is the Secret immutable?
    pub immutable: bool,
    /// Is the refresh token known to be spent: written back by something else?
    pub known_spent: bool,
    /// The claim that stands on the Secret.
    pub claim: Option<ClaimFacts>,
}

/// What is known of an authorization code, without the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeFacts {
    /// Is it known to be of no use: exchanged before, or refused?
    pub known_spent: bool,
    /// Is the Secret immutable?
    pub immutable: bool,
    /// What the claim on the Secret says of it.
    pub claim: Option<ClaimFacts>,
}

/// A claim that stands on the Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimFacts {
    /// How it is to be taken.
    pub standing: ClaimStanding,
    /// How often the refresh token, or the authorization code, that stands there has been presented.
    pub presented: u32,
    /// When it was made or marked.
    pub at: i64,
    /// Is it marked `outcome: unknown`?
    pub marked_unknown: bool,
}

/// How a claim is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClaimStanding {
    /// Another's, which may be at work until then.
    Alive {
        /// Unix seconds.
        until: i64,
    },
    /// It is known that no call was made on it.
    NeverCalled,
    /// A call was made, or may have been, and nobody knows with what outcome.
    Unknown,
}

/// Earlier tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Tries since the last success.
    pub consecutive_failures: u32,
    /// The last failure of the tokens, where no success came after it.
    pub failure: Option<Failure>,
    /// The last failure of the authorization code that stands there.
    pub code: Option<CodeFailure>,
}

/// The last failure of an authorization code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodeFailure {
    /// What failed.
    pub failure: Failure,
    /// How often in a row it failed, that time included.
    pub failures: u32,
}

/// The last failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What failed.
    pub reason: Reason,
    /// When, in Unix seconds.
    pub at: i64,
    /// Are tokens, spec, app credentials and request still the ones that failed? What has changed
    /// is taken up at once.
    pub still_applies: bool,
}
