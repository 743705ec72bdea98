//! From what is known and decided to a status: pure. One write follows if the status differs, and
//! the events that go with it come from the same comparison.

use chrono::{DateTime, Utc};

use super::agenda::{AppAtFailure, Entry, ErrorOf, Known};
use super::rollout;
use crate::api::timestamp::{format, whole_seconds};
use crate::api::{
    Condition, ConditionStatus, ConditionType, LastError, ObservedTokenSecret, Reason, TikTokShopIntegrationStatus,
};
use crate::cluster::{EventKind, Version};
use crate::decide::{ClaimFacts, ClaimStanding, Decision, TokenFacts};

/// The refresh token's expiry is warned of from this long before, in seconds.
const EXPIRING_SOON: i64 = 14 * 24 * 3_600;

/// What else is known about an integration, beside its entry.
#[derive(Default)]
pub(super) struct Circumstances<'a> {
    /// What is wrong with the app Secret, in words.
    pub app_problem: Option<&'a str>,
    /// The older integration that names the same token Secret.
    pub owner: Option<&'a str>,
    /// The version of the app Secret, where it is known.
    pub app_version: Option<&'a Version>,
}

/// The status that an integration should have.
pub(super) fn report(
    entry: &Entry,
    decision: &Decision,
    circumstances: &Circumstances<'_>,
    now: DateTime<Utc>,
) -> TikTokShopIntegrationStatus {
    let mut status = (*entry.status).clone();
    let facts = entry.known.held().map(|held| &held.facts);
    catch_up(&mut status, entry, facts, circumstances.app_version);

    let (access, refresh) = match &entry.known {
        Known::Held(held) => (held.facts.access_expires_at, held.facts.refresh_expires_at),
        Known::Missing(lacking) if lacking.has_access => (lacking.access_expires_at, None),
        // Not read yet, or not to be read: what was known last still holds as far as anybody knows.
        Known::Unread => (
            status.access_token_expires_at.map(|at| at.timestamp()),
            status.refresh_token_expires_at.map(|at| at.timestamp()),
        ),
        _ => (None, None),
    };
    status.observed_generation = Some(entry.generation);
    if entry.checks.is_none() {
        (status.shops, status.last_shops_check_time) = (Vec::new(), None);
    }
    status.access_token_expires_at = access.and_then(at);
    status.refresh_token_expires_at = refresh.and_then(at);
    status.hours_until_expiry = access.map(|expires_at| hours_left(expires_at, now.timestamp()));
    status.next_refresh_time = match decision {
        Decision::Idle { until } | Decision::Wait { until, .. } => at(*until),
        Decision::Refresh { .. } => status.next_refresh_time.filter(|next| *next <= now).or(Some(whole_seconds(now))),
        Decision::Blocked { .. } => None,
    };
    let observed = entry.known.version().map(|(uid, version)| ObservedTokenSecret {
        uid: uid.to_owned(),
        resource_version: version.to_string(),
        // With none, the Secret is read at the next start: a code in it must not be slept over.
        tokens_digest: facts.filter(|_| entry.known.open_code().is_none()).map(|facts| facts.pair.to_string()),
    });
    if entry.known != Known::Unread {
        status.observed_token_secret = observed;
    }
    if let Some(handled) = entry.known.handled()
        && (entry.request.as_deref() == Some(handled) || status.last_handled_refresh_request.is_none())
    {
        status.last_handled_refresh_request = Some(handled.to_owned());
    }

    status.rollout_restart = rollout::standing(entry);
    // A refresh that went well is one, whatever else did not.
    let not_restarted = entry.rollout.as_ref().and_then(|rollout| rollout.problem());
    let refreshed = |message: String| match not_restarted {
        Some(problem) => format!("{message}; {problem}"),
        None => message,
    };

    let (reason, message) = ready_reason(entry, &status, circumstances, now.timestamp());
    let ready = match entry.refusal(now.timestamp()) {
        Some(_) => ConditionStatus::False,
        None => ready_status(&entry.known, status.access_token_expires_at, now.timestamp()),
    };
    let mut conditions =
        Conditions { old: &entry.status.conditions, generation: entry.generation, now, new: Vec::new() };
    conditions.set(ConditionType::Ready, ready, reason, message.clone());
    match &status.last_error {
        Some(error) => conditions.set(
            ConditionType::Refreshed,
            ConditionStatus::False,
            error.known_reason().unwrap_or(Reason::ApiError),
            refreshed(error.message.clone()),
        ),
        None => match status.last_refresh_time {
            Some(refreshed_at) => conditions.set(
                ConditionType::Refreshed,
                ConditionStatus::True,
                Reason::Refreshed,
                refreshed(format!("the tokens were refreshed at {}", format(refreshed_at))),
            ),
            None => conditions.set(
                ConditionType::Refreshed,
                ConditionStatus::Unknown,
                Reason::NotAttempted,
                "no refresh of these tokens was tried yet".to_owned(),
            ),
        },
    }
    // Beside tokens that live, a code that is refused is no standstill.
    let goes_on = reason == Reason::AuthorizationCodeRejected && lives(entry, now.timestamp());
    if reason.stalls() && !goes_on {
        conditions.set(ConditionType::Stalled, ConditionStatus::True, reason, message);
    }
    status.conditions = conditions.finish();
    status
}

