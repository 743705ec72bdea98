//! The check of an integration's shops: proof that its access token works, and the ciphers that later calls need.
//!
//! A check spends nothing and can always be made again, so that it gives way to everything else: it waits behind all
//! refreshes for its slot and its permit, gives its slot up where a refresh needs it, and is dropped where a refresh of
//! the same integration begins.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::agenda::{Agenda, Busy, Entry, Id, Known};
use super::apps::AppCheck;
use super::refresh::Shared;
use super::report::authorize_command;
use super::{Controller, Message, observe_entry};
use crate::api::names::{REFRESH_ATTEMPT, SHOP_CIPHERS_KEY};
use crate::api::timestamp::whole_seconds;
use crate::api::{CheckedShop, ConditionStatus, ConditionType, Reason, TikTokShopIntegrationStatus};
use crate::clock::Clock;
use crate::cluster::{ApiError, Event, EventKind, Secret, Version};
use crate::decide::{Decision, TokenFacts, Waiting, decide};
use crate::tiktok::{Shop, ShopsFailure, ShopsFailureKind};
use crate::tokens::{AppCredentials, Digest, DigestKey, ParsedTokens, TokenKeyNames};

/// Priorities from here on are those of checks: behind every refresh, whenever its token expires.
pub(super) const CHECKS_FROM: i64 = i64::MAX / 2;

/// From one check of a pair to the next, in seconds: a day, at most an hour less, so that a fleet is spread.
const CHECK_EVERY: i64 = 24 * 3_600;
const SPREAD: i64 = 3_600;

/// First and longest pause after a check that came to nothing, in seconds; it doubles.
const FIRST_PAUSE: i64 = 10;
const LONGEST_PAUSE: i64 = 3_600;

/// Pause where the tokens changed under a check, in seconds.
const CHANGED_PAUSE: i64 = 5;

/// How often the ciphers are written where others write the Secret at the same time.
const TRIES: usize = 3;

/// Shops in a status at most.
const MOST_SHOPS: usize = 100;

/// What is known of the checks of one integration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checks {
    /// The pair that was accepted last, at `status.lastShopsCheckTime`.
    checked: Option<Digest>,
    /// No check before then, in Unix seconds.
    not_before: i64,
    /// Checks in a row that came to nothing.
    failures: u32,
    refused: Option<Refused>,
    /// What is said of a missing scope, where the last check met one.
    missing_scope: Option<Box<str>>,
}

/// TikTok refused an access token that has not expired, and has accepted none since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Refused {
    /// The pair that was refused last.
    pair: Digest,
    /// When the first one was, in Unix seconds: a pair of this operator's own that is younger is the one refresh.
    at: i64,
    /// Was a pair refused that a refresh had given after that?
    settled: bool,
    message: Box<str>,
}

impl Checks {
    /// What a status tells of earlier checks.
    pub(super) fn from_status(status: &TikTokShopIntegrationStatus) -> Self {
        let observed = status.observed_token_secret.as_ref();
        let pair = observed.and_then(|observed| observed.tokens_digest.as_deref()).and_then(Digest::parse);
        let ready = status.condition(ConditionType::Ready);
        let refused = ready.zip(pair).and_then(|(ready, pair)| {
            // Another reason may be the first to know: but False before the expiry means this.
            let since = ready.last_transition_time;
            let unexpired = status.access_token_expires_at.is_some_and(|expires_at| expires_at > since);
            let is_said = ready.known_reason() == Some(Reason::AccessTokenRejected);
            (is_said || (ready.status == ConditionStatus::False && unexpired)).then(|| Refused {
                pair,
                at: since.timestamp(),
                settled: false,
                message: "TikTok refused the access token".into(),
            })
        });
        let missing_scope = ready.filter(|ready| ready.known_reason() == Some(Reason::MissingScope));
        let checked_at = status.last_shops_check_time;
        let is_newest = checked_at.is_some_and(|at| status.last_refresh_time.is_none_or(|refreshed| refreshed <= at));
        Self {
            checked: pair.filter(|_| is_newest && refused.is_none()),
            refused,
            missing_scope: missing_scope.map(|ready| ready.said().into()),
            ..Self::default()
        }
    }

