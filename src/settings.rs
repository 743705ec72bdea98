//! The command line: read once, validated once.
//!
//! Three steps, as ripgrep does it:
//!
//! 1. [`Cli`] is what clap reads: words, nothing judged.
//! 2. What no flag gives comes from the environment ([`Environment`]): `TIKTOK_SHOP_` and the flag in capitals,
//!    lists by comma. An **empty variable counts as unset** (charts and shells leave such), a flag wins over a
//!    variable, unknown variables are ignored (a Service named `tiktok-shop` makes Kubernetes inject
//!    `TIKTOK_SHOP_PORT`). clap would take an empty value as one, so it does not do this step.
//! 3. [`Settings::validate`] judges each word and gives another type, in which nothing is left to check.
//!
//! A wrong word is told in one line: where it stands, what is wrong, what to write.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::digest;
use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use kube::core::{Expression, Selector};

use crate::api::parse_go_duration;
use crate::metrics::PerIntegrationMetrics;
use crate::telemetry::LogFormat;

const PREFIX: &str = "TIKTOK_SHOP_";
const POD_NAMESPACE: &str = "POD_NAMESPACE";
const POD_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
const LEASE_NAME: &str = "tiktok-shop-operator";

/// Flags with a default, and that default as a user would write it.
const DEFAULTS: [(&str, &str); 16] = [
    ("token-endpoint", "https://auth.tiktok-shops.com/api/v2/token/refresh"),
    ("authorization-endpoint", "https://auth.tiktok-shops.com/api/v2/token/get"),
    ("shops-endpoint", "https://open-api.tiktokglobalshop.com/authorization/202309/shops"),
    ("token-request", "auto"),
    ("request-timeout", "30s"),
    ("refresh-before", "24h"),
    ("status-interval", "1h"),
    ("secret-access", "watch"),
    ("secret-poll-interval", "5m"),
    ("max-concurrent-refreshes", "32"),
    ("requests-per-second", "20"),
    ("leader-elect", "true"),
    ("listen", "0.0.0.0:8080"),
    ("per-integration-metrics", "auto"),
    ("log-format", "json"),
    ("lease-name", LEASE_NAME),
];

fn default_of(flag: &str) -> Option<&'static str> {
    DEFAULTS.iter().find(|(name, _)| *name == flag).map(|(_, default)| *default)
}

fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Keeps TikTok Shop API tokens in Kubernetes Secrets alive.
#[derive(Debug, Parser)]
#[command(
    name = "tiktok-shop-operator",
    bin_name = "tiktok-shop-operator",
    version,
    arg_required_else_help = false,
    subcommand_required = true,
    after_help = "Examples:\n  \
        tiktok-shop-operator crd | kubectl apply --server-side -f -\n  \
        tiktok-shop-operator run --log-format text --leader-elect=false\n  \
        tiktok-shop-operator run --help"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: CliCommand,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum CliCommand {
    /// Run the operator
    #[command(after_help = "Durations are written as in Go: 90s, 1h30m, 24h. A flag wins over its variable; an empty \
        variable counts as unset; lists are separated by commas. RUST_LOG sets the log level (default: info).\n\n\
        Examples:\n  \
        # outside a cluster, with the current kubeconfig\n  \
        tiktok-shop-operator run --leader-elect=false --log-format text\n  \
        # in two namespaces, reading no Secret but the ones named\n  \
        tiktok-shop-operator run --namespace shops,shops-eu --secret-access named\n  \
        # one of several operators, each on its share\n  \
        tiktok-shop-operator run --watch-label-selector shard=a")]
    Run(Box<RunArgs>),
    /// Print the CRD as YAML
    Crd,
}

/// The flags of `run`, as written.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// TikTok's token endpoint; HTTPS only, but for loopback addresses
    #[arg(long, value_name = "URL")]
    pub token_endpoint: Option<Word>,
    /// Where an authorization code is exchanged for tokens; HTTPS only, but for loopback addresses
    #[arg(long, value_name = "URL")]
    pub authorization_endpoint: Option<Word>,
    /// Where integrations with spec.checkShops have their shops looked up; HTTPS only, but for loopback addresses
    #[arg(long, value_name = "URL")]
    pub shops_endpoint: Option<Word>,
    /// How a refresh is asked for: json, query, or auto (json first, query where the endpoint does not serve it)
    #[arg(long, value_name = "FORM")]
    pub token_request: Option<Word>,
    /// For one API call, all of it; 100ms to 5m
    #[arg(long, value_name = "DURATION")]
    pub request_timeout: Option<Word>,
    /// More trusted root certificates (PEM)
    #[arg(long, value_name = "PATH")]
    pub ca_file: Option<Word>,
    /// How long before its expiry a token is refreshed, for integrations that set none; 5m to 144h
    #[arg(long, value_name = "DURATION")]
    pub refresh_before: Option<Word>,
    /// How stale status.hoursUntilExpiry may get; 1s to 24h
    #[arg(long, value_name = "DURATION")]
    pub status_interval: Option<Word>,
    /// watch (the metadata of Secrets), or named: no list and no watch, only the Secrets that are named
    #[arg(long, value_name = "HOW")]
    pub secret_access: Option<Word>,
    /// With --secret-access named: how soon a changed Secret is noticed; 1s to 24h
    #[arg(long, value_name = "DURATION")]
    pub secret_poll_interval: Option<Word>,
    /// A namespace to work in, repeatable [default: all]
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    pub namespace: Vec<Word>,
    /// Only integrations with these labels, to run several operators, each on its share
    #[arg(long, value_name = "SELECTOR")]
    pub watch_label_selector: Option<Word>,
    /// Refreshes at the same time, over all apps; 1 to 10000
    #[arg(long, value_name = "NUMBER")]
    pub max_concurrent_refreshes: Option<Word>,
    /// Requests to TikTok for each app key; 0.001 to 100000
    #[arg(long, value_name = "NUMBER")]
    pub requests_per_second: Option<Word>,
    /// Whether replicas elect one that acts
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: Option<Word>,
    /// Name of the Lease (plus a short hash of selector and namespaces where those are set)
    #[arg(long, value_name = "NAME")]
    pub lease_name: Option<Word>,
    /// Namespace of the Lease [default: the pod's]
    #[arg(long, value_name = "NAME")]
    pub lease_namespace: Option<Word>,
    /// Where an answer that could not yet be stored survives a crash
    #[arg(long, value_name = "PATH")]
    pub journal_dir: Option<Word>,
    /// Address of /livez, /readyz and /metrics
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<Word>,
    /// Gauges for each integration: on, off, or auto (on up to 10000 integrations)
    #[arg(long, value_name = "WHEN")]
    pub per_integration_metrics: Option<Word>,
    /// json or text, on standard error
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<Word>,
}

