//! Bursts and outages: how long until all is well again, what it takes at most, and in which order.

use std::time::{Duration, Instant};

use serde_json::json;
use tiktok_shop_testkit::operator::Operator;
use tiktok_shop_testkit::simulator::{Action, Fault, Outcome, RetryAfter, RetryAfterStyle};

use crate::counts::Counts;
use crate::fleet::{self, Form, JITTER, WINDOW};
use crate::results::{Goal, Results, count as number, mebibytes};
use crate::stage::{PATIENCE, Stage, at_rest};

const PART: &str = "storms";

/// A fleet that is not due.
const PLENTY: i64 = 30 * 24 * 3_600;

/// How long TikTok asks for patience.
const RETRY_AFTER: u32 = 5;

pub async fn measure(stage: &Stage, count: usize, away: Duration, results: &mut Results) {
    created(stage, count, results).await;
    applied(stage, count, results).await;
    server_away(stage, count / 10, away, results).await;
    too_many(stage, count / 10, results).await;
}

/// What a burst costs: time since its last event until all is at rest, requests, the peak.
struct Burst {
    name: String,
    count: usize,
    requests: Counts,
}

impl Burst {
    async fn begin(stage: &Stage, name: &str, count: usize) -> Self {
        eprintln!("storm: {name}");
        Self { name: name.to_owned(), count, requests: Counts::now(&stage.plane).await }
    }

    /// `end`: when the last of it was sent.
    async fn end(self, stage: &Stage, operator: &Operator, end: Instant, results: &mut Results) -> Counts {
        let rest = at_rest(operator.process()).await;
        let requests = Counts::now(&stage.plane).await.since(&self.requests);
        eprintln!("  the API server counts: {}", requests.per(self.count));
        let named = |what: &str| format!("{}: {what}", self.name);
        let settled = rest.saturating_duration_since(end).as_secs_f64();
        results.add(PART, named("until at rest"), settled, "s");
        let peak = operator.process().peak_rss_bytes().unwrap_or_default();
        results.add(PART, named("peak memory (VmHWM)"), mebibytes(peak), "MiB");
        requests
    }
}

/// Integrations made in one burst; then their Secrets touched in one.
async fn created(stage: &Stage, count: usize, results: &mut Results) {
    let form = Form::due("burst");
    stage.namespace(form.namespace).await;
    let shops = fleet::shops(stage, "burst-", count, PLENTY, 0).await;
    fleet::secrets(stage, form, &shops).await;
    let operator = stage.operator(form.namespace).start();
    operator.wait_ready(PATIENCE).await;
    let burst = Burst::begin(stage, &format!("{count} integrations created at once"), count).await;
    fleet::integrations(stage, form, shops.iter().map(|shop| shop.id.clone())).await;
    let end = Instant::now();
    fleet::wait_all_ready(&operator, count).await;
    let requests = burst.end(stage, &operator, end, results).await;
    let each = |of: &str| number(usize::try_from(requests.of(of)).unwrap_or(0)) / number(count);
    let what = format!("{count} integrations created at once: reads and status writes for each");
    let both = each("get secrets") + each("patch tiktokshopintegrations/status");
    results.aim(PART, what, both, "", Goal::AtMost(2.05));
    touched(stage, &operator, form, &shops.iter().map(|shop| shop.id.clone()).collect::<Vec<_>>(), results).await;
    operator.sigterm(PATIENCE).await;
}

async fn touched(stage: &Stage, operator: &Operator, form: Form, names: &[String], results: &mut Results) {
    let count = names.len();
    let made = if form.applied { "made with kubectl apply, " } else { "" };
    let name = format!("{count} Secrets {made}touched at once");
    let burst = Burst::begin(stage, &name, count).await;
    let paths = names.iter().map(|name| fleet::secret_path(form.namespace, name));
    fleet::patch_each(stage, paths, &json!({"metadata": {"labels": {"touched": "1"}}})).await;
    let end = Instant::now();
    let requests = burst.end(stage, operator, end, results).await;
    let reads = number(usize::try_from(requests.of("get secrets")).unwrap_or(0)) / number(count);
    results.aim(PART, format!("{name}: reads for each"), reads, "", Goal::AtMost(1.05));
    let writes = usize::try_from(requests.of("patch tiktokshopintegrations/status")).unwrap_or(0);
    results.aim(PART, format!("{name}: status writes"), number(writes), "", Goal::AtMost(0.0));
}