    /// New tokens are there: they are checked without delay.
    pub(super) fn refreshed(&mut self) {
        (self.not_before, self.failures) = (i64::MIN, 0);
    }

    fn came_to_nothing(&mut self, now: i64, at_least: i64) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(12)).min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.saturating_add(pause.max(at_least));
    }

    fn accepted(&mut self, pair: Digest) {
        *self = Self { checked: Some(pair), ..Self::default() };
    }

    fn refused(&mut self, facts: &TokenFacts, message: &str, now: i64) {
        let settled = self
            .refused
            .as_ref()
            .is_some_and(|before| facts.born_at.is_some() && (before.settled || before.pair != facts.pair));
        let at = self.refused.as_ref().map_or_else(
            // A token that is refused in the second of its birth gets its one refresh, too.
            || facts.born_at.map_or(now, |born_at| now.max(born_at.saturating_add(1))),
            |before| before.at,
        );
        self.refused = Some(Refused { pair: facts.pair, at, settled, message: message.into() });
        self.checked = None;
        self.missing_scope = None;
    }
}

impl Entry {
    /// Does TikTok refuse its access token, so that one refresh is to be made for that?
    pub(super) fn wants_refresh_for_refusal(&self, now: i64) -> bool {
        let refused = self.checks.as_ref().and_then(|checks| checks.refused.as_ref());
        refused.zip(self.known.held()).is_some_and(|(refused, held)| {
            // What was refused in the future was refused by a clock that was wrong: no refresh for that.
            let is_plausible = refused.at <= now.saturating_add(1);
            let is_older = held.facts.born_at.is_none_or(|born_at| born_at < refused.at);
            held.facts.pair == refused.pair && !refused.settled && is_plausible && is_older
        })
    }

    /// What is said of an access token that TikTok refuses.
    pub(super) fn refusal(&self, now: i64) -> Option<String> {
        let refused = self.checks.as_ref()?.refused.as_ref()?;
        let held = self.known.held()?;
        let message = &refused.message;
        Some(if held.facts.pair != refused.pair {
            format!("{message}; the one that stands there now is yet to be checked")
        } else if self.wants_refresh_for_refusal(now) {
            format!("{message}; it is refreshed, once")
        } else {
            format!(
                "{message}, although it was refreshed for that: see in Partner Center whether the app and the shop are active; else have the seller authorize the app again: {}",
                authorize_command(&self.namespace, &self.name)
            )
        })
    }

    /// What is said of a missing scope.
    pub(super) fn missing_scope(&self) -> Option<&str> {
        self.checks.as_ref()?.missing_scope.as_deref().filter(|_| self.known.held().is_some())
    }

    /// When its shops are to be checked next, in Unix seconds; may be long past.
    pub(super) fn check_due_at(&self, now: i64) -> Option<i64> {
        let (checks, held) = (self.checks.as_ref()?, self.known.held()?);
        let last = self.status.last_shops_check_time.map(|at| at.timestamp()).filter(|at| *at <= now);
        let spread = i64::try_from(self.seed() % SPREAD.unsigned_abs()).unwrap_or(0);
        let due = match last {
            Some(last) if checks.checked == Some(held.facts.pair) => last + CHECK_EVERY - spread,
            _ => i64::MIN,
        };
        Some(due.max(checks.not_before))
    }

    /// May its shops be checked now, as far as its tokens are concerned?
    fn may_check(&self, decision: &Decision, now: i64) -> bool {
        let rests = matches!(
            decision,
            Decision::Idle { .. }
                | Decision::Wait { because: Waiting::Backoff, .. }
                | Decision::Blocked { reason: Reason::RefreshTokenExpired, .. }
        );
        let Some(held) = self.known.held() else { return false };
        rests
            && !self.suspended
            && self.busy == Busy::No
            && self.known.open_code().is_none()
            && held.facts.claim.is_none()
            && !held.facts.known_spent
            && held.facts.access_expires_at.is_none_or(|expires_at| expires_at > now)
            && self.check_due_at(now).is_some_and(|at| at <= now)
    }