/// What a user wrote, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    text: String,
    /// Of the environment; `None`: as a flag.
    variable: Option<String>,
}

impl From<String> for Word {
    fn from(text: String) -> Self {
        Self { text, variable: None }
    }
}

/// What of the process's surroundings has a say in the settings.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    pod_namespace: Option<String>,
}

impl Environment {
    /// Of this process: its variables, and the namespace that a pod finds with its service account.
    #[must_use]
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        let pod_namespace = std::fs::read_to_string(POD_NAMESPACE_FILE).ok();
        Self::new(variables, pod_namespace)
    }

    /// Of a test, or a program that embeds this one. White space around the namespace is dropped; empty values
    /// count as unset.
    #[must_use]
    pub fn new(variables: BTreeMap<String, OsString>, pod_namespace: Option<String>) -> Self {
        let pod_namespace = pod_namespace.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        Self { variables, pod_namespace }
    }

    fn word(&self, flag: &str) -> Result<Option<Word>, SettingsError> {
        let name = variable_of(flag);
        let Some(value) = self.variables.get(&name).filter(|value| !value.is_empty()) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) => Ok(Some(Word { text: text.to_owned(), variable: Some(name) })),
            None => {
                Err(SettingsError { place: name, problem: "is not UTF-8".into(), advice: "write plain text".into() })
            }
        }
    }

    fn pod_namespace(&self) -> Option<&str> {
        let variable = self.variables.get(POD_NAMESPACE).and_then(|value| value.to_str());
        variable.filter(|name| !name.is_empty()).or(self.pod_namespace.as_deref())
    }
}

/// A setting that cannot be used. One line: where it stands, what is wrong, what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place} {problem}; {advice}")]
pub struct SettingsError {
    place: String,
    problem: String,
    advice: String,
}

/// Why a command line leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Help or the version was asked for. Goes to standard output, exit code 0.
    Shown(String),
    /// The line cannot be used: one line for standard error, exit code 2.
    Usage(String),
}

impl Halt {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Shown(_) => 0,
            Self::Usage(_) => 2,
        }
    }
}

impl From<SettingsError> for Halt {
    fn from(error: SettingsError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// What to do, with everything it needs.
#[derive(Clone, Debug)]
pub enum Command {
    /// Run the operator.
    Run(Box<Settings>),
    /// Print the CRD.
    Crd,
}

impl Command {
    /// Reads a command line (the program's name first).
    ///
    /// # Errors
    ///
    /// [`Halt`] where there is nothing to run: something is wrong, or only help was asked for.
    pub fn parse<I>(line: I, environment: &Environment) -> Result<Self, Halt>
    where
        I: IntoIterator<Item: Into<OsString> + Clone>,
    {
        let mut parser = parser();
        let matches = parser.try_get_matches_from_mut(line).map_err(|error| halt(&error))?;
        let cli = Cli::from_arg_matches(&matches).map_err(|error| halt(&error))?;
        match cli.command {
            CliCommand::Run(args) => Ok(Self::Run(Box::new(Settings::validate(&args, environment)?))),
            CliCommand::Crd => Ok(Self::Crd),
        }
    }
}

/// clap's command, with each flag's default and variable in its help text.
#[must_use]
pub fn parser() -> clap::Command {
    Cli::command().mut_subcommand("run", |run| {
        run.mut_args(|arg| {
            let Some(flag) = arg.get_long().filter(|flag| *flag != "help").map(str::to_owned) else {
                return arg;
            };
            let mut help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            if let Some(default) = default_of(&flag) {
                help = format!("{help} [default: {default}]");
            }
            arg.help(format!("{help} [env: {}]", variable_of(&flag)))
        })
    })
}

fn halt(error: &clap::Error) -> Halt {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Halt::Shown(text);
    }
    // clap's paragraphs, up to the usage, as one line.
    let told: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .filter(|line| !line.is_empty())
        .collect();
    let told = told.join("; ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    Halt::Usage(format!("{told}; see tiktok-shop-operator --help, or run --help for the flags of run"))
}

/// How a refresh is asked for on the wire (`--token-request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRequest {
    /// `json` first, `query` where the endpoint does not serve it.
    Auto,
    /// `POST` with a JSON body.
    Json,
    /// `GET` with query parameters.
    Query,
}

/// How Secrets are noticed and read (`--secret-access`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretAccess {
    /// The metadata of Secrets is listed and watched.
    Watch,
    /// Only Secrets that integrations name are read, one by one.
    Named,
}

