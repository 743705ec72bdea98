//! A lane: a namespace with its own TikTok, its own ways to it and to the API server, its own
//! journals and its own operators. Lanes share a control plane and nothing else.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    coordination::v1::Lease,
    core::v1::{Namespace, Secret},
    rbac::v1::RoleBinding,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiktok_shop_testkit::{
    control_plane::ControlPlane,
    disk::SmallDisk,
    fixtures::{self, SecretFixture, app_secret, integration},
    operator::{Builder, Operator},
    poll,
    proxy::{Proxy, Seen},
    rbac::{self, Scope},
    simulator::{App, NewShop, Shop, Simulator},
};
use tokio::{sync::watch, task::JoinHandle};

use crate::{cells::Cast, schedule::Trigger};

/// For what takes one look or a few requests, on a machine that does much else.
pub const SOON: Duration = Duration::from_secs(30);

/// What the operators give a call of TikTok.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that access tokens have left where nothing is due, and where it is.
const PLENTY: i64 = 5 * 86_400;
const DUE: i64 = 600;

/// A probe of whether the admission policy is in force.
const PROBE: &str = "probe";

/// The label that has the admission policy work on a namespace.
const FROZEN: &str = "frozen";

/// What stands on the API server, as watches tell of it.
#[derive(Debug, Default)]
pub struct Shown {
    pub integrations: HashMap<String, Value>,
    pub secrets: HashMap<String, Secret>,
    /// Every status so far, by name of integration.
    pub statuses: Vec<(String, Value)>,
}

impl Shown {
    pub fn status(&self, name: &str) -> Value {
        self.integrations.get(name).map(|object| object["status"].clone()).unwrap_or_default()
    }
}

/// Watches that keep [`Shown`] true, so that waiting costs no requests.
#[derive(Debug)]
pub struct View {
    shown: Arc<Mutex<Shown>>,
    changed: watch::Receiver<u64>,
    tasks: [JoinHandle<()>; 2],
}

impl View {
    async fn start(client: &Client, namespace: &str) -> Self {
        let shown: Arc<Mutex<Shown>> = Arc::default();
        let (changes, changed) = watch::channel(0);
        let changes = Arc::new(changes);
        let mut begun = changed.clone();
        let (sink, note) = (Arc::clone(&shown), Arc::clone(&changes));
        let mut events =
            watcher(fixtures::integrations(client, namespace), watcher::Config::default()).default_backoff().boxed();
        let integrations = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut shown = sink.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(watcher::Event::Init) => shown.integrations.clear(),
                    Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                        let (name, object) = (object.name_any(), serde_json::to_value(&object).expect("it is JSON"));
                        let status = object["status"].clone();
                        shown.integrations.insert(name.clone(), object);
                        let last = shown.statuses.iter().rev().find(|(of, _)| *of == name);
                        if status.is_object() && last.is_none_or(|(_, last)| *last != status) {
                            shown.statuses.push((name, status));
                        }
                    }
                    Ok(watcher::Event::Delete(object)) => drop(shown.integrations.remove(&object.name_any())),
                    Ok(watcher::Event::InitDone) | Err(_) => {}
                }
                drop(shown);
                note.send_modify(|count| *count += 1);
            }
        });
        let (sink, note) = (Arc::clone(&shown), changes);
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let mut events = watcher(secrets, watcher::Config::default()).default_backoff().boxed();
        let secrets = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                let mut shown = sink.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(watcher::Event::Init) => shown.secrets.clear(),
                    Ok(watcher::Event::InitApply(secret) | watcher::Event::Apply(secret)) => {
                        shown.secrets.insert(secret.name_any(), secret);
                    }
                    Ok(watcher::Event::Delete(secret)) => drop(shown.secrets.remove(&secret.name_any())),
                    Ok(watcher::Event::InitDone) | Err(_) => {}
                }
                drop(shown);
                note.send_modify(|count| *count += 1);
            }
        });
        let lists = begun.wait_for(|count| *count >= 4);
        tokio::time::timeout(SOON, lists).await.expect("the watches begin in time").expect("the watches are there");
        Self { shown, changed, tasks: [integrations, secrets] }
    }

    pub fn now<T>(&self, look: impl FnOnce(&Shown) -> T) -> T {
        look(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks whenever something changes, until there is an answer.
    pub async fn until<T>(&self, timeout: Duration, look: impl Fn(&Shown) -> Option<T>) -> Option<T> {
        let mut changed = self.changed.clone();
        let search = async {
            loop {
                changed.mark_unchanged();
                if let Some(answer) = self.now(&look) {
                    return answer;
                }
                changed.changed().await.expect("the watches go on");
            }
        };
        tokio::time::timeout(timeout, search).await.ok()
    }

    /// Waits for a change, or for `timeout`.
    pub async fn change(&self, timeout: Duration) {
        let mut changed = self.changed.clone();
        changed.mark_unchanged();
        // The end of the time is as good as a change: the caller looks again.
        let _ = tokio::time::timeout(timeout, changed.changed()).await;
    }
}

impl Drop for View {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Where journals live: in memory, as in the chart, where file systems may be mounted.
enum Disk {
    Small(SmallDisk),
    Folder(TempDir),
}

impl Disk {
    fn path(&self) -> &Path {
        match self {
            Self::Small(disk) => disk.path(),
            Self::Folder(dir) => dir.path(),
        }
    }
}

/// The text of the CRD that is shipped.
pub fn crd() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/tiktokshopintegrations.tiktokshop.dev.yaml");
    fs::read_to_string(path).expect("the CRD is in the tree")
}

fn simulator_binary() -> PathBuf {
    let operator = Path::new(env!("CARGO_BIN_EXE_tiktok-shop-operator"));
    operator.with_file_name("examples").join("tiktok-shop-simulator")
}

/// Makes a control plane ready for lanes: the CRD, and the policy that freezes namespaces.
pub async fn prepare(plane: &ControlPlane) {
    fixtures::install_crd(plane, &crd()).await;
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": FROZEN},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {FROZEN: "true"}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["secrets"]},
                ],
            },
            "validations": [
                {"expression": "object.data == oldObject.data", "message": "what is frozen keeps its data"},
            ],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": FROZEN},
        "spec": {"policyName": FROZEN, "validationActions": ["Deny"]},
    });
    plane.apply(&policy.to_string()).await;
    plane.apply(&binding.to_string()).await;
}

