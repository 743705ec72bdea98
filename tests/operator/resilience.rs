//! No token is lost and none is spent twice, whatever dies, hangs or lies at whichever step.
//!
//! The witness is the simulator: it counts every refresh token that it gave out and every time that
//! one was presented. Each test ends with the same words: the shop was refreshed so many times and
//! no more, and the Secret holds the pair that is current at TikTok.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use futures::future::join_all;
use kube::{Api, Client, api::Patch, api::PatchParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiktok_shop_testkit::{
    control_plane::{ControlPlane, Options},
    disk::SmallDisk,
    fixtures::{self, app_secret, has_condition, integration},
    operator::{Builder, Operator},
    poll,
    proxy::{Hold, Predicate, Proxy, Seen},
    rbac::{self, Scope},
    simulator::{Action, App, DropPoint, Fault, NewShop, Point, Rotation, Shop, Simulator, TokenState},
    steps,
};
use tokio::sync::OnceCell;

/// For what takes one look or a few requests.
pub const SOON: Duration = Duration::from_secs(15);

/// For what waits for a pause, a lease or a claim's life to end.
pub const LONG: Duration = Duration::from_secs(75);

/// Lives of a process that are ended at each step.
const ROUNDS: usize = 5;

/// How long the API server is away.
const OUTAGE: Duration = Duration::from_secs(20);

/// Time that access tokens have left where nothing is due.
const PLENTY: i64 = 5 * 24 * 3_600;

/// One namespace with its own TikTok, its own way to the API server and its own journal.
pub struct Stage<'a> {
    pub plane: &'a ControlPlane,
    pub client: Client,
    pub namespace: String,
    pub simulator: Simulator,
    pub app: App,
    /// Between the operator and the API server.
    pub proxy: Proxy,
    pub identity: rbac::Identity,
    pub journal: TempDir,
}

impl Stage<'static> {
    /// On the control plane that all tests share.
    pub async fn new() -> Self {
        static CRD: OnceCell<()> = OnceCell::const_new();
        let plane = ControlPlane::shared().await;
        CRD.get_or_init(async || fixtures::install_crd(plane, &crd()).await).await;
        Stage::on(plane).await
    }
}

impl<'a> Stage<'a> {
    /// On a control plane that has the CRD.
    pub async fn on(plane: &'a ControlPlane) -> Self {
        let client = plane.kube_client().await;
        let namespace = plane.create_namespace("resilience").await;
        let scope = Scope::Namespaces(vec![namespace.clone()]);
        let identity = rbac::install(plane, &namespace, &scope).await;
        let simulator = Simulator::start(&simulator_binary()).await;
        let app = simulator.create_any_app().await;
        app_secret(&namespace, "app", &app.app_key, &app.app_secret).create(&client).await;
        let proxy = Proxy::start(&plane.url(), Some(&plane.ca_pem()));
        let journal = tempfile::tempdir().expect("a temporary folder can be made");
        Self { plane, client, namespace, simulator, app, proxy, identity, journal }
    }

    /// A shop, its token Secret and its integration, all of this name, with so much life left.
    pub async fn shop(&self, name: &str, seconds_left: i64) -> Shop {
        self.new_shop(&NewShop::of(&self.app).id(name).access_remaining(seconds_left)).await
    }

    pub async fn new_shop(&self, shop: &NewShop) -> Shop {
        let shop = self.simulator.create_shop(shop).await;
        self.token_secret(&shop).create(&self.client).await;
        self.integration(&shop.id).create(&self.client).await;
        shop
    }

    pub fn token_secret(&self, shop: &Shop) -> fixtures::SecretFixture {
        fixtures::SecretFixture::new(&self.namespace, &shop.id).tokens(
            shop.access_token(),
            shop.access_expires_at(),
            shop.refresh_token(),
            shop.refresh_expires_at(),
        )
    }

    pub fn integration(&self, name: &str) -> fixtures::IntegrationFixture {
        integration(&self.namespace, name, name, "app")
    }

    /// An operator on this namespace that thinks it leads, without a journal.
    pub fn bare_operator(&self) -> Builder {
        self.operator_through(&self.proxy).leader_elect(false)
    }

    /// An operator with this stage's journal.
    pub fn operator(&self) -> Builder {
        self.bare_operator().journal_dir(self.journal.path())
    }

    /// An operator that elects, with another way to the API server.
    pub fn operator_through(&self, proxy: &Proxy) -> Builder {
        Operator::builder(env!("CARGO_BIN_EXE_tiktok-shop-operator"))
            .kubeconfig(self.plane.kubeconfig_for(&self.identity.token, Some(&proxy.url())))
            .token_endpoint(&self.simulator.token_endpoint())
            .authorization_endpoint(&self.simulator.authorization_endpoint())
            .lease_namespace(&self.namespace)
            .namespace(&self.namespace)
            .flag("request-timeout", "2s")
    }

    /// Another way to the API server.
    pub fn second_proxy(&self) -> Proxy {
        Proxy::start(&self.plane.url(), Some(&self.plane.ca_pem()))
    }

    /// `kubectl annotate ttsi NAME tiktokshop.dev/refresh-requested-at=VALUE --overwrite`.
    pub async fn request(&self, name: &str, value: &str) {
        fixtures::request_refresh(&self.client, &self.namespace, name, value).await;
    }

    pub async fn status(&self, name: &str) -> Value {
        fixtures::get_status(&self.client, &self.namespace, name).await
    }

    pub async fn wait_status(
        &self,
        name: &str,
        what: &str,
        predicate: impl Fn(&Value) -> bool,
        timeout: Duration,
    ) -> Value {
        fixtures::wait_for_status(&self.client, &self.namespace, name, what, predicate, timeout).await
    }

    /// Waits until the request is handled and all is well, and checks that the Secret then holds the
    /// pair that is current at TikTok.
    pub async fn wait_refreshed(&self, name: &str, request: &str, timeout: Duration) -> Value {
        let what = format!("the refresh {request} done, and Ready");
        let done = |status: &Value| status["lastHandledRefreshRequest"] == request && is_ready(status);
        let status = self.wait_status(name, &what, done, timeout).await;
        assert!(
            has_condition(&status, "Refreshed", "True", "Refreshed") && status["lastError"].is_null(),
            "after a refresh that went well in the end, the status of {name} says otherwise: {status:#}"
        );
        self.assert_current(name).await;
        status
    }

