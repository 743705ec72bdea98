//! What an ended transaction means for its integration: status fields, events, one log line.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};

use super::UnderWay;
use super::agenda::{AppAtFailure, CodeFailed, Entry, ErrorOf, FailedWith, Known};
use super::refresh::{Finished, Holding};
use super::report::authorize_again;
use crate::api::timestamp::whole_seconds;
use crate::api::{LastError, Reason, Seller};
use crate::clock::Clock;
use crate::cluster::EventKind;
use crate::tiktok::{Failure, Spent};
use crate::tokens::Digest;
use crate::transaction::{CallFailure, Held as HeldWhy, Outcome};

/// Takes the outcome of a transaction into the entry, and gives the events that go with it.
///
/// `job` is what the work loop knew of it.
pub(super) fn take_in(entry: &mut Entry, finished: &Finished, job: Option<UnderWay>) -> Vec<(EventKind, String)> {
    let mut events: Vec<(EventKind, String)> =
        finished.problems.iter().map(|problem| (EventKind::InvalidValue, problem.clone())).collect();
    if matches!(finished.outcome, Outcome::ServerAway | Outcome::Stale) {
        entry.put_off = entry.put_off.saturating_add(1);
    } else {
        entry.put_off = 0;
    }
    entry.reported &= is_put_off(entry, finished.outcome);
    let same_secret = entry.token_secret.1 == finished.secret && entry.token_keys == finished.keys;
    match &finished.known {
        _ if !same_secret => entry.known = Known::Unread,
        // Whose other tokens are, and whether they are spent, a look of its own tells: it knows what the journal keeps.
        Some(known) if !is_about(known, finished) => entry.known = Known::Unread,
        Some(known) => entry.known = known.clone(),
        // What was known of it is not so any more.
        None if matches!(finished.outcome, Outcome::Stale | Outcome::Blocked(HeldWhy::NotFound | HeldWhy::Refused)) => {
            entry.known = Known::Unread;
        }
        None => {}
    }
    if finished.outcome != Outcome::ServerAway {
        entry.held_answer = None;
    }
    entry.last_spent = finished.spent_token.or(entry.last_spent);
    entry.last_code = finished.spent_code.or(entry.last_code);
    // The Secret's own note of it may have been dropped, or not been made.
    let last_code = entry.last_code;
    if let Some(code) = entry.known.code_mut() {
        code.facts.known_spent |= last_code == Some(code.digest);
    }
    let started = chrono::DateTime::from_timestamp(finished.started_at, 0);
    match finished.outcome {
        // The pair is the one of the last refresh: nothing was tried, and no request was answered.
        Outcome::Refreshed if finished.written_back => forget_unsettled(entry, job.as_ref()),
        Outcome::Refreshed => {
            succeeded(entry, finished);
            let answered = finished.answered_at.and_then(|at| chrono::DateTime::from_timestamp(at, 0));
            entry.status.last_attempt_time = answered.or(started);
            entry.status.last_refresh_time = answered.or(started);
            let expires = finished
                .access_expires_at
                .and_then(|at| chrono::DateTime::from_timestamp(at, 0))
                .map_or_else(|| "an unknown time".to_owned(), crate::api::timestamp::format);
            let done = if finished.exchange {
                "the authorization code was exchanged for tokens"
            } else {
                "the tokens were refreshed"
            };
            let note = format!("{done}; the access token expires at {expires}");
            events.push((EventKind::Refreshed, note));
        }
        Outcome::ServerAway | Outcome::Stale if is_put_off(entry, finished.outcome) => {}
        Outcome::CallFailed(_)
        | Outcome::Blocked(_)
        | Outcome::JournalFailed
        | Outcome::ServerAway
        | Outcome::Stale => {
            let reason = failure_reason(finished);
            let message = failure_message(entry, finished, reason);
            let now = Clock::now();
            let failure_shown = job.as_ref().is_some_and(|job| job.failure_shown);
            if failure_shown {
                // It is counted already.
                entry.status.consecutive_failures =
                    entry.status.consecutive_failures.map(|count| count.saturating_sub(1));
            }
            let error = match &finished.failure {
                Some(failure) => last_error(failure, message.clone(), now),
                None => LastError {
                    reason: reason.as_str().to_owned(),
                    message: message.clone(),
                    code: None,
                    request_id: None,
                    time: whole_seconds(now),
                },
            };
            failed(entry, error, finished.exchange);
            let began_with = job.and_then(|job| job.began_with);
            if finished.exchange {
                code_failed(entry, finished.from, reason, began_with, now);
            } else {
                entry.failed_with = began_with;
            }
            let answered =
                matches!(finished.outcome, Outcome::CallFailed(CallFailure::Answered | CallFailure::Rejected));
            if let Some(request) = finished.request.as_ref().filter(|_| answered) {
                entry.status.last_handled_refresh_request = Some(request.to_string());
            }
            if !failure_shown {
                events.push((finished.failure.as_ref().map_or(EventKind::RefreshFailed, event_of), message));
            }
        }
        Outcome::SupersededByPerson => {
            forget_unsettled(entry, job.as_ref());
            let note = if finished.exchange {
                "somebody put other tokens, or another authorization code, into the Secret while a code was exchanged: theirs stay"
            } else {
                "somebody replaced the tokens while a refresh was under way: theirs stay"
            };
            events.push((EventKind::TokensReplaced, note.to_owned()));
        }
        Outcome::SupersededBySibling | Outcome::Abandoned => forget_unsettled(entry, job.as_ref()),
    }
    events
}

