//! Defects put in on purpose: can the checker fail?

use tiktok_shop_operator::transaction::{
    ApiFailure, Attempt, CallFailure, Command, Event, Held, Outcome, Release, Standing, State, View, Waiting, next,
};

/// What is wrong on purpose: in the transitions, in what drives them, or in the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Defect {
    /// A claim is written over whatever stands there.
    ClaimWithoutPrecondition,
    /// The call is made again by itself when its outcome is unknown.
    AutomaticRetry,
    /// A claim of another is taken for dead at once.
    AnothersClaimIgnored,
    /// A claim of another is respected for ever.
    AnothersClaimNeverExpires,
    /// After an unknown outcome the claim is taken away instead of being marked.
    UnknownGivenBack,
    /// A mark that somebody dropped meanwhile is not made again.
    MarkNotRepeated,
    /// A persist with a lost reply counts as stored.
    LostPersistTakenForStored,
    /// A conflict at the persist counts as a person's write.
    ConflictTakenForPerson,
    /// A sibling's pair is taken for a person's.
    SiblingTakenForPerson,
    /// A person's pair is taken for the spent token.
    PersonOverwritten,
    /// Of an exchange: tokens that came beside the code are taken for the pair that it replaces.
    TokensBesideCodeOverwritten,
    /// A code that is of no more use is not noted on the Secret.
    UsedCodeNotNoted,
    /// A claim for one credential forgets that the outcome of the other is unknown.
    OtherCredentialForgotten,
    /// The journal's entry is settled before the answer is stored.
    ForgottenBeforePersist,
    /// The journal's answers are not stored at start.
    JournalNotReplayed,
    /// A Secret that was created anew without tokens does not get the answer.
    EmptySecretNotFilled,
    /// The Secret is not read once more when the token is refused.
    NoRereading,
}

impl Defect {
    /// `next` with this defect in it.
    pub fn next(self, attempt: &Attempt, state: State, event: Event) -> (State, Command) {
        let end = |outcome| (State::Forgetting { outcome }, Command::Forget { keep: outcome == Outcome::Refreshed });
        match (self, state, event) {
            (Self::AutomaticRetry, state @ State::Calling { .. }, Event::CallFailed(CallFailure::Unknown)) => {
                (state, Command::Call)
            }
            (Self::LostPersistTakenForStored, State::Persisting { .. }, Event::ApiFailed(ApiFailure::Lost)) => {
                end(Outcome::Refreshed)
            }
            (Self::ConflictTakenForPerson, State::Persisting { .. }, Event::ApiFailed(ApiFailure::Conflict)) => {
                end(Outcome::SupersededByPerson)
            }
            (
                Self::MarkNotRepeated,
                State::RereadingToRelease { how: Release::MarkUnknown { .. }, outcome, .. },
                Event::Read(View { claim: Standing::Free, .. }),
            ) => end(outcome),
            (Self::NoRereading, State::Calling { at, .. }, Event::CallFailed(CallFailure::Rejected)) => {
                let how = Release::GiveBack { handled: true };
                let outcome = Outcome::CallFailed(CallFailure::Rejected);
                (State::Releasing { how, outcome, tries: 0 }, Command::Release { at, how })
            }
            (Self::EmptySecretNotFilled, State::Comparing { answer, .. }, Event::Read(View { refresh: None, .. })) => {
                (State::Holding { answer }, Command::Wait(Waiting::ToPersist(Held::NotFound)))
            }
            (Self::SiblingTakenForPerson, state @ State::Comparing { .. }, Event::Read(view)) => {
                next(attempt, state, Event::Read(View { refreshed_from: None, ..view }))
            }
            (Self::PersonOverwritten, State::Comparing { answer, tries }, Event::Read(view))
                if view.pair != Some(answer.pair) =>
            {
                let at = view.version;
                (State::Persisting { answer, tries }, Command::Persist { at, remove_claim: true })
            }
            (Self::TokensBesideCodeOverwritten, state @ State::Comparing { .. }, Event::Read(view)) => {
                next(attempt, state, Event::Read(View { beside: None, ..view }))
            }
            (Self::UnknownGivenBack, state, event) => match next(attempt, state, event) {
                (
                    State::Releasing { outcome, tries, .. },
                    Command::Release { at, how: Release::MarkUnknown { .. } },
                ) => {
                    let how = Release::GiveBack { handled: false };
                    (State::Releasing { how, outcome, tries }, Command::Release { at, how })
                }
                usual => usual,
            },
            (_, state, event) => next(attempt, state, event),
        }
    }
}
