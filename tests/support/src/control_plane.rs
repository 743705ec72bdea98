//! A real etcd and kube-apiserver, ready in about 3 seconds.
//!
//! Nothing else runs: no controller makes Pods, service accounts of namespaces,
//! or removes what is left of a deleted namespace.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::{
    encoding::{AsDer, PublicKeyX509Der},
    rand::SystemRandom,
    signature::{self, KeyPair},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::{Namespace, ServiceAccount},
};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde::Deserialize;
use serde_json::json;
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, sync::OnceCell};

use crate::{
    poll,
    ports::free_port,
    process::{Child, Program, Signal, Sweeper, lock},
    tools::last_line,
};

/// Where a start on ports that somebody else took is tried again.
const ATTEMPTS: usize = 5;
const READY_WITHIN: Duration = Duration::from_mins(1);
/// A graceful stop of the API server waits for requests in flight.
const STOP_WITHIN: Duration = Duration::from_secs(15);
const KUBECTL_WITHIN: Duration = Duration::from_mins(1);

/// Everything but the bodies; long-running requests when they start and end.
const AUDIT_POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
";

static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();

/// What a control plane is made with.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether etcd waits for the disk. Only for tests that stop it hard; costs
    /// milliseconds a write.
    pub fsync: bool,
    /// Whether each request is logged, for [`ControlPlane::audit`].
    pub audit: bool,
    /// Where the logs of both servers and the audit log go, and stay. Without
    /// it they live in the temporary folder.
    pub log_dir: Option<PathBuf>,
    /// More flags for kube-apiserver, such as `--feature-gates=…`.
    pub api_server_args: Vec<String>,
    /// What [`ControlPlane::save_etcd`] saved: etcd begins with a copy of it.
    pub saved_etcd: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { fsync: false, audit: true, log_dir: None, api_server_args: Vec::new(), saved_etcd: None }
    }
}

/// A running etcd and kube-apiserver of our own.
#[derive(Debug)]
pub struct ControlPlane {
    options: Options,
    assets: PathBuf,
    logs: PathBuf,
    ports: Ports,
    admin_token: String,
    // Children before the folder they write to: fields are dropped in order.
    api_server: Mutex<Option<Child>>,
    etcd: Mutex<Option<Child>>,
    dir: TempDir,
    _sweeper: Sweeper,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    etcd_client: u16,
    etcd_peer: u16,
    api_server: u16,
}

impl Ports {
    fn fresh() -> Self {
        Self { etcd_client: free_port(), etcd_peer: free_port(), api_server: free_port() }
    }
}

/// A start that failed: on a port that is taken it is worth another try.
#[derive(Debug)]
struct StartError {
    message: String,
    port_taken: bool,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The folder with `etcd`, `kube-apiserver` and `kubectl`, as
/// `tests/control-plane/assets.sh` finds or builds it (about 5 minutes, once;
/// it says so on standard error).
pub async fn assets_dir() -> PathBuf {
    static ASSETS: OnceCell<PathBuf> = OnceCell::const_new();
    ASSETS
        .get_or_init(|| async {
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../control-plane/assets.sh");
            last_line(&script, &[""; 0]).await
        })
        .await
        .clone()
}

impl ControlPlane {
    /// The one of this test process: started by whoever asks first, gone with
    /// the process. For tests that neither stop nor pause it; each takes a
    /// namespace of its own.
    pub async fn shared() -> &'static Self {
        SHARED.get_or_init(|| Self::start(Options::default())).await
    }

    /// Starts one of one's own; it ends when dropped. Panics with the servers'
    /// last lines where it does not come up.
    pub async fn start(options: Options) -> Self {
        let assets = assets_dir().await;
        let mut attempt = 1;
        loop {
            match Self::try_start(options.clone(), assets.clone()).await {
                Ok(started) => return started,
                Err(error) if error.port_taken && attempt < ATTEMPTS => attempt += 1,
                Err(error) => panic!("the control plane did not start: {error}"),
            }
        }
    }