/// What a success makes of an entry, but for its times.
fn succeeded(entry: &mut Entry, finished: &Finished) {
    entry.status.consecutive_failures = Some(0);
    entry.status.last_error = None;
    entry.error_of = ErrorOf::Tokens;
    entry.failed_with = None;
    if finished.exchange {
        entry.code_failed = None;
    }
    if let Some(checks) = &mut entry.checks {
        checks.refreshed();
    }
    if let Some(request) = &finished.request {
        entry.status.last_handled_refresh_request = Some(request.to_string());
    }
    if let Some(seller) = &finished.seller {
        entry.status.seller = Some(Seller {
            open_id: seller.open_id.clone(),
            name: seller.name.clone(),
            base_region: seller.base_region.clone(),
            user_type: seller.user_type,
        });
    }
}

/// Is what a transaction saw last about the tokens, or the code, that it was for?
fn is_about(known: &Known, finished: &Finished) -> bool {
    let refresh = if finished.exchange {
        known.code().map(|code| code.digest)
    } else {
        known.held().and_then(|held| held.read.as_ref()).map(|read| read.refresh)
    };
    match finished.outcome {
        Outcome::Refreshed => true,
        Outcome::SupersededByPerson | Outcome::SupersededBySibling => false,
        _ => refresh.is_none_or(|refresh| refresh == finished.from),
    }
}

/// Is a try that ended before the call, with nothing to say of the token, simply made again soon?
/// One lost to a moment's trouble is; with more in a row, somebody should know.
pub(super) fn is_put_off(entry: &Entry, outcome: Outcome) -> bool {
    match outcome {
        Outcome::ServerAway => entry.put_off < 2,
        Outcome::Stale => entry.put_off < 5,
        _ => false,
    }
}

/// A failed call, as status tells it.
pub(super) fn last_error(failure: &Failure, message: String, now: DateTime<Utc>) -> LastError {
    LastError {
        reason: reason_of(failure).as_str().to_owned(),
        message,
        code: failure.code,
        request_id: failure.request_id.clone(),
        time: whole_seconds(now),
    }
}

/// The kind of event that tells of a failed call.
pub(super) fn event_of(failure: &Failure) -> EventKind {
    if failure.spent == Spent::Unknown { EventKind::OutcomeUnknown } else { EventKind::RefreshFailed }
}

fn reason_of(failure: &Failure) -> Reason {
    failure.reason.as_str().parse().unwrap_or(Reason::ApiError)
}

/// Notes a failed try, of an exchange or a refresh.
pub(super) fn failed(entry: &mut Entry, error: LastError, exchange: bool) {
    entry.error_of = match std::mem::replace(&mut entry.error_of, ErrorOf::Tokens) {
        _ if !exchange => ErrorOf::Tokens,
        ErrorOf::Tokens => ErrorOf::Code { before: entry.status.last_error.take().map(Box::new) },
        of_code @ ErrorOf::Code { .. } => of_code,
    };
    entry.status.last_attempt_time = Some(error.time);
    entry.status.consecutive_failures = Some(entry.status.consecutive_failures.unwrap_or(0).saturating_add(1));
    entry.status.last_error = Some(error);
}

/// Notes what failed with a code: it counts for that code alone.
fn code_failed(entry: &mut Entry, code: Digest, reason: Reason, with: Option<FailedWith>, now: DateTime<Utc>) {
    let before = entry.code_failed.take().filter(|failed| failed.code == code).map_or(0, |failed| failed.failures);
    let (generation, app) = with.map_or((entry.generation, AppAtFailure::Any), |with| (with.generation, with.app));
    let failures = before.saturating_add(1);
    entry.code_failed = Some(CodeFailed { code, generation, app, reason, at: now.timestamp(), failures });
}

/// Takes in a failure that an earlier process noted on the token Secret and was stopped before it said so. An answer with
/// tokens needs no such word: with them, the Secret tells all.
pub(super) fn take_in_unsaid_failure(entry: &mut Entry, now: DateTime<Utc>) -> Option<(EventKind, String)> {
    take_in_unsaid_rejection(entry, now).or_else(|| take_in_unsaid_answer(entry, now))
}

