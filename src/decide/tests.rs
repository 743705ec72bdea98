//! `decide` as a table of sentences, and its properties.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::api::{REFRESH_BEFORE_MAX_PERCENT, RefreshBefore};
use crate::tokens::Digest;

const NOW: i64 = 1_800_000_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const POLICY: Policy = Policy { refresh_before: RefreshBefore::Duration(Duration::from_hours(24)) };

fn ahead(seconds: u64) -> RefreshBefore {
    RefreshBefore::Duration(Duration::from_secs(seconds))
}

fn any_refresh_before() -> impl Strategy<Value = RefreshBefore> {
    prop_oneof![(300..518_400_u64).prop_map(ahead), (1..=REFRESH_BEFORE_MAX_PERCENT).prop_map(RefreshBefore::Percent)]
}

/// A pair written by this operator a while ago, valid for another three days.
fn tokens() -> TokenFacts {
    TokenFacts {
        pair: Digest::from_bytes([9; 16]),
        access_expires_at: Some(NOW + 3 * DAY),
        refresh_expires_at: Some(NOW + 300 * DAY),
        born_at: Some(NOW - 4 * DAY),
        immutable: false,
        known_spent: false,
        claim: None,
    }
}

fn observed(facts: &TokenFacts) -> Observed<'_> {
    Observed {
        suspended: false,
        refresh_before: None,
        request: None,
        credentials: CredentialsState::Presumed,
        secret: SecretState::Held(facts),
        code: None,
        secret_in_use: false,
        history: History::default(),
        seed: 7,
        access_refused: false,
    }
}

fn due() -> TokenFacts {
    TokenFacts { access_expires_at: Some(NOW + HOUR), ..tokens() }
}

fn unknown_claim(presented: u32, at: i64, marked_unknown: bool) -> ClaimFacts {
    ClaimFacts { standing: ClaimStanding::Unknown, presented, at, marked_unknown }
}

fn failure(reason: Reason, at: i64, failures: u32, still_applies: bool) -> History {
    History { consecutive_failures: failures, failure: Some(Failure { reason, at, still_applies }), code: None }
}

