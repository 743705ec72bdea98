//! From an authorization code to a living token: first of all, after a revocation, and whatever goes wrong between.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    fixtures::{self, Field, SecretFixture, has_condition, integration},
    leak::LeakScan,
    poll,
    proxy::{Hold, Seen},
    simulator::{Action, DropPoint, Endpoint, Fault, Lie, NewShop, Point, Shop},
    steps,
};

use crate::resilience::{LONG, SOON, Stage, is_ready};

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

const SPENT: &str = "tiktokshop.dev/spent-tokens";

/// A shop that TikTok knows, and nobody here.
async fn stranger(stage: &Stage<'_>, name: &str) -> Shop {
    stage.simulator.create_shop(&NewShop::of(&stage.app).id(name)).await
}

/// What `kubectl tiktokshop authorize` leaves: a Secret with a code alone.
fn with_code(stage: &Stage<'_>, name: &str, code: &str) -> SecretFixture {
    SecretFixture::new(&stage.namespace, name).value("auth_code", code)
}

/// What it does where the Secret is there: it puts the code beside what stands there.
async fn put_code(stage: &Stage<'_>, name: &str, code: &str) {
    let patch = json!({"stringData": {"auth_code": code}});
    fixtures::patch_secret(&stage.client, &stage.namespace, name, &patch).await;
}

async fn code_in(stage: &Stage<'_>, name: &str) -> Option<String> {
    fixtures::secret_values(&stage.client, &stage.namespace, name).await.remove("auth_code")
}

fn command(stage: &Stage<'_>, name: &str) -> String {
    format!("kubectl tiktokshop authorize {name} -n {}", stage.namespace)
}

fn message(status: &Value) -> String {
    fixtures::condition(status, "Ready").map(|ready| ready.message).unwrap_or_default()
}

async fn suspend(stage: &Stage<'_>, name: &str, suspend: bool) {
    let patch = json!({"spec": {"suspend": suspend}});
    fixtures::patch_integration(&stage.client, &stage.namespace, name, &patch).await;
}

fn is_rejected(status: &Value) -> bool {
    has_condition(status, "Refreshed", "False", "AuthorizationCodeRejected")
}

/// A shop without tokens whose first code was refused.
async fn rejected(stage: &Stage<'_>, name: &str) -> Value {
    stranger(stage, name).await;
    let expired = stage.simulator.authorize_for(name, -5).await;
    with_code(stage, name, &expired).create(&stage.client).await;
    stage.integration(name).create(&stage.client).await;
    stage.wait_status(name, "its code refused", is_rejected, SOON).await
}

/// The shop has been exchanged so many times, each time with one presentation, and no code was presented after it
/// had been used.
async fn assert_exchanges(stage: &Stage<'_>, name: &str, count: u64) {
    let counters = stage.simulator.shop(name).await.counters;
    assert_eq!(
        (counters.exchanges, counters.code_presentations),
        (count, count),
        "exchanges and presentations of codes"
    );
    stage.simulator.assert_no_violations().await;
}

async fn wait_exchanged(stage: &Stage<'_>, name: &str, timeout: Duration) -> Value {
    let done = |status: &Value| is_ready(status) && has_condition(status, "Refreshed", "True", "Refreshed");
    let status = stage.wait_status(name, "exchanged, and Ready", done, timeout).await;
    stage.assert_current(name).await;
    assert!(status["lastError"].is_null(), "{status:#}");
    status
}

// ---- from nothing, and after a revocation ---------------------------------------------------------------

