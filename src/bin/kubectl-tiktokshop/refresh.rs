//! `kubectl tiktokshop refresh`: ask through the annotation, then watch until each has its result.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::{Stream, StreamExt as _, stream};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::Event;
use serde_json::json;
use tiktok_shop_operator::api::TikTokShopIntegrationStatus;
use tiktok_shop_operator::api::names::REFRESH_REQUESTED_AT;
use tiktok_shop_operator::cluster::WatchedIntegration;
use tokio::time::{Instant, MissedTickBehavior};

use crate::args::{PROGRAM, RefreshArgs};
use crate::cluster::{Events, Key, Listed, REQUEST_TIMEOUT, Selected, key, last_word};
use crate::errors::Failure;
use crate::judge::{Answer, Failed, Verdict, answer, judge, request};
use crate::messages::Messages;
use crate::report::{Line, Outcome, Report, Summary, expiry};
use crate::terminal::{Terminal, complain};

/// Requests written at the same time.
const WRITES: usize = 16;

/// How often an integration that changes under our hands is judged.
const JUDGEMENTS: usize = 5;

/// Names that are listed where the waiting is stopped.
const NAMES: usize = 10;

/// Between two drawings of the progress.
const TICK: Duration = Duration::from_millis(500);

/// How the command ended.
pub enum End {
    /// With a result for each.
    Finished(Summary),
    /// By Ctrl-C.
    Interrupted,
}

/// What came of writing a request.
enum Asked {
    /// It stands there, written on this status.
    Written(Box<TikTokShopIntegrationStatus>),
    /// It changed meanwhile, and is judged otherwise now.
    Judged(Box<WatchedIntegration>, Verdict),
    /// It is gone.
    Deleted,
    /// It changed again and again.
    Conflict,
    /// It could not be written.
    Failed(Failure),
}

/// One integration that is asked for.
struct Entry {
    /// As the watch told last.
    latest: WatchedIntegration,
    /// What we wait for the operator to have handled; another's value where it took the place of ours.
    request: String,
    /// The watch has shown our request.
    is_seen: bool,
    /// The status that the request was written on; none before it is written.
    before: Option<TikTokShopIntegrationStatus>,
}

struct Run<'a> {
    messages: &'a Messages,
    terminal: Terminal,
    options: &'a RefreshArgs,
    report: Report<'a>,
    open: BTreeMap<Key, Entry>,
    asked: usize,
    /// The operator has answered something.
    is_heard: bool,
    /// Why nothing can be heard at present.
    away: Option<Failure>,
    began: Instant,
    began_at: DateTime<Utc>,
    /// The last request or result: the patience counts from there.
    last_news: Instant,
    /// Why requests can't be written or watched, said once each.
    complaints: Vec<String>,
}

/// Carries the command out.
pub async fn refresh(
    selected: &Selected,
    options: &RefreshArgs,
    messages: &Messages,
    terminal: Terminal,
) -> Result<End, Failure> {
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut events = selected.events();
    let Listed { found: listed, left_out } = tokio::select! {
        listed = selected.list(&mut events) => listed?,
        _ = &mut interrupt => {
            complain(&messages.text("interrupted-idle"));
            return Ok(End::Interrupted);
        }
    };
    selected.say_left_out(&left_out, messages);
    let report = Report::begin(messages, terminal, options.output, options.dry_run, listed.len());
    if listed.is_empty() {
        let place = crate::errors::place(messages, selected.namespace.as_deref());
        complain(&messages.with("none-found", &[("where", &place)]));
    }
    let now = Instant::now();
    let mut run = Run {
        messages,
        terminal,
        options,
        report,
        open: BTreeMap::new(),
        asked: 0,
        is_heard: false,
        away: None,
        began: now,
        began_at: Utc::now(),
        last_news: now,
        complaints: Vec::new(),
    };
    // New for each run, and no two runs of one second share it.
    let value = format!(
        "{}-{}",
        Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        &tiktok_shop_operator::random_id()[..8]
    );
    for (key, integration) in listed {
        match judge(&integration, options.force, Utc::now()) {
            Verdict::Ask(why) if options.dry_run => run.would_refresh(&integration, why.as_str()),
            Verdict::Ask(_) => {
                let entry = Entry { latest: integration, request: value.clone(), is_seen: false, before: None };
                run.open.insert(key, entry);
            }
            verdict => run.judged(&integration, verdict),
        }
    }
    run.asked = run.open.len();
    // The soonest expiry first; what the operator knows no expiry of before that.
    let mut asks: Vec<_> = run.open.values().map(|entry| entry.latest.clone()).collect();
    asks.sort_by_key(expiry);
    let sent = RefCell::new(BTreeSet::new());
    let writes = stream::iter(asks)
        .map(|integration| async {
            let key = key(&integration);
            sent.borrow_mut().insert(key.clone());
            (key, ask(selected, integration, &value, options.force).await)
        })
        .buffer_unordered(WRITES);
    let is_interrupted = run.wait(selected, events, writes, interrupt).await;
    if is_interrupted {
        run.interrupted(&sent.borrow());
    }
    let summary = run.report.finish();
    for complaint in &run.complaints {
        complain(complaint);
    }
    Ok(if is_interrupted { End::Interrupted } else { End::Finished(summary) })
}