/// The request that TikTok answered, where the status does not say so.
fn unsaid_request(entry: &Entry) -> Option<&str> {
    let handled = entry.known.held()?.handled.as_deref()?;
    let is_said = entry.status.last_handled_refresh_request.as_deref() == Some(handled);
    (entry.request.as_deref() == Some(handled) && !is_said).then_some(handled)
}

/// Takes in that TikTok refused the refresh token: without that it would be presented once more, due as it is.
fn take_in_unsaid_rejection(entry: &mut Entry, now: DateTime<Utc>) -> Option<(EventKind, String)> {
    let held = entry.known.held()?;
    let rejected = held.read.as_ref()?.rejected.as_deref()?;
    let reason = Reason::RefreshTokenRejected;
    let is_said = entry.status.last_attempt_time.is_some_and(|at| match at.timestamp().cmp(&rejected.at) {
        Ordering::Less => false,
        Ordering::Equal => entry.status.last_error.as_ref().and_then(LastError::known_reason) == Some(reason),
        Ordering::Greater => true,
    });
    // The note is of the last answer; one to a request is said where the request is.
    if is_said && unsaid_request(entry).is_none() {
        return None;
    }
    let code = rejected.code.map(|code| format!(" (code {code})")).unwrap_or_default();
    let why = format!("TikTok rejected the refresh token{code}, and the operator was stopped before it could say so");
    let message = authorize_again(entry, &why);
    let error = LastError {
        reason: reason.as_str().to_owned(),
        message: message.clone(),
        code: rejected.code,
        request_id: rejected.request_id.as_deref().map(Into::into),
        // What another clock calls the future is over, too.
        time: whole_seconds(DateTime::from_timestamp(rejected.at, 0).map_or(now, |at| at.min(now))),
    };
    let handled = held.handled.clone();
    let failed_with = FailedWith {
        pair: Some(held.facts.pair),
        generation: entry.generation,
        app: AppAtFailure::Any,
        request: handled.clone(),
        is_past: false,
    };
    if let Some(handled) = handled.filter(|handled| entry.request.as_deref() == Some(handled)) {
        entry.status.last_handled_refresh_request = Some(handled.into());
    }
    entry.reported = false;
    failed(entry, error, false);
    entry.failed_with = Some(failed_with);
    Some((EventKind::RefreshFailed, message))
}

/// Takes in that TikTok answered a request, with an error that nobody knows any more.
fn take_in_unsaid_answer(entry: &mut Entry, now: DateTime<Utc>) -> Option<(EventKind, String)> {
    let held = entry.known.held()?;
    let handled = unsaid_request(entry)?;
    let observed = entry.status.observed_token_secret.as_ref()?.tokens_digest.as_deref().and_then(Digest::parse);
    // Another pair is that of a success, or a person's, whose refresh failed: no pair was stored since then.
    let stored = held.facts.born_at.is_some()
        || held.read.as_ref().is_none_or(|read| {
            let known = entry.status.last_refresh_time.map(|at| at.timestamp());
            read.refreshed_at.is_some_and(|at| known.is_none_or(|known| known < at))
        });
    if observed != Some(held.facts.pair) && stored {
        return None;
    }
    let message = format!(
        "TikTok answered the refresh asked for by \"{handled}\", no new tokens were stored, and the operator was stopped before it could tell why: ask again"
    );
    entry.status.last_handled_refresh_request = Some(handled.to_owned());
    entry.reported = false;
    let (code, request_id, time) = (None, None, whole_seconds(now));
    failed(
        entry,
        LastError { reason: Reason::ApiError.as_str().to_owned(), message: message.clone(), code, request_id, time },
        false,
    );
    Some((EventKind::RefreshFailed, message))
}

/// What could not be stored or noted is settled in another way: that it could not is no news any more.
fn forget_unsettled(entry: &mut Entry, job: Option<&UnderWay>) {
    if job.is_some_and(|job| job.failure_shown)
        || entry.status.last_error.as_ref().and_then(LastError::known_reason) == Some(Reason::PersistFailed)
    {
        entry.status.last_error = None;
        entry.status.consecutive_failures = Some(0);
    }
}

pub(super) fn recovered(finished: &Finished, was_failing: bool) -> Option<(EventKind, String)> {
    (was_failing && finished.outcome == Outcome::Refreshed && !finished.written_back)
        .then(|| (EventKind::RefreshRecovered, "refreshing works again".to_owned()))
}

