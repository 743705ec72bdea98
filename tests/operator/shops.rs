//! `spec.checkShops`: the proof that an access token works, the shops it is good for, and their ciphers.

use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, has_condition},
    leak::LeakScan,
    operator::{Builder, Operator},
    poll,
    simulator::{Action, Endpoint, Fault, NewShop, Point, RateLimit, RateLimitAnswer, Shop, ShopPatch},
    steps,
};

use crate::resilience::{LONG, SOON, Stage, is_ready};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A shop whose token is not due, and whose integration asks for checks.
async fn checked_shop(stage: &Stage<'_>, name: &str) -> Shop {
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(name).access_remaining(5 * DAY)).await;
    stage.token_secret(&shop).create(&stage.client).await;
    stage.integration(name).field("checkShops", true).create(&stage.client).await;
    shop
}

fn operator(stage: &Stage<'_>) -> Builder {
    stage.operator().shops_endpoint(&stage.simulator.shops_endpoint())
}

async fn ciphers(stage: &Stage<'_>, name: &str) -> Option<Value> {
    let values = fixtures::secret_values(&stage.client, &stage.namespace, name).await;
    values.get("shop_ciphers").map(|text| serde_json::from_str(text).expect("the ciphers are JSON"))
}

fn is_checked(status: &Value) -> bool {
    is_ready(status) && status["lastShopsCheckTime"].is_string()
}

fn is_refused(status: &Value) -> bool {
    has_condition(status, "Ready", "False", "AccessTokenRejected")
}

fn message(status: &Value) -> String {
    fixtures::condition(status, "Ready").map(|ready| ready.message).unwrap_or_default()
}

/// Calls for shops, refreshes and presentations so far.
async fn counts(stage: &Stage<'_>, name: &str) -> (u64, u64, u64) {
    let counters = stage.simulator.shop(name).await.counters;
    (counters.shops_calls, counters.refreshes, counters.presentations)
}

fn writes(stage: &Stage<'_>, name: &str) -> usize {
    let is_write = steps::ciphers(&stage.namespace, name);
    stage.proxy.requests().iter().filter(|seen| is_write(seen)).count()
}

fn reads(stage: &Stage<'_>, name: &str) -> usize {
    let is_read = steps::read(&stage.namespace, name);
    stage.proxy.requests().iter().filter(|seen| is_read(seen)).count()
}

fn two_shops() -> Vec<Value> {
    vec![
        json!({"id": "7495", "name": "Tiệm \"A\"", "region": "VN", "code": "VNA", "seller_type": "LOCAL",
               "cipher": "ROW_cipher-of-a+/="}),
        json!({"id": 7496, "name": null, "region": "GB", "code": "GBB", "seller_type": "CROSS_BORDER",
               "cipher": "ROW_cipher-of-b\"\\"}),
    ]
}

/// One call, one write of one key; the write wakes nothing, and no cipher shows anywhere else.
///
/// Covers: spec/checkShops, status/shops, status/lastShopsCheckTime, flag/shops-endpoint
#[tokio::test]
async fn the_shops_stand_in_the_status_and_their_ciphers_in_the_secret_alone() {
    let stage = Stage::new().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("shop").access_remaining(5 * DAY)).await;
    let patch = ShopPatch { shops: Some(two_shops()), ..ShopPatch::default() };
    stage.simulator.patch_shop("shop", &patch).await;
    stage.token_secret(&shop).value("mine", "stays").create(&stage.client).await;
    stage.integration("shop").field("checkShops", true).create(&stage.client).await;
    let operator = operator(&stage).trace().start();
    let status = stage.wait_status("shop", "checked", is_checked, SOON).await;
    assert_eq!(
        status["shops"],
        json!([
            {"id": "7495", "name": "Tiệm \"A\"", "region": "VN", "code": "VNA", "sellerType": "LOCAL"},
            {"id": "7496", "region": "GB", "code": "GBB", "sellerType": "CROSS_BORDER"},
        ])
    );
    assert_eq!(
        ciphers(&stage, "shop").await,
        Some(json!({"7495": "ROW_cipher-of-a+/=", "7496": "ROW_cipher-of-b\"\\"}))
    );
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop").await;
    assert_eq!(values["mine"], "stays");
    assert_eq!(values["access_token"], shop.access_token());

    let is_write = steps::ciphers(&stage.namespace, "shop");
    let written: Vec<_> = stage.proxy.requests().into_iter().filter(|seen| is_write(seen)).collect();
    assert_eq!(written.len(), 1);
    let body = written[0].json();
    assert!(body["metadata"]["resourceVersion"].is_string(), "the write is not conditional: {body}");
    assert_eq!(body["data"].as_object().map(serde_json::Map::len), Some(1), "it touches more than that key");
    assert!(body["metadata"].get("annotations").is_none());
    // What the status speaks of is the version that the write made, so that a restart reads nothing.
    let secret = fixtures::secret(&stage.client, &stage.namespace, "shop").await.expect("it is there");
    assert_eq!(status["observedTokenSecret"]["resourceVersion"].as_str(), secret.metadata.resource_version.as_deref());
    assert_eq!(reads(&stage, "shop"), 2, "one read for the look and one for the check; its own write wakes nothing");

    stage.simulator.assert_no_violations().await;
    assert_eq!(counts(&stage, "shop").await, (1, 0, 0));
    let scan = LeakScan::new()
        .secret("a cipher", "ROW_cipher-of-a+/=")
        .secret("another cipher", "ROW_cipher-of-b\"\\")
        .secret("the access token", shop.access_token())
        .secret("the app secret", &stage.app.app_secret);
    let (logs, status, metrics) = (operator.logs(), status.to_string(), operator.metrics_text().await);
    scan.assert_clean([("the log", logs.as_str()), ("the status", &status), ("the metrics", &metrics)]);
}

