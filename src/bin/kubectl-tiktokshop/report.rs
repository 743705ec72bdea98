//! What `refresh` prints: text for people, one JSON document for scripts.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tiktok_shop_operator::api::timestamp;
use tiktok_shop_operator::cluster::WatchedIntegration;

use crate::args::Output;
use crate::cluster::key;
use crate::judge::hours_until;
use crate::messages::{Messages, one_line};
use crate::terminal::{self, Colour, Terminal};

/// What became of an integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It has new tokens.
    Refreshed,
    /// Nothing was to be done.
    Skipped,
    /// It has no new tokens.
    Failed,
    /// Nobody knows yet.
    Timeout,
    /// A dry run: it would have been asked for.
    WouldRefresh,
}

impl Outcome {
    const fn mark(self) -> (&'static str, &'static str) {
        match self {
            Self::Refreshed => ("✅ ", "[ok] "),
            Self::Skipped => ("⏭️  ", "[skip] "),
            Self::Failed => ("❌ ", "[fail] "),
            Self::Timeout => ("⏳ ", "[wait] "),
            Self::WouldRefresh => ("🔎 ", "[dry] "),
        }
    }

    const fn summary_key(self) -> &'static str {
        match self {
            Self::Refreshed => "summary-refreshed",
            Self::Skipped => "summary-skipped",
            Self::Failed => "summary-failed",
            Self::Timeout => "summary-timeout",
            Self::WouldRefresh => "summary-would-refresh",
        }
    }

    const fn colour(self) -> Option<Colour> {
        match self {
            Self::Refreshed => Some(Colour::Green),
            Self::Failed => Some(Colour::Red),
            Self::Timeout => Some(Colour::Yellow),
            Self::Skipped | Self::WouldRefresh => None,
        }
    }
}

/// One integration's line, and its object in `results[]`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its team.
    pub team_id: Option<String>,
    /// What became of it.
    pub outcome: Outcome,
    /// The same in words.
    pub message: String,
    /// One word for why.
    pub reason: String,
    /// When its access token expires.
    pub access_token_expires_at: Option<String>,
    /// How long that is, to a tenth of an hour.
    pub hours_until_expiry: Option<f64>,
}

impl Line {
    /// The line of an integration as it is now.
    pub fn of(integration: &WatchedIntegration, outcome: Outcome, reason: &str, message: &str) -> Self {
        let (namespace, name) = key(integration);
        let expires_at = expiry(integration);
        Self {
            namespace,
            name,
            team_id: team(integration),
            outcome,
            message: one_line(message),
            reason: reason.to_owned(),
            access_token_expires_at: expires_at.map(timestamp::format),
            hours_until_expiry: expires_at.map(|at| hours_until(at, Utc::now())),
        }
    }

    fn key(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    fn text(&self, messages: &Messages, terminal: Terminal) -> String {
        let (emoji, word) = self.outcome.mark();
        let subject = subject_of(&self.namespace, &self.name, self.team_id.as_deref(), messages);
        let message = match self.outcome.colour() {
            Some(colour) => terminal.coloured(colour, &self.message),
            None => self.message.clone(),
        };
        format!("   {}{subject}: {message}\n", terminal.mark(emoji, word))
    }
}

/// An integration as a line names it.
pub fn subject(integration: &WatchedIntegration, messages: &Messages) -> String {
    let (namespace, name) = key(integration);
    subject_of(&namespace, &name, team(integration).as_deref(), messages)
}

fn subject_of(namespace: &str, name: &str, team: Option<&str>, messages: &Messages) -> String {
    let name = format!("{namespace}/{name}");
    match team {
        Some(team) => messages.with("integration-of-team", &[("name", &name), ("team", &one_line(team))]),
        None => messages.with("integration", &[("name", &name)]),
    }
}

/// When an integration's access token expires, where that is known.
pub fn expiry(integration: &WatchedIntegration) -> Option<DateTime<Utc>> {
    integration.status.as_ref()?.access_token_expires_at
}

/// An integration's team.
pub fn team(integration: &WatchedIntegration) -> Option<String> {
    integration.spec.as_ref().ok()?.team_id.clone()
}

/// How many of each.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// All.
    pub total: usize,
    /// With new tokens.
    pub refreshed: usize,
    /// With nothing to be done.
    pub skipped: usize,
    /// Without new tokens.
    pub failed: usize,
    /// Not known yet.
    pub timeout: usize,
    /// Of a dry run.
    pub would_refresh: usize,
}

