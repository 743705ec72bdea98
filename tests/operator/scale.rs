//! What does not depend on the clock of what many integrations cost: requests, and bytes kept for each.
//! What does is measured by `make bench`.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tiktok_shop_testkit::{
    fixtures,
    operator::{Builder, Operator},
    poll,
    proxy::Seen,
    simulator::{Action, BulkShops, Fault, NewShop, RetryAfter, RetryAfterStyle},
    steps,
};

use crate::resilience::{LONG, SOON, Stage};

const DAY: i64 = 24 * 3_600;

/// Requests of the harness at the same time.
const AT_ONCE: usize = 32;

/// The most that may be kept in memory for an integration and its Secret, in bytes.
const MOST_BYTES: u64 = 2_200;

/// So many shops, the last of which expires by `spread` seconds later than the first.
fn shops(stage: &Stage<'_>, count: usize, remaining: i64, spread: i64) -> BulkShops {
    BulkShops {
        count: u32::try_from(count).expect("a fleet"),
        prefix: "shop-".to_owned(),
        first: 1,
        shop: NewShop::of(&stage.app).access_remaining(remaining),
        access_remaining_spread_seconds: spread,
    }
}

/// Shops that are not due with Secrets and integrations, the label `part` of the first `few` of which is `few`.
async fn make(stage: &Stage<'_>, count: usize, few: usize) -> Vec<String> {
    make_of(stage, &shops(stage, count, 5 * DAY, 0), few).await
}

async fn make_of(stage: &Stage<'_>, shops: &BulkShops, few: usize) -> Vec<String> {
    let shops = stage.simulator.create_shops(shops).await;
    stream::iter(shops.iter().enumerate())
        .for_each_concurrent(AT_ONCE, async |(number, shop)| {
            stage.token_secret(shop).create(&stage.client).await;
            let part = if number < few { "few" } else { "rest" };
            stage.integration(&shop.id).label("part", part).create(&stage.client).await;
        })
        .await;
    shops.into_iter().map(|shop| shop.id).collect()
}

/// Waits until so many integrations are ready.
async fn wait_ready(operator: &Operator, count: usize) {
    let wanted = u32::try_from(count).map(f64::from).expect("a fleet");
    operator.wait_for_metric("tiktokshop_integrations", &[("ready", "True")], wanted, LONG).await;
}

/// Requests by what they are about.
type Counts = BTreeMap<&'static str, usize>;

/// Is it a status that says of a refresh only that it is due?
fn waits(seen: &Seen) -> bool {
    let status = &seen.json()["status"];
    let due = status["nextRefreshTime"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    due.is_some_and(|due| due <= Utc::now())
}

/// Is it a further claim of one refresh? It is made where more than 5 seconds went by between the first and the call: on a
/// machine that is busy with other things, that is for the clock to say.
fn is_claim_made_anew(seen: &Seen) -> bool {
    steps::written_claim(seen)["id"].as_str().is_some_and(|id| !id.ends_with(".1"))
}

/// What a request is about, the shop's name left out; nothing for watches and lists.
fn kind(seen: &Seen) -> Option<&'static str> {
    let about = |what: &str| seen.path.contains(what);
    match seen.method.as_str() {
        "GET" if about("/secrets/app") => Some("read of the app"),
        "GET" if about("/secrets/") => Some("read"),
        "PATCH" if about("/secrets/") && seen.query.contains("dryRun") => Some("rehearsal"),
        "PATCH" if about("/secrets/") && is_claim_made_anew(seen) => None,
        "PATCH" if about("/secrets/") => Some("claim or persist"),
        // What waits longer than a few seconds for its turn is shown to wait: that is for the clock to say.
        "PATCH" if about("/status") && waits(seen) => None,
        "PATCH" if about("/status") => Some("status"),
        "POST" if about("/events") => Some("event"),
        "GET" if seen.is_watch() || seen.path.ends_with("secrets") || about("tiktokshopintegrations") => None,
        "GET" => Some("discovery"),
        _ => Some("something else"),
    }
}

/// The status that was written last for each integration, its `hoursUntilExpiry` apart, by path: an hour may be over
/// before a round begins and be told within it.
type Told = HashMap<String, (Value, Value)>;

/// The requests that the proxy has seen, and what they told beyond what was `told` before.
fn count(stage: &Stage<'_>, told: &Told) -> (Counts, Told) {
    let mut told = told.clone();
    let mut counts = Counts::new();
    for seen in &stage.proxy.requests() {
        let Some(kind) = kind(seen) else { continue };
        // That an hour is over is for the clock to say, too.
        let is_tick = kind == "status" && {
            let mut status = seen.json();
            let hours = status["status"]["hoursUntilExpiry"].take();
            let before = told.insert(seen.path.clone(), (status.clone(), hours.clone()));
            before.is_some_and(|before| before.0 == status && before.1 != hours)
        };
        if !is_tick {
            *counts.entry(kind).or_default() += 1;
        }
    }
    (counts, told)
}

