//! `kubectl tiktokshop status`: how the tokens are, for people and for scripts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use kube::runtime::watcher::Event;
use serde::Serialize;
use tiktok_shop_operator::api::{ConditionStatus, ConditionType, LastError, Reason, timestamp};
use tiktok_shop_operator::cluster::WatchedIntegration;
use tokio::time::Instant;
use unicode_width::UnicodeWidthStr as _;

use crate::args::{Output, StatusArgs};
use crate::cluster::{Events, Key, LastWrite, Listed, Selected, key, last_word};
use crate::errors::{Failure, place};
use crate::judge::{hours_until, is_suspended, overdue_since};
use crate::messages::{Messages, one_line};
use crate::report::{expiry, print_json, team};
use crate::terminal::{self, Colour, Screen, Size, Terminal, complain, cut, wrapped};
use crate::{INTERRUPTED, TERMINATED, resized, terminated};

/// `--watch` draws anew at least this often: the hours go on without any change.
const REDRAW: Duration = Duration::from_secs(30);

/// Changes within this time are drawn together.
const SETTLE: Duration = Duration::from_millis(250);

/// The widest error in the table; the whole of it shows `kubectl describe`.
const WIDEST_ERROR: usize = 60;

/// One integration, as it stands in `results[]`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    name: String,
    team_id: Option<String>,
    /// The condition `Ready`; `None` where the operator has not looked yet.
    ready: Option<&'static str>,
    reason: Option<String>,
    message: Option<String>,
    suspended: bool,
    overdue: bool,
    access_token_expires_at: Option<String>,
    hours_until_expiry: Option<f64>,
    refresh_token_expires_at: Option<String>,
    next_refresh_time: Option<String>,
    last_refresh_time: Option<String>,
    last_attempt_time: Option<String>,
    consecutive_failures: u32,
    last_error: Option<LastError>,
    #[serde(skip)]
    expires_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    attempted_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    overdue_since: Option<DateTime<Utc>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    total: usize,
    ready: usize,
    not_ready: usize,
    unknown: usize,
    suspended: usize,
    overdue: usize,
    /// False where integrations are overdue and the operator has written no status since.
    operator_seems_to_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    results: &'a [Row],
    summary: Summary,
}

/// Carries the command out; its exit code.
pub async fn status(
    selected: &Selected,
    options: &StatusArgs,
    messages: &Messages,
    terminal: Terminal,
) -> Result<u8, Failure> {
    let interrupt = tokio::signal::ctrl_c();
    tokio::pin!(interrupt);
    let mut events = selected.events();
    let Listed { found, left_out } = tokio::select! {
        listed = selected.list(&mut events) => listed?,
        _ = &mut interrupt => return Ok(INTERRUPTED),
    };
    selected.say_left_out(&left_out, messages);
    let mut view =
        View { selected, messages, terminal, known: found, last_write: Ok(None), looked_at: None, complaint: None };
    if !options.watch {
        view.show(options.output).await;
        return Ok(0);
    }
    tokio::select! {
        ended = view.watch(events) => ended.map(|()| 0),
        _ = &mut interrupt => Ok(INTERRUPTED),
        () = terminated() => Ok(TERMINATED),
    }
}

/// What is shown, and how.
struct View<'a> {
    selected: &'a Selected,
    messages: &'a Messages,
    terminal: Terminal,
    known: BTreeMap<Key, WatchedIntegration>,
    /// When the operator last wrote a status here; asked only where integrations are overdue.
    last_write: LastWrite,
    looked_at: Option<Instant>,
    /// Why nothing can be heard at present.
    complaint: Option<String>,
}

