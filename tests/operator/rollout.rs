//! What uses the tokens is restarted once for each rotation, whatever dies between, and never for anything else.
//!
//! No controller runs here: a rollout is a new generation of the workload, which only a changed pod template makes.

use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use kube::Api;
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, condition, has_condition},
    poll,
    proxy::Seen,
    simulator::{Action, Fault, NewShop, Shop},
    steps,
};

use crate::resilience::{LONG, SOON, Stage, is_ready};

const HOUR: i64 = 3_600;
const PLENTY: i64 = 5 * 24 * HOUR;
const RESTARTED_AT: &str = "tiktokshop.dev/restarted-at";

/// Grants what the chart grants with `rolloutRestart.enabled`.
async fn allow(stage: &Stage<'_>) {
    let (namespace, name) = (&stage.namespace, "restarts");
    let api = "rbac.authorization.k8s.io";
    let resources = ["deployments", "statefulsets", "daemonsets"];
    let role = json!({
        "apiVersion": format!("{api}/v1"), "kind": "Role", "metadata": {"namespace": namespace, "name": name},
        "rules": [{"apiGroups": ["apps"], "resources": resources, "verbs": ["patch"]}],
    });
    let binding = json!({
        "apiVersion": format!("{api}/v1"), "kind": "RoleBinding", "metadata": {"namespace": namespace, "name": name},
        "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": stage.identity.name, "namespace": stage.identity.namespace}],
    });
    for manifest in [role, binding] {
        fixtures::create(&stage.client, &manifest).await;
    }
}

/// A workload that runs nowhere.
async fn workload(stage: &Stage<'_>, kind: &str, name: &str) {
    let mut manifest = json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"namespace": stage.namespace, "name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "storefront"}]},
            },
        },
    });
    if kind == "StatefulSet" {
        manifest["spec"]["serviceName"] = name.into();
    }
    fixtures::create(&stage.client, &manifest).await;
}