/// Covers: spec/tokenSecretRef.keys.authCode, flag/authorization-endpoint, annotation/refreshed-from, event/Refreshed,
/// annotation/refreshed-at, annotation/tokens-digest, status/lastRefreshTime, status/seller.name
#[tokio::test]
async fn a_secret_with_nothing_but_a_code_gets_tokens_and_loses_the_code_in_one_write() {
    let stage = Stage::new().await;
    stranger(&stage, "shop").await;
    let code = stage.simulator.authorize("shop").await;
    with_code(&stage, "shop", &format!(" {code}\n")).create(&stage.client).await;
    stage.integration("shop").create(&stage.client).await;
    let operator = stage.operator().trace().start();
    let status = wait_exchanged(&stage, "shop", SOON).await;
    assert_exchanges(&stage, "shop", 1).await;
    stage.assert_refreshes("shop", 0).await;

    assert_eq!(status["seller"]["name"], "Simulated shop shop");
    assert_eq!(status["consecutiveFailures"], 0);
    let digest = stage.annotation("shop", "tiktokshop.dev/tokens-digest").await;
    assert_eq!(status["observedTokenSecret"]["tokensDigest"].as_str(), digest.as_deref());
    let from = stage.annotation("shop", "tiktokshop.dev/refreshed-from").await.expect("it says what was spent");
    let spent = stage.annotation("shop", SPENT).await.expect("the code is noted");
    assert!(spent.split(',').any(|noted| noted == from), "{spent}");
    let event = fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "Refreshed", SOON).await;
    assert!(event.note.contains("authorization code was exchanged"), "{}", event.note);

    // One write stored the tokens and took the code away.
    let persist = steps::persist(&stage.namespace, "shop");
    let writes: Vec<Seen> = stage.proxy.requests().into_iter().filter(|seen| persist(seen)).collect();
    assert_eq!(writes.len(), 1);
    let data = &writes[0].json()["data"];
    assert!(data["auth_code"].is_null() && data.as_object().is_some_and(|data| data.contains_key("auth_code")));
    assert!(data["access_token"].is_string());

    let scan = LeakScan::new().secret("the code", &code).secret("the app secret", &stage.app.app_secret);
    let (logs, status) = (operator.logs(), status.to_string());
    scan.assert_clean([("the log", logs.as_str()), ("the status", &status), ("the event", &event.note)]);
}

/// Nothing else than the code is touched: the integration is whole again.
///
/// Covers: reason/RefreshTokenRejected, event/ReauthorizationRequired, condition/Stalled
#[tokio::test]
async fn after_a_revocation_the_message_names_the_command_and_a_code_makes_the_shop_whole() {
    let stage = Stage::new().await;
    stage.shop("shop", HOUR).await;
    stage.simulator.deauthorize("shop").await;
    let _operator = stage.operator().start();
    let refused = |status: &Value| has_condition(status, "Stalled", "True", "RefreshTokenRejected");
    let status = stage.wait_status("shop", "refused", refused, SOON).await;
    assert!(message(&status).contains(&command(&stage, "shop")), "{status:#}");
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "ReauthorizationRequired", SOON).await;

    // It is the next thing that the operator does, though it would leave the refused token alone for hours.
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    let status = wait_exchanged(&stage, "shop", SOON).await;
    assert!(!has_condition(&status, "Stalled", "True", "RefreshTokenRejected"), "{status:#}");
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "RefreshRecovered", SOON).await;
    assert_exchanges(&stage, "shop", 1).await;
    // And from there on it is a shop like any other.
    stage.request("shop", "now").await;
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.simulator.assert_no_violations().await;
}

/// Covers: reason/RefreshTokenExpired
#[tokio::test]
async fn an_expired_refresh_token_names_the_command_and_a_code_takes_its_place() {
    let stage = Stage::new().await;
    stage.new_shop(&NewShop::of(&stage.app).id("shop").access_remaining(HOUR).refresh_remaining(-5)).await;
    let _operator = stage.operator().start();
    let expired = |status: &Value| has_condition(status, "Stalled", "True", "RefreshTokenExpired");
    let status = stage.wait_status("shop", "expired", expired, SOON).await;
    assert!(message(&status).contains(&command(&stage, "shop")), "{status:#}");
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    wait_exchanged(&stage, "shop", SOON).await;
    assert_exchanges(&stage, "shop", 1).await;
    stage.assert_refreshes("shop", 0).await;
}

