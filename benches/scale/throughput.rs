//! Refreshes a second, beside the raw limit.
//!
//! The operator is stopped (SIGSTOP) until all are due, so that all are due at once; meanwhile the bare
//! loop has the machine to itself. Before its next run the lives of new tokens are set so that they come
//! due again soon after it.

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use tiktok_shop_testkit::operator::{Builder, Operator};
use tiktok_shop_testkit::simulator::ShopPatch;

use crate::counts::Counts;
use crate::fleet::{self, Form, JITTER, WINDOW};
use crate::results::{Goal, Results, count as number, mebibytes, median};
use crate::stage::{Cpu, PATIENCE, Stage, at_rest};

const PART: &str = "throughput";

/// The number in flight that the goals speak of.
const GOAL_AT: usize = 32;

/// A token that lives shorter than this beyond its window has another window: a third of its life.
const SHORTEST_PAUSE: Duration = Duration::from_secs(20);

/// One run.
struct Run {
    seconds: f64,
    cpu: Cpu,
}

impl Run {
    fn rate(&self, count: usize) -> f64 {
        number(count) / self.seconds
    }
}

/// A fleet that comes due again and again.
pub struct Due {
    pub names: Vec<String>,
    /// When the last of them is due next.
    all_due: Instant,
}

impl Due {
    /// So many shops that are due at once.
    pub async fn make(stage: &Stage, form: Form, prefix: &str, count: usize) -> Self {
        let shops = fleet::make(stage, form, prefix, count, WINDOW / 2, 0).await;
        Self { names: shops.into_iter().map(|shop| shop.id).collect(), all_due: Instant::now() }
    }

    /// Has the next tokens come due this long after they are given out, and waits until the present ones are.
    pub async fn wait(&mut self, stage: &Stage, again_after: Duration) {
        let pause = i64::try_from(again_after.as_secs()).expect("a short time");
        let lives = ShopPatch { access_life_seconds: Some(WINDOW + JITTER + pause), ..ShopPatch::default() };
        stream::iter(&self.names)
            .for_each_concurrent(16, async |name| drop(stage.simulator.patch_shop(name, &lives).await))
            .await;
        let wait = self.all_due.saturating_duration_since(Instant::now());
        if wait > Duration::from_mins(1) {
            eprintln!("  {} s until all are due", wait.as_secs());
        }
        tokio::time::sleep_until(self.all_due.into()).await;
    }

    /// All were refreshed by now, with the lives that [`Due::wait`] was asked for.
    pub fn refreshed(&mut self, again_after: Duration) {
        let jitter = Duration::from_secs(JITTER.unsigned_abs());
        self.all_due = Instant::now() + again_after + jitter + Duration::from_secs(2);
    }
}

pub async fn measure(stage: &Stage, sizes: &[(usize, Vec<(usize, usize)>)], results: &mut Results) {
    for (count, settings) in sizes {
        let (due, bare): (&'static str, &'static str) = (format!("due-{count}").leak(), format!("bare-{count}").leak());
        eprintln!("making two fleets of {count}");
        let mut fleet = Due::make(stage, Form::due(due), &format!("due-{count}-"), *count).await;
        fleet::make(stage, Form::due(bare), &format!("bare-{count}-"), *count, WINDOW / 2, 0).await;
        // The first writes of an object make it larger; all others are alike.
        bare_run(stage, bare, *count, GOAL_AT).await;
        for (in_flight, pairs) in settings {
            level(stage, &mut fleet, (due, bare), *in_flight, *pairs, results).await;
        }
    }
}

async fn bare_run(stage: &Stage, namespace: &str, count: usize, in_flight: usize) -> Run {
    let (count, in_flight) = (count.to_string(), in_flight.to_string());
    let args = ["refresh", "--namespace", namespace, "--count", &count, "--in-flight", &in_flight];
    let bare = stage.bare(&args).await;
    let before = stage.cpu(bare.process());
    let done = bare.go().await;
    Run { seconds: done.seconds, cpu: stage.cpu(bare.process()).since(before) }
}

/// Starts operators on a fleet that is due, and stops them (SIGSTOP) when they have done all of it.
pub async fn first_run<const N: usize>(stage: &Stage, operators: [Builder; N], count: usize) -> [Operator; N] {
    let refreshed = stage.simulator.witness().await.totals.refreshes;
    let operators = operators.map(Builder::start);
    stage.simulator.wait_for_total_refreshes(refreshed + count as u64, PATIENCE).await;
    for operator in &operators {
        at_rest(operator.process()).await;
    }
    operators.iter().for_each(Operator::pause);
    operators
}

/// Refreshes all that is due, from a standing start.
async fn run(stage: &Stage, operator: &Operator, count: usize) -> (Run, Counts) {
    let refreshed = stage.simulator.witness().await.totals.refreshes;
    let requests = Counts::now(&stage.plane).await;
    let before = stage.cpu(operator.process());
    let began = Instant::now();
    operator.resume();
    let all = refreshed + count as u64;
    stage.simulator.wait_for_total_refreshes(all, PATIENCE).await;
    let ended = at_rest(operator.process()).await;
    let cpu = stage.cpu(operator.process()).since(before);
    operator.pause();
    let refreshed = stage.simulator.witness().await.totals.refreshes;
    assert_eq!(refreshed, all, "each is refreshed once: the lives of their tokens are too short for this machine");
    let requests = Counts::now(&stage.plane).await.since(&requests);
    (Run { seconds: (ended - began).as_secs_f64(), cpu }, requests)
}