    /// The Secret holds the pair that is current at TikTok, and no claim.
    pub async fn assert_current(&self, name: &str) {
        let shop = self.simulator.shop(name).await;
        let values = fixtures::secret_values(&self.client, &self.namespace, name).await;
        let expected: BTreeMap<String, String> = [
            ("access_token", shop.access_token().to_owned()),
            ("access_token_expire_in", shop.access_expires_at().to_string()),
            ("refresh_token", shop.refresh_token().to_owned()),
            ("refresh_token_expire_in", shop.refresh_expires_at().to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        assert_eq!(values, expected, "the Secret of {name} does not hold the pair that is current at TikTok");
        assert_eq!(shop.refresh_token_state, TokenState::Current, "the refresh token of {name} does not work any more");
        let claim = self.annotation(name, steps::CLAIM).await;
        assert_eq!(claim, None, "a claim is left on the Secret of {name}");
    }

    pub async fn annotation(&self, secret: &str, name: &str) -> Option<String> {
        let secret = fixtures::secret(&self.client, &self.namespace, secret).await.expect("the Secret is there");
        secret.metadata.annotations.unwrap_or_default().get(name).cloned()
    }

    /// The shop was refreshed so many times, each time with one presentation, and no token was
    /// presented after it had been spent.
    pub async fn assert_refreshes(&self, name: &str, count: u64) {
        let counters = self.simulator.shop(name).await.counters;
        assert_eq!(
            (counters.refreshes, counters.presentations),
            (count, count),
            "refreshes and presentations of {name}: each request is to cost one of both"
        );
        self.simulator.assert_no_violations().await;
    }

    /// As a person may, or a tool that creates it anew.
    pub async fn delete_secret(&self, name: &str) {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        secrets.delete(name, &kube::api::DeleteParams::default()).await.expect("it is there");
    }

    /// What any other program may do to a Secret that makes a refresh under way meet a 409.
    pub async fn touch_secret(&self, name: &str, value: &str) {
        let patch = json!({"metadata": {"labels": {"touched": value}}});
        fixtures::patch_secret(&self.client, &self.namespace, name, &patch).await;
    }
}

/// The text of the CRD that is shipped.
pub fn crd() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/tiktokshopintegrations.tiktokshop.dev.yaml");
    std::fs::read_to_string(path).expect("the CRD is in the tree")
}

fn simulator_binary() -> std::path::PathBuf {
    let operator = Path::new(env!("CARGO_BIN_EXE_tiktok-shop-operator"));
    operator.with_file_name("examples").join("tiktok-shop-simulator")
}

pub fn is_ready(status: &Value) -> bool {
    has_condition(status, "Ready", "True", "TokenValid")
}

/// A write of the transaction, by name, and how it is told from other requests.
type Step = (&'static str, fn(&str, &str) -> Arc<dyn Fn(&Seen) -> bool + Send + Sync>);

const WRITES: [Step; 4] = [
    ("the rehearsal", |namespace, name| Arc::new(steps::rehearsal(namespace, name))),
    ("the claim", |namespace, name| Arc::new(steps::claim(namespace, name))),
    ("the persist", |namespace, name| Arc::new(steps::persist(namespace, name))),
    ("the status write", |namespace, name| Arc::new(steps::status(namespace, name))),
];

fn predicate(step: &Step, namespace: &str, name: &str) -> impl Predicate + use<> {
    let takes = step.1(namespace, name);
    move |seen: &Seen| takes(seen)
}

// ---- SIGKILL at each step -------------------------------------------------------------------------

/// When a process dies, relative to its request reaching the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Died {
    /// The server never saw the request.
    Before,
    /// The request was on its way, and arrives when the next life is at work.
    WhileItTravelled,
    /// The server applied it; the answer found nobody.
    After,
}

/// Kills the operator with this step held, again and again, and has it refresh once each time.
async fn killed_at(step: &Step, died: Died) {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    for round in 1..=ROUNDS {
        let request = format!("{} {died:?} {round}", step.0);
        // The status of the start must not be the one that is held.
        let rule = stage.proxy.on(step.0, predicate(step, &stage.namespace, "shop")).once();
        let hold = match died {
            Died::Before => rule.hold(),
            Died::WhileItTravelled => rule.forward_orphans().hold(),
            Died::After => rule.hold_after(),
        };
        stage.request("shop", &request).await;
        hold.wait_held(SOON).await;
        operator.sigkill();
        if died == Died::WhileItTravelled {
            operator.restart();
            hold.release();
        } else {
            hold.cut();
            operator.restart();
        }
        // What is well already may be so from the life before: this one is to have looked.
        operator.wait_ready(SOON).await;
        stage.wait_refreshed("shop", &request, SOON).await;
        stage.assert_refreshes("shop", u64::try_from(round).expect("few")).await;
    }
    assert_eq!(
        operator.sigterm(SOON).await.code(),
        Some(0),
        "after all that, the operator ends as it should:\n{}",
        operator.process().tail(20)
    );
    stage.assert_refreshes("shop", u64::try_from(ROUNDS).expect("few")).await;
}

/// SIGKILL at the rehearsal.
///
/// Covers: annotation/refresh-requested-at
#[tokio::test]
async fn a_process_killed_at_its_rehearsal_leaves_a_request_that_is_refreshed_once() {
    killed_at(&WRITES[0], Died::Before).await;
    killed_at(&WRITES[0], Died::After).await;
}

/// SIGKILL at the claim.
///
/// Covers: annotation/refresh-attempt
#[tokio::test]
async fn a_process_killed_at_its_claim_leaves_a_request_that_is_refreshed_once() {
    killed_at(&WRITES[1], Died::Before).await;
    killed_at(&WRITES[1], Died::After).await;
}

/// SIGKILL at the claim; a claim that arrives late.
///
/// Covers: annotation/refresh-attempt
#[tokio::test]
async fn a_dead_processs_claim_that_arrives_late_does_not_make_a_second_refresh() {
    killed_at(&WRITES[1], Died::WhileItTravelled).await;
}

/// SIGKILL between the claim given back and the status: that the request failed is said all the same.
///
/// Covers: annotation/handled-refresh-request, reason/ApiError
#[tokio::test]
async fn a_process_killed_before_it_told_of_a_failure_leaves_a_request_that_is_said_to_have_failed() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.add_fault(Fault::once(Action::code(77)).shop("shop")).await;
    let hold = stage.proxy.on("the status write", steps::status(&stage.namespace, "shop")).once().hold();
    stage.request("shop", "1").await;
    hold.wait_held(SOON).await;
    operator.sigkill();
    hold.cut();
    assert_eq!(stage.annotation("shop", "tiktokshop.dev/handled-refresh-request").await.as_deref(), Some("1"));
    operator.restart();
    let failed = |status: &Value| has_condition(status, "Ready", "True", "RefreshFailing");
    let status = stage.wait_status("shop", "RefreshFailing", failed, SOON).await;
    assert_eq!(
        (&status["lastHandledRefreshRequest"], &status["lastError"]["reason"], &status["lastError"]["message"]),
        (
            &json!("1"),
            &json!("ApiError"),
            &json!(
                "TikTok answered the refresh asked for by \"1\", no new tokens were stored, and the operator was \
                 stopped before it could tell why: ask again"
            )
        )
    );
    assert!(has_condition(&status, "Refreshed", "False", "ApiError"), "{status:#}");
    stage.request("shop", "2").await;
    stage.wait_refreshed("shop", "2", SOON).await;
    let counters = stage.simulator.shop("shop").await.counters;
    assert_eq!((counters.refreshes, counters.presentations), (1, 2), "the failed request is not tried again by itself");
}

/// SIGKILL after TikTok refused the token again, for another request in the same second: it is no less refused for that.
///
/// Covers: annotation/rejected-token, annotation/handled-refresh-request
#[tokio::test]
async fn a_process_killed_before_it_told_of_a_second_refusal_leaves_a_token_that_is_said_to_be_refused() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.deauthorize("shop").await;
    let answered = |request: &'static str| {
        move |status: &Value| {
            status["lastHandledRefreshRequest"] == request
                && has_condition(status, "Stalled", "True", "RefreshTokenRejected")
        }
    };
    stage.request("shop", "1").await;
    let status = stage.wait_status("shop", "refused", answered("1"), SOON).await;
    assert_eq!(status["consecutiveFailures"], 1);
    operator.sigkill();
    // As a second answer of that second leaves it.
    let handled = json!({"metadata": {"annotations": {"tiktokshop.dev/handled-refresh-request": "2"}}});
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &handled).await;
    stage.request("shop", "2").await;
    operator.restart();
    let status = stage.wait_status("shop", "refused again", answered("2"), SOON).await;
    assert!(has_condition(&status, "Refreshed", "False", "RefreshTokenRejected"), "{status:#}");
    assert_eq!((&status["consecutiveFailures"], &status["lastError"]["code"]), (&json!(2), &json!(36_004_005)));
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 1);
}

/// SIGKILL after TikTok refused a due token, before the status said so: the Secret says it, whether there is a journal or
/// not, and the token is not presented once more in each life.
///
/// Covers: annotation/rejected-token, reason/RefreshTokenRejected
#[tokio::test]
async fn a_process_killed_before_it_told_of_a_refusal_does_not_present_that_token_again() {
    let refused_and_killed = async |journal: bool| {
        let stage = Stage::new().await;
        stage.shop("shop", 600).await;
        stage.simulator.add_fault(Fault::once(Action::drop(DropPoint::AfterRotation)).shop("shop")).await;
        stage.shop("other", PLENTY).await;
        let tells_of_it = steps::status(&stage.namespace, "shop");
        let tells_of_it = move |seen: &Seen| tells_of_it(seen) && seen.body.contains("RefreshTokenRejected");
        let hold = stage.proxy.on("the status write", tells_of_it).once().hold();
        let mut operator = if journal { stage.operator() } else { stage.bare_operator() }.start();
        hold.wait_held(SOON).await;
        operator.sigkill();
        hold.cut();
        let note = stage.annotation("shop", "tiktokshop.dev/rejected-token").await.expect("it is noted on the Secret");
        assert!(note.contains("36004005") && !note.contains("TTP_"), "{note}");

        let rejected = |status: &Value| has_condition(status, "Stalled", "True", "RefreshTokenRejected");
        for life in 1..=2 {
            operator.restart();
            let status = stage.wait_status("shop", "Stalled, to be authorized again", rejected, SOON).await;
            let error = &status["lastError"];
            let message = error["message"].as_str().expect("it has a message");
            assert!(
                message.contains("kubectl tiktokshop authorize shop") && message.contains("36004005"),
                "in life {life}: {message}"
            );
            assert_eq!((&error["reason"], &error["code"]), (&json!("RefreshTokenRejected"), &json!(36_004_005)));
            assert!(error["requestId"].is_string(), "for TikTok's support: {error}");
            assert_eq!(
                status["consecutiveFailures"], 2,
                "an unknown outcome and a refusal, in life {life}: {status:#}"
            );
            // By the time that it has served another shop, it has looked at this one.
            stage.request("other", &format!("in life {life}")).await;
            stage.wait_refreshed("other", &format!("in life {life}"), SOON).await;
            assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 2, "in life {life}");
            operator.sigkill();
        }
        fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "ReauthorizationRequired", SOON).await;

        // Who asks is answered, and new tokens are served like any others: the note is about those alone.
        operator.restart();
        stage.request("shop", "now").await;
        stage.wait_status("shop", "refused again", |status| status["lastHandledRefreshRequest"] == "now", SOON).await;
        assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 3);
        let shop = stage.simulator.reauthorize("shop").await;
        let patch = json!({ "data": stage.token_secret(&shop).manifest()["data"] });
        fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
        stage.wait_status("shop", "Ready with the new authorization", is_ready, SOON).await;
        stage.request("shop", "after that").await;
        stage.wait_refreshed("shop", "after that", SOON).await;
        assert_eq!(stage.annotation("shop", "tiktokshop.dev/rejected-token").await, None);
        stage.simulator.assert_no_careless_violations().await;
    };
    tokio::join!(refused_and_killed(true), refused_and_killed(false));
}

