//! A namespace with a simulated TikTok, a person with few rights, and the program as that person runs it.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{self, OpenptFlags};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tiktok_shop_testkit::{
    control_plane::{ControlPlane, service_account_user},
    fixtures::{self, SecretFixture, app_secret, integration},
    operator::{Builder, Operator},
    poll,
    process::Program,
    proxy::Proxy,
    rbac::{self, Scope},
    simulator::{Action, App, Fault, NewShop, Shop, Simulator},
};
use tokio::sync::OnceCell;

/// For what takes one look or a few requests.
pub const SOON: Duration = Duration::from_secs(20);

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_kubectl-tiktokshop");

const HOUR: i64 = 3_600;

/// How a run ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not one JSON document ({error}): {self:#?}"))
    }
}

/// One namespace, with a person and an operator of its own.
pub struct Stage {
    pub plane: &'static ControlPlane,
    pub client: Client,
    pub namespace: String,
    pub simulator: Simulator,
    pub app: App,
    /// Between the person and the API server.
    pub proxy: Proxy,
    pub kubeconfig: PathBuf,
    identity: rbac::Identity,
    journal: TempDir,
}

/// The control plane that all tests share, with the CRD.
pub async fn plane() -> &'static ControlPlane {
    static CRD: OnceCell<()> = OnceCell::const_new();
    let plane = ControlPlane::shared().await;
    CRD.get_or_init(async || {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds/tiktokshopintegrations.tiktokshop.dev.yaml");
        let crd = std::fs::read_to_string(path).expect("the CRD is in the tree");
        fixtures::install_crd(plane, &crd).await;
    })
    .await;
    plane
}

/// A service account in a namespace that may use these verbs on integrations there, and do nothing else; its token.
pub async fn person(plane: &ControlPlane, namespace: &str, name: &str, verbs: &str) -> String {
    let client = plane.kube_client().await;
    let verbs: Vec<&str> = verbs.split(", ").collect();
    let metadata = json!({"name": name, "namespace": namespace});
    let rbac = "rbac.authorization.k8s.io/v1";
    for manifest in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({"apiVersion": rbac, "kind": "Role", "metadata": metadata, "rules": [
            {"apiGroups": ["tiktokshop.dev"], "resources": ["tiktokshopintegrations"], "verbs": verbs},
        ]}),
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]}),
    ] {
        fixtures::create(&client, &manifest).await;
    }
    plane.service_account_token(namespace, name).await
}

/// The program with nothing in its environment but these variables and a kubeconfig.
pub fn program(kubeconfig: &Path, args: &[&str], variables: &[(&str, &str)]) -> Program {
    let program = Program::new(PROGRAM).clear_env().args(args).env("KUBECONFIG", kubeconfig);
    variables.iter().fold(program, |program, (name, value)| program.env(name, value))
}

/// Runs the program to its end.
pub async fn run(kubeconfig: &Path, args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let run = tokio::process::Command::new(PROGRAM)
        .args(args)
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_mins(2), run).await;
    let output = output.unwrap_or_else(|_| panic!("{args:?} does not end")).expect("the program can be started");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Stage {
    pub async fn new() -> Self {
        let plane = plane().await;
        let client = plane.kube_client().await;
        let namespace = plane.create_namespace("cli").await;
        let identity = rbac::install(plane, &namespace, &Scope::Namespaces(vec![namespace.clone()])).await;
        let binary = Path::new(env!("CARGO_BIN_EXE_tiktok-shop-operator")).with_file_name("examples");
        let simulator = Simulator::start(&binary.join("tiktok-shop-simulator")).await;
        let app = simulator.create_any_app().await;
        app_secret(&namespace, "app", &app.app_key, &app.app_secret).create(&client).await;
        let proxy = Proxy::start(&plane.url(), Some(&plane.ca_pem()));
        let token = person(plane, &namespace, "person", "get, list, watch, patch").await;
        let kubeconfig = plane.kubeconfig_for(&token, Some(&proxy.url()));
        let journal = tempfile::tempdir().expect("a temporary folder can be made");
        Self { plane, client, namespace, simulator, app, proxy, kubeconfig, identity, journal }
    }

    /// The operator of this namespace.
    pub fn operator(&self) -> Builder {
        Operator::builder(env!("CARGO_BIN_EXE_tiktok-shop-operator"))
            .kubeconfig(self.plane.kubeconfig_for(&self.identity.token, None))
            .token_endpoint(&self.simulator.token_endpoint())
            .authorization_endpoint(&self.simulator.authorization_endpoint())
            .lease_namespace(&self.namespace)
            .namespace(&self.namespace)
            .leader_elect(false)
            .journal_dir(self.journal.path())
    }

    /// A shop, its token Secret and its integration, all of this name.
    pub async fn shop(&self, name: &str, team: &str, seconds_left: i64) -> Shop {
        let shop = NewShop::of(&self.app).id(name).access_remaining(seconds_left);
        self.new_shop(&shop, team).await
    }

    pub async fn new_shop(&self, shop: &NewShop, team: &str) -> Shop {
        let shop = self.simulator.create_shop(shop).await;
        SecretFixture::new(&self.namespace, &shop.id)
            .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
            .create(&self.client)
            .await;
        integration(&self.namespace, &shop.id, &shop.id, "app").team(team).create(&self.client).await;
        shop
    }

    /// The three integrations of the example, as the operator has left them: `shop-1` is due, and TikTok failed once;
    /// `shop-2` has 48.5 hours left; the refresh token of `shop-3` has expired.
    pub async fn three(&self) -> Operator {
        self.shop("shop-1", "1", HOUR).await;
        self.simulator.add_fault(Fault::once(Action::code_saying(12_345, "try later")).shop("shop-1")).await;
        self.shop("shop-2", "2", 48 * HOUR + HOUR / 2).await;
        let lapsed = NewShop::of(&self.app).id("shop-3").access_remaining(HOUR).refresh_remaining(-HOUR);
        self.new_shop(&lapsed, "3").await;
        let operator = self.operator().start();
        operator.wait_ready(SOON).await;
        for (name, reason) in
            [("shop-1", "RefreshFailing"), ("shop-2", "TokenValid"), ("shop-3", "RefreshTokenExpired")]
        {
            self.wait_reason(name, reason).await;
        }
        operator
    }

    pub async fn wait_reason(&self, name: &str, reason: &str) -> Value {
        let is_there = |status: &Value| {
            let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            conditions.iter().any(|condition| condition["type"] == "Ready" && condition["reason"] == reason)
        };
        fixtures::wait_for_status(&self.client, &self.namespace, name, reason, is_there, SOON).await
    }

    /// Runs the program as the person, in this namespace.
    pub async fn run(&self, line: &str) -> Ran {
        self.run_with(line, &[]).await
    }

    pub async fn run_with(&self, line: &str, variables: &[(&str, &str)]) -> Ran {
        let args = self.args(line);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run(&self.kubeconfig, &args, variables).await
    }

    /// A line's words, with this namespace.
    pub fn args(&self, line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).chain(["-n".to_owned(), self.namespace.clone()]).collect()
    }

    /// The person's user name.
    pub fn user(&self) -> String {
        service_account_user(&self.namespace, "person")
    }

    /// The annotation by which a refresh is asked for.
    pub async fn request_of(&self, name: &str) -> Option<String> {
        let object = fixtures::integrations(&self.client, &self.namespace).get(name).await.expect("it is there");
        object.metadata.annotations.unwrap_or_default().get("tiktokshop.dev/refresh-requested-at").cloned()
    }
}

