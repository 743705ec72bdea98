//! What a kubelet makes of a pod, as far as one machine without containers can: a process with the
//! pod's arguments, environment, volumes and service account, and nothing else.
//!
//! Two things differ, and no more. Mounted folders are temporary ones, so arguments that name a mount
//! path name that folder instead; and pods of one machine share its network, so the port to listen on
//! is a free one of 127.0.0.1. The token comes by a kubeconfig in place of the usual folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, PodSpec, Secret, Volume};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tempfile::TempDir;
use tiktok_shop_testkit::{
    control_plane::{ControlPlane, service_account_user},
    exposition::Scrape,
    poll,
    ports::free_port,
    process::{Child, Program, Signal},
};

use crate::stage::SOON;

const OPERATOR: &str = env!("CARGO_BIN_EXE_tiktok-shop-operator");

/// A pod at work.
pub struct Pod {
    pub name: String,
    /// Its service account, as the API server names who asks.
    pub user: String,
    /// The folders of its volumes, by name.
    pub volumes: BTreeMap<String, PathBuf>,
    pub process: Child,
    url: String,
    namespace: String,
    deployment: String,
    plane_client: kube::Client,
    _root: TempDir,
}

impl Pod {
    /// Starts a pod of a Deployment as the API server stores it.
    pub async fn start(plane: &ControlPlane, deployment: &Deployment) -> Self {
        let client = plane.kube_client().await;
        let metadata = &deployment.metadata;
        let (namespace, owner) = (metadata.namespace.clone(), metadata.name.clone());
        let (namespace, owner) = (namespace.expect("it is stored"), owner.expect("it is stored"));
        let template = deployment.spec.as_ref().expect("it has a spec").template.clone();
        let spec = template.spec.expect("a template has a spec");
        let [container] = &spec.containers[..] else { panic!("there is one container") };
        assert_eq!(container.command, None, "the image's entry point is run");

        let root = tempfile::tempdir().expect("a temporary folder can be made");
        let mut volumes = BTreeMap::new();
        for volume in spec.volumes.iter().flatten() {
            let folder = root.path().join(&volume.name);
            std::fs::create_dir(&folder).expect("a folder can be made");
            fill(&client, &namespace, volume, &folder).await;
            volumes.insert(volume.name.clone(), folder);
        }

        let port = free_port();
        let uid = format!("uid-of-{owner}-{port}");
        let name = format!("{owner}-{port}");
        let account = spec.service_account_name.clone().expect("it names its service account");
        let fields = BTreeMap::from([
            ("metadata.name", name.clone()),
            ("metadata.namespace", namespace.clone()),
            ("metadata.uid", uid),
            ("spec.serviceAccountName", account.clone()),
        ]);
        let environment = environment(container, &fields, &plane.url());
        let mut program = Program::new(OPERATOR).name(&name).clear_env();
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            program = program.env("LLVM_PROFILE_FILE", profile);
        }
        program = environment.iter().fold(program, |program, (key, value)| program.env(key, value));
        if mounts_token(&spec) {
            let token = plane.service_account_token(&namespace, &account).await;
            program = program.env("KUBECONFIG", plane.kubeconfig_for(&token, None));
        }
        for arg in container.args.iter().flatten() {
            program = program.arg(argument(arg, container, &volumes, port));
        }
        let process = program.spawn().unwrap_or_else(|error| panic!("failed to start {OPERATOR}: {error}"));
        let user = service_account_user(&namespace, &account);
        let url = format!("http://127.0.0.1:{port}");
        Self { name, user, volumes, process, url, namespace, deployment: owner, plane_client: client, _root: root }
    }

    /// Waits until its readiness probe succeeds, and then says so in the Deployment's status, as a
    /// controller would.
    pub async fn wait_ready(&self, timeout: Duration) {
        let ready = poll::until(timeout, async || {
            if let Some(status) = self.process.exit_status() {
                return Some(Err(format!("ended with {status}")));
            }
            (self.probe("/readyz").await == Some(200)).then_some(Ok(()))
        });
        let failure = ready.await.unwrap_or_else(|| Err(format!("was not ready in {timeout:?}")));
        if let Err(failure) = failure {
            panic!("{} {failure}; its last lines:\n{}", self.name, self.process.tail(30));
        }
        let api: Api<Deployment> = Api::namespaced(self.plane_client.clone(), &self.namespace);
        let stored = api.get(&self.deployment).await.expect("the Deployment is there");
        let status = json!({"status": {
            "observedGeneration": stored.metadata.generation,
            "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        }});
        let patched = api.patch_status(&self.deployment, &PatchParams::default(), &Patch::Merge(&status)).await;
        patched.unwrap_or_else(|error| panic!("failed to tell that {} is available: {error}", self.deployment));
    }

    /// The HTTP status of one of its paths; none where nobody answers.
    pub async fn probe(&self, path: &str) -> Option<u16> {
        self.get(path).await.map(|(status, _)| status)
    }

    pub async fn metrics(&self) -> Scrape {
        let (status, text) = self.get("/metrics").await.expect("it serves metrics");
        assert_eq!(status, 200, "/metrics: {text}");
        Scrape::parse(&text)
    }

    async fn get(&self, path: &str) -> Option<(u16, String)> {
        let http = reqwest::Client::builder().no_proxy().timeout(SOON).build().expect("a client");
        let answer = http.get(format!("{}{path}", self.url)).send().await.ok()?;
        Some((answer.status().as_u16(), answer.text().await.ok()?))
    }

    /// Ends it as a kubelet does, within its grace period; it is to end well.
    pub async fn stop(self, timeout: Duration) {
        self.process.signal(Signal::TERM);
        let status = self.process.wait_exit(timeout).await.unwrap_or_else(|error| panic!("{error}"));
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, self.process.tail(30));
    }
}

fn mounts_token(spec: &PodSpec) -> bool {
    // The account itself says no: only the pod's own word counts.
    spec.automount_service_account_token == Some(true)
}

async fn fill(client: &kube::Client, namespace: &str, volume: &Volume, folder: &std::path::Path) {
    let name = &volume.name;
    let (items, data) = if volume.empty_dir.is_some() {
        return;
    } else if let Some(source) = &volume.config_map {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let map = api.get(&source.name).await.unwrap_or_else(|error| panic!("volume {name}: {error}"));
        let data = map.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes())).collect();
        (source.items.clone(), data)
    } else if let Some(source) = &volume.secret {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let secret = source.secret_name.as_deref().expect("it names a Secret");
        let secret = api.get(secret).await.unwrap_or_else(|error| panic!("volume {name}: {error}"));
        let data = secret.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)).collect();
        (source.items.clone(), data)
    } else {
        panic!("volume {name}: of a kind that this kubelet does not know")
    };
    let data: BTreeMap<String, Vec<u8>> = data;
    for item in items.expect("its files are named") {
        let bytes = data.get(&item.key).unwrap_or_else(|| panic!("volume {name}: there is no key {}", item.key));
        std::fs::write(folder.join(&item.path), bytes).expect("a file can be written");
    }
}

