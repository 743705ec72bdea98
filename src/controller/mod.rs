//! The controller: one work loop that owns the agenda.
//!
//! ```text
//!  watch ──▶ observe ──▶ decide ──▶ act ──▶ report ──▶ sleep until the next instant that matters
//! ```
//!
//! The loop never waits for the network: reads, refreshes and status writes are tasks that report
//! back to it. So there is one place that changes the agenda, and no lock is held across a wait.

mod absence;
mod acting;
mod agenda;
mod apps;
mod claims;
mod dispatch;
mod intake;
mod observe;
mod outcome;
mod reading;
mod reads;
mod refresh;
mod report;
mod resting;
mod rollout;
mod shops;
mod watch;
mod writing;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, mpsc, watch as channel};
use tokio::time::Instant;

use self::absence::{Absence, Sighting};
use self::agenda::{
    Agenda, AppAtFailure, AppRef, Busy, Entry, FailedWith, Id, Known, List, Presence, SecretName, SharedAgenda, seconds,
};
use self::apps::{AppCheck, Apps};
use self::claims::Claims;
use self::dispatch::Dispatch;
use self::reads::{Reads, Turn};
use self::refresh::{Holding, Job, Shared, Update, Work};
use self::report::{Circumstances, News, differs, events_of_change, expiring_warning, report};
use self::rollout::Restarted;
use self::shops::{CHECKS_FROM, Check};
use self::watch::{Told, Watches};
use self::writing::queue_status_write;
use crate::admin::{Heartbeat, Readiness};
use crate::api::names::MAX_REFRESH_REQUEST_BYTES;
use crate::api::{ConditionType, LastError, Reason, RefreshBefore};
use crate::clock::{Clock, Drift};
use crate::cluster::{ApiError, Cluster, Event, EventKind, Events, Version};
use crate::decide::{
    Because, ClaimStanding, CodeFailure, CredentialsState, Decision, Failure, History, Observed, Policy, SecretState,
    Waiting, decide,
};
use crate::journal::{self, Journal};
use crate::lease::Leadership;
use crate::metrics::{Fleet, Metrics};
use crate::settings::{SecretAccess, Settings};
use crate::tiktok::{ShopsClient, TokenClient};
use crate::tokens::{AppCredentials, MissingKeys, TokenKeyNames};

/// Status writes under way at most.
const MOST_STATUS_WRITES: usize = 8;

/// Messages taken in before the loop looks at its timers again.
const BATCH: usize = 256;

/// Longest sleep: timers are monotonic and wake-ups are computed from wall time, which may jump.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// Pause before something is tried again that failed because the API server was away.
const SERVER_AWAY_PAUSE: i64 = 3;

/// Pause before something is tried again that the API server forbids.
const FORBIDDEN_PAUSE: i64 = 60;

/// How often kept pairs are looked through for old ones.
const KEPT_SWEEP: Duration = Duration::from_mins(1);

/// In `named` mode, above this many integrations the poll interval is stretched.
const POLL_STRETCHED_ABOVE: usize = 5_000;

/// The two kinds of lists.
const INTEGRATIONS: &str = "integrations";
const SECRETS: &str = "secrets";

/// A refresh that waits longer than this, in seconds, is shown as waiting.
const SHOWN_AS_WAITING_AFTER: i64 = 10;

/// An integration without any status gets its first one after so many seconds, though its first refresh is still under way.
const FIRST_STATUS_AFTER: i64 = 2;

/// What the tasks report to the loop.
enum Message {
    TokenSecretRead(Box<TokenSecretRead>),
    AppSecretRead { app: AppRef, result: Result<AppRead, ApiError> },
    Restarted(Box<Restarted>),
    Shops(shops::Told),
    Sighted(Sighting),
    StatusWritten { id: Id, uid: Box<str>, fingerprint: u64, result: Result<Option<Version>, ApiError> },
}

/// A read of a token Secret is over.
struct TokenSecretRead {
    turn: Turn,
    uid: Box<str>,
    /// What was read: the integration may name another by now.
    secret: SecretName,
    keys: Arc<TokenKeyNames>,
    /// What the watch had said when the read began.
    seen: Presence,
    result: Result<TokenRead, ApiError>,
}

struct TokenRead {
    known: Known,
    problems: Vec<String>,
    /// The pair kept from the last rotation, where the spent one stands in the Secret again.
    reverted: Option<journal::Kept>,
}

struct AppRead {
    version: Version,
    credentials: Result<AppCredentials, MissingKeys>,
}

