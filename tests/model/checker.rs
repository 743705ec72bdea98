//! Goes through every state that can be reached, in order of distance, and then back from the good
//! ones to those from which they can be reached without a fault.

use std::collections::{HashMap, VecDeque};
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::driver::{Breach, Invariant, Rules};
use super::moves::Moves;
use super::world::World;

/// A broken promise, and the shortest way to it.
#[derive(Debug)]
pub struct Violation {
    pub breach: Breach,
    pub trace: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}\n{}", self.breach.invariant, self.breach.how, self.trace)
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explored {
    pub states: usize,
    pub steps: usize,
}

/// How a state was first reached: from which, by which of its steps.
#[derive(Clone, Copy)]
struct Origin {
    parent: u32,
    step: u16,
}

/// Checks all that can happen from a world under these rules.
pub fn check(rules: &Rules, start: &World) -> Result<Explored, Box<Violation>> {
    let start = start.clone().canonical();
    let mut known = HashMap::from([(fingerprint(&start), 0_u32)]);
    let mut origins = vec![Origin { parent: 0, step: 0 }];
    let mut good = vec![rules.is_good(&start)];
    let mut claimed = vec![false];
    // Steps that cost no fault, by the state they start from.
    let mut from: Vec<u32> = Vec::new();
    let mut to: Vec<u32> = Vec::new();
    let mut queue = VecDeque::from([(0_u32, start.clone())]);
    let mut steps = 0;
    while let Some((here, world)) = queue.pop_front() {
        for (nth, step) in Moves::of(rules, &world, false).into_iter().enumerate() {
            steps += 1;
            let nth = u16::try_from(nth).expect("few steps from one state");
            if let Some(breach) = step.breach {
                let trace = tell(rules, &start, &origins, here, Some(nth));
                return Err(Box::new(Violation { breach, trace }));
            }
            let fresh = u32::try_from(origins.len()).expect("fewer states than that");
            let there = *known.entry(fingerprint(&step.world)).or_insert(fresh);
            if there == fresh {
                origins.push(Origin { parent: here, step: nth });
                good.push(rules.is_good(&step.world));
                claimed.push(step.world.secret.is_some_and(|secret| secret.claim.is_some()));
                queue.push_back((fresh, step.world));
            }
            if !step.is_fault {
                from.push(here);
                to.push(there);
            }
        }
    }
    let recovers = reaches(&good, &from, &to);
    if let Some(stuck) = recovers.iter().position(|recovers| !recovers) {
        let (invariant, how) = if claimed[stuck] {
            (Invariant::Deadlock, "without a further fault, a claim is never got over")
        } else {
            (Invariant::DoesNotRecover, "without a further fault, the valid token never comes into the Secret")
        };
        let stuck = u32::try_from(stuck).expect("fewer states than that");
        let trace = tell(rules, &start, &origins, stuck, None);
        return Err(Box::new(Violation { breach: Breach { invariant, how }, trace }));
    }
    Ok(Explored { states: origins.len(), steps })
}

/// From which states is a good one reached?
fn reaches(good: &[bool], from: &[u32], to: &[u32]) -> Vec<bool> {
    // Predecessors, one after the other: those of state n stand from `first[n]` to `first[n + 1]`.
    let mut first = vec![0_usize; good.len() + 1];
    for &there in to {
        first[there as usize + 1] += 1;
    }
    for n in 1..first.len() {
        first[n] += first[n - 1];
    }
    let mut next = first.clone();
    let mut predecessors = vec![0_u32; to.len()];
    for (&here, &there) in from.iter().zip(to) {
        predecessors[next[there as usize]] = here;
        next[there as usize] += 1;
    }
    let mut reaching = good.to_vec();
    let mut queue: Vec<usize> = (0..good.len()).filter(|n| good[*n]).collect();
    while let Some(there) = queue.pop() {
        for &here in &predecessors[first[there]..first[there + 1]] {
            if !std::mem::replace(&mut reaching[here as usize], true) {
                queue.push(here as usize);
            }
        }
    }
    reaching
}

/// 64 bits: that two of a million states share one is less likely than 1 in 10^7.
fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// The way to a state, and one step further, in sentences.
fn tell(rules: &Rules, start: &World, origins: &[Origin], last: u32, further: Option<u16>) -> String {
    let mut way = Vec::from_iter(further);
    let mut at = last;
    while at != 0 {
        let Origin { parent, step } = origins[at as usize];
        way.push(step);
        at = parent;
    }
    way.reverse();
    let mut world = start.clone();
    let mut text = String::new();
    for (count, nth) in way.into_iter().enumerate() {
        let step = Moves::of(rules, &world, true).swap_remove(usize::from(nth));
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {:2}. {}", count + 1, step.words);
        world = step.world;
    }
    let _ = writeln!(text, "  Then: {:?}\n  TikTok: {:?}", world.secret, world.tiktok);
    for process in &world.processes {
        let _ = writeln!(text, "  {process:?}");
    }
    text
}