/// Writes a request on condition of the version that was judged; judges again where it changed.
async fn ask(selected: &Selected, mut judged: WatchedIntegration, value: &str, force: bool) -> Asked {
    let (namespace, name) = key(&judged);
    let api = selected.api(&namespace);
    let params = PatchParams { field_manager: Some(PROGRAM.to_owned()), ..PatchParams::default() };
    for _ in 0..JUDGEMENTS {
        let patch = Patch::Merge(json!({"metadata": {
            "resourceVersion": judged.resource_version(),
            "annotations": {REFRESH_REQUESTED_AT: value},
        }}));
        let write = api.patch(&name, &params, &patch);
        let before = || Asked::Written(Box::new(judged.status.clone().unwrap_or_default()));
        match tokio::time::timeout(REQUEST_TIMEOUT, write).await {
            Err(_) => return Asked::Failed(Failure::Slow(REQUEST_TIMEOUT.as_secs())),
            Ok(Ok(_)) => return before(),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Asked::Deleted,
            Ok(Err(kube::Error::Api(status))) if status.code == 409 => {}
            Ok(Err(error)) => return Asked::Failed(selected.failure(&error, "patch", Some(&namespace))),
        }
        let now = match tokio::time::timeout(REQUEST_TIMEOUT, api.get_opt(&name)).await {
            Err(_) => return Asked::Failed(Failure::Slow(REQUEST_TIMEOUT.as_secs())),
            Ok(Err(error)) => return Asked::Failed(selected.failure(&error, "get", Some(&namespace))),
            Ok(Ok(None)) => return Asked::Deleted,
            Ok(Ok(Some(now))) => now,
        };
        if request(&now) == Some(value) {
            // The answer to our own write was lost on its way, and it was sent again.
            return before();
        }
        judged = now;
        let verdict = judge(&judged, force, Utc::now());
        if !matches!(verdict, Verdict::Ask(_)) {
            return Asked::Judged(Box::new(judged), verdict);
        }
    }
    Asked::Conflict
}

