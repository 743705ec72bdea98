//! The demo: from nothing to a Kubernetes control plane, a simulated TikTok Shop, the operator under
//! its own service account and five shops; then what the operator does, as `kubectl` shows it, and a
//! sixth shop from nothing to a living token.
//!
//! On a terminal it stays until Ctrl-C, to look around by hand. In a pipe it ends by itself: exit
//! code 0 when all was seen, 1 and one line that says what was not. Run it by `make demo`, which
//! builds what it starts.

#![forbid(unsafe_code)]

mod screen;

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::FutureExt;
use kube::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tiktok_shop_testkit::control_plane::{ControlPlane, Options};
use tiktok_shop_testkit::fixtures::{self, SecretFixture, app_secret, has_condition, integration};
use tiktok_shop_testkit::operator::Operator;
use tiktok_shop_testkit::rbac;
use tiktok_shop_testkit::simulator::{App, NewShop, Simulator};
use tokio::signal::unix::{Signal, SignalKind, signal};

use screen::{Screen, command, say, tell};

/// Where the shops live.
const NAMESPACE: &str = "shops";

/// How long each thing may take to be seen. The operator needs far less.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the operator should need from an integration that is due to tokens in its Secret.
const PROMPT: Duration = Duration::from_secs(5);

const DUE: &str = "shop-1-due";
const NOT_DUE: &str = "shop-2-not-due";
const SUSPENDED: &str = "shop-3-suspended";
const LAPSED: &str = "shop-4-lapsed";
const WRONG_APP: &str = "shop-5-wrong-app";
const NEW: &str = "shop-6-new";

/// Seconds that an access token has left: 2 hours, inside the window of a day; and 48.5 hours, outside.
const SOON: i64 = 7_200;
const LATER: i64 = 174_600;

#[tokio::main]
async fn main() -> ExitCode {
    // The kit panics with what it expected; that line is the message, printed once, below.
    std::panic::set_hook(Box::new(|_| {}));
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return failed("signals can't be listened for");
    };
    let done = tokio::select! {
        done = AssertUnwindSafe(demonstrate(&mut interrupt)).catch_unwind() => done,
        // What was started ends with the future that owns it.
        () = arrives(&mut terminate) => return ExitCode::from(143),
    };
    match done {
        Ok(Ok(code)) => code,
        Ok(Err(unseen)) => failed(&unseen),
        Err(panic) => failed(words_of(panic.as_ref())),
    }
}

/// All of it. Fails with what was expected and not seen.
async fn demonstrate(interrupt: &mut Signal) -> Result<ExitCode, String> {
    let mut stage = tokio::select! {
        stage = Stage::set() => stage?,
        () = arrives(interrupt) => return Ok(ExitCode::from(130)),
    };
    tokio::select! {
        shown = stage.show() => shown?,
        () = arrives(interrupt) => return Ok(ExitCode::from(130)),
    }
    if screen::is_terminal() {
        stage.tell_how_to_look_around();
        tokio::select! {
            () = stage.screen.follow() => {}
            () = arrives(interrupt) => tell(""),
        }
    }
    stage.end().await?;
    Ok(ExitCode::SUCCESS)
}

/// What was started. Everything ends, and is removed, when this is dropped.
struct Stage {
    client: Client,
    app: App,
    simulator: Simulator,
    operator: Operator,
    _journal: TempDir,
    // Last: the others use it.
    screen: Screen,
}

impl Stage {
    /// From nothing to an operator that has nothing to do yet.
    async fn set() -> Result<Self, String> {
        let operator_binary = built("tiktok-shop-operator")?;
        let simulator_binary = built("examples/tiktok-shop-simulator")?;

        say("Start etcd and kube-apiserver");
        let began = Instant::now();
        let plane = ControlPlane::start(Options::default()).await;
        tell(&format!("ready after {:.1} s", began.elapsed().as_secs_f64()));
        let client = plane.kube_client().await;

        say("Install the CRD, the service account and its rights");
        command("tiktok-shop-operator crd | kubectl apply --server-side -f -");
        let crd = std::process::Command::new(&operator_binary).arg("crd").output();
        let crd = crd.map_err(|error| format!("{} does not run: {error}", operator_binary.display()))?;
        fixtures::install_crd(&plane, &String::from_utf8_lossy(&crd.stdout)).await;
        command("kubectl apply -f docs/rbac.yaml");
        plane.apply(include_str!("../../docs/rbac.yaml")).await;

        say("Start a simulated TikTok Shop");
        let simulator = Simulator::start(&simulator_binary).await;
        let app = simulator.create_any_app().await;
        tell(&format!("token endpoint: {}", simulator.token_endpoint()));

        say("Start the operator as that service account");
        let journal = tempfile::tempdir().map_err(|error| format!("no temporary folder can be made: {error}"))?;
        // Longer than anybody looks around.
        let token = ["create", "token", rbac::NAME, "-n", rbac::NAME, "--duration=24h"];
        let token = plane.kubectl_ok(&token).await;
        let began = Instant::now();
        let operator = Operator::builder(&operator_binary)
            .kubeconfig(plane.kubeconfig_for(token.trim(), None))
            .token_endpoint(&simulator.token_endpoint())
            .authorization_endpoint(&simulator.authorization_endpoint())
            .lease_namespace(rbac::NAME)
            .journal_dir(journal.path())
            .log_file(plane.log_dir().join("operator.log"))
            .start();
        operator.wait_ready(PATIENCE).await;
        let took = began.elapsed().as_secs_f64();
        let mebibytes = operator.process().rss_bytes().unwrap_or_default() >> 20;
        tell(&format!("ready after {took:.1} s, {mebibytes} MiB of memory"));
        let screen = Screen::new(plane, &client);
        Ok(Self { client, app, simulator, operator, _journal: journal, screen })
    }

