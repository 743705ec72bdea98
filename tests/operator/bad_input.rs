//! Bad input, tried: specs, Secrets, answers of TikTok, rights and other people's writes that are
//! not as they should be. Every test asks what a user would look at: the status, the events, and
//! whether the Secret still holds the pair that works.
//!
//! A table's rows run all at once, each with an integration, a shop and a Secret of its own, and
//! those that fail are named together.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future::join_all};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiktok_shop_operator::api::Reason;
use tiktok_shop_testkit::{
    control_plane::ControlPlane,
    fixtures::{self, IntegrationFixture, SecretFixture, app_secret, condition, integration},
    leak::LeakScan,
    operator::{self, Operator},
    poll,
    ports::free_port,
    rbac,
    simulator::{
        Action, App, DropPoint, Fault, Lie, NewShop, Point, RetryAfter, RetryAfterStyle, Shop, Simulator, TokenState,
        TruncatedLength,
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::OnceCell,
    task::JoinHandle,
};

/// "Within seconds", on a machine that does much else.
const SOON: Duration = Duration::from_secs(25);

/// For what comes after a pause of up to a minute: rights that were granted, of which no watch tells.
const LATER: Duration = Duration::from_secs(90);

/// A token with so many seconds left is due, and still valid.
const DUE: i64 = 1_800;

/// A token with so many seconds left is not due for a while.
const FRESH: i64 = 3 * 86_400;

/// The Secret with the app's credentials.
const APP: &str = "tiktok-app";

const VALID: [&str; 2] = ["True", "TokenValid"];
const UNTRIED: [&str; 2] = ["Unknown", "NotAttempted"];

/// The reasons for which nothing but a person can help, as the contract lists them.
const STALLS: [&str; 8] = [
    "TokenSecretImmutable",
    "TokenSecretInUse",
    "TokenSecretReverted",
    "RefreshTokenExpired",
    "RefreshTokenRejected",
    "AuthorizationCodeRejected",
    "AppCredentialsRejected",
    "IpNotAllowed",
];

// ---- the stage ----

/// What an operator is started with, where it is not as usual.
#[derive(Default)]
struct Props {
    flags: Vec<(&'static str, String)>,
    envs: Vec<(&'static str, String)>,
    endpoint: Option<String>,
    journal: bool,
}

impl Props {
    /// Calls of TikTok end within this time.
    fn patient_for(mut self, timeout: &str) -> Self {
        self.flags.push(("request-timeout", timeout.to_owned()));
        self
    }

    fn journal(mut self) -> Self {
        self.journal = true;
        self
    }

    fn endpoint(mut self, url: String) -> Self {
        self.endpoint = Some(url);
        self
    }

    fn env(mut self, key: &'static str, value: String) -> Self {
        self.envs.push((key, value));
        self
    }

    async fn start(self) -> Stage {
        Stage::start(self).await
    }
}

/// A namespace, an operator that works in it, and a TikTok Shop of its own.
///
/// An integration, its shop at TikTok and what names its Secret (`NAME-tokens`) share one name.
struct Stage {
    plane: &'static ControlPlane,
    client: Client,
    namespace: String,
    identity: rbac::Identity,
    simulator: Simulator,
    operator: Operator,
    app: App,
    statuses: Statuses,
    _journal: TempDir,
}

impl Stage {
    async fn usual() -> Self {
        Self::start(Props::default()).await
    }

    async fn start(props: Props) -> Self {
        let plane = plane().await;
        let (client, namespace) = (plane.kube_client().await, plane.create_namespace("bad-input").await);
        let places = rbac::Scope::Namespaces(vec![namespace.clone()]);
        let identity = rbac::install(plane, &namespace, &places).await;
        let simulator = Simulator::start(&simulator_binary()).await;
        let app = simulator.create_any_app().await;
        app_secret(&namespace, APP, &app.app_key, &app.app_secret).create(&client).await;
        let statuses = Statuses::watch(client.clone(), &namespace).await;
        let journal = tempfile::tempdir().expect("a temporary folder can be made");
        let endpoint = props.endpoint.unwrap_or_else(|| simulator.token_endpoint());
        let mut builder: operator::Builder = Operator::builder(OPERATOR)
            .kubeconfig(plane.kubeconfig_for(&identity.token, None))
            .token_endpoint(&endpoint)
            .authorization_endpoint(&simulator.authorization_endpoint())
            .namespace(&namespace)
            .leader_elect(false)
            .rust_log("info,tiktok_shop_operator=debug");
        if props.journal {
            builder = builder.journal_dir(journal.path());
        }
        for (name, value) in &props.flags {
            builder = builder.flag(name, value);
        }
        for (key, value) in &props.envs {
            builder = builder.env(key, value);
        }
        let operator = builder.start();
        operator.wait_ready(SOON).await;
        Self { plane, client, namespace, identity, simulator, operator, app, statuses, _journal: journal }
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    // What stands on it.

    /// A shop of the usual app whose access token has so many seconds left.
    async fn shop(&self, name: &str, seconds_left: i64) -> Shop {
        let shop = NewShop::of(&self.app).id(name).access_remaining(seconds_left);
        self.simulator.create_shop(&shop).await
    }

    /// The Secret with a shop's current pair.
    fn secret_of(&self, shop: &Shop) -> SecretFixture {
        SecretFixture::new(&self.namespace, &tokens_of(&shop.id)).tokens(
            shop.access_token(),
            shop.access_expires_at(),
            shop.refresh_token(),
            shop.refresh_expires_at(),
        )
    }

    fn integration(&self, name: &str) -> IntegrationFixture {
        integration(&self.namespace, name, &tokens_of(name), APP)
    }

    async fn integrate(&self, name: &str) {
        self.integration(name).create(&self.client).await;
    }

    /// A shop with its Secret, and an integration of both; its token is due.
    async fn due(&self, name: &str) -> Shop {
        let shop = self.shop(name, DUE).await;
        self.secret_of(&shop).create(&self.client).await;
        self.integrate(name).await;
        shop
    }

    /// The same, of which the next request meets a fault.
    async fn due_under(&self, name: &str, fault: Fault) -> Shop {
        let shop = self.shop(name, DUE).await;
        self.simulator.add_fault(fault.shop(name)).await;
        self.secret_of(&shop).create(&self.client).await;
        self.integrate(name).await;
        shop
    }

    async fn delete_secret(&self, name: &str) {
        let deleted = self.secrets().delete(name, &DeleteParams::default()).await;
        deleted.unwrap_or_else(|error| panic!("failed to delete the Secret {name}: {error}"));
    }

    async fn patch_tokens(&self, name: &str, patch: Value) {
        fixtures::patch_secret(&self.client, &self.namespace, &tokens_of(name), &patch).await;
    }

    /// Puts a shop's current pair into its Secret, as a person would.
    async fn put_pair(&self, shop: &Shop) {
        self.patch_tokens(&shop.id, json!({ "stringData": pair(shop) })).await;
    }

    async fn request(&self, name: &str) {
        fixtures::request_refresh(&self.client, &self.namespace, name, &format!("now, {name}")).await;
    }

    // What is seen of it.

    /// Waits until the last status is as wished for.
    async fn settle(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        self.settle_within(SOON, name, what, is).await
    }

    async fn settle_within(&self, time: Duration, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = poll::until(time, async || self.statuses.last(name).filter(|status| is(status))).await;
        found.unwrap_or_else(|| self.in_vain(time, name, what))
    }

    /// Waits until a status as wished for has been seen, at whatever time.
    async fn pass(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = poll::until(SOON, async || self.statuses.of(name).into_iter().find(|status| is(status))).await;
        found.unwrap_or_else(|| self.in_vain(SOON, name, what))
    }

    fn in_vain(&self, time: Duration, name: &str, what: &str) -> ! {
        let seen: Vec<String> = self.statuses.of(name).iter().map(brief).collect();
        let logs = self.operator.logs();
        let about: Vec<&str> = logs.lines().filter(|line| line.contains(&format!("\"{name}\""))).collect();
        let about = about[about.len().saturating_sub(15)..].join("\n  ");
        panic!("{name} did not come to {what} in {time:?}; its statuses: {seen:#?}; the log about it:\n  {about}")
    }

    /// Waits for Ready and Refreshed (each its status and reason), of the last status.
    async fn stands(&self, name: &str, ready: [&str; 2], refreshed: [&str; 2]) -> Value {
        let what = format!("Ready {ready:?} and Refreshed {refreshed:?}");
        self.settle(name, &what, |status| is(status, "Ready", ready) && is(status, "Refreshed", refreshed)).await
    }

    /// Waits until a failure was shown: Ready's reason, and the reason of Refreshed and lastError.
    async fn failed(&self, name: &str, ready: [&str; 2], reason: &str) -> Value {
        let what = format!("Ready {ready:?} with Refreshed False and lastError for {reason}");
        self.pass(name, &what, |status| shows_failure(status, ready, reason)).await
    }

    /// Waits until the tokens are refreshed and nothing is left of earlier failures.
    async fn refreshed(&self, name: &str) -> Value {
        self.refreshed_within(SOON, name).await
    }

    async fn refreshed_within(&self, time: Duration, name: &str) -> Value {
        let what = "a success without a trace of a failure";
        let status = self.settle_within(time, name, what, |status| {
            is(status, "Ready", VALID)
                && is(status, "Refreshed", ["True", "Refreshed"])
                && status.get("lastError").is_none()
                && status["consecutiveFailures"].as_u64().unwrap_or(0) == 0
        });
        let status = status.await;
        self.assert_pair_kept(name).await;
        status
    }

    async fn event(&self, name: &str, reason: &str) -> fixtures::SeenEvent {
        fixtures::wait_for_event(&self.client, &self.namespace, name, reason, SOON).await
    }

    /// Waits for a warning whose note holds this text.
    async fn warning(&self, name: &str, text: &str) -> fixtures::SeenEvent {
        let mut last = Vec::new();
        let found = poll::until(SOON, async || {
            last = fixtures::events(&self.client, &self.namespace, name).await;
            last.iter().find(|event| event.kind == "Warning" && event.note.contains(text)).cloned()
        });
        let found = found.await;
        found.unwrap_or_else(|| panic!("no warning about {name} speaks of {text:?}; the events: {last:#?}"))
    }

    async fn values(&self, name: &str) -> BTreeMap<String, String> {
        fixtures::secret_values(&self.client, &self.namespace, &tokens_of(name)).await
    }

    /// The Secret holds the pair that works at TikTok, with its expiries.
    async fn assert_pair_kept(&self, name: &str) {
        let shop = self.simulator.shop(name).await;
        let values = self.values(name).await;
        for (key, expected) in pair(&shop) {
            let held = values.get(&key).map_or("nothing", String::as_str);
            assert!(held == expected, "{name}: {key} in the Secret is not the one that works at TikTok");
        }
        assert_eq!(shop.refresh_token_state, TokenState::Current, "{name}: the pair in the Secret does not work");
    }

    async fn presentations(&self, name: &str) -> u64 {
        self.simulator.shop(name).await.counters.presentations
    }

    async fn assert_never_called(&self, name: &str) {
        assert_eq!(self.presentations(name).await, 0, "TikTok was called for {name}");
    }

    // What may be done.

    /// Gives the operator these rights on Secrets, as RBAC rules, and the usual ones on all else.
    async fn grant(&self, secrets: Value) {
        let Value::Array(mut rules) = secrets else { panic!("rules are an array") };
        rules.extend([
            json!({"apiGroups": ["tiktokshop.dev"], "resources": ["tiktokshopintegrations"], "verbs": ["list", "watch"]}),
            json!({"apiGroups": ["tiktokshop.dev"], "resources": ["tiktokshopintegrations/status"], "verbs": ["patch"]}),
            json!({"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}),
        ]);
        let namespace = &self.namespace;
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "limited", "namespace": namespace}, "rules": rules,
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "limited", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "limited"},
            "subjects": [{"kind": "ServiceAccount", "name": self.identity.name, "namespace": self.identity.namespace}],
        });
        self.plane.apply(&role.to_string()).await;
        self.plane.apply(&binding.to_string()).await;
        let usual = format!("{}-{}", rbac::NAME, self.identity.namespace);
        let gone = ["delete", "rolebinding", &usual, "-n", namespace, "--ignore-not-found"];
        self.plane.kubectl_ok(&gone).await;
    }

    /// Waits until the API server goes by what was granted: its authorizer has a cache.
    async fn until_allowed(&self, is: bool, verb: &str, secret: &str) {
        let (user, secret) = (format!("--as={}", self.identity.user()), format!("secrets/{secret}"));
        let asked = ["auth", "can-i", verb, &secret, "-n", &self.namespace, &user];
        let expected = if is { "yes" } else { "no" };
        let settled = poll::until(SOON, async || {
            let answer = self.plane.kubectl(&asked).await;
            (String::from_utf8_lossy(&answer.stdout).trim() == expected).then_some(())
        });
        settled.await.unwrap_or_else(|| panic!("{verb} of {secret} did not come to be allowed: {expected}"));
    }

    /// From now on the data of Secrets with the label `frozen` can't be changed by anybody.
    async fn forbid_thawing(&self) {
        let name = &self.namespace;
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                    "resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["secrets"]},
                    ],
                },
                "validations": [{
                    "expression": "!has(object.metadata.labels) || !('frozen' in object.metadata.labels) \
                                   || object.data == oldObject.data",
                    "message": "what is frozen keeps its data",
                }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"]},
        });
        let probe = SecretFixture::new(name, "probe").value("a", "1").label("frozen", "true");
        probe.create(&self.client).await;
        self.plane.apply(&policy.to_string()).await;
        self.plane.apply(&binding.to_string()).await;
        let (secrets, dry) = (self.secrets(), PatchParams { dry_run: true, ..PatchParams::default() });
        let change = Patch::Merge(json!({"stringData": {"a": "2"}}));
        let in_force = poll::until(SOON, async || secrets.patch("probe", &dry, &change).await.err().map(drop)).await;
        in_force.expect("the admission policy comes into force");
    }

    async fn freeze(&self, name: &str, frozen: bool) {
        let label = if frozen { json!("true") } else { Value::Null };
        self.patch_tokens(name, json!({"metadata": {"labels": {"frozen": label}}})).await;
    }

    /// What is true at the end of every test: no status ever broke the contract's rules, no token was
    /// presented although its successor had been delivered, and no value got out.
    async fn end(self) {
        let broken: Vec<String> =
            self.statuses.all().iter().filter_map(|(name, status)| fault_in(name, status)).collect();
        assert!(broken.is_empty(), "statuses that break the contract: {broken:#?}");
        self.simulator.assert_no_careless_violations().await;
        let strangers = self.simulator.witness().await.strangers;
        assert!(strangers.is_empty(), "values were presented that TikTok never gave out: {strangers:#?}");

        let mut scan = LeakScan::new().secret("the app secret", &self.app.app_secret);
        for shop in self.simulator.shops().await {
            for pair in self.simulator.history(&shop.id).await {
                scan.add(&format!("an access token of {}", shop.id), &pair.access_token);
                scan.add(&format!("a refresh token of {}", shop.id), &pair.refresh_token);
            }
        }
        let statuses = format!("{:?}", self.statuses.all());
        let mut events = Vec::new();
        let names: BTreeSet<String> = self.statuses.all().into_iter().map(|(name, _)| name).collect();
        for name in names {
            events.extend(fixtures::events(&self.client, &self.namespace, &name).await);
        }
        let events = format!("{events:?}");
        assert!(!events.contains("https://github.com"), "an event holds an address: {events}");
        let (logs, metrics) = (self.operator.logs(), self.operator.metrics_text().await);
        scan.assert_clean([
            ("the log", logs.as_str()),
            ("the metrics", metrics.as_str()),
            ("the statuses", statuses.as_str()),
            ("the events", events.as_str()),
        ]);
    }
}

