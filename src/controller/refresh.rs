//! Drives one transaction, of a refresh or an exchange: does what [`crate::transaction::next`] says, and tells it what
//! happened. Nothing is decided here. It is the only code that spends at TikTok and the only code that
//! writes tokens into Secrets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::agenda::Known;
use super::claims::Claims;
use super::observe;
use super::report::authorize_command;
use crate::admin::Heartbeat;
use crate::api::names::REFRESH_ATTEMPT;
use crate::api::timestamp;
use crate::clock::Clock;
use crate::cluster::{ApiError, ClaimChange, ClaimWrite, Cluster, Secret, TokenWrite, Version, stand_ins};
use crate::decide::Because;
use crate::journal::{self, Journal};
use crate::metrics::Metrics;
use crate::tiktok::{Failure, FailureReason, Scrubber, Seller, ShopsClient, Spent, TokenClient};
use crate::tokens::{
    AppCredentials, Digest, DigestKey, ParsedTokens, SecretText, SpentTokens, TokenKeyNames, TokenValues,
};
use crate::transaction::{
    self, Answer, ApiFailure, Attempt, Beside, CLAIM_LIMIT, CallFailure, Claim, ClaimOutcome, Command, Event, MARGIN,
    Outcome, Rejection, Release, Standing, State, View, Waiting, next,
};

/// First and longest pause between two tries to store what must be stored.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// Said where a write was taken and does not show the tokens that were sent.
const TOKENS_CHANGED: &str = "an admission plugin puts other tokens in the place of the ones written";

/// An answer with nowhere left to go, integration and Secret both gone, is dropped after this long.
const ABANDONED_AFTER: Duration = Duration::from_hours(24);

/// What all transactions of this process share.
pub(super) struct Shared {
    pub cluster: Cluster,
    /// For refreshes.
    pub tiktok: TokenClient,
    /// For exchanges.
    pub authorization: TokenClient,
    /// For the checks of shops.
    pub shops: ShopsClient,
    pub request_timeout: Duration,
    pub journal: Option<Journal>,
    pub claims: Claims,
    pub metrics: Arc<Metrics>,
    /// Counts the answers of TikTok that stand in no Secret and in no journal: in this process's memory alone.
    pub heartbeat: Heartbeat,
    /// Nothing new is to be started: this process stops, or leads no more.
    pub start_nothing: AtomicBool,
    /// Answers that wait on an API server that is away: while there are any, no call starts.
    pub waiting_on_server: AtomicUsize,
    pub updates: mpsc::UnboundedSender<Update>,
}

/// What a transaction tells the work loop.
pub(super) enum Update {
    /// An answer is held: its slot is free for others, and this is why.
    Held(Holding),
    /// It waits for the API server to settle its claim: its slot is free for others.
    Settling(Box<Settling>),
    /// It is over.
    Finished(Box<Finished>),
}

/// An answer that could not yet be stored.
pub(super) struct Holding {
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub secret: Arc<str>,
    pub why: transaction::Held,
    /// In the API server's words, scrubbed.
    pub detail: String,
    /// Is it in the journal?
    pub journaled: bool,
}

/// A transaction whose claim could not yet be settled.
pub(super) struct Settling {
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    pub secret: Arc<str>,
    /// Why the call failed, where it was made.
    pub failure: Option<Failure>,
    /// Was it the exchange of an authorization code?
    pub exchange: bool,
    /// Is it the API server's absence that hinders it?
    pub is_server_away: bool,
    /// What hinders it, in the API server's words, scrubbed.
    pub detail: String,
}

/// Which tokens of which integration to refresh.
pub(super) struct Job {
    pub uid: Box<str>,
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub team: Option<Box<str>>,
    pub secret: Arc<str>,
    pub keys: Arc<TokenKeyNames>,
    pub work: Work,
    /// Set when the integration is deleted meanwhile.
    pub integration_gone: Arc<AtomicBool>,
    /// Something happened to the Secret: a held answer is tried at once.
    pub nudge: Arc<Notify>,
}

/// What a transaction is for.
pub(super) enum Work {
    /// Spend the refresh token, or the authorization code, for new tokens.
    Spend(Box<Spend>),
    /// Store an answer from the journal.
    Store(Box<journal::Answer>),
    /// Write a kept pair back, over a spent one.
    WriteBack(Box<journal::Answer>),
}

/// What a refresh or an exchange starts from.
pub(super) struct Spend {
    pub credentials: Arc<AppCredentials>,
    pub version: Version,
    pub what: What,
    pub request: Option<Box<str>>,
    /// How often it will have been presented.
    pub presented: u32,
    /// Was it presented before, with an unknown outcome?
    pub unknown_before: bool,
    /// The other credential in the Secret, where its outcome is unknown.
    pub other: Option<Beside>,
    pub because: Because,
}