impl Run<'_> {
    /// Waits until each has its result, nothing has come for too long, or a person stops it: then true.
    async fn wait(
        &mut self,
        selected: &Selected,
        mut events: Events,
        writes: impl Stream<Item = (Key, Asked)>,
        mut interrupt: impl Future<Output = std::io::Result<()>> + Unpin,
    ) -> bool {
        tokio::pin!(writes);
        let mut is_writing = true;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.last_news = Instant::now();
        while !self.open.is_empty() {
            let patience = self.last_news + self.options.timeout;
            tokio::select! {
                biased;
                _ = &mut interrupt => return true,
                write = writes.next(), if is_writing => match write {
                    Some((key, asked)) => self.written(&key, asked),
                    None => is_writing = false,
                },
                event = events.next() => match event {
                    Some(Ok(event)) => self.event(event),
                    Some(Err(error)) => {
                        let failure = selected.watch_failure(&error);
                        if failure.is_final() {
                            self.blind(&failure);
                        } else {
                            self.away = Some(failure);
                        }
                    }
                    None => return false,
                },
                _ = tick.tick() => self.progress(),
                () = tokio::time::sleep_until(patience) => self.timed_out(selected).await,
            }
        }
        false
    }

    fn event(&mut self, event: Event<WatchedIntegration>) {
        self.away = None;
        match event {
            Event::Apply(integration) | Event::InitApply(integration) => self.told(integration),
            Event::Delete(integration) => self.deleted(&key(&integration)),
            Event::Init | Event::InitDone => {}
        }
    }

    /// The watch tells of an integration.
    fn told(&mut self, integration: WatchedIntegration) {
        let key = key(&integration);
        let Some(entry) = self.open.get_mut(&key) else { return };
        entry.latest = integration;
        match request(&entry.latest) {
            Some(value) if value == entry.request => entry.is_seen = true,
            // Somebody asked after us: the operator answers the last one. What stood there before ours is no news.
            Some(other) if entry.is_seen => other.clone_into(&mut entry.request),
            _ => {}
        }
        self.look(&key);
    }

    /// Is there an answer? Only what the watch told after our request counts.
    fn look(&mut self, key: &Key) {
        let Some(entry) = self.open.get(key).filter(|entry| entry.is_seen) else { return };
        let Some(before) = &entry.before else { return };
        let Some(answer) = answer(&entry.latest, &entry.request, before) else { return };
        let Some(entry) = self.open.remove(key) else { return };
        self.is_heard = true;
        match answer {
            Answer::Refreshed => self.refreshed(&entry.latest),
            Answer::Failed(failed) => self.failed(&entry.latest, &failed),
            Answer::Suspended => self.judged(&entry.latest, Verdict::Suspended),
        }
        self.last_news = Instant::now();
        self.progress();
    }

    /// A request was written, or not.
    fn written(&mut self, key: &Key, asked: Asked) {
        if let Asked::Written(before) = asked {
            if let Some(entry) = self.open.get_mut(key) {
                entry.before = Some(*before);
            }
            self.last_news = Instant::now();
            // The watch may have been faster.
            self.look(key);
            return;
        }
        let Some(entry) = self.open.remove(key) else { return };
        match asked {
            Asked::Written(_) => {}
            Asked::Judged(integration, verdict) => self.judged(&integration, verdict),
            Asked::Deleted => self.fail(&entry.latest, "Deleted", &self.messages.text("why-deleted")),
            Asked::Conflict => self.fail(&entry.latest, "Conflict", &self.messages.text("why-conflict")),
            Asked::Failed(failure) => {
                let said = failure.say(self.messages);
                self.fail(&entry.latest, "RequestFailed", &self.messages.with("why-request", &[("error", &said)]));
                self.complain_once(said);
            }
        }
        self.last_news = Instant::now();
    }

    fn complain_once(&mut self, said: String) {
        if !self.complaints.contains(&said) {
            self.complaints.push(said);
        }
    }

    fn deleted(&mut self, key: &Key) {
        if let Some(entry) = self.open.remove(key) {
            self.fail(&entry.latest, "Deleted", &self.messages.text("why-deleted"));
            self.last_news = Instant::now();
        }
    }

    fn refreshed(&mut self, integration: &WatchedIntegration) {
        let message = match expiry(integration) {
            Some(at) => self.messages.with("result-refreshed", &[("expires", &self.messages.time(at))]),
            None => self.messages.text("result-refreshed-unknown"),
        };
        self.report.add(Line::of(integration, Outcome::Refreshed, "Refreshed", &message));
    }

    fn would_refresh(&mut self, integration: &WatchedIntegration, reason: &str) {
        let message = match expiry(integration) {
            Some(at) => self.messages.with("result-would-refresh", &[("expires", &self.messages.time(at))]),
            None => self.messages.text("result-would-refresh-unknown"),
        };
        self.report.add(Line::of(integration, Outcome::WouldRefresh, reason, &message));
    }

    /// What is settled without asking.
    fn judged(&mut self, integration: &WatchedIntegration, verdict: Verdict) {
        let (reason, why) = match verdict {
            Verdict::Failed(failed) => return self.failed(integration, &failed),
            Verdict::Suspended => ("Suspended", self.messages.text("why-suspended")),
            Verdict::NotDue | Verdict::Ask(_) => ("NotDue", self.not_due(integration)),
        };
        let message = self.messages.with("result-skipped", &[("why", &why)]);
        self.report.add(Line::of(integration, Outcome::Skipped, reason, &message));
    }

    fn not_due(&self, integration: &WatchedIntegration) -> String {
        if let Some(expires_at) = expiry(integration) {
            let hours = crate::judge::hours_until(expires_at, Utc::now());
            return self.messages.with("why-hours", &[("hours", &format!("{hours:.1}"))]);
        }
        let next = integration.status.as_ref().and_then(|status| status.next_refresh_time);
        let time = next.map(|next| self.messages.time(next)).unwrap_or_default();
        self.messages.with("why-not-due", &[("time", &time)])
    }

    fn failed(&mut self, integration: &WatchedIntegration, failed: &Failed) {
        let why = self.messages.failure(&failed.reason, &failed.detail);
        self.fail(integration, &failed.reason, &why);
    }

    fn fail(&mut self, integration: &WatchedIntegration, reason: &str, why: &str) {
        let message = self.messages.with("result-failed", &[("why", why)]);
        self.report.add(Line::of(integration, Outcome::Failed, reason, &message));
    }

    /// Nothing came for so long that no more is waited for.
    async fn timed_out(&mut self, selected: &Selected) {
        if let Some(failure) = self.away.take() {
            return self.blind(&failure);
        }
        let (reason, why) = if self.is_heard {
            let timeout = format!("{} s", self.options.timeout.as_secs());
            ("StillUnderWay", self.messages.with("why-still-under-way", &[("timeout", &timeout)]))
        } else {
            let seconds = self.last_news.elapsed().as_secs().to_string();
            let last_write = match selected.last_status_write().await {
                Ok(last_write) => last_write,
                Err(failure) => return self.blind(&failure),
            };
            let count = self.open.len().to_string();
            let values = [("count", count.as_str()), ("seconds", &seconds)];
            // Status has whole seconds.
            self.complain_once(match last_write {
                Some(time) if time.timestamp() >= self.began_at.timestamp() => {
                    let time = self.messages.time(time);
                    self.messages.with("no-answer-at-work", &[values[0], values[1], ("time", &time)])
                }
                last_write => {
                    let last = last_word(last_write, self.messages);
                    self.messages.with("no-answer", &[values[0], values[1], ("last", &last)])
                }
            });
            ("NoAnswer", self.messages.with("why-no-answer", &[("seconds", &seconds)]))
        };
        self.give_up(reason, &why);
    }

    /// The watch can't be had: nothing will be known of what was asked for.
    fn blind(&mut self, failure: &Failure) {
        let said = failure.say(self.messages);
        self.give_up("WatchFailed", &said);
        self.complain_once(said);
    }

    fn give_up(&mut self, reason: &str, why: &str) {
        let message = self.messages.with("result-timeout", &[("why", why)]);
        for entry in std::mem::take(&mut self.open).into_values() {
            self.report.add(Line::of(&entry.latest, Outcome::Timeout, reason, &message));
        }
    }

    /// A person stopped the waiting: says what is still under way. A request that was sent may stand there.
    fn interrupted(&mut self, sent: &BTreeSet<Key>) {
        let (under_way, not_asked): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.open).into_iter().partition(|(key, _)| sent.contains(key));
        let all = under_way.iter().map(|((namespace, name), _)| format!("{namespace}/{name}"));
        let mut names = all.take(NAMES).collect::<Vec<_>>().join(", ");
        if let Some(more) = under_way.len().checked_sub(NAMES).filter(|more| *more > 0) {
            names = self.messages.with("and-more", &[("names", &names), ("count", &more.to_string())]);
        }
        for (entries, reason, why) in
            [(&under_way, "Interrupted", "why-interrupted"), (&not_asked, "NotAsked", "why-not-asked")]
        {
            let message = self.messages.with("result-timeout", &[("why", &self.messages.text(why))]);
            for (_, entry) in entries {
                self.report.add(Line::of(&entry.latest, Outcome::Timeout, reason, &message));
            }
        }
        self.complaints.push(if under_way.is_empty() {
            self.messages.text("interrupted-idle")
        } else {
            self.messages.with("interrupted", &[("count", &under_way.len().to_string()), ("names", &names)])
        });
    }

    fn progress(&self) {
        if !self.terminal.draws_progress || self.open.is_empty() {
            return;
        }
        let total = self.asked;
        let done = total - self.open.len();
        let (done_text, total_text) = (done.to_string(), total.to_string());
        let counts = [("done", done_text.as_str()), ("total", total_text.as_str())];
        let line = if done == 0 {
            self.messages.with("progress-start", &counts)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "a count of integrations fits")]
            let rate = done as f64 / self.began.elapsed().as_secs_f64().max(0.001);
            #[expect(clippy::cast_precision_loss, reason = "a count of integrations fits")]
            let left = Duration::try_from_secs_f64((total - done) as f64 / rate).unwrap_or(Duration::MAX);
            let values = [counts[0], counts[1], ("rate", &format!("{rate:.1}")), ("left", &clock(left.as_secs()))];
            self.messages.with("progress", &values)
        };
        self.terminal.progress(&format!("{}{line}", self.terminal.mark("⏳ ", "")));
    }
}

/// Seconds as `m:ss`, hours before them where there are any.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}