/// Reads of Secrets that hang take every turn at the API server: those that come later wait here instead of each on a
/// connection of its own, and new tokens are stored all the same.
#[tokio::test]
async fn new_tokens_are_stored_while_all_else_waits_for_its_turn() {
    const TURNS: usize = 16;
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().flag("request-timeout", "60s").start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::BeforeProcessing)).shop("shop")).await;
    stage.request("shop", "now").await;
    let call = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;

    let is_of_others = |seen: &Seen| seen.method == "GET" && seen.path.contains("/secrets/other-");
    let hold = stage.proxy.on("the reads of others", is_of_others).hold();
    for number in 0..TURNS + 4 {
        stage.shop(&format!("other-{number}"), PLENTY).await;
    }
    hold.wait_held_count(TURNS, SOON).await;
    stage.simulator.release(call.id).await;
    let (namespace, client) = (&stage.namespace, &stage.client);
    let current = poll::until(SOON, async || {
        let shop = stage.simulator.shop("shop").await;
        let values = fixtures::secret_values(client, namespace, "shop").await;
        let is_stored = values.get("refresh_token").is_some_and(|token| token == shop.refresh_token());
        (shop.counters.refreshes == 1 && is_stored).then_some(())
    });
    assert!(current.await.is_some(), "the new tokens wait for others:\n{}", operator.process().tail(20));
    stage.wait_refreshed("shop", "now", SOON).await;
    assert_eq!(hold.held(), TURNS, "and no more than these are under way");
    hold.release();
    for number in 0..TURNS + 4 {
        stage.wait_status(&format!("other-{number}"), "Ready", is_ready, SOON).await;
    }
}

/// SIGKILL at the persist; journal replay.
///
/// Covers: flag/journal-dir
#[tokio::test]
async fn a_process_killed_at_its_persist_has_its_answer_stored_from_the_journal() {
    killed_at(&WRITES[2], Died::Before).await;
    killed_at(&WRITES[2], Died::After).await;
}

/// SIGKILL at the persist; a persist that arrives late.
#[tokio::test]
async fn a_dead_processs_tokens_that_arrive_late_do_not_harm() {
    killed_at(&WRITES[2], Died::WhileItTravelled).await;
}

/// SIGKILL at the status write.
///
/// Covers: annotation/handled-refresh-request
#[tokio::test]
async fn a_process_killed_at_its_status_write_repeats_nothing() {
    killed_at(&WRITES[3], Died::Before).await;
    killed_at(&WRITES[3], Died::After).await;
}

/// SIGKILL while TikTok is called, not yet processed; `OutcomeUnknown`.
///
/// Covers: `reason/OutcomeUnknown`, `event/OutcomeUnknown`, `metric/tiktokshop_outcome_unknown_total`
#[tokio::test]
async fn a_process_killed_at_its_call_before_tiktok_took_it_tries_that_token_once_more() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    for round in 1..=ROUNDS {
        let request = format!("request {round}");
        stage.simulator.add_fault(Fault::once(Action::hold(Point::BeforeProcessing))).await;
        stage.request("shop", &request).await;
        let held = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;
        operator.sigkill();
        stage.simulator.release_dropping(held.id).await;
        operator.restart();
        stage.wait_refreshed("shop", &request, SOON).await;
        let counters = stage.simulator.shop("shop").await.counters;
        let round = u64::try_from(round).expect("few");
        assert_eq!(
            (counters.refreshes, counters.presentations),
            (round, 2 * round),
            "a token whose call was cut off is tried once more, and that is all"
        );
        stage.simulator.assert_no_violations().await;
    }
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "OutcomeUnknown", SOON).await;
}

/// SIGKILL after TikTok rotated, the answer lost; `OutcomeUnknown`, one more try, then a person.
#[tokio::test]
async fn a_process_killed_after_tiktok_rotated_tries_once_more_and_then_asks_for_an_authorization() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    stage.shop("other", PLENTY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    for round in 1..=ROUNDS {
        let request = format!("request {round}");
        let before = stage.simulator.shop("shop").await.counters;
        stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop("shop")).await;
        stage.request("shop", &request).await;
        let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
        operator.sigkill();
        stage.simulator.release_dropping(held.id).await;
        operator.restart();
        let rejected = |status: &Value| has_condition(status, "Stalled", "True", "RefreshTokenRejected");
        let status = stage.wait_status("shop", "Stalled, to be authorized again", rejected, SOON).await;
        // The access token still works: the shop is served while a person acts.
        assert!(has_condition(&status, "Ready", "True", "RefreshTokenRejected"), "{status:#}");
        assert_eq!(status["lastHandledRefreshRequest"], *request, "TikTok has answered that request: {status:#}");
        // A life more changes nothing: it is tried once more, not once more in each life. By the time
        // that it has served another shop, it has looked at this one.
        operator.sigkill();
        operator.restart();
        stage.request("other", &request).await;
        stage.wait_refreshed("other", &request, SOON).await;
        let shop = stage.simulator.reauthorize("shop").await;
        assert_eq!(
            (shop.counters.refreshes - before.refreshes, shop.counters.presentations - before.presentations),
            (1, 2),
            "refreshes and presentations of a token whose answer was lost"
        );
        let patch = json!({ "data": stage.token_secret(&shop).manifest()["data"] });
        fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
        stage.wait_status("shop", "Ready with the new authorization", is_ready, SOON).await;
        let status = stage.status("shop").await;
        assert!(fixtures::condition(&status, "Stalled").is_none(), "a person has acted: {status:#}");
    }
    let events = fixtures::events(&stage.client, &stage.namespace, "shop").await;
    for reason in ["OutcomeUnknown", "ReauthorizationRequired"] {
        assert!(events.iter().any(|event| event.reason == reason), "no event {reason} among {events:#?}");
    }
    stage.simulator.assert_no_careless_violations().await;
}

/// SIGKILL after TikTok answered without rotating.
#[tokio::test]
async fn where_tiktok_still_takes_the_token_a_lost_answer_costs_nothing() {
    let stage = Stage::new().await;
    let shop = NewShop::of(&stage.app).id("shop").access_remaining(PLENTY).rotation(Rotation::NotRotating);
    stage.new_shop(&shop).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation))).await;
    stage.request("shop", "lost").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    operator.sigkill();
    stage.simulator.release_dropping(held.id).await;
    operator.restart();
    stage.wait_refreshed("shop", "lost", SOON).await;
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 2);
}

/// An answer that never comes, the process alive; `OutcomeUnknown`.
#[tokio::test]
async fn an_answer_that_never_comes_is_said_and_the_token_is_tried_once_more() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.simulator.add_fault(Fault::once(Action::drop(DropPoint::BeforeProcessing))).await;
    stage.request("shop", "cut").await;
    let unknown = |status: &Value| has_condition(status, "Ready", "True", "OutcomeUnknown");
    let status = stage.wait_status("shop", "outcome unknown", unknown, SOON).await;
    assert!(has_condition(&status, "Refreshed", "False", "NetworkError"), "{status:#}");
    assert_ne!(status["lastHandledRefreshRequest"], "cut", "TikTok has not answered: {status:#}");
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "OutcomeUnknown", SOON).await;
    stage.wait_refreshed("shop", "cut", SOON).await;
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 2);
    let metrics = operator.metrics().await;
    assert_eq!(metrics.value("tiktokshop_outcome_unknown_total", &[]), Some(1.0));
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "RefreshRecovered", SOON).await;
    stage.simulator.assert_no_violations().await;
}

/// The integration is deleted and made anew while nobody knows what became of its token: it is still said, and the token
/// is tried once more.
///
/// Covers: annotation/refresh-attempt, reason/OutcomeUnknown
#[tokio::test]
async fn an_unknown_outcome_outlives_the_integration_that_it_happened_to() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    let fault = stage.simulator.add_fault(Fault::always(Action::drop(DropPoint::BeforeProcessing))).await;
    stage.request("shop", "cut").await;
    let unknown = |status: &Value| has_condition(status, "Ready", "True", "OutcomeUnknown");
    stage.wait_status("shop", "outcome unknown", unknown, SOON).await;
    // Before the one try more, which comes after a pause.
    let integrations = fixtures::integrations(&stage.client, &stage.namespace);
    integrations.delete("shop", &kube::api::DeleteParams::default()).await.expect("it can be deleted");
    let gone = poll::until(SOON, async || integrations.get_opt("shop").await.ok()?.is_none().then_some(())).await;
    gone.expect("it is gone");
    assert!(
        stage.annotation("shop", steps::CLAIM).await.is_some_and(|claim| claim.contains("unknown")),
        "it is marked"
    );
    stage.integration("shop").create(&stage.client).await;
    stage.simulator.clear_fault(fault).await;
    let settled = |status: &Value| status["lastRefreshTime"].is_string() && is_ready(status);
    stage.wait_status("shop", "refreshed, unasked", settled, LONG).await;
    stage.assert_current("shop").await;
    stage.simulator.assert_no_careless_violations().await;
}

// ---- One Secret that can't be written ---------------------------------------------------------------

