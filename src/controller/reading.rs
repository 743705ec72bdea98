//! Reads of Secrets, and what they tell.

use std::sync::Arc;

use super::agenda::{AppRef, Busy, Id, Known, Presence};
use super::outcome::take_in_unsaid_failure;
use super::reads::Turn;
use super::refresh::{Shared, Work};
use super::{
    AppRead, Controller, FORBIDDEN_PAUSE, Message, SERVER_AWAY_PAUSE, TokenRead, TokenSecretRead, observe, report,
};
use crate::api::{LastError, Reason};
use crate::clock::Clock;
use crate::cluster::{ApiError, Event, EventKind, Regarding, Secret};
use crate::journal;
use crate::tokens::{AppCredentials, Digest, DigestKey, ParsedTokens, TokenKeyNames};

impl Controller {
    pub(super) fn queue_read(&mut self, id: Id) {
        let mut agenda = self.agenda.lock();
        let now = Clock::now().timestamp();
        let Some(entry) = agenda.get_mut(id) else { return };
        if entry.busy == Busy::Queued {
            // Its line is no longer the right one; it gets in line again when it is known what stands there.
            self.dispatch.forget(id);
        }
        entry.busy = Busy::Reading;
        let priority = entry.priority(now);
        self.reads.push(priority, id);
    }

    pub(super) fn start_read(&mut self, turn: Turn) {
        let agenda = self.agenda.lock();
        let Some(entry) = agenda.get(turn.id) else {
            self.reads.end(turn);
            return;
        };
        let (secret, keys) = (entry.token_secret.clone(), Arc::clone(&entry.token_keys));
        let (name, uid) = (entry.name.clone(), entry.uid.clone());
        let newest = Newest {
            last_spent: entry.last_spent,
            last_code: entry.last_code,
            pair: entry
                .status
                .observed_token_secret
                .as_ref()
                .and_then(|observed| observed.tokens_digest.as_deref())
                .and_then(Digest::parse),
            refresh: entry.known.held().and_then(|held| held.read.as_ref()).map(|read| read.refresh),
            refreshed_at: entry.status.last_refresh_time.map(|at| at.timestamp()),
        };
        let seen = agenda.slot(&secret).map_or(Presence::Untold, |slot| slot.presence.clone());
        drop(agenda);
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::spawn(async move {
            let result = match shared.cluster.read_secret(&secret.0, &secret.1).await {
                Ok(read) => Ok(read_tokens(&shared, &read, &secret.0, &name, &uid, &keys, &newest).await),
                Err(error) => Err(error),
            };
            drop(tell.send(Message::TokenSecretRead(Box::new(TokenSecretRead {
                turn,
                uid,
                secret,
                keys,
                seen,
                result,
            }))));
        });
    }

    pub(super) fn read_app(&mut self, id: Id) {
        let app = {
            let agenda = self.agenda.lock();
            let Some(entry) = agenda.get(id) else { return };
            entry.app.clone()
        };
        if !self.apps.wait_for(&app, id) {
            return;
        }
        let (shared, tell) = (Arc::clone(&self.shared), self.tell.clone());
        tokio::spawn(async move {
            let (namespace, name) = &app.secret;
            let result = shared.cluster.read_secret(namespace, name).await.map(|secret| AppRead {
                credentials: AppCredentials::parse(&secret.data, &app.keys),
                version: secret.version,
            });
            drop(tell.send(Message::AppSecretRead { app, result }));
        });
    }

    pub(super) fn on_message(&mut self, message: Message) {
        match message {
            Message::TokenSecretRead(read) => {
                self.reads.end(read.turn);
                self.on_token_secret(*read);
            }
            Message::AppSecretRead { app, result } => self.on_app_secret(&app, result),
            Message::Restarted(restarted) => self.on_restarted(*restarted),
            Message::Shops(told) => self.on_shops(told),
            Message::Sighted(sighting) => self.on_sighting(sighting),
            Message::StatusWritten { id, uid, fingerprint, result } => {
                self.status_writes -= 1;
                self.on_status_written(id, &uid, fingerprint, result);
            }
        }
    }

