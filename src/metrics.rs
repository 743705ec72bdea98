//! What `/metrics` answers: the Prometheus text format, version 0.0.4, which every scraper reads.
//!
//! Four kinds:
//!
//! - Counters and histograms of what the operator did, kept by prometheus-client. Every label has a fixed
//!   set of values, so the number of series has a bound, whatever TikTok or a user sends.
//! - **The fleet**: gauges about all integrations together. They are counted at the scrape, in one pass
//!   over the [`Fleet`], and are there even when 0, so that an alert can rely on them;
//!   `tiktokshop_soonest_access_token_expiry_timestamp_seconds` is `+Inf` while no integration has an expiry.
//! - Gauges for **each integration**, written in the same pass, never kept: see
//!   [`PerIntegrationMetrics`] for when.
//! - The process's own, under the names that every Prometheus client gives them.
//!
//! Every replica tells of the fleet, and so does every shard of its share: `tiktokshop_lease_info` says which
//! belong together, and `tiktokshop_leader` whose word counts. The alert rules join on them.
//!
//! A suspended integration (reason `Suspended`) counts in `tiktokshop_integrations` and has its own gauges,
//! but takes no part in the soonest, the expiring and the overdue: nobody is to be woken for it. A token
//! that has expired already counts as expiring within every span, or an alert would end as the harm begins.
//!
//! prometheus-client writes `OpenMetrics`, whose counters and info metrics `promtool check metrics` does not
//! read. `Total` makes its counters come out in the older format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prometheus_client::encoding::text::encode_registry;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;

use crate::clock::Clock;

/// The media type of [`Metrics::encode`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// With `auto`, gauges for each integration are written up to this many integrations.
const AUTO_OFF_ABOVE: usize = 10_000;
/// Once off, they come back only below this, so that a fleet that wavers does not make series come and go.
const AUTO_ON_BELOW: usize = 9_000;

const HOUR: i64 = 3600;
/// The spans of `tiktokshop_integrations_expiring`, in seconds.
const SPANS: [(&str, i64); 3] = [("1h", HOUR), ("24h", 24 * HOUR), ("14d", 14 * 24 * HOUR)];

/// The reason that takes an integration out of what alerts look at.
const SUSPENDED: &str = "Suspended";
/// The reason of an integration at which nothing is amiss: the refresh to come has its time.
const AS_PLANNED: &str = "TokenValid";

/// Label value for what is not in a fixed set.
const OTHER: &str = "other";
/// Label value for what did not come at all.
const NONE: &str = "none";

/// What a refresh may fail with, as named by the resource's conditions.
const FAILURES: [&str; 20] = [
    "ApiError",
    "AppCredentialsNotFound",
    "AppCredentialsRejected",
    "AuthorizationCodeRejected",
    "InvalidResponse",
    "IpNotAllowed",
    "NetworkError",
    "OutcomeUnknown",
    "PersistFailed",
    "RateLimited",
    "RefreshTokenExpired",
    "RefreshTokenRejected",
    "Timeout",
    "TokenSecretForbidden",
    "TokenSecretImmutable",
    "TokenSecretInUse",
    "TokenSecretNotFound",
    "TokenSecretReverted",
    "TokensMissing",
    OTHER,
];

/// Codes of TikTok's envelope that have a meaning to the operator, and 0 for success.
const CODES: [(i64, &str); 13] = [
    (0, "0"),
    (105_001, "105001"),
    (105_002, "105002"),
    (105_005, "105005"),
    (33_001_002, "33001002"),
    (36_004_004, "36004004"),
    (36_004_005, "36004005"),
    (36_009_002, "36009002"),
    (36_009_003, "36009003"),
    (36_009_004, "36009004"),
    (36_009_007, "36009007"),
    (36_009_033, "36009033"),
    (98_001_004, "98001004"),
];

/// HTTP statuses that are told apart; others are told by their class (`4xx`).
const STATUSES: [(u16, &str); 20] = [
    (200, "200"),
    (301, "301"),
    (302, "302"),
    (303, "303"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (413, "413"),
    (422, "422"),
    (429, "429"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

/// Whether gauges are written for each integration (`--per-integration-metrics`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerIntegrationMetrics {
    /// Up to 10,000 integrations; off above, and on again below 9,000.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

/// How a refresh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshResult {
    /// The new tokens are stored. Label `success`, reason `Refreshed`.
    Success,
    /// Anything else. Label `failure`, with the reason that the status gives.
    Failure {
        /// A reason of the resource's conditions; one that is not known to this file counts as `other`.
        reason: &'static str,
    },
}

/// What is watched in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The `TikTokShopIntegration` resources.
    Integrations,
    /// The metadata of Secrets.
    Secrets,
}

impl Watched {
    const ALL: [Self; 2] = [Self::Integrations, Self::Secrets];

    /// The resource, in the plural.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Integrations => "tiktokshopintegrations",
            Self::Secrets => "secrets",
        }
    }
}