/// Requests in a second: more than 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// Requests in a second, 0.001 to 100000.
    #[must_use]
    pub const fn per_second(self) -> f64 {
        self.0
    }

    /// From one request to the next, 10 µs to 1000 s.
    #[must_use]
    pub fn period(self) -> Duration {
        Duration::from_secs_f64(self.0.recip())
    }
}

/// The Lease to contend for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaderElection {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// The settings of `run`: nothing in here is left to check, but what needs the file system or the network.
#[derive(Clone, Debug)]
pub struct Settings {
    /// TikTok's token endpoint, not parsed yet.
    pub token_endpoint: String,
    /// Where an authorization code is exchanged, not parsed yet.
    pub authorization_endpoint: String,
    /// Where shops are looked up, not parsed yet.
    pub shops_endpoint: String,
    /// How a refresh is asked for.
    pub token_request: TokenRequest,
    /// For one API call, 1 s to 5 min.
    pub request_timeout: Duration,
    /// More trusted roots, not read yet.
    pub ca_file: Option<PathBuf>,
    /// For integrations that set none, 5 min to 144 h.
    pub refresh_before: Duration,
    /// How stale `hoursUntilExpiry` may get, 1 min to 24 h.
    pub status_interval: Duration,
    /// How Secrets are noticed.
    pub secret_access: SecretAccess,
    /// With [`SecretAccess::Named`]: how soon a change is noticed, 10 s to 24 h.
    pub secret_poll_interval: Duration,
    /// Sorted, each once; empty: all namespaces.
    pub namespaces: Vec<String>,
    /// Which integrations are this operator's; `None`: all. [`fmt::Display`] gives the API's form.
    pub watch_label_selector: Option<Selector>,
    /// At the same time, 1 to 10000.
    pub max_concurrent_refreshes: usize,
    /// To TikTok, for each app key.
    pub requests_per_second: Rate,
    /// `None`: this process is the only one and acts without asking.
    pub leader_election: Option<LeaderElection>,
    /// Where the journal lives, not opened yet; `None`: no journal.
    pub journal_dir: Option<PathBuf>,
    /// Of the admin server.
    pub listen: SocketAddr,
    /// Gauges for each integration.
    pub per_integration_metrics: PerIntegrationMetrics,
    /// How log lines look.
    pub log_format: LogFormat,
}

impl Settings {
    /// Judges what was written; what was not written comes from `environment`, else from the defaults.
    ///
    /// # Errors
    ///
    /// The first setting that cannot be used.
    pub fn validate(args: &RunArgs, environment: &Environment) -> Result<Self, SettingsError> {
        let read = |flag: &'static str, word: &Option<Word>| Setting::read(flag, word.as_ref(), environment);

        let namespaces = namespaces(&args.namespace, environment)?;
        let watch_label_selector = read("watch-label-selector", &args.watch_label_selector)?
            .map(|setting| setting.label_selector())
            .transpose()?;
        let leader_election = if required(read("leader-elect", &args.leader_elect)?).boolean()? {
            let name = required(read("lease-name", &args.lease_name)?);
            let name = if name.is_default() {
                lease_name(watch_label_selector.as_ref(), &namespaces)
            } else {
                name.dns_subdomain()?
            };
            let namespace = match read("lease-namespace", &args.lease_namespace)? {
                Some(setting) => setting.dns_label()?,
                None => environment.pod_namespace().map(str::to_owned).ok_or_else(|| SettingsError {
                    place: "--lease-namespace".into(),
                    problem: "is not set and this is not a pod, whose namespace would be used".into(),
                    advice: "set it, or --leader-elect=false if this is the only replica".into(),
                })?,
            };
            Some(LeaderElection { name, namespace })
        } else {
            None
        };

        Ok(Self {
            token_endpoint: required(read("token-endpoint", &args.token_endpoint)?).text,
            authorization_endpoint: required(read("authorization-endpoint", &args.authorization_endpoint)?).text,
            shops_endpoint: required(read("shops-endpoint", &args.shops_endpoint)?).text,
            token_request: required(read("token-request", &args.token_request)?).one_of(&[
                ("auto", TokenRequest::Auto),
                ("json", TokenRequest::Json),
                ("query", TokenRequest::Query),
            ])?,
            request_timeout: required(read("request-timeout", &args.request_timeout)?).duration("100ms", "5m")?,
            ca_file: read("ca-file", &args.ca_file)?.map(|setting| PathBuf::from(setting.text)),
            refresh_before: required(read("refresh-before", &args.refresh_before)?).duration("5m", "144h")?,
            status_interval: required(read("status-interval", &args.status_interval)?).duration("1s", "24h")?,
            secret_access: required(read("secret-access", &args.secret_access)?)
                .one_of(&[("watch", SecretAccess::Watch), ("named", SecretAccess::Named)])?,
            secret_poll_interval: required(read("secret-poll-interval", &args.secret_poll_interval)?)
                .duration("1s", "24h")?,
            namespaces,
            watch_label_selector,
            max_concurrent_refreshes: required(read("max-concurrent-refreshes", &args.max_concurrent_refreshes)?)
                .whole_number(1, 10_000)?,
            requests_per_second: required(read("requests-per-second", &args.requests_per_second)?).rate()?,
            leader_election,
            journal_dir: read("journal-dir", &args.journal_dir)?.map(|setting| PathBuf::from(setting.text)),
            listen: required(read("listen", &args.listen)?).address()?,
            per_integration_metrics: required(read("per-integration-metrics", &args.per_integration_metrics)?).one_of(
                &[
                    ("auto", PerIntegrationMetrics::Auto),
                    ("on", PerIntegrationMetrics::On),
                    ("off", PerIntegrationMetrics::Off),
                ],
            )?,
            log_format: required(read("log-format", &args.log_format)?)
                .one_of(&[("json", LogFormat::Json), ("text", LogFormat::Text)])?,
        })
    }
}

