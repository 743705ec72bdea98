//! What is to be done about one integration: pure functions of what was observed and the time.
//!
//! [`decide`] is an ordered list of named checks. The first that has something to say decides; the
//! order is the contract's.

mod backoff;
mod facts;
mod schedule;

pub use backoff::{Backoff, code_retry_delay, retry_delay, settle_delay};
pub use facts::{
    ClaimFacts, ClaimStanding, CodeFacts, CodeFailure, CredentialsState, Failure, History, Observed, Policy,
    SecretState, TokenFacts,
};
pub use schedule::{Window, window};

use crate::api::Reason;

/// Why a refresh is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// The access token is within its expiry window, or expired.
    Due,
    /// Nobody knows when the access token expires.
    ExpiryUnknown,
    /// An annotation asks for it.
    Requested,
    /// An earlier call's outcome is unknown: trying once more settles it.
    OutcomeUnknown,
    /// TikTok refuses the access token, though it has not expired.
    AccessTokenRejected,
    /// An authorization code stands in the Secret: it is exchanged for tokens, and nothing is refreshed.
    AuthorizationCode,
}

impl Because {
    /// For the log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::ExpiryUnknown => "expiry-unknown",
            Self::Requested => "requested",
            Self::OutcomeUnknown => "outcome-unknown",
            Self::AccessTokenRejected => "access-token-rejected",
            Self::AuthorizationCode => "authorization-code",
        }
    }
}

/// What is to be done. Times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing until then: the refresh is due at that time.
    Idle {
        /// When the expiry window opens.
        until: i64,
    },
    /// Refresh now.
    Refresh {
        /// Why.
        because: Because,
    },
    /// A refresh is wanted, but not before then.
    Wait {
        /// When it may be tried.
        until: i64,
        /// What holds it up.
        because: Waiting,
    },
    /// Only a change from outside helps; looked at again then, where nothing would tell of one.
    Blocked {
        /// The most important reason.
        reason: Reason,
        /// When to look again; `None` where a watch tells.
        recheck: Option<i64>,
    },
}

/// What holds a wanted refresh up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// The pause after a failure.
    Backoff,
    /// Another instance's claim, which may be at work.
    Claim,
}

/// Seconds after which a forbidden Secret or another state without a watch is looked at again.
const RECHECK_SECONDS: i64 = 60;