/// A refresh that is under way.
struct UnderWay {
    integration_gone: Arc<AtomicBool>,
    nudge: Arc<Notify>,
    /// Its answer is held, so it takes no slot.
    held: Option<Holding>,
    /// It waits to settle its claim, so it takes no slot either.
    settling: bool,
    /// Its failure stands in the status already, although its claim is not settled.
    failure_shown: bool,
    /// What was the case when it began: if it fails, that is what failed.
    began_with: Option<FailedWith>,
    app_key: Option<Box<str>>,
}

/// What the controller is built from.
pub struct Parts {
    /// The API server.
    pub cluster: Cluster,
    /// TikTok's endpoint for refreshes.
    pub tiktok: TokenClient,
    /// TikTok's endpoint for the exchange of authorization codes.
    pub authorization: TokenClient,
    /// TikTok's endpoint that names shops.
    pub shops: ShopsClient,
    /// Where answers survive a crash.
    pub journal: Option<Journal>,
    /// What earlier processes left in the journal.
    pub left: Vec<journal::Entry>,
    /// Pod UID or host name, to name this process in claims and events.
    pub pod: String,
    /// Random id of this process.
    pub process: String,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// Beaten by the work loop.
    pub heartbeat: Heartbeat,
    /// Set when lists are in and the journal was tried.
    pub readiness: Readiness,
}