/// What is spent.
pub(super) struct What {
    /// An authorization code? Else it is the refresh token.
    pub exchange: bool,
    /// Its digest.
    pub from: Digest,
    /// Digest of the pair in the Secret; of none, where a code stands there alone.
    pub pair: Digest,
    /// Of an exchange: digest of the refresh token beside the code, which goes with it.
    pub beside: Option<Digest>,
    /// What was spent before, as far as that is known.
    pub spent_before: SpentTokens,
    /// Lengths of the two tokens there, for the rehearsal.
    pub lengths: Option<(usize, usize)>,
}

/// Lengths of tokens, for the rehearsal, where none are there yet: no shorter than those that were seen.
const USUAL_LENGTHS: (usize, usize) = (512, 512);

/// How a transaction ended.
pub(super) struct Finished {
    pub namespace: Arc<str>,
    pub name: Box<str>,
    pub uid: Box<str>,
    /// The Secret worked on, and its keys: an integration may name others by now.
    pub secret: Arc<str>,
    pub keys: Arc<TokenKeyNames>,
    pub outcome: Outcome,
    /// What is known of the Secret now; `None` where nothing new is known.
    pub known: Option<Known>,
    /// Words for warning events about values in the Secret.
    pub problems: Vec<String>,
    /// Why the call failed, where it did.
    pub failure: Option<Failure>,
    /// Why the API server refused, in its words, scrubbed.
    pub detail: Option<String>,
    pub seller: Option<Seller>,
    /// Was it the exchange of an authorization code?
    pub exchange: bool,
    /// Digest of a refresh token that is spent now, or dead with its authorization.
    pub spent_token: Option<Digest>,
    /// Digest of an authorization code that is of no more use: exchanged, or refused.
    pub spent_code: Option<Digest>,
    /// Was it a kept pair, written back over a spent one?
    pub written_back: bool,
    /// What asked for it; `None` for a replay.
    pub because: Option<Because>,
    pub request: Option<Box<str>>,
    pub presented: u32,
    /// Digest of the refresh token, or the authorization code, that was spent, or was to be.
    pub from: Digest,
    pub started_at: i64,
    /// When TikTok answered with tokens.
    pub answered_at: Option<i64>,
    /// When the new access token expires.
    pub access_expires_at: Option<i64>,
    pub took: Duration,
}

#[allow(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Transaction {
    shared: Arc<Shared>,
    job: Job,
    /// Is it the exchange of an authorization code?
    exchange: bool,
    attempt: Attempt,
    /// Random; every claim of this transaction begins with it.
    attempt_id: String,
    nth_claim: u32,
    claim: Option<Claim>,
    /// On the clock that counts suspends: when the claim was sent.
    claim_sent: Duration,
    digests: DigestKey,
    /// The tokens as the claim's reply gave them.
    present: Option<TokenValues>,
    /// The authorization code likewise.
    code: Option<SecretText>,
    /// The version of the Secret at which the spent code was seen to stand there: only then may a write remove it.
    code_stands_at: Option<Version>,
    /// What the Secret says is spent, as last seen.
    noted: SpentTokens,
    /// What is to stay of the own claim on the Secret once it is settled, as last seen.
    remainder: Option<Claim>,
    /// The tokens to store.
    granted: Option<TokenValues>,
    answered_at: Option<i64>,
    seller: Option<Seller>,
    failure: Option<Failure>,
    detail: Option<String>,
    /// Did it fail since the API server was away?
    is_server_away: bool,
    known: Option<Known>,
    problems: Vec<String>,
    pause: Duration,
    /// What was last told of why the answer is held.
    held_because: Option<transaction::Held>,
    is_journaled: bool,
    waits_on_server: bool,
    in_memory_alone: bool,
    gone_since: Option<Duration>,
    started: Instant,
    started_at: i64,
}

/// Runs a transaction to its end, and tells the work loop.
pub(super) async fn run(shared: Arc<Shared>, job: Job) {
    let updates = shared.updates.clone();
    let (transaction, state, command) = Transaction::begin(shared, job);
    let finished = transaction.drive(state, command).await;
    // The work loop outlives every transaction; it is gone only when the process ends.
    drop(updates.send(Update::Finished(Box::new(finished))));
}

