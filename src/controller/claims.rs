//! Whose a claim is, and whether it still counts.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::api::timestamp;
use crate::clock::Clock;
use crate::decide::{ClaimFacts, ClaimStanding};
use crate::journal::{self, Journal};
use crate::tokens::Digest;
use crate::transaction::{Claim, ClaimOutcome, Standing, UNREADABLE_CLAIM_LIFE};

/// Claims of others remembered at most; what is forgotten is respected anew, which only costs time.
const MOST_REMEMBERED: usize = 10_000;

/// What this process knows about claims: which are its own, which of an earlier life, and since
/// when it has seen those of others.
pub(super) struct Claims {
    /// Pod UID and process id, parted by a slash: what this process writes as `holder`.
    pub holder: String,
    process: String,
    journal: Option<Journal>,
    /// Claims of earlier lives for which a call was intended, by the journal.
    intended: Mutex<HashSet<String>>,
    /// Transactions of this process that are under way.
    active: Mutex<HashSet<String>>,
    /// When a claim of another was first seen, on this machine's own clock: clocks of nodes differ.
    first_seen: Mutex<HashMap<String, Duration>>,
}

impl Claims {
    pub(super) fn new(holder: String, process: String, journal: Option<Journal>, intended: HashSet<String>) -> Self {
        Self {
            holder,
            process,
            journal,
            intended: Mutex::new(intended),
            active: Mutex::default(),
            first_seen: Mutex::default(),
        }
    }