/// Takes over what the token Secret tells and a status lost in a crash did not: everything about
/// when a token was last refreshed stands on the Secret, in the write that stored it.
fn catch_up(
    status: &mut TikTokShopIntegrationStatus,
    entry: &Entry,
    facts: Option<&TokenFacts>,
    app_version: Option<&Version>,
) {
    let pair = facts.map(|facts| facts.pair);
    if let Some(born_at) = facts.and_then(|facts| facts.born_at).and_then(at)
        && status.last_refresh_time.is_none_or(|known| known < born_at)
    {
        status.last_refresh_time = Some(born_at);
        if status.last_attempt_time.is_none_or(|known| known < born_at) {
            status.last_attempt_time = Some(born_at);
        }
        if status.last_error.as_ref().is_some_and(|error| error.time <= born_at) {
            clear_failures(status);
        }
    }
    // A failure speaks of the tokens that failed: with others in their place it says nothing any more.
    let others_now =
        entry.failed_with.as_ref().is_some_and(|failed| failed.pair.is_some() && pair.is_some() && failed.pair != pair);
    // Refused credentials likewise, once others stand there.
    let is_about_the_app =
        status.last_error.as_ref().and_then(LastError::known_reason) == Some(Reason::AppCredentialsRejected);
    let corrected = is_about_the_app
        && entry.failed_with.as_ref().is_some_and(
            |failed| matches!(&failed.app, AppAtFailure::At(version) if app_version.is_some_and(|now| now != version)),
        );
    if others_now || corrected {
        // The count stays: there was no success yet.
        status.last_error = None;
    }
    // So with that of a code that is not there any more: what the tokens themselves failed with is the last to know.
    if let ErrorOf::Code { before } = &entry.error_of
        && entry.known.is_read()
    {
        let code = entry.known.code();
        let stands = match &entry.code_failed {
            Some(failed) => code.is_some_and(|code| code.digest == failed.code),
            None => code.is_some_and(|code| code.facts.known_spent),
        };
        match before {
            _ if stands => {}
            Some(before) if !others_now => status.last_error = Some((**before).clone()),
            _ => clear_failures(status),
        }
    }
}

/// Does a refresh token stand there that lives, as far as is known?
fn lives(entry: &Entry, now: i64) -> bool {
    let rejected = entry.error_of_tokens().and_then(LastError::known_reason) == Some(Reason::RefreshTokenRejected);
    let alive = |facts: &TokenFacts| {
        let is_refused = rejected && entry.failed_with.as_ref().is_some_and(|failed| failed.pair == Some(facts.pair));
        !facts.known_spent && !is_refused && facts.refresh_expires_at.is_none_or(|expires_at| expires_at > now)
    };
    entry.known.held().is_some_and(|held| alive(&held.facts))
}

/// What a person runs to have the seller authorize the app again.
pub(super) fn authorize_command(namespace: &str, name: &str) -> String {
    format!("kubectl tiktokshop authorize {name} -n {namespace}")
}

fn clear_failures(status: &mut TikTokShopIntegrationStatus) {
    status.last_error = None;
    status.consecutive_failures = Some(0);
}

fn at(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}

/// Whole hours, rounded down; 0 once expired.
pub(super) fn hours_left(expires_at: i64, now: i64) -> u64 {
    u64::try_from(expires_at.saturating_sub(now) / 3_600).unwrap_or(0)
}

/// True exactly while the access token is present and unexpired; Unknown while its expiry is not known.
fn ready_status(known: &Known, last_known: Option<DateTime<Utc>>, now: i64) -> ConditionStatus {
    let by_expiry = |expires_at: Option<i64>| match expires_at {
        None => ConditionStatus::Unknown,
        Some(expires_at) if expires_at > now => ConditionStatus::True,
        Some(_) => ConditionStatus::False,
    };
    match known {
        Known::Unread => by_expiry(last_known.map(|at| at.timestamp())),
        Known::Forbidden(_) => ConditionStatus::Unknown,
        Known::Missing(lacking) if lacking.has_access => by_expiry(lacking.access_expires_at),
        Known::NotFound | Known::Missing(_) => ConditionStatus::False,
        Known::Held(held) => by_expiry(held.facts.access_expires_at),
    }
}

