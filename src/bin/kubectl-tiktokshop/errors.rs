//! What keeps the whole command from its work: one line each, with what to do.

use std::error::Error;

use kube::config::KubeconfigError;
use kube::runtime::watcher;
use tiktok_shop_operator::api::names::{GROUP, PLURAL};

use crate::messages::{Messages, one_line};

/// Why the command can't be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no kubeconfig, and this is no pod.
    NoKubeconfig,
    /// The kubeconfig is there and can't be used.
    Kubeconfig(String),
    /// The kubeconfig can't be read.
    KubeconfigFile {
        /// Its path.
        path: String,
        /// Why.
        error: String,
    },
    /// The kubeconfig has no such context, or no current one.
    NoContext {
        /// The context, where one was named.
        name: Option<String>,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Names that were given and are not there, each with what is near it.
    NoSuch(Vec<NoSuch>),
    /// A right is missing.
    Forbidden {
        /// Such as `patch`.
        verb: &'static str,
        /// On what.
        resource: Resource,
        /// Where; everywhere if none.
        namespace: Option<String>,
    },
    /// The API server does not know who asks.
    Unauthorized,
    /// The custom resource is not served.
    NotInstalled,
    /// The API server can't be reached.
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        error: String,
    },
    /// A selector is not one.
    Selection(String),
    /// Anything else: the key of a message, and its values.
    Said(&'static str, Vec<(&'static str, String)>),
    /// Any other refusal.
    Server(String),
    /// No answer in so many seconds.
    Slow(u64),
}

/// What a right is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Integrations.
    Integrations,
    /// Secrets.
    Secrets,
}

impl Resource {
    /// The API group, and the plural in it.
    pub const fn group_and_plural(self) -> (&'static str, &'static str) {
        match self {
            Self::Integrations => (GROUP, PLURAL),
            Self::Secrets => ("", "secrets"),
        }
    }
}

/// A name that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuch {
    /// The name.
    pub name: String,
    /// Where it was looked for.
    pub namespace: String,
    /// What may have been meant.
    pub near: Vec<String>,
}

impl Failure {
    /// What a failed request means: what was to be done (the verb), where, and of which server.
    pub fn of(error: &kube::Error, verb: &'static str, namespace: Option<&str>, server: &str) -> Self {
        let kube::Error::Api(status) = error else {
            return match error {
                kube::Error::Auth(_) => Self::Kubeconfig(chain(error)),
                kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Self::Server(chain(error)),
                _ => Self::Unreachable { server: server.to_owned(), error: root(error) },
            };
        };
        match status.code {
            401 => Self::Unauthorized,
            403 => Self::Forbidden { verb, resource: Resource::Integrations, namespace: namespace.map(str::to_owned) },
            404 => Self::NotInstalled,
            400 => Self::Selection(one_line(&status.message)),
            _ => Self::Server(one_line(&status.message)),
        }
    }

    /// A message with its values.
    pub fn said(key: &'static str, values: &[(&'static str, &str)]) -> Self {
        Self::Said(key, values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
    }

    /// What is wrong with a kubeconfig that has these contexts.
    pub fn of_kubeconfig(error: &KubeconfigError, known: Vec<String>) -> Self {
        match error {
            KubeconfigError::LoadContext(name) => Self::NoContext { name: Some(one_line(name)), known },
            KubeconfigError::CurrentContextNotSet => Self::NoContext { name: None, known },
            KubeconfigError::ReadConfig(error, path) => Self::KubeconfigFile {
                path: one_line(&path.to_string_lossy()),
                error: without_number(&error.to_string()),
            },
            other => Self::Kubeconfig(chain(other)),
        }
    }

    /// What a failed list or watch means.
    pub fn of_watch(error: &watcher::Error, namespace: Option<&str>, server: &str) -> Self {
        match error {
            watcher::Error::InitialListFailed(error) => Self::of(error, "list", namespace, server),
            watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
                Self::of(error, "watch", namespace, server)
            }
            watcher::Error::WatchError(status) => {
                Self::of(&kube::Error::Api(status.clone()), "watch", namespace, server)
            }
            watcher::Error::NoResourceVersion => Self::Server(error.to_string()),
        }
    }

    /// Does it stay, whatever one waits?
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Forbidden { .. } | Self::Unauthorized | Self::NotInstalled | Self::Selection(_))
    }

    /// Is the command line itself wrong?
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Selection(_))
    }

    /// In one line; one for each name that is not there.
    pub fn say(&self, messages: &Messages) -> String {
        match self {
            Self::NoKubeconfig => messages.text("error-no-kubeconfig"),
            Self::Kubeconfig(error) => messages.with("error-kubeconfig", &[("error", error)]),
            Self::KubeconfigFile { path, error } => {
                messages.with("error-kubeconfig-file", &[("path", path), ("error", error)])
            }
            Self::NoContext { name, known } => {
                let known = if known.is_empty() { messages.text("none") } else { one_line(&known.join(", ")) };
                match name {
                    Some(name) => messages.with("error-no-context", &[("name", name), ("known", &known)]),
                    None => messages.with("error-no-current-context", &[("known", &known)]),
                }
            }
            Self::NoSuch(names) => {
                let lines: Vec<_> = names.iter().map(|name| name.say(messages)).collect();
                lines.join("\n")
            }
            Self::Forbidden { verb, resource, namespace } => {
                let (group, plural) = resource.group_and_plural();
                let full = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
                let values = [("verb", *verb), ("resource", plural), ("full", full.as_str())];
                match namespace {
                    Some(namespace) => {
                        messages.with("error-forbidden", &[values[0], values[1], values[2], ("namespace", namespace)])
                    }
                    None => messages.with("error-forbidden-everywhere", &values),
                }
            }
            Self::Unauthorized => messages.text("error-unauthorized"),
            Self::NotInstalled => messages.text("error-not-installed"),
            Self::Unreachable { server, error } => {
                messages.with("error-unreachable", &[("server", server), ("error", error)])
            }
            Self::Said(key, values) => {
                let values: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
                messages.with(key, &values)
            }
            Self::Selection(error) => messages.with("error-selector", &[("error", error)]),
            Self::Server(error) => messages.with("error-server", &[("error", error)]),
            Self::Slow(seconds) => messages.with("error-slow", &[("seconds", &seconds.to_string())]),
        }
    }
}

impl NoSuch {
    fn say(&self, messages: &Messages) -> String {
        let values = [("name", self.name.as_str()), ("namespace", &self.namespace)];
        let near = self.near.iter().cloned().reduce(|left, right| {
            let values = [("left", left.as_str()), ("right", &right)];
            messages.with("or", &values)
        });
        match near {
            None => messages.with("error-no-such", &values),
            Some(near) => messages.with("error-no-such-near", &[values[0], values[1], ("near", &near)]),
        }
    }
}

/// A namespace, or all, in words.
pub fn place(messages: &Messages, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) => messages.with("where-namespace", &[("namespace", namespace)]),
        None => messages.text("where-everywhere"),
    }
}

/// The last cause of an error: what lies before it are the layers of a client.
pub fn root(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    without_number(&one_line(&last.to_string()))
}

/// An error of the system without its number, which tells people nothing.
pub fn without_number(text: &str) -> String {
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

/// An error with its causes, each said once, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    one_line(&text)
}
