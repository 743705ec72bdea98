//! App credentials: kept in memory as long as the watch shows the version that was read, bounded
//! in number, wiped when dropped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::{AppRef, Id, Presence};
use crate::clock::Clock;
use crate::cluster::{ApiError, Version};
use crate::tokens::{AppCredentials, MissingKeys};

/// How long an app Secret that could not be read is left alone.
const UNREADABLE_FOR: Duration = Duration::from_secs(30);

/// App Secrets kept in memory at most.
const MOST_KEPT: usize = 1_000;

/// What is known of an app Secret.
#[derive(Clone)]
pub(super) enum AppCheck {
    /// Nothing: it has to be read.
    Unchecked,
    /// It holds credentials.
    Valid(Arc<AppCredentials>),
    /// It does not; in words, with what to do.
    Missing { problem: Arc<str>, told: bool },
}

impl PartialEq for AppCheck {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unchecked, Self::Unchecked) => true,
            (Self::Valid(a), Self::Valid(b)) => Arc::ptr_eq(a, b),
            (Self::Missing { problem: a, .. }, Self::Missing { problem: b, .. }) => a == b,
            _ => false,
        }
    }
}

struct Read {
    /// The version read; `None` where it could not be read.
    version: Option<Version>,
    check: AppCheck,
    /// May it not be read?
    denied: bool,
    /// On the clock that counts suspends.
    at: Duration,
}

impl Read {
    /// What could not be read is asked for again after a while: no watch tells of a right granted.
    fn is_stale(&self, poll: Option<Duration>) -> bool {
        let age = Clock::boottime().saturating_sub(self.at);
        (self.version.is_none() && age >= UNREADABLE_FOR) || poll.is_some_and(|poll| age >= poll)
    }
}

/// The app Secrets that this process has read.
pub(super) struct Apps {
    /// Where no watch tells of changes: how long what was read is relied on.
    poll: Option<Duration>,
    read: HashMap<AppRef, Read>,
    /// Integrations that wait for a read.
    waiting: HashMap<AppRef, Vec<Id>>,
}

impl Apps {
    /// `poll`: how long what was read is relied on, where no watch tells of changes.
    pub(super) fn new(poll: Option<Duration>) -> Self {
        Self { poll, read: HashMap::new(), waiting: HashMap::new() }
    }

    /// What is known of an app Secret, given what the watch says of it.
    pub(super) fn check(&self, app: &AppRef, presence: &Presence) -> AppCheck {
        let read = self.read.get(app);
        match (presence, read) {
            (Presence::Absent, _) => AppCheck::Missing {
                problem: format!(
                    "there is no Secret {}: create it with {} and {}, or correct spec.appCredentialsSecretRef.name",
                    app.secret.1, app.keys.app_key, app.keys.app_secret
                )
                .into(),
                told: true,
            },
            (_, Some(read)) if read.is_stale(self.poll) => AppCheck::Unchecked,
            (Presence::Untold, Some(read)) => read.check.clone(),
            (Presence::Present(metadata), Some(read)) => match &read.version {
                Some(version) if version.covers(&metadata.version) => read.check.clone(),
                // Denied, so its version is not known; it was there then, too.
                None if read.denied => read.check.clone(),
                _ => AppCheck::Unchecked,
            },
            (Presence::Present(_) | Presence::Untold, None) => AppCheck::Unchecked,
        }
    }

    /// Was it read before, whatever came of it?
    pub(super) fn has_read(&self, app: &AppRef) -> bool {
        self.read.contains_key(app)
    }

    /// No watch tells of changes any more: what was read is relied on for so long.
    pub(super) fn poll_every(&mut self, poll: Duration) {
        self.poll = Some(poll);
    }

    /// The version last read.
    pub(super) fn version(&self, app: &AppRef) -> Option<Version> {
        self.read.get(app)?.version.clone()
    }

    /// Has an integration wait for a read; is it the first, so that the read is to be started?
    pub(super) fn wait_for(&mut self, app: &AppRef, id: Id) -> bool {
        let waiting = self.waiting.entry(app.clone()).or_default();
        let first = waiting.is_empty();
        if !waiting.contains(&id) {
            waiting.push(id);
        }
        first
    }

    /// Takes in what a read gave, and returns who waited for it.
    pub(super) fn take_in(
        &mut self,
        app: &AppRef,
        result: Result<(Version, Result<AppCredentials, MissingKeys>), ApiError>,
    ) -> Vec<Id> {
        let secret = &app.secret.1;
        let at = Clock::boottime();
        let missing = |problem: String, told| AppCheck::Missing { problem: problem.into(), told };
        let read = match result {
            Ok((version, Ok(credentials))) => {
                Some(Read { version: Some(version), check: AppCheck::Valid(Arc::new(credentials)), denied: false, at })
            }
            Ok((version, Err(keys))) => Some(Read {
                version: Some(version),
                check: missing(
                    format!(
                        "in Secret {secret}, {keys}: put the app's credentials there, or correct spec.appCredentialsSecretRef.keys"
                    ),
                    self.poll.is_none(),
                ),
                denied: false,
                at,
            }),
            Err(error) if error.is_server_away() => None,
            Err(ApiError::NotFound) => Some(Read {
                version: None,
                check: missing(
                    format!(
                        "there is no Secret {secret}: create it with the app's credentials, or correct spec.appCredentialsSecretRef.name"
                    ),
                    false,
                ),
                denied: false,
                at,
            }),
            Err(error) => Some(Read {
                version: None,
                check: missing(
                    format!(
                        "Secret {secret} can't be read: {error}; allow the operator's service account to get Secrets"
                    ),
                    false,
                ),
                denied: true,
                at,
            }),
        };
        match read {
            Some(read) => {
                if self.read.len() >= MOST_KEPT && !self.read.contains_key(app) {
                    self.read.clear();
                }
                self.read.insert(app.clone(), read);
            }
            None => drop(self.read.remove(app)),
        }
        self.waiting.remove(app).unwrap_or_default()
    }

    /// Forgets what was read: it is read again before its next use.
    pub(super) fn forget(&mut self, app: &AppRef) {
        self.read.remove(app);
    }
}
