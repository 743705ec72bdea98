//! The watches: kube-runtime's streams, pumped into the work loop.
//!
//! They survive a bad object (the types read what they can), a dropped connection, an expired
//! `resourceVersion` (a new list: mark and sweep), and an API server that is away for minutes.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::cluster::{WatchedIntegration, WatchedSecret};
use crate::metrics::{Metrics, Watched};

/// First and longest pause after a watch failed.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Objects in a page, where the API server has no streaming lists.
const PAGE: u32 = 500;

/// Secrets of these types never hold tokens, and there may be very many of them.
const NOT_TOKENS: &str = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token";

/// What a watch tells: the namespace watched (`None`: all), and what happened.
pub(super) enum Told {
    Integration(Option<Arc<str>>, Box<watcher::Event<WatchedIntegration>>),
    Secret(Option<Arc<str>>, Box<watcher::Event<WatchedSecret>>),
    /// The API server refuses the list: it is asked for again, but nobody should wait for it.
    Refused(Option<Arc<str>>, Watched),
    /// The API server was not reached, or did not end what it began.
    Broken,
}

/// Makes a [`Told`] of an event.
type Tell<K> = fn(Option<Arc<str>>, Box<watcher::Event<K>>) -> Told;

/// Where to watch.
#[derive(Clone)]
pub(super) struct Watches {
    pub client: Client,
    pub told: mpsc::Sender<Told>,
    pub metrics: Arc<Metrics>,
    /// Empty: all namespaces.
    pub namespaces: Vec<String>,
    pub label_selector: Option<String>,
}

impl Watches {
    /// The scopes watched: each namespace given, or all in one.
    pub(super) fn scopes(&self) -> Vec<Option<Arc<str>>> {
        if self.namespaces.is_empty() {
            vec![None]
        } else {
            self.namespaces.iter().map(|namespace| Some(namespace.as_str().into())).collect()
        }
    }

    pub(super) fn start_integrations(&self) {
        let config = watcher::Config::default();
        let config = match &self.label_selector {
            Some(selector) => config.labels(selector),
            None => config,
        };
        for scope in self.scopes() {
            self.start(scope, config.clone(), Watched::Integrations, Told::Integration);
        }
    }

    pub(super) fn start_secrets(&self) {
        for scope in self.scopes() {
            self.start(scope, watcher::Config::default().fields(NOT_TOKENS), Watched::Secrets, Told::Secret);
        }
    }

    fn start<K>(&self, scope: Option<Arc<str>>, config: watcher::Config, watched: Watched, tell: Tell<K>)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
    {
        let api: Api<K> = match &scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let (told, metrics) = (self.told.clone(), Arc::clone(&self.metrics));
        tokio::spawn(async move {
            let mut config = config.page_size(PAGE).streaming_lists();
            loop {
                let ended = pump(&api, &config, scope.as_ref(), watched, tell, &told, &metrics).await;
                match ended {
                    Ended::NoStreamingLists => config.initial_list_strategy = watcher::InitialListStrategy::ListWatch,
                    Ended::Expired => {}
                    Ended::NobodyListens => return,
                }
            }
        });
    }
}

enum Ended {
    NoStreamingLists,
    /// The version to go on from is too old: everything has to be listed anew.
    Expired,
    NobodyListens,
}

async fn pump<K>(
    api: &Api<K>,
    config: &watcher::Config,
    scope: Option<&Arc<str>>,
    watched: Watched,
    tell: Tell<K>,
    told: &mpsc::Sender<Told>,
    metrics: &Metrics,
) -> Ended
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut stream = std::pin::pin!(watcher(api.clone(), config.clone()));
    let mut pause = FIRST_PAUSE;
    let mut last_error = String::new();
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                if !matches!(event, watcher::Event::Init) {
                    pause = FIRST_PAUSE;
                    if !last_error.is_empty() {
                        last_error.clear();
                        tracing::info!(resource = watched.label(), "the watch works again");
                    }
                }
                if told.send(tell(scope.cloned(), Box::new(event))).await.is_err() {
                    return Ended::NobodyListens;
                }
            }
            Err(error) => {
                let streaming = config.initial_list_strategy == watcher::InitialListStrategy::StreamingList;
                if streaming && is_unsupported(&error) {
                    return Ended::NoStreamingLists;
                }
                metrics.watch_failed(watched);
                if is_forbidden(&error) && told.send(Told::Refused(scope.cloned(), watched)).await.is_err() {
                    return Ended::NobodyListens;
                }
                if went_unanswered(&error) && told.send(Told::Broken).await.is_err() {
                    return Ended::NobodyListens;
                }
                let text = describe(&error);
                // Said once for each change: an API server that is away for minutes is one line, not hundreds.
                if text != last_error {
                    tracing::warn!(
                        resource = watched.label(),
                        namespace = scope.map(|namespace| &**namespace),
                        error = text,
                        "a watch failed and is started again"
                    );
                    last_error = text;
                }
                tokio::time::sleep(pause).await;
                if is_expired(&error) {
                    return Ended::Expired;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
    Ended::NobodyListens
}

fn is_unsupported(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 403
    )
}

/// An error event of this kind the watcher deals with itself; for an answer it would ask again for the same version.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Did no answer come, or none but that there is none to be had?
fn went_unanswered(error: &watcher::Error) -> bool {
    cause_of(error).is_some_and(|cause| match cause {
        kube::Error::Api(status) => status.code >= 500,
        kube::Error::SerdeError(_) => false,
        _ => true,
    })
}

/// What kube's client says went wrong, where it was that.
const fn cause_of(error: &watcher::Error) -> Option<&kube::Error> {
    match error {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => Some(cause),
        _ => None,
    }
}

/// The error in words; serde's own would quote what it could not read.
fn describe(error: &watcher::Error) -> String {
    let Some(cause) = cause_of(error) else { return error.to_string() };
    match cause {
        kube::Error::SerdeError(_) => "the API server sent an object that can't be read".to_owned(),
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => {
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}
