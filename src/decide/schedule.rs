//! When a token is due: its expiry window, and the jitter that spreads a fleet.

use super::{Observed, Policy, TokenFacts, after};
use crate::api::RefreshBefore;

/// Seconds before a token whose expiry is unknown, though this operator wrote it, is due again.
const UNKNOWN_EXPIRY_PAUSE: i64 = 3_600;

/// Seconds between two refreshes at the least, however short a token's life.
const SHORTEST_PAUSE: i64 = 5;

/// An expiry window in effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// How long before the expiry it opens, jitter not counted, in seconds.
    pub length: i64,
    /// How much earlier still, in seconds: at most 5 % of the length.
    pub jitter: i64,
}

/// The window in effect for a token of this life (`None` where it is not known), in seconds.
///
/// It is `refreshBefore`, unless 1.05 × `refreshBefore` is more than 0.95 of the token's whole life:
/// then a third of that life, so that no token is due at its birth. The jitter is fixed by the seed,
/// not random: a restart changes nothing.
#[must_use]
pub fn window(refresh_before: RefreshBefore, life: Option<i64>, seed: u64) -> Window {
    let refresh_before = refresh_before.seconds(life);
    let length = match life {
        // 1.05 × w ≤ 0.95 × life, in whole numbers.
        Some(life) if refresh_before.saturating_mul(105) > life.saturating_mul(95) => (life / 3).max(0),
        _ => refresh_before,
    };
    Window { length, jitter: share(length / 20, seed) }
}

/// When the token is due, in Unix seconds; may be long past.
pub(super) fn due_at(facts: &TokenFacts, observed: &Observed<'_>, policy: &Policy, now: i64) -> i64 {
    let earliest = facts.born_at.map_or(i64::MIN, |born_at| after(born_at, SHORTEST_PAUSE, now));
    if observed.access_refused {
        return earliest;
    }
    match (facts.access_expires_at, facts.born_at) {
        // An answer without a usable expiry must not be asked for again at once.
        (None, Some(born_at)) => after(born_at, UNKNOWN_EXPIRY_PAUSE, now),
        (Some(expires_at), Some(born_at)) if expires_at <= born_at => after(born_at, UNKNOWN_EXPIRY_PAUSE, now),
        (None, None) => i64::MIN,
        (Some(expires_at), born_at) => {
            let refresh_before = observed.refresh_before.unwrap_or(policy.refresh_before);
            let window =
                window(refresh_before, born_at.map(|born_at| expires_at.saturating_sub(born_at)), facts.pair.seed());
            expires_at.saturating_sub(window.length).saturating_sub(window.jitter).max(earliest)
        }
    }
}

/// A share of `whole` between 0 and `whole`, fixed by the seed.
pub(super) fn share(whole: i64, seed: u64) -> i64 {
    let whole = u64::try_from(whole).unwrap_or(0);
    let spread = (u128::from(seed) * (u128::from(whole) + 1)) >> 64;
    i64::try_from(spread).unwrap_or(0)
}
