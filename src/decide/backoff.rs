//! How long to wait after a failure: persisted, since it is computed from the status alone, and
//! aware of the expiry, so that it never sleeps past it.

use super::schedule::share;
use crate::api::Reason;

/// First pause after a failure that may pass by itself, in seconds.
const FIRST: i64 = 5;

/// Longest pause after such a failure.
const LONGEST: i64 = 3_600;

/// Longest pause once the token has expired: the shop stands still.
const LONGEST_EXPIRED: i64 = 300;

/// First and longest pause after a failure that a person must fix.
const FIRST_SLOW: i64 = 60;
const LONGEST_SLOW: i64 = 2 * 3_600;

/// Longest pause after a failure within the cluster: once that is mended, a shop should not wait.
const LONGEST_IN_CLUSTER: i64 = 60;

/// Pause before a rejected refresh token is tried once more, in case TikTok was wrong.
const REJECTED: i64 = 4 * 3_600;

/// Longest pause before an authorization code is presented again: it lives about 30 minutes.
const LONGEST_CODE: i64 = 300;

/// After so many failures in a row, 30 minutes are over, and the code is most likely dead: then it is left in peace.
const MOST_CODE_FAILURES: u32 = 12;

/// Shortest of the longest pauses before a token is presented once more that was presented again and again without an
/// answer, however little life is left.
const LONGEST_SETTLE_AT_LEAST: i64 = 60;

/// The pause takes at most this part of the life that the token has left.
const PART_OF_LIFE: i64 = 8;

/// What the pause depends on.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// What failed.
    pub reason: Reason,
    /// Failures in a row, this one included.
    pub failures: u32,
    /// Seconds the access token had left when it failed, where that is known.
    pub life_left: Option<i64>,
    /// Spreads the pauses of a fleet.
    pub seed: u64,
}

/// Seconds to wait after a failure.
#[must_use]
pub fn retry_delay(backoff: &Backoff) -> i64 {
    let doublings = backoff.failures.saturating_sub(1).min(20);
    let grown = |first: i64, longest: i64| (first << doublings).min(longest);
    let life_left = backoff.life_left.unwrap_or(0);
    let delay = match backoff.reason {
        Reason::RefreshTokenRejected => REJECTED,
        Reason::PersistFailed => grown(FIRST, LONGEST_IN_CLUSTER),
        Reason::AppCredentialsRejected | Reason::IpNotAllowed => {
            let delay = grown(FIRST_SLOW, LONGEST_SLOW);
            if life_left > 0 { delay.min((life_left / PART_OF_LIFE).max(FIRST_SLOW)) } else { delay }
        }
        _ if life_left > 0 => grown(FIRST, LONGEST).min((life_left / PART_OF_LIFE).max(FIRST)),
        _ => grown(FIRST, LONGEST_EXPIRED),
    };
    // Up to a tenth less, so that what failed together does not come back together.
    delay - share(delay / 10, backoff.seed.rotate_left(backoff.failures))
}

/// Seconds to wait after an exchange of an authorization code failed, so that it may be tried again.
#[must_use]
pub fn code_retry_delay(reason: Reason, failures: u32, seed: u64) -> i64 {
    let (first, longest) = match reason {
        Reason::PersistFailed | Reason::TokenSecretForbidden => (FIRST, LONGEST_IN_CLUSTER),
        _ if failures > MOST_CODE_FAILURES => (FIRST_SLOW, LONGEST),
        Reason::AppCredentialsRejected | Reason::IpNotAllowed => (FIRST_SLOW, LONGEST_CODE),
        _ => (FIRST, LONGEST_CODE),
    };
    let delay = (first << failures.saturating_sub(1).min(20)).min(longest);
    delay - share(delay / 10, seed.rotate_left(failures))
}

/// Seconds after a claim before its unknown outcome is settled by trying once more.
///
/// A crash is settled at once. What has been presented again and again without an answer is
/// presented ever more slowly, as each time may be the one that TikTok punishes, but not past the
/// token's expiry, where a minute is enough to keep to that. `life_left` is what the access token
/// had left at the claim, in seconds, where that is known.
#[must_use]
pub fn settle_delay(presented: u32, marked: bool, life_left: Option<i64>) -> i64 {
    let longest = match life_left {
        Some(left) if left > 0 => (left / PART_OF_LIFE).clamp(LONGEST_SETTLE_AT_LEAST, LONGEST),
        _ => LONGEST_EXPIRED,
    };
    match presented {
        0 | 1 if marked => FIRST,
        0 | 1 => i64::MIN,
        _ => (20_i64 << (presented - 2).min(20)).min(longest),
    }
}
