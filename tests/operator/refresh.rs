//! What a refresh does, when it is made, and what it costs.

use std::collections::BTreeMap;

use chrono::DateTime;
use serde_json::{Value, json};
use tiktok_shop_testkit::fixtures::{self, Field, SecretFixture, app_secret, has_condition, integration};
use tiktok_shop_testkit::proxy::Seen;
use tiktok_shop_testkit::simulator::{Forms, NewShop, Rotation};

use crate::resilience::{SOON, Stage, is_ready};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

fn seconds(status: &Value, field: &str) -> i64 {
    let text = status[field].as_str().unwrap_or_else(|| panic!("status has no {field}: {status:#}"));
    DateTime::parse_from_rfc3339(text).unwrap_or_else(|_| panic!("{field} is no RFC 3339 time: {text}")).timestamp()
}

/// Waits until the operator has taken in all that happened to integrations and to Secrets before this:
/// until a newer change of each has led to what it should lead to, which shows in order of the watches.
async fn taken_in(stage: &Stage<'_>, fence: &str) {
    // With an app Secret of its own, whose reading is not counted among the requests of others.
    let app = format!("{fence}-app");
    app_secret(&stage.namespace, &app, &stage.app.app_key, &stage.app.app_secret).create(&stage.client).await;
    integration(&stage.namespace, fence, fence, &app).create(&stage.client).await;
    let missing = |status: &Value| has_condition(status, "Ready", "False", "TokenSecretNotFound");
    stage.wait_status(fence, "without its Secret", missing, SOON).await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(fence).access_remaining(5 * DAY)).await;
    stage.token_secret(&shop).create(&stage.client).await;
    stage.wait_status(fence, "Ready", is_ready, SOON).await;
}

/// All but watches, leases, and what the fences of [`taken_in`] cost. A watch begins with a list in pages where the
/// server streams none (Kubernetes 1.33 does not by default): that is of the watch.
fn is_of_interest(seen: &Seen) -> bool {
    let of_a_fence = seen.path.contains("/fence") || seen.body.contains("\"fence");
    let begins_a_watch = seen.is_watch() || seen.query.contains("limit=500");
    !begins_a_watch && !seen.path.contains("/leases/") && !of_a_fence
}

/// A due token is refreshed: the four values and the annotations beside them are written, the claim
/// is gone, the status tells it all, and everything else in the Secret is as it was.
///
/// Covers: reason/TokenValid, reason/Refreshed, annotation/refreshed-at, annotation/refreshed-from,
/// annotation/tokens-digest, event/Refreshed, spec/tokenSecretRef.name, spec/appCredentialsSecretRef.name,
/// status/lastRefreshTime, status/lastAttemptTime, status/consecutiveFailures, status/observedGeneration,
/// status/observedTokenSecret.uid, status/observedTokenSecret.resourceVersion,
/// status/observedTokenSecret.tokensDigest, status/seller.openId, status/seller.name, status/seller.baseRegion,
/// status/seller.userType, flag/token-endpoint
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_due_token_is_refreshed_and_nothing_else_is_touched() {
    let stage = Stage::new().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("due").access_remaining(HOUR)).await;
    stage
        .token_secret(&shop)
        .value("note", "mine")
        .label("team", "a")
        .annotation("example.com/owner", "somebody")
        .create(&stage.client)
        .await;
    stage.integration("due").create(&stage.client).await;
    let _operator = stage.operator().start();

    let status = stage.wait_status("due", "refreshed", |s| s["lastRefreshTime"].is_string(), SOON).await;
    let secret = fixtures::secret(&stage.client, &stage.namespace, "due").await.expect("the Secret is there");
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "due").await;
    let current = stage.simulator.shop("due").await;
    assert_eq!(values["access_token"], current.access_token());
    assert_eq!(values["access_token_expire_in"], current.access_expires_at().to_string());
    assert_eq!(values["refresh_token"], current.refresh_token());
    assert_eq!(values["refresh_token_expire_in"], current.refresh_expires_at().to_string());
    assert_eq!(values["note"], "mine", "another value of the Secret was touched");
    let annotations = secret.metadata.annotations.unwrap_or_default();
    assert_eq!(annotations["example.com/owner"], "somebody");
    assert_eq!(secret.metadata.labels.unwrap_or_default()["team"], "a");
    assert_eq!(annotations["tiktokshop.dev/refreshed-at"], status["lastRefreshTime"]);
    for digest in ["tiktokshop.dev/refreshed-from", "tiktokshop.dev/tokens-digest"] {
        assert_eq!(annotations[digest].len(), 32, "{digest} is a digest of 16 bytes in hexadecimal digits");
    }
    assert!(!annotations.contains_key("tiktokshop.dev/refresh-attempt"), "the claim is left: {annotations:?}");

    assert!(is_ready(&status) && has_condition(&status, "Refreshed", "True", "Refreshed"), "{status:#}");
    assert_eq!(status["observedTokenSecret"]["uid"], json!(secret.metadata.uid));
    assert_eq!(status["observedTokenSecret"]["resourceVersion"], json!(secret.metadata.resource_version));
    assert_eq!(status["observedTokenSecret"]["tokensDigest"], annotations["tiktokshop.dev/tokens-digest"]);
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["consecutiveFailures"], 0);
    assert_eq!(status["lastAttemptTime"], status["lastRefreshTime"]);
    assert_eq!(seconds(&status, "accessTokenExpiresAt"), current.access_expires_at());
    assert_eq!(seconds(&status, "refreshTokenExpiresAt"), current.refresh_expires_at());
    let data = &current.data;
    assert_eq!(status["seller"]["openId"], json!(data["open_id"]));
    assert_eq!(status["seller"]["name"], json!(data["seller_name"]));
    assert_eq!(status["seller"]["baseRegion"], json!(data["seller_base_region"]));
    assert_eq!(status["seller"]["userType"], json!(data["user_type"]));
    fixtures::wait_for_event(&stage.client, &stage.namespace, "due", "Refreshed", SOON).await;
    stage.assert_refreshes("due", 1).await;
}