/// The controller.
pub struct Controller {
    settings: Settings,
    policy: Policy,
    shared: Arc<Shared>,
    agenda: Arc<SharedAgenda>,
    apps: Apps,
    dispatch: Dispatch,
    under_way: HashMap<(Arc<str>, Box<str>), UnderWay>,
    /// Checks of shops that are under way.
    checks: HashMap<Id, Check>,
    /// The number of the last one.
    last_check: u64,
    events: Events,
    metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
    readiness: Readiness,
    leading: bool,
    stopping: bool,
    watches: Watches,
    told: mpsc::Receiver<Told>,
    updates: mpsc::UnboundedReceiver<Update>,
    messages: mpsc::UnboundedReceiver<Message>,
    tell: mpsc::UnboundedSender<Message>,
    reads: Reads,
    /// Of a whole fleet that is to be looked at, those that are left.
    to_look_at: Vec<Id>,
    status_writes: usize,
    status_queue: VecDeque<Id>,
    /// For the restarts after a rotation.
    restarts: Arc<Semaphore>,
    /// Scopes whose first list is not in yet.
    lists_awaited: HashSet<(&'static str, Option<Arc<str>>)>,
    /// Scopes whose first list was refused: work goes on without them, but this process is not ready.
    lists_refused: HashSet<(&'static str, Option<Arc<str>>)>,
    secrets_watched: bool,
    /// The list that each watch is in, or had last.
    lists: HashMap<(&'static str, Option<Arc<str>>), List>,
    replays_awaited: HashSet<(Arc<str>, Box<str>)>,
    replays: Vec<journal::Answer>,
    absence: Absence,
    drift: Drift,
    kept_swept: Instant,
}

impl Controller {
    /// Builds the controller; nothing is sent yet but the replay of what the journal holds.
    #[must_use]
    pub fn new(settings: Settings, parts: Parts) -> Self {
        let (told_sender, told) = mpsc::channel(BATCH);
        let (updates_sender, updates) = mpsc::unbounded_channel();
        let (tell, messages) = mpsc::unbounded_channel();
        let mut intended = HashSet::new();
        let mut replays = Vec::new();
        for entry in parts.left {
            match entry {
                journal::Entry::Answer(answer) => replays.push(answer),
                journal::Entry::Intent(intent) => {
                    intended.insert(intent.claim_id);
                }
                journal::Entry::Kept(_) => {}
            }
        }
        let holder = format!("{}/{}", parts.pod, parts.process);
        let claims = Claims::new(holder.clone(), parts.process, parts.journal.clone(), intended);
        let events = Events::start(&parts.cluster, &holder);
        let watches = Watches {
            client: parts.cluster.client(),
            told: told_sender,
            metrics: Arc::clone(&parts.metrics),
            namespaces: settings.namespaces.clone(),
            label_selector: settings.watch_label_selector.as_ref().map(ToString::to_string),
        };
        let shared = Arc::new(Shared {
            cluster: parts.cluster,
            tiktok: parts.tiktok,
            authorization: parts.authorization,
            shops: parts.shops,
            request_timeout: settings.request_timeout,
            journal: parts.journal,
            claims,
            metrics: Arc::clone(&parts.metrics),
            heartbeat: parts.heartbeat.clone(),
            start_nothing: AtomicBool::new(false),
            waiting_on_server: AtomicUsize::new(0),
            updates: updates_sender,
        });
        Self {
            policy: Policy { refresh_before: RefreshBefore::Duration(settings.refresh_before) },
            dispatch: Dispatch::new(settings.requests_per_second.per_second()),
            apps: Apps::new((settings.secret_access == SecretAccess::Named).then_some(settings.secret_poll_interval)),
            settings,
            shared,
            agenda: Arc::new(SharedAgenda(Mutex::default())),
            under_way: HashMap::new(),
            checks: HashMap::new(),
            last_check: 0,
            events,
            metrics: parts.metrics,
            heartbeat: parts.heartbeat,
            readiness: parts.readiness,
            leading: false,
            stopping: false,
            watches,
            told,
            updates,
            messages,
            tell,
            reads: Reads::default(),
            to_look_at: Vec::new(),
            status_writes: 0,
            status_queue: VecDeque::new(),
            restarts: Arc::new(Semaphore::new(rollout::MOST_AT_ONCE)),
            lists_awaited: HashSet::new(),
            lists_refused: HashSet::new(),
            secrets_watched: false,
            lists: HashMap::new(),
            replays_awaited: HashSet::new(),
            replays,
            absence: Absence::default(),
            drift: Drift::start(),
            kept_swept: Instant::now(),
        }
    }

    /// The integrations, for the metrics.
    #[must_use]
    pub fn fleet(&self) -> Arc<dyn Fleet> {
        Arc::clone(&self.agenda) as Arc<dyn Fleet>
    }

    /// Works until `stop` is true and what is in flight is stored, or `patience` after that is over.
    ///
    /// Returns the number of answers that could not be stored and are in no journal.
    pub async fn run(
        mut self,
        mut leadership: Option<channel::Receiver<Leadership>>,
        mut stop: channel::Receiver<bool>,
        patience: Duration,
    ) -> usize {
        self.begin();
        let mut give_up = None;
        loop {
            self.heartbeat.beat();
            self.look_at_leadership(leadership.as_ref());
            if *stop.borrow() && !self.stopping {
                self.stopping = true;
                self.shared.start_nothing.store(true, Ordering::Relaxed);
                give_up = Some(Instant::now() + patience);
                self.unqueue();
                self.abandon_checks();
                tracing::info!(
                    in_flight = self.under_way.len(),
                    "stopping: no new refresh starts, what is in flight is stored"
                );
            }
            if self.stopping && (self.is_done() || give_up.is_some_and(|at| Instant::now() >= at)) {
                break;
            }
            self.wake_the_due();
            self.start_what_may();
            self.agenda.lock().rest();
            if !self.to_look_at.is_empty() {
                // A hundred thousand looks take a second: probes, scrapes and answers are not to wait that long.
                tokio::task::yield_now().await;
            }
            let sleep_until = self.sleep_until(leadership.as_ref());
            tokio::select! {
                biased;
                Some(update) = self.updates.recv() => self.on_update(update),
                Some(message) = self.messages.recv() => self.on_message(message),
                Some(told) = self.told.recv(), if !self.stopping => self.on_told_batch(told),
                Ok(()) = stop.changed() => {}
                Ok(()) = changed(&mut leadership) => {}
                () = tokio::time::sleep_until(sleep_until) => {}
            }
        }
        let lost = self.heartbeat.held();
        self.events.finish(Duration::from_secs(5)).await;
        lost
    }

    fn begin(&mut self) {
        let scopes = self.watches.scopes();
        self.lists_awaited = scopes.iter().map(|scope| (INTEGRATIONS, scope.clone())).collect();
        if self.settings.secret_access == SecretAccess::Watch {
            self.lists_awaited.extend(scopes.into_iter().map(|scope| (SECRETS, scope)));
        }
        for answer in std::mem::take(&mut self.replays) {
            self.replay(answer);
        }
        if self.replays_awaited.is_empty() {
            self.readiness.journal_was_tried();
        }
        self.watches.start_integrations();
    }

    /// Stores an answer that an earlier process left in the journal.
    fn replay(&mut self, answer: journal::Answer) {
        let intent = &answer.intent;
        tracing::warn!(
            namespace = intent.key.namespace,
            name = intent.key.name,
            "the journal holds an answer that an earlier process could not store: storing it now"
        );
        let namespace: Arc<str> = intent.key.namespace.as_str().into();
        let name: Box<str> = intent.key.name.as_str().into();
        self.replays_awaited.insert((namespace, name));
        self.store(Work::Store(Box::new(answer)));
    }

    fn store(&mut self, work: Work) {
        let (Work::Store(answer) | Work::WriteBack(answer)) = &work else { return };
        let intent = &answer.intent;
        let namespace: Arc<str> = intent.key.namespace.as_str().into();
        let name: Box<str> = intent.key.name.as_str().into();
        let [access_token, access_token_expire_in, refresh_token, refresh_token_expire_in] =
            intent.token_keys.clone().map(Into::into);
        let job = Job {
            uid: intent.integration_uid.as_str().into(),
            namespace,
            name,
            team: intent.team.as_deref().map(Into::into),
            secret: intent.secret_name.as_str().into(),
            keys: Arc::new(TokenKeyNames {
                access_token,
                access_token_expire_in,
                refresh_token,
                refresh_token_expire_in,
                auth_code: intent.auth_code_key.as_str().into(),
            }),
            work,
            integration_gone: Arc::default(),
            nudge: Arc::default(),
        };
        self.start(job, None, None);
    }

    fn start(&mut self, job: Job, app_key: Option<Box<str>>, began_with: Option<FailedWith>) {
        let under_way = UnderWay {
            integration_gone: Arc::clone(&job.integration_gone),
            nudge: Arc::clone(&job.nudge),
            held: None,
            settling: false,
            failure_shown: false,
            began_with,
            app_key,
        };
        self.under_way.insert((Arc::clone(&job.namespace), job.name.clone()), under_way);
        tokio::spawn(refresh::run(Arc::clone(&self.shared), job));
    }

    fn is_done(&self) -> bool {
        self.under_way.is_empty() && self.status_writes == 0 && self.status_queue.is_empty()
    }

    fn look_at_leadership(&mut self, leadership: Option<&channel::Receiver<Leadership>>) {
        let leads = leadership.is_none_or(|leadership| leadership.borrow().leads_at(Clock::boottime()));
        if leads == self.leading {
            return;
        }
        self.leading = leads;
        self.metrics.set_leader(leads);
        tracing::info!(leads, "leadership changed");
        self.shared.start_nothing.store(!leads || self.stopping, Ordering::Relaxed);
        if leads {
            if self.settings.secret_access == SecretAccess::Named {
                // What another leader wrote meanwhile, no watch has told.
                self.agenda.lock().forget_secrets();
            }
            if self.lists_awaited.is_empty() {
                self.evaluate_all();
            }
        } else {
            self.unqueue();
            self.abandon_checks();
            self.drop_status_writes();
        }
    }

    fn drop_status_writes(&mut self) {
        let mut agenda = self.agenda.lock();
        for id in self.status_queue.drain(..) {
            if let Some(entry) = agenda.get_mut(id) {
                entry.writing_status = false;
            }
        }
    }

    /// Takes back what waits to start: nothing new starts.
    fn unqueue(&mut self) {
        self.to_look_at = Vec::new();
        let waiting = self.dispatch.clear();
        let mut agenda = self.agenda.lock();
        for id in waiting {
            if let Some(entry) = agenda.get_mut(id).filter(|entry| entry.busy == Busy::Queued) {
                entry.busy = Busy::No;
            }
        }
    }

    fn sleep_until(&self, leadership: Option<&channel::Receiver<Leadership>>) -> Instant {
        let now = Instant::now();
        let mut until = now + LONGEST_SLEEP;
        if self.leading && !self.stopping {
            if !self.to_look_at.is_empty() {
                return now;
            }
            if let Some(next) = self.next_wake() {
                let left = (next * 1_000).saturating_sub(Clock::now().timestamp_millis());
                until = until.min(now + Duration::from_millis(u64::try_from(left).unwrap_or(0)));
            }
            let may_start = (self.has_slot() || !self.checks.is_empty())
                && self.shared.waiting_on_server.load(Ordering::Relaxed) == 0;
            if may_start {
                let moments = [self.dispatch.next_permit(), self.reads.hold_until(now)];
                until = moments.into_iter().flatten().fold(until, Instant::min);
            }
        }
        if let Some(leadership) = leadership
            && let Leadership::Leader { until: ends } = *leadership.borrow()
            && ends > Clock::boottime()
        {
            until = until.min(now + ends.saturating_sub(Clock::boottime()));
        }
        until
    }

    fn wake_the_due(&mut self) {
        if let Some(jump) = self.drift.look() {
            self.metrics.clock_jumped();
            tracing::warn!(seconds = jump.by.num_seconds(), "the clock was set: all wake-ups are computed anew");
            self.agenda.lock().forget_instants();
            if self.leading && self.lists_awaited.is_empty() {
                self.evaluate_all();
            }
        }
        if self.kept_swept.elapsed() >= KEPT_SWEEP
            && let Some(journal) = self.shared.journal.clone()
        {
            self.kept_swept = Instant::now();
            tokio::spawn(async move {
                if let Err(error) = journal.expire_kept(Clock::now().timestamp()).await {
                    tracing::warn!(%error, "failed to drop old pairs from the journal");
                }
            });
        }
        if !self.leading || self.stopping || !self.lists_awaited.is_empty() {
            return;
        }
        for _ in 0..BATCH {
            let Some(id) = self.to_look_at.pop() else {
                // Of no use until a whole fleet is to be looked at again.
                self.to_look_at = Vec::new();
                break;
            };
            self.evaluate(id);
        }
        let now = Clock::now().timestamp();
        for _ in 0..BATCH {
            let Some(id) = self.agenda.lock().pop_due(now) else { return };
            self.evaluate(id);
        }
    }

    /// When the next integration is to be looked at, in Unix seconds.
    fn next_wake(&self) -> Option<i64> {
        self.agenda.lock().next_wake().filter(|_| self.lists_awaited.is_empty())
    }

    /// Has all of them looked at, a batch at a time.
    fn evaluate_all(&mut self) {
        self.to_look_at = self.agenda.lock().ids();
    }

    fn has_slot(&self) -> bool {
        self.under_way.values().filter(|job| job.held.is_none() && !job.settling).count() + self.checks.len()
            < self.settings.max_concurrent_refreshes
    }

    fn start_what_may(&mut self) {
        while self.status_writes < MOST_STATUS_WRITES
            && let Some(id) = self.status_queue.pop_front()
        {
            self.start_status_write(id);
        }
        if !self.to_look_at.is_empty() {
            // Who expires first is known when all were looked at.
            return;
        }
        while let Some(turn) = self.reads.start_next() {
            self.start_read(turn);
        }
        if !self.leading || self.stopping || self.shared.waiting_on_server.load(Ordering::Relaxed) > 0 {
            return;
        }
        if self.next_wake().is_some_and(|next| next <= Clock::now().timestamp()) {
            // As many woke at once as after a pause of an app key: here, too, all are looked at first.
            return;
        }
        loop {
            let now = Instant::now();
            if !self.has_slot() {
                // A refresh does not wait for a check to end.
                let next = self.dispatch.next_priority(now).filter(|next| *next < CHECKS_FROM);
                let may_start = next.is_some_and(|next| !self.reads.hold_back(next, now));
                if !may_start || !self.give_way() {
                    return;
                }
            }
            let Some(id) = self.dispatch.pop(now, |next| self.reads.hold_back(next, now)) else { return };
            let is_refresh = self.agenda.lock().get(id).is_some_and(|entry| entry.busy == Busy::Queued);
            if is_refresh {
                self.start_refresh(id);
            } else {
                self.start_check(id);
            }
        }
    }

    // --- looking at one integration ------------------------------------------------------------

    fn evaluate(&mut self, id: Id) {
        if !self.leading || self.stopping {
            return;
        }
        let began = Instant::now();
        self.evaluate_now(id);
        // Here too, as many are looked at in one go.
        self.agenda.lock().rest();
        self.metrics.reconciled(began.elapsed());
    }

    fn evaluate_now(&mut self, id: Id) {
        let shared_agenda = Arc::clone(&self.agenda);
        let mut agenda = shared_agenda.lock();
        let now = Clock::now();
        let seconds_now = now.timestamp();
        let Some(entry) = agenda.get_mut(id) else { return };
        if entry.busy == Busy::Refreshing && entry.held_answer.is_some() {
            // It may take hours to store: what is known of the token is told meanwhile.
            let decision = Decision::Wait { until: seconds_now, because: Waiting::Backoff };
            self.report_and_schedule(&mut agenda, id, &decision, &AppCheck::Unchecked, now);
            return;
        }
        if entry.busy == Busy::Refreshing && entry.served_status == 0 && !entry.writing_status {
            // TikTok may take its time: whoever just created it sees meanwhile that it is known.
            let (check, _) = self.check_app(&agenda, id);
            self.report_and_schedule(&mut agenda, id, &Decision::Refresh { because: Because::Due }, &check, now);
            return;
        }
        if matches!(entry.busy, Busy::Reading | Busy::Refreshing) {
            return;
        }
        self.warn_of_long_request(entry);
        if self.must_read(&mut agenda, id, seconds_now) {
            if self.checks.get(&id).is_some_and(|check| check.writing) {
                // Its own write: when it is over, it tells what stands there.
                return;
            }
            drop(agenda);
            self.queue_read(id);
            return;
        }
        let (check, need_app) = self.check_app(&agenda, id);
        if need_app && check == AppCheck::Unchecked {
            drop(agenda);
            self.read_app(id);
            return;
        }
        let decision = {
            let Some(entry) = agenda.get(id) else { return };
            let observed = observe_entry(&agenda, id, &entry, &check, self.app_version(&agenda, &entry).as_ref());
            decide(&observed, &self.policy, seconds_now)
        };
        let decision = match &check {
            AppCheck::Valid(app) => {
                let paused = self.dispatch.paused_until(&app.app_key).filter(|until| *until > seconds_now);
                held_back(decision, paused)
            }
            _ => decision,
        };
        tracing::debug!(id, ?decision, "decided");
        if !matches!(decision, Decision::Refresh { .. })
            && let Some(entry) = agenda.get_mut(id)
            && entry.busy == Busy::Queued
        {
            entry.busy = Busy::No;
            self.dispatch.forget(id);
        }
        if let Decision::Refresh { .. } = decision {
            if !agenda.get(id).is_some_and(|entry| entry.known.is_read()) {
                drop(agenda);
                self.queue_read(id);
                return;
            }
            let AppCheck::Valid(credentials) = &check else {
                drop(agenda);
                self.read_app(id);
                return;
            };
            let Some(entry) = agenda.get_mut(id) else { return };
            if entry.busy == Busy::No {
                entry.busy = Busy::Queued;
                entry.queued_at = seconds_now;
            }
            // Anew where it waits already: its app key may be another one now.
            self.dispatch.push(&credentials.app_key, entry.priority(seconds_now), id);
        }
        self.report_and_schedule(&mut agenda, id, &decision, &check, now);
        let need_app = self.queue_check(&agenda, id, &decision, &check, seconds_now);
        drop(agenda);
        if need_app {
            self.read_app(id);
        }
    }

    /// Must the token Secret be read before anything is decided? Takes over what needs no read.
    fn must_read(&self, agenda: &mut Agenda, id: Id, now: i64) -> bool {
        if agenda.take_over_from_status(id) {
            return false;
        }
        let Some(entry) = agenda.get(id) else { return false };
        let named = self.polls(&entry);
        let presence = agenda.slot(&entry.token_secret).map_or(&Presence::Untold, |slot| &slot.presence);
        // Whether a claim is over is for the clock to say that it is counted on.
        let claim_may_be_over =
            entry.known.claims().any(|claim| matches!(claim.standing, ClaimStanding::Alive { until } if until <= now));
        // What is forbidden is asked for again when its time comes, not at every look.
        let ask_again = entry.next_poll <= now && (named || matches!(entry.known, Known::Forbidden(_)));
        let is_outdated = match (presence, entry.known.version()) {
            (Presence::Present(metadata), Some((_, version))) => !version.covers(&metadata.version),
            (Presence::Present(_), None) => !matches!(entry.known, Known::Forbidden(_)),
            _ => entry.known == Known::Unread,
        };
        let secret = entry.token_secret.clone();
        if *presence == Presence::Absent {
            if let Some(entry) = agenda.get_mut(id) {
                entry.known = Known::NotFound;
            }
            return false;
        }
        let must_read = is_outdated || claim_may_be_over || ask_again;
        if !must_read {
            agenda.drop_notes(&secret);
        }
        must_read
    }

    fn check_app(&self, agenda: &Agenda, id: Id) -> (AppCheck, bool) {
        let Some(entry) = agenda.get(id) else { return (AppCheck::Unchecked, false) };
        let presence = agenda.slot(&entry.app.secret).map_or(&Presence::Untold, |slot| &slot.presence);
        let check = self.apps.check(&entry.app, presence);
        // An integration is shown as it is from the first look on, not only once it is due.
        let outdated = check == AppCheck::Unchecked && self.apps.has_read(&entry.app);
        let need = !entry.suspended
            && (outdated
                || self.must_look_at_app(&entry)
                || entry.status.observed_generation != Some(entry.generation)
                || entry
                    .status
                    .condition(ConditionType::Ready)
                    .is_some_and(|ready| ready.known_reason() == Some(Reason::AppCredentialsNotFound)));
        (check, need)
    }

    /// No watch tells whether refused credentials were corrected.
    fn must_look_at_app(&self, entry: &Entry) -> bool {
        let refused = entry.status.last_error.as_ref().and_then(LastError::known_reason);
        self.settings.secret_access == SecretAccess::Named && refused == Some(Reason::AppCredentialsRejected)
    }

    fn app_version(&self, agenda: &Agenda, entry: &Entry) -> Option<Version> {
        match agenda.slot(&entry.app.secret).map(|slot| &slot.presence) {
            Some(Presence::Present(metadata)) => Some(metadata.version.clone()),
            _ => self.apps.version(&entry.app),
        }
    }

    fn warn_of_long_request(&self, entry: &mut Entry) {
        let too_long = entry.request.as_ref().is_some_and(|request| request.len() > MAX_REFRESH_REQUEST_BYTES);
        if too_long && !entry.warned_request {
            let note = format!(
                "the annotation tiktokshop.dev/refresh-requested-at is longer than {MAX_REFRESH_REQUEST_BYTES} bytes and is ignored: use a shorter value, such as the time"
            );
            self.events.publish(Event::now(entry.regarding(), EventKind::InvalidValue, note));
        }
        entry.warned_request = too_long;
    }

    fn report_and_schedule(
        &mut self,
        agenda: &mut Agenda,
        id: Id,
        decision: &Decision,
        check: &AppCheck,
        now: chrono::DateTime<chrono::Utc>,
    ) {
        let owner = agenda.owner_before(id);
        let seconds_now = now.timestamp();
        let interval = seconds(self.settings.status_interval);
        let poll = self.poll_seconds(agenda.len());
        let app_version = agenda.get(id).and_then(|entry| self.app_version(agenda, &entry));
        let polls = agenda.get(id).is_some_and(|entry| self.polls(&entry));
        let Some(entry) = agenda.get_mut(id) else { return };

        let circumstances = Circumstances {
            app_problem: match check {
                AppCheck::Missing { problem, .. } => Some(problem),
                _ => None,
            },
            owner: owner.as_deref(),
            app_version: app_version.as_ref(),
        };
        if entry.next_tick == i64::MIN {
            // Not at once at each start: a fleet's writes are spread over the interval.
            entry.next_tick = next_tick(seconds_now, interval, entry.seed());
        }
        let restart_at = self.restart_what_is_owed(entry, id, seconds_now);
        let tick_due = entry.next_tick <= seconds_now;
        let status = report(entry, decision, &circumstances, now);
        // A refresh that starts right away says all there is to say when it ends.
        let patience = if entry.served_status == 0 { FIRST_STATUS_AFTER } else { SHOWN_AS_WAITING_AFTER };
        let starting =
            matches!(decision, Decision::Refresh { .. }) && seconds_now.saturating_sub(entry.queued_at) < patience;
        let is_unwritten = entry.served_status == 0 && !starting;
        // Who put a code there waits for a word of it.
        let news = News { hours: tick_due, secret_version: entry.known.code().is_some() };
        let is_news = is_unwritten || differs(&entry.status, &status, news);
        if is_news && !starting {
            for (kind, note) in events_of_change(&entry.status, &status) {
                self.events.publish(Event::now(entry.regarding(), kind, note));
            }
        }
        if let Some(held) = entry.known.held()
            && entry.warned_expiring != Some(held.facts.pair)
            && let Some(note) = expiring_warning(entry, &held.facts, seconds_now)
        {
            entry.warned_expiring = Some(held.facts.pair);
            self.events.publish(Event::now(entry.regarding(), EventKind::RefreshTokenExpiring, note));
        }
        if is_news {
            entry.set_status(status);
        }
        entry.reported = true;
        if !starting {
            queue_status_write(&mut self.status_queue, id, entry);
        }

        if tick_due {
            entry.next_tick = next_tick(seconds_now, interval, entry.seed());
        }
        let access_expires_at = entry.known.held().and_then(|held| held.facts.access_expires_at);
        let refresh_expires_at = entry.known.held().and_then(|held| held.facts.refresh_expires_at);
        let acts_at = match decision {
            Decision::Idle { until } | Decision::Wait { until, .. } => Some(*until),
            Decision::Blocked { recheck, .. } => *recheck,
            Decision::Refresh { .. } => Some(seconds_now + patience),
        };
        if polls && entry.next_poll <= seconds_now {
            entry.next_poll = seconds_now + poll;
        }
        let poll_at = (polls || matches!(entry.known, Known::Forbidden(_))).then_some(entry.next_poll);
        let check_at = entry.check_due_at(seconds_now);
        let wake =
            [acts_at, access_expires_at, refresh_expires_at, Some(entry.next_tick), poll_at, restart_at, check_at]
                .into_iter()
                .flatten()
                .filter(|at| *at > seconds_now)
                .min()
                .unwrap_or(seconds_now + interval);
        agenda.wake(id, wake);
    }

    /// Does no watch tell of an integration's Secrets, so that they are looked at now and then?
    fn polls(&self, entry: &Entry) -> bool {
        self.settings.secret_access == SecretAccess::Named
            || self
                .lists_refused
                .iter()
                .any(|(what, scope)| *what == SECRETS && scope.as_ref().is_none_or(|scope| *scope == entry.namespace))
    }

    fn poll_seconds(&self, integrations: usize) -> i64 {
        let interval = seconds(self.settings.secret_poll_interval);
        let stretch = i64::try_from(integrations.div_ceil(POLL_STRETCHED_ABOVE)).unwrap_or(1).max(1);
        interval * stretch
    }
}

async fn changed(leadership: &mut Option<channel::Receiver<Leadership>>) -> Result<(), channel::error::RecvError> {
    match leadership {
        Some(leadership) => leadership.changed().await,
        None => std::future::pending().await,
    }
}

/// A decision, as long as TikTok has asked for a pause on the app key.
fn held_back(decision: Decision, paused_until: Option<i64>) -> Decision {
    match (decision, paused_until) {
        (Decision::Refresh { .. }, Some(until)) => Decision::Wait { until, because: Waiting::Backoff },
        (Decision::Wait { until, because: Waiting::Backoff }, Some(paused_until)) => {
            Decision::Wait { until: until.max(paused_until), because: Waiting::Backoff }
        }
        (decision, _) => decision,
    }
}

/// When `hoursUntilExpiry` is looked at next: each integration has its own point in the interval,
/// so that a fleet's writes are spread over it.
fn next_tick(now: i64, interval: i64, seed: u64) -> i64 {
    let phase = i64::try_from(seed % u64::try_from(interval).unwrap_or(1)).unwrap_or(0);
    let since = (now - phase).rem_euclid(interval);
    now + interval - since
}

/// An integration as `decide` sees it.
fn observe_entry<'a>(
    agenda: &Agenda,
    id: Id,
    entry: &'a Entry,
    check: &AppCheck,
    app_version: Option<&Version>,
) -> Observed<'a> {
    let pair = entry.known.held().map(|held| held.facts.pair);
    let is_app_unchanged = |reason: Option<Reason>, app: &AppAtFailure| {
        reason != Some(Reason::AppCredentialsRejected)
            || match app {
                AppAtFailure::Any => true,
                AppAtFailure::At(version) => app_version.is_none_or(|now| now == version),
                AppAtFailure::MaybeCorrected => false,
            }
    };
    let failure = entry.error_of_tokens().map(|error| {
        let still_applies = entry.failed_with.as_ref().is_some_and(|failed| {
            let app_unchanged = is_app_unchanged(error.known_reason(), &failed.app);
            !failed.is_past
                && (failed.pair.is_none() || failed.pair == pair)
                && failed.generation == entry.generation
                && app_unchanged
                && (entry.new_request().is_none() || failed.request == entry.request)
        });
        Failure { reason: error.known_reason().unwrap_or(Reason::ApiError), at: error.time.timestamp(), still_applies }
    });
    let code = entry.known.code();
    let code_failed = entry.code_failed.as_ref().map(|failed| {
        let still_applies = code.is_some_and(|code| code.digest == failed.code)
            && failed.generation == entry.generation
            && is_app_unchanged(Some(failed.reason), &failed.app);
        let failure = Failure { reason: failed.reason, at: failed.at, still_applies };
        CodeFailure { failure, failures: failed.failures }
    });
    Observed {
        suspended: entry.suspended,
        refresh_before: entry.refresh_before,
        request: entry.new_request(),
        credentials: match check {
            AppCheck::Missing { told, .. } => CredentialsState::Missing { told: *told },
            AppCheck::Valid(_) | AppCheck::Unchecked => CredentialsState::Presumed,
        },
        secret: match &entry.known {
            Known::NotFound => SecretState::NotFound,
            Known::Unread | Known::Forbidden(_) => SecretState::Forbidden,
            Known::Missing(_) => SecretState::Missing,
            Known::Held(held) => SecretState::Held(&held.facts),
        },
        code: code.map(|code| code.facts),
        secret_in_use: agenda.owner_before(id).is_some(),
        history: History {
            consecutive_failures: entry.status.consecutive_failures.unwrap_or(0),
            failure,
            code: code_failed,
        },
        seed: entry.seed(),
        access_refused: entry.wants_refresh_for_refusal(Clock::now().timestamp()),
    }
}