    async fn try_start(options: Options, assets: PathBuf) -> Result<Self, StartError> {
        let dir = tempfile::Builder::new().prefix("control-plane-").tempdir().expect("a temporary folder can be made");
        let sweeper = Sweeper::of(dir.path()).expect("a shell can be started");
        let logs = options.log_dir.clone().unwrap_or_else(|| dir.path().join("logs"));
        std::fs::create_dir_all(&logs).expect("the log folder can be made");
        let admin_token = random_hex();
        let this = Self {
            options,
            assets,
            logs,
            ports: Ports::fresh(),
            admin_token,
            api_server: Mutex::new(None),
            etcd: Mutex::new(None),
            dir,
            _sweeper: sweeper,
        };
        this.write_inputs();
        if let Some(saved) = &this.options.saved_etcd {
            copy_dir(saved, &this.path("etcd")).expect("what was saved of etcd can be copied");
        }
        *lock(&this.etcd) = Some(this.spawn_etcd());
        *lock(&this.api_server) = Some(this.spawn_api_server());
        this.until_ready().await?;
        this.write_kubeconfig(&this.admin_kubeconfig(), &this.admin_token, None);
        Ok(this)
    }

    fn write_inputs(&self) {
        let (private, public) = service_account_keys();
        let tokens = format!("{},admin,admin,system:masters\n", self.admin_token);
        for (name, text) in [
            ("tokens.csv", tokens),
            ("audit-policy.yaml", AUDIT_POLICY.to_owned()),
            ("service-accounts.key", private),
            ("service-accounts.pub", public),
        ] {
            std::fs::write(self.path(name), text).expect("a file can be written");
        }
    }

    fn spawn_etcd(&self) -> Child {
        let client = format!("http://127.0.0.1:{}", self.ports.etcd_client);
        let peer = format!("http://127.0.0.1:{}", self.ports.etcd_peer);
        let mut program = Program::new(self.assets.join("etcd"))
            .arg(format!("--data-dir={}", self.path("etcd").display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={peer}"))
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            .arg("--log-level=error")
            .log_file(self.logs.join("etcd.log"));
        if !self.options.fsync {
            program = program.arg("--unsafe-no-fsync");
        }
        program.spawn().unwrap_or_else(|error| panic!("failed to start etcd: {error}"))
    }

    fn spawn_api_server(&self) -> Child {
        let mut program = Program::new(self.assets.join("kube-apiserver"))
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.ports.etcd_client))
            .arg(format!("--secure-port={}", self.ports.api_server))
            .args(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1"])
            // Without it the server would publish its address to a cluster that is not there.
            .arg("--endpoint-reconciler-type=none")
            .arg(format!("--cert-dir={}", self.path("certs").display()))
            .arg(format!("--service-account-key-file={}", self.path("service-accounts.pub").display()))
            .arg(format!("--service-account-signing-key-file={}", self.path("service-accounts.key").display()))
            .arg("--service-account-issuer=https://kubernetes.default.svc")
            .arg("--authorization-mode=RBAC")
            .arg(format!("--token-auth-file={}", self.path("tokens.csv").display()))
            .arg("--service-cluster-ip-range=10.0.0.0/24")
            // No controller makes the accounts that it would ask for.
            .arg("--disable-admission-plugins=ServiceAccount")
            .args(&self.options.api_server_args)
            .log_file(self.logs.join("kube-apiserver.log"));
        if self.options.audit {
            program = program
                .arg(format!("--audit-policy-file={}", self.path("audit-policy.yaml").display()))
                .arg(format!("--audit-log-path={}", self.audit_log().display()))
                // Written before the answer is: whoever has the answer can read the entry.
                .arg("--audit-log-mode=blocking-strict");
        }
        program.spawn().unwrap_or_else(|error| panic!("failed to start kube-apiserver: {error}"))
    }

    /// Waits for `/readyz`, or for one of both servers to end.
    async fn until_ready(&self) -> Result<(), StartError> {
        let deadline = Instant::now() + READY_WITHIN;
        let mut http = None;
        loop {
            for server in [&self.etcd, &self.api_server] {
                if let Some(child) = &*lock(server)
                    && let Some(status) = child.exit_status()
                {
                    let logs = child.logs();
                    return Err(StartError {
                        port_taken: logs.contains("address already in use"),
                        message: format!("{} ended with {status}:\n{}", child.name(), child.tail(20)),
                    });
                }
            }
            // The certificate is there as soon as the server has made it.
            if http.is_none() && self.ca_path().exists() {
                http = self.try_http();
            }
            if let Some(http) = &http {
                let answer = self.get(http, "/readyz").await;
                if answer.is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(());
                }
            }
            if Instant::now() > deadline {
                let tail = lock(&self.api_server).as_ref().map(|child| child.tail(20));
                return Err(StartError {
                    port_taken: false,
                    message: format!("kube-apiserver was not ready in {READY_WITHIN:?}:\n{}", tail.unwrap_or_default()),
                });
            }
            tokio::time::sleep(poll::STEP).await;
        }
    }