impl Transaction {
    fn begin(shared: Arc<Shared>, job: Job) -> (Self, State, Command) {
        let digests = DigestKey::new(&job.uid);
        let (exchange, attempt, attempt_id, granted, answered_at, seller, (state, command)) = match &job.work {
            Work::Spend(spend) => (
                spend.what.exchange,
                Attempt {
                    from: spend.what.from,
                    from_pair: spend.what.pair,
                    replay: false,
                    unknown_before: spend.unknown_before,
                    spent_before: spend.what.spent_before.clone(),
                },
                crate::random_id(),
                None,
                None,
                None,
                transaction::start(spend.version.clone()),
            ),
            Work::Store(answer) | Work::WriteBack(answer) => {
                let granted = answer.refresh_token.as_ref().map(|refresh| TokenValues {
                    access: answer.access_token.duplicate(),
                    access_expires_at: answer.access_expires_at,
                    refresh: refresh.duplicate(),
                    refresh_expires_at: answer.refresh_expires_at,
                });
                let intent = &answer.intent;
                let refresh = answer.refresh_token.as_ref().map(|token| digests.token(token));
                let symbolic = Answer {
                    pair: digests.pair(Some(&answer.access_token), answer.refresh_token.as_ref()),
                    refresh: refresh.unwrap_or(intent.from),
                    rotated: refresh != Some(intent.from),
                };
                (
                    intent.exchange,
                    Attempt {
                        from: intent.from,
                        from_pair: intent.access_from,
                        replay: true,
                        unknown_before: false,
                        spent_before: intent.spent_before.clone(),
                    },
                    intent.claim_id.split('.').next().unwrap_or_default().to_owned(),
                    granted,
                    Some(answer.answered_at),
                    Some(seller_from_journal(&answer.seller)),
                    transaction::replay(symbolic),
                )
            }
        };
        let is_journaled = matches!(job.work, Work::Store(_));
        shared.claims.begin(&attempt_id);
        let transaction = Self {
            shared,
            job,
            exchange,
            attempt,
            attempt_id,
            nth_claim: 0,
            claim: None,
            claim_sent: Duration::ZERO,
            digests,
            present: None,
            code: None,
            code_stands_at: None,
            noted: SpentTokens::default(),
            remainder: None,
            granted,
            answered_at,
            seller,
            failure: None,
            detail: None,
            is_server_away: false,
            known: None,
            problems: Vec::new(),
            pause: FIRST_PAUSE,
            held_because: None,
            is_journaled,
            waits_on_server: false,
            in_memory_alone: false,
            gone_since: None,
            started: Instant::now(),
            started_at: Clock::now().timestamp(),
        };
        (transaction, state, command)
    }

    async fn drive(mut self, mut state: State, mut command: Command) -> Finished {
        if let Work::WriteBack(answer) = &self.job.work {
            // Waiting to be stored again, it must outlive this process again.
            let answer = copy_of(answer);
            self.journal(answer).await;
            // Before it is written: whatever happens then, it is written back once.
            self.mark_restored().await;
        }
        let outcome = loop {
            let event = match command {
                Command::Rehearse { at } => self.rehearse(&at).await,
                Command::Claim { at } => self.claim(&at).await,
                Command::Intend => self.intend().await,
                Command::Call => self.call().await,
                Command::JournalAnswer => self.journal_answer().await,
                Command::Persist { at, remove_claim } => self.persist(&at, remove_claim).await,
                Command::Release { at, how } => self.release(&at, how).await,
                Command::Read => self.read().await,
                Command::Wait(why) => self.wait(why).await,
                Command::Forget { keep } => self.forget(keep).await,
                Command::Finish(outcome) => break outcome,
            };
            tracing::trace!(
                namespace = %self.job.namespace, name = %self.job.name, attempt = self.attempt_id,
                ?state, ?event, "transaction"
            );
            (state, command) = next(&self.attempt, state, event);
        };
        self.set_waits_on_server(false);
        self.set_in_memory_alone(false);
        if self.held_because.is_some() {
            self.shared.metrics.answer_let_go();
        }
        self.shared.claims.end(&self.attempt_id);
        let written_back = matches!(self.job.work, Work::WriteBack(_));
        let granted = self.granted.as_ref().map(|granted| self.digests.token(&granted.refresh));
        // Without rotation, it is spent no more than it was.
        let is_spent = granted.is_some_and(|granted| granted != self.attempt.from);
        let (spent_token, spent_code) = match &self.job.work {
            Work::Spend(spend) if self.exchange => {
                let beside = spend.what.beside.filter(|beside| is_spent && Some(*beside) != granted);
                (beside, (is_spent || self.is_rejected()).then_some(self.attempt.from))
            }
            _ if self.exchange => (None, Some(self.attempt.from)),
            _ => (is_spent.then_some(self.attempt.from), None),
        };
        let (because, request, presented) = match &mut self.job.work {
            Work::Spend(spend) => (Some(spend.because), spend.request.take(), spend.presented),
            Work::Store(answer) | Work::WriteBack(answer) => {
                (None, answer.intent.request.as_deref().map(Into::into), answer.intent.presented)
            }
        };
        Finished {
            namespace: self.job.namespace,
            name: self.job.name,
            uid: self.job.uid,
            secret: self.job.secret,
            keys: self.job.keys,
            outcome,
            known: self.known,
            problems: self.problems,
            failure: self.failure,
            detail: self.detail,
            seller: self.seller,
            exchange: self.exchange,
            spent_token,
            spent_code,
            written_back,
            because,
            request,
            presented,
            from: self.attempt.from,
            started_at: self.started_at,
            answered_at: self.answered_at,
            access_expires_at: self.granted.as_ref().and_then(|granted| granted.access_expires_at),
            took: self.started.elapsed(),
        }
    }