/// Covers: event/RefreshTokenExpiring
#[tokio::test]
async fn a_refresh_token_that_expires_within_two_weeks_is_warned_of_with_the_command() {
    let stage = Stage::new().await;
    for (name, left) in [("soon", 14 * DAY - 60), ("later", 14 * DAY + HOUR)] {
        stage.new_shop(&NewShop::of(&stage.app).id(name).access_remaining(5 * DAY).refresh_remaining(left)).await;
    }
    let _operator = stage.operator().start();
    let event = fixtures::wait_for_event(&stage.client, &stage.namespace, "soon", "RefreshTokenExpiring", SOON).await;
    assert!(event.note.contains(&command(&stage, "soon")), "{}", event.note);
    stage.wait_status("later", "Ready", is_ready, SOON).await;
    let events = fixtures::events(&stage.client, &stage.namespace, "later").await;
    assert!(events.iter().all(|event| event.reason != "RefreshTokenExpiring"), "{events:?}");
}

/// Living tokens give way, too; a code under a key of its own is found, and one under the usual key is then nobody's.
///
/// Covers: spec/tokenSecretRef.keys.authCode
#[tokio::test]
async fn a_code_beside_living_tokens_replaces_them_at_once() {
    let stage = Stage::new().await;
    let shop = stage.simulator.create_shop(&NewShop::of(&stage.app).id("shop").access_remaining(5 * DAY)).await;
    stage.token_secret(&shop).value("auth_code", "of somebody else").create(&stage.client).await;
    let spec = integration(&stage.namespace, "shop", "shop", "app").token_keys(&[(Field::AuthCode, "code")]);
    spec.create(&stage.client).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let code = stage.simulator.authorize("shop").await;
    let patch = json!({"stringData": {"code": code}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
    stage.simulator.wait_for_exchanges("shop", 1, SOON).await;
    let done = |status: &Value| has_condition(status, "Refreshed", "True", "Refreshed");
    stage.wait_status("shop", "exchanged", done, SOON).await;
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop").await;
    assert_eq!(values["refresh_token"], stage.simulator.shop("shop").await.refresh_token());
    assert_eq!(values["auth_code"], "of somebody else");
    assert!(!values.contains_key("code"), "the code is removed");
    assert_exchanges(&stage, "shop", 1).await;
}

/// Covers: annotation/refresh-requested-at, annotation/handled-refresh-request
#[tokio::test]
async fn a_request_that_is_open_while_a_code_is_exchanged_is_handled_by_it() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    suspend(&stage, "shop", true).await;
    stage.wait_status("shop", "suspended", |s| has_condition(s, "Ready", "True", "Suspended"), SOON).await;
    stage.request("shop", "now").await;
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    suspend(&stage, "shop", false).await;
    stage.wait_refreshed("shop", "now", SOON).await;
    assert_exchanges(&stage, "shop", 1).await;
    stage.assert_refreshes("shop", 0).await;
}

/// The status says nothing of a code: whoever starts must look at the Secret all the same.
///
/// Covers: spec/suspend, status/observedTokenSecret.tokensDigest
#[tokio::test]
async fn a_code_that_came_while_suspended_is_not_slept_over_by_a_restart() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let mut operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    suspend(&stage, "shop", true).await;
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    // The status speaks of this very version of the Secret.
    let secret = fixtures::secret(&stage.client, &stage.namespace, "shop").await.expect("it is there");
    let version = json!(secret.metadata.resource_version);
    let seen = |status: &Value| {
        has_condition(status, "Ready", "True", "Suspended")
            && status["observedTokenSecret"]["resourceVersion"] == version
            && status["observedTokenSecret"]["tokensDigest"].is_null()
    };
    stage.wait_status("shop", "the Secret with the code seen", seen, SOON).await;
    assert_eq!(stage.simulator.shop("shop").await.counters.code_presentations, 0, "suspended");
    operator.sigkill();
    operator.restart();
    operator.wait_ready(SOON).await;
    suspend(&stage, "shop", false).await;
    wait_exchanged(&stage, "shop", SOON).await;
    assert_exchanges(&stage, "shop", 1).await;
}

// ---- a code that is refused ------------------------------------------------------------------------------