/// How often it was rolled out anew, and the annotation on its pod template.
async fn rollouts(stage: &Stage<'_>, kind: &str, name: &str) -> (i64, Option<String>) {
    async fn get<K>(stage: &Stage<'_>, name: &str) -> Value
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let object = Api::<K>::namespaced(stage.client.clone(), &stage.namespace).get(name).await;
        serde_json::to_value(object.expect("it is there")).expect("an object is JSON")
    }
    let object = match kind {
        "Deployment" => get::<Deployment>(stage, name).await,
        "StatefulSet" => get::<StatefulSet>(stage, name).await,
        _ => get::<DaemonSet>(stage, name).await,
    };
    let generation = object["metadata"]["generation"].as_i64().expect("it has a generation");
    let annotation = &object["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT];
    (generation - 1, annotation.as_str().map(str::to_owned))
}

fn target(kind: &str, name: &str) -> Value {
    json!({"kind": kind, "name": name})
}

/// A shop whose integration names these targets.
async fn shop_with(stage: &Stage<'_>, seconds_left: i64, targets: &[Value]) -> Shop {
    let shop = NewShop::of(&stage.app).id("shop").access_remaining(seconds_left);
    let shop = stage.simulator.create_shop(&shop).await;
    stage.token_secret(&shop).create(&stage.client).await;
    stage.integration("shop").field("rolloutRestartTargets", targets.to_vec()).create(&stage.client).await;
    shop
}

/// How often the operator has asked for a restart of it, by the API server's own account.
fn asked(stage: &Stage<'_>, resource: &str, name: &str) -> usize {
    let user = stage.identity.user();
    let audit = stage.plane.audit().into_iter().filter(|entry| entry.user.username == user);
    audit
        .filter(|entry| {
            entry.object_ref.as_ref().is_some_and(|of| of.resource == resource && of.name.as_deref() == Some(name))
        })
        .inspect(|entry| assert_eq!(entry.verb, "patch", "it needs no other right"))
        .count()
}

/// Waits until the targets were restarted for the rotation that stands on the Secret, and gives what the annotation says.
async fn wait_restarted(stage: &Stage<'_>, name: &str, before: &Value) -> Value {
    let done = |status: &Value| {
        let restarted_at = &status["rolloutRestart"]["restartedAt"];
        is_ready(status) && restarted_at.is_string() && restarted_at != before
    };
    let status = stage.wait_status(name, "its targets restarted", done, SOON).await;
    let restarted_at = status["rolloutRestart"]["restartedAt"].clone();
    let refreshed_at = stage.annotation(name, "tiktokshop.dev/refreshed-at").await.expect("there was a refresh");
    let (second, rest) = (refreshed_at.trim_end_matches('Z'), restarted_at.as_str().expect("it is text"));
    assert!(rest.starts_with(second) && rest.ends_with('Z'), "{rest} is the time of the refresh {refreshed_at}");
    restarted_at
}

fn refreshed_message(status: &Value) -> String {
    condition(status, "Refreshed").map(|refreshed| refreshed.message).unwrap_or_default()
}

/// Covers: spec/rolloutRestartTargets, status/rolloutRestart.restartedAt, annotation/restarted-at
#[tokio::test]
async fn each_rotation_restarts_each_target_once_and_nothing_else_does() {
    let stage = Stage::new().await;
    allow(&stage).await;
    let kinds = [("Deployment", "deployments"), ("StatefulSet", "statefulsets"), ("DaemonSet", "daemonsets")];
    for (kind, _) in kinds {
        workload(&stage, kind, "web").await;
    }
    let targets = kinds.map(|(kind, _)| target(kind, "web"));
    shop_with(&stage, HOUR, &targets).await;
    let mut operator = stage.operator().start();
    let mut last = Value::Null;
    for round in 1..=3_usize {
        if round > 1 {
            // Neither a start, nor a failed refresh, nor a touched Secret is a rotation: the next one shows that nothing came before it.
            operator.sigterm(SOON).await;
            operator.restart();
            operator.wait_ready(SOON).await;
            stage.touch_secret("shop", &round.to_string()).await;
            stage.simulator.add_fault(Fault::once(Action::code(77)).shop("shop")).await;
            stage.request("shop", &format!("fails {round}")).await;
            stage.wait_status("shop", "a failure", |status| status["lastError"].is_object(), SOON).await;
            stage.request("shop", &round.to_string()).await;
        }
        last = wait_restarted(&stage, "shop", &last).await;
        for (kind, resource) in kinds {
            let rolled_out = rollouts(&stage, kind, "web").await;
            assert_eq!(rolled_out, (i64::try_from(round).expect("few"), last.as_str().map(str::to_owned)), "{kind}");
            assert_eq!(asked(&stage, resource, "web"), round, "requests to restart the {kind}");
        }
    }
    let status = stage.status("shop").await;
    assert!(has_condition(&status, "Refreshed", "True", "Refreshed"), "{status:#}");
    assert!(!refreshed_message(&status).contains("restarted"), "{status:#}");
    stage.simulator.assert_no_violations().await;
}

/// Covers: spec/rolloutRestartTargets, spec/tokenSecretRef.keys.authCode
#[tokio::test]
async fn an_exchange_of_a_code_is_a_rotation() {
    let stage = Stage::new().await;
    allow(&stage).await;
    workload(&stage, "Deployment", "web").await;
    stage.simulator.create_shop(&NewShop::of(&stage.app).id("shop")).await;
    let code = stage.simulator.authorize("shop").await;
    fixtures::SecretFixture::new(&stage.namespace, "shop").value("auth_code", code).create(&stage.client).await;
    let targets = vec![target("Deployment", "web")];
    stage.integration("shop").field("rolloutRestartTargets", targets).create(&stage.client).await;
    let _operator = stage.operator().start();
    wait_restarted(&stage, "shop", &Value::Null).await;
    assert_eq!(rollouts(&stage, "Deployment", "web").await.0, 1);
    assert_eq!(asked(&stage, "deployments", "web"), 1);
}

/// Covers: status/rolloutRestart.restartedAt
#[tokio::test]
async fn targets_that_are_named_later_are_restarted_from_the_next_rotation_on() {
    let stage = Stage::new().await;
    allow(&stage).await;
    workload(&stage, "Deployment", "web").await;
    workload(&stage, "Deployment", "late").await;
    stage.shop("shop", HOUR).await;
    let mut operator = stage.operator().start();
    let status = stage.wait_status("shop", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    assert!(status["rolloutRestart"].is_null(), "{status:#}");

    let name = async |targets: Value| {
        let patch = json!({"spec": {"rolloutRestartTargets": targets}});
        fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &patch).await;
    };
    name(json!([target("Deployment", "web")])).await;
    let first = wait_restarted(&stage, "shop", &Value::Null).await;
    operator.sigkill();
    operator.restart();
    operator.wait_ready(SOON).await;
    name(json!([target("Deployment", "web"), target("Deployment", "late")])).await;
    let seen = |status: &Value| status["observedGeneration"] == 3;
    stage.wait_status("shop", "the new target seen", seen, SOON).await;
    assert_eq!((asked(&stage, "deployments", "web"), asked(&stage, "deployments", "late")), (0, 0));

    stage.request("shop", "now").await;
    wait_restarted(&stage, "shop", &first).await;
    assert_eq!((asked(&stage, "deployments", "web"), asked(&stage, "deployments", "late")), (1, 1));
    name(json!([])).await;
    stage.wait_status("shop", "nothing to restart", |status| status["rolloutRestart"].is_null(), SOON).await;
}

/// Where a process dies, between the tokens stored and the word of the restart.
#[tokio::test]
async fn a_process_killed_after_it_stored_the_tokens_leaves_a_restart_that_is_made_once() {
    let stage = Stage::new().await;
    allow(&stage).await;
    workload(&stage, "Deployment", "web").await;
    shop_with(&stage, PLENTY, &[target("Deployment", "web")]).await;
    let mut operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let mut last = Value::Null;
    let restart = |seen: &Seen| seen.method == "PATCH" && seen.path.ends_with("/deployments/web");
    for round in 1..=5_i64 {
        let (status, known) = (steps::status(&stage.namespace, "shop"), last.clone());
        let news = move |seen: &Seen| {
            let restarted_at = status(seen).then(|| seen.json()["status"]["rolloutRestart"]["restartedAt"].clone());
            restarted_at.is_some_and(|restarted_at| restarted_at.is_string() && restarted_at != known)
        };
        let hold = match round {
            1 => stage.proxy.on("the tokens stored", steps::persist(&stage.namespace, "shop")).once().hold_after(),
            2 => stage.proxy.on("the restart, not sent", restart).once().hold(),
            3 => stage.proxy.on("the restart, done", restart).once().hold_after(),
            4 => stage.proxy.on("the word of it, not sent", news).once().hold(),
            _ => stage.proxy.on("the word of it, there", news).once().hold_after(),
        };
        stage.request("shop", &round.to_string()).await;
        hold.wait_held(SOON).await;
        operator.sigkill();
        hold.cut();
        operator.restart();
        operator.wait_ready(SOON).await;
        last = wait_restarted(&stage, "shop", &last).await;
        let rolled_out = rollouts(&stage, "Deployment", "web").await;
        assert_eq!(rolled_out, (round, last.as_str().map(str::to_owned)), "rollouts and the last of them");
    }
    stage.assert_refreshes("shop", 5).await;
}

/// Its first refresh, before it had any status: the targets were in the spec from the first.
#[tokio::test]
async fn a_process_killed_in_the_very_first_refresh_leaves_a_restart_that_is_made_once() {
    let stage = Stage::new().await;
    allow(&stage).await;
    workload(&stage, "Deployment", "web").await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    let status = stage.proxy.on("the status write", steps::status(&stage.namespace, "shop")).hold();
    let hold = stage.proxy.on("the persist", steps::persist(&stage.namespace, "shop")).once().hold_after();
    shop_with(&stage, HOUR, &[target("Deployment", "web")]).await;
    hold.wait_held(SOON).await;
    operator.sigkill();
    hold.cut();
    status.cut();
    assert!(stage.status("shop").await.is_null(), "there is no status yet");
    stage.proxy.clear();
    operator.restart();
    wait_restarted(&stage, "shop", &Value::Null).await;
    assert_eq!(rollouts(&stage, "Deployment", "web").await.0, 1);
    stage.assert_refreshes("shop", 1).await;
}

/// Covers: reason/TokenSecretReverted
#[tokio::test]
async fn a_kept_pair_that_is_written_back_restarts_nothing() {
    let stage = Stage::new().await;
    allow(&stage).await;
    workload(&stage, "Deployment", "web").await;
    let spent = shop_with(&stage, HOUR, &[target("Deployment", "web")]).await;
    let _operator = stage.operator().start();
    let last = wait_restarted(&stage, "shop", &Value::Null).await;
    let data = stage.token_secret(&spent).manifest()["data"].clone();
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &json!({ "data": data })).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "TokenSecretReverted", SOON).await;
    let newest = stage.simulator.shop("shop").await;
    let restored = poll::until(SOON, async || {
        let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop").await;
        (values["refresh_token"] == newest.refresh_token()).then_some(())
    });
    restored.await.expect("the newest pair is written back");
    stage.request("shop", "now").await;
    wait_restarted(&stage, "shop", &last).await;
    assert_eq!(rollouts(&stage, "Deployment", "web").await.0, 2, "one for each rotation");
    assert_eq!(asked(&stage, "deployments", "web"), 2);
}