/// Waits for these requests, and for those that are too many; what they were.
async fn asked(stage: &Stage<'_>, told: &mut Told, expected: &Counts) -> Counts {
    let came = poll::until(LONG, async || {
        let (counts, _) = count(stage, told);
        expected.iter().all(|(kind, wanted)| counts.get(kind).is_some_and(|came| came >= wanted)).then_some(())
    });
    assert!(came.await.is_some(), "expected {expected:?}, but there came {:?}", count(stage, told).0);
    let mut last = Counts::new();
    let settled = poll::until(LONG, async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (now, now_told) = count(stage, told);
        (std::mem::replace(&mut last, now.clone()) == now).then_some(now_told)
    });
    *told = settled.await.expect("the operator comes to rest");
    stage.proxy.clear();
    last
}

/// Many at once cost no more each than one alone: nothing is read twice, no status is written twice, and no
/// event is dropped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_many_costs_as_much_as_one_and_a_start_with_all_unchanged_reads_no_secret() {
    const COUNT: usize = 300;
    let stage = Stage::new().await;
    let names = make(&stage, COUNT, 0).await;
    let flags = |operator: Builder| operator.flag("requests-per-second", "1000").flag("request-timeout", "20s");
    let mut operator = flags(stage.operator()).start();
    operator.wait_ready(LONG).await;
    wait_ready(&operator, COUNT).await;
    let mut told = Told::new();
    let expected = Counts::from([("discovery", 1), ("read", COUNT), ("read of the app", 1), ("status", COUNT)]);
    assert_eq!(
        asked(&stage, &mut told, &expected).await,
        expected,
        "{COUNT} new integrations: each Secret is read once, each status written once"
    );

    operator.sigterm(SOON).await;
    stage.proxy.clear();
    operator.restart();
    operator.wait_ready(LONG).await;
    wait_ready(&operator, COUNT).await;
    let discovery = Counts::from([("discovery", 1)]);
    assert_eq!(asked(&stage, &mut told, &discovery).await, discovery, "a start with {COUNT} unchanged");

    let refreshed =
        Counts::from([("claim or persist", 2 * COUNT), ("event", COUNT), ("rehearsal", COUNT), ("status", COUNT)]);
    for (round, reads) in [("first", COUNT), ("second", 0)] {
        stream::iter(&names).for_each_concurrent(AT_ONCE, async |name| stage.request(name, round).await).await;
        let mut expected = refreshed.clone();
        if reads > 0 {
            expected.extend([("read", reads), ("read of the app", 1)]);
        }
        assert_eq!(asked(&stage, &mut told, &expected).await, expected, "the {round} refreshes of {COUNT} at once");
    }
    stage.simulator.assert_no_violations().await;
}

/// More than are looked at in one go wake at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_pause_of_all_the_soonest_expiry_goes_first() {
    const COUNT: usize = 300;
    const IN_FLIGHT: usize = 8;
    const AFTER: usize = 2 * IN_FLIGHT;
    let stage = Stage::new().await;
    // The last by name expires first.
    let spread = -2 * i64::try_from(COUNT).expect("a fleet");
    let shops = BulkShops { first: 1_000, ..shops(&stage, COUNT, 3_600, spread) };
    let mut names = make_of(&stage, &shops, 0).await;
    names.reverse();
    let patience = RetryAfter { seconds: 5, style: RetryAfterStyle::Seconds };
    stage.simulator.add_fault(Fault::once(Action::too_many_requests(Some(patience)))).await;
    let in_flight = IN_FLIGHT.to_string();
    let operator = stage.operator().flag("requests-per-second", "1000").flag("max-concurrent-refreshes", &in_flight);
    let _operator = operator.start();
    stage.simulator.wait_for_total_refreshes(AFTER as u64, LONG).await;
    let asked = stage.simulator.requests(0).await;
    let early: Vec<_> = asked.iter().filter_map(|request| request.shop.as_ref()).take(AFTER).collect();
    // How long each takes after its start is the API server's affair.
    let may_be = &names[..AFTER + IN_FLIGHT];
    assert!(early.iter().all(|name| may_be.contains(name)), "{early:?} were asked for before their turn");
}

/// The difference between two fleets: what any operator needs, however small its fleet, is in both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_in_memory_for_an_integration_has_a_bound() {
    const COUNT: usize = 2_000;
    const FEW: usize = 200;
    let stage = Stage::new().await;
    make(&stage, COUNT, FEW).await;
    // Not through the proxy, which has nothing to tell here.
    let operator = || stage.bare_operator().kubeconfig(stage.plane.kubeconfig_for(&stage.identity.token, None));
    let first = operator().start();
    first.wait_ready(LONG).await;
    wait_ready(&first, COUNT).await;
    first.sigterm(SOON).await;
    // The statuses are written by now: both starts are like any later one.
    let kept = async |operator: Builder, count: usize| {
        let operator = operator.start();
        operator.wait_ready(LONG).await;
        wait_ready(&operator, count).await;
        let bytes = operator.process().anonymous_rss_bytes().expect("it runs");
        operator.sigterm(SOON).await;
        bytes
    };
    let few = kept(operator().flag("watch-label-selector", "part=few"), FEW).await;
    let all = kept(operator(), COUNT).await;
    let each = all.saturating_sub(few) / (COUNT - FEW) as u64;
    println!("{each} bytes for each integration ({few} for {FEW}, {all} for {COUNT})");
    assert!(each <= MOST_BYTES, "{each} bytes are kept for each integration, more than {MOST_BYTES}");
    let refreshed = fixtures::get_status(&stage.client, &stage.namespace, "shop-1").await;
    assert!(refreshed["lastRefreshTime"].is_null(), "nothing was due: {refreshed}");
}
