//! The cluster, and which integrations of it are meant.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::{Stream, StreamExt as _};
use kube::api::ListParams;
use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tiktok_shop_operator::api::names::FIELD_MANAGER;
use tiktok_shop_operator::cluster::{WatchedIntegration, pass_by_proxy};

use crate::args::{Common, Selection};
use crate::errors::{Failure, NoSuch, chain};
use crate::messages::{Messages, one_line};
use crate::terminal::complain;

/// Of one request, all of it; of a list, each page.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Of the request for what is said at the end of a wait that was long enough.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(5);

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

/// When the operator last wrote a status, as far as the API server tells; `None` where it never did.
pub type LastWrite = Result<Option<DateTime<Utc>>, Failure>;

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

/// What was found.
pub struct Listed {
    /// Every integration that is meant, sorted by namespace and name.
    pub found: BTreeMap<Key, WatchedIntegration>,
    /// Names that are there and not of the team.
    pub left_out: Vec<String>,
}

/// The kubeconfig that is named, or the usual one. Of several that `KUBECONFIG` names, those that are there, as kubectl has
/// it.
pub fn read_kubeconfig(common: &Common) -> Result<Kubeconfig, KubeconfigError> {
    if let Some(path) = &common.kubeconfig {
        return Kubeconfig::read_from(path);
    }
    let (mut merged, mut absent): (Option<Kubeconfig>, _) = (None, None);
    for path in paths_of_environment() {
        match Kubeconfig::read_from(path) {
            Err(error) if is_absent(&error) => _ = absent.get_or_insert(error),
            read => merged = Some(merged.unwrap_or_default().merge(read?)?),
        }
    }
    match (merged, absent) {
        (Some(kubeconfig), _) => Ok(kubeconfig),
        (None, Some(error)) => Err(error),
        (None, None) => Kubeconfig::read(),
    }
}

/// The files that `KUBECONFIG` names.
fn paths_of_environment() -> Vec<PathBuf> {
    let named = std::env::var_os("KUBECONFIG").unwrap_or_default();
    std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect()
}

fn is_absent(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::ReadConfig(error, _) => error.kind() == ErrorKind::NotFound,
        KubeconfigError::FindPath => true,
        _ => false,
    }
}

/// The user that the context names, where the kubeconfig has no such one: kube would go on as nobody.
fn missing_user(kubeconfig: &Kubeconfig, context: Option<&String>) -> Option<String> {
    let name = context.or(kubeconfig.current_context.as_ref())?;
    let context = kubeconfig.contexts.iter().find(|context| context.name == *name)?.context.as_ref()?;
    let user = context.user.as_ref().filter(|user| !user.is_empty())?;
    (!kubeconfig.auth_infos.iter().any(|known| known.name == *user)).then(|| user.clone())
}

/// A client of the cluster that is meant, with the context's namespace.
pub async fn connect(common: &Common) -> Result<(Client, String, String), Failure> {
    let options = KubeConfigOptions { context: common.context.clone(), ..KubeConfigOptions::default() };
    let is_named = common.kubeconfig.is_some() || common.context.is_some();
    let mut config = match read_kubeconfig(common) {
        Ok(kubeconfig) => {
            if let Some(user) = missing_user(&kubeconfig, common.context.as_ref()) {
                return Err(Failure::said("error-no-user", &[("name", &one_line(&user))]));
            }
            let contexts: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
            let read = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            read.map_err(|error| Failure::of_kubeconfig(&error, contexts))?
        }
        Err(error) if !is_named && is_absent(&error) => Config::incluster().map_err(|_| {
            if paths_of_environment().is_empty() {
                Failure::NoKubeconfig
            } else {
                Failure::of_kubeconfig(&error, Vec::new())
            }
        })?,
        Err(error) => return Err(Failure::of_kubeconfig(&error, Vec::new())),
    };
    pass_by_proxy(&mut config);
    let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| Failure::Kubeconfig(chain(&error)))?;
    Ok((client, server.trim_end_matches('/').to_owned(), namespace))
}

impl Selected {
    /// What a command line means, once the cluster is known.
    pub async fn of(common: &Common, selection: &Selection) -> Result<Self, Failure> {
        let (client, server, context_namespace) = connect(common).await?;
        let namespace = common.namespace.clone().unwrap_or(context_namespace);
        Ok(Self {
            client,
            server,
            namespace: (!common.all_namespaces).then_some(namespace),
            names: selection.names.iter().cloned().collect(),
            labels: selection.selector.clone(),
            team: selection.team_id.clone(),
        })
    }