    /// Rehearses the write of the new tokens, final annotations included, with stand-in values.
    async fn rehearse(&mut self, at: &Version) -> Event {
        let Work::Spend(spend) = &self.job.work else { return Event::ApiFailed(ApiFailure::Conflict) };
        let (access, refresh_length) = spend.what.lengths.unwrap_or(USUAL_LENGTHS);
        let values = stand_ins(access, refresh_length);
        let refreshed_at = timestamp::format(Clock::now());
        let write = TokenWrite {
            keys: &self.job.keys,
            values: &values,
            refreshed_at: &refreshed_at,
            refreshed_from: self.attempt.from,
            spent: &self.attempt.spent_before.with(self.attempt.from),
            tokens_digest: self.attempt.from_pair,
            handled: spend.request.as_deref(),
            claim: ClaimChange::Remove,
            remove_code: self.exchange,
        };
        let sent = self.digests.pair(Some(&values.access), Some(&values.refresh));
        match self.shared.cluster.write_tokens(&self.job.namespace, &self.job.secret, at, &write, true).await {
            Ok(secret) => {
                let view = self.view(&secret);
                if view.pair == Some(sent) {
                    Event::Applied(view)
                } else {
                    // What would be stored is not what was sent: no answer may be risked on it.
                    self.api_failed(&ApiError::Refused(TOKENS_CHANGED.to_owned()))
                }
            }
            Err(error) => self.api_failed(&error),
        }
    }

    async fn claim(&mut self, at: &Version) -> Event {
        let Work::Spend(spend) = &self.job.work else { return Event::ApiFailed(ApiFailure::Conflict) };
        if self.nth_claim == 0 && self.shared.start_nothing.load(Ordering::Relaxed) {
            return Event::Stopped;
        }
        self.nth_claim += 1;
        let claim = Claim {
            id: format!("{}.{}", self.attempt_id, self.nth_claim),
            holder: self.shared.claims.holder.clone(),
            integration: format!("{}/{}", self.job.namespace, self.job.name),
            integration_uid: Some(self.job.uid.to_string()),
            at: timestamp::format(Clock::now()),
            ttl_seconds: (self.shared.request_timeout + MARGIN).as_secs(),
            from: self.attempt.from.to_string(),
            request: spend.request.as_deref().map(Into::into),
            presented: spend.presented,
            outcome: None,
            beside: spend.other.clone(),
        };
        let text = claim.to_text();
        self.claim = Some(claim);
        self.claim_sent = Clock::boottime();
        let write = ClaimWrite { claim: Some(&text), handled: None, spent: None, rejected: None };
        match self.shared.cluster.write_claim(&self.job.namespace, &self.job.secret, at, &write).await {
            Ok(secret) => {
                let event = Event::Applied(self.look(&secret));
                let mut tokens = ParsedTokens::parse(&secret.data, &self.job.keys);
                self.code = tokens.code.take();
                self.present = tokens.into_values();
                event
            }
            Err(error) => self.api_failed(&error),
        }
    }

    async fn intend(&mut self) -> Event {
        let (Some(journal), Some(claim)) = (&self.shared.journal, &self.claim) else { return Event::Intended };
        match journal.intent(self.intent(claim)).await {
            Ok(()) => Event::Intended,
            Err(error) => {
                self.detail = Some(error.to_string());
                Event::IntentFailed
            }
        }
    }