    /// A transaction begins.
    pub(super) fn begin(&self, attempt: &str) {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt.to_owned());
    }

    /// A transaction is over.
    pub(super) fn end(&self, attempt: &str) {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).remove(attempt);
    }

    fn is_active(&self, claim: &Claim) -> bool {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).contains(attempt_of(claim))
    }

    /// How a claim found on a Secret is to be taken; `None` where it says nothing about this refresh token, or this
    /// authorization code, that stands there.
    ///
    /// Digests are keyed by the integration's UID: whether a claim for one that was deleted and made anew is about this
    /// one can't be told, so it counts as being about it.
    pub(super) fn facts(&self, text: &str, uid: &str, credential: Digest, now: i64) -> Option<ClaimFacts> {
        let Some(claim) = Claim::parse(text) else {
            let standing = match self.remaining(text, UNREADABLE_CLAIM_LIFE) {
                Some(left) => ClaimStanding::Alive { until: now.saturating_add(whole_seconds(left)) },
                None => ClaimStanding::Unknown,
            };
            return Some(ClaimFacts { standing, presented: 1, at: now, marked_unknown: false });
        };
        let marked_unknown = claim.outcome == Some(ClaimOutcome::Unknown);
        let standing = if marked_unknown {
            ClaimStanding::Unknown
        } else if self.is_active(&claim) {
            ClaimStanding::Alive { until: now.saturating_add(whole_seconds(claim.life())) }
        } else if claim.process() == self.process {
            // A transaction of this process that is over and left its claim ended before the call.
            ClaimStanding::NeverCalled
        } else if self.is_earlier_life(claim.process()) {
            if self.was_intended(&claim) { ClaimStanding::Unknown } else { ClaimStanding::NeverCalled }
        } else {
            match self.remaining(&claim.id, claim.life()) {
                Some(left) => ClaimStanding::Alive { until: now.saturating_add(whole_seconds(left)) },
                None => ClaimStanding::Unknown,
            }
        };
        // It was a further try: what the tries before it did to the token is as unknown as it was.
        let (standing, presented, marked_unknown) = match standing {
            ClaimStanding::NeverCalled if claim.presented > 1 => (ClaimStanding::Unknown, claim.presented - 1, true),
            standing => (standing, claim.presented, marked_unknown),
        };
        let is_of_another_uid = claim.integration_uid.as_deref().is_some_and(|claimed_for| claimed_for != uid);
        let is_about_it = is_of_another_uid || claim.from_digest() == Some(credential);
        let at = timestamp::seconds(&claim.at).unwrap_or(now).min(now);
        if !is_about_it && !matches!(standing, ClaimStanding::Alive { .. }) {
            let beside = claim.beside.filter(|beside| beside.is_about(credential))?;
            let (standing, presented) = (ClaimStanding::Unknown, beside.presented);
            return Some(ClaimFacts { standing, presented, at, marked_unknown: true });
        }
        Some(ClaimFacts { standing, presented, at, marked_unknown })
    }

    /// How a claim stands to the transaction of this attempt.
    pub(super) fn standing(&self, text: Option<&str>, attempt: &str) -> Standing {
        let Some(text) = text else { return Standing::Free };
        let Some(claim) = Claim::parse(text) else {
            return if self.remaining(text, UNREADABLE_CLAIM_LIFE).is_some() {
                Standing::OthersAlive
            } else {
                Standing::OthersDead
            };
        };
        let marked_unknown = claim.outcome == Some(ClaimOutcome::Unknown);
        if attempt_of(&claim) == attempt {
            Standing::Own { marked_unknown }
        } else if self.is_active(&claim) {
            Standing::OthersAlive
        } else if marked_unknown
            || claim.process() == self.process
            || self.is_earlier_life(claim.process())
            || self.remaining(&claim.id, claim.life()).is_none()
        {
            Standing::OthersDead
        } else {
            Standing::OthersAlive
        }
    }

    fn is_earlier_life(&self, process: &str) -> bool {
        self.journal.as_ref().is_some_and(|journal| journal.is_earlier_life(process))
    }

    /// Was a call intended for a claim of an earlier life, as far as its journal can tell?
    fn was_intended(&self, claim: &Claim) -> bool {
        let intended = self.intended.lock().unwrap_or_else(PoisonError::into_inner).contains(&claim.id);
        intended || self.may_be_lost(claim).unwrap_or(false)
    }

    fn may_be_lost(&self, claim: &Claim) -> Option<bool> {
        let (namespace, name) = claim.integration.split_once('/')?;
        let key = journal::Key { namespace: namespace.to_owned(), name: name.to_owned() };
        // Without a time, nothing excludes it.
        let at = timestamp::seconds(&claim.at).unwrap_or(i64::MIN);
        Some(self.journal.as_ref()?.may_have_lost(&key, at))
    }

    /// How much of its life a claim of another has left, counted from first seeing it.
    fn remaining(&self, id: &str, life: Duration) -> Option<Duration> {
        let now = Clock::boottime();
        let mut first_seen = self.first_seen.lock().unwrap_or_else(PoisonError::into_inner);
        if first_seen.len() >= MOST_REMEMBERED && !first_seen.contains_key(id) {
            let oldest_kept = now.saturating_sub(Duration::from_hours(1));
            first_seen.retain(|_, seen| *seen > oldest_kept);
            if first_seen.len() >= MOST_REMEMBERED {
                first_seen.clear();
            }
        }
        let seen = *first_seen.entry(id.to_owned()).or_insert(now);
        (seen + life).checked_sub(now).filter(|left| !left.is_zero())
    }
}

/// The transaction that a claim belongs to.
fn attempt_of(claim: &Claim) -> &str {
    claim.id.split('.').next().unwrap_or_default()
}

