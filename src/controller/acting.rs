//! Refreshes: started within slots and permits, and taken in when they end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::absence::Failed;
use super::agenda::{AppAtFailure, Busy, Entry, FailedWith, HeldAnswer, Id, Known};
use super::apps::AppCheck;
use super::outcome::{
    event_of, failed, failure_reason, held_message, held_reason, is_put_off, last_error, log_outcome, recovered,
    take_in,
};
use super::refresh::{Finished, Holding, Job, Settling, Spend, Update, What, Work};
use super::report::{Circumstances, events_of_change, report};
use super::writing::queue_status_write;
use super::{Controller, SERVER_AWAY_PAUSE, observe_entry};
use crate::api::timestamp::whole_seconds;
use crate::api::{LastError, Reason};
use crate::clock::Clock;
use crate::cluster::{Event, EventKind, Version};
use crate::decide::{Because, ClaimFacts, ClaimStanding, Decision, Waiting, decide};
use crate::metrics::RefreshResult;
use crate::tiktok::FailureReason;
use crate::tokens::{Digest, SpentTokens};
use crate::transaction::{Beside, CallFailure, Held, Outcome};

impl Controller {
    /// A slot and a permit are there: decides once more and starts.
    pub(super) fn start_refresh(&mut self, id: Id) {
        let now = Clock::now().timestamp();
        let shared_agenda = Arc::clone(&self.agenda);
        let mut agenda = shared_agenda.lock();
        let Some(entry) = agenda.get_mut(id) else { return };
        if entry.busy != Busy::Queued
            || self.under_way.contains_key(&(Arc::clone(&entry.namespace), entry.name.clone()))
        {
            return;
        }
        entry.busy = Busy::No;
        let (check, _) = self.check_app(&agenda, id);
        let AppCheck::Valid(credentials) = check.clone() else {
            drop(agenda);
            return self.evaluate(id);
        };
        if self.must_read(&mut agenda, id, now) {
            drop(agenda);
            return self.queue_read(id);
        }
        let Some(entry) = agenda.get(id) else { return };
        let decision = decide(
            &observe_entry(&agenda, id, &entry, &check, self.app_version(&agenda, &entry).as_ref()),
            &self.policy,
            now,
        );
        let Decision::Refresh { because } = decision else {
            drop(agenda);
            return self.evaluate(id);
        };
        let Some((version, what, claim, other)) = what_to_spend(&entry, because) else {
            drop(agenda);
            return self.queue_read(id);
        };
        let unknown = claim.filter(|claim| claim.standing == ClaimStanding::Unknown);
        let presented = unknown.map_or(1, |claim| claim.presented.saturating_add(1));
        if unknown.is_some_and(|claim| !claim.marked_unknown) && entry.put_off == 0 {
            self.metrics.outcome_unknown();
            let note = if what.exchange {
                "an earlier exchange was cut off before its outcome was known: the authorization code is tried again"
            } else {
                "an earlier refresh was cut off before its outcome was known: the token is tried again"
            };
            tracing::warn!(namespace = %entry.namespace, name = %entry.name, presented, "{note}");
            self.events.publish(Event::now(entry.regarding(), EventKind::OutcomeUnknown, note.to_owned()));
        }
        let due_at = entry.status.next_refresh_time.map(|at| at.timestamp());
        let job = Job {
            uid: entry.uid.clone(),
            namespace: Arc::clone(&entry.namespace),
            name: entry.name.clone(),
            team: entry.team.clone(),
            secret: Arc::clone(&entry.token_secret.1),
            keys: Arc::clone(&entry.token_keys),
            work: Work::Spend(Box::new(Spend {
                version: version.clone(),
                what,
                request: entry.new_request().map(Into::into),
                presented,
                unknown_before: unknown.is_some(),
                other,
                because,
                credentials: Arc::clone(&credentials),
            })),
            integration_gone: Arc::default(),
            nudge: Arc::default(),
        };
        let late = due_at.map_or(0, |due_at| (now - due_at).max(0));
        self.metrics.refresh_started(Duration::from_secs(u64::try_from(late).unwrap_or(0)));
        let began_with = FailedWith {
            pair: entry.known.held().map(|held| held.facts.pair),
            generation: entry.generation,
            app: self.app_version(&agenda, &entry).map_or(AppAtFailure::Any, AppAtFailure::At),
            request: entry.request.clone(),
            is_past: false,
        };
        if let Some(entry) = agenda.get_mut(id) {
            entry.busy = Busy::Refreshing;
        }
        drop(agenda);
        self.abandon_check(id);
        self.start(job, Some(credentials.app_key.as_str().into()), Some(began_with));
    }