/// Covers: reason/AuthorizationCodeRejected, event/ReauthorizationRequired, event/RefreshFailed, condition/Stalled,
/// status/lastError.code
#[tokio::test]
async fn a_refused_code_is_not_presented_again_even_by_another_life_and_a_new_one_is_taken_up_at_once() {
    let stage = Stage::new().await;
    let mut operator = stage.operator().start();
    let status = rejected(&stage, "shop").await;
    assert!(has_condition(&status, "Ready", "False", "AuthorizationCodeRejected"), "{status:#}");
    assert!(has_condition(&status, "Stalled", "True", "AuthorizationCodeRejected"), "{status:#}");
    assert_eq!(status["lastError"]["code"], 36_004_004);
    assert!(message(&status).contains(&command(&stage, "shop")), "{status:#}");
    for reason in ["ReauthorizationRequired", "RefreshFailed"] {
        fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", reason, SOON).await;
    }
    assert!(code_in(&stage, "shop").await.is_some(), "nothing is deleted that a person put there");

    for restart in ["killed", "orderly"] {
        if restart == "killed" {
            operator.sigkill();
        } else {
            operator.sigterm(SOON).await;
        }
        stage.proxy.clear();
        operator.restart();
        operator.wait_ready(SOON).await;
        // It has looked at the Secret as it is.
        stage.touch_secret("shop", restart).await;
        stage.request("shop", restart).await;
        let still = |status: &Value| has_condition(status, "Stalled", "True", "AuthorizationCodeRejected");
        stage.wait_status("shop", "still without a good code", still, SOON).await;
        let read = steps::read(&stage.namespace, "shop");
        let seen = |seen: &Seen| read(seen) && seen.status == Some(200);
        stage.proxy.wait_for_request(seen, SOON).await;
    }
    assert_eq!(stage.simulator.shop("shop").await.counters.code_presentations, 1);

    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    let status = wait_exchanged(&stage, "shop", SOON).await;
    assert!(!status["conditions"].to_string().contains("Stalled"), "{status:#}");
    let counters = stage.simulator.shop("shop").await.counters;
    assert_eq!((counters.exchanges, counters.code_presentations), (1, 2));
    stage.simulator.assert_no_violations().await;
}

/// Covers: reason/AuthorizationCodeRejected
#[tokio::test]
async fn living_tokens_beside_a_refused_code_go_on_being_refreshed() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    put_code(&stage, "shop", "ROW_nobody_ever_gave_this_out").await;
    let status = stage.wait_status("shop", "its code refused", is_rejected, SOON).await;
    assert!(has_condition(&status, "Ready", "True", "AuthorizationCodeRejected"), "{status:#}");
    assert!(!status["conditions"].to_string().contains("Stalled"), "the tokens live: {status:#}");
    stage.request("shop", "now").await;
    let done = |status: &Value| status["lastHandledRefreshRequest"] == "now" && is_ready(status);
    stage.wait_status("shop", "refreshed", done, SOON).await;
    let counters = stage.simulator.shop("shop").await.counters;
    assert_eq!((counters.refreshes, counters.exchanges), (1, 0));
    let witness = stage.simulator.witness().await;
    assert_eq!(witness.strangers.len(), 1, "it is presented once: {:?}", witness.strangers);
    assert!(code_in(&stage, "shop").await.is_some());
}

/// Covers: reason/AuthorizationCodeRejected
#[tokio::test]
async fn a_refused_code_that_comes_back_with_its_secret_is_told_of_again() {
    let stage = Stage::new().await;
    let shop = stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    put_code(&stage, "shop", "ROW_nobody_ever_gave_this_out").await;
    stage.wait_status("shop", "its code refused", is_rejected, SOON).await;
    stage.delete_secret("shop").await;
    let gone = |status: &Value| has_condition(status, "Ready", "False", "TokenSecretNotFound");
    stage.wait_status("shop", "its Secret gone", gone, SOON).await;
    stage.token_secret(&shop).value("auth_code", "ROW_nobody_ever_gave_this_out").create(&stage.client).await;
    let told = |status: &Value| has_condition(status, "Ready", "True", "AuthorizationCodeRejected");
    stage.wait_status("shop", "its code refused, as before", told, SOON).await;
    let witness = stage.simulator.witness().await;
    assert_eq!(witness.strangers.len(), 1, "it is presented once: {:?}", witness.strangers);
}