    /// The client.
    pub fn client(&self) -> Client {
        self.client.clone()
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
            // Of the names, those are looked for among the team's.
            (Some(team), _) => Some(format!("spec.teamId={}", escaped(team))),
            // Several names can't be asked for at once.
            (None, Some(name)) if self.names.len() == 1 => Some(format!("metadata.name={}", escaped(name))),
            _ => None,
        };
        let config =
            watcher::Config { label_selector: self.labels.clone(), field_selector: field, ..Default::default() };
        watcher(api, config).default_backoff().boxed_local()
    }

    /// The list.
    pub async fn list(&self, events: &mut Events) -> Result<Listed, Failure> {
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
        if missing.is_empty() {
            return Ok(Listed { found: listed, left_out: Vec::new() });
        }
        let namespace = self.namespace.clone().unwrap_or_default();
        let known = self.known(&namespace).await;
        // With a team, the API server tells of its integrations alone.
        let (left_out, absent): (Vec<_>, Vec<_>) = missing
            .into_iter()
            .cloned()
            .partition(|name| self.team.is_some() && known.contains(&(namespace.clone(), name.clone())));
        if absent.is_empty() {
            return Ok(Listed { found: listed, left_out });
        }
        let near = |name: String| NoSuch { near: near(&name, &namespace, &known), namespace: namespace.clone(), name };
        Err(Failure::NoSuch(absent.into_iter().map(near).collect()))
    }

    /// Says which names are left out, where any are.
    pub fn say_left_out(&self, left_out: &[String], messages: &Messages) {
        let team = self.team.as_deref().map(one_line).unwrap_or_default();
        for name in left_out {
            let namespace = self.namespace.as_deref().unwrap_or_default();
            let values = [("name", name.as_str()), ("namespace", namespace), ("team", &team)];
            complain(&messages.with("left-out", &values));
        }
    }

    /// Every integration that may be looked for: everywhere, else in the namespace. None where that is not allowed.
    async fn known(&self, namespace: &str) -> Vec<Key> {
        let params = ListParams::default();
        let everywhere: Api<WatchedIntegration> = Api::all(self.client.clone());
        let look = async {
            match everywhere.list_metadata(&params).await {
                Err(_) => self.api(namespace).list_metadata(&params).await.ok(),
                found => found.ok(),
            }
        };
        let found = tokio::time::timeout(REQUEST_TIMEOUT, look).await.ok().flatten();
        let items = found.into_iter().flat_map(|list| list.items);
        items.map(|item| (item.namespace().unwrap_or_default(), item.name_any())).collect()
    }

    /// When the operator last wrote a status here; of the first integrations where there are many.
    pub async fn last_status_write(&self) -> LastWrite {
        let api: Api<WatchedIntegration> = match &self.namespace {
            Some(namespace) => self.api(namespace),
            None => Api::all(self.client.clone()),
        };
        let params = ListParams::default().limit(500);
        let list = tokio::time::timeout(LAST_WORD_TIMEOUT, api.list_metadata(&params)).await;
        let list = list.map_err(|_| Failure::Slow(LAST_WORD_TIMEOUT.as_secs()))?;
        let list = list.map_err(|error| self.failure(&error, "list", self.namespace.as_deref()))?;
        let writes = list.items.iter().flat_map(ResourceExt::managed_fields);
        let of_status = writes.filter(|write| {
            write.subresource.as_deref() == Some("status") && write.manager.as_deref() == Some(FIELD_MANAGER)
        });
        let seconds = of_status.filter_map(|write| Some(write.time.as_ref()?.0.as_second())).max();
        Ok(seconds.and_then(|seconds| DateTime::from_timestamp(seconds, 0)))
    }
}

/// What is known of the operator where it did nothing for a while.
pub fn last_word(last_write: Option<DateTime<Utc>>, messages: &Messages) -> String {
    match last_write {
        Some(time) => messages.with("last-write", &[("time", &messages.time(time))]),
        None => messages.text("no-write"),
    }
}

/// The names most like one, the nearest first: the very name in another namespace; of its own namespace, names that it
/// begins, and names that a slip or two make of it.
fn near(name: &str, namespace: &str, known: &[Key]) -> Vec<String> {
    let mut near: Vec<(u8, usize, String)> = known
        .iter()
        .filter_map(|(other_namespace, other)| {
            if other_namespace != namespace {
                return (name == other).then(|| (0, 0, format!("{other} -n {other_namespace}")));
            }
            let distance = strsim::osa_distance(name, other);
            let slips = (name.chars().count().max(other.chars().count()) / 4).clamp(1, 3);
            if other.starts_with(name) {
                Some((1, distance, other.clone()))
            } else {
                (distance <= slips).then(|| (2, distance, other.clone()))
            }
        })
        .collect();
    near.sort();
    near.into_iter().take(SUGGESTIONS).map(|(.., name)| name).collect()
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
        let known: Vec<Key> = [
            ("shops", "shop-1"),
            ("shops", "shop-10"),
            ("shops", "warehouse"),
            ("eu", "store"),
            ("demo", "shop-1-due"),
            ("demo", "shop-2-not-due"),
            ("demo", "shop-3-suspended"),
            ("demo", "shop-4-lapsed"),
        ]
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .into();
        for (name, namespace, expected) in [
            ("shop1", "shops", &["shop-1"][..]),
            ("shpo-1", "shops", &["shop-1"]),
            ("shop-2", "shops", &["shop-1"]),
            ("store", "shops", &["store -n eu"]),
            ("shop-1", "demo", &["shop-1 -n shops", "shop-1-due"]),
            ("shop-2", "demo", &["shop-2-not-due"]),
            ("shop", "demo", &["shop-1-due", "shop-4-lapsed", "shop-2-not-due"]),
            ("shop-4-lasped", "demo", &["shop-4-lapsed"]),
            ("zzz", "shops", &[]),
        ] {
            assert_eq!(near(name, namespace, &known), expected, "{name}");
        }
    }

    #[test]
    fn a_value_can_not_break_out_of_its_field_selector() {
        assert_eq!(escaped("a,metadata.name=b\\"), "a\\,metadata.name\\=b\\\\");
    }
}