/// The same with Secrets whose values stand in an annotation, too.
async fn applied(stage: &Stage, count: usize, results: &mut Results) {
    let form = Form { namespace: "applied", refresh_before: "24h", applied: true };
    let shops = fleet::make(stage, form, "applied-", count, PLENTY, 0).await;
    let operator = stage.operator(form.namespace).start();
    operator.wait_ready(PATIENCE).await;
    fleet::wait_all_ready(&operator, count).await;
    // Their first statuses are written by then, too.
    at_rest(operator.process()).await;
    let names: Vec<String> = shops.into_iter().map(|shop| shop.id).collect();
    touched(stage, &operator, form, &names, results).await;
    operator.sigterm(PATIENCE).await;
}

/// The API server is away while a part of the fleet comes due.
async fn server_away(stage: &Stage, count: usize, away: Duration, results: &mut Results) {
    let form = Form::due("away");
    let lead = 30 + i64::try_from(count / 60).expect("a fleet");
    let spread = i64::try_from(away.as_secs()).expect("minutes");
    let refreshed = stage.simulator.witness().await.totals.refreshes;
    let made = Instant::now();
    // The jitter is a part of the time.
    fleet::make(stage, form, "away-", count, WINDOW + JITTER + lead, (spread - JITTER).max(1)).await;
    let operator = stage.operator(form.namespace).start();
    operator.wait_ready(PATIENCE).await;
    fleet::wait_all_ready(&operator, count).await;
    tokio::time::sleep(Duration::from_secs(lead.unsigned_abs()).saturating_sub(made.elapsed())).await;
    let name = format!("API server away for {spread} s, {count} due meanwhile");
    eprintln!("storm: {name}");
    stage.plane.stop_api_server().await;
    tokio::time::sleep(away).await;
    stage.plane.start_api_server().await;
    let back = Instant::now();
    stage.simulator.wait_for_total_refreshes(refreshed + count as u64, PATIENCE).await;
    let rest = at_rest(operator.process()).await;
    results.add(PART, format!("{name}: all refreshed after"), (rest - back).as_secs_f64(), "s");
    let peak = operator.process().peak_rss_bytes().unwrap_or_default();
    results.add(PART, format!("{name}: peak memory (VmHWM)"), mebibytes(peak), "MiB");
    operator.sigterm(PATIENCE).await;
}

/// TikTok asks for patience in the middle; who expires first still goes first, and all are served.
async fn too_many(stage: &Stage, count: usize, results: &mut Results) {
    let form = Form::due("line");
    let before = stage.simulator.witness().await.totals;
    // All are due at once, and expire one after another.
    let shops = fleet::make(stage, form, "line-", count, 100, 100).await;
    let name = format!("a 429 amid {count} due at once");
    eprintln!("storm: {name}");
    let patience = RetryAfter { seconds: RETRY_AFTER, style: RetryAfterStyle::Seconds };
    let skip = u32::try_from(count / 3).expect("a fleet");
    stage.simulator.add_fault(Fault::once(Action::too_many_requests(Some(patience))).skip(skip)).await;
    let operator = stage.operator(form.namespace).start();
    let began = Instant::now();
    stage.simulator.wait_for_total_refreshes(before.refreshes + count as u64, PATIENCE).await;
    let rest = at_rest(operator.process()).await;
    results.add(PART, format!("{name}: all refreshed after"), (rest - began).as_secs_f64(), "s");
    let asked = stage.simulator.requests(before.requests).await;
    let served: Vec<&str> = asked
        .iter()
        .filter(|request| request.outcome == Outcome::Refreshed)
        .filter_map(|request| request.shop.as_deref())
        .collect();
    let mut in_order: Vec<_> = shops.iter().map(|shop| (shop.access_expires_at(), shop.id.as_str())).collect();
    in_order.sort_unstable();
    // Of those that expire in the same second, any may go first.
    let expiry = |shop: &str| in_order.iter().find(|(_, id)| *id == shop).map_or(0, |(at, _)| *at);
    let early = served.iter().enumerate().map(|(place, shop)| {
        let at = expiry(shop);
        let first = in_order.partition_point(|(other, _)| *other < at);
        first.saturating_sub(place)
    });
    results.add(
        PART,
        format!("{name}: most places anybody went before their turn"),
        number(early.max().unwrap_or(0)),
        "",
    );
    let peak = operator.process().peak_rss_bytes().unwrap_or_default();
    results.add(PART, format!("{name}: peak memory (VmHWM)"), mebibytes(peak), "MiB");
    operator.sigterm(PATIENCE).await;
}