/// Covers: reason/AuthorizationCodeRejected, reason/TokenValid
#[tokio::test]
async fn a_refused_code_that_is_taken_away_is_forgotten() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    put_code(&stage, "shop", &stage.simulator.authorize_for("shop", -5).await).await;
    stage.wait_status("shop", "its code refused", is_rejected, SOON).await;
    let patch = json!({"data": {"auth_code": null}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
    let status = stage.wait_status("shop", "Ready", is_ready, SOON).await;
    assert!(status["lastError"].is_null(), "{status:#}");
    stage.assert_refreshes("shop", 0).await;
}

// ---- unknown outcomes ------------------------------------------------------------------------------------

/// A code is single-use: that nobody knows what became of it is said, and it is presented once more.
///
/// Covers: reason/OutcomeUnknown, event/OutcomeUnknown, annotation/refresh-attempt, `metric/tiktokshop_outcome_unknown_total`
#[tokio::test]
async fn a_code_whose_answer_is_lost_is_said_to_be_of_unknown_outcome_and_is_presented_once_more() {
    for was_used in [false, true] {
        let stage = Stage::new().await;
        stranger(&stage, "shop").await;
        let point = if was_used { DropPoint::AfterRotation } else { DropPoint::BeforeProcessing };
        stage.simulator.add_fault(Fault::once(Action::drop(point)).endpoint(Endpoint::Exchange).shop("shop")).await;
        with_code(&stage, "shop", &stage.simulator.authorize("shop").await).create(&stage.client).await;
        stage.integration("shop").create(&stage.client).await;
        let operator = stage.operator().start();
        let unknown = |status: &Value| has_condition(status, "Ready", "False", "OutcomeUnknown");
        let status = stage.wait_status("shop", "an unknown outcome", unknown, SOON).await;
        assert!(message(&status).contains("the authorization code was presented once"), "{status:#}");
        let claim = stage.annotation("shop", steps::CLAIM).await.expect("it is marked on the Secret");
        assert!(claim.contains("\"outcome\":\"unknown\""), "{claim}");
        fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "OutcomeUnknown", SOON).await;
        if was_used {
            stage.wait_status("shop", "its code refused", is_rejected, LONG).await;
            stage.simulator.assert_no_careless_violations().await;
            assert_eq!(stage.annotation("shop", steps::CLAIM).await, None);
            put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
        }
        wait_exchanged(&stage, "shop", LONG).await;
        let counters = stage.simulator.shop("shop").await.counters;
        assert_eq!(counters.code_presentations, if was_used { 3 } else { 2 });
        assert!(operator.metrics().await.value("tiktokshop_outcome_unknown_total", &[]) >= Some(1.0));
    }
}

/// Success without a refresh token is no success: there is no old one that could stay.
///
/// Covers: reason/InvalidResponse
#[tokio::test]
async fn an_answer_without_a_refresh_token_is_not_stored() {
    let stage = Stage::new().await;
    stranger(&stage, "shop").await;
    let lie = Action::lie(Lie::MissingRefreshToken);
    stage.simulator.add_fault(Fault::once(lie).endpoint(Endpoint::Exchange).shop("shop")).await;
    with_code(&stage, "shop", &stage.simulator.authorize("shop").await).create(&stage.client).await;
    stage.integration("shop").create(&stage.client).await;
    let _operator = stage.operator().start();
    let invalid = |status: &Value| has_condition(status, "Refreshed", "False", "InvalidResponse");
    stage.wait_status("shop", "no answer", invalid, SOON).await;
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop").await;
    assert_eq!(values.keys().collect::<Vec<_>>(), ["auth_code"], "half of a pair is not written");
}