    /// Does no value of another kind stand under the ciphers' key? The schema sees to it, but not for an older spec.
    fn has_ciphers_apart(&self) -> bool {
        let keys = &self.token_keys;
        let of_tokens = [
            &keys.access_token,
            &keys.access_token_expire_in,
            &keys.refresh_token,
            &keys.refresh_token_expire_in,
            &keys.auth_code,
        ];
        let of_app = [&self.app.keys.app_key, &self.app.keys.app_secret];
        let of_app = of_app.into_iter().filter(|_| self.app.secret == self.token_secret);
        of_tokens.into_iter().chain(of_app).all(|key| **key != *SHOP_CIPHERS_KEY)
    }
}

/// A check that is under way.
pub(super) struct Check {
    task: AbortHandle,
    /// Tells it from one before.
    nonce: u64,
    app_key: Box<str>,
    /// The ciphers are being written: what the watch tells of that is no news.
    pub writing: bool,
}

/// What a check tells the work loop.
pub(super) struct Told {
    id: Id,
    nonce: u64,
    what: What,
}

enum What {
    /// The ciphers are written from now on.
    Writing,
    /// It is over.
    Over(Verdict),
}

/// What a check came to.
enum Verdict {
    /// The token works.
    Accepted {
        pair: Digest,
        shops: Vec<CheckedShop>,
        /// The version that the write of the ciphers was made on and the one it made, where one was needed; or why they
        /// could not be written.
        stored: Result<Option<(Version, Version)>, String>,
    },
    /// The API told something else.
    Failed { pair: Digest, failure: ShopsFailure },
    /// The Secret can't be read.
    Unreadable(ApiError),
    /// Other tokens stand there, or somebody is at work on them.
    Changed,
}

/// What a check starts from.
struct Job {
    id: Id,
    nonce: u64,
    uid: Box<str>,
    namespace: Arc<str>,
    secret: Arc<str>,
    keys: Arc<TokenKeyNames>,
    has_ciphers_apart: bool,
    credentials: Arc<AppCredentials>,
}

impl Controller {
    /// Puts a check in line where one is due. True where the app's credentials have to be read first.
    pub(super) fn queue_check(
        &mut self,
        agenda: &Agenda,
        id: Id,
        decision: &Decision,
        check: &AppCheck,
        now: i64,
    ) -> bool {
        let Some(entry) = agenda.get(id).filter(|entry| entry.may_check(decision, now)) else { return false };
        if self.checks.contains_key(&id) {
            return false;
        }
        match check {
            AppCheck::Valid(credentials) => {
                let since = entry.check_due_at(now).unwrap_or(now).clamp(0, now.max(0));
                self.dispatch.push(&credentials.app_key, CHECKS_FROM + since, id);
                false
            }
            AppCheck::Unchecked => true,
            AppCheck::Missing { .. } => false,
        }
    }

    /// A slot and a permit are there: decides once more and starts.
    pub(super) fn start_check(&mut self, id: Id) {
        let now = Clock::now().timestamp();
        let shared_agenda = Arc::clone(&self.agenda);
        let agenda = shared_agenda.lock();
        let Some(entry) = agenda.get(id).filter(|entry| entry.checks.is_some()) else { return };
        let (check, _) = self.check_app(&agenda, id);
        let AppCheck::Valid(credentials) = &check else {
            drop(agenda);
            return self.evaluate(id);
        };
        let observed = observe_entry(&agenda, id, &entry, &check, self.app_version(&agenda, &entry).as_ref());
        let decision = decide(&observed, &self.policy, now);
        let is_at_work = self.under_way.contains_key(&(Arc::clone(&entry.namespace), entry.name.clone()));
        if is_at_work || self.checks.contains_key(&id) || !entry.may_check(&decision, now) {
            return;
        }
        self.last_check += 1;
        let job = Job {
            id,
            nonce: self.last_check,
            uid: entry.uid.clone(),
            namespace: Arc::clone(&entry.namespace),
            secret: Arc::clone(&entry.token_secret.1),
            keys: Arc::clone(&entry.token_keys),
            has_ciphers_apart: entry.has_ciphers_apart(),
            credentials: Arc::clone(credentials),
        };
        let (nonce, app_key) = (job.nonce, credentials.app_key.as_str().into());
        let task = tokio::spawn(run(Arc::clone(&self.shared), job, self.tell.clone())).abort_handle();
        self.checks.insert(id, Check { task, nonce, app_key, writing: false });
    }

