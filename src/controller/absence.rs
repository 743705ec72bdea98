//! The API server's absence. While it lasts, that a request is refused says nothing of rights; when it is over, the refreshes,
//! exchanges and restarts that failed for it are tried again at once, instead of after a pause that grew meanwhile.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::agenda::{Entry, Id};
use super::{Controller, Message, SERVER_AWAY_PAUSE, UnderWay};
use crate::api::{LastError, Reason};
use crate::cluster::ApiError;
use crate::transaction::Held;

/// A server that takes longer to say what it serves is not of use yet.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(SERVER_AWAY_PAUSE.unsigned_abs());

/// After a look that found no server of use, refusals are excused for so long: until the next look is over, and then for
/// what a server that can say what it serves may still need to know everybody's rights.
const EXCUSED: Duration = Duration::from_secs(20);

/// So many looks in a row that are answered, but not with what is served, are not those of a server that starts: with a
/// pause between them, that takes a minute.
const MOST_IN_VAIN: u32 = 20;

/// Something whose last try failed for the API server's absence, of this integration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Failed {
    /// A refresh or an exchange.
    Tokens(Id),
    /// The restart of what uses the tokens.
    Restart(Id),
}

/// What is known of an absence.
#[derive(Default)]
pub(super) struct Absence {
    /// What failed in it.
    failed: HashSet<Failed>,
    /// Is a look under way, or to come?
    looking: bool,
    /// Did something fail again since then?
    suspected_again: bool,
    /// Did a look find the server away? Else what failed did so for a reason of its own, such as a webhook.
    seen: bool,
    /// Looks in a row that were answered in vain.
    in_vain: u32,
}

/// What a look for the API server found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sighting {
    /// No answer.
    Away,
    /// An answer, but not that it serves integrations to this operator: as it starts, it knows neither all kinds nor all
    /// rights.
    Starting,
    /// It has too much to do to say.
    Busy,
    There,
}

/// What is to be done after a look.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    LookAgain,
    /// There was no absence.
    Nothing,
    /// It is over, and these failed in it.
    TryAgain(HashSet<Failed>),
}

impl Absence {
    /// Something failed as it does in an absence. Is a look to be taken?
    fn suspect(&mut self, failed: Option<Failed>) -> bool {
        self.failed.extend(failed);
        self.suspected_again = self.looking;
        !std::mem::replace(&mut self.looking, true)
    }

    fn sighted(&mut self, sighting: Sighting) -> Next {
        self.in_vain = if sighting == Sighting::Starting { self.in_vain + 1 } else { 0 };
        self.seen |= matches!(sighting, Sighting::Away | Sighting::Starting);
        let is_over = sighting == Sighting::There || self.in_vain >= MOST_IN_VAIN;
        let failed_since = std::mem::take(&mut self.suspected_again) && !self.seen;
        if !is_over || failed_since {
            return Next::LookAgain;
        }
        let Self { failed, seen, .. } = std::mem::take(self);
        if seen { Next::TryAgain(failed) } else { Next::Nothing }
    }
}

impl Controller {
    /// Something failed as it does when the API server is away: has it looked for until it is there.
    pub(super) fn suspect_absence(&mut self, failed: Option<Failed>) {
        if self.absence.suspect(failed) {
            self.look_for_server(Duration::ZERO);
        }
    }

    /// The last try did not fail for an absence, or there is nothing to be tried any more.
    pub(super) fn clear_of_absence(&mut self, failed: Failed) {
        self.absence.failed.remove(&failed);
    }