/// A webhook that is down fails the writes of one Secret, while the API server answers everything else.
///
/// Covers: reason/PersistFailed, `metric/tiktokshop_persist_retries_total`
#[tokio::test]
async fn a_write_that_keeps_failing_delays_no_other_refresh() {
    let stage = Stage::new().await;
    stage.shop("stuck", PLENTY).await;
    stage.shop("other", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    let failing = stage.proxy.on("persist", steps::persist(&stage.namespace, "stuck")).respond_status(
        500,
        "InternalError",
        "failed calling webhook \"vault.example.com\"",
    );
    stage.request("stuck", "now").await;
    let held = |status: &Value| has_condition(status, "Ready", "True", "PersistFailed");
    let status = stage.wait_status("stuck", "PersistFailed", held, SOON).await;
    let message = status["lastError"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("can be reached, but fails this write"), "{message}");
    assert!(message.contains("vault.example.com"), "{message}");
    for request in ["one", "two"] {
        stage.request("other", request).await;
        stage.wait_refreshed("other", request, SOON).await;
    }
    failing.remove();
    stage.wait_refreshed("stuck", "now", LONG).await;
    stage.assert_refreshes("stuck", 1).await;
}

/// An admission policy that puts the old data back into every write of the token Secrets of one namespace.
async fn put_old_data_back(stage: &Stage<'_>) {
    let name = &stage.namespace;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["secrets"]},
                ],
            },
            "mutations": [{
                "patchType": "JSONPatch",
                "jsonPatch": {"expression": "[JSONPatch{op: 'replace', path: '/data', value: oldObject.data}]"},
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name},
    });
    fixtures::SecretFixture::new(name, "probe").value("a", "1").create(&stage.client).await;
    stage.plane.apply(&policy.to_string()).await;
    stage.plane.apply(&binding.to_string()).await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(stage.client.clone(), name);
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    let change = Patch::Merge(json!({"stringData": {"a": "2"}}));
    let in_force = poll::until(SOON, async || {
        let answer = secrets.patch("probe", &dry, &change).await.ok()?;
        (answer.data?.get("a")?.0 == b"1").then_some(())
    });
    in_force.await.expect("the admission policy comes into force");
}

/// Admission that changes what is written, in silence: seen at the rehearsal no token is spent, and seen at the write the
/// answer counts as not stored.
///
/// Covers: reason/TokenSecretForbidden, reason/PersistFailed, input/admission-changes-the-tokens
#[tokio::test]
async fn tokens_that_admission_changes_on_their_way_are_not_taken_for_stored() {
    let stage = Stage::new().await;
    let served =
        stage.plane.kubectl_ok(&["api-resources", "--api-group=admissionregistration.k8s.io", "-o", "name"]).await;
    if !served.contains("mutatingadmissionpolicies") {
        println!("skipped: this version of Kubernetes does not serve MutatingAdmissionPolicy");
        return;
    }
    stage.shop("shop", PLENTY).await;
    stage.shop("later", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop("shop")).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    put_old_data_back(&stage).await;
    stage.simulator.release(held.id).await;
    let is_held = |status: &Value| has_condition(status, "Ready", "True", "PersistFailed");
    let status = stage.wait_status("shop", "PersistFailed", is_held, SOON).await;
    assert!(status["lastError"]["message"].as_str().unwrap_or_default().contains("other tokens"), "{status:#}");

    stage.request("later", "now").await;
    let refused = |status: &Value| has_condition(status, "Refreshed", "False", "TokenSecretForbidden");
    stage.wait_status("later", "TokenSecretForbidden", refused, SOON).await;
    assert_eq!(stage.simulator.shop("later").await.counters.presentations, 0, "no token is spent on it");

    stage.plane.kubectl_ok(&["delete", "mutatingadmissionpolicybinding", &stage.namespace]).await;
    stage.wait_refreshed("shop", "now", LONG).await;
    stage.wait_refreshed("later", "now", LONG).await;
    stage.assert_refreshes("shop", 1).await;
    stage.assert_refreshes("later", 1).await;
}

// ---- Without a journal ----------------------------------------------------------------------------

/// A crash without a journal: the claim is waited out.
#[tokio::test]
async fn without_a_journal_a_dead_processs_claim_is_waited_out_and_the_token_tried_once_more() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut operator = stage.bare_operator().flag("request-timeout", "1s").start();
    operator.wait_ready(SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::BeforeProcessing))).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;
    operator.sigkill();
    stage.simulator.release_dropping(held.id).await;
    let died = std::time::Instant::now();
    operator.restart();
    stage.wait_refreshed("shop", "now", LONG).await;
    let waited = died.elapsed();
    assert!(waited >= Duration::from_secs(15), "a claim that may be at work was respected for {waited:?} only");
    let counters = stage.simulator.shop("shop").await.counters;
    assert_eq!((counters.refreshes, counters.presentations), (1, 2));
    fixtures::wait_for_event(&stage.client, &stage.namespace, "shop", "OutcomeUnknown", SOON).await;
}

// ---- The API server is away -----------------------------------------------------------------------

/// Takes the API server away with a step held, for a while, and brings it back.
async fn away_at(step: &Step, after: bool) {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let rule = stage.proxy.on(step.0, predicate(step, &stage.namespace, "shop")).once();
    let hold = if after { rule.hold_after() } else { rule.hold() };
    stage.request("shop", "now").await;
    hold.wait_held(SOON).await;
    stage.proxy.pause().await;
    tokio::time::sleep(OUTAGE).await;
    assert!(
        operator.process().is_running() && operator.probe("/livez").await == Some(200),
        "at {}: an API server that is away must not get the operator killed",
        step.0
    );
    let presentations = stage.simulator.shop("shop").await.counters.presentations;
    assert!(presentations <= 1, "at {}: the token was presented {presentations} times", step.0);
    stage.proxy.resume().await;
    hold.cut();
    stage.wait_refreshed("shop", "now", Duration::from_secs(30)).await;
    stage.assert_refreshes("shop", 1).await;
    // And it goes on as if nothing had been.
    stage.request("shop", "later").await;
    stage.wait_refreshed("shop", "later", SOON).await;
    stage.assert_refreshes("shop", 2).await;
}

/// An API server away for 20 s, starting at each write, before and after it is applied, and at
/// TikTok's answer.
///
/// Covers: `reason/PersistFailed`, `metric/tiktokshop_persist_retries_total`
#[tokio::test]
async fn an_api_server_that_is_away_from_any_step_on_loses_nothing() {
    // All at once: they wait far more than they work.
    let cases = WRITES.iter().flat_map(|step| [(step, false), (step, true)]);
    let writes = join_all(cases.map(|(step, after)| away_at(step, after)));
    tokio::join!(writes, away_when_tiktok_answers());
}

/// Takes the API server away while TikTok is at work, and brings it back: the answer is held, which
/// is said, and then stored. There is no journal to help.
async fn away_when_tiktok_answers() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.bare_operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation))).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    stage.proxy.pause().await;
    stage.simulator.release(held.id).await;
    let line = |line: &str| line.contains("PersistFailed");
    operator.process().wait_for_line(line, SOON).await.unwrap_or_else(|error| panic!("nothing is said: {error}"));
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(operator.probe("/livez").await, Some(200));
    assert!(
        operator.metrics().await.value("tiktokshop_persist_retries_total", &[]).is_some_and(|tries| tries >= 1.0),
        "the tries to store it are counted"
    );
    stage.proxy.resume().await;
    stage.wait_refreshed("shop", "now", Duration::from_secs(30)).await;
    stage.assert_refreshes("shop", 1).await;
}

/// The API server is away from a rehearsal of `shop` on, and so many failures are said.
async fn fails_in_an_absence(stage: &Stage<'_>, operator: &Operator, rehearsal: &Hold, times: usize) {
    rehearsal.wait_held(SOON).await;
    stage.proxy.pause().await;
    rehearsal.cut();
    fails_before_the_call(stage, operator, times).await;
}

async fn fails_before_the_call(stage: &Stage<'_>, operator: &Operator, times: usize) {
    let counted = poll::until(LONG, async || {
        let said = operator.logs().lines().filter(|line| line.contains("could not be claimed for a refresh")).count();
        (said >= times).then_some(())
    });
    assert!(counted.await.is_some(), "the failures are not said:\n{}", operator.process().tail(20));
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 0);
}

/// What failed in the API server's absence is tried again when that is over, not when the pause is that grew meanwhile.
/// What fails while the server answers everything else keeps to its pauses.
///
/// Covers: `reason/PersistFailed`
#[tokio::test]
async fn the_end_of_an_absence_ends_the_pauses_that_grew_in_it() {
    /// The pauses after three failures, each up to a tenth shorter: 5, 10 and 20 s.
    const PAUSES: Duration = Duration::from_millis(31_500);
    let away = async {
        let stage = Stage::new().await;
        stage.shop("shop", PLENTY).await;
        let operator = stage.operator().start();
        stage.wait_status("shop", "Ready", is_ready, SOON).await;
        let rehearsal = stage.proxy.on("rehearsal", steps::rehearsal(&stage.namespace, "shop")).once().hold();
        stage.request("shop", "now").await;
        fails_in_an_absence(&stage, &operator, &rehearsal, 4).await;
        stage.proxy.resume().await;
        // The pause after four failures is at least 36 s.
        stage.wait_refreshed("shop", "now", Duration::from_secs(20)).await;
        stage.assert_refreshes("shop", 1).await;
    };
    let webhook = async {
        let stage = Stage::new().await;
        stage.shop("shop", PLENTY).await;
        let operator = stage.operator().start();
        stage.wait_status("shop", "Ready", is_ready, SOON).await;
        let failing = stage.proxy.on("rehearsal", steps::rehearsal(&stage.namespace, "shop")).respond_status(
            500,
            "InternalError",
            "failed calling webhook \"vault.example.com\"",
        );
        let asked = std::time::Instant::now();
        stage.request("shop", "now").await;
        fails_before_the_call(&stage, &operator, 4).await;
        assert!(asked.elapsed() >= PAUSES, "a webhook that is down is asked without pauses: {:?}", asked.elapsed());
        failing.remove();
        stage.request("shop", "at once").await;
        stage.wait_refreshed("shop", "at once", SOON).await;
        stage.assert_refreshes("shop", 1).await;
    };
    tokio::join!(away, webhook);
}

