//! Everything that may happen next, by whom.

use std::fmt::Write as _;

use tiktok_shop_operator::transaction::{ApiFailure, CallFailure, Command, Event, Release, State};

use super::defects::Defect;
use super::driver::{Breach, Rules, TikTok};
use super::world::{
    CODES, Entry, Excused, FIRST, From, Left, Mark, PERSONS, Pair, Run, Secret, Seen, Spent, Transaction, Wire, World,
    Write, is_current,
};

/// One thing that may happen.
pub struct Step {
    pub world: World,
    /// Does it cost a fault, or is it something that others may do but need not?
    pub is_fault: bool,
    pub breach: Option<Breach>,
    /// In a sentence, where asked for.
    pub words: String,
}

/// Collects what may happen in one world.
pub struct Moves<'a> {
    rules: &'a Rules,
    world: &'a World,
    say: bool,
    steps: Vec<Step>,
}

const NAMES: [&str; 2] = ["instance A", "instance B"];

type Faults = fn(&mut Left) -> &mut u8;

impl<'a> Moves<'a> {
    /// All steps from this world; with `say`, in words.
    pub fn of(rules: &'a Rules, world: &'a World, say: bool) -> Vec<Step> {
        let mut moves = Self { rules, world, say, steps: Vec::with_capacity(16) };
        for at in 0..world.processes.len() {
            moves.of_process(at);
        }
        moves.of_network();
        moves.of_others();
        moves.steps
    }

    fn add(
        &mut self,
        cost: Option<Faults>,
        words: impl FnOnce() -> String,
        change: impl FnOnce(&Rules, &mut World, &mut Option<String>) -> Result<(), Breach>,
    ) {
        let mut world = self.world.clone();
        if let Some(kind) = cost {
            let left = kind(&mut world.left);
            if *left == 0 {
                return;
            }
            *left -= 1;
        }
        let mut words = self.say.then(words);
        let breach = change(self.rules, &mut world, &mut words).err();
        let world = world.canonical();
        if breach.is_none() && world == *self.world {
            return;
        }
        self.steps.push(Step { world, is_fault: cost.is_some(), breach, words: words.unwrap_or_default() });
    }

    fn of_process(&mut self, at: usize) {
        let process = &self.world.processes[at];
        let name = NAMES[at];
        match process.run {
            Run::Dead if self.rules.dead_stay_dead => {}
            Run::Dead => {
                let words = || format!("{name} starts again");
                self.add(None, words, |rules, world, _| {
                    rules.start_process(world, at);
                    Ok(())
                });
            }
            Run::Paused => self.of_paused(at),
            Run::Up => self.of_running(at),
        }
    }

    fn of_paused(&mut self, at: usize) {
        let name = NAMES[at];
        let words = || format!("{name} goes on after a pause");
        self.add(None, words, |_, world, _| {
            world.processes[at].run = Run::Up;
            Ok(())
        });
        if self.world.processes[at].transaction.as_ref().is_some_and(|told| told.wire == Wire::Sent) {
            let words = || format!("TikTok deals with the call of {name}, which is paused");
            self.add(None, words, |rules, world, _| {
                let granted = deal_with(rules, world, at);
                if let Some(told) = &mut world.processes[at].transaction {
                    told.wire = granted.map_or(Wire::Refused, Wire::Granted);
                }
                Ok(())
            });
        }
        self.crashes(at);
    }

    fn of_running(&mut self, at: usize) {
        let process = &self.world.processes[at];
        let name = NAMES[at];
        self.ages(at);
        match &process.transaction {
            Some(told) => self.of_transaction(at, told),
            None => self.looks(at),
        }
        if !process.leads {
            let words = || format!("{name} leads again");
            self.add(None, words, |_, world, _| {
                world.processes[at].leads = true;
                Ok(())
            });
        }
        if process.journal.kept.is_some() {
            let words = || format!("{name} drops the pair it kept");
            self.add(Some(|left| &mut left.kept_expires), words, |_, world, _| {
                world.processes[at].journal.kept = None;
                Ok(())
            });
        }
        self.crashes(at);
    }

