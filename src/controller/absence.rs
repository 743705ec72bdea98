//! The API server's absence. While it lasts, that a request is refused says nothing of rights; when it is over, what failed
//! for it alone is tried again at once, instead of after a pause that grew meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::{Entry, Id};
use super::{Controller, Message, SERVER_AWAY_PAUSE, UnderWay};
use crate::api::{LastError, Reason};
use crate::transaction::Held;

/// A server that takes longer to say what it serves is not of use yet.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// So many looks in a row that are answered, but not with what is served, are not those of a server that starts: with a
/// pause between them, that takes a minute.
const MOST_IN_VAIN: u32 = 20;

/// What is known of an absence.
#[derive(Default)]
pub(super) struct Absence {
    /// Whose last try failed for it.
    failed: HashSet<Id>,
    /// Is a look under way, or to come?
    looking: bool,
    /// Did a look find the server away? Else what failed did so for a reason of its own, such as a webhook.
    seen: bool,
    /// Looks in a row that were answered in vain.
    in_vain: u32,
}

/// What a look for the API server found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// No answer.
    Away,
    /// An answer, but not that it serves integrations to this operator: as it starts, it knows neither all kinds nor all
    /// rights.
    Starting,
    There,
}

impl Controller {
    /// Something failed as it does when the API server is away: has it looked for until it is there.
    pub(super) fn suspect_absence(&mut self, id: Option<Id>) {
        self.absence.failed.extend(id);
        if !self.absence.looking {
            self.absence.looking = true;
            self.look_for_server(Duration::ZERO);
        }
    }

    /// A try did not fail for an absence.
    pub(super) fn no_absence(&mut self, id: Id) {
        self.absence.failed.remove(&id);
    }

    fn look_for_server(&self, after: Duration) {
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let look = match tokio::time::timeout(LOOK_TIMEOUT, shared.cluster.serves_integrations()).await {
                Ok(Ok(true)) => Look::There,
                Ok(Err(error)) if error.is_server_away() => Look::Away,
                Ok(Ok(false) | Err(_)) => Look::Starting,
                Err(_) => Look::Away,
            };
            drop(tell.send(Message::LookedForServer(look)));
        });
    }

    pub(super) fn on_look_for_server(&mut self, look: Look) {
        self.absence.in_vain = if look == Look::Starting { self.absence.in_vain + 1 } else { 0 };
        if look != Look::There && self.absence.in_vain < MOST_IN_VAIN {
            self.absence.seen = true;
            self.shared.cluster.presume_away(true);
            self.look_for_server(Duration::from_secs(SERVER_AWAY_PAUSE.unsigned_abs()));
            return;
        }
        let Absence { failed, seen, .. } = std::mem::take(&mut self.absence);
        self.shared.cluster.presume_away(false);
        if !seen {
            return;
        }
        tracing::info!(
            integrations = failed.len(),
            "the API server is there again: what failed in its absence is tried again"
        );
        for job in self.under_way.values().filter(|job| job.waits_for_server()) {
            job.nudge.notify_one();
        }
        for id in failed {
            if let Some(entry) = self.agenda.lock().get_mut(id) {
                forget_pause(entry);
            }
            self.evaluate(id);
        }
    }
}

impl UnderWay {
    fn waits_for_server(&self) -> bool {
        self.settling || self.held.as_ref().is_some_and(|held| held.why == Held::ServerAway)
    }
}

/// Lets an integration that failed within the cluster be tried at once; the failures stay counted.
fn forget_pause(entry: &mut Entry) {
    // Its Secret may have changed unseen: the first tries may fail for that, and are put off as ever. Not none: what is told
    // at the first try alone was told.
    entry.put_off = entry.put_off.min(1);
    if entry.error_of_tokens().and_then(LastError::known_reason) == Some(Reason::PersistFailed) {
        entry.failed_with = None;
    }
    if let Some(failed) = entry.code_failed.as_mut().filter(|failed| failed.reason == Reason::PersistFailed) {
        failed.at = i64::MIN;
    }
}
