//! `decide`, whatever was observed. The input's bytes are the numbers and choices of an observation, one after another;
//! where it ends, zeros follow.
//!
//! What `src/decide/tests.rs` holds of one instant and one policy is not said again here.

use std::time::Duration;

use tiktok_shop_operator::api::{REFRESH_BEFORE_MAX_PERCENT, Reason, RefreshBefore};
use tiktok_shop_operator::decide::{
    Because, ClaimFacts, ClaimStanding, CodeFacts, CodeFailure, CredentialsState, Decision, Failure, History, Observed,
    Policy, SecretState, TokenFacts, Waiting, decide,
};
use tiktok_shop_operator::tokens::{Digest, LATEST};

/// The bounds of `refreshBefore`, in seconds.
const REFRESH_BEFORE: std::ops::RangeInclusive<u64> = 300..=144 * 3_600;

/// Seconds between two refreshes at the least, however short a token's life.
const SHORTEST_PAUSE: i64 = 5;

/// The longest pause after a failure that may pass by itself, in seconds.
const LONGEST_PAUSE: i64 = 3_600;

/// The pause after a failure that a person must mend is no shorter than this, in seconds, whatever life is left.
const SHORTEST_SLOW_PAUSE: i64 = 60;

/// Whatever was observed, there is an answer; no sleep goes past what it is for.
pub fn check(input: &[u8]) {
    let mut bytes = Bytes(input);
    // Any time that the clock can tell and a status can store.
    let now = bytes.i64().rem_euclid(LATEST);
    let facts = facts(&mut bytes, now);
    let secret = match bytes.u8() % 8 {
        0 => SecretState::NotFound,
        1 => SecretState::Forbidden,
        2 => SecretState::Missing,
        _ => SecretState::Held(&facts),
    };
    let credentials = match bytes.u8() % 8 {
        0 => CredentialsState::Missing { told: bytes.flag() },
        _ => CredentialsState::Presumed,
    };
    let policy = Policy { refresh_before: bytes.refresh_before() };
    let failure = (!bytes.flag()).then(|| Failure {
        reason: Reason::ALL[usize::from(bytes.u8()) % Reason::ALL.len()],
        at: bytes.time(now),
        still_applies: bytes.flag(),
    });
    let observed = Observed {
        suspended: bytes.u8() == u8::MAX,
        refresh_before: bytes.flag().then(|| bytes.refresh_before()),
        request: bytes.flag().then_some("1"),
        credentials,
        secret,
        secret_in_use: bytes.u8() == u8::MAX,
        history: History { consecutive_failures: bytes.u32(), failure, code: None },
        seed: bytes.i64().cast_unsigned(),
        code: None,
        access_refused: false,
    };
    let observed = with_code(observed, &mut bytes, now);

    let decision = decide(&observed, &policy, now);
    assert_eq!(decide(&observed, &policy, now), decision, "asked again, it says something else");
    match decision {
        Decision::Refresh { because: Because::AuthorizationCode } => may_be_exchanged(&observed),
        Decision::Refresh { .. } => may_be_refreshed(&observed, now),
        Decision::Idle { until } => {
            assert!(until > now, "it waits for the past, and so without end");
            let facts = observed.tokens().expect("nothing is waited for without tokens");
            not_past_the_window(facts, observed.refresh_before.unwrap_or(policy.refresh_before), until);
        }
        Decision::Wait { until, because: Waiting::Backoff } => {
            assert!(until > now, "it waits for the past, and so without end");
            let then = decide(&observed, &policy, until);
            let has_slid = matches!(then, Decision::Wait { because: Waiting::Backoff, .. });
            // What lay ahead when the clock was set back counts once it has come, which it does once.
            // Of tokens and a code, each has its own pause.
            let two = observed.open_code().is_some() && observed.tokens().is_some();
            assert!(!has_slid || two || lies_ahead(&observed, now), "the pause slides: {then:?}");
            if observed.open_code().is_some() {
                assert!(until <= now.saturating_add(LONGEST_PAUSE), "a code's turn is slept through");
            } else {
                not_past_the_life(&observed, until);
            }
        }
        Decision::Wait { until, because: Waiting::Claim } => {
            let of_tokens = observed.tokens().and_then(|facts| facts.claim);
            let of_code = observed.open_code().and_then(|code| code.claim);
            let alive = |claim: ClaimFacts| claim.standing == ClaimStanding::Alive { until };
            assert!([of_tokens, of_code].into_iter().flatten().any(alive), "no such claim is waited for");
        }
        Decision::Blocked { recheck, .. } => {
            assert!(recheck.is_none_or(|at| at > now), "it is looked at again without end");
        }
    }
}

/// Has something happened that, by the clock, is still to come?
fn lies_ahead(observed: &Observed<'_>, now: i64) -> bool {
    let claim = observed.tokens().and_then(|facts| facts.claim).map(|claim| claim.at);
    let failure = observed.history.failure.map(|failure| failure.at);
    let code_claim = observed.code.and_then(|code| code.claim).map(|claim| claim.at);
    let code_failure = observed.history.code.map(|code| code.failure.at);
    [claim, failure, code_claim, code_failure].into_iter().flatten().any(|at| at > now)
}

