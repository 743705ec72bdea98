//! What is checked: each scenario with everything that can happen within its bounds.

use super::driver::{Hole, Rules, TikTok};
use super::world::Left;

/// One bounded world.
pub struct Scenario {
    pub name: &'static str,
    pub rules: Rules,
    pub instances: usize,
    pub start: Start,
    pub left: Left,
    /// Fewer states than this, and the model does not do what it says. Where TikTok does not rotate
    /// there are about half as many as where it does.
    pub at_least: usize,
}

/// What stands in the Secret at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The first pair.
    Tokens,
    /// An authorization code.
    Code,
    /// Both.
    TokensAndCode,
}

pub const ALL: [TikTok; 3] = [TikTok::Rotates, TikTok::Keeps, TikTok::Kills];

/// The known limits are forgiven: each has a test of its own.
pub const RULES: Rules = Rules {
    tiktok: TikTok::Rotates,
    journal: true,
    rounds: 1,
    dead_stay_dead: false,
    forgiven: &[Hole::SpentPairWrittenBack, Hole::OldPairNotKnown],
    defect: None,
};
const TWO_ROUNDS: Rules = Rules { rounds: 2, ..RULES };
const NO_JOURNAL: Rules = Rules { journal: false, ..RULES };
const LOST_NODE: Rules = Rules { dead_stay_dead: true, ..RULES };

pub const NOTHING: Left = Left {
    api: 0,
    tiktok: 0,
    crash: 0,
    pause: 0,
    slow: 0,
    step_down: 0,
    journal: 0,
    person: 0,
    gitops: 0,
    code: 0,
    delete: 0,
    kept_expires: 0,
};

