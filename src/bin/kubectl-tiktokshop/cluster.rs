//! The cluster, and which integrations of it are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use hyper_util::client::proxy::matcher::Matcher;
use kube::api::ListParams;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt as _};
use tiktok_shop_operator::cluster::WatchedIntegration;

use crate::args::{Common, Selection};
use crate::errors::{Failure, NoSuch, chain};

/// Of one request, all of it; of a list, each page.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How alike a name must be to be suggested: 1 is the same.
const ALIKE: f64 = 0.8;

/// Names suggested at most.
const SUGGESTIONS: usize = 3;

/// Namespace and name.
pub type Key = (String, String);

/// The key of an integration.
pub fn key(integration: &WatchedIntegration) -> Key {
    (integration.namespace().unwrap_or_default(), integration.name_any())
}

/// What the list and the watch after it tell, in one stream that survives dropped connections.
pub type Events = Pin<Box<dyn Stream<Item = watcher::Result<Event<WatchedIntegration>>>>>;

/// The integrations that are meant.
pub struct Selected {
    client: Client,
    server: String,
    /// The namespace; all where none is said.
    pub namespace: Option<String>,
    names: BTreeSet<String>,
    labels: Option<String>,
    team: Option<String>,
}

/// The kubeconfig that is named, or the usual one.
pub fn read_kubeconfig(common: &Common) -> Result<Kubeconfig, KubeconfigError> {
    match &common.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    }
}

/// A client of the cluster that is meant, with the context's namespace.
pub async fn connect(common: &Common) -> Result<(Client, String, String), Failure> {
    let options = KubeConfigOptions { context: common.context.clone(), ..KubeConfigOptions::default() };
    let is_named = common.kubeconfig.is_some() || common.context.is_some();
    let mut config = match read_kubeconfig(common) {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options)
            .await
            .map_err(|error| Failure::Kubeconfig(chain(&error)))?,
        Err(KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath) if !is_named => {
            Config::incluster().map_err(|_| Failure::NoKubeconfig)?
        }
        Err(error) => return Err(Failure::Kubeconfig(chain(&error))),
    };
    if config.proxy_url.is_some() && config.proxy_url == environment_proxy() {
        // kube 5.0 holds NO_PROXY against the proxy's address, not against the API server's.
        let proxied = Matcher::from_env().intercept(&config.cluster_url).is_some();
        config.proxy_url = config.proxy_url.filter(|_| proxied);
    }
    let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| Failure::Kubeconfig(chain(&error)))?;
    Ok((client, server.trim_end_matches('/').to_owned(), namespace))
}

/// The proxy that the environment names, as kube reads it.
fn environment_proxy() -> Option<http::Uri> {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    set("HTTPS_PROXY").or_else(|| set("https_proxy"))?.parse().ok()
}

impl Selected {
    /// What a command line means, once the cluster is known.
    pub async fn of(common: &Common, selection: &Selection) -> Result<Self, Failure> {
        let (client, server, context_namespace) = connect(common).await?;
        let namespace = selection.namespace.clone().unwrap_or(context_namespace);
        Ok(Self {
            client,
            server,
            namespace: (!selection.all_namespaces).then_some(namespace),
            names: selection.names.iter().cloned().collect(),
            labels: selection.selector.clone(),
            team: selection.team_id.clone(),
        })
    }

    /// The API of one namespace.
    pub fn api(&self, namespace: &str) -> Api<WatchedIntegration> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A failed request in these terms.
    pub fn failure(&self, error: &kube::Error, verb: &'static str, namespace: Option<&str>) -> Failure {
        Failure::of(error, verb, namespace, &self.server)
    }

    /// A failed list or watch in these terms.
    pub fn watch_failure(&self, error: &watcher::Error) -> Failure {
        Failure::of_watch(error, self.namespace.as_deref(), &self.server)
    }

    /// Is it among those that are named, where any are?
    pub fn wants(&self, integration: &WatchedIntegration) -> bool {
        self.names.is_empty() || self.names.contains(&integration.name_any())
    }