/// The one most important thing to know: the first that applies, in the contract's order.
fn ready_reason(
    entry: &Entry,
    status: &TikTokShopIntegrationStatus,
    circumstances: &Circumstances<'_>,
    now: i64,
) -> (Reason, String) {
    let facts = entry.known.held().map(|held| &held.facts);
    let secret = &entry.token_secret.1;
    let open_code = entry.known.open_code();
    let last_error = status.last_error.as_ref();
    let failed_for = |reason: Reason| last_error.filter(|error| error.known_reason() == Some(reason));
    let rejected = failed_for(Reason::AuthorizationCodeRejected)
        .map(|error| error.message.clone())
        .or_else(|| rejected_code_again(entry))
        .map(|message| (Reason::AuthorizationCodeRejected, message));
    if entry.suspended {
        return (Reason::Suspended, "spec.suspend is true: nothing is refreshed until it is false".to_owned());
    }
    if let Some(problem) = circumstances.app_problem {
        return (Reason::AppCredentialsNotFound, problem.to_owned());
    }
    if let Some(held) = held_for(entry, Reason::TokenSecretNotFound) {
        return held;
    }
    match &entry.known {
        Known::NotFound => {
            return (
                Reason::TokenSecretNotFound,
                format!("there is no Secret {secret}: create it with the tokens, or correct spec.tokenSecretRef.name"),
            );
        }
        // Tokens are to be had for the code: what hinders that is what to know.
        Known::Missing(_) if open_code.is_some() => {}
        Known::Missing(lacking) => {
            let used = lacking.code.as_ref().map(|_| (Reason::AuthorizationCodeRejected, used_code_message(entry)));
            return rejected
                .or(used)
                .unwrap_or_else(|| (Reason::TokensMissing, missing_message(secret, &lacking.what)));
        }
        _ => {}
    }
    if let Some(held) = held_for(entry, Reason::TokenSecretImmutable) {
        return held;
    }
    if facts.is_some_and(|facts| facts.immutable) || open_code.is_some_and(|code| code.facts.immutable) {
        return (
            Reason::TokenSecretImmutable,
            format!(
                "Secret {secret} is immutable, so new tokens can't be stored: delete it and create it anew without immutable: true"
            ),
        );
    }
    if let Some(owner) = circumstances.owner {
        return (
            Reason::TokenSecretInUse,
            format!(
                "Secret {secret} is used by the older integration {owner}: give each integration a Secret of its own"
            ),
        );
    }
    if let Known::Forbidden(why) = &entry.known {
        return (
            Reason::TokenSecretForbidden,
            format!(
                "Secret {secret} can't be read or written: {why}; allow the operator's service account get and patch of Secrets"
            ),
        );
    }
    if let Some(error) = failed_for(Reason::TokenSecretForbidden) {
        return (Reason::TokenSecretForbidden, error.message.clone());
    }
    // Of two that apply, that a code was refused is the newer one.
    if let Some(rejected) = rejected {
        return rejected;
    }
    reason_about_tokens(entry, status, now)
}

