//! The refresh transaction as one pure function: [`next`] takes a state and what happened, and
//! gives the next state and what to do. It does no I/O, reads no clock and holds no token value,
//! only digests, so that it can be checked exhaustively; `controller::refresh` merely drives it.
//!
//! ```text
//!  Rehearsing ─▶ Claiming ─▶ Intending ─▶ Calling ─▶ Journaling ─▶ Persisting ─▶ Forgetting ─▶ Done
//!       │           │ lost       │           │ refused                  │ conflict, lost      ▲
//!       ▼           ▼            ▼           ▼                          ▼                     │
//!     Done     CheckingClaim  Releasing ◀─ Rereading                Comparing ◀─▶ Holding     │
//!                                │  ▲                                   └─────────────────────┤
//!                                ▼  │ conflict, lost                                          │
//!                          RereadingToRelease ────────────────────────────────────────────────┘
//! ```
//!
//! Until a call is made, any failure simply ends the transaction: nothing is lost. From the moment
//! an answer is here, no path ends without it being stored, or seen to be superseded.
//!
//! The exchange of an authorization code is the same transaction: what it spends is the code, and the pair that stands
//! beside the code gives way to the new one. The driver's [`View`] says of it what [`next`] is to know.

mod claim;
mod rejection;

pub use claim::{Beside, CLAIM_LIMIT, Claim, ClaimOutcome, MARGIN, UNREADABLE_CLAIM_LIFE};
pub use rejection::Rejection;

use crate::cluster::Version;
use crate::tokens::{Digest, SpentTokens};

/// How often a claim is made anew, because its reply was lost or the call came too late, before
/// the transaction gives up and is decided on afresh.
const MOST_CLAIMS: u8 = 5;

/// How often a write is tried again at once, after a look at what stands there, before pauses come
/// between the tries: an API server whose writes fail while its reads work must not be hammered.
const AT_ONCE: u8 = 2;

/// What is fixed for one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Digest of what is to be spent: the refresh token, or the authorization code.
    pub from: Digest,
    /// Digest of the pair that stood in the Secret when it was read; of none, where a code stood there alone.
    pub from_pair: Digest,
    /// Is this the replay of an answer from the journal?
    pub replay: bool,
    /// Was it presented before, with an unknown outcome?
    pub unknown_before: bool,
    /// What was spent before, as far as that is known; of an exchange also the refresh token that stood beside the code.
    pub spent_before: SpentTokens,
}

/// Whose claim stands on the Secret, seen from one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// None.
    Free,
    /// This transaction's own.
    Own {
        /// Does it say already that the outcome is unknown?
        marked_unknown: bool,
    },
    /// Another's, and it may be at work.
    OthersAlive,
    /// Another's, past its time or settled.
    OthersDead,
}

/// What a token Secret shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct View {
    /// Its version: what the next write is conditional on.
    pub version: Version,
    /// Digest of the refresh token in its data.
    ///
    /// Of an exchange: that of its code, where that stands there; else of the refresh token in its data, but `None`
    /// where that belongs to the pair that stood beside the code, which the new pair replaces.
    pub refresh: Option<Digest>,
    /// Of an exchange whose code stands there: digest of a refresh token that has come beside it since.
    pub beside: Option<Digest>,
    /// Digest of the pair in its data, where both are there.
    pub pair: Option<Digest>,
    /// The annotation `refreshed-from`.
    pub refreshed_from: Option<Digest>,
    /// The annotation `spent-tokens`.
    pub spent: SpentTokens,
    /// The annotation `tokens-digest`.
    pub noted_pair: Option<Digest>,
    /// Whose claim stands on it.
    pub claim: Standing,
}

/// A failed API request, as far as the transaction tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApiFailure {
    /// Another version stands there; nothing was written.
    Conflict,
    /// There is no such Secret.
    NotFound,
    /// Not allowed; nothing was written.
    Forbidden,
    /// Refused for what was asked (invalid, immutable, admission); nothing was written.
    Refused,
    /// The server is busy; nothing was written.
    Busy,
    /// Nobody knows whether it was applied.
    Lost,
}

