//! `tiktok-shop-operator run`: from settings to a working controller, and to an orderly end.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{Admin, Heartbeat, Port, Readiness};
use crate::clock::Clock;
use crate::cluster::{ApiError, Cluster};
use crate::controller::{Controller, Parts};
use crate::journal::{Journal, JournalError};
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::settings::{Settings, TokenRequest};
use crate::tiktok::{ClientBuildError, Endpoint, EndpointError, RequestForm, ShopsClient, TokenClient};
use crate::{random_id, telemetry};

/// Beyond twice the request timeout: time to store what is in flight after SIGTERM. The pod's grace
/// period is 5 s more.
const PATIENCE: Duration = Duration::from_secs(25);

/// Why the operator could not start, or not end well: one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The runtime could not be built.
    #[error("failed to start: {0}")]
    Runtime(std::io::Error),
    /// Logging could not be set up.
    #[error("failed to set up logging: {0}")]
    Telemetry(#[from] telemetry::TelemetryError),
    /// The endpoint is none.
    #[error("{flag}: {problem}")]
    Endpoint {
        /// The flag that names it.
        flag: &'static str,
        /// Why not.
        problem: EndpointError,
    },
    /// The file of `--ca-file` can't be read.
    #[error("--ca-file: failed to read {path}: {source}; name a readable file of PEM certificates")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The client for TikTok could not be built.
    #[error("{0}")]
    Client(ClientBuildError),
    /// The file of `--ca-file` holds no usable certificates.
    #[error("--ca-file: {0}")]
    Certificates(ClientBuildError),
    /// The address of `--listen` can't be had.
    #[error("{0}: {source}", source = .0.source)]
    Listen(#[from] crate::admin::BindError),
    /// No cluster is configured.
    #[error("no cluster: {0}; set KUBECONFIG to a working file, or run in a pod with a service account")]
    NoCluster(Box<kube::Error>),
    /// The API server refuses to be asked.
    #[error(
        "the API server refuses this operator: {0}; check the credentials in KUBECONFIG, and that they may use discovery (ClusterRole system:discovery)"
    )]
    Refused(String),
    /// The API server can't be asked.
    #[error("failed to ask the API server: {0}; check that it runs and that KUBECONFIG names it")]
    Unreachable(ApiError),
    /// The CRD is not installed.
    #[error(
        "the cluster does not know TikTokShopIntegration: install it with 'tiktok-shop-operator crd | kubectl apply --server-side -f -'"
    )]
    NoCrd,
    /// The journal can't be used.
    #[error("--journal-dir: {0}")]
    Journal(#[from] JournalError),
    /// The end came before everything was stored.
    #[error("stopped with {0} answer(s) of TikTok not stored and in no journal: those shops must be authorized again")]
    Lost(usize),
}

impl RunError {
    /// Is a flag or variable wrong, and not what was found with it?
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Endpoint { .. } | Self::CaFile { .. } | Self::Certificates(_))
    }
}

/// Runs until SIGTERM or SIGINT, and until what is in flight is stored.
///
/// # Errors
/// Where it can't start, or had to end with answers that were stored nowhere.
pub fn run(settings: Settings) -> Result<(), RunError> {
    telemetry::init(settings.log_format)?;
    // One thread: the limit is the API server, and a second thread gained nothing when measured.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: Settings) -> Result<(), RunError> {
    // First of all: from here on a SIGTERM is an orderly end, not a death.
    let mut signals = Signals::listen().map_err(RunError::Runtime)?;
    let metrics = Arc::new(metrics_of(&settings));
    let Clients { tiktok, authorization, shops } = tiktok_clients(&settings, &metrics)?;
    let port = Port::open(settings.listen)?;
    let cluster = tokio::select! {
        found = find_cluster() => found?,
        // Nothing was begun.
        () = signals.next() => return Ok(()),
    };
    let process = random_id();
    let (journal, left) = match &settings.journal_dir {
        Some(dir) => {
            make_journal_dir(dir);
            let (journal, left) = Journal::open(dir, &process, Clock::now().timestamp())?;
            (Some(journal), left)
        }
        None => (None, Vec::new()),
    };

    let (heartbeat, readiness) = (Heartbeat::new(), Readiness::new());
    let pod = first_set(&["POD_UID", "HOSTNAME"]).unwrap_or_else(|| "unknown-pod".to_owned());
    let pod_name = first_set(&["POD_NAME", "HOSTNAME"]).unwrap_or_else(|| "unknown-pod".to_owned());
    let lease = settings
        .leader_election
        .as_ref()
        .map(|election| Lease::start(&cluster, &election.namespace, &election.name, format!("{pod_name}_{process}")));
    let patience = settings.request_timeout * 2 + PATIENCE;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        process,
        listen = %port.address(),
        endpoint = settings.token_endpoint,
        authorization_endpoint = settings.authorization_endpoint,
        shops_endpoint = settings.shops_endpoint,
        journal = settings.journal_dir.is_some(),
        leader_election = settings.leader_election.is_some(),
        "started"
    );
    let controller = Controller::new(
        settings,
        Parts {
            cluster,
            tiktok,
            authorization,
            shops,
            journal: journal.clone(),
            left,
            pod,
            process,
            metrics: Arc::clone(&metrics),
            heartbeat: heartbeat.clone(),
            readiness: readiness.clone(),
        },
    );
    let (stop, stopped) = watch::channel(false);
    let admin = Admin { heartbeat, readiness, metrics, fleet: controller.fleet() };
    let (close, closed) = tokio::sync::oneshot::channel::<()>();
    let closing = async move {
        // The sender is dropped when the work is over: that is the sign, too.
        let _ = closed.await;
    };
    let server = admin.start(port, closing).map_err(RunError::Runtime)?;
    let signals = tokio::spawn(signals.watch(stop));
    let leadership = lease.as_ref().map(crate::lease::LeaseHandle::watch);
    let lost = controller.run(leadership, stopped, patience).await;
    if let Some(lease) = lease {
        // Only now: whoever takes over must not meet work of this process.
        lease.release().await;
    }
    drop(close);
    signals.abort();
    // A panic would have ended the process.
    let _ = server.join();
    if let Some(journal) = journal {
        journal.close();
    }
    if lost > 0 { Err(RunError::Lost(lost)) } else { Ok(()) }
}

