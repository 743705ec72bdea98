//! What is taken as it is found, what is taken up at once, and what each costs the API server.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    control_plane::AuditEntry,
    fixtures::{self, SecretFixture},
    poll,
    simulator::{Action, Fault, NewShop, Point, RetryAfter, RetryAfterStyle},
};

use crate::resilience::{SOON, Stage, is_ready};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// The four values that a refresh writes.
const WRITTEN: [&str; 4] = ["access_token", "access_token_expire_in", "refresh_token", "refresh_token_expire_in"];

/// A Secret without what a refresh may change: the four values, the operator's annotations, and the
/// API server's own bookkeeping.
fn what_must_stay(mut secret: Secret) -> Value {
    secret.metadata.resource_version = None;
    secret.metadata.managed_fields = None;
    secret.metadata.annotations.get_or_insert_default().retain(|name, _| !name.starts_with("tiktokshop.dev/"));
    secret.data.get_or_insert_default().retain(|key, _| !WRITTEN.contains(&key.as_str()));
    serde_json::to_value(secret).expect("a Secret is JSON")
}

fn next_refresh(status: &Value) -> i64 {
    let text = status["nextRefreshTime"].as_str().unwrap_or_else(|| panic!("nothing is planned: {status:#}"));
    DateTime::parse_from_rfc3339(text).unwrap_or_else(|error| panic!("{text}: {error}")).timestamp()
}