    /// Drops a check that is under way; it is made again later.
    pub(super) fn abandon_check(&mut self, id: Id) {
        if let Some(check) = self.checks.remove(&id) {
            check.task.abort();
        }
    }

    /// Drops all checks.
    pub(super) fn abandon_checks(&mut self) {
        for (_, check) in self.checks.drain() {
            check.task.abort();
        }
    }

    /// Gives up a check for a refresh that needs its slot. False where none can be.
    pub(super) fn give_way(&mut self) -> bool {
        let Some(id) = self.checks.iter().find(|(_, check)| !check.writing).map(|(id, _)| *id) else { return false };
        self.abandon_check(id);
        self.agenda.lock().wake(id, Clock::now().timestamp() + 1);
        true
    }

    pub(super) fn on_shops(&mut self, told: Told) {
        let Told { id, nonce, what } = told;
        let Some(check) = self.checks.get_mut(&id).filter(|check| check.nonce == nonce) else { return };
        let verdict = match what {
            What::Writing => return check.writing = true,
            What::Over(verdict) => verdict,
        };
        let check = self.checks.remove(&id);
        if let Verdict::Failed { failure, .. } = &verdict
            && failure.kind == ShopsFailureKind::RateLimited
            && let Some(check) = check
        {
            self.dispatch.pause(&check.app_key, failure.retry_after, Instant::now(), Clock::now());
        }
        let event = match self.agenda.lock().get_mut(id) {
            Some(entry) => take_in(entry, verdict, Clock::now()),
            None => return,
        };
        if let Some(event) = event {
            self.events.publish(event);
        }
        self.evaluate(id);
    }
}

/// Takes a verdict into the entry, and gives the event that goes with it.
fn take_in(entry: &mut Entry, verdict: Verdict, now: DateTime<Utc>) -> Option<Event> {
    let seconds_now = now.timestamp();
    let facts = entry.known.held().map(|held| held.facts.clone());
    let regarding = entry.regarding();
    let (namespace, name) = (Arc::clone(&entry.namespace), entry.name.clone());
    let checks = entry.checks.as_mut()?;
    let is_about = |pair: Digest| facts.as_ref().is_some_and(|facts| facts.pair == pair);
    let changed = |checks: &mut Checks, known: &mut Known| {
        checks.not_before = seconds_now + CHANGED_PAUSE;
        // In case that no watch tells.
        *known = Known::Unread;
    };
    match verdict {
        Verdict::Accepted { pair, shops, stored } => {
            if let Ok(Some((before, after))) = &stored
                && let Some(version) = entry.known.version_mut().filter(|version| *version == before)
            {
                *version = after.clone();
                // With it, a restart finds the Secret as the status says, and reads nothing.
                if let Some(observed) = &mut entry.status.observed_token_secret {
                    observed.resource_version = after.to_string();
                }
            }
            if !is_about(pair) {
                changed(checks, &mut entry.known);
                return None;
            }
            let shop_count = shops.len();
            entry.status.shops = shops;
            entry.status.last_shops_check_time = Some(whole_seconds(now));
            entry.reported = false;
            let failures = checks.failures;
            checks.accepted(pair);
            match stored {
                Ok(_) => tracing::info!(%namespace, %name, shops = shop_count, "the access token works"),
                Err(error) => {
                    tracing::warn!(%namespace, %name, error, "failed to write the shops' ciphers: it is tried again");
                    (checks.checked, checks.failures) = (None, failures);
                    checks.came_to_nothing(seconds_now, 0);
                }
            }
            None
        }
        Verdict::Failed { pair, failure } => {
            let facts = facts.as_ref().filter(|facts| facts.pair == pair);
            let Some(facts) = facts else {
                changed(checks, &mut entry.known);
                return None;
            };
            let (kind, message) = (failure.kind, failure.message.as_str());
            tracing::warn!(
                %namespace, %name, code = failure.code, request_id = failure.request_id.as_deref(), error = message,
                "the check of the shops failed"
            );
            let event = match kind {
                ShopsFailureKind::Refused => {
                    let was_said = checks.refused.as_ref().is_some_and(|refused| refused.pair == pair);
                    checks.refused(facts, message, seconds_now);
                    checks.came_to_nothing(seconds_now, 0);
                    entry.reported = false;
                    let note = entry.refusal(seconds_now).unwrap_or_default();
                    (!was_said).then_some((EventKind::AccessTokenRejected, note))
                }
                ShopsFailureKind::MissingScope => {
                    let was_said = checks.missing_scope.is_some();
                    checks.accepted(pair);
                    checks.missing_scope = Some(message.into());
                    entry.status.last_shops_check_time = Some(whole_seconds(now));
                    entry.reported = false;
                    (!was_said).then(|| (EventKind::MissingScope, message.to_owned()))
                }
                ShopsFailureKind::RateLimited | ShopsFailureKind::Other => {
                    let wait = failure.retry_after.map_or(0, super::seconds);
                    checks.came_to_nothing(seconds_now, wait);
                    None
                }
            };
            event.map(|(kind, note)| Event::now(regarding, kind, note))
        }
        Verdict::Unreadable(error) => {
            tracing::debug!(%namespace, %name, %error, "the token Secret can't be read for a check of the shops");
            checks.came_to_nothing(seconds_now, 0);
            None
        }
        Verdict::Changed => {
            changed(checks, &mut entry.known);
            None
        }
    }
}

