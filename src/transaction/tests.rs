//! The transaction as sentences. The exhaustive check of all interleavings is a test of its own.

use super::*;

const SPENT: Digest = Digest::from_bytes([1; 16]);
const SPENT_PAIR: Digest = Digest::from_bytes([2; 16]);
const NEW: Digest = Digest::from_bytes([6; 16]);
const NEW_PAIR: Digest = Digest::from_bytes([3; 16]);
const OTHER: Digest = Digest::from_bytes([4; 16]);
const OTHER_PAIR: Digest = Digest::from_bytes([5; 16]);
const OWN: Standing = Standing::Own { marked_unknown: false };

fn attempt() -> Attempt {
    Attempt {
        from: SPENT,
        from_pair: SPENT_PAIR,
        replay: false,
        unknown_before: false,
        spent_before: SpentTokens::default(),
    }
}

fn version(text: &str) -> Version {
    Version::new(text).unwrap()
}

fn answer() -> Answer {
    Answer { pair: NEW_PAIR, refresh: NEW, rotated: true }
}

/// The Secret with the token to be spent in it.
fn before(at: &str, claim: Standing) -> View {
    View {
        version: version(at),
        refresh: Some(SPENT),
        beside: None,
        pair: Some(SPENT_PAIR),
        refreshed_from: None,
        spent: SpentTokens::default(),
        noted_pair: None,
        claim,
    }
}

/// The Secret with the answer in it.
fn after(at: &str) -> View {
    View {
        refresh: Some(NEW),
        pair: Some(NEW_PAIR),
        refreshed_from: Some(SPENT),
        noted_pair: Some(NEW_PAIR),
        ..before(at, Standing::Free)
    }
}

fn step(state: State, event: Event) -> (State, Command) {
    next(&attempt(), state, event)
}

fn failed(failure: ApiFailure) -> Event {
    Event::ApiFailed(failure)
}

#[test]
fn all_going_well_it_is_rehearse_claim_intend_call_journal_persist_forget() {
    let (state, command) = start(version("1"));
    assert_eq!(command, Command::Rehearse { at: version("1") });
    let (state, command) = step(state, Event::Applied(before("1", Standing::Free)));
    assert_eq!(command, Command::Claim { at: version("1") });
    let (state, command) = step(state, Event::Applied(before("2", OWN)));
    assert_eq!(command, Command::Intend);
    let (state, command) = step(state, Event::Intended);
    assert_eq!(command, Command::Call);
    let (state, command) = step(state, Event::Answered(answer()));
    assert_eq!(command, Command::JournalAnswer);
    let (state, command) = step(state, Event::Journaled);
    assert_eq!(command, Command::Persist { at: version("2"), remove_claim: true });
    let (state, command) = step(state, Event::Applied(after("3")));
    assert_eq!(command, Command::Forget { keep: true });
    assert_eq!(step(state, Event::Forgotten).1, Command::Finish(Outcome::Refreshed));
}

#[test]
fn a_write_that_was_taken_with_other_tokens_in_it_stored_nothing() {
    let state = State::Persisting { answer: answer(), tries: 0 };
    let (state, command) = step(state, Event::Applied(before("3", Standing::Free)));
    assert_eq!(command, Command::Wait(Waiting::ToPersist(Held::Refused)));
    let (state, _) = step(state, Event::Waited);
    let put_back = View { refreshed_from: Some(SPENT), noted_pair: Some(NEW_PAIR), ..before("3", Standing::Free) };
    let (_, command) = step(state, Event::Read(put_back));
    assert_eq!(command, Command::Persist { at: version("3"), remove_claim: true });
}

#[test]
fn before_the_call_every_failure_ends_it_with_nothing_spent() {
    for (failure, outcome) in [
        (ApiFailure::Conflict, Outcome::Stale),
        (ApiFailure::NotFound, Outcome::Blocked(Held::NotFound)),
        (ApiFailure::Forbidden, Outcome::Blocked(Held::Forbidden)),
        (ApiFailure::Refused, Outcome::Blocked(Held::Refused)),
        (ApiFailure::Busy, Outcome::ServerAway),
    ] {
        for state in [State::Rehearsing { at: version("1") }, State::Claiming { nth: 1 }] {
            assert_eq!(step(state.clone(), failed(failure)).1, Command::Finish(outcome), "{state:?}, {failure:?}");
        }
    }
}