impl View<'_> {
    /// Shows it once.
    async fn show(&mut self, output: Output) {
        let rows = self.rows().await;
        if output == Output::Json {
            let summary = summary(&rows, &self.last_write);
            print_json(&Document { results: &rows, summary });
            return;
        }
        if rows.is_empty() {
            complain(&self.none_found());
            return;
        }
        terminal::print(&self.table(&rows, usize::MAX).join(""));
        if let Some(notice) = self.notice(&rows) {
            complain(&notice);
        }
    }

    /// Shows it anew at each change, for ever.
    async fn watch(&mut self, mut events: Events) -> Result<(), Failure> {
        let screen = self.terminal.is_interactive.then(Screen::open);
        let mut listed_anew: Option<BTreeMap<Key, WatchedIntegration>> = None;
        let mut first = true;
        loop {
            let rows = self.rows().await;
            match &screen {
                Some(screen) => screen.draw(&self.fitted(&rows, screen.size())),
                None => self.append(&rows, std::mem::take(&mut first)),
            }
            let mut redraw = Box::pin(tokio::time::sleep(REDRAW));
            let mut is_settling = false;
            let mut size = Box::pin(resized());
            loop {
                let event = tokio::select! {
                    () = &mut redraw => break,
                    () = &mut size, if screen.is_some() => break,
                    event = events.next() => event,
                };
                match event {
                    Some(Ok(Event::Apply(integration))) if self.selected.wants(&integration) => {
                        self.known.insert(key(&integration), integration);
                    }
                    Some(Ok(Event::Delete(integration))) => {
                        self.known.remove(&key(&integration));
                    }
                    Some(Ok(Event::Init)) => listed_anew = Some(BTreeMap::new()),
                    Some(Ok(Event::InitApply(integration))) if self.selected.wants(&integration) => {
                        listed_anew.get_or_insert_default().insert(key(&integration), integration);
                    }
                    Some(Ok(Event::InitDone)) => self.known = listed_anew.take().unwrap_or_default(),
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => {
                        let failure = self.selected.watch_failure(&error);
                        if failure.is_final() {
                            return Err(failure);
                        }
                        // A watch that has to begin anew is no news; a server that is away is.
                        let is_away = matches!(failure, Failure::Unreachable { .. });
                        self.complaint = is_away.then(|| failure.say(self.messages));
                        if is_away {
                            redraw = Box::pin(tokio::time::sleep(SETTLE));
                        }
                        continue;
                    }
                    None => return Ok(()),
                }
                self.complaint = None;
                if !is_settling {
                    is_settling = true;
                    redraw = Box::pin(tokio::time::sleep(SETTLE));
                }
            }
        }
    }

    /// All of it below what was printed before, for whoever reads that.
    fn append(&self, rows: &[Row], is_first: bool) {
        let mut text = if is_first { String::new() } else { "\n".to_owned() };
        if rows.is_empty() {
            text.extend([&self.none_found(), "\n"]);
        } else {
            text.push_str(&self.table(rows, usize::MAX).join(""));
        }
        for notice in self.notice(rows).iter().chain(&self.complaint) {
            text.extend(["\n", notice, "\n"]);
        }
        terminal::print(&text);
    }

    /// As many lines as fit, the soonest expiry first.
    fn fitted(&self, rows: &[Row], size: Size) -> Vec<String> {
        let (seconds, now) = (REDRAW.as_secs().to_string(), self.messages.time(Utc::now()));
        let title = self.messages.with("status-title", &[("seconds", &seconds), ("time", &now)]);
        let mut notices = Vec::new();
        for notice in self.notice(rows).iter().chain(&self.complaint) {
            notices.push(String::new());
            notices.extend(wrapped(notice, size.width));
        }
        let mut lines = vec![cut(&title, size.width), String::new()];
        if rows.is_empty() {
            lines.extend(wrapped(&self.none_found(), size.width));
        } else {
            // Beside the title, the head of the table, and a line of its own for the rest, where there is one.
            let room = size.height.saturating_sub(lines.len() + 1 + notices.len() + 1);
            let shown = if rows.len() <= room { rows.len() } else { room.saturating_sub(1) };
            lines.extend(self.table(&rows[..shown], size.width).into_iter().map(|line| line.trim_end().to_owned()));
            if let Some(more) = rows.len().checked_sub(shown).filter(|more| *more > 0) {
                lines.push(cut(&self.messages.with("more-rows", &[("count", &more.to_string())]), size.width));
            }
        }
        lines.extend(notices);
        // The last line of the screen stays empty: the cursor rests there.
        lines.truncate(size.height.saturating_sub(1));
        lines
    }

    fn none_found(&self) -> String {
        self.messages.with("none-found", &[("where", &place(self.messages, self.selected.namespace.as_deref()))])
    }

    /// What is to be said of an operator that lets integrations lie.
    fn notice(&self, rows: &[Row]) -> Option<String> {
        let Ok(last_write) = self.last_write else { return None };
        if operator_seems_to_run(rows, &self.last_write) {
            return None;
        }
        let count = rows.iter().filter(|row| row.overdue).count().to_string();
        let last = last_word(last_write, self.messages);
        Some(self.messages.with("no-operator", &[("count", &count), ("last", &last)]))
    }

    /// The soonest expiry first; those without one at the end.
    async fn rows(&mut self) -> Vec<Row> {
        let now = Utc::now();
        let mut rows: Vec<Row> = self.known.values().map(|integration| row(integration, now)).collect();
        rows.sort_by_key(|row| (Reverse(row.expires_at.is_some()), row.expires_at));
        // Not at each of many changes.
        let is_long_ago = self.looked_at.is_none_or(|looked_at| looked_at.elapsed() >= REDRAW);
        if is_long_ago && !operator_seems_to_run(&rows, &self.last_write) {
            self.last_write = self.selected.last_status_write().await;
            self.looked_at = Some(Instant::now());
        }
        rows
    }

    /// The lines of the table, cut to a width, each with its end.
    fn table(&self, rows: &[Row], width: usize) -> Vec<String> {
        let (messages, with_namespace) = (self.messages, self.selected.namespace.is_none());
        let mut head = vec!["column-namespace"];
        head.truncate(usize::from(with_namespace));
        let status_column = head.len() + 2;
        head.extend(["column-name", "column-team", "column-status", "column-hours", "column-expires", "column-error"]);
        head.push("column-todo");
        let mut lines: Vec<Vec<String>> = vec![head.into_iter().map(|key| messages.text(key)).collect()];
        lines.extend(rows.iter().map(|row| self.cells(row, with_namespace)));
        let widths: Vec<usize> = (0..lines[0].len())
            .map(|column| lines.iter().map(|line| line[column].width()).max().unwrap_or(0))
            .collect();
        let mut drawn = Vec::with_capacity(lines.len());
        for (index, line) in lines.iter().enumerate() {
            let (mut text, mut left) = (String::new(), width);
            for (column, cell) in line.iter().enumerate() {
                let cell = cut(cell, left);
                left -= cell.width();
                let colour = index.checked_sub(1).filter(|_| column == status_column).and_then(|at| rows[at].colour());
                text.push_str(&colour.map_or_else(|| cell.clone(), |colour| self.terminal.coloured(colour, &cell)));
                if column + 1 < line.len() {
                    let gap = (widths[column] + 3).saturating_sub(cell.width()).min(left);
                    text.push_str(&" ".repeat(gap));
                    left -= gap;
                }
            }
            text.push('\n');
            drawn.push(text);
        }
        drawn
    }

    fn cells(&self, row: &Row, with_namespace: bool) -> Vec<String> {
        let dash = || "-".to_owned();
        let mut line = Vec::new();
        if with_namespace {
            line.push(row.namespace.clone());
        }
        let todo = match row.cause() {
            _ if row.overdue => self.messages.text("todo-overdue"),
            Some(cause) => self.messages.todo(cause, &row.namespace, &row.name),
            None => dash(),
        };
        line.extend([
            row.name.clone(),
            row.team_id.as_deref().map_or_else(dash, one_line),
            row.reason.clone().unwrap_or_else(dash),
            row.hours_until_expiry.map_or_else(dash, |hours| format!("{hours:.1}")),
            row.expires_at.map_or_else(dash, |at| self.messages.time(at)),
            row.last_error.as_ref().map_or_else(dash, |error| cut(&one_line(&error.message), WIDEST_ERROR)),
            todo,
        ]);
        line
    }
}