/// What could not be restarted in the API server's absence is restarted when that is over, not when the pause is that grew
/// meanwhile.
#[tokio::test]
async fn the_end_of_an_absence_of_the_api_server_ends_the_pause_of_a_restart() {
    let stage = Stage::new().await;
    allow(&stage).await;
    workload(&stage, "Deployment", "web").await;
    shop_with(&stage, HOUR, &[target("Deployment", "web")]).await;
    let restart = |seen: &Seen| seen.method == "PATCH" && seen.path.ends_with("/deployments/web");
    let cut = stage.proxy.on("the restart", restart).cut_before();
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    let errors = ("tiktokshop_reconcile_errors_total", [("error", "rollout-restart")]);
    operator.wait_for_metric(errors.0, &errors.1, 3.0, LONG).await;
    stage.proxy.pause().await;
    cut.remove();
    operator.wait_for_metric(errors.0, &errors.1, 4.0, LONG).await;
    stage.proxy.resume().await;
    // The pause after the fourth is of 40 s.
    let done = |status: &Value| status["rolloutRestart"]["restartedAt"].is_string();
    stage.wait_status("shop", "restarted", done, Duration::from_secs(20)).await;
    assert_eq!(rollouts(&stage, "Deployment", "web").await.0, 1);
    stage.assert_refreshes("shop", 1).await;
}