    fn look_for_server(&self, after: Duration) {
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let sighting = match tokio::time::timeout(LOOK_TIMEOUT, shared.cluster.serves_integrations()).await {
                Ok(Ok(true)) => Sighting::There,
                Ok(Err(ApiError::Busy)) => Sighting::Busy,
                Ok(Err(ApiError::Lost(_))) | Err(_) => Sighting::Away,
                Ok(Ok(false) | Err(_)) => Sighting::Starting,
            };
            drop(tell.send(Message::Sighted(sighting)));
        });
    }

    pub(super) fn on_sighting(&mut self, sighting: Sighting) {
        match self.absence.sighted(sighting) {
            Next::LookAgain => {
                if self.absence.seen {
                    self.shared.cluster.excuse_refusals(EXCUSED);
                }
                self.look_for_server(LOOK_EVERY);
            }
            Next::Nothing => {}
            Next::TryAgain(failed) => self.absence_is_over(sighting, &failed),
        }
    }

    fn absence_is_over(&mut self, sighting: Sighting, failed: &HashSet<Failed>) {
        let is_there = sighting == Sighting::There;
        let there = if is_there {
            "the API server is there again"
        } else {
            // What it refuses is to be told from now on, or it is never told.
            self.shared.cluster.excuse_refusals(Duration::ZERO);
            "the API server is there, but does not say that it serves integrations"
        };
        tracing::info!(failures = failed.len(), "{there}: what failed in its absence is tried again");
        for job in self.under_way.values().filter(|job| job.waits_for_server()) {
            job.nudge.notify_one();
        }
        let mut agenda = self.agenda.lock();
        for failed in failed {
            if let Some(entry) = agenda.get_mut(failed.id()) {
                match failed {
                    Failed::Tokens(_) => end_pause(entry),
                    Failed::Restart(_) => {
                        // After looks in vain the server may have been there all the time: its tries are to have an end.
                        if let Some(rollout) = entry.rollout.as_deref_mut().filter(|_| is_there) {
                            rollout.end_pause();
                        }
                    }
                }
            }
            agenda.rest();
        }
        drop(agenda);
        if self.leading && self.lists_awaited.is_empty() {
            self.to_look_at.extend(failed.iter().map(|failed| failed.id()));
        }
    }
}

impl Failed {
    const fn id(self) -> Id {
        match self {
            Self::Tokens(id) | Self::Restart(id) => id,
        }
    }
}

impl UnderWay {
    fn waits_for_server(&self) -> bool {
        self.settling || self.held.as_ref().is_some_and(|held| held.why == Held::ServerAway)
    }
}

/// Lets a refresh or an exchange that failed within the cluster be tried at once; the failures stay counted.
fn end_pause(entry: &mut Entry) {
    // Its Secret may have changed unseen: the first tries may fail for that, and are put off as ever. 1, not 0: at 0,
    // `start_refresh` would tell once more of an unknown outcome.
    entry.put_off = entry.put_off.min(1);
    if entry.error_of_tokens().and_then(LastError::known_reason) == Some(Reason::PersistFailed)
        && let Some(failed) = &mut entry.failed_with
    {
        failed.is_past = true;
    }
    if let Some(failed) = entry.code_failed.as_mut().filter(|failed| failed.reason == Reason::PersistFailed) {
        failed.at = i64::MIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looked(absence: &mut Absence, sightings: &[Sighting]) -> Vec<Next> {
        sightings.iter().map(|sighting| absence.sighted(*sighting)).collect()
    }

    #[test]
    fn an_absence_is_over_when_the_server_serves_again_and_not_while_it_starts() {
        let mut absence = Absence::default();
        assert!(absence.suspect(Some(Failed::Tokens(7))));
        assert!(!absence.suspect(Some(Failed::Restart(8))), "one look serves all");
        let seen = looked(&mut absence, &[Sighting::Away, Sighting::Starting, Sighting::Busy, Sighting::There]);
        let failed = HashSet::from([Failed::Tokens(7), Failed::Restart(8)]);
        assert_eq!(seen, [Next::LookAgain, Next::LookAgain, Next::LookAgain, Next::TryAgain(failed)]);
        assert!(absence.suspect(None), "the next is looked into anew");
    }

    #[test]
    fn what_fails_while_the_server_is_there_keeps_to_its_pause() {
        let mut absence = Absence::default();
        absence.suspect(Some(Failed::Tokens(7)));
        assert_eq!(looked(&mut absence, &[Sighting::There]), [Next::Nothing]);
        absence.suspect(Some(Failed::Tokens(7)));
        let seen = looked(&mut absence, &[Sighting::Busy, Sighting::There]);
        assert_eq!(seen, [Next::LookAgain, Next::Nothing], "too much to do is no absence");
    }

    #[test]
    fn what_fails_during_a_look_is_looked_into_again() {
        let mut absence = Absence::default();
        absence.suspect(Some(Failed::Tokens(7)));
        absence.suspect(Some(Failed::Restart(8)));
        let seen = looked(&mut absence, &[Sighting::There, Sighting::Away, Sighting::There]);
        assert_eq!(
            seen,
            [Next::LookAgain, Next::LookAgain, Next::TryAgain(HashSet::from([Failed::Tokens(7), Failed::Restart(8)]))]
        );
    }

    #[test]
    fn a_server_that_never_says_what_it_serves_is_not_waited_for_without_end() {
        let mut absence = Absence::default();
        absence.suspect(Some(Failed::Tokens(7)));
        let looks = (1..=100).find(|_| absence.sighted(Sighting::Starting) != Next::LookAgain);
        assert_eq!(looks, Some(MOST_IN_VAIN));
    }
}