    /// `https://127.0.0.1:PORT`; the same for its whole life.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports.api_server)
    }

    /// The certificates to trust, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.ca_path()).expect("the server has written its certificate")
    }

    /// The token of the admin, a member of `system:masters`.
    #[must_use]
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// A kubeconfig of the admin.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.path("admin.kubeconfig")
    }

    /// Writes a kubeconfig for whoever holds `token`, to the server itself or to
    /// what stands before it (a [`crate::proxy::Proxy`]'s URL).
    #[must_use]
    pub fn kubeconfig_for(&self, token: &str, server_url: Option<&str>) -> PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = self.path(&format!("client-{number}.kubeconfig"));
        self.write_kubeconfig(&path, token, server_url);
        path
    }

    /// The folder of both servers' logs.
    #[must_use]
    pub fn log_dir(&self) -> &Path {
        &self.logs
    }

    /// The folder with `etcd`, `kube-apiserver` and `kubectl`.
    #[must_use]
    pub fn assets(&self) -> &Path {
        &self.assets
    }

    // ---- Faults ----

    /// SIGTERM, and SIGKILL where that takes too long. Its data stays in etcd.
    pub async fn stop_api_server(&self) {
        let child = lock(&self.api_server).take();
        let child = child.expect("kube-apiserver was stopped before");
        child.signal(Signal::CONT);
        child.signal(Signal::TERM);
        if child.wait_exit(STOP_WITHIN).await.is_err() {
            child.kill();
        }
    }

    /// SIGKILL: connections end without a word. Its data stays in etcd.
    pub fn kill_api_server(&self) {
        let child = lock(&self.api_server).take();
        drop(child.expect("kube-apiserver was stopped before"));
    }

    /// Starts a stopped API server again, on the same port with the same
    /// certificate; returns when it is ready.
    pub async fn start_api_server(&self) {
        {
            let mut slot = lock(&self.api_server);
            assert!(slot.is_none(), "kube-apiserver runs already");
            *slot = Some(self.spawn_api_server());
        }
        let ready = self.until_ready().await;
        ready.unwrap_or_else(|error| panic!("kube-apiserver did not start again: {error}"));
    }

    /// SIGSTOP: the API server takes connections and requests, and answers none.
    pub fn pause(&self) {
        self.signal_api_server(Signal::STOP);
    }

    /// SIGCONT: goes on where [`ControlPlane::pause`] stopped it.
    pub fn resume(&self) {
        self.signal_api_server(Signal::CONT);
    }

    /// SIGKILL to etcd and a new start on the same data and ports; returns when
    /// the API server is ready again. Needs [`Options::fsync`], or what was
    /// written last may be lost.
    pub async fn restart_etcd(&self) {
        assert!(self.options.fsync, "ask for Options::fsync where etcd is stopped hard");
        drop(lock(&self.etcd).take());
        *lock(&self.etcd) = Some(self.spawn_etcd());
        let ready = self.until_ready().await;
        ready.unwrap_or_else(|error| panic!("etcd did not start again: {error}"));
    }

    /// Stops both servers, copies what etcd holds to `to`, and starts them again. A control plane that begins with it
    /// ([`Options::saved_etcd`]) has the same objects; its admin and its keys are its own.
    ///
    /// # Errors
    /// The copy could not be made.
    pub async fn save_etcd(&self, to: &Path) -> std::io::Result<()> {
        self.stop_api_server().await;
        let etcd = lock(&self.etcd).take().expect("etcd runs");
        etcd.signal(Signal::TERM);
        etcd.wait_exit(STOP_WITHIN).await.unwrap_or_else(|error| panic!("{error}"));
        let copied = copy_dir(&self.path("etcd"), to);
        *lock(&self.etcd) = Some(self.spawn_etcd());
        self.start_api_server().await;
        copied
    }

    /// Resident memory of the API server and of etcd, in bytes.
    #[must_use]
    pub fn rss_bytes(&self) -> (u64, u64) {
        let of = |slot: &Mutex<Option<Child>>| lock(slot).as_ref().and_then(Child::rss_bytes);
        (of(&self.api_server).unwrap_or(0), of(&self.etcd).unwrap_or(0))
    }

    /// Processor time that the API server and etcd have used.
    #[must_use]
    pub fn cpu_time(&self) -> (Duration, Duration) {
        let of = |slot: &Mutex<Option<Child>>| lock(slot).as_ref().and_then(Child::cpu_time);
        (of(&self.api_server).unwrap_or_default(), of(&self.etcd).unwrap_or_default())
    }

    fn signal_api_server(&self, signal: Signal) {
        let slot = lock(&self.api_server);
        let child = slot.as_ref().expect("kube-apiserver is stopped");
        assert!(child.signal(signal), "kube-apiserver has ended:\n{}", child.tail(20));
    }

    // ---- Use ----

    /// Runs kubectl as admin.
    pub async fn kubectl(&self, args: &[&str]) -> Output {
        self.kubectl_with(args, None).await
    }

    /// Runs kubectl as admin, with `stdin` where it is given (for `-f -`).
    pub async fn kubectl_with(&self, args: &[&str], stdin: Option<&str>) -> Output {
        let mut child = tokio::process::Command::new(self.assets.join("kubectl"))
            .args(args)
            .env("KUBECONFIG", self.admin_kubeconfig())
            // Its discovery cache: fresh for this server, whose port another had yesterday.
            .env("KUBECACHEDIR", self.path("kubectl-cache"))
            .stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("failed to start kubectl: {error}"));
        let input = child.stdin.take();
        let feed = async {
            if let (Some(mut input), Some(text)) = (input, stdin) {
                // A kubectl that ended early says why on its standard error.
                let _ = input.write_all(text.as_bytes()).await;
            }
        };
        let run = async { tokio::join!(feed, child.wait_with_output()).1 };
        let Ok(output) = tokio::time::timeout(KUBECTL_WITHIN, run).await else {
            panic!("kubectl {} took more than {KUBECTL_WITHIN:?}", args.join(" "));
        };
        output.expect("kubectl can be waited for")
    }

    /// Runs kubectl as admin and returns its standard output; panics with what
    /// it said where it fails.
    pub async fn kubectl_ok(&self, args: &[&str]) -> String {
        self.kubectl_ok_with(args, None).await
    }

    /// [`ControlPlane::kubectl_ok`] with standard input.
    pub async fn kubectl_ok_with(&self, args: &[&str], stdin: Option<&str>) -> String {
        let output = self.kubectl_with(args, stdin).await;
        assert!(
            output.status.success(),
            "kubectl {} ended with {}:\n{}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr),
            stdin.map(|text| format!("\nits input was:\n{text}")).unwrap_or_default(),
        );
        String::from_utf8(output.stdout).expect("kubectl prints UTF-8")
    }

    /// Server-side apply of YAML or JSON documents; panics with what the server said.
    pub async fn apply(&self, manifest: &str) {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.kubectl_ok_with(&args, Some(manifest)).await;
    }

    /// A client of the admin. It belongs to the runtime it was made in: one for
    /// each test, not one for all.
    pub async fn kube_client(&self) -> Client {
        client_of(&self.admin_kubeconfig()).await
    }

    /// A client of whoever holds `token`, directly or through a proxy's URL.
    pub async fn kube_client_for(&self, token: &str, server_url: Option<&str>) -> Client {
        client_of(&self.kubeconfig_for(token, server_url)).await
    }

    /// A new namespace, named `prefix-` and something that no other has.
    pub async fn create_namespace(&self, prefix: &str) -> String {
        let name = format!("{prefix}-{}", &random_hex()[..8]);
        let namespaces: Api<Namespace> = Api::all(self.kube_client().await);
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        let created = namespaces.create(&PostParams::default(), &namespace).await;
        created.unwrap_or_else(|error| panic!("failed to create the namespace {name}: {error}"));
        name
    }

    /// A token of a service account, good for an hour, as a pod would have it.
    pub async fn service_account_token(&self, namespace: &str, name: &str) -> String {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.kube_client().await, namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec { expiration_seconds: Some(3600), ..TokenRequestSpec::default() },
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(name, &PostParams::default(), &request).await;
        answer
            .unwrap_or_else(|error| panic!("no token for {namespace}/{name}: {error}"))
            .status
            .expect("an answered request has a status")
            .token
    }

    /// The API server's own `/metrics`, as text.
    pub async fn metrics(&self) -> String {
        let http = self.try_http().expect("the server has written its certificate");
        let answer = self.get(&http, "/metrics").await.and_then(reqwest::Response::error_for_status);
        let answer = answer.unwrap_or_else(|error| panic!("failed to read /metrics: {error}"));
        answer.text().await.expect("/metrics is text")
    }

    /// Every request that the server has answered or begun to answer (a watch),
    /// each once, in order. An entry is written before its answer is.
    #[must_use]
    pub fn audit(&self) -> Vec<AuditEntry> {
        assert!(self.options.audit, "ask for Options::audit");
        let log = std::fs::read_to_string(self.audit_log()).unwrap_or_default();
        let mut entries: Vec<AuditEntry> = Vec::new();
        let mut seen = BTreeMap::new();
        // The last line may still be half written.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        for line in whole.lines() {
            let entry: AuditEntry =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("not an audit entry ({error}): {line}"));
            if let Some(&at) = seen.get(&entry.audit_id) {
                entries[at] = entry;
            } else {
                seen.insert(entry.audit_id.clone(), entries.len());
                entries.push(entry);
            }
        }
        entries
    }

    /// How many requests a user has sent, by [`AuditEntry::what`]. A service
    /// account's user name is [`service_account_user`].
    #[must_use]
    pub fn request_counts(&self, user: &str) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for entry in self.audit().iter().filter(|entry| entry.user.username == user) {
            *counts.entry(entry.what()).or_default() += 1;
        }
        counts
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn ca_path(&self) -> PathBuf {
        self.path("certs/apiserver.crt")
    }

    fn audit_log(&self) -> PathBuf {
        self.logs.join("audit.log")
    }

    fn try_http(&self) -> Option<reqwest::Client> {
        let pem = std::fs::read(self.ca_path()).ok()?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).ok()?;
        if certificates.is_empty() {
            return None;
        }
        reqwest::Client::builder().tls_certs_only(certificates).no_proxy().timeout(Duration::from_secs(10)).build().ok()
    }

    async fn get(&self, http: &reqwest::Client, path: &str) -> reqwest::Result<reqwest::Response> {
        let request = http.get(format!("{}{path}", self.url()));
        request.bearer_auth(&self.admin_token).send().await
    }

    fn write_kubeconfig(&self, path: &Path, token: &str, server_url: Option<&str>) {
        let cluster = match server_url {
            // What stands before the server speaks plain HTTP.
            Some(url) if url.starts_with("http://") => json!({ "server": url }),
            _ => json!({
                "server": server_url.map_or_else(|| self.url(), str::to_owned),
                "certificate-authority-data": STANDARD.encode(self.ca_pem()),
            }),
        };
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": "user", "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "user" } }],
            "current-context": "test",
        });
        // JSON is YAML too.
        std::fs::write(path, config.to_string()).expect("a kubeconfig can be written");
    }
}