    /// One list, and then one watch from where the list ended.
    pub fn events(&self) -> Events {
        let api: Api<WatchedIntegration> = match &self.namespace {
            Some(namespace) => self.api(namespace),
            None => Api::all(self.client.clone()),
        };
        let field = match (&self.team, self.names.first()) {
            (Some(team), _) => Some(format!("spec.teamId={}", escaped(team))),
            // Several names can't be asked for at once.
            (None, Some(name)) if self.names.len() == 1 => Some(format!("metadata.name={}", escaped(name))),
            _ => None,
        };
        let config =
            watcher::Config { label_selector: self.labels.clone(), field_selector: field, ..Default::default() };
        watcher(api, config).default_backoff().boxed_local()
    }

    /// The list: every integration that is meant, sorted by namespace and name.
    pub async fn list(&self, events: &mut Events) -> Result<BTreeMap<Key, WatchedIntegration>, Failure> {
        let mut listed = BTreeMap::new();
        loop {
            let event = tokio::time::timeout(REQUEST_TIMEOUT, events.next()).await;
            match event.map_err(|_| Failure::Slow(REQUEST_TIMEOUT.as_secs()))? {
                Some(Ok(Event::InitApply(integration))) if self.wants(&integration) => {
                    listed.insert(key(&integration), integration);
                }
                Some(Ok(Event::InitDone)) => break,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(self.watch_failure(&error)),
                None => return Err(Failure::Slow(REQUEST_TIMEOUT.as_secs())),
            }
        }
        let missing: Vec<_> =
            self.names.iter().filter(|name| !listed.keys().any(|(_, listed)| listed == *name)).collect();
        if missing.is_empty() { Ok(listed) } else { Err(Failure::NoSuch(self.suggest(&missing).await)) }
    }

    /// What may have been meant by names that are not there. Where it may not be looked for, nothing is suggested.
    async fn suggest(&self, missing: &[&String]) -> Vec<NoSuch> {
        let namespace = self.namespace.clone().unwrap_or_default();
        let params = ListParams::default();
        let everywhere: Api<WatchedIntegration> = Api::all(self.client.clone());
        let look = async {
            match everywhere.list_metadata(&params).await {
                Err(_) => self.api(&namespace).list_metadata(&params).await.ok(),
                found => found.ok(),
            }
        };
        let found = tokio::time::timeout(REQUEST_TIMEOUT, look).await.ok().flatten();
        let known: Vec<Key> = found
            .into_iter()
            .flat_map(|list| list.items)
            .map(|item| (item.namespace().unwrap_or_default(), item.name_any()))
            .collect();
        let say = |name: &String| NoSuch {
            name: name.clone(),
            namespace: namespace.clone(),
            near: near(name, &namespace, &known),
        };
        missing.iter().map(|name| say(name)).collect()
    }
}

/// The names most like one: of its own namespace, or the very name in another.
fn near(name: &str, namespace: &str, known: &[Key]) -> Vec<String> {
    let mut near: Vec<(f64, String)> = known
        .iter()
        .filter_map(|(other_namespace, other)| {
            let alike = strsim::jaro_winkler(name, other);
            if other_namespace == namespace {
                (alike >= ALIKE).then(|| (alike, other.clone()))
            } else {
                (name == other).then(|| (2.0, format!("{other} -n {other_namespace}")))
            }
        })
        .collect();
    near.sort_by(|(left, left_name), (right, right_name)| {
        right.total_cmp(left).then_with(|| left_name.cmp(right_name))
    });
    near.into_iter().take(SUGGESTIONS).map(|(_, name)| name).collect()
}

/// A value in a field selector, where commas, equals signs and backslashes mean something.
fn escaped(value: &str) -> String {
    value.chars().fold(String::with_capacity(value.len()), |mut text, c| {
        if matches!(c, ',' | '=' | '\\') {
            text.push('\\');
        }
        text.push(c);
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_not_there_is_answered_with_what_is_near() {
        let known: Vec<Key> = [("shops", "shop-1"), ("shops", "shop-10"), ("shops", "warehouse"), ("eu", "store")]
            .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
            .into();
        assert_eq!(near("shop1", "shops", &known), ["shop-1", "shop-10"]);
        assert_eq!(near("store", "shops", &known), ["store -n eu"]);
        assert!(near("zzz", "shops", &known).is_empty());
    }

    #[test]
    fn a_value_can_not_break_out_of_its_field_selector() {
        assert_eq!(escaped("a,metadata.name=b\\"), "a\\,metadata.name\\=b\\\\");
    }
}
