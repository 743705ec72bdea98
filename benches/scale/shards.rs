//! Two operators on one API server, half of the fleet each.

use std::time::{Duration, Instant};

use serde_json::json;
use tiktok_shop_testkit::operator::Operator;
use tiktok_shop_testkit::poll;

use crate::fleet::{self, Form};
use crate::results::{Goal, Results, count as number, mebibytes};
use crate::stage::{PATIENCE, Stage, at_rest};
use crate::throughput::{Due, first_run};

const PART: &str = "shards";

/// Integrations whose label moves.
const MOVED: usize = 10;

pub async fn measure(stage: &Stage, count: usize, results: &mut Results) {
    let form = Form::due("shards");
    eprintln!("shards: {count} integrations, by one operator and by two");
    let mut due = Due::make(stage, form, "shards-", count).await;
    let again_after = Duration::from_secs(30 + count as u64 / 25);
    due.wait(stage, again_after).await;
    let [one] = first_run(stage, [stage.operator(form.namespace)], count).await;
    due.refreshed(again_after);
    due.wait(stage, again_after).await;
    let alone = run(stage, &[&one], count).await;
    due.refreshed(again_after);
    one.sigterm(PATIENCE).await;

    let journals = tempfile::tempdir().expect("a temporary folder can be made");
    let shard = |half: &str| {
        let dir = journals.path().join(half);
        std::fs::create_dir(&dir).expect("a folder can be made");
        let operator = stage.operator(form.namespace).name(half).journal_dir(dir);
        operator.flag("watch-label-selector", &format!("half={half}"))
    };
    due.wait(stage, again_after).await;
    let [even, odd] = first_run(stage, [shard("even"), shard("odd")], count).await;
    due.refreshed(again_after);
    due.wait(stage, again_after).await;
    let both = run(stage, &[&even, &odd], count).await;
    due.refreshed(again_after);
    results.add(PART, format!("one operator, {count} due"), number(count) / alone, "/s");
    results.add(PART, format!("two operators, {count} due"), number(count) / both, "/s");
    for (operator, half) in [(&even, "even"), (&odd, "odd")] {
        let peak = operator.process().peak_rss_bytes().unwrap_or_default();
        results.add(PART, format!("peak memory of the {half} half"), mebibytes(peak), "MiB");
    }
    moved(stage, form, &due, [&even, &odd], results).await;
    for operator in [even, odd] {
        operator.sigterm(PATIENCE).await;
    }
}

/// From a standing start; how long it took.
async fn run(stage: &Stage, operators: &[&Operator], count: usize) -> f64 {
    let refreshed = stage.simulator.witness().await.totals.refreshes;
    let began = Instant::now();
    for operator in operators {
        operator.resume();
    }
    stage.simulator.wait_for_total_refreshes(refreshed + count as u64, PATIENCE).await;
    let mut ended = began;
    for operator in operators {
        ended = ended.max(at_rest(operator.process()).await);
    }
    (ended - began).as_secs_f64()
}

/// Labels that move between the two, each with a refresh asked for in the same write.
async fn moved(stage: &Stage, form: Form, due: &Due, [even, odd]: [&Operator; 2], results: &mut Results) {
    for operator in [even, odd] {
        at_rest(operator.process()).await;
    }
    // Every other name is of the even half.
    let names: Vec<&String> = due.names.iter().step_by(2).take(MOVED).collect();
    let held = async |operator: &Operator| operator.metrics().await.sum("tiktokshop_integrations", &[]);
    let wanted = held(odd).await + number(MOVED);
    let before = stage.simulator.witness().await.totals;
    let began = Instant::now();
    let patch = json!({"metadata": {"labels": {"half": "odd"},
        "annotations": {"tiktokshop.dev/refresh-requested-at": "moved"}}});
    let paths = names.iter().map(|name| fleet::integration_path(form.namespace, name));
    fleet::patch_each(stage, paths, &patch).await;
    let taken = poll::until(PATIENCE, async || (held(odd).await >= wanted).then_some(()));
    taken.await.expect("the other operator takes them up");
    results.add(PART, format!("{MOVED} labels moved: taken up after"), began.elapsed().as_secs_f64(), "s");
    stage.simulator.wait_for_total_refreshes(before.refreshes + MOVED as u64, PATIENCE).await;
    for operator in [even, odd] {
        at_rest(operator.process()).await;
    }
    let asked = stage.simulator.witness().await.totals;
    let more = usize::try_from(asked.presentations - before.presentations).unwrap_or(usize::MAX);
    let what = format!("{MOVED} labels moved, a refresh asked for in the same write: refreshes");
    results.aim(PART, what, number(more), "", Goal::AtMost(number(MOVED)));
    let violations = usize::try_from(asked.violations).unwrap_or(usize::MAX);
    results.aim(PART, "tokens presented twice", number(violations), "", Goal::AtMost(0.0));
}