/// The user name of a service account, as audit entries and RBAC have it.
#[must_use]
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// One request, as the server's audit log has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// The same in all entries of one request.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// `ResponseStarted` (a watch that goes on), `ResponseComplete` or `Panic`.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `patch`, `update`, `delete`, …
    pub verb: String,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: AuditUser,
    /// The client's own name.
    #[serde(default)]
    pub user_agent: String,
    /// What was asked for; none where the path is not that of a resource.
    pub object_ref: Option<AuditObject>,
    /// The answer.
    pub response_status: Option<AuditStatus>,
}

impl AuditEntry {
    /// `verb resource[/subresource][ (dry run)]`, such as `patch secrets (dry
    /// run)` or `patch tiktokshopintegrations/status`; `get /readyz` for what is
    /// no resource.
    #[must_use]
    pub fn what(&self) -> String {
        let Some(object) = &self.object_ref else {
            let path = self.request_uri.split('?').next().unwrap_or_default();
            return format!("{} {path}", self.verb);
        };
        let mut what = format!("{} {}", self.verb, object.resource);
        if let Some(subresource) = &object.subresource {
            what.push('/');
            what.push_str(subresource);
        }
        if self.request_uri.contains("dryRun=") {
            what.push_str(" (dry run)");
        }
        what
    }