/// A failed call of TikTok, sorted by what it says of the refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallFailure {
    /// TikTok refused this refresh token.
    Rejected,
    /// TikTok answered with another definite error.
    Answered,
    /// The token cannot have been spent.
    Unspent,
    /// Nobody knows.
    Unknown,
}

/// What TikTok gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Digest of the new pair.
    pub pair: Digest,
    /// Digest of its refresh token.
    pub refresh: Digest,
    /// Is the refresh token another one than the one spent?
    pub rotated: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// A write or a rehearsal succeeded; this is what the Secret shows then.
    Applied(View),
    /// A read succeeded.
    Read(View),
    /// An API request failed.
    ApiFailed(ApiFailure),
    /// The intent is on disk, or there is no journal.
    Intended,
    /// The intent could not be written.
    IntentFailed,
    /// So long after the claim was sent, the call must not start.
    TooLate,
    /// TikTok gave new tokens.
    Answered(Answer),
    /// The call failed.
    CallFailed(CallFailure),
    /// The answer's journal entry is written, or failed to be: it makes no difference here.
    Journaled,
    /// A pause is over.
    Waited,
    /// Integration and Secret have both been gone for a day.
    Abandoned,
    /// This process stops, or leads no more: nothing new is to be started.
    Stopped,
    /// The journal entry is settled.
    Forgotten,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Have the API server go through the final write, without storing it.
    Rehearse {
        /// On condition of this version.
        at: Version,
    },
    /// Write the claim.
    Claim {
        /// On condition of this version.
        at: Version,
    },
    /// Write the intent to the journal.
    Intend,
    /// Call TikTok, once.
    Call,
    /// Write the answer to the journal.
    JournalAnswer,
    /// Write the new tokens.
    Persist {
        /// On condition of this version.
        at: Version,
        /// Remove the claim with it? Another's stays.
        remove_claim: bool,
    },
    /// Settle the claim.
    Release {
        /// On condition of this version.
        at: Version,
        /// In which way.
        how: Release,
    },
    /// Read the Secret.
    Read,
    /// Pause, longer each time.
    Wait(Waiting),
    /// Settle the journal entry.
    Forget {
        /// Keep the pair for a while, against a reversion.
        keep: bool,
    },
    /// Nothing: it is over.
    Finish(Outcome),
}

/// What a pause waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Waiting {
    /// An answer is held and must be stored; this is why it could not be.
    ToPersist(Held),
    /// A claim must be settled.
    ToRelease,
    /// The Secret must be read before a token is declared dead.
    ToReread,
}

/// Why an answer is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Held {
    /// The API server is away or busy.
    ServerAway,
    /// The API server can be reached, and fails this write all the same: a webhook that is down, a conflict each time.
    WriteFails,
    /// The Secret is gone.
    NotFound,
    /// Writing is forbidden.
    Forbidden,
    /// The write is refused: immutable, or turned away by admission.
    Refused,
    /// Another's claim is alive (only a replay waits for it).
    Claimed,
}

impl From<ApiFailure> for Held {
    fn from(failure: ApiFailure) -> Self {
        match failure {
            ApiFailure::NotFound => Self::NotFound,
            ApiFailure::Forbidden => Self::Forbidden,
            ApiFailure::Refused => Self::Refused,
            ApiFailure::Conflict | ApiFailure::Busy | ApiFailure::Lost => Self::ServerAway,
        }
    }
}

/// How a claim is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Release {
    /// Removed.
    GiveBack {
        /// Mark the request annotation as handled: TikTok has answered it.
        handled: bool,
    },
    /// Left standing with `outcome: unknown`, so that trying once more stays once.
    MarkUnknown {
        /// Mark the request annotation as handled: TikTok has answered it, though not what became of an earlier call.
        handled: bool,
    },
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The new pair stands in the Secret.
    Refreshed,
    /// The call failed; nothing changed.
    CallFailed(CallFailure),
    /// The Secret was at another version: decide again on what is there now.
    Stale,
    /// The write would fail: found out before the call.
    Blocked(Held),
    /// The API server was away before the call.
    ServerAway,
    /// The journal could not take the intent.
    JournalFailed,
    /// Somebody replaced the tokens: theirs stay.
    SupersededByPerson,
    /// Another instance stored a later answer: it stays.
    SupersededBySibling,
    /// There was nowhere left to store the answer.
    Abandoned,
}

