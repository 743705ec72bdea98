//! model
#![allow(missing_docs)]

mod checker;
mod defects;
mod driver;
mod moves;
mod world;

use checker::{Explored, Violation, check};
use driver::{Hole, Rules, TikTok};
use world::{Left, World};

const RULES: Rules = Rules { tiktok: TikTok::Rotates, journal: true, rounds: 1, dead_stay_dead: false, forgiven: &[Hole::UnknownNoMoreSaid, Hole::RevertedTakenForPerson], defect: None };

fn run(name: &str, rules: &Rules, instances: usize, left: Left) -> Result<Explored, Box<Violation>> {
    let began = std::time::Instant::now();
    let result = check(rules, &World::new(instances, left));
    match &result {
        Ok(explored) => println!("{name}, TikTok {:?}: {} states, {} steps, {:?}", rules.tiktok, explored.states, explored.steps, began.elapsed()),
        Err(v) => println!("{name}, TikTok {:?}: {:?}: {} ({:?})\n{}", rules.tiktok, v.breach.invariant, v.breach.how, began.elapsed(), v.trace),
    }
    result
}

#[test]
fn explore() {
    let n = Left::default();
    let one = |name: &str, instances, rules: Rules, left| {
        for tiktok in [TikTok::Rotates, TikTok::Keeps, TikTok::Kills] {
            if run(name, &Rules { tiktok, ..rules }, instances, left).is_err() {
                break;
            }
        }
    };
    one("1 faults", 1, RULES, Left { api: 1, tiktok: 1, crash: 1, ..n });
    one("1 faults", 1, RULES, Left { tiktok: 1, step_down: 1, slow: 1, crash: 1, ..n });
    one("1 tiktok1 journal", 1, RULES, Left { tiktok: 2, journal: 1, crash: 1, ..n });
    one("1 tiktok1 person", 1, RULES, Left { tiktok: 1, person: 2, api: 1, ..n });
    one("1 gitops r2", 1, Rules { rounds: 2, ..RULES }, Left { gitops: 1, api: 1, ..n });
    one("1 gitops r2", 1, Rules { rounds: 2, ..RULES }, Left { gitops: 2, crash: 1, kept_expires: 1, ..n });
    one("1 delete", 1, RULES, Left { delete: 1, api: 1, crash: 1, ..n });
    one("1 delete r2", 1, Rules { rounds: 2, ..RULES }, Left { delete: 1, api: 1, gitops: 1, person: 1, ..n });
    one("1 nojournal", 1, Rules { journal: false, ..RULES }, Left { crash: 1, api: 2, tiktok: 1, ..n });
    one("2 pause", 2, RULES, Left { pause: 1, ..n });
    one("2 pause api", 2, RULES, Left { pause: 1, api: 1, ..n });
    one("2 crash api", 2, RULES, Left { crash: 1, api: 1, ..n });
    one("2 crash api nj", 2, Rules { journal: false, ..RULES }, Left { crash: 1, api: 1, ..n });
    one("2 crash dead", 2, Rules { dead_stay_dead: true, ..RULES }, Left { crash: 1, api: 1, tiktok: 1, ..n });
    one("2 gitops r2", 2, Rules { rounds: 2, ..RULES }, Left { gitops: 1, ..n });
    one("2 person", 2, RULES, Left { person: 2, ..n });
    one("2 person pause", 2, RULES, Left { person: 1, pause: 1, ..n });
    one("2 slow", 2, RULES, Left { slow: 2, tiktok: 1, ..n });
    one("2 delete", 2, RULES, Left { delete: 1, crash: 1, ..n });
}