fn decided(facts: &TokenFacts, change: impl FnOnce(&mut Observed<'_>)) -> Decision {
    let mut observed = observed(facts);
    change(&mut observed);
    decide(&observed, &POLICY, NOW)
}

fn refresh(because: Because) -> Decision {
    Decision::Refresh { because }
}

#[test]
fn a_token_outside_its_window_is_left_alone_until_the_window_opens() {
    let facts = tokens();
    let Decision::Idle { until } = decided(&facts, |_| {}) else { panic!("not idle") };
    let window_opens = NOW + 3 * DAY - DAY;
    assert!((window_opens - DAY / 20..=window_opens).contains(&until), "jitter is at most 5 % of the window");
}

#[test]
fn a_token_within_its_window_or_past_its_expiry_is_refreshed() {
    assert_eq!(decided(&due(), |_| {}), refresh(Because::Due));
    let expired = TokenFacts { access_expires_at: Some(NOW - DAY), ..tokens() };
    assert_eq!(decided(&expired, |_| {}), refresh(Because::Due));
}

#[test]
fn a_token_that_tiktok_refuses_is_refreshed_whatever_its_expiry_but_not_before_a_pause_is_over() {
    let refused = |facts: &TokenFacts, history: History| {
        decided(facts, |o| {
            o.access_refused = true;
            o.history = history;
        })
    };
    let because = refresh(Because::AccessTokenRejected);
    assert_eq!(refused(&tokens(), History::default()), because);
    assert_eq!(refused(&TokenFacts { access_expires_at: None, ..tokens() }, History::default()), because);
    let failed = failure(Reason::ApiError, NOW - 1, 3, true);
    assert!(matches!(refused(&tokens(), failed), Decision::Wait { because: Waiting::Backoff, .. }));
    let just_born = TokenFacts { born_at: Some(NOW), ..tokens() };
    assert!(matches!(refused(&just_born, History::default()), Decision::Idle { until } if until <= NOW + 5));
}

#[test]
fn a_token_put_there_by_hand_is_due_if_inside_refresh_before() {
    let by_hand = TokenFacts { born_at: None, access_expires_at: Some(NOW + 23 * HOUR), ..tokens() };
    assert_eq!(decided(&by_hand, |_| {}), refresh(Because::Due));
    let later = TokenFacts { access_expires_at: Some(NOW + 26 * HOUR), ..by_hand };
    assert!(matches!(decided(&later, |_| {}), Decision::Idle { .. }));
}

#[test]
fn a_token_by_hand_whose_expiry_is_unknown_is_refreshed_at_once() {
    let facts = TokenFacts { access_expires_at: None, born_at: None, ..tokens() };
    assert_eq!(decided(&facts, |_| {}), refresh(Because::ExpiryUnknown));
}

#[test]
fn an_answer_without_a_usable_expiry_is_not_asked_for_again_at_once() {
    for access_expires_at in [None, Some(NOW - 1)] {
        let facts = TokenFacts { access_expires_at, born_at: Some(NOW), ..tokens() };
        assert!(matches!(decided(&facts, |_| {}), Decision::Idle { until } if until >= NOW + 600));
    }
}

#[test]
fn the_specs_window_goes_before_the_operators() {
    let facts = due();
    assert!(matches!(decided(&facts, |o| o.refresh_before = Some(ahead(600))), Decision::Idle { .. }));
}

#[test]
fn a_share_is_one_of_the_tokens_own_life_and_by_hand_one_of_seven_days() {
    let opens = |facts: &TokenFacts| match decided(facts, |o| o.refresh_before = Some(RefreshBefore::Percent(30))) {
        Decision::Idle { until } => facts.access_expires_at.unwrap() - until,
        other => panic!("{other:?}"),
    };
    let ours = TokenFacts { born_at: Some(NOW), access_expires_at: Some(NOW + 10 * HOUR), ..tokens() };
    assert!((3 * HOUR..=3 * HOUR + 540).contains(&opens(&ours)), "{} s ahead", opens(&ours));
    let by_hand = TokenFacts { born_at: None, access_expires_at: Some(NOW + 60 * HOUR), ..tokens() };
    let third = 7 * DAY * 3 / 10;
    assert!((third..=third + third / 20).contains(&opens(&by_hand)), "{} s ahead", opens(&by_hand));
}

#[test]
fn a_request_is_honoured_whatever_the_hours_left() {
    assert_eq!(decided(&tokens(), |o| o.request = Some("1")), refresh(Because::Requested));
}

#[test]
fn a_suspended_integration_ignores_even_a_request() {
    let decision = decided(&due(), |o| {
        o.suspended = true;
        o.request = Some("1");
    });
    assert_eq!(decision, Decision::Blocked { reason: Reason::Suspended, recheck: None });
}

#[test]
fn what_is_missing_blocks_in_the_contracts_order() {
    let facts = due();
    let immutable = TokenFacts { immutable: true, ..due() };
    let spent = TokenFacts { known_spent: true, ..due() };
    let dead = TokenFacts { refresh_expires_at: Some(NOW), ..due() };
    let reason = |decision| match decision {
        Decision::Blocked { reason, .. } => reason,
        other => panic!("not blocked but {other:?}"),
    };
    let missing = CredentialsState::Missing { told: true };
    assert_eq!(
        reason(decided(&facts, |o| {
            o.credentials = missing;
            o.secret = SecretState::NotFound;
        })),
        Reason::AppCredentialsNotFound
    );
    assert_eq!(reason(decided(&facts, |o| o.secret = SecretState::NotFound)), Reason::TokenSecretNotFound);
    assert_eq!(reason(decided(&facts, |o| o.secret = SecretState::Missing)), Reason::TokensMissing);
    assert_eq!(reason(decided(&facts, |o| o.secret = SecretState::Forbidden)), Reason::TokenSecretForbidden);
    assert_eq!(reason(decided(&immutable, |o| o.secret_in_use = true)), Reason::TokenSecretImmutable);
    assert_eq!(reason(decided(&facts, |o| o.secret_in_use = true)), Reason::TokenSecretInUse);
    assert_eq!(reason(decided(&spent, |_| {})), Reason::TokenSecretReverted);
    assert_eq!(reason(decided(&dead, |_| {})), Reason::RefreshTokenExpired);
}

#[test]
fn a_spent_token_is_presented_again_only_if_a_request_asks() {
    let spent = TokenFacts { known_spent: true, ..due() };
    assert_eq!(decided(&spent, |o| o.request = Some("1")), refresh(Because::Requested));
}

#[test]
fn an_expired_refresh_token_is_not_presented_even_on_request() {
    let dead = TokenFacts { refresh_expires_at: Some(NOW), ..due() };
    let decision = decided(&dead, |o| o.request = Some("1"));
    assert_eq!(decision, Decision::Blocked { reason: Reason::RefreshTokenExpired, recheck: None });
}

#[test]
fn anothers_claim_is_waited_for() {
    let standing = ClaimStanding::Alive { until: NOW + 30 };
    let claim = Some(ClaimFacts { standing, presented: 1, at: NOW, marked_unknown: false });
    let facts = TokenFacts { claim, ..due() };
    assert_eq!(decided(&facts, |_| {}), Decision::Wait { until: NOW + 30, because: Waiting::Claim });
}

#[test]
fn a_claim_that_led_to_no_call_is_no_obstacle() {
    let claim = Some(ClaimFacts { standing: ClaimStanding::NeverCalled, presented: 1, at: NOW, marked_unknown: false });
    assert_eq!(decided(&TokenFacts { claim, ..due() }, |_| {}), refresh(Because::Due));
}

#[test]
fn a_crash_in_the_call_is_settled_at_once_even_where_the_token_is_not_due() {
    let facts = TokenFacts { claim: Some(unknown_claim(1, NOW, false)), ..tokens() };
    assert_eq!(decided(&facts, |_| {}), refresh(Because::OutcomeUnknown));
}

#[test]
fn what_was_presented_again_and_again_is_presented_ever_more_slowly() {
    let mut last = 0;
    for presented in 2..8 {
        let facts = TokenFacts { claim: Some(unknown_claim(presented, NOW, true)), ..due() };
        let Decision::Wait { until, because: Waiting::Backoff } = decided(&facts, |_| {}) else { panic!() };
        assert!(until - NOW > last, "presented {presented} times");
        last = until - NOW;
    }
}

#[test]
fn a_failure_is_followed_by_a_pause_that_a_restart_does_not_forget() {
    let history = failure(Reason::ApiError, NOW - 1, 1, true);
    assert!(matches!(
        decided(&due(), |o| o.history = history),
        Decision::Wait { until, because: Waiting::Backoff } if until > NOW && until <= NOW + 5
    ));
    let long_ago = failure(Reason::ApiError, NOW - DAY, 1, true);
    assert_eq!(decided(&due(), |o| o.history = long_ago), refresh(Because::Due));
}

#[test]
fn what_has_changed_since_a_failure_is_tried_at_once() {
    let history = failure(Reason::RefreshTokenRejected, NOW - 1, 9, false);
    assert_eq!(decided(&due(), |o| o.history = history), refresh(Because::Due));
}

#[test]
fn a_failed_request_for_a_token_that_is_not_due_leaves_nothing_to_do() {
    let history = failure(Reason::ApiError, NOW - 1, 1, true);
    assert!(matches!(decided(&tokens(), |o| o.history = history), Decision::Idle { .. }));
}

const CODE: CodeFacts = CodeFacts { known_spent: false, immutable: false, claim: None };

fn exchange() -> Decision {
    refresh(Because::AuthorizationCode)
}

fn code_failed(reason: Reason, at: i64, failures: u32, still_applies: bool) -> History {
    let code = CodeFailure { failure: Failure { reason, at, still_applies }, failures };
    History { code: Some(code), ..History::default() }
}

#[test]
fn a_code_is_exchanged_beside_no_tokens_dead_ones_and_living_ones() {
    let spent = TokenFacts { known_spent: true, ..due() };
    let dead = TokenFacts { refresh_expires_at: Some(NOW), ..due() };
    let unknown = TokenFacts { claim: Some(unknown_claim(3, NOW, true)), ..due() };
    for (sentence, facts) in
        [("living", tokens()), ("due", due()), ("spent", spent), ("dead", dead), ("of unknown outcome", unknown)]
    {
        assert_eq!(decided(&facts, |o| o.code = Some(CODE)), exchange(), "{sentence}");
    }
    let alone = |o: &mut Observed<'_>| {
        o.secret = SecretState::Missing;
        o.code = Some(CODE);
    };
    assert_eq!(decided(&tokens(), alone), exchange());
}