/// A restart, and a check that finds the same, write nothing; a day later it is checked again.
///
/// Covers: spec/checkShops, status/lastShopsCheckTime
#[tokio::test]
async fn it_is_checked_after_a_refresh_and_once_a_day_and_what_is_unchanged_is_not_written() {
    let stage = Stage::new().await;
    checked_shop(&stage, "shop").await;
    let mut operator = operator(&stage).start();
    let checks = async |operator: &Operator, count: usize| {
        let done = async || (operator.logs().matches("the access token works").count() >= count).then_some(());
        assert!(poll::until(SOON, done).await.is_some(), "{count} checks do not come:\n{}", operator.logs());
    };
    stage.wait_status("shop", "checked", is_checked, SOON).await;
    stage.request("shop", "now").await;
    checks(&operator, 2).await;
    assert_eq!(counts(&stage, "shop").await, (2, 1, 1));
    assert_eq!(writes(&stage, "shop"), 1, "the ciphers are the same");

    operator.restart();
    operator.wait_ready(SOON).await;
    stage.request("shop", "and now").await;
    stage.simulator.wait_for_shops_calls("shop", 3, SOON).await;
    assert_eq!(counts(&stage, "shop").await, (3, 2, 2), "the restart itself was no reason for a check");
    stage
        .wait_status("shop", "the request done", |status| status["lastHandledRefreshRequest"] == "and now", SOON)
        .await;
    operator.sigterm(SOON).await;

    let yesterday =
        (chrono::Utc::now() - chrono::Duration::hours(25)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let patch = json!({"status": {"lastShopsCheckTime": yesterday, "lastRefreshTime": yesterday}});
    let api = fixtures::integrations(&stage.client, &stage.namespace);
    api.patch_status("shop", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch))
        .await
        .expect("an admin may");
    operator.restart();
    stage.simulator.wait_for_shops_calls("shop", 4, SOON).await;
    assert_eq!((counts(&stage, "shop").await.1, writes(&stage, "shop")), (2, 1));
}

/// Covers: reason/AccessTokenRejected, event/AccessTokenRejected
#[tokio::test]
async fn a_dead_access_token_is_refreshed_once_and_the_new_one_is_checked() {
    let stage = Stage::new().await;
    checked_shop(&stage, "shop").await;
    stage.simulator.kill_access("shop").await;
    let _operator = operator(&stage).start();
    stage.simulator.wait_for_refreshes("shop", 1, SOON).await;
    stage.wait_status("shop", "checked", is_checked, SOON).await;
    assert_eq!(counts(&stage, "shop").await, (2, 1, 1));
    assert!(ciphers(&stage, "shop").await.is_some());
    let event = fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "AccessTokenRejected", SOON).await;
    assert!(event.note.contains("105002") && event.note.contains("refreshed, once"), "{}", event.note);
}

/// Not a loop: later checks and a restart refresh nothing more.
///
/// Covers: reason/AccessTokenRejected, condition/Ready
#[tokio::test]
async fn where_the_fresh_token_is_refused_too_it_is_said_until_a_check_succeeds() {
    let stage = Stage::new().await;
    checked_shop(&stage, "shop").await;
    let refuse = Fault::always(Action::code(105_002)).endpoint(Endpoint::Shops);
    let fault = stage.simulator.add_fault(refuse).await;
    let mut operator = operator(&stage).start();
    let settled = |status: &Value| is_refused(status) && message(status).contains("although it was refreshed");
    let status = stage.wait_status("shop", "refused, refreshed, refused", settled, SOON).await;
    assert!(!has_condition(&status, "Stalled", "True", "AccessTokenRejected"), "{status:#}");
    assert!(message(&status).contains(&format!("kubectl tiktokshop authorize shop -n {}", stage.namespace)));
    stage.simulator.wait_for_shops_calls("shop", 3, LONG).await;
    operator.restart();
    stage.simulator.wait_for_shops_calls("shop", 4, LONG).await;
    assert_eq!(counts(&stage, "shop").await.1, 1, "one refresh, and no loop");
    assert!(is_refused(&stage.status("shop").await));

    stage.simulator.clear_fault(fault).await;
    stage.wait_status("shop", "checked", is_checked, LONG).await;
    assert_eq!(counts(&stage, "shop").await.1, 1);
    stage.simulator.assert_no_violations().await;
}

