//! A namespace with a simulated TikTok and two replicas of the operator.

use std::{path::Path, time::Duration};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tiktok_shop_testkit::{
    control_plane::ControlPlane,
    exposition::Scrape,
    fixtures::{self, IntegrationFixture, SecretFixture, app_secret, integration},
    operator::{Builder, Operator},
    poll,
    proxy::Proxy,
    rbac::{self, Scope},
    simulator::{Action, App, Fault, NewShop, Shop, Simulator},
};
use tokio::sync::OnceCell;

/// For what takes one look, a few requests, or a lease to run out.
pub const SOON: Duration = Duration::from_secs(40);

pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 24 * HOUR;

pub struct Stage {
    pub client: Client,
    pub namespace: String,
    pub simulator: Simulator,
    pub app: App,
    /// The ways of the two replicas to the API server.
    pub ways: [Proxy; 2],
    pub plane: &'static ControlPlane,
    identity: rbac::Identity,
}

/// Two replicas of one operator: the first leads.
pub struct Replicas {
    pub leader: Operator,
    pub standby: Operator,
}

impl Stage {
    pub async fn new() -> Self {
        static CRD: OnceCell<()> = OnceCell::const_new();
        let plane = ControlPlane::shared().await;
        CRD.get_or_init(async || {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/tiktokshopintegrations.tiktokshop.dev.yaml");
            let crd = std::fs::read_to_string(path).expect("the CRD is in the tree");
            fixtures::install_crd(plane, &crd).await;
        })
        .await;
        let client = plane.kube_client().await;
        let namespace = plane.create_namespace("monitoring").await;
        let identity = rbac::install(plane, &namespace, &Scope::Namespaces(vec![namespace.clone()])).await;
        let examples = Path::new(env!("CARGO_BIN_EXE_tiktok-shop-operator")).with_file_name("examples");
        let simulator = Simulator::start(&examples.join("tiktok-shop-simulator")).await;
        let app = simulator.create_any_app().await;
        app_secret(&namespace, "app", &app.app_key, &app.app_secret).create(&client).await;
        let ways = [(); 2].map(|()| Proxy::start(&plane.url(), Some(&plane.ca_pem())));
        Self { client, namespace, simulator, app, ways, plane, identity }
    }

    /// A replica without the metrics of each integration, as in a large fleet.
    pub fn operator(&self, name: &str, way: &Proxy) -> Builder {
        Operator::builder(env!("CARGO_BIN_EXE_tiktok-shop-operator"))
            .name(name)
            .kubeconfig(self.plane.kubeconfig_for(&self.identity.token, Some(&way.url())))
            .token_endpoint(&self.simulator.token_endpoint())
            .authorization_endpoint(&self.simulator.authorization_endpoint())
            .lease_namespace(&self.namespace)
            .namespace(&self.namespace)
            .flag("request-timeout", "2s")
            .flag("per-integration-metrics", "off")
    }

    /// The label `lease` of its metrics.
    pub fn lease(&self, name: &str) -> String {
        format!("{}/{name}", self.namespace)
    }

    /// Two replicas at work, and one shop with which all is well.
    pub async fn replicas(&self) -> Replicas {
        self.shop("well", 5 * DAY).await;
        let first = |builder: Builder| builder.flag("lease-name", "one");
        let leader = first(self.operator("leader", &self.ways[0])).start();
        wait(&leader, "leadership", |scrape| is(scrape, "tiktokshop_leader", &[], 1.0)).await;
        let standby = first(self.operator("standby", &self.ways[1])).start();
        let replicas = Replicas { leader, standby };
        replicas.scrape("one shop with which all is well", |scrape| in_state(scrape, "TokenValid", 1.0)).await;
        replicas
    }

    /// A shop, its token Secret and its integration, all of this name, with so much life left.
    pub async fn shop(&self, name: &str, seconds_left: i64) {
        self.new_shop(&self.living(name, seconds_left), |integration| integration).await;
    }