    fn of_transaction(&mut self, at: usize, told: &Transaction) {
        let name = NAMES[at];
        match told.command {
            Command::Rehearse { .. } | Command::Claim { .. } | Command::Persist { .. } | Command::Release { .. } => {
                self.writes(at);
            }
            Command::Read => self.reads(at),
            Command::Call => self.calls(at),
            Command::Intend | Command::JournalAnswer | Command::Forget { .. } => self.uses_journal(at),
            // Gone through at once, or over.
            Command::Wait(_) | Command::Finish(_) => {}
        }
        let words = || format!("{name} is stopped (SIGSTOP)");
        self.add(Some(|left| &mut left.pause), words, |_, world, _| {
            world.processes[at].run = Run::Paused;
            Ok(())
        });
        if self.world.processes[at].leads {
            let words = || format!("{name} is to start nothing new");
            self.add(Some(|left| &mut left.step_down), words, |_, world, _| {
                world.processes[at].leads = false;
                Ok(())
            });
        }
    }

    fn looks(&mut self, at: usize) {
        let words = || format!("{} looks at the Secret and decides", NAMES[at]);
        self.add(None, words, |rules, world, words| {
            if !rules.look(world, at) {
                return Ok(());
            }
            if let (Some(words), Some(told)) = (words, &world.processes[at].transaction) {
                let said = if told.unknown_before { " (an earlier outcome is unknown)" } else { "" };
                let what = if told.is_exchange() { "code" } else { "refresh token" };
                // Writing to a String does not fail.
                let _ = write!(words, ": {:?} of {what} {}{said} ─▶ {:?}", told.work, told.from, told.command);
            }
            Ok(())
        });
    }

    /// The life of a claim that this process has seen passes, on its own clock.
    fn ages(&mut self, at: usize) {
        let Some(claim) = self.world.secret.and_then(|secret| secret.claim) else { return };
        if self.world.processes[at].seen != Seen::Since || self.rules.defect == Some(Defect::AnothersClaimNeverExpires)
        {
            return;
        }
        let owner = self.world.owner(claim.id).filter(|owner| *owner != at);
        let runs = owner.is_some_and(|owner| self.world.processes[owner].run == Run::Up);
        let calls = owner
            .and_then(|owner| self.world.processes[owner].transaction.as_ref())
            .is_some_and(|told| told.wire == Wire::Sent);
        // A process that runs gives its call up before its claim is over.
        if runs && calls {
            return;
        }
        let cost: Option<Faults> = if runs { Some(|left| &mut left.slow) } else { None };
        self.add(
            cost,
            || format!("to {}, the life of the claim is over", NAMES[at]),
            |_, world, _| {
                world.processes[at].seen = Seen::Expired;
                if let Some(told) = owner.and_then(|owner| world.processes[owner].transaction.as_mut()) {
                    told.aged = true;
                }
                Ok(())
            },
        );
    }

    fn crashes(&mut self, at: usize) {
        let name = NAMES[at];
        self.add(
            Some(|left| &mut left.crash),
            || format!("{name} is killed"),
            |rules, world, _| crash(rules, world, at, false),
        );
        let writes = self.world.processes[at].transaction.as_ref().is_some_and(|told| {
            matches!(&told.command, Command::Claim { at } | Command::Persist { at, .. } | Command::Release { at, .. } if is_current(at))
        });
        if writes {
            let words = || format!("{name} is killed, and the request it has just sent is still on its way");
            self.add(Some(|left| &mut left.crash), words, |rules, world, _| crash(rules, world, at, true));
        }
    }

    fn reads(&mut self, at: usize) {
        let name = NAMES[at];
        self.add(
            None,
            || format!("{name} reads the Secret"),
            |rules, world, words| {
                let event = if world.secret.is_some() {
                    let attempt = attempt(world, at);
                    Event::Read(rules.seen(world, at, attempt))
                } else {
                    Event::ApiFailed(ApiFailure::NotFound)
                };
                rules.feed(world, at, event, words)
            },
        );
        self.add(
            Some(|left| &mut left.api),
            || format!("{name} can't read the Secret"),
            |rules, world, words| rules.feed(world, at, Event::ApiFailed(ApiFailure::Lost), words),
        );
    }