/// Covers: reason/MissingScope, event/MissingScope
#[tokio::test]
async fn a_missing_scope_is_said_to_be_that_and_the_token_still_counts_as_valid() {
    let stage = Stage::new().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("shop").access_remaining(5 * DAY)).await;
    let scopes = ShopPatch { granted_scopes: Some(vec!["seller.order.info".to_owned()]), ..ShopPatch::default() };
    stage.simulator.patch_shop("shop", &scopes).await;
    stage.token_secret(&shop).create(&stage.client).await;
    stage.integration("shop").field("checkShops", true).create(&stage.client).await;
    let mut operator = operator(&stage).start();
    let lacks = |status: &Value| has_condition(status, "Ready", "True", "MissingScope");
    let status = stage.wait_status("shop", "it lacks a scope", lacks, SOON).await;
    assert!(message(&status).contains("seller.authorization.info"), "{status:#}");
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "MissingScope", SOON).await;
    assert_eq!(ciphers(&stage, "shop").await, None);

    // It is not asked again and again, and said across a restart.
    operator.restart();
    operator.wait_ready(SOON).await;
    stage.request("shop", "now").await;
    stage.simulator.wait_for_shops_calls("shop", 2, SOON).await;
    assert_eq!(counts(&stage, "shop").await, (2, 1, 1));
    let scopes =
        ShopPatch { granted_scopes: Some(vec!["seller.authorization.info".to_owned()]), ..ShopPatch::default() };
    stage.simulator.patch_shop("shop", &scopes).await;
    stage.request("shop", "again").await;
    stage.wait_status("shop", "checked", is_checked, SOON).await;
}

/// Covers: spec/checkShops
#[tokio::test]
async fn a_check_that_fails_otherwise_changes_nothing_and_is_made_again() {
    let stage = Stage::new().await;
    for action in [Action::http(503), Action::code(36_009_003), Action::raw(200, "<html>")] {
        stage.simulator.add_fault(Fault::once(action).endpoint(Endpoint::Shops)).await;
    }
    checked_shop(&stage, "shop").await;
    let operator = operator(&stage).start();
    stage.simulator.wait_for_shops_calls("shop", 1, SOON).await;
    let status = stage.wait_status("shop", "Ready all the same", is_ready, SOON).await;
    assert!(status["lastError"].is_null() && status["lastShopsCheckTime"].is_null(), "{status:#}");
    stage.wait_status("shop", "checked in the end", is_checked, 2 * LONG).await;
    assert_eq!(counts(&stage, "shop").await, (4, 0, 0), "it is tried again, and no token is spent for it");
    assert_eq!(operator.logs().matches("the check of the shops failed").count(), 3, "each failure is logged, once");
}

/// Covers: spec/checkShops
#[tokio::test]
async fn too_many_requests_pause_the_app_key_as_those_of_a_refresh_do() {
    let stage = Stage::new().await;
    let limit =
        RateLimit { requests_per_second: 0.2, burst: Some(1), answer: RateLimitAnswer::Http429, retry_after: None };
    stage.simulator.set_rate_limit(Some(limit)).await;
    checked_shop(&stage, "a").await;
    checked_shop(&stage, "b").await;
    let _operator = operator(&stage).start();
    // Whoever is second is told so, and is checked when the pause is over.
    for name in ["a", "b"] {
        stage.wait_status(name, "checked", is_checked, LONG).await;
    }
    let calls = counts(&stage, "a").await.0 + counts(&stage, "b").await.0;
    assert!(calls <= 4, "{calls} calls: the pause was not kept");
}