async fn level(
    stage: &Stage,
    fleet: &mut Due,
    (due, bare): (&str, &str),
    in_flight: usize,
    pairs: usize,
    results: &mut Results,
) {
    let count = fleet.names.len();
    let named = |what: &str| format!("{what}, {count} due, {in_flight} in flight");
    eprintln!("{}", named("refreshes"));
    let mut limit = bare_run(stage, bare, count, in_flight).await;
    // Twice the raw limit's time is more than it may take, and it has to be over before the first is due again.
    let again = |limit: &Run| Duration::from_secs_f64(limit.seconds * 2.0 + 10.0).max(SHORTEST_PAUSE);
    let mut again_after = again(&limit);
    // What a start costs more: the Secret is read first.
    fleet.wait(stage, again_after).await;
    let before = Counts::now(&stage.plane).await;
    let operators =
        first_run(stage, [stage.operator(due).flag("max-concurrent-refreshes", &in_flight.to_string())], count).await;
    let [operator] = &operators;
    fleet.refreshed(again_after);
    let requests = Counts::now(&stage.plane).await.since(&before);
    let per_refresh = |requests: &Counts| number(usize::try_from(requests.requests()).unwrap_or(0)) / number(count);
    results.aim(PART, named("requests a refresh after a restart"), per_refresh(&requests), "", Goal::AtMost(6.05));

    let (mut limits, mut runs, mut asked) = (Vec::new(), Vec::new(), Counts::default());
    for pair in 0..pairs {
        if pair > 0 {
            limit = bare_run(stage, bare, count, in_flight).await;
            again_after = again(&limit);
        }
        fleet.wait(stage, again_after).await;
        let (run, requests) = run(stage, operator, count).await;
        fleet.refreshed(again_after);
        eprintln!("  {:.1} and {:.1} refreshes a second", limit.rate(count), run.rate(count));
        asked = requests;
        limits.push(Run { seconds: limit.seconds, cpu: limit.cpu });
        runs.push(run);
    }
    eprintln!("  asked for: {}", asked.per(count));
    let each = |of: &dyn Fn(&Run, &Run) -> f64| {
        median(&limits.iter().zip(&runs).map(|(limit, run)| of(limit, run)).collect::<Vec<_>>())
    };
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0 / number(count);
    let goal = |goal: Goal| (in_flight == GOAL_AT).then_some(goal);
    results.add(PART, named("raw limit"), each(&|limit, _| limit.rate(count)), "/s");
    results.add(PART, named("operator"), each(&|_, run| run.rate(count)), "/s");
    let ratio = each(&|limit, run| limit.seconds / run.seconds);
    results.aim_where(PART, named("operator to raw limit"), ratio, "", goal(Goal::AtLeast(0.95)));
    let cpu = each(&|limit, run| run.cpu.together().as_secs_f64() / limit.cpu.together().as_secs_f64());
    results.aim_where(PART, named("CPU of all three to raw limit's"), cpu, "", goal(Goal::AtMost(1.10)));
    let own = each(&|_, run| ms(run.cpu.client));
    results.aim_where(PART, named("CPU of the operator a refresh"), own, "ms", goal(Goal::AtMost(0.8)));
    results.add(PART, named("CPU of the bare client a refresh"), each(&|limit, _| ms(limit.cpu.client)), "ms");
    let to_client = each(&|limit, run| run.cpu.client.as_secs_f64() / limit.cpu.client.as_secs_f64());
    results.aim_where(PART, named("CPU of the operator to bare client's"), to_client, "", goal(Goal::AtMost(2.0)));
    let server = |run: &Run| (ms(run.cpu.api_server), ms(run.cpu.etcd));
    results.add(PART, named("CPU of the API server a refresh"), each(&|_, run| server(run).0), "ms");
    results.add(PART, named("… of the raw limit"), each(&|limit, _| server(limit).0), "ms");
    results.add(PART, named("CPU of etcd a refresh"), each(&|_, run| server(run).1), "ms");
    results.add(PART, named("… of the raw limit"), each(&|limit, _| server(limit).1), "ms");
    results.add(PART, named("CPU of the simulator a refresh"), each(&|_, run| ms(run.cpu.simulator)), "ms");
    results.aim(PART, named("requests a refresh"), per_refresh(&asked), "", Goal::AtMost(5.05));
    let events = asked.of("post events");
    results.aim(
        PART,
        named("events for each refresh"),
        number(usize::try_from(events).unwrap_or(0)) / number(count),
        "",
        Goal::AtLeast(1.0),
    );
    let peak = operator.process().peak_rss_bytes().unwrap_or_default();
    let peak_goal = (count == 10_000).then_some(Goal::AtMost(25.0));
    results.aim_where(PART, named("peak memory (VmHWM)"), mebibytes(peak), "MiB", peak_goal);
    operator.resume();
    operator.sigterm(PATIENCE).await;
}