/// The end of an operator's process.
#[derive(Debug)]
pub struct Death {
    pub at: Instant,
    /// The integrations whose new tokens stood in its journal by then.
    journaled: Vec<String>,
}

impl Death {
    /// Did the process leave a shop's new tokens to the next one?
    pub fn leaves_tokens_of(&self, shop: &str) -> bool {
        self.journaled.iter().any(|name| name == shop)
    }
}

pub struct Lane {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub namespace: String,
    pub simulator: Simulator,
    pub app: App,
    /// Between the operators and the API server.
    pub api: Proxy,
    /// Between the operators and TikTok.
    pub tiktok: Proxy,
    pub view: View,
    identity: rbac::Identity,
    disk: Disk,
    clock: PathBuf,
    cast: Option<Cast>,
    pub first: Option<Operator>,
    pub second: Option<Operator>,
    lease: String,
    pub deaths: Vec<Death>,
    /// From when to when an operator stood still.
    pub stops: Vec<(Instant, Instant)>,
    /// When a person first put other tokens into the Secret, by the clock that events are dated with.
    pub replaced_at: Option<DateTime<Utc>>,
    /// What operators wrote that are gone.
    logs: String,
    /// What their metrics said last.
    metrics: Vec<String>,
    shop: Option<String>,
    shops: usize,
    refreshed: usize,
    /// The shop that the present job is about.
    about: String,
}

impl Lane {
    /// On a control plane that is [`prepare`]d.
    pub async fn start(plane: &'static ControlPlane) -> Self {
        let client = plane.kube_client().await;
        let namespace = plane.create_namespace("faults").await;
        let identity = rbac::install(plane, &namespace, &Scope::Namespaces(vec![namespace.clone()])).await;
        let simulator = Simulator::start(&simulator_binary()).await;
        let app = simulator.create_any_app().await;
        app_secret(&namespace, "app", &app.app_key, &app.app_secret).create(&client).await;
        SecretFixture::new(&namespace, PROBE).value("value", "0").create(&client).await;
        let api = Proxy::start(&plane.url(), Some(&plane.ca_pem()));
        let tiktok = Proxy::start(simulator.base_url(), None);
        let view = View::start(&client, &namespace).await;
        let disk = SmallDisk::mount(1024)
            .map_or_else(|| Disk::Folder(tempfile::tempdir().expect("a temporary folder can be made")), Disk::Small);
        let clock = disk.path().join("clock");
        Self {
            plane,
            client,
            namespace,
            simulator,
            app,
            api,
            tiktok,
            view,
            identity,
            disk,
            clock,
            cast: None,
            first: None,
            second: None,
            lease: String::new(),
            deaths: Vec::new(),
            stops: Vec::new(),
            replaced_at: None,
            logs: String::new(),
            metrics: Vec::new(),
            shop: None,
            shops: 0,
            refreshed: 0,
            about: String::new(),
        }
    }