    /// The five shops, a refresh asked for, a mistake mended, and one more shop.
    async fn show(&mut self) -> Result<(), String> {
        say(
            "Create five integrations: due, not due, suspended, without a living refresh token, with a wrong app secret",
        );
        self.screen.plane().kubectl_ok(&["create", "namespace", NAMESPACE]).await;
        app_secret(NAMESPACE, "tiktok-app", &self.app.app_key, &self.app.app_secret).create(&self.client).await;
        app_secret(NAMESPACE, "mistyped-app", &self.app.app_key, "not-the-secret").create(&self.client).await;
        let of_app = || NewShop::of(&self.app);
        for (team, name, shop, app_secret) in [
            ("1", DUE, of_app().access_remaining(SOON), "tiktok-app"),
            ("2", NOT_DUE, of_app().access_remaining(LATER), "tiktok-app"),
            ("3", SUSPENDED, of_app().access_remaining(SOON), "tiktok-app"),
            ("4", LAPSED, of_app().access_remaining(SOON).refresh_remaining(-86_400), "tiktok-app"),
            ("5", WRONG_APP, of_app().access_remaining(SOON), "mistyped-app"),
        ] {
            let shop = self.simulator.create_shop(&shop.id(name)).await;
            let secret = format!("{name}-tokens");
            SecretFixture::new(NAMESPACE, &secret)
                .tokens(shop.access_token(), shop.access_expires_at(), shop.refresh_token(), shop.refresh_expires_at())
                .create(&self.client)
                .await;
            self.screen.applied(name);
            let integration = integration(NAMESPACE, name, &secret, app_secret).team(team);
            integration.suspend(name == SUSPENDED).create(&self.client).await;
        }
        command("kubectl get ttsi -A -o wide");
        let screen = &mut self.screen;
        screen.until("refreshes the shop that is due", DUE, refreshed).await?;
        screen.until("leaves the shop that is not due as it is", NOT_DUE, untouched).await?;
        screen.until("leaves the suspended shop as it is", SUSPENDED, |status| says(status, "Suspended")).await?;
        screen.until("says that a refresh token has expired", LAPSED, |s| says(s, "RefreshTokenExpired")).await?;
        screen.until("says that an app secret is wrong", WRONG_APP, |s| says(s, "AppCredentialsRejected")).await?;
        let took = screen.took(DUE);
        let verdict = if took < PROMPT { "" } else { " - too long, it should take less than 5 s" };
        tell(&format!("{DUE}: {:.2} s from its creation to Ready with new tokens{verdict}", took.as_secs_f64()));
        for name in [LAPSED, WRONG_APP] {
            let message = screen.status(name).pointer("/conditions/0/message").and_then(Value::as_str);
            tell(&format!("{name}: {}", message.unwrap_or("(no message)")));
        }

        say("Ask for a refresh now of the shop that is not due");
        let request = format!("tiktokshop.dev/refresh-requested-at={}", unix_seconds());
        screen.run(&["annotate", "ttsi", NOT_DUE, "-n", NAMESPACE, &request, "--overwrite"]).await;
        screen.until("refreshes a shop when asked by annotation", NOT_DUE, refreshed).await?;

        say("Correct the wrong app secret");
        let patch = |value: &str| json!({ "stringData": { "app_secret": value } }).to_string();
        command(&format!("kubectl patch secret mistyped-app -n {NAMESPACE} -p '{}'", patch("…")));
        let corrected = patch(&self.app.app_secret);
        screen.plane().kubectl_ok(&["patch", "secret", "mistyped-app", "-n", NAMESPACE, "-p", &corrected]).await;
        screen.until("takes up the corrected app secret", WRONG_APP, refreshed).await?;

        self.a_shop_from_nothing().await?;

        say("What TikTok Shop saw");
        let witness = self.simulator.witness().await;
        let totals = &witness.totals;
        tell(&format!(
            "{} refreshes, {} authorization code exchanged, {} refused for the wrong app secret, {} presented twice",
            totals.refreshes,
            totals.exchanges,
            totals.refused,
            totals.violations + totals.code_violations
        ));
        let is_well = (totals.refreshes, totals.exchanges) == (3, 1);
        if !is_well || totals.violations + totals.code_violations + totals.strangers != 0 {
            return Err(format!(
                "3 refreshes, 1 exchange and nothing presented twice were expected, not this: {totals:?}"
            ));
        }
        Ok(())
    }