/// Every status that the API server served in a namespace, by name of integration, in order: what
/// stands for a few seconds is not missed.
struct Statuses {
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    task: JoinHandle<()>,
}

impl Statuses {
    async fn watch(client: Client, namespace: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (begun, ready) = tokio::sync::oneshot::channel();
        let mut events = watcher(fixtures::integrations(&client, namespace), watcher::Config::default()).boxed();
        let (sink, mut begun) = (Arc::clone(&seen), Some(begun));
        let task = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                        let name = object.metadata.name.clone().unwrap_or_default();
                        if let Some(status) = object.data.get("status") {
                            sink.lock().unwrap_or_else(PoisonError::into_inner).push((name, status.clone()));
                        }
                    }
                    Ok(watcher::Event::InitDone) => {
                        if let Some(begun) = begun.take() {
                            // Nobody waits any more only where the test has ended.
                            let _ = begun.send(());
                        }
                    }
                    _ => {}
                }
            }
        });
        tokio::time::timeout(SOON, ready).await.expect("the watch begins in time").expect("the watch begins");
        Self { seen, task }
    }

    fn all(&self) -> Vec<(String, Value)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn of(&self, name: &str) -> Vec<Value> {
        self.all().into_iter().filter(|(whose, _)| whose == name).map(|(_, status)| status).collect()
    }

    fn last(&self, name: &str) -> Option<Value> {
        self.of(name).pop()
    }
}