/// Where a transaction stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// The final write is being rehearsed.
    Rehearsing {
        /// Version of the Secret it is conditional on.
        at: Version,
    },
    /// The claim is being written for the n-th time.
    Claiming {
        /// Count from 1.
        nth: u8,
    },
    /// The claim's reply was lost: looking whether it stands.
    CheckingClaim {
        /// Count of claims so far.
        nth: u8,
    },
    /// The intent is being written to the journal.
    Intending {
        /// Version that the claim has.
        at: Version,
        /// Count of claims so far.
        nth: u8,
    },
    /// TikTok is being called.
    Calling {
        /// Version that the claim has.
        at: Version,
        /// Count of claims so far.
        nth: u8,
    },
    /// TikTok refused the token: reading the Secret once more before it is declared dead.
    Rereading,
    /// The answer is being written to the journal.
    Journaling {
        /// Version that the claim has.
        at: Version,
        /// The answer.
        answer: Answer,
    },
    /// The answer is being written to the Secret.
    Persisting {
        /// The answer.
        answer: Answer,
        /// Tries without a pause so far.
        tries: u8,
    },
    /// Looking what stands in the Secret, to know what is to be done with the answer.
    Comparing {
        /// The answer.
        answer: Answer,
        /// Tries without a pause so far.
        tries: u8,
    },
    /// The answer waits to be written.
    Holding {
        /// The answer.
        answer: Answer,
    },
    /// The claim is being settled.
    Releasing {
        /// In which way.
        how: Release,
        /// What the transaction ends with.
        outcome: Outcome,
        /// Tries without a pause so far.
        tries: u8,
    },
    /// Looking whether the claim still stands.
    RereadingToRelease {
        /// In which way it is to be settled.
        how: Release,
        /// What the transaction ends with.
        outcome: Outcome,
        /// Tries without a pause so far.
        tries: u8,
    },
    /// Waiting to settle the claim.
    WaitingToRelease {
        /// In which way it is to be settled.
        how: Release,
        /// What the transaction ends with.
        outcome: Outcome,
    },
    /// Waiting to read once more.
    WaitingToReread,
    /// The journal entry is being settled.
    Forgetting {
        /// What the transaction ends with.
        outcome: Outcome,
    },
    /// It is over.
    Done(Outcome),
}

/// Starts a transaction on a Secret at this version.
#[must_use]
pub fn start(at: Version) -> (State, Command) {
    (State::Rehearsing { at: at.clone() }, Command::Rehearse { at })
}

/// Starts the replay of an answer from the journal.
#[must_use]
pub const fn replay(answer: Answer) -> (State, Command) {
    (State::Comparing { answer, tries: 0 }, Command::Read)
}