/// Not everybody may ask what an API server serves. What it refuses besides is excused while it may be starting, and no longer.
#[tokio::test]
async fn a_missing_right_is_told_though_the_api_server_never_says_what_it_serves() {
    let stage = Stage::new().await;
    workload(&stage, "Deployment", "web").await;
    shop_with(&stage, PLENTY, &[target("Deployment", "web")]).await;
    let operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let served = |seen: &Seen| seen.method == "GET" && seen.path == "/apis/tiktokshop.dev/v1alpha1";
    let refused = stage.proxy.on("what is served", served).respond_status(403, "Forbidden", "cannot get path");
    stage.proxy.pause().await;
    operator.wait_for_metric("tiktokshop_watch_errors_total", &[], 1.0, SOON).await;
    stage.proxy.resume().await;
    let looked = poll::until(SOON, async || (refused.hits() >= 1).then_some(()));
    looked.await.expect("it looks for the API server");
    stage.request("shop", "now").await;
    let told = |words: &'static str| move |status: &Value| refreshed_message(status).contains(words);
    stage.wait_status("shop", "an excuse", told("only starting"), SOON).await;
    let over = |line: &str| line.contains("does not say that it serves integrations");
    let ended = operator.process().wait_for_line(over, 2 * LONG).await;
    ended.unwrap_or_else(|error| panic!("it looks for the API server without end: {error}"));
    stage.request("shop", "later").await;
    stage.wait_status("shop", "the missing right", told("allow the operator to patch"), SOON).await;
}