    fn intent(&self, claim: &Claim) -> journal::Intent {
        let keys = &self.job.keys;
        journal::Intent {
            key: self.key(),
            integration_uid: self.job.uid.to_string(),
            team: self.job.team.as_deref().map(Into::into),
            secret_name: self.job.secret.to_string(),
            token_keys: [
                keys.access_token.to_string(),
                keys.access_token_expire_in.to_string(),
                keys.refresh_token.to_string(),
                keys.refresh_token_expire_in.to_string(),
            ],
            auth_code_key: keys.auth_code.to_string(),
            exchange: self.exchange,
            claim_id: claim.id.clone(),
            process: claim.process().to_owned(),
            from: self.attempt.from,
            access_from: self.attempt.from_pair,
            spent_before: self.attempt.spent_before.clone(),
            request: claim.request.clone(),
            presented: claim.presented,
            at: Clock::now().timestamp(),
        }
    }

    fn key(&self) -> journal::Key {
        journal::Key { namespace: self.job.namespace.to_string(), name: self.job.name.to_string() }
    }

    async fn call(&mut self) -> Event {
        let Work::Spend(spend) = &self.job.work else { return Event::TooLate };
        if self.shared.start_nothing.load(Ordering::Relaxed) {
            return Event::Stopped;
        }
        let since_claim = Clock::boottime().saturating_sub(self.claim_sent);
        if since_claim > CLAIM_LIMIT || self.shared.waiting_on_server.load(Ordering::Relaxed) > 0 {
            return Event::TooLate;
        }
        let deadline = Instant::now() + self.shared.request_timeout.saturating_sub(since_claim);
        let AppCredentials { app_key, app_secret } = &*spend.credentials;
        let (shared, now) = (&self.shared, Clock::now());
        let answer = match (self.exchange, &self.code, &self.present) {
            (true, Some(code), _) => shared.authorization.exchange(app_key, app_secret, code, deadline, now).await,
            (false, _, Some(present)) => {
                shared.tiktok.refresh(app_key, app_secret, &present.refresh, deadline, now).await
            }
            // The claim's reply showed what is to be spent, or the transaction would not have come here.
            _ => return Event::TooLate,
        };
        match answer {
            Ok(grant) => {
                let answered_at = Clock::now().timestamp();
                self.answered_at = Some(answered_at);
                self.seller = Some(grant.seller);
                // What a refresh may leave as it is; an exchange gives all of it.
                let present = self.present.as_ref().filter(|_| !self.exchange);
                let rotated = match (&grant.refresh_token, present) {
                    (Some(token), Some(present)) => *token != present.refresh,
                    (token, _) => token.is_some(),
                };
                let granted = TokenValues {
                    access: grant.access_token,
                    access_expires_at: grant.access_expires_at,
                    // With no refresh token in a success, the old one stays, and with it its expiry.
                    refresh_expires_at: grant
                        .refresh_expires_at
                        .or_else(|| present.filter(|_| !rotated).and_then(|present| present.refresh_expires_at)),
                    refresh: grant
                        .refresh_token
                        .or_else(|| present.map(|present| present.refresh.duplicate()))
                        .expect("an answer to an exchange holds a refresh token, or it is none"),
                };
                let pair = self.digests.pair(Some(&granted.access), Some(&granted.refresh));
                let refresh = self.digests.token(&granted.refresh);
                self.granted = Some(granted);
                self.set_in_memory_alone(true);
                Event::Answered(Answer { pair, refresh, rotated })
            }
            Err(mut failure) => {
                // The client knows what it sent; the tokens that stand there beside it does not.
                let beside: Vec<_> =
                    self.present.iter().flat_map(|present| [&present.access, &present.refresh]).collect();
                failure.message = Scrubber::new(&beside).scrub(&failure.message);
                let kind = call_failure(&failure);
                if kind == CallFailure::Rejected {
                    let command = authorize_command(&self.job.namespace, &self.job.name);
                    failure.message = format!("{}: {command}", failure.message);
                }
                self.failure = Some(failure);
                Event::CallFailed(kind)
            }
        }
    }

    async fn journal_answer(&mut self) -> Event {
        if let (Some(claim), Some(granted)) = (&self.claim, &self.granted) {
            let answer = journal::Answer {
                intent: self.intent(claim),
                access_token: granted.access.duplicate(),
                access_expires_at: granted.access_expires_at,
                refresh_token: Some(granted.refresh.duplicate()),
                refresh_expires_at: granted.refresh_expires_at,
                answered_at: self.answered_at.unwrap_or_else(|| Clock::now().timestamp()),
                seller: seller_for_journal(self.seller.as_ref()),
            };
            self.journal(answer).await;
        }
        Event::Journaled
    }

    async fn journal(&mut self, answer: journal::Answer) {
        let Some(journal) = &self.shared.journal else { return };
        match journal.answer(answer).await {
            Ok(()) => {
                self.is_journaled = true;
                self.set_in_memory_alone(false);
            }
            Err(error) => tracing::error!(
                namespace = %self.job.namespace, name = %self.job.name, %error,
                "failed to write an answer to the journal: it is held in memory until it is stored"
            ),
        }
    }