#[test]
fn a_claim_whose_reply_was_lost_is_made_anew_and_not_called_upon() {
    let (state, command) = step(State::Claiming { nth: 1 }, failed(ApiFailure::Lost));
    assert_eq!(command, Command::Read);
    assert_eq!(step(state, Event::Read(before("2", OWN))).1, Command::Claim { at: version("2") });
}

#[test]
fn a_claim_that_never_arrived_leaves_nothing_to_do() {
    let (state, _) = step(State::Claiming { nth: 1 }, failed(ApiFailure::Lost));
    assert_eq!(step(state, Event::Read(before("1", Standing::Free))).1, Command::Finish(Outcome::Stale));
}

#[test]
fn a_journal_that_takes_no_intent_stops_the_call_and_gives_the_claim_back() {
    let (_, command) = step(State::Intending { at: version("2"), nth: 1 }, Event::IntentFailed);
    assert_eq!(command, Command::Release { at: version("2"), how: Release::GiveBack { handled: false } });
}

#[test]
fn a_call_that_would_start_too_late_gets_a_new_claim_but_not_for_ever() {
    assert_eq!(
        step(State::Calling { at: version("2"), nth: 1 }, Event::TooLate).1,
        Command::Claim { at: version("2") }
    );
    assert!(matches!(
        step(State::Calling { at: version("2"), nth: MOST_CLAIMS }, Event::TooLate).1,
        Command::Release { .. }
    ));
}

#[test]
fn a_failed_call_is_settled_by_what_it_says_of_the_token() {
    for (failure, how) in [
        (CallFailure::Answered, Release::GiveBack { handled: true }),
        (CallFailure::Unspent, Release::GiveBack { handled: false }),
        (CallFailure::Unknown, Release::MarkUnknown { handled: false }),
    ] {
        let (_, command) = step(State::Calling { at: version("2"), nth: 1 }, Event::CallFailed(failure));
        assert_eq!(command, Command::Release { at: version("2"), how }, "{failure:?}");
    }
}

#[test]
fn a_refused_token_is_declared_dead_only_if_it_is_still_the_one_that_stands_there() {
    let (state, command) = step(State::Calling { at: version("2"), nth: 1 }, Event::CallFailed(CallFailure::Rejected));
    assert_eq!(command, Command::Read);
    let (still, command) = step(state.clone(), Event::Read(before("2", OWN)));
    assert_eq!(command, Command::Release { at: version("2"), how: Release::GiveBack { handled: true } });
    assert!(matches!(still, State::Releasing { outcome: Outcome::CallFailed(CallFailure::Rejected), .. }));
    let replaced = View { refresh: Some(OTHER), pair: Some(OTHER_PAIR), ..before("3", OWN) };
    let (state, _) = step(state, Event::Read(replaced));
    assert!(matches!(state, State::Releasing { outcome: Outcome::SupersededByPerson, .. }));
}

#[test]
fn a_refusal_is_noted_where_the_claim_was_dropped_and_not_over_anothers() {
    let rejected = Outcome::CallFailed(CallFailure::Rejected);
    let how = Release::GiveBack { handled: true };
    let rereading = || State::RereadingToRelease { how, outcome: rejected, tries: 1 };
    for state in [State::Rereading, rereading()] {
        let (_, command) = step(state.clone(), Event::Read(before("3", Standing::Free)));
        assert_eq!(command, Command::Release { at: version("3"), how }, "from {state:?}");
        for others in [Standing::OthersAlive, Standing::OthersDead] {
            let (next, command) = step(state.clone(), Event::Read(before("3", others)));
            assert_eq!((next, command), (State::Forgetting { outcome: rejected }, Command::Forget { keep: false }));
        }
    }
    // What another outcome leaves to be settled is the claim alone.
    let answered = State::RereadingToRelease { how, outcome: Outcome::CallFailed(CallFailure::Answered), tries: 1 };
    let (_, command) = step(answered, Event::Read(before("3", Standing::Free)));
    assert_eq!(command, Command::Forget { keep: false });
}