/// A token outside its window is left alone, and the next refresh is told within the bounds of the
/// contract; a window in the spec goes before the operator's.
///
/// Covers: status/nextRefreshTime, spec/refreshBefore, flag/refresh-before, status/hoursUntilExpiry
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_outside_its_window_is_left_alone_until_shortly_before_the_window() {
    let stage = Stage::new().await;
    let mut shops = BTreeMap::new();
    for (name, window) in [("by-flag", None), ("by-spec", Some("2h")), ("by-share", Some("30%"))] {
        let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(name).access_remaining(3 * DAY - 60)).await;
        stage.token_secret(&shop).create(&stage.client).await;
        let wanted = stage.integration(name);
        let wanted = if let Some(window) = window { wanted.refresh_before(window) } else { wanted };
        wanted.create(&stage.client).await;
        shops.insert(name, shop);
    }
    let mut operator = stage.operator().flag("refresh-before", "10h").start();
    // Of a token that was put there by hand, the life is taken for one of seven days.
    for (name, window) in [("by-flag", 10 * HOUR), ("by-spec", 2 * HOUR), ("by-share", 7 * DAY * 3 / 10)] {
        let status = stage.wait_status(name, "Ready", is_ready, SOON).await;
        let (next, expiry) = (seconds(&status, "nextRefreshTime"), shops[name].access_expires_at());
        let earliest = expiry - window - window / 20;
        assert!(
            (earliest..=expiry - window).contains(&next),
            "{name}: {next} is not within [{earliest}, {}]",
            expiry - window
        );
        assert_eq!(status["hoursUntilExpiry"], 71, "three days less a minute, rounded down");
        stage.assert_refreshes(name, 0).await;
    }
    let before = stage.status("by-flag").await["nextRefreshTime"].clone();
    operator.sigterm(SOON).await;
    operator.restart();
    operator.wait_ready(SOON).await;
    assert_eq!(stage.status("by-flag").await["nextRefreshTime"], before, "a restart changes nothing");
}

/// A token that lives shorter than the window is not due at its birth: it is refreshed in the last
/// third of its life, not again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_lived_token_is_not_due_at_its_birth() {
    let stage = Stage::new().await;
    let shop = NewShop::of(&stage.app).id("short").access_remaining(60).access_life(6 * HOUR);
    stage.new_shop(&shop).await;
    let _operator = stage.operator().start();
    let status = stage.wait_status("short", "refreshed", |s| s["lastRefreshTime"].is_string(), SOON).await;
    let window = seconds(&status, "accessTokenExpiresAt") - seconds(&status, "nextRefreshTime");
    assert!((2 * HOUR - 2..=2 * HOUR + HOUR / 10 + 2).contains(&window), "a third of 6 h, not {window} s");
    taken_in(&stage, "fence").await;
    stage.assert_refreshes("short", 1).await;
}