/// Rounded up: a claim must not be taken for dead a moment too early.
fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX - 1) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transaction::Beside;

    const TOKEN: Digest = Digest::from_bytes([7; 16]);
    const UID: &str = "the-integration";

    fn claims() -> Claims {
        Claims::new("pod/me".into(), "me".into(), None, HashSet::new())
    }

    fn claim(holder: &str) -> Claim {
        Claim {
            id: "attempt.1".into(),
            holder: holder.into(),
            integration: "shops/a".into(),
            integration_uid: Some(UID.into()),
            at: "2026-01-01T00:00:00Z".into(),
            ttl_seconds: 45,
            from: TOKEN.to_string(),
            request: None,
            presented: 1,
            outcome: None,
            beside: None,
        }
    }

    fn standing(claims: &Claims, claim: &Claim) -> Option<ClaimStanding> {
        claims.facts(&claim.to_text(), UID, TOKEN, 1_000).map(|facts| facts.standing)
    }

    #[test]
    fn anothers_claim_is_alive_for_its_own_time_whatever_its_clock_says() {
        assert!(
            matches!(standing(&claims(), &claim("pod/other")), Some(ClaimStanding::Alive { until }) if (1_045..=1_046).contains(&until))
        );
        let over = Claim { ttl_seconds: 0, ..claim("pod/other") };
        assert_eq!(standing(&claims(), &over), Some(ClaimStanding::Unknown), "past its time, nobody knows");
    }

    #[test]
    fn ones_own_claim_that_led_to_no_call_is_no_obstacle() {
        assert_eq!(standing(&claims(), &claim("pod/me")), Some(ClaimStanding::NeverCalled));
    }

    #[test]
    fn a_further_try_that_led_to_no_call_leaves_the_tries_before_it_as_unknown_as_they_were() {
        let facts = claims().facts(&Claim { presented: 3, ..claim("pod/me") }.to_text(), UID, TOKEN, 1_000).unwrap();
        assert_eq!((facts.standing, facts.presented, facts.marked_unknown), (ClaimStanding::Unknown, 2, true));
    }

    #[test]
    fn ones_own_claim_is_alive_while_its_transaction_is_under_way() {
        let claims = claims();
        claims.begin("attempt");
        assert!(matches!(standing(&claims, &claim("pod/me")), Some(ClaimStanding::Alive { .. })));
        claims.end("attempt");
        assert_eq!(standing(&claims, &claim("pod/me")), Some(ClaimStanding::NeverCalled));
    }

    #[test]
    fn a_marked_claim_is_unknown_whoever_made_it() {
        let marked = Claim { outcome: Some(ClaimOutcome::Unknown), ..claim("pod/other") };
        assert_eq!(standing(&claims(), &marked), Some(ClaimStanding::Unknown));
    }

    #[test]
    fn a_settled_claim_about_another_token_says_nothing() {
        let marked = Claim { outcome: Some(ClaimOutcome::Unknown), ..claim("pod/other") };
        assert_eq!(claims().facts(&marked.to_text(), UID, Digest::from_bytes([8; 16]), 0), None);
    }

    #[test]
    fn a_claim_tells_of_the_other_credential_too_that_its_outcome_is_unknown() {
        let other = Digest::from_bytes([8; 16]);
        let beside = Some(Beside { from: other.to_string(), presented: 2 });
        for holder in ["pod/me", "pod/other"] {
            let settled = Claim { beside: beside.clone(), ttl_seconds: 0, ..claim(holder) };
            let facts = claims().facts(&settled.to_text(), UID, other, 0).unwrap();
            assert_eq!((facts.standing, facts.presented, facts.marked_unknown), (ClaimStanding::Unknown, 2, true));
            assert_eq!(claims().facts(&settled.to_text(), UID, Digest::from_bytes([9; 16]), 0), None);
        }
        let alive = Claim { beside, ..claim("pod/other") };
        let facts = claims().facts(&alive.to_text(), UID, other, 0).unwrap();
        assert!(matches!(facts.standing, ClaimStanding::Alive { .. }), "as long as it lives, nothing is begun");
    }

    #[test]
    fn a_mark_outlives_the_integration_that_it_was_made_for() {
        let marked = Claim { outcome: Some(ClaimOutcome::Unknown), ..claim("pod/other") };
        let facts = claims().facts(&marked.to_text(), "made-anew", Digest::from_bytes([8; 16]), 0).unwrap();
        assert_eq!((facts.standing, facts.presented), (ClaimStanding::Unknown, 1));
    }

    #[test]
    fn an_unreadable_claim_counts_as_a_live_one() {
        assert!(matches!(
            claims().facts("gibberish", UID, TOKEN, 0),
            Some(ClaimFacts { standing: ClaimStanding::Alive { until }, .. }) if until >= 600
        ));
    }

    #[test]
    fn a_transaction_knows_its_own_claim_by_its_attempt() {
        let claims = claims();
        let text = claim("pod/me").to_text();
        assert_eq!(claims.standing(Some(&text), "attempt"), Standing::Own { marked_unknown: false });
        assert_eq!(claims.standing(Some(&text), "another"), Standing::OthersDead);
        assert_eq!(claims.standing(None, "attempt"), Standing::Free);
        let others = claim("pod/other").to_text();
        assert_eq!(claims.standing(Some(&others), "another"), Standing::OthersAlive);
    }
}
