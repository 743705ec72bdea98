//! What is injected in a run: the fields of the matrix, and random schedules of several faults.

use std::fmt;

use crate::cells::{Cell, Fault, Step};

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators"): a seed
/// repeats a run, and that is all that is asked of it.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub const fn of(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `count`.
    pub fn below(&mut self, count: usize) -> usize {
        let count = u64::try_from(count).expect("a count fits");
        usize::try_from(self.next() % count).expect("less than a count fits")
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

/// What starts the refresh that is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// An annotation, on an integration that is at rest.
    Request,
    /// A new integration whose access token is about to expire.
    Due,
    /// A new integration whose Secret holds an authorization code: an exchange, and no refresh.
    Code,
}

/// One refresh and what is done to it.
#[derive(Debug, Clone)]
pub struct Job {
    /// As the command line names it.
    pub name: String,
    /// In the order in which they are injected.
    pub cells: Vec<Cell>,
    pub trigger: Trigger,
    /// Which of a fault's variants: before or after the server saw the request, and the like.
    pub variant: usize,
    /// How often it was aimed and missed.
    pub missed: usize,
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<_> = self.cells.iter().map(ToString::to_string).collect();
        write!(f, "{} ({:?}, variant {}): {}", self.name, self.trigger, self.variant, cells.join(", "))
    }
}

impl Job {
    pub fn of(cell: Cell, nth: usize) -> Self {
        Self {
            name: format!("--only {cell}"),
            cells: vec![cell],
            // Both triggers see both moments.
            trigger: if (nth / 2).is_multiple_of(2) || never_due(cell) { Trigger::Request } else { Trigger::Due },
            variant: nth,
            missed: 0,
        }
    }

    /// The same field, hit in an exchange. None where that makes no sense.
    pub fn of_exchange(cell: Cell, nth: usize) -> Option<Self> {
        exchanges(cell.fault).then(|| {
            let usual = Self::of(cell, nth);
            Self { name: format!("--exchange {}", usual.name), trigger: Trigger::Code, ..usual }
        })
    }

    /// This job with an exchange in the place of its refresh, where that makes sense.
    pub fn into_exchange(self) -> Option<Self> {
        if self.trigger == Trigger::Code {
            return Some(self);
        }
        let makes_sense = self.cells.iter().all(|cell| exchanges(cell.fault));
        makes_sense.then(|| Self { name: format!("--exchange {}", self.name), trigger: Trigger::Code, ..self })
    }

    /// These, in this order.
    pub fn chosen(cells: &[Cell], nth: usize) -> Self {
        let names: Vec<_> = cells.iter().map(ToString::to_string).collect();
        Self { name: format!("--only {}", names.join("+")), cells: cells.to_vec(), ..Self::of(cells[0], nth) }
    }

    /// The random schedule of this number: the same for the same seed, whatever else is run.
    pub fn random(seed: u64, number: usize) -> Self {
        let mut random = Random::of(seed ^ u64::try_from(number).expect("few").wrapping_mul(0xd6e8_feb8_6659_fd93));
        let cells: Vec<Cell> =
            Cell::sensible().filter(|cell| cell.fault.mixes() && cell.step != Step::Settle).collect();
        let count = 2 + random.below(3);
        let mut chosen: Vec<Cell> = Vec::new();
        while chosen.len() < count {
            let cell = random.pick(&cells);
            if !chosen.iter().any(|other| clash(*other, cell)) {
                chosen.push(cell);
            }
        }
        chosen.sort_by_key(|cell| cell.step);
        let due = random.below(4) == 0 && !chosen.iter().any(|cell| never_due(*cell));
        let trigger = if due { Trigger::Due } else { Trigger::Request };
        Self { name: format!("--schedule {number}"), cells: chosen, trigger, variant: random.below(4), missed: 0 }
    }
}

/// Where TikTok gives the old pair, a token that is due stays so, and is left alone for a while; to a clock that stays
/// a day behind it is not due at all.
fn never_due(cell: Cell) -> bool {
    matches!(cell.fault, Fault::TikTokOldPair | Fault::BothBack)
}

/// Does this fault make sense in an exchange? Where a person puts other tokens there, which of two authorizations TikTok
/// got first is chance, and with it which pair is alive: the tests of the operator tell of that.
const fn exchanges(fault: Fault) -> bool {
    !matches!(fault, Fault::Replaced | Fault::RecreatedNew | Fault::RecreatedEmpty)
}