    pub(super) fn on_update(&mut self, update: Update) {
        match update {
            Update::Held(holding) => self.on_held(holding),
            Update::Settling(settling) => self.on_settling(*settling),
            Update::Finished(finished) => self.on_finished(&finished),
        }
    }

    pub(super) fn journal_entry_tried(&mut self, key: &(Arc<str>, Box<str>)) {
        if self.replays_awaited.remove(key) && self.replays_awaited.is_empty() {
            self.readiness.journal_was_tried();
        }
    }

    fn on_held(&mut self, holding: Holding) {
        if holding.why == Held::ServerAway {
            self.suspect_absence(None);
        }
        let key = (Arc::clone(&holding.namespace), holding.name.clone());
        self.journal_entry_tried(&key);
        let message = held_message(&holding);
        tracing::error!(
            namespace = %holding.namespace, name = %holding.name, reason = Reason::PersistFailed.as_str(),
            journaled = holding.journaled, "{message}"
        );
        if let Some(job) = self.under_way.get_mut(&key) {
            job.held = Some(holding);
        }
        let id = self.agenda.lock().find(&key.0, &key.1);
        if let Some(id) = id {
            self.show_held(id);
        }
    }

    /// A call failed, and its claim can't be settled yet: the failure is said all the same.
    fn on_settling(&mut self, settling: Settling) {
        let now = Clock::now();
        let Settling { namespace, name, uid, secret, failure, exchange, is_server_away, detail } = settling;
        if is_server_away {
            self.suspect_absence(None);
        }
        let key = (namespace, name);
        let Some(job) = self.under_way.get_mut(&key) else { return };
        job.settling = true;
        let Some(failure) = failure.filter(|_| !job.failure_shown) else { return };
        let mut agenda = self.agenda.lock();
        let Some(id) = agenda.find(&key.0, &key.1) else { return };
        let Some(entry) = agenda.get_mut(id).filter(|entry| entry.uid == uid) else { return };
        job.failure_shown = true;
        let message = format!("{}; it can't be noted on Secret {secret} yet ({detail})", failure.message);
        self.events.publish(Event::now(entry.regarding(), event_of(&failure), message.clone()));
        failed(entry, last_error(&failure, message, now), exchange);
        let waiting = Decision::Wait { until: now.timestamp(), because: Waiting::Backoff };
        entry.set_status(report(entry, &waiting, &Circumstances::default(), now));
        if self.leading {
            queue_status_write(&mut self.status_queue, id, entry);
        }
    }

    /// Says of an integration that an answer for it is held.
    pub(super) fn show_held(&mut self, id: Id) {
        let now = Clock::now();
        let mut agenda = self.agenda.lock();
        let Some(entry) = agenda.get_mut(id) else { return };
        let Some(holding) = self
            .under_way
            .get(&(Arc::clone(&entry.namespace), entry.name.clone()))
            .and_then(|job| job.held.as_ref())
            .filter(|holding| *holding.uid == *entry.uid)
        else {
            return;
        };
        let message = held_message(holding);
        let held = HeldAnswer { reason: held_reason(holding), message: message.as_str().into() };
        if entry.held_answer.as_ref() == Some(&held) {
            return;
        }
        entry.held_answer = Some(held);
        self.events.publish(Event::now(entry.regarding(), EventKind::RefreshFailed, message.clone()));
        failed(
            entry,
            LastError {
                reason: Reason::PersistFailed.as_str().to_owned(),
                message,
                code: None,
                request_id: None,
                time: whole_seconds(now),
            },
            false,
        );
        let waiting = Decision::Wait { until: now.timestamp(), because: Waiting::Backoff };
        entry.set_status(report(entry, &waiting, &Circumstances::default(), now));
        if self.leading {
            queue_status_write(&mut self.status_queue, id, entry);
        }
    }