    pub fn living(&self, name: &str, seconds_left: i64) -> NewShop {
        NewShop::of(&self.app).id(name).access_remaining(seconds_left)
    }

    pub async fn new_shop(&self, shop: &NewShop, make: impl FnOnce(IntegrationFixture) -> IntegrationFixture) {
        let shop = self.simulator.create_shop(shop).await;
        self.integrate(&shop, make).await;
    }

    /// A shop without tokens, whose authorization code came too late.
    pub async fn latecomer(&self, name: &str) {
        let shop = self.simulator.create_shop(&self.living(name, DAY)).await;
        let expired = self.simulator.authorize_for(&shop.id, -5).await;
        SecretFixture::new(&self.namespace, name).value("auth_code", expired).create(&self.client).await;
        integration(&self.namespace, name, name, "app").create(&self.client).await;
    }

    /// A shop to each refresh of which TikTok does the same.
    pub async fn shop_that_meets(&self, action: Action, name: &str, seconds_left: i64) {
        let shop = self.simulator.create_shop(&self.living(name, seconds_left)).await;
        self.simulator.add_fault(Fault::always(action).shop(name)).await;
        self.integrate(&shop, |integration| integration).await;
    }

    async fn integrate(&self, shop: &Shop, make: impl FnOnce(IntegrationFixture) -> IntegrationFixture) {
        SecretFixture::new(&self.namespace, &shop.id)
            .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
            .create(&self.client)
            .await;
        make(integration(&self.namespace, &shop.id, &shop.id, "app")).create(&self.client).await;
    }

    pub async fn request(&self, name: &str, value: &str) {
        fixtures::request_refresh(&self.client, &self.namespace, name, value).await;
    }

    /// Has the status say that the integration was due two minutes ago, as it does where nobody has acted on it.
    pub async fn was_due(&self, name: &str) {
        let due = chrono::Utc::now() - chrono::TimeDelta::minutes(2);
        let status = json!({"status": {"nextRefreshTime": due.format("%Y-%m-%dT%H:%M:%SZ").to_string()}});
        let api = fixtures::integrations(&self.client, &self.namespace);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.expect("an admin may do this");
    }

    /// Gives the lease to somebody who neither acts nor renews it, for an hour.
    pub async fn steal_lease(&self, name: &str) {
        let leases: Api<k8s_openapi::api::coordination::v1::Lease> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let thief = json!({"spec": {
            "holderIdentity": "thief", "leaseDurationSeconds": 3_600,
            "renewTime": chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        }});
        leases.patch(name, &PatchParams::default(), &Patch::Merge(&thief)).await.expect("an admin may do this");
    }

    pub async fn status(&self, name: &str) -> Value {
        fixtures::get_status(&self.client, &self.namespace, name).await
    }
}

impl Replicas {
    /// What both say, once each says what is looked for.
    pub async fn scrape(&self, what: &str, predicate: impl Fn(&Scrape) -> bool) -> [Scrape; 2] {
        [wait(&self.leader, what, &predicate).await, wait(&self.standby, what, &predicate).await]
    }
}

/// What an operator says, once it says what is looked for.
pub async fn wait(operator: &Operator, what: &str, predicate: impl Fn(&Scrape) -> bool) -> Scrape {
    let mut last = String::new();
    let found = poll::until(SOON, async || {
        operator.probe("/readyz").await?;
        last = operator.metrics_text().await;
        Some(Scrape::parse(&last)).filter(|scrape| predicate(scrape))
    });
    found.await.unwrap_or_else(|| {
        panic!("the metrics did not come to {what}; they were:\n{last}\n{}", operator.process().tail(20))
    })
}

/// Whether a metric has this value; one of a sum that has no parts is 0.
pub fn is(scrape: &Scrape, name: &str, labels: &[(&str, &str)], value: f64) -> bool {
    (scrape.sum(name, labels) - value).abs() < 0.5
}

/// Whether so many integrations have this reason.
pub fn in_state(scrape: &Scrape, reason: &str, number: f64) -> bool {
    is(scrape, "tiktokshop_integrations", &[("reason", reason)], number)
}