/// A check that hangs holds the only slot: a refresh takes it, of this integration or of another.
///
/// Covers: spec/checkShops, flag/max-concurrent-refreshes
#[tokio::test]
async fn a_refresh_does_not_wait_for_a_check() {
    let stage = Stage::new().await;
    let hang = Fault::always(Action::hang(Point::BeforeProcessing)).endpoint(Endpoint::Shops);
    let fault = stage.simulator.add_fault(hang).await;
    checked_shop(&stage, "shop").await;
    stage.shop("other", 5 * DAY).await;
    let _operator = operator(&stage).flag("request-timeout", "60s").flag("max-concurrent-refreshes", "1").start();
    stage.simulator.wait_for_shops_calls("shop", 1, SOON).await;
    stage.request("other", "now").await;
    stage.wait_refreshed("other", "now", SOON).await;
    stage.request("shop", "now").await;
    stage.simulator.wait_for_refreshes("shop", 1, SOON).await;
    stage.simulator.clear_fault(fault).await;
    let done = |status: &Value| status["lastHandledRefreshRequest"] == "now" && is_ready(status);
    stage.wait_status("shop", "refreshed", done, SOON).await;
    stage.simulator.assert_no_violations().await;
}

/// Somebody replaces the tokens while the check is under way: what it was told is of no use for theirs.
///
/// Covers: spec/checkShops
#[tokio::test]
async fn ciphers_are_written_only_while_the_pair_that_was_checked_stands_there_and_nobody_claims_it() {
    let stage = Stage::new().await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).endpoint(Endpoint::Shops)).await;
    checked_shop(&stage, "shop").await;
    let _operator = operator(&stage).flag("request-timeout", "60s").start();
    stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    let shop = stage.simulator.reauthorize("shop").await;
    let claim = json!({"metadata": {"annotations": {steps::CLAIM: "another's"}}, "stringData": {
        "access_token": shop.access_token(), "refresh_token": shop.refresh_token()}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &claim).await;
    let before = reads(&stage, "shop");
    stage.simulator.release_all().await;
    // The answer is dropped, and what stands there now is looked at instead.
    let looked = poll::until(SOON, async || (reads(&stage, "shop") > before).then_some(())).await;
    assert!(looked.is_some(), "nobody looks at the tokens that stand there now");
    assert_eq!(ciphers(&stage, "shop").await, None, "the ciphers were written under a claim");
    let free = json!({"metadata": {"annotations": {steps::CLAIM: null}}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &free).await;
    stage.wait_status("shop", "checked", is_checked, LONG).await;
    assert!(ciphers(&stage, "shop").await.is_some());
}

/// A write of anybody in between costs one more read, and is kept.
///
/// Covers: spec/checkShops
#[tokio::test]
async fn a_conflict_costs_a_read_and_keeps_what_others_wrote() {
    let stage = Stage::new().await;
    checked_shop(&stage, "shop").await;
    let hold = stage.proxy.on("the ciphers", steps::ciphers(&stage.namespace, "shop")).once().hold();
    let _operator = operator(&stage).start();
    hold.wait_held(SOON).await;
    stage.touch_secret("shop", "meanwhile").await;
    hold.release();
    stage.wait_status("shop", "checked", is_checked, SOON).await;
    assert!(ciphers(&stage, "shop").await.is_some());
    let secret = fixtures::secret(&stage.client, &stage.namespace, "shop").await.expect("it is there");
    assert_eq!(secret.metadata.labels.unwrap_or_default()["touched"], "meanwhile");
    assert_eq!(counts(&stage, "shop").await.0, 1);
}

/// Covers: spec/checkShops, status/shops
#[tokio::test]
async fn without_check_shops_nothing_is_asked_and_what_was_said_goes() {
    let stage = Stage::new().await;
    checked_shop(&stage, "shop").await;
    stage.shop("plain", HOUR).await;
    let _operator = operator(&stage).start();
    stage.wait_status("shop", "checked", is_checked, SOON).await;
    let patch = json!({"spec": {"checkShops": false}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &patch).await;
    let gone = |status: &Value| status["shops"].is_null() && status["lastShopsCheckTime"].is_null();
    stage.wait_status("shop", "no word of shops", gone, SOON).await;
    assert!(ciphers(&stage, "shop").await.is_some(), "nothing is taken from the Secret");
    stage.simulator.wait_for_refreshes("plain", 1, SOON).await;
    stage.wait_status("plain", "Ready", is_ready, SOON).await;
    assert_eq!(counts(&stage, "plain").await.0, 0);
}

/// Covers: spec/checkShops
#[tokio::test]
async fn a_spec_whose_tokens_stand_where_the_ciphers_go_is_refused() {
    let stage = Stage::new().await;
    let keys = [(fixtures::Field::AccessToken, "shop_ciphers")];
    let clash = stage.integration("shop").token_keys(&keys).field("checkShops", true);
    let error = clash.try_create(&stage.client).await.expect_err("it is refused").to_string();
    assert!(error.contains("checkShops writes the key shop_ciphers"), "{error}");
    stage.integration("shop").token_keys(&keys).create(&stage.client).await;
}