    pub(super) fn on_finished(&mut self, finished: &Finished) {
        let key = (Arc::clone(&finished.namespace), finished.name.clone());
        let job = self.under_way.remove(&key);
        self.journal_entry_tried(&key);
        if let Some(failure) = &finished.failure
            && failure.reason == FailureReason::RateLimited
            && let Some(app_key) = job.as_ref().and_then(|job| job.app_key.as_deref())
        {
            self.dispatch.pause(app_key, failure.retry_after, Instant::now(), Clock::now());
        }
        self.measure(finished);
        let id = self.agenda.lock().find(&finished.namespace, &finished.name);
        let Some(id) = id else { return log_outcome(finished, None, false) };
        let mut soon_again = finished.outcome == Outcome::ServerAway;
        if soon_again {
            self.suspect_absence(Some(Failed::Tokens(id)));
        } else {
            self.clear_of_absence(Failed::Tokens(id));
        }
        {
            let mut agenda = self.agenda.lock();
            let Some(entry) = agenda.get_mut(id) else { return };
            entry.busy = Busy::No;
            if *entry.uid == *finished.uid {
                let was_failing = entry.status.consecutive_failures.unwrap_or(0) > 0;
                let events = take_in(entry, finished, job);
                let put_off = is_put_off(entry, finished.outcome);
                soon_again &= put_off;
                log_outcome(finished, entry.status.last_error.as_ref(), put_off);
                for (kind, note) in events.into_iter().chain(recovered(finished, was_failing)) {
                    self.events.publish(Event::now(entry.regarding(), kind, note));
                }
            } else {
                log_outcome(finished, None, false);
            }
        }
        if soon_again {
            self.agenda.lock().wake(id, Clock::now().timestamp() + SERVER_AWAY_PAUSE);
            return;
        }
        self.evaluate(id);
        self.write_status_after_stop(id);
    }

    /// While stopping nothing is looked at any more, but what just ended is still written down.
    pub(super) fn write_status_after_stop(&mut self, id: Id) {
        if !self.stopping || !self.leading {
            return;
        }
        let now = Clock::now();
        let mut agenda = self.agenda.lock();
        let Some(entry) = agenda.get(id).filter(|entry| entry.known != Known::Unread) else { return };
        let observed = observe_entry(&agenda, id, &entry, &AppCheck::Unchecked, None);
        let decision = decide(&observed, &self.policy, now.timestamp());
        let Some(entry) = agenda.get_mut(id) else { return };
        let status = report(entry, &decision, &Circumstances::default(), now);
        for (kind, note) in events_of_change(&entry.status, &status) {
            self.events.publish(Event::now(entry.regarding(), kind, note));
        }
        entry.set_status(status);
        queue_status_write(&mut self.status_queue, id, entry);
    }

    pub(super) fn measure(&self, finished: &Finished) {
        if finished.written_back {
            return;
        }
        let result = match finished.outcome {
            Outcome::Refreshed => RefreshResult::Success,
            Outcome::CallFailed(kind) => {
                if kind == CallFailure::Unknown {
                    self.metrics.outcome_unknown();
                }
                RefreshResult::Failure { reason: failure_reason(finished).as_str() }
            }
            Outcome::Blocked(_) | Outcome::JournalFailed => {
                RefreshResult::Failure { reason: failure_reason(finished).as_str() }
            }
            Outcome::Stale
            | Outcome::ServerAway
            | Outcome::SupersededByPerson
            | Outcome::SupersededBySibling
            | Outcome::Abandoned => return,
        };
        self.metrics.refresh_finished(result, finished.took);
    }
}

/// What is to be spent, in which version of the Secret, what the claim there says of it, and what of the other credential
/// is not to be forgotten. `None` where the Secret has to be read first.
fn what_to_spend(entry: &Entry, because: Because) -> Option<(&Version, What, Option<ClaimFacts>, Option<Beside>)> {
    let beside = |from: Digest, claim: Option<ClaimFacts>| {
        let unknown = claim.filter(|claim| claim.standing == ClaimStanding::Unknown)?;
        Some(Beside { from: from.to_string(), presented: unknown.presented })
    };
    let (_, version) = entry.known.version()?;
    let held = entry.known.held();
    let read = held.and_then(|held| held.read.as_ref());
    let code = entry.known.open_code();
    // The Secret's own notes may have been dropped since.
    let spent = |before: &SpentTokens, not: Digest| match entry.last_spent.filter(|spent| *spent != not) {
        Some(spent) => before.with(spent),
        None => before.clone(),
    };
    if because == Because::AuthorizationCode {
        let code = code?;
        let other = code.refresh.and_then(|refresh| beside(refresh, held.and_then(|held| held.facts.claim)));
        let what = What {
            exchange: true,
            from: code.digest,
            pair: code.pair,
            beside: code.refresh,
            spent_before: spent(&code.spent_before, code.digest),
            lengths: code.lengths,
        };
        return Some((version, what, code.facts.claim, other));
    }
    let (held, read) = held.zip(read)?;
    let what = What {
        exchange: false,
        from: read.refresh,
        pair: held.facts.pair,
        beside: None,
        spent_before: spent(&read.spent_before, read.refresh),
        lengths: Some(read.lengths),
    };
    Some((version, what, held.facts.claim, code.and_then(|code| beside(code.digest, code.facts.claim))))
}