fn row(integration: &WatchedIntegration, now: DateTime<Utc>) -> Row {
    let (namespace, name) = key(integration);
    let status = integration.status.as_ref();
    let ready = status.and_then(|status| status.condition(ConditionType::Ready));
    let expires_at = expiry(integration);
    let attempted_at = status.and_then(|status| status.last_attempt_time);
    let overdue_since = overdue_since(integration, now);
    Row {
        namespace,
        name,
        team_id: team(integration),
        ready: ready.map(|ready| ready.status.as_str()),
        reason: ready.map(|ready| ready.reason.to_string()),
        message: ready.map(|ready| one_line(&ready.message)),
        suspended: is_suspended(integration),
        overdue: overdue_since.is_some(),
        access_token_expires_at: expires_at.map(timestamp::format),
        hours_until_expiry: expires_at.map(|at| hours_until(at, now)),
        refresh_token_expires_at: status.and_then(|status| status.refresh_token_expires_at).map(timestamp::format),
        next_refresh_time: status.and_then(|status| status.next_refresh_time).map(timestamp::format),
        last_refresh_time: status.and_then(|status| status.last_refresh_time).map(timestamp::format),
        last_attempt_time: attempted_at.map(timestamp::format),
        consecutive_failures: status.and_then(|status| status.consecutive_failures).unwrap_or(0),
        last_error: status.and_then(|status| status.last_error.clone()),
        expires_at,
        attempted_at,
        overdue_since,
    }
}