async fn run(shared: Arc<Shared>, job: Job, tell: mpsc::UnboundedSender<Message>) {
    let say = |what| drop(tell.send(Message::Shops(Told { id: job.id, nonce: job.nonce, what })));
    let verdict = check(&shared, &job, || say(What::Writing)).await;
    say(What::Over(verdict));
}

async fn check(shared: &Shared, job: &Job, writing: impl Fn()) -> Verdict {
    let secret = match shared.cluster.read_secret(&job.namespace, &job.secret).await {
        Ok(secret) => secret,
        Err(error) => return Verdict::Unreadable(error),
    };
    let Some((pair, tokens)) = at_rest(&secret, job) else { return Verdict::Changed };
    let Some(access) = &tokens.access else { return Verdict::Changed };
    let AppCredentials { app_key, app_secret } = &*job.credentials;
    let deadline = Instant::now() + shared.request_timeout;
    let result = shared.shops.shops(app_key, app_secret, access, deadline, Clock::now()).await;
    let shops = match result {
        Ok(shops) => shops,
        Err(failure) => return Verdict::Failed { pair, failure },
    };
    drop(tokens);
    let ciphers = ciphers_of(&shops);
    writing();
    let Some(stored) = store(shared, job, secret, pair, &ciphers).await else { return Verdict::Changed };
    Verdict::Accepted { pair, shops: shown(shops), stored }
}

/// The tokens in a Secret and the digest of the pair, where no claim of anybody stands on it.
fn at_rest(secret: &Secret, job: &Job) -> Option<(Digest, ParsedTokens)> {
    if secret.annotations.contains_key(REFRESH_ATTEMPT) {
        return None;
    }
    let tokens = ParsedTokens::parse(&secret.data, &job.keys);
    let (access, refresh) = tokens.access.as_ref().zip(tokens.refresh.as_ref())?;
    Some((DigestKey::new(&job.uid).pair(Some(access), Some(refresh)), tokens))
}

type Stored = Result<Option<(Version, Version)>, String>;