/// A program on a pseudo-terminal: both its outputs are one.
pub struct Pty {
    child: std::process::Child,
    keyboard: std::fs::File,
    text: Arc<Mutex<Vec<u8>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Pty {
    /// The program as the person runs it.
    pub fn run(stage: &Stage, line: &str, variables: &[(&str, &str)]) -> Self {
        Self::run_on(stage, line, variables, (200, 40))
    }

    /// The same on a terminal of so many columns and lines.
    pub fn run_on(stage: &Stage, line: &str, variables: &[(&str, &str)], size: (u16, u16)) -> Self {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(stage.args(line)).env_clear().env("KUBECONFIG", &stage.kubeconfig);
        command.envs(variables.iter().copied());
        Self::start(command, size)
    }

    /// Any program, with a terminal of its own to read from and to write to.
    pub fn start(mut command: std::process::Command, (ws_col, ws_row): (u16, u16)) -> Self {
        let controller = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("there are pseudo-terminals");
        pty::grantpt(&controller).and_then(|()| pty::unlockpt(&controller)).expect("it is ours");
        let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).expect("it has a size");
        let name = pty::ptsname(&controller, Vec::new()).expect("it has a name");
        let open = || {
            let file = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
            Stdio::from(file.expect("it can be opened"))
        };
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().expect("the program can be started");
        // It holds the files of the terminal's other side, whose end the reader waits for.
        drop(command);
        let keyboard = std::fs::File::from(rustix::io::dup(&controller).expect("it can be held twice"));
        let text = Arc::new(Mutex::new(Vec::new()));
        let read = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut file = std::fs::File::from(controller);
            let mut buffer = [0; 4_096];
            // It ends with an error once the program has closed its side.
            while let Ok(count @ 1..) = file.read(&mut buffer) {
                read.lock().expect("no reader panics").extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, keyboard, text, reader }
    }

    /// Types.
    pub fn type_in(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).expect("a terminal takes what is typed");
    }

    /// All that it showed so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no reader panics")).into_owned()
    }

    pub async fn wait_for(&self, wanted: &str, timeout: Duration) {
        let found = poll::until(timeout, async || self.text().contains(wanted).then_some(())).await;
        assert!(found.is_some(), "the terminal does not show {wanted:?}; it shows: {:?}", self.text());
    }

    /// Does the terminal show what is typed?
    pub fn echoes(&self) -> bool {
        let attributes = tcgetattr(&self.keyboard).expect("it is a terminal");
        attributes.local_modes.contains(LocalModes::ECHO)
    }

    /// Ctrl-C, as the terminal sends it.
    pub fn interrupt(&self) {
        self.signal(rustix::process::Signal::INT);
    }

    /// Another signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        rustix::process::kill_process(pid, signal).expect("it still runs");
    }

    /// Its exit code and all that it showed.
    pub async fn end(mut self, timeout: Duration) -> (Option<i32>, String) {
        let ended = poll::until(timeout, async || self.child.try_wait().expect("it is ours")).await;
        if ended.is_none() {
            let _ = self.child.kill();
        }
        let status = ended.unwrap_or_else(|| panic!("it does not end; it shows: {:?}", self.text()));
        let text = Arc::clone(&self.text);
        drop(self.keyboard);
        self.reader.join().expect("no reader panics");
        let text = text.lock().expect("no reader panics");
        (status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}
