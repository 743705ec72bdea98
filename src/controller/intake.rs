//! What the watches tell, taken into the agenda.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kube::Resource as _;
use kube::runtime::watcher;

use super::absence::Failed;
use super::agenda::{Busy, Change, Id, List, Metadata, Presence};
use super::observe::Notes;
use super::resting::Uid;
use super::watch::Told;
use super::{BATCH, Controller, INTEGRATIONS, POLL_STRETCHED_ABOVE, SECRETS};
use crate::cluster::Version;
use crate::metrics::Watched;
use crate::settings::SecretAccess;

impl Controller {
    pub(super) fn on_told_batch(&mut self, first: Told) {
        self.on_told(first);
        for _ in 1..BATCH {
            let Ok(told) = self.told.try_recv() else { return };
            self.on_told(told);
        }
    }

    pub(super) fn on_told(&mut self, told: Told) {
        match told {
            Told::Refused(scope, watched) => self.list_is_refused(scope, watched),
            Told::Broken => self.suspect_absence(None),
            Told::Integration(scope, event) => match *event {
                watcher::Event::Init => self.list_begins(INTEGRATIONS, scope),
                watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                    let list = self.list_of(INTEGRATIONS, scope);
                    let replaced = self.agenda.lock().replaced_by(&object);
                    if let Some(id) = replaced {
                        self.remove(id);
                    }
                    let applied = self.agenda.lock().apply(object, list, self.leading);
                    if let Some((id, change)) = applied {
                        self.on_integration(id, &change);
                    }
                }
                watcher::Event::Delete(object) => {
                    let meta = object.meta();
                    if let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) {
                        let id = self.agenda.lock().find(namespace, name);
                        if let Some(id) = id {
                            self.remove(id);
                        }
                    }
                }
                watcher::Event::InitDone => {
                    let list = self.list_of(INTEGRATIONS, scope.clone());
                    let gone = self.agenda.lock().unseen(scope.as_deref(), list);
                    for id in gone {
                        self.remove(id);
                    }
                    self.list_is_in(INTEGRATIONS, scope);
                }
            },
            Told::Secret(scope, event) => match *event {
                watcher::Event::Init => self.list_begins(SECRETS, scope),
                watcher::Event::InitApply(secret) | watcher::Event::Apply(secret) => {
                    let meta = secret.meta();
                    let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else { return };
                    let Some(version) = meta.resource_version.as_deref().and_then(Version::new) else { return };
                    let presence = Presence::Present(Metadata {
                        uid: Uid::pack(meta.uid.as_deref().unwrap_or_default()).into_owned(),
                        version,
                        notes: meta.annotations.as_ref().map(|annotations| Box::new(Notes::read(annotations))),
                    });
                    let list = self.list_of(SECRETS, scope);
                    self.on_secret(namespace, name, presence, list);
                }
                watcher::Event::Delete(secret) => {
                    let meta = secret.meta();
                    let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else { return };
                    let list = self.list_of(SECRETS, scope);
                    self.on_secret(namespace, name, Presence::Absent, list);
                }
                watcher::Event::InitDone => {
                    let list = self.list_of(SECRETS, scope.clone());
                    let concerned = self.agenda.lock().sweep_secrets(scope.as_deref(), list);
                    self.list_is_in(SECRETS, scope);
                    if self.lists_awaited.is_empty() {
                        for id in concerned {
                            self.evaluate(id);
                        }
                    }
                }
            },
        }
    }

    pub(super) fn list_begins(&mut self, what: &'static str, scope: Option<Arc<str>>) {
        let list = self.agenda.lock().begin_list();
        self.lists.insert((what, scope), list);
    }

    pub(super) fn list_of(&self, what: &'static str, scope: Option<Arc<str>>) -> List {
        self.lists.get(&(what, scope)).copied().unwrap_or(0)
    }

    /// One namespace in which something may not be listed must not stop the others. Work goes on without that list: where
    /// it is one of Secrets, those that integrations name are looked at now and then.
    fn list_is_refused(&mut self, scope: Option<Arc<str>>, watched: Watched) {
        let what = match watched {
            Watched::Integrations => INTEGRATIONS,
            Watched::Secrets => SECRETS,
        };
        if !self.lists_awaited.contains(&(what, scope.clone())) || self.shared.cluster.excuses_refusals() {
            return;
        }
        tracing::error!(
            resource = watched.label(),
            namespace = scope.as_deref(),
            "may not be listed and watched: allow it to the operator's service account, or, for Secrets, start it with --secret-access named; work goes on without"
        );
        self.lists_refused.insert((what, scope.clone()));
        if what == SECRETS {
            self.apps.poll_every(self.settings.secret_poll_interval);
        }
        self.list_is_in(what, scope);
    }

    pub(super) fn list_is_in(&mut self, what: &'static str, scope: Option<Arc<str>>) {
        let key = (what, scope);
        let awaited = self.lists_awaited.remove(&key);
        if !awaited {
            if self.lists_refused.remove(&key) && self.lists_refused.is_empty() && self.lists_awaited.is_empty() {
                self.readiness.lists_are_in();
            }
            return;
        }
        let integrations_in = !self.lists_awaited.iter().any(|(what, _)| *what == INTEGRATIONS);
        if integrations_in && !self.secrets_watched && self.settings.secret_access == SecretAccess::Watch {
            // Only now: the index that says which Secrets matter is complete.
            self.secrets_watched = true;
            self.watches.start_secrets();
        }
        if self.lists_awaited.is_empty() {
            let count = self.agenda.lock().len();
            tracing::info!(integrations = count, "the first lists are in");
            if self.settings.secret_access == SecretAccess::Named && count > POLL_STRETCHED_ABOVE {
                tracing::warn!(
                    integrations = count,
                    poll_seconds = self.poll_seconds(count),
                    "with --secret-access named and so many integrations, Secrets are looked at less often than --secret-poll-interval says"
                );
            }
            for ((namespace, name), job) in &self.under_way {
                let gone = self.agenda.lock().find(namespace, name).is_none();
                job.integration_gone.store(gone, Ordering::Relaxed);
            }
            if self.lists_refused.is_empty() {
                self.readiness.lists_are_in();
            }
            if self.leading {
                self.evaluate_all();
            }
        }
    }

    pub(super) fn on_integration(&mut self, id: Id, change: &Change) {
        {
            let mut agenda = self.agenda.lock();
            let Some(entry) = agenda.get_mut(id) else { return };
            if *change == Change::New
                && let Some(job) = self.under_way.get(&(Arc::clone(&entry.namespace), entry.name.clone()))
            {
                entry.busy = Busy::Refreshing;
                job.integration_gone.store(false, Ordering::Relaxed);
            }
        }
        if *change == Change::New {
            self.show_held(id);
        }
        if self.lists_awaited.is_empty() {
            self.evaluate(id);
            match change {
                Change::New => self.evaluate_siblings(id),
                Change::Moved(before) => {
                    self.evaluate_siblings(id);
                    let left = self.agenda.lock().slot(before).map(|slot| slot.tokens_of.to_vec());
                    for sibling in left.unwrap_or_default() {
                        self.evaluate(sibling);
                    }
                }
                Change::Other => {}
            }
        }
    }

    /// Of several integrations on one Secret, which one keeps it may have changed.
    pub(super) fn evaluate_siblings(&mut self, id: Id) {
        let siblings = {
            let agenda = self.agenda.lock();
            let Some(entry) = agenda.get(id) else { return };
            agenda.slot(&entry.token_secret).map(|slot| slot.tokens_of.to_vec()).unwrap_or_default()
        };
        for sibling in siblings.into_iter().filter(|sibling| *sibling != id) {
            self.evaluate(sibling);
        }
    }

    pub(super) fn remove(&mut self, id: Id) {
        let siblings = {
            let mut agenda = self.agenda.lock();
            let Some(entry) = agenda.get(id) else { return };
            if let Some(job) = self.under_way.get(&(Arc::clone(&entry.namespace), entry.name.clone())) {
                job.integration_gone.store(true, Ordering::Relaxed);
            }
            let secret = entry.token_secret.clone();
            agenda.remove(id);
            agenda.slot(&secret).map(|slot| slot.tokens_of.to_vec()).unwrap_or_default()
        };
        self.dispatch.forget(id);
        self.abandon_check(id);
        self.clear_of_absence(Failed::Tokens(id));
        self.clear_of_absence(Failed::Restart(id));
        for sibling in siblings {
            self.evaluate(sibling);
        }
    }

    pub(super) fn on_secret(&mut self, namespace: &str, name: &str, presence: Presence, list: List) {
        let (tokens_of, app_of) = {
            let mut agenda = self.agenda.lock();
            let Some(slot) = agenda.slot_mut(namespace, name) else { return };
            slot.seen_in = list;
            // An event may be older than what is known already, after a new list or a slow stream.
            if let (Presence::Present(known), Presence::Present(told)) = (&slot.presence, &presence)
                && known.uid == told.uid
                && known.version.covers(&told.version)
            {
                return;
            }
            slot.presence = presence;
            (slot.tokens_of.to_vec(), slot.app_of.to_vec())
        };
        for id in &tokens_of {
            // Of a fleet at rest nothing is under way, and nobody need be woken to find that out.
            if self.under_way.is_empty() {
                break;
            }
            let agenda = self.agenda.lock();
            let Some((namespace, name)) = agenda.key(*id) else { continue };
            if let Some(job) = self.under_way.get(&(namespace.into(), name.into())) {
                job.nudge.notify_one();
            }
        }
        if self.lists_awaited.is_empty() {
            for id in tokens_of.into_iter().chain(app_of) {
                self.evaluate(id);
            }
        } else if self.leading {
            // Before it is looked at, so that what the annotations say need not be kept until all lists are in. A standby
            // keeps it: by the time it leads, the status may tell of other tokens.
            let mut agenda = self.agenda.lock();
            for id in tokens_of {
                agenda.take_over_from_status(id);
            }
            agenda.rest();
        }
    }
}