/// An API server that starts refuses everybody everything, before it knows anybody's rights. Nobody is told to grant rights
/// that were never taken.
#[tokio::test]
async fn what_a_starting_api_server_refuses_is_not_taken_for_a_matter_of_rights() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    // Of nothing but its lease.
    let candidate = stage.operator_through(&stage.proxy).flag("watch-label-selector", "of=nobody").start();
    wait_leads(&candidate, true, SOON).await;
    let rehearsal = stage.proxy.on("rehearsal", steps::rehearsal(&stage.namespace, "shop")).once().hold();
    stage.request("shop", "now").await;
    fails_in_an_absence(&stage, &operator, &rehearsal, 1).await;
    stage.proxy.clear();
    let starting = stage.proxy.on("starting", |_| true).respond_status(403, "Forbidden", "no RBAC policy matched");
    stage.proxy.resume().await;
    stage.proxy.wait_for_request(steps::rehearsal(&stage.namespace, "shop"), SOON).await;
    stage.proxy.wait_for_request(steps::lease(), SOON).await;
    fails_before_the_call(&stage, &operator, 2).await;
    starting.remove();
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.assert_refreshes("shop", 1).await;
    wait_leads(&candidate, true, SOON).await;
    let alarms = ["TokenSecretForbidden", "failed to write a status", "grant ", "allow "];
    let logs = operator.logs() + &candidate.logs();
    let told: Vec<_> = logs.lines().filter(|line| alarms.iter().any(|alarm| line.contains(alarm))).collect();
    assert!(told.is_empty(), "{told:#?}");
    let events = fixtures::events(&stage.client, &stage.namespace, "shop").await;
    assert!(events.iter().all(|event| !event.note.contains("allow the operator")), "{events:#?}");
}

/// A person gives a shop other tokens while the API server cannot be reached: once they are seen, the failure of those before
/// is not told any more.
#[tokio::test]
async fn what_failed_in_an_absence_is_forgotten_with_the_tokens_it_was_about() {
    let stage = Stage::new().await;
    let rehearsal = stage.proxy.on("rehearsal", steps::rehearsal(&stage.namespace, "shop")).once().hold();
    stage.shop("shop", 60).await;
    let operator = stage.operator().start();
    fails_in_an_absence(&stage, &operator, &rehearsal, 1).await;
    let shop = stage.simulator.reauthorize("shop").await;
    let patch = json!({ "data": stage.token_secret(&shop).manifest()["data"] });
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
    stage.proxy.resume().await;
    let told = |status: &Value| is_ready(status) && status["lastError"].is_null();
    stage.wait_status("shop", "Ready, with no error", told, SOON).await;
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 0);
}

/// TikTok had no time for a refresh that was asked for, so it is not handled; a process that starts meanwhile takes it for none
/// that is new.
///
/// Covers: reason/RateLimited, annotation/refresh-requested-at
#[tokio::test]
async fn a_process_that_starts_keeps_to_the_pause_after_too_many_requests() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut operator = stage.operator().start();
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.add_fault(Fault::times(2, Action::too_many_requests(None)).shop("shop")).await;
    stage.request("shop", "now").await;
    let twice = |status: &Value| status["consecutiveFailures"] == 2 && status["lastError"]["reason"] == "RateLimited";
    stage.wait_status("shop", "refused twice", twice, SOON).await;
    operator.sigkill();
    operator.restart();
    // What comes after it in line is refreshed, while the pause after two failures, of 9 s at least, goes on.
    stage.shop("fence", 60).await;
    stage.wait_status("fence", "refreshed", |status| status["lastRefreshTime"].is_string(), SOON).await;
    assert_eq!(stage.simulator.shop("shop").await.counters.presentations, 2, "the pause is not kept");
    // Whoever asks anew is heard.
    stage.request("shop", "at once").await;
    stage.wait_refreshed("shop", "at once", SOON).await;
}

/// An API server that takes requests and answers none, and one that is killed and comes back.
#[tokio::test]
async fn an_api_server_that_hangs_or_dies_in_the_middle_of_a_refresh_loses_nothing() {
    let plane = ControlPlane::start(Options { audit: false, ..Options::default() }).await;
    fixtures::install_crd(&plane, &crd()).await;
    let stage = Stage::on(&plane).await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;

    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation))).await;
    stage.request("shop", "hangs").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    plane.pause();
    stage.simulator.release(held.id).await;
    stage.proxy.wait_for_request(steps::persist(&stage.namespace, "shop"), SOON).await;
    tokio::time::sleep(OUTAGE).await;
    assert_eq!(operator.probe("/livez").await, Some(200));
    plane.resume();
    stage.wait_refreshed("shop", "hangs", Duration::from_secs(30)).await;
    stage.assert_refreshes("shop", 1).await;

    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation))).await;
    stage.request("shop", "dies").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    plane.kill_api_server();
    stage.simulator.release(held.id).await;
    let line = |line: &str| line.contains("PersistFailed");
    operator.process().wait_for_line(line, SOON).await.unwrap_or_else(|error| panic!("nothing is said: {error}"));
    plane.start_api_server().await;
    stage.wait_refreshed("shop", "dies", Duration::from_secs(40)).await;
    stage.assert_refreshes("shop", 2).await;
    stage.request("shop", "later").await;
    stage.wait_refreshed("shop", "later", SOON).await;
    stage.assert_refreshes("shop", 3).await;
}

/// An API server away for a minute while watches start; /readyz.
#[tokio::test]
async fn a_minute_without_the_api_server_delays_the_first_lists_and_no_more() {
    let stage = Stage::new().await;
    let is_discovery = |seen: &Seen| seen.path == "/apis/tiktokshop.dev/v1alpha1";
    let away = stage.proxy.on("away", move |seen| !is_discovery(seen)).cut_before();
    stage.shop("shop", 60).await;
    let operator = stage.operator().start();
    let attempts = stage.proxy.wait_for_requests(2, steps::watch("tiktokshopintegrations"), SOON).await;
    assert!(attempts.iter().all(|seen| seen.status.is_none()), "{attempts:#?}");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(operator.probe("/readyz").await, Some(503), "without its lists it is not ready");
    assert_eq!(operator.probe("/livez").await, Some(200));
    let said = operator.logs().lines().filter(|line| line.contains("a watch failed")).count();
    assert!((1..=3).contains(&said), "an absence of a minute is said in a line or two, not {said}");
    let tries = stage.proxy.count(steps::watch("tiktokshopintegrations"));
    assert!(tries <= 60, "{tries} tries in a minute hammer an API server that comes up");
    away.remove();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.simulator.wait_for_refreshes("shop", 1, SOON).await;
    stage.assert_refreshes("shop", 1).await;
}

// ---- TikTok is away -------------------------------------------------------------------------------

/// TikTok takes a request and answers none, and then nobody listens there, each for longer than a work loop may stand
/// still: killing the pod would mend neither, and one call must not stop the others.
#[tokio::test]
async fn a_tiktok_that_is_away_gets_nobody_killed() {
    /// `/livez` calls a loop stuck that did nothing for a minute.
    const LONGER: Duration = Duration::from_secs(66);
    let hanging = async {
        let stage = Stage::new().await;
        stage.shop("shop", PLENTY).await;
        let operator = stage.operator().flag("request-timeout", "2m").flag("max-concurrent-refreshes", "1").start();
        operator.wait_ready(SOON).await;
        stage.simulator.add_fault(Fault::once(Action::hold(Point::BeforeProcessing))).await;
        stage.request("shop", "now").await;
        let held = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;
        tokio::time::sleep(LONGER).await;
        assert_eq!(operator.probe("/livez").await, Some(200), "a TikTok that hangs is no reason to kill the pod");
        assert_eq!(operator.probe("/readyz").await, Some(200));
        stage.simulator.release(held.id).await;
        stage.wait_refreshed("shop", "now", SOON).await;
        stage.assert_refreshes("shop", 1).await;
    };
    let refusing = async {
        let stage = Stage::new().await;
        stage.shop("shop", PLENTY).await;
        let tiktok = Proxy::start(stage.simulator.base_url(), None);
        let endpoint = stage.simulator.token_endpoint_through(&tiktok);
        let operator = stage.operator().token_endpoint(&endpoint).start();
        operator.wait_ready(SOON).await;
        tiktok.pause().await;
        stage.request("shop", "now").await;
        let failed = |status: &Value| has_condition(status, "Refreshed", "False", "NetworkError");
        stage.wait_status("shop", "NetworkError", failed, SOON).await;
        tokio::time::sleep(LONGER).await;
        assert_eq!(operator.probe("/livez").await, Some(200), "a TikTok that is down is no reason to kill the pod");
        assert_eq!(operator.probe("/readyz").await, Some(200));
        tiktok.resume().await;
        stage.request("shop", "later").await;
        stage.wait_refreshed("shop", "later", SOON).await;
        stage.assert_refreshes("shop", 1).await;
    };
    tokio::join!(hanging, refusing);
}