/// One step of the transaction.
///
/// An event that cannot happen in a state leaves the state as it is and asks to read the Secret:
/// whatever confused the driver, an answer is not dropped over it.
#[must_use]
#[allow(clippy::match_same_arms, reason = "one line a transition, in the order in which a transaction runs")]
#[allow(clippy::too_many_lines, reason = "the table of transitions is one thing")]
pub fn next(attempt: &Attempt, state: State, event: Event) -> (State, Command) {
    match (state, event) {
        (State::Rehearsing { at }, Event::Applied(_)) => claim(at, 1),
        (State::Rehearsing { .. } | State::Claiming { .. }, Event::ApiFailed(ApiFailure::Conflict)) => {
            done(Outcome::Stale)
        }
        // Before the first claim was sent.
        (State::Claiming { nth: 1 }, Event::Stopped) => done(Outcome::Stale),
        (State::Claiming { nth }, Event::ApiFailed(ApiFailure::Lost)) => (State::CheckingClaim { nth }, Command::Read),
        (State::Rehearsing { .. } | State::Claiming { .. }, Event::ApiFailed(failure)) => before_the_call(failure),

        (State::Claiming { nth }, Event::Applied(view)) => match view.claim {
            Standing::Own { .. } if view.refresh == Some(attempt.from) => {
                (State::Intending { at: view.version, nth }, Command::Intend)
            }
            // Something changed the Secret within the write itself: decide again.
            _ => leave_seen(attempt, view, Outcome::Stale),
        },
        // The lost write was applied, but too long ago to call on the strength of it: made anew.
        (State::CheckingClaim { nth }, Event::Read(view)) => match view.claim {
            Standing::Own { .. } if nth < MOST_CLAIMS && view.refresh == Some(attempt.from) => {
                claim(view.version, nth + 1)
            }
            Standing::Own { .. } => leave_seen(attempt, view, Outcome::Stale),
            _ => done(Outcome::Stale),
        },
        (State::CheckingClaim { .. }, Event::ApiFailed(failure)) => before_the_call(failure),

        (State::Intending { at, nth }, Event::Intended) => (State::Calling { at, nth }, Command::Call),
        (State::Intending { at, .. }, Event::IntentFailed) => leave_token(attempt, at, false, Outcome::JournalFailed),

        (State::Calling { at, nth }, Event::TooLate) if nth < MOST_CLAIMS => claim(at, nth + 1),
        (State::Calling { at, .. }, Event::TooLate | Event::Stopped) => leave_token(attempt, at, false, Outcome::Stale),
        (State::Calling { at, .. }, Event::Answered(answer)) => {
            (State::Journaling { at, answer }, Command::JournalAnswer)
        }
        (State::Calling { at, .. }, Event::CallFailed(failure)) => match failure {
            CallFailure::Rejected => (State::Rereading, Command::Read),
            CallFailure::Answered => leave_token(attempt, at, true, Outcome::CallFailed(failure)),
            CallFailure::Unspent => leave_token(attempt, at, false, Outcome::CallFailed(failure)),
            CallFailure::Unknown => release(at, Release::MarkUnknown { handled: false }, Outcome::CallFailed(failure)),
        },

        // Refused: but is it still the token that stands there?
        (State::Rereading, Event::Read(view)) if view.refresh == Some(attempt.from) => {
            let outcome = Outcome::CallFailed(CallFailure::Rejected);
            match view.claim {
                // Where the claim was dropped, the refusal is still to be noted.
                Standing::Own { .. } | Standing::Free => {
                    release(view.version, Release::GiveBack { handled: true }, outcome)
                }
                Standing::OthersAlive | Standing::OthersDead => forget(false, outcome),
            }
        }
        (State::Rereading, Event::Read(view)) => {
            let outcome =
                if is_siblings(attempt, &view) { Outcome::SupersededBySibling } else { Outcome::SupersededByPerson };
            give_back(view, Release::GiveBack { handled: false }, outcome)
        }
        (State::Rereading, Event::ApiFailed(ApiFailure::NotFound)) => {
            forget(false, Outcome::CallFailed(CallFailure::Rejected))
        }
        (State::Rereading, Event::ApiFailed(_)) => (State::WaitingToReread, Command::Wait(Waiting::ToReread)),
        (State::WaitingToReread, Event::Waited) => (State::Rereading, Command::Read),

        (State::Journaling { at, answer }, Event::Journaled) => persist(at, answer, 0, true),
        (State::Persisting { answer, .. }, Event::Applied(view)) if view.pair == Some(answer.pair) => {
            forget(true, Outcome::Refreshed)
        }
        // Taken, and changed on its way: an admission plugin put other tokens in the place of these.
        (State::Persisting { answer, .. }, Event::Applied(_)) => hold(answer, Held::Refused),
        (State::Persisting { answer, tries }, Event::ApiFailed(ApiFailure::Conflict | ApiFailure::Lost))
            if tries < AT_ONCE =>
        {
            (State::Comparing { answer, tries: tries + 1 }, Command::Read)
        }
        // Reads were answered meanwhile: it is this write that fails, and no other need wait for it.
        (State::Persisting { answer, .. }, Event::ApiFailed(ApiFailure::Conflict | ApiFailure::Lost)) => {
            hold(answer, Held::WriteFails)
        }
        (State::Persisting { answer, .. } | State::Comparing { answer, .. }, Event::ApiFailed(failure)) => {
            hold(answer, failure.into())
        }
        (State::Holding { answer }, Event::Waited) => (State::Comparing { answer, tries: AT_ONCE }, Command::Read),
        (State::Holding { .. }, Event::Abandoned) => forget(false, Outcome::Abandoned),
        (State::Comparing { answer, tries }, Event::Read(view)) => compare(attempt, answer, tries, view),

        (State::Releasing { outcome, .. }, Event::Applied(_)) => forget(false, outcome),
        (State::Releasing { how, outcome, tries }, Event::ApiFailed(ApiFailure::Conflict | ApiFailure::Lost))
            if tries < AT_ONCE =>
        {
            (State::RereadingToRelease { how, outcome, tries: tries + 1 }, Command::Read)
        }
        (
            State::Releasing { outcome, .. } | State::RereadingToRelease { outcome, .. },
            Event::ApiFailed(ApiFailure::NotFound),
        ) => forget(false, outcome),
        (
            State::Releasing { how, outcome, .. } | State::RereadingToRelease { how, outcome, .. },
            Event::ApiFailed(_),
        ) => (State::WaitingToRelease { how, outcome }, Command::Wait(Waiting::ToRelease)),
        (State::WaitingToRelease { how, outcome }, Event::Waited) => {
            (State::RereadingToRelease { how, outcome, tries: AT_ONCE }, Command::Read)
        }
        (State::RereadingToRelease { how, outcome, tries }, Event::Read(view)) => match (how, view.claim) {
            (Release::GiveBack { .. }, Standing::Own { .. })
            | (Release::MarkUnknown { .. }, Standing::Own { marked_unknown: false }) => {
                let how = match how {
                    Release::MarkUnknown { handled } if is_anothers(attempt, &view) => Release::GiveBack { handled },
                    how => how,
                };
                release_again(view.version, how, outcome, tries)
            }
            // The annotation was dropped with the token still there (`kubectl replace` does that):
            // without a note nobody would know that this token may be spent, or was refused.
            (_, Standing::Free) if view.refresh == Some(attempt.from) && leaves_a_note(how, outcome) => {
                release_again(view.version, how, outcome, tries)
            }
            _ => forget(false, outcome),
        },

        (State::Forgetting { outcome }, Event::Forgotten) => done(outcome),
        (State::Done(outcome), _) => done(outcome),
        (state, _) => (state, Command::Read),
    }
}