/// What the scrape is told about one integration.
#[derive(Clone, Copy, Debug)]
pub struct FleetRow<'a> {
    /// The integration's namespace.
    pub namespace: &'a str,
    /// The integration's name.
    pub name: &'a str,
    /// `spec.teamId`; its label is empty where there is none.
    pub team: Option<&'a str>,
    /// The status of condition `Ready`: `True`, `False` or `Unknown`.
    pub ready: &'static str,
    /// The reason of condition `Ready`.
    pub reason: &'static str,
    /// When the access token expires, in Unix seconds, if that is known.
    pub access_expires_at: Option<i64>,
    /// When the refresh token expires, in Unix seconds, if that is known.
    pub refresh_expires_at: Option<i64>,
    /// Whether it is past due and not attempted.
    pub overdue: bool,
}

/// Where the scrape finds the integrations.
pub trait Fleet: Send + Sync {
    /// Calls `row` once for each integration. It is called on the thread of the work loop: keep it cheap.
    fn for_each(&self, row: &mut dyn FnMut(FleetRow<'_>));
}

/// A counter whose exposed name is exactly the one it is registered under, which therefore ends in `_total`.
///
/// prometheus-client appends `_total` to a counter's samples but not to its `# TYPE` line, as `OpenMetrics`
/// wants it. Writing the value as a gauge's appends nothing, and the type is still told as a counter.
#[derive(Clone, Debug, Default)]
struct Total(Counter);

impl TypedMetric for Total {
    const TYPE: MetricType = MetricType::Counter;
}

impl EncodeMetric for Total {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.encode_gauge(&self.0.get())
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    result: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    status: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    error: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabels {
    lease: String,
}

/// Every metric of the operator. One for the process, shared behind an [`Arc`](std::sync::Arc).
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    refresh: Family<RefreshLabels, Total>,
    refresh_duration: Histogram,
    refresh_lateness: Histogram,
    persist_retries: Total,
    answers_held: Gauge,
    outcome_unknown: Total,
    api_requests: Family<ApiLabels, Total>,
    leader: Gauge,
    reconciles: Total,
    reconcile_duration: Histogram,
    reconcile_errors: Family<ErrorLabels, Total>,
    clock_jumps: Total,
    watch_errors: Family<ResourceLabels, Total>,
    started_at: i64,
    per_integration: PerIntegrationMetrics,
    /// With `auto`: what the last scrape did.
    auto_on: AtomicBool,
}

impl Metrics {
    /// All metrics at 0. `version` is the operator's own, for `tiktokshop_build_info`; `lease` is the namespace and
    /// name of the lease that it contends for, empty where it contends for none.
    #[must_use]
    pub fn new(version: &'static str, lease: String, per_integration: PerIntegrationMetrics) -> Self {
        let metrics = Self {
            registry: Registry::default(),
            refresh: Family::default(),
            // A call to TikTok takes from tens of milliseconds to the 30 s of --request-timeout, or 5 minutes.
            refresh_duration: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            // Seconds are usual; an hour late starts to eat into a window; a day is a whole one.
            refresh_lateness: Histogram::new([
                1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 43_200.0, 86_400.0,
            ]),
            persist_retries: Total::default(),
            answers_held: Gauge::default(),
            outcome_unknown: Total::default(),
            api_requests: Family::default(),
            leader: Gauge::default(),
            reconciles: Total::default(),
            // Most send nothing and take microseconds.
            reconcile_duration: Histogram::new([0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 60.0]),
            reconcile_errors: Family::default(),
            clock_jumps: Total::default(),
            watch_errors: Family::default(),
            started_at: Clock::now().timestamp(),
            per_integration,
            auto_on: AtomicBool::new(true),
        };
        metrics.start_at_zero();
        metrics.registered(version, lease)
    }

    /// Series that an alert takes the increase of must be there before their first event, or that one is missed.
    fn start_at_zero(&self) {
        drop(
            self.api_requests.get_or_create(&ApiLabels { status: status_label(Some(200)), code: code_label(Some(0)) }),
        );
        drop(self.api_requests.get_or_create(&ApiLabels { status: status_label(None), code: code_label(None) }));
        for error in ["api-server-away", "forbidden", "rollout-restart", "status-write"] {
            drop(self.reconcile_errors.get_or_create(&ErrorLabels { error }));
        }
        drop(self.refresh.get_or_create(&refresh_labels(RefreshResult::Success)));
        for reason in FAILURES {
            drop(self.refresh.get_or_create(&refresh_labels(RefreshResult::Failure { reason })));
        }
        for resource in Watched::ALL {
            drop(self.watch_errors.get_or_create(&ResourceLabels { resource: resource.label() }));
        }
    }

    fn registered(mut self, version: &'static str, lease: String) -> Self {
        let to = &mut self.registry;
        to.register(
            "tiktokshop_refresh_total",
            "Refreshes that ended, by result (success or failure) and reason",
            self.refresh.clone(),
        );
        to.register(
            "tiktokshop_refresh_duration_seconds",
            "How long a refresh took, from its start until its tokens were stored or it failed",
            self.refresh_duration.clone(),
        );
        to.register(
            "tiktokshop_refresh_lateness_seconds",
            "How long after its nextRefreshTime a refresh started",
            self.refresh_lateness.clone(),
        );
        to.register(
            "tiktokshop_persist_retries_total",
            "Writes of new tokens that had to be tried again",
            self.persist_retries.clone(),
        );
        to.register(
            "tiktokshop_answers_held",
            "Answers of TikTok, with new tokens in them, that could not be stored yet",
            self.answers_held.clone(),
        );
        to.register(
            "tiktokshop_outcome_unknown_total",
            "Calls to TikTok after which it is not known whether the refresh token was spent",
            self.outcome_unknown.clone(),
        );
        to.register(
            "tiktokshop_api_requests_total",
            "Requests to TikTok, by HTTP status (none: no answer) and the code in the answer (none: no such answer)",
            self.api_requests.clone(),
        );
        to.register("tiktokshop_leader", "1 while this process may refresh, 0 on standby", self.leader.clone());
        to.register("tiktokshop_reconciles_total", "Times that an integration was looked at", self.reconciles.clone());
        to.register(
            "tiktokshop_reconcile_duration_seconds",
            "How long looking at one integration took, a refresh included",
            self.reconcile_duration.clone(),
        );
        to.register(
            "tiktokshop_reconcile_errors_total",
            "Looks at an integration that failed, by category",
            self.reconcile_errors.clone(),
        );
        to.register(
            "tiktokshop_clock_jumps_total",
            "Times that wall time was set by more than a minute",
            self.clock_jumps.clone(),
        );
        to.register(
            "tiktokshop_watch_errors_total",
            "Errors of lists and watches, by what is watched",
            self.watch_errors.clone(),
        );
        let build = Family::<VersionLabels, ConstGauge, _>::new_with_constructor(|| ConstGauge::new(1_i64));
        drop(build.get_or_create(&VersionLabels { version }));
        to.register("tiktokshop_build_info", "Which version runs", build);
        let info = Family::<LeaseLabels, ConstGauge, _>::new_with_constructor(|| ConstGauge::new(1_i64));
        drop(info.get_or_create(&LeaseLabels { lease }));
        to.register(
            "tiktokshop_lease_info",
            "The lease that this process contends for, as namespace/name: replicas share one, shards do not",
            info,
        );
        self
    }

    /// A refresh ended; `took` counts from its start.
    pub fn refresh_finished(&self, result: RefreshResult, took: Duration) {
        self.refresh.get_or_create(&refresh_labels(result)).0.inc();
        self.refresh_duration.observe(took.as_secs_f64());
    }

    /// A refresh started, this long after its `nextRefreshTime` (zero where it was not late).
    pub fn refresh_started(&self, late: Duration) {
        self.refresh_lateness.observe(late.as_secs_f64());
    }

    /// New tokens are written once more, after a write that failed.
    pub fn persist_retried(&self) {
        self.persist_retries.0.inc();
    }

    /// New tokens could not be stored, and wait. While the API server is away nothing is written, so that
    /// [`Self::persist_retried`] alone does not tell how long that goes on.
    pub fn answer_held(&self) {
        self.answers_held.inc();
    }

    /// What was held is stored, or was given up.
    pub fn answer_let_go(&self) {
        self.answers_held.dec();
    }

    /// A call ended without saying whether the refresh token was spent.
    pub fn outcome_unknown(&self) {
        self.outcome_unknown.0.inc();
    }

    /// One request to TikTok: its HTTP status if an answer came, the envelope's code if it held one.
    pub fn api_request(&self, status: Option<u16>, code: Option<i64>) {
        let labels = ApiLabels { status: status_label(status), code: code_label(code) };
        self.api_requests.get_or_create(&labels).0.inc();
    }

    /// Whether this process leads.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// An integration was looked at; how long that took.
    pub fn reconciled(&self, took: Duration) {
        self.reconciles.0.inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// A look at an integration failed. `category` comes from a fixed set: an error type's own names.
    pub fn reconcile_failed(&self, category: &'static str) {
        self.reconcile_errors.get_or_create(&ErrorLabels { error: category }).0.inc();
    }

    /// Wall time was set.
    pub fn clock_jumped(&self) {
        self.clock_jumps.0.inc();
    }

    /// A list or watch failed.
    pub fn watch_failed(&self, resource: Watched) {
        self.watch_errors.get_or_create(&ResourceLabels { resource: resource.label() }).0.inc();
    }

    /// The text of one scrape at `now` (Unix seconds), of the media type [`CONTENT_TYPE`].
    pub fn encode(&self, fleet: &dyn Fleet, now: i64) -> String {
        let limit = match self.per_integration {
            PerIntegrationMetrics::On => usize::MAX,
            PerIntegrationMetrics::Off => 0,
            PerIntegrationMetrics::Auto if self.auto_on.load(Ordering::Relaxed) => AUTO_OFF_ABOVE,
            PerIntegrationMetrics::Auto => AUTO_ON_BELOW - 1,
        };
        let mut count = Count::new(now, limit);
        fleet.for_each(&mut |row| count.add(&row));
        self.auto_on.store(count.integrations <= limit, Ordering::Relaxed);

        let mut text = String::with_capacity(16 * 1024 + count.access_rows.len() + count.refresh_rows.len());
        // Neither can fail: a String takes everything, and the labels' encoders return only its errors.
        let _ = encode_registry(&mut text, &self.registry);
        let _ = count.write(&mut text);
        let _ = self.write_process(&mut text);
        text
    }
}

impl Metrics {
    fn write_process(&self, text: &mut String) -> std::fmt::Result {
        if let Some(spent) = Clock::process_cpu() {
            let name = "process_cpu_seconds_total";
            writeln!(text, "# HELP {name} User and system time spent, in seconds.\n# TYPE {name} counter")?;
            writeln!(text, "{name} {}", spent.as_secs_f64())?;
        }
        let name = "process_start_time_seconds";
        gauge(text, name, "When the process started, in Unix seconds")?;
        writeln!(text, "{name} {}", self.started_at)?;
        if let Some(bytes) = resident_bytes() {
            let name = "process_resident_memory_bytes";
            gauge(text, name, "Resident memory, in bytes")?;
            writeln!(text, "{name} {bytes}")?;
        }
        Ok(())
    }
}

/// `None` where there is no such file: on anything but Linux.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    kibibytes.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

fn refresh_labels(result: RefreshResult) -> RefreshLabels {
    match result {
        RefreshResult::Success => RefreshLabels { result: "success", reason: "Refreshed" },
        RefreshResult::Failure { reason } => {
            let known = FAILURES.into_iter().find(|known| *known == reason);
            RefreshLabels { result: "failure", reason: known.unwrap_or(OTHER) }
        }
    }
}

fn code_label(code: Option<i64>) -> &'static str {
    code.map_or(NONE, |code| CODES.iter().find(|(known, _)| *known == code).map_or(OTHER, |(_, label)| label))
}

fn status_label(status: Option<u16>) -> &'static str {
    let Some(status) = status else { return NONE };
    if let Some((_, label)) = STATUSES.iter().find(|(known, _)| *known == status) {
        return label;
    }
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => OTHER,
    }
}

