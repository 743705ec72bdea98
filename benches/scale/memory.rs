//! Memory, and what a start costs, of fleets at rest.

use std::time::{Duration, Instant};

use tiktok_shop_testkit::operator::Operator;
use tiktok_shop_testkit::poll;

use crate::counts::Counts;
use crate::fleet::{self, Form, WINDOW};
use crate::results::{Goal, Results, count as number, mebibytes, median};
use crate::stage::{PATIENCE, Stage, at_rest};

const PART: &str = "memory";
const START: &str = "start-up";

/// Starts of which the median is taken.
const STARTS: usize = 3;

/// Due at once, among those at rest, at 64 in flight.
const STORM: usize = 1_000;

pub async fn measure(stage: &Stage, sizes: &[usize], results: &mut Results) {
    // A server that has just begun reads its own cache at the first list.
    for &size in sizes {
        stage.bare(&["list", "--namespace", &fleet::resting(size)]).await.go().await;
    }
    let mut of_none = 0;
    for &size in sizes {
        let resident = of(stage, size, results).await;
        if size == 0 {
            of_none = resident;
        } else {
            let bytes = number(usize::try_from(resident.saturating_sub(of_none)).unwrap_or(0)) / number(size);
            results.add(PART, format!("bytes for each integration, of {size}"), bytes, "");
        }
    }
}

/// Goals in MiB at a size: resident, and the peak.
fn goals(size: usize) -> (Option<Goal>, Option<Goal>) {
    let (resident, peak) = match size {
        0 => (Some(12.0), None),
        10_000 => (Some(20.0), Some(25.0)),
        100_000 => (Some(70.0), Some(90.0)),
        _ => (None, None),
    };
    (resident.map(Goal::AtMost), peak.map(Goal::AtMost))
}

/// Returns what it holds resident at rest.
async fn of(stage: &Stage, size: usize, results: &mut Results) -> u64 {
    let namespace: &'static str = fleet::resting(size).leak();
    let named = |what: &str| format!("{what}, {size} integrations");
    eprintln!("{}", named("starts"));
    // Hours have passed in a fleet that was kept; the statuses that differ are not part of what is measured.
    let builder = || stage.operator(namespace).flag("status-interval", "24h").flag("max-concurrent-refreshes", "64");
    let (mut bare_seconds, mut ready_seconds) = (Vec::new(), Vec::new());
    let (mut bare_cpu, mut cpu_seconds) = (Vec::new(), Vec::new());
    let mut last = None;
    for start in 0..STARTS {
        let bare = stage.bare(&["list", "--namespace", namespace]).await;
        bare_seconds.push(bare.go().await.seconds);
        bare_cpu.push(bare.process().cpu_time().unwrap_or_default().as_secs_f64());
        drop(bare);
        let requests = Counts::now(&stage.plane).await;
        let began = Instant::now();
        let operator = builder().start();
        operator.wait_ready(PATIENCE).await;
        ready_seconds.push(began.elapsed().as_secs_f64());
        at_rest(operator.process()).await;
        cpu_seconds.push(operator.process().cpu_time().unwrap_or_default().as_secs_f64());
        let requests = Counts::now(&stage.plane).await.since(&requests);
        if start + 1 < STARTS {
            operator.sigterm(PATIENCE).await;
        } else {
            last = Some((operator, requests));
        }
    }
    let (operator, requests) = last.expect("there is a last start");
    fleet::wait_all_ready(&operator, size).await;
    let seconds = |values: &[f64]| median(values);
    let (bare, ready) = (seconds(&bare_seconds), seconds(&ready_seconds));
    results.add(START, named("bare list"), bare, "s");
    results.add(START, named("own CPU of a bare list, which reads nothing of it"), seconds(&bare_cpu), "s");
    let goal = if size == 0 { 1.0 } else { bare + 1.0 };
    results.aim(START, named("start to ready"), ready, "s", Goal::AtMost(goal));
    let cpu_goal = match size {
        10_000 => Some(Goal::AtMost(0.4)),
        100_000 => Some(Goal::AtMost(4.0)),
        _ => None,
    };
    results.aim_where(START, named("own CPU until at rest"), seconds(&cpu_seconds), "s", cpu_goal);
    let read = usize::try_from(requests.of("get secrets")).unwrap_or(0);
    results.aim(START, named("Secrets read"), number(read), "", Goal::AtMost(0.0));
    let writes = usize::try_from(requests.writes()).unwrap_or(0);
    results.aim(START, named("writes"), number(writes), "", Goal::AtMost(0.0));

    let (resident_goal, peak_goal) = goals(size);
    let memory = |operator: &Operator| {
        let process = operator.process();
        (process.rss_bytes().unwrap_or_default(), process.peak_rss_bytes().unwrap_or_default())
    };
    let (resident, peak) = memory(&operator);
    results.aim_where(PART, named("resident"), mebibytes(resident), "MiB", resident_goal);
    results.add(PART, named("peak, first list in it"), mebibytes(peak), "MiB");
    if size > 0 {
        let failed = operator.metrics().await.sum("tiktokshop_watch_errors_total", &[]);
        let used = operator.process().cpu_time().unwrap_or_default();
        stage.expire_watches(&operator, namespace).await;
        let noticed = poll::until(PATIENCE, async || {
            (operator.metrics().await.sum("tiktokshop_watch_errors_total", &[]) > failed).then_some(())
        });
        noticed.await.expect("the watches end with the API server");
        tokio::time::sleep(Duration::from_secs(10)).await;
        at_rest(operator.process()).await;
        let relist = operator.process().cpu_time().unwrap_or_default().saturating_sub(used).as_secs_f64();
        let (resident, peak) = memory(&operator);
        results.add(PART, named("own CPU of a relist"), relist, "s");
        results.add(PART, named("resident after a relist"), mebibytes(resident), "MiB");
        results.add(PART, named("peak after a relist"), mebibytes(peak), "MiB");
        let storm = STORM.min(size);
        let refreshed = stage.simulator.witness().await.totals.refreshes;
        fleet::make(stage, Form::due(namespace), &format!("storm-{size}-"), storm, WINDOW / 2, 0).await;
        stage.simulator.wait_for_total_refreshes(refreshed + storm as u64, PATIENCE).await;
        at_rest(operator.process()).await;
        let (_, peak) = memory(&operator);
        let what = named(&format!("peak after {storm} due at once, 64 in flight"));
        results.aim_where(PART, what, mebibytes(peak), "MiB", peak_goal);
    }
    operator.sigterm(PATIENCE).await;
    if size > 0 {
        remove(stage, namespace, &format!("storm-{size}-"), STORM.min(size)).await;
    }
    resident
}

/// Takes the storm away again: the fleet is as it was.
async fn remove(stage: &Stage, namespace: &str, prefix: &str, count: usize) {
    let paths = (1..=count).flat_map(|number| {
        let name = format!("{prefix}{number}");
        [fleet::integration_path(namespace, &name), fleet::secret_path(namespace, &name)]
    });
    fleet::delete_each(stage, paths).await;
}
