//! What people and programs see: columns, explanations, selectors, events, metrics.

use serde_json::json;
use tiktok_shop_testkit::fixtures;
use tiktok_shop_testkit::simulator::{Action, Fault, NewShop};

use crate::resilience::{SOON, Stage, is_ready};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// The columns of `kubectl get ttsi`, to the letter, and the cells of a shop at rest.
///
/// Covers: column/Team, column/Ready, column/Status, column/Hours, column/Expires, column/Age,
/// column/Refresh Token Expires, column/Last Refresh, column/Next Refresh, column/Error, spec/teamId
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_the_columns_of_the_contract() {
    let stage = Stage::new().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("one").access_remaining(5 * DAY - 60)).await;
    stage.token_secret(&shop).create(&stage.client).await;
    stage.integration("one").team("1").create(&stage.client).await;
    stage.shop("two", 5 * DAY).await;
    stage.simulator.add_fault(Fault::always(Action::code(36_009_033)).shop("two")).await;
    let _operator = stage.operator().start();
    stage.request("two", "now").await;
    stage.wait_status("one", "Ready", is_ready, SOON).await;
    let status = stage.wait_status("two", "failing", |s| s["lastError"].is_object(), SOON).await;

    let get = async |args: &[&str]| {
        let all = [&["get", "-n", stage.namespace.as_str()], args].concat();
        stage.plane.kubectl_ok(&all).await
    };
    let words = |line: &str| {
        line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    let usual = get(&["ttsi"]).await;
    let header = words(usual.lines().next().expect("a header"));
    assert_eq!(header, ["NAME", "TEAM", "READY", "STATUS", "HOURS", "EXPIRES", "AGE"]);
    let one = words(usual.lines().find(|line| line.starts_with("one")).expect("its line"));
    assert_eq!(one[..5], ["one", "1", "True", "TokenValid", "119"], "{usual}");
    assert!(one[5].ends_with('Z') && one[5].contains('T'), "EXPIRES is a time in UTC: {usual}");
    let wide = get(&["tiktokshopintegrations", "-o", "wide"]).await;
    let header = words(wide.lines().next().expect("a header"));
    assert_eq!(header[7..], ["REFRESH TOKEN EXPIRES", "LAST REFRESH", "NEXT REFRESH", "ERROR"]);
    let error = status["lastError"]["message"].as_str().expect("a message");
    assert!(wide.contains(error), "ERROR shows lastError.message:\n{wide}");
    assert!(get(&["tiktokshop"]).await.contains("one"), "the category works");
    assert_eq!(get(&["ttsi", "--field-selector", "spec.teamId=1", "-o", "name"]).await.lines().count(), 1);
    assert_eq!(get(&["ttsi", "--field-selector", "spec.suspend=false", "-o", "name"]).await.lines().count(), 2);
    let explained = stage.plane.kubectl_ok(&["explain", "ttsi.spec.refreshBefore"]).await;
    assert!(explained.contains("5m") && explained.contains("144h"), "the bounds are explained:\n{explained}");
}

/// Every metric of the contract, with the value that the fleet gives it.
///
/// Covers: flag/per-integration-metrics, `metric/tiktokshop_access_token_expiry_timestamp_seconds`,
/// `metric/tiktokshop_refresh_token_expiry_timestamp_seconds`, `metric/tiktokshop_api_requests_total`,
/// `metric/tiktokshop_build_info`, `metric/tiktokshop_integrations`, `metric/tiktokshop_integrations_expiring`,
/// `metric/tiktokshop_overdue_integrations`, `metric/tiktokshop_reconcile_duration_seconds`,
/// `metric/tiktokshop_reconciles_total`, `metric/tiktokshop_refresh_duration_seconds`,
/// `metric/tiktokshop_refresh_lateness_seconds`, `metric/tiktokshop_refresh_total`,
/// `metric/tiktokshop_soonest_access_token_expiry_timestamp_seconds`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_tell_of_the_fleet() {
    let stage = Stage::new().await;
    let later = stage.shop("later", 5 * DAY).await;
    stage.shop("due", HOUR).await;
    stage.simulator.add_fault(Fault::once(Action::code(36_009_033)).shop("later")).await;
    let operator = stage.operator().start();
    stage.wait_status("due", "refreshed", |s| s["lastRefreshTime"].is_string(), SOON).await;
    stage.request("later", "now").await;
    stage.wait_status("later", "failing", |s| s["lastError"].is_object(), SOON).await;
    let metrics = operator.metrics().await;
    let one = |name: &str, labels: &[(&str, &str)]| {
        metrics.value(name, labels).unwrap_or_else(|| panic!("there is no {name} with {labels:?}"))
    };
    let sums = |name: &str, labels: &[(&str, &str)], expected: f64| {
        let sum = metrics.sum(name, labels);
        assert!((sum - expected).abs() < 0.5, "{name}{labels:?} is {sum}, not {expected}");
    };
    sums("tiktokshop_refresh_total", &[("result", "success"), ("reason", "Refreshed")], 1.0);
    sums("tiktokshop_refresh_total", &[("result", "failure"), ("reason", "IpNotAllowed")], 1.0);
    sums("tiktokshop_api_requests_total", &[("code", "0")], 1.0);
    sums("tiktokshop_api_requests_total", &[("code", "36009033")], 1.0);
    sums("tiktokshop_refresh_duration_seconds_count", &[], 2.0);
    sums("tiktokshop_refresh_lateness_seconds_count", &[], 2.0);
    sums("tiktokshop_integrations", &[], 2.0);
    sums("tiktokshop_integrations", &[("ready", "True"), ("reason", "TokenValid")], 1.0);
    sums("tiktokshop_overdue_integrations", &[], 0.0);
    sums("tiktokshop_persist_retries_total", &[], 0.0);
    sums("tiktokshop_outcome_unknown_total", &[], 0.0);
    sums("tiktokshop_leader", &[], 1.0);
    sums("tiktokshop_build_info", &[], 1.0);
    assert!(one("tiktokshop_reconciles_total", &[]) >= 2.0);
    assert!(one("tiktokshop_reconcile_duration_seconds_count", &[]) >= 2.0);
    for (token, within) in [("access", "1h"), ("access", "24h"), ("access", "14d"), ("refresh", "14d")] {
        one("tiktokshop_integrations_expiring", &[("token", token), ("within", within)]);
    }
    sums("tiktokshop_integrations_expiring", &[("token", "access"), ("within", "14d")], 2.0);
    let expiry = one("tiktokshop_access_token_expiry_timestamp_seconds", &[("name", "later")]);
    let soonest = one("tiktokshop_soonest_access_token_expiry_timestamp_seconds", &[]);
    #[allow(clippy::cast_precision_loss, reason = "seconds of our time fit")]
    let expected = later.access_expires_at() as f64;
    assert!((expiry - expected).abs() < 0.5 && (soonest - expected).abs() < 0.5, "{expiry}, {soonest}");
    assert!(one("tiktokshop_refresh_token_expiry_timestamp_seconds", &[("name", "later")]) > expected);

    let second = stage.second_proxy();
    let silent = stage.operator_through(&second).leader_elect(false).flag("per-integration-metrics", "off").start();
    silent.wait_ready(SOON).await;
    let metrics = silent.metrics().await;
    assert_eq!(metrics.value("tiktokshop_access_token_expiry_timestamp_seconds", &[("name", "later")]), None);
    assert!(metrics.value("tiktokshop_soonest_access_token_expiry_timestamp_seconds", &[]).is_some());
}