#[test]
fn a_failure_of_the_tokens_does_not_hold_up_a_code() {
    let history = failure(Reason::RefreshTokenRejected, NOW - 1, 9, true);
    let decision = decided(&due(), |o| {
        o.history = history;
        o.code = Some(CODE);
    });
    assert_eq!(decision, exchange());
}

#[test]
fn what_hinders_a_refresh_for_good_hinders_an_exchange() {
    let code = |facts: &TokenFacts, change: fn(&mut Observed<'_>)| {
        decided(facts, |o| {
            o.code = Some(CODE);
            change(o);
        })
    };
    let blocked = |reason| Decision::Blocked { reason, recheck: None };
    let immutable = TokenFacts { immutable: true, ..tokens() };
    assert_eq!(code(&tokens(), |o| o.suspended = true), blocked(Reason::Suspended));
    assert_eq!(code(&tokens(), |o| o.secret_in_use = true), blocked(Reason::TokenSecretInUse));
    assert_eq!(code(&immutable, |_| {}), blocked(Reason::TokenSecretImmutable));
    let alone = code(&tokens(), |o| {
        o.secret = SecretState::Missing;
        o.code = Some(CodeFacts { immutable: true, ..CODE });
    });
    assert_eq!(alone, blocked(Reason::TokenSecretImmutable));
    let no_app = code(&tokens(), |o| o.credentials = CredentialsState::Missing { told: true });
    assert_eq!(no_app, blocked(Reason::AppCredentialsNotFound));
}