fn required(setting: Option<Setting>) -> Setting {
    setting.expect("a flag that is read so has a default; a test validates the defaults")
}

/// One word of one flag, whichever of flag, variable and default it came from.
struct Setting {
    flag: &'static str,
    /// What to name in an error; `None`: the default, which has none.
    place: Option<String>,
    text: String,
}

impl Setting {
    fn read(flag: &'static str, word: Option<&Word>, environment: &Environment) -> Result<Option<Self>, SettingsError> {
        let word = match word {
            Some(word) => Some(word.clone()),
            None => environment.word(flag)?,
        };
        match word {
            Some(word) => Self::written(flag, word).map(Some),
            None => Ok(default_of(flag).map(|text| Self { flag, place: None, text: text.to_owned() })),
        }
    }

    fn written(flag: &'static str, word: Word) -> Result<Self, SettingsError> {
        let place = word.variable.unwrap_or_else(|| format!("--{flag}"));
        let text = word.text.trim().to_owned();
        if text.is_empty() {
            // As a flag: a template that put nothing here meant something, perhaps not the default.
            return Err(SettingsError {
                place,
                problem: "is empty".into(),
                advice: "write a value, or leave it out".into(),
            });
        }
        Ok(Self { flag, place: Some(place), text })
    }

    fn is_default(&self) -> bool {
        self.place.is_none()
    }

    /// An error about this word, which is quoted up to 64 characters.
    fn wrong(&self, problem: impl fmt::Display, advice: impl Into<String>) -> SettingsError {
        let mut quoted: String = self.text.chars().take(64).collect();
        if quoted.len() < self.text.len() {
            quoted.push('…');
        }
        let place = self.place.clone().unwrap_or_else(|| format!("--{}", self.flag));
        SettingsError { place, problem: format!("{quoted:?} {problem}"), advice: advice.into() }
    }

    fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, SettingsError> {
        choices.iter().find(|(name, _)| *name == self.text).map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.wrong("is not a choice", format!("write one of {}", names.join(", ")))
        })
    }

    fn boolean(&self) -> Result<bool, SettingsError> {
        self.one_of(&[("true", true), ("false", false)])
    }

    /// A duration within bounds, which are given as a user would write them.
    fn duration(&self, least: &str, most: &str) -> Result<Duration, SettingsError> {
        let bound = |text| parse_go_duration(text).expect("the bounds are written in this file");
        let advice =
            || format!("write a duration from {least} to {most}, such as {}", default_of(self.flag).unwrap_or(least));
        let duration = parse_go_duration(&self.text).map_err(|error| self.wrong(error, advice()))?;
        if (bound(least)..=bound(most)).contains(&duration) {
            Ok(duration)
        } else {
            Err(self.wrong(format_args!("is not between {least} and {most}"), advice()))
        }
    }

    fn whole_number(&self, least: usize, most: usize) -> Result<usize, SettingsError> {
        match self.text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(self.wrong(
                format_args!("is not a whole number from {least} to {most}"),
                format!("write one, such as {}", default_of(self.flag).unwrap_or("1")),
            )),
        }
    }

    fn rate(&self) -> Result<Rate, SettingsError> {
        match self.text.parse::<f64>() {
            // Also false for NaN. The smallest is one request in 1000 s: longer would outlast the waiting for it.
            Ok(number) if (0.001..=100_000.0).contains(&number) => Ok(Rate(number)),
            _ => {
                Err(self.wrong("is not a number from 0.001 to 100000", "write requests in a second, such as 20 or 0.5"))
            }
        }
    }

    fn address(&self) -> Result<SocketAddr, SettingsError> {
        let text = match self.text.split_once(':') {
            // As Go programs have it.
            Some(("", port)) => format!("0.0.0.0:{port}"),
            Some(("localhost", port)) => format!("127.0.0.1:{port}"),
            _ => self.text.clone(),
        };
        text.parse().map_err(|_| {
            self.wrong(
                "is not an IP address and a port",
                "write such as 0.0.0.0:8080 for all of IPv4, [::]:8080 for all, 127.0.0.1:8080 for this machine alone",
            )
        })
    }

    fn dns_label(self) -> Result<String, SettingsError> {
        if is_dns_label(&self.text) {
            return Ok(self.text);
        }
        Err(self.wrong(
            "is not a namespace's name",
            "write at most 63 lowercase letters, digits and '-', with a letter or digit at both ends",
        ))
    }

    fn dns_subdomain(self) -> Result<String, SettingsError> {
        if is_dns_subdomain(&self.text) {
            return Ok(self.text);
        }
        Err(self.wrong(
            "is not a Kubernetes name",
            "write at most 253 lowercase letters, digits, '-' and '.', with a letter or digit at both ends",
        ))
    }

    fn label_selector(&self) -> Result<Selector, SettingsError> {
        parse_selector(&self.text).map_err(|problem| {
            self.wrong(problem, "write as for kubectl -l: shard=a, or 'tier in (gold,silver),!canary'")
        })
    }
}