/// The whole `data` object of a TikTok answer, pasted into a Secret that others own and label.
///
/// Covers: spec/tokenSecretRef.name, annotation/refreshed-at
#[tokio::test]
async fn a_pasted_answer_works_as_it_is_and_keeps_all_that_is_not_a_token() {
    let stage = Stage::new().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("pasted").access_remaining(HOUR)).await;
    let configs: Api<ConfigMap> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let owner: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "owner"}})).expect("a ConfigMap");
    let owner = configs.create(&PostParams::default(), &owner).await.expect("an owner can be made");
    let mut secret = SecretFixture::new(&stage.namespace, "pasted")
        .value("other", "0123456789")
        .label("example.com/team", "a")
        .annotation("example.com/note", "b");
    let data = shop.data.as_object().expect("an answer's data is an object");
    assert!(data.len() > WRITTEN.len(), "an answer holds more than tokens: {:?}", data.keys());
    for (key, value) in data {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        secret = secret.value(key, text);
    }
    let mut manifest = secret.manifest();
    manifest["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}]);
    manifest["metadata"]["finalizers"] = json!(["example.com/keep"]);
    fixtures::create(&stage.client, &manifest).await;
    let before = fixtures::secret(&stage.client, &stage.namespace, "pasted").await.expect("it was made");
    stage.integration("pasted").create(&stage.client).await;

    let _operator = stage.operator().start();
    stage.wait_status("pasted", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    let after = fixtures::secret(&stage.client, &stage.namespace, "pasted").await.expect("it is still there");
    let current = stage.simulator.shop("pasted").await;
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "pasted").await;
    let written = [
        current.access_token().to_owned(),
        current.access_expires_at().to_string(),
        current.refresh_token().to_owned(),
        current.refresh_expires_at().to_string(),
    ];
    for (key, expected) in WRITTEN.iter().zip(written) {
        assert_eq!(values[*key], expected, "{key}");
    }
    assert_eq!(what_must_stay(after), what_must_stay(before), "the Secret lost or gained something");
    stage.assert_refreshes("pasted", 1).await;
    // Nothing is left that would keep the namespace.
    let release = json!({"metadata": {"finalizers": null}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "pasted", &release).await;
}

/// A token Secret, a window or a name of a Secret that is changed is acted on without a wait.
///
/// Covers: spec/refreshBefore, spec/tokenSecretRef.name, status/observedGeneration,
/// status/observedTokenSecret.uid, status/nextRefreshTime
#[tokio::test]
async fn what_a_person_changes_is_taken_up_at_once() {
    let stage = Stage::new().await;
    for name in ["expiry", "window", "renamed"] {
        stage.shop(name, 5 * DAY).await;
    }
    let _operator = stage.operator().start();
    for name in ["expiry", "window", "renamed"] {
        stage.wait_status(name, "Ready", is_ready, SOON).await;
        stage.assert_refreshes(name, 0).await;
    }

    let soon = (chrono::Utc::now().timestamp() + 60).to_string();
    let patch = json!({"stringData": {"access_token_expire_in": soon}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "expiry", &patch).await;
    stage.wait_status("expiry", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    stage.assert_current("expiry").await;
    stage.assert_refreshes("expiry", 1).await;

    // The longest window there is: the new token, of seven days, must not be due at once again.
    let patch = json!({"spec": {"refreshBefore": "144h"}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "window", &patch).await;
    let done = |status: &Value| status["lastRefreshTime"].is_string() && status["observedGeneration"] == 2;
    let status = stage.wait_status("window", "refreshed", done, SOON).await;
    let expiry = stage.simulator.shop("window").await.access_expires_at();
    let (next, window) = (next_refresh(&status), 144 * HOUR);
    assert!(
        (expiry - window - window / 20..=expiry - window).contains(&next),
        "the next refresh is {} s before the expiry, not 144 h and up to a twentieth more",
        expiry - next
    );
    stage.assert_current("window").await;

    let other = stage.simulator.create_shop(&NewShop::of(&stage.app).id("other").access_remaining(HOUR)).await;
    stage.token_secret(&other).create(&stage.client).await;
    let patch = json!({"spec": {"tokenSecretRef": {"name": "other"}}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "renamed", &patch).await;
    stage.simulator.wait_for_refreshes("other", 1, SOON).await;
    let secret = fixtures::secret(&stage.client, &stage.namespace, "other").await.expect("it is there");
    let moved = |status: &Value| {
        status["observedTokenSecret"]["uid"] == json!(secret.metadata.uid) && status["lastRefreshTime"].is_string()
    };
    stage.wait_status("renamed", "the other Secret", moved, SOON).await;
    stage.assert_current("other").await;
    stage.assert_refreshes("other", 1).await;
    stage.assert_refreshes("renamed", 0).await;
    // By now all that was set off is over; nothing was refreshed twice.
    stage.assert_refreshes("window", 1).await;
}

/// An app Secret that loses a key is said by integrations that are not due, too; refused credentials that were corrected
/// are no error any more, although nothing is due.
///
/// Covers: reason/AppCredentialsNotFound, reason/AppCredentialsRejected, condition/Stalled
#[tokio::test]
async fn a_change_of_the_app_secret_shows_on_integrations_that_are_not_due() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let without = json!({"data": {"app_secret": null}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "app", &without).await;
    let missing = |status: &Value| fixtures::has_condition(status, "Ready", "True", "AppCredentialsNotFound");
    stage.wait_status("shop", "the missing key", missing, SOON).await;
    let wrong = json!({"stringData": {"app_secret": "wrong"}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "app", &wrong).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.request("shop", "now").await;
    let refused = |status: &Value| fixtures::has_condition(status, "Stalled", "True", "AppCredentialsRejected");
    stage.wait_status("shop", "Stalled", refused, SOON).await;
    let right = json!({"stringData": {"app_secret": stage.app.app_secret}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "app", &right).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let status = stage.status("shop").await;
    assert!(fixtures::condition(&status, "Stalled").is_none(), "{status:#}");
}

/// While TikTok takes its time with the first refresh, the integration is not without a status.
///
/// Covers: condition/Ready, status/observedGeneration
#[tokio::test]
async fn a_new_integration_has_a_status_while_its_first_call_is_under_way() {
    let stage = Stage::new().await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::BeforeProcessing))).await;
    stage.shop("shop", HOUR).await;
    let _operator = stage.operator().flag("request-timeout", "1m").start();
    let held = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;
    let status = stage.wait_status("shop", "Ready", is_ready, SOON).await;
    assert!(fixtures::has_condition(&status, "Refreshed", "Unknown", "NotAttempted"), "{status:#}");
    stage.simulator.release(held.id).await;
    stage.wait_status("shop", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    stage.assert_refreshes("shop", 1).await;
}

/// While TikTok has asked for a pause, the time told is the one at which it is over, of all that wait for it.
///
/// Covers: status/nextRefreshTime, reason/RateLimited
#[tokio::test]
async fn the_next_refresh_is_told_for_when_tiktoks_pause_is_over() {
    let stage = Stage::new().await;
    let pause = RetryAfter { seconds: 600, style: RetryAfterStyle::Seconds };
    stage.simulator.add_fault(Fault::once(Action::too_many_requests(Some(pause)))).await;
    stage.shop("first", HOUR).await;
    let _operator = stage.operator().start();
    let limited = |status: &Value| fixtures::has_condition(status, "Refreshed", "False", "RateLimited");
    let status = stage.wait_status("first", "RateLimited", limited, SOON).await;
    let left = |status: &Value| next_refresh(status) - chrono::Utc::now().timestamp();
    assert!((570..=602).contains(&left(&status)), "{status:#}");
    stage.shop("second", HOUR).await;
    let status = stage.wait_status("second", "a plan", |status| status["nextRefreshTime"].is_string(), SOON).await;
    assert!((560..=602).contains(&left(&status)), "{status:#}");
    assert_eq!(stage.simulator.shop("second").await.counters.presentations, 0);
}

/// The moment of the next refresh is spread over the fleet, and the same in every life of the
/// operator, even where the status was lost.
///
/// Covers: status/nextRefreshTime
#[tokio::test]
async fn the_spread_of_refreshes_is_the_same_in_every_life() {
    let stage = Stage::new().await;
    let names: Vec<String> = (1..=8).map(|number| format!("shop-{number}")).collect();
    for name in &names {
        stage.shop(name, 5 * DAY).await;
    }
    let planned = async || {
        let mut planned = BTreeMap::new();
        for name in &names {
            let status = stage.wait_status(name, "Ready, and planned", is_ready, SOON).await;
            let lead = stage.simulator.shop(name).await.access_expires_at() - next_refresh(&status);
            assert!((24 * HOUR..=24 * HOUR + 24 * HOUR / 20).contains(&lead), "{name} is planned {lead} s ahead");
            planned.insert(name.clone(), lead);
        }
        planned
    };
    let mut operator = stage.operator().start();
    let first = planned().await;
    let different: BTreeSet<_> = first.values().collect();
    assert!(different.len() > 4, "eight shops are refreshed at {} moments: {first:?}", different.len());
    operator.sigterm(SOON).await;
    let integrations = fixtures::integrations(&stage.client, &stage.namespace);
    for name in &names {
        let nothing = Patch::Merge(json!({"status": null}));
        integrations.patch_status(name, &PatchParams::default(), &nothing).await.expect("a status can be removed");
    }
    operator.restart();
    assert_eq!(planned().await, first, "a restart moved refreshes");
}

/// 256 bytes are a request, and come back in the status and on the Secret as they are. It is acted
/// on once, even where the status that told so was lost.
///
/// Covers: annotation/refresh-requested-at, annotation/handled-refresh-request, status/lastHandledRefreshRequest
#[tokio::test]
async fn the_longest_request_is_acted_on() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let mut operator = stage.operator().start();
    // 128 characters of two bytes.
    let longest = "é".repeat(128);
    assert_eq!(longest.len(), 256);
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.request("shop", &longest).await;
    stage.wait_refreshed("shop", &longest, SOON).await;
    let handled = stage.annotation("shop", "tiktokshop.dev/handled-refresh-request").await;
    assert_eq!(handled.as_deref(), Some(longest.as_str()));
    operator.sigterm(SOON).await;
    let integrations = fixtures::integrations(&stage.client, &stage.namespace);
    let nothing = Patch::Merge(json!({"status": null}));
    integrations.patch_status("shop", &PatchParams::default(), &nothing).await.expect("a status can be removed");
    operator.restart();
    let known = |status: &Value| is_ready(status) && status["lastHandledRefreshRequest"] == *longest;
    stage.wait_status("shop", "Ready, and the request known", known, SOON).await;
    stage.assert_refreshes("shop", 1).await;
}

/// What the operator asked the API server since an audit entry, in the server's own words; once no
/// more comes. Watches and leases go on without end and are left out.
async fn asked_since(stage: &Stage<'_>, entries: &mut usize) -> Vec<String> {
    let user = stage.identity.user();
    let of_interest = |entry: &&AuditEntry| {
        let kept = entry.object_ref.as_ref().is_none_or(|object| object.resource != "leases");
        entry.user.username == user && entry.verb != "watch" && kept
    };
    let mut last = (0, std::time::Instant::now());
    let settled = poll::until(SOON, async || {
        let count = stage.plane.audit().iter().filter(of_interest).count();
        if count != last.0 {
            last = (count, std::time::Instant::now());
        }
        (last.1.elapsed().as_millis() > 1_500).then_some(())
    });
    settled.await.expect("the operator comes to rest");
    let all: Vec<AuditEntry> = stage.plane.audit();
    let asked = all.iter().filter(of_interest).skip(*entries).map(|entry| {
        let name = entry.object_ref.as_ref().and_then(|object| object.name.as_deref()).unwrap_or_default();
        if name.is_empty() || entry.what().ends_with(" events") {
            entry.what()
        } else {
            format!("{} {name}", entry.what())
        }
    });
    let asked: Vec<String> = asked.collect();
    *entries += asked.len();
    asked
}

/// Counted by the API server itself: five requests for a refresh in steady state; one more, a read
/// of the Secret, for the first after a restart (and one for the app's credentials, which all
/// shops share); none for a restart with an unchanged fleet.
///
/// Covers: annotation/refresh-attempt
#[tokio::test]
async fn the_api_servers_own_log_counts_five_requests_for_a_refresh() {
    let stage = Stage::new().await;
    let names = ["shop-1", "shop-2", "shop-3"];
    for name in names {
        stage.shop(name, 5 * DAY).await;
    }
    let mut operator = stage.operator().start();
    for name in names {
        stage.wait_status(name, "Ready", is_ready, SOON).await;
    }
    let mut seen = 0;
    asked_since(&stage, &mut seen).await;

    let refreshed = [
        "patch secrets (dry run) shop-1",
        "patch secrets shop-1",
        "patch secrets shop-1",
        "patch tiktokshopintegrations/status shop-1",
    ];
    let events = |asked: &[String]| asked.iter().filter(|what| what.ends_with(" events")).count();
    for request in ["first", "second"] {
        stage.request("shop-1", request).await;
        stage.wait_refreshed("shop-1", request, SOON).await;
        let asked = asked_since(&stage, &mut seen).await;
        let rest: Vec<&str> = asked.iter().map(String::as_str).filter(|what| !what.ends_with(" events")).collect();
        if request == "second" {
            assert_eq!(rest, refreshed, "the requests of a refresh in steady state");
            assert_eq!(events(&asked), 1, "{asked:#?}");
        }
    }

    operator.sigterm(SOON).await;
    asked_since(&stage, &mut seen).await;
    operator.restart();
    operator.wait_ready(SOON).await;
    let asked = asked_since(&stage, &mut seen).await;
    let about_objects: Vec<_> = asked.iter().filter(|what| names.iter().any(|name| what.ends_with(name))).collect();
    assert!(about_objects.is_empty(), "a restart with an unchanged fleet costs requests: {about_objects:#?}");

    stage.request("shop-1", "third").await;
    stage.wait_refreshed("shop-1", "third", SOON).await;
    let asked = asked_since(&stage, &mut seen).await;
    let reads = asked.iter().filter(|what| *what == "get secrets shop-1").count();
    let of_app = asked.iter().filter(|what| *what == "get secrets app").count();
    assert_eq!((reads, of_app), (1, 1), "{asked:#?}");
    assert_eq!(asked.len(), 7, "six for the shop, one for the app that all shops share: {asked:#?}");
    stage.assert_refreshes("shop-1", 3).await;
}
