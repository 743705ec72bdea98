//! model
mod checker;
mod defects;
mod driver;
mod moves;
mod scenarios;
mod world;

use std::time::Instant;

use checker::{Explored, Violation, check};
use defects::Defect;
use driver::{Hole, Invariant, Rules, TikTok};
use scenarios::{ALL, ALONE, AMONG_OTHERS, NOTHING, RULES, Scenario, TWO_LEADERS, TWO_LEADERS_AMONG_OTHERS, WIDE};
use world::{Left, World};

fn explore(rules: &Rules, instances: usize, left: Left) -> Result<Explored, Box<Violation>> {
    check(rules, &World::new(instances, left))
}

fn hold(scenarios: &[Scenario]) {
    for scenario in scenarios {
        for tiktok in ALL {
            let rules = Rules { tiktok, ..scenario.rules };
            let began = Instant::now();
            match explore(&rules, scenario.instances, scenario.left) {
                Ok(Explored { states, steps }) => {
                    println!("{}, TikTok {tiktok:?}: {states} states, {steps} steps, {:.1?}", scenario.name, began.elapsed());
                    let at_least = if tiktok == TikTok::Keeps { scenario.at_least / 3 } else { scenario.at_least };
                    assert!(states >= at_least, "only {states} states: the model does not do what it says");
                }
                Err(violation) => panic!("{}, TikTok {tiktok:?}: {violation}", scenario.name),
            }
        }
    }
}

#[test]
fn one_instance_keeps_the_promises_whatever_fails() {
    hold(ALONE);
}

#[test]
fn one_instance_keeps_the_promises_whoever_else_writes_the_secret() {
    hold(AMONG_OTHERS);
}

#[test]
fn two_instances_that_both_believe_that_they_lead_keep_the_promises() {
    hold(TWO_LEADERS);
}

#[test]
fn two_leaders_keep_the_promises_whoever_else_writes_the_secret() {
    hold(TWO_LEADERS_AMONG_OTHERS);
}

#[test]
#[ignore = "takes minutes: wider bounds than every run goes through"]
fn wider_bounds_hold_too() {
    hold(WIDE);
}

#[test]
fn each_seeded_mutation_is_caught() {
    use Defect::{
        AnothersClaimIgnored, AnothersClaimNeverExpires, AutomaticRetry, ClaimWithoutPrecondition,
        ConflictTakenForPerson, EmptySecretNotFilled, ForgottenBeforePersist, JournalNotReplayed, LostPersistTakenForStored,
        MarkNotRepeated, NoRereading, PersonOverwritten, SiblingTakenForPerson, UnknownGivenBack,
    };
    let lost_node = Rules { dead_stay_dead: true, ..RULES };
    let keeps = Rules { tiktok: TikTok::Keeps, ..RULES };
    for (defect, caught_by, instances, rules, left) in [
        (ClaimWithoutPrecondition, Invariant::SpentTwice, 2, RULES, NOTHING),
        (AutomaticRetry, Invariant::SpentTwice, 1, RULES, Left { tiktok: 1, ..NOTHING }),
        (AnothersClaimIgnored, Invariant::SpentTwice, 2, RULES, NOTHING),
        (AnothersClaimNeverExpires, Invariant::Deadlock, 2, lost_node, Left { crash: 1, ..NOTHING }),
        (UnknownGivenBack, Invariant::SpentTwice, 1, RULES, Left { tiktok: 1, ..NOTHING }),
        (MarkNotRepeated, Invariant::SpentTwice, 1, RULES, Left { tiktok: 1, person: 1, ..NOTHING }),
        (LostPersistTakenForStored, Invariant::AnswerForgotten, 1, RULES, Left { api: 1, ..NOTHING }),
        (ConflictTakenForPerson, Invariant::AnswerForgotten, 1, RULES, Left { person: 1, ..NOTHING }),
        (SiblingTakenForPerson, Invariant::AnswerForgotten, 2, keeps, Left { pause: 1, ..NOTHING }),
        (PersonOverwritten, Invariant::PersonOverwritten, 1, RULES, Left { person: 1, ..NOTHING }),
        (ForgottenBeforePersist, Invariant::AnswerForgotten, 1, RULES, Left { api: 1, crash: 1, ..NOTHING }),
        (JournalNotReplayed, Invariant::SpentTwice, 1, RULES, Left { crash: 1, ..NOTHING }),
        (EmptySecretNotFilled, Invariant::DoesNotRecover, 1, RULES, Left { delete: 1, ..NOTHING }),
        (NoRereading, Invariant::LivingTokenDeclaredDead, 1, RULES, Left { tiktok: 1, person: 1, ..NOTHING }),
    ] {
        assert!(explore(&rules, instances, left).is_ok(), "without {defect:?} all is well");
        let seeded = Rules { defect: Some(defect), ..rules };
        let violation = explore(&seeded, instances, left).expect_err(&format!("{defect:?} is not caught"));
        println!("{defect:?} is caught by {:?}: {}", violation.breach.invariant, violation.breach.how);
        assert_eq!(violation.breach.invariant, caught_by, "{defect:?}: {violation}");
    }
}

