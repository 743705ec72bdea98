//! The real helm, on a real API server.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use tempfile::TempDir;
use tiktok_shop_testkit::{control_plane::ControlPlane, tools::tool};
use tokio::io::AsyncWriteExt as _;

const HELM_WITHIN: Duration = Duration::from_mins(2);

/// The chart in the tree.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/tiktok-shop-operator")
}

/// How a run of helm ended.
#[derive(Debug)]
pub struct Ran {
    pub ok: bool,
    pub stdout: String,
    pub stderr: String,
}

/// helm as admin of a control plane, with nothing of this machine's own settings.
#[derive(Debug)]
pub struct Helm<'a> {
    plane: &'a ControlPlane,
    program: PathBuf,
    home: TempDir,
}

impl<'a> Helm<'a> {
    pub async fn of(plane: &'a ControlPlane) -> Self {
        Self::version("helm", plane).await
    }

    /// Another version of it, by the name of its folder in `tests/tools/`.
    pub async fn version(name: &str, plane: &'a ControlPlane) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        Self { plane, program: tool(name).await, home }
    }

    /// Runs it; `values` are what `-f -` reads.
    pub async fn run(&self, args: &[&str], values: Option<&Value>) -> Ran {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(args).env_clear().env("HOME", self.home.path()).env("KUBECONFIG", self.plane.admin_kubeconfig());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if values.is_some() {
            command.args(["-f", "-"]);
        }
        let mut child = command.spawn().unwrap_or_else(|error| panic!("failed to start helm: {error}"));
        let mut input = child.stdin.take().expect("it was asked for");
        // A helm that ended early says why on its standard error.
        let _ = input.write_all(values.map(Value::to_string).unwrap_or_default().as_bytes()).await;
        drop(input);
        let output = tokio::time::timeout(HELM_WITHIN, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("helm {} does not end", args.join(" "))).expect("it ran");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("helm prints UTF-8");
        Ran { ok: output.status.success(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Runs it and returns what it printed; panics with what it said where it fails.
    pub async fn ok(&self, args: &[&str], values: Option<&Value>) -> String {
        let ran = self.run(args, values).await;
        assert!(ran.ok, "helm {} failed:\n{}\nvalues: {values:?}", args.join(" "), ran.stderr);
        ran.stdout
    }

    /// `helm install` of the chart in the tree; what it printed.
    pub async fn install(&self, namespace: &str, release: &str, values: &Value) -> String {
        let chart = chart();
        let chart = chart.to_str().expect("its path is text");
        self.ok(&["install", release, chart, "--namespace", namespace], Some(values)).await
    }
}

/// The Deployments of a release, as the API server stores them.
pub async fn deployments(plane: &ControlPlane, namespace: &str, release: &str) -> Vec<Deployment> {
    let api: Api<Deployment> = Api::namespaced(plane.kube_client().await, namespace);
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/instance={release}"));
    let listed = api.list(&selector).await.unwrap_or_else(|error| panic!("failed to list Deployments: {error}"));
    assert!(!listed.items.is_empty(), "the release {namespace}/{release} has no Deployment");
    listed.items
}

/// The one Deployment of a release.
pub async fn deployment(plane: &ControlPlane, namespace: &str, release: &str) -> Deployment {
    let mut all = deployments(plane, namespace, release).await;
    assert_eq!(all.len(), 1, "the release {namespace}/{release} has one Deployment");
    all.remove(0)
}