/// While the code waits for its next try, tokens that are due are refreshed, and what is not known of the code is
/// not forgotten over it.
///
/// Covers: annotation/refresh-attempt
#[tokio::test]
async fn a_refresh_between_two_tries_of_a_code_leaves_its_unknown_outcome_said() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let fault = Fault::times(2, Action::drop(DropPoint::BeforeProcessing)).endpoint(Endpoint::Exchange).shop("shop");
    stage.simulator.add_fault(fault).await;
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    stage.simulator.wait_for_code_presentations("shop", 2, LONG).await;
    let marked = async || stage.annotation("shop", steps::CLAIM).await.filter(|claim| claim.contains("unknown"));
    poll::until(SOON, marked).await.expect("the outcome of the second try is marked, too");
    stage.request("shop", "now").await;
    let done = |status: &Value| status["lastHandledRefreshRequest"] == "now";
    stage.wait_status("shop", "the request handled", done, SOON).await;
    assert_eq!(stage.simulator.shop("shop").await.counters.refreshes, 1, "the pause of a code is none of the tokens");
    let claim = stage.annotation("shop", steps::CLAIM).await.expect("it is still said");
    let claim: Value = serde_json::from_str(&claim).expect("a claim is JSON");
    assert_eq!((&claim["outcome"], &claim["presented"]), (&json!("unknown"), &json!(2)), "{claim}");
    wait_exchanged(&stage, "shop", LONG).await;
    stage.simulator.assert_no_violations().await;
}

// ---- others who write the Secret meanwhile -----------------------------------------------------------------

/// An exchange that TikTok has answered, the answer on its way.
async fn exchange_under_way(stage: &Stage<'_>, name: &str, code: &str) -> u64 {
    let hold = Action::hold(Point::AfterRotation);
    stage.simulator.add_fault(Fault::once(hold).endpoint(Endpoint::Exchange).shop(name)).await;
    put_code(stage, name, code).await;
    stage.simulator.wait_for_held(name, Point::AfterRotation, SOON).await.id
}

/// Covers: spec/tokenSecretRef.keys.authCode
#[tokio::test]
async fn a_new_code_that_comes_during_the_call_stays_and_is_exchanged_next() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let first = stage.simulator.authorize("shop").await;
    let held = exchange_under_way(&stage, "shop", &first).await;
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    let persists = stage.proxy.on("persist", steps::persist(&stage.namespace, "shop")).hold_after();
    stage.simulator.release(held).await;
    // The first write meets a conflict, the second stores the answer and leaves the new code.
    persists.wait_held(SOON).await;
    persists.release();
    wait_exchanged(&stage, "shop", SOON).await;
    stage.simulator.wait_for_exchanges("shop", 2, SOON).await;
    let current = poll::until(SOON, async || code_in(&stage, "shop").await.is_none().then_some(()));
    current.await.expect("the second code is exchanged, too");
    stage.assert_current("shop").await;
    assert_exchanges(&stage, "shop", 2).await;
    let pairs = stage.simulator.history("shop").await.len();
    assert_eq!(pairs, 3, "the first, and one for each code");
}

/// Covers: event/TokensReplaced
#[tokio::test]
async fn tokens_that_a_person_puts_there_during_the_call_stay_and_the_code_is_not_presented_again() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let code = stage.simulator.authorize("shop").await;
    let held = exchange_under_way(&stage, "shop", &code).await;
    // The code stays where it is: a person pastes tokens beside it.
    let persons = stage.simulator.reauthorize("shop").await;
    let patch = json!({ "data": stage.token_secret(&persons).manifest()["data"] });
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
    stage.simulator.release(held).await;
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "TokensReplaced", SOON).await;
    let settled = async || stage.annotation("shop", steps::CLAIM).await.is_none().then_some(());
    poll::until(SOON, settled).await.expect("the claim is given back");
    stage.request("shop", "now").await;
    let done = |status: &Value| status["lastHandledRefreshRequest"] == "now" && is_ready(status);
    stage.wait_status("shop", "the person's tokens refreshed", done, SOON).await;
    assert_eq!(code_in(&stage, "shop").await, Some(code));
    let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop").await;
    assert_eq!(values["refresh_token"], stage.simulator.shop("shop").await.refresh_token());
    assert_exchanges(&stage, "shop", 1).await;
}

/// Covers: spec/tokenSecretRef.keys.authCode
#[tokio::test]
async fn a_code_that_comes_while_a_refresh_is_under_way_is_exchanged_after_it() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let _operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop("shop")).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await.id;
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    stage.simulator.release(held).await;
    stage.simulator.wait_for_exchanges("shop", 1, SOON).await;
    wait_exchanged(&stage, "shop", SOON).await;
    stage.assert_refreshes("shop", 1).await;
    assert_exchanges(&stage, "shop", 1).await;
}