/// Shows a known hole: the others are forgiven.
fn shows(hole: Hole, rules: Rules, instances: usize, left: Left) {
    let forgiven: &[Hole] = match hole {
        Hole::UnknownNoMoreSaid => &[
            Hole::RevertedTakenForPerson,
            Hole::NotReadAgain,
            Hole::SpentPairWrittenBack,
            Hole::OldPairNotKnown,
        ],
        Hole::RevertedTakenForPerson => {
            &[Hole::UnknownNoMoreSaid, Hole::NotReadAgain, Hole::SpentPairWrittenBack, Hole::OldPairNotKnown]
        }
        Hole::NotReadAgain => &[
            Hole::UnknownNoMoreSaid,
            Hole::RevertedTakenForPerson,
            Hole::SpentPairWrittenBack,
            Hole::OldPairNotKnown,
        ],
        Hole::SpentPairWrittenBack => {
            &[Hole::UnknownNoMoreSaid, Hole::RevertedTakenForPerson, Hole::NotReadAgain, Hole::OldPairNotKnown]
        }
        Hole::OldPairNotKnown => {
            &[Hole::UnknownNoMoreSaid, Hole::RevertedTakenForPerson, Hole::NotReadAgain, Hole::SpentPairWrittenBack]
        }
    };
    if let Err(violation) = explore(&Rules { forgiven, ..rules }, instances, left) {
        panic!("{violation}");
    }
}

#[test]
#[ignore = "a hole of the product: with the process told to stop before the retry's call, the claim is given back"]
fn a_retry_that_is_stopped_before_its_call_leaves_the_unknown_outcome_said() {
    shows(Hole::UnknownNoMoreSaid, RULES, 1, Left { tiktok: 1, step_down: 1, ..NOTHING });
}

#[test]
#[ignore = "a hole of the product: with no room for the retry's intent, the claim is given back"]
fn a_retry_whose_intent_cannot_be_written_leaves_the_unknown_outcome_said() {
    shows(Hole::UnknownNoMoreSaid, RULES, 1, Left { tiktok: 1, journal: 1, ..NOTHING });
}

#[test]
#[ignore = "a hole of the product: after a definite error that is no refusal, the claim is given back"]
fn a_retry_that_ends_with_an_error_that_is_no_refusal_leaves_the_unknown_outcome_said() {
    shows(Hole::UnknownNoMoreSaid, RULES, 1, Left { tiktok: 2, ..NOTHING });
}

#[test]
#[ignore = "a hole of the product: an answer gives way to a spent pair that is put back while it is to be stored"]
fn an_answer_is_stored_over_an_older_spent_pair_that_somebody_puts_back_meanwhile() {
    shows(Hole::RevertedTakenForPerson, Rules { rounds: 2, ..RULES }, 1, Left { gitops: 1, ..NOTHING });
}

#[test]
#[ignore = "a hole of the product: a spent pair that a transaction sees at its end is not looked at as a read would"]
fn a_spent_pair_put_back_during_a_transaction_is_noticed_when_it_ends() {
    shows(Hole::NotReadAgain, Rules { rounds: 2, ..RULES }, 1, Left { gitops: 1, api: 1, ..NOTHING });
}

#[test]
#[ignore = "a hole of the product: a pair from the journal is stored over a reverted one though it is spent itself"]
fn a_journal_s_pair_that_is_spent_itself_is_not_stored_over_a_reverted_one() {
    shows(Hole::SpentPairWrittenBack, Rules { rounds: 2, ..RULES }, 2, Left { gitops: 1, crash: 1, ..NOTHING });
}

#[test]
#[ignore = "a limit of the product: only the token spent last is known to be spent, not those before it"]
fn a_pair_that_was_spent_two_rounds_ago_is_not_presented_when_somebody_puts_it_back() {
    shows(Hole::OldPairNotKnown, Rules { rounds: 2, ..RULES }, 1, Left { gitops: 1, ..NOTHING });
}
