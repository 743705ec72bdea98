//! What the commands of one page are run in: a cluster, a folder, and a simulated TikTok Shop.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tiktok_shop_testkit::control_plane::{ControlPlane, Options};
use tiktok_shop_testkit::fixtures::{self, SecretFixture, app_secret, integration};
use tiktok_shop_testkit::operator::{Builder, Operator};
use tiktok_shop_testkit::poll;
use tiktok_shop_testkit::rbac::{self, Scope};
use tiktok_shop_testkit::simulator::{App, NewShop, Shop, Simulator};
use tiktok_shop_testkit::tools::tool;
use tokio::sync::Mutex;

use crate::markdown::root;

const PATIENCE: Duration = Duration::from_mins(1);

/// For one block.
const LONGEST_BLOCK: Duration = Duration::from_mins(3);

/// What the pages call the app, as a reader would fill it in.
const APP: (&str, &str) = ("demo", "s3cret");

/// Seconds that the access tokens of the shops have left: two hours.
const LEFT: i64 = 7_200;

/// How commands ended.
pub struct Ran {
    pub ok: bool,
    pub output: String,
}

/// By namespace and name of the Deployment, with the arguments that it gives.
type Operators = BTreeMap<(String, String), (Vec<String>, Operator)>;

pub struct Stage {
    pub plane: ControlPlane,
    simulator: Simulator,
    app: App,
    /// Those that a page brings; what they hold is fresh.
    shops: Vec<Shop>,
    /// An authorization code for each of them.
    codes: Vec<String>,
    folder: TempDir,
    journals: TempDir,
    operators: Mutex<Operators>,
    /// What a page finds at work.
    installed: Vec<Operator>,
}

impl Stage {
    /// An empty cluster; TikTok knows an app and two shops.
    pub async fn empty() -> Self {
        let plane = ControlPlane::start(Options::default()).await;
        let binary = Path::new(env!("CARGO_BIN_EXE_tiktok-shop-operator"));
        let simulator = Simulator::start(&binary.with_file_name("examples").join("tiktok-shop-simulator")).await;
        let app = simulator.create_app(APP.0, APP.1).await;
        let (mut shops, mut codes) = (Vec::new(), Vec::new());
        for id in ["shop-1", "shop-2"] {
            shops.push(simulator.create_shop(&NewShop::of(&app).id(id).access_remaining(LEFT)).await);
            codes.push(simulator.authorize(id).await);
        }
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let programs = folder.path().join(".bin");
        std::fs::create_dir(&programs).expect("a folder can be made");
        for program in
            [plane.assets().join("kubectl"), binary.to_owned(), PathBuf::from(env!("CARGO_BIN_EXE_kubectl-tiktokshop"))]
        {
            let name = program.file_name().expect("a program has a name");
            symlink(&program, programs.join(name)).expect("a link can be made");
        }
        // The pages name what is in the tree by its path there.
        for entry in ["charts", "docs"] {
            symlink(root().join(entry), folder.path().join(entry)).expect("a link can be made");
        }
        let answer = json!({"code": 0, "message": "success", "request_id": "r1", "data": shops[0].data});
        std::fs::write(folder.path().join("answer.json"), answer.to_string()).expect("a file can be written");
        let journals = tempfile::tempdir().expect("a temporary folder can be made");
        Self {
            plane,
            simulator,
            app,
            shops,
            codes,
            folder,
            journals,
            operators: Mutex::default(),
            installed: Vec::new(),
        }
    }

    /// A cluster with the operator at work, and `shop-1` in namespace `shops`.
    pub async fn with_a_shop() -> Self {
        let mut stage = Self::empty().await;
        let client = stage.plane.kube_client().await;
        let crd = std::fs::read_to_string(root().join("crds/tiktokshopintegrations.tiktokshop.dev.yaml"));
        fixtures::install_crd(&stage.plane, &crd.expect("the CRD is in the tree")).await;
        for namespace in [rbac::NAME, "shops"] {
            stage.plane.kubectl_ok(&["create", "namespace", namespace]).await;
        }
        let identity = rbac::install(&stage.plane, rbac::NAME, &Scope::Cluster).await;
        let operator = stage.operator(rbac::NAME, rbac::NAME, &identity.token).start();
        operator.wait_ready(PATIENCE).await;
        stage.installed.push(operator);
        app_secret("shops", "tiktok-app", APP.0, APP.1).create(&client).await;
        let resident = NewShop::of(&stage.app).id("resident").access_remaining(LEFT);
        let shop = stage.simulator.create_shop(&resident).await;
        SecretFixture::new("shops", "shop-1-tokens")
            .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
            .create(&client)
            .await;
        integration("shops", "shop-1", "shop-1-tokens", "tiktok-app").team("1").create(&client).await;
        let refreshed = |status: &Value| fixtures::has_condition(status, "Refreshed", "True", "Refreshed");
        fixtures::wait_for_status(&client, "shops", "shop-1", "refreshed", refreshed, PATIENCE).await;
        stage
    }

    /// A cluster with a release of the chart, and the operator at work as the release has it.
    pub async fn with_a_release() -> Self {
        let stage = Self::empty().await;
        stage.with_helm().await;
        let installed = stage
            .run("helm install tiktok-shop-operator charts/tiktok-shop-operator -n tiktok-shop-operator --create-namespace")
            .await;
        assert!(installed.ok, "the chart can be installed: {}", installed.output);
        stage.settle().await;
        stage
    }