    fn on_token_secret(&mut self, read: TokenSecretRead) {
        let TokenSecretRead { turn: Turn { id, .. }, uid, secret, keys, seen, result } = read;
        let now = Clock::now().timestamp();
        let mut revert = None;
        {
            let mut agenda = self.agenda.lock();
            let is_owner = agenda.owner_before(id).is_none();
            let Some(entry) = agenda.get_mut(id).filter(|entry| entry.uid == uid) else { return };
            entry.busy = Busy::No;
            if entry.token_secret != secret || entry.token_keys != keys {
                entry.known = Known::Unread;
                drop(agenda);
                return self.evaluate(id);
            }
            match result {
                Ok(read) => {
                    let problems = fingerprint_of(&read.problems);
                    if entry.warned_problems != problems {
                        entry.warned_problems = problems;
                        for note in read.problems {
                            self.events.publish(Event::now(entry.regarding(), EventKind::InvalidValue, note));
                        }
                    }
                    entry.known = read.known;
                    entry.next_poll = i64::MAX;
                    if is_owner && let Some((kind, note)) = take_in_unsaid_failure(entry, Clock::now()) {
                        self.events.publish(Event::now(entry.regarding(), kind, note));
                    }
                    if let Some(mut kept) = read.reverted {
                        // The request that this pair once answered may not be the last that was handled; and what noted
                        // that on the Secret may be gone. A status that does not know of the pair tells of earlier ones.
                        let told = entry.status.last_attempt_time.map_or(i64::MIN, |at| at.timestamp());
                        if let Some(handled) = &entry.status.last_handled_refresh_request
                            && (told >= kept.answer.answered_at || kept.answer.intent.request.is_none())
                        {
                            kept.answer.intent.request = Some(handled.clone());
                        }
                        let note = report::reverted_message(entry);
                        if !kept.restored {
                            entry.busy = Busy::Refreshing;
                            revert = Some((kept, entry.regarding(), note));
                        }
                    }
                }
                Err(error) if error.is_server_away() => {
                    self.metrics.reconcile_failed("api-server-away");
                    agenda.wake(id, now + SERVER_AWAY_PAUSE);
                    drop(agenda);
                    self.suspect_absence(None);
                    return;
                }
                Err(ApiError::NotFound) => {
                    entry.next_poll = i64::MAX;
                    let told = agenda.slot(&secret).map_or(Presence::Untold, |slot| slot.presence.clone());
                    let created_meanwhile = told != seen && matches!(told, Presence::Present(_));
                    if let Some(entry) = agenda.get_mut(id) {
                        entry.known = if created_meanwhile { Known::Unread } else { Known::NotFound };
                    }
                    if self.secrets_watched
                        && !created_meanwhile
                        && let Some(slot) = agenda.slot_mut(&secret.0, &secret.1)
                    {
                        // Newer than what the watch has told so far; if it comes back, the watch tells.
                        slot.presence = Presence::Absent;
                    }
                }
                Err(error) => {
                    self.metrics.reconcile_failed("forbidden");
                    entry.known = Known::Forbidden(error.to_string().into());
                    entry.next_poll = now + FORBIDDEN_PAUSE;
                }
            }
            if agenda.get(id).is_some_and(|entry| self.polls(&entry)) {
                let poll = self.poll_seconds(agenda.len());
                if let Some(entry) = agenda.get_mut(id) {
                    entry.next_poll = now + poll;
                    if entry.status.last_error.as_ref().and_then(LastError::known_reason)
                        == Some(Reason::AppCredentialsRejected)
                    {
                        // No watch tells whether the app secret was corrected.
                        self.apps.forget(&entry.app);
                    }
                }
            }
        }
        match revert {
            Some((kept, regarding, note)) => {
                self.abandon_check(id);
                self.write_back(kept, regarding, &note);
            }
            None => self.evaluate(id),
        }
    }

    /// Something wrote spent tokens over the newest pair, which is still kept: written back, once.
    pub(super) fn write_back(&mut self, kept: journal::Kept, regarding: Regarding, by_whom: &str) {
        tracing::warn!(namespace = %regarding.namespace, name = %regarding.name, "spent tokens were put back: the newest pair is written again");
        let note = format!("{by_whom}; the newest pair is written back, once");
        self.events.publish(Event::now(regarding, EventKind::TokenSecretReverted, note));
        self.store(Work::WriteBack(Box::new(kept.answer)));
    }

    pub(super) fn on_app_secret(&mut self, app: &AppRef, result: Result<AppRead, ApiError>) {
        let away = matches!(&result, Err(error) if error.is_server_away());
        let waiting = self.apps.take_in(app, result.map(|read| (read.version, read.credentials)));
        if away {
            self.suspect_absence(None);
            self.metrics.reconcile_failed("api-server-away");
            let mut agenda = self.agenda.lock();
            for id in waiting {
                agenda.wake(id, Clock::now().timestamp() + SERVER_AWAY_PAUSE);
            }
            return;
        }
        for id in waiting {
            self.evaluate(id);
        }
    }
}

