//! Status writes: few at a time, and only where something differs.

use std::collections::VecDeque;
use std::sync::Arc;

use super::agenda::{Entry, Id, fingerprint};
use super::{Controller, FORBIDDEN_PAUSE, Message, SERVER_AWAY_PAUSE};
use crate::api::merge_patch;
use crate::clock::Clock;
use crate::cluster::{ApiError, StatusWrite, Version};

impl Controller {
    pub(super) fn start_status_write(&mut self, id: Id) {
        let (write, fingerprint) = {
            let mut agenda = self.agenda.lock();
            let Some(entry) = agenda.get_mut(id) else { return };
            // Where it waits to be looked at first, that look puts it in line again.
            entry.writing_status = entry.reported;
            if !entry.reported {
                return;
            }
            let patch = merge_patch(&entry.status);
            let fingerprint = fingerprint(Some(&entry.status));
            ((entry.namespace.to_string(), entry.name.clone(), entry.uid.clone(), patch), fingerprint)
        };
        self.status_writes += 1;
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::spawn(async move {
            let (namespace, name, uid, patch) = write;
            let result = shared
                .cluster
                .write_status(&StatusWrite { namespace: &namespace, name: &name, uid: &uid, patch: &patch })
                .await;
            drop(tell.send(Message::StatusWritten { id, uid, fingerprint, result }));
        });
    }

    pub(super) fn on_status_written(
        &mut self,
        id: Id,
        uid: &str,
        written: u64,
        result: Result<Option<Version>, ApiError>,
    ) {
        let now = Clock::now().timestamp();
        let mut agenda = self.agenda.lock();
        let Some(entry) = agenda.get_mut(id).filter(|entry| *entry.uid == *uid) else { return };
        entry.writing_status = false;
        let is_server_away = result.as_ref().is_err_and(ApiError::is_server_away);
        match result {
            Ok(version) => {
                entry.served_status = written;
                entry.status_version = version;
                if fingerprint(Some(&entry.status)) != written {
                    queue_status_write(&mut self.status_queue, id, entry);
                }
            }
            // Deleted: the watch tells.
            Err(ApiError::NotFound) => {}
            Err(error) => {
                self.metrics.reconcile_failed("status-write");
                // A conflict may mean that it was created anew: then the watch tells of that, too.
                let may_pass = is_server_away || error == ApiError::Conflict;
                let pause = if may_pass { SERVER_AWAY_PAUSE } else { FORBIDDEN_PAUSE };
                if !may_pass {
                    tracing::error!(namespace = %entry.namespace, name = %entry.name, %error, "failed to write a status");
                }
                entry.served_status = 0;
                let wake = entry.wake_at.unwrap_or(i64::MAX).min(now + pause);
                agenda.wake(id, wake);
            }
        }
        drop(agenda);
        if is_server_away {
            self.suspect_absence(None);
        }
    }
}

pub(super) fn queue_status_write(queue: &mut VecDeque<Id>, id: Id, entry: &mut Entry) {
    if !entry.writing_status && fingerprint(Some(&entry.status)) != entry.served_status {
        entry.writing_status = true;
        queue.push_back(id);
    }
}