/// The cluster, which must serve the custom resource.
async fn find_cluster() -> Result<Cluster, RunError> {
    let cluster = Cluster::infer().await.map_err(|error| RunError::NoCluster(Box::new(error)))?;
    match cluster.serves_integrations().await {
        Ok(true) => Ok(cluster),
        Ok(false) => Err(RunError::NoCrd),
        Err(ApiError::Forbidden(why)) => Err(RunError::Refused(why)),
        Err(error) => Err(RunError::Unreachable(error)),
    }
}

/// The clients of TikTok's endpoints.
struct Clients {
    /// For refreshes.
    tiktok: TokenClient,
    /// For exchanges.
    authorization: TokenClient,
    /// For the checks of shops.
    shops: ShopsClient,
}

fn tiktok_clients(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Clients, RunError> {
    let parse = |flag, text| Endpoint::parse(text).map_err(|problem| RunError::Endpoint { flag, problem });
    let refreshes = parse("--token-endpoint", &settings.token_endpoint)?;
    let exchanges = parse("--authorization-endpoint", &settings.authorization_endpoint)?;
    let shops = parse("--shops-endpoint", &settings.shops_endpoint)?;
    let form = match settings.token_request {
        TokenRequest::Auto => RequestForm::Auto,
        TokenRequest::Json => RequestForm::Json,
        TokenRequest::Query => RequestForm::Query,
    };
    let roots = match &settings.ca_file {
        Some(path) => Some(std::fs::read(path).map_err(|source| RunError::CaFile { path: path.clone(), source })?),
        None => None,
    };
    let user_agent = concat!("tiktok-shop-operator/", env!("CARGO_PKG_VERSION"));
    let refused = |error| match error {
        ClientBuildError::NoCertificate | ClientBuildError::BadCertificate => RunError::Certificates(error),
        error => RunError::Client(error),
    };
    let counted = || {
        let metrics = Arc::clone(metrics);
        Box::new(move |status, code| metrics.api_request(status, code))
    };
    let client = |endpoint, form| {
        let client = TokenClient::new(endpoint, form, roots.as_deref(), user_agent, settings.request_timeout);
        Ok::<_, RunError>(client.map_err(refused)?.telling(counted()))
    };
    let shops = ShopsClient::new(shops, roots.as_deref(), user_agent, settings.request_timeout).map_err(refused)?;
    Ok(Clients {
        tiktok: client(refreshes, form)?,
        authorization: client(exchanges, RequestForm::Query)?,
        shops: shops.telling(counted()),
    })
}

fn metrics_of(settings: &Settings) -> Metrics {
    let lease = settings.leader_election.as_ref().map(|lease| format!("{}/{}", lease.namespace, lease.name));
    Metrics::new(env!("CARGO_PKG_VERSION"), lease.unwrap_or_default(), settings.per_integration_metrics)
}

/// Makes the journal's directory where it is not there, but none above it: what that leaves to say, opening it says.
fn make_journal_dir(dir: &Path) {
    if std::fs::DirBuilder::new().mode(0o700).create(dir).is_ok() {
        tracing::warn!(
            dir = %dir.display(),
            "the journal directory was not there and was made: in a pod, mount a volume there, or it ends with the container"
        );
    }
}

fn first_set(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Self, std::io::Error> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first signal drains. After it, Ctrl-C is that of a person who will not wait, and ends at once; another SIGTERM
    /// says what was said.
    async fn watch(mut self, stop: watch::Sender<bool>) {
        self.next().await;
        stop.send_replace(true);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => tracing::info!("SIGTERM once more: what is in flight is stored first"),
                _ = self.interrupt.recv() => break,
            }
        }
        tracing::error!("interrupted while stopping: ending at once");
        std::process::exit(1);
    }
}