/// What was known of the newest pair before a read.
struct Newest {
    /// Digest of the refresh token that this process last spent.
    last_spent: Option<Digest>,
    /// Digest of the authorization code that it last spent.
    last_code: Option<Digest>,
    pair: Option<Digest>,
    refresh: Option<Digest>,
    refreshed_at: Option<i64>,
}

/// Does a token stand in the Secret that was spent for this pair, or before it? Or no token at all, but such a code?
fn is_spent_for(kept: &journal::Kept, secret: &Secret, keys: &TokenKeyNames) -> bool {
    let digests = DigestKey::new(&kept.answer.intent.integration_uid);
    let tokens = ParsedTokens::parse(&secret.data, keys);
    let alone = tokens.access.is_none() && tokens.refresh.is_none();
    let credential = tokens.refresh.or(tokens.code.filter(|_| alone)).map(|credential| digests.token(&credential));
    let newest = kept.answer.refresh_token.as_ref().map(|refresh| digests.token(refresh));
    let intent = &kept.answer.intent;
    credential != newest
        && credential.is_some_and(|credential| credential == intent.from || intent.spent_before.contains(credential))
}

/// Is a pair that the journal keeps the newest, as far as is known? Another instance may have spent it since: then it is
/// not for this one to mend.
fn is_newest(answer: &journal::Answer, notes: &observe::Notes, newest: &Newest) -> bool {
    let digests = DigestKey::new(&answer.intent.integration_uid);
    let pair = digests.pair(Some(&answer.access_token), answer.refresh_token.as_ref());
    let is_spent = answer.refresh_token.as_ref().map(|refresh| digests.token(refresh)).is_some_and(|refresh| {
        newest.last_spent == Some(refresh) || notes.refreshed_from == Some(refresh) || notes.spent.contains(refresh)
    });
    let is_older = |noted| noted != pair && noted != answer.intent.access_from;
    !is_spent && !notes.tokens_digest.or(newest.pair).is_some_and(is_older)
}

fn fingerprint_of(problems: &[String]) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    if problems.is_empty() {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    problems.hash(&mut hasher);
    hasher.finish()
}

async fn read_tokens(
    shared: &Shared,
    secret: &Secret,
    namespace: &str,
    name: &str,
    uid: &str,
    keys: &TokenKeyNames,
    newest: &Newest,
) -> TokenRead {
    let now = Clock::now().timestamp();
    let reading = observe::from_secret(secret, keys, uid, &shared.claims, now);
    let (mut known, mut problems) = (reading.known, reading.problems);
    let mut reverted = None;
    if let Known::Held(held) = &mut known
        && let Some(read) = &held.read
    {
        // An older pair of this operator's own, annotations and all: a backup or an exported file.
        // A time in the future is one of a clock that was wrong: it tells nothing.
        let refreshed_at = newest.refreshed_at.filter(|refreshed_at| *refreshed_at <= now);
        let is_older = held.facts.born_at.zip(refreshed_at).is_some_and(|(born_at, newest)| born_at < newest)
            && newest.pair.is_some_and(|pair| pair != held.facts.pair)
            && newest.refresh.is_none_or(|refresh| refresh != read.refresh);
        if newest.last_spent == Some(read.refresh) || is_older {
            held.facts.known_spent = true;
        }
    }
    let is_code_alone = matches!(&known, Known::Missing(lacking) if lacking.code.is_some());
    if let Some(journal) = shared.journal.as_ref().filter(|_| is_code_alone || known.held().is_some()) {
        let key = journal::Key { namespace: namespace.to_owned(), name: name.to_owned() };
        match journal.kept(key).await {
            Ok(kept) => {
                let kept = kept.filter(|kept| is_spent_for(kept, secret, keys));
                if let Some(kept) = &kept {
                    let from = kept.answer.intent.from;
                    match &mut known {
                        Known::Held(held) => held.facts.known_spent = true,
                        Known::Missing(lacking) => {
                            let code = lacking.code.as_mut().filter(|code| code.digest == from);
                            if let Some(code) = code {
                                code.facts.known_spent = true;
                            }
                        }
                        _ => {}
                    }
                }
                let notes = observe::Notes::read(&secret.annotations);
                reverted = kept.filter(|kept| is_newest(&kept.answer, &notes, newest));
            }
            Err(error) => tracing::warn!(namespace, name, %error, "failed to look up a kept pair in the journal"),
        }
    }
    if let Some(code) = known.code_mut() {
        code.facts.known_spent |= newest.last_code == Some(code.digest);
        if code.facts.known_spent {
            problems.push(format!(
                "the authorization code under {} was used or rejected before and is not presented again: put a new one there, or remove it",
                keys.auth_code
            ));
        }
    }
    TokenRead { known, problems, reverted }
}