    async fn persist(&mut self, at: &Version, remove_claim: bool) -> Event {
        let Some(granted) = &self.granted else { return Event::ApiFailed(ApiFailure::Conflict) };
        let refreshed_at = timestamp::format(
            self.answered_at.and_then(|at| chrono::DateTime::from_timestamp(at, 0)).unwrap_or_else(Clock::now),
        );
        let handled = match &self.job.work {
            Work::Spend(spend) => spend.request.as_deref(),
            Work::Store(answer) | Work::WriteBack(answer) => answer.intent.request.as_deref(),
        };
        // What is not spent must not be taken for spent when somebody edits the Secret.
        let refresh = self.digests.token(&granted.refresh);
        let rotated = refresh != self.attempt.from;
        // What somebody noted meanwhile is not to be forgotten.
        let before = self.attempt.spent_before.and(&self.noted).without(refresh);
        let spent = if rotated { before.with(self.attempt.from) } else { before };
        // What an exchange leaves unknown of the refresh token beside the code is of no interest any more.
        let remainder = self.remainder.as_ref().filter(|_| !self.exchange).map(Claim::to_text);
        let claim = match &remainder {
            _ if !remove_claim => ClaimChange::Leave,
            Some(remainder) => ClaimChange::Replace(remainder),
            None => ClaimChange::Remove,
        };
        let write = TokenWrite {
            keys: &self.job.keys,
            values: granted,
            refreshed_at: &refreshed_at,
            refreshed_from: if rotated { self.attempt.from } else { self.attempt.from_pair },
            spent: &spent,
            tokens_digest: self.digests.pair(Some(&granted.access), Some(&granted.refresh)),
            handled,
            claim,
            remove_code: self.code_stands_at.as_ref() == Some(at),
        };
        let written = write.tokens_digest;
        let result = self.shared.cluster.write_tokens(&self.job.namespace, &self.job.secret, at, &write, false).await;
        match result {
            Ok(secret) => {
                let view = self.look(&secret);
                if view.pair != Some(written) {
                    self.shared.metrics.persist_retried();
                    self.detail = Some(TOKENS_CHANGED.to_owned());
                }
                Event::Applied(view)
            }
            Err(error) => {
                self.shared.metrics.persist_retried();
                self.api_failed(&error)
            }
        }
    }

    async fn release(&mut self, at: &Version, how: Release) -> Event {
        let marked = match (&self.claim, how) {
            (Some(claim), Release::MarkUnknown { .. }) => {
                // Marked with the time of the mark: from there the pause before trying once more counts.
                let counts = self.failure.as_ref().is_some_and(|failure| failure.spent == Spent::Unknown);
                let marked = Claim {
                    presented: claim.presented - u32::from(!counts),
                    outcome: Some(ClaimOutcome::Unknown),
                    at: timestamp::format(Clock::now()),
                    ..claim.clone()
                };
                Some(marked.to_text())
            }
            (_, Release::GiveBack { .. }) => self.remainder.as_ref().map(Claim::to_text),
            _ => None,
        };
        let handled = match (&self.job.work, how) {
            (Work::Spend(spend), Release::GiveBack { handled: true } | Release::MarkUnknown { handled: true }) => {
                spend.request.as_deref()
            }
            _ => None,
        };
        // A code that is of no more use is noted in the same write, so that nobody presents it again.
        let is_over = self.exchange && (self.granted.is_some() || self.is_rejected());
        let spent = matches!(how, Release::GiveBack { .. } if is_over).then(|| self.noted.with(self.attempt.from));
        let is_refused = how == Release::GiveBack { handled: true } && !self.exchange && self.is_rejected();
        let rejected = is_refused.then(|| self.rejection().to_text());
        let write =
            ClaimWrite { claim: marked.as_deref(), handled, spent: spent.as_ref(), rejected: rejected.as_deref() };
        match self.shared.cluster.write_claim(&self.job.namespace, &self.job.secret, at, &write).await {
            Ok(secret) => Event::Applied(self.look(&secret)),
            Err(error) => self.api_failed(&error),
        }
    }

    async fn read(&mut self) -> Event {
        match self.shared.cluster.read_secret(&self.job.namespace, &self.job.secret).await {
            Ok(secret) => {
                self.gone_since = None;
                Event::Read(self.look(&secret))
            }
            Err(error) => {
                if error == ApiError::NotFound {
                    self.known = Some(Known::NotFound);
                }
                self.api_failed(&error)
            }
        }
    }