#[test]
fn after_a_conflict_or_a_lost_reply_the_answer_is_compared_with_what_stands_there() {
    for failure in [ApiFailure::Conflict, ApiFailure::Lost] {
        let (state, command) = step(State::Persisting { answer: answer(), tries: 0 }, failed(failure));
        assert_eq!((state, command), (State::Comparing { answer: answer(), tries: 1 }, Command::Read));
    }
    let comparing = || State::Comparing { answer: answer(), tries: 0 };

    let stored = View { refresh: Some(OTHER), pair: Some(NEW_PAIR), ..before("3", Standing::Free) };
    assert_eq!(step(comparing(), Event::Read(stored)).1, Command::Forget { keep: true }, "it is there: done");

    assert_eq!(
        step(comparing(), Event::Read(before("3", OWN))).1,
        Command::Persist { at: version("3"), remove_claim: true },
        "the spent token is there: written"
    );
    assert_eq!(
        step(comparing(), Event::Read(before("3", Standing::OthersAlive))).1,
        Command::Persist { at: version("3"), remove_claim: false },
        "another's claim is left in place"
    );
    let emptied = View { refresh: None, pair: None, ..before("3", Standing::Free) };
    assert_eq!(
        step(comparing(), Event::Read(emptied)).1,
        Command::Persist { at: version("3"), remove_claim: true },
        "no token is there: written"
    );
    let half = View { refresh: Some(OTHER), pair: None, ..before("3", Standing::Free) };
    let (state, _) = step(comparing(), Event::Read(half));
    assert_eq!(state, State::Forgetting { outcome: Outcome::SupersededByPerson }, "half of a person's pair stays");
    let persons = View { refresh: Some(OTHER), pair: Some(OTHER_PAIR), ..before("3", Standing::Free) };
    let (state, _) = step(comparing(), Event::Read(persons));
    assert_eq!(state, State::Forgetting { outcome: Outcome::SupersededByPerson }, "a person's pair stays");
}

#[test]
fn tokens_that_come_beside_a_code_while_it_is_exchanged_stay_unless_they_are_known_to_be_spent() {
    let comparing = || State::Comparing { answer: answer(), tries: 0 };
    let beside = || View { beside: Some(OTHER), pair: Some(OTHER_PAIR), ..before("3", OWN) };
    let (state, command) = step(comparing(), Event::Read(beside()));
    assert!(matches!(state, State::Releasing { outcome: Outcome::SupersededByPerson, .. }));
    assert_eq!(command, Command::Release { at: version("3"), how: Release::GiveBack { handled: false } });
    let put_back = Attempt { spent_before: SpentTokens::default().with(OTHER), ..attempt() };
    let (_, command) = next(&put_back, comparing(), Event::Read(beside()));
    assert_eq!(command, Command::Persist { at: version("3"), remove_claim: true });
    // The code itself is still the one that was refused, or of which nobody knows, whatever stands beside it.
    let (_, command) = step(State::Rereading, Event::Read(beside()));
    assert_eq!(command, Command::Release { at: version("3"), how: Release::GiveBack { handled: true } });
    let marking = State::RereadingToRelease {
        how: Release::MarkUnknown { handled: false },
        outcome: Outcome::CallFailed(CallFailure::Unknown),
        tries: 1,
    };
    let (_, command) = step(marking, Event::Read(beside()));
    assert_eq!(command, Command::Release { at: version("3"), how: Release::MarkUnknown { handled: false } });
}

#[test]
fn a_sibling_that_exchanged_the_same_code_is_told_by_its_note_even_where_the_code_was_put_back() {
    let stored = |claim| View {
        beside: Some(OTHER),
        pair: Some(OTHER_PAIR),
        refreshed_from: Some(SPENT),
        noted_pair: Some(OTHER_PAIR),
        ..before("3", claim)
    };
    let comparing = || State::Comparing { answer: answer(), tries: 0 };
    let (_, command) = step(comparing(), Event::Read(stored(OWN)));
    assert_eq!(command, Command::Persist { at: version("3"), remove_claim: true });
    let (state, _) = step(comparing(), Event::Read(stored(Standing::Free)));
    assert_eq!(state, State::Forgetting { outcome: Outcome::SupersededBySibling });
}

#[test]
fn of_two_instances_that_spent_one_token_the_later_call_wins() {
    let siblings = |claim| View {
        refresh: Some(OTHER),
        pair: Some(OTHER_PAIR),
        refreshed_from: Some(SPENT),
        noted_pair: Some(OTHER_PAIR),
        ..before("3", claim)
    };
    let comparing = || State::Comparing { answer: answer(), tries: 0 };
    assert_eq!(
        step(comparing(), Event::Read(siblings(OWN))).1,
        Command::Persist { at: version("3"), remove_claim: true },
        "it stored while this claim stood: this call was later"
    );
    let (state, _) = step(comparing(), Event::Read(siblings(Standing::Free)));
    assert_eq!(state, State::Forgetting { outcome: Outcome::SupersededBySibling });
}

