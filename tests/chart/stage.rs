//! A release of the chart, a namespace of shops, and the job that the operator is there for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    control_plane::ControlPlane,
    fixtures::{self, SecretFixture, app_secret, has_condition, integration},
    poll,
    simulator::{Action, App, Fault, NewShop, Simulator},
};

use crate::helm::{Helm, deployment};
use crate::kubelet::Pod;

/// For what takes a few requests, on a machine that has much else to do.
pub const SOON: Duration = Duration::from_secs(30);

pub const HOUR: i64 = 3_600;
const PLENTY: i64 = 5 * 24 * HOUR;

/// The name of each release.
pub const RELEASE: &str = "op";

/// How Secrets are noticed, and where the operator may work: what decides about its rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub secret_access: &'static str,
    /// Roles in the namespaces given, rather than a `ClusterRole`.
    pub roles: bool,
}

pub fn simulator_binary() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_tiktok-shop-operator")).with_file_name("examples").join("tiktok-shop-simulator")
}

/// A release in a namespace of its own.
pub struct Stage<'a> {
    pub plane: &'a ControlPlane,
    pub client: Client,
    pub helm: Helm<'a>,
    pub simulator: &'a Simulator,
    app: App,
    /// Where the release is.
    pub namespace: String,
    /// Where the shops are.
    pub shops: String,
    /// Whether the release may restart what uses the tokens.
    restarts: bool,
}

/// What it may restart then.
pub const WORKLOADS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

impl<'a> Stage<'a> {
    /// Installs the chart on a control plane that has the CRD.
    pub async fn install(plane: &'a ControlPlane, simulator: &'a Simulator, mode: Mode, extra: &Value) -> Self {
        let mut this = Self::without_release(plane, simulator).await;
        let mut values = this.values(mode);
        merge(&mut values, extra);
        this.restarts = values["rolloutRestart"]["enabled"] == true;
        this.helm.install(&this.namespace, RELEASE, &values).await;
        this
    }

    /// Both namespaces and the app, but no release yet.
    pub async fn without_release(plane: &'a ControlPlane, simulator: &'a Simulator) -> Self {
        let client = plane.kube_client().await;
        let namespace = plane.create_namespace("chart").await;
        let shops = plane.create_namespace("shops").await;
        let app = simulator.create_any_app().await;
        app_secret(&shops, "app", &app.app_key, &app.app_secret).create(&client).await;
        Self { plane, client, helm: Helm::of(plane).await, simulator, app, namespace, shops, restarts: false }
    }

    /// What tells this release from the others on the same API server.
    pub fn values(&self, mode: Mode) -> Value {
        let mut values = json!({
            "crds": {"enabled": false},
            "tokenEndpoint": self.simulator.token_endpoint(),
            "authorizationEndpoint": self.simulator.authorization_endpoint(),
            "secretAccess": mode.secret_access,
            "requestTimeout": "2s",
        });
        if mode.roles {
            values["namespaces"] = json!([self.shops]);
        } else {
            values["watchLabelSelector"] = format!("stage={}", self.shops).into();
        }
        values
    }

    /// A shop, its token Secret and its integration, with so much life left.
    async fn shop(&self, name: &str, seconds_left: i64) {
        let shop = NewShop::of(&self.app).id(&self.id(name)).access_remaining(seconds_left);
        let shop = self.simulator.create_shop(&shop).await;
        SecretFixture::new(&self.shops, name)
            .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
            .create(&self.client)
            .await;
        let mut integration = integration(&self.shops, name, name, "app").label("stage", &self.shops);
        if self.restarts {
            let targets = WORKLOADS.map(|kind| json!({"kind": kind, "name": "web"}));
            integration = integration.field("rolloutRestartTargets", targets.to_vec());
        }
        integration.create(&self.client).await;
    }

    /// What uses the tokens; it runs nowhere.
    async fn workloads(&self) {
        for kind in WORKLOADS {
            let mut manifest = json!({
                "apiVersion": "apps/v1", "kind": kind, "metadata": {"namespace": self.shops, "name": "web"},
                "spec": {
                    "selector": {"matchLabels": {"app": kind}},
                    "template": {
                        "metadata": {"labels": {"app": kind}},
                        "spec": {"containers": [{"name": "main", "image": "storefront"}]},
                    },
                },
            });
            if kind == "StatefulSet" {
                manifest["spec"]["serviceName"] = "web".into();
            }
            fixtures::create(&self.client, &manifest).await;
        }
    }