/// Nothing is spent yet, so every failure simply ends the transaction.
const fn before_the_call(failure: ApiFailure) -> (State, Command) {
    done(match failure {
        ApiFailure::Conflict => Outcome::Stale,
        ApiFailure::NotFound => Outcome::Blocked(Held::NotFound),
        ApiFailure::Forbidden => Outcome::Blocked(Held::Forbidden),
        ApiFailure::Refused => Outcome::Blocked(Held::Refused),
        ApiFailure::Busy | ApiFailure::Lost => Outcome::ServerAway,
    })
}

/// What is to be done with an answer, seeing what stands in the Secret now.
fn compare(attempt: &Attempt, answer: Answer, tries: u8, view: View) -> (State, Command) {
    let own_claim = matches!(view.claim, Standing::Own { .. });
    if view.pair == Some(answer.pair) {
        // TikTok may have answered with the very pair that stands there: then the write that removes the claim is to come.
        return if own_claim { persist(view.version, answer, tries, true) } else { forget(true, Outcome::Refreshed) };
    }
    if attempt.replay && view.claim == Standing::OthersAlive {
        return hold(answer, Held::Claimed);
    }
    let noted_as_spent = view.refreshed_from == Some(answer.refresh) || view.spent.contains(answer.refresh);
    if answer.rotated && noted_as_spent && !own_claim {
        // What the journal kept was stored, and spent by another since: what stands there now is for that one to mend.
        return forget(false, Outcome::SupersededBySibling);
    }
    let spent_token_stands = match view.refresh {
        None => true,
        // Or one spent before it, which somebody has just put back. Beside a spent code there may be other tokens now,
        // and those are no more to be written over than any others.
        Some(refresh) if answer.rotated => {
            let alone = view.beside.is_none_or(|beside| attempt.spent_before.contains(beside));
            (refresh == attempt.from && alone) || attempt.spent_before.contains(refresh)
        }
        Some(refresh) if refresh != attempt.from => attempt.spent_before.contains(refresh),
        // Where TikTok did not rotate, the refresh token alone tells nothing: it stands in every pair.
        Some(_) => view.pair.is_none_or(|pair| pair == attempt.from_pair),
    };
    if spent_token_stands {
        return persist(view.version, answer, tries, own_claim || view.claim == Standing::Free);
    }
    if is_siblings(attempt, &view) {
        // A sibling that stored its answer while this claim stood had called before this one did:
        // it leaves another's claim in place. With the claim gone, the sibling's call was later.
        return if own_claim {
            persist(view.version, answer, tries, true)
        } else {
            forget(false, Outcome::SupersededBySibling)
        };
    }
    give_back(view, Release::GiveBack { handled: false }, Outcome::SupersededByPerson)
}