    fn writes(&mut self, at: usize) {
        let name = NAMES[at];
        let process = &self.world.processes[at];
        let Some(told) = &process.transaction else { return };
        let (what, condition) = match &told.command {
            Command::Rehearse { at } => ("rehearsal", at),
            Command::Claim { at } => ("claim", at),
            Command::Persist { at, .. } => ("new pair", at),
            Command::Release { at, .. } => ("settling of its claim", at),
            _ => return,
        };
        let claims = matches!(told.command, Command::Claim { .. });
        if claims && told.nth_claim == 0 && !process.leads {
            return self.add(
                None,
                || format!("{name} is to start nothing new"),
                |rules, world, words| rules.feed(world, at, Event::Stopped, words),
            );
        }
        let unconditional = claims && self.rules.defect == Some(Defect::ClaimWithoutPrecondition);
        let rehearses = matches!(told.command, Command::Rehearse { .. });
        let fits = is_current(condition) || unconditional;
        let is_there = self.world.secret.is_some();
        if is_there && fits {
            self.add(
                None,
                || format!("{name} writes its {what}"),
                |rules, world, words| {
                    let write = rules.write(world, at);
                    let attempt = attempt(world, at);
                    let view = match write {
                        None => rules.view(world, at, attempt),
                        Some(write) => {
                            if rules.defect == Some(Defect::ForgottenBeforePersist)
                                && matches!(write, Write::Persist { .. })
                            {
                                world.processes[at].journal.entry = None;
                            }
                            rules.apply(world, write)?;
                            rules.seen(world, at, attempt)
                        }
                    };
                    rules.feed(world, at, Event::Applied(view), words)
                },
            );
        } else {
            let failure = if is_there { ApiFailure::Conflict } else { ApiFailure::NotFound };
            self.add(
                None,
                || format!("{name} writes its {what} and fails: {failure:?}"),
                |rules, world, words| {
                    rules.write(world, at);
                    rules.feed(world, at, Event::ApiFailed(failure), words)
                },
            );
        }
        if rehearses {
            return self.add(
                Some(|left| &mut left.api),
                || format!("{name}'s {what} fails"),
                |rules, world, words| rules.feed(world, at, Event::ApiFailed(ApiFailure::Lost), words),
            );
        }
        let failure = if claims { ApiFailure::Busy } else { ApiFailure::Forbidden };
        let words = || format!("{name} writes its {what} and is turned away: {failure:?}");
        self.add(Some(|left| &mut left.api), words, |rules, world, words| {
            rules.write(world, at);
            if rules.defect == Some(Defect::ForgottenBeforePersist) && !claims {
                world.processes[at].journal.entry = None;
            }
            rules.feed(world, at, Event::ApiFailed(failure), words)
        });
        if is_there && fits {
            let words = || format!("{name} writes its {what}, which is applied, and the reply is lost");
            self.add(Some(|left| &mut left.api), words, |rules, world, words| {
                if let Some(write) = rules.write(world, at) {
                    rules.apply(world, write)?;
                }
                rules.feed(world, at, Event::ApiFailed(ApiFailure::Lost), words)
            });
        }
        let words = || format!("{name} writes its {what} and gets no reply; the request may still arrive");
        self.add(Some(|left| &mut left.api), words, |rules, world, words| {
            let write = rules.write(world, at);
            world.late_writes.extend(write.filter(|_| is_there && fits));
            rules.feed(world, at, Event::ApiFailed(ApiFailure::Lost), words)
        });
    }

    fn calls(&mut self, at: usize) {
        let name = NAMES[at];
        let process = &self.world.processes[at];
        let Some(told) = &process.transaction else { return };
        match told.wire {
            Wire::Quiet if !process.leads => {
                self.add(
                    None,
                    || format!("{name} is to start nothing new"),
                    |rules, world, words| rules.feed(world, at, Event::Stopped, words),
                );
            }
            Wire::Quiet => {
                let cost: Option<Faults> = if told.aged { None } else { Some(|left| &mut left.slow) };
                self.add(
                    cost,
                    || format!("{name} comes too late for a call"),
                    |rules, world, words| rules.feed(world, at, Event::TooLate, words),
                );
                if !told.aged {
                    let token = told.from;
                    let words = || format!("{name} calls TikTok with credential {token}");
                    self.add(None, words, |rules, world, _| rules.judge_presenting(world, at));
                }
            }
            Wire::Sent => {
                self.add(
                    None,
                    || format!("TikTok answers {name}"),
                    |rules, world, words| {
                        let granted = deal_with(rules, world, at);
                        answer(rules, world, at, granted, words)
                    },
                );
                let cost: Option<Faults> = if told.aged { None } else { Some(|left| &mut left.tiktok) };
                let words = || format!("{name} gets no answer from TikTok; the call may still be dealt with");
                self.add(cost, words, |rules, world, words| {
                    leave_call(rules, world, at);
                    rules.feed(world, at, Event::CallFailed(CallFailure::Unknown), words)
                });
                for failure in [CallFailure::Answered, CallFailure::Unspent] {
                    let words = || format!("the call of {name} fails: {failure:?}");
                    self.add(Some(|left| &mut left.tiktok), words, |rules, world, words| {
                        if let Some(told) = &world.processes[at].transaction {
                            world.marks[usize::from(told.from)] = told.mark_before;
                        }
                        quiet(world, at);
                        rules.feed(world, at, Event::CallFailed(failure), words)
                    });
                }
            }
            Wire::Granted(pair) => self.late_answer(at, Some(pair)),
            Wire::Refused => self.late_answer(at, None),
        }
    }