/// The file that a GitOps tool holds has the code that was used long ago.
///
/// Covers: event/InvalidValue
#[tokio::test]
async fn a_used_code_that_is_put_back_beside_its_tokens_is_ignored_and_said_to_be_useless_once() {
    let stage = Stage::new().await;
    stranger(&stage, "shop").await;
    let code = stage.simulator.authorize("shop").await;
    with_code(&stage, "shop", &code).create(&stage.client).await;
    stage.integration("shop").create(&stage.client).await;
    let _operator = stage.operator().start();
    wait_exchanged(&stage, "shop", SOON).await;
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    for again in 0..2 {
        let params = PatchParams { field_manager: Some("argocd-controller".to_owned()), ..PatchParams::default() };
        let data = with_code(&stage, "shop", &code).manifest()["data"].clone();
        let patch = json!({"metadata": {"labels": {"applied": again.to_string()}}, "data": data});
        secrets.patch("shop", &params, &Patch::Merge(patch)).await.expect("it can be patched");
        let event = fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "InvalidValue", SOON).await;
        assert!(event.note.contains("used or rejected before"), "{}", event.note);
        assert_eq!(event.count, 1, "it is said once");
    }
    stage.request("shop", "now").await;
    let done = |status: &Value| status["lastHandledRefreshRequest"] == "now" && is_ready(status);
    stage.wait_status("shop", "refreshed", done, SOON).await;
    assert_eq!(code_in(&stage, "shop").await, Some(code));
    assert_exchanges(&stage, "shop", 1).await;
}

/// `kubectl replace` with the first file: the tokens and all notes are gone, and a used code stands there.
///
/// Covers: event/TokenSecretReverted, flag/journal-dir
#[tokio::test]
async fn a_used_code_put_in_the_place_of_its_tokens_is_replaced_by_them_and_not_presented() {
    let stage = Stage::new().await;
    stranger(&stage, "shop").await;
    let code = stage.simulator.authorize("shop").await;
    with_code(&stage, "shop", &code).create(&stage.client).await;
    stage.integration("shop").create(&stage.client).await;
    let _operator = stage.operator().start();
    wait_exchanged(&stage, "shop", SOON).await;
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), &stage.namespace);
    let first = serde_json::from_value(with_code(&stage, "shop", &code).manifest()).expect("it is a Secret");
    secrets.replace("shop", &PostParams::default(), &first).await.expect("it can be replaced");
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "TokenSecretReverted", SOON).await;
    let restored = poll::until(SOON, async || code_in(&stage, "shop").await.is_none().then_some(()));
    restored.await.expect("the newest pair is written back");
    wait_exchanged(&stage, "shop", SOON).await;
    assert_exchanges(&stage, "shop", 1).await;

    // Again: nobody fights. That it is of no use is said.
    let first = serde_json::from_value(with_code(&stage, "shop", &code).manifest()).expect("it is a Secret");
    secrets.replace("shop", &PostParams::default(), &first).await.expect("it can be replaced");
    let used = |status: &Value| has_condition(status, "Stalled", "True", "AuthorizationCodeRejected");
    let status = stage.wait_status("shop", "said to be of no use", used, SOON).await;
    assert!(message(&status).contains("used or rejected before"), "{status:#}");
    assert!(message(&status).contains(&command(&stage, "shop")), "{status:#}");
    assert_exchanges(&stage, "shop", 1).await;
}

// ---- crashes -----------------------------------------------------------------------------------------------

/// Killed with this request held, before the API server has seen it or after.
async fn killed_at(stage: &Stage<'_>, name: &str, hold: impl Fn() -> Hold) {
    stranger(stage, name).await;
    with_code(stage, name, &stage.simulator.authorize(name).await).create(&stage.client).await;
    let hold = hold();
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.integration(name).create(&stage.client).await;
    hold.wait_held(SOON).await;
    operator.sigkill();
    hold.cut();
    operator.restart();
    operator.wait_ready(SOON).await;
    wait_exchanged(stage, name, LONG).await;
    assert_exchanges(stage, name, 1).await;
    operator.sigterm(SOON).await;
}