/// What stands at the end of an input, so that older ones mean what they meant.
fn with_code<'a>(observed: Observed<'a>, bytes: &mut Bytes<'_>, now: i64) -> Observed<'a> {
    if !bytes.flag() {
        return observed;
    }
    let known_spent = bytes.flag();
    let facts = facts(bytes, now);
    let code = CodeFacts { known_spent, immutable: facts.immutable, claim: facts.claim };
    let failure = bytes.flag().then(|| Failure {
        reason: Reason::ALL[usize::from(bytes.u8()) % Reason::ALL.len()],
        at: bytes.time(now),
        still_applies: bytes.flag(),
    });
    let failures = bytes.u32();
    let failed = failure.map(|failure| CodeFailure { failure, failures });
    Observed { code: Some(code), history: History { code: failed, ..observed.history }, ..observed }
}

fn may_be_exchanged(observed: &Observed<'_>) {
    let code = observed.open_code().expect("without a code nothing can be exchanged");
    assert!(!observed.suspended && !observed.secret_in_use);
    assert!(observed.tokens().map_or(!code.immutable, |facts| !facts.immutable));
    assert_eq!(observed.credentials, CredentialsState::Presumed);
    let claim = code.claim.map(|claim| claim.standing);
    assert!(!matches!(claim, Some(ClaimStanding::Alive { .. })), "another's claim is passed over");
}

fn may_be_refreshed(observed: &Observed<'_>, now: i64) {
    let facts = observed.tokens().expect("without tokens nothing can be refreshed");
    assert!(!observed.suspended && !observed.secret_in_use && !facts.immutable);
    assert_eq!(observed.credentials, CredentialsState::Presumed);
    assert!(facts.refresh_expires_at.is_none_or(|at| at > now), "a dead refresh token is presented");
    assert!(!facts.known_spent || observed.is_requested(), "a spent refresh token is presented");
    let claim = facts.claim.map(|claim| claim.standing);
    assert!(!matches!(claim, Some(ClaimStanding::Alive { .. })), "another's claim is passed over");
}

/// The window of a living token, or a third of its life, is left to refresh it in.
fn not_past_the_window(facts: &TokenFacts, refresh_before: RefreshBefore, until: i64) {
    let life = |expires_at: i64| facts.born_at.map(|born_at| expires_at.saturating_sub(born_at));
    let after_birth = |pause: i64| facts.born_at.is_some_and(|born_at| until <= born_at.saturating_add(pause));
    match facts.access_expires_at {
        Some(expires_at) if life(expires_at).is_none_or(|life| life > 0) => {
            let life = life(expires_at);
            let refresh_before = refresh_before.seconds(life);
            let window = life.map_or(refresh_before, |life| refresh_before.min(life / 3));
            let in_time = until <= expires_at.saturating_sub(window);
            assert!(in_time || after_birth(SHORTEST_PAUSE), "until {until}, of {facts:?}");
        }
        _ => assert!(after_birth(LONGEST_PAUSE), "until {until}, of {facts:?}"),
    }
}

/// A pause after a failure that may pass by itself ends before the token does, unless that was nearer than a minute.
fn not_past_the_life(observed: &Observed<'_>, until: i64) {
    let facts = observed.tokens().expect("nothing is waited for without tokens");
    let settles = facts.claim.filter(|claim| claim.standing == ClaimStanding::Unknown);
    if settles.is_some_and(|claim| until <= claim.at.saturating_add(LONGEST_PAUSE)) {
        return;
    }
    let failure = observed.history.failure.expect("without a claim only a failure makes it wait");
    if failure.reason == Reason::RefreshTokenRejected {
        return;
    }
    let life_left = facts.access_expires_at.map_or(0, |at| at.saturating_sub(failure.at));
    let longest = if life_left > SHORTEST_SLOW_PAUSE { life_left } else { 2 * LONGEST_PAUSE };
    assert!(until <= failure.at.saturating_add(longest), "until {until}, of {facts:?} after {failure:?}");
}

fn facts(bytes: &mut Bytes<'_>, now: i64) -> TokenFacts {
    let standing = match bytes.u8() % 4 {
        0 => None,
        1 => Some(ClaimStanding::Alive { until: bytes.time(now) }),
        2 => Some(ClaimStanding::NeverCalled),
        _ => Some(ClaimStanding::Unknown),
    };
    TokenFacts {
        pair: Digest::from_bytes([bytes.u8(); 16]),
        access_expires_at: bytes.flag().then(|| bytes.time(now)),
        refresh_expires_at: bytes.flag().then(|| bytes.time(now)),
        born_at: bytes.flag().then(|| bytes.time(now)),
        immutable: bytes.u8() == u8::MAX,
        known_spent: bytes.u8() == u8::MAX,
        claim: standing.map(|standing| ClaimFacts {
            standing,
            presented: bytes.u32(),
            at: bytes.time(now),
            marked_unknown: bytes.flag(),
        }),
    }
}

/// Takes values off the start of an input.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        array[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        array
    }

    fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn flag(&mut self) -> bool {
        self.u8() & 1 == 1
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.array())
    }

    /// Near, within some decades, or anywhere.
    fn time(&mut self, now: i64) -> i64 {
        match self.u8() % 3 {
            0 => now.saturating_add(i64::from(i16::from_le_bytes(self.array()))),
            1 => now.saturating_add(i64::from(i32::from_le_bytes(self.array()))),
            _ => self.i64(),
        }
    }

    fn refresh_before(&mut self) -> RefreshBefore {
        let width = REFRESH_BEFORE.end() - REFRESH_BEFORE.start() + 1;
        if self.u8() == 0 {
            return RefreshBefore::Percent(1 + self.u8() % REFRESH_BEFORE_MAX_PERCENT);
        }
        RefreshBefore::Duration(Duration::from_secs(REFRESH_BEFORE.start() + u64::from(self.u32()) % width))
    }
}