/// Keys of one's own, in both Secrets.
///
/// Covers: spec/tokenSecretRef.keys.accessToken, spec/tokenSecretRef.keys.accessTokenExpireIn,
/// spec/tokenSecretRef.keys.refreshToken, spec/tokenSecretRef.keys.refreshTokenExpireIn,
/// spec/appCredentialsSecretRef.keys.appKey, spec/appCredentialsSecretRef.keys.appSecret
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_ones_own_are_read_and_written() {
    let stage = Stage::new().await;
    let keys = [
        (Field::AccessToken, "at"),
        (Field::AccessTokenExpireIn, "at-exp"),
        (Field::RefreshToken, "rt"),
        (Field::RefreshTokenExpireIn, "rt-exp"),
    ];
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("own").access_remaining(HOUR)).await;
    SecretFixture::new(&stage.namespace, "own")
        .value("at", shop.access_token())
        .value("at-exp", shop.access_expires_at().to_string())
        .value("rt", shop.refresh_token())
        .value("rt-exp", shop.refresh_expires_at().to_string())
        .create(&stage.client)
        .await;
    SecretFixture::new(&stage.namespace, "own-app")
        .value("k", stage.app.app_key.as_str())
        .value("s", stage.app.app_secret.as_str())
        .create(&stage.client)
        .await;
    integration(&stage.namespace, "own", "own", "own-app")
        .token_keys(&keys)
        .field("appCredentialsSecretRef", json!({"name": "own-app", "keys": {"appKey": "k", "appSecret": "s"}}))
        .create(&stage.client)
        .await;
    let _operator = stage.operator().start();
    stage.wait_status("own", "refreshed", |s| s["lastRefreshTime"].is_string(), SOON).await;
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "own").await;
    let current = stage.simulator.shop("own").await;
    assert_eq!(values["at"], current.access_token());
    assert_eq!(values["rt"], current.refresh_token());
    assert_eq!(values.keys().collect::<Vec<_>>(), ["at", "at-exp", "rt", "rt-exp"], "no other key came");
}

/// TikTok may keep the refresh token, or not send one at all: the one that is there stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_token_that_is_not_rotated_stays() {
    let stage = Stage::new().await;
    for (name, rotation) in [("kept", Rotation::NotRotating), ("omitted", Rotation::Omit)] {
        stage.new_shop(&NewShop::of(&stage.app).id(name).access_remaining(HOUR).rotation(rotation)).await;
    }
    let _operator = stage.operator().start();
    for name in ["kept", "omitted"] {
        stage.wait_status(name, "refreshed", |s| s["lastRefreshTime"].is_string(), SOON).await;
        let values = fixtures::secret_values(&stage.client, &stage.namespace, name).await;
        let current = stage.simulator.shop(name).await;
        assert_eq!(values["access_token"], current.access_token(), "{name}");
        assert_eq!(values["refresh_token"], current.refresh_token(), "{name}");
        assert_eq!(values["refresh_token_expire_in"], current.refresh_expires_at().to_string(), "{name}");
    }
}

/// Whichever form the endpoint serves; what worked is remembered.
///
/// Covers: flag/token-request
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_form_of_the_request_works_and_auto_finds_and_remembers_it() {
    let stage = Stage::new().await;
    for (form, served) in
        [("json", Forms::Json), ("query", Forms::Query), ("auto", Forms::Query), ("auto", Forms::Json)]
    {
        stage.simulator.set_forms(served).await;
        let name = format!("{form}-{served:?}").to_lowercase();
        stage.shop(&name, HOUR).await;
        let operator = stage.operator().flag("token-request", form).start();
        stage.wait_status(&name, "refreshed", |s| s["lastRefreshTime"].is_string(), SOON).await;
        let before = stage.simulator.witness().await.totals.requests;
        stage.request(&name, "again").await;
        stage.wait_refreshed(&name, "again", SOON).await;
        let requests = stage.simulator.witness().await.totals.requests - before;
        assert_eq!(requests, 1, "{name}: the second refresh knows the form");
        operator.sigterm(SOON).await;
        // A form that is not served presents the token to nobody who could spend it.
        assert_eq!(stage.simulator.shop(&name).await.counters.refreshes, 2, "{name}");
    }
    stage.simulator.assert_no_violations().await;
}