/// What one pass over the fleet finds.
struct Count {
    now: i64,
    limit: usize,
    integrations: usize,
    by_state: BTreeMap<(&'static str, &'static str), u64>,
    soonest: Option<i64>,
    /// For each span: access tokens, refresh tokens.
    expiring: [[u64; 2]; SPANS.len()],
    /// For each span.
    unrefreshed: [u64; SPANS.len()],
    overdue: u64,
    access_rows: String,
    refresh_rows: String,
}

const ACCESS_EXPIRY: &str = "tiktokshop_access_token_expiry_timestamp_seconds";
const REFRESH_EXPIRY: &str = "tiktokshop_refresh_token_expiry_timestamp_seconds";

impl Count {
    fn new(now: i64, limit: usize) -> Self {
        Self {
            now,
            limit,
            integrations: 0,
            by_state: BTreeMap::new(),
            soonest: None,
            expiring: [[0; 2]; SPANS.len()],
            unrefreshed: [0; SPANS.len()],
            overdue: 0,
            access_rows: String::new(),
            refresh_rows: String::new(),
        }
    }

    fn add(&mut self, row: &FleetRow<'_>) {
        self.integrations += 1;
        *self.by_state.entry((row.ready, row.reason)).or_default() += 1;
        if row.reason != SUSPENDED {
            self.overdue += u64::from(row.overdue);
            if let Some(at) = row.access_expires_at {
                self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
            }
            for (token, expires_at) in [row.access_expires_at, row.refresh_expires_at].into_iter().enumerate() {
                let Some(left) = expires_at.map(|at| at.saturating_sub(self.now)) else {
                    continue;
                };
                for (span, (_, seconds)) in SPANS.iter().enumerate() {
                    self.expiring[span][token] += u64::from(left <= *seconds);
                }
            }
            if let Some(at) = row.access_expires_at
                && (row.reason != AS_PLANNED || row.overdue)
            {
                let left = at.saturating_sub(self.now);
                for (span, (_, seconds)) in SPANS.iter().enumerate() {
                    self.unrefreshed[span] += u64::from(left <= *seconds);
                }
            }
        }
        if self.integrations > self.limit {
            // Too many after all: the pass goes on for the sums alone.
            self.access_rows = String::new();
            self.refresh_rows = String::new();
        } else {
            write_row(&mut self.access_rows, ACCESS_EXPIRY, row, row.access_expires_at);
            write_row(&mut self.refresh_rows, REFRESH_EXPIRY, row, row.refresh_expires_at);
        }
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        gauge(text, "tiktokshop_integrations", "Integrations, by the status and reason of their condition Ready")?;
        for ((ready, reason), number) in &self.by_state {
            writeln!(text, "tiktokshop_integrations{{ready=\"{ready}\",reason=\"{reason}\"}} {number}")?;
        }

        let name = "tiktokshop_soonest_access_token_expiry_timestamp_seconds";
        gauge(
            text,
            name,
            "When the first access token of those not suspended expires or has expired; +Inf where none has an expiry",
        )?;
        match self.soonest {
            Some(soonest) => writeln!(text, "{name} {soonest}")?,
            None => writeln!(text, "{name} +Inf")?,
        }

        let name = "tiktokshop_integrations_expiring";
        gauge(text, name, "Integrations, not suspended, whose token expires within a span or has expired")?;
        for (token, label) in ["access", "refresh"].into_iter().enumerate() {
            for (span, (within, _)) in SPANS.iter().enumerate() {
                let number = self.expiring[span][token];
                writeln!(text, "{name}{{token=\"{label}\",within=\"{within}\"}} {number}")?;
            }
        }

        let name = "tiktokshop_integrations_unrefreshed";
        gauge(
            text,
            name,
            "Integrations, not suspended, whose access token expires within a span or has expired, and whose refresh failed, is blocked or is overdue",
        )?;
        for (span, (within, _)) in SPANS.iter().enumerate() {
            writeln!(text, "{name}{{within=\"{within}\"}} {}", self.unrefreshed[span])?;
        }

        let name = "tiktokshop_overdue_integrations";
        gauge(text, name, "Integrations, not suspended, that are past due and not attempted")?;
        writeln!(text, "{name} {}", self.overdue)?;

        for (name, help, rows) in [
            (ACCESS_EXPIRY, "When the integration's access token expires", &self.access_rows),
            (REFRESH_EXPIRY, "When the integration's refresh token expires", &self.refresh_rows),
        ] {
            if !rows.is_empty() {
                gauge(text, name, help)?;
                text.push_str(rows);
            }
        }
        Ok(())
    }
}