/// Failures that repeat are one event with a count; the first success after them is told; a refresh
/// token that expires soon is warned of; a person's pair that came during a call is told.
///
/// Covers: event/Refreshed, event/RefreshFailed, event/RefreshRecovered, event/RefreshTokenExpiring,
/// event/TokensReplaced, status/lastError.message, status/lastError.time, status/consecutiveFailures,
/// reason/RateLimited
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_what_happened() {
    let stage = Stage::new().await;
    let soon =
        NewShop::of(&stage.app).id("shop").access_remaining(HOUR).refresh_remaining(10 * DAY).refresh_life(10 * DAY);
    stage.new_shop(&soon).await;
    stage.simulator.add_fault(Fault::times(2, Action::code(36_009_999)).shop("shop")).await;
    let _operator = stage.operator().start();
    let status = stage.wait_status("shop", "failing", |s| s["consecutiveFailures"] == 1, SOON).await;
    assert!(status["lastError"]["time"].is_string() && status["lastError"]["message"].is_string(), "{status:#}");
    let client = &stage.client;
    fixtures::wait_for_event(client, &stage.namespace, "shop", "RefreshFailed", SOON).await;
    stage
        .wait_status("shop", "refreshed", |s| s["lastRefreshTime"].is_string() && s["lastError"].is_null(), 2 * SOON)
        .await;
    for reason in ["Refreshed", "RefreshRecovered", "RefreshTokenExpiring"] {
        fixtures::wait_for_event(client, &stage.namespace, "shop", reason, SOON).await;
    }
    let events = stage.plane.kubectl_ok(&["get", "events.events.k8s.io", "-n", &stage.namespace, "-o", "json"]).await;
    let events: serde_json::Value = serde_json::from_str(&events).expect("JSON");
    let items = events["items"].as_array().expect("a list");
    let failed: Vec<_> = items.iter().filter(|event| event["reason"] == "RefreshFailed").collect();
    assert_eq!(failed.len(), 1, "two failures alike are one event");
    assert_eq!(failed[0]["series"]["count"], json!(2), "with a count: {:#}", failed[0]);
    assert_eq!(failed[0]["type"], "Warning");
    assert!(failed[0]["note"].as_str().is_some_and(|note| note.len() <= 1_000));
    assert_eq!(failed[0]["regarding"]["kind"], "TikTokShopIntegration");

    let hold = stage
        .simulator
        .add_fault(Fault::once(Action::hold(tiktok_shop_testkit::simulator::Point::AfterRotation)).shop("shop"))
        .await;
    stage.request("shop", "again").await;
    stage.simulator.wait_for_fault(hold, 1, SOON).await;
    let persons = json!({"stringData": {"access_token": "TTP_persons_at", "refresh_token": "TTP_persons_rt"}});
    fixtures::patch_secret(client, &stage.namespace, "shop", &persons).await;
    stage.simulator.release_all().await;
    fixtures::wait_for_event(client, &stage.namespace, "shop", "TokensReplaced", SOON).await;
    let values = fixtures::secret_values(client, &stage.namespace, "shop").await;
    assert_eq!(values["refresh_token"], "TTP_persons_rt", "the person's token stays");
}