#[test]
fn without_rotation_the_pair_tells_a_sibling_from_the_spent_token() {
    let kept = Answer { pair: NEW_PAIR, refresh: SPENT, rotated: false };
    let comparing = || State::Comparing { answer: kept, tries: 0 };
    assert!(matches!(step(comparing(), Event::Read(before("3", OWN))).1, Command::Persist { .. }));
    let others = View { pair: Some(OTHER_PAIR), ..before("3", Standing::Free) };
    let (state, _) = step(comparing(), Event::Read(others));
    assert_eq!(state, State::Forgetting { outcome: Outcome::SupersededByPerson });
}

#[test]
fn without_rotation_too_an_answer_is_stored_over_a_token_that_is_known_to_be_spent() {
    let kept = Answer { pair: NEW_PAIR, refresh: SPENT, rotated: false };
    let put_back = View { refresh: Some(OTHER), pair: Some(OTHER_PAIR), ..before("3", OWN) };
    let knows = Attempt { spent_before: SpentTokens::default().with(OTHER), ..attempt() };
    let comparing = State::Comparing { answer: kept, tries: 0 };
    let (_, command) = next(&knows, comparing, Event::Read(put_back));
    assert_eq!(command, Command::Persist { at: version("3"), remove_claim: true });
}

#[test]
fn an_answer_is_held_and_written_again_whatever_the_api_server_says() {
    for (failure, why) in [
        (ApiFailure::NotFound, Held::NotFound),
        (ApiFailure::Forbidden, Held::Forbidden),
        (ApiFailure::Refused, Held::Refused),
        (ApiFailure::Busy, Held::ServerAway),
    ] {
        let (state, command) = step(State::Persisting { answer: answer(), tries: 0 }, failed(failure));
        assert_eq!(command, Command::Wait(Waiting::ToPersist(why)));
        assert_eq!(step(state, Event::Waited).1, Command::Read);
    }
    let (state, _) = step(State::Comparing { answer: answer(), tries: 0 }, failed(ApiFailure::Lost));
    assert_eq!(state, State::Holding { answer: answer() });
}

#[test]
fn a_replay_waits_out_a_living_claim_of_another() {
    let replayed = Attempt { replay: true, ..attempt() };
    let (state, command) = replay(answer());
    assert_eq!(command, Command::Read);
    let (_, command) = next(&replayed, state, Event::Read(before("3", Standing::OthersAlive)));
    assert_eq!(command, Command::Wait(Waiting::ToPersist(Held::Claimed)));
}

#[test]
fn an_unknown_outcome_is_marked_even_where_the_claim_was_dropped_meanwhile() {
    let state = || State::RereadingToRelease {
        how: Release::MarkUnknown { handled: false },
        outcome: Outcome::CallFailed(CallFailure::Unknown),
        tries: 0,
    };
    assert_eq!(
        step(state(), Event::Read(before("3", Standing::Free))).1,
        Command::Release { at: version("3"), how: Release::MarkUnknown { handled: false } }
    );
    let marked = before("3", Standing::Own { marked_unknown: true });
    assert_eq!(step(state(), Event::Read(marked)).1, Command::Forget { keep: false });
    let others = before("3", Standing::OthersAlive);
    assert_eq!(step(state(), Event::Read(others)).1, Command::Forget { keep: false });
}

#[test]
fn an_event_out_of_place_drops_no_answer() {
    let holding = State::Holding { answer: answer() };
    assert_eq!(step(holding.clone(), Event::Intended).0, holding);
}

#[test]
fn writes_that_fail_while_reads_work_are_tried_with_pauses_and_the_answer_is_held() {
    let mut state = State::Persisting { answer: answer(), tries: 0 };
    for _ in 0..AT_ONCE {
        let (comparing, command) = step(state, failed(ApiFailure::Lost));
        assert_eq!(command, Command::Read);
        (state, _) = step(comparing, Event::Read(before("3", OWN)));
    }
    let (state, command) = step(state, failed(ApiFailure::Lost));
    assert_eq!(command, Command::Wait(Waiting::ToPersist(Held::WriteFails)), "no other write need wait for this one");
    let (state, _) = step(state, Event::Waited);
    let (_, command) = step(state, failed(ApiFailure::Lost));
    assert_eq!(command, Command::Wait(Waiting::ToPersist(Held::ServerAway)), "now reads fail, too");
}