/// One instance, and everything that fails.
pub const ALONE: &[Scenario] = &[
    Scenario {
        name: "one instance, two API faults, one of TikTok, one crash",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { api: 2, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 4_000,
    },
    Scenario {
        name: "one instance, two calls that fail, a crash, a journal that fails",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { tiktok: 2, crash: 1, journal: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "one instance over two rounds, one fault of each, two crashes",
        rules: TWO_ROUNDS,
        instances: 1,
        start: Start::Tokens,
        left: Left { api: 1, tiktok: 1, crash: 2, ..NOTHING },
        at_least: 5_000,
    },
    Scenario {
        name: "one instance told to stop, slow, killed, TikTok failing",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { tiktok: 1, step_down: 1, slow: 1, crash: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "one instance without a journal, two API faults, one of TikTok, one crash",
        rules: NO_JOURNAL,
        instances: 1,
        start: Start::Tokens,
        left: Left { api: 2, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 3_000,
    },
];

/// One instance, and others who write the Secret.
pub const AMONG_OTHERS: &[Scenario] = &[
    Scenario {
        name: "one instance, a person, one fault of each, killed",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { person: 1, api: 1, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 10_000,
    },
    Scenario {
        name: "one instance, two writes of a person, two API faults",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { person: 2, api: 2, ..NOTHING },
        at_least: 1_000,
    },
    Scenario {
        name: "one instance, two writes of a person, a call that fails, killed",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { person: 2, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 10_000,
    },
    Scenario {
        name: "one instance over two rounds, the first pair put back twice, an API fault, killed",
        rules: TWO_ROUNDS,
        instances: 1,
        start: Start::Tokens,
        left: Left { gitops: 2, api: 1, crash: 1, kept_expires: 1, ..NOTHING },
        at_least: 10_000,
    },
    Scenario {
        name: "one instance, the Secret deleted, an API fault, a crash, the first pair put back",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { delete: 1, api: 1, crash: 1, gitops: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "one instance, a person, a GitOps tool and a deletion over two rounds",
        rules: TWO_ROUNDS,
        instances: 1,
        start: Start::Tokens,
        left: Left { delete: 1, gitops: 1, person: 1, ..NOTHING },
        at_least: 5_000,
    },
];

/// Two instances that both believe that they lead.
pub const TWO_LEADERS: &[Scenario] = &[
    Scenario {
        name: "two leaders, one crash, one fault of each",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { crash: 1, api: 1, tiktok: 1, ..NOTHING },
        at_least: 30_000,
    },
    Scenario {
        name: "two leaders, one paused, one API fault",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { pause: 1, api: 1, ..NOTHING },
        at_least: 5_000,
    },
    Scenario {
        name: "two leaders, one paused, one killed",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { pause: 1, crash: 1, ..NOTHING },
        at_least: 10_000,
    },
    Scenario {
        name: "two leaders over two rounds, one paused, one slow",
        rules: TWO_ROUNDS,
        instances: 2,
        start: Start::Tokens,
        left: Left { pause: 1, slow: 1, ..NOTHING },
        at_least: 15_000,
    },
    Scenario {
        name: "two leaders, one lost with its node, one fault of each",
        rules: LOST_NODE,
        instances: 2,
        start: Start::Tokens,
        left: Left { crash: 1, api: 1, tiktok: 1, ..NOTHING },
        at_least: 7_000,
    },
    Scenario {
        name: "two leaders without a journal, one killed, one paused",
        rules: NO_JOURNAL,
        instances: 2,
        start: Start::Tokens,
        left: Left { crash: 1, pause: 1, ..NOTHING },
        at_least: 5_000,
    },
];

/// Two instances, and others who write the Secret.
pub const TWO_LEADERS_AMONG_OTHERS: &[Scenario] = &[
    Scenario {
        name: "two leaders, one paused, a person",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { person: 1, pause: 1, ..NOTHING },
        at_least: 20_000,
    },
    Scenario {
        name: "two leaders over two rounds, one killed, the first pair put back",
        rules: TWO_ROUNDS,
        instances: 2,
        start: Start::Tokens,
        left: Left { gitops: 1, crash: 1, ..NOTHING },
        at_least: 20_000,
    },
    Scenario {
        name: "two leaders, one killed, the Secret deleted",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { delete: 1, crash: 1, ..NOTHING },
        at_least: 10_000,
    },
    Scenario {
        name: "two leaders, a person and a GitOps tool",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { person: 1, gitops: 1, ..NOTHING },
        at_least: 5_000,
    },
];

/// Authorization codes, and one instance.
pub const CODES: &[Scenario] = &[
    Scenario {
        name: "a code alone, one instance, two API faults, one of TikTok, one crash",
        rules: RULES,
        instances: 1,
        start: Start::Code,
        left: Left { api: 2, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "a code beside tokens, one instance, two calls that fail, a crash, a journal that fails",
        rules: RULES,
        instances: 1,
        start: Start::TokensAndCode,
        left: Left { tiktok: 2, crash: 1, journal: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "a code that comes at any time, a second one after it, a call that fails, killed",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { code: 2, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 10_000,
    },
    Scenario {
        name: "a code beside tokens, a person, a call that fails, killed",
        rules: RULES,
        instances: 1,
        start: Start::TokensAndCode,
        left: Left { person: 1, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "a code beside tokens, a GitOps tool that puts back what it has, killed, the kept pair dropped",
        rules: RULES,
        instances: 1,
        start: Start::TokensAndCode,
        left: Left { gitops: 2, crash: 1, kept_expires: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "a code alone, the Secret deleted, an API fault, a person's code",
        rules: RULES,
        instances: 1,
        start: Start::Code,
        left: Left { delete: 1, api: 1, code: 1, ..NOTHING },
        at_least: 1_000,
    },
];

/// The same, of two instances that both believe that they lead.
pub const CODES_OF_TWO_LEADERS: &[Scenario] = &[
    Scenario {
        name: "a code beside tokens, two leaders, one killed, a call that fails",
        rules: RULES,
        instances: 2,
        start: Start::TokensAndCode,
        left: Left { crash: 1, tiktok: 1, ..NOTHING },
        at_least: 5_000,
    },
    Scenario {
        name: "a code that comes at any time, two leaders, one paused",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { code: 1, pause: 1, ..NOTHING },
        at_least: 5_000,
    },
    Scenario {
        name: "a code alone, two leaders without a journal, one killed, one paused",
        rules: NO_JOURNAL,
        instances: 2,
        start: Start::Code,
        left: Left { crash: 1, pause: 1, ..NOTHING },
        at_least: 2_000,
    },
    Scenario {
        name: "a code beside tokens, two leaders, one paused, a person",
        rules: RULES,
        instances: 2,
        start: Start::TokensAndCode,
        left: Left { person: 1, pause: 1, ..NOTHING },
        at_least: 5_000,
    },
];

/// Wider bounds, for when minutes do not matter.
pub const WIDE: &[Scenario] = &[
    Scenario {
        name: "one instance, two of each fault of API, TikTok and process",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { api: 2, tiktok: 2, crash: 2, journal: 1, ..NOTHING },
        at_least: 100_000,
    },
    Scenario {
        name: "one instance over two rounds, a person, a GitOps tool, a deletion, an API fault, killed",
        rules: TWO_ROUNDS,
        instances: 1,
        start: Start::Tokens,
        left: Left { person: 1, gitops: 1, delete: 1, api: 1, crash: 1, ..NOTHING },
        at_least: 100_000,
    },
    Scenario {
        name: "two leaders, one killed, one paused, a call that fails",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { crash: 1, pause: 1, tiktok: 1, ..NOTHING },
        at_least: 100_000,
    },
    Scenario {
        name: "two leaders, one killed, a person, an API fault",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { crash: 1, person: 1, api: 1, ..NOTHING },
        at_least: 100_000,
    },
    Scenario {
        name: "two leaders, one killed twice, a GitOps tool, a pause, without a journal",
        rules: NO_JOURNAL,
        instances: 2,
        start: Start::Tokens,
        left: Left { crash: 2, gitops: 1, pause: 1, ..NOTHING },
        at_least: 25_000,
    },
    Scenario {
        name: "two leaders, a person, a GitOps tool, a pause",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { person: 1, gitops: 1, pause: 1, ..NOTHING },
        at_least: 25_000,
    },
    Scenario {
        name: "two leaders told to stop, slow, killed, a journal that fails",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { step_down: 1, slow: 1, crash: 1, journal: 1, ..NOTHING },
        at_least: 25_000,
    },
    Scenario {
        name: "a code that comes at any time, a second one after it, one fault of each, killed",
        rules: RULES,
        instances: 1,
        start: Start::Tokens,
        left: Left { code: 2, api: 1, tiktok: 1, crash: 1, ..NOTHING },
        at_least: 100_000,
    },
    Scenario {
        name: "a code that comes at any time, two leaders, one paused, an API fault",
        rules: RULES,
        instances: 2,
        start: Start::Tokens,
        left: Left { code: 1, pause: 1, api: 1, ..NOTHING },
        at_least: 100_000,
    },
];