    /// A shop whose seller has just authorized the app.
    async fn a_shop_from_nothing(&mut self) -> Result<(), String> {
        say("Take in a new shop: its seller authorizes the app, and TikTok gives an authorization code");
        self.simulator.create_shop(&NewShop::of(&self.app).id(NEW)).await;
        let code = self.simulator.authorize(NEW).await;
        let secret = format!("{NEW}-tokens");
        let screen = &mut self.screen;
        screen.applied(NEW);
        integration(NAMESPACE, NEW, &secret, "tiktok-app").team("6").create(&self.client).await;
        screen.until("waits for the Secret", NEW, |status| says(status, "TokenSecretNotFound")).await?;
        let create = |code: &str| {
            ["create", "secret", "generic", secret.as_str(), "-n", NAMESPACE]
                .map(str::to_owned)
                .into_iter()
                .chain([format!("--from-literal=auth_code={code}")])
                .collect::<Vec<_>>()
        };
        command(&format!("kubectl {}", create("…").join(" ")));
        let with_code = create(&code);
        screen.plane().kubectl_ok(&with_code.iter().map(String::as_str).collect::<Vec<_>>()).await;
        screen.until("exchanges the code for tokens", NEW, refreshed).await?;
        let values = fixtures::secret_values(&self.client, NAMESPACE, &secret).await;
        tell(&format!("now in Secret {secret}: {}", values.keys().cloned().collect::<Vec<_>>().join(", ")));
        if values.contains_key("auth_code") || !values.contains_key("refresh_token") {
            return Err(format!("tokens in the place of the code were expected in Secret {secret}"));
        }
        Ok(())
    }

    fn tell_how_to_look_around(&self) {
        let plane = self.screen.plane();
        say("Look around in another terminal; Ctrl-C here ends it all");
        tell(&format!("export KUBECONFIG={}", plane.admin_kubeconfig().display()));
        if !is_on_path("kubectl") {
            tell(&format!("export PATH=\"$PATH:{}\"", plane.assets().display()));
        }
        tell(&format!("kubectl describe ttsi {LAPSED} -n {NAMESPACE}"));
        tell(&format!(
            "kubectl patch ttsi {SUSPENDED} -n {NAMESPACE} --type merge -p '{{\"spec\":{{\"suspend\":false}}}}'"
        ));
        tell(&format!("curl -s {}/metrics | grep ^tiktokshop_", self.operator.url()));
        tell(&format!("The operator's log: {}", plane.log_dir().join("operator.log").display()));
    }

    /// An orderly end, as Kubernetes gives a pod.
    async fn end(self) -> Result<(), String> {
        say("End: SIGTERM to the operator; everything is removed");
        let status = self.operator.sigterm(PATIENCE).await;
        self.simulator.stop().await;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the operator ends with {status} after SIGTERM, not with 0"))
        }
    }
}

/// New tokens are in the Secret, and nothing has failed since.
fn refreshed(status: &Value) -> bool {
    has_condition(status, "Ready", "True", "TokenValid") && has_condition(status, "Refreshed", "True", "Refreshed")
}

fn untouched(status: &Value) -> bool {
    has_condition(status, "Ready", "True", "TokenValid")
        && has_condition(status, "Refreshed", "Unknown", "NotAttempted")
}

/// Is this the one most important thing about it?
fn says(status: &Value, reason: &str) -> bool {
    ["True", "False", "Unknown"].iter().any(|is| has_condition(status, "Ready", is, reason))
}

/// A value that was not used before.
fn unix_seconds() -> u64 {
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since_epoch.map_or(0, |since| since.as_secs())
}

/// A binary built in the same profile as this one.
fn built(name: &str) -> Result<PathBuf, String> {
    let this = std::env::current_exe().map_err(|error| format!("the path of this program is not known: {error}"))?;
    // PROFILE/examples/demo
    let profile = this.parent().and_then(Path::parent).ok_or("this program is not where Cargo puts examples")?;
    let path = profile.join(name);
    if path.exists() { Ok(path) } else { Err(format!("{} is not built: run 'make demo'", path.display())) }
}

fn is_on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

async fn arrives(signal: &mut Signal) {
    signal.recv().await;
}

fn failed(what: &str) -> ExitCode {
    eprintln!("\ndemo: failed: {what}");
    ExitCode::FAILURE
}

fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}