/// Does a pair stand there that another instance stored in answer to the same token?
fn is_siblings(attempt: &Attempt, view: &View) -> bool {
    // Without rotation, `refreshed-from` names the pair: the token alone is not spent.
    let from_the_same = [attempt.from, attempt.from_pair].into_iter().any(|from| view.refreshed_from == Some(from));
    from_the_same && view.noted_pair == view.pair
}

/// Settles the claim after a try that did not spend the token: what an earlier one did to it stays as unknown as it was.
const fn leave_token(attempt: &Attempt, at: Version, handled: bool, outcome: Outcome) -> (State, Command) {
    let how = if attempt.unknown_before { Release::MarkUnknown { handled } } else { Release::GiveBack { handled } };
    release(at, how, outcome)
}

/// The same where the Secret was seen: a mark says nothing about tokens that somebody else put there.
fn leave_seen(attempt: &Attempt, view: View, outcome: Outcome) -> (State, Command) {
    if is_anothers(attempt, &view) {
        release(view.version, Release::GiveBack { handled: false }, outcome)
    } else {
        leave_token(attempt, view.version, false, outcome)
    }
}

/// Does another token stand in the Secret than the one to spend, and none that was spent before it?
fn is_anothers(attempt: &Attempt, view: &View) -> bool {
    view.refresh.is_some_and(|refresh| refresh != attempt.from && !attempt.spent_before.contains(refresh))
}

/// Does a claim that is settled in this way leave something on the Secret that others must know of the token?
fn leaves_a_note(how: Release, outcome: Outcome) -> bool {
    matches!(how, Release::MarkUnknown { .. }) || outcome == Outcome::CallFailed(CallFailure::Rejected)
}

const fn claim(at: Version, nth: u8) -> (State, Command) {
    (State::Claiming { nth }, Command::Claim { at })
}

const fn persist(at: Version, answer: Answer, tries: u8, remove_claim: bool) -> (State, Command) {
    (State::Persisting { answer, tries }, Command::Persist { at, remove_claim })
}

const fn hold(answer: Answer, why: Held) -> (State, Command) {
    (State::Holding { answer }, Command::Wait(Waiting::ToPersist(why)))
}

const fn release(at: Version, how: Release, outcome: Outcome) -> (State, Command) {
    release_again(at, how, outcome, 0)
}

const fn release_again(at: Version, how: Release, outcome: Outcome, tries: u8) -> (State, Command) {
    (State::Releasing { how, outcome, tries }, Command::Release { at, how })
}

/// Gives the claim back where it still stands.
fn give_back(view: View, how: Release, outcome: Outcome) -> (State, Command) {
    if matches!(view.claim, Standing::Own { .. }) {
        release(view.version, how, outcome)
    } else {
        forget(false, outcome)
    }
}

const fn forget(keep: bool, outcome: Outcome) -> (State, Command) {
    (State::Forgetting { outcome }, Command::Forget { keep })
}

const fn done(outcome: Outcome) -> (State, Command) {
    (State::Done(outcome), Command::Finish(outcome))
}

#[cfg(test)]
mod tests;