/// Covers: flag/journal-dir, annotation/refresh-attempt
#[tokio::test]
async fn a_process_killed_at_any_write_of_an_exchange_leaves_a_code_that_is_exchanged_once() {
    let stage = Stage::new().await;
    let (proxy, namespace) = (&stage.proxy, stage.namespace.as_str());
    killed_at(&stage, "rehearsal", || proxy.on("a", steps::rehearsal(namespace, "rehearsal")).once().hold()).await;
    killed_at(&stage, "claim", || proxy.on("b", steps::claim(namespace, "claim")).once().hold()).await;
    killed_at(&stage, "claimed", || proxy.on("c", steps::claim(namespace, "claimed")).once().hold_after()).await;
    killed_at(&stage, "persist", || proxy.on("d", steps::persist(namespace, "persist")).once().hold()).await;
    killed_at(&stage, "stored", || proxy.on("e", steps::persist(namespace, "stored")).once().hold_after()).await;
    killed_at(&stage, "status", || {
        let status = steps::status(namespace, "status");
        proxy.on("f", move |seen: &Seen| status(seen) && seen.body.contains("lastRefreshTime")).once().hold()
    })
    .await;
}

/// Between TikTok's answer and the journal: the outcome is unknown, and said to be so.
///
/// Covers: event/OutcomeUnknown
#[tokio::test]
async fn a_process_killed_in_the_call_has_the_next_one_say_that_the_codes_outcome_is_unknown() {
    let stage = Stage::new().await;
    stage.shop("shop", 5 * DAY).await;
    let mut operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let code = stage.simulator.authorize("shop").await;
    let held = exchange_under_way(&stage, "shop", &code).await;
    operator.sigkill();
    stage.simulator.release(held).await;
    operator.restart();
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "OutcomeUnknown", SOON).await;
    stage.wait_status("shop", "its code refused", is_rejected, SOON).await;
    stage.simulator.assert_no_careless_violations().await;
    // The new authorization killed the old pair, and the answer with the new one is lost: only a person can help.
    put_code(&stage, "shop", &stage.simulator.authorize("shop").await).await;
    wait_exchanged(&stage, "shop", SOON).await;
}

// ---- specs ---------------------------------------------------------------------------------------------------

/// Covers: spec/authorization.serviceId, spec/authorization.region, spec/tokenSecretRef.keys.authCode
#[tokio::test]
async fn a_spec_about_authorization_that_cannot_work_is_refused_with_what_to_write() {
    let stage = Stage::new().await;
    let keys = |keys: Value| json!({"name": "shop", "keys": keys});
    for (field, value, words) in [
        ("tokenSecretRef", keys(json!({"authCode": "refresh_token"})), "authCode must be another key"),
        ("tokenSecretRef", keys(json!({"authCode": "a/b"})), "authCode"),
        ("authorization", json!({"serviceId": ""}), "serviceId"),
        ("authorization", json!({"serviceId": "a b"}), "serviceId"),
        ("authorization", json!({"serviceId": "7", "region": "eu"}), "region"),
        ("authorization", json!({"region": "us"}), "serviceId"),
    ] {
        let refused = stage.integration("shop").field(field, value.clone()).try_create(&stage.client).await;
        let refusal = refused.expect_err(&format!("{value} is taken")).to_string();
        assert!(refusal.contains(words), "{value}: {refusal}");
    }
    let one_secret = integration(&stage.namespace, "shop", "app", "app").token_keys(&[(Field::AuthCode, "app_secret")]);
    let refusal = one_secret.try_create(&stage.client).await.expect_err("the app secret would be removed").to_string();
    assert!(refusal.contains("must not name a key of appCredentialsSecretRef.keys"), "{refusal}");
    let made = stage.integration("shop").field("authorization", json!({"serviceId": "7"})).create(&stage.client).await;
    assert_eq!(made["spec"]["authorization"], json!({"serviceId": "7", "region": "global"}));
    assert_eq!(made["spec"]["tokenSecretRef"]["keys"]["authCode"], "auth_code");
}