/// The same, where nothing of the Secrets themselves stands in the way.
fn reason_about_tokens(entry: &Entry, status: &TikTokShopIntegrationStatus, now: i64) -> (Reason, String) {
    let facts = entry.known.held().map(|held| &held.facts);
    let secret = &entry.token_secret.1;
    let last_error = status.last_error.as_ref();
    let failed_for = |reason: Reason| last_error.filter(|error| error.known_reason() == Some(reason));
    // With a code at hand that gives new ones, dead tokens are not what to know.
    let needed = facts.filter(|_| entry.known.open_code().is_none());
    if needed.is_some_and(|facts| facts.known_spent) {
        return (Reason::TokenSecretReverted, format!("{}, then put working tokens there", reverted_message(entry)));
    }
    if let Some(error) = failed_for(Reason::RefreshTokenRejected) {
        return (Reason::RefreshTokenRejected, error.message.clone());
    }
    if let Some(expires_at) = needed.and_then(|facts| facts.refresh_expires_at).filter(|expires_at| *expires_at <= now)
    {
        return (Reason::RefreshTokenExpired, expired_message(entry, expires_at));
    }
    for reason in [Reason::AppCredentialsRejected, Reason::IpNotAllowed] {
        if let Some(error) = failed_for(reason) {
            return (reason, error.message.clone());
        }
    }
    if let Some(held) = held_for(entry, Reason::PersistFailed) {
        return held;
    }
    if let Some(error) = failed_for(Reason::PersistFailed) {
        return (Reason::PersistFailed, error.message.clone());
    }
    let of_code = entry.known.open_code().and_then(|code| code.facts.claim).map(|claim| (claim, "authorization code"));
    let of_token = facts.and_then(|facts| facts.claim).map(|claim| (claim, "refresh token"));
    let unknown = |(claim, _): &(ClaimFacts, &str)| claim.standing == ClaimStanding::Unknown;
    if let Some((claim, what)) = of_code.into_iter().chain(of_token).find(unknown) {
        return (Reason::OutcomeUnknown, outcome_unknown_message(entry, what, claim.presented));
    }
    if let Some(expires_at) = facts.and_then(|facts| facts.access_expires_at).filter(|expires_at| *expires_at <= now) {
        let since = at(expires_at).map(format).unwrap_or_default();
        return (Reason::TokenExpired, format!("the access token expired at {since}"));
    }
    if let Some(message) = entry.refusal(now) {
        return (Reason::AccessTokenRejected, message);
    }
    if let Some(error) = last_error {
        return (Reason::RefreshFailing, error.message.clone());
    }
    if let Known::Missing(lacking) = &entry.known {
        let what = &lacking.what;
        let message =
            format!("in Secret {secret}, {what}; the authorization code that stands there is to be exchanged");
        return (Reason::TokensMissing, message);
    }
    if let Some(message) = entry.missing_scope() {
        return (Reason::MissingScope, message.to_owned());
    }
    let message = match facts.and_then(|facts| facts.access_expires_at).and_then(at) {
        Some(expires_at) => format!("the access token expires at {}", format(expires_at)),
        None if facts.is_some() => "the access token is there; when it expires is not known".to_owned(),
        None => "the Secret was not read yet".to_owned(),
    };
    (Reason::TokenValid, message)
}

/// Why an answer is held, where it is for this reason.
fn held_for(entry: &Entry, reason: Reason) -> Option<(Reason, String)> {
    let held = entry.held_answer.as_ref().filter(|held| held.reason == reason);
    held.map(|held| (reason, held.message.to_string()))
}

/// What is said of tokens that something else put back.
pub(super) fn reverted_message(entry: &Entry) -> String {
    let manager = entry
        .known
        .held()
        .and_then(|held| held.read.as_ref())
        .and_then(|read| read.manager.as_deref())
        .unwrap_or("something");
    format!("{manager} wrote spent tokens into Secret {}: have it leave the Secret's data alone", entry.token_secret.1)
}

fn missing_message(secret: &str, what: &str) -> String {
    format!("in Secret {secret}, {what}: put both tokens there, or correct spec.tokenSecretRef.keys")
}

/// What is said of a code that was refused, went with its Secret, and stands there again.
fn rejected_code_again(entry: &Entry) -> Option<String> {
    let failed = entry.code_failed.as_ref().filter(|failed| failed.reason == Reason::AuthorizationCodeRejected)?;
    let stands = entry.known.code().is_some_and(|code| code.digest == failed.code);
    (stands && entry.known.held().is_some() && matches!(entry.error_of, ErrorOf::Code { .. })).then(|| {
        let secret = &entry.token_secret.1;
        authorize_again(entry, &format!("the authorization code in Secret {secret} was used or rejected before"))
    })
}

fn used_code_message(entry: &Entry) -> String {
    let secret = &entry.token_secret.1;
    let why = format!("there are no tokens in Secret {secret}, and its authorization code was used or rejected before");
    authorize_again(entry, &why)
}

fn expired_message(entry: &Entry, expires_at: i64) -> String {
    let since = at(expires_at).map(format).unwrap_or_default();
    authorize_again(entry, &format!("the refresh token expired at {since}"))
}

/// Why only a new authorization helps, and how to have it.
pub(super) fn authorize_again(entry: &Entry, why: &str) -> String {
    let command = authorize_command(&entry.namespace, &entry.name);
    format!("{why}: have the seller authorize the app again: {command}")
}

fn outcome_unknown_message(entry: &Entry, what: &str, presented: u32) -> String {
    let (times, next) = match presented {
        0 | 1 => ("once".to_owned(), "it is tried once more"),
        _ => (format!("{presented} times"), "it is tried again, ever more slowly"),
    };
    format!(
        "the {what} was presented {times} and no answer tells whether it was spent: {next}; if TikTok then refuses it, the seller must authorize the app again: {}",
        authorize_command(&entry.namespace, &entry.name)
    )
}

