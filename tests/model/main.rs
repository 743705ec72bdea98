//! model
#![allow(missing_docs)]

mod checker;
mod defects;
mod driver;
mod moves;
mod world;

use checker::{Explored, Violation, check};
use driver::{Rules, TikTok};
use world::{Left, World};

const RULES: Rules = Rules { tiktok: TikTok::Rotates, journal: true, rounds: 1, dead_stay_dead: false, defect: None };

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
    for tiktok in [TikTok::Rotates, TikTok::Keeps, TikTok::Kills] {
        let rules = Rules { tiktok, ..RULES };
        let _ = run("nothing", &rules, 1, Left::default());
        let _ = run("two, nothing", &rules, 2, Left::default());
        let _ = run("one api2", &rules, 1, Left { api: 2, ..Left::default() });
        let _ = run("one api1 tiktok1 crash1", &rules, 1, Left { api: 1, tiktok: 1, crash: 1, ..Left::default() });
    }
}