    async fn wait(&mut self, why: Waiting) -> Event {
        if let Waiting::ToPersist(held) = why {
            self.set_waits_on_server(held == transaction::Held::ServerAway);
            if self.held_because.is_none() {
                self.shared.metrics.answer_held();
            }
            if self.held_because.replace(held) != Some(held) {
                let holding = Holding {
                    namespace: Arc::clone(&self.job.namespace),
                    name: self.job.name.clone(),
                    uid: self.job.uid.clone(),
                    secret: Arc::clone(&self.job.secret),
                    why: held,
                    detail: self.detail.clone().unwrap_or_default(),
                    journaled: self.is_journaled,
                };
                drop(self.shared.updates.send(Update::Held(holding)));
            }
            if self.is_abandoned(held) {
                return Event::Abandoned;
            }
        } else {
            let settling = Settling {
                namespace: Arc::clone(&self.job.namespace),
                name: self.job.name.clone(),
                uid: self.job.uid.clone(),
                secret: Arc::clone(&self.job.secret),
                // Whether a person has replaced what TikTok refused, only the Secret tells; and nobody hears it before.
                failure: self.failure.clone().filter(|_| why != Waiting::ToReread || !self.is_server_away),
                exchange: self.exchange,
                is_server_away: self.is_server_away,
                detail: self.detail.clone().unwrap_or_default(),
            };
            drop(self.shared.updates.send(Update::Settling(Box::new(settling))));
        }
        tokio::select! {
            () = tokio::time::sleep(self.pause) => self.pause = (self.pause * 2).min(LONGEST_PAUSE),
            () = self.job.nudge.notified() => {}
        }
        Event::Waited
    }

    fn is_abandoned(&mut self, held: transaction::Held) -> bool {
        if !self.job.integration_gone.load(Ordering::Relaxed) {
            self.gone_since = None;
        }
        if self.gone_since.is_none()
            && (held != transaction::Held::NotFound || !self.job.integration_gone.load(Ordering::Relaxed))
        {
            return false;
        }
        let now = Clock::boottime();
        now.saturating_sub(*self.gone_since.get_or_insert(now)) >= ABANDONED_AFTER
    }

    async fn forget(&mut self, keep: bool) -> Event {
        if let Some(journal) = &self.shared.journal {
            let settled = if keep {
                journal.keep(self.key(), Clock::now().timestamp()).await.map(drop)
            } else {
                journal.forget(self.key()).await
            };
            if let Err(error) = settled {
                tracing::warn!(
                    namespace = %self.job.namespace, name = %self.job.name, %error,
                    "failed to settle a journal entry: it is compared with the Secret again after a restart"
                );
            }
        }
        Event::Forgotten
    }

    async fn mark_restored(&self) {
        let Some(journal) = &self.shared.journal else { return };
        if let Err(error) = journal.mark_restored(self.key()).await {
            tracing::warn!(
                namespace = %self.job.namespace, name = %self.job.name, %error,
                "failed to note in the journal that a kept pair is written back: it may be written back again"
            );
        }
    }