fn gauge(text: &mut String, name: &str, help: &str) -> std::fmt::Result {
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge")
}

fn write_row(text: &mut String, metric: &str, row: &FleetRow<'_>, at: Option<i64>) {
    let Some(at) = at else { return };
    text.push_str(metric);
    text.push_str("{namespace=\"");
    push_escaped(text, row.namespace);
    text.push_str("\",name=\"");
    push_escaped(text, row.name);
    text.push_str("\",team=\"");
    push_escaped(text, row.team.unwrap_or_default());
    text.push_str("\"} ");
    // A String takes everything.
    let _ = writeln!(text, "{at}");
}

/// Backslash, quote and line feed are what the format asks to be escaped in a label's value.
fn push_escaped(text: &mut String, value: &str) {
    for part in value.split_inclusive(['\\', '"', '\n']) {
        let (plain, escaped) = match part.as_bytes().last() {
            Some(b'\\') => (&part[..part.len() - 1], "\\\\"),
            Some(b'"') => (&part[..part.len() - 1], "\\\""),
            Some(b'\n') => (&part[..part.len() - 1], "\\n"),
            _ => (part, ""),
        };
        text.push_str(plain);
        text.push_str(escaped);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[derive(Clone)]
    struct Shop {
        name: String,
        team: Option<&'static str>,
        reason: &'static str,
        access: Option<i64>,
        refresh: Option<i64>,
        overdue: bool,
    }

    fn shop(name: &str) -> Shop {
        Shop {
            name: name.to_owned(),
            team: None,
            reason: "TokenValid",
            access: Some(NOW + 7 * 24 * HOUR),
            refresh: Some(4_900_000_000),
            overdue: false,
        }
    }

    struct Shops(Mutex<Vec<Shop>>);

    impl Fleet for Shops {
        fn for_each(&self, row: &mut dyn FnMut(FleetRow<'_>)) {
            for shop in self.0.lock().unwrap().iter() {
                row(FleetRow {
                    namespace: "shops",
                    name: &shop.name,
                    team: shop.team,
                    ready: if shop.reason == "TokenValid" { "True" } else { "False" },
                    reason: shop.reason,
                    access_expires_at: shop.access,
                    refresh_expires_at: shop.refresh,
                    overdue: shop.overdue,
                });
            }
        }
    }

    fn fleet(shops: impl IntoIterator<Item = Shop>) -> Shops {
        Shops(Mutex::new(shops.into_iter().collect()))
    }

    fn metrics(per_integration: PerIntegrationMetrics) -> Metrics {
        Metrics::new("1.2.3", "ops/shard-1".to_owned(), per_integration)
    }

    fn assert_line(text: &str, line: &str) {
        assert!(text.lines().any(|other| other == line), "no line `{line}` in:\n{text}");
    }

    /// What `promtool check metrics` would refuse, as far as it concerns this text.
    fn assert_well_formed(text: &str) {
        let mut seen = BTreeSet::new();
        let mut family = String::new();
        let mut samples = BTreeSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(seen.insert(name.to_owned()), "{name} comes twice");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                name.clone_into(&mut family);
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                assert!(
                    name == family
                        || ["_sum", "_count", "_bucket"].iter().any(|end| name.strip_suffix(end) == Some(&family)),
                    "{line} stands among {family}"
                );
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(samples.insert(series.to_owned()), "{series} comes twice");
            }
        }
    }

    #[test]
    fn every_metric_of_the_contract_is_exposed_under_its_name() {
        let metrics = metrics(PerIntegrationMetrics::Auto);
        metrics.refresh_finished(RefreshResult::Success, Duration::from_millis(300));
        metrics.refresh_finished(RefreshResult::Failure { reason: "RateLimited" }, Duration::from_millis(300));
        metrics.refresh_finished(RefreshResult::Failure { reason: "SomethingNew" }, Duration::from_millis(300));
        metrics.refresh_started(Duration::from_secs(7));
        metrics.persist_retried();
        metrics.answer_held();
        metrics.outcome_unknown();
        metrics.api_request(Some(200), Some(0));
        metrics.api_request(Some(200), Some(36_004_005));
        metrics.api_request(Some(418), Some(-7));
        metrics.api_request(Some(999), None);
        metrics.api_request(None, None);
        metrics.set_leader(true);
        metrics.reconciled(Duration::from_micros(30));
        metrics.reconcile_failed("Observe");
        metrics.clock_jumped();
        metrics.watch_failed(Watched::Secrets);
        let text = metrics.encode(&fleet([shop("shop-1")]), NOW);
        assert_well_formed(&text);
        for line in [
            "# TYPE tiktokshop_refresh_total counter",
            "tiktokshop_refresh_total{result=\"success\",reason=\"Refreshed\"} 1",
            "tiktokshop_refresh_total{result=\"failure\",reason=\"RateLimited\"} 1",
            "tiktokshop_refresh_total{result=\"failure\",reason=\"Timeout\"} 0",
            "tiktokshop_refresh_total{result=\"failure\",reason=\"other\"} 1",
            "# TYPE tiktokshop_refresh_duration_seconds histogram",
            "tiktokshop_refresh_duration_seconds_count 3",
            "tiktokshop_refresh_lateness_seconds_bucket{le=\"30.0\"} 1",
            "tiktokshop_persist_retries_total 1",
            "tiktokshop_answers_held 1",
            "tiktokshop_outcome_unknown_total 1",
            "tiktokshop_api_requests_total{status=\"200\",code=\"0\"} 1",
            "tiktokshop_api_requests_total{status=\"200\",code=\"36004005\"} 1",
            "tiktokshop_api_requests_total{status=\"4xx\",code=\"other\"} 1",
            "tiktokshop_api_requests_total{status=\"other\",code=\"none\"} 1",
            "tiktokshop_api_requests_total{status=\"none\",code=\"none\"} 1",
            "tiktokshop_leader 1",
            "tiktokshop_reconciles_total 1",
            "tiktokshop_reconcile_duration_seconds_count 1",
            "tiktokshop_reconcile_errors_total{error=\"Observe\"} 1",
            "tiktokshop_clock_jumps_total 1",
            "tiktokshop_watch_errors_total{resource=\"secrets\"} 1",
            "tiktokshop_watch_errors_total{resource=\"tiktokshopintegrations\"} 0",
            "tiktokshop_build_info{version=\"1.2.3\"} 1",
            "tiktokshop_lease_info{lease=\"ops/shard-1\"} 1",
            "# TYPE tiktokshop_access_token_expiry_timestamp_seconds gauge",
            "tiktokshop_access_token_expiry_timestamp_seconds{namespace=\"shops\",name=\"shop-1\",team=\"\"} 1800604800",
            "tiktokshop_refresh_token_expiry_timestamp_seconds{namespace=\"shops\",name=\"shop-1\",team=\"\"} 4900000000",
            "tiktokshop_integrations{ready=\"True\",reason=\"TokenValid\"} 1",
            "tiktokshop_soonest_access_token_expiry_timestamp_seconds 1800604800",
        ] {
            assert_line(&text, line);
        }
    }

    #[test]
    fn what_alerts_rely_on_is_there_before_anything_happened() {
        let text = metrics(PerIntegrationMetrics::Auto).encode(&fleet([]), NOW);
        assert_well_formed(&text);
        for token in ["access", "refresh"] {
            for within in ["1h", "24h", "14d"] {
                assert_line(
                    &text,
                    &format!("tiktokshop_integrations_expiring{{token=\"{token}\",within=\"{within}\"}} 0"),
                );
            }
        }
        for line in [
            "tiktokshop_integrations_unrefreshed{within=\"1h\"} 0",
            "tiktokshop_integrations_unrefreshed{within=\"24h\"} 0",
            "tiktokshop_overdue_integrations 0",
            "tiktokshop_persist_retries_total 0",
            "tiktokshop_answers_held 0",
            "tiktokshop_outcome_unknown_total 0",
            "tiktokshop_leader 0",
            "tiktokshop_soonest_access_token_expiry_timestamp_seconds +Inf",
            "tiktokshop_api_requests_total{status=\"200\",code=\"0\"} 0",
            "tiktokshop_reconcile_errors_total{error=\"api-server-away\"} 0",
            "tiktokshop_refresh_total{result=\"failure\",reason=\"OutcomeUnknown\"} 0",
        ] {
            assert_line(&text, line);
        }
    }

    #[test]
    fn expired_tokens_count_as_expiring_and_suspended_ones_wake_nobody() {
        let expired = Shop { reason: "TokenExpired", access: Some(NOW - 5), overdue: true, ..shop("expired") };
        let soon = Shop { access: Some(NOW + HOUR), refresh: Some(NOW + 13 * 24 * HOUR), ..shop("soon") };
        let unknown = Shop { reason: "TokensMissing", access: None, refresh: None, ..shop("unknown") };
        let suspended =
            Shop { reason: "Suspended", access: Some(1), refresh: Some(1), overdue: true, ..shop("suspended") };
        let text =
            metrics(PerIntegrationMetrics::Off).encode(&fleet([expired, soon, unknown, suspended, shop("fresh")]), NOW);
        assert_well_formed(&text);
        for line in [
            "tiktokshop_integrations{ready=\"False\",reason=\"Suspended\"} 1".to_owned(),
            "tiktokshop_integrations{ready=\"True\",reason=\"TokenValid\"} 2".to_owned(),
            format!("tiktokshop_soonest_access_token_expiry_timestamp_seconds {}", NOW - 5),
            "tiktokshop_integrations_expiring{token=\"access\",within=\"1h\"} 2".to_owned(),
            "tiktokshop_integrations_expiring{token=\"access\",within=\"24h\"} 2".to_owned(),
            "tiktokshop_integrations_expiring{token=\"access\",within=\"14d\"} 3".to_owned(),
            "tiktokshop_integrations_expiring{token=\"refresh\",within=\"24h\"} 0".to_owned(),
            "tiktokshop_integrations_expiring{token=\"refresh\",within=\"14d\"} 1".to_owned(),
            "tiktokshop_overdue_integrations 1".to_owned(),
        ] {
            assert_line(&text, &line);
        }
        assert!(!text.contains(ACCESS_EXPIRY), "gauges for each integration are off:\n{text}");
    }

    #[test]
    fn a_token_that_is_to_be_refreshed_in_its_last_hour_counts_as_unrefreshed_only_once_that_goes_wrong() {
        let half_an_hour = Some(NOW + HOUR / 2);
        let planned = Shop { access: half_an_hour, ..shop("planned") };
        let overdue = Shop { access: half_an_hour, overdue: true, ..shop("overdue") };
        let failing = Shop { access: Some(NOW + 20 * HOUR), reason: "RefreshFailing", ..shop("failing") };
        let expired = Shop { access: Some(NOW - 5), reason: "TokenExpired", ..shop("expired") };
        let early = Shop { reason: "RefreshFailing", ..shop("asked for, and failed, long before") };
        let suspended = Shop { access: half_an_hour, reason: "Suspended", overdue: true, ..shop("suspended") };
        let text = metrics(PerIntegrationMetrics::Off)
            .encode(&fleet([planned, overdue, failing, expired, early, suspended]), NOW);
        assert_well_formed(&text);
        for line in [
            "tiktokshop_integrations_expiring{token=\"access\",within=\"1h\"} 3",
            "tiktokshop_integrations_unrefreshed{within=\"1h\"} 2",
            "tiktokshop_integrations_unrefreshed{within=\"24h\"} 3",
            "tiktokshop_integrations_unrefreshed{within=\"14d\"} 4",
        ] {
            assert_line(&text, line);
        }
    }

    #[test]
    fn the_process_tells_of_its_memory_and_time() {
        let text = metrics(PerIntegrationMetrics::Off).encode(&fleet([]), NOW);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse::<f64>().unwrap()
        };
        assert!(value("process_start_time_seconds") > 1_700_000_000.0);
        if cfg!(target_os = "linux") {
            assert!(value("process_cpu_seconds_total") > 0.0);
            assert!(value("process_resident_memory_bytes") > 1_000_000.0);
        }
    }

    #[test]
    fn label_values_cannot_break_the_format() {
        let strange = Shop { team: Some("a\"b\\c\nd"), ..shop("shop-1") };
        let text = metrics(PerIntegrationMetrics::On).encode(&fleet([strange]), NOW);
        assert!(text.contains(r#"team="a\"b\\c\nd"} "#), "{text}");
        assert_well_formed(&text);
    }

    #[test]
    fn automatic_gauges_go_above_10000_and_come_back_below_9000() {
        let metrics = metrics(PerIntegrationMetrics::Auto);
        let fleet = fleet([]);
        for (integrations, written) in
            [(10_000, 10_000), (10_001, 0), (10_000, 0), (9_000, 0), (8_999, 8_999), (10_000, 10_000), (10_001, 0)]
        {
            fleet.0.lock().unwrap().resize(integrations, shop("shop"));
            let text = metrics.encode(&fleet, NOW);
            let rows = text.lines().filter(|line| line.starts_with(ACCESS_EXPIRY)).count();
            assert_eq!(rows, written, "with {integrations} integrations");
            assert_line(
                &text,
                &format!("tiktokshop_integrations{{ready=\"True\",reason=\"TokenValid\"}} {integrations}"),
            );
        }
    }
}