#[test]
fn a_code_known_to_be_of_no_use_is_not_presented_and_the_tokens_beside_it_go_on() {
    let spent = CodeFacts { known_spent: true, ..CODE };
    assert_eq!(decided(&due(), |o| o.code = Some(spent)), refresh(Because::Due));
    assert!(matches!(decided(&tokens(), |o| o.code = Some(spent)), Decision::Idle { .. }));
    let alone = decided(&tokens(), |o| {
        o.secret = SecretState::Missing;
        o.code = Some(spent);
    });
    assert_eq!(alone, Decision::Blocked { reason: Reason::AuthorizationCodeRejected, recheck: None });
}

#[test]
fn a_request_does_not_have_a_spent_code_presented() {
    let decision = decided(&tokens(), |o| {
        o.request = Some("1");
        o.code = Some(CodeFacts { known_spent: true, ..CODE });
    });
    assert_eq!(decision, refresh(Because::Requested));
}

#[test]
fn anothers_claim_on_a_code_is_waited_for_and_a_crash_is_settled_at_once() {
    let alive =
        ClaimFacts { standing: ClaimStanding::Alive { until: NOW + 30 }, presented: 1, at: NOW, marked_unknown: false };
    let claimed = |claim| Some(CodeFacts { claim: Some(claim), ..CODE });
    let decision = decided(&tokens(), |o| o.code = claimed(alive));
    assert_eq!(decision, Decision::Wait { until: NOW + 30, because: Waiting::Claim });
    let decision = decided(&tokens(), |o| o.code = claimed(unknown_claim(1, NOW, false)));
    assert_eq!(decision, exchange());
    let marked = decided(&tokens(), |o| o.code = claimed(unknown_claim(1, NOW, true)));
    assert!(matches!(marked, Decision::Wait { until, .. } if until > NOW && until <= NOW + 5), "{marked:?}");
}