/// The variables of the container: those of the API server's Service, then its own, in order; each may
/// refer to those before it.
fn environment(container: &Container, fields: &BTreeMap<&str, String>, api_server: &str) -> BTreeMap<String, String> {
    let (host, port) = api_server.trim_start_matches("https://").split_once(':').expect("an address and a port");
    let mut all: BTreeMap<String, String> = [("KUBERNETES_SERVICE_HOST", host), ("KUBERNETES_SERVICE_PORT", port)]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
    for variable in container.env.iter().flatten() {
        let EnvVar { name, value, value_from } = variable;
        let value = match value_from {
            None => expanded(value.as_deref().unwrap_or_default(), &all),
            Some(source) => {
                let field =
                    source.field_ref.as_ref().unwrap_or_else(|| panic!("{name}: this kubelet knows fields alone"));
                let known = fields.get(field.field_path.as_str());
                known.unwrap_or_else(|| panic!("{name}: no such field: {}", field.field_path)).clone()
            }
        };
        all.insert(name.clone(), value);
    }
    all
}

/// `$(NAME)` by its value, where there is one.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    variables.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value))
}

/// The argument as this machine has to have it.
fn argument(arg: &str, container: &Container, volumes: &BTreeMap<String, PathBuf>, port: u16) -> String {
    if let Some(address) = arg.strip_prefix("--listen=") {
        let declared = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some("http"));
        let declared = declared.expect("the container names its port http").container_port;
        assert!(address.ends_with(&format!(":{declared}")), "it listens where its port says: {address}, {declared}");
        return format!("--listen=127.0.0.1:{port}");
    }
    for mount in container.volume_mounts.iter().flatten() {
        if let Some((flag, rest)) = arg.split_once(&mount.mount_path) {
            return format!("{flag}{}{rest}", volumes[&mount.name].display());
        }
    }
    arg.to_owned()
}