/// The annotation asks for one refresh, also across restarts; a suspended integration ignores it
/// until it is resumed; a value that is too long is ignored for good, and that is said.
///
/// Covers: annotation/refresh-requested-at, annotation/handled-refresh-request, event/InvalidValue,
/// status/lastHandledRefreshRequest
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_acted_on_once_and_a_suspended_one_on_resume() {
    let stage = Stage::new().await;
    stage.shop("asked", 5 * DAY).await;
    let mut operator = stage.operator().start();
    stage.wait_status("asked", "Ready", is_ready, SOON).await;
    stage.request("asked", "one").await;
    stage.wait_refreshed("asked", "one", SOON).await;
    assert_eq!(stage.annotation("asked", "tiktokshop.dev/handled-refresh-request").await.as_deref(), Some("one"));
    operator.sigterm(SOON).await;
    operator.restart();
    operator.wait_ready(SOON).await;
    taken_in(&stage, "fence-1").await;
    stage.assert_refreshes("asked", 1).await;

    let suspend = |on: bool| json!({"spec": {"suspend": on}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "asked", &suspend(true)).await;
    stage.wait_status("asked", "suspended", |s| has_condition(s, "Ready", "True", "Suspended"), SOON).await;
    stage.request("asked", "two").await;
    taken_in(&stage, "fence-2").await;
    stage.assert_refreshes("asked", 1).await;
    fixtures::patch_integration(&stage.client, &stage.namespace, "asked", &suspend(false)).await;
    stage.wait_refreshed("asked", "two", SOON).await;
    stage.assert_refreshes("asked", 2).await;

    stage.request("asked", &"x".repeat(257)).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "asked", "InvalidValue", SOON).await;
    taken_in(&stage, "fence-3").await;
    stage.assert_refreshes("asked", 2).await;
}

/// A corrected app secret is taken up at once, by every integration that uses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrected_app_secret_is_taken_up_at_once_by_all() {
    let stage = Stage::new().await;
    app_secret(&stage.namespace, "wrong", &stage.app.app_key, "not-it").create(&stage.client).await;
    for name in ["a", "b"] {
        let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id(name).access_remaining(HOUR)).await;
        stage.token_secret(&shop).create(&stage.client).await;
        integration(&stage.namespace, name, name, "wrong").create(&stage.client).await;
    }
    let _operator = stage.operator().start();
    for name in ["a", "b"] {
        let refused = |s: &Value| has_condition(s, "Ready", "True", "AppCredentialsRejected");
        stage.wait_status(name, "its app secret refused", refused, SOON).await;
    }
    let corrected = json!({"stringData": {"app_secret": stage.app.app_secret}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "wrong", &corrected).await;
    for name in ["a", "b"] {
        stage.wait_status(name, "Ready", is_ready, SOON).await;
        assert_eq!(stage.simulator.shop(name).await.counters.refreshes, 1, "{name}");
    }
}

/// In steady state a refresh costs five requests of the API server: rehearsal, claim, persist,
/// status, event; six after a restart, as the Secret is read first. A restart with nothing changed
/// reads no Secret, a label on the Secret costs one read and no write, and what changes nothing
/// sends nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_costs_five_requests_and_what_changes_nothing_costs_none() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let user = stage.identity.user();
    let fences = std::cell::Cell::new(0);
    // Waits for so many requests, and then whether more come.
    let counted = async |what: &str, expected: usize| {
        stage.proxy.wait_for_requests(expected, is_of_interest, SOON).await;
        fences.set(fences.get() + 1);
        taken_in(&stage, &format!("fence-{}", fences.get())).await;
        let requests: Vec<String> = stage
            .proxy
            .requests()
            .iter()
            .filter(|seen| is_of_interest(seen))
            .map(|seen| format!("{} {}?{}", seen.method, seen.path, seen.query))
            .collect();
        stage.proxy.clear();
        assert_eq!(requests.len(), expected, "{what}: {requests:#?}");
        requests
    };
    counted("start: discovery, both Secrets, the status", 4).await;
    assert!(!stage.plane.request_counts(&user).is_empty(), "the API server knows these requests as the operator's");

    stage.request("shop", "first").await;
    counted("rehearsal, claim, persist, status, event", 5).await;
    stage.wait_refreshed("shop", "first", SOON).await;
    stage.request("shop", "second").await;
    counted("the second refresh: as the first", 5).await;
    stage.wait_refreshed("shop", "second", SOON).await;

    let labels = json!({"metadata": {"labels": {"some": "label"}}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &labels).await;
    counted("a label on the integration", 0).await;
    stage.touch_secret("shop", "1").await;
    let one_read = counted("a label on the Secret", 1).await;
    assert!(one_read[0].starts_with("GET "), "{one_read:#?}");

    // The label's version is not in the status, so the next start reads once; a refresh puts it right.
    stage.request("shop", "third").await;
    counted("after a label: as ever", 5).await;
    stage.wait_refreshed("shop", "third", SOON).await;
    operator.sigterm(SOON).await;
    stage.proxy.clear();
    operator.restart();
    operator.wait_ready(SOON).await;
    counted("a restart: discovery, and no Secret is read", 1).await;
    stage.request("shop", "fourth").await;
    counted("the first refresh after a restart reads the token Secret, and the app's once for all", 7).await;
    stage.wait_refreshed("shop", "fourth", SOON).await;
}