    fn late_answer(&mut self, at: usize, granted: Option<Pair>) {
        let name = NAMES[at];
        self.add(
            None,
            || format!("{name} finds TikTok's answer"),
            |rules, world, words| answer(rules, world, at, granted, words),
        );
        self.add(
            None,
            || format!("{name} finds that its call took too long"),
            |rules, world, words| {
                quiet(world, at);
                rules.feed(world, at, Event::CallFailed(CallFailure::Unknown), words)
            },
        );
    }

    fn uses_journal(&mut self, at: usize) {
        let name = NAMES[at];
        let process = &self.world.processes[at];
        let Some(told) = &process.transaction else { return };
        let command = told.command.clone();
        let has_journal = self.rules.journal;
        match command {
            Command::Intend => {
                let answer_waits = process.journal.entry.is_some_and(|entry| entry.answer.is_some());
                if !answer_waits {
                    self.add(
                        None,
                        || format!("{name} writes its intent"),
                        |rules, world, words| {
                            note(rules, world, at, None);
                            rules.feed(world, at, Event::Intended, words)
                        },
                    );
                }
                if has_journal {
                    let cost: Option<Faults> = if answer_waits { None } else { Some(|left| &mut left.journal) };
                    self.add(
                        cost,
                        || format!("{name} can't write its intent"),
                        |rules, world, words| rules.feed(world, at, Event::IntentFailed, words),
                    );
                }
            }
            Command::JournalAnswer => {
                self.add(
                    None,
                    || format!("{name} writes the answer to its journal"),
                    |rules, world, words| {
                        let granted = world.processes[at].transaction.as_ref().and_then(|told| told.granted);
                        note(rules, world, at, granted);
                        rules.feed(world, at, Event::Journaled, words)
                    },
                );
                if has_journal {
                    let words = || format!("{name} can't write the answer to its journal");
                    self.add(Some(|left| &mut left.journal), words, |rules, world, words| {
                        rules.feed(world, at, Event::Journaled, words)
                    });
                }
            }
            Command::Forget { keep } => {
                self.add(
                    None,
                    || format!("{name} settles its journal"),
                    |rules, world, words| {
                        Rules::forget(world, at, keep);
                        rules.feed(world, at, Event::Forgotten, words)
                    },
                );
            }
            _ => {}
        }
    }

    /// What was sent and is still on its way.
    fn of_network(&mut self) {
        for place in 0..self.world.late_writes.len() {
            let write = self.world.late_writes[place];
            self.add(
                None,
                || format!("a late request arrives: {write:?}"),
                |rules, world, _| {
                    let write = world.late_writes.remove(place);
                    rules.apply(world, write)
                },
            );
            self.add(
                None,
                || format!("a late request is lost: {write:?}"),
                |_, world, _| {
                    world.late_writes.remove(place);
                    Ok(())
                },
            );
        }
        for place in 0..self.world.late_calls.len() {
            let token = self.world.late_calls[place];
            self.add(
                None,
                || format!("TikTok gets a late call with credential {token}"),
                |rules, world, _| {
                    let token = world.late_calls.remove(place);
                    rules.grant(world, token, 0);
                    Ok(())
                },
            );
            self.add(
                None,
                || format!("a late call with credential {token} is lost"),
                |_, world, _| {
                    world.late_calls.remove(place);
                    Ok(())
                },
            );
        }
    }