/// May these not both be injected into one refresh?
fn clash(one: Cell, other: Cell) -> bool {
    let either = |test: &dyn Fn(Cell, Cell) -> bool| test(one, other) || test(other, one);
    // TikTok goes wrong in one way at a time.
    let tiktok = either(&|one, other| one.fault.is_tiktoks() && other.step == Step::Call);
    // Who puts the old pair over new ones that a person put there has lost them: no operator knew them.
    let by_hand = |fault| matches!(fault, Fault::Replaced | Fault::RecreatedNew | Fault::IntegrationDeleted);
    let overwritten = either(&|one, other| one.fault == Fault::RecreatedOld && by_hand(other.fault));
    // What was stored is written back once; whoever puts the old pair back again is not fought, by design.
    let insists = [one, other].iter().all(|cell| cell.fault == Fault::RecreatedOld && cell.step >= Step::Persist);
    // Where TikTok gives the pair again that was there, the old one put back is the current one: nothing is written over it,
    // so a code that was put back with it stays, and an event says that it is spent.
    let same_pair = |one: Cell, other: Cell| {
        one.fault == Fault::TikTokOldPair && other.fault == Fault::RecreatedOld && other.step >= Step::Persist
    };
    one == other || tiktok || overwritten || insists || either(&same_pair)
}

/// No answer comes, TikTok refuses the one more try of a token that is due, and who is to say so is killed as it settles
/// its journal. The stop is there for the first call's gap, so that the kill is for the second's.
fn refused_and_killed() -> Job {
    let cells = [(Step::Call, Fault::TikTokHangs), (Step::Journal, Fault::Stop), (Step::Journal, Fault::KillAfter)];
    // This one is due, and killed as soon as the journal changes.
    Job::chosen(&cells.map(|(step, fault)| Cell { step, fault }), 3)
}

/// The jobs of a whole run: every field of the matrix, the quick ones again and again, and random
/// schedules, until there are so many faults.
pub fn whole(seed: u64, faults: usize, run: impl Fn(Cell) -> bool) -> Vec<Job> {
    let cells: Vec<Cell> = Cell::sensible().filter(|cell| run(*cell) && !cell.fault.needs_own_server()).collect();
    let quick: Vec<Cell> = cells.iter().copied().filter(|cell| !cell.fault.is_long()).collect();
    let mut random = Random::of(seed);
    let mut jobs: Vec<Job> = cells.iter().map(|cell| Job::of(*cell, random.below(4))).collect();
    jobs.push(refused_and_killed());
    let mut planned: usize = jobs.iter().map(|job| job.cells.len()).sum();
    let mut number = 0;
    let mut again = Vec::new();
    let mut nth = 0;
    while planned < faults {
        // About a third of all faults come in schedules.
        if number * 7 < planned {
            let job = Job::random(seed, number);
            let job = if number % 3 == 1 { job.clone().into_exchange().unwrap_or(job) } else { job };
            planned += job.cells.len();
            number += 1;
            jobs.push(job);
        } else {
            if again.is_empty() {
                nth += 1;
                again.clone_from(&quick);
                random.shuffle(&mut again);
            }
            let cell = again.pop().expect("it was just filled");
            let variant = nth + random.below(2) * 2;
            // The first time it is an exchange, and then every other time.
            let exchange = if nth % 2 == 1 { Job::of_exchange(cell, variant) } else { None };
            jobs.push(exchange.unwrap_or_else(|| Job::of(cell, variant)));
            planned += 1;
        }
    }
    random.shuffle(&mut jobs);
    // What takes long goes first, so that no lane is left alone with it at the end.
    jobs.sort_by_key(|job| !job.cells.iter().any(|cell| cell.fault.is_long()));
    jobs
}

/// The jobs of the short run that is part of all tests: each step, each fault, some schedules.
pub fn slice(seed: u64) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut random = Random::of(seed);
    for (at, fault) in Fault::ALL.into_iter().enumerate() {
        if fault.is_long() || fault.cast().needs_faketime() {
            continue;
        }
        let cells: Vec<Cell> = Cell::sensible().filter(|cell| cell.fault == fault).collect();
        jobs.push(Job::of(random.pick(&cells), at));
    }
    for step in Step::ALL {
        jobs.push(Job::of(Cell { step, fault: Fault::KillAfter }, random.below(4)));
    }
    for (step, fault) in [
        (Step::Rehearsal, Fault::Slow),
        (Step::Claim, Fault::KillAfter),
        (Step::Intent, Fault::KillAfter),
        (Step::Call, Fault::KillAfter),
        (Step::Call, Fault::TikTokCuts),
        (Step::Call, Fault::TwoLeaders),
        (Step::Journal, Fault::KillAfter),
        (Step::Persist, Fault::CutAfter),
        (Step::Persist, Fault::RecreatedOld),
        (Step::Settle, Fault::KillBefore),
    ] {
        jobs.extend(Job::of_exchange(Cell { step, fault }, random.below(4)));
    }
    jobs.push(refused_and_killed());
    jobs.extend((0..6).map(|number| Job::random(seed, number)));
    random.shuffle(&mut jobs);
    jobs
}