    fn operator(&self, namespace: &str, name: &str, token: &str) -> Builder {
        let journal = self.journals.path().join(format!("{namespace}-{name}"));
        std::fs::create_dir_all(&journal).expect("a folder can be made");
        Operator::builder(env!("CARGO_BIN_EXE_tiktok-shop-operator"))
            .kubeconfig(self.plane.kubeconfig_for(token, None))
            .token_endpoint(&self.simulator.token_endpoint())
            .authorization_endpoint(&self.simulator.authorization_endpoint())
            .env("POD_NAMESPACE", namespace)
            .journal_dir(journal)
    }

    /// Puts `helm` on the path; it is built the first time.
    pub async fn with_helm(&self) {
        let (path, link) = (tool("helm").await, self.folder.path().join(".bin/helm"));
        if !link.exists() {
            symlink(path, link).expect("a link can be made");
        }
    }

    /// What a reader would write in place of what a page shows.
    pub fn fill_in(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (shop, code) in self.shops.iter().zip(&self.codes) {
            let expiry =
                |name: &str| format!("EXPIRY_OF_THE_{name}_TOKEN_OF_{}", shop.id.to_uppercase().replace('-', "_"));
            for (shown, value) in [
                (format!("TTP_access-token-of-{}", shop.id), shop.access_token().to_owned()),
                (format!("TTP_refresh-token-of-{}", shop.id), shop.refresh_token().to_owned()),
                (format!("ROW_code-of-{}", shop.id), code.clone()),
                (expiry("ACCESS"), shop.access_expires_at().to_string()),
                (expiry("REFRESH"), shop.refresh_expires_at().to_string()),
            ] {
                text = text.replace(&shown, &value);
            }
        }
        text.replace("1795491946", &self.shops[0].access_expires_at().to_string())
    }

    /// Writes a file of the page.
    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), self.fill_in(text)).expect("a file can be written");
    }

    /// Runs commands in the page's folder; what they print on both outputs, in order.
    pub async fn run(&self, script: &str) -> Ran {
        let system = std::env::var("PATH").unwrap_or_default();
        let programs = self.folder.path().join(".bin");
        let run = tokio::process::Command::new("bash")
            .args(["-euo", "pipefail", "-c", &format!("exec 2>&1\n{}", self.fill_in(script))])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", format!("{}:{system}", programs.display()))
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env("KUBECONFIG", self.plane.admin_kubeconfig())
            .env("KUBECACHEDIR", self.folder.path().join(".kube-cache"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        match tokio::time::timeout(LONGEST_BLOCK, run).await {
            Ok(output) => {
                let output = output.expect("bash can be started");
                Ran { ok: output.status.success(), output: String::from_utf8_lossy(&output.stdout).into_owned() }
            }
            Err(_) => Ran { ok: false, output: format!("it does not end within {LONGEST_BLOCK:?}") },
        }
    }

    /// What a cluster makes of a Deployment, as far as the pages can tell: a process with its arguments,
    /// as its service account, for as long as there is one, and the word that it is there. Only where TikTok is, where
    /// it listens and the journal's folder are this machine's. (`tests/chart` looks closer.)
    pub async fn settle(&self) {
        let listed = self.plane.kubectl_ok(&["get", "deployments", "-A", "-o", "json"]).await;
        let listed: Value = serde_json::from_str(&listed).expect("kubectl prints JSON");
        let mut operators = self.operators.lock().await;
        let mut wanted = BTreeMap::new();
        for item in listed["items"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let args = item["spec"]["template"]["spec"]["containers"][0]["args"].as_array().into_iter().flatten();
            let args: Vec<String> = args.map(text).skip(1).collect();
            let key = (text(&item["metadata"]["namespace"]), text(&item["metadata"]["name"]));
            wanted.insert(key, (args, item));
        }
        operators.retain(|key, (args, _)| wanted.get(key).is_some_and(|(now, _)| now == args));
        for (key, (args, item)) in wanted {
            let (namespace, name) = (&*key.0, &*key.1);
            if !operators.contains_key(&key) {
                let account = item["spec"]["template"]["spec"]["serviceAccountName"].as_str().unwrap_or_default();
                let token = self.plane.service_account_token(namespace, account).await;
                let ours = ["--token-endpoint=", "--authorization-endpoint=", "--listen=", "--journal-dir="];
                let operator = args
                    .iter()
                    .filter(|arg| !ours.iter().any(|flag| arg.starts_with(flag)))
                    .fold(self.operator(namespace, name, &token), Builder::arg)
                    .start();
                operator.wait_ready(PATIENCE).await;
                operators.insert(key.clone(), (args, operator));
            }
            let generation = &item["metadata"]["generation"];
            if &item["status"]["observedGeneration"] != generation {
                let there = &item["spec"]["replicas"];
                let status = json!({"status": {"observedGeneration": generation, "replicas": there,
                    "updatedReplicas": there, "readyReplicas": there, "availableReplicas": there}});
                let patch =
                    ["patch", "deployment", name, "-n", namespace, "--subresource=status", "--type=merge", "-p"];
                self.plane.kubectl_ok(&[&patch[..], &[&status.to_string()]].concat()).await;
            }
        }
    }

    /// [`Stage::settle`] again and again.
    pub async fn keep_settling(&self) -> std::convert::Infallible {
        loop {
            self.settle().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    /// Runs commands until they end and print as wanted.
    pub async fn run_until(&self, script: &str, wanted: impl Fn(&Ran) -> Result<(), String>) -> Result<(), String> {
        let mut last = String::new();
        let found = poll::until(PATIENCE / 2, async || match wanted(&self.run(script).await) {
            Ok(()) => Some(()),
            Err(why) => {
                last = why;
                None
            }
        })
        .await;
        found.ok_or(last)
    }
}
