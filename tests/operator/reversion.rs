//! A second writer puts spent tokens back: at once, later, without end, and while the operator is down.
//!
//! Once it is mended from the journal; after that it is said, and nobody fights.

use std::time::Duration;

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, has_condition},
    poll,
    simulator::{Action, Fault, Shop},
    steps,
};

use crate::resilience::{LONG, SOON, Stage, is_ready};

const HOUR: i64 = 3_600;

/// How a GitOps tool names itself where it writes.
const GITOPS: &str = "argocd-controller";

/// Writes a pair over what stands there, as a GitOps tool does.
async fn put_back(stage: &Stage<'_>, shop: &Shop) {
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let params = PatchParams { field_manager: Some(GITOPS.to_owned()), ..PatchParams::default() };
    let data = stage.token_secret(shop).manifest()["data"].clone();
    secrets.patch(&shop.id, &params, &Patch::Merge(json!({ "data": data }))).await.expect("it can be patched");
}

fn is_refreshed(status: &Value) -> bool {
    is_ready(status) && has_condition(status, "Refreshed", "True", "Refreshed")
}

fn is_reverted(status: &Value) -> bool {
    has_condition(status, "Stalled", "True", "TokenSecretReverted")
}

/// Waits until the pair that is current at TikTok stands in the Secret again.
async fn wait_written_back(stage: &Stage<'_>, name: &str) {
    wait_restored(stage, name).await;
    stage.wait_status(name, "Ready", is_ready, SOON).await;
    stage.assert_current(name).await;
}

async fn wait_restored(stage: &Stage<'_>, name: &str) {
    let newest = stage.simulator.shop(name).await;
    let restored = poll::until(SOON, async || {
        let values = fixtures::secret_values(&stage.client, &stage.namespace, name).await;
        (values["refresh_token"] == newest.refresh_token()).then_some(())
    });
    restored.await.expect("the newest pair is written back");
}

/// How often tokens were written into a Secret.
fn times_stored(stage: &Stage<'_>, name: &str) -> usize {
    let persist = steps::persist(&stage.namespace, name);
    stage.proxy.count(move |seen| persist(seen) && seen.status == Some(200))
}

/// Covers: reason/TokenSecretReverted, event/TokenSecretReverted
#[tokio::test]
async fn a_pair_put_back_a_minute_later_is_replaced_by_the_newest_and_no_token_is_presented_again() {
    let stage = Stage::new().await;
    let spent = stage.shop("shop", HOUR).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "refreshed", is_refreshed, SOON).await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    put_back(&stage, &spent).await;
    wait_written_back(&stage, "shop").await;
    let event = fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "TokenSecretReverted", SOON).await;
    assert!(event.note.contains(GITOPS), "it does not name who did it: {}", event.note);
    stage.assert_refreshes("shop", 1).await;
}

/// The writer saw the new pair before the operator knew that it was stored: its reply was still on its way.
///
/// Covers: reason/TokenSecretReverted, event/TokenSecretReverted
#[tokio::test]
async fn a_pair_put_back_at_once_is_replaced_by_the_newest_and_no_token_is_presented_again() {
    let stage = Stage::new().await;
    let spent = stage.shop("shop", HOUR).await;
    let hold = stage.proxy.on("the persist", steps::persist(&stage.namespace, "shop")).once().hold_after();
    let _operator = stage.operator().start();
    hold.wait_held(SOON).await;
    put_back(&stage, &spent).await;
    hold.release();
    wait_written_back(&stage, "shop").await;
    let event = fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "TokenSecretReverted", SOON).await;
    assert!(event.note.contains(GITOPS), "it does not name who did it: {}", event.note);
    assert_eq!(times_stored(&stage, "shop"), 2, "the refresh, and one time against the reversion");
    stage.assert_refreshes("shop", 1).await;
}