    pub fn first(&self) -> &Operator {
        self.first.as_ref().expect("the cast is on stage")
    }

    pub fn second(&self) -> &Operator {
        self.second.as_ref().expect("the cast is on stage")
    }

    // ---- operators ----

    fn operator(&self, name: &str) -> Builder {
        Operator::builder(env!("CARGO_BIN_EXE_tiktok-shop-operator"))
            .name(&format!("operator {name} in {}", self.namespace))
            .kubeconfig(self.plane.kubeconfig_for(&self.identity.token, Some(&self.api.url())))
            .token_endpoint(&format!("{}/api/v2/token/refresh", self.tiktok.url()))
            .authorization_endpoint(&format!("{}/api/v2/token/get", self.tiktok.url()))
            .namespace(&self.namespace)
            .lease_namespace(&self.namespace)
            .flag("request-timeout", &format!("{}s", CALL_TIMEOUT.as_secs()))
            .journal_dir(self.journal(name))
            .leader_elect(false)
            .trace()
    }

    /// The folder of an operator's journal.
    pub fn journal(&self, name: &str) -> PathBuf {
        let path = self.disk.path().join(name);
        fs::create_dir_all(&path).expect("a folder can be made");
        path
    }

    /// Are two operators at work?
    pub fn is_of_two(&self) -> bool {
        self.cast.is_some_and(|cast| cast.is_pair() || cast == Cast::ElectorPair)
    }

    /// Kills the first operator, and notes what it leaves.
    pub fn kill_first(&mut self) {
        self.first().sigkill();
        let at = Instant::now();
        let files = fs::read_dir(self.journal("first")).into_iter().flatten().flatten().map(|file| file.path());
        let entries = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
        let journaled = entries.filter_map(|path| {
            let document: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            let entry = &document["entry"];
            entry["answer"].is_object().then(|| entry["name"].as_str().map(str::to_owned))?
        });
        self.deaths.push(Death { at, journaled: journaled.collect() });
    }

    /// Has these operators at work, and no others.
    pub async fn on_stage(&mut self, cast: Cast) {
        static LEASES: AtomicUsize = AtomicUsize::new(0);
        let alive = |operator: &Option<Operator>| operator.as_ref().is_none_or(|it| it.process().is_running());
        if self.cast == Some(cast) && alive(&self.first) && alive(&self.second) {
            return;
        }
        self.off_stage().await;
        let elects = |builder: Builder, lease: &str| builder.leader_elect(true).flag("lease-name", lease);
        self.lease = format!("lease-{}", LEASES.fetch_add(1, Ordering::Relaxed));
        let first = match cast {
            Cast::Solo | Cast::Pair | Cast::PairOfClocks => self.operator("first"),
            Cast::Elector | Cast::ElectorPair => elects(self.operator("first"), &self.lease),
            Cast::WallClock => self.faked("first", false),
            Cast::BothClocks => self.faked("first", true),
        };
        let first = self.first.insert(first.start());
        first.wait_ready(SOON).await;
        if matches!(cast, Cast::Elector | Cast::ElectorPair) {
            wait_leads(first, true).await;
        }
        match cast {
            Cast::Pair => self.second = Some(self.operator("second").start()),
            Cast::PairOfClocks => {
                let second = self.faked("second", false);
                self.set_clock("+1d");
                self.second = Some(second.start());
            }
            Cast::ElectorPair => self.second = Some(elects(self.operator("second"), &self.lease).start()),
            _ => {}
        }
        if let Some(second) = &self.second {
            second.wait_ready(SOON).await;
        }
        self.cast = Some(cast);
    }

    /// Takes the operators away. What they said is kept.
    pub async fn off_stage(&mut self) {
        for operator in [self.first.take(), self.second.take()].into_iter().flatten() {
            if operator.probe("/metrics").await == Some(200) {
                self.metrics.push(operator.metrics_text().await);
            }
            self.logs.push_str(&operator.retire());
        }
        self.cast = None;
    }

