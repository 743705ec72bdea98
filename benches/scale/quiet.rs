//! A fleet at rest: what it costs to do nothing, and what it costs to keep `hoursUntilExpiry` true.

use std::time::{Duration, Instant};

use tiktok_shop_testkit::operator::Operator;

use crate::counts::Counts;
use crate::fleet;
use crate::results::{Goal, Results, count as number};
use crate::stage::{PATIENCE, Stage};

const PART: &str = "quiet";

/// After a start, until nothing of it is left to do.
const SETTLE: Duration = Duration::from_secs(5);

/// As Prometheus does.
const SCRAPE_EVERY: Duration = Duration::from_secs(30);

pub async fn measure(stage: &Stage, sizes: &[usize], time: Duration, results: &mut Results) {
    let fleets: Vec<usize> =
        sizes.iter().copied().filter(|size| *size == 1_000 || Some(size) == sizes.last()).collect();
    let all: usize = fleets.iter().sum();
    // The hours are told within the interval, spread over it: with the longest, hardly any is told in this time.
    for interval in ["24h", "1h"] {
        let mut operators = Vec::new();
        for &size in &fleets {
            let operator = stage.operator(&fleet::resting(size)).flag("status-interval", interval).start();
            operator.wait_ready(PATIENCE).await;
            fleet::wait_all_ready(&operator, size).await;
            operators.push((size, operator));
        }
        tokio::time::sleep(SETTLE).await;
        let (requests, spent) = watch(stage, &operators, time).await;
        eprintln!("  asked for: {}", requests.per(all));
        let per_hour = |spent: f64| spent * 3_600.0 / time.as_secs_f64();
        let named = |what: &str| format!("{what}, --status-interval {interval}, in {} s", time.as_secs());
        let (asked, writes) = (requests.requests(), requests.writes());
        let asked = number(usize::try_from(asked).unwrap_or(0));
        let writes = number(usize::try_from(writes).unwrap_or(0));
        results.add(PART, named(&format!("requests of {all} integrations")), asked, "");
        results.add(PART, named(&format!("writes of {all} integrations")), writes, "");
        for (size, spent) in fleets.iter().zip(&spent) {
            let each = per_hour(*spent) * 1_000_000.0 / number(*size);
            results.add(PART, named(&format!("CPU for each of {size} integrations")), each, "µs/h");
        }
        if let ([small, .., _], [of_small, .., of_large]) = (&fleets[..], &spent[..])
            && let Some(large) = fleets.last().filter(|large| *large != small)
        {
            let each = (of_large / number(*large)) / (of_small / number(*small));
            results.aim(PART, named("CPU for each, the largest fleet to 1000"), each, "", Goal::AtMost(1.2));
        }
        for (_, operator) in operators {
            operator.sigterm(PATIENCE).await;
        }
    }
}

/// What is asked for in that time, with scrapes as usual, and each operator's processor seconds.
async fn watch(stage: &Stage, operators: &[(usize, Operator)], time: Duration) -> (Counts, Vec<f64>) {
    let before = Counts::now(&stage.plane).await;
    let used = |operator: &Operator| operator.process().cpu_time().unwrap_or_default().as_secs_f64();
    let used_before: Vec<f64> = operators.iter().map(|(_, operator)| used(operator)).collect();
    let began = Instant::now();
    loop {
        for (_, operator) in operators {
            operator.metrics_text().await;
        }
        let left = time.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(left.min(SCRAPE_EVERY)).await;
    }
    let spent = operators.iter().zip(used_before).map(|((_, operator), before)| used(operator) - before).collect();
    (Counts::now(&stage.plane).await.since(&before), spent)
}