#[test]
fn while_a_code_waits_the_tokens_beside_it_are_not_left_to_expire() {
    let waiting = code_failed(Reason::Timeout, NOW, 3, true);
    let decision = |facts: &TokenFacts| {
        decided(facts, |o| {
            o.history = waiting;
            o.code = Some(CODE);
        })
    };
    assert_eq!(decision(&due()), refresh(Because::Due));
    // Tokens that are at rest, or that nothing can be done for, do not let the code's turn be slept through.
    let dead = TokenFacts { refresh_expires_at: Some(NOW), ..due() };
    let spent = TokenFacts { known_spent: true, ..due() };
    for facts in [tokens(), dead, spent] {
        let decision = decision(&facts);
        assert!(
            matches!(decision, Decision::Wait { until, because: Waiting::Backoff } if until > NOW && until <= NOW + 20),
            "{decision:?}"
        );
    }
}

#[test]
fn a_request_does_not_have_tokens_refreshed_that_are_not_there() {
    let decision = decided(&tokens(), |o| {
        o.secret = SecretState::Missing;
        o.code = Some(CODE);
        o.history = code_failed(Reason::Timeout, NOW, 3, true);
        o.request = Some("1");
    });
    assert!(matches!(decision, Decision::Wait { because: Waiting::Backoff, .. }), "{decision:?}");
}

#[test]
fn another_code_than_the_one_that_failed_is_tried_at_once() {
    let decision = decided(&due(), |o| {
        o.history = code_failed(Reason::ApiError, NOW, 5, false);
        o.code = Some(CODE);
    });
    assert_eq!(decision, exchange());
}

#[test]
fn a_code_gets_most_of_its_tries_within_the_half_hour_that_it_lives() {
    for reason in [Reason::Timeout, Reason::ApiError, Reason::RateLimited, Reason::IpNotAllowed] {
        let mut passed = 0;
        for failures in 1.. {
            let delay = code_retry_delay(reason, failures, 7);
            assert!((1..=300).contains(&delay), "{reason}: {delay}");
            passed += delay;
            if passed > 30 * 60 {
                assert!(failures >= 8, "{reason}: {failures} tries");
                break;
            }
        }
        assert!(code_retry_delay(reason, 40, 7) > 3_000, "a code that is most likely dead is left in peace");
    }
    assert!(code_retry_delay(Reason::PersistFailed, 40, 7) <= 60, "once the cluster is mended, a code should not wait");
}

#[test]
fn the_names_of_the_checks_are_sentences_and_each_is_one_of_a_kind() {
    let checks = || CHECKS.iter().chain(CHECKS_OF_TOKENS);
    let names: std::collections::HashSet<_> = checks().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), checks().count());
}

fn any_facts() -> impl Strategy<Value = TokenFacts> {
    let time = || prop_oneof![Just(None), any::<i64>().prop_map(Some), (NOW - 30 * DAY..NOW + 30 * DAY).prop_map(Some)];
    let claim = prop_oneof![
        Just(None),
        (0..40_u32, any::<i64>(), any::<bool>())
            .prop_map(|(presented, at, marked)| Some(unknown_claim(presented, at, marked))),
        any::<i64>().prop_map(|until| Some(ClaimFacts {
            standing: ClaimStanding::Alive { until },
            presented: 1,
            at: NOW,
            marked_unknown: false
        })),
    ];
    (time(), time(), time(), any::<bool>(), any::<bool>(), claim, any::<[u8; 16]>()).prop_map(
        |(access_expires_at, refresh_expires_at, born_at, immutable, known_spent, claim, pair)| TokenFacts {
            pair: Digest::from_bytes(pair),
            access_expires_at,
            refresh_expires_at,
            born_at,
            immutable,
            known_spent,
            claim,
        },
    )
}