// ---- Each write fails once ------------------------------------------------------------------------

#[derive(Debug, Clone, Copy)]
enum Failure {
    Conflict,
    RealConflict,
    Internal,
    Busy,
    LostBefore,
    LostAfter,
    HalfAnswer,
    BadGateway,
}

const FAILURES: [Failure; 8] = [
    Failure::Conflict,
    Failure::RealConflict,
    Failure::Internal,
    Failure::Busy,
    Failure::LostBefore,
    Failure::LostAfter,
    Failure::HalfAnswer,
    Failure::BadGateway,
];

/// Has one write of each shop's refresh fail once, in each way, all at the same time.
async fn fails_once(step: &Step) {
    let stage = Stage::new().await;
    let shops: Vec<String> = FAILURES.iter().map(|failure| format!("{failure:?}").to_lowercase()).collect();
    for shop in &shops {
        stage.shop(shop, PLENTY).await;
    }
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    for shop in &shops {
        stage.wait_status(shop, "Ready", is_ready, SOON).await;
    }
    let mut rules = Vec::new();
    let mut holds = Vec::new();
    for (failure, shop) in FAILURES.iter().zip(&shops) {
        let rule = stage.proxy.on(shop, predicate(step, &stage.namespace, shop)).once();
        match failure {
            Failure::Conflict => {
                rules.push(rule.respond_status(409, "Conflict", "the object has been modified"));
            }
            Failure::RealConflict => holds.push((shop.clone(), rule.hold())),
            Failure::Internal => rules.push(rule.respond_status(500, "InternalError", "etcdserver: leader changed")),
            Failure::Busy => rules.push(rule.respond_status(429, "TooManyRequests", "too many requests")),
            Failure::LostBefore => rules.push(rule.cut_before()),
            Failure::LostAfter => rules.push(rule.cut_after()),
            Failure::HalfAnswer => rules.push(rule.cut_mid_answer()),
            Failure::BadGateway => rules.push(rule.respond(502, &[("content-type", "text/html")], "<html>bad</html>")),
        }
    }
    for shop in &shops {
        stage.request(shop, step.0).await;
    }
    for (shop, hold) in &holds {
        hold.wait_held(SOON).await;
        stage.touch_secret(shop, "yes").await;
        hold.release();
    }
    for shop in &shops {
        stage.wait_refreshed(shop, step.0, Duration::from_secs(30)).await;
        stage.assert_refreshes(shop, 1).await;
    }
    assert!(rules.iter().all(|rule| rule.hits() == 1), "each failure was met: {rules:?}");
}

/// 409, 500, 502, 429 and lost replies at the rehearsal.
#[tokio::test]
async fn a_rehearsal_that_fails_in_any_way_is_followed_by_one_refresh() {
    fails_once(&WRITES[0]).await;
}

/// 409, 500, 502, 429 and lost replies at the claim.
#[tokio::test]
async fn a_claim_that_fails_in_any_way_is_followed_by_one_refresh() {
    fails_once(&WRITES[1]).await;
}

/// 409, 500, 502, 429 and lost replies at the persist.
#[tokio::test]
async fn a_persist_that_fails_in_any_way_is_made_good() {
    fails_once(&WRITES[2]).await;
}

/// 409, 500, 502, 429 and lost replies at the status write.
#[tokio::test]
async fn a_status_write_that_fails_in_any_way_is_made_good() {
    fails_once(&WRITES[3]).await;
}

// ---- Two operators --------------------------------------------------------------------------------

/// Two operators that both believe they lead: the claim protects.
///
/// Covers: flag/leader-elect
#[tokio::test]
async fn of_two_operators_that_both_think_they_lead_one_refreshes_each_token() {
    let stage = Stage::new().await;
    let shops: Vec<String> = (1..=8).map(|number| format!("shop-{number}")).collect();
    for shop in &shops {
        stage.shop(shop, PLENTY).await;
    }
    let first = stage.bare_operator().name("first").start();
    let second = stage.operator().name("second").start();
    first.wait_ready(SOON).await;
    second.wait_ready(SOON).await;
    for round in 1..=ROUNDS {
        let request = format!("round {round}");
        for shop in &shops {
            stage.request(shop, &request).await;
        }
        for shop in &shops {
            stage.wait_refreshed(shop, &request, SOON).await;
            stage.assert_refreshes(shop, u64::try_from(round).expect("few")).await;
        }
    }
}

/// Two operators: another's live claim is respected until it is settled.
#[tokio::test]
async fn an_operator_does_not_call_while_another_ones_claim_is_alive() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let first = stage.bare_operator().name("first").flag("request-timeout", "10s").start();
    first.wait_ready(SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation))).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    let proxy = stage.second_proxy();
    let second = stage.operator_through(&proxy).leader_elect(false).name("second").start();
    second.wait_ready(SOON).await;
    // It has looked: the Secret was read, and nothing came of it.
    proxy.wait_for_request(|seen| steps::read(&stage.namespace, "shop")(seen) && seen.delivered, SOON).await;
    proxy.wait_for_request(steps::status(&stage.namespace, "shop"), SOON).await;
    let writes = proxy.requests().into_iter().filter(|seen| {
        steps::claim(&stage.namespace, "shop")(seen) || steps::rehearsal(&stage.namespace, "shop")(seen)
    });
    assert_eq!(writes.map(|seen| seen.to_string()).collect::<Vec<_>>(), Vec::<String>::new());
    stage.simulator.release(held.id).await;
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.assert_refreshes("shop", 1).await;
    // Not only one of both: each can do the next.
    first.sigkill();
    stage.request("shop", "later").await;
    stage.wait_refreshed("shop", "later", SOON).await;
    stage.assert_refreshes("shop", 2).await;
}

/// SIGSTOP for longer than the lease and the claim last: nothing is spent twice.
#[tokio::test]
async fn a_leader_that_stands_still_for_longer_than_its_lease_and_claim_spends_nothing_twice() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let first = stage.operator_through(&stage.proxy).name("first").flag("request-timeout", "1s").start();
    first.wait_ready(SOON).await;
    wait_leads(&first, true, SOON).await;
    let other_way = stage.second_proxy();
    let second = stage.operator_through(&other_way).name("second").flag("request-timeout", "1s").start();
    second.wait_ready(SOON).await;
    // It stops right after its claim was applied, before it knows.
    let hold = stage.proxy.on("claim", steps::claim(&stage.namespace, "shop")).once().hold_after();
    stage.request("shop", "now").await;
    hold.wait_held(SOON).await;
    first.pause();
    hold.release();
    wait_leads(&second, true, LONG).await;
    stage.wait_refreshed("shop", "now", LONG).await;
    let stored = stage.simulator.shop("shop").await;
    first.resume();
    // It wakes up with a claim's reply in hand that is older than any call may be.
    wait_leads(&first, false, SOON).await;
    stage.request("shop", "later").await;
    stage.wait_refreshed("shop", "later", LONG).await;
    let shop = stage.simulator.shop("shop").await;
    assert_ne!(shop.refresh_token(), stored.refresh_token());
    stage.assert_refreshes("shop", 2).await;
}

/// SIGSTOP in the call, for longer than the call may take, with the answer in the socket when it goes on.
///
/// Covers: flag/request-timeout
#[tokio::test]
async fn an_answer_that_came_while_the_process_stood_still_is_not_forgotten() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    for round in 1..=3 {
        stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation))).await;
        let request = format!("request {round}");
        stage.request("shop", &request).await;
        let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
        operator.pause();
        stage.simulator.release(held.id).await;
        stage.simulator.wait_for_delivered("shop", round, SOON).await;
        // Past the deadline of the call, which is what this is about.
        tokio::time::sleep(Duration::from_secs(3)).await;
        operator.resume();
        stage.wait_refreshed("shop", &request, SOON).await;
        stage.assert_refreshes("shop", round).await;
    }
    let events = fixtures::events(&stage.client, &stage.namespace, "shop").await;
    assert!(!events.iter().any(|event| event.reason == "OutcomeUnknown"), "the answer was there: {events:#?}");
}

/// Waits until the operator says that it leads, or that it does not.
pub async fn wait_leads(operator: &Operator, leads: bool, timeout: Duration) {
    let wanted = if leads { 1.0 } else { 0.0 };
    let reached = poll::until(timeout, async || {
        operator.probe("/livez").await?;
        (operator.metrics().await.value("tiktokshop_leader", &[]) == Some(wanted)).then_some(())
    });
    assert!(
        reached.await.is_some(),
        "tiktokshop_leader did not come to {wanted} in {timeout:?}:\n{}",
        operator.process().tail(20)
    );
}