impl Drop for Statuses {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn tokens_of(name: &str) -> String {
    format!("{name}-tokens")
}

/// A shop's current pair, as a token Secret holds it.
fn pair(shop: &Shop) -> HashMap<String, String> {
    HashMap::from([
        ("access_token".to_owned(), shop.access_token().to_owned()),
        ("access_token_expire_in".to_owned(), shop.access_expires_at().to_string()),
        ("refresh_token".to_owned(), shop.refresh_token().to_owned()),
        ("refresh_token_expire_in".to_owned(), shop.refresh_expires_at().to_string()),
    ])
}

fn is(status: &Value, kind: &str, [is, reason]: [&str; 2]) -> bool {
    fixtures::has_condition(status, kind, is, reason)
}

fn message(status: &Value, kind: &str) -> String {
    condition(status, kind).unwrap_or_else(|| panic!("no condition {kind} in {status}")).message
}

fn shows_failure(status: &Value, ready: [&str; 2], reason: &str) -> bool {
    is(status, "Ready", ready) && is(status, "Refreshed", ["False", reason]) && status["lastError"]["reason"] == reason
}

/// One line of a status, for messages.
fn brief(status: &Value) -> String {
    let of = |kind: &str| {
        condition(status, kind).map(|found| format!("{kind}={}/{}: {}", found.status, found.reason, found.message))
    };
    let conditions: Vec<_> = ["Ready", "Refreshed", "Stalled"].iter().filter_map(|kind| of(kind)).collect();
    format!("{} lastError={} next={}", conditions.join("; "), status["lastError"]["reason"], status["nextRefreshTime"])
}

/// What is wrong with a status by the contract's own rules, where something is.
fn fault_in(name: &str, status: &Value) -> Option<String> {
    let ready = condition(status, "Ready")?;
    let refreshed = condition(status, "Refreshed")?;
    let stalled = condition(status, "Stalled");
    let mut faults = Vec::new();
    match &stalled {
        Some(stalled) if !STALLS.contains(&ready.reason.as_str()) => {
            faults.push(format!("Stalled ({}) though a person is not needed", stalled.reason));
        }
        Some(stalled) if stalled.status != "True" || stalled.reason != ready.reason => {
            faults.push(format!("Stalled is {} for {}", stalled.status, stalled.reason));
        }
        None if STALLS.contains(&ready.reason.as_str()) => faults.push("not Stalled".to_owned()),
        _ => {}
    }
    if (refreshed.status == "False") != status.get("lastError").is_some() {
        faults.push(format!("Refreshed is {} with lastError {}", refreshed.status, status["lastError"]));
    }
    for found in [Some(ready.clone()), Some(refreshed), stalled].into_iter().flatten() {
        if found.message.len() > 1_000 || found.message.is_empty() {
            faults.push(format!("a message of {} bytes", found.message.len()));
        }
        if let Ok(reason) = found.reason.parse::<Reason>() {
            let leads_on = found.message.ends_with(&format!(". See {}", reason.docs_url()));
            if leads_on != reason.needs_a_person() || found.message.matches("https://github.com").count() > 1 {
                faults.push(format!("where to read on about {reason} is not said once, and only where it helps"));
            }
        }
    }
    if status["lastError"]["message"].as_str().is_some_and(|message| message.contains("https://github.com")) {
        faults.push("lastError, which is a column, holds an address".to_owned());
    }
    (!faults.is_empty()).then(|| format!("{name}: {} in {}", faults.join(", "), brief(status)))
}

type Row<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs all rows of a table at once, and names all those that fail.
async fn every_row(rows: Vec<(&str, Row<'_>)>) {
    let run = rows.into_iter().map(async |(sentence, row)| (sentence, AssertUnwindSafe(row).catch_unwind().await));
    let failed = join_all(run).await.into_iter().filter_map(|(sentence, result)| {
        let panic = result.err()?;
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Some(format!("- {sentence}:\n  {}", text.unwrap_or_default()))
    });
    let failed: Vec<String> = failed.collect();
    assert!(failed.is_empty(), "{} rows fail:\n{}", failed.len(), failed.join("\n"));
}

/// A name for a row: its sentence, as Kubernetes can have it.
fn named(sentence: &str) -> String {
    let words = sentence.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

const OPERATOR: &str = env!("CARGO_BIN_EXE_tiktok-shop-operator");

fn simulator_binary() -> PathBuf {
    Path::new(OPERATOR).with_file_name("examples").join("tiktok-shop-simulator")
}

/// The control plane that all tests share, with the CRD that this operator prints.
async fn plane() -> &'static ControlPlane {
    static CRD: OnceCell<()> = OnceCell::const_new();
    let plane = ControlPlane::shared().await;
    let install = async || {
        let printed = std::process::Command::new(OPERATOR).arg("crd").output().expect("the operator can be started");
        fixtures::install_crd(plane, &String::from_utf8_lossy(&printed.stdout)).await;
    };
    CRD.get_or_init(install).await;
    plane
}

// ---- specs ----

/// Covers: input/spec-fields-missing-empty-unknown-or-wrong, input/refresh-before
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_spec_that_cannot_work_is_refused_with_words_that_say_what_to_write() {
    let plane = plane().await;
    let namespace = plane.create_namespace("bad-spec").await;
    let of = |spec: Value| {
        json!({
            "apiVersion": fixtures::API_VERSION, "kind": fixtures::KIND,
            "metadata": {"name": "shop", "namespace": namespace}, "spec": spec,
        })
    };
    // The least that is a whole spec, with a change.
    let with = |change: &dyn Fn(&mut Value)| {
        let mut spec = json!({"appCredentialsSecretRef": {"name": "app"}, "tokenSecretRef": {"name": "tokens"}});
        change(&mut spec);
        of(spec)
    };
    let set = |path: &[&str], value: Value| {
        with(&|spec| {
            let field = path.iter().fold(&mut *spec, |field, name| &mut field[*name]);
            *field = value.clone();
        })
    };
    let refresh_before = |value: &str| set(&["refreshBefore"], value.into());
    let must_be_a_duration = "refreshBefore must be a duration from 5m to 144h, such as 24h or 90m";
    let mut without_spec = of(Value::Null);
    without_spec.as_object_mut().expect("an object").remove("spec");
    let app_keys = |keys: Value| {
        with(&|spec| {
            spec["appCredentialsSecretRef"] = json!({"name": "tokens"});
            spec["tokenSecretRef"]["keys"] = keys.clone();
        })
    };
    let rows: Vec<(&str, Value, &str)> = vec![
        ("no spec", without_spec, "spec: Required"),
        ("an empty spec", of(json!({})), "spec.tokenSecretRef: Required"),
        ("no token Secret", of(json!({"appCredentialsSecretRef": {"name": "app"}})), "spec.tokenSecretRef: Required"),
        ("no app Secret", of(json!({"tokenSecretRef": {"name": "a"}})), "spec.appCredentialsSecretRef: Required"),
        ("a token Secret without a name", set(&["tokenSecretRef"], json!({})), "spec.tokenSecretRef.name: Required"),
        ("an empty name", set(&["tokenSecretRef", "name"], json!("")), "spec.tokenSecretRef.name: Invalid value"),
        (
            "a name that no Secret can have",
            set(&["tokenSecretRef", "name"], json!("My_Tokens")),
            "name must be the name of a Secret in the integration's namespace",
        ),
        (
            "a service id with a space",
            set(&["authorization"], json!({"serviceId": "7 8"})),
            "serviceId must be the app's service id as TikTok Shop Partner Center shows it",
        ),
        ("an unknown field", set(&["refreshbefore"], json!("24h")), "unknown field \"spec.refreshbefore\""),
        (
            "an unknown key",
            set(&["tokenSecretRef", "keys"], json!({"accesstoken": "a"})),
            "unknown field \"spec.tokenSecretRef.keys.accesstoken\"",
        ),
        (
            "another namespace",
            set(&["tokenSecretRef", "namespace"], json!("other")),
            "unknown field \"spec.tokenSecretRef.namespace\"",
        ),
        ("a number as team", set(&["teamId"], json!(1)), "spec.teamId: Invalid value"),
        ("an empty team", set(&["teamId"], json!("")), "teamId must be printable text"),
        ("a team with a line end", set(&["teamId"], json!("1\n")), "teamId must be printable text"),
        ("suspend as text", set(&["suspend"], json!("yes")), "spec.suspend: Invalid value"),
        ("a text as a reference", set(&["tokenSecretRef"], json!("tokens")), "spec.tokenSecretRef: Invalid value"),
        ("refreshBefore of 1m", refresh_before("1m"), must_be_a_duration),
        ("refreshBefore of 200h", refresh_before("200h"), must_be_a_duration),
        ("refreshBefore of abc", refresh_before("abc"), must_be_a_duration),
        ("an empty refreshBefore", refresh_before(""), must_be_a_duration),
        ("a negative refreshBefore", refresh_before("-24h"), must_be_a_duration),
        ("refreshBefore without a unit", refresh_before("24"), must_be_a_duration),
        ("refreshBefore in days", refresh_before("1d"), must_be_a_duration),
        ("a share of nothing", refresh_before("0%"), must_be_a_duration),
        ("a share of all", refresh_before("100%"), must_be_a_duration),
        ("a share without a number", refresh_before("%"), must_be_a_duration),
        ("an absurd refreshBefore", refresh_before("99999999999999999999h"), must_be_a_duration),
        ("a number as refreshBefore", set(&["refreshBefore"], json!(24)), "spec.refreshBefore: Invalid value"),
        ("an endless refreshBefore", refresh_before(&"1".repeat(4_000)), "spec.refreshBefore: Too long"),
        (
            "an empty key",
            set(&["tokenSecretRef", "keys"], json!({"accessToken": ""})),
            "spec.tokenSecretRef.keys.accessToken",
        ),
        (
            "a key that no Secret can have",
            set(&["tokenSecretRef", "keys"], json!({"accessToken": "a/b"})),
            "it must be a key of a Secret: letters, digits",
        ),
        (
            "one key for both tokens",
            set(&["tokenSecretRef", "keys"], json!({"accessToken": "a", "refreshToken": "a"})),
            "refreshToken must be another key than accessToken",
        ),
        (
            "one key for app key and app secret",
            set(&["appCredentialsSecretRef", "keys"], json!({"appKey": "a", "appSecret": "a"})),
            "appSecret must be another key than appKey",
        ),
        (
            "a token's key that is the app's, in one Secret",
            app_keys(json!({"accessToken": "app_secret"})),
            "a refresh would overwrite the app's credentials",
        ),
    ];
    let create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
    let rows = rows.into_iter().map(|(sentence, manifest, needle)| {
        let row = async move {
            let answer = plane.kubectl_with(&create, Some(&manifest.to_string())).await;
            let said = String::from_utf8_lossy(&answer.stderr).into_owned();
            assert!(!answer.status.success(), "it is let in");
            assert!(said.contains(needle), "it is refused without saying {needle:?}: {said}");
        };
        (sentence, Box::pin(row) as Row)
    });
    let mut rows: Vec<_> = rows.collect();
    // Some at a time: each is a kubectl.
    while !rows.is_empty() {
        every_row(rows.split_off(rows.len().saturating_sub(6))).await;
    }
    let whole = with(&|_| ());
    // As Go writes durations.
    let windows =
        ["5m", "144h", "1h30m", "1.5h", ".5h", "1.h", "300000ms", "300000000us", "300000000µs", "300000000000ns"];
    let shares = ["1%", "90%"];
    for manifest in windows.into_iter().chain(shares).map(refresh_before).chain([whole]) {
        plane.kubectl_ok_with(&create, Some(&manifest.to_string())).await;
    }
}

// ---- Secrets ----

/// Covers: reason/TokenSecretNotFound, reason/TokensMissing, reason/TokenSecretImmutable, reason/NotAttempted,
/// condition/Stalled, input/secret-missing, input/secret-immutable, input/secret-without-a-key,
/// input/secret-not-utf-8
#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn a_token_secret_without_usable_tokens_is_named_left_alone_and_taken_up_once_it_is_mended() {
    type Made = Option<Box<dyn Fn(SecretFixture) -> SecretFixture>>;
    let stage = Stage::usual().await;
    let made = |make: fn(SecretFixture) -> SecretFixture| -> Made { Some(Box::new(make)) };
    let rows: Vec<(&str, &str, Made, [&str; 2], &str)> = vec![
        ("there is none", "none", None, ["False", "TokenSecretNotFound"], "create it with the tokens"),
        (
            "it is immutable",
            "immutable",
            made(SecretFixture::immutable),
            ["True", "TokenSecretImmutable"],
            "create it anew",
        ),
        (
            "it is empty",
            "empty",
            made(|it| {
                it.without("access_token")
                    .without("refresh_token")
                    .without("access_token_expire_in")
                    .without("refresh_token_expire_in")
            }),
            ["False", "TokensMissing"],
            "access_token is missing, refresh_token is missing",
        ),
        (
            "it lacks the access token",
            "no-access",
            made(|it| it.without("access_token")),
            ["False", "TokensMissing"],
            "access_token is missing",
        ),
        (
            "it lacks the refresh token",
            "no-refresh",
            made(|it| it.without("refresh_token")),
            ["True", "TokensMissing"],
            "refresh_token is missing",
        ),
        (
            "a token is empty",
            "blank",
            made(|it| it.value("access_token", "")),
            ["False", "TokensMissing"],
            "access_token is empty",
        ),
        (
            "a token is white space",
            "white",
            made(|it| it.value("refresh_token", " \n")),
            ["True", "TokensMissing"],
            "refresh_token is empty",
        ),
        (
            "the access token is not UTF-8",
            "bytes",
            made(|it| it.value("access_token", [0xff, 0xfe, 0x00])),
            ["False", "TokensMissing"],
            "access_token is not UTF-8",
        ),
        (
            "the refresh token is not UTF-8",
            "bytes-too",
            made(|it| it.value("refresh_token", [0xc3, 0x28])),
            ["True", "TokensMissing"],
            "refresh_token is not UTF-8",
        ),
        (
            "all of it is under other keys",
            "renamed",
            made(|it| it.without("access_token").without("refresh_token").value("token", "abc")),
            ["False", "TokensMissing"],
            "spec.tokenSecretRef.keys",
        ),
    ];
    let rows = rows.into_iter().map(|(sentence, name, made, ready, needle)| {
        let stage = &stage;
        let row = async move {
            let shop = stage.shop(name, DUE).await;
            let exists = made.is_some();
            if let Some(make) = made {
                make(stage.secret_of(&shop)).create(&stage.client).await;
            }
            stage.integrate(name).await;
            let status = stage.stands(name, ready, UNTRIED).await;
            let said = message(&status, "Ready");
            assert!(said.contains(needle) && said.contains(&tokens_of(name)), "the message helps nobody: {said}");
            assert!(status.get("lastError").is_none(), "nothing was tried: {status}");
            stage.assert_never_called(name).await;
            if exists {
                let secret = fixtures::secret(&stage.client, &stage.namespace, &tokens_of(name)).await;
                let annotations = secret.expect("it stands").metadata.annotations.unwrap_or_default();
                assert!(annotations.keys().all(|key| !key.starts_with("tiktokshop.dev/")), "it was written to");
            }
            // Mended.
            if name == "immutable" {
                stage.delete_secret(&tokens_of(name)).await;
            }
            stage.secret_of(&shop).apply(&stage.client).await;
            stage.refreshed(name).await;
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

/// Covers: input/expiry-zero-negative-text-13-digits-or-2123, reason/Suspended, status/accessTokenExpiresAt
#[tokio::test]
async fn an_expiry_that_cannot_be_read_counts_as_unknown_with_a_warning() {
    let stage = Stage::usual().await;
    let access = "access_token_expire_in";
    let now = chrono::Utc::now().timestamp();
    let (in_days, in_2123) = (now + FRESH, 4_828_118_400_i64);
    // What stands in the Secret, and what it is taken for.
    let rows: Vec<(&str, Option<String>, Option<i64>)> = vec![
        ("zero", Some("0".into()), None),
        ("negative", Some("-1".into()), None),
        ("a text", Some("next week".into()), None),
        ("empty", Some(String::new()), None),
        ("a fraction", Some("1.7e9".into()), None),
        ("a duration", Some("604800".into()), None),
        ("beyond 64 bits", Some("9".repeat(30)), None),
        ("not there", None, None),
        ("13 digits, which are milliseconds", Some(format!("{in_days}123")), Some(in_days)),
        ("in the year 2123", Some(in_2123.to_string()), Some(in_2123)),
        ("with a line end behind it", Some(format!(" {in_days}\n")), Some(in_days)),
    ];
    let rows = rows.into_iter().map(|(sentence, value, taken_for)| {
        let (stage, name) = (&stage, named(sentence));
        let row = async move {
            let name = name.as_str();
            let shop = stage.shop(name, FRESH).await;
            let secret = stage.secret_of(&shop);
            let secret = match &value {
                Some(value) => secret.value(access, value.as_str()),
                None => secret.without(access),
            };
            secret.create(&stage.client).await;
            stage.integration(name).suspend(true).create(&stage.client).await;
            let Some(expires_at) = taken_for else {
                let status = stage.stands(name, ["Unknown", "Suspended"], UNTRIED).await;
                assert!(status.get("accessTokenExpiresAt").is_none(), "{status}");
                assert!(status.get("hoursUntilExpiry").is_none(), "{status}");
                if value.is_some() {
                    stage.warning(name, access).await;
                }
                stage.assert_never_called(name).await;
                // Awake, it is refreshed: then its expiry is known.
                fixtures::patch_integration(
                    &stage.client,
                    &stage.namespace,
                    name,
                    &json!({"spec": {"suspend": false}}),
                )
                .await;
                let status = stage.refreshed(name).await;
                assert_eq!(
                    status["accessTokenExpiresAt"],
                    rfc3339(stage.simulator.shop(name).await.access_expires_at())
                );
                return;
            };
            stage.stands(name, ["True", "Suspended"], UNTRIED).await;
            fixtures::patch_integration(&stage.client, &stage.namespace, name, &json!({"spec": {"suspend": false}}))
                .await;
            let status = stage.stands(name, VALID, UNTRIED).await;
            assert_eq!(status["accessTokenExpiresAt"], rfc3339(expires_at));
            assert!(status["hoursUntilExpiry"].as_i64().is_some_and(|hours| hours >= 71), "{status}");
            assert!(status.get("nextRefreshTime").is_some(), "{status}");
            stage.assert_never_called(name).await;
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

/// Covers: input/expiry-zero-negative-text-13-digits-or-2123, status/refreshTokenExpiresAt
#[tokio::test]
async fn a_refresh_tokens_expiry_that_cannot_be_read_does_not_stop_its_use() {
    let stage = Stage::usual().await;
    let key = "refresh_token_expire_in";
    let rows: Vec<(&str, &str, Value)> = vec![
        ("zero", "0", Value::Null),
        ("negative", "-1", Value::Null),
        ("a text", "never", Value::Null),
        ("in the year 2123", "4828118400", json!(rfc3339(4_828_118_400))),
    ];
    let rows = rows.into_iter().map(|(sentence, value, shown)| {
        let (stage, name) = (&stage, named(sentence));
        let row = async move {
            let name = name.as_str();
            let shop = stage.shop(name, FRESH).await;
            stage.secret_of(&shop).value(key, value).create(&stage.client).await;
            stage.integrate(name).await;
            let status = stage.stands(name, VALID, UNTRIED).await;
            assert_eq!(status["refreshTokenExpiresAt"], shown, "{status}");
            if shown.is_null() {
                stage.warning(name, key).await;
            }
            stage.request(name).await;
            stage.refreshed(name).await;
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

/// Covers: input/expiry-zero-negative-text-13-digits-or-2123, reason/RefreshFailing, condition/Ready
#[tokio::test]
async fn readiness_is_unknown_while_a_token_of_unknown_expiry_cannot_be_refreshed() {
    let stage = Stage::usual().await;
    let shop = stage.shop("shop", FRESH).await;
    let fault = stage.simulator.add_fault(Fault::always(Action::code(77)).shop("shop")).await;
    stage.secret_of(&shop).value("access_token_expire_in", "soon").create(&stage.client).await;
    stage.integrate("shop").await;
    stage.failed("shop", ["Unknown", "RefreshFailing"], "ApiError").await;
    stage.simulator.clear_fault(fault).await;
    stage.refreshed("shop").await;
    stage.end().await;
}

/// Covers: input/trailing-newline
#[tokio::test]
async fn tokens_and_credentials_with_a_line_end_behind_them_are_used_without_it() {
    let stage = Stage::usual().await;
    let line = |text: &str| format!("{text}\n");
    fixtures::patch_secret(
        &stage.client,
        &stage.namespace,
        APP,
        &json!({"stringData": {"app_key": line(&stage.app.app_key), "app_secret": line(&stage.app.app_secret)}}),
    )
    .await;
    let shop = stage.shop("shop", DUE).await;
    let secret = stage.secret_of(&shop).value("refresh_token", line(shop.refresh_token()));
    secret.value("access_token", format!(" {}\r\n", shop.access_token())).create(&stage.client).await;
    stage.integrate("shop").await;
    stage.refreshed("shop").await;
    assert_eq!(stage.presentations("shop").await, 1);
    stage.end().await;
}

/// Covers: input/two-integrations-one-secret, reason/TokenSecretInUse, event/TokenSecretInUse, condition/Stalled
#[tokio::test]
async fn of_two_integrations_on_one_secret_the_older_keeps_it_and_the_younger_takes_over_after_it() {
    let stage = Stage::usual().await;
    let shop = stage.shop("older", FRESH).await;
    stage.secret_of(&shop).create(&stage.client).await;
    let older = stage.integration("older").create(&stage.client).await;
    stage.stands("older", VALID, UNTRIED).await;
    let born = |object: &Value| object["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    // Age is told in whole seconds: another one must have begun.
    let begun = chrono::DateTime::parse_from_rfc3339(&born(&older)).expect("a time").timestamp();
    let next = poll::until(SOON, async || (chrono::Utc::now().timestamp() > begun).then_some(())).await;
    next.expect("time goes on");
    integration(&stage.namespace, "younger", &tokens_of("older"), APP).create(&stage.client).await;

    let status = stage.stands("younger", ["True", "TokenSecretInUse"], UNTRIED).await;
    let said = message(&status, "Ready");
    assert!(said.contains("older"), "it does not say who uses it: {said}");
    assert!(is(&status, "Stalled", ["True", "TokenSecretInUse"]), "{status}");
    let event = stage.event("younger", "TokenSecretInUse").await;
    assert_eq!(event.kind, "Warning");

    stage.request("younger").await;
    stage.request("older").await;
    stage.refreshed("older").await;
    assert_eq!(stage.presentations("older").await, 1, "the younger refreshed, too");
    stage.stands("younger", ["True", "TokenSecretInUse"], UNTRIED).await;

    let api = fixtures::integrations(&stage.client, &stage.namespace);
    api.delete("older", &DeleteParams::default()).await.expect("it can be deleted");
    // Its request was never handled, so that it is made now.
    let taken = stage.settle("younger", "a refresh of its own", |status| {
        is(status, "Ready", VALID) && is(status, "Refreshed", ["True", "Refreshed"])
    });
    let taken = taken.await;
    assert!(condition(&taken, "Stalled").is_none(), "{taken}");
    stage.assert_pair_kept("older").await;
    assert_eq!(stage.presentations("older").await, 2);
    stage.end().await;
}

/// Covers: input/secret-recreated-during-a-call
#[tokio::test]
async fn a_secret_recreated_during_the_call_gets_the_new_pair_unless_a_person_put_another_there() {
    let stage = Stage::usual().await;
    let rows: Vec<(&str, &str)> = vec![
        ("with the spent pair", "spent"),
        ("empty", "empty"),
        ("with the spent refresh token alone", "half"),
        ("with a new pair of a new authorization", "another"),
    ];
    let rows = rows.into_iter().map(|(sentence, name)| {
        let stage = &stage;
        let row = async move {
            let shop = stage.due_under(name, Fault::once(Action::hold(Point::AfterRotation))).await;
            let held = stage.simulator.wait_for_held(name, Point::AfterRotation, SOON).await;
            stage.delete_secret(&tokens_of(name)).await;
            let put = match name {
                "empty" => SecretFixture::new(&stage.namespace, &tokens_of(name)),
                "half" => stage.secret_of(&shop).without("access_token").without("access_token_expire_in"),
                "another" => stage.secret_of(&stage.simulator.reauthorize(name).await),
                _ => stage.secret_of(&shop),
            };
            put.create(&stage.client).await;
            stage.simulator.release(held.id).await;
            if name == "another" {
                stage.warning(name, "theirs stay").await;
                stage.settle(name, "a valid token", |status| is(status, "Ready", VALID)).await;
                stage.assert_pair_kept(name).await;
            } else {
                stage.refreshed(name).await;
            }
            assert_eq!(stage.presentations(name).await, 1);
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

// ---- answers that are none ----

/// Covers: input/endpoint-html, input/endpoint-half-an-answer, input/endpoint-redirect, input/endpoint-silent,
/// input/endpoint-success-without-tokens, reason/OutcomeUnknown, reason/InvalidResponse, reason/Timeout,
/// reason/NetworkError, reason/RefreshTokenRejected, event/OutcomeUnknown, event/RefreshRecovered,
/// event/ReauthorizationRequired, flag/request-timeout
#[tokio::test]
async fn an_answer_that_tells_nothing_is_an_unknown_outcome_that_one_more_try_settles() {
    let stage = Props::default().patient_for("3s").start().await;
    let elsewhere = format!("{}/elsewhere", stage.simulator.base_url());
    let (invalid, network) = ("InvalidResponse", "NetworkError");
    let (before, after) = (DropPoint::BeforeProcessing, DropPoint::AfterRotation);
    let half = |content_length| Action::Truncated { content_length };
    let reset = |point| Action::Drop { point, reset: true };
    let unspent = |kind| Action::Lie { kind, rotate: Some(false) };
    // What is answered once, what is said of it, and whether TikTok has spent the token behind it.
    let rows: Vec<(&str, Action, &str, bool)> = vec![
        ("a web page", Action::html(200), invalid, false),
        ("a web page after the refresh", Action::html(200).after_rotating(), invalid, true),
        ("a gateway's page", Action::html(502), "ApiError", false),
        ("an empty body", Action::raw(200, ""), invalid, false),
        ("JSON that is no envelope", Action::raw(200, "[]"), invalid, false),
        ("half an answer", half(TruncatedLength::Sent), invalid, true),
        ("half an answer, and the connection closes", half(TruncatedLength::Whole), network, true),
        ("half an answer on the way", Action::drop(DropPoint::HalfAnswer), network, true),
        ("a redirect", Action::redirect(302, &elsewhere), invalid, false),
        ("a redirect that keeps the method", Action::redirect(307, &elsewhere), invalid, false),
        ("a redirect after the refresh", Action::redirect(303, &elsewhere).after_rotating(), invalid, true),
        ("silence", Action::hang(Point::BeforeProcessing), "Timeout", false),
        ("silence after the refresh", Action::hang(Point::AfterRotation), "Timeout", true),
        ("a closed connection", Action::drop(before), network, false),
        ("a closed connection after the refresh", Action::drop(after), network, true),
        ("a reset", reset(before), network, false),
        ("a reset after the refresh", reset(after), network, true),
        ("success without tokens", unspent(Lie::MissingTokens), invalid, false),
        ("success without tokens after the refresh", Action::lie(Lie::MissingTokens), invalid, true),
        ("success with empty tokens", unspent(Lie::EmptyTokens), invalid, false),
        ("success with empty tokens after the refresh", Action::lie(Lie::EmptyTokens), invalid, true),
        ("success with null tokens", unspent(Lie::NullTokens), invalid, false),
        ("success with numbers as tokens", unspent(Lie::NumberTokens), invalid, false),
        ("success without an access token", unspent(Lie::MissingAccessToken), invalid, false),
        ("success with null data", unspent(Lie::NullData), invalid, false),
        ("success without data", unspent(Lie::MissingData), invalid, false),
        ("success with empty data", unspent(Lie::EmptyData), invalid, false),
    ];
    let rows = rows.into_iter().map(|(sentence, action, reason, spent)| {
        let (stage, name) = (&stage, named(sentence));
        let row = async move {
            let name = name.as_str();
            let shop = stage.due_under(name, Fault::once(action)).await;
            let status = stage.failed(name, ["True", "OutcomeUnknown"], reason).await;
            let said = message(&status, "Ready");
            assert!(said.contains("tried once more"), "it does not say what comes next: {said}");
            assert!(status.get("nextRefreshTime").is_some(), "{status}");
            stage.event(name, "OutcomeUnknown").await;
            if !spent {
                stage.refreshed(name).await;
                stage.event(name, "RefreshRecovered").await;
                assert_eq!(stage.presentations(name).await, 2, "it is tried once more, and once only");
                return;
            }
            let status = stage.stands(name, ["True", "RefreshTokenRejected"], ["False", "RefreshTokenRejected"]).await;
            assert_eq!(status["lastError"]["code"], 36_004_005, "{status}");
            stage.event(name, "ReauthorizationRequired").await;
            assert_eq!(stage.presentations(name).await, 2, "it is tried once more, and once only");
            let values = stage.values(name).await;
            assert_eq!(values["refresh_token"], shop.refresh_token(), "what a person may still need is gone");
            // The seller authorizes anew, and a person puts that pair there.
            stage.put_pair(&stage.simulator.reauthorize(name).await).await;
            let status = stage.settle(name, "a valid token without an error", |status| {
                is(status, "Ready", VALID) && status.get("lastError").is_none()
            });
            status.await;
            stage.assert_pair_kept(name).await;
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    let requests = stage.simulator.requests(0).await;
    assert!(requests.iter().all(|request| request.path != "/elsewhere"), "a redirect was followed");
    stage.end().await;
}

/// Covers: input/endpoint-odd-fields
#[tokio::test]
async fn odd_fields_beside_the_tokens_never_cost_the_tokens() {
    let stage = Stage::usual().await;
    let rows: Vec<(&str, Lie)> = vec![
        ("blanks around the tokens", Lie::PaddedTokens),
        ("null in all else", Lie::NullFields),
        ("nothing else", Lie::MissingFields),
        ("fields that nobody knows", Lie::ExtraFields),
        ("expiries in milliseconds", Lie::ExpiryMilliseconds),
        ("expiries as durations", Lie::ExpiryDuration),
        ("negative expiries", Lie::ExpiryNegative),
        ("expiries of zero", Lie::ExpiryZero),
        ("expiries as text", Lie::ExpiryString),
        ("expiries that are no numbers", Lie::ExpiryJunk),
        ("expiries with fractions", Lie::ExpiryFraction),
        ("expiries beyond 64 bits", Lie::ExpiryHuge),
        ("expiries that are null", Lie::ExpiryNull),
        ("no expiries", Lie::ExpiryMissing),
        ("expiries in the past", Lie::ExpiryPast),
    ];
    let rows = rows.into_iter().map(|(sentence, lie)| {
        let (stage, name) = (&stage, named(sentence));
        let row = async move {
            let name = name.as_str();
            stage.due_under(name, Fault::once(Action::lie(lie))).await;
            let status = stage.settle(name, "a success", |status| is(status, "Refreshed", ["True", "Refreshed"])).await;
            let (shop, values) = (stage.simulator.shop(name).await, stage.values(name).await);
            assert_eq!(values["access_token"], shop.access_token());
            assert_eq!(values["refresh_token"], shop.refresh_token());
            let ready = condition(&status, "Ready").expect("Ready is always there");
            let expected = match lie {
                Lie::NullFields
                | Lie::MissingFields
                | Lie::ExpiryNegative
                | Lie::ExpiryZero
                | Lie::ExpiryJunk
                | Lie::ExpiryNull
                | Lie::ExpiryMissing => &["Unknown"][..],
                Lie::ExpiryPast => &["False", "Unknown"][..],
                // Whether what is no whole number is taken for a time is not said.
                Lie::ExpiryFraction | Lie::ExpiryHuge => &["True", "Unknown"][..],
                _ => &["True"][..],
            };
            assert!(expected.contains(&ready.status.as_str()), "Ready is {ready:?}, not {expected:?}");
            assert_eq!(shop.counters.presentations, 1, "it is not refreshed again and again");
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

/// Covers: input/endpoint-200-mebibytes
#[tokio::test]
async fn an_answer_of_200_mebibytes_is_not_read_into_memory() {
    const MOST: u64 = 24 << 20;
    let stage = Stage::usual().await;
    stage.due("before").await;
    stage.refreshed("before").await;
    let before = stage.operator.process().peak_rss_bytes().expect("the operator runs");
    for (name, content_length) in [("chunked", false), ("announced", true)] {
        let flood = Action::Flood { mebibytes: 200, content_length };
        stage.due_under(name, Fault::once(flood)).await;
        stage.failed(name, ["True", "OutcomeUnknown"], "InvalidResponse").await;
        // The answer held the only copy of the new pair: it is said that it is lost.
        stage.stands(name, ["True", "RefreshTokenRejected"], ["False", "RefreshTokenRejected"]).await;
    }
    let grown = stage.operator.process().peak_rss_bytes().expect("the operator runs").saturating_sub(before);
    assert!(grown < MOST, "the operator grew by {grown} bytes");
    stage.end().await;
}

/// Covers: input/endpoint-refuses-connections, reason/NetworkError, reason/RefreshFailing, event/RefreshFailed
#[tokio::test]
async fn an_endpoint_that_refuses_connections_leaves_the_token_known_unspent() {
    let port = free_port();
    let stage = Props::default().endpoint(format!("http://127.0.0.1:{port}/api/v2/token/refresh")).start().await;
    let shop = stage.due("shop").await;
    let status = stage.failed("shop", ["True", "RefreshFailing"], "NetworkError").await;
    assert!(message(&status, "Ready").contains("no connection to"), "{status}");
    stage.event("shop", "RefreshFailed").await;
    let secret = stage.secrets().get(&tokens_of("shop")).await.expect("it stands");
    let annotations = secret.metadata.annotations.unwrap_or_default();
    assert!(!annotations.contains_key("tiktokshop.dev/refresh-attempt"), "a claim is left: {annotations:?}");
    assert_eq!(stage.values("shop").await["refresh_token"], shop.refresh_token());

    // The endpoint comes back.
    let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is still free");
    let simulator = stage.simulator.address();
    let forward = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut to) = TcpStream::connect(simulator).await {
                    // A connection that breaks is the client's to see.
                    let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
                }
            });
        }
    });
    stage.refreshed("shop").await;
    assert_eq!(stage.presentations("shop").await, 1);
    let unknown = |status: &Value| is(status, "Ready", ["True", "OutcomeUnknown"]);
    assert!(!stage.statuses.of("shop").iter().any(unknown), "an unknown outcome was told");
    forward.abort();
    stage.end().await;
}

// ---- errors of TikTok ----

/// Covers: input/every-error-code, reason/RefreshTokenRejected, reason/AppCredentialsRejected, reason/IpNotAllowed,
/// reason/ApiError, reason/OutcomeUnknown, reason/RefreshFailing, condition/Stalled, status/lastError.code,
/// status/lastError.requestId, status/lastError.reason, event/RefreshFailed, event/ReauthorizationRequired
#[tokio::test]
async fn every_error_of_tiktok_is_shown_by_what_is_to_be_done_about_it() {
    let stage = Stage::usual().await;
    let internal =
        |code, http_status| Action::Error { code, message: None, http_status, retry_after: None, rotate: false };
    let (rejected, address) = ("RefreshTokenRejected", "IpNotAllowed");
    let (credentials, unknown, failing) = ("AppCredentialsRejected", "OutcomeUnknown", "RefreshFailing");
    let (timestamp, again) = ("Invalid parameter: timestamp", "tried once more");
    // What TikTok answers, Ready's reason, and that of Refreshed and lastError, what is said.
    let rows: Vec<(&str, Action, &str, &str, &str)> = vec![
        ("an invalid auth code", Action::code(36_004_004), rejected, rejected, "authorize"),
        ("no related auth record", Action::code(36_004_005), rejected, rejected, "authorize"),
        ("an expired authorization", Action::code(105_001), rejected, rejected, "authorize"),
        ("an address that is not allowed", Action::code(36_009_033), address, address, "allow list"),
        ("the same under another code", Action::ip_not_allowed(1), address, address, "allow list"),
        ("an internal error", Action::code(36_009_003), unknown, "ApiError", again),
        ("an internal timeout", Action::code(33_001_002), unknown, "ApiError", again),
        ("a timeout of the request", Action::code(36_009_007), unknown, "ApiError", again),
        ("HTTP 500 without an envelope", Action::http(500), unknown, "ApiError", again),
        ("HTTP 503 with an envelope", internal(36_009_003, 503), unknown, "ApiError", again),
        ("HTTP 500 with a code that is definite elsewhere", internal(77, 500), unknown, "ApiError", again),
        ("a bad app key", Action::code(36_009_004), credentials, credentials, "app secret"),
        ("a bad app key, under the other code", Action::code(98_001_004), credentials, credentials, "app secret"),
        ("another bad parameter", Action::code_saying(36_009_004, timestamp), failing, "ApiError", "timestamp"),
        (
            "another bad parameter, under the other code",
            Action::code_saying(98_001_004, timestamp),
            failing,
            "ApiError",
            "timestamp",
        ),
        (
            "a wrong secret under a code that nobody knows",
            Action::code_saying(4, "app secret is incorrect"),
            credentials,
            credentials,
            "app secret",
        ),
        ("a code that no table lists", Action::code(99_999_999), failing, "ApiError", "99999999"),
        ("HTTP 404 in both forms", Action::raw(404, "404 page not found"), failing, "ApiError", "--token-endpoint"),
    ];
    let rows = rows.into_iter().map(|(sentence, action, ready, reason, needle)| {
        let (stage, name) = (&stage, named(sentence));
        let row = async move {
            let name = name.as_str();
            let code = if let Action::Error { code, .. } = &action { Some(*code) } else { None };
            let definite = ready != "OutcomeUnknown";
            let fault = if definite { Fault::always(action) } else { Fault::once(action) };
            let shop = stage.shop(name, DUE).await;
            let fault = stage.simulator.add_fault(fault.shop(name)).await;
            stage.secret_of(&shop).create(&stage.client).await;
            stage.integrate(name).await;

            let status = stage.failed(name, ["True", ready], reason).await;
            assert_eq!(status["lastError"]["code"], json!(code), "{status}");
            assert_eq!(status["lastError"]["requestId"].is_string(), code.is_some(), "{status}");
            let said = message(&status, "Ready");
            assert!(said.contains(needle), "it does not speak of {needle:?}: {said}");
            let event = if definite { "RefreshFailed" } else { "OutcomeUnknown" };
            assert_eq!(stage.event(name, event).await.kind, "Warning");
            if ready == "RefreshTokenRejected" {
                stage.event(name, "ReauthorizationRequired").await;
            }
            if definite {
                assert_eq!(stage.values(name).await["refresh_token"], shop.refresh_token(), "the tokens were touched");
                // TikTok thinks better of it, and a person asks for another try.
                stage.simulator.clear_fault(fault).await;
                stage.request(name).await;
            }
            stage.refreshed(name).await;
            stage.event(name, "RefreshRecovered").await;
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

/// Covers: input/every-error-code, input/retry-after, reason/RateLimited
#[tokio::test]
async fn too_many_requests_pause_the_whole_app_for_as_long_as_tiktok_asks_and_no_other_app() {
    const PAUSE: u32 = 9;
    let stage = Stage::usual().await;
    let retry_after = |style| Some(RetryAfter { seconds: PAUSE, style });
    let coded = Action::Error {
        code: 36_009_002,
        message: None,
        http_status: 200,
        retry_after: retry_after(RetryAfterStyle::Seconds),
        rotate: false,
    };
    let rows: Vec<(&str, &str, Action)> = vec![
        ("HTTP 429 with seconds", "seconds", Action::too_many_requests(retry_after(RetryAfterStyle::Seconds))),
        ("HTTP 429 with a date", "date", Action::too_many_requests(retry_after(RetryAfterStyle::HttpDate))),
        ("code 36009002 with seconds", "code", coded),
    ];
    let rows = rows.into_iter().map(|(sentence, app, action)| {
        let stage = &stage;
        let row = async move {
            let credentials = stage.simulator.create_app(app, &format!("secret-of-{app}")).await;
            app_secret(&stage.namespace, app, app, &credentials.app_secret).create(&stage.client).await;
            let add = async |name: &str| {
                let shop = NewShop::of(&credentials).id(name).access_remaining(DUE);
                let shop = stage.simulator.create_shop(&shop).await;
                stage.secret_of(&shop).create(&stage.client).await;
                integration(&stage.namespace, name, &tokens_of(name), app).create(&stage.client).await;
            };
            let (first, second, other) = (format!("{app}-1"), format!("{app}-2"), format!("{app}-other"));
            // The shop must be known to the simulator before its fault is.
            let shop = NewShop::of(&credentials).id(&first).access_remaining(DUE);
            let shop = stage.simulator.create_shop(&shop).await;
            stage.simulator.add_fault(Fault::once(action).shop(&first)).await;
            stage.secret_of(&shop).create(&stage.client).await;
            integration(&stage.namespace, &first, &tokens_of(&first), app).create(&stage.client).await;
            stage.failed(&first, ["True", "RefreshFailing"], "RateLimited").await;

            add(&second).await;
            stage.due(&other).await;
            stage.refreshed(&other).await;
            assert_eq!(stage.presentations(&second).await, 0, "the app is not paused");
            stage.refreshed(&second).await;
            stage.refreshed(&first).await;
            let requests = stage.simulator.requests(0).await;
            let at = |name: &str, nth: usize| {
                requests.iter().filter(|request| request.shop.as_deref() == Some(name)).nth(nth).expect("a request").at
            };
            // A date has whole seconds.
            let least = chrono::TimeDelta::seconds(i64::from(PAUSE) - i64::from(app == "date"));
            for (name, nth) in [(&second, 0), (&first, 1)] {
                let waited = at(name, nth) - at(&first, 0);
                assert!(waited >= least, "{name} was called {waited} after TikTok had asked for {PAUSE} s");
            }
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

// ---- app credentials ----

/// Covers: input/wrong-app-secret, reason/AppCredentialsRejected
#[tokio::test]
async fn a_wrong_app_secret_is_said_and_its_correction_is_taken_up_at_once_by_all_its_shops() {
    let stage = Stage::usual().await;
    let write = async |secret: &str| {
        let patch = json!({"stringData": {"app_secret": secret}});
        fixtures::patch_secret(&stage.client, &stage.namespace, APP, &patch).await;
    };
    write("not-the-secret").await;
    for name in ["one", "two"] {
        stage.due(name).await;
    }
    for name in ["one", "two"] {
        let status = stage.failed(name, ["True", "AppCredentialsRejected"], "AppCredentialsRejected").await;
        assert!(message(&status, "Ready").contains("appCredentialsSecretRef"), "{status}");
        stage.assert_pair_kept(name).await;
    }
    write(&stage.app.app_secret).await;
    for name in ["one", "two"] {
        stage.refreshed(name).await;
        stage.event(name, "RefreshRecovered").await;
    }
    stage.end().await;
}

/// Covers: input/app-secret-missing-or-without-a-key, reason/AppCredentialsNotFound
#[tokio::test]
async fn missing_app_credentials_are_said_and_taken_up_as_soon_as_they_are_there() {
    type Made = Option<fn(SecretFixture) -> SecretFixture>;
    let stage = Stage::usual().await;
    let rows: Vec<(&str, Made, &str)> = vec![
        ("there is none", None, "there is no Secret"),
        ("it lacks the app key", Some(|it| it.without("app_key")), "app_key is missing"),
        ("it lacks the app secret", Some(|it| it.without("app_secret")), "app_secret is missing"),
        ("the app secret is empty", Some(|it| it.value("app_secret", " \n")), "app_secret is empty"),
        ("the app key is not UTF-8", Some(|it| it.value("app_key", [0xff])), "app_key is not UTF-8"),
    ];
    let rows = rows.into_iter().map(|(sentence, made, needle)| {
        let (stage, name) = (&stage, named(sentence));
        let row = async move {
            let name = name.as_str();
            let app = format!("{name}-app");
            let whole = app_secret(&stage.namespace, &app, &stage.app.app_key, &stage.app.app_secret);
            if let Some(make) = made {
                make(whole.clone()).create(&stage.client).await;
            }
            let shop = stage.shop(name, DUE).await;
            stage.secret_of(&shop).create(&stage.client).await;
            integration(&stage.namespace, name, &tokens_of(name), &app).create(&stage.client).await;
            let status = stage.stands(name, ["True", "AppCredentialsNotFound"], UNTRIED).await;
            let said = message(&status, "Ready");
            assert!(said.contains(needle) && said.contains(&app), "the message helps nobody: {said}");
            stage.assert_never_called(name).await;
            whole.apply(&stage.client).await;
            stage.refreshed(name).await;
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

// ---- states of a token ----

/// Covers: input/refresh-token-expired, reason/RefreshTokenExpired, condition/Stalled,
/// event/ReauthorizationRequired
#[tokio::test]
async fn an_expired_refresh_token_is_not_presented_and_its_replacement_by_hand_ends_the_error() {
    let stage = Stage::usual().await;
    let rows: Vec<(&str, &str, i64, &str)> = vec![
        ("with an access token that still works", "valid", DUE, "True"),
        ("with both expired", "expired", -60, "False"),
    ];
    let rows = rows.into_iter().map(|(sentence, name, left, ready)| {
        let stage = &stage;
        let row = async move {
            let shop = NewShop::of(&stage.app).id(name).access_remaining(left).refresh_remaining(-60);
            let shop = stage.simulator.create_shop(&shop).await;
            stage.secret_of(&shop).create(&stage.client).await;
            stage.integrate(name).await;
            let status = stage.stands(name, [ready, "RefreshTokenExpired"], UNTRIED).await;
            assert!(is(&status, "Stalled", ["True", "RefreshTokenExpired"]), "{status}");
            assert!(message(&status, "Ready").contains("authorize"), "{status}");
            stage.event(name, "ReauthorizationRequired").await;
            // Not even where it is asked for.
            stage.request(name).await;
            stage.put_pair(&stage.simulator.reauthorize(name).await).await;
            // The request was never handled, so that it is made now.
            stage.refreshed(name).await;
            assert_eq!(stage.presentations(name).await, 1, "the expired token was presented");
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

/// Covers: input/refresh-token-replaced-by-hand, reason/RefreshTokenRejected, event/ReauthorizationRequired
#[tokio::test]
async fn a_refused_refresh_token_that_a_person_replaces_leaves_no_error_behind() {
    let stage = Stage::usual().await;
    let shop = stage.shop("shop", DUE).await;
    stage.simulator.deauthorize("shop").await;
    stage.secret_of(&shop).create(&stage.client).await;
    stage.integrate("shop").await;
    stage.failed("shop", ["True", "RefreshTokenRejected"], "RefreshTokenRejected").await;
    stage.event("shop", "ReauthorizationRequired").await;
    stage.put_pair(&stage.simulator.reauthorize("shop").await).await;
    let status = stage.settle("shop", "a valid token without an error", |status| {
        is(status, "Ready", VALID) && status.get("lastError").is_none()
    });
    let status = status.await;
    assert_eq!(status["consecutiveFailures"].as_u64(), Some(1), "there was no success yet: {status}");
    assert_eq!(stage.presentations("shop").await, 1);
    stage.assert_pair_kept("shop").await;
    // The first success after it says so.
    stage.request("shop").await;
    stage.refreshed("shop").await;
    stage.event("shop", "RefreshRecovered").await;
    stage.end().await;
}

/// Covers: input/access-token-expired, reason/TokenExpired, status/hoursUntilExpiry
#[tokio::test]
async fn an_expired_access_token_is_said_while_its_refresh_fails() {
    let stage = Stage::usual().await;
    let shop = stage.shop("shop", -60).await;
    let fault = stage.simulator.add_fault(Fault::always(Action::code(77)).shop("shop")).await;
    stage.secret_of(&shop).create(&stage.client).await;
    stage.integrate("shop").await;
    let status = stage.failed("shop", ["False", "TokenExpired"], "ApiError").await;
    assert_eq!(status["hoursUntilExpiry"], 0, "{status}");
    stage.simulator.clear_fault(fault).await;
    stage.refreshed("shop").await;
    stage.end().await;
}

/// Covers: input/access-token-expired, condition/Ready
#[tokio::test]
async fn readiness_ends_in_the_second_in_which_the_token_expires() {
    let stage = Stage::usual().await;
    let shop = stage.shop("shop", 8).await;
    stage.secret_of(&shop).create(&stage.client).await;
    stage.integration("shop").suspend(true).create(&stage.client).await;
    stage.stands("shop", ["True", "Suspended"], UNTRIED).await;
    stage.stands("shop", ["False", "Suspended"], UNTRIED).await;
    let late = chrono::Utc::now().timestamp() - shop.access_expires_at();
    assert!((0..5).contains(&late), "it was shown {late} s after the expiry");
    stage.end().await;
}

/// Covers: reason/Suspended, spec/suspend, status/lastHandledRefreshRequest, annotation/refresh-requested-at
#[tokio::test]
async fn a_suspended_integration_rests_whatever_is_due_or_asked_for_and_catches_up_on_resume() {
    let stage = Stage::usual().await;
    let shop = stage.shop("shop", DUE).await;
    stage.secret_of(&shop).create(&stage.client).await;
    stage.integration("shop").suspend(true).create(&stage.client).await;
    stage.stands("shop", ["True", "Suspended"], UNTRIED).await;
    stage.request("shop").await;
    // A second one, created later, shows that the request has been looked at.
    stage.due("other").await;
    stage.refreshed("other").await;
    stage.assert_never_called("shop").await;
    let patch = json!({"spec": {"suspend": false}});
    fixtures::patch_integration(&stage.client, &stage.namespace, "shop", &patch).await;
    let status = stage.refreshed("shop").await;
    assert_eq!(status["lastHandledRefreshRequest"], "now, shop", "{status}");
    assert_eq!(stage.presentations("shop").await, 1);
    stage.end().await;
}

// ---- rights and admission ----

/// Covers: input/secret-forbidden, reason/TokenSecretForbidden
#[tokio::test]
async fn a_secret_that_may_not_be_written_is_found_out_before_tiktok_is_called() {
    let stage = Stage::usual().await;
    stage.grant(json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}])).await;
    stage.until_allowed(false, "patch", &tokens_of("shop")).await;
    stage.due("shop").await;
    let status = stage.failed("shop", ["True", "TokenSecretForbidden"], "TokenSecretForbidden").await;
    assert!(message(&status, "Ready").contains("patch"), "{status}");
    stage.assert_never_called("shop").await;
    stage
        .grant(json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "patch"]}]))
        .await;
    stage.refreshed_within(LATER, "shop").await;
    assert_eq!(stage.presentations("shop").await, 1);
    stage.end().await;
}

/// Covers: input/secret-forbidden, reason/TokenSecretForbidden
#[tokio::test]
async fn a_secret_that_may_not_be_read_is_said_and_taken_up_once_it_may() {
    let stage = Stage::usual().await;
    let all = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch", "patch"]});
    let app = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [APP], "verbs": ["get"]});
    stage.grant(json!([all, app])).await;
    stage.until_allowed(false, "get", &tokens_of("shop")).await;
    stage.due("shop").await;
    let status =
        stage.settle("shop", "TokenSecretForbidden", |status| is(status, "Ready", ["Unknown", "TokenSecretForbidden"]));
    assert!(message(&status.await, "Ready").contains("get"));
    stage.assert_never_called("shop").await;
    let every = json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "patch"]});
    stage.grant(json!([every])).await;
    stage.refreshed_within(LATER, "shop").await;
    stage.end().await;
}

/// Covers: input/admission-refuses, reason/TokenSecretForbidden
#[tokio::test]
async fn a_write_that_admission_would_refuse_is_rehearsed_so_that_tiktok_is_not_called() {
    let stage = Stage::usual().await;
    stage.forbid_thawing().await;
    let shop = stage.shop("shop", DUE).await;
    stage.secret_of(&shop).label("frozen", "true").create(&stage.client).await;
    stage.integrate("shop").await;
    let status = stage.failed("shop", ["True", "TokenSecretForbidden"], "TokenSecretForbidden").await;
    let said = message(&status, "Ready");
    assert!(said.contains("what is frozen keeps its data"), "the policy's own words are missing: {said}");
    assert!(said.contains("TikTok was not called"), "it does not say that nothing is lost: {said}");
    stage.assert_never_called("shop").await;
    stage.freeze("shop", false).await;
    stage.refreshed("shop").await;
    assert_eq!(stage.presentations("shop").await, 1);
    stage.end().await;
}

/// Covers: input/secret-unwritable-during-a-call, reason/PersistFailed
#[tokio::test]
async fn an_answer_that_cannot_be_stored_is_held_until_the_secret_is_mended() {
    let stage = Stage::usual().await;
    stage.forbid_thawing().await;
    // What is done to the Secret; the reason of Ready: what is known of the Secret itself comes first.
    let rows: Vec<(&str, &str, &str)> = vec![
        ("admission refuses the write", "frozen", "PersistFailed"),
        ("it is made immutable", "immutable", "TokenSecretImmutable"),
        ("it is deleted", "deleted", "TokenSecretNotFound"),
        ("it is deleted, and another pair put there", "replaced", "TokenSecretNotFound"),
    ];
    let rows = rows.into_iter().map(|(sentence, name, reason)| {
        let stage = &stage;
        let row = async move {
            let shop = stage.due_under(name, Fault::once(Action::hold(Point::AfterRotation))).await;
            let held = stage.simulator.wait_for_held(name, Point::AfterRotation, SOON).await;
            match name {
                "frozen" => stage.freeze(name, true).await,
                "immutable" => stage.patch_tokens(name, json!({"immutable": true})).await,
                _ => stage.delete_secret(&tokens_of(name)).await,
            }
            stage.simulator.release(held.id).await;
            let status = stage.pass(name, "an answer that is held", |status| {
                condition(status, "Ready").is_some_and(|ready| ready.reason == reason)
                    && is(status, "Refreshed", ["False", "PersistFailed"])
            });
            let said = message(&status.await, "Ready");
            assert!(said.contains("new tokens were received"), "it does not say that an answer is held: {said}");
            let needle = match name {
                "frozen" => "admission",
                "immutable" => "immutable",
                _ => "create it anew",
            };
            assert!(said.contains(needle), "it does not say what to do: {said}");
            stage.warning(name, "new tokens were received").await;
            match name {
                "frozen" => stage.freeze(name, false).await,
                "immutable" => {
                    stage.delete_secret(&tokens_of(name)).await;
                    stage.secret_of(&shop).create(&stage.client).await;
                }
                "replaced" => {
                    stage.secret_of(&stage.simulator.reauthorize(name).await).create(&stage.client).await;
                    stage.warning(name, "theirs stay").await;
                    stage.settle(name, "a valid token", |status| is(status, "Ready", VALID)).await;
                    return stage.assert_pair_kept(name).await;
                }
                _ => drop(SecretFixture::new(&stage.namespace, &tokens_of(name)).create(&stage.client).await),
            }
            stage.refreshed(name).await;
            assert_eq!(stage.presentations(name).await, 1, "the answer was asked for again");
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

/// Covers: input/secret-unwritable-during-a-call, reason/PersistFailed, condition/Refreshed
#[tokio::test]
async fn an_answer_that_is_held_counts_as_a_failed_try_until_it_is_stored() {
    let stage = Stage::usual().await;
    stage.forbid_thawing().await;
    stage.due_under("shop", Fault::once(Action::hold(Point::AfterRotation))).await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    stage.freeze("shop", true).await;
    stage.simulator.release(held.id).await;
    stage.failed("shop", ["True", "PersistFailed"], "PersistFailed").await;
    stage.freeze("shop", false).await;
    stage.refreshed("shop").await;
    stage.end().await;
}

/// Covers: input/secret-unwritable-during-a-call, reason/PersistFailed
#[tokio::test]
async fn an_answer_outlasts_the_withdrawal_of_the_right_to_write_it() {
    let stage = Stage::usual().await;
    let verbs = |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}]);
    stage.due_under("shop", Fault::once(Action::hold(Point::AfterRotation))).await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    stage.grant(verbs(&["get", "list", "watch"])).await;
    stage.until_allowed(false, "patch", &tokens_of("shop")).await;
    stage.simulator.release(held.id).await;
    let status = stage.pass("shop", "PersistFailed", |status| is(status, "Ready", ["True", "PersistFailed"])).await;
    let said = message(&status, "Ready");
    assert!(said.contains("service account"), "it does not say what to do: {said}");
    assert!(said.contains("do not stop the operator"), "without a journal that is worth a word: {said}");
    stage.grant(verbs(&["get", "list", "watch", "patch"])).await;
    stage.refreshed("shop").await;
    assert_eq!(stage.presentations("shop").await, 1);
    stage.end().await;
}

/// Covers: input/secret-unwritable-during-a-call, reason/RefreshTokenRejected
#[tokio::test]
async fn a_refusal_is_said_although_it_cannot_be_noted_on_the_secret() {
    let stage = Stage::usual().await;
    let verbs = |verbs: &[&str]| json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": verbs}]);
    stage.due_under("shop", Fault::once(Action::hold(Point::BeforeProcessing))).await;
    let held = stage.simulator.wait_for_held("shop", Point::BeforeProcessing, SOON).await;
    stage.grant(verbs(&["get", "list", "watch"])).await;
    stage.until_allowed(false, "patch", &tokens_of("shop")).await;
    // The seller withdraws the authorization while its tokens are on their way.
    let renewed = stage.simulator.reauthorize("shop").await;
    stage.simulator.release(held.id).await;
    let rejected =
        stage.settle("shop", "Stalled", |status| is(status, "Stalled", ["True", "RefreshTokenRejected"])).await;
    let said = message(&rejected, "Ready");
    assert!(said.contains("forbidden") && said.contains("patch"), "it does not say what hinders it: {said}");
    assert_eq!(rejected["consecutiveFailures"], 1);
    stage.grant(verbs(&["get", "list", "watch", "patch"])).await;
    let noted = stage.settle("shop", "the refusal alone", |status| !message(status, "Ready").contains("forbidden"));
    assert_eq!(noted.await["consecutiveFailures"], 1, "one failure is counted twice");
    stage.put_pair(&renewed).await;
    stage.settle("shop", "a valid token", |status| is(status, "Ready", VALID)).await;
    stage.end().await;
}

// ---- other writers ----

/// Covers: input/secret-reverted, reason/TokenSecretReverted, event/TokenSecretReverted, condition/Stalled,
/// flag/journal-dir
#[tokio::test]
async fn an_old_pair_that_another_program_puts_back_is_replaced_once_and_then_not_fought() {
    let stage = Props::default().journal().start().await;
    let spent = stage.due("shop").await;
    stage.refreshed("shop").await;
    let revert = async || {
        let params = PatchParams { field_manager: Some("argocd-controller".to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"stringData": pair(&spent)}));
        stage.secrets().patch(&tokens_of("shop"), &params, &patch).await.expect("it can be patched");
    };
    revert().await;
    let event = stage.event("shop", "TokenSecretReverted").await;
    assert_eq!(event.kind, "Warning");
    assert!(event.note.contains("argocd-controller"), "the event does not name who did it: {}", event.note);
    let newest = stage.simulator.shop("shop").await;
    let restored = poll::until(SOON, async || {
        (stage.values("shop").await["refresh_token"] == newest.refresh_token()).then_some(())
    });
    restored.await.expect("the newest pair is written back");
    stage.settle("shop", "a valid token", |status| is(status, "Ready", VALID)).await;
    stage.assert_pair_kept("shop").await;

    revert().await;
    let status = stage.settle("shop", "Stalled for TokenSecretReverted", |status| {
        is(status, "Stalled", ["True", "TokenSecretReverted"])
    });
    let said = message(&status.await, "Ready");
    assert!(said.contains("argocd-controller"), "it does not name who did it: {said}");
    assert_eq!(stage.values("shop").await["refresh_token"], spent.refresh_token(), "it is fought");
    assert_eq!(stage.presentations("shop").await, 1, "a spent token was presented");
    let refreshes = stage.operator.metrics().await.sum("tiktokshop_refresh_total", &[]);
    assert!((refreshes - 1.0).abs() < f64::EPSILON, "a pair written back is counted as a refresh: {refreshes}");

    stage.put_pair(&newest).await;
    stage.settle("shop", "a valid token", |status| is(status, "Ready", VALID)).await;
    stage.assert_pair_kept("shop").await;
    stage.end().await;
}

/// Covers: input/secret-reverted, reason/TokenSecretReverted, event/TokenSecretReverted
#[tokio::test]
async fn without_a_journal_a_token_known_to_be_spent_is_not_presented_though_it_is_due() {
    let stage = Stage::usual().await;
    let spent = stage.due("shop").await;
    stage.refreshed("shop").await;
    stage.patch_tokens("shop", json!({"stringData": pair(&spent)})).await;
    let status = stage.settle("shop", "TokenSecretReverted", |status| {
        is(status, "Ready", ["True", "TokenSecretReverted"]) && is(status, "Stalled", ["True", "TokenSecretReverted"])
    });
    status.await;
    stage.event("shop", "TokenSecretReverted").await;
    assert_eq!(stage.presentations("shop").await, 1, "a spent token was presented");
    stage.put_pair(&stage.simulator.shop("shop").await).await;
    stage.settle("shop", "a valid token", |status| is(status, "Ready", VALID)).await;
    stage.end().await;
}

/// What a GitOps tool puts back is the file that it has: the first pair, however many came after it.
#[tokio::test]
async fn the_first_pair_put_back_after_two_rotations_is_replaced_and_not_presented() {
    let stage = Props::default().journal().start().await;
    let first = stage.due("shop").await;
    stage.refreshed("shop").await;
    stage.request("shop").await;
    stage.simulator.wait_for_refreshes("shop", 2, SOON).await;
    let newest = stage.simulator.shop("shop").await;
    let is_newest = async || (stage.values("shop").await["refresh_token"] == newest.refresh_token()).then_some(());
    poll::until(SOON, is_newest).await.expect("the second refresh is stored");
    stage.patch_tokens("shop", json!({"stringData": pair(&first)})).await;
    let restored = poll::until(SOON, is_newest).await;
    assert_eq!(stage.presentations("shop").await, 2, "a spent token was presented");
    restored.expect("the newest pair is written back");
    stage.event("shop", "TokenSecretReverted").await;
    stage.end().await;
}

/// TikTok's answer is then the only copy of the only refresh token that works.
#[tokio::test]
async fn a_spent_pair_put_back_during_a_later_call_does_not_take_the_place_of_its_answer() {
    let stage = Props::default().journal().start().await;
    let first = stage.due("shop").await;
    stage.refreshed("shop").await;
    stage.simulator.add_fault(Fault::once(Action::hold(Point::AfterRotation)).shop("shop")).await;
    stage.request("shop").await;
    let held = stage.simulator.wait_for_held("shop", Point::AfterRotation, SOON).await;
    stage.patch_tokens("shop", json!({"stringData": pair(&first)})).await;
    stage.simulator.release(held.id).await;
    let newest = stage.simulator.shop("shop").await;
    let is_newest = async || (stage.values("shop").await["refresh_token"] == newest.refresh_token()).then_some(());
    let stored = poll::until(SOON, is_newest).await;
    assert_eq!(stage.presentations("shop").await, 2, "a spent token was presented");
    stored.expect("the answer is stored over the spent pair");
    stage.end().await;
}

/// Covers: input/secret-reverted, reason/TokenSecretReverted
#[tokio::test]
async fn an_old_file_put_back_whole_is_known_for_what_it_is() {
    let stage = Stage::usual().await;
    let spent = stage.due("shop").await;
    stage.refreshed("shop").await;
    let file = stage.secret_of(&spent).manifest().to_string();
    stage.plane.kubectl_ok_with(&["replace", "-f", "-"], Some(&file)).await;
    stage.settle("shop", "TokenSecretReverted", |status| is(status, "Stalled", ["True", "TokenSecretReverted"])).await;
    assert_eq!(stage.presentations("shop").await, 1, "a spent token was presented");
    stage.put_pair(&stage.simulator.shop("shop").await).await;
    stage.settle("shop", "a valid token", |status| is(status, "Ready", VALID)).await;
    stage.assert_pair_kept("shop").await;
    stage.end().await;
}

/// Covers: input/tokens-replaced-during-a-call
#[tokio::test]
async fn a_new_pair_that_a_person_puts_there_during_the_call_stays() {
    let stage = Stage::usual().await;
    let rows: Vec<(&str, &str, Point)> = vec![
        ("before TikTok has refreshed", "before", Point::BeforeProcessing),
        ("after TikTok has refreshed", "after", Point::AfterRotation),
    ];
    let rows = rows.into_iter().map(|(sentence, name, point)| {
        let stage = &stage;
        let row = async move {
            stage.due_under(name, Fault::once(Action::hold(point))).await;
            let held = stage.simulator.wait_for_held(name, point, SOON).await;
            // The seller authorizes anew: TikTok refuses the old token from now on.
            stage.put_pair(&stage.simulator.reauthorize(name).await).await;
            stage.simulator.release(held.id).await;
            stage.warning(name, "theirs stay").await;
            let status = stage.settle(name, "a valid token without an error", |status| {
                is(status, "Ready", VALID) && status.get("lastError").is_none()
            });
            status.await;
            stage.assert_pair_kept(name).await;
            assert_eq!(stage.presentations(name).await, 1);
            let secret = stage.secrets().get(&tokens_of(name)).await.expect("it stands");
            let annotations = secret.metadata.annotations.unwrap_or_default();
            assert!(!annotations.contains_key("tiktokshop.dev/refresh-attempt"), "a claim is left: {annotations:?}");
        };
        (sentence, Box::pin(row) as Row)
    });
    every_row(rows.collect()).await;
    stage.end().await;
}

// ---- the clock ----

/// Covers: input/clock-jump, `metric/tiktokshop_clock_jumps_total`
#[tokio::test]
async fn a_clock_that_jumps_is_noticed_and_what_is_due_by_it_is_refreshed() {
    const AHEAD: i64 = 5 * 86_400 / 2;
    let Some(library) = faketime() else {
        assert!(std::env::var_os("CI").is_none(), "libfaketime is not installed (Debian's package faketime)");
        println!("skipped: libfaketime is not installed (Debian's package faketime)");
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let clock = dir.path().join("clock");
    // Written anew and moved into place: a file half written would be another time.
    let set = |offset: i64| {
        let next = dir.path().join("next");
        std::fs::write(&next, format!("{offset:+}")).expect("a file can be written");
        std::fs::rename(&next, &clock).expect("a file can be moved");
    };
    set(0);
    let stage = Props::default()
        .env("LD_PRELOAD", library.display().to_string())
        .env("FAKETIME_TIMESTAMP_FILE", clock.display().to_string())
        .env("FAKETIME_NO_CACHE", "1".to_owned())
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())
        .start()
        .await;
    let shop = stage.shop("shop", FRESH).await;
    stage.secret_of(&shop).create(&stage.client).await;
    stage.integrate("shop").await;
    stage.stands("shop", VALID, UNTRIED).await;
    let jumps = async || stage.operator.metrics().await.sum("tiktokshop_clock_jumps_total", &[]);
    assert!(jumps().await < 0.5, "a jump was seen before there was one");

    stage.simulator.set_clock_offset(AHEAD).await;
    set(AHEAD);
    poll::until(SOON, async || (jumps().await > 0.5).then_some(())).await.expect("the jump is noticed");
    let said = |line: &str| line.contains("the clock was set: all wake-ups are computed anew");
    stage.operator.process().wait_for_line(said, SOON).await.expect("and said");
    stage.refreshed("shop").await;
    assert_eq!(stage.presentations("shop").await, 1);

    // And back: nothing is due, and nothing is forgotten.
    stage.simulator.set_clock_offset(0).await;
    set(0);
    poll::until(SOON, async || (jumps().await > 1.5).then_some(())).await.expect("the jump back is noticed");
    stage.request("shop").await;
    let handled = |status: &Value| status["lastHandledRefreshRequest"] == "now, shop";
    stage.settle("shop", "a request that is handled", handled).await;
    stage.refreshed("shop").await;
    assert_eq!(stage.presentations("shop").await, 2);
    stage.end().await;
}

fn faketime() -> Option<PathBuf> {
    let libraries = std::fs::read_dir("/usr/lib").ok()?;
    let of = |arch: &Path| arch.join("faketime/libfaketimeMT.so.1");
    let mut found = libraries.flatten().map(|arch| of(&arch.path())).chain([of(Path::new("/usr/lib"))]);
    found.find(|path| path.exists())
}

fn rfc3339(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).expect("a time that can be written");
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