type Check = fn(&Observed<'_>, &Policy, i64) -> Option<Decision>;

/// The checks, in the order in which they are asked.
const CHECKS: &[(&str, Check)] = &[
    ("suspended integrations do nothing", suspended),
    ("the app Secret has credentials", credentials_there),
    ("the token Secret can be worked with", secret_usable),
    ("the token Secret belongs to this integration alone", secret_owned),
    ("an authorization code is exchanged, whatever the tokens beside it are", code_exchanged),
    ("the tokens are looked after", tokens_looked_after),
];

/// What is asked about tokens, in this order.
const CHECKS_OF_TOKENS: &[(&str, Check)] = &[
    ("a token known to be spent is not presented", not_reverted),
    ("the refresh token is alive", refresh_token_alive),
    ("another's claim is respected", claim_respected),
    ("a failure is followed by a pause", backed_off),
    ("a request is honoured", requested),
    ("an unknown outcome is settled", outcome_settled),
    ("a due token is refreshed", due),
];

/// Decides what is to be done about an integration at a time in Unix seconds.
#[must_use]
pub fn decide(observed: &Observed<'_>, policy: &Policy, now: i64) -> Decision {
    first(CHECKS, observed, policy, now)
        // `due` always answers where tokens are held, and `secret_usable` where they are not.
        .unwrap_or(Decision::Blocked { reason: Reason::TokensMissing, recheck: Some(now + RECHECK_SECONDS) })
}

fn first(checks: &[(&str, Check)], observed: &Observed<'_>, policy: &Policy, now: i64) -> Option<Decision> {
    checks.iter().find_map(|(_, check)| check(observed, policy, now))
}

const fn blocked(reason: Reason) -> Decision {
    Decision::Blocked { reason, recheck: None }
}

fn suspended(observed: &Observed<'_>, _: &Policy, _: i64) -> Option<Decision> {
    observed.suspended.then(|| blocked(Reason::Suspended))
}

fn credentials_there(observed: &Observed<'_>, _: &Policy, now: i64) -> Option<Decision> {
    match observed.credentials {
        CredentialsState::Presumed => None,
        CredentialsState::Missing { told } => Some(Decision::Blocked {
            reason: Reason::AppCredentialsNotFound,
            recheck: (!told).then_some(now + RECHECK_SECONDS),
        }),
    }
}

fn secret_usable(observed: &Observed<'_>, _: &Policy, now: i64) -> Option<Decision> {
    let reason = match observed.secret {
        SecretState::Held(facts) if facts.immutable => Reason::TokenSecretImmutable,
        SecretState::Held(_) => return None,
        SecretState::NotFound => Reason::TokenSecretNotFound,
        SecretState::Missing => match observed.code {
            None => Reason::TokensMissing,
            Some(code) if code.known_spent => Reason::AuthorizationCodeRejected,
            Some(code) if code.immutable => Reason::TokenSecretImmutable,
            // Tokens are to be had for it.
            Some(_) => return None,
        },
        SecretState::Forbidden => Reason::TokenSecretForbidden,
    };
    // Of a right that was granted meanwhile, no watch tells.
    let recheck = (reason == Reason::TokenSecretForbidden).then_some(now + RECHECK_SECONDS);
    Some(Decision::Blocked { reason, recheck })
}

fn secret_owned(observed: &Observed<'_>, _: &Policy, _: i64) -> Option<Decision> {
    observed.secret_in_use.then(|| blocked(Reason::TokenSecretInUse))
}

fn code_exchanged(observed: &Observed<'_>, policy: &Policy, now: i64) -> Option<Decision> {
    let code = observed.open_code()?;
    let settle = match code.claim {
        Some(ClaimFacts { standing: ClaimStanding::Alive { until }, .. }) => {
            return Some(Decision::Wait { until, because: Waiting::Claim });
        }
        Some(claim) if claim.standing == ClaimStanding::Unknown => {
            after(claim.at, settle_delay(claim.presented, claim.marked_unknown, None), now)
        }
        _ => i64::MIN,
    };
    let failed = observed.history.code.filter(|code| code.failure.still_applies).map_or(i64::MIN, |code| {
        after(code.failure.at, code_retry_delay(code.failure.reason, code.failures, observed.seed), now)
    });
    let until = settle.max(failed);
    if until <= now {
        return Some(Decision::Refresh { because: Because::AuthorizationCode });
    }
    // Meanwhile the tokens beside it are not left to expire, but nothing sleeps past the code's turn.
    Some(match tokens_looked_after(observed, policy, now) {
        Some(refresh @ Decision::Refresh { .. }) => refresh,
        Some(sooner @ (Decision::Idle { until: at } | Decision::Wait { until: at, .. })) if at <= until => sooner,
        _ => Decision::Wait { until, because: Waiting::Backoff },
    })
}

fn tokens_looked_after(observed: &Observed<'_>, policy: &Policy, now: i64) -> Option<Decision> {
    observed.tokens()?;
    first(CHECKS_OF_TOKENS, observed, policy, now)
}

fn not_reverted(observed: &Observed<'_>, _: &Policy, _: i64) -> Option<Decision> {
    let facts = observed.tokens()?;
    (facts.known_spent && !observed.is_requested()).then(|| blocked(Reason::TokenSecretReverted))
}

fn refresh_token_alive(observed: &Observed<'_>, _: &Policy, now: i64) -> Option<Decision> {
    let expires_at = observed.tokens()?.refresh_expires_at?;
    (expires_at <= now).then(|| blocked(Reason::RefreshTokenExpired))
}

fn claim_respected(observed: &Observed<'_>, _: &Policy, _: i64) -> Option<Decision> {
    match observed.tokens()?.claim?.standing {
        ClaimStanding::Alive { until } => Some(Decision::Wait { until, because: Waiting::Claim }),
        ClaimStanding::NeverCalled | ClaimStanding::Unknown => None,
    }
}

fn backed_off(observed: &Observed<'_>, policy: &Policy, now: i64) -> Option<Decision> {
    let facts = observed.tokens()?;
    // A claim without a mark is a crash's: it is settled at once, but not again and again.
    let settle = facts.claim.filter(|claim| claim.standing == ClaimStanding::Unknown).map_or(i64::MIN, |claim| {
        let life_left = facts.access_expires_at.map(|expires_at| expires_at.saturating_sub(claim.at));
        after(claim.at, settle_delay(claim.presented, claim.marked_unknown, life_left), now)
    });
    let failed = observed.history.failure.filter(|failure| failure.still_applies).map_or(i64::MIN, |failure| {
        let delay = retry_delay(&Backoff {
            reason: failure.reason,
            failures: observed.history.consecutive_failures,
            life_left: facts.access_expires_at.map(|expires_at| expires_at.saturating_sub(failure.at)),
            seed: observed.seed,
        });
        after(failure.at, delay, now)
    });
    let until = settle.max(failed);
    let wanted = observed.is_requested()
        || facts.claim.is_some_and(|claim| claim.standing == ClaimStanding::Unknown)
        || schedule::due_at(facts, observed, policy, now) <= now;
    (wanted && until > now).then_some(Decision::Wait { until, because: Waiting::Backoff })
}

/// The end of a pause that began at an instant. What happened "in the future" happened before the
/// clock was set back: nobody knows how long ago, so no pause is left.
pub(super) const fn after(began: i64, pause: i64, now: i64) -> i64 {
    if began > now { i64::MIN } else { began.saturating_add(pause) }
}

fn requested(observed: &Observed<'_>, _: &Policy, _: i64) -> Option<Decision> {
    observed.is_requested().then_some(Decision::Refresh { because: Because::Requested })
}

fn outcome_settled(observed: &Observed<'_>, _: &Policy, _: i64) -> Option<Decision> {
    let claim = observed.tokens()?.claim?;
    (claim.standing == ClaimStanding::Unknown).then_some(Decision::Refresh { because: Because::OutcomeUnknown })
}

fn due(observed: &Observed<'_>, policy: &Policy, now: i64) -> Option<Decision> {
    let facts = observed.tokens()?;
    let until = schedule::due_at(facts, observed, policy, now);
    Some(if until > now {
        Decision::Idle { until }
    } else if observed.access_refused {
        Decision::Refresh { because: Because::AccessTokenRejected }
    } else if facts.access_expires_at.is_none() {
        Decision::Refresh { because: Because::ExpiryUnknown }
    } else {
        Decision::Refresh { because: Because::Due }
    })
}

#[cfg(test)]
mod tests;