fn summary(rows: &[Row], last_write: &LastWrite) -> Summary {
    let count = |ready: &str| rows.iter().filter(|row| row.ready == Some(ready)).count();
    let (ready, not_ready) = (count(ConditionStatus::True.as_str()), count(ConditionStatus::False.as_str()));
    Summary {
        total: rows.len(),
        ready,
        not_ready,
        unknown: rows.len() - ready - not_ready,
        suspended: rows.iter().filter(|row| row.suspended).count(),
        overdue: rows.iter().filter(|row| row.overdue).count(),
        operator_seems_to_run: operator_seems_to_run(rows, last_write),
    }
}

/// False where integrations are overdue, and since then nothing was tried and no status written. What could not be asked
/// is held against nobody.
fn operator_seems_to_run(rows: &[Row], last_write: &LastWrite) -> bool {
    let Ok(last_write) = *last_write else { return true };
    let earliest = rows.iter().filter_map(|row| row.overdue_since).min();
    let mut signs = rows.iter().filter_map(|row| row.attempted_at).chain(last_write);
    earliest.is_none_or(|earliest| signs.any(|at| at >= earliest))
}

impl Row {
    /// What is most worth reading: the failure behind `RefreshFailing`, else the reason itself.
    fn cause(&self) -> Option<&str> {
        let is_failing = self.reason.as_deref() == Some(Reason::RefreshFailing.as_str());
        let error = self.last_error.as_ref().filter(|_| is_failing);
        error.map(|error| error.reason.as_str()).or(self.reason.as_deref())
    }

    fn is_well(&self) -> bool {
        !self.overdue && self.reason.as_deref() == Some(Reason::TokenValid.as_str())
    }

    fn colour(&self) -> Option<Colour> {
        match (self.ready, self.last_error.is_some()) {
            _ if self.suspended => None,
            (Some("True"), false) if self.is_well() => Some(Colour::Green),
            (Some("False"), _) => Some(Colour::Red),
            _ => Some(Colour::Yellow),
        }
    }
}