/// Leader election: failover after SIGKILL; standby is ready.
///
/// Covers: flag/leader-elect, `metric/tiktokshop_leader`
#[tokio::test]
async fn a_standby_takes_over_from_a_leader_that_was_killed() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let first = stage.operator_through(&stage.proxy).name("first").start();
    wait_leads(&first, true, SOON).await;
    let other_way = stage.second_proxy();
    let second = stage.operator_through(&other_way).name("second").start();
    second.wait_ready(SOON).await;
    wait_leads(&second, false, SOON).await;
    stage.request("shop", "by the first").await;
    stage.wait_refreshed("shop", "by the first", SOON).await;
    assert_eq!(
        other_way.count(|seen| seen.method == "PATCH"),
        0,
        "a standby writes nothing but its name into a free lease"
    );
    first.sigkill();
    stage.request("shop", "by the second").await;
    // 15 s of the lease, counted from the last renewal seen, and a look every 2 s.
    stage.wait_refreshed("shop", "by the second", Duration::from_secs(25)).await;
    stage.assert_refreshes("shop", 2).await;
}

/// Leader election: the lease is released at SIGTERM, exit code 0.
#[tokio::test]
async fn a_standby_takes_over_at_once_from_a_leader_that_ends() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let first = stage.operator_through(&stage.proxy).name("first").start();
    wait_leads(&first, true, SOON).await;
    let other_way = stage.second_proxy();
    let second = stage.operator_through(&other_way).name("second").start();
    second.wait_ready(SOON).await;
    let holder = |seen: &Seen| steps::lease()(seen) && seen.status == Some(200);
    other_way.wait_for_request(holder, SOON).await;
    assert_eq!(first.sigterm(SOON).await.code(), Some(0));
    wait_leads(&second, true, Duration::from_secs(6)).await;
    stage.request("shop", "now").await;
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.assert_refreshes("shop", 1).await;
}

/// Leader election: SIGTERM at the very moment at which the lease is taken.
#[tokio::test]
async fn a_lease_that_is_just_being_taken_at_sigterm_is_given_back() {
    let stage = Stage::new().await;
    let taking = |seen: &Seen| steps::lease()(seen) && seen.method != "GET";
    let hold = stage.proxy.on("taking the lease", taking).once().hold_after();
    let first = stage.operator_through(&stage.proxy).name("first").start();
    hold.wait_held(SOON).await;
    first.wait_ready(SOON).await;
    assert_eq!(first.sigterm(SOON).await.code(), Some(0), "{}", first.process().tail(20));
    hold.cut();
    let second = stage.operator_through(&stage.proxy).name("second").start();
    wait_leads(&second, true, Duration::from_secs(6)).await;
}

/// A leader whose lease is lost in mid-call finishes what is in flight and starts nothing.
#[tokio::test]
async fn a_leader_that_loses_its_lease_in_the_middle_of_a_call_stores_the_answer() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    stage.shop("other", PLENTY).await;
    let operator = stage
        .operator_through(&stage.proxy)
        .journal_dir(stage.journal.path())
        .flag("lease-name", "contended")
        .flag("request-timeout", "30s")
        .start();
    wait_leads(&operator, true, SOON).await;
    operator.wait_ready(SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop("shop")).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
        Api::namespaced(stage.client.clone(), &stage.namespace);
    let thief = json!({"spec": {"holderIdentity": "thief"}});
    leases.patch("contended", &PatchParams::default(), &Patch::Merge(&thief)).await.expect("an admin may do this");
    wait_leads(&operator, false, SOON).await;
    stage.request("other", "now").await;
    stage.simulator.release(held.id).await;
    let stored = poll::until(SOON, async || {
        let values = fixtures::secret_values(&stage.client, &stage.namespace, "shop").await;
        let shop = stage.simulator.shop("shop").await;
        (values["refresh_token"] == shop.refresh_token()).then_some(())
    });
    assert!(stored.await.is_some(), "the answer of a call in flight is stored by whoever made it");
    stage.assert_current("shop").await;
    stage.assert_refreshes("other", 0).await;
    leases.delete("contended", &kube::api::DeleteParams::default()).await.expect("an admin may do this");
    wait_leads(&operator, true, SOON).await;
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.wait_refreshed("other", "now", SOON).await;
    stage.assert_refreshes("shop", 1).await;
    stage.assert_refreshes("other", 1).await;
}

// ---- The journal ----------------------------------------------------------------------------------

/// Journal replay without calling TikTok; readiness waits for the journal.
#[tokio::test]
async fn an_answer_in_the_journal_is_stored_before_the_next_life_is_ready() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    let persist = steps::persist(&stage.namespace, "shop");
    let hold = stage.proxy.on("persist", persist.clone()).once().hold();
    stage.request("shop", "now").await;
    hold.wait_held(SOON).await;
    operator.sigkill();
    hold.cut();
    // TikTok is out of reach from here on: what is stored comes from the journal.
    stage.simulator.add_fault(Fault::always(Action::http(503))).await;
    let requests = stage.simulator.witness().await.totals.requests;
    let read = stage.proxy.on("read", steps::read(&stage.namespace, "shop")).once().hold();
    operator.restart();
    read.wait_held(SOON).await;
    let lists = |seen: &Seen| seen.is_watch() && seen.answered.is_some();
    stage.proxy.wait_for_requests(2, lists, SOON).await;
    let answer = poll::until(SOON, async || operator.probe("/readyz").await).await;
    assert_eq!(answer, Some(503), "an answer that waits in the journal is to be tried before it is ready");
    read.release();
    operator.wait_ready(SOON).await;
    stage.wait_refreshed("shop", "now", SOON).await;
    assert_eq!(stage.simulator.witness().await.totals.requests, requests, "TikTok was called although it had answered");
    stage.simulator.clear_faults().await;
    stage.assert_refreshes("shop", 1).await;
}

/// A token Secret recreated while an answer waits in the journal.
#[tokio::test]
async fn an_answer_in_the_journal_reaches_a_secret_that_was_created_anew_meanwhile() {
    let stage = Stage::new().await;
    let shop = stage.shop("shop", PLENTY).await;
    let mut operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    let hold = stage.proxy.on("persist", steps::persist(&stage.namespace, "shop")).once().hold();
    stage.request("shop", "now").await;
    hold.wait_held(SOON).await;
    operator.sigkill();
    hold.cut();
    stage.delete_secret("shop").await;
    stage.token_secret(&shop).create(&stage.client).await;
    operator.restart();
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.assert_refreshes("shop", 1).await;
}

/// A journal that cannot be written: TikTok is not called, `PersistFailed`.
#[tokio::test]
async fn a_journal_that_cannot_be_written_is_found_out_before_a_token_is_spent() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let journal = stage.journal.path().join("journal");
    std::fs::create_dir(&journal).expect("a folder can be made");
    let operator = stage.bare_operator().journal_dir(&journal).start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    // Root may write everywhere; nobody can write into a folder that is a file.
    let aside = stage.journal.path().join("aside");
    std::fs::rename(&journal, &aside).expect("it can be renamed");
    std::fs::write(&journal, "not a folder").expect("a file can be made");
    assert_not_called(&stage, "shop").await;
    std::fs::remove_file(&journal).expect("it can be removed");
    std::fs::rename(&aside, &journal).expect("it can be renamed");
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.assert_refreshes("shop", 1).await;
    drop(operator);
}

/// Asks for a refresh and sees that `PersistFailed` is said, no call made and no claim left.
async fn assert_not_called(stage: &Stage<'_>, shop: &str) {
    stage.request(shop, "now").await;
    let failed = |status: &Value| has_condition(status, "Ready", "True", "PersistFailed");
    let status = stage.wait_status(shop, "PersistFailed", failed, SOON).await;
    assert!(has_condition(&status, "Refreshed", "False", "PersistFailed"), "{status:#}");
    assert_ne!(status["lastHandledRefreshRequest"], "now", "the request is still to be done: {status:#}");
    assert_eq!(stage.simulator.witness().await.totals.requests, 0, "TikTok was called though its answer has no place");
    assert_eq!(stage.annotation(shop, steps::CLAIM).await, None, "a claim that led to no call is given back");
    fixtures::wait_for_event(&stage.client, &stage.namespace, shop, "RefreshFailed", SOON).await;
}

/// A journal on a disk that takes no more writes: TikTok is not called, `PersistFailed`; once it takes them, all goes on.
async fn is_found_out_before_a_token_is_spent(break_it: fn(&SmallDisk), mend_it: fn(&SmallDisk)) {
    let Some(disk) = SmallDisk::mount(64) else {
        eprintln!("skipped: only who may mount a file system can fill one, or make it read-only");
        return;
    };
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.bare_operator().journal_dir(disk.path()).start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    break_it(&disk);
    assert_not_called(&stage, "shop").await;
    mend_it(&disk);
    stage.wait_refreshed("shop", "now", SOON).await;
    stage.assert_refreshes("shop", 1).await;
    assert_eq!(operator.sigterm(SOON).await.code(), Some(0));
}

/// Where file systems may be mounted.
#[tokio::test]
async fn a_journal_that_is_full_is_found_out_before_a_token_is_spent() {
    is_found_out_before_a_token_is_spent(SmallDisk::fill, SmallDisk::make_room).await;
}

/// Likewise.
#[tokio::test]
async fn a_journal_that_became_read_only_is_found_out_before_a_token_is_spent() {
    is_found_out_before_a_token_is_spent(SmallDisk::make_read_only, SmallDisk::make_writable).await;
}

// ---- Stopping -------------------------------------------------------------------------------------