/// Writes the ciphers where others stand there, as long as the pair is the one that was checked. `None` where it is not
/// any more.
async fn store(shared: &Shared, job: &Job, mut secret: Secret, pair: Digest, ciphers: &str) -> Option<Stored> {
    for _ in 0..TRIES {
        let stands = secret.data.get(SHOP_CIPHERS_KEY);
        if stands == Some(ciphers.as_bytes()) || (stands.is_none() && ciphers == "{}") {
            return Some(Ok(None));
        }
        if !job.has_ciphers_apart {
            return Some(Err(format!("another value is kept under {SHOP_CIPHERS_KEY}: give it another key")));
        }
        let written = shared.cluster.write_ciphers(&job.namespace, &job.secret, &secret.version, ciphers).await;
        match written {
            Ok(after) => return Some(Ok(Some((secret.version, after.version)))),
            Err(ApiError::Conflict) => {}
            // An admission plugin may quote what it was shown.
            Err(error) => {
                return Some(Err(match error {
                    ApiError::Refused(_) => "the API server refuses the write".to_owned(),
                    ApiError::Forbidden(_) => "writing is forbidden".to_owned(),
                    ApiError::NotFound => "the Secret is gone".to_owned(),
                    _ => "the API server is away".to_owned(),
                }));
            }
        }
        secret = match shared.cluster.read_secret(&job.namespace, &job.secret).await {
            Ok(secret) => secret,
            Err(_) => return None,
        };
        at_rest(&secret, job).filter(|(stands, _)| *stands == pair)?;
    }
    Some(Err("others keep writing the Secret".to_owned()))
}

/// A JSON object from shop id to cipher.
fn ciphers_of(shops: &[Shop]) -> Zeroizing<String> {
    let ciphers: BTreeMap<&str, &str> =
        shops.iter().filter_map(|shop| Some((shop.id.as_str(), shop.cipher.as_ref()?.expose()))).collect();
    let length: usize = ciphers.iter().map(|(id, cipher)| id.len() + cipher.len() + 2).sum();
    // Room for every byte escaped, so that the buffer never moves and leaves a copy behind.
    let mut text = Zeroizing::new(Vec::with_capacity(length * 6 + 16));
    serde_json::to_writer(&mut *text, &ciphers).expect("a map of texts has a JSON form, and memory takes all writes");
    Zeroizing::new(String::from_utf8(std::mem::take(&mut *text)).expect("serde_json writes UTF-8"))
}

