//! What the operator does around `next`: each function says which one of the product it mirrors.

use std::fmt::Write as _;
use std::time::Duration;

use tiktok_shop_operator::api::RefreshBefore;
use tiktok_shop_operator::decide::{
    ClaimFacts, ClaimStanding, CredentialsState, Decision, History, Observed, Policy, SecretState, TokenFacts, decide,
};
use tiktok_shop_operator::transaction::{
    self, Answer, Attempt, CallFailure, Command, Event, Outcome, Release, Standing, State, View, next,
};

use super::defects::Defect;
use super::world::{
    Claim, Excused, From, GRANTS, Kept, Mark, Pair, ROTATIONS, Run, Seen, Transaction, Wire, Work, World, Write,
    token_digest, version,
};

/// The instant at which everything is decided. All pauses are over then: time passes as it pleases.
const NOW: i64 = 1_000_000_000;
const POLICY: Policy = Policy { refresh_before: RefreshBefore::Duration(Duration::from_hours(24)) };

/// What is fixed for a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub tiktok: TikTok,
    /// Have the processes a journal?
    pub journal: bool,
    /// A pair that took fewer refreshes than this is due.
    pub rounds: u8,
    /// Does a process that died stay so? (The node is lost.)
    pub dead_stay_dead: bool,
    /// Which known holes of the product are not held against it.
    pub forgiven: &'static [Hole],
    /// What is wrong on purpose.
    pub defect: Option<Defect>,
}