fn any_code() -> impl Strategy<Value = Option<CodeFacts>> {
    proptest::option::of((any_facts(), any::<bool>()).prop_map(|(facts, known_spent)| CodeFacts {
        known_spent,
        immutable: facts.immutable,
        claim: facts.claim,
    }))
}

proptest! {
    #[test]
    fn what_is_waited_for_comes(facts in any_facts(), failures in 0..60_u32, failed_at in any::<i64>()) {
        let mut observed = observed(&facts);
        observed.history = failure(Reason::Timeout, failed_at, failures, true);
        // Looked at when the wait is over, the decision is another one: nothing slides for ever.
        if let Decision::Wait { until, because: Waiting::Backoff } = decide(&observed, &POLICY, NOW) {
            let then = decide(&observed, &POLICY, until);
            let is_over = !matches!(then, Decision::Wait { because: Waiting::Backoff, .. });
            prop_assert!(is_over, "{:?}", then);
        }
    }

    #[test]
    fn it_answers_for_any_numbers_and_never_waits_for_the_past(
        facts in any_facts(),
        suspended in any::<bool>(),
        refresh_before in proptest::option::of(any_refresh_before()),
        requested in any::<bool>(),
        failures in 0..60_u32,
        failed_at in any::<i64>(),
        seed in any::<u64>(),
        code in any_code(),
    ) {
        let mut observed = observed(&facts);
        observed.code = code;
        observed.suspended = suspended;
        observed.refresh_before = refresh_before;
        observed.request = requested.then_some("r");
        observed.seed = seed;
        observed.history = failure(Reason::Timeout, failed_at, failures, true);
        observed.history.code = code_failed(Reason::Timeout, failed_at, failures, true).code;
        match decide(&observed, &POLICY, NOW) {
            Decision::Idle { until } | Decision::Wait { until, because: Waiting::Backoff } => prop_assert!(until > NOW),
            Decision::Refresh { because: Because::AuthorizationCode } => {
                prop_assert!(!suspended && !facts.immutable);
                prop_assert!(code.is_some_and(|code| !code.known_spent), "a spent code is not presented");
            }
            Decision::Refresh { .. } => {
                prop_assert!(!suspended);
                prop_assert!(facts.refresh_expires_at.is_none_or(|at| at > NOW), "a dead refresh token is not presented");
                prop_assert!(!facts.known_spent || requested, "a spent token is not presented");
                prop_assert!(!facts.immutable);
            }
            Decision::Wait { .. } | Decision::Blocked { .. } => {}
        }
    }

    #[test]
    fn no_token_is_due_at_its_birth(
        life in 30..400 * DAY,
        refresh_before in any_refresh_before(),
        seed in any::<u64>(),
    ) {
        let window = window(refresh_before, Some(life), seed);
        prop_assert!(window.length + window.jitter < life);
        prop_assert!(window.jitter * 20 <= window.length);
    }

    #[test]
    fn jitter_is_fixed_and_spreads_a_fleet(seeds in proptest::collection::vec(any::<u64>(), 100)) {
        let jitters: std::collections::HashSet<_> =
            seeds.iter().map(|seed| window(POLICY.refresh_before, Some(7 * DAY), *seed).jitter).collect();
        let again: std::collections::HashSet<_> =
            seeds.iter().map(|seed| window(POLICY.refresh_before, Some(7 * DAY), *seed).jitter).collect();
        prop_assert_eq!(&jitters, &again);
        prop_assert!(jitters.len() > 50);
    }

    #[test]
    fn a_pause_never_sleeps_past_the_expiry(
        failures in 1..100_u32,
        life_left in 60..30 * DAY,
        seed in any::<u64>(),
        reason in prop_oneof![
            Just(Reason::ApiError), Just(Reason::Timeout), Just(Reason::RateLimited),
            Just(Reason::IpNotAllowed), Just(Reason::AppCredentialsRejected),
        ],
    ) {
        let delay = retry_delay(&Backoff { reason, failures, life_left: Some(life_left), seed });
        prop_assert!(delay > 0 && delay <= life_left, "{delay} of {life_left}");
        prop_assert!(delay <= 4 * HOUR);
    }
}