/// Covers: reason/TokenSecretReverted, condition/Stalled
#[tokio::test]
async fn a_writer_that_reverts_without_end_is_answered_once_and_not_fought() {
    let stage = Stage::new().await;
    let spent = stage.shop("shop", HOUR).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "refreshed", is_refreshed, SOON).await;
    let client = stage.client.clone();
    let namespace = stage.namespace.clone();
    // Whatever else stands there, it puts the old pair back at once.
    let reverts = async {
        loop {
            let values = fixtures::secret_values(&client, &namespace, "shop").await;
            if values["refresh_token"] != spent.refresh_token() {
                put_back(&stage, &spent).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let stalled = stage.wait_status("shop", "Stalled for TokenSecretReverted", is_reverted, SOON);
    let status = tokio::select! {
        status = stalled => status,
        () = reverts => unreachable!("it goes on without end"),
    };
    assert!(has_condition(&status, "Ready", "True", "TokenSecretReverted"), "{status:#}");
    assert_eq!(times_stored(&stage, "shop"), 2, "the refresh, and one time against the reversion");
    // A request shows that nothing more is written before it, and it is the one thing that presents a spent token.
    stage.assert_refreshes("shop", 1).await;

    // A person ends it: the tool leaves the Secret alone, and working tokens come in.
    put_back(&stage, &stage.simulator.shop("shop").await).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.assert_current("shop").await;
    stage.assert_refreshes("shop", 1).await;
}

/// With its annotations dropped besides, as `kubectl replace` does.
///
/// Covers: reason/TokenSecretReverted, event/TokenSecretReverted, flag/journal-dir
#[tokio::test]
async fn a_pair_put_back_while_the_operator_is_down_is_replaced_when_it_starts() {
    let stage = Stage::new().await;
    for replaced in [false, true] {
        let name = if replaced { "replaced" } else { "patched" };
        let spent = stage.shop(name, HOUR).await;
        let mut operator = stage.operator().start();
        stage.wait_status(name, "refreshed", is_refreshed, SOON).await;
        operator.sigkill();
        if replaced {
            let secrets: Api<k8s_openapi::api::core::v1::Secret> =
                Api::namespaced(stage.client.clone(), &stage.namespace);
            let old = serde_json::from_value(stage.token_secret(&spent).manifest()).expect("it is a Secret");
            secrets.replace(name, &kube::api::PostParams::default(), &old).await.expect("it can be replaced");
        } else {
            put_back(&stage, &spent).await;
        }
        operator.restart();
        wait_written_back(&stage, name).await;
        fixtures::wait_for_event(&stage.client, &stage.namespace, name, "TokenSecretReverted", SOON).await;
        stage.assert_refreshes(name, 1).await;
        operator.sigterm(SOON).await;
    }
}

/// A refresh that is asked for is the one thing that presents a token known to be spent: a person may know better.
///
/// Covers: annotation/refresh-requested-at
#[tokio::test]
async fn a_spent_token_is_presented_only_when_somebody_asks_for_it() {
    let stage = Stage::new().await;
    let spent = stage.shop("shop", HOUR).await;
    // Without a journal there is no pair to write back.
    let _operator = stage.bare_operator().start();
    stage.wait_status("shop", "refreshed", is_refreshed, SOON).await;
    put_back(&stage, &spent).await;
    stage.wait_status("shop", "Stalled for TokenSecretReverted", is_reverted, SOON).await;
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 1);
    stage.request("shop", "try it").await;
    let tried = |status: &Value| status["lastHandledRefreshRequest"] == "try it";
    let status = stage.wait_status("shop", "the request handled", tried, LONG).await;
    assert_eq!(status["lastError"]["reason"], "RefreshTokenRejected", "{status:#}");
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 2);
}

/// Not the last spent alone: a tool that kept an old file puts the tokens of long ago back.
///
/// Covers: annotation/spent-tokens, reason/TokenSecretReverted
#[tokio::test]
async fn a_token_spent_before_the_last_one_is_still_known_as_spent() {
    let stage = Stage::new().await;
    let spent = stage.shop("shop", 5 * 24 * HOUR).await;
    // Without a journal there is no pair to write back.
    let mut operator = stage.bare_operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let mut noted = Vec::new();
    for request in ["one", "two"] {
        stage.request("shop", request).await;
        stage.wait_refreshed("shop", request, SOON).await;
        noted.extend(stage.annotation("shop", "tiktokshop.dev/refreshed-from").await);
    }
    let kept = stage.annotation("shop", "tiktokshop.dev/spent-tokens").await.unwrap_or_default();
    assert!(noted.len() == 2 && noted.iter().all(|digest| kept.contains(digest)), "{kept} lacks one of {noted:?}");
    // What another process knows of it stands on the Secret.
    operator.sigkill();
    operator.restart();
    put_back(&stage, &spent).await;
    stage.wait_status("shop", "Stalled for TokenSecretReverted", is_reverted, SOON).await;
    stage.assert_refreshes("shop", 2).await;
}