    fn faked(&self, name: &str, monotonic: bool) -> Builder {
        self.set_clock("+0");
        let library = faketime().expect("jobs that need libfaketime are not planned without it");
        let builder = self
            .operator(name)
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.clock)
            .env("FAKETIME_NO_CACHE", "1");
        if monotonic {
            builder
        } else {
            builder.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1")
        }
    }

    /// Sets the clock of the operator under libfaketime, by an offset such as `+1d`.
    pub fn set_clock(&self, offset: &str) {
        // Replaced in one go: it is read all the time.
        let new = self.clock.with_extension("new");
        fs::write(&new, format!("{offset}\n")).expect("a file can be written");
        fs::rename(&new, &self.clock).expect("a file can be renamed");
    }

    // ---- shops ----

    /// A shop at rest, whose refresh token was never presented.
    pub async fn shop_at_rest(&mut self) -> String {
        const REFRESHES: usize = 12;
        if let Some(shop) = self.shop.clone().filter(|_| self.refreshed < REFRESHES) {
            self.refreshed += 1;
            return shop;
        }
        self.refreshed = 0;
        let shop = self.new_shop(Trigger::Request).await;
        self.put_on_show(&shop, &self.secret_of(&shop)).await;
        let ready = self.view.until(SOON, |shown| is_ready(&shown.status(&shop.id)).then_some(()));
        ready.await.unwrap_or_else(|| panic!("{} did not become Ready: {:#}", shop.id, self.status(&shop.id)));
        self.shop = Some(shop.id.clone());
        shop.id
    }

    /// The next job gets a new shop.
    pub fn leave_shop(&mut self) {
        self.shop = None;
    }

    /// A shop that nobody but TikTok knows of yet.
    pub async fn new_shop(&mut self, trigger: Trigger) -> Shop {
        self.shops += 1;
        let id = format!("shop-{:04}", self.shops);
        let left = if trigger == Trigger::Due { DUE } else { PLENTY };
        self.simulator.create_shop(&NewShop::of(&self.app).id(&id).access_remaining(left)).await
    }

    /// Has the seller authorize the app: the Secret as `kubectl tiktokshop authorize` leaves it, with the code alone or
    /// beside the pair.
    pub async fn authorized(&self, shop: &Shop, alone: bool) -> SecretFixture {
        let code = self.simulator.authorize(&shop.id).await;
        let secret = if alone { SecretFixture::new(&self.namespace, &shop.id) } else { self.secret_of(shop) };
        secret.value("auth_code", code)
    }

    /// The same again, where the Secret is there.
    pub async fn authorize_again(&self, shop: &str) {
        let code = self.simulator.authorize(shop).await;
        self.patch_secret(shop, &json!({"stringData": {"auth_code": code}})).await;
    }

    /// Makes its Secret and its integration.
    pub async fn put_on_show(&self, shop: &Shop, secret: &SecretFixture) {
        secret.create(&self.client).await;
        integration(&self.namespace, &shop.id, &shop.id, "app").create(&self.client).await;
    }

    pub fn secret_of(&self, shop: &Shop) -> SecretFixture {
        SecretFixture::new(&self.namespace, &shop.id).tokens(
            shop.access_token(),
            shop.access_expires_at(),
            shop.refresh_token(),
            shop.refresh_expires_at(),
        )
    }

    /// Takes a shop's integration and Secret away.
    pub async fn remove(&self, shop: &str) {
        self.delete_integration(shop).await;
        self.secrets().delete(shop, &DeleteParams::default()).await.expect("it is there");
    }

    /// The shop that the last job was about.
    pub fn last_shop(&self) -> String {
        self.about.clone()
    }

    pub fn status(&self, shop: &str) -> Value {
        self.view.now(|shown| shown.status(shop))
    }

    pub async fn request(&self, shop: &str, value: &str) {
        fixtures::request_refresh(&self.client, &self.namespace, shop, value).await;
    }

    // ---- what people do ----

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn patch_secret(&self, name: &str, patch: &Value) {
        fixtures::patch_secret(&self.client, &self.namespace, name, patch).await;
    }

    /// Deletes a Secret and makes it anew.
    pub async fn recreate(&self, secret: SecretFixture, name: &str) {
        self.secrets().delete(name, &DeleteParams::default()).await.expect("it is there");
        secret.create(&self.client).await;
    }

    /// Deletes a Secret and makes it anew with what it held.
    pub async fn recreate_as_it_is(&self, name: &str) {
        let secret = fixtures::secret(&self.client, &self.namespace, name).await.expect("it is there");
        let data = secret.data.unwrap_or_default();
        let copy = data
            .into_iter()
            .fold(SecretFixture::new(&self.namespace, name), |copy, (key, value)| copy.value(&key, value.0));
        self.recreate(copy, name).await;
    }

    /// Puts a pair into the Secret, as a person would, whether or not it is there.
    pub async fn put_tokens(&self, shop: &Shop) {
        let secret = self.secret_of(shop);
        if fixtures::secret(&self.client, &self.namespace, &shop.id).await.is_some() {
            self.patch_secret(&shop.id, &json!({ "data": secret.manifest()["data"] })).await;
        } else {
            secret.create(&self.client).await;
        }
    }

    pub async fn delete_integration(&self, shop: &str) {
        let api = fixtures::integrations(&self.client, &self.namespace);
        api.delete(shop, &DeleteParams::default()).await.expect("it is there");
    }

    pub async fn create_integration(&self, shop: &str) {
        integration(&self.namespace, shop, shop, "app").create(&self.client).await;
    }

    /// Has admission refuse every change of a Secret's data, or no more; returns when it does.
    pub async fn freeze(&self, frozen: bool) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let label = if frozen { json!("true") } else { Value::Null };
        let patch = json!({"metadata": {"labels": {FROZEN: label}}});
        namespaces.patch(&self.namespace, &PatchParams::default(), &Patch::Merge(&patch)).await.expect("an admin may");
        let (secrets, dry) = (self.secrets(), PatchParams { dry_run: true, ..PatchParams::default() });
        let change = Patch::Merge(json!({"stringData": {"value": "1"}}));
        let done =
            poll::until(SOON, async || (secrets.patch(PROBE, &dry, &change).await.is_err() == frozen).then_some(()));
        done.await.expect("the admission policy comes into force, and out of it");
    }

    /// Takes the operator's rights away, or gives them back; returns when the server knows.
    pub async fn allow(&self, allowed: bool) {
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = format!("{}-{}", rbac::NAME, self.namespace);
        if allowed {
            let scope = Scope::Namespaces(vec![self.namespace.clone()]);
            let manifest = rbac::manifest(&self.namespace, &scope);
            self.plane.apply(&manifest).await;
        } else {
            bindings.delete(&name, &DeleteParams::default()).await.expect("it is there");
        }
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = SubjectAccessReview {
            metadata: ObjectMeta::default(),
            spec: SubjectAccessReviewSpec {
                user: Some(self.identity.user()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.namespace.clone()),
                    resource: Some("secrets".to_owned()),
                    verb: Some("patch".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            status: None,
        };
        let known = poll::until(SOON, async || {
            let answer = reviews.create(&PostParams::default(), &review).await.ok()?;
            (answer.status?.allowed == allowed).then_some(())
        });
        known.await.expect("the API server learns of rights");
    }

    /// Has somebody else hold the lease.
    pub async fn take_lease(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let thief = json!({"spec": {"holderIdentity": "thief"}});
        leases.patch(&self.lease, &PatchParams::default(), &Patch::Merge(&thief)).await.expect("an admin may");
    }

    /// Leaves it to whoever comes first.
    pub async fn free_lease(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        leases.delete(&self.lease, &DeleteParams::default()).await.expect("an admin may");
    }

    // ---- the journal ----

    /// The small disk of the journals; none where file systems may not be mounted.
    pub fn small_disk(&self) -> Option<&SmallDisk> {
        match &self.disk {
            Disk::Small(disk) => Some(disk),
            Disk::Folder(_) => None,
        }
    }

    /// Puts a file in the place of the first operator's journal: nobody can write into that, not
    /// even root.
    pub fn break_journal(&self) {
        let journal = self.journal("first");
        fs::rename(&journal, journal.with_extension("aside")).expect("it can be renamed");
        fs::write(&journal, "not a folder").expect("a file can be made");
    }

    pub fn mend_journal(&self) {
        let journal = self.disk.path().join("first");
        fs::remove_file(&journal).expect("it was broken");
        fs::rename(journal.with_extension("aside"), &journal).expect("it can be renamed");
    }

    // ---- what is seen ----

    /// Begins a job about a shop: forgets the requests and deaths of earlier ones.
    pub fn begin(&mut self, shop: &str) {
        shop.clone_into(&mut self.about);
        self.api.clear();
        self.tiktok.clear();
        self.deaths.clear();
        self.stops.clear();
        self.replaced_at = None;
    }

    /// Everything that the lane's operators have let out, by name.
    pub async fn let_out(&mut self) -> Vec<(String, String)> {
        self.off_stage().await;
        let mut texts = vec![
            ("the log".to_owned(), std::mem::take(&mut self.logs)),
            ("the metrics".to_owned(), self.metrics.join("\n")),
            ("the statuses".to_owned(), self.view.now(|shown| format!("{:?}", shown.statuses))),
        ];
        for resource in ["events.events.k8s.io", "tiktokshopintegrations", "leases"] {
            let args = ["get", resource, "-n", &self.namespace, "-o", "json", "--show-managed-fields"];
            texts.push((resource.to_owned(), self.plane.kubectl_ok(&args).await));
        }
        texts
    }

    /// The last lines that the operators wrote themselves, not their libraries.
    pub fn tail(&self) -> String {
        let all: String = [&self.first, &self.second].into_iter().flatten().map(Operator::logs).collect();
        let own = |line: &&str| !line.contains("TRACE") || line.contains("\"transaction\"");
        let lines: Vec<&str> = all.lines().filter(own).filter(|line| line.contains("tiktok_shop_operator")).collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// This job's requests about a shop's refresh, at both sides, without values.
    pub fn trace(&self, shop: &str, since: Instant) -> String {
        let at = |time: Option<Instant>| {
            time.map_or_else(
                || "-".to_owned(),
                |time| format!("{:.3}", time.saturating_duration_since(since).as_secs_f64()),
            )
        };
        let line = |side: &str, seen: &Seen| {
            let Seen { seq, method, path, received, forwarded, answered, delivered_at, status, rule, .. } = seen;
            format!(
                "{} {side} #{seq} {method} {path} forwarded {} answered {} delivered {} status {status:?} rule {rule:?}{}",
                at(Some(*received)),
                at(*forwarded),
                at(*answered),
                at(*delivered_at),
                if seen.client_gone { " client gone" } else { "" }
            )
        };
        let about =
            |seen: &&Seen| seen.path.contains(shop) || (seen.path.contains("/events") && seen.body.contains(shop));
        let api = self.api.requests();
        let tiktok = self.tiktok.requests();
        let mut lines: Vec<(Instant, String)> = api
            .iter()
            .filter(about)
            .map(|seen| (seen.received, line("api   ", seen)))
            .chain(tiktok.iter().map(|seen| (seen.received, line("tiktok", seen))))
            .collect();
        lines.extend(self.deaths.iter().map(|died| {
            (
                died.at,
                format!(
                    "{} killed{}",
                    at(Some(died.at)),
                    if died.journaled.is_empty() { "" } else { ", leaves tokens in its journal" }
                ),
            )
        }));
        lines.extend(
            self.stops.iter().map(|(from, to)| (*from, format!("{} stopped until {}", at(Some(*from)), at(Some(*to))))),
        );
        lines.sort_by_key(|(at, _)| *at);
        let lines: Vec<String> = lines.into_iter().map(|(_, line)| line).collect();
        lines.join("\n")
    }
}

/// The library that `faketime` preloads; none where it is not installed.
pub fn faketime() -> Option<String> {
    // Asked once: of many that are started at the same time, one now and then does not come up.
    static LIBRARY: OnceLock<Option<String>> = OnceLock::new();
    let ask = || {
        let asked = std::process::Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
        let said = String::from_utf8(asked.ok()?.stdout).ok()?;
        said.split_whitespace().next().map(str::to_owned)
    };
    LIBRARY.get_or_init(ask).clone()
}

pub fn is_ready(status: &Value) -> bool {
    fixtures::has_condition(status, "Ready", "True", "TokenValid")
}

/// Waits until the operator says that it leads, or that it does not.
pub async fn wait_leads(operator: &Operator, leads: bool) {
    const WITHIN: Duration = Duration::from_mins(1);
    let wanted = if leads { 1.0 } else { 0.0 };
    let reached = poll::until(WITHIN, async || {
        operator.probe("/livez").await?;
        (operator.metrics().await.value("tiktokshop_leader", &[]) == Some(wanted)).then_some(())
    });
    assert!(reached.await.is_some(), "tiktokshop_leader did not come to {wanted} in {WITHIN:?}");
}