/// Each name once, in order: the Lease's name depends on which they are, not on how they were written.
fn namespaces(words: &[Word], environment: &Environment) -> Result<Vec<String>, SettingsError> {
    const FLAG: &str = "namespace";
    let words = if words.is_empty() { Vec::from_iter(environment.word(FLAG)?) } else { words.to_vec() };
    let mut names = Vec::new();
    for word in words {
        let list = Setting::written(FLAG, word)?;
        for name in list.text.split(',').map(str::trim) {
            if name.is_empty() {
                return Err(list.wrong("has an empty item", "part the names by single commas"));
            }
            let item = Setting { flag: FLAG, place: list.place.clone(), text: name.to_owned() };
            names.push(item.dns_label()?);
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Operators with different shares must not contend for one Lease; replicas of one must, however the same
/// share is written.
fn lease_name(selector: Option<&Selector>, namespaces: &[String]) -> String {
    if selector.is_none() && namespaces.is_empty() {
        return LEASE_NAME.to_owned();
    }
    let mut expressions: Vec<String> =
        selector.into_iter().flat_map(|selector| selector.clone().into_iter()).map(|each| each.to_string()).collect();
    expressions.sort_unstable();
    expressions.dedup();
    let share = format!("selector={}\nnamespaces={}", expressions.join(","), namespaces.join(","));
    let hash = digest::digest(&digest::SHA256, share.as_bytes());
    let short = hash.as_ref().first_chunk().map_or(0, |first| u32::from_be_bytes(*first));
    format!("{LEASE_NAME}-{short:08x}")
}

fn is_alphanumeric_at_ends(text: &str) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
}

/// RFC 1123 label, as Kubernetes checks names of namespaces.
fn is_dns_label(text: &str) -> bool {
    text.len() <= 63
        && is_alphanumeric_at_ends(text)
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// RFC 1123 subdomain, as Kubernetes checks most names. (Its parts may be longer than a label's 63 there.)
fn is_dns_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|part| {
            is_alphanumeric_at_ends(part)
                && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}

fn is_label_word(text: &str) -> bool {
    text.len() <= 63
        && is_alphanumeric_at_ends(text)
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Why a label selector cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum SelectorError {
    #[error("has a requirement that is empty")]
    Empty,
    #[error("has a key that is not a label's")]
    Key,
    #[error("has a value that is not a label's")]
    Value,
    #[error("has a list without parentheses, or parentheses without a list")]
    List,
    #[error("has a comparison that is none of =, ==, !=, in, notin")]
    Operator,
}

/// Reads a label selector as `kubectl -l` takes it. kube prints selectors but reads none. `<` and `>` are
/// refused: kube cannot express them.
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>
fn parse_selector(text: &str) -> Result<Selector, SelectorError> {
    let mut expressions = Vec::new();
    let mut rest = text;
    loop {
        let end = requirement_end(rest)?;
        expressions.push(parse_requirement(rest[..end].trim())?);
        match rest.get(end + 1..) {
            Some(next) => rest = next,
            None => return Ok(expressions.into_iter().collect()),
        }
    }
}

/// Where the first requirement ends: at a comma outside parentheses, or at the end.
fn requirement_end(text: &str) -> Result<usize, SelectorError> {
    let mut within = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b')' if within == (byte == b'(') => return Err(SelectorError::List),
            b'(' | b')' => within = !within,
            b',' if !within => return Ok(at),
            _ => {}
        }
    }
    if within { Err(SelectorError::List) } else { Ok(text.len()) }
}

fn parse_requirement(text: &str) -> Result<Expression, SelectorError> {
    if text.is_empty() {
        return Err(SelectorError::Empty);
    }
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Expression::DoesNotExist(label_key(key)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Expression::NotEqual(label_key(key)?, label_value(value)?));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return Ok(Expression::Equal(label_key(key)?, label_value(value)?));
    }
    if let Some((head, list)) = text.split_once('(') {
        let list = list.strip_suffix(')').ok_or(SelectorError::List)?;
        let values = list.split(',').map(label_value).collect::<Result<_, _>>()?;
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace).ok_or(SelectorError::List)?;
        return match operator {
            "in" => Ok(Expression::In(label_key(key)?, values)),
            "notin" => Ok(Expression::NotIn(label_key(key)?, values)),
            _ => Err(SelectorError::Operator),
        };
    }
    if text.contains(|each: char| each.is_whitespace() || "<>".contains(each)) {
        return Err(SelectorError::Operator);
    }
    Ok(Expression::Exists(label_key(text)?))
}

fn label_key(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    let name = match text.split_once('/') {
        Some((prefix, name)) if is_dns_subdomain(prefix) => name,
        Some(_) => return Err(SelectorError::Key),
        None => text,
    };
    if is_label_word(name) { Ok(text.to_owned()) } else { Err(SelectorError::Key) }
}