pub(super) fn failure_reason(finished: &Finished) -> Reason {
    match finished.outcome {
        Outcome::Blocked(HeldWhy::NotFound) => Reason::TokenSecretNotFound,
        Outcome::Blocked(_) if finished.detail.as_deref().is_some_and(speaks_of_immutable) => {
            Reason::TokenSecretImmutable
        }
        Outcome::Blocked(_) => Reason::TokenSecretForbidden,
        Outcome::JournalFailed | Outcome::ServerAway | Outcome::Stale => Reason::PersistFailed,
        _ => finished.failure.as_ref().map_or(Reason::ApiError, reason_of),
    }
}

pub(super) fn failure_message(entry: &Entry, finished: &Finished, reason: Reason) -> String {
    let detail = finished.detail.as_deref().unwrap_or_default();
    let secret = &entry.token_secret.1;
    match finished.outcome {
        Outcome::Blocked(_) => format!(
            "the new tokens could not be written to Secret {secret} ({reason}: {detail}), so TikTok was not called: allow the operator to patch it"
        ),
        Outcome::ServerAway | Outcome::Stale => {
            let what = if finished.exchange { "an exchange" } else { "a refresh" };
            format!("Secret {secret} could not be claimed for {what}, so TikTok was not called: {detail}")
        }
        Outcome::JournalFailed => format!("TikTok was not called, as its answer could not be kept safe: {detail}"),
        _ => finished.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
    }
}

/// Does the API server refuse a write since the Secret is immutable? It has no other sign for it than its words.
fn speaks_of_immutable(detail: &str) -> bool {
    detail.contains("immutable")
}

/// What keeps an answer from being stored: where the Secret itself does, that is the first thing to know.
pub(super) fn held_reason(holding: &Holding) -> Reason {
    match holding.why {
        HeldWhy::NotFound => Reason::TokenSecretNotFound,
        HeldWhy::Refused if speaks_of_immutable(&holding.detail) => Reason::TokenSecretImmutable,
        _ => Reason::PersistFailed,
    }
}

pub(super) fn held_message(holding: &Holding) -> String {
    let what = match holding.why {
        HeldWhy::ServerAway => "the API server is away; it is tried again without end",
        HeldWhy::WriteFails => {
            "the API server can be reached, but fails this write: see which admission webhook or storage error it names; it is tried again without end"
        }
        HeldWhy::NotFound => {
            "the Secret is gone: create it anew, empty or with what was spent, and it gets the new ones"
        }
        HeldWhy::Forbidden => "writing is forbidden: allow the operator's service account to patch Secrets",
        HeldWhy::Refused => {
            "the write is refused: if the Secret is immutable, delete it and create it anew; else see which admission plugin refuses it"
        }
        HeldWhy::Claimed => "another instance is at work on it: waiting for that to end",
    };
    let safe = if holding.journaled { "" } else { "; do not stop the operator: the answer is in its memory alone" };
    format!(
        "new tokens were received and can't be stored in Secret {}: {what}{safe} ({})",
        holding.secret, holding.detail
    )
}

/// The one log line of an outcome.
pub(super) fn log_outcome(finished: &Finished, error: Option<&LastError>, put_off: bool) {
    let (namespace, name) = (&*finished.namespace, &*finished.name);
    let because = finished.because.map_or("journal", crate::decide::Because::as_str);
    let took_ms = u64::try_from(finished.took.as_millis()).unwrap_or(u64::MAX);
    match finished.outcome {
        Outcome::Refreshed => {
            let done = match (finished.written_back, finished.exchange) {
                (true, _) => "written back",
                (false, true) => "exchanged",
                (false, false) => "refreshed",
            };
            tracing::info!(namespace, name, because, took_ms, expires_at = finished.access_expires_at, "{done}");
        }
        _ if put_off => {
            tracing::debug!(namespace, name, because, outcome = ?finished.outcome, detail = finished.detail, "put off");
        }
        Outcome::CallFailed(_)
        | Outcome::Blocked(_)
        | Outcome::JournalFailed
        | Outcome::ServerAway
        | Outcome::Stale => {
            let reason = failure_reason(finished);
            let message = error.map_or_else(
                || finished.failure.as_ref().map(ToString::to_string).unwrap_or_default(),
                |error| error.message.clone(),
            );
            let (code, request_id) =
                finished.failure.as_ref().map_or((None, None), |failure| (failure.code, failure.request_id.as_deref()));
            tracing::warn!(
                namespace,
                name,
                because,
                took_ms,
                reason = reason.as_str(),
                code,
                request_id,
                error = message,
                presented = finished.presented,
                exchange = finished.exchange,
                "failed to refresh"
            );
        }
        Outcome::SupersededByPerson | Outcome::SupersededBySibling | Outcome::Abandoned => {
            tracing::warn!(namespace, name, because, outcome = ?finished.outcome, "an answer was not stored");
        }
    }
}