/// The pair that is written back once answered a request; since then another was answered, with an error.
///
/// Covers: annotation/handled-refresh-request, status/lastHandledRefreshRequest
#[tokio::test]
async fn a_pair_that_is_written_back_makes_no_handled_request_new_again() {
    let stage = Stage::new().await;
    let spent = stage.shop("shop", 5 * 24 * HOUR).await;
    let operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.request("shop", "one").await;
    stage.wait_refreshed("shop", "one", SOON).await;
    stage.simulator.add_fault(Fault::once(Action::code(77))).await;
    stage.request("shop", "two").await;
    let failed = |status: &Value| status["lastHandledRefreshRequest"] == "two";
    let before = stage.wait_status("shop", "the second answered", failed, SOON).await;
    put_back(&stage, &spent).await;
    wait_restored(&stage, "shop").await;
    // What comes after it in line is seen to be done.
    stage.shop("fence", HOUR).await;
    stage.wait_status("fence", "refreshed", is_refreshed, SOON).await;
    let after = stage.status("shop").await;
    for field in ["lastError", "consecutiveFailures", "lastHandledRefreshRequest", "lastRefreshTime", "lastAttemptTime"]
    {
        assert_eq!(after[field], before[field], "{field} tells of refreshes, and none was made");
    }
    let counters = stage.simulator.shop("shop").await.counters;
    assert_eq!((counters.refreshes, counters.presentations), (1, 2), "each request was acted on once");
    drop(operator);
}

/// The Secret is put back as it was, and the process dies before its status could tell of the refresh: what the status
/// names as handled is the request before.
///
/// Covers: annotation/handled-refresh-request, status/lastHandledRefreshRequest, flag/journal-dir
#[tokio::test]
async fn a_request_that_no_status_told_of_is_not_acted_on_again_after_its_pair_is_written_back() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * 24 * HOUR).await;
    let mut operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.request("shop", "one").await;
    let told = stage.wait_refreshed("shop", "one", SOON).await;
    let old = stage.simulator.shop("shop").await;
    let hold = stage.proxy.on("status", steps::status(&stage.namespace, "shop")).once().hold();
    // Times in a status are of whole seconds: the second refresh is to be a later one.
    let now = || chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let later = poll::until(SOON, async || (told["lastAttemptTime"] != now()).then_some(()));
    later.await.expect("a second passes");
    stage.request("shop", "two").await;
    hold.wait_held(SOON).await;
    stage.assert_refreshes("shop", 2).await;
    stage.assert_current("shop").await;
    operator.sigkill();
    hold.cut();
    stage.delete_secret("shop").await;
    stage.token_secret(&old).create(&stage.client).await;
    operator.restart();
    stage.wait_refreshed("shop", "two", SOON).await;
    // What comes after it in line is seen to be done.
    stage.shop("fence", HOUR).await;
    stage.wait_status("fence", "refreshed", is_refreshed, SOON).await;
    stage.assert_refreshes("shop", 2).await;
    stage.assert_current("shop").await;
}

/// A status written by a clock that was a day ahead, and a process killed before it could write the next.
#[tokio::test]
async fn a_time_in_the_future_does_not_make_the_newest_pair_look_like_an_older_one() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * 24 * HOUR).await;
    let mut operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.request("shop", "one").await;
    stage.wait_refreshed("shop", "one", SOON).await;
    operator.sigkill();
    let tomorrow = (chrono::Utc::now() + chrono::Duration::days(1)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let patch = Patch::Merge(json!({"status": {"lastRefreshTime": tomorrow}}));
    let integrations = fixtures::integrations(&stage.client, &stage.namespace);
    integrations.patch_status("shop", &PatchParams::default(), &patch).await.expect("it can be patched");
    operator.restart();
    operator.wait_ready(SOON).await;
    let hold = stage.proxy.on("status", steps::status(&stage.namespace, "shop")).once().hold();
    stage.request("shop", "two").await;
    hold.wait_held(SOON).await;
    operator.sigkill();
    hold.cut();
    operator.restart();
    stage.wait_refreshed("shop", "two", SOON).await;
    stage.assert_refreshes("shop", 2).await;
}