impl Summary {
    fn of(lines: &[Line]) -> Self {
        let count = |outcome| lines.iter().filter(|line| line.outcome == outcome).count();
        Self {
            total: lines.len(),
            refreshed: count(Outcome::Refreshed),
            skipped: count(Outcome::Skipped),
            failed: count(Outcome::Failed),
            timeout: count(Outcome::Timeout),
            would_refresh: count(Outcome::WouldRefresh),
        }
    }

    /// Did everything go well?
    pub const fn is_well(self) -> bool {
        self.failed == 0 && self.timeout == 0
    }
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Document<'a> {
    results: &'a [Line],
    summary: Summary,
}

/// Prints results: as they come where a person reads along, else sorted at the end.
pub struct Report<'a> {
    messages: &'a Messages,
    terminal: Terminal,
    output: Output,
    dry_run: bool,
    lines: Vec<Line>,
}

impl<'a> Report<'a> {
    /// Begins: how many there are.
    pub fn begin(messages: &'a Messages, terminal: Terminal, output: Output, dry_run: bool, found: usize) -> Self {
        let report = Self { messages, terminal, output, dry_run, lines: Vec::new() };
        if output == Output::Text {
            let title = messages.text(if dry_run { "refresh-title-dry-run" } else { "refresh-title" });
            let found_text = messages.with("found", &[("count", &found.to_string())]);
            terminal::print(&format!(
                "{}{title}\n{}{found_text}\n",
                terminal.mark("🔄 ", ""),
                terminal.mark("📊 ", "")
            ));
            if found > 0 {
                let results = messages.text("results");
                terminal::print(&format!("\n{}{results}\n", terminal.mark("📋 ", "")));
            }
        }
        report
    }

    /// One result.
    pub fn add(&mut self, line: Line) {
        if self.streams() {
            self.terminal.clear_progress();
            terminal::print(&line.text(self.messages, self.terminal));
        }
        self.lines.push(line);
    }

    fn streams(&self) -> bool {
        self.output == Output::Text && self.terminal.is_interactive
    }

    /// Ends: the rest of the lines, and the summary.
    pub fn finish(mut self) -> Summary {
        self.terminal.clear_progress();
        let summary = Summary::of(&self.lines);
        let streamed = self.streams();
        self.lines.sort_by(|left, right| left.key().cmp(&right.key()));
        match self.output {
            Output::Json => print_json(&Document { results: &self.lines, summary }),
            Output::Text if self.lines.is_empty() => {}
            Output::Text => {
                let mut text = String::new();
                if !streamed {
                    text.extend(self.lines.iter().map(|line| line.text(self.messages, self.terminal)));
                }
                text.push_str(&self.summary(summary));
                terminal::print(&text);
            }
        }
        summary
    }

    fn summary(&self, summary: Summary) -> String {
        let title = self.messages.text("summary");
        let mut text = format!("\n{}{title}\n", self.terminal.mark("📈 ", ""));
        for (outcome, count) in [
            (Outcome::Refreshed, summary.refreshed),
            (Outcome::WouldRefresh, summary.would_refresh),
            (Outcome::Skipped, summary.skipped),
            (Outcome::Failed, summary.failed),
            (Outcome::Timeout, summary.timeout),
        ] {
            let is_usual = match outcome {
                Outcome::Refreshed => !self.dry_run,
                Outcome::WouldRefresh => self.dry_run,
                Outcome::Skipped | Outcome::Failed => true,
                Outcome::Timeout => false,
            };
            if is_usual || count > 0 {
                let (emoji, word) = outcome.mark();
                let line = self.messages.with(outcome.summary_key(), &[("count", &count.to_string())]);
                text.extend(["   ", self.terminal.mark(emoji, word), &line, "\n"]);
            }
        }
        text
    }
}

/// One JSON document. The order of its keys is that of the types, whatever is in them.
pub fn print_json(document: &impl Serialize) {
    let text = serde_json::to_string_pretty(document).expect("what is printed holds nothing that JSON cannot");
    terminal::print(&format!("{text}\n"));
}