#[test]
fn a_try_known_to_have_spent_nothing_does_not_make_an_earlier_unknown_one_forgotten() {
    let again = Attempt { unknown_before: true, ..attempt() };
    let calling = || State::Calling { at: version("2"), nth: MOST_CLAIMS };
    let intending = State::Intending { at: version("2"), nth: 1 };
    for (state, event, handled) in [
        (calling(), Event::CallFailed(CallFailure::Unspent), false),
        (calling(), Event::CallFailed(CallFailure::Answered), true),
        (calling(), Event::Stopped, false),
        (calling(), Event::TooLate, false),
        (intending, Event::IntentFailed, false),
    ] {
        let (_, command) = next(&again, state, event.clone());
        assert_eq!(command, Command::Release { at: version("2"), how: Release::MarkUnknown { handled } }, "{event:?}");
    }
}

#[test]
fn an_answer_is_stored_over_a_token_spent_before_that_somebody_puts_back_meanwhile() {
    let comparing = || State::Comparing { answer: answer(), tries: 0 };
    let put_back = View { refresh: Some(OTHER), pair: Some(OTHER_PAIR), ..before("3", Standing::Free) };
    let knows = Attempt { spent_before: SpentTokens::default().with(OTHER), ..attempt() };
    let (_, command) = next(&knows, comparing(), Event::Read(put_back.clone()));
    assert!(matches!(command, Command::Persist { .. }));
    let (state, _) = step(comparing(), Event::Read(put_back));
    assert_eq!(state, State::Forgetting { outcome: Outcome::SupersededByPerson }, "else it is a person's");
}

#[test]
fn an_answer_with_the_very_pair_that_stands_there_still_ends_with_the_claim_removed() {
    let same = Answer { pair: SPENT_PAIR, refresh: SPENT, rotated: false };
    let comparing = || State::Comparing { answer: same, tries: 1 };
    let (_, command) = step(comparing(), Event::Read(before("2", OWN)));
    assert_eq!(command, Command::Persist { at: version("2"), remove_claim: true });
    let (_, command) = step(comparing(), Event::Read(before("3", Standing::Free)));
    assert_eq!(command, Command::Forget { keep: true });
}

#[test]
fn nothing_is_marked_unknown_beside_the_tokens_of_somebody_else() {
    let marking = || State::RereadingToRelease {
        how: Release::MarkUnknown { handled: true },
        outcome: Outcome::CallFailed(CallFailure::Unknown),
        tries: 1,
    };
    let others = || View { refresh: Some(OTHER), pair: Some(OTHER_PAIR), ..before("3", OWN) };
    let (_, command) = step(marking(), Event::Read(others()));
    assert_eq!(command, Command::Release { at: version("3"), how: Release::GiveBack { handled: true } });
    let put_back = Attempt { spent_before: SpentTokens::default().with(OTHER), ..attempt() };
    let (_, command) = next(&put_back, marking(), Event::Read(others()));
    assert_eq!(command, Command::Release { at: version("3"), how: Release::MarkUnknown { handled: true } });
}

#[test]
fn an_answer_that_was_spent_itself_is_stored_no_more() {
    let replayed = Attempt { replay: true, ..attempt() };
    let (state, _) = replay(answer());
    let reverted = View { refreshed_from: Some(NEW), noted_pair: Some(OTHER_PAIR), ..before("5", Standing::Free) };
    let long_since = View {
        refreshed_from: Some(OTHER),
        spent: SpentTokens::default().with(NEW).with(OTHER),
        ..before("9", Standing::Free)
    };
    for view in [reverted, long_since] {
        let (state, _) = next(&replayed, state.clone(), Event::Read(view));
        assert_eq!(state, State::Forgetting { outcome: Outcome::SupersededBySibling });
    }
}

#[test]
fn a_process_that_stops_starts_no_call() {
    assert_eq!(step(State::Claiming { nth: 1 }, Event::Stopped).1, Command::Finish(Outcome::Stale));
    let (_, command) = step(State::Calling { at: version("2"), nth: 1 }, Event::Stopped);
    assert_eq!(command, Command::Release { at: version("2"), how: Release::GiveBack { handled: false } });
}