    /// Counts this transaction among those that wait on an API server that is away.
    fn set_waits_on_server(&mut self, waits: bool) {
        match (self.waits_on_server, waits) {
            (false, true) => self.shared.waiting_on_server.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.shared.waiting_on_server.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        self.waits_on_server = waits;
    }

    /// Counts this transaction among those whose answer is in memory alone.
    fn set_in_memory_alone(&mut self, alone: bool) {
        match (self.in_memory_alone, alone) {
            (false, true) => self.shared.heartbeat.hold(),
            (true, false) => self.shared.heartbeat.let_go(),
            _ => {}
        }
        self.in_memory_alone = alone;
    }

    /// What a Secret shows; remembered as the newest that is known of it.
    fn look(&mut self, secret: &Secret) -> View {
        self.set_waits_on_server(false);
        let reading =
            observe::from_secret(secret, &self.job.keys, &self.job.uid, &self.shared.claims, Clock::now().timestamp());
        self.known = Some(reading.known);
        self.problems = reading.problems;
        let code = ParsedTokens::parse(&secret.data, &self.job.keys).code.map(|code| self.digests.token(&code));
        let spent_code_stands = self.exchange && code == Some(self.attempt.from);
        self.code_stands_at = spent_code_stands.then(|| secret.version.clone());
        self.noted = observe::Notes::read(&secret.annotations).spent;
        let claim = secret.annotations.get(REFRESH_ATTEMPT).map(String::as_str);
        let is_own = matches!(self.shared.claims.standing(claim, &self.attempt_id), Standing::Own { .. });
        let own = claim.filter(|_| is_own).and_then(Claim::parse);
        self.remainder = own.and_then(|claim| claim.remainder(self.attempt.from, timestamp::format(Clock::now())));
        self.view(secret)
    }

    /// What is noted of a refresh token that TikTok refused.
    fn rejection(&self) -> Rejection {
        let failure = self.failure.as_ref();
        Rejection {
            token: self.attempt.from.to_string(),
            at: timestamp::format(Clock::now()),
            code: failure.and_then(|failure| failure.code),
            request_id: failure.and_then(|failure| failure.request_id.clone()),
        }
    }

    /// Did TikTok refuse what was presented?
    fn is_rejected(&self) -> bool {
        self.failure.as_ref().is_some_and(|failure| call_failure(failure) == CallFailure::Rejected)
    }

    /// What [`View::refresh`] and [`View::beside`] say.
    fn stands(&self, tokens: &ParsedTokens) -> (Option<Digest>, Option<Digest>) {
        let refresh = tokens.refresh.as_ref().map(|token| self.digests.token(token));
        if !self.exchange {
            return (refresh, None);
        }
        let pair = self.digests.pair(tokens.access.as_ref(), tokens.refresh.as_ref());
        // The pair that stood beside the code gives way to the new one.
        let others = refresh.filter(|_| pair != self.attempt.from_pair);
        let code = tokens.code.as_ref().map(|code| self.digests.token(code));
        if code == Some(self.attempt.from) { (code, others) } else { (others, None) }
    }

    fn view(&self, secret: &Secret) -> View {
        let tokens = ParsedTokens::parse(&secret.data, &self.job.keys);
        let notes = observe::Notes::read(&secret.annotations);
        let claim = secret.annotations.get(REFRESH_ATTEMPT).map(String::as_str);
        let (refresh, beside) = self.stands(&tokens);
        View {
            version: secret.version.clone(),
            refresh,
            beside,
            pair: tokens
                .access
                .as_ref()
                .zip(tokens.refresh.as_ref())
                .map(|(access, refresh)| self.digests.pair(Some(access), Some(refresh))),
            refreshed_from: notes.refreshed_from,
            spent: notes.spent,
            noted_pair: notes.tokens_digest,
            claim: self.shared.claims.standing(claim, &self.attempt_id),
        }
    }

    fn api_failed(&mut self, error: &ApiError) -> Event {
        let failure = match error {
            ApiError::Conflict => ApiFailure::Conflict,
            ApiError::NotFound => ApiFailure::NotFound,
            ApiError::Forbidden(_) => ApiFailure::Forbidden,
            ApiError::Refused(_) => ApiFailure::Refused,
            ApiError::Busy => ApiFailure::Busy,
            ApiError::Lost(_) => ApiFailure::Lost,
        };
        // An admission plugin may quote what it was shown.
        let known: Vec<_> = [&self.present, &self.granted]
            .into_iter()
            .flatten()
            .flat_map(|values| [&values.access, &values.refresh])
            .chain(&self.code)
            .collect();
        self.detail = Some(Scrubber::new(&known).scrub(&error.to_string()));
        self.is_server_away = error.is_server_away();
        Event::ApiFailed(failure)
    }
}

/// What a failed call says of what it presented.
fn call_failure(failure: &Failure) -> CallFailure {
    match (failure.spent, failure.reason) {
        (Spent::Answered, FailureReason::RefreshTokenRejected | FailureReason::AuthorizationCodeRejected) => {
            CallFailure::Rejected
        }
        (Spent::Answered, _) => CallFailure::Answered,
        (Spent::Unspent, _) => CallFailure::Unspent,
        (Spent::Unknown, _) => CallFailure::Unknown,
    }
}

/// Not `Clone`, so that each copy of tokens is seen.
fn copy_of(answer: &journal::Answer) -> journal::Answer {
    journal::Answer {
        intent: answer.intent.clone(),
        access_token: answer.access_token.duplicate(),
        access_expires_at: answer.access_expires_at,
        refresh_token: answer.refresh_token.as_ref().map(SecretText::duplicate),
        refresh_expires_at: answer.refresh_expires_at,
        answered_at: answer.answered_at,
        seller: answer.seller.clone(),
    }
}

fn seller_for_journal(seller: Option<&Seller>) -> journal::Seller {
    let seller = seller.cloned().unwrap_or_default();
    journal::Seller {
        open_id: seller.open_id,
        name: seller.name,
        base_region: seller.base_region,
        user_type: seller.user_type,
    }
}

fn seller_from_journal(seller: &journal::Seller) -> Seller {
    Seller {
        open_id: seller.open_id.clone(),
        name: seller.name.clone(),
        base_region: seller.base_region.clone(),
        user_type: seller.user_type,
    }
}