/// Covers: event/RolloutRestartFailed, condition/Refreshed
#[tokio::test]
async fn what_can_not_be_restarted_is_said_and_tried_again_and_hinders_no_refresh() {
    let stage = Stage::new().await;
    workload(&stage, "Deployment", "web").await;
    shop_with(&stage, HOUR, &[target("Deployment", "web"), target("StatefulSet", "missing")]).await;
    let _operator = stage.operator().start();
    let told = |words: &'static str| {
        move |status: &Value| {
            is_ready(status)
                && has_condition(status, "Refreshed", "True", "Refreshed")
                && refreshed_message(status).contains(words)
        }
    };
    let status =
        stage.wait_status("shop", "the missing right", told("cannot patch resource \"deployments\""), SOON).await;
    assert!(refreshed_message(&status).contains("rolloutRestart.enabled=true"), "{status:#}");
    assert_eq!(status["consecutiveFailures"], 0);
    let event = async || {
        let about = (&stage.client, &stage.namespace);
        fixtures::wait_for_event(about.0, about.1, "shop", "RolloutRestartFailed", SOON).await
    };
    assert!(event().await.note.contains("cannot patch"));

    // Another refresh is none the worse for it.
    stage.request("shop", "meanwhile").await;
    stage.wait_status("shop", "refreshed", |status| status["lastHandledRefreshRequest"] == "meanwhile", SOON).await;
    stage.assert_refreshes("shop", 2).await;

    allow(&stage).await;
    let status =
        stage.wait_status("shop", "the missing target", told("StatefulSet missing was not restarted, as"), SOON).await;
    assert!(!refreshed_message(&status).contains("Deployment web"), "{status:#}");
    assert!(status["rolloutRestart"]["restartedAt"].is_null(), "{status:#}");
    assert_eq!(rollouts(&stage, "Deployment", "web").await.0, 1, "the other one is restarted, for the last rotation");

    // Written anew, the spec is tried at once; what was restarted already is let be.
    workload(&stage, "StatefulSet", "there").await;
    let targets = json!([target("Deployment", "web"), target("StatefulSet", "there")]);
    let patch = json!({"spec": {"rolloutRestartTargets": targets}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &patch).await;
    wait_restarted(&stage, "shop", &Value::Null).await;
    let message = refreshed_message(&stage.status("shop").await);
    assert!(!message.contains("restarted"), "{message}");
    assert_eq!(rollouts(&stage, "Deployment", "web").await.0, 1);
    assert_eq!(rollouts(&stage, "StatefulSet", "there").await.0, 0, "it was not there when the tokens changed");
    stage.assert_refreshes("shop", 2).await;
}

/// Covers: spec/rolloutRestartTargets
#[tokio::test]
async fn a_spec_with_targets_that_can_not_be_is_refused_with_what_to_write() {
    let stage = Stage::new().await;
    let many: Vec<_> = (0..33).map(|n| target("Deployment", &format!("web-{n}"))).collect();
    for (targets, words) in [
        (json!([target("Job", "web")]), "\"Deployment\", \"StatefulSet\", \"DaemonSet\""),
        (json!([target("Deployment", "")]), "name"),
        (json!([target("Deployment", "Web")]), "name must be the name of a workload"),
        (json!([target("Deployment", "other/web")]), "name must be the name of a workload"),
        (json!([{"kind": "Deployment"}]), "name"),
        (json!([target("Deployment", "web"), target("Deployment", "web")]), "Duplicate value"),
        (json!(many), "32"),
    ] {
        let refused = stage.integration("shop").field("rolloutRestartTargets", targets.clone());
        let refusal = refused.try_create(&stage.client).await.expect_err(&format!("{targets} is taken")).to_string();
        assert!(refusal.contains(words), "{targets}: {refusal}");
    }
}