    fn of_others(&mut self) {
        let Some(secret) = self.world.secret else {
            for pair in [Some(FIRST), None] {
                let words = || format!("the Secret is created anew with {pair:?}");
                self.add(None, words, |_, world, _| {
                    world.secret = Some(Secret {
                        pair,
                        code: None,
                        refreshed_from: None,
                        spent: Spent::default(),
                        noted_pair: None,
                        claim: None,
                        by_outsider: true,
                        code_put_back: false,
                    });
                    put(world, pair.map(|pair| pair.refresh));
                    Ok(())
                });
            }
            return;
        };
        let person: Option<Faults> = Some(|left| &mut left.person);
        for keeps_annotations in [true, false] {
            let how = if keeps_annotations { "patches" } else { "replaces" };
            // One new authorization is enough.
            let pasted = self.world.tiktok[1].grants > 0 || secret.pair.is_some_and(|pair| pair.family() == 1);
            if !pasted {
                let words = || format!("a person authorizes anew and {how} the Secret with the new pair");
                self.add(person, words, |_, world, _| {
                    overwrite(world, Some(PERSONS), keeps_annotations);
                    Ok(())
                });
            }
            if secret.pair != Some(FIRST) {
                let words = || format!("a GitOps tool {how} the Secret with the first pair");
                self.add(Some(|left| &mut left.gitops), words, |_, world, _| {
                    overwrite(world, Some(FIRST), keeps_annotations);
                    Ok(())
                });
            }
        }
        for code in CODES {
            let nth = code - CODES[0];
            // The second only after the first; one that was used is no person's any more.
            let was_first = nth == 0 || secret.code == Some(CODES[0]) || self.world.used[0];
            if secret.code != Some(code) && was_first && self.world.is_good_code(code) {
                let words = || format!("a person puts code {code} there");
                self.add(Some(|left| &mut left.code), words, |_, world, _| {
                    put_code(world, code);
                    Ok(())
                });
            }
        }
        if self.world.used[0] {
            let gitops: Option<Faults> = Some(|left| &mut left.gitops);
            if secret.code.is_none() {
                self.add(
                    gitops,
                    || "a GitOps tool puts the first code back".to_owned(),
                    |_, world, _| {
                        put_code(world, CODES[0]);
                        Ok(())
                    },
                );
            }
            let words = || "a GitOps tool replaces the Secret with the first code alone".to_owned();
            self.add(gitops, words, |_, world, _| {
                replace_by_code(world, CODES[0]);
                Ok(())
            });
        }
        self.add(
            person,
            || "a person labels the Secret".to_owned(),
            |_, world, _| {
                world.bump();
                Ok(())
            },
        );
        let words = || "a person replaces the Secret with the same pair, and drops the annotations".to_owned();
        self.add(person, words, |_, world, _| {
            overwrite(world, secret.pair, false);
            Ok(())
        });
        self.add(
            Some(|left| &mut left.delete),
            || "somebody deletes the Secret".to_owned(),
            |_, world, _| {
                drop_claim(world);
                world.secret = None;
                world.bump();
                Ok(())
            },
        );
    }
}

fn attempt(world: &World, at: usize) -> u8 {
    world.processes[at].transaction.as_ref().map_or(0, |told| told.attempt)
}

/// TikTok deals with the call of a process.
fn deal_with(rules: &Rules, world: &mut World, at: usize) -> Option<Pair> {
    let (token, call) = world.processes[at].transaction.as_ref().map(|told| (told.from, told.call))?;
    rules.grant(world, token, call)
}

fn quiet(world: &mut World, at: usize) {
    if let Some(told) = &mut world.processes[at].transaction {
        told.wire = Wire::Quiet;
    }
}

/// A call is left to its fate: TikTok may still get it.
fn leave_call(rules: &Rules, world: &mut World, at: usize) {
    let Some(told) = &mut world.processes[at].transaction else { return };
    // Where the refresh token stays, a call that nobody waits for changes nothing.
    if told.wire == Wire::Sent && (rules.tiktok != TikTok::Keeps || told.is_exchange()) {
        let token = told.from;
        world.late_calls.push(token);
        world.late_calls.sort_unstable();
    }
    quiet(world, at);
}

fn answer(
    rules: &Rules,
    world: &mut World,
    at: usize,
    granted: Option<Pair>,
    words: &mut Option<String>,
) -> Result<(), Breach> {
    let Some(told) = &mut world.processes[at].transaction else { return Ok(()) };
    told.wire = Wire::Quiet;
    if granted.is_none() {
        world.marks[usize::from(told.from)] = Mark::Refused;
    }
    if let Some(words) = words {
        let _ = write!(words, ": {granted:?}");
    }
    let event = Rules::answered(granted, told);
    rules.feed(world, at, event, words)
}