/// A limit of the product that this model has found. Each has a test of its own that shows it; everything else is
/// checked with them forgiven. Both need a writer who drops the operator's notes from the Secret (`kubectl replace`).
///
/// When one is mended: bring what is mirrored here up to date, take it out of `RULES`, and let its test run with the
/// others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hole {
    /// A pair that one leader kept in its journal is written back over a spent one although another leader has spent
    /// it since, and has not yet said so in the status.
    SpentPairWrittenBack,
    /// A spent token that is put back with no note of it left, neither on the Secret nor in the process, is presented.
    OldPairNotKnown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TikTok {
    /// The refresh token stays.
    Keeps,
    Rotates,
    /// Rotates, and kills the whole authorization when a spent token is presented.
    Kills,
}

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Invariant {
    AnswerForgotten,
    SpentTwice,
    PersonOverwritten,
    DoesNotRecover,
    Deadlock,
    LivingTokenDeclaredDead,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breach {
    pub invariant: Invariant,
    pub how: &'static str,
}

fn breach(invariant: Invariant, how: &'static str) -> Result<(), Breach> {
    Err(Breach { invariant, how })
}

const fn holds_answer(state: &State) -> bool {
    matches!(
        state,
        State::Journaling { .. } | State::Persisting { .. } | State::Comparing { .. } | State::Holding { .. }
    )
}

const fn ends_with(state: &State) -> Option<Outcome> {
    match state {
        State::Releasing { outcome, .. }
        | State::RereadingToRelease { outcome, .. }
        | State::WaitingToRelease { outcome, .. }
        | State::Forgetting { outcome }
        | State::Done(outcome) => Some(*outcome),
        _ => None,
    }
}

/// May the holder of this answer drop it, seeing what stands in the Secret now?
fn is_superseded(rules: &Rules, world: &World, told: &Transaction, answer: Pair) -> bool {
    let Some(present) = world.secret.and_then(|secret| secret.pair.map(|pair| (secret, pair))) else { return false };
    let (secret, pair) = present;
    // A pair of another authorization, which an outsider put there, holds as long as nobody knows it to be spent.
    let is_anothers = pair.family() != answer.family() && world.marks[usize::from(pair.refresh)] != Mark::Spent;
    let is_newer = pair.family() > answer.family()
        || is_anothers
        || (pair.family() == answer.family() && pair.access >= answer.access);
    // Dead tokens are no loss. Nor is a pair whose refresh token an outsider has just put back, and is good.
    let forgiven = secret.by_outsider && told.knows_nothing_of(pair.refresh) && rules.forgives(Hole::OldPairNotKnown);
    // With its claim taken away by an outsider, nobody can tell which of two calls was the later one.
    // Another may have claimed the token meanwhile, and its call is a later one. Where the token stays, nothing is lost.
    let token_stays = rules.tiktok == TikTok::Keeps && world.is_living(pair.refresh);
    let excused = token_stays && world.excused[usize::from(told.from)] != Excused::Nobody;
    let is_overtaken =
        token_stays && secret.claim.is_some_and(|claim| claim.from == pair.refresh && claim.id.attempt != told.attempt);
    forgiven
        || excused
        || is_overtaken
        || is_newer
        || !world.is_living(answer.refresh)
        || (secret.by_outsider && world.is_living(pair.refresh))
}

impl Rules {
    fn forgives(&self, hole: Hole) -> bool {
        self.forgiven.contains(&hole)
    }

    /// Tells the transaction what happened; goes through pauses, which other steps may well fill
    /// just as they fill any time between two steps, and takes the end in.
    pub fn feed(&self, world: &mut World, at: usize, event: Event, words: &mut Option<String>) -> Result<(), Breach> {
        let Some(mut told) = world.processes[at].transaction.take() else { return Ok(()) };
        let attempt = told.of_product();
        let mut event = event;
        let mut result = Ok(());
        // A pause that leads to nothing but pauses is a standstill, and seen as one.
        for _ in 0..4 {
            if let Some(words) = words {
                // Writing to a String does not fail.
                let _ = write!(words, "\n        {:?} ─ {event:?}", told.state);
            }
            let before = holds_answer(&told.state);
            let rejected = matches!(event, Event::CallFailed(CallFailure::Rejected));
            (told.state, told.command) = self.machine(&attempt, told.state, event);
            if let Some(words) = words {
                let _ = write!(words, " ─▶ {:?}", told.command);
            }
            if let Some(outcome) = ends_with(&told.state) {
                if before && result.is_ok() {
                    result = self.judge_end_of_answer(world, &told, outcome);
                }
                let dead = outcome == Outcome::CallFailed(CallFailure::Rejected);
                let stands =
                    world.secret.is_none_or(|secret| secret.pair.is_some_and(|pair| pair.refresh == told.from));
                if dead && (rejected || matches!(told.state, State::Releasing { tries: 0, .. })) && !stands {
                    result = breach(
                        Invariant::LivingTokenDeclaredDead,
                        "another token than the refused one stands in the Secret",
                    );
                }
            }
            event = match told.command {
                Command::Wait(_) => Event::Waited,
                Command::Finish(outcome) => {
                    Self::take_in(world, at, &told, outcome);
                    return result;
                }
                _ => break,
            };
        }
        if told.command == Command::Call {
            told.wire = Wire::Quiet;
        }
        world.processes[at].transaction = Some(told);
        result
    }

    /// The product's own `next`, or one with a defect in it.
    fn machine(&self, attempt: &Attempt, state: State, event: Event) -> (State, Command) {
        match self.defect {
            Some(defect) => defect.next(attempt, state, event),
            None => next(attempt, state, event),
        }
    }

    /// An answer is no more held: is it stored, or did it have to give way?
    fn judge_end_of_answer(&self, world: &mut World, told: &Transaction, outcome: Outcome) -> Result<(), Breach> {
        let Some(answer) = told.granted else { return Ok(()) };
        let stands = world.secret.is_some_and(|secret| secret.pair == Some(answer));
        if !stands && outcome == Outcome::Refreshed {
            return breach(Invariant::AnswerForgotten, "it counts as stored and is not");
        }
        if !stands && !is_superseded(self, world, told, answer) {
            return breach(Invariant::AnswerForgotten, "dropped, and what stands in the Secret is no newer one");
        }
        self.settle_mark(world, told.from, answer);
        Ok(())
    }

    /// For the witness: the answer to this token is stored or superseded.
    fn settle_mark(&self, world: &mut World, from: u8, answer: Pair) {
        let mark = if answer.refresh == from { Mark::Fresh } else { Mark::Spent };
        debug_assert!(self.tiktok == TikTok::Keeps || mark == Mark::Spent);
        world.marks[usize::from(from)] = mark;
    }

    /// `outcome::take_in`, as far as it bears on what is done next.
    fn take_in(world: &mut World, at: usize, told: &Transaction, outcome: Outcome) {
        let present = world.secret.and_then(|secret| secret.pair).map(|pair| pair.refresh);
        let process = &mut world.processes[at];
        if told.granted.is_some_and(|pair| pair.refresh != told.from) {
            process.last_spent = Some(told.from);
        }
        match outcome {
            Outcome::Refreshed => {}
            Outcome::Stale if told.nth_claim == 0 => process.knows_from_transaction = false,
            Outcome::SupersededByPerson | Outcome::SupersededBySibling => process.knows_from_transaction = false,
            _ if present != Some(told.from) => process.knows_from_transaction = false,
            _ => {}
        }
    }

    /// `Claims::facts`.
    fn claim_facts(&self, world: &mut World, at: usize, refresh: u8) -> Option<ClaimFacts> {
        let claim = world.secret?.claim?;
        let process = &world.processes[at];
        let is_active = process.transaction.as_ref().is_some_and(|transaction| transaction.attempt == claim.id.attempt);
        let own = usize::from(claim.holder) == at;
        let alive = ClaimStanding::Alive { until: NOW + 1 };
        let standing = if claim.marked_unknown {
            ClaimStanding::Unknown
        } else if is_active {
            alive
        } else if own && claim.this_life {
            ClaimStanding::NeverCalled
        } else if own && self.journal {
            if process.intended == Some(claim.id) { ClaimStanding::Unknown } else { ClaimStanding::NeverCalled }
        } else if self.remains(world, at) {
            alive
        } else {
            ClaimStanding::Unknown
        };
        if claim.from != refresh && standing != alive {
            return None;
        }
        // A further try that led to no call leaves the token as unknown as it was.
        let (standing, again, marked_unknown) = match standing {
            ClaimStanding::NeverCalled if claim.again => (ClaimStanding::Unknown, false, true),
            standing => (standing, claim.again, claim.marked_unknown),
        };
        Some(ClaimFacts { standing, presented: 1 + u32::from(again), at: 0, marked_unknown })
    }

    /// `Claims::remaining`: another's claim is respected from the first time it is seen.
    fn remains(&self, world: &mut World, at: usize) -> bool {
        if self.defect == Some(Defect::AnothersClaimIgnored) {
            return false;
        }
        let seen = &mut world.processes[at].seen;
        if *seen == Seen::No {
            *seen = Seen::Since;
        }
        *seen == Seen::Since
    }

    /// `Claims::standing`.
    fn standing(&self, world: &mut World, at: usize, attempt: u8) -> Standing {
        let Some(claim) = world.secret.and_then(|secret| secret.claim) else { return Standing::Free };
        let own = usize::from(claim.holder) == at;
        let marked_unknown = claim.marked_unknown;
        if claim.id.attempt == attempt {
            Standing::Own { marked_unknown }
        } else if marked_unknown || own && (claim.this_life || self.journal) || !self.remains(world, at) {
            Standing::OthersDead
        } else {
            Standing::OthersAlive
        }
    }

    /// `Transaction::look`: what is seen is known from now on.
    pub fn seen(&self, world: &mut World, at: usize, attempt: u8) -> View {
        world.processes[at].knows_from_transaction = true;
        self.view(world, at, attempt)
    }

    /// `Transaction::view`.
    pub fn view(&self, world: &mut World, at: usize, attempt: u8) -> View {
        let claim = self.standing(world, at, attempt);
        let secret = world.secret.expect("a view is of a Secret that is there");
        View {
            version: version(true),
            refresh: secret.pair.map(|pair| token_digest(pair.refresh)),
            pair: secret.pair.map(Pair::digest),
            refreshed_from: secret.refreshed_from.map(From::digest),
            spent: secret.spent.of_product(),
            noted_pair: secret.noted_pair.map(Pair::digest),
            claim,
        }
    }

    /// `Controller::evaluate`, and what follows: reads where it is not known what stands there
    /// (`observe::from_secret`, `reading::read_tokens`), decides, and starts what is to be done.
    /// Is there anything done?
    pub fn look(&self, world: &mut World, at: usize) -> bool {
        let Some(secret) = world.secret else { return false };
        let Some(pair) = secret.pair else { return false };
        let claim = self.claim_facts(world, at, pair.refresh);
        let process = &mut world.processes[at];
        let mut known_spent = secret.noted_pair != Some(pair)
            && (secret.refreshed_from == Some(From::Token(pair.refresh)) || secret.spent.contains(pair.refresh));
        // A claim that may be over by now is looked at anew.
        let reads = !process.knows_from_transaction || secret.claim.is_some_and(|claim| !claim.marked_unknown);
        if reads {
            known_spent |= process.last_spent == Some(pair.refresh);
            let reverted = process
                .journal
                .kept
                .filter(|kept| kept.entry.from == pair.refresh || kept.entry.spent_before.contains(pair.refresh))
                .filter(|kept| kept.answer().refresh != pair.refresh);
            match reverted {
                Some(kept)
                    if kept.restored
                        || process.last_spent == Some(kept.answer().refresh)
                        || secret.spent.contains(kept.answer().refresh)
                        || secret
                            .noted_pair
                            .is_some_and(|noted| noted != kept.answer() && noted != kept.entry.from_pair) =>
                {
                    known_spent = true;
                }
                Some(kept) => {
                    Self::store(world, at, Work::WriteBack, kept);
                    return true;
                }
                None => {}
            }
        }
        if !process.leads {
            return false;
        }
        let facts = TokenFacts {
            pair: pair.digest(),
            access_expires_at: Some(if pair.round() < self.rounds { NOW + 1 } else { NOW + 100 * 86_400 }),
            refresh_expires_at: None,
            born_at: None,
            immutable: false,
            known_spent,
            claim,
        };
        let observed = Observed {
            suspended: false,
            refresh_before: None,
            request: None,
            credentials: CredentialsState::Presumed,
            secret: SecretState::Held(&facts),
            secret_in_use: false,
            history: History::default(),
            seed: 0,
        };
        if !matches!(decide(&observed, &POLICY, NOW), Decision::Refresh { .. }) {
            return false;
        }
        let process = &world.processes[at];
        let in_good_faith = secret.by_outsider
            && secret.refreshed_from != Some(From::Token(pair.refresh))
            && !secret.spent.contains(pair.refresh)
            && process.last_spent != Some(pair.refresh)
            && process.journal.kept.is_none_or(|kept| kept.entry.from != pair.refresh);
        // `Controller::start_refresh`.
        let (state, command) = transaction::start(version(true));
        let process = process.clone();
        let attempt = world.unused_attempt();
        world.processes[at].transaction = Some(Transaction {
            work: Work::Refresh,
            attempt,
            nth_claim: 0,
            from: pair.refresh,
            from_pair: pair,
            spent_before: process
                .last_spent
                .filter(|spent| *spent != pair.refresh)
                .map_or(secret.spent, |spent| secret.spent.with(spent)),
            unknown_before: claim.is_some_and(|claim| claim.standing == ClaimStanding::Unknown),
            again: claim.is_some_and(|claim| claim.standing == ClaimStanding::Unknown || claim.presented > 1),
            in_good_faith,
            aged: false,
            granted: None,
            is_journaled: false,
            wire: Wire::Quiet,
            call: 0,
            mark_before: Mark::Fresh,
            state,
            command,
        });
        true
    }

    /// `Transaction::begin` for an answer from the journal, and the first lines of `drive`.
    pub fn store(world: &mut World, at: usize, work: Work, kept: Kept) {
        let answer = kept.answer();
        let (state, command) = transaction::replay(Answer {
            pair: answer.digest(),
            refresh: token_digest(answer.refresh),
            rotated: answer.refresh != kept.entry.from,
        });
        let process = &mut world.processes[at];
        if work == Work::WriteBack {
            process.journal.entry = Some(kept.entry);
        }
        process.transaction = Some(Transaction {
            work,
            attempt: kept.entry.id.attempt,
            nth_claim: kept.entry.id.nth,
            from: kept.entry.from,
            from_pair: kept.entry.from_pair,
            spent_before: kept.entry.spent_before,
            unknown_before: false,
            again: false,
            in_good_faith: false,
            aged: true,
            granted: Some(answer),
            is_journaled: true,
            wire: Wire::Quiet,
            call: 0,
            mark_before: Mark::Fresh,
            state,
            command,
        });
    }

    /// A process starts: `Journal::open`, `Controller::new`, `Controller::begin`.
    pub fn start_process(&self, world: &mut World, at: usize) {
        let process = &mut world.processes[at];
        process.run = Run::Up;
        process.leads = true;
        let Some(entry) = process.journal.entry else { return };
        if entry.answer.is_none() {
            process.intended = Some(entry.id);
        } else if self.defect != Some(Defect::JournalNotReplayed) {
            Self::store(world, at, Work::Store, Kept { entry, restored: false });
        }
    }

    /// `Transaction::forget`.
    pub fn forget(world: &mut World, at: usize, keep: bool) {
        let process = &mut world.processes[at];
        let Some(told) = &process.transaction else { return };
        let entry = process.journal.entry.take();
        if !keep {
            return;
        }
        process.journal.kept = entry
            .filter(|entry| entry.answer.is_some())
            .map(|entry| Kept { entry, restored: told.work == Work::WriteBack });
    }

    /// What the process asks the API server to write.
    pub fn write(&self, world: &mut World, at: usize) -> Option<Write> {
        let told = world.processes[at].transaction.as_mut()?;
        let claim = |told: &Transaction, marked_unknown| Claim {
            id: told.claim_id(),
            holder: u8::try_from(at).expect("two instances"),
            this_life: true,
            from: told.from,
            again: told.again,
            marked_unknown,
        };
        Some(match told.command.clone() {
            Command::Claim { .. } => {
                told.nth_claim += 1;
                told.aged = false;
                told.mark_before = world.marks[usize::from(told.from)];
                Write::Claim(claim(told, false))
            }
            Command::Persist { remove_claim, .. } => {
                let place = usize::from(told.granted?.refresh);
                let spent = told.work != Work::Refresh && world.marks[place] != Mark::Fresh;
                let notes_dropped = world.secret.is_some_and(|secret| secret.noted_pair.is_none());
                if spent && notes_dropped && self.forgives(Hole::SpentPairWrittenBack) {
                    world.excused[place] = Excused::All;
                }
                Write::Persist {
                    pair: told.granted?,
                    from: told.from,
                    from_pair: told.from_pair,
                    spent_before: told.spent_before,
                    remove_claim,
                }
            }
            Command::Release { how: Release::MarkUnknown { .. }, .. } => Write::Settle(Some(claim(told, true))),
            Command::Release { .. } => Write::Settle(None),
            _ => return None,
        })
    }

    /// The API server applies a write; the version was compared before.
    pub fn apply(&self, world: &mut World, write: Write) -> Result<(), Breach> {
        let Some(mut secret) = world.secret else { return Ok(()) };
        let mut result = Ok(());
        match write {
            Write::Claim(claim) | Write::Settle(Some(claim)) => world.set_claim(Some(claim)),
            // A patch that changes nothing makes no new version.
            Write::Settle(None) if secret.claim.is_none() => return Ok(()),
            Write::Settle(None) => world.set_claim(None),
            Write::Persist { pair, from, from_pair, spent_before, remove_claim } => {
                if let Some(old) = secret.pair {
                    if old.family() > pair.family() {
                        result =
                            breach(Invariant::PersonOverwritten, "an older authorization's pair is written over it");
                    } else if world.is_living(old.refresh) && !world.is_living(pair.refresh) {
                        result = breach(Invariant::AnswerForgotten, "a spent pair is written over a living one");
                    }
                }
                secret.pair = Some(pair);
                secret.refreshed_from =
                    Some(if pair.refresh == from { From::Pair(from_pair) } else { From::Token(from) });
                secret.spent = if pair.refresh == from { spent_before } else { spent_before.with(from) };
                secret.noted_pair = Some(pair);
                secret.by_outsider = false;
                world.secret = Some(secret);
                if remove_claim {
                    world.set_claim(None);
                }
                self.settle_mark(world, from, pair);
            }
        }
        world.bump();
        result
    }

    /// Judges that a process sends a refresh token to TikTok.
    pub fn judge_presenting(&self, world: &mut World, at: usize) -> Result<(), Breach> {
        let in_flight = |process: &super::world::Process, from: u8| {
            process
                .transaction
                .as_ref()
                .is_some_and(|other| other.from == from && other.wire == Wire::Sent && !other.aged)
        };
        let Some(told) = &world.processes[at].transaction else { return Ok(()) };
        let (from, said) = (told.from, told.unknown_before || told.again);
        let place = usize::from(from);
        let excused = match world.excused[place] {
            Excused::Nobody => false,
            Excused::AllBut(one) => usize::from(one) != at,
            Excused::All => true,
        };
        let another = world.processes.iter().enumerate().any(|(place, other)| place != at && in_flight(other, from));
        let (mark, mark_at_claim) = (world.marks[place], told.mark_before);
        if let Some(told) = &mut world.processes[at].transaction {
            told.wire = Wire::Sent;
            told.mark_before = mark;
            if self.tiktok == TikTok::Keeps {
                let family = &mut world.tiktok[usize::from(from / ROTATIONS)];
                family.grants += 1;
                told.call = family.grants;
            }
        }
        world.marks[place] = Mark::Open;
        if excused {
            return Ok(());
        }
        if another {
            return breach(Invariant::SpentTwice, "another call with this refresh token is under way");
        }
        match mark {
            Mark::Fresh | Mark::Refused => Ok(()),
            Mark::Open if said => Ok(()),
            Mark::Open => breach(
                Invariant::SpentTwice,
                "it was presented before with an unknown outcome, and the claim did not say so",
            ),
            Mark::Spent => {
                let process = &world.processes[at];
                let claims = world.secret.and_then(|secret| secret.claim).map(|claim| claim.id);
                let own = process.transaction.as_ref().map(Transaction::claim_id);
                // Its answer was late, and was stored while the claim for trying once more stood already.
                let was_open = mark_at_claim == Mark::Open && said;
                if claims == own && (was_open || mark_at_claim == Mark::Refused) {
                    return Ok(());
                }
                let in_good_faith = process.transaction.as_ref().is_some_and(|told| told.in_good_faith);
                if self.forgives(Hole::OldPairNotKnown) && in_good_faith {
                    return Ok(());
                }
                breach(Invariant::SpentTwice, "it was spent and its answer was stored")
            }
        }
    }

    /// TikTok deals with a call: the new pair, or `None` for a refusal.
    pub fn grant(&self, world: &mut World, token: u8, call: u8) -> Option<Pair> {
        let living = world.is_living(token);
        let number = token / ROTATIONS;
        let family = &mut world.tiktok[usize::from(number)];
        if !living {
            // One that never was spent is not refused for that, but its family is dead then anyway.
            family.killed |= self.tiktok == TikTok::Kills;
            return None;
        }
        if self.tiktok != TikTok::Keeps {
            family.grants += 1;
            family.current += 1;
        }
        assert!(family.current < ROTATIONS && family.grants < GRANTS, "more numbers needed");
        let nth = if self.tiktok == TikTok::Keeps { call } else { family.grants };
        Some(Pair { refresh: number * ROTATIONS + family.current, access: number * GRANTS + nth })
    }

    /// The answer reaches the process.
    pub fn answered(pair: Option<Pair>, told: &mut Transaction) -> Event {
        told.granted = pair;
        match pair {
            Some(pair) => Event::Answered(Answer {
                pair: pair.digest(),
                refresh: token_digest(pair.refresh),
                rotated: pair.refresh != told.from,
            }),
            None => Event::CallFailed(CallFailure::Rejected),
        }
    }

    /// Is the answer that a process loses with its life still in its journal, as far as it was put there?
    pub fn judge_crash(&self, world: &World, at: usize) -> Result<(), Breach> {
        let process = &world.processes[at];
        let Some(told) = &process.transaction else { return Ok(()) };
        let Some(answer) = told.granted.filter(|_| holds_answer(&told.state) && told.is_journaled) else {
            return Ok(());
        };
        let stands = world.secret.is_some_and(|secret| secret.pair == Some(answer));
        let in_journal = process.journal.entry.is_some_and(|entry| entry.answer == Some(answer));
        if in_journal || stands || is_superseded(self, world, told, answer) {
            return Ok(());
        }
        breach(Invariant::AnswerForgotten, "it was in the journal, and is not there when the process dies")
    }

    /// Is all at rest, with nothing left to wish for that could be had?
    pub fn is_good(&self, world: &World) -> bool {
        let at_rest = world.processes.iter().all(|process| match process.run {
            Run::Up => process.transaction.is_none() && process.leads,
            Run::Paused => false,
            Run::Dead => self.dead_stay_dead,
        });
        let Some(secret) = world.secret else { return false };
        if !at_rest {
            return false;
        }
        let Some(pair) = secret.pair else { return true };
        let kept_is_wanted = world.processes.iter().filter(|process| process.run == Run::Up).any(|process| {
            process.journal.kept.is_some_and(|kept| {
                !kept.restored
                    && kept.entry.from == pair.refresh
                    // With a newer pair noted, which nobody keeps, the operator says so and waits for a person.
                    && secret.noted_pair.is_none_or(|noted| noted == kept.answer() || noted == kept.entry.from_pair)
                    && kept.answer().refresh != pair.refresh
                    && world.is_living(kept.answer().refresh)
            })
        });
        let answer_waits = world
            .processes
            .iter()
            .any(|process| process.run == Run::Up && process.journal.entry.is_some_and(|entry| entry.answer.is_some()));
        let is_due = world.is_living(pair.refresh) && pair.round() < self.rounds;
        !answer_waits && !kept_is_wanted && !is_due
    }
}

impl Kept {
    pub fn answer(&self) -> Pair {
        self.entry.answer.expect("only answers are kept")
    }
}