/// The shops as a status shows them, each once.
fn shown(shops: Vec<Shop>) -> Vec<CheckedShop> {
    let mut seen = BTreeSet::new();
    let shops = shops.into_iter().filter(|shop| seen.insert(shop.id.clone()));
    let shown = shops.map(|Shop { id, name, region, code, seller_type, cipher: _ }| CheckedShop {
        id,
        name,
        region,
        code,
        seller_type,
    });
    shown.take(MOST_SHOPS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Condition, ObservedTokenSecret};

    const NOW: i64 = 1_720_000_000;

    fn facts(pair: u8, born_at: Option<i64>) -> TokenFacts {
        TokenFacts {
            pair: Digest::from_bytes([pair; 16]),
            access_expires_at: Some(NOW + 1_000_000),
            refresh_expires_at: None,
            born_at,
            immutable: false,
            known_spent: false,
            claim: None,
        }
    }

    fn time(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn status(ready: ConditionStatus, reason: Reason, expires_at: i64) -> TikTokShopIntegrationStatus {
        TikTokShopIntegrationStatus {
            conditions: vec![Condition::new(ConditionType::Ready, ready, reason, "said", None, time(NOW))],
            access_token_expires_at: Some(time(expires_at)),
            last_refresh_time: Some(time(NOW - 60)),
            last_shops_check_time: Some(time(NOW - 60)),
            observed_token_secret: Some(ObservedTokenSecret {
                uid: "u".to_owned(),
                resource_version: "1".to_owned(),
                tokens_digest: Some(Digest::from_bytes([1; 16]).to_string()),
            }),
            ..TikTokShopIntegrationStatus::default()
        }
    }

    #[test]
    fn a_pair_is_settled_once_a_refresh_of_our_own_gave_another_that_is_refused_too() {
        let mut checks = Checks::default();
        checks.refused(&facts(1, None), "no", NOW);
        checks.refused(&facts(1, None), "no", NOW + 10);
        let first = checks.refused.clone().unwrap();
        assert!(!first.settled, "the same one refused again is no news");
        checks.refused(&facts(2, Some(NOW + 20)), "no", NOW + 20);
        let second = checks.refused.clone().unwrap();
        assert!(second.settled && second.at == first.at);
        checks.refused(&facts(3, Some(NOW + 90)), "no", NOW + 90);
        assert!(checks.refused.clone().unwrap().settled, "however many refreshes follow for other reasons");
        checks.refused(&facts(4, None), "no", NOW + 99);
        assert!(!checks.refused.clone().unwrap().settled, "a person's tokens get a refresh of their own");
        checks.accepted(Digest::from_bytes([4; 16]));
        assert_eq!(checks.refused, None);
    }

    #[test]
    fn a_pair_refused_in_the_second_of_its_birth_is_older_than_its_refusal() {
        let mut checks = Checks::default();
        checks.refused(&facts(1, Some(NOW)), "no", NOW);
        assert_eq!(checks.refused.unwrap().at, NOW + 1);
    }

    #[test]
    fn pauses_grow_to_an_hour_and_honour_what_tiktok_asks_for() {
        let mut checks = Checks::default();
        let pauses: Vec<i64> = (0..12)
            .map(|_| {
                checks.came_to_nothing(NOW, 0);
                checks.not_before - NOW
            })
            .collect();
        assert_eq!(pauses[..4], [10, 20, 40, 80]);
        assert_eq!(pauses[11], 3_600);
        checks.came_to_nothing(NOW, 7_200);
        assert_eq!(checks.not_before, NOW + 7_200);
        checks.refreshed();
        checks.came_to_nothing(NOW, 0);
        assert_eq!(checks.not_before, NOW + 10);
    }

    #[test]
    fn a_status_tells_of_a_refusal_even_where_another_reason_goes_before_it() {
        let day = 86_400;
        let of = |ready, reason, expires_at| Checks::from_status(&status(ready, reason, expires_at));
        let refused = of(ConditionStatus::False, Reason::AccessTokenRejected, NOW + day);
        assert!(refused.refused.is_some() && refused.checked.is_none());
        let hidden = of(ConditionStatus::False, Reason::RefreshTokenRejected, NOW + day);
        assert_eq!(hidden.refused.map(|refused| refused.at), Some(NOW));
        let expired = of(ConditionStatus::False, Reason::TokenExpired, NOW - 1);
        assert!(expired.refused.is_none());
        let well = of(ConditionStatus::True, Reason::TokenValid, NOW + day);
        assert!(well.refused.is_none() && well.checked == Some(Digest::from_bytes([1; 16])));
        let lacking = of(ConditionStatus::True, Reason::MissingScope, NOW + day);
        assert_eq!(lacking.missing_scope.as_deref(), Some("said"));
        let refreshed_since = TikTokShopIntegrationStatus {
            last_refresh_time: Some(time(NOW)),
            ..status(ConditionStatus::True, Reason::TokenValid, NOW + day)
        };
        assert_eq!(Checks::from_status(&refreshed_since).checked, None, "after a refresh, it is checked");
    }

    #[test]
    fn a_shop_that_comes_twice_or_without_a_cipher_is_no_trouble() {
        let shop = |id: &str, cipher: Option<&str>| Shop {
            id: id.to_owned(),
            name: None,
            region: None,
            code: None,
            seller_type: None,
            cipher: cipher.and_then(|cipher| crate::tokens::SecretText::new(cipher.to_owned())),
        };
        let shops = vec![shop("2", Some("b\"")), shop("1", None), shop("2", Some("b\""))];
        assert_eq!(&*ciphers_of(&shops), r#"{"2":"b\""}"#);
        assert_eq!(&*ciphers_of(&[]), "{}");
        assert_eq!(shown(shops).iter().map(|shop| shop.id.as_str()).collect::<Vec<_>>(), ["2", "1"]);
    }
}
