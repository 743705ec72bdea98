//! What the operator does around `next`: each function says which one of the product it mirrors.

use std::fmt::Write as _;
use std::time::Duration;

use tiktok_shop_operator::api::RefreshBefore;
use tiktok_shop_operator::decide::{
    Because, ClaimFacts, ClaimStanding, CodeFacts, CredentialsState, Decision, History, Observed, Policy, SecretState,
    TokenFacts, decide,
};
use tiktok_shop_operator::transaction::{
    self, Answer, Attempt, CallFailure, Command, Event, Outcome, Release, Standing, State, View, next,
};

use super::defects::Defect;
use super::world::{
    CODES, Claim, Excused, From, GRANTS, Kept, Mark, Pair, ROTATIONS, Run, Seen, Transaction, Wire, Work, World, Write,
    family_of_code, is_code, token_digest, version,
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
    // The pair that stood beside a code is no such one: the code's pair was to replace it.
    let is_anothers = pair.family() != answer.family()
        && world.marks[usize::from(pair.refresh)] != Mark::Spent
        && !(told.is_exchange() && told.from_pair == Some(pair));
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
                let stands = world.secret.is_none_or(|secret| {
                    secret.code == Some(told.from) || secret.pair.is_some_and(|pair| pair.refresh == told.from)
                });
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
        // A code that still stands there is settled by the note that is to come.
        let claim = world.secret.and_then(|secret| secret.claim);
        if stands || !told.is_exchange() || claim.is_none_or(|claim| claim.id.attempt != told.attempt) {
            self.settle_mark(world, told.from, told.from_pair, answer);
        }
        Ok(())
    }

    /// For the witness: the answer to this token is stored or superseded.
    fn settle_mark(&self, world: &mut World, from: u8, from_pair: Option<Pair>, answer: Pair) {
        if let Some(beside) = from_pair.filter(|_| is_code(from)) {
            // It went with its authorization.
            world.marks[usize::from(beside.refresh)] = Mark::Spent;
        }
        let mark = if answer.refresh == from { Mark::Fresh } else { Mark::Spent };
        debug_assert!(self.tiktok == TikTok::Keeps || mark == Mark::Spent);
        world.marks[usize::from(from)] = mark;
    }

    /// `outcome::take_in`, as far as it bears on what is done next.
    fn take_in(world: &mut World, at: usize, told: &Transaction, outcome: Outcome) {
        let present = world.secret.and_then(|secret| secret.pair).map(|pair| pair.refresh);
        let code = world.secret.and_then(|secret| secret.code);
        let process = &mut world.processes[at];
        if told.is_exchange() {
            let beside = told.from_pair.filter(|_| told.work == Work::Spend && told.granted.is_some());
            process.last_spent = beside.map(|beside| beside.refresh).or(process.last_spent);
            if told.granted.is_some() || told.refused {
                process.last_code = Some(told.from);
            }
        } else if told.granted.is_some_and(|pair| pair.refresh != told.from) {
            process.last_spent = Some(told.from);
        }
        match outcome {
            Outcome::Refreshed => {}
            Outcome::Stale if told.nth_claim == 0 => process.knows_from_transaction = false,
            Outcome::SupersededByPerson | Outcome::SupersededBySibling => process.knows_from_transaction = false,
            _ if told.is_exchange() => process.knows_from_transaction &= code.is_none_or(|code| code == told.from),
            _ if present != Some(told.from) => process.knows_from_transaction = false,
            _ => {}
        }
    }

    /// `Claims::facts`.
    fn claim_facts(&self, world: &mut World, at: usize, credential: u8) -> Option<ClaimFacts> {
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
        if claim.from != credential && standing != alive {
            claim.beside.filter(|beside| *beside == credential)?;
            return Some(ClaimFacts { standing: ClaimStanding::Unknown, presented: 1, at: 0, marked_unknown: true });
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
        // `Transaction::stands`.
        let told = world.processes[at].transaction.as_ref().map(|told| (told.from, told.from_pair));
        let refresh = secret.pair.map(|pair| token_digest(pair.refresh));
        let (refresh, beside) = match told {
            Some((code, from_pair)) if is_code(code) => {
                let others = refresh.filter(|_| secret.pair != from_pair);
                if secret.code == Some(code) { (Some(token_digest(code)), others) } else { (others, None) }
            }
            _ => (refresh, None),
        };
        View {
            version: version(true),
            refresh,
            beside,
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
    #[allow(clippy::too_many_lines, reason = "one look, in the order of the product's")]
    pub fn look(&self, world: &mut World, at: usize) -> bool {
        let Some(secret) = world.secret else { return false };
        let pair = secret.pair;
        if pair.is_none() && secret.code.is_none() {
            return false;
        }
        let claim = pair.and_then(|pair| self.claim_facts(world, at, pair.refresh));
        let claim_on_code = secret.code.and_then(|code| self.claim_facts(world, at, code));
        let process = &mut world.processes[at];
        let is_noted =
            |credential| secret.refreshed_from == Some(From::Token(credential)) || secret.spent.contains(credential);
        let mut known_spent = pair.is_some_and(|pair| secret.noted_pair != Some(pair) && is_noted(pair.refresh));
        let mut code_spent =
            secret.code.is_some_and(is_noted) || (secret.code.is_some() && process.last_code == secret.code);
        // A claim that may be over by now is looked at anew.
        let reads = !process.knows_from_transaction || secret.claim.is_some_and(|claim| !claim.marked_unknown);
        if reads {
            known_spent |= pair.is_some_and(|pair| process.last_spent == Some(pair.refresh));
            let stands = pair.map(|pair| pair.refresh).or(secret.code);
            let reverted = process
                .journal
                .kept
                .filter(|kept| {
                    stands.is_some_and(|stands| kept.entry.from == stands || kept.entry.spent_before.contains(stands))
                })
                .filter(|kept| Some(kept.answer().refresh) != stands);
            code_spent |= pair.is_none() && reverted.is_some_and(|kept| Some(kept.entry.from) == secret.code);
            known_spent |= pair.is_some() && reverted.is_some();
            match reverted {
                Some(kept)
                    if kept.restored
                        || process.last_spent == Some(kept.answer().refresh)
                        || secret.spent.contains(kept.answer().refresh)
                        || secret
                            .noted_pair
                            .is_some_and(|noted| noted != kept.answer() && Some(noted) != kept.entry.from_pair) => {}
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
        let facts = pair.map(|pair| TokenFacts {
            pair: pair.digest(),
            access_expires_at: Some(if pair.round() < self.rounds { NOW + 1 } else { NOW + 100 * 86_400 }),
            refresh_expires_at: None,
            born_at: None,
            immutable: false,
            known_spent,
            claim,
        });
        let observed = Observed {
            suspended: false,
            refresh_before: None,
            request: None,
            credentials: CredentialsState::Presumed,
            secret: facts.as_ref().map_or(SecretState::Missing, SecretState::Held),
            code: secret.code.map(|_| CodeFacts { known_spent: code_spent, immutable: false, claim: claim_on_code }),
            secret_in_use: false,
            history: History::default(),
            seed: 0,
            access_refused: false,
        };
        let Decision::Refresh { because } = decide(&observed, &POLICY, NOW) else { return false };
        // `Controller::start_refresh`, `what_to_spend`.
        let exchange = because == Because::AuthorizationCode;
        let from = match (exchange, secret.code, pair) {
            (true, Some(code), _) => code,
            (_, _, Some(pair)) => pair.refresh,
            _ => unreachable!("what is not there is not spent"),
        };
        let unknown = |claim: Option<ClaimFacts>| claim.filter(|claim| claim.standing == ClaimStanding::Unknown);
        let (claim, other) = if exchange {
            (claim_on_code, pair.map(|pair| pair.refresh).filter(|_| unknown(claim).is_some()))
        } else {
            (claim, secret.code.filter(|_| !code_spent && unknown(claim_on_code).is_some()))
        };
        let process = &world.processes[at];
        let in_good_faith = if exchange { secret.code_put_back } else { secret.by_outsider }
            && !is_noted(from)
            && process.last_spent != Some(from)
            && process.last_code != Some(from)
            && process.journal.kept.is_none_or(|kept| kept.entry.from != from);
        let (state, command) = transaction::start(version(true));
        let process = process.clone();
        let mut spent_before = secret.spent.without(from);
        if let Some(beside) = pair.filter(|_| exchange) {
            spent_before = spent_before.with(beside.refresh);
        }
        if let Some(last) = process.last_spent.filter(|last| *last != from) {
            spent_before = spent_before.with(last);
        }
        let attempt = world.unused_attempt();
        world.processes[at].transaction = Some(Transaction {
            work: Work::Spend,
            attempt,
            nth_claim: 0,
            from,
            from_pair: pair,
            spent_before,
            other,
            refused: false,
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
            other: None,
            refused: false,
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
        // What `Transaction::look` saw of its own claim, as the write is conditional on that version.
        let own = world.secret.and_then(|secret| secret.claim).filter(|claim| claim.id.attempt == told.attempt);
        let remembers = self.defect != Some(Defect::OtherCredentialForgotten);
        let remainder = own.filter(|_| remembers).and_then(|claim| {
            let beside = claim.beside.filter(|_| claim.from == told.from);
            let of_other =
                beside.map(|beside| Claim { from: beside, beside: None, again: false, marked_unknown: true, ..claim });
            of_other.or_else(|| (claim.from != told.from).then_some(claim))
        });
        let claim = |told: &Transaction, marked_unknown| Claim {
            id: told.claim_id(),
            holder: u8::try_from(at).expect("two instances"),
            this_life: true,
            from: told.from,
            again: told.again,
            marked_unknown,
            beside: told.other,
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
                let spent = told.work != Work::Spend && world.marks[place] != Mark::Fresh;
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
                    leave: remainder.filter(|_| !told.is_exchange()),
                }
            }
            Command::Release { how: Release::MarkUnknown { .. }, .. } => {
                Write::Settle { claim: Some(claim(told, true)), note: None }
            }
            Command::Release { .. } => {
                let is_over = told.is_exchange() && (told.granted.is_some() || told.refused);
                let notes = self.defect != Some(Defect::UsedCodeNotNoted);
                Write::Settle { claim: remainder, note: (is_over && notes).then_some(told.from) }
            }
            _ => return None,
        })
    }

    /// The API server applies a write; the version was compared before.
    pub fn apply(&self, world: &mut World, write: Write) -> Result<(), Breach> {
        let Some(mut secret) = world.secret else { return Ok(()) };
        let mut result = Ok(());
        match write {
            Write::Claim(claim) => world.set_claim(Some(claim)),
            // A patch that changes nothing makes no new version.
            Write::Settle { claim, note }
                if secret.claim == claim && note.is_none_or(|note| secret.spent.contains(note)) =>
            {
                return Ok(());
            }
            Write::Settle { claim, note } => {
                world.set_claim(claim);
                if let (Some(secret), Some(note)) = (&mut world.secret, note) {
                    secret.spent = secret.spent.with(note);
                    let mark = &mut world.marks[usize::from(note)];
                    *mark = if *mark == Mark::Open { Mark::Spent } else { *mark };
                }
            }
            Write::Persist { pair, from, from_pair, spent_before, remove_claim, leave } => {
                if let Some(old) = secret.pair {
                    let known = old.refresh == from
                        || spent_before.contains(old.refresh)
                        || old == pair
                        || (is_code(from) && Some(old) == from_pair);
                    if secret.by_outsider && !known && world.marks[usize::from(old.refresh)] != Mark::Spent {
                        result =
                            breach(Invariant::PersonOverwritten, "tokens that somebody put there are written over");
                    } else if old.family() > pair.family() {
                        result =
                            breach(Invariant::PersonOverwritten, "an older authorization's pair is written over it");
                    } else if world.is_living(old.refresh)
                        && !world.is_living(pair.refresh)
                        // That TikTok has killed what its code gave, and nobody has presented, nobody can know.
                        && !(is_code(from) && world.marks[usize::from(pair.refresh)] == Mark::Fresh)
                    {
                        result = breach(Invariant::AnswerForgotten, "a spent pair is written over a living one");
                    }
                }
                secret.pair = Some(pair);
                let kept = from_pair.filter(|_| pair.refresh == from);
                secret.refreshed_from = Some(kept.map_or(From::Token(from), From::Pair));
                let spent_before = spent_before.and(secret.spent).without(pair.refresh);
                secret.spent = if pair.refresh == from { spent_before } else { spent_before.with(from) };
                secret.code = secret.code.filter(|code| *code != from);
                secret.noted_pair = Some(pair);
                secret.by_outsider = false;
                world.secret = Some(secret);
                if remove_claim {
                    world.set_claim(leave);
                }
                self.settle_mark(world, from, from_pair, pair);
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
            if self.tiktok == TikTok::Keeps && !is_code(from) {
                // One that is refused is presented again after a pause, and again: that is nothing to count.
                let family = &mut world.tiktok[usize::from(from / ROTATIONS)];
                family.grants += u8::from(!family.killed);
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
        if is_code(token) {
            return self.exchange(world, token);
        }
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

    /// A code gives the first pair of a new authorization, once; the authorizations before it are dead then.
    fn exchange(&self, world: &mut World, code: u8) -> Option<Pair> {
        let number = family_of_code(code);
        if !world.is_good_code(code) {
            world.tiktok[number].killed |= self.tiktok == TikTok::Kills;
            return None;
        }
        world.used[usize::from(code - CODES[0])] = true;
        world.tiktok[0].killed = true;
        world.tiktok[2].killed |= number > 2;
        let number = u8::try_from(number).expect("few authorizations");
        Some(Pair { refresh: number * ROTATIONS, access: number * GRANTS })
    }

    /// The answer reaches the process.
    pub fn answered(pair: Option<Pair>, told: &mut Transaction) -> Event {
        told.granted = pair;
        told.refused = pair.is_none();
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
        // One that is known to be of no use is not; where nothing knows it any more, nobody can help.
        let noted = |code| secret.spent.contains(code) || secret.refreshed_from == Some(From::Token(code));
        if secret.code.is_some_and(|code| world.is_good_code(code) && !noted(code)) {
            return false;
        }
        let Some(pair) = secret.pair else { return true };
        let kept_is_wanted = world.processes.iter().filter(|process| process.run == Run::Up).any(|process| {
            process.journal.kept.is_some_and(|kept| {
                !kept.restored
                    && kept.entry.from == pair.refresh
                    // With a newer pair noted, which nobody keeps, the operator says so and waits for a person.
                    && secret
                        .noted_pair
                        .is_none_or(|noted| noted == kept.answer() || Some(noted) == kept.entry.from_pair)
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