    /// A shop that is due and one that is not.
    pub async fn open_shops(&self) {
        if self.restarts {
            self.workloads().await;
        }
        self.shop("due", HOUR).await;
        self.shop("later", PLENTY).await;
    }

    /// A shop's id at TikTok.
    pub fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.shops)
    }

    /// A pod of the release's Deployment.
    pub async fn pod(&self) -> Pod {
        Pod::start(self.plane, &deployment(self.plane, &self.namespace, RELEASE).await).await
    }

    pub async fn wait_status(&self, name: &str, what: &str, predicate: impl Fn(&Value) -> bool) -> Value {
        fixtures::wait_for_status(&self.client, &self.shops, name, what, predicate, SOON).await
    }

    /// Asks for a refresh by annotation and waits until it is handled.
    pub async fn request(&self, name: &str, value: &str) -> Value {
        fixtures::request_refresh(&self.client, &self.shops, name, value).await;
        self.wait_status(name, "the request handled", |status| status["lastHandledRefreshRequest"] == value).await
    }

    /// Two refreshes that fail alike: their events are one series.
    pub async fn fail_twice(&self) {
        for request in ["fails", "fails again"] {
            self.simulator.add_fault(Fault::once(Action::code(77)).shop(&self.id("later"))).await;
            let status = self.request("later", request).await;
            assert!(status["lastError"].is_object(), "the refresh {request}: {status:#}");
        }
    }

    /// The Lease of this release's one operator.
    pub async fn lease(&self) -> Value {
        let args = ["get", "leases", "-n", &self.namespace, "-o", "json"];
        let leases: Value = serde_json::from_str(&self.plane.kubectl_ok(&args).await).expect("kubectl prints JSON");
        leases["items"][0].clone()
    }

    /// Everything that the operator is there for: what is due and what is asked for is refreshed, a failure is
    /// told and told again, the Lease is held and renewed, and all of it can be seen from outside.
    pub async fn job(&self, pod: &Pod) {
        pod.wait_ready(SOON).await;
        assert_eq!(pod.probe("/livez").await, Some(200), "/livez of {}", pod.name);
        let refreshed = |status: &Value| status["lastRefreshTime"].is_string() && is_ready(status);
        self.wait_status("due", "refreshed", refreshed).await;
        self.assert_current("due").await;
        if self.restarts {
            let restarted = |status: &Value| status["rolloutRestart"]["restartedAt"].is_string();
            self.wait_status("due", "what uses its tokens restarted", restarted).await;
        }
        self.wait_status("later", "Ready without a refresh", is_ready).await;
        assert!(is_ready(&self.request("later", "now").await), "the refresh that was asked for went well");
        self.assert_current("later").await;

        self.fail_twice().await;
        let told = poll::until(SOON, async || {
            let events = fixtures::events(&self.client, &self.shops, "later").await;
            events.iter().any(|event| event.reason == "RefreshFailed" && event.count == 2).then_some(())
        });
        assert!(told.await.is_some(), "two alike failures are one event, told twice");
        assert!(is_ready(&self.request("later", "mended").await), "all is well again");

        let lease = self.lease().await;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        assert!(holder.starts_with(&pod.name), "the Lease names the pod {}: {lease:#}", pod.name);
        let renewed = poll::until(SOON, async || {
            (self.lease().await["spec"]["renewTime"] != lease["spec"]["renewTime"]).then_some(())
        });
        assert!(renewed.await.is_some(), "the Lease is renewed");

        let metrics = pod.metrics().await;
        assert_eq!(metrics.value("tiktokshop_leader", &[]), Some(1.0), "it leads");
        let known = metrics.sum("tiktokshop_integrations", &[]);
        assert!((1.5..2.5).contains(&known), "it knows both integrations: {known}");
        let count = metrics.sum("tiktokshop_refresh_total", &[("result", "success")]);
        assert!((2.5..3.5).contains(&count), "refreshes that went well");
        self.simulator.assert_no_violations().await;
    }

    /// The Secret holds the pair that is current at TikTok.
    pub async fn assert_current(&self, name: &str) {
        let shop = self.simulator.shop(&self.id(name)).await;
        let values = fixtures::secret_values(&self.client, &self.shops, name).await;
        assert_eq!(values["refresh_token"], shop.refresh_token(), "the refresh token of {name}");
        assert_eq!(values["access_token"], shop.access_token(), "the access token of {name}");
    }
}

pub fn is_ready(status: &Value) -> bool {
    has_condition(status, "Ready", "True", "TokenValid")
}

/// Values over values, as helm merges them.
pub fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