fn label_value(text: &str) -> Result<String, SelectorError> {
    let text = text.trim();
    if text.is_empty() || is_label_word(text) { Ok(text.to_owned()) } else { Err(SelectorError::Value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect();
        Environment::new(variables, Some("ops\n".to_owned()))
    }

    fn parse(flags: &[&str], variables: &[(&str, &str)]) -> Result<Settings, String> {
        let line = ["tiktok-shop-operator", "run"].iter().chain(flags);
        match Command::parse(line, &environment(variables)) {
            Ok(Command::Run(settings)) => Ok(*settings),
            Ok(Command::Crd) => panic!("it is not run"),
            Err(Halt::Usage(text)) => Err(text),
            Err(Halt::Shown(text)) => panic!("only shown: {text}"),
        }
    }

    fn lease_name_of(flags: &[&str]) -> String {
        parse(flags, &[]).unwrap().leader_election.unwrap().name
    }

    #[test]
    fn clap_accepts_its_own_description() {
        parser().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let settings = parse(&[], &[]).unwrap();
        assert_eq!(settings.token_endpoint, "https://auth.tiktok-shops.com/api/v2/token/refresh");
        assert_eq!(settings.authorization_endpoint, "https://auth.tiktok-shops.com/api/v2/token/get");
        assert_eq!(settings.shops_endpoint, "https://open-api.tiktokglobalshop.com/authorization/202309/shops");
        assert_eq!(settings.token_request, TokenRequest::Auto);
        assert_eq!(settings.request_timeout, Duration::from_secs(30));
        assert_eq!(settings.ca_file, None);
        assert_eq!(settings.refresh_before, Duration::from_hours(24));
        assert_eq!(settings.status_interval, Duration::from_hours(1));
        assert_eq!(settings.secret_access, SecretAccess::Watch);
        assert_eq!(settings.secret_poll_interval, Duration::from_mins(5));
        assert!(settings.namespaces.is_empty());
        assert!(settings.watch_label_selector.is_none());
        assert_eq!(settings.max_concurrent_refreshes, 32);
        assert_eq!(settings.requests_per_second.period(), Duration::from_millis(50));
        let lease = LeaderElection { name: "tiktok-shop-operator".into(), namespace: "ops".into() };
        assert_eq!(settings.leader_election, Some(lease));
        assert_eq!(settings.journal_dir, None);
        assert_eq!(settings.listen, "0.0.0.0:8080".parse().unwrap());
        assert_eq!(settings.per_integration_metrics, PerIntegrationMetrics::Auto);
        assert_eq!(settings.log_format, LogFormat::Json);
    }

    #[test]
    fn each_flag_has_a_variable_and_the_flag_wins() {
        // (flag, as a flag, as a variable; what shows which won)
        let all: &[(&str, &str, &str)] = &[
            ("token-endpoint", "https://a.example", "https://b.example"),
            ("authorization-endpoint", "https://a.example", "https://b.example"),
            ("shops-endpoint", "https://a.example", "https://b.example"),
            ("token-request", "json", "query"),
            ("request-timeout", "10s", "1m30s"),
            ("ca-file", "/a", "/b"),
            ("refresh-before", "1h", "2h"),
            ("status-interval", "2m", "3m"),
            ("secret-access", "named", "watch"),
            ("secret-poll-interval", "20s", "30s"),
            ("namespace", "a,b", "c,d"),
            ("watch-label-selector", "shard=a", "shard=b"),
            ("max-concurrent-refreshes", "1", "2"),
            ("requests-per-second", "0.5", "1.5"),
            ("leader-elect", "true", "false"),
            ("lease-name", "lease-a", "lease-b"),
            ("lease-namespace", "in-a", "in-b"),
            ("journal-dir", "/ja", "/jb"),
            ("listen", "127.0.0.1:1", "[::1]:2"),
            ("per-integration-metrics", "on", "off"),
            ("log-format", "text", "json"),
        ];
        let flags = parser();
        let flags = flags.find_subcommand("run").unwrap().get_arguments();
        let flags: Vec<&str> = flags.filter_map(clap::Arg::get_long).filter(|flag| *flag != "help").collect();
        assert_eq!(flags.len(), all.len(), "this test knows every flag: {flags:?}");
        for (flag, by_flag, by_variable) in all {
            let line = [format!("--{flag}"), (*by_flag).to_owned()];
            let line: Vec<&str> = line.iter().map(String::as_str).collect();
            let variable = variable_of(flag);
            let shown = |settings: Settings| format!("{settings:?}");
            let flag_alone = shown(parse(&line, &[]).unwrap());
            let variable_alone = shown(parse(&[], &[(&variable, by_variable)]).unwrap());
            let both = shown(parse(&line, &[(&variable, by_variable)]).unwrap());
            assert_ne!(flag_alone, variable_alone, "{variable} has no effect");
            assert_eq!(both, flag_alone, "--{flag} does not win over {variable}");
            let empty = shown(parse(&[], &[(&variable, "")]).unwrap());
            assert_eq!(empty, shown(parse(&[], &[]).unwrap()), "an empty {variable} does not count as unset");
        }
        let unknown = parse(&[], &[("TIKTOK_SHOP_PORT", "tcp://10.0.0.1:80"), ("TIKTOK_SHOP_HELP", "true")]);
        assert!(unknown.is_ok(), "unknown variables are ignored: {unknown:?}");
    }

    #[test]
    fn leader_election_can_be_turned_off_in_every_usual_way() {
        for (flags, elects) in [
            (&["--leader-elect=false"][..], false),
            (&["--leader-elect", "false"], false),
            (&["--leader-elect"], true),
            (&["--leader-elect=true", "--log-format", "text"], true),
            (&["--leader-elect", "--log-format", "text"], true),
            (&[], true),
        ] {
            assert_eq!(parse(flags, &[]).unwrap().leader_election.is_some(), elects, "{flags:?}");
        }
    }

    #[test]
    fn the_leases_namespace_is_the_pods_unless_set_and_needed_only_to_elect() {
        let outside = Environment::default();
        let run = |flags: &[&str], environment: &Environment| {
            let line = ["x", "run"].iter().chain(flags);
            match Command::parse(line, environment).map_err(|halt| format!("{halt:?}"))? {
                Command::Run(settings) => Ok(settings.leader_election.map(|lease| lease.namespace)),
                Command::Crd => Err("not run".to_owned()),
            }
        };
        assert!(run(&[], &outside).unwrap_err().contains("--lease-namespace is not set"));
        assert_eq!(run(&["--leader-elect=false"], &outside), Ok(None));
        assert_eq!(run(&["--lease-namespace", "a"], &outside), Ok(Some("a".into())));
        assert_eq!(run(&[], &environment(&[])), Ok(Some("ops".into())));
        assert_eq!(run(&[], &environment(&[("POD_NAMESPACE", "downward")])), Ok(Some("downward".into())));
        assert_eq!(run(&[], &environment(&[("POD_NAMESPACE", "")])), Ok(Some("ops".into())));
    }

    #[test]
    fn shards_do_not_contend_for_one_lease_and_replicas_do() {
        let share = lease_name_of(&["--namespace", "b,a", "--watch-label-selector", "x=1,y in (b,a)"]);
        assert_eq!(share.len(), "tiktok-shop-operator-".len() + 8, "{share}");
        for same in [
            &["--namespace", "a", "--namespace", "b", "--watch-label-selector", "y in (a, b), x==1"][..],
            &["--namespace=a,b,a", "--watch-label-selector=x = 1,y in (a,b)"],
        ] {
            assert_eq!(lease_name_of(same), share, "{same:?}");
        }
        for other in [
            &["--namespace", "a,b"][..],
            &["--watch-label-selector", "x=1,y in (b,a)"],
            &["--namespace", "a,b", "--watch-label-selector", "x=2,y in (b,a)"],
            &[],
        ] {
            assert_ne!(lease_name_of(other), share, "{other:?}");
        }
        assert_eq!(lease_name_of(&["--namespace", "a", "--lease-name", "mine"]), "mine");
        // It must not change between versions, or two of them would lead while one replaces the other.
        assert_eq!(lease_name_of(&["--namespace", "shops"]), "tiktok-shop-operator-49960893");
    }

    #[test]
    fn namespaces_are_sorted_and_each_comes_once() {
        let settings = parse(&["--namespace", "b, a", "--namespace", "c,a"], &[]).unwrap();
        assert_eq!(settings.namespaces, ["a", "b", "c"]);
    }

    #[test]
    #[allow(clippy::too_many_lines, reason = "it is one table")]
    fn a_wrong_setting_is_told_in_one_line_with_what_to_write() {
        let long = "x".repeat(100);
        for (flags, variables, start, part) in [
            (
                &["--request-timeout", "0s"][..],
                &[][..],
                "--request-timeout \"0s\" is not between 100ms and 5m",
                "such as 30s",
            ),
            (&["--request-timeout", "301s"], &[], "--request-timeout \"301s\" is not between", ""),
            (&["--request-timeout", "30"], &[], "--request-timeout \"30\" is not a duration", "such as 30s"),
            (&["--refresh-before", "145h"], &[], "--refresh-before \"145h\" is not between 5m and 144h", ""),
            (&["--status-interval", "900ms"], &[], "--status-interval \"900ms\"", "from 1s to 24h"),
            (&["--secret-poll-interval", "900ms"], &[], "--secret-poll-interval \"900ms\"", "from 1s to 24h"),
            (
                &[],
                &[("TIKTOK_SHOP_REQUEST_TIMEOUT", "soon")],
                "TIKTOK_SHOP_REQUEST_TIMEOUT \"soon\"",
                "write a duration",
            ),
            (&["--token-request", "xml"], &[], "--token-request \"xml\" is not a choice", "auto, json, query"),
            (&["--secret-access", "all"], &[], "--secret-access \"all\"", "watch, named"),
            (&["--leader-elect=yes"], &[], "--leader-elect \"yes\"", "true, false"),
            (&["--log-format", "xml"], &[], "--log-format \"xml\"", "json, text"),
            (&["--per-integration-metrics", "1"], &[], "--per-integration-metrics \"1\"", "auto, on, off"),
            (&["--max-concurrent-refreshes", "0"], &[], "--max-concurrent-refreshes \"0\"", "from 1 to 10000"),
            (&["--max-concurrent-refreshes", "10001"], &[], "--max-concurrent-refreshes \"10001\"", "such as 32"),
            (&["--max-concurrent-refreshes=-1"], &[], "--max-concurrent-refreshes \"-1\"", ""),
            (&["--requests-per-second", "0"], &[], "--requests-per-second \"0\"", "such as 20 or 0.5"),
            (&["--requests-per-second", "nan"], &[], "--requests-per-second \"nan\"", ""),
            (&["--requests-per-second", "inf"], &[], "--requests-per-second \"inf\"", ""),
            (&["--requests-per-second", "100001"], &[], "--requests-per-second \"100001\"", ""),
            (&["--listen", "8080"], &[], "--listen \"8080\"", "0.0.0.0:8080"),
            (&["--namespace", "Shops"], &[], "--namespace \"Shops\" is not a namespace's name", ""),
            (&["--namespace", "a,,b"], &[], "--namespace \"a,,b\" has an empty item", "single commas"),
            (&["--namespace", " "], &[], "--namespace is empty", "leave it out"),
            (&[], &[("TIKTOK_SHOP_NAMESPACE", "a,")], "TIKTOK_SHOP_NAMESPACE \"a,\" has an empty item", ""),
            (&[], &[("TIKTOK_SHOP_NAMESPACE", "a,b_c")], "TIKTOK_SHOP_NAMESPACE \"b_c\"", ""),
            (&["--journal-dir="], &[], "--journal-dir is empty", ""),
            (&["--lease-name", "a_b"], &[], "--lease-name \"a_b\"", ""),
            (&["--lease-namespace", "a.b"], &[], "--lease-namespace \"a.b\"", ""),
            (&["--watch-label-selector", "a>1"], &[], "--watch-label-selector \"a>1\" has a comparison", "kubectl -l"),
            (&["--log-format", &long], &[], "--log-format \"xxxx", "x…\""),
            (&["--log-format", "a\nb"], &[], "--log-format \"a\\nb\"", ""),
            (&["--foo"], &[], "unexpected argument '--foo' found", "--help"),
            (&["--namespaces", "a"], &[], "unexpected argument '--namespaces' found", "'--namespace'"),
            (&["--listen"], &[], "a value is required for '--listen <ADDRESS>'", "--help"),
            (&["extra"], &[], "unexpected argument 'extra' found", "--help"),
        ] {
            let text = parse(flags, variables).expect_err(&format!("{flags:?} {variables:?} is accepted"));
            assert!(text.starts_with(start), "{flags:?}: {text}");
            assert!(text.contains(part), "{flags:?}: {text}");
            assert_eq!(text.lines().count(), 1, "{flags:?}: {text}");
        }
    }

    #[test]
    fn help_and_version_are_shown_and_other_lines_are_refused_with_exit_code_2() {
        let halted = |line: &[&str]| Command::parse(line, &environment(&[])).expect_err("there is nothing to run");
        for (line, exit_code, part) in [
            (&["x", "--version"][..], 0, env!("CARGO_PKG_VERSION")),
            (&["x", "--help"], 0, "tiktok-shop-operator crd | kubectl apply"),
            (&["x", "run", "--help"], 0, "[default: 30s] [env: TIKTOK_SHOP_REQUEST_TIMEOUT]"),
            (&["x", "run", "--help"], 0, "--watch-label-selector shard=a"),
            (&["x"], 2, "requires a subcommand"),
            (&["x", "walk"], 2, "unrecognized subcommand 'walk'"),
        ] {
            let halt = halted(line);
            assert_eq!(halt.exit_code(), exit_code, "{line:?}: {halt:?}");
            let (Halt::Shown(text) | Halt::Usage(text)) = &halt;
            assert!(text.contains(part), "{line:?}: {text}");
            assert!(exit_code == 0 || text.lines().count() == 1, "{line:?}: {text}");
        }
        assert!(matches!(Command::parse(["x", "crd"], &Environment::default()), Ok(Command::Crd)));
    }

    #[test]
    fn selectors_are_read_as_kubectl_reads_them() {
        for (text, read) in [
            ("shard=a", Ok("shard=a")),
            ("shard == a", Ok("shard=a")),
            ("shard!=a", Ok("shard!=a")),
            ("shard=", Ok("shard=")),
            ("shard in (b,a)", Ok("shard in (a,b)")),
            ("example.com/shard notin ( a , b ), x", Ok("example.com/shard notin (a,b),x")),
            ("x,!y", Ok("x,!y")),
            ("x in (in)", Ok("x in (in)")),
            ("", Err(SelectorError::Empty)),
            ("a=b,", Err(SelectorError::Empty)),
            (",a", Err(SelectorError::Empty)),
            ("=b", Err(SelectorError::Key)),
            ("a b=c", Err(SelectorError::Key)),
            ("A.b/c/d=e", Err(SelectorError::Key)),
            ("a=b=c", Err(SelectorError::Value)),
            ("a=b c", Err(SelectorError::Value)),
            ("a=-b", Err(SelectorError::Value)),
            ("a in (b", Err(SelectorError::List)),
            ("a in b)", Err(SelectorError::List)),
            ("a in ((b))", Err(SelectorError::List)),
            ("a(b)", Err(SelectorError::List)),
            ("a in (b) c", Err(SelectorError::List)),
            ("a is (b)", Err(SelectorError::Operator)),
            ("a in b", Err(SelectorError::Operator)),
            ("a>1", Err(SelectorError::Operator)),
        ] {
            let got = parse_selector(text).map(|selector| selector.to_string());
            assert_eq!(got, read.map(str::to_owned), "{text:?}");
        }
    }
}
