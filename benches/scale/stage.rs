//! A control plane, a simulated TikTok, and operators on them.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http::Request;
use kube::Client;
use serde::Deserialize;
use tempfile::TempDir;
use tiktok_shop_testkit::control_plane::{ControlPlane, Options};
use tiktok_shop_testkit::fixtures;
use tiktok_shop_testkit::operator::{Builder, Operator};
use tiktok_shop_testkit::process::{Child, Program};
use tiktok_shop_testkit::rbac::{self, Scope};
use tiktok_shop_testkit::simulator::{App, Simulator};

/// Where the operators' account lives.
const HOME: &str = "tiktok-shop-operator";

/// Longer than any of this takes: a machine under load must not end a measurement.
pub const PATIENCE: Duration = Duration::from_mins(20);

/// A process that used no processor time for so long is at rest. The longest wait for one answer of a
/// saturated API server is shorter.
const AT_REST: Duration = Duration::from_millis(1_500);

/// The programs that are measured.
#[derive(Debug)]
pub struct Binaries {
    /// The operator.
    pub operator: PathBuf,
    /// The simulator.
    pub simulator: PathBuf,
}

/// All that runs.
pub struct Stage {
    pub plane: ControlPlane,
    /// The admin's.
    pub client: Client,
    pub simulator: Simulator,
    pub app: App,
    operator: PathBuf,
    token: String,
    journal: TempDir,
}

/// Processor time used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu {
    pub client: Duration,
    pub api_server: Duration,
    pub etcd: Duration,
    pub simulator: Duration,
}

impl Cpu {
    pub fn since(self, before: Self) -> Self {
        Self {
            client: self.client.saturating_sub(before.client),
            api_server: self.api_server.saturating_sub(before.api_server),
            etcd: self.etcd.saturating_sub(before.etcd),
            simulator: self.simulator.saturating_sub(before.simulator),
        }
    }

    /// What is compared with the goal: without TikTok's part, which is the simulator's.
    pub fn together(self) -> Duration {
        self.client + self.api_server + self.etcd
    }
}

#[derive(Debug, Deserialize)]
pub struct Done {
    pub seconds: f64,
}

/// A bare loop in a process of its own, ready to begin.
pub struct Bare(Child);

impl Bare {
    pub fn process(&self) -> &Child {
        &self.0
    }

    /// Has it begin, and waits for its end.
    pub async fn go(&self) -> Done {
        self.0.signal(tiktok_shop_testkit::process::Signal::USR1);
        let line = self.0.wait_for_line(|line| line.starts_with("done "), PATIENCE).await;
        let line = line.unwrap_or_else(|error| panic!("{error}"));
        serde_json::from_str(line.trim_start_matches("done ")).expect("the bare loop says how long it took")
    }
}

impl Stage {
    pub async fn start(binaries: &Binaries, saved_etcd: Option<&Path>) -> Self {
        // Without an audit log, whose writing is a part of each request's cost.
        let options = Options { audit: false, saved_etcd: saved_etcd.map(Path::to_owned), ..Options::default() };
        let plane = ControlPlane::start(options).await;
        let client = plane.kube_client().await;
        let crd = std::process::Command::new(&binaries.operator).arg("crd").output().expect("the operator runs");
        fixtures::install_crd(&plane, &String::from_utf8_lossy(&crd.stdout)).await;
        plane.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {HOME}}}\n")).await;
        rbac::install(&plane, HOME, &Scope::Cluster).await;
        let token = plane.kubectl_ok(&["create", "token", rbac::NAME, "-n", HOME, "--duration=24h"]).await;
        let simulator = Simulator::start(&binaries.simulator).await;
        let app = simulator.create_app("bench", "not-a-secret").await;
        // In memory, as the chart has it.
        let journal = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder");
        Self {
            plane,
            client,
            simulator,
            app,
            operator: binaries.operator.clone(),
            token: token.trim().to_owned(),
            journal,
        }
    }

    /// An operator as it is deployed, but for what would keep it from showing what it can do: TikTok's
    /// rate limit, and the wait for a lease of the one before.
    pub fn operator(&self, namespace: &str) -> Builder {
        Operator::builder(&self.operator)
            .kubeconfig(self.plane.kubeconfig_for(&self.token, None))
            .token_endpoint(&self.simulator.token_endpoint())
            .namespace(namespace)
            .leader_elect(false)
            .journal_dir(self.journal.path().join(namespace))
            .flag("requests-per-second", "1000")
    }

    /// The bare loop or list: `scale bare …` as the same account.
    pub async fn bare(&self, args: &[&str]) -> Bare {
        let program = std::env::current_exe().expect("this program has a path");
        let kubeconfig = self.plane.kubeconfig_for(&self.token, None);
        let mut program = Program::new(program).name("bare").clear_env().arg("bare").args(args);
        program = program.arg("--kubeconfig").arg(kubeconfig);
        let child = program.spawn().unwrap_or_else(|error| panic!("the bare loop does not start: {error}"));
        child.wait_for_line(|line| line == "ready", PATIENCE).await.unwrap_or_else(|error| panic!("{error}"));
        Bare(child)
    }

    /// Processor time used so far, with that of a client.
    pub fn cpu(&self, client: &Child) -> Cpu {
        let (api_server, etcd) = self.plane.cpu_time();
        let of = |child: &Child| child.cpu_time().unwrap_or_default();
        Cpu { client: of(client), api_server, etcd, simulator: of(self.simulator.process()) }
    }

    /// Sends a body as admin.
    pub async fn send(&self, method: http::Method, path: &str, body: Vec<u8>) -> kube::Result<String> {
        let media = if method == http::Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(path).header(http::header::CONTENT_TYPE, media);
        self.client.request_text(request.body(body).expect("a path is a URI")).await
    }

    /// A namespace of this name, with the app's Secret.
    pub async fn namespace(&self, name: &str) {
        self.plane.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")).await;
        fixtures::app_secret(name, "app", &self.app.app_key, &self.app.app_secret).apply(&self.client).await;
        let dir = self.journal.path().join(name);
        std::fs::create_dir_all(dir).expect("a folder can be made");
    }

    /// Makes every version that a watch could go on from too old, as a compaction does: the operator
    /// stands still while something is written and the API server begins anew with an empty history.
    pub async fn expire_watches(&self, operator: &Operator, namespace: &str) {
        operator.pause();
        for label in ["1", "2"] {
            let body = format!(r#"{{"metadata":{{"labels":{{"relist":"{label}"}}}}}}"#);
            let path = format!("/api/v1/namespaces/{namespace}/secrets/app");
            self.send(http::Method::PATCH, &path, body.into_bytes()).await.expect("a Secret can be patched");
        }
        self.plane.stop_api_server().await;
        self.plane.start_api_server().await;
        operator.resume();
    }
}

/// Waits until a process has come to rest; when that was.
pub async fn at_rest(process: &Child) -> Instant {
    let began = Instant::now();
    let (mut used, mut since) = (process.cpu_time(), Instant::now());
    while since.elapsed() < AT_REST {
        assert!(began.elapsed() < PATIENCE, "{} does not come to rest:\n{}", process.name(), process.tail(20));
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = process.cpu_time();
        if now != used {
            (used, since) = (now, Instant::now());
        }
    }
    since
}