struct Conditions<'a> {
    old: &'a [Condition],
    generation: i64,
    now: DateTime<Utc>,
    new: Vec<Condition>,
}

impl Conditions<'_> {
    fn set(&mut self, type_: ConditionType, status: ConditionStatus, reason: Reason, message: String) {
        let since = self
            .old
            .iter()
            .find(|condition| condition.is(type_))
            .filter(|condition| condition.status == status)
            .map_or(self.now, |condition| condition.last_transition_time);
        self.new.push(Condition::new(type_, status, reason, message, Some(self.generation), since));
    }

    /// The operator's conditions, and after them those that other programs added.
    fn finish(self) -> Vec<Condition> {
        let foreign = self.old.iter().filter(|condition| ConditionType::ALL.iter().all(|type_| !condition.is(*type_)));
        self.new.into_iter().chain(foreign.cloned()).collect()
    }
}

/// The events that go with the change from one status to the next.
pub(super) fn events_of_change(
    old: &TikTokShopIntegrationStatus,
    new: &TikTokShopIntegrationStatus,
) -> Vec<(EventKind, String)> {
    let ready = |status: &TikTokShopIntegrationStatus| status.condition(ConditionType::Ready).cloned();
    let (old, new) = (ready(old), ready(new));
    let Some(new) = new else { return Vec::new() };
    if old.is_some_and(|old| old.reason == new.reason) {
        return Vec::new();
    }
    let kind = match new.known_reason() {
        Some(Reason::RefreshTokenRejected | Reason::RefreshTokenExpired | Reason::AuthorizationCodeRejected) => {
            EventKind::ReauthorizationRequired
        }
        Some(Reason::TokenSecretInUse) => EventKind::TokenSecretInUse,
        Some(Reason::TokenSecretReverted) => EventKind::TokenSecretReverted,
        _ => return Vec::new(),
    };
    vec![(kind, new.said().to_owned())]
}

/// A warning that the refresh token itself expires soon, where it does.
pub(super) fn expiring_warning(entry: &Entry, facts: &TokenFacts, now: i64) -> Option<String> {
    let expires_at = facts.refresh_expires_at?;
    let left = expires_at - now;
    (left > 0 && left <= EXPIRING_SOON).then(|| {
        format!(
            "the refresh token expires at {}, in {} day(s): have the seller authorize the app again before that: {}",
            at(expires_at).map(format).unwrap_or_default(),
            left / 86_400,
            authorize_command(&entry.namespace, &entry.name)
        )
    })
}

/// What counts as a difference beside all else.
#[derive(Clone, Copy)]
pub(super) struct News {
    /// The hours, which have their own time to be written.
    pub hours: bool,
    /// The version of the token Secret. As a rule it does not: a label put on it costs a read and no write.
    pub secret_version: bool,
}

/// Does a status differ from another in what people and programs look at?
pub(super) fn differs(old: &TikTokShopIntegrationStatus, new: &TikTokShopIntegrationStatus, news: News) -> bool {
    // Named one by one, so that a new field is not forgotten here.
    let TikTokShopIntegrationStatus {
        observed_generation,
        conditions,
        access_token_expires_at,
        refresh_token_expires_at,
        hours_until_expiry,
        next_refresh_time,
        last_refresh_time,
        last_attempt_time,
        consecutive_failures,
        last_error,
        last_handled_refresh_request,
        observed_token_secret,
        seller,
        rollout_restart,
        shops,
        last_shops_check_time,
    } = old;
    *observed_generation != new.observed_generation
        || *conditions != new.conditions
        || *access_token_expires_at != new.access_token_expires_at
        || *refresh_token_expires_at != new.refresh_token_expires_at
        || (news.hours && *hours_until_expiry != new.hours_until_expiry)
        || *next_refresh_time != new.next_refresh_time
        || *last_refresh_time != new.last_refresh_time
        || *last_attempt_time != new.last_attempt_time
        || *consecutive_failures != new.consecutive_failures
        || *last_error != new.last_error
        || *last_handled_refresh_request != new.last_handled_refresh_request
        || but_for_version(observed_token_secret.as_ref()) != but_for_version(new.observed_token_secret.as_ref())
        || (news.secret_version && *observed_token_secret != new.observed_token_secret)
        || *seller != new.seller
        || *rollout_restart != new.rollout_restart
        || *shops != new.shops
        || *last_shops_check_time != new.last_shops_check_time
}

fn but_for_version(observed: Option<&ObservedTokenSecret>) -> Option<(&str, Option<&str>)> {
    observed.map(|observed| (&*observed.uid, observed.tokens_digest.as_deref()))
}
