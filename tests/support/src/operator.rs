//! The operator as a process, as a cluster would run it.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use crate::{
    exposition::Scrape,
    poll,
    ports::free_port,
    process::{Child, Program, Signal},
};

/// Enough for one scrape or probe.
const HTTP_WITHIN: Duration = Duration::from_secs(5);

/// Variables that the operator gets from the tests' own environment; it gets no
/// others, so a proxy or a flag set there does not reach it.
const INHERITED: [&str; 3] = ["PATH", "LLVM_PROFILE_FILE", "TZ"];

/// How an operator is started: see [`Operator::builder`].
#[derive(Debug, Clone)]
pub struct Builder {
    binary: PathBuf,
    name: String,
    args: Vec<OsString>,
    envs: Vec<(OsString, OsString)>,
    rust_log: String,
    log_file: Option<PathBuf>,
}

impl Builder {
    /// What failure messages call it; of use where there are two.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// How it reaches the API server, and as whom: see
    /// [`crate::control_plane::ControlPlane::kubeconfig_for`].
    #[must_use]
    pub fn kubeconfig(self, path: impl AsRef<Path>) -> Self {
        self.env("KUBECONFIG", path.as_ref())
    }

    /// `--token-endpoint`.
    #[must_use]
    pub fn token_endpoint(self, url: &str) -> Self {
        self.flag("token-endpoint", url)
    }

    /// `--authorization-endpoint`.
    #[must_use]
    pub fn authorization_endpoint(self, url: &str) -> Self {
        self.flag("authorization-endpoint", url)
    }

    /// `--shops-endpoint`.
    #[must_use]
    pub fn shops_endpoint(self, url: &str) -> Self {
        self.flag("shops-endpoint", url)
    }

    /// `--lease-namespace`.
    #[must_use]
    pub fn lease_namespace(self, namespace: &str) -> Self {
        self.flag("lease-namespace", namespace)
    }

    /// `--namespace`; can be given again. Tests that share a control plane name
    /// theirs, or the operator works on those of others.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        self.arg(format!("--namespace={namespace}"))
    }

    /// `--journal-dir`.
    #[must_use]
    pub fn journal_dir(self, dir: impl AsRef<Path>) -> Self {
        self.flag("journal-dir", &dir.as_ref().display().to_string())
    }

    /// `--leader-elect`.
    #[must_use]
    pub fn leader_elect(self, elect: bool) -> Self {
        self.flag("leader-elect", if elect { "true" } else { "false" })
    }

    /// `--NAME=VALUE`, in the place of one given before.
    #[must_use]
    pub fn flag(mut self, name: &str, value: &str) -> Self {
        let before = format!("--{name}=");
        self.args.retain(|arg| !arg.to_string_lossy().starts_with(&before));
        self.arg(format!("--{name}={value}"))
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// A variable of its environment, which is otherwise empty but for `PATH`.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// `RUST_LOG`; `info` without it.
    #[must_use]
    pub fn rust_log(mut self, filter: &str) -> Self {
        filter.clone_into(&mut self.rust_log);
        self
    }

    /// Everything that it and its libraries would ever log.
    #[must_use]
    pub fn trace(self) -> Self {
        self.rust_log("trace")
    }

    /// A file that gets its output too, from all its lives.
    #[must_use]
    pub fn log_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.log_file = Some(path.into());
        self
    }

    /// Starts it. It serves on a free port of 127.0.0.1, the same in all its lives.
    #[must_use]
    pub fn start(self) -> Operator {
        let port = free_port();
        let child = self.spawn(port);
        Operator { builder: self, port, child, earlier: String::new() }
    }

    fn spawn(&self, port: u16) -> Child {
        let mut program = Program::new(&self.binary)
            .name(&self.name)
            .clear_env()
            .env("RUST_LOG", &self.rust_log)
            .env("RUST_BACKTRACE", "1")
            .arg("run")
            .arg(format!("--listen=127.0.0.1:{port}"))
            .args(&self.args);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                program = program.env(name, value);
            }
        }
        for (key, value) in &self.envs {
            program = program.env(key, value);
        }
        if let Some(path) = &self.log_file {
            program = program.log_file(path);
        }
        program.spawn().unwrap_or_else(|error| panic!("failed to start {}: {error}", self.binary.display()))
    }
}