/// An entry is written to the journal.
fn note(rules: &Rules, world: &mut World, at: usize, answer: Option<Pair>) {
    if !rules.journal {
        return;
    }
    let process = &mut world.processes[at];
    if let Some(told) = &mut process.transaction {
        told.is_journaled = answer.is_some();
        process.journal.entry = Some(Entry { ..told.entry(answer) });
    }
}

fn crash(rules: &Rules, world: &mut World, at: usize, leaves_write: bool) -> Result<(), Breach> {
    let result = rules.judge_crash(world, at);
    if leaves_write {
        let write = rules.write(world, at);
        world.late_writes.extend(write);
    }
    leave_call(rules, world, at);
    let holder = u8::try_from(at).expect("two instances");
    let on_secret = world.secret.as_mut().and_then(|secret| secret.claim.as_mut());
    let late = world.late_writes.iter_mut().filter_map(Write::claim_mut);
    on_secret.into_iter().chain(late).filter(|claim| claim.holder == holder).for_each(|claim| claim.this_life = false);
    for excused in &mut world.excused {
        if *excused == Excused::AllBut(holder) {
            *excused = Excused::All;
        }
    }
    let process = &mut world.processes[at];
    process.run = Run::Dead;
    process.leads = true;
    process.transaction = None;
    process.knows_from_transaction = false;
    process.last_spent = None;
    process.last_code = None;
    process.seen = Seen::No;
    process.intended = None;
    result
}

/// Somebody who is no operator takes the claim away, and with it what it says of its token.
fn drop_claim(world: &mut World) {
    let Some(claim) = world.secret.and_then(|secret| secret.claim) else { return };
    for credential in std::iter::once(claim.from).chain(claim.beside) {
        let place = usize::from(credential);
        if world.excused[place] != Excused::All {
            world.excused[place] = excused(world, credential);
        }
    }
    world.set_claim(None);
}

/// A pair is put into the Secret by an outsider: a token whose outcome is unknown, with no claim
/// about it there any more, can't be told from a fresh one.
fn put(world: &mut World, credential: Option<u8>) {
    let Some(credential) = credential else { return };
    let place = usize::from(credential);
    let claim = world.secret.and_then(|secret| secret.claim);
    let said = claim.is_some_and(|claim| claim.from == credential || claim.beside == Some(credential));
    if world.marks[place] == Mark::Open && !said && world.excused[place] == Excused::Nobody {
        world.excused[place] = excused(world, credential);
    }
}

/// A code is put beside what stands there.
fn put_code(world: &mut World, code: u8) {
    let Some(secret) = &mut world.secret else { return };
    secret.code = Some(code);
    secret.code_put_back = world.used[usize::from(code - CODES[0])];
    world.bump();
    put(world, Some(code));
}

/// The first file is put in the place of all that stands there: a code, and nothing else.
fn replace_by_code(world: &mut World, code: u8) {
    drop_claim(world);
    let Some(secret) = &mut world.secret else { return };
    *secret = Secret {
        pair: None,
        code: Some(code),
        refreshed_from: None,
        spent: Spent::default(),
        noted_pair: None,
        claim: None,
        by_outsider: true,
        code_put_back: world.used[usize::from(code - CODES[0])],
    };
    world.bump();
    put(world, Some(code));
}

/// One process alone needs no claim to know what it does itself at that moment.
fn excused(world: &World, token: u8) -> Excused {
    let [process] = &world.processes[..] else { return Excused::All };
    let is_at_it = process.transaction.as_ref().is_some_and(|told| {
        let marks = matches!(
            told.state,
            State::Releasing { how: Release::MarkUnknown { .. }, .. }
                | State::RereadingToRelease { how: Release::MarkUnknown { .. }, .. }
        );
        told.from == token && (marks || told.wire != Wire::Quiet)
    });
    if is_at_it { Excused::AllBut(0) } else { Excused::All }
}

fn overwrite(world: &mut World, pair: Option<Pair>, keeps_annotations: bool) {
    if !keeps_annotations {
        drop_claim(world);
    }
    let Some(secret) = &mut world.secret else { return };
    if secret.pair != pair {
        secret.pair = pair;
        secret.by_outsider = true;
    }
    if !keeps_annotations {
        secret.refreshed_from = None::<From>;
        secret.noted_pair = None;
        secret.spent = Spent::default();
        secret.code_put_back = secret.code.is_some();
    }
    world.bump();
    put(world, pair.map(|pair| pair.refresh));
}