/// SIGTERM in mid-call: nothing new starts, what is in flight is stored, exit 0.
#[tokio::test]
async fn sigterm_in_the_middle_of_a_call_stores_the_answer_starts_nothing_and_exits_with_0() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    stage.shop("next", PLENTY).await;
    let operator = stage.operator().flag("request-timeout", "20s").flag("max-concurrent-refreshes", "1").start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    stage.wait_status("next", "Ready", is_ready, SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop("shop")).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    // This one waits in line for the slot.
    stage.request("next", "now").await;
    stage.proxy.wait_for_request(steps::read(&stage.namespace, "next"), SOON).await;
    operator.process().signal(tiktok_shop_testkit::process::Signal::TERM);
    let line = |line: &str| line.contains("stopping");
    operator.process().wait_for_line(line, SOON).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(operator.probe("/livez").await, Some(200), "it lives until all is stored");
    stage.simulator.release(held.id).await;
    let ended = operator.wait_exit(SOON).await;
    assert_eq!(ended.code(), Some(0), "{}", operator.process().tail(20));
    let status = stage.wait_refreshed("shop", "now", SOON).await;
    assert!(!status["nextRefreshTime"].is_null(), "the status it leaves behind is whole: {status:#}");
    stage.assert_refreshes("shop", 1).await;
    stage.assert_refreshes("next", 0).await;
}

/// SIGTERM while an answer cannot be stored: with a journal exit 0 and it is stored later,
/// without one not 0 and a line that says so.
#[tokio::test]
async fn sigterm_with_an_answer_that_cannot_be_stored_says_whether_it_is_safe() {
    let run = async |journal: bool| {
        let stage = Stage::new().await;
        stage.shop("shop", PLENTY).await;
        let builder = if journal { stage.operator() } else { stage.bare_operator() };
        let mut operator = builder.flag("request-timeout", "1s").start();
        operator.wait_ready(SOON).await;
        stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation))).await;
        stage.request("shop", "now").await;
        let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
        stage.proxy.pause().await;
        stage.simulator.release(held.id).await;
        let line = |line: &str| line.contains("PersistFailed");
        operator.process().wait_for_line(line, SOON).await.unwrap_or_else(|error| panic!("{error}"));
        let ended = operator.sigterm(LONG).await;
        let tail = operator.process().tail(20);
        if journal {
            assert_eq!(ended.code(), Some(0), "what the journal holds is not lost:\n{tail}");
            stage.proxy.resume().await;
            operator.restart();
            stage.wait_refreshed("shop", "now", SOON).await;
            stage.assert_refreshes("shop", 1).await;
        } else {
            assert_ne!(ended.code(), Some(0), "an answer was lost:\n{tail}");
            assert!(tail.contains("authorized again"), "nothing says what to do:\n{tail}");
        }
    };
    tokio::join!(run(true), run(false));
}

// ---- Watches --------------------------------------------------------------------------------------

/// Watches that are cut, expire (410, both ways) or end in the middle of an object.
#[tokio::test]
async fn watches_that_break_in_any_way_are_taken_up_again_and_miss_nothing() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    stage.wait_status("shop", "Ready", is_ready, SOON).await;
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410});
    let error_event = format!("{}\n", json!({"type": "ERROR", "object": gone}));
    let json_stream: &[(&str, &str)] = &[("content-type", "application/json")];
    let watch = |seen: &Seen| seen.is_watch();
    let mut refreshes = 0;
    for way in ["cut", "gone", "error event", "half an object", "500", "an html page"] {
        let rule = stage.proxy.on(way, watch).times(2);
        match way {
            // Until it lists anew, however often it asks.
            "gone" => {
                let goes_on = |seen: &Seen| seen.is_watch() && seen.param("sendInitialEvents").is_none();
                drop(stage.proxy.on(way, goes_on).respond_status(410, "Expired", "too old resource version"));
            }
            "error event" => drop(rule.respond(200, json_stream, error_event.clone())),
            "half an object" => drop(rule.respond(200, json_stream, &br#"{"type":"MODIFIED","object":{"meta"#[..])),
            "500" => drop(rule.respond_status(500, "InternalError", "etcdserver: leader changed")),
            "an html page" => drop(rule.respond(200, &[("content-type", "text/html")], "<html></html>\n")),
            _ => drop(rule),
        }
        stage.proxy.cut_watches().await;
        stage.request("shop", way).await;
        stage.wait_refreshed("shop", way, SOON).await;
        refreshes += 1;
        stage.assert_refreshes("shop", refreshes).await;
        stage.proxy.remove_rules();
    }
    // A change that nobody was told of is found by the new list.
    stage.proxy.pause().await;
    let shop = stage.simulator.reauthorize("shop").await;
    let patch = json!({ "data": stage.token_secret(&shop).manifest()["data"] });
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
    stage.proxy.resume().await;
    let expires = chrono_text(shop.access_expires_at());
    let seen = |status: &Value| status["accessTokenExpiresAt"] == *expires;
    stage.wait_status("shop", "the expiry of the new tokens", seen, SOON).await;
    stage.request("shop", "last").await;
    stage.wait_refreshed("shop", "last", SOON).await;
    assert!(operator.process().is_running());
}

/// Whole seconds, UTC, as statuses have them.
fn chrono_text(seconds: i64) -> String {
    let at = k8s_openapi::jiff::Timestamp::from_second(seconds).expect("a time of this age");
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// An object that cannot be read does not stop the watch.
#[tokio::test]
async fn an_object_that_cannot_be_read_harms_nobody_else() {
    let plane = ControlPlane::start(Options { audit: false, ..Options::default() }).await;
    let loose = "\
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tiktokshopintegrations.tiktokshop.dev}
spec:
  group: tiktokshop.dev
  scope: Namespaced
  names: {kind: TikTokShopIntegration, plural: tiktokshopintegrations, singular: tiktokshopintegration}
  versions:
    - name: v1alpha1
      served: true
      storage: true
      subresources: {status: {}}
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
    fixtures::install_crd(&plane, loose).await;
    let stage = Stage::on(&plane).await;
    // One that an older version, or a restored backup, may have left.
    stage.integration("bad").field("tokenSecretRef", 7).create(&stage.client).await;
    stage.shop("odd", PLENTY).await;
    let odd = json!({"status": {"conditions": "none", "hoursUntilExpiry": "many"}});
    let status = fixtures::integrations(&stage.client, &stage.namespace);
    status.patch_status("odd", &PatchParams::default(), &Patch::Merge(&odd)).await.expect("nothing checks it");
    stage.shop("good", PLENTY).await;
    let operator = stage.operator().start();
    operator.wait_ready(SOON).await;
    for (shop, request) in [("good", "1"), ("odd", "1"), ("good", "2")] {
        stage.request(shop, request).await;
        stage.wait_refreshed(shop, request, SOON).await;
    }
    let said = operator.logs();
    assert!(said.lines().any(|line| line.contains("\"bad\"")), "the one that can't be read is named:\n{said}");
    // One that goes bad while it is watched, and one that gets well.
    let api = fixtures::integrations(&stage.client, &stage.namespace);
    let worse = json!({"spec": {"tokenSecretRef": {"name": 7}}});
    api.patch("odd", &PatchParams::default(), &Patch::Merge(&worse)).await.expect("nothing checks it");
    stage.request("good", "3").await;
    stage.wait_refreshed("good", "3", SOON).await;
    let better = json!({"spec": {"tokenSecretRef": {"name": "odd"}}});
    api.patch("odd", &PatchParams::default(), &Patch::Merge(&better)).await.expect("nothing checks it");
    stage.request("odd", "2").await;
    stage.wait_refreshed("odd", "2", SOON).await;
    stage.assert_refreshes("good", 3).await;
    stage.assert_refreshes("odd", 2).await;
}

/// TikTok refuses a token that a person has just replaced, and the API server is away: nobody is asked to authorize anew
/// before the Secret was looked at.
#[tokio::test]
async fn a_refusal_is_not_told_before_it_is_known_what_stands_in_the_secret() {
    let stage = Stage::new().await;
    stage.shop("shop", PLENTY).await;
    let operator = stage.operator().trace().start();
    operator.wait_ready(SOON).await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::BeforeProcessing))).await;
    stage.request("shop", "now").await;
    let held = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;
    let renewed = stage.simulator.reauthorize("shop").await;
    let patch = json!({ "data": stage.token_secret(&renewed).manifest()["data"] });
    fixtures::patch_secret(&stage.client, &stage.namespace, "shop", &patch).await;
    stage.proxy.pause().await;
    stage.simulator.release(held.id).await;
    let looked = poll::until(SOON, async || operator.logs().contains("\"WaitingToReread\"").then_some(()));
    looked.await.expect("the refused token's Secret is read again, in vain");
    stage.proxy.resume().await;
    stage.wait_refreshed("shop", "now", SOON).await;
    let events = poll::until(SOON, async || {
        let events = fixtures::events(&stage.client, &stage.namespace, "shop").await;
        ["TokensReplaced", "Refreshed"]
            .iter()
            .all(|reason| events.iter().any(|event| event.reason == *reason))
            .then_some(events)
    });
    let events = events.await.expect("it is told that a person replaced the tokens");
    let alarm = events.iter().find(|event| event.note.contains("authorize") || event.reason == "RefreshFailed");
    assert!(alarm.is_none(), "asks for what a person has just done: {alarm:#?}");
}