/// A started operator; killed when dropped.
#[derive(Debug)]
pub struct Operator {
    builder: Builder,
    port: u16,
    child: Child,
    /// What it wrote in earlier lives.
    earlier: String,
}

impl Operator {
    /// How to start `binary run`; in an integration test of the operator's
    /// package, `env!("CARGO_BIN_EXE_tiktok-shop-operator")`.
    #[must_use]
    pub fn builder(binary: impl Into<PathBuf>) -> Builder {
        Builder {
            binary: binary.into(),
            name: "operator".to_owned(),
            args: Vec::new(),
            envs: Vec::new(),
            rust_log: "info".to_owned(),
            log_file: None,
        }
    }

    /// The process of its present life.
    #[must_use]
    pub fn process(&self) -> &Child {
        &self.child
    }

    /// `http://127.0.0.1:PORT` of its probes and metrics.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until `/readyz` answers 200; panics with its last lines where it
    /// ends or takes longer.
    pub async fn wait_ready(&self, timeout: Duration) {
        let ready = poll::until(timeout, async || match self.child.exit_status() {
            Some(status) => Some(Err(format!("ended with {status}"))),
            None => (self.probe("/readyz").await == Some(200)).then_some(Ok(())),
        });
        let failure = match ready.await {
            Some(Ok(())) => return,
            Some(Err(failure)) => failure,
            None => format!("was not ready in {timeout:?}"),
        };
        panic!("{} {failure}; its last lines:\n{}", self.builder.name, self.child.tail(30));
    }

    /// The status of a GET of one of its paths; none where nobody answers.
    pub async fn probe(&self, path: &str) -> Option<u16> {
        self.get(path).await.ok().map(|answer| answer.status().as_u16())
    }

    /// Its `/metrics`; panics where they cannot be had.
    pub async fn metrics(&self) -> Scrape {
        Scrape::parse(&self.metrics_text().await)
    }

    /// Its `/metrics` as text, for a [`crate::leak::LeakScan`].
    pub async fn metrics_text(&self) -> String {
        let answer = self.get("/metrics").await.and_then(reqwest::Response::error_for_status);
        let text = match answer {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        text.unwrap_or_else(|error| {
            panic!("{} gave no metrics: {error}; its last lines:\n{}", self.builder.name, self.child.tail(30))
        })
    }

    /// Waits until the samples of a metric with these labels come to so much in all; panics where they do not.
    pub async fn wait_for_metric(&self, name: &str, labels: &[(&str, &str)], least: f64, timeout: Duration) {
        let reached = poll::until(timeout, async || (self.metrics().await.sum(name, labels) >= least).then_some(()));
        let tail = || self.child.tail(20);
        assert!(reached.await.is_some(), "{name} {labels:?} did not come to {least}:\n{}", tail());
    }

    /// SIGTERM, as Kubernetes ends a pod; returns how it ended, panics where it
    /// takes longer than `timeout`.
    pub async fn sigterm(&self, timeout: Duration) -> ExitStatus {
        self.child.signal(Signal::TERM);
        self.wait_exit(timeout).await
    }

    /// Waits until it ends by itself.
    pub async fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        self.child.wait_exit(timeout).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// SIGKILL, as a node kills; returns when it is gone.
    pub fn sigkill(&self) {
        self.child.kill();
    }

    /// SIGSTOP: it stands still, as on a node that hangs.
    pub fn pause(&self) {
        self.child.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.child.signal(Signal::CONT);
    }

    /// A new life with the same settings and port; what is left of the present
    /// one is killed.
    pub fn restart(&mut self) {
        self.child.kill();
        self.earlier.push_str(&self.child.logs());
        self.child = self.builder.spawn(self.port);
    }

    /// Ends it and gives what it has written in all its lives.
    #[must_use]
    pub fn retire(self) -> String {
        self.child.kill();
        let Self { mut earlier, child, .. } = self;
        earlier.push_str(&child.logs());
        earlier
    }

    /// What it has written in all its lives.
    #[must_use]
    pub fn logs(&self) -> String {
        format!("{}{}", self.earlier, self.child.logs())
    }

    async fn get(&self, path: &str) -> reqwest::Result<reqwest::Response> {
        let http = reqwest::Client::builder().no_proxy().timeout(HTTP_WITHIN).build()?;
        http.get(format!("{}{path}", self.url())).send().await
    }
}