    /// The HTTP status of the answer; 0 where there is none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }
}

/// Who sent an audited request.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditUser {
    /// `admin`, `system:serviceaccount:NAMESPACE:NAME`, `system:apiserver`, …
    #[serde(default)]
    pub username: String,
}

/// What an audited request was about.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditObject {
    /// Such as `secrets`.
    #[serde(default)]
    pub resource: String,
    /// Such as `status`.
    pub subresource: Option<String>,
    /// None for what is not in one, or for all.
    pub namespace: Option<String>,
    /// None for lists.
    pub name: Option<String>,
}

/// How an audited request was answered.
#[derive(Debug, Clone, Deserialize)]
pub struct AuditStatus {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

/// A client of what a kubeconfig describes.
pub async fn client_of(kubeconfig: &Path) -> Client {
    let parsed = Kubeconfig::read_from(kubeconfig).expect("the kubeconfig can be read");
    let config = Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await;
    Client::try_from(config.expect("the kubeconfig is complete")).expect("a client can be made")
}

/// Copies a folder of files and folders.
fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// 32 random hex digits.
pub(crate) fn random_hex() -> String {
    use std::fmt::Write;
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes");
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A fresh P-256 key pair, private and public, PEM: the server signs service
/// accounts' tokens with the one and checks them with the other.
fn service_account_keys() -> (String, String) {
    let algorithm = &signature::ECDSA_P256_SHA256_ASN1_SIGNING;
    let document = signature::EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).expect("a key can be made");
    let pair = signature::EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).expect("it was just made");
    let public = AsDer::<PublicKeyX509Der>::as_der(pair.public_key()).expect("a public key has this form");
    (pem("PRIVATE KEY", document.as_ref()), pem("PUBLIC KEY", public.as_ref()))
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
